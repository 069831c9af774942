//! Watching a feed: a stream of its changes as they are committed, from a cursor or from the beginning.
//!
//! Promises: of each partition, a watcher gets each change that is in the feed and passes its filter once, in order, and
//! no other. The stream ends rather than leave one out. A feed is read once for all watchers that have caught up
//! (`ring.rs`); each of the others reads pages of its own. A watcher that takes nothing is waited for, holds one page, and
//! falls back to reading pages.

mod batch;
mod feed;
mod reader;
pub mod registry;
mod ring;
pub mod sse;
mod stream;

pub use self::feed::{Change, Feed, FeedPage, FeedRow, MAX_BYTES};
pub use self::stream::{Closing, Event, Limits, WatchPosition, WatchStream, watch};

#[cfg(test)]
mod tests;
