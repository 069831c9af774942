//! Events for the tests of folds.

use serde_json::{Value, json};

use super::users::UserState;
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

/// Asserts that states which releases of these code versions have stored are read without loss, and that a state with a field
/// of newer code is refused: written again by this code, it would lose the field. Returns the code versions.
pub fn assert_states_are_read<S: UserState>(stored: &str) -> Vec<i64> {
    let lines = stored.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let state: S = serde_json::from_value(line["state"].clone()).expect("a state");
        let written = serde_json::to_value(&state).expect("JSON");
        let now = line.get("writtenNow").unwrap_or(&line["state"]);
        assert_eq!(written, *now);
        let again: S = serde_json::from_value(written).expect("a state");
        assert_eq!(serde_json::to_value(&again).expect("JSON"), *now);

        let mut newer = line["state"].clone();
        newer["aFieldOfNewerCode"] = json!(1);
        assert!(serde_json::from_value::<S>(newer).is_err());
        line["codeVersion"].as_i64().expect("a number")
    });
    lines.collect()
}
