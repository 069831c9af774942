//! Projects logs into views, and keeps the books. The module knows the trait [`Projection`] and no domain.
//!
//! The path of a record: a member of a consumer group fetches it ([`members`], `kafka::consumer`). The worker of its partition
//! (`worker`), which has claimed the partition (`claims`), puts it into a queue. A writer (`writer`) takes the records of
//! several partitions, and commits them with their positions in one transaction (`batch`), which compares the progress rows
//! first (`progress`), so that each event counts once. In it the judge (`judge`) decides what becomes of each record; one that
//! can't be applied becomes a dead letter (`dead_letters`).
//!
//! Besides: heartbeats ([`heartbeat`]), pauses ([`pause`]), the versions of a view ([`versions`]), partitions that were added
//! to a topic ([`added_partitions`]), and maintenance ([`maintenance`]).

pub mod added_partitions;
pub mod announcements;
mod batch;
mod batch_limit;
mod claims;
pub(crate) mod dead_letters;
pub mod heartbeat;
pub mod ids;
mod judge;
pub mod maintenance;
pub mod members;
mod outages;
pub mod pause;
mod progress;
pub mod restores;
pub mod versions;
mod worker;
mod writer;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::StartAt;
use crate::event::{Bad, Event, TypeName};
use crate::kafka::offsets::TopicStates;
use crate::kafka::records::Buffers;
use crate::kafka::shared::SharedConsumer;
use announcements::Announcements;
pub use writer::Transactions;

/// How events become rows of one domain's view.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// The domain's name. Schema, consumer group and metrics are named after it.
    fn domain(&self) -> &'static str;

    /// The version of the domain's code. Raise it when the code makes other rows of the same log. A view that an older code
    /// version built shows as outdated.
    fn declared_code_version(&self) -> i32;

    /// The code version that this process has. Older code does not fold what newer code has folded.
    fn code_version(&self) -> i32 {
        test_code_version().unwrap_or_else(|| self.declared_code_version())
    }

    /// Whether the view is made from events of this type. Of other events only the type is read.
    fn is_interested(&self, event_type: &TypeName) -> bool;

    /// Whether later events of its key wait behind a dead letter of this type; `None` if the type can't be read.
    fn parks(&self, _event_type: Option<&TypeName>) -> bool {
        true
    }

    /// Whether a rebuild may go without records that the log has lost. If the view is their only record, the live version is
    /// kept.
    fn may_lose_records(&self) -> bool {
        true
    }

    /// Applies events of one or several logs, none of which was applied before: those of a log follow one another in order.
    /// Statements name tables without a schema. It may be called again with fewer events after a rollback, so it depends on
    /// `target` and `events` only.
    ///
    /// # Errors
    /// The database's error, or [`RefusedEvent`]. If the data caused it, the projector isolates the event
    /// and makes it a dead letter.
    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error>;

    /// Changes, in the transaction of a switch, what the domain keeps outside of the versions of its view. The transaction
    /// holds the progress rows of both versions, and its search path leads to the tables of the one that becomes live; `from`
    /// is the number of the other.
    ///
    /// # Errors
    /// The database's. Nothing is switched then.
    async fn on_switch(
        &self,
        _connection: &mut PgConnection,
        _from: i32,
    ) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// Changes the same in the transaction that removes a version which is not live.
    ///
    /// # Errors
    /// The database's. The version is removed later then.
    async fn on_removal(&self, _connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// Stores, in the transaction that notes a restore of the database, what follows from it: `projected` is the offset that
    /// the state which was lost had reached in a log.
    ///
    /// # Errors
    /// The database's.
    async fn on_restore(
        &self,
        _connection: &mut PgConnection,
        _log_id: i32,
        _projected: i64,
    ) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// Changes what an operator's resume has to change, in its transaction, before `database_went_back` is cleared.
    ///
    /// # Errors
    /// The database's. Nothing is resumed then.
    async fn on_resume(&self, _connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// Changes what depends on the time alone. Maintenance calls it every two seconds. Each of its transactions has a deadline
    /// (`db::within`). Returns whether requests that wait for the domain's commits may find something.
    ///
    /// # Errors
    /// The database's.
    async fn maintain(&self, _pool: &PgPool) -> Result<bool, sqlx::Error> {
        Ok(false)
    }

    /// What waits in the domain's work queue; `None` if it has none. Maintenance calls it every few seconds, for gauges.
    ///
    /// # Errors
    /// The database's.
    async fn queued(&self, _pool: &PgPool) -> Result<Option<Queued>, sqlx::Error> {
        Ok(None)
    }
}

/// What waits in a work queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// How many items workers can lease. Counted up to 100,000, so that counting stays cheap.
    pub ready: i64,
    /// How long ago the oldest of them was created, in seconds; 0 if there is none.
    pub oldest_seconds: i64,
}

/// In debug builds the variable `SIGHTLINE_TEST_CODE_VERSION`, with which tests run one binary as several releases.
fn test_code_version() -> Option<i32> {
    static GIVEN: LazyLock<Option<i32>> = LazyLock::new(|| {
        let given = std::env::var("SIGHTLINE_TEST_CODE_VERSION");
        given.ok()?.parse().ok()
    });
    if cfg!(debug_assertions) { *GIVEN } else { None }
}

/// Why [`Projection::apply`] refuses an event as bad: what the event says can't be combined with what is stored, which only the
/// fold finds. The event becomes a dead letter with the problem's reason, like one that is bad by itself.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RefusedEvent(#[from] pub Bad);

impl From<RefusedEvent> for sqlx::Error {
    fn from(error: RefusedEvent) -> Self {
        sqlx::Error::Encode(Box::new(error))
    }
}

/// Where events are applied: a transaction that holds their logs' progress rows.
pub struct Target<'t> {
    /// The transaction's connection; its search path leads to the view's schema.
    pub connection: &'t mut PgConnection,
    /// From how many logs the view is made.
    pub log_count: i32,
    /// Whether the version is the one that is read. Only that one has effects outside of the view.
    pub is_live: bool,
}

/// An event to apply.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What the record says.
    pub event: Event,
    /// The log of the record.
    pub log_id: i32,
    /// The record's offset in the log.
    pub offset: i64,
    /// The feed position of the changes that it makes.
    pub feed_position: FeedPosition,
}

/// Where an event stands in the order in which a log's events were applied. Feeds are ordered by it, and cursors name it: a
/// reader who has read up to a feed position misses nothing, because no later transaction writes one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeedPosition {
    /// The offset after the event's own; for a retried dead letter, the position of the log at the retry. So an event that
    /// was applied in its turn has the same feed position in every version of a view, however events were batched.
    pub next_offset: i64,
    /// Orders events with one `next_offset`: 0 for the event in its turn; above it retried ones, by the epoch of the retry
    /// and their order in it. An event that makes several rows adds up to [`FeedPosition::MAX_ROWS`] - 1.
    pub sequence: i64,
}

impl FeedPosition {
    /// How many rows of a feed one event may make.
    pub const MAX_ROWS: i64 = 1 << 16;

    /// The last feed position that a log has given out once it has reached `next_offset`: only a retry writes one with the same
    /// offset later, and its sequence is larger.
    pub fn reached(next_offset: i64) -> Self {
        Self {
            next_offset,
            sequence: Self::MAX_ROWS - 1,
        }
    }

    /// The feed position of an event that is applied in its turn.
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
    /// Counts from 1. The schema of version 2 of `order` is `order_v2`, and `order_live` while that version is live.
    pub version: i32,
}

/// What all projections of a process share. Cheap to clone.
#[derive(Clone)]
pub struct Projector {
    /// The database that holds the views and their progress.
    pub pool: PgPool,
    /// Permits for transactions of versions that are not live (building or retired): half of all, so that the rest is left to
    /// the live versions.
    pub other_versions: Arc<Semaphore>,
    /// Permits for transactions of all domains.
    pub transactions: Arc<Transactions>,
    /// The connection to Kafka: bootstrap servers and the user's own properties.
    pub kafka: ClientConfig,
    /// The topics that every view is made from.
    pub topics: Vec<String>,
    /// The prefix of consumer groups, whose names are `<prefix>.<domain>`, with `.v<version>` from the second
    /// version of a view on.
    pub group_prefix: String,
    /// Where a log without progress begins.
    pub start: StartAt,
    /// How long an added partition waits before the log end offsets of the older partitions are read, up to which it waits for
    /// them.
    pub settle: Duration,
    /// A longer value is not parsed. In bytes.
    pub max_value_bytes: usize,
    /// How long, in stream time, an event id is remembered.
    pub dedupe: chrono::TimeDelta,
    /// The id of this process in heartbeats.
    pub instance: Uuid,
    /// Limits the bytes of records that wait for their workers.
    pub buffers: Arc<Buffers>,
    /// Fetches the ends of logs for all versions of all domains.
    pub shared: SharedConsumer,
    /// The topics' states, from [`crate::kafka::monitor`].
    pub topic_states: watch::Receiver<Option<TopicStates>>,
    /// Where commits are announced.
    pub announcements: Announcements,
    /// What this process reports of the partitions that it projects.
    pub heartbeats: Arc<heartbeat::Heartbeats>,
    /// Cancelled when projection is to end. Batches that have begun are finished.
    pub stop: CancellationToken,
}
