//! One HTTP/1.1 GET to a gateway on this network, without TLS: all that the commands need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for a path, within five seconds. An address that a server binds to "all" is asked on loopback.
///
/// # Errors
/// No connection, no answer in time, or one that is not HTTP.
pub(crate) async fn get(
    mut address: SocketAddr,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let answer = async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::time::timeout(TIMEOUT, answer)
        .await
        .context("no answer within 5 s")
        .flatten()
        .with_context(|| format!("GET http://{address}{path}"))
}
