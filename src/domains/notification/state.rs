//! What the notification domain stores of a user, as one JSON document: what later notifications are made from.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use serde::{Deserialize, Serialize};

use crate::event::Change;

/// A user as stored. What is known to have changed, but not to what, counts as unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UserFacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether there are notifications that wait for an email.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lacks_recipients: bool,
    /// Whether the user was deleted. Nothing else is stored then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}

/// The value of a field after a change.
pub fn changed(change: Change<&str>) -> Option<String> {
    match change {
        Change::Value(new) => Some(new.to_owned()),
        Change::Cleared | Change::Unknown => None,
    }
}
