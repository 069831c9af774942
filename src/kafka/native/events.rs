//! A consumer's events with all that librdkafka says of them. rdkafka's own poll leaves out the topic and the offset of an
//! error and of the end of a partition, and panics on header names that are not UTF-8.

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{Owned, poll};
use crate::event::Record;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The number of the partition.
    pub partition: i32,
}

/// A list of partitions, as rdkafka takes it.
pub fn list<'p>(partitions: impl IntoIterator<Item = &'p TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

/// What an error concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A partition.
    Partition(TopicPartition),
    /// All partitions of a topic.
    Topic(Arc<str>),
    /// The consumer as a whole.
    Consumer,
}

impl Scope {
    /// Whether it covers a partition.
    pub fn contains(&self, partition: &TopicPartition) -> bool {
        match self {
            Scope::Partition(one) => one == partition,
            Scope::Topic(topic) => *topic == partition.topic,
            Scope::Consumer => true,
        }
    }
}

/// What a poll returns.
#[derive(Debug)]
pub enum Event {
    /// A record.
    Record(Record),
    /// A fetch has reached the end of a partition: no record lies between the last one delivered and this offset, as far as
    /// the broker knew that answered. With `isolation.level=read_committed` the last stable offset counts as the end.
    EndOfPartition {
        /// The partition.
        partition: TopicPartition,
        /// The next offset to be fetched.
        offset: i64,
    },
    /// The group has assigned or revoked partitions. The caller assigns or unassigns them.
    Rebalance {
        /// Whether they are assigned, else revoked.
        assigned: bool,
        /// The partitions.
        partitions: Vec<TopicPartition>,
    },
    /// Something failed.
    Error {
        /// What failed.
        code: RDKafkaErrorCode,
        /// Whether the consumer is of no use any longer.
        is_fatal: bool,
        /// What it concerns.
        scope: Scope,
    },
    /// A line of librdkafka's log. A line that concerns a record comes before that record.
    Log {
        /// The syslog severity: 4 and below are warnings and worse.
        severity: i32,
        /// What kind of line it is, in one word.
        facility: String,
        /// The line.
        message: String,
    },
    /// Kafka has answered a commit of offsets: for each partition, or why it has not committed its offset.
    Committed(Vec<(TopicPartition, Result<(), RDKafkaErrorCode>)>),
    /// An event that needs no reaction, such as statistics.
    Other,
}

/// The queue of a consumer's events. While it is polled, the consumer itself is not.
pub struct Events<'c> {
    queue: Owned<sys::rd_kafka_queue_t>,
    client: *mut sys::rd_kafka_t,
    consumer: PhantomData<&'c ()>,
}

impl<'c> Events<'c> {
    /// The events of a consumer.
    ///
    /// # Errors
    /// The consumer has no group.
    pub fn of<C: ConsumerContext>(consumer: &'c BaseConsumer<C>) -> KafkaResult<Self> {
        let client = consumer.client().native_ptr();
        // SAFETY: the handle is alive for as long as `consumer` is borrowed, which is as long as `Events` lives. The queue
        // is a reference of our own, destroyed by `Owned` before the consumer can be dropped.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client) };
        if queue.is_null() {
            let why = "the consumer has no group".to_owned();
            return Err(KafkaError::ClientCreation(why));
        }
        Ok(Events {
            queue: Owned(queue, sys::rd_kafka_queue_destroy),
            client,
            consumer: PhantomData,
        })
    }

    /// Keeps what is fetched of a partition from now on in its own queue. librdkafka fetches it until that holds
    /// `queued.max.messages.kbytes`. Pausing it instead drops what was fetched, and the broker's thread, which is not woken
    /// when it is resumed, may sleep for a second more.
    pub fn keep_back(&self, partition: &TopicPartition) {
        self.forward(partition, ptr::null_mut());
    }

    /// Lets events of a partition come to this queue, beginning with those that were kept.
    pub fn pass(&self, partition: &TopicPartition) {
        self.forward(partition, self.queue.0);
    }

    fn forward(&self, partition: &TopicPartition, to: *mut sys::rd_kafka_queue_t) {
        // A topic that the broker has named has no zero in its name.
        let Ok(topic) = CString::new(&*partition.topic) else {
            return;
        };
        // SAFETY: the client is alive for as long as `Events` lives, and `to` is null or its queue. The partition's queue is a
        // reference of our own, null for a client that consumes nothing.
        unsafe {
            let queue =
                sys::rd_kafka_queue_get_partition(self.client, topic.as_ptr(), partition.partition);
            if !queue.is_null() {
                sys::rd_kafka_queue_forward(queue, to);
                sys::rd_kafka_queue_destroy(queue);
            }
        }
    }

    /// Hands over all that there is, but not so much that the caller has no time for anything else. Waits for the first event.
    ///
    /// # Errors
    /// Those of `handle`, which is called no more then.
    pub fn hand_over(
        &self,
        timeout: Duration,
        mut handle: impl FnMut(Event) -> KafkaResult<()>,
    ) -> KafkaResult<()> {
        let mut wait = timeout;
        for _ in 0..1_000 {
            let Some(event) = self.poll(wait) else { break };
            handle(event)?;
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// The next event; `None` if there was none within `timeout`.
    pub fn poll(&self, timeout: Duration) -> Option<Event> {
        let event = poll(&self.queue, timeout)?;
        // SAFETY: `event` is not null and alive. The functions that read it are those of its type, and what they read is copied
        // before it is destroyed.
        unsafe {
            Some(match sys::rd_kafka_event_type(event.0) {
                sys::RD_KAFKA_EVENT_FETCH => {
                    let message = sys::rd_kafka_event_message_next(event.0);
                    if message.is_null() {
                        Event::Other
                    } else {
                        Event::Record(record(message))
                    }
                }
                sys::RD_KAFKA_EVENT_REBALANCE => rebalance(event.0),
                sys::RD_KAFKA_EVENT_ERROR => error(event.0),
                sys::RD_KAFKA_EVENT_OFFSET_COMMIT => committed(event.0),
                sys::RD_KAFKA_EVENT_LOG => log(event.0),
                _ => Event::Other,
            })
        }
    }
}

/// # Safety
/// `event` is an alive rebalance event.
unsafe fn rebalance(event: *mut sys::rd_kafka_event_t) -> Event {
    // SAFETY: as the caller promises. The elements belong to the event.
    unsafe {
        Event::Rebalance {
            assigned: sys::rd_kafka_event_error(event)
                == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS,
            partitions: elements(event)
                .iter()
                .map(|element| partition(element))
                .collect(),
        }
    }
}

/// # Safety
/// `event` is an alive error event.
unsafe fn error(event: *mut sys::rd_kafka_event_t) -> Event {
    // SAFETY: as the caller promises. The partition is a copy that librdkafka makes for us, destroyed by `Owned`; the text
    // belongs to the event.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        let of = Owned(
            sys::rd_kafka_event_topic_partition(event),
            sys::rd_kafka_topic_partition_destroy,
        );
        let of = of.0.as_ref();
        match (code, of) {
            (sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF, Some(at)) => {
                Event::EndOfPartition {
                    partition: partition(at),
                    offset: at.offset,
                }
            }
            (sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, _) => Event::Other,
            (code, of) => Event::Error {
                code: code.into(),
                is_fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
                scope: match of.map(|of| partition(of)) {
                    // RD_KAFKA_PARTITION_UA, -1, stands for none.
                    Some(of) if of.partition < 0 => Scope::Topic(of.topic),
                    Some(of) => Scope::Partition(of),
                    None => scope_of(&text(sys::rd_kafka_event_error_string(event))),
                },
            },
        }
    }
}

/// What an error concerns that has no partition. librdkafka names a topic only in the error's text.
fn scope_of(error: &str) -> Scope {
    let of_topic = error.strip_prefix("Subscribed topic not available: ");
    let topic = of_topic.and_then(|rest| rest.split_once(": "));
    topic.map_or(Scope::Consumer, |(topic, _)| Scope::Topic(topic.into()))
}

/// # Safety
/// `event` is an alive offset commit event.
unsafe fn committed(event: *mut sys::rd_kafka_event_t) -> Event {
    use sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as DONE;
    // SAFETY: as the caller promises. The elements belong to the event.
    unsafe {
        let elements = elements(event);
        // The event has the error of the last partition that has one, and that of a request that has failed as a whole.
        let of_request = if elements.iter().any(|element| element.err != DONE) {
            DONE
        } else {
            sys::rd_kafka_event_error(event)
        };
        let asked = elements
            .iter()
            // Partitions without an offset to commit are in the list, too, and Kafka was not asked for them.
            .filter(|element| element.offset >= 0);
        let outcomes = asked.map(|element| {
            let outcome = match (of_request, element.err) {
                (DONE, DONE) => Ok(()),
                (DONE, code) | (code, _) => Err(code.into()),
            };
            (partition(element), outcome)
        });
        Event::Committed(outcomes.collect())
    }
}

/// The partitions of an event, which belong to it.
///
/// # Safety
/// `event` is an alive event with a list of partitions, and outlives the result.
unsafe fn elements<'e>(event: *mut sys::rd_kafka_event_t) -> &'e [sys::rd_kafka_topic_partition_t] {
    // SAFETY: as the caller promises. Elements are read within the list's count.
    unsafe {
        let list = sys::rd_kafka_event_topic_partition_list(event);
        if list.is_null() || (*list).elems.is_null() {
            return &[];
        }
        let count = usize::try_from((*list).cnt).unwrap_or_default();
        slice::from_raw_parts((*list).elems, count)
    }
}

/// # Safety
/// `element` is alive.
unsafe fn partition(element: &sys::rd_kafka_topic_partition_t) -> TopicPartition {
    TopicPartition {
        // SAFETY: as the caller promises. The name is a C string.
        topic: unsafe { text(element.topic) }.into(),
        partition: element.partition,
    }
}

/// # Safety
/// `event` is an alive log event.
unsafe fn log(event: *mut sys::rd_kafka_event_t) -> Event {
    let (mut facility, mut message, mut severity) = (ptr::null(), ptr::null(), 0);
    // SAFETY: as the caller promises. The texts belong to the event.
    unsafe {
        if sys::rd_kafka_event_log(event, &mut facility, &mut message, &mut severity) != 0 {
            return Event::Other;
        }
        Event::Log {
            severity,
            facility: text(facility),
            message: text(message),
        }
    }
}

/// # Safety
/// `text` is a C string or null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().trim().to_owned()
}

/// Copies a record out of librdkafka's memory.
///
/// # Safety
/// `message` is an alive message of a fetch.
pub(super) unsafe fn record(message: *const sys::rd_kafka_message_t) -> Record {
    // SAFETY: as the caller promises. Pointers are read within the lengths that come with them.
    unsafe {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp = sys::rd_kafka_message_timestamp(message, &mut kind);
        let has_timestamp = timestamp != -1
            && kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let message_ref = &*message;
        Record {
            topic: CStr::from_ptr(sys::rd_kafka_topic_name(message_ref.rkt))
                .to_string_lossy()
                .into(),
            partition: message_ref.partition,
            offset: message_ref.offset,
            timestamp_ms: has_timestamp.then_some(timestamp),
            key: bytes(message_ref.key, message_ref.key_len),
            headers: headers(message),
            value: bytes(message_ref.payload, message_ref.len),
        }
    }
}

/// A record's headers. One whose name is not UTF-8 is left out: no header that is read has such a name.
///
/// # Safety
/// `message` is an alive message of a fetch.
unsafe fn headers(message: *const sys::rd_kafka_message_t) -> Vec<(String, Option<Bytes>)> {
    let mut all = Vec::new();
    // SAFETY: as the caller promises. The headers belong to the message.
    unsafe {
        let mut headers = ptr::null_mut();
        if sys::rd_kafka_message_headers(message, &mut headers)
            != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return all;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            if sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size)
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                break;
            }
            if let Ok(name) = CStr::from_ptr(name).to_str() {
                all.push((name.to_owned(), bytes(value, size)));
            }
        }
    }
    all
}

/// # Safety
/// `start` is null or points to `length` bytes.
unsafe fn bytes(start: *const c_void, length: usize) -> Option<Bytes> {
    // SAFETY: as the caller promises.
    (!start.is_null()).then(|| unsafe {
        Bytes::copy_from_slice(slice::from_raw_parts(start.cast::<u8>(), length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_partition_is_of_the_topic_that_its_text_names() {
        for (error, scope) in [
            (
                "Subscribed topic not available: user.events: Broker: Unknown topic or partition",
                Scope::Topic("user.events".into()),
            ),
            (
                "JoinGroup failed: Broker: Group authorization failed",
                Scope::Consumer,
            ),
            ("", Scope::Consumer),
        ] {
            assert_eq!(scope_of(error), scope, "{error}");
        }
    }
}
