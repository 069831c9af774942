//! A user's addresses and defaults, now or at an instant: the rules that all views share.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::event::{ADDRESS_FIELDS, Event};
use super::fields::{Fields, set};
use super::instant;

pub const DEFAULT_IDS: [&str; 2] = ["defaultShippingAddressId", "defaultBillingAddressId"];
pub const DEFAULT_FLAGS: [&str; 2] = ["isDefaultShipping", "isDefaultBilling"];

#[derive(Debug, Default, Clone)]
pub struct Addresses {
    pub known: BTreeMap<String, Address>,
    /// The ids of the default addresses for shipping and billing.
    pub defaults: [Option<String>; 2],
    /// Deleted addresses. Only a UserAddressAdded brings one back.
    gone: BTreeSet<String>,
}

#[derive(Debug, Default, Clone)]
pub struct Address {
    pub fields: Fields,
    pub last_named: LastNamed,
}

/// The last event that named an address: its time, partition and number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastNamed {
    pub at: DateTime<Utc>,
    partition: i32,
    number: i64,
}

impl LastNamed {
    fn by(event: &Event) -> LastNamed {
        LastNamed {
            at: event.occurred_at,
            partition: event.partition,
            number: event.number,
        }
    }
}

impl Addresses {
    /// Applies those events that happened until then; all of them for `None`.
    pub fn replay<'a>(
        events: impl IntoIterator<Item = &'a Event>,
        until: Option<DateTime<Utc>>,
    ) -> Addresses {
        let mut addresses = Addresses::default();
        for event in events {
            if until.is_none_or(|until| event.occurred_at <= until) {
                addresses.apply(event);
            }
        }
        addresses
    }

    /// Applies an event. Events of other types change nothing.
    pub fn apply(&mut self, event: &Event) {
        let address = event.text("addressId");
        match event.name {
            "UserAddressAdded" => self.added(event, address.expect("required")),
            "UserAddressUpdated" => self.updated(event, address.expect("required")),
            "UserAddressDeleted" => {
                let id = address.expect("required");
                self.known.remove(&id);
                for default in &mut self.defaults {
                    default.take_if(|default| *default == id);
                }
                self.gone.insert(id);
            }
            "UserProfileDefaultAddressChanged" => {
                for (kind, name) in DEFAULT_IDS.iter().enumerate() {
                    if let Some(id) = event.text(name) {
                        self.make_default(kind, &id, event);
                    }
                }
            }
            _ => {}
        }
    }

    fn added(&mut self, event: &Event, id: String) {
        let was_known = self.known.contains_key(&id);
        let mut fields = Fields {
            values: event.full_address().expect("good").unwrap_or_default(),
            ..Fields::default()
        };
        if !fields.values.contains_key("country") {
            set(&mut fields.values, "country", event.text("country"));
        }
        set(&mut fields.values, "type", event.text("addressType"));
        self.gone.remove(&id);
        let last_named = LastNamed::by(event);
        self.known
            .insert(id.clone(), Address { fields, last_named });
        for (kind, name) in DEFAULT_FLAGS.iter().enumerate() {
            let named = self.defaults[kind].as_ref() == Some(&id);
            if event.flag(name) == Some(true) {
                self.make_default(kind, &id, event);
            } else if named && was_known {
                self.defaults[kind] = None;
            }
        }
    }

    fn updated(&mut self, event: &Event, id: String) {
        if self.gone.contains(&id) {
            return;
        }
        let address = self.known.entry(id).or_default();
        address.last_named = LastNamed::by(event);
        for (written, change) in event.changes().expect("good") {
            if written == "addressType" {
                address.fields.change("type", &change);
            }
            if let Some((_, name)) = ADDRESS_FIELDS
                .iter()
                .find(|(spelling, _)| *spelling == written)
            {
                address.fields.change(name, &change);
            }
        }
        if let Some(mut whole) = event.full_address().expect("good") {
            set(&mut whole, "type", address.fields.values.remove("type"));
            address.fields.values = whole;
            address.fields.stale.retain(|name| *name == "type");
        }
    }

    fn make_default(&mut self, kind: usize, id: &str, event: &Event) {
        let former = self.defaults[kind].replace(id.to_owned());
        for id in former.iter().map(String::as_str).chain([id]) {
            if let Some(address) = self.known.get_mut(id) {
                address.last_named = LastNamed::by(event);
            }
        }
    }

    /// Whether an address was deleted and not added again.
    pub fn is_gone(&self, id: &str) -> bool {
        self.gone.contains(id)
    }

    /// The address that a default names, if it is known.
    pub fn in_use(&self, kind: usize) -> Option<(&String, &Address)> {
        self.known.get_key_value(self.defaults[kind].as_ref()?)
    }

    /// An address in the order domain's JSON form.
    pub fn json(&self, id: &str) -> Option<Value> {
        let address = self.known.get(id)?;
        let mut json = address.fields.to_json();
        json.insert("addressId".into(), json!(id));
        json.insert("updatedAt".into(), instant(address.last_named.at));
        for (flag, default) in DEFAULT_FLAGS.into_iter().zip(&self.defaults) {
            json.insert(flag.into(), json!(default.as_deref() == Some(id)));
        }
        Some(Value::Object(json))
    }
}
