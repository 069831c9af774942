//! A database's clock that was set back, as after a fail-over to a host whose clock is behind: what was written before
//! lies in the future.

use sightline_testing::app::{SOON, World};
use sightline_testing::check::caught_up;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_consumer_from_the_future_is_not_caught_up() {
    let shape = Shape {
        records: 100,
        partitions: 1,
        users: 10,
    };
    let mut world = World::shared(shape.partitions).await;
    let log = generate(seed(), shape);
    world.broker.writer().write(&world.topic, &log).await;
    let ends = world.broker.ends(&world.topic).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    let mut database = PgConnection::connect(&world.database.url)
        .await
        .expect("a connection");

    // A reading of the log's offsets is replaced although it lies ahead.
    set_back(&mut database, "log_offsets", "read_at").await;
    caught_up(&running.rest, &ends).await;

    drop(running);
    set_back(&mut database, "heartbeats", "seen_at").await;
    let gateway = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    wait_until(SOON, "the partition has no owner", async || {
        let lag = gateway.rest.try_get("/v1/consistency/order").await?.json();
        let partition = &lag["partitions"][0];
        if partition["state"] == "stalled" && partition["failure"] == "no_owner" {
            Ok(())
        } else {
            Err(lag.to_string())
        }
    })
    .await;
}

/// Moves the times of a table an hour ahead, as if the clock had been set back by an hour.
async fn set_back(database: &mut PgConnection, table: &str, column: &str) {
    let statement = format!("UPDATE sightline.{table} SET {column} = {column} + interval '1 hour'");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(database)
        .await
        .expect("a superuser may do this");
}
