//! Sample users: what a User Service would publish about some hundred people, in four envelope dialects.
//!
//! Promises: the same users at each start. The users of the documentation's examples come first, and nothing happens to
//! them later, so the examples stay true; one of them has a bad event. Then come 200 users at once, and events at the
//! chosen rate: all valid, none ahead of the clock, one in fifty published twice, as producers do.

use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use fastrand::Rng;
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::domains;
use crate::kafka::native;
use crate::projector::dead_letters::outbox;

/// The events of the documentation's users, a line each, with their keys.
const DOCUMENTED_USERS: &str = include_str!("documented_users.jsonl");
const USERS: usize = 200;
/// The most users. Without a limit, a session that keeps running would grow without bound.
const MOST_USERS: usize = 5_000;
const PARTITIONS: i32 = 6;
/// How long the events of a user's first day take at most.
const FIRST_DAY: TimeDelta = TimeDelta::hours(10);

const FIRST_NAMES: &[&str] = &[
    "Ada", "Amir", "Beatriz", "Chidi", "Dmitri", "Elif", "Freya", "Giulia", "Hana", "Ibrahim",
    "Jürgen", "Kavya", "Léa", "Mateo", "Ngozi", "Oskar", "Priya", "Quentin", "Rosa", "Søren",
    "Tomás", "Ulrike", "Wei", "Zoë",
];
const LAST_NAMES: &[&str] = &[
    "Almeida", "Bauer", "Chen", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ivanova",
    "Jansen", "Kowalski", "López", "Müller", "Nakamura", "Okafor", "Petrov", "Rossi", "Sharma",
    "Tanaka", "Wójcik",
];
/// Country, state, city, postal code, a street.
const SAMPLE_ADDRESSES: &[[&str; 5]] = &[
    ["DE", "", "Berlin", "10115", "Invalidenstraße"],
    ["DE", "", "München", "80331", "Sendlinger Straße"],
    ["FR", "", "Lyon", "69002", "Rue de la République"],
    ["US", "CA", "San Francisco", "94107", "Brannan Street"],
    ["US", "NY", "New York", "10013", "Canal Street"],
    ["GB", "", "London", "SW1A 1AA", "Horse Guards Road"],
    ["ES", "Madrid", "Madrid", "28013", "Calle Mayor"],
    ["NL", "", "Utrecht", "3511 LN", "Oudegracht"],
    ["JP", "Tokyo", "Shibuya", "150-0002", "Meiji-dori"],
    ["BR", "SP", "São Paulo", "01310-100", "Avenida Paulista"],
];
const ROLES: &[(&str, &str)] = &[
    ("role-support", "support"),
    ("role-editor", "editor"),
    ("role-admin", "admin"),
];

struct User {
    id: String,
    email: String,
    first_name: &'static str,
    last_name: &'static str,
    status: &'static str,
    addresses: Vec<String>,
}

#[derive(Clone)]
struct Record {
    key: String,
    headers: Vec<(&'static str, String)>,
    value: Vec<u8>,
}

/// A line of [`DOCUMENTED_USERS`].
#[derive(Deserialize)]
struct DocumentedEvent {
    key: String,
    value: Box<RawValue>,
}

/// The in-process broker and the users whose events go to it.
pub struct Samples {
    // The broker lives in this client and ends with it.
    producer: FutureProducer,
    brokers: String,
    topic: String,
    rng: Rng,
    users: Vec<User>,
    first: Vec<Record>,
    made: u64,
}

impl Samples {
    /// Starts the broker, with an empty topic, and thinks up the first users.
    pub fn start(topic: &str) -> anyhow::Result<Self> {
        let producer: FutureProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .set("linger.ms", "2")
            // It would say that it is not a real broker, as a warning.
            .set("log_level", "3")
            .create()?;
        let brokers = {
            let broker = producer
                .client()
                .mock_cluster()
                .context("no broker in the client")?;
            broker.create_topic(topic, PARTITIONS, 1)?;
            // It can't make topics when it is asked to.
            for domain in domains::names() {
                broker.create_topic(&outbox::topic_of(topic, domain), 1, 1)?;
            }
            native::form_mock_groups_at_once(producer.client());
            broker.bootstrap_servers()
        };
        let mut this = Self {
            producer,
            brokers,
            topic: topic.to_owned(),
            rng: Rng::with_seed(20_261_001),
            users: Vec::new(),
            first: Vec::new(),
            made: 0,
        };
        for line in DOCUMENTED_USERS.lines() {
            let DocumentedEvent { key, value } = serde_json::from_str(line)?;
            this.first.push(Record {
                key,
                headers: Vec::new(),
                value: value.get().into(),
            });
        }
        let last_registered = Utc::now() - FIRST_DAY;
        // They registered in the last sixty days, the first one first.
        let registered =
            |n: usize| last_registered - TimeDelta::days(60) * (USERS - n) as i32 / USERS as i32;
        for n in 0..USERS {
            let records = this.newcomer(registered(n), TimeDelta::minutes);
            this.first.extend(records);
        }
        for n in 0..USERS {
            // Some come back, fewer from week to week.
            let mut at = registered(n) + FIRST_DAY;
            while this.rng.u8(..100) < 70 {
                at += TimeDelta::hours(this.rng.i64(24..200));
                if at > last_registered {
                    break;
                }
                let record = this.logged_in(n, at);
                this.first.push(record);
            }
        }
        Ok(this)
    }

    /// The broker's address.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Publishes the first users.
    ///
    /// # Errors
    /// The broker does not take them.
    pub async fn publish_first(&mut self) -> anyhow::Result<()> {
        let first = std::mem::take(&mut self.first);
        self.publish(&first).await
    }

    /// Publishes events at this rate per second, for ever.
    pub async fn run(mut self, rate: u32) -> anyhow::Result<()> {
        if rate == 0 {
            return std::future::pending().await;
        }
        // At most fifty rounds a second, each with its share.
        let rounds = rate.min(50);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rounds);
        let mut owed = 0;
        loop {
            ticks.tick().await;
            owed += rate;
            let mut records = Vec::new();
            while owed >= rounds {
                owed -= rounds;
                records.extend(self.happening());
                if self.rng.u8(..50) == 0 {
                    records.extend(records.last().cloned());
                }
            }
            self.publish(&records).await?;
        }
    }

    async fn publish(&self, records: &[Record]) -> anyhow::Result<()> {
        let deliveries = records.iter().map(|record| {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(value),
                });
            }
            let message = FutureRecord::to(&self.topic)
                .key(&record.key)
                .headers(headers)
                .payload(&record.value);
            self.producer.send(message, Duration::from_secs(10))
        });
        try_join_all(deliveries).await.map_err(|(error, _)| error)?;
        Ok(())
    }

    /// Registers a user at this time, with the events of a first day, whose minutes take a `unit` each.
    fn newcomer(&mut self, at: DateTime<Utc>, unit: fn(i64) -> TimeDelta) -> Vec<Record> {
        let n = self.users.len();
        let (first_name, last_name) = (self.pick(FIRST_NAMES), self.pick(LAST_NAMES));
        let user = User {
            // Most ids are UUIDs, some are not.
            id: if n % 25 == 24 {
                format!("legacy-user-{n}")
            } else {
                self.uuid()
            },
            email: format!("{first_name}.{last_name}{n}@example.org").to_lowercase(),
            first_name,
            last_name,
            status: "pending_verification",
            addresses: Vec::new(),
        };
        let id = user.id.clone();
        let source = self.pick(&["direct", "direct", "google_oauth"]);
        let mut at = at;
        let mut records = vec![self.record(
            "UserRegistered",
            &id,
            at,
            json!({
                "userId": id,
                "email": user.email,
                "username": format!("{}{n}", first_name.to_lowercase()),
                "firstName": first_name,
                "lastName": last_name,
                "status": "pending_verification",
                "source": source,
                "registrationTimestamp": time(at),
            }),
        )];
        self.users.push(user);
        if self.rng.u8(..100) < 85 {
            at += unit(self.rng.i64(1..90));
            records.push(self.verified(n, at));
            self.users[n].status = "active";
            records.push(self.record(
                "UserAccountStatusChanged",
                &id,
                at,
                json!({
                    "userId": id,
                    "newStatus": "active",
                    "previousStatus": "pending_verification",
                    "reason": "email verified",
                    "changeTimestamp": time(at),
                }),
            ));
        }
        for _ in 0..self.rng.u8(0..=2) {
            at += unit(self.rng.i64(1..60));
            records.push(self.address_added(n, at));
        }
        for _ in 0..self.rng.u8(1..=3) {
            at += unit(self.rng.i64(1..120));
            let more = self.profile_updated(n, at);
            records.push(more);
            records.push(self.logged_in(n, at));
        }
        records
    }

    /// Makes one event happen now, to a random user.
    fn happening(&mut self) -> Vec<Record> {
        let (now, n) = (Utc::now(), self.rng.usize(..self.users.len()));
        let id = self.users[n].id.clone();
        let (kind, mut payload) = match self.rng.u8(..100) {
            // No event may lie ahead when it is published, so a first day passes within a second.
            0..5 if self.users.len() < MOST_USERS => {
                return self.newcomer(now - TimeDelta::seconds(1), TimeDelta::milliseconds);
            }
            30..38 => (
                "UserLoginFailed",
                json!({
                    "attemptedEmail": self.users[n].email,
                    "attemptedUserId": id,
                    "reason": self.pick(&["invalid_credentials", "invalid_credentials", "account_locked"]),
                    "ipAddress": self.ip(),
                    "failureTimestamp": time(now),
                }),
            ),
            38..46 => (
                "UserLoggedOut",
                json!({"sessionId": self.uuid(), "logoutTimestamp": time(now)}),
            ),
            46..62 => return vec![self.profile_updated(n, now)],
            62..70 => return vec![self.address_added(n, now)],
            70..78 => return vec![self.address_updated(n, now)],
            78..81 => return vec![self.address_deleted(n, now)],
            81..86 => return vec![self.default_changed(n, now)],
            86..89 => return vec![self.verified(n, now)],
            89..92 => {
                let email = format!("new.{}", self.users[n].email.trim_start_matches("new."));
                self.users[n].email.clone_from(&email);
                let fields = json!({"email": {"new": email}});
                (
                    "UserUpdated",
                    json!({"updatedFields": fields, "updateTimestamp": time(now)}),
                )
            }
            92 => (
                "UserPasswordResetRequested",
                json!({"email": self.users[n].email, "requestTimestamp": time(now)}),
            ),
            93 => (
                "UserPasswordChanged",
                json!({
                    "changeType": self.pick(&["self_initiated", "reset_completed"]),
                    "changeTimestamp": time(now),
                }),
            ),
            94 => (
                "MfaChallengeFailed",
                json!({"mfaMethod": self.pick(&["TOTP", "SMS"]), "failureTimestamp": time(now)}),
            ),
            95 => (
                "MfaStatusChanged",
                json!({
                    "mfaEnabled": self.rng.bool(),
                    "mfaMethod": self.pick(&["TOTP", "SMS", "U2F"]),
                    "changedBy": "user",
                    "changeTimestamp": time(now),
                }),
            ),
            96..98 => {
                let (role_id, role_name) = self.pick(ROLES);
                (
                    "UserRoleAssigned",
                    json!({
                        "roleId": role_id,
                        "roleName": role_name,
                        "assignedBy": "admin-user-id-001",
                        "assignmentTimestamp": time(now),
                    }),
                )
            }
            98 => {
                let status = self.pick(&["suspended", "active", "deactivated"]);
                let previous = std::mem::replace(&mut self.users[n].status, status);
                (
                    "UserAccountStatusChanged",
                    json!({
                        "newStatus": status,
                        "previousStatus": previous,
                        "changedBy": "admin-user-id-001",
                        "changeTimestamp": time(now),
                    }),
                )
            }
            // Half of the first ones stay, so that there is always something to see.
            99 if n >= USERS / 2 => (
                "UserDeleted",
                json!({
                    "deletionType": self.pick(&["soft", "soft", "hard"]),
                    "deletionTimestamp": time(now),
                }),
            ),
            _ => return vec![self.logged_in(n, now)],
        };
        if kind != "UserLoginFailed" {
            payload["userId"] = id.as_str().into();
        }
        vec![self.record(kind, &id, now, payload)]
    }

    fn verified(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        let User { id, email, .. } = &self.users[n];
        let (id, email) = (id.clone(), email.clone());
        self.record(
            "UserEmailVerified",
            &id,
            at,
            json!({
                "userId": id,
                "email": email,
                "verificationTimestamp": time(at),
            }),
        )
    }

    fn logged_in(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        let id = self.users[n].id.clone();
        let payload = json!({
            "userId": id,
            "sessionId": self.uuid(),
            "ipAddress": self.ip(),
            "userAgent": "Mozilla/5.0",
            "mfaVerified": self.rng.bool(),
            "loginTimestamp": time(at),
        });
        self.record("UserLoggedIn", &id, at, payload)
    }

    /// In both shapes of `updatedFields`, with values and, at times, without.
    fn profile_updated(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        let id = self.users[n].id.clone();
        let phone = format!("+4930{:07}", self.rng.u32(..10_000_000));
        let language = self.pick(&["en", "de", "fr", "es", "ja"]);
        let theme = self.pick(&["dark", "light"]);
        let display = format!("{} {}", self.users[n].first_name, self.users[n].last_name);
        let tracking = theme == "light";
        let mut payload = match self.rng.u8(..5) {
            0 => json!({"updatedFields": ["bio", "phoneNumber"]}),
            1 => json!({
                "updatedFields": ["preferences.theme", "languagePreference"],
                "newValues": {"preferences": {"theme": theme}, "languagePreference": language},
            }),
            2 => {
                json!({"updatedFields": {"displayName": {"old": null, "new": display}, "preferences.privacy.tracking": tracking}})
            }
            3 => {
                json!({"updatedFields": {"phoneNumber": phone, "languagePreference": {"new": language}}})
            }
            _ => json!({"updatedFields": {"phoneNumber": phone, "preferences.theme": theme}}),
        };
        payload["userId"] = id.clone().into();
        payload["profileId"] = format!("profile-{id}").into();
        payload["updateTimestamp"] = time(at).into();
        self.record("UserProfileUpdated", &id, at, payload)
    }

    fn address_added(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        let address_id = format!("addr-{}", &self.uuid()[..13]);
        let first = self.users[n].addresses.is_empty();
        let full = self.full_address(n);
        self.users[n].addresses.push(address_id.clone());
        let id = self.users[n].id.clone();
        let payload = json!({
            "userId": id,
            "profileId": format!("profile-{id}"),
            "addressId": address_id,
            "addressType": self.pick(&["shipping", "billing", "home", "work"]),
            "isDefaultShipping": first,
            "isDefaultBilling": first,
            "country": full["country"],
            "fullAddress": full,
            "addTimestamp": time(at),
        });
        self.record("UserAddressAdded", &id, at, payload)
    }

    fn address_updated(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        let Some(address_id) = self.address_of(n) else {
            return self.address_added(n, at);
        };
        let id = self.users[n].id.clone();
        let mut payload = json!({
            "userId": id,
            "profileId": format!("profile-{id}"),
            "addressId": address_id,
            "updateTimestamp": time(at),
        });
        if self.rng.bool() {
            payload["updatedFields"] = json!(["streetLine1", "city", "postalCode"]);
            payload["fullAddress"] = self.full_address(n);
        } else {
            payload["updatedFields"] = json!({"additionalNotes": {"new": "Please ring twice"}});
        }
        self.record("UserAddressUpdated", &id, at, payload)
    }

    fn address_deleted(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        if self.users[n].addresses.len() < 3 {
            return self.logged_in(n, at);
        }
        let address_id = self.users[n].addresses.pop();
        let id = self.users[n].id.clone();
        self.record(
            "UserAddressDeleted",
            &id,
            at,
            json!({
                "userId": id,
                "profileId": format!("profile-{id}"),
                "addressId": address_id,
                "deleteTimestamp": time(at),
            }),
        )
    }

    fn default_changed(&mut self, n: usize, at: DateTime<Utc>) -> Record {
        let Some(address_id) = self.address_of(n) else {
            return self.address_added(n, at);
        };
        let kind = self.pick(&["defaultShippingAddressId", "defaultBillingAddressId"]);
        let id = self.users[n].id.clone();
        let mut payload = json!({
            "userId": id,
            "profileId": format!("profile-{id}"),
            "changeTimestamp": time(at),
        });
        payload[kind] = address_id.into();
        self.record("UserProfileDefaultAddressChanged", &id, at, payload)
    }

    fn address_of(&mut self, n: usize) -> Option<String> {
        self.rng.choice(&self.users[n].addresses).cloned()
    }

    fn full_address(&mut self, n: usize) -> Value {
        let [country, mut state, city, mut postal_code, street] = self.pick(SAMPLE_ADDRESSES);
        // Users make mistakes: some addresses need attention before anything is shipped there.
        match self.rng.u8(..40) {
            0 => postal_code = "",
            1 => postal_code = "0815?",
            2 => state = "Atlantis",
            _ => {}
        }
        let name = format!("{} {}", self.users[n].first_name, self.users[n].last_name);
        let line = format!("{street} {}", self.rng.u8(1..=120));
        // Two of the spellings that occur.
        if self.rng.bool() {
            json!({
                "streetLine1": line, "city": city, "stateOrProvince": state, "postalCode": postal_code,
                "country": country, "contactName": name,
            })
        } else {
            json!({
                "addressLine1": line, "city": city, "state": state, "zipCode": postal_code,
                "country": country.to_lowercase(), "recipientName": name,
            })
        }
    }

    /// Wraps a payload in one of the dialects, each in turn.
    fn record(&mut self, kind: &str, key: &str, at: DateTime<Utc>, payload: Value) -> Record {
        let (id, at, source) = (self.uuid(), time(at), "user-service");
        let dialect = self.made % 4;
        self.made += 1;
        let mut headers = Vec::new();
        let value = match dialect {
            0 => json!({
                "eventId": id, "eventType": format!("{kind}EventV1"), "eventTimestamp": at,
                "sourceService": source, "version": "1.0", "correlationId": self.uuid(), "payload": payload,
            }),
            1 => json!({
                "messageId": id, "messageType": format!("{kind}.v1"), "timestamp": at, "sourceService": source,
                "envelopeVersion": "1.0", "partitionKey": key, "payload": payload,
            }),
            2 => json!({
                "specversion": "1.0", "id": id, "type": format!("com.example.user.{kind}.v1"), "time": at,
                "source": source, "subject": key, "datacontenttype": "application/json", "data": payload,
            }),
            _ => {
                headers = vec![
                    ("ce_specversion", "1.0".to_owned()),
                    ("ce_id", id),
                    ("ce_type", kind.to_owned()),
                    ("ce_time", at),
                    ("ce_source", source.to_owned()),
                    ("content-type", "application/json".to_owned()),
                ];
                payload
            }
        };
        Record {
            key: key.to_owned(),
            headers,
            value: value.to_string().into_bytes(),
        }
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }

    fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes())
            .into_uuid()
            .to_string()
    }

    fn ip(&mut self) -> String {
        // A network set aside for documentation.
        format!("203.0.113.{}", self.rng.u8(1..=254))
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{self, Envelope};

    #[test]
    fn every_event_but_the_documented_bad_one_is_good_and_lies_in_the_past() {
        let mut samples = Samples::start("user.events").unwrap();
        let first = std::mem::take(&mut samples.first).into_iter();
        let mut records: Vec<_> = first.map(|record| (record, Utc::now())).collect();
        while records.len() < 20_000 {
            let happened = samples.happening().into_iter();
            records.extend(happened.map(|record| (record, Utc::now())));
        }
        for (record, made_at) in records {
            let text = String::from_utf8_lossy(&record.value).into_owned();
            let is_documented_as_bad = record.key == "u-9" && text.contains("UserEmailVerified");
            let headers = record.headers.into_iter();
            let record = event::Record {
                topic: samples.topic.as_str().into(),
                partition: 0,
                offset: 0,
                timestamp_ms: None,
                key: Some(record.key.into()),
                value: Some(record.value.into()),
                headers: headers
                    .map(|(name, value)| (name.into(), Some(value.into())))
                    .collect(),
            };
            let event = Envelope::read(&record).and_then(|envelope| envelope.decode());
            assert_eq!(event.is_ok(), !is_documented_as_bad, "{event:?}: {text}");
            let lies_ahead = event.is_ok_and(|event| event.occurred_at > made_at);
            assert!(!lies_ahead, "{text}");
        }
    }
}
