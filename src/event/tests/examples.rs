//! Examples: every rule and every bad record of the contract.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::super::versions::Upcaster;
use super::super::{Address, Change, DeletionType, TypeName, event_id_hash};
use super::*;

const UTF8_BOM: &[u8] = b"\xEF\xBB\xBF{}";

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn with(mut payload: Map<String, Value>, name: &str, value: Value) -> Map<String, Value> {
    payload.insert(name.to_owned(), value);
    payload
}

fn without(mut payload: Map<String, Value>, name: &str) -> Map<String, Value> {
    payload.remove(name);
    payload
}

#[test]
fn the_catalogue_is_the_contracts() {
    let names: Vec<_> = EventType::ALL.iter().map(|t| t.as_str()).collect();
    let contract: Vec<_> = CATALOGUE.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, contract);
    assert_eq!(EventType::from_name("Unknown"), None);
}

/// Every field of every type: where it lands, what it must be, and what makes it absent.
#[test]
fn fields_are_read_and_judged_as_the_catalogue_says() {
    for (type_name, _) in CATALOGUE {
        let full = full_payload(type_name);
        let good = decode_payload(type_name, full.clone()).unwrap();
        assert_eq!(good.event_type, Some(type_of(type_name)));
        assert_eq!(good.version.as_deref(), Some("1"));
        let shown = format!("{:?}", good.payload);
        for field in fields(type_name) {
            let (name, context) = (field.name, format!("{type_name}.{}", field.name));
            let decode = |payload| decode_payload(type_name, payload);
            if field.kind == 't' {
                let number = with(full.clone(), name, json!(7));
                assert_eq!(blame(decode(number)), ("bad_timestamp", name.into()));
                continue;
            }
            if matches!(field.kind, 's' | 'b' | 'c') && name != "deletionType" {
                let value = match &full[name] {
                    Value::String(text) => format!("{text:?}"),
                    value => value.to_string(),
                };
                let value = if field.required {
                    value
                } else {
                    format!("Some({value})")
                };
                let lands = format!("{}: {value}", snake(name));
                assert!(shown.contains(&lands), "{context}: {lands} in {shown}");
            }
            assert_eq!(
                blame(decode(with(full.clone(), name, json!(7)))),
                ("wrong_type", name.to_owned()),
                "{context}"
            );
            let missing = decode(without(full.clone(), name));
            let null = decode(with(full.clone(), name, Value::Null));
            let empty = decode(with(full.clone(), name, json!("")));
            if field.required {
                assert_eq!(blame(missing), ("missing_field", name.into()), "{context}");
                assert_eq!(blame(null), ("missing_field", name.into()), "{context}");
                assert_eq!(blame(empty), ("empty_field", name.into()), "{context}");
            } else {
                let missing = missing.unwrap();
                assert_eq!(null.unwrap(), missing, "{context}");
                assert_eq!(empty.unwrap(), missing, "{context}");
                let tells = !matches!(name, "newValues" | "oldValues");
                assert_eq!(missing != good, tells, "{context}");
            }
            if name.ends_with("Id") {
                for (id, reason) in [
                    ("x".repeat(256), "id_too_long"),
                    ("a\0b".into(), "nul_in_id"),
                ] {
                    let bad = decode(with(full.clone(), name, json!(id)));
                    assert_eq!(blame(bad), (reason, name.to_owned()), "{context}");
                }
            } else if field.kind == 's' {
                decode(with(full.clone(), name, json!("x".repeat(70_000)))).unwrap();
                let nul = decode(with(full.clone(), name, json!("a\0b"))).unwrap();
                assert!(!format!("{nul:?}").contains("\\0"), "{context}");
            }
        }
    }
}

#[test]
fn all_spellings_of_a_type_are_read() {
    let read = |written: &str, cloud_events: bool| {
        let value = if cloud_events {
            json!({"specversion": "1.0", "id": "e-1", "type": written})
        } else {
            json!({"eventId": "e-1", "eventType": written})
        };
        let record = record(&value);
        let envelope = Envelope::read(&record).unwrap();
        envelope.event_type().clone()
    };
    let known = |version| TypeName::Known {
        event_type: EventType::UserRegistered,
        version,
    };
    for (written, version) in [
        ("UserRegisteredEventV1", 1),
        ("UserRegistered.v1", 1),
        ("UserRegisteredEvent.v1", 1),
        ("UserRegisteredV1", 1),
        ("UserRegisteredEvent", 1),
        ("UserRegistered", 1),
        ("UserRegisteredEventV20", 20),
        ("UserRegistered.v999999999999999999999", u32::MAX),
    ] {
        assert_eq!(read(written, false), known(version), "{written}");
        for prefix in ["", "com.example.user.", "io.my-org.v2.", "org."] {
            let written = format!("{prefix}{written}");
            assert_eq!(read(&written, true), known(version), "{written}");
        }
        let prefixed = format!("com.example.{written}");
        let unknown = TypeName::Unknown {
            name: prefixed.clone(),
        };
        assert_eq!(read(&prefixed, false), unknown);
    }
    for written in [
        "userRegistered",
        "USERREGISTERED",
        "UserRegisteredV0",
        "UserRegisteredV01",
        "UserRegistered.v0",
        "UserRegistered.v01",
        "UserRegistered.V1",
        "UserRegisteredv1",
        "UserRegistered.1",
        "UserRegisteredV",
        "UserRegistered.v",
        "UserRegisteredV1.v1",
        "UserRegisteredEventEvent",
        "UserRegisteredV1Event",
        "UserRegisteredV+1",
        " UserRegistered",
        "UserRegistered ",
        ".UserRegistered",
        "com..UserRegistered",
        "com example.UserRegistered",
        "UserRegistered.",
        "Event",
        "V1",
        ".v1",
        "UserRegisteredV１",
        "Übergabe",
    ] {
        for cloud_events in [false, true] {
            let unknown = TypeName::Unknown {
                name: written.to_owned(),
            };
            assert_eq!(read(written, cloud_events), unknown, "{written}");
        }
    }
    let email = TypeName::Known {
        event_type: EventType::UserEmailVerified,
        version: 1,
    };
    assert_eq!(read("UserEmailVerified", false), email);
    assert_eq!(read("UserEmailVerifiedV1", false), email);
}

#[test]
fn version_and_type_are_kept_as_written() {
    let payload = full_payload("UserEmailVerified");
    let event = decode_payload("UserEmailVerifiedEventV007", payload.clone()).unwrap();
    assert_eq!((event.event_type, event.version), (None, None));
    assert_eq!(event.payload, Payload::Unknown);
    let event = decode_payload("UserEmailVerified.v99999999999", payload).unwrap();
    assert_eq!(event.version.as_deref(), Some("99999999999"));
    assert_eq!(event.type_name, "UserEmailVerified.v99999999999");
    let event = decode_payload("Odd\0Type", json!({})).unwrap();
    assert_eq!(event.type_name, "Odd\u{FFFD}Type");
}

#[test]
fn ids_are_opaque() {
    let long = "🦀".repeat(255);
    for id in [
        "addr-uuid-789",
        "admin-user-id-001",
        "p1q2r3s4-t5u6-7890-1234-567890uvwxyz",
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
        " ",
        "a/b c%d",
        "\u{FFFD}",
        "\n",
        &long,
    ] {
        let payload = with(full_payload("UserAddressDeleted"), "addressId", json!(id));
        let mut value = event("UserAddressDeleted", payload);
        value["eventId"] = json!(id);
        value["correlationId"] = json!(id);
        let event = decode(&record(&value)).unwrap();
        assert_eq!(event.id, id);
        assert_eq!(event.correlation_id.as_deref(), Some(id));
        assert!(matches!(event.payload, Payload::UserAddressDeleted(p) if p.address_id == id));
    }
    let too_long = "🦀".repeat(256);
    for (name, value, reason) in [
        ("eventId", json!(too_long), "id_too_long"),
        ("eventId", json!("a\0"), "nul_in_id"),
        ("eventId", json!(17), "wrong_type"),
        ("eventId", json!(""), "no_event_id"),
        ("eventId", Value::Null, "no_event_id"),
        ("correlationId", json!(too_long), "id_too_long"),
        ("correlationId", json!("\0"), "nul_in_id"),
        ("correlationId", json!({}), "wrong_type"),
        ("sourceService", json!([]), "wrong_type"),
    ] {
        // For a type that nobody knows, too.
        for type_name in ["UserLoggedIn", "SomethingElse"] {
            let mut bad = event(type_name, full_payload("UserLoggedIn"));
            bad[name] = value.clone();
            assert_eq!(blame(decode(&record(&bad))), (reason, name.to_owned()));
        }
    }
    for (ids, reason) in [
        (json!([too_long]), "id_too_long"),
        (json!(["a\0"]), "nul_in_id"),
        (json!([""]), "empty_field"),
        (json!([null]), "wrong_type"),
        (json!({}), "wrong_type"),
    ] {
        let payload = with(full_payload("RoleCreated"), "initialPermissionIds", ids);
        let bad = decode_payload("RoleCreated", payload);
        assert_eq!(blame(bad), (reason, "initialPermissionIds".to_owned()));
    }
}

#[test]
fn the_steps_of_judgement_are_apart() {
    // The type reads, the id doesn't.
    let no_id = record(&json!({"eventType": "UserLoggedIn", "payload": {}}));
    let envelope = Envelope::read(&no_id).unwrap();
    let bad = envelope.event_id().unwrap_err();
    assert_eq!(
        (bad.reason, bad.field.as_deref()),
        ("no_event_id", Some("eventId"))
    );
    assert_eq!(envelope.decode().unwrap_err().reason, "no_event_id");

    // The id reads, all else is wrong.
    let bad = record(
        &json!({"eventId": "e-1", "eventType": "UserLoggedIn", "payload": 7,
        "correlationId": 7, "eventTimestamp": 7}),
    );
    let envelope = Envelope::read(&bad).unwrap();
    assert_eq!(envelope.event_id().unwrap(), "e-1");
    assert!(envelope.decode().is_err());

    // Binary CloudEvents have type and id in headers, whatever the value is.
    for value in [&b"not json"[..], b"", b"\xFF", UTF8_BOM] {
        for type_name in [&b"UserLoggedIn"[..], b"SomethingElse"] {
            let binary = with_headers(
                record_of(value.to_vec()),
                &[("ce_id", b"e-1"), ("ce_type", type_name)],
            );
            let envelope = Envelope::read(&binary).unwrap();
            assert_eq!(envelope.event_id().unwrap(), "e-1");
            assert_eq!(blame(envelope.decode()), ("not_json", String::new()));
        }
    }
}

#[test]
fn what_has_no_readable_type_is_bad() {
    for value in [
        &b""[..],
        b" ",
        b"{",
        b"{}x",
        b"nul",
        b"{'a':1}",
        b"{\"a\":1,}",
        UTF8_BOM,
        b"{\"eventType\":\"\xFF\"}",
        b"{\"eventType\":\"\\ud800\"}",
        b"\0",
        b"{\"a\":01}",
        b"NaN",
    ] {
        assert_eq!(
            blame(decode(&record_of(value.to_vec()))).0,
            "not_json",
            "{value:?}"
        );
    }
    for value in [
        json!(null),
        json!([]),
        json!("UserLoggedIn"),
        json!(7),
        json!({}),
        json!({"eventType": null}),
        json!({"eventType": ""}),
        json!({"messageType": "UserLoggedIn"}),
        json!({"messageId": "", "eventType": ""}),
        json!({"specversion": "1.0", "eventType": "X"}),
        json!({"messageId": "m", "eventType": "X"}),
    ] {
        assert_eq!(
            blame(decode(&record(&value))),
            ("no_event_type", String::new()),
            "{value}"
        );
    }
    assert_eq!(
        blame(decode(&record(&json!({"eventType": 7})))),
        ("wrong_type", "eventType".into())
    );
    let mut tombstone = record_of("");
    tombstone.value = None;
    assert_eq!(blame(decode(&tombstone)).0, "not_json");

    // Both headers make it binary; what they hold is another matter.
    let body = serde_json::to_vec(&event("UserLoggedIn", full_payload("UserLoggedIn"))).unwrap();
    let mut binary = with_headers(record_of(body), &[("ce_id", b"e"), ("ce_type", b"")]);
    assert_eq!(blame(decode(&binary)).0, "no_event_type");
    binary.headers[1].1 = None;
    assert_eq!(blame(decode(&binary)).0, "no_event_type");
    binary.headers[1].1 = Some(Bytes::from_static(b"\xFF"));
    assert_eq!(blame(decode(&binary)), ("wrong_type", "ce_type".into()));
    binary.headers.pop();
    assert_eq!(decode(&binary).unwrap().id, "e-1");
}

#[test]
fn nesting_ends_at_128_levels() {
    let nested = |inner: usize| {
        let (open, close) = ("[".repeat(inner), "]".repeat(inner));
        format!(r#"{{"eventId":"e","eventType":"X","x":{open}{close}}}"#)
    };
    decode(&record_of(nested(127))).unwrap();
    assert_eq!(blame(decode(&record_of(nested(128)))).0, "too_deep");
    let open = "[".repeat(1_000_000);
    assert_eq!(blame(decode(&record_of(open))).0, "too_deep");
    let objects = format!(r#"{}1{}"#, r#"{"a":"#.repeat(129), "}".repeat(129));
    assert_eq!(blame(decode(&record_of(objects))).0, "too_deep");
    let in_string = format!(
        r#"{{"eventId":"e","eventType":"X","x":"\"{}\\"}}"#,
        "[{".repeat(500)
    );
    decode(&record_of(in_string)).unwrap();
    let siblings = format!(
        r#"{{"eventId":"e","eventType":"X","x":[{}0]}}"#,
        "[],".repeat(500)
    );
    decode(&record_of(siblings)).unwrap();
}

#[test]
fn numbers_fit_into_a_float() {
    let with_number = |number: &str| {
        let value = format!(r#"{{"eventId":"e","eventType":"X","payload":{{"x":{number}}}}}"#);
        decode(&record_of(value))
    };
    let large = "9".repeat(308);
    for number in [
        "1e308",
        "-1e308",
        "1.7976931348623157e308",
        "1e-999",
        "0e999",
        &large,
        "18446744073709551616",
        "-0",
        "1E+2",
    ] {
        assert!(with_number(number).is_ok(), "{number}");
    }
    let too_large = "9".repeat(310);
    for number in [
        "1e999",
        "-1e999",
        "1.8e308",
        "1e99999999999999999999",
        &too_large,
    ] {
        assert_eq!(
            blame(with_number(number)).0,
            "number_out_of_range",
            "{number}"
        );
    }
}

#[test]
fn numbers_are_kept_exactly() {
    let read = |number: &str| {
        let payload = format!(
            r#"{{"userId":"u","profileId":"p","updatedFields":{{"preferences.x":{number}}}}}"#
        );
        let headers: &[(&str, &[u8])] = &[("ce_id", b"e"), ("ce_type", b"UserProfileUpdated")];
        let event = decode(&with_headers(record_of(payload), headers)).unwrap();
        let change = changes(&event.payload)
            .unwrap()
            .get("preferences.x")
            .unwrap()
            .clone();
        match change.new {
            Change::Value(value) => value,
            _ => unreachable!(),
        }
    };
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let number = f64::from_bits(rng.u64(..));
        if number.is_finite() {
            assert_eq!(read(&json!(number).to_string()), json!(number));
        }
    }
    assert_eq!(read(&format!("{:.0}", f64::MAX)), json!(f64::MAX));
    assert_eq!(read("18446744073709551615"), json!(u64::MAX));
}

#[test]
fn the_last_of_duplicate_names_counts() {
    let value = r#"{"eventId":"old","eventType":7,"eventType":"UserPasswordChanged","eventId":"new",
        "payload":{"userId":7,"changeType":"x","userId":"u","userId":"v"}}"#;
    let event = decode(&record_of(value)).unwrap();
    assert_eq!(event.id, "new");
    assert_eq!(event.user_id(), Some("v"));
    let event = decode(&with_headers(
        record_of(r#"{"userId":"u","changeType":"x"}"#),
        &[
            ("ce_id", b"old"),
            ("ce_type", b"UserPasswordChanged"),
            ("ce_id", b"new"),
        ],
    ));
    assert_eq!(event.unwrap().id, "new");
}

#[test]
fn the_dialect_is_chosen_in_order() {
    let payload = || Value::from(full_payload("UserLoggedIn"));
    let mut all = json!({
        "specversion": "1.0", "id": "cloud", "type": "UserLoggedIn", "data": payload(),
        "messageId": "standard", "messageType": "UserLoggedIn",
        "eventId": "original", "eventType": "UserLoggedIn", "payload": payload(),
    });
    let id = |value: &Value, headers: &[(&str, &[u8])]| {
        decode(&with_headers(record(value), headers)).unwrap().id
    };
    let binary: &[(&str, &[u8])] = &[("ce_id", b"binary"), ("ce_type", b"Other")];
    assert_eq!(id(&all, binary), "binary");
    assert_eq!(id(&all, &binary[..1]), "cloud");
    assert_eq!(id(&all, &binary[1..]), "cloud");
    assert_eq!(id(&all, &[("CE_ID", b"b"), ("ce-type", b"Other")]), "cloud");
    all["specversion"] = Value::Null;
    assert_eq!(id(&all, &[]), "standard");
    all["messageId"] = json!("");
    assert_eq!(id(&all, &[]), "original");

    let empty_id = json!({"messageId": "", "messageType": "UserLoggedIn", "payload": payload()});
    assert_eq!(
        blame(decode(&record(&empty_id))),
        ("no_event_id", "messageId".into())
    );
    // `data` is another spelling in the original envelope only.
    let data = json!({"messageId": "m", "messageType": "UserLoggedIn", "data": payload()});
    assert_eq!(
        blame(decode(&record(&data))),
        ("missing_field", "payload".into())
    );
    let data = json!({"eventId": "m", "eventType": "UserLoggedIn", "payload": null, "data": payload(),
        "source": "a", "version": 1.0});
    assert_eq!(decode(&record(&data)).unwrap().source.as_deref(), Some("a"));
    for (payload, reason) in [
        (json!(null), "missing_field"),
        (json!(""), "missing_field"),
        (json!([]), "wrong_type"),
        (json!("x"), "wrong_type"),
    ] {
        let bad = decode_payload("UserLoggedIn", payload);
        assert_eq!(blame(bad), (reason, "payload".into()));
    }
}

#[test]
fn a_header_correlates_where_the_body_does_not() {
    let correlate = |body: Value, header: &[u8]| {
        let mut value = event("UserLoggedIn", full_payload("UserLoggedIn"));
        value["correlationId"] = body;
        decode(&with_headers(record(&value), &[("correlationId", header)]))
    };
    let id = |body, header| correlate(body, header).unwrap().correlation_id;
    assert_eq!(id(json!("body"), b"header").as_deref(), Some("body"));
    assert_eq!(id(json!("body"), b"\xFF").as_deref(), Some("body"));
    assert_eq!(id(json!(null), b"header").as_deref(), Some("header"));
    assert_eq!(id(json!(""), b"header").as_deref(), Some("header"));
    assert_eq!(id(json!(""), b""), None);
    let field = "correlationId".to_owned();
    assert_eq!(
        blame(correlate(json!(7), b"header")),
        ("wrong_type", field.clone())
    );
    assert_eq!(
        blame(correlate(json!(null), b"\xFF")),
        ("wrong_type", field.clone())
    );
    assert_eq!(
        blame(correlate(json!(null), &[b'x'; 256])),
        ("id_too_long", field.clone())
    );
    assert_eq!(blame(correlate(json!(null), b"\0")), ("nul_in_id", field));

    let binary = |headers: &[(&str, &[u8])]| {
        let mut all: Vec<(&str, &[u8])> = vec![("ce_id", b"e"), ("ce_type", b"UserLoggedIn")];
        all.extend(headers);
        decode(&with_headers(record(&json!({"userId": "u"})), &all)).unwrap()
    };
    let event = binary(&[
        ("ce_correlationid", b"ce"),
        ("correlationId", b"header"),
        ("ce_source", b"s"),
    ]);
    assert_eq!(event.correlation_id.as_deref(), Some("ce"));
    assert_eq!(event.source.as_deref(), Some("s"));
    let event = binary(&[("correlationId", b"header")]);
    assert_eq!(event.correlation_id.as_deref(), Some("header"));
}

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
        own.parse::<DateTime<chrono::Utc>>().unwrap()
    );
    value["payload"]["registrationTimestamp"] = json!(envelope);
    assert_eq!(
        decode(&record(&value)).unwrap().occurred_at,
        envelope.parse::<DateTime<chrono::Utc>>().unwrap()
    );
    // A type that nobody knows has no time of its own.
    let unknown = json!({"eventId": "e", "eventType": "X", "timestamp": envelope,
        "payload": {"registrationTimestamp": own}});
    assert_eq!(
        decode(&record(&unknown)).unwrap().occurred_at,
        envelope.parse::<DateTime<chrono::Utc>>().unwrap()
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

/// The changes that a payload with these fields beside the ids tells: name, old, new.
fn changed(
    type_name: &str,
    beside: Value,
) -> Result<Vec<(String, Option<Value>, Change<Value>)>, Bad> {
    let mut payload = without(full_payload(type_name), "newValues");
    payload.remove("oldValues");
    payload.remove("fullAddress");
    payload.extend(object(beside));
    let event = decode_payload(type_name, payload)?;
    let changes = changes(&event.payload).unwrap();
    let listed = changes
        .iter()
        .map(|(name, c)| (name.to_owned(), c.old.clone(), c.new.clone()));
    Ok(listed.collect())
}

#[test]
fn both_shapes_of_updated_fields_are_read() {
    use Change::{Cleared, Unknown, Value as Is};
    let cases = [
        // Names alone.
        (
            json!({"updatedFields": ["bio", "preferences.theme"]}),
            vec![("bio", Unknown), ("preferences.theme", Unknown)],
        ),
        (
            json!({"updatedFields": ["bio"], "newValues": null}),
            vec![("bio", Unknown)],
        ),
        (
            json!({"updatedFields": ["bio"], "newValues": ""}),
            vec![("bio", Unknown)],
        ),
        (json!({"updatedFields": []}), vec![]),
        (json!({"updatedFields": {}}), vec![]),
        // Names and values.
        (
            json!({"updatedFields": ["bio", "gender", "firstName", "lastName", "bio", ""],
                "newValues": {"bio": "x", "gender": null, "firstName": "", "phoneNumber": 7}}),
            vec![
                ("bio", Is(json!("x"))),
                ("firstName", Cleared),
                ("gender", Cleared),
                ("lastName", Unknown),
            ],
        ),
        // As written first, then by path.
        (
            json!({"updatedFields": ["preferences.a", "preferences.b.c", "preferences.d.e", "preferences.f"],
                "newValues": {"preferences.a": 1, "preferences": {"a": 2, "b": {"c": [3]}, "d": 4, "f": null}}}),
            vec![
                ("preferences.a", Is(json!(1))),
                ("preferences.b.c", Is(json!([3]))),
                ("preferences.d.e", Unknown),
                ("preferences.f", Cleared),
            ],
        ),
        (
            json!({"updatedFields": ["preferences"], "newValues": {"preferences": {"a": 1}}}),
            vec![("preferences", Is(json!({"a": 1})))],
        ),
        (
            json!({"updatedFields": ["preferences.x"], "newValues": {"preferences": {"x": {"old": 1, "new": 2}}}}),
            vec![("preferences.x", Is(json!({"old": 1, "new": 2})))],
        ),
        // An object of entries.
        (
            json!({"updatedFields": {"bio": {"old": "a", "new": "b"}, "phoneNumber": "+15551234567",
                "gender": null, "firstName": "", "lastName": {"new": null}, "displayName": {"old": "x"},
                "dateOfBirth": {"old": null, "new": ""}}}),
            vec![
                ("bio", Is(json!("b"))),
                ("dateOfBirth", Cleared),
                ("displayName", Unknown),
                ("firstName", Cleared),
                ("gender", Cleared),
                ("lastName", Cleared),
                ("phoneNumber", Is(json!("+15551234567"))),
            ],
        ),
        (
            json!({"updatedFields": {"preferences.a": {"old": 1, "new": 2, "x": 3}, "preferences.b": {},
                "preferences.c": false, "communicationPreferences.d": {"new": {"new": 1}},
                "preferences": {"old": {}, "new": {"z": 1}}}}),
            vec![
                ("communicationPreferences.d", Is(json!({"new": 1}))),
                ("preferences", Is(json!({"z": 1}))),
                ("preferences.a", Is(json!({"old": 1, "new": 2, "x": 3}))),
                ("preferences.b", Is(json!({}))),
                ("preferences.c", Is(json!(false))),
            ],
        ),
        // Values beside an object are ignored.
        (
            json!({"updatedFields": {"bio": {"old": "x"}}, "newValues": {"bio": "y", "gender": 7}}),
            vec![("bio", Unknown)],
        ),
        // NUL is read as the replacement character, in names too.
        (
            json!({"updatedFields": {"preferences.a\0": {"b\0": ["c\0"]}, "bio": "d\0"}}),
            vec![
                ("bio", Is(json!("d\u{FFFD}"))),
                (
                    "preferences.a\u{FFFD}",
                    Is(json!({"b\u{FFFD}": ["c\u{FFFD}"]})),
                ),
            ],
        ),
        (
            json!({"updatedFields": ["preferences.a\0"], "newValues": {"preferences": {"a\0": 1}}}),
            vec![("preferences.a\u{FFFD}", Is(json!(1)))],
        ),
        // What nobody knows is anything.
        (
            json!({"updatedFields": {"shoeSize": 44, "username": 7}}),
            vec![("shoeSize", Is(json!(44))), ("username", Is(json!(7)))],
        ),
    ];
    for (beside, expected) in cases {
        let found = changed("UserProfileUpdated", beside.clone()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(name, _, new)| (name.as_str(), new.clone()))
            .collect();
        assert_eq!(found, expected, "{beside}");
    }
}

#[test]
fn old_values_are_told_where_the_event_does() {
    use Change::{Unknown, Value as Is};
    let old = |name: &str, old: Option<Value>, new| (name.to_owned(), old, new);
    assert_eq!(
        changed(
            "UserUpdated",
            json!({"updatedFields": {"email": {"old": "a\0", "new": "b"},
            "username": {"old": 7}, "secondaryEmail": {"old": "", "new": "c"}}})
        )
        .unwrap(),
        [
            old("email", Some(json!("a\u{FFFD}")), Is(json!("b"))),
            old("secondaryEmail", None, Is(json!("c"))),
            old("username", Some(json!(7)), Unknown)
        ],
    );
    // The catalogue lists oldValues for roles and permissions alone.
    let listed = |first: &str| json!({"updatedFields": [first], "oldValues": {first: "a"}, "newValues": {first: "b"}});
    assert_eq!(
        changed("RoleUpdated", listed("roleName")).unwrap(),
        [old("roleName", Some(json!("a")), Is(json!("b")))]
    );
    assert_eq!(
        changed("UserUpdated", listed("email")).unwrap(),
        [old("email", None, Is(json!("b")))]
    );
    let entries = json!({"updatedFields": {"action": "x", "subject": {"old": "y", "new": "z"}},
        "oldValues": {"action": "a", "subject": "b"}, "newValues": {}});
    assert_eq!(
        changed("PermissionUpdated", entries).unwrap(),
        [
            old("action", Some(json!("a")), Is(json!("x"))),
            old("subject", Some(json!("y")), Is(json!("z")))
        ]
    );
}

#[test]
fn wrong_changes_are_bad() {
    let bad = |type_name, beside: Value| blame(changed(type_name, beside).map(|_| unreachable!()));
    for (type_name, name) in [
        ("UserUpdated", "email"),
        ("UserProfileUpdated", "bio"),
        ("UserProfileUpdated", "preferences"),
        ("UserProfileUpdated", "communicationPreferences"),
        ("UserAddressUpdated", "addressType"),
        ("UserAddressUpdated", "zipCode"),
        ("UserAddressUpdated", "countryCode"),
        ("RoleUpdated", "description"),
        ("PermissionUpdated", "subject"),
    ] {
        for value in [json!(7), json!(true), json!([])] {
            let listed = json!({"updatedFields": [name], "newValues": {name: value}});
            assert_eq!(
                bad(type_name, listed),
                ("wrong_type", format!("newValues.{name}"))
            );
            let entry = json!({"updatedFields": {name: value}, "newValues": {}});
            assert_eq!(
                bad(type_name, entry),
                ("wrong_type", format!("updatedFields.{name}"))
            );
            let entry = json!({"updatedFields": {name: {"new": value}}, "newValues": {}});
            assert_eq!(
                bad(type_name, entry),
                ("wrong_type", format!("updatedFields.{name}"))
            );
        }
    }
    assert_eq!(
        bad("UserProfileUpdated", json!({"updatedFields": {"bio": {}}})),
        ("wrong_type", "updatedFields.bio".into())
    );
    assert_eq!(
        bad(
            "UserProfileUpdated",
            json!({"updatedFields": {"preferences": "dark"}})
        ),
        ("wrong_type", "updatedFields.preferences".into())
    );
    let field = |name: &str| name.to_owned();
    assert_eq!(
        bad("UserUpdated", json!({"updatedFields": [7]})),
        ("wrong_type", field("updatedFields"))
    );
    assert_eq!(
        bad("UserUpdated", json!({"updatedFields": "email"})),
        ("wrong_type", field("updatedFields"))
    );
    assert_eq!(
        bad("UserUpdated", json!({"updatedFields": [], "newValues": []})),
        ("wrong_type", field("newValues"))
    );
    assert_eq!(
        bad("RoleUpdated", json!({"updatedFields": []})),
        ("missing_field", field("newValues"))
    );
    assert_eq!(
        bad("RoleUpdated", json!({"updatedFields": {"roleName": "x"}})),
        ("missing_field", field("newValues"))
    );
}

#[test]
fn addresses_are_read_in_any_spelling() {
    let added = |full: Value| {
        let payload = with(full_payload("UserAddressAdded"), "fullAddress", full);
        let payload = with(payload, "country", json!("at"));
        decode_payload("UserAddressAdded", payload).map(|event| match event.payload {
            Payload::UserAddressAdded(added) => added,
            _ => unreachable!(),
        })
    };
    let spelled = added(
        json!({"addressLine1": "1", "addressLine2": "2", "city": "3", "province": "4",
        "zipCode": "5", "countryCode": "de", "recipientName": "6", "phone": "7", "companyName": "8",
        "additionalNotes": "9", "planet": {}}),
    )
    .unwrap();
    let text = |text: &str| Some(text.to_owned());
    let whole = Address {
        street_line1: text("1"),
        street_line2: text("2"),
        city: text("3"),
        state_or_province: text("4"),
        postal_code: text("5"),
        country: text("DE"),
        contact_name: text("6"),
        contact_phone: text("7"),
        company_name: text("8"),
        additional_notes: text("9"),
    };
    assert_eq!(spelled.full_address.as_ref(), Some(&whole));
    assert_eq!(spelled.address(), whole);
    assert_eq!(spelled.country, "AT");

    let partial =
        added(json!({"state": "", "province": "P", "stateOrProvince": null, "city": ""})).unwrap();
    let expected = Address {
        state_or_province: text("P"),
        ..Address::default()
    };
    assert_eq!(partial.full_address, Some(expected.clone()));
    assert_eq!(
        partial.address(),
        Address {
            country: text("AT"),
            ..expected
        }
    );
    assert_eq!(
        added(json!({})).unwrap().full_address,
        Some(Address::default())
    );
    let none = added(json!(null)).unwrap();
    assert_eq!(none.full_address, None);
    assert_eq!(
        none.address(),
        Address {
            country: text("AT"),
            ..Address::default()
        }
    );
    for spelling in ADDRESS.concat() {
        let bad = added(json!({"streetLine1": "x", spelling: 7})).unwrap_err();
        assert_eq!(
            (bad.reason, bad.field),
            ("wrong_type", Some(format!("fullAddress.{spelling}")))
        );
    }

    // The same in updates.
    for spellings in ADDRESS {
        for spelling in spellings {
            let is = if spellings[0] == "country" {
                "FR"
            } else {
                "fr"
            };
            let expected = (spellings[0].to_owned(), None, Change::Value(json!(is)));
            for beside in [
                json!({"updatedFields": {*spelling: "fr"}}),
                json!({"updatedFields": [spelling], "newValues": {*spelling: "fr"}}),
                json!({"updatedFields": [spellings[0]], "newValues": {*spelling: "fr"}}),
            ] {
                let found = changed("UserAddressUpdated", beside).unwrap();
                assert_eq!(found, [expected.clone()]);
            }
        }
    }
    let found = changed(
        "UserAddressUpdated",
        json!({"updatedFields": {"addressType": "work",
        "province": "a", "state": "b", "isDefaultShipping": true}}),
    )
    .unwrap();
    let named = |name: &str, value: Value| (name.to_owned(), None, Change::Value(value));
    assert_eq!(
        found,
        [
            named("addressType", json!("work")),
            named("isDefaultShipping", json!(true)),
            named("stateOrProvince", json!("b"))
        ]
    );
}

#[test]
fn changes_of_strings_are_told_as_such() {
    let payload = with(
        full_payload("UserUpdated"),
        "updatedFields",
        json!({"email": "a", "username": null, "secondaryEmail": {"old": "x"}}),
    );
    let event = decode_payload("UserUpdated", payload).unwrap();
    let changes = changes(&event.payload).unwrap();
    assert_eq!(changes.text("email"), Some(Change::Value("a")));
    assert_eq!(changes.text("username"), Some(Change::Cleared));
    assert_eq!(changes.text("secondaryEmail"), Some(Change::Unknown));
    assert_eq!(changes.text("firstName"), None);
    assert_eq!(changes.get("firstName"), None);
}

#[test]
fn deletions_are_soft_unless_they_say_hard() {
    for (word, deletion_type) in [
        (json!("hard"), DeletionType::Hard),
        (json!("soft"), DeletionType::Soft),
        (json!("HARD"), DeletionType::Soft),
        (json!(null), DeletionType::Soft),
        (json!(""), DeletionType::Soft),
    ] {
        let event =
            decode_payload("UserDeleted", json!({"userId": "u", "deletionType": word})).unwrap();
        assert!(
            matches!(event.payload, Payload::UserDeleted(p) if p.deletion_type == deletion_type)
        );
    }
}

#[test]
fn the_user_is_the_one_the_event_is_about() {
    for (type_name, _) in CATALOGUE {
        let payload = full_payload(type_name);
        let user = payload
            .get("userId")
            .or(payload.get("attemptedUserId"))
            .cloned();
        let event = decode_payload(type_name, payload).unwrap();
        assert_eq!(event.user_id().map(Value::from), user, "{type_name}");
    }
}

#[test]
fn unknown_versions_are_read_as_the_newest_known() {
    let full = full_payload("UserLoggedIn");
    let newest = decode_payload("UserLoggedIn", full.clone()).unwrap();
    let unknown =
        decode_payload("UserLoggedIn.v9", with(full.clone(), "extra", json!([7]))).unwrap();
    assert_eq!(unknown.payload, newest.payload);
    assert_eq!(unknown.version.as_deref(), Some("9"));
    for (payload, field) in [
        (json!({"user": "u"}), "userId"),
        (json!({"userId": ""}), "userId"),
        (json!({"userId": {"id": "u"}}), "userId"),
        (json!(null), "payload"),
    ] {
        let bad = decode_payload("UserLoggedIn.v9", payload);
        assert_eq!(blame(bad), ("unsupported_version", field.into()));
    }
    // What no version would take keeps its reason.
    let bad = decode_payload("UserLoggedIn.v9", json!({"userId": "a\0"}));
    assert_eq!(blame(bad), ("nul_in_id", "userId".into()));
    let bad = decode_payload(
        "UserLoggedIn.v9",
        json!({"userId": "u", "loginTimestamp": "x"}),
    );
    assert_eq!(blame(bad), ("bad_timestamp", "loginTimestamp".into()));
}

/// How a version is added, shown on one that there is not.
#[test]
fn an_upcaster_adds_a_version() {
    fn login_v3(mut payload: Map<String, Value>) -> Map<String, Value> {
        for (v3, current) in [("user", "userId"), ("at", "loginTimestamp")] {
            if let Some(value) = payload.remove(v3) {
                payload.insert(current.to_owned(), value);
            }
        }
        payload
    }
    let table = [Upcaster {
        event_type: EventType::UserLoggedIn,
        version: 3,
        upcast: login_v3,
    }];
    let decode = |type_name: &str, payload: Value| {
        let record = record(&event(type_name, payload));
        Envelope::read(&record)?.decode_with(&table)
    };
    let v3 = json!({"user": "u", "at": "2026-01-01T00:00:00Z"});
    let v1 = json!({"userId": "u", "loginTimestamp": "2026-01-01T00:00:00Z"});
    let current = decode("UserLoggedIn", v1.clone()).unwrap();
    for version in [3, 2, 4] {
        let event = decode(&format!("UserLoggedInV{version}"), v3.clone()).unwrap();
        assert_eq!(event.payload, current.payload);
        assert_eq!(event.occurred_at, current.occurred_at);
        assert_eq!(event.version, Some(version.to_string()));
    }
    // In a known version a missing field is a missing field.
    assert_eq!(
        blame(decode("UserLoggedInV3", json!({}))),
        ("missing_field", "userId".into())
    );
    assert_eq!(
        blame(decode("UserLoggedInV4", json!({}))),
        ("unsupported_version", "userId".into())
    );
    // Other types have no such version.
    assert_eq!(
        blame(decode("UserLoggedOutV3", v3)),
        ("unsupported_version", "userId".into())
    );
}

#[test]
fn what_is_bad_is_said_without_data() {
    let bad = decode_payload("UserLoggedIn", json!({"userId": 7})).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "wrong_type: userId has another type than it should"
    );
    let bad = decode(&record_of("secret")).unwrap_err();
    assert_eq!(bad.to_string(), "not_json: the value is not JSON in UTF-8");
    let mut record = record_of("secret");
    record.key = Some(Bytes::from_static(b"secret"));
    assert_eq!(format!("{record:?}"), "Record(user.events/3@41)");
}

#[test]
fn ids_are_hashed_by_sha_256() {
    let empty = "e3b0c442-98fc-1c14-9afb-f4c8996fb924";
    assert_eq!(event_id_hash("").to_string(), empty);
    assert_ne!(event_id_hash("a"), event_id_hash("b"));
}
