//! The naive fold: what the answers and the books must be, one record after another, from the raw bytes.
//!
//! It shares no code with the program. [`Fold`] judges records for any domain (envelopes, types, bad records,
//! duplicates, parked keys, books), a [`View`] says which events it wants and folds them: [`Customers`] is the
//! order domain's, [`Parcels`] the fulfillment domain's. What was at an instant is a replay of the events that
//! happened until then.
//!
//! Where the contract leaves room, this is how it is read here:
//!
//! - A body that is not acceptable JSON as a whole (too deep or a number outside f64 anywhere in it, too) has no
//!   readable type, except where a header tells it. A body nested 128 deep is good, 129 is not.
//! - Only CloudEvents may prefix a type; elsewhere a prefixed name is a type nobody knows. So is one whose version
//!   is 0 or has a leading zero.
//! - Log time of a partition: its first record's timestamp; then each record, whatever becomes of it, moves it
//!   forward to its own timestamp, by at most a day. An event's age is measured between log times, its own being
//!   that after its record; at 90 days it is forgotten.
//! - A redelivered UserDeleted whose key is parked is a duplicate: it closes no letter, the key stays parked.
//! - A letter that is tried again is judged as of its own place in the log: by the log's time of then.
//! - UserRegistered leaves emailVerified alone where it brings the email that is held already and is not stale.
//!   An email that arrives while the held one is stale or absent sets it to false, the same text too.
//! - An address that only an Updated has told of is known: a later Added with a false flag unsets its default.
//! - The flags of an address say whether the view's default names it: never absent, but after a deletion.
//! - A fullAddress replaces every field but the type, those that an `updatedFields` beside it brings, too; nothing is
//!   stale after it, the type neither. One without a country has that of the Added around it.
//! - What UserDefaultAddressChanged names is named (updatedAt moves) also where it was the default before.
//! - After a soft deletion the addresses that were there (not the deleted ones) stay with id and country.
//! - A default that an event names anew, where it was named before, is no change of the default: no entry.

mod addresses;
mod event;
mod feed;
mod fields;
mod fulfillment;
mod order;
mod validation;

pub use addresses::Addresses;
pub use event::{Change, event_of};
pub use fulfillment::{Parcels, STATUSES};
pub use order::Customers;
pub use validation::{matches, validate};

use super::broker::Record;
use chrono::{DateTime, SecondsFormat, Utc};
use event::{Envelope, Event, decode, known_type};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A domain's side of the fold.
pub trait View {
    fn wants(&self, event: &str) -> bool;
    fn apply(&mut self, event: &Event);
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Applied,
    Duplicate,
    Skipped,
    DeadLettered,
}

/// The books of a partition, and its letters that are open.
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

/// A domain, folded.
pub struct Fold<V> {
    pub view: V,
    /// Whether what was applied late was applied when this fold did it: else only the order of each user is known.
    pub order_is_known: bool,
    max_value_bytes: usize,
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Default)]
struct Partition {
    log_time: Option<i64>,
    /// Event id to the log time of the record that was applied.
    seen: HashMap<String, i64>,
    /// Open letters, in the order of the log.
    letters: BTreeMap<i64, Letter>,
    /// How many of them there are of each key.
    parked: HashMap<Vec<u8>, i64>,
    books: Books,
}

/// A record that could not be applied, or waits behind one.
#[derive(Clone)]
struct Letter {
    record: Record,
    /// The log's time behind it.
    then: i64,
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
    /// The log's time behind a record.
    fn moves_to(&mut self, timestamp: i64) -> i64 {
        let now = match self.log_time {
            None => timestamp,
            Some(before) => timestamp.clamp(before, before + DAY),
        };
        self.log_time = Some(now);
        now
    }

    fn is_parked(&self, record: &Record) -> bool {
        let key = record.key.as_ref();
        key.is_some_and(|key| self.parked.contains_key(key))
    }

    fn add(&mut self, number: i64, letter: Letter) {
        if let Some(key) = &letter.record.key {
            *self.parked.entry(key.clone()).or_default() += 1;
        }
        self.letters.insert(number, letter);
        self.count();
    }

    fn remove(&mut self, number: i64) -> Letter {
        let letter = self.letters.remove(&number).expect("an open letter");
        if let Some(key) = &letter.record.key {
            let count = self.parked.get_mut(key).expect("a parked key");
            *count -= 1;
            if *count == 0 {
                self.parked.remove(key);
            }
        }
        self.count();
        letter
    }

    /// Letters of a key that come before a record are nobody's any more.
    fn close(&mut self, key: &[u8], before: i64) {
        let letters = self.letters.range(..before);
        let of_key = letters.filter(|(_, letter)| letter.record.key.as_deref() == Some(key));
        let closed: Vec<i64> = of_key.map(|(number, _)| *number).collect();
        for number in closed {
            self.remove(number);
        }
    }

    fn count(&mut self) {
        self.books.parked_keys = self.parked.len() as i64;
        self.books.dead_letters = self.letters.len() as i64;
    }
}

const DAY: i64 = 86_400_000;

impl<V: View> Fold<V> {
    pub fn new(view: V, max_value_bytes: usize) -> Fold<V> {
        Fold {
            view,
            order_is_known: true,
            max_value_bytes,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes the next record of its partition.
    pub fn take(&mut self, record: &Record) -> Verdict {
        let partition = self.partitions.entry(record.partition).or_default();
        let now = partition.moves_to(record.timestamp);
        let number = partition.books.read;
        let at = (number, now);
        let parked = partition.is_parked(record);
        let verdict = judge(
            partition,
            &mut self.view,
            self.max_value_bytes,
            record,
            at,
            parked,
        );
        let books = &mut partition.books;
        books.read += 1;
        *books.of(verdict) += 1;
        if verdict == Verdict::DeadLettered {
            let letter = Letter {
                record: record.clone(),
                then: now,
            };
            partition.add(number, letter);
        }
        verdict
    }

    /// Takes the next record of its partition as one that was taken out: nothing comes of it, and nothing waits for it.
    pub fn take_out(&mut self, record: &Record) {
        let partition = self.partitions.entry(record.partition).or_default();
        partition.moves_to(record.timestamp);
        partition.books.read += 1;
        partition.books.dead_lettered += 1;
    }

    /// Tries all letters again, with another limit, or those of some keys only: each key's in order, up to the first
    /// that fails.
    pub fn retry(&mut self, max_value_bytes: usize, of: impl Fn(&Record) -> bool) {
        self.max_value_bytes = max_value_bytes;
        for partition in self.partitions.values_mut() {
            let mut failed: BTreeSet<Vec<u8>> = BTreeSet::new();
            for (number, Letter { record, then }) in partition.letters.clone() {
                // One that was closed meanwhile is not tried.
                if !of(&record) || !partition.letters.contains_key(&number) {
                    continue;
                }
                let parked = record.key.as_ref().is_some_and(|key| failed.contains(key));
                let at = (number, then);
                let verdict = judge(
                    partition,
                    &mut self.view,
                    max_value_bytes,
                    &record,
                    at,
                    parked,
                );
                if verdict == Verdict::DeadLettered {
                    failed.extend(record.key);
                    continue;
                }
                // A deletion closes what has failed.
                if let (Verdict::Applied, Some(key)) = (verdict, &record.key) {
                    failed.remove(key);
                }
                partition.remove(number);
                partition.books.dead_lettered -= 1;
                *partition.books.of(verdict) += 1;
            }
        }
    }

    /// Takes a letter out, by the how manieth record of its partition it is; those behind it go on.
    pub fn discard(&mut self, partition: i32, number: i64) {
        let of = self.partitions.get_mut(&partition).expect("it");
        let key = of.remove(number).record.key;
        let mut before = of.letters.range(..number);
        let is_first = before.all(|(_, other)| other.record.key != key);
        if key.is_some() && is_first {
            let of = |record: &Record| record.partition == partition && record.key == key;
            self.retry(self.max_value_bytes, of);
        }
    }

    /// The partitions that hold anything.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }

    /// The books of a partition.
    pub fn books(&self, partition: i32) -> Books {
        self.partitions
            .get(&partition)
            .map(|p| p.books.clone())
            .unwrap_or_default()
    }
}

/// What becomes of a record at its place (the how manieth it is, and the log's time behind it), and does that.
fn judge<V: View>(
    partition: &mut Partition,
    view: &mut V,
    max_value_bytes: usize,
    record: &Record,
    (number, now): (i64, i64),
    parked: bool,
) -> Verdict {
    let Some(value) = &record.value else {
        return Verdict::Skipped;
    };
    if value.len() > max_value_bytes {
        return Verdict::DeadLettered;
    }
    let envelope = Envelope::read(record, value);
    let Some(raw_type) = &envelope.event_type else {
        return Verdict::DeadLettered;
    };
    let Some(name) = known_type(raw_type, envelope.cloud) else {
        return Verdict::Skipped;
    };
    if !view.wants(name) {
        return Verdict::Skipped;
    }
    let event = decode(&envelope, name, record, number);
    let good_deletion = name == "UserDeleted" && event.is_some();
    if parked && !good_deletion {
        return Verdict::DeadLettered;
    }
    let seen = envelope.id.as_ref().and_then(|id| partition.seen.get(id));
    if seen.is_some_and(|then| (now - then).abs() < 90 * DAY) {
        return Verdict::Duplicate;
    }
    let Some(event) = event else {
        return Verdict::DeadLettered;
    };
    if parked {
        let key = record.key.as_ref().expect("a parked record has a key");
        partition.close(key, number);
    }
    partition.seen.insert(event.id.clone(), now);
    view.apply(&event);
    Verdict::Applied
}

/// All domains, folded from one log.
pub struct Folds {
    pub order: Fold<Customers>,
    pub fulfillment: Fold<Parcels>,
}

impl Folds {
    pub fn new(max_value_bytes: usize) -> Folds {
        Folds {
            order: Fold::new(Customers::default(), max_value_bytes),
            fulfillment: Fold::new(Parcels::default(), max_value_bytes),
        }
    }

    /// Takes the next record of its partition, for each domain.
    pub fn take(&mut self, record: &Record) -> [Verdict; 2] {
        [self.order.take(record), self.fulfillment.take(record)]
    }

    /// Takes records, in the order of each partition.
    pub fn take_all(&mut self, records: &[Record]) {
        for record in records {
            self.take(record);
        }
    }

    /// Takes the next record, but for domains in which it was taken out.
    pub fn take_but(&mut self, record: &Record, taken_out_of: impl Fn(&str) -> bool) {
        match taken_out_of("order") {
            true => self.order.take_out(record),
            false => drop(self.order.take(record)),
        }
        match taken_out_of("fulfillment") {
            true => self.fulfillment.take_out(record),
            false => drop(self.fulfillment.take(record)),
        }
    }

    /// See [`Fold::order_is_known`].
    pub fn order_is_known(&mut self, known: bool) {
        self.order.order_is_known = known;
        self.fulfillment.order_is_known = known;
    }

    /// Tries letters of all domains again.
    pub fn retry(&mut self, max_value_bytes: usize, of: impl Fn(&Record) -> bool) {
        self.order.retry(max_value_bytes, &of);
        self.fulfillment.retry(max_value_bytes, &of);
    }

    /// How many records of a partition were read.
    pub fn read(&self, partition: i32) -> i64 {
        self.order.books(partition).read
    }

    /// The books of a domain in a partition.
    pub fn books(&self, domain: &str, partition: i32) -> Books {
        match domain {
            "order" => self.order.books(partition),
            "fulfillment" => self.fulfillment.books(partition),
            other => panic!("{other} is not folded"),
        }
    }
}

/// An instant as answers write it.
fn instant(at: DateTime<Utc>) -> Value {
    json!(at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// The same answer in one form: times as written here, `staleFields` and `problems` sorted, addresses by id.
pub fn normal(mut answer: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
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
