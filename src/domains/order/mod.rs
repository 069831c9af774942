//! The order domain: customers for the Order Service, with their contact data, their addresses now
//! and as of a time, and a feed of address changes. Made from the events about accounts, profiles
//! and addresses.

mod changes;
mod grpc;
mod model;
mod projection;
mod queries;
mod rest;
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
use crate::proto::order::v1::order_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

/// The order domain.
pub struct Order;

impl Domain for Order {
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
            nobody: "/v1/order/customers/nobody",
            path: "/v1/order/customers/u-1001",
            call: ["GetCustomer", r#"{"user_id": "u-7"}"#],
        }
    }
}
