//! How long an event id is remembered: until both windows have passed, of offsets and of stream time.

use serde_json::json;
use sightline_testing::app::{SOON, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::customer_path;
use sightline_testing::operations::{dead_letters, operate, retry_all};
use sightline_testing::wait_until;
use sqlx::PgPool;

const DAY: i64 = 86_400_000;
const START: i64 = 1_790_000_000_000;

/// The n-th username of the user `u`, as an event with this id.
fn named(id: &str, n: i64, timestamp: i64) -> Record {
    let value = json!({
        "eventId": id, "eventType": "UserUpdated", "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": {"userId": "u", "updatedFields": {"username": format!("name {n}")}},
    });
    Record {
        partition: 0,
        key: Some("u".into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp,
    }
}

/// A record that no domain is interested in.
fn tombstone(timestamp: i64) -> Record {
    Record {
        value: None,
        ..named("-", 0, timestamp)
    }
}

/// Writes the log and waits for it. Returns the user's name, and how many records of order were duplicates.
async fn outcome(world: &World, log: &[Record], length: i64) -> (String, i64) {
    world.broker.writer().write(&world.topic, log).await;
    let running = world.serve().await;
    let lag = caught_up(&running.rest, &Ends::from([(0, length)])).await;
    let customer = running.rest.get(&customer_path("u")).await.json();
    let name = customer["username"].as_str().expect("a name").to_owned();
    let duplicates = lag["order"][&0]["duplicates"].as_i64().expect("a count");
    (name, duplicates)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_within_milliseconds_of_a_quiet_quarter_is_a_duplicate() {
    let world = World::shared(1).await;
    let later = START + 100 * DAY;
    let mut log = vec![named("first", 0, START), named("A", 1, later)];
    log.extend((2..99).map(|n| named(&format!("other {n}"), n, later)));
    log.push(named("A", 1, later + 3));
    let length = log.len() as i64;
    assert_eq!(
        outcome(&world, &log, length).await,
        ("name 98".to_owned(), 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_another_event_once_both_windows_have_passed() {
    let world = World::shared(1).await;
    // Stream time moves by a day per record at most: 91 of these are a quarter, and the rest are offsets.
    let passing = |records: i64| (1..=records).map(|n| tombstone(START + n.min(91) * DAY));
    // Stream time of a new partition begins in 1970: it has to come to the present first.
    let young = (1..=START / DAY).map(|day| tombstone(day * DAY));
    let mut log: Vec<Record> = young.collect();
    log.extend([named("A", 1, START), named("B", 2, START)]);
    log.extend(passing(99_997));
    // Behind the first one of its id by 99,999 offsets.
    log.push(named("A", 3, START));
    log.push(tombstone(START));
    // By 100,000, which makes it another event.
    log.push(named("B", 4, START));
    log.push(named("B", 5, START));
    let length = log.len() as i64;
    assert_eq!(
        outcome(&world, &log, length).await,
        ("name 4".to_owned(), 2)
    );
}

/// Runs of 40,000 ids, as a log has after months: of none of them can the ids be among those that the tests write.
async fn add_runs(pool: &PgPool, count: i32, last_time: &str) {
    sqlx::query(
        "INSERT INTO order_live.event_id_runs (log_id, run, ids_count, last_offset, last_time, filter, ids)
         SELECT log_id, n, 40000, -200000, $2::timestamptz, decode(repeat('00', 1000), 'hex'), decode(repeat('00', 1950), 'hex')
         FROM sightline.progress, generate_series(1, $1) AS n
         WHERE domain = 'order'",
    )
    .bind(count)
    .bind(last_time)
    .execute(pool)
    .await
    .expect("inserted");
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_dead_letters_are_retried_although_their_log_has_thousands_of_runs() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "order");
    let bad = json!({"eventId": "bad", "eventType": "UserUpdated", "payload": {"userId": "u", "updatedFields": 5}});
    let mut log = vec![Record {
        value: Some(bad.to_string().into_bytes()),
        ..named("bad", 0, START)
    }];
    log.extend((1..=300).map(|n| named(&format!("e-{n}"), n, START)));
    // A redelivery is found among them.
    log.push(named("e-300", 0, START));
    let ends = Ends::from([(0, log.len() as i64)]);
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("the database");
    add_runs(&pool, 5_000, "2100-01-01T00:00:00Z").await;
    let first = dead_letters(&running.rest, &[("reason", Some("wrong_type"))]).await;
    let id = first[0]["id"].as_str().expect("an id");
    let discard = format!("/v1/dead-letters/{id}/discard");
    operate(&running.rest, &discard, json!({"reason": "a test"})).await;
    retry_all(&running.rest, "order").await;
    let shown = caught_up(&running.rest, &ends).await["order"][&0].clone();
    let books = ["applied", "duplicates", "deadLettered"].map(|name| shown[name].as_i64());
    assert_eq!(books, [Some(300), Some(1), Some(1)]);
    let customer = running.rest.get(&customer_path("u")).await.json();
    assert_eq!(customer["username"], "name 300");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_expire_at_once_are_all_deleted() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "order");
    let log = [named("first", 0, START)];
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;
    running.app.process.kill();
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("the database");
    // Stream time of a new partition begins in 1970.
    add_runs(&pool, 100, "1960-01-01T00:00:00Z").await;
    let _running = world.serve().await;
    wait_until(SOON, "the runs are deleted", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM order_live.event_id_runs")
            .fetch_one(&pool)
            .await
            .expect("a count");
        (left == 1).then_some(()).ok_or(left.to_string())
    })
    .await;
}
