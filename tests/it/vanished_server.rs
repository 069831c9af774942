//! A database server that is gone without a word, as after a fail-over by a moving address: old connections lead nowhere,
//! new ones work.

use serde_json::json;
use sightline_testing::app::{LONG, SOON, World};
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

/// A record that becomes a dead letter.
fn bad(user: &str) -> Record {
    let data = json!({"email": 12});
    Record::cloud_event(0, user, &format!("e-{user}"), "UserEmailVerified", data)
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
    // The mock broker creates no topics.
    let publishes = Broker::real().is_some();
    let dead_letter_topic = format!("{}.dlq.order", world.topic);
    for round in 1..=3 {
        let users = [0, 1].map(|partition| format!("u-{round}-{partition}"));
        let [first, second] =
            [0, 1].map(|partition| registered(partition, &users[partition as usize]));
        let records = [first, second, bad(&format!("bad-{round}"))];
        writer.write(&world.topic, &records).await;
        let ends = Ends::from([(0, 2 * round), (1, round)]);
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
        if publishes {
            // A statement on a connection that was abandoned is given up after half a minute, and so is
            // the lock of its session.
            wait_until(LONG, "the dead letter is published", async || {
                let published = world.broker.read_all(&dead_letter_topic).len() as i64;
                if published >= round {
                    Ok(())
                } else {
                    Err(format!("{published} dead letters in round {round}"))
                }
            })
            .await;
        }
        proxy.abandon();
    }
}
