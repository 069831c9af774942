//! Offsets without a record, and partitions that are added while records are projected.

use serde_json::json;
use sightline_testing::app::{DOMAINS, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{
    Depth, Ends, assert_answers, assert_books, caught_up, folded, partitions,
};
use sightline_testing::client::customer_path;
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::lagging_replica::LaggingReplica;
use sightline_testing::operations::{built, project};
use sightline_testing::reference::Folds;
use sightline_testing::wait_until;

fn update(user: &str, partition: i32, n: usize) -> Record {
    let value = json!({
        "eventType": "UserUpdated.v1", "eventId": format!("{user}-{n}"), "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": {"userId": user, "updatedFields": {"username": format!("name {n}")}},
    });
    Record {
        partition,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000 + n as i64,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_leave_holes_that_are_counted() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 600,
        partitions: 2,
        users: 30,
    };
    let log = generate(seed(), shape);
    let world = World::new(broker, Database::create().await, 2).await;
    let writer = world.broker.transactional_writer();
    let mut fold = Folds::new(MAX_VALUE_BYTES);
    for (n, part) in log.chunks(50).enumerate() {
        writer.begin();
        writer.write(&world.topic, part).await;
        if n % 3 == 1 {
            writer.abort();
            continue;
        }
        writer.commit();
        for record in part {
            fold.take(record);
        }
    }
    let ends = world.broker.ends(&world.topic).await;
    let holes: Ends = ends
        .iter()
        .map(|(p, end)| (*p, end - fold.read(*p)))
        .collect();
    assert!(
        holes.values().all(|holes| *holes > 50),
        "transaction markers and aborted records are holes: {holes:?}"
    );

    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &holes);
    assert_answers(&running, &fold, Depth::Brief).await;

    // The same for live records, with an aborted transaction at the very end of the log.
    writer.begin();
    let next = update("late", 0, 1);
    writer
        .write(&world.topic, std::slice::from_ref(&next))
        .await;
    writer.commit();
    fold.take(&next);
    writer.begin();
    writer
        .write(
            &world.topic,
            &[update("never", 0, 2), update("never", 1, 3)],
        )
        .await;
    writer.abort();
    let ends = world.broker.ends(&world.topic).await;
    let holes: Ends = ends
        .iter()
        .map(|(p, end)| (*p, end - fold.read(*p)))
        .collect();
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &holes);
    assert_answers(&running, &fold, Depth::Brief).await;
    assert_eq!(running.rest.get(&customer_path("never")).await.status, 404);
}

/// As with `client.rack`, or a leader that has just changed: the end that is read with another request proves nothing
/// about the broker that fetches are answered by.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_replica_lacks_yet_are_no_hole() {
    let replica = LaggingReplica::new().await;
    let Some(broker) = Broker::private_behind(&[replica.port]) else {
        return;
    };
    replica.set_target(broker.behind()[0]);
    let mut world = World::new(broker, Database::create().await, 1).await;
    world
        .set(
            "SIGHTLINE_KAFKA_BROKERS",
            &format!("127.0.0.1:{}", replica.port),
        )
        .set("SIGHTLINE_LOG", "info,sightline::projector::worker=debug");
    let log: Vec<Record> = (0..20)
        .map(|n| update(&format!("user-{n}"), 0, n))
        .collect();
    let writer = world.broker.writer();
    // The replica lacks whole batches.
    writer.write(&world.topic, &log[..12]).await;
    writer.write(&world.topic, &log[12..]).await;
    replica.end_at(12);
    let running = world.serve().await;

    let mut probed_at = None;
    wait_until(
        SOON,
        "both domains have asked the replica again",
        async || {
            let answer = running.rest.get("/v1/consistency").await.json();
            let domains = answer["domains"].as_array().ok_or("no domains yet")?;
            for domain in domains {
                assert_ne!(domain["state"], "caught_up", "{domain}");
                for shown in partitions(domain).values() {
                    assert_eq!(shown["holes"].as_i64().unwrap_or(0), 0, "{shown}");
                }
            }
            let is_at_its_end = |domain| {
                let shown = partitions(domain);
                shown
                    .get(&0)
                    .is_some_and(|shown| shown["position"] == 12 && shown["endOffset"] == 20)
            };
            if domains.len() < DOMAINS.len() || !domains.iter().all(is_at_its_end) {
                return Err(answer.to_string());
            }
            let log = running.app.log();
            let probed = |domain: &&str| {
                log.iter().any(|line| {
                    line["message"] == "probing for a hole" && line["domain"] == **domain
                })
            };
            if !DOMAINS.iter().all(probed) {
                return Err("not probed".into());
            }
            // The ends that these fetches reach are judged, too.
            let shortened = replica.shortened();
            match shortened - *probed_at.get_or_insert(shortened) {
                40.. => Ok(()),
                more => Err(format!("{more} further fetches")),
            }
        },
    )
    .await;

    replica.end_at(i64::MAX);
    let (fold, ends) = folded(&log, 1);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_lose_and_reorder_nothing() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 2).await;
    world.set("SIGHTLINE_KAFKA_SETTLE_SECONDS", "0");
    let users: Vec<String> = (0..40).map(|n| format!("user-{n}")).collect();
    let writer = world.broker.writer();
    let old = |n: usize| {
        let user = n % users.len();
        update(&users[user], (user % 2) as i32, n)
    };
    let mut log: Vec<Record> = (0..200).map(old).collect();
    let running = world.serve().await;
    writer.write(&world.topic, &log).await;
    // New partitions wait for older ones only if those have progress.
    caught_up(&running.rest, &folded(&log, 2).1).await;
    let backlog: Vec<Record> = (200..20_000).map(old).collect();
    writer.write(&world.topic, &backlog).await;
    log.extend(backlog);
    // Keys move to new partitions while their old records are still being projected.
    world.broker.add_partitions(&world.topic, 5).await;
    let writer = world.broker.writer();
    let mut moved = Vec::new();
    for n in 20_000..22_000 {
        let user = n % users.len();
        // Keys move to new partitions only: between two old partitions there is no order.
        let partition = if user % 5 > 1 { user % 5 } else { user % 2 };
        moved.push(update(&users[user], partition as i32, n));
    }
    writer.write(&world.topic, &moved).await;
    log.extend(moved);
    // Records in new partitions come after all records before them in this list.
    let (fold, ends) = folded(&log, 5);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    // A new version waits at the same records.
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", ends.values().sum()).await;
    project(&running.rest, "order", "switch", json!({"compare": true})).await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}
