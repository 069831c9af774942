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

use super::{Domain, FirstReads};
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

    fn first_reads(&self) -> FirstReads {
        FirstReads {
            nobody: "/v1/analytics/users/nobody/activity",
            // All days on which sample users register, whenever this runs.
            path: "/v1/analytics/funnel?from=2025-10-01&to=2199-12-31",
            call: ["GetUserActivity", r#"{"user_id": "u-1001"}"#],
        }
    }
}
