//! Two versions of a view beside each other: one log, one switched for the other, under live traffic and reads.

use crate::first_light::folded;
use crate::support::app::{LONG, SOON, World};
use crate::support::broker::{Broker, Record};
use crate::support::check::{Depth, Ends, assert_answers, assert_books, caught_up};
use crate::support::client::{Rest, customer_path};
use crate::support::database::Database;
use crate::support::log::{Shape, generate, seed};
use crate::support::wait_until;
use sightline::projector::versions::{self, SwitchError};
use sqlx::PgPool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SHAPE: Shape = Shape {
    records: 12_000,
    partitions: 3,
    users: 300,
};

/// Switches as soon as the version is not behind any more.
async fn switch(pool: &PgPool, version: i32) {
    wait_until(
        LONG,
        "the version is switched to",
        async || match versions::switch(pool, "order", version).await {
            Ok(()) => Ok(()),
            Err(error @ SwitchError::Behind { .. }) => Err(error.to_string()),
            Err(error) => panic!("{error:?}"),
        },
    )
    .await;
}

/// Which version is read, and how far each has come, summed over the partitions.
async fn positions(pool: &PgPool) -> Vec<(i32, String, i64)> {
    sqlx::query_as(
        "SELECT v.version, v.state, coalesce(sum(p.next_offset), 0)::bigint
         FROM sightline.views v LEFT JOIN sightline.progress p USING (domain, version)
         WHERE domain = 'order' GROUP BY v.version, v.state ORDER BY v.version",
    )
    .fetch_all(pool)
    .await
    .expect("the versions")
}

/// Reads a customer that is there again and again, until told to stop: it is never gone, and never fails.
async fn keep_reading(rest: Rest, path: String, stop: Arc<AtomicBool>) -> u64 {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        reads += 1;
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_are_projected_side_by_side_and_switched() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 5, SHAPE);
    let (before, rest) = log.split_at(SHAPE.records / 3);
    let (during, after) = rest.split_at(SHAPE.records / 3);
    let folded_to = |parts: &[&[Record]]| folded(&parts.concat(), SHAPE.partitions);
    let world = World::new(broker, Database::create().await, SHAPE.partitions).await;
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("the database");
    let writer = world.broker.writer();
    let running = world.serve().await;

    writer.write(&world.topic, before).await;
    let (fold, ends) = folded_to(&[before]);
    caught_up(&running.rest, &ends).await;
    let user = fold.order.view.ids().first().expect("a user").clone();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(keep_reading(
        running.rest.clone(),
        customer_path(&user),
        Arc::clone(&stop),
    ));

    // One that has projected nothing yet is refused.
    let second = versions::create(&pool, "order", 1)
        .await
        .expect("a version");
    assert_eq!(second, 2);
    let refused = versions::switch(&pool, "order", second).await;
    assert!(
        matches!(refused, Err(SwitchError::Behind { .. })),
        "{refused:?}"
    );
    let refused = versions::switch(&pool, "order", 7).await;
    assert!(
        matches!(refused, Err(SwitchError::NoSuchVersion)),
        "{refused:?}"
    );

    // Both project the log that grows, and the switch comes while they do.
    writer.write(&world.topic, during).await;
    switch(&pool, second).await;
    let (fold, ends) = folded_to(&[before, during]);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;

    // The former one goes on beside it, so that the way back never goes back in time.
    writer.write(&world.topic, after).await;
    let (fold, ends) = folded_to(&[&log]);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    let all: i64 = ends.values().sum();
    wait_until(
        SOON,
        "both versions are at the end",
        async || match positions(&pool).await {
            both if both == [(1, "retired".into(), all), (2, "live".into(), all)] => Ok(()),
            both => Err(format!("{both:?}, not {all}")),
        },
    )
    .await;
    switch(&pool, 1).await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reader.await.expect("every read was answered") > 0);
}
