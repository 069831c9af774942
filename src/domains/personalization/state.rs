//! What the personalization domain stores of a user, as one JSON document: what the profile is made
//! from, and what later events depend on. Of addresses only country, city and state are kept.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::model::{Location, Profile};
use super::preferences::Preferences;
use crate::event::{Address, Changes, Payload};
use crate::fold::addresses::{AddressBook, AddressFact, DefaultKind, KnownAddress, Source};
use crate::fold::change_text;
use crate::projector::NewEvent;

/// A user as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProfileState {
    pub preferences: Preferences,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_preference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone_preference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_picture_url: Option<String>,
    /// The names of the four fields above that changed to an unknown value; sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
    pub book: AddressBook<Source>,
    /// The ids of the known addresses, in the order in which they became known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub became_known: Vec<String>,
    /// When the user's last event happened; `None` before the first, and once the user was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// Whether the user was deleted. Nothing else is stored then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}

impl ProfileState {
    /// Applies an event about the profile or an address.
    pub fn change(&mut self, new_event: &NewEvent) {
        self.updated_at = Some(new_event.event.occurred_at);
        match &new_event.event.payload {
            Payload::UserProfileUpdated(updated) => self.change_profile(&updated.changes),
            payload => {
                if let Some(fact) = AddressFact::of(payload) {
                    self.change_addresses(&without_street(fact), Source::from(new_event));
                }
            }
        }
    }

    fn change_profile(&mut self, changes: &Changes) {
        for (name, value) in [
            ("bio", &mut self.bio),
            ("languagePreference", &mut self.language_preference),
            ("timezonePreference", &mut self.timezone_preference),
            ("profilePictureUrl", &mut self.profile_picture_url),
        ] {
            if let Some(change) = changes.text(name) {
                change_text(value, &mut self.stale, name, change);
            }
        }
        // The fold has refused events that are nested too deep before.
        self.preferences.apply(changes).ok();
    }

    fn change_addresses(&mut self, fact: &AddressFact, source: Source) {
        let address_id = match fact {
            AddressFact::Added { address_id, .. }
            | AddressFact::Updated { address_id, .. }
            | AddressFact::Deleted { address_id } => Some(address_id),
            AddressFact::DefaultsNamed { .. } => None,
        };
        let is_known =
            |book: &AddressBook<Source>| address_id.is_some_and(|id| book.get(id).is_some());
        let was_known = is_known(&self.book);
        self.book.apply(fact, source);
        match (address_id, was_known, is_known(&self.book)) {
            (Some(id), false, true) => self.became_known.push(id.clone()),
            (Some(id), true, false) => self.became_known.retain(|known| known != id),
            _ => {}
        }
    }

    /// The default shipping address if it is known, else the address that became known last.
    fn address(&self) -> Option<&KnownAddress<Source>> {
        let default = self.book.default_address(DefaultKind::Shipping);
        let last = || self.book.get(self.became_known.last()?);
        default.map(|(_, address)| address).or_else(last)
    }

    /// Where the user is; `None` if nothing is known of it.
    pub fn location(&self) -> Option<Location> {
        let parts = &self.address()?.parts;
        let location = Location {
            country_code: parts.country.clone(),
            city: parts.city.clone(),
            state: parts.state_or_province.clone(),
        };
        Some(location).filter(|location| *location != Location::default())
    }

    /// The profile as answered; `None` for a deleted user.
    pub fn into_profile(self, user_id: &str) -> Option<Profile> {
        let countries: BTreeSet<String> = self
            .book
            .iter()
            .filter_map(|(_, address)| address.parts.country.clone())
            .collect();
        Some(Profile {
            user_id: user_id.to_owned(),
            location: self.location(),
            countries: countries.into_iter().collect(),
            stale_fields: self.stale_fields(),
            updated_at: self.updated_at.filter(|_| !self.is_deleted)?,
            preferences: self.preferences.preferences,
            communication_preferences: self.preferences.communication_preferences,
            bio: self.bio,
            language_preference: self.language_preference,
            timezone_preference: self.timezone_preference,
            profile_picture_url: self.profile_picture_url,
        })
    }

    /// The profile's fields that changed to an unknown value, and those that are made from such
    /// data; sorted.
    fn stale_fields(&self) -> Vec<String> {
        let is_stale =
            |address: &KnownAddress<Source>, part: &str| address.stale.iter().any(|p| p == part);
        let has = |part: &str| {
            self.address()
                .is_some_and(|address| is_stale(address, part))
        };
        let any = |part: &str| self.book.iter().any(|(_, address)| is_stale(address, part));
        let of_addresses = [
            ("countries", any("country")),
            ("location.city", has("city")),
            ("location.countryCode", has("country")),
            ("location.state", has("stateOrProvince")),
        ];
        let mut fields: Vec<String> = of_addresses
            .into_iter()
            .filter(|(_, is_stale)| *is_stale)
            .map(|(field, _)| field.to_owned())
            .chain(self.stale.iter().cloned())
            .chain(self.preferences.stale.iter().cloned())
            .collect();
        fields.sort_unstable();
        fields
    }
}

/// The parts of an address that the view keeps, by their names in events.
const KEPT_PARTS: [&str; 3] = ["country", "city", "stateOrProvince"];

/// What the view keeps of a fact: no street, no contact, no type.
fn without_street(fact: AddressFact) -> AddressFact {
    let kept = |address: Address| Address {
        country: address.country,
        city: address.city,
        state_or_province: address.state_or_province,
        ..Address::default()
    };
    match fact {
        AddressFact::Added {
            address_id,
            address,
            is_default_shipping,
            is_default_billing,
            ..
        } => AddressFact::Added {
            address_id,
            address_type: None,
            address: kept(address),
            is_default_shipping,
            is_default_billing,
        },
        AddressFact::Updated {
            address_id,
            address,
            mut changes,
        } => {
            changes.retain(|name, _| KEPT_PARTS.contains(&name.as_str()));
            AddressFact::Updated {
                address_id,
                address: address.map(kept),
                changes,
            }
        }
        fact => fact,
    }
}
