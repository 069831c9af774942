//! The answers of the search domain. A field that is absent is unknown: no value is guessed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A user, as far as a search finds and shows one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FoundUser {
    /// The user's id: an opaque string.
    pub user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `pending_verification`, `active`, `suspended`, `banned`, `deactivated`; other values occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<DateTime<Utc>>,
    /// Fields that are known to have changed, but not to what. Users are found by their old values. The User Service has the
    /// current ones.
    pub stale_fields: Vec<String>,
    /// How the user matches `q`: 1 where all words are equal, 0.75 where words begin with those of `q`, 0.5 with typos. Absent
    /// without `q`.
    // Stored users have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// A page of the users that match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundUsers {
    /// Best score first; users of one score in the order of their ids.
    pub users: Vec<FoundUser>,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What to complete a query to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suggestion {
    pub text: String,
    pub field: SuggestionField,
    /// The user whose text it is.
    pub user_id: String,
}

/// Which of a user's texts a suggestion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum SuggestionField {
    DisplayName,
    /// First and last name, as far as they are known.
    Name,
    Username,
    Email,
}

/// Suggestions, one for each user.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suggestions {
    /// Users whose words are equal to those of `q` first, then those whose words begin with them; in the order of their ids.
    pub suggestions: Vec<Suggestion>,
}
