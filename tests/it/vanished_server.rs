//! A database server that is gone without a word, as after a fail-over by a moving address: old connections lead nowhere,
//! new ones work.

use serde_json::json;
use sightline_testing::app::{SOON, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up_within};
use sightline_testing::client::customer_path;
use sightline_testing::database::Database;
use sightline_testing::proxy::Proxy;
use sightline_testing::{broker::Broker, wait_until};

fn registered(partition: i32, user: &str) -> Record {
    let data = json!({"email": "a@example.org", "status": "active"});
    let event = format!("e-{user}");
    Record::cloud_event(partition, user, &event, "UserRegistered", data)
}

#[tokio::test(flavor = "multi_thread")]
async fn projection_and_reads_go_on_over_new_connections() {
    let mut world = World::new(Broker::shared(), Database::create().await, 2).await;
    let proxy = Proxy::new().await;
    proxy.set_target(world.database.port());
    let url = world.database.url_through(proxy.port);
    world.set("SIGHTLINE_DATABASE_URL", &url);
    let running = world.serve().await;
    let writer = world.broker.writer();
    for round in 1..=3 {
        let users = [0, 1].map(|partition| format!("u-{round}-{partition}"));
        let records = [0, 1].map(|partition| registered(partition, &users[partition as usize]));
        writer.write(&world.topic, &records).await;
        let ends = Ends::from([(0, round), (1, round)]);
        caught_up_within(SOON, &running.rest, &ends).await;
        for user in &users {
            wait_until(SOON, "the read is answered", async || {
                let answer = running.rest.try_get(&customer_path(user)).await?;
                match answer.status {
                    200 => Ok(()),
                    _ => Err(answer.text()),
                }
            })
            .await;
        }
        proxy.abandon();
    }
}
