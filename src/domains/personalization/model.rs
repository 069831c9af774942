//! The answers of the personalization domain. A field that is absent is unknown: no value is
//! guessed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What is known of a user to tailor by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// The user's id: an opaque string.
    pub user_id: String,
    /// The preferences, as nested as the events have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HashMap<String, Value>>)]
    pub preferences: Option<Map<String, Value>>,
    /// The preferences for messages to the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HashMap<String, Value>>)]
    pub communication_preferences: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    /// As the event has it, such as `en` or `de-AT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_preference: Option<String>,
    /// As the event has it, such as `Europe/London`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone_preference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_picture_url: Option<String>,
    /// The place of the default shipping address, else of the address that became known last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The countries of all known addresses, sorted.
    pub countries: Vec<String>,
    /// Fields that are known to have changed, but not to what, such as `bio`, `preferences.theme`
    /// or `location.city`. The User Service has the current values.
    pub stale_fields: Vec<String>,
    /// When the user's last event that this view is made from happened.
    pub updated_at: DateTime<Utc>,
}

/// Where a user is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// As the event has it, in upper case: ISO 3166-1 alpha-2, unless the event has another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A page of the users of a segment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// In the order of their bytes.
    pub user_ids: Vec<String>,
    /// How many users the whole segment has.
    #[schema(minimum = 0)]
    pub total_size: i64,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
