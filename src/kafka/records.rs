//! What passes from the threads that poll Kafka to the worker of a partition: records in their order, and ends of the
//! partition, within the partition's share of the process's buffers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::mpsc;

use super::group::PREFETCH;
use super::native::events::TopicPartition;
use crate::event::Record;

/// What a partition may hold at least, in bytes.
const SMALLEST_SHARE: usize = 256 << 10;
/// At so many shares a view has fallen behind the shared consumer: it has to claim the partition and fetch by itself, so the
/// records of a burst should fit.
const SHARED_SHARES: usize = 4;
/// What a record costs in the buffer beyond its bytes.
const RECORD_OVERHEAD: usize = 200;

/// What a worker gets from its partition, in order.
#[derive(Debug)]
pub enum Delivery {
    Record(Arc<Record>),
    /// A fetch has reached the end of the partition at this offset. As far as the broker knew that answered it, no record
    /// lies between the last one delivered and this offset.
    End(i64),
}

/// Why deliveries have ended, after the last one. Without a reason the log may no longer be the one that was sought, or the
/// partition was revoked or sought again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A fetch has failed with this code.
    Failed(RDKafkaErrorCode),
    /// The worker fell behind the shared consumer: it has to seek what follows.
    FellBehind,
}

/// The bytes that the consumers of a process may buffer. All assigned partitions have an equal share, of which a part is for
/// what librdkafka fetches ahead.
#[derive(Debug)]
pub struct Buffers {
    bytes: usize,
    partitions: AtomicUsize,
}

impl Buffers {
    /// Buffers of so many bytes in all.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes,
            partitions: AtomicUsize::new(0),
        }
    }
}

/// The buffer of an assigned partition: what was delivered to its worker and not yet received.
#[derive(Debug)]
pub struct Buffer {
    bytes: AtomicUsize,
    of: Arc<Buffers>,
}

impl Buffer {
    /// An assigned partition's share of the buffers.
    pub fn of(buffers: &Arc<Buffers>) -> Self {
        buffers.partitions.fetch_add(1, Ordering::Relaxed);
        Self {
            bytes: AtomicUsize::new(0),
            of: Arc::clone(buffers),
        }
    }

    fn share(&self) -> usize {
        let partitions = self.of.partitions.load(Ordering::Relaxed).max(1);
        (self.of.bytes / partitions)
            .saturating_sub(PREFETCH)
            .max(SMALLEST_SHARE)
    }

    /// What the shared consumer delivers is in memory once, however many views wait for it, so each may wait for more of it.
    fn is_full(&self, by: By) -> bool {
        let share = match by {
            By::Member => self.share(),
            By::Shared => self.share() * SHARED_SHARES,
        };
        self.bytes.load(Ordering::Relaxed) >= share
    }

    /// Whether a buffer that was full takes more.
    pub fn is_half_empty(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.share() / 2
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.of.partitions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Deliveries from the offset to which a worker sought.
#[derive(Debug)]
pub struct Records {
    /// What was put back, before what is delivered.
    put_back: VecDeque<Delivery>,
    deliveries: mpsc::UnboundedReceiver<Result<Delivery, Ended>>,
    buffer: Arc<Buffer>,
    ended: Option<Ended>,
}

impl Records {
    /// Waits for the next delivery; `None` if they have ended.
    pub async fn next(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.put_back.pop_front() {
            return self.received(Ok(delivery));
        }
        let delivery = self.deliveries.recv().await?;
        self.received(delivery)
    }

    /// The next delivery, if there is one already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.put_back.pop_front() {
            return self.received(Ok(delivery));
        }
        let delivery = self.deliveries.try_recv().ok()?;
        self.received(delivery)
    }

    /// Of a partition of which nothing comes.
    #[cfg(test)]
    pub fn none() -> Self {
        Self {
            put_back: VecDeque::new(),
            deliveries: mpsc::unbounded_channel().1,
            buffer: Arc::new(Buffer::of(&Arc::new(Buffers::new(0)))),
            ended: None,
        }
    }

    /// Puts back what was received last, in its order.
    pub fn put_back(&mut self, records: Vec<Arc<Record>>, end: Option<i64>) {
        for record in &records {
            self.buffer.add(cost(record));
        }
        let deliveries = records.into_iter().map(Delivery::Record);
        let deliveries = deliveries.chain(end.map(Delivery::End));
        self.put_back = deliveries.chain(self.put_back.drain(..)).collect();
    }

    /// Whether more can come.
    pub fn is_live(&self) -> bool {
        !self.deliveries.is_closed()
    }

    /// Why deliveries have ended, after the last one.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    fn received(&mut self, delivery: Result<Delivery, Ended>) -> Option<Delivery> {
        match delivery {
            Ok(delivery) => {
                if let Delivery::Record(record) = &delivery {
                    self.buffer.remove(cost(record));
                }
                Some(delivery)
            }
            Err(ended) => {
                self.ended = Some(ended);
                None
            }
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.deliveries.close();
        while self.try_next().is_some() {}
    }
}

/// What a record occupies in a buffer, in bytes.
fn cost(record: &Record) -> usize {
    record.value.as_ref().map_or(0, Bytes::len) + record.key_and_headers_size() + RECORD_OVERHEAD
}

/// Where [`Records`] come from. A group's member delivers to it, and in its place the shared consumer; for a moment both do,
/// each all records from an offset on that was delivered. A record that one of them has delivered is not taken from the other.
#[derive(Debug)]
pub struct Outlet {
    /// The partition.
    pub partition: TopicPartition,
    /// The incarnation of its topic.
    pub identity: String,
    buffer: Arc<Buffer>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// `None` once they have ended.
    deliveries: Option<mpsc::UnboundedSender<Result<Delivery, Ended>>>,
    next_offset: i64,
    last: Option<Arc<Record>>,
    is_shared: bool,
}

/// Which consumer delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The group's member. What it delivers is not taken any more once the shared consumer does.
    Member,
    /// The shared consumer.
    Shared,
}

/// What became of a record that was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// There is room for more.
    Room,
    /// It was taken, and the buffer is full.
    Full,
    /// The worker no longer receives.
    Closed,
}

impl Outlet {
    /// An outlet whose first record lies at an offset, or behind it, and what it delivers.
    pub fn new(
        partition: TopicPartition,
        identity: String,
        next_offset: i64,
        buffer: &Arc<Buffer>,
    ) -> (Arc<Self>, Records) {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let outlet = Self {
            partition,
            identity,
            buffer: Arc::clone(buffer),
            progress: Mutex::new(Progress {
                deliveries: Some(sender),
                next_offset,
                last: None,
                is_shared: false,
            }),
        };
        let records = Records {
            put_back: VecDeque::new(),
            deliveries,
            buffer: Arc::clone(buffer),
            ended: None,
        };
        (Arc::new(outlet), records)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Nothing panics while it holds the lock.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a record, unless it was delivered before.
    pub fn deliver(&self, by: By, record: &Arc<Record>) -> Delivered {
        let mut progress = self.progress();
        if by == By::Member && progress.is_shared {
            return Delivered::Room;
        }
        let Some(deliveries) = &progress.deliveries else {
            return Delivered::Closed;
        };
        if record.offset >= progress.next_offset {
            let bytes = cost(record);
            self.buffer.add(bytes);
            if deliveries
                .send(Ok(Delivery::Record(Arc::clone(record))))
                .is_err()
            {
                self.buffer.remove(bytes);
                progress.deliveries = None;
                return Delivered::Closed;
            }
            progress.next_offset = record.offset + 1;
            progress.last = Some(Arc::clone(record));
        }
        if self.buffer.is_full(by) {
            Delivered::Full
        } else {
            Delivered::Room
        }
    }

    /// Delivers an end of the partition, unless a record at or behind it was delivered.
    pub fn reached_end(&self, offset: i64) {
        let progress = self.progress();
        if let Some(deliveries) = &progress.deliveries
            && offset >= progress.next_offset
        {
            // A worker that no longer receives is noticed at the next record.
            drop(deliveries.send(Ok(Delivery::End(offset))));
        }
    }

    /// Ends the deliveries.
    pub fn end(&self, why: Option<Ended>) {
        if let Some(deliveries) = self.progress().deliveries.take()
            && let Some(why) = why
        {
            // A worker that no longer receives seeks again anyway.
            drop(deliveries.send(Err(why)));
        }
    }

    /// Whether the worker still receives.
    pub fn is_open(&self) -> bool {
        let progress = self.progress();
        let deliveries = progress.deliveries.as_ref();
        deliveries.is_some_and(|deliveries| !deliveries.is_closed())
    }

    /// The offset from which on nothing was delivered.
    pub fn next_offset(&self) -> i64 {
        self.progress().next_offset
    }

    /// The offset of the record that was delivered last; `None` if none was.
    pub fn last_offset(&self) -> Option<i64> {
        let progress = self.progress();
        progress.last.as_ref().map(|record| record.offset)
    }

    /// From now on takes records from the shared consumer alone, if the last record was this one. Returns whether it was.
    pub fn share_after(&self, record: &Record) -> bool {
        let mut progress = self.progress();
        let last = progress.last.as_ref();
        let is_last = last.is_some_and(|last| {
            last.offset == record.offset && last.fingerprint() == record.fingerprint()
        });
        progress.is_shared |= is_last;
        is_last
    }

    /// Whether the shared consumer delivers.
    pub fn is_shared(&self) -> bool {
        self.progress().is_shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Arc<Record> {
        Arc::new(Record {
            topic: "user.events".into(),
            partition: 0,
            offset,
            timestamp_ms: None,
            key: None,
            headers: Vec::new(),
            value: None,
        })
    }

    fn outlet(bytes: usize, next_offset: i64) -> (Arc<Outlet>, Records) {
        let buffer = Arc::new(Buffer::of(&Arc::new(Buffers::new(bytes))));
        let partition = TopicPartition {
            topic: "user.events".into(),
            partition: 0,
        };
        Outlet::new(partition, "id".to_owned(), next_offset, &buffer)
    }

    fn received(records: &mut Records) -> Vec<String> {
        let next = std::iter::from_fn(|| records.try_next());
        let text = |delivery| match delivery {
            Delivery::Record(record) => record.offset.to_string(),
            Delivery::End(offset) => format!("end {offset}"),
        };
        next.map(text).collect()
    }

    #[test]
    fn what_is_put_back_is_received_again_and_counts_as_buffered() {
        let (outlet, mut records) = outlet(0, 0);
        for offset in [0, 1] {
            assert_eq!(outlet.deliver(By::Member, &record(offset)), Delivered::Room);
        }
        outlet.reached_end(2);
        outlet.end(Some(Ended::Failed(RDKafkaErrorCode::Unknown)));
        let buffered = |records: &Records| records.buffer.bytes.load(Ordering::Relaxed);
        assert_eq!(buffered(&records), 2 * RECORD_OVERHEAD);
        assert_eq!(received(&mut records), ["0", "1", "end 2"]);
        assert_eq!(
            records.ended(),
            Some(Ended::Failed(RDKafkaErrorCode::Unknown))
        );
        assert_eq!(buffered(&records), 0);
        records.put_back(vec![record(1)], Some(2));
        records.put_back(vec![record(0)], None);
        assert_eq!(buffered(&records), 2 * RECORD_OVERHEAD);
        assert_eq!(received(&mut records), ["0", "1", "end 2"]);
        assert_eq!(buffered(&records), 0);
    }

    #[test]
    fn of_two_consumers_each_record_is_taken_once() {
        let (outlet, mut records) = outlet(0, 5);
        assert_eq!(outlet.last_offset(), None);
        assert!(!outlet.share_after(&record(4)));
        for offset in [3, 5, 4, 6, 5, 6, 9, 7, 8, 9] {
            assert_eq!(outlet.deliver(By::Member, &record(offset)), Delivered::Room);
        }
        outlet.reached_end(9);
        outlet.reached_end(10);
        assert_eq!(received(&mut records), ["5", "6", "9", "end 10"]);
        assert_eq!(outlet.last_offset(), Some(9));
    }

    #[test]
    fn an_outlet_is_shared_after_the_very_record_that_was_delivered_last() {
        let (outlet, mut records) = outlet(0, 0);
        assert_eq!(outlet.deliver(By::Member, &record(7)), Delivered::Room);
        let another = Record {
            key: Some(Bytes::from_static(b"another log")),
            ..Record::clone(&record(7))
        };
        for other in [&another, &record(6), &record(8)] {
            assert!(!outlet.share_after(other));
            assert!(!outlet.is_shared());
        }
        assert!(outlet.share_after(&record(7)));
        assert!(outlet.is_shared());
        // The member may not be paused yet.
        assert_eq!(outlet.deliver(By::Member, &record(8)), Delivered::Room);
        assert_eq!(outlet.deliver(By::Shared, &record(7)), Delivered::Room);
        assert_eq!(outlet.deliver(By::Shared, &record(9)), Delivered::Room);
        assert_eq!(received(&mut records), ["7", "9"]);
    }

    #[test]
    fn an_outlet_is_full_at_the_share_and_closed_without_a_worker() {
        let (outlet, records) = outlet(0, 0);
        let full =
            (0..).find(|offset| outlet.deliver(By::Member, &record(*offset)) == Delivered::Full);
        let smallest = i64::try_from(SMALLEST_SHARE / RECORD_OVERHEAD).unwrap();
        assert_eq!(full, Some(smallest));
        assert!(!records.buffer.is_half_empty());
        assert!(outlet.is_open());
        let buffer = Arc::clone(&records.buffer);
        drop(records);
        assert!(!outlet.is_open());
        assert!(buffer.is_half_empty());
        assert_eq!(
            outlet.deliver(By::Member, &record(smallest + 1)),
            Delivered::Closed
        );
        assert!(buffer.is_half_empty());
    }
}
