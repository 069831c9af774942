//! Requests to brokers of the caller's choice, in flight together: descriptions of topics, and offsets. Kafka's admin API
//! under librdkafka, which asks the controller for a description by default, and of which rdkafka wraps neither.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Owned, milliseconds, poll};

/// A topic as a broker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The topic's id in base64. `None` if the broker knows no topic ids (before Kafka 2.8).
    pub id: Option<String>,
    /// The broker that leads each partition, by the partition's number; `None` for one without a leader.
    pub leaders: Vec<Option<i32>>,
}

/// Which offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// The log start offset.
    LogStart,
    /// The last stable offset.
    LastStable,
    /// The log end offset.
    LogEnd,
}

impl Bound {
    /// All of them.
    pub const ALL: [Bound; 3] = [Bound::LogStart, Bound::LastStable, Bound::LogEnd];
}

/// A partition: its topic and number.
pub type Partition = (String, i32);
/// Topics by name; `None` for one that the broker doesn't know.
pub type Topics = BTreeMap<String, KafkaResult<Option<Topic>>>;
/// An offset of each partition.
pub type Offsets = BTreeMap<Partition, KafkaResult<i64>>;

/// What a broker answers.
#[derive(Debug)]
pub enum Answer {
    /// To a description.
    Topics(Topics),
    /// To a request for offsets. It may lack partitions: those that did not answer in time, without saying so.
    Offsets(Offsets),
}

/// The requests of a client. Each is answered or fails within its time-out, however long other brokers take.
pub struct Requests<'c> {
    client: *mut sys::rd_kafka_t,
    queue: Owned<sys::rd_kafka_queue_t>,
    consumer: PhantomData<&'c ()>,
}

impl<'c> Requests<'c> {
    /// Requests of this client.
    pub fn of<C: ConsumerContext>(consumer: &'c BaseConsumer<C>) -> Self {
        let client = consumer.client().native_ptr();
        // SAFETY: the handle is alive for as long as `consumer` is borrowed, which is as long as `Requests` lives. The
        // queue is our own, destroyed by `Owned` before the consumer can be dropped. Answers that come later find no
        // queue, and librdkafka frees them.
        let queue = unsafe { Owned(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy) };
        Requests {
            client,
            queue,
            consumer: PhantomData,
        }
    }

    /// Asks a broker for a description of topics. Returns at once; [`Requests::poll`] returns the answer under `number`.
    ///
    /// # Errors
    /// A name can't be a topic's.
    pub fn describe<'n>(
        &self,
        number: usize,
        broker: i32,
        names: impl IntoIterator<Item = &'n str>,
        timeout: Duration,
    ) -> KafkaResult<()> {
        let names: Vec<CString> = names
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| KafkaError::MetadataFetch(RDKafkaErrorCode::InvalidTopic))?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = self.options(operation, number, timeout);
        // SAFETY: client and queue are alive. `names` outlives the collection, which copies it; librdkafka copies
        // collection and options before it returns. The array is read within the length given with it.
        unsafe {
            sys::rd_kafka_AdminOptions_set_broker(options.0, broker, ptr::null_mut(), 0);
            let collection = Owned(
                sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
                sys::rd_kafka_TopicCollection_destroy,
            );
            sys::rd_kafka_DescribeTopics(self.client, collection.0, options.0, self.queue.0);
        }
        Ok(())
    }

    /// Asks for an offset of each of these partitions, with one request to each broker that leads some of them. Returns at
    /// once; [`Requests::poll`] returns the answer under `number`, when all brokers have answered.
    ///
    /// # Errors
    /// A name can't be a topic's.
    pub fn list_offsets(
        &self,
        number: usize,
        bound: Bound,
        partitions: &[Partition],
        timeout: Duration,
    ) -> KafkaResult<()> {
        use sys::rd_kafka_IsolationLevel_t as levels;
        // Kafka's numbers for the first and the last offset are the same here and in a consumer's assignment.
        let (offset, level) = match bound {
            Bound::LogStart => (
                Offset::Beginning,
                levels::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
            ),
            Bound::LastStable => (Offset::End, levels::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED),
            Bound::LogEnd => (
                Offset::End,
                levels::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
            ),
        };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, offset)?;
        }
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let options = self.options(operation, number, timeout);
        // SAFETY: client and queue are alive, and so is the list; librdkafka copies list and options before it returns. An
        // error of the option's setter is ours, destroyed by `Owned`.
        unsafe {
            drop(Owned(
                sys::rd_kafka_AdminOptions_set_isolation_level(options.0, level),
                sys::rd_kafka_error_destroy,
            ));
            sys::rd_kafka_ListOffsets(self.client, list.ptr(), options.0, self.queue.0);
        }
        Ok(())
    }

    fn options(
        &self,
        operation: sys::rd_kafka_admin_op_t,
        number: usize,
        timeout: Duration,
    ) -> Owned<sys::rd_kafka_AdminOptions_t> {
        let milliseconds = milliseconds(timeout);
        // SAFETY: the client is alive. The options are ours, destroyed by `Owned`. The number travels in the place of a
        // pointer, which librdkafka returns and never follows.
        unsafe {
            let options = Owned(
                sys::rd_kafka_AdminOptions_new(self.client, operation),
                sys::rd_kafka_AdminOptions_destroy,
            );
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.0,
                milliseconds,
                ptr::null_mut(),
                0,
            );
            let number = ptr::without_provenance_mut::<c_void>(number);
            sys::rd_kafka_AdminOptions_set_opaque(options.0, number);
            options
        }
    }

    /// The number of the next request that has ended, with its answer or why it has none. `None` if no request ended within
    /// `timeout`.
    pub fn poll(&self, timeout: Duration) -> Option<(usize, KafkaResult<Answer>)> {
        let event = poll(&self.queue, timeout)?;
        // SAFETY: `event` is not null and alive. The functions that read it are those of its type, and what they read is copied
        // before it is destroyed.
        unsafe {
            let number = sys::rd_kafka_event_opaque(event.0).addr();
            let answer = match (
                sys::rd_kafka_event_error(event.0),
                sys::rd_kafka_event_type(event.0),
            ) {
                (sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, kind) => match kind {
                    sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT => {
                        Ok(Answer::Topics(topics(event.0)))
                    }
                    sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT => Ok(Answer::Offsets(offsets(event.0))),
                    _ => return None,
                },
                (code, _) => Err(KafkaError::MetadataFetch(code.into())),
            };
            Some((number, answer))
        }
    }
}

/// # Safety
/// `event` is an alive result of a description, without an error.
unsafe fn topics(event: *mut sys::rd_kafka_event_t) -> Topics {
    // SAFETY: as the caller promises. Topics and their parts belong to the event; arrays are read within their lengths.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        elements(topics, count)
            .iter()
            .map(|topic| {
                let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic));
                (name.to_string_lossy().into_owned(), description(*topic))
            })
            .collect()
    }
}

/// # Safety
/// `topic` is an alive description.
unsafe fn description(
    topic: *const sys::rd_kafka_TopicDescription_t,
) -> KafkaResult<Option<Topic>> {
    use sys::rd_kafka_resp_err_t as codes;
    // SAFETY: as the caller promises. Error, id, partitions and leaders belong to the description.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            match sys::rd_kafka_error_code(error) {
                codes::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                codes::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | codes::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => return Ok(None),
                code => return Err(KafkaError::MetadataFetch(code.into())),
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let is_zero = id.is_null()
            || (sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                && sys::rd_kafka_Uuid_least_significant_bits(id) == 0);
        let id = (!is_zero).then(|| {
            CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id))
                .to_string_lossy()
                .into_owned()
        });
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        // They are sorted by number, without a gap.
        let leaders = elements(partitions, count).iter().map(|partition| {
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(*partition);
            let leader = (!leader.is_null()).then(|| sys::rd_kafka_Node_id(leader));
            leader.filter(|leader| *leader >= 0)
        });
        Ok(Some(Topic {
            id,
            leaders: leaders.collect(),
        }))
    }
}

/// # Safety
/// `event` is an alive result of a request for offsets, without an error.
unsafe fn offsets(event: *mut sys::rd_kafka_event_t) -> Offsets {
    // SAFETY: as the caller promises. Elements and partitions belong to the event; the array is read within its length.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event);
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        elements(infos, count)
            .iter()
            .filter_map(|info| {
                let found = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
                let topic = CStr::from_ptr(found.topic).to_string_lossy().into_owned();
                let offset = match found.err {
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(found.offset),
                    code => Err(KafkaError::MetadataFetch(code.into())),
                };
                // An element has no error and no offset where the broker's answer is missing.
                let is_answered = offset.as_ref().map_or(true, |offset| *offset >= 0);
                is_answered.then_some(((topic, found.partition), offset))
            })
            .collect()
    }
}

/// # Safety
/// `start` is null or points to `count` elements that live for as long as the result is used.
unsafe fn elements<'e, T>(start: *mut *const T, count: usize) -> &'e [*const T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(start, count) }
}

/// Asks a broker for the description of one topic; `None` if it has none of that name. Blocks for at most `timeout`.
///
/// # Errors
/// The broker could not be asked, or refused.
pub fn describe_topic<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    broker: i32,
    name: &str,
    timeout: Duration,
) -> KafkaResult<Option<Topic>> {
    let requests = Requests::of(consumer);
    requests.describe(0, broker, [name], timeout)?;
    // The request's own time-out ends the wait; a second more is for its answer to be queued.
    match requests.poll(timeout + Duration::from_secs(1)) {
        Some((_, Ok(Answer::Topics(mut topics)))) => topics.remove(name).unwrap_or(Ok(None)),
        Some((_, Err(error))) => Err(error),
        _ => Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::OperationTimedOut,
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    #[test]
    fn a_broker_describes_topics_and_returns_their_offsets() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 2, 1).unwrap();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        // A client learns of brokers by asking for metadata.
        client.fetch_metadata(Some("t"), TIMEOUT).unwrap();
        let requests = Requests::of(&client);
        requests.describe(7, 1, ["t", "missing"], TIMEOUT).unwrap();
        let Some((7, Ok(Answer::Topics(mut topics)))) = requests.poll(TIMEOUT) else {
            panic!("no description");
        };
        let topic = topics.remove("t").unwrap().unwrap().unwrap();
        assert_eq!(topic.leaders, [Some(1), Some(1)]);
        assert!(
            matches!(topics.remove("missing"), Some(Ok(None))),
            "{topics:?}"
        );
        let partitions = [("t".to_owned(), 0), ("t".to_owned(), 1)];
        for (number, bound) in (8..).zip(Bound::ALL) {
            requests
                .list_offsets(number, bound, &partitions, TIMEOUT)
                .unwrap();
        }
        for _ in Bound::ALL {
            let Some((8..=10, Ok(Answer::Offsets(offsets)))) = requests.poll(TIMEOUT) else {
                panic!("no offsets");
            };
            let expected = partitions.clone().map(|partition| (partition, Ok(0)));
            assert_eq!(offsets, expected.into());
        }
        // A broker that is not there fails the request, within its time.
        let (began, short) = (Instant::now(), Duration::from_millis(100));
        requests.describe(11, 99, ["t"], short).unwrap();
        let Some((11, Err(_))) = requests.poll(TIMEOUT) else {
            panic!("no failure");
        };
        assert!(began.elapsed() < TIMEOUT / 2);
    }
}
