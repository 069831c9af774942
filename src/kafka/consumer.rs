//! One member of a consumer group, for all topics: a thread that never stops polling for long, delivers records to the
//! workers of its partitions, and serves their requests.
//!
//! - Workers decide where a partition begins. An assigned partition is paused until its worker seeks.
//! - A partition that was read to its end is offered to the shared consumer (`shared`), and paused while that delivers it.
//! - What is fetched of a partition whose buffer is full stays in its own queue, until there is room; polling goes on.
//! - Rebalances are deltas (KIP-429, KIP-848).
//! - An error ends the delivery of what it concerns: a partition, or a topic that is missing or refused. The others go on.
//! - librdkafka reports a topic that was created again, and a lost tail (KIP-320), only in its debug log, just before the
//!   first new record. Delivery stops at that line, because the offsets belong to another log from there on.
//! - Offsets are committed to Kafka for lag tools, and to detect a restored database. No partition begins at them.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc as channel, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::faults::Faults;
use super::is_refusal;
pub use super::native::events::TopicPartition;
use super::native::events::{Event, Events, Scope, list};
use super::offsets::TopicStates;
use super::records::{Buffer, Buffers, By, Delivered, Ended, Outlet, Records};
use super::refusals::Refusals;
use super::shared::SharedConsumer;
use crate::event::Record;

/// How long a poll waits for a record, and so how long a worker's request waits for the thread.
const POLL: Duration = Duration::from_millis(50);
/// How long a poll waits while a buffer is full, and so how long a partition waits at most once its buffer has room again.
const POLL_WHILE_FULL: Duration = Duration::from_millis(5);
/// A partition whose buffer is full for longer is paused, and librdkafka drops what it has fetched, so that a stuck worker
/// costs no memory. A worker whose buffer is full for less is only slow, and would have to wait for the same records again.
const LONGEST_FULL: Duration = Duration::from_secs(10);
/// After so long the rest of the requests, some of which wait for Kafka, is served after the next polls.
const REQUESTS_TIME: Duration = Duration::from_millis(200);
/// How often positions are stored for the commit to Kafka, and partitions offered to the shared consumer.
const STORE_INTERVAL: Duration = Duration::from_secs(1);
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a consumer that Kafka refuses for one of its topics asks which of them it may describe.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(5);
const RIGHTS_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a broken consumer is replaced.
const RECREATE_PAUSE: Duration = Duration::from_secs(2);

/// A change of a partition's assignment.
#[derive(Debug)]
pub enum Assignment {
    Assigned(Partition),
    Revoked(TopicPartition),
}

/// An assigned partition, as its worker uses it.
#[derive(Debug)]
pub struct Partition {
    pub id: TopicPartition,
    requests: mpsc::Sender<Request>,
    buffer: Arc<Buffer>,
}

#[derive(Debug)]
enum Request {
    Seek {
        partition: TopicPartition,
        sought: Sought,
        buffer: Arc<Buffer>,
    },
    Store {
        partition: TopicPartition,
        offset: i64,
        identity: String,
    },
    Committed(Asked),
}

/// Where a worker has sought.
#[derive(Debug)]
struct Sought {
    offset: i64,
    /// The incarnation of the topic that the worker has claimed.
    identity: String,
    reply: oneshot::Sender<Records>,
}

/// A question for the offset that was committed for a partition, in this incarnation of its topic.
#[derive(Debug)]
struct Asked {
    partition: TopicPartition,
    identity: String,
    reply: oneshot::Sender<KafkaResult<Option<i64>>>,
}

impl Partition {
    /// Delivers the partition from an offset of this incarnation of the topic on. Deliveries of an earlier call that were not
    /// received are dropped. `None` if the partition was revoked.
    pub async fn seek(&self, offset: i64, identity: &str) -> Option<Records> {
        let (reply, records) = oneshot::channel();
        let identity = identity.to_owned();
        self.requests
            .send(Request::Seek {
                partition: self.id.clone(),
                sought: Sought {
                    offset,
                    identity,
                    reply,
                },
                buffer: Arc::clone(&self.buffer),
            })
            .ok()?;
        records.await.ok()
    }

    /// The offset that was committed for this incarnation of the topic; `None` if none was.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn committed(&self, identity: &str) -> KafkaResult<Option<i64>> {
        let (reply, committed) = oneshot::channel();
        let request = Request::Committed(Asked {
            partition: self.id.clone(),
            identity: identity.to_owned(),
            reply,
        });
        // If the thread has ended, the reply channel is closed.
        drop(self.requests.send(request));
        committed.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Commits an offset of this incarnation of the topic with the next commit.
    pub fn store(&self, offset: i64, identity: &str) {
        // If the thread has ended, another member owns the partition and commits.
        drop(self.requests.send(Request::Store {
            partition: self.id.clone(),
            offset,
            identity: identity.to_owned(),
        }));
    }
}

/// Joins the group and serves its partitions until cancelled, in a thread of its own. The receiver gets the assignments. A
/// consumer that breaks is replaced after its partitions were revoked.
pub fn join(
    config: ClientConfig,
    topics: Vec<String>,
    buffers: Arc<Buffers>,
    shared: SharedConsumer,
    topic_states: watch::Receiver<Option<TopicStates>>,
    stop: CancellationToken,
) -> channel::UnboundedReceiver<Assignment> {
    let (assignments, receiver) = channel::unbounded_channel();
    let group = config.get("group.id").unwrap_or_default().to_owned();
    thread::Builder::new()
        .name(format!("consumer-{group}"))
        .spawn(move || {
            let mut faults = Faults::of(&group);
            while !stop.is_cancelled() {
                let states = topic_states.clone();
                let member = |requests| Member {
                    group: group.clone(),
                    topics: topics.clone(),
                    buffers: Arc::clone(&buffers),
                    shared: shared.clone(),
                    slots: Mutex::default(),
                    assignments: assignments.clone(),
                    requests,
                    topic_states: states,
                };
                let run = || run(&config, member, &stop, &mut faults);
                match panic::catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => continue,
                    // It was logged when it began.
                    Ok(Err(error)) if error.rdkafka_error_code().is_some_and(is_refusal) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, group, "the Kafka consumer broke; replacing it");
                    }
                    Err(_) => tracing::error!(group, "the Kafka consumer panicked; replacing it"),
                }
                thread::sleep(RECREATE_PAUSE);
            }
        })
        .expect("the operating system has a thread left");
    receiver
}

/// A partition as the polling thread sees it.
struct Slot {
    /// Takes the records, once the worker has sought.
    outlet: Option<Arc<Outlet>>,
    buffer: Arc<Buffer>,
    /// Whether it is not fetched.
    paused: bool,
    /// Since when its buffer is full.
    full_since: Option<Instant>,
    /// A seek that librdkafka was not ready for yet.
    seek: Option<Sought>,
}

impl Slot {
    /// The outlet, while its own group's member delivers to it.
    fn own_outlet(&self) -> Option<&Arc<Outlet>> {
        self.outlet.as_ref().filter(|outlet| !outlet.is_shared())
    }
}

struct Member {
    group: String,
    /// In their order.
    topics: Vec<String>,
    buffers: Arc<Buffers>,
    shared: SharedConsumer,
    slots: Mutex<HashMap<TopicPartition, Slot>>,
    assignments: channel::UnboundedSender<Assignment>,
    requests: mpsc::Sender<Request>,
    topic_states: watch::Receiver<Option<TopicStates>>,
}

impl Member {
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<TopicPartition, Slot>> {
        // Nothing panics while it holds the lock; even then the map would be whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow_rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        assigned: bool,
        partitions: &[TopicPartition],
    ) -> KafkaResult<()> {
        if assigned {
            self.assigned(consumer, partitions)
        } else {
            self.revoked(consumer, partitions)
        }
    }

    fn assigned(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[TopicPartition],
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            // The partition is paused at once and sought before it is resumed, so any offset of the log will do. It must
            // be a number: for "the end" librdkafka asks the broker, asks again half a second later if a seek came in
            // between, and then jumps there, past the records in between.
            list.add_partition_offset(
                &partition.topic,
                partition.partition,
                Offset::Offset(self.last_stable_offset(partition).unwrap_or(0)),
            )?;
        }
        consumer.incremental_assign(&list)?;
        consumer.pause(&list)?;
        for partition in partitions {
            let buffer = Arc::new(Buffer::of(&self.buffers));
            self.slots().insert(
                partition.clone(),
                Slot {
                    outlet: None,
                    buffer: Arc::clone(&buffer),
                    paused: true,
                    full_since: None,
                    seek: None,
                },
            );
            let partition = Partition {
                id: partition.clone(),
                requests: self.requests.clone(),
                buffer,
            };
            drop(self.assignments.send(Assignment::Assigned(partition)));
        }
        Ok(())
    }

    /// The last stable offset of a partition, if it was read.
    fn last_stable_offset(&self, of: &TopicPartition) -> Option<i64> {
        let states = self.topic_states.borrow();
        let states = states.as_ref();
        let offsets =
            states.and_then(|states| states.get(&*of.topic)?.offsets.get(&of.partition).copied());
        offsets.map(|offsets| offsets.last_stable)
    }

    fn revoked(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[TopicPartition],
    ) -> KafkaResult<()> {
        // A batch that has begun may still commit. If it has not when the next owner claims the partition, it is fenced.
        self.drop_slots(partitions);
        consumer.incremental_unassign(&list(partitions))
    }

    /// Ends deliveries of the partitions that something concerns.
    fn end_deliveries(&self, scope: &Scope, why: Option<Ended>) {
        for (partition, slot) in self.slots().iter_mut() {
            if scope.contains(partition)
                && let Some(outlet) = slot.outlet.take()
            {
                outlet.end(why);
            }
        }
    }

    fn drop_slots(&self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(slot) = self.slots().remove(partition) {
                if let Some(outlet) = slot.outlet {
                    outlet.end(None);
                }
                let revoked = Assignment::Revoked(partition.clone());
                drop(self.assignments.send(revoked));
            }
        }
    }
}

impl ClientContext for Member {
    // These two are called only while the consumer closes; before that, both are events. What fails then is of no use.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Member {
    /// Called only while the consumer closes; before that, rebalances are events.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let elements = list.elements();
        let partitions = elements.iter().map(|element| TopicPartition {
            topic: element.topic().into(),
            partition: element.partition(),
        });
        let partitions: Vec<TopicPartition> = partitions.collect();
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if let Err(error) = self.follow_rebalance(consumer, assigned, &partitions) {
            tracing::error!(%error, group = self.group, "a rebalance at the consumer's end failed");
        }
    }
}

fn run(
    config: &ClientConfig,
    member: impl FnOnce(mpsc::Sender<Request>) -> Member,
    stop: &CancellationToken,
    faults: &mut Faults,
) -> KafkaResult<()> {
    let (sender, requests) = mpsc::channel();
    let member = member(sender);
    let consumer: BaseConsumer<Member> = config.create_with_context(member)?;
    let topics: Vec<&str> = consumer
        .context()
        .topics
        .iter()
        .map(String::as_str)
        .collect();
    consumer.subscribe(&topics)?;
    let outcome = serve(&consumer, stop, &requests, faults);
    let left: Vec<TopicPartition> = consumer.context().slots().keys().cloned().collect();
    consumer.context().drop_slots(&left);
    // Dropping the consumer leaves the group, so that its partitions are assigned again without waiting for the session.
    outcome
}

fn serve(
    consumer: &BaseConsumer<Member>,
    stop: &CancellationToken,
    requests: &mpsc::Receiver<Request>,
    faults: &mut Faults,
) -> KafkaResult<()> {
    let member = Arc::clone(consumer.context());
    let events = Events::of(consumer)?;
    let mut stored: HashMap<TopicPartition, (i64, String)> = HashMap::new();
    let (mut store_at, mut rights_at) = (Instant::now(), Instant::now());
    while !stop.is_cancelled() {
        let began = Instant::now();
        let mut asked = Vec::new();
        while began.elapsed() < REQUESTS_TIME
            && let Ok(request) = requests.try_recv()
        {
            match request {
                Request::Seek {
                    partition,
                    sought,
                    buffer,
                } => {
                    if let Some(slot) = member.slots().get_mut(&partition)
                        // A worker of an earlier assignment may no longer seek.
                        && Arc::ptr_eq(&slot.buffer, &buffer)
                    {
                        if let Some(former) = slot.outlet.take() {
                            former.end(None);
                        }
                        slot.seek = Some(sought);
                    }
                }
                Request::Store {
                    partition,
                    offset,
                    identity,
                } => {
                    stored.insert(partition, (offset, identity));
                }
                Request::Committed(one) => asked.push(one),
            }
        }
        answer_committed(consumer, asked);
        seek_waiting(consumer, &events, &member);
        pause_shared(consumer, &member)?;
        let any_full = release_drained(consumer, &events, &member)?;
        if store_at.elapsed() >= STORE_INTERVAL {
            store(consumer, &member, &mut stored);
            pass_on(&events, &member);
            offer(&member);
            store_at = Instant::now();
        }
        if rights_at.elapsed() >= RIGHTS_INTERVAL {
            follow_rights(consumer, &member, &mut faults.refusals)?;
            rights_at = Instant::now();
        }
        let wait = if any_full { POLL_WHILE_FULL } else { POLL };
        events.hand_over(wait, |event| {
            handle(consumer, &events, &member, event, faults)
        })?;
    }
    store(consumer, &member, &mut stored);
    Ok(())
}

/// Handles an event of the consumer.
///
/// # Errors
/// The consumer is of no use any longer.
fn handle(
    consumer: &BaseConsumer<Member>,
    events: &Events<'_>,
    member: &Member,
    event: Event,
    faults: &mut Faults,
) -> KafkaResult<()> {
    match event {
        Event::Record(record) => deliver(consumer, events, member, record)?,
        Event::EndOfPartition { partition, offset } => {
            if let Some(slot) = member.slots().get(&partition)
                && let Some(outlet) = slot.own_outlet()
            {
                outlet.reached_end(offset);
            }
        }
        Event::Rebalance {
            assigned,
            partitions,
        } => {
            if !assigned {
                // What is kept back would stay in memory.
                partitions
                    .iter()
                    .for_each(|partition| events.pass(partition));
            }
            member.follow_rebalance(consumer, assigned, &partitions)?;
            if assigned {
                for partition in &partitions {
                    faults.refusals.end(&faults.group, &partition.topic);
                }
            }
        }
        Event::Committed(outcomes) => {
            let Faults {
                group, refusals, ..
            } = faults;
            for (TopicPartition { topic, partition }, outcome) in outcomes {
                match outcome {
                    Ok(()) => refusals.end(group, &topic),
                    Err(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        refusals.begin(group, Some(topic), code);
                    }
                    Err(code) if is_refusal(code) => refusals.begin(group, None, code),
                    Err(code) => {
                        tracing::debug!(group, topic = &*topic, partition, %code, "an offset could not be committed to Kafka");
                    }
                }
            }
        }
        event => {
            if let Some((scope, why)) = faults.follow(consumer, event)? {
                member.end_deliveries(&scope, why);
            }
        }
    }
    Ok(())
}

/// Where the broker assigns partitions (KIP-848), it refuses a member as a whole that may not describe one of its topics: the
/// member subscribes to the others, for as long as that lasts.
fn follow_rights(
    consumer: &BaseConsumer<Member>,
    member: &Member,
    refusals: &mut Refusals,
) -> KafkaResult<()> {
    const REFUSED: RDKafkaErrorCode = RDKafkaErrorCode::TopicAuthorizationFailed;
    let subscription = consumer.subscription()?;
    let elements = subscription.elements();
    let mut subscribed: Vec<&str> = elements.iter().map(|element| element.topic()).collect();
    subscribed.sort_unstable();
    if !refusals.has_unnamed_topic && subscribed.len() == member.topics.len() {
        return Ok(());
    }
    let mut described = Vec::new();
    for topic in &member.topics {
        let Ok(metadata) = consumer.fetch_metadata(Some(topic), RIGHTS_TIMEOUT) else {
            return Ok(());
        };
        let mut errors = metadata.topics().iter().filter_map(|found| found.error());
        if errors.any(|error| RDKafkaErrorCode::from(error) == REFUSED) {
            refusals.begin(&member.group, Some(topic.as_str().into()), REFUSED);
        } else {
            described.push(topic.as_str());
        }
    }
    refusals.has_unnamed_topic = false;
    if described.is_empty() || described == subscribed {
        return Ok(());
    }
    consumer.subscribe(&described)
}

/// Serves the workers' seeks. A partition that librdkafka does not fetch (not yet, or no longer after an error) can't be
/// sought: it is assigned again at the offset.
fn seek_waiting(consumer: &BaseConsumer<Member>, events: &Events<'_>, member: &Member) {
    let waiting: Vec<(TopicPartition, Offset)> = member
        .slots()
        .iter()
        .filter_map(|(partition, slot)| {
            let sought = slot.seek.as_ref()?;
            Some((partition.clone(), Offset::Offset(sought.offset)))
        })
        .collect();
    for (partition, offset) in waiting {
        let list = list([&partition]);
        let TopicPartition {
            topic,
            partition: number,
        } = &partition;
        let sought = consumer
            .seek(topic, *number, offset, SEEK_TIMEOUT)
            .or_else(|_| {
                let mut assigned = TopicPartitionList::new();
                assigned.add_partition_offset(topic, *number, offset)?;
                consumer.incremental_unassign(&list)?;
                consumer.incremental_assign(&assigned)
            })
            .and_then(|()| consumer.resume(&list));
        if let Err(error) = sought {
            tracing::debug!(%error, ?partition, "a partition can't be sought yet");
            continue;
        }
        // librdkafka drops what was fetched before the seek, by its version.
        events.pass(&partition);
        if let Some(slot) = member.slots().get_mut(&partition)
            && let Some(sought) = slot.seek.take()
        {
            let (outlet, records) =
                Outlet::new(partition, sought.identity, sought.offset, &slot.buffer);
            slot.outlet = Some(outlet);
            slot.paused = false;
            slot.full_since = None;
            drop(sought.reply.send(records));
        }
    }
}

/// Offers the partitions that were read to the end of the log, as far as it was known lately, to the shared consumer.
/// librdkafka reports an end only when a fetch has waited for records in vain.
fn offer(member: &Member) {
    for (partition, slot) in member.slots().iter() {
        if let Some(outlet) = slot.own_outlet()
            && let Some(last_stable) = member.last_stable_offset(partition)
            && outlet.next_offset() >= last_stable
        {
            member.shared.offer(Arc::clone(outlet));
        }
    }
}

/// Pauses partitions that the shared consumer delivers.
fn pause_shared(consumer: &BaseConsumer<Member>, member: &Member) -> KafkaResult<()> {
    let mut shared = Vec::new();
    for (partition, slot) in member.slots().iter_mut() {
        let is_shared = slot
            .outlet
            .as_ref()
            .is_some_and(|outlet| outlet.is_shared());
        if is_shared {
            // Its buffer, if it is full, is no longer this member's concern.
            slot.full_since = None;
            if !std::mem::replace(&mut slot.paused, true) {
                shared.push(partition.clone());
            }
        }
    }
    if shared.is_empty() {
        return Ok(());
    }
    consumer.pause(&list(&shared))
}

/// Lets partitions continue whose buffers are half empty. Returns whether other buffers are full.
fn release_drained(
    consumer: &BaseConsumer<Member>,
    events: &Events<'_>,
    member: &Member,
) -> KafkaResult<bool> {
    let (mut resumed, mut paused) = (Vec::new(), Vec::new());
    let mut any_full = false;
    for (partition, slot) in member.slots().iter_mut() {
        let (Some(since), Some(_)) = (slot.full_since, &slot.outlet) else {
            continue;
        };
        if slot.buffer.is_half_empty() {
            slot.full_since = None;
            events.pass(partition);
            if std::mem::take(&mut slot.paused) {
                resumed.push(partition.clone());
            }
            continue;
        }
        any_full = true;
        if !slot.paused && since.elapsed() > LONGEST_FULL {
            slot.paused = true;
            paused.push(partition.clone());
        }
    }
    if !paused.is_empty() {
        consumer.pause(&list(&paused))?;
        // librdkafka drops what a paused partition's queue holds only when it is polled.
        paused.iter().for_each(|partition| events.pass(partition));
    }
    if !resumed.is_empty() {
        consumer.resume(&list(&resumed))?;
    }
    Ok(any_full)
}

/// Passes on what is fetched of all partitions whose buffers are not full. librdkafka keeps it in their own queues after it has
/// stopped fetching them, if their buffers were full before.
fn pass_on(events: &Events<'_>, member: &Member) {
    for (partition, slot) in member.slots().iter() {
        if slot.full_since.is_none() {
            events.pass(partition);
        }
    }
}

fn deliver(
    consumer: &BaseConsumer<Member>,
    events: &Events<'_>,
    member: &Member,
    record: Record,
) -> KafkaResult<()> {
    let partition = TopicPartition {
        topic: Arc::clone(&record.topic),
        partition: record.partition,
    };
    let mut slots = member.slots();
    let Some(slot) = slots.get_mut(&partition) else {
        return Ok(());
    };
    let delivered = match &slot.outlet {
        Some(outlet) => outlet.deliver(By::Member, &Arc::new(record)),
        None => Delivered::Closed,
    };
    match delivered {
        Delivered::Room => {}
        Delivered::Full => {
            if slot.full_since.is_none() {
                slot.full_since = Some(Instant::now());
                events.keep_back(&partition);
            }
        }
        Delivered::Closed => {
            // Its worker has stopped receiving; until that seeks again, nothing is to be fetched.
            slot.outlet = None;
            slot.paused = true;
            drop(slots);
            return consumer.pause(&list([&partition]));
        }
    }
    Ok(())
}

/// Answers questions for committed offsets, with one request for all.
fn answer_committed(consumer: &BaseConsumer<Member>, asked: Vec<Asked>) {
    if asked.is_empty() {
        return;
    }
    let partitions = list(asked.iter().map(|one| &one.partition));
    let found = consumer.committed_offsets(partitions, COMMITTED_TIMEOUT);
    for one in asked {
        let found = found.as_ref().map_err(KafkaError::clone);
        let answer = found.and_then(|found| committed(found, &one.partition, &one.identity));
        drop(one.reply.send(answer));
    }
}

/// The offset that was committed for a partition, if its metadata names this incarnation of the topic, or nothing: other
/// tools commit without metadata.
pub(crate) fn committed(
    found: &TopicPartitionList,
    partition: &TopicPartition,
    identity: &str,
) -> KafkaResult<Option<i64>> {
    let Some(committed) = found.find_partition(&partition.topic, partition.partition) else {
        return Ok(None);
    };
    committed.error()?;
    // rdkafka panics on metadata that is not UTF-8, which sightline never commits.
    let of = panic::catch_unwind(AssertUnwindSafe(|| committed.metadata().to_owned()));
    Ok(match (committed.offset(), of) {
        (Offset::Offset(offset), Ok(of)) if of.is_empty() || of == identity => Some(offset),
        _ => None,
    })
}

fn store(
    consumer: &BaseConsumer<Member>,
    member: &Member,
    stored: &mut HashMap<TopicPartition, (i64, String)>,
) {
    let mut list = TopicPartitionList::new();
    for (of, (offset, identity)) in stored.drain() {
        if member.slots().contains_key(&of) {
            // Only an invalid offset is refused, and Kafka gave this one.
            drop(list.add_partition_offset(&of.topic, of.partition, Offset::Offset(offset)));
            if let Some(mut added) = list.find_partition(&of.topic, of.partition) {
                added.set_metadata(identity);
            }
        }
    }
    if list.count() > 0
        && let Err(error) = consumer.store_offsets(&list)
    {
        tracing::debug!(%error, "positions could not be stored for the commit to Kafka");
    }
}
