//! Dead letters: records that a view could not apply, and the later records of their keys, which wait behind them.
//!
//! A key with an open dead letter is parked: its later events become dead letters of class `blocked`, in order, so that no
//! row is built on a gap. [`retry`] applies a key's dead letters again, [`outbox`] publishes them to a topic,
//! [`maintenance`] retries and expires them by itself. The rows lie in `sightline.dead_letters` ([`row`]).

pub mod maintenance;
pub mod outbox;
pub mod retry;
mod row;
mod stored;

use std::borrow::Cow;

use chrono::{DateTime, Utc};

pub use row::{insert, stored_headers};

use crate::event::{Bad, Record};

/// Why a record became a dead letter, in kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The record is bad.
    Data,
    /// It has a version that this release can't read.
    Schema,
    /// Code or database failed on it again and again, with an error that has no class of its own.
    Bug,
    /// An earlier record of its key is a dead letter. This one may be good.
    Blocked,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Data => "data",
            Class::Schema => "schema",
            Class::Bug => "bug",
            Class::Blocked => "blocked",
        }
    }

    /// The class that the table has as this word.
    pub fn from_stored(word: &str) -> Self {
        match word {
            "schema" => Class::Schema,
            "bug" => Class::Bug,
            "blocked" => Class::Blocked,
            _ => Class::Data,
        }
    }
}

/// The reason of a record that waits behind an earlier dead letter of its key.
pub const BLOCKED: &str = "blocked";
/// The resolution of a dead letter that the deletion of its user closed.
pub const USER_DELETED: &str = "user_deleted";
/// Why a retry fails if neither the database nor the log has the record's bytes any longer.
pub const BYTES_LOST: &str = "bytes_lost";

/// Every reason for which this release makes dead letters.
pub const REASONS: [&str; 22] = [
    "not_json",
    "too_deep",
    "number_out_of_range",
    "not_base64",
    "no_event_type",
    "no_event_id",
    "no_timestamp",
    "missing_field",
    "empty_field",
    "wrong_type",
    "id_too_long",
    "nul_in_id",
    "bad_timestamp",
    "too_many_copies",
    "too_large",
    "object_too_large",
    "refused_by_database",
    BYTES_LOST,
    "unsupported_version",
    "failed",
    "user_id_hash_conflict",
    BLOCKED,
];

/// Why events could not be applied, as a dead letter says it.
pub struct Cause {
    /// Whether the data is at fault.
    pub class: Class,
    /// One of [`REASONS`].
    pub reason: &'static str,
    /// The field at fault, if one is known to be.
    pub field: Option<String>,
}

impl Cause {
    /// The event is at fault.
    pub fn data(reason: &'static str) -> Self {
        Self {
            class: Class::Data,
            reason,
            field: None,
        }
    }

    /// The code may be at fault.
    pub fn bug(reason: &'static str) -> Self {
        Self {
            class: Class::Bug,
            ..Self::data(reason)
        }
    }
}

/// A record on its way into the table.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub record: Record,
    /// Stream time after the record.
    pub stream_time: DateTime<Utc>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
    pub reason: Cow<'static, str>,
    pub field: Option<String>,
    pub class: Class,
    /// Whether later events of its key wait behind it.
    pub parks: bool,
    /// Whether the value is left out because it is longer than what is parsed. The log has it.
    pub without_value: bool,
    /// Why it is closed from the start, in one word or an operator's words. Only coordinates and reason are stored then.
    pub resolution: Option<Cow<'static, str>>,
}

impl DeadLetter {
    /// The same dead letter, with this problem as its reason.
    pub fn because(self, bad: &Bad) -> Self {
        let class = if bad.reason == "unsupported_version" {
            Class::Schema
        } else {
            Class::Data
        };
        DeadLetter {
            reason: bad.reason.into(),
            field: bad.field.clone(),
            class,
            ..self
        }
    }
}

/// What is known of a record that an operator discarded.
#[derive(Debug, Clone)]
pub struct Discard {
    /// The operator's words.
    pub resolution: String,
    /// Why the record had become a dead letter.
    pub reason: String,
    pub field: Option<String>,
    pub class: Class,
}

/// The last millisecond of the year 9999. Postgres and chrono handle no later ones in all formats.
const MAX_TIMESTAMP_MS: i64 = 253_402_300_799_999;

/// A record's Kafka timestamp. Producers may write any number: one before 1970 counts as the millisecond before 1970, one
/// after 9999 as the end of that year. No event can have happened at either.
pub fn record_time(record: &Record) -> Option<DateTime<Utc>> {
    let milliseconds = record.timestamp_ms?.clamp(-1, MAX_TIMESTAMP_MS);
    DateTime::from_timestamp_millis(milliseconds)
}

/// The length of a record's value in bytes; 0 for a tombstone.
pub fn value_size(record: &Record) -> i64 {
    let size = record.value.as_ref().map_or(0, |value| value.len());
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../../docs/operations.md");
        let table = page
            .split_once("| reason | class | the record |")
            .unwrap()
            .1;
        let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
        let reasons = rows.filter_map(|row| row.split('|').nth(1));
        let reasons: Vec<&str> = reasons
            .flat_map(|words| words.split('`').skip(1).step_by(2))
            .collect();
        assert_eq!(reasons, REASONS);
    }
}
