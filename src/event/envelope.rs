//! An event as it is read: the type first, then the id, then the whole [`Event`].

use chrono::{DateTime, Utc};

use super::bad::Bad;
use super::catalogue::{EventType, Payload};
use super::dialect::EnvelopeParts;
use super::fields::Fields;
use super::record::Record;
use super::text::without_nul;
use super::time;
use super::type_name::{self, TypeName};
use super::versions::{self, UPCASTERS, Upcaster};

/// What a record means, in the catalogue's terms.
///
/// Holds personal data: its `Debug` output is for tests, not for logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The event id: opaque, 1 to 255 characters.
    pub id: String,
    /// The type; `None` if the catalogue does not have it.
    pub event_type: Option<EventType>,
    /// The type as the record has it, with version and prefix.
    pub type_name: String,
    /// The version as the record has it, `"1"` if it has none; `None` for an unknown type. The
    /// payload is in the current version's form in any case.
    pub version: Option<String>,
    /// When it happened, to the microsecond.
    pub occurred_at: DateTime<Utc>,
    /// The correlation id, if the producer sets one.
    pub correlation_id: Option<String>,
    /// The service that published the event, if the envelope names it.
    pub source: Option<String>,
    /// What happened.
    pub payload: Payload,
}

impl Event {
    /// The id of the user whom the event is about; `None` if its type is about no user. For a
    /// failed login, the user whose account was tried, if the event has it.
    pub fn user_id(&self) -> Option<&str> {
        self.payload.user_id()
    }
}

/// A record whose type is read. Id and payload are read when they are asked for.
pub struct Envelope<'r> {
    parts: EnvelopeParts<'r>,
    event_type: TypeName,
    /// The type as the record has it, with NUL replaced.
    type_text: String,
    /// The version as the record has it, `"1"` if it has none; `None` for an unknown type.
    version: Option<String>,
}

impl<'r> Envelope<'r> {
    /// Finds the dialect and reads the type.
    ///
    /// # Errors
    /// The record has no type, or the type is not a string. Also, unless the type is in a header:
    /// the value is not JSON.
    pub fn read(record: &'r Record) -> Result<Self, Bad> {
        let parts = EnvelopeParts::of(record)?;
        let type_text = without_nul(parts.event_type()?).into_owned();
        let (event_type, version) = match type_name::parse(&type_text, parts.is_cloud_event()) {
            Some((event_type, digits)) => {
                let version = digits.parse().unwrap_or(u32::MAX);
                let known = TypeName::Known {
                    event_type,
                    version,
                };
                (known, Some(digits.to_owned()))
            }
            None => {
                let name = type_text.clone();
                (TypeName::Unknown { name }, None)
            }
        };
        Ok(Self {
            parts,
            event_type,
            type_text,
            version,
        })
    }

    /// The type.
    pub fn event_type(&self) -> &TypeName {
        &self.event_type
    }

    /// The event id.
    ///
    /// # Errors
    /// The record has no event id, or the id is not a valid one.
    pub fn event_id(&self) -> Result<&str, Bad> {
        self.parts.event_id()
    }

    /// Reads the whole event.
    ///
    /// # Errors
    /// The record is a data error by the rules of `docs/events.md`.
    pub fn decode(&self) -> Result<Event, Bad> {
        self.decode_with(UPCASTERS)
    }

    /// [`Self::decode`] with other upcasters, so that tests can add a version.
    pub(super) fn decode_with(&self, upcasters: &[Upcaster]) -> Result<Event, Bad> {
        let id = self.parts.event_id()?.to_owned();
        // An unknown type's payload is not read, but the value must be JSON within the limits.
        self.parts.check_json()?;
        let correlation_id = self.parts.correlation_id()?.map(str::to_owned);
        let source = self.parts.source()?;
        let source = source.map(|source| without_nul(source).into_owned());
        let (event_type, payload, own_time) = match self.event_type {
            TypeName::Known {
                event_type,
                version,
            } => {
                let (payload, own_time) = self.payload(event_type, version, upcasters)?;
                (Some(event_type), payload, own_time)
            }
            TypeName::Unknown { .. } => (None, Payload::Unknown, None),
        };
        let occurred_at = match own_time {
            Some(time) => time,
            None => self.parts.time()?,
        };
        Ok(Event {
            id,
            event_type,
            type_name: self.type_text.clone(),
            version: self.version.clone(),
            occurred_at,
            correlation_id,
            source,
            payload,
        })
    }

    /// Reads the payload of a known type, and its own time if it has one.
    fn payload(
        &self,
        event_type: EventType,
        version: u32,
        upcasters: &[Upcaster],
    ) -> Result<(Payload, Option<DateTime<Utc>>), Bad> {
        let version = versions::find(event_type, version, upcasters);
        let read = || {
            let payload = self.parts.payload()?;
            let current = version.upcast(&payload);
            let fields = Fields::of_payload(&current);
            let payload = Payload::read(event_type, &fields)?;
            Ok((payload, own_time(event_type, &fields)?))
        };
        read().map_err(|bad: Bad| {
            if !version.is_known() && bad.may_be_another_version() {
                bad.unsupported_version()
            } else {
                bad
            }
        })
    }

    /// When the event happened, where that can be read, even if the event is bad.
    pub fn occurred_at(&self) -> Option<DateTime<Utc>> {
        let own_time = match self.event_type {
            TypeName::Known { event_type, .. } => {
                let payload = self.parts.payload().ok();
                payload.map(|payload| own_time(event_type, &Fields::of_payload(&payload)))
            }
            TypeName::Unknown { .. } => None,
        };
        match own_time {
            Some(Ok(Some(time))) => Some(time),
            Some(Err(_)) => None,
            Some(Ok(None)) | None => self.parts.time().ok(),
        }
    }
}

/// The first of the type's own times that the payload gives.
fn own_time(event_type: EventType, fields: &Fields<'_>) -> Result<Option<DateTime<Utc>>, Bad> {
    let mut names = event_type.time_fields().iter();
    let found = names.find_map(|name| Some((*name, fields.given(name)?)));
    let time = found.map(|(name, value)| {
        let time = value.as_str().and_then(time::parse);
        time.ok_or_else(|| Bad::bad_timestamp(name))
    });
    time.transpose()
}
