//! The generator: its users, which record comes next, and when.

use std::collections::VecDeque;

use fastrand::Rng;
use serde_json::{Map, Value};

use super::values::uuid;
use super::{HEALING_BYTES, Shape, odd_ids};
use crate::broker::Record;
use crate::reference::{Folds, Verdict, event_of};

/// A user, and what the generator remembers of it.
pub(super) struct User {
    pub id: String,
    pub key: Option<Vec<u8>>,
    pub partition: i32,
    /// Its bad records carry its own key, and so park the key.
    pub unlucky: bool,
    pub started: bool,
    pub addresses: Vec<String>,
    /// The next events of this user, in this order.
    pub scene: VecDeque<Happening>,
    /// The own time of its last event.
    pub last_time: Option<String>,
}

/// A role or a permission.
pub(super) struct Named {
    pub id: String,
    pub partition: i32,
    /// Its bad records carry its own key.
    pub unlucky: bool,
}

/// Type, payload, and names of the own time fields of an event.
pub(super) type Happening = (&'static str, Map<String, Value>, &'static [&'static str]);

/// An event before it is put into an envelope.
pub(super) struct Draft {
    pub event_type: &'static str,
    pub payload: Map<String, Value>,
}

/// A record that was written, for redeliveries.
pub(super) struct Past {
    pub event_id: String,
    pub record: Record,
}

pub(super) struct Generator {
    pub heals: bool,
    pub rng: Rng,
    pub shape: Shape,
    pub users: Vec<User>,
    pub roles: Vec<Named>,
    pub permissions: Vec<Named>,
    pub past: Vec<Past>,
    /// Makes ids and keys unique.
    pub next_id: u64,
}

/// When a log begins, in milliseconds since the epoch.
pub(super) const START: i64 = 1_767_225_600_000;
pub(super) const DAY: i64 = 86_400_000;
/// How many days a log spans.
const DAYS: i64 = 200;

impl Generator {
    pub(super) fn new(seed: u64, shape: Shape, heals: bool) -> Generator {
        let mut rng = Rng::with_seed(seed);
        let mut users: Vec<User> = Vec::new();
        let odd = odd_ids();
        for n in 0..shape.users {
            let id = match odd.get(n) {
                Some(id) => id.clone(),
                None => uuid(&mut rng),
            };
            let partition = rng.i32(0..shape.partitions);
            let neighbour = users.iter().rev().find(|user| user.partition == partition);
            let key = match rng.u32(0..40) {
                0 if !heals => None,
                1 => Some(vec![0xff, 0x00, 0xfe, rng.u8(..), rng.u8(..)]),
                2 => Some(format!("a/b {n} \u{1f980}").into_bytes()),
                // Two users behind one key.
                3 => neighbour.map_or(Some(b"shared".to_vec()), |user| user.key.clone()),
                _ => Some(id.clone().into_bytes()),
            };
            let unlucky = rng.u32(0..6) == 0;
            users.push(User {
                id,
                key,
                partition,
                unlucky,
                started: false,
                addresses: Vec::new(),
                scene: VecDeque::new(),
                last_time: None,
            });
        }
        let roles = named(&mut rng, shape, "role");
        let permissions = named(&mut rng, shape, "permission");
        Generator {
            heals,
            rng,
            shape,
            users,
            roles,
            permissions,
            past: Vec::new(),
            next_id: 0,
        }
    }

    pub(super) fn run(mut self) -> Vec<Record> {
        let mut log = Vec::with_capacity(self.shape.records);
        let jump = self.shape.records / 3;
        for n in 0..self.shape.records {
            let mut now = START + (n as i64) * DAYS * DAY / self.shape.records as i64;
            now += self.rng.i64(-3_600_000..3_600_000);
            // A producer whose clock is years ahead: stream time moves by a day at most.
            let timestamp = if n % jump == jump - 1 {
                now + 50 * 365 * DAY
            } else {
                now
            };
            let mut record = self.record(now);
            record.timestamp = timestamp;
            log.push(record);
        }
        log
    }

    fn record(&mut self, now: i64) -> Record {
        let mut record = match self.rng.u32(0..1000) {
            0..20 => self.redelivery(now),
            20..35 => self.bad(now),
            35..45 => self.unknown(now),
            45..52 => self.tombstone(),
            52..54 => self.oversized(now),
            54..56 if self.heals => self.oversized(now),
            _ => None,
        }
        .unwrap_or_else(|| {
            let user = self.rng.usize(0..self.users.len());
            let draft = self.draft(user, now);
            self.written(user, draft, now)
        });
        record.timestamp = now;
        if self.heals
            && Folds::new(HEALING_BYTES)
                .take(&record)
                .values()
                .any(|verdict| *verdict == Verdict::Applied)
        {
            // A good record carries its user's key and partition, so that it is applied in the user's
            // order, however late.
            let owner = event_of(&record).and_then(|event| event.user());
            let owner = self
                .users
                .iter()
                .find(|user| owner.as_ref() == Some(&user.id));
            if let Some(owner) = owner {
                (record.key, record.partition) = (owner.key.clone(), owner.partition);
            }
        }
        record
    }
}

/// Roles or permissions: few, so that each gets many events.
fn named(rng: &mut Rng, shape: Shape, what: &str) -> Vec<Named> {
    let count = 6 + shape.users / 30;
    let id = |n| match n {
        0 => format!("{what}/{n} %2F \u{1f511}"),
        1 => "\u{1f511}".repeat(254) + &what[..1],
        _ => format!("{what}-{n}"),
    };
    let named = |n| Named {
        id: id(n),
        partition: rng.i32(0..shape.partitions),
        unlucky: rng.u32(0..5) == 0,
    };
    (0..count).map(named).collect()
}
