//! What Kafka refuses, for lack of a right or of a valid login, is a failure that operators see: in `/v1/consistency`
//! and, once, in the log. It ends when Kafka no longer refuses. So is what can't be read for another reason,
//! and what Postgres refuses of the work beside projection.

use serde_json::{Value, json};
use sightline_testing::app::{DOMAINS, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up, partitions};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::wait_until;
use sqlx::{AssertSqlSafe, PgPool};

const CONSUMER_REFUSED: &str = "Kafka refuses the consumer; trying again until it does not";
const PROJECTION_FAILED: &str = "projection failed; trying again until it goes through";
const OFFSETS_REFUSED: &str =
    "Kafka refuses to return the topic's offsets; trying again until it does not";

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_kafka_misses_are_failures_until_they_are_given() {
    let Some(broker) = Broker::private_with_logins() else {
        return;
    };
    let mut world = World::new(broker, Database::create().await, 2).await;
    let (address, properties) = world.broker.login("secret");
    // Nothing is allowed on the other topic, which holds up nothing of the first one.
    let other = format!("{}.other", world.topic);
    world.broker.create_topic(&other, 1).await;
    let topics = format!("{},{other}", world.topic);
    world
        .set("SIGHTLINE_KAFKA_BROKERS", &address)
        .set("SIGHTLINE_KAFKA_PROPERTIES", &properties)
        .set("SIGHTLINE_KAFKA_TOPICS", &topics);
    let (broker, topic, prefix) = (&world.broker, world.topic.as_str(), world.group(""));
    let on_topic = ["--topic", topic];
    let on_groups = ["--resource-pattern-type", "prefixed", "--group", &prefix];
    let (read, describe) = (["--operation", "Read"], ["--operation", "Describe"]);
    let writer = broker.writer();
    writer.write(topic, &[event(0, 0), event(1, 0)]).await;
    broker
        .acl("--add", &[&on_topic[..], &read, &describe].concat())
        .await;

    // Without the right to read the group no partition is assigned, so that no worker could report it.
    let running = world.serve().await;
    let is_of_group = |line: &Value| contains(line, "code", "GroupAuthorizationFailed");
    warned(&running, CONSUMER_REFUSED, DOMAINS.len(), is_of_group).await;
    broker.acl("--add", &[&on_groups[..], &read].concat()).await;
    caught_up(&running.rest, &Ends::from([(0, 1), (1, 1)])).await;
    let is_of_other = |line: &Value| {
        line["topic"] == *other && contains(line, "code", "TopicAuthorizationFailed")
    };
    warned(&running, CONSUMER_REFUSED, DOMAINS.len(), is_of_other).await;

    broker
        .acl("--remove", &[&on_topic[..], &read].concat())
        .await;
    failed(&running.rest, "kafka_refuses").await;
    // Partition 0 has something to apply when Kafka no longer refuses, partition 1 has not.
    writer.write(topic, &[event(0, 1)]).await;
    broker.acl("--add", &[&on_topic[..], &read].concat()).await;
    caught_up(&running.rest, &Ends::from([(0, 2), (1, 1)])).await;
    let is_of_topic = |line: &Value| {
        line["failure"] == "kafka_refuses" && contains(line, "cause", "TopicAuthorizationFailed")
    };
    warned(&running, PROJECTION_FAILED, 2 * DOMAINS.len(), is_of_topic).await;

    // Positions are in the database, so that events are applied whose offsets Kafka refuses to commit.
    broker
        .acl("--remove", &[&on_groups[..], &read].concat())
        .await;
    writer.write(topic, &[event(0, 2)]).await;
    warned(&running, CONSUMER_REFUSED, 2 * DOMAINS.len(), is_of_group).await;

    broker
        .acl("--remove", &[&on_topic[..], &read, &describe].concat())
        .await;
    let is_of_topic = |line: &Value| contains(line, "error", "TopicAuthorizationFailed");
    warned(&running, OFFSETS_REFUSED, 2, is_of_topic).await;
    warned(&running, CONSUMER_REFUSED, DOMAINS.len(), is_of_other).await;

    drop(running);
    let (_, properties) = broker.login("a wrong password");
    world.set("SIGHTLINE_KAFKA_PROPERTIES", &properties);
    let running = world.serve().await;
    let is_of_login = |line: &Value| contains(line, "code", "Authentication");
    warned(&running, CONSUMER_REFUSED, DOMAINS.len(), is_of_login).await;
    let is_of_login = |line: &Value| contains(line, "error", "Authentication");
    warned(&running, OFFSETS_REFUSED, 2, is_of_login).await;
}

/// Kafka refuses such a member as a whole for a topic that it may not describe.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_kafka_refuses_to_describe_stops_no_other_where_the_broker_assigns() {
    let Some(broker) = Broker::private_with_logins() else {
        return;
    };
    let mut world = World::new(broker, Database::create().await, 1).await;
    let (address, properties) = world.broker.login("secret");
    let other = format!("{}.other", world.topic);
    world.broker.create_topic(&other, 1).await;
    let topics = format!("{},{other}", world.topic);
    let properties = format!("{properties},group.protocol=consumer");
    world
        .set("SIGHTLINE_KAFKA_BROKERS", &address)
        .set("SIGHTLINE_KAFKA_PROPERTIES", &properties)
        .set("SIGHTLINE_KAFKA_TOPICS", &topics);
    let (broker, prefix) = (&world.broker, world.group(""));
    let read = ["--operation", "Read"];
    let on_groups = ["--resource-pattern-type", "prefixed", "--group", &prefix];
    let on_topic = ["--topic", world.topic.as_str()];
    broker.acl("--add", &[&on_groups[..], &read].concat()).await;
    broker.acl("--add", &[&on_topic[..], &read].concat()).await;
    let writer = broker.writer();
    writer.write(&world.topic, &[event(0, 0)]).await;
    writer.write(&other, &[event(0, 1)]).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;
    let is_of_other = |line: &Value| line["topic"] == *other;
    warned(&running, CONSUMER_REFUSED, DOMAINS.len(), is_of_other).await;

    let on_other = ["--topic", other.as_str()];
    broker.acl("--add", &[&on_other[..], &read].concat()).await;
    wait_until(SOON, "both topics are projected", async || {
        let answer = running.rest.try_get("/v1/consistency").await?.json();
        for domain in answer["domains"].as_array().into_iter().flatten() {
            let shown = domain["partitions"].as_array().into_iter().flatten();
            if shown.filter(|shown| shown["position"] == 1).count() < 2 {
                return Err(domain.to_string());
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_decompressed_are_a_failure_and_never_skipped() {
    let Some(broker) = Broker::real() else { return };
    let world = World::new(broker, Database::create().await, 1).await;
    let (broker, topic) = (&world.broker, world.topic.as_str());
    broker.writer().write(topic, &[event(0, 0)]).await;
    let batch: Vec<Record> = (1..50).map(|n| event(0, n)).collect();
    broker.compressing_writer("lz4").write(topic, &batch).await;
    if broker.invert_last_bytes(topic, 0).is_none() {
        return;
    }
    let running = world.serve().await;
    failed(&running.rest, "fetch_failed").await;
    let is_it = |line: &Value| line["failure"] == "fetch_failed";
    warned(&running, PROJECTION_FAILED, DOMAINS.len(), is_it).await;
    broker.invert_last_bytes(topic, 0);
    caught_up(&running.rest, &Ends::from([(0, 50)])).await;
    warned(&running, PROJECTION_FAILED, DOMAINS.len(), is_it).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_postgres_refuses_is_logged_when_it_begins_and_ends() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let pool = PgPool::connect(&world.database.url).await;
    let pool = pool.expect("the database");
    let rename = async |from: &str, to: &str| {
        let statement = format!("ALTER TABLE sightline.{from} RENAME TO {to}");
        let renamed = sqlx::query(AssertSqlSafe(statement)).execute(&pool).await;
        renamed.expect("it is renamed");
    };
    let fails = "work fails; trying again until it goes through";
    let is_erasure = |line: &Value| line["work"] == "erasing dead letters of deleted users";
    let is_heartbeat = |line: &Value| line["work"] == "writing heartbeats";
    caught_up(&running.rest, &Ends::from([(0, 0)])).await;
    rename("erasures", "gone_erasures").await;
    warned(&running, fails, DOMAINS.len(), is_erasure).await;
    rename("heartbeats", "gone_heartbeats").await;
    warned(&running, fails, 1, is_heartbeat).await;
    rename("gone_erasures", "erasures").await;
    rename("gone_heartbeats", "heartbeats").await;
    caught_up(&running.rest, &Ends::from([(0, 0)])).await;
    wait_until(SOON, "all work goes through again", async || {
        let mut lines = running.app.log();
        lines.retain(|line| line["message"] == "work goes through again");
        let again = lines
            .iter()
            .filter(|line| is_erasure(line) || is_heartbeat(line));
        match again.count() {
            n if n == DOMAINS.len() + 1 => Ok(()),
            n => Err(format!("{n} lines")),
        }
    })
    .await;
    warned(&running, fails, DOMAINS.len(), is_erasure).await;
}

fn event(partition: i32, n: usize) -> Record {
    let (user, id) = (format!("u-{partition}"), format!("e-{partition}-{n}"));
    let data = json!({"updatedFields": {"username": id}});
    Record::cloud_event(partition, &user, &id, "UserUpdated", data)
}

fn contains(line: &Value, field: &str, text: &str) -> bool {
    line[field]
        .as_str()
        .is_some_and(|value| value.contains(text))
}

/// Waits for so many warnings with this message of which `is_it` holds. There must not be more: none is repeated.
async fn warned(running: &Running, message: &str, count: usize, is_it: impl Fn(&Value) -> bool) {
    wait_until(SOON, message, async || {
        let mut lines = running.app.log();
        lines.retain(|line| line["level"] == "WARN" && line["message"] == message && is_it(line));
        assert!(lines.len() <= count, "{lines:#?}");
        match lines.len() {
            n if n == count => Ok(()),
            n => Err(format!("{n} warnings")),
        }
    })
    .await;
}

/// Waits until every partition of every domain has state `stalled` with this failure.
async fn failed(rest: &Rest, failure: &str) {
    wait_until(SOON, failure, async || {
        let answer = rest.try_get("/v1/consistency").await?.json();
        for domain in answer["domains"].as_array().into_iter().flatten() {
            let failed = |p: &Value| p["state"] == "stalled" && p["failure"] == failure;
            let partitions = partitions(domain);
            if partitions.is_empty() || !partitions.values().all(failed) {
                return Err(domain.to_string());
            }
        }
        Ok(())
    })
    .await;
}
