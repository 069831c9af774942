//! The Kafka machine: it carries a log into a view and keeps the books of it. It knows `Projection`, and no
//! domain.
//!
//! Of one partition, at a time, one transaction moves progress and data together (`batch`), begun by a
//! compare-and-set of the progress row (`progress`). Around it: a thread that polls always (`consumer`), a
//! task per partition that goes on after whatever happens (`worker`), a member of a group for each version and topic
//! (`members`), a thread that reads the ends of the log (`log`), heartbeats of the owners (`heartbeat`), and the versions
//! of a view (`versions`).

mod batch;
pub(crate) mod dead_letters;
pub mod heartbeat;
pub mod maintenance;
pub mod members;
pub mod pause;
mod progress;
pub mod versions;
mod worker;

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::StartAt;
use crate::event::{Event, TypeName};
use crate::kafka::offsets::TopicStates;

/// How events become rows of one domain's view.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// The domain's name, which its schema, its consumer group and its metrics carry.
    fn domain(&self) -> &'static str;

    /// Raised when the same log would give other rows: a view that an older version built reads as outdated.
    fn code_version(&self) -> i32;

    /// Whether the view is made from events of this type; of others nothing is read but the type.
    fn is_interested(&self, event_type: &TypeName) -> bool;

    /// Whether a letter of this type holds back later events of its key.
    fn parks(&self, _event_type: Option<&TypeName>) -> bool {
        true
    }

    /// Applies events of one log, in order, each of them new. Names of tables carry no schema. May be called
    /// again with fewer events after a rollback: what it knows must be in `target` and `events` alone.
    ///
    /// # Errors
    /// What the database says. An error of the data's making isolates the event that makes it.
    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error>;
}

/// Where events are applied: a transaction that holds the log's progress row.
pub struct Target<'t> {
    /// The transaction's connection; its search path leads to the view's schema.
    pub connection: &'t mut PgConnection,
    /// The log that the events are from.
    pub log_id: i32,
    /// From how many logs the view is made.
    pub log_count: i32,
}

/// An event, where it stood, and when its turn was.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What the record says.
    pub event: Event,
    /// The log of the record.
    pub log_id: i32,
    /// The record's offset in the log.
    pub offset: i64,
    /// Its place among all that was ever applied from the log.
    pub feed_position: FeedPosition,
}

/// The order in which a log's events were applied: what a feed is ordered by, and its cursors name. Whoever has
/// read up to a place has missed nothing, as no later transaction writes a place before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeedPosition {
    /// How far the log was applied then: the offset behind the event's own or, where a dead letter was
    /// retried, the progress row's of the retry. So an event that was applied in its turn has the same place
    /// in every version of a view, wherever batches ended.
    pub next_offset: i64,
    /// Orders events at one offset: 0 in turn; above it retries, by the epoch of the retry's transaction and their
    /// order in it. Up to [`FeedPosition::MAX_ROWS`] - 1 may be added, for an event that makes several rows.
    pub sequence: i64,
}

impl FeedPosition {
    /// How many rows an event may make at one place.
    pub const MAX_ROWS: i64 = 1 << 16;

    /// The place of an event that is applied in its turn.
    pub fn first_attempt(offset: i64) -> Self {
        Self {
            next_offset: offset + 1,
            sequence: 0,
        }
    }
}

/// A version of a domain's view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View {
    /// The domain's name, as in [`Projection::domain`].
    pub domain: &'static str,
    /// From 1 on; the schema of version 2 of `order` is `order_v2`, until it is the live one.
    pub version: i32,
}

/// What every projector of a process shares.
#[derive(Clone)]
pub struct Projector {
    /// The database that holds the views and their progress.
    pub pool: PgPool,
    /// How many batches of versions that are not read may be under way: what is left of the pool is for those that are.
    pub other_versions: Arc<Semaphore>,
    /// How to reach Kafka: the bootstrap servers and the user's own properties.
    pub kafka: ClientConfig,
    /// The topics that every view is made from.
    pub topics: Vec<String>,
    /// What the names of consumer groups begin with: `<prefix>.<domain>`.
    pub group_prefix: String,
    /// Where a log without progress is begun.
    pub start: StartAt,
    /// A value longer than this is not parsed.
    pub max_value_bytes: usize,
    /// How long, by the log's time, an event id is remembered.
    pub dedupe: chrono::TimeDelta,
    /// This process, in the heartbeats.
    pub instance: Uuid,
    /// The ends of the topics' partitions, from [`crate::kafka::offsets::monitor`].
    pub topic_states: watch::Receiver<Option<TopicStates>>,
    /// What this process tells of the partitions that it projects.
    pub heartbeats: Arc<heartbeat::Heartbeats>,
    /// Cancelled when projecting is to end, after the batches under way.
    pub stop: CancellationToken,
}
