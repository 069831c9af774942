//! Partitions that are assigned together are claimed together, and one whose row is locked holds up no other.

use serde_json::json;
use sightline_testing::app::{SOON, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up, partitions};
use sightline_testing::wait_until;
use sqlx::PgPool;

const PARTITIONS: i32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_claimed_together_and_a_locked_one_holds_up_no_other() {
    let world = World::shared(PARTITIONS).await;
    let writer = world.broker.writer();
    let records = |n| (0..PARTITIONS).map(move |partition| event(partition, n));
    let ends = |end| -> Ends { (0..PARTITIONS).map(|partition| (partition, end)).collect() };
    let first: Vec<Record> = records(0).collect();
    writer.write(&world.topic, &first).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &ends(1)).await;
    running.app.process.signal("TERM");
    assert_eq!(running.app.process.wait(SOON), 0);
    let pool = PgPool::connect(&world.database.url).await;
    let pool = pool.expect("the database");

    // Nothing is to be projected, so the claims are the last to write the rows.
    let before: i64 = epochs(&pool).await;
    let mut running = world.serve().await;
    wait_until(SOON, "all partitions are claimed", async || {
        match epochs(&pool).await - before {
            claims if claims >= PARTITIONS.into() => Ok(()),
            claims => Err(format!("{claims} claims")),
        }
    })
    .await;
    let transactions: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT xmin::text) FROM sightline.progress WHERE domain = 'order'",
    )
    .fetch_one(&pool)
    .await
    .expect("a count");
    assert!(transactions <= 4, "{transactions} transactions");
    running.app.process.signal("TERM");
    assert_eq!(running.app.process.wait(SOON), 0);

    let locked = world.database.lock_progress("order", 0).await;
    let second: Vec<Record> = records(1).collect();
    writer.write(&world.topic, &second).await;
    let running = world.serve().await;
    wait_until(SOON, "the others are projected", async || {
        let answer = running.rest.try_get("/v1/consistency/order").await?.json();
        let shown = partitions(&answer);
        let at = |end: i64| {
            shown
                .values()
                .filter(|shown| shown["position"] == end)
                .count()
        };
        match (at(1), at(2)) {
            (1, others) if others + 1 == PARTITIONS as usize => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    locked.rollback().await.expect("unlocked");
    caught_up(&running.rest, &ends(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_partition_of_which_only_the_position_moves_waits_for_its_row() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "order");
    let writer = world.broker.writer();
    writer.write(&world.topic, &[event(0, 0)]).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;
    let pool = PgPool::connect(&world.database.url).await;
    let pool = pool.expect("the database");
    let before = epochs(&pool).await;
    let locked = world.database.lock_progress("order", 0).await;
    let tombstone = Record {
        value: None,
        ..event(0, 1)
    };
    writer.write(&world.topic, &[tombstone]).await;
    wait_until(SOON, "the partition waits", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&pool)
        .await
        .expect("a count");
        (waiting == 1).then_some(()).ok_or(waiting.to_string())
    })
    .await;
    locked.rollback().await.expect("unlocked");
    caught_up(&running.rest, &Ends::from([(0, 2)])).await;
    assert_eq!(epochs(&pool).await, before, "it was claimed again");
}

/// The sum of the epochs of `order`, which each claim raises by one.
async fn epochs(pool: &PgPool) -> i64 {
    let sum = "SELECT sum(epoch)::bigint FROM sightline.progress WHERE domain = 'order'";
    sqlx::query_scalar(sum)
        .fetch_one(pool)
        .await
        .expect("a sum")
}

fn event(partition: i32, n: usize) -> Record {
    let (user, id) = (format!("u-{partition}"), format!("e-{partition}-{n}"));
    let data = json!({"updatedFields": {"username": id}});
    Record::cloud_event(partition, &user, &id, "UserUpdated", data)
}
