//! Operations over HTTP/JSON.

use axum::Router;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Operations;
use super::dead_letters::{
    self, DeadLetter, DeadLetterState, DeadLetters, LetterFilter, RetryRequest, TriedLetters,
};
use super::projections::{Projection, Projections};
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{Json, NotServed, PageParameters, Path, Query};

/// The routes, documented.
pub fn routes() -> OpenApiRouter<Operations> {
    let tag = |name, description| {
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    };
    let tags = [
        tag(
            "dead letters",
            "Records that a domain could not apply, and those that wait behind them: looked at, tried again, taken out.",
        ),
        tag(
            "projections",
            "The versions of each domain's view: paused, rebuilt beside the live one, switched, and switched back.",
        ),
    ];
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some(tags)).build())
        .routes(routes!(list_dead_letters))
        .routes(routes!(get_dead_letter))
        .routes(routes!(retry_dead_letter))
        .routes(routes!(retry_dead_letters))
        .routes(routes!(discard_dead_letter))
        .routes(routes!(list_projections))
        .routes(routes!(pause_projection))
        .routes(routes!(resume_projection))
        .routes(routes!(rebuild_projection))
        .routes(routes!(cancel_rebuild))
        .routes(routes!(switch_projection))
        .routes(routes!(rollback_projection))
        .routes(routes!(drop_projection))
}

/// The routes, over `operations`.
pub fn router(operations: Operations) -> Router {
    let (router, _) = routes().split_for_parts();
    router.with_state(operations)
}

/// What is answered where something was done to a projection.
#[derive(IntoResponses)]
#[response(status = 200, description = "The projection", example = json!(example_projection()))]
struct Changed(#[allow(dead_code, reason = "only described")] Projection);

/// A key, as text or, where it is not UTF-8, in base64.
fn key(text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, Error> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Error::invalid("keyBase64", "must not be given beside key")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(Error::invalid("keyBase64", "is not base64")),
        },
        (None, None) => Ok(None),
    }
}

/// Dead letters
///
/// The oldest first, of all domains that this process serves or of one; without headers and values, which one letter
/// shows by its id. Those that are neither `applied` nor `discarded` are open: later events of their keys wait behind
/// them.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    operation_id = "listDeadLetters",
    tag = "dead letters",
    params(
        ("domain" = Option<String>, Query, description = "Of this domain only", example = "order"),
        ("key" = Option<String>, Query, description = "Of this Kafka key only", example = "u-1001"),
        ("keyBase64" = Option<String>, Query, description = "Of this Kafka key only, where it is not UTF-8"),
        ("reason" = Option<String>, Query, description = "With this reason only", example = "wrong_type"),
        ("state" = Option<DeadLetterState>, Query, description = "In this state only", example = "parked"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "Letters", body = DeadLetters, example = json!({"deadLetters": [example_letter()]})),
        NotServed,
    ),
)]
async fn list_dead_letters(
    State(operations): State<Operations>,
    query: Query,
) -> Result<Json<DeadLetters>, Error> {
    let state = query.text("state")?.map(|word| {
        DeadLetterState::named(&word).ok_or_else(|| {
            Error::invalid("state", "must be parked, retrying, discarded or applied")
        })
    });
    let filter = LetterFilter {
        domain: query.text("domain")?,
        key: key(query.given("key")?, query.given("keyBase64")?)?,
        reason: query.text("reason")?,
        state: state.transpose()?,
    };
    let page = query.page()?;
    operations.list_letters(&filter, &page).await.map(Json)
}

/// One dead letter
///
/// With headers and value, in base64, for as long as they are kept (`SIGHTLINE_DEAD_LETTER_RETENTION_DAYS`). They hold
/// personal data.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    operation_id = "getDeadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = "The letter's id", example = json!(EXAMPLE_ID))),
    responses(
        (status = 200, description = "The letter", body = DeadLetter, example = json!(example_whole_letter())),
        (status = 404, description = "There is no such letter",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::no_such_letter().problem())),
    ),
)]
async fn get_dead_letter(
    State(operations): State<Operations>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetter>, Error> {
    operations.letter(&id).await.map(Json)
}

/// How one letter is tried again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RetryOne {
    /// Tell what would become of it, and change nothing.
    dry_run: bool,
}

/// Tries a dead letter again
///
/// And with it all open letters of its key, in their order, up to the first that fails again: what stands behind that
/// one waits on. When the last is through, the key is live again. Letters that lost their bytes are read from the log.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/retry",
    operation_id = "retryDeadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = "The letter's id", example = json!(EXAMPLE_ID))),
    request_body(content = Option<RetryOne>, description = "May be left out", example = json!({"dryRun": true})),
    responses(
        (status = 200, description = "What became of each letter", body = TriedLetters, example = json!(example_tried())),
        (status = 404, description = "There is no such letter",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::no_such_letter().problem())),
        (status = 409, description = "It is applied or discarded already",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::closed().problem())),
    ),
)]
async fn retry_dead_letter(
    State(operations): State<Operations>,
    Path(id): Path<String>,
    Json(request): Json<RetryOne>,
) -> Result<Json<TriedLetters>, Error> {
    let tried = operations.retry_letter(&id, request.dry_run);
    tried.await.map(Json)
}

/// Which letters are tried again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetryMany {
    /// All open letters of this domain.
    domain: String,
    /// Of this Kafka key only.
    #[serde(default)]
    key: Option<String>,
    /// Of this Kafka key only, where it is not UTF-8.
    #[serde(default)]
    key_base64: Option<String>,
    /// Of keys only of which a letter has this reason.
    #[serde(default)]
    reason: Option<String>,
    /// Tell what would become of them, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// `nextPageToken` of the call before, with the rest as it was.
    #[serde(default)]
    page_token: String,
}

/// Tries dead letters of a domain again
///
/// All of them, or those of one key, or of every key of which one has a reason. A call does what it has time for;
/// `nextPageToken` says that there is more.
#[utoipa::path(
    post,
    path = "/v1/dead-letters:retry",
    operation_id = "retryDeadLetters",
    tag = "dead letters",
    request_body(content = RetryMany, description = "Which letters",
        example = json!({"domain": "order", "reason": "unsupported_version"})),
    responses(
        (status = 200, description = "What became of each letter", body = TriedLetters, example = json!(example_tried())),
        NotServed,
    ),
)]
async fn retry_dead_letters(
    State(operations): State<Operations>,
    Json(request): Json<RetryMany>,
) -> Result<Json<TriedLetters>, Error> {
    let request = RetryRequest {
        domain: request.domain,
        key: key(request.key, request.key_base64)?,
        reason: request.reason,
        dry_run: request.dry_run,
        page_token: request.page_token,
    };
    operations.retry_letters(&request).await.map(Json)
}

/// Why a letter is taken out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Discard {
    /// For those who come later, without personal data.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Tell what would become of those behind it, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Takes a dead letter out
///
/// For good, and in every version of the view, rebuilt ones included: what it told is missing from then on. What waited
/// behind it goes on.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/discard",
    operation_id = "discardDeadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = "The letter's id", example = json!(EXAMPLE_ID))),
    request_body(content = Discard, description = "Why", example = json!({"reason": "published again, see ticket 4711"})),
    responses(
        (status = 200, description = "What became of each letter", body = TriedLetters,
            example = json!({"outcomes": [{"id": EXAMPLE_ID, "outcome": "discarded"}]})),
        (status = 404, description = "There is no such letter",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::no_such_letter().problem())),
        (status = 409, description = "It is applied or discarded already",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::closed().problem())),
    ),
)]
async fn discard_dead_letter(
    State(operations): State<Operations>,
    Path(id): Path<String>,
    Json(request): Json<Discard>,
) -> Result<Json<TriedLetters>, Error> {
    let tried = operations.discard_letter(&id, &request.reason, request.dry_run);
    tried.await.map(Json)
}

/// Projections
///
/// Of each domain that this process serves, the versions of its view: the live one, one that is being built, with its
/// progress, and retired ones, to which there is a way back until they are dropped, by themselves a day after the
/// switch.
#[utoipa::path(
    get,
    path = "/v1/projections",
    operation_id = "listProjections",
    tag = "projections",
    responses((status = 200, description = "Projections", body = Projections,
        example = json!({"projections": [example_projection()]}))),
)]
async fn list_projections(
    State(operations): State<Operations>,
) -> Result<Json<Projections>, Error> {
    operations.projections().await.map(Json)
}

/// Why a projection is paused.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PauseRequest {
    /// For those who come later, without personal data.
    #[schema(min_length = 1, max_length = 500)]
    reason: Option<String>,
}

/// Pauses projection
///
/// Of all versions of a domain's view, until it is resumed; it outlasts restarts. Reads go on, and show what there is.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/pause",
    operation_id = "pauseProjection",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<PauseRequest>, description = "May be left out", example = json!({"reason": "moving the database"})),
    responses(
        Changed,
        NotServed,
    ),
)]
async fn pause_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<PauseRequest>,
) -> Result<Json<Projection>, Error> {
    let paused = operations.pause(&domain, request.reason.as_deref());
    paused.await.map(Json)
}

/// Whether losses are accepted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AcceptLoss {
    /// Go on without what the log has lost.
    accept_loss: bool,
}

/// Resumes projection
///
/// Whether an operator had paused it, or dead letters that piled up. Where partitions stand still because their log is
/// not the one that was projected, they are looked at anew; with `acceptLoss` they go on without what is lost. Where the
/// database was restored to an earlier state, this takes note of it.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/resume",
    operation_id = "resumeProjection",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<AcceptLoss>, description = "May be left out", example = json!({"acceptLoss": false})),
    responses(
        Changed,
        NotServed,
        (status = 409, description = "It was resumed, but partitions can't go on without somebody accepting losses",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn resume_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<AcceptLoss>,
) -> Result<Json<Projection>, Error> {
    let resumed = operations.resume(&domain, request.accept_loss);
    resumed.await.map(Json)
}

/// Rebuilds a view
///
/// Projects the log anew, from where the view began, into the tables of a new version, beside live projection and reads.
/// Where the log no longer reaches back to that, it is refused with `LOG_TRUNCATED`; `acceptLoss` builds what there still
/// is.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/rebuild",
    operation_id = "rebuildProjection",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<AcceptLoss>, description = "May be left out", example = json!({"acceptLoss": false})),
    responses(
        Changed,
        NotServed,
        (status = 409, description = "A version is being built already (`REBUILD_RUNNING`), or the log does not reach back \
            (`LOG_TRUNCATED`)", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn rebuild_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<AcceptLoss>,
) -> Result<Json<Projection>, Error> {
    let rebuilding = operations.rebuild(&domain, request.accept_loss);
    rebuilding.await.map(Json)
}

/// Nothing to tell.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Ends a rebuild
///
/// And removes what it has built.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/cancel",
    operation_id = "cancelRebuild",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<Nothing>, description = "May be left out", example = json!({})),
    responses(
        Changed,
        NotServed,
        (status = 409, description = "None is under way (`NO_REBUILD`)", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn cancel_rebuild(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Json<Projection>, Error> {
    operations.cancel(&domain).await.map(Json)
}

/// Under what condition a version becomes the live one.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SwitchRequest {
    /// Only if both versions hold the same rows at the same positions.
    compare: bool,
    /// Only to this version; if it is the live one already, nothing is to be done.
    version: Option<i32>,
}

/// Makes the new version the live one
///
/// Refused while it is behind in any partition. Reads that begin from then on are answered from it; the former one goes
/// on projecting for a day, so that there is a way back. A comparison sums up all tables of both, beside projection: on
/// large views give it time with `Request-Timeout`.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/switch",
    operation_id = "switchProjection",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<SwitchRequest>, description = "May be left out", example = json!({"compare": true})),
    responses(
        Changed,
        NotServed,
        (status = 409, description = "None is being built (`NO_REBUILD`), it is behind (`NOT_CAUGHT_UP`), or the two differ \
            (`VIEWS_DIFFER`)", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn switch_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<SwitchRequest>,
) -> Result<Json<Projection>, Error> {
    let switched = operations.switch(&domain, request.version, request.compare);
    switched.await.map(Json)
}

/// To which version the way back is to lead.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RollbackRequest {
    /// Only to this version; if it is the live one already, nothing is to be done.
    version: Option<i32>,
}

/// Makes the retired version the live one again
///
/// The one that was switched from last. Refused while it is behind: no answer goes back in time.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/rollback",
    operation_id = "rollbackProjection",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<RollbackRequest>, description = "May be left out", example = json!({"version": 1})),
    responses(
        Changed,
        NotServed,
        (status = 409, description = "There is none (`NO_RETIRED_VERSION`), or it is behind (`NOT_CAUGHT_UP`)",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn rollback_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<Projection>, Error> {
    let went_back = operations.rollback(&domain, request.version);
    went_back.await.map(Json)
}

/// Drops the retired version
///
/// The one that was switched from last, with all that is its own. There is no way back to it any more.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/drop",
    operation_id = "dropProjection",
    tag = "projections",
    params(("domain" = String, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<Nothing>, description = "May be left out", example = json!({})),
    responses(
        Changed,
        NotServed,
        (status = 409, description = "There is none (`NO_RETIRED_VERSION`)", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn drop_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Json<Projection>, Error> {
    operations.drop_retired(&domain).await.map(Json)
}

const EXAMPLE_ID: &str = "01a2093a-f139-710d-8867-ae04814d66ac";

fn example_letter() -> Value {
    json!({
        "id": EXAMPLE_ID,
        "domain": "order",
        "topic": "user.events",
        "partition": 0,
        "offset": 308,
        "key": "u-1001",
        "eventId": "e-17",
        "eventType": "UserEmailVerified",
        "reason": "wrong_type",
        "field": "email",
        "class": "data",
        "state": "parked",
        "attempts": 1,
        "firstFailedAt": "2026-11-02T17:05:12.250Z",
        "lastFailedAt": "2026-11-02T17:05:12.250Z",
        "size": 141,
    })
}

fn example_whole_letter() -> Value {
    let mut letter = example_letter();
    letter["headers"] = json!([{"name": "correlationId", "value": "Yy0x"}]);
    letter["value"] = json!("eyJldmVudElkIjoiZS0xNyIsImV2ZW50VHlwZSI6IlVzZXJFbWFpbFZlcmlmaWVkIn0=");
    letter
}

fn example_tried() -> Value {
    json!({
        "outcomes": [
            {"id": EXAMPLE_ID, "outcome": "failed", "reason": "wrong_type", "field": "email"},
            {"id": "01a2093a-f139-710d-8867-ae05fa3073e2", "outcome": "waiting"},
        ],
    })
}

fn example_projection() -> Value {
    json!({
        "domain": "order",
        "state": "caught_up",
        "outdated": false,
        "versions": [
            {
                "version": 1,
                "state": "live",
                "codeVersion": 2,
                "outdated": false,
                "createdAt": "2026-10-01T08:30:00Z",
                "acceptsLoss": false,
                "read": 48_200,
                "lag": 0,
                "progress": 1.0,
                "rate": 12.5,
                "etaSeconds": 0.0,
                "deadLetters": 2,
            },
            {
                "version": 2,
                "state": "building",
                "codeVersion": 2,
                "outdated": false,
                "createdAt": "2026-11-02T17:05:12Z",
                "acceptsLoss": false,
                "read": 24_100,
                "lag": 24_100,
                "progress": 0.5,
                "rate": 12_050.0,
                "etaSeconds": 2.0,
                "deadLetters": 1,
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_examples_are_what_is_answered() {
        let projection: Projection = serde_json::from_value(example_projection()).unwrap();
        assert_eq!(
            serde_json::to_value(projection).unwrap(),
            example_projection()
        );
        let letter: DeadLetter = serde_json::from_value(example_whole_letter()).unwrap();
        assert_eq!(
            serde_json::to_value(letter).unwrap(),
            example_whole_letter()
        );
        let tried: TriedLetters = serde_json::from_value(example_tried()).unwrap();
        assert_eq!(serde_json::to_value(tried).unwrap(), example_tried());
    }

    #[test]
    fn a_key_is_given_in_one_form() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(key(text("a"), None).unwrap(), Some(b"a".to_vec()));
        assert_eq!(key(None, text("/w==")).unwrap(), Some(vec![0xff]));
        assert_eq!(key(None, None).unwrap(), None);
        for refused in [key(text("a"), text("YQ==")), key(None, text("?"))] {
            assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
