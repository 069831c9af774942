//! Records that real producers wrote (`tests/fixtures/records`) mean what the producers were given.
//!
//! The expected values are those of `scripts/capture-records/events.json`, written out again here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::super::{Address, Change, DeletionType, UserAddressAdded, UserDeleted, UserRegistered};
use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/records");

/// The captured producers, and what they could not express.
const PRODUCERS: [(&str, Lost); 31] = [
    ("cloudevents-js-binary", NOTHING),
    ("cloudevents-js-binary-bytes", NOTHING),
    ("cloudevents-js-structured", NOTHING),
    ("cloudevents-js-structured-bytes", NOTHING),
    ("cloudevents-python-1-binary", NOTHING),
    ("cloudevents-python-1-structured", NOTHING),
    ("cloudevents-python-1-structured-bytes", NOTHING),
    ("cloudevents-python-2-binary", NOTHING),
    ("cloudevents-python-2-structured", NOTHING),
    ("cloudevents-python-2-structured-bytes", NOTHING),
    ("connect-file-schemas", NOTHING),
    ("debezium-outbox", ENVELOPE),
    ("debezium-outbox-binary", ENVELOPE),
    ("debezium-outbox-envelope", NOTHING),
    ("debezium-outbox-envelope-schemas", NULLS),
    ("debezium-outbox-expand", ENVELOPE_AND_NULLS),
    ("debezium-outbox-expand-nulls", ENVELOPE),
    ("debezium-outbox-expand-schemas", ENVELOPE_AND_NULLS),
    ("debezium-outbox-json", ENVELOPE),
    ("debezium-outbox-json-schemas", ENVELOPE),
    ("java-gzip", NOTHING),
    ("java-lz4", NOTHING),
    ("java-none", NOTHING),
    ("java-snappy", NOTHING),
    ("java-zstd", NOTHING),
    ("kafkajs", NOTHING),
    ("librdkafka", NOTHING),
    ("librdkafka-json-schema", NOTHING),
    ("librdkafka-json-schema-header", NOTHING),
    ("nestjs-message", NOTHING),
    ("nestjs-object", NOTHING),
];

/// What a producer leaves out of its records.
#[derive(Clone, Copy)]
struct Lost {
    /// Time, source and correlation id: an outbox table has no columns for them.
    envelope: bool,
    /// Members that are null: Debezium's router drops them where it parses the payload.
    nulls: bool,
}

const NOTHING: Lost = Lost {
    envelope: false,
    nulls: false,
};
const ENVELOPE: Lost = Lost {
    envelope: true,
    nulls: false,
};
const NULLS: Lost = Lost {
    envelope: false,
    nulls: true,
};
const ENVELOPE_AND_NULLS: Lost = Lost {
    envelope: true,
    nulls: true,
};

/// A record in a file of fixtures.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Captured {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key_base64: Option<String>,
    headers: Vec<(String, Option<String>)>,
    value_base64: Option<String>,
}

impl From<Captured> for Record {
    fn from(captured: Captured) -> Record {
        let bytes = |text: Option<String>| {
            text.map(|text| Bytes::from(BASE64_STANDARD.decode(text).expect("base64")))
        };
        let headers = captured.headers.into_iter();
        Record {
            topic: captured.topic.into(),
            partition: captured.partition,
            offset: captured.offset,
            timestamp_ms: Some(captured.timestamp_ms),
            key: bytes(captured.key_base64),
            headers: headers.map(|(name, value)| (name, bytes(value))).collect(),
            value: bytes(captured.value_base64),
        }
    }
}

fn records_of(producer: &str) -> Vec<Record> {
    let text = fs::read_to_string(format!("{FIXTURES}/{producer}.json")).expect("a fixture");
    let captured: Vec<Captured> = serde_json::from_str(&text).expect("records");
    captured.into_iter().map(Record::from).collect()
}

#[test]
fn every_fixture_is_read_by_these_tests() {
    let files = fs::read_dir(FIXTURES).expect("the fixtures");
    let names = files.map(|file| file.expect("a file").file_name());
    let names: BTreeSet<String> = names
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    let expected = PRODUCERS.map(|(producer, _)| producer.to_owned());
    assert_eq!(names, BTreeSet::from(expected));
}

#[test]
fn what_real_producers_write_means_what_they_were_given() {
    for (producer, lost) in PRODUCERS {
        let records = records_of(producer);
        let expected = events_of(producer);
        assert_eq!(records.len(), expected.len(), "{producer}");
        for (record, expected) in records.iter().zip(expected) {
            let what = format!("{record:?}");
            let event = read(record).unwrap_or_else(|bad| panic!("{what}: {bad:?}"));
            expected.check(&what, record, lost, event);
        }
    }
}

/// The records differ only in what the clients compress, and that is taken off before they are read.
#[test]
fn a_compression_of_the_java_client_leaves_no_trace_in_a_record() {
    let values = |producer: &str| -> Vec<String> {
        let records = records_of(producer).into_iter();
        let values = records.map(|record| record.value.expect("a value").to_vec());
        let texts = values.map(|value| String::from_utf8(value).expect("UTF-8"));
        texts.map(|text| text.replace(producer, "java")).collect()
    };
    let plain = values("java-none");
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        assert_eq!(values(&format!("java-{compression}")), plain);
    }
}

fn read(record: &Record) -> Result<Event, Bad> {
    let envelope = Envelope::read(record)?;
    let id = envelope.event_id()?.to_owned();
    let event = envelope.decode()?;
    assert_eq!(event.id, id);
    Ok(event)
}

/// An event of `events.json`.
struct Expected {
    event_type: EventType,
    /// The last digit of the id.
    number: u8,
    correlation_id: &'static str,
    /// The time in the envelope.
    envelope_time: &'static str,
    /// The type's own time, if the payload has it.
    own_time: Option<&'static str>,
    payload: ExpectedPayload,
}

enum ExpectedPayload {
    Exactly(Box<Payload>),
    /// The payload of UserProfileUpdated, for this user.
    ProfileUpdated(String),
}

impl Expected {
    fn check(self, what: &str, record: &Record, lost: Lost, event: Event) {
        let number = self.number;
        assert_eq!(
            event.id,
            format!("0198c000-0000-7000-8000-00000000000{number}"),
            "{what}"
        );
        assert_eq!(event.event_type, Some(self.event_type), "{what}");
        assert_eq!(event.version.as_deref(), Some("1"), "{what}");
        let envelope = |value| (!lost.envelope).then_some(value);
        assert_eq!(event.source.as_deref(), envelope("user-service"), "{what}");
        assert_eq!(
            event.correlation_id.as_deref(),
            envelope(self.correlation_id),
            "{what}"
        );
        let time = match self.own_time.or(envelope(self.envelope_time)) {
            Some(time) => time.parse().expect("a time"),
            None => kafka_time(record),
        };
        assert_eq!(event.occurred_at, time, "{what}");
        match self.payload {
            ExpectedPayload::Exactly(payload) => assert_eq!(event.payload, *payload, "{what}"),
            ExpectedPayload::ProfileUpdated(user_id) => {
                check_profile(what, &user_id, lost, &event.payload);
            }
        }
    }
}

fn kafka_time(record: &Record) -> DateTime<Utc> {
    let millis = record.timestamp_ms.expect("every record has a timestamp");
    DateTime::from_timestamp_millis(millis).expect("a time")
}

fn check_profile(what: &str, user_id: &str, lost: Lost, payload: &Payload) {
    let Payload::UserProfileUpdated(updated) = payload else {
        panic!("{what}: {payload:?}");
    };
    assert_eq!(updated.user_id, user_id, "{what}");
    assert_eq!(updated.profile_id, profile_of(user_id), "{what}");
    let value = |text: &str| Change::Value(json!(text));
    let mut expected = BTreeMap::from([
        ("displayName", (None, value("Änne 🎉"))),
        ("phoneNumber", (None, value("+4922112345"))),
        ("preferences.theme", (Some(json!("light")), value("dark"))),
    ]);
    if !lost.nulls {
        expected.insert("bio", (None, Change::Cleared));
    }
    let changes = updated.changes.iter();
    let changes: BTreeMap<_, _> = changes
        .map(|(name, change)| (name, (change.old.clone(), change.new.clone())))
        .collect();
    assert_eq!(changes, expected, "{what}");
}

/// The id of the user's profile: `kafkajs-profile` for `kafkajs-anna`.
fn profile_of(user_id: &str) -> String {
    user_id.replace("-anna", "-profile")
}

/// What each producer was given. Its name is part of the ids.
fn events_of(producer: &str) -> [Expected; 5] {
    let text = |text: &str| Some(text.to_owned());
    let (anna, bob) = (format!("{producer}-anna"), format!("{producer}-bob"));
    let registered = UserRegistered {
        user_id: anna.clone(),
        email: "änne@müller.example".to_owned(),
        username: text("änne"),
        first_name: text("Änne"),
        last_name: text("Müller-Løkke 李"),
        status: "active".to_owned(),
        source: text("direct"),
    };
    let added = UserAddressAdded {
        user_id: anna.clone(),
        profile_id: profile_of(&anna),
        address_id: "addr-uuid-789".to_owned(),
        address_type: "home".to_owned(),
        is_default_shipping: true,
        is_default_billing: false,
        country: "DE".to_owned(),
        full_address: Some(Address {
            street_line1: text("Schäfergaße 5 ½"),
            city: text("Köln"),
            postal_code: text("50667"),
            country: text("DE"),
            contact_name: text("Änne 🦀 Müller"),
            ..Address::default()
        }),
    };
    let bob_registered = UserRegistered {
        user_id: bob.clone(),
        email: "bob@example.com".to_owned(),
        username: None,
        first_name: None,
        last_name: None,
        status: "pending_verification".to_owned(),
        source: None,
    };
    let deleted = UserDeleted {
        user_id: bob,
        email: text("bob@example.com"),
        deletion_type: DeletionType::Hard,
        anonymized: Some(true),
    };
    [
        Expected {
            event_type: EventType::UserRegistered,
            number: 1,
            correlation_id: "sign-up-1",
            envelope_time: "2026-11-20T09:00:01.250Z",
            own_time: Some("2026-11-20T09:00:00.123456Z"),
            payload: ExpectedPayload::Exactly(Box::new(Payload::UserRegistered(registered))),
        },
        Expected {
            event_type: EventType::UserAddressAdded,
            number: 2,
            correlation_id: "sign-up-1",
            envelope_time: "2026-11-20T09:05:00Z",
            own_time: Some("2026-11-20T09:04:59Z"),
            payload: ExpectedPayload::Exactly(Box::new(Payload::UserAddressAdded(added))),
        },
        Expected {
            event_type: EventType::UserProfileUpdated,
            number: 3,
            correlation_id: "profile-7",
            envelope_time: "2026-11-20T09:10:00Z",
            own_time: None,
            payload: ExpectedPayload::ProfileUpdated(anna),
        },
        Expected {
            event_type: EventType::UserRegistered,
            number: 4,
            correlation_id: "sign-up-2",
            envelope_time: "2026-11-20T09:15:00Z",
            own_time: Some("2026-11-20T09:14:59Z"),
            payload: ExpectedPayload::Exactly(Box::new(Payload::UserRegistered(bob_registered))),
        },
        Expected {
            event_type: EventType::UserDeleted,
            number: 5,
            correlation_id: "goodbye-1",
            envelope_time: "2026-11-20T09:20:00Z",
            own_time: Some("2026-11-20T09:19:59Z"),
            payload: ExpectedPayload::Exactly(Box::new(Payload::UserDeleted(deleted))),
        },
    ]
}
