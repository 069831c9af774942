//! What a user's deletion leaves of his dead letters: coordinates and reasons, and nothing that names him.

use serde_json::{Value, json};
use sightline_testing::app::{SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::operations::{dead_letters, operate, project, projection};
use sightline_testing::wait_until;
use sqlx::PgPool;

/// An event about a user, in a partition, under any key.
fn event(partition: i32, key: &str, kind: &str, id: &str, payload: Value) -> Record {
    let value = json!({
        "eventType": kind, "eventId": id, "eventTimestamp": "2026-10-01T00:00:00Z", "payload": payload,
    });
    Record {
        partition,
        key: Some(key.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![("correlationId".into(), b"c-1".to_vec())],
        timestamp: 1_790_000_000_000,
    }
}

fn registered(partition: i32, user: &str, id: &str) -> Record {
    let payload = json!({"userId": user, "email": "a@example.org", "status": "active"});
    event(partition, user, "UserRegistered", id, payload)
}

/// A record that order can never apply.
fn bad(partition: i32, user: &str, id: &str) -> Record {
    let payload = json!({"userId": user, "email": 12});
    event(partition, user, "UserEmailVerified", id, payload)
}

fn deleted(partition: i32, key: &str, user: &str, id: &str) -> Record {
    let payload = json!({"userId": user, "deletionType": "hard"});
    event(partition, key, "UserDeleted", id, payload)
}

async fn connect(world: &World) -> PgPool {
    PgPool::connect(&world.database.url)
        .await
        .expect("connected")
}

/// Order's dead letters in the order of their records: partition, state, resolution, and whether anything is left of value,
/// headers, key and key hash.
async fn letters(pool: &PgPool) -> Vec<(i32, String, Option<String>, bool)> {
    sqlx::query_as(
        "SELECT partition, state, resolution,
                num_nonnulls(value, headers, record_key, key_hash) > 0
         FROM sightline.dead_letters JOIN sightline.logs USING (log_id)
         WHERE domain = 'order' ORDER BY partition, record_offset",
    )
    .fetch_all(pool)
    .await
    .expect("dead letters")
}

fn row(
    partition: i32,
    state: &str,
    resolution: &str,
    is_whole: bool,
) -> (i32, String, Option<String>, bool) {
    let resolution = (!resolution.is_empty()).then(|| resolution.to_owned());
    (partition, state.to_owned(), resolution, is_whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_erases_all_dead_letters_of_its_user() {
    let Some(broker) = Broker::real() else { return };
    let world = World::new(broker, Database::create().await, 2).await;
    let writer = world.broker.writer();
    let log = [
        bad(0, "u", "e-1"),
        registered(1, "u", "e-2"),
        bad(1, "u", "e-3"),
        bad(0, "v", "e-4"),
    ];
    writer.write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    caught_up(rest, &Ends::from([(0, 2), (1, 2)])).await;
    let pool = connect(&world).await;
    assert_eq!(
        letters(&pool).await,
        [
            row(0, "parked", "", true),
            row(0, "parked", "", true),
            row(1, "parked", "", true)
        ]
    );
    // One is closed before the deletion: it keeps its bytes until then.
    let of_u = dead_letters(rest, &[("domain", Some("order")), ("key", Some("u"))]).await;
    let first = of_u
        .iter()
        .find(|letter| letter["partition"] == 0)
        .expect("one");
    let path = format!(
        "/v1/dead-letters/{}/discard",
        first["id"].as_str().expect("an id")
    );
    operate(rest, &path, json!({"reason": "published again"})).await;
    assert_eq!(
        letters(&pool).await[0],
        row(0, "discarded", "published again", true)
    );

    writer
        .write(&world.topic, &[deleted(0, "u", "u", "e-5")])
        .await;
    caught_up(rest, &Ends::from([(0, 3), (1, 2)])).await;
    // In the deletion's own partition at once.
    let [first, of_v, _] = letters(&pool).await.try_into().expect("three");
    assert_eq!(first, row(0, "discarded", "published again", false));
    assert_eq!(of_v, row(0, "parked", "", true));
    // In the other one soon after: it is closed, and the key is live again.
    wait_until(
        SOON,
        "the other partition's dead letter is erased",
        async || {
            let letters = letters(&pool).await;
            if letters[2] == row(1, "discarded", "user_deleted", false) {
                Ok(())
            } else {
                Err(format!("{letters:?}"))
            }
        },
    )
    .await;
    writer
        .write(&world.topic, &[registered(1, "u", "e-6")])
        .await;
    caught_up(rest, &Ends::from([(0, 3), (1, 3)])).await;
    assert_eq!(letters(&pool).await.len(), 3);
    let listed = dead_letters(rest, &[("domain", Some("order"))]).await;
    let keys: Vec<_> = listed.iter().map(|letter| letter["key"].as_str()).collect();
    assert_eq!(
        keys.iter().flatten().collect::<Vec<_>>(),
        [&"v"],
        "{listed:?}"
    );
    // What comes later are dead letters like any other. As if a batch had added the first of them that began before
    // the deletion, it is erased.
    writer
        .write(&world.topic, &[bad(1, "u", "e-7"), bad(1, "u", "e-8")])
        .await;
    caught_up(rest, &Ends::from([(0, 3), (1, 5)])).await;
    let parked = row(1, "parked", "", true);
    assert_eq!(letters(&pool).await[3..], [parked.clone(), parked.clone()]);
    sqlx::query("UPDATE sightline.dead_letters SET first_failed_at = now() - interval '1 minute' WHERE event_id = 'e-7'")
        .execute(&pool)
        .await
        .expect("aged");
    let erased = row(1, "discarded", "user_deleted", false);
    let are = async |expected: [_; 2]| {
        wait_until(SOON, "what is due is erased", async || {
            let letters = letters(&pool).await;
            if letters[3..] == expected {
                Ok(())
            } else {
                Err(format!("{letters:?}"))
            }
        })
        .await;
    };
    are([erased.clone(), parked]).await;
    // The other one is before a second deletion.
    writer
        .write(&world.topic, &[deleted(0, "u", "u", "e-9")])
        .await;
    are([erased.clone(), erased]).await;
    // Until no such batch can be left.
    sqlx::query("UPDATE sightline.erasures SET deleted_at = deleted_at - interval '3 minutes'")
        .execute(&pool)
        .await
        .expect("aged");
    wait_until(SOON, "nothing is left to erase", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM sightline.erasures")
            .fetch_one(&pool)
            .await
            .expect("a count");
        if left == 0 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    })
    .await;
    // The books keep all of them.
    let answer = rest.get("/v1/consistency/order").await.json();
    let dead = answer["partitions"].as_array().expect("partitions").iter();
    let dead: Vec<_> = dead
        .map(|partition| partition["deadLettered"].as_i64())
        .collect();
    assert_eq!(dead, [Some(2), Some(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_under_another_key_waits_like_any_event() {
    let world = World::shared(1).await;
    let log = [
        bad(0, "k", "e-1"),
        deleted(0, "k", "u", "e-2"),
        registered(0, "u", "e-3"),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    let pool = connect(&world).await;
    assert_eq!(
        letters(&pool).await,
        [row(0, "parked", "", true), row(0, "parked", "", true)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_dead_letters_lose_their_keys_with_their_bytes() {
    let mut world = World::shared(1).await;
    let log = [bad(0, "u", "e-1"), bad(0, "v", "e-2"), bad(0, "w", "e-3")];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    let found = dead_letters(&running.rest, &[("domain", Some("order"))]).await;
    let discard = async |rest: &Rest, index: usize| {
        let id = found[index]["id"].as_str().expect("an id");
        let path = format!("/v1/dead-letters/{id}/discard");
        operate(rest, &path, json!({"reason": "test"})).await;
    };
    discard(&running.rest, 0).await;
    drop(running);
    let pool = connect(&world).await;
    sqlx::query("UPDATE sightline.dead_letters SET first_failed_at = now() - interval '31 days'")
        .execute(&pool)
        .await
        .expect("aged");
    world.set("SIGHTLINE_DEAD_LETTER_RETENTION_DAYS", "30");
    let running = world.serve().await;
    let is_left = async || -> Vec<(bool, bool)> {
        sqlx::query_as(
            "SELECT num_nonnulls(value, headers, record_key) > 0, key_hash IS NOT NULL
             FROM sightline.dead_letters WHERE domain = 'order' ORDER BY record_offset",
        )
        .fetch_all(&pool)
        .await
        .expect("dead letters")
    };
    // An open one parks its key still.
    wait_until(SOON, "bytes are erased", async || match is_left().await {
        left if left == [(false, false), (false, true), (false, true)] => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
    discard(&running.rest, 1).await;
    assert_eq!(
        is_left().await,
        [(false, false), (false, false), (false, true)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_behind_for_a_day_shows() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let rest = &running.rest;
    // The partition has a row from then on.
    caught_up(rest, &Ends::from([(0, 0)])).await;
    project(rest, "order", "pause", json!({"reason": "moving"})).await;
    world
        .broker
        .writer()
        .write(&world.topic, &[registered(0, "u", "e-1")])
        .await;
    let pool = connect(&world).await;
    let since = async || projection(rest, "order").await["versions"][0]["stalledSince"].clone();
    assert_eq!(since().await, Value::Null);
    sqlx::query("UPDATE sightline.progress SET behind_since = now() - interval '25 hours' WHERE domain = 'order'")
        .execute(&pool)
        .await
        .expect("aged");
    assert!(since().await.is_string());
    project(rest, "order", "resume", json!({})).await;
    caught_up(rest, &Ends::from([(0, 1)])).await;
    assert_eq!(since().await, Value::Null);
}
