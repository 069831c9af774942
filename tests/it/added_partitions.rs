//! Partitions that are added to a topic while producers with old metadata still write to the older ones: every key
//! stays in order, live, in rebuilds and in domains that are deployed later.

use std::path::Path;

use serde_json::{Value, json};
use sightline_testing::app::{DOMAINS, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{
    Depth, Ends, assert_answers, assert_books, caught_up, folded, partitions,
};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::operations::{built, project};
use sightline_testing::wait_until;
use sqlx::{AssertSqlSafe, PgPool};

/// How many users there are. Those with odd numbers move to the added partition.
const USERS: usize = 40;

/// An event of a user, with an id that no other has.
fn event(user: usize, partition: i32, id: &str, event_type: &str, mut payload: Value) -> Record {
    payload["userId"] = format!("user-{user}").into();
    let value = json!({
        "eventType": event_type, "eventId": format!("{user}-{id}"), "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": payload,
    });
    Record {
        partition,
        key: Some(format!("user-{user}").into_bytes()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

/// A user gets this address, in place of the former one.
fn moves_to(user: usize, partition: i32, street: &str) -> Record {
    let payload = json!({
        "profileId": "p", "addressId": "home", "addressType": "home", "isDefaultShipping": true, "isDefaultBilling": false,
        "country": "DE", "fullAddress": {"streetLine1": street, "city": "Berlin", "postalCode": "10115", "country": "DE"},
    });
    event(user, partition, street, "UserAddressAdded", payload)
}

/// One event of each user, in partition 0.
fn all_move(street: &str) -> Vec<Record> {
    (0..USERS).map(|user| moves_to(user, 0, street)).collect()
}

/// One event of each user that moves, in the added partition.
fn others_move(partition: i32, street: &str) -> Vec<Record> {
    let moved = (0..USERS).filter(|user| user % 2 == 1);
    moved
        .map(|user| moves_to(user, partition, street))
        .collect()
}

/// Waits until every served domain reports that a partition waits for the older ones, and has read nothing of it.
async fn waits(rest: &Rest, partition: i32) {
    wait_until(SOON, "the added partition waits", async || {
        let answer = rest.try_get("/v1/consistency").await?.json();
        for domain in answer["domains"].as_array().into_iter().flatten() {
            let shown = partitions(domain).remove(&partition).unwrap_or_default();
            let is_waiting = shown["failure"] == "waits_for_partitions";
            if !is_waiting || domain["state"] != "catching_up" {
                return Err(domain.to_string());
            }
            assert_eq!(shown["state"], "catching_up", "{shown}");
            assert_eq!(shown["position"], 0, "{shown}");
            assert_eq!(shown.get("etaSeconds"), None, "{shown}");
        }
        Ok(())
    })
    .await;
}

/// When the topic's partitions were added, and what they wait for, by partition.
async fn stored(world: &World) -> Vec<(i32, Option<String>, Option<Value>)> {
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    let rows = sqlx::query_as(
        "SELECT partition, added_at::text, waits_for FROM sightline.logs WHERE topic = $1 ORDER BY partition",
    )
    .bind(&world.topic)
    .fetch_all(&pool)
    .await
    .expect("a table");
    pool.close().await;
    rows
}

/// Adds partitions soon to consumer groups.
fn refresh_often(world: &mut World) {
    let properties = "topic.metadata.refresh.interval.ms=500";
    world.set("SIGHTLINE_KAFKA_PROPERTIES", properties);
}

/// Ends a process, which leaves its consumer groups.
fn terminate(mut running: Running) {
    running.app.process.signal("TERM");
    assert_eq!(running.app.process.wait(SOON), 0);
}

async fn rebuild_and_switch(running: &Running, domain: &str, ends: &Ends) {
    project(&running.rest, domain, "rebuild", json!({})).await;
    built(&running.rest, domain, ends.values().sum()).await;
    project(&running.rest, domain, "switch", json!({"compare": true})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_producers_with_old_metadata_come_first_for_every_domain_and_version() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    world
        .set("SIGHTLINE_KAFKA_SETTLE_SECONDS", "12")
        .set("SIGHTLINE_DOMAINS", "order");
    refresh_often(&mut world);
    let mut log = all_move("first");
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &folded(&log, 1).1).await;
    world.broker.add_partitions(&world.topic, 2).await;
    waits(&running.rest, 1).await;
    let before = stored(&world).await;
    assert!(before[0].1.is_none() && before[1].1.is_some(), "{before:?}");
    // A restart changes nothing: the settle time goes on.
    terminate(running);
    let running = world.serve().await;
    waits(&running.rest, 1).await;

    // A producer that does not know of the partition yet writes on; another one knows of it.
    let mut stale: Vec<Record> = (0..20_000)
        .map(|n| {
            let payload = json!({"updatedFields": {"username": format!("stale {n}")}});
            event(
                n % USERS,
                0,
                &format!("stale {n}"),
                "UserUpdated.v1",
                payload,
            )
        })
        .collect();
    stale.extend(all_move("second"));
    world.broker.writer().write(&world.topic, &stale).await;
    log.extend(stale);
    let third = others_move(1, "third");
    world.broker.writer().write(&world.topic, &third).await;
    log.extend(third);
    assert_eq!(
        stored(&world).await,
        before,
        "it was written within the settle time"
    );
    waits(&running.rest, 1).await;
    let (fold, ends) = folded(&log, 2);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    rebuild_and_switch(&running, "order", &ends).await;
    assert_answers(&running, &fold, Depth::Brief).await;
    terminate(running);

    // A domain that is deployed later obeys what was found then, whatever the setting is now.
    world
        .set("SIGHTLINE_KAFKA_SETTLE_SECONDS", "0")
        .set("SIGHTLINE_DOMAINS", "all");
    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    rebuild_and_switch(&running, "fulfillment", &ends).await;
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_added_partition_waits_for_all_older_ones() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 2).await;
    world.set("SIGHTLINE_KAFKA_SETTLE_SECONDS", "2");
    refresh_often(&mut world);
    let mut log = all_move("first");
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    caught_up(rest, &folded(&log, 2).1).await;
    // What is added while a domain is paused settles all the same.
    for domain in DOMAINS {
        project(rest, domain, "pause", json!({})).await;
    }
    for (partition, name) in [(2, "second"), (3, "third")] {
        world
            .broker
            .add_partitions(&world.topic, partition + 1)
            .await;
        let moved = others_move(partition, name);
        world.broker.writer().write(&world.topic, &moved).await;
        log.extend(moved);
        wait_until(SOON, "the settle time is over", async || {
            let stored = stored(&world).await;
            match stored.get(partition as usize) {
                Some((_, Some(_), Some(Value::Object(waits)))) => {
                    assert_eq!(waits.len(), partition as usize, "{stored:?}");
                    Ok(())
                }
                _ => Err(format!("{stored:?}")),
            }
        })
        .await;
    }
    let late = all_move("after the settle time");
    world.broker.writer().write(&world.topic, &late).await;
    log.extend(late);
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({})).await;
    }
    let (fold, ends) = folded(&log, 4);
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_partition_that_has_lost_its_tail_holds_up_no_rebuild() {
    let Some(broker) = Broker::private() else {
        return;
    };
    let mut world = World::new(broker, Database::create().await, 1).await;
    world.set("SIGHTLINE_KAFKA_SETTLE_SECONDS", "0");
    refresh_often(&mut world);
    let log = all_move("first");
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let end = USERS as i64;
    caught_up(rest, &Ends::from([(0, end)])).await;
    world.broker.add_partitions(&world.topic, 2).await;
    caught_up(rest, &Ends::from([(0, end), (1, 0)])).await;
    // As if the settle time had ended behind records that the log has lost since.
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    let raise = "UPDATE sightline.logs
                 SET waits_for = (SELECT jsonb_object_agg(key, 1000) FROM jsonb_each(waits_for))
                 WHERE waits_for IS NOT NULL";
    let done = sqlx::query(raise).execute(&pool).await.expect("a table");
    assert_eq!(done.rows_affected(), 1);
    let moved = others_move(1, "second");
    world.broker.writer().write(&world.topic, &moved).await;
    let ends = Ends::from([(0, end), (1, moved.len() as i64)]);
    rebuild_and_switch(&running, "order", &ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_partitions_waited_for_in_a_former_release_is_kept() {
    let database = Database::create().await;
    let pool = PgPool::connect(&database.url).await.expect("it answers");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    let name = |file: &Path| {
        file.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let ours = files
        .iter()
        .position(|file| name(file).is_some_and(|name| name.starts_with("0012_")));
    let ours = ours.expect("the migration");
    let apply = async |text: String| {
        sqlx::raw_sql(AssertSqlSafe(text))
            .execute(&pool)
            .await
            .expect("valid SQL");
    };
    for file in &files[..ours] {
        apply(std::fs::read_to_string(file).expect("a file")).await;
    }
    // Partition 1 was added; `order` and `fulfillment` saw it at different times.
    let rows = "
        INSERT INTO sightline.logs (cluster_id, topic, topic_identity, partition)
        VALUES ('c', 't', 'i', 0), ('c', 't', 'i', 1), ('c', 'other', 'i', 0);
        INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, waits_for)
        SELECT domain, version, log_id, 0, 0,
               CASE WHEN partition = 1 AND domain = 'order' THEN '{\"0\": 40}'::jsonb
                    WHEN partition = 1 THEN '{\"0\": 55}' END
        FROM sightline.views CROSS JOIN sightline.logs";
    apply(rows.to_owned()).await;
    apply(std::fs::read_to_string(&files[ours]).expect("a file")).await;
    let logs: Vec<(String, i32, bool, Option<Value>)> = sqlx::query_as(
        "SELECT topic, partition, added_at IS NOT NULL, waits_for FROM sightline.logs ORDER BY log_id",
    )
    .fetch_all(&pool)
    .await
    .expect("a table");
    let row = |topic: &str, partition, waits_for: Option<Value>| {
        (topic.to_owned(), partition, waits_for.is_some(), waits_for)
    };
    let expected = [
        row("t", 0, None),
        row("t", 1, Some(json!({"1": 55}))),
        row("other", 0, None),
    ];
    assert_eq!(logs, expected);
    let waits: Vec<(String, bool)> = sqlx::query_as(
        "SELECT topic || '/' || partition, sightline.waits_for_partitions('order', 1, log_id)
         FROM sightline.logs ORDER BY log_id",
    )
    .fetch_all(&pool)
    .await
    .expect("a function");
    let waits: Vec<_> = waits.iter().map(|(log, waits)| (&**log, *waits)).collect();
    assert_eq!(waits, [("t/0", false), ("t/1", true), ("other/0", false)]);
}
