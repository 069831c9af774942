//! HTTP/JSON: the domains' routes, lag, the version, and the API to browse, all from this binary.

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    Domains,
    connections::{self, Versions},
    consistency,
    layers::{self, Surface},
    openapi,
};
use crate::{
    error::Error,
    operations::{self, Operations},
    query::{
        Reads,
        lag::{Lag, not_served},
    },
};

/// What HTTP serves.
pub struct Parts {
    /// The routes of the served domains, merged.
    pub routes: OpenApiRouter<Reads>,
    /// What those routes read through.
    pub reads: Reads,
    /// Which domains there are.
    pub domains: Domains,
    /// Where lag is read.
    pub lag: Lag,
    /// What operators go through.
    pub operations: Operations,
}

/// Serves on `listener` until `shutdown`, then finishes what was begun.
///
/// # Errors
/// The API cannot be documented as JSON.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let loopback_only = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let router = router(parts, loopback_only)?;
    connections::serve(listener, router, Versions::Both, shutdown).await;
    Ok(())
}

/// Everything that HTTP serves, behind the layers.
///
/// # Errors
/// The API cannot be documented as JSON.
pub fn router(parts: Parts, loopback_only: bool) -> Result<Router, Error> {
    let (routes, document) = parts.routes.split_for_parts();
    let document = openapi::to_json(&openapi::document(document))?;
    let router = Router::new()
        .merge(version_routes().split_for_parts().0)
        .merge(docs())
        .fallback(unknown)
        .with_state(parts.domains)
        .merge(routes.with_state(parts.reads))
        .merge(consistency::router(parts.lag))
        .merge(operations::router(parts.operations))
        .route(
            "/openapi.json",
            get(|| async { ([(header::CONTENT_TYPE, "application/json")], document) }),
        );
    let router = layers::apply(router, Surface::Rest, loopback_only);
    // Around the layers, whose refusals are answers, too.
    Ok(router.layer(from_fn(secure)))
}

/// The one route whose answer is of this process, not of a view.
pub(super) const VERSION_PATH: &str = "/v1/version";

/// The version's route, documented.
pub(super) fn version_routes() -> OpenApiRouter<Domains> {
    OpenApiRouter::new().routes(routes!(get_version))
}

/// What runs here.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    /// The version of sightline.
    version: &'static str,
    /// The domains that this process serves, by name.
    domains: Vec<&'static str>,
}

/// Which version runs, and which domains it serves
///
/// The other domains' routes answer 404 with the reason `DOMAIN_NOT_SERVED`.
#[utoipa::path(
    get,
    path = VERSION_PATH,
    operation_id = "getVersion",
    tag = "version",
    responses((status = 200, description = "Version and domains", body = Version,
        example = json!({"version": "0.1.0", "domains": ["order"]}))),
)]
async fn get_version(State(domains): State<Domains>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        domains: domains.served,
    })
}

/// Swagger UI from the binary; it is told to ask no validator elsewhere.
fn docs() -> Router<Domains> {
    SwaggerUi::new("/docs")
        .config(Config::from("/openapi.json").validator_url("none"))
        .into()
}

/// `/v1/<domain>/…`
async fn unknown(State(domains): State<Domains>, request: Request) -> Response {
    let domain = request
        .uri()
        .path()
        .strip_prefix("/v1/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    if domains.is_elsewhere(domain) {
        not_served().into_response()
    } else {
        layers::unknown_path().into_response()
    }
}

/// Nothing that is answered runs as a script, but the docs' own.
async fn secure(request: Request, next: Next) -> Response {
    const CSP: HeaderName = header::CONTENT_SECURITY_POLICY;
    let path = request.uri().path();
    let policy = HeaderValue::from_static(if path == "/docs" || path.starts_with("/docs/") {
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    });
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CSP, policy);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}
