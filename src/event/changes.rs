//! `updatedFields` in both its shapes, with `newValues` and `oldValues` beside it, as one thing:
//! which fields changed, from what and to what.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::address;
use super::bad::Bad;
use super::fields::{Fields, is_blank, json_without_nul, without_nul};

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// It changed, the event does not say to what: what a view holds is stale.
    Unknown,
    /// It was cleared.
    Cleared,
    /// It is this now.
    Value(T),
}

/// One changed field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// What it was, where the event says so. Recorded as it came: its type is not checked.
    pub old: Option<Value>,
    /// What it is.
    pub new: Change<Value>,
}

/// The changed fields by name.
///
/// Names that the catalogue knows have their own spelling (`streetLine1`) and values of their
/// type: a string, country codes in upper case; an object for a whole `preferences` or
/// `communicationPreferences`; any JSON for dotted names under these. Other names are kept with
/// whatever they carry, for who records changes as such; views ignore them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(BTreeMap<String, FieldChange>);

impl Changes {
    /// The change of a field, `None` where the event does not name it.
    pub fn get(&self, name: &str) -> Option<&FieldChange> {
        self.0.get(name)
    }

    /// What became of a field that holds a string, `None` where the event does not name it.
    pub fn text(&self, name: &str) -> Option<Change<&str>> {
        match &self.0.get(name)?.new {
            Change::Unknown => Some(Change::Unknown),
            Change::Cleared => Some(Change::Cleared),
            Change::Value(value) => value.as_str().map(Change::Value),
        }
    }

    /// All changes in the order of their names: an object before what lies in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldChange)> {
        self.0.iter().map(|(name, change)| (name.as_str(), change))
    }

    pub(super) fn read(fields: &Fields, name: &str, rules: &Rules) -> Result<Self, Bad> {
        let new_values = if rules.values_required {
            Some(fields.object("newValues")?)
        } else {
            fields.optional_object("newValues")?
        };
        let old_values = if rules.values_required {
            fields.optional_object("oldValues")?
        } else {
            None
        };
        let mut changes = Self::default();
        match fields.required(name)? {
            Value::Array(names) => {
                for written in names {
                    let written = written.as_str().ok_or_else(|| Bad::wrong_type(name))?;
                    let named = rules.find(written);
                    let find = |values| find_spelled(values, written, named.as_ref());
                    let new = match new_values.and_then(find) {
                        Some(value) => read_value(value, named.as_ref(), "newValues")?,
                        None => Change::Unknown,
                    };
                    let old = old_values.and_then(find);
                    changes.add(written, named.as_ref(), FieldChange::new(old, new));
                }
            }
            Value::Object(entries) => {
                for (written, entry) in entries {
                    let named = rules.find(written);
                    let (old, new) = old_and_new(entry);
                    let new = match new {
                        Some(value) => read_value(value, named.as_ref(), name)?,
                        None => Change::Unknown,
                    };
                    // Of two spellings of one field the one that the catalogue lists first counts.
                    if named
                        .as_ref()
                        .is_some_and(|named| named.better_spelled(entries))
                    {
                        continue;
                    }
                    let find = |values| find_spelled(values, written, named.as_ref());
                    let old = old
                        .filter(|old| !is_blank(old))
                        .or_else(|| old_values.and_then(find));
                    changes.add(written, named.as_ref(), FieldChange::new(old, new));
                }
            }
            _ => return Err(Bad::wrong_type(name)),
        }
        Ok(changes)
    }

    /// Adds a change unless its field has one. A change of the nameless field is none.
    fn add(&mut self, written: &str, named: Option<&Named>, change: FieldChange) {
        let name = match named {
            Some(named) => named.spellings[0].to_owned(),
            None => without_nul(written).into_owned(),
        };
        if !name.is_empty() {
            self.0.entry(name).or_insert(change);
        }
    }
}

impl FieldChange {
    fn new(old: Option<&Value>, new: Change<Value>) -> Self {
        let old = old.filter(|value| !is_blank(value)).map(json_without_nul);
        Self { old, new }
    }
}

/// An entry of the object shape: the new value itself, or an object of exactly `old` and/or `new`.
fn old_and_new(entry: &Value) -> (Option<&Value>, Option<&Value>) {
    match entry {
        Value::Object(parts)
            if !parts.is_empty() && parts.keys().all(|key| key == "old" || key == "new") =>
        {
            (parts.get("old"), parts.get("new"))
        }
        value => (None, Some(value)),
    }
}

/// A listed name among the values: as written, else by path, else in another spelling.
fn find_spelled<'a>(
    values: &'a Map<String, Value>,
    written: &str,
    named: Option<&Named>,
) -> Option<&'a Value> {
    values
        .get(written)
        .or_else(|| find_by_path(values, written))
        .or_else(|| {
            let spellings = named?.spellings;
            spellings.iter().find_map(|spelling| values.get(*spelling))
        })
}

fn find_by_path<'a>(values: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut steps = path.split('.');
    let first = values.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.as_object()?.get(step))
}

/// A new value, checked where the name says of what type it is. `place` is where it was found.
fn read_value(value: &Value, named: Option<&Named>, place: &str) -> Result<Change<Value>, Bad> {
    if is_blank(value) {
        return Ok(Change::Cleared);
    }
    match (named, value) {
        (None, _) => {}
        (Some(named), Value::String(text)) if named.kind == Kind::Country => {
            let country = without_nul(text).to_uppercase();
            return Ok(Change::Value(Value::String(country)));
        }
        (Some(named), Value::String(_)) if named.kind == Kind::Text => {}
        (Some(named), Value::Object(_)) if named.kind == Kind::Object => {}
        (Some(named), _) => return Err(Bad::wrong_type(format!("{place}.{}", named.spelling))),
    }
    Ok(Change::Value(json_without_nul(value)))
}

/// What one type's `updatedFields` may name, and what it wants beside it.
pub(super) struct Rules {
    texts: &'static [&'static str],
    objects: &'static [&'static str],
    /// Whether the parts of an address are among the names.
    address: bool,
    /// Whether the catalogue lists `newValues` as required, and `oldValues` as optional.
    values_required: bool,
}

const NOTHING: Rules = Rules {
    texts: &[],
    objects: &[],
    address: false,
    values_required: false,
};

impl Rules {
    pub(super) const USER: Self = Self {
        texts: &["username", "email", "secondaryEmail"],
        ..NOTHING
    };

    pub(super) const PROFILE: Self = Self {
        texts: &[
            "firstName",
            "lastName",
            "displayName",
            "phoneNumber",
            "bio",
            "profilePictureUrl",
            "languagePreference",
            "timezonePreference",
            "dateOfBirth",
            "gender",
        ],
        objects: &["preferences", "communicationPreferences"],
        ..NOTHING
    };

    pub(super) const ADDRESS: Self = Self {
        texts: &["addressType"],
        address: true,
        ..NOTHING
    };

    pub(super) const ROLE: Self = Self {
        texts: &["roleName", "description"],
        values_required: true,
        ..NOTHING
    };

    pub(super) const PERMISSION: Self = Self {
        texts: &["permissionName", "action", "subject", "description"],
        values_required: true,
        ..NOTHING
    };

    fn find(&self, written: &str) -> Option<Named> {
        let single = |names: &'static [&'static str], kind| {
            let name = names.iter().find(|name| **name == written)?;
            let spellings = std::slice::from_ref(name);
            Some(Named::new(spellings, name, kind))
        };
        let part = || {
            address::PARTS.iter().find_map(|spellings| {
                let spelling = spellings.iter().find(|name| **name == written)?;
                let is_country = *spellings == address::COUNTRY;
                let kind = if is_country {
                    Kind::Country
                } else {
                    Kind::Text
                };
                Some(Named::new(spellings, spelling, kind))
            })
        };
        single(self.texts, Kind::Text)
            .or_else(|| single(self.objects, Kind::Object))
            .or_else(|| if self.address { part() } else { None })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Country,
    Object,
}

/// A name that the catalogue knows.
struct Named {
    /// All its spellings, its own first.
    spellings: &'static [&'static str],
    /// The spelling that the event chose.
    spelling: &'static str,
    kind: Kind,
}

impl Named {
    fn new(spellings: &'static [&'static str], spelling: &'static str, kind: Kind) -> Self {
        Self {
            spellings,
            spelling,
            kind,
        }
    }

    /// Whether the entries name the same field in an earlier spelling too.
    fn better_spelled(&self, entries: &Map<String, Value>) -> bool {
        let earlier = self
            .spellings
            .iter()
            .take_while(|name| **name != self.spelling);
        earlier.into_iter().any(|name| entries.contains_key(*name))
    }
}
