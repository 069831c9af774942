//! Reads records: what is put around them, the five envelopes, the catalogue of types, and whether an event is good.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Datelike, Timelike, Utc};
use serde_json::{Map, Value, json};

use super::fields::set;
use super::json::{Json, parse};
use crate::broker::Record;

/// The catalogue, one type per line: its name; its payload fields (`s` string, `b` boolean, `o` object, `a`
/// array, `u` updatedFields; `?` optional); its own time fields after `@`.
const CATALOGUE: &str = "
UserRegistered userId:s email:s username:s? firstName:s? lastName:s? status:s source:s? @ registrationTimestamp registeredAt
UserEmailVerified userId:s email:s @ verificationTimestamp
UserPasswordChanged userId:s changeType:s @ changeTimestamp
UserPasswordResetRequested userId:s email:s resetTokenIdentifier:s? @ requestTimestamp
UserAccountStatusChanged userId:s newStatus:s previousStatus:s reason:s? changedBy:s? @ changeTimestamp
UserUpdated userId:s updatedFields:u @ updateTimestamp
UserDeleted userId:s email:s? deletionType:s? anonymized:b? @ deletionTimestamp
UserProfileUpdated userId:s profileId:s updatedFields:u @ updateTimestamp
UserAddressAdded userId:s profileId:s addressId:s addressType:s isDefaultShipping:b isDefaultBilling:b country:s fullAddress:o? @ addTimestamp
UserAddressUpdated userId:s profileId:s addressId:s updatedFields:u fullAddress:o? @ updateTimestamp
UserAddressDeleted userId:s profileId:s addressId:s @ deleteTimestamp
UserProfileDefaultAddressChanged userId:s profileId:s defaultShippingAddressId:s? defaultBillingAddressId:s? @ changeTimestamp
UserLoggedIn userId:s sessionId:s? ipAddress:s? userAgent:s? mfaVerified:b? @ loginTimestamp
UserLoginFailed attemptedEmail:s? attemptedUsername:s? attemptedUserId:s? reason:s ipAddress:s? userAgent:s? @ failureTimestamp
UserLoggedOut userId:s sessionId:s? revokedTokenJtis:a? @ logoutTimestamp
MfaStatusChanged userId:s mfaEnabled:b mfaMethod:s? changedBy:s? @ changeTimestamp
MfaChallengeFailed userId:s mfaMethod:s? ipAddress:s? userAgent:s? @ failureTimestamp
RoleCreated roleId:s roleName:s description:s? createdBy:s initialPermissionIds:a? @ creationTimestamp
RoleUpdated roleId:s updatedFields:u oldValues:o? newValues:o updatedBy:s @ updateTimestamp
RoleDeleted roleId:s roleName:s deletedBy:s @ deletionTimestamp
UserRoleAssigned userId:s roleId:s roleName:s assignedBy:s @ assignmentTimestamp
UserRoleRemoved userId:s roleId:s roleName:s removedBy:s @ removalTimestamp
PermissionCreated permissionId:s permissionName:s action:s? subject:s? description:s? createdBy:s @ creationTimestamp
PermissionUpdated permissionId:s updatedFields:u oldValues:o? newValues:o updatedBy:s @ updateTimestamp
PermissionDeleted permissionId:s permissionName:s deletedBy:s @ deletionTimestamp
PermissionAssignedToRole roleId:s permissionId:s permissionName:s assignedBy:s @ assignmentTimestamp
PermissionRemovedFromRole roleId:s permissionId:s permissionName:s removedBy:s @ removalTimestamp
";

/// A type of the catalogue.
struct EventType {
    name: &'static str,
    /// Payload fields and their kinds.
    fields: Vec<(&'static str, &'static str)>,
    own_times: Vec<&'static str>,
}

fn catalogue() -> &'static [EventType] {
    static TYPES: OnceLock<Vec<EventType>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let parse = |line: &'static str| {
            let (fields, own_times) = line.split_once(" @ ").expect("a line with own times");
            let (name, fields) = fields.split_once(' ').expect("a type with fields");
            let field = |field: &'static str| field.split_once(':').expect("a field with a kind");
            EventType {
                name,
                fields: fields.split(' ').map(field).collect(),
                own_times: own_times.split(' ').collect(),
            }
        };
        CATALOGUE.trim().lines().map(parse).collect()
    })
}

/// Names in `updatedFields` whose values are strings: (name in the event, name in the view).
const USER_FIELDS: &[(&str, &str)] = &[
    ("username", "username"),
    ("email", "email"),
    ("secondaryEmail", "secondaryEmail"),
];
const PROFILE_FIELDS: &[(&str, &str)] = &[
    ("firstName", "firstName"),
    ("lastName", "lastName"),
    ("displayName", "displayName"),
    ("phoneNumber", "phoneNumber"),
    ("bio", "bio"),
    ("profilePictureUrl", "profilePictureUrl"),
    ("languagePreference", "languagePreference"),
    ("timezonePreference", "timezonePreference"),
    ("dateOfBirth", "dateOfBirth"),
    ("gender", "gender"),
];
/// Names in `updatedFields` of UserProfileUpdated whose values are objects, and below which dotted names lead.
pub const OBJECTS: [&str; 2] = ["preferences", "communicationPreferences"];
const ROLE_FIELDS: &[(&str, &str)] = &[("roleName", "roleName"), ("description", "description")];
const PERMISSION_FIELDS: &[(&str, &str)] = &[
    ("permissionName", "permissionName"),
    ("action", "action"),
    ("subject", "subject"),
    ("description", "description"),
];
pub const ADDRESS_FIELDS: &[(&str, &str)] = &[
    ("streetLine1", "streetLine1"),
    ("addressLine1", "streetLine1"),
    ("streetLine2", "streetLine2"),
    ("addressLine2", "streetLine2"),
    ("city", "city"),
    ("stateOrProvince", "stateOrProvince"),
    ("state", "stateOrProvince"),
    ("province", "stateOrProvince"),
    ("postalCode", "postalCode"),
    ("zipCode", "postalCode"),
    ("country", "country"),
    ("countryCode", "country"),
    ("contactName", "contactName"),
    ("recipientName", "contactName"),
    ("contactPhone", "contactPhone"),
    ("phone", "contactPhone"),
    ("companyName", "companyName"),
    ("additionalNotes", "additionalNotes"),
];

/// Stands for the name of every type that the catalogue does not have.
pub const UNKNOWN: &str = "";

/// A good event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The name of its type in the catalogue, or [`UNKNOWN`].
    pub name: &'static str,
    /// The type as it is written.
    pub written_type: String,
    /// The version as it is written, `1` if there is none; `None` for an unknown type.
    pub version: Option<String>,
    pub id: String,
    pub correlation_id: Option<String>,
    pub occurred_at: DateTime<Utc>,
    pub partition: i32,
    /// The index of its record in the partition, without holes; set by the fold that applies it.
    pub number: i64,
    /// Empty for an unknown type.
    payload: Map<String, Value>,
}

impl Event {
    /// A string of the payload. `None` if it is absent, null or empty.
    pub fn text(&self, field: &str) -> Option<String> {
        text(self.payload.get(field)?)
    }

    /// The same, of a field that the catalogue names for the type; others are ignored.
    pub fn known_text(&self, field: &str) -> Option<String> {
        let mut types = catalogue().iter();
        let of_type = types.find(|event_type| event_type.name == self.name)?;
        let is_known = of_type.fields.iter().any(|(name, _)| *name == field);
        self.text(field).filter(|_| is_known)
    }

    /// The user whom the event is about. `None` for a failed login that names none, for roles and permissions on their own,
    /// and for unknown types.
    pub fn user(&self) -> Option<String> {
        match self.name {
            "UserLoginFailed" => self.text("attemptedUserId"),
            _ => self.known_text("userId"),
        }
    }

    /// The permissions that a role is created with.
    pub fn initial_permissions(&self) -> Vec<String> {
        let ids = self.payload.get("initialPermissionIds");
        let ids = ids.and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(text).collect()
    }

    pub fn flag(&self, field: &str) -> Option<bool> {
        self.payload.get(field)?.as_bool()
    }
}

/// The new value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    To(Value),
    Cleared,
    Unknown,
}

/// A `fullAddress` with a field that is not a string.
#[derive(Debug)]
pub struct BadAddress;

/// The event of a record, if it is good.
pub fn event_of(record: &Record) -> Option<Event> {
    Content::of(record)?.event
}

/// What a record holds, the same for every domain.
pub struct Content {
    pub event_type: Type,
    /// `None` if the id is missing or not usable.
    pub id: Option<String>,
    /// The event, if it is good.
    pub event: Option<Event>,
}

/// An event's type.
pub enum Type {
    Unreadable,
    Unknown,
    Known(&'static str),
}

impl Content {
    /// Reads a record. `None` for a tombstone.
    pub fn of(record: &Record) -> Option<Content> {
        let envelope = Envelope::read(record, record.value.as_ref()?);
        let (event_type, event) = match &envelope.event_type {
            None => (Type::Unreadable, None),
            Some(written) => match known_type(written, envelope.cloud) {
                None => (Type::Unknown, unknown(&envelope, written, record)),
                Some((name, version)) => {
                    let event = decode(&envelope, name, written, version, record);
                    (Type::Known(name), event)
                }
            },
        };
        Some(Content {
            event_type,
            id: envelope.id,
            event,
        })
    }
}

/// What the five envelopes have in common.
struct Envelope {
    cloud: bool,
    event_type: Option<String>,
    /// `None` if the id is missing or not usable.
    id: Option<String>,
    time: Option<Value>,
    /// No text if it is not usable.
    correlation: Option<Value>,
    payload: Option<Value>,
    /// Whether the whole record, where it is JSON, is within the limits.
    within_limits: bool,
}

impl Envelope {
    fn read(record: &Record, value: &[u8]) -> Envelope {
        let header = |name: &str| {
            record
                .headers
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, v)| v)
        };
        let string = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
        let json = unwrapped(value);
        let within_limits = json.as_ref().is_some_and(|json| json.within_limits);
        let json = json.map(|json| json.value);
        // A header that is not text is a bad one, not a missing one.
        let value_of = |name: &str| {
            let bytes = header(name).filter(|bytes| !bytes.is_empty())?;
            Some(string(bytes).map_or(json!(0), Value::String))
        };
        let correlation = value_of("correlationId");
        let in_headers =
            |cloud, id: &Vec<u8>, event_type: &Vec<u8>, time, own: Option<Value>| Envelope {
                cloud,
                event_type: string(event_type).and_then(|written| text(&json!(written))),
                id: string(id).filter(|id| usable_id(id)),
                time,
                correlation: own.or_else(|| correlation.clone()),
                payload: json.clone(),
                within_limits,
            };
        if let (Some(id), Some(event_type)) = (header("ce_id"), header("ce_type")) {
            let time = header("ce_time").map(|time| string(time).map_or(json!(0), Value::String));
            return in_headers(true, id, event_type, time, value_of("ce_correlationid"));
        }
        let body = match &json {
            Some(Value::Object(body)) => body.clone(),
            _ => Map::new(),
        };
        let (cloud, event_type, id, times, payloads): (_, _, _, &[&str], &[&str]) =
            if body.contains_key("specversion") {
                (true, "type", "id", &["time"], &["data"])
            } else if body.contains_key("messageId") {
                (
                    false,
                    "messageType",
                    "messageId",
                    &["timestamp"],
                    &["payload"],
                )
            } else {
                let is_event = body.contains_key("eventId") || body.contains_key("eventType");
                if let (false, Some(id), Some(event_type)) =
                    (is_event, header("id"), header("eventType"))
                {
                    return in_headers(false, id, event_type, None, None);
                }
                (
                    false,
                    "eventType",
                    "eventId",
                    &["eventTimestamp", "timestamp"],
                    &["payload", "data"],
                )
            };
        let first = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| body.get(*name).filter(|v| !empty(v)).cloned())
        };
        let in_base64 = || {
            let bytes = BASE64_STANDARD.decode(body.get("data_base64")?.as_str()?);
            let json = parse(&bytes.ok()?).filter(|json| json.within_limits);
            json.filter(|_| cloud).map(|json| json.value)
        };
        Envelope {
            cloud,
            event_type: body.get(event_type).and_then(text),
            id: body
                .get(id)
                .and_then(Value::as_str)
                .filter(|id| usable_id(id))
                .map(str::to_owned),
            time: first(times),
            correlation: first(&[if cloud {
                "correlationid"
            } else {
                "correlationId"
            }])
            .or_else(|| correlation.clone()),
            payload: first(payloads).or_else(in_base64),
            within_limits,
        }
    }
}

/// The JSON in a value, without what serializers put around it.
fn unwrapped(value: &[u8]) -> Option<Json> {
    let value = match value.first() {
        Some(0) => value.get(5..)?,
        _ => value,
    };
    let value = value.strip_prefix("\u{feff}".as_bytes()).unwrap_or(value);
    let mut json = parse(value)?;
    if json.members.keys().eq(["payload", "schema"]) {
        json = parse(&value[json.members["payload"].clone()])?;
    }
    let inner = json.value.as_str().and_then(|text| {
        // A character that the outer string could not hold is one that the inner can't.
        parse(text.replace('\0', "\\u0000").as_bytes())
    });
    Some(
        inner
            .filter(|inner| inner.value.is_object())
            .unwrap_or(json),
    )
}

/// The name in the catalogue of a type in any spelling, and its version.
fn known_type(written: &str, cloud: bool) -> Option<(&'static str, String)> {
    let version = |written: &str, name: &str| {
        let rest = written.strip_prefix(name)?;
        let rest = rest.strip_prefix("Event").unwrap_or(rest);
        let Some(version) = rest.strip_prefix('V').or_else(|| rest.strip_prefix(".v")) else {
            return rest.is_empty().then(|| "1".to_owned());
        };
        let is_number = !version.starts_with('0')
            && !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| version.to_owned())
    };
    for EventType { name, .. } in catalogue() {
        let prefixes = written.match_indices('.').map(|(at, _)| &written[at + 1..]);
        let prefixes = prefixes.filter(|_| cloud);
        let mut spellings = std::iter::once(written).chain(prefixes);
        if let Some(version) = spellings.find_map(|written| version(written, name)) {
            return Some((name, version));
        }
    }
    None
}

/// The event in an envelope; `None` if it is bad.
fn decode(
    envelope: &Envelope,
    name: &'static str,
    written: &str,
    version: String,
    record: &Record,
) -> Option<Event> {
    let event_type = catalogue().iter().find(|known| known.name == name)?;
    if !envelope.within_limits {
        return None;
    }
    let id = envelope.id.clone()?;
    let payload = envelope.payload.as_ref()?.as_object()?;
    for (field, kind) in &event_type.fields {
        let value = payload.get(*field).filter(|value| !empty(value));
        let good = match value {
            None => kind.ends_with('?'),
            Some(value) => match kind.trim_end_matches('?') {
                "s" => value
                    .as_str()
                    .is_some_and(|text| !field.ends_with("Id") || usable_id(text)),
                "b" => value.is_boolean(),
                "o" => value.is_object(),
                "a" if *field == "initialPermissionIds" => value
                    .as_array()
                    .is_some_and(|ids| ids.iter().all(|id| id.as_str().is_some_and(usable_id))),
                "a" => value.is_array(),
                "u" => value.is_array() || value.is_object(),
                _ => unreachable!("a kind of the catalogue"),
            },
        };
        if !good {
            return None;
        }
    }
    let own = event_type
        .own_times
        .iter()
        .find_map(|field| payload.get(*field).filter(|value| !empty(value)));
    let event = Event {
        name,
        written_type: written.to_owned(),
        version: Some(version),
        id,
        correlation_id: envelope.correlation_id()?,
        occurred_at: occurred_at(own.or(envelope.time.as_ref()), record)?,
        partition: record.partition,
        number: 0,
        payload: payload.clone(),
    };
    // Known fields of the wrong JSON type make the record bad in every domain that reads the event type.
    let named = match name {
        "UserUpdated" => USER_FIELDS,
        "UserProfileUpdated" => PROFILE_FIELDS,
        "UserAddressUpdated" => ADDRESS_FIELDS,
        "RoleUpdated" => ROLE_FIELDS,
        "PermissionUpdated" => PERMISSION_FIELDS,
        _ => &[],
    };
    for (field, change) in event.changes()? {
        let string = field == "addressType" || named.iter().any(|(written, _)| *written == field);
        let object = name == "UserProfileUpdated" && OBJECTS.contains(&&*field);
        if let Change::To(value) = &change
            && (string && !value.is_string() || object && !value.is_object())
        {
            return None;
        }
    }
    event.full_address().ok()?;
    Some(event)
}

/// The event of a type that the catalogue does not have; `None` if it is bad. Its payload is not read.
fn unknown(envelope: &Envelope, written: &str, record: &Record) -> Option<Event> {
    Some(Event {
        name: UNKNOWN,
        written_type: written.to_owned(),
        version: None,
        id: envelope.id.clone().filter(|_| envelope.within_limits)?,
        correlation_id: envelope.correlation_id()?,
        occurred_at: occurred_at(envelope.time.as_ref(), record)?,
        partition: record.partition,
        number: 0,
        payload: Map::new(),
    })
}

/// When an event happened: the time that it says, else its record's; `None` if that is bad.
fn occurred_at(said: Option<&Value>, record: &Record) -> Option<DateTime<Utc>> {
    match said {
        Some(written) => time(written.as_str()?),
        None => DateTime::from_timestamp_millis(record.timestamp),
    }
}

impl Envelope {
    /// `None` if it is not usable.
    fn correlation_id(&self) -> Option<Option<String>> {
        let Some(id) = &self.correlation else {
            return Some(None);
        };
        let id = id.as_str().filter(|id| usable_id(id))?;
        Some(Some(id.to_owned()))
    }
}

impl Event {
    /// The value of a changed field before, as far as the event has it: beside the new one, and for roles and permissions also
    /// in `oldValues`.
    pub fn old(&self, field: &str) -> Option<Value> {
        let known = |value: &Value| !empty(value);
        let entry = self
            .payload
            .get("updatedFields")
            .and_then(|fields| fields.get(field));
        let entry = entry
            .and_then(Value::as_object)
            .filter(|pair| is_pair(pair));
        if let Some(old) = entry
            .and_then(|pair| pair.get("old"))
            .filter(|old| known(old))
        {
            return Some(readable(old));
        }
        let has = matches!(self.name, "RoleUpdated" | "PermissionUpdated");
        let values = self.payload.get("oldValues").filter(|_| has)?;
        by_name(values, field)
            .filter(|old| known(old))
            .map(readable)
    }

    /// The changes in `updatedFields`, in either shape; `None` if it has neither shape.
    pub fn changes(&self) -> Option<Vec<(String, Change)>> {
        let to = |value: &Value| {
            if empty(value) {
                Change::Cleared
            } else {
                Change::To(value.clone())
            }
        };
        let mut changes = Vec::new();
        // In other types it is an unknown field.
        let has = matches!(
            self.name,
            "UserUpdated"
                | "UserProfileUpdated"
                | "UserAddressUpdated"
                | "RoleUpdated"
                | "PermissionUpdated"
        );
        match self.payload.get("updatedFields").filter(|_| has) {
            None => {}
            Some(Value::Object(entries)) => {
                for (name, entry) in entries {
                    let change = match entry {
                        Value::Object(pair) if is_pair(pair) => {
                            pair.get("new").map_or(Change::Unknown, to)
                        }
                        value => to(value),
                    };
                    changes.push((name.clone(), change));
                }
            }
            Some(Value::Array(names)) => {
                let values = self
                    .payload
                    .get("newValues")
                    .filter(|values| !empty(values));
                if values.is_some_and(|values| !values.is_object()) {
                    return None;
                }
                for name in names {
                    let name = name.as_str()?.replace('\0', "\u{fffd}");
                    let value = values.and_then(|values| by_name(values, &name));
                    changes.push((name, value.map_or(Change::Unknown, to)));
                }
            }
            Some(_) => return None,
        }
        Some(changes)
    }

    /// `fullAddress` by the view's names, if the event has one.
    pub fn full_address(&self) -> Result<Option<BTreeMap<&'static str, String>>, BadAddress> {
        let has = matches!(self.name, "UserAddressAdded" | "UserAddressUpdated");
        let address = self
            .payload
            .get("fullAddress")
            .filter(|address| has && !empty(address));
        let Some(address) = address else {
            return Ok(None);
        };
        let mut fields = BTreeMap::new();
        for (written, name) in ADDRESS_FIELDS {
            if let Some(value) = address.get(*written).filter(|value| !empty(value)) {
                if !value.is_string() {
                    return Err(BadAddress);
                }
                set(&mut fields, name, text(value));
            }
        }
        Ok(Some(fields))
    }
}

/// Whether an entry of `updatedFields` has the value before, or after, or both.
fn is_pair(entry: &Map<String, Value>) -> bool {
    !entry.is_empty() && entry.keys().all(|key| key == "old" || key == "new")
}

/// The value with this name, else the one to which its dotted path leads.
fn by_name<'v>(values: &'v Value, name: &str) -> Option<&'v Value> {
    let by_path = || {
        name.split('.')
            .try_fold(values, |at: &Value, step| at.get(step))
    };
    values.get(name).or_else(by_path)
}

/// A value of an event, with what no string can hold replaced.
pub fn readable(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.iter().map(readable).collect(),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| (name.clone(), readable(value)));
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

/// Whether a value counts as absent: null and the empty string do.
fn empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

pub fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(|text| text.replace('\0', "\u{fffd}"))
}

fn usable_id(id: &str) -> bool {
    (1..=255).contains(&id.chars().count()) && !id.contains('\0')
}

fn time(written: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(written).ok()?.to_utc();
    let time = time.with_nanosecond(time.nanosecond() / 1_000 * 1_000)?;
    (1970..=2200).contains(&time.year()).then_some(time)
}
