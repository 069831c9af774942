//! Addresses: the parts of one, their spellings, and how a whole one is read.

use serde::{Deserialize, Serialize};

use super::bad::Bad;
use super::fields::Fields;

/// The names that events use for one part. The first is the name that the part is read under.
pub(super) type Spellings = &'static [&'static str];

const STREET_LINE1: Spellings = &["streetLine1", "addressLine1"];
const STREET_LINE2: Spellings = &["streetLine2", "addressLine2"];
const CITY: Spellings = &["city"];
const STATE_OR_PROVINCE: Spellings = &["stateOrProvince", "state", "province"];
const POSTAL_CODE: Spellings = &["postalCode", "zipCode"];
pub(super) const COUNTRY: Spellings = &["country", "countryCode"];
const CONTACT_NAME: Spellings = &["contactName", "recipientName"];
const CONTACT_PHONE: Spellings = &["contactPhone", "phone"];
const COMPANY_NAME: Spellings = &["companyName"];
const ADDITIONAL_NOTES: Spellings = &["additionalNotes"];

/// All parts of an address.
pub(super) const PARTS: [Spellings; 10] = [
    STREET_LINE1,
    STREET_LINE2,
    CITY,
    STATE_OR_PROVINCE,
    POSTAL_CODE,
    COUNTRY,
    CONTACT_NAME,
    CONTACT_PHONE,
    COMPANY_NAME,
    ADDITIONAL_NOTES,
];

/// A whole address. A part that is `None` is not part of the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Address {
    /// Street and number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub street_line1: Option<String>,
    /// The second line of the street.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub street_line2: Option<String>,
    /// City or town.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// State, province or region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_or_province: Option<String>,
    /// Postal code, as the event has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// Country (ISO 3166-1 alpha-2, or another text), in upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The recipient's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
    /// The recipient's phone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_phone: Option<String>,
    /// The recipient's company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company_name: Option<String>,
    /// Notes for the carrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_notes: Option<String>,
}

impl Address {
    /// The part that is read under this name (`streetLine1`); `None` for any other name.
    pub fn part_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "streetLine1" => &mut self.street_line1,
            "streetLine2" => &mut self.street_line2,
            "city" => &mut self.city,
            "stateOrProvince" => &mut self.state_or_province,
            "postalCode" => &mut self.postal_code,
            "country" => &mut self.country,
            "contactName" => &mut self.contact_name,
            "contactPhone" => &mut self.contact_phone,
            "companyName" => &mut self.company_name,
            "additionalNotes" => &mut self.additional_notes,
            _ => return None,
        })
    }

    /// Reads the object `fullAddress`.
    pub(super) fn read(fields: &Fields) -> Result<Self, Bad> {
        // The first spelling that is given counts, but every spelling must have the right type.
        let part = |spellings: Spellings| {
            let mut part = None;
            for spelling in spellings {
                let text = fields.optional_text(spelling)?;
                part = part.or(text);
            }
            Ok(part)
        };
        Ok(Self {
            street_line1: part(STREET_LINE1)?,
            street_line2: part(STREET_LINE2)?,
            city: part(CITY)?,
            state_or_province: part(STATE_OR_PROVINCE)?,
            postal_code: part(POSTAL_CODE)?,
            country: part(COUNTRY)?.map(|country| country.to_ascii_uppercase()),
            contact_name: part(CONTACT_NAME)?,
            contact_phone: part(CONTACT_PHONE)?,
            company_name: part(COMPANY_NAME)?,
            additional_notes: part(ADDITIONAL_NOTES)?,
        })
    }
}
