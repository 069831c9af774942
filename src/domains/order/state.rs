//! What the order domain stores of a customer, as one JSON document: the answer, and what later
//! events depend on.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use serde::{Deserialize, Serialize};

use super::changes::LastInUse;
use super::model::{Addresses, Customer};
use crate::fold::addresses::AddressBook;

/// A customer as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CustomerState {
    /// Without addresses and defaults: these are in the book.
    pub customer: Customer,
    /// The addresses and the defaults.
    pub book: AddressBook,
    /// What changes of addresses are compared with, to find the significant ones.
    pub last_in_use: LastInUse,
    /// Whether the user was hard-deleted. Nothing changes after that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_erased: bool,
}

impl CustomerState {
    /// Whether the user was deleted.
    pub fn is_deleted(&self) -> bool {
        self.customer.deleted_at.is_some()
    }

    /// The customer as answered.
    pub fn into_customer(self) -> Customer {
        let is_deleted = self.is_deleted();
        let addresses = Addresses::of(self.book, is_deleted);
        Customer {
            default_shipping_address_id: addresses.default_shipping_address_id,
            default_billing_address_id: addresses.default_billing_address_id,
            addresses: addresses.addresses,
            ..self.customer
        }
    }
}
