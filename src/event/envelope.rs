//! Envelopes: four dialects, one meaning; the spellings of types; when it happened.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::bad::Bad;
use super::catalogue::{EventType, Payload};
use super::fields::{Fields, check_id, is_blank, without_nul};
use super::versions::{self, UPCASTERS, Upcaster};
use super::{Event, Record, time};

/// The deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 128;

/// What an envelope calls its parts: of several names the first that says something counts.
struct Dialect {
    id: &'static str,
    event_type: &'static str,
    time: &'static [&'static str],
    source: &'static [&'static str],
    correlation: &'static [&'static str],
    payload: &'static [&'static str],
    /// CloudEvents: types may carry a reverse-DNS prefix.
    cloud_events: bool,
    /// The names are those of headers, and the whole value is the payload.
    binary: bool,
}

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

/// The header that correlates where the envelope does not.
const CORRELATION_HEADER: &str = "correlationId";

impl Dialect {
    /// What the body tells of its dialect: `specversion`, else `messageId`, else the original.
    /// A marker that is null or empty tells only where the original's type is missing too.
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

/// The type of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeName {
    /// One of the catalogue, in a version that need not be known. A version beyond `u32` counts
    /// as its maximum.
    Known {
        /// The type.
        event_type: EventType,
        /// Its version, 1 where none is written.
        version: u32,
    },
    /// A type that nobody knows.
    Unknown {
        /// The type as written, of any length.
        name: String,
    },
}

/// What can be told of a record before its payload is looked at.
pub struct Envelope<'r> {
    record: &'r Record,
    dialect: &'static Dialect,
    /// The parsed value. Only in the binary dialect, which has the type in a header, can it be bad.
    body: Result<Value, Bad>,
    /// The type as written.
    written: String,
    /// The version as written.
    version: Option<String>,
    event_type: TypeName,
}

impl<'r> Envelope<'r> {
    /// Finds dialect and type.
    ///
    /// # Errors
    /// Where the type can't be read: the record says none or, unless it is in a header, the value
    /// can't be read as JSON.
    pub fn read(record: &'r Record) -> Result<Self, Bad> {
        let has_header = |name| record.headers.iter().any(|(header, _)| header == name);
        let body = parse(record.value.as_deref().unwrap_or_default());
        let (dialect, body) = if has_header("ce_id") && has_header("ce_type") {
            (&CLOUD_EVENTS_BINARY, body)
        } else {
            let body = body?;
            let object = body.as_object().ok_or_else(Bad::no_event_type)?;
            (Dialect::of_body(object), Ok(body))
        };
        let mut envelope = Self {
            record,
            dialect,
            body,
            written: String::new(),
            version: None,
            event_type: TypeName::Unknown {
                name: String::new(),
            },
        };
        envelope.read_type()?;
        Ok(envelope)
    }

    fn read_type(&mut self) -> Result<(), Bad> {
        let (_, written) = self
            .text(&[self.dialect.event_type])?
            .ok_or_else(Bad::no_event_type)?;
        let written = without_nul(written).into_owned();
        (self.event_type, self.version) = match spelled(&written, self.dialect.cloud_events) {
            Some((event_type, digits)) => {
                let version = digits.parse().unwrap_or(u32::MAX);
                let known = TypeName::Known {
                    event_type,
                    version,
                };
                (known, Some(digits.to_owned()))
            }
            None => {
                let name = written.clone();
                (TypeName::Unknown { name }, None)
            }
        };
        self.written = written;
        Ok(())
    }

    /// The type.
    pub fn event_type(&self) -> &TypeName {
        &self.event_type
    }

    /// The event id.
    ///
    /// # Errors
    /// Where there is none, or it is no id.
    pub fn event_id(&self) -> Result<&str, Bad> {
        let name = self.dialect.id;
        let (_, id) = self.text(&[name])?.ok_or_else(|| Bad::no_event_id(name))?;
        check_id(id, || name.to_owned())
    }

    /// The whole event.
    ///
    /// # Errors
    /// Where anything is wrong with the record that counts.
    pub fn decode(&self) -> Result<Event, Bad> {
        self.decode_with(UPCASTERS)
    }

    pub(super) fn decode_with(&self, upcasters: &[Upcaster]) -> Result<Event, Bad> {
        let id = self.event_id()?.to_owned();
        let body = self.body.as_ref().map_err(Bad::clone)?;
        let correlation_id = self.correlation_id()?;
        let source = self
            .text(self.dialect.source)?
            .map(|(_, source)| without_nul(source).into_owned());
        let (event_type, payload, own_time) = match self.event_type {
            TypeName::Known {
                event_type,
                version,
            } => {
                let (payload, own_time) = self.payload(body, event_type, version, upcasters)?;
                (Some(event_type), payload, own_time)
            }
            TypeName::Unknown { .. } => (None, Payload::Unknown, None),
        };
        let occurred_at = match own_time {
            Some(time) => time,
            None => self.envelope_time()?,
        };
        Ok(Event {
            id,
            event_type,
            type_name: self.written.clone(),
            version: self.version.clone(),
            occurred_at,
            correlation_id,
            source,
            payload,
        })
    }

    /// The payload of a known type, and its own time where it has one.
    fn payload(
        &self,
        body: &Value,
        event_type: EventType,
        version: u32,
        upcasters: &[Upcaster],
    ) -> Result<(Payload, Option<DateTime<Utc>>), Bad> {
        let version = versions::find(event_type, version, upcasters);
        let read = || {
            let current = version.upcast(self.payload_object(body)?);
            let fields = Fields::of_payload(&current);
            let payload = Payload::read(event_type, &fields)?;
            Ok((payload, own_time(event_type, &fields)?))
        };
        read().map_err(|bad: Bad| {
            if !version.is_known() && bad.is_of_form() {
                bad.unsupported_version()
            } else {
                bad
            }
        })
    }

    /// When it happened, as far as that can be read of an event that is bad.
    pub fn occurred_at(&self) -> Option<DateTime<Utc>> {
        let own_time = match (&self.event_type, &self.body) {
            (TypeName::Known { event_type, .. }, Ok(body)) => {
                let payload = self.payload_object(body).ok();
                payload.map(|payload| own_time(*event_type, &Fields::of_payload(payload)))
            }
            _ => None,
        };
        match own_time {
            Some(Ok(Some(time))) => Some(time),
            Some(Err(_)) => None,
            Some(Ok(None)) | None => self.envelope_time().ok(),
        }
    }

    fn payload_object<'a>(&self, body: &'a Value) -> Result<&'a Map<String, Value>, Bad> {
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

    /// The envelope's time, else the log's.
    fn envelope_time(&self) -> Result<DateTime<Utc>, Bad> {
        if let Some((name, text)) = self.given(self.dialect.time) {
            return text
                .and_then(time::parse)
                .ok_or_else(|| Bad::bad_timestamp(name));
        }
        let millis = self.record.timestamp_ms.ok_or_else(Bad::no_timestamp)?;
        time::from_millis(millis).ok_or_else(Bad::bad_log_timestamp)
    }

    fn correlation_id(&self) -> Result<Option<String>, Bad> {
        let id = match self.text(self.dialect.correlation)? {
            None => as_text(self.header(CORRELATION_HEADER))?,
            in_envelope => in_envelope,
        };
        id.map(|(name, id)| check_id(id, || name.to_owned()).map(str::to_owned))
            .transpose()
    }

    /// The first of these names of the envelope that says something, and what, if it is text.
    fn given(&self, names: &[&'static str]) -> Option<(&'static str, Option<&str>)> {
        names.iter().find_map(|name| {
            if self.dialect.binary {
                return self.header(name);
            }
            let value = self.body.as_ref().ok()?.get(name)?;
            (!is_blank(value)).then(|| (*name, value.as_str()))
        })
    }

    fn text(&self, names: &[&'static str]) -> Result<Option<(&'static str, &str)>, Bad> {
        as_text(self.given(names))
    }

    /// The last header of a name, if it says something, and what, if it is text.
    fn header(&self, name: &'static str) -> Option<(&'static str, Option<&str>)> {
        let mut headers = self.record.headers.iter().rev();
        let (_, value) = headers.find(|(header, _)| header == name)?;
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some((name, std::str::from_utf8(value).ok()))
    }
}

/// The first of a type's own times that a payload has.
fn own_time(event_type: EventType, fields: &Fields<'_>) -> Result<Option<DateTime<Utc>>, Bad> {
    let mut names = event_type.time_fields().iter();
    let found = names.find_map(|name| Some((*name, fields.given(name)?)));
    let time = found.map(|(name, value)| {
        let time = value.as_str().and_then(time::parse);
        time.ok_or_else(|| Bad::bad_timestamp(name))
    });
    time.transpose()
}

fn as_text<'a>(
    given: Option<(&'static str, Option<&'a str>)>,
) -> Result<Option<(&'static str, &'a str)>, Bad> {
    match given {
        None => Ok(None),
        Some((name, Some(text))) => Ok(Some((name, text))),
        Some((name, None)) => Err(Bad::wrong_type(name)),
    }
}

/// Parses a value. Depth is counted beforehand, for serde_json's own limit is another one and
/// what it builds is walked by recursion later on.
fn parse(bytes: &[u8]) -> Result<Value, Bad> {
    if deeper_than(bytes, MAX_DEPTH) {
        return Err(Bad::too_deep());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.disable_recursion_limit();
    let value = Value::deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            // serde_json tells this one from a syntax error by its message alone.
            if error.to_string().starts_with("number out of range") {
                Bad::number_out_of_range()
            } else {
                Bad::not_json()
            }
        })
}

/// Whether JSON opens more than `max` arrays and objects within each other. Exact for JSON, and
/// never less than what a parser enters before it refuses what is not.
fn deeper_than(bytes: &[u8], max: usize) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Reads a type in any spelling: `UserRegistered`, with or without `Event`, with or without a
/// version (`V1` or `.v1`), in CloudEvents behind a reverse-DNS prefix. Gives type and version.
fn spelled(written: &str, cloud_events: bool) -> Option<(EventType, &str)> {
    let dotted = written
        .rsplit_once(".v")
        .filter(|(_, digits)| is_version(digits));
    let (name, version) = match dotted {
        Some((name, digits)) => (name, Some(digits)),
        None => (written, None),
    };
    let name = match name.rsplit_once('.') {
        Some((prefix, name)) if cloud_events && is_reverse_dns(prefix) => name,
        _ => name,
    };
    let of_name = |name: &str| EventType::from_name(name.strip_suffix("Event").unwrap_or(name));
    match (of_name(name), version) {
        (Some(event_type), version) => Some((event_type, version.unwrap_or("1"))),
        (None, Some(_)) => None,
        (None, None) => {
            let (name, digits) = name.rsplit_once('V')?;
            is_version(digits).then_some(())?;
            Some((of_name(name)?, digits))
        }
    }
}

/// A positive integer without leading zeros.
fn is_version(digits: &str) -> bool {
    !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Labels of letters, digits, `-` and `_`, between dots.
fn is_reverse_dns(prefix: &str) -> bool {
    prefix.split('.').all(|label| {
        let of_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.bytes().all(of_label)
    })
}
