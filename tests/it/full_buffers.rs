//! A backlog that is fetched faster than it is projected.

use serde_json::json;
use sightline_testing::app::World;
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::database::Database;
use sightline_testing::proxy::Proxy;

const PARTITIONS: i32 = 3;
/// Of a partition. They are several times what buffers hold of it.
const RECORDS: i64 = 1_500;
const PADDING: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_full_buffers_is_not_fetched_again() {
    let proxy = Proxy::new().await;
    let Some(broker) = Broker::private_behind(&[proxy.port]) else {
        return;
    };
    proxy.set_target(broker.behind()[0]);
    let mut world = World::new(broker, Database::create().await, PARTITIONS).await;
    let address = format!("127.0.0.1:{}", proxy.port);
    world.set("SIGHTLINE_KAFKA_BROKERS", &address);
    world.set("SIGHTLINE_DOMAINS", "order");
    // The least that may be set: each partition has the smallest share.
    world.set("SIGHTLINE_KAFKA_BUFFER_BYTES", "1048576");
    let padding = "x".repeat(PADDING);
    let partitions = 0..PARTITIONS;
    let log: Vec<Record> = partitions
        .clone()
        .flat_map(|partition| (0..RECORDS).map(move |n| (partition, n)))
        .map(|(partition, n)| {
            let user = format!("u-{partition}-{n}");
            let data = json!({"email": "a@example.org", "status": "active", "padding": padding});
            Record::cloud_event(
                partition,
                &user,
                &format!("e-{user}"),
                "UserRegistered",
                data,
            )
        })
        .collect();
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let ends: Ends = partitions.map(|partition| (partition, RECORDS)).collect();
    caught_up(&running.rest, &ends).await;

    let fetched = proxy.answered();
    let bytes = log.len() as u64 * PADDING as u64;
    assert!(
        (bytes..bytes * 3 / 2).contains(&fetched),
        "{bytes} bytes of padding, {fetched} fetched"
    );
}
