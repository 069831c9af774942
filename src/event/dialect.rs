//! The five envelope dialects: how one is recognized, and where it has each part of an event.
//!
//! [`EnvelopeParts`] reads a part by itself, so that a record with one bad part can be judged by
//! the others. The envelope is read before the payload and whatever the payload holds.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::bad::Bad;
use super::fields::check_id;
use super::json::{Json, is_blank};
use super::record::Record;
use super::{time, wrapping};

/// The header with the correlation id of an envelope that has none.
const CORRELATION_HEADER: &str = "correlationId";

/// Base64 as CloudEvents uses it, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The names of an envelope's parts. Of several names for one part, the first that is given counts.
struct Dialect {
    id: &'static str,
    event_type: &'static str,
    time: &'static [&'static str],
    source: &'static [&'static str],
    correlation: &'static [&'static str],
    payload: &'static [&'static str],
    /// The name of a payload as base64 of its JSON.
    payload_base64: Option<&'static str>,
    /// Whether the type may have a reverse-DNS prefix, as in CloudEvents.
    cloud_events: bool,
    /// Whether the names are those of headers. The record's value is the payload then.
    in_headers: bool,
}

/// The original envelope.
const EVENT: Dialect = Dialect {
    id: "eventId",
    event_type: "eventType",
    time: &["eventTimestamp", "timestamp"],
    source: &["sourceService", "source"],
    correlation: &["correlationId"],
    payload: &["payload", "data"],
    payload_base64: None,
    cloud_events: false,
    in_headers: false,
};

const STANDARD_MESSAGE: Dialect = Dialect {
    id: "messageId",
    event_type: "messageType",
    time: &["timestamp"],
    source: &["sourceService"],
    correlation: &["correlationId"],
    payload: &["payload"],
    payload_base64: None,
    cloud_events: false,
    in_headers: false,
};

const CLOUD_EVENTS_STRUCTURED: Dialect = Dialect {
    id: "id",
    event_type: "type",
    time: &["time"],
    source: &["source"],
    correlation: &["correlationid"],
    payload: &["data"],
    payload_base64: Some("data_base64"),
    cloud_events: true,
    in_headers: false,
};

const CLOUD_EVENTS_BINARY: Dialect = Dialect {
    id: "ce_id",
    event_type: "ce_type",
    time: &["ce_time"],
    source: &["ce_source"],
    correlation: &["ce_correlationid"],
    payload: &[],
    payload_base64: None,
    cloud_events: true,
    in_headers: true,
};

/// What Debezium's outbox event router writes. The time is Kafka's timestamp.
const OUTBOX: Dialect = Dialect {
    id: "id",
    event_type: "eventType",
    time: &[],
    source: &[],
    correlation: &[],
    payload: &[],
    payload_base64: None,
    cloud_events: false,
    in_headers: true,
};

impl Dialect {
    /// The dialect of a value that is not binary CloudEvents: structured CloudEvents by
    /// `specversion`, else `StandardMessage` by `messageId`, else the original envelope by
    /// `eventId` or `eventType`, else the outbox's if the record has its headers.
    ///
    /// A null or empty `specversion` or `messageId` counts only if `eventType` is not given.
    fn of_body(body: &Map<String, Value>, has_outbox_headers: bool) -> &'static Dialect {
        let has = |name| body.contains_key(name);
        let given = |name| body.get(name).is_some_and(|value| !is_blank(value));
        if given("specversion") {
            &CLOUD_EVENTS_STRUCTURED
        } else if given("messageId") {
            &STANDARD_MESSAGE
        } else if given("eventType") {
            &EVENT
        } else if has("messageId") {
            &STANDARD_MESSAGE
        } else if has("specversion") {
            &CLOUD_EVENTS_STRUCTURED
        } else if has_outbox_headers && !has("eventId") && !has("eventType") {
            &OUTBOX
        } else {
            &EVENT
        }
    }
}

/// The parts of a record's envelope, each read when it is asked for.
pub(super) struct EnvelopeParts<'r> {
    record: &'r Record,
    dialect: &'static Dialect,
    /// The value. With the envelope in headers, it need not be JSON.
    body: Json,
}

impl<'r> EnvelopeParts<'r> {
    /// Finds the dialect: binary CloudEvents by the headers, else by the value, else the outbox's
    /// by the headers.
    pub(super) fn of(record: &'r Record) -> Result<Self, Bad> {
        let has_header = |name| record.headers.iter().any(|(header, _)| header == name);
        let is_binary = has_header("ce_id") && has_header("ce_type");
        let has_outbox_headers = has_header(OUTBOX.id) && has_header(OUTBOX.event_type);
        let body = wrapping::read(record.value.as_deref().unwrap_or_default());
        let dialect = match &body {
            _ if is_binary => &CLOUD_EVENTS_BINARY,
            Ok(Json {
                value: Value::Object(members),
                ..
            }) => Dialect::of_body(members, has_outbox_headers),
            _ if has_outbox_headers => &OUTBOX,
            Ok(_) => return Err(Bad::no_event_type()),
            Err(bad) => return Err(bad.clone()),
        };
        Ok(Self {
            record,
            dialect,
            body: body.unwrap_or_else(Json::from),
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

    /// Refuses a value that is not JSON within the limits.
    pub(super) fn check_json(&self) -> Result<(), Bad> {
        self.body.problem.clone().map_or(Ok(()), Err)
    }

    /// The payload, in the form of its version.
    pub(super) fn payload(&self) -> Result<Cow<'_, Map<String, Value>>, Bad> {
        self.check_json()?;
        let body = &self.body.value;
        let given = |name: &str| body.get(name).filter(|value| !is_blank(value));
        let payload = if self.dialect.in_headers {
            body
        } else if let Some(payload) = self.dialect.payload.iter().find_map(|name| given(name)) {
            payload
        } else if let Some(name) = self.dialect.payload_base64
            && let Some(encoded) = given(name)
        {
            return payload_in_base64(name, encoded).map(Cow::Owned);
        } else {
            return Err(Bad::missing_field("payload".to_owned()));
        };
        let payload = payload.as_object();
        payload
            .map(Cow::Borrowed)
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
            if self.dialect.in_headers {
                return self.header(name);
            }
            let value = self.body.value.get(name)?;
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

/// The payload in base64, in the member with this name.
fn payload_in_base64(name: &'static str, encoded: &Value) -> Result<Map<String, Value>, Bad> {
    let encoded = encoded.as_str().ok_or_else(|| Bad::wrong_type(name))?;
    let bytes = BASE64.decode(encoded).map_err(|_| Bad::not_base64(name))?;
    let json = Json::parse(&bytes).map_err(|bad| bad.in_base64(name))?;
    match (json.value, json.problem) {
        (_, Some(bad)) => Err(bad.in_base64(name)),
        (Value::Object(payload), None) => Ok(payload),
        (_, None) => Err(Bad::wrong_type(name)),
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
