//! What comes before a partition is projected: it is claimed, and the log and the database have to be the ones that were
//! projected before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::{Memory, Worker, kafka_failure};
use crate::config::StartAt;
use crate::db;
use crate::kafka::offsets::{self, PartitionOffsets, TopicState};
use crate::projector::claims;
use crate::projector::progress::{self, ClaimOutcome, OwnedPartition, Starts, WentBack};

/// The pause before a failed partition is claimed again: an operator may have resolved the failure.
const FAILED_PAUSE: Duration = Duration::from_secs(5);
/// The failure of a log that is shorter than what was read of it, or has another record at the last offset that was read.
/// An operator has to decide.
const TAIL_LOST: &str = "tail_lost";
/// The failure of a partition that newer code has folded.
const NEWER_CODE: &str = "newer_code";
/// How many readings have to agree that the log ends before the position.
const END_READINGS: usize = 3;

impl Worker {
    /// Claims the partition, if the progress row is of this log and the log still has the position. `None`: the worker has to
    /// try again.
    pub(super) async fn claim(
        &self,
        state: &Arc<TopicState>,
        memory: &mut Memory,
    ) -> Result<Option<OwnedPartition>, sqlx::Error> {
        let (view, heartbeats) = (&self.view, &self.projector.heartbeats);
        let former = Arc::clone(&memory.runs);
        let mut is_new = false;
        let mut outcome = self
            .claims
            .claim(&self.partition.id, state, &former)
            .await?;
        if matches!(outcome, ClaimOutcome::NotReady) {
            let added = db::within(claims::DEADLINE, self.add_partitions(state)).await?;
            let Some(added) = added else {
                return Ok(None);
            };
            is_new = added.contains(&self.number());
            outcome = self
                .claims
                .claim(&self.partition.id, state, &former)
                .await?;
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
                // Every claim raises the epoch, unless the database was restored.
                memory.epoch_fell |=
                    memory.log_id == Some(claim.log_id) && memory.epoch >= claim.epoch;
                (memory.log_id, memory.epoch) = (Some(claim.log_id), claim.epoch);
                memory.runs = Arc::new(owned.runs.clone());
                memory.restored =
                    heartbeats.begin(view, claim.log_id, claim.epoch, claim.next_offset);
                let checked = async {
                    let same = self.compare_with_kafka(state, &owned, is_new, memory);
                    Ok::<_, sqlx::Error>(same.await? && self.is_whole(state, &owned).await?)
                };
                let is_checked = db::within(claims::DEADLINE, checked).await?;
                Ok(is_checked.then_some(*owned))
            }
        }
    }

    /// Inserts the progress rows that the topic's partitions lack. Returns the partitions of new rows; `None` while Kafka does
    /// not answer where they begin.
    async fn add_partitions(&self, state: &TopicState) -> Result<Option<Vec<i32>>, sqlx::Error> {
        let (pool, view, topic) = (&self.projector.pool, &self.view, self.topic());
        let starts = if progress::has_begun(pool, view, topic).await? {
            Starts::new()
        } else if let Some(starts) = self.configured_starts(state).await {
            starts
        } else {
            return Ok(None);
        };
        let added = progress::ensure(pool, view, topic, state, &starts).await?;
        Ok(Some(added))
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
        let (number, next_offset) = (self.number(), owned.claim.next_offset);
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
            if owned.failure.is_some() {
                let pool = &self.projector.pool;
                progress::clear_failure(pool, &self.view, &owned.claim).await?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Stores that the log has lost its tail from the offset `end` on, and fails.
    pub(super) async fn fail_lost_tail(
        &self,
        owned: &OwnedPartition,
        end: i64,
    ) -> Result<(), sqlx::Error> {
        let pool = &self.projector.pool;
        let noted = progress::note_lost_tail(pool, &self.view, &owned.claim, end);
        db::within(claims::DEADLINE, noted).await?;
        let claimed = [(owned.claim.log_id, owned.claim.epoch)];
        self.fail(&claimed, TAIL_LOST).await
    }

    /// Stores why an operator has to decide before projection of these logs, each with its epoch, goes
    /// on, and waits a while.
    async fn fail(&self, logs: &[(i32, i64)], failure: &'static str) -> Result<(), sqlx::Error> {
        let pool = &self.projector.pool;
        let stored = progress::set_failure(pool, &self.view, logs, failure);
        if db::within(claims::DEADLINE, stored).await? {
            tracing::error!(
                domain = self.view.domain,
                version = self.view.version,
                topic = self.topic(),
                partition = self.number(),
                failure,
                "the log is not the one that was projected: projection waits for an operator's decision"
            );
        }
        self.wait(FAILED_PAUSE).await;
        Ok(())
    }

    /// Detects that the database was restored to an earlier state: the partition was projected further than its progress
    /// row says, or its epoch was higher. Projection goes on from there, which makes the view whole; effects outside of the
    /// database must not be repeated. Returns `false` where the partition has to be claimed again: while Kafka does not
    /// answer, and after a restore was found.
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
            _ if !owned.claim.is_live => None,
            _ => match self.partition.committed(state.identity.stored()).await {
                Ok(committed) => committed,
                // The partition was revoked.
                Err(KafkaError::Canceled) => return Ok(false),
                Err(error) => {
                    let code = error.rdkafka_error_code();
                    let failure = kafka_failure(code, "committed_offset_unknown");
                    self.report_failure(memory, failure, &error.to_string());
                    return Ok(false);
                }
            },
        };
        let was_further = projected.is_some_and(|projected| is_new || projected > next_offset);
        let went_back = was_further || memory.epoch_fell;
        let found = [WentBack {
            log_id,
            epoch: owned.claim.epoch,
            projected,
        }];
        let (pool, version) = (&self.projector.pool, self.view.version);
        if went_back && progress::note_went_back(pool, self.projection, version, &found).await? {
            tracing::error!(
                domain = self.view.domain,
                version = self.view.version,
                topic = self.topic(),
                partition = self.number(),
                position = next_offset,
                projected,
                "the database was restored to an earlier state: projecting again what it lacks"
            );
        }
        memory.projected = Some((log_id, next_offset));
        memory.epoch_fell = false;
        // `note_went_back` may have raised the epoch that was claimed.
        Ok(!went_back)
    }

    /// Where the settings let a topic's partitions begin; `None` while Kafka does not answer.
    async fn configured_starts(&self, state: &TopicState) -> Option<Starts> {
        let starts = |start: fn(&PartitionOffsets) -> i64| -> Option<Starts> {
            let offsets = state.offsets.iter();
            Some(offsets.map(|(id, of)| (*id, start(of))).collect())
        };
        match self.projector.start {
            StartAt::Earliest => starts(|offsets| offsets.log_start),
            StartAt::Latest => starts(|offsets| offsets.last_stable),
            StartAt::Time(time) => {
                let (kafka, topic, state) = (
                    self.projector.kafka.clone(),
                    self.topic().to_owned(),
                    state.clone(),
                );
                let found = tokio::task::spawn_blocking(move || {
                    offsets::offsets_at(&offsets::reader(&kafka)?, &topic, &state, time)
                })
                .await;
                match found {
                    Ok(Ok(starts)) => Some(starts),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, topic = self.topic(), "the offsets of the configured start time can't be read; asking again");
                        None
                    }
                    Err(_) => None,
                }
            }
        }
    }
}
