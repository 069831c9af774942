//! The order domain: customers, their addresses at any instant, and the feed of address changes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::addresses::{Addresses, DEFAULT_IDS};
use super::event::{Change, Event, text};
use super::feed::{self, LastInUse};
use super::fields::Fields;
use super::{View, instant};

/// The order domain's customers.
#[derive(Default)]
pub struct Customers {
    customers: BTreeMap<String, Customer>,
    /// By partition, in order, erased entries included.
    feed: BTreeMap<i32, Vec<Entry>>,
}

/// An entry of the feed.
#[derive(Clone)]
pub struct Entry {
    /// The entry before any erasure.
    pub made: Value,
    pub user: String,
}

#[derive(Default, Clone)]
struct Customer {
    fields: Fields,
    email_verified: Option<bool>,
    registered_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    deleted: Option<Deletion>,
    addresses: Addresses,
    last_in_use: [LastInUse; 2],
    /// All events applied until a deletion.
    history: Vec<Event>,
}

#[derive(Clone, Copy)]
struct Deletion {
    at: DateTime<Utc>,
    hard: bool,
    /// Whether it was soft first.
    was_soft: bool,
}

impl View for Customers {
    fn domain(&self) -> &'static str {
        "order"
    }

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
        let customer = self.customers.entry(user.clone()).or_default();
        let made = customer.apply(&user, event);
        let feed = self.feed.entry(event.partition).or_default();
        feed.extend(made.into_iter().map(|made| Entry {
            made,
            user: user.clone(),
        }));
    }
}

impl Customers {
    /// The ids of all users with an event.
    pub fn ids(&self) -> Vec<String> {
        self.customers.keys().cloned().collect()
    }

    /// The answer to `GET /v1/order/customers/{userId}`.
    pub fn answer(&self, user: &str) -> Option<Value> {
        self.customers
            .get(user)
            .map(|customer| customer.to_json(user))
    }

    /// The answer to `GET /v1/order/customers/{userId}/addresses?asOf=`.
    pub fn addresses(&self, user: &str, as_of: Option<DateTime<Utc>>) -> Option<Value> {
        let customer = self.customers.get(user)?;
        let addresses = Addresses::replay(&customer.history, as_of);
        Some(customer.addresses_json(&addresses))
    }

    /// A user's addresses now.
    pub fn current(&self, user: &str) -> Addresses {
        let customer = self.customers.get(user);
        customer.map_or_else(Addresses::default, |customer| customer.addresses.clone())
    }

    /// Whether a deleted user was deleted hard; `None` if the user was not deleted.
    pub fn deletion(&self, user: &str) -> Option<bool> {
        Some(self.customers.get(user)?.deleted?.hard)
    }

    /// What a watch of the feed tells of deleted users, by user and in order, without cursors.
    pub fn told_deletions(&self) -> BTreeMap<String, Vec<Value>> {
        let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (user, customer) in &self.customers {
            let Some(deletion) = customer.deleted else {
                continue;
            };
            let was_soft = deletion.was_soft || !deletion.hard;
            for (is_told, kind) in [(was_soft, "soft"), (deletion.hard, "hard")] {
                if is_told {
                    let one = json!({"userId": user, "deletedAt": instant(deletion.at), "deletionType": kind});
                    told.entry(user.clone()).or_default().push(one);
                }
            }
        }
        told
    }

    /// The times of a user's events.
    pub fn instants(&self, user: &str) -> Vec<DateTime<Utc>> {
        let customer = self.customers.get(user);
        let history = customer.map_or(&[][..], |customer| &customer.history);
        history.iter().map(|event| event.occurred_at).collect()
    }

    /// The feed of a partition, after erasures.
    pub fn feed(&self, partition: i32) -> Vec<Value> {
        let entries = self.feed.get(&partition).into_iter().flatten();
        entries
            .filter_map(|entry| self.erased(entry.clone()))
            .collect()
    }

    /// The feed of a partition, before erasures.
    pub fn feed_before_erasure(&self, partition: i32) -> Vec<Value> {
        let entries = self.feed.get(&partition).into_iter().flatten();
        entries.map(|entry| entry.made.clone()).collect()
    }

    /// What a deletion leaves of an entry; `None` if the entry is removed.
    fn erased(&self, mut entry: Entry) -> Option<Value> {
        match self.customers[&entry.user].deleted {
            Some(Deletion { hard: true, .. }) => return None,
            Some(_) => {
                for name in ["before", "after"] {
                    if let Some(address) = entry.made.get_mut(name) {
                        *address = left(address);
                    }
                }
            }
            None => {}
        }
        Some(entry.made)
    }
}

/// The fields that UserProfileUpdated may change.
const PROFILE_FIELDS: [&str; 4] = ["firstName", "lastName", "displayName", "phoneNumber"];

/// What a soft deletion leaves of an address.
fn left(address: &Value) -> Value {
    let mut left = json!({"addressId": address["addressId"], "staleFields": []});
    if let Some(country) = address.get("country") {
        left["country"] = country.clone();
    }
    left
}

impl Customer {
    /// Applies an event, and returns the feed entries that it makes.
    fn apply(&mut self, user: &str, event: &Event) -> Vec<Value> {
        let at = event.occurred_at;
        let hard = event.text("deletionType").as_deref() == Some("hard");
        if let Some(deletion) = &mut self.deleted {
            if event.name == "UserDeleted" && hard && !deletion.hard {
                deletion.hard = true;
                deletion.was_soft = true;
                self.history.clear();
                self.addresses = Addresses::default();
                self.updated_at = at;
            }
            return Vec::new();
        }
        self.updated_at = at;
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
                        ("email", Change::To(value)) => self.email(text(value)),
                        ("email", change) => {
                            self.fields.change("email", change);
                            self.email_verified = None;
                        }
                        _ => {}
                    }
                }
                self.change(&changes, &["username", "status"]);
                self.change(&changes, &PROFILE_FIELDS);
            }
            "UserProfileUpdated" => self.change(&changes, &PROFILE_FIELDS),
            "UserDeleted" => {
                let email_less = Fields {
                    values: BTreeMap::from([("status", "deleted".to_owned())]),
                    stale: BTreeSet::new(),
                };
                *self = Customer {
                    fields: email_less,
                    registered_at: self.registered_at,
                    updated_at: at,
                    deleted: Some(Deletion {
                        at,
                        hard,
                        was_soft: false,
                    }),
                    ..if hard {
                        Customer::default()
                    } else {
                        self.clone()
                    }
                };
                self.email_verified = None;
                return Vec::new();
            }
            _ => {}
        }
        let before = self.addresses.clone();
        self.addresses.apply(event);
        self.history.push(event.clone());
        feed::entries(user, event, &before, &self.addresses, &mut self.last_in_use)
    }

    fn change(&mut self, changes: &[(String, Change)], fields: &[&'static str]) {
        for (name, change) in changes {
            if let Some(field) = fields.iter().find(|field| *field == name) {
                self.fields.change(field, change);
            }
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

    fn to_json(&self, user: &str) -> Value {
        let mut json = self.fields.to_json();
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
        let addresses = self.addresses_json(&self.addresses);
        json.extend(addresses.as_object().cloned().into_iter().flatten());
        Value::Object(json)
    }

    /// Addresses and defaults, or what a deletion leaves of them.
    fn addresses_json(&self, addresses: &Addresses) -> Value {
        let known = addresses.known.keys().filter_map(|id| addresses.json(id));
        if self.deleted.is_some() {
            return json!({"addresses": known.map(|address| left(&address)).collect::<Vec<_>>()});
        }
        let mut json = json!({"addresses": known.collect::<Vec<_>>()});
        for (name, id) in DEFAULT_IDS.into_iter().zip(&addresses.defaults) {
            if let Some(id) = id {
                json[name] = json!(id);
            }
        }
        json
    }
}
