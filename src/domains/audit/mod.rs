//! The audit domain: the security log. Who did what and when, alerts on attacks, and who may do what. Made from all events
//! about accounts, authentication, roles and permissions, and from those of unknown types.

mod access;
mod alerts;
mod chain;
mod erasure;
mod export;
mod grpc;
mod model;
mod projection;
mod queries;
mod rest;
mod settings;
mod state;
mod verify;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use self::settings::Settings;
use super::{Domain, FirstReads};
use crate::config::Config;
use crate::error::Error;
use crate::proto::audit::v1::audit_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

/// The audit domain.
pub struct Audit {
    settings: Settings,
}

impl Audit {
    /// Without a key and without alerts, for what does not depend on them.
    pub const DEFAULT: Self = Self {
        settings: Settings::NONE,
    };
}

impl Domain for Audit {
    fn grpc_service(&self) -> &'static str {
        SERVICE_NAME
    }

    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder) {
        routes.add_service(grpc::service(reads, self.settings.key.clone()));
    }

    fn rest(&self) -> OpenApiRouter<Reads> {
        rest::routes(self.settings.key.clone())
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
            nobody: "/v1/audit/entries?userId=nobody",
            path: "/v1/audit/entries?userId=u-1001",
            call: ["ListEntries", r#"{"user_id": "u-1001"}"#],
        }
    }
}
