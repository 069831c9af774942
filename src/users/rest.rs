//! The REST surface of what is held about a user: unpacks requests, calls `queries`, sends answers.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use serde_json::json;
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Served;
use super::model::{User, UserInDomain};
use super::queries;
use crate::domains::Domain;
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{DomainName, Path, Query, UserPath};
use crate::query::{Answer, Reads};

/// The routes, with their documentation. They answer from these domains.
pub fn routes(served: &[&'static dyn Domain]) -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("users")
        .description(Some(
            "What all domains hold of one user, read at the same moment.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(get_user))
        .layer(Extension::<Served>(served.into()))
}

/// What is held about a user
///
/// What each asked domain holds of the user, and the events about the user that it could not apply: open dead letters under the
/// user's id. All parts are read at the same moment; each has the token of its own position. The token in the header is one
/// that all parts have reached. `data` is the domain's own answer: a customer of order, `addresses` of fulfillment, a user as
/// search finds one, a profile of personalization, the activity of analytics, the last 1,000 `notifications` (newest first;
/// `hasMore` says whether there are older ones), and of audit the last 1,000 `entries` (newest first; `nextPageToken` continues
/// `/v1/audit/entries?userId=…`) and the user's `access`. Both lists end earlier where half of an answer is full.
#[utoipa::path(
    get,
    path = "/v1/users/{userId}",
    operation_id = "getUser",
    tag = "users",
    params(
        UserPath,
        ("domains" = Option<Vec<DomainName>>, Query,
            description = "Only these domains; repeated, or separated by commas. All that the process serves by default"),
    ),
    responses(
        (status = 200, description = "What each asked domain holds", body = User, example = json!(example_user())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(queries::too_large().problem())),
        (status = 404, description = "No asked domain knows the user, or this process does not serve one of them",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn get_user(
    State(reads): State<Reads>,
    Extension(served): Extension<Served>,
    Path(UserPath { user_id }): Path<UserPath>,
    query: Query,
) -> Result<Answer<User>, Error> {
    let domains = query.all("domains");
    let domains = domains.iter().flat_map(|names| names.split(','));
    let domains: Vec<String> = domains.map(str::to_owned).collect();
    queries::get_user(&reads, &served, &user_id, &domains).await
}

fn example_user() -> User {
    let part = |data| UserInDomain {
        data,
        token: "AQ".to_owned(),
        dead_letters: Vec::new(),
        has_more_dead_letters: false,
    };
    let location = json!({"userId": "u-1001", "location": {"countryCode": "DE"}});
    User {
        user_id: "u-1001".to_owned(),
        domains: BTreeMap::from([
            ("fulfillment".to_owned(), part(None)),
            ("personalization".to_owned(), part(Some(location))),
        ]),
    }
}
