//! What the fulfillment domain answers with, and what it keeps. Absent means unknown; nothing is ever guessed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::validation::{Subject, Validation, validate};
use crate::event::{Change, Payload};
use crate::fold::addresses::{AddressBook, AddressFact, DefaultKind, KnownAddress, Source, Told};
use crate::fold::change_text;

/// An address to ship to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShippingAddress {
    pub user_id: String,
    pub address_id: String,
    /// `shipping`, `billing`, `home`, `work`; others occur.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub address_type: Option<String>,
    /// Whom to hand it to: the address's contact, else the user's first and last name as far as they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient_name: Option<String>,
    /// Whom to call: the address's contact, else the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company_name: Option<String>,
    /// The lines of the street address, without empty ones.
    pub lines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// ISO 3166-1 alpha-2, upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    pub is_default_shipping: bool,
    pub is_default_billing: bool,
    /// Fields that are known to have changed, but not to what, or are made from such.
    pub stale_fields: Vec<String>,
    /// When the last event that named this address, or moved its default flags, happened.
    pub updated_at: DateTime<Utc>,
    pub validation: Validation,
}

/// A user's addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShippingAddresses {
    /// In the order of their ids; none of a deleted user.
    pub addresses: Vec<ShippingAddress>,
}

/// Addresses that have something in common, a page of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundAddresses {
    /// In an order that stays.
    pub addresses: Vec<ShippingAddress>,
    /// Where the next page begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What a user's shipping addresses are made from, in the form in which it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// Of an address.
    Address(Box<AddressFact>),
    /// Of the user: `firstName`, `lastName`, `phoneNumber`.
    Person {
        /// By the fields' names.
        person: BTreeMap<String, Told>,
    },
}

impl Fact {
    /// What an event tells, `None` where that is nothing.
    pub fn of(payload: &Payload) -> Option<Self> {
        let person: BTreeMap<String, Told> = match payload {
            Payload::UserRegistered(registered) => [
                ("firstName", &registered.first_name),
                ("lastName", &registered.last_name),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Told::Value(value.clone()?))))
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

/// A user, as far as parcels are concerned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Recipient {
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_number: Option<String>,
    /// Names of the three that changed to nobody knows what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stale: Vec<String>,
    /// The user's addresses.
    pub book: AddressBook,
}

impl Recipient {
    /// Applies the next fact in the order of the log.
    pub fn apply(&mut self, fact: &Fact, source: Source) {
        match fact {
            Fact::Address(fact) => self.book.apply(fact, source),
            Fact::Person { person } => {
                for (name, told) in person {
                    self.change(name, told.as_change());
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

    /// All addresses, in the order of their ids.
    pub fn addresses(&self, user_id: &str) -> Vec<ShippingAddress> {
        self.book
            .iter()
            .filter_map(|(address_id, _)| self.address(user_id, address_id))
            .collect()
    }

    /// One address, if it is known.
    pub fn address(&self, user_id: &str, address_id: &str) -> Option<ShippingAddress> {
        let KnownAddress {
            address_type,
            parts,
            stale,
            updated,
        } = self.book.get(address_id)?.clone();
        let is_stale = |name: &str| stale.iter().any(|stale| stale == name);
        let is_person_stale = |name: &str| self.stale.iter().any(|stale| stale == name);
        let names = [&self.first_name, &self.last_name];
        let name = names
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ");
        let of_names = is_person_stale("firstName") || is_person_stale("lastName");
        let of_phone = is_person_stale("phoneNumber");
        // What there is no contact for is made from the user.
        let made_of = |contact: &Option<String>, name, of_person| {
            is_stale(name) || (contact.is_none() && of_person)
        };
        let mut stale_fields: Vec<String> = [
            ("city", is_stale("city")),
            ("companyName", is_stale("companyName")),
            ("countryCode", is_stale("country")),
            ("lines", is_stale("streetLine1") || is_stale("streetLine2")),
            ("notes", is_stale("additionalNotes")),
            (
                "phone",
                made_of(&parts.contact_phone, "contactPhone", of_phone),
            ),
            ("postalCode", is_stale("postalCode")),
            (
                "recipientName",
                made_of(&parts.contact_name, "contactName", of_names),
            ),
            ("state", is_stale("stateOrProvince")),
            ("type", is_stale("type")),
        ]
        .into_iter()
        .filter(|(_, is_stale)| *is_stale)
        .map(|(name, _)| name.to_owned())
        .collect();
        stale_fields.sort_unstable();
        let mut address = ShippingAddress {
            user_id: user_id.to_owned(),
            address_id: address_id.to_owned(),
            address_type,
            recipient_name: parts
                .contact_name
                .or_else(|| Some(name).filter(|name| !name.is_empty())),
            phone: parts.contact_phone.or_else(|| self.phone_number.clone()),
            company_name: parts.company_name,
            lines: [parts.street_line1, parts.street_line2]
                .into_iter()
                .flatten()
                .collect(),
            city: parts.city,
            state: parts.state_or_province,
            postal_code: parts.postal_code,
            country_code: parts.country,
            notes: parts.additional_notes,
            is_default_shipping: self.book.is_default(DefaultKind::Shipping, address_id),
            is_default_billing: self.book.is_default(DefaultKind::Billing, address_id),
            stale_fields,
            updated_at: updated.at,
            validation: Validation::default(),
        };
        address.validation = validate(Subject {
            recipient_name: address.recipient_name.as_deref(),
            lines: &address.lines,
            city: address.city.as_deref(),
            state: address.state.as_deref(),
            postal_code: address.postal_code.as_deref(),
            country_code: address.country_code.as_deref(),
        });
        Some(address)
    }
}

/// A user as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    pub recipient: Recipient,
    /// Whether anything but a deletion was ever heard of the user.
    pub is_known: bool,
    /// Whether the user was deleted, after which nothing is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}
