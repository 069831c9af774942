//! Streams of feeds over REST, as Server-Sent Events. The id of an event is the cursor to continue from, so that a browser's
//! `EventSource` resumes by itself.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::feed::Change;
use super::stream::{Closing, Event, Limits, WatchPosition, WatchStream};
use crate::error::{Error, add_headers};
use crate::query::answer::Answer;
use crate::query::rest::Query;

/// The media type.
pub const EVENT_STREAM: &str = "text/event-stream";
/// The header by which an `EventSource` that reconnects names the last event that it has received.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The query parameter `after`, for the documentation; [`Watch`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only described")]
pub struct AfterParameter {
    /// Only changes after this cursor, which is from an earlier answer
    after: Option<String>,
}

/// The header `Last-Event-ID`, for the documentation; [`Watch`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only described")]
pub struct LastEventIdHeader {
    /// The id of the last event that was received, which counts instead of `after`
    #[param(rename = "Last-Event-ID", required = false)]
    last_event_id: String,
}

/// Where a watch begins, and what ends it.
pub struct Watch {
    field: &'static str,
    after: Option<String>,
    /// What ends the stream.
    pub limits: Limits,
}

impl Watch {
    /// The cursor to begin after, and the parameter that it is from.
    pub fn after(&self) -> (&'static str, Option<&str>) {
        (self.field, self.after.as_deref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Watch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let mut last = parts.headers.get_all(LAST_EVENT_ID).iter();
        let (field, after) = match (last.next(), last.next()) {
            (Some(id), None) => {
                let id = id.to_str().unwrap_or_default();
                ("Last-Event-ID", Some(id.to_owned()))
            }
            (Some(_), Some(_)) => {
                return Err(Error::invalid("Last-Event-ID", "must be given once"));
            }
            (None, _) => {
                let query = Query::from_request_parts(parts, state).await?;
                ("after", query.text("after")?)
            }
        };
        let closing = parts.extensions.get::<Closing>().cloned();
        Ok(Self {
            field,
            after,
            limits: Limits {
                // A deadline is for the beginning of an answer of REST.
                time: None,
                closing,
            },
        })
    }
}

/// An event of a change as it is sent, for the documentation: `data` has the cursor.
pub fn example(data: &Value) -> String {
    written(data["cursor"].as_str(), "change", &json(data))
}

/// The stream as a response.
pub fn respond<C: Change>(answer: Answer<WatchStream<C>>) -> Response {
    let events = answer.body.map(|event| {
        let text = match event {
            Ok(Event::Change(cursor, row)) => change(row.change.event(), &cursor, row.json()),
            Ok(Event::CaughtUp(position)) => positioned("caught_up", &position),
            Ok(Event::Heartbeat(position)) => positioned("heartbeat", &position),
            Err(error) => written(None, "error", &json(&error.into_problem())),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(text))
    });
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_headers(headers, answer.position.metadata());
    response
}

/// A change has its cursor as the first field, as in the list.
fn change(event: &str, cursor: &str, json: &str) -> String {
    let fields = json.strip_prefix('{').unwrap_or_default();
    // A cursor consists of characters that JSON does not escape.
    let data = format!("{{\"cursor\":\"{cursor}\",{fields}");
    written(Some(cursor), event, &data)
}

fn positioned(event: &str, position: &WatchPosition) -> String {
    written(Some(&position.cursor), event, &json(position))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// An event. JSON has no line breaks outside of its texts, and escapes those in them, so the data is one line.
fn written(id: Option<&str>, event: &str, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 128);
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {event}\ndata: {data}\n\n");
    text
}
