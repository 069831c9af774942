//! Dead letters tried again, and taken out.
//!
//! A transaction holds the log's progress row, as a batch's does, and raises its epoch: the owner can't commit what
//! it decided while the keys were parked, and sees them live, or parked still, when it takes over again. So live
//! events neither overtake letters nor are parked behind nothing. A key's letters go in their order, up to the first
//! that fails; what stands behind that one waits on.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde_json::Value;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::batch::{Candidate, Outcome, Reading, Run, Turn};
use super::letter::{Class, LOST, Letter, record_time};
use super::progress::{self, Hold};
use super::{Place, Projection, View, log};
use crate::event::Record;

/// How many letters one transaction tries. With the largest values that are kept here it stays bearable.
const LETTERS: i64 = 200;

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
pub struct Lines {
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
    /// One before it failed.
    Waiting,
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
    /// A record has to be read again, and Kafka does not give it.
    #[error("Kafka can't be read")]
    Kafka(#[from] KafkaError),
}

/// A letter as the table has it.
struct Stored {
    id: Uuid,
    record_offset: i64,
    record_time: Option<DateTime<Utc>>,
    log_time: Option<DateTime<Utc>>,
    record_key: Option<Vec<u8>>,
    key_hash: Option<Uuid>,
    headers: Option<Value>,
    value: Option<Vec<u8>>,
}

/// The log that letters are from.
struct Log {
    topic: String,
    identity: String,
    partition: i32,
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
        lines: &Lines,
        dry_run: bool,
    ) -> Result<Vec<Retried>, RetryError> {
        let others = match dry_run {
            true => Vec::new(),
            false => self.elsewhere(view, lines).await?,
        };
        let retried = self.retry_in(projection, view, lines, dry_run).await?;
        for (other, lines) in others {
            match self.retry_in(projection, &other, &lines, false).await {
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
        lines: &Lines,
    ) -> Result<Vec<(View, Lines)>, sqlx::Error> {
        let rows = sqlx::query_file!(
            "src/projector/sql/letters_elsewhere.sql",
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
            let lines = Lines {
                log_id: lines.log_id,
                keys: row.keys,
                alone: row.alone,
            };
            (other, lines)
        });
        Ok(others.collect())
    }

    /// Tries letters of one version again, some hundred in a transaction, and tells what became of each.
    ///
    /// # Errors
    /// As [`RetryError`] says; what was tried in transactions before stays done.
    pub async fn retry_in(
        &self,
        projection: &dyn Projection,
        view: &View,
        lines: &Lines,
        dry_run: bool,
    ) -> Result<Vec<Retried>, RetryError> {
        let mut round = Round::default();
        loop {
            let again = self.read_again(view, lines, round.after).await?;
            let mut transaction = self.begin(view, lines.log_id).await?;
            let hold = self.hold(&mut transaction, view, lines.log_id).await?;
            let more = self
                .try_some(
                    &mut transaction,
                    &hold,
                    projection,
                    view,
                    lines,
                    &again,
                    &mut round,
                )
                .await?;
            if dry_run {
                transaction.rollback().await?;
                return Ok(round.retried);
            }
            transaction.commit().await?;
            if !more {
                return Ok(round.retried);
            }
        }
    }

    /// Takes a letter out, for a reason in the operator's words, in every version of the view and all in one transaction;
    /// what waited behind it goes on. Where Kafka does not give a record that has to be read again, that is left to the
    /// upkeep, which finds it waiting behind nothing.
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
    ) -> Result<Vec<Retried>, RetryError> {
        let letter = sqlx::query!(
            "SELECT log_id, key_hash, parks FROM sightline.dead_letters WHERE id = $1",
            id
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(RetryError::Gone)?;
        let lines = Lines {
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
            match self.read_again(&view, &lines, -1).await {
                Ok(records) => drop(again.insert(view.version, records)),
                Err(RetryError::Kafka(_)) => {}
                Err(error) => return Err(error),
            }
        }

        let mut transaction = self.begin(view, lines.log_id).await?;
        let discarded = sqlx::query_file!(
            "src/projector/sql/discard_letters.sql",
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
            let Some(again) = again.remove(&row.version) else {
                continue;
            };
            let hold = self.hold(&mut transaction, &view, lines.log_id).await?;
            let mut round = Round::default();
            let tried = self.try_some(
                &mut transaction,
                &hold,
                projection,
                &view,
                &lines,
                &again,
                &mut round,
            );
            if tried.await? {
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
            let more = self
                .retry_in(projection, &unfinished, &lines, false)
                .await?;
            if unfinished == *view {
                retried.extend(more);
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
            "src/projector/sql/take_over.sql",
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
            log_time: row.log_time,
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
        lines: &Lines,
        after: i64,
    ) -> Result<HashMap<i64, Record>, RetryError> {
        let missing = sqlx::query_file_scalar!(
            "src/projector/sql/letters_without_bytes.sql",
            view.domain,
            view.version,
            lines.log_id,
            &lines.keys,
            &lines.alone,
            after,
            LETTERS,
        )
        .fetch_all(&self.pool)
        .await?;
        if missing.is_empty() {
            return Ok(HashMap::new());
        }
        let log = self.log(lines.log_id).await?;
        let kafka = self.kafka.clone();
        let read = tokio::task::spawn_blocking(move || {
            log::read_records(&kafka, &log.topic, &log.identity, log.partition, &missing)
        });
        match read.await {
            Ok(records) => Ok(records?),
            // It panicked, which the panic hook has told; no record was read.
            Err(_) => Ok(HashMap::new()),
        }
    }

    async fn log(&self, log_id: i32) -> Result<Log, sqlx::Error> {
        sqlx::query_as!(
            Log,
            "SELECT topic, topic_identity AS identity, partition FROM sightline.logs WHERE log_id = $1",
            log_id
        )
        .fetch_one(&self.pool)
        .await
    }

    /// Tries the next letters within a transaction. Says whether there may be more.
    #[allow(clippy::too_many_arguments)]
    async fn try_some(
        &self,
        connection: &mut PgConnection,
        hold: &Hold,
        projection: &dyn Projection,
        view: &View,
        lines: &Lines,
        again: &HashMap<i64, Record>,
        round: &mut Round,
    ) -> Result<bool, RetryError> {
        let stored = sqlx::query_file_as!(
            Stored,
            "src/projector/sql/letters_to_retry.sql",
            view.domain,
            view.version,
            lines.log_id,
            &lines.keys,
            &lines.alone,
            round.after,
            LETTERS,
        )
        .fetch_all(&mut *connection)
        .await?;
        let Some(last) = stored.last() else {
            return Ok(false);
        };
        round.after = last.record_offset;
        let more = i64::try_from(stored.len()).unwrap_or(i64::MAX) == LETTERS;
        let log = self.log(lines.log_id).await?;
        let records: Vec<(Record, bool)> = stored
            .iter()
            .map(|letter| letter.record(&log, again))
            .collect();
        let candidates: Vec<Candidate<'_>> = stored
            .iter()
            .zip(&records)
            .enumerate()
            .map(|(index, (letter, (record, there)))| {
                let reading = match there {
                    true => Reading::of(record, projection, self.max_value_bytes),
                    false => Reading::Lost,
                };
                let turn = Turn::Missed {
                    log_time: letter.log_time,
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
        let verdicts: Vec<Verdict> = stored
            .iter()
            .zip(&state.outcomes)
            .map(|(letter, outcome)| match outcome {
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
                        Some(failure) if failure.class != Class::Parked => Verdict::Failed {
                            reason: failure.reason.clone().into_owned(),
                            field: failure.field.clone(),
                        },
                        _ => Verdict::Waiting,
                    }
                }
            })
            .collect();
        settle(connection, view, hold, &stored, &verdicts).await?;
        // Only then: it closes what is still open of the keys.
        state.write_bookkeeping(connection, view, hold).await?;
        let failed: Vec<(Uuid, &Letter)> = stored
            .iter()
            .zip(&state.outcomes)
            .filter(|(_, outcome)| **outcome == Outcome::DeadLettered)
            .zip(&state.letters)
            .filter(|(_, failure)| failure.class != Class::Parked)
            .map(|((letter, _), failure)| (letter.id, failure))
            .collect();
        note_failures(connection, &failed, projection.code_version()).await?;
        round.retried.extend(
            stored
                .iter()
                .zip(verdicts)
                .map(|(letter, verdict)| Retried {
                    id: letter.id,
                    offset: letter.record_offset,
                    verdict,
                }),
        );
        round.parked = state.parked;
        Ok(more)
    }
}

/// Where a retry of many letters has come to.
struct Round {
    /// All letters up to this offset were tried.
    after: i64,
    /// Keys of which one has failed.
    parked: HashSet<Uuid>,
    retried: Vec<Retried>,
}

impl Default for Round {
    fn default() -> Self {
        Round {
            after: -1,
            parked: HashSet::new(),
            retried: Vec::new(),
        }
    }
}

/// Where the change of the n-th letter of a transaction lies: behind all that was applied before, since no two
/// transactions have the same epoch.
fn place(hold: &Hold, index: usize) -> Place {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    Place {
        next_offset: hold.next_offset,
        sequence: (hold.epoch << 32) | (index * Place::ROOM),
    }
}

impl Stored {
    /// The record, and whether its value is known.
    fn record(&self, log: &Log, again: &HashMap<i64, Record>) -> (Record, bool) {
        if self.value.is_none()
            && let Some(record) = again.get(&self.record_offset)
        {
            return (record.clone(), true);
        }
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
        (record, self.value.is_some())
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
    stored: &[Stored],
    verdicts: &[Verdict],
) -> Result<(), sqlx::Error> {
    let (mut ids, mut resolutions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
    let (mut applied, mut duplicates, mut skipped) = (0, 0, 0);
    for (index, (letter, verdict)) in stored.iter().zip(verdicts).enumerate() {
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
        "src/projector/sql/settle_letters.sql",
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
    // Those that wait on are not under way any more.
    let waiting: Vec<Uuid> = stored
        .iter()
        .zip(verdicts)
        .filter(|(_, verdict)| matches!(verdict, Verdict::Waiting | Verdict::Failed { .. }))
        .map(|(letter, _)| letter.id)
        .collect();
    sqlx::query!(
        "UPDATE sightline.dead_letters SET state = 'parked' WHERE id = ANY ($1) AND state = 'retrying'",
        &waiting
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Notes that letters failed again, and why.
async fn note_failures(
    connection: &mut PgConnection,
    failed: &[(Uuid, &Letter)],
    code_version: i32,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = failed.iter().map(|(id, _)| *id).collect();
    // Why it can't be read any more is told to who tries it; why it became a letter stays.
    let reasons: Vec<Option<String>> = failed
        .iter()
        .map(|(_, letter)| (letter.reason != LOST).then(|| letter.reason.clone().into_owned()))
        .collect();
    let fields: Vec<Option<String>> = failed
        .iter()
        .map(|(_, letter)| super::letter::text(&letter.field))
        .collect();
    let classes: Vec<String> = failed
        .iter()
        .map(|(_, letter)| letter.class.as_str().to_owned())
        .collect();
    sqlx::query_file!(
        "src/projector/sql/note_failures.sql",
        &ids,
        &reasons as _,
        &fields as _,
        &classes,
        code_version
    )
    .execute(connection)
    .await
    .map(drop)
}
