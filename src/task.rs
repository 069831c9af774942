//! Supervision: which tasks run, what happens when one ends, fails or panics, and how the process stops.
//!
//! Promises: a task's end is never unnoticed; a panic is an error like another; SIGINT or SIGTERM cancels all tasks
//! and waits for them up to the grace; a second signal exits at once.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Exit code after a failure, or a shutdown that took longer than the grace.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of a start refused because of a setting.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code after a second signal.
pub const EXIT_FORCED: u8 = 130;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LARGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A task that ran this long begins again with the first backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// What follows when a task ends although nobody asked it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process is of no use without it (a server): its end, error or panic shuts the process down.
    Vital,
    /// It works for ever against systems that come and go (a projector, a reader of progress): its end, error or
    /// panic starts it again, after a backoff.
    Lasting,
    /// It has a purpose and then ends: an error or panic starts it again, after a backoff, its end does not.
    Finite,
}

/// Spawns tasks and stops them together. Cheap to clone: a task may spawn others.
#[derive(Clone)]
pub struct Supervisor {
    stop: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
}

/// SIGINT and SIGTERM, caught from the moment this is made: make it before the first slow thing.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to catch both. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// One without tasks.
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            failed: Arc::default(),
        }
    }

    /// Cancelled when the process is to stop; cancelling it stops the process.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs what `make` makes, again and again where `kind` says so. The future gets the stop token and should end
    /// soon after it is cancelled; its result then no longer matters.
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, kind: Kind, mut make: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (name, this) = (name.into(), self.clone());
        self.tracker.spawn(async move {
            let mut backoff = FIRST_BACKOFF;
            while !this.stop.is_cancelled() {
                let started = tokio::time::Instant::now();
                // A task of its own, because its panic must end there.
                let result = tokio::spawn(make(this.stop.clone())).await;
                if this.stop.is_cancelled() {
                    return;
                }
                let what = match result {
                    Ok(Ok(())) if kind == Kind::Finite => return,
                    Ok(Ok(())) => "ended".to_owned(),
                    Ok(Err(error)) => format!("failed: {error:#}"),
                    // The panic hook has logged where; the payload may quote data.
                    Err(_) => "panicked".to_owned(),
                };
                if kind == Kind::Vital {
                    error!(task = name, "task {what}: shutting down");
                    this.failed.store(true, Ordering::Relaxed);
                    this.stop.cancel();
                    return;
                }
                if started.elapsed() > HEALTHY_AFTER {
                    backoff = FIRST_BACKOFF;
                }
                warn!(task = name, backoff_ms = backoff.as_millis() as u64, "task {what}: starting it again");
                metrics::counter!(crate::telemetry::TASK_RESTARTS, "task" => name.clone()).increment(1);
                tokio::select! {
                    () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(LARGEST_BACKOFF),
                    () = this.stop.cancelled() => return,
                }
            }
        });
    }

    /// Waits for a signal or for the stop token, then for the tasks, up to `grace`, and says how it went: success
    /// after an orderly stop, [`EXIT_FAILURE`] where a vital task had failed or the grace was too short. A second
    /// signal ends the process with [`EXIT_FORCED`].
    pub async fn run(self, mut signals: Signals, grace: Duration) -> ExitCode {
        tokio::select! {
            name = signals.next() => info!(grace_s = grace.as_secs(), "{name}: stopping; a second one stops at once"),
            () = self.stop.cancelled() => info!(grace_s = grace.as_secs(), "stopping"),
        }
        self.stop.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {
                info!("stopped");
                ExitCode::from(if self.failed.load(Ordering::Relaxed) { EXIT_FAILURE } else { 0 })
            }
            () = tokio::time::sleep(grace) => {
                error!(tasks = self.tracker.len(), "tasks still running after the grace");
                ExitCode::from(EXIT_FAILURE)
            }
            name = signals.next() => {
                error!("{name} again: leaving at once");
                std::process::exit(EXIT_FORCED.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Spawns a task that does as `act` says at its n-th start, and tells how often it was started.
    fn spawn(
        supervisor: &Supervisor,
        kind: Kind,
        act: fn(usize) -> anyhow::Result<bool>,
    ) -> Arc<AtomicUsize> {
        let starts = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&starts);
        supervisor.spawn("test", kind, move |stop| {
            let start = counter.fetch_add(1, Ordering::Relaxed);
            async move {
                if act(start)? {
                    stop.cancelled().await;
                }
                Ok(())
            }
        });
        starts
    }

    async fn run(supervisor: Supervisor) -> String {
        let signals = Signals::catch().unwrap();
        let code = supervisor.run(signals, Duration::from_millis(100)).await;
        format!("{code:?}")
    }

    #[tokio::test]
    async fn ends_errors_and_panics_start_a_lasting_task_again() {
        let supervisor = Supervisor::new();
        let starts = spawn(&supervisor, Kind::Lasting, |start| match start {
            0 => anyhow::bail!("no"),
            1 => panic!("a panic of a test"),
            2 => Ok(false),
            _ => Ok(true),
        });
        let ended = spawn(&supervisor, Kind::Finite, |_| Ok(false));
        while starts.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(ended.load(Ordering::Relaxed), 1);
        supervisor.stop().cancel();
        assert_eq!(run(supervisor).await, format!("{:?}", ExitCode::SUCCESS));
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_stops_the_others_and_is_a_failure() {
        let supervisor = Supervisor::new();
        spawn(&supervisor, Kind::Lasting, |_| Ok(true));
        spawn(&supervisor, Kind::Vital, |_| Ok(false));
        assert_eq!(
            run(supervisor).await,
            format!("{:?}", ExitCode::from(EXIT_FAILURE))
        );
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_left_after_the_grace() {
        let supervisor = Supervisor::new();
        supervisor.spawn("deaf", Kind::Lasting, |_| std::future::pending());
        tokio::task::yield_now().await;
        supervisor.stop().cancel();
        assert_eq!(
            run(supervisor).await,
            format!("{:?}", ExitCode::from(EXIT_FAILURE))
        );
    }
}
