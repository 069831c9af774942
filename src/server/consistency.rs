//! Lag of the views on both surfaces: `/v1/consistency` and `ConsistencyService`.

use axum::Router;
use axum::extract::State;
use tonic::{Request, Response, Status};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Error;
use crate::proto::consistency::v1 as pb;
use crate::proto::consistency::v1::consistency_service_server::{
    self, ConsistencyService, ConsistencyServiceServer,
};
use crate::query::Answer;
use crate::query::grpc::{self, respond, timestamp};
use crate::query::lag::{Consistency, DomainConsistency, Lag, PartitionConsistency};
use crate::query::rest::{DomainName, NotServed, Path};
use crate::query::status::DomainState;

/// The REST routes, with their documentation.
pub fn routes() -> OpenApiRouter<Lag> {
    OpenApiRouter::new()
        .routes(routes!(get_consistency))
        .routes(routes!(get_domain_consistency))
}

/// The REST routes, answered from `lag`.
pub fn router(lag: Lag) -> Router {
    let (router, _) = routes().split_for_parts();
    router.with_state(lag)
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
async fn get_consistency(State(lag): State<Lag>) -> Result<Answer<Consistency>, Error> {
    lag.all().await
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
    State(lag): State<Lag>,
    Path(domain): Path<String>,
) -> Result<Answer<DomainConsistency>, Error> {
    lag.one(&domain).await
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

/// The gRPC service, answered from `lag`.
pub fn service(lag: Lag) -> ConsistencyServiceServer<impl ConsistencyService> {
    grpc::service!(ConsistencyServiceServer::new(GrpcConsistency { lag }))
}

struct GrpcConsistency {
    lag: Lag,
}

#[tonic::async_trait]
impl ConsistencyService for GrpcConsistency {
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
