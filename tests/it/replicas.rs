//! Reads from a hot standby: used while it is fresh enough for what a request demands, and never in the place of what it lacks.

use std::time::Duration;

use http::Method;
use serde_json::json;
use sightline_testing::app::{Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::client::{Answer, customer_path};
use sightline_testing::database::Database;
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

async fn on_standby(standby: &Database, statement: &'static str) {
    let mut connection = PgConnection::connect(&standby.url)
        .await
        .expect("it answers");
    let done = sqlx::query(statement).execute(&mut connection).await;
    done.expect("the superuser may do this");
}

/// Writes a registration, and returns the token of its acknowledgement.
async fn register(world: &World, user: &str) -> String {
    let now = chrono::Utc::now();
    let body = json!({
        "eventId": format!("r-{user}"), "eventType": "UserRegistered", "eventTimestamp": now.to_rfc3339(),
        "payload": {"userId": user, "email": "a@b.org", "status": "active"},
    });
    let record = Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: now.timestamp_millis(),
    };
    let offset = world.broker.writer().write(&world.topic, &[record]).await[0];
    format!("{}/0@{offset}", world.topic)
}

async fn read(running: &Running, user: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [headers, &[("sightline-wait", "10")]].concat();
    let path = customer_path(user);
    running.rest.send(Method::GET, &path, &headers, &[]).await
}

/// Waits until the status of an eventual read is so on both surfaces, in several reads one after the other.
async fn is_eventually(running: &Running, user: &str, status: u16, grpc: tonic::Code) {
    let message = [&[0x0a, user.len() as u8], user.as_bytes()].concat();
    let method = "/sightline.order.v1.OrderService/GetCustomer";
    wait_until(SOON, "reads are answered by the other server", async || {
        for _ in 0..5 {
            let answer = read(running, user, &[]).await;
            let (code, _) = running.raw_grpc.raw_grpc(method, &[], &message).await;
            if (answer.status, code) != (status, grpc as i32) {
                return Err(format!("{} {code}", answer.text()));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_answers_what_it_is_fresh_enough_for() {
    let (primary, standby) = Database::with_standby().await;
    let mut world = World::new(Broker::shared(), primary, 1).await;
    world.set("SIGHTLINE_DATABASE_READ_URLS", &standby.url);
    let running = world.serve().await;
    let first = register(&world, "first").await;
    let at_least = |token| {
        [
            ("sightline-consistency", "at-least"),
            ("sightline-consistency-token", token),
        ]
    };
    assert_eq!(read(&running, "first", &at_least(&first)).await.status, 200);
    is_eventually(&running, "first", 200, tonic::Code::Ok).await;

    on_standby(&standby, "SELECT pg_wal_replay_pause()").await;
    let second = register(&world, "second").await;
    let answer = read(&running, "second", &at_least(&second)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // What the standby does not have yet is unknown to it, at its own position.
    is_eventually(&running, "second", 404, tonic::Code::NotFound).await;
    let stale = read(&running, "second", &[]).await;
    assert_ne!(stale.token(), answer.token());
    // Nothing that is demanded is answered with less.
    for demand in [
        &at_least(&second)[..],
        &at_least("event:r-second"),
        &at_least(answer.token()),
        &[("sightline-consistency", "latest")],
        &[("sightline-consistency", "max-lag=1")],
    ] {
        for _ in 0..5 {
            let answer = read(&running, "second", demand).await;
            assert_eq!(answer.status, 200, "{demand:?}: {}", answer.text());
        }
    }
    // What it has is demanded of it, too.
    assert_eq!(read(&running, "first", &at_least(&first)).await.status, 200);
    // Too far behind, it answers nothing.
    is_eventually(&running, "second", 200, tonic::Code::Ok).await;
    on_standby(&standby, "SELECT pg_wal_replay_resume()").await;
    wait_until(SOON, "the standby is used again", async || {
        match running
            .app
            .output()
            .matches("a read replica answers reads")
            .count()
        {
            2.. => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
    is_eventually(&running, "second", 200, tonic::Code::Ok).await;

    // Gone, it is missed by nobody.
    standby.kill().await;
    for _ in 0..20 {
        let answer = read(&running, "second", &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_no_replica_answers_nothing() {
    let another = World::new(Broker::shared(), Database::create().await, 1).await;
    let _projects = another.serve().await;
    register(&another, "another").await;
    let mut world = World::new(Broker::shared(), Database::create().await, 1).await;
    world.set("SIGHTLINE_DATABASE_READ_URLS", &another.database.url);
    let running = world.serve().await;
    wait_until(SOON, "the database is refused", async || {
        let output = running.app.output();
        let is_refused = output.contains("is not a replica of SIGHTLINE_DATABASE_URL");
        is_refused.then_some(()).ok_or(output)
    })
    .await;
    let answer = read(&running, "another", &[]).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}
