//! HTTP/1.1 to a gateway on this network, without TLS: all that the commands need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// How long an answer may take where nothing else is said.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for a path. An address that a server binds to "all" is asked on loopback.
///
/// # Errors
/// No connection, no answer in time, or one that is not HTTP.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    send(address, Method::GET, path, None, TIMEOUT).await
}

/// Asks for a path, or tells it something, and gives the JSON that is answered.
///
/// # Errors
/// As [`get`]; the gateway refuses, and says why.
pub(crate) async fn json(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
    timeout: Duration,
) -> anyhow::Result<Value> {
    let (status, answer) = send(address, method, path, body, timeout).await?;
    let answer: Value = serde_json::from_slice(&answer)
        .with_context(|| format!("{address} answers {status}, and what is no JSON"))?;
    if !status.is_success() {
        let text = |name: &str| answer[name].as_str().unwrap_or("no reason").to_owned();
        bail!("{}: {}", text("reason"), text("detail"));
    }
    Ok(answer)
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
    let what = format!("{method} http://{address}{path}");
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
    // The gateway says by itself that it has no time left.
    tokio::time::timeout(timeout + Duration::from_secs(1), answer)
        .await
        .with_context(|| format!("no answer within {} s", timeout.as_secs()))
        .flatten()
        .context(what)
}
