//! One row per user: events are folded onto it in memory, and it is written once per batch.
//!
//! A domain that keeps such rows has a table `users` in its schema:
//! `(user_key uuid PRIMARY KEY, user_id text, log_id integer, logs integer, revision bigint, state jsonb)`.

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::types::Json;
use uuid::Uuid;

use crate::event::hash16;
use crate::projector::{NewEvent, Target};

/// What a domain keeps of a user, as it is stored: what is answered, and what the fold must remember beside it.
pub trait UserState: Default + Serialize + DeserializeOwned + Send + Sync {
    /// What the fold tells beside the state that it leads to: rows of other tables.
    type Effects: Default + Send;

    /// Applies the next event of this user in the order of the log.
    fn apply(&mut self, applied: &NewEvent, effects: &mut Self::Effects);
}

/// A user's row after a batch.
pub struct Folded<S: UserState> {
    /// The first 16 bytes of the user id's SHA-256.
    pub user_key: Uuid,
    /// The user's id.
    pub user_id: String,
    /// Counts the writes of this row.
    pub revision: i64,
    /// The state as it was written.
    pub state: S,
    /// What the batch's events had to tell.
    pub effects: S::Effects,
    /// The log that all of it is from, if it is one.
    log_id: Option<i32>,
}

/// Folds events onto the rows of their users, and writes the rows. The effects are the caller's to write.
///
/// # Errors
/// What the database says, and a state that can't be read: both are the data's, or the code's.
pub async fn fold<S: UserState>(
    target: &mut Target<'_>,
    events: &[NewEvent],
) -> Result<Vec<Folded<S>>, sqlx::Error> {
    let mut pending: BTreeMap<Uuid, Vec<&NewEvent>> = BTreeMap::new();
    for applied in events {
        if let Some(user_id) = applied.event.user_id() {
            pending
                .entry(hash16(user_id.as_bytes()))
                .or_default()
                .push(applied);
        }
    }
    let mut done = Vec::with_capacity(pending.len());
    // One writer per user is the rule, as a user's events share a partition; where two partitions meet in one,
    // the later writer finds a newer revision, and folds again onto it.
    while !pending.is_empty() {
        let mut rows = load(target, pending.keys().copied().collect()).await?;
        let folded: Vec<Folded<S>> = pending
            .iter()
            .map(|(key, events)| fold_one(*key, rows.remove(key), events, target))
            .collect();
        let written = store(target, &folded).await?;
        for row in folded {
            if written.contains(&row.user_key) {
                pending.remove(&row.user_key);
                done.push(row);
            }
        }
    }
    Ok(done)
}

/// A row that was there.
struct Row<S> {
    log_id: Option<i32>,
    revision: i64,
    state: S,
}

fn fold_one<S: UserState>(
    user_key: Uuid,
    row: Option<Row<S>>,
    events: &[&NewEvent],
    target: &Target<'_>,
) -> Folded<S> {
    let row = row.unwrap_or_else(|| Row {
        log_id: Some(target.log_id),
        revision: 0,
        state: S::default(),
    });
    let user_id = events.first().and_then(|applied| applied.event.user_id());
    let mut folded = Folded {
        user_key,
        user_id: user_id.unwrap_or_default().to_owned(),
        revision: row.revision + 1,
        state: row.state,
        effects: S::Effects::default(),
        log_id: row.log_id.filter(|log_id| *log_id == target.log_id),
    };
    for applied in events {
        folded.state.apply(applied, &mut folded.effects);
    }
    folded
}

async fn load<S: UserState>(
    target: &mut Target<'_>,
    keys: Vec<Uuid>,
) -> Result<HashMap<Uuid, Row<S>>, sqlx::Error> {
    let rows = sqlx::query_file!("src/fold/sql/load_users.sql", &keys)
        .fetch_all(&mut *target.connection)
        .await?;
    rows.into_iter()
        .map(|row| {
            let state = serde_json::from_str(&row.state)
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Ok((
                row.user_key,
                Row {
                    log_id: row.log_id,
                    revision: row.revision,
                    state,
                },
            ))
        })
        .collect()
}

/// Writes rows, and returns the keys of those that were not overtaken by another writer.
async fn store<S: UserState>(
    target: &mut Target<'_>,
    rows: &[Folded<S>],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let keys: Vec<Uuid> = rows.iter().map(|row| row.user_key).collect();
    let user_ids: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let log_ids: Vec<Option<i32>> = rows.iter().map(|row| row.log_id).collect();
    let revisions: Vec<i64> = rows.iter().map(|row| row.revision).collect();
    let states: Vec<Json<&S>> = rows.iter().map(|row| Json(&row.state)).collect();
    sqlx::query_file_scalar!(
        "src/fold/sql/store_users.sql",
        &keys,
        &user_ids as _,
        &log_ids as _,
        target.log_count,
        &revisions,
        &states as _,
    )
    .fetch_all(&mut *target.connection)
    .await
}
