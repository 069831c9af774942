//! Topics that were recreated, truncated or shortened, and restored databases: the program detects them, reports
//! them, and an operator can resolve each.

use chrono::{DateTime, Utc};
use http::Method;
use serde_json::{Value, json};
use sightline_testing::app::{DOMAINS, LONG, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{
    Depth, Ends, assert_answers, assert_books, caught_up, folded, partitions,
};
use sightline_testing::client::{Rest, customer_path};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::operations::{operate, project, projection, refused};
use sightline_testing::reference::Folds;
use sightline_testing::wait_until;
use sqlx::PgPool;

const SHAPE: Shape = Shape {
    records: 1_000,
    partitions: 2,
    users: 40,
};

/// Waits until every partition of every domain has state `failed` with this failure.
async fn fails(rest: &Rest, failure: &str) {
    wait_until(SOON, "the domains are failed", async || {
        let answer = rest.try_get("/v1/consistency").await?.json();
        for domain in answer["domains"].as_array().into_iter().flatten() {
            let all = partitions(domain);
            let failed = |p: &Value| p["state"] == "failed" && p["failure"] == failure;
            if domain["state"] != "failed" || !all.values().all(failed) {
                return Err(domain.to_string());
            }
        }
        Ok(())
    })
    .await;
    for domain in DOMAINS {
        let versions = projection(rest, domain).await["versions"].clone();
        assert_eq!(versions[0]["failure"], failure, "{versions}");
    }
}

/// Resuming without accepting the loss is refused, and the domains stay failed.
async fn still_fails(rest: &Rest, failure: &str) {
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/resume");
        let answer = refused(rest, &path, json!({})).await;
        assert_eq!(answer, (409, "LOG_TRUNCATED".to_owned()));
        let answer = rest.get(&format!("/v1/consistency/{domain}")).await.json();
        assert_eq!(answer["state"], "failed", "{answer}");
    }
    fails(rest, failure).await;
}

/// Rebuilding is refused unless the loss is accepted. Rebuilds every domain with it, and switches.
async fn rebuild_all_accepting_loss(rest: &Rest) {
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/rebuild");
        let answer = rest.post(&path, &json!({})).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["reason"], "LOG_TRUNCATED");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("/0 from offset 0 on"), "{detail}");
        project(rest, domain, "rebuild", json!({"acceptLoss": true})).await;
        let path = format!("/v1/projections/{domain}/switch");
        wait_until(LONG, "the switch to the new version", async || {
            let answer = rest.post(&path, &json!({})).await;
            match answer.status {
                200 => Ok(()),
                _ => Err(answer.text()),
            }
        })
        .await;
    }
}

/// The state of the process while the log changed.
#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    Running,
    /// By the time the process looks, topic and offsets look normal again.
    Frozen,
    Stopped,
}

// ---- a topic that was deleted and created again, or is another cluster's

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_id_is_stored_once_it_is_known_and_another_clusters_topic_is_another() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 6, SHAPE);
    let (first, second) = log.split_at(SHAPE.records / 2);
    let (fold, ends) = folded(&log, 2);
    let world = World::new(broker, Database::create().await, 2).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, first).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &folded(first, 2).1).await;
    running.app.process.kill();
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    let ids = "SELECT DISTINCT topic_identity FROM sightline.logs";
    let id: String = sqlx::query_scalar(ids)
        .fetch_one(&pool)
        .await
        .expect("one id");
    // As a cluster that gave no ids left it, and was upgraded since.
    let unknown = sqlx::query("UPDATE sightline.logs SET topic_identity = '-'");
    unknown.execute(&pool).await.expect("updated");
    writer.write(&world.topic, second).await;
    running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    let stored: Vec<String> = sqlx::query_scalar(ids).fetch_all(&pool).await.expect("ids");
    assert_eq!(stored, [id]);
    running.app.process.kill();
    let moved = sqlx::query("UPDATE sightline.logs SET cluster_id = 'another'");
    moved.execute(&pool).await.expect("updated");
    running = world.serve().await;
    fails(&running.rest, "topic_recreated").await;
}

/// A list is answered for its own token, and for the end of the log.
async fn demands_are_met(rest: &Rest) {
    let list = "/v1/order/address-changes";
    let token = rest.get(list).await.token().to_owned();
    for demand in [
        &[("sightline-consistency", "latest")][..],
        &[
            ("sightline-consistency", "at-least"),
            ("sightline-consistency-token", &token),
        ],
    ] {
        let demand = [demand, &[("sightline-wait", "10")]].concat();
        let answer = rest.send(Method::GET, list, &demand, &[]).await;
        assert_eq!(answer.status, 200, "{demand:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_fails_the_domain_until_the_loss_is_accepted() {
    let Some((world, running)) = recreated(Meanwhile::Running).await else {
        return;
    };
    let rest = &running.rest;
    // The failure is permanent until an operator decides.
    still_fails(rest, "topic_recreated").await;
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    // The domain continues with the new topic, from its beginning, on the existing rows.
    let ends = world.broker.ends(&world.topic).await;
    for (domain, partitions) in caught_up(rest, &ends).await {
        for (number, partition) in partitions {
            assert_eq!(partition["startPosition"], 0, "{domain}");
            assert_eq!(partition["read"], ends[&number], "{domain}");
        }
        let path = format!("/v1/consistency/{domain}");
        let answer = rest.get(&path).await.json();
        assert_eq!(
            answer.get("failure"),
            None,
            "the failure is resolved: {answer}"
        );
    }
    demands_are_met(rest).await;
    for (user, found) in [("u-old", "old"), ("u-new", "new"), ("u-both", "new")] {
        let customer = rest.get(&customer_path(user)).await.json();
        assert_eq!(customer["username"], found, "{customer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_while_the_process_is_stopped_can_be_rebuilt_from() {
    let Some((world, running)) = recreated(Meanwhile::Stopped).await else {
        return;
    };
    rebuild_all_accepting_loss(&running.rest).await;
    let other = another_log();
    let (fold, ends) = folded(&other, 2);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    // The former versions cannot reach the positions of the new ones.
    let path = "/v1/projections/order/rollback";
    let answer = refused(&running.rest, path, json!({})).await;
    assert_eq!(answer, (409, "NOT_CAUGHT_UP".to_owned()));
    project(&running.rest, "order", "drop", json!({})).await;
    let more = renamed("u-new", "later", 7);
    world.broker.writer().write(&world.topic, &[more]).await;
    let ends = world.broker.ends(&world.topic).await;
    caught_up(&running.rest, &ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_with_fewer_partitions_can_be_continued_or_rebuilt_from() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 3, SHAPE);
    let (_, ends) = folded(&log, 2);
    let world = World::new(broker, Database::create().await, 2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    caught_up(rest, &ends).await;
    world.broker.delete_topic(&world.topic).await;
    world.broker.create_topic(&world.topic, 1).await;
    let recreated = [renamed("u-new", "new", 0)];
    world.broker.writer().write(&world.topic, &recreated).await;
    // Partition 1, which the new topic does not have, fails, too.
    fails(rest, "topic_recreated").await;
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    let ends = Ends::from([(0, 1)]);
    caught_up(rest, &ends).await;
    // A rebuild would lose the old topic's events, so the loss must be accepted again.
    rebuild_all_accepting_loss(rest).await;
    let (fold, ends) = folded(&recreated, 1);
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_while_the_process_is_frozen_is_detected() {
    recreated(Meanwhile::Frozen).await;
}

fn renamed(user: &str, name: &str, n: usize) -> Record {
    let value = json!({
        "eventType": "UserUpdated", "eventId": format!("{user}-{n}"), "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": {"userId": user, "updatedFields": {"username": name}},
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

/// Longer than the first log, so that the offsets alone do not show the change.
fn another_log() -> Vec<Record> {
    let shape = Shape {
        records: 2_000,
        ..SHAPE
    };
    let mut log = generate(seed() + 9, shape);
    log.extend([renamed("u-new", "new", 0), renamed("u-both", "new", 1)]);
    log
}

async fn recreated(meanwhile: Meanwhile) -> Option<(World, Running)> {
    let broker = Broker::real()?;
    let mut log = generate(seed(), SHAPE);
    log.extend([renamed("u-old", "old", 0), renamed("u-both", "old", 0)]);
    let (fold, ends) = folded(&log, 2);
    let world = World::new(broker, Database::create().await, 2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    let before = caught_up(&running.rest, &ends).await;
    match meanwhile {
        Meanwhile::Running => {}
        Meanwhile::Frozen => running.app.process.signal("STOP"),
        Meanwhile::Stopped => running.app.process.kill(),
    }
    world.broker.delete_topic(&world.topic).await;
    world.broker.create_topic(&world.topic, 2).await;
    world
        .broker
        .writer()
        .write(&world.topic, &another_log())
        .await;
    match meanwhile {
        Meanwhile::Running => {}
        Meanwhile::Frozen => running.app.process.signal("CONT"),
        Meanwhile::Stopped => running = world.serve().await,
    }
    fails(&running.rest, "topic_recreated").await;
    let after = running.rest.get("/v1/consistency/order").await.json();
    for (number, partition) in &partitions(&after) {
        for name in ["position", "read", "applied"] {
            assert_eq!(
                partition[name], before["order"][number][name],
                "a record of the new topic was projected: {name} of partition {number}"
            );
        }
    }
    assert_answers(&running, &fold, Depth::Brief).await;
    Some((world, running))
}

// ---- records that retention deleted before they were projected

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_projection_are_a_loss_to_be_accepted() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 1, SHAPE);
    let (first, rest_of_it) = log.split_at(400);
    let world = World::new(broker, Database::create().await, 2).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, first).await;
    let mut running = world.serve().await;
    let (fold, projected) = folded(first, 2);
    caught_up(&running.rest, &projected).await;
    running.app.process.kill();
    writer.write(&world.topic, rest_of_it).await;
    let starts: Ends = projected
        .iter()
        .map(|(p, position)| (*p, position + 50))
        .collect();
    for (partition, start) in &starts {
        world
            .broker
            .delete_records(&world.topic, *partition, *start)
            .await;
    }
    running = world.serve().await;
    let rest = &running.rest;
    fails(rest, "log_truncated").await;
    // Reads still answer from the existing rows.
    assert_answers(&running, &fold, Depth::Brief).await;
    still_fails(rest, "log_truncated").await;
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    // Lost offsets count as holes, and the books balance.
    let ends = world.broker.ends(&world.topic).await;
    let lag = caught_up(rest, &ends).await;
    for partitions in lag.values() {
        for (number, partition) in partitions {
            let number_of = |name: &str| partition[name].as_i64().expect("a number");
            assert_eq!(number_of("holes"), 50, "{partition}");
            assert_eq!(number_of("read"), ends[number] - 50);
            let kinds = ["applied", "duplicates", "skipped", "deadLettered"].map(number_of);
            assert_eq!(number_of("read"), kinds.iter().sum::<i64>());
        }
    }

    // A new version begins at the log start offset.
    rebuild_all_accepting_loss(rest).await;
    let mut fold = Folds::new(MAX_VALUE_BYTES);
    let left = world.broker.read(&world.topic, &ends);
    for (_, record) in left.values().flatten() {
        fold.take(record);
    }
    for (domain, partitions) in caught_up(rest, &ends).await {
        for (number, partition) in partitions {
            let books = fold.books(&domain, number);
            assert_eq!(partition["startPosition"], starts[&number]);
            assert_eq!(partition["holes"], 0);
            assert_eq!(partition["read"], books.read);
            assert_eq!(partition["applied"], books.applied, "{partition}");
        }
    }
    assert_answers(&running, &fold, Depth::Brief).await;
}

// ---- a log that has lost its last records

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_fails_the_domain_until_a_rebuild() {
    let Some((_world, running, left)) = shortened(Meanwhile::Running).await else {
        return;
    };
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/resume");
        let answer = refused(&running.rest, &path, json!({})).await;
        assert_eq!(answer, (409, "LOG_TRUNCATED".to_owned()));
    }
    rebuild_all_accepting_loss(&running.rest).await;
    let (fold, ends) = folded(&left, 2);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_can_be_continued_by_accepting_the_loss() {
    let Some((world, running, left)) = shortened(Meanwhile::Frozen).await else {
        return;
    };
    let (_, ends) = folded(&left, 2);
    for domain in DOMAINS {
        project(&running.rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    caught_up(&running.rest, &ends).await;
    let more = renamed("u-late", "late", 0);
    world.broker.writer().write(&world.topic, &[more]).await;
    let ends = world.broker.ends(&world.topic).await;
    for partitions in caught_up(&running.rest, &ends).await.values() {
        for (number, partition) in partitions {
            assert_eq!(partition["read"], ends[number], "{partition}");
        }
    }
    let customer = running.rest.get(&customer_path("u-late")).await.json();
    assert_eq!(customer["username"], "late", "{customer}");
}

/// A log whose tail was replaced by another, longer one. Returns the records that the log has now.
async fn shortened(meanwhile: Meanwhile) -> Option<(World, Running, Vec<Record>)> {
    let broker = Broker::private()?;
    let shape = Shape {
        records: 2_000,
        ..SHAPE
    };
    let all = generate(seed() + 2, shape);
    let (log, other) = all.split_at(1_000);
    let (first, tail) = log.split_at(800);
    let world = World::new(broker, Database::create().await, 2).await;
    world.broker.writer().write(&world.topic, first).await;
    world.broker.back_up();
    world.broker.writer().write(&world.topic, tail).await;
    let mut running = world.serve().await;
    let (fold, ends) = folded(log, 2);
    caught_up(&running.rest, &ends).await;
    // The new tail is written at once, or only after the process has detected the loss: then the position is
    // below the log end offset again, which must not clear the failure.
    let frozen = meanwhile == Meanwhile::Frozen;
    if frozen {
        running.app.process.signal("STOP");
    }
    world.broker.restore();
    if frozen {
        world.broker.writer().write(&world.topic, other).await;
        running.app.process.signal("CONT");
    }
    fails(&running.rest, "tail_lost").await;
    assert_answers(&running, &fold, Depth::Brief).await;
    if !frozen {
        world.broker.writer().write(&world.topic, other).await;
    }
    running.app.process.kill();
    let running = world.serve().await;
    fails(&running.rest, "tail_lost").await;
    Some((world, running, [first, other].concat()))
}

// ---- a database that was restored to an earlier state

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_while_the_process_runs_is_projected_further_and_reported() {
    restored_database_is_projected_further(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_while_the_process_is_stopped_is_projected_further_and_reported() {
    restored_database_is_projected_further(true).await;
}

async fn restored_database_is_projected_further(stopped: bool) {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 4, SHAPE);
    let (first, rest_of_it) = log.split_at(400);
    let (fold, ends) = folded(&log, 2);
    let mut database = Database::create().await;
    let world = World::new(broker, Database::of(&database), 2).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, first).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &folded(first, 2).1).await;
    let backed_up = epochs(&world).await;
    running.app.process.kill();
    database.back_up().await;
    running = world.serve().await;
    writer.write(&world.topic, rest_of_it).await;
    caught_up(&running.rest, &ends).await;
    // Raise the epochs above those of the restored database.
    for _ in 0..3 {
        for verb in ["pause", "resume"] {
            project(&running.rest, "order", verb, json!({})).await;
        }
        caught_up(&running.rest, &ends).await;
    }
    committed_to_kafka(&world, &ends).await;
    if stopped {
        running.app.process.kill();
    }
    let former = epochs(&world).await;
    database.restore().await;
    if stopped {
        running = world.serve().await;
    }
    reports_restore(&running.rest).await;
    // The views are complete again. The report stays until an operator resumes the domains.
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    heartbeats_of_all(&world).await;
    // An owner from before the restore that still lives has an epoch that is not used again.
    let raised = epochs(&world).await;
    let is_above = |(now, then): (&i64, &i64)| now > then;
    assert!(
        raised.len() == 2 * DOMAINS.len() && raised.iter().zip(&former).all(is_above),
        "{raised:?} after {former:?}"
    );
    // They were raised once, although each partition finds the restore: by less than 2^22.
    let is_raised_once =
        |(now, then): (&i64, &i64)| (65_536..(1 << 22) + 1_000).contains(&(now - then));
    assert!(
        raised.iter().zip(&backed_up).all(is_raised_once),
        "{raised:?} after {backed_up:?}"
    );
    acknowledge_restore(&mut running, &world).await;
}

/// The epochs of all domains' partitions.
async fn epochs(world: &World) -> Vec<i64> {
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    sqlx::query_scalar("SELECT epoch FROM sightline.progress ORDER BY domain, version, log_id")
        .fetch_all(&pool)
        .await
        .expect("epochs")
}

/// Waits for another heartbeat of every partition, while no records come.
async fn heartbeats_of_all(world: &World) {
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    let since: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&pool)
        .await
        .expect("a time");
    wait_until(SOON, "a heartbeat of every partition", async || {
        let heartbeat =
            sqlx::query_scalar("SELECT bool_and(seen_at > $1) FROM sightline.partition_owners");
        match heartbeat.bind(since).fetch_one(&pool).await {
            Ok(true) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_counts_as_restored_if_the_group_has_committed_offsets() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 5, SHAPE);
    let (fold, ends) = folded(&log, 2);
    let mut world = World::new(broker, Database::create().await, 2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    for domain in DOMAINS {
        let path = format!("/v1/consistency/{domain}");
        let answer = running.rest.get(&path).await.json();
        assert_eq!(answer.get("failure"), None, "{answer}");
    }
    committed_to_kafka(&world, &ends).await;
    running.app.process.kill();
    let empty = Database::create().await;
    world.set("SIGHTLINE_DATABASE_URL", &empty.url);
    running = world.serve().await;
    reports_restore(&running.rest).await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    acknowledge_restore(&mut running, &world).await;
    // The group of a new version has committed nothing.
    project(&running.rest, "order", "rebuild", json!({})).await;
    caught_up(&running.rest, &ends).await;
    let answer = running.rest.get("/v1/consistency/order").await.json();
    assert_eq!(answer.get("failure"), None, "{answer}");
}

/// Waits until the groups of all domains have committed these offsets.
async fn committed_to_kafka(world: &World, ends: &Ends) {
    for domain in DOMAINS {
        let group = world.group(domain);
        wait_until(SOON, "the offsets are committed", async || {
            let committed = world.broker.committed(&group, &world.topic, ends);
            if committed == *ends {
                Ok(())
            } else {
                Err(format!("{committed:?}, not {ends:?}"))
            }
        })
        .await;
    }
}

async fn reports_restore(rest: &Rest) {
    wait_until(
        SOON,
        "the domains report that the database went back",
        async || {
            let answer = rest.try_get("/v1/consistency").await?.json();
            let domains = answer["domains"].as_array().cloned().unwrap_or_default();
            let said = |domain: &Value| domain["failure"] == "database_went_back";
            if domains.len() == DOMAINS.len() && domains.iter().all(said) {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        },
    )
    .await;
}

/// Resumes the domains, after which the failure is no longer reported, not even after a restart.
async fn acknowledge_restore(running: &mut Running, world: &World) {
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/resume");
        operate(&running.rest, &path, json!({})).await;
    }
    for restarted in [false, true] {
        if restarted {
            running.app.process.kill();
            *running = world.serve().await;
            let ends = world.broker.ends(&world.topic).await;
            caught_up(&running.rest, &ends).await;
        }
        let answer = running.rest.get("/v1/consistency").await.json();
        for domain in answer["domains"].as_array().into_iter().flatten() {
            assert_eq!(domain.get("failure"), None, "{domain}");
        }
    }
}
