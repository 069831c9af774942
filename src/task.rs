//! Supervision: which tasks run, what happens when one ends, fails or panics, and how the process
//! stops.
//!
//! Promises: every unexpected end of a task is logged and handled, a panic like an error; SIGINT or
//! SIGTERM cancels all tasks and waits for them up to the grace; a second signal exits at once.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Exit code after a failure, or after a shutdown that took longer than the grace.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code where a setting or an argument can't be used.
pub const EXIT_CONFIG: u8 = 2;
/// Exit code after a second signal.
pub const EXIT_FORCED: u8 = 130;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LARGEST_BACKOFF: Duration = Duration::from_secs(30);
/// After a run of this length, the next restart waits the first backoff again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Spawns tasks and stops them together. Clones share the tasks and the stop token.
#[derive(Clone)]
pub struct Supervisor {
    stop: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
    runtime: Handle,
}

/// Catches SIGINT and SIGTERM from its creation on: create it before anything slow.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to catch both signals. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal and returns its name.
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
    /// A supervisor without tasks. They run on the current Tokio runtime, without which this panics.
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            failed: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// The same supervisor, for tasks that run on another runtime.
    #[must_use]
    pub fn on(&self, runtime: &Handle) -> Self {
        Self {
            runtime: runtime.clone(),
            ..self.clone()
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// The token that is cancelled when the process stops. Cancelling it stops the process.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task that the process can't do without (a server). Where it ends, fails or panics
    /// before the stop token is cancelled, the process shuts down with [`EXIT_FAILURE`].
    pub fn spawn_vital<Fut>(&self, name: &'static str, task: Fut)
    where
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let this = self.clone();
        self.spawn(async move {
            if this.stop.is_cancelled() {
                return;
            }
            let how = outcome(task).await;
            if !this.stop.is_cancelled() {
                error!(task = name, "task {how}: shutting down");
                this.failed.store(true, Ordering::Relaxed);
                this.stop.cancel();
            }
        });
    }

    /// Runs a task that works until the process stops, against systems that fail and recover (a
    /// projector). Where it ends, fails or panics, `make` makes it again after a backoff. `make`
    /// gets the stop token; the task should end soon after the token is cancelled, and its result
    /// is ignored then.
    pub fn spawn_lasting<F, Fut>(&self, name: impl Into<String>, make: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.spawn(self.clone().run_lasting(name.into(), make));
    }

    /// Like [`Self::spawn_lasting`], but the task starts only once `condition` is true.
    pub fn spawn_lasting_after<F, Fut>(
        &self,
        mut condition: watch::Receiver<bool>,
        name: impl Into<String>,
        make: F,
    ) where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (this, name) = (self.clone(), name.into());
        self.spawn(async move {
            let holds = async { condition.wait_for(|holds| *holds).await.is_ok() };
            if this.stop.run_until_cancelled(holds).await == Some(true) {
                this.run_lasting(name, make).await;
            }
        });
    }

    async fn run_lasting<F, Fut>(self, name: String, mut make: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let mut backoff = FIRST_BACKOFF;
        while !self.stop.is_cancelled() {
            let started = tokio::time::Instant::now();
            let how = outcome(make(self.stop.clone())).await;
            if self.stop.is_cancelled() {
                return;
            }
            if started.elapsed() > HEALTHY_AFTER {
                backoff = FIRST_BACKOFF;
            }
            let backoff_ms = backoff.as_millis() as u64;
            warn!(
                task = name,
                backoff_ms, "task {how}: restarting it after the backoff"
            );
            metrics::counter!(crate::telemetry::TASK_RESTARTS, "task" => name.clone()).increment(1);
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(LARGEST_BACKOFF),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Waits for a signal or for the stop token, then for the tasks, up to `grace`. Returns success
    /// after an orderly stop, and [`EXIT_FAILURE`] where a vital task failed or the grace was too
    /// short. A second signal ends the process with [`EXIT_FORCED`].
    pub async fn run(self, mut signals: Signals, grace: Duration) -> ExitCode {
        tokio::select! {
            name = signals.next() => info!(grace_s = grace.as_secs(), "{name}: stopping; a second signal exits at once"),
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
                error!(tasks = self.tracker.len(), "tasks are still running after the grace");
                ExitCode::from(EXIT_FAILURE)
            }
            name = signals.next() => {
                error!("{name} is a second signal: exiting at once");
                std::process::exit(EXIT_FORCED.into())
            }
        }
    }
}

/// Runs a task to its end and says how it ended: `ended`, `failed: <error>` or `panicked`.
async fn outcome<Fut>(task: Fut) -> String
where
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    // A Tokio task of its own contains a panic.
    match tokio::spawn(task).await {
        Ok(Ok(())) => "ended".to_owned(),
        Ok(Err(error)) => format!("failed: {error:#}"),
        // The panic hook has logged the location; the payload may quote data.
        Err(_) => "panicked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    async fn run(supervisor: Supervisor) -> String {
        let signals = Signals::catch().unwrap();
        let code = supervisor.run(signals, Duration::from_millis(100)).await;
        format!("{code:?}")
    }

    async fn becomes(counter: &AtomicUsize, expected: usize) {
        while counter.load(Ordering::Relaxed) < expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn ends_errors_and_panics_start_a_lasting_task_again() {
        let supervisor = Supervisor::new();
        let starts = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&starts);
        supervisor.spawn_lasting("test", move |stop| {
            let start = counter.fetch_add(1, Ordering::Relaxed);
            async move {
                match start {
                    0 => anyhow::bail!("no"),
                    1 => panic!("a panic of a test"),
                    2 => {}
                    _ => stop.cancelled().await,
                }
                Ok(())
            }
        });
        becomes(&starts, 4).await;
        supervisor.stop().cancel();
        assert_eq!(run(supervisor).await, format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(starts.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_task_starts_only_after_its_condition() {
        let supervisor = Supervisor::new();
        let starts = Arc::<AtomicUsize>::default();
        let (sender, receiver) = watch::channel(false);
        let counter = Arc::clone(&starts);
        supervisor.spawn_lasting_after(receiver, "test", move |stop| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move {
                stop.cancelled().await;
                Ok(())
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 0);
        sender.send_replace(true);
        becomes(&starts, 1).await;
        supervisor.stop().cancel();
        assert_eq!(run(supervisor).await, format!("{:?}", ExitCode::SUCCESS));
    }

    #[tokio::test]
    async fn a_condition_that_never_holds_does_not_delay_the_stop() {
        let supervisor = Supervisor::new();
        let (_sender, receiver) = watch::channel(false);
        supervisor.spawn_lasting_after(receiver, "test", |_| async { unreachable!() });
        supervisor.stop().cancel();
        assert_eq!(run(supervisor).await, format!("{:?}", ExitCode::SUCCESS));
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_stops_the_others_and_is_a_failure() {
        let supervisor = Supervisor::new();
        supervisor.spawn_lasting("other", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        supervisor.spawn_vital("test", async { Ok(()) });
        assert_eq!(
            run(supervisor).await,
            format!("{:?}", ExitCode::from(EXIT_FAILURE))
        );
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_left_after_the_grace() {
        let supervisor = Supervisor::new();
        supervisor.spawn_lasting("deaf", |_| std::future::pending());
        tokio::task::yield_now().await;
        supervisor.stop().cancel();
        assert_eq!(
            run(supervisor).await,
            format!("{:?}", ExitCode::from(EXIT_FAILURE))
        );
    }
}
