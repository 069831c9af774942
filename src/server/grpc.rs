//! gRPC: the domains' services, lag, health and reflection, behind the layers.

use std::time::Duration;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    Domains,
    connections::{self, Versions},
    consistency,
    layers::{self, Surface},
};
use crate::{
    operations::{self, Operations},
    proto,
    query::lag::{Lag, not_served},
};

/// Between telling NOT_SERVING and closing: long enough for who watches to hear it.
const NOTICE: Duration = Duration::from_millis(200);

/// What gRPC serves.
pub struct Parts {
    /// The services of the served domains.
    pub services: Routes,
    /// Their full names (`sightline.order.v1.OrderService`), for health.
    pub names: Vec<&'static str>,
    /// Which domains there are.
    pub domains: Domains,
    /// Where lag is read.
    pub lag: Lag,
    /// What operators go through.
    pub operations: Operations,
}

/// Serves on `listener` until `shutdown`: then health says NOT_SERVING, and what was begun is finished.
///
/// # Errors
/// The compiled-in descriptors are damaged.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), tonic_reflection::server::Error> {
    let loopback_only = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let mut names = parts.names.clone();
    names.extend([consistency::SERVICE_NAME, operations::SERVICE_NAME]);
    // The whole server.
    names.push("");
    let (health, health_service) = tonic_health::server::health_reporter();
    tell(&health, &names, ServingStatus::Serving).await;
    let router = router(parts, Routes::new(health_service), loopback_only)?;

    let close = CancellationToken::new();
    let connections = connections::serve(listener, router, Versions::Http2, close.clone());
    let announce = async {
        shutdown.cancelled().await;
        tell(&health, &names, ServingStatus::NotServing).await;
        sleep(NOTICE).await;
        close.cancel();
    };
    tokio::join!(connections, announce);
    Ok(())
}

/// Everything that gRPC serves, behind the layers; `health` is the health service.
pub(super) fn router(
    parts: Parts,
    health: Routes,
    loopback_only: bool,
) -> Result<Router, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let shared = health
        .add_service(consistency::service(parts.lag))
        .add_service(operations::service(parts.operations))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let router = Router::new()
        .fallback(unknown)
        .with_state(parts.domains)
        .merge(parts.services.into_axum_router().reset_fallback())
        .merge(shared.into_axum_router().reset_fallback());
    Ok(layers::apply(router, Surface::Grpc, loopback_only))
}

async fn tell(health: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    for name in names {
        health.set_service_status(*name, status).await;
    }
}

/// `/sightline.<domain>.v1.<Service>/<Method>`
async fn unknown(State(domains): State<Domains>, request: Request) -> Response {
    let domain = request
        .uri()
        .path()
        .strip_prefix("/sightline.")
        .and_then(|rest| rest.split('.').next())
        .unwrap_or_default();
    Surface::Grpc.refuse(if domains.is_elsewhere(domain) {
        not_served()
    } else {
        layers::unknown_path()
    })
}
