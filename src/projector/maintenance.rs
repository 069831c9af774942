//! What has to be done for a view now and then, by whichever process comes first: letters that a newer release may
//! understand are tried again, what is kept for a time only is removed, and letters go to the dead letter topic.
//!
//! Nothing here is done twice by two processes that do it at once: rows are locked, or found as they should be.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::PgPool;
use uuid::Uuid;

use super::dead_letters::outbox::Outbox;
use super::dead_letters::retry::{Retried, Retrier, RetryError, RetryScope, Verdict};
use super::versions::{self, VersionError, Which};
use super::{Projection, Projector, View};
use crate::{db, telemetry};

/// How often it is looked whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(2);
/// After so long the rest of the letters of a log is for the next look.
const ENOUGH: Duration = Duration::from_secs(10);
/// How often bytes are looked for that were kept long enough.
const ERASE_INTERVAL: Duration = Duration::from_secs(600);
/// How long before open letters lose their bytes somebody is told.
const WARNING: TimeDelta = TimeDelta::days(7);

/// What is kept, and published, of dead letters.
#[derive(Debug, Clone, Copy)]
pub struct LetterPolicy {
    /// How long bytes are kept.
    pub retention: TimeDelta,
    /// Whether keys and values go to the dead letter topic, too.
    pub publish_values: bool,
}

/// Looks after the views of some domains until the process stops.
pub async fn run(
    projector: Projector,
    projections: Vec<&'static dyn Projection>,
    retrier: Retrier,
    policy: LetterPolicy,
) {
    let mut outbox = Outbox::new(
        retrier.pool.clone(),
        &projector.kafka,
        policy.publish_values,
    );
    let mut erase_at = Instant::now();
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = projector.stop.cancelled() => return,
        }
        let round = async {
            for projection in &projections {
                let domain = projection.domain();
                if let Err(error) = retry_outdated(&retrier, *projection).await {
                    tracing::debug!(domain, %error, "letters could not be tried again yet");
                }
                match versions::remove(&retrier.pool, domain, Which::Overdue).await {
                    Ok(version) => tracing::info!(
                        domain,
                        version,
                        "a version that was retired a day ago was dropped; there is no way back to it"
                    ),
                    Err(VersionError::NoSuchVersion) => {}
                    Err(error) => {
                        tracing::debug!(domain, %error, "a retired version could not be dropped yet")
                    }
                }
                outbox.publish(domain).await;
            }
            if Instant::now() >= erase_at {
                erase_at = Instant::now() + ERASE_INTERVAL;
                if let Err(error) = erase(&retrier.pool, &projections, policy.retention).await {
                    let error = db::describe(&error);
                    tracing::debug!(error, "letters' bytes could not be erased yet");
                }
            }
        };
        projector.stop.run_until_cancelled(round).await;
    }
}

/// Tries letters again, of every version, that an older release gave up, or that wait behind nothing because somebody was
/// interrupted who tried them.
async fn retry_outdated(
    retrier: &Retrier,
    projection: &'static dyn Projection,
) -> Result<(), RetryError> {
    let (domain, code_version) = (projection.domain(), projection.code_version());
    let logs = sqlx::query_file!(
        "src/projector/sql/dead_letters_due.sql",
        domain,
        code_version
    )
    .fetch_all(&retrier.pool)
    .await?;
    for log in logs {
        let lines = RetryScope {
            log_id: log.log_id,
            keys: log.keys,
            alone: log.alone,
        };
        let view = View {
            domain,
            version: log.version,
        };
        mark(retrier, &view, &lines).await?;
        let until = Some(Instant::now() + ENOUGH);
        let retried = retrier.retry_in(projection, &view, &lines, false, until);
        let mut retried = match retried.await {
            Ok(retried) => retried,
            Err(RetryError::Gone) => continue,
            Err(error) => return Err(error),
        };
        retried.retain(|retried| !matches!(retried.verdict, Verdict::Away | Verdict::Waiting));
        if retried.is_empty() {
            // Another process was faster, or Kafka is away.
            continue;
        }
        let failed = |retried: &&Retried| matches!(retried.verdict, Verdict::Failed { .. });
        tracing::info!(
            domain,
            version = log.version,
            code_version,
            tried = retried.len(),
            failed = retried.iter().filter(failed).count(),
            "letters were tried again that an older release gave up, or that waited behind nothing"
        );
    }
    Ok(())
}

/// Shows that letters are being tried.
async fn mark(retrier: &Retrier, view: &View, lines: &RetryScope) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sightline.dead_letters SET state = 'retrying'
         WHERE id = ANY (ARRAY(
             SELECT id FROM sightline.dead_letters
             WHERE domain = $1 AND version = $2 AND log_id = $3 AND state = 'parked'
               AND (parks AND key_hash = ANY ($4) OR id = ANY ($5))
             FOR UPDATE SKIP LOCKED))",
        view.domain,
        view.version,
        lines.log_id,
        &lines.keys as &[Uuid],
        &lines.alone as &[Uuid],
    )
    .execute(&retrier.pool)
    .await
    .map(drop)
}

/// Erases bytes that were kept for long enough, and tells of those that are next while their letters are open.
async fn erase(
    pool: &PgPool,
    projections: &[&'static dyn Projection],
    retention: TimeDelta,
) -> Result<(), sqlx::Error> {
    let days = |delta: TimeDelta| i32::try_from(delta.num_days()).unwrap_or(i32::MAX);
    let mut erased = 0;
    loop {
        let done = sqlx::query_file!(
            "src/projector/sql/erase_dead_letter_bytes.sql",
            days(retention)
        )
        .execute(pool)
        .await?
        .rows_affected();
        if done == 0 {
            break;
        }
        erased += done;
    }
    if erased > 0 {
        tracing::info!(
            letters = erased,
            "bytes of dead letters were kept long enough and are erased"
        );
    }
    for projection in projections {
        let domain = projection.domain();
        let expiring = sqlx::query_file_scalar!(
            "src/projector/sql/expiring_dead_letters.sql",
            domain,
            days(retention - WARNING)
        )
        .fetch_one(pool)
        .await?;
        // Counts are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!(telemetry::DEAD_LETTERS_EXPIRING, "domain" => domain).set(expiring as f64);
        if expiring > 0 {
            tracing::warn!(
                domain,
                letters = expiring,
                "open dead letters lose their bytes within 7 days: retry or discard them"
            );
        }
    }
    Ok(())
}
