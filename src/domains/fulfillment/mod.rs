//! fulfillment: addresses for shipping, for the Fulfillment Service: in the form that a label needs, and whether they
//! are fit to ship to. Made from what events tell of addresses, and of users' names and phones.

mod grpc;
mod model;
mod projection;
mod queries;
mod rest;
#[cfg(test)]
mod tests;
mod validation;

use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::Domain;
use crate::proto::fulfillment::v1::fulfillment_service_server::SERVICE_NAME;
use crate::query::Reads;

/// The domain.
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
}
