//! How long an event id is remembered: until both windows have passed, of offsets and of stream time.

use serde_json::json;
use sightline_testing::app::World;
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::customer_path;

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
