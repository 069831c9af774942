//! What views need from time to time, a task for each domain, done by whichever process comes first: dead letters are retried
//! and published, their bytes expire, and so do remembered event ids; retired versions are dropped when their time is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::PgPool;

use super::dead_letters::maintenance::{erase_deleted_users, expire_bytes, retry_due};
use super::dead_letters::outbox::Outbox;
use super::dead_letters::retry::{Retrier, RetryError};
use super::outages::Outages;
use super::versions::{self, VersionError, Which};
use super::{Projection, Projector, ids};
use crate::db;
use crate::telemetry;

/// The pause between two rounds: by chance up to a quarter shorter or longer, so that domains that began together don't go on
/// together.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a round may take. Each of its steps has a deadline of its own, so it ends earlier unless there is much to do.
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

/// The pause between two counts of work queues.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a count may take.
const COUNT_DEADLINE: Duration = Duration::from_secs(5);

/// What maintenance counts from time to time, as it was counted last, by gauge and domain. `None`: the count failed.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<(&'static str, &'static str), Option<i64>>>);

impl Counts {
    fn note(&self, gauge: &'static str, domain: &'static str, counted: Option<i64>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.insert((gauge, domain), counted);
    }

    /// Sets the gauges of all that was counted. A domain that is not `current` has NaN, because the database does not answer.
    pub fn set_gauges(&self, is_current: impl Fn(&str) -> bool) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((gauge, domain), count) in &*counts {
            let count = count.filter(|_| is_current(domain));
            // Counts are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let value = count.map_or(f64::NAN, |count| count as f64);
            metrics::gauge!(*gauge, "domain" => *domain).set(value);
        }
    }
}

/// Maintains the views of some domains until the process stops, each through a pool of its own: an outbox holds a connection
/// while Kafka acknowledges, and delays no other domain by that.
pub async fn run(
    projector: Projector,
    projections: Vec<(&'static dyn Projection, PgPool)>,
    retrier: Retrier,
    policy: DeadLetterPolicy,
    counts: &Counts,
) {
    let outboxes = projections.iter().map(|(projection, pool)| {
        let (domain, pool) = (projection.domain(), pool.clone());
        Outbox::new(domain, pool, &projector.kafka, policy.publish_values).run()
    });
    let publish_all = futures_util::future::join_all(outboxes);
    let retriers: Vec<(&'static dyn Projection, Retrier)> = projections
        .iter()
        .map(|(projection, pool)| {
            let pool = pool.clone();
            (
                *projection,
                Retrier {
                    pool,
                    ..retrier.clone()
                },
            )
        })
        .collect();
    let maintained = retriers
        .iter()
        .map(|(projection, retrier)| maintain(&projector, *projection, retrier, &policy, counts));
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
    counts: &Counts,
) {
    let (mut expire_at, mut count_at) = (Instant::now(), Instant::now());
    let mut outages = Outages::default();
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        pause = INTERVAL.mul_f64(0.75 + 0.5 * fastrand::f64());
        let round = maintain_once(projector, projection, retrier, &mut outages);
        let domain = projection.domain();
        if tokio::time::timeout(DEADLINE, round).await.is_err() {
            tracing::debug!(domain, "a round of maintenance took too long");
        }
        if Instant::now() >= count_at {
            count_queued(projection, &retrier.pool, counts, &mut outages).await;
            count_at = Instant::now() + COUNT_INTERVAL;
        }
        if Instant::now() >= expire_at {
            let expired = expire(projector, projection, retrier, policy, counts, &mut outages);
            match tokio::time::timeout(EXPIRE_INTERVAL, expired).await {
                // The next round tries again, so that the counts are known soon after an outage.
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => tracing::debug!(domain, "expiring bytes and event ids took too long"),
            }
            expire_at = Instant::now() + EXPIRE_INTERVAL;
        }
    }
}

/// Erases, retries and drops what is due.
async fn maintain_once(
    projector: &Projector,
    projection: &'static dyn Projection,
    retrier: &Retrier,
    outages: &mut Outages,
) {
    let (domain, pool) = (projection.domain(), &retrier.pool);
    let erased = erase_deleted_users(pool, domain).await;
    outages.follow(domain, "erasing dead letters of deleted users", &erased);
    let retried = match retry_due(retrier, projection, projector.instance).await {
        Err(RetryError::Database(error)) => Err(error),
        // Nothing is left to retry here.
        Ok(()) | Err(RetryError::Gone | RetryError::OtherCode) => Ok(()),
    };
    outages.follow(domain, "retrying dead letters", &retried);
    let dropped = drop_overdue(retrier, projection).await;
    outages.follow(domain, "dropping a retired version", &dropped);
    let merged = ids::maintenance::merge(&projector.pool, domain).await;
    outages.follow(domain, "merging event ids", &merged);
    let deleted = versions::delete_dropped(pool, projection).await;
    outages.follow(domain, "deleting a dropped version", &deleted);
    let maintained = projection.maintain(pool).await;
    let maintained = maintained.map(|may_find| {
        if may_find {
            projector.announcements.announce(domain);
        }
    });
    outages.follow(domain, "doing what time brings about", &maintained);
}

/// Counts what waits in the domain's work queue, if it has one.
async fn count_queued(
    projection: &'static dyn Projection,
    pool: &PgPool,
    counts: &Counts,
    outages: &mut Outages,
) {
    let domain = projection.domain();
    let queued = db::within(COUNT_DEADLINE, projection.queued(pool)).await;
    // A domain without a queue has no gauges, and can't fail.
    if let Some(queued) = queued.as_ref().map(Option::as_ref).transpose() {
        let queued = queued.ok();
        counts.note(telemetry::QUEUE_READY, domain, queued.map(|q| q.ready));
        let oldest = queued.map(|q| q.oldest_seconds);
        counts.note(telemetry::QUEUE_OLDEST_SECONDS, domain, oldest);
    }
    outages.follow(domain, "counting a work queue", &queued.map(drop));
}

/// Deletes bytes and event ids that have expired, and counts the versions that are stalled. Returns whether the counts are
/// known.
async fn expire(
    projector: &Projector,
    projection: &'static dyn Projection,
    retrier: &Retrier,
    policy: &DeadLetterPolicy,
    counts: &Counts,
    outages: &mut Outages,
) -> bool {
    let (domain, pool) = (projection.domain(), &retrier.pool);
    let expiring = expire_bytes(pool, domain, policy.retention).await;
    let counted = expiring.as_ref().ok().copied();
    counts.note(telemetry::DEAD_LETTERS_EXPIRING, domain, counted);
    let erased = expiring.map(drop);
    outages.follow(domain, "erasing bytes of dead letters", &erased);
    let stalled = db::within(db::STEP_DEADLINE, versions::note_stalled(pool, domain)).await;
    let counted = stalled.as_ref().ok().copied();
    counts.note(telemetry::STALLED_VERSIONS, domain, counted);
    let noted = stalled.map(drop);
    outages.follow(domain, "reading stalled versions", &noted);
    let expired = ids::maintenance::expire(&projector.pool, domain, projector.dedupe).await;
    outages.follow(domain, "expiring event ids", &expired);
    erased.is_ok() && noted.is_ok()
}

/// Drops a version that was retired for long enough, if there is one.
async fn drop_overdue(
    retrier: &Retrier,
    projection: &'static dyn Projection,
) -> Result<(), sqlx::Error> {
    let domain = projection.domain();
    match versions::remove(&retrier.pool, projection, Which::Overdue).await {
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

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn counts_are_unknown_while_the_database_does_not_answer() {
        let counts = Counts::default();
        counts.note(telemetry::STALLED_VERSIONS, "order", Some(2));
        counts.note(telemetry::DEAD_LETTERS_EXPIRING, "order", None);
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = |is_current: bool| {
            metrics::with_local_recorder(&recorder, || counts.set_gauges(|_| is_current));
            recorder.handle().render()
        };
        for (is_current, stalled) in [(true, "2"), (false, "NaN"), (true, "2")] {
            let shown = shown(is_current);
            for line in [
                format!("sightline_stalled_versions{{domain=\"order\"}} {stalled}\n"),
                "sightline_dead_letters_expiring{domain=\"order\"} NaN\n".to_owned(),
            ] {
                assert!(shown.contains(&line), "{line} in {shown}");
            }
        }
    }
}
