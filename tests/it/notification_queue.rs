//! The work queue of notifications: a lease has one holder until it ends, and no rebuild, restore or retry sends again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sightline::query::token::ConsistencyToken;
use sightline_testing::app::{Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::operations::{built, dead_letters, operate, project, refused, retry_all};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

const NOTIFICATIONS: &str = "/v1/notification/notifications";
const LEASE: &str = "/v1/notification/notifications:lease";

/// A record about a user, of so many seconds ago.
fn event(event_type: &str, user: &str, id: &str, age: u64, payload: Value) -> Record {
    let mut payload = payload;
    payload["userId"] = json!(user);
    let time = chrono::Utc::now() - Duration::from_secs(age);
    let body = json!({
        "eventId": id, "eventType": event_type, "eventTimestamp": time.to_rfc3339(), "payload": payload,
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: time.timestamp_millis(),
    }
}

/// An event that makes a `welcome`.
fn registered(user: &str, age: u64) -> Record {
    let payload = json!({"email": format!("{user}@example.org"), "status": "active"});
    event("UserRegistered", user, &format!("r-{user}"), age, payload)
}

fn password_changed(user: &str, id: &str) -> Record {
    event(
        "UserPasswordChanged",
        user,
        id,
        0,
        json!({"changeType": "self_initiated"}),
    )
}

async fn world(broker: Broker, database: Database) -> World {
    let mut world = World::new(broker, database, 1).await;
    world
        .set("SIGHTLINE_DOMAINS", "notification")
        .set("SIGHTLINE_NOTIFICATION_BACKOFF_SECONDS", "1")
        .set("SIGHTLINE_NOTIFICATION_MAX_ATTEMPTS", "2");
    world
}

/// A process that has projected these records.
async fn projected(world: &World, records: &[Record]) -> Running {
    let running = world.serve().await;
    project_more(world, &running, records).await;
    running
}

async fn project_more(world: &World, running: &Running, records: &[Record]) {
    world.broker.writer().write(&world.topic, records).await;
    let ends = world.broker.ends(&world.topic).await;
    caught_up(&running.rest, &ends).await;
}

async fn lease(rest: &Rest, body: Value) -> Vec<Value> {
    let answer = rest.post(LEASE, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["notifications"]
        .as_array()
        .expect("a list")
        .clone()
}

async fn lease_some(rest: &Rest, max: usize, seconds: u64) -> Vec<Value> {
    lease(rest, json!({"max": max, "leaseSeconds": seconds})).await
}

fn users(notifications: &[Value]) -> Vec<&str> {
    let users = notifications.iter();
    users.map(|n| n["userId"].as_str().expect("text")).collect()
}

fn id(notification: &Value) -> &str {
    notification["notificationId"].as_str().expect("an id")
}

fn held(notification: &Value) -> Value {
    json!({"notificationId": id(notification), "leaseToken": notification["leaseToken"]})
}

/// Settles a lease: status and, if it was refused, the reason.
async fn settle(rest: &Rest, verb: &str, notification: &Value) -> (u16, Value) {
    let mut body = json!({"leaseToken": notification["leaseToken"]});
    match verb {
        "fail" => body["reason"] = json!("mailbox full"),
        "extend" => body["leaseSeconds"] = json!(60),
        _ => {}
    }
    let path = format!("{NOTIFICATIONS}/{}/{verb}", id(notification));
    let answer = rest.post(&path, &body).await;
    (answer.status, answer.json()["reason"].clone())
}

async fn statuses(rest: &Rest) -> BTreeMap<String, String> {
    let answer = rest
        .get(&format!("{NOTIFICATIONS}?pageSize=1000"))
        .await
        .json();
    let rows = answer["notifications"].as_array().expect("a list").clone();
    rows.iter()
        .map(|row| {
            let name = format!(
                "{} {}",
                row["userId"].as_str().unwrap(),
                row["template"].as_str().unwrap()
            );
            (name, row["status"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_notification_has_one_holder_until_its_lease_ends() {
    let world = world(Broker::shared(), Database::create().await).await;
    let records = [
        registered("c", 10),
        registered("a", 30),
        registered("b", 20),
    ];
    let running = projected(&world, &records).await;
    let rest = &running.rest;
    // The oldest first, not the first read.
    let first = lease_some(rest, 2, 5).await;
    assert_eq!(users(&first), ["a", "b"]);
    assert_eq!(first[0]["attempts"], 1);
    assert_eq!(first[0]["recipient"], "a@example.org");
    assert_eq!(users(&lease_some(rest, 2, 60).await), ["c"]);
    assert_eq!(settle(rest, "ack", &first[0]).await.0, 200);
    // A lease that ran out returns the notification, to a request that waits for it.
    let body = json!({"max": 2, "leaseSeconds": 60, "waitSeconds": 20});
    let again = lease(rest, body).await;
    assert_eq!(users(&again), ["b"]);
    assert_eq!(again[0]["attempts"], 2);
    // The former holder has nothing to say any longer.
    for verb in ["ack", "fail", "extend"] {
        assert_eq!(
            settle(rest, verb, &first[1]).await,
            (409, json!("LEASE_LOST"))
        );
    }
    assert_eq!(settle(rest, "extend", &again[0]).await.0, 200);
    // An answer may get lost: an acknowledgement can be repeated.
    for _ in 0..2 {
        assert_eq!(settle(rest, "ack", &again[0]).await.0, 200);
    }
    assert_eq!(
        settle(rest, "fail", &again[0]).await,
        (409, json!("LEASE_LOST"))
    );
    let statuses = statuses(rest).await;
    assert_eq!(statuses["a welcome"], "sent");
    assert_eq!(statuses["b welcome"], "sent");
    assert_eq!(statuses["c welcome"], "leased");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_sent_is_tried_again_until_the_last_attempt() {
    let world = world(Broker::shared(), Database::create().await).await;
    let running = projected(&world, &[registered("a", 10), registered("b", 5)]).await;
    let rest = &running.rest;
    let first = lease_some(rest, 1, 60).await;
    assert_eq!(settle(rest, "fail", &first[0]).await.0, 200);
    assert_eq!(
        settle(rest, "fail", &first[0]).await,
        (409, json!("LEASE_LOST"))
    );
    // The pause holds up no other.
    assert_eq!(users(&lease_some(rest, 1, 60).await), ["b"]);
    let body = json!({"max": 1, "leaseSeconds": 60, "waitSeconds": 20});
    let second = lease(rest, body).await;
    assert_eq!(
        (users(&second), &second[0]["attempts"]),
        (vec!["a"], &json!(2))
    );
    assert_eq!(second[0]["lastError"], "mailbox full");
    let body = json!({"items": [{"notificationId": id(&second[0]), "leaseToken": second[0]["leaseToken"], "reason": "no such mailbox"}]});
    let outcome = operate(rest, &format!("{NOTIFICATIONS}:fail"), body).await;
    assert_eq!(outcome["outcomes"][0]["status"], "failed");
    let row = rest
        .get(&format!("{NOTIFICATIONS}/{}", id(&second[0])))
        .await
        .json();
    assert_eq!(
        (&row["status"], &row["lastError"]),
        (&json!("failed"), &json!("no such mailbox"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_what_another_process_projects() {
    let mut world = world(Broker::shared(), Database::create().await).await;
    let projector = world.serve().await;
    world.set("SIGHTLINE_ROLE", "gateway");
    let gateway = world.serve().await;
    project_more(&world, &projector, &[registered("a", 3)]).await;
    assert_eq!(users(&lease_some(&gateway.rest, 9, 60).await), ["a"]);
    // Two wait, for different templates.
    let waiting = |templates: Value| {
        let rest = gateway.rest.clone();
        tokio::spawn(async move {
            let body =
                json!({"max": 9, "leaseSeconds": 60, "waitSeconds": 20, "templates": templates});
            let began = Instant::now();
            (lease(&rest, body).await, began.elapsed())
        })
    };
    let changed = waiting(json!(["password_changed"]));
    let welcome = waiting(json!(["welcome", "mfa_enabled"]));
    let nothing = lease(
        &gateway.rest,
        json!({"max": 1, "leaseSeconds": 60, "waitSeconds": 1}),
    )
    .await;
    assert_eq!(nothing, Vec::<Value>::new());
    world
        .broker
        .writer()
        .write(&world.topic, &[password_changed("a", "p-a")])
        .await;
    let (changed, after) = changed.await.expect("no panic");
    assert_eq!(
        (users(&changed), &changed[0]["template"]),
        (vec!["a"], &json!("password_changed"))
    );
    assert!(after < Duration::from_secs(15), "{after:?}");
    world
        .broker
        .writer()
        .write(&world.topic, &[registered("b", 0)])
        .await;
    assert_eq!(users(&welcome.await.expect("no panic").0), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_too_late_or_to_a_deleted_user() {
    let world = world(Broker::shared(), Database::create().await).await;
    let day = 86_400;
    let reset = |user: &str, age| {
        let payload = json!({"email": format!("{user}@example.org"), "resetTokenIdentifier": "t"});
        event(
            "UserPasswordResetRequested",
            user,
            &format!("reset-{user}"),
            age,
            payload,
        )
    };
    let records = [
        registered("old", 8 * day),
        reset("late", 3_601),
        reset("intime", 3_000),
        password_changed("unknown", "p-unknown"),
        registered("gone", 60),
    ];
    let running = projected(&world, &records).await;
    let rest = &running.rest;
    let leased = lease_some(rest, 9, 60).await;
    assert_eq!(users(&leased), ["intime", "gone"]);
    let deletion = |user: &str| event("UserDeleted", user, &format!("d-{user}"), 0, json!({}));
    let email = json!({"updatedFields": {"email": "u@example.org"}});
    let records = [
        deletion("gone"),
        deletion("old"),
        event("UserUpdated", "unknown", "u-unknown", 0, email),
    ];
    project_more(&world, &running, &records).await;
    assert_eq!(
        settle(rest, "ack", &leased[1]).await,
        (409, json!("NOTIFICATION_CANCELLED"))
    );
    let expected = [
        ("gone welcome", "cancelled"),
        ("intime password_reset", "leased"),
        ("late password_reset", "expired"),
        ("old welcome", "cancelled"),
        ("unknown password_changed", "pending"),
    ];
    let expected = expected.map(|(name, status)| (name.to_owned(), status.to_owned()));
    assert_eq!(statuses(rest).await, BTreeMap::from(expected));
    let gone = rest
        .get(&format!("{NOTIFICATIONS}/{}", id(&leased[1])))
        .await
        .json();
    assert_eq!((gone.get("recipient"), gone.get("data")), (None, None));
    assert_eq!(users(&lease_some(rest, 9, 60).await), ["unknown"]);
}

/// Leases and acknowledges all there is: the users, sorted.
/// Each worker must be able to receive what it holds: gRPC clients refuse messages of more than 4 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_holds_no_more_than_one_answer() {
    let mut world = world(Broker::shared(), Database::create().await).await;
    world.set("SIGHTLINE_MAX_VALUE_BYTES", "1048576");
    let large = |user: &str| {
        let payload = json!({
            "email": format!("{user}@example.org"), "status": "pending_verification", "username": user.repeat(900_000),
        });
        event("UserRegistered", user, &format!("r-{user}"), 60, payload)
    };
    // Two notifications each.
    let running = projected(&world, &["a", "b", "c"].map(large)).await;
    let mut all = BTreeSet::new();
    for _ in 0..2 {
        let body = json!({"max": 10, "leaseSeconds": 60});
        let answer = running.rest.post(LEASE, &body).await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.len() <= 3 * 1024 * 1024,
            "{}",
            answer.body.len()
        );
        let leased = answer.json()["notifications"].clone();
        let leased = leased.as_array().expect("a list");
        assert_eq!(leased.len(), 3);
        for notification in leased {
            assert_eq!(notification["attempts"], 1);
            assert!(all.insert(id(notification).to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_notification_is_not_held_longer() {
    let world = world(Broker::shared(), Database::create().await).await;
    let running = projected(&world, &[registered("a", 60)]).await;
    let leased = lease_some(&running.rest, 1, 60).await;
    let extended = settle(&running.rest, "extend", &leased[0]).await;
    assert_eq!(extended, (200, Value::Null));
    let ended = "UPDATE notification.deliveries SET expires_at = now() - interval '1 s', due_at = now() - interval '1 s'";
    execute(&world.database.url, ended).await;
    let extended = settle(&running.rest, "extend", &leased[0]).await;
    assert_eq!(extended, (409, json!("LEASE_LOST")));
}

/// What a user's notifications are depends on the user's own partition only.
#[tokio::test(flavor = "multi_thread")]
async fn notifications_of_one_user_reflect_the_partition_of_the_user() {
    let mut world = World::new(Broker::shared(), Database::create().await, 2).await;
    world.set("SIGHTLINE_DOMAINS", "notification");
    let running = world.serve().await;
    let rest = &running.rest;
    // Rows that are written before the view has all partitions depend on all.
    caught_up(rest, &Ends::from([(0, 0), (1, 0)])).await;
    let in_other = Record {
        partition: 1,
        ..registered("b", 60)
    };
    project_more(&world, &running, &[registered("a", 60), in_other]).await;
    let list = rest.get(NOTIFICATIONS).await;
    let first = list.json()["notifications"][0].clone();
    let one = format!("{NOTIFICATIONS}/{}", id(&first));
    for (path, partitions) in [
        (NOTIFICATIONS, 2),
        (&format!("{NOTIFICATIONS}?userId=a"), 1),
        (&format!("{NOTIFICATIONS}?userId=unknown"), 2),
        (&one, 1),
    ] {
        let answer = rest.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let token = ConsistencyToken::parse(answer.token()).expect("a token");
        assert_eq!(token.iter().count(), partitions, "{path}");
    }
    let all = rest.get("/v1/users/a").await.json();
    let token = all["domains"]["notification"]["token"].as_str();
    let token = ConsistencyToken::parse(token.expect("a token")).expect("a token");
    assert_eq!(token.iter().count(), 1);
}

async fn send_all(rest: &Rest) -> BTreeSet<String> {
    let leased = lease_some(rest, 100, 60).await;
    let sent = users(&leased).into_iter().map(str::to_owned).collect();
    if !leased.is_empty() {
        let items: Vec<Value> = leased.iter().map(held).collect();
        let outcomes = operate(
            rest,
            &format!("{NOTIFICATIONS}:ack"),
            json!({"items": items}),
        )
        .await;
        for outcome in outcomes["outcomes"].as_array().expect("a list") {
            assert_eq!(outcome["outcome"], "ok");
        }
    }
    sent
}

fn set<const N: usize>(users: [&str; N]) -> BTreeSet<String> {
    users.map(str::to_owned).into()
}

async fn execute(database: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(database).await.expect("it answers");
    sqlx::raw_sql(statement)
        .execute(&mut connection)
        .await
        .expect("done");
}

async fn switch(rest: &Rest, verb: &str) {
    wait_until(SOON, verb, async || {
        let answer = rest
            .post(&format!("/v1/projections/notification/{verb}"), &json!({}))
            .await;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.text()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rebuild_switch_or_rollback_sends_anything_again() {
    let Some(broker) = Broker::real() else { return };
    let world = world(broker, Database::create().await).await;
    let records = [
        registered("sent", 60),
        registered("open", 50),
        registered("missed", 40),
        registered("extra", 30),
        password_changed("nobody", "p-nobody"),
    ];
    let running = projected(&world, &records).await;
    let rest = &running.rest;
    let first = lease_some(rest, 1, 60).await;
    assert_eq!(users(&first), ["sent"]);
    assert_eq!(settle(rest, "ack", &first[0]).await.0, 200);
    // As if the code of the first version made no notification of one event, and that of the second none of another.
    execute(
        &world.database.url,
        "DELETE FROM notification.deliveries WHERE notification_id IN
             (SELECT notification_id FROM notification_live.notifications WHERE user_id = 'missed');
         DELETE FROM notification_live.notifications WHERE user_id = 'missed'",
    )
    .await;
    project(rest, "notification", "rebuild", json!({})).await;
    built(rest, "notification", 5).await;
    execute(
        &world.database.url,
        "DELETE FROM notification_v2.notifications WHERE user_id = 'extra'",
    )
    .await;
    switch(rest, "switch").await;
    // What the former version lacked at its position is not sent any more; what the new one lacks is held.
    let expected = [
        ("missed welcome", "expired"),
        ("nobody password_changed", "no_recipient"),
        ("open welcome", "pending"),
        ("sent welcome", "sent"),
    ];
    let expected = expected.map(|(name, status)| (name.to_owned(), status.to_owned()));
    assert_eq!(statuses(rest).await, BTreeMap::from(expected));
    assert_eq!(send_all(rest).await, set(["open"]));
    // New events make work once, whichever versions read them.
    let email = json!({"updatedFields": {"email": "n@example.org"}});
    let more = [
        registered("new", 0),
        event("UserUpdated", "nobody", "u-nobody", 0, email),
    ];
    project_more(&world, &running, &more).await;
    assert_eq!(send_all(rest).await, set(["new", "nobody"]));
    switch(rest, "rollback").await;
    assert_eq!(send_all(rest).await, set(["extra"]));
    project_more(&world, &running, &[registered("last", 0)]).await;
    switch(rest, "rollback").await;
    assert_eq!(send_all(rest).await, set(["last"]));
    project(rest, "notification", "drop", json!({})).await;
    assert_eq!(send_all(rest).await, set([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_dead_letters_are_sent_once() {
    let Some(broker) = Broker::real() else { return };
    let world = world(broker, Database::create().await).await;
    let bad = event("UserEmailVerified", "a", "bad", 0, json!({"email": 12}));
    let running = projected(&world, &[bad, registered("a", 5), registered("b", 5)]).await;
    let rest = &running.rest;
    assert_eq!(send_all(rest).await, set(["b"]));
    project(rest, "notification", "rebuild", json!({})).await;
    built(rest, "notification", 3).await;
    let first = &dead_letters(rest, &[("domain", Some("notification"))]).await[0];
    let letter = first["id"].as_str().expect("an id");
    let discarded = operate(
        rest,
        &format!("/v1/dead-letters/{letter}/discard"),
        json!({"reason": "test"}),
    )
    .await;
    assert!(discarded["outcomes"].is_array());
    retry_all(rest, "notification").await;
    let waiting = json!({"max": 9, "leaseSeconds": 60, "waitSeconds": 20});
    let leased = lease(rest, waiting).await;
    assert_eq!(users(&leased), ["a"]);
    assert_eq!(settle(rest, "ack", &leased[0]).await.0, 200);
    switch(rest, "switch").await;
    switch(rest, "rollback").await;
    assert_eq!(send_all(rest).await, set([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_nothing_is_leased_until_an_operator_resumes() {
    for is_stopped in [false, true] {
        restored(is_stopped).await;
    }
}

async fn restored(is_stopped: bool) {
    let Some(broker) = Broker::real() else { return };
    let mut database = Database::create().await;
    let world = world(broker, Database::of(&database)).await;
    let mut running = projected(&world, &[registered("a", 9), registered("b", 8)]).await;
    running.app.process.kill();
    database.back_up().await;
    running = world.serve().await;
    project_more(&world, &running, &[registered("c", 7), registered("d", 6)]).await;
    assert_eq!(send_all(&running.rest).await, set(["a", "b", "c", "d"]));
    let ends = Ends::from([(0, 4)]);
    let group = world.group("notification");
    wait_until(SOON, "the offsets are committed", async || {
        let committed = world.broker.committed(&group, &world.topic, &ends);
        if committed == ends {
            Ok(())
        } else {
            Err(format!("{committed:?}"))
        }
    })
    .await;
    if is_stopped {
        running.app.process.kill();
    }
    database.restore().await;
    if is_stopped {
        running = world.serve().await;
    }
    // From the first request on, even before a partition was claimed again.
    let body = json!({"max": 9, "leaseSeconds": 60});
    wait_until(SOON, "the gateway answers again", async || {
        let answer = running.rest.post(LEASE, &body).await;
        match (answer.status, &answer.json()["reason"]) {
            (503, _) => Err(answer.text()),
            (409, reason) if reason == "LEASING_HELD" => Ok(()),
            _ => panic!("{}", answer.text()),
        }
    })
    .await;
    caught_up(&running.rest, &ends).await;
    assert_eq!(
        refused(&running.rest, LEASE, body).await,
        (409, "LEASING_HELD".to_owned())
    );
    // What happened since is not in doubt.
    project_more(&world, &running, &[registered("e", 5)]).await;
    project(&running.rest, "notification", "resume", json!({})).await;
    assert_eq!(send_all(&running.rest).await, set(["e"]));
    let statuses = statuses(&running.rest).await;
    let expired = statuses
        .values()
        .filter(|status| *status == "expired")
        .count();
    assert_eq!(expired, 4, "{statuses:?}");
}
