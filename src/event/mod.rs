//! Reading records: from the bytes of `user.events` to an [`Event`] with one meaning.
//!
//! Answers what a record says, whichever of the four envelope dialects, spellings of types and
//! shapes of `updatedFields` its producer chose. Promises: no I/O, no panic and no unbounded
//! recursion whatever the bytes are; the same record reads the same in every domain; a [`Bad`]
//! names reason and field, never what came from outside.
//!
//! Reading goes in steps, because a record is judged in an order: [`Envelope::read`] finds the
//! type, [`Envelope::event_id`] the id (looked up before the payload is judged), and
//! [`Envelope::decode`] reads and checks all the rest. Tombstones and oversized values are judged
//! by the caller before any of them.

mod address;
mod bad;
mod catalogue;
mod changes;
mod envelope;
mod fields;
mod time;
mod versions;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use address::Address;
pub use bad::Bad;
pub use catalogue::*;
pub use changes::{Change, Changes, FieldChange};
pub use envelope::{Envelope, TypeName};
pub use time::rfc3339;

/// A record of the log, as the consumer got it.
#[derive(Clone)]
pub struct Record {
    /// The topic it stands in.
    pub topic: Arc<str>,
    /// Its partition of that topic.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Kafka's timestamp, in milliseconds since the epoch; `None` where the log has none.
    pub timestamp_ms: Option<i64>,
    /// The key, as bytes.
    pub key: Option<Bytes>,
    /// The headers in their order; of one name, the last counts.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl Record {
    /// What tells it from any other record that might stand in its place: 16 bytes of the SHA-256 of time, key and value.
    pub fn fingerprint(&self) -> Uuid {
        let mut bytes = Vec::new();
        bytes.extend(self.timestamp_ms.unwrap_or(-1).to_be_bytes());
        for part in [&self.key, &self.value] {
            // Lengths first, so that no two records are the same bytes.
            let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
            bytes.extend(length.to_be_bytes());
            bytes.extend(part.iter().flatten());
        }
        hash16(&bytes)
    }
}

/// Tells the coordinates only: key, headers and value hold personal data.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Record({}/{}@{})",
            self.topic, self.partition, self.offset
        )
    }
}

/// What a record means, in the catalogue's terms.
///
/// Holds personal data: its `Debug` is for tests, not for logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The event id: 1 to 255 characters, opaque.
    pub id: String,
    /// The type, `None` where nobody knows it.
    pub event_type: Option<EventType>,
    /// The type as the record writes it, version and prefix included.
    pub type_name: String,
    /// The type's version as the record writes it (`"1"` where it writes none), `None` where
    /// nobody knows the type. The payload is in the current form all the same.
    pub version: Option<String>,
    /// When it happened, to the microsecond.
    pub occurred_at: DateTime<Utc>,
    /// What it belongs to, where the producer says so.
    pub correlation_id: Option<String>,
    /// The service that published it.
    pub source: Option<String>,
    /// What happened.
    pub payload: Payload,
}

impl Event {
    /// The user whom the event is about, where its type has one; for a failed login the user
    /// whose account was tried, where it is known.
    pub fn user_id(&self) -> Option<&str> {
        self.payload.user_id()
    }
}

/// What an opaque string of any length is indexed by: the first 16 bytes of its SHA-256.
pub fn hash16(text: &[u8]) -> Uuid {
    let digest = Sha256::digest(text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(bytes)
}
