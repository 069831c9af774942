//! Workers: one task per assigned partition, which projects it batch by batch until the partition is revoked.
//!
//! There is one way to begin, also after an error, a fence or a change of the log: read the topic's state, claim the partition,
//! seek to the claimed position. The worker keeps no judgement. It keeps the records that were delivered, if the claim finds
//! the position at which they begin: then it does not seek.

mod claim;
mod holes;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::holes::{EndStep, Probe, judge_end};
use super::batch::{Batch, BatchEnd};
use super::batch_limit::BatchLimit;
use super::claims::{self, Claims};
use super::dead_letters::record_time;
use super::ids::Runs;
use super::judge::Reading;
use super::pause;
use super::progress;
use super::writer::{BATCH_RECORDS, Outcome, Queue, Turn};
use super::{Projection, Projector, View};
use crate::db::{self, ErrorClass};
use crate::event::Record;
use crate::kafka::consumer::Partition;
use crate::kafka::is_refusal;
use crate::kafka::offsets::{self, TopicState};
use crate::kafka::records::{Delivery, Ended, Records};
use crate::telemetry;

/// The pause before the next attempt: the first, doubling up to the largest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often positions move over records that don't concern the view.
const SKIP_TICK: Duration = Duration::from_millis(100);
/// The pause before a partition that can't be claimed yet is tried again.
const CLAIM_PAUSE: Duration = Duration::from_millis(500);
/// How long a batch has to finish when the process stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Projects a partition into one version of a view until `stop` is cancelled. A batch that has begun is finished.
pub struct Worker {
    pub projector: Projector,
    pub projection: &'static dyn Projection,
    pub view: View,
    pub partition: Partition,
    pub queue: Queue,
    pub claims: Claims,
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
    /// A fetch failed with this code.
    FetchFailed(RDKafkaErrorCode),
    /// The partition has to be claimed again.
    ClaimAgain,
    /// Projecting the batch has panicked.
    Panicked,
}

/// What a worker keeps from one claim to the next.
struct Memory {
    log_id: Option<i32>,
    /// The epoch of the last claim.
    epoch: i64,
    /// A log, and the offset up to which it is known to be projected: by the offset committed to Kafka, or by this worker.
    /// `None` before Kafka was asked.
    projected: Option<(i32, i64)>,
    /// Whether a claim has found a lower epoch than the one before it: the database was restored.
    epoch_fell: bool,
    /// Notified when the database's position lies before the worker's: it was restored.
    restored: Arc<Notify>,
    /// Whether a batch was committed since the last claim.
    committed: bool,
    batch_limit: BatchLimit,
    /// The log's runs of ids, as they were last read from the database.
    runs: Arc<Runs>,
    /// Whether the next batch is projected by itself, because one failed that was not.
    is_alone: bool,
    /// What was delivered and not committed when the last claim ended.
    kept: Option<Kept>,
    /// The failure that was logged last, if its end was not.
    logged: Option<&'static str>,
    /// The pause before the next attempt.
    backoff: Duration,
}

/// Records from a position on, which need not be fetched again if the next claim finds the same position.
struct Kept {
    /// The log and the next offset.
    position: (i32, i64),
    /// Offset and fingerprint of the record before them, if it was not compared yet.
    last_record: Option<(i64, Uuid)>,
    records: Records,
}

impl Memory {
    fn new() -> Self {
        Self {
            log_id: None,
            epoch: 0,
            projected: None,
            epoch_fell: false,
            restored: Arc::default(),
            committed: false,
            batch_limit: BatchLimit::new(BATCH_RECORDS),
            runs: Arc::default(),
            is_alone: false,
            kept: None,
            logged: None,
            backoff: BACKOFF.0,
        }
    }
}

impl Worker {
    fn topic(&self) -> &str {
        &self.partition.id.topic
    }

    fn number(&self) -> i32 {
        self.partition.id.partition
    }

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
                Ok(Ok(WorkerEnd::FetchFailed(code))) => {
                    (kafka_failure(Some(code), "fetch_failed"), code.to_string())
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
                Ok(Ok(WorkerEnd::Panicked)) | Err(_) => ("panicked", "a panic".to_owned()),
            };
            self.report_failure(&mut memory, failure, &cause);
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

    /// Reports in the heartbeat what holds the partition up, and logs it where it is new.
    fn report_failure(&self, memory: &mut Memory, failure: &'static str, cause: &str) {
        if let Some(log_id) = memory.log_id {
            let heartbeats = &self.projector.heartbeats;
            heartbeats.failure(&self.view, log_id, Some(failure));
        }
        if memory.logged.replace(failure) != Some(failure) {
            tracing::warn!(
                domain = self.view.domain,
                topic = self.topic(),
                partition = self.number(),
                failure,
                cause,
                "projection failed; trying again until it goes through"
            );
        }
    }

    /// Ends an outage: a batch was committed, or the log was read to its end and holds nothing to project.
    fn recovered(&self, memory: &mut Memory) {
        if let Some(log_id) = memory.log_id {
            let heartbeats = &self.projector.heartbeats;
            heartbeats.failure(&self.view, log_id, None);
        }
        memory.backoff = BACKOFF.0;
        if memory.logged.take().is_some() {
            tracing::info!(
                domain = self.view.domain,
                topic = self.topic(),
                partition = self.number(),
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
        let kept = memory.kept.take();
        let Some(mut owned) = self.claim(&state, memory).await? else {
            self.wait(CLAIM_PAUSE).await;
            return Ok(WorkerEnd::ClaimAgain);
        };
        let claimed = state.offsets[&self.number()];
        let position = (owned.claim.log_id, owned.claim.next_offset);
        // The last record that was read is fetched again, to compare its fingerprint.
        let mut last_record = owned
            .last_record
            .filter(|(offset, _)| *offset >= claimed.log_start);
        let kept = kept.filter(|kept| kept.position == position && kept.records.is_live());
        let seek = |offset| self.partition.seek(offset, state.identity.stored());
        let mut records = match kept {
            Some(kept) => {
                last_record = kept.last_record;
                kept.records
            }
            None => {
                let begin = last_record.map_or(owned.claim.next_offset, |(offset, _)| offset);
                let Some(records) = seek(begin).await else {
                    return Ok(WorkerEnd::Released);
                };
                records
            }
        };
        let mut unconfirmed_end: Option<i64> = None;
        let mut probe = Probe::default();
        loop {
            let Some(now) = self.current_state(&state) else {
                return Ok(WorkerEnd::LogChanged);
            };
            let offsets = now.offsets.get(&self.number()).copied();
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
                                topic = self.topic(),
                                partition = self.number(),
                                next_offset,
                                "probing for a hole"
                            );
                            // The last record is still to be compared, if it did not come yet.
                            let from = last_record.map_or(next_offset, |(offset, _)| offset);
                            let Some(sought) = seek(from).await else { return Ok(WorkerEnd::Released) };
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
                // The next seek makes librdkafka report the end of the partition again, or the error.
                return Ok(match records.ended() {
                    Some(Ended::Failed(code)) => WorkerEnd::FetchFailed(code),
                    Some(Ended::FellBehind) => WorkerEnd::ClaimAgain,
                    None => WorkerEnd::LogChanged,
                });
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
            let log_id = owned.claim.log_id;
            let heartbeats = &self.projector.heartbeats;
            let mut turn = Turn {
                batch: Batch {
                    records: Vec::new(),
                    next_offset,
                    gives_up: false,
                },
                end: None,
                most: memory.batch_limit.records(),
                is_alone: memory.is_alone || memory.batch_limit.is_reduced(),
                owned,
                records,
            };
            turn.add(delivery);
            if turn.batch.records.is_empty() && last_record.is_none() {
                // Ends that follow one another: the last one counts. Before the last record is compared, what follows an end
                // may be what was written in its place.
                turn.fill(1, 1);
            }
            if turn.batch.records.is_empty() {
                match judge_end(turn.end, next_offset, &mut unconfirmed_end) {
                    EndStep::Reached => {
                        // Without an end, only the last record came, which is compared and not projected.
                        if turn.end.is_some() {
                            self.recovered(memory);
                        }
                        (owned, records) = (turn.owned, turn.records);
                        continue;
                    }
                    EndStep::FetchAgain => {
                        let Some(sought) = seek(next_offset).await else {
                            return Ok(WorkerEnd::Released);
                        };
                        (owned, records) = (turn.owned, sought);
                        continue;
                    }
                    EndStep::Hole(end) => turn.batch.next_offset = end,
                }
            }
            self.wait_for_tick(&mut turn).await;
            let first = turn.batch.records.first();
            let oldest = first.and_then(|record| record_time(record));
            heartbeats.oldest_unapplied(&self.view, log_id, oldest);
            // A replay of old records, by a rebuild or a first build, says nothing of how fresh answers are.
            let is_replay = !turn.owned.claim.is_live || turn.owned.reads_its_backlog();
            let began = Instant::now();
            let Some((turn, outcome)) = self.project_turn(turn, memory).await else {
                self.wait(CLAIM_PAUSE).await;
                return Ok(WorkerEnd::ClaimAgain);
            };
            self.measure(&outcome, began, oldest.filter(|_| !is_replay));
            let (books, piled_up) = match outcome {
                Outcome::Ended(BatchEnd::Committed { books, piled_up }) => (books, piled_up),
                not_committed => {
                    let mut records = turn.records;
                    records.put_back(turn.batch.records, turn.end);
                    memory.kept = Some(Kept {
                        position: (log_id, next_offset),
                        last_record,
                        records,
                    });
                    return match not_committed {
                        Outcome::Failed(error) => Err(error),
                        Outcome::Ended(_) => Ok(WorkerEnd::Fenced),
                        Outcome::Panicked => Ok(WorkerEnd::Panicked),
                        Outcome::NotTogether | Outcome::Unknown => Ok(WorkerEnd::ClaimAgain),
                    };
                }
            };
            let end_of_partition = turn.end;
            (owned, records) = (turn.owned, turn.records);
            let next_offset = owned.claim.next_offset;
            memory.committed = true;
            if owned.runs.were_read_after(&memory.runs) {
                memory.runs = Arc::new(owned.runs.clone());
            }
            memory.batch_limit.committed();
            memory.is_alone = false;
            memory.projected = Some((log_id, next_offset));
            probe = Probe::default();
            self.partition.store(next_offset, state.identity.stored());
            heartbeats.count(&self.view, log_id, books.read, next_offset);
            heartbeats.oldest_unapplied(&self.view, log_id, None);
            self.recovered(memory);
            if books.dead_lettered > 0 {
                tracing::warn!(
                    domain = self.view.domain,
                    version = self.view.version,
                    topic = self.topic(),
                    partition = self.number(),
                    dead_letters = books.dead_lettered,
                    before_offset = next_offset,
                    "records became dead letters"
                );
            }
            if let Some(reason) = piled_up {
                self.pause(&reason).await?;
            }
            unconfirmed_end = None;
            if let EndStep::FetchAgain =
                judge_end(end_of_partition, next_offset, &mut unconfirmed_end)
            {
                let Some(sought) = seek(next_offset).await else {
                    return Ok(WorkerEnd::Released);
                };
                records = sought;
            }
        }
    }

    /// Waits for the next tick while no record of the turn concerns the view, so that one statement counts such records of all
    /// partitions. Where a read waits for the partition, they are counted at once.
    async fn wait_for_tick(&self, turn: &mut Turn) {
        let concerns = |record: &Arc<Record>| {
            let reading = Reading::of(record, self.projection, self.projector.max_value_bytes);
            reading.concerns_the_view()
        };
        let tick = tokio::time::sleep(until_tick());
        tokio::pin!(tick);
        let mut judged = 0;
        loop {
            let records = &turn.batch.records;
            if records.len() >= turn.most || records[judged..].iter().any(concerns) {
                return;
            }
            let log_id = turn.owned.claim.log_id;
            let announcements = &self.projector.announcements;
            if turn.owned.claim.is_live && announcements.is_awaited(self.view.domain, log_id) {
                return;
            }
            judged = records.len();
            let delivery = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                delivery = turn.records.next() => delivery,
                () = &mut tick => return,
            };
            match delivery {
                Some(delivery) => drop(turn.add(delivery)),
                None => return,
            }
        }
    }

    /// Projects a turn: together with other partitions, or by itself if that fails. `None` if the version's writers have ended.
    async fn project_turn(&self, mut turn: Turn, memory: &mut Memory) -> Option<(Turn, Outcome)> {
        loop {
            if let [record] = turn.batch.records.as_slice() {
                turn.batch.gives_up = memory.batch_limit.blames(record.offset);
                turn.is_alone |= turn.batch.gives_up;
            }
            let (returned, outcome) = self.queue.project(turn).await?;
            turn = returned;
            match &outcome {
                Outcome::NotTogether => turn.is_alone = true,
                Outcome::Unknown => memory.is_alone = true,
                Outcome::Failed(error) => {
                    if let Some(first) = turn.batch.records.first()
                        && db::hit_limit(error)
                    {
                        let (pool, log_id) = (&self.projector.pool, turn.owned.claim.log_id);
                        let others = progress::others_committed(pool, &self.view, log_id);
                        let others = db::within(claims::DEADLINE, others).await;
                        // Where the database does not even answer this, nothing is the record's fault.
                        let others = others.unwrap_or_default();
                        let records = turn.batch.records.len();
                        memory.batch_limit.hit(first.offset, records, others);
                    }
                }
                Outcome::Ended(_) | Outcome::Panicked => {}
            }
            if !matches!(outcome, Outcome::NotTogether) {
                return Some((turn, outcome));
            }
        }
    }

    /// Pauses the version. If this write fails, the next dead letter triggers the check again.
    async fn pause(&self, reason: &str) -> Result<(), sqlx::Error> {
        tracing::error!(
            domain = self.view.domain,
            version = self.view.version,
            topic = self.topic(),
            partition = self.number(),
            reason,
            "projection pauses itself until an operator resumes it"
        );
        let paused = pause::pause_piled_up(&self.projector.pool, &self.view, reason);
        db::within(claims::DEADLINE, paused).await
    }

    /// Begins the counters at 0 where they have not begun: Prometheus sees no increase in a series that appears with its
    /// first count, and an alert would miss the first failed batch, unknown type or hole.
    fn begin_counters(&self) {
        let domain = self.view.domain;
        for end in ["committed", "fenced", "failed"] {
            metrics::counter!(telemetry::BATCHES, "domain" => domain, "outcome" => end)
                .increment(0);
        }
        metrics::counter!(telemetry::UNKNOWN_TYPE_RECORDS, "domain" => domain).increment(0);
        let topic = self.topic().to_owned();
        metrics::counter!(telemetry::HOLES, "domain" => domain, "topic" => topic).increment(0);
    }

    /// Counts a batch, and measures a committed one; its freshness if its `oldest` record is given.
    fn measure(&self, outcome: &Outcome, began: Instant, oldest: Option<DateTime<Utc>>) {
        let domain = self.view.domain;
        let end = match outcome {
            Outcome::Ended(BatchEnd::Committed { .. }) => "committed",
            Outcome::Ended(BatchEnd::Fenced) => "fenced",
            Outcome::NotTogether | Outcome::Unknown | Outcome::Failed(_) | Outcome::Panicked => {
                "failed"
            }
        };
        metrics::counter!(telemetry::BATCHES, "domain" => domain, "outcome" => end).increment(1);
        let Outcome::Ended(BatchEnd::Committed { books, .. }) = outcome else {
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
            let topic = self.topic().to_owned();
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
                .and_then(|states| states.get(self.topic()))
                .cloned();
            if let Some(state) = found
                && state
                    .offsets
                    .get(&self.number())
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
        let now = states.as_ref()?.get(self.topic())?;
        (now.identity == state.identity).then(|| Arc::clone(now))
    }
}

/// How long it is until the next tick, which is the same for all workers of the process.
fn until_tick() -> Duration {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = FIRST.elapsed().as_millis() % SKIP_TICK.as_millis();
    SKIP_TICK - Duration::from_millis(u64::try_from(since).unwrap_or_default())
}

/// The failure that an error of Kafka is reported as: `kafka_refuses` if Kafka refuses the request, else `otherwise`.
fn kafka_failure(code: Option<RDKafkaErrorCode>, otherwise: &'static str) -> &'static str {
    if code.is_some_and(is_refusal) {
        "kafka_refuses"
    } else {
        otherwise
    }
}
