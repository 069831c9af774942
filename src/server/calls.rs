//! The ids of a call, the span of its log lines, and its metrics.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use metrics::{Counter, Gauge, Histogram};
use tracing::Instrument;

use super::surface::{GRPC_STATUS, Surface};
use crate::{proto, telemetry};

/// The id of a request, given by the caller or made here. Log lines of the call carry it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The ids of a call.
pub struct CallIds {
    request: String,
    trace: String,
    traceparent: String,
}

impl CallIds {
    /// The ids that the caller has given, or new ones.
    pub fn of(headers: &HeaderMap) -> Self {
        let request = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_request_id(id))
            .map_or_else(|| uuid::Uuid::now_v7().to_string(), String::from);
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(parent), None) => parent.to_str().ok().and_then(parse_traceparent),
            // A header that is given twice is not a parent.
            _ => None,
        };
        let (trace, flags) = match parent {
            Some((trace, flags)) => (trace.to_owned(), flags),
            None => (format!("{:032x}", fastrand::u128(1..)), 0),
        };
        let span = fastrand::u64(1..);
        Self {
            traceparent: format!("00-{trace}-{span:016x}-{flags:02x}"),
            request,
            trace,
        }
    }

    /// Returns them to the caller.
    pub fn add_to(self, headers: &mut HeaderMap) {
        for (name, value) in [(REQUEST_ID, self.request), (TRACEPARENT, self.traceparent)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whether an id of the caller is safe in a log line and in the response's header.
fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The trace id and the flags of a W3C `traceparent`. Version 00 has four fields; a later one
/// begins with the same four, and `ff` is not a version. Of the flags, those that are defined
/// (sampled, random) are kept: a `traceparent` of version 00 must not have others.
fn parse_traceparent(value: &str) -> Option<(&str, u8)> {
    const KNOWN_FLAGS: u8 = 0b11;
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |text: &str, length| is_hex(text, length) && text.bytes().any(|b| b != b'0');
    let mut fields = value.splitn(5, '-');
    let version = fields.next()?;
    let (trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let is_version = is_hex(version, 2) && version != "ff";
    let has_more = fields.next().is_some();
    let is_valid = is_version
        && is_id(trace, 32)
        && is_id(span, 16)
        && is_hex(flags, 2)
        && !(version == "00" && has_more);
    let flags = u8::from_str_radix(flags, 16).ok()? & KNOWN_FLAGS;
    is_valid.then_some((trace, flags))
}

/// The label `route` of metrics: the path of a gRPC method, or the template of a route. Anything else is unknown, so that
/// callers can't add labels.
pub enum Route {
    /// A known gRPC method.
    Method(&'static str),
    /// A route of REST.
    Template(MatchedPath),
    /// Neither.
    Unknown,
}

impl Route {
    /// The route of a request, which may be of this method of gRPC.
    pub fn of(method: Option<proto::Method>, request: &Request) -> Self {
        match (method, request.extensions().get()) {
            (Some(method), _) => Self::Method(method.path),
            (None, Some(template)) => Self::Template(MatchedPath::clone(template)),
            (None, None) => Self::Unknown,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Method(path) => path,
            Self::Template(template) => template.as_str(),
            Self::Unknown => "unknown",
        }
    }
}

/// The metrics of the calls of a surface.
pub struct CallMetrics {
    surface: Surface,
    in_flight: Gauge,
    routes: RwLock<HashMap<String, RouteMetrics>>,
}

/// The metrics of a route, which would otherwise be looked up by their labels for each call.
#[derive(Clone)]
struct RouteMetrics {
    seconds: Histogram,
    succeeded: Counter,
}

impl CallMetrics {
    /// Metrics of a surface, in the recorder that is installed.
    pub fn new(surface: Surface) -> Arc<Self> {
        let protocol = surface.label();
        Arc::new(Self {
            surface,
            in_flight: metrics::gauge!(telemetry::REQUESTS_IN_FLIGHT, "protocol" => protocol),
            routes: RwLock::default(),
        })
    }

    /// Answers a call within a span, and measures it.
    pub async fn observe(
        &self,
        route: Route,
        ids: &CallIds,
        answer: impl Future<Output = Response>,
    ) -> Response {
        let route = route.as_str();
        let span = tracing::info_span!(
            "call",
            protocol = self.surface.label(),
            route,
            request_id = ids.request,
            trace_id = ids.trace,
        );
        let _in_flight = InFlight::begin(&self.in_flight);
        let begun = Instant::now();
        let response = answer.instrument(span.clone()).await;
        let seconds = begun.elapsed().as_secs_f64();
        let code = code(self.surface, &response);
        span.in_scope(|| tracing::debug!(code = &*code, seconds, "answered"));
        let metrics = self.of_route(route);
        metrics.seconds.record(seconds);
        match code {
            Cow::Borrowed(_) => metrics.succeeded.increment(1),
            Cow::Owned(code) => self.answered(route, code).increment(1),
        }
        response
    }

    fn of_route(&self, route: &str) -> RouteMetrics {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = known.get(route) {
            return metrics.clone();
        }
        drop(known);
        let protocol = self.surface.label();
        let metrics = RouteMetrics {
            seconds: metrics::histogram!(telemetry::REQUEST_SECONDS, "protocol" => protocol, "route" => route.to_owned()),
            succeeded: self.answered(route, self.surface.success().to_owned()),
        };
        let mut known = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(route.to_owned(), metrics.clone());
        metrics
    }

    fn answered(&self, route: &str, code: String) -> Counter {
        let protocol = self.surface.label();
        metrics::counter!(telemetry::REQUESTS, "protocol" => protocol, "route" => route.to_owned(), "code" => code)
    }
}

/// Counts a call as in flight until it is dropped, which also happens when the caller disconnects.
struct InFlight<'m>(&'m Gauge);

impl<'m> InFlight<'m> {
    fn begin(gauge: &'m Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The code of a response; borrowed if it is that of success.
fn code(surface: Surface, response: &Response) -> Cow<'static, str> {
    match (surface, response.headers().get(GRPC_STATUS)) {
        (Surface::Grpc, Some(status)) => {
            format!("{:?}", tonic::Code::from_bytes(status.as_bytes())).into()
        }
        // The headers carry a status only in an error; with a message the status is in the
        // trailers.
        (Surface::Grpc, None) => surface.success().into(),
        (Surface::Rest, _) if response.status() == StatusCode::OK => surface.success().into(),
        (Surface::Rest, _) => response.status().as_str().to_owned().into(),
    }
}
