//! Tests of times by examples: which one counts, and which texts are one.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::super::time;
use super::*;

const OWN: &str = "2026-01-01T00:00:00Z";
const ENVELOPE: &str = "2026-02-01T00:00:00Z";
const KAFKA: &str = "2026-10-01T12:00:00Z";

/// When an event happened that has these times: its own, the envelope's, and Kafka's timestamp.
fn time_of(own: Value, envelope: Value, kafka_ms: Option<i64>) -> Result<String, Bad> {
    let payload = json!({"userId": "u", "email": "e", "status": "s", "registrationTimestamp": own});
    let mut value = event("UserRegistered", payload);
    value["eventTimestamp"] = envelope;
    let mut record = record(&value);
    record.timestamp_ms = kafka_ms;
    decode(&record).map(|event| {
        event
            .occurred_at
            .to_rfc3339_opts(SecondsFormat::AutoSi, true)
    })
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn the_first_time_that_is_given_counts() {
    for (own, envelope, kafka_ms, expected) in [
        (json!(OWN), json!("yesterday"), Some(i64::MAX), OWN),
        (json!(OWN), json!(7), Some(i64::MAX), OWN),
        (json!(OWN), json!({}), Some(i64::MAX), OWN),
        (json!(OWN), json!(null), Some(i64::MAX), OWN),
        (json!(null), json!(ENVELOPE), None, ENVELOPE),
        (json!(""), json!(ENVELOPE), Some(-1), ENVELOPE),
        (json!(null), json!(""), Some(KAFKA_TIME_MS), KAFKA),
    ] {
        let context = format!("{own}, {envelope}, {kafka_ms:?}");
        let time = time_of(own, envelope, kafka_ms);
        assert_eq!(time.as_deref(), Ok(expected), "{context}");
    }
}

#[test]
fn the_time_that_counts_must_be_good() {
    let kafka = Some(KAFKA_TIME_MS);
    let (own_field, envelope_field) = (Some("registrationTimestamp"), Some("eventTimestamp"));
    for (own, envelope, kafka_ms, reason, field) in [
        (
            json!("yesterday"),
            json!(ENVELOPE),
            kafka,
            "bad_timestamp",
            own_field,
        ),
        (json!(7), json!(ENVELOPE), kafka, "bad_timestamp", own_field),
        (
            json!({}),
            json!(ENVELOPE),
            kafka,
            "bad_timestamp",
            own_field,
        ),
        (
            json!(null),
            json!("yesterday"),
            kafka,
            "bad_timestamp",
            envelope_field,
        ),
        (
            json!(null),
            json!(7),
            kafka,
            "bad_timestamp",
            envelope_field,
        ),
        (
            json!(null),
            json!({}),
            kafka,
            "bad_timestamp",
            envelope_field,
        ),
        (json!(null), json!(null), Some(-1), "bad_timestamp", None),
        (
            json!(null),
            json!(null),
            Some(7_289_654_400_000),
            "bad_timestamp",
            None,
        ),
        (
            json!(null),
            json!(null),
            Some(i64::MIN),
            "bad_timestamp",
            None,
        ),
        (
            json!(null),
            json!(null),
            Some(i64::MAX),
            "bad_timestamp",
            None,
        ),
        (json!(null), json!(null), None, "no_timestamp", None),
    ] {
        let context = format!("{own}, {envelope}, {kafka_ms:?}");
        let bad = time_of(own, envelope, kafka_ms).expect_err(&context);
        assert_eq!(
            (bad.reason, bad.field.as_deref()),
            (reason, field),
            "{context}"
        );
    }
}

#[test]
fn of_two_own_times_the_first_of_the_catalogue_counts() {
    let payload = json!({"userId": "u", "email": "e", "status": "s", "registeredAt": OWN});
    let mut value = event("UserRegistered", payload);
    assert_eq!(decode(&record(&value)).unwrap().occurred_at, utc(OWN));
    value["payload"]["registrationTimestamp"] = json!(ENVELOPE);
    assert_eq!(decode(&record(&value)).unwrap().occurred_at, utc(ENVELOPE));
}

#[test]
fn an_unknown_type_has_no_time_of_its_own() {
    let unknown = json!({"eventId": "e", "eventType": "X", "timestamp": ENVELOPE,
        "payload": {"registrationTimestamp": OWN}});
    assert_eq!(
        decode(&record(&unknown)).unwrap().occurred_at,
        utc(ENVELOPE)
    );
    let unknown = json!({"eventId": "e", "eventType": "X", "timestamp": "x"});
    assert_eq!(
        reason_and_field(decode(&record(&unknown))),
        ("bad_timestamp", "timestamp".into())
    );
}

/// The time of an event that has this text as its own time.
fn own_time(text: &str) -> Result<String, Bad> {
    time_of(json!(text), json!(null), Some(KAFKA_TIME_MS))
}

#[test]
fn rfc_3339_times_are_read_as_utc() {
    for (text, utc) in [
        ("2026-10-01T12:00:00Z", "2026-10-01T12:00:00Z"),
        ("2026-10-01t12:00:00z", "2026-10-01T12:00:00Z"),
        ("2026-10-01T12:00:00+05:30", "2026-10-01T06:30:00Z"),
        ("2026-10-01T12:00:00-23:59", "2026-10-02T11:59:00Z"),
        ("2026-10-01T12:00:00-00:00", "2026-10-01T12:00:00Z"),
        ("2026-10-01T12:00:00.5Z", "2026-10-01T12:00:00.500Z"),
        (
            "2026-10-01T12:00:00.1234569999999999999999999Z",
            "2026-10-01T12:00:00.123456Z",
        ),
        (
            "2024-02-29T23:59:59.9999999+00:00",
            "2024-02-29T23:59:59.999999Z",
        ),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:00:00-01:00", "1970-01-01T00:00:00Z"),
        (
            "2200-12-31T23:59:59.9999999Z",
            "2200-12-31T23:59:59.999999Z",
        ),
        ("2201-01-01T00:59:59+01:00", "2200-12-31T23:59:59Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2017-01-01T00:59:60.25+01:00", "2017-01-01T00:00:00.250Z"),
    ] {
        assert_eq!(own_time(text).as_deref(), Ok(utc), "{text}");
    }
}

#[test]
fn other_texts_are_not_times() {
    for text in [
        "2026-10-01 12:00:00Z",
        "2026-10-01_12:00:00Z",
        "2026-10-01T12:00:00",
        "2026-10-01",
        "2026-10-01T12:00Z",
        "2026-10-01T12:00:00.Z",
        "2026-10-01T12:00:00,5Z",
        "2026-10-01T12:00:00+0530",
        "2026-10-01T12:00:00+05",
        "2026-10-01T12:00:00+24:00",
        "2026-10-01T12:00:00+05:60",
        "2026-10-01T24:00:00Z",
        "2026-10-01T12:60:00Z",
        "2026-10-01T12:00:61Z",
        "2026-10-01T12:00:60Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-10-00T12:00:00Z",
        " 2026-10-01T12:00:00Z",
        "2026-10-01T12:00:00Z ",
        "2026-10-01T12:00:00ZZ",
        "26-10-01T12:00:00Z",
        "+2026-10-01T12:00:00Z",
        "12026-10-01T12:00:00Z",
        "2026-1-1T12:00:00Z",
        "2026-10-01T12:00:00 Z",
        "2026-10-01T12:00:00−01:00",
        "２026-10-01T12:00:00Z",
        "1790856000",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:30:00+01:00",
        "2201-01-01T00:00:00Z",
        "2200-12-31T23:30:00-01:00",
        "2200-12-31T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ] {
        let bad = own_time(text).expect_err(text);
        assert_eq!(bad.reason, "bad_timestamp", "{text}");
    }
}

#[test]
fn what_a_time_lacks_is_named() {
    for (text, lacking) in [
        ("2026-10-01", Some("no time and no offset")),
        ("2026-10-01Z", Some("no time")),
        ("2026-10-01+02:00", Some("no time")),
        ("2026-10-01T12:00", Some("no seconds and no offset")),
        ("2026-10-01T12:00-02:00", Some("no seconds")),
        ("2026-10-01T12:00:00", Some("no offset")),
        ("2026-10-01T12:00:00.125", Some("no offset")),
        // Something else is wrong with these, or nothing is.
        ("2026-10-01T12:00:00Z", None),
        ("2026-13-01", None),
        ("2026-10-01 12:00:00", None),
        ("2026-10-01T12:00:00+02", None),
        ("T12:00:00Z", None),
        ("éé:éé", None),
        ("Z", None),
        ("", None),
    ] {
        assert_eq!(time::lacks(text).as_deref(), lacking, "{text}");
    }
}
