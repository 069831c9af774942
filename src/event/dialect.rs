//! The four envelope dialects: how one is recognized, and where it has each part of an event.
//!
//! [`EnvelopeParts`] reads a part by itself, so that a record with one bad part can be judged by
//! the others.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::bad::Bad;
use super::fields::check_id;
use super::json::{self, is_blank};
use super::record::Record;
use super::time;

/// The header with the correlation id of an envelope that has none.
const CORRELATION_HEADER: &str = "correlationId";

/// The names of an envelope's parts. Of several names for one part, the first that is given counts.
struct Dialect {
    id: &'static str,
    event_type: &'static str,
    time: &'static [&'static str],
    source: &'static [&'static str],
    correlation: &'static [&'static str],
    payload: &'static [&'static str],
    /// Whether the type may have a reverse-DNS prefix, as in CloudEvents.
    cloud_events: bool,
    /// Whether the names are those of headers. The record's value is the payload then.
    binary: bool,
}

/// The original envelope.
const EVENT: Dialect = Dialect {
    id: "eventId",
    event_type: "eventType",
    time: &["eventTimestamp", "timestamp"],
    source: &["sourceService", "source"],
    correlation: &["correlationId"],
    payload: &["payload", "data"],
    cloud_events: false,
    binary: false,
};

const STANDARD_MESSAGE: Dialect = Dialect {
    id: "messageId",
    event_type: "messageType",
    time: &["timestamp"],
    source: &["sourceService"],
    correlation: &["correlationId"],
    payload: &["payload"],
    cloud_events: false,
    binary: false,
};

const CLOUD_EVENTS_STRUCTURED: Dialect = Dialect {
    id: "id",
    event_type: "type",
    time: &["time"],
    source: &["source"],
    correlation: &["correlationid"],
    payload: &["data"],
    cloud_events: true,
    binary: false,
};

const CLOUD_EVENTS_BINARY: Dialect = Dialect {
    id: "ce_id",
    event_type: "ce_type",
    time: &["ce_time"],
    source: &["ce_source"],
    correlation: &["ce_correlationid"],
    payload: &[],
    cloud_events: true,
    binary: true,
};

impl Dialect {
    /// The dialect of a value that is not binary CloudEvents: structured CloudEvents by
    /// `specversion`, else `StandardMessage` by `messageId`, else the original envelope.
    /// A null or empty `specversion` or `messageId` counts only if `eventType` is not given.
    fn of_body(body: &Map<String, Value>) -> &'static Dialect {
        let given = |name| body.get(name).is_some_and(|value| !is_blank(value));
        if given("specversion") {
            &CLOUD_EVENTS_STRUCTURED
        } else if given("messageId") {
            &STANDARD_MESSAGE
        } else if given("eventType") {
            &EVENT
        } else if body.contains_key("messageId") {
            &STANDARD_MESSAGE
        } else if body.contains_key("specversion") {
            &CLOUD_EVENTS_STRUCTURED
        } else {
            &EVENT
        }
    }
}

/// The parts of a record's envelope, each read when it is asked for.
pub(super) struct EnvelopeParts<'r> {
    record: &'r Record,
    dialect: &'static Dialect,
    /// The parsed value. An error is possible only in binary CloudEvents: their parts are headers.
    body: Result<Value, Bad>,
}

impl<'r> EnvelopeParts<'r> {
    /// Finds the dialect: binary CloudEvents by the headers, else by the value.
    pub(super) fn of(record: &'r Record) -> Result<Self, Bad> {
        let has_header = |name| record.headers.iter().any(|(header, _)| header == name);
        let body = json::parse(record.value.as_deref().unwrap_or_default());
        let (dialect, body) = if has_header("ce_id") && has_header("ce_type") {
            (&CLOUD_EVENTS_BINARY, body)
        } else {
            let body = body?;
            let object = body.as_object().ok_or_else(Bad::no_event_type)?;
            (Dialect::of_body(object), Ok(body))
        };
        Ok(Self {
            record,
            dialect,
            body,
        })
    }

    /// Whether the type may have a reverse-DNS prefix.
    pub(super) fn is_cloud_event(&self) -> bool {
        self.dialect.cloud_events
    }

    /// The event type as the record has it.
    pub(super) fn event_type(&self) -> Result<&str, Bad> {
        let (_, text) = self
            .text(&[self.dialect.event_type])?
            .ok_or_else(Bad::no_event_type)?;
        Ok(text)
    }

    /// The event id.
    pub(super) fn event_id(&self) -> Result<&str, Bad> {
        let name = self.dialect.id;
        let (_, id) = self.text(&[name])?.ok_or_else(|| Bad::no_event_id(name))?;
        check_id(id, || name.to_owned())
    }

    /// The service that published the event.
    pub(super) fn source(&self) -> Result<Option<&str>, Bad> {
        let source = self.text(self.dialect.source)?;
        Ok(source.map(|(_, text)| text))
    }

    /// The correlation id of the envelope, else of the header.
    pub(super) fn correlation_id(&self) -> Result<Option<&str>, Bad> {
        let id = match self.text(self.dialect.correlation)? {
            None => as_text(self.header(CORRELATION_HEADER))?,
            in_envelope => in_envelope,
        };
        id.map(|(name, id)| check_id(id, || name.to_owned()))
            .transpose()
    }

    /// The envelope's time, else the Kafka record's timestamp.
    pub(super) fn time(&self) -> Result<DateTime<Utc>, Bad> {
        if let Some((name, text)) = self.given(self.dialect.time) {
            return text
                .and_then(time::parse)
                .ok_or_else(|| Bad::bad_timestamp(name));
        }
        let millis = self.record.timestamp_ms.ok_or_else(Bad::no_timestamp)?;
        time::from_millis(millis).ok_or_else(Bad::bad_kafka_timestamp)
    }

    /// The parsed value.
    pub(super) fn body(&self) -> Result<&Value, Bad> {
        self.body.as_ref().map_err(Bad::clone)
    }

    /// The payload, in the form of its version.
    pub(super) fn payload(&self) -> Result<&Map<String, Value>, Bad> {
        let body = self.body()?;
        let given = |name: &&str| body.get(*name).filter(|value| !is_blank(value));
        let payload = if self.dialect.binary {
            Some(body)
        } else {
            self.dialect.payload.iter().find_map(given)
        };
        payload
            .ok_or_else(|| Bad::missing_field("payload".to_owned()))?
            .as_object()
            .ok_or_else(|| Bad::wrong_type("payload"))
    }

    /// The first of these names that the envelope gives, with its text.
    fn text(&self, names: &[&'static str]) -> Result<Option<(&'static str, &str)>, Bad> {
        as_text(self.given(names))
    }

    /// The first of these names that the envelope gives, with its text; `None` in place of the text
    /// if the value is not text.
    fn given(&self, names: &[&'static str]) -> Option<(&'static str, Option<&str>)> {
        names.iter().find_map(|name| {
            if self.dialect.binary {
                return self.header(name);
            }
            let value = self.body.as_ref().ok()?.get(name)?;
            (!is_blank(value)).then(|| (*name, value.as_str()))
        })
    }

    /// The last header with this name unless it is empty, with its text; `None` in place of the
    /// text if the value is not UTF-8.
    fn header(&self, name: &'static str) -> Option<(&'static str, Option<&str>)> {
        let mut headers = self.record.headers.iter().rev();
        let (_, value) = headers.find(|(header, _)| header == name)?;
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some((name, std::str::from_utf8(value).ok()))
    }
}

/// Refuses a value that is not text.
fn as_text<'a>(
    given: Option<(&'static str, Option<&'a str>)>,
) -> Result<Option<(&'static str, &'a str)>, Bad> {
    match given {
        None => Ok(None),
        Some((name, Some(text))) => Ok(Some((name, text))),
        Some((name, None)) => Err(Bad::wrong_type(name)),
    }
}
