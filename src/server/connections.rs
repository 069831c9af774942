//! Accepts connections and serves HTTP on them, for all three ports.
//!
//! Promises: nobody holds a connection by sending nothing; a connection does not live for ever, so that
//! callers spread over new instances; on shutdown no new one is taken, and those that are open finish what
//! they have begun.

use std::{io, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::query::deadline;

/// For the first bytes of a connection, and for the head of each HTTP/1 request after the one before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After that long a connection is closed as soon as its calls are done; up to a tenth longer, so that
/// connections opened together do not close together.
const MAX_AGE: Duration = Duration::from_secs(1800);
/// Calls at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// All header fields of a request together.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Sent first by every HTTP/2 client that knows it speaks with one that does.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which versions of HTTP a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1 and HTTP/2 by prior knowledge.
    Both,
    /// HTTP/2 alone: gRPC.
    Http2,
}

/// Serves `router` until `shutdown`, then until the open connections are done. Dropping the future cuts them.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    versions: Versions,
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
                    // The peer's own failure concerns nobody; having no more files does, and passes.
                    if !is_of_peer(&error) {
                        tracing::warn!(kind = ?error.kind(), "no connection can be accepted");
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
    // Refuses new ones at once, instead of letting them wait in the backlog.
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
    router: Router,
    versions: Versions,
    shutdown: CancellationToken,
) {
    // An answer is written at once, not held back for the next.
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
        (Some(false), Versions::Both) => builder.http1_only(),
        _ => return,
    };
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let age = MAX_AGE + MAX_AGE.mul_f64(fastrand::f64() / 10.0);
    // How a connection ends is the peer's affair.
    tokio::select! {
        _ = &mut connection => return,
        () = shutdown.cancelled() => {}
        () = sleep(age) => {}
    }
    connection.as_mut().graceful_shutdown();
    // No call takes longer than its deadline.
    let _ = timeout(deadline::MAX, connection).await;
}

/// Looks at the first bytes without taking them. None: too few came in time.
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
        // What was peeked at stays, so that the stream reads as ready: wait for more by the clock.
        timeout_at(end, sleep(Duration::from_millis(5)))
            .await
            .ok()?;
    }
}
