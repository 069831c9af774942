//! Accepts connections and serves HTTP on them, for all three ports.
//!
//! A client that sends nothing is disconnected, and so is one that takes nothing of its answer. A
//! connection has a maximum age, so that callers spread over new instances. On shutdown the port
//! accepts no new connections, and open ones finish the calls that have begun.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use crate::query::deadline;
use crate::query::watch::Closing;

/// How long a client may take for the first bytes of a connection, and for the head of each HTTP/1
/// request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take nothing of an answer that is sent to it: the rest of it waits in memory.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval of HTTP/2 keepalive pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a peer may take to acknowledge a keepalive ping; after that its connection is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The age at which a connection takes no more calls and closes after its last one. A random share
/// of up to 10 % is added, so that connections opened together do not close together.
const MAX_AGE: Duration = Duration::from_secs(1800);
/// Concurrent calls on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// The size of all header fields of a request together.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The first bytes that an HTTP/2 client with prior knowledge sends.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The versions of HTTP that a port accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/1.1 and HTTP/2 by prior knowledge.
    Both,
    /// HTTP/2 by prior knowledge, for gRPC. A request of HTTP/1.1 is refused with 505.
    Http2,
}

/// Serves `router` until `shutdown`, then waits for the open connections to finish. Dropping the
/// future closes them at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    versions: HttpVersions,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // A peer that resets its connection is normal. Other errors, such as too many
                    // open files, concern the process and may pass: try again after a pause.
                    if !is_of_peer(&error) {
                        tracing::warn!(kind = ?error.kind(), "cannot accept connections, trying again in 1 s");
                        sleep(Duration::from_secs(1)).await;
                    }
                    continue;
                }
            },
        };
        connections.spawn(connection(
            stream,
            router.clone(),
            versions,
            shutdown.clone(),
        ));
    }
    // The kernel then refuses new connections at once instead of queueing them in the backlog.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

async fn connection(
    stream: TcpStream,
    mut router: Router,
    versions: HttpVersions,
    shutdown: CancellationToken,
) {
    // Nagle's algorithm would delay small responses.
    let _ = stream.set_nodelay(true);
    let http2 = tokio::select! {
        () = shutdown.cancelled() => return,
        http2 = speaks_http2(&stream) => http2,
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    let builder = match (http2, versions) {
        (Some(true), _) => builder.http2_only(),
        (Some(false), HttpVersions::Both) => builder.http1_only(),
        (Some(false), HttpVersions::Http2) => {
            // Nothing but this answer, then the connection is closed.
            builder.http1().keep_alive(false);
            router = Router::new().fallback(http2_required);
            builder.http1_only()
        }
        (None, _) => return,
    };
    let closing = Closing::default();
    // The guard ends the streams of a connection that is dropped.
    let _closing = closing.0.clone().drop_guard();
    let service = ServiceBuilder::new()
        .map_request({
            let closing = closing.clone();
            move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(closing.clone());
                request
            }
        })
        .service(router);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let stream = TokioIo::new(Box::pin(stream));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
    tokio::pin!(connection);
    let age = MAX_AGE + MAX_AGE.mul_f64(fastrand::f64() / 10.0);
    // An error ends this connection only, and the peer sees it: it is not logged.
    tokio::select! {
        _ = &mut connection => return,
        () = shutdown.cancelled() => {}
        () = sleep(age) => {}
    }
    closing.0.cancel();
    connection.as_mut().graceful_shutdown();
    // No call takes longer than the greatest deadline.
    let _ = timeout(deadline::MAX, connection).await;
}

/// The answer to a request of HTTP/1 on the port of gRPC.
async fn http2_required() -> (StatusCode, &'static str) {
    let text = "This port speaks gRPC, over HTTP/2 by prior knowledge. REST has a port of its own (SIGHTLINE_HTTP_ADDR).\n";
    (StatusCode::HTTP_VERSION_NOT_SUPPORTED, text)
}

/// Peeks at the first bytes of a connection for the HTTP/2 preface. `None`: the client sent too few
/// bytes in time, or closed the connection.
async fn speaks_http2(stream: &TcpStream) -> Option<bool> {
    let end = Instant::now() + HEAD_TIMEOUT;
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let length = timeout_at(end, stream.peek(&mut first)).await.ok()?.ok()?;
        if length == 0 {
            return None;
        }
        if first[..length] != HTTP2_PREFACE[..length] {
            return Some(false);
        }
        if length == first.len() {
            return Some(true);
        }
        // Peeked bytes stay in the socket, which therefore is always readable: wait by time
        // instead.
        timeout_at(end, sleep(Duration::from_millis(5)))
            .await
            .ok()?;
    }
}
