//! The analytics domain: daily counts of events, the funnel from registration to the first address,
//! retention by week of registration, and each user's activity. Made from the events about accounts,
//! logins, profiles and added addresses. Of personal data it stores the user ids only.

mod contribution;
mod grpc;
mod metric;
mod model;
mod projection;
mod queries;
mod rest;
mod state;
#[cfg(test)]
mod tests;

use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::Domain;
use crate::proto::analytics::v1::analytics_service_server::SERVICE_NAME;
use crate::query::Reads;

/// The analytics domain.
pub struct Analytics;

impl Domain for Analytics {
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
