//! What the state of a topic is: identity, partitions, and their offsets, as [`super::monitor`] reads them. And what is
//! read by offset or by time: records to fetch again, start offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::event::Record;
use crate::kafka::group;
use crate::kafka::native::{requests, to_record};

/// How often the offsets are read.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How often a client that only reads offsets asks for the leaders of partitions.
const METADATA_INTERVAL: Duration = Duration::from_secs(2);
/// How long one request to the cluster may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// One incarnation of a topic. A topic that was deleted and created again is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// The id of the Kafka cluster.
    pub cluster_id: String,
    /// The topic's id, if the cluster has topic ids.
    pub topic_id: Option<String>,
}

impl TopicIdentity {
    /// The form in which it is stored with positions.
    pub fn stored(&self) -> &str {
        self.topic_id.as_deref().unwrap_or(UNKNOWN_TOPIC_ID)
    }

    /// Whether stored positions belong to another incarnation than this: to a topic of another cluster, or with another id.
    /// Incarnations without ids can't be distinguished.
    pub fn differs_from(&self, cluster_id: &str, stored: &str) -> bool {
        let has_other_id = |id| stored != UNKNOWN_TOPIC_ID && id != stored;
        cluster_id != self.cluster_id || self.topic_id.as_deref().is_some_and(has_other_id)
    }

    /// Whether the stored form was written while the topic's id, which is known now, was unknown.
    pub fn completes(&self, stored: &str) -> bool {
        stored == UNKNOWN_TOPIC_ID && self.topic_id.is_some()
    }
}

/// The stored form of a topic whose id is not known.
pub const UNKNOWN_TOPIC_ID: &str = "-";

/// The offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The log start offset: the first that the log still holds.
    pub log_start: i64,
    /// The last stable offset: that of the first record of an open transaction, else the log end offset. Records from there
    /// on can't be read yet.
    pub last_stable: i64,
    /// The log end offset: the offset of the next record. Lag counts up to it.
    pub log_end: i64,
    /// A time before the topic's identity was asked for, and then the offsets. Records that were in the log by then lie
    /// before `log_end`.
    pub asked: Instant,
}

/// A topic's state at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicState {
    /// Which incarnation it is.
    pub identity: TopicIdentity,
    /// How many partitions it has. `offsets` lacks those whose leader did not answer yet.
    pub partition_count: i32,
    /// Offsets by partition.
    pub offsets: BTreeMap<i32, PartitionOffsets>,
}

/// The last states read, by topic. A topic is absent until it was read, and while the cluster has none of that name.
pub type TopicStates = Arc<BTreeMap<String, Arc<TopicState>>>;

/// A consumer without a group, for requests.
pub type Reader = BaseConsumer<Unlogged>;

/// Leaves it to the callers of a client to log its errors. While Kafka is unavailable, librdkafka reports hundreds a second.
pub struct Unlogged;

impl ClientContext for Unlogged {
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Unlogged {}

/// Creates a reader.
///
/// # Errors
/// librdkafka refuses the configuration.
pub fn reader(config: &ClientConfig) -> KafkaResult<Reader> {
    let mut config = group::consumer_config(config);
    config.remove("group.id");
    config.set("enable.auto.commit", "false");
    // A connection on which no answer comes is replaced when its request is given up. It must outlast a fetch's wait, and
    // a reader fetches nothing.
    if config.get("socket.timeout.ms").is_none() {
        config.remove("fetch.wait.max.ms");
        config.set("socket.timeout.ms", TIMEOUT.as_millis().to_string());
    }
    // No answer tells librdkafka of a new leader while the old one is gone: until it asks for the topic's metadata, it goes on
    // asking the old leader for the offsets.
    if config.get("topic.metadata.refresh.interval.ms").is_none() {
        let interval = METADATA_INTERVAL.as_millis().to_string();
        config.set("topic.metadata.refresh.interval.ms", interval);
    }
    config.create_with_context(Unlogged)
}

/// For each partition, the offset of the first record that is not older than `time`, else the last stable offset. Blocks.
///
/// # Errors
/// The cluster does not answer, or not for all partitions.
pub fn offsets_at(
    consumer: &Reader,
    name: &str,
    state: &TopicState,
    time: DateTime<Utc>,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut asked = TopicPartitionList::new();
    for partition in state.offsets.keys() {
        asked.add_partition_offset(name, *partition, Offset::Offset(time.timestamp_millis()))?;
    }
    let found = consumer.offsets_for_times(asked, TIMEOUT)?;
    let mut offsets = BTreeMap::new();
    for element in found.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => state.offsets[&element.partition()].last_stable,
        };
        offsets.insert(element.partition(), offset);
    }
    Ok(offsets)
}

/// Fetches records of a partition by their offsets, which must ascend. Leaves out those that the log no longer holds; returns
/// none if the topic is another incarnation by now. Blocks. librdkafka wants the configuration to name a group, although the
/// consumer joins none.
///
/// # Errors
/// The cluster does not answer, or has no topic of that name.
pub fn read_records(
    config: &ClientConfig,
    name: &str,
    identity: &str,
    partition: i32,
    offsets: &[i64],
) -> KafkaResult<HashMap<i64, Record>> {
    let mut config = group::consumer_config(config);
    config.set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut records = HashMap::new();
    let failed = |code| KafkaError::MetadataFetch(code);
    let metadata = consumer.fetch_metadata(Some(name), TIMEOUT)?;
    let found = metadata.topics().first();
    let found = found.ok_or(failed(RDKafkaErrorCode::UnknownTopicOrPartition))?;
    if let Some(code) = found.error() {
        return Err(failed(code.into()));
    }
    let leader = found
        .partitions()
        .iter()
        .find(|found| found.id() == partition && found.leader() >= 0)
        .ok_or(failed(RDKafkaErrorCode::LeaderNotAvailable))?
        .leader();
    let topic = requests::describe_topic(&consumer, leader, name, TIMEOUT)?
        .ok_or(failed(RDKafkaErrorCode::UnknownTopicOrPartition))?;
    if identity != UNKNOWN_TOPIC_ID && topic.id.is_some_and(|id| id != identity) {
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
                // The record was compacted or aborted: this is the next one.
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
