//! Remembered event ids, by which a redelivered event is recognized: kept per version of a view and log, written in the
//! batch's transaction, and deleted once no record can repeat them ([`super::judge::Judge`] has the rule).

use std::collections::{BTreeMap, HashMap};

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::judge::{Candidate, DEDUPE_OFFSETS, SeenEvent};
use super::{View, progress};

/// Which of the candidates' ids were applied before from their logs, by log.
///
/// # Errors
/// The database failed.
pub async fn seen<'c>(
    connection: &mut PgConnection,
    candidates: impl IntoIterator<Item = (i32, &'c [Candidate<'c>])>,
) -> Result<HashMap<i32, HashMap<Uuid, SeenEvent>>, sqlx::Error> {
    let (mut log_ids, mut hashes) = (Vec::new(), Vec::new());
    for (log_id, candidates) in candidates {
        hashes.extend(candidates.iter().filter_map(Candidate::id_hash));
        log_ids.resize(hashes.len(), log_id);
    }
    let mut seen: HashMap<i32, HashMap<Uuid, SeenEvent>> = HashMap::new();
    if hashes.is_empty() {
        return Ok(seen);
    }
    let rows = sqlx::query_file!("src/projector/sql/seen_events.sql", &log_ids, &hashes)
        .fetch_all(connection)
        .await?;
    for row in rows {
        let event = SeenEvent {
            offset: row.record_offset,
            // Ids of a former release may have none.
            applied_time: row.applied_time.unwrap_or_default(),
        };
        seen.entry(row.log_id)
            .or_default()
            .insert(row.event_hash, event);
    }
    Ok(seen)
}

/// Remembers the ids that a transaction applies, by log.
///
/// # Errors
/// The database failed.
pub async fn remember<'a>(
    connection: &mut PgConnection,
    applied: impl IntoIterator<Item = (i32, &'a BTreeMap<Uuid, SeenEvent>)>,
) -> Result<(), sqlx::Error> {
    let (mut log_ids, mut hashes) = (Vec::new(), Vec::new());
    let (mut offsets, mut times) = (Vec::new(), Vec::new());
    for (log_id, events) in applied {
        for (hash, event) in events {
            log_ids.push(log_id);
            hashes.push(*hash);
            offsets.push(event.offset);
            times.push(event.applied_time);
        }
    }
    if hashes.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/projector/sql/remember_events.sql",
        &log_ids,
        &hashes,
        &offsets,
        &times
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Deletes the ids of a domain's logs, in all versions, that no record can repeat any longer.
///
/// # Errors
/// The database failed. What was deleted before stays so.
pub async fn expire(
    pool: &PgPool,
    domain: &'static str,
    dedupe: TimeDelta,
) -> Result<(), sqlx::Error> {
    let logs = sqlx::query!(
        "SELECT version, log_id FROM sightline.progress WHERE domain = $1 ORDER BY version, log_id",
        domain
    )
    .fetch_all(pool)
    .await?;
    for log in logs {
        let view = View {
            domain,
            version: log.version,
        };
        while expire_some(pool, &view, log.log_id, dedupe).await? {}
    }
    Ok(())
}

/// Deletes some of a log's ids. Returns whether there may be more.
async fn expire_some(
    pool: &PgPool,
    view: &View,
    log_id: i32,
    dedupe: TimeDelta,
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // The lock on the progress row keeps a switch from renaming the schemas meanwhile.
    let progress = sqlx::query!(
        r#"SELECT next_offset, stream_time, ended_at IS NOT NULL AS "ended!" FROM sightline.progress
           WHERE domain = $1 AND version = $2 AND log_id = $3 FOR UPDATE"#,
        view.domain,
        view.version,
        log_id
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(progress) = progress else {
        return Ok(false);
    };
    progress::use_schema(&mut transaction, view).await?;
    let done = sqlx::query_file!(
        "src/projector/sql/expire_event_ids.sql",
        view.domain,
        view.version,
        log_id,
        progress.next_offset,
        progress.stream_time,
        dedupe as _,
        DEDUPE_OFFSETS,
        progress.ended
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(done.rows_affected() > 0)
}
