//! What a consumer's errors and its log end: deliveries of a partition, of a topic, or of all.

use std::fmt;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::client_log::{LogChange, Warnings};
use super::is_refusal;
use super::native::events::{Event, Scope};
use super::records::Ended;
use super::refusals::Refusals;

/// The syslog severity of warnings.
const WARNING: i32 = 4;

/// What a consumer has reported so far, so that what it repeats is logged once.
pub struct Faults {
    /// The consumer's group, for the log.
    pub group: String,
    /// What Kafka refuses the consumer.
    pub refusals: Refusals,
    warnings: Warnings,
}

impl Faults {
    /// Of a consumer of a group.
    pub fn of(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            refusals: Refusals::default(),
            warnings: Warnings::default(),
        }
    }

    /// Logs an error or a line of librdkafka's log, if the event is one. Returns whose deliveries it ends, and why: workers
    /// read the topic's state again before they go on; if fetches fail, they report that, and seek again.
    ///
    /// # Errors
    /// The consumer is of no use any longer.
    pub fn follow<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        event: Event,
    ) -> KafkaResult<Option<(Scope, Option<Ended>)>> {
        match event {
            Event::Error {
                code,
                is_fatal: true,
                ..
            } => {
                // The event itself says only that something is fatal.
                let fatal = consumer.client().fatal_error();
                let code = fatal.map_or(code, |(code, _)| code);
                if is_refusal(code) {
                    self.refusals.begin(&self.group, None, code);
                }
                Err(KafkaError::MessageConsumptionFatal(code))
            }
            Event::Error { code, scope, .. } => Ok(self.follow_error(code, scope)),
            Event::Log {
                severity,
                facility,
                message,
            } => {
                let group = self.group.as_str();
                if severity <= WARNING && self.warnings.is_due(&message) {
                    tracing::warn!(target: "librdkafka", facility, message, group);
                } else {
                    tracing::debug!(target: "librdkafka", facility, message, group);
                }
                Ok(LogChange::parse(&message).map(|change| {
                    let scope = change.scope();
                    self.note_change(&scope, &message);
                    (scope, None)
                }))
            }
            _ => Ok(None),
        }
    }

    fn follow_error(
        &mut self,
        code: RDKafkaErrorCode,
        scope: Scope,
    ) -> Option<(Scope, Option<Ended>)> {
        let group = self.group.as_str();
        match (code, scope) {
            (
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicId
                | RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange,
                scope,
            ) => {
                self.note_change(&scope, &code);
                Some((scope, None))
            }
            (code, scope @ Scope::Partition(_)) => Some((scope, Some(Ended::Failed(code)))),
            (code, Scope::Topic(topic)) if is_refusal(code) => {
                self.refusals.begin(group, Some(topic.clone()), code);
                Some((Scope::Topic(topic), Some(Ended::Failed(code))))
            }
            (code, scope) if is_refusal(code) => {
                self.refusals.begin(group, None, code);
                // What concerns the membership, as a topic without a name does in KIP-848, concerns no fetch.
                let concerns_fetches = !matches!(
                    code,
                    RDKafkaErrorCode::GroupAuthorizationFailed
                        | RDKafkaErrorCode::TopicAuthorizationFailed
                );
                concerns_fetches.then_some((scope, Some(Ended::Failed(code))))
            }
            (code, scope) => {
                tracing::debug!(group, ?scope, %code, "librdkafka reports an error and continues");
                None
            }
        }
    }

    /// Logs, for searches, that a log has changed. How it has changed is reported once, after the topic's state is read again:
    /// the monitor reports a missing topic, the worker another log.
    fn note_change(&self, scope: &Scope, cause: &dyn fmt::Display) {
        let group = self.group.as_str();
        tracing::debug!(group, ?scope, %cause, "the log has changed; reading the topic's state again");
    }
}
