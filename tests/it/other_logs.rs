//! Logs that are not what was projected, and a database that is not what it was: never silently taken for the same, and
//! an operator has a way out.

use crate::first_light::folded;
use crate::support::app::{LONG, Running, SOON, World};
use crate::support::broker::{Broker, Record};
use crate::support::check::{
    DOMAINS, Depth, Ends, assert_answers, assert_books, caught_up, partitions,
};
use crate::support::client::{Rest, customer_path};
use crate::support::database::Database;
use crate::support::fold::Folds;
use crate::support::log::{MAX_VALUE_BYTES, Shape, generate, seed};
use crate::support::operations::{operate, project, projection, refused};
use crate::support::wait_until;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

const SHAPE: Shape = Shape {
    records: 1_000,
    partitions: 2,
    users: 40,
};

/// Waits until every partition of every domain stands still for this reason.
async fn fails(rest: &Rest, failure: &str) {
    wait_until(SOON, "the domains read failed", async || {
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

/// Resumed without a decision it is as it was, and says so all the while.
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

/// Rebuilds every domain without what is lost, and switches.
async fn rebuild_without_loss_is_refused_but_with_it_done(rest: &Rest) {
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
        wait_until(LONG, "it is switched to", async || {
            let answer = rest.post(&path, &json!({})).await;
            match answer.status {
                200 => Ok(()),
                _ => Err(answer.text()),
            }
        })
        .await;
    }
}

/// What the program did while the log became another one.
#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    Running,
    /// Frozen: by the time it looks, all is as if nothing had happened.
    Frozen,
    Stopped,
}

// ---- a topic that was created anew

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_while_it_runs_fails_the_domain_until_it_is_taken_for_granted() {
    let Some((world, running)) = recreated(Meanwhile::Running).await else {
        return;
    };
    let rest = &running.rest;
    // Looked at again it is as it was.
    still_fails(rest, "topic_recreated").await;
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    // It goes on with the new one, from its beginning, onto what there is.
    let ends: Ends = (0..2)
        .map(|p| (p, world.broker.end(&world.topic, p)))
        .collect();
    for (domain, partitions) in caught_up(rest, &ends).await {
        for (number, partition) in partitions {
            assert_eq!(partition["startPosition"], 0, "{domain}");
            assert_eq!(partition["read"], ends[&number], "{domain}");
        }
        let path = format!("/v1/consistency/{domain}");
        let answer = rest.get(&path).await.json();
        assert_eq!(answer.get("failure"), None, "nothing is wrong: {answer}");
    }
    for (user, found) in [("u-old", "old"), ("u-new", "new"), ("u-both", "new")] {
        let customer = rest.get(&customer_path(user)).await.json();
        assert_eq!(customer["username"], found, "{customer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_while_nobody_looks_is_what_a_rebuild_is_made_from() {
    let Some((world, running)) = recreated(Meanwhile::Stopped).await else {
        return;
    };
    rebuild_without_loss_is_refused_but_with_it_done(&running.rest).await;
    let other = another_log();
    let (fold, ends) = folded(&other, 2);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    // The former versions can't come to where the new ones are.
    let path = "/v1/projections/order/rollback";
    let answer = refused(&running.rest, path, json!({})).await;
    assert_eq!(answer, (409, "NOT_CAUGHT_UP".to_owned()));
    project(&running.rest, "order", "drop", json!({})).await;
    let more = renamed("u-new", "later", 7);
    world.broker.writer().write(&world.topic, &[more]).await;
    let ends: Ends = (0..2)
        .map(|p| (p, world.broker.end(&world.topic, p)))
        .collect();
    caught_up(&running.rest, &ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_with_fewer_partitions_is_gone_on_with_or_rebuilt_from() {
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
    let anew = [renamed("u-new", "new", 0)];
    world.broker.writer().write(&world.topic, &anew).await;
    // Of the partition that is no more it is said, too.
    fails(rest, "topic_recreated").await;
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    let ends = Ends::from([(0, 1)]);
    caught_up(rest, &ends).await;
    // What only the old topic told would be missing still: that it was taken for granted once does not change that.
    rebuild_without_loss_is_refused_but_with_it_done(rest).await;
    let (fold, ends) = folded(&anew, 1);
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_topic_that_was_created_anew_is_taken_for_the_old_ones() {
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

/// As long as the first one and longer: positions alone would not show it.
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
                "nothing of the new topic: {name} of {number}"
            );
        }
    }
    assert_answers(&running, &fold, Depth::Brief).await;
    Some((world, running))
}

// ---- a log that retention has passed

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_deleted_before_it_was_projected_is_a_gap_that_somebody_accepts() {
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
    // Reads go on, with what there is.
    assert_answers(&running, &fold, Depth::Brief).await;
    still_fails(rest, "log_truncated").await;
    for domain in DOMAINS {
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    // What is lost counts as holes, and the books balance.
    let ends: Ends = (0..2)
        .map(|p| (p, world.broker.end(&world.topic, p)))
        .collect();
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

    // A version made from what the log still has begins there.
    rebuild_without_loss_is_refused_but_with_it_done(rest).await;
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

// ---- a log that is shorter than what was read of it

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_fails_the_domain_until_it_is_projected_anew() {
    let Some((_world, running, left)) = shortened(Meanwhile::Running).await else {
        return;
    };
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/resume");
        let answer = refused(&running.rest, &path, json!({})).await;
        assert_eq!(answer, (409, "LOG_TRUNCATED".to_owned()));
    }
    rebuild_without_loss_is_refused_but_with_it_done(&running.rest).await;
    let (fold, ends) = folded(&left, 2);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_is_gone_on_with_where_somebody_accepts_that() {
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
    let ends: Ends = (0..2)
        .map(|p| (p, world.broker.end(&world.topic, p)))
        .collect();
    for partitions in caught_up(&running.rest, &ends).await.values() {
        for (number, partition) in partitions {
            assert_eq!(partition["read"], ends[number], "{partition}");
        }
    }
    let customer = running.rest.get(&customer_path("u-late")).await.json();
    assert_eq!(customer["username"], "late", "{customer}");
}

/// A log whose tail was lost, with another one in its place, longer than what was projected; and what it holds now.
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
    // Written at once behind what is left, or only when it was seen that something is missing: then the position lies
    // within the log again, which shows nothing any more, and mends nothing.
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
async fn a_database_that_was_restored_is_projected_on_from_there_and_said() {
    let Some(broker) = Broker::real() else { return };
    let log = generate(seed() + 4, SHAPE);
    let (first, rest_of_it) = log.split_at(400);
    let (fold, ends) = folded(&log, 2);
    for stopped in [false, true] {
        let mut database = Database::create().await;
        let world = World::new(broker.clone(), Database::of(&database), 2).await;
        let writer = world.broker.writer();
        writer.write(&world.topic, first).await;
        let mut running = world.serve().await;
        caught_up(&running.rest, &folded(first, 2).1).await;
        running.app.process.kill();
        database.back_up().await;
        running = world.serve().await;
        writer.write(&world.topic, rest_of_it).await;
        caught_up(&running.rest, &ends).await;
        // Owners come to know epochs that the restored database has not had.
        for _ in 0..3 {
            for verb in ["pause", "resume"] {
                project(&running.rest, "order", verb, json!({})).await;
            }
            caught_up(&running.rest, &ends).await;
        }
        told_to_kafka(&world, &ends).await;
        if stopped {
            running.app.process.kill();
        }
        database.restore().await;
        if stopped {
            running = world.serve().await;
        }
        went_back(&running.rest).await;
        // It is whole again, and says what happened until somebody has taken note of it.
        assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
        assert_answers(&running, &fold, Depth::Brief).await;
        hearts_beat(&world).await;
        taken_note_of(&mut running, &world).await;
    }
}

/// Waits until every partition was said to be alive, though nothing comes in.
async fn hearts_beat(world: &World) {
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    let since: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&pool)
        .await
        .expect("a time");
    wait_until(SOON, "all hearts beat", async || {
        let beat = sqlx::query_scalar("SELECT bool_and(seen_at > $1) FROM sightline.owners");
        match beat.bind(since).fetch_one(&pool).await {
            Ok(true) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_beside_a_log_that_was_projected_counts_as_restored() {
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
    told_to_kafka(&world, &ends).await;
    running.app.process.kill();
    let empty = Database::create().await;
    world.set("SIGHTLINE_DATABASE_URL", &empty.url);
    running = world.serve().await;
    went_back(&running.rest).await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    taken_note_of(&mut running, &world).await;
    // A version that is built anew was never told of.
    project(&running.rest, "order", "rebuild", json!({})).await;
    caught_up(&running.rest, &ends).await;
    let answer = running.rest.get("/v1/consistency/order").await.json();
    assert_eq!(answer.get("failure"), None, "{answer}");
}

/// Waits until Kafka knows that all domains have come to these ends.
async fn told_to_kafka(world: &World, ends: &Ends) {
    for domain in DOMAINS {
        let group = world.group(domain);
        wait_until(SOON, "Kafka is told", async || {
            let told = world.broker.committed(&group, &world.topic, ends);
            match told == *ends {
                true => Ok(()),
                false => Err(format!("{told:?}, not {ends:?}")),
            }
        })
        .await;
    }
}

async fn went_back(rest: &Rest) {
    wait_until(SOON, "it is said that the database went back", async || {
        let answer = rest.try_get("/v1/consistency").await?.json();
        let domains = answer["domains"].as_array().cloned().unwrap_or_default();
        let said = |domain: &Value| domain["failure"] == "database_went_back";
        match domains.len() == DOMAINS.len() && domains.iter().all(said) {
            true => Ok(()),
            false => Err(answer.to_string()),
        }
    })
    .await;
}

/// An operator resumes the domains; then nothing is said any more, also not after a restart.
async fn taken_note_of(running: &mut Running, world: &World) {
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/resume");
        operate(&running.rest, &path, json!({})).await;
    }
    for restarted in [false, true] {
        if restarted {
            running.app.process.kill();
            *running = world.serve().await;
            let ends: Ends = (0..2)
                .map(|p| (p, world.broker.end(&world.topic, p)))
                .collect();
            caught_up(&running.rest, &ends).await;
        }
        let answer = running.rest.get("/v1/consistency").await.json();
        for domain in answer["domains"].as_array().into_iter().flatten() {
            assert_eq!(domain.get("failure"), None, "{domain}");
        }
    }
}
