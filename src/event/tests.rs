//! Tests of reading events: examples, and properties of generated records.

mod captured;
mod changes;
mod envelopes;
mod payloads;
mod properties;
mod times;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Bad, Changes, Envelope, Event, EventType, Payload, Record};

/// 2026-10-01T12:00:00Z, the Kafka timestamp of the records in these tests.
const KAFKA_TIME_MS: i64 = 1_790_856_000_000;

/// The catalogue of `docs/events.md`, written independently of `catalogue.rs`: `s` string, `b`
/// boolean, `t` own time, `o` object, `a` array, `u` updatedFields, `c` country, `?` optional.
const CATALOGUE: [(&str, &str); 27] = [
    (
        "UserRegistered",
        "userId s, email s, username s?, firstName s?, lastName s?, status s, source s?, \
         registrationTimestamp t, registeredAt t",
    ),
    (
        "UserEmailVerified",
        "userId s, email s, verificationTimestamp t",
    ),
    (
        "UserPasswordChanged",
        "userId s, changeType s, changeTimestamp t",
    ),
    (
        "UserPasswordResetRequested",
        "userId s, email s, resetTokenIdentifier s?, requestTimestamp t",
    ),
    (
        "UserAccountStatusChanged",
        "userId s, newStatus s, previousStatus s, reason s?, changedBy s?, changeTimestamp t",
    ),
    (
        "UserUpdated",
        "userId s, updatedFields u, newValues o?, updateTimestamp t",
    ),
    (
        "UserDeleted",
        "userId s, email s?, deletionType s?, anonymized b?, deletionTimestamp t",
    ),
    (
        "UserProfileUpdated",
        "userId s, profileId s, updatedFields u, newValues o?, updateTimestamp t",
    ),
    (
        "UserAddressAdded",
        "userId s, profileId s, addressId s, addressType s, isDefaultShipping b, \
         isDefaultBilling b, country c, fullAddress o?, addTimestamp t",
    ),
    (
        "UserAddressUpdated",
        "userId s, profileId s, addressId s, updatedFields u, newValues o?, fullAddress o?, \
         updateTimestamp t",
    ),
    (
        "UserAddressDeleted",
        "userId s, profileId s, addressId s, deleteTimestamp t",
    ),
    (
        "UserProfileDefaultAddressChanged",
        "userId s, profileId s, defaultShippingAddressId s?, defaultBillingAddressId s?, \
         changeTimestamp t",
    ),
    (
        "UserLoggedIn",
        "userId s, sessionId s?, ipAddress s?, userAgent s?, mfaVerified b?, loginTimestamp t",
    ),
    (
        "UserLoginFailed",
        "attemptedEmail s?, attemptedUsername s?, attemptedUserId s?, reason s, ipAddress s?, \
         userAgent s?, failureTimestamp t",
    ),
    (
        "UserLoggedOut",
        "userId s, sessionId s?, revokedTokenJtis a?, logoutTimestamp t",
    ),
    (
        "MfaStatusChanged",
        "userId s, mfaEnabled b, mfaMethod s?, changedBy s?, changeTimestamp t",
    ),
    (
        "MfaChallengeFailed",
        "userId s, mfaMethod s?, ipAddress s?, userAgent s?, failureTimestamp t",
    ),
    (
        "RoleCreated",
        "roleId s, roleName s, description s?, createdBy s, initialPermissionIds a?, \
         creationTimestamp t",
    ),
    (
        "RoleUpdated",
        "roleId s, updatedFields u, oldValues o?, newValues o, updatedBy s, updateTimestamp t",
    ),
    (
        "RoleDeleted",
        "roleId s, roleName s, deletedBy s, deletionTimestamp t",
    ),
    (
        "UserRoleAssigned",
        "userId s, roleId s, roleName s, assignedBy s, assignmentTimestamp t",
    ),
    (
        "UserRoleRemoved",
        "userId s, roleId s, roleName s, removedBy s, removalTimestamp t",
    ),
    (
        "PermissionCreated",
        "permissionId s, permissionName s, action s?, subject s?, description s?, createdBy s, \
         creationTimestamp t",
    ),
    (
        "PermissionUpdated",
        "permissionId s, updatedFields u, oldValues o?, newValues o, updatedBy s, \
         updateTimestamp t",
    ),
    (
        "PermissionDeleted",
        "permissionId s, permissionName s, deletedBy s, deletionTimestamp t",
    ),
    (
        "PermissionAssignedToRole",
        "roleId s, permissionId s, permissionName s, assignedBy s, assignmentTimestamp t",
    ),
    (
        "PermissionRemovedFromRole",
        "roleId s, permissionId s, permissionName s, removedBy s, removalTimestamp t",
    ),
];

/// A field of [`CATALOGUE`]. `kind` is its letter there.
#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    kind: char,
    required: bool,
}

fn fields(type_name: &str) -> Vec<Field> {
    let (_, fields) = CATALOGUE
        .iter()
        .find(|(name, _)| *name == type_name)
        .unwrap();
    let fields = fields.split(',').map(|field| {
        let (name, kind) = field.trim().split_once(' ').unwrap();
        let kind_char = kind.chars().next().unwrap();
        Field {
            name,
            kind: kind_char,
            required: kind_char != 't' && !kind.ends_with('?'),
        }
    });
    fields.collect()
}

/// The parts of an address and their spellings, as `docs/events.md` lists them.
const ADDRESS: [&[&str]; 10] = [
    &["streetLine1", "addressLine1"],
    &["streetLine2", "addressLine2"],
    &["city"],
    &["stateOrProvince", "state", "province"],
    &["postalCode", "zipCode"],
    &["country", "countryCode"],
    &["contactName", "recipientName"],
    &["contactPhone", "phone"],
    &["companyName"],
    &["additionalNotes"],
];

/// A payload with every field of the type except its own times, each with a different value.
fn full_payload(type_name: &str) -> Map<String, Value> {
    let mut payload = Map::new();
    for (i, field) in fields(type_name).into_iter().enumerate() {
        let value = match (field.kind, field.name) {
            ('s', "deletionType") => json!("hard"),
            ('s', name) => json!(format!("{name}-{i}")),
            ('c', _) => json!("DE"),
            ('b', _) => json!(i % 2 == 0),
            ('o', "fullAddress") => json!({"city": "Bonn"}),
            ('o', _) => json!({}),
            ('a', _) => json!(["x-1", "x-2"]),
            ('u', _) => json!(["description"]),
            _ => continue,
        };
        payload.insert(field.name.to_owned(), value);
    }
    payload
}

fn record_of(value: impl Into<Bytes>) -> Record {
    Record {
        topic: Arc::from("user.events"),
        partition: 3,
        offset: 41,
        timestamp_ms: Some(KAFKA_TIME_MS),
        key: None,
        headers: Vec::new(),
        value: Some(value.into()),
    }
}

fn record(value: &Value) -> Record {
    record_of(serde_json::to_vec(value).unwrap())
}

fn with_headers(mut record: Record, headers: &[(&str, &[u8])]) -> Record {
    record.headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Some(Bytes::copy_from_slice(value))))
        .collect();
    record
}

fn decode(record: &Record) -> Result<Event, Bad> {
    Envelope::read(record)?.decode()
}

/// An event in the original envelope, without times.
fn event(type_name: &str, payload: impl Into<Value>) -> Value {
    json!({"eventId": "e-1", "eventType": type_name, "payload": payload.into()})
}

fn decode_payload(type_name: &str, payload: impl Into<Value>) -> Result<Event, Bad> {
    decode(&record(&event(type_name, payload)))
}

/// The reason and the field of a bad record; the field is empty where the whole record is bad.
fn reason_and_field(result: Result<Event, Bad>) -> (&'static str, String) {
    let bad = result.expect_err("a bad record");
    (bad.reason, bad.field.unwrap_or_default())
}

fn changes_of(payload: &Payload) -> Option<&Changes> {
    match payload {
        Payload::UserUpdated(p) => Some(&p.changes),
        Payload::UserProfileUpdated(p) => Some(&p.changes),
        Payload::UserAddressUpdated(p) => Some(&p.changes),
        Payload::RoleUpdated(p) => Some(&p.changes),
        Payload::PermissionUpdated(p) => Some(&p.changes),
        _ => None,
    }
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn type_of(name: &str) -> EventType {
    EventType::from_name(name).unwrap()
}

fn with(mut payload: Map<String, Value>, name: &str, value: Value) -> Map<String, Value> {
    payload.insert(name.to_owned(), value);
    payload
}

fn without(mut payload: Map<String, Value>, name: &str) -> Map<String, Value> {
    payload.remove(name);
    payload
}
