//! What every call on either surface passes, in this order from the outside in. The first part is around all routes and
//! fallbacks ([`apply`]):
//!
//! 1. headers that forbid scripts, and a refusal of gRPC (REST)
//! 2. the ids of request and trace are read or made, and returned
//! 3. a span and metrics, labelled by the route's template; never by path, query or ids
//! 4. errors of the libraries get a reason
//! 5. a panic becomes a 500 without internals
//! 6. other hosts than loopback are refused on a loopback listener
//! 7. calls above the concurrency limit are refused instead of queued
//! 8. the call is answered within the caller's deadline
//!
//! The rest is around the routes only ([`apply_to_rest_routes`], [`apply_to_grpc_routes`]), so that a path or method that does
//! not exist is refused as such, whatever else is wrong with the call:
//!
//! 9. compression (REST; gRPC compresses each message itself)
//! 10. a POST (REST) is taken only as JSON, which a page of another site can't send, and only uncompressed (gRPC decompresses
//!     each message itself); a GET only with query parameters that its path has
//! 11. a read that demands a consistency waits for it, and is run again (`waits.rs`)
//! 12. If-None-Match is answered (REST)
//! 13. what the answer says of itself moves into the trailers (gRPC)
//!
//! Each part is one middleware, because each middleware costs a call two allocations and a move of its future.

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, StreamExt, stream};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutBody;

use super::calls::{CallIds, CallMetrics, Route};
use super::docs;
use super::parameters::QueryParameters;
use super::surface::{GRPC_STATUS, Surface, overloaded};
use super::waits::Waits;
use crate::error::{Code, Error, POSITION_HEADERS, PROBLEM_JSON};
use crate::proto;
use crate::query::consistency::Demand;
use crate::query::deadline;
use crate::query::permit::CallPermit;
use crate::query::watch::Closing;

/// Concurrent calls on one surface. Reads are short, so that more calls mean that something is
/// slow.
const MAX_CALLS: usize = 1024;
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Puts around each route of REST what its calls pass last. The caller adds the fallbacks afterwards.
pub fn apply_to_rest_routes(router: Router, waits: Waits, parameters: QueryParameters) -> Router {
    let passage = Arc::new((waits, parameters));
    router.layer(
        ServiceBuilder::new()
            .layer(CompressionLayer::new())
            .layer(from_fn_with_state(passage, pass_rest_route)),
    )
}

/// Puts around each method of gRPC what its calls pass last. The caller adds the fallbacks afterwards.
pub fn apply_to_grpc_routes(router: Router, waits: Waits) -> Router {
    router.layer(from_fn_with_state(Arc::new(waits), pass_grpc_route))
}

async fn pass_rest_route(
    State(passage): State<Arc<(Waits, QueryParameters)>>,
    request: Request,
    next: Next,
) -> Response {
    let (waits, parameters) = &*passage;
    // Before the call, which may have an effect.
    if takes_no_encoding(request.headers()).await {
        return not_acceptable().into_response();
    }
    if let Some(refusal) = refuse_media_type(&request) {
        return refusal;
    }
    if let Err(error) = parameters.check(&request) {
        return error.into_response();
    }
    let known = known_etags(&request);
    not_modified(waits.answer(request, next).await, &known)
}

async fn pass_grpc_route(
    State(waits): State<Arc<Waits>>,
    request: Request,
    next: Next,
) -> Response {
    // Answers of reflection and health are not read from a view, and an unknown method has none.
    let Some(method) = proto::method(request.uri().path()) else {
        return answer_until_closing(request, next).await;
    };
    let response = waits.answer(request, next).await;
    // What a stream says of itself is true of its beginning, and its caller would wait for trailers.
    if method.streams {
        return response;
    }
    trail_position(response)
}

/// Answers a call of health or reflection, and ends its stream when the connection takes no more calls: a process that stops
/// waits for open streams, and callers of these two keep them open.
async fn answer_until_closing(request: Request, next: Next) -> Response {
    let Some(Closing(closing)) = request.extensions().get::<Closing>().cloned() else {
        return next.run(request).await;
    };
    let until_closing = |body| BodyStream::new(body).take_until(closing.cancelled_owned());
    // The service ends its answers after the caller's last question.
    if request.uri().path().starts_with("/grpc.reflection.") {
        let request = request.map(|body| Body::new(StreamBody::new(until_closing(body))));
        return next.run(request).await;
    }
    let response = next.run(request).await;
    // A refusal has its status in the headers, and no trailers.
    if response.headers().contains_key(GRPC_STATUS) {
        return response;
    }
    response.map(|body| {
        let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
        // hyper sends nothing after trailers, which the service writes if it ends the stream itself.
        let end = stream::once(ready(Ok(Frame::trailers(trailers))));
        Body::new(StreamBody::new(until_closing(body).chain(end)))
    })
}

/// Puts around all routes and fallbacks of `router` what every call passes first. With
/// `loopback_only`, calls that name another host are refused.
pub fn apply(router: Router, surface: Surface, loopback_only: bool) -> Router {
    let gate = Gate {
        surface,
        loopback_only,
        permits: Arc::new(Semaphore::new(MAX_CALLS)),
        metrics: CallMetrics::new(surface),
    };
    match surface {
        Surface::Rest => router.layer(from_fn_with_state(gate, pass_rest)),
        Surface::Grpc => router.layer(from_fn_with_state(gate, pass)),
    }
}

/// What decides whether a call is taken.
#[derive(Clone)]
struct Gate {
    surface: Surface,
    loopback_only: bool,
    permits: Arc<Semaphore>,
    metrics: Arc<CallMetrics>,
}

impl Gate {
    /// A permit for a call, and how long it may take.
    fn admit(&self, request: &Request) -> Result<(CallPermit, Duration), Error> {
        check_host(self.loopback_only, request)?;
        let permit = CallPermit::take(&self.permits).ok_or_else(overloaded)?;
        let path = request.uri().path();
        let wait = Demand::longest_wait(request.headers());
        let time = match self.surface {
            Surface::Grpc => deadline::of_grpc(request.headers(), path, wait)?,
            Surface::Rest => deadline::of_rest(request.headers(), path, wait)?,
        };
        Ok((permit, time))
    }

    async fn answer(&self, request: Request, next: Next) -> Response {
        let admitted = self.admit(&request);
        let answer = match admitted {
            Ok((permit, time)) => {
                let request = match self.surface {
                    Surface::Rest => request,
                    Surface::Grpc => {
                        request.map(|body| Body::new(TimeoutBody::new(deadline::RECEIVE, body)))
                    }
                };
                // Boxed, because each future around it would hold its size twice, for as long as the call waits.
                let call = permit.run(Box::pin(next.run(request)));
                let answer = deadline::keep(time, call).await;
                answer.ok_or_else(Error::deadline_exceeded)
            }
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| self.surface.refuse(error))
    }
}

/// Forbids scripts in every response of REST but the page of `/docs`, which runs its own. Refuses gRPC.
async fn pass_rest(gate: State<Gate>, request: Request, next: Next) -> Response {
    let policy = if request.uri().path().starts_with("/docs/") {
        docs::CONTENT_SECURITY_POLICY
    } else {
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")
    };
    let mut response = match refuse_grpc(&request) {
        Some(refusal) => refusal,
        None => pass(gate, request, next).await,
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

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let surface = gate.surface;
    let ids = CallIds::of(request.headers());
    let path = request.uri().path();
    let is_ours = path.starts_with("/sightline.");
    let method = proto::method(path);
    let route = Route::of(method, &request);
    let metrics = Arc::clone(&gate.metrics);
    // Boxed, as in `Gate::answer`.
    let answered = Box::pin(async {
        let answered = AssertUnwindSafe(gate.answer(request, next)).catch_unwind();
        let response = answered
            .await
            .unwrap_or_else(|_| surface.refuse(Error::internal("a handler panicked")));
        match surface {
            Surface::Rest => explain_rest(response),
            Surface::Grpc if is_ours => explain_grpc(response, method.is_some()),
            Surface::Grpc => response,
        }
    });
    let mut response = metrics.observe(route, &ids, answered).await;
    ids.add_to(response.headers_mut());
    response
}

/// Gives an error of the router or an extractor, which has no problem document, a reason.
fn explain_rest(response: Response) -> Response {
    let status = response.status();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|media_type| media_type == PROBLEM_JSON);
    if !(status.is_client_error() || status.is_server_error()) || is_problem {
        return response;
    }
    let error = match status {
        StatusCode::NOT_ACCEPTABLE => not_acceptable(),
        StatusCode::PAYLOAD_TOO_LARGE => Error::payload_too_large(),
        status if status.is_client_error() => Error::invalid("request", "is malformed"),
        _ => Error::internal("a library returned an error response"),
    };
    error.into_response()
}

/// Gives a refusal of tonic itself, made before a method of ours is called, a reason. tonic's messages
/// describe its internals.
fn explain_grpc(response: Response, is_method: bool) -> Response {
    let headers = response.headers();
    let Some(status) = headers.get(GRPC_STATUS) else {
        return response;
    };
    if headers.contains_key(GRPC_DETAILS) {
        return response;
    }
    let error = match tonic::Code::from_bytes(status.as_bytes()) {
        tonic::Code::Unimplemented if !is_method => unknown_path(Surface::Grpc),
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Error::payload_too_large(),
        tonic::Code::Internal | tonic::Code::InvalidArgument => {
            Error::invalid("request", "is not a valid message of this method")
        }
        tonic::Code::Unimplemented if headers.contains_key(GRPC_ACCEPT_ENCODING) => {
            unsupported_message_encoding()
        }
        _ => return response,
    };
    let mut explained = Surface::Grpc.refuse(error);
    // The encodings that are supported.
    if let Some(accepted) = headers.get(GRPC_ACCEPT_ENCODING) {
        let accepted = accepted.clone();
        explained
            .headers_mut()
            .insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    explained
}

/// The refusal of a path or method that does not exist.
pub(super) fn unknown_path(surface: Surface) -> Error {
    Error::new(
        Code::UnknownPath,
        match surface {
            Surface::Grpc => "This method does not exist. Reflection lists those that do.",
            Surface::Rest => "This path does not exist. /openapi.json lists those that do.",
        },
    )
}

/// The refusal of a gRPC call to a port that does not speak gRPC, as a gRPC status: of any other response a client prints only
/// that it is not gRPC.
pub(super) fn refuse_grpc(request: &Request) -> Option<Response> {
    let media_type = request.headers().get(header::CONTENT_TYPE)?;
    let rest = media_type.as_bytes().strip_prefix(b"application/grpc")?;
    if !matches!(rest.first(), None | Some(b'+' | b';')) {
        return None;
    }
    Some(Surface::Grpc.refuse(Error::new(
        Code::UnknownPath,
        "This port does not speak gRPC, which has a port of its own (SIGHTLINE_GRPC_ADDR).",
    )))
}

/// The refusal of a method that a path does not have. The router adds the header Allow.
pub(super) fn method_not_allowed() -> Error {
    Error::new(
        Code::MethodNotAllowed,
        "This path does not support the method. The header Allow lists the supported ones.",
    )
}

pub(super) fn not_acceptable() -> Error {
    Error::new(
        Code::NotAcceptable,
        "Accept-Encoding excludes every supported encoding: identity, gzip and zstd.",
    )
}

pub(super) fn host_not_allowed() -> Error {
    Error::new(
        Code::HostNotAllowed,
        "This port has no authentication and answers only calls to loopback: use localhost, 127.0.0.1 or [::1].",
    )
}

pub(super) fn unsupported_media_type() -> Error {
    Error::new(
        Code::UnsupportedMediaType,
        "A POST needs the header Content-Type: application/json, even without a body.",
    )
}

fn unsupported_encoding() -> Error {
    Error::new(
        Code::UnsupportedMediaType,
        "The body must not be compressed: send it without Content-Encoding.",
    )
}

fn unsupported_message_encoding() -> Error {
    Error::new(
        Code::UnsupportedMediaType,
        "The message's encoding is not supported. The metadata grpc-accept-encoding lists those that are.",
    )
}

/// On a listener of loopback only, refuses a call that names another host. A web page can make a name of its own resolve to
/// loopback (DNS rebinding), but its requests still carry that name.
pub(super) fn check_host(loopback_only: bool, request: &Request) -> Result<(), Error> {
    if loopback_only && !names_loopback(request) {
        return Err(host_not_allowed());
    }
    Ok(())
}

/// Whether the URI and the header Host name loopback, both where both are given, and Host at most
/// once.
fn names_loopback(request: &Request) -> bool {
    let in_uri = request.uri().authority().map(Authority::as_str);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let in_header = hosts.next().map(|host| host.to_str().unwrap_or_default());
    if hosts.next().is_some() || (in_uri.is_none() && in_header.is_none()) {
        return false;
    }
    [in_uri, in_header].into_iter().flatten().all(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let ip = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    !host.contains('@')
        && (name.eq_ignore_ascii_case("localhost")
            || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()))
}

/// Whether the caller takes none of the encodings in which an answer can be sent. The layer that encodes answers says so
/// itself, but only when it has one.
async fn takes_no_encoding(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING);
    // A list without weights refuses no encoding.
    if !accepted.iter().any(|list| list.as_bytes().contains(&b';')) {
        return false;
    }
    let mut request = Request::new(Body::empty());
    for list in accepted {
        request
            .headers_mut()
            .append(header::ACCEPT_ENCODING, list.clone());
    }
    let empty = service_fn(|_: Request| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let Ok(answer) = CompressionLayer::new().layer(empty).oneshot(request).await;
    answer.status() == StatusCode::NOT_ACCEPTABLE
}

/// The refusal of a POST that is not JSON, or compressed.
fn refuse_media_type(request: &Request) -> Option<Response> {
    if *request.method() != Method::POST {
        return None;
    }
    if !is_json(request.headers()) {
        return Some(unsupported_media_type().into_response());
    }
    if !is_encoded(request.headers()) {
        return None;
    }
    let mut refusal = unsupported_encoding().into_response();
    let accepted = HeaderValue::from_static("identity");
    refusal
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, accepted);
    Some(refusal)
}

/// Whether the body is compressed, or encoded in any other way.
fn is_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    encodings.iter().any(|encoding| {
        let names = encoding.as_bytes().split(|b| *b == b',');
        let mut names = names
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty());
        names.any(|name| !name.eq_ignore_ascii_case(b"identity"))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|media_type| media_type.to_str().ok())
        .and_then(|media_type| media_type.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// The ETags of answers that the caller of a read has.
fn known_etags(request: &Request) -> Vec<HeaderValue> {
    match *request.method() {
        Method::GET | Method::HEAD => request
            .headers()
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .cloned()
            .collect(),
        _ => Vec::new(),
    }
}

/// The response without its body, if the caller has it.
fn not_modified(mut response: Response, known: &[HeaderValue]) -> Response {
    let matches = response.status() == StatusCode::OK
        && response.headers().get(header::ETAG).is_some_and(|etag| {
            known
                .iter()
                .any(|known| names_etag(known.as_bytes(), etag.as_bytes()))
        });
    if matches {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Whether the list of an If-None-Match contains the ETag, by weak comparison. Splitting at commas
/// is enough, because our ETags contain none.
fn names_etag(list: &[u8], etag: &[u8]) -> bool {
    let opaque = |tag: &'_ [u8]| {
        tag.strip_prefix(b"W/")
            .map(<[u8]>::to_vec)
            .unwrap_or(tag.to_vec())
    };
    list.split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .any(|known| known == b"*" || opaque(known) == opaque(etag))
}

/// Moves what the answer says of itself, which tonic sends with the headers, into the trailers. An
/// error has headers only, and it stays there.
fn trail_position(mut response: Response) -> Response {
    if response.headers().contains_key(GRPC_STATUS) {
        return response;
    }
    let headers = response.headers_mut();
    let position = POSITION_HEADERS.map(|name| (headers.remove(&name), name));
    if position.iter().all(|(value, _)| value.is_none()) {
        return response;
    }
    response.map(|body| {
        Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                for (value, name) in &position {
                    if let Some(value) = value {
                        trailers.insert(name, value.clone());
                    }
                }
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}
