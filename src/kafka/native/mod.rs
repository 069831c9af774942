//! What librdkafka offers and its safe wrapper lacks: events with their partition and offset ([`events`]), topic ids and
//! offsets from brokers that are asked together ([`requests`]), and a setting of the in-process broker. The only module
//! with `unsafe` code; the program adds the configuration of its allocator (`main.rs`).
//!
//! A topic that was deleted and created again has the same name and another id (KIP-516).
#![allow(unsafe_code)]

pub mod events;
pub mod requests;

#[cfg(test)]
use std::ffi::CStr;

use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::message::BorrowedMessage;

use crate::event::Record;

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

/// Waits for the next event of a queue; `None` if there was none within `timeout`.
fn poll(
    queue: &Owned<sys::rd_kafka_queue_t>,
    timeout: Duration,
) -> Option<Owned<sys::rd_kafka_event_t>> {
    // SAFETY: the queue is alive. `Owned` takes the event over, which is null if there was none.
    let event = unsafe { sys::rd_kafka_queue_poll(queue.0, milliseconds(timeout)) };
    (!event.is_null()).then(|| Owned(event, sys::rd_kafka_event_destroy))
}

/// A time-out as librdkafka takes it.
fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
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
