//! The gRPC coat of an answer.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use super::Answer;
use super::page::PageRequest;
use crate::error::{Error, TOKEN_KEY};

/// A service with the bounds and the compression that all have. (The types that are generated for services share
/// no trait.)
macro_rules! service {
    ($server:expr) => {
        $server
            .max_decoding_message_size($crate::query::MAX_REQUEST_BYTES)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Zstd)
    };
}
pub(crate) use service;

/// A response with its token. The server sends it in the trailers, where it reflects what was sent.
pub fn respond<T>(answer: Answer<T>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(answer.body);
    if let Ok(token) = answer.token.to_string().parse() {
        response.metadata_mut().insert(TOKEN_KEY, token);
    }
    response
}

/// The same instant.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        // A leap second has more than 999,999,999 of them in chrono, which Timestamp forbids.
        nanos: time.timestamp_subsec_nanos().min(999_999_999) as i32,
    }
}

/// The instant as of which the caller asks: the field `as_of`.
///
/// # Errors
/// As [`instant`].
pub fn as_of(time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>, Error> {
    instant("asOf", time)
}

/// The page that the fields `page_size` and `page_token` ask for.
pub fn page(size: i32, token: String) -> PageRequest {
    PageRequest { size, token }
}

/// An instant that a request names, cut to microseconds.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field`: it lies outside the years 1 to 9999, or its nanoseconds are none.
pub fn instant(field: &str, time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>, Error> {
    const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let read = |time: Timestamp| {
        let nanos = u32::try_from(time.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?;
        let seconds = Some(time.seconds).filter(|seconds| YEARS.contains(seconds))?;
        DateTime::from_timestamp(seconds, nanos - nanos % 1_000)
    };
    match time {
        None => Ok(None),
        Some(time) => match read(time) {
            Some(time) => Ok(Some(time)),
            None => Err(Error::invalid(
                field,
                "is no valid google.protobuf.Timestamp",
            )),
        },
    }
}
