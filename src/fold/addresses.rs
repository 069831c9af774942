//! A user's addresses and defaults: a pure fold over the events about them.
//!
//! An address is known once an event has added or updated it. A default is the id of an address,
//! known or not; there is at most one default of each kind, so an address's default flags are
//! derived, not stored. A deleted address counts as unknown: a late UserAddressUpdated does not
//! bring it back, a UserAddressAdded does.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::change_text;
use crate::event::{self, Change, Payload};
use crate::projector::NewEvent;

/// The name of the address type among stale fields.
const STALE_TYPE: &str = "type";

/// The event that something is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// When the event happened.
    pub at: DateTime<Utc>,
    /// The log of its record: a `log_id` of `sightline.logs`.
    pub log: i32,
    /// The record's offset in the log.
    pub offset: i64,
}

impl From<&NewEvent> for Source {
    fn from(new_event: &NewEvent) -> Self {
        Self {
            at: new_event.event.occurred_at,
            log: new_event.log_id,
            offset: new_event.offset,
        }
    }
}

/// What an event says about a user's addresses: all that the fold needs, in the form in which it is
/// stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum AddressFact {
    /// An address was added, or added again: all of it, and whether it is a default.
    Added {
        /// The address's id.
        address_id: String,
        /// Its type; absent once personal data was erased.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address_type: Option<String>,
        /// All of its parts.
        address: event::Address,
        /// Whether it is the default shipping address.
        is_default_shipping: bool,
        /// Whether it is the default billing address.
        is_default_billing: bool,
    },
    /// An address changed.
    Updated {
        /// The address's id.
        address_id: String,
        /// All of its parts, if the event carries the full address.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address: Option<event::Address>,
        /// Changed parts by name, and `addressType`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        changes: BTreeMap<String, TextChange>,
    },
    /// An address was deleted.
    Deleted {
        /// The address's id.
        address_id: String,
    },
    /// The defaults changed. A default that the event does not name stays as it is.
    DefaultsNamed {
        /// The id of the default shipping address.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        shipping: Option<String>,
        /// The id of the default billing address.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        billing: Option<String>,
    },
}

/// The change of a text field, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextChange {
    /// The field changed, but the event does not say to what.
    Unknown,
    /// The field was cleared.
    Cleared,
    /// The field's new value.
    Value(String),
}

impl From<Change<&str>> for TextChange {
    fn from(change: Change<&str>) -> Self {
        match change {
            Change::Unknown => Self::Unknown,
            Change::Cleared => Self::Cleared,
            Change::Value(value) => Self::Value(value.to_owned()),
        }
    }
}

impl TextChange {
    /// The same change, borrowed.
    pub fn as_change(&self) -> Change<&str> {
        match self {
            Self::Unknown => Change::Unknown,
            Self::Cleared => Change::Cleared,
            Self::Value(value) => Change::Value(value),
        }
    }
}

impl AddressFact {
    /// What an event says about addresses; `None` for an event about something else.
    pub fn of(payload: &Payload) -> Option<Self> {
        Some(match payload {
            Payload::UserAddressAdded(added) => Self::Added {
                address_id: added.address_id.clone(),
                address_type: Some(added.address_type.clone()),
                address: added.address(),
                is_default_shipping: added.is_default_shipping,
                is_default_billing: added.is_default_billing,
            },
            Payload::UserAddressUpdated(updated) => {
                let text = |name: &str| Some((name.to_owned(), updated.changes.text(name)?.into()));
                let mut changes: BTreeMap<String, TextChange> = updated
                    .changes
                    .iter()
                    .filter_map(|(name, _)| text(name))
                    .collect();
                let mut parts = event::Address::default();
                // A full address supersedes the changes of its parts. The type is not one of them.
                changes.retain(|name, _| {
                    name == "addressType"
                        || (updated.full_address.is_none() && parts.part_mut(name).is_some())
                });
                Self::Updated {
                    address_id: updated.address_id.clone(),
                    address: updated.full_address.clone(),
                    changes,
                }
            }
            Payload::UserAddressDeleted(deleted) => Self::Deleted {
                address_id: deleted.address_id.clone(),
            },
            Payload::UserProfileDefaultAddressChanged(changed) => Self::DefaultsNamed {
                shipping: changed.default_shipping_address_id.clone(),
                billing: changed.default_billing_address_id.clone(),
            },
            _ => return None,
        })
    }

    /// What remains of the fact once its user was deleted: the address's id and country. `None` if
    /// nothing remains.
    pub fn without_personal_data(self) -> Option<Self> {
        let country_of = |address: event::Address| event::Address {
            country: address.country,
            ..event::Address::default()
        };
        Some(match self {
            Self::Added {
                address_id,
                address,
                ..
            } => Self::Added {
                address_id,
                address_type: None,
                address: country_of(address),
                is_default_shipping: false,
                is_default_billing: false,
            },
            Self::Updated {
                address_id,
                address,
                mut changes,
            } => Self::Updated {
                address_id,
                address: address.map(country_of),
                changes: {
                    changes
                        .retain(|name, change| name == "country" && *change != TextChange::Unknown);
                    changes
                },
            },
            Self::Deleted { address_id } => Self::Deleted { address_id },
            Self::DefaultsNamed { .. } => return None,
        })
    }
}

/// Which of a user's two defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DefaultKind {
    /// The default shipping address.
    Shipping,
    /// The default billing address.
    Billing,
}

impl DefaultKind {
    /// Both, shipping first.
    pub const BOTH: [Self; 2] = [Self::Shipping, Self::Billing];
}

/// An address that an event has added or updated. `U` is what is kept of the last such event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KnownAddress<U> {
    /// `shipping`, `billing`, `home`, `work`; others occur.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub address_type: Option<String>,
    /// The parts that are known.
    #[serde(default)]
    pub parts: event::Address,
    /// The parts, and `type`, that changed to an unknown value: names, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty", default = "Vec::new")]
    pub stale: Vec<String>,
    /// The last event that named the address or changed one of its default flags.
    pub updated: U,
}

/// A user's addresses and defaults. `U` is what is kept of each address's last event: its [`Source`], or only when it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    default,
    deny_unknown_fields,
    bound(deserialize = "U: Deserialize<'de>")
)]
pub struct AddressBook<U> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    addresses: BTreeMap<String, KnownAddress<U>>,
    /// Ids of deleted addresses, known before or not: a late update does not bring them back.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    gone: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_shipping: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_billing: Option<String>,
}

impl<U> Default for AddressBook<U> {
    fn default() -> Self {
        Self {
            addresses: BTreeMap::new(),
            gone: BTreeSet::new(),
            default_shipping: None,
            default_billing: None,
        }
    }
}

impl<U: Copy> AddressBook<U> {
    /// A book of known addresses by their ids, the ids of deleted ones, and the ids of the defaults, shipping first.
    pub fn new(
        addresses: BTreeMap<String, KnownAddress<U>>,
        gone: BTreeSet<String>,
        [default_shipping, default_billing]: [Option<String>; 2],
    ) -> Self {
        Self {
            addresses,
            gone,
            default_shipping,
            default_billing,
        }
    }

    /// The same book, of which something else is kept of each address's last event.
    pub fn map<V>(self, f: impl Fn(U) -> V) -> AddressBook<V> {
        let addresses = self.addresses.into_iter().map(|(id, address)| {
            let address = KnownAddress {
                address_type: address.address_type,
                parts: address.parts,
                stale: address.stale,
                updated: f(address.updated),
            };
            (id, address)
        });
        AddressBook {
            addresses: addresses.collect(),
            gone: self.gone,
            default_shipping: self.default_shipping,
            default_billing: self.default_billing,
        }
    }

    /// The known addresses, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KnownAddress<U>)> {
        self.addresses
            .iter()
            .map(|(id, address)| (id.as_str(), address))
    }

    /// The ids of deleted addresses.
    pub fn gone(&self) -> &BTreeSet<String> {
        &self.gone
    }

    /// The address with this id, if it is known.
    pub fn get(&self, address_id: &str) -> Option<&KnownAddress<U>> {
        self.addresses.get(address_id)
    }

    /// The id of a default; its address may be unknown.
    pub fn default_id(&self, default: DefaultKind) -> Option<&str> {
        match default {
            DefaultKind::Shipping => self.default_shipping.as_deref(),
            DefaultKind::Billing => self.default_billing.as_deref(),
        }
    }

    /// The id and the address of a default, if the address is known.
    pub fn default_address(&self, default: DefaultKind) -> Option<(&str, &KnownAddress<U>)> {
        let id = self.default_id(default)?;
        Some((id, self.get(id)?))
    }

    /// Whether the address with this id is a default.
    pub fn is_default(&self, default: DefaultKind, address_id: &str) -> bool {
        self.default_id(default) == Some(address_id)
    }

    /// Applies the next fact, in the order of the log.
    pub fn apply(&mut self, fact: &AddressFact, updated: U) {
        match fact {
            AddressFact::Added {
                address_id,
                address_type,
                address,
                is_default_shipping,
                is_default_billing,
            } => {
                let is_known = self.addresses.contains_key(address_id);
                for (default, is_set) in [
                    (DefaultKind::Shipping, *is_default_shipping),
                    (DefaultKind::Billing, *is_default_billing),
                ] {
                    if is_set {
                        self.set_default(default, Some(address_id), updated);
                    } else if is_known && self.is_default(default, address_id) {
                        self.set_default(default, None, updated);
                    }
                }
                self.gone.remove(address_id);
                let address = KnownAddress {
                    address_type: address_type.clone(),
                    parts: address.clone(),
                    stale: Vec::new(),
                    updated,
                };
                self.addresses.insert(address_id.clone(), address);
            }
            AddressFact::Updated {
                address_id,
                address: full_address,
                changes,
            } => self.update(address_id, full_address.as_ref(), changes, updated),
            AddressFact::Deleted { address_id } => {
                for default in DefaultKind::BOTH {
                    if self.is_default(default, address_id) {
                        self.set_default(default, None, updated);
                    }
                }
                self.addresses.remove(address_id);
                self.gone.insert(address_id.clone());
            }
            AddressFact::DefaultsNamed { shipping, billing } => {
                for (default, named) in [
                    (DefaultKind::Shipping, shipping),
                    (DefaultKind::Billing, billing),
                ] {
                    if let Some(address_id) = named {
                        self.set_default(default, Some(address_id), updated);
                    }
                }
            }
        }
    }

    fn update(
        &mut self,
        address_id: &str,
        full_address: Option<&event::Address>,
        changes: &BTreeMap<String, TextChange>,
        updated: U,
    ) {
        if self.gone.contains(address_id) {
            return;
        }
        let address = self
            .addresses
            .entry(address_id.to_owned())
            .or_insert_with(|| KnownAddress {
                address_type: None,
                parts: event::Address::default(),
                stale: Vec::new(),
                updated,
            });
        address.updated = updated;
        if let Some(full_address) = full_address {
            address.parts.clone_from(full_address);
            // The type, which it does not hold, stays as stale as it was.
            address.stale.retain(|name| name == STALE_TYPE);
        }
        for (name, change) in changes {
            let change = change.as_change();
            if name == "addressType" {
                change_text(
                    &mut address.address_type,
                    &mut address.stale,
                    STALE_TYPE,
                    change,
                );
            } else if let Some(part) = address.parts.part_mut(name) {
                change_text(part, &mut address.stale, name, change);
            }
        }
    }

    /// Erases everything but the ids and countries of the known addresses. `updated` is then their last event.
    pub fn erase_personal_data(&mut self, updated: U) {
        for address in self.addresses.values_mut() {
            address.updated = updated;
            address.address_type = None;
            address.parts = event::Address {
                country: address.parts.country.take(),
                ..event::Address::default()
            };
            address.stale.clear();
        }
        self.gone.clear();
        self.default_shipping = None;
        self.default_billing = None;
    }

    /// Sets or clears a default. The flags of the former and of the new default change, so both are
    /// updated.
    fn set_default(&mut self, default: DefaultKind, address_id: Option<&str>, updated: U) {
        let named = match default {
            DefaultKind::Shipping => &mut self.default_shipping,
            DefaultKind::Billing => &mut self.default_billing,
        };
        let former = std::mem::replace(named, address_id.map(str::to_owned));
        for id in [former.as_deref(), address_id].into_iter().flatten() {
            if let Some(address) = self.addresses.get_mut(id) {
                address.updated = updated;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fold::examples;

    #[test]
    fn a_full_address_leaves_nothing_stale_but_the_type() {
        let full = || json!({"city": "Bonn"});
        let cases: [(&[Value], &[&str]); 5] = [
            (
                &[json!({"updatedFields": ["addressType", "city"]})],
                &["city", "type"],
            ),
            (
                &[
                    json!({"updatedFields": ["addressType", "city"]}),
                    json!({"updatedFields": [], "fullAddress": full()}),
                ],
                &["type"],
            ),
            (
                &[json!({"updatedFields": ["addressType", "city"], "fullAddress": full()})],
                &["type"],
            ),
            (
                &[
                    json!({"updatedFields": ["addressType"]}),
                    json!({"updatedFields": {"addressType": "work"}, "fullAddress": full()}),
                ],
                &[],
            ),
            (
                &[
                    json!({"updatedFields": ["city"]}),
                    json!({"updatedFields": [], "fullAddress": full()}),
                ],
                &[],
            ),
        ];
        for (updates, stale) in cases {
            let mut book = AddressBook::default();
            for (number, update) in updates.iter().enumerate() {
                let mut payload = update.clone();
                payload["addressId"] = json!("a");
                let event = examples::event(number, "UserAddressUpdated", payload);
                let fact = AddressFact::of(&event.event.payload).expect("about an address");
                book.apply(&fact, Source::from(&event));
            }
            let address = book.get("a").expect("known");
            assert_eq!(address.stale, stale, "{updates:?}");
        }
    }
}
