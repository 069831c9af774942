//! A broker that hangs makes the offsets of the partitions that it leads stale, and no others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sightline_testing::app::{Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up, partitions};
use sightline_testing::database::Database;
use sightline_testing::wait_until;

const PARTITIONS: i32 = 4;
/// How long the broker hangs. Its controller gives it up in between, after 9 s.
const HANGS_SECONDS: f64 = 15.0;
/// Offsets that waited for an answer of the hanging broker are older: a request is given up after 5 s. Others are read,
/// written and answered once a second each, so they are 3 s old at most while the machine keeps up.
const FRESH_SECONDS: f64 = 4.5;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_makes_only_its_own_partitions_stale() {
    let Some([broker, hanging]) = Broker::private_pair() else {
        return;
    };
    let world = World::new(broker, Database::create().await, PARTITIONS).await;
    let led = world.broker.led_by(&world.topic, 2);
    assert_eq!(led.len(), 2, "each broker leads two partitions: {led:?}");
    let others = (0..PARTITIONS).filter(|partition| !led.contains(partition));
    let others: Vec<i32> = others.collect();
    let writer = world.broker.writer();
    let records: Vec<Record> = (0..PARTITIONS)
        .map(|partition| event(partition, 0))
        .collect();
    writer.write(&world.topic, &records).await;
    let running = world.serve().await;
    let ends: Ends = (0..PARTITIONS).map(|partition| (partition, 1)).collect();
    caught_up(&running.rest, &ends).await;

    hanging.signal("STOP");
    wait_until(
        SOON,
        "the hanging broker's partitions are stale",
        async || {
            let found = consistency(&running).await;
            for partition in &others {
                let found = &found[partition];
                assert!(is_fresh(found), "it has another leader: {found}");
            }
            let is_stale = |partition| age(&found[partition]) > HANGS_SECONDS;
            if led.iter().all(is_stale) {
                return Ok(());
            }
            Err(format!("{found:?}"))
        },
    )
    .await;
    for partition in &led {
        let state = &consistency(&running).await[partition]["state"];
        assert_ne!(state, "caught_up", "partition {partition}");
    }
    // The gauges of the lag are NaN for those partitions, and for no others.
    for (partition, is_known) in led
        .iter()
        .map(|partition| (partition, false))
        .chain(others.iter().map(|partition| (partition, true)))
    {
        for gauge in [
            "sightline_lag_records",
            "sightline_oldest_unapplied_seconds",
        ] {
            wait_until(SOON, &format!("{gauge} of {partition}"), async || {
                let metrics = running.admin.try_get("/metrics").await?.text();
                let labels = format!(
                    "{{domain=\"order\",topic=\"{}\",partition=\"{partition}\"}} ",
                    world.topic
                );
                let value = metrics
                    .lines()
                    .find_map(|line| line.strip_prefix(gauge)?.strip_prefix(&labels));
                match value {
                    Some("0") if is_known => Ok(()),
                    Some("NaN") if !is_known => Ok(()),
                    value => Err(format!("{value:?}")),
                }
            })
            .await;
        }
    }
    let more: Vec<Record> = others
        .iter()
        .map(|partition| event(*partition, 1))
        .collect();
    writer.write(&world.topic, &more).await;
    wait_until(SOON, "the other partitions are projected", async || {
        let found = consistency(&running).await;
        let is_projected = |partition| found[partition]["position"] == 2;
        if others.iter().all(is_projected) {
            return Ok(());
        }
        Err(format!("{found:?}"))
    })
    .await;

    hanging.signal("CONT");
    wait_until(
        Duration::from_secs(20),
        "all partitions are fresh",
        async || {
            let found = consistency(&running).await;
            if found.values().all(is_fresh) {
                return Ok(());
            }
            Err(format!("{found:?}"))
        },
    )
    .await;
    let of_outages = |line: &Value, message: &str| {
        let said = line["message"].as_str().unwrap_or_default();
        said.contains(message)
    };
    for message in [
        "offsets of partitions can't be read",
        "returns the topic's offsets again",
    ] {
        wait_until(SOON, message, async || {
            let log = running.app.log();
            match log.iter().filter(|line| of_outages(line, message)).count() {
                1 => Ok(()),
                n => Err(format!("{n} lines")),
            }
        })
        .await;
    }
}

/// What `/v1/consistency` says of the partitions of one domain.
async fn consistency(running: &Running) -> BTreeMap<i32, Value> {
    let answer = running.rest.get("/v1/consistency/order").await.json();
    partitions(&answer)
}

fn age(partition: &Value) -> f64 {
    partition["endReadAgeSeconds"].as_f64().expect("an age")
}

fn is_fresh(partition: &Value) -> bool {
    partition["state"] == "caught_up" && age(partition) < FRESH_SECONDS
}

fn event(partition: i32, n: usize) -> Record {
    let (user, id) = (format!("u-{partition}"), format!("e-{partition}-{n}"));
    let data = json!({"updatedFields": {"username": id}});
    Record::cloud_event(partition, &user, &id, "UserUpdated", data)
}
