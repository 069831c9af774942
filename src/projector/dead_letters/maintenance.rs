//! What dead letters need from time to time: those that a newer release may understand are retried, bytes expire.
//!
//! Two processes that do it at once do nothing twice: rows are locked, or are already as they should be.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::retry::{Retried, Retrier, RetryError, RetryScope, Verdict};
use crate::db;
use crate::event::CATALOGUE_VERSION;
use crate::projector::{Projection, View};

/// After so long the rest of a log's dead letters is left to the next round.
const RETRY_BUDGET: Duration = Duration::from_secs(10);
/// How long after a user's deletion maintenance first erases the user's dead letters in other logs: most transactions that were
/// adding one have ended by then. The commit may follow the noted time of the deletion by as much.
const ERASURE_DELAY: Duration = Duration::from_secs(15);
/// For how long they are erased again: until every transaction has ended that began before the deletion was committed.
const ERASURE_END: Duration = Duration::from_secs(db::TRANSACTION_DEADLINE.as_secs() + 45);
/// How long before open dead letters lose their bytes a warning is logged.
const WARNING: TimeDelta = TimeDelta::days(7);

/// Retries dead letters of the partitions that this `instance` projects, in every version: those that an older release gave up,
/// by its code or by its catalogue of types, and those of an interrupted retry.
///
/// # Errors
/// See [`RetryError`].
pub async fn retry_due(
    retrier: &Retrier,
    projection: &'static dyn Projection,
    instance: Uuid,
) -> Result<(), RetryError> {
    let (domain, code_version) = (projection.domain(), projection.code_version());
    // Mostly nothing is due, and Postgres plans the statement below for milliseconds.
    let may_be_due = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM sightline.dead_letters
               WHERE domain = $1 AND state IN ('parked', 'retrying')
                 AND (class = 'blocked' OR state = 'retrying' OR code_version < $2
                      OR class = 'schema' AND catalogue_version < $3)) AS "may_be_due!""#,
        domain,
        code_version,
        CATALOGUE_VERSION
    )
    .fetch_one(&retrier.pool);
    if !db::within(db::STEP_DEADLINE, may_be_due).await? {
        return Ok(());
    }
    let logs = sqlx::query_file!(
        "src/projector/sql/dead_letters_due.sql",
        domain,
        code_version,
        CATALOGUE_VERSION,
        instance
    )
    .fetch_all(&retrier.pool);
    let logs = db::within(db::STEP_DEADLINE, logs).await?;
    let mut failed_once = Ok(());
    for log in logs {
        let scope = RetryScope {
            log_id: log.log_id,
            keys: log.keys,
            singles: log.singles,
        };
        let view = View {
            domain,
            version: log.version,
        };
        db::within(db::STEP_DEADLINE, mark_retrying(retrier, &view, &scope)).await?;
        let until = Some(Instant::now() + RETRY_BUDGET);
        let retried = retrier.retry_in(projection, &view, &scope, false, until);
        let mut retried = match retried.await {
            Ok(retried) => retried,
            Err(RetryError::Gone | RetryError::OtherCode) => continue,
            Err(error) => {
                // Another log's dead letters don't wait for this one's.
                failed_once = Err(error);
                continue;
            }
        };
        retried.retain(|retried| {
            !matches!(
                retried.verdict,
                Verdict::KafkaUnavailable | Verdict::Waiting
            )
        });
        if retried.is_empty() {
            // Another process was faster, or Kafka does not answer.
            continue;
        }
        let failed = |retried: &&Retried| matches!(retried.verdict, Verdict::Failed { .. });
        tracing::info!(
            domain,
            version = log.version,
            code_version,
            retried = retried.len(),
            failed = retried.iter().filter(failed).count(),
            "dead letters were retried that an older release gave up, or that waited behind nothing"
        );
    }
    failed_once
}

/// Shows in the dead letters' state that they are being retried.
async fn mark_retrying(
    retrier: &Retrier,
    view: &View,
    scope: &RetryScope,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sightline.dead_letters SET state = 'retrying'
         WHERE id = ANY (ARRAY(
             SELECT id FROM sightline.dead_letters
             WHERE domain = $1 AND version = $2 AND log_id = $3 AND state = 'parked'
               AND (parks AND key_hash = ANY ($4) OR id = ANY ($5))
             FOR UPDATE SKIP LOCKED))",
        view.domain,
        view.version,
        scope.log_id,
        &scope.keys as &[Uuid],
        &scope.singles as &[Uuid],
    )
    .execute(&retrier.pool)
    .await
    .map(drop)
}

/// Closes and erases the dead letters that deleted users have in other logs than that of their deletion. Each log has a
/// transaction of its own.
///
/// # Errors
/// The database failed. What was done in other logs stays.
pub async fn erase_deleted_users(pool: &PgPool, domain: &str) -> Result<(), sqlx::Error> {
    let due = sqlx::query_file!(
        "src/projector/sql/erasures_due.sql",
        domain,
        ERASURE_DELAY.as_secs_f64()
    )
    .fetch_all(pool);
    let mut failed_once = Ok(());
    for log in db::within(db::STEP_DEADLINE, due).await? {
        let erased = erase_in(
            pool,
            domain,
            log.version,
            log.log_id,
            (&log.keys, &log.until),
        );
        if let Err(error) = db::within(db::STEP_DEADLINE, erased).await {
            // Another log's dead letters don't wait for this one's.
            failed_once = Err(error);
        }
    }
    let ended = sqlx::query_file!(
        "src/projector/sql/end_erasures.sql",
        domain,
        ERASURE_END.as_secs_f64(),
        ERASURE_DELAY.as_secs_f64()
    )
    .execute(pool);
    db::within(db::STEP_DEADLINE, ended).await?;
    failed_once
}

/// Closes and erases the dead letters of these keys that were added until a time of each, in a transaction that holds the log's
/// progress row and fences its owner, and those of later logs: the keys are live again.
async fn erase_in(
    pool: &PgPool,
    domain: &str,
    version: i32,
    log_id: i32,
    (keys, until): (&[Uuid], &[DateTime<Utc>]),
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!(
        "UPDATE sightline.progress SET epoch = epoch + 1 WHERE domain = $1 AND version = $2 AND log_id = $3",
        domain,
        version,
        log_id
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/fence_later_logs.sql",
        domain,
        &[version],
        log_id
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/erase_dead_letters.sql",
        domain,
        version,
        log_id,
        keys,
        until
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Erases bytes that were kept for the retention, and warns of open dead letters that are next. Returns how many those are.
///
/// # Errors
/// The database failed.
pub async fn expire_bytes(
    pool: &PgPool,
    domain: &'static str,
    retention: TimeDelta,
) -> Result<i64, sqlx::Error> {
    let days = |delta: TimeDelta| i32::try_from(delta.num_days()).unwrap_or(i32::MAX);
    let mut erased = 0;
    loop {
        let done = sqlx::query_file!(
            "src/projector/sql/erase_dead_letter_bytes.sql",
            days(retention)
        )
        .execute(pool);
        let done = db::within(db::STEP_DEADLINE, done).await?.rows_affected();
        if done == 0 {
            break;
        }
        erased += done;
    }
    if erased > 0 {
        tracing::info!(
            dead_letters = erased,
            "bytes of dead letters have reached their retention and are erased"
        );
    }
    let expiring = sqlx::query_file_scalar!(
        "src/projector/sql/expiring_dead_letters.sql",
        domain,
        days(retention - WARNING)
    )
    .fetch_one(pool);
    let expiring = db::within(db::STEP_DEADLINE, expiring).await?;
    if expiring > 0 {
        tracing::warn!(
            domain,
            dead_letters = expiring,
            "open dead letters lose their bytes within 7 days: retry or discard them"
        );
    }
    Ok(expiring)
}
