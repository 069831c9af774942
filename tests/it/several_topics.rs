//! A domain's view is made from several topics, by one member of one consumer group. A topic that is missing, deleted or
//! created again stops no other, and members that subscribe to one topic each, as those of former releases do, can share the
//! group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};
use sightline_testing::app::{DOMAINS, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::Ends;
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::wait_until;
use sqlx::PgPool;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_deleted_or_created_again_stops_no_other() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 2).await;
    let (topic, other) = two_topics(&mut world);
    let writer = world.broker.writer();
    writer.write(&topic, &[event(0, 0), event(1, 0)]).await;
    let running = world.serve().await;
    let rest = &running.rest;
    projected(rest, &topic, Ends::from([(0, 1), (1, 1)])).await;

    world.broker.create_topic(&other, 1).await;
    writer.write(&other, &[event(0, 0)]).await;
    projected(rest, &other, Ends::from([(0, 1)])).await;
    let before = epochs(&world, &topic).await;

    world.broker.delete_topic(&other).await;
    writer.write(&topic, &[event(0, 1)]).await;
    projected(rest, &topic, Ends::from([(0, 2), (1, 1)])).await;

    world.broker.create_topic(&other, 1).await;
    let records = [event(0, 1), event(0, 2)];
    world.broker.writer().write(&other, &records).await;
    let recreated = ("failed".to_owned(), "topic_recreated".to_owned());
    wait_until(SOON, "the other topic has failed", async || {
        for (domain, partition, shown) in of_topic(rest, &other).await? {
            let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
            assert_eq!(shown["position"], 1, "{domain}, {partition}: {shown}");
            if (text("state"), text("failure")) != recreated {
                return Err(format!("{domain}, {partition}: {shown}"));
            }
        }
        Ok(())
    })
    .await;
    writer.write(&topic, &[event(1, 1)]).await;
    projected(rest, &topic, Ends::from([(0, 2), (1, 2)])).await;
    let after = epochs(&world, &topic).await;
    assert_eq!(after, before, "no partition was claimed again");
    let log = running.app.log();
    let is_of_consumers = |line: &&Value| {
        let said = line["message"].as_str().unwrap_or_default();
        said.starts_with("the Kafka consumer")
    };
    assert_eq!(
        log.iter().find(is_of_consumers),
        None,
        "no consumer was replaced"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_subscribes_to_one_of_the_topics_shares_the_group() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 4).await;
    let (topic, other) = two_topics(&mut world);
    world.broker.create_topic(&other, 2).await;
    let writer = world.broker.writer();
    let records = [event(0, 0), event(1, 0), event(2, 0), event(3, 0)];
    writer.write(&topic, &records).await;
    writer.write(&other, &records[..2]).await;
    let (ends, others) = (
        (0..4).map(|partition| (partition, 1)).collect::<Ends>(),
        Ends::from([(0, 1), (1, 1)]),
    );

    let former = FormerMember::join(&world, &topic);
    wait_until(
        SOON,
        "the former member has the topic",
        async || match former.partitions() {
            4 => Ok(()),
            n => Err(format!("{n} partitions")),
        },
    )
    .await;
    let running = world.serve().await;
    projected(&running.rest, &other, others.clone()).await;
    wait_until(SOON, "the two share the topic", async || {
        let shown = of_topic(&running.rest, &topic).await?;
        let order = shown.iter().filter(|(domain, ..)| domain == "order");
        let projected = order.filter(|(.., shown)| shown["position"] == 1).count();
        match (former.partitions(), projected) {
            (of_former, projected) if of_former > 0 && of_former + projected == 4 => Ok(()),
            seen => Err(format!("former member, projected: {seen:?}")),
        }
    })
    .await;

    drop(former);
    projected(&running.rest, &topic, ends).await;
    projected(&running.rest, &other, others).await;
}

/// Names a second topic, and configures both.
fn two_topics(world: &mut World) -> (String, String) {
    let topic = world.topic.clone();
    let other = format!("{topic}.other");
    world
        .set("SIGHTLINE_KAFKA_TOPICS", &format!("{topic},{other}"))
        .set(
            "SIGHTLINE_KAFKA_PROPERTIES",
            "topic.metadata.refresh.interval.ms=500",
        );
    (topic, other)
}

/// A member of the group of `order`, as releases had one for each topic. It projects nothing.
struct FormerMember {
    consumer: Arc<BaseConsumer>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FormerMember {
    fn join(world: &World, topic: &str) -> FormerMember {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &world.broker.address)
            .set("group.id", world.group("order"))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a client");
        consumer.subscribe(&[topic]).expect("subscribed");
        let (consumer, stop) = (Arc::new(consumer), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (consumer, stop) = (Arc::clone(&consumer), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    drop(consumer.poll(Duration::from_millis(50)));
                }
            }
        });
        FormerMember {
            consumer,
            stop,
            thread: Some(thread),
        }
    }

    fn partitions(&self) -> usize {
        let assigned = self.consumer.assignment();
        assigned.map_or(0, |assigned| assigned.count())
    }
}

/// The member leaves its group.
impl Drop for FormerMember {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(|thread| thread.join()));
    }
}

fn event(partition: i32, n: usize) -> Record {
    let (user, id) = (format!("u-{partition}"), uuid::Uuid::now_v7().to_string());
    let data = json!({"updatedFields": {"username": format!("name-{n}")}});
    Record::cloud_event(partition, &user, &id, "UserUpdated", data)
}

/// The epochs of a topic's partitions in all domains.
async fn epochs(world: &World, topic: &str) -> Vec<i64> {
    let pool = PgPool::connect(&world.database.url).await;
    let pool = pool.expect("the database");
    let epochs = sqlx::query_scalar(
        "SELECT epoch FROM sightline.progress JOIN sightline.logs USING (log_id)
         WHERE topic = $1 ORDER BY domain, log_id",
    );
    let epochs = epochs.bind(topic).fetch_all(&pool).await;
    epochs.expect("epochs")
}

/// What every domain shows of a topic's partitions: the domain, the partition's number, and the rest.
async fn of_topic(rest: &Rest, topic: &str) -> Result<Vec<(String, i32, Value)>, String> {
    let answer = rest.try_get("/v1/consistency").await?.json();
    let mut found = Vec::new();
    for domain in answer["domains"].as_array().into_iter().flatten() {
        let partitions = domain["partitions"].as_array().into_iter().flatten();
        for shown in partitions.filter(|shown| shown["topic"] == topic) {
            let name = domain["domain"].as_str().unwrap_or_default().to_owned();
            let number = shown["partition"].as_i64().unwrap_or(-1);
            found.push((name, number as i32, shown.clone()));
        }
    }
    Ok(found)
}

/// Waits until every domain has projected a topic to these ends, which are its only partitions.
async fn projected(rest: &Rest, topic: &str, ends: Ends) {
    wait_until(SOON, "every domain has projected the topic", async || {
        let found = of_topic(rest, topic).await?;
        let is_projected = |(_, partition, shown): &(String, i32, Value)| {
            shown["state"] == "caught_up"
                && ends
                    .get(partition)
                    .is_some_and(|end| shown["position"] == *end)
        };
        if found.len() == DOMAINS.len() * ends.len() && found.iter().all(is_projected) {
            return Ok(());
        }
        Err(format!("{found:?}"))
    })
    .await;
}
