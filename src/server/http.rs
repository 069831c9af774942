//! REST: the domains' routes, lag, version, operations, the OpenAPI document and Swagger UI.
//!
//! All of it comes from this binary: the pages of `/docs` load nothing from other hosts.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::connections::{self, HttpVersions};
use super::domains::Domains;
use super::layers::{self, Surface};
use super::openapi::QueryParameters;
use super::{consistency, openapi, version};
use crate::error::Error;
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
    let document = openapi::document(document);
    let known = Arc::new(openapi::query_parameters(&document));
    let document = openapi::to_json(&document)?;
    let router = Router::new()
        .merge(version::routes().split_for_parts().0)
        .merge(swagger_ui())
        .fallback(unknown)
        .with_state(parts.domains)
        .merge(routes.with_state(parts.reads))
        .merge(consistency::router(parts.lag))
        .merge(operations::router(parts.operations))
        .route(
            "/openapi.json",
            get(|| async { ([(header::CONTENT_TYPE, "application/json")], document) }),
        )
        .layer(from_fn_with_state(known, check_parameters));
    let router = layers::apply(router, Surface::Rest, loopback_only);
    // Outside the layers, so that their refusals carry these headers as well.
    Ok(router.layer(from_fn(set_security_headers)))
}

/// Swagger UI without a validator: the default one is on another host. All of its URLs are relative,
/// so that it also works behind a proxy that adds a prefix to the path.
fn swagger_ui() -> Router<Domains> {
    let ui: Router<Domains> = SwaggerUi::new("/docs")
        .config(Config::from("../openapi.json").validator_url("none"))
        .into();
    ui.layer(map_response(redirect_relatively))
}

/// Makes the redirect from `/docs` to `/docs/`, which the library gives as a path from the root,
/// relative to `/docs`.
async fn redirect_relatively(mut response: Response) -> Response {
    if let Some(location) = response.headers_mut().get_mut(header::LOCATION) {
        *location = HeaderValue::from_static("docs/");
    }
    response
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
    if domains.is_elsewhere(domain) {
        not_served().into_response()
    } else {
        layers::unknown_path().into_response()
    }
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
    let names = path.and_then(|path| known.get(path.as_str()));
    if let Some(names) = names
        && matches!(*request.method(), Method::GET | Method::HEAD)
    {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if let Err(error) = query.and_then(|query| query.only(&names)) {
            return error.into_response();
        }
    }
    next.run(request).await
}

/// Forbids scripts in every response but the pages of `/docs`, which run their own.
async fn set_security_headers(request: Request, next: Next) -> Response {
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
