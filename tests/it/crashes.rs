//! Processes and servers that crash, start, stop and freeze during projection: answers and books stay right.

use std::time::Duration;

use fastrand::Rng;
use sightline_testing::app::{App, LONG, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{
    Depth, Ends, assert_answers, assert_books, caught_up, folded, partitions,
};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::wait_until;

const SHAPE: Shape = Shape {
    records: 12_000,
    partitions: 4,
    users: 300,
};

/// How many records are read, according to a process that is alive.
async fn read(observer: &Rest) -> i64 {
    let domain = observer.get("/v1/consistency/order").await.json();
    partitions(&domain)
        .values()
        .filter_map(|p| p["read"].as_i64())
        .sum()
}

/// Waits until `more` further records are read, or all of them.
async fn read_more(observer: &Rest, more: i64, all: i64) {
    let wanted = all.min(read(observer).await + more);
    wait_until(LONG, "further records are read", async || {
        match read(observer).await {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_repeatedly_while_projecting() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed(), SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    let mut world = World::new(broker, Database::create().await, SHAPE.partitions).await;
    let writer = world.broker.writer();
    let mut rng = Rng::with_seed(seed());
    let observer = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    world.set("SIGHTLINE_ROLE", "all");
    let mut app: App = world.serve().await.app;
    let mut written = 0;
    // Records are written while others are projected, so that each kill interrupts work.
    for part in log.chunks(SHAPE.records / 8) {
        writer.write(&world.topic, part).await;
        written += part.len() as i64;
        read_more(&observer.rest, rng.i64(1..part.len() as i64 / 2), written).await;
        app.process.kill();
        app = world.launch();
        // Sometimes also while it starts.
        if rng.bool() {
            let lines = rng.usize(0..6);
            wait_until(SOON, "the process logs some lines", async || {
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
    // One ends on SIGTERM. One is frozen: when it wakes, other instances own its partitions and fence it.
    second.app.process.signal("TERM");
    third.app.process.signal("STOP");
    assert_eq!(second.app.process.wait(SOON), 0);
    writer.write(&world.topic, parts[3]).await;
    let fourth = world.serve().await;
    let so_far = world.broker.ends(&world.topic).await;
    caught_up(&fourth.rest, &so_far).await;
    third.app.process.signal("CONT");
    writer.write(&world.topic, parts[4]).await;
    for running in [&first, &third, &fourth] {
        assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    }
    assert_answers(&third, &fold, Depth::Brief).await;
    // All but one are killed: the last one claims all partitions and reports them.
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
async fn postgres_and_kafka_restart_while_projecting() {
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
        // The process is alive and reports the failure.
        wait_until(
            SOON,
            "reads report that the database is unavailable",
            async || {
                let answer = running.rest.try_get("/v1/order/customers/nobody").await?;
                match (answer.status, answer.header("retry-after")) {
                    (503, after) if !after.is_empty() => Ok(()),
                    (status, _) => Err(format!("{status}: {}", answer.text())),
                }
            },
        )
        .await;
        assert_eq!(running.admin.get("/livez").await.status, 200);
        world.database.start().await;
    }
    for part in &parts[2..] {
        writer.write(&world.topic, part).await;
        written += part.len() as i64;
        read_more(&running.rest, 300, written).await;
        world.broker.kill();
        // Reads work without Kafka; the view may not have been complete before.
        let answer = running.rest.get("/v1/order/customers/nobody").await;
        assert!(matches!(answer.status, 404 | 503), "{}", answer.text());
        assert!(!answer.token().is_empty(), "{}", answer.text());
        world.broker.start();
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    assert_eq!(
        running.app.process.exited(),
        None,
        "the process has not restarted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_without_an_owner_is_not_caught_up() {
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
        "the gateway reports that there is no owner",
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
