//! What views need from time to time, a task for each domain, done by whichever process comes first: dead letters are retried and published, their
//! bytes expire, and so do remembered event ids; retired versions are dropped when their time is over.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::dead_letters::maintenance::{erase_deleted_users, expire_bytes, retry_due};
use super::dead_letters::outbox::Outbox;
use super::dead_letters::retry::{Retrier, RetryError};
use super::outages::Outages;
use super::versions::{self, VersionError, Which};
use super::{Projection, Projector, ids};
use crate::telemetry;

/// The pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a round may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// The pause between two searches for bytes and event ids that have expired.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(600);

/// What is kept, and published, of dead letters.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterPolicy {
    /// How long bytes are kept.
    pub retention: TimeDelta,
    /// Whether keys and values are published to the dead letter topic, too.
    pub publish_values: bool,
}

/// Maintains the views of some domains until the process stops.
pub async fn run(
    projector: Projector,
    projections: Vec<&'static dyn Projection>,
    retrier: Retrier,
    policy: DeadLetterPolicy,
) {
    let outboxes = projections.iter().map(|projection| {
        let pool = retrier.pool.clone();
        let domain = projection.domain();
        Outbox::new(domain, pool, &projector.kafka, policy.publish_values).run()
    });
    let publish_all = futures_util::future::join_all(outboxes);
    let maintained = projections
        .iter()
        .map(|projection| maintain(&projector, *projection, &retrier, &policy));
    let maintain_all = futures_util::future::join_all(maintained);
    let both = futures_util::future::join(publish_all, maintain_all);
    projector.stop.run_until_cancelled(both).await;
}

/// Maintains a domain's views and dead letters until it is dropped.
async fn maintain(
    projector: &Projector,
    projection: &'static dyn Projection,
    retrier: &Retrier,
    policy: &DeadLetterPolicy,
) {
    let mut expire_at = Instant::now();
    let mut outages = Outages::default();
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let round = maintain_once(projector, projection, retrier, &mut outages);
        let domain = projection.domain();
        if tokio::time::timeout(DEADLINE, round).await.is_err() {
            tracing::debug!(domain, "a round of maintenance took too long");
        }
        if Instant::now() >= expire_at {
            expire_at = Instant::now() + EXPIRE_INTERVAL;
            let expired = expire(projector, projection, retrier, policy, &mut outages);
            if tokio::time::timeout(EXPIRE_INTERVAL, expired)
                .await
                .is_err()
            {
                tracing::debug!(domain, "expiring bytes and event ids took too long");
            }
        }
    }
}

/// Retries, erases and drops what is due.
async fn maintain_once(
    projector: &Projector,
    projection: &'static dyn Projection,
    retrier: &Retrier,
    outages: &mut Outages,
) {
    let (domain, pool) = (projection.domain(), &retrier.pool);
    let retried = match retry_due(retrier, projection, projector.instance).await {
        Err(RetryError::Database(error)) => Err(error),
        // Nothing is left to retry here.
        Ok(()) | Err(RetryError::Gone | RetryError::OtherCode) => Ok(()),
    };
    outages.follow(domain, "retrying dead letters", &retried);
    let erased = erase_deleted_users(pool, domain).await;
    outages.follow(domain, "erasing dead letters of deleted users", &erased);
    let dropped = drop_overdue(retrier, domain).await;
    outages.follow(domain, "dropping a retired version", &dropped);
    let merged = ids::maintenance::merge(&projector.pool, domain).await;
    outages.follow(domain, "merging event ids", &merged);
    let deleted = versions::delete_dropped(pool, domain).await;
    outages.follow(domain, "deleting a dropped version", &deleted);
}

/// Deletes bytes and event ids that have expired, and notes which versions stand still.
async fn expire(
    projector: &Projector,
    projection: &'static dyn Projection,
    retrier: &Retrier,
    policy: &DeadLetterPolicy,
    outages: &mut Outages,
) {
    let (domain, pool) = (projection.domain(), &retrier.pool);
    let expiring = expire_bytes(pool, domain, policy.retention).await;
    set_gauge(telemetry::DEAD_LETTERS_EXPIRING, domain, &expiring);
    outages.follow(domain, "erasing bytes of dead letters", &expiring.map(drop));
    let stalled = versions::note_stalled(pool, domain).await;
    set_gauge(telemetry::STALLED_VERSIONS, domain, &stalled);
    outages.follow(domain, "reading stalled versions", &stalled.map(drop));
    let expired = ids::maintenance::expire(&projector.pool, domain, projector.dedupe).await;
    outages.follow(domain, "expiring event ids", &expired);
}

/// Sets a domain's gauge to a count, or to NaN where the count is not known.
fn set_gauge(gauge: &'static str, domain: &'static str, counted: &Result<i64, sqlx::Error>) {
    // Counts are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let value = counted.as_ref().map_or(f64::NAN, |count| *count as f64);
    metrics::gauge!(gauge, "domain" => domain).set(value);
}

/// Drops a version that was retired for long enough, if there is one.
async fn drop_overdue(retrier: &Retrier, domain: &'static str) -> Result<(), sqlx::Error> {
    match versions::remove(&retrier.pool, domain, Which::Overdue).await {
        Ok(version) => tracing::info!(
            domain,
            version,
            "dropped a version that was retired a day ago; a rollback to it is no longer possible"
        ),
        Err(VersionError::Database(error)) => return Err(error),
        Err(VersionError::NoSuchVersion) => {}
        Err(error) => tracing::debug!(domain, %error, "a retired version could not be dropped yet"),
    }
    Ok(())
}
