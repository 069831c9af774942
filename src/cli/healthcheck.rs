//! `sightline healthcheck`: reports whether a gateway is ready, for containers without curl.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::client;

/// Requests `/readyz` and prints one line. The exit code is 0 if the gateway is ready, and 1 if it
/// is not ready or not reachable.
pub async fn run(admin: SocketAddr) -> ExitCode {
    match client::get(admin, "/readyz").await {
        Ok((status, _)) if status.is_success() => {
            println!("ready");
            ExitCode::SUCCESS
        }
        Ok((status, _)) => {
            println!("not ready: {admin} responded with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("not ready: {error:#}");
            ExitCode::FAILURE
        }
    }
}
