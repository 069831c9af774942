//! Heartbeats: which partitions this process projects, how fast, and what holds them up; and the offsets of the logs.
//!
//! They are written every two seconds and when a partition is claimed first, to tables of their own: no heartbeat waits for a
//! batch's lock on a progress row. A heartbeat is of a process and a version, and names its partitions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::Notify;

use super::outages::Outages;
use super::{Projector, View};
use crate::db;
use crate::kafka::offsets::TopicStates;

const INTERVAL: Duration = Duration::from_secs(2);
/// How long the first heartbeat of a partition waits for those of others.
const GATHER: Duration = Duration::from_millis(50);
/// How long a heartbeat may take to be written.
const DEADLINE: Duration = Duration::from_secs(5);
/// For how long heartbeats still name a partition after its worker ended: the next owner may need that long, and readers wait
/// as long for a heartbeat before they report an owner as dead.
const RELEASED: Duration = Duration::from_secs(10);
/// Over how long a rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What the workers of a process report of their partitions, by view and log.
#[derive(Debug, Default)]
pub struct Heartbeats {
    all: Mutex<HashMap<(View, i32), Heartbeat>>,
    /// Notified when there is one more.
    begun: Notify,
}

/// What a worker reports of one partition.
#[derive(Debug)]
struct Heartbeat {
    epoch: i64,
    next_offset: i64,
    /// Notified when the database's position lies before the owner's: it was restored to an earlier state.
    restored: Arc<Notify>,
    oldest_unapplied_at: Option<DateTime<Utc>>,
    failure: Option<&'static str>,
    window: (Instant, i64),
    rate: f64,
    /// When the worker ended.
    released: Option<Instant>,
}

impl Heartbeats {
    fn all(&self) -> MutexGuard<'_, HashMap<(View, i32), Heartbeat>> {
        // Heartbeats are only reported. One that a panic left half-written does no harm.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process claims a log from now on, at an offset. A failure that was reported stays until it is cleared. Returns
    /// what is notified if the database is restored to a state before this.
    pub fn begin(&self, view: &View, log_id: i32, epoch: i64, next_offset: i64) -> Arc<Notify> {
        let (mut all, key) = (self.all(), (view.clone(), log_id));
        if all
            .get(&key)
            .is_some_and(|former| former.released.is_some())
        {
            all.remove(&key);
        }
        let heartbeat = all.entry(key).or_insert_with(|| {
            self.begun.notify_one();
            Heartbeat {
                epoch,
                next_offset,
                restored: Arc::default(),
                oldest_unapplied_at: None,
                failure: None,
                window: (Instant::now(), 0),
                rate: 0.0,
                released: None,
            }
        });
        (heartbeat.epoch, heartbeat.next_offset) = (epoch, next_offset);
        Arc::clone(&heartbeat.restored)
    }

    /// The worker that claimed the log with this epoch has ended. A later worker's heartbeat stays.
    pub fn end(&self, view: &View, log_id: i32, epoch: i64) {
        if let Some(heartbeat) = self.all().get_mut(&(view.clone(), log_id))
            && heartbeat.epoch <= epoch
        {
            heartbeat.released = Some(Instant::now());
        }
    }

    fn drop_released(&self) {
        self.all().retain(|_, heartbeat| {
            let released = heartbeat.released;
            released.is_none_or(|since| since.elapsed() < RELEASED)
        });
    }

    /// Records were read and committed, up to an offset.
    pub fn count(&self, view: &View, log_id: i32, records: i64, next_offset: i64) {
        if let Some(heartbeat) = self.all().get_mut(&(view.clone(), log_id)) {
            heartbeat.window.1 += records;
            heartbeat.next_offset = next_offset;
        }
    }

    /// The Kafka timestamp of the oldest record that is read but not yet applied.
    pub fn oldest_unapplied(&self, view: &View, log_id: i32, at: Option<DateTime<Utc>>) {
        if let Some(heartbeat) = self.all().get_mut(&(view.clone(), log_id)) {
            heartbeat.oldest_unapplied_at = at;
        }
    }

    /// What holds a log up while its worker tries again; `None` clears it.
    pub fn failure(&self, view: &View, log_id: i32, failure: Option<&'static str>) {
        if let Some(heartbeat) = self.all().get_mut(&(view.clone(), log_id)) {
            heartbeat.failure = failure;
        }
    }
}

/// Writes heartbeats until the process stops. While the database is unavailable none is written, so the owner shows as
/// dead.
pub async fn run(projector: Projector) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut outages = Outages::default();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            // Until its first heartbeat readers of the lag take the partition for one without an owner.
            () = projector.heartbeats.begun.notified() => tokio::time::sleep(GATHER).await,
            () = projector.stop.cancelled() => return,
        }
        let states = projector.topic_states.borrow().clone();
        let written = async {
            write_heartbeats(&projector).await?;
            match states {
                Some(states) => write_offsets(&projector.pool, &states).await,
                None => Ok(()),
            }
        };
        let written = db::within(DEADLINE, written);
        if let Some(written) = projector.stop.run_until_cancelled(written).await {
            outages.follow("all domains", "writing heartbeats", &written);
        }
    }
}

async fn write_heartbeats(projector: &Projector) -> Result<(), sqlx::Error> {
    let (mut domains, mut versions, mut log_ids, mut epochs, mut offsets) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut oldest, mut rates, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    projector.heartbeats.drop_released();
    for ((view, log_id), heartbeat) in projector.heartbeats.all().iter_mut() {
        let (since, records) = heartbeat.window;
        let elapsed = since.elapsed();
        if elapsed >= RATE_WINDOW || heartbeat.rate == 0.0 {
            // Counts of records are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let rate = records as f64 / elapsed.as_secs_f64().max(1.0);
            heartbeat.rate = rate;
        }
        if elapsed >= RATE_WINDOW {
            heartbeat.window = (Instant::now(), 0);
        }
        domains.push(view.domain.to_owned());
        versions.push(view.version);
        log_ids.push(*log_id);
        epochs.push(heartbeat.epoch);
        offsets.push(heartbeat.next_offset);
        oldest.push(heartbeat.oldest_unapplied_at);
        rates.push(heartbeat.rate);
        failures.push(heartbeat.failure.map(str::to_owned));
    }
    let restored = sqlx::query_file!(
        "src/projector/sql/write_heartbeats.sql",
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
    let all = projector.heartbeats.all();
    for row in restored {
        let is_it = |view: &View| view.domain == row.domain && view.version == row.version;
        let found = all
            .iter()
            .find(|((view, log_id), _)| *log_id == row.log_id && is_it(view));
        if let Some((_, heartbeat)) = found {
            heartbeat.restored.notify_one();
        }
    }
    Ok(())
}

async fn write_offsets(pool: &PgPool, states: &TopicStates) -> Result<(), sqlx::Error> {
    for (topic, state) in states.iter() {
        let partitions: Vec<i32> = state.offsets.keys().copied().collect();
        let starts: Vec<i64> = state
            .offsets
            .values()
            .map(|offsets| offsets.log_start)
            .collect();
        let ends: Vec<i64> = state
            .offsets
            .values()
            .map(|offsets| offsets.log_end)
            .collect();
        let ages: Vec<f64> = state
            .offsets
            .values()
            .map(|offsets| offsets.asked.elapsed().as_secs_f64())
            .collect();
        sqlx::query_file!(
            "src/projector/sql/write_log_offsets.sql",
            state.identity.cluster_id,
            topic,
            state.identity.stored(),
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
