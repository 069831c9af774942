//! The answers of the fulfillment domain. A field that is absent is unknown: no value is guessed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::validation::Validation;
use crate::query::Document;

/// An address to ship to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingAddress {
    pub user_id: String,
    pub address_id: String,
    /// `shipping`, `billing`, `home`, `work`; other values occur.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub address_type: Option<String>,
    /// The recipient: the address's contact, else the parts of the user's first and last name that
    /// are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_name: Option<String>,
    /// The recipient's phone number: the address's contact's, else the user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company_name: Option<String>,
    /// The lines of the street address; blank lines are left out.
    pub lines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// As the event has it, in upper case: ISO 3166-1 alpha-2, unless the event has another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    pub is_default_shipping: bool,
    pub is_default_billing: bool,
    /// Fields that are known to have changed, but not to what, and fields that are made from such
    /// data.
    pub stale_fields: Vec<String>,
    /// When the last event that named this address or changed its default flags happened.
    pub updated_at: DateTime<Utc>,
    pub validation: Validation,
}

/// What an address is after it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShippingAddressChangeKind {
    /// It can be shipped to, as it is now.
    Current,
    /// It was deleted, by itself or with its user.
    Removed,
}

/// The state of an address after it has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingAddressChange {
    /// The cursor to continue from after this change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(required)]
    pub cursor: String,
    pub user_id: String,
    pub address_id: String,
    pub kind: ShippingAddressChangeKind,
    /// The address as it is; absent if it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<ShippingAddress>,
}

/// A user's addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShippingAddresses {
    /// In the order of their ids. A deleted user has no addresses.
    pub addresses: Vec<ShippingAddress>,
}

/// A page of the addresses that match a search.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundAddresses {
    /// In a stable order.
    #[schema(value_type = Vec<ShippingAddress>)]
    pub addresses: Vec<Document<ShippingAddress>>,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
