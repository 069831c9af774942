//! Which changes of addresses and defaults an event makes, for the feed. Pure.
//!
//! A change is `significant` if unshipped orders would now go to a different address. To decide
//! this, the default address is compared with the one that was last in use. A default is in use
//! while its address is known: if it names an unknown address, orders wait for that address instead
//! of going elsewhere.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::model::{Address, AddressChangeKind, Book};
use crate::fold::addresses::{AddressFact, DefaultKind, KnownAddress};

/// A change, without the user and the event that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeDetails {
    pub kind: AddressChangeKind,
    pub address_id: String,
    pub affects_default_shipping: bool,
    pub affects_default_billing: bool,
    pub significant: bool,
    pub before: Option<Address>,
    pub after: Option<Address>,
}

/// The destinations that the customer's defaults had when they were last in use. Stored with the
/// customer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LastInUse {
    #[serde(skip_serializing_if = "LastDestination::is_never")]
    shipping: LastDestination,
    #[serde(skip_serializing_if = "LastDestination::is_never")]
    billing: LastDestination,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LastDestination {
    /// The default has never been in use. The first destination is not a significant change.
    #[default]
    Never,
    /// The destination of the default.
    Address(Box<Destination>),
    /// The default's address was deleted or lost its flag, and there is no other default.
    Deleted,
}

impl LastDestination {
    fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

/// The parts of an address that decide where a parcel goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Destination {
    address_id: String,
    /// In the order of [`PARTS`].
    parts: [Option<String>; PARTS.len()],
    /// The parts that had changed to an unknown value.
    stale: Vec<String>,
}

const PARTS: [&str; 5] = [
    "country",
    "stateOrProvince",
    "postalCode",
    "city",
    "streetLine1",
];

impl Destination {
    fn of(address_id: &str, address: &KnownAddress<DateTime<Utc>>) -> Self {
        let mut parts = address.parts.clone();
        let is_part = |name: &&String| PARTS.contains(&name.as_str());
        Self {
            address_id: address_id.to_owned(),
            parts: PARTS.map(|name| parts.part_mut(name).and_then(Option::take)),
            stale: address.stale.iter().filter(is_part).cloned().collect(),
        }
    }

    /// Whether a parcel may go elsewhere: a part has a different value, or has become stale. A
    /// stale part that is confirmed to have its old value makes no difference.
    fn differs_from(&self, before: &Self) -> bool {
        self.address_id != before.address_id
            || self.parts != before.parts
            || self.stale.iter().any(|name| !before.stale.contains(name))
    }
}

impl LastInUse {
    fn of(&mut self, default: DefaultKind) -> &mut LastDestination {
        match default {
            DefaultKind::Shipping => &mut self.shipping,
            DefaultKind::Billing => &mut self.billing,
        }
    }
}

/// Applies a fact to a book. Returns the changes that it makes: of one address at most one, and
/// none if just its time is different.
pub fn apply(
    book: &mut Book,
    last_in_use: &mut LastInUse,
    fact: &AddressFact,
    at: DateTime<Utc>,
) -> Vec<ChangeDetails> {
    let (kind, address_id) = match fact {
        AddressFact::DefaultsNamed { .. } => {
            return change_defaults(book, last_in_use, fact, at);
        }
        AddressFact::Added { address_id, .. } => (AddressChangeKind::Added, address_id),
        AddressFact::Updated { address_id, .. } => (AddressChangeKind::Updated, address_id),
        AddressFact::Deleted { address_id } => (AddressChangeKind::Deleted, address_id),
    };
    let before = Address::of(book, address_id);
    let significant = apply_and_judge(book, last_in_use, fact, at);
    let after = Address::of(book, address_id);
    if without_time(&before) == without_time(&after) {
        return Vec::new();
    }
    let was_or_is = |flag: fn(&Address) -> Option<bool>| {
        let is = |address: &Option<Address>| address.as_ref().and_then(flag) == Some(true);
        is(&before) || is(&after)
    };
    vec![ChangeDetails {
        kind,
        address_id: address_id.clone(),
        affects_default_shipping: was_or_is(|address| address.is_default_shipping),
        affects_default_billing: was_or_is(|address| address.is_default_billing),
        significant: significant.contains(&true),
        before,
        after,
    }]
}

/// Applies a fact about the defaults. Each default that names another address than before is a
/// change.
fn change_defaults(
    book: &mut Book,
    last_in_use: &mut LastInUse,
    fact: &AddressFact,
    at: DateTime<Utc>,
) -> Vec<ChangeDetails> {
    let before = DefaultKind::BOTH.map(|default| {
        let id = book.default_id(default).map(str::to_owned);
        let address = id.as_deref().and_then(|id| Address::of(book, id));
        (id, address)
    });
    let significant = apply_and_judge(book, last_in_use, fact, at);
    let mut changes = Vec::new();
    for ((default, (former_id, former)), significant) in
        DefaultKind::BOTH.into_iter().zip(before).zip(significant)
    {
        let Some(address_id) = book.default_id(default) else {
            continue;
        };
        if former_id.as_deref() != Some(address_id) {
            changes.push(ChangeDetails {
                kind: AddressChangeKind::DefaultChanged,
                address_id: address_id.to_owned(),
                affects_default_shipping: default == DefaultKind::Shipping,
                affects_default_billing: default == DefaultKind::Billing,
                significant,
                before: former,
                after: Address::of(book, address_id),
            });
        }
    }
    changes
}

/// Applies a fact. Returns for each default whether unshipped orders that use it would now go
/// elsewhere.
fn apply_and_judge(
    book: &mut Book,
    last_in_use: &mut LastInUse,
    fact: &AddressFact,
    at: DateTime<Utc>,
) -> [bool; 2] {
    let was_in_use = DefaultKind::BOTH.map(|default| book.default_address(default).is_some());
    book.apply(fact, at);
    let mut significant = [false; 2];
    for ((default, was_in_use), significant) in DefaultKind::BOTH
        .into_iter()
        .zip(was_in_use)
        .zip(&mut significant)
    {
        let last = last_in_use.of(default);
        match book.default_address(default) {
            Some((id, address)) => {
                let destination = Destination::of(id, address);
                *significant = match last {
                    LastDestination::Never => false,
                    LastDestination::Address(before) => destination.differs_from(before),
                    LastDestination::Deleted => true,
                };
                *last = LastDestination::Address(Box::new(destination));
            }
            None if was_in_use && book.default_id(default).is_none() => {
                *significant = true;
                *last = LastDestination::Deleted;
            }
            // The default names an unknown address, or there was none before: the last destination
            // stays.
            None => {}
        }
    }
    significant
}

/// The address without its time, which every event moves: that alone is not a change.
fn without_time(address: &Option<Address>) -> Option<Address> {
    address.clone().map(|address| Address {
        updated_at: None,
        ..address
    })
}
