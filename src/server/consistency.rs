//! Lag of the views, what became of events, and tokens, on both surfaces: `/v1/consistency` and `ConsistencyService`.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Domains;
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::proto::consistency::v1 as pb;
use crate::proto::consistency::v1::consistency_service_server::{
    self, ConsistencyService, ConsistencyServiceServer,
};
use crate::query::consistency as demand;
use crate::query::event_lookups::EventStatus;
use crate::query::events::{self, DomainEventStatus, EventStatuses};
use crate::query::grpc::{self, respond, timestamp};
use crate::query::lag::{Consistency, DomainConsistency, Lag, PartitionConsistency};
use crate::query::rest::{DomainName, Json, NotServed, Path, Query};
use crate::query::status::DomainState;
use crate::query::token::TokenOrder;
use crate::query::{Answer, Reads};

/// The REST routes, with their documentation.
pub fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(get_consistency))
        .routes(routes!(get_domain_consistency))
        .routes(routes!(get_event_status))
        .routes(routes!(compare_tokens))
        .routes(routes!(join_tokens))
}

/// What both surfaces answer from.
#[derive(Clone)]
pub struct Parts {
    /// Lag of the views.
    pub lag: Lag,
    /// Where events and logs are looked up.
    pub reads: Reads,
    /// The domains that exist and those that this process serves.
    pub domains: Domains,
}

impl Parts {
    async fn event_status(
        &self,
        event_id: &str,
        domains: &[String],
        wait_seconds: i32,
    ) -> Result<EventStatuses, Error> {
        if !(0..=events::MAX_WAIT_SECONDS).contains(&wait_seconds) {
            return Err(Error::invalid(
                "waitSeconds",
                "must be a whole number from 0 to 30",
            ));
        }
        let asked = self.domains.chosen(domains)?;
        let wait = Duration::from_secs(wait_seconds.unsigned_abs().into());
        events::status(&self.reads, &asked, event_id, wait).await
    }

    async fn join(&self, tokens: &[String]) -> Result<String, Error> {
        let joined = demand::join(&self.reads, tokens).await?;
        Ok(joined.to_string())
    }
}

/// The REST routes, answered from `parts`.
pub fn router(parts: Parts) -> Router {
    let (router, _) = routes().split_for_parts();
    router.with_state(parts)
}

/// Get the lag of all views
///
/// For each domain that this process serves, and for each of its partitions: position, end offset,
/// lag in records and seconds, rate, dead letters, state, failure, and the books: `read = applied +
/// duplicates + skipped + deadLettered` and `position = startPosition + read + holes`. A consumer
/// that is dead is never reported as `caught_up`. When the database is unavailable, the answer
/// holds the last known figures, and `asOf` is the time at which they were read.
#[utoipa::path(
    get,
    path = "/v1/consistency",
    operation_id = "getConsistency",
    tag = "consistency",
    responses((status = 200, description = "Lag, state and books of each partition", body = Consistency,
        example = json!({"domains": [example_domain()]}))),
)]
async fn get_consistency(State(parts): State<Parts>) -> Result<Answer<Consistency>, Error> {
    parts.lag.all().await
}

/// Get the lag of one domain's view
///
/// The answer is the domain's element of `/v1/consistency`.
#[utoipa::path(
    get,
    path = "/v1/consistency/{domain}",
    operation_id = "getDomainConsistency",
    tag = "consistency",
    params(("domain" = DomainName, Path, description = "The domain's name", example = "order")),
    responses(
        (status = 200, description = "Lag, state and books of each partition", body = DomainConsistency, example = json!(example_domain())),
        NotServed,
    ),
)]
async fn get_domain_consistency(
    State(parts): State<Parts>,
    Path(domain): Path<String>,
) -> Result<Answer<DomainConsistency>, Error> {
    parts.lag.one(&domain).await
}

/// Get what became of an event
///
/// For each domain: whether its view has applied the event, has it still before it (`pending`), made it a dead letter, or skips
/// it, and where its record lies. With `waitSeconds` the answer comes when no domain has it still before it, or after that
/// time with what there is. Events are remembered for as long as duplicates of them are recognized.
#[utoipa::path(
    get,
    path = "/v1/consistency/events/{eventId}",
    operation_id = "getEventStatus",
    tag = "consistency",
    params(
        ("eventId" = String, Path, description = "The event's id: opaque, percent-encoded", min_length = 1, max_length = 255,
            example = "ada-5"),
        ("domains" = Option<Vec<DomainName>>, Query, description = "The domains, separated by commas or repeated; all that this \
            process serves by default", explode = false),
        ("waitSeconds" = Option<i32>, Query, description = "How many seconds to wait", minimum = 0, maximum = 30),
    ),
    responses(
        (status = 200, description = "What became of the event in each domain", body = EventStatuses, example = json!(example_event())),
        (status = 404, description = "No domain has seen the event, or there is no such domain",
            content_type = PROBLEM_JSON, body = Problem, example = json!(events::unknown().problem())),
    ),
    extensions(("x-unpositioned" = json!(true))),
)]
async fn get_event_status(
    State(parts): State<Parts>,
    Path(event_id): Path<String>,
    query: Query,
) -> Result<Json<EventStatuses>, Error> {
    let domains = query.list("domains");
    let wait = query.text("waitSeconds")?;
    let wait = wait.map_or(Ok(0), |text| {
        text.parse()
            .map_err(|_| Error::invalid("waitSeconds", "must be a whole number from 0 to 30"))
    })?;
    Ok(Json(parts.event_status(&event_id, &domains, wait).await?))
}

/// Two tokens.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenPair {
    /// The first token: of an answer, of a record (`topic/partition@offset`) or of an event (`event:` and its percent-encoded id).
    a: String,
    /// The second token.
    b: String,
}

/// How two tokens are related.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ComparedTokens {
    /// Whether the first is before or after the second.
    order: TokenOrder,
}

/// Compare two tokens
///
/// An answer that reflects the later one reflects the earlier one, too. A partition that a token lacks counts as at its
/// beginning.
#[utoipa::path(
    post,
    path = "/v1/consistency/tokens:compare",
    operation_id = "compareTokens",
    tag = "consistency",
    request_body(content = TokenPair, description = "The tokens", example = json!({"a": "user.events/3@41", "b": "user.events/3@57"})),
    responses((status = 200, description = "How they are related", body = ComparedTokens, example = json!({"order": "BEFORE"}))),
    extensions(("x-unpositioned" = json!(true))),
)]
async fn compare_tokens(
    State(parts): State<Parts>,
    Json(pair): Json<TokenPair>,
) -> Result<Json<ComparedTokens>, Error> {
    let order = demand::compare(&parts.reads, &pair.a, &pair.b).await?;
    Ok(Json(ComparedTokens { order }))
}

/// Tokens to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokensToJoin {
    /// The tokens, in any form.
    #[schema(min_items = 1, max_items = 100)]
    tokens: Vec<String>,
}

/// The joined token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct JoinedToken {
    /// The least token that is not before any of those given.
    token: String,
}

/// Join tokens
///
/// What reflects the joined token reflects each of those given.
#[utoipa::path(
    post,
    path = "/v1/consistency/tokens:join",
    operation_id = "joinTokens",
    tag = "consistency",
    request_body(content = TokensToJoin, description = "The tokens",
        example = json!({"tokens": ["user.events/3@41", "user.events/5@7"]})),
    responses((status = 200, description = "The joined token", body = JoinedToken,
        example = json!({"token": "AQt1c2VyLmV2ZW50cwF_h7Fx0Fk2lwED1fgC"}))),
    extensions(("x-unpositioned" = json!(true))),
)]
async fn join_tokens(
    State(parts): State<Parts>,
    Json(request): Json<TokensToJoin>,
) -> Result<Json<JoinedToken>, Error> {
    let token = parts.join(&request.tokens).await?;
    Ok(Json(JoinedToken { token }))
}

fn example_event() -> EventStatuses {
    let domain = |domain: &str, status| DomainEventStatus {
        domain: domain.into(),
        status,
        topic: "user.events".into(),
        partition: 3,
        offset: 41,
    };
    EventStatuses {
        domains: vec![
            domain("order", EventStatus::Applied),
            domain("search", EventStatus::Skipped),
        ],
    }
}

fn example_domain() -> DomainConsistency {
    DomainConsistency {
        domain: "order".into(),
        state: DomainState::CatchingUp,
        failure: None,
        as_of: None,
        partitions: vec![PartitionConsistency {
            topic: "user.events".into(),
            partition: 3,
            position: 48_213,
            end_offset: Some(48_713),
            lag: Some(500),
            oldest_unapplied_seconds: Some(1.25),
            end_read_age_seconds: Some(0.4),
            rate: Some(2_000.0),
            eta_seconds: Some(0.25),
            state: DomainState::CatchingUp,
            failure: None,
            dead_letters: 1,
            parked_keys: 1,
            start_position: 0,
            holes: 13,
            read: 48_200,
            applied: 31_020,
            duplicates: 79,
            skipped: 17_100,
            dead_lettered: 1,
        }],
    }
}

/// The full name of the gRPC service.
pub const SERVICE_NAME: &str = consistency_service_server::SERVICE_NAME;

/// The gRPC service, answered from `parts`.
pub fn service(parts: Parts) -> ConsistencyServiceServer<impl ConsistencyService> {
    grpc::service!(ConsistencyServiceServer::new(parts))
}

#[tonic::async_trait]
impl ConsistencyService for Parts {
    async fn get_consistency(
        &self,
        request: Request<pb::GetConsistencyRequest>,
    ) -> Result<Response<pb::GetConsistencyResponse>, Status> {
        let domains = match request.into_inner().domain {
            Some(domain) => self.lag.one(&domain).await?.map(|domain| vec![domain]),
            None => self.lag.all().await?.map(|consistency| consistency.domains),
        };
        Ok(respond(domains.map(|domains| pb::GetConsistencyResponse {
            domains: domains.into_iter().map(Into::into).collect(),
        })))
    }

    async fn get_event_status(
        &self,
        request: Request<pb::GetEventStatusRequest>,
    ) -> Result<Response<pb::GetEventStatusResponse>, Status> {
        let request = request.into_inner();
        let statuses = self
            .event_status(&request.event_id, &request.domains, request.wait_seconds)
            .await?;
        Ok(Response::new(pb::GetEventStatusResponse {
            domains: statuses.domains.into_iter().map(Into::into).collect(),
        }))
    }

    async fn compare_tokens(
        &self,
        request: Request<pb::CompareTokensRequest>,
    ) -> Result<Response<pb::CompareTokensResponse>, Status> {
        let request = request.into_inner();
        let order = demand::compare(&self.reads, &request.a, &request.b).await?;
        Ok(Response::new(pb::CompareTokensResponse {
            order: pb::TokenOrder::from(order).into(),
        }))
    }

    async fn join_tokens(
        &self,
        request: Request<pb::JoinTokensRequest>,
    ) -> Result<Response<pb::JoinTokensResponse>, Status> {
        let token = self.join(&request.into_inner().tokens).await?;
        Ok(Response::new(pb::JoinTokensResponse { token }))
    }
}

impl From<TokenOrder> for pb::TokenOrder {
    fn from(order: TokenOrder) -> Self {
        match order {
            TokenOrder::Before => Self::Before,
            TokenOrder::After => Self::After,
            TokenOrder::Equal => Self::Equal,
            TokenOrder::Concurrent => Self::Concurrent,
        }
    }
}

impl From<DomainEventStatus> for pb::DomainEventStatus {
    fn from(status: DomainEventStatus) -> Self {
        let word = match status.status {
            EventStatus::Applied => pb::EventStatus::Applied,
            EventStatus::Pending => pb::EventStatus::Pending,
            EventStatus::DeadLettered => pb::EventStatus::DeadLettered,
            EventStatus::Skipped => pb::EventStatus::Skipped,
        };
        Self {
            domain: status.domain,
            status: word.into(),
            topic: status.topic,
            // Kafka numbers partitions by 32 bits with a sign.
            partition: status.partition.cast_signed(),
            offset: status.offset,
        }
    }
}

impl From<DomainState> for pb::DomainState {
    fn from(state: DomainState) -> Self {
        match state {
            DomainState::CaughtUp => Self::CaughtUp,
            DomainState::CatchingUp => Self::CatchingUp,
            DomainState::Rebuilding => Self::Rebuilding,
            DomainState::Paused => Self::Paused,
            DomainState::Stalled => Self::Stalled,
            DomainState::Failed => Self::Failed,
        }
    }
}

impl From<DomainConsistency> for pb::DomainConsistency {
    fn from(domain: DomainConsistency) -> Self {
        Self {
            domain: domain.domain,
            state: pb::DomainState::from(domain.state).into(),
            failure: domain.failure,
            as_of: domain.as_of.map(timestamp),
            partitions: domain.partitions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PartitionConsistency> for pb::PartitionConsistency {
    fn from(partition: PartitionConsistency) -> Self {
        Self {
            topic: partition.topic,
            partition: partition.partition,
            position: partition.position,
            end_offset: partition.end_offset,
            lag: partition.lag,
            oldest_unapplied_seconds: partition.oldest_unapplied_seconds,
            end_read_age_seconds: partition.end_read_age_seconds,
            rate: partition.rate,
            eta_seconds: partition.eta_seconds,
            state: pb::DomainState::from(partition.state).into(),
            failure: partition.failure,
            dead_letters: partition.dead_letters,
            parked_keys: partition.parked_keys,
            start_position: partition.start_position,
            holes: partition.holes,
            read: partition.read,
            applied: partition.applied,
            duplicates: partition.duplicates,
            skipped: partition.skipped,
            dead_lettered: partition.dead_lettered,
        }
    }
}
