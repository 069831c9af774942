//! The facts that were folded, stored so that a read "as of" an instant can fold them again: the
//! same fold over the facts that had happened by then, in the order of the log (which is not always
//! the order in which they happened).
//!
//! A domain that keeps a history has this table in its schema:
//!
//! ```sql
//! user_history (user_key uuid, revision bigint, sequence integer, occurred_at timestamptz,
//!               log_id integer, record_offset bigint, fact sightline.document,
//!               PRIMARY KEY (user_key, revision, sequence))
//! ```

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::addresses::Source;
use crate::db;
use crate::projector::Target;

/// How many rows are taken at once from a history that is reduced, which may be of any length.
const SLICE: i64 = 1_000;

/// A row of the history: a fact of a user, with its index in the order of the fold.
struct HistoryRow<F> {
    user_key: Uuid,
    /// The revision of the user's row that includes the fact.
    revision: i64,
    /// The index of the fact within its revision.
    sequence: i32,
    source: Source,
    fact: F,
}

/// A fact, and the event that it is from.
#[derive(Debug)]
pub struct HistoryEntry<F> {
    /// The event that the fact is from.
    pub source: Source,
    /// The fact.
    pub fact: F,
}

/// Facts in the form in which queries select them: a column each for the time, the log, the offset and the document.
///
/// # Errors
/// A stored fact can't be parsed.
pub fn entries<F: DeserializeOwned>(
    times: Vec<DateTime<Utc>>,
    logs: Vec<i32>,
    offsets: Vec<i64>,
    facts: &[String],
) -> Result<Vec<HistoryEntry<F>>, sqlx::Error> {
    let sources = times.into_iter().zip(logs).zip(offsets);
    let sources = sources.map(|((at, log), offset)| Source { at, log, offset });
    sources
        .zip(facts)
        .map(|(source, fact)| {
            let fact = db::of_document(fact, "user_history")?;
            Ok(HistoryEntry { source, fact })
        })
        .collect()
}

/// Appends the facts of a batch: per user the key, the revision of the row that includes them, and
/// the facts in the order in which they were folded.
///
/// # Errors
/// The database failed.
pub async fn append<F: Serialize + Send + Sync>(
    target: &mut Target<'_>,
    facts_by_user: impl IntoIterator<Item = (Uuid, i64, Vec<(Source, F)>)>,
) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for (user_key, revision, facts) in facts_by_user {
        for (sequence, (source, fact)) in (0..).zip(facts) {
            rows.push(HistoryRow {
                user_key,
                revision,
                sequence,
                source,
                fact,
            });
        }
    }
    write(target, &rows).await
}

async fn write<F: Serialize + Send + Sync>(
    target: &mut Target<'_>,
    rows: &[HistoryRow<F>],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let keys: Vec<Uuid> = rows.iter().map(|row| row.user_key).collect();
    let revisions: Vec<i64> = rows.iter().map(|row| row.revision).collect();
    let sequences: Vec<i32> = rows.iter().map(|row| row.sequence).collect();
    let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.source.at).collect();
    let logs: Vec<i32> = rows.iter().map(|row| row.source.log).collect();
    let offsets: Vec<i64> = rows.iter().map(|row| row.source.offset).collect();
    let facts: Vec<String> = rows
        .iter()
        .map(|row| db::to_document(&row.fact))
        .collect::<Result<_, _>>()?;
    sqlx::query_file!(
        "src/fold/sql/append_history.sql",
        &keys,
        &revisions,
        &sequences,
        &times,
        &logs,
        &offsets,
        &facts,
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

/// Replaces each fact of these users by what `reduce` leaves of it; `None` deletes it.
///
/// # Errors
/// The database failed, or a stored fact can't be parsed.
pub async fn reduce<F: Serialize + DeserializeOwned + Send + Sync>(
    target: &mut Target<'_>,
    user_keys: &[Uuid],
    reduce: impl Fn(F) -> Option<F>,
) -> Result<(), sqlx::Error> {
    if user_keys.is_empty() {
        return Ok(());
    }
    let (mut user_key, mut revision, mut sequence) = (Uuid::nil(), i64::MIN, i32::MIN);
    loop {
        let taken = sqlx::query_file!(
            "src/fold/sql/take_history.sql",
            user_keys,
            user_key,
            revision,
            sequence,
            SLICE
        )
        .fetch_all(&mut *target.connection)
        .await?;
        let Some(last) = taken
            .iter()
            .map(|row| (row.user_key, row.revision, row.sequence))
            .max()
        else {
            return Ok(());
        };
        (user_key, revision, sequence) = last;
        let mut rows = Vec::with_capacity(taken.len());
        for row in taken {
            if let Some(fact) = reduce(db::of_document(&row.fact, "user_history")?) {
                rows.push(HistoryRow {
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
        write(target, &rows).await?;
    }
}
