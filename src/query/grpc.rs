//! What the gRPC adapters share: how an answer becomes a response, and how fields of requests are
//! read.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use super::answer::Answer;
use super::check_past;
use super::deadline;
use super::page::PageRequest;
use super::watch::Limits;
use crate::error::{Error, add_metadata};

/// Sets the size limit and the compression of a service. It is a macro because the generated types
/// of services share no trait.
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

/// A response with the position of its answer in the metadata. The server moves it to the trailers,
/// so that it reflects what was actually sent.
pub fn respond<T>(answer: Answer<T>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(answer.body);
    add_metadata(response.metadata_mut(), &answer.position.metadata());
    response
}

/// What ends a stream from outside: the caller's deadline, and the connection.
pub fn limits<T>(request: &tonic::Request<T>) -> Limits {
    Limits {
        time: deadline::of_stream(request.metadata().as_ref()),
        closing: request.extensions().get().cloned(),
    }
}

/// The protobuf form of an instant.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        // In chrono a leap second counts nanoseconds beyond 999,999,999, which Timestamp forbids.
        nanos: time.timestamp_subsec_nanos().min(999_999_999) as i32,
    }
}

/// The page that the fields `page_size` and `page_token` ask for.
pub fn page(size: i32, token: String) -> PageRequest {
    PageRequest { size, token }
}

/// An instant of a request, truncated to microseconds.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field`: it lies before the year 1, or its nanoseconds are out of range.
pub fn time(field: &str, time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>, Error> {
    const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let read = |time: Timestamp| {
        let nanos = u32::try_from(time.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?;
        let seconds = Some(time.seconds).filter(|seconds| YEARS.contains(seconds))?;
        DateTime::from_timestamp(seconds, nanos - nanos % 1_000)
    };
    let read = |time| {
        read(time).ok_or_else(|| Error::invalid(field, "is not a valid google.protobuf.Timestamp"))
    };
    time.map(read).transpose()
}

/// A past instant of a request, truncated to microseconds.
///
/// # Errors
/// As [`time`], and INVALID_ARGUMENT: it lies ahead.
pub fn past_time(field: &str, time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>, Error> {
    let time = self::time(field, time)?;
    time.map(|time| check_past(field, time)).transpose()
}
