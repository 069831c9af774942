//! Dead letters tried again, and taken out.
//!
//! A transaction holds the log's progress row, as a batch's does, and raises its epoch: the owner can't commit what
//! it decided while the keys were parked, and sees them live, or parked still, when it takes over again. So live
//! events neither overtake letters nor are parked behind nothing. A key's letters go in their order, up to the first
//! that fails; what stands behind that one waits on.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::super::batch::{Candidate, Outcome, Reading, Run, Turn};
use super::super::progress::{self, Hold};
use super::{Class, LOST, Letter, record_time, value_size};
use crate::event::{Record, hash16};
use crate::kafka::offsets;
use crate::projector::{FeedPosition, Projection, View};

/// How many letters, and of how many bytes (but one at least), one transaction tries, as a batch does.
const LETTERS: i64 = 500;
const BYTES: i64 = 4 << 20;
/// How long to wait between two transactions: the owner of the partition, whom each fences, gets something done.
pub const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// What trying letters again needs. Cheap to clone.
#[derive(Clone)]
pub struct Retrier {
    /// The pool that projectors write through.
    pub pool: PgPool,
    /// How to reach Kafka, where records are read again whose bytes are not kept here.
    pub kafka: ClientConfig,
    /// A value longer than this is not parsed.
    pub max_value_bytes: usize,
    /// How long, by the log's time, an event id is remembered.
    pub dedupe: TimeDelta,
}

/// Letters of one log that are tried together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryScope {
    /// The log.
    pub log_id: i32,
    /// Keys, by hash: all letters of each, in order.
    pub keys: Vec<Uuid>,
    /// Ids of letters that hold nothing back, and wait behind nothing.
    pub alone: Vec<Uuid>,
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its event is in the view now.
    Applied,
    /// Its event had been applied from another record.
    Duplicate,
    /// The view is not made from it, as is known now.
    Skipped,
    /// A later letter of its key deletes the user: nobody's any more.
    Closed,
    /// An operator took it out.
    Discarded,
    /// It failed again.
    Failed {
        /// Why, in one word.
        reason: String,
        /// The field that is wrong.
        field: Option<String>,
    },
    /// One before it failed, or could not be read.
    Waiting,
    /// Its record has to be read again, and Kafka does not give it now.
    Away,
}

impl Verdict {
    /// Whether the letter is as open as before.
    pub fn stays(&self) -> bool {
        matches!(
            self,
            Verdict::Failed { .. } | Verdict::Waiting | Verdict::Away
        )
    }
}

/// A letter that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// The letter's id.
    pub id: Uuid,
    /// Its record's offset.
    pub offset: i64,
    /// What became of it.
    pub verdict: Verdict,
}

/// Why letters were not tried.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The version, or the letter, is not there any more.
    #[error("it is not there any more")]
    Gone,
    /// Nothing of the last transaction stayed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// A letter as the table has it.
struct Stored {
    id: Uuid,
    record_offset: i64,
    record_time: Option<DateTime<Utc>>,
    stream_time: Option<DateTime<Utc>>,
    record_key: Option<Vec<u8>>,
    key_hash: Option<Uuid>,
    size: i64,
    headers: Option<Value>,
    value: Option<Vec<u8>>,
    /// Whether there are more letters than were read with it.
    more: bool,
}

/// The log that letters are from.
struct Log {
    topic: String,
    identity: String,
    partition: i32,
}

/// What the log was asked for, and what it has of that.
#[derive(Default)]
struct Again {
    asked: Vec<i64>,
    records: HashMap<i64, Record>,
    /// Whether Kafka did not answer.
    is_away: bool,
}

/// What is known of a letter's value.
enum Known {
    There(Record),
    /// It would not be read anyway.
    TooLarge(Record),
    /// It is nowhere.
    Lost(Record),
}

impl Retrier {
    /// Tries letters of a version again, and those of the same records in other versions, which would lag behind it
    /// otherwise. Tells what became of each of this version. A dry run tries the first of them, and takes back what it
    /// did.
    ///
    /// # Errors
    /// As [`RetryError`] says; what was tried in transactions before stays done.
    pub async fn retry(
        &self,
        projection: &dyn Projection,
        view: &View,
        lines: &RetryScope,
        dry_run: bool,
    ) -> Result<Vec<Retried>, RetryError> {
        let others = match dry_run {
            true => Vec::new(),
            false => self.elsewhere(view, lines).await?,
        };
        let retried = self.retry_in(projection, view, lines, dry_run, None);
        let retried = retried.await?;
        for (other, lines) in others {
            let there = self.retry_in(projection, &other, &lines, false, None);
            match there.await {
                // It went with its version.
                Ok(_) | Err(RetryError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retried)
    }

    /// The same letters in other versions.
    async fn elsewhere(
        &self,
        view: &View,
        lines: &RetryScope,
    ) -> Result<Vec<(View, RetryScope)>, sqlx::Error> {
        let rows = sqlx::query_file!(
            "src/projector/sql/dead_letters_elsewhere.sql",
            view.domain,
            view.version,
            lines.log_id,
            &lines.keys,
            &lines.alone
        )
        .fetch_all(&self.pool)
        .await?;
        let others = rows.into_iter().map(|row| {
            let other = View {
                version: row.version,
                ..view.clone()
            };
            let lines = RetryScope {
                log_id: lines.log_id,
                keys: row.keys,
                alone: row.alone,
            };
            (other, lines)
        });
        Ok(others.collect())
    }

    /// Tries letters of one version again, some hundred in a transaction, and tells what became of each. No transaction but
    /// the first begins after `until`; what that leaves has to be of a kind that the upkeep finds.
    ///
    /// # Errors
    /// As [`RetryError`] says; what was tried in transactions before stays done.
    pub async fn retry_in(
        &self,
        projection: &dyn Projection,
        view: &View,
        lines: &RetryScope,
        dry_run: bool,
        until: Option<Instant>,
    ) -> Result<Vec<Retried>, RetryError> {
        let mut round = Round::default();
        loop {
            let again = self.read_again(view, lines, round.after).await?;
            let mut transaction = self.begin(view, lines.log_id).await?;
            let connection = &mut transaction;
            let more = self.try_some(connection, projection, view, lines, &again, &mut round);
            let more = more.await?;
            if dry_run {
                transaction.rollback().await?;
                return Ok(round.retried);
            }
            transaction.commit().await?;
            if !more || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(round.retried);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Takes a letter out, for a reason in the operator's words, in every version of the view and all in one transaction;
    /// what waited behind it goes on. What is not begun by `until`, and what Kafka does not give now, is left to the upkeep,
    /// which finds it waiting behind nothing.
    ///
    /// # Errors
    /// As [`RetryError`] says; what was tried in transactions before stays done.
    pub async fn discard(
        &self,
        projection: &dyn Projection,
        view: &View,
        id: Uuid,
        resolution: &str,
        dry_run: bool,
        until: Instant,
    ) -> Result<Vec<Retried>, RetryError> {
        let letter = sqlx::query!(
            "SELECT log_id, key_hash, parks FROM sightline.dead_letters WHERE id = $1",
            id
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(RetryError::Gone)?;
        let lines = RetryScope {
            log_id: letter.log_id,
            keys: letter
                .key_hash
                .filter(|_| letter.parks)
                .into_iter()
                .collect(),
            alone: Vec::new(),
        };
        let mut again = HashMap::new();
        let others = self.elsewhere(view, &lines).await?;
        for (view, lines) in [(view.clone(), lines.clone())].into_iter().chain(others) {
            let records = self.read_again(&view, &lines, -1).await?;
            again.insert(view.version, records);
        }

        let mut transaction = self.begin(view, lines.log_id).await?;
        let discarded = sqlx::query_file!(
            "src/projector/sql/discard_dead_letters.sql",
            view.domain,
            lines.log_id,
            id,
            resolution
        )
        .fetch_all(&mut *transaction)
        .await?;
        let ours = discarded.iter().find(|row| row.version == view.version);
        let ours = ours.ok_or(RetryError::Gone)?;
        let mut retried = vec![Retried {
            id,
            offset: ours.record_offset,
            verdict: Verdict::Discarded,
        }];
        let mut unfinished = Vec::new();
        // Behind another one nothing is to be tried: that one has failed, and still stands.
        for row in discarded.iter().filter(|row| row.is_first) {
            let view = View {
                version: row.version,
                ..view.clone()
            };
            let again = again.remove(&row.version).unwrap_or_default();
            let mut round = Round::default();
            let connection = &mut transaction;
            let more = self.try_some(connection, projection, &view, &lines, &again, &mut round);
            if more.await? {
                unfinished.push(view);
            }
            if row.version == ours.version {
                retried.extend(round.retried);
            }
        }
        if dry_run {
            transaction.rollback().await?;
            return Ok(retried);
        }
        transaction.commit().await?;
        // The first is gone for good, so beginning anew goes on.
        for unfinished in unfinished {
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            let more = self.retry_in(projection, &unfinished, &lines, false, Some(until));
            match more.await {
                Ok(more) if unfinished == *view => retried.extend(more),
                Ok(_) | Err(RetryError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retried)
    }

    /// Takes a log's progress rows, of all versions of a view, in the order in which a switch takes them: what is decided
    /// about a record holds in each.
    async fn begin(
        &self,
        view: &View,
        log_id: i32,
    ) -> Result<Transaction<'static, Postgres>, RetryError> {
        let mut transaction = self.pool.begin().await?;
        let versions = sqlx::query_scalar!(
            "SELECT version FROM sightline.progress WHERE domain = $1 AND log_id = $2 ORDER BY version FOR UPDATE",
            view.domain,
            log_id,
        )
        .fetch_all(&mut *transaction)
        .await?;
        match versions.contains(&view.version) {
            true => Ok(transaction),
            false => Err(RetryError::Gone),
        }
    }

    /// Fences the owner of a version, and points names at its tables.
    async fn hold(
        &self,
        connection: &mut PgConnection,
        view: &View,
        log_id: i32,
    ) -> Result<Hold, sqlx::Error> {
        let row = sqlx::query_file!(
            "src/projector/sql/claim_partition.sql",
            view.domain,
            view.version,
            log_id
        )
        .fetch_one(&mut *connection)
        .await?;
        let logs = progress::use_schema(connection, view).await?;
        Ok(Hold {
            log_id,
            epoch: row.epoch,
            next_offset: row.next_offset,
            stream_time: row.stream_time,
            schema: String::new(),
            is_live: false,
            logs,
            failure: None,
            last: None,
            parked: HashSet::new(),
            discarded: HashMap::new(),
        })
    }

    /// Records of the next letters that are not kept here, as the log has them.
    async fn read_again(
        &self,
        view: &View,
        lines: &RetryScope,
        after: i64,
    ) -> Result<Again, sqlx::Error> {
        let asked = sqlx::query_file_scalar!(
            "src/projector/sql/dead_letters_to_refetch.sql",
            view.domain,
            view.version,
            lines.log_id,
            &lines.keys,
            &lines.alone,
            after,
            LETTERS,
            BYTES,
            self.max_value_bytes(),
        )
        .fetch_all(&self.pool)
        .await?;
        if asked.is_empty() {
            return Ok(Again::default());
        }
        let log = self.log(&self.pool, lines.log_id).await?;
        let kafka = self.kafka.clone();
        let offsets = asked.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (topic, identity) = (&log.topic, &log.identity);
            offsets::read_records(&kafka, topic, identity, log.partition, &offsets)
        });
        // Where it panicked the panic hook has told it.
        let read = read.await.unwrap_or(Err(KafkaError::Canceled));
        if let Err(error) = &read {
            tracing::debug!(domain = view.domain, %error, "records of letters can't be read again now");
        }
        Ok(Again {
            asked,
            is_away: read.is_err(),
            records: read.unwrap_or_default(),
        })
    }

    /// The largest value that is parsed, as the database counts.
    fn max_value_bytes(&self) -> i64 {
        i64::try_from(self.max_value_bytes).unwrap_or(i64::MAX)
    }

    async fn log(&self, executor: impl PgExecutor<'_>, log_id: i32) -> Result<Log, sqlx::Error> {
        sqlx::query_as!(
            Log,
            "SELECT topic, topic_identity AS identity, partition FROM sightline.logs WHERE log_id = $1",
            log_id
        )
        .fetch_one(executor)
        .await
    }

    /// Tries the next letters, if there are any, within a transaction that has the log's progress rows. Says whether there
    /// may be more.
    async fn try_some(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        view: &View,
        lines: &RetryScope,
        again: &Again,
        round: &mut Round,
    ) -> Result<bool, RetryError> {
        let stored = sqlx::query_file_as!(
            Stored,
            "src/projector/sql/dead_letters_to_retry.sql",
            view.domain,
            view.version,
            lines.log_id,
            &lines.keys,
            &lines.alone,
            round.after,
            LETTERS,
            BYTES,
            self.max_value_bytes(),
        )
        .fetch_all(&mut *connection)
        .await?;
        if stored.is_empty() {
            return Ok(false);
        }
        let held = sqlx::query_file_scalar!(
            "src/projector/sql/waiting_keys.sql",
            view.domain,
            view.version,
            lines.log_id,
            &lines.keys
        );
        round.held.extend(held.fetch_all(&mut *connection).await?);
        let mut more = stored.first().is_some_and(|letter| letter.more);
        let log = self.log(&mut *connection, lines.log_id).await?;
        let begun = round.retried.len();
        let mut letters = Vec::new();
        for letter in stored {
            if letter.is_in_log_only(self.max_value_bytes())
                && !again.asked.contains(&letter.record_offset)
            {
                // Erased since the log was asked: it has to be asked again.
                more = true;
                break;
            }
            round.after = letter.record_offset;
            let known = letter.known(&log, again, self.max_value_bytes());
            letters.extend(round.hold_back(letter, known));
        }
        if !letters.is_empty() {
            let hold = self.hold(&mut *connection, view, lines.log_id).await?;
            self.try_these(&mut *connection, projection, view, &hold, &letters, round)
                .await?;
        }
        let retried = &mut round.retried[begun..];
        retried.sort_by_key(|retried| retried.offset);
        // Those that wait on are not under way any more.
        let waiting: Vec<Uuid> = retried
            .iter()
            .filter(|retried| retried.verdict.stays())
            .map(|retried| retried.id)
            .collect();
        sqlx::query!(
            "UPDATE sightline.dead_letters SET state = 'parked' WHERE id = ANY ($1) AND state = 'retrying'",
            &waiting
        )
        .execute(connection)
        .await?;
        Ok(more)
    }

    /// Tries letters whose values are known, or known to be lost, within a transaction that holds the version.
    async fn try_these(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        view: &View,
        hold: &Hold,
        letters: &[(Stored, Known)],
        round: &mut Round,
    ) -> Result<(), sqlx::Error> {
        let candidates: Vec<Candidate<'_>> = letters
            .iter()
            .enumerate()
            .map(|(index, (letter, known))| {
                let (record, reading) = match known {
                    Known::There(record) => {
                        let reading = Reading::of(record, projection, self.max_value_bytes);
                        (record, reading)
                    }
                    Known::TooLarge(record) => (record, Reading::Oversized),
                    Known::Lost(record) => (record, Reading::Lost),
                };
                let turn = Turn::Missed {
                    stream_time: letter.stream_time,
                    place: place(hold, index),
                };
                Candidate {
                    record,
                    key: letter.key_hash,
                    turn,
                    reading,
                }
            })
            .collect();
        let parked = std::mem::take(&mut round.parked);
        let run = Run::new(projection, view, hold, self.dedupe, parked);
        let state = run.judge_and_apply(connection, &candidates).await?;

        let mut failures = state.letters.iter();
        let verdicts: Vec<Verdict> = letters
            .iter()
            .zip(&state.outcomes)
            .map(|((letter, _), outcome)| match outcome {
                Outcome::Applied => Verdict::Applied,
                Outcome::Duplicate => Verdict::Duplicate,
                Outcome::Skipped => Verdict::Skipped,
                Outcome::DeadLettered => {
                    let failure = failures.next();
                    let closed = state.closed.iter().any(|(key, offset)| {
                        letter.key_hash == Some(*key) && letter.record_offset < *offset
                    });
                    match failure {
                        _ if closed => Verdict::Closed,
                        Some(failure) if failure.class != Class::Blocked => Verdict::Failed {
                            reason: failure.reason.clone().into_owned(),
                            field: failure.field.clone(),
                        },
                        _ => Verdict::Waiting,
                    }
                }
            })
            .collect();
        settle(connection, view, hold, letters, &verdicts).await?;
        // Only then: it closes what is still open of the keys.
        state.write_bookkeeping(connection, view, hold).await?;
        let failed: Vec<(Uuid, &Letter)> = letters
            .iter()
            .zip(&state.outcomes)
            .filter(|(_, outcome)| **outcome == Outcome::DeadLettered)
            .zip(&state.letters)
            .filter(|(_, failure)| failure.class != Class::Blocked)
            .map(|(((letter, _), _), failure)| (letter.id, failure))
            .collect();
        note_failures(&mut *connection, &failed, projection.code_version()).await?;
        sqlx::query_file!(
            "src/projector/sql/fence_logs_behind.sql",
            view.domain,
            view.version,
            hold.log_id
        )
        .execute(connection)
        .await?;
        round.retried.extend(
            letters
                .iter()
                .zip(verdicts)
                .map(|((letter, _), verdict)| letter.retried(verdict)),
        );
        round.parked = state.parked;
        Ok(())
    }
}

/// Where a retry of many letters has come to.
struct Round {
    /// All letters up to this offset were tried.
    after: i64,
    /// Keys of which one has failed.
    parked: HashSet<Uuid>,
    /// Keys of which one could not be read, or that wait for a log that comes before this one.
    held: HashSet<Uuid>,
    retried: Vec<Retried>,
}

impl Round {
    /// Holds a letter back that nothing is known of now, or that waits behind such a one. Gives back any other.
    fn hold_back(&mut self, letter: Stored, known: Option<Known>) -> Option<(Stored, Known)> {
        let verdict = match known {
            _ if letter.key_hash.is_some_and(|key| self.held.contains(&key)) => Verdict::Waiting,
            Some(known) => return Some((letter, known)),
            None => Verdict::Away,
        };
        self.held.extend(letter.key_hash);
        self.retried.push(letter.retried(verdict));
        None
    }
}

impl Default for Round {
    fn default() -> Self {
        Round {
            after: -1,
            parked: HashSet::new(),
            held: HashSet::new(),
            retried: Vec::new(),
        }
    }
}

/// Where the change of the n-th letter of a transaction lies: behind all that was applied before, since no two
/// transactions have the same epoch.
fn place(hold: &Hold, index: usize) -> FeedPosition {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    FeedPosition {
        next_offset: hold.next_offset,
        sequence: (hold.epoch << 32) | (index * FeedPosition::MAX_ROWS),
    }
}

impl Stored {
    fn retried(&self, verdict: Verdict) -> Retried {
        Retried {
            id: self.id,
            offset: self.record_offset,
            verdict,
        }
    }

    /// Whether the log has to be asked for its value.
    fn is_in_log_only(&self, max_value_bytes: i64) -> bool {
        self.size <= max_value_bytes && self.value.is_none()
    }

    /// The record, with its value if that is anywhere; `None` while the log does not answer.
    fn known(&self, log: &Log, again: &Again, max_value_bytes: i64) -> Option<Known> {
        if self.size > max_value_bytes {
            return Some(Known::TooLarge(self.record(log)));
        }
        if self.value.is_some() {
            return Some(Known::There(self.record(log)));
        }
        if again.is_away {
            return None;
        }
        let record = again.records.get(&self.record_offset);
        Some(match record.filter(|record| self.is(record)) {
            Some(record) => Known::There(record.clone()),
            None => Known::Lost(self.record(log)),
        })
    }

    /// Whether this is the record that became the letter: a log that has lost its tail may have another one there.
    fn is(&self, record: &Record) -> bool {
        record_time(record) == self.record_time
            && record.key.as_deref().map(hash16) == self.key_hash
            && value_size(record) == self.size
    }

    fn record(&self, log: &Log) -> Record {
        let headers = self.headers.as_ref().and_then(Value::as_array);
        let record = Record {
            topic: log.topic.as_str().into(),
            partition: log.partition,
            offset: self.record_offset,
            timestamp_ms: self.record_time.map(|time| time.timestamp_millis()),
            key: self.record_key.clone().map(Bytes::from),
            headers: headers.into_iter().flatten().map(header).collect(),
            value: self.value.clone().map(Bytes::from),
        };
        debug_assert!(record_time(&record) == self.record_time);
        record
    }
}

/// A header as it was stored: `[name, base64 of the value or null]`.
fn header(pair: &Value) -> (String, Option<Bytes>) {
    let name = pair[0].as_str().unwrap_or_default().to_owned();
    let value = pair[1].as_str().and_then(|text| STANDARD.decode(text).ok());
    (name, value.map(Bytes::from))
}

/// Moves letters that are through to `applied`, and their counts in the books.
async fn settle(
    connection: &mut PgConnection,
    view: &View,
    hold: &Hold,
    letters: &[(Stored, Known)],
    verdicts: &[Verdict],
) -> Result<(), sqlx::Error> {
    let (mut ids, mut resolutions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
    let (mut applied, mut duplicates, mut skipped) = (0, 0, 0);
    for (index, ((letter, _), verdict)) in letters.iter().zip(verdicts).enumerate() {
        let (word, count) = match verdict {
            Verdict::Applied => ("applied", &mut applied),
            Verdict::Duplicate => ("duplicate", &mut duplicates),
            Verdict::Skipped => ("skipped", &mut skipped),
            _ => continue,
        };
        *count += 1;
        ids.push(letter.id);
        resolutions.push(word.to_owned());
        sequences.push((*verdict == Verdict::Applied).then(|| place(hold, index).sequence));
    }
    sqlx::query_file!(
        "src/projector/sql/settle_dead_letters.sql",
        &ids,
        &resolutions,
        hold.next_offset,
        &sequences as _,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/settle_books.sql",
        view.domain,
        view.version,
        hold.log_id,
        applied,
        duplicates,
        skipped
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Notes that letters failed again, and why.
async fn note_failures(
    connection: &mut PgConnection,
    failed: &[(Uuid, &Letter)],
    code_version: i32,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = failed.iter().map(|(id, _)| *id).collect();
    let reasons: Vec<String> = failed
        .iter()
        .map(|(_, letter)| letter.reason.clone().into_owned())
        .collect();
    let fields: Vec<Option<String>> = failed
        .iter()
        .map(|(_, letter)| super::text(&letter.field))
        .collect();
    let classes: Vec<String> = failed
        .iter()
        .map(|(_, letter)| letter.class.as_str().to_owned())
        .collect();
    sqlx::query_file!(
        "src/projector/sql/note_failures.sql",
        &ids,
        &reasons,
        &fields as _,
        &classes,
        code_version,
        LOST
    )
    .execute(connection)
    .await
    .map(drop)
}
