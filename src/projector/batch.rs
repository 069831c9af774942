//! One batch of one partition: judged record by record, applied together, committed with its position.
//!
//! A batch that the database or the fold refuses is halved under savepoints until what is bad stands alone.
//! What was decided for the refused half is forgotten with it, and decided anew for its parts: whether a
//! record is a duplicate, or waits behind another, depends on what became of those before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::letter::{self, Class, Letter, record_time};
use super::progress::{self, Books, Hold};
use super::{Applied, Place, Projection, Projector, Target, View};
use crate::db::{self, ErrorClass};
use crate::event::{Envelope, Payload, Record, TypeName, hash16};

/// No record moves the log's time by more.
const LOG_TIME_STRIDE: TimeDelta = TimeDelta::days(1);
/// How often a failure that nobody foresaw is tried alone before the record is given up.
const BUG_ATTEMPTS: u32 = 3;

/// Records that follow one another in a partition, and where the log goes on behind them.
#[derive(Debug)]
pub struct Batch {
    pub records: Vec<Record>,
    pub next_offset: i64,
}

/// How a batch ended.
#[derive(Debug)]
pub enum Outcome {
    Committed(Books),
    /// The progress row is not as it was taken over: nothing was written.
    Fenced,
}

/// Projects a batch in one transaction, and brings `hold` to where it ends.
///
/// # Errors
/// Transient: the same batch may go through when it is tried again, after the position was read anew (a
/// COMMIT whose answer was lost may have been one).
pub async fn project(
    projector: &Projector,
    projection: &dyn Projection,
    view: &View,
    hold: &mut Hold,
    batch: &Batch,
) -> Result<Outcome, sqlx::Error> {
    let mut transaction = projector.pool.begin().await?;
    if !progress::lock(&mut transaction, view, hold).await? {
        return Ok(Outcome::Fenced);
    }
    let candidates: Vec<Candidate<'_>> = batch
        .records
        .iter()
        .map(|record| Candidate::read(record, projection, projector.max_value_bytes))
        .collect();
    let mut run = Run {
        projection,
        view,
        hold,
        dedupe: projector.dedupe,
        seen: seen_events(&mut transaction, hold.log_id, &candidates).await?,
        state: State {
            log_time: hold.log_time,
            parked: hold.parked.clone(),
            ..State::default()
        },
    };
    run.process(&mut transaction, &candidates).await?;
    let state = run.state;

    write_bookkeeping(&mut transaction, projection, view, hold, &state).await?;
    let mut books = state.books;
    books.holes = batch.next_offset - hold.next_offset - books.read;
    progress::advance(
        &mut transaction,
        view,
        hold,
        batch.next_offset,
        state.log_time,
        &books,
    )
    .await?;
    transaction.commit().await?;

    hold.next_offset = batch.next_offset;
    hold.log_time = state.log_time;
    hold.parked = state.parked;
    Ok(Outcome::Committed(books))
}

/// A record with what can be told of it without knowing what came before.
struct Candidate<'r> {
    record: &'r Record,
    key: Option<Uuid>,
    reading: Reading<'r>,
}

enum Reading<'r> {
    Tombstone,
    Oversized,
    /// Its type can't be read.
    Illegible(crate::event::Bad),
    /// Of a type that this view is not made from.
    Skipped {
        unknown: Option<String>,
    },
    /// Of interest. The id is judged apart from the rest: one that was seen makes the rest irrelevant.
    Event {
        envelope: Envelope<'r>,
        id: Option<(String, Uuid)>,
    },
}

impl<'r> Candidate<'r> {
    fn read(record: &'r Record, projection: &dyn Projection, max_value_bytes: usize) -> Self {
        let reading = match &record.value {
            None => Reading::Tombstone,
            Some(value) if value.len() > max_value_bytes => Reading::Oversized,
            Some(_) => match Envelope::read(record) {
                Err(bad) => Reading::Illegible(bad),
                Ok(envelope) if !projection.is_interested(envelope.event_type()) => {
                    let unknown = match envelope.event_type() {
                        TypeName::Unknown { name } => Some(
                            name.chars()
                                .take(100)
                                .map(|c| if c == '\0' { '\u{fffd}' } else { c })
                                .collect(),
                        ),
                        TypeName::Known { .. } => None,
                    };
                    Reading::Skipped { unknown }
                }
                Ok(envelope) => {
                    let id = envelope
                        .event_id()
                        .ok()
                        .map(|id| (id.to_owned(), hash16(id.as_bytes())));
                    Reading::Event { envelope, id }
                }
            },
        };
        Candidate {
            record,
            key: record.key.as_deref().map(hash16),
            reading,
        }
    }
}

/// When each of the batch's ids was applied from this log, of those that were.
async fn seen_events(
    connection: &mut PgConnection,
    log_id: i32,
    candidates: &[Candidate<'_>],
) -> Result<HashMap<Uuid, Option<DateTime<Utc>>>, sqlx::Error> {
    let ids: Vec<Uuid> = candidates
        .iter()
        .filter_map(|candidate| match &candidate.reading {
            Reading::Event {
                id: Some((_, hash)),
                ..
            } => Some(*hash),
            _ => None,
        })
        .collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_file!("src/projector/sql/seen_events.sql", log_id, &ids)
        .fetch_all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.event_hash, row.log_time))
        .collect())
}

/// What a batch has come to so far. Cloned before each attempt, and put back when the attempt is undone.
#[derive(Default, Clone)]
struct State {
    log_time: Option<DateTime<Utc>>,
    /// The ids that this batch applied, with their offsets and the log's time after them.
    applied_ids: BTreeMap<Uuid, (i64, Option<DateTime<Utc>>)>,
    parked: HashSet<Uuid>,
    /// Keys whose user was deleted while letters were waiting: written by earlier batches, and by this one.
    closed: Vec<Uuid>,
    letters: Vec<Letter>,
    unknown_types: BTreeMap<String, i64>,
    books: Books,
}

struct Run<'b> {
    projection: &'b dyn Projection,
    view: &'b View,
    hold: &'b Hold,
    dedupe: TimeDelta,
    seen: HashMap<Uuid, Option<DateTime<Utc>>>,
    state: State,
}

impl Run<'_> {
    /// Judges and applies candidates in order; by halves where they can't be applied together.
    fn process<'f>(
        &'f mut self,
        connection: &'f mut PgConnection,
        candidates: &'f [Candidate<'_>],
    ) -> BoxFuture<'f, Result<(), sqlx::Error>> {
        async move {
            let before = self.state.clone();
            let mut attempt = 1;
            loop {
                let events = self.judge(candidates);
                let Err(class) = self.apply(connection, &events).await? else {
                    return Ok(());
                };
                self.state = before.clone();
                if let [candidate] = candidates {
                    if class == ErrorClass::Bug && attempt < BUG_ATTEMPTS {
                        attempt += 1;
                        continue;
                    }
                    self.give_up(candidate, class);
                    return Ok(());
                }
                let (first, second) = candidates.split_at(candidates.len() / 2);
                self.process(connection, first).await?;
                return self.process(connection, second).await;
            }
        }
        .boxed()
    }

    /// Applies events under a savepoint. The inner error is the data's or a bug's, and was undone.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        events: &[Applied],
    ) -> Result<Result<(), ErrorClass>, sqlx::Error> {
        if events.is_empty() {
            return Ok(Ok(()));
        }
        let mut savepoint = connection.begin().await?;
        let mut target = Target {
            connection: &mut savepoint,
            log_id: self.hold.log_id,
            logs: self.hold.logs,
        };
        let applied = AssertUnwindSafe(self.projection.apply(&mut target, events))
            .catch_unwind()
            .await;
        let class = match applied {
            Ok(Ok(())) => {
                savepoint.commit().await?;
                return Ok(Ok(()));
            }
            Ok(Err(error)) => match db::classify(&error) {
                ErrorClass::Transient | ErrorClass::Systemic => return Err(error),
                class => {
                    let (first, last) = (events[0].offset, events[events.len() - 1].offset);
                    tracing::debug!(
                        first,
                        last,
                        error = db::describe(&error),
                        "events could not be applied together"
                    );
                    class
                }
            },
            // The panic hook has told where.
            Err(_panic) => ErrorClass::Bug,
        };
        savepoint.rollback().await?;
        Ok(Err(class))
    }

    /// Decides what becomes of each candidate, in the order of judgement (the events' contract), and returns
    /// those to apply.
    fn judge(&mut self, candidates: &[Candidate<'_>]) -> Vec<Applied> {
        let mut events = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            self.state.books.read += 1;
            self.state.log_time = later(self.state.log_time, record_time(candidate.record));
            match &candidate.reading {
                Reading::Tombstone => self.state.books.skipped += 1,
                Reading::Skipped { unknown } => {
                    self.state.books.skipped += 1;
                    if let Some(name) = unknown {
                        *self.state.unknown_types.entry(name.clone()).or_default() += 1;
                    }
                }
                Reading::Oversized => {
                    let mut letter = letter_of(
                        candidate,
                        "too_large",
                        Class::Data,
                        self.projection.parks(None),
                    );
                    letter.without_value = true;
                    self.park(letter, candidate);
                }
                Reading::Illegible(bad) => {
                    let letter = letter_of(candidate, "", Class::Data, self.projection.parks(None))
                        .because(bad);
                    self.park(letter, candidate);
                }
                Reading::Event { envelope, id } => {
                    events.extend(self.judge_event(candidate, envelope, id.as_ref()))
                }
            }
        }
        events
    }

    /// Decides on an event of interest: it is returned if it is to be applied.
    fn judge_event(
        &mut self,
        candidate: &Candidate<'_>,
        envelope: &Envelope<'_>,
        id: Option<&(String, Uuid)>,
    ) -> Option<Applied> {
        let parks = self.projection.parks(Some(envelope.event_type()));
        let parked = candidate
            .key
            .filter(|key| parks && self.state.parked.contains(key));
        let seen = id.is_some_and(|(_, hash)| self.is_seen(*hash));
        if seen && parked.is_none() {
            self.state.books.duplicates += 1;
            return None;
        }
        let event = match (envelope.decode(), parked) {
            (Ok(event), None) => event,
            (Ok(event), Some(key)) if matches!(event.payload, Payload::UserDeleted(_)) => {
                if seen {
                    self.state.books.duplicates += 1;
                    return None;
                }
                self.close(key);
                event
            }
            (decoded, Some(_)) => {
                let mut letter = letter_of(candidate, "parked_behind", Class::Parked, parks);
                letter.occurred_at = decoded.ok().map(|event| event.occurred_at);
                self.park(letter, candidate);
                return None;
            }
            (Err(bad), None) => {
                let letter = letter_of(candidate, "", Class::Data, parks).because(&bad);
                self.park(letter, candidate);
                return None;
            }
        };
        if let Some((_, hash)) = id {
            let at = self.state.log_time;
            self.state
                .applied_ids
                .insert(*hash, (candidate.record.offset, at));
        }
        self.state.books.applied += 1;
        Some(Applied {
            event,
            log_id: self.hold.log_id,
            offset: candidate.record.offset,
            place: Place::in_turn(candidate.record.offset),
        })
    }

    /// Whether an id was applied, and is not forgotten by the log's time.
    fn is_seen(&self, hash: Uuid) -> bool {
        let Some(at) = self
            .state
            .applied_ids
            .get(&hash)
            .map(|(_, at)| at)
            .or_else(|| self.seen.get(&hash))
        else {
            return false;
        };
        match (at, self.state.log_time) {
            (Some(at), Some(now)) => now - *at < self.dedupe,
            _ => true,
        }
    }

    fn park(&mut self, letter: Letter, candidate: &Candidate<'_>) {
        if let (Some(key), true) = (candidate.key, letter.parks) {
            self.state.parked.insert(key);
        }
        self.state.books.dead_lettered += 1;
        self.state.letters.push(letter);
    }

    /// The key's user was deleted: its letters are closed, and it is live again.
    fn close(&mut self, key: Uuid) {
        self.state.parked.remove(&key);
        self.state.closed.push(key);
        for letter in &mut self.state.letters {
            if letter.record.key.as_deref().map(hash16) == Some(key) {
                letter.closed = true;
            }
        }
    }

    /// A single record that can't be applied becomes a letter.
    fn give_up(&mut self, candidate: &Candidate<'_>, class: ErrorClass) {
        let (reason, class) = match class {
            ErrorClass::Bug => ("failed", Class::Bug),
            ErrorClass::Data | ErrorClass::Transient | ErrorClass::Systemic => {
                ("refused_by_database", Class::Data)
            }
        };
        tracing::error!(
            domain = self.view.domain,
            partition = candidate.record.partition,
            offset = candidate.record.offset,
            reason,
            "a record can't be applied: it becomes a dead letter"
        );
        let event_type = match &candidate.reading {
            Reading::Event { envelope, .. } => Some(envelope.event_type()),
            _ => None,
        };
        self.state.books.read += 1;
        self.state.log_time = later(self.state.log_time, record_time(candidate.record));
        self.park(
            letter_of(candidate, reason, class, self.projection.parks(event_type)),
            candidate,
        );
    }
}

/// The log's time after a record: the largest so far, moved by none for more than a day.
fn later(log_time: Option<DateTime<Utc>>, record: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (log_time, record) {
        (Some(now), Some(record)) if record > now => Some(record.min(now + LOG_TIME_STRIDE)),
        (None, record) => record,
        (now, _) => now,
    }
}

/// A letter with what can be told of a record that may be good.
fn letter_of(candidate: &Candidate<'_>, reason: &'static str, class: Class, parks: bool) -> Letter {
    let (event_id, event_type) = match &candidate.reading {
        Reading::Event { envelope, id } => {
            let event_type = match envelope.event_type() {
                TypeName::Known { event_type, .. } => event_type.as_str().to_owned(),
                TypeName::Unknown { name } => name.clone(),
            };
            (id.as_ref().map(|(id, _)| id.clone()), Some(event_type))
        }
        _ => (None, None),
    };
    Letter {
        record: candidate.record.clone(),
        event_id,
        event_type,
        occurred_at: None,
        reason,
        field: None,
        class,
        parks,
        without_value: false,
        closed: false,
    }
}

/// Writes what every view has beside its own rows: remembered ids, letters, counts of unknown types.
async fn write_bookkeeping(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    view: &View,
    hold: &Hold,
    state: &State,
) -> Result<(), sqlx::Error> {
    if !state.applied_ids.is_empty() {
        let hashes: Vec<Uuid> = state.applied_ids.keys().copied().collect();
        let offsets: Vec<i64> = state
            .applied_ids
            .values()
            .map(|(offset, _)| *offset)
            .collect();
        let times: Vec<Option<DateTime<Utc>>> =
            state.applied_ids.values().map(|(_, at)| *at).collect();
        sqlx::query_file!(
            "src/projector/sql/remember_events.sql",
            hold.log_id,
            &hashes,
            &offsets,
            &times as _
        )
        .execute(&mut *connection)
        .await?;
    }
    if !state.closed.is_empty() {
        // Before this batch's own letters: those of its closed keys are closed already, later ones are not.
        sqlx::query_file!(
            "src/projector/sql/close_letters.sql",
            view.domain,
            view.version,
            hold.log_id,
            &state.closed
        )
        .execute(&mut *connection)
        .await?;
    }
    if !state.letters.is_empty() {
        letter::insert(
            connection,
            view,
            hold,
            projection.code_version(),
            &state.letters,
        )
        .await?;
    }
    if !state.unknown_types.is_empty() {
        let names: Vec<String> = state.unknown_types.keys().cloned().collect();
        let counts: Vec<i64> = state.unknown_types.values().copied().collect();
        sqlx::query_file!(
            "src/projector/sql/count_unknown_types.sql",
            view.domain,
            view.version,
            hold.log_id,
            &names,
            &counts
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Deletes rows of ids that the log's time has forgotten. Says whether there may be more.
///
/// # Errors
/// The database failed.
pub async fn forget(projector: &Projector, hold: &Hold) -> Result<bool, sqlx::Error> {
    let Some(now) = hold.log_time else {
        return Ok(false);
    };
    let mut transaction = projector.pool.begin().await?;
    sqlx::query!("SELECT set_config('search_path', $1, true)", hold.schema)
        .fetch_one(&mut *transaction)
        .await?;
    let done = sqlx::query_file!(
        "src/projector/sql/forget_events.sql",
        hold.log_id,
        now - projector.dedupe
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(done.rows_affected() > 0)
}
