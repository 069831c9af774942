//! `sightline healthcheck`: reports whether a gateway is ready, for containers without curl.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::{client, output};

/// Requests `/readyz` and prints one line. The exit code is 0 if the gateway is ready, and 1 if it
/// is not ready or not reachable.
pub async fn run(admin: SocketAddr) -> ExitCode {
    let (line, code) = match client::get(admin, "/readyz").await {
        Ok((status, _)) if status.is_success() => ("ready".to_owned(), ExitCode::SUCCESS),
        Ok((status, _)) => (
            format!("not ready: {admin} responded with {status}"),
            ExitCode::FAILURE,
        ),
        Err(error) => (format!("not ready: {error:#}"), ExitCode::FAILURE),
    };
    // The exit code is the answer, also where nothing reads the line.
    let _ = output::print(&line);
    code
}
