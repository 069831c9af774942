//! Tests of envelopes by examples: types, ids, dialects, wrappings, and values that can't be read.

use serde_json::{Value, json};

use super::super::{Change, TypeName, hash16};
use super::*;

/// The type that is read from this text, in the original envelope or in CloudEvents.
fn read_type(written: &str, cloud_events: bool) -> TypeName {
    let value = if cloud_events {
        json!({"specversion": "1.0", "id": "e-1", "type": written})
    } else {
        json!({"eventId": "e-1", "eventType": written})
    };
    let record = record(&value);
    let envelope = Envelope::read(&record).unwrap();
    envelope.event_type().clone()
}

fn unknown_type(name: &str) -> TypeName {
    TypeName::Unknown {
        name: name.to_owned(),
    }
}

#[test]
fn all_spellings_of_a_type_are_read() {
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
        let known = TypeName::Known {
            event_type: EventType::UserRegistered,
            version,
        };
        assert_eq!(read_type(written, false), known, "{written}");
        for prefix in ["", "com.example.user.", "io.my-org.v2.", "org."] {
            let written = format!("{prefix}{written}");
            assert_eq!(read_type(&written, true), known, "{written}");
        }
        let prefixed = format!("com.example.{written}");
        assert_eq!(read_type(&prefixed, false), unknown_type(&prefixed));
    }
}

#[test]
fn a_v_inside_a_type_name_is_no_version() {
    let email_verified = TypeName::Known {
        event_type: EventType::UserEmailVerified,
        version: 1,
    };
    for written in ["UserEmailVerified", "UserEmailVerifiedV1"] {
        assert_eq!(read_type(written, false), email_verified, "{written}");
    }
}

#[test]
fn other_spellings_are_unknown_types() {
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
            assert_eq!(
                read_type(written, cloud_events),
                unknown_type(written),
                "{written}, CloudEvents: {cloud_events}"
            );
        }
    }
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
        let event = decode(&record(&value)).unwrap_or_else(|bad| panic!("{id:?}: {bad}"));
        assert_eq!(event.id, id);
        assert_eq!(event.correlation_id.as_deref(), Some(id));
        assert!(
            matches!(event.payload, Payload::UserAddressDeleted(p) if p.address_id == id),
            "{id:?}"
        );
    }
}

#[test]
fn bad_parts_of_an_envelope_are_reported() {
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
        // Also for a type that the catalogue does not have.
        for type_name in ["UserLoggedIn", "SomethingElse"] {
            let mut bad = event(type_name, full_payload("UserLoggedIn"));
            bad[name] = value.clone();
            assert_eq!(
                reason_and_field(decode(&record(&bad))),
                (reason, name.to_owned()),
                "{type_name} with {name} = {value}"
            );
        }
    }
}

#[test]
fn bad_ids_in_an_array_are_reported() {
    let too_long = "🦀".repeat(256);
    for (ids, reason) in [
        (json!([too_long]), "id_too_long"),
        (json!(["a\0"]), "nul_in_id"),
        (json!([""]), "empty_field"),
        (json!([null]), "wrong_type"),
        (json!({}), "wrong_type"),
    ] {
        let context = format!("{ids}");
        let payload = with(full_payload("RoleCreated"), "initialPermissionIds", ids);
        let bad = decode_payload("RoleCreated", payload);
        let expected = (reason, "initialPermissionIds".to_owned());
        assert_eq!(reason_and_field(bad), expected, "{context}");
    }
}

#[test]
fn the_type_is_read_where_the_id_is_missing() {
    let no_id = record(&json!({"eventType": "UserLoggedIn", "payload": {}}));
    let envelope = Envelope::read(&no_id).unwrap();
    let bad = envelope.event_id().unwrap_err();
    assert_eq!(
        (bad.reason, bad.field.as_deref()),
        ("no_event_id", Some("eventId"))
    );
    assert_eq!(envelope.decode().unwrap_err().reason, "no_event_id");
}

#[test]
fn the_id_is_read_where_all_other_parts_are_bad() {
    let bad = record(
        &json!({"eventId": "e-1", "eventType": "UserLoggedIn", "payload": 7,
        "correlationId": 7, "eventTimestamp": 7}),
    );
    let envelope = Envelope::read(&bad).unwrap();
    assert_eq!(envelope.event_id().unwrap(), "e-1");
    assert!(envelope.decode().is_err());
}

#[test]
fn binary_cloud_events_have_type_and_id_whatever_the_value_is() {
    for value in [&b"not json"[..], b"", b"\xFF", b"\xEF\xBB\xBF"] {
        for type_name in [&b"UserLoggedIn"[..], b"SomethingElse"] {
            let binary = with_headers(
                record_of(value.to_vec()),
                &[("ce_id", b"e-1"), ("ce_type", type_name)],
            );
            let envelope = Envelope::read(&binary).unwrap();
            let context = format!("{} of {}", value.escape_ascii(), type_name.escape_ascii());
            assert_eq!(envelope.event_id().unwrap(), "e-1", "{context}");
            assert_eq!(
                reason_and_field(envelope.decode()),
                ("not_json", String::new()),
                "{context}"
            );
        }
    }
}

#[test]
fn a_value_that_is_not_json_is_bad() {
    for value in [
        &b""[..],
        b" ",
        b"{",
        b"{}x",
        b"nul",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"\xEF\xBB\xBF",
        b"{\"eventType\":\"\xFF\"}",
        b"{\"eventType\":\"\\ud8\"}",
        b"\0",
        b"{\"a\":01}",
        b"NaN",
    ] {
        assert_eq!(
            reason_and_field(decode(&record_of(value.to_vec()))).0,
            "not_json",
            "{}",
            value.escape_ascii()
        );
    }
    let mut tombstone = record_of("");
    tombstone.value = None;
    assert_eq!(reason_and_field(decode(&tombstone)).0, "not_json");
}

#[test]
fn a_record_without_a_type_is_bad() {
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
            reason_and_field(decode(&record(&value))),
            ("no_event_type", String::new()),
            "{value}"
        );
    }
    assert_eq!(
        reason_and_field(decode(&record(&json!({"eventType": 7})))),
        ("wrong_type", "eventType".into())
    );
}

#[test]
fn the_two_headers_make_a_binary_cloud_event_even_if_the_type_is_bad() {
    let body = serde_json::to_vec(&event("UserLoggedIn", full_payload("UserLoggedIn"))).unwrap();
    let mut binary = with_headers(record_of(body), &[("ce_id", b"e"), ("ce_type", b"")]);
    assert_eq!(reason_and_field(decode(&binary)).0, "no_event_type");
    binary.headers[1].1 = None;
    assert_eq!(reason_and_field(decode(&binary)).0, "no_event_type");
    binary.headers[1].1 = Some(Bytes::from_static(b"\xFF"));
    assert_eq!(
        reason_and_field(decode(&binary)),
        ("wrong_type", "ce_type".into())
    );
    binary.headers.pop();
    assert_eq!(decode(&binary).unwrap().id, "e-1");
}

#[test]
fn nesting_ends_at_128_levels() {
    let nested = |inner: usize| {
        let (open, close) = ("[".repeat(inner), "]".repeat(inner));
        format!(r#"{{"eventId":"e","eventType":"X","x":{open}{close}}}"#)
    };
    decode(&record_of(nested(127))).expect("128 levels");
    assert_eq!(
        reason_and_field(decode(&record_of(nested(128)))).0,
        "too_deep"
    );
    let open = "[".repeat(1_000_000);
    assert_eq!(reason_and_field(decode(&record_of(open))).0, "too_deep");
    let objects = format!(
        r#"{{"eventId":"e","eventType":"X","x":{}1{}}}"#,
        r#"{"a":"#.repeat(128),
        "}".repeat(128)
    );
    assert_eq!(reason_and_field(decode(&record_of(objects))).0, "too_deep");
    let in_string = format!(
        r#"{{"eventId":"e","eventType":"X","x":"\"{}\\"}}"#,
        "[{".repeat(500)
    );
    decode(&record_of(in_string)).expect("brackets in a string");
    let siblings = format!(
        r#"{{"eventId":"e","eventType":"X","x":[{}0]}}"#,
        "[],".repeat(500)
    );
    decode(&record_of(siblings)).expect("siblings");
}

#[test]
fn numbers_must_be_in_the_range_of_a_float() {
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
            reason_and_field(with_number(number)).0,
            "number_out_of_range",
            "{number}"
        );
    }
}

/// A record of the dialect, with this text for its payload.
fn with_payload(dialect: &str, type_name: &str, payload: &str) -> Record {
    let value = match dialect {
        "event" => format!(r#"{{"eventId":"e","eventType":"{type_name}","payload":{payload}}}"#),
        "standard" => {
            format!(r#"{{"payload":{payload},"messageId":"e","messageType":"{type_name}"}}"#)
        }
        "structured" => {
            format!(r#"{{"specversion":"1.0","id":"e","data":{payload},"type":"{type_name}"}}"#)
        }
        _ => payload.to_owned(),
    };
    let names = match dialect {
        "binary" => ["ce_id", "ce_type"],
        "outbox" => ["id", "eventType"],
        _ => return record_of(value),
    };
    let headers = [(names[0], &b"e"[..]), (names[1], type_name.as_bytes())];
    with_headers(record_of(value), &headers)
}

#[test]
fn type_and_id_are_read_whatever_the_payload_holds() {
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(70_000), "]".repeat(70_000));
    for (payload, reason) in [
        (deep.as_str(), "too_deep"),
        (r#"{"userId":"u","x":[1e999]}"#, "number_out_of_range"),
        (r#"{"userId":"u","x":"\ud83d"}"#, ""),
        (r#"{"userId":"\ud83d"}"#, "nul_in_id"),
        (r#"{"userId":"\u0000"}"#, "nul_in_id"),
        ("[]", "wrong_type"),
    ] {
        for dialect in ["event", "standard", "structured", "binary", "outbox"] {
            let context = format!("{dialect}, {reason}");
            let record = with_payload(dialect, "UserLoggedIn", payload);
            let envelope = Envelope::read(&record).unwrap_or_else(|bad| panic!("{context}: {bad}"));
            let logged_in = TypeName::Known {
                event_type: EventType::UserLoggedIn,
                version: 1,
            };
            assert_eq!(envelope.event_type(), &logged_in, "{context}");
            assert_eq!(envelope.event_id(), Ok("e"), "{context}");
            assert!(envelope.occurred_at().is_some(), "{context}");
            let decoded = envelope.decode();
            let found = decoded.as_ref().map_or_else(|bad| bad.reason, |_| "");
            assert_eq!(found, reason, "{context}");
        }
    }
}

#[test]
fn members_beyond_the_limits_are_of_the_wrong_type() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for value in ["1e999", &deep] {
        let value = format!(r#"{{"eventId":"e","eventType":{value}}}"#);
        assert_eq!(
            reason_and_field(decode(&record_of(value))),
            ("wrong_type", "eventType".into())
        );
    }
    let record = record_of(r#"{"eventId":-1e999,"eventType":"X"}"#);
    let bad = Envelope::read(&record).unwrap().event_id().unwrap_err();
    assert_eq!(bad.reason, "wrong_type");
    // Of duplicate names the last counts. An array has no members.
    let value = r#"{"eventId":"e","eventType":1e999,"x":1e999,"eventType":"X"}"#;
    let bad = decode(&record_of(value));
    assert_eq!(reason_and_field(bad).0, "number_out_of_range");
    let bad = decode(&record_of("[1e999]"));
    assert_eq!(reason_and_field(bad).0, "number_out_of_range");
}

#[test]
fn nul_and_unpaired_surrogates_are_read_as_the_replacement_character() {
    for escape in [r"\ud83d", r"\uDE00", r"\u0000"] {
        let value = r#"{"eventId":"1","eventType":"UserLoggedIn","sourceService":"s?","?":"?",
            "eventTimestamp":"2026-11-20T09:00:00Z","payload":{"userId":"u","userAgent":"My phone ?",
            "?":{"?":["?"]}}}"#
            .replace('?', escape);
        // In a JSON string, the escape is that of the inner or of the outer serializer.
        let by_inner = json!(value).to_string();
        let by_outer = by_inner.replace(r"\\u", r"\u");
        for value in [value, by_inner, by_outer] {
            let event = decode(&record_of(value.clone()));
            let event = event.unwrap_or_else(|bad| panic!("{value}: {bad}"));
            assert_eq!(event.source.as_deref(), Some("s\u{FFFD}"));
            let Payload::UserLoggedIn(login) = event.payload else {
                unreachable!()
            };
            assert_eq!(login.user_agent.as_deref(), Some("My phone \u{FFFD}"));
        }
        let value = format!(r#"{{"eventId":"e","eventType":"X{escape}"}}"#);
        let event = decode(&record_of(value)).unwrap();
        assert_eq!(event.type_name, "X\u{FFFD}");
        for (field, members) in [
            ("eventId", format!(r#""eventId":"e{escape}""#)),
            (
                "correlationId",
                format!(r#""eventId":"e","correlationId":"{escape}""#),
            ),
        ] {
            let value = format!(r#"{{"eventType":"X",{members}}}"#);
            let bad = reason_and_field(decode(&record_of(value)));
            assert_eq!(bad, ("nul_in_id", field.into()), "{escape}");
        }
        // Names that are read the same are one name.
        let payload = format!(
            r#"{{"userId":"u","profileId":"p","updatedFields":["preferences.a{escape}"],
            "newValues":{{"preferences.a\ud800":1,"preferences.a{}":2}}}}"#,
            '\u{FFFD}'
        );
        let event = decode(&with_payload("outbox", "UserProfileUpdated", &payload)).unwrap();
        let changes = changes_of(&event.payload).unwrap();
        let change = changes.get("preferences.a\u{FFFD}").unwrap();
        assert_eq!(change.new, Change::Value(json!(2)));
    }
}

#[test]
fn wrappings_are_taken_off_in_their_order() {
    const BOM: &str = "\u{FEFF}";
    let event = r#"{"eventId":"e","eventType":"X"}"#;
    let text = json!(event).to_string();
    let connect =
        |payload: &str| format!(r#"{{"schema":{{"type":"struct"}},"payload":{payload}}}"#);
    let framed = |value: &str| format!("\0\u{1}\u{2}\u{3}\u{4}{value}");
    let deep_in_wrapper = connect(&format!(
        r#"{{"eventId":"e","eventType":"X","x":{}{}}}"#,
        "[".repeat(127),
        "]".repeat(127)
    ));
    for good in [
        framed(event),
        format!("\0\0\0\0\0 {event}"),
        format!("{BOM} {event}\n"),
        connect(event),
        format!(r#" {{"payload":{event},"schema":null}} "#),
        format!(r#"{{"schema":1e999,"payload":{event}}}"#),
        format!(r#"{{"schema":1,"payload":7,"payload":{event}}}"#),
        deep_in_wrapper,
        text.clone(),
        json!(format!(" {event}\t")).to_string(),
        framed(&format!("{BOM}{}", connect(&text))),
    ] {
        let id = decode(&record_of(good.clone())).map(|event| event.id);
        assert_eq!(id.as_deref(), Ok("e"), "{good:?}");
    }
    for (bad, reason) in [
        (format!("\0\0\0\0{event}"), "not_json"),
        (format!("{BOM}{}", framed(event)), "not_json"),
        (format!("{BOM}{BOM}{event}"), "not_json"),
        (framed(&framed(event)), "not_json"),
        (framed(""), "not_json"),
        ("\0\0".to_owned(), "not_json"),
        (connect(&connect(event)), "no_event_type"),
        (
            format!(r#"{{"schema":{{}},"payload":{event},"x":1}}"#),
            "no_event_type",
        ),
        (format!(r#"{{"payload":{event}}}"#), "no_event_type"),
        (connect("null"), "no_event_type"),
        (connect("1e999"), "number_out_of_range"),
        (json!(text).to_string(), "no_event_type"),
        (json!(connect(event)).to_string(), "no_event_type"),
        (json!(format!("{BOM}{event}")).to_string(), "no_event_type"),
        (json!(&event[1..]).to_string(), "no_event_type"),
        (json!("\0").to_string(), "no_event_type"),
    ] {
        let found = reason_and_field(decode(&record_of(bad.clone())));
        assert_eq!(found.0, reason, "{bad:?}");
    }
    // The limits hold in a wrapping, too.
    let number = r#"{"eventId":"e","eventType":"X","x":1e999}"#;
    for wrapped in [connect(number), json!(number).to_string()] {
        let record = record_of(wrapped);
        assert_eq!(Envelope::read(&record).unwrap().event_id(), Ok("e"));
        assert_eq!(reason_and_field(decode(&record)).0, "number_out_of_range");
    }
    // A payload whose envelope is in headers may be wrapped, too.
    let payload = framed(&connect(&json!(r#"{"userId":"u"}"#).to_string()));
    for dialect in ["binary", "outbox"] {
        let event = decode(&with_payload(dialect, "UserLoggedIn", &payload)).unwrap();
        assert_eq!(event.user_id(), Some("u"), "{dialect}");
    }
}

#[test]
fn the_outbox_router_has_its_envelope_in_headers() {
    let outbox: &[(&str, &[u8])] = &[("id", b"o"), ("eventType", b"UserLoggedIn")];
    let payload = json!({"userId": "u", "source": 7, "timestamp": "x"});
    let event = decode(&with_headers(record(&payload), outbox)).unwrap();
    assert_eq!((event.id.as_str(), event.user_id()), ("o", Some("u")));
    assert_eq!((&event.source, &event.correlation_id), (&None, &None));
    assert_eq!(event.occurred_at.timestamp_millis(), KAFKA_TIME_MS);
    let correlated = [outbox, &[("correlationId", b"c")]].concat();
    let event = decode(&with_headers(record(&payload), &correlated)).unwrap();
    assert_eq!(event.correlation_id.as_deref(), Some("c"));
    let prefixed: &[(&str, &[u8])] = &[("id", b"o"), ("eventType", b"com.UserLoggedIn")];
    let event = decode(&with_headers(record(&payload), prefixed)).unwrap();
    assert_eq!(event.event_type, None);
    for (value, reason) in [("", "not_json"), ("{", "not_json"), ("[]", "wrong_type")] {
        let record = with_headers(record_of(value), outbox);
        assert_eq!(Envelope::read(&record).unwrap().event_id(), Ok("o"));
        assert_eq!(reason_and_field(decode(&record)).0, reason, "{value}");
    }
    let id_missing: &[(&str, &[u8])] = &[("id", b""), ("eventType", b"X")];
    let bad = decode(&with_headers(record(&payload), id_missing));
    assert_eq!(reason_and_field(bad), ("no_event_id", "id".into()));
}

#[test]
fn the_outbox_router_is_the_last_dialect_to_be_considered() {
    let outbox: &[(&str, &[u8])] = &[("id", b"o"), ("eventType", b"UserLoggedIn")];
    for (value, id) in [
        (json!({"specversion": "1.0", "id": "b", "type": "X"}), "b"),
        (json!({"messageId": "b", "messageType": "X"}), "b"),
        (json!({"eventId": "b", "eventType": "X"}), "b"),
        (json!({"userId": "u", "id": "b", "type": "X"}), "o"),
    ] {
        let event = decode(&with_headers(record(&value), outbox)).unwrap();
        assert_eq!(event.id, id, "{value}");
    }
    for (value, reason) in [
        (json!({"eventId": "b", "userId": "u"}), "no_event_type"),
        (json!({"messageId": "", "userId": "u"}), "no_event_type"),
        (json!({"specversion": null, "userId": "u"}), "no_event_type"),
        (json!({"eventType": null, "userId": "u"}), "no_event_type"),
        (
            json!({"eventType": "UserLoggedIn", "userId": "u"}),
            "no_event_id",
        ),
    ] {
        let bad = decode(&with_headers(record(&value), outbox));
        assert_eq!(reason_and_field(bad).0, reason, "{value}");
    }
    let payload = json!({"userId": "u"});
    for headers in [&outbox[..1], &outbox[1..]] {
        let bad = decode(&with_headers(record(&payload), headers));
        assert_eq!(reason_and_field(bad).0, "no_event_type");
    }
    let binary: &[(&str, &[u8])] = &[("ce_id", b"ce"), ("ce_type", b"UserLoggedIn")];
    let event = decode(&with_headers(record(&payload), &[outbox, binary].concat()));
    assert_eq!(event.unwrap().id, "ce");
}

#[test]
fn structured_cloud_events_may_have_their_data_in_base64() {
    let with_data = |data: Value, data_base64: Value| {
        let cloud_event = json!({"specversion": "1.0", "id": "e", "type": "UserLoggedIn",
            "data": data, "data_base64": data_base64});
        decode(&record(&cloud_event))
    };
    for (data, data_base64, user) in [
        (json!(null), json!("eyJ1c2VySWQiOiJ1In0="), "u"),
        (json!(""), json!("eyJ1c2VySWQiOiJ1In0"), "u"),
        (json!({"userId": "v"}), json!("eyJ1c2VySWQiOiJ1In0="), "v"),
        (json!({"userId": "v"}), json!(7), "v"),
    ] {
        let event = with_data(data, data_base64).unwrap();
        assert_eq!(event.user_id(), Some(user));
    }
    for (data_base64, reason, field) in [
        (json!(null), "missing_field", "payload"),
        (json!(""), "missing_field", "payload"),
        (json!({}), "wrong_type", "data_base64"),
        (json!("W10="), "wrong_type", "data_base64"),
        (json!("eyJ*"), "not_base64", "data_base64"),
        (json!("a\0"), "not_base64", "data_base64"),
        (json!("eyI="), "not_json", "data_base64"),
        (
            json!("eyJ4IjoxZTk5OX0="),
            "number_out_of_range",
            "data_base64",
        ),
        (json!("eyJ1c2VySWQiOiJcdWQ4M2QifQ=="), "nul_in_id", "userId"),
    ] {
        let bad = with_data(Value::Null, data_base64.clone());
        let expected = (reason, field.to_owned());
        assert_eq!(reason_and_field(bad), expected, "{data_base64}");
    }
    // Only CloudEvents have it.
    let original = json!({"eventId": "e", "eventType": "UserLoggedIn", "data_base64": "e30="});
    assert_eq!(
        reason_and_field(decode(&record(&original))),
        ("missing_field", "payload".into())
    );
}

#[test]
fn numbers_are_kept_exactly() {
    let read = |number: &str| {
        let payload = format!(
            r#"{{"userId":"u","profileId":"p","updatedFields":{{"preferences.x":{number}}}}}"#
        );
        let headers: &[(&str, &[u8])] = &[("ce_id", b"e"), ("ce_type", b"UserProfileUpdated")];
        let event = decode(&with_headers(record_of(payload), headers)).unwrap();
        let change = changes_of(&event.payload)
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
    let all = |specversion: Value, message_id: Value| {
        json!({
            "specversion": specversion, "id": "cloud", "type": "UserLoggedIn", "data": payload(),
            "messageId": message_id, "messageType": "UserLoggedIn",
            "eventId": "original", "eventType": "UserLoggedIn", "payload": payload(),
        })
    };
    let (given, standard) = (|| json!("1.0"), || json!("standard"));
    let binary: &[(&str, &[u8])] = &[("ce_id", b"binary"), ("ce_type", b"Other")];
    let other_names: &[(&str, &[u8])] = &[("CE_ID", b"b"), ("ce-type", b"Other")];
    for (specversion, message_id, headers, id) in [
        (given(), standard(), binary, "binary"),
        (given(), standard(), &binary[..1], "cloud"),
        (given(), standard(), &binary[1..], "cloud"),
        (given(), standard(), other_names, "cloud"),
        (Value::Null, standard(), &[], "standard"),
        (Value::Null, json!(""), &[], "original"),
    ] {
        let context = format!("specversion {specversion}, messageId {message_id}, {headers:?}");
        let record = with_headers(record(&all(specversion, message_id)), headers);
        assert_eq!(decode(&record).unwrap().id, id, "{context}");
    }
    let empty_id = json!({"messageId": "", "messageType": "UserLoggedIn", "payload": payload()});
    assert_eq!(
        reason_and_field(decode(&record(&empty_id))),
        ("no_event_id", "messageId".into())
    );
}

#[test]
fn data_is_a_spelling_of_payload_in_the_original_envelope_only() {
    let payload = Value::from(full_payload("UserLoggedIn"));
    let standard = json!({"messageId": "m", "messageType": "UserLoggedIn", "data": payload});
    assert_eq!(
        reason_and_field(decode(&record(&standard))),
        ("missing_field", "payload".into())
    );
    let original = json!({"eventId": "m", "eventType": "UserLoggedIn", "payload": null,
        "data": payload, "source": "a", "version": 1.0});
    let event = decode(&record(&original)).unwrap();
    assert_eq!(event.source.as_deref(), Some("a"));
}

#[test]
fn a_payload_must_be_an_object() {
    for (payload, reason) in [
        (json!(null), "missing_field"),
        (json!(""), "missing_field"),
        (json!([]), "wrong_type"),
        (json!("x"), "wrong_type"),
    ] {
        let bad = decode_payload("UserLoggedIn", payload.clone());
        assert_eq!(
            reason_and_field(bad),
            (reason, "payload".into()),
            "{payload}"
        );
    }
}

#[test]
fn the_correlation_id_of_the_body_counts_before_the_header() {
    let correlate = |body: Value, header: &[u8]| {
        let mut value = event("UserLoggedIn", full_payload("UserLoggedIn"));
        value["correlationId"] = body;
        decode(&with_headers(record(&value), &[("correlationId", header)]))
    };
    for (body, header, expected) in [
        (json!("body"), &b"header"[..], Some("body")),
        (json!("body"), b"\xFF", Some("body")),
        (json!(null), b"header", Some("header")),
        (json!(""), b"header", Some("header")),
        (json!(""), b"", None),
    ] {
        let context = format!("{body}, {}", header.escape_ascii());
        let event = correlate(body, header).unwrap();
        assert_eq!(event.correlation_id.as_deref(), expected, "{context}");
    }
    for (body, header, reason) in [
        (json!(7), &b"header"[..], "wrong_type"),
        (json!(null), b"\xFF", "wrong_type"),
        (json!(null), &[b'x'; 256], "id_too_long"),
        (json!(null), b"\0", "nul_in_id"),
    ] {
        let context = format!("{body}, {}", header.escape_ascii());
        let bad = correlate(body, header);
        let expected = (reason, "correlationId".to_owned());
        assert_eq!(reason_and_field(bad), expected, "{context}");
    }
}

#[test]
fn the_correlation_id_of_binary_cloud_events_counts_before_the_header() {
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

#[test]
fn messages_and_debug_output_hold_no_data() {
    let bad = decode_payload("UserLoggedIn", json!({"userId": 7})).unwrap_err();
    assert_eq!(bad.to_string(), "wrong_type: userId has the wrong type");
    let bad = decode(&record_of("secret")).unwrap_err();
    assert_eq!(bad.to_string(), "not_json: the value is not JSON in UTF-8");
    let mut record = record_of("secret");
    record.key = Some(Bytes::from_static(b"secret"));
    assert_eq!(format!("{record:?}"), "Record(user.events/3@41)");
}

#[test]
fn ids_are_hashed_by_sha_256() {
    let empty = "e3b0c442-98fc-1c14-9afb-f4c8996fb924";
    assert_eq!(hash16(b"").to_string(), empty);
    assert_ne!(hash16(b"a"), hash16(b"b"));
}
