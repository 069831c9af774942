//! REST through the layers: paths, refusals, conditional requests, deadlines, hosts, ids,
//! compression.

use std::time::{Duration, Instant};

use ::http::{HeaderMap, Request, StatusCode};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{domains, find, lag, operations, reads, token};
use crate::error::Error;
use crate::query::Answer;
use crate::query::rest::{Json, Path};
use crate::server::http;

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
        position: token().into(),
    }
}

pub(super) fn router() -> Router {
    let parts = http::Parts {
        routes: OpenApiRouter::new()
            .routes(routes!(get_thing))
            .routes(routes!(get_things)),
        reads: reads(),
        domains: domains(),
        lag: lag(),
        operations: operations(),
    };
    http::router(parts, true).unwrap()
}

pub(super) struct Got {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The reason of the response, which must be a problem.
    fn reason(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        json["reason"].as_str().unwrap().to_owned()
    }
}

async fn send(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Got {
    send_to(router(), method, path, headers, body).await
}

pub(super) async fn send_to(
    router: Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Got {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).unwrap();
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    Got {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub(super) async fn fetch(path: &str, headers: &[(&str, &str)]) -> Got {
    send("GET", path, headers, "").await
}

const THINGS: &str = "/v1/order/things:batchGet";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn ids_in_paths_are_percent_decoded() {
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
async fn every_refusal_has_a_reason() {
    for (method, path, headers, status, reason) in [
        ("GET", "/v1/orders", &[][..], 404, "UNKNOWN_PATH"),
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
            "/v1/consistency/audit",
            &[("accept-encoding", "identity;q=0")],
            406,
            "NOT_ACCEPTABLE",
        ),
        (
            "GET",
            "/v1/order/things/a",
            &[("sightline-consistency", "latest")],
            503,
            "KAFKA_UNAVAILABLE",
        ),
        (
            "GET",
            "/v1/version",
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
async fn calls_for_another_port_are_answered_with_its_setting() {
    for path in ["/metrics", "/readyz", "/healthz", "/livez"] {
        let got = fetch(path, &[]).await;
        assert_eq!(got.reason(), "UNKNOWN_PATH", "{path}");
        let detail = got.json()["detail"].to_string();
        assert!(detail.contains("SIGHTLINE_ADMIN_ADDR"), "{detail}");
    }
    for media_type in ["application/grpc", "application/grpc+proto"] {
        let headers = [("content-type", media_type)];
        let path = "/sightline.order.v1.OrderService/GetCustomer";
        let got = send("POST", path, &headers, "").await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(got.header("grpc-status"), "12", "{media_type}");
        let message = got.header("grpc-message");
        assert!(message.contains("SIGHTLINE_GRPC_ADDR"), "{message}");
    }
}

#[tokio::test]
async fn a_current_etag_is_answered_with_304() {
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
async fn a_slow_call_is_answered_at_its_deadline() {
    let begun = Instant::now();
    let got = fetch("/v1/order/things/slow", &[("request-timeout", "0.05")]).await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(got.reason(), "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn only_calls_to_loopback_are_answered() {
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
async fn ids_of_request_and_trace_are_returned() {
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
async fn a_traceparent_is_read_as_w3c_says() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ids = format!("{trace}-00f067aa0ba902b7");
    let answered = async |parents: &[&str]| {
        let headers: Vec<_> = parents.iter().map(|p| ("traceparent", *p)).collect();
        let got = fetch("/v1/version", &headers).await;
        let out = got.header("traceparent").to_owned();
        assert!(out.starts_with("00-") && out.len() == 55, "{out}");
        out
    };
    for (parent, flags) in [
        (format!("00-{ids}-01"), "01"),
        (format!("00-{ids}-00"), "00"),
        // Flags without a meaning are not passed on.
        (format!("00-{ids}-ff"), "03"),
        // Of a later version, the first four fields are read.
        (format!("01-{ids}-01"), "01"),
        (format!("cc-{ids}-01-what-the-future-will-be-like"), "01"),
        (format!("cc-{ids}-01-"), "01"),
        (format!("fe-{ids}-09-x"), "01"),
    ] {
        let out = answered(&[&parent]).await;
        assert_eq!((&out[3..35], &out[53..]), (trace, flags), "{parent}");
    }
    let zeros = "0".repeat(32);
    for parent in [
        format!("ff-{ids}-01"),
        format!("00-{ids}-01-what"),
        format!("00-{ids}-01-"),
        format!("00-{ids}"),
        format!("00-{ids}-1"),
        format!("00-{ids}-001"),
        format!("00-{ids}-0G"),
        format!("0-{ids}-01"),
        format!("CC-{ids}-01"),
        format!("cc-{ids}-01what"),
        format!("cc-{ids}-01.what"),
        format!("00-{}-01", ids.to_uppercase()),
        format!("00-{zeros}-00f067aa0ba902b7-01"),
        format!("00-{trace}-0000000000000000-01"),
        format!("01-{zeros}-00f067aa0ba902b7-01"),
        format!("00-{}-00f067aa0ba902b7-01", &trace[1..]),
        "00-\u{e9}".into(),
        String::new(),
    ] {
        let out = answered(&[&parent]).await;
        assert!(!out.contains(trace) && out.ends_with("-00"), "{parent}");
        assert!(!out.contains(&zeros), "{parent}");
    }
    let parent = format!("00-{ids}-01");
    assert!(!answered(&[&parent, &parent]).await.contains(trace));
}

#[tokio::test]
async fn compressed_bodies_are_refused() {
    let good = r#"{"ids":["a"]}"#;
    for encodings in [
        &["gzip"][..],
        &["GZIP"],
        &["zstd"],
        &["br"],
        &["identity, gzip"],
        &["identity", "deflate"],
        &["unheard"],
    ] {
        let encodings = encodings.iter().map(|name| ("content-encoding", *name));
        let headers: Vec<_> = encodings.chain([JSON]).collect();
        let got = send("POST", THINGS, &headers, good).await;
        assert_eq!(got.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(got.reason(), "UNSUPPORTED_MEDIA_TYPE");
        assert!(
            got.json()["detail"]
                .as_str()
                .unwrap()
                .contains("compressed")
        );
        assert_eq!(got.header("accept-encoding"), "identity");
    }
    for encoding in ["identity", "Identity", ""] {
        let headers = [("content-encoding", encoding), JSON];
        let got = send("POST", THINGS, &headers, good).await;
        assert_eq!(got.status, StatusCode::OK, "{encoding}");
    }
}

#[tokio::test]
async fn answers_are_compressed_on_request() {
    for encoding in ["gzip", "zstd"] {
        let got = fetch("/openapi.json", &[("accept-encoding", encoding)]).await;
        assert_eq!(got.header("content-encoding"), encoding);
    }
    assert_eq!(fetch("/openapi.json", &[]).await.json()["openapi"], "3.1.0");
}
