//! Workers: one task per assigned partition, which projects it batch by batch until the partition is revoked.
//!
//! There is one way to begin, also after an error, a fence or a change of the log: read the topic's state, claim the
//! partition, seek to the claimed position. Nothing that was judged before is kept.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batch};
use super::batch_limit::BatchLimit;
use super::dead_letters::record_time;
use super::pause;
use super::progress::{self, ClaimOutcome, OwnedPartition, Starts};
use super::{Projection, Projector, View};
use crate::config::StartAt;
use crate::db::{self, ErrorClass};
use crate::event::Record;
use crate::kafka::consumer::{Delivery, Partition, Records};
use crate::kafka::offsets::{self, TopicState};
use crate::telemetry;

/// A batch ends at so many records or bytes: enough to share the cost of a transaction, few enough to keep it short.
const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 4 << 20;
/// The pause before the next attempt: the first, doubling up to the largest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// After how long without a record, short of the last stable offset, the rest is probed for a hole: at first, doubling up
/// to the largest.
const PROBE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The pause before a partition that can't be claimed yet is tried again.
const CLAIM_PAUSE: Duration = Duration::from_millis(500);
/// How long a batch has to finish when the process stops.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause before a failed partition is tried again, which may have been resolved.
const FAILED_PAUSE: Duration = Duration::from_secs(5);
/// The failure of a log that is shorter than what was read of it, or has another record at the last offset that was read.
/// An operator has to decide.
const TAIL_LOST: &str = "tail_lost";
/// The failure of a partition that newer code has folded.
const NEWER_CODE: &str = "newer_code";
/// How many readings have to agree that the log ends before the position.
const END_READINGS: usize = 3;

/// Projects a partition into one version of a view until `stop` is cancelled. A batch that has begun is finished.
pub struct Worker {
    pub projector: Projector,
    pub projection: &'static dyn Projection,
    pub view: View,
    pub topic: String,
    pub partition: Partition,
    pub stop: CancellationToken,
}

/// Why a worker stopped projecting.
enum WorkerEnd {
    /// The partition was revoked, or the process stops.
    Released,
    /// The progress row's epoch was raised.
    Fenced,
    /// The log may no longer be the one that was claimed.
    LogChanged,
    /// The partition has to be claimed again.
    ClaimAgain,
}

/// What a worker keeps from one claim to the next.
struct Memory {
    log_id: Option<i32>,
    /// The epoch of the last claim.
    epoch: i64,
    /// A log, and the offset up to which it is known to be projected: by the offset committed to Kafka, or by this worker.
    /// `None` before Kafka was asked.
    projected: Option<(i32, i64)>,
    /// Notified when the database's position lies before the worker's: it was restored.
    restored: Arc<Notify>,
    /// Whether a batch was committed since the last claim.
    committed: bool,
    batch_limit: BatchLimit,
    /// Whether an outage was logged whose end was not.
    troubled: bool,
    /// The pause before the next attempt.
    backoff: Duration,
}

impl Memory {
    fn new() -> Self {
        Self {
            log_id: None,
            epoch: 0,
            projected: None,
            restored: Arc::default(),
            committed: false,
            batch_limit: BatchLimit::new(BATCH_RECORDS),
            troubled: false,
            backoff: BACKOFF.0,
        }
    }
}

impl Worker {
    pub async fn run(self) {
        self.begin_counters();
        // The state may be a moment old, unless something has put it in doubt.
        let mut state_since = Instant::now()
            .checked_sub(Duration::from_secs(5))
            .unwrap_or_else(Instant::now);
        let mut memory = Memory::new();
        while !self.stop.is_cancelled() {
            memory.committed = false;
            let overdue = async {
                self.stop.cancelled().await;
                tokio::time::sleep(DRAIN).await;
            };
            let attempt = AssertUnwindSafe(self.project(state_since, &mut memory)).catch_unwind();
            let ended = tokio::select! {
                ended = attempt => ended,
                // The batch is rolled back. The next owner does it again.
                () = overdue => break,
            };
            let (failure, cause) = match ended {
                Ok(Ok(WorkerEnd::Released)) => break,
                Ok(Ok(WorkerEnd::ClaimAgain)) => continue,
                Ok(Ok(WorkerEnd::LogChanged)) => {
                    state_since = Instant::now();
                    continue;
                }
                Ok(Ok(WorkerEnd::Fenced)) => {
                    // We committed since we claimed the partition, so a short operation (a retry, a pause) fenced us: claim
                    // it again without waiting. Else another owner may have claimed it, whose assignment is newer than
                    // ours: two that claim from each other at once make no progress.
                    if !memory.committed {
                        self.wait(CLAIM_PAUSE).await;
                    }
                    continue;
                }
                Ok(Err(error)) => match db::classify(&error) {
                    ErrorClass::UnreadableState => ("unreadable_state", db::describe(&error)),
                    ErrorClass::Transient => ("database_unavailable", db::describe(&error)),
                    ErrorClass::Systemic | ErrorClass::Data | ErrorClass::Bug => {
                        ("database_refuses", db::describe(&error))
                    }
                },
                // A panic outside of a fold is not the data's fault. The panic hook has logged where.
                Err(_) => ("panicked", "a panic".to_owned()),
            };
            self.report_failure(&memory, failure);
            if !std::mem::replace(&mut memory.troubled, true) {
                tracing::warn!(
                    domain = self.view.domain,
                    topic = self.topic,
                    partition = self.partition.number,
                    failure,
                    cause,
                    "projection failed; trying again until it goes through"
                );
            }
            if memory.batch_limit.was_halved() {
                memory.backoff = BACKOFF.0;
            }
            let jitter = fastrand::f64() / 2.0 + 0.75;
            self.wait(memory.backoff.mul_f64(jitter)).await;
            memory.backoff = (memory.backoff * 2).min(BACKOFF.1);
        }
        if let Some(log_id) = memory.log_id {
            let heartbeats = &self.projector.heartbeats;
            heartbeats.end(&self.view, log_id, memory.epoch);
        }
    }

    /// Reports in the heartbeat what holds the partition up.
    fn report_failure(&self, memory: &Memory, failure: &'static str) {
        if let Some(log_id) = memory.log_id {
            let heartbeats = &self.projector.heartbeats;
            heartbeats.failure(&self.view, log_id, Some(failure));
        }
    }

    /// Ends an outage: a batch was committed, or the log was read to its end and holds nothing to project.
    fn recovered(&self, memory: &mut Memory) {
        if let Some(log_id) = memory.log_id {
            let heartbeats = &self.projector.heartbeats;
            heartbeats.failure(&self.view, log_id, None);
        }
        memory.backoff = BACKOFF.0;
        if std::mem::take(&mut memory.troubled) {
            tracing::info!(
                domain = self.view.domain,
                topic = self.topic,
                partition = self.partition.number,
                "projecting again"
            );
        }
    }

    async fn wait(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Claims the partition and projects it until something ends that.
    async fn project(
        &self,
        state_since: Instant,
        memory: &mut Memory,
    ) -> Result<WorkerEnd, sqlx::Error> {
        let Some(state) = self.state_since(state_since).await else {
            return Ok(WorkerEnd::Released);
        };
        let Some(mut owned) = self.claim(&state, memory).await? else {
            self.wait(CLAIM_PAUSE).await;
            return Ok(WorkerEnd::ClaimAgain);
        };
        let claimed = state.offsets[&self.partition.number];
        // The last record that was read is fetched again, to compare its fingerprint.
        let mut last_record = owned
            .last_record
            .filter(|(offset, _)| *offset >= claimed.log_start);
        let begin = last_record.map_or(owned.claim.next_offset, |(offset, _)| offset);
        let Some(mut records) = self.partition.seek(begin).await else {
            return Ok(WorkerEnd::Released);
        };
        let mut unconfirmed_end: Option<i64> = None;
        let mut probe = Probe::default();
        loop {
            let Some(now) = self.current_state(&state) else {
                return Ok(WorkerEnd::LogChanged);
            };
            let offsets = now.offsets.get(&self.partition.number).copied();
            let next_offset = owned.claim.next_offset;
            if offsets.is_some_and(|offsets| next_offset < offsets.log_start) {
                return Ok(WorkerEnd::LogChanged);
            }
            if now.offsets.len() > state.offsets.len() {
                // A partition was added. Claiming again inserts its progress row, so that it shows before it is assigned.
                return Ok(WorkerEnd::ClaimAgain);
            }
            let delivery = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(WorkerEnd::Released),
                () = memory.restored.notified() => return Ok(WorkerEnd::ClaimAgain),
                delivery = records.next() => delivery,
                () = tokio::time::sleep(offsets::INTERVAL) => {
                    match offsets {
                        Some(offsets) if offsets.last_stable > next_offset && probe.is_due() => {
                            tracing::debug!(
                                domain = self.view.domain,
                                topic = self.topic,
                                partition = self.partition.number,
                                next_offset,
                                "probing for a hole"
                            );
                            // The last record is still to be compared, if it did not come yet.
                            let from = last_record.map_or(next_offset, |(offset, _)| offset);
                            let Some(sought) = self.partition.seek(from).await else { return Ok(WorkerEnd::Released) };
                            records = sought;
                        }
                        // The log is shorter than what was read of it, unless the offsets were asked for before that.
                        Some(offsets) if offsets.log_end < next_offset && offsets.asked > probe.since => {
                            return Ok(WorkerEnd::LogChanged);
                        }
                        _ => {}
                    }
                    continue;
                }
            };
            let Some(delivery) = delivery else {
                return Ok(WorkerEnd::LogChanged);
            };
            // If compaction or retention has removed the record, there is nothing to compare.
            if let Delivery::Record(record) = &delivery
                && let Some((offset, known)) = last_record.take()
                && record.offset == offset
                && record.fingerprint() != known
            {
                self.fail_lost_tail(&owned, offset).await?;
                return Ok(WorkerEnd::ClaimAgain);
            }
            let most = memory.batch_limit.records();
            let (mut batch, end) = collect(delivery, &mut records, next_offset, most);
            let log_id = owned.claim.log_id;
            let heartbeats = &self.projector.heartbeats;
            if batch.records.is_empty() {
                match judge_end(end, next_offset, &mut unconfirmed_end) {
                    EndStep::Reached => {
                        // Without an end, only the last record came, which is compared and not projected.
                        if end.is_some() {
                            self.recovered(memory);
                        }
                        continue;
                    }
                    EndStep::FetchAgain => {
                        let Some(sought) = self.partition.seek(next_offset).await else {
                            return Ok(WorkerEnd::Released);
                        };
                        records = sought;
                        continue;
                    }
                    EndStep::Hole(end) => batch.next_offset = end,
                }
            }
            let oldest = batch.records.first().and_then(record_time);
            heartbeats.oldest_unapplied(&self.view, log_id, oldest);
            let permit = if owned.is_live {
                None
            } else {
                self.projector.other_versions.acquire().await.ok()
            };
            if let [record] = batch.records.as_slice() {
                batch.gives_up = memory.batch_limit.blames(record.offset);
            }
            // A replay of old records, by a rebuild or a first build, says nothing of how fresh answers are.
            let is_replay = !owned.is_live || owned.reads_its_backlog();
            let began = Instant::now();
            let outcome = batch::project(
                &self.projector,
                self.projection,
                &self.view,
                &mut owned,
                &batch,
            )
            .await;
            drop(permit);
            self.measure(&outcome, began, oldest.filter(|_| !is_replay));
            if let (Err(error), Some(first)) = (&outcome, batch.records.first())
                && db::hit_limit(error)
            {
                let others = progress::others_committed(&self.projector.pool, &self.view, log_id);
                // Where the database does not even answer this, nothing is the record's fault.
                let others = others.await.unwrap_or_default();
                memory
                    .batch_limit
                    .hit(first.offset, batch.records.len(), others);
            }
            match outcome? {
                batch::BatchEnd::Fenced => return Ok(WorkerEnd::Fenced),
                batch::BatchEnd::Committed { books, piled_up } => {
                    let next_offset = owned.claim.next_offset;
                    memory.committed = true;
                    memory.batch_limit.committed();
                    memory.projected = Some((log_id, next_offset));
                    probe = Probe::default();
                    self.partition.store(next_offset, state.identity.stored());
                    heartbeats.count(&self.view, log_id, books.read, next_offset);
                    heartbeats.oldest_unapplied(&self.view, log_id, None);
                    self.recovered(memory);
                    if books.dead_lettered > 0 {
                        tracing::warn!(
                            domain = self.view.domain,
                            topic = self.topic,
                            partition = self.partition.number,
                            dead_letters = books.dead_lettered,
                            before_offset = next_offset,
                            "records became dead letters"
                        );
                    }
                    if let Some(reason) = piled_up {
                        self.pause(&reason).await?;
                    }
                }
            }
            unconfirmed_end = None;
            let next_offset = owned.claim.next_offset;
            if let EndStep::FetchAgain = judge_end(end, next_offset, &mut unconfirmed_end) {
                let Some(sought) = self.partition.seek(next_offset).await else {
                    return Ok(WorkerEnd::Released);
                };
                records = sought;
            }
        }
    }

    /// Pauses the version. If this write fails, the next dead letter triggers the check again.
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

    /// Begins the counters at 0 where they have not begun: Prometheus sees no increase in a series that appears with its
    /// first count, and an alert would miss the first failed batch or hole.
    fn begin_counters(&self) {
        let domain = self.view.domain;
        for end in ["committed", "fenced", "failed"] {
            metrics::counter!(telemetry::BATCHES, "domain" => domain, "outcome" => end)
                .increment(0);
        }
        let topic = self.topic.clone();
        metrics::counter!(telemetry::HOLES, "domain" => domain, "topic" => topic).increment(0);
    }

    /// Counts a batch, and measures a committed one; its freshness if its `oldest` record is given.
    fn measure(
        &self,
        outcome: &Result<batch::BatchEnd, sqlx::Error>,
        began: Instant,
        oldest: Option<DateTime<Utc>>,
    ) {
        let domain = self.view.domain;
        let end = match outcome {
            Ok(batch::BatchEnd::Committed { .. }) => "committed",
            Ok(batch::BatchEnd::Fenced) => "fenced",
            Err(_) => "failed",
        };
        metrics::counter!(telemetry::BATCHES, "domain" => domain, "outcome" => end).increment(1);
        let Ok(batch::BatchEnd::Committed { books, .. }) = outcome else {
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
        if books.holes > 0 {
            let topic = self.topic.clone();
            metrics::counter!(telemetry::HOLES, "domain" => domain, "topic" => topic)
                .increment(books.holes.unsigned_abs());
        }
        metrics::histogram!(telemetry::BATCH_SECONDS, "domain" => domain).record(began.elapsed());
        // A batch has some thousand records at most.
        #[allow(clippy::cast_precision_loss)]
        metrics::histogram!(telemetry::BATCH_RECORDS, "domain" => domain).record(books.read as f64);
        if let Some(age) = oldest.and_then(|oldest| (Utc::now() - oldest).to_std().ok()) {
            metrics::histogram!(telemetry::FRESHNESS_SECONDS, "domain" => domain).record(age);
        }
    }

    /// Waits for a state of the topic in which the partition's offsets were asked for at or after `since`. `None` when the
    /// worker is to stop.
    async fn state_since(&self, since: Instant) -> Option<Arc<TopicState>> {
        let mut states = self.projector.topic_states.clone();
        loop {
            let found = states
                .borrow_and_update()
                .as_ref()
                .and_then(|states| states.get(&self.topic))
                .cloned();
            if let Some(state) = found
                && state
                    .offsets
                    .get(&self.partition.number)
                    .is_some_and(|offsets| offsets.asked >= since)
            {
                return Some(state);
            }
            tokio::select! {
                changed = states.changed() => changed.ok()?,
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// The topic's last state, if it is still the same incarnation.
    fn current_state(&self, state: &TopicState) -> Option<Arc<TopicState>> {
        let states = self.projector.topic_states.borrow();
        let now = states.as_ref()?.get(&self.topic)?;
        (now.identity == state.identity).then(|| Arc::clone(now))
    }

    /// Claims the partition, if the log is the one that the progress row is of and still holds the position. `None`: not
    /// yet.
    async fn claim(
        &self,
        state: &TopicState,
        memory: &mut Memory,
    ) -> Result<Option<OwnedPartition>, sqlx::Error> {
        let Projector {
            pool,
            heartbeats,
            topics,
            ..
        } = &self.projector;
        let code_version = self.projection.code_version();
        let (view, topic, number) = (&self.view, &self.topic, self.partition.number);
        let mut is_new = false;
        let mut outcome =
            progress::claim(pool, view, topic, state, number, topics, code_version).await?;
        if matches!(outcome, ClaimOutcome::NotReady) {
            let starts = if progress::has_begun(pool, view, topic).await? {
                Some(Starts::new())
            } else {
                self.configured_starts(state).await
            };
            let Some(starts) = starts else {
                return Ok(None);
            };
            is_new = progress::ensure(pool, view, topic, state, &starts)
                .await?
                .contains(&number);
            outcome =
                progress::claim(pool, view, topic, state, number, topics, code_version).await?;
        }
        match outcome {
            ClaimOutcome::NotReady => Ok(None),
            // In all partitions that the former incarnation had, which may be more than the topic has now.
            ClaimOutcome::TopicRecreated(logs) => {
                self.fail(&logs, "topic_recreated").await?;
                Ok(None)
            }
            // The heartbeat goes on: this process projects the partition as soon as it may.
            ClaimOutcome::WaitsForPartitions { log_id, epoch }
            | ClaimOutcome::Paused { log_id, epoch } => {
                (memory.log_id, memory.epoch) = (Some(log_id), epoch);
                heartbeats.begin(view, log_id, epoch, 0);
                heartbeats.failure(view, log_id, None);
                Ok(None)
            }
            // A process with newer code projects it, or did, and an operator has to decide.
            ClaimOutcome::NewerCode { log_id, epoch } => {
                (memory.log_id, memory.epoch) = (Some(log_id), epoch);
                heartbeats.begin(view, log_id, epoch, 0);
                heartbeats.failure(view, log_id, Some(NEWER_CODE));
                Ok(None)
            }
            ClaimOutcome::Claimed(owned) => {
                let claim = &owned.claim;
                (memory.log_id, memory.epoch) = (Some(claim.log_id), claim.epoch);
                memory.restored =
                    heartbeats.begin(view, claim.log_id, claim.epoch, claim.next_offset);
                if !self
                    .compare_with_kafka(state, &owned, is_new, memory)
                    .await?
                {
                    return Ok(None);
                }
                Ok(self.is_whole(state, &owned).await?.then_some(*owned))
            }
        }
    }

    /// Whether the log still holds the claimed position. If it does not, the partition fails until an operator decides.
    async fn is_whole(
        &self,
        state: &TopicState,
        owned: &OwnedPartition,
    ) -> Result<bool, sqlx::Error> {
        let claimed = [(owned.claim.log_id, owned.claim.epoch)];
        // A log that was shorter may have grown past the position since, with other records. The failure stays.
        if owned.failure.as_deref() == Some(TAIL_LOST) {
            self.fail(&claimed, TAIL_LOST).await?;
            return Ok(false);
        }
        let (number, next_offset) = (self.partition.number, owned.claim.next_offset);
        let mut offsets = state.offsets[&number];
        // Offsets may have been read before the position was reached, or from a leader that has not caught up.
        for _ in 0..END_READINGS {
            if next_offset <= offsets.log_end {
                break;
            }
            let Some(now) = self.state_since(Instant::now()).await else {
                return Ok(false);
            };
            // The topic was deleted and created again meanwhile: the next claim compares its identity.
            if now.identity != state.identity {
                return Ok(false);
            }
            offsets = now.offsets[&number];
        }
        if next_offset < offsets.log_start {
            self.fail(&claimed, "log_truncated").await?;
        } else if next_offset > offsets.log_end {
            self.fail_lost_tail(owned, offsets.log_end).await?;
        } else {
            let pool = &self.projector.pool;
            progress::clear_failure(pool, &self.view, &owned.claim).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Stores that the log has lost its tail from the offset `end` on, and fails.
    async fn fail_lost_tail(&self, owned: &OwnedPartition, end: i64) -> Result<(), sqlx::Error> {
        let pool = &self.projector.pool;
        progress::note_lost_tail(pool, &self.view, &owned.claim, end).await?;
        let claimed = [(owned.claim.log_id, owned.claim.epoch)];
        self.fail(&claimed, TAIL_LOST).await
    }

    /// Stores why an operator has to decide before projection of these logs, each with its epoch, goes
    /// on, and waits a while.
    async fn fail(&self, logs: &[(i32, i64)], failure: &'static str) -> Result<(), sqlx::Error> {
        let pool = &self.projector.pool;
        if progress::set_failure(pool, &self.view, logs, failure).await? {
            tracing::error!(
                domain = self.view.domain,
                version = self.view.version,
                topic = self.topic,
                partition = self.partition.number,
                failure,
                "the log is not the one that was projected: projection waits for an operator's decision"
            );
        }
        self.wait(FAILED_PAUSE).await;
        Ok(())
    }

    /// Detects that the database was restored to an earlier state: the partition was projected further than its progress
    /// row says. Projection goes on from there, which makes the view whole; effects outside of the database must not be
    /// repeated. Returns `false` while Kafka does not answer.
    async fn compare_with_kafka(
        &self,
        state: &TopicState,
        owned: &OwnedPartition,
        is_new: bool,
        memory: &mut Memory,
    ) -> Result<bool, sqlx::Error> {
        let (log_id, next_offset) = (owned.claim.log_id, owned.claim.next_offset);
        let projected = match memory.projected {
            Some((known, projected)) if known == log_id => Some(projected),
            // A version that is not read has no effects; and before a restore another version may have had its number.
            _ if !owned.is_live => None,
            _ => match self.partition.committed(state.identity.stored()).await {
                Ok(committed) => committed,
                Err(error) => {
                    tracing::debug!(%error, topic = self.topic, "the committed offset can't be read");
                    self.report_failure(memory, "committed_offset_unknown");
                    return Ok(false);
                }
            },
        };
        let went_back = projected.is_some_and(|projected| is_new || projected > next_offset);
        if went_back && progress::note_went_back(&self.projector.pool, &self.view).await? {
            tracing::error!(
                domain = self.view.domain,
                version = self.view.version,
                topic = self.topic,
                partition = self.partition.number,
                position = next_offset,
                projected,
                "the database was restored to an earlier state: projecting again what it lacks"
            );
        }
        memory.projected = Some((log_id, next_offset));
        Ok(true)
    }

    /// Where the settings let a topic's partitions begin; `None` while Kafka does not answer.
    async fn configured_starts(&self, state: &TopicState) -> Option<Starts> {
        match self.projector.start {
            StartAt::Earliest => Some(
                state
                    .offsets
                    .iter()
                    .map(|(partition, offsets)| (*partition, offsets.log_start))
                    .collect(),
            ),
            StartAt::Latest => Some(
                state
                    .offsets
                    .iter()
                    .map(|(partition, offsets)| (*partition, offsets.last_stable))
                    .collect(),
            ),
            StartAt::Time(time) => {
                let (kafka, topic, state) = (
                    self.projector.kafka.clone(),
                    self.topic.clone(),
                    state.clone(),
                );
                let found = tokio::task::spawn_blocking(move || {
                    offsets::offsets_at(&offsets::reader(&kafka)?, &topic, &state, time)
                })
                .await;
                match found {
                    Ok(Ok(starts)) => Some(starts),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, topic = self.topic, "the offsets of the configured start time can't be read; asking again");
                        None
                    }
                    Err(_) => None,
                }
            }
        }
    }
}

/// When to probe whether the offsets between a position and the last stable offset are a hole.
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
    /// Due once after a while, then each time after twice as long: a slow fetch must not be restarted for ever.
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

/// What the end of a partition means at which a fetch has arrived.
#[derive(Debug, PartialEq, Eq)]
enum EndStep {
    /// Nothing lies between the position and the end.
    Reached,
    /// The end lies beyond the position, with no record in between. A second fetch has to confirm that: the broker may not
    /// have caught up.
    FetchAgain,
    /// Up to this offset it is confirmed: a hole.
    Hole(i64),
}

/// Judges the end that a fetch has reached behind the last record, if it has. `unconfirmed` keeps an end beyond the position
/// until the next fetch.
fn judge_end(end: Option<i64>, position: i64, unconfirmed: &mut Option<i64>) -> EndStep {
    let Some(end) = end.filter(|end| *end > position) else {
        *unconfirmed = None;
        return EndStep::Reached;
    };
    match unconfirmed.take() {
        Some(first) if first <= end => EndStep::Hole(first),
        _ => {
            *unconfirmed = Some(end);
            EndStep::FetchAgain
        }
    }
}

/// A batch of what has been delivered, of `most` records at most, beginning with `first`, and the end of the partition if a fetch has reached it behind
/// the last of the records.
fn collect(
    first: Delivery,
    records: &mut Records,
    position: i64,
    most: usize,
) -> (Batch, Option<i64>) {
    let mut batch = Batch {
        records: Vec::new(),
        next_offset: position,
        gives_up: false,
    };
    let (mut bytes, mut end) = (0, None);
    let mut delivery = Some(first);
    while let Some(current) = delivery {
        match current {
            Delivery::Record(record) => {
                bytes += record.value.as_ref().map_or(0, |value| value.len());
                add(&mut batch, record);
                end = None;
            }
            Delivery::End(offset) => end = Some(offset),
        }
        let full = batch.records.len() >= most || bytes >= BATCH_BYTES;
        delivery = if full { None } else { records.try_next() };
    }
    (batch, end)
}

/// Adds a record, unless it lies before the position and so was projected already.
fn add(batch: &mut Batch, record: Record) {
    if record.offset >= batch.next_offset {
        batch.next_offset = record.offset + 1;
        batch.records.push(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_at_the_end_reaches_as_far_as_two_fetches_agree() {
        use EndStep::{FetchAgain, Hole, Reached};
        // The ends of successive fetches at position 12, and what each means. `None`: records came, or nothing yet.
        for (ends, expected) in [
            // A replica that has 12 of 20 records ends at the position, whatever the leader says.
            (&[Some(12), Some(12)][..], &[Reached, Reached][..]),
            (&[Some(20), Some(20)], &[FetchAgain, Hole(20)]),
            (&[Some(20), Some(25)], &[FetchAgain, Hole(20)]),
            // The second fetch came to a broker that lags behind the first.
            (
                &[Some(20), Some(15), Some(16)],
                &[FetchAgain, FetchAgain, Hole(15)],
            ),
            // The second fetch found records after all.
            (
                &[Some(20), None, Some(20)],
                &[FetchAgain, Reached, FetchAgain],
            ),
        ] {
            let mut unconfirmed = None;
            let steps: Vec<EndStep> = ends
                .iter()
                .map(|end| judge_end(*end, 12, &mut unconfirmed))
                .collect();
            assert_eq!(steps, expected, "{ends:?}");
        }
    }
}
