//! Records that producers should not write: redeliveries, tombstones, unknown types, records that are too
//! large, and records that are bad in every other way.

use serde_json::{Map, Value, json};

use super::MAX_VALUE_BYTES;
use super::envelopes::DIALECTS;
use super::generator::{DAY, Generator, User};
use super::values::{UNPAIRED, uuid};
use crate::broker::Record;

/// Stands in a payload for JSON that is beyond the limits, which `serde_json` itself can't write.
const BEYOND_LIMITS: &str = "beyond-limits";

/// How many kinds of bad records have a value that is spoiled as a whole.
const UNREADABLE_KINDS: u32 = 9;

impl Generator {
    /// A record that was written before, or another one with its event id.
    pub(super) fn redelivery(&mut self, now: i64) -> Option<Record> {
        let at = self.rng.usize(0..self.past.len().max(1));
        let past = self.past.get(at)?;
        let age = now - past.record.timestamp;
        if (80 * DAY..100 * DAY).contains(&age) {
            return None;
        }
        let id = past.event_id.clone();
        let mut record = past.record.clone();
        if age >= 100 * DAY {
            // It is applied again, as its id has expired. Not redelivered once more: its age has changed.
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
            let dialect = self.rng.u32(0..DIALECTS);
            let Record { key, partition, .. } = record;
            record = self.enveloped(near, dialect, draft.event_type, &id, None, payload);
            if self.heals {
                (record.key, record.partition) = (key, partition);
            }
        }
        Some(record)
    }

    pub(super) fn tombstone(&mut self) -> Option<Record> {
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

    /// A value of exactly the allowed size, or one byte larger.
    pub(super) fn oversized(&mut self, now: i64) -> Option<Record> {
        let (user, mut record) = self.good_record(now)?;
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

    /// A record of a type that the catalogue does not have.
    pub(super) fn unknown(&mut self, now: i64) -> Option<Record> {
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
            "User\0Ghost",
            "RoleRenamed",
            "long",
        ]);
        let long = "Long".repeat(75);
        let event_type = if event_type == "long" {
            &long
        } else {
            event_type
        };
        let mut id = uuid(&mut self.rng);
        let mut time = self.rng.bool().then(|| self.time(now));
        // Bad where somebody is interested in such types.
        match self.rng.u32(0..20) {
            0 => id = String::new(),
            1 => id = "x".repeat(256),
            2 => time = Some("yesterday".to_owned()),
            _ => {}
        }
        let dialect = self.rng.u32(0..DIALECTS);
        Some(self.enveloped(
            user,
            dialect,
            event_type,
            &id,
            time.as_deref(),
            draft.payload,
        ))
    }

    /// A user and a good record of it, to be spoiled.
    fn good_record(&mut self, now: i64) -> Option<(usize, Record)> {
        let user = self.rng.usize(0..self.users.len());
        let draft = self.draft(user, now);
        let id = uuid(&mut self.rng);
        let dialect = self.rng.u32(0..DIALECTS);
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

    /// Gives a bad record a key that nobody else has, or no key, so that it parks no other key; not for
    /// unlucky users, roles and permissions.
    fn shielded(&mut self, user: usize, mut record: Record) -> Record {
        let mut named = self.roles.iter().chain(&self.permissions);
        let of_named = named.find(|named| record.key.as_deref() == Some(named.id.as_bytes()));
        if !of_named.map_or(self.users[user].unlucky, |named| named.unlucky) {
            let own = format!("bad-{}", self.next_id);
            record.key = self.rng.bool().then(|| own.into_bytes());
            self.next_id += 1;
        }
        record
    }

    /// A record whose value is not acceptable JSON, or is no object.
    fn unreadable(&mut self, kind: u32, now: i64) -> Option<Record> {
        let (user, record) = self.good_record(now)?;
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
        Some(record)
    }

    /// The name of a required field that the payload has.
    fn required_field(&mut self, payload: &Map<String, Value>) -> String {
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
            "changeType",
            "mfaEnabled",
            "reason",
            "roleId",
            "roleName",
            "permissionId",
            "permissionName",
            "newValues",
            "createdBy",
            "updatedBy",
            "deletedBy",
            "assignedBy",
            "removedBy",
        ]
        .into_iter()
        .filter(|name| payload.contains_key(*name))
        .map(str::to_owned)
        .collect();
        self.rng.choice(required).expect("there is always userId")
    }

    /// A bad time for the envelope. Removes the event's own times, which would count before it.
    fn bad_time(&mut self, event_type: &str, payload: &mut Map<String, Value>) -> &'static str {
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
            "requestTimestamp",
            "loginTimestamp",
            "failureTimestamp",
            "logoutTimestamp",
            "creationTimestamp",
            "assignmentTimestamp",
            "removalTimestamp",
        ] {
            payload.remove(own);
        }
        // With a good time of its own, the envelope's bad one does not count.
        if event_type == "UserProfileUpdated" && self.rng.bool() {
            payload.insert("updateTimestamp".into(), json!("2026-02-03T04:05:06.7Z"));
        }
        bad
    }

    /// Fields of the wrong JSON type: `updatedFields`, `fullAddress` or times.
    fn bad_types(&mut self, kind: u32, payload: &mut Map<String, Value>) {
        match kind {
            21 => {
                let fields = self.rng.choice([
                    json!([5]),
                    json!(["firstName", null]),
                    json!("firstName"),
                    json!(true),
                    json!({"firstName": 5}),
                    json!({"bio": ["a"]}),
                    json!({"lastName": {"new": true}}),
                    json!({"preferences": 5}),
                    json!({"preferences": ["dark"]}),
                    json!({"communicationPreferences": {"old": {}, "new": "all"}}),
                    json!({"roleName": 5, "permissionName": 5}),
                    json!({"description": {"new": []}}),
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
                let times = [
                    "updateTimestamp",
                    "addTimestamp",
                    "changeTimestamp",
                    "loginTimestamp",
                    "failureTimestamp",
                    "assignmentTimestamp",
                ];
                let bad = self
                    .rng
                    .choice([json!(1_767_225_600), json!("soon"), json!(true)])
                    .expect("some");
                times
                    .into_iter()
                    .for_each(|name| drop(payload.insert(name.into(), bad.clone())));
            }
        }
    }

    /// Fields of the wrong JSON type, which audit reads.
    fn bad_types_in_audit(&mut self, payload: &mut Map<String, Value>) {
        let wrong = [
            ("initialPermissionIds", json!([5])),
            ("initialPermissionIds", json!(["p", ""])),
            ("initialPermissionIds", json!([null])),
            ("initialPermissionIds", json!(["x".repeat(256)])),
            ("initialPermissionIds", json!("p")),
            ("newValues", json!([])),
            ("newValues", json!({"roleName": 5, "description": {}})),
            ("oldValues", json!("before")),
            ("description", json!(5)),
            ("createdBy", json!(["admin"])),
            ("changedBy", json!(7)),
            ("ipAddress", json!({"v4": "192.0.2.1"})),
            ("userAgent", json!(5)),
            ("sessionId", json!("x".repeat(256))),
            ("revokedTokenJtis", json!({})),
            ("attemptedUsername", json!(false)),
        ];
        // Of some types none of these is a field.
        for (name, value) in wrong {
            if payload.contains_key(name) || self.rng.u32(0..8) == 0 {
                payload.insert(name.into(), value);
            }
        }
    }

    /// A record that is bad in one of 28 ways, or beyond the limits.
    pub(super) fn bad(&mut self, now: i64) -> Option<Record> {
        let kind = self.rng.u32(0..34);
        if kind < UNREADABLE_KINDS {
            return self.unreadable(kind, now);
        }
        let user = self.rng.usize(0..self.users.len());
        let mut draft = self.draft(user, now);
        let payload = &mut draft.payload;
        let mut id = uuid(&mut self.rng);
        let mut event_type = draft.event_type;
        let mut time = None;
        let field = self.required_field(payload);
        let user_field = match event_type {
            "UserLoginFailed" => "attemptedUserId",
            _ if payload.contains_key("roleId") && self.rng.bool() => "roleId",
            _ => "userId",
        };
        match kind {
            9 => drop(payload.remove(&field)),
            10 => drop(payload.insert(field, Value::Null)),
            11 => drop(payload.insert(field, json!(""))),
            12 => drop(payload.insert(field, json!(12))),
            13 => drop(payload.insert(user_field.into(), json!("a\0b"))),
            14 => drop(payload.insert(user_field.into(), json!("\u{1f980}".repeat(256)))),
            15 => id = String::new(),
            16 => id = "x".repeat(256),
            17 => id = "nul\0".into(),
            18 => event_type = "",
            19 => drop(payload.insert("profileId".into(), json!({"a": 1}))),
            20 => time = Some(self.bad_time(event_type, payload)),
            24 => drop(payload.insert(user_field.into(), json!(format!("a{UNPAIRED}")))),
            25 => id = format!("cut off {UNPAIRED}"),
            26..30 => {
                payload.insert("futureField".into(), json!(BEYOND_LIMITS));
                if self.rng.bool() {
                    // Of no interest to most domains, so they skip it.
                    event_type = self.pick(&["UserLoggedIn", "UserLoggedIn", "UserTeleported"]);
                }
            }
            30 => {}
            31.. => self.bad_types_in_audit(payload),
            _ => self.bad_types(kind, payload),
        }
        let dialect = self.rng.u32(0..DIALECTS);
        let mut record = self.enveloped(user, dialect, event_type, &id, time, draft.payload);
        if kind == 30 {
            record.headers.retain(|(name, _)| name != "correlationId");
            let bad = self
                .rng
                .choice([vec![b'x'; 256], b"a\0b".to_vec(), vec![0xff]]);
            let header = ("correlationId".to_owned(), bad.expect("some"));
            record.headers.push(header);
        }
        if (26..30).contains(&kind) {
            let deep = ["[".repeat(200), "]".repeat(200)].concat();
            let beyond = if self.rng.bool() { &deep } else { "1e999" };
            record.value = record.value.map(|value| beyond_limits(&value, beyond));
        }
        Some(self.shielded(user, record))
    }
}

/// Replaces the text that stands for JSON beyond the limits, with its quotes; they are escaped in a JSON string.
fn beyond_limits(value: &[u8], json: &str) -> Vec<u8> {
    // A wrapping need not be UTF-8.
    let (framing, text) = value.split_at(if value.first() == Some(&0) { 5 } else { 0 });
    let text = std::str::from_utf8(text).expect("UTF-8");
    let escaped = format!(r#"\"{BEYOND_LIMITS}\""#);
    let text = text.replace(&escaped, json);
    let text = text.replace(&format!(r#""{BEYOND_LIMITS}""#), json);
    [framing, text.as_bytes()].concat()
}

fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}
