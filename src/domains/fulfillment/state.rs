//! What the fulfillment domain stores of a user, as one JSON document, and the facts of its
//! history.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::ShippingAddress;
use super::validation::{Subject, is_blank, validate};
use crate::event::{Change, Payload};
use crate::fold::addresses::{
    AddressBook, AddressFact, DefaultKind, KnownAddress, Source, TextChange,
};
use crate::fold::change_text;

/// A user as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RecipientState {
    /// What the user's shipping addresses are made from.
    pub recipient: Recipient,
    /// Whether the user had any event besides deletions.
    pub is_known: bool,
    /// Whether the user was deleted. Nothing is stored after that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}

/// A user as the recipient of parcels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Recipient {
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    /// The names of the three fields above that changed to an unknown value; sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stale: Vec<String>,
    /// The user's addresses and defaults.
    pub book: AddressBook<Source>,
}

/// What an event says about a user's shipping addresses, in the form in which it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Fact {
    /// About an address or a default.
    Address(Box<AddressFact>),
    /// About the user.
    Person {
        /// Changes of `firstName`, `lastName` and `phoneNumber`.
        person: BTreeMap<String, TextChange>,
    },
}

impl Fact {
    /// What an event says about shipping addresses; `None` for an event about something else.
    pub fn of(payload: &Payload) -> Option<Self> {
        let person: BTreeMap<String, TextChange> = match payload {
            Payload::UserRegistered(registered) => [
                ("firstName", &registered.first_name),
                ("lastName", &registered.last_name),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), TextChange::Value(value.clone()?))))
            .collect(),
            Payload::UserProfileUpdated(updated) => ["firstName", "lastName", "phoneNumber"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), updated.changes.text(name)?.into())))
                .collect(),
            payload => return AddressFact::of(payload).map(|fact| Self::Address(Box::new(fact))),
        };
        (!person.is_empty()).then_some(Self::Person { person })
    }
}

impl Recipient {
    /// Applies the next fact, in the order of the log.
    pub fn apply(&mut self, fact: &Fact, source: Source) {
        match fact {
            Fact::Address(fact) => self.book.apply(fact, source),
            Fact::Person { person } => {
                for (name, change) in person {
                    self.change(name, change.as_change());
                }
            }
        }
    }

    fn change(&mut self, name: &str, change: Change<&str>) {
        let value = match name {
            "firstName" => &mut self.first_name,
            "lastName" => &mut self.last_name,
            "phoneNumber" => &mut self.phone_number,
            _ => return,
        };
        change_text(value, &mut self.stale, name, change);
    }

    /// All known addresses, in the order of their ids.
    pub fn addresses(&self, user_id: &str) -> Vec<ShippingAddress> {
        self.book
            .iter()
            .map(|(address_id, known)| self.shipping_address(user_id, address_id, known))
            .collect()
    }

    /// The address with this id, if it is known.
    pub fn address(&self, user_id: &str, address_id: &str) -> Option<ShippingAddress> {
        let known = self.book.get(address_id)?;
        Some(self.shipping_address(user_id, address_id, known))
    }

    fn shipping_address(
        &self,
        user_id: &str,
        address_id: &str,
        known: &KnownAddress<Source>,
    ) -> ShippingAddress {
        let stale_fields = self.stale_fields(known);
        let recipient_name = contact_name(known)
            .map(str::to_owned)
            .or_else(|| self.full_name());
        let KnownAddress {
            address_type,
            parts,
            updated,
            ..
        } = known.clone();
        let lines: Vec<String> = [parts.street_line1, parts.street_line2]
            .into_iter()
            .flatten()
            .filter(|line| !is_blank(line))
            .collect();
        let validation = validate(Subject {
            recipient_name: recipient_name.as_deref(),
            lines: &lines,
            city: parts.city.as_deref(),
            state: parts.state_or_province.as_deref(),
            postal_code: parts.postal_code.as_deref(),
            country_code: parts.country.as_deref(),
        });
        ShippingAddress {
            user_id: user_id.to_owned(),
            address_id: address_id.to_owned(),
            address_type,
            recipient_name,
            phone: parts.contact_phone.or_else(|| self.phone_number.clone()),
            company_name: parts.company_name,
            lines,
            city: parts.city,
            state: parts.state_or_province,
            postal_code: parts.postal_code,
            country_code: parts.country,
            notes: parts.additional_notes,
            is_default_shipping: self.book.is_default(DefaultKind::Shipping, address_id),
            is_default_billing: self.book.is_default(DefaultKind::Billing, address_id),
            stale_fields,
            updated_at: updated.at,
            validation,
        }
    }

    /// The names that are known and not blank, joined by a space.
    fn full_name(&self) -> Option<String> {
        let names: Vec<&str> = [&self.first_name, &self.last_name]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|name| !is_blank(name))
            .collect();
        Some(names.join(" ")).filter(|name| !name.is_empty())
    }

    /// The fields of a shipping address that are made from stale data; sorted.
    fn stale_fields(&self, address: &KnownAddress<Source>) -> Vec<String> {
        let part = |name: &str| address.stale.iter().any(|stale| stale == name);
        let person = |name: &str| self.stale.iter().any(|stale| stale == name);
        // The user's data stand in only where the address has no contact.
        let phone = address.parts.contact_phone.is_none() && person("phoneNumber");
        let name = contact_name(address).is_none() && (person("firstName") || person("lastName"));
        let fields = [
            ("city", part("city")),
            ("companyName", part("companyName")),
            ("countryCode", part("country")),
            ("lines", part("streetLine1") || part("streetLine2")),
            ("notes", part("additionalNotes")),
            ("phone", part("contactPhone") || phone),
            ("postalCode", part("postalCode")),
            ("recipientName", part("contactName") || name),
            ("state", part("stateOrProvince")),
            ("type", part("type")),
        ];
        fields
            .into_iter()
            .filter(|(_, is_stale)| *is_stale)
            .map(|(field, _)| field.to_owned())
            .collect()
    }
}

/// The address's contact, if the name is not blank.
fn contact_name(address: &KnownAddress<Source>) -> Option<&str> {
    let name = address.parts.contact_name.as_deref();
    name.filter(|name| !is_blank(name))
}
