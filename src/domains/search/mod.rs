//! The search domain: users found by parts of their names, usernames and emails, with typos in them, and suggestions while
//! one types. Made from the events about accounts and profiles.

mod grpc;
mod model;
mod projection;
mod queries;
mod rest;
mod similar;
mod state;
#[cfg(test)]
mod tests;
mod words;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use super::{Domain, FirstReads};
use crate::error::Error;
use crate::proto::search::v1::search_service_server::SERVICE_NAME;
use crate::query::{Answer, Reads};

/// The search domain.
pub struct Search;

impl Domain for Search {
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
            nobody: "/v1/search/users?q=nobody",
            path: "/v1/search/users?q=ada+love",
            call: ["SearchUsers", r#"{"q": "ada love"}"#],
        }
    }
}
