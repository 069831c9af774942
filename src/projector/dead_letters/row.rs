//! Dead letters as rows of `sightline.dead_letters`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{DeadLetter, REASONS, record_time, value_size};
use crate::event::text::{excerpt, without_nul};
use crate::event::{CATALOGUE_VERSION, Record, hash16};
use crate::projector::View;

/// Texts of a row are cut to so many characters.
const TEXT_CHARS: usize = 255;

/// The columns of rows to insert, one element per dead letter in each.
#[derive(Default)]
struct Columns<'d> {
    ids: Vec<Uuid>,
    offsets: Vec<i64>,
    times: Vec<Option<DateTime<Utc>>>,
    stream_times: Vec<DateTime<Utc>>,
    keys: Vec<Option<&'d [u8]>>,
    key_hashes: Vec<Option<Uuid>>,
    event_ids: Vec<Option<String>>,
    event_types: Vec<Option<String>>,
    occurred_at: Vec<Option<DateTime<Utc>>>,
    reasons: Vec<String>,
    fields: Vec<Option<String>>,
    classes: Vec<String>,
    parks: Vec<bool>,
    sizes: Vec<i64>,
    key_and_headers_sizes: Vec<i64>,
    headers: Vec<Option<Value>>,
    values: Vec<Option<&'d [u8]>>,
    resolutions: Vec<Option<String>>,
}

impl<'d> Columns<'d> {
    fn push(&mut self, dead_letter: &'d DeadLetter) {
        let record = &dead_letter.record;
        // A closed one is kept for its coordinates and its reason only: its key would name a person, even as a hash.
        let is_open = dead_letter.resolution.is_none();
        let keeps_value = is_open && !dead_letter.without_value;
        self.ids.push(Uuid::now_v7());
        self.offsets.push(record.offset);
        self.times.push(record_time(record));
        self.stream_times.push(dead_letter.stream_time);
        let key = record.key.as_deref().filter(|_| is_open);
        self.key_hashes.push(key.map(hash16));
        self.event_ids.push(storable(&dead_letter.event_id));
        self.event_types.push(storable(&dead_letter.event_type));
        self.occurred_at.push(dead_letter.occurred_at);
        // Operators can filter only by a reason that the list has.
        debug_assert!(REASONS.contains(&&*dead_letter.reason));
        self.reasons.push(dead_letter.reason.clone().into_owned());
        self.fields.push(storable(&dead_letter.field));
        self.classes.push(dead_letter.class.as_str().to_owned());
        self.keys.push(key);
        self.parks.push(dead_letter.parks && record.key.is_some());
        self.sizes.push(value_size(record));
        let size = i64::try_from(record.key_and_headers_size());
        self.key_and_headers_sizes.push(size.unwrap_or(i64::MAX));
        self.headers.push(is_open.then(|| encode_headers(record)));
        self.values
            .push(record.value.as_deref().filter(|_| keeps_value));
        let resolution = dead_letter.resolution.clone();
        self.resolutions
            .push(resolution.map(|words| words.into_owned()));
    }
}

/// Inserts dead letters, in the transaction that moves past their records.
///
/// # Errors
/// The database failed.
pub async fn insert(
    connection: &mut PgConnection,
    view: &View,
    log_id: i32,
    code_version: i32,
    dead_letters: &[DeadLetter],
) -> Result<(), sqlx::Error> {
    let mut columns = Columns::default();
    for dead_letter in dead_letters {
        columns.push(dead_letter);
    }
    sqlx::query_file!(
        "src/projector/sql/add_dead_letters.sql",
        view.domain,
        view.version,
        log_id,
        code_version,
        &columns.ids,
        &columns.offsets,
        &columns.times as _,
        &columns.stream_times,
        &columns.keys as _,
        &columns.key_hashes as _,
        &columns.event_ids as _,
        &columns.event_types as _,
        &columns.occurred_at as _,
        &columns.reasons,
        &columns.fields as _,
        &columns.classes,
        &columns.parks,
        &columns.sizes,
        &columns.headers as _,
        &columns.values as _,
        &columns.resolutions as _,
        CATALOGUE_VERSION,
        &columns.key_and_headers_sizes,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Text that Postgres can store: without NUL, and cut.
pub(super) fn storable(text: &Option<String>) -> Option<String> {
    let text = text.as_deref();
    text.map(|text| excerpt(text, TEXT_CHARS))
}

/// A record's headers as they are stored: a list of `[name, base64 of the value or null]`.
fn encode_headers(record: &Record) -> Value {
    record
        .headers
        .iter()
        .map(|(name, value)| {
            json!([
                without_nul(name),
                value.as_ref().map(|value| STANDARD.encode(value))
            ])
        })
        .collect()
}

/// The headers of a row, each with its name and, if it has a value, that in base64.
pub fn stored_headers(headers: Option<&Value>) -> impl Iterator<Item = (&str, Option<&str>)> {
    let headers = headers.and_then(Value::as_array).into_iter().flatten();
    headers.map(|header| (header[0].as_str().unwrap_or_default(), header[1].as_str()))
}
