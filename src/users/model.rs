//! What is answered about a user.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::operations::DeadLetter;

/// What is held about a user.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user's id: an opaque string.
    pub user_id: String,
    /// What each asked domain holds, by the domain's name.
    pub domains: BTreeMap<String, UserInDomain>,
}

/// What one domain holds of a user.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserInDomain {
    /// The domain's own answer about the user. Absent if the domain knows nothing of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Value>,
    /// The positions that this part reflects: a token for `Sightline-Consistency: at-least`.
    pub token: String,
    /// Open dead letters under the user's id, without headers and values, the oldest first: events that are missing from
    /// `data`. At most 100.
    pub dead_letters: Vec<DeadLetter>,
    /// Whether there are more open dead letters: `/v1/dead-letters` lists all.
    pub has_more_dead_letters: bool,
}
