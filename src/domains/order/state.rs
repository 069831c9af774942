//! What the order domain stores of a customer, as one JSON document: the answer as it is sent, and
//! what later events depend on beside it.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer};

use super::changes::LastInUse;
use super::model::{Addresses, Book, Customer};
use crate::fold::addresses::{AddressBook, Source};

/// A customer as folded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "StoredCustomer")]
pub struct CustomerState {
    /// Without addresses and defaults: these are in the book.
    pub customer: Customer,
    /// The addresses and the defaults.
    pub book: Book,
    /// What changes of addresses are compared with, to find the significant ones.
    pub last_in_use: LastInUse,
    /// Whether the user was hard-deleted. Nothing changes after that.
    pub is_erased: bool,
}

/// A customer as written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCustomer<'s> {
    answer: Customer,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    gone: &'s BTreeSet<String>,
    last_in_use: &'s LastInUse,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_erased: bool,
}

/// A customer as read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct StoredCustomer {
    // Until code version 3 without addresses and defaults, which were in the book.
    #[serde(alias = "customer")]
    answer: Customer,
    book: Option<AddressBook<Source>>,
    gone: BTreeSet<String>,
    last_in_use: LastInUse,
    is_erased: bool,
}

impl Serialize for CustomerState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = WrittenCustomer {
            answer: self.to_customer(),
            gone: self.book.gone(),
            last_in_use: &self.last_in_use,
            is_erased: self.is_erased,
        };
        written.serialize(serializer)
    }
}

impl From<StoredCustomer> for CustomerState {
    fn from(stored: StoredCustomer) -> Self {
        let mut customer = stored.answer;
        let deleted_at = customer.deleted_at;
        let addresses = std::mem::take(&mut customer.addresses).into_iter();
        let addresses = addresses.map(|address| address.into_known(deleted_at));
        let defaults = [
            customer.default_shipping_address_id.take(),
            customer.default_billing_address_id.take(),
        ];
        let book = match stored.book {
            Some(book) => book.map(|source| source.at),
            None => Book::new(addresses.collect(), stored.gone, defaults),
        };
        Self {
            customer,
            book,
            last_in_use: stored.last_in_use,
            is_erased: stored.is_erased,
        }
    }
}

impl CustomerState {
    /// Whether the user was deleted.
    pub fn is_deleted(&self) -> bool {
        self.customer.deleted_at.is_some()
    }

    /// The customer as answered.
    pub fn to_customer(&self) -> Customer {
        let addresses = Addresses::of(&self.book, self.is_deleted());
        Customer {
            default_shipping_address_id: addresses.default_shipping_address_id,
            default_billing_address_id: addresses.default_billing_address_id,
            addresses: addresses.addresses,
            ..self.customer.clone()
        }
    }
}
