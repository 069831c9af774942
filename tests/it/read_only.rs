//! A server that no longer takes writes, as a primary that was demoted behind the same address.

use serde_json::json;
use sightline_testing::app::{SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::customer_path;
use sightline_testing::database::Database;
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

fn named(n: i64) -> Record {
    let value = json!({
        "eventId": format!("e{n}"), "eventType": "UserUpdated", "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": {"userId": "u", "updatedFields": {"username": format!("name {n}")}},
    });
    Record {
        partition: 0,
        key: Some("u".into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000 + n,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_read_only_server_are_closed_and_readiness_says_so() {
    let world = World::new(Broker::shared(), Database::private().await, 1).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, &[named(1)]).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;

    let mut admin = PgConnection::connect(&world.database.url)
        .await
        .expect("a superuser");
    for statement in [
        "ALTER SYSTEM SET default_transaction_read_only = on",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement)
            .execute(&mut admin)
            .await
            .expect(statement);
    }
    writer.write(&world.topic, &[named(2)]).await;
    wait_until(SOON, "readiness says so", async || {
        let answer = running.admin.try_get("/readyz").await?;
        let checks = answer.json()["checks"].clone();
        let expected = json!({"name": "database_writable", "ok": false});
        let says = checks
            .as_array()
            .is_some_and(|checks| checks.contains(&expected));
        if answer.status == 503 && says {
            Ok(())
        } else {
            Err(checks.to_string())
        }
    })
    .await;
    wait_until(SOON, "reads are refused", async || {
        match running.rest.try_get(&customer_path("u")).await?.status {
            503 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    // Sessions from before are closed once they are used again: none of them works on.
    wait_until(SOON, "no old session is in use", async || {
        let used: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'sightline' AND backend_start < pg_conf_load_time()
               AND state_change > pg_conf_load_time() + interval '3 seconds'
                OR now() < pg_conf_load_time() + interval '6 seconds'",
        )
        .fetch_one(&mut admin)
        .await
        .map_err(|error| error.to_string())?;
        if used == 0 {
            Ok(())
        } else {
            Err(format!("{used} sessions"))
        }
    })
    .await;

    for statement in [
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement)
            .execute(&mut admin)
            .await
            .expect(statement);
    }
    caught_up(&running.rest, &Ends::from([(0, 2)])).await;
    let customer = running.rest.get(&customer_path("u")).await.json();
    assert_eq!(customer["username"], "name 2");
    wait_until(SOON, "the process is ready again", async || {
        match running.admin.try_get("/readyz").await?.status {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}
