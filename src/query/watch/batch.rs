//! What a watcher does with what was read of a feed, without I/O: which changes it sends, and which cursor each has.

use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::projector::FeedPosition;
use crate::query::Position;
use crate::query::cursor::{Cursor, Fingerprint};

/// A change of a feed.
pub struct Row<C> {
    /// The partition.
    pub log: Fingerprint,
    /// Where it stands in its partition.
    pub position: FeedPosition,
    /// What changed, without a cursor: each watcher has its own.
    pub change: C,
    json: OnceLock<String>,
}

impl<C> Row<C> {
    /// A change at a position.
    pub fn new(log: Fingerprint, position: FeedPosition, change: C) -> Self {
        Self {
            log,
            position,
            change,
            json: OnceLock::new(),
        }
    }
}

impl<C: Serialize> Row<C> {
    /// The change as JSON, which is made once for all watchers.
    pub fn json(&self) -> &str {
        // A change is made of texts, numbers and flags, which are JSON.
        let json = || serde_json::to_string(&self.change).unwrap_or_default();
        self.json.get_or_init(json)
    }
}

/// What one statement has read of a feed.
pub struct Batch<C> {
    /// The view version that it was read from.
    pub view_version: u32,
    /// The changes after the cursor from which it was read, those of a partition in order.
    pub rows: Vec<Arc<Row<C>>>,
    /// Whether these are all changes up to `end`.
    pub is_complete: bool,
    /// The end of the feed in each partition.
    pub end: Vec<(Fingerprint, FeedPosition)>,
    /// What the statement reflects.
    pub reflects: Position,
    /// The size of the documents that were read.
    pub bytes: usize,
}

/// How far a watcher has read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Everything up to here was sent, or is not for this watcher.
    pub cursor: Cursor,
    /// Of a watcher that began at the beginning, until it has caught up: where the feed ended then.
    began_at: Option<Cursor>,
    is_first: bool,
}

impl Reading {
    /// Begins after a cursor, or at the beginning.
    pub fn after(cursor: Option<Cursor>) -> Self {
        Self {
            is_first: cursor.is_none(),
            cursor: cursor.unwrap_or_default(),
            began_at: None,
        }
    }

    /// Begins with what was read from the cursor: the view version is now that of the batch.
    pub fn begin<C>(&mut self, batch: &Batch<C>) {
        self.cursor.view_version = batch.view_version;
        if std::mem::take(&mut self.is_first) {
            let mut end = Cursor::default();
            for (log, position) in &batch.end {
                end.set(*log, *position);
            }
            self.began_at = Some(end);
        }
    }

    /// Passes a row. Returns whether it is a new one, and whether it was in the feed when the watcher began at the beginning.
    pub fn pass<C>(&mut self, row: &Row<C>) -> Passed {
        if self.cursor.has_passed(row.log, row.position) {
            return Passed::Again;
        }
        self.cursor.set(row.log, row.position);
        let began_at = self.began_at.as_ref();
        if began_at.is_some_and(|end| end.has_passed(row.log, row.position)) {
            Passed::InSnapshot
        } else {
            Passed::Change
        }
    }

    /// All rows of a batch have been passed.
    pub fn finish<C>(&mut self, batch: &Batch<C>) {
        if batch.is_complete {
            self.began_at = None;
            for (log, position) in &batch.end {
                self.cursor.advance(*log, *position);
            }
        }
    }
}

/// What a row is to a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// It has passed it before.
    Again,
    /// It was in the feed when the watcher began at the beginning.
    InSnapshot,
    /// It is new.
    Change,
}
