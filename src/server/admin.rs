//! The admin port: `/livez`, `/readyz`, `/metrics`. For probes and scrapers, apart from what callers use.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    connections::{self, Versions},
    layers::{self, Surface},
};

/// A probe that takes longer has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What must hold for this process to be sent calls: each condition by name, and whether it holds.
pub type Checks = Vec<(&'static str, bool)>;

/// What the admin port shows.
#[derive(Clone)]
pub struct Parts {
    /// Whether migrations match, ports are bound and the database answers. Kafka and lag do not count.
    pub ready: Arc<dyn Fn() -> BoxFuture<'static, Checks> + Send + Sync>,
    /// The metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Serves on `listener` until `shutdown`.
pub async fn serve(listener: TcpListener, parts: Parts, shutdown: CancellationToken) {
    let loopback_only = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let router = router(parts, loopback_only);
    connections::serve(listener, router, Versions::Both, shutdown).await;
}

/// The routes.
pub fn router(parts: Parts, loopback_only: bool) -> Router {
    Router::new()
        // That it answers is the answer.
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(parts)
        .fallback(|| async { layers::unknown_path() })
        .layer(from_fn_with_state(
            (Surface::Rest, loopback_only),
            layers::check_host,
        ))
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
    let checks = timeout(PROBE_TIMEOUT, (parts.ready)())
        .await
        .unwrap_or_else(|_| vec![("answered_in_time", false)]);
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
