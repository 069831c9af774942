//! The admin port: `/livez`, `/readyz` and `/metrics`, for probes and Prometheus.
//!
//! It is a port of its own, so that it need not be reachable for the API's callers.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::{self, HttpVersions};
use super::layers;
use crate::error::{Code, Error};

/// The paths of probes and metrics, and the one that others use for the first.
pub(super) const PATHS: [&str; 4] = ["/livez", "/readyz", "/metrics", "/healthz"];

/// What `/` says.
const INDEX: &str = "/livez    200 while the process runs\n\
                     /readyz   200 while it can take calls\n\
                     /metrics  metrics for Prometheus\n";

/// The conditions under which this process can take calls: the name of each, and whether it holds.
pub type Checks = Vec<(&'static str, bool)>;

/// What the admin port is made from.
#[derive(Clone)]
pub struct Parts {
    /// Checks that the database answers and takes writes, and that its migrations match. Kafka and lag don't affect readiness:
    /// reads work without either. Answers within 3 s: a check without a result by then fails.
    pub ready: Arc<dyn Fn() -> BoxFuture<'static, Checks> + Send + Sync>,
    /// Renders the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Parts {
    /// Whether this process can take calls, as `/readyz` says.
    pub async fn is_ready(&self) -> bool {
        (self.ready)().await.iter().all(|(_, ok)| *ok)
    }
}

/// Serves on `listener` until `shutdown`.
pub async fn serve(listener: TcpListener, parts: Parts, shutdown: CancellationToken) {
    let loopback_only = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let router = router(parts, loopback_only);
    connections::serve(listener, router, HttpVersions::Both, shutdown).await;
}

/// The routes. With `loopback_only`, calls that name another host are refused.
pub fn router(parts: Parts, loopback_only: bool) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        // Any response means that the process is alive.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(parts)
        .fallback(|| async { unknown_path() })
        .layer(from_fn_with_state(loopback_only, refuse))
}

async fn refuse(State(loopback_only): State<bool>, request: Request, next: Next) -> Response {
    if let Some(refusal) = layers::refuse_grpc(&request) {
        return refusal;
    }
    match layers::check_host(loopback_only, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn unknown_path() -> Error {
    let text = "This port has no such path. Its / lists those that it has; the API has a port of its own (SIGHTLINE_HTTP_ADDR).";
    Error::new(Code::UnknownPath, text)
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
}

async fn readyz(State(parts): State<Parts>) -> Response {
    let checks = (parts.ready)().await;
    let ready = checks.iter().all(|(_, ok)| *ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let checks = checks
        .into_iter()
        .map(|(name, ok)| Check { name, ok })
        .collect();
    (status, Json(Readiness { ready, checks })).into_response()
}

async fn metrics(State(parts): State<Parts>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        (parts.metrics)(),
    )
        .into_response()
}
