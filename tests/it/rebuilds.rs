//! Views projected anew beside live traffic and reads: built, compared, switched to, switched back from, dropped; and
//! projection that stands still because somebody said so.

use crate::changes::{assert_followed, follow};
use crate::first_light::folded;
use crate::support::app::{LONG, SOON, World};
use crate::support::broker::{Broker, Record};
use crate::support::check::order::{FEED, cursors};
use crate::support::check::{
    DOMAINS, Depth, Ends, assert_answers, assert_books, caught_up, partitions,
};
use crate::support::client::{Rest, customer_path, with_query};
use crate::support::database::Database;
use crate::support::log::{HEALING_BYTES, MAX_VALUE_BYTES, Shape, generate, seed};
use crate::support::operations::{
    built, letters, operate, project, projection, refused, retry_all, versions,
};
use crate::support::wait_until;
use serde_json::{Value, json};
use sightline::proto::order::v1::ListAddressChangesRequest;
use sqlx::{AssertSqlSafe, PgPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic_types::StatusExt;

const SHAPE: Shape = Shape {
    records: 12_000,
    partitions: 3,
    users: 300,
};

/// Switches as soon as the version is not behind any more.
async fn switch(rest: &Rest, domain: &str, verb: &str, body: Value) -> Value {
    let path = format!("/v1/projections/{domain}/{verb}");
    wait_until(LONG, "the version is switched to", async || {
        let answer = rest.post(&path, &body).await;
        match answer.status {
            200 => Ok(answer.json()),
            409 if answer.json()["reason"] == "NOT_CAUGHT_UP" => Err(answer.text()),
            _ => panic!("{path}: {}", answer.text()),
        }
    })
    .await
}

/// Reads a customer that is there again and again, until told to stop: it is never gone, and never fails.
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
async fn views_are_rebuilt_switched_and_switched_back_under_live_traffic_and_reads() {
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
    let user = fold.order.view.ids().first().expect("a user").clone();
    let stop = Arc::new(AtomicBool::new(false));
    let path = customer_path(&user);
    let reader = tokio::spawn(keep_reading(rest.clone(), path, Arc::clone(&stop)));
    // Versions in which all lies where it did: whoever follows a feed notices nothing.
    let follower = tokio::spawn(follow(vec![rest.clone()], 1, Arc::clone(&stop)));

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
        // One that has projected next to nothing yet is refused.
        let early = refused(rest, &path("switch"), json!({})).await;
        assert_eq!(early, (409, "NOT_CAUGHT_UP".to_owned()));
        // A number is not given twice, as positions and cursors would be taken for another's.
        let cancelled = project(rest, domain, "cancel", json!({})).await;
        assert_eq!(cancelled["versions"].as_array().map(Vec::len), Some(1));
        let begun = project(rest, domain, "rebuild", json!({})).await;
        assert_eq!(begun["versions"][1]["version"], 3, "{begun}");
    }

    // Both project the log that grows, and the switch comes while they do.
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

    // The former one goes on beside it, so that the way back never goes back in time.
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
    assert_followed(&follower.await.expect("no panic"), &fold);

    // At the same positions they hold the same rows.
    let all: i64 = ends.values().sum();
    for domain in DOMAINS {
        wait_until(SOON, "both versions are at the end", async || {
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
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_goes_on_where_it_was_after_its_instance_was_killed() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 25_000,
        ..SHAPE
    };
    let log = generate(seed() + 6, shape);
    let (fold, ends) = folded(&log, shape.partitions);
    let mut world = World::new(broker, Database::create().await, shape.partitions).await;
    world.broker.writer().write(&world.topic, &log).await;
    let witness = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    let rest = &witness.rest;
    let mut app = world.set("SIGHTLINE_ROLE", "projector").launch();
    caught_up(rest, &ends).await;
    let all: i64 = ends.values().sum();
    project(rest, "order", "rebuild", json!({})).await;
    let mut read = 0;
    for part in [all / 6, all / 3, all / 2] {
        read = wait_until(LONG, "some more is read", async || {
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
    assert_answers(&witness, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_differ_are_not_switched_to_where_they_are_compared() {
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
    // As a defect, or a hand, may have done.
    let pool = PgPool::connect(&world.database.url).await.expect("it");
    let changed = "UPDATE order_v2.users SET state = state || '{\"phoneNumber\": \"+1 999\"}'
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
async fn a_paused_domain_stands_still_over_restarts_until_it_is_resumed() {
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
        // The other domain comes to the end; this one would have, too.
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
        // Who pauses it once more, and says nothing, takes nothing back.
        project(&running.rest, "order", "pause", json!({})).await;
    }
    // Over gRPC and by the command line it is the same.
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
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_up_no_rebuild_and_outlasts_a_switch() {
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
    // Whichever comes first.
    project(rest, "order", "rebuild", json!({})).await;
    project(rest, "order", "pause", json!({"reason": "hold on"})).await;
    project(rest, "fulfillment", "pause", json!({"reason": "hold on"})).await;
    project(rest, "fulfillment", "rebuild", json!({})).await;
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
        // The former one has not come so far, and does not before somebody resumes.
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

/// What the feed tells behind a cursor: event ids, or why it tells nothing.
async fn feed_after(rest: &Rest, after: Option<&str>) -> Result<Vec<String>, (u16, String)> {
    let answer = rest.get(&with_query(FEED, &[("after", after)])).await;
    let body = answer.json();
    if answer.status != 200 {
        assert!(!answer.token().is_empty());
        return Err((
            answer.status,
            body["reason"].as_str().expect("it").to_owned(),
        ));
    }
    let changes = body["changes"].as_array().expect("changes");
    let event = |change: &Value| change["eventId"].as_str().expect("an id").to_owned();
    Ok(changes.iter().map(event).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_miss_a_change_that_a_rebuild_has_moved_is_told_to_read_anew() {
    let mut world = World::shared(1).await;
    let log = [
        address("a", "a-1", "e-0", 0),
        // Too large at first: a letter.
        address("a", "a-2", "e-1", MAX_VALUE_BYTES),
        address("b", "b-1", "e-2", 0),
        // A letter that changes no address.
        too_large_registration("c"),
        address("d", "d-1", "e-4", 0),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 5)])).await;
    let changes = running.rest.get(FEED).await.json()["changes"].clone();
    let [before, behind, end] = &cursors(changes.as_array().expect("a list"))[..] else {
        panic!("{changes}")
    };
    let ids = |ids: &[&str]| Ok(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    let resync = || Err((410, "RESYNC".to_owned()));

    // Under another limit the new version applies them in their turn.
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
    assert_eq!(feed_after(rest, Some(behind)).await, resync());
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

    // Back in the version that they are of, cursors mean what they meant.
    switch(rest, "order", "rollback", json!({})).await;
    assert_eq!(feed_after(rest, Some(end)).await, ids(&[]));
    assert_eq!(feed_after(rest, Some(before)).await, ids(&["e-2", "e-4"]));
    // Tried again there, the change comes at the end, in both versions the same or not.
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
async fn a_letter_that_is_tried_after_a_switch_lies_behind_all_that_was_read_before() {
    let mut world = World::shared(1).await;
    let log = [
        address("a", "a-1", "e-0", MAX_VALUE_BYTES),
        address("b", "b-1", "e-1", MAX_VALUE_BYTES),
        address("c", "c-1", "e-2", 0),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    // The live one has had more owners than the one that is to be built.
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
async fn a_change_that_another_record_of_its_event_made_is_not_missed_after_a_switch() {
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
    let told = feed_after(rest, None).await.expect("the feed");
    assert_eq!(told, ["e-0", "e-1", "e-2"]);
    // Who has read the one before it was told has not read it, and would not.
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
async fn what_is_taken_out_is_out_of_every_version() {
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
    // It is a letter of the version that is being built, too.
    let open = letters(&running.rest, &[("domain", Some("order"))]).await;
    let [large, behind] = &open[..] else {
        panic!("{open:?}")
    };
    let path = format!(
        "/v1/dead-letters/{}/discard",
        large["id"].as_str().expect("it")
    );
    let tried = operate(&running.rest, &path, json!({"reason": "sent again"})).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "discarded", "{tried}");
    assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
    assert_eq!(tried["outcomes"][1]["id"], behind["id"]);
    let again = refused(&running.rest, &path, json!({"reason": "again"})).await;
    assert_eq!(again, (409, "LETTER_CLOSED".to_owned()));
    assert_eq!(
        feed_after(&running.rest, None).await.expect("it"),
        ["e-0", "e-2"]
    );
    switch(&running.rest, "order", "switch", json!({"compare": true})).await;
    assert_eq!(
        feed_after(&running.rest, None).await.expect("it"),
        ["e-0", "e-2"]
    );

    // And of one that is begun only now, under a limit that would let it through.
    running.app.process.kill();
    running = world
        .set("SIGHTLINE_MAX_VALUE_BYTES", &HEALING_BYTES.to_string())
        .serve()
        .await;
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", 3).await;
    switch(&running.rest, "order", "switch", json!({})).await;
    assert_eq!(
        feed_after(&running.rest, None).await.expect("it"),
        ["e-0", "e-2"]
    );
    let closed = letters(&running.rest, &[("domain", Some("order"))]).await;
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
