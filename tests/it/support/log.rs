//! Random logs, as hostile as the contract allows: every dialect, spelling, type and bad record, the same for the
//! same seed.
//!
//! Users have few addresses, and values come from few, so that what is hard to get right meets often: scenes of some
//! events see to the rest. What happened when is not in the order of the log, and ties.
//!
//! A user's events stay on one partition, whatever the records' keys are, because nothing orders partitions among
//! each other. Redeliveries are younger than 80 days or older than 100: what happens at the very edge of the 90 is
//! for a test of its own.

use super::broker::Record;
use super::fold::{Folds, Verdict, event_of};
use fastrand::Rng;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// Larger values than this are dead letters: `SIGHTLINE_MAX_VALUE_BYTES` of the tests that use these logs.
pub const MAX_VALUE_BYTES: usize = 16_384;
/// Larger ones than this there are none.
pub const HEALING_BYTES: usize = 65_536;

/// What kind of log.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub records: usize,
    pub partitions: i32,
    pub users: usize,
}

/// The seed of this run: `SIGHTLINE_TEST_SEED`, else always the same.
pub fn seed() -> u64 {
    let seed = std::env::var("SIGHTLINE_TEST_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seed = seed.unwrap_or(20_261_001);
    // Shown where the test fails.
    println!("SIGHTLINE_TEST_SEED={seed}");
    seed
}

/// A log, in an order in which it may be written.
pub fn generate(seed: u64, shape: Shape) -> Vec<Record> {
    Generator::new(seed, shape, false).run()
}

/// One whose records that are too large would be good under [`HEALING_BYTES`]: they carry their user's own key, which
/// everybody has, and ids come again under the same key only, so that it does not matter when they are tried again.
pub fn generate_healing(seed: u64, shape: Shape) -> Vec<Record> {
    Generator::new(seed, shape, true).run()
}

/// Ids that HTTP, SQL or JSON might stumble over; all legal.
pub fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "addr-uuid-789",
        "p1q2r3s4-t5u6-7890-1234-567890uvwxyz",
        "a/b/c",
        "/",
        "a b",
        " ",
        "100%",
        "%2F",
        "%00",
        "a%20b",
        "\u{1f980}\u{200d}\u{1f469}",
        "e\u{301}\u{e9}",
        "\u{202e}abc",
        "line\nbreak\ttab",
        "\u{7f}\u{1}",
        "quote\"'`\\",
        "';DROP TABLE customers;--",
        "?a=b&c=d#e",
        "a+b",
        ":batchGet",
        "null",
        "{id}",
        "~user@example.com",
        "\u{10ffff}",
    ]
    .map(String::from)
    .to_vec();
    ids.push("x".repeat(255));
    ids.push("\u{1f4e6}".repeat(255));
    ids
}

struct User {
    id: String,
    key: Option<Vec<u8>>,
    partition: i32,
    /// Its bad records carry its own key, and so park it.
    unlucky: bool,
    started: bool,
    addresses: Vec<String>,
    /// What is to happen to it next, in this order.
    scene: VecDeque<Told>,
    /// The own time of its last event.
    last_time: Option<String>,
}

/// Type, payload and names of the own time fields of an event.
type Told = (&'static str, Map<String, Value>, &'static [&'static str]);

/// An event as a producer means it, before it is written down.
struct Draft {
    event_type: &'static str,
    payload: Map<String, Value>,
}

/// What a redelivery needs to know.
struct Past {
    event_id: String,
    record: Record,
}

struct Generator {
    heals: bool,
    rng: Rng,
    shape: Shape,
    users: Vec<User>,
    past: Vec<Past>,
    next_id: u64,
}

const START: i64 = 1_767_225_600_000;
const DAY: i64 = 86_400_000;
const DAYS: i64 = 200;

impl Generator {
    fn new(seed: u64, shape: Shape, heals: bool) -> Generator {
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
        Generator {
            heals,
            rng,
            shape,
            users,
            past: Vec::new(),
            next_id: 0,
        }
    }

    fn run(mut self) -> Vec<Record> {
        let mut log = Vec::with_capacity(self.shape.records);
        let jump = self.shape.records / 3;
        for n in 0..self.shape.records {
            let mut now = START + (n as i64) * DAYS * DAY / self.shape.records as i64;
            now += self.rng.i64(-3_600_000..3_600_000);
            // A producer whose clock is years ahead: log time moves by a day at most.
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
                .contains(&Verdict::Applied)
        {
            // What turns out to be good comes in its turn, as all of its user's does.
            let owner = event_of(&record).and_then(|event| event.text("userId"));
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

    // ---- what happens to users

    fn draft(&mut self, user: usize, now: i64) -> Draft {
        let next = self.users[user].scene.pop_front();
        let (event_type, mut payload, own_times) = match next {
            Some(next) => next,
            None => self.happening(user),
        };
        let own_time = self.own_time(user, now);
        let user = &self.users[user];
        payload.insert("userId".into(), json!(user.id));
        if event_type.starts_with("UserProfile") || event_type.starts_with("UserAddress") {
            payload.insert(
                "profileId".into(),
                json!(format!("profile-{}", user.partition)),
            );
        }
        match self.rng.u32(0..10) {
            0 => drop(payload.insert(own_times[0].into(), Value::Null)),
            1 => drop(payload.insert(own_times[0].into(), json!(""))),
            2 => {}
            _ => {
                let name = own_times[self.rng.usize(0..own_times.len())];
                payload.insert(name.into(), json!(own_time));
            }
        }
        if self.rng.u32(0..8) == 0 {
            payload.insert(
                "futureField".into(),
                json!({"a": [1, 2.5e10, {"b": null}], "updatedFields": 7}),
            );
        }
        Draft {
            event_type,
            payload,
        }
    }

    /// Mostly about now; sometimes the very instant of the user's event before, sometimes long ago.
    fn own_time(&mut self, user: usize, now: i64) -> String {
        let last = self.users[user].last_time.clone();
        let time = match (self.rng.u32(0..10), last) {
            (0..2, Some(last)) => last,
            (2..4, _) => {
                let ago = self.rng.i64(0..40 * DAY);
                self.time(now - ago)
            }
            _ => self.time(now),
        };
        self.users[user].last_time = Some(time.clone());
        time
    }

    /// Anything that may happen to a user, or the beginning of a scene.
    fn happening(&mut self, user: usize) -> Told {
        let first = !std::mem::replace(&mut self.users[user].started, true);
        let kind = self.rng.u32(0..200);
        match kind {
            _ if first && kind < 160 => self.registered(),
            0..3 => self.registered(),
            3..10 => (
                "UserEmailVerified",
                object(json!({"email": self.email()})),
                &["verificationTimestamp"],
            ),
            10..15 => (
                "UserPasswordChanged",
                object(json!({"changeType": self.pick(&["self_initiated", "reset_completed"])})),
                &["changeTimestamp"],
            ),
            15..20 => (
                "UserPasswordResetRequested",
                object(json!({"email": self.email(), "resetTokenIdentifier": "t-1"})),
                &["requestTimestamp"],
            ),
            20..28 => {
                let statuses = [
                    "pending_verification",
                    "active",
                    "suspended",
                    "banned",
                    "deactivated",
                    "deleted",
                    "odd",
                ];
                let payload = json!({
                    "newStatus": self.pick(&statuses),
                    "previousStatus": self.pick(&statuses),
                    "reason": self.pick(&["", "because"]),
                    "changedBy": "admin-user-id-001",
                });
                (
                    "UserAccountStatusChanged",
                    object(payload),
                    &["changeTimestamp"],
                )
            }
            28..42 => {
                let names = ["username", "email", "secondaryEmail", "futureField"];
                ("UserUpdated", self.changes(&names), &["updateTimestamp"])
            }
            42 => {
                let mut payload = Map::new();
                match self.rng.u32(0..6) {
                    0..2 => payload.insert("deletionType".into(), json!("hard")),
                    2 => payload.insert("deletionType".into(), json!("soft")),
                    3 => payload.insert("deletionType".into(), json!("thorough")),
                    4 => payload.insert("deletionType".into(), Value::Null),
                    _ => payload.insert("anonymized".into(), json!(true)),
                };
                ("UserDeleted", payload, &["deletionTimestamp"])
            }
            43..74 => {
                let names = [
                    "firstName",
                    "lastName",
                    "displayName",
                    "phoneNumber",
                    "bio",
                    "profilePictureUrl",
                    "languagePreference",
                    "timezonePreference",
                    "dateOfBirth",
                    "gender",
                    "preferences.theme",
                    "communicationPreferences.email.weekly",
                    "futureField",
                ];
                (
                    "UserProfileUpdated",
                    self.changes(&names),
                    &["updateTimestamp"],
                )
            }
            74..96 => self.address_added(user),
            96..118 => self.address_updated(user),
            118..126 => {
                let id = self.address_id(user);
                (
                    "UserAddressDeleted",
                    object(json!({"addressId": id})),
                    &["deleteTimestamp"],
                )
            }
            126..146 => {
                let mut payload = Map::new();
                for name in ["defaultShippingAddressId", "defaultBillingAddressId"] {
                    match self.rng.u32(0..6) {
                        0 => {}
                        1 => drop(payload.insert(name.into(), Value::Null)),
                        2 => drop(payload.insert(name.into(), json!(""))),
                        _ => {
                            let id = self.address_id(user);
                            payload.insert(name.into(), json!(id));
                        }
                    }
                }
                (
                    "UserProfileDefaultAddressChanged",
                    payload,
                    &["changeTimestamp"],
                )
            }
            146..160 => (
                "UserLoggedIn",
                object(
                    json!({"sessionId": "s", "ipAddress": "203.0.113.9", "mfaVerified": self.rng.bool()}),
                ),
                &["loginTimestamp"],
            ),
            160..165 => (
                "UserLoggedOut",
                object(json!({"revokedTokenJtis": ["a", "b"]})),
                &["logoutTimestamp"],
            ),
            165..170 => (
                "MfaStatusChanged",
                object(
                    json!({"mfaEnabled": self.rng.bool(), "mfaMethod": "TOTP", "changedBy": "user"}),
                ),
                &["changeTimestamp"],
            ),
            170..174 => (
                "MfaChallengeFailed",
                object(json!({"mfaMethod": "SMS"})),
                &["failureTimestamp"],
            ),
            174..180 => (
                "UserLoginFailed",
                object(json!({"attemptedEmail": "who@example.com", "reason": "user_not_found"})),
                &["failureTimestamp"],
            ),
            180..184 => self.role(),
            _ => {
                let mut scene = self.scene(user);
                let beginning = scene.pop_front().expect("a scene has events");
                self.users[user].scene = scene;
                beginning
            }
        }
    }

    // ---- scenes: what meets seldom by chance

    /// Some events of one user that belong together; others of the same key may come between.
    fn scene(&mut self, user: usize) -> VecDeque<Told> {
        let a = self.address_id(user);
        let b = if self.rng.bool() {
            uuid(&mut self.rng)
        } else {
            self.address_id(user)
        };
        let (yes, no) = ([true, true], [false, false]);
        let one = [self.rng.bool(), self.rng.bool()];
        let scene = match self.rng.u32(0..14) {
            // Something becomes stale, and known again: as it was, or as another.
            0..3 => {
                let fields = [
                    ("city", "Berlin", "Paris"),
                    ("postalCode", "10115", "75001"),
                    ("streetLine1", "1 Main Street", "2 High Street"),
                    ("country", "DE", "FR"),
                    ("stateOrProvince", "CA", "NY"),
                    ("contactName", "A. Person", "B. Person"),
                ];
                let (name, was, other) = fields[self.rng.usize(0..fields.len())];
                let confirmed = if self.rng.bool() { was } else { other };
                vec![
                    self.add(&a, one),
                    update(&a, json!({"updatedFields": {name: was}})),
                    update(&a, json!({"updatedFields": [name]})),
                    update(&a, json!({"updatedFields": {name: {"new": confirmed}}})),
                    update(
                        &a,
                        json!({"updatedFields": [name], "newValues": {name: was}}),
                    ),
                    update(&a, json!({"updatedFields": {name: {"old": was}}})),
                    update(&a, json!({"updatedFields": {name: null}})),
                ]
            }
            // A default is named before its address, and goes back to the former before the new one comes.
            3..6 => {
                let new = uuid(&mut self.rng);
                let mut scene = vec![self.add(&a, yes), name_defaults(Some(&new), Some(&new))];
                if self.rng.bool() {
                    scene.push(update(
                        &a,
                        json!({"updatedFields": {"city": self.pick(&["Berlin", "Rome"])}}),
                    ));
                }
                match self.rng.u32(0..4) {
                    0 => scene.push(delete(&new)),
                    1 => scene.push(self.add(&new, no)),
                    _ => {}
                }
                scene.push(name_defaults(Some(&a), self.rng.bool().then_some(&*a)));
                scene.push(self.add(&new, no));
                scene
            }
            // A default, deleted and back.
            6..8 => {
                let flags = if self.rng.bool() { yes } else { no };
                vec![
                    self.add(&a, yes),
                    delete(&a),
                    update(&a, json!({"updatedFields": {"city": "Nowhere"}})),
                    self.add(&a, flags),
                    update(&a, json!({"updatedFields": {"city": "Berlin"}})),
                ]
            }
            // Both move at once, to and fro, and once to where they are.
            8..10 => vec![
                self.add(&a, one),
                self.add(&b, no),
                name_defaults(Some(&b), Some(&b)),
                name_defaults(Some(&a), Some(&a)),
                name_defaults(Some(&a), Some(&a)),
                name_defaults(Some(&b), Some(&a)),
            ],
            // Added while it is known: taking the default, keeping it, losing it, and the very same again.
            10..13 => {
                let again = self.add(&b, yes);
                vec![
                    self.add(&a, yes),
                    again.clone(),
                    again,
                    self.add(&b, one),
                    self.add(&b, no),
                    self.add(&a, [true, false]),
                ]
            }
            // Deleted twice, the other way the second time, with something between.
            _ if self.rng.u32(0..3) == 0 => {
                let mut ways = ["soft", "hard"];
                self.rng.shuffle(&mut ways);
                vec![
                    self.add(&a, yes),
                    name_defaults(Some(&b), None),
                    remove(ways[0]),
                    self.add(&b, yes),
                    delete(&a),
                    remove(ways[1]),
                    self.add(&a, one),
                ]
            }
            _ => vec![
                delete(&b),
                update(&b, json!({"updatedFields": {"city": "Rome"}})),
                name_defaults(Some(&b), None),
                self.add(&b, no),
            ],
        };
        scene.into()
    }

    /// An address added whole, sometimes with some of it missing or wrong.
    fn add(&mut self, id: &str, [shipping, billing]: [bool; 2]) -> Told {
        let mut payload = object(json!({
            "addressId": id, "addressType": "home",
            "isDefaultShipping": shipping, "isDefaultBilling": billing, "country": "DE",
        }));
        let address = self.place();
        payload.insert("fullAddress".into(), Value::Object(address));
        ("UserAddressAdded", payload, &["addTimestamp"])
    }

    /// An address as one might stand on a parcel, right or nearly so.
    fn place(&mut self) -> Map<String, Value> {
        let places = [
            ("DE", "Berlin", None, "10115"),
            ("US", "San Francisco", Some("CA"), "94103"),
            ("US", "New York", Some("NY"), "10001-1234"),
            ("CA", "Toronto", Some("ON"), "M5V 3L9"),
            ("GB", "London", None, "SW1A 1AA"),
            ("fr", "Paris", None, "75001"),
            ("JP", "Chiyoda", Some("Tokyo"), "100-0001"),
            ("AU", "Sydney", Some("NSW"), "2000"),
            ("IT", "Roma", Some("RM"), "00184"),
            ("BR", "Rio de Janeiro", Some("RJ"), "20040-002"),
            ("IE", "Dublin", Some("Co. Dublin"), "D02 X285"),
            ("HK", "Central", Some("Hong Kong Island"), ""),
            ("AE", "Dubai", Some("Dubai"), ""),
            ("in", "Mumbai", Some("Maharashtra"), "400001"),
            ("SG", "Singapore", None, "018956"),
        ];
        let (country, city, state, postal_code) = places[self.rng.usize(0..places.len())];
        let mut place = object(json!({
            "streetLine1": self.pick(&["1 Main Street", "2 High Street"]),
            "city": city, "postalCode": postal_code, "country": country,
        }));
        if let Some(state) = state {
            place.insert("state".into(), json!(state));
        }
        for (name, value) in [
            ("streetLine2", "Floor 3"),
            ("contactName", "A. Person"),
            ("phone", "+49 30 1234"),
            ("companyName", "A & Co"),
            ("additionalNotes", "Ring twice"),
        ] {
            if self.rng.u32(0..3) == 0 {
                place.insert(name.into(), json!(value));
            }
        }
        match self.rng.u32(0..12) {
            0 => drop(place.remove("city")),
            1 => drop(place.remove("postalCode")),
            2 => drop(place.remove("state")),
            3 => drop(place.remove("streetLine1")),
            4 => {
                let bad = [
                    "ABCDEF-1",
                    "1",
                    "sw1a 1aa",
                    "\u{661}\u{660}\u{661}\u{661}\u{665}",
                ];
                drop(place.insert("postalCode".into(), json!(self.pick(&bad))));
            }
            5 => drop(place.insert("state".into(), json!("Atlantis"))),
            6 => drop(place.insert("country".into(), json!(self.pick(&["XX", "Germany", "zz"])))),
            _ => {}
        }
        place
    }

    fn registered(&mut self) -> (&'static str, Map<String, Value>, &'static [&'static str]) {
        let mut payload = object(json!({
            "email": self.email(),
            "status": self.pick(&["active", "pending_verification"]),
        }));
        for name in ["username", "firstName", "lastName", "source"] {
            match self.rng.u32(0..5) {
                0 => {}
                1 => drop(payload.insert(name.into(), Value::Null)),
                _ => {
                    let value = self.text();
                    payload.insert(name.into(), json!(value));
                }
            }
        }
        (
            "UserRegistered",
            payload,
            &["registrationTimestamp", "registeredAt"],
        )
    }

    /// `updatedFields` in one of its shapes, for some of the names.
    fn changes(&mut self, names: &[&str]) -> Map<String, Value> {
        let mut payload = Map::new();
        let mut names: Vec<&str> = names.to_vec();
        self.rng.shuffle(&mut names);
        names.truncate(self.rng.usize(0..4));
        if self.rng.bool() {
            let mut entries = Map::new();
            for name in names {
                let value = self.value(name);
                let entry = match self.rng.u32(0..6) {
                    0 => json!({"old": "before", "new": value}),
                    1 => json!({"new": value}),
                    2 => json!({"old": "before"}),
                    _ => value,
                };
                entries.insert(name.into(), entry);
            }
            payload.insert("updatedFields".into(), Value::Object(entries));
            if self.rng.u32(0..5) == 0 {
                payload.insert(
                    "newValues".into(),
                    json!({"email": "ignored@example.com", "city": "ignored"}),
                );
            }
            return payload;
        }
        payload.insert("updatedFields".into(), json!(names));
        let mut values = Map::new();
        for name in names {
            let value = self.value(name);
            match (self.rng.u32(0..4), name.split_once('.')) {
                // Listed, and nobody knows what it became.
                (0, _) => {}
                (1, Some((object, path))) => {
                    drop(values.insert(object.into(), json!({path: value})))
                }
                _ => drop(values.insert(name.into(), value)),
            }
        }
        values.insert("notListed".into(), json!("ignored"));
        match self.rng.u32(0..5) {
            0 => {}
            1 => drop(payload.insert("newValues".into(), Value::Null)),
            _ => drop(payload.insert("newValues".into(), Value::Object(values))),
        }
        payload
    }

    fn value(&mut self, name: &str) -> Value {
        match self.rng.u32(0..8) {
            0 => Value::Null,
            1 => json!(""),
            // From few: what is written is what was there, again and again.
            2..5 if self.is_of_address(name) => {
                let written = [
                    "Berlin",
                    "10115",
                    "1 Main Street",
                    "CA",
                    "94103",
                    "Bayern",
                    "California",
                    "SW1A 1AA",
                    "M5V 3L9",
                ];
                match name {
                    "city" => json!(self.pick(&["Berlin", "Paris", "Rome"])),
                    "postalCode" | "zipCode" => {
                        json!(
                            self.pick(&["10115", "94103", "SW1A 1AA", "1011", "m5v3L9", " 00000 "])
                        )
                    }
                    "stateOrProvince" | "state" | "province" => {
                        json!(self.pick(&[
                            "CA",
                            "NY",
                            "ON",
                            "Bayern",
                            "ca",
                            "California",
                            "US-CA",
                            "ZZ"
                        ]))
                    }
                    "streetLine1" | "addressLine1" => {
                        json!(self.pick(&["1 Main Street", "2 High Street"]))
                    }
                    "country" | "countryCode" => {
                        json!(self.pick(&["DE", "US", "ca", "GB", "JP", "xx", "USA"]))
                    }
                    _ => json!(self.pick(&written)),
                }
            }
            _ => match name {
                "email" | "secondaryEmail" => json!(self.email()),
                "country" | "countryCode" => json!(self.pick(&["DE", "fr", "Us"])),
                "preferences.theme" => json!(self.rng.bool()),
                _ => json!(self.text()),
            },
        }
    }

    fn is_of_address(&self, name: &str) -> bool {
        SPELLINGS.iter().any(|spellings| spellings.contains(&name))
    }

    fn address_added(
        &mut self,
        user: usize,
    ) -> (&'static str, Map<String, Value>, &'static [&'static str]) {
        let id = self.address_id(user);
        let mut payload = object(json!({
            "addressId": id,
            "addressType": self.pick(&["shipping", "billing", "home", "work", "elsewhere"]),
            "isDefaultShipping": self.rng.u32(0..3) == 0,
            "isDefaultBilling": self.rng.u32(0..3) == 0,
            "country": self.pick(&["DE", "fr", "US", "jp"]),
        }));
        self.full_address(&mut payload);
        ("UserAddressAdded", payload, &["addTimestamp"])
    }

    fn address_updated(
        &mut self,
        user: usize,
    ) -> (&'static str, Map<String, Value>, &'static [&'static str]) {
        let id = self.address_id(user);
        let mut payload = if self.rng.u32(0..3) == 0 {
            let mut payload = object(json!({"updatedFields": {"isDefaultShipping": true}}));
            if self.rng.bool() {
                payload["updatedFields"]["addressType"] = json!("work");
            }
            self.full_address(&mut payload);
            payload
        } else {
            let names: Vec<&str> = SPELLINGS
                .iter()
                .map(|spellings| self.pick(spellings))
                .collect();
            let names = [&names[..], &["addressType", "isDefaultBilling"]].concat();
            self.changes(&names)
        };
        payload.insert("addressId".into(), json!(id));
        ("UserAddressUpdated", payload, &["updateTimestamp"])
    }

    fn full_address(&mut self, payload: &mut Map<String, Value>) {
        match self.rng.u32(0..6) {
            0 => {}
            1 => drop(payload.insert("fullAddress".into(), Value::Null)),
            2 if self.rng.u32(0..4) == 0 => drop(payload.insert("fullAddress".into(), json!(""))),
            3 => {
                let address = self.place();
                payload.insert("fullAddress".into(), Value::Object(address));
            }
            _ => {
                let mut address = Map::new();
                for spellings in SPELLINGS {
                    if self.rng.u32(0..6) > 0 {
                        let name = self.pick(spellings);
                        let value = self.value(name);
                        address.insert(name.into(), value);
                    }
                }
                payload.insert("fullAddress".into(), Value::Object(address));
            }
        }
    }

    fn role(&mut self) -> (&'static str, Map<String, Value>, &'static [&'static str]) {
        let role = json!({"roleId": "r", "roleName": "R", "createdBy": "a", "updatedBy": "a", "deletedBy": "a",
            "assignedBy": "a", "removedBy": "a", "permissionId": "p", "permissionName": "P",
            "updatedFields": ["roleName"], "newValues": {"roleName": "S"}, "initialPermissionIds": ["p"]});
        let types = [
            "RoleCreated",
            "RoleUpdated",
            "RoleDeleted",
            "UserRoleAssigned",
            "UserRoleRemoved",
            "PermissionCreated",
            "PermissionUpdated",
            "PermissionDeleted",
            "PermissionAssignedToRole",
            "PermissionRemovedFromRole",
        ];
        (self.pick(&types), object(role), &["someTimestamp"])
    }

    fn address_id(&mut self, user: usize) -> String {
        let known = &self.users[user].addresses;
        if known.is_empty() || known.len() < 4 && self.rng.u32(0..3) == 0 {
            let id = match self.rng.u32(0..6) {
                0 => self.rng.choice(odd_ids()).expect("some"),
                // Somebody else's, perhaps on another partition.
                1 => {
                    let other = self.rng.usize(0..self.users.len());
                    let id = self.users[other].addresses.first().cloned();
                    id.unwrap_or_else(|| uuid(&mut self.rng))
                }
                _ => uuid(&mut self.rng),
            };
            self.users[user].addresses.push(id.clone());
            return id;
        }
        known[self.rng.usize(0..known.len())].clone()
    }

    // ---- how it is written down

    fn written(&mut self, user: usize, draft: Draft, now: i64) -> Record {
        self.next_id += 1;
        let id = match self.rng.u32(0..50) {
            0 => format!("{}/{}", "\u{1f4e8}".repeat(100), self.next_id),
            // Seen on another partition, where it is another event.
            1 if !self.heals && !self.past.is_empty() => {
                let past = &self.past[self.rng.usize(0..self.past.len())];
                let elsewhere = past.record.partition != self.users[user].partition;
                if elsewhere {
                    past.event_id.clone()
                } else {
                    uuid(&mut self.rng)
                }
            }
            _ => uuid(&mut self.rng),
        };
        self.written_as(user, draft, id, now)
    }

    fn written_as(&mut self, user: usize, draft: Draft, event_id: String, now: i64) -> Record {
        let event_type = draft.event_type.to_owned();
        let version = if self.rng.u32(0..200) == 0 {
            self.pick(&["7", "2", "4294967296"])
        } else {
            "1"
        };
        let dialect = self.rng.u32(0..4);
        let mut spelled = match self.rng.u32(0..6) {
            0 => format!("{event_type}EventV{version}"),
            1 => format!("{event_type}.v{version}"),
            2 => format!("{event_type}Event.v{version}"),
            3 => format!("{event_type}V{version}"),
            4 => format!("{event_type}Event"),
            _ => event_type,
        };
        if dialect >= 2 && self.rng.bool() {
            spelled = format!("com.example-shop.user.{spelled}");
        }
        let time = self.time(now);
        let record = self.enveloped(
            user,
            dialect,
            &spelled,
            &event_id,
            Some(&time),
            draft.payload,
        );
        let past = Past {
            event_id,
            record: Record {
                timestamp: now,
                ..record.clone()
            },
        };
        if self.past.len() < 20_000 {
            self.past.push(past);
        } else {
            let at = self.rng.usize(0..self.past.len());
            self.past[at] = past;
        }
        record
    }

    fn enveloped(
        &mut self,
        user: usize,
        dialect: u32,
        event_type: &str,
        id: &str,
        time: Option<&str>,
        payload: Map<String, Value>,
    ) -> Record {
        let mut headers = Vec::new();
        let names = match dialect {
            0 if self.rng.bool() => [
                "eventType",
                "eventId",
                "eventTimestamp",
                "sourceService",
                "version",
                "payload",
            ],
            0 => [
                "eventType",
                "eventId",
                "timestamp",
                "source",
                "version",
                "data",
            ],
            1 => [
                "messageType",
                "messageId",
                "timestamp",
                "sourceService",
                "envelopeVersion",
                "payload",
            ],
            2 => ["type", "id", "time", "source", "specversion", "data"],
            _ => [
                "ce_type",
                "ce_id",
                "ce_time",
                "ce_source",
                "ce_specversion",
                "",
            ],
        };
        let mut body = Map::new();
        let version = if dialect == 2 || dialect == 3 {
            "1.0.2"
        } else {
            "1.0"
        };
        let mut meta = vec![
            (names[0], event_type.to_owned()),
            (names[1], id.to_owned()),
            (names[3], "user-service".to_owned()),
            (names[4], version.to_owned()),
        ];
        if let Some(time) = time.filter(|_| self.rng.u32(0..12) > 0) {
            meta.push((names[2], time.to_owned()));
        }
        if dialect == 3 {
            headers.extend(
                meta.into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_bytes())),
            );
            headers.push(("content-type".into(), b"application/json".to_vec()));
            body = payload;
        } else {
            body.extend(
                meta.into_iter()
                    .map(|(name, value)| (name.to_owned(), json!(value))),
            );
            body.insert(names[5].into(), Value::Object(payload));
            if self.rng.u32(0..10) == 0 {
                headers.push(("correlationId".into(), b"c-1".to_vec()));
                // Not both headers that make it binary: the body tells.
                headers.push(("ce_id".into(), b"not-this".to_vec()));
            }
        }
        if self.rng.u32(0..20) == 0 {
            let trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec();
            headers.push(("traceparent".into(), trace));
        }
        let value = self.json(&Value::Object(body));
        let User { key, partition, .. } = &self.users[user];
        Record {
            partition: *partition,
            key: key.clone(),
            value: Some(value),
            headers,
            timestamp: 0,
        }
    }

    /// JSON in different dresses, all of them meaning the same.
    fn json(&mut self, value: &Value) -> Vec<u8> {
        let mut text = match self.rng.u32(0..6) {
            0 => serde_json::to_string_pretty(value).expect("JSON"),
            _ => value.to_string(),
        };
        match self.rng.u32(0..12) {
            // The last of duplicate names counts.
            0 => text = text.replacen("\"userId\":", "\"userId\":\"not-this-one\",\"userId\":", 1),
            1 => {
                let mut escaped = String::new();
                for c in text.chars() {
                    if c.is_ascii() {
                        escaped.push(c);
                    } else {
                        let mut units = [0; 2];
                        for unit in c.encode_utf16(&mut units) {
                            escaped.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                }
                text = escaped;
            }
            2 => text = format!(" \r\n\t{text}\n"),
            _ => {}
        }
        text.into_bytes()
    }

    // ---- what should not have been written

    fn redelivery(&mut self, now: i64) -> Option<Record> {
        let at = self.rng.usize(0..self.past.len().max(1));
        let past = self.past.get(at)?;
        let age = now - past.record.timestamp;
        if (80 * DAY..100 * DAY).contains(&age) {
            return None;
        }
        let id = past.event_id.clone();
        let mut record = past.record.clone();
        if age >= 100 * DAY {
            // Applied anew: once is enough, its age is another now.
            self.past.swap_remove(at);
        } else if self.rng.u32(0..3) == 0 {
            // The same id with other contents, even bad ones.
            let near = (0..self.users.len()).find(|n| {
                let user = &self.users[*n];
                user.partition == record.partition && (!self.heals || user.key == record.key)
            })?;
            let draft = self.draft(near, now);
            let mut payload = draft.payload;
            if self.rng.bool() {
                payload.remove("userId");
            }
            let dialect = self.rng.u32(0..4);
            record = self.enveloped(near, dialect, draft.event_type, &id, None, payload);
        }
        Some(record)
    }

    fn tombstone(&mut self) -> Option<Record> {
        let user = self.rng.usize(0..self.users.len());
        let User { key, partition, .. } = &self.users[user];
        Some(Record {
            partition: *partition,
            key: key.clone(),
            value: None,
            headers: vec![],
            timestamp: 0,
        })
    }

    fn oversized(&mut self, now: i64) -> Option<Record> {
        let (user, mut record) = self.bad_base(now)?;
        if !self.heals {
            record = self.shielded(user, record);
        }
        let exact = self.rng.bool();
        let value = record.value.as_mut()?;
        value.resize(
            if exact {
                MAX_VALUE_BYTES
            } else {
                MAX_VALUE_BYTES + 1
            },
            b' ',
        );
        Some(record)
    }

    fn unknown(&mut self, now: i64) -> Option<Record> {
        let user = self.rng.usize(0..self.users.len());
        let draft = self.draft(user, now);
        let event_type = self.pick(&[
            "UserTeleported",
            "userregistered",
            "UserRegisteredV0",
            "UserRegistered.v01",
            "UserRegistered.V1",
            "UserRegisteredEventEvent",
            "UserRegistered ",
            "UserRegisteredV",
            "com.example.user.Unheard.v3",
        ]);
        let id = uuid(&mut self.rng);
        let dialect = self.rng.u32(0..4);
        Some(self.enveloped(user, dialect, event_type, &id, None, draft.payload))
    }

    /// A good record whose key is the user's own for the unlucky, else one of its own or none.
    /// A good record and whose it is, to be spoilt.
    fn bad_base(&mut self, now: i64) -> Option<(usize, Record)> {
        let user = self.rng.usize(0..self.users.len());
        let draft = self.draft(user, now);
        let id = uuid(&mut self.rng);
        let dialect = self.rng.u32(0..4);
        let time = self.time(now);
        let record = self.enveloped(
            user,
            dialect,
            draft.event_type,
            &id,
            Some(&time),
            draft.payload,
        );
        Some((user, record))
    }

    fn shielded(&mut self, user: usize, mut record: Record) -> Record {
        if !self.users[user].unlucky {
            let own = format!("bad-{}", self.next_id);
            record.key = self.rng.bool().then(|| own.into_bytes());
            self.next_id += 1;
        }
        record
    }

    fn bad(&mut self, now: i64) -> Option<Record> {
        let kind = self.rng.u32(0..24);
        if kind < 9 {
            let (user, record) = self.bad_base(now)?;
            let mut record = self.shielded(user, record);
            let value = record.value.as_mut()?;
            match kind {
                0 => value.truncate(value.len() / 2),
                1 => *value = [b"{\"a\":\"\xff\xfe\",", &value[1..]].concat(),
                2 => value.clear(),
                3 => {
                    *value = self
                        .pick(&[
                            "[]", "5", "null", "\"text\"", "true", "nul", "{", "\u{feff}",
                        ])
                        .into()
                }
                4 => value.extend(b" {}"),
                5 => {
                    let depth = self.pick(&["127", "128", "200"]).parse().expect("a number");
                    let deep = ["[".repeat(depth), "]".repeat(depth)].concat();
                    *value = [b"{\"deep\":", deep.as_bytes(), b",", &trimmed(value)[1..]].concat();
                }
                6 => {
                    let number = self.pick(&["1e999", "-1e400"]);
                    *value = [
                        b"{\"large\":",
                        number.as_bytes(),
                        b",",
                        &trimmed(value)[1..],
                    ]
                    .concat();
                }
                7 => *value = vec![b'['; 10_000],
                _ => value.insert(0, b','),
            }
            return Some(record);
        }
        let user = self.rng.usize(0..self.users.len());
        let mut draft = self.draft(user, now);
        let payload = &mut draft.payload;
        let mut id = uuid(&mut self.rng);
        let mut event_type = draft.event_type;
        let mut time = None;
        let required: Vec<String> = [
            "userId",
            "profileId",
            "addressId",
            "email",
            "status",
            "newStatus",
            "previousStatus",
            "addressType",
            "country",
            "isDefaultShipping",
            "updatedFields",
        ]
        .into_iter()
        .filter(|name| payload.contains_key(*name))
        .map(str::to_owned)
        .collect();
        let field = self.rng.choice(required).expect("there is always userId");
        match kind {
            9 => drop(payload.remove(&field)),
            10 => drop(payload.insert(field, Value::Null)),
            11 => drop(payload.insert(field, json!(""))),
            12 => drop(payload.insert(field, json!(12))),
            13 => drop(payload.insert("userId".into(), json!("a\0b"))),
            14 => drop(payload.insert("userId".into(), json!("\u{1f980}".repeat(256)))),
            15 => id = String::new(),
            16 => id = "x".repeat(256),
            17 => id = "nul\0".into(),
            18 => event_type = "",
            19 => drop(payload.insert("profileId".into(), json!({"a": 1}))),
            20 => {
                let bad = [
                    "yesterday",
                    "2026-13-01T00:00:00Z",
                    "1969-12-31T23:59:59Z",
                    "2201-01-01T00:00:00Z",
                    "2026-01-01",
                    "2026-01-01T00:00:00",
                    "2026-01-01T25:00:00Z",
                ];
                let bad = self.pick(&bad);
                for own in [
                    "registrationTimestamp",
                    "registeredAt",
                    "verificationTimestamp",
                    "changeTimestamp",
                    "updateTimestamp",
                    "deletionTimestamp",
                    "addTimestamp",
                    "deleteTimestamp",
                ] {
                    payload.remove(own);
                }
                time = Some(bad);
                // A good one of its own, and the bad one does not count.
                if event_type == "UserProfileUpdated" && self.rng.bool() {
                    payload.insert("updateTimestamp".into(), json!("2026-02-03T04:05:06.7Z"));
                }
            }
            21 => {
                let fields = self.rng.choice([
                    json!([5]),
                    json!(["firstName", null]),
                    json!("firstName"),
                    json!(true),
                    json!({"firstName": 5}),
                    json!({"bio": ["a"]}),
                    json!({"lastName": {"new": true}}),
                ]);
                payload.insert("updatedFields".into(), fields.expect("some"));
            }
            22 => {
                let address = self.rng.choice([
                    json!("a street"),
                    json!([1]),
                    json!({"city": 5}),
                    json!(true),
                ]);
                payload.insert("fullAddress".into(), address.expect("some"));
            }
            _ => {
                let times = ["updateTimestamp", "addTimestamp", "changeTimestamp"];
                let bad = self
                    .rng
                    .choice([json!(1_767_225_600), json!("soon"), json!(true)])
                    .expect("some");
                times
                    .into_iter()
                    .for_each(|name| drop(payload.insert(name.into(), bad.clone())));
            }
        }
        let dialect = self.rng.u32(0..4);
        let record = self.enveloped(user, dialect, event_type, &id, time, draft.payload);
        Some(self.shielded(user, record))
    }

    // ---- small things

    fn time(&mut self, now: i64) -> String {
        let seconds = (now / 1000) + self.rng.i64(-100_000..1000);
        let utc = chrono::DateTime::from_timestamp(seconds, 0).expect("in range");
        let offset = self.rng.choice([0, 7200, -34_200, 50_400]).expect("some");
        let local = utc.with_timezone(&chrono::FixedOffset::east_opt(offset).expect("an offset"));
        let fraction = self.pick(&[
            "",
            ".5",
            ".123",
            ".123456",
            ".123456789",
            ".000000000001",
            ".999999999999",
        ]);
        let plain = local.format("%Y-%m-%dT%H:%M:%S");
        match (offset, self.rng.u32(0..60)) {
            (_, 0) => self
                .pick(&["1970-01-01T00:00:00Z", "2200-12-31T23:59:59.999999999Z"])
                .to_owned(),
            (0, 1..6) => format!("{plain}{fraction}z").replace('T', "t"),
            (0, 6..40) => format!("{plain}{fraction}Z"),
            _ => format!("{plain}{fraction}{}", local.format("%:z")),
        }
    }

    fn email(&mut self) -> String {
        format!("user{}@example.com", self.rng.u32(0..5))
    }

    fn text(&mut self) -> String {
        let long = "long ".repeat(self.rng.usize(1..400));
        match self.rng.u32(0..40) {
            0 => long,
            1 => "nul\0inside".into(),
            2 => "\u{1f469}\u{200d}\u{1f680} \u{202e}rtl".into(),
            3 => "quote\" back\\slash \u{1} {\"json\": true}".into(),
            4 => " ".into(),
            n => format!("text {n}"),
        }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.rng.usize(0..from.len())]
    }
}

const SPELLINGS: &[&[&str]] = &[
    &["streetLine1", "addressLine1"],
    &["streetLine2", "addressLine2"],
    &["city"],
    &["stateOrProvince", "state", "province"],
    &["postalCode", "zipCode"],
    &["country", "countryCode"],
    &["contactName", "recipientName"],
    &["contactPhone", "phone"],
    &["companyName"],
    &["additionalNotes"],
];

fn update(id: &str, what: Value) -> Told {
    let mut payload = object(what);
    payload.insert("addressId".into(), json!(id));
    ("UserAddressUpdated", payload, &["updateTimestamp"])
}

fn delete(id: &str) -> Told {
    let payload = object(json!({"addressId": id}));
    ("UserAddressDeleted", payload, &["deleteTimestamp"])
}

fn name_defaults(shipping: Option<&str>, billing: Option<&str>) -> Told {
    let payload = json!({"defaultShippingAddressId": shipping, "defaultBillingAddressId": billing});
    (
        "UserProfileDefaultAddressChanged",
        object(payload),
        &["changeTimestamp"],
    )
}

fn remove(deletion: &str) -> Told {
    let payload = object(json!({"deletionType": deletion}));
    ("UserDeleted", payload, &["deletionTimestamp"])
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("{other} is no object"),
    }
}

fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

fn uuid(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes())
        .into_uuid()
        .to_string()
}
