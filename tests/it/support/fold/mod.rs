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
use std::collections::{BTreeMap, HashMap};

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
    max_value_bytes: usize,
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Default)]
struct Partition {
    log_time: Option<i64>,
    /// Event id to the log time of its application.
    seen: HashMap<String, i64>,
    /// Parked key to its open letters.
    parked: HashMap<Vec<u8>, i64>,
    books: Books,
}

const DAY: i64 = 86_400_000;

impl<V: View> Fold<V> {
    pub fn new(view: V, max_value_bytes: usize) -> Fold<V> {
        Fold {
            view,
            max_value_bytes,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes the next record of its partition.
    pub fn take(&mut self, record: &Record) -> Verdict {
        let partition = self.partitions.entry(record.partition).or_default();
        let now = match partition.log_time {
            None => record.timestamp,
            Some(before) => record.timestamp.clamp(before, before + DAY),
        };
        partition.log_time = Some(now);
        let verdict = judge(partition, &mut self.view, self.max_value_bytes, record, now);
        let books = &mut partition.books;
        books.read += 1;
        match verdict {
            Verdict::Applied => books.applied += 1,
            Verdict::Duplicate => books.duplicates += 1,
            Verdict::Skipped => books.skipped += 1,
            Verdict::DeadLettered => {
                books.dead_lettered += 1;
                books.dead_letters += 1;
                if let Some(key) = &record.key {
                    *partition.parked.entry(key.clone()).or_default() += 1;
                }
            }
        }
        partition.books.parked_keys = partition.parked.len() as i64;
        verdict
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

fn judge<V: View>(
    partition: &mut Partition,
    view: &mut V,
    max_value_bytes: usize,
    record: &Record,
    now: i64,
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
    let event = decode(&envelope, name, record, partition.books.read);
    let good_deletion = name == "UserDeleted" && event.is_some();
    let parked = record
        .key
        .as_ref()
        .is_some_and(|key| partition.parked.contains_key(key));
    if parked && !good_deletion {
        return Verdict::DeadLettered;
    }
    let seen = envelope.id.as_ref().and_then(|id| partition.seen.get(id));
    if seen.is_some_and(|then| now - then < 90 * DAY) {
        return Verdict::Duplicate;
    }
    let Some(event) = event else {
        return Verdict::DeadLettered;
    };
    if parked {
        let key = record.key.as_ref().expect("a parked record has a key");
        partition.books.dead_letters -= partition.parked.remove(key).expect("parked");
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
