//! A user's two objects of preferences, changed as a whole or by dotted names.
//!
//! A name (`preferences.privacy.tracking`) is known or stale by itself: a value makes it and all
//! names below it known, and says nothing about the names above it. Null and an empty string are no
//! value, at any depth: such a preference is not there. What is in an array is left as it is.
//!
//! An event is refused where it brings an object that is too large or too deep. Stale names are
//! never a reason to refuse one: where they are too many, the object as a whole is stale.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{Bad, Change, Changes};

/// The most bytes of an object, as compact JSON, and of the names that are stale in it.
const MAX_BYTES: usize = 64 * 1024;
/// How deep an object may be nested. No event holds a deeper one, but dotted names might build it.
/// The answer is one level deeper, and many parsers read no more than 127.
const MAX_DEPTH: usize = 126;

/// The names of the two objects.
const PREFERENCES: &str = "preferences";
const COMMUNICATION_PREFERENCES: &str = "communicationPreferences";

/// Both objects, and what is stale in them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Preferences {
    /// `preferences`; `None` while nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Map<String, Value>>,
    /// `communicationPreferences`; `None` while nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication_preferences: Option<Map<String, Value>>,
    /// The names, in full, that changed to an unknown value.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub stale: BTreeSet<String>,
}

impl Preferences {
    /// Whether an event changes a preference.
    pub fn are_in(changes: &Changes) -> bool {
        changes.iter().any(|(name, _)| Name::parse(name).is_some())
    }

    /// Checks whether an event can be applied.
    ///
    /// # Errors
    /// One of the objects would be larger than 64 KiB, or nested too deep.
    pub fn check(&self, changes: &Changes) -> Result<(), Bad> {
        let mut changed = self.clone();
        changed.apply(changes)?;
        changed.check_sizes()
    }

    /// Applies an event.
    ///
    /// # Errors
    /// One of the objects would be nested too deep, which [`Self::check`] finds before.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), Bad> {
        for (written, change) in changes.iter() {
            if let Some(name) = Name::parse(written) {
                self.change(&name, &change.new)?;
            }
        }
        self.bound_stale_names();
        Ok(())
    }

    fn change(&mut self, name: &Name<'_>, change: &Change<Value>) -> Result<(), Bad> {
        let object = match name.object {
            PREFERENCES => &mut self.preferences,
            _ => &mut self.communication_preferences,
        };
        match change {
            Change::Unknown => {
                self.stale.insert(name.written.to_owned());
                return Ok(());
            }
            Change::Cleared => clear(object, name),
            Change::Value(value) => set(object, name, without_blanks(value))?,
        }
        self.stale.remove(name.written);
        let prefix = format!("{}.", name.written);
        let below = self.stale.range(prefix.clone()..);
        let below: Vec<String> = below
            .take_while(|stale| stale.starts_with(&prefix))
            .cloned()
            .collect();
        for stale in below {
            self.stale.remove(&stale);
        }
        Ok(())
    }

    /// Replaces the stale names of an object by the object's own, where they are too long together.
    /// That is stale until a value for the whole object comes, so what is unknown stays marked.
    fn bound_stale_names(&mut self) {
        for object in [PREFERENCES, COMMUNICATION_PREFERENCES] {
            let is_in =
                |stale: &str| Name::parse(stale).is_some_and(|stale| stale.object == object);
            let names = self.stale.iter().filter(|stale| is_in(stale));
            if names.map(String::len).sum::<usize>() > MAX_BYTES {
                self.stale.retain(|stale| !is_in(stale));
                self.stale.insert(object.to_owned());
            }
        }
    }

    fn check_sizes(&self) -> Result<(), Bad> {
        for (name, object) in [
            (PREFERENCES, &self.preferences),
            (COMMUNICATION_PREFERENCES, &self.communication_preferences),
        ] {
            let size = object.as_ref().map_or(Ok(0), |object| {
                serde_json::to_vec(object).map(|json| json.len())
            });
            // Every object that was parsed or put together from parsed ones is JSON.
            if size.unwrap_or(usize::MAX) > MAX_BYTES {
                return Err(Bad::object_too_large(name));
            }
        }
        Ok(())
    }
}

/// The name of an object or of something in it.
struct Name<'n> {
    /// In full.
    written: &'n str,
    object: &'static str,
    /// What follows the object's name, with a dot before each step.
    rest: &'n str,
}

impl<'n> Name<'n> {
    /// `None` if the name is not that of a preference.
    fn parse(written: &'n str) -> Option<Self> {
        [PREFERENCES, COMMUNICATION_PREFERENCES]
            .into_iter()
            .find_map(|object| {
                let rest = written.strip_prefix(object)?;
                (rest.is_empty() || rest.starts_with('.')).then_some(Self {
                    written,
                    object,
                    rest,
                })
            })
    }

    /// The steps from the object to what is named; none for the object itself.
    fn steps(&self) -> impl Iterator<Item = &'n str> {
        self.rest.split('.').skip(1)
    }
}

/// Removes what is named. The object that held it stays, also if it is empty now.
fn clear(object: &mut Option<Map<String, Value>>, name: &Name<'_>) {
    let mut steps = name.steps().peekable();
    if steps.peek().is_none() {
        *object = None;
        return;
    }
    let Some(mut object) = object.as_mut() else {
        return;
    };
    while let Some(step) = steps.next() {
        if steps.peek().is_none() {
            object.remove(step);
            return;
        }
        match object.get_mut(step) {
            Some(Value::Object(inner)) => object = inner,
            _ => return,
        }
    }
}

/// Sets what is named. On the way, what is not an object is replaced by one.
fn set(object: &mut Option<Map<String, Value>>, name: &Name<'_>, value: Value) -> Result<(), Bad> {
    // Parsed values are bounded; the number of steps is not.
    if name.steps().count() + depth(&value) > MAX_DEPTH {
        return Err(Bad::object_too_deep(name.object));
    }
    let mut steps = name.steps().peekable();
    if steps.peek().is_none() {
        // The catalogue lets nothing but an object be the value of a whole one.
        if let Value::Object(value) = value {
            *object = Some(value);
        }
        return Ok(());
    }
    let mut object = object.get_or_insert_default();
    while let Some(step) = steps.next() {
        if steps.peek().is_none() {
            object.insert(step.to_owned(), value);
            return Ok(());
        }
        let inner = object.entry(step).or_insert(Value::Null);
        if !inner.is_object() {
            *inner = Value::Object(Map::new());
        }
        let Value::Object(inner) = inner else {
            return Ok(());
        };
        object = inner;
    }
    Ok(())
}

/// How deep arrays and objects are nested in a value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A value without the members that are null or empty strings.
fn without_blanks(value: &Value) -> Value {
    let is_blank = |value: &Value| value.is_null() || value.as_str() == Some("");
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(_, value)| !is_blank(value))
                .map(|(name, value)| (name.clone(), without_blanks(value)))
                .collect(),
        ),
        value => value.clone(),
    }
}
