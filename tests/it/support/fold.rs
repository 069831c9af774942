//! The naive fold: what the answers and the books must be, one record after another, from the raw bytes.
//!
//! It shares no code with the program. [`Fold`] judges records for any domain (envelopes, types, bad records,
//! duplicates, parked keys, books), a [`View`] says which events it wants and folds them; [`Customers`] is the
//! order domain's.
//!
//! Where the contract leaves room, this is how it is read here:
//!
//! - A body that is not acceptable JSON as a whole (too deep or a number outside f64 anywhere in it, too) has no
//!   readable type, except where a header tells it. A body nested 128 deep is good, 129 is not.
//! - Only CloudEvents may prefix a type; elsewhere a prefixed name is a type nobody knows. So is one whose version
//!   is 0 or has a leading zero.
//! - Log time of a partition: its first record's timestamp; then each record, whatever becomes of it, moves it
//!   forward to its own timestamp, by at most a day. An event's age is measured between log times, its own being
//!   that after its record; at 90 days it is forgotten.
//! - A redelivered UserDeleted whose key is parked is a duplicate: it closes no letter, the key stays parked.
//! - UserRegistered leaves emailVerified alone where it brings the email that is held already and is not stale.
//!   An email that arrives while the held one is stale or absent sets it to false, the same text too.
//! - An address that only an Updated has told of is known: a later Added with a false flag unsets its default.
//! - The flags of an address say whether the view's default names it: never absent, but after a deletion.
//! - A fullAddress replaces every field but the type, those that an `updatedFields` beside it brings, too; nothing is
//!   stale after it, the type neither. One without a country has that of the Added around it.
//! - What UserDefaultAddressChanged names is named (updatedAt moves) also where it was the default before.
//! - After a soft deletion the addresses that were there (not the deleted ones) stay with id and country.

use super::broker::Record;
use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The catalogue: type, payload fields (`s` string, `b` boolean, `o` object, `a` array, `u` updatedFields; `?`
/// optional), own time fields after `@`.
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

/// Names that `updatedFields` may bring, all of them strings: (as written, as the view calls it).
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
const ADDRESS_FIELDS: &[(&str, &str)] = &[
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

/// An event that is good.
#[derive(Debug)]
pub struct Event {
    pub name: &'static str,
    pub id: String,
    pub occurred_at: DateTime<Utc>,
    payload: Map<String, Value>,
}

impl Event {
    /// A string of the payload; absent, null and empty are the same.
    pub fn text(&self, field: &str) -> Option<String> {
        text(self.payload.get(field)?)
    }

    pub fn flag(&self, field: &str) -> Option<bool> {
        self.payload.get(field)?.as_bool()
    }
}

/// What a field becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    To(Value),
    Cleared,
    Unknown,
}

/// A domain's side of the fold.
pub trait View {
    fn wants(&self, event: &str) -> bool;
    fn apply(&mut self, event: &Event);
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Applied,
    Duplicate,
    Skipped,
    DeadLettered,
}

/// The books of a partition, and its letters that are open.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Books {
    pub read: i64,
    pub applied: i64,
    pub duplicates: i64,
    pub skipped: i64,
    pub dead_lettered: i64,
    pub dead_letters: i64,
    pub parked_keys: i64,
}

/// A domain, folded.
pub struct Fold<V> {
    pub view: V,
    max_value_bytes: usize,
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Default)]
struct Partition {
    log_time: Option<i64>,
    /// Event id to the log time of its application.
    seen: HashMap<String, i64>,
    /// Parked key to its open letters.
    parked: HashMap<Vec<u8>, i64>,
    books: Books,
}

const DAY: i64 = 86_400_000;

impl<V: View> Fold<V> {
    pub fn new(view: V, max_value_bytes: usize) -> Fold<V> {
        Fold {
            view,
            max_value_bytes,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes the next record of its partition.
    pub fn take(&mut self, record: &Record) -> Verdict {
        let partition = self.partitions.entry(record.partition).or_default();
        let now = match partition.log_time {
            None => record.timestamp,
            Some(before) => record.timestamp.clamp(before, before + DAY),
        };
        partition.log_time = Some(now);
        let verdict = judge(partition, &mut self.view, self.max_value_bytes, record, now);
        let books = &mut partition.books;
        books.read += 1;
        match verdict {
            Verdict::Applied => books.applied += 1,
            Verdict::Duplicate => books.duplicates += 1,
            Verdict::Skipped => books.skipped += 1,
            Verdict::DeadLettered => {
                books.dead_lettered += 1;
                books.dead_letters += 1;
                if let Some(key) = &record.key {
                    *partition.parked.entry(key.clone()).or_default() += 1;
                }
            }
        }
        partition.books.parked_keys = partition.parked.len() as i64;
        verdict
    }

    /// The books of a partition.
    pub fn books(&self, partition: i32) -> Books {
        self.partitions
            .get(&partition)
            .map(|p| p.books.clone())
            .unwrap_or_default()
    }
}

fn judge<V: View>(
    partition: &mut Partition,
    view: &mut V,
    max_value_bytes: usize,
    record: &Record,
    now: i64,
) -> Verdict {
    let Some(value) = &record.value else {
        return Verdict::Skipped;
    };
    if value.len() > max_value_bytes {
        return Verdict::DeadLettered;
    }
    let envelope = Envelope::read(record, value);
    let Some(raw_type) = &envelope.event_type else {
        return Verdict::DeadLettered;
    };
    let Some(name) = known_type(raw_type, envelope.cloud) else {
        return Verdict::Skipped;
    };
    if !view.wants(name) {
        return Verdict::Skipped;
    }
    let event = decode(&envelope, name, record.timestamp);
    let good_deletion = name == "UserDeleted" && event.is_some();
    let parked = record
        .key
        .as_ref()
        .is_some_and(|key| partition.parked.contains_key(key));
    if parked && !good_deletion {
        return Verdict::DeadLettered;
    }
    let seen = envelope.id.as_ref().and_then(|id| partition.seen.get(id));
    if seen.is_some_and(|then| now - then < 90 * DAY) {
        return Verdict::Duplicate;
    }
    let Some(event) = event else {
        return Verdict::DeadLettered;
    };
    if parked {
        let key = record.key.as_ref().expect("a parked record has a key");
        partition.books.dead_letters -= partition.parked.remove(key).expect("parked");
    }
    partition.seen.insert(event.id.clone(), now);
    view.apply(&event);
    Verdict::Applied
}

/// The meaning of the four dialects.
struct Envelope {
    cloud: bool,
    event_type: Option<String>,
    /// A usable one, or none.
    id: Option<String>,
    time: Option<Value>,
    payload: Option<Value>,
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
        let body = parse(value);
        if let (Some(id), Some(event_type)) = (header("ce_id"), header("ce_type")) {
            return Envelope {
                cloud: true,
                event_type: string(event_type).filter(|t| !t.is_empty()),
                id: string(id).filter(|id| usable_id(id)),
                // Not text: a time, and a bad one.
                time: header("ce_time").map(|time| string(time).map_or(json!(0), Value::String)),
                payload: body,
            };
        }
        let body = match body {
            Some(Value::Object(body)) => body,
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
        Envelope {
            cloud,
            event_type: body.get(event_type).and_then(text),
            id: body
                .get(id)
                .and_then(Value::as_str)
                .filter(|id| usable_id(id))
                .map(str::to_owned),
            time: first(times),
            payload: first(payloads),
        }
    }
}

/// JSON within the limits; the last of duplicate names counts.
fn parse(bytes: &[u8]) -> Option<Value> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
        if depth > 128 {
            return None;
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.disable_recursion_limit();
    let value = serde::Deserialize::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// The catalogue's name for a type as written, in any spelling and version.
fn known_type(written: &str, cloud: bool) -> Option<&'static str> {
    let names = CATALOGUE
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|n| !n.is_empty());
    let is = |written: &str, name: &str| {
        let Some(rest) = written.strip_prefix(name) else {
            return false;
        };
        let rest = rest.strip_prefix("Event").unwrap_or(rest);
        let Some(version) = rest.strip_prefix('V').or_else(|| rest.strip_prefix(".v")) else {
            return rest.is_empty();
        };
        !version.starts_with('0')
            && !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_digit())
    };
    for name in names {
        let prefixes = written.match_indices('.').map(|(at, _)| &written[at + 1..]);
        if is(written, name) || cloud && prefixes.into_iter().any(|written| is(written, name)) {
            return Some(name);
        }
    }
    None
}

fn decode(envelope: &Envelope, name: &'static str, timestamp: i64) -> Option<Event> {
    let line = CATALOGUE
        .lines()
        .find(|line| line.split(' ').next() == Some(name))?;
    let (fields, times) = line.split_once(" @ ")?;
    let id = envelope.id.clone()?;
    let payload = envelope.payload.as_ref()?.as_object()?;
    for field in fields.split(' ').skip(1) {
        let (field, kind) = field.split_once(':')?;
        let value = payload.get(field).filter(|value| !empty(value));
        let good = match value {
            None => kind.ends_with('?'),
            Some(value) => match kind.trim_end_matches('?') {
                "s" => value
                    .as_str()
                    .is_some_and(|text| !field.ends_with("Id") || usable_id(text)),
                "b" => value.is_boolean(),
                "o" => value.is_object(),
                "a" => value.is_array(),
                "u" => value.is_array() || value.is_object(),
                _ => unreachable!("a kind of the catalogue"),
            },
        };
        if !good {
            return None;
        }
    }
    let own = times
        .split(' ')
        .find_map(|field| payload.get(field).filter(|value| !empty(value)));
    let occurred_at = match own.or(envelope.time.as_ref()) {
        Some(written) => time(written.as_str()?)?,
        None => DateTime::from_timestamp_millis(timestamp)?,
    };
    let event = Event {
        name,
        id,
        occurred_at,
        payload: payload.clone(),
    };
    // Named fields of the wrong type make the record bad for everybody who reads the type.
    let named = match name {
        "UserUpdated" => USER_FIELDS,
        "UserProfileUpdated" => PROFILE_FIELDS,
        "UserAddressUpdated" => ADDRESS_FIELDS,
        _ => &[],
    };
    for (field, change) in event.changes()? {
        let string = field == "addressType" || named.iter().any(|(written, _)| *written == field);
        if string && matches!(&change, Change::To(value) if !value.is_string()) {
            return None;
        }
    }
    event.full_address()?;
    Some(event)
}

impl Event {
    /// `updatedFields` in either shape; `None` where it has neither.
    pub fn changes(&self) -> Option<Vec<(String, Change)>> {
        let to = |value: &Value| {
            if empty(value) {
                Change::Cleared
            } else {
                Change::To(value.clone())
            }
        };
        let mut changes = Vec::new();
        // Elsewhere it is an unknown extra field.
        let has = matches!(
            self.name,
            "UserUpdated" | "UserProfileUpdated" | "UserAddressUpdated"
        );
        match self.payload.get("updatedFields").filter(|_| has) {
            None => {}
            Some(Value::Object(entries)) => {
                for (name, entry) in entries {
                    let change = match entry {
                        Value::Object(pair)
                            if !pair.is_empty()
                                && pair.keys().all(|k| k == "old" || k == "new") =>
                        {
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
                    let name = name.as_str()?;
                    let by_path = |values| {
                        name.split('.')
                            .try_fold(values, |at: &Value, step| at.get(step))
                    };
                    let value =
                        values.and_then(|values| values.get(name).or_else(|| by_path(values)));
                    changes.push((name.to_owned(), value.map_or(Change::Unknown, to)));
                }
            }
            Some(_) => return None,
        }
        Some(changes)
    }

    /// `fullAddress` by the view's names; the outer `None`: it is bad.
    fn full_address(&self) -> Option<Option<BTreeMap<&'static str, String>>> {
        let has = matches!(self.name, "UserAddressAdded" | "UserAddressUpdated");
        let address = self
            .payload
            .get("fullAddress")
            .filter(|address| has && !empty(address));
        let Some(address) = address else {
            return Some(None);
        };
        let mut fields = BTreeMap::new();
        for (written, name) in ADDRESS_FIELDS {
            if let Some(value) = address.get(*written).filter(|value| !empty(value)) {
                value.as_str()?;
                set(&mut fields, name, text(value));
            }
        }
        Some(Some(fields))
    }
}

/// Null and the empty string: as if it were not there.
fn empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn text(value: &Value) -> Option<String> {
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

fn set(fields: &mut BTreeMap<&'static str, String>, name: &'static str, value: Option<String>) {
    let value = value.map(|value| {
        if name == "country" {
            value.to_ascii_uppercase()
        } else {
            value
        }
    });
    match value {
        Some(value) => fields.insert(name, value),
        None => fields.remove(name),
    };
}

/// Values by the view's names, and which of them are stale.
#[derive(Default, Clone)]
struct Fields {
    values: BTreeMap<&'static str, String>,
    stale: BTreeSet<&'static str>,
}

impl Fields {
    fn change(&mut self, name: &'static str, change: &Change) {
        match change {
            Change::To(value) => {
                set(&mut self.values, name, text(value));
                self.stale.remove(name);
            }
            Change::Cleared => {
                self.values.remove(name);
                self.stale.remove(name);
            }
            Change::Unknown => {
                self.stale.insert(name);
            }
        }
    }

    fn into_json(self) -> Map<String, Value> {
        let mut json: Map<String, Value> = self
            .values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        json.insert("staleFields".into(), json!(self.stale));
        json
    }
}

/// The order domain's customers.
#[derive(Default)]
pub struct Customers {
    customers: BTreeMap<String, Customer>,
}

#[derive(Default, Clone)]
struct Customer {
    fields: Fields,
    email_verified: Option<bool>,
    registered_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    deleted: Option<Deletion>,
    /// Shipping, billing.
    defaults: [Option<String>; 2],
    addresses: BTreeMap<String, Address>,
    /// Deleted addresses: only an Added brings one back.
    gone: BTreeSet<String>,
}

#[derive(Clone, Copy)]
struct Deletion {
    at: DateTime<Utc>,
    hard: bool,
}

#[derive(Default, Clone)]
struct Address {
    fields: Fields,
    updated_at: DateTime<Utc>,
}

const DEFAULT_IDS: [&str; 2] = ["defaultShippingAddressId", "defaultBillingAddressId"];
const DEFAULT_FLAGS: [&str; 2] = ["isDefaultShipping", "isDefaultBilling"];

impl View for Customers {
    fn wants(&self, event: &str) -> bool {
        matches!(
            event,
            "UserRegistered"
                | "UserEmailVerified"
                | "UserAccountStatusChanged"
                | "UserUpdated"
                | "UserDeleted"
                | "UserProfileUpdated"
                | "UserAddressAdded"
                | "UserAddressUpdated"
                | "UserAddressDeleted"
                | "UserProfileDefaultAddressChanged"
        )
    }

    fn apply(&mut self, event: &Event) {
        let user = event
            .text("userId")
            .expect("every event of interest has one");
        self.customers.entry(user).or_default().apply(event);
    }
}

impl Customers {
    /// The ids of everybody heard of.
    pub fn ids(&self) -> Vec<String> {
        self.customers.keys().cloned().collect()
    }

    /// The answer to `GET /v1/order/customers/{userId}`.
    pub fn answer(&self, user: &str) -> Option<Value> {
        self.customers
            .get(user)
            .map(|customer| customer.clone().into_json(user))
    }
}

impl Customer {
    fn apply(&mut self, event: &Event) {
        let at = event.occurred_at;
        let hard = event.text("deletionType").as_deref() == Some("hard");
        if let Some(deletion) = &mut self.deleted {
            if event.name == "UserDeleted" && hard && !deletion.hard {
                deletion.hard = true;
                self.addresses.clear();
                self.updated_at = at;
            }
            return;
        }
        self.updated_at = at;
        let address = event.text("addressId");
        let changes = event.changes().expect("good");
        match event.name {
            "UserRegistered" => {
                self.email(event.text("email"));
                for name in ["username", "firstName", "lastName", "status"] {
                    if let Some(value) = event.text(name) {
                        self.fields.change(name, &Change::To(json!(value)));
                    }
                }
                self.registered_at.get_or_insert(at);
            }
            "UserEmailVerified" => {
                self.email(event.text("email"));
                self.email_verified = Some(true);
            }
            "UserAccountStatusChanged" => {
                self.fields
                    .change("status", &Change::To(json!(event.text("newStatus"))));
            }
            "UserUpdated" => {
                for (name, change) in &changes {
                    match (name.as_str(), change) {
                        ("username", change) => self.fields.change("username", change),
                        ("email", Change::To(value)) => self.email(text(value)),
                        ("email", change) => {
                            self.fields.change("email", change);
                            self.email_verified = None;
                        }
                        _ => {}
                    }
                }
            }
            "UserProfileUpdated" => {
                for (name, change) in &changes {
                    let ours = ["firstName", "lastName", "displayName", "phoneNumber"];
                    if let Some(name) = ours.into_iter().find(|ours| ours == name) {
                        self.fields.change(name, change);
                    }
                }
            }
            "UserAddressAdded" => self.added(event, address.expect("required")),
            "UserAddressUpdated" => self.updated(event, address.expect("required"), &changes),
            "UserAddressDeleted" => {
                let id = address.expect("required");
                self.addresses.remove(&id);
                for default in &mut self.defaults {
                    default.take_if(|default| *default == id);
                }
                self.gone.insert(id);
            }
            "UserProfileDefaultAddressChanged" => {
                for (kind, name) in DEFAULT_IDS.iter().enumerate() {
                    if let Some(id) = event.text(name) {
                        self.make_default(kind, &id, at);
                    }
                }
            }
            "UserDeleted" => {
                let email_less = Fields {
                    values: BTreeMap::from([("status", "deleted".to_owned())]),
                    stale: BTreeSet::new(),
                };
                *self = Customer {
                    fields: email_less,
                    registered_at: self.registered_at,
                    updated_at: at,
                    deleted: Some(Deletion { at, hard }),
                    addresses: if hard {
                        BTreeMap::new()
                    } else {
                        std::mem::take(&mut self.addresses)
                    },
                    ..Customer::default()
                };
            }
            other => unreachable!("{other} is not wanted"),
        }
    }

    fn email(&mut self, email: Option<String>) {
        let same = self.fields.values.get("email") == email.as_ref()
            && !self.fields.stale.contains("email");
        if !same {
            self.email_verified = Some(false);
        }
        self.fields.change("email", &Change::To(json!(email)));
    }

    fn added(&mut self, event: &Event, id: String) {
        let at = event.occurred_at;
        let known = self.addresses.contains_key(&id);
        let mut fields = Fields {
            values: event.full_address().expect("good").unwrap_or_default(),
            ..Fields::default()
        };
        if !fields.values.contains_key("country") {
            set(&mut fields.values, "country", event.text("country"));
        }
        set(&mut fields.values, "type", event.text("addressType"));
        self.gone.remove(&id);
        self.addresses.insert(
            id.clone(),
            Address {
                fields,
                updated_at: at,
            },
        );
        for (kind, name) in DEFAULT_FLAGS.iter().enumerate() {
            let named = self.defaults[kind].as_ref() == Some(&id);
            if event.flag(name) == Some(true) {
                self.make_default(kind, &id, at);
            } else if named && known {
                self.defaults[kind] = None;
            }
        }
    }

    fn updated(&mut self, event: &Event, id: String, changes: &[(String, Change)]) {
        if self.gone.contains(&id) {
            return;
        }
        let address = self.addresses.entry(id).or_default();
        address.updated_at = event.occurred_at;
        for (written, change) in changes {
            if written == "addressType" {
                address.fields.change("type", change);
            }
            if let Some((_, name)) = ADDRESS_FIELDS
                .iter()
                .find(|(spelling, _)| spelling == written)
            {
                address.fields.change(name, change);
            }
        }
        if let Some(mut whole) = event.full_address().expect("good") {
            set(&mut whole, "type", address.fields.values.remove("type"));
            address.fields = Fields {
                values: whole,
                stale: BTreeSet::new(),
            };
        }
    }

    fn make_default(&mut self, kind: usize, id: &str, at: DateTime<Utc>) {
        let former = self.defaults[kind].replace(id.to_owned());
        for id in former.iter().map(String::as_str).chain([id]) {
            if let Some(address) = self.addresses.get_mut(id) {
                address.updated_at = at;
            }
        }
    }

    fn into_json(self, user: &str) -> Value {
        let instant = |at: DateTime<Utc>| json!(at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        let mut json = self.fields.into_json();
        json.insert("userId".into(), json!(user));
        json.insert("updatedAt".into(), instant(self.updated_at));
        if let Some(verified) = self.email_verified {
            json.insert("emailVerified".into(), json!(verified));
        }
        if let Some(at) = self.registered_at {
            json.insert("registeredAt".into(), instant(at));
        }
        if let Some(deletion) = self.deleted {
            json.insert("deletedAt".into(), instant(deletion.at));
        }
        for (name, id) in DEFAULT_IDS.into_iter().zip(&self.defaults) {
            if let Some(id) = id {
                json.insert(name.into(), json!(id));
            }
        }
        let addresses = self.addresses.into_iter().map(|(id, address)| {
            if self.deleted.is_some() {
                let mut left = json!({"addressId": id, "staleFields": []});
                if let Some(country) = address.fields.values.get("country") {
                    left["country"] = json!(country);
                }
                return left;
            }
            let mut json = address.fields.into_json();
            json.insert("updatedAt".into(), instant(address.updated_at));
            for (flag, default) in DEFAULT_FLAGS.into_iter().zip(&self.defaults) {
                json.insert(flag.into(), json!(default.as_ref() == Some(&id)));
            }
            json.insert("addressId".into(), json!(id));
            Value::Object(json)
        });
        let addresses: Vec<Value> = addresses.collect();
        json.insert("addresses".into(), Value::Array(addresses));
        Value::Object(json)
    }
}

/// The same answer in one form: times as written here, `staleFields` sorted, addresses by id.
pub fn normal(mut answer: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    match value {
                        Value::String(written)
                            if name.ends_with("At") && written.ends_with('Z') =>
                        {
                            if let Ok(at) = DateTime::parse_from_rfc3339(written) {
                                *written = at.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true);
                            }
                        }
                        Value::Array(items) if name == "staleFields" || name == "addresses" => {
                            items.sort_by_key(|item| {
                                item.get("addressId").unwrap_or(item).to_string()
                            });
                            items.iter_mut().for_each(walk);
                        }
                        value => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut answer);
    answer
}
