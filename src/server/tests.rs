//! The layers and what belongs to no domain, with a domain that is not one.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_types::StatusExt;
use tower::ServiceExt;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Domains, grpc, http as rest};
use crate::{
    error::Error,
    operations::Operations,
    projector::dead_letters::retry::Retrier,
    proto::order::v1::{
        self as pb,
        order_service_server::{OrderService, OrderServiceServer},
    },
    query::{
        Answer, ConsistencyToken, Reads,
        grpc::respond,
        lag::Lag,
        rest::{Json, Path},
        token::TopicRef,
    },
};

/// There is no database behind it.
fn reads() -> Reads {
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(50))
        .connect_lazy("postgres://127.0.0.1:1/none")
        .unwrap();
    Reads::new(pool)
}

fn lag() -> Lag {
    Lag::new(reads(), ["order"], ["audit", "order"])
}

fn operations() -> Operations {
    let retrier = Retrier {
        pool: reads().pool().clone(),
        kafka: rdkafka::ClientConfig::new(),
        max_value_bytes: 1,
        dedupe: chrono::TimeDelta::days(1),
    };
    Operations::new(reads(), lag(), retrier, vec![], vec!["audit", "order"])
}

fn domains() -> Domains {
    Domains {
        served: vec!["order"],
        known: vec!["audit", "order"],
    }
}

fn token() -> ConsistencyToken {
    let mut token = ConsistencyToken::default();
    let topic = TopicRef {
        topic: "user.events".into(),
        identity: None,
    };
    token.advance(topic, 3, 42);
    token
}

async fn find(id: String) -> Result<Answer<String>, Error> {
    match id.as_str() {
        "gone" => return Err(Error::not_found("thing").with_token(&token())),
        "panic" => panic!("as asked"),
        "slow" => std::future::pending().await,
        _ => {}
    }
    Ok(Answer {
        body: id,
        token: token(),
    })
}

#[utoipa::path(get, path = "/v1/order/things/{id}", responses((status = 200, body = String)))]
async fn get_thing(Path(id): Path<String>) -> Result<Answer<String>, Error> {
    find(id).await
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Things {
    ids: Vec<String>,
}

#[utoipa::path(post, path = "/v1/order/things:batchGet", responses((status = 200, body = String)))]
async fn get_things(Json(things): Json<Things>) -> Answer<usize> {
    Answer {
        body: things.ids.len(),
        token: token(),
    }
}

fn http() -> Router {
    let parts = rest::Parts {
        routes: OpenApiRouter::new()
            .routes(routes!(get_thing))
            .routes(routes!(get_things)),
        reads: reads(),
        domains: domains(),
        lag: lag(),
        operations: operations(),
    };
    rest::router(parts, true).unwrap()
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Of a problem: that it is one, and why.
    fn reason(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        json["reason"].as_str().unwrap().to_owned()
    }
}

async fn send(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Got {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).unwrap();
    let (parts, body) = http().oneshot(request).await.unwrap().into_parts();
    Got {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

async fn fetch(path: &str, headers: &[(&str, &str)]) -> Got {
    send("GET", path, headers, "").await
}

const THINGS: &str = "/v1/order/things:batchGet";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn ids_arrive_as_they_are() {
    let got = fetch("/v1/order/things/a%2Fb%20c%25%F0%9F%98%80%252F", &[]).await;
    assert_eq!(
        (got.status, got.json()),
        (StatusCode::OK, json!("a/b c%😀%2F"))
    );
    assert_eq!(
        got.header("sightline-consistency-token"),
        token().to_string()
    );
    assert_eq!(got.header("cache-control"), "private, no-cache");
    assert_eq!(got.header("x-content-type-options"), "nosniff");

    let got = fetch("/v1/order/things/%FF", &[]).await;
    assert_eq!(got.reason(), "INVALID_ARGUMENT");
    assert_eq!(got.json()["fields"][0]["field"], "id");
}

#[tokio::test]
async fn everything_that_is_refused_has_a_reason() {
    for (method, path, headers, status, reason) in [
        ("GET", "/", &[][..], 404, "UNKNOWN_PATH"),
        ("GET", "/v1/orders", &[], 404, "UNKNOWN_PATH"),
        ("GET", "/v1/audit/entries", &[], 404, "DOMAIN_NOT_SERVED"),
        ("GET", "/docs/nothing.js", &[], 404, "UNKNOWN_PATH"),
        ("GET", "/v1/order/things/gone", &[], 404, "NOT_FOUND"),
        ("GET", "/v1/order/things/panic", &[], 500, "INTERNAL"),
        ("GET", "/v1/consistency", &[], 503, "DATABASE_UNAVAILABLE"),
        (
            "GET",
            "/v1/consistency/order",
            &[],
            503,
            "DATABASE_UNAVAILABLE",
        ),
        (
            "GET",
            "/v1/consistency/audit",
            &[],
            404,
            "DOMAIN_NOT_SERVED",
        ),
        ("GET", "/v1/consistency/none", &[], 404, "NOT_FOUND"),
        (
            "DELETE",
            "/v1/order/things/a",
            &[],
            405,
            "METHOD_NOT_ALLOWED",
        ),
        (
            "OPTIONS",
            "/v1/order/things/a",
            &[],
            405,
            "METHOD_NOT_ALLOWED",
        ),
        ("POST", THINGS, &[], 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            "POST",
            THINGS,
            &[("content-type", "text/plain")],
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        ("POST", THINGS, &[JSON], 400, "INVALID_ARGUMENT"),
        (
            "GET",
            "/v1/version",
            &[("accept-encoding", "identity;q=0, br;q=0, *;q=0")],
            406,
            "NOT_ACCEPTABLE",
        ),
        (
            "GET",
            "/v1/order/things/a",
            &[("sightline-consistency", "latest")],
            501,
            "CONSISTENCY_UNSUPPORTED",
        ),
        (
            "GET",
            "/v1/version",
            &[("sightline-consistency", "very")],
            400,
            "INVALID_ARGUMENT",
        ),
        (
            "GET",
            "/v1/order/things/a",
            &[("request-timeout", "soon")],
            400,
            "INVALID_ARGUMENT",
        ),
    ] {
        let got = send(method, path, headers, "").await;
        let what = format!("{method} {path} {headers:?}");
        assert_eq!(
            (got.status.as_u16(), got.reason().as_str()),
            (status, reason),
            "{what}"
        );
        assert_eq!(
            got.header("retry-after").is_empty(),
            status != 503,
            "{what}"
        );
        assert_eq!(got.header("allow").is_empty(), status != 405, "{what}");
        assert!(!got.header("x-request-id").is_empty(), "{what}");
        assert_eq!(got.header("x-content-type-options"), "nosniff", "{what}");
    }
    let gone = fetch("/v1/order/things/gone", &[]).await;
    assert_eq!(
        gone.header("sightline-consistency-token"),
        token().to_string()
    );
    let large = send("POST", THINGS, &[JSON], vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!(large.reason(), "PAYLOAD_TOO_LARGE");
    let fine = send(
        "POST",
        THINGS,
        &[("content-type", "application/json; charset=utf-8")],
        r#"{"ids":["a"]}"#,
    )
    .await;
    assert_eq!(fine.status, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_is_known_is_not_sent_again() {
    let path = "/v1/order/things/a";
    let etag = fetch(path, &[]).await.header("etag").to_owned();
    let strong = etag.trim_start_matches("W/");
    for known in [&etag, strong, "*", &format!("\"x\", {etag}")] {
        let got = fetch(path, &[("if-none-match", known)]).await;
        assert_eq!(got.status, StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(got.header("etag"), etag);
        assert_eq!(
            got.header("sightline-consistency-token"),
            token().to_string()
        );
        assert_eq!(got.header("cache-control"), "private, no-cache");
        assert!(got.body.is_empty());
    }
    let got = fetch(path, &[("if-none-match", "\"x\"")]).await;
    assert_eq!(got.status, StatusCode::OK);
    let head = send("HEAD", path, &[], "").await;
    assert_eq!(
        (head.status, head.header("etag")),
        (StatusCode::OK, etag.as_str())
    );
}

#[tokio::test]
async fn callers_are_answered_in_time() {
    let begun = Instant::now();
    let got = fetch("/v1/order/things/slow", &[("request-timeout", "0.05")]).await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(got.reason(), "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn without_authentication_only_loopback_is_answered() {
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:8080",
        "127.8.8.8",
        "[::1]",
        "[::1]:8080",
    ] {
        let got = fetch("/v1/version", &[("host", host)]).await;
        assert_eq!(got.status, StatusCode::OK, "{host}");
    }
    for host in [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x@localhost",
        "10.0.0.1",
        "[::2]",
        "[::1",
        "a b",
    ] {
        let got = fetch("/v1/version", &[("host", host)]).await;
        assert_eq!(got.reason(), "HOST_NOT_ALLOWED", "{host}");
    }
    let twice = fetch(
        "/v1/version",
        &[("host", "localhost"), ("host", "evil.example")],
    )
    .await;
    assert_eq!(twice.status, StatusCode::FORBIDDEN);
    let in_uri = fetch("http://evil.example/v1/version", &[("host", "localhost")]).await;
    assert_eq!(in_uri.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn ids_of_request_and_trace_go_in_and_out() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let got = fetch(
        "/v1/version",
        &[("x-request-id", "r-1"), ("traceparent", &parent)],
    )
    .await;
    assert_eq!(got.header("x-request-id"), "r-1");
    assert!(
        got.header("traceparent")
            .starts_with(&format!("00-{trace}-"))
    );
    assert!(got.header("traceparent").ends_with("-01"));
    assert_ne!(got.header("traceparent"), parent);

    let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    for (id, parent) in [
        ("a b", "x"),
        ("<script>", zero.as_str()),
        (&"a".repeat(129), "00-1-1-1"),
    ] {
        let got = fetch(
            "/v1/version",
            &[("x-request-id", id), ("traceparent", parent)],
        )
        .await;
        assert_eq!(got.header("x-request-id").len(), 36);
        assert_eq!(got.header("traceparent").len(), 55);
        assert!(!got.header("traceparent").contains(&"0".repeat(32)));
    }
}

#[tokio::test]
async fn answers_are_compressed_where_asked() {
    for encoding in ["gzip", "zstd"] {
        let got = fetch("/openapi.json", &[("accept-encoding", encoding)]).await;
        assert_eq!(got.header("content-encoding"), encoding);
    }
    assert_eq!(fetch("/openapi.json", &[]).await.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_docs_come_from_here_alone() {
    let page = fetch("/docs/", &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "{html}"
    );
    assert!(
        page.header("content-security-policy")
            .contains("script-src 'self'")
    );
    let settings = fetch("/docs/swagger-initializer.js", &[]).await;
    let script = String::from_utf8(settings.body.to_vec()).unwrap();
    assert!(
        script.contains("/openapi.json") && !script.contains("petstore"),
        "{script}"
    );
    assert!(script.contains(r#""validatorUrl": "none""#), "{script}");
    assert_eq!(fetch("/docs", &[]).await.header("location"), "/docs/");
    assert_eq!(
        fetch("/v1/version", &[])
            .await
            .header("content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'"
    );
}

#[test]
fn every_operation_is_documented() {
    let document = super::openapi::document(Default::default());
    let document = serde_json::to_value(document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 16);
    for operation in paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
    {
        for field in ["operationId", "summary", "description"] {
            assert!(operation[field].is_string(), "{field}: {operation}");
        }
        let responses = operation["responses"].as_object().unwrap();
        for status in ["200", "400", "403", "406", "500", "501", "503", "504"] {
            assert!(responses.contains_key(status), "{status}: {operation}");
        }
        assert!(responses["200"]["content"]["application/json"]["example"].is_object());
    }
    let shared = &document["components"];
    for (name, response) in shared["responses"].as_object().unwrap() {
        let examples = &response["content"]["application/problem+json"]["examples"];
        assert!(
            examples.as_object().is_some_and(|e| !e.is_empty()),
            "{name}"
        );
    }
    let example = shared["headers"]["ConsistencyToken"]["example"]
        .as_str()
        .unwrap();
    assert!(ConsistencyToken::parse(example).is_ok());
}

struct StandIn;

#[tonic::async_trait]
impl OrderService for StandIn {
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
        Err(Error::internal("not asked for").into())
    }

    async fn list_customer_addresses(
        &self,
        _: tonic::Request<pb::ListCustomerAddressesRequest>,
    ) -> Result<tonic::Response<pb::ListCustomerAddressesResponse>, tonic::Status> {
        Err(Error::internal("not asked for").into())
    }

    async fn list_address_changes(
        &self,
        _: tonic::Request<pb::ListAddressChangesRequest>,
    ) -> Result<tonic::Response<pb::ListAddressChangesResponse>, tonic::Status> {
        Err(Error::internal("not asked for").into())
    }
}

fn grpc_parts() -> grpc::Parts {
    grpc::Parts {
        services: Routes::new(OrderServiceServer::new(StandIn)),
        names: vec!["sightline.order.v1.OrderService"],
        domains: domains(),
        lag: lag(),
        operations: operations(),
    }
}

const GET_CUSTOMER: &str = "/sightline.order.v1.OrderService/GetCustomer";

/// The initial headers, the body, and the trailers.
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
    let router = grpc::router(grpc_parts(), Routes::default(), true).unwrap();
    let request = request.body(Body::from(body)).unwrap();
    let response: Result<_, Infallible> = router.oneshot(request).await;
    let (parts, body) = response.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (parts.headers, body.to_bytes(), trailers)
}

fn asking_for(user_id: &str) -> Vec<u8> {
    let user_id = user_id.to_owned();
    pb::GetCustomerRequest { user_id }.encode_to_vec()
}

#[tokio::test]
async fn the_token_is_in_the_trailers() {
    let (headers, body, trailers) = call(GET_CUSTOMER, &[], &asking_for("a/b")).await;
    assert!(!headers.contains_key("sightline-consistency-token"));
    assert!(headers.contains_key("x-request-id") && headers.contains_key("traceparent"));
    assert_eq!(trailers["sightline-consistency-token"], token().to_string());
    assert_eq!(trailers["grpc-status"], "0");
    let answer = pb::GetCustomerResponse::decode(body.slice(5..)).unwrap();
    assert_eq!(answer.customer.unwrap().user_id, "a/b");
}

#[tokio::test]
async fn grpc_refuses_with_the_same_reasons() {
    let too_large = vec![0; 5 * 1024 * 1024];
    for (path, headers, message, code, reason) in [
        (
            GET_CUSTOMER,
            &[][..],
            asking_for("gone"),
            tonic::Code::NotFound,
            "NOT_FOUND",
        ),
        (
            GET_CUSTOMER,
            &[],
            asking_for("panic"),
            tonic::Code::Internal,
            "INTERNAL",
        ),
        (
            GET_CUSTOMER,
            &[("grpc-timeout", "50m")],
            asking_for("slow"),
            tonic::Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        ),
        (
            GET_CUSTOMER,
            &[("grpc-timeout", "soon")],
            asking_for("a"),
            tonic::Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            GET_CUSTOMER,
            &[("sightline-consistency", "latest")],
            asking_for("a"),
            tonic::Code::Unimplemented,
            "CONSISTENCY_UNSUPPORTED",
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
            "/sightline.consistency.v1.ConsistencyService/GetConsistency",
            &[],
            vec![],
            tonic::Code::Unavailable,
            "DATABASE_UNAVAILABLE",
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
    }
    let (headers, _, _) = call(GET_CUSTOMER, &[], &asking_for("gone")).await;
    assert_eq!(headers["sightline-consistency-token"], token().to_string());
}

#[tokio::test]
async fn shutdown_says_so_first_and_finishes_what_was_begun() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(grpc::serve(listener, grpc_parts(), shutdown.clone()));
    let channel = tonic::transport::Endpoint::new(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
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
    shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    drop((watch, health));
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
