//! `GET /v1/version`: the version that runs, and the domains that this process serves.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::domains::Domains;

/// The route of the version, with its documentation.
pub(super) fn routes() -> OpenApiRouter<Domains> {
    OpenApiRouter::new().routes(routes!(get_version))
}

/// The version that runs and the domains that it serves.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    /// The version of sightline.
    version: &'static str,
    /// The names of the domains that this process serves.
    domains: Vec<&'static str>,
}

/// Get the version that runs and the domains that it serves
///
/// The routes of other domains answer 404 with the reason `DOMAIN_NOT_SERVED`.
#[utoipa::path(
    get,
    path = "/v1/version",
    operation_id = "getVersion",
    tag = "version",
    responses((status = 200, description = "The version and the served domains", body = Version,
        example = json!({"version": "0.1.0", "domains": ["order"]}))),
)]
async fn get_version(State(domains): State<Domains>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        domains: domains.served,
    })
}
