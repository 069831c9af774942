//! The personalization domain: profiles, and the users of segments.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::addresses::{Address, Addresses};
use super::event::{Change, Event, OBJECTS};
use super::fields::Fields;
use super::text::folded;
use super::{View, instant};

/// How long each of the two objects may be in compact JSON, and the stale names in it together, in bytes.
const OBJECT_BYTES: usize = 65_536;

const TEXTS: [&str; 4] = [
    "bio",
    "languagePreference",
    "timezonePreference",
    "profilePictureUrl",
];

/// The fields of the location: (name in the location, name in the shared address).
const LOCATION: [(&str, &str); 3] = [
    ("countryCode", "country"),
    ("city", "city"),
    ("state", "stateOrProvince"),
];

/// The personalization domain's profiles.
#[derive(Default)]
pub struct Profiles {
    profiles: BTreeMap<String, Profile>,
    deleted: BTreeSet<String>,
}

#[derive(Default)]
struct Profile {
    texts: Fields,
    preferences: Preferences,
    addresses: Addresses,
    /// The ids of the known addresses, in the order in which they became known.
    known: Vec<String>,
    updated_at: DateTime<Utc>,
}

/// `preferences` and `communicationPreferences`.
#[derive(Default, Clone)]
struct Preferences {
    objects: Map<String, Value>,
    /// Stale objects and members, by their dotted names.
    stale: BTreeSet<String>,
}

/// A segment's parameters; `preferences` are dotted paths and values.
#[derive(Debug, Default, Clone)]
pub struct Segment {
    pub country: Option<String>,
    pub city: Option<String>,
    pub language: Option<String>,
    pub preferences: Vec<(String, String)>,
}

impl View for Profiles {
    fn domain(&self) -> &'static str {
        "personalization"
    }

    fn wants(&self, event: &str) -> bool {
        matches!(
            event,
            "UserRegistered"
                | "UserDeleted"
                | "UserProfileUpdated"
                | "UserAddressAdded"
                | "UserAddressUpdated"
                | "UserAddressDeleted"
                | "UserProfileDefaultAddressChanged"
        )
    }

    fn has_room(&self, event: &Event) -> bool {
        let user = event.text("userId").expect("required");
        if event.name != "UserProfileUpdated" || self.deleted.contains(&user) {
            return true;
        }
        let now = self.profiles.get(&user).map(|profile| &profile.preferences);
        let mut then = now.cloned().unwrap_or_default();
        then.apply(event);
        let mut objects = then.objects.values();
        objects.all(|object| object.to_string().len() <= OBJECT_BYTES)
    }

    fn apply(&mut self, event: &Event) {
        let user = event.text("userId").expect("required");
        if event.name == "UserDeleted" {
            self.profiles.remove(&user);
            self.deleted.insert(user);
            return;
        }
        if self.deleted.contains(&user) {
            return;
        }
        let profile = self.profiles.entry(user).or_default();
        profile.updated_at = event.occurred_at;
        if event.name == "UserProfileUpdated" {
            profile.preferences.apply(event);
            for (name, change) in event.changes().expect("good") {
                if let Some(name) = TEXTS.into_iter().find(|ours| *ours == name) {
                    profile.texts.change(name, &change);
                }
            }
        }
        profile.addresses.apply(event);
        let now = &profile.addresses.known;
        profile.known.retain(|id| now.contains_key(id));
        for id in now.keys() {
            if !profile.known.contains(id) {
                profile.known.push(id.clone());
            }
        }
    }
}

impl Preferences {
    fn apply(&mut self, event: &Event) {
        for (name, change) in event.changes().expect("good") {
            let path: Vec<&str> = name.split('.').collect();
            if !OBJECTS.contains(&path[0]) {
                continue;
            }
            let value = match change {
                Change::Unknown => {
                    self.stale.insert(name);
                    continue;
                }
                Change::To(value) => Some(without_nul(value)),
                Change::Cleared => None,
            };
            let below = format!("{name}.");
            self.stale
                .retain(|stale| *stale != name && !stale.starts_with(&below));
            match value {
                Some(value) => put(&mut self.objects, &path, value),
                None => remove(&mut self.objects, &path),
            }
        }
        for object in OBJECTS {
            let is_in = |name: &str| name.split('.').next() == Some(object);
            let names = self.stale.iter().filter(|name| is_in(name));
            let bytes: usize = names.map(String::len).sum();
            if bytes > OBJECT_BYTES {
                self.stale.retain(|name| !is_in(name));
                self.stale.insert(object.to_owned());
            }
        }
    }
}

/// Puts a value where a path leads. What is no object on the way becomes one.
fn put(object: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => drop(object.insert((*name).to_owned(), value)),
        [name, rest @ ..] => {
            let next = object.entry(*name).or_insert_with(|| json!({}));
            if !next.is_object() {
                *next = json!({});
            }
            put(next.as_object_mut().expect("an object"), rest, value);
        }
    }
}

/// Removes what a path leads to, if that exists.
fn remove(object: &mut Map<String, Value>, path: &[&str]) {
    match path {
        [] => {}
        [name] => drop(object.remove(*name)),
        [name, rest @ ..] => {
            if let Some(next) = object.get_mut(*name).and_then(Value::as_object_mut) {
                remove(next, rest);
            }
        }
    }
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) => json!(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            members
                .map(|(name, value)| (name, without_nul(value)))
                .collect()
        }
        other => other,
    }
}

impl Profile {
    /// The address that is the location.
    fn home(&self) -> Option<&Address> {
        let default = self.addresses.in_use(0).map(|(_, address)| address);
        default.or_else(|| self.addresses.known.get(self.known.last()?))
    }

    fn location(&self, name: &str) -> Option<&str> {
        let (_, of_address) = LOCATION.iter().find(|(ours, _)| *ours == name)?;
        self.home()?.fields.get(of_address)
    }

    fn to_json(&self, user: &str) -> Value {
        let mut json = self.texts.to_json();
        json.extend(self.preferences.objects.clone());
        json.insert("userId".into(), json!(user));
        json.insert("updatedAt".into(), instant(self.updated_at));
        let mut stale: BTreeSet<String> = self.preferences.stale.clone();
        stale.extend(self.texts.stale.iter().map(|name| (*name).to_owned()));
        let mut location = Map::new();
        for (name, of_address) in LOCATION {
            if let Some(value) = self.location(name) {
                location.insert(name.into(), json!(value));
            }
            let home = self.home();
            if home.is_some_and(|home| home.fields.is_stale(of_address)) {
                stale.insert(format!("location.{name}"));
            }
        }
        if !location.is_empty() {
            json.insert("location".into(), Value::Object(location));
        }
        let addresses = self.addresses.known.values();
        let countries: BTreeSet<&str> = addresses.filter_map(|a| a.fields.get("country")).collect();
        json.insert("countries".into(), json!(countries));
        let mut addresses = self.addresses.known.values();
        if addresses.any(|address| address.fields.is_stale("country")) {
            stale.insert("countries".into());
        }
        json.insert("staleFields".into(), json!(stale));
        Value::Object(json)
    }

    fn is_in(&self, segment: &Segment) -> bool {
        let country = segment.country.as_ref().is_none_or(|country| {
            self.location("countryCode") == Some(&country.to_ascii_uppercase())
        });
        let city = segment.city.as_ref().is_none_or(|city| {
            let ours = self.location("city");
            ours.is_some_and(|ours| folded(ours) == folded(city))
        });
        let language = segment
            .language
            .as_ref()
            .is_none_or(|language| self.texts.get("languagePreference") == Some(language));
        let ours = self.leaves();
        let mut preferences = segment.preferences.iter();
        let preferences = preferences.all(|wanted| ours.contains(wanted));
        country && city && language && preferences
    }

    fn leaves(&self) -> Vec<(String, String)> {
        self.preferences
            .objects
            .get("preferences")
            .map_or(Vec::new(), leaves)
    }
}

/// The values in an object by which segments are made: (dotted path, value as it is asked for).
pub fn leaves(object: &Value) -> Vec<(String, String)> {
    fn walk(at: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let path = match at {
                        "" => name.clone(),
                        at => format!("{at}.{name}"),
                    };
                    walk(&path, value, leaves);
                }
            }
            Value::String(text) => leaves.push((at.to_owned(), text.clone())),
            Value::Number(_) | Value::Bool(_) => leaves.push((at.to_owned(), value.to_string())),
            Value::Null | Value::Array(_) => {}
        }
    }
    let mut found = Vec::new();
    walk("", object, &mut found);
    found
}

impl Profiles {
    /// The ids of all users with a profile.
    pub fn ids(&self) -> Vec<String> {
        self.profiles.keys().cloned().collect()
    }

    /// The ids of deleted users.
    pub fn deleted(&self) -> Vec<String> {
        self.deleted.iter().cloned().collect()
    }

    /// The answer to `GET /v1/personalization/users/{userId}`.
    pub fn answer(&self, user: &str) -> Option<Value> {
        self.profiles.get(user).map(|profile| profile.to_json(user))
    }

    /// The users in a segment, by user id.
    pub fn segment(&self, segment: &Segment) -> Vec<&str> {
        let within = self.profiles.iter().filter(|(_, p)| p.is_in(segment));
        within.map(|(user, _)| user.as_str()).collect()
    }
}
