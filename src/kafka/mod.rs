//! What the projector needs of Kafka, in Kafka's own words: members of a consumer group (`consumer`, with the group's
//! settings in `group`, the check of the user's own in [`properties`], and what is logged of it in `refusals` and
//! `client_log`), the state and offsets of topics ([`offsets`], read by [`monitor`], and when a call needs them by [`ends`]), records ([`to_record`]), and what
//! librdkafka can do but its safe wrapper can't (`native`).
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
