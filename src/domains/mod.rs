//! The domains: what each is, told once. Everything else walks [`ALL`].

pub mod fulfillment;
pub mod order;

use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use crate::projector::Projection;
use crate::query::Reads;

/// A downstream domain: a projection that makes its view, and two coats over the queries that read it.
pub trait Domain: Projection {
    /// The gRPC service, as health and reflection name it.
    fn grpc_service(&self) -> &'static str;

    /// Adds the gRPC service.
    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder);

    /// The REST routes, with their documentation.
    fn rest(&self) -> OpenApiRouter<Reads>;
}

/// Every domain that this release knows.
pub static ALL: &[&dyn Domain] = &[&fulfillment::Fulfillment, &order::Order];

/// The names of all domains.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|domain| domain.domain()).collect()
}
