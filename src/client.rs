//! The HTTP client of the commands: one request per connection to a gateway, by HTTP/1.1 without
//! TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// How long a read may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a GET request and returns the status and the body. If `address` is unspecified (`0.0.0.0`,
/// `::`), as in a setting that binds all interfaces, the request goes to loopback.
///
/// # Errors
/// The connection fails, the response is not HTTP, or it does not arrive in time.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let response = send(address, Method::GET, path, None, TIMEOUT).await?;
    Ok((response.status(), response.into_body()))
}

/// Whether nothing listens at the address.
pub(crate) fn is_refused(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// Sends a request with an optional JSON body and returns the response. The gateway has `timeout` to answer.
///
/// # Errors
/// Those of [`get`].
pub(crate) async fn send(
    mut address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
    timeout: Duration,
) -> anyhow::Result<Response<Bytes>> {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let request_line = format!("{method} http://{address}{path}");
    let answer = async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header("request-timeout", timeout.as_secs().to_string())
            .body(Full::new(Bytes::from(body)))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        anyhow::Ok(Response::from_parts(head, body))
    };
    // The gateway itself answers DEADLINE_EXCEEDED at the timeout, which says more: leave it time
    // for that.
    tokio::time::timeout(timeout + Duration::from_secs(1), answer)
        .await
        .with_context(|| format!("no response within {} s", timeout.as_secs()))
        .flatten()
        .context(request_line)
}
