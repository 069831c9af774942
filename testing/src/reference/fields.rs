//! Fields with known values, and stale fields, whose values have changed to something unknown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::event::{Change, text};

/// Sets or removes a field by its name in the view. Country codes become upper case.
pub fn set(fields: &mut BTreeMap<&'static str, String>, name: &'static str, value: Option<String>) {
    let value = value.map(|value| {
        if name == "country" {
            value.to_ascii_uppercase()
        } else {
            value
        }
    });
    match value {
        Some(value) => fields.insert(name, value),
        None => fields.remove(name),
    };
}

/// Values by their names in the view, and the names of stale ones.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Fields {
    pub values: BTreeMap<&'static str, String>,
    pub stale: BTreeSet<&'static str>,
}

impl Fields {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn is_stale(&self, name: &str) -> bool {
        self.stale.contains(name)
    }

    /// A value that is no string changes nothing.
    pub fn change(&mut self, name: &'static str, change: &Change) {
        match change {
            Change::To(value) => {
                if let Some(text) = text(value) {
                    set(&mut self.values, name, Some(text));
                    self.stale.remove(name);
                }
            }
            Change::Cleared => {
                self.values.remove(name);
                self.stale.remove(name);
            }
            Change::Unknown => {
                self.stale.insert(name);
            }
        }
    }

    pub fn to_json(&self) -> Map<String, Value> {
        let mut json: Map<String, Value> = self
            .values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json.insert("staleFields".into(), json!(self.stale));
        json
    }
}
