//! The streams of a process: how many there may be, and what those of one feed share.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error};

/// Open streams in a process, of all feeds.
const MAX_STREAMS: usize = 1_000;

/// The streams of a process.
pub struct Watches {
    permits: Arc<Semaphore>,
    /// What the watchers of a feed share, by the type of the feed.
    feeds: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_STREAMS)),
            feeds: Mutex::default(),
        }
    }
}

impl Watches {
    /// A permit for one stream, which counts until it is dropped.
    ///
    /// # Errors
    /// OVERLOADED: there are as many as the process allows.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.permits.clone().try_acquire_owned().map_err(|_| {
            let detail = "The gateway has reached its limit of open streams. Try again later, or watch on another instance.";
            Error::new(Code::Overloaded, detail).with_retry_after(Duration::from_secs(10))
        })
    }

    /// What the watchers of the feed `F` share.
    pub fn of<F: 'static, S: Default + Send + Sync + 'static>(&self) -> Arc<S> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = feeds
            .entry(TypeId::of::<F>())
            .or_insert_with(|| Arc::new(S::default()));
        // One feed has one type of what is shared, so the fallback is never taken.
        shared.clone().downcast().unwrap_or_default()
    }
}
