//! What was folded, kept so that it can be folded again up to an instant: "as of" is the same fold over the facts
//! that had happened by then, in the order of the log, which is not the order in which they happened.
//!
//! A domain that keeps one has a table `user_history` in its schema:
//! `(user_key uuid, revision bigint, sequence integer, occurred_at timestamptz, log_id integer, record_offset bigint,
//! fact jsonb, PRIMARY KEY (user_key, revision, sequence))`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::types::Json;
use uuid::Uuid;

use super::addresses::Source;
use crate::projector::Target;

/// A fact of a user, in the place that the fold took it in.
struct Entry<F> {
    user_key: Uuid,
    /// The row's revision that the fact led to.
    revision: i64,
    /// Orders the facts of one revision.
    sequence: i32,
    source: Source,
    fact: F,
}

/// A fact as reads get it: `{"at", "log", "offset", "fact"}`.
#[derive(Debug, Deserialize)]
pub struct Remembered<F> {
    /// Where it is from.
    #[serde(flatten)]
    pub source: Source,
    /// What was told.
    pub fact: F,
}

/// Writes what was told of users in a batch: whose, the revision of the row that it led to, and the facts in the order
/// in which they were folded.
///
/// # Errors
/// The database failed.
pub async fn append<F: Serialize + Send + Sync>(
    target: &mut Target<'_>,
    told: impl IntoIterator<Item = (Uuid, i64, Vec<(Source, F)>)>,
) -> Result<(), sqlx::Error> {
    let mut entries = Vec::new();
    for (user_key, revision, facts) in told {
        for (sequence, (source, fact)) in (0..).zip(facts) {
            entries.push(Entry {
                user_key,
                revision,
                sequence,
                source,
                fact,
            });
        }
    }
    write(target, &entries).await
}

async fn write<F: Serialize + Send + Sync>(
    target: &mut Target<'_>,
    entries: &[Entry<F>],
) -> Result<(), sqlx::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let keys: Vec<Uuid> = entries.iter().map(|entry| entry.user_key).collect();
    let revisions: Vec<i64> = entries.iter().map(|entry| entry.revision).collect();
    let sequences: Vec<i32> = entries.iter().map(|entry| entry.sequence).collect();
    let times: Vec<DateTime<Utc>> = entries.iter().map(|entry| entry.source.at).collect();
    let logs: Vec<i32> = entries.iter().map(|entry| entry.source.log).collect();
    let offsets: Vec<i64> = entries.iter().map(|entry| entry.source.offset).collect();
    let facts: Vec<Json<&F>> = entries.iter().map(|entry| Json(&entry.fact)).collect();
    sqlx::query_file!(
        "src/fold/sql/append_history.sql",
        &keys,
        &revisions,
        &sequences,
        &times,
        &logs,
        &offsets,
        &facts as _,
    )
    .execute(&mut *target.connection)
    .await
    .map(drop)
}

/// Erases the whole history of users.
///
/// # Errors
/// The database failed.
pub async fn erase(target: &mut Target<'_>, user_keys: &[Uuid]) -> Result<(), sqlx::Error> {
    if user_keys.is_empty() {
        return Ok(());
    }
    sqlx::query_file!("src/fold/sql/erase_history.sql", user_keys)
        .execute(&mut *target.connection)
        .await
        .map(drop)
}

/// Puts in the place of each fact of users what `reduce` leaves of it.
///
/// # Errors
/// The database failed, or a fact can't be read.
pub async fn reduce<F: Serialize + DeserializeOwned + Send + Sync>(
    target: &mut Target<'_>,
    user_keys: &[Uuid],
    reduce: impl Fn(F) -> Option<F>,
) -> Result<(), sqlx::Error> {
    if user_keys.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query_file!("src/fold/sql/take_history.sql", user_keys)
        .fetch_all(&mut *target.connection)
        .await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let fact = serde_json::from_str(&row.fact)
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        if let Some(fact) = reduce(fact) {
            entries.push(Entry {
                user_key: row.user_key,
                revision: row.revision,
                sequence: row.sequence,
                source: Source {
                    at: row.occurred_at,
                    log: row.log_id,
                    offset: row.record_offset,
                },
                fact,
            });
        }
    }
    write(target, &entries).await
}
