//! What the projector needs of Kafka: members of consumer groups (`consumer`), the consumer that they share at the ends of logs
//! (`shared`), and what both deliver (`records`); their settings (`group`), the check of the user's properties
//! ([`properties`]), and what their errors and their logs mean (`faults`, `refusals`, `client_log`); the states and offsets of
//! topics ([`offsets`], which [`monitor`] reads, and [`ends`] when a call needs them); records ([`to_record`]); and what
//! librdkafka can do but its safe wrapper can't (`native`).
//!
//! Nothing here knows of views or of the database. Where a partition begins is the caller's decision.

mod client_log;
pub(crate) mod consumer;
pub mod ends;
mod faults;
pub(crate) mod group;
pub mod monitor;
pub(crate) mod native;
pub mod offsets;
pub mod properties;
pub(crate) mod records;
mod refusals;
pub(crate) mod shared;

pub use native::to_record;

use std::panic::{self, AssertUnwindSafe};
use std::thread;

use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

/// Starts a thread that reads from Kafka by `run` until cancelled, and begins again after an error or a panic. `what` names
/// what it reads, in the log.
fn run_thread(
    name: &str,
    stop: CancellationToken,
    what: &'static str,
    run: impl Fn(&CancellationToken) -> KafkaResult<()> + Send + 'static,
) {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            while !stop.is_cancelled() {
                match panic::catch_unwind(AssertUnwindSafe(|| run(&stop))) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, "librdkafka refuses the Kafka settings: no {what} can be read");
                    }
                    Err(_) => tracing::error!("reading {what} panicked; starting it again"),
                }
                thread::sleep(offsets::INTERVAL);
            }
        })
        .expect("the operating system has a thread left");
}

/// Whether Kafka refuses what was asked of it, for lack of a right or of a valid login. That lasts until an operator changes
/// one of them.
pub(crate) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::IllegalSASLState
            | RDKafkaErrorCode::SecurityDisabled
    )
}
