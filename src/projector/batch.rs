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

use super::dead_letters::{self, BLOCKED, Class, LOST, Letter, USER_DELETED, record_time};
use super::pause;
use super::progress::{self, Books, Discard, Hold};
use super::{FeedPosition, NewEvent, Projection, Projector, Target, View};
use crate::db::{self, ErrorClass};
use crate::event::{Envelope, Payload, Record, TypeName, hash16};

/// No record moves the log's time by more.
const MAX_STREAM_TIME_STEP: TimeDelta = TimeDelta::days(1);
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
pub enum End {
    /// The books, and why the version is to be paused, if it is.
    Committed(Books, Option<String>),
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
) -> Result<End, sqlx::Error> {
    let mut transaction = projector.pool.begin().await?;
    if !progress::lock(&mut transaction, view, hold).await? {
        return Ok(End::Fenced);
    }
    let candidates: Vec<Candidate<'_>> = batch
        .records
        .iter()
        .map(|record| Candidate {
            record,
            key: record.key.as_deref().map(hash16),
            turn: Turn::Now,
            reading: Reading::of(record, projection, projector.max_value_bytes),
        })
        .collect();
    let parked = hold.parked.clone();
    let dedupe = projector.dedupe;
    let run = Run::new(projection, view, hold, dedupe, parked);
    let state = run.judge_and_apply(&mut transaction, &candidates).await?;

    state
        .write_bookkeeping(&mut transaction, view, hold)
        .await?;
    let mut piled_up = None;
    if !state.letters.is_empty() {
        let code_version = projection.code_version();
        dead_letters::insert(
            &mut transaction,
            view,
            hold.log_id,
            code_version,
            &state.letters,
        )
        .await?;
        let keys = state.letters.iter().filter_map(|l| l.record.key.as_deref());
        let keys: HashSet<Uuid> = keys.map(hash16).collect();
        let keys: Vec<Uuid> = keys.into_iter().collect();
        let record = &state.letters[0].record;
        let place = (&*record.topic, record.partition);
        let (log_id, next_offset) = (hold.log_id, batch.next_offset);
        let connection = &mut transaction;
        piled_up = pause::piled_up(connection, view, log_id, place, next_offset, &keys).await?;
    }
    let last = batch.records.last();
    let last = last.map(|record| (record.offset, record.fingerprint()));
    let mut books = state.books();
    books.holes = batch.next_offset - hold.next_offset - books.read;
    progress::advance(
        &mut transaction,
        view,
        hold,
        batch.next_offset,
        state.stream_time,
        &books,
        last,
    )
    .await?;
    transaction.commit().await?;

    hold.next_offset = batch.next_offset;
    hold.stream_time = state.stream_time;
    hold.parked = state.parked;
    Ok(End::Committed(books, piled_up))
}

/// A record with what can be told of it without knowing what came before.
pub struct Candidate<'r> {
    pub record: &'r Record,
    /// The hash of its key.
    pub key: Option<Uuid>,
    pub turn: Turn,
    pub reading: Reading<'r>,
}

/// When it is a record's turn.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    /// Now: it moves the log's time, and its change lies at its own place.
    Now,
    /// It was before. The log's time was this then, and its change lies where nobody has read yet.
    Missed {
        stream_time: Option<DateTime<Utc>>,
        place: FeedPosition,
    },
}

pub enum Reading<'r> {
    Tombstone,
    Oversized,
    /// A dead letter whose bytes are nowhere any more.
    Lost,
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

impl<'r> Reading<'r> {
    pub fn of(record: &'r Record, projection: &dyn Projection, max_value_bytes: usize) -> Self {
        match &record.value {
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
        }
    }
}

impl Candidate<'_> {
    /// The log's time behind the record, which was `now` before it.
    fn stream_time(&self, now: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        match self.turn {
            Turn::Now => later(now, record_time(self.record)),
            Turn::Missed { stream_time, .. } => stream_time,
        }
    }

    /// Where its change lies.
    fn feed_position(&self) -> FeedPosition {
        match self.turn {
            Turn::Now => FeedPosition::first_attempt(self.record.offset),
            Turn::Missed { place, .. } => place,
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Duplicate,
    Skipped,
    DeadLettered,
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
        .map(|row| (row.event_hash, row.stream_time))
        .collect())
}

/// What a batch has come to so far. Cloned before each attempt, and put back when the attempt is undone.
#[derive(Default, Clone)]
pub struct State {
    pub stream_time: Option<DateTime<Utc>>,
    /// What became of each candidate, in their order.
    pub outcomes: Vec<Outcome>,
    /// The ids that this batch applied, with their offsets and the log's time after them.
    applied_ids: BTreeMap<Uuid, (i64, Option<DateTime<Utc>>)>,
    pub parked: HashSet<Uuid>,
    /// Keys whose user was deleted while letters were waiting, and where: all letters before are closed.
    pub closed: Vec<(Uuid, i64)>,
    pub letters: Vec<Letter>,
    unknown_types: BTreeMap<String, i64>,
}

impl State {
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        for outcome in &self.outcomes {
            books.read += 1;
            *match outcome {
                Outcome::Applied => &mut books.applied,
                Outcome::Duplicate => &mut books.duplicates,
                Outcome::Skipped => &mut books.skipped,
                Outcome::DeadLettered => &mut books.dead_lettered,
            } += 1;
        }
        books
    }

    /// Writes what every view has beside its own rows: remembered ids, closed letters, counts of unknown types.
    ///
    /// # Errors
    /// The database failed.
    pub async fn write_bookkeeping(
        &self,
        connection: &mut PgConnection,
        view: &View,
        hold: &Hold,
    ) -> Result<(), sqlx::Error> {
        if !self.applied_ids.is_empty() {
            let hashes: Vec<Uuid> = self.applied_ids.keys().copied().collect();
            let offsets: Vec<i64> = self
                .applied_ids
                .values()
                .map(|(offset, _)| *offset)
                .collect();
            let times: Vec<Option<DateTime<Utc>>> =
                self.applied_ids.values().map(|(_, at)| *at).collect();
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
        if !self.closed.is_empty() {
            let keys: Vec<Uuid> = self.closed.iter().map(|(key, _)| *key).collect();
            let offsets: Vec<i64> = self.closed.iter().map(|(_, offset)| *offset).collect();
            sqlx::query_file!(
                "src/projector/sql/close_dead_letters.sql",
                view.domain,
                view.version,
                hold.log_id,
                &keys,
                &offsets
            )
            .execute(&mut *connection)
            .await?;
        }
        if !self.unknown_types.is_empty() {
            let names: Vec<String> = self.unknown_types.keys().cloned().collect();
            let counts: Vec<i64> = self.unknown_types.values().copied().collect();
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
}

/// Candidates on their way into a view, within a transaction that holds the log's progress row.
pub struct Run<'b> {
    projection: &'b dyn Projection,
    view: &'b View,
    hold: &'b Hold,
    dedupe: TimeDelta,
    seen: HashMap<Uuid, Option<DateTime<Utc>>>,
    state: State,
}

impl<'b> Run<'b> {
    /// `parked` are the keys that candidates have to wait behind.
    pub fn new(
        projection: &'b dyn Projection,
        view: &'b View,
        hold: &'b Hold,
        dedupe: TimeDelta,
        parked: HashSet<Uuid>,
    ) -> Self {
        let state = State {
            stream_time: hold.stream_time,
            parked,
            ..State::default()
        };
        Run {
            projection,
            view,
            hold,
            dedupe,
            seen: HashMap::new(),
            state,
        }
    }

    /// Judges and applies candidates, in their order.
    ///
    /// # Errors
    /// Transient: nothing of the transaction may stay.
    pub async fn judge_and_apply(
        mut self,
        connection: &mut PgConnection,
        candidates: &[Candidate<'_>],
    ) -> Result<State, sqlx::Error> {
        self.seen = seen_events(connection, self.hold.log_id, candidates).await?;
        self.process(connection, candidates).await?;
        Ok(self.state)
    }

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
        events: &[NewEvent],
    ) -> Result<Result<(), ErrorClass>, sqlx::Error> {
        if events.is_empty() {
            return Ok(Ok(()));
        }
        let mut savepoint = connection.begin().await?;
        let mut target = Target {
            connection: &mut savepoint,
            log_id: self.hold.log_id,
            log_count: self.hold.logs,
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
    fn judge(&mut self, candidates: &[Candidate<'_>]) -> Vec<NewEvent> {
        let mut events = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            self.state.stream_time = candidate.stream_time(self.state.stream_time);
            if let Some(discard) = self.hold.discarded.get(&candidate.record.offset) {
                self.discard(candidate, discard);
                continue;
            }
            match &candidate.reading {
                Reading::Tombstone => self.state.outcomes.push(Outcome::Skipped),
                Reading::Skipped { unknown } => {
                    self.state.outcomes.push(Outcome::Skipped);
                    if let Some(name) = unknown {
                        *self.state.unknown_types.entry(name.clone()).or_default() += 1;
                    }
                }
                Reading::Oversized => {
                    let parks = self.projection.parks(None);
                    let mut letter = letter_of(candidate, "too_large", Class::Data, parks);
                    letter.without_value = true;
                    self.park(letter, candidate);
                }
                Reading::Lost => {
                    let parks = self.projection.parks(None);
                    let waits = candidate
                        .key
                        .is_some_and(|key| self.state.parked.contains(&key));
                    let (reason, class) = match waits {
                        true => (BLOCKED, Class::Blocked),
                        false => (LOST, Class::Data),
                    };
                    self.park(letter_of(candidate, reason, class, parks), candidate);
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

    /// An operator took the record out, maybe in another version of the view: it holds nothing back.
    fn discard(&mut self, candidate: &Candidate<'_>, discard: &Discard) {
        let mut letter = letter_of(candidate, "", discard.class, false);
        letter.reason = discard.reason.clone().into();
        letter.field = discard.field.clone();
        letter.resolution = Some(discard.resolution.clone().into());
        self.write(letter);
    }

    /// Decides on an event of interest: it is returned if it is to be applied.
    fn judge_event(
        &mut self,
        candidate: &Candidate<'_>,
        envelope: &Envelope<'_>,
        id: Option<&(String, Uuid)>,
    ) -> Option<NewEvent> {
        let parks = self.projection.parks(Some(envelope.event_type()));
        let parked = candidate
            .key
            .filter(|key| parks && self.state.parked.contains(key));
        let seen = id.is_some_and(|(_, hash)| self.is_seen(*hash));
        if seen && parked.is_none() {
            self.state.outcomes.push(Outcome::Duplicate);
            return None;
        }
        let event = match (envelope.decode(), parked) {
            (Ok(event), None) => event,
            (Ok(event), Some(key)) if matches!(event.payload, Payload::UserDeleted(_)) => {
                if seen {
                    self.state.outcomes.push(Outcome::Duplicate);
                    return None;
                }
                self.close(key, candidate.record.offset);
                event
            }
            (_, Some(_)) => {
                let letter = letter_of(candidate, BLOCKED, Class::Blocked, parks);
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
            let at = self.state.stream_time;
            self.state
                .applied_ids
                .insert(*hash, (candidate.record.offset, at));
        }
        self.state.outcomes.push(Outcome::Applied);
        Some(NewEvent {
            event,
            log_id: self.hold.log_id,
            offset: candidate.record.offset,
            feed_position: candidate.feed_position(),
        })
    }

    /// Whether an id was applied, and is not forgotten by the log's time; what was applied long after is another event's.
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
        match (at, self.state.stream_time) {
            (Some(at), Some(now)) => (now - *at).abs() < self.dedupe,
            _ => true,
        }
    }

    fn park(&mut self, letter: Letter, candidate: &Candidate<'_>) {
        if let (Some(key), true) = (candidate.key, letter.parks) {
            self.state.parked.insert(key);
        }
        self.write(letter);
    }

    fn write(&mut self, letter: Letter) {
        self.state.outcomes.push(Outcome::DeadLettered);
        self.state.letters.push(Letter {
            stream_time: self.state.stream_time,
            ..letter
        });
    }

    /// The key's user was deleted: its letters are closed, and it is live again.
    fn close(&mut self, key: Uuid, offset: i64) {
        self.state.parked.remove(&key);
        self.state.closed.push((key, offset));
        for letter in &mut self.state.letters {
            if letter.record.key.as_deref().map(hash16) == Some(key) {
                letter.resolution.get_or_insert(USER_DELETED.into());
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
        self.state.stream_time = candidate.stream_time(self.state.stream_time);
        self.park(
            letter_of(candidate, reason, class, self.projection.parks(event_type)),
            candidate,
        );
    }
}

/// The log's time after a record: the largest so far, moved by none for more than a day.
fn later(
    stream_time: Option<DateTime<Utc>>,
    record: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    match (stream_time, record) {
        (Some(now), Some(record)) if record > now => Some(record.min(now + MAX_STREAM_TIME_STEP)),
        (None, record) => record,
        (now, _) => now,
    }
}

/// A letter with what can be told of a record that may be good.
fn letter_of(candidate: &Candidate<'_>, reason: &'static str, class: Class, parks: bool) -> Letter {
    let (event_id, event_type, occurred_at) = match &candidate.reading {
        Reading::Event { envelope, id } => {
            let event_type = match envelope.event_type() {
                TypeName::Known { event_type, .. } => event_type.as_str().to_owned(),
                TypeName::Unknown { name } => name.clone(),
            };
            let id = id.as_ref().map(|(id, _)| id.clone());
            (id, Some(event_type), envelope.occurred_at())
        }
        _ => (None, None, None),
    };
    Letter {
        record: candidate.record.clone(),
        stream_time: None,
        event_id,
        event_type,
        occurred_at,
        reason: reason.into(),
        field: None,
        class,
        parks,
        without_value: false,
        resolution: None,
    }
}

/// Deletes rows of ids that the log's time has forgotten. Says whether there may be more.
///
/// # Errors
/// The database failed.
pub async fn forget(projector: &Projector, view: &View, hold: &Hold) -> Result<bool, sqlx::Error> {
    let Some(now) = hold.stream_time else {
        return Ok(false);
    };
    let mut transaction = projector.pool.begin().await?;
    // Names may lead to another version's tables by now.
    if !progress::lock(&mut transaction, view, hold).await? {
        return Ok(false);
    }
    let done = sqlx::query_file!(
        "src/projector/sql/expire_event_ids.sql",
        view.domain,
        view.version,
        hold.log_id,
        now,
        projector.dedupe as _,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(done.rows_affected() > 0)
}
