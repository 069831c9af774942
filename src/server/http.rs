//! REST: the domains' routes, lag, version, operations, the OpenAPI document and the page that shows it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use super::connections::{self, HttpVersions};
use super::domains::Domains;
use super::layers;
use super::surface::Surface;
use super::waits::Waits;
use super::{admin, consistency, docs, openapi, version};
use crate::error::{Code, Error};
use crate::operations::{self, Operations};
use crate::query::Reads;
use crate::query::lag::{Lag, not_served};

/// What the REST surface is made from.
pub struct Parts {
    /// The routes of the served domains, merged.
    pub routes: OpenApiRouter<Reads>,
    /// The database access of those routes.
    pub reads: Reads,
    /// The domains that exist and those that this process serves.
    pub domains: Domains,
    /// Lag of the views.
    pub lag: Lag,
    /// Operations on dead letters and projections.
    pub operations: Operations,
}

/// Serves on `listener` until `shutdown`, then finishes the calls that have begun.
///
/// # Errors
/// The OpenAPI document cannot be written as JSON.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let loopback_only = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let router = router(parts, loopback_only)?;
    connections::serve(listener, router, HttpVersions::Both, shutdown).await;
    Ok(())
}

/// The whole REST surface, behind the layers. With `loopback_only`, calls that name another host
/// are refused.
///
/// # Errors
/// The OpenAPI document cannot be written as JSON.
pub fn router(parts: Parts, loopback_only: bool) -> Result<Router, Error> {
    let (routes, document) = parts.routes.split_for_parts();
    let document = openapi::document(document, &parts.domains.known);
    let parameters = openapi::query_parameters(&document);
    let document = Bytes::from(openapi::to_json(&document)?);
    let router = Router::new()
        .merge(version::routes().split_for_parts().0)
        .merge(docs::routes())
        .with_state(parts.domains.clone())
        .merge(routes.with_state(parts.reads.clone()))
        .merge(consistency::router(consistency::Parts {
            lag: parts.lag,
            reads: parts.reads.clone(),
            domains: parts.domains.clone(),
        }))
        .merge(operations::router(parts.operations))
        .route(
            "/openapi.json",
            get(|| async { ([(header::CONTENT_TYPE, "application/json")], document) }),
        );
    let waits = Waits::new(Surface::Rest, parts.reads);
    let router = layers::apply_to_rest_routes(router, waits, parameters)
        .method_not_allowed_fallback(async || layers::method_not_allowed())
        .fallback_service(unknown.with_state(parts.domains));
    Ok(layers::apply(router, Surface::Rest, loopback_only))
}

/// Refuses a path without a route: `/v1/<domain>/…` of a domain served elsewhere has a reason of
/// its own.
async fn unknown(State(domains): State<Domains>, request: Request) -> Response {
    let domain = request
        .uri()
        .path()
        .strip_prefix("/v1/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    let error = if domains.is_elsewhere(domain) {
        not_served()
    } else if admin::PATHS.contains(&request.uri().path()) {
        let text = "Probes and metrics have a port of their own (SIGHTLINE_ADMIN_ADDR).";
        Error::new(Code::UnknownPath, text)
    } else {
        layers::unknown_path(Surface::Rest)
    };
    error.into_response()
}
