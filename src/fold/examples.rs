//! Events for the tests of folds.

use serde_json::{Value, json};

use crate::event::{Envelope, Record};
use crate::projector::{FeedPosition, NewEvent};

/// An event of the user `u` at second `number`, read from the record at offset `number`.
pub fn event(number: usize, event_type: &str, mut payload: Value) -> NewEvent {
    payload["userId"] = json!("u");
    payload["profileId"] = json!("p");
    let body = json!({
        "eventId": format!("e{number}"),
        "eventType": event_type,
        "eventTimestamp": format!("2026-10-01T00:{:02}:{:02}Z", number / 60, number % 60),
        "payload": payload,
    });
    let record = Record {
        topic: "user.events".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        headers: Vec::new(),
        value: Some(serde_json::to_vec(&body).expect("JSON").into()),
    };
    let event = Envelope::read(&record)
        .and_then(|envelope| envelope.decode())
        .expect("a good event");
    let offset = number as i64;
    NewEvent {
        event,
        log_id: 1,
        offset,
        feed_position: FeedPosition::first_attempt(offset),
    }
}
