//! What Kafka refuses a consumer, logged when it begins and when it ends.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;

/// Why Kafka refuses a topic, or the consumer as a whole (`None`), which keeps it from being assigned partitions, or from
/// committing their offsets. No worker can report that. librdkafka reports it with every attempt; it is logged when it begins
/// and ends.
#[derive(Default)]
pub struct Refusals {
    begun: HashMap<Option<Arc<str>>, RDKafkaErrorCode>,
    /// Whether Kafka has refused the consumer for a topic that it has not named, since that was looked for.
    pub has_unnamed_topic: bool,
}

impl Refusals {
    /// Kafka refuses a topic, or the consumer as a whole.
    pub fn begin(&mut self, group: &str, topic: Option<Arc<str>>, code: RDKafkaErrorCode) {
        if topic.is_none() && code == RDKafkaErrorCode::TopicAuthorizationFailed {
            self.has_unnamed_topic = true;
        }
        if self.begun.insert(topic.clone(), code) != Some(code) {
            tracing::warn!(
                group,
                topic = topic.as_deref(),
                %code,
                "Kafka refuses the consumer; trying again until it does not"
            );
        }
    }

    /// Partitions of a topic were assigned, or their offsets committed.
    pub fn end(&mut self, group: &str, topic: &Arc<str>) {
        for ended in [None, Some(Arc::clone(topic))] {
            if self.begun.remove(&ended).is_some() {
                tracing::info!(
                    group,
                    topic = ended.as_deref(),
                    "Kafka accepts the consumer again"
                );
            }
        }
    }
}
