//! What the tests stand on: a real broker, a real database, the program as a child process, clients for its
//! public surface, random logs, and the naive fold that says what the answers must be.

pub mod app;
pub mod broker;
pub mod check;
pub mod client;
pub mod database;
pub mod fold;
pub mod log;
pub mod operations;
pub mod process;
pub mod proxy;

use std::time::Duration;

/// Polls `condition` until it gives a value. An `Err` says what was seen last: it is shown when the deadline
/// passes, which fails the test.
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

/// A name that no other test has, fit for databases, topics and groups.
pub fn unique(prefix: &str) -> String {
    format!(
        "{prefix}_{}",
        uuid::Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).simple()
    )
}
