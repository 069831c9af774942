//! Reads a field of a JSON object by its name: whether it is there, its type, ids, and NUL.
//!
//! A field that is missing, null or an empty string is absent. A field whose name ends in `Id` is
//! an id. In any other string, each NUL is read as U+FFFD.

use serde_json::{Map, Value};

use super::bad::Bad;
use super::json::{is_blank, json_without_nul};
use super::text::without_nul;

/// The maximum length of an id, in Unicode scalar values.
const MAX_ID_CHARS: usize = 255;

/// The fields of one object: of a payload, or of an object in it.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// The name of the object in the payload; `None` for the payload itself.
    parent: Option<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn of_payload(object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            parent: None,
        }
    }

    /// The field's name as a [`Bad`] reports it.
    fn path(&self, name: &str) -> String {
        match self.parent {
            Some(parent) => format!("{parent}.{name}"),
            None => name.to_owned(),
        }
    }

    /// A field that is not absent, of any type.
    pub(super) fn given(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !is_blank(value))
    }

    /// A required field of any type.
    pub(super) fn required(&self, name: &str) -> Result<&'a Value, Bad> {
        match self.object.get(name) {
            None | Some(Value::Null) => Err(Bad::missing_field(self.path(name))),
            Some(value) if is_blank(value) => Err(Bad::empty_field(self.path(name))),
            Some(value) => Ok(value),
        }
    }

    /// A required string or id.
    pub(super) fn text(&self, name: &str) -> Result<String, Bad> {
        self.string(name, self.required(name)?)
    }

    /// An optional string or id.
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
        Ok(self.text(name)?.to_ascii_uppercase())
    }

    /// A required boolean.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Bad> {
        let value = self.required(name)?;
        value
            .as_bool()
            .ok_or_else(|| Bad::wrong_type(self.path(name)))
    }

    /// An optional boolean.
    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Bad> {
        self.given(name).map(|_| self.flag(name)).transpose()
    }

    /// A required object.
    pub(super) fn object(&self, name: &str) -> Result<&'a Map<String, Value>, Bad> {
        let value = self.required(name)?;
        value
            .as_object()
            .ok_or_else(|| Bad::wrong_type(self.path(name)))
    }

    /// An optional object.
    pub(super) fn optional_object(
        &self,
        name: &str,
    ) -> Result<Option<&'a Map<String, Value>>, Bad> {
        self.given(name).map(|_| self.object(name)).transpose()
    }

    /// The fields of an optional object in a payload.
    pub(super) fn optional_fields(&self, name: &'static str) -> Result<Option<Self>, Bad> {
        let object = self.optional_object(name)?;
        Ok(object.map(|object| Self {
            object,
            parent: Some(name),
        }))
    }

    /// An optional array with items of any type.
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
}

/// Checks that an id has 1 to 255 characters and no NUL. `field` gives its name for the error.
pub(super) fn check_id(id: &str, field: impl Fn() -> String) -> Result<&str, Bad> {
    if id.is_empty() {
        return Err(Bad::empty_field(field()));
    }
    // A string has at least as many bytes as characters, so most ids need no counting.
    if id.len() > MAX_ID_CHARS && id.chars().count() > MAX_ID_CHARS {
        return Err(Bad::id_too_long(field()));
    }
    if id.contains('\0') {
        return Err(Bad::nul_in_id(field()));
    }
    Ok(id)
}
