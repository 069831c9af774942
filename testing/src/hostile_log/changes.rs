//! `updatedFields` in each of its shapes, and the values of the fields.

use serde_json::{Map, Value, json};

use super::generator::Generator;

impl Generator {
    /// `updatedFields` in one of its shapes, for some of the names.
    pub(super) fn changes(&mut self, names: &[&str]) -> Map<String, Value> {
        let mut payload = Map::new();
        let mut names: Vec<&str> = names.to_vec();
        self.rng.shuffle(&mut names);
        names.truncate(self.rng.usize(0..4));
        if self.rng.bool() {
            let mut entries = Map::new();
            for name in names {
                let value = self.value(name);
                let entry = match self.rng.u32(0..6) {
                    0 => json!({"old": self.before(), "new": value}),
                    1 => json!({"new": value}),
                    2 => json!({"old": self.before()}),
                    _ => value,
                };
                entries.insert(name.into(), entry);
            }
            payload.insert("updatedFields".into(), Value::Object(entries));
            if self.rng.u32(0..5) == 0 {
                payload.insert(
                    "newValues".into(),
                    json!({"email": "ignored@example.com", "city": "ignored"}),
                );
            }
            return payload;
        }
        payload.insert("updatedFields".into(), json!(names));
        let mut values = Map::new();
        for name in names {
            let value = self.value(name);
            match (self.rng.u32(0..4), name.split_once('.')) {
                // Listed, without its new value.
                (0, _) => {}
                (1, Some((object, path))) => {
                    let mut at = values.entry(object).or_insert_with(|| json!({}));
                    for step in path.split('.') {
                        at = &mut at[step];
                    }
                    *at = value;
                }
                _ => drop(values.insert(name.into(), value)),
            }
        }
        values.insert("notListed".into(), json!("ignored"));
        match self.rng.u32(0..5) {
            0 => {}
            1 => drop(payload.insert("newValues".into(), Value::Null)),
            _ => drop(payload.insert("newValues".into(), Value::Object(values))),
        }
        payload
    }

    /// What an event says of a value before: mostly text, but nobody checks that.
    pub(super) fn before(&mut self) -> Value {
        match self.rng.u32(0..12) {
            0 => Value::Null,
            1 => json!(""),
            2 => self.preference(),
            3 => json!({"a.b": ["nul\0inside"], "": null}),
            _ => json!("before"),
        }
    }

    /// A value for a field: null, empty, or text.
    pub(super) fn value(&mut self, name: &str) -> Value {
        match self.rng.u32(0..8) {
            0 => Value::Null,
            1 => json!(""),
            // From small sets, so that the new value is often the old one.
            2..5 if self.is_of_address(name) => {
                let written = [
                    "Berlin",
                    "10115",
                    "1 Main Street",
                    "CA",
                    "94103",
                    "Bayern",
                    "California",
                    "SW1A 1AA",
                    "M5V 3L9",
                ];
                match name {
                    "city" => json!(self.pick(&["Berlin", "Paris", "Rome", "\t"])),
                    "postalCode" | "zipCode" => {
                        json!(self.pick(&[
                            "10115",
                            "94103",
                            "SW1A 1AA",
                            "1011",
                            "m5v3L9",
                            " 00000 ",
                            "  ",
                            "〒100-0001"
                        ]))
                    }
                    "stateOrProvince" | "state" | "province" => {
                        json!(self.pick(&[
                            "CA",
                            "NY",
                            "ON",
                            "Bayern",
                            "ca",
                            "California",
                            "US-CA",
                            "ZZ",
                            "Que\u{301}bec",
                            "QUEBEC",
                            "ＴＯＫＹＯ",
                            " ",
                        ]))
                    }
                    "streetLine1" | "addressLine1" => {
                        json!(self.pick(&["1 Main Street", "2 High Street", " ", "\u{3000}"]))
                    }
                    "country" | "countryCode" => {
                        json!(self.pick(&[
                            "DE", "US", "ca", "GB", "JP", "xx", "USA", "US ", "\tjp", "ß", "ıt"
                        ]))
                    }
                    "contactName" | "recipientName" => {
                        json!(self.pick(&["A. Person", "\u{a0}", "  "]))
                    }
                    _ => json!(self.pick(&written)),
                }
            }
            // A name of white space alone.
            2 if ["firstName", "lastName"].contains(&name) => json!(self.pick(&[" ", "\t"])),
            _ => match name {
                "email" | "secondaryEmail" => json!(self.email()),
                "country" | "countryCode" => json!(self.pick(&["DE", "fr", "Us"])),
                "preferences" | "communicationPreferences" => self.preferences(),
                "languagePreference" => json!(self.pick(&["de", "de-AT", "en", "EN", "pt_BR"])),
                "firstName" | "lastName" | "displayName" | "username" => json!(self.name()),
                preference if preference.contains('.') => self.preference(),
                _ => json!(self.text()),
            },
        }
    }
}
