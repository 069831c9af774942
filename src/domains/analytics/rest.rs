//! The REST surface of the analytics domain: unpacks requests, calls `queries`, sends answers.

use axum::extract::State;
use chrono::NaiveDate;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::metric::Metric;
use super::model::{DailyMetrics, Funnel, Retention, UserActivity};
use super::queries::{self, DayRange};
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{Path, Query, UserPath};
use crate::query::{Answer, Reads};

/// The routes, with their documentation.
pub fn routes() -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("analytics")
        .description(Some(
            "Counts by day, funnel, retention and users' activity.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(get_daily_metrics))
        .routes(routes!(get_funnel))
        .routes(routes!(get_retention))
        .routes(routes!(get_user_activity))
}

/// The query parameters `from` and `to`, for the documentation; [`range`] reads them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only described")]
struct RangeParameters {
    /// The first day (UTC)
    #[param(example = "2025-10-01")]
    from: NaiveDate,
    /// The last day (UTC), included
    #[param(example = "2025-11-30")]
    to: NaiveDate,
}

fn range(query: &Query) -> Result<DayRange, Error> {
    let (from, to) = (query.text("from")?, query.text("to")?);
    DayRange::parse(from.as_deref(), to.as_deref())
}

/// How many events of each kind happened on each day
///
/// One row for every day of the range, zeroes included. Days are UTC days of the time at which the
/// events happened. Events of deleted users still count. If the answer would be larger than 3 MiB,
/// the request is refused with `RESPONSE_TOO_LARGE`, saying how many of the days fit.
#[utoipa::path(
    get,
    path = "/v1/analytics/daily",
    operation_id = "getDailyMetrics",
    tag = "analytics",
    params(
        RangeParameters,
        ("metrics" = inline(Option<Vec<Metric>>), Query,
            description = "Only these metrics; repeated, or separated by commas. The range may have 3,660 days"),
    ),
    responses(
        (status = 200, description = "The numbers, day by day", body = DailyMetrics, example = json!(example_days())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(queries::too_large("days", 412).problem())),
        (status = 404, description = "This process does not serve analytics"),
    ),
)]
async fn get_daily_metrics(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<DailyMetrics>, Error> {
    let range = range(&query)?;
    let names = query.all("metrics");
    let names = names.iter().flat_map(|names| names.split(','));
    let metrics = names.map(|name| {
        Metric::parse(name).ok_or_else(|| {
            let names = Metric::ALL.map(Metric::as_str).join(", ");
            Error::invalid("metrics", format!("must be some of: {names}"))
        })
    });
    let metrics: Vec<Metric> = metrics.collect::<Result<_, _>>()?;
    queries::get_daily_metrics(&reads, range, &metrics).await
}

/// How far new users come
///
/// Of the users who registered in the range: how many verified their email, logged in and added an
/// address, and how long that took. A user counts in a step who has done it and all steps before it,
/// in whatever order. Deleted users are not counted.
#[utoipa::path(
    get,
    path = "/v1/analytics/funnel",
    operation_id = "getFunnel",
    tag = "analytics",
    params(RangeParameters),
    responses(
        (status = 200, description = "The four steps, in order", body = Funnel, example = json!(example_funnel())),
        (status = 404, description = "This process does not serve analytics"),
    ),
)]
async fn get_funnel(State(reads): State<Reads>, query: Query) -> Result<Answer<Funnel>, Error> {
    queries::get_funnel(&reads, range(&query)?).await
}

/// How many users come back, week by week
///
/// The users who registered in the range, by the ISO week of their registration, and how many of
/// them logged in in that week, in the week after it, and so on. Deleted users are not counted. If
/// the answer would be larger than 3 MiB, the request is refused with `RESPONSE_TOO_LARGE`.
#[utoipa::path(
    get,
    path = "/v1/analytics/retention",
    operation_id = "getRetention",
    tag = "analytics",
    params(
        RangeParameters,
        ("weeks" = Option<i32>, Query, minimum = 1, maximum = 52,
            description = "How many weeks to count, that of the registration included; 8 by default"),
    ),
    responses(
        (status = 200, description = "The weeks in which users registered, in order", body = Retention,
            example = json!(example_retention())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(queries::too_large("weeks", 412).problem())),
        (status = 404, description = "This process does not serve analytics"),
    ),
)]
async fn get_retention(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<Retention>, Error> {
    let range = range(&query)?;
    let weeks = query.text("weeks")?;
    // What is not a number is refused like one out of range.
    let weeks = weeks.map(|weeks| {
        let is_number = weeks.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| weeks.parse().ok()).flatten().unwrap_or(0)
    });
    queries::get_retention(&reads, range, weeks).await
}

/// A user's activity
///
/// Registration, verification, logins and failed logins. A deleted user has none.
#[utoipa::path(
    get,
    path = "/v1/analytics/users/{userId}/activity",
    operation_id = "getUserActivity",
    tag = "analytics",
    params(UserPath),
    responses(
        (status = 200, description = "The activity", body = UserActivity, example = json!(example_activity())),
        (status = 404, description = "The user is unknown or deleted, or this process does not serve analytics",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn get_user_activity(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
) -> Result<Answer<UserActivity>, Error> {
    queries::get_user_activity(&reads, &user_id).await
}

fn example_days() -> Value {
    json!({
        "days": [{
            "date": "2025-10-01",
            "registrations": {"total": 1, "bySource": {"unknown": 1}},
            "emailVerifications": 1,
            "logins": 0,
            "uniqueLogins": 0,
            "loginFailures": {"total": 0, "byReason": {}},
            "logouts": 0,
            "profileUpdates": 0,
            "addressesAdded": {"total": 1, "byCountry": {"GB": 1}},
            "passwordChanges": 0,
            "passwordResetRequests": 0,
            "mfaEnabled": 0,
            "mfaDisabled": 0,
            "mfaChallengeFailures": 0,
            "deletions": 0,
        }],
    })
}

fn example_funnel() -> Value {
    json!({
        "steps": [
            {"step": "registered", "count": 4, "conversionRate": 1.0, "medianSeconds": 0.0},
            {"step": "email_verified", "count": 1, "conversionRate": 0.25, "medianSeconds": 660.0},
            {"step": "first_login", "count": 0, "conversionRate": 0.0},
            {"step": "first_address", "count": 0, "conversionRate": 0.0},
        ],
    })
}

fn example_retention() -> Value {
    json!({"cohorts": [{"weekStart": "2025-09-29", "size": 1, "retained": [0, 0, 0, 0, 0, 0, 0, 0]}]})
}

fn example_activity() -> Value {
    json!({
        "registeredAt": "2025-10-01T08:30:00Z",
        "verifiedAt": "2025-10-01T08:41:00Z",
        "loginCount": 0,
        "failedLoginsSinceLastLogin": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_parse_as_answers() {
        let days: DailyMetrics = serde_json::from_value(example_days()).unwrap();
        assert_eq!(serde_json::to_value(days).unwrap(), example_days());
        let funnel: Funnel = serde_json::from_value(example_funnel()).unwrap();
        assert_eq!(serde_json::to_value(funnel).unwrap(), example_funnel());
        let retention: Retention = serde_json::from_value(example_retention()).unwrap();
        assert_eq!(
            serde_json::to_value(retention).unwrap(),
            example_retention()
        );
        let activity: UserActivity = serde_json::from_value(example_activity()).unwrap();
        assert_eq!(serde_json::to_value(activity).unwrap(), example_activity());
    }
}
