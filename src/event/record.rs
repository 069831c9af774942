//! A Kafka record as the consumer received it, before anything of it is read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::hash::hash16;

/// A record of `user.events` or of another topic with events.
#[derive(Clone)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition of the topic.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// Kafka's timestamp in milliseconds since 1970; `None` where Kafka stores none.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The headers in their order. Of several with one name, the last counts.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl Record {
    /// The length in bytes of the key and of the names and values of the headers.
    pub fn key_and_headers_size(&self) -> usize {
        let headers = self.headers.iter();
        let headers =
            headers.map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
        self.key.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>()
    }

    /// A hash of timestamp, key and value. It differs where another record has the same offset,
    /// for example in a topic that was deleted and created again.
    pub fn fingerprint(&self) -> Uuid {
        let mut bytes = Vec::new();
        bytes.extend(self.timestamp_ms.unwrap_or(-1).to_be_bytes());
        for part in [&self.key, &self.value] {
            // The length first: otherwise two records could be hashed from the same bytes.
            let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
            bytes.extend(length.to_be_bytes());
            bytes.extend(part.iter().flatten());
        }
        hash16(&bytes)
    }
}

/// Prints the coordinates only: key, headers and value hold personal data.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Record({}/{}@{})",
            self.topic, self.partition, self.offset
        )
    }
}
