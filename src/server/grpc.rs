//! gRPC: the domains' services, lag, operations, health and reflection, behind the layers.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::connections::{self, HttpVersions};
use super::consistency;
use super::domains::Domains;
use super::layers;
use super::surface::Surface;
use super::waits::Waits;
use crate::operations::{self, Operations};
use crate::proto;
use crate::query::Reads;
use crate::query::lag::{Lag, not_served};

/// The delay between the health status NOT_SERVING and closing: clients that watch health receive
/// the status before their connection closes.
const NOTICE: Duration = Duration::from_millis(200);

/// What the gRPC surface is made from.
pub struct Parts {
    /// The services of the served domains.
    pub services: Routes,
    /// Their full names (`sightline.order.v1.OrderService`), for health.
    pub names: Vec<&'static str>,
    /// The database access of those services.
    pub reads: Reads,
    /// The domains that exist and those that this process serves.
    pub domains: Domains,
    /// Lag of the views.
    pub lag: Lag,
    /// Operations on dead letters and projections.
    pub operations: Operations,
}

/// Serves on `listener` until `shutdown`. Then health reports NOT_SERVING, and calls that have
/// begun finish.
///
/// # Errors
/// The compiled-in proto descriptors cannot be decoded.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), tonic_reflection::server::Error> {
    let loopback_only = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
    let mut names = parts.names.clone();
    names.extend([consistency::SERVICE_NAME, operations::SERVICE_NAME]);
    // The health protocol's name for the server as a whole.
    names.push("");
    let (health, health_service) = tonic_health::server::health_reporter();
    set_status(&health, &names, ServingStatus::Serving).await;
    let router = router(parts, Routes::new(health_service), loopback_only)?;

    let close = CancellationToken::new();
    let connections = connections::serve(listener, router, HttpVersions::Http2, close.clone());
    let announce = async {
        shutdown.cancelled().await;
        set_status(&health, &names, ServingStatus::NotServing).await;
        sleep(NOTICE).await;
        close.cancel();
    };
    tokio::join!(connections, announce);
    Ok(())
}

/// The whole gRPC surface, behind the layers. `health` is the health service. With `loopback_only`,
/// calls that name another host are refused.
pub(super) fn router(
    parts: Parts,
    health: Routes,
    loopback_only: bool,
) -> Result<Router, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The messages in `grpc-status-details-bin`.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let shared = health
        .add_service(consistency::service(consistency::Parts {
            lag: parts.lag,
            reads: parts.reads.clone(),
            domains: parts.domains.clone(),
        }))
        .add_service(operations::service(parts.operations))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let router = Router::new()
        .merge(parts.services.into_axum_router().reset_fallback())
        .merge(shared.into_axum_router().reset_fallback());
    let waits = Waits::new(Surface::Grpc, parts.reads);
    let router = layers::apply_to_grpc_routes(router, waits)
        .fallback_service(unknown.with_state(parts.domains));
    Ok(layers::apply(router, Surface::Grpc, loopback_only))
}

async fn set_status(health: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    for name in names {
        health.set_service_status(*name, status).await;
    }
}

/// Refuses an unknown service: `/sightline.<domain>.v1.<Service>/<Method>` of a domain served
/// elsewhere has a reason of its own.
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
        layers::unknown_path(Surface::Grpc)
    })
}
