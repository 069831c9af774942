//! Examples of times: which one counts, and what is one.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::*;

fn time_of(own: Value, envelope: Value, log: Option<i64>) -> Result<String, Bad> {
    let payload = json!({"userId": "u", "email": "e", "status": "s", "registrationTimestamp": own});
    let mut value = event("UserRegistered", payload);
    value["eventTimestamp"] = envelope;
    let mut record = record(&value);
    record.timestamp_ms = log;
    decode(&record).map(|event| {
        event
            .occurred_at
            .to_rfc3339_opts(SecondsFormat::AutoSi, true)
    })
}

#[test]
fn the_first_time_there_is_counts_and_no_other() {
    let (own, envelope, log) = (
        "2026-01-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
        Some(LOG_TIME_MS),
    );
    let time = |own, envelope, log| time_of(own, envelope, log).unwrap();
    for bad in [json!("yesterday"), json!(7), json!({}), json!(null)] {
        assert_eq!(time(json!(own), bad, Some(i64::MAX)), own);
    }
    assert_eq!(time(json!(null), json!(envelope), None), envelope);
    assert_eq!(time(json!(""), json!(envelope), Some(-1)), envelope);
    assert_eq!(time(json!(null), json!(""), log), "2026-10-01T12:00:00Z");
    for bad in [json!("yesterday"), json!(7), json!({})] {
        let result = time_of(bad.clone(), json!(envelope), log).unwrap_err();
        assert_eq!(result.field.as_deref(), Some("registrationTimestamp"));
        let result = time_of(json!(null), bad, log).unwrap_err();
        assert_eq!(
            (result.reason, result.field.as_deref()),
            ("bad_timestamp", Some("eventTimestamp"))
        );
    }
    for millis in [-1, 7_289_654_400_000, i64::MIN, i64::MAX] {
        let bad = time_of(json!(null), json!(null), Some(millis)).unwrap_err();
        assert_eq!((bad.reason, bad.field), ("bad_timestamp", None));
    }
    let bad = time_of(json!(null), json!(null), None).unwrap_err();
    assert_eq!(bad.reason, "no_timestamp");

    // Also seen.
    let payload = json!({"userId": "u", "email": "e", "status": "s", "registeredAt": own});
    let mut value = event("UserRegistered", payload);
    assert_eq!(
        decode(&record(&value)).unwrap().occurred_at,
        own.parse::<DateTime<Utc>>().unwrap()
    );
    value["payload"]["registrationTimestamp"] = json!(envelope);
    assert_eq!(
        decode(&record(&value)).unwrap().occurred_at,
        envelope.parse::<DateTime<Utc>>().unwrap()
    );
    // A type that nobody knows has no time of its own.
    let unknown = json!({"eventId": "e", "eventType": "X", "timestamp": envelope,
        "payload": {"registrationTimestamp": own}});
    assert_eq!(
        decode(&record(&unknown)).unwrap().occurred_at,
        envelope.parse::<DateTime<Utc>>().unwrap()
    );
    let unknown = json!({"eventId": "e", "eventType": "X", "timestamp": "x"});
    assert_eq!(
        blame(decode(&record(&unknown))),
        ("bad_timestamp", "timestamp".into())
    );
}

#[test]
fn times_are_rfc_3339() {
    let time = |text: &str| time_of(json!(text), json!(null), Some(LOG_TIME_MS));
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
        assert_eq!(time(text).unwrap(), utc, "{text}");
    }
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
        assert_eq!(time(text).unwrap_err().reason, "bad_timestamp", "{text}");
    }
}
