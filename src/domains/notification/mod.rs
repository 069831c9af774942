//! The notification domain: what to send to users, for the Notification Service, which drains it as a work queue. Made from the
//! events about accounts.
//!
//! The view says what is to be sent. Whether it was sent lies outside of the view's versions (`notification.deliveries`): a
//! rebuild makes notifications again, and sends none again.

mod grpc;
mod model;
mod projection;
mod queries;
mod queue;
mod rest;
mod settings;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use self::queue::Queue;
use self::settings::Settings;
use super::{Domain, FirstReads};
use crate::config::Config;
use crate::error::Error;
use crate::proto::notification::v1::notification_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

/// The notification domain.
pub struct Notification {
    settings: Settings,
}

impl Notification {
    /// With the default settings, for what does not depend on them.
    pub const DEFAULT: Self = Self {
        settings: Settings::DEFAULT,
    };

    fn queue(&self) -> Arc<Queue> {
        Queue::new(self.settings.clone(), &Self::DEFAULT)
    }
}

impl Domain for Notification {
    fn grpc_service(&self) -> &'static str {
        SERVICE_NAME
    }

    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder) {
        routes.add_service(grpc::service(reads, self.queue()));
    }

    fn rest(&self) -> OpenApiRouter<Reads> {
        rest::routes(self.queue())
    }

    fn with_settings(&self, config: &Config) -> Option<&'static dyn Domain> {
        let settings = Settings::of(config);
        Some(Box::leak(Box::new(Self { settings })))
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
            nobody: "/v1/notification/notifications?userId=nobody",
            path: "/v1/notification/notifications?userId=u-1001",
            call: ["ListNotifications", r#"{"user_id": "u-1001"}"#],
        }
    }
}
