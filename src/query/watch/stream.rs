//! One stream: it reads pages until it has caught up, then follows the ring, and ends in one of five ways.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use utoipa::ToSchema;

use super::batch::{Batch, Passed, Reading, Row};
use super::feed::Feed;
use super::reader::{keep_reading, read_batch};
use super::ring::{Next, Shared};
use crate::error::{Code, Error};
use crate::query::answer::Answer;
use crate::query::cursor::{self, Cursor};
use crate::query::reads::Reads;
use crate::telemetry;

/// Changes of a watcher's own page.
const PAGE: i64 = 200;
/// Changes that wait for the caller besides those of the page.
const BUFFER: usize = 16;
/// A stream that has nothing to send says so after this time.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A stream ends when its feed could not be read for this long.
const SILENCE: Duration = Duration::from_secs(30);
/// A caller who takes nothing for so long is sent nothing more.
const STALLED: Duration = Duration::from_secs(60);
/// The pause before a watcher's failed read is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A position of a stream: everything up to it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchPosition {
    /// The cursor to continue from.
    pub cursor: String,
    /// The positions that the stream has reached, as a consistency token.
    pub consistency_token: String,
}

/// What a stream sends.
pub enum Event<C> {
    /// A change, with the cursor to continue from after it.
    Change(String, Arc<Row<C>>),
    /// Once: everything that was in the feed was sent; what follows are changes as they are committed.
    CaughtUp(WatchPosition),
    /// Nothing has changed for some time.
    Heartbeat(WatchPosition),
}

/// What ends a stream from outside.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// How long the caller waits for all of it; `None` for any time.
    pub time: Option<Duration>,
    /// Cancelled when the connection takes no more calls.
    pub closing: Option<Closing>,
}

/// Cancelled when a connection takes no more calls, because it is old or the process stops: its streams end then. Each request
/// has it as an extension.
#[derive(Debug, Clone, Default)]
pub struct Closing(pub CancellationToken);

/// A stream of events. Its last item may be an error; without one, the process stops or the connection is old, and the caller
/// can watch again from the last cursor.
pub struct WatchStream<C> {
    events: mpsc::Receiver<Event<C>>,
    /// Why the stream ends.
    failure: Option<oneshot::Receiver<Error>>,
}

impl<C> Stream for WatchStream<C> {
    type Item = Result<Event<C>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.events.poll_recv(context) {
            Poll::Ready(Some(event)) => return Poll::Ready(Some(Ok(event))),
            Poll::Ready(None) => {}
            Poll::Pending => return Poll::Pending,
        }
        let Some(failure) = &mut self.failure else {
            return Poll::Ready(None);
        };
        match Pin::new(failure).poll(context) {
            Poll::Ready(failure) => {
                self.failure = None;
                Poll::Ready(failure.ok().map(Err))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Watches a feed after a cursor, which `field` names; without one from the beginning. What the first statement
/// reflects comes with the stream.
///
/// # Errors
/// INVALID_ARGUMENT: the cursor is not one of this feed. RESYNC: the view was rebuilt, and changes that the cursor has passed
/// are at other positions now. VIEW_NOT_READY: the feed is empty while the view is not built. OVERLOADED: the process has as
/// many streams as it allows. The database's errors. The stream may end with RESYNC, too, and with READER_TOO_SLOW,
/// DATABASE_UNAVAILABLE or DEADLINE_EXCEEDED.
pub async fn watch<F: Feed>(
    reads: &Reads,
    filter: F,
    (field, after): (&str, Option<&str>),
    limits: Limits,
) -> Result<Answer<WatchStream<F::Change>>, Error> {
    let permit = reads.watches().admit()?;
    let after = after.map(|text| match Cursor::parse(text) {
        Some(cursor) => Ok(cursor),
        None => Err(Error::invalid(field, "is not a cursor of this feed")),
    });
    let reading = Reading::after(after.transpose()?);
    let shared: Arc<Shared<F::Change>> = reads.watches().of::<F, _>();
    let number = shared.number();
    let resume = reads.resume(field, &reading.cursor).await?;
    let first = read_batch(reads, &filter, resume, PAGE, "own").await?;
    if first.rows.is_empty() && reading.cursor == Cursor::default() {
        first.reflects.check_ready()?;
    }
    let position = first.reflects.clone();
    let (events, received) = mpsc::channel(BUFFER);
    let (failed, failure) = oneshot::channel();
    let watcher = Watcher {
        token: position.token.to_string(),
        reads: reads.clone(),
        filter,
        shared,
        reading,
        has_caught_up: false,
        sent_at: Instant::now(),
        events,
    };
    let watching = watcher.run(first, number, limits, failed, permit);
    tokio::spawn(watching.in_current_span());
    let body = WatchStream {
        events: received,
        failure: Some(failure),
    };
    Ok(Answer { body, position })
}

/// One stream.
struct Watcher<F: Feed> {
    reads: Reads,
    filter: F,
    shared: Arc<Shared<F::Change>>,
    reading: Reading,
    /// What the stream has reached.
    token: String,
    has_caught_up: bool,
    sent_at: Instant,
    events: mpsc::Sender<Event<F::Change>>,
}

/// Why a stream ends.
enum End {
    /// The caller has left.
    Left,
    /// The caller is to be sent this error.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Ended by [`Watcher::run`] only.
type Never = std::convert::Infallible;

impl<F: Feed> Watcher<F> {
    async fn run(
        mut self,
        first: Batch<F::Change>,
        number: Option<u64>,
        limits: Limits,
        failed: oneshot::Sender<Error>,
        _permit: OwnedSemaphorePermit,
    ) {
        let watchers = metrics::gauge!(telemetry::WATCHERS, "domain" => F::DOMAIN);
        watchers.increment(1.0);
        let _present = self.shared.enter();
        let stop = self.reads.work().stop.clone();
        let closing = limits.closing.unwrap_or_default().0;
        let events = self.events.clone();
        let time = async {
            match limits.time {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            end = self.send_everything(first, number) => {
                let Err(end) = end;
                Some(end)
            }
            () = events.closed() => None,
            () = stop.cancelled() => None,
            () = closing.cancelled() => None,
            () = time => Some(End::Failed(Error::deadline_exceeded())),
        };
        if let Some(End::Failed(error)) = end {
            let _ = failed.send(error);
        }
        watchers.decrement(1.0);
    }

    async fn send_everything(
        &mut self,
        first: Batch<F::Change>,
        mut number: Option<u64>,
    ) -> Result<Never, End> {
        let mut batch = first;
        loop {
            self.reading.begin(&batch);
            self.send(&batch).await?;
            if batch.is_complete {
                if let Some(number) = number {
                    self.follow(number).await?;
                }
                self.reader_is_current().await?;
            }
            number = self.shared.number();
            batch = self.read().await?;
        }
    }

    /// Sends batches of the ring from a number on. Returns when the next one is not in it.
    async fn follow(&mut self, mut number: u64) -> Result<(), End> {
        let mut changes = self.shared.subscribe();
        let mut read_at = Instant::now();
        loop {
            changes.borrow_and_update();
            match self.shared.get(number) {
                Next::Batch(batch) if batch.view_version == self.reading.cursor.view_version => {
                    self.send(&batch).await?;
                    number += 1;
                    read_at = Instant::now();
                }
                Next::Batch(_) | Next::Gone => return Ok(()),
                Next::NotYet => tokio::select! {
                    _ = changes.changed() => {}
                    () = sleep_until(self.sent_at + HEARTBEAT) => {
                        self.send_event(Event::Heartbeat(self.position())).await?;
                    }
                    () = sleep_until(read_at + SILENCE) => return Err(silent().into()),
                },
            }
        }
    }

    /// Waits until a reader adds all commits to the ring, and becomes the reader if there is none.
    async fn reader_is_current(&self) -> Result<(), End> {
        let mut changes = self.shared.subscribe();
        let until = Instant::now() + SILENCE;
        loop {
            changes.borrow_and_update();
            if self.shared.number().is_some() {
                return Ok(());
            }
            if let Some(reader) = self.shared.begin_reading() {
                tokio::spawn(keep_reading::<F>(self.reads.clone(), reader));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(until) => return Err(silent().into()),
            }
        }
    }

    /// Reads the next page from the database. While that fails, it tries again.
    async fn read(&self) -> Result<Batch<F::Change>, End> {
        let until = Instant::now() + SILENCE;
        loop {
            let read = async {
                let resume = self.reads.resume("after", &self.reading.cursor).await?;
                read_batch(&self.reads, &self.filter, resume, PAGE, "own").await
            };
            let error = match read.await {
                Ok(batch) => return Ok(batch),
                Err(error) => error,
            };
            match error.code() {
                Code::DatabaseUnavailable | Code::DeadlineExceeded if Instant::now() < until => {
                    sleep(RETRY_PAUSE).await;
                }
                // A partition of the cursor does not exist any more.
                Code::InvalidArgument => return Err(cursor::resync().into()),
                _ => return Err(error.into()),
            }
        }
    }

    async fn send(&mut self, batch: &Batch<F::Change>) -> Result<(), End> {
        for row in &batch.rows {
            let is_sent = match self.reading.pass(row) {
                Passed::Again => false,
                Passed::InSnapshot => F::is_in_snapshot(&row.change),
                Passed::Change => true,
            };
            if is_sent && self.filter.passes(&row.change) {
                let event = Event::Change(self.reading.cursor.to_string(), row.clone());
                self.send_event(event).await?;
            }
        }
        self.reading.finish(batch);
        if batch.is_complete {
            self.token = batch.reflects.token.to_string();
            // Before the view was built for the first time, nobody can say that this is all.
            if !self.has_caught_up && batch.reflects.is_ready {
                self.has_caught_up = true;
                self.send_event(Event::CaughtUp(self.position())).await?;
            }
        }
        Ok(())
    }

    async fn send_event(&mut self, event: Event<F::Change>) -> Result<(), End> {
        match timeout(STALLED, self.events.send(event)).await {
            Ok(Ok(())) => {
                self.sent_at = Instant::now();
                Ok(())
            }
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(too_slow().into()),
        }
    }

    fn position(&self) -> WatchPosition {
        WatchPosition {
            cursor: self.reading.cursor.to_string(),
            consistency_token: self.token.clone(),
        }
    }
}

fn silent() -> Error {
    Error::new(
        Code::DatabaseUnavailable,
        "The database has not answered for 30 seconds, so changes may be missing. Watch again from the last cursor.",
    )
    .with_retry_after(Duration::from_secs(1))
}

fn too_slow() -> Error {
    Error::new(
        Code::ReaderTooSlow,
        "Nothing of the stream was read for 60 seconds. Watch again from the last cursor.",
    )
}
