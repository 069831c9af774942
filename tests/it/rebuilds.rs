//! Rebuilds during live traffic and reads: versions are built, compared, switched to, rolled back and dropped.
//! And pauses of projection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde_json::{Value, json};
use sightline::proto::order::v1::ListAddressChangesRequest;
use sightline_testing::app::{DOMAINS, LONG, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::order::{FEED, cursors};
use sightline_testing::check::{
    Depth, Ends, assert_answers, assert_books, caught_up, folded, partitions,
};
use sightline_testing::client::{Rest, customer_path, with_query};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{HEALING_BYTES, MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::operations::{
    built, dead_letters, operate, project, projection, refused, retry_all, versions,
};
use sightline_testing::reference::Customers;
use sightline_testing::wait_until;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tonic_types::StatusExt;

use crate::feed::{assert_followed, follow};

const SHAPE: Shape = Shape {
    records: 6_000,
    partitions: 3,
    users: 200,
};

/// Switches as soon as the other version has caught up.
async fn switch(rest: &Rest, domain: &str, verb: &str, body: Value) -> Value {
    let path = format!("/v1/projections/{domain}/{verb}");
    wait_until(LONG, "the switch to the other version", async || {
        let answer = rest.post(&path, &body).await;
        match answer.status {
            200 => Ok(answer.json()),
            409 if answer.json()["reason"] == "NOT_CAUGHT_UP" => Err(answer.text()),
            _ => panic!("{path}: {}", answer.text()),
        }
    })
    .await
}

/// Reads a customer until `stop` is set. Every read must find it.
async fn keep_reading(rest: Rest, path: String, stop: Arc<AtomicBool>) -> u64 {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        reads += 1;
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_rebuilt_switched_and_rolled_back_during_traffic_and_reads() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 5, SHAPE);
    let (before, rest) = log.split_at(SHAPE.records / 3);
    let (during, after) = rest.split_at(SHAPE.records / 3);
    let folded_to = |parts: &[&[Record]]| folded(&parts.concat(), SHAPE.partitions);
    let world = World::new(broker, Database::create().await, SHAPE.partitions).await;
    let writer = world.broker.writer();
    let running = world.serve().await;
    let rest = &running.rest;

    writer.write(&world.topic, before).await;
    let (fold, ends) = folded_to(&[before]);
    caught_up(rest, &ends).await;
    let user = fold
        .view::<Customers>()
        .ids()
        .first()
        .expect("a user")
        .clone();
    let stop = Arc::new(AtomicBool::new(false));
    let path = customer_path(&user);
    let reader = tokio::spawn(keep_reading(rest.clone(), path, Arc::clone(&stop)));
    // Both versions have the same feed positions, so the switch does not affect readers of the feed.
    let follower = tokio::spawn(follow(vec![rest.clone()], 1, Arc::clone(&stop)));

    begin_rebuilds(rest).await;

    // Both versions project new records while the switch happens.
    writer.write(&world.topic, during).await;
    for domain in DOMAINS {
        let switched = switch(rest, domain, "switch", json!({})).await;
        assert_eq!(switched["versions"][0]["version"], 3);
        assert_eq!(switched["versions"][1]["state"], "retired");
        assert!(switched["versions"][1]["dropsAt"].is_string(), "{switched}");
    }
    let (fold, ends) = folded_to(&[before, during]);
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;

    // The former version is projected further, so that a rollback does not go back in time.
    writer.write(&world.topic, after).await;
    let (fold, ends) = folded_to(&[&log]);
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    for domain in DOMAINS {
        switch(rest, domain, "rollback", json!({})).await;
    }
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    stop.store(true, Ordering::Release);
    assert!(reader.await.expect("every read was answered") > 0);
    let followed = tokio::time::timeout(LONG, follower).await.expect("an end");
    assert_followed(&followed.expect("no panic"), &fold);

    rebuild_compare_and_drop(rest, ends.values().sum()).await;
    assert_answers(&running, &fold, Depth::Brief).await;
}

/// Begins a rebuild of every domain, after requests that must be refused and a rebuild that is cancelled.
async fn begin_rebuilds(rest: &Rest) {
    for domain in DOMAINS {
        let path = |verb: &str| format!("/v1/projections/{domain}/{verb}");
        for (verb, reason) in [
            ("cancel", "NO_REBUILD"),
            ("switch", "NO_REBUILD"),
            ("rollback", "NO_RETIRED_VERSION"),
            ("drop", "NO_RETIRED_VERSION"),
        ] {
            let answer = refused(rest, &path(verb), json!({})).await;
            assert_eq!(answer, (409, reason.to_owned()), "{verb}");
        }
        let begun = project(rest, domain, "rebuild", json!({})).await;
        assert_eq!(begun["versions"][1]["version"], 2, "{begun}");
        assert_eq!(begun["versions"][1]["state"], "building");
        let again = refused(rest, &path("rebuild"), json!({})).await;
        assert_eq!(again, (409, "REBUILD_RUNNING".to_owned()));
        // The new version has projected almost nothing yet.
        let early = refused(rest, &path("switch"), json!({})).await;
        assert_eq!(early, (409, "NOT_CAUGHT_UP".to_owned()));
        // A version number is never used again: cursors of the cancelled version would be valid in the new one.
        let cancelled = project(rest, domain, "cancel", json!({})).await;
        assert_eq!(cancelled["versions"].as_array().map(Vec::len), Some(1));
        let begun = project(rest, domain, "rebuild", json!({})).await;
        assert_eq!(begun["versions"][1]["version"], 3, "{begun}");
    }
}

/// At the same positions, both versions have the same rows.
async fn rebuild_compare_and_drop(rest: &Rest, all: i64) {
    for domain in DOMAINS {
        wait_until(SOON, "both versions have read everything", async || {
            let both = versions(rest, domain).await;
            let expected = [(1, "live".to_owned(), all), (3, "retired".to_owned(), all)];
            if both == expected {
                Ok(())
            } else {
                Err(format!("{both:?}"))
            }
        })
        .await;
        project(rest, domain, "rebuild", json!({})).await;
        built(rest, domain, all).await;
        switch(rest, domain, "switch", json!({"compare": true})).await;
        project(rest, domain, "drop", json!({})).await;
        project(rest, domain, "drop", json!({})).await;
        let left = versions(rest, domain).await;
        assert_eq!(left, [(4, "live".to_owned(), all)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_continues_after_its_instance_was_killed() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 25_000,
        ..SHAPE
    };
    let log = generate(seed() + 6, shape);
    let (fold, ends) = folded(&log, shape.partitions);
    let mut world = World::new(broker, Database::create().await, shape.partitions).await;
    world.broker.writer().write(&world.topic, &log).await;
    let observer = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    let rest = &observer.rest;
    let mut app = world.set("SIGHTLINE_ROLE", "projector").launch();
    caught_up(rest, &ends).await;
    let all: i64 = ends.values().sum();
    project(rest, "order", "rebuild", json!({})).await;
    let mut read = 0;
    for part in [all / 6, all / 3, all / 2] {
        read = wait_until(LONG, "further records are read", async || {
            let versions = versions(rest, "order").await;
            match versions.last() {
                Some((2, _, now)) if *now >= part => Ok(*now),
                _ => Err(format!("{versions:?}")),
            }
        })
        .await
        .max(read);
        app.process.kill();
        let (.., now) = versions(rest, "order").await.remove(1);
        assert!(now >= read, "{now} records read, after {read}");
        read = now;
        app = world.launch();
    }
    built(rest, "order", all).await;
    let versions = projection(rest, "order").await["versions"].clone();
    assert_eq!(versions[1]["progress"], 1.0, "{versions}");
    assert_eq!(versions[1]["etaSeconds"], 0.0, "{versions}");
    switch(rest, "order", "switch", json!({"compare": true})).await;
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&observer, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_compares_is_refused_if_the_versions_differ() {
    let shape = Shape {
        records: 600,
        partitions: 2,
        users: 30,
    };
    let log = generate(seed(), shape);
    let (fold, ends) = folded(&log, shape.partitions);
    let world = World::shared(shape.partitions).await;
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    caught_up(rest, &ends).await;
    project(rest, "order", "rebuild", json!({})).await;
    built(rest, "order", ends.values().sum()).await;
    // A difference, as a defect or a manual change may make it.
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("an answer");
    let changed =
        "UPDATE order_v2.users SET state = (state::jsonb || '{\"phoneNumber\": \"+1 999\"}')::text
                   WHERE user_key = (SELECT min(user_key::text)::uuid FROM order_v2.users)";
    sqlx::query(AssertSqlSafe(changed))
        .execute(&pool)
        .await
        .expect("rows");
    let path = "/v1/projections/order/switch";
    let answer = rest.post(path, &json!({"compare": true})).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["reason"], "VIEWS_DIFFER");
    let detail = answer["detail"].as_str().expect("text");
    assert!(detail.contains("differ in users."), "{detail}");
    assert_eq!(versions(rest, "order").await[0].0, 1);
    project(rest, "order", "cancel", json!({})).await;
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlasts_restarts_until_the_domain_is_resumed() {
    let shape = Shape {
        records: 900,
        partitions: 2,
        users: 40,
    };
    let log = generate(seed() + 3, shape);
    let (some, more) = log.split_at(500);
    let (_, first) = folded(some, shape.partitions);
    let (fold, ends) = folded(&log, shape.partitions);
    let world = World::shared(shape.partitions).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, some).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &first).await;
    let reason = json!({"reason": "moving the database"});
    project(&running.rest, "order", "pause", reason).await;
    let again = json!({"reason": "another one, later"});
    project(&running.rest, "order", "pause", again).await;
    writer.write(&world.topic, more).await;

    for restarted in [false, true] {
        if restarted {
            running.app.process.kill();
            running = world.serve().await;
        }
        // Wait for the other domain: without the pause, this one would have caught up by then, too.
        wait_until(SOON, "the other domain is caught up", async || {
            let domain = running.rest.try_get("/v1/consistency/fulfillment").await?;
            let reached = |p: &Value| p["position"] == p["endOffset"];
            match partitions(&domain.json()) {
                all if all.len() == 2 && all.values().all(reached) => Ok(()),
                all => Err(format!("{all:?}")),
            }
        })
        .await;
        let domain = running.rest.get("/v1/consistency/order").await.json();
        assert_eq!(domain["state"], "paused", "{domain}");
        for (number, partition) in partitions(&domain) {
            assert_eq!(partition["state"], "paused");
            assert_eq!(partition["failure"], "another one, later");
            assert_eq!(partition["position"], first[&number], "{partition}");
        }
        let versions = projection(&running.rest, "order").await["versions"].clone();
        assert_eq!(versions[0]["pause"]["by"], "operator");
        assert_eq!(versions[0]["pause"]["reason"], "another one, later");
        assert_eq!(versions[0].get("etaSeconds"), None, "{versions}");
        // Another pause without a reason keeps the reason.
        project(&running.rest, "order", "pause", json!({})).await;
    }
    // The command line, which uses the API, shows and ends the pause.
    let address = running.rest.address.clone();
    let run = async |arguments: &[&str]| {
        let arguments = [arguments, &["--http-addr", &address]].concat();
        let output = world.run(&arguments).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = run(&["projections", "list"]).await;
    let note = "order version 1: paused by operator: another one, later";
    assert!(shown.contains(note), "{shown}");
    let shown = run(&["projections", "resume", "order"]).await;
    assert!(!shown.contains("paused"), "{shown}");
    for verb in ["switch", "cancel", "rollback", "drop"] {
        let arguments = ["projections", verb, "order", "--http-addr", &address];
        let output = world.run(&arguments).await;
        assert_eq!(output.status.code(), Some(1), "{verb}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("number"), "{verb}: {said}");
        let mut helps = "`sightline projections list`";
        if matches!(verb, "switch" | "rollback") {
            helps = "`sightline projections rebuild <domain>`";
            let output = world.run(&[&arguments[..], &["--to", "7"]].concat()).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("There is no version 7."), "{verb}: {said}");
        }
        assert!(said.contains(helps), "{verb}: {said}");
        assert!(!said.contains("/v1/"), "{verb}: {said}");
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_does_not_delay_a_rebuild_and_outlasts_a_switch() {
    let shape = Shape {
        records: 900,
        partitions: 2,
        users: 40,
    };
    let log = generate(seed() + 4, shape);
    let (some, more) = log.split_at(500);
    let (old_fold, first) = folded(some, shape.partitions);
    let (fold, ends) = folded(&log, shape.partitions);
    let world = World::shared(shape.partitions).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, some).await;
    let running = world.serve().await;
    let rest = &running.rest;
    caught_up(rest, &first).await;
    // The rebuild may begin before the pause or after it.
    for (n, domain) in DOMAINS.into_iter().enumerate() {
        if n.is_multiple_of(2) {
            project(rest, domain, "rebuild", json!({})).await;
        }
        project(rest, domain, "pause", json!({"reason": "hold on"})).await;
        if !n.is_multiple_of(2) {
            project(rest, domain, "rebuild", json!({})).await;
        }
    }
    writer.write(&world.topic, more).await;
    for domain in DOMAINS {
        built(rest, domain, shape.records as i64).await;
        let compared = json!({"compare": true});
        let path = format!("/v1/projections/{domain}/switch");
        let answer = rest.post(&path, &compared).await;
        assert_eq!(answer.json()["reason"], "NOT_CAUGHT_UP");
        assert!(answer.text().contains("paused"), "{}", answer.text());
    }
    assert_answers(&running, &old_fold, Depth::Brief).await;
    for domain in DOMAINS {
        let switched = project(rest, domain, "switch", json!({})).await;
        for version in [0, 1] {
            let pause = &switched["versions"][version]["pause"];
            assert_eq!(pause["reason"], "hold on", "{switched}");
        }
        // The former version is paused further back, and cannot catch up before it is resumed.
        let path = format!("/v1/projections/{domain}/rollback");
        let answer = rest.post(&path, &json!({})).await;
        assert_eq!(answer.json()["reason"], "NOT_CAUGHT_UP");
        assert!(answer.text().contains("paused"), "{}", answer.text());
        project(rest, domain, "resume", json!({})).await;
        switch(rest, domain, "rollback", json!({})).await;
    }
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

fn address(user: &str, address: &str, event: &str, size: usize) -> Record {
    let value = json!({
        "eventType": "UserAddressAdded", "eventId": event, "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": {"userId": user, "profileId": "p", "addressId": address, "addressType": "home", "country": "DE",
            "isDefaultShipping": true, "isDefaultBilling": false, "padding": "x".repeat(size)},
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

/// The event ids of the feed after a cursor, or status and reason of a refusal.
async fn feed_after(rest: &Rest, after: Option<&str>) -> Result<Vec<String>, (u16, String)> {
    let answer = rest.get(&with_query(FEED, &[("after", after)])).await;
    let body = answer.json();
    if answer.status != 200 {
        assert!(!answer.token().is_empty());
        return Err((
            answer.status,
            body["reason"].as_str().expect("an answer").to_owned(),
        ));
    }
    let changes = body["changes"].as_array().expect("changes");
    let event = |change: &Value| change["eventId"].as_str().expect("an id").to_owned();
    Ok(changes.iter().map(event).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_would_miss_a_change_moved_by_a_rebuild_is_refused() {
    let mut world = World::shared(1).await;
    let log = [
        address("a", "a-1", "e-0", 0),
        // Too large under the first limit: a dead letter.
        address("a", "a-2", "e-1", MAX_VALUE_BYTES),
        address("b", "b-1", "e-2", 0),
        // A dead letter that changes no address.
        too_large_registration("c"),
        address("d", "d-1", "e-4", 0),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 5)])).await;
    let changes = running.rest.get(FEED).await.json()["changes"].clone();
    let [before, after, end] = &cursors(changes.as_array().expect("a list"))[..] else {
        panic!("{changes}")
    };
    let ids = |ids: &[&str]| Ok(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    let resync = || Err((410, "RESYNC".to_owned()));

    // Under a larger limit, the new version applies both in log order.
    running.app.process.kill();
    running = world
        .set("SIGHTLINE_MAX_VALUE_BYTES", &HEALING_BYTES.to_string())
        .serve()
        .await;
    let rest = &running.rest;
    project(rest, "order", "rebuild", json!({})).await;
    built(rest, "order", 5).await;
    switch(rest, "order", "switch", json!({})).await;
    assert_eq!(
        feed_after(rest, None).await,
        ids(&["e-0", "e-1", "e-2", "e-4"])
    );
    assert_eq!(
        feed_after(rest, Some(before)).await,
        ids(&["e-1", "e-2", "e-4"])
    );
    assert_eq!(feed_after(rest, Some(after)).await, resync());
    assert_eq!(feed_after(rest, Some(end)).await, resync());
    let request = ListAddressChangesRequest {
        after: Some(end.clone()),
        ..ListAddressChangesRequest::default()
    };
    let status = running.grpc.order().list_address_changes(request).await;
    let status = status.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("a reason").reason, "RESYNC");

    // After the rollback, the cursors are used in the version that made them.
    switch(rest, "order", "rollback", json!({})).await;
    assert_eq!(feed_after(rest, Some(end)).await, ids(&[]));
    assert_eq!(feed_after(rest, Some(before)).await, ids(&["e-2", "e-4"]));
    // Retried there, the change comes at the end of the feed. In the other version it does not.
    let tried = retry_all(rest, "order").await;
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert_eq!(feed_after(rest, Some(end)).await, ids(&["e-1"]));
    let changes = rest.get(FEED).await.json()["changes"].clone();
    let healed = cursors(changes.as_array().expect("a list")).remove(3);
    switch(rest, "order", "rollback", json!({})).await;
    assert_eq!(feed_after(rest, Some(end)).await, resync());
    assert_eq!(feed_after(rest, Some(&healed)).await, ids(&[]));
    assert_eq!(
        feed_after(rest, Some(before)).await,
        ids(&["e-1", "e-2", "e-4"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_retried_after_a_switch_comes_after_all_earlier_changes() {
    let mut world = World::shared(1).await;
    let log = [
        address("a", "a-1", "e-0", MAX_VALUE_BYTES),
        address("b", "b-1", "e-1", MAX_VALUE_BYTES),
        address("c", "c-1", "e-2", 0),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    // Pauses raise the epoch of the live version far above the new version's.
    for _ in 0..20 {
        project(&running.rest, "order", "pause", json!({})).await;
        project(&running.rest, "order", "resume", json!({})).await;
    }
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", 3).await;
    running.app.process.kill();
    running = world
        .set("SIGHTLINE_MAX_VALUE_BYTES", &HEALING_BYTES.to_string())
        .serve()
        .await;
    let rest = &running.rest;
    let retry = async |key: &str| {
        let body = json!({"domain": "order", "key": key});
        let tried = operate(rest, "/v1/dead-letters:retry", body).await;
        assert_eq!(tried["outcomes"][0]["outcome"], "applied", "{tried}");
    };
    retry("a").await;
    let changes = rest.get(FEED).await.json()["changes"].clone();
    let end = cursors(changes.as_array().expect("a list")).remove(1);
    assert_eq!(feed_after(rest, Some(&end)).await, Ok(vec![]));
    switch(rest, "order", "switch", json!({})).await;
    retry("b").await;
    assert_eq!(
        feed_after(rest, Some(&end)).await,
        Ok(vec!["e-1".to_owned()])
    );
    switch(rest, "order", "rollback", json!({})).await;
    assert_eq!(
        feed_after(rest, Some(&end)).await,
        Ok(vec!["e-1".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_by_another_record_of_its_event_is_not_missed_after_a_switch() {
    let mut world = World::shared(1).await;
    let first = Record {
        key: None,
        ..address("a", "a-1", "e-0", MAX_VALUE_BYTES)
    };
    let log = [
        first,
        address("b", "b-1", "e-1", 0),
        address("a", "a-1", "e-0", 0),
        address("b", "b-2", "e-2", 0),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 4)])).await;
    running.app.process.kill();
    running = world
        .set("SIGHTLINE_MAX_VALUE_BYTES", &HEALING_BYTES.to_string())
        .serve()
        .await;
    let rest = &running.rest;
    let tried = retry_all(rest, "order").await;
    assert_eq!(tried[0]["outcome"], "duplicate", "{tried:?}");
    let changes = rest.get(FEED).await.json()["changes"].clone();
    let cursors = cursors(changes.as_array().expect("a list"));
    project(rest, "order", "rebuild", json!({})).await;
    built(rest, "order", 4).await;
    switch(rest, "order", "switch", json!({})).await;
    let event_ids = feed_after(rest, None).await.expect("the feed");
    assert_eq!(event_ids, ["e-0", "e-1", "e-2"]);
    // A reader that is after e-1 in the old version has not read e-0, and would miss it in the new one.
    let resync = Err((410, "RESYNC".to_owned()));
    assert_eq!(feed_after(rest, Some(&cursors[0])).await, resync);
}

fn too_large_registration(user: &str) -> Record {
    let value = json!({
        "eventType": "UserRegistered", "eventId": format!("r-{user}"), "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": {"userId": user, "email": "c@example.org", "status": "active", "padding": "x".repeat(MAX_VALUE_BYTES)},
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_record_is_left_out_of_every_version() {
    let mut world = World::shared(1).await;
    let log = [
        address("a", "a-1", "e-0", 0),
        address("a", "a-2", "e-1", MAX_VALUE_BYTES),
        address("a", "a-3", "e-2", 0),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", 3).await;
    // The version that is being built has the same dead letter.
    let open = dead_letters(&running.rest, &[("domain", Some("order"))]).await;
    let [large, behind] = &open[..] else {
        panic!("{open:?}")
    };
    let path = format!(
        "/v1/dead-letters/{}/discard",
        large["id"].as_str().expect("an answer")
    );
    let tried = operate(&running.rest, &path, json!({"reason": "sent again"})).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "discarded", "{tried}");
    assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
    assert_eq!(tried["outcomes"][1]["id"], behind["id"]);
    let again = refused(&running.rest, &path, json!({"reason": "again"})).await;
    assert_eq!(again, (409, "LETTER_CLOSED".to_owned()));
    assert_eq!(
        feed_after(&running.rest, None).await.expect("an answer"),
        ["e-0", "e-2"]
    );
    switch(&running.rest, "order", "switch", json!({"compare": true})).await;
    assert_eq!(
        feed_after(&running.rest, None).await.expect("an answer"),
        ["e-0", "e-2"]
    );

    // Also left out of a version that begins now, under a limit that would allow the record.
    running.app.process.kill();
    running = world
        .set("SIGHTLINE_MAX_VALUE_BYTES", &HEALING_BYTES.to_string())
        .serve()
        .await;
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", 3).await;
    switch(&running.rest, "order", "switch", json!({})).await;
    assert_eq!(
        feed_after(&running.rest, None).await.expect("an answer"),
        ["e-0", "e-2"]
    );
    let closed = dead_letters(&running.rest, &[("domain", Some("order"))]).await;
    let [discarded] = &closed[..] else {
        panic!("{closed:?}")
    };
    assert_eq!(discarded["offset"], 1);
    assert_eq!(discarded["state"], "discarded");
    assert_eq!(discarded["resolution"], "sent again");
    assert_eq!(discarded["reason"], "too_large");
    let domain = running.rest.get("/v1/consistency/order").await.json();
    let books = &domain["partitions"][0];
    assert_eq!(books["applied"], 2, "{domain}");
    assert_eq!(books["deadLettered"], 1, "{domain}");
    assert_eq!(books["deadLetters"], 0, "{domain}");
}

/// A backup (`pg_dump`) holds the tables of all versions for as long as it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_up_no_reads_no_heartbeats_and_no_drop() {
    let world = World::shared(1).await;
    let log = generate(
        seed(),
        Shape {
            records: 200,
            partitions: 1,
            users: 20,
        },
    );
    let (before, after) = log.split_at(150);
    let writer = world.broker.writer();
    writer.write(&world.topic, before).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let (fold, ends) = folded(before, 1);
    caught_up(rest, &ends).await;
    project(rest, "order", "rebuild", json!({})).await;
    built(rest, "order", ends[&0]).await;

    let mut backup = PgConnection::connect(&world.database.url)
        .await
        .expect("a connection");
    for statement in [
        "SET application_name = 'pg_dump'",
        "BEGIN",
        "SELECT count(*) FROM order_live.view_version, order_v2.view_version",
    ] {
        sqlx::query(statement)
            .execute(&mut backup)
            .await
            .expect(statement);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let user = fold
        .view::<Customers>()
        .ids()
        .first()
        .expect("a user")
        .clone();
    let reads = keep_reading(rest.clone(), customer_path(&user), Arc::clone(&stop));
    let reads = tokio::spawn(reads);
    let headers = [
        ("content-type", "application/json"),
        ("request-timeout", "8"),
    ];
    let path = "/v1/projections/order/switch";
    let answer = rest.send(Method::POST, path, &headers, b"{}").await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["reason"], "VIEW_IN_USE");
    assert!(problem.to_string().contains("pg_dump"), "{problem}");

    // The version is dropped at once. What is left of it is deleted when the backup has ended.
    project(rest, "order", "cancel", json!({})).await;
    assert_eq!(versions(rest, "order").await.len(), 1);
    writer.write(&world.topic, after).await;
    let (_, ends) = folded(&log, 1);
    caught_up(rest, &ends).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reads.await.expect("no read was refused") > 0);
    sqlx::query("COMMIT")
        .execute(&mut backup)
        .await
        .expect("the backup ends");
    wait_until(SOON, "the dropped version is deleted", async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'order_v2')
                  + (SELECT count(*) FROM sightline.views WHERE domain = 'order' AND version = 2)",
        )
        .fetch_one(&mut backup)
        .await
        .map_err(|error| error.to_string())?;
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} left"))
        }
    })
    .await;
    // It is not in the way of another rebuild.
    project(rest, "order", "rebuild", json!({})).await;
    built(rest, "order", ends[&0]).await;
    switch(rest, "order", "switch", json!({"compare": true})).await;
}

/// The sum of a domain's metric over all further labels, as the admin port shows it.
async fn metric(admin: &Rest, name: &str, domain: &str) -> f64 {
    let text = admin.get("/metrics").await.text();
    let label = format!("domain=\"{domain}\"");
    let values = text.lines().filter_map(|line| {
        let (name_and_labels, value) = line.rsplit_once(' ')?;
        let rest = name_and_labels.strip_prefix(name)?;
        (rest.starts_with('{') && rest.contains(&label)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

/// Old records that a first build or a rebuild reads say nothing of how fresh the live version is.
#[tokio::test(flavor = "multi_thread")]
async fn freshness_is_that_of_the_live_version() {
    let world = World::shared(1).await;
    let writer = world.broker.writer();
    let event = |id: &str, timestamp| {
        let data = json!({"email": "a@example.org", "status": "active"});
        let record = Record::cloud_event(0, "u-1", id, "com.example.UserRegistered.v1", data);
        Record {
            timestamp,
            ..record
        }
    };
    let old = [
        event("e-1", 1_600_000_000_000),
        event("e-2", 1_700_000_000_000),
    ];
    writer.write(&world.topic, &old).await;
    let running = world.serve().await;
    let (rest, admin) = (&running.rest, &running.admin);
    caught_up(rest, &folded(&old, 1).1).await;
    // A batch is measured just after its commit.
    let measured = async |records: f64, fresh_batches: f64| {
        wait_until(SOON, "the batches are measured", async || {
            let counted = metric(admin, "sightline_records_total", "order").await;
            let fresh = metric(admin, "sightline_freshness_seconds_count", "order").await;
            if (counted, fresh) == (records, fresh_batches) {
                Ok(())
            } else {
                Err(format!("{counted} records, {fresh} fresh batches"))
            }
        })
        .await;
    };
    measured(2.0, 0.0).await;

    let now = chrono::Utc::now().timestamp_millis();
    let log = [&old[..], &[event("e-3", now)]].concat();
    writer.write(&world.topic, &log[2..]).await;
    caught_up(rest, &folded(&log, 1).1).await;
    measured(3.0, 1.0).await;

    project(rest, "order", "rebuild", json!({})).await;
    built(rest, "order", 3).await;
    measured(6.0, 1.0).await;
    let slowest = metric(admin, "sightline_freshness_seconds_sum", "order").await;
    assert!(slowest < 600.0, "{slowest} s");

    switch(rest, "order", "switch", json!({})).await;
    let log = [&log[..], &[event("e-4", now)]].concat();
    writer.write(&world.topic, &log[3..]).await;
    caught_up(rest, &folded(&log, 1).1).await;
    // Both versions go on, and one is live.
    measured(8.0, 2.0).await;
}
