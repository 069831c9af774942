//! How fast a backlog of the order domain is projected: by `sightline serve`, and by a loop written by hand,
//! which is the upper bound. The loop reads the same records without a consumer group, in a thread and on a
//! connection of its own for each partition, and executes the same statements over batches of the same size;
//! nothing is isolated, fenced, observed or paused in it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sightline::domains::order::Order;
use sightline::event::{Envelope, Record, hash16};
use sightline::kafka::to_record;
use sightline::projector::{FeedPosition, NewEvent, Projection, Target};
use sightline_testing::app::{App, Running, sightline};
use sightline_testing::broker::Broker;
use sightline_testing::unique;
use sqlx::{Connection, PgConnection, PgPool, Row};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::report::Report;
use crate::{Bench, log};

/// As the projector's.
const BATCH_RECORDS: usize = 2_000;

/// A topic filled with a generated log.
pub struct Topic {
    pub broker: Broker,
    pub name: String,
    pub users: Vec<String>,
    pub events: i64,
}

impl Topic {
    pub async fn fill(bench: &Bench) -> Topic {
        let (broker, name) = (bench.broker(), unique("user.events"));
        broker.create_topic(&name, log::PARTITIONS).await;
        let records = log::generate(bench.settings.events);
        let writer = broker.writer();
        for some in records.chunks(100_000) {
            writer.write(&name, some).await;
        }
        Topic {
            broker,
            name,
            users: log::users(&records),
            events: records.len() as i64,
        }
    }

    /// Starts `sightline serve` on a migrated database; its ports may not be open yet.
    pub fn serve(&self, database: &str) -> App {
        let mut command = sightline(&["serve"]);
        command.envs([
            ("SIGHTLINE_DATABASE_URL", database),
            ("SIGHTLINE_KAFKA_BROKERS", &self.broker.address),
            ("SIGHTLINE_KAFKA_TOPICS", &self.name),
            ("SIGHTLINE_KAFKA_GROUP_PREFIX", &unique("group")),
            ("SIGHTLINE_DOMAINS", "order"),
        ]);
        App::start(&command)
    }

    /// Starts it and waits until everything is projected.
    pub async fn project(&self, bench: &Bench) -> Running {
        let (database, pool) = bench.migrated().await;
        let app = self.serve(&database);
        self.projected(&pool, Instant::now()).await;
        app.ready().await
    }

    /// Waits until everything is projected: how long that took since a moment, and how many events a second
    /// it were from the first commit on.
    pub async fn projected(&self, pool: &PgPool, since: Instant) -> (Duration, f64) {
        let mut first = None;
        loop {
            let done: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum(next_offset), 0)::bigint FROM sightline.progress",
            )
            .fetch_one(pool)
            .await
            .expect("progress");
            if done > 0 && first.is_none() {
                first = Some((done, Instant::now()));
            }
            if done == self.events {
                let (before, at) = first.expect("a first one");
                return (
                    since.elapsed(),
                    (done - before) as f64 / at.elapsed().as_secs_f64(),
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub async fn run(bench: &Bench, report: &mut Report) {
    let topic = Arc::new(Topic::fill(bench).await);
    let (by_hand, sightline) = ("by hand", "sightline serve");
    for round in 0..bench.settings.rounds {
        let mut outcomes = Vec::new();
        // They take turns in going first.
        for turn in 0..2 {
            let (database, pool) = bench.migrated().await;
            sqlx::query("CHECKPOINT")
                .execute(&pool)
                .await
                .expect("a checkpoint");
            let wal = wal_position(&pool).await;
            let began = Instant::now();
            let name = if (round + turn) % 2 == 0 {
                let by_hand_steps = start_by_hand(&topic, &database, &pool).await;
                add(report, by_hand, topic.projected(&pool, began).await);
                finish_by_hand(by_hand_steps, report, by_hand).await;
                by_hand
            } else {
                let app = topic.serve(&database);
                add(report, sightline, topic.projected(&pool, began).await);
                drop(app);
                sightline
            };
            let written = (wal_position(&pool).await - wal) as f64;
            report.add(name, "WAL bytes/event", written / topic.events as f64);
            outcomes.push(outcome(&pool).await);
            pool.close().await;
        }
        assert_eq!(outcomes[0], outcomes[1], "both make the same view");
        if round == 0 {
            let (customers, ids, ..) = &outcomes[0];
            report.add("the log", "events", topic.events as f64);
            report.add("the log", "customers", *customers as f64);
            report.add("the log", "event ids remembered", *ids as f64);
        }
    }
    let rate = |row| report.median(row, "events/s, from the first commit on");
    let ratio = rate(sightline) / rate(by_hand);
    report.add(sightline, "of what is possible by hand", ratio);
}

pub async fn wal_position(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        .fetch_one(pool)
        .await
        .expect("a position")
}

/// What a view came to: customers, remembered ids, and a digest of all states.
async fn outcome(pool: &PgPool) -> (i64, i64, String) {
    sqlx::query_as(
        "SELECT count(*), (SELECT count(*) FROM order_live.seen_events),
                md5(string_agg(state::text, '' ORDER BY user_key))
         FROM order_live.users",
    )
    .fetch_one(pool)
    .await
    .expect("a view")
}

fn add(report: &mut Report, row: &str, (total, rate): (Duration, f64)) {
    report.add(row, "events/s, from the first commit on", rate);
    report.add(row, "s from start to caught up", total.as_secs_f64());
}

/// Starts to project the topic by hand, a thread for each partition.
async fn start_by_hand(
    topic: &Arc<Topic>,
    database: &str,
    pool: &PgPool,
) -> Vec<JoinHandle<Steps>> {
    let partitions: Vec<i32> = (0..log::PARTITIONS).collect();
    let starts = vec![0_i64; partitions.len()];
    sqlx::query(include_str!("../src/projector/sql/record_logs.sql"))
        .bind("cluster")
        .bind(&topic.name)
        .bind("identity")
        .bind(log::PARTITIONS)
        .execute(pool)
        .await
        .expect("logs");
    sqlx::query(include_str!("../src/projector/sql/add_partitions.sql"))
        .bind("order")
        .bind(1)
        .bind("cluster")
        .bind(&topic.name)
        .bind("identity")
        .bind(&partitions)
        .bind(&starts)
        .bind(vec![None::<i64>; partitions.len()])
        .execute(pool)
        .await
        .expect("progress rows");
    sqlx::query("UPDATE order_live.view_version SET logs = $1")
        .bind(log::PARTITIONS)
        .execute(pool)
        .await
        .expect("a view");
    let logs: Vec<(i32, i32)> = sqlx::query_as("SELECT partition, log_id FROM sightline.logs")
        .fetch_all(pool)
        .await
        .expect("logs");
    logs.into_iter()
        .map(|(partition, log_id)| {
            let (topic, database, runtime) =
                (Arc::clone(topic), database.to_owned(), Handle::current());
            tokio::task::spawn_blocking(move || {
                let by_hand = ByHand {
                    log_id,
                    steps: Steps::default(),
                };
                by_hand.project(&topic, partition, &database, &runtime)
            })
        })
        .collect()
}

/// Where the time went, as the sum over all partitions.
async fn finish_by_hand(threads: Vec<JoinHandle<Steps>>, report: &mut Report, row: &str) {
    let mut steps: BTreeMap<&'static str, f64> = BTreeMap::new();
    for thread in threads {
        for (step, time) in thread.await.expect("no panic").0 {
            *steps.entry(step).or_default() += time.as_secs_f64();
        }
    }
    let all: f64 = steps.values().sum();
    for (step, time) in steps {
        report.add(row, step, 100.0 * time / all);
    }
}

/// How long each step took.
#[derive(Default)]
struct Steps(BTreeMap<&'static str, Duration>);

impl Steps {
    fn add(&mut self, step: &'static str, since: &mut Instant) {
        *self.0.entry(step).or_default() += since.elapsed();
        *since = Instant::now();
    }
}

struct ByHand {
    log_id: i32,
    steps: Steps,
}

impl ByHand {
    fn project(mut self, topic: &Topic, partition: i32, database: &str, runtime: &Handle) -> Steps {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &topic.broker.address)
            .set("group.id", "by-hand")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let end = topic.broker.end(&topic.name, partition);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic.name, partition, Offset::Offset(0))
            .expect("an offset");
        consumer.assign(&list).expect("assigned");
        let mut connection = runtime
            .block_on(PgConnection::connect(database))
            .expect("Postgres answers");
        let mut next = 0;
        while next < end {
            let mut since = Instant::now();
            let mut batch = Vec::with_capacity(BATCH_RECORDS);
            while batch.len() < BATCH_RECORDS && next < end {
                if let Some(message) = consumer.poll(Duration::from_secs(1)) {
                    let record = to_record(&message.expect("a record"));
                    next = record.offset + 1;
                    batch.push(record);
                }
            }
            self.steps.add("% of time: read from Kafka", &mut since);
            runtime
                .block_on(self.batch(&mut connection, &batch, next, since))
                .expect("a batch goes through");
        }
        self.steps
    }

    async fn batch(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Record],
        next: i64,
        mut since: Instant,
    ) -> Result<(), sqlx::Error> {
        let candidates: Vec<(&Record, Envelope<'_>, Uuid)> = batch
            .iter()
            .filter_map(|record| {
                let envelope = Envelope::read(record).expect("a good record");
                let id = hash16(envelope.event_id().expect("an id").as_bytes());
                Order
                    .is_interested(envelope.event_type())
                    .then_some((record, envelope, id))
            })
            .collect();
        self.steps.add("% of time: parse and decode", &mut since);

        let mut transaction = connection.begin().await?;
        sqlx::query(include_str!("../src/projector/sql/lock_progress.sql"))
            .bind("order")
            .bind(1)
            .bind([self.log_id])
            .bind([0_i64])
            .bind([batch[0].offset])
            .bind("order_live")
            .fetch_one(&mut *transaction)
            .await?;
        self.steps.add("% of time: progress", &mut since);
        let asked: Vec<Uuid> = candidates.iter().map(|(_, _, id)| *id).collect();
        let mut seen: HashSet<Uuid> =
            sqlx::query(include_str!("../src/projector/sql/seen_events.sql"))
                .bind(vec![self.log_id; asked.len()])
                .bind(&asked)
                .fetch_all(&mut *transaction)
                .await?
                .iter()
                .map(|row| row.get("event_hash"))
                .collect();
        self.steps.add("% of time: look event ids up", &mut since);

        let mut events = Vec::with_capacity(candidates.len());
        let mut new = BTreeMap::new();
        let mut duplicates = 0_i64;
        for (record, envelope, id) in &candidates {
            if !seen.insert(*id) {
                duplicates += 1;
                continue;
            }
            new.insert(*id, (record.offset, time(record)));
            events.push(NewEvent {
                event: envelope.decode().expect("a good event"),
                log_id: self.log_id,
                offset: record.offset,
                feed_position: FeedPosition::first_attempt(record.offset),
            });
        }
        self.steps.add("% of time: parse and decode", &mut since);
        let mut target = Target {
            connection: &mut transaction,
            log_count: log::PARTITIONS,
        };
        Order.apply(&mut target, &events).await?;
        self.steps
            .add("% of time: load, fold and store customers", &mut since);

        let ids: Vec<Uuid> = new.keys().copied().collect();
        let (offsets, times): (Vec<i64>, Vec<Option<DateTime<Utc>>>) = new.into_values().unzip();
        sqlx::query(include_str!("../src/projector/sql/remember_events.sql"))
            .bind(vec![self.log_id; ids.len()])
            .bind(&ids)
            .bind(&offsets)
            .bind(&times)
            .execute(&mut *transaction)
            .await?;
        self.steps.add("% of time: remember event ids", &mut since);
        sqlx::query(include_str!("../src/projector/sql/advance_progress.sql"))
            .bind("order")
            .bind(1)
            .bind(1)
            .bind([self.log_id])
            .bind([next])
            .bind([batch.last().and_then(time)])
            .bind([batch.len() as i64])
            .bind([events.len() as i64])
            .bind([duplicates])
            .bind([(batch.len() - candidates.len()) as i64])
            .bind([0_i64])
            .bind([0_i64])
            .bind([batch.last().map(|record| record.offset)])
            .bind([batch.last().map(Record::fingerprint)])
            .execute(&mut *transaction)
            .await?;
        self.steps.add("% of time: progress", &mut since);
        transaction.commit().await?;
        self.steps.add("% of time: commit", &mut since);
        Ok(())
    }
}

fn time(record: &Record) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(record.timestamp_ms?)
}
