//! The notification domain: messages to users that are to be sent, for the Notification Service.

mod grpc;
mod model;
mod queries;
mod queue;
mod rest;

use async_trait::async_trait;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::{Domain, FirstReads};
use crate::event::TypeName;
use crate::projector::{NewEvent, Projection, Target};
use crate::proto::notification::v1::notification_service_server::SERVICE_NAME;
use crate::query::Reads;

/// The notification domain.
pub struct Notification;

#[async_trait]
impl Projection for Notification {
    fn domain(&self) -> &'static str {
        "notification"
    }

    fn declared_code_version(&self) -> i32 {
        1
    }

    fn is_interested(&self, _: &TypeName) -> bool {
        false
    }

    async fn apply(&self, _: &mut Target<'_>, _: &[NewEvent]) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

impl Domain for Notification {
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
            nobody: "/v1/notification/notifications?userId=nobody",
            path: "/v1/notification/notifications?status=pending",
            call: ["ListNotifications", r#"{"user_id": "u-1001"}"#],
        }
    }
}
