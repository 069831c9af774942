//! Records: from the client library's form to ours.

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

/// The headers of a record. rdkafka panics on a name that is not UTF-8. Such a header is left out: no header that is read
/// has such a name.
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
