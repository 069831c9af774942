//! Dead letters: records that could not be applied, and those that wait behind them.

pub mod outbox;
pub mod retry;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::View;
use crate::event::{Bad, Record, hash16};

/// Why a record became a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is bad.
    Data,
    /// It is of a version that this code can't read.
    Schema,
    /// Code or database failed on it, again and again, in a way that nobody foresaw.
    Bug,
    /// It is good as far as anybody knows, but an earlier record of its key is not.
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

    /// A class as the table has it.
    pub fn stored(word: &str) -> Self {
        match word {
            "schema" => Class::Schema,
            "bug" => Class::Bug,
            "blocked" => Class::Blocked,
            _ => Class::Data,
        }
    }
}

/// Why a record is a letter that is good as far as anybody knows.
pub const BLOCKED: &str = "blocked";
/// Why a letter is closed that a deletion of its user overtook.
pub const USER_DELETED: &str = "user_deleted";
/// Why a letter can't be tried again: its bytes are neither here nor in the log.
pub const LOST: &str = "bytes_lost";

/// A record on its way into the table.
#[derive(Debug, Clone)]
pub struct Letter {
    pub record: Record,
    /// The log's time behind it.
    pub stream_time: Option<DateTime<Utc>>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
    pub reason: Cow<'static, str>,
    pub field: Option<String>,
    pub class: Class,
    /// Whether it holds back later events of its key.
    pub parks: bool,
    /// Its value is too large to be kept here: the log has it.
    pub without_value: bool,
    /// Nobody waits for it, and only coordinates and reason are kept: why, in a word, or in an operator's words.
    pub resolution: Option<Cow<'static, str>>,
}

impl Letter {
    /// The same letter, of a record that is bad for this reason.
    pub fn because(self, bad: &Bad) -> Self {
        let class = if bad.reason == "unsupported_version" {
            Class::Schema
        } else {
            Class::Data
        };
        Letter {
            reason: bad.reason.into(),
            field: bad.field.clone(),
            class,
            ..self
        }
    }
}

/// The last millisecond of the year 9999: neither Postgres nor arithmetic has to know what lies behind it.
const MAX_TIMESTAMP_MS: i64 = 253_402_300_799_999;

/// The time that Kafka gives a record. Producers may write anything there: what lies before 1970 or after 9999 counts as
/// a moment before the one and at the end of the other, neither of which an event can have happened at.
pub fn record_time(record: &Record) -> Option<DateTime<Utc>> {
    let milliseconds = record.timestamp_ms?.clamp(-1, MAX_TIMESTAMP_MS);
    DateTime::from_timestamp_millis(milliseconds)
}

/// How many bytes a record's value has; a tombstone has none.
pub fn value_size(record: &Record) -> i64 {
    let size = record.value.as_ref().map_or(0, |value| value.len());
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Text as Postgres takes it: without NUL, and no longer than anybody reads.
pub fn text(text: &Option<String>) -> Option<String> {
    text.as_ref().map(|text| {
        text.chars()
            .take(255)
            .map(|c| if c == '\0' { '\u{fffd}' } else { c })
            .collect()
    })
}

fn headers(record: &Record) -> Value {
    record
        .headers
        .iter()
        .map(|(name, value)| {
            json!([
                name.replace('\0', "\u{fffd}"),
                value.as_ref().map(|value| STANDARD.encode(value))
            ])
        })
        .collect()
}

/// Writes letters in the transaction that moves past their records.
///
/// # Errors
/// The database failed.
pub async fn insert(
    connection: &mut PgConnection,
    view: &View,
    log_id: i32,
    code_version: i32,
    letters: &[Letter],
) -> Result<(), sqlx::Error> {
    let column = |f: fn(&Letter) -> Option<String>| letters.iter().map(f).collect::<Vec<_>>();
    let ids: Vec<Uuid> = letters.iter().map(|_| Uuid::now_v7()).collect();
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.record.offset).collect();
    let times: Vec<Option<DateTime<Utc>>> = letters
        .iter()
        .map(|letter| record_time(&letter.record))
        .collect();
    let stream_times: Vec<Option<DateTime<Utc>>> =
        letters.iter().map(|letter| letter.stream_time).collect();
    let keys: Vec<Option<&[u8]>> = letters
        .iter()
        .map(|letter| {
            letter
                .record
                .key
                .as_deref()
                .filter(|_| letter.resolution.is_none())
        })
        .collect();
    let hashes: Vec<Option<Uuid>> = letters
        .iter()
        .map(|letter| letter.record.key.as_deref().map(hash16))
        .collect();
    let event_ids = column(|letter| text(&letter.event_id));
    let event_types = column(|letter| text(&letter.event_type));
    let occurred: Vec<Option<DateTime<Utc>>> =
        letters.iter().map(|letter| letter.occurred_at).collect();
    let reasons: Vec<String> = letters
        .iter()
        .map(|letter| letter.reason.clone().into_owned())
        .collect();
    let fields = column(|letter| text(&letter.field));
    let classes: Vec<String> = letters
        .iter()
        .map(|letter| letter.class.as_str().to_owned())
        .collect();
    let parks: Vec<bool> = letters
        .iter()
        .map(|letter| letter.parks && letter.record.key.is_some())
        .collect();
    let sizes: Vec<i64> = letters
        .iter()
        .map(|letter| value_size(&letter.record))
        .collect();
    let headers: Vec<Option<Value>> = letters
        .iter()
        .map(|letter| (letter.resolution.is_none()).then(|| headers(&letter.record)))
        .collect();
    let values: Vec<Option<&[u8]>> = letters
        .iter()
        .map(|letter| {
            letter
                .record
                .value
                .as_deref()
                .filter(|_| letter.resolution.is_none() && !letter.without_value)
        })
        .collect();
    let resolutions = column(|letter| Some(letter.resolution.clone()?.into_owned()));
    sqlx::query_file!(
        "src/projector/sql/add_dead_letters.sql",
        view.domain,
        view.version,
        log_id,
        code_version,
        &ids,
        &offsets,
        &times as _,
        &stream_times as _,
        &keys as _,
        &hashes as _,
        &event_ids as _,
        &event_types as _,
        &occurred as _,
        &reasons,
        &fields as _,
        &classes,
        &parks,
        &sizes,
        &headers as _,
        &values as _,
        &resolutions as _,
    )
    .execute(connection)
    .await
    .map(drop)
}
