//! What the watchers of one feed share: the last batches that the feed's one reader has read, in their order.
//!
//! Batches are numbered. A watcher takes the number of the next batch *before* it reads pages of its own from the database, and
//! follows the ring from that number once a page has shown it the end of the feed. A change that was committed after that page
//! was read is in a batch with that number or a later one, because the reader, too, reads it only later. So the watcher misses
//! nothing; what both the page and a batch contain, it recognizes by its feed position.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::batch::Batch;

/// The most batches in a ring.
const MAX_BATCHES: usize = 2_000;
/// The most bytes of documents in a ring; the last batch stays, whatever its size.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long the reader goes on without watchers: one that reconnects finds it running.
const LINGER: Duration = Duration::from_secs(10);

/// The batches that were read last.
struct Ring<C> {
    /// The number of the first batch.
    first: u64,
    batches: VecDeque<Arc<Batch<C>>>,
    bytes: usize,
}

/// What a ring has under a number.
pub enum Next<C> {
    /// The batch.
    Batch(Arc<Batch<C>>),
    /// The batch is not read yet.
    NotYet,
    /// The batch is not in the ring any more, or never was: read the database.
    Gone,
}

impl<C> Default for Ring<C> {
    fn default() -> Self {
        Self {
            first: 0,
            batches: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<C> Ring<C> {
    /// The number of the next batch.
    fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    fn push(&mut self, batch: Batch<C>) {
        self.bytes += batch.bytes;
        self.batches.push_back(Arc::new(batch));
        while self.batches.len() > MAX_BATCHES || self.bytes > MAX_BYTES && self.batches.len() > 1 {
            let Some(batch) = self.batches.pop_front() else {
                break;
            };
            self.bytes -= batch.bytes;
            self.first += 1;
        }
    }

    /// Leaves a number out, so that all who wait for it or for a batch before it read the database.
    fn interrupt(&mut self) {
        self.first = self.end() + 1;
        self.batches.clear();
        self.bytes = 0;
    }

    fn get(&self, number: u64) -> Next<C> {
        if number == self.end() {
            return Next::NotYet;
        }
        let index = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.batches.get(index)) {
            Some(batch) => Next::Batch(batch.clone()),
            None => Next::Gone,
        }
    }
}

/// What the watchers of one feed share.
pub struct Shared<C> {
    state: Mutex<State<C>>,
    /// Changes with everything that a watcher may wait for.
    changed: watch::Sender<()>,
}

struct State<C> {
    ring: Ring<C>,
    /// Whether there is a reader.
    is_read: bool,
    /// Whether the reader knows from where it reads: everything that is committed from now on comes into the ring.
    is_current: bool,
    watchers: usize,
    /// When the last watcher left.
    unwatched_since: Instant,
}

impl<C> Default for Shared<C> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ring: Ring::default(),
                is_read: false,
                is_current: false,
                watchers: 0,
                unwatched_since: Instant::now(),
            }),
            changed: watch::Sender::default(),
        }
    }
}

impl<C> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a batch was added, and whenever the reader begins or ends.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Counts a watcher until what is returned is dropped.
    pub fn enter(self: &Arc<Self>) -> Watcher<C> {
        self.lock().watchers += 1;
        Watcher(self.clone())
    }

    /// The right to be the reader, if there is none.
    pub fn begin_reading(self: &Arc<Self>) -> Option<Reader<C>> {
        let mut state = self.lock();
        if state.is_read {
            return None;
        }
        state.is_read = true;
        Some(Reader(Some(self.clone())))
    }

    /// The number from which a watcher may follow the ring once it has read the database up to the end; `None` while there is
    /// no reader that knows from where it reads.
    pub fn number(&self) -> Option<u64> {
        let state = self.lock();
        state.is_current.then(|| state.ring.end())
    }

    /// The batch with a number.
    pub fn get(&self, number: u64) -> Next<C> {
        self.lock().ring.get(number)
    }
}

/// A watcher, which counts as one until it is dropped.
pub struct Watcher<C>(Arc<Shared<C>>);

impl<C> Drop for Watcher<C> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.watchers -= 1;
        state.unwatched_since = Instant::now();
    }
}

/// The reader of a feed. When it is dropped, watchers read the database, and the next one becomes possible.
pub struct Reader<C>(Option<Arc<Shared<C>>>);

impl<C> Reader<C> {
    fn change(&self, change: impl FnOnce(&mut State<C>)) {
        if let Some(shared) = &self.0 {
            change(&mut shared.lock());
            shared.changed.send_replace(());
        }
    }

    /// From now on, the reader adds everything that is committed.
    pub fn is_current(&self) {
        self.change(|state| state.is_current = true);
    }

    /// Adds a batch.
    pub fn add(&self, batch: Batch<C>) {
        self.change(|state| state.ring.push(batch));
    }

    /// Sends all watchers to the database: what they have read may mean something else now.
    pub fn interrupt(&self) {
        self.change(|state| {
            state.is_current = false;
            state.ring.interrupt();
        });
    }

    /// Ends reading if nobody has watched for some time; returns whether it has.
    pub fn end_unwatched(&mut self) -> bool {
        let Some(shared) = &self.0 else { return true };
        let mut state = shared.lock();
        if state.watchers > 0 || state.unwatched_since.elapsed() < LINGER {
            return false;
        }
        state.end();
        drop(state);
        self.0 = None;
        true
    }
}

impl<C> State<C> {
    fn end(&mut self) {
        self.is_read = false;
        self.is_current = false;
        self.ring.interrupt();
    }
}

impl<C> Drop for Reader<C> {
    fn drop(&mut self) {
        self.change(State::end);
    }
}
