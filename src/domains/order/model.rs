//! What the order domain answers with. Absent means unknown; nothing is ever guessed.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

/// A customer as it is stored: what is answered, and what the fold must remember beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    pub customer: Customer,
    /// Addresses that were deleted, known before or not: no late update brings them to life.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<String>,
    /// Whether the deletion was a hard one, after which nothing can change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_erased: bool,
}
