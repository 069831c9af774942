//! Reads a feed: pages for one watcher, and everything that is committed for all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::batch::{Batch, Row};
use super::feed::{Feed, MAX_BYTES};
use super::ring::Reader;
use crate::error::Error;
use crate::projector::FeedPosition;
use crate::query::cursor::{self, Cursor};
use crate::query::reads::{Reads, Resume};
use crate::telemetry;

/// Changes of one read for all watchers.
const PAGE: i64 = 500;
/// The reader reads the feed at least this often, because announcements may be lost. Its batches also show watchers that the
/// database answers, so this is less than [`stream`](super::stream)'s `SILENCE`.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The time that a read may take, the wait for a connection included.
const DEADLINE: Duration = Duration::from_secs(10);
/// The pauses after failed reads, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Reads a batch.
///
/// # Errors
/// RESYNC: the positions mean something else in the live version. The database's.
pub async fn read_batch<F: Feed>(
    reads: &Reads,
    filter: &F,
    resume: Resume,
    limit: i64,
    reader: &'static str,
) -> Result<Batch<F::Change>, Error> {
    let page = timeout(DEADLINE, filter.read(reads, &resume, limit)).await;
    let page = page.map_err(|_| Error::deadline_exceeded())??;
    metrics::counter!(telemetry::FEED_READS, "domain" => F::DOMAIN, "reader" => reader)
        .increment(1);
    if page.must_resync {
        return Err(cursor::resync().with_metadata(page.reflects.metadata()));
    }
    let log_ids: Vec<i32> = page.rows.iter().map(|row| row.log_id).collect();
    let logs = reads.fingerprints(&log_ids).await?;
    let bytes: usize = page.rows.iter().map(|row| row.bytes).sum();
    let is_complete = page.rows.len() < usize::try_from(limit).unwrap_or_default()
        && bytes < usize::try_from(MAX_BYTES).unwrap_or_default();
    let rows = page.rows.into_iter().zip(logs);
    let ends = reads.fingerprints(&page.logs).await?.into_iter();
    Ok(Batch {
        view_version: page.view_version.unsigned_abs(),
        rows: rows
            .map(|(row, log)| Arc::new(Row::new(log, row.position, row.change)))
            .collect(),
        is_complete,
        end: ends
            .zip(page.offsets.into_iter().map(FeedPosition::reached))
            .collect(),
        reflects: page.reflects,
        bytes,
    })
}

/// Adds everything that is committed to the ring, until the process stops or nobody watches.
pub async fn keep_reading<F: Feed>(reads: Reads, mut reader: Reader<F::Change>) {
    let work = reads.work().clone();
    let mut commits = work.announcements.subscribe(F::DOMAIN);
    let mut cursor: Option<Cursor> = None;
    let mut added_at = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        commits.borrow_and_update();
        match read_next::<F>(&reads, cursor.as_ref()).await {
            Ok(Some(batch)) => {
                pause = PAUSES.0;
                let is_complete = batch.is_complete;
                let is_current = cursor.is_some();
                let next = cursor.get_or_insert_default();
                next.view_version = batch.view_version;
                if is_current {
                    for row in &batch.rows {
                        next.set(row.log, row.position);
                    }
                }
                if is_complete || !is_current {
                    for (log, position) in &batch.end {
                        next.advance(*log, *position);
                    }
                }
                if !is_current {
                    reader.is_current();
                } else if !batch.rows.is_empty() || added_at.elapsed() >= LOOK_AGAIN {
                    // An empty batch says how far the feed was read, and that the database answers.
                    added_at = Instant::now();
                    reader.add(batch);
                    if !is_complete {
                        continue;
                    }
                }
            }
            Ok(None) => {
                reader.interrupt();
                cursor = None;
                continue;
            }
            Err(error) => {
                tracing::debug!(
                    reason = error.code().reason(),
                    domain = F::DOMAIN,
                    "a feed could not be read for its watchers"
                );
                tokio::select! {
                    () = sleep(pause) => {}
                    () = work.stop.cancelled() => return,
                }
                pause = (pause * 2).min(PAUSES.1);
                if reader.end_unwatched() {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            _ = commits.changed() => {}
            () = sleep(LOOK_AGAIN) => {}
            () = work.stop.cancelled() => return,
        }
        if reader.end_unwatched() {
            return;
        }
    }
}

/// What was committed after a cursor; `None` if the version was switched, or a log of the cursor is gone. Without a cursor, the
/// end of the feed is what counts.
async fn read_next<F: Feed>(
    reads: &Reads,
    cursor: Option<&Cursor>,
) -> Result<Option<Batch<F::Change>>, Error> {
    use crate::error::Code::{InvalidArgument, Resync};
    let (resume, limit) = match cursor {
        None => (Resume::default(), 1),
        Some(cursor) => match reads.resume("after", cursor).await {
            Err(error) if error.code() == InvalidArgument => return Ok(None),
            resume => (resume?, PAGE),
        },
    };
    match read_batch(reads, &F::default(), resume, limit, "shared").await {
        Err(error) if error.code() == Resync => Ok(None),
        batch => {
            let batch = batch?;
            let is_switched =
                cursor.is_some_and(|cursor| cursor.view_version != batch.view_version);
            Ok((!is_switched).then_some(batch))
        }
    }
}
