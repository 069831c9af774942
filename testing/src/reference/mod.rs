//! The reference fold: computes the expected answers and books from the raw records, one after another.
//!
//! It shares no code with the program. [`Fold`] judges records for any domain; a [`View`] selects events and
//! folds them: [`Customers`] for order, [`Parcels`] for fulfillment, [`Documents`] for search, [`Profiles`] for
//! personalization, [`Metrics`] for analytics, [`Notifications`] for notification, [`Trail`] for audit. The state at an
//! instant is a replay of the events that happened until then. A domain is one line in [`Folds::new`].
//!
//! Where the contract leaves room, the fold decides:
//!
//! - JSON nested too deep, or with a number outside f64, is bad wherever that is, unknown fields included; type and
//!   id are readable if they are not it. A body nested 128 deep is good, 129 is not; wrappings do not count.
//! - Any of the members that decide over the envelope decides even if it is empty, before an outbox's headers do.
//! - Only CloudEvents may prefix a type; in other envelopes a prefixed name is an unknown type. A version that
//!   is 0 or has a leading zero makes the type unknown.
//! - Stream time of a partition begins in 1970; each record, whatever its verdict, moves it forward to its own
//!   timestamp, by at most a day. Records are counted instead of offsets, because holes only make an id older.
//! - A redelivered UserDeleted whose key is parked is a duplicate: it closes no dead letter, and the key stays
//!   parked.
//! - A retried dead letter is judged at its own offset: with the stream time after its record.
//! - UserRegistered does not change emailVerified if its email equals the known one and that is not stale. Any
//!   email that arrives while the known one is stale or absent sets it to false, even the same text.
//! - An address that only UserAddressUpdated has named is known: a later UserAddressAdded with a false flag
//!   unsets its default.
//! - The flags of an address say whether the view's default names it. They are absent only after a deletion.
//! - A fullAddress replaces every field but the type, fields of the same event's `updatedFields` included;
//!   afterwards no field but the type is stale. Without a country it takes the country of its
//!   UserAddressAdded.
//! - UserDefaultAddressChanged moves updatedAt of the address that it names, even if that is the default
//!   already.
//! - After a soft deletion the addresses that existed (not deleted ones) remain with id and country.
//! - An event that names the present default does not change it and makes no feed entry.
//! - `preferences` and `communicationPreferences` each have the limit of 64 KiB. Below them, a value goes where its
//!   dotted name leads: what is no object on the way is replaced by one; clearing a member keeps what held it.
//!   A name is stale until it or one that it lies below gets a value. Where the stale names of an object are longer
//!   than 64 KiB together, the object as a whole is stale instead.
//! - An address becomes known when an event first brings a part of it, UserAddressUpdated included, and again when
//!   it is added after its deletion. A default that names an unknown address gives no location.
//! - In audit a dead letter whose type could not be read parks nothing, until a retry reads its type: then it parks
//!   its key if it fails, and waits where an earlier one does.
//! - UserUpdated may change every string of a user: fields that the catalogue names for UserProfileUpdated, too. Of
//!   these, a value that is no string changes nothing.

mod addresses;
mod analytics;
mod audit;
mod event;
mod feed;
mod fields;
mod fulfillment;
mod json;
mod notification;
mod order;
mod personalization;
mod search;
mod text;
mod validation;

pub use addresses::Addresses;
pub use analytics::{METRICS, Metrics};
pub use audit::{Filters, KINDS, Standing, Trail};
pub use event::{Change, Event, event_of};
pub use fulfillment::{Parcels, STATUSES};
pub use notification::{Notifications, TEMPLATES, Wanted};
pub use order::Customers;
pub use personalization::{Profiles, Segment, leaves};
pub use search::{Documents, Index, Query, words};
pub use validation::{matches, validate};

use std::any::Any;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::broker::Record;
use event::{Content, OBJECTS, Type, UNKNOWN};

/// A domain's part of the fold.
pub trait View: Any + Send + Sync {
    /// The domain's name.
    fn domain(&self) -> &'static str;
    /// Whether it is interested in a type of the catalogue, or in types that the catalogue does not have (`UNKNOWN`).
    fn wants(&self, event: &str) -> bool;
    /// Whether a dead letter of this type parks its key and waits behind others of it; of no type if it could not be read.
    fn parks(&self, _event: Option<&str>) -> bool {
        true
    }
    /// Whether the view can hold what the event brings. If not, the event is bad.
    fn has_room(&self, _event: &Event) -> bool {
        true
    }
    fn apply(&mut self, event: &Event);
}

/// The outcome for a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Applied,
    Duplicate,
    Skipped,
    DeadLettered,
}

/// The books of a partition, and its open dead letters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Books {
    pub read: i64,
    pub applied: i64,
    pub duplicates: i64,
    pub skipped: i64,
    pub dead_lettered: i64,
    pub dead_letters: i64,
    pub parked_keys: i64,
}

/// One domain's fold.
pub struct Fold {
    view: Box<dyn View>,
    max_value_bytes: usize,
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Default)]
struct Partition {
    stream_time: i64,
    /// By event id: the number of the record that was applied, and the later of its timestamp and the stream
    /// time after it.
    seen: HashMap<String, (i64, i64)>,
    /// Open dead letters by record number.
    dead_letters: BTreeMap<i64, DeadLetter>,
    /// How many open dead letters each key has.
    parked: HashMap<Vec<u8>, i64>,
    books: Books,
}

/// A record that could not be applied, or waits behind one.
#[derive(Clone)]
struct DeadLetter {
    record: Record,
    /// The stream time after the record.
    then: i64,
    /// Whether it parks its key.
    parks: bool,
}

impl DeadLetter {
    /// The key that it parks.
    fn parked_key(&self) -> Option<&Vec<u8>> {
        self.record.key.as_ref().filter(|_| self.parks)
    }
}

impl Books {
    fn of(&mut self, verdict: Verdict) -> &mut i64 {
        match verdict {
            Verdict::Applied => &mut self.applied,
            Verdict::Duplicate => &mut self.duplicates,
            Verdict::Skipped => &mut self.skipped,
            Verdict::DeadLettered => &mut self.dead_lettered,
        }
    }
}

impl Partition {
    /// The stream time after a record.
    fn moves_to(&mut self, timestamp: i64) -> i64 {
        let before = self.stream_time;
        self.stream_time = timestamp.clamp(before, before + DAY);
        self.stream_time
    }

    fn is_parked(&self, record: &Record) -> bool {
        let key = record.key.as_ref();
        key.is_some_and(|key| self.parked.contains_key(key))
    }

    fn add(&mut self, number: i64, dead_letter: DeadLetter) {
        if let Some(key) = dead_letter.parked_key() {
            *self.parked.entry(key.clone()).or_default() += 1;
        }
        self.dead_letters.insert(number, dead_letter);
        self.count();
    }

    fn remove(&mut self, number: i64) -> DeadLetter {
        let dead_letter = self
            .dead_letters
            .remove(&number)
            .expect("an open dead letter");
        if let Some(key) = dead_letter.parked_key() {
            let count = self.parked.get_mut(key).expect("a parked key");
            *count -= 1;
            if *count == 0 {
                self.parked.remove(key);
            }
        }
        self.count();
        dead_letter
    }

    /// Closes the dead letters of a key that come before a record.
    fn close(&mut self, key: &[u8], before: i64) {
        let dead_letters = self.dead_letters.range(..before);
        let of_key =
            dead_letters.filter(|(_, dead_letter)| dead_letter.record.key.as_deref() == Some(key));
        let closed: Vec<i64> = of_key.map(|(number, _)| *number).collect();
        for number in closed {
            self.remove(number);
        }
    }

    /// Whether an open dead letter before a record parks this key.
    fn waits(&self, key: &[u8], before: i64) -> bool {
        let mut dead_letters = self.dead_letters.range(..before);
        dead_letters.any(|(_, dead_letter)| dead_letter.parked_key().is_some_and(|k| k == key))
    }

    fn count(&mut self) {
        self.books.parked_keys = self.parked.len() as i64;
        self.books.dead_letters = self.dead_letters.len() as i64;
    }
}

const DAY: i64 = 86_400_000;

impl Fold {
    pub fn new(view: impl View, max_value_bytes: usize) -> Fold {
        Fold {
            view: Box::new(view),
            max_value_bytes,
            partitions: BTreeMap::new(),
        }
    }

    pub fn domain(&self) -> &'static str {
        self.view.domain()
    }

    /// Whether the domain is interested in a type.
    pub fn wants(&self, event: &str) -> bool {
        self.view.wants(event)
    }

    /// The view, which must be of this type.
    pub fn view<V: View>(&self) -> &V {
        self.view_if().expect("a view of this type")
    }

    fn view_if<V: View>(&self) -> Option<&V> {
        let view: &dyn Any = &*self.view;
        view.downcast_ref()
    }

    /// Takes the next record of its partition.
    pub fn take(&mut self, record: &Record) -> Verdict {
        self.take_read(record, Content::of(record).as_ref())
    }

    /// Takes the next record of its partition, with its content; `None` for a tombstone.
    fn take_read(&mut self, record: &Record, content: Option<&Content>) -> Verdict {
        let partition = self.partitions.entry(record.partition).or_default();
        let now = partition.moves_to(record.timestamp);
        let number = partition.books.read;
        let parked = partition.is_parked(record);
        let read = Read {
            record,
            content,
            number,
            now,
        };
        let view = &mut *self.view;
        let verdict = judge(partition, view, self.max_value_bytes, &read, parked);
        let books = &mut partition.books;
        books.read += 1;
        *books.of(verdict) += 1;
        if verdict == Verdict::DeadLettered {
            let dead_letter = DeadLetter {
                record: record.clone(),
                then: now,
                parks: view.parks(type_read(&read, self.max_value_bytes)),
            };
            partition.add(number, dead_letter);
        }
        verdict
    }

    /// Takes the next record of its partition as a discarded one: it is not applied, and no record waits for it.
    pub fn take_discarded(&mut self, record: &Record) {
        let partition = self.partitions.entry(record.partition).or_default();
        partition.moves_to(record.timestamp);
        partition.books.read += 1;
        partition.books.dead_lettered += 1;
    }

    /// Retries dead letters, those for which `of` is true, with another limit: each key's in order, up to the
    /// first that fails.
    pub fn retry(&mut self, max_value_bytes: usize, of: impl Fn(&Record) -> bool) {
        self.max_value_bytes = max_value_bytes;
        for partition in self.partitions.values_mut() {
            for (number, DeadLetter { record, then, .. }) in partition.dead_letters.clone() {
                // An applied deletion may have closed it.
                if !of(&record) || !partition.dead_letters.contains_key(&number) {
                    continue;
                }
                let key = record.key.as_ref();
                let parked = key.is_some_and(|key| partition.waits(key, number));
                let content = Content::of(&record);
                let read = Read {
                    record: &record,
                    content: content.as_ref(),
                    number,
                    now: then,
                };
                let view = &mut *self.view;
                let verdict = judge(partition, view, max_value_bytes, &read, parked);
                if verdict == Verdict::DeadLettered {
                    let parks = view.parks(type_read(&read, max_value_bytes));
                    let mut dead_letter = partition.remove(number);
                    dead_letter.parks |= parks;
                    partition.add(number, dead_letter);
                    continue;
                }
                partition.remove(number);
                partition.books.dead_lettered -= 1;
                *partition.books.of(verdict) += 1;
            }
        }
    }

    /// Discards a dead letter, by its record number; those that wait behind it are retried.
    pub fn discard(&mut self, partition: i32, number: i64) {
        let of = self
            .partitions
            .get_mut(&partition)
            .expect("a known partition");
        let Some(key) = of.remove(number).parked_key().cloned() else {
            return;
        };
        if !of.waits(&key, number) {
            let of = |record: &Record| {
                record.partition == partition && record.key.as_ref() == Some(&key)
            };
            self.retry(self.max_value_bytes, of);
        }
    }

    /// The open dead letters of a partition, by record number.
    pub fn open(&self, partition: i32) -> impl Iterator<Item = i64> {
        let partition = self.partitions.get(&partition).into_iter();
        partition.flat_map(|partition| partition.dead_letters.keys().copied())
    }

    /// The books of a partition.
    pub fn books(&self, partition: i32) -> Books {
        self.partitions
            .get(&partition)
            .map(|p| p.books.clone())
            .unwrap_or_default()
    }
}

/// A record that is to be judged.
struct Read<'r> {
    record: &'r Record,
    /// `None` for a tombstone.
    content: Option<&'r Content>,
    number: i64,
    /// The stream time after the record.
    now: i64,
}

/// The type of a record, as far as it is read.
fn type_read(read: &Read<'_>, max_value_bytes: usize) -> Option<&'static str> {
    let size = read.record.value.as_ref().map_or(0, Vec::len);
    let content = read.content.filter(|_| size <= max_value_bytes)?;
    match content.event_type {
        Type::Unreadable => None,
        Type::Unknown => Some(UNKNOWN),
        Type::Known(name) => Some(name),
    }
}

/// Judges a record, and applies it if it is good.
fn judge(
    partition: &mut Partition,
    view: &mut dyn View,
    max_value_bytes: usize,
    read: &Read<'_>,
    parked: bool,
) -> Verdict {
    let &Read {
        record,
        number,
        now,
        ..
    } = read;
    let (Some(value), Some(content)) = (&record.value, read.content) else {
        return Verdict::Skipped;
    };
    if value.len() > max_value_bytes {
        return Verdict::DeadLettered;
    }
    let name = match content.event_type {
        Type::Unreadable => return Verdict::DeadLettered,
        Type::Unknown => UNKNOWN,
        Type::Known(name) => name,
    };
    if !view.wants(name) {
        return Verdict::Skipped;
    }
    let event = content.event.as_ref();
    let deleted = event
        .filter(|_| name == "UserDeleted")
        .and_then(|event| event.text("userId"));
    let is_own_key = deleted
        .as_ref()
        .is_some_and(|user| record.key.as_deref() == Some(user.as_bytes()));
    if parked && view.parks(Some(name)) && !is_own_key {
        return Verdict::DeadLettered;
    }
    let seen = content.id.as_ref().and_then(|id| partition.seen.get(id));
    if seen.is_some_and(|(at, then)| number - at < 100_000 || now - then < 90 * DAY) {
        return Verdict::Duplicate;
    }
    let Some(event) = event.filter(|event| view.has_room(event)) else {
        return Verdict::DeadLettered;
    };
    if let Some(user) = deleted {
        partition.close(user.as_bytes(), number);
    }
    let then = now.max(record.timestamp);
    partition.seen.insert(event.id.clone(), (number, then));
    let mut event = event.clone();
    event.number = number;
    view.apply(&event);
    Verdict::Applied
}

/// The folds of all domains, over the same records.
pub struct Folds {
    folds: Vec<Fold>,
    /// Whether the program applied retried dead letters at the same point as these folds. If not, only the order
    /// of each user's events is known.
    pub order_is_known: bool,
}

impl Folds {
    pub fn new(max_value_bytes: usize) -> Folds {
        Folds {
            folds: vec![
                Fold::new(Customers::default(), max_value_bytes),
                Fold::new(Parcels::default(), max_value_bytes),
                Fold::new(Documents::default(), max_value_bytes),
                Fold::new(Profiles::default(), max_value_bytes),
                Fold::new(Metrics::default(), max_value_bytes),
                Fold::new(Notifications::default(), max_value_bytes),
                Fold::new(Trail::default(), max_value_bytes),
            ],
            order_is_known: true,
        }
    }

    /// A domain's fold.
    pub fn of(&self, domain: &str) -> &Fold {
        let mut folds = self.folds.iter();
        let found = folds.find(|fold| fold.domain() == domain);
        found.unwrap_or_else(|| panic!("the reference fold has no domain {domain}"))
    }

    /// A domain's fold, to be changed apart from the others.
    pub fn of_mut(&mut self, domain: &str) -> &mut Fold {
        let mut folds = self.folds.iter_mut();
        let found = folds.find(|fold| fold.domain() == domain);
        found.unwrap_or_else(|| panic!("the reference fold has no domain {domain}"))
    }

    /// The view of this type.
    pub fn view<V: View>(&self) -> &V {
        let found = self.folds.iter().find_map(Fold::view_if);
        found.expect("every type of view has a fold")
    }

    /// Takes the next record of its partition, for each domain. Returns each domain's verdict.
    pub fn take(&mut self, record: &Record) -> BTreeMap<&'static str, Verdict> {
        let content = Content::of(record);
        let folds = self.folds.iter_mut();
        folds
            .map(|fold| (fold.domain(), fold.take_read(record, content.as_ref())))
            .collect()
    }

    /// Takes records, in the order of each partition.
    pub fn take_all(&mut self, records: &[Record]) {
        for record in records {
            self.take(record);
        }
    }

    /// Takes the next record, as a discarded one in those domains in which it was discarded.
    pub fn take_except_discarded(&mut self, record: &Record, discarded_in: impl Fn(&str) -> bool) {
        let content = Content::of(record);
        for fold in &mut self.folds {
            if discarded_in(fold.domain()) {
                fold.take_discarded(record);
            } else {
                fold.take_read(record, content.as_ref());
            }
        }
    }

    /// Retries dead letters of all domains: see [`Fold::retry`].
    pub fn retry(&mut self, max_value_bytes: usize, of: impl Fn(&Record) -> bool) {
        for fold in &mut self.folds {
            fold.retry(max_value_bytes, &of);
        }
    }

    /// The partitions that have records.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.folds[0].partitions.keys().copied()
    }

    /// How many records of a partition were read.
    pub fn read(&self, partition: i32) -> i64 {
        self.folds[0].books(partition).read
    }

    /// The books of a domain in a partition.
    pub fn books(&self, domain: &str, partition: i32) -> Books {
        self.of(domain).books(partition)
    }
}

/// An instant in the notation of answers.
fn instant(at: DateTime<Utc>) -> Value {
    json!(at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// An answer in the normal form: times in one notation, `staleFields` and `problems` sorted, addresses by id.
///
/// It leaves out what the contract leaves open: empty objects in preferences, which clearing a member may leave, and
/// nulls there, and the user in an activity.
pub fn normal(mut answer: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if fields.contains_key("failedLoginsSinceLastLogin") {
                    fields.remove("userId");
                }
                for name in OBJECTS {
                    if let Some(object) = fields.get_mut(name) {
                        prune(object);
                    }
                    if fields.get(name) == Some(&json!({})) {
                        fields.remove(name);
                    }
                }
                for (name, value) in fields.iter_mut() {
                    match value {
                        Value::String(written)
                            if name.ends_with("At") && written.ends_with('Z') =>
                        {
                            if let Ok(at) = DateTime::parse_from_rfc3339(written) {
                                *written = at.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true);
                            }
                        }
                        Value::Array(items)
                            if ["staleFields", "addresses", "problems"]
                                .contains(&name.as_str()) =>
                        {
                            items.sort_by_key(|item| {
                                item.get("addressId").unwrap_or(item).to_string()
                            });
                            items.iter_mut().for_each(walk);
                        }
                        value => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut answer);
    answer
}

/// Removes nulls and empty objects in objects.
fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(prune);
            members.retain(|_, value| !value.is_null() && *value != json!({}));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
