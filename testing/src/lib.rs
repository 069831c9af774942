//! What sightline's tests and benchmark share: a real Kafka and a real Postgres, the program as a child
//! process, a proxy that breaks connections, clients for the public surface, random hostile logs, and the
//! reference fold, which computes the expected answers.
//!
//! Servers and child processes end with the test process, however that ends.

#![allow(
    missing_docs,
    reason = "most items here say with their names what they are"
)]

pub mod app;
pub mod authority;
pub mod broker;
pub mod check;
pub mod client;
pub mod database;
pub mod events;
pub mod hostile_log;
pub mod lagging_replica;
pub mod operations;
pub mod process;
pub mod proxy;
pub mod reference;

use std::path::PathBuf;
use std::time::Duration;

/// Polls `condition` until it returns a value. `Err` describes the last state seen; the panic at the
/// deadline shows it.
pub async fn wait_until<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut seen = String::from("nothing yet");
    let outcome = tokio::time::timeout(deadline, async {
        loop {
            ticks.tick().await;
            match condition().await {
                Ok(value) => break value,
                Err(now) => seen = now,
            }
        }
    })
    .await;
    outcome.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}; last seen: {seen}"))
}

/// A name that no other test uses, valid for databases, topics and groups.
pub fn unique(prefix: &str) -> String {
    format!(
        "{prefix}_{}",
        uuid::Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).simple()
    )
}

/// Where Cargo put the programs of the profile under test: `target/debug` or `target/release`.
///
/// Cargo gives `CARGO_BIN_EXE_sightline` to integration tests and benchmarks only, so the path is derived
/// from the test's own, `target/<profile>/deps/<name>`.
fn build_directory() -> PathBuf {
    let program = std::env::current_exe().expect("the path of the test program");
    let build = program.ancestors().nth(2).expect("target/<profile>/deps");
    build.to_owned()
}

/// Cargo's target directory.
fn target_directory() -> PathBuf {
    let build = build_directory();
    build.parent().expect("target/<profile>").to_owned()
}

/// The directory for temporary files of tests, which Cargo creates.
fn temporary_directory() -> PathBuf {
    target_directory().join("tmp")
}
