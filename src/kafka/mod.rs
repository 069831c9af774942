//! What the projector needs of Kafka: members of a consumer group (`consumer`; their settings in `group`, the check of the
//! user's properties in [`properties`], what they log in `refusals` and `client_log`); the states and offsets of topics
//! ([`offsets`], which [`monitor`] reads, and [`ends`] when a call needs them); records ([`to_record`]); and what librdkafka
//! can do but its safe wrapper can't (`native`).
//!
//! Nothing here knows of views or of the database. Where a partition begins is the caller's decision.

mod client_log;
pub(crate) mod consumer;
pub mod ends;
pub(crate) mod group;
pub mod monitor;
pub(crate) mod native;
pub mod offsets;
pub mod properties;
mod refusals;

pub use native::to_record;

use rdkafka::error::RDKafkaErrorCode;

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
