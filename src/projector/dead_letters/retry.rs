//! Retries and discards of dead letters.
//!
//! A transaction holds the log's progress rows, as a batch does, and raises the epoch: the owner can't commit what it
//! judged while the keys were parked, and claims the partition again with the keys live, or still parked. So no live event
//! overtakes a dead letter. A key's dead letters are applied in log order, up to the first
//! that fails; those behind it keep waiting, except such whose records can't be read as events: they fail by themselves.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use rdkafka::ClientConfig;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::stored::{Log, Refetched, Restored, StoredDeadLetter};
use super::{BYTES_LOST, Class, DeadLetter, row};
use crate::db;
use crate::event::CATALOGUE_VERSION;
use crate::projector::announcements::Announcements;
use crate::projector::ids::Runs;
use crate::projector::judge::{Attempt, Candidate, Judge, Judgement, Outcome, Reading};
use crate::projector::progress::{self, Claim};
use crate::projector::{FeedPosition, Projection, View, batch};

/// One transaction retries at most so many dead letters and bytes of keys, headers and values, as a batch does, but
/// always one.
const MAX_DEAD_LETTERS: i64 = 500;
const MAX_BYTES: i64 = 4 << 20;
/// The pause between two transactions. Each fences the partition's owner, which commits batches in between.
pub const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Retries and discards dead letters. Cheap to clone.
#[derive(Clone)]
pub struct Retrier {
    /// The database, with the rights of a projector.
    pub pool: PgPool,
    /// The connection to Kafka, for records whose bytes the database no longer has.
    pub kafka: ClientConfig,
    /// A longer value is not parsed.
    pub max_value_bytes: usize,
    /// How long, in stream time, an event id is remembered.
    pub dedupe: TimeDelta,
    /// Where commits are announced.
    pub announcements: Announcements,
}

/// Dead letters of one log that are retried together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryScope {
    /// The log.
    pub log_id: i32,
    /// Parked keys, by hash: all dead letters of each, in order.
    pub keys: Vec<Uuid>,
    /// Ids of single dead letters, which neither park a key nor wait behind another.
    pub singles: Vec<Uuid>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its event is in the view now.
    Applied,
    /// Its event had been applied from another record.
    Duplicate,
    /// As this release reads it, the view is not made from it.
    Skipped,
    /// A later dead letter of its key deletes the user.
    Closed,
    /// An operator discarded it.
    Discarded,
    /// It failed again.
    Failed {
        /// Why, in one word.
        reason: String,
        /// The field that is wrong, if one is.
        field: Option<String>,
    },
    /// An earlier one of its key failed or could not be fetched.
    Waiting,
    /// Its record has to be fetched again, and Kafka does not answer.
    KafkaUnavailable,
}

impl Verdict {
    /// Whether the dead letter stays open.
    pub fn stays(&self) -> bool {
        matches!(
            self,
            Verdict::Failed { .. } | Verdict::Waiting | Verdict::KafkaUnavailable
        )
    }
}

/// A dead letter that was retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// The dead letter's id.
    pub id: Uuid,
    /// Its record's offset.
    pub offset: i64,
    /// What became of it.
    pub verdict: Verdict,
}

/// Why dead letters were not retried.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The version or the dead letter no longer exists.
    #[error("it no longer exists")]
    Gone,
    /// Newer code has folded the partition, or other code builds the version.
    #[error("other code folds it")]
    OtherCode,
    /// Nothing of the last transaction stayed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// How far a retry has come that takes several transactions.
struct RetryProgress {
    /// All dead letters up to this offset were retried.
    after: i64,
    /// Keys of which a dead letter has failed.
    parked: HashSet<Uuid>,
    /// Keys of which a dead letter could not be fetched, or that wait for an earlier log.
    waiting: HashSet<Uuid>,
    retried: Vec<Retried>,
}

impl Default for RetryProgress {
    fn default() -> Self {
        RetryProgress {
            after: -1,
            parked: HashSet::new(),
            waiting: HashSet::new(),
            retried: Vec::new(),
        }
    }
}

impl RetryProgress {
    /// Returns the dead letter if it can be retried now. Records a verdict if Kafka does not give its record, or if it
    /// waits behind such a one.
    fn admit(
        &mut self,
        mut stored: StoredDeadLetter,
        restored: Option<Restored>,
    ) -> Option<(StoredDeadLetter, Restored)> {
        let waits = stored
            .key_hash
            .is_some_and(|key| self.waiting.contains(&key));
        // A single one holds nothing up. It waits only if the judge reads its type, and that parks its key.
        stored.waits |= waits && !stored.parks;
        let key = stored.key_hash.filter(|_| stored.parks);
        let verdict = match restored {
            _ if waits && stored.parks => Verdict::Waiting,
            Some(restored) => return Some((stored, restored)),
            None => Verdict::KafkaUnavailable,
        };
        self.waiting.extend(key);
        self.retried.push(retried(&stored, verdict));
        None
    }
}

fn retried(stored: &StoredDeadLetter, verdict: Verdict) -> Retried {
    Retried {
        id: stored.id,
        offset: stored.record_offset,
        verdict,
    }
}

impl Retrier {
    /// Retries dead letters of a version, and those of the same records in other versions, so that no version falls behind.
    /// Returns what became of those of this version. A dry run retries the first of them and rolls back.
    ///
    /// # Errors
    /// See [`RetryError`]. What earlier transactions did stays.
    pub async fn retry(
        &self,
        projection: &dyn Projection,
        view: &View,
        scope: &RetryScope,
        dry_run: bool,
    ) -> Result<Vec<Retried>, RetryError> {
        let others = if dry_run {
            Vec::new()
        } else {
            self.in_other_versions(view, scope).await?
        };
        let retried = self.retry_in(projection, view, scope, dry_run, None);
        let retried = retried.await?;
        for (other, scope) in others {
            let there = self.retry_in(projection, &other, &scope, false, None);
            match there.await {
                // Dropped versions take their dead letters with them.
                // Newer code retries those of the version that it builds.
                Ok(_) | Err(RetryError::Gone | RetryError::OtherCode) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retried)
    }

    /// The same dead letters in other versions.
    async fn in_other_versions(
        &self,
        view: &View,
        scope: &RetryScope,
    ) -> Result<Vec<(View, RetryScope)>, sqlx::Error> {
        let rows = sqlx::query_file!(
            "src/projector/sql/dead_letters_elsewhere.sql",
            view.domain,
            view.version,
            scope.log_id,
            &scope.keys,
            &scope.singles
        )
        .fetch_all(&self.pool)
        .await?;
        let others = rows.into_iter().map(|row| {
            let other = View {
                version: row.version,
                ..view.clone()
            };
            let scope = RetryScope {
                log_id: scope.log_id,
                keys: row.keys,
                singles: row.singles,
            };
            (other, scope)
        });
        Ok(others.collect())
    }

    /// Retries dead letters of one version, some hundred per transaction, and returns what became of each. No transaction
    /// but the first begins after `until`: callers set it only where maintenance picks up the rest.
    ///
    /// # Errors
    /// See [`RetryError`]. What earlier transactions did stays.
    pub async fn retry_in(
        &self,
        projection: &dyn Projection,
        view: &View,
        scope: &RetryScope,
        dry_run: bool,
        until: Option<Instant>,
    ) -> Result<Vec<Retried>, RetryError> {
        let mut progress = RetryProgress::default();
        loop {
            let refetched = self.refetch(view, scope, progress.after).await?;
            let next = self.retry_next(projection, view, scope, dry_run, &refetched, &mut progress);
            let more = db::within(db::LONG_TRANSACTION_DEADLINE, next).await?;
            if dry_run {
                return Ok(progress.retried);
            }
            self.announcements.announce(view.domain);
            if !more || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(progress.retried);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Retries the next dead letters of the scope in a transaction, which is rolled back in a dry run. Returns whether there
    /// may be more.
    async fn retry_next(
        &self,
        projection: &dyn Projection,
        view: &View,
        scope: &RetryScope,
        dry_run: bool,
        refetched: &Refetched,
        progress: &mut RetryProgress,
    ) -> Result<bool, RetryError> {
        let code_version = projection.code_version();
        let mut transaction = self.begin(view, scope.log_id, code_version).await?;
        let connection = &mut transaction;
        let more = self.retry_some(connection, projection, view, scope, refetched, progress);
        let more = more.await?;
        if dry_run {
            transaction.rollback().await?;
        } else {
            transaction.commit().await?;
        }
        Ok(more)
    }

    /// Discards a dead letter in every version of the view, in one transaction, and retries what waited behind it. Maintenance
    /// retries what has not begun by `until`, and what Kafka did not return: it finds keys whose open dead letters wait behind
    /// no other. `resolution` is the operator's reason.
    ///
    /// # Errors
    /// See [`RetryError`]. What earlier transactions did stays.
    pub async fn discard(
        &self,
        projection: &dyn Projection,
        view: &View,
        id: Uuid,
        resolution: &str,
        dry_run: bool,
        until: Instant,
    ) -> Result<Vec<Retried>, RetryError> {
        let scope = self.scope_of(id).await?;
        // Kafka is asked before the transaction begins, so that no row is locked meanwhile.
        let mut refetched = HashMap::new();
        let others = self.in_other_versions(view, &scope).await?;
        for (view, scope) in [(view.clone(), scope.clone())].into_iter().chain(others) {
            let records = self.refetch(&view, &scope, -1).await?;
            refetched.insert(view.version, records);
        }

        let code_version = projection.code_version();
        let mut transaction = self.begin(view, scope.log_id, code_version).await?;
        let connection = &mut transaction;
        let (mut retried, unfinished) = self
            .discard_and_retry(
                connection, projection, view, id, resolution, &scope, refetched,
            )
            .await?;
        if dry_run {
            transaction.rollback().await?;
            return Ok(retried);
        }
        transaction.commit().await?;
        self.announcements.announce(view.domain);
        for unfinished in unfinished {
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            let more = self.retry_in(projection, &unfinished, &scope, false, Some(until));
            match more.await {
                Ok(more) if unfinished == *view => retried.extend(more),
                Ok(_) | Err(RetryError::Gone | RetryError::OtherCode) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retried)
    }

    /// The key that a dead letter parks, if it does.
    async fn scope_of(&self, id: Uuid) -> Result<RetryScope, RetryError> {
        let row = sqlx::query!(
            "SELECT log_id, key_hash, parks FROM sightline.dead_letters WHERE id = $1",
            id
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(RetryError::Gone)?;
        Ok(RetryScope {
            log_id: row.log_id,
            keys: row.key_hash.filter(|_| row.parks).into_iter().collect(),
            singles: Vec::new(),
        })
    }

    /// Discards within a transaction that holds the log's progress rows, and retries the first dead letters that waited.
    /// Returns what became of those of `view`, and the versions in which there may be more.
    #[expect(
        clippy::too_many_arguments,
        reason = "the arguments of discard, within its transaction"
    )]
    async fn discard_and_retry(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        view: &View,
        id: Uuid,
        resolution: &str,
        scope: &RetryScope,
        mut refetched: HashMap<i32, Refetched>,
    ) -> Result<(Vec<Retried>, Vec<View>), RetryError> {
        let discarded = sqlx::query_file!(
            "src/projector/sql/discard_dead_letters.sql",
            view.domain,
            scope.log_id,
            id,
            resolution
        )
        .fetch_all(&mut *connection)
        .await?;
        let ours = discarded.iter().find(|row| row.version == view.version);
        let ours = ours.ok_or(RetryError::Gone)?;
        let mut retried = vec![Retried {
            id,
            offset: ours.record_offset,
            verdict: Verdict::Discarded,
        }];
        let mut unfinished = Vec::new();
        // Behind an earlier open dead letter nothing can be retried.
        for row in discarded.iter().filter(|row| row.is_first) {
            let version = View {
                version: row.version,
                ..view.clone()
            };
            let refetched = refetched.remove(&row.version).unwrap_or_default();
            let mut progress = RetryProgress::default();
            let more = self.retry_some(
                &mut *connection,
                projection,
                &version,
                scope,
                &refetched,
                &mut progress,
            );
            match more.await {
                Ok(true) => unfinished.push(version),
                // The code that folds that version finds what waits behind nothing.
                Err(RetryError::OtherCode) if row.version != ours.version => {}
                more => drop(more?),
            }
            if row.version == ours.version {
                retried.extend(progress.retried);
            }
        }
        Ok((retried, unfinished))
    }

    /// Begins a transaction that holds the log's progress rows of all versions of a view, locked in the order in which a
    /// switch locks them (lock_versions.sql): a decision about a record counts in every version. Fences the owners of later
    /// logs, in which keys may wait for this one, before any dead letter is locked: a batch there, which closes dead letters
    /// of a deleted user here, locks in the same order.
    async fn begin(
        &self,
        view: &View,
        log_id: i32,
        code_version: i32,
    ) -> Result<Transaction<'static, Postgres>, RetryError> {
        let mut transaction = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"SELECT p.version,
                      p.code_version > $3 OR v.state = 'building' AND v.code_version <> $3 AS "is_of_other_code!"
               FROM sightline.progress AS p
               JOIN sightline.views AS v USING (domain, version)
               WHERE p.domain = $1 AND p.log_id = $2
               ORDER BY p.version
               FOR UPDATE OF p"#,
            view.domain,
            log_id,
            code_version,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let ours = rows.iter().find(|row| row.version == view.version);
        if ours.ok_or(RetryError::Gone)?.is_of_other_code {
            return Err(RetryError::OtherCode);
        }
        let versions: Vec<i32> = rows.iter().map(|row| row.version).collect();
        sqlx::query_file!(
            "src/projector/sql/fence_later_logs.sql",
            view.domain,
            &versions,
            log_id
        )
        .execute(&mut *transaction)
        .await?;
        Ok(transaction)
    }

    /// Fences the owner of a log in a version, notes the code that folds it, and points names at the version's tables. `None`
    /// if newer code has folded it.
    async fn claim(
        &self,
        connection: &mut PgConnection,
        view: &View,
        log_id: i32,
        code_version: i32,
    ) -> Result<Option<Claim>, sqlx::Error> {
        let row = sqlx::query_file!(
            "src/projector/sql/claim_partitions.sql",
            view.domain,
            view.version,
            &[log_id],
            code_version
        )
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        sqlx::query!(
            "UPDATE sightline.progress SET code_version = greatest(code_version, $4)
             WHERE domain = $1 AND version = $2 AND log_id = $3",
            view.domain,
            view.version,
            log_id,
            code_version
        )
        .execute(&mut *connection)
        .await?;
        let (log_count, is_live) = progress::use_schema(connection, view).await?;
        Ok(Some(Claim {
            log_id,
            epoch: row.epoch,
            next_offset: row.next_offset,
            stream_time: row.stream_time,
            log_count,
            is_live,
        }))
    }

    /// Fetches the records of the next dead letters whose bytes the database no longer has.
    async fn refetch(
        &self,
        view: &View,
        scope: &RetryScope,
        after: i64,
    ) -> Result<Refetched, sqlx::Error> {
        let offsets = sqlx::query_file_scalar!(
            "src/projector/sql/dead_letters_to_refetch.sql",
            view.domain,
            view.version,
            scope.log_id,
            &scope.keys,
            &scope.singles,
            after,
            MAX_DEAD_LETTERS,
            MAX_BYTES,
            self.max_value_bytes(),
        )
        .fetch_all(&self.pool);
        let offsets = db::within(db::STEP_DEADLINE, offsets).await?;
        if offsets.is_empty() {
            return Ok(Refetched::default());
        }
        let log = log_of(&self.pool, scope.log_id);
        let log = db::within(db::STEP_DEADLINE, log).await?;
        Ok(log.refetch(self.kafka.clone(), offsets).await)
    }

    /// The longest value that is parsed, as the database counts bytes.
    fn max_value_bytes(&self) -> i64 {
        i64::try_from(self.max_value_bytes).unwrap_or(i64::MAX)
    }

    /// Retries the next dead letters of the scope, if there are any, within a transaction that holds the log's progress
    /// rows. Returns whether there may be more.
    async fn retry_some(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        view: &View,
        scope: &RetryScope,
        refetched: &Refetched,
        progress: &mut RetryProgress,
    ) -> Result<bool, RetryError> {
        let stored = sqlx::query_file_as!(
            StoredDeadLetter,
            "src/projector/sql/dead_letters_to_retry.sql",
            view.domain,
            view.version,
            scope.log_id,
            &scope.keys,
            &scope.singles,
            progress.after,
            MAX_DEAD_LETTERS,
            MAX_BYTES,
            self.max_value_bytes(),
        )
        .fetch_all(&mut *connection)
        .await?;
        if stored.is_empty() {
            return Ok(false);
        }
        let keys: Vec<Uuid> = stored.iter().filter_map(|stored| stored.key_hash).collect();
        let waiting = sqlx::query_file_scalar!(
            "src/projector/sql/waiting_keys.sql",
            view.domain,
            view.version,
            scope.log_id,
            &keys
        );
        progress
            .waiting
            .extend(waiting.fetch_all(&mut *connection).await?);
        let mut more = stored.first().is_some_and(|first| first.more);
        let log = log_of(&mut *connection, scope.log_id).await?;
        let already_retried = progress.retried.len();
        let mut dead_letters = Vec::new();
        for dead_letter in stored {
            if dead_letter.needs_refetch(self.max_value_bytes())
                && !refetched.offsets.contains(&dead_letter.record_offset)
            {
                // Its bytes expired after the log was asked. The next transaction asks again.
                more = true;
                break;
            }
            progress.after = dead_letter.record_offset;
            let restored = dead_letter.restore(&log, refetched, self.max_value_bytes());
            dead_letters.extend(progress.admit(dead_letter, restored));
        }
        if !dead_letters.is_empty() {
            let code_version = projection.code_version();
            let claim = self.claim(&mut *connection, view, scope.log_id, code_version);
            let claim = claim.await?.ok_or(RetryError::OtherCode)?;
            self.retry_restored(
                connection,
                projection,
                view,
                &claim,
                &dead_letters,
                progress,
            )
            .await?;
        }
        let retried = &mut progress.retried[already_retried..];
        retried.sort_by_key(|retried| retried.offset);
        let still_open: Vec<Uuid> = retried
            .iter()
            .filter(|retried| retried.verdict.stays())
            .map(|retried| retried.id)
            .collect();
        sqlx::query!(
            "UPDATE sightline.dead_letters SET state = 'parked' WHERE id = ANY ($1) AND state = 'retrying'",
            &still_open
        )
        .execute(connection)
        .await?;
        Ok(more)
    }

    /// Judges and applies dead letters whose records are restored, and writes what became of them.
    async fn retry_restored(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        view: &View,
        claim: &Claim,
        dead_letters: &[(StoredDeadLetter, Restored)],
        progress: &mut RetryProgress,
    ) -> Result<(), sqlx::Error> {
        let candidates: Vec<Candidate<'_>> = dead_letters
            .iter()
            .enumerate()
            .map(|(index, (stored, restored))| {
                self.candidate(projection, claim, index, stored, restored)
            })
            .collect();
        let parked = std::mem::take(&mut progress.parked);
        let no_discards = HashMap::new();
        let mut judge = Judge::new(projection, claim, self.dedupe, parked, &no_discards);
        let ids: Vec<Uuid> = candidates.iter().filter_map(Candidate::id_hash).collect();
        let runs = Runs::that_may_hold(&mut *connection, claim.log_id, &ids).await?;
        batch::apply_one(&mut *connection, claim, &runs, &mut judge, &candidates).await?;
        let judgement = judge.judgement;

        let (verdicts, failed) = verdicts(dead_letters, &judgement);
        settle(&mut *connection, view, claim, dead_letters, &verdicts).await?;
        // This closes what is still open of deleted users' keys: after what was applied is settled.
        batch::write_bookkeeping(&mut *connection, view, iter::once((claim, &judgement))).await?;
        note_failures(connection, &failed, projection.code_version()).await?;
        progress.retried.extend(
            dead_letters
                .iter()
                .zip(verdicts)
                .map(|((stored, _), verdict)| retried(stored, verdict)),
        );
        progress.parked = judgement.parked;
        Ok(())
    }

    /// A restored record, to be judged as of its own offset.
    fn candidate<'r>(
        &self,
        projection: &dyn Projection,
        claim: &Claim,
        index: usize,
        stored: &StoredDeadLetter,
        restored: &'r Restored,
    ) -> Candidate<'r> {
        let (record, reading) = match restored {
            Restored::Whole(record) => {
                let reading = Reading::of(record, projection, self.max_value_bytes);
                (record, reading)
            }
            Restored::TooLarge(record) => (record, Reading::Oversized),
            Restored::BytesLost(record) => (record, Reading::BytesLost),
        };
        Candidate {
            record,
            key: stored.key_hash,
            attempt: Attempt::Retry {
                // Dead letters of a former release have none.
                stream_time: stored.stream_time.unwrap_or_default(),
                feed_position: feed_position(claim, index),
                parks: stored.parks,
                waits: stored.waits,
            },
            reading,
        }
    }
}

/// The log of this id.
async fn log_of(executor: impl PgExecutor<'_>, log_id: i32) -> Result<Log, sqlx::Error> {
    sqlx::query_as!(
        Log,
        "SELECT topic, topic_identity AS identity, partition FROM sightline.logs WHERE log_id = $1",
        log_id
    )
    .fetch_one(executor)
    .await
}

/// The feed position of the n-th dead letter of a transaction: behind all that was applied before, because no two
/// transactions have the same epoch.
fn feed_position(claim: &Claim, index: usize) -> FeedPosition {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    FeedPosition {
        next_offset: claim.next_offset,
        sequence: (claim.epoch << 32) | (index * FeedPosition::MAX_ROWS),
    }
}

/// What became of each dead letter, and of those that failed again, by id, why.
fn verdicts<'j>(
    dead_letters: &[(StoredDeadLetter, Restored)],
    judgement: &'j Judgement,
) -> (Vec<Verdict>, Vec<(Uuid, &'j DeadLetter)>) {
    let mut failures = judgement.dead_letters.iter();
    let (mut verdicts, mut failed) = (Vec::new(), Vec::new());
    for ((stored, _), outcome) in dead_letters.iter().zip(&judgement.outcomes) {
        verdicts.push(match outcome {
            Outcome::Applied => Verdict::Applied,
            Outcome::Duplicate => Verdict::Duplicate,
            Outcome::Skipped => Verdict::Skipped,
            Outcome::DeadLettered => {
                let failure = failures.next().expect("one for each of these outcomes");
                let waits = failure.class == Class::Blocked;
                // One that waits as before was not tried.
                if !waits || failure.parks != stored.parks {
                    failed.push((stored.id, failure));
                }
                let closed = judgement.deleted.iter().any(|(key, offset)| {
                    stored.key_hash == Some(*key) && stored.record_offset < *offset
                });
                match failure {
                    _ if closed => Verdict::Closed,
                    _ if waits => Verdict::Waiting,
                    failure => Verdict::Failed {
                        reason: failure.reason.clone().into_owned(),
                        field: failure.field.clone(),
                    },
                }
            }
        });
    }
    (verdicts, failed)
}

/// Moves dead letters that went through to `applied`, and their counts in the books.
async fn settle(
    connection: &mut PgConnection,
    view: &View,
    claim: &Claim,
    dead_letters: &[(StoredDeadLetter, Restored)],
    verdicts: &[Verdict],
) -> Result<(), sqlx::Error> {
    let (mut ids, mut resolutions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
    let (mut applied, mut duplicates, mut skipped) = (0, 0, 0);
    for (index, ((stored, _), verdict)) in dead_letters.iter().zip(verdicts).enumerate() {
        let (word, count) = match verdict {
            Verdict::Applied => ("applied", &mut applied),
            Verdict::Duplicate => ("duplicate", &mut duplicates),
            Verdict::Skipped => ("skipped", &mut skipped),
            _ => continue,
        };
        *count += 1;
        ids.push(stored.id);
        resolutions.push(word.to_owned());
        let is_applied = *verdict == Verdict::Applied;
        sequences.push(is_applied.then(|| feed_position(claim, index).sequence));
    }
    sqlx::query_file!(
        "src/projector/sql/settle_dead_letters.sql",
        &ids,
        &resolutions,
        claim.next_offset,
        &sequences as _,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/settle_books.sql",
        view.domain,
        view.version,
        claim.log_id,
        applied,
        duplicates,
        skipped
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Writes that dead letters failed again, and why, and which of them park their keys from now on.
async fn note_failures(
    connection: &mut PgConnection,
    failed: &[(Uuid, &DeadLetter)],
    code_version: i32,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = failed.iter().map(|(id, _)| *id).collect();
    let reasons: Vec<String> = failed
        .iter()
        .map(|(_, failure)| failure.reason.clone().into_owned())
        .collect();
    let fields: Vec<Option<String>> = failed
        .iter()
        .map(|(_, failure)| row::storable(&failure.field))
        .collect();
    let classes: Vec<String> = failed
        .iter()
        .map(|(_, failure)| failure.class.as_str().to_owned())
        .collect();
    let parks: Vec<bool> = failed.iter().map(|(_, failure)| failure.parks).collect();
    sqlx::query_file!(
        "src/projector/sql/note_failures.sql",
        &ids,
        &reasons,
        &fields as _,
        &classes,
        code_version,
        BYTES_LOST,
        CATALOGUE_VERSION,
        &parks,
    )
    .execute(connection)
    .await
    .map(drop)
}
