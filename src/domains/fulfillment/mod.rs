//! The fulfillment domain: shipping addresses for the Fulfillment Service, in the form that a label
//! needs, with the result of their validation. Made from the events about addresses and about
//! users' names and phone numbers.

mod grpc;
mod model;
mod projection;
mod queries;
mod rest;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod validation;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::{Domain, FirstReads};
use crate::error::Error;
use crate::proto::fulfillment::v1::fulfillment_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

/// The fulfillment domain.
pub struct Fulfillment;

impl Domain for Fulfillment {
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
            nobody: "/v1/fulfillment/users/nobody/addresses",
            path: "/v1/fulfillment/addresses?validation=incomplete&validation=invalid",
            call: ["ListAddresses", r#"{"user_id": "u-7"}"#],
        }
    }
}
