//! REST: the domains' routes, lag, version, operations, the OpenAPI document and the page that shows it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use super::connections::{self, HttpVersions};
use super::domains::Domains;
use super::layers;
use super::openapi::QueryParameters;
use super::surface::Surface;
use super::waits::Waits;
use super::{admin, consistency, docs, openapi, version};
use crate::error::{Code, Error};
use crate::operations::{self, Operations};
use crate::query::Reads;
use crate::query::lag::{Lag, not_served};
use crate::query::rest::Query;

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
    let known = Arc::new(openapi::query_parameters(&document));
    let document = openapi::to_json(&document)?;
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
        )
        .layer(from_fn_with_state(known, check_parameters));
    let waits = Waits::new(Surface::Rest, parts.reads);
    let router = layers::apply_to_routes(router, Surface::Rest, waits)
        .method_not_allowed_fallback(async || layers::method_not_allowed())
        .fallback_service(unknown.with_state(parts.domains));
    let router = layers::apply(router, Surface::Rest, loopback_only);
    // Outside the layers, so that their refusals carry the headers as well.
    Ok(router.layer(from_fn(secure)))
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

/// Refuses a read with a query parameter that the document does not have: a misspelled filter would
/// answer more than was asked for.
async fn check_parameters(
    State(known): State<Arc<QueryParameters>>,
    query: Result<Query, Error>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or("", MatchedPath::as_str);
    if let Some(names) = known.get(path)
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && let Err(error) =
            query.and_then(|query| query.only(names, |name| takers(&known, path, name)))
    {
        return error.into_response();
    }
    next.run(request).await
}

/// The paths of the same area (`/v1/order`) that take a parameter.
fn takers<'k>(known: &'k QueryParameters, path: &str, parameter: &str) -> Vec<&'k str> {
    let area = |path: &'_ str| path.split('/').nth(2).map(str::to_owned);
    let takes = known.iter().filter(|(other, names)| {
        area(other) == area(path) && names.iter().any(|name| name == parameter)
    });
    takes.map(|(other, _)| other.as_str()).collect()
}

/// Forbids scripts in every response but the page of `/docs`, which runs its own. Refuses gRPC.
async fn secure(request: Request, next: Next) -> Response {
    let policy = if request.uri().path().starts_with("/docs/") {
        docs::CONTENT_SECURITY_POLICY
    } else {
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")
    };
    let mut response = match layers::refuse_grpc(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
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
