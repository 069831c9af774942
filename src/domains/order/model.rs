//! What the order domain answers with. Absent means unknown; nothing is ever guessed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::changes::LastInUse;
use crate::fold::addresses::{AddressBook, DefaultKind, KnownAddress};

/// A customer, as the Order Service sees one: who it is, how to reach them, and where they want orders sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Customer {
    /// The user's id, an opaque string.
    pub user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Absent where a change of the address is known but not the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// `pending_verification`, `active`, `suspended`, `banned`, `deactivated`, `deleted`; others occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<DateTime<Utc>>,
    /// When the last event of interest about this user happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// When the user was deleted. Personal data is gone from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// Fields that are known to have changed, but not to what: ask the User Service.
    pub stale_fields: Vec<String>,
    /// May name an address that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_shipping_address_id: Option<String>,
    /// May name an address that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_billing_address_id: Option<String>,
    /// In the order of their ids.
    pub addresses: Vec<Address>,
}

/// One of a customer's addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    pub address_id: String,
    /// `shipping`, `billing`, `home`, `work`; others occur.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub address_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub street_line1: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub street_line2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_or_province: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// ISO 3166-1 alpha-2, upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_notes: Option<String>,
    /// Absent only on an address of a deleted customer, of which id and country alone are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default_shipping: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default_billing: Option<bool>,
    /// Fields of this address that are known to have changed, but not to what.
    pub stale_fields: Vec<String>,
    /// When the last event that named this address, or moved its default flags, happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}

/// Customers by id, as many as were asked for and are known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Customers {
    /// In the order in which they were asked for.
    pub customers: Vec<Customer>,
    /// The ids that nobody has heard of.
    pub missing: Vec<String>,
}

/// What happened to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressChangeKind {
    /// It was added, or added again.
    Added,
    /// Some of it changed.
    Updated,
    /// It was deleted.
    Deleted,
    /// It became a default.
    DefaultChanged,
}

impl AddressChangeKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::DefaultChanged => "default_changed",
        }
    }
}

/// One change of an address, or of which address is a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressChange {
    /// Where a reader who has come this far resumes.
    pub cursor: String,
    pub user_id: String,
    /// The address; of `default_changed` the new default.
    pub address_id: String,
    pub kind: AddressChangeKind,
    /// Whether the address was or became the default to ship to.
    pub affects_default_shipping: bool,
    /// Whether the address was or became the default to bill.
    pub affects_default_billing: bool,
    /// Whether the address that unshipped orders would use has changed.
    pub significant: bool,
    /// The address before; of `default_changed` the former default. Absent where there was none, or it was not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Address>,
    /// The address after; of `default_changed` the new default. Absent where there is none, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Address>,
    pub occurred_at: DateTime<Utc>,
    /// The event that told of it.
    pub event_id: String,
}

/// A page of the feed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressChanges {
    /// Per partition of the log in the order in which they were applied.
    pub changes: Vec<AddressChange>,
    /// Where the next page begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A customer as it is stored: what is answered, and what the fold must remember beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Without addresses and defaults, which are in the book.
    pub customer: Customer,
    pub book: AddressBook,
    pub last_in_use: LastInUse,
    /// Whether the deletion was a hard one, after which nothing can change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_erased: bool,
}

impl State {
    /// Whether the customer was deleted.
    pub fn is_deleted(&self) -> bool {
        self.customer.deleted_at.is_some()
    }

    /// The customer as it is answered.
    pub fn into_customer(self) -> Customer {
        let addresses = Addresses::of(&self.book, self.is_deleted());
        Customer {
            default_shipping_address_id: addresses.default_shipping_address_id,
            default_billing_address_id: addresses.default_billing_address_id,
            addresses: addresses.addresses,
            ..self.customer
        }
    }
}

/// A customer's addresses and defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// In the order of their ids.
    pub addresses: Vec<Address>,
    /// May name an address that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_shipping_address_id: Option<String>,
    /// May name an address that is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_billing_address_id: Option<String>,
}

impl Addresses {
    /// Those of a book; of a deleted customer's no more than ids and countries.
    pub fn of(book: &AddressBook, is_deleted: bool) -> Self {
        let named = |default| {
            book.default_id(default)
                .filter(|_| !is_deleted)
                .map(str::to_owned)
        };
        Self {
            addresses: book
                .iter()
                .map(|(id, _)| id)
                .filter_map(|id| Address::of(book, id, is_deleted))
                .collect(),
            default_shipping_address_id: named(DefaultKind::Shipping),
            default_billing_address_id: named(DefaultKind::Billing),
        }
    }
}

impl Address {
    /// One of a book's addresses, if it is known.
    pub fn of(book: &AddressBook, address_id: &str, is_deleted: bool) -> Option<Self> {
        let KnownAddress {
            address_type,
            parts,
            stale,
            updated,
        } = book.get(address_id)?.clone();
        if is_deleted {
            return Some(Self::without_personal_data(address_id, parts.country));
        }
        Some(Self {
            address_id: address_id.to_owned(),
            address_type,
            street_line1: parts.street_line1,
            street_line2: parts.street_line2,
            city: parts.city,
            state_or_province: parts.state_or_province,
            postal_code: parts.postal_code,
            country: parts.country,
            contact_name: parts.contact_name,
            contact_phone: parts.contact_phone,
            company_name: parts.company_name,
            additional_notes: parts.additional_notes,
            is_default_shipping: Some(book.is_default(DefaultKind::Shipping, address_id)),
            is_default_billing: Some(book.is_default(DefaultKind::Billing, address_id)),
            stale_fields: stale,
            updated_at: Some(updated.at),
        })
    }

    /// What is left of an address of a deleted customer, so that orders keep something to point at.
    fn without_personal_data(address_id: &str, country: Option<String>) -> Self {
        Self {
            address_id: address_id.to_owned(),
            country,
            ..Self::default()
        }
    }
}
