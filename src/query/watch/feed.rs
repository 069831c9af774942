//! What a domain says of a feed that can be watched.

use serde::Serialize;

use crate::error::Error;
use crate::projector::FeedPosition;
use crate::query::answer::Position;
use crate::query::reads::{Reads, Resume};

/// The most bytes of documents of one read. One document may be larger.
pub const MAX_BYTES: i64 = 256 * 1024;

/// A change of a feed, without its cursor.
pub trait Change: Serialize + Send + Sync + 'static {
    /// The name of its event over REST.
    fn event(&self) -> &'static str {
        "change"
    }
}

/// A feed of a domain, with the filter of one watch. The default passes everything.
pub trait Feed: Clone + Default + Send + Sync + 'static {
    /// The domain whose commits the changes are in.
    const DOMAIN: &'static str;
    /// A change of the feed.
    type Change: Change;

    /// Whether the filter lets a change pass.
    fn passes(&self, change: &Self::Change) -> bool;

    /// Whether a watch from the beginning includes a change that was in the feed when it began.
    fn is_in_snapshot(_change: &Self::Change) -> bool {
        true
    }

    /// Reads up to `limit` changes that pass the filter, from where `resume` says, until they have [`MAX_BYTES`]. It is one
    /// statement, which finds out whether the reader must begin again, too.
    ///
    /// # Errors
    /// The database's.
    fn read(
        &self,
        reads: &Reads,
        resume: &Resume,
        limit: i64,
    ) -> impl Future<Output = Result<FeedPage<Self::Change>, Error>> + Send;
}

/// What a statement has read of a feed.
pub struct FeedPage<C> {
    /// The live view version.
    pub view_version: i32,
    /// Whether the positions from which it was read mean something else in this version.
    pub must_resync: bool,
    /// The changes, those of a log in order.
    pub rows: Vec<FeedRow<C>>,
    /// The logs of the version.
    pub logs: Vec<i32>,
    /// The next offset to apply of each log.
    pub offsets: Vec<i64>,
    /// What the statement reflects.
    pub reflects: Position,
}

/// A change as it was read.
pub struct FeedRow<C> {
    /// Its log.
    pub log_id: i32,
    /// Where it stands in its log.
    pub position: FeedPosition,
    /// The size of its document.
    pub bytes: usize,
    /// What changed.
    pub change: C,
}
