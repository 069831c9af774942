//! The REST surface of the audit domain: unpacks requests, calls `queries`, `export` and `verify`, sends answers.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chain::Key;
use super::export::{self, Format};
use super::model::{Access, AlertKind, Alerts, Category, Entries, Outcome, Role, Verification};
use super::queries::{self, AlertFilter, EntryFilter};
use super::verify;
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{self, AsOfParameter, Json, PageParameters, Path, Query, UserPath};
use crate::query::{self, Answer, Reads};

/// The routes, with their documentation. `key` is that of the chains.
pub fn routes(key: Key) -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("audit")
        .description(Some(
            "The security log: who did what and when, alerts on attacks, and who may do what.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(list_entries))
        .routes(routes!(list_alerts))
        .routes(routes!(verify_entries))
        .routes(routes!(get_user_access))
        .routes(routes!(get_role))
        .layer(Extension(key))
}

/// The word of a filter, one of a closed set.
fn word<T: Copy, const N: usize>(
    query: &Query,
    name: &str,
    all: [T; N],
    as_str: fn(T) -> &'static str,
) -> Result<Option<T>, Error> {
    let text = query.text(name)?;
    let named = |text: String| query::one_of(name, all, as_str, |word| as_str(word) == text);
    text.map(named).transpose()
}

/// Entries, newest first
///
/// What happened to accounts, logins, roles and permissions, one entry for each event. All filters that are given must match. With
/// `Accept: application/x-ndjson` or `text/csv`, all entries that match are sent as one stream, without pages: as lines of JSON, or as
/// CSV with a header. A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return begins with a `'` instead. If something
/// fails on the way, the stream is cut off and does not end regularly.
#[utoipa::path(
    get,
    path = "/v1/audit/entries",
    operation_id = "listEntries",
    tag = "audit",
    params(
        ("userId" = Option<String>, Query, max_length = 255, description = "Only those that concern this user, such as `u-1001`"),
        ("actor" = Option<String>, Query,
            description = "Only those of this actor: the id of a user or an administrator; of failed logins, the account that was tried"),
        ("roleId" = Option<String>, Query, max_length = 255, description = "Only those that concern this role"),
        ("ipAddress" = Option<String>, Query, description = "Only those from this IP address, as the events write it"),
        ("category" = Option<Category>, Query, description = "Only those of this category"),
        ("action" = Option<String>, Query, description = "Only those of this action, such as `user_logged_in`"),
        ("outcome" = Option<Outcome>, Query, description = "Only those with this outcome"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query,
            description = "Only those that happened at this instant (RFC 3339; `+` is written `%2B`) or later, such as `2025-10-01T00:00:00Z`"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Only those that happened before this instant, such as `2025-11-01T00:00:00Z`"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "A page of entries, or all of them as a stream", content(
            (Entries = "application/json", example = json!({"entries": [example_entry()]})),
            (String = "application/x-ndjson", example = json!(example_line())),
            (String = "text/csv", example = json!(EXAMPLE_CSV)),
        )),
        (status = 404, description = "This process does not serve audit"),
    ),
)]
async fn list_entries(
    State(reads): State<Reads>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let filter = EntryFilter {
        user_id: query.text("userId")?,
        actor: query.text("actor")?,
        role_id: query.text("roleId")?,
        ip_address: query.text("ipAddress")?,
        category: word(&query, "category", Category::ALL, Category::as_str)?,
        action: query.text("action")?,
        outcome: word(&query, "outcome", Outcome::ALL, Outcome::as_str)?,
        from: query.time("from")?,
        to: query.time("to")?,
    };
    let offered = ["application/json", "application/x-ndjson", "text/csv"];
    let format = match rest::preferred(&headers, &offered) {
        1 => Some(Format::Ndjson),
        2 => Some(Format::Csv),
        _ => None,
    };
    let mut response = match format {
        None => queries::list_entries(&reads, &filter, &query.page()?)
            .await?
            .into_response(),
        Some(format) => {
            for name in ["pageSize", "pageToken"] {
                if query.given(name)?.is_some() {
                    let problem = "is not for an export, which has all entries that match";
                    return Err(Error::invalid(name, problem));
                }
            }
            let export = export::export(reads, &filter, format).await?;
            rest::stream(format.media_type(), export)
        }
    };
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().append(header::VARY, vary);
    Ok(response)
}

/// Alerts, the newest window first
///
/// What looks like an attack: many failures in a window of time. Windows are fixed, so an alert is the same in whatever order events
/// came; it grows while events of its window come.
#[utoipa::path(
    get,
    path = "/v1/audit/alerts",
    operation_id = "listAlerts",
    tag = "audit",
    params(
        ("kind" = Option<AlertKind>, Query, description = "Only those of this kind"),
        ("key" = Option<String>, Query, description = "Only those of this account, IP address or user"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query,
            description = "Only those whose window begins at this instant (RFC 3339; `+` is written `%2B`) or later, such as `2025-10-01T00:00:00Z`"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query,
            description = "Only those whose window begins before this instant, such as `2025-11-01T00:00:00Z`"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "A page of alerts", body = Alerts, example = json!({"alerts": [example_alert()]})),
        (status = 404, description = "This process does not serve audit"),
    ),
)]
async fn list_alerts(State(reads): State<Reads>, query: Query) -> Result<Answer<Alerts>, Error> {
    let filter = AlertFilter {
        kind: word(&query, "kind", AlertKind::ALL, AlertKind::as_str)?,
        key: query.text("key")?,
        from: query.time("from")?,
        to: query.time("to")?,
    };
    queries::list_alerts(&reads, &filter, &query.page()?).await
}

/// What to compare the chains with.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VerifyEntriesRequest {
    /// `head` from a former answer, kept elsewhere: the chains must still contain it.
    #[serde(default)]
    expected_head: Option<String>,
}

/// Checks that no entry was changed
///
/// Walks the chain of each partition, and finds the first entry that was changed, removed, inserted or moved, and a tail that was cut
/// off. Takes about a minute for three million entries; without `Request-Timeout` it may take ten.
#[utoipa::path(
    post,
    path = "/v1/audit/entries:verify",
    operation_id = "verifyEntries",
    tag = "audit",
    extensions(("x-unpositioned" = json!(true))),
    request_body(content = VerifyEntriesRequest, description = "What to compare the chains with", example = json!({})),
    responses(
        (status = 200, description = "What was found", body = Verification, example = json!(example_verification())),
        (status = 404, description = "This process does not serve audit"),
        (status = 409, description = "The chains were made with another key than this process has (`AUDIT_KEY_DIFFERS`)",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn verify_entries(
    State(reads): State<Reads>,
    Extension(key): Extension<Key>,
    Json(request): Json<VerifyEntriesRequest>,
) -> Result<Json<Verification>, Error> {
    let expected = request.expected_head.as_deref();
    verify::verify(&reads, &key, expected).await.map(Json)
}

/// A user's roles and permissions
///
/// The roles that the user holds, and the permissions that they give, now or at an instant. Roles and permissions that were deleted
/// give nothing; a user who was deleted holds nothing. If the answer would be larger than 3 MiB, the request is refused with
/// `RESPONSE_TOO_LARGE`.
#[utoipa::path(
    get,
    path = "/v1/audit/users/{userId}/access",
    operation_id = "getUserAccess",
    tag = "audit",
    params(UserPath, AsOfParameter),
    responses(
        (status = 200, description = "The roles and permissions", body = Access, example = json!(example_access())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(queries::too_large("userId").problem())),
        (status = 404, description = "No event named the user, or this process does not serve audit",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn get_user_access(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
    query: Query,
) -> Result<Answer<Access>, Error> {
    queries::get_user_access(&reads, &user_id, query.past_time("asOf")?).await
}

/// The path parameter `roleId`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(rename_all = "camelCase")]
struct RolePath {
    /// The role's id: opaque, percent-encoded (`/` as `%2F`)
    #[param(min_length = 1, max_length = 255, example = "role-auditor")]
    role_id: String,
}

/// A role, its permissions and its holders
///
/// Now or at an instant. A deleted role has `deletedAt`, and neither permissions nor holders. If the answer would be larger than 3 MiB,
/// the request is refused with `RESPONSE_TOO_LARGE`.
#[utoipa::path(
    get,
    path = "/v1/audit/roles/{roleId}",
    operation_id = "getRole",
    tag = "audit",
    params(RolePath, AsOfParameter),
    responses(
        (status = 200, description = "The role", body = Role, example = json!(example_role())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(queries::too_large("roleId").problem())),
        (status = 404, description = "No event named the role, or this process does not serve audit",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("role").problem())),
    ),
)]
async fn get_role(
    State(reads): State<Reads>,
    Path(RolePath { role_id }): Path<RolePath>,
    query: Query,
) -> Result<Answer<Role>, Error> {
    queries::get_role(&reads, &role_id, query.past_time("asOf")?).await
}

fn example_entry() -> Value {
    json!({
        "eventId": "ada-3",
        "type": "UserEmailVerified",
        "version": "1",
        "category": "account",
        "action": "user_email_verified",
        "outcome": "success",
        "actor": "u-1001",
        "userId": "u-1001",
        "occurredAt": "2025-10-01T08:41:00Z",
        "recordedAt": "2026-11-02T17:05:10.125Z",
        "topic": "user.events",
        "partition": 3,
        "offset": 2,
    })
}

fn example_line() -> String {
    format!("{}\n", example_entry())
}

const EXAMPLE_CSV: &str = "eventId,type,version,category,action,outcome,reason,actor,userId,roleId,permissionId,ipAddress,userAgent,\
    correlationId,occurredAt,recordedAt,topic,partition,offset,changes\r\n\
    ada-3,UserEmailVerified,1,account,user_email_verified,success,,u-1001,u-1001,,,,,,2025-10-01T08:41:00Z,\
    2026-11-02T17:05:10.125Z,user.events,3,2,\r\n";

fn example_alert() -> Value {
    json!({
        "kind": "login_after_failures",
        "key": "u-7",
        "windowStart": "2025-11-24T10:00:00Z",
        "windowEnd": "2025-11-24T10:05:00Z",
        "count": 1,
        "firstEventAt": "2025-11-24T10:03:00Z",
        "lastEventAt": "2025-11-24T10:03:00Z",
        "eventIds": ["grace-11"],
    })
}

fn example_verification() -> Value {
    json!({
        "valid": false,
        "entriesChecked": 4210,
        "firstBroken": {
            "topic": "user.events",
            "partition": 3,
            "offset": 2,
            "eventId": "ada-3",
            "problem": "changed",
        },
        "keyed": true,
        "head": "AQ",
    })
}

fn example_access() -> Value {
    json!({
        "roles": [{"roleId": "role-auditor", "roleName": "auditor"}],
        "permissions": [{"permissionId": "perm-audit-read", "permissionName": "audit:read"}],
    })
}

fn example_role() -> Value {
    json!({
        "roleId": "role-auditor",
        "roleName": "auditor",
        "description": "Reads the security log",
        "permissions": [{"permissionId": "perm-audit-read", "permissionName": "audit:read"}],
        "holders": ["u-1001"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::audit::model::{Alert, Entry};

    #[test]
    fn the_examples_parse_as_answers() {
        let entry: Entry = serde_json::from_value(example_entry()).unwrap();
        assert_eq!(serde_json::to_value(entry).unwrap(), example_entry());
        let alert: Alert = serde_json::from_value(example_alert()).unwrap();
        assert_eq!(serde_json::to_value(alert).unwrap(), example_alert());
        let found: Verification = serde_json::from_value(example_verification()).unwrap();
        assert_eq!(serde_json::to_value(found).unwrap(), example_verification());
        let access: Access = serde_json::from_value(example_access()).unwrap();
        assert_eq!(serde_json::to_value(access).unwrap(), example_access());
        let role: Role = serde_json::from_value(example_role()).unwrap();
        assert_eq!(serde_json::to_value(role).unwrap(), example_role());
    }
}
