//! The fulfillment domain: shipping addresses by user, by address id, and in searches.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::addresses::{Address, Addresses, DEFAULT_FLAGS};
use super::event::{Change, Event};
use super::fields::Fields;
use super::validation::validate;
use super::{View, instant};

/// The statuses of validation.
pub const STATUSES: [&str; 3] = ["valid", "incomplete", "invalid"];

/// Fields that are copied: (name in this view, name in the shared address).
const PLAIN: [(&str, &str); 7] = [
    ("type", "type"),
    ("companyName", "companyName"),
    ("city", "city"),
    ("state", "stateOrProvince"),
    ("postalCode", "postalCode"),
    ("countryCode", "country"),
    ("notes", "additionalNotes"),
];

/// The fulfillment domain's users and addresses.
#[derive(Default)]
pub struct Parcels {
    users: BTreeMap<String, User>,
    /// By address id, the users with an event that names it.
    named: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
struct User {
    /// Whether the user had an event other than its deletion.
    is_known: bool,
    is_deleted: bool,
    history: Vec<Event>,
}

/// A user's state after the events until some instant.
struct State {
    names: Fields,
    addresses: Addresses,
}

impl View for Parcels {
    fn domain(&self) -> &'static str {
        "fulfillment"
    }

    fn wants(&self, event: &str) -> bool {
        matches!(
            event,
            "UserRegistered"
                | "UserProfileUpdated"
                | "UserAddressAdded"
                | "UserAddressUpdated"
                | "UserAddressDeleted"
                | "UserProfileDefaultAddressChanged"
                | "UserDeleted"
        )
    }

    fn apply(&mut self, event: &Event) {
        let id = event
            .text("userId")
            .expect("every event of interest has one");
        let user = self.users.entry(id.clone()).or_default();
        if user.is_deleted {
            return;
        }
        if event.name == "UserDeleted" {
            user.is_deleted = true;
            user.history.clear();
            return;
        }
        user.is_known = true;
        user.history.push(event.clone());
        for name in [
            "addressId",
            "defaultShippingAddressId",
            "defaultBillingAddressId",
        ] {
            if let Some(address) = event.text(name) {
                self.named.entry(address).or_default().insert(id.clone());
            }
        }
    }
}

impl Parcels {
    /// The ids of all users that are known.
    pub fn ids(&self) -> Vec<String> {
        let known = self.users.iter().filter(|(_, user)| user.is_known);
        known.map(|(id, _)| id.clone()).collect()
    }

    /// The ids of users whose first event is their deletion.
    pub fn never_known(&self) -> Vec<String> {
        let unknown = self.users.iter().filter(|(_, user)| !user.is_known);
        unknown.map(|(id, _)| id.clone()).collect()
    }

    /// The ids of all addresses that an event names.
    pub fn address_ids(&self) -> Vec<String> {
        self.named.keys().cloned().collect()
    }

    /// How many users have an event that names an address.
    pub fn user_count(&self, address: &str) -> usize {
        self.named.get(address).map_or(0, BTreeSet::len)
    }

    /// The times of a user's events.
    pub fn instants(&self, user: &str) -> Vec<DateTime<Utc>> {
        let user = self.users.get(user);
        let history = user.map_or(&[][..], |user| &user.history);
        history.iter().map(|event| event.occurred_at).collect()
    }

    /// The times of the events of all users with an event that names an address.
    pub fn instants_of(&self, address: &str) -> Vec<DateTime<Utc>> {
        let users = self.named.get(address).into_iter().flatten();
        users.flat_map(|user| self.instants(user)).collect()
    }

    /// The answer to `GET /v1/fulfillment/users/{userId}/addresses?asOf=`.
    pub fn addresses(&self, user: &str, as_of: Option<DateTime<Utc>>) -> Option<Value> {
        let state = self.state(user, as_of)?;
        let addresses: Vec<Value> = state.all(user).collect();
        Some(json!({"addresses": addresses}))
    }

    /// The answer to `GET /v1/fulfillment/users/{userId}/default-address?kind=&asOf=`.
    pub fn default_address(
        &self,
        user: &str,
        kind: usize,
        as_of: Option<DateTime<Utc>>,
    ) -> Option<Value> {
        let state = self.state(user, as_of)?;
        let (id, address) = state.addresses.in_use(kind)?;
        Some(state.json(user, id, address))
    }

    /// The answer to `GET /v1/fulfillment/addresses/{addressId}?asOf=`.
    pub fn address(&self, id: &str, as_of: Option<DateTime<Utc>>) -> Option<Value> {
        let candidates = self.named.get(id)?.iter().filter_map(|user| {
            let state = self.state(user, as_of)?;
            let address = state.addresses.known.get(id)?;
            Some((address.last_named, state.json(user, id, address)))
        });
        candidates
            .max_by_key(|(last_named, _)| *last_named)
            .map(|(_, address)| address)
    }

    /// All addresses of all users.
    pub fn all(&self) -> Vec<Value> {
        let users = self.users.keys();
        users
            .flat_map(|user| {
                let state = self.state(user, None);
                state.map_or(Vec::new(), |state| state.all(user).collect())
            })
            .collect()
    }

    fn state(&self, user: &str, as_of: Option<DateTime<Utc>>) -> Option<State> {
        let user = self.users.get(user).filter(|user| user.is_known)?;
        let mut names = Fields::default();
        for event in &user.history {
            if as_of.is_some_and(|as_of| event.occurred_at > as_of) {
                continue;
            }
            let changes = match event.name {
                "UserRegistered" => ["firstName", "lastName"]
                    .iter()
                    .filter_map(|name| {
                        let value = event.text(name)?;
                        Some(((*name).to_owned(), Change::To(json!(value))))
                    })
                    .collect(),
                "UserProfileUpdated" => event.changes().expect("good"),
                _ => Vec::new(),
            };
            for (name, change) in changes {
                let ours = ["firstName", "lastName", "phoneNumber"];
                if let Some(name) = ours.into_iter().find(|ours| *ours == name) {
                    names.change(name, &change);
                }
            }
        }
        Some(State {
            names,
            addresses: Addresses::replay(&user.history, as_of),
        })
    }
}

impl State {
    fn all(&self, user: &str) -> impl Iterator<Item = Value> {
        let known = self.addresses.known.iter();
        known.map(move |(id, address)| self.json(user, id, address))
    }

    fn json(&self, user: &str, id: &str, address: &Address) -> Value {
        let fields = &address.fields;
        let mut json = json!({
            "userId": user, "addressId": id, "updatedAt": instant(address.last_named.at),
        });
        let mut stale = BTreeSet::new();
        for (name, from) in PLAIN {
            if let Some(value) = fields.get(from) {
                json[name] = json!(value);
            }
            if fields.is_stale(from) {
                stale.insert(name);
            }
        }
        let lines = ["streetLine1", "streetLine2"];
        if lines.iter().any(|line| fields.is_stale(line)) {
            stale.insert("lines");
        }
        let lines: Vec<&str> = lines
            .iter()
            .filter_map(|line| not_blank(fields.get(line)))
            .collect();
        json["lines"] = json!(lines);

        let whole_name = ["firstName", "lastName"].map(|name| not_blank(self.names.get(name)));
        let whole_name: Vec<&str> = whole_name.into_iter().flatten().collect();
        let whole_name = (!whole_name.is_empty()).then(|| whole_name.join(" "));
        let phone = self.names.get("phoneNumber").map(str::to_owned);
        for (name, contact, users, from) in [
            (
                "recipientName",
                "contactName",
                whole_name,
                &["firstName", "lastName"][..],
            ),
            ("phone", "contactPhone", phone, &["phoneNumber"]),
        ] {
            let mut value = fields.get(contact);
            if name == "recipientName" {
                value = not_blank(value);
            }
            let value = value.map(str::to_owned);
            let is_stale = match (&value, fields.is_stale(contact)) {
                (_, true) => true,
                (Some(_), false) => false,
                (None, false) => from.iter().any(|name| self.names.is_stale(name)),
            };
            if is_stale {
                stale.insert(name);
            }
            if let Some(value) = value.or(users) {
                json[name] = json!(value);
            }
        }
        json["staleFields"] = json!(stale);
        for (flag, default) in DEFAULT_FLAGS.into_iter().zip(&self.addresses.defaults) {
            json[flag] = json!(default.as_deref() == Some(id));
        }
        json["validation"] = validate(&json);
        json
    }
}

/// A text that is more than white space.
fn not_blank(text: Option<&str>) -> Option<&str> {
    text.filter(|text| text.chars().any(|c| !c.is_whitespace()))
}
