//! Examples of payloads: every field of the catalogue, and versions.

use serde_json::{Map, Value, json};

use super::super::DeletionType;
use super::super::versions::Upcaster;
use super::*;

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
