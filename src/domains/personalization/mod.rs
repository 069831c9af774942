//! The personalization domain: users' preferences, language and location, for the Personalization
//! Service, and segments, the users who have some of these in common. Made from the events about
//! profiles and addresses.

mod grpc;
mod model;
mod preferences;
mod projection;
mod queries;
mod rest;
mod segments;
mod state;
#[cfg(test)]
mod tests;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::{Domain, FirstReads};
use crate::error::Error;
use crate::proto::personalization::v1::personalization_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

/// The personalization domain.
pub struct Personalization;

impl Domain for Personalization {
    fn grpc_service(&self) -> &'static str {
        SERVICE_NAME
    }

    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder) {
        routes.add_service(grpc::service(reads));
    }

    fn rest(&self) -> OpenApiRouter<Reads> {
        rest::routes()
    }

    fn read_user<'r>(
        &self,
        reads: &'r Reads,
        snapshot: &'r mut PgConnection,
        user_id: &'r str,
    ) -> BoxFuture<'r, Result<Answer<Option<Value>>, Error>> {
        Box::pin(queries::read_user(reads, snapshot, user_id))
    }

    fn first_reads(&self) -> FirstReads {
        FirstReads {
            nobody: "/v1/personalization/users/nobody",
            path: "/v1/personalization/segments?countryCode=DE&preference=theme:dark",
            call: ["GetProfile", r#"{"user_id": "u-1001"}"#],
        }
    }
}
