//! The audit log over both surfaces: entries with every filter, pages, exports, alerts, access,
//! verification, and wrong requests.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use http::Method;
use serde_json::{Value, json};
use sightline::proto::audit::v1::{
    GetRoleRequest, GetUserAccessRequest, ListAlertsRequest, ListEntriesRequest,
    VerifyEntriesRequest,
};
use sightline_testing::app::{Clients, LONG, Running, SOON, Shared, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up, pages};
use sightline_testing::client::{
    Rest, access_json, alerts_json, audit_number, entries_json, escape, role_json, timestamp,
    verification_json, with_query,
};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::requests::{assert_field, assert_problem};

const ENTRIES: &str = "/v1/audit/entries";
const ALERTS: &str = "/v1/audit/alerts";
const VERIFY: &str = "/v1/audit/entries:verify";
const ODD: &str = "Z/ü \"😀\\";
const FORMULA: &str = "=HYPERLINK(\"http://evil\",\"x\")";

/// When the first event of a log happens.
fn beginning() -> DateTime<Utc> {
    "2026-10-03T12:00:00Z".parse().expect("an instant")
}

fn written(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// An event so many seconds after the beginning.
fn event(id: &str, kind: &str, seconds: i64, payload: Value) -> Record {
    let at = beginning() + TimeDelta::seconds(seconds);
    let value = json!({
        "eventType": kind, "eventId": id, "payload": payload, "eventTimestamp": written(at),
        "correlationId": format!("c-{id}"),
    });
    Record {
        partition: 0,
        key: Some("key".into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: at.timestamp_millis(),
    }
}

fn logged_in(id: &str, user: &str, ip: &str, seconds: i64) -> Record {
    let payload = json!({"userId": user, "sessionId": "s", "ipAddress": ip, "userAgent": FORMULA});
    event(id, "UserLoggedIn", seconds, payload)
}

fn login_failed(id: &str, account: Value, ip: &str, seconds: i64) -> Record {
    let mut payload = json!({"reason": "invalid_credentials", "ipAddress": ip});
    payload
        .as_object_mut()
        .expect("an object")
        .extend(account.as_object().expect("an object").clone());
    event(id, "UserLoginFailed", seconds, payload)
}

/// Writes these records to partition 0 of a new world of this domain, and waits until they are projected.
async fn projected(log: &[Record], settings: &[(&str, &str)]) -> (World, Running) {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "audit");
    for (name, value) in settings {
        world.set(name, value);
    }
    world.broker.writer().write(&world.topic, log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, log.len() as i64)])).await;
    (world, running)
}

/// Events of all kinds.
fn log() -> Vec<Record> {
    let user = |id: &str| json!({"userId": id});
    let with = |mut payload: Value, more: Value| {
        let more = more.as_object().expect("an object").clone();
        payload.as_object_mut().expect("an object").extend(more);
        payload
    };
    let mut log = vec![
        event(
            "r1",
            "UserRegistered",
            0,
            with(
                user("u1"),
                json!({"email": "u1@example.org", "status": "active"}),
            ),
        ),
        event(
            "r2",
            "UserRegistered",
            1,
            with(
                user(ODD),
                json!({"email": "odd@example.org", "status": "active"}),
            ),
        ),
        event(
            "v1",
            "UserEmailVerified",
            2,
            with(user("u1"), json!({"email": "u1@example.org"})),
        ),
        event(
            "p1",
            "UserPasswordChanged",
            3,
            with(user("u1"), json!({"changeType": "self_initiated"})),
        ),
        event(
            "q1",
            "UserPasswordResetRequested",
            4,
            with(user("u1"), json!({"email": "u1@example.org"})),
        ),
        event(
            "s1",
            "UserAccountStatusChanged",
            5,
            with(
                user("u1"),
                json!({
            "newStatus": "suspended", "previousStatus": "active", "reason": "why, \"so\"", "changedBy": "admin"}),
            ),
        ),
        event(
            "c1",
            "UserUpdated",
            6,
            with(
                user("u1"),
                json!({
            "updatedFields": {"username": {"old": "before", "new": "after"}, "email": {"new": "new@example.org"}}}),
            ),
        ),
        event(
            "c2",
            "UserUpdated",
            7,
            with(user(ODD), json!({"updatedFields": ["username"]})),
        ),
        logged_in("l1", "u1", "203.0.113.1", 8),
        logged_in("l2", ODD, "203.0.113.1", 9),
        logged_in("l3", "u1", "203.0.113.2", 10),
        login_failed("f1", json!({"attemptedUserId": "u1"}), "203.0.113.1", 11),
        login_failed(
            "f2",
            json!({"attemptedEmail": "+who@example.org"}),
            "203.0.113.9",
            12,
        ),
        login_failed(
            "f3",
            json!({"attemptedUsername": "-who"}),
            "203.0.113.9",
            13,
        ),
        event(
            "o1",
            "UserLoggedOut",
            14,
            with(user("u1"), json!({"sessionId": "s"})),
        ),
        event(
            "m1",
            "MfaStatusChanged",
            15,
            with(
                user("u1"),
                json!({
            "mfaEnabled": true, "mfaMethod": "TOTP", "changedBy": "user"}),
            ),
        ),
        event(
            "m2",
            "MfaStatusChanged",
            16,
            with(
                user("u1"),
                json!({
            "mfaEnabled": false, "mfaMethod": "TOTP", "changedBy": "admin"}),
            ),
        ),
        event(
            "m3",
            "MfaChallengeFailed",
            17,
            with(
                user("u1"),
                json!({"mfaMethod": "TOTP", "ipAddress": "203.0.113.1"}),
            ),
        ),
        event(
            "rc",
            "RoleCreated",
            20,
            json!({
            "roleId": "role/1", "roleName": "first", "description": "for all", "createdBy": "admin",
            "initialPermissionIds": ["p-b"]}),
        ),
        event(
            "ru",
            "RoleUpdated",
            21,
            json!({
            "roleId": "role/1", "updatedFields": ["roleName"], "newValues": {"roleName": "renamed"}, "updatedBy": "u1"}),
        ),
        event(
            "pc",
            "PermissionCreated",
            22,
            json!({
            "permissionId": "p-a", "permissionName": "read", "action": "read", "subject": "all", "createdBy": "admin"}),
        ),
        event(
            "pu",
            "PermissionUpdated",
            23,
            json!({
            "permissionId": "p-a", "updatedFields": ["permissionName"], "newValues": {"permissionName": "READ"}, "updatedBy": "admin"}),
        ),
        event(
            "pa",
            "PermissionAssignedToRole",
            24,
            json!({
            "roleId": "role/1", "permissionId": "p-a", "permissionName": "read", "assignedBy": "admin"}),
        ),
        event(
            "ra",
            "UserRoleAssigned",
            25,
            json!({
            "userId": "u1", "roleId": "role/1", "roleName": "first", "assignedBy": "admin"}),
        ),
        event(
            "rb",
            "UserRoleAssigned",
            26,
            json!({
            "userId": ODD, "roleId": "role/1", "roleName": "first", "assignedBy": "u1"}),
        ),
        event(
            "rd",
            "UserRoleAssigned",
            27,
            json!({
            "userId": "gone", "roleId": "role/1", "roleName": "first", "assignedBy": "u1"}),
        ),
        event(
            "re",
            "UserRoleAssigned",
            28,
            json!({
            "userId": "u1", "roleId": "nobody-made-it", "roleName": "old", "assignedBy": "admin"}),
        ),
        event(
            "rr",
            "UserRoleRemoved",
            40,
            json!({
            "userId": ODD, "roleId": "role/1", "roleName": "first", "removedBy": "admin"}),
        ),
        event(
            "pr",
            "PermissionRemovedFromRole",
            41,
            json!({
            "roleId": "role/1", "permissionId": "p-b", "permissionName": "write", "removedBy": "admin"}),
        ),
        event(
            "d1",
            "UserDeleted",
            42,
            json!({"userId": "gone", "deletionType": "soft"}),
        ),
        event(
            "pd",
            "PermissionDeleted",
            60,
            json!({
            "permissionId": "p-a", "permissionName": "READ", "deletedBy": "admin"}),
        ),
        event(
            "rx",
            "RoleDeleted",
            61,
            json!({"roleId": "role/1", "roleName": "last", "deletedBy": "admin"}),
        ),
        // Of interest to nobody, then types that nobody knows.
        event(
            "no",
            "UserProfileUpdated",
            62,
            json!({"userId": "u1", "profileId": "p", "updatedFields": ["bio"]}),
        ),
        event("x1", "SomethingNew", 63, json!({"userId": "u1"})),
        event("x2", "user_logged_in", 64, json!({"userId": "u1"})),
    ];
    // Several at one instant: pages are cut between them.
    log.extend((0..5).map(|n| logged_in(&format!("t{n}"), "tie", "203.0.113.7", 70)));
    log
}

/// A process with entries that no test changes.
async fn with_entries() -> Clients {
    static SHARED: Shared = Shared::const_new();
    SHARED.clients(async || projected(&log(), &[]).await).await
}

/// All entries of a list, read in pages of this size.
async fn list(
    rest: &Rest,
    path: &str,
    rows: &str,
    filters: &[(&str, &str)],
    size: &str,
) -> Vec<Value> {
    let filters: Vec<_> = filters
        .iter()
        .map(|(name, value)| (*name, Some(*value)))
        .collect();
    let size = size.parse().expect("a number");
    pages(rest, path, &filters, rows, size).await
}

async fn entries(rest: &Rest, filters: &[(&str, &str)], size: &str) -> Vec<Value> {
    list(rest, ENTRIES, "entries", filters, size).await
}

fn ids(entries: &[Value]) -> Vec<&str> {
    let ids = entries.iter();
    ids.map(|entry| entry["eventId"].as_str().expect("an id"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_say_who_did_what() {
    let clients = with_entries().await;
    let all = entries(&clients.rest, &[], "1000").await;
    assert_eq!(all.len(), log().len() - 1, "{:?}", ids(&all));
    let order = |entry: &Value| {
        let at: DateTime<Utc> = entry["occurredAt"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a time");
        (at, entry["offset"].as_i64().expect("a number"))
    };
    assert!(all.is_sorted_by(|a, b| order(a) > order(b)), "{all:?}");
    let of = |id: &str| {
        let mut entry = all
            .iter()
            .find(|entry| entry["eventId"] == id)
            .unwrap_or_else(|| panic!("no {id}"))
            .clone();
        let fields = entry.as_object_mut().expect("an object");
        let recorded = fields.remove("recordedAt").expect("it is recorded");
        let recorded: DateTime<Utc> = recorded.as_str().expect("text").parse().expect("a time");
        assert!(Utc::now() - recorded < TimeDelta::hours(1));
        assert!(fields.remove("topic").is_some());
        entry
    };
    let at = |seconds| json!(beginning() + TimeDelta::seconds(seconds));
    assert_eq!(
        of("s1"),
        json!({
            "eventId": "s1", "type": "UserAccountStatusChanged", "version": "1", "category": "account",
            "action": "user_account_status_changed", "outcome": "success", "reason": "why, \"so\"",
            "actor": "admin", "userId": "u1", "correlationId": "c-s1", "occurredAt": at(5), "partition": 0,
            "offset": 5,
        })
    );
    assert_eq!(
        of("c1")["changes"],
        json!([{"field": "email", "new": "new@example.org"}, {"field": "username", "old": "before", "new": "after"}])
    );
    assert_eq!(of("c2")["changes"], json!([{"field": "username"}]));
    assert_eq!(
        of("x1"),
        json!({
            "eventId": "x1", "type": "SomethingNew", "category": "unknown", "action": "SomethingNew",
            "outcome": "success", "correlationId": "c-x1", "occurredAt": at(63), "partition": 0, "offset": 33,
        })
    );
    for (id, actor) in [
        ("l1", "u1"),
        ("f1", "u1"),
        ("f2", "+who@example.org"),
        ("f3", "-who"),
        ("m1", "u1"),
        ("m2", "admin"),
        ("ru", "u1"),
        ("ra", "admin"),
    ] {
        assert_eq!(of(id)["actor"], actor, "{id}");
    }
    assert_eq!(of("f2").get("userId"), None);
    assert_eq!(of("m3")["outcome"], "failure");
}

/// The values by which the tests filter.
const VALUES: &[(&str, &[&str])] = &[
    ("userId", &["u1", ODD, "gone", "nobody"]),
    (
        "actor",
        &["u1", "admin", ODD, "+who@example.org", "tie", "nobody"],
    ),
    ("roleId", &["role/1", "nobody-made-it", "nobody"]),
    ("ipAddress", &["203.0.113.1", "203.0.113.9", "nobody"]),
    (
        "category",
        &["account", "authentication", "authorization", "unknown"],
    ),
    (
        "action",
        &[
            "user_logged_in",
            "user_role_assigned",
            "SomethingNew",
            "UserLoggedIn",
        ],
    ),
    ("outcome", &["success", "failure"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_filtered_by_everything_and_by_pairs() {
    let clients = with_entries().await;
    let rest = &clients.rest;
    let all = entries(rest, &[], "1000").await;
    let matching = |filters: &[(&str, &str)]| -> Vec<Value> {
        let matches = |entry: &&Value| filters.iter().all(|(name, value)| entry[*name] == **value);
        all.iter().filter(matches).cloned().collect()
    };
    let single = VALUES
        .iter()
        .flat_map(|(name, values)| values.iter().map(|value| (*name, *value)));
    let single: Vec<(&str, &str)> = single.collect();
    let mut checked = 0;
    for (index, one) in single.iter().enumerate() {
        assert_eq!(
            entries(rest, &[*one], "50").await,
            matching(&[*one]),
            "{one:?}"
        );
        let others = single[index + 1..].iter().filter(|other| other.0 != one.0);
        for other in others {
            let both = [*one, *other];
            let expected = matching(&both);
            checked += usize::from(!expected.is_empty());
            assert_eq!(entries(rest, &both, "50").await, expected, "{both:?}");
        }
    }
    assert!(checked > 40, "{checked} pairs found anything");
    let four = [
        ("userId", "u1"),
        ("actor", "u1"),
        ("ipAddress", "203.0.113.1"),
        ("outcome", "failure"),
    ];
    assert_eq!(ids(&entries(rest, &four, "50").await), ["m3", "f1"]);
    // Also a type that nobody knows may be written like an action.
    let logins = [("action", "user_logged_in")];
    assert!(ids(&entries(rest, &logins, "50").await).contains(&"x2"));

    let at = |seconds| written(beginning() + TimeDelta::seconds(seconds));
    let times = [
        (Some(at(10)), Some(at(12)), vec!["f1", "l3"]),
        (Some(at(70)), None, vec!["t4", "t3", "t2", "t1", "t0"]),
        (None, Some(at(1)), vec!["r1"]),
        (Some(at(1)), Some(at(1)), vec![]),
        (Some("2999-01-01T00:00:00Z".into()), None, vec![]),
    ];
    for (from, to, expected) in &times {
        let given = [("from", from), ("to", to)];
        let given = given
            .iter()
            .filter_map(|(name, at)| Some((*name, at.as_deref()?)));
        let given: Vec<(&str, &str)> = given.collect();
        assert_eq!(
            &ids(&entries(rest, &given, "50").await),
            expected,
            "{given:?}"
        );
    }
    let (from, to) = (at(8), at(12));
    let filters = [("userId", "u1"), ("from", &from), ("to", &to)];
    assert_eq!(
        ids(&entries(rest, &filters, "50").await),
        ["f1", "l3", "l1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_skip_nor_repeat() {
    let clients = with_entries().await;
    let rest = &clients.rest;
    for filters in [
        &[][..],
        &[("userId", "tie")],
        &[("actor", "u1")],
        &[("actor", "admin")],
        &[("roleId", "role/1")],
        &[("ipAddress", "203.0.113.1")],
        &[("action", "user_logged_in")],
        &[("category", "authorization"), ("actor", "admin")],
    ] {
        let all = entries(rest, filters, "1000").await;
        for size in ["1", "2", "3", "7"] {
            assert_eq!(
                entries(rest, filters, size).await,
                all,
                "{filters:?} by {size}"
            );
        }
    }
    // A token is for its own list.
    let page = rest.get(&format!("{ENTRIES}?pageSize=1")).await.json();
    let token = escape(page["nextPageToken"].as_str().expect("more"));
    for path in [
        format!("{ENTRIES}?userId=u1&pageToken={token}"),
        format!("{ALERTS}?pageToken={token}"),
        format!("{ENTRIES}?pageToken=x"),
    ] {
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "pageToken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_surfaces_answer_the_same() {
    let clients = with_entries().await;
    let mut grpc = clients.grpc.audit();
    for (name, values) in VALUES {
        for value in *values {
            let path = with_query(ENTRIES, &[(name, Some(value))]);
            let answer = clients.rest.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let text = |wanted: &str| (*name == wanted).then(|| (*value).to_owned());
            let number = |wanted: &str| (*name == wanted).then(|| audit_number(name, value));
            let request = ListEntriesRequest {
                user_id: text("userId"),
                actor: text("actor"),
                role_id: text("roleId"),
                ip_address: text("ipAddress"),
                category: number("category"),
                action: text("action"),
                outcome: number("outcome"),
                ..ListEntriesRequest::default()
            };
            let page = grpc.list_entries(request).await.expect("a page");
            assert!(page.metadata().contains_key("sightline-consistency-token"));
            assert_eq!(entries_json(page.into_inner()), answer.json(), "{path}");
        }
    }
    let path = with_query(ALERTS, &[]);
    let alerts = grpc.list_alerts(ListAlertsRequest::default()).await;
    let alerts = alerts.expect("a page").into_inner();
    assert_eq!(alerts_json(alerts), clients.rest.get(&path).await.json());
    for as_of in [None, Some(30), Some(-10)] {
        let as_of = as_of.map(|seconds| beginning() + TimeDelta::seconds(seconds));
        let parameters = [("asOf", as_of.map(written))];
        let parameters = parameters
            .each_ref()
            .map(|(name, at)| (*name, at.as_deref()));
        for user in ["u1", ODD, "gone", "nobody"] {
            let path = format!("/v1/audit/users/{}/access", escape(user));
            let answer = clients.rest.get(&with_query(&path, &parameters)).await;
            let request = GetUserAccessRequest {
                user_id: user.into(),
                as_of: as_of.map(timestamp),
            };
            match grpc.get_user_access(request).await {
                Ok(access) => assert_eq!(access_json(access.into_inner()), answer.json()),
                Err(status) => {
                    assert_eq!((status.code(), answer.status), (Code::NotFound, 404));
                    assert!(
                        status
                            .metadata()
                            .contains_key("sightline-consistency-token")
                    );
                }
            }
            assert!(!answer.token().is_empty());
        }
        for role in ["role/1", "nobody-made-it", "nobody"] {
            let path = format!("/v1/audit/roles/{}", escape(role));
            let answer = clients.rest.get(&with_query(&path, &parameters)).await;
            let request = GetRoleRequest {
                role_id: role.into(),
                as_of: as_of.map(timestamp),
            };
            match grpc.get_role(request).await {
                Ok(found) => {
                    let role = found.into_inner().role.expect("a role");
                    assert_eq!(role_json(role), answer.json());
                }
                Err(status) => {
                    assert_eq!((status.code(), answer.status), (Code::NotFound, 404));
                }
            }
        }
    }
    let verified = clients.rest.post(VERIFY, &json!({})).await;
    assert_eq!(verified.status, 200, "{}", verified.text());
    assert!(verified.token().is_empty());
    let by_grpc = grpc.verify_entries(VerifyEntriesRequest::default()).await;
    let by_grpc = by_grpc.expect("verified").into_inner();
    assert_eq!(verification_json(by_grpc), verified.json());
    assert_eq!(verified.json()["valid"], true);
    assert_eq!(verified.json()["entriesChecked"], log().len() - 1);
    let head = json!({"expectedHead": verified.json()["head"]});
    let again = clients.rest.post(VERIFY, &head).await;
    assert_eq!(again.json()["valid"], true, "{}", again.text());

    // Conditional reads.
    let path = with_query(ENTRIES, &[("userId", Some("u1"))]);
    let answer = clients.rest.get(&path).await;
    let same = [("if-none-match", answer.header("etag"))];
    let same = clients.rest.send(Method::GET, &path, &same, b"").await;
    assert_eq!((same.status, same.token().is_empty()), (304, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_follows_assignments_and_deletions() {
    let clients = with_entries().await;
    let get = async |path: &str, seconds: Option<i64>| {
        let at = seconds.map(|seconds| written(beginning() + TimeDelta::seconds(seconds)));
        let path = with_query(path, &[("asOf", at.as_deref())]);
        let answer = clients.rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let role = "/v1/audit/roles/role%2F1";
    let user = |id: &str| format!("/v1/audit/users/{}/access", escape(id));
    let old = json!({"roleId": "nobody-made-it", "roleName": "old"});
    let both = json!([{"permissionId": "p-a", "permissionName": "READ"}, {"permissionId": "p-b"}]);
    let only = json!([{"permissionId": "p-a", "permissionName": "READ"}]);
    let renamed = json!({"roleId": "role/1", "roleName": "renamed"});
    assert_eq!(
        get(role, Some(30)).await,
        json!({"roleId": "role/1", "roleName": "renamed", "description": "for all", "permissions": both,
            "holders": [ODD, "gone", "u1"]})
    );
    assert_eq!(
        get(&user("u1"), Some(30)).await,
        json!({"roles": [old, renamed], "permissions": both})
    );
    assert_eq!(
        get(&user("gone"), Some(30)).await["roles"],
        json!([renamed])
    );
    // Removed, and the user deleted.
    assert_eq!(get(role, Some(50)).await["holders"], json!(["u1"]));
    assert_eq!(get(role, Some(50)).await["permissions"], only);
    for gone in ["gone", ODD] {
        let nothing = json!({"roles": [], "permissions": []});
        assert_eq!(get(&user(gone), Some(50)).await, nothing);
        assert_eq!(get(&user(gone), Some(-5)).await, nothing);
    }
    // A deleted permission, then a deleted role.
    assert_eq!(get(role, Some(60)).await["permissions"], json!([]));
    let deleted_at = written(beginning() + TimeDelta::seconds(61)).replace(".000000", "");
    assert_eq!(
        get(role, None).await,
        json!({"roleId": "role/1", "roleName": "last", "description": "for all", "permissions": [], "holders": [],
            "deletedAt": deleted_at})
    );
    assert_eq!(
        get(&user("u1"), None).await,
        json!({"roles": [old], "permissions": []})
    );
    // Before all: known, and empty.
    let before = json!({"roleId": "role/1", "permissions": [], "holders": []});
    assert_eq!(get(role, Some(-5)).await, before);
    for path in [user("nobody"), "/v1/audit/roles/nobody".into()] {
        assert_problem(&path, &clients.rest.get(&path).await, 404);
        let ahead = with_query(&path, &[("asOf", Some("2999-01-01T00:00:00Z"))]);
        let problem = assert_problem(&ahead, &clients.rest.get(&ahead).await, 400);
        assert_field(&ahead, &problem, "asOf");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_have_all_entries_that_match() {
    let clients = with_entries().await;
    let rest = &clients.rest;
    for filters in [
        &[][..],
        &[("userId", "u1")],
        &[("userId", "nobody")],
        &[("actor", "admin")],
    ] {
        let all = entries(rest, filters, "1000").await;
        let given: Vec<_> = filters
            .iter()
            .map(|(name, value)| (*name, Some(*value)))
            .collect();
        let path = with_query(ENTRIES, &given);
        let accept = [("accept", "application/x-ndjson")];
        let answer = rest.send(Method::GET, &path, &accept, b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        assert_eq!(answer.header("sightline-state"), "caught_up");
        assert!(answer.token().starts_with('A') && answer.header("etag").is_empty());
        assert!(
            answer.header("vary").contains("accept"),
            "{:?}",
            answer.headers
        );
        let text = answer.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        assert_eq!(lines.collect::<Vec<Value>>(), all, "{path}");

        let accept = [("accept", "text/html;q=0.1, text/csv")];
        let answer = rest.send(Method::GET, &path, &accept, b"").await;
        assert!(answer.header("content-type").starts_with("text/csv"));
        let mut csv = csv::ReaderBuilder::new().from_reader(&answer.body[..]);
        let header = csv.headers().expect("a header").clone();
        let rows: Vec<csv::StringRecord> = csv.records().map(|row| row.expect("a row")).collect();
        assert_eq!(rows.len(), all.len(), "{path}");
        for (row, entry) in rows.iter().zip(&all) {
            for (name, cell) in header.iter().zip(row) {
                assert!(
                    !cell.starts_with(['=', '+', '-', '@', '\t', '\r']),
                    "{name}: {cell}"
                );
                let expected = match &entry[name] {
                    Value::Null => String::new(),
                    Value::String(text) if text.starts_with(['=', '+', '-', '@']) => {
                        format!("'{text}")
                    }
                    Value::String(text) => text.clone(),
                    Value::Array(_) => {
                        let changes: Value = serde_json::from_str(cell).expect("JSON");
                        assert_eq!(changes, entry[name]);
                        cell.to_owned()
                    }
                    other => other.to_string(),
                };
                assert_eq!(cell, expected, "{name}");
            }
        }
        let columns: BTreeSet<&str> = header.iter().collect();
        for entry in &all {
            let fields = entry.as_object().expect("an object").keys();
            assert!(
                fields
                    .into_iter()
                    .all(|name| columns.contains(name.as_str())),
                "{entry}"
            );
        }
    }
    let formula = rest
        .send(
            Method::GET,
            &format!("{ENTRIES}?userId=tie"),
            &[("accept", "text/csv")],
            b"",
        )
        .await;
    assert!(
        formula
            .text()
            .contains("\"'=HYPERLINK(\"\"http://evil\"\",\"\"x\"\")\""),
        "{}",
        formula.text()
    );

    // Whoever accepts anything gets a page.
    for accept in [
        "*/*",
        "application/json",
        "text/html",
        "application/json, text/csv",
    ] {
        let answer = rest
            .send(Method::GET, ENTRIES, &[("accept", accept)], b"")
            .await;
        assert_eq!(
            answer.header("content-type"),
            "application/json",
            "{accept}"
        );
    }
    for accept in ["text/csv", "application/x-ndjson"] {
        for (name, value) in [
            ("pageSize", "5"),
            ("pageToken", "x"),
            ("nonsense", "1"),
            ("category", "none"),
        ] {
            let path = with_query(ENTRIES, &[(name, Some(value))]);
            let answer = rest
                .send(Method::GET, &path, &[("accept", accept)], b"")
                .await;
            let problem = assert_problem(&path, &answer, 400);
            assert_field(&path, &problem, name);
        }
        let headers = [("accept", accept), ("accept-encoding", "gzip")];
        let answer = rest.send(Method::GET, ENTRIES, &headers, b"").await;
        assert_eq!(answer.header("content-encoding"), "gzip", "{accept}");
        let head = rest
            .send(Method::HEAD, ENTRIES, &[("accept", accept)], b"")
            .await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

/// A request for an export, as bytes, so that the test reads when it wants to.
async fn begun_export(rest: &Rest) -> TcpStream {
    let mut stream = TcpStream::connect(&rest.address)
        .await
        .expect("a connection");
    let request = format!(
        "GET {ENTRIES} HTTP/1.1\r\nhost: {}\r\naccept: application/x-ndjson\r\n\r\n",
        rest.address
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_or_is_not_taken_is_cut_off() {
    // More than sockets hold.
    const EVENTS: usize = 250;
    let text = "x".repeat(200_000);
    let log: Vec<Record> = (0..EVENTS)
        .map(|n| {
            let fields = json!({"username": {"new": text}});
            let payload = json!({"userId": "u1", "updatedFields": fields});
            event(&format!("e{n}"), "UserUpdated", n as i64, payload)
        })
        .collect();
    let (world, running) = projected(&log, &[("SIGHTLINE_MAX_VALUE_BYTES", "1000000")]).await;
    let rest = &running.rest;

    // This caller reads nothing more. At the end the test checks that the server has disconnected it.
    let mut waiting_in_vain = begun_export(rest).await;
    let begun = Instant::now();

    // Whole, by a caller who reads slowly.
    let mut stream = begun_export(rest).await;
    let mut seen = 0;
    let mut waiting = vec![0; 8 << 20];
    wait_until(SOON, "sockets are full", async || {
        let waits = stream.peek(&mut waiting).await;
        let before = std::mem::replace(&mut seen, waits.map_err(|error| error.to_string())?);
        match before == seen && seen > 0 {
            true => Ok(()),
            false => Err(format!("{seen} bytes")),
        }
    })
    .await;
    let mut whole = Vec::new();
    let read = async {
        while !whole.ends_with(b"\r\n0\r\n\r\n") {
            assert!(stream.read_buf(&mut whole).await.expect("more") > 0);
        }
    };
    tokio::time::timeout(SOON, read).await.expect("the end");
    assert!(whole.len() > EVENTS * text.len());

    // A caller who goes away.
    drop(begun_export(rest).await);
    let metrics = async || running.admin.get("/metrics").await.text();
    wait_until(SOON, "no call is left", async || {
        let metrics = metrics().await;
        let busy = metrics
            .lines()
            .find(|line| line.starts_with("sightline_requests_in_flight") && line.contains("http"));
        match busy {
            Some(line) if !line.ends_with(" 0") => Err(line.to_owned()),
            _ => Ok(()),
        }
    })
    .await;

    // The table is gone when the next page is read.
    let mut stream = begun_export(rest).await;
    let mut connection = PgConnection::connect(&world.database.url)
        .await
        .expect("it answers");
    sqlx::raw_sql("ALTER TABLE audit_live.entries RENAME TO hidden")
        .execute(&mut connection)
        .await
        .expect("renamed");
    let mut cut = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut cut)).await;
    let _ = read.expect("the connection ends");
    assert!(!cut.ends_with(b"0\r\n\r\n") && cut.len() < whole.len());
    sqlx::raw_sql("ALTER TABLE audit_live.hidden RENAME TO entries")
        .execute(&mut connection)
        .await
        .expect("renamed");
    let all = entries(rest, &[], "1000").await;
    assert_eq!(all.len(), EVENTS);

    wait_until(
        LONG,
        "who takes nothing is disconnected",
        async || match waiting_in_vain.write_all(b" ").await {
            Ok(()) => Err(format!("connected for {:?}", begun.elapsed())),
            Err(_) => Ok(()),
        },
    )
    .await;
    assert!(begun.elapsed() > Duration::from_secs(25));
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_each_kind() {
    let mut log = Vec::new();
    let user = |id: &str| json!({"attemptedUserId": id});
    // 12:00: six failures for u1, then two logins; 12:05: four failures are none.
    log.extend((0..6).map(|n| login_failed(&format!("b{n}"), user("u1"), "203.0.113.1", 10 + n)));
    log.push(logged_in("in1", "u1", "203.0.113.9", 100));
    log.push(logged_in("in0", "u1", "203.0.113.9", 5));
    log.push(logged_in("other", "u2", "203.0.113.9", 100));
    log.extend((0..4).map(|n| login_failed(&format!("n{n}"), user("u1"), "203.0.113.1", 310 + n)));
    // 12:10: accounts by email, and five failures each for two of them.
    log.extend((0..11).map(|n| {
        let account = json!({"attemptedEmail": format!("m{n:02}@example.org")});
        login_failed(&format!("s{n:02}"), account, "203.0.113.2", 600 + n)
    }));
    for account in ["m05@example.org", ODD] {
        let account = json!({"attemptedEmail": account});
        log.extend((0..5).map(|n| {
            let id = format!(
                "a{}{n}",
                account["attemptedEmail"].as_str().map_or(0, str::len)
            );
            login_failed(&id, account.clone(), "203.0.113.3", 650 + n)
        }));
    }
    // 12:10: three failed second factors.
    log.extend((0..3).map(|n| {
        let payload = json!({"userId": "u9", "mfaMethod": "TOTP"});
        event(&format!("m{n}"), "MfaChallengeFailed", 700 + n, payload)
    }));
    // 12:15: failures for ODD's id, and a login.
    log.extend((0..5).map(|n| login_failed(&format!("z{n}"), user(ODD), "203.0.113.4", 900 + n)));
    log.push(logged_in("in2", ODD, "203.0.113.9", 1_199));
    log.push(logged_in("in3", ODD, "203.0.113.9", 1_200));
    // 12:25: two other accounts whose text is u1, and a login of the user u1 in whose name only four failed.
    for name in ["attemptedUsername", "attemptedEmail"] {
        log.extend((0..5).map(|n| {
            let id = format!("{name}{n}");
            login_failed(&id, json!({name: "u1"}), "203.0.113.5", 1_500 + n)
        }));
    }
    log.extend(
        (0..4).map(|n| login_failed(&format!("k{n}"), user("u1"), "203.0.113.5", 1_510 + n)),
    );
    log.push(logged_in("in4", "u1", "203.0.113.9", 1_520));
    let (_world, running) = projected(&log, &[]).await;
    let rest = &running.rest;

    let all = list(rest, ALERTS, "alerts", &[], "50").await;
    let summary: Vec<(i64, &str, &str, i64)> = all
        .iter()
        .map(|alert| {
            let start: DateTime<Utc> = alert["windowStart"]
                .as_str()
                .expect("text")
                .parse()
                .expect("a time");
            (
                (start - beginning()).num_seconds(),
                alert["kind"].as_str().expect("text"),
                alert["key"].as_str().expect("text"),
                alert["count"].as_i64().expect("a number"),
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            (1_500, "brute_force", "u1", 5),
            (1_500, "brute_force", "u1", 5),
            (900, "brute_force", ODD, 5),
            (900, "login_after_failures", ODD, 1),
            (600, "brute_force", ODD, 5),
            (600, "brute_force", "m05@example.org", 6),
            (600, "credential_stuffing", "203.0.113.2", 11),
            (600, "mfa_fatigue", "u9", 3),
            (0, "brute_force", "u1", 6),
            (0, "login_after_failures", "u1", 2),
        ]
    );
    let at = |seconds| json!(beginning() + TimeDelta::seconds(seconds));
    assert_eq!(
        all[9],
        json!({
            "kind": "login_after_failures", "key": "u1", "windowStart": at(0), "windowEnd": at(300), "count": 2,
            "firstEventAt": at(5), "lastEventAt": at(100), "eventIds": ["in0", "in1"],
        })
    );
    assert_eq!(
        all[8],
        json!({
            "kind": "brute_force", "key": "u1", "windowStart": at(0), "windowEnd": at(300), "count": 6,
            "firstEventAt": at(10), "lastEventAt": at(15), "eventIds": ["b0", "b1", "b2", "b3", "b4", "b5"],
        })
    );
    assert_eq!(all[6]["eventIds"].as_array().map(Vec::len), Some(11));
    assert_ne!(all[0]["eventIds"], all[1]["eventIds"]);

    let starts =
        [0, 600, 900, 1_500].map(|seconds| written(beginning() + TimeDelta::seconds(seconds)));
    let matching = |filters: &[(&str, &str)]| -> Vec<Value> {
        let matches = |alert: &&Value| {
            filters.iter().all(|(name, value)| {
                let start = || {
                    alert["windowStart"]
                        .as_str()
                        .expect("text")
                        .parse::<DateTime<Utc>>()
                };
                let instant = || value.parse::<DateTime<Utc>>().expect("a time");
                match *name {
                    "from" => start().expect("a time") >= instant(),
                    "to" => start().expect("a time") < instant(),
                    name => alert[name] == **value,
                }
            })
        };
        all.iter().filter(matches).cloned().collect()
    };
    let mut single: Vec<(&str, &str)> = Vec::new();
    for kind in [
        "brute_force",
        "credential_stuffing",
        "mfa_fatigue",
        "login_after_failures",
    ] {
        single.push(("kind", kind));
    }
    for key in ["u1", ODD, "203.0.113.2", "nobody"] {
        single.push(("key", key));
    }
    for start in &starts {
        single.extend([("from", start.as_str()), ("to", start.as_str())]);
    }
    let mut grpc = running.grpc.audit();
    for (index, one) in single.iter().enumerate() {
        let others = single[index + 1..].iter().filter(|other| other.0 != one.0);
        let pairs = others.map(|other| vec![*one, *other]);
        for filters in pairs.chain([vec![*one]]) {
            for size in ["1", "2", "50"] {
                let found = list(rest, ALERTS, "alerts", &filters, size).await;
                assert_eq!(found, matching(&filters), "{filters:?} by {size}");
            }
            let value = |name: &str| {
                let given = filters.iter().find(|(given, _)| *given == name);
                given.map(|(_, value)| (*value).to_owned())
            };
            let instant = |name| value(name).map(|at| timestamp(at.parse().expect("a time")));
            let request = ListAlertsRequest {
                kind: value("kind").map(|kind| audit_number("kind", &kind)),
                key: value("key"),
                from: instant("from"),
                to: instant("to"),
                ..ListAlertsRequest::default()
            };
            let page = grpc
                .list_alerts(request)
                .await
                .expect("a page")
                .into_inner();
            assert_eq!(
                alerts_json(page)["alerts"],
                json!(matching(&filters)),
                "{filters:?}"
            );
        }
    }
    for size in ["1", "2", "3"] {
        assert_eq!(
            list(rest, ALERTS, "alerts", &[], size).await,
            all,
            "by {size}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_the_field() {
    let clients = with_entries().await;
    let long = "x".repeat(256);
    for (path, field) in [
        (format!("{ENTRIES}?userId="), "userId"),
        (format!("{ENTRIES}?userId={long}"), "userId"),
        (format!("{ENTRIES}?userId=a&userId=b"), "userId"),
        (format!("{ENTRIES}?roleId={long}"), "roleId"),
        (format!("{ENTRIES}?actor=a%00"), "actor"),
        (format!("{ENTRIES}?ipAddress="), "ipAddress"),
        (format!("{ENTRIES}?action=%00"), "action"),
        (format!("{ENTRIES}?category=Account"), "category"),
        (format!("{ENTRIES}?category="), "category"),
        (format!("{ENTRIES}?outcome=failed"), "outcome"),
        (format!("{ENTRIES}?from=yesterday"), "from"),
        (format!("{ENTRIES}?to=2026-10-01"), "to"),
        (format!("{ENTRIES}?pageSize=x"), "pageSize"),
        (format!("{ENTRIES}?user=u1"), "user"),
        (format!("{ENTRIES}?kind=brute_force"), "kind"),
        (format!("{ALERTS}?kind=brute"), "kind"),
        (format!("{ALERTS}?key="), "key"),
        (format!("{ALERTS}?key=%00"), "key"),
        (format!("{ALERTS}?from=1"), "from"),
        ("/v1/audit/users/u1/access?asOf=now".into(), "asOf"),
        (format!("/v1/audit/users/{long}/access"), "userId"),
        (format!("/v1/audit/roles/{long}"), "roleId"),
    ] {
        let problem = assert_problem(&path, &clients.rest.get(&path).await, 400);
        assert_field(&path, &problem, field);
    }
    for body in [
        json!({"expectedHead": ""}),
        json!({"expectedHead": "x"}),
        json!({"expectedHead": 1}),
    ] {
        let answer = clients.rest.post(VERIFY, &body).await;
        let problem = assert_problem("verify", &answer, 400);
        assert_field("verify", &problem, "expectedHead");
    }
    // Instants that lie ahead, and such that no row can have.
    for at in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"] {
        for path in [ENTRIES, ALERTS] {
            for name in ["from", "to"] {
                let path = with_query(path, &[(name, Some(at))]);
                let answer = clients.rest.get(&path).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            }
        }
    }
    let mut grpc = clients.grpc.audit();
    let unspecified = ListEntriesRequest {
        category: Some(0),
        outcome: Some(0),
        ..Default::default()
    };
    grpc.list_entries(unspecified).await.expect("no filter");
    for request in [
        ListEntriesRequest {
            category: Some(9),
            ..Default::default()
        },
        ListEntriesRequest {
            outcome: Some(9),
            ..Default::default()
        },
        ListEntriesRequest {
            user_id: Some(String::new()),
            ..Default::default()
        },
        ListEntriesRequest {
            action: Some(String::new()),
            ..Default::default()
        },
        ListEntriesRequest {
            page_size: -1,
            ..Default::default()
        },
    ] {
        let status = grpc.list_entries(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
