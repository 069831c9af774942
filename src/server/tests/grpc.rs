//! gRPC through the layers: tokens, refusals, health, shutdown.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_types::StatusExt;
use tower::ServiceExt;

use super::{domains, find, lag, operations, reads, token};
use crate::error::Error;
use crate::proto::consistency::v1 as consistency;
use crate::proto::operations::v1 as operations_pb;
use crate::proto::order::v1 as pb;
use crate::proto::order::v1::order_service_server::{OrderService, OrderServiceServer};
use crate::query::grpc::{respond, service};
use crate::server::grpc;

/// The example domain's service, of which the tests call one method.
struct ExampleOrders;

#[tonic::async_trait]
impl OrderService for ExampleOrders {
    type WatchAddressChangesStream =
        BoxStream<'static, Result<pb::WatchAddressChangesResponse, tonic::Status>>;

    async fn get_customer(
        &self,
        request: tonic::Request<pb::GetCustomerRequest>,
    ) -> Result<tonic::Response<pb::GetCustomerResponse>, tonic::Status> {
        let answer = find(request.into_inner().user_id).await?;
        Ok(respond(answer.map(|user_id| pb::GetCustomerResponse {
            customer: Some(pb::Customer {
                user_id,
                ..Default::default()
            }),
        })))
    }

    async fn batch_get_customers(
        &self,
        _: tonic::Request<pb::BatchGetCustomersRequest>,
    ) -> Result<tonic::Response<pb::BatchGetCustomersResponse>, tonic::Status> {
        Err(Error::internal("not called by the tests").into())
    }

    async fn list_customer_addresses(
        &self,
        _: tonic::Request<pb::ListCustomerAddressesRequest>,
    ) -> Result<tonic::Response<pb::ListCustomerAddressesResponse>, tonic::Status> {
        Err(Error::internal("not called by the tests").into())
    }

    async fn list_address_changes(
        &self,
        _: tonic::Request<pb::ListAddressChangesRequest>,
    ) -> Result<tonic::Response<pb::ListAddressChangesResponse>, tonic::Status> {
        Err(Error::internal("not called by the tests").into())
    }

    async fn watch_address_changes(
        &self,
        _: tonic::Request<pb::WatchAddressChangesRequest>,
    ) -> Result<tonic::Response<Self::WatchAddressChangesStream>, tonic::Status> {
        Err(Error::internal("not called by the tests").into())
    }
}

fn parts() -> grpc::Parts {
    grpc::Parts {
        services: Routes::new(service!(OrderServiceServer::new(ExampleOrders))),
        names: vec!["sightline.order.v1.OrderService"],
        reads: reads(),
        domains: domains(),
        lag: lag(),
        operations: operations(),
    }
}

const GET_CUSTOMER: &str = "/sightline.order.v1.OrderService/GetCustomer";

/// Calls a method and returns the initial headers, the body and the trailers.
async fn call(
    path: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> (HeaderMap, Bytes, HeaderMap) {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    let mut request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let router = grpc::router(parts(), Routes::default(), true).unwrap();
    let request = request.body(Body::from(body)).unwrap();
    let response: Result<_, Infallible> = router.oneshot(request).await;
    let (parts, body) = response.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (parts.headers, body.to_bytes(), trailers)
}

fn request_for(user_id: &str) -> Vec<u8> {
    let user_id = user_id.to_owned();
    pb::GetCustomerRequest { user_id }.encode_to_vec()
}

#[tokio::test]
async fn the_token_comes_in_the_trailers() {
    let (headers, body, trailers) = call(GET_CUSTOMER, &[], &request_for("a/b")).await;
    assert!(!headers.contains_key("sightline-consistency-token"));
    assert!(headers.contains_key("x-request-id") && headers.contains_key("traceparent"));
    assert_eq!(trailers["sightline-consistency-token"], token().to_string());
    assert_eq!(trailers["grpc-status"], "0");
    let answer = pb::GetCustomerResponse::decode(body.slice(5..)).unwrap();
    assert_eq!(answer.customer.unwrap().user_id, "a/b");
}

#[tokio::test]
async fn every_refusal_has_the_reason_that_rest_gives() {
    let too_large = vec![0; 5 * 1024 * 1024];
    for (path, headers, message, code, reason) in [
        (
            GET_CUSTOMER,
            &[][..],
            request_for("gone"),
            tonic::Code::NotFound,
            "NOT_FOUND",
        ),
        (
            GET_CUSTOMER,
            &[],
            request_for("panic"),
            tonic::Code::Internal,
            "INTERNAL",
        ),
        (
            GET_CUSTOMER,
            &[("grpc-timeout", "50m")],
            request_for("slow"),
            tonic::Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        ),
        (
            GET_CUSTOMER,
            &[("grpc-timeout", "soon")],
            request_for("a"),
            tonic::Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            GET_CUSTOMER,
            &[("sightline-consistency", "latest")],
            request_for("a"),
            tonic::Code::Unavailable,
            "KAFKA_UNAVAILABLE",
        ),
        (
            GET_CUSTOMER,
            &[],
            b"\x0a\x05\xff".to_vec(),
            tonic::Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            GET_CUSTOMER,
            &[],
            too_large,
            tonic::Code::ResourceExhausted,
            "PAYLOAD_TOO_LARGE",
        ),
        (
            GET_CUSTOMER,
            &[("grpc-encoding", "snappy")],
            request_for("a"),
            tonic::Code::Unimplemented,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (
            "/sightline.order.v1.OrderService/Nothing",
            &[],
            vec![],
            tonic::Code::Unimplemented,
            "UNKNOWN_PATH",
        ),
        (
            "/sightline.order.v2.OrderService/GetCustomer",
            &[],
            vec![],
            tonic::Code::Unimplemented,
            "UNKNOWN_PATH",
        ),
        (
            "/sightline.audit.v1.AuditService/ListEntries",
            &[],
            vec![],
            tonic::Code::Unimplemented,
            "DOMAIN_NOT_SERVED",
        ),
        (
            GET_CUSTOMER,
            &[("sightline-consistency", "very")],
            request_for("a"),
            tonic::Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            GET_CUSTOMER,
            &[("sightline-consistency", "at-least")],
            request_for("a"),
            tonic::Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            "/sightline.consistency.v1.ConsistencyService/GetConsistency",
            &[("sightline-consistency", "latest")],
            vec![],
            tonic::Code::Unimplemented,
            "CONSISTENCY_UNSUPPORTED",
        ),
        (
            "/sightline.consistency.v1.ConsistencyService/GetConsistency",
            &[],
            vec![],
            tonic::Code::Unavailable,
            "DATABASE_UNAVAILABLE",
        ),
        (
            "/sightline.consistency.v1.ConsistencyService/GetConsistency",
            &[],
            consistency::GetConsistencyRequest {
                domain: Some("none".into()),
            }
            .encode_to_vec(),
            tonic::Code::NotFound,
            "NOT_FOUND",
        ),
        (
            "/sightline.operations.v1.OperationsService/SwitchProjection",
            &[],
            operations_pb::SwitchProjectionRequest {
                domain: "none".into(),
                ..Default::default()
            }
            .encode_to_vec(),
            tonic::Code::NotFound,
            "NOT_FOUND",
        ),
        (
            "/sightline.operations.v1.OperationsService/GetDeadLetter",
            &[],
            operations_pb::GetDeadLetterRequest { id: "4711".into() }.encode_to_vec(),
            tonic::Code::NotFound,
            "NOT_FOUND",
        ),
        (
            "/sightline.operations.v1.OperationsService/RetryDeadLetters",
            &[],
            operations_pb::RetryDeadLettersRequest {
                domain: Some("audit".into()),
                ..Default::default()
            }
            .encode_to_vec(),
            tonic::Code::Unimplemented,
            "DOMAIN_NOT_SERVED",
        ),
    ] {
        let (headers_out, _, _) = call(path, headers, &message).await;
        let status = tonic::Status::from_header_map(&headers_out).unwrap();
        let details = status.get_error_details();
        let got = details.error_info().map(|info| info.reason.as_str());
        assert_eq!(
            (status.code(), got),
            (code, Some(reason)),
            "{path} {headers:?}"
        );
        // It is in the words of gRPC.
        let message = status.message();
        for of_another in ["/v1/", "`sightline ", "header", "Sightline-", "--"] {
            assert!(
                !message.contains(of_another),
                "{path} {headers:?}: {message}"
            );
        }
    }
    let snappy = [("grpc-encoding", "snappy")];
    let (headers, _, _) = call(GET_CUSTOMER, &snappy, &request_for("a")).await;
    let accepted = headers["grpc-accept-encoding"].to_str().unwrap();
    assert!(
        accepted.contains("gzip") && accepted.contains("zstd"),
        "{accepted}"
    );
    let (headers, _, _) = call(GET_CUSTOMER, &[], &request_for("gone")).await;
    assert_eq!(headers["sightline-consistency-token"], token().to_string());
}

#[tokio::test]
async fn shutdown_first_reports_not_serving_then_ends() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(grpc::serve(listener, parts(), shutdown.clone()));
    let channel = tonic::transport::Endpoint::new(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in [
        "",
        "sightline.order.v1.OrderService",
        "sightline.consistency.v1.ConsistencyService",
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let status = health.check(request).await.unwrap().into_inner().status;
        assert_eq!(status, 1, "{service}");
    }
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    // Asks for nothing yet.
    let mut reflection = ServerReflectionClient::new(channel);
    let asked = reflection.server_reflection_info(futures_util::stream::pending());
    let mut described = asked.await.unwrap().into_inner();
    shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    assert_eq!(watch.message().await.unwrap(), None);
    assert!(described.message().await.unwrap().is_none());
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
