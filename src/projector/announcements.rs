//! Announces commits of a domain to requests that wait for them: in this process directly, in others by a notice of Postgres. The notice
//! is sent after the commit, on a connection of its own: NOTIFY inside a transaction takes a lock of the whole database until
//! the commit.
//!
//! A notice may be lost together with a connection. Waiters have deadlines of their own, and look again after each reconnection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::db;

/// The channel of the notices, whose payloads are `<domain> <process>`.
const CHANNEL: &str = "sightline_commits";
/// Commits of so long are announced to other processes together.
const PAUSE: Duration = Duration::from_millis(10);
/// How long sending a notice may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The connection is checked so often, whether its server still answers and takes writes.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause before a lost connection is replaced.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The waiters of each domain's commits. Cheap to clone.
#[derive(Clone)]
pub struct Announcements(Arc<Inner>);

struct Inner {
    /// The id of this process, which ignores its own notices.
    process: Uuid,
    /// Wakes the waiters of each domain.
    waiting: Mutex<BTreeMap<&'static str, watch::Sender<()>>>,
    /// Domains whose commits are still to be announced to other processes.
    unsent: Mutex<BTreeSet<&'static str>>,
    has_unsent: Notify,
}

impl Default for Announcements {
    fn default() -> Self {
        Self(Arc::new(Inner {
            process: Uuid::new_v4(),
            waiting: Mutex::default(),
            unsent: Mutex::default(),
            has_unsent: Notify::new(),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Announcements {
    /// Announces that a transaction which changed the domain's live view, or what belongs to it, was committed.
    pub fn announce(&self, domain: &'static str) {
        self.wake(Some(domain));
        if lock(&self.0.unsent).insert(domain) {
            self.0.has_unsent.notify_one();
        }
    }

    /// Wakes this process's waiters of a domain; with `None`, of all domains.
    fn wake(&self, of: Option<&str>) {
        for (domain, sender) in &*lock(&self.0.waiting) {
            if of.is_none_or(|of| of == *domain) {
                sender.send_replace(());
            }
        }
    }

    /// Changes with every later announcement of a domain.
    pub fn subscribe(&self, domain: &'static str) -> watch::Receiver<()> {
        lock(&self.0.waiting).entry(domain).or_default().subscribe()
    }

    /// Exchanges announcements with other processes until it is dropped.
    pub async fn exchange(&self, pool: &PgPool) {
        futures_util::future::join(self.send(pool), self.receive(pool)).await;
    }

    async fn send(&self, pool: &PgPool) {
        loop {
            self.0.has_unsent.notified().await;
            let unsent = std::mem::take(&mut *lock(&self.0.unsent));
            let notices: Vec<String> = unsent
                .into_iter()
                .map(|domain| format!("{domain} {}", self.0.process))
                .collect();
            let sent = async {
                sqlx::query!(
                    "SELECT pg_notify($1, notice) FROM unnest($2::text[]) AS notice",
                    CHANNEL,
                    &notices
                )
                .fetch_all(pool)
                .await
            };
            // Where it fails, the connections of the others are lost, too: they look again by themselves.
            if let Err(error) = db::within(DEADLINE, sent).await {
                let error = db::describe(&error);
                tracing::debug!(error, "commits could not be announced to other processes");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn receive(&self, pool: &PgPool) {
        loop {
            let Err(error) = self.listen(pool).await;
            let error = db::describe(&error);
            tracing::debug!(
                error,
                "the connection for announcements of other processes was lost"
            );
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn listen(&self, pool: &PgPool) -> Result<std::convert::Infallible, sqlx::Error> {
        let mut listener = db::within(DEADLINE, async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        })
        .await?;
        // Anything may have been announced before.
        self.wake(None);
        let mut check_at = Instant::now() + CHECK_INTERVAL;
        loop {
            match tokio::time::timeout_at(check_at, listener.try_recv()).await {
                Ok(Ok(Some(notice))) => self.received(notice.payload()),
                Ok(Ok(None)) => return Err(sqlx::Error::WorkerCrashed),
                Ok(Err(error)) => return Err(error),
                // On a server that is gone or was demoted nothing is committed, and nothing announced.
                Err(_) => {
                    db::within(DEADLINE, db::refuse_read_only(&mut listener)).await?;
                    check_at = Instant::now() + CHECK_INTERVAL;
                }
            }
        }
    }

    fn received(&self, notice: &str) {
        if let Some((domain, process)) = notice.split_once(' ')
            && process != self.0.process.to_string()
        {
            self.wake(Some(domain));
        }
    }
}
