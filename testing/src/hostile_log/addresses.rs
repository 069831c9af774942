//! Addresses: their ids, their fields in every spelling, and the events that add and update them.

use serde_json::{Map, Value, json};

use super::generator::{Generator, Happening};
use super::odd_ids;
use super::values::{object, uuid};

/// The fields of an address, each with all its spellings.
const SPELLINGS: &[&[&str]] = &[
    &["streetLine1", "addressLine1"],
    &["streetLine2", "addressLine2"],
    &["city"],
    &["stateOrProvince", "state", "province"],
    &["postalCode", "zipCode"],
    &["country", "countryCode"],
    &["contactName", "recipientName"],
    &["contactPhone", "phone"],
    &["companyName"],
    &["additionalNotes"],
];

/// 서울특별시 in jamo, as macOS writes it.
const SEOUL_DECOMPOSED: &str = "\u{1109}\u{1165}\u{110b}\u{116e}\u{11af}\u{1110}\u{1173}\u{11a8}\
                                \u{1107}\u{1167}\u{11af}\u{1109}\u{1175}";

impl Generator {
    pub(super) fn address_added(&mut self, user: usize) -> Happening {
        let id = self.address_id(user);
        let mut payload = object(json!({
            "addressId": id,
            "addressType": self.pick(&["shipping", "billing", "home", "work", "elsewhere"]),
            "isDefaultShipping": self.rng.u32(0..3) == 0,
            "isDefaultBilling": self.rng.u32(0..3) == 0,
            "country": self.pick(&["DE", "fr", "US", "jp", "US ", "ß"]),
        }));
        self.full_address(&mut payload);
        ("UserAddressAdded", payload, &["addTimestamp"])
    }

    pub(super) fn address_updated(&mut self, user: usize) -> Happening {
        let id = self.address_id(user);
        let mut payload = if self.rng.u32(0..3) == 0 {
            let mut payload = object(json!({"updatedFields": {"isDefaultShipping": true}}));
            match self.rng.u32(0..4) {
                0 => payload["updatedFields"]["addressType"] = json!("work"),
                1 => payload["updatedFields"]["addressType"] = json!({"old": "home"}),
                _ => {}
            }
            self.full_address(&mut payload);
            payload
        } else {
            let names: Vec<&str> = SPELLINGS
                .iter()
                .map(|spellings| self.pick(spellings))
                .collect();
            let names = [&names[..], &["addressType", "isDefaultBilling"]].concat();
            self.changes(&names)
        };
        payload.insert("addressId".into(), json!(id));
        ("UserAddressUpdated", payload, &["updateTimestamp"])
    }

    /// Adds `fullAddress`, mostly.
    fn full_address(&mut self, payload: &mut Map<String, Value>) {
        match self.rng.u32(0..6) {
            0 => {}
            1 => drop(payload.insert("fullAddress".into(), Value::Null)),
            2 if self.rng.u32(0..4) == 0 => drop(payload.insert("fullAddress".into(), json!(""))),
            3 => {
                let address = self.postal_address();
                payload.insert("fullAddress".into(), Value::Object(address));
            }
            _ => {
                let mut address = Map::new();
                for spellings in SPELLINGS {
                    if self.rng.u32(0..6) > 0 {
                        let name = self.pick(spellings);
                        let value = self.value(name);
                        address.insert(name.into(), value);
                    }
                }
                payload.insert("fullAddress".into(), Value::Object(address));
            }
        }
    }

    /// An address as it may be written on a parcel, correct or with one mistake.
    pub(super) fn postal_address(&mut self) -> Map<String, Value> {
        let parts = [
            ("DE", "Berlin", None, "10115"),
            ("US", "San Francisco", Some("CA"), "94103"),
            ("US", "New York", Some("NY"), "10001-1234"),
            ("CA", "Toronto", Some("ON"), "M5V 3L9"),
            ("GB", "London", None, "SW1A 1AA"),
            ("fr", "Paris", None, "75001"),
            ("JP", "Chiyoda", Some("Tokyo"), "100-0001"),
            ("AU", "Sydney", Some("NSW"), "2000"),
            ("IT", "Roma", Some("RM"), "00184"),
            ("BR", "Rio de Janeiro", Some("RJ"), "20040-002"),
            ("IE", "Dublin", Some("Co. Dublin"), "D02 X285"),
            ("HK", "Central", Some("Hong Kong Island"), ""),
            ("AE", "Dubai", Some("Dubai"), ""),
            ("in", "Mumbai", Some("Maharashtra"), "400001"),
            ("SG", "Singapore", None, "018956"),
            // Names in other cases, normal forms and spellings, and newer names and codes.
            ("TR", "Sur", Some("DİYARBAKIR"), "21300"),
            ("TR", "Edremit", Some("BALIKESİR"), "10300"),
            ("tr", "Şişli", Some("Istanbul"), "34360"),
            ("BR", "Campinas", Some("Sa\u{303}o Paulo"), "13010-000"),
            ("BR", "Campinas", Some("Sao Paulo"), "13010-000"),
            ("KR", "중구", Some(SEOUL_DECOMPOSED), "04524"),
            ("KR", "춘천시", Some("강원특별자치도"), "24266"),
            ("IN", "Bhubaneswar", Some("IN-OD"), "751001"),
            ("IN", "Hyderabad", Some("TS"), "500001"),
            ("IE", "Dublin", Some("County Dublin"), "D02 X285"),
            ("CN", "朝阳区", Some("cn-bj"), "100020"),
            ("UA", "Київ", Some("МІСТО КИЇВ"), "01001"),
            ("VN", "Hue", Some("Thua\u{300} Hue"), "530000"),
            ("US", "Chicago", Some("İL"), "60601"),
            // Codes with the prefixes that addresses print, and with others.
            ("LT", "Vilnius", None, "LT-01001"),
            ("LU", "Luxembourg", None, "L-1111"),
            ("se", "Stockholm", None, "SE-114 55"),
            ("AZ", "Baku", None, "AZ1000"),
            ("JP", "Chiyoda", Some("TOKYO"), "〒100-0001"),
            ("CH", "Bern", None, "DE-3000"),
            // Blanks.
            ("US ", "San Francisco", Some(" ca"), "94103\t"),
            ("US", "\t", Some("  "), " "),
            (" ", "Paris", None, "75001"),
            ("ß", "Juba", None, "1"),
        ];
        let (country, city, state, postal_code) = parts[self.rng.usize(0..parts.len())];
        let mut address = object(json!({
            "streetLine1": self.pick(&["1 Main Street", "2 High Street", "1 Main Street", "  "]),
            "city": city, "postalCode": postal_code, "country": country,
        }));
        if let Some(state) = state {
            address.insert("state".into(), json!(state));
        }
        for (name, value) in [
            ("streetLine2", self.pick(&["Floor 3", "Floor 3", " "])),
            ("contactName", self.pick(&["A. Person", "A. Person", "\t"])),
            ("phone", "+49 30 1234"),
            ("companyName", "A & Co"),
            ("additionalNotes", "Ring twice"),
        ] {
            if self.rng.u32(0..3) == 0 {
                address.insert(name.into(), json!(value));
            }
        }
        match self.rng.u32(0..12) {
            0 => drop(address.remove("city")),
            1 => drop(address.remove("postalCode")),
            2 => drop(address.remove("state")),
            3 => drop(address.remove("streetLine1")),
            4 => {
                let bad = [
                    "ABCDEF-1",
                    "1",
                    "sw1a 1aa",
                    "\u{661}\u{660}\u{661}\u{661}\u{665}",
                ];
                drop(address.insert("postalCode".into(), json!(self.pick(&bad))));
            }
            5 => drop(address.insert("state".into(), json!("Atlantis"))),
            6 => drop(address.insert("country".into(), json!(self.pick(&["XX", "Germany", "zz"])))),
            _ => {}
        }
        address
    }

    /// The id of an address that the user has, or of a new one.
    pub(super) fn address_id(&mut self, user: usize) -> String {
        let known = &self.users[user].addresses;
        if known.is_empty() || known.len() < 4 && self.rng.u32(0..3) == 0 {
            let id = match self.rng.u32(0..6) {
                0 => self.rng.choice(odd_ids()).expect("some"),
                // Another user's address, perhaps on another partition.
                1 => {
                    let other = self.rng.usize(0..self.users.len());
                    let id = self.users[other].addresses.first().cloned();
                    id.unwrap_or_else(|| uuid(&mut self.rng))
                }
                _ => uuid(&mut self.rng),
            };
            self.users[user].addresses.push(id.clone());
            return id;
        }
        known[self.rng.usize(0..known.len())].clone()
    }

    /// Whether a field belongs to an address, under any spelling.
    pub(super) fn is_of_address(&self, name: &str) -> bool {
        SPELLINGS.iter().any(|spellings| spellings.contains(&name))
    }
}
