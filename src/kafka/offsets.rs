//! What the Kafka cluster has: each topic's identity, its partitions and their ends, read once a second by
//! one thread for all that the process projects.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::record::to_record;
use crate::event::Record;
use crate::kafka::native;

/// How often the ends are read.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long one question to the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One incarnation of a topic. A topic deleted and created again is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// The id of the Kafka cluster.
    pub cluster_id: String,
    /// The topic's id, where the cluster tells one.
    pub topic_id: Option<String>,
}

impl TopicIdentity {
    /// As it is stored beside positions.
    pub fn stored(&self) -> &str {
        self.topic_id.as_deref().unwrap_or(UNKNOWN)
    }

    /// Whether what is stored beside positions speaks of another topic than this one. What has no id can't be
    /// told apart.
    pub fn differs_from(&self, stored: &str) -> bool {
        stored != UNKNOWN && self.topic_id.as_deref().is_some_and(|id| id != stored)
    }
}

/// What is stored of a topic without an id.
const UNKNOWN: &str = "-";

/// The ends of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The first offset that is still there.
    pub log_start: i64,
    /// The first offset that can't be read yet: that of the next record, or of the first one of a transaction
    /// that is still open.
    pub last_stable: i64,
    /// The offset that the next record gets, open transactions or not: what lag is counted to.
    pub log_end: i64,
    /// When the question was sent: a record before `end` was in the log by then.
    pub asked: Instant,
}

/// A topic, read at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicState {
    /// Which incarnation it is.
    pub identity: TopicIdentity,
    /// How many partitions there are; `ends` may lack one whose leader did not answer.
    pub partition_count: i32,
    /// By partition.
    pub offsets: BTreeMap<i32, PartitionOffsets>,
}

/// What the last readings found, by topic. A topic is absent until it was seen, and again while the cluster
/// says that it has none of that name.
pub type TopicStates = Arc<BTreeMap<String, Arc<TopicState>>>;

/// Reads the cluster until cancelled; what it finds is in the receiver. `None` for as long as nothing was read.
pub fn monitor(
    config: ClientConfig,
    topics: Vec<String>,
    stop: CancellationToken,
) -> watch::Receiver<Option<TopicStates>> {
    let (sender, receiver) = watch::channel(None);
    thread::Builder::new()
        .name("log-monitor".to_owned())
        .spawn(move || run(&config, &topics, &stop, &sender))
        .expect("the operating system has a thread left");
    receiver
}

/// A consumer outside of any group, to ask questions with.
///
/// # Errors
/// The configuration is not librdkafka's.
pub fn reader(config: &ClientConfig) -> KafkaResult<BaseConsumer> {
    let mut config = config.clone();
    config.remove("group.id");
    config.set("enable.auto.commit", "false").create()
}

fn run(
    config: &ClientConfig,
    topics: &[String],
    stop: &CancellationToken,
    sender: &watch::Sender<Option<TopicStates>>,
) {
    let mut unstable = config.clone();
    unstable.set("isolation.level", "read_uncommitted");
    let (stable, unstable) = match reader(config)
        .and_then(|stable| Ok((stable, reader(&unstable)?)))
    {
        Ok(readers) => readers,
        Err(error) => {
            tracing::error!(%error, "the Kafka settings are unusable: no end of the log can be read");
            return;
        }
    };
    let mut away = false;
    while !stop.is_cancelled() {
        let began = Instant::now();
        // Serves the clients' own events; there are no messages.
        drop((stable.poll(Duration::ZERO), unstable.poll(Duration::ZERO)));
        let previous = sender.borrow().clone().unwrap_or_default();
        let mut logs = BTreeMap::new();
        let mut failed = None;
        for name in topics {
            match read_topic(&stable, &unstable, name, previous.get(name)) {
                Ok(Some(log)) => {
                    logs.insert(name.clone(), Arc::new(log));
                }
                Ok(None) => {}
                Err(error) => {
                    failed = Some(error);
                    // What was known stays known; its age shows that it is old.
                    if let Some(log) = previous.get(name) {
                        logs.insert(name.clone(), Arc::clone(log));
                    }
                }
            }
        }
        match (&failed, away) {
            (Some(error), false) => {
                tracing::warn!(%error, "Kafka can't be read; trying again until it can")
            }
            (None, true) => tracing::info!("Kafka can be read again"),
            _ => {}
        }
        away = failed.is_some();
        if !away || !logs.is_empty() {
            sender.send_replace(Some(Arc::new(logs)));
        }
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
}

fn read_topic(
    stable: &BaseConsumer,
    unstable: &BaseConsumer,
    name: &str,
    previous: Option<&Arc<TopicState>>,
) -> KafkaResult<Option<TopicState>> {
    let Some(found) = native::describe_topic(stable, name, TIMEOUT)? else {
        return Ok(None);
    };
    // An id that can't be asked for at the moment is still the one that it was.
    let cluster_id = stable
        .client()
        .fetch_cluster_id(TIMEOUT)
        .or_else(|| Some(previous?.identity.cluster_id.clone()))
        .ok_or(KafkaError::MetadataFetch(
            RDKafkaErrorCode::OperationTimedOut,
        ))?;
    let topic_id = found.id.or_else(|| previous?.identity.topic_id.clone());
    let identity = TopicIdentity {
        cluster_id,
        topic_id,
    };
    let mut offsets = match previous {
        Some(previous) if previous.identity == identity => previous.offsets.clone(),
        _ => BTreeMap::new(),
    };
    if previous.is_none_or(|previous| previous.partition_count != found.partitions) {
        // A client learns of partitions that were added when it asks for the topic; the other one just did.
        unstable.fetch_metadata(Some(name), TIMEOUT)?;
    }
    for partition in 0..found.partitions {
        let asked = Instant::now();
        let read = |consumer: &BaseConsumer| consumer.fetch_watermarks(name, partition, TIMEOUT);
        // A partition without a leader keeps its last reading, which grows old.
        if let (Ok((start, last_stable)), Ok((_, end))) = (read(stable), read(unstable)) {
            let read = PartitionOffsets {
                log_start: start,
                last_stable,
                log_end: end.max(last_stable),
                asked,
            };
            offsets.insert(partition, read);
        }
    }
    Ok(Some(TopicState {
        identity,
        partition_count: found.partitions,
        offsets,
    }))
}

/// The offsets of a topic's partitions at a time: of the first record that is not older, else the end.
/// Blocks.
///
/// # Errors
/// The cluster could not be asked, or has no answer for one of the partitions.
pub fn offsets_at(
    consumer: &BaseConsumer,
    name: &str,
    log: &TopicState,
    time: DateTime<Utc>,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut asked = TopicPartitionList::new();
    for partition in log.offsets.keys() {
        asked.add_partition_offset(name, *partition, Offset::Offset(time.timestamp_millis()))?;
    }
    let found = consumer.offsets_for_times(asked, TIMEOUT)?;
    let mut offsets = BTreeMap::new();
    for element in found.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => log.offsets[&element.partition()].last_stable,
        };
        offsets.insert(element.partition(), offset);
    }
    Ok(offsets)
}

/// Reads records of a partition again, by their offsets, in ascending order. One that is not there any more is left
/// out, and so are all where the topic is another one by now. Blocks. The configuration has to name a group, though
/// nobody joins it.
///
/// # Errors
/// The cluster could not be read, or does not know the topic: at the moment, or any more.
pub fn read_records(
    config: &ClientConfig,
    name: &str,
    identity: &str,
    partition: i32,
    offsets: &[i64],
) -> KafkaResult<HashMap<i64, Record>> {
    let mut config = config.clone();
    config.set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut records = HashMap::new();
    let topic = native::describe_topic(&consumer, name, TIMEOUT)?.ok_or(
        KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition),
    )?;
    if identity != UNKNOWN && topic.id.is_some_and(|id| id != identity) {
        return Ok(records);
    }
    let (start, end) = consumer.fetch_watermarks(name, partition, TIMEOUT)?;
    for offset in offsets
        .iter()
        .filter(|offset| (start..end).contains(offset))
    {
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(name, partition, Offset::Offset(*offset))?;
        consumer.assign(&assigned)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match consumer.poll(deadline.saturating_duration_since(Instant::now())) {
                // Compaction or an abort may have left only the next one.
                Some(Ok(message)) if message.offset() > *offset => break,
                Some(Ok(message)) if message.offset() == *offset => {
                    records.insert(*offset, to_record(&message));
                    break;
                }
                Some(Ok(_)) => {}
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(KafkaError::MessageConsumption(
                        RDKafkaErrorCode::OperationTimedOut,
                    ));
                }
            }
        }
    }
    Ok(records)
}
