//! Open dead letters as the table has them, and their records: from the row, or fetched again from the log.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde_json::Value;
use uuid::Uuid;

use super::{record_time, stored_headers, value_size};
use crate::event::{Record, hash16};
use crate::kafka::offsets;

/// An open dead letter's row.
pub struct StoredDeadLetter {
    pub id: Uuid,
    pub record_offset: i64,
    pub record_time: Option<DateTime<Utc>>,
    pub stream_time: Option<DateTime<Utc>>,
    pub record_key: Option<Vec<u8>>,
    pub key_hash: Option<Uuid>,
    /// Whether it parks its key.
    pub parks: bool,
    /// Whether an earlier dead letter, which is not retried together with this one, parks its key. Always false for one that
    /// parks its key: such are retried together, from the key's first one on.
    pub waits: bool,
    pub size: i64,
    pub headers: Option<Value>,
    pub value: Option<Vec<u8>>,
    /// Whether the scope has more dead letters than were read together with this one.
    pub more: bool,
}

/// One partition of one incarnation of a topic.
pub struct Log {
    pub topic: String,
    pub identity: String,
    pub partition: i32,
}

/// What the log was asked for, and what it has of that.
#[derive(Default)]
pub struct Refetched {
    pub offsets: Vec<i64>,
    pub records: HashMap<i64, Record>,
    /// Whether Kafka did not answer.
    pub kafka_unavailable: bool,
}

/// The record of a dead letter, as far as it could be restored.
pub enum Restored {
    Whole(Record),
    /// Without its value, which is longer than what is parsed.
    TooLarge(Record),
    /// Without its value, which neither the table nor the log has any longer.
    BytesLost(Record),
}

impl Log {
    /// Fetches records from the log again. Never fails: a Kafka that does not answer shows in the result.
    pub async fn refetch(self, kafka: ClientConfig, offsets: Vec<i64>) -> Refetched {
        let wanted = offsets.clone();
        let read = tokio::task::spawn_blocking(move || {
            offsets::read_records(&kafka, &self.topic, &self.identity, self.partition, &wanted)
        });
        // Where it panicked, the panic hook has logged it.
        let read = read.await.unwrap_or(Err(KafkaError::Canceled));
        if let Err(error) = &read {
            tracing::debug!(%error, "records of dead letters can't be fetched again now");
        }
        Refetched {
            offsets,
            kafka_unavailable: read.is_err(),
            records: read.unwrap_or_default(),
        }
    }
}

impl StoredDeadLetter {
    /// Whether the value has to be fetched from the log.
    pub fn needs_refetch(&self, max_value_bytes: i64) -> bool {
        self.size <= max_value_bytes && self.value.is_none()
    }

    /// The record; `None` while Kafka does not answer and only the log has the value.
    pub fn restore(
        &self,
        log: &Log,
        refetched: &Refetched,
        max_value_bytes: i64,
    ) -> Option<Restored> {
        if self.size > max_value_bytes {
            return Some(Restored::TooLarge(self.record(log)));
        }
        if self.value.is_some() {
            return Some(Restored::Whole(self.record(log)));
        }
        if refetched.kafka_unavailable {
            return None;
        }
        let record = refetched.records.get(&self.record_offset);
        Some(match record.filter(|record| self.is_of(record)) {
            Some(record) => Restored::Whole(record.clone()),
            None => Restored::BytesLost(self.record(log)),
        })
    }

    /// Whether the dead letter is of this record: a log that lost its tail may have another one at the offset.
    fn is_of(&self, record: &Record) -> bool {
        record_time(record) == self.record_time
            && record.key.as_deref().map(hash16) == self.key_hash
            && value_size(record) == self.size
    }

    /// The record as far as the row has it.
    fn record(&self, log: &Log) -> Record {
        let headers = stored_headers(self.headers.as_ref()).map(|(name, value)| {
            let value = value.and_then(|text| STANDARD.decode(text).ok());
            (name.to_owned(), value.map(Bytes::from))
        });
        let record = Record {
            topic: log.topic.as_str().into(),
            partition: log.partition,
            offset: self.record_offset,
            timestamp_ms: self.record_time.map(|time| time.timestamp_millis()),
            key: self.record_key.clone().map(Bytes::from),
            headers: headers.collect(),
            value: self.value.clone().map(Bytes::from),
        };
        debug_assert!(record_time(&record) == self.record_time);
        record
    }
}
