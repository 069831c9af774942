//! The gRPC coat of an answer.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use super::Answer;
use crate::error::TOKEN_KEY;

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
