//! Signs of life: which partitions this process projects and how it goes, and where the logs end; written
//! every two seconds, apart from the progress rows, so that no heartbeat waits for a batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::Notify;

use super::{Projector, View};
use crate::db;
use crate::kafka::offsets::TopicStates;

const INTERVAL: Duration = Duration::from_secs(2);
/// Over how long a rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What the workers of a process say of their partitions.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<(View, i32), Pulse>>);

/// How one partition goes.
#[derive(Debug)]
struct Pulse {
    epoch: i64,
    next_offset: i64,
    /// Told when the database knows less than its owner: it was restored to an earlier state.
    forgotten: Arc<Notify>,
    oldest_unapplied_at: Option<DateTime<Utc>>,
    failure: Option<&'static str>,
    window: (Instant, i64),
    rate: f64,
}

impl Heartbeats {
    fn pulses(&self) -> MutexGuard<'_, HashMap<(View, i32), Pulse>> {
        // A pulse is only told, never computed with: one that a panic left half-written does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process owns a log from now on, or owns it anew, from an offset on. What held it up holds until something
    /// goes through. Returns what is told when the database does not know that any more.
    pub fn begin(&self, view: &View, log_id: i32, epoch: i64, next_offset: i64) -> Arc<Notify> {
        let mut pulses = self.pulses();
        let pulse = pulses
            .entry((view.clone(), log_id))
            .or_insert_with(|| Pulse {
                epoch,
                next_offset,
                forgotten: Arc::default(),
                oldest_unapplied_at: None,
                failure: None,
                window: (Instant::now(), 0),
                rate: 0.0,
            });
        (pulse.epoch, pulse.next_offset) = (epoch, next_offset);
        Arc::clone(&pulse.forgotten)
    }

    /// This process does not own the log any more.
    pub fn end(&self, view: &View, log_id: i32) {
        self.pulses().remove(&(view.clone(), log_id));
    }

    /// Records were read and committed, up to an offset.
    pub fn count(&self, view: &View, log_id: i32, records: i64, next_offset: i64) {
        if let Some(pulse) = self.pulses().get_mut(&(view.clone(), log_id)) {
            pulse.window.1 += records;
            pulse.next_offset = next_offset;
        }
    }

    /// The Kafka timestamp of the oldest record that is read but not applied.
    pub fn oldest_unapplied(&self, view: &View, log_id: i32, at: Option<DateTime<Utc>>) {
        if let Some(pulse) = self.pulses().get_mut(&(view.clone(), log_id)) {
            pulse.oldest_unapplied_at = at;
        }
    }

    /// What holds a log up at the moment, while it is tried again.
    pub fn failure(&self, view: &View, log_id: i32, failure: Option<&'static str>) {
        if let Some(pulse) = self.pulses().get_mut(&(view.clone(), log_id)) {
            pulse.failure = failure;
        }
    }
}

/// Writes heartbeats until the process stops. A database that is away makes them miss, which is what they are for.
pub async fn run(projector: Projector) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = projector.stop.cancelled() => return,
        }
        let logs = projector.topic_states.borrow().clone();
        let written = async {
            write_owners(&projector).await?;
            match logs {
                Some(logs) => write_ends(&projector.pool, &logs).await,
                None => Ok(()),
            }
        };
        if let Some(Err(error)) = projector.stop.run_until_cancelled(written).await {
            tracing::debug!(
                error = db::describe(&error),
                "a heartbeat could not be written"
            );
        }
    }
}

async fn write_owners(projector: &Projector) -> Result<(), sqlx::Error> {
    let (mut domains, mut versions, mut log_ids, mut epochs, mut offsets) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut oldest, mut rates, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for ((view, log_id), pulse) in projector.heartbeats.pulses().iter_mut() {
        let (since, records) = pulse.window;
        let elapsed = since.elapsed();
        if elapsed >= RATE_WINDOW || pulse.rate == 0.0 {
            // Counts of records are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let rate = records as f64 / elapsed.as_secs_f64().max(1.0);
            pulse.rate = rate;
        }
        if elapsed >= RATE_WINDOW {
            pulse.window = (Instant::now(), 0);
        }
        domains.push(view.domain.to_owned());
        versions.push(view.version);
        log_ids.push(*log_id);
        epochs.push(pulse.epoch);
        offsets.push(pulse.next_offset);
        oldest.push(pulse.oldest_unapplied_at);
        rates.push(pulse.rate);
        failures.push(pulse.failure.map(str::to_owned));
    }
    if log_ids.is_empty() {
        return Ok(());
    }
    let forgotten = sqlx::query_file!(
        "src/projector/sql/write_owners.sql",
        projector.instance,
        &domains,
        &versions,
        &log_ids,
        &epochs,
        &oldest as _,
        &rates,
        &failures as _,
        &offsets,
    )
    .fetch_all(&projector.pool)
    .await?;
    let pulses = projector.heartbeats.pulses();
    for row in forgotten {
        let is_it = |view: &View| view.domain == row.domain && view.version == row.version;
        let found = pulses
            .iter()
            .find(|((view, log_id), _)| *log_id == row.log_id && is_it(view));
        if let Some((_, pulse)) = found {
            pulse.forgotten.notify_one();
        }
    }
    Ok(())
}

async fn write_ends(pool: &PgPool, logs: &TopicStates) -> Result<(), sqlx::Error> {
    for (topic, log) in logs.iter() {
        let partitions: Vec<i32> = log.offsets.keys().copied().collect();
        let starts: Vec<i64> = log.offsets.values().map(|ends| ends.log_start).collect();
        let ends: Vec<i64> = log.offsets.values().map(|ends| ends.log_end).collect();
        let ages: Vec<f64> = log
            .offsets
            .values()
            .map(|ends| ends.asked.elapsed().as_secs_f64())
            .collect();
        sqlx::query_file!(
            "src/projector/sql/write_log_offsets.sql",
            topic,
            log.identity.stored(),
            &partitions,
            &starts,
            &ends,
            &ages
        )
        .execute(pool)
        .await?;
    }
    Ok(())
}
