//! Records: from the client library's form to ours.

use rdkafka::message::BorrowedMessage;

use super::native;
use crate::event::Record;

/// A record as Kafka gave it.
pub fn to_record(message: &BorrowedMessage<'_>) -> Record {
    native::to_record(message)
}
