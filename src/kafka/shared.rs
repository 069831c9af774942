//! One consumer that fetches the ends of logs for all groups of the process: each new record is fetched once, however
//! many views are made from it.
//!
//! - Groups' members read a partition by themselves, and offer its outlet here once they have come to the end of the log that
//!   the monitor has read last. A partition of which two outlets are offered is fetched.
//! - An outlet is taken over at a record that both consumers have delivered last, the same by its fingerprint. So what follows
//!   here follows in the outlet's log, too, and librdkafka's checks of that log (KIP-320) go on from a record it has seen.
//! - No view waits for another: the consumer ends the deliveries of an outlet whose buffer is full, and its worker seeks in its
//!   own group.
//! - It never joins a group and commits nothing. What ends deliveries of a member ends them here, and the workers seek in their
//!   own groups.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::faults::Faults;
use super::native::events::{Event, Events, Scope, TopicPartition, list};
use super::records::{By, Delivered, Ended, Outlet};
use super::run_thread;
use crate::event::Record;

/// How often the consumer takes over the outlets that it can, and stops fetching partitions without outlets.
const REVIEW: Duration = Duration::from_millis(50);
/// After so long without an outlet a partition is no longer fetched: those that are offered are far behind.
const LONGEST_USELESS: Duration = Duration::from_secs(10);

/// Where outlets are offered. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedConsumer(mpsc::Sender<Arc<Outlet>>);

impl SharedConsumer {
    /// Starts the consumer's thread, which runs until cancelled. It connects once there is something to share.
    pub fn start(config: ClientConfig, stop: CancellationToken) -> Self {
        let (sender, offers) = mpsc::channel();
        run_thread("shared-consumer", stop, "shared records", move |stop| {
            run(&config, &offers, stop)
        });
        Self(sender)
    }

    /// Offers an outlet. It may have been offered before.
    pub fn offer(&self, outlet: Arc<Outlet>) {
        // If the thread has ended, the process stops.
        drop(self.0.send(outlet));
    }
}

/// A partition of which outlets are offered.
#[derive(Default)]
struct Log {
    /// The incarnation of the topic.
    identity: String,
    offered: Vec<Arc<Outlet>>,
    fetched: Option<Fetched>,
}

/// A partition that the consumer fetches.
struct Fetched {
    begun: Instant,
    /// What was delivered last.
    last: Option<Arc<Record>>,
    /// The end that was reached behind it.
    end: Option<i64>,
    outlets: Vec<Arc<Outlet>>,
}

impl Fetched {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: None,
            end: None,
            outlets: Vec::new(),
        }
    }

    fn deliver(&mut self, record: Record) {
        let record = Arc::new(record);
        self.outlets
            .retain(|outlet| match outlet.deliver(By::Shared, &record) {
                Delivered::Room => true,
                Delivered::Full => {
                    outlet.end(Some(Ended::FellBehind));
                    false
                }
                Delivered::Closed => false,
            });
        self.last = Some(record);
        self.end = None;
    }

    fn reached_end(&mut self, offset: i64) {
        self.end = Some(offset);
        for outlet in &self.outlets {
            outlet.reached_end(offset);
        }
    }

    /// Takes over an outlet that was delivered exactly as far as the consumer has. Returns whether it was.
    fn take_over(&mut self, outlet: &Arc<Outlet>) -> bool {
        let Some(last) = &self.last else {
            return false;
        };
        let is_taken = outlet.share_after(last);
        if is_taken {
            // librdkafka reports an end once, and the group's member, which is paused now, may not have reported it yet.
            if let Some(end) = self.end {
                outlet.reached_end(end);
            }
            self.outlets.push(Arc::clone(outlet));
        }
        is_taken
    }

    /// Whether nothing that is offered comes so far.
    fn is_useless(&self) -> bool {
        self.outlets.is_empty() && self.begun.elapsed() > LONGEST_USELESS
    }
}

impl Fetched {
    fn end(&self, why: Option<Ended>) {
        for outlet in &self.outlets {
            outlet.end(why);
        }
    }
}

impl Drop for Fetched {
    /// Ends the deliveries, because no member fetches these partitions: their workers seek then, and the members fetch again.
    fn drop(&mut self) {
        self.end(None);
    }
}

impl Log {
    /// Takes over what can be, and forgets outlets whose workers no longer receive.
    fn review(&mut self) {
        self.offered.retain(|outlet| outlet.is_open());
        let Some(fetched) = &mut self.fetched else {
            return;
        };
        fetched.outlets.retain(|outlet| outlet.is_open());
        self.offered.retain(|outlet| !fetched.take_over(outlet));
        if fetched.is_useless() {
            self.fetched = None;
        }
    }

    fn is_empty(&self) -> bool {
        let fetched = self.fetched.as_ref();
        self.offered.is_empty() && fetched.is_none_or(|fetched| fetched.outlets.is_empty())
    }

    /// The offset from which on it is to be fetched, if several outlets can share it: that of the last record of the one that
    /// has come furthest.
    fn begin(&self) -> Option<i64> {
        if self.fetched.is_some() || self.offered.len() < 2 {
            return None;
        }
        let offsets = self.offered.iter().map(|outlet| outlet.last_offset());
        offsets.max().flatten()
    }
}

/// All partitions of which outlets are offered.
#[derive(Default)]
struct Logs {
    logs: HashMap<TopicPartition, Log>,
    /// Those that are assigned to the consumer.
    assigned: HashSet<TopicPartition>,
}

impl Logs {
    /// Takes what is offered, and reviews all partitions.
    fn take(&mut self, offers: &mpsc::Receiver<Arc<Outlet>>) {
        for outlet in offers.try_iter() {
            self.offer(outlet);
        }
        self.logs.retain(|_, log| {
            log.review();
            !log.is_empty()
        });
    }

    fn offer(&mut self, outlet: Arc<Outlet>) {
        if outlet.is_shared() || !outlet.is_open() {
            return;
        }
        let log = self.logs.entry(outlet.partition.clone()).or_default();
        if log.identity != outlet.identity {
            // What is fetched of the former log is nothing to the new one.
            *log = Log {
                identity: outlet.identity.clone(),
                ..Log::default()
            };
        }
        if !log.offered.iter().any(|other| Arc::ptr_eq(other, &outlet)) {
            log.offered.push(outlet);
        }
    }

    /// Assigns the consumer the partitions of which several outlets are offered, and unassigns those that have none any more.
    fn follow(&mut self, consumer: &BaseConsumer<Quiet>) -> KafkaResult<()> {
        let is_fetched = |partition: &TopicPartition| {
            let log = self.logs.get(partition);
            log.is_some_and(|log| log.fetched.is_some())
        };
        let left = self.assigned.extract_if(|partition| !is_fetched(partition));
        let left: Vec<TopicPartition> = left.collect();
        if !left.is_empty() {
            consumer.incremental_unassign(&list(&left))?;
        }
        let mut begun = TopicPartitionList::new();
        for (partition, log) in &mut self.logs {
            let Some(begin) = log.begin() else { continue };
            let TopicPartition {
                topic,
                partition: number,
            } = partition;
            tracing::debug!(
                topic = &**topic,
                partition = number,
                begin,
                "beginning to fetch for several views"
            );
            begun.add_partition_offset(topic, *number, Offset::Offset(begin))?;
            log.fetched = Some(Fetched::new());
            self.assigned.insert(partition.clone());
        }
        if begun.count() > 0 {
            consumer.incremental_assign(&begun)?;
        }
        Ok(())
    }

    fn fetched(&mut self, partition: &TopicPartition) -> Option<&mut Fetched> {
        self.logs.get_mut(partition)?.fetched.as_mut()
    }

    fn handle(
        &mut self,
        consumer: &BaseConsumer<Quiet>,
        event: Event,
        faults: &mut Faults,
    ) -> KafkaResult<()> {
        match event {
            Event::Record(record) => {
                let partition = TopicPartition {
                    topic: Arc::clone(&record.topic),
                    partition: record.partition,
                };
                if let Some(fetched) = self.fetched(&partition) {
                    fetched.deliver(record);
                }
            }
            Event::EndOfPartition { partition, offset } => {
                if let Some(fetched) = self.fetched(&partition) {
                    fetched.reached_end(offset);
                }
            }
            // It is a member of no group.
            Event::Error {
                code: RDKafkaErrorCode::GroupAuthorizationFailed,
                is_fatal: false,
                ..
            } => {}
            event => {
                if let Some((scope, why)) = faults.follow(consumer, event)? {
                    self.end(&scope, why);
                }
            }
        }
        Ok(())
    }

    /// Ends deliveries. What is only offered is left to its members: they find the same, or offer it again.
    fn end(&mut self, scope: &Scope, why: Option<Ended>) {
        self.logs.retain(|partition, log| {
            let ends = scope.contains(partition);
            if ends && let Some(fetched) = &log.fetched {
                fetched.end(why);
            }
            !ends
        });
    }
}

/// librdkafka calls it only while the consumer closes; before that, the log and errors are events.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

fn run(
    config: &ClientConfig,
    offers: &mpsc::Receiver<Arc<Outlet>>,
    stop: &CancellationToken,
) -> KafkaResult<()> {
    let mut logs = Logs::default();
    while !logs.logs.values().any(|log| log.begin().is_some()) {
        if stop.is_cancelled() {
            return Ok(());
        }
        thread::sleep(REVIEW);
        logs.take(offers);
    }
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
    let events = Events::of(&consumer)?;
    let mut faults = Faults::of(config.get("group.id").unwrap_or_default());
    let mut review_at = Instant::now();
    while !stop.is_cancelled() {
        if review_at.elapsed() >= REVIEW {
            logs.take(offers);
            logs.follow(&consumer)?;
            review_at = Instant::now();
        }
        events.hand_over(REVIEW, |event| logs.handle(&consumer, event, &mut faults))?;
    }
    Ok(())
}
