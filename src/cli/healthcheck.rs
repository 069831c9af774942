//! `sightline healthcheck`: whether a gateway is ready, for containers without curl.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::client;

/// Asks `/readyz` and prints one line: exit code 0 when ready, 1 when not, or not reachable.
pub async fn run(admin: SocketAddr) -> ExitCode {
    match client::get(admin, "/readyz").await {
        Ok((status, _)) if status.is_success() => {
            println!("ready");
            ExitCode::SUCCESS
        }
        Ok((status, _)) => {
            println!("not ready: {admin} answers {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("not ready: {error:#}");
            ExitCode::FAILURE
        }
    }
}
