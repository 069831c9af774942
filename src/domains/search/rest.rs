//! The REST surface of the search domain: unpacks requests, calls `queries`, sends answers.

use axum::extract::State;
use serde_json::{Value, json};
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{FoundUsers, Suggestions};
use super::queries::{self, SearchFilter};
use crate::error::Error;
use crate::query::rest::{PageParameters, Query};
use crate::query::{Answer, Reads};

/// The routes, with their documentation.
pub fn routes() -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("search")
        .description(Some("Users, found by their names, usernames and emails."))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(search_users))
        .routes(routes!(suggest))
}

/// Users by words, status and registration
///
/// Finds the users whose names, username and email have all words of `q`, in any case, with or without accents: equal words
/// (score 1), words that begin with those of `q` (0.75), then words with typos (0.5): one character inserted, deleted or replaced
/// in words of `q` with four characters and more, two from eight. Without `q`, all users that pass the other filters, in the order
/// of their ids. Deleted users are not found.
#[utoipa::path(
    get,
    path = "/v1/search/users",
    operation_id = "searchUsers",
    tag = "search",
    params(
        ("q" = Option<String>, Query, min_length = 1, max_length = 500,
            description = "Up to ten words, such as `ada love`; there must be a letter or a digit"),
        ("status" = Option<Vec<String>>, Query, max_items = 100,
            description = "Only users with this status, such as `active`; may be repeated"),
        ("registeredAfter" = Option<DateTime<Utc>>, Query,
            description = "Only users who registered after this instant (RFC 3339), such as `2025-10-01T00:00:00Z`"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "The users, best score first", body = FoundUsers, example = json!(example_found())),
        (status = 404, description = "This process does not serve search"),
    ),
)]
async fn search_users(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<FoundUsers>, Error> {
    let filter = SearchFilter {
        q: query.text("q")?,
        status: query.all("status"),
        registered_after: query.time("registeredAfter")?,
    };
    queries::search_users(&reads, &filter, &query.page()?).await
}

/// Suggestions as one types
///
/// For each user whose words are equal to those of `q`, or begin with them, the first text that matches by itself: display name,
/// name, username or email.
#[utoipa::path(
    get,
    path = "/v1/search/suggestions",
    operation_id = "suggestUsers",
    tag = "search",
    params(
        ("q" = String, Query, min_length = 1, max_length = 500,
            description = "What has been typed: up to ten words; there must be a letter or a digit", example = "ada love"),
        ("limit" = Option<i32>, Query, minimum = 1, maximum = 50, description = "The most suggestions to return: 10 by default"),
    ),
    responses(
        (status = 200, description = "The suggestions, equal words first", body = Suggestions, example = json!(example_suggestions())),
        (status = 404, description = "This process does not serve search"),
    ),
)]
async fn suggest(State(reads): State<Reads>, query: Query) -> Result<Answer<Suggestions>, Error> {
    let Some(q) = query.text("q")? else {
        return Err(Error::invalid("q", "is missing"));
    };
    let limit = match query.text("limit")? {
        None => 0,
        // What is no number, and 0, which is the default of gRPC, is out of range.
        Some(limit) => limit.parse().ok().filter(|limit| *limit != 0).unwrap_or(-1),
    };
    queries::suggest(&reads, &q, limit).await
}

fn example_found() -> Value {
    json!({
        "users": [{
            "userId": "u-1001",
            "email": "ada@example.org",
            "username": "ada",
            "firstName": "Ada",
            "lastName": "Lovelace",
            "status": "active",
            "registeredAt": "2025-10-01T08:30:00Z",
            "staleFields": [],
            "score": 0.75,
        }],
    })
}

fn example_suggestions() -> Value {
    json!({"suggestions": [{"text": "Ada Lovelace", "field": "name", "userId": "u-1001"}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_parse_as_answers() {
        let found: FoundUsers = serde_json::from_value(example_found()).unwrap();
        assert_eq!(serde_json::to_value(found).unwrap(), example_found());
        let suggestions: Suggestions = serde_json::from_value(example_suggestions()).unwrap();
        assert_eq!(
            serde_json::to_value(suggestions).unwrap(),
            example_suggestions()
        );
    }
}
