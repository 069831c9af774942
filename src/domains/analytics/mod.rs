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

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::{Domain, FirstReads};
use crate::error::Error;
use crate::proto::analytics::v1::analytics_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

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
            nobody: "/v1/analytics/users/nobody/activity",
            // All days on which sample users register, whenever this runs.
            path: "/v1/analytics/funnel?from=2025-10-01&to=2199-12-31",
            call: ["GetUserActivity", r#"{"user_id": "u-1001"}"#],
        }
    }
}
