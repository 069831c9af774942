//! Chosen consistency, as callers use it: they read their own writes, carry tokens, and learn at once why an answer can't be as
//! they demand.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::{Value, json};
use sightline_testing::app::{LONG, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::{Answer, Rest, customer_path, escape};
use sightline_testing::database::Database;
use sightline_testing::operations::{dead_letters, operate, project, retry_all};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

const DEMAND: &str = "sightline-consistency";
const TOKEN: &str = "sightline-consistency-token";
const WAIT: &str = "sightline-wait";

fn event(user: &str, id: &str, event_type: &str, mut payload: Value) -> Record {
    payload["userId"] = json!(user);
    let now = chrono::Utc::now();
    let body = json!({
        "eventId": id, "eventType": event_type, "eventTimestamp": now.to_rfc3339(), "payload": payload,
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: now.timestamp_millis(),
    }
}

fn registered(user: &str, email: &str) -> Record {
    let payload = json!({"email": email, "status": "active"});
    event(user, &format!("r-{user}"), "UserRegistered", payload)
}

/// An email that no fold accepts.
fn bad(user: &str, id: &str) -> Record {
    event(user, id, "UserRegistered", json!({"email": 5}))
}

/// Writes a record, and returns the token of its acknowledgement.
async fn produce(world: &World, record: Record) -> String {
    let partition = record.partition;
    let offsets = world.broker.writer().write(&world.topic, &[record]).await;
    format!("{}/{partition}@{}", world.topic, offsets[0])
}

async fn get(rest: &Rest, path: &str, headers: &[(&str, &str)]) -> Answer {
    rest.send(Method::GET, path, headers, &[]).await
}

/// Waits until a request waits for what it demands. One that demands the same and comes later has run out of time then.
async fn is_waiting(running: &Running, path: &str, demand: &[(&str, &str)]) {
    wait_until(SOON, "a request is in flight", async || {
        let in_flight = running.metric("sightline_requests_in_flight", "http").await;
        match in_flight {
            Some(1.0..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let headers = [demand, &[(WAIT, "0.2")]].concat();
    let answer = get(&running.rest, path, &headers).await;
    assert_eq!(refusal(&answer), (504, "DEADLINE_EXCEEDED".to_owned()));
}

/// Reads what is not older than a token, and waits up to ten seconds for it.
async fn at_least(rest: &Rest, path: &str, token: &str) -> Answer {
    let headers = [(DEMAND, "at-least"), (TOKEN, token), (WAIT, "10")];
    get(rest, path, &headers).await
}

fn refusal(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    let reason = body["reason"].as_str().unwrap_or_default();
    (answer.status, reason.to_owned())
}

/// A gateway without projection, beside the process that projects.
async fn gateway(world: &mut World) -> Running {
    world.set("SIGHTLINE_ROLE", "gateway");
    let gateway = world.serve().await;
    world.set("SIGHTLINE_ROLE", "all");
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_reads_its_own_write_from_any_instance() {
    let mut world = World::shared(3).await;
    let projector = world.serve().await;
    let gateway = gateway(&mut world).await;
    let writer = world.broker.prompt_writer();
    for n in 0..40 {
        let (user, email) = (format!("u-{n}"), format!("{n}@example.org"));
        let record = Record {
            partition: n % 3,
            ..registered(&user, &email)
        };
        let offset = writer.write(&world.topic, &[record]).await[0];
        let token = format!("{}/{}@{offset}", world.topic, n % 3);
        let rest = if n % 2 == 0 {
            &gateway.rest
        } else {
            &projector.rest
        };
        let answer = at_least(rest, &customer_path(&user), &token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["email"], email);
        // Its own token is carried to another domain, on the other surface.
        let own = answer.token().to_owned();
        let addresses = format!("/v1/fulfillment/users/{user}/addresses");
        let other = at_least(&gateway.rest, &addresses, &own).await;
        assert_eq!(other.status, 200, "{}", other.text());
        // Of a user whom nobody knows, an answer waits for the record as well.
        let nobody = at_least(rest, &customer_path("nobody"), &token).await;
        assert_eq!(nobody.status, 404);
    }
    // All records at once, in one list.
    let several = format!("{0}/0@12, {0}/1@12", world.topic);
    let feed = "/v1/order/address-changes";
    let answer = at_least(&gateway.rest, feed, &several).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("sightline-parked-keys"), "0");
    // The end of the log at the time of the call.
    for n in 40..50 {
        let (user, email) = (format!("u-{n}"), format!("{n}@example.org"));
        produce(&world, registered(&user, &email)).await;
        let headers = [(DEMAND, "latest"), (WAIT, "10")];
        let answer = get(&gateway.rest, &customer_path(&user), &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut etag = headers.to_vec();
        let known = answer.header("etag").to_owned();
        etag.push(("if-none-match", &known));
        let unchanged = get(&gateway.rest, &customer_path(&user), &etag).await;
        assert_eq!(unchanged.status, 304);
        assert!(!unchanged.token().is_empty());
    }
    for n in 50..60 {
        let user = format!("u-{n}");
        produce(&world, registered(&user, "x@example.org")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Younger than the record: it has to be there.
        let headers = [(DEMAND, "max-lag=0.01"), (WAIT, "10")];
        let answer = get(&gateway.rest, &customer_path(&user), &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let relaxed = [(DEMAND, "max-lag=3600"), (WAIT, "0")];
    let answer = get(&gateway.rest, &customer_path("u-1"), &relaxed).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What was revoked is gone by the token of the record that revokes it, also where that is in another
/// partition than what gave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_was_revoked_is_gone_from_access_at_once() {
    let mut world = World::shared(3).await;
    world.set("SIGHTLINE_DOMAINS", "audit");
    let projector = world.serve().await;
    let gateway = gateway(&mut world).await;
    let (user, role, permission) = ("u", "r", "p");
    let of_role = json!({"roleId": role, "roleName": "editor", "permissionId": permission, "permissionName": "WRITE",
        "assignedBy": "root", "removedBy": "root"});
    let path = format!("/v1/audit/users/{user}/access");
    let writer = world.broker.prompt_writer();
    let assigned = event(user, "assigned", "UserRoleAssigned", of_role.clone());
    // In a partition of its own, so no token of the others' waits for it.
    let token = produce(&world, assigned).await;
    assert_eq!(at_least(&gateway.rest, &path, &token).await.status, 200);
    for n in 0..20 {
        for (happened, partition, kind) in [
            ("given", 1, "PermissionAssignedToRole"),
            ("revoked", 1 + n % 2, "PermissionRemovedFromRole"),
        ] {
            let id = format!("{happened}-{n}");
            let record = Record {
                partition,
                ..event(role, &id, kind, of_role.clone())
            };
            let offset = writer.write(&world.topic, &[record]).await[0];
            let token = format!("{}/{partition}@{offset}", world.topic);
            for rest in [&gateway.rest, &projector.rest] {
                let answer = at_least(rest, &path, &token).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let permissions = answer.json()["permissions"].as_array().map(Vec::len);
                let expected = usize::from(happened == "given");
                assert_eq!(permissions, Some(expected), "{n}: {}", answer.text());
            }
        }
    }
}

/// What is about one user, but made from events under other keys, too, says how many keys are parked.
#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_show_where_an_answer_depends_on_others() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "audit,fulfillment");
    let running = world.serve().await;
    let given = json!({"roleId": "r", "roleName": "editor", "assignedBy": "root"});
    produce(&world, event("u", "given", "UserRoleAssigned", given)).await;
    produce(
        &world,
        event("r", "bad", "RoleDeleted", json!({"roleId": 5})),
    )
    .await;
    let address = json!({"addressId": 5});
    let last = produce(
        &world,
        event("u", "bad-address", "UserAddressAdded", address),
    )
    .await;
    let list = "/v1/audit/entries";
    assert_eq!(at_least(&running.rest, list, &last).await.status, 200);
    // Nothing comes there.
    let token = format!("{}/0@1000", world.topic);
    for path in [
        "/v1/audit/users/u/access",
        "/v1/audit/entries?userId=u",
        "/v1/fulfillment/addresses/a",
    ] {
        for (level, on_timeout) in [("latest", ""), ("at-least", "serve-stale")] {
            let demand = [
                ("sightline-consistency", level),
                ("sightline-consistency-token", &*token),
                ("sightline-wait", if level == "latest" { "10" } else { "0" }),
                ("sightline-on-timeout", on_timeout),
            ];
            let demand: Vec<(&str, &str)> = demand
                .into_iter()
                .filter(|(name, value)| {
                    !value.is_empty()
                        && (level == "at-least" || *name != "sightline-consistency-token")
                })
                .collect();
            let answer = get(&running.rest, path, &demand).await;
            let expected = if path.contains("addresses") { 404 } else { 200 };
            let found = (answer.status, answer.header("sightline-parked-keys"));
            assert_eq!(found, (expected, "1"), "{path}, {level}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_waited_for_by_its_id() {
    let mut world = World::shared(2).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    let running = world.serve().await;
    for n in 0..5 {
        let user = format!("u-{n}");
        let read = customer_path(&user);
        let token = format!("event:r-{user}");
        let waiting = at_least(&running.rest, &read, &token);
        let (answer, _) = tokio::join!(waiting, produce(&world, registered(&user, "a@b.org")));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // An event that the domain skips is reached when its record is.
    let login = json!({"loginMethod": "password", "ipAddress": "192.0.2.1"});
    produce(&world, event("u-1", "login 1,2", "UserLoggedIn", login)).await;
    let token = format!("event:{}", escape("login 1,2"));
    let answer = at_least(&running.rest, &customer_path("u-1"), &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let headers = [(DEMAND, "at-least"), (TOKEN, "event:none"), (WAIT, "0.1")];
    let answer = get(&running.rest, &customer_path("u-1"), &headers).await;
    assert_eq!(refusal(&answer), (504, "DEADLINE_EXCEEDED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_in_time_is_refused_or_answered_as_stale() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let token = produce(&world, registered("u", "a@b.org")).await;
    let path = customer_path("u");
    assert_eq!(at_least(&running.rest, &path, &token).await.status, 200);
    let future = format!("{}/0@99", world.topic);
    let demand = [(DEMAND, "at-least"), (TOKEN, future.as_str())];
    for (wait, least) in [("0", 0), ("0.3", 300)] {
        let began = Instant::now();
        let headers = [&demand[..], &[(WAIT, wait)]].concat();
        let answer = get(&running.rest, &path, &headers).await;
        assert_eq!(refusal(&answer), (504, "DEADLINE_EXCEEDED".to_owned()));
        let took = began.elapsed().as_millis();
        assert!((least..5_000).contains(&took), "{took} ms");
        // The token reached, and when to try again.
        assert!(!answer.token().is_empty());
        assert!(!answer.header("retry-after").is_empty());
        let stale = [&headers[..], &[("sightline-on-timeout", "serve-stale")]].concat();
        let answer = get(&running.rest, &path, &stale).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("sightline-stale"), "DEADLINE_EXCEEDED");
        assert_eq!(answer.json()["email"], "a@b.org");
    }
    // The caller's own deadline comes first, and is kept.
    let began = Instant::now();
    let headers = [&demand[..], &[(WAIT, "20"), ("request-timeout", "0.5")]].concat();
    let answer = get(&running.rest, &path, &headers).await;
    assert_eq!(answer.status, 504);
    assert!(!answer.token().is_empty(), "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(5));

    let foreign = "AQt1c2VyLmV2ZW50cwF_h7Fx0Fk2lwED1fgC";
    let other_topic = format!("{}x/0@1", world.topic);
    let no_partition = format!("{}/7@1", world.topic);
    for token in ["%", "AQAA", foreign, &other_topic, &no_partition, "event:"] {
        let answer = at_least(&running.rest, &path, token).await;
        assert_eq!(
            refusal(&answer),
            (400, "INVALID_ARGUMENT".to_owned()),
            "{token}"
        );
        let field = &answer.json()["fields"][0]["field"];
        assert_eq!(field, "Sightline-Consistency-Token", "{token}");
    }

    // What an operator has to end is not waited for.
    project(&running.rest, "order", "pause", json!({"reason": "moving"})).await;
    let began = Instant::now();
    let headers = [&demand[..], &[(WAIT, "20")]].concat();
    let answer = get(&running.rest, &path, &headers).await;
    assert_eq!(refusal(&answer), (409, "PROJECTION_STOPPED".to_owned()));
    assert!(answer.text().contains("moving"), "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(5));
    // Nor does it look as if waiting would help, to a caller that does not wait.
    let answer = get(
        &running.rest,
        &path,
        &[&demand[..], &[(WAIT, "0")]].concat(),
    )
    .await;
    assert_eq!(refusal(&answer), (409, "PROJECTION_STOPPED".to_owned()));
    let stale = [&headers[..], &[("sightline-on-timeout", "serve-stale")]].concat();
    let answer = get(&running.rest, &path, &stale).await;
    assert_eq!(answer.header("sightline-stale"), "PROJECTION_STOPPED");
    // One that waits already learns of the pause.
    project(&running.rest, "order", "resume", json!({})).await;
    let long = [&demand[..], &[(WAIT, "25")]].concat();
    let waiting = get(&running.rest, &path, &long);
    let pausing = async {
        is_waiting(&running, &path, &demand).await;
        project(&running.rest, "order", "pause", json!({"reason": "moving"})).await;
    };
    let (answer, ()) = tokio::join!(waiting, pausing);
    assert_eq!(refusal(&answer), (409, "PROJECTION_STOPPED".to_owned()));
    // What is reached already is answered, paused or not.
    assert_eq!(at_least(&running.rest, &path, &token).await.status, 200);
    // And once it is resumed, those who waited meanwhile get what they demanded.
    project(&running.rest, "order", "resume", json!({})).await;
    let next = format!("{}/0@1", world.topic);
    let waiting = at_least(&running.rest, &path, &next);
    let change = registered("v", "v@b.org");
    let (answer, _) = tokio::join!(waiting, produce(&world, change));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A read of one user waits for the user's own partition only, also where it demands an age.
#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_another_partition_is_not_of_the_answer() {
    let world = World::shared(2).await;
    let running = world.serve().await;
    let rest = &running.rest;
    // Rows that are written before the view has all partitions depend on all.
    caught_up(rest, &Ends::from([(0, 0), (1, 0)])).await;
    let own = produce(&world, registered("own", "a@b.org")).await;
    let in_other = |user: &str| Record {
        partition: 1,
        ..registered(user, "o@b.org")
    };
    let other = produce(&world, in_other("other")).await;
    for (user, token) in [("own", &own), ("other", &other)] {
        let answer = at_least(rest, &customer_path(user), token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // From now on the other partition has a record that is not applied.
    project(rest, "order", "pause", json!({"reason": "a test"})).await;
    produce(&world, in_other("later")).await;
    // So young that no reading of the lag proves it: the ends are read for it.
    for demand in ["max-lag=0.001", "latest"] {
        let headers = [(DEMAND, demand), (WAIT, "20")];
        let answer = get(rest, &customer_path("own"), &headers).await;
        assert_eq!(answer.status, 200, "{demand}: {}", answer.text());
        for path in ["/v1/order/address-changes", &customer_path("other")] {
            let answer = get(rest, path, &headers).await;
            let expected = (409, "PROJECTION_STOPPED".to_owned());
            assert_eq!(refusal(&answer), expected, "{demand}: {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_not_met_by_a_dead_letter() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let before = produce(&world, registered("good", "a@b.org")).await;
    let dead = produce(&world, bad("parked", "bad-1")).await;
    let behind = produce(&world, registered("parked", "p@b.org")).await;
    let after = produce(&world, registered("other", "o@b.org")).await;
    assert_eq!(
        at_least(rest, &customer_path("good"), &before).await.status,
        200
    );

    // The record itself, and one that waits behind it, whoever is asked about.
    for (path, token) in [
        (customer_path("other"), &dead),
        (customer_path("other"), &behind),
        ("/v1/order/address-changes".to_owned(), &dead),
    ] {
        let answer = at_least(rest, &path, token).await;
        assert_eq!(
            refusal(&answer),
            (409, "DEAD_LETTERED".to_owned()),
            "{path}"
        );
        let letters = dead_letters(rest, &[("domain", Some("order"))]).await;
        let named = |letter: &Value| {
            answer
                .text()
                .contains(letter["id"].as_str().expect("an id"))
        };
        assert!(letters.iter().any(named), "{}", answer.text());
    }
    let answer = at_least(rest, "/v1/order/address-changes", "event:bad-1").await;
    assert_eq!(refusal(&answer), (409, "DEAD_LETTERED".to_owned()));
    // The user whose key is parked: no answer is complete.
    for headers in [
        vec![(DEMAND, "latest")],
        vec![(DEMAND, "max-lag=60")],
        vec![(DEMAND, "at-least"), (TOKEN, &after)],
    ] {
        let answer = get(rest, &customer_path("parked"), &headers).await;
        assert_eq!(
            refusal(&answer),
            (409, "KEY_PARKED".to_owned()),
            "{headers:?}"
        );
    }
    let answer = rest.get(&customer_path("parked")).await;
    assert_eq!(answer.header("sightline-incomplete"), "dead-letters");
    // Others are answered, and lists say how many keys are parked.
    assert_eq!(
        at_least(rest, &customer_path("other"), &after).await.status,
        200
    );
    let list = at_least(rest, "/v1/order/address-changes", &after).await;
    assert_eq!(
        (list.status, list.header("sightline-parked-keys")),
        (200, "1")
    );

    // Discarded, it stays one; what waited behind it is applied.
    let letters = dead_letters(rest, &[("domain", Some("order"))]).await;
    let first = letters.iter().find(|letter| letter["eventId"] == "bad-1");
    let id = first.expect("the dead letter")["id"]
        .as_str()
        .expect("an id");
    let discard = format!("/v1/dead-letters/{id}/discard");
    operate(rest, &discard, json!({"reason": "a test"})).await;
    retry_all(rest, "order").await;
    let answer = at_least(rest, &customer_path("parked"), &behind).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["email"], "p@b.org");
    let answer = at_least(rest, &customer_path("parked"), &dead).await;
    assert_eq!(refusal(&answer), (409, "DEAD_LETTERED".to_owned()));
}

/// Also where what is demanded has not come yet: waiting for it would not make the answer complete.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_reported_without_a_wait() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let dead = produce(&world, bad("parked", "bad-1")).await;
    let after = produce(&world, registered("other", "o@b.org")).await;
    let other = at_least(rest, &customer_path("other"), &after).await;
    assert_eq!(other.status, 200, "{}", other.text());
    let letters = dead_letters(rest, &[("domain", Some("order"))]).await;
    let id = letters[0]["id"].as_str().expect("an id");
    let future = format!("{}/0@999999999", world.topic);
    let both = format!("{future}, event:unseen");
    let one_is_dead = format!("{future}, {dead}");
    for (user, token, reason) in [
        ("parked", "event:unseen", "KEY_PARKED"),
        ("parked", future.as_str(), "KEY_PARKED"),
        ("parked", both.as_str(), "KEY_PARKED"),
        ("other", one_is_dead.as_str(), "DEAD_LETTERED"),
        ("other", "event:unseen, event:bad-1", "DEAD_LETTERED"),
    ] {
        let headers = [(DEMAND, "at-least"), (TOKEN, token), (WAIT, "20")];
        let began = Instant::now();
        let answer = get(rest, &customer_path(user), &headers).await;
        let took = began.elapsed();
        let expected = (409, reason.to_owned());
        assert_eq!(refusal(&answer), expected, "{token}");
        assert!(answer.text().contains(id), "{}", answer.text());
        assert!(took < Duration::from_secs(5), "{token}: {took:?}");
    }
    // Also one that becomes a dead letter while it is waited for, with another one.
    let next = format!("{}/0@2, {future}", world.topic);
    let headers = [(DEMAND, "at-least"), (TOKEN, next.as_str()), (WAIT, "25")];
    let path = customer_path("other");
    let began = Instant::now();
    let producing = async {
        is_waiting(&running, &path, &headers[..2]).await;
        produce(&world, bad("third", "bad-2")).await
    };
    let (answer, produced) = tokio::join!(get(rest, &path, &headers), producing);
    assert_eq!(produced, format!("{}/0@2", world.topic));
    assert_eq!(refusal(&answer), (409, "DEAD_LETTERED".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(15));
    // Others are waited for.
    let headers = [
        (DEMAND, "at-least"),
        (TOKEN, future.as_str()),
        (WAIT, "0.3"),
    ];
    let answer = get(rest, &customer_path("other"), &headers).await;
    assert_eq!(refusal(&answer), (504, "DEADLINE_EXCEEDED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_answers_what_waits() {
    let world = World::shared(1).await;
    let mut running = world.serve().await;
    let rest = running.rest.clone();
    caught_up(&rest, &Ends::from([(0, 0)])).await;
    let future = format!("{}/0@999999999", world.topic);
    let headers = [(DEMAND, "at-least"), (TOKEN, &*future), (WAIT, "30")];
    let path = customer_path("u");
    let began = Instant::now();
    let stopping = async {
        is_waiting(&running, &path, &headers[..2]).await;
        running.app.process.signal("TERM");
    };
    let (answer, ()) = tokio::join!(get(&rest, &path, &headers), stopping);
    assert_eq!(refusal(&answer), (504, "DEADLINE_EXCEEDED".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(running.app.process.wait(SOON), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_log_is_unknown_without_kafka() {
    let Some(broker) = Broker::private() else {
        return;
    };
    let world = World::new(broker, Database::create().await, 1).await;
    let running = world.serve().await;
    let token = produce(&world, registered("u", "a@b.org")).await;
    let path = customer_path("u");
    assert_eq!(at_least(&running.rest, &path, &token).await.status, 200);
    world.broker.kill();
    let began = Instant::now();
    let answer = get(&running.rest, &path, &[(DEMAND, "latest"), (WAIT, "20")]).await;
    assert_eq!(refusal(&answer), (503, "KAFKA_UNAVAILABLE".to_owned()));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let headers = [(DEMAND, "latest"), ("sightline-on-timeout", "serve-stale")];
    let answer = get(&running.rest, &path, &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("sightline-stale"), "KAFKA_UNAVAILABLE");
    // What needs no Kafka is answered, also if it is young enough by what is known.
    assert_eq!(at_least(&running.rest, &path, &token).await.status, 200);
    let answer = get(&running.rest, &path, &[(DEMAND, "max-lag=3600")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait_until(SOON, "what is known is too old", async || {
        let answer = get(&running.rest, &path, &[(DEMAND, "max-lag=3")]).await;
        match answer.status {
            503 => Ok(()),
            _ => Err(answer.text()),
        }
    })
    .await;
    world.broker.start();
    wait_until(SOON, "the end is known again", async || {
        let answer = get(&running.rest, &path, &[(DEMAND, "latest")]).await;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.text()),
        }
    })
    .await;
}

/// The connection on which commits of other processes are heard of is lost again and again.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_hear_of_commits_although_notices_are_lost() {
    let mut world = World::shared(1).await;
    let _projector = world.serve().await;
    let gateway = gateway(&mut world).await;
    let mut database = PgConnection::connect(&world.database.url)
        .await
        .expect("it answers");
    for n in 0..6 {
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE '%sightline_commits%' AND pid <> pg_backend_pid()",
        )
        .execute(&mut database)
        .await
        .expect("the superuser may do this");
        let user = format!("u-{n}");
        let token = produce(&world, registered(&user, "a@b.org")).await;
        let answer = at_least(&gateway.rest, &customer_path(&user), &token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// What is produced is read from a gateway, while processes that project are killed and the view is switched.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_stale_through_kills_and_switches() {
    let mut world = World::shared(4).await;
    let mut projectors = vec![world.serve().await, world.serve().await];
    let gateway = gateway(&mut world).await;
    let is_over = AtomicBool::new(false);
    let (world, gateway, is_over) = (&world, &gateway, &is_over);
    let write = async |line: usize| {
        let writer = world.broker.prompt_writer();
        let (mut read, mut late) = (0, 0);
        while !is_over.load(Ordering::Relaxed) {
            let user = format!("{line}-{}", read + late);
            let record = Record {
                partition: line as i32,
                ..registered(&user, "a@b.org")
            };
            let offset = writer.write(&world.topic, &[record]).await[0];
            let token = format!("{}/{line}@{offset}", world.topic);
            let answer = at_least(&gateway.rest, &customer_path(&user), &token).await;
            match answer.status {
                200 => read += 1,
                // Until Kafka gives the partition to another process.
                504 => late += 1,
                _ => panic!("{}", answer.text()),
            }
        }
        (read, late)
    };
    let trouble = async {
        for _ in 0..2 {
            let mut killed = projectors.remove(0);
            killed.app.process.kill();
            projectors.push(world.serve().await);
        }
        let rest = &projectors[0].rest;
        project(rest, "order", "rebuild", json!({})).await;
        wait_until(LONG, "a switch", async || {
            let answer = rest.post("/v1/projections/order/switch", &json!({})).await;
            match answer.status {
                200 => Ok(()),
                _ => Err(answer.text()),
            }
        })
        .await;
        let mut before = projectors.remove(0);
        before.app.process.signal("TERM");
        before.app.process.wait(SOON);
        is_over.store(true, Ordering::Relaxed);
    };
    let (first, second, third, fourth, ()) =
        tokio::join!(write(0), write(1), write(2), write(3), trouble);
    for (read, late) in [first, second, third, fourth] {
        assert!(read > late, "{read} read, {late} late");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_an_added_partition_that_waits_is_refused() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let token = produce(&world, registered("u", "a@b.org")).await;
    let path = customer_path("u");
    assert_eq!(at_least(&running.rest, &path, &token).await.status, 200);
    world.broker.add_partitions(&world.topic, 2).await;
    let record = Record {
        partition: 1,
        ..registered("v", "v@b.org")
    };
    let token = wait_until(SOON, "the producer knows the partition", async || {
        let offsets = world
            .broker
            .writer()
            .try_write(&world.topic, std::slice::from_ref(&record))
            .await;
        offsets.map_err(|error| error.to_string())
    })
    .await;
    let token = format!("{}/1@{}", world.topic, token[0]);
    let refused = async |headers: &[(&str, &str)]| {
        wait_until(SOON, "the partition is known", async || {
            let answer = get(&running.rest, &customer_path("v"), headers).await;
            match refusal(&answer) {
                (409, reason) if reason == "PARTITION_WAITS" => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    };
    let answer = refused(&[(DEMAND, "at-least"), (TOKEN, &token), (WAIT, "20")]).await;
    assert!(!answer.header("retry-after").is_empty());
    refused(&[(DEMAND, "latest"), (WAIT, "20")]).await;
    // Another user's own partition goes on.
    let other = produce(&world, registered("w", "w@b.org")).await;
    assert_eq!(
        at_least(&running.rest, &customer_path("w"), &other)
            .await
            .status,
        200
    );
}

/// Every read of every domain keeps what is demanded: a position that never comes is never answered with 200.
#[tokio::test(flavor = "multi_thread")]
async fn no_read_forgets_what_is_demanded() {
    let mut world = World::shared(2).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    let running = world.serve().await;
    produce(&world, registered("u-1001", "a@b.org")).await;
    let ends = Ends::from([(0, 1), (1, 0)]);
    caught_up(&running.rest, &ends).await;
    let future = format!("{}/1@99", world.topic);
    let document = running.rest.get("/openapi.json").await.json();
    let mut walked = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let parameters = operation["parameters"].as_array().expect("parameters");
            let reference = json!({"$ref": "#/components/parameters/Consistency"});
            let is_read = parameters.contains(&reference);
            let (path, body) = filled(path, operation);
            let method: Method = method.to_uppercase().parse().expect("a method");
            let headers = [
                ("content-type", "application/json"),
                (DEMAND, "at-least"),
                (TOKEN, &future),
                (WAIT, "0"),
            ];
            if !is_read {
                if method == Method::GET {
                    let answer = get(&running.rest, &path, &headers).await;
                    assert_eq!(answer.status, 501, "{path}: {}", answer.text());
                }
                continue;
            }
            for level in [vec![], vec![("sightline-on-timeout", "serve-stale")]] {
                let demand = [&headers[..], &level].concat();
                let answer = running
                    .rest
                    .send(method.clone(), &path, &demand, &body)
                    .await;
                if level.is_empty() {
                    let expected = (504, "DEADLINE_EXCEEDED".to_owned());
                    assert_eq!(refusal(&answer), expected, "{method} {path}");
                } else {
                    assert!(
                        matches!(answer.status, 200 | 404),
                        "{method} {path}: {}",
                        answer.text()
                    );
                    assert_eq!(
                        answer.header("sightline-stale"),
                        "DEADLINE_EXCEEDED",
                        "{path}"
                    );
                }
            }
            for demand in ["latest", "max-lag=60"] {
                let demand = [
                    ("content-type", "application/json"),
                    (DEMAND, demand),
                    (WAIT, "10"),
                ];
                let answer = running
                    .rest
                    .send(method.clone(), &path, &demand, &body)
                    .await;
                assert!(
                    matches!(answer.status, 200 | 404),
                    "{method} {path}: {}",
                    answer.text()
                );
            }
            walked.insert(operation["operationId"].as_str().expect("an id").to_owned());
        }
    }
    assert!(walked.len() >= 23, "{walked:?}");

    let set =
        FileDescriptorSet::decode(sightline::proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut methods = 0;
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("sightline."))
    {
        for service in &file.service {
            for method in service
                .method
                .iter()
                .filter(|method| !method.server_streaming())
            {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let is_read = sightline::proto::method(&path).expect("a method").reads;
                let demand = [(DEMAND, "at-least"), (TOKEN, future.as_str()), (WAIT, "0")];
                if !is_read {
                    let (status, _) = running.raw_grpc.raw_grpc(&path, &demand, &[]).await;
                    assert_eq!(status, tonic::Code::Unimplemented as i32, "{path}");
                    continue;
                }
                let message = message(&running, &path).await;
                let (status, answer) = running.raw_grpc.raw_grpc(&path, &demand, &message).await;
                assert_eq!(status, tonic::Code::DeadlineExceeded as i32, "{path}");
                assert!(answer.headers.contains_key(TOKEN), "{path}: {answer:?}");
                let stale = [&demand[..], &[("sightline-on-timeout", "serve-stale")]].concat();
                let (_, answer) = running.raw_grpc.raw_grpc(&path, &stale, &message).await;
                let said = answer.trailers.get("sightline-stale");
                let said = said.or(answer.headers.get("sightline-stale"));
                assert!(said.is_some(), "{path}: {answer:?}");
                methods += 1;
            }
        }
    }
    assert!(methods >= 22, "{methods}");
}

/// A path with the examples of its parameters, and the example of its body.
fn filled(path: &str, operation: &Value) -> (String, Vec<u8>) {
    let mut path = path.to_owned();
    let mut query = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (Some(name), example) = (parameter["name"].as_str(), &parameter["example"]) else {
            continue;
        };
        let values: Vec<String> = match example {
            Value::Array(values) => values
                .iter()
                .filter_map(Value::as_str)
                .map(escape)
                .collect(),
            Value::String(value) => vec![escape(value)],
            _ => continue,
        };
        match parameter["in"].as_str() {
            Some("path") => path = path.replace(&format!("{{{name}}}"), &values[0]),
            _ => query.extend(values.iter().map(|value| format!("{name}={value}"))),
        }
    }
    // It takes one parameter of several.
    if path.ends_with("/segments") {
        query.push("countryCode=DE".to_owned());
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let body = &operation["requestBody"]["content"]["application/json"]["example"];
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    (path, body)
}

/// A message that a method accepts.
async fn message(running: &Running, path: &str) -> Vec<u8> {
    let text =
        |field: u8, text: &str| [&[field << 3 | 2, text.len() as u8][..], text.as_bytes()].concat();
    let user = text(1, "u-1001");
    let candidates = [
        user.clone(),
        Vec::new(),
        text(1, "0192f3a1-7c1a-7b2e-9d35-4f5a6b7c8d9e"),
        [user, vec![2 << 3, 1]].concat(),
        [text(1, "2026-10-01"), text(2, "2026-10-02")].concat(),
        text(3, "DE"),
    ];
    for candidate in candidates {
        let (status, _) = running.raw_grpc.raw_grpc(path, &[], &candidate).await;
        if status != tonic::Code::InvalidArgument as i32 {
            return candidate;
        }
    }
    panic!("no message for {path} is known");
}
