//! One member of a consumer group for one topic: a thread of its own that polls always, hands records to the
//! workers of its partitions, and does what they ask.
//!
//! - Where a partition begins is told by its worker, from the progress table, never by Kafka: an assigned
//!   partition stays paused, and what is fetched is thrown away, until the worker has sought it.
//! - Back-pressure is a pause of the partition whose buffer is full, never a poll that does not happen.
//! - Rebalances are deltas (cooperative, KIP-429, or KIP-848).
//! - A topic that is created anew under the same name is read on by librdkafka as if nothing had happened, at offsets
//!   that mean nothing there, and of a partition that lost its tail (KIP-320) it does not say which one. That it has
//!   noticed either is in its log alone, before the first record of what is there now: who reads is cut off there.
//! - Offsets committed to Kafka are for other people's tools. Nothing begins at them; they only show that the database is
//!   an earlier one than they were told by.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc as channel, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::offsets::TopicStates;
use super::record::to_record;
use crate::event::Record;

/// A partition's buffer is full at this many bytes or records, and takes more below half of them.
const BUFFER_BYTES: usize = 8 << 20;
const BUFFER_RECORDS: usize = 20_000;
/// What a record costs in the buffer beyond its bytes.
const RECORD_OVERHEAD: usize = 200;
/// How long a poll waits for a record: the longest that a worker's request waits for the thread.
const POLL: Duration = Duration::from_millis(50);
/// After so long the rest of the requests, some of which have to wait for Kafka, is for after the next polls.
const REQUESTS_TIME: Duration = Duration::from_millis(200);
/// How often positions are handed to Kafka for other people's lag tools.
const STORE_INTERVAL: Duration = Duration::from_secs(1);
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before a consumer that broke is made anew.
const RECREATE_PAUSE: Duration = Duration::from_secs(2);

/// What a worker gets from its partition, in order.
#[derive(Debug)]
pub enum Delivery {
    Record(Record),
    /// The end of the log was reached: no record lies between the last one delivered and the end that the
    /// log had when the worker last sought.
    End,
}

/// A partition changed hands.
#[derive(Debug)]
pub enum Assignment {
    Assigned(Partition),
    Revoked(i32),
}

/// A worker's hold on an assigned partition.
#[derive(Debug)]
pub struct Partition {
    pub number: i32,
    requests: mpsc::Sender<Request>,
    buffered: Arc<Buffered>,
}

/// Records from where a worker sought.
#[derive(Debug)]
pub struct Records {
    deliveries: channel::UnboundedReceiver<Delivery>,
    buffered: Arc<Buffered>,
}

/// What librdkafka prints for no topic id at all.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// How much waits for a worker.
#[derive(Debug, Default)]
struct Buffered {
    bytes: AtomicUsize,
    records: AtomicUsize,
}

impl Buffered {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.records.fetch_sub(1, Ordering::Relaxed);
    }

    fn exceeds(&self, bytes: usize, records: usize) -> bool {
        self.bytes.load(Ordering::Relaxed) >= bytes
            || self.records.load(Ordering::Relaxed) >= records
    }
}

#[derive(Debug)]
enum Request {
    Seek {
        partition: i32,
        offset: i64,
        buffered: Arc<Buffered>,
        reply: oneshot::Sender<Records>,
    },
    Store {
        partition: i32,
        offset: i64,
        identity: String,
    },
    Committed {
        partition: i32,
        identity: String,
        reply: oneshot::Sender<KafkaResult<Option<i64>>>,
    },
}

impl Partition {
    /// Delivers the partition from an offset on. What an earlier call delivered and was not yet received is
    /// dropped. `None` when the partition is no longer this member's.
    pub async fn seek(&self, offset: i64) -> Option<Records> {
        let (reply, records) = oneshot::channel();
        let buffered = Arc::clone(&self.buffered);
        self.requests
            .send(Request::Seek {
                partition: self.number,
                offset,
                buffered,
                reply,
            })
            .ok()?;
        records.await.ok()
    }

    /// Asks Kafka how far it was told that the partition was projected, of this incarnation of its topic. `None` where it
    /// was told nothing.
    ///
    /// # Errors
    /// Kafka does not say.
    pub async fn committed(&self, identity: &str) -> KafkaResult<Option<i64>> {
        let (reply, committed) = oneshot::channel();
        let request = Request::Committed {
            partition: self.number,
            identity: identity.to_owned(),
            reply,
        };
        // A thread that is gone has no answer.
        drop(self.requests.send(request));
        committed.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Tells Kafka, some time, how far the partition of this incarnation of its topic was projected.
    pub fn store(&self, offset: i64, identity: &str) {
        // A thread that is gone has handed its partitions to another member, who tells it.
        drop(self.requests.send(Request::Store {
            partition: self.number,
            offset,
            identity: identity.to_owned(),
        }));
    }
}

impl Records {
    /// Waits for the next delivery; `None` when the partition was revoked or sought anew.
    pub async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.recv().await?;
        self.took(&delivery);
        Some(delivery)
    }

    /// The next delivery, if it is there already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.try_recv().ok()?;
        self.took(&delivery);
        Some(delivery)
    }

    fn took(&self, delivery: &Delivery) {
        if let Delivery::Record(record) = delivery {
            self.buffered.remove(cost(record));
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.deliveries.close();
        while self.try_next().is_some() {}
    }
}

/// What a record takes of a buffer, in bytes.
fn cost(record: &Record) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len))
        .sum();
    record.value.as_ref().map_or(0, Bytes::len)
        + record.key.as_ref().map_or(0, Bytes::len)
        + headers
        + RECORD_OVERHEAD
}

/// Joins the group and serves its partitions until cancelled, in a thread of its own. Assignments come out of
/// the receiver; a consumer that breaks is made anew after its partitions were revoked.
pub fn join(
    config: ClientConfig,
    topic: String,
    logs: watch::Receiver<Option<TopicStates>>,
    stop: CancellationToken,
) -> channel::UnboundedReceiver<Assignment> {
    let (assignments, receiver) = channel::unbounded_channel();
    thread::Builder::new()
        .name(format!("consumer-{topic}"))
        .spawn(move || {
            while !stop.is_cancelled() {
                let run = || run(&config, &topic, logs.clone(), &stop, &assignments);
                match panic::catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => {
                        tracing::error!(%error, topic, "the Kafka consumer broke; making a new one");
                    }
                    Err(_) => tracing::error!(topic, "the Kafka consumer panicked; making a new one"),
                }
                thread::sleep(RECREATE_PAUSE);
            }
        })
        .expect("the operating system has a thread left");
    receiver
}

/// A partition as the polling thread sees it.
struct Slot {
    /// Where its records go, once its worker has sought.
    deliveries: Option<channel::UnboundedSender<Delivery>>,
    buffered: Arc<Buffered>,
    paused: bool,
    /// A seek that librdkafka was not ready for yet.
    seek: Option<(i64, oneshot::Sender<Records>)>,
}

struct Member {
    topic: String,
    slots: Mutex<HashMap<i32, Slot>>,
    assignments: channel::UnboundedSender<Assignment>,
    requests: mpsc::Sender<Request>,
    logs: watch::Receiver<Option<TopicStates>>,
    /// What librdkafka has told of the topic, until somebody is cut off for it.
    noticed: Mutex<Vec<Noticed>>,
}

/// What librdkafka tells in its log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noticed {
    /// The topic was created anew.
    Recreated,
    /// A partition has lost its tail.
    Truncated(i32),
}

impl Noticed {
    /// What a line tells of a topic.
    fn read(line: &str, topic: &str) -> Option<Self> {
        let changed = format!("Topic {topic} changed id from ");
        if let Some((_, ids)) = line.split_once(&changed) {
            return (!ids.starts_with(NO_ID)).then_some(Self::Recreated);
        }
        let (_, of_partition) = line.split_once(&format!("{topic} ["))?;
        let (partition, reset) = of_partition.split_once("]: offset reset")?;
        let truncated = reset.contains("log truncation detected");
        truncated.then(|| partition.parse().ok().map(Self::Truncated))?
    }
}

impl Member {
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Slot>> {
        // Nothing panics with the lock held; if it did, the map is whole between any two statements.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            // Any offset of the log would do: the partition is paused at once, and sought before it is resumed.
            // But it must be a number: "the end" makes librdkafka ask for it, ask again half a second later if
            // a seek came in between, and then jump there, past the records in between.
            list.add_partition_offset(
                &self.topic,
                *partition,
                Offset::Offset(self.some_offset(*partition)),
            )?;
        }
        consumer.incremental_assign(&list)?;
        consumer.pause(&list)?;
        for partition in partitions {
            let buffered = Arc::new(Buffered::default());
            self.slots().insert(
                *partition,
                Slot {
                    deliveries: None,
                    buffered: Arc::clone(&buffered),
                    paused: true,
                    seek: None,
                },
            );
            let partition = Partition {
                number: *partition,
                requests: self.requests.clone(),
                buffered,
            };
            drop(self.assignments.send(Assignment::Assigned(partition)));
        }
        Ok(())
    }

    /// An offset that the log is known to have.
    fn some_offset(&self, partition: i32) -> i64 {
        let logs = self.logs.borrow();
        let ends = logs
            .as_ref()
            .and_then(|logs| logs.get(&self.topic)?.offsets.get(&partition).copied());
        ends.map_or(0, |ends| ends.last_stable)
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> KafkaResult<()> {
        // A batch under way may still commit: the next owner's first act fences it if it does not.
        self.forget(partitions);
        consumer.incremental_unassign(&self.list(partitions.iter().copied()))
    }

    /// PartitionOffsets what is delivered: whoever goes on must look at the log first.
    fn cut_off(&self) {
        for slot in self.slots().values_mut() {
            slot.deliveries = None;
        }
    }

    /// Cuts off who must not read on.
    fn heed(&self) {
        let noticed =
            std::mem::take(&mut *self.noticed.lock().unwrap_or_else(PoisonError::into_inner));
        for noticed in noticed {
            tracing::warn!(
                topic = self.topic,
                ?noticed,
                "the log is another one; looking at it anew"
            );
            match noticed {
                Noticed::Recreated => self.cut_off(),
                Noticed::Truncated(partition) => {
                    let mut slots = self.slots();
                    if let Some(slot) = slots.get_mut(&partition) {
                        slot.deliveries = None;
                    }
                }
            }
        }
    }

    fn forget(&self, partitions: &[i32]) {
        for partition in partitions {
            if self.slots().remove(partition).is_some() {
                drop(self.assignments.send(Assignment::Revoked(*partition)));
            }
        }
    }
}

impl ClientContext for Member {
    /// Comes in the order of records: before the first that was fetched after what it tells.
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        if let Some(noticed) = Noticed::read(message, &self.topic) {
            let mut all = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(noticed);
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", fac, message, topic = self.topic);
            }
            _ => tracing::debug!(target: "librdkafka", fac, message, topic = self.topic),
        }
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        tracing::debug!(%error, topic = self.topic, "librdkafka reports an error, and goes on");
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<i32> = list
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(consumer, &partitions)
            }
            _ => self.revoked(consumer, &partitions),
        };
        if let Err(error) = outcome {
            tracing::error!(%error, topic = self.topic, "a rebalance could not be followed");
        }
    }
}

fn run(
    config: &ClientConfig,
    topic: &str,
    logs: watch::Receiver<Option<TopicStates>>,
    stop: &CancellationToken,
    assignments: &channel::UnboundedSender<Assignment>,
) -> KafkaResult<()> {
    let (sender, requests) = mpsc::channel();
    let member = Member {
        topic: topic.to_owned(),
        slots: Mutex::default(),
        assignments: assignments.clone(),
        requests: sender,
        logs,
        noticed: Mutex::default(),
    };
    let consumer: BaseConsumer<Member> = config.create_with_context(member)?;
    consumer.subscribe(&[topic])?;
    let outcome = serve(&consumer, stop, &requests);
    let left: Vec<i32> = consumer.context().slots().keys().copied().collect();
    consumer.context().forget(&left);
    // Dropping the consumer leaves the group, so that others need not wait for a session to run out.
    outcome
}

fn serve(
    consumer: &BaseConsumer<Member>,
    stop: &CancellationToken,
    requests: &mpsc::Receiver<Request>,
) -> KafkaResult<()> {
    let member = Arc::clone(consumer.context());
    let mut stored: HashMap<i32, (i64, String)> = HashMap::new();
    let mut store_at = Instant::now();
    while !stop.is_cancelled() {
        let began = Instant::now();
        while began.elapsed() < REQUESTS_TIME
            && let Ok(request) = requests.try_recv()
        {
            match request {
                Request::Seek {
                    partition,
                    offset,
                    buffered,
                    reply,
                } => {
                    if let Some(slot) = member.slots().get_mut(&partition)
                        // A worker of an earlier assignment has nothing to ask any more.
                        && Arc::ptr_eq(&slot.buffered, &buffered)
                    {
                        slot.deliveries = None;
                        slot.seek = Some((offset, reply));
                    }
                }
                Request::Store {
                    partition,
                    offset,
                    identity,
                } => {
                    stored.insert(partition, (offset, identity));
                }
                Request::Committed {
                    partition,
                    identity,
                    reply,
                } => drop(reply.send(committed(consumer, &member, partition, &identity))),
            }
        }
        seek_waiting(consumer, &member);
        resume_drained(consumer, &member)?;
        if store_at.elapsed() >= STORE_INTERVAL {
            store(consumer, &member, &mut stored);
            store_at = Instant::now();
        }
        // As many as are there, but not so many that a worker's request waits long.
        let mut wait = POLL;
        for _ in 0..1_000 {
            let polled = consumer.poll(wait);
            member.heed();
            match polled {
                None => break,
                Some(Ok(message)) => deliver(consumer, &member, &message)?,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(Slot {
                        deliveries: Some(deliveries),
                        ..
                    }) = member.slots().get(&partition)
                    {
                        drop(deliveries.send(Delivery::End));
                    }
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Some(Err(KafkaError::MessageConsumption(
                    code @ (RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopicId
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange),
                ))) => {
                    // The log may be another one now: whoever goes on must look at it first.
                    tracing::warn!(topic = member.topic, %code, "the log is not as it was; looking at it anew");
                    member.cut_off();
                }
                Some(Err(error)) => tracing::debug!(%error, "a poll failed; polling on"),
            }
            wait = Duration::ZERO;
        }
    }
    store(consumer, &member, &mut stored);
    Ok(())
}

/// Seeks what workers wait for. A partition that librdkafka does not fetch (yet, or any more, after an error)
/// can't be sought: it is assigned anew from there.
fn seek_waiting(consumer: &BaseConsumer<Member>, member: &Member) {
    let waiting: Vec<(i32, i64)> = member
        .slots()
        .iter()
        .filter_map(|(partition, slot)| slot.seek.as_ref().map(|(offset, _)| (*partition, *offset)))
        .collect();
    for (partition, offset) in waiting {
        let list = member.list([partition]);
        let sought = consumer
            .seek(
                &member.topic,
                partition,
                Offset::Offset(offset),
                SEEK_TIMEOUT,
            )
            .or_else(|_| {
                let mut anew = TopicPartitionList::new();
                anew.add_partition_offset(&member.topic, partition, Offset::Offset(offset))?;
                consumer.incremental_unassign(&list)?;
                consumer.incremental_assign(&anew)
            })
            .and_then(|()| consumer.resume(&list));
        if let Err(error) = sought {
            tracing::debug!(%error, partition, "a partition can't be sought yet");
            continue;
        }
        // What was fetched before the seek is not handed out any more: librdkafka drops it by version.
        if let Some(slot) = member.slots().get_mut(&partition)
            && let Some((_, reply)) = slot.seek.take()
        {
            let (sender, deliveries) = channel::unbounded_channel();
            slot.deliveries = Some(sender);
            slot.paused = false;
            drop(reply.send(Records {
                deliveries,
                buffered: Arc::clone(&slot.buffered),
            }));
        }
    }
}

fn resume_drained(consumer: &BaseConsumer<Member>, member: &Member) -> KafkaResult<()> {
    let mut drained = Vec::new();
    for (partition, slot) in member.slots().iter_mut() {
        if slot.paused
            && slot.deliveries.is_some()
            && !slot.buffered.exceeds(BUFFER_BYTES / 2, BUFFER_RECORDS / 2)
        {
            slot.paused = false;
            drained.push(*partition);
        }
    }
    if drained.is_empty() {
        Ok(())
    } else {
        consumer.resume(&member.list(drained))
    }
}

fn deliver(
    consumer: &BaseConsumer<Member>,
    member: &Member,
    message: &BorrowedMessage<'_>,
) -> KafkaResult<()> {
    let partition = message.partition();
    let full = {
        let mut slots = member.slots();
        let Some(slot) = slots.get_mut(&partition) else {
            return Ok(());
        };
        if let Some(deliveries) = &slot.deliveries {
            let record = to_record(message);
            let bytes = cost(&record);
            slot.buffered.add(bytes);
            if deliveries.send(Delivery::Record(record)).is_err() {
                slot.buffered.remove(bytes);
                slot.deliveries = None;
            }
        }
        // Nobody wants it: fetching stands still until the worker seeks, whenever that is.
        slot.paused = slot.paused
            || slot.deliveries.is_none()
            || slot.buffered.exceeds(BUFFER_BYTES, BUFFER_RECORDS);
        slot.paused
    };
    if full {
        consumer.pause(&member.list([partition]))
    } else {
        Ok(())
    }
}

/// How far Kafka was told that a partition was projected. What was told of another incarnation of the topic says
/// nothing; nobody knows of which one is meant what others have told.
fn committed(
    consumer: &BaseConsumer<Member>,
    member: &Member,
    partition: i32,
    identity: &str,
) -> KafkaResult<Option<i64>> {
    let told = consumer.committed_offsets(member.list([partition]), COMMITTED_TIMEOUT)?;
    let Some(told) = told.find_partition(&member.topic, partition) else {
        return Ok(None);
    };
    told.error()?;
    // The client library panics on what is not UTF-8, which is nothing that was told here.
    let of = panic::catch_unwind(AssertUnwindSafe(|| told.metadata().to_owned()));
    Ok(match (told.offset(), of) {
        (Offset::Offset(offset), Ok(of)) if of.is_empty() || of == identity => Some(offset),
        _ => None,
    })
}

fn store(
    consumer: &BaseConsumer<Member>,
    member: &Member,
    stored: &mut HashMap<i32, (i64, String)>,
) {
    let mut list = TopicPartitionList::new();
    for (partition, (offset, identity)) in stored.drain() {
        if member.slots().contains_key(&partition) {
            // A list of numbers that Kafka gave can't be refused.
            drop(list.add_partition_offset(&member.topic, partition, Offset::Offset(offset)));
            if let Some(mut told) = list.find_partition(&member.topic, partition) {
                told.set_metadata(identity);
            }
        }
    }
    if list.count() > 0
        && let Err(error) = consumer.store_offsets(&list)
    {
        tracing::debug!(%error, "positions could not be told to Kafka");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_tells_in_its_log_is_read() {
        let read = |line| Noticed::read(line, "user.events");
        let changed = "[thrd:main]: Topic user.events changed id from ";
        let first = format!("{changed}{NO_ID} to mRk1v5vYQ3aaaaaaaaaaaa");
        assert_eq!(read(&first), None);
        let again = format!("{changed}mRk1v5vYQ3aaaaaaaaaaaa to zRk1v5vYQ3aaaaaaaaaaaa");
        assert_eq!(read(&again), Some(Noticed::Recreated));
        assert_eq!(Noticed::read(&again, "events"), None);
        let reset = "[thrd:main]: user.events [7]: offset reset (at offset INVALID (leader epoch 4), broker 1) to ";
        let truncated = format!("{reset}offset INVALID: Local: Partition log truncation detected");
        assert_eq!(read(&truncated), Some(Noticed::Truncated(7)));
        let other = format!("{reset}offset INVALID: Broker: Offset out of range");
        assert_eq!(read(&other), None);
    }
}
