//! What real producers write reaches the views: the records of `tests/fixtures/records`, and batches in every
//! compression of librdkafka and of Kafka's Java client.

use std::collections::BTreeSet;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sightline::domains;
use sightline_testing::app::{Clients, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::customer_path;
use sightline_testing::database::Database;
use sightline_testing::{unique, wait_until};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/records");
const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_every_captured_producer_are_projected() {
    let captured: Vec<Vec<Record>> = producers()
        .iter()
        .zip(0..)
        .map(|(producer, partition)| records_of(producer, partition))
        .collect();
    let partitions = captured.len() as i32;
    // The events have the same ids for every producer: in partitions of their own they are events of their own.
    let mut world = World::shared(partitions).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    world
        .broker
        .writer()
        .write(&world.topic, &captured.concat())
        .await;
    let running = world.serve().await;

    let ends: Ends = captured
        .iter()
        .zip(0..)
        .map(|(records, partition)| (partition, records.len() as i64))
        .collect();
    let lag = caught_up(&running.rest, &ends).await;
    let names: BTreeSet<&str> = lag.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from_iter(domains::names()));
    for (domain, partitions) in &lag {
        for (partition, producer) in (0..).zip(producers()) {
            let books = &partitions[&partition];
            let counted = ["read", "deadLettered", "duplicates"].map(|name| books[name].as_i64());
            assert_eq!(
                counted,
                [Some(5), Some(0), Some(0)],
                "{producer} in {domain}: {books}"
            );
        }
    }
    for producer in producers() {
        assert_customers(&running, &producer).await;
    }
}

/// Both users of `scripts/capture-records/events.json`.
async fn assert_customers(clients: &Clients, producer: &str) {
    let get = async |id: String| {
        let answer = clients.rest.get(&customer_path(&id)).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        answer.json()
    };
    let anna = get(format!("{producer}-anna")).await;
    let names = [
        "email",
        "firstName",
        "lastName",
        "displayName",
        "registeredAt",
    ];
    assert_eq!(
        names.map(|name| &anna[name]),
        [
            "änne@müller.example",
            "Änne",
            "Müller-Løkke 李",
            "Änne 🎉",
            "2026-11-20T09:00:00.123456Z"
        ],
        "{producer}: {anna}"
    );
    let address = &anna["addresses"][0];
    let names = ["addressId", "type", "streetLine1", "city", "contactName"];
    assert_eq!(
        names.map(|name| &address[name]),
        [
            "addr-uuid-789",
            "home",
            "Schäfergaße 5 ½",
            "Köln",
            "Änne 🦀 Müller"
        ],
        "{producer}: {anna}"
    );
    let bob = get(format!("{producer}-bob")).await;
    assert_eq!(
        bob["deletedAt"], "2026-11-20T09:19:59Z",
        "{producer}: {bob}"
    );
    assert_eq!(bob["email"], Value::Null, "{producer}: {bob}");
}

/// The names of the captured producers, sorted.
fn producers() -> Vec<String> {
    let files = std::fs::read_dir(FIXTURES).expect("the fixtures");
    let names = files.map(|file| file.expect("a file").file_name());
    let mut producers: Vec<String> = names
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    producers.sort();
    producers
}

/// A producer's records, to be written to this partition.
fn records_of(producer: &str, partition: i32) -> Vec<Record> {
    let text = std::fs::read_to_string(format!("{FIXTURES}/{producer}.json")).expect("a fixture");
    let captured: Vec<Value> = serde_json::from_str(&text).expect("records");
    let bytes = |value: &Value| {
        let text = value.as_str()?;
        Some(BASE64_STANDARD.decode(text).expect("base64"))
    };
    let header = |header: &Value| {
        let name = header[0].as_str().expect("a name").to_owned();
        (name, bytes(&header[1]).expect("no header is null"))
    };
    let record = |record: &Value| {
        let headers = record["headers"].as_array().expect("a list");
        Record {
            partition,
            key: bytes(&record["keyBase64"]),
            value: bytes(&record["valueBase64"]),
            headers: headers.iter().map(header).collect(),
            timestamp: record["timestampMs"].as_i64().expect("a number"),
        }
    };
    captured.iter().map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_of_librdkafka_and_of_java_is_read() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    let mut topics = Vec::new();
    for compression in COMPRESSIONS {
        for client in ["librdkafka", "java"] {
            let topic = unique(&format!("{client}.{compression}"));
            world.broker.create_topic(&topic, 1).await;
            write(&world.broker, client, compression, &topic).await;
            if let Some(stored) = world.broker.compressions(&topic, 0) {
                assert_eq!(stored, BTreeSet::from([compression]), "{client}");
            }
            topics.push(topic);
        }
    }
    world.set("SIGHTLINE_KAFKA_TOPICS", &topics.join(","));
    let running = world.serve().await;

    for compression in COMPRESSIONS {
        for client in ["librdkafka", "java"] {
            let ids: Vec<String> = (0..USERS)
                .map(|number| user_id(client, compression, number))
                .collect();
            let request = json!({"userIds": ids});
            let found = wait_until(SOON, "every user is projected", async || {
                let path = "/v1/order/customers:batchGet";
                let answer = running.rest.try_post(path, &request).await?;
                let answer = answer.json();
                if answer["missing"] == json!([]) {
                    Ok(answer)
                } else {
                    Err(answer.to_string())
                }
            })
            .await;
            let customers = found["customers"].as_array().expect("a list");
            let names: BTreeSet<&str> = customers
                .iter()
                .filter_map(|customer| customer["firstName"].as_str())
                .collect();
            assert_eq!(customers.len(), USERS, "{client}, {compression}");
            assert_eq!(
                names,
                BTreeSet::from(["Änne 🦀"]),
                "{client}, {compression}"
            );
        }
    }
}

/// How many users each client registers with each compression.
const USERS: usize = 50;

fn user_id(client: &str, compression: &str, number: usize) -> String {
    format!("{client}-{compression}-{number}")
}

/// Registers the users: one event for each, in as few batches as the client makes.
async fn write(broker: &Broker, client: &str, compression: &str, topic: &str) {
    let users = (0..USERS).map(|number| user_id(client, compression, number));
    let events = users.map(|id| {
        let event = json!({
            "eventId": format!("registered-{id}"),
            "eventType": "UserRegisteredEventV1",
            "eventTimestamp": "2026-11-20T09:00:00Z",
            "payload": {"userId": id, "email": "a@example.com", "firstName": "Änne 🦀", "status": "active"},
        });
        (id, event.to_string())
    });
    if client == "java" {
        let mut lines = String::new();
        for (key, value) in events {
            writeln!(lines, "{key}\t{value}").expect("a string takes everything");
        }
        broker.write_with_java(topic, compression, &lines);
    } else {
        let record = |(key, value): (String, String)| Record {
            partition: 0,
            key: Some(key.into_bytes()),
            value: Some(value.into_bytes()),
            headers: Vec::new(),
            timestamp: 1_795_165_200_000,
        };
        let records: Vec<Record> = events.map(record).collect();
        let writer = broker.compressing_writer(compression);
        writer.write(topic, &records).await;
    }
}
