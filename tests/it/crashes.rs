//! Whatever crashes, joins or leaves while it projects: the same answers and books.

use crate::first_light::folded;
use crate::support::app::{App, LONG, SOON, World};
use crate::support::broker::{Broker, Record};
use crate::support::check::{Depth, Ends, assert_answers, assert_books, caught_up, partitions};
use crate::support::client::Rest;
use crate::support::database::Database;
use crate::support::log::{Shape, generate, seed};
use crate::support::wait_until;
use fastrand::Rng;
use std::time::Duration;

const SHAPE: Shape = Shape {
    records: 30_000,
    partitions: 4,
    users: 600,
};

/// How many records are read, as somebody says who lives.
async fn read(witness: &Rest) -> i64 {
    let domain = witness.get("/v1/consistency/order").await.json();
    partitions(&domain)
        .values()
        .filter_map(|p| p["read"].as_i64())
        .sum()
}

/// Waits until this many more are read, or all that is there.
async fn read_more(witness: &Rest, more: i64, all: i64) {
    let wanted = all.min(read(witness).await + more);
    wait_until(LONG, "some more is read", async || {
        match read(witness).await {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_while_projecting() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed(), SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    let mut world = World::new(broker, Database::create().await, SHAPE.partitions).await;
    let writer = world.broker.writer();
    let mut rng = Rng::with_seed(seed());
    let witness = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    world.set("SIGHTLINE_ROLE", "all");
    let mut app: App = world.serve().await.app;
    let mut written = 0;
    // The log grows while it is read: each kill falls into live work.
    for part in log.chunks(SHAPE.records / 8) {
        writer.write(&world.topic, part).await;
        written += part.len() as i64;
        read_more(&witness.rest, rng.i64(1..part.len() as i64 / 2), written).await;
        app.process.kill();
        app = world.launch();
        // Sometimes while it starts, too.
        if rng.bool() {
            let lines = rng.usize(0..6);
            wait_until(SOON, "it writes some lines", async || {
                match app.process.output.lines().len() {
                    n if n >= lines => Ok(()),
                    n => Err(format!("{n} lines")),
                }
            })
            .await;
            app.process.kill();
            app = world.launch();
        }
    }
    let running = app.ready().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_join_leave_freeze_and_die() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 1, SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    let world = World::new(broker, Database::create().await, SHAPE.partitions).await;
    let writer = world.broker.writer();
    let parts: Vec<&[Record]> = log.chunks(SHAPE.records / 5).collect();

    let first = world.serve().await;
    writer.write(&world.topic, parts[0]).await;
    let mut second = world.serve().await;
    writer.write(&world.topic, parts[1]).await;
    let mut third = world.serve().await;
    writer.write(&world.topic, parts[2]).await;
    read_more(
        &first.rest,
        500,
        parts[..3].iter().map(|part| part.len() as i64).sum(),
    )
    .await;
    // One leaves as asked, one is frozen: a zombie when it wakes, fenced by then.
    second.app.process.signal("TERM");
    third.app.process.signal("STOP");
    assert_eq!(second.app.process.wait(SOON), 0);
    writer.write(&world.topic, parts[3]).await;
    let fourth = world.serve().await;
    let so_far: Ends = (0..SHAPE.partitions)
        .map(|p| (p, world.broker.end(&world.topic, p)))
        .collect();
    caught_up(&fourth.rest, &so_far).await;
    third.app.process.signal("CONT");
    writer.write(&world.topic, parts[4]).await;
    for running in [&first, &third, &fourth] {
        assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    }
    assert_answers(&third, &fold, Depth::Brief).await;
    // All but one die: the one takes over and says so.
    third.app.process.kill();
    drop(first);
    let more = generate(
        seed() + 2,
        Shape {
            records: 2_000,
            ..SHAPE
        },
    );
    writer.write(&world.topic, &more).await;
    let (fold, ends) = folded(&[log, more].concat(), SHAPE.partitions);
    assert_books(&caught_up(&fourth.rest, &ends).await, &fold, &Ends::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_the_broker_go_away_and_come_back() {
    let Some(broker) = Broker::private() else {
        return;
    };
    let log = generate(seed() + 3, SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    let world = World::new(broker, Database::private().await, SHAPE.partitions).await;
    let writer = world.broker.writer();
    let mut running = world.serve().await;
    let parts: Vec<&[Record]> = log.chunks(SHAPE.records / 4).collect();

    let mut written = 0;
    for part in &parts[..2] {
        writer.write(&world.topic, part).await;
        written += part.len() as i64;
        read_more(&running.rest, 300, written).await;
        world.database.kill().await;
        // Alive, and honest about it.
        wait_until(SOON, "reads say that the database is away", async || {
            let answer = running.rest.try_get("/v1/order/customers/nobody").await?;
            match (answer.status, answer.header("retry-after")) {
                (503, after) if !after.is_empty() => Ok(()),
                (status, _) => Err(format!("{status}: {}", answer.text())),
            }
        })
        .await;
        assert_eq!(running.admin.get("/livez").await.status, 200);
        world.database.start().await;
    }
    for part in &parts[2..] {
        writer.write(&world.topic, part).await;
        written += part.len() as i64;
        read_more(&running.rest, 300, written).await;
        world.broker.kill();
        // Reads go on without Kafka.
        assert_eq!(
            running.rest.get("/v1/order/customers/nobody").await.status,
            404
        );
        world.broker.start();
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    assert_eq!(
        running.app.process.exited(),
        None,
        "the same process all the time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_consumer_never_reads_as_caught_up() {
    let log = generate(
        seed(),
        Shape {
            records: 300,
            partitions: 2,
            users: 20,
        },
    );
    let (_, ends) = folded(&log, 2);
    let mut world = World::shared(2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let mut projector = world.serve().await;
    caught_up(&projector.rest, &ends).await;
    let gateway = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    caught_up(&gateway.rest, &ends).await;
    projector.app.process.kill();
    wait_until(
        Duration::from_secs(60),
        "the gateway says that nobody projects",
        async || {
            let domain = gateway.rest.try_get("/v1/consistency/order").await?.json();
            let stalled = partitions(&domain)
                .values()
                .all(|p| p["state"] == "stalled" && p["failure"] == "no_owner");
            if stalled && domain["state"] == "stalled" {
                Ok(())
            } else {
                Err(domain.to_string())
            }
        },
    )
    .await;
}
