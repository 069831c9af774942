//! Examples of the audit domain.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sightline_testing::broker::Record;
use sightline_testing::hostile_log::MAX_VALUE_BYTES;
use sightline_testing::reference::{Filters, Fold, KINDS, Trail, Verdict, event_of};

use super::{Counts, at, random_log};

const DAY: i64 = 86_400;
/// The length of a window of alerts, in seconds.
const WINDOW: i64 = 300;

/// The domain's fold, and how many events it has taken.
struct Example {
    fold: Fold,
    events: i64,
}

impl Example {
    fn new() -> Example {
        Example {
            fold: Fold::new(Trail::default(), 100_000),
            events: 0,
        }
    }

    /// Takes an event of partition 0 that happened `at` seconds after the epoch, under this key.
    fn event(&mut self, key: &str, event_type: &str, at: i64, payload: Value) -> Verdict {
        self.on(0, key, event_type, at, payload)
    }

    /// Takes an event of a partition.
    fn on(
        &mut self,
        partition: i32,
        key: &str,
        event_type: &str,
        at: i64,
        payload: Value,
    ) -> Verdict {
        let record = self.record(partition, key, event_type, at, payload);
        self.fold.take(&record)
    }

    fn record(
        &mut self,
        partition: i32,
        key: &str,
        event_type: &str,
        at: i64,
        payload: Value,
    ) -> Record {
        self.events += 1;
        let time = DateTime::from_timestamp(at, 0).expect("in range");
        let value = json!({"eventType": event_type, "eventId": self.events.to_string(),
            "eventTimestamp": time.to_rfc3339(), "payload": payload});
        Record {
            partition,
            key: Some(key.into()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: self.events,
        }
    }

    fn view(&self) -> &Trail {
        self.fold.view()
    }

    /// All entries, the newest first, so many seconds after the epoch.
    fn entries(&self, now: i64) -> Vec<Value> {
        self.view().entries(at(now).expect("in range"))
    }

    /// The oldest entry.
    fn first(&self) -> Value {
        self.entries(0).pop().expect("an entry")
    }

    fn role(&self, as_of: Option<i64>) -> Value {
        let standing = self.view().standing(as_of.and_then(at));
        standing.role("r").expect("known")
    }

    /// The roles and the permissions of `u` in short.
    fn access(&self, as_of: Option<i64>) -> String {
        let standing = self.view().standing(as_of.and_then(at));
        let access = standing.user("u").expect("known");
        let ids = |list: &str, id: &str| {
            let list = access[list].as_array().expect("a list").iter();
            let ids: Vec<&str> = list.map(|row| row[id].as_str().expect("text")).collect();
            ids.join(" ")
        };
        format!(
            "{}: {}",
            ids("roles", "roleId"),
            ids("permissions", "permissionId")
        )
    }
}

#[test]
fn an_entry_in_full() {
    let mut example = Example::new();
    let payload = json!({
        "eventType": "UserLoggedInEvent.v7", "eventId": "e", "correlationId": "c", "payload": {
            "userId": "u", "ipAddress": "192.0.2.1", "userAgent": "A\0", "reason": "not-this", "actor": "not-this",
            "roleId": "not-this", "loginTimestamp": "2026-10-01T02:00:00.1234567+02:00",
        },
    });
    let record = Record {
        partition: 3,
        key: None,
        value: Some(payload.to_string().into_bytes()),
        headers: vec![("correlationId".into(), b"not-this".to_vec())],
        timestamp: 0,
    };
    assert_eq!(example.fold.take(&record), Verdict::Applied);
    assert_eq!(example.fold.take(&record), Verdict::Duplicate);
    let expected = json!({
        "eventId": "e", "type": "UserLoggedIn", "version": "7", "category": "authentication",
        "action": "user_logged_in", "outcome": "success", "actor": "u", "userId": "u", "ipAddress": "192.0.2.1",
        "userAgent": "A\u{fffd}", "correlationId": "c", "occurredAt": "2026-10-01T00:00:00.123456Z",
        "partition": 3, "offset": 0,
    });
    assert_eq!(example.entries(0), [expected]);
}

#[test]
fn each_type_has_its_category_outcome_and_actor() {
    let updated = json!({"updatedFields": [], "newValues": {"a": 1}, "updatedBy": "a"});
    for (event_type, category, action, payload, actor) in [
        (
            "UserRegistered",
            "account",
            "user_registered",
            json!({"email": "e", "status": "s"}),
            Some("u"),
        ),
        (
            "UserEmailVerified",
            "account",
            "user_email_verified",
            json!({"email": "e"}),
            Some("u"),
        ),
        (
            "UserPasswordChanged",
            "account",
            "user_password_changed",
            json!({"changeType": "t"}),
            Some("u"),
        ),
        (
            "UserPasswordResetRequested",
            "account",
            "user_password_reset_requested",
            json!({"email": "e"}),
            Some("u"),
        ),
        (
            "UserAccountStatusChanged",
            "account",
            "user_account_status_changed",
            json!({"newStatus": "n", "previousStatus": "p", "changedBy": "user"}),
            Some("user"),
        ),
        (
            "UserAccountStatusChanged",
            "account",
            "user_account_status_changed",
            json!({"newStatus": "n", "previousStatus": "p", "changedBy": ""}),
            Some("u"),
        ),
        (
            "UserUpdated",
            "account",
            "user_updated",
            json!({"updatedFields": []}),
            Some("u"),
        ),
        (
            "UserDeleted",
            "account",
            "user_deleted",
            json!({"deletedBy": "not-this"}),
            Some("u"),
        ),
        (
            "UserLoggedIn",
            "authentication",
            "user_logged_in",
            json!({}),
            Some("u"),
        ),
        (
            "UserLoggedOut",
            "authentication",
            "user_logged_out",
            json!({}),
            Some("u"),
        ),
        (
            "MfaStatusChanged",
            "authentication",
            "mfa_status_changed",
            json!({"mfaEnabled": true}),
            Some("u"),
        ),
        (
            "MfaStatusChanged",
            "authentication",
            "mfa_status_changed",
            json!({"mfaEnabled": true, "changedBy": "user"}),
            Some("u"),
        ),
        (
            "MfaStatusChanged",
            "authentication",
            "mfa_status_changed",
            json!({"mfaEnabled": true, "changedBy": "admin"}),
            Some("admin"),
        ),
        (
            "MfaChallengeFailed",
            "authentication",
            "mfa_challenge_failed",
            json!({}),
            Some("u"),
        ),
        (
            "UserLoginFailed",
            "authentication",
            "user_login_failed",
            json!({"reason": "r"}),
            None,
        ),
        (
            "UserLoginFailed",
            "authentication",
            "user_login_failed",
            json!({"reason": "r", "attemptedUserId": "", "attemptedUsername": "n"}),
            Some("n"),
        ),
        (
            "UserLoginFailed",
            "authentication",
            "user_login_failed",
            json!({"reason": "r", "attemptedEmail": "e", "attemptedUsername": "n"}),
            Some("e"),
        ),
        (
            "UserLoginFailed",
            "authentication",
            "user_login_failed",
            json!({"reason": "r", "attemptedUserId": "v", "attemptedEmail": "e"}),
            Some("v"),
        ),
        (
            "RoleCreated",
            "authorization",
            "role_created",
            json!({"roleName": "R", "createdBy": "a"}),
            Some("a"),
        ),
        (
            "RoleUpdated",
            "authorization",
            "role_updated",
            updated.clone(),
            Some("a"),
        ),
        (
            "RoleDeleted",
            "authorization",
            "role_deleted",
            json!({"roleName": "R", "deletedBy": "a"}),
            Some("a"),
        ),
        (
            "UserRoleAssigned",
            "authorization",
            "user_role_assigned",
            json!({"roleName": "R", "assignedBy": "a"}),
            Some("a"),
        ),
        (
            "UserRoleRemoved",
            "authorization",
            "user_role_removed",
            json!({"roleName": "R", "removedBy": "u"}),
            Some("u"),
        ),
        (
            "PermissionCreated",
            "authorization",
            "permission_created",
            json!({"permissionName": "P", "createdBy": "a"}),
            Some("a"),
        ),
        (
            "PermissionUpdated",
            "authorization",
            "permission_updated",
            updated,
            Some("a"),
        ),
        (
            "PermissionDeleted",
            "authorization",
            "permission_deleted",
            json!({"permissionName": "P", "deletedBy": "a"}),
            Some("a"),
        ),
        (
            "PermissionAssignedToRole",
            "authorization",
            "permission_assigned_to_role",
            json!({"permissionName": "P", "assignedBy": "a"}),
            Some("a"),
        ),
        (
            "PermissionRemovedFromRole",
            "authorization",
            "permission_removed_from_role",
            json!({"permissionName": "P", "removedBy": "a"}),
            Some("a"),
        ),
    ] {
        let mut example = Example::new();
        let mut whole = json!({"userId": "u", "roleId": "r", "permissionId": "p"});
        for (name, value) in payload.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        let verdict = example.event("k", event_type, 1, whole);
        assert_eq!(verdict, Verdict::Applied, "{event_type} {payload}");
        let entry = example.first();
        let failed = ["UserLoginFailed", "MfaChallengeFailed"].contains(&event_type);
        let outcome = if failed { "failure" } else { "success" };
        let said = ["type", "category", "action", "outcome", "version"].map(|name| &entry[name]);
        assert_eq!(
            said,
            [event_type, category, action, outcome, "1"],
            "{payload}"
        );
        assert_eq!(entry["actor"].as_str(), actor, "{event_type} {payload}");
        // Only what the catalogue names for the type counts.
        let is = |names: &[&str]| names.iter().any(|name| event_type.contains(name));
        let has = |name: &str| entry.get(name).is_some();
        let of_user = is(&["User", "Mfa"]) && payload.get("attemptedUserId") != Some(&json!(""));
        let named = payload.get("attemptedUserId").is_some() || event_type != "UserLoginFailed";
        assert_eq!(has("userId"), of_user && named, "{event_type} {payload}");
        assert_eq!(has("roleId"), is(&["Role"]), "{event_type}");
        assert_eq!(has("permissionId"), is(&["Permission"]), "{event_type}");
    }
    for event_type in [
        "UserProfileUpdated",
        "UserAddressAdded",
        "UserAddressDeleted",
    ] {
        let verdict = Example::new().event("k", event_type, 1, json!({}));
        assert_eq!(verdict, Verdict::Skipped, "{event_type}");
    }
}

#[test]
fn reasons_are_those_of_two_types() {
    let changed =
        json!({"userId": "u", "newStatus": "n", "previousStatus": "p", "reason": "because"});
    let failed = json!({"reason": "user_not_found"});
    let created = json!({"roleId": "r", "roleName": "R", "createdBy": "a", "reason": "because"});
    for (event_type, payload, reason) in [
        ("UserAccountStatusChanged", changed, Some("because")),
        ("UserLoginFailed", failed, Some("user_not_found")),
        ("RoleCreated", created, None),
    ] {
        let mut example = Example::new();
        example.event("k", event_type, 1, payload);
        assert_eq!(example.first()["reason"].as_str(), reason, "{event_type}");
    }
}

#[test]
fn unknown_types_are_entries() {
    let mut example = Example::new();
    let payload = json!({"userId": "u", "reason": "r", "ipAddress": "i", "updatedFields": ["a"], "changedBy": "a"});
    let verdict = example.event("u", "UserTeleported.v2", 5, payload);
    assert_eq!(verdict, Verdict::Applied);
    let expected = json!({
        "eventId": "1", "type": "UserTeleported.v2", "category": "unknown", "action": "UserTeleported.v2",
        "outcome": "success", "occurredAt": "1970-01-01T00:00:05Z", "partition": 0, "offset": 0,
    });
    assert_eq!(example.entries(0), [expected]);
    assert_eq!(example.view().standing(None).user("u"), None);

    // An id and a time are needed, and JSON within the limits; the payload is not read.
    for (value, expected) in [
        (json!({"eventType": "X", "eventId": "e"}), Verdict::Applied),
        (
            json!({"eventType": "X", "eventId": "f", "payload": 5}),
            Verdict::Applied,
        ),
        (json!({"eventType": "X"}), Verdict::DeadLettered),
        (
            json!({"eventType": "X", "eventId": "x".repeat(256)}),
            Verdict::DeadLettered,
        ),
        (
            json!({"eventType": "X", "eventId": "g", "timestamp": "soon"}),
            Verdict::DeadLettered,
        ),
        (
            json!({"eventType": "X", "eventId": "g", "correlationId": 5}),
            Verdict::DeadLettered,
        ),
        (
            json!({"eventType": "X", "eventId": "g", "correlationId": ""}),
            Verdict::Applied,
        ),
        (
            json!({"eventType": "", "eventId": "g"}),
            Verdict::DeadLettered,
        ),
    ] {
        let mut record = example.record(0, "k", "", 0, json!({}));
        record.value = Some(value.to_string().into_bytes());
        record.timestamp = 7_000;
        assert_eq!(example.fold.take(&record), expected, "{value}");
    }
    let mut record = example.record(0, "k", "", 0, json!({}));
    record.value = Some(br#"{"eventType":"X","eventId":"h","payload":1e999}"#.to_vec());
    assert_eq!(example.fold.take(&record), Verdict::DeadLettered);
    // By Kafka's time.
    assert_eq!(example.entries(0)[0]["occurredAt"], "1970-01-01T00:00:07Z");
    assert_eq!(example.fold.books(0).parked_keys, 0);
}

#[test]
fn changes_are_by_name_with_what_is_known() {
    for (event_type, fields, expected) in [
        (
            "UserUpdated",
            json!({"updatedFields": {
                "username": {"old": "a", "new": "b\0"}, "email": "c", "x": null, "secondaryEmail": {"old": "d"},
                "a.b": {"old": "", "new": {"c": ["\0", 1]}}, "y": {"new": ""}, "z": {"old": 1, "other": 2},
            }, "oldValues": {"email": "not-this"}, "newValues": {"x": "not-this"}}),
            json!([
                {"field": "a.b", "new": {"c": ["\u{fffd}", 1]}}, {"field": "email", "new": "c"},
                {"field": "secondaryEmail", "old": "d"}, {"field": "username", "old": "a", "new": "b\u{fffd}"},
                {"field": "x"}, {"field": "y"}, {"field": "z", "new": {"old": 1, "other": 2}},
            ]),
        ),
        (
            "UserUpdated",
            json!({"updatedFields": ["username", "a.b", "username", "x", "z"],
                "newValues": {"a": {"b": 5}, "x": null, "y": 1}, "oldValues": {"username": "not-this"}}),
            json!([{"field": "a.b", "new": 5}, {"field": "username"}, {"field": "x"}, {"field": "z"}]),
        ),
        (
            "RoleUpdated",
            json!({"updatedFields": ["roleName", "description", "a.b"], "newValues": {"roleName": "S"},
                "oldValues": {"roleName": "R", "description": null, "a": {"b": false}}}),
            json!([
                {"field": "a.b", "old": false}, {"field": "description"},
                {"field": "roleName", "old": "R", "new": "S"},
            ]),
        ),
        (
            "PermissionUpdated",
            json!({"updatedFields": {"action": {"old": "w"}, "subject": {"new": "s"}}, "newValues": {},
                "oldValues": {"action": "not-this", "subject": ["t"]}}),
            json!([{"field": "action", "old": "w"}, {"field": "subject", "old": ["t"], "new": "s"}]),
        ),
    ] {
        let mut example = Example::new();
        let mut payload =
            json!({"userId": "u", "roleId": "r", "permissionId": "p", "updatedBy": "a"});
        for (name, value) in fields.as_object().expect("an object") {
            payload[name] = value.clone();
        }
        let verdict = example.event("k", event_type, 1, payload);
        assert_eq!(verdict, Verdict::Applied, "{fields}");
        assert_eq!(example.first()["changes"], expected, "{fields}");
    }
    // Named fields have their types, and newValues is required.
    for (event_type, payload) in [
        (
            "RoleUpdated",
            json!({"roleId": "r", "updatedBy": "a", "updatedFields": []}),
        ),
        (
            "RoleUpdated",
            json!({"roleId": "r", "updatedBy": "a", "updatedFields": {"roleName": 5}, "newValues": {}}),
        ),
        (
            "PermissionUpdated",
            json!({"permissionId": "p", "updatedBy": "a", "updatedFields": ["action"], "newValues": {"action": 5}}),
        ),
        (
            "RoleCreated",
            json!({"roleId": "r", "roleName": "R", "createdBy": "a", "initialPermissionIds": [5]}),
        ),
        (
            "RoleCreated",
            json!({"roleId": "r", "roleName": "R", "createdBy": "a", "initialPermissionIds": [""]}),
        ),
    ] {
        let verdict = Example::new().event("k", event_type, 1, payload.clone());
        assert_eq!(verdict, Verdict::DeadLettered, "{payload}");
    }
}

#[test]
fn entries_are_listed_newest_first_by_every_filter() {
    let mut example = Example::new();
    let failed =
        |user: &str, ip: &str| json!({"attemptedUserId": user, "ipAddress": ip, "reason": "r"});
    example.on(1, "u", "UserLoginFailed", 20, failed("u", "i"));
    example.on(
        0,
        "u",
        "UserLoggedIn",
        20,
        json!({"userId": "u", "ipAddress": "j"}),
    );
    example.on(1, "u", "UserLoginFailed", 10, failed("v", "i"));
    let assigned = json!({"userId": "u", "roleId": "r", "roleName": "R", "assignedBy": "v"});
    example.on(0, "r", "UserRoleAssigned", 30, assigned);
    example.on(0, "x", "X", 20, json!({}));
    let listed = |equal: &[(&'static str, &str)], from: Option<i64>, to: Option<i64>| {
        let equal = equal
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let filters = Filters {
            equal: equal.collect(),
            from: from.and_then(at),
            to: to.and_then(at),
        };
        let entries = example.entries(0).into_iter();
        let listed = entries.filter(|entry| filters.allow(entry));
        let ids: Vec<String> = listed
            .map(|e| e["eventId"].as_str().expect("text").to_owned())
            .collect();
        ids.join(" ")
    };
    assert_eq!(listed(&[], None, None), "4 1 5 2 3");
    for (equal, expected) in [
        (&[("userId", "u")][..], "4 1 2"),
        (&[("userId", "r")], ""),
        (&[("actor", "v")], "4 3"),
        (&[("roleId", "r")], "4"),
        (&[("ipAddress", "i")], "1 3"),
        (&[("category", "authentication")], "1 2 3"),
        (&[("category", "unknown")], "5"),
        (&[("action", "user_login_failed")], "1 3"),
        (&[("action", "X")], "5"),
        (&[("action", "UserLoggedIn")], ""),
        (&[("outcome", "success")], "4 5 2"),
        (&[("userId", "u"), ("actor", "u")], "1 2"),
        (
            &[("userId", "u"), ("outcome", "failure"), ("ipAddress", "i")],
            "1",
        ),
    ] {
        assert_eq!(listed(equal, None, None), expected, "{equal:?}");
    }
    assert_eq!(listed(&[], Some(20), Some(30)), "1 5 2");
    assert_eq!(listed(&[("userId", "u")], Some(21), None), "4");
    assert_eq!(listed(&[("userId", "u")], None, Some(20)), "");
}

#[test]
fn what_is_personal_is_erased_before_and_after() {
    let log = |deletion: Value| {
        let mut example = Example::new();
        let update = |new: &str| json!({"userId": "u", "updatedFields": {"email": {"old": "o", "new": new}}});
        let login = json!({"userId": "u", "ipAddress": "i", "userAgent": "a"});
        let failed =
            json!({"attemptedUserId": "u", "attemptedEmail": "e", "ipAddress": "i", "reason": "r"});
        example.event("u", "UserUpdated", 1, update("1"));
        example.event("u", "UserLoggedIn", 2, login.clone());
        example.event(
            "v",
            "UserLoggedIn",
            3,
            json!({"userId": "v", "ipAddress": "i"}),
        );
        example.event("u", "UserDeleted", 4, deletion);
        example.event("u", "UserLoginFailed", 5, failed);
        example.event("u", "UserUpdated", 6, update("2"));
        example
    };
    let personal = |example: &Example, now: i64| {
        let has = |entry: Value| {
            let change = entry["changes"].get(0).cloned().unwrap_or_default();
            let in_change = change.get("old").or(change.get("new")).is_some();
            let is = in_change || entry.get("ipAddress").or(entry.get("userAgent")).is_some();
            is.then(|| entry["eventId"].as_str().expect("text").to_owned())
        };
        let ids: Vec<String> = example.entries(now).into_iter().filter_map(has).collect();
        ids.join(" ")
    };
    let year = 365 * DAY;
    let hard = log(json!({"userId": "u", "deletionType": "hard"}));
    assert_eq!(personal(&hard, 0), "3");
    let newest = &hard.entries(0)[0];
    assert_eq!(newest["changes"], json!([{"field": "email"}]));
    assert_eq!(
        (&newest["userId"], &newest["actor"]),
        (&json!("u"), &json!("u"))
    );
    for deletion in [
        json!({"userId": "u"}),
        json!({"userId": "u", "deletionType": "soft"}),
    ] {
        let mut soft = log(deletion);
        assert_eq!(personal(&soft, 4 + year - 1), "6 5 3 2 1");
        assert_eq!(personal(&soft, 4 + year), "3");
        let settled =
            |example: &Example, now| example.view().is_settled("u", at(now).expect("in range"));
        assert!(!settled(&soft, 4 + year) && settled(&soft, year + 1_000));
        // The first of several deletions counts.
        soft.event("u", "UserDeleted", 1, json!({"userId": "u"}));
        assert_eq!(personal(&soft, 1 + year), "3");
        soft.on(
            1,
            "x",
            "UserDeleted",
            90,
            json!({"userId": "u", "deletionType": "hard"}),
        );
        assert_eq!(personal(&soft, 5), "3");
    }
}

#[test]
fn only_roles_and_permissions_park_their_key() {
    let mut example = Example::new();
    let login = || json!({"userId": "u"});
    let assigned = || json!({"userId": "u", "roleId": "r", "roleName": "R", "assignedBy": "a"});
    let mut take =
        |key: &str, event_type: &str, payload: Value| example.event(key, event_type, 1, payload);
    use Verdict::{Applied, DeadLettered};
    // What is bad of other types stands alone.
    assert_eq!(take("u", "UserLoggedIn", json!({})), DeadLettered);
    assert_eq!(take("u", "UserLoggedIn", login()), Applied);
    assert_eq!(take("u", "UserRoleAssigned", assigned()), Applied);
    // What is bad of these parks the key, for these only.
    assert_eq!(
        take("u", "UserRoleAssigned", json!({"userId": "u"})),
        DeadLettered
    );
    assert_eq!(take("u", "UserRoleRemoved", assigned()), DeadLettered);
    assert_eq!(take("u", "UserLoggedIn", login()), Applied);
    assert_eq!(take("u", "X", json!({})), Applied);
    assert_eq!(take("r", "UserRoleAssigned", assigned()), Applied);
    assert_eq!(
        take("r", "RoleDeleted", json!({"roleId": "r"})),
        DeadLettered
    );
    assert_eq!(take("r", "UserRoleAssigned", assigned()), DeadLettered);
    let books = example.fold.books(0);
    assert_eq!((books.dead_letters, books.parked_keys), (5, 2));
    // A good deletion closes the dead letters of its user.
    let mut take =
        |key: &str, event_type: &str, payload: Value| example.event(key, event_type, 1, payload);
    assert_eq!(take("u", "UserDeleted", json!({})), DeadLettered);
    assert_eq!(take("u", "UserDeleted", json!({"userId": "v"})), Applied);
    assert_eq!(take("u", "UserRoleAssigned", assigned()), DeadLettered);
    assert_eq!(take("w", "UserDeleted", json!({"userId": "u"})), Applied);
    assert_eq!(take("u", "UserRoleAssigned", assigned()), Applied);
    let books = example.fold.books(0);
    assert_eq!(
        (books.dead_letters, books.parked_keys, books.dead_lettered),
        (2, 1, 7)
    );
    // Records that can't be read, or are too large, park nothing.
    for value in ["{".to_owned(), " ".repeat(100_001)] {
        let mut record = example.record(0, "u", "", 0, json!({}));
        record.value = Some(value.into_bytes());
        assert_eq!(example.fold.take(&record), DeadLettered);
    }
    assert_eq!(example.fold.books(0).parked_keys, 1);
    let verdict = example.event("u", "UserRoleAssigned", 1, assigned());
    assert_eq!(verdict, Applied);
}

#[test]
fn retries_and_discards_free_what_waits() {
    let mut example = Example::new();
    let assigned = |padding: usize| json!({"userId": "u", "roleId": "r", "roleName": "R", "assignedBy": "a", "padding": " ".repeat(padding)});
    let large = |padding: usize| json!({"userId": "u", "padding": " ".repeat(padding)});
    example.event("r", "UserRoleAssigned", 1, json!({}));
    example.event("r", "UserLoggedIn", 2, large(100_000));
    example.event("r", "UserRoleAssigned", 3, assigned(100_000));
    example.event("r", "UserRoleAssigned", 4, assigned(0));
    let books = example.fold.books(0);
    assert_eq!((books.dead_letters, books.parked_keys), (4, 1));
    example.fold.retry(200_000, |_| true);
    // The login stands alone; what is about roles waits, now that its type is known.
    let books = example.fold.books(0);
    assert_eq!(
        (books.dead_letters, books.parked_keys, books.applied),
        (3, 1, 1)
    );
    example.fold.discard(0, 0);
    let books = example.fold.books(0);
    assert_eq!(
        (books.dead_letters, books.parked_keys, books.applied),
        (0, 0, 3)
    );
    assert_eq!(example.access(None), "r: ");
    let entries = example.entries(0);
    let offsets: Vec<&Value> = entries.iter().map(|entry| &entry["offset"]).collect();
    assert_eq!(offsets, [3, 2, 1]);
    // Nothing waits behind one that stands alone.
    let mut example = Example::new();
    example.event("r", "UserLoggedIn", 1, json!({}));
    example.event("r", "UserRoleAssigned", 3, assigned(100_000));
    example.fold.discard(0, 0);
    assert_eq!(example.fold.books(0).dead_letters, 1);
}

/// Kind, key, start of the window, count, first, last, events.
fn alerts(example: &Example) -> Vec<String> {
    let seconds = |alert: &Value, name: &str| {
        let at: DateTime<Utc> = alert[name].as_str().expect("text").parse().expect("a time");
        at.timestamp()
    };
    let short = |alert: &Value| {
        let [start, end, first, last] = ["windowStart", "windowEnd", "firstEventAt", "lastEventAt"]
            .map(|name| seconds(alert, name));
        assert_eq!(end - start, WINDOW);
        let ids: Vec<&str> = alert["eventIds"]
            .as_array()
            .expect("ids")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let word = |name: &str| alert[name].as_str().expect("text");
        format!(
            "{} {} {start}: {} {first}-{last} {}",
            word("kind"),
            word("key"),
            alert["count"],
            ids.join(" ")
        )
    };
    example.view().alerts().iter().map(short).collect()
}

#[test]
fn alerts_are_counted_in_fixed_windows() {
    let mut example = Example::new();
    let failed = |account: Value, ip: Value| json!({"reason": "r", "attemptedUserId": account, "ipAddress": ip});
    // Four in one window and one just before and one just behind it.
    for at in [299, 300, 599, 300, 400, 600] {
        example.event("u", "UserLoginFailed", at, failed(json!("u"), json!("i")));
    }
    example.event("u", "UserLoggedIn", 310, json!({"userId": "u"}));
    assert_eq!(alerts(&example), Vec::<String>::new());
    // Of another account of the same text.
    let by_name = json!({"reason": "r", "attemptedUserId": "", "attemptedUsername": "u"});
    example.on(1, "u", "UserLoginFailed", 360, by_name);
    assert_eq!(alerts(&example), Vec::<String>::new());
    // The fifth, on another partition.
    let fifth = json!({"reason": "r", "attemptedUserId": "u", "attemptedUsername": "v"});
    example.on(1, "u", "UserLoginFailed", 350, fifth);
    example.event("v", "UserLoggedIn", 310, json!({"userId": "v"}));
    example.event("u", "UserLoggedIn", 300, json!({"userId": "u"}));
    example.event("u", "UserLoggedIn", 600, json!({"userId": "u"}));
    let seen = [
        "brute_force u 300: 5 300-599 2 4 9 5 3",
        "login_after_failures u 300: 2 300-310 11 7",
    ];
    assert_eq!(alerts(&example), seen);
    // They stay after deletions, and without a name nothing counts.
    example.event(
        "u",
        "UserDeleted",
        700,
        json!({"userId": "u", "deletionType": "hard"}),
    );
    for _ in 0..6 {
        example.event("i", "UserLoginFailed", 900, failed(Value::Null, json!("i")));
    }
    assert_eq!(alerts(&example), seen);
}

#[test]
fn accounts_of_different_kinds_are_different_ones() {
    let mut example = Example::new();
    let failed =
        |kind: &str, n: i64| json!({"reason": "r", kind: format!("x{n}"), "ipAddress": "i"});
    for kind in ["attemptedUsername", "attemptedEmail"] {
        for at in 1..6 {
            example.event("u", "UserLoginFailed", at, failed(kind, 0));
        }
    }
    example.event("u", "UserLoggedIn", 9, json!({"userId": "x0"}));
    // No login failed by the user's id, so this one follows no failures.
    let expected = [
        "brute_force x0 0: 5 1-5 6 7 8 9 10",
        "brute_force x0 0: 5 1-5 1 2 3 4 5",
    ];
    assert_eq!(alerts(&example), expected);
    // Five texts are fifteen accounts.
    for n in 0..5 {
        for kind in ["attemptedUserId", "attemptedUsername", "attemptedEmail"] {
            example.event("u", "UserLoginFailed", 300 + n, failed(kind, n));
        }
    }
    let stuffing = alerts(&example).remove(0);
    assert!(
        stuffing.starts_with("credential_stuffing i 300: 15 "),
        "{stuffing}"
    );
}

#[test]
fn alerts_of_each_kind_and_their_order() {
    let mut example = Example::new();
    let failed = |account: String, ip: &str| json!({"reason": "r", "attemptedEmail": account, "ipAddress": ip});
    // Nine accounts, one of them twice, and one from another address.
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 9, 9] {
        example.event("e", "UserLoginFailed", 10 + n, failed(format!("a{n}"), "i"));
    }
    example.event("e", "UserLoginFailed", 10, failed("a0".into(), "j"));
    for at in [5, 1] {
        example.event("u", "MfaChallengeFailed", at, json!({"userId": "u"}));
    }
    assert_eq!(alerts(&example), Vec::<String>::new());
    example.event("e", "UserLoginFailed", 11, failed("a10".into(), "i"));
    example.on(2, "u", "MfaChallengeFailed", 299, json!({"userId": "u"}));
    for user in ["v", "V"] {
        for at in [3_000, 3_001, 3_002] {
            example.event(user, "MfaChallengeFailed", at, json!({"userId": user}));
        }
    }
    let expected = [
        "mfa_fatigue V 3000: 3 3000-3002 19 20 21",
        "mfa_fatigue v 3000: 3 3000-3002 16 17 18",
        "credential_stuffing i 0: 10 11-19 1 14 2 3 4 5 6 7 8 10 9",
        "mfa_fatigue u 0: 3 1-299 13 12 15",
    ];
    assert_eq!(alerts(&example), expected);
    // The first hundred events by time, then by id; the count is exact.
    let mut example = Example::new();
    for _ in 0..120 {
        example.event("e", "UserLoginFailed", 0, failed("a".into(), ""));
    }
    let alert = &example.view().alerts()[0];
    let mut ids: Vec<String> = (1..=120).map(|n| n.to_string()).collect();
    ids.sort();
    assert_eq!(
        (&alert["count"], &alert["eventIds"]),
        (&json!(120), &json!(ids[..100]))
    );
}

fn created(initial: Value) -> Value {
    json!({"roleId": "r", "roleName": "R", "createdBy": "a", "initialPermissionIds": initial})
}

fn role_deleted() -> Value {
    json!({"roleId": "r", "roleName": "D", "deletedBy": "a"})
}

fn of_user(role: &str) -> Value {
    json!({"userId": "u", "roleId": role, "roleName": "A", "assignedBy": "a", "removedBy": "a"})
}

fn of_role(permission: &str) -> Value {
    json!({"roleId": "r", "permissionId": permission, "permissionName": "P", "assignedBy": "a", "removedBy": "a"})
}

fn permission(id: &str) -> Value {
    json!({"permissionId": id, "permissionName": "Q", "createdBy": "a", "deletedBy": "a"})
}

#[test]
fn access_in_full() {
    let mut example = Example::new();
    let mut payload = created(json!(["q", "p", "q"]));
    payload["description"] = json!("D");
    example.event("r", "RoleCreated", 10, payload);
    example.event("r", "UserRoleAssigned", 20, of_user("r"));
    example.event("s", "UserRoleAssigned", 30, of_user("s"));
    let mut other = of_user("r");
    other["userId"] = json!("U");
    example.event("r", "UserRoleAssigned", 40, other);
    example.event("p", "PermissionCreated", 50, permission("p"));
    let permissions = json!([{"permissionId": "p", "permissionName": "Q"}, {"permissionId": "q"}]);
    let expected = json!({
        "roleId": "r", "roleName": "R", "description": "D", "permissions": permissions, "holders": ["U", "u"],
    });
    assert_eq!(example.role(None), expected);
    let access = json!({
        "roles": [{"roleId": "r", "roleName": "R"}, {"roleId": "s", "roleName": "A"}], "permissions": permissions,
    });
    assert_eq!(example.view().standing(None).user("u"), Some(access));
    // As of a time, with the names of then.
    assert_eq!(example.access(Some(29)), "r: p q");
    assert_eq!(example.access(Some(19)), ": ");
    assert_eq!(
        example.role(Some(49))["permissions"][0],
        json!({"permissionId": "p"})
    );
    assert_eq!(
        example.role(Some(9)),
        json!({"roleId": "r", "permissions": [], "holders": []})
    );
    let standing = example.view().standing(None);
    assert_eq!((standing.user("x"), standing.role("x")), (None, None));
    // Known by any entry.
    example.event(
        "x",
        "UserLoginFailed",
        60,
        json!({"attemptedUserId": "x", "reason": "r"}),
    );
    let nothing = json!({"roles": [], "permissions": []});
    assert_eq!(example.view().standing(at(1)).user("x"), Some(nothing));
}

#[test]
fn names_are_the_last_that_are_known() {
    let mut example = Example::new();
    let update = |fields: Value| json!({"roleId": "r", "updatedFields": fields, "newValues": {}, "updatedBy": "a"});
    let says = |example: &Example| {
        let role = example.role(None);
        let word = |name: &str| role[name].as_str().unwrap_or("-").to_owned();
        format!("{} {}", word("roleName"), word("description"))
    };
    example.event("r", "UserRoleAssigned", 50, of_user("r"));
    assert_eq!(says(&example), "A -");
    // In a partition the last counts, whatever its time.
    let mut removed = of_user("r");
    removed["roleName"] = json!("B");
    example.event("r", "UserRoleRemoved", 10, removed);
    assert_eq!(says(&example), "B -");
    // An event of its own counts before those of others.
    example.event("r", "RoleUpdated", 5, update(json!({"description": "d"})));
    assert_eq!(says(&example), "B d");
    example.event("r", "RoleCreated", 5, created(json!(null)));
    assert_eq!(says(&example), "R d");
    example.event("r", "UserRoleAssigned", 60, of_user("r"));
    example.event(
        "r",
        "RoleUpdated",
        6,
        update(json!(["roleName", "description"])),
    );
    assert_eq!(says(&example), "R d");
    example.event(
        "r",
        "RoleUpdated",
        7,
        update(json!({"roleName": null, "description": null})),
    );
    assert_eq!(says(&example), "- -");
    // An assignment does not name it again.
    example.event("r", "UserRoleAssigned", 70, of_user("r"));
    assert_eq!(says(&example), "- -");
    example.event(
        "r",
        "RoleUpdated",
        8,
        update(json!({"roleName": {"new": "S"}, "description": {"old": "d"}})),
    );
    assert_eq!(says(&example), "S -");
    // Of another partition, if it happened later than the last one here.
    example.on(1, "r", "RoleUpdated", 7, update(json!({"roleName": "T"})));
    assert_eq!(says(&example), "S -");
    example.on(1, "r", "RoleUpdated", 9, update(json!({"roleName": "U"})));
    assert_eq!(says(&example), "U -");
    example.event("r", "RoleDeleted", 20, role_deleted());
    assert_eq!(says(&example), "D -");
    // Permissions likewise.
    let mut example = Example::new();
    example.event("r", "PermissionAssignedToRole", 10, of_role("p"));
    let name = |example: &Example| example.role(None)["permissions"][0]["permissionName"].clone();
    assert_eq!(name(&example), "P");
    let update = json!({"permissionId": "p", "updatedBy": "a", "updatedFields": ["permissionName"],
        "newValues": {"permissionName": "N"}});
    example.event("p", "PermissionUpdated", 1, update);
    example.event("r", "PermissionAssignedToRole", 20, of_role("p"));
    assert_eq!(name(&example), "N");
    for cleared in [Value::Null, json!("")] {
        let update = json!({"permissionId": "p", "updatedBy": "a", "updatedFields": ["permissionName"],
            "newValues": {"permissionName": cleared}});
        example.event("p", "PermissionUpdated", 1, update);
        assert_eq!(name(&example), Value::Null);
        example.event("r", "PermissionAssignedToRole", 30, of_role("p"));
        assert_eq!(name(&example), Value::Null);
        let created = permission("p");
        example.event("p", "PermissionCreated", 1, created);
        assert_eq!(name(&example), "Q");
    }
}

/// Steps of the form (partition, type, time, payload), and then what `u` may do and how `r` reads.
type Steps = Vec<(i32, &'static str, i64, Value)>;

fn after(steps: &Steps) -> (String, Value) {
    let mut example = Example::new();
    // Both are known.
    example.on(9, "u", "UserLoggedIn", 0, json!({"userId": "u"}));
    for (partition, event_type, at, payload) in steps {
        let verdict = example.on(*partition, "k", event_type, *at, payload.clone());
        assert_eq!(verdict, Verdict::Applied, "{event_type} {payload}");
    }
    (
        example.access(None),
        example.role(None)["deletedAt"].clone(),
    )
}

#[test]
fn a_deleted_role_gives_nothing_and_comes_back_bare() {
    let (assigned, removed) = ("UserRoleAssigned", "UserRoleRemoved");
    let (gone, back) = ("RoleDeleted", "RoleCreated");
    let at = |second: i64| json!(format!("1970-01-01T00:00:{second:02}Z"));
    let none = Value::Null;
    for (steps, access, deleted_at) in [
        (vec![(0, assigned, 1, of_user("r"))], "r: ", none.clone()),
        (
            vec![
                (0, assigned, 1, of_user("r")),
                (0, removed, 2, of_user("r")),
            ],
            ": ",
            none.clone(),
        ),
        // In a partition the order of the log counts.
        (
            vec![
                (0, assigned, 3, of_user("r")),
                (0, removed, 2, of_user("r")),
            ],
            ": ",
            none.clone(),
        ),
        // Between partitions, time does, then the number of the partition.
        (
            vec![
                (0, assigned, 3, of_user("r")),
                (1, removed, 2, of_user("r")),
            ],
            "r: ",
            none.clone(),
        ),
        (
            vec![
                (0, assigned, 2, of_user("r")),
                (1, removed, 2, of_user("r")),
            ],
            ": ",
            none.clone(),
        ),
        (
            vec![
                (1, assigned, 2, of_user("r")),
                (0, removed, 2, of_user("r")),
            ],
            "r: ",
            none.clone(),
        ),
        // A deletion ends it; the first of several tells when.
        (
            vec![
                (0, assigned, 1, of_user("r")),
                (0, gone, 5, role_deleted()),
                (0, gone, 4, role_deleted()),
            ],
            ": ",
            at(5),
        ),
        // An update or an assignment does not bring it back.
        (
            vec![(0, gone, 5, role_deleted()), (0, assigned, 6, of_user("r"))],
            ": ",
            at(5),
        ),
        // Created again, it has no former holders, and none of the time when it was deleted.
        (
            vec![
                (0, assigned, 1, of_user("r")),
                (0, gone, 2, role_deleted()),
                (0, back, 3, created(json!(["p"]))),
            ],
            ": ",
            none.clone(),
        ),
        (
            vec![
                (0, gone, 2, role_deleted()),
                (0, assigned, 3, of_user("r")),
                (0, back, 4, created(json!(["p"]))),
            ],
            ": ",
            none.clone(),
        ),
        (
            vec![
                (0, back, 1, created(json!(null))),
                (0, gone, 2, role_deleted()),
                (0, assigned, 3, of_user("r")),
                (0, back, 4, created(json!(null))),
            ],
            ": ",
            none.clone(),
        ),
        (
            vec![
                (0, gone, 2, role_deleted()),
                (0, assigned, 3, of_user("r")),
                (0, back, 4, created(json!(["p"]))),
                (0, assigned, 5, of_user("r")),
            ],
            "r: p",
            none.clone(),
        ),
        // Also where both are on another partition than the assignment.
        (
            vec![
                (0, assigned, 3, of_user("r")),
                (1, gone, 2, role_deleted()),
                (1, back, 4, created(json!(["p"]))),
            ],
            ": ",
            none.clone(),
        ),
        // A creation alone ends nothing.
        (
            vec![
                (0, assigned, 1, of_user("r")),
                (0, back, 2, created(json!(["p"]))),
            ],
            "r: p",
            none.clone(),
        ),
        // A deletion on another partition counts, too, and ends what happened before it.
        (
            vec![(0, assigned, 3, of_user("r")), (1, gone, 2, role_deleted())],
            ": ",
            at(2),
        ),
        (
            vec![
                (0, assigned, 3, of_user("r")),
                (1, gone, 2, role_deleted()),
                (1, back, 1, created(json!(null))),
            ],
            "r: ",
            none.clone(),
        ),
        (
            vec![
                (0, assigned, 2, of_user("r")),
                (1, gone, 2, role_deleted()),
                (1, back, 1, created(json!(null))),
            ],
            ": ",
            none.clone(),
        ),
        // Each partition's last event of its life is compared.
        (
            vec![
                (0, back, 9, created(json!(null))),
                (0, gone, 3, role_deleted()),
                (1, back, 4, created(json!([]))),
            ],
            ": ",
            none.clone(),
        ),
        (
            vec![
                (0, gone, 1, role_deleted()),
                (1, gone, 4, role_deleted()),
                (0, gone, 3, role_deleted()),
            ],
            ": ",
            at(4),
        ),
        (
            vec![
                (0, gone, 7, role_deleted()),
                (1, gone, 4, role_deleted()),
                (0, gone, 5, role_deleted()),
            ],
            ": ",
            at(7),
        ),
        // A deleted user holds nothing, also later.
        (
            vec![
                (1, "UserDeleted", 9, json!({"userId": "u"})),
                (0, assigned, 10, of_user("r")),
            ],
            ": ",
            none.clone(),
        ),
    ] {
        let mut steps: Steps = steps;
        // So that the role is known.
        steps.insert(
            0,
            (
                8,
                "UserRoleRemoved",
                0,
                json!({"userId": "x", "roleId": "r", "roleName": "A", "removedBy": "a"}),
            ),
        );
        assert_eq!(after(&steps), (access.to_owned(), deleted_at), "{steps:#?}");
    }
}

#[test]
fn a_permission_is_given_by_assignment_and_by_creation() {
    let (given, taken) = ("PermissionAssignedToRole", "PermissionRemovedFromRole");
    let (gone, back) = ("PermissionDeleted", "PermissionCreated");
    for (steps, permissions) in [
        (
            vec![(0, given, 1, of_role("p")), (0, given, 2, of_role("q"))],
            "p q",
        ),
        (
            vec![
                (0, "RoleCreated", 1, created(json!(["p"]))),
                (0, taken, 2, of_role("p")),
            ],
            "",
        ),
        (
            vec![
                (0, taken, 2, of_role("p")),
                (0, "RoleCreated", 1, created(json!(["p"]))),
            ],
            "p",
        ),
        (
            vec![
                (0, taken, 2, of_role("p")),
                (1, "RoleCreated", 1, created(json!(["p"]))),
            ],
            "",
        ),
        (
            vec![(0, given, 1, of_role("p")), (0, gone, 2, permission("p"))],
            "",
        ),
        (
            vec![
                (0, given, 1, of_role("p")),
                (0, gone, 2, permission("p")),
                (0, back, 3, permission("p")),
            ],
            "",
        ),
        (
            vec![
                (0, gone, 2, permission("p")),
                (0, given, 1, of_role("p")),
                (0, back, 3, permission("p")),
            ],
            "",
        ),
        (
            vec![
                (0, gone, 2, permission("p")),
                (0, given, 1, of_role("p")),
                (0, back, 3, permission("p")),
                (0, given, 4, of_role("p")),
            ],
            "p",
        ),
        // By a creation, too, nothing comes of a permission that is deleted.
        (
            vec![
                (0, gone, 2, permission("p")),
                (0, "RoleCreated", 3, created(json!(["p", "q"]))),
                (0, back, 4, permission("p")),
            ],
            "q",
        ),
        (
            vec![(0, gone, 2, permission("p")), (0, given, 3, of_role("p"))],
            "",
        ),
        // A second creation adds.
        (
            vec![
                (0, "RoleCreated", 1, created(json!(["p"]))),
                (0, "RoleCreated", 2, created(json!(["q"]))),
            ],
            "p q",
        ),
        (
            vec![
                (0, "RoleCreated", 1, created(json!(["p"]))),
                (0, "RoleDeleted", 2, role_deleted()),
                (0, "RoleCreated", 3, created(json!(["q"]))),
            ],
            "q",
        ),
        // Nor does what is given to a deleted role.
        (
            vec![
                (0, "RoleDeleted", 2, role_deleted()),
                (0, given, 3, of_role("p")),
                (0, "RoleCreated", 4, created(json!(["q"]))),
            ],
            "q",
        ),
    ] {
        let mut steps: Steps = steps;
        steps.insert(0, (8, "UserRoleAssigned", 100, of_user("r")));
        let (access, _) = after(&steps);
        assert_eq!(access, format!("r: {permissions}"), "{steps:#?}");
    }
}

/// Entries, alerts and access come about in every way.
#[test]
fn random_logs_hold_what_audit_needs() {
    let mut fold = Fold::new(Trail::default(), MAX_VALUE_BYTES);
    let (mut counts, mut rare) = (Counts::default(), Counts::default());
    let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for record in random_log() {
        let event = event_of(&record);
        let verdict = fold.take(&record);
        let Some(event) = event else {
            counts.is("a bad record", verdict == Verdict::DeadLettered);
            continue;
        };
        let is_about_access =
            fold.wants(event.name) && event.name.contains("Role") || event.name.contains("Perm");
        if verdict == Verdict::DeadLettered && is_about_access {
            rare.is("parked behind another", true);
        }
        if verdict != Verdict::Applied {
            continue;
        }
        if is_about_access {
            let name = event.name;
            counts.is(name, true);
            let key = record.key.as_deref().unwrap_or_default();
            for of in ["userId", "roleId", "permissionId"] {
                let is_key = event.known_text(of).is_some_and(|id| id.as_bytes() == key);
                counts.is(format!("under its {of}"), is_key);
            }
            let pair = ["userId", "roleId", "permissionId"].map(|of| event.known_text(of));
            partitions
                .entry(format!("{pair:?}"))
                .or_default()
                .insert(event.partition);
        }
        if event.name.is_empty() {
            counts.is("an unknown type", true);
        }
    }
    let several = partitions.values().filter(|of| of.len() > 1).count();
    rare.is("many pairs on several partitions", several >= 10);
    let view: &Trail = fold.view();
    let now: DateTime<Utc> = "2026-11-20T00:00:00Z".parse().expect("a time");
    for entry in view.entries(now) {
        for name in [
            "reason",
            "ipAddress",
            "userAgent",
            "correlationId",
            "changes",
        ] {
            counts.is(
                format!("{name} in {}", entry["category"]),
                entry.get(name).is_some(),
            );
        }
        let by_other = entry.get("actor") != entry.get("userId");
        counts.is(format!("{} by another", entry["category"]), by_other);
        for change in entry["changes"].as_array().into_iter().flatten() {
            let has = |name| change.get(name).is_some();
            counts.is(
                format!("a change, old {}, new {}", has("old"), has("new")),
                true,
            );
        }
    }
    counts.0.retain(|_, count| *count > 0);
    let personal = |now| {
        let entries = view.entries(now).into_iter();
        let of_users = entries.filter(|entry| entry.get("ipAddress").is_some());
        of_users.count()
    };
    rare.is(
        "erased later",
        personal(now + TimeDelta::days(900)) < personal(now),
    );
    for alert in view.alerts() {
        let kind = alert["kind"].as_str().expect("text");
        counts.is(kind, true);
        let threshold = [5, 10, 3, 1][KINDS
            .iter()
            .position(|known| *known == kind)
            .expect("a kind")];
        rare.is(format!("{kind}, just enough"), alert["count"] == threshold);
        rare.is(
            format!("{kind}, more than enough"),
            alert["count"].as_i64() > Some(threshold),
        );
        let end: DateTime<Utc> = alert["windowEnd"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a time");
        let last = end - TimeDelta::microseconds(1);
        let at = |name: &str| -> DateTime<Utc> {
            alert[name].as_str().expect("text").parse().expect("a time")
        };
        rare.is("in the last instant of a window", at("lastEventAt") == last);
        rare.is(
            "in the first instant of a window",
            at("firstEventAt") == at("windowStart"),
        );
        let named = alert["eventIds"].as_array().map_or(0, Vec::len);
        rare.is(
            "not all events are named",
            named == 100 && alert["count"].as_i64() > Some(100),
        );
    }
    let standing = view.standing(None);
    for user in view.users() {
        let access = standing.user(&user).expect("known");
        let count = |name: &str| access[name].as_array().map_or(0, Vec::len);
        counts.is("a user with a role", count("roles") > 0);
        rare.is("a user with several roles", count("roles") > 1);
        counts.is("a user with permissions", count("permissions") > 0);
    }
    for role in view.roles() {
        let role = standing.role(&role).expect("known");
        rare.is("a deleted role", role.get("deletedAt").is_some());
        rare.is(
            "a role with permissions and holders",
            role["permissions"] != json!([]) && role["holders"] != json!([]),
        );
        rare.is(
            "a role with a description",
            role.get("description").is_some(),
        );
    }
    counts.are_at_least(5);
    rare.are_at_least(1);
}
