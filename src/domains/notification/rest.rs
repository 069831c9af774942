//! The REST surface of the notification domain: unpacks requests, calls `queries` and `queue`, sends
//! answers.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::model::{
    ExtendedLease, LeasedNotifications, Notification, Notifications, SettledNotification,
    SettledNotifications, Status, Template,
};
use super::queries::{self, NotificationFilter};
use super::queue::{self, FailedNotification, HeldNotification, LeaseRequest, Queue};
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{Json, PageParameters, Path, Query};
use crate::query::{self, Answer, Reads};

/// The routes, with their documentation. Workers lease from `queue`.
pub fn routes(queue: Arc<Queue>) -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("notification")
        .description(Some(
            "Messages to users that are to be sent, and a queue of them, for the Notification Service.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(list_notifications))
        .routes(routes!(get_notification))
        .routes(routes!(lease_notifications))
        .routes(routes!(ack_notifications))
        .routes(routes!(fail_notifications))
        .routes(routes!(ack_notification))
        .routes(routes!(fail_notification))
        .routes(routes!(extend_lease))
        .layer(Extension(queue))
}

/// The path parameter `notificationId`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(rename_all = "camelCase")]
struct NotificationPath {
    /// The notification's id, a UUID, as the list gives it
    #[param(example = "1843308f-fe5b-8029-a8d4-ceae93f1970e", value_type = Uuid)]
    notification_id: String,
}

impl NotificationPath {
    fn id(&self) -> Result<Uuid, Error> {
        query::uuid("notificationId", &self.notification_id)
    }
}

/// Notifications, oldest first
///
/// All that concern users, whatever became of them, filtered by user, status and template. Each status
/// and each template may be repeated: any of them counts.
#[utoipa::path(
    get,
    path = "/v1/notification/notifications",
    operation_id = "listNotifications",
    tag = "notification",
    params(
        ("userId" = Option<String>, Query, max_length = 255, description = "Only those to this user, such as `u-1001`"),
        ("status" = Option<Vec<Status>>, Query, description = "Only those with this status; may be repeated"),
        ("template" = Option<Vec<Template>>, Query, description = "Only those of this template; may be repeated"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "A page of notifications", body = Notifications,
            example = json!({"notifications": [example_notification()]})),
        (status = 404, description = "This process does not serve notification"),
    ),
)]
async fn list_notifications(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<Notifications>, Error> {
    let statuses = query.all("status");
    let statuses = statuses.iter().map(|word| {
        query::one_of("status", Status::ALL, Status::as_str, |status| {
            status.as_str() == word
        })
    });
    let templates = query.all("template");
    let templates = templates.iter().map(|word| template("template", word));
    let filter = NotificationFilter {
        user_id: query.text("userId")?,
        statuses: statuses.collect::<Result<_, _>>()?,
        templates: templates.collect::<Result<_, _>>()?,
    };
    queries::list_notifications(&reads, &filter, &query.page()?).await
}

/// One notification
///
/// What it says, whom it goes to, and what became of it.
#[utoipa::path(
    get,
    path = "/v1/notification/notifications/{notificationId}",
    operation_id = "getNotification",
    tag = "notification",
    params(NotificationPath),
    responses(
        (status = 200, description = "The notification", body = Notification, example = json!(example_notification())),
        (status = 404, description = "There is no such notification, or this process does not serve notification",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("notification").problem())),
    ),
)]
async fn get_notification(
    State(reads): State<Reads>,
    Path(path): Path<NotificationPath>,
) -> Result<Answer<Notification>, Error> {
    queries::get_notification(&reads, path.id()?).await
}

/// How many notifications to lease, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LeaseNotificationsRequest {
    /// How many at most.
    #[schema(minimum = 1, maximum = 100)]
    max: i32,
    /// For how long, in seconds.
    #[schema(minimum = 5, maximum = 3600)]
    lease_seconds: i32,
    /// Only those of these templates; all if there are none.
    #[serde(default)]
    #[schema(value_type = Vec<Template>)]
    templates: Vec<String>,
    /// How long to wait, in seconds, if nothing is pending.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    wait_seconds: i32,
}

/// Leases pending notifications, oldest first
///
/// Until its lease ends no other worker gets a notification. Send it, with its `notificationId` as
/// idempotency key, and acknowledge it; say that it failed; or extend the lease while you are at it.
/// If nothing is pending, the call waits for up to `waitSeconds`, then answers with an empty list.
#[utoipa::path(
    post,
    path = "/v1/notification/notifications:lease",
    operation_id = "leaseNotifications",
    tag = "notification",
    request_body(content = LeaseNotificationsRequest, description = "How many, and for how long",
        example = json!({"max": 10, "leaseSeconds": 60})),
    responses(
        (status = 200, description = "The leased notifications", body = LeasedNotifications,
            example = json!(example_leased())),
        (status = 404, description = "This process does not serve notification"),
        (status = 409, description = "After a restore of the database, leasing is held back until an operator resumes the domain",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn lease_notifications(
    State(reads): State<Reads>,
    Extension(queue): Extension<Arc<Queue>>,
    Json(request): Json<LeaseNotificationsRequest>,
) -> Result<Answer<LeasedNotifications>, Error> {
    let templates = request.templates.iter().enumerate();
    let templates = templates.map(|(i, word)| template(&format!("templates[{i}]"), word));
    let request = LeaseRequest {
        max: request.max,
        lease_seconds: request.lease_seconds,
        templates: templates.collect::<Result<_, _>>()?,
        wait_seconds: request.wait_seconds,
    };
    queue.lease(&reads, request).await
}

/// A notification, and the lease under which it is held.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AckedItem {
    /// The notification's id.
    #[schema(value_type = Uuid)]
    notification_id: String,
    /// The token of the lease.
    #[schema(value_type = Uuid)]
    lease_token: String,
}

/// Notifications that were sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AckNotificationsRequest {
    /// Each once.
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<AckedItem>,
}

/// Acknowledges notifications that were sent
///
/// May be repeated: the outcome is the same. Also a lease that has run out is acknowledged, unless the
/// notification was leased again meanwhile.
#[utoipa::path(
    post,
    path = "/v1/notification/notifications:ack",
    operation_id = "ackNotifications",
    tag = "notification",
    extensions(("x-writes" = json!(true))),
    request_body(content = AckNotificationsRequest, description = "What was sent",
        example = json!({"items": [{"notificationId": EXAMPLE_ID, "leaseToken": EXAMPLE_TOKEN}]})),
    responses(
        (status = 200, description = "The outcome for each, in the order of the request", body = SettledNotifications,
            example = json!(example_settled())),
        (status = 404, description = "This process does not serve notification"),
    ),
)]
async fn ack_notifications(
    State(reads): State<Reads>,
    Extension(queue): Extension<Arc<Queue>>,
    Json(request): Json<AckNotificationsRequest>,
) -> Result<Json<SettledNotifications>, Error> {
    let items = request.items.into_iter();
    let items = items.map(|item| (item.notification_id, item.lease_token));
    let items = HeldNotification::all(items)?;
    queue.acknowledge(&reads, &items).await.map(Json)
}

/// A notification that could not be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FailedItem {
    /// The notification's id.
    #[schema(value_type = Uuid)]
    notification_id: String,
    /// The token of the lease.
    #[schema(value_type = Uuid)]
    lease_token: String,
    /// Why, without personal data.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Notifications that could not be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FailNotificationsRequest {
    /// Each once.
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<FailedItem>,
}

/// Says that notifications could not be sent
///
/// Each is pending again after a pause that doubles with every attempt, or `failed` after the last
/// attempt.
#[utoipa::path(
    post,
    path = "/v1/notification/notifications:fail",
    operation_id = "failNotifications",
    tag = "notification",
    extensions(("x-writes" = json!(true))),
    request_body(content = FailNotificationsRequest, description = "What could not be sent, and why",
        example = json!({"items": [{"notificationId": EXAMPLE_ID, "leaseToken": EXAMPLE_TOKEN, "reason": "mailbox full"}]})),
    responses(
        (status = 200, description = "The outcome for each, in the order of the request", body = SettledNotifications,
            example = json!(example_settled_as("pending"))),
        (status = 404, description = "This process does not serve notification"),
    ),
)]
async fn fail_notifications(
    State(reads): State<Reads>,
    Extension(queue): Extension<Arc<Queue>>,
    Json(request): Json<FailNotificationsRequest>,
) -> Result<Json<SettledNotifications>, Error> {
    let items = request.items.into_iter();
    let items = items.map(|item| (item.notification_id, item.lease_token, item.reason));
    let items = FailedNotification::all(items)?;
    queue.fail(&reads, &items).await.map(Json)
}

/// The lease under which a notification was sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AckNotificationRequest {
    /// The token of the lease.
    #[schema(value_type = Uuid)]
    lease_token: String,
}

/// Acknowledges a notification that was sent
///
/// May be repeated: the answer is the same. Also a lease that has run out is acknowledged, unless the
/// notification was leased again meanwhile.
#[utoipa::path(
    post,
    path = "/v1/notification/notifications/{notificationId}/ack",
    operation_id = "ackNotification",
    tag = "notification",
    extensions(("x-writes" = json!(true))),
    params(NotificationPath),
    request_body(content = AckNotificationRequest, description = "The lease", example = json!({"leaseToken": EXAMPLE_TOKEN})),
    responses(
        (status = 200, description = "It was noted", body = SettledNotification, example = json!(example_outcome("sent"))),
        (status = 404, description = "There is no such notification, or this process does not serve notification",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("notification").problem())),
        (status = 409, description = "The worker no longer holds it (`LEASE_LOST`), or it was cancelled (`NOTIFICATION_CANCELLED`)",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn ack_notification(
    State(reads): State<Reads>,
    Extension(queue): Extension<Arc<Queue>>,
    Path(path): Path<NotificationPath>,
    Json(request): Json<AckNotificationRequest>,
) -> Result<Json<SettledNotification>, Error> {
    let item = HeldNotification::of("", &path.notification_id, &request.lease_token)?;
    let outcomes = queue.acknowledge(&reads, &[item]).await?;
    queue::single(outcomes).map(Json)
}

/// The lease under which a notification could not be sent, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FailNotificationRequest {
    /// The token of the lease.
    #[schema(value_type = Uuid)]
    lease_token: String,
    /// Why, without personal data.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Says that a notification could not be sent
///
/// It is pending again after a pause that doubles with every attempt, or `failed` after the last
/// attempt.
#[utoipa::path(
    post,
    path = "/v1/notification/notifications/{notificationId}/fail",
    operation_id = "failNotification",
    tag = "notification",
    extensions(("x-writes" = json!(true))),
    params(NotificationPath),
    request_body(content = FailNotificationRequest, description = "The lease, and why it could not be sent",
        example = json!({"leaseToken": EXAMPLE_TOKEN, "reason": "mailbox full"})),
    responses(
        (status = 200, description = "It was noted", body = SettledNotification, example = json!(example_outcome("pending"))),
        (status = 404, description = "There is no such notification, or this process does not serve notification",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("notification").problem())),
        (status = 409, description = "The worker no longer holds it (`LEASE_LOST`), or it was cancelled (`NOTIFICATION_CANCELLED`)",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn fail_notification(
    State(reads): State<Reads>,
    Extension(queue): Extension<Arc<Queue>>,
    Path(path): Path<NotificationPath>,
    Json(request): Json<FailNotificationRequest>,
) -> Result<Json<SettledNotification>, Error> {
    let held = HeldNotification::of("", &path.notification_id, &request.lease_token)?;
    let item = FailedNotification::new(held, "reason", request.reason)?;
    let outcomes = queue.fail(&reads, &[item]).await?;
    queue::single(outcomes).map(Json)
}

/// Which lease to extend, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExtendLeaseRequest {
    /// The token of the lease.
    #[schema(value_type = Uuid)]
    lease_token: String,
    /// For how long from now, in seconds.
    #[schema(minimum = 5, maximum = 3600)]
    lease_seconds: i32,
}

/// Extends a lease
///
/// The lease then ends `leaseSeconds` from now. Also one that has run out is extended, unless the
/// notification was leased again meanwhile.
#[utoipa::path(
    post,
    path = "/v1/notification/notifications/{notificationId}/extend",
    operation_id = "extendLease",
    tag = "notification",
    extensions(("x-writes" = json!(true))),
    params(NotificationPath),
    request_body(content = ExtendLeaseRequest, description = "The lease, and for how long",
        example = json!({"leaseToken": EXAMPLE_TOKEN, "leaseSeconds": 60})),
    responses(
        (status = 200, description = "When the lease ends", body = ExtendedLease,
            example = json!({"leasedUntil": "2026-11-02T17:06:12.250Z"})),
        (status = 404, description = "There is no such notification, or this process does not serve notification",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("notification").problem())),
        (status = 409, description = "The worker no longer holds it (`LEASE_LOST`), or it was cancelled (`NOTIFICATION_CANCELLED`)",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn extend_lease(
    State(reads): State<Reads>,
    Path(path): Path<NotificationPath>,
    Json(request): Json<ExtendLeaseRequest>,
) -> Result<Json<ExtendedLease>, Error> {
    let item = HeldNotification::of("", &path.notification_id, &request.lease_token)?;
    let extended = queue::extend(&reads, &item, request.lease_seconds);
    extended.await.map(Json)
}

fn template(field: &str, word: &str) -> Result<Template, Error> {
    query::one_of(field, Template::ALL, Template::as_str, |template| {
        template.as_str() == word
    })
}

const EXAMPLE_ID: &str = "1843308f-fe5b-8029-a8d4-ceae93f1970e";
const EXAMPLE_TOKEN: &str = "01a2093a-f139-710d-8867-ae04814d66ac";

fn example_notification() -> Value {
    json!({
        "notificationId": EXAMPLE_ID,
        "eventId": "ada-3",
        "userId": "u-1001",
        "template": "email_verified",
        "recipient": "ada@example.org",
        "channel": "email",
        "data": {"userId": "u-1001", "firstName": "Ada", "username": "ada"},
        "status": "expired",
        "attempts": 0,
        "createdAt": "2025-10-01T08:41:00Z",
        "expiresAt": "2025-10-08T08:41:00Z",
    })
}

fn example_leased() -> Value {
    let mut leased = example_notification();
    leased["status"] = json!("leased");
    leased["attempts"] = json!(1);
    leased["createdAt"] = json!("2026-11-02T17:05:10Z");
    leased["expiresAt"] = json!("2026-11-09T17:05:10Z");
    leased["leaseToken"] = json!(EXAMPLE_TOKEN);
    leased["leasedUntil"] = json!("2026-11-02T17:06:12.250Z");
    json!({"notifications": [leased]})
}

fn example_outcome(status: &str) -> Value {
    json!({"notificationId": EXAMPLE_ID, "outcome": "ok", "status": status})
}

fn example_settled_as(status: &str) -> Value {
    json!({"outcomes": [example_outcome(status)]})
}

fn example_settled() -> Value {
    let mut settled = example_settled_as("sent");
    let lost = json!({"notificationId": "0e3b2b1c-7a57-5d51-1f0e-94d3f9d1a1c2", "outcome": "lost", "status": "leased"});
    if let Some(outcomes) = settled["outcomes"].as_array_mut() {
        outcomes.push(lost);
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_parse_as_answers() {
        let notification: Notification = serde_json::from_value(example_notification()).unwrap();
        assert_eq!(
            serde_json::to_value(notification).unwrap(),
            example_notification()
        );
        let leased: LeasedNotifications = serde_json::from_value(example_leased()).unwrap();
        assert_eq!(serde_json::to_value(leased).unwrap(), example_leased());
        let settled: SettledNotifications = serde_json::from_value(example_settled()).unwrap();
        assert_eq!(serde_json::to_value(settled).unwrap(), example_settled());
    }

    #[test]
    fn words_of_closed_sets_are_listed() {
        let error = template("templates[1]", "Welcome").unwrap_err();
        assert_eq!(error.fields()[0].field, "templates[1]");
        assert!(
            error.fields()[0]
                .problem
                .starts_with("must be one of: welcome, email_verification,")
        );
    }
}
