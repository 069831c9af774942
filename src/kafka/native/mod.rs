//! What librdkafka offers and its safe wrapper lacks: topic ids, events with their partition and offset ([`events`]), and
//! a setting of the in-process broker. The only module with `unsafe` code.
//!
//! A topic that was deleted and created again has the same name and another id (KIP-516).
#![allow(unsafe_code)]

pub mod events;

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;

use crate::event::Record;

/// A topic as the cluster has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The topic's id in base64. `None` if the cluster has no topic ids (before Kafka 2.8), or no controller to ask at the
    /// moment.
    pub id: Option<String>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A native object that is freed when it goes out of scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the constructor that belongs to this destructor, is owned by
            // this value alone, and is freed nowhere else.
            unsafe { self.1(self.0) }
        }
    }
}

/// The names of all properties with their defaults, of those that have one.
#[cfg(test)]
pub fn default_properties() -> Vec<(String, String)> {
    // SAFETY: the constructor returns an object that this value owns.
    let global = unsafe { Owned(sys::rd_kafka_conf_new(), sys::rd_kafka_conf_destroy) };
    // SAFETY: as above.
    let topic = unsafe {
        Owned(
            sys::rd_kafka_topic_conf_new(),
            sys::rd_kafka_topic_conf_destroy,
        )
    };
    let mut found = Vec::new();
    let (mut of_global, mut of_topic) = (0, 0);
    // SAFETY: the objects are alive; each dump has as many texts as it says, and is freed by its own
    // destructor after they are copied.
    unsafe {
        for (dump, count) in [
            (
                sys::rd_kafka_conf_dump(global.0, &raw mut of_global),
                of_global,
            ),
            (
                sys::rd_kafka_topic_conf_dump(topic.0, &raw mut of_topic),
                of_topic,
            ),
        ] {
            let texts = std::slice::from_raw_parts(dump, count);
            for pair in texts.chunks_exact(2) {
                let text = |text: *const _| CStr::from_ptr(text).to_string_lossy().into_owned();
                found.push((text(pair[0]), text(pair[1])));
            }
            sys::rd_kafka_conf_dump_free(dump, count);
        }
    }
    found
}

/// Copies a record, with all headers whose names are UTF-8.
pub fn to_record(message: &BorrowedMessage<'_>) -> Record {
    // SAFETY: the message is alive for as long as it is borrowed.
    unsafe { events::record(message.ptr()) }
}

/// Describes a topic; `None` if the cluster has none of that name. Blocks for at most `timeout`.
///
/// # Errors
/// The cluster could not be asked, or refused.
pub fn describe_topic<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    name: &str,
    timeout: Duration,
) -> Result<Option<Topic>, KafkaError> {
    let failed = |code: sys::rd_kafka_resp_err_t| KafkaError::MetadataFetch(code.into());
    let metadata = consumer.fetch_metadata(Some(name), timeout)?;
    let partitions = match metadata.topics().iter().find(|topic| topic.name() == name) {
        Some(topic) => match topic.error() {
            None => topic.partitions().len(),
            Some(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => {
                return Ok(None);
            }
            Some(code) => return Err(failed(code)),
        },
        None => return Ok(None),
    };
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    // SAFETY: the handle is alive for as long as `consumer` is borrowed. The answer comes from the metadata
    // that was just read.
    let controller = unsafe { sys::rd_kafka_controllerid(consumer.client().native_ptr(), 0) };
    if !metadata
        .brokers()
        .iter()
        .any(|broker| broker.id() == controller)
    {
        // The controller answers for ids. Without one, as in librdkafka's in-process broker, the request would time out.
        return Ok(Some(Topic {
            id: None,
            partitions,
        }));
    }
    let name = CString::new(name)
        .map_err(|_| KafkaError::MetadataFetch(RDKafkaErrorCode::InvalidTopic))?;
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();

    // SAFETY: `client` is a live handle for as long as `consumer` is borrowed. Everything that is created
    // below is owned by an `Owned`, in an order that frees it before what it came from: the event before
    // the queue. The result, its topics and their parts are borrowed from the event, which outlives their
    // use. `name` outlives the collection, which copies it. Arrays are read within the lengths given with them.
    unsafe {
        let mut names = [name.as_ptr()];
        let collection = Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let options = Owned(
            sys::rd_kafka_AdminOptions_new(
                client,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            sys::rd_kafka_AdminOptions_destroy,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, ptr::null_mut(), 0);
        let queue = Owned(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        sys::rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        // The request's own time-out ends the wait; a second more is for its answer to be queued.
        let event = Owned(
            sys::rd_kafka_queue_poll(queue.0, milliseconds.saturating_add(1000)),
            sys::rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::OperationTimedOut,
            ));
        }
        let error = sys::rd_kafka_event_error(event.0);
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(error));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::Fail));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 || topics.is_null() {
            return Ok(None);
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            use sys::rd_kafka_resp_err_t as codes;
            match sys::rd_kafka_error_code(error) {
                codes::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                codes::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | codes::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => return Ok(None),
                code => return Err(failed(code)),
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
        Ok(Some(Topic { id, partitions }))
    }
}

/// Lets consumer groups of the client's in-process broker form at the first join, instead of after three seconds. Does
/// nothing for a client without such a broker.
#[cfg(feature = "dev")]
pub fn form_mock_groups_at_once<C: rdkafka::ClientContext>(client: &rdkafka::client::Client<C>) {
    // SAFETY: the handle is alive for as long as `client` is borrowed, and so is the broker that belongs to
    // it; a client without one answers with a null pointer, which is not used.
    unsafe {
        let broker = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !broker.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(broker, 0);
        }
    }
}
