//! The erasure of users: IP addresses, user agents and changed values vanish from the entries about a user who was deleted, at
//! once or, after a soft deletion, when their retention is over. What remains is a digest, so the chain stays whole.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::chain;
use crate::db;
use crate::event::{DeletionType, Payload, hash16};
use crate::projector::NewEvent;

/// How many entries are taken at once.
const SLICE: i64 = 2_000;
/// After how many erased entries a batch leaves the rest to maintenance, and maintenance begins another transaction.
const MOST_ENTRIES: usize = 20_000;

/// Those of these users whose entries hold nothing personal any longer.
///
/// # Errors
/// The database's.
pub async fn erased(
    connection: &mut PgConnection,
    user_keys: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let rows = sqlx::query_file_scalar!("src/domains/audit/sql/get_erased_users.sql", user_keys)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Notes the users whom events delete, and erases those whose time has come. Entries that another transaction is about to write
/// are left to maintenance.
///
/// # Errors
/// The database's.
pub async fn apply(
    connection: &mut PgConnection,
    events: &[NewEvent],
    soft_retention_days: u32,
) -> Result<(), sqlx::Error> {
    // A hard deletion counts more than a soft one, and the first soft one more than a later one.
    let mut users: BTreeMap<Uuid, (bool, DateTime<Utc>)> = BTreeMap::new();
    for (user_key, at, is_hard) in deletions(events) {
        let noted = users.entry(user_key).or_insert((is_hard, at));
        noted.0 |= is_hard;
        noted.1 = noted.1.min(at);
    }
    if users.is_empty() {
        return Ok(());
    }
    let user_keys: Vec<Uuid> = users.keys().copied().collect();
    let times: Vec<DateTime<Utc>> = users.values().map(|(_, at)| *at).collect();
    let are_hard: Vec<bool> = users.values().map(|(is_hard, _)| *is_hard).collect();
    let due = sqlx::query_file_scalar!(
        "src/domains/audit/sql/add_deleted_users.sql",
        &user_keys,
        &times,
        &are_hard,
        i32::try_from(soft_retention_days).unwrap_or(i32::MAX),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut left = MOST_ENTRIES;
    for user_key in due.into_iter().flatten() {
        if !erase(&mut *connection, user_key, &mut left).await? {
            break;
        }
    }
    Ok(())
}

/// Erases the entries of the users whose time has come, in all versions of the view.
///
/// # Errors
/// The database's.
pub async fn sweep(pool: &PgPool) -> Result<(), sqlx::Error> {
    let versions = sqlx::query_scalar!(
        "SELECT version FROM sightline.views WHERE domain = 'audit' AND state <> 'dropped' ORDER BY version"
    )
    .fetch_all(pool);
    for version in db::within(db::STEP_DEADLINE, versions).await? {
        while db::within(db::LONG_TRANSACTION_DEADLINE, sweep_some(pool, version)).await? {}
    }
    Ok(())
}

/// Erases what is due in a version. Returns whether there may be more.
async fn sweep_some(pool: &PgPool, version: i32) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    if due_users(&mut transaction, version).await?.is_empty() {
        return Ok(false);
    }
    // Batches that have read that these users are not erased yet have ended once their progress rows can be locked, and later
    // ones read that they are. A switch, which gives the version's schema to another one, locks the rows, too.
    sqlx::query!(
        "SELECT log_id FROM sightline.progress WHERE domain = 'audit' AND version = $1 ORDER BY log_id FOR UPDATE",
        version
    )
    .fetch_all(&mut *transaction)
    .await?;
    let due = due_users(&mut transaction, version).await?;
    let mut left = MOST_ENTRIES;
    let mut done = Vec::new();
    for user_key in due {
        if !erase(&mut transaction, user_key, &mut left).await? {
            break;
        }
        done.push(user_key);
    }
    sqlx::query_file!("src/domains/audit/sql/end_sweep.sql", &done)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// The users of a version whose entries are to be erased. Names mean the tables of the version from then on, as long as the version
/// keeps its schema.
async fn due_users(connection: &mut PgConnection, version: i32) -> Result<Vec<Uuid>, sqlx::Error> {
    let used = sqlx::query_file!("src/domains/audit/sql/use_version.sql", version)
        .fetch_optional(&mut *connection)
        .await?;
    if used.is_none() {
        return Ok(Vec::new());
    }
    sqlx::query_file_scalar!("src/domains/audit/sql/get_due_users.sql")
        .fetch_all(connection)
        .await
}

/// Erases the entries of a user, as long as there are any `left` to erase. Returns whether all are erased.
async fn erase(
    connection: &mut PgConnection,
    user_key: Uuid,
    left: &mut usize,
) -> Result<bool, sqlx::Error> {
    let mut after = (-1_i16, DateTime::<Utc>::UNIX_EPOCH, 0_i32, 0_i64, 0_i32);
    loop {
        if *left == 0 {
            return Ok(false);
        }
        let entries = sqlx::query_file!(
            "src/domains/audit/sql/get_personal.sql",
            user_key,
            after.0,
            after.1,
            after.2,
            after.3,
            after.4,
            SLICE,
        )
        .fetch_all(&mut *connection)
        .await?;
        let Some(last) = entries.last() else {
            return Ok(true);
        };
        after = (
            last.action,
            last.occurred_at,
            last.partition,
            last.record_offset,
            last.log_id,
        );
        let (mut log_ids, mut sequences) = (Vec::new(), Vec::new());
        let (mut offsets, mut stored) = (Vec::new(), Vec::new());
        for entry in &entries {
            let values = [
                entry.ip_address.as_deref(),
                entry.user_agent.as_deref(),
                entry.changed_values.as_deref(),
            ];
            // Salts that do not fit the values were changed by somebody: without digests, verification still finds the entry.
            let digests = chain::digests(values, &entry.salts).unwrap_or_default();
            let mut bytes = Vec::new();
            chain::store_digests(&digests, &mut bytes);
            log_ids.push(entry.log_id);
            sequences.push(entry.sequence);
            offsets.push(entry.record_offset);
            stored.push(bytes);
        }
        sqlx::query_file!(
            "src/domains/audit/sql/erase_entries.sql",
            &log_ids,
            &sequences,
            &offsets,
            &stored,
        )
        .execute(&mut *connection)
        .await?;
        *left = left.saturating_sub(entries.len());
    }
}

/// The users whom events delete, each with the time, and whether it is for good.
fn deletions(events: &[NewEvent]) -> impl Iterator<Item = (Uuid, DateTime<Utc>, bool)> {
    events.iter().filter_map(|new_event| {
        let Payload::UserDeleted(deleted) = &new_event.event.payload else {
            return None;
        };
        let is_hard = deleted.deletion_type == DeletionType::Hard;
        Some((
            hash16(deleted.user_id.as_bytes()),
            new_event.event.occurred_at,
            is_hard,
        ))
    })
}
