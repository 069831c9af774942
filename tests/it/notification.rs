//! Notifications over both surfaces: lists, filters and pages, one by its id, the work queue as a worker uses it, and wrong
//! requests.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use http::Method;
use serde_json::{Value, json};
use sightline::proto::notification::v1::{
    AckNotificationsRequest, ExtendLeaseRequest, FailNotificationsRequest, FailedNotification,
    GetNotificationRequest, HeldNotification, LeaseNotificationsRequest, LeaseOutcome,
    ListNotificationsRequest, NotificationStatus, Template,
};
use sightline_testing::app::{Clients, Running, SOON, Shared, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up, pages};
use sightline_testing::client::{Rest, notification_json, notifications_json, with_query};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};
use tonic::Code;
use tonic_types::StatusExt;

use crate::requests::{assert_field, assert_problem};

const LIST: &str = "/v1/notification/notifications";
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";
const ODD: &str = "Z/ü 😀";

/// An event of so many seconds ago.
fn event(user: &str, id: &str, kind: &str, seconds: i64, mut payload: Value) -> Record {
    payload["userId"] = json!(user);
    let at = Utc::now() - TimeDelta::seconds(seconds);
    let value = json!({
        "eventType": kind, "eventId": id, "payload": payload,
        "eventTimestamp": at.to_rfc3339_opts(SecondsFormat::Micros, true),
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: at.timestamp_millis(),
    }
}

/// A registration, which makes a `welcome` and, at the same instant, an `email_verification`.
fn registered(user: &str, id: &str, seconds: i64) -> Record {
    let payload = json!({
        "email": format!("{id}@example.org"), "username": "name", "firstName": "First", "status": "pending_verification",
    });
    event(user, id, "UserRegistered", seconds, payload)
}

fn password_changed(user: &str, id: &str, seconds: i64) -> Record {
    let payload = json!({"changeType": "self_initiated"});
    event(user, id, "UserPasswordChanged", seconds, payload)
}

/// Writes these records to partition 0 of a new world of this domain, and waits until they are projected.
async fn projected(log: &[Record], settings: &[(&str, &str)]) -> (World, Running) {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "notification");
    for (name, value) in settings {
        world.set(name, value);
    }
    world.broker.writer().write(&world.topic, log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, log.len() as i64)])).await;
    (world, running)
}

/// A process with notifications that no test changes, of each status that a notification has without workers.
async fn with_notifications() -> Clients {
    static SHARED: Shared = Shared::const_new();
    let log = || {
        let status = |new: &str, previous: &str| json!({"newStatus": new, "previousStatus": previous, "reason": "why"});
        let mut log = vec![
            registered("u1", "r1", 600),
            password_changed("u1", "p1", 500),
            event(
                "u1",
                "m1",
                "MfaStatusChanged",
                400,
                json!({"mfaEnabled": true, "mfaMethod": "TOTP"}),
            ),
            event(
                "late",
                "reset",
                "UserPasswordResetRequested",
                7_200,
                json!({"email": "late@example.org", "resetTokenIdentifier": "token"}),
            ),
            password_changed("nameless", "n1", 300),
            registered("gone", "g1", 200),
            event(
                "gone",
                "g2",
                "UserDeleted",
                100,
                json!({"deletionType": "soft"}),
            ),
            registered(ODD, "o1", 90),
            event(
                ODD,
                "o2",
                "UserAccountStatusChanged",
                80,
                status("banned", "active"),
            ),
            event(
                ODD,
                "o3",
                "UserAccountStatusChanged",
                70,
                status("active", "banned"),
            ),
            event(
                ODD,
                "o4",
                "UserEmailVerified",
                60,
                json!({"email": "odd@example.org"}),
            ),
        ];
        // Many at the same instant: pages have to be cut between them.
        let tie = registered("tie", "t", 50);
        let text = String::from_utf8(tie.value.clone().expect("a value")).expect("UTF-8");
        log.extend((1..=5).map(|n| Record {
            value: Some(text.replace("\"t\"", &format!("\"t{n}\"")).into_bytes()),
            ..tie.clone()
        }));
        log
    };
    SHARED.clients(async || projected(&log(), &[]).await).await
}

/// All notifications of a list, read in pages of this size.
async fn list(rest: &Rest, filters: &[(&str, &str)], size: &str) -> Vec<Value> {
    let filters: Vec<_> = filters
        .iter()
        .map(|(name, value)| (*name, Some(*value)))
        .collect();
    let size = size.parse().expect("a number");
    pages(rest, LIST, &filters, "notifications", size).await
}

fn id_of(notification: &Value) -> String {
    notification["notificationId"]
        .as_str()
        .expect("an id")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_surfaces_answer_the_same() {
    let clients = with_notifications().await;
    let mut grpc = clients.grpc.notification();
    for user in ["u1", "late", "nameless", "gone", ODD, "tie", "nobody"] {
        let path = with_query(LIST, &[("userId", Some(user))]);
        let answer = clients.rest.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let request = ListNotificationsRequest {
            user_id: Some(user.into()),
            ..ListNotificationsRequest::default()
        };
        let page = grpc.list_notifications(request).await.expect("a page");
        assert!(page.metadata().contains_key("sightline-consistency-token"));
        assert_eq!(
            notifications_json(page.into_inner()),
            answer.json(),
            "{user}"
        );
        for listed in answer.json()["notifications"].as_array().expect("a list") {
            let id = id_of(listed);
            let one = clients.rest.get(&format!("{LIST}/{id}")).await;
            assert_eq!((one.status, &one.json()), (200, listed));
            assert_eq!(one.header("sightline-state"), "caught_up");
            let request = GetNotificationRequest {
                notification_id: id,
            };
            let one = grpc
                .get_notification(request)
                .await
                .expect("known")
                .into_inner();
            assert_eq!(&notification_json(one.notification.expect("one")), listed);
        }
    }
    let path = format!("{LIST}/{NO_ID}");
    let answer = clients.rest.get(&path).await;
    assert_problem(&path, &answer, 404);
    assert!(!answer.token().is_empty());
    let request = GetNotificationRequest {
        notification_id: NO_ID.into(),
    };
    let status = grpc.get_notification(request).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status
            .metadata()
            .contains_key("sightline-consistency-token")
    );

    let mut of_u1 = list(&clients.rest, &[("userId", "u1")], "50").await;
    let created = of_u1[0]["createdAt"]
        .as_str()
        .expect("an instant")
        .to_owned();
    let first = id_of(&of_u1[0]);
    of_u1.sort_by_key(|n| n["template"].as_str() != Some("welcome"));
    let expires = of_u1[0]["expiresAt"]
        .as_str()
        .expect("an instant")
        .to_owned();
    let expected = json!({
        "notificationId": id_of(&of_u1[0]), "eventId": "r1", "userId": "u1", "template": "welcome",
        "recipient": "r1@example.org", "channel": "email",
        "data": {"userId": "u1", "firstName": "First", "username": "name"},
        "status": "pending", "attempts": 0, "createdAt": created, "expiresAt": expires,
    });
    assert_eq!(of_u1[0], expected);

    let path = format!("{LIST}/{first}");
    let etag = clients.rest.get(&path).await.header("etag").to_owned();
    let again = [("if-none-match", etag.as_str())];
    let again = clients.rest.send(Method::GET, &path, &again, b"").await;
    assert_eq!((again.status, again.token().is_empty()), (304, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_by_user_status_and_template() {
    let clients = with_notifications().await;
    let rest = &clients.rest;
    let all = list(rest, &[], "50").await;
    let key = |n: &Value| (n["createdAt"].as_str().map(str::to_owned), id_of(n));
    assert!(all.is_sorted_by_key(key), "{all:?}");
    assert_eq!(all.len(), 23, "{all:?}");
    let users = ["u1", "late", "nameless", "gone", ODD, "tie", "nobody"];
    let statuses = [
        "pending",
        "expired",
        "no_recipient",
        "cancelled",
        "leased",
        "sent",
        "failed",
    ];
    let templates = [
        "welcome",
        "email_verification",
        "email_verified",
        "password_changed",
        "password_reset",
        "mfa_enabled",
        "mfa_disabled",
        "account_suspended",
        "account_reactivated",
    ];
    let count = |field: &str, word: &str| all.iter().filter(|n| n[field] == word).count();
    assert_eq!(statuses.map(|s| count("status", s)), [19, 1, 1, 2, 0, 0, 0]);
    assert_eq!(
        templates.map(|t| count("template", t)),
        [8, 8, 1, 2, 1, 1, 0, 1, 1]
    );

    // Every filter, alone and together with the others, selects from the whole list.
    let matching = |filters: &[(&str, &str)]| -> Vec<Value> {
        let is_any = |n: &Value, name: &str| {
            let mut given = filters
                .iter()
                .filter(|(given, _)| *given == name)
                .peekable();
            given.peek().is_none() || given.any(|(_, value)| n[name] == *value)
        };
        let names = ["userId", "status", "template"];
        all.iter()
            .filter(|n| names.iter().all(|name| is_any(n, name)))
            .cloned()
            .collect()
    };
    let mut filters: Vec<Vec<(&str, &str)>> = Vec::new();
    filters.extend(users.map(|user| vec![("userId", user)]));
    filters.extend(statuses.map(|status| vec![("status", status)]));
    filters.extend(templates.map(|template| vec![("template", template)]));
    for status in statuses {
        filters.push(vec![("status", status), ("status", "expired")]);
        filters.push(vec![
            ("status", status),
            ("status", "cancelled"),
            ("template", "welcome"),
        ]);
        filters.push(vec![
            ("status", status),
            ("userId", ODD),
            ("template", "welcome"),
            ("template", "account_suspended"),
        ]);
        filters.push(vec![("status", status), ("userId", "gone")]);
    }
    for filters in &filters {
        assert_eq!(
            list(rest, filters, "50").await,
            matching(filters),
            "{filters:?}"
        );
    }
    let request = ListNotificationsRequest {
        status: vec![
            NotificationStatus::Pending.into(),
            NotificationStatus::Cancelled.into(),
        ],
        template: vec![Template::Welcome.into(), Template::PasswordReset.into()],
        ..ListNotificationsRequest::default()
    };
    let mut grpc = clients.grpc.notification();
    let page = grpc
        .list_notifications(request)
        .await
        .expect("a page")
        .into_inner();
    let expected = matching(&[
        ("status", "pending"),
        ("status", "cancelled"),
        ("template", "welcome"),
        ("template", "password_reset"),
    ]);
    assert_eq!(notifications_json(page), json!({"notifications": expected}));

    // What a deletion leaves, and what has no recipient.
    for erased in matching(&[("userId", "gone")]) {
        let names: BTreeSet<&str> = erased
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        let left = [
            "notificationId",
            "eventId",
            "userId",
            "template",
            "channel",
            "status",
            "attempts",
            "createdAt",
            "expiresAt",
        ];
        assert_eq!(names, BTreeSet::from(left));
    }
    let nameless = &matching(&[("userId", "nameless")])[0];
    assert_eq!(
        (nameless["status"].as_str(), nameless.get("recipient")),
        (Some("no_recipient"), None)
    );
    assert_eq!(
        nameless["data"],
        json!({"userId": "nameless", "changeType": "self_initiated"})
    );
    let late = &matching(&[("userId", "late")])[0];
    assert_eq!(
        (
            late["status"].as_str(),
            &late["data"]["resetTokenIdentifier"]
        ),
        (Some("expired"), &json!("token"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_skip_nor_repeat() {
    let clients = with_notifications().await;
    let rest = &clients.rest;
    for filters in [
        &[][..],
        &[("userId", "tie")],
        &[("status", "pending")],
        &[
            ("status", "expired"),
            ("status", "no_recipient"),
            ("status", "cancelled"),
        ],
        &[("template", "password_changed"), ("template", "welcome")],
    ] {
        let all = list(rest, filters, "50").await;
        assert!(all.len() > 3, "{filters:?}");
        for size in ["1", "2", "5"] {
            assert_eq!(
                list(rest, filters, size).await,
                all,
                "{filters:?} in pages of {size}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_named() {
    let clients = with_notifications().await;
    let rest = &clients.rest;
    let first = rest
        .get(&with_query(LIST, &[("pageSize", Some("1"))]))
        .await
        .json();
    let token = first["nextPageToken"].as_str().expect("more");
    let long = "x".repeat(256);
    for (parameters, field) in [
        (vec![("userId", "")], "userId"),
        (vec![("userId", &long)], "userId"),
        (vec![("userId", "a\0b")], "userId"),
        (vec![("userId", "a"), ("userId", "b")], "userId"),
        (vec![("status", "")], "status"),
        (vec![("status", "Pending")], "status"),
        (
            vec![("status", "pending"), ("status", "pending,sent")],
            "status",
        ),
        (vec![("template", "")], "template"),
        (
            vec![("template", "welcome"), ("template", &long)],
            "template",
        ),
        (vec![("templates", "welcome")], "templates"),
        (vec![("pageSize", "-1")], "pageSize"),
        (vec![("pageToken", "x")], "pageToken"),
        (vec![("pageToken", token), ("userId", "u1")], "pageToken"),
        (
            vec![("pageToken", token), ("status", "pending")],
            "pageToken",
        ),
        (
            vec![("pageToken", token), ("template", "welcome")],
            "pageToken",
        ),
    ] {
        let parameters: Vec<_> = parameters
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        let path = with_query(LIST, &parameters);
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, field);
    }
    for id in ["x", "%F0%9F%98%80", "00000000", "%ff", &"1".repeat(4_000)] {
        let path = format!("{LIST}/{id}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "notificationId");
    }

    let mut grpc = clients.grpc.notification();
    let request = GetNotificationRequest {
        notification_id: "x".into(),
    };
    let refused = grpc.get_notification(request).await.expect_err("malformed");
    assert_refused(&refused, "notification_id");
    for (request, field) in [
        (
            ListNotificationsRequest {
                user_id: Some(String::new()),
                ..ListNotificationsRequest::default()
            },
            "user_id",
        ),
        (
            ListNotificationsRequest {
                status: vec![NotificationStatus::Unspecified.into()],
                ..ListNotificationsRequest::default()
            },
            "status",
        ),
        (
            ListNotificationsRequest {
                template: vec![Template::Welcome.into(), 99],
                ..ListNotificationsRequest::default()
            },
            "template",
        ),
    ] {
        let refused = grpc.list_notifications(request).await.expect_err("refused");
        assert_refused(&refused, field);
    }
}

fn assert_refused(status: &tonic::Status, field: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("violations").field_violations;
    assert!(
        violations.iter().any(|v| v.field == field),
        "{field}: {violations:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_are_named() {
    let clients = with_notifications().await;
    let rest = &clients.rest;
    let (lease, ack, fail) = (
        format!("{LIST}:lease"),
        format!("{LIST}:ack"),
        format!("{LIST}:fail"),
    );
    let of_one = |verb: &str| format!("{LIST}/{NO_ID}/{verb}");
    let item = json!({"notificationId": NO_ID, "leaseToken": NO_ID});
    let failed =
        |reason: Value| json!({"notificationId": NO_ID, "leaseToken": NO_ID, "reason": reason});
    let many: Vec<Value> = (0..101)
        .map(|n| json!({"notificationId": format!("00000000-0000-4000-8000-{n:012}"), "leaseToken": NO_ID}))
        .collect();
    let with = |name: &str, value: Value| {
        let mut body = json!({"max": 1, "leaseSeconds": 5});
        body[name] = value;
        body
    };
    for (path, body, field) in [
        (&lease, json!({}), "max"),
        (&lease, json!({"max": 1}), "leaseSeconds"),
        (&lease, with("max", json!(0)), "max"),
        (&lease, with("max", json!(101)), "max"),
        (&lease, with("max", json!(10_000_000_000_i64)), "max"),
        (&lease, with("max", json!(1.5)), "max"),
        (&lease, with("leaseSeconds", json!(4)), "leaseSeconds"),
        (&lease, with("leaseSeconds", json!(3_601)), "leaseSeconds"),
        (&lease, with("waitSeconds", json!(-1)), "waitSeconds"),
        (&lease, with("waitSeconds", json!(21)), "waitSeconds"),
        (&lease, with("waitSeconds", json!("1")), "waitSeconds"),
        (
            &lease,
            with("templates", json!(["welcome", "Welcome"])),
            "templates[1]",
        ),
        (&lease, with("templates", json!("welcome")), "templates"),
        (&lease, with("template", json!(["welcome"])), "template"),
        (&ack, json!({}), "items"),
        (&ack, json!({"items": []}), "items"),
        (&ack, json!({"items": many}), "items"),
        (&ack, json!({"items": [item, item]}), "items"),
        (
            &ack,
            json!({"items": [{"notificationId": "x", "leaseToken": NO_ID}]}),
            "items[0].notificationId",
        ),
        (
            &ack,
            json!({"items": [item, {"notificationId": NO_ID, "leaseToken": ""}]}),
            "items[1].leaseToken",
        ),
        (
            &ack,
            json!({"items": [{"notificationId": NO_ID}]}),
            "items[0].leaseToken",
        ),
        (
            &ack,
            json!({"items": [failed(json!("why"))]}),
            "items[0].reason",
        ),
        (&fail, json!({"items": [item]}), "items[0].reason"),
        (
            &fail,
            json!({"items": [failed(json!(""))]}),
            "items[0].reason",
        ),
        (
            &fail,
            json!({"items": [failed(json!("é".repeat(501)))]}),
            "items[0].reason",
        ),
        (&of_one("ack"), json!({}), "leaseToken"),
        (&of_one("ack"), json!({"leaseToken": "x"}), "leaseToken"),
        (
            &of_one("ack"),
            json!({"leaseToken": NO_ID, "reason": "x"}),
            "reason",
        ),
        (&of_one("fail"), json!({"leaseToken": NO_ID}), "reason"),
        (
            &of_one("fail"),
            json!({"leaseToken": NO_ID, "reason": ""}),
            "reason",
        ),
        (
            &of_one("fail"),
            json!({"leaseToken": NO_ID, "reason": "x".repeat(501)}),
            "reason",
        ),
        (
            &of_one("extend"),
            json!({"leaseToken": NO_ID}),
            "leaseSeconds",
        ),
        (
            &of_one("extend"),
            json!({"leaseToken": NO_ID, "leaseSeconds": 4}),
            "leaseSeconds",
        ),
        (
            &format!("{LIST}/x/ack"),
            json!({"leaseToken": NO_ID}),
            "notificationId",
        ),
    ] {
        let what = format!(
            "{path} {}",
            &body.to_string()[..body.to_string().floor_char_boundary(200)]
        );
        let problem = assert_problem(&what, &rest.post(path, &body).await, 400);
        assert_field(&what, &problem, field);
    }
    // An unknown notification, in each form.
    for (path, body) in [
        (of_one("ack"), json!({"leaseToken": NO_ID})),
        (of_one("fail"), json!({"leaseToken": NO_ID, "reason": "x"})),
        (
            of_one("extend"),
            json!({"leaseToken": NO_ID, "leaseSeconds": 5}),
        ),
    ] {
        let problem = assert_problem(&path, &rest.post(&path, &body).await, 404);
        assert_eq!(problem["reason"], "NOT_FOUND");
    }
    let unknown = json!({"outcomes": [{"notificationId": NO_ID, "outcome": "not_found"}]});
    for (path, body) in [
        (&ack, json!({"items": [item]})),
        (&fail, json!({"items": [failed(json!("why"))]})),
    ] {
        let answer = rest.post(path, &body).await;
        assert_eq!((answer.status, answer.json()), (200, unknown.clone()));
        assert_eq!(
            (answer.token(), answer.header("cache-control")),
            ("", "no-store")
        );
    }

    let mut grpc = clients.grpc.notification();
    let request = LeaseNotificationsRequest {
        max: 1,
        lease_seconds: 4,
        ..LeaseNotificationsRequest::default()
    };
    let refused = grpc
        .lease_notifications(request)
        .await
        .expect_err("too short");
    assert_refused(&refused, "lease_seconds");
    let request = LeaseNotificationsRequest {
        max: 1,
        lease_seconds: 5,
        templates: vec![0],
        wait_seconds: 0,
    };
    let refused = grpc
        .lease_notifications(request)
        .await
        .expect_err("unspecified");
    assert_refused(&refused, "templates");
    let held = |id: &str, token: &str| HeldNotification {
        notification_id: id.into(),
        lease_token: token.into(),
    };
    let request = AckNotificationsRequest {
        items: vec![held(NO_ID, NO_ID), held("x", NO_ID)],
    };
    let refused = grpc
        .ack_notifications(request)
        .await
        .expect_err("malformed");
    assert_refused(&refused, "items[1].notification_id");
    let request = FailNotificationsRequest {
        items: vec![FailedNotification {
            notification_id: NO_ID.into(),
            lease_token: NO_ID.into(),
            reason: String::new(),
        }],
    };
    let refused = grpc
        .fail_notifications(request)
        .await
        .expect_err("no reason");
    assert_refused(&refused, "items[0].reason");
    let request = ExtendLeaseRequest {
        notification_id: NO_ID.into(),
        lease_token: NO_ID.into(),
        lease_seconds: 5,
    };
    let unknown = grpc.extend_lease(request).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
}

/// Leases over REST, which must be answered.
async fn lease(rest: &Rest, body: Value) -> Vec<Value> {
    let answer = rest.post(&format!("{LIST}:lease"), &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.token().starts_with('A'), "{:?}", answer.headers);
    answer.json()["notifications"]
        .as_array()
        .expect("a list")
        .clone()
}

/// The lease that an answer gave, as items of batches name it.
fn held(leased: &Value) -> Value {
    json!({"notificationId": leased["notificationId"], "leaseToken": leased["leaseToken"]})
}

async fn status_of(rest: &Rest, notification: &Value) -> Value {
    rest.get(&format!("{LIST}/{}", id_of(notification)))
        .await
        .json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leases_sends_and_acknowledges() {
    let log = [
        registered("u1", "r1", 60),
        password_changed("u1", "p1", 50),
        registered("u2", "r2", 40),
    ];
    let settings = [
        ("SIGHTLINE_NOTIFICATION_BACKOFF_SECONDS", "1"),
        ("SIGHTLINE_NOTIFICATION_MAX_ATTEMPTS", "2"),
    ];
    let (_world, running) = projected(&log, &settings).await;
    let rest = &running.rest;
    let verb = |notification: &Value, verb: &str| format!("{LIST}/{}/{verb}", id_of(notification));

    // A call whose answer can't be sent is refused before it leases anything.
    let body = json!({"max": 100, "leaseSeconds": 60}).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("accept-encoding", "identity;q=0"),
    ];
    let path = format!("{LIST}:lease");
    let refused = rest
        .send(Method::POST, &path, &headers, body.as_bytes())
        .await;
    assert_eq!(
        (refused.status, &refused.json()["reason"]),
        (406, &json!("NOT_ACCEPTABLE"))
    );

    // The oldest come first, each once, with all that a read says of them.
    let pending = list(rest, &[("status", "pending")], "50").await;
    assert_eq!(pending.len(), 5);
    let first = lease(rest, json!({"max": 2, "leaseSeconds": 60})).await;
    assert_eq!(
        [id_of(&first[0]), id_of(&first[1])],
        [id_of(&pending[0]), id_of(&pending[1])]
    );
    for leased in &first {
        let mut read = leased.clone();
        let fields = read.as_object_mut().expect("an object");
        let token = fields.remove("leaseToken").expect("a token");
        assert!(
            token.as_str().is_some_and(|token| token.len() == 36),
            "{token}"
        );
        let until = fields.remove("leasedUntil").expect("an end");
        let until = chrono::DateTime::parse_from_rfc3339(until.as_str().expect("text"))
            .expect("an instant");
        let left = until.to_utc() - Utc::now();
        assert!(
            (TimeDelta::seconds(20)..TimeDelta::seconds(61)).contains(&left),
            "{left}"
        );
        assert_eq!(
            (&read["status"], &read["attempts"]),
            (&json!("leased"), &json!(1))
        );
        assert_eq!(status_of(rest, leased).await, read);
    }
    let welcomes =
        json!({"max": 100, "leaseSeconds": 60, "templates": ["welcome"], "waitSeconds": 0});
    let others = lease(rest, welcomes).await;
    let is_new = |leased: &Value| first.iter().all(|held| id_of(held) != id_of(leased));
    assert!(
        others
            .iter()
            .all(|leased| leased["template"] == "welcome" && is_new(leased)),
        "{others:?}"
    );

    // Sent: one alone, twice; then it is over.
    let body = json!({"leaseToken": first[0]["leaseToken"]});
    let sent = json!({"notificationId": id_of(&first[0]), "outcome": "ok", "status": "sent"});
    for _ in 0..2 {
        let answer = rest.post(&verb(&first[0], "ack"), &body).await;
        assert_eq!((answer.status, answer.json()), (200, sent.clone()));
    }
    assert_eq!(status_of(rest, &first[0]).await["status"], "sent");

    // Extended, failed, leased again, failed for good.
    let extend = json!({"leaseToken": first[1]["leaseToken"], "leaseSeconds": 3_600});
    let answer = rest.post(&verb(&first[1], "extend"), &extend).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let until = answer.json()["leasedUntil"]
        .as_str()
        .expect("an end")
        .to_owned();
    assert!(
        until.as_str() > first[1]["leasedUntil"].as_str().expect("an end"),
        "{until}"
    );
    let body = json!({"leaseToken": first[1]["leaseToken"], "reason": "mailbox full"});
    let answer = rest.post(&verb(&first[1], "fail"), &body).await;
    let expected =
        json!({"notificationId": id_of(&first[1]), "outcome": "ok", "status": "pending"});
    assert_eq!((answer.status, answer.json()), (200, expected));
    let failed = status_of(rest, &first[1]).await;
    assert_eq!(
        (&failed["lastError"], &failed["attempts"]),
        (&json!("mailbox full"), &json!(1))
    );
    let again = wait_until(SOON, "it is leased again", async || {
        let leased = lease(rest, json!({"max": 1, "leaseSeconds": 60, "templates": [failed["template"]], "waitSeconds": 2})).await;
        leased.into_iter().find(|leased| id_of(leased) == id_of(&failed)).ok_or("not yet".to_owned())
    })
    .await;
    assert_ne!(again["leaseToken"], first[1]["leaseToken"]);
    assert_eq!(again["attempts"], 2);

    // The first worker no longer holds it.
    for (what, body) in [
        ("ack", json!({"leaseToken": first[1]["leaseToken"]})),
        (
            "fail",
            json!({"leaseToken": first[1]["leaseToken"], "reason": "late"}),
        ),
        (
            "extend",
            json!({"leaseToken": first[1]["leaseToken"], "leaseSeconds": 5}),
        ),
    ] {
        let problem = assert_problem(what, &rest.post(&verb(&first[1], what), &body).await, 409);
        assert_eq!(problem["reason"], "LEASE_LOST", "{what}");
    }
    let mut failing = held(&again);
    failing["reason"] = json!("no such mailbox");
    let lost = held(&first[1]);
    let unknown = json!({"notificationId": NO_ID, "leaseToken": NO_ID});
    let answer = rest
        .post(&format!("{LIST}:fail"), &json!({"items": [failing]}))
        .await;
    assert_eq!(
        answer.json()["outcomes"][0]["status"],
        "failed",
        "{}",
        answer.text()
    );
    let answer = rest
        .post(&format!("{LIST}:ack"), &json!({"items": [unknown, lost]}))
        .await
        .json();
    let outcomes: Vec<&Value> = answer["outcomes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|o| &o["outcome"])
        .collect();
    assert_eq!(outcomes, ["not_found", "lost"]);
    let last = status_of(rest, &failed).await;
    assert_eq!(
        (&last["status"], &last["lastError"]),
        (&json!("failed"), &json!("no such mailbox"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_by_grpc() {
    let log = [registered("u1", "r1", 60), registered("gone", "g1", 50)];
    let (world, running) = projected(&log, &[]).await;
    let mut grpc = running.grpc.notification();
    let request = LeaseNotificationsRequest {
        max: 100,
        lease_seconds: 60,
        templates: vec![Template::Welcome.into()],
        wait_seconds: 0,
    };
    let answer = grpc.lease_notifications(request).await.expect("leased");
    assert!(
        answer
            .metadata()
            .contains_key("sightline-consistency-token")
    );
    let leased = answer.into_inner().notifications;
    let users: Vec<&str> = leased
        .iter()
        .filter_map(|l| Some(l.notification.as_ref()?.user_id.as_str()))
        .collect();
    assert_eq!(users, ["u1", "gone"]);
    for leased in &leased {
        let read = notification_json(leased.notification.clone().expect("one"));
        assert_eq!(status_of(&running.rest, &read).await, read);
        assert!(leased.leased_until.is_some());
    }
    let held: Vec<HeldNotification> = leased
        .iter()
        .map(|leased| HeldNotification {
            notification_id: leased.notification.clone().expect("one").notification_id,
            lease_token: leased.lease_token.clone(),
        })
        .collect();
    let extend = |held: &HeldNotification| ExtendLeaseRequest {
        notification_id: held.notification_id.clone(),
        lease_token: held.lease_token.clone(),
        lease_seconds: 600,
    };
    let extended = grpc
        .extend_lease(extend(&held[0]))
        .await
        .expect("extended")
        .into_inner();
    let seconds = |at: Option<prost_types::Timestamp>| at.expect("an end").seconds;
    assert!(seconds(extended.leased_until) > seconds(leased[0].leased_until) + 300);
    let mut stranger = held[0].clone();
    stranger.lease_token = NO_ID.into();
    let status = grpc
        .extend_lease(extend(&stranger))
        .await
        .expect_err("another's");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("a reason").reason, "LEASE_LOST");

    // The user is deleted while a worker holds the notification.
    let deleted = event(
        "gone",
        "g2",
        "UserDeleted",
        0,
        json!({"deletionType": "hard"}),
    );
    world.broker.writer().write(&world.topic, &[deleted]).await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    let status = grpc
        .extend_lease(extend(&held[1]))
        .await
        .expect_err("cancelled");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(
        details.error_info().expect("a reason").reason,
        "NOTIFICATION_CANCELLED"
    );
    let path = format!("{LIST}/{}/ack", held[1].notification_id);
    let answer = running
        .rest
        .post(&path, &json!({"leaseToken": held[1].lease_token}))
        .await;
    assert_eq!(
        assert_problem(&path, &answer, 409)["reason"],
        "NOTIFICATION_CANCELLED"
    );

    let request = AckNotificationsRequest {
        items: held.clone(),
    };
    let outcomes = grpc
        .ack_notifications(request)
        .await
        .expect("noted")
        .into_inner()
        .outcomes;
    let found: Vec<_> = outcomes.iter().map(|o| (o.outcome(), o.status())).collect();
    assert_eq!(
        found,
        [
            (LeaseOutcome::Ok, NotificationStatus::Sent),
            (LeaseOutcome::Cancelled, NotificationStatus::Cancelled),
        ]
    );
    let request = FailNotificationsRequest {
        items: vec![FailedNotification {
            notification_id: NO_ID.into(),
            lease_token: NO_ID.into(),
            reason: "why".into(),
        }],
    };
    let outcomes = grpc
        .fail_notifications(request)
        .await
        .expect("answered")
        .into_inner()
        .outcomes;
    assert_eq!(
        (outcomes[0].outcome(), outcomes[0].status),
        (LeaseOutcome::NotFound, None)
    );
}

/// A lease that finds nothing waits, and is answered as soon as something is pending.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_failed_is_leased_again_oldest_first() {
    let log = [registered("u1", "r1", 60), registered("u2", "r2", 40)];
    let settings = [("SIGHTLINE_NOTIFICATION_BACKOFF_SECONDS", "1")];
    let (world, running) = projected(&log, &settings).await;
    let rest = &running.rest;
    let leased = lease(rest, json!({"max": 100, "leaseSeconds": 60})).await;
    assert!(leased.len() > 2, "{leased:?}");
    // The pause of the oldest is over last.
    for one in leased.iter().rev() {
        let body = json!({"leaseToken": one["leaseToken"], "reason": "busy"});
        let answer = rest
            .post(&format!("{LIST}/{}/fail", id_of(one)), &body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Maintenance need not have come by then.
    let mut database = PgConnection::connect(&world.database.url)
        .await
        .expect("it answers");
    wait_until(SOON, "all pauses are over", async || {
        let paused: i64 =
            sqlx::query_scalar("SELECT count(*) FROM notification.deliveries WHERE due_at > now()")
                .fetch_one(&mut database)
                .await
                .expect("a count");
        match paused {
            0 => Ok(()),
            _ => Err(format!("{paused} are paused")),
        }
    })
    .await;
    let mut again = Vec::new();
    for _ in &leased {
        again.extend(lease(rest, json!({"max": 1, "leaseSeconds": 60})).await);
    }
    let ids = |leased: &[Value]| leased.iter().map(id_of).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&leased));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_waits_for_notifications() {
    let (world, running) = projected(&[registered("u1", "r1", 60)], &[]).await;
    let rest = &running.rest;
    assert_eq!(
        lease(rest, json!({"max": 100, "leaseSeconds": 60}))
            .await
            .len(),
        2
    );
    assert!(
        lease(rest, json!({"max": 100, "leaseSeconds": 60}))
            .await
            .is_empty()
    );
    // It ends in the caller's time, too.
    let path = format!("{LIST}:lease");
    let headers = [
        ("content-type", "application/json"),
        ("request-timeout", "2"),
    ];
    let body = json!({"max": 100, "leaseSeconds": 60, "waitSeconds": 20}).to_string();
    let answer = rest
        .send(Method::POST, &path, &headers, body.as_bytes())
        .await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"notifications": []}))
    );
    let waiting = tokio::spawn({
        let rest = rest.clone();
        async move {
            let path = format!("{LIST}:lease");
            let headers = [
                ("content-type", "application/json"),
                ("request-timeout", "30"),
            ];
            let body = json!({"max": 100, "leaseSeconds": 60, "waitSeconds": 20}).to_string();
            let answer = rest
                .send(Method::POST, &path, &headers, body.as_bytes())
                .await;
            answer.json()["notifications"].as_array().map(Vec::len)
        }
    });
    let came = password_changed("u1", "p1", 0);
    world.broker.writer().write(&world.topic, &[came]).await;
    let leased = tokio::time::timeout(Duration::from_secs(15), waiting);
    let leased = leased.await.expect("before its time");
    assert_eq!(leased.expect("no panic"), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_waits_in_the_queue() {
    let log = [registered("u1", "r1", 600), password_changed("u1", "p1", 0)];
    let (_world, running) = projected(&log, &[]).await;
    let gauges = async || {
        let ready = running.metric("sightline_queue_ready", "notification");
        let oldest = running.metric("sightline_queue_oldest_seconds", "notification");
        (ready.await, oldest.await)
    };
    wait_until(SOON, "all that is pending", async || match gauges().await {
        (Some(3.0), Some(age)) if (600.0..700.0).contains(&age) => Ok(()),
        gauges => Err(format!("{gauges:?}")),
    })
    .await;
    let leased = lease(&running.rest, json!({"max": 2, "leaseSeconds": 60})).await;
    assert_eq!(leased.len(), 2);
    wait_until(SOON, "what is left", async || match gauges().await {
        (Some(1.0), Some(age)) if age < 100.0 => Ok(()),
        gauges => Err(format!("{gauges:?}")),
    })
    .await;
}

/// A dead letter under a user's key may hide a notification of that user, or the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_dead_letters_says_so() {
    let bad = event(
        "u1",
        "bad",
        "UserPasswordChanged",
        30,
        json!({"changeType": {}}),
    );
    let log = [registered("u1", "r1", 60), bad, registered("u2", "r2", 20)];
    let (_world, running) = projected(&log, &[]).await;
    let rest = &running.rest;
    for (user, says) in [("u1", "dead-letters"), ("u2", "")] {
        let answer = rest.get(&with_query(LIST, &[("userId", Some(user))])).await;
        assert_eq!(answer.header("sightline-incomplete"), says, "{user}");
        let one = format!("{LIST}/{}", id_of(&answer.json()["notifications"][0]));
        assert_eq!(
            rest.get(&one).await.header("sightline-incomplete"),
            says,
            "{user}"
        );
    }
    assert_eq!(rest.get(LIST).await.header("sightline-incomplete"), "");
}
