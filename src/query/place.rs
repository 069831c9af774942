//! A call's place among those that run at once on its surface. A call that only waits gives it to others meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    static PLACE: Place;
}

/// A place, until it is dropped.
pub struct Place {
    permits: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Place {
    /// A place, if one is free.
    pub fn take(permits: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        Some(Self {
            permits: Arc::clone(permits),
            held: Mutex::new(Some(permit)),
        })
    }

    /// Runs a call that has this place.
    pub async fn hold<T>(self, call: impl Future<Output = T>) -> T {
        PLACE.scope(self, call).await
    }

    fn set(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// Waits without the current call's place, then queues for one.
pub async fn leave_for<T>(wait: impl Future<Output = T>) -> T {
    let permits = PLACE.try_with(|place| {
        place.set(None);
        Arc::clone(&place.permits)
    });
    let done = wait.await;
    if let Ok(permits) = permits {
        let permit = permits.acquire_owned().await.ok();
        PLACE.with(|place| place.set(permit));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_waits_leaves_its_place_to_another() {
        let permits = Arc::new(Semaphore::new(1));
        let place = Place::take(&permits).unwrap();
        place
            .hold(async {
                assert!(Place::take(&permits).is_none());
                leave_for(async { assert!(Place::take(&permits).is_some()) }).await;
                assert!(Place::take(&permits).is_none());
            })
            .await;
        assert!(Place::take(&permits).is_some());
        leave_for(async {}).await;
    }
}
