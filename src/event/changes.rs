//! Changed fields: `updatedFields` in both its shapes, with `newValues` and `oldValues`.
//!
//! [`Changes`] is the same for both shapes: which fields changed, from which value and to which.
//! The lists of names that each type's `updatedFields` knows are here, too ([`UpdateRules`]).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::address::{self, Spellings};
use super::bad::Bad;
use super::fields::Fields;
use super::json::{is_blank, json_without_nul};
use super::text::without_nul;

/// How a value changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// The event does not have the new value, so the value that a view holds is stale.
    Unknown,
    /// The value was cleared.
    Cleared,
    /// The new value.
    Value(T),
}

/// One changed field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// The value before, where the event has it. Its type is not checked.
    pub old: Option<Value>,
    /// The value after.
    pub new: Change<Value>,
}

/// How many times as much as the event's objects of values hold its changes may hold: a name and the dotted names below it
/// share values. More is a record made to use up memory.
const MOST_COPIES: usize = 4;
/// What an event's changes may hold anyway, in bytes.
const SMALL_CHANGES: usize = 1 << 20;

/// The changed fields by name.
///
/// A name that the event's type knows has one spelling (`streetLine1`) and a value of its type: a
/// string, a country code in upper case, or an object for `preferences` and
/// `communicationPreferences` as a whole. A dotted name below these two has any JSON. Unknown names
/// are kept with the value of the event: views ignore them, an audit records them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(BTreeMap<String, FieldChange>);

impl Changes {
    /// The change of a field; `None` if the event does not name it.
    pub fn get(&self, name: &str) -> Option<&FieldChange> {
        self.0.get(name)
    }

    /// The change of a field that holds a string; `None` if the event does not name it.
    pub fn text(&self, name: &str) -> Option<Change<&str>> {
        match &self.0.get(name)?.new {
            Change::Unknown => Some(Change::Unknown),
            Change::Cleared => Some(Change::Cleared),
            Change::Value(value) => value.as_str().map(Change::Value),
        }
    }

    /// All changes, sorted by name: an object comes before the dotted names below it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldChange)> {
        self.0.iter().map(|(name, change)| (name.as_str(), change))
    }

    /// Reads the field `name` (`updatedFields`) of a payload, with `newValues` and `oldValues`.
    pub(super) fn read(fields: &Fields, name: &str, rules: &UpdateRules) -> Result<Self, Bad> {
        let updated = fields.required(name)?;
        // Beside an object of entries, `newValues` is ignored where the type does not require it.
        let values = if updated.is_object() && !rules.values_required {
            Values::default()
        } else {
            Values::read(fields, rules)?
        };
        match updated {
            Value::Array(names) => Self::read_list(names, name, &values, rules),
            Value::Object(entries) => Self::read_entries(entries, name, &values, rules),
            _ => Err(Bad::wrong_type(name)),
        }
    }

    /// Reads the shape `["bio"]`, whose values are in `newValues` and `oldValues`.
    fn read_list(
        names: &[Value],
        parent: &str,
        values: &Values<'_>,
        rules: &UpdateRules,
    ) -> Result<Self, Bad> {
        let sizes = [values.new, values.old].map(|values| values.map_or(0, memory_of_members));
        let mut reader = Reader::of(sizes.iter().sum());
        for written in names {
            let written = written.as_str().ok_or_else(|| Bad::wrong_type(parent))?;
            // As in the names of members, which it is compared with.
            let written = &*without_nul(written);
            let known = rules.find(written);
            let new = match find_value(values.new, written, known.as_ref()) {
                Some(value) => check_value(value, known.as_ref(), "newValues")?,
                None => Change::Unknown,
            };
            let old = find_value(values.old, written, known.as_ref());
            reader.add(written, known.as_ref(), old, new)?;
        }
        Ok(reader.changes)
    }

    /// Reads the shape `{"bio": {"old": "a", "new": "b"}}`. `newValues` is ignored.
    fn read_entries(
        entries: &Map<String, Value>,
        parent: &str,
        values: &Values<'_>,
        rules: &UpdateRules,
    ) -> Result<Self, Bad> {
        let sizes = [Some(entries), values.old].map(|values| values.map_or(0, memory_of_members));
        let mut reader = Reader::of(sizes.iter().sum());
        for (written, entry) in entries {
            let known = rules.find(written);
            let (old, new) = old_and_new(entry);
            let new = match new {
                Some(value) => check_value(value, known.as_ref(), parent)?,
                None => Change::Unknown,
            };
            // Of two spellings of one field, the first in the list of its spellings counts.
            if known
                .as_ref()
                .is_some_and(|known| known.has_better_spelling(entries))
            {
                continue;
            }
            let old = old
                .filter(|old| !is_blank(old))
                .or_else(|| find_value(values.old, written, known.as_ref()));
            reader.add(written, known.as_ref(), old, new)?;
        }
        Ok(reader.changes)
    }
}

/// Collects the changes of an event, within a limit to what is copied.
struct Reader {
    changes: Changes,
    /// How many bytes may still be copied.
    left: usize,
}

impl Reader {
    /// For an event whose values are of so many bytes.
    fn of(size: usize) -> Self {
        Self {
            changes: Changes::default(),
            left: SMALL_CHANGES.max(size.saturating_mul(MOST_COPIES)),
        }
    }

    /// Adds a change unless the field has one already. A change of the empty name is dropped.
    fn add(
        &mut self,
        written: &str,
        known: Option<&KnownField>,
        old: Option<&Value>,
        new: Change<&Value>,
    ) -> Result<(), Bad> {
        let name = known.map_or(written, |known| known.spellings[0]);
        if name.is_empty() || self.changes.0.contains_key(name) {
            return Ok(());
        }
        let old = old.filter(|value| !is_blank(value));
        let old = old.map(|value| self.copy(value)).transpose()?;
        let new = match new {
            Change::Unknown => Change::Unknown,
            Change::Cleared => Change::Cleared,
            Change::Value(value) => Change::Value(match (known, self.copy(value)?) {
                (Some(known), Value::String(text)) if known.field_type == FieldType::Country => {
                    Value::String(text.to_ascii_uppercase())
                }
                (_, value) => value,
            }),
        };
        let change = FieldChange { old, new };
        self.changes.0.insert(name.to_owned(), change);
        Ok(())
    }

    fn copy(&mut self, value: &Value) -> Result<Value, Bad> {
        let left = self.left.checked_sub(memory_of(value));
        self.left = left.ok_or_else(Bad::too_many_copies)?;
        Ok(json_without_nul(value))
    }
}

/// About how many bytes of memory a value takes.
fn memory_of(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(memory_of).sum(),
            Value::Object(members) => memory_of_members(members),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

fn memory_of_members(members: &Map<String, Value>) -> usize {
    let members = members.iter();
    members
        .map(|(name, value)| name.len() + memory_of(value))
        .sum()
}

/// The payload's `newValues` and `oldValues`, where it has them and its type reads them.
#[derive(Default)]
struct Values<'a> {
    new: Option<&'a Map<String, Value>>,
    old: Option<&'a Map<String, Value>>,
}

impl<'a> Values<'a> {
    fn read(fields: &Fields<'a>, rules: &UpdateRules) -> Result<Self, Bad> {
        if rules.values_required {
            Ok(Self {
                new: Some(fields.object("newValues")?),
                old: fields.optional_object("oldValues")?,
            })
        } else {
            Ok(Self {
                new: fields.optional_object("newValues")?,
                old: None,
            })
        }
    }
}

/// Splits an entry into old and new value. An entry is the new value itself, or an object with no
/// other keys than `old` and `new`, and at least one of them.
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

/// Finds the value of a listed name: by the name as written, else by its dotted path, else by
/// another spelling of the field.
fn find_value<'a>(
    values: Option<&'a Map<String, Value>>,
    written: &str,
    known: Option<&KnownField>,
) -> Option<&'a Value> {
    let values = values?;
    values
        .get(written)
        .or_else(|| find_by_path(values, written))
        .or_else(|| {
            let spellings = known?.spellings;
            spellings.iter().find_map(|spelling| values.get(*spelling))
        })
}

fn find_by_path<'a>(values: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut steps = path.split('.');
    let first = values.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.as_object()?.get(step))
}

/// Checks the type of a new value where the field is known. `parent` is the object that holds the value, for the error.
fn check_value<'v>(
    value: &'v Value,
    known: Option<&KnownField>,
    parent: &str,
) -> Result<Change<&'v Value>, Bad> {
    if is_blank(value) {
        return Ok(Change::Cleared);
    }
    let is_good = known.is_none_or(|known| match known.field_type {
        FieldType::Text | FieldType::Country => value.is_string(),
        FieldType::Object => value.is_object(),
    });
    match known {
        Some(known) if !is_good => Err(Bad::wrong_type(format!("{parent}.{}", known.spelling))),
        _ => Ok(Change::Value(value)),
    }
}

/// The fields that one type's `updatedFields` knows, and whether `newValues` is required.
pub(super) struct UpdateRules {
    texts: &'static [&'static str],
    objects: &'static [&'static str],
    /// Whether the parts of an address are known, too.
    address: bool,
    /// Whether the type has a required `newValues` and an optional `oldValues`. For other types,
    /// `newValues` is optional and `oldValues` is ignored.
    values_required: bool,
}

const NO_FIELDS: UpdateRules = UpdateRules {
    texts: &[],
    objects: &[],
    address: false,
    values_required: false,
};

impl UpdateRules {
    pub(super) const USER: Self = Self {
        texts: &["username", "email", "secondaryEmail"],
        ..NO_FIELDS
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
        ..NO_FIELDS
    };

    pub(super) const ADDRESS: Self = Self {
        texts: &["addressType"],
        address: true,
        ..NO_FIELDS
    };

    pub(super) const ROLE: Self = Self {
        texts: &["roleName", "description"],
        values_required: true,
        ..NO_FIELDS
    };

    pub(super) const PERMISSION: Self = Self {
        texts: &["permissionName", "action", "subject", "description"],
        values_required: true,
        ..NO_FIELDS
    };

    /// The field that a name of the event means; `None` if the type does not know the name.
    fn find(&self, written: &str) -> Option<KnownField> {
        let single = |names: &'static [&'static str], field_type| {
            let name = names.iter().find(|name| **name == written)?;
            Some(KnownField {
                spellings: std::slice::from_ref(name),
                spelling: name,
                field_type,
            })
        };
        single(self.texts, FieldType::Text)
            .or_else(|| single(self.objects, FieldType::Object))
            .or_else(|| {
                if self.address {
                    address_part(written)
                } else {
                    None
                }
            })
    }
}

fn address_part(written: &str) -> Option<KnownField> {
    address::PARTS.iter().find_map(|spellings| {
        let spelling = spellings.iter().find(|name| **name == written)?;
        let field_type = if *spellings == address::COUNTRY {
            FieldType::Country
        } else {
            FieldType::Text
        };
        Some(KnownField {
            spellings,
            spelling,
            field_type,
        })
    })
}

#[derive(Clone, Copy, PartialEq)]
enum FieldType {
    Text,
    Country,
    Object,
}

/// A field that the type's `updatedFields` knows.
struct KnownField {
    /// All its spellings. The first is its name in [`Changes`].
    spellings: Spellings,
    /// The spelling in the event.
    spelling: &'static str,
    field_type: FieldType,
}

impl KnownField {
    /// Whether the entries have the same field under an earlier spelling, too.
    fn has_better_spelling(&self, entries: &Map<String, Value>) -> bool {
        self.spellings
            .iter()
            .take_while(|name| **name != self.spelling)
            .any(|name| entries.contains_key(*name))
    }
}
