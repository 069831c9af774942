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

use super::dead_letters::{self, DeadLetter, DeadLetterFilter, DeadLetterState, DeadLetters};
use super::handle::{Operations, non_empty_key};
use super::projections::{Projection, Projections};
use super::retries::{RetryRequest, TriedDeadLetters};
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{DomainName, Json, NotServed, PageParameters, Path, Query};

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
            "Records that a domain could not apply, and those that wait behind them: list, retry and discard them.",
        ),
        tag(
            "projections",
            "The versions of each domain's view: pause, rebuild and switch them.",
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

/// The routes as a router that serves them.
pub fn router(operations: Operations) -> Router {
    let (router, _) = routes().split_for_parts();
    router.with_state(operations)
}

/// The response to a change of a projection, for the documentation.
#[derive(IntoResponses)]
#[response(status = 200, description = "The projection", example = json!(example_projection()))]
struct ProjectionChanged(#[allow(dead_code, reason = "only described")] Projection);

/// The Kafka key of a request: given as text, or in base64 if it is not UTF-8.
fn key(text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, Error> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Error::invalid(
            "keyBase64",
            "must not be given together with key",
        )),
        (Some(text), None) => non_empty_key("key", text.into_bytes()).map(Some),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => non_empty_key("keyBase64", bytes).map(Some),
            Err(_) => Err(Error::invalid("keyBase64", "is not base64")),
        },
        (None, None) => Ok(None),
    }
}

fn unknown_state() -> Error {
    Error::invalid("state", "must be parked, retrying, discarded or applied")
}

/// Lists dead letters
///
/// The dead letters of one domain, or of all domains that this process serves, the oldest first.
/// Headers and values are left out; get a dead letter by its id to see them. Dead letters that are
/// neither `applied` nor `discarded` are open: later events of their keys wait behind them.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    operation_id = "listDeadLetters",
    tag = "dead letters",
    params(
        ("domain" = Option<DomainName>, Query, description = "Only those of this domain"),
        ("key" = Option<String>, Query, description = "Only those of this Kafka key, such as `u-9`"),
        ("keyBase64" = Option<String>, Query, description = "Only those of this Kafka key, in base64, for a key that is not UTF-8"),
        ("reason" = Option<String>, Query, description = "Only those with this reason, such as `wrong_type`; one that this release does not know is refused"),
        ("state" = Option<DeadLetterState>, Query, description = "Only those in this state"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "A page of dead letters", body = DeadLetters,
            example = json!({"deadLetters": [example_dead_letter()]})),
        NotServed,
    ),
)]
async fn list_dead_letters(
    State(operations): State<Operations>,
    query: Query,
) -> Result<Json<DeadLetters>, Error> {
    let state = query
        .text("state")?
        .map(|word| DeadLetterState::named(&word).ok_or_else(unknown_state));
    let filter = DeadLetterFilter {
        domain: query.text("domain")?,
        key: key(query.given("key")?, query.given("keyBase64")?)?,
        reason: query.text("reason")?,
        state: state.transpose()?,
    };
    let page = query.page()?;
    operations.list_dead_letters(&filter, &page).await.map(Json)
}

/// Gets a dead letter
///
/// The dead letter with its headers and value, in base64, for as long as they are kept
/// (`SIGHTLINE_DEAD_LETTER_RETENTION_DAYS`). They contain personal data.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{id}",
    operation_id = "getDeadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = ID, example = json!(EXAMPLE_ID))),
    responses(
        (status = 200, description = "The dead letter", body = DeadLetter,
            example = json!(example_dead_letter_with_bytes())),
        (status = 404, description = "There is no such dead letter",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::no_such_dead_letter().problem())),
    ),
)]
async fn get_dead_letter(
    State(operations): State<Operations>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetter>, Error> {
    operations.dead_letter(&id).await.map(Json)
}

/// How to retry one dead letter.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RetryOne {
    /// Report the outcomes without changing anything.
    dry_run: bool,
}

/// Retries a dead letter
///
/// Retries the dead letter and all other open ones of its key, in order, up to the first that fails
/// again; those after it still wait. One whose record can't be read as an event (`not_json`,
/// `too_large`) waits for none: it is tried, too. When the last one succeeds, later events of the
/// key are applied again. If the bytes of a record are not stored, they are read from Kafka.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/retry",
    operation_id = "retryDeadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = ID, example = json!(EXAMPLE_ID))),
    request_body(content = Option<RetryOne>, description = "Optional", example = json!({"dryRun": true})),
    responses(
        (status = 200, description = "The outcome for each dead letter", body = TriedDeadLetters,
            example = json!(example_tried())),
        (status = 404, description = "There is no such dead letter",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::no_such_dead_letter().problem())),
        (status = 409, description = "The dead letter is already applied or discarded",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::dead_letter_closed().problem())),
    ),
)]
async fn retry_dead_letter(
    State(operations): State<Operations>,
    Path(id): Path<String>,
    Json(request): Json<RetryOne>,
) -> Result<Json<TriedDeadLetters>, Error> {
    let tried = operations.retry_dead_letter(&id, request.dry_run);
    tried.await.map(Json)
}

/// Which dead letters to retry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetryMany {
    /// The domain whose open dead letters to retry.
    // Where it is missing, the operation says so, and lists the domains.
    #[serde(default)]
    #[schema(value_type = DomainName, required = true)]
    domain: String,
    /// Only those of this Kafka key.
    #[serde(default)]
    key: Option<String>,
    /// Only those of this Kafka key, in base64, for a key that is not UTF-8.
    #[serde(default)]
    key_base64: Option<String>,
    /// Only keys of which a dead letter has this reason, one of those that this release knows.
    #[serde(default)]
    reason: Option<String>,
    /// Report the outcomes without changing anything.
    #[serde(default)]
    dry_run: bool,
    /// `nextPageToken` of the previous call; the other fields must be the same as in that call.
    #[serde(default)]
    page_token: String,
}

/// Retries dead letters of a domain
///
/// Retries all of them, those of one key, or those of every key of which one has the given reason.
/// A call retries as many as it has time for; if more are left, it returns `nextPageToken`.
#[utoipa::path(
    post,
    path = "/v1/dead-letters:retry",
    operation_id = "retryDeadLetters",
    tag = "dead letters",
    request_body(content = RetryMany, description = "Which dead letters to retry",
        example = json!({"domain": "order", "key": "u-9"})),
    responses(
        (status = 200, description = "The outcome for each dead letter", body = TriedDeadLetters,
            example = json!(example_tried())),
        NotServed,
    ),
)]
async fn retry_dead_letters(
    State(operations): State<Operations>,
    Json(request): Json<RetryMany>,
) -> Result<Json<TriedDeadLetters>, Error> {
    let request = RetryRequest {
        domain: request.domain,
        key: key(request.key, request.key_base64)?,
        reason: request.reason,
        dry_run: request.dry_run,
        page_token: request.page_token,
    };
    operations.retry_dead_letters(&request).await.map(Json)
}

/// How and why to discard a dead letter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Discard {
    /// The reason, without personal data. It is stored and shown to operators.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
    /// Report the outcomes without changing anything.
    #[serde(default)]
    dry_run: bool,
}

/// Discards a dead letter
///
/// Discards it permanently and in every version of the view, including later rebuilds: the view
/// lacks its event from then on. The dead letters that waited behind it are retried.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/{id}/discard",
    operation_id = "discardDeadLetter",
    tag = "dead letters",
    params(("id" = String, Path, description = ID, example = json!(EXAMPLE_ID))),
    request_body(content = Discard, description = "The reason", example = json!({"reason": "published again, see ticket 4711"})),
    responses(
        (status = 200, description = "The outcome for each dead letter", body = TriedDeadLetters,
            example = json!({"outcomes": [{"id": EXAMPLE_ID, "outcome": "discarded"}]})),
        (status = 404, description = "There is no such dead letter",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::no_such_dead_letter().problem())),
        (status = 409, description = "The dead letter is already applied or discarded",
            body = Problem, content_type = PROBLEM_JSON, example = json!(dead_letters::dead_letter_closed().problem())),
    ),
)]
async fn discard_dead_letter(
    State(operations): State<Operations>,
    Path(id): Path<String>,
    Json(request): Json<Discard>,
) -> Result<Json<TriedDeadLetters>, Error> {
    let tried = operations.discard_dead_letter(&id, &request.reason, request.dry_run);
    tried.await.map(Json)
}

/// Lists projections
///
/// For each domain that this process serves, the versions of its view: the live one; one that is
/// being built, with its progress; and retired ones. Retired versions allow a rollback until
/// sightline drops them, a day after the switch.
#[utoipa::path(
    get,
    path = "/v1/projections",
    operation_id = "listProjections",
    tag = "projections",
    responses((status = 200, description = "The projections", body = Projections,
        example = json!({"projections": [example_projection()]}))),
)]
async fn list_projections(
    State(operations): State<Operations>,
) -> Result<Json<Projections>, Error> {
    operations.projections().await.map(Json)
}

/// Why to pause a projection.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PauseRequest {
    /// The reason, without personal data. It is stored and shown to operators.
    #[schema(min_length = 1, max_length = 500)]
    reason: Option<String>,
}

/// Pauses projection
///
/// Pauses all versions of the domain's view except one that is being built, until they are resumed;
/// the pause survives restarts. Reads continue, from the view as it is.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/pause",
    operation_id = "pauseProjection",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<PauseRequest>, description = "Optional", example = json!({"reason": "moving the database"})),
    responses(
        ProjectionChanged,
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

/// Whether to accept losses.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AcceptLoss {
    /// Continue without the records that the log has lost.
    accept_loss: bool,
}

/// What to go on in spite of.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ResumeRequest {
    /// Continue without the records that the log has lost.
    accept_loss: bool,
    /// Let this release continue where a newer one has projected. The view shows as outdated until
    /// it is rebuilt.
    accept_older_code: bool,
}

/// Resumes projection
///
/// Resumes it after a pause by an operator, or by sightline because too many dead letters had
/// accumulated. Partitions that have failed because their log is not the one that was projected are
/// checked again; with `acceptLoss` they continue without the lost records. If the database was
/// restored to an earlier state, this call acknowledges it. After the return to an older release,
/// what the newer one has projected is stalled (`newer_code`) until `acceptOlderCode` lets the older
/// code go on, or a rebuild by the older release is switched to.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/resume",
    operation_id = "resumeProjection",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<ResumeRequest>, description = "Optional",
        example = json!({"acceptLoss": false, "acceptOlderCode": false})),
    responses(
        ProjectionChanged,
        NotServed,
        (status = 409, description = "It was resumed, but partitions can't continue unless losses are accepted",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn resume_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<ResumeRequest>,
) -> Result<Json<Projection>, Error> {
    let resumed = operations.resume(&domain, request.accept_loss, request.accept_older_code);
    resumed.await.map(Json)
}

/// Rebuilds a view
///
/// Projects the log again, from the offsets at which the view began, into the tables of a new
/// version. Live projection and reads continue meanwhile. If the log has lost some of these
/// records, the call fails with `LOG_TRUNCATED`; `acceptLoss` builds the version without them.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/rebuild",
    operation_id = "rebuildProjection",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<AcceptLoss>, description = "Optional", example = json!({"acceptLoss": false})),
    responses(
        ProjectionChanged,
        NotServed,
        (status = 409, description = "A version is already being built (`REBUILD_RUNNING`), or the log has lost records \
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

/// A request without fields.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// Cancels a rebuild
///
/// Removes what it has built.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/cancel",
    operation_id = "cancelRebuild",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<NoFields>, description = "Optional", example = json!({})),
    responses(
        ProjectionChanged,
        NotServed,
        (status = 409, description = "No version is being built (`NO_REBUILD`)", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn cancel_rebuild(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(NoFields {}): Json<NoFields>,
) -> Result<Json<Projection>, Error> {
    operations.cancel(&domain).await.map(Json)
}

/// Under which conditions to switch.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SwitchRequest {
    /// Switch only if both versions hold the same rows at the same positions.
    compare: bool,
    /// Switch only to this version; if it is already live, the call changes nothing.
    version: Option<i32>,
}

/// Makes the new version the live one
///
/// Fails while the new version is behind in any partition. Reads that start after the switch use
/// it. The old version is projected for another day, so that a rollback is possible. A comparison
/// reads all tables of both versions while they are projected; for large views allow it time with
/// `Request-Timeout`.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/switch",
    operation_id = "switchProjection",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<SwitchRequest>, description = "Optional", example = json!({"compare": true})),
    responses(
        ProjectionChanged,
        NotServed,
        (status = 409, description = "No version is being built (`NO_REBUILD`), it is behind (`NOT_CAUGHT_UP`), its tables are in use (`VIEW_IN_USE`), or the versions \
            differ (`VIEWS_DIFFER`)", body = Problem, content_type = PROBLEM_JSON),
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

/// Which version to roll back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RollbackRequest {
    /// Roll back only to this version; if it is already live, the call changes nothing.
    version: Option<i32>,
}

/// Makes the retired version the live one again
///
/// Rolls back to the version that was live before the last switch. Fails while that version is
/// behind, because answers would go back in time.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/rollback",
    operation_id = "rollbackProjection",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<RollbackRequest>, description = "Optional", example = json!({"version": 1})),
    responses(
        ProjectionChanged,
        NotServed,
        (status = 409, description = "There is no retired version (`NO_RETIRED_VERSION`), it is behind (`NOT_CAUGHT_UP`), or its tables are in use (`VIEW_IN_USE`)",
            body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn rollback_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<Projection>, Error> {
    let rolled_back = operations.rollback(&domain, request.version);
    rolled_back.await.map(Json)
}

/// Drops the retired version
///
/// Drops the version that was live before the last switch, with its tables and dead letters. A
/// rollback to it is no longer possible.
#[utoipa::path(
    post,
    path = "/v1/projections/{domain}/drop",
    operation_id = "dropProjection",
    tag = "projections",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    request_body(content = Option<NoFields>, description = "Optional", example = json!({})),
    responses(
        ProjectionChanged,
        NotServed,
        (status = 409, description = "There is no retired version (`NO_RETIRED_VERSION`)", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn drop_projection(
    State(operations): State<Operations>,
    Path(domain): Path<String>,
    Json(NoFields {}): Json<NoFields>,
) -> Result<Json<Projection>, Error> {
    operations.drop_retired(&domain).await.map(Json)
}

/// What the parameter `id` is. Ids are made when records fail: no example exists anywhere.
const ID: &str = "The dead letter's id, as `GET /v1/dead-letters` lists it: copy one from there";
const EXAMPLE_ID: &str = "01a2093a-f139-710d-8867-ae04814d66ac";

fn example_dead_letter() -> Value {
    json!({
        "id": EXAMPLE_ID,
        "domain": "order",
        "topic": "user.events",
        "partition": 2,
        "offset": 1,
        "key": "u-9",
        "eventId": "edith-2",
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

fn example_dead_letter_with_bytes() -> Value {
    let mut dead_letter = example_dead_letter();
    dead_letter["headers"] = json!([{"name": "correlationId", "value": "Yy0x"}]);
    dead_letter["value"] =
        json!("eyJldmVudElkIjoiZS0xNyIsImV2ZW50VHlwZSI6IlVzZXJFbWFpbFZlcmlmaWVkIn0=");
    dead_letter
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
    fn the_examples_are_valid_answers() {
        let projection: Projection = serde_json::from_value(example_projection()).unwrap();
        assert_eq!(
            serde_json::to_value(projection).unwrap(),
            example_projection()
        );
        let dead_letter: DeadLetter =
            serde_json::from_value(example_dead_letter_with_bytes()).unwrap();
        assert_eq!(
            serde_json::to_value(dead_letter).unwrap(),
            example_dead_letter_with_bytes()
        );
        let tried: TriedDeadLetters = serde_json::from_value(example_tried()).unwrap();
        assert_eq!(serde_json::to_value(tried).unwrap(), example_tried());
    }

    #[test]
    fn a_key_is_given_in_one_form() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(key(text("a"), None).unwrap(), Some(b"a".to_vec()));
        assert_eq!(key(None, text("/w==")).unwrap(), Some(vec![0xff]));
        assert_eq!(key(None, None).unwrap(), None);
        for refused in [
            key(text("a"), text("YQ==")),
            key(None, text("?")),
            key(text(""), None),
            key(None, text("")),
        ] {
            assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
