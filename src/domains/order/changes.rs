//! What an event changes in a customer's addresses, as the feed tells it: pure.
//!
//! A change is `significant` where the address that unshipped orders would use has changed. That is judged against
//! what a default's address was when it was last in use, which is while it is known: a default that is named before
//! its address makes orders wait, not go elsewhere.

use serde::{Deserialize, Serialize};

use super::model::{Address, AddressChangeKind};
use crate::fold::addresses::{AddressBook, AddressFact, DefaultKind, KnownAddress, Source};

/// What is told of one change, without where and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub kind: AddressChangeKind,
    pub address_id: String,
    pub affects_default_shipping: bool,
    pub affects_default_billing: bool,
    pub significant: bool,
    pub before: Option<Address>,
    pub after: Option<Address>,
}

/// What the customer's defaults were when they were last in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastInUse {
    #[serde(skip_serializing_if = "InUse::is_never")]
    shipping: InUse,
    #[serde(skip_serializing_if = "InUse::is_never")]
    billing: InUse,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InUse {
    /// There was no default whose address was known: the first one is no news to an order.
    #[default]
    Never,
    /// This address, as it was.
    Address(Box<Used>),
    /// One that was deleted, or is no default any more.
    Deleted,
}

impl InUse {
    fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

/// Of an address, what decides where a parcel goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Used {
    address_id: String,
    /// In the order of [`PARTS`].
    parts: [Option<String>; PARTS.len()],
    /// Those of them that were known to have changed, but not to what.
    stale: Vec<String>,
}

const PARTS: [&str; 5] = [
    "country",
    "stateOrProvince",
    "postalCode",
    "city",
    "streetLine1",
];

impl Used {
    fn of(address_id: &str, address: &KnownAddress) -> Self {
        let mut parts = address.parts.clone();
        let is_part = |name: &&String| PARTS.contains(&name.as_str());
        Self {
            address_id: address_id.to_owned(),
            parts: PARTS.map(|name| parts.part_mut(name).and_then(Option::take)),
            stale: address.stale.iter().filter(is_part).cloned().collect(),
        }
    }

    /// Whether a parcel would go elsewhere, or nobody knows where. A part that was stale and is confirmed is none.
    fn differs_from(&self, before: &Self) -> bool {
        self.address_id != before.address_id
            || self.parts != before.parts
            || self.stale.iter().any(|name| !before.stale.contains(name))
    }
}

impl LastInUse {
    fn of(&mut self, default: DefaultKind) -> &mut InUse {
        match default {
            DefaultKind::Shipping => &mut self.shipping,
            DefaultKind::Billing => &mut self.billing,
        }
    }
}

/// Applies a fact to a book, and tells what it changed.
pub fn apply(
    book: &mut AddressBook,
    last_in_use: &mut LastInUse,
    fact: &AddressFact,
    source: Source,
) -> Vec<Change> {
    let was_in_use = DefaultKind::BOTH.map(|default| book.default_address(default).is_some());
    match fact {
        AddressFact::DefaultsNamed { .. } => {
            let named = |book: &AddressBook, default| book.default_id(default).map(str::to_owned);
            let before = DefaultKind::BOTH.map(|default| {
                let former = named(book, default);
                let address = former
                    .as_deref()
                    .and_then(|id| Address::of(book, id, false));
                (former, address)
            });
            book.apply(fact, source);
            let significant = judge(book, last_in_use, was_in_use);
            let mut changes = Vec::new();
            for ((default, (former, before)), significant) in
                DefaultKind::BOTH.into_iter().zip(before).zip(significant)
            {
                let Some(address_id) = named(book, default) else {
                    continue;
                };
                if former.as_deref() != Some(&address_id) {
                    changes.push(Change {
                        kind: AddressChangeKind::DefaultChanged,
                        affects_default_shipping: default == DefaultKind::Shipping,
                        affects_default_billing: default == DefaultKind::Billing,
                        significant,
                        before,
                        after: Address::of(book, &address_id, false),
                        address_id,
                    });
                }
            }
            changes
        }
        AddressFact::Added { address_id, .. }
        | AddressFact::Updated { address_id, .. }
        | AddressFact::Deleted { address_id } => {
            let address = Address::of(book, address_id, false);
            book.apply(fact, source);
            let significant = judge(book, last_in_use, was_in_use);
            let after = Address::of(book, address_id, false);
            if without_time(&address) == without_time(&after) {
                return Vec::new();
            }
            let is_default = |address: &Option<Address>, flag: fn(&Address) -> Option<bool>| {
                address.as_ref().and_then(flag) == Some(true)
            };
            let affects = |flag| is_default(&address, flag) || is_default(&after, flag);
            vec![Change {
                kind: match fact {
                    AddressFact::Added { .. } => AddressChangeKind::Added,
                    AddressFact::Updated { .. } => AddressChangeKind::Updated,
                    _ => AddressChangeKind::Deleted,
                },
                address_id: address_id.clone(),
                affects_default_shipping: affects(|address| address.is_default_shipping),
                affects_default_billing: affects(|address| address.is_default_billing),
                significant: significant.contains(&true),
                before: address,
                after,
            }]
        }
    }
}

/// For each default, whether a fact that was applied has changed where unshipped orders go.
fn judge(book: &AddressBook, last_in_use: &mut LastInUse, was_in_use: [bool; 2]) -> [bool; 2] {
    let mut significant = [false; 2];
    for ((default, was_in_use), significant) in DefaultKind::BOTH
        .into_iter()
        .zip(was_in_use)
        .zip(&mut significant)
    {
        let last = last_in_use.of(default);
        match book.default_address(default) {
            Some((id, address)) => {
                let now = Used::of(id, address);
                *significant = match last {
                    InUse::Never => false,
                    InUse::Address(before) => now.differs_from(before),
                    InUse::Deleted => true,
                };
                *last = InUse::Address(Box::new(now));
            }
            None if was_in_use && book.default_id(default).is_none() => {
                *significant = true;
                *last = InUse::Deleted;
            }
            // While the address that it names is not known, nothing else is in use.
            None => {}
        }
    }
    significant
}

/// Every event moves the time; that alone is no change.
fn without_time(address: &Option<Address>) -> Option<Address> {
    address.clone().map(|address| Address {
        updated_at: None,
        ..address
    })
}
