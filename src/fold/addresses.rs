//! A user's addresses and which of them are the defaults: a pure fold of what events tell of them.
//!
//! An address is known once an event has told of it. A default names an address, known or not; at most one of each
//! kind, so an address's flags are never stored but follow from the names. A deleted address counts as one not
//! known, and no late update brings it back, while an Added does.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::change_text;
use crate::event::{self, Change, Payload};
use crate::projector::NewEvent;

/// Which event something is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// The log of its record.
    pub log: i32,
    /// The record's offset in it.
    pub offset: i64,
}

impl From<&NewEvent> for Source {
    fn from(applied: &NewEvent) -> Self {
        Self {
            at: applied.event.occurred_at,
            log: applied.log_id,
            offset: applied.offset,
        }
    }
}

/// What an event tells of a user's addresses: all that the fold needs, in the form in which it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum AddressFact {
    /// The whole of an address, and whether it is a default.
    Added {
        /// Which one.
        address_id: String,
        /// Its type.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address_type: Option<String>,
        /// All of its parts.
        address: event::Address,
        /// Whether it is the default to ship to.
        is_default_shipping: bool,
        /// Whether it is the default to bill.
        is_default_billing: bool,
    },
    /// What changed of an address.
    Updated {
        /// Which one.
        address_id: String,
        /// All of its parts, where the event tells them.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address: Option<event::Address>,
        /// Parts by their names, `addressType` among them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        changes: BTreeMap<String, Told>,
    },
    /// An address is gone.
    Deleted {
        /// Which one.
        address_id: String,
    },
    /// Other addresses became the defaults; one that is not named stays.
    DefaultsNamed {
        /// The default to ship to.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        shipping: Option<String>,
        /// The default to bill.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        billing: Option<String>,
    },
}

/// What became of a text, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It changed to nobody knows what.
    Unknown,
    /// It was cleared.
    Cleared,
    /// It is this now.
    Value(String),
}

impl From<Change<&str>> for Told {
    fn from(change: Change<&str>) -> Self {
        match change {
            Change::Unknown => Self::Unknown,
            Change::Cleared => Self::Cleared,
            Change::Value(value) => Self::Value(value.to_owned()),
        }
    }
}

impl Told {
    /// The same, borrowed.
    pub fn as_change(&self) -> Change<&str> {
        match self {
            Self::Unknown => Change::Unknown,
            Self::Cleared => Change::Cleared,
            Self::Value(value) => Change::Value(value),
        }
    }
}

impl AddressFact {
    /// What an event tells of addresses, `None` where it is about something else.
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
                let told = |name: &str| Some((name.to_owned(), updated.changes.text(name)?.into()));
                let mut changes: BTreeMap<String, Told> = updated
                    .changes
                    .iter()
                    .filter_map(|(name, _)| told(name))
                    .collect();
                let mut parts = event::Address::default();
                // Beside the whole address its parts have nothing to add, and nothing of it is stale.
                changes.retain(|name, told| match name.as_str() {
                    "addressType" => updated.full_address.is_none() || *told != Told::Unknown,
                    name => updated.full_address.is_none() && parts.part_mut(name).is_some(),
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

    /// What is left of it once its user was deleted: which address it was about, and in which country that is;
    /// `None` where that is nothing.
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
                    changes.retain(|name, told| name == "country" && *told != Told::Unknown);
                    changes
                },
            },
            Self::Deleted { address_id } => Self::Deleted { address_id },
            Self::DefaultsNamed { .. } => return None,
        })
    }
}

/// One of the two defaults that a user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultKind {
    /// The address to ship to.
    Shipping,
    /// The address to bill.
    Billing,
}

impl DefaultKind {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Shipping, Self::Billing];
}

/// An address that an event has told of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownAddress {
    /// `shipping`, `billing`, `home`, `work`; others occur.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub address_type: Option<String>,
    /// Its parts, as far as they are known.
    #[serde(default)]
    pub parts: event::Address,
    /// Names of parts, and `type`, that changed to nobody knows what; sorted.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stale: Vec<String>,
    /// The last event that named it or moved its default flag.
    pub updated: Source,
}

/// The addresses of a user, and the defaults among them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddressBook {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    addresses: BTreeMap<String, KnownAddress>,
    /// Addresses that were deleted, known before or not: no late update brings them to life.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    gone: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_shipping: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_billing: Option<String>,
}

impl AddressBook {
    /// The addresses that are known, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KnownAddress)> {
        self.addresses
            .iter()
            .map(|(id, address)| (id.as_str(), address))
    }

    /// An address, if it is known.
    pub fn get(&self, address_id: &str) -> Option<&KnownAddress> {
        self.addresses.get(address_id)
    }

    /// The id that a default names; its address may not be known.
    pub fn default_id(&self, default: DefaultKind) -> Option<&str> {
        match default {
            DefaultKind::Shipping => self.default_shipping.as_deref(),
            DefaultKind::Billing => self.default_billing.as_deref(),
        }
    }

    /// The address that a default names, with its id, if it is known.
    pub fn default_address(&self, default: DefaultKind) -> Option<(&str, &KnownAddress)> {
        let id = self.default_id(default)?;
        Some((id, self.get(id)?))
    }

    /// Whether a default names this address.
    pub fn is_default(&self, default: DefaultKind, address_id: &str) -> bool {
        self.default_id(default) == Some(address_id)
    }

    /// Applies the next fact in the order of the log.
    pub fn apply(&mut self, fact: &AddressFact, source: Source) {
        match fact {
            AddressFact::Added {
                address_id,
                address_type,
                address,
                is_default_shipping,
                is_default_billing,
            } => {
                let is_known = self.addresses.contains_key(address_id);
                for (default, wanted) in [
                    (DefaultKind::Shipping, *is_default_shipping),
                    (DefaultKind::Billing, *is_default_billing),
                ] {
                    if wanted {
                        self.name_default(default, Some(address_id), source);
                    } else if is_known && self.is_default(default, address_id) {
                        self.name_default(default, None, source);
                    }
                }
                self.gone.remove(address_id);
                let address = KnownAddress {
                    address_type: address_type.clone(),
                    parts: address.clone(),
                    stale: Vec::new(),
                    updated: source,
                };
                self.addresses.insert(address_id.clone(), address);
            }
            AddressFact::Updated {
                address_id,
                address: whole,
                changes,
            } => {
                if self.gone.contains(address_id) {
                    return;
                }
                let address =
                    self.addresses
                        .entry(address_id.clone())
                        .or_insert_with(|| KnownAddress {
                            address_type: None,
                            parts: event::Address::default(),
                            stale: Vec::new(),
                            updated: source,
                        });
                address.updated = source;
                if let Some(whole) = whole {
                    address.parts.clone_from(whole);
                    address.stale.clear();
                }
                for (name, told) in changes {
                    if name == "addressType" {
                        let stale = &mut address.stale;
                        change_text(&mut address.address_type, stale, "type", told.as_change());
                    } else if let Some(part) = address.parts.part_mut(name) {
                        change_text(part, &mut address.stale, name, told.as_change());
                    }
                }
            }
            AddressFact::Deleted { address_id } => {
                for default in DefaultKind::BOTH {
                    if self.is_default(default, address_id) {
                        self.name_default(default, None, source);
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
                        self.name_default(default, Some(address_id), source);
                    }
                }
            }
        }
    }

    /// Forgets all but which addresses there are, and in which country each is.
    pub fn erase_personal_data(&mut self) {
        for address in self.addresses.values_mut() {
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

    /// Names a default, known or not, or none; its flag moves, and with it what the two addresses were updated by.
    fn name_default(&mut self, default: DefaultKind, address_id: Option<&str>, source: Source) {
        let named = match default {
            DefaultKind::Shipping => &mut self.default_shipping,
            DefaultKind::Billing => &mut self.default_billing,
        };
        let former = std::mem::replace(named, address_id.map(str::to_owned));
        for id in [former.as_deref(), address_id].into_iter().flatten() {
            if let Some(address) = self.addresses.get_mut(id) {
                address.updated = source;
            }
        }
    }
}
