//! Reading a field of a JSON object by its name: presence, type, ids and NUL characters.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::address::Address;
use super::bad::Bad;
use super::catalogue::DeletionType;
use super::changes::{Changes, Rules};

/// The longest id, in Unicode scalar values.
const MAX_ID_CHARS: usize = 255;

/// The fields of one object: a payload, or an object in it.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// The object's own name and a dot, or nothing for the payload itself.
    path: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn of_payload(object: &'a Map<String, Value>) -> Self {
        Self { object, path: "" }
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// A field that is not as good as absent.
    pub(super) fn given(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !is_blank(value))
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a Value, Bad> {
        match self.object.get(name) {
            None | Some(Value::Null) => Err(Bad::missing_field(self.path(name))),
            Some(value) if is_blank(value) => Err(Bad::empty_field(self.path(name))),
            Some(value) => Ok(value),
        }
    }

    /// A required string; an id where the name ends in `Id`.
    pub(super) fn text(&self, name: &str) -> Result<String, Bad> {
        self.string(name, self.required(name)?)
    }

    /// An optional string; an id where the name ends in `Id`.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<String>, Bad> {
        self.given(name)
            .map(|value| self.string(name, value))
            .transpose()
    }

    fn string(&self, name: &str, value: &Value) -> Result<String, Bad> {
        match value {
            Value::String(text) if name.ends_with("Id") => {
                check_id(text, || self.path(name)).map(str::to_owned)
            }
            Value::String(text) => Ok(without_nul(text).into_owned()),
            _ => Err(Bad::wrong_type(self.path(name))),
        }
    }

    /// A required country code, in upper case.
    pub(super) fn country(&self, name: &str) -> Result<String, Bad> {
        Ok(self.text(name)?.to_uppercase())
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Bad> {
        let value = self.required(name)?;
        value
            .as_bool()
            .ok_or_else(|| Bad::wrong_type(self.path(name)))
    }

    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Bad> {
        self.given(name).map(|_| self.flag(name)).transpose()
    }

    pub(super) fn object(&self, name: &str) -> Result<&'a Map<String, Value>, Bad> {
        let value = self.required(name)?;
        value
            .as_object()
            .ok_or_else(|| Bad::wrong_type(self.path(name)))
    }

    pub(super) fn optional_object(
        &self,
        name: &str,
    ) -> Result<Option<&'a Map<String, Value>>, Bad> {
        self.given(name).map(|_| self.object(name)).transpose()
    }

    /// An optional array, of whatever it holds.
    pub(super) fn optional_array(&self, name: &str) -> Result<Option<Vec<Value>>, Bad> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.iter().map(json_without_nul).collect())),
            Some(_) => Err(Bad::wrong_type(self.path(name))),
        }
    }

    /// An optional array of ids.
    pub(super) fn optional_ids(&self, name: &str) -> Result<Option<Vec<String>>, Bad> {
        let Some(items) = self.given(name) else {
            return Ok(None);
        };
        let wrong_type = || Bad::wrong_type(self.path(name));
        let items = items.as_array().ok_or_else(wrong_type)?;
        let ids = items.iter().map(|item| {
            let id = item.as_str().ok_or_else(wrong_type)?;
            check_id(id, || self.path(name)).map(str::to_owned)
        });
        ids.collect::<Result<_, _>>().map(Some)
    }

    /// `soft` unless it says `hard`.
    pub(super) fn deletion_type(&self, name: &str) -> Result<DeletionType, Bad> {
        Ok(match self.optional_text(name)?.as_deref() {
            Some("hard") => DeletionType::Hard,
            _ => DeletionType::Soft,
        })
    }

    /// An optional whole address.
    pub(super) fn optional_address(&self, name: &str) -> Result<Option<Address>, Bad> {
        let Some(object) = self.optional_object(name)? else {
            return Ok(None);
        };
        let path = "fullAddress.";
        Address::read(&Fields { object, path }).map(Some)
    }

    /// `updatedFields` and the values beside it.
    pub(super) fn changes(&self, name: &str, rules: &Rules) -> Result<Changes, Bad> {
        Changes::read(self, name, rules)
    }
}

/// Whether a value says no more than a missing one.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// An id of 1 to 255 characters without NUL.
pub(super) fn check_id(id: &str, field: impl Fn() -> String) -> Result<&str, Bad> {
    if id.is_empty() {
        return Err(Bad::empty_field(field()));
    }
    // No string has more characters than bytes: most ids need no counting.
    if id.len() > MAX_ID_CHARS && id.chars().count() > MAX_ID_CHARS {
        return Err(Bad::id_too_long(field()));
    }
    if id.contains('\0') {
        return Err(Bad::nul_in_id(field()));
    }
    Ok(id)
}

/// NUL, which no text in Postgres can hold, as the replacement character.
pub(super) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same for all strings and names in a value. The depth of what was parsed is bounded.
pub(super) fn json_without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(json_without_nul).collect()),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(name, value)| (without_nul(name).into_owned(), json_without_nul(value)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
