//! A topic that is another one under the same name: never silently taken for what it was.

use crate::first_light::folded;
use crate::support::app::{SOON, World};
use crate::support::broker::Broker;
use crate::support::check::{Depth, assert_answers, caught_up, partitions};
use crate::support::database::Database;
use crate::support::log::{Shape, generate, seed};
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_while_it_runs_fails_the_domain() {
    recreated(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_while_nobody_looks_fails_the_domain() {
    recreated(true).await;
}

async fn recreated(stopped: bool) {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 1_000,
        partitions: 2,
        users: 40,
    };
    let log = generate(seed(), shape);
    let (fold, ends) = folded(&log, 2);
    let world = World::new(broker, Database::create().await, 2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    let before = caught_up(&running.rest, &ends).await;
    if stopped {
        running.app.process.kill();
    }
    world.broker.delete_topic(&world.topic).await;
    world.broker.create_topic(&world.topic, 2).await;
    // As long as the old one and longer: positions alone would not show it.
    let other = generate(
        seed() + 9,
        Shape {
            records: 2_000,
            ..shape
        },
    );
    world.broker.writer().write(&world.topic, &other).await;
    if stopped {
        running = world.serve().await;
    }
    let after = wait_until(SOON, "the domain reads failed", async || {
        let domain = running.rest.try_get("/v1/consistency/order").await?.json();
        let partitions = partitions(&domain);
        let failed = partitions
            .values()
            .all(|p| p["state"] == "failed" && p["failure"].is_string());
        if failed && domain["state"] == "failed" {
            Ok(partitions)
        } else {
            Err(domain.to_string())
        }
    })
    .await;
    for (number, partition) in &after {
        for name in ["position", "read", "applied"] {
            assert_eq!(
                partition[name], before["order"][number][name],
                "nothing of the new topic: {name} of {number}"
            );
        }
    }
    assert_answers(&running, &fold, Depth::Brief).await;
}
