//! Releases of different code versions beside each other: one binary, which is told its code version.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sightline_testing::app::{DOMAINS, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Depth, Ends, assert_answers, caught_up, folded};
use sightline_testing::client::{Rest, customer_path};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::operations::{built, dead_letters, operate, project, projection, refused};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

/// The code versions of two releases, neither older than the one that the migrations give to views.
const OLD: i32 = 4;
const NEW: i32 = 5;

async fn serve(world: &mut World, code_version: i32) -> Running {
    world.set("SIGHTLINE_TEST_CODE_VERSION", &code_version.to_string());
    world.serve().await
}

async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(&world.database.url)
        .await
        .expect("connected")
}

/// The code versions and read records of a version's partitions, in their order.
async fn folded_by(connection: &mut PgConnection, domain: &str, version: i32) -> Vec<(i32, i64)> {
    sqlx::query_as(
        "SELECT code_version, read FROM sightline.progress JOIN sightline.logs USING (log_id)
         WHERE domain = $1 AND version = $2 ORDER BY partition",
    )
    .bind(domain)
    .bind(version)
    .fetch_all(connection)
    .await
    .expect("progress")
}

/// The distinct states and failures of a domain's partitions.
async fn states(rest: &Rest, domain: &str) -> Result<Vec<(String, String)>, String> {
    let answer = rest.try_get(&format!("/v1/consistency/{domain}")).await?;
    let answer = answer.json();
    let partitions = answer["partitions"].as_array().expect("partitions");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut states: Vec<_> = partitions
        .iter()
        .map(|partition| (text(&partition["state"]), text(&partition["failure"])))
        .collect();
    states.sort();
    states.dedup();
    Ok(states)
}

async fn stalled_by(rest: &Rest, domain: &str, failure: &str) {
    let expected = vec![("stalled".to_owned(), failure.to_owned())];
    wait_until(
        SOON,
        &format!("{domain} is stalled: {failure}"),
        async || match states(rest, domain).await? {
            states if states == expected => Ok(()),
            states => Err(format!("{states:?}")),
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_rolling_deploy_no_partition_goes_back_to_older_code() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 6_000,
        partitions: 4,
        users: 150,
    };
    let log = generate(seed() + 3, shape);
    let (folds, _) = folded(&log, shape.partitions);
    let mut parts = log.chunks(shape.records / 4);
    let mut world = World::new(broker, Database::create().await, shape.partitions).await;
    let writer = world.broker.writer();
    let mut connection = connect(&world).await;

    let old = serve(&mut world, OLD).await;
    writer
        .write(&world.topic, parts.next().expect("a part"))
        .await;
    caught_up(&old.rest, &world.broker.ends(&world.topic).await).await;
    // The new release takes some of the partitions, and the old one goes on with the others.
    let new = serve(&mut world, NEW).await;
    for part in parts.by_ref().take(2) {
        wait_until(SOON, "both releases have partitions of order", async || {
            let owners: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT instance) FROM sightline.partition_owners WHERE domain = 'order' AND seen_at > now() - interval '5 s'",
            )
            .fetch_one(&mut connection)
            .await
            .expect("owners");
            if owners == 2 { Ok(()) } else { Err(owners.to_string()) }
        })
        .await;
        writer.write(&world.topic, part).await;
        caught_up(&new.rest, &world.broker.ends(&world.topic).await).await;
    }
    let mixed = folded_by(&mut connection, "order", 1).await;
    assert!(
        mixed.iter().any(|(code_version, _)| *code_version == NEW),
        "{mixed:?}"
    );
    assert!(
        mixed.iter().any(|(code_version, _)| *code_version == OLD),
        "{mixed:?}"
    );

    // When only the old release is left, it goes on with what no newer code has folded.
    drop(new);
    writer
        .write(&world.topic, parts.next().expect("a part"))
        .await;
    let expected = [("caught_up", ""), ("stalled", "newer_code")];
    let expected: Vec<_> = expected
        .map(|(state, failure)| (state.to_owned(), failure.to_owned()))
        .into();
    wait_until(
        SOON,
        "the new release's partitions are stalled",
        async || match states(&old.rest, "order").await? {
            states if states == expected => Ok(()),
            states => Err(format!("{states:?}")),
        },
    )
    .await;
    for ((before, read), (after, read_after)) in mixed
        .iter()
        .zip(folded_by(&mut connection, "order", 1).await)
    {
        assert_eq!(*before, after);
        assert!(*before == OLD || *read == read_after);
    }

    // An operator lets it go on; the view shows that it has to be rebuilt.
    assert_eq!(projection(&old.rest, "order").await["outdated"], false);
    for domain in DOMAINS {
        project(
            &old.rest,
            domain,
            "resume",
            json!({"acceptOlderCode": true}),
        )
        .await;
    }
    caught_up(&old.rest, &world.broker.ends(&world.topic).await).await;
    assert_eq!(projection(&old.rest, "order").await["outdated"], true);
    assert_answers(&old, &folds, Depth::Brief).await;
    project(&old.rest, "order", "rebuild", json!({})).await;
    built(&old.rest, "order", log.len() as i64).await;
    project(&old.rest, "order", "switch", json!({"compare": true})).await;
    assert_eq!(projection(&old.rest, "order").await["outdated"], false);
    assert_answers(&old, &folds, Depth::Brief).await;
}

/// A topic of two partitions that holds the first half of a log, and the whole log. `None` without a real Kafka.
async fn half_written(seed: u64) -> Option<(World, Vec<Record>)> {
    let shape = Shape {
        records: 2_000,
        partitions: 2,
        users: 60,
    };
    let log = generate(seed, shape);
    let database = Database::create().await;
    let world = World::new(Broker::real()?, database, shape.partitions).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, &log[..log.len() / 2]).await;
    Some((world, log))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_newer_code_began_is_left_to_it() {
    let Some((mut world, log)) = half_written(seed() + 4).await else {
        return;
    };
    let (first, second) = log.split_at(log.len() / 2);
    let (folds, ends) = folded(&log, 2);
    let writer = world.broker.writer();
    let mut connection = connect(&world).await;
    let old = serve(&mut world, OLD).await;
    caught_up(&old.rest, &world.broker.ends(&world.topic).await).await;

    let new = serve(&mut world, NEW).await;
    project(&new.rest, "order", "rebuild", json!({})).await;
    built(&new.rest, "order", first.len() as i64).await;
    let built_by_new = folded_by(&mut connection, "order", 2).await;
    drop(new);
    let ended = Instant::now();
    writer.write(&world.topic, second).await;
    // The old release looks for versions every two seconds. Had it joined, it would send heartbeats.
    wait_until(
        SOON,
        "no process has projected the version for a while",
        async || {
            let owners: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM sightline.partition_owners
             WHERE domain = 'order' AND version = 2 AND seen_at > now() - interval '8 s'",
            )
            .fetch_one(&mut connection)
            .await
            .expect("heartbeats");
            match (owners, ended.elapsed()) {
                (0, elapsed) if elapsed > Duration::from_secs(8) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        },
    )
    .await;
    assert_eq!(folded_by(&mut connection, "order", 2).await, built_by_new);

    let new = serve(&mut world, NEW).await;
    built(&new.rest, "order", log.len() as i64).await;
    project(&new.rest, "order", "switch", json!({})).await;
    caught_up(&new.rest, &ends).await;
    assert_answers(&new, &folds, Depth::Brief).await;
    drop(new);
    // The old release reads it, and does not project it.
    stalled_by(&old.rest, "order", "newer_code").await;
    assert_answers(&old, &folds, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_older_code_began_is_left_to_it() {
    let Some((mut world, log)) = half_written(seed() + 6).await else {
        return;
    };
    let (first, second) = log.split_at(log.len() / 2);
    let (folds, ends) = folded(&log, 2);
    let writer = world.broker.writer();
    let mut connection = connect(&world).await;
    let old = serve(&mut world, OLD).await;
    // While every domain opens its connections, a busy server answers no operation in time.
    caught_up(&old.rest, &world.broker.ends(&world.topic).await).await;
    project(&old.rest, "order", "rebuild", json!({})).await;
    built(&old.rest, "order", first.len() as i64).await;
    drop(old);
    let built_by_old = folded_by(&mut connection, "order", 2).await;

    // The newer release goes on with the live version, and says of the rebuild that it does not.
    writer.write(&world.topic, second).await;
    let new = serve(&mut world, NEW).await;
    caught_up(&new.rest, &ends).await;
    wait_until(SOON, "the rebuild is left alone", async || {
        let versions = projection(&new.rest, "order").await["versions"].clone();
        let rebuild = &versions[1];
        match (&rebuild["failure"], &rebuild["outdated"]) {
            (failure, outdated) if *failure == "older_code" && *outdated == true => Ok(()),
            _ => Err(versions.to_string()),
        }
    })
    .await;
    let dead_letters = json!({"domain": "order"});
    operate(&new.rest, "/v1/dead-letters:retry", dead_letters).await;
    assert_eq!(folded_by(&mut connection, "order", 2).await, built_by_old);
    assert_answers(&new, &folds, Depth::Brief).await;

    project(&new.rest, "order", "cancel", json!({})).await;
    project(&new.rest, "order", "rebuild", json!({})).await;
    built(&new.rest, "order", log.len() as i64).await;
    project(&new.rest, "order", "switch", json!({})).await;
    assert_eq!(projection(&new.rest, "order").await["outdated"], false);
    caught_up(&new.rest, &ends).await;
    assert_answers(&new, &folds, Depth::Brief).await;
}

fn event(user: &str, id: &str, event_type: &str, data: Value) -> Record {
    Record::cloud_event(0, user, id, event_type, data)
}

fn registered(user: &str, id: &str) -> Record {
    let data = json!({"email": "a@example.org", "status": "active"});
    event(user, id, "UserRegistered", data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_newer_code_wrote_stalls_its_partition_and_makes_no_dead_letter() {
    let world = World::shared(1).await;
    let writer = world.broker.writer();
    writer
        .write(&world.topic, &[registered("u-1", "e-1")])
        .await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;
    let mut connection = connect(&world).await;
    sqlx::query(
        "UPDATE order_live.users SET state = (state::jsonb || '{\"loyaltyTier\": \"gold\"}')::text",
    )
    .execute(&mut connection)
    .await
    .expect("written");

    let log = [
        event(
            "u-1",
            "e-2",
            "UserEmailVerified",
            json!({"email": "a@example.org"}),
        ),
        registered("u-2", "e-3"),
    ];
    writer.write(&world.topic, &log).await;
    stalled_by(&running.rest, "order", "unreadable_state").await;
    assert!(dead_letters(&running.rest, &[]).await.is_empty());
    // Reads send the answer in it as it is.
    let answer = running.rest.get(&customer_path("u-1")).await;
    assert_eq!(
        (answer.status, &answer.json()["emailVerified"]),
        (200, &json!(false))
    );
    assert!(!answer.text().contains("loyaltyTier"));
    let log = running.app.output();
    assert!(log.contains("can't read a row of users"), "{log}");
    assert!(!log.contains("gold"), "{log}");

    sqlx::query("UPDATE order_live.users SET state = (state::jsonb - 'loyaltyTier')::text")
        .execute(&mut connection)
        .await
        .expect("written");
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    assert!(dead_letters(&running.rest, &[]).await.is_empty());
    assert_eq!(
        running.rest.get(&customer_path("u-1")).await.json()["emailVerified"],
        true
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_code_retries_nothing_that_newer_code_folded() {
    let mut world = World::shared(1).await;
    let log = [
        registered("u-1", "e-1"),
        event("u-1", "e-2", "UserEmailVerified", json!({"email": 7})),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let new = serve(&mut world, NEW).await;
    caught_up(&new.rest, &Ends::from([(0, 2)])).await;
    drop(new);
    let old = serve(&mut world, OLD).await;
    let found = dead_letters(&old.rest, &[("domain", Some("order"))]).await;
    let id = found[0]["id"].as_str().expect("an id");
    for (path, body) in [
        (format!("/v1/dead-letters/{id}/retry"), json!({})),
        (
            format!("/v1/dead-letters/{id}/discard"),
            json!({"reason": "test"}),
        ),
        (
            "/v1/dead-letters:retry".to_owned(),
            json!({"domain": "order"}),
        ),
    ] {
        let answer = refused(&old.rest, &path, body).await;
        assert_eq!(answer, (409, "NEWER_CODE".to_owned()), "{path}");
    }
    project(
        &old.rest,
        "order",
        "resume",
        json!({"acceptOlderCode": true}),
    )
    .await;
    let retried = old
        .rest
        .post(&format!("/v1/dead-letters/{id}/retry"), &json!({}))
        .await;
    assert_eq!(retried.json()["outcomes"][0]["outcome"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_catalogue_retries_dead_letters_of_the_class_schema() {
    let world = World::shared(1).await;
    let log = [
        event(
            "u-1",
            "e-1",
            "UserRegistered.v9",
            json!({"email": "a@example.org"}),
        ),
        event(
            "u-2",
            "e-2",
            "UserRegistered",
            json!({"email": 7, "status": "active"}),
        ),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 2)])).await;
    // As if a release with an older catalogue had given both up.
    let mut connection = connect(&world).await;
    sqlx::query("UPDATE sightline.dead_letters SET catalogue_version = 0")
        .execute(&mut connection)
        .await
        .expect("written");
    wait_until(
        SOON,
        "the dead letter of the class schema is retried",
        async || {
            let found = dead_letters(&running.rest, &[("domain", Some("order"))]).await;
            let attempts: Vec<_> = found
                .iter()
                .map(|letter| {
                    (
                        letter["class"].as_str().unwrap_or_default(),
                        letter["attempts"].as_i64(),
                    )
                })
                .collect();
            if attempts == [("schema", Some(2)), ("data", Some(1))] {
                Ok(())
            } else {
                Err(format!("{attempts:?}"))
            }
        },
    )
    .await;
}
