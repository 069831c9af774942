//! The notification domain: what is to be sent to users, before any worker has leased it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::event::{Change, Event};
use super::fields::Fields;
use super::{View, instant};

/// The templates.
pub const TEMPLATES: [&str; 9] = [
    "welcome",
    "email_verification",
    "email_verified",
    "password_changed",
    "password_reset",
    "mfa_enabled",
    "mfa_disabled",
    "account_suspended",
    "account_reactivated",
];

/// The fields of a user that count.
const FIELDS: [&str; 3] = ["email", "username", "firstName"];

/// How long before and after its expiry a notification may have either status, because clocks and requests take time.
const MARGIN: TimeDelta = TimeDelta::minutes(2);

/// A notification's id, and the partition of its event. Where events of several partitions have one id, only the first that
/// is applied makes a notification, but partitions have no order among each other: it may be any of them.
type Key = (Uuid, i32);

/// The notification domain's notifications.
#[derive(Default)]
pub struct Notifications {
    users: BTreeMap<String, User>,
    /// Whose notification it is.
    owners: BTreeMap<Key, String>,
}

#[derive(Default)]
struct User {
    fields: Fields,
    deleted: bool,
    made: BTreeMap<Key, Notification>,
}

struct Notification {
    event_id: String,
    user: String,
    template: &'static str,
    recipient: Option<String>,
    /// `None` once the user was deleted.
    data: Option<Value>,
    created_at: DateTime<Utc>,
}

/// Which notifications a list holds. No words mean all.
#[derive(Debug, Default, Clone)]
pub struct Wanted {
    pub user: Option<String>,
    pub statuses: Vec<&'static str>,
    pub templates: Vec<&'static str>,
}

impl View for Notifications {
    fn domain(&self) -> &'static str {
        "notification"
    }

    fn wants(&self, event: &str) -> bool {
        matches!(
            event,
            "UserRegistered"
                | "UserEmailVerified"
                | "UserPasswordChanged"
                | "UserPasswordResetRequested"
                | "UserAccountStatusChanged"
                | "UserUpdated"
                | "UserDeleted"
                | "MfaStatusChanged"
        )
    }

    fn apply(&mut self, event: &Event) {
        let id = event.text("userId").expect("required");
        let user = self.users.entry(id.clone()).or_default();
        if user.deleted {
            return;
        }
        if event.name == "UserDeleted" {
            user.deleted = true;
            user.fields = Fields::default();
            for notification in user.made.values_mut() {
                notification.recipient = None;
                notification.data = None;
            }
            return;
        }
        user.learn(event);
        let email = user.known("email").map(str::to_owned);
        for notification in user.made.values_mut() {
            if notification.recipient.is_none() {
                notification.recipient.clone_from(&email);
            }
        }
        for template in templates(event) {
            let key @ (notification_id, partition) = (id_of(template, &event.id), event.partition);
            // An event makes nothing again after its id has expired, nor after its user has moved to another partition.
            let mut before = self.owners.range(all_of(notification_id));
            if before.any(|((_, other), owner)| *other == partition || *owner == id) {
                continue;
            }
            let notification = Notification {
                event_id: event.id.clone(),
                user: id.clone(),
                template,
                recipient: email.clone(),
                data: Some(user.data(&id, event)),
                created_at: event.occurred_at,
            };
            user.made.insert(key, notification);
            self.owners.insert(key, id.clone());
        }
    }
}

/// The keys with an id.
fn all_of(id: Uuid) -> RangeInclusive<Key> {
    (id, i32::MIN)..=(id, i32::MAX)
}

/// The id of an event's notification: of version 8 and the variant of RFC 9562, otherwise the beginning of a hash.
fn id_of(template: &str, event_id: &str) -> Uuid {
    let digest = Sha256::digest(format!("{template}:{event_id}"));
    let mut bytes: [u8; 16] = digest[..16].try_into().expect("16 bytes");
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    Uuid::from_bytes(bytes)
}

/// The templates of an event's notifications.
fn templates(event: &Event) -> Vec<&'static str> {
    let is = |field: &str, values: &[&str]| {
        let value = event.text(field);
        value.is_some_and(|value| values.contains(&&*value))
    };
    match event.name {
        "UserRegistered" if is("status", &["pending_verification"]) => {
            vec!["welcome", "email_verification"]
        }
        "UserRegistered" => vec!["welcome"],
        "UserEmailVerified" => vec!["email_verified"],
        "UserPasswordChanged" => vec!["password_changed"],
        "UserPasswordResetRequested" => vec!["password_reset"],
        "MfaStatusChanged" if event.flag("mfaEnabled") == Some(true) => vec!["mfa_enabled"],
        "MfaStatusChanged" => vec!["mfa_disabled"],
        "UserAccountStatusChanged" => {
            let was_locked = is("previousStatus", &["suspended", "banned", "deactivated"]);
            if is("newStatus", &["suspended", "banned"]) {
                vec!["account_suspended"]
            } else if is("newStatus", &["active"]) && was_locked {
                vec!["account_reactivated"]
            } else {
                vec![]
            }
        }
        _ => vec![],
    }
}

impl User {
    /// A field's value, unless it is stale.
    fn known(&self, name: &str) -> Option<&str> {
        let value = self.fields.get(name);
        value.filter(|_| !self.fields.is_stale(name))
    }

    /// Takes what an event brings of the user's fields.
    fn learn(&mut self, event: &Event) {
        if event.name == "UserUpdated" {
            for (name, change) in event.changes().expect("good") {
                if let Some(name) = FIELDS.into_iter().find(|ours| *ours == name) {
                    self.fields.change(name, &change);
                }
            }
            return;
        }
        let brought: &[&'static str] = match event.name {
            "UserRegistered" => &FIELDS,
            "UserEmailVerified" | "UserPasswordResetRequested" => &["email"],
            _ => &[],
        };
        for name in brought {
            if let Some(value) = event.text(name) {
                self.fields.change(name, &Change::To(json!(value)));
            }
        }
    }

    /// What a notification is made from.
    fn data(&self, id: &str, event: &Event) -> Value {
        let mut data = Map::from_iter([("userId".to_owned(), json!(id))]);
        for name in ["username", "firstName"] {
            if let Some(value) = self.known(name) {
                data.insert(name.to_owned(), json!(value));
            }
        }
        let of_event: &[&str] = match event.name {
            "UserPasswordResetRequested" => &["resetTokenIdentifier"],
            "UserPasswordChanged" => &["changeType"],
            "MfaStatusChanged" => &["mfaMethod"],
            "UserAccountStatusChanged" => &["reason", "previousStatus", "newStatus"],
            _ => &[],
        };
        for name in of_event {
            if let Some(value) = event.text(name) {
                data.insert((*name).to_owned(), json!(value));
            }
        }
        Value::Object(data)
    }
}

impl Notification {
    fn expires_at(&self) -> DateTime<Utc> {
        let expiry = match self.template {
            "password_reset" => TimeDelta::hours(1),
            "email_verification" => TimeDelta::hours(24),
            _ => TimeDelta::days(7),
        };
        self.created_at + expiry
    }

    fn status(&self, now: DateTime<Utc>) -> &'static str {
        if self.data.is_none() {
            "cancelled"
        } else if now >= self.expires_at() {
            "expired"
        } else if self.recipient.is_none() {
            "no_recipient"
        } else {
            "pending"
        }
    }

    fn is_in(&self, wanted: &Wanted, now: DateTime<Utc>) -> bool {
        let is_one_of = |words: &[&str], word| words.is_empty() || words.contains(&word);
        is_one_of(&wanted.templates, self.template) && is_one_of(&wanted.statuses, self.status(now))
    }

    fn to_json(&self, id: Uuid, now: DateTime<Utc>) -> Value {
        let mut json = json!({
            "notificationId": id, "eventId": self.event_id, "userId": self.user, "template": self.template,
            "channel": "email", "status": self.status(now), "attempts": 0,
            "createdAt": instant(self.created_at), "expiresAt": instant(self.expires_at()),
        });
        if let Some(recipient) = &self.recipient {
            json["recipient"] = json!(recipient);
        }
        if let Some(data) = &self.data {
            json["data"] = data.clone();
        }
        json
    }
}

impl Notifications {
    /// The ids of all notifications.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.owners.keys().map(|(id, _)| id.to_string()).collect();
        ids.dedup();
        ids
    }

    /// The ids of all users with an event, deleted ones included.
    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The answers to `GET /v1/notification/notifications/{notificationId}` at an instant, all of which are right: several
    /// where events of several partitions have one id, and where the notification expires about then.
    pub fn answers(&self, id: &str, now: DateTime<Utc>) -> Vec<Value> {
        let mut answers = Vec::new();
        for (id, notification) in self.with_id(id) {
            let at = [now - MARGIN, now, now + MARGIN];
            answers.extend(at.map(|at| notification.to_json(id, at)));
        }
        answers.dedup();
        answers
    }

    /// Whether one answer alone is right.
    pub fn is_settled(&self, id: &str, now: DateTime<Utc>) -> bool {
        let changes = |notification: &Notification| {
            notification.status(now - MARGIN) != notification.status(now + MARGIN)
        };
        let with_id: Vec<(Uuid, &Notification)> = self.with_id(id).collect();
        with_id.len() <= 1
            && !with_id
                .iter()
                .any(|(_, notification)| changes(notification))
    }

    fn with_id(&self, id: &str) -> impl Iterator<Item = (Uuid, &Notification)> {
        let id: Uuid = id.parse().expect("a UUID");
        let with_id = self.owners.range(all_of(id));
        with_id.map(move |(key, owner)| (id, &self.users[owner].made[key]))
    }

    /// The rows of `GET /v1/notification/notifications` at an instant, where each notification has one answer then: see
    /// [`Notifications::answers`].
    pub fn list(&self, wanted: &Wanted, now: DateTime<Utc>) -> Vec<Value> {
        let users: Vec<&User> = match &wanted.user {
            Some(user) => self.users.get(user).into_iter().collect(),
            None => self.users.values().collect(),
        };
        let mut rows: Vec<(DateTime<Utc>, Uuid, &Notification)> = Vec::new();
        for ((id, _), notification) in users.into_iter().flat_map(|user| &user.made) {
            if notification.is_in(wanted, now) {
                rows.push((notification.created_at, *id, notification));
            }
        }
        rows.sort_by_key(|(at, id, _)| (*at, *id));
        let rows = rows.into_iter();
        rows.map(|(_, id, notification)| notification.to_json(id, now))
            .collect()
    }
}
