//! The bound that sections compare the projector with: a loop written by hand. It reads records without a
//! consumer group and executes the projector's statements; nothing is isolated, fenced, observed or paused in it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sightline::event::{Envelope, Record, hash16};
use sightline::projector::ids::{self, Asked, Runs, SeenEvent};
use sightline::projector::{FeedPosition, NewEvent, Target};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;

use crate::topic::{Domains, Topic};

/// As the projector's.
pub const BATCH_RECORDS: usize = 2_000;

/// A topic that is projected by hand.
pub struct ByHand {
    pub topic: Arc<Topic>,
    pub domains: Domains,
    /// Log ids, by partition.
    logs: Vec<i32>,
    /// The remembered ids of each domain and log.
    runs: Mutex<HashMap<(&'static str, i32), Runs>>,
}

/// A record of interest: itself, what it says, and its event id as it is remembered.
type Candidate<'r> = (&'r Record, Envelope<'r>, Uuid);

/// Records of a partition for a domain.
pub struct Batch<'r> {
    domain: &'static dyn sightline::domains::Domain,
    records: &'r [Record],
    candidates: Vec<Candidate<'r>>,
}

impl ByHand {
    /// Begins the topic in a migrated database.
    pub async fn begin(topic: &Arc<Topic>, domains: Domains, pool: &PgPool) -> ByHand {
        sqlx::query(include_str!("../src/projector/sql/record_logs.sql"))
            .bind("cluster")
            .bind(&topic.name)
            .bind("identity")
            .bind(topic.partitions)
            .execute(pool)
            .await
            .expect("logs");
        let partitions: Vec<i32> = (0..topic.partitions).collect();
        let starts = vec![0_i64; partitions.len()];
        for domain in domains {
            let domain = domain.domain();
            sqlx::query(include_str!("../src/projector/sql/add_partitions.sql"))
                .bind(domain)
                .bind(1)
                .bind("cluster")
                .bind(&topic.name)
                .bind("identity")
                .bind(&partitions)
                .bind(&starts)
                .bind(&starts)
                .execute(pool)
                .await
                .expect("progress rows");
            let view = format!("UPDATE {domain}_live.view_version SET logs = $1");
            sqlx::query(AssertSqlSafe(view))
                .bind(topic.partitions)
                .execute(pool)
                .await
                .expect("a view");
        }
        let logs = sqlx::query_scalar("SELECT log_id FROM sightline.logs ORDER BY partition")
            .fetch_all(pool)
            .await
            .expect("logs");
        ByHand {
            topic: Arc::clone(topic),
            domains,
            logs,
            runs: Mutex::default(),
        }
    }

    /// Reads these partitions from their beginning.
    pub fn consumer(&self, partitions: impl Iterator<Item = i32>) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.topic.broker.address)
            .set("group.id", "by-hand")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic.name, partition, Offset::Offset(0))
                .expect("an offset");
        }
        consumer.assign(&list).expect("assigned");
        consumer
    }

    /// Applies a batch in a transaction, the progress included.
    pub async fn apply(
        &self,
        connection: &mut PgConnection,
        batch: &Batch<'_>,
        steps: &mut Steps,
    ) -> Result<(), sqlx::Error> {
        let Batch {
            domain,
            records,
            candidates,
        } = batch;
        let (first, last) = (&records[0], &records[records.len() - 1]);
        let log_id = self.logs[first.partition as usize];
        let key = (domain.domain(), log_id);
        let runs = self.runs.lock().expect("no panic").remove(&key);
        let mut runs = runs.unwrap_or_default();
        let asked = Asked {
            log_id,
            runs: &runs,
            hashes: candidates.iter().map(|(_, _, id)| *id).collect(),
        };
        let schema = format!("{}_live", domain.domain());
        if !asked.are_new() {
            sqlx::query("SELECT set_config('search_path', $1, true)")
                .bind(&schema)
                .execute(&mut *connection)
                .await?;
        }
        let found = ids::seen(&mut *connection, &[asked]).await?;
        let found = found.into_iter().next().expect("an answer");
        let mut seen: HashSet<Uuid> = found.seen.into_keys().collect();
        if let Some(read_again) = found.runs {
            runs = read_again;
        }
        steps.lap("% of time: look event ids up");

        let mut events = Vec::with_capacity(candidates.len());
        let mut new = BTreeMap::new();
        let mut duplicates = 0_i64;
        for (record, envelope, id) in candidates {
            if !seen.insert(*id) {
                duplicates += 1;
                continue;
            }
            let event = SeenEvent {
                offset: record.offset,
                applied_time: time(record).unwrap_or_default(),
            };
            new.insert(*id, event);
            events.push(NewEvent {
                event: envelope.decode().expect("a good event"),
                log_id,
                offset: record.offset,
                feed_position: FeedPosition::first_attempt(record.offset),
            });
        }
        steps.lap("% of time: parse and decode");
        sqlx::query(include_str!("../src/projector/sql/advance_progress.sql"))
            .bind(domain.domain())
            .bind(1)
            .bind(domain.code_version())
            .bind(&schema)
            .bind("2s")
            .bind([log_id])
            .bind([0_i64])
            .bind([first.offset])
            .bind([last.offset + 1])
            .bind([time(last)])
            .bind([records.len() as i64])
            .bind([events.len() as i64])
            .bind([duplicates])
            .bind([(records.len() - candidates.len()) as i64])
            .bind([0_i64])
            .bind([0_i64])
            .bind([last.offset])
            .bind([last.fingerprint()])
            .fetch_one(&mut *connection)
            .await?;
        steps.lap("% of time: progress");
        if !events.is_empty() {
            let mut target = Target {
                connection: &mut *connection,
                log_count: self.topic.partitions,
                is_live: true,
            };
            domain.apply(&mut target, &events).await?;
            steps.lap("% of time: load, fold and store users");
            let remembered = ids::remember(&mut *connection, [(log_id, &new)]).await?;
            for (_, run) in remembered {
                runs.add(run);
            }
            steps.lap("% of time: remember event ids");
        }
        self.runs.lock().expect("no panic").insert(key, runs);
        Ok(())
    }
}

impl<'r> Batch<'r> {
    /// Reads what records of one partition are, as far as they concern a domain.
    pub fn read(
        domain: &'static dyn sightline::domains::Domain,
        records: &'r [Record],
        steps: &mut Steps,
    ) -> Batch<'r> {
        let candidates = records
            .iter()
            .filter_map(|record| {
                let envelope = Envelope::read(record).expect("a good record");
                let id = hash16(envelope.event_id().expect("an id").as_bytes());
                domain
                    .is_interested(envelope.event_type())
                    .then_some((record, envelope, id))
            })
            .collect();
        steps.lap("% of time: parse and decode");
        Batch {
            domain,
            records,
            candidates,
        }
    }
}

/// How long each step took.
pub struct Steps {
    pub times: BTreeMap<&'static str, Duration>,
    since: Instant,
}

impl Steps {
    pub fn new() -> Steps {
        Steps {
            times: BTreeMap::new(),
            since: Instant::now(),
        }
    }

    /// Counts the time since the last step as this one's.
    pub fn lap(&mut self, step: &'static str) {
        *self.times.entry(step).or_default() += self.since.elapsed();
        self.since = Instant::now();
    }
}

fn time(record: &Record) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(record.timestamp_ms?)
}
