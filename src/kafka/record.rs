//! Records as the client library has them, and as they are meant.

use std::panic::{self, AssertUnwindSafe};

use bytes::Bytes;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};

use crate::event::Record;

/// A record as Kafka gave it.
pub fn to_record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        topic: message.topic().into(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(Bytes::copy_from_slice),
        headers: message.headers().map(headers).unwrap_or_default(),
        value: message.payload().map(Bytes::copy_from_slice),
    }
}

/// The headers of a record. The client library panics on a name that is not UTF-8: such a header has no name
/// that anybody here asks for, and is left out.
fn headers(headers: &BorrowedHeaders) -> Vec<(String, Option<Bytes>)> {
    (0..headers.count())
        .filter_map(|index| {
            panic::catch_unwind(AssertUnwindSafe(|| {
                let header = headers.get(index);
                (
                    header.key.to_owned(),
                    header.value.map(Bytes::copy_from_slice),
                )
            }))
            .ok()
        })
        .collect()
}
