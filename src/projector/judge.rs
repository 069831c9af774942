//! What becomes of each record: applied, skipped, a duplicate, or a dead letter. Pure: no I/O, no clock.
//!
//! Records are judged in log order, because a judgement depends on those before it: whether the event id was applied,
//! whether the key is parked. [`Judgement`] is what a batch has come to so far; the caller notes a [`Checkpoint`] before
//! it applies events, and goes back to it when the transaction refuses them. docs/events.md has the order of judgement.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::dead_letters::{
    BLOCKED, BYTES_LOST, Cause, Class, DeadLetter, Discard, USER_DELETED, record_time,
};
use super::ids::{DEDUPE_OFFSETS, SeenEvent};
use super::progress::{Books, Claim};
use super::{FeedPosition, NewEvent, Projection};
use crate::event::{Bad, Envelope, Event, EventType, Payload, Record, TypeName, hash16, text};

/// No record moves stream time by more.
const MAX_STREAM_TIME_STEP: TimeDelta = TimeDelta::days(1);
/// Unknown types are counted by so many characters of their name.
const TYPE_NAME_CHARS: usize = 100;

/// A record, with all that can be read from it alone.
pub struct Candidate<'r> {
    pub record: &'r Record,
    /// The hash of the record's key.
    pub key: Option<Uuid>,
    pub attempt: Attempt,
    pub reading: Reading<'r>,
}

/// Whether a record is judged in its turn or again, as a dead letter.
#[derive(Debug, Clone, Copy)]
pub enum Attempt {
    /// In its turn. It moves stream time, and its changes take the feed position of its own offset.
    First,
    /// Again. Stream time is what it was after the record, and the changes take a feed position that no reader has passed.
    Retry {
        stream_time: DateTime<Utc>,
        feed_position: FeedPosition,
        /// Whether it has parked its key so far. If a retry reads its type for the first time, it parks
        /// its key as that type does.
        parks: bool,
        /// Whether an earlier dead letter that is not judged with it parks its key.
        waits: bool,
    },
}

/// What a record says to one projection.
pub enum Reading<'r> {
    Tombstone,
    /// The value is longer than the configured maximum, and was not parsed.
    Oversized,
    /// A dead letter whose bytes are neither in the database nor in the log any longer.
    BytesLost,
    /// The event type can't be read.
    Unreadable(Bad),
    /// The projection is not interested in the type. `unknown` is its name if the catalogue lacks it.
    Uninteresting {
        unknown: Option<String>,
    },
    /// The projection is interested. The id is read apart from the rest: of a duplicate nothing else is looked at.
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
                Err(bad) => Reading::Unreadable(bad),
                Ok(envelope) if !projection.is_interested(envelope.event_type()) => {
                    let unknown = match envelope.event_type() {
                        TypeName::Unknown { name } => Some(text::excerpt(name, TYPE_NAME_CHARS)),
                        TypeName::Known { .. } => None,
                    };
                    Reading::Uninteresting { unknown }
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

    /// Whether the record may change more than the books. One that does not is only counted, except that an unknown type is
    /// counted by name, and a discarded record becomes a closed dead letter.
    pub fn concerns_the_view(&self) -> bool {
        !matches!(self, Reading::Tombstone | Reading::Uninteresting { .. })
    }
}

impl<'r> Candidate<'r> {
    /// A record in its turn.
    pub fn first(record: &'r Record, reading: Reading<'r>) -> Self {
        Candidate {
            record,
            key: record.key.as_deref().map(hash16),
            attempt: Attempt::First,
            reading,
        }
    }

    /// The hash of the event id, if the record is an event of interest with a usable id.
    pub fn id_hash(&self) -> Option<Uuid> {
        match &self.reading {
            Reading::Event { id, .. } => id.as_ref().map(|(_, hash)| *hash),
            _ => None,
        }
    }

    /// Whether the record deletes a user, as far as its type says.
    pub fn is_deletion(&self) -> bool {
        let deletion = EventType::UserDeleted;
        matches!(self.event_type(), Some(TypeName::Known { event_type, .. }) if *event_type == deletion)
    }

    /// Stream time after this record, given the stream time before it.
    fn stream_time(&self, before: DateTime<Utc>) -> DateTime<Utc> {
        match self.attempt {
            Attempt::First => advance_stream_time(before, record_time(self.record)),
            Attempt::Retry { stream_time, .. } => stream_time,
        }
    }

    fn feed_position(&self) -> FeedPosition {
        match self.attempt {
            Attempt::First => FeedPosition::first_attempt(self.record.offset),
            Attempt::Retry { feed_position, .. } => feed_position,
        }
    }

    /// Whether later events of its key wait behind it, should it fail.
    fn parks(&self, projection: &dyn Projection) -> bool {
        match self.attempt {
            Attempt::First => projection.parks(self.event_type()),
            Attempt::Retry { parks, .. } => {
                let event_type = self.event_type();
                parks || event_type.is_some() && projection.parks(event_type)
            }
        }
    }

    fn event_type(&self) -> Option<&TypeName> {
        match &self.reading {
            Reading::Event { envelope, .. } => Some(envelope.event_type()),
            _ => None,
        }
    }

    /// A dead letter of this record, with what is readable of it. The record may be good.
    fn dead_letter(&self, reason: &'static str, class: Class, parks: bool) -> DeadLetter {
        let (event_id, event_type, occurred_at) = match &self.reading {
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
        DeadLetter {
            record: self.record.clone(),
            stream_time: DateTime::UNIX_EPOCH,
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
}

/// What became of a record, as the books count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Duplicate,
    Skipped,
    DeadLettered,
}

/// What a batch has come to so far.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Stream time after the last record.
    pub stream_time: DateTime<Utc>,
    /// One for each candidate, in their order.
    pub outcomes: Vec<Outcome>,
    /// The event ids that the batch applied, by hash.
    pub applied_ids: BTreeMap<Uuid, SeenEvent>,
    /// The keys that later events wait behind.
    pub parked: HashSet<Uuid>,
    /// The keys of deleted users, each with the offset of the deletion: it closes and erases all dead letters before it.
    pub deleted: Vec<(Uuid, i64)>,
    pub dead_letters: Vec<DeadLetter>,
    /// Names of types that the catalogue lacks, and how often each came.
    pub unknown_types: BTreeMap<String, i64>,
}

impl Judgement {
    /// The outcomes counted. Holes are the caller's to add.
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
}

/// A change of a judgement's maps, or of a dead letter in it, with what undoes the change. Lists only grow: a checkpoint has
/// their lengths.
enum Change {
    Parked(Uuid),
    Unparked(Uuid),
    /// An event id was applied that had been applied before, or not.
    Applied(Uuid, Option<SeenEvent>),
    CountedType(String),
    /// The dead letter at this index was closed.
    Closed(usize),
}

/// A state of a judgement to go back to. Going back costs what was judged since.
pub struct Checkpoint {
    stream_time: DateTime<Utc>,
    outcomes: usize,
    deleted: usize,
    dead_letters: usize,
    changes: usize,
}

/// Judges the records of one log for one projection.
pub struct Judge<'b> {
    pub projection: &'b dyn Projection,
    log_id: i32,
    dedupe: TimeDelta,
    /// What operators discarded of the log, by offset.
    discards: &'b HashMap<i64, Discard>,
    /// The candidates' ids that were applied before, by hash.
    pub seen: HashMap<Uuid, SeenEvent>,
    pub judgement: Judgement,
    /// What `go_back` undoes.
    changes: Vec<Change>,
}

impl<'b> Judge<'b> {
    /// `parked` are the keys that candidates wait behind; `discards` what operators took out, by offset. A judge has seen
    /// no event id until the caller sets `seen`.
    pub fn new(
        projection: &'b dyn Projection,
        claim: &Claim,
        dedupe: TimeDelta,
        parked: HashSet<Uuid>,
        discards: &'b HashMap<i64, Discard>,
    ) -> Self {
        Judge {
            projection,
            log_id: claim.log_id,
            dedupe,
            discards,
            seen: HashMap::new(),
            judgement: Judgement {
                stream_time: claim.stream_time,
                parked,
                ..Judgement::default()
            },
            changes: Vec::new(),
        }
    }

    /// The state of the judgement now.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            stream_time: self.judgement.stream_time,
            outcomes: self.judgement.outcomes.len(),
            deleted: self.judgement.deleted.len(),
            dead_letters: self.judgement.dead_letters.len(),
            changes: self.changes.len(),
        }
    }

    /// Undoes what was judged since the checkpoint.
    pub fn go_back(&mut self, checkpoint: &Checkpoint) {
        let judgement = &mut self.judgement;
        for change in self.changes.drain(checkpoint.changes..).rev() {
            match change {
                Change::Parked(key) => drop(judgement.parked.remove(&key)),
                Change::Unparked(key) => drop(judgement.parked.insert(key)),
                Change::Applied(id, Some(before)) => {
                    judgement.applied_ids.insert(id, before);
                }
                Change::Applied(id, None) => drop(judgement.applied_ids.remove(&id)),
                Change::CountedType(name) => match judgement.unknown_types.get_mut(&name) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(judgement.unknown_types.remove(&name)),
                },
                Change::Closed(index) => judgement.dead_letters[index].resolution = None,
            }
        }
        judgement.stream_time = checkpoint.stream_time;
        judgement.outcomes.truncate(checkpoint.outcomes);
        judgement.deleted.truncate(checkpoint.deleted);
        judgement.dead_letters.truncate(checkpoint.dead_letters);
    }

    /// Decides what becomes of each candidate, and returns the events to apply, in order.
    pub fn judge(&mut self, candidates: &[Candidate<'_>]) -> Vec<NewEvent> {
        let candidates = candidates.iter();
        candidates
            .filter_map(|candidate| self.judge_one(candidate))
            .collect()
    }

    fn judge_one(&mut self, candidate: &Candidate<'_>) -> Option<NewEvent> {
        self.judgement.stream_time = candidate.stream_time(self.judgement.stream_time);
        if let Some(discard) = self.discards.get(&candidate.record.offset) {
            self.discard(candidate, discard);
            return None;
        }
        match &candidate.reading {
            Reading::Tombstone => self.judgement.outcomes.push(Outcome::Skipped),
            Reading::Uninteresting { unknown } => {
                self.judgement.outcomes.push(Outcome::Skipped);
                if let Some(name) = unknown {
                    let count = self.judgement.unknown_types.entry(name.clone());
                    *count.or_default() += 1;
                    self.changes.push(Change::CountedType(name.clone()));
                }
            }
            Reading::Oversized => {
                let parks = candidate.parks(self.projection);
                let mut dead_letter = candidate.dead_letter("too_large", Class::Data, parks);
                dead_letter.without_value = true;
                self.park(dead_letter, candidate);
            }
            Reading::BytesLost => {
                let parks = candidate.parks(self.projection);
                let (reason, class) = match self.parked_key(candidate, parks) {
                    Some(_) => (BLOCKED, Class::Blocked),
                    None => (BYTES_LOST, Class::Data),
                };
                self.park(candidate.dead_letter(reason, class, parks), candidate);
            }
            Reading::Unreadable(bad) => {
                let parks = candidate.parks(self.projection);
                let dead_letter = candidate.dead_letter("", Class::Data, parks).because(bad);
                self.park(dead_letter, candidate);
            }
            Reading::Event { envelope, id } => {
                return self.judge_event(candidate, envelope, id.as_ref());
            }
        }
        None
    }

    /// Judges an event of interest, and returns it if it is to be applied.
    fn judge_event(
        &mut self,
        candidate: &Candidate<'_>,
        envelope: &Envelope<'_>,
        id: Option<&(String, Uuid)>,
    ) -> Option<NewEvent> {
        let parks = candidate.parks(self.projection);
        let parked = self.parked_key(candidate, parks);
        let seen = id.is_some_and(|(_, hash)| self.is_seen(*hash, candidate.record.offset));
        if seen && parked.is_none() {
            self.judgement.outcomes.push(Outcome::Duplicate);
            return None;
        }
        let event = match (envelope.decode(), parked) {
            (Ok(event), None) => event,
            // A deletion waits behind no dead letter of its own user.
            (Ok(event), Some(key)) if deleted_key(&event) == Some(key) => {
                if seen {
                    self.judgement.outcomes.push(Outcome::Duplicate);
                    return None;
                }
                event
            }
            (_, Some(_)) => {
                let dead_letter = candidate.dead_letter(BLOCKED, Class::Blocked, parks);
                self.park(dead_letter, candidate);
                return None;
            }
            (Err(bad), None) => {
                let dead_letter = candidate.dead_letter("", Class::Data, parks).because(&bad);
                self.park(dead_letter, candidate);
                return None;
            }
        };
        if let Some((_, hash)) = id {
            let stream_time = self.judgement.stream_time;
            let applied = SeenEvent {
                offset: candidate.record.offset,
                applied_time: record_time(candidate.record)
                    .map_or(stream_time, |time| time.max(stream_time)),
            };
            let before = self.judgement.applied_ids.insert(*hash, applied);
            self.changes.push(Change::Applied(*hash, before));
        }
        if let Some(key) = deleted_key(&event) {
            self.delete(key, candidate.record.offset);
        }
        self.judgement.outcomes.push(Outcome::Applied);
        Some(NewEvent {
            event,
            log_id: self.log_id,
            offset: candidate.record.offset,
            feed_position: candidate.feed_position(),
        })
    }

    /// Whether the record at `offset` repeats an event that was applied: within the window of offsets, or of stream time.
    /// An id that was applied from a later offset counts as seen: a dead letter may be retried after its duplicate was applied.
    fn is_seen(&self, hash: Uuid, offset: i64) -> bool {
        let in_batch = self.judgement.applied_ids.get(&hash);
        let Some(applied) = in_batch.or_else(|| self.seen.get(&hash)) else {
            return false;
        };
        offset - applied.offset < DEDUPE_OFFSETS
            || self.judgement.stream_time - applied.applied_time < self.dedupe
    }

    /// The candidate's key, if an earlier dead letter parks it and the candidate, which would park it too, waits behind that.
    fn parked_key(&self, candidate: &Candidate<'_>, parks: bool) -> Option<Uuid> {
        let waits = matches!(candidate.attempt, Attempt::Retry { waits: true, .. });
        let key = candidate.key.filter(|_| parks)?;
        (waits || self.judgement.parked.contains(&key)).then_some(key)
    }

    /// A record that can't be applied even alone becomes a dead letter.
    pub fn give_up(&mut self, candidate: &Candidate<'_>, cause: &Cause) {
        self.judgement.stream_time = candidate.stream_time(self.judgement.stream_time);
        let parks = candidate.parks(self.projection);
        let mut dead_letter = candidate.dead_letter(cause.reason, cause.class, parks);
        dead_letter.field.clone_from(&cause.field);
        self.park(dead_letter, candidate);
    }

    /// An operator discarded the record, perhaps in another version of the view: it blocks nothing.
    fn discard(&mut self, candidate: &Candidate<'_>, discard: &Discard) {
        let mut dead_letter = candidate.dead_letter("", discard.class, false);
        dead_letter.reason = discard.reason.clone().into();
        dead_letter.field = discard.field.clone();
        dead_letter.resolution = Some(discard.resolution.clone().into());
        self.push(dead_letter);
    }

    fn park(&mut self, dead_letter: DeadLetter, candidate: &Candidate<'_>) {
        if let (Some(key), true) = (candidate.key, dead_letter.parks)
            && self.judgement.parked.insert(key)
        {
            self.changes.push(Change::Parked(key));
        }
        self.push(dead_letter);
    }

    fn push(&mut self, dead_letter: DeadLetter) {
        self.judgement.outcomes.push(Outcome::DeadLettered);
        self.judgement.dead_letters.push(DeadLetter {
            stream_time: self.judgement.stream_time,
            ..dead_letter
        });
    }

    /// The key's user is deleted: dead letters before are closed, and the key is live again.
    fn delete(&mut self, key: Uuid, offset: i64) {
        if self.judgement.parked.remove(&key) {
            self.changes.push(Change::Unparked(key));
        }
        self.judgement.deleted.push((key, offset));
        for (index, dead_letter) in self.judgement.dead_letters.iter_mut().enumerate() {
            if dead_letter.resolution.is_none()
                && dead_letter.record.key.as_deref().map(hash16) == Some(key)
            {
                dead_letter.resolution = Some(USER_DELETED.into());
                self.changes.push(Change::Closed(index));
            }
        }
    }
}

/// The key of the user whom an event deletes.
fn deleted_key(event: &Event) -> Option<Uuid> {
    match &event.payload {
        Payload::UserDeleted(deleted) => Some(hash16(deleted.user_id.as_bytes())),
        _ => None,
    }
}

/// Stream time after a record: each record moves it towards its own timestamp, by at most a day, never back.
fn advance_stream_time(before: DateTime<Utc>, record: Option<DateTime<Utc>>) -> DateTime<Utc> {
    record.map_or(before, |record| {
        record.min(before + MAX_STREAM_TIME_STEP).max(before)
    })
}

#[cfg(test)]
mod tests;
