//! What a consumer reads from librdkafka's own log: failures, which it repeats, and changes of a topic, which
//! it reports nowhere else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::native::events::{Scope, TopicPartition};

/// What librdkafka goes on to warn of is logged as a warning again after so long.
const WARN_AGAIN: Duration = Duration::from_secs(600);
/// How librdkafka prints an absent topic id.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// What librdkafka has warned of lately. It repeats a failure with every attempt to connect.
#[derive(Debug, Default)]
pub struct Warnings(HashMap<String, Instant>);

impl Warnings {
    /// Whether a line is to be logged as a warning: it was not, for so long.
    pub fn is_due(&mut self, line: &str) -> bool {
        self.0.retain(|_, warned| warned.elapsed() < WARN_AGAIN);
        // The rest of the line says how long that took, and how often librdkafka has left it out.
        let said = line.split_once(" (after ").map_or(line, |(said, _)| said);
        let is_due = !self.0.contains_key(said);
        if is_due {
            self.0.insert(said.to_owned(), Instant::now());
        }
        is_due
    }
}

/// A change of a topic that librdkafka reports only in its debug log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChange {
    /// The topic was deleted and created again.
    Recreated(Arc<str>),
    /// A partition has lost its tail.
    Truncated(TopicPartition),
}

impl LogChange {
    /// The change that a line of librdkafka's log reports.
    pub fn parse(line: &str) -> Option<Self> {
        if let Some((before, ids)) = line.split_once(" changed id from ") {
            let (_, topic) = before.rsplit_once("Topic ")?;
            return (!ids.starts_with(NO_ID)).then(|| Self::Recreated(topic.into()));
        }
        let (of_partition, reset) = line.split_once("]: offset reset")?;
        let (before, partition) = of_partition.rsplit_once(" [")?;
        let (_, topic) = before.rsplit_once(' ')?;
        let partition = TopicPartition {
            topic: topic.into(),
            partition: partition.parse().ok()?,
        };
        reset
            .contains("log truncation detected")
            .then_some(Self::Truncated(partition))
    }

    /// What has changed.
    pub fn scope(self) -> Scope {
        match self {
            Self::Recreated(topic) => Scope::Topic(topic),
            Self::Truncated(partition) => Scope::Partition(partition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_librdkafka_repeats_is_one_warning() {
        let mut warnings = Warnings::default();
        let refused = "[thrd:k:9092/bootstrap]: k:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused";
        let reset =
            "[thrd:k:9092/bootstrap]: k:9092/bootstrap: Disconnected: connection reset by peer";
        for (line, is_due) in [
            (format!("{refused} (after 0ms in state CONNECT)"), true),
            (format!("{reset} (after 0ms in state SSL_HANDSHAKE)"), true),
            (
                format!("{refused} (after 3ms in state CONNECT, 1 identical error(s) suppressed)"),
                false,
            ),
            (format!("{reset} (after 1ms in state SSL_HANDSHAKE)"), false),
            ("another".to_owned(), true),
        ] {
            assert_eq!(warnings.is_due(&line), is_due, "{line}");
        }
    }

    #[test]
    fn changes_of_the_log_are_parsed_from_librdkafkas_log() {
        let changed = "[thrd:main]: Topic user.events changed id from ";
        let first = format!("{changed}{NO_ID} to mRk1v5vYQ3aaaaaaaaaaaa");
        assert_eq!(LogChange::parse(&first), None);
        let again = format!("{changed}mRk1v5vYQ3aaaaaaaaaaaa to zRk1v5vYQ3aaaaaaaaaaaa");
        let recreated = LogChange::Recreated("user.events".into());
        assert_eq!(LogChange::parse(&again), Some(recreated));
        let reset = "[thrd:main]: user.events [7]: offset reset (at offset INVALID (leader epoch 4), broker 1) to ";
        let truncated = format!("{reset}offset INVALID: Local: Partition log truncation detected");
        let partition = TopicPartition {
            topic: "user.events".into(),
            partition: 7,
        };
        let change = LogChange::Truncated(partition);
        assert_eq!(LogChange::parse(&truncated), Some(change));
        let other = format!("{reset}offset INVALID: Broker: Offset out of range");
        assert_eq!(LogChange::parse(&other), None);
    }
}
