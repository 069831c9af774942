//! The answers of the order domain. A field that is absent is unknown: no value is guessed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{self, DeletionType};
use crate::fold::addresses::{AddressBook, DefaultKind, KnownAddress};
use crate::query::Document;

/// A customer's addresses and defaults, and when each address changed last.
pub type Book = AddressBook<DateTime<Utc>>;

/// A customer: name, contact data, addresses and defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Customer {
    /// The user's id: an opaque string.
    pub user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Absent if the email is known to have changed, but not to what.
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
    /// `pending_verification`, `active`, `suspended`, `banned`, `deactivated`, `deleted`; other
    /// values occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<DateTime<Utc>>,
    /// When the user's last event that this view is made from happened.
    // Set with the first event of the user, so that answers always have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required)]
    pub updated_at: Option<DateTime<Utc>>,
    /// When the user was deleted. Personal data is erased at that point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// Fields that are known to have changed, but not to what. The User Service has the current
    /// values.
    pub stale_fields: Vec<String>,
    /// The address with this id may not be known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_shipping_address_id: Option<String>,
    /// The address with this id may not be known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_billing_address_id: Option<String>,
    /// In the order of their ids.
    pub addresses: Vec<Address>,
}

/// One of a customer's addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Address {
    pub address_id: String,
    /// `shipping`, `billing`, `home`, `work`; other values occur.
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
    /// As the event has it, in upper case: ISO 3166-1 alpha-2, unless the event has another text.
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
    /// Absent only if the customer was deleted: then just the address's id and country remain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default_shipping: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default_billing: Option<bool>,
    /// Fields of this address that are known to have changed, but not to what.
    // Answers always have it. The stored changes of deleted customers don't.
    #[serde(default)]
    #[schema(required)]
    pub stale_fields: Vec<String>,
    /// When the last event that named this address or changed its default flags happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}

/// The requested customers that are known, and the ids of the others.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Customers {
    /// In the order of the request.
    #[schema(value_type = Vec<Customer>)]
    pub customers: Vec<Document<Customer>>,
    /// The ids of unknown users.
    pub missing: Vec<String>,
}

/// What happened to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressChangeKind {
    /// The address was added, or added again.
    Added,
    /// A part of the address changed.
    Updated,
    /// The address was deleted.
    Deleted,
    /// The address became a default.
    DefaultChanged,
}

/// One change of an address or of a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressChange {
    /// The cursor to continue from after this change.
    // Answers always have it. Stored changes don't.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(required)]
    pub cursor: String,
    pub user_id: String,
    /// The id of the address; for `default_changed`, of the new default.
    pub address_id: String,
    pub kind: AddressChangeKind,
    /// Whether the address was or became the default shipping address.
    pub affects_default_shipping: bool,
    /// Whether the address was or became the default billing address.
    pub affects_default_billing: bool,
    /// Whether unshipped orders would now go to a different address.
    pub significant: bool,
    /// The address before the change; for `default_changed`, the former default. Absent if there
    /// was none or it was unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Address>,
    /// The address after the change; for `default_changed`, the new default. Absent if there is
    /// none or it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Address>,
    pub occurred_at: DateTime<Utc>,
    /// The id of the event that made the change.
    pub event_id: String,
}

/// A customer was deleted: mirrors of addresses forget this customer's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomerDeleted {
    pub user_id: String,
    /// The customer's `deletedAt`: a hard deletion after a soft one does not move it.
    // An older release writes it so, beside further fields.
    #[serde(alias = "occurredAt")]
    pub deleted_at: DateTime<Utc>,
    pub deletion_type: DeletionType,
}

/// What a watch of the feed sends.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum WatchedChange {
    Address(Box<AddressChange>),
    CustomerDeleted(CustomerDeleted),
}

/// A page of the feed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressChanges {
    /// Changes of one partition are in the order in which they were applied.
    pub changes: Vec<AddressChange>,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A customer's addresses and defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// In the order of their ids.
    pub addresses: Vec<Address>,
    /// The address with this id may not be known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_shipping_address_id: Option<String>,
    /// The address with this id may not be known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_billing_address_id: Option<String>,
}

impl Addresses {
    /// The addresses and defaults of a book. Of a deleted customer's addresses just ids and
    /// countries remain, and no defaults.
    pub fn of(book: &Book, is_deleted: bool) -> Self {
        if is_deleted {
            // So much remains of them that orders can still refer to them.
            let remaining = book.iter().map(|(id, address)| Address {
                address_id: id.to_owned(),
                country: address.parts.country.clone(),
                ..Address::default()
            });
            return Self {
                addresses: remaining.collect(),
                ..Self::default()
            };
        }
        let [shipping, billing] =
            DefaultKind::BOTH.map(|default| book.default_id(default).map(str::to_owned));
        let addresses = book.iter();
        let addresses = addresses.map(|(id, address)| Address::new(book, id, address));
        Self {
            addresses: addresses.collect(),
            default_shipping_address_id: shipping,
            default_billing_address_id: billing,
        }
    }
}

impl Address {
    /// An address of a book, if it is known.
    pub fn of(book: &Book, address_id: &str) -> Option<Self> {
        let address = book.get(address_id)?;
        Some(Self::new(book, address_id, address))
    }

    fn new(book: &Book, address_id: &str, address: &KnownAddress<DateTime<Utc>>) -> Self {
        let parts = address.parts.clone();
        Self {
            address_id: address_id.to_owned(),
            address_type: address.address_type.clone(),
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
            stale_fields: address.stale.clone(),
            updated_at: Some(address.updated),
        }
    }

    /// The address as a book has it, with its id. That of a deleted customer has no time of its own: the
    /// deletion changed it last.
    pub fn into_known(
        self,
        deleted_at: Option<DateTime<Utc>>,
    ) -> (String, KnownAddress<DateTime<Utc>>) {
        let known = KnownAddress {
            address_type: self.address_type,
            parts: event::Address {
                street_line1: self.street_line1,
                street_line2: self.street_line2,
                city: self.city,
                state_or_province: self.state_or_province,
                postal_code: self.postal_code,
                country: self.country,
                contact_name: self.contact_name,
                contact_phone: self.contact_phone,
                company_name: self.company_name,
                additional_notes: self.additional_notes,
            },
            stale: self.stale_fields,
            updated: self.updated_at.or(deleted_at).unwrap_or_default(),
        };
        (self.address_id, known)
    }
}
