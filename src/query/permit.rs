//! A call's permit to run at once with others of its surface. A call that only waits returns it meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    static PERMIT: CallPermit;
}

/// A permit, until it is dropped.
pub struct CallPermit {
    permits: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl CallPermit {
    /// A permit, if one is free.
    pub fn take(permits: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        Some(Self {
            permits: Arc::clone(permits),
            permit: Mutex::new(Some(permit)),
        })
    }

    /// Runs a call that has this permit.
    pub async fn run<T>(self, call: impl Future<Output = T>) -> T {
        PERMIT.scope(self, call).await
    }

    fn set(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// Returns the current call's permit for good.
pub fn leave() {
    let _ = PERMIT.try_with(|current| current.set(None));
}

/// Waits without the current call's permit, then queues for one.
pub async fn wait_without_permit<T>(wait: impl Future<Output = T>) -> T {
    let permits = PERMIT.try_with(|current| {
        current.set(None);
        Arc::clone(&current.permits)
    });
    let done = wait.await;
    if let Ok(permits) = permits {
        let permit = permits.acquire_owned().await.ok();
        PERMIT.with(|current| current.set(permit));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_waits_leaves_its_permit_to_another() {
        let permits = Arc::new(Semaphore::new(1));
        let permit = CallPermit::take(&permits).unwrap();
        permit
            .run(async {
                assert!(CallPermit::take(&permits).is_none());
                wait_without_permit(async { assert!(CallPermit::take(&permits).is_some()) }).await;
                assert!(CallPermit::take(&permits).is_none());
            })
            .await;
        let permit = CallPermit::take(&permits).unwrap();
        permit
            .run(async {
                leave();
                assert!(CallPermit::take(&permits).is_some());
            })
            .await;
        wait_without_permit(async {}).await;
    }
}
