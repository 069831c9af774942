//! `sightline healthcheck`: reports whether a gateway is ready, for containers without curl.

use std::net::SocketAddr;
use std::process::ExitCode;

use serde_json::Value;

use super::gateway::cell;
use crate::{client, output};

/// The names of the checks that fail, if the body is an answer of `/readyz`.
fn failed_checks(body: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let checks = answer["checks"].as_array()?;
    let failed = checks.iter().filter(|check| check["ok"] == false);
    Some(failed.map(|check| cell(&check["name"])).collect())
}

/// Requests `/readyz` and prints one line. The exit code is 0 if the gateway is ready, and 1 if it
/// is not ready or not reachable.
pub async fn run(admin: SocketAddr) -> ExitCode {
    let (line, code) = match client::get(admin, "/readyz").await {
        Ok((status, _)) if status.is_success() => ("ready".to_owned(), ExitCode::SUCCESS),
        Ok((status, body)) => {
            let problem = match failed_checks(&body) {
                Some(failed) => format!("these checks fail: {}", failed.join(", ")),
                None => format!(
                    "{admin} responded with {status}; is it the admin port (--admin-addr, SIGHTLINE_ADMIN_ADDR)?"
                ),
            };
            (format!("not ready: {problem}"), ExitCode::FAILURE)
        }
        Err(error) => {
            let hint = if client::is_refused(&error) {
                "; no gateway listens there (--admin-addr, SIGHTLINE_ADMIN_ADDR)"
            } else {
                ""
            };
            (format!("not ready: {error:#}{hint}"), ExitCode::FAILURE)
        }
    };
    // The exit code is the answer, also where nothing reads the line.
    let _ = output::print(&line);
    code
}
