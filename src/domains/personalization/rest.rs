//! The REST surface of the personalization domain: unpacks requests, calls `queries`, sends answers.

use axum::extract::State;
use serde_json::{Value, json};
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Profile, Segment};
use super::queries::{self, SegmentFilter};
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{PageParameters, Path, Query, UserPath};
use crate::query::{Answer, Reads};

/// The routes, with their documentation.
pub fn routes() -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("personalization")
        .description(Some(
            "Preferences, language and location, for the Personalization Service.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(get_profile))
        .routes(routes!(list_segment))
}

/// A user's profile
///
/// What is known of a user to tailor by. A field that is absent is unknown; a field in
/// `staleFields` is known to have changed, but not to what.
#[utoipa::path(
    get,
    path = "/v1/personalization/users/{userId}",
    operation_id = "getProfile",
    tag = "personalization",
    params(UserPath),
    responses(
        (status = 200, description = "The profile", body = Profile, example = json!(example_profile())),
        (status = 404, description = "The user is unknown or deleted, or this process does not serve personalization",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn get_profile(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
) -> Result<Answer<Profile>, Error> {
    queries::get_profile(&reads, &user_id).await
}

/// The users of a segment
///
/// Users by their location, their language or their preferences: those who match all filters, of
/// which at least one is required. `totalSize` is the number of users in the whole segment. A field
/// that is stale counts with its last known value.
#[utoipa::path(
    get,
    path = "/v1/personalization/segments",
    operation_id = "listSegment",
    tag = "personalization",
    params(
        ("countryCode" = Option<String>, Query, description = "The country of the location, in either case, such as `GB`"),
        ("city" = Option<String>, Query, description = "The city of the location, in either case, such as `London`"),
        ("language" = Option<String>, Query, description = "The language preference, exactly, such as `en-GB`"),
        ("preference" = Option<Vec<String>>, Query, max_items = 10,
            description = "A preference: its dotted path, a colon and its value as JSON writes it, strings without quotes, \
                such as `privacy.tracking:false`. May be repeated: users have all of these"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "The users, by id, and how many there are", body = Segment,
            example = json!(example_segment())),
        (status = 404, description = "This process does not serve personalization"),
    ),
)]
async fn list_segment(State(reads): State<Reads>, query: Query) -> Result<Answer<Segment>, Error> {
    let filter = SegmentFilter {
        country_code: query.text("countryCode")?,
        city: query.text("city")?,
        language: query.text("language")?,
        preferences: query.all("preference"),
    };
    queries::list_segment(&reads, &filter, &query.page()?).await
}

fn example_profile() -> Value {
    json!({
        "userId": "u-1001",
        "preferences": {"privacy": {"tracking": false}, "theme": "dark"},
        "communicationPreferences": {"newsletter": {"frequency": "weekly"}},
        "languagePreference": "en-GB",
        "timezonePreference": "Europe/London",
        "location": {"countryCode": "GB", "city": "London"},
        "countries": ["GB"],
        "staleFields": ["bio"],
        "updatedAt": "2025-11-02T17:05:12.250Z",
    })
}

fn example_segment() -> Value {
    json!({"userIds": ["u-1001"], "totalSize": 1})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_parse_as_answers() {
        let profile: Profile = serde_json::from_value(example_profile()).unwrap();
        assert_eq!(serde_json::to_value(profile).unwrap(), example_profile());
        let segment: Segment = serde_json::from_value(example_segment()).unwrap();
        assert_eq!(serde_json::to_value(segment).unwrap(), example_segment());
    }
}
