//! The state of topics: identity, partitions, and their offsets, read once a second by one thread for the whole process.
//! And what is read by offset or by time: records to fetch again, start offsets.

use std::collections::{BTreeMap, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::event::Record;
use crate::kafka::native::{self, to_record};
use crate::kafka::{group, is_refusal};

/// How often the offsets are read.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long one request to the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(5);

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
    /// When the topic's state was asked for. Records that were in the log by then lie before `log_end`.
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

/// Reads the topics' states until cancelled. The receiver holds the last ones, `None` before the first.
pub fn monitor(
    config: ClientConfig,
    topics: Vec<String>,
    stop: CancellationToken,
) -> watch::Receiver<Option<TopicStates>> {
    let (sender, receiver) = watch::channel(None);
    thread::Builder::new()
        .name("topic-monitor".to_owned())
        .spawn(move || {
            while !stop.is_cancelled() {
                let run = || run(&config, &topics, &stop, &sender);
                match panic::catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, "librdkafka refuses the Kafka settings: no offsets can be read");
                    }
                    Err(_) => tracing::error!("reading the topics' states panicked; starting it again"),
                }
                thread::sleep(INTERVAL);
            }
        })
        .expect("the operating system has a thread left");
    receiver
}

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
    config.create_with_context(Unlogged)
}

fn run(
    config: &ClientConfig,
    topics: &[String],
    stop: &CancellationToken,
    sender: &watch::Sender<Option<TopicStates>>,
) -> KafkaResult<()> {
    let mut unstable = config.clone();
    unstable.set("isolation.level", "read_uncommitted");
    let (stable, unstable) = (reader(config)?, reader(&unstable)?);
    let mut outages: BTreeMap<&str, Outage> = BTreeMap::new();
    let mut refused_login = None;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let previous = sender.borrow().clone().unwrap_or_default();
        let mut states = BTreeMap::new();
        for name in topics {
            let read = read_topic(&stable, &unstable, name, previous.get(name));
            let reported = last_refusal(&stable).or(last_refusal(&unstable));
            refused_login = reported.or(refused_login.filter(|_| read.is_err()));
            let (state, outage) = match read {
                Ok(Some((state, outage))) => (Some(Arc::new(state)), outage),
                Ok(None) => (None, None),
                // The last state stays. Its age shows.
                Err(error) => (
                    previous.get(name).cloned(),
                    Some(Outage {
                        partitions: Vec::new(),
                        error,
                    }),
                ),
            };
            if let Some(state) = state {
                states.insert(name.clone(), state);
            }
            match outage {
                Some(mut outage) => {
                    // Without a login a request ends as a time-out.
                    if let Some(error) = &refused_login
                        && !outage.is_refused()
                    {
                        outage.error = error.clone();
                    }
                    let known = outages.get(name.as_str());
                    if known.is_none_or(|known| !known.is_like(&outage)) {
                        outage.log(name);
                    }
                    outages.insert(name, outage);
                }
                None => {
                    if outages.remove(name.as_str()).is_some() {
                        tracing::info!(topic = name, "Kafka returns the topic's offsets again");
                    }
                }
            }
        }
        if outages.is_empty() || !states.is_empty() {
            sender.send_replace(Some(Arc::new(states)));
        }
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// The last refusal that a client has reported by itself, such as that of a login. Serves the client's events: it has no
/// subscription.
fn last_refusal(client: &Reader) -> Option<KafkaError> {
    std::iter::from_fn(|| client.poll(Duration::ZERO))
        .filter_map(Result::err)
        .filter(|error| error.rdkafka_error_code().is_some_and(is_refusal))
        .last()
}

/// What can't be read of a topic.
struct Outage {
    /// The partitions whose offsets can't be read; none where nothing of the topic can.
    partitions: Vec<i32>,
    error: KafkaError,
}

impl Outage {
    fn is_refused(&self) -> bool {
        self.error.rdkafka_error_code().is_some_and(is_refusal)
    }

    /// Whether both need the same of an operator.
    fn is_like(&self, other: &Outage) -> bool {
        (&self.partitions, self.is_refused()) == (&other.partitions, other.is_refused())
    }

    fn log(&self, topic: &str) {
        let Outage { partitions, error } = self;
        if self.is_refused() {
            tracing::warn!(topic, ?partitions, %error, "Kafka refuses to return the topic's offsets; trying again until it does not");
        } else if partitions.is_empty() {
            tracing::warn!(topic, %error, "Kafka is unavailable; trying again until it is not");
        } else {
            tracing::warn!(topic, ?partitions, %error, "offsets of partitions can't be read; trying again until they can");
        }
    }
}

/// A topic's state, and what can't be read of it; `None` if the cluster has no topic of that name.
fn read_topic(
    stable: &Reader,
    unstable: &Reader,
    name: &str,
    previous: Option<&Arc<TopicState>>,
) -> KafkaResult<Option<(TopicState, Option<Outage>)>> {
    // Before the identity is read: offsets of another incarnation must not look newer than its change.
    let asked = Instant::now();
    let Some(found) = native::describe_topic(stable, name, TIMEOUT)? else {
        return Ok(None);
    };
    // While an id can't be read, the last one counts.
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
        // A client learns of added partitions by requesting metadata. The other client has just done so.
        unstable.fetch_metadata(Some(name), TIMEOUT)?;
    }
    let mut outage: Option<Outage> = None;
    for partition in 0..found.partitions {
        let read = |consumer: &Reader| consumer.fetch_watermarks(name, partition, TIMEOUT);
        match read(stable).and_then(|stable| Ok((stable, read(unstable)?))) {
            Ok(((start, last_stable), (_, end))) => {
                let read = PartitionOffsets {
                    log_start: start,
                    last_stable,
                    log_end: end.max(last_stable),
                    asked,
                };
                offsets.insert(partition, read);
            }
            // The partition keeps its last offsets, which age.
            Err(error) => match &mut outage {
                Some(outage) => outage.partitions.push(partition),
                None => {
                    outage = Some(Outage {
                        partitions: vec![partition],
                        error,
                    });
                }
            },
        }
    }
    let state = TopicState {
        identity,
        partition_count: found.partitions,
        offsets,
    };
    Ok(Some((state, outage)))
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
    let topic = native::describe_topic(&consumer, name, TIMEOUT)?.ok_or(
        KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition),
    )?;
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
