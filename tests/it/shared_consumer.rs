//! What several domains fetch of one log.

use serde_json::json;
use sightline_testing::app::{LONG, SOON, World};
use sightline_testing::broker::{Broker, Record, Writer};
use sightline_testing::check::{Ends, caught_up, partitions};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::proxy::Proxy;
use sightline_testing::wait_until;

const DOMAINS: [&str; 3] = ["order", "fulfillment", "search"];
const PADDING: usize = 2_000;

/// One partition, what was written to it, and what the gateway has fetched.
struct Log {
    topic: String,
    writer: Writer,
    proxy: Proxy,
    written: i64,
}

impl Log {
    async fn write(&mut self, records: i64) {
        let padding = "x".repeat(PADDING);
        let new = self.written..self.written + records;
        let new: Vec<Record> = new
            .map(|n| {
                let user = format!("u-{n}");
                let data =
                    json!({"email": "a@example.org", "status": "active", "padding": padding});
                Record::cloud_event(0, &user, &format!("e-{n}"), "UserRegistered", data)
            })
            .collect();
        self.writer.write(&self.topic, &new).await;
        self.written += records;
    }

    fn ends(&self) -> Ends {
        Ends::from([(0, self.written)])
    }

    /// Writes until what comes new is fetched once, not by each domain.
    async fn is_shared(&mut self, rest: &Rest) {
        const RECORDS: i64 = 50;
        wait_until(SOON, "new records are fetched once", async || {
            let before = self.proxy.answered();
            self.write(RECORDS).await;
            caught_up(rest, &self.ends()).await;
            let fetched = self.proxy.answered() - before;
            let bytes = RECORDS as u64 * PADDING as u64;
            match fetched {
                fetched if fetched < bytes * 3 / 2 => Ok(()),
                fetched => Err(format!("{bytes} bytes of padding, {fetched} fetched")),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_share_what_is_fetched_until_one_of_them_falls_behind() {
    shared_until_one_falls_behind("group.protocol=classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_share_where_brokers_assign_partitions() {
    shared_until_one_falls_behind("group.protocol=consumer").await;
}

async fn shared_until_one_falls_behind(properties: &str) {
    let proxy = Proxy::new().await;
    let Some(broker) = Broker::private_behind(&[proxy.port]) else {
        return;
    };
    proxy.set_target(broker.behind()[0]);
    let mut world = World::new(broker, Database::create().await, 1).await;
    let address = format!("127.0.0.1:{}", proxy.port);
    world.set("SIGHTLINE_KAFKA_BROKERS", &address);
    world.set("SIGHTLINE_KAFKA_PROPERTIES", properties);
    world.set("SIGHTLINE_DOMAINS", &DOMAINS.join(","));
    // The least that may be set: each partition has the smallest share.
    world.set("SIGHTLINE_KAFKA_BUFFER_BYTES", "1048576");
    let running = world.serve().await;
    let rest = &running.rest;
    let mut log = Log {
        topic: world.topic.clone(),
        writer: world.broker.writer(),
        proxy,
        written: 0,
    };
    log.is_shared(rest).await;

    let locked = world.database.lock_progress("order", 0).await;
    let held_at = log.written;
    // Several times what the buffer holds.
    log.write(1_000).await;
    wait_until(LONG, "the other domains go on", async || {
        let answer = rest.try_get("/v1/consistency").await?.json();
        let domains = answer["domains"].as_array().cloned().unwrap_or_default();
        let positions: Vec<(String, i64)> = domains
            .iter()
            .filter_map(|domain| {
                let position = partitions(domain).get(&0)?["position"].as_i64()?;
                Some((domain["domain"].as_str()?.to_owned(), position))
            })
            .collect();
        let is_expected = positions.len() == DOMAINS.len()
            && positions.iter().all(|(domain, position)| {
                let expected = if domain == "order" {
                    held_at
                } else {
                    log.written
                };
                *position == expected
            });
        if is_expected {
            Ok(())
        } else {
            Err(format!("{positions:?}"))
        }
    })
    .await;
    locked.rollback().await.expect("unlocked");
    caught_up(rest, &log.ends()).await;
    log.is_shared(rest).await;
}
