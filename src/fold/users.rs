//! One row per user: a batch's events are folded onto it in memory, then the row is written once.
//!
//! A domain that keeps such rows has this table in its schema:
//!
//! ```sql
//! users (user_key uuid PRIMARY KEY, user_id text, log_id integer, logs integer, revision bigint,
//!        state sightline.document)
//! ```

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::db::{self, SharedUserKey};
use crate::event::hash16;
use crate::projector::{NewEvent, RefusedEvent, Target};

/// What a domain stores of a user: what it answers with, and what later events depend on.
pub trait UserState: Default + Serialize + DeserializeOwned + Send + Sync {
    /// What the fold produces besides the state: rows of other tables.
    type Effects: Default + Send;

    /// Checks whether the state can take the user's next event, which is then applied. By default it
    /// takes every event.
    ///
    /// # Errors
    /// The event would take the state beyond a limit. It becomes a dead letter.
    fn check(&self, _new_event: &NewEvent) -> Result<(), RefusedEvent> {
        Ok(())
    }

    /// Applies the user's next event, in the order of the log.
    fn apply(&mut self, new_event: &NewEvent, effects: &mut Self::Effects);
}

/// A user's row after a batch.
pub struct Folded<S: UserState> {
    /// The first 16 bytes of the user id's SHA-256.
    pub user_key: Uuid,
    /// The user's id.
    pub user_id: String,
    /// How often this row has been written.
    pub revision: i64,
    /// The state as it was written.
    pub state: S,
    /// What the batch's events produced besides the state.
    pub effects: S::Effects,
    /// The log that all of the user's events are from; `None` if they are from several.
    log_id: Option<i32>,
}

/// Folds events onto the rows of their users and writes these rows. The caller writes the effects.
///
/// # Errors
/// The database's errors; `Decode` where a stored state can't be parsed; [`SharedUserKey`] where two users have the same key;
/// [`RefusedEvent`] where a state can't take an event.
pub async fn fold<S: UserState>(
    target: &mut Target<'_>,
    events: &[NewEvent],
) -> Result<Vec<Folded<S>>, sqlx::Error> {
    let mut pending: BTreeMap<Uuid, Vec<&NewEvent>> = BTreeMap::new();
    for new_event in events {
        if let Some(user_id) = new_event.event.user_id() {
            pending
                .entry(hash16(user_id.as_bytes()))
                .or_default()
                .push(new_event);
        }
    }
    let mut done = Vec::with_capacity(pending.len());
    // A user's events usually share a partition, so a row usually has one writer. Where events of
    // one user come from two partitions, the later writer finds a newer revision and folds its
    // events again onto that.
    while !pending.is_empty() {
        let mut rows = load(target, pending.keys().copied().collect()).await?;
        let folded: Vec<Folded<S>> = pending
            .iter()
            .map(|(key, events)| fold_one(*key, rows.remove(key), events))
            .collect::<Result<_, _>>()?;
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

/// A user's row before the batch.
struct LoadedRow<S> {
    user_id: String,
    log_id: Option<i32>,
    revision: i64,
    state: S,
}

fn fold_one<S: UserState>(
    user_key: Uuid,
    row: Option<LoadedRow<S>>,
    events: &[&NewEvent],
) -> Result<Folded<S>, sqlx::Error> {
    let first = events.first();
    let user_id = first.and_then(|first| first.event.user_id());
    let row = row.unwrap_or_else(|| LoadedRow {
        user_id: user_id.unwrap_or_default().to_owned(),
        log_id: first.map(|first| first.log_id),
        revision: 0,
        state: S::default(),
    });
    if events
        .iter()
        .any(|new_event| new_event.event.user_id() != Some(&row.user_id))
    {
        return Err(SharedUserKey.into());
    }
    let mut folded = Folded {
        user_key,
        user_id: row.user_id,
        revision: row.revision + 1,
        state: row.state,
        effects: S::Effects::default(),
        log_id: row
            .log_id
            .filter(|log_id| events.iter().all(|event| event.log_id == *log_id)),
    };
    for new_event in events {
        folded.state.check(new_event)?;
        folded.state.apply(new_event, &mut folded.effects);
    }
    Ok(folded)
}

async fn load<S: UserState>(
    target: &mut Target<'_>,
    keys: Vec<Uuid>,
) -> Result<HashMap<Uuid, LoadedRow<S>>, sqlx::Error> {
    let rows = sqlx::query_file!("src/fold/sql/load_users.sql", &keys)
        .fetch_all(&mut *target.connection)
        .await?;
    rows.into_iter()
        .map(|row| {
            let loaded = LoadedRow {
                user_id: row.user_id,
                log_id: row.log_id,
                revision: row.revision,
                state: db::of_document(&row.state, "users")?,
            };
            Ok((row.user_key, loaded))
        })
        .collect()
}

/// Writes rows. Returns the keys of the written ones: a row that another writer has changed
/// meanwhile stays as it is.
async fn store<S: UserState>(
    target: &mut Target<'_>,
    rows: &[Folded<S>],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let keys: Vec<Uuid> = rows.iter().map(|row| row.user_key).collect();
    let user_ids: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let log_ids: Vec<Option<i32>> = rows.iter().map(|row| row.log_id).collect();
    let revisions: Vec<i64> = rows.iter().map(|row| row.revision).collect();
    let states: Vec<String> = rows
        .iter()
        .map(|row| db::to_document(&row.state))
        .collect::<Result<_, _>>()?;
    sqlx::query_file_scalar!(
        "src/fold/sql/store_users.sql",
        &keys,
        &user_ids as _,
        &log_ids as _,
        target.log_count,
        &revisions,
        &states,
    )
    .fetch_all(&mut *target.connection)
    .await
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::event::{Bad, Payload};
    use crate::fold::examples;

    #[derive(Default, Serialize, Deserialize)]
    struct Count(usize);

    impl UserState for Count {
        type Effects = ();

        fn check(&self, _new_event: &NewEvent) -> Result<(), RefusedEvent> {
            match self.0 {
                9 => Err(Bad::object_too_large("count").into()),
                _ => Ok(()),
            }
        }

        fn apply(&mut self, _new_event: &NewEvent, _effects: &mut ()) {
            self.0 += 1;
        }
    }

    fn event_of(user_id: &str) -> NewEvent {
        let mut new_event = examples::event(1, "UserDeleted", json!({"deletionType": "soft"}));
        if let Payload::UserDeleted(deleted) = &mut new_event.event.payload {
            user_id.clone_into(&mut deleted.user_id);
        }
        new_event
    }

    #[test]
    fn events_are_folded_onto_the_row_of_their_own_user_only() {
        let row = |user_id: &str| LoadedRow {
            user_id: user_id.to_owned(),
            log_id: Some(1),
            revision: 3,
            state: Count(7),
        };
        let (a, b) = (event_of("a"), event_of("b"));
        for (row, events, expected) in [
            (None, vec![&a, &a], Some((1, 2))),
            (Some(row("a")), vec![&a], Some((4, 8))),
            (Some(row("b")), vec![&a], None),
            (None, vec![&a, &b], None),
            // The third event is one too many for the state.
            (Some(row("a")), vec![&a, &a], Some((4, 9))),
            (Some(row("a")), vec![&a, &a, &a], None),
        ] {
            let folded = fold_one(Uuid::nil(), row, &events).ok();
            let found = folded.map(|folded| (folded.revision, folded.state.0));
            assert_eq!(found, expected);
        }
    }
}
