//! The workers: one task per assigned partition, which projects it batch by batch and goes on after whatever
//! happens, for as long as the partition is this process's.
//!
//! There is one way to begin and to begin again: look at the log, take the progress row over, seek to what it
//! says. After an error, a lost fence or a changed log nothing that was decided before is kept.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch};
use super::dead_letters::record_time;
use super::pause;
use super::progress::{self, Hold, Starts, TakeOver};
use super::{Projection, Projector, View};
use crate::config::StartAt;
use crate::db::{self, ErrorClass};
use crate::event::Record;
use crate::kafka::consumer::{Delivery, Partition, Records};
use crate::kafka::offsets::{self, TopicState};
use crate::telemetry;

/// A batch ends at this many records or bytes: enough to share the cost of a transaction, little enough that
/// it never takes long.
const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 4 << 20;
/// How long to wait before trying again, doubling.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long a partition may be idle short of the log's end before the rest is probed for a hole, doubling
/// while nothing comes.
const PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How often a held partition is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a batch under way has to finish when the process stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether a partition that stands still may go on.
const STAND_STILL: Duration = Duration::from_secs(5);
/// The log is shorter than what was read of it, or something else stands there. Only an operator can tell what that means.
const TAIL_LOST: &str = "tail_lost";
/// The topic was deleted and created again, and with it all of its partitions.
const TOPIC_RECREATED: &str = "topic_recreated";
/// How many readings of the log's end have to agree on that.
const END_READINGS: usize = 3;
/// How much log time passes between two rounds of deleting forgotten ids.
const FORGET_INTERVAL: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// Who projects a partition into one version of a view, until `stop` is cancelled; a batch under way is finished.
pub struct Worker {
    pub projector: Projector,
    pub projection: &'static dyn Projection,
    pub view: View,
    pub topic: String,
    pub partition: Partition,
    pub stop: CancellationToken,
}

/// Why a worker stopped projecting.
enum End {
    /// The partition is not this process's any more, or the process stops.
    Released,
    /// Somebody else changed the progress row.
    Fenced,
    /// The log is not known to be the one that it was.
    LogChanged,
    /// What was waited for may have come.
    LookAgain,
}

/// What a worker remembers from one take-over to the next.
#[derive(Default)]
struct Memory {
    log_id: Option<i32>,
    /// Up to where a log is known to have been projected: as Kafka was told before, or as it was done here. None before
    /// Kafka was asked.
    projected: Option<(i32, i64)>,
    /// Told when the database knows less than this.
    forgotten: Arc<Notify>,
    /// Whether anything was committed since the last take-over.
    committed: bool,
    /// The log's time when ids were last forgotten, or would have been.
    forget_at: Option<Option<DateTime<Utc>>>,
}

impl Worker {
    pub async fn run(self) {
        let mut backoff = BACKOFF.0;
        let mut troubled = false;
        // A reading of the log that is a moment old will do, unless there is a reason to doubt it.
        let mut log_since = Instant::now()
            .checked_sub(Duration::from_secs(5))
            .unwrap_or_else(Instant::now);
        let mut memory = Memory::default();
        while !self.stop.is_cancelled() {
            memory.committed = false;
            let overdue = async {
                self.stop.cancelled().await;
                tokio::time::sleep(DRAIN).await;
            };
            let attempt = AssertUnwindSafe(self.project(log_since, &mut memory)).catch_unwind();
            let ended = tokio::select! {
                ended = attempt => ended,
                // Rolled back, and done again by whoever takes over.
                () = overdue => break,
            };
            if memory.committed {
                backoff = BACKOFF.0;
                if std::mem::take(&mut troubled) {
                    tracing::info!(
                        domain = self.view.domain,
                        topic = self.topic,
                        partition = self.partition.number,
                        "projecting again"
                    );
                }
            }
            let (failure, cause) = match ended {
                Ok(Ok(End::Released)) => break,
                Ok(Ok(End::LookAgain)) => continue,
                Ok(Ok(End::LogChanged)) => {
                    log_since = Instant::now();
                    continue;
                }
                // Whoever fenced this owner may be about to be told that the partition is theirs: two that
                // take it from each other at once get nowhere.
                Ok(Ok(End::Fenced)) => {
                    // Who got something done meanwhile was fenced by somebody who does not stay.
                    if !memory.committed {
                        self.wait(LOOK_AGAIN).await;
                    }
                    continue;
                }
                Ok(Err(error)) => match db::classify(&error) {
                    ErrorClass::Transient => ("database_unavailable", db::describe(&error)),
                    ErrorClass::Systemic | ErrorClass::Data | ErrorClass::Bug => {
                        ("database_refuses", db::describe(&error))
                    }
                },
                // Outside of a fold it is nobody's data's fault. The panic hook has told where.
                Err(_) => ("panicked", "a panic".to_owned()),
            };
            self.fails(&memory, failure);
            if !std::mem::replace(&mut troubled, true) {
                tracing::warn!(
                    domain = self.view.domain,
                    topic = self.topic,
                    partition = self.partition.number,
                    failure,
                    cause,
                    "projection failed; trying again until it goes through"
                );
            }
            let jitter = fastrand::f64() / 2.0 + 0.75;
            self.wait(backoff.mul_f64(jitter)).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
        if let Some(log_id) = memory.log_id {
            self.projector.heartbeats.end(&self.view, log_id);
        }
    }

    /// Tells what holds the partition up at the moment.
    fn fails(&self, memory: &Memory, failure: &'static str) {
        if let Some(log_id) = memory.log_id {
            let heartbeats = &self.projector.heartbeats;
            heartbeats.failure(&self.view, log_id, Some(failure));
        }
    }

    async fn wait(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Takes the partition over and projects it until something ends that.
    async fn project(&self, log_since: Instant, memory: &mut Memory) -> Result<End, sqlx::Error> {
        let Some(log) = self.log_read_since(log_since).await else {
            return Ok(End::Released);
        };
        let Some(mut hold) = self.take_over(&log, memory).await? else {
            self.wait(LOOK_AGAIN).await;
            return Ok(End::LookAgain);
        };
        let readable = log.offsets[&self.partition.number].last_stable;
        // The last record that was read is read again, to see whether it still is the one.
        let start = log.offsets[&self.partition.number].log_start;
        let mut last = hold.last.filter(|(offset, _)| *offset >= start);
        let begin = last.map_or(hold.next_offset, |(offset, _)| offset);
        let Some(mut records) = self.partition.seek(begin).await else {
            return Ok(End::Released);
        };
        // By the first `End` that comes, the log was read up to what its end was before the seek.
        let mut scanned_at_end = readable;
        let mut probe = Probe::default();
        loop {
            let Some(now) = self.current_log(&log) else {
                return Ok(End::LogChanged);
            };
            let ends = now.offsets.get(&self.partition.number).copied();
            if ends.is_some_and(|ends| hold.next_offset < ends.log_start) {
                return Ok(End::LogChanged);
            }
            if now.offsets.len() > log.offsets.len() {
                // A partition was added: whoever sees it first notes it, so that it shows before it is assigned.
                return Ok(End::LookAgain);
            }
            let delivery = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(End::Released),
                () = memory.forgotten.notified() => return Ok(End::LookAgain),
                delivery = records.next() => delivery,
                () = tokio::time::sleep(offsets::INTERVAL) => {
                    match ends {
                        Some(ends) if ends.last_stable > hold.next_offset && probe.is_due() => {
                            scanned_at_end = ends.last_stable;
                            let Some(anew) = self.partition.seek(hold.next_offset).await else { return Ok(End::Released) };
                            records = anew;
                        }
                        // The log is shorter than what was read of it, unless the reading is older than that.
                        Some(ends) if ends.log_end < hold.next_offset && ends.asked > probe.since => return Ok(End::LogChanged),
                        _ => {}
                    }
                    continue;
                }
            };
            let Some(delivery) = delivery else {
                return Ok(End::LogChanged);
            };
            // Where it is no more (compaction, retention) nobody can tell.
            if let (Some((offset, known)), Delivery::Record(record)) = (last.take(), &delivery)
                && record.offset == offset
                && record.fingerprint() != known
            {
                self.lost_tail(&hold, offset).await?;
                return Ok(End::LookAgain);
            }
            let batch = collect(delivery, &mut records, hold.next_offset, scanned_at_end);
            if batch.next_offset == hold.next_offset {
                // At the end of the log, and nothing went wrong on the way.
                let beats = &self.projector.heartbeats;
                beats.failure(&self.view, hold.log_id, None);
                continue;
            }
            let oldest = batch.records.first().and_then(record_time);
            self.projector
                .heartbeats
                .oldest_unapplied(&self.view, hold.log_id, oldest);
            let place = match hold.is_live {
                true => None,
                false => self.projector.other_versions.acquire().await.ok(),
            };
            let began = Instant::now();
            let outcome = batch::project(
                &self.projector,
                self.projection,
                &self.view,
                &mut hold,
                &batch,
            )
            .await;
            drop(place);
            self.measure(&outcome, began, oldest);
            match outcome? {
                batch::End::Fenced => return Ok(End::Fenced),
                batch::End::Committed(books, piled_up) => {
                    memory.committed = true;
                    memory.projected = Some((hold.log_id, hold.next_offset));
                    probe = Probe::default();
                    self.partition
                        .store(hold.next_offset, log.identity.stored());
                    let beats = &self.projector.heartbeats;
                    beats.count(&self.view, hold.log_id, books.read, hold.next_offset);
                    beats.oldest_unapplied(&self.view, hold.log_id, None);
                    beats.failure(&self.view, hold.log_id, None);
                    if books.dead_lettered > 0 {
                        tracing::warn!(
                            domain = self.view.domain,
                            topic = self.topic,
                            partition = self.partition.number,
                            letters = books.dead_lettered,
                            before_offset = hold.next_offset,
                            "records became dead letters"
                        );
                    }
                    if let Some(reason) = piled_up {
                        self.pause(&reason).await?;
                    }
                }
            }
            let forget_at = memory.forget_at.get_or_insert(hold.stream_time);
            if hold.stream_time > forget_at.map(|at| at + FORGET_INTERVAL) {
                *forget_at = hold.stream_time;
                while !self.stop.is_cancelled()
                    && batch::forget(&self.projector, &self.view, &hold).await?
                {}
            }
        }
    }

    /// Pauses the version. Who can't say so finds the letters again with the next one.
    async fn pause(&self, reason: &str) -> Result<(), sqlx::Error> {
        tracing::error!(
            domain = self.view.domain,
            version = self.view.version,
            topic = self.topic,
            partition = self.partition.number,
            reason,
            "projection pauses itself until an operator resumes it"
        );
        pause::pause_piled_up(&self.projector.pool, &self.view, reason).await
    }

    /// Counts a batch, and times one that was committed.
    fn measure(
        &self,
        outcome: &Result<batch::End, sqlx::Error>,
        began: Instant,
        oldest: Option<DateTime<Utc>>,
    ) {
        let domain = self.view.domain;
        let end = match outcome {
            Ok(batch::End::Committed(..)) => "committed",
            Ok(batch::End::Fenced) => "fenced",
            Err(_) => "failed",
        };
        metrics::counter!(telemetry::BATCHES, "domain" => domain, "outcome" => end).increment(1);
        let Ok(batch::End::Committed(books, _)) = outcome else {
            return;
        };
        for (outcome, records) in [
            ("applied", books.applied),
            ("duplicate", books.duplicates),
            ("skipped", books.skipped),
            ("dead_lettered", books.dead_lettered),
        ] {
            metrics::counter!(telemetry::RECORDS, "domain" => domain, "outcome" => outcome)
                .increment(records.unsigned_abs());
        }
        metrics::histogram!(telemetry::BATCH_SECONDS, "domain" => domain).record(began.elapsed());
        // A batch has some thousand records at most.
        #[allow(clippy::cast_precision_loss)]
        metrics::histogram!(telemetry::BATCH_RECORDS, "domain" => domain).record(books.read as f64);
        if let Some(age) = oldest.and_then(|oldest| (Utc::now() - oldest).to_std().ok()) {
            metrics::histogram!(telemetry::FRESHNESS_SECONDS, "domain" => domain).record(age);
        }
    }

    /// Waits until the partition's ends were read at or after a moment.
    async fn log_read_since(&self, since: Instant) -> Option<Arc<TopicState>> {
        let mut logs = self.projector.topic_states.clone();
        loop {
            let found = logs
                .borrow_and_update()
                .as_ref()
                .and_then(|logs| logs.get(&self.topic))
                .cloned();
            if let Some(log) = found
                && log
                    .offsets
                    .get(&self.partition.number)
                    .is_some_and(|ends| ends.asked >= since)
            {
                return Some(log);
            }
            tokio::select! {
                changed = logs.changed() => changed.ok()?,
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// The last reading of the topic, if it still is the topic that it was.
    fn current_log(&self, log: &TopicState) -> Option<Arc<TopicState>> {
        let logs = self.projector.topic_states.borrow();
        let now = logs.as_ref()?.get(&self.topic)?;
        (now.identity == log.identity).then(|| Arc::clone(now))
    }

    /// Takes the progress row over, if the log is the one that it speaks of and still reaches back to it.
    async fn take_over(
        &self,
        log: &TopicState,
        memory: &mut Memory,
    ) -> Result<Option<Hold>, sqlx::Error> {
        let Projector {
            pool, heartbeats, ..
        } = &self.projector;
        let (view, topic, number) = (&self.view, &self.topic, self.partition.number);
        let mut is_new = false;
        let mut taken = progress::take_over(pool, view, topic, log, number).await?;
        if matches!(taken, TakeOver::NotReady) {
            let starts = match progress::has_begun(pool, view, topic).await? {
                true => Some(Starts::new()),
                false => self.configured_starts(log).await,
            };
            let Some(starts) = starts else {
                return Ok(None);
            };
            is_new = progress::ensure(pool, view, topic, log, &starts)
                .await?
                .contains(&number);
            taken = progress::take_over(pool, view, topic, log, number).await?;
        }
        match taken {
            TakeOver::NotReady => Ok(None),
            TakeOver::TopicRecreated => self.stand_still(TOPIC_RECREATED).await,
            // The heart beats on: somebody is there to go on.
            TakeOver::Waiting { log_id, epoch } | TakeOver::Paused { log_id, epoch } => {
                memory.log_id = Some(log_id);
                heartbeats.begin(view, log_id, epoch, 0);
                Ok(None)
            }
            TakeOver::Held(hold) => {
                memory.log_id = Some(hold.log_id);
                let (log_id, epoch) = (hold.log_id, hold.epoch);
                memory.forgotten = heartbeats.begin(view, log_id, epoch, hold.next_offset);
                if !self.compare_with_kafka(log, &hold, is_new, memory).await? {
                    return Ok(None);
                }
                // A log that was shorter may have grown past the position since, with other records: that it
                // does not show any more does not mend it.
                if hold.failure.as_deref() == Some(TAIL_LOST) {
                    return self.stand_still(TAIL_LOST).await;
                }
                let mut ends = log.offsets[&number];
                // A reading may be older than the position, or be of a leader that is not up to date yet.
                for _ in 0..END_READINGS {
                    if hold.next_offset <= ends.log_end {
                        break;
                    }
                    let Some(log) = self.log_read_since(Instant::now()).await else {
                        return Ok(None);
                    };
                    ends = log.offsets[&number];
                }
                if hold.next_offset < ends.log_start {
                    self.stand_still("log_truncated").await
                } else if hold.next_offset > ends.log_end {
                    self.lost_tail(&hold, ends.log_end).await
                } else {
                    progress::clear_failure(pool, view, hold.log_id).await?;
                    Ok(Some(*hold))
                }
            }
        }
    }

    /// Notes that the log has lost its tail from an offset on, and stands still.
    async fn lost_tail(&self, hold: &Hold, end: i64) -> Result<Option<Hold>, sqlx::Error> {
        let pool = &self.projector.pool;
        progress::note_lost_tail(pool, &self.view, hold.log_id, end).await?;
        self.stand_still(TAIL_LOST).await
    }

    /// Notes why an operator has to decide before the partition goes on, and waits a while.
    async fn stand_still(&self, failure: &'static str) -> Result<Option<Hold>, sqlx::Error> {
        let pool = &self.projector.pool;
        let partition = (failure != TOPIC_RECREATED).then_some(self.partition.number);
        if progress::set_failure(pool, &self.view, &self.topic, partition, failure).await? {
            tracing::error!(
                domain = self.view.domain,
                version = self.view.version,
                topic = self.topic,
                partition = self.partition.number,
                failure,
                "the log is not the one that was projected: standing still until that is resolved"
            );
        }
        self.wait(STAND_STILL).await;
        Ok(None)
    }

    /// Notes it where the partition was projected further than the database knows: it was restored to an earlier
    /// state. What follows is projected again, which makes the view whole; but what was done outside of it on the word
    /// of the view must not be done again by itself. `false` while Kafka does not say.
    async fn compare_with_kafka(
        &self,
        log: &TopicState,
        hold: &Hold,
        is_new: bool,
        memory: &mut Memory,
    ) -> Result<bool, sqlx::Error> {
        let projected = match memory.projected {
            Some((log_id, projected)) if log_id == hold.log_id => Some(projected),
            // Nobody acts on what is not read; and another version of this number may have been there, before a restore.
            _ if !hold.is_live => None,
            _ => match self.partition.committed(log.identity.stored()).await {
                Ok(committed) => committed,
                Err(error) => {
                    tracing::debug!(%error, topic = self.topic, "Kafka does not say how far it was projected");
                    self.fails(memory, "committed_offset_unknown");
                    return Ok(false);
                }
            },
        };
        let went_back = projected.is_some_and(|projected| is_new || projected > hold.next_offset);
        if went_back && progress::note_went_back(&self.projector.pool, &self.view).await? {
            tracing::error!(
                domain = self.view.domain,
                version = self.view.version,
                topic = self.topic,
                partition = self.partition.number,
                position = hold.next_offset,
                projected,
                "the database was restored to an earlier state: projecting again what it lacks"
            );
        }
        memory.projected = Some((hold.log_id, hold.next_offset));
        Ok(true)
    }

    /// Where the partitions of a topic begin that no version of the view has met; `None` while Kafka does not say.
    async fn configured_starts(&self, log: &TopicState) -> Option<Starts> {
        match self.projector.start {
            StartAt::Earliest => Some(
                log.offsets
                    .iter()
                    .map(|(partition, ends)| (*partition, ends.log_start))
                    .collect(),
            ),
            StartAt::Latest => Some(
                log.offsets
                    .iter()
                    .map(|(partition, ends)| (*partition, ends.last_stable))
                    .collect(),
            ),
            StartAt::Time(time) => {
                let (kafka, topic, log) = (
                    self.projector.kafka.clone(),
                    self.topic.clone(),
                    log.clone(),
                );
                let found = tokio::task::spawn_blocking(move || {
                    offsets::offsets_at(&offsets::reader(&kafka)?, &topic, &log, time)
                })
                .await;
                match found {
                    Ok(Ok(starts)) => Some(starts),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, topic = self.topic, "Kafka does not say where the start time lies; asking again");
                        None
                    }
                    Err(_) => None,
                }
            }
        }
    }
}

/// When to look whether what lies between a position and the end of the log is a hole.
struct Probe {
    since: Instant,
    after: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            since: Instant::now(),
            after: PROBE.0,
        }
    }
}

impl Probe {
    /// Due once after a while, then after twice as long: a slow fetch must not be begun anew for ever.
    fn is_due(&mut self) -> bool {
        let due = self.since.elapsed() >= self.after;
        if due {
            *self = Probe {
                since: Instant::now(),
                after: (self.after * 2).min(PROBE.1),
            };
        }
        due
    }
}

/// A batch of what is there, beginning with a delivery.
fn collect(first: Delivery, records: &mut Records, position: i64, scanned_at_end: i64) -> Batch {
    let mut batch = Batch {
        records: Vec::new(),
        next_offset: position,
    };
    let mut bytes = 0;
    let mut delivery = Some(first);
    while let Some(current) = delivery {
        match current {
            Delivery::Record(record) => {
                bytes += record.value.as_ref().map_or(0, |value| value.len());
                add(&mut batch, record);
            }
            Delivery::End => batch.next_offset = batch.next_offset.max(scanned_at_end),
        }
        let full = batch.records.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES;
        delivery = if full { None } else { records.try_next() };
    }
    batch
}

/// Adds a record, unless it lies before the position: it was projected already.
fn add(batch: &mut Batch, record: Record) {
    if record.offset >= batch.next_offset {
        batch.next_offset = record.offset + 1;
        batch.records.push(record);
    }
}
