//! The HTTP client of the commands: one request per connection to a gateway, by HTTP/1.1 without
//! TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
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
    send(address, Method::GET, path, None, TIMEOUT).await
}

/// Sends a request with an optional JSON body and returns the JSON of a successful response. The
/// gateway has `timeout` to answer.
///
/// # Errors
/// Those of [`get`], a response that is not JSON, and one without success: then `reason: detail` of
/// its problem.
pub(crate) async fn json(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
    timeout: Duration,
) -> anyhow::Result<Value> {
    let (status, answer) = match send(address, method, path, body, timeout).await {
        Err(error) if is_refused(&error) => {
            bail!(
                "{error:#}: no gateway listens there. Start one, or name the address of one with --http-addr"
            )
        }
        sent => sent?,
    };
    let answer: Value = serde_json::from_slice(&answer).map_err(|_| {
        let said = first_line(&answer);
        anyhow!("{address} responded with {status} and a body that is not JSON: {said}")
    })?;
    if !status.is_success() {
        let text = |name: &str| answer[name].as_str().unwrap_or("unknown").to_owned();
        bail!("{}: {}", text("reason"), text("detail"));
    }
    Ok(answer)
}

/// Whether nothing listens at the address.
pub(crate) fn is_refused(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// The beginning of a body, as a terminal can show it.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(1_000)]);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

async fn send(
    mut address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
    timeout: Duration,
) -> anyhow::Result<(StatusCode, Bytes)> {
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
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    // The gateway itself answers DEADLINE_EXCEEDED at the timeout, which says more: leave it time
    // for that.
    tokio::time::timeout(timeout + Duration::from_secs(1), answer)
        .await
        .with_context(|| format!("no response within {} s", timeout.as_secs()))
        .flatten()
        .context(request_line)
}
