//! Tests of payloads by examples: every field of the catalogue, deletions, users, and versions.

use serde_json::{Map, Value, json};

use super::super::DeletionType;
use super::super::versions::Upcaster;
use super::*;

#[test]
fn the_catalogue_has_the_types_of_the_contract_in_its_order() {
    let names: Vec<_> = EventType::ALL.iter().map(|t| t.as_str()).collect();
    let contract: Vec<_> = CATALOGUE.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, contract);
    assert_eq!(EventType::from_name("Unknown"), None);
}

/// A field of a type's full payload, with what the payload decodes to.
struct FieldCase<'a> {
    type_name: &'static str,
    field: Field,
    full: &'a Map<String, Value>,
    good: &'a Event,
}

impl FieldCase<'_> {
    fn decode_with(&self, value: Value) -> Result<Event, Bad> {
        decode_payload(
            self.type_name,
            with(self.full.clone(), self.field.name, value),
        )
    }

    /// Fails with the type's and the field's name unless the field with this value is bad for the
    /// reason.
    fn assert_bad(&self, value: Value, reason: &str) {
        let bad = reason_and_field(self.decode_with(value));
        assert_eq!(bad, (reason, self.field.name.to_owned()), "{self}");
    }
}

impl std::fmt::Display for FieldCase<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.type_name, self.field.name)
    }
}

/// Runs a test for every field of every type.
fn for_each_field(test: impl Fn(&FieldCase)) {
    for (type_name, _) in CATALOGUE {
        let full = full_payload(type_name);
        let good = decode_payload(type_name, full.clone());
        let good = good.unwrap_or_else(|bad| panic!("{type_name}: {bad}"));
        for field in fields(type_name) {
            test(&FieldCase {
                type_name,
                field,
                full: &full,
                good: &good,
            });
        }
    }
}

#[test]
fn every_type_is_read_in_version_1() {
    for (type_name, _) in CATALOGUE {
        let event = decode_payload(type_name, full_payload(type_name)).unwrap();
        assert_eq!(event.event_type, Some(type_of(type_name)));
        assert_eq!(event.version.as_deref(), Some("1"), "{type_name}");
    }
}

#[test]
fn every_string_and_boolean_is_read_into_its_field() {
    for_each_field(|case| {
        let Field {
            name,
            kind,
            required,
        } = case.field;
        if !matches!(kind, 's' | 'b' | 'c') || name == "deletionType" {
            return;
        }
        let value = match &case.full[name] {
            Value::String(text) => format!("{text:?}"),
            value => value.to_string(),
        };
        let expected = if required {
            format!("{}: {value}", snake(name))
        } else {
            format!("{}: Some({value})", snake(name))
        };
        let shown = format!("{:?}", case.good.payload);
        assert!(shown.contains(&expected), "{case}: {expected} in {shown}");
    });
}

#[test]
fn every_field_must_have_its_type() {
    for_each_field(|case| {
        let reason = match case.field.kind {
            't' => "bad_timestamp",
            _ => "wrong_type",
        };
        case.assert_bad(json!(7), reason);
    });
}

#[test]
fn a_required_field_must_not_be_absent_and_an_optional_one_may() {
    for_each_field(|case| {
        let Field {
            name,
            kind,
            required,
        } = case.field;
        if kind == 't' {
            return;
        }
        let missing = decode_payload(case.type_name, without(case.full.clone(), name));
        if required {
            let expected = ("missing_field", name.to_owned());
            assert_eq!(reason_and_field(missing), expected, "{case}");
            case.assert_bad(Value::Null, "missing_field");
            case.assert_bad(json!(""), "empty_field");
        } else {
            let missing = missing.unwrap_or_else(|bad| panic!("{case}: {bad}"));
            for absent in [Value::Null, json!("")] {
                let event = case.decode_with(absent.clone());
                assert_eq!(event.as_ref(), Ok(&missing), "{case}: {absent}");
            }
            let is_read = !matches!(name, "newValues" | "oldValues");
            assert_eq!(missing != *case.good, is_read, "{case}");
        }
    });
}

#[test]
fn ids_are_limited_and_other_strings_are_not() {
    for_each_field(|case| {
        let Field { name, kind, .. } = case.field;
        if kind == 't' {
            return;
        }
        if name.ends_with("Id") {
            case.assert_bad(json!("x".repeat(256)), "id_too_long");
            case.assert_bad(json!("a\0b"), "nul_in_id");
        } else if kind == 's' {
            let long = case.decode_with(json!("x".repeat(70_000)));
            assert!(long.is_ok(), "{case}");
            let nul = case.decode_with(json!("a\0b"));
            let nul = nul.unwrap_or_else(|bad| panic!("{case}: {bad}"));
            assert!(!format!("{nul:?}").contains("\\0"), "{case}");
        }
    });
}

#[test]
fn deletions_are_soft_unless_the_type_is_hard() {
    for (text, deletion_type) in [
        (json!("hard"), DeletionType::Hard),
        (json!("soft"), DeletionType::Soft),
        (json!("HARD"), DeletionType::Soft),
        (json!(null), DeletionType::Soft),
        (json!(""), DeletionType::Soft),
    ] {
        let payload = json!({"userId": "u", "deletionType": text});
        let event = decode_payload("UserDeleted", payload).unwrap();
        assert!(
            matches!(event.payload, Payload::UserDeleted(p) if p.deletion_type == deletion_type),
            "{text}"
        );
    }
}

#[test]
fn the_user_of_an_event_is_the_one_in_its_payload() {
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
        let bad = decode_payload("UserLoggedIn.v9", payload.clone());
        let expected = ("unsupported_version", field.to_owned());
        assert_eq!(reason_and_field(bad), expected, "{payload}");
    }
}

#[test]
fn an_unknown_version_keeps_the_reasons_that_hold_in_every_version() {
    let bad = decode_payload("UserLoggedIn.v9", json!({"userId": "a\0"}));
    assert_eq!(reason_and_field(bad), ("nul_in_id", "userId".into()));
    let bad = decode_payload(
        "UserLoggedIn.v9",
        json!({"userId": "u", "loginTimestamp": "x"}),
    );
    assert_eq!(
        reason_and_field(bad),
        ("bad_timestamp", "loginTimestamp".into())
    );
}

/// Shows how a version is added, with one that does not exist.
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
        assert_eq!(event.payload, current.payload, "version {version}");
        assert_eq!(event.occurred_at, current.occurred_at, "version {version}");
        assert_eq!(event.version, Some(version.to_string()));
    }
    // A known version reports the missing field, an unknown one that it is not supported.
    assert_eq!(
        reason_and_field(decode("UserLoggedInV3", json!({}))),
        ("missing_field", "userId".into())
    );
    assert_eq!(
        reason_and_field(decode("UserLoggedInV4", json!({}))),
        ("unsupported_version", "userId".into())
    );
    // The version of one type is unknown for another.
    assert_eq!(
        reason_and_field(decode("UserLoggedOutV3", v3)),
        ("unsupported_version", "userId".into())
    );
}
