//! Read replicas: standbys of the database, which answer reads that they are fresh enough for.
//!
//! A replica whose heartbeats are older than the primary's by more than a few seconds is not used. Of the others each answer
//! still carries its own position: where a caller demands more than a replica has, or a replica fails, the primary is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::lookups::Lookups;
use crate::db;

/// How far a replica may be behind the primary, by the heartbeats that it has.
const MAX_BEHIND: TimeDelta = TimeDelta::seconds(10);
/// How long a comparison may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// A server that answers reads.
pub struct Source {
    /// Its connections.
    pub pool: PgPool,
    /// Look-ups of single rows on it.
    pub lookups: Arc<Lookups>,
}

impl Source {
    /// The primary.
    pub fn primary(pool: PgPool) -> Self {
        let lookups = Arc::new(Lookups::new(pool.clone(), true));
        Self { pool, lookups }
    }

    fn replica(pool: PgPool) -> Self {
        let lookups = Arc::new(Lookups::new(pool.clone(), false));
        Self { pool, lookups }
    }
}

struct Replica {
    source: Source,
    /// Whether it was close enough to the primary when they were compared last.
    is_fresh: AtomicBool,
}

/// All replicas.
#[derive(Default)]
pub struct Replicas {
    replicas: Vec<Replica>,
    last: AtomicUsize,
}

tokio::task_local! {
    static CHOSEN: usize;
}

impl Replicas {
    /// Replicas with these connections.
    pub fn new(pools: Vec<PgPool>) -> Self {
        let replicas = pools.into_iter().map(|pool| Replica {
            source: Source::replica(pool),
            is_fresh: AtomicBool::new(false),
        });
        Self {
            replicas: replicas.collect(),
            last: AtomicUsize::new(0),
        }
    }

    /// The next of those that are fresh, one after the other.
    pub fn next(&self) -> Option<usize> {
        let count = self.replicas.len();
        if count == 0 {
            return None;
        }
        let first = self.last.fetch_add(1, Ordering::Relaxed);
        let mut order = (0..count).map(|n| first.wrapping_add(n) % count);
        order.find(|n| self.replicas[*n].is_fresh.load(Ordering::Relaxed))
    }

    /// Runs a read on a replica.
    pub async fn on<T>(&self, replica: usize, read: impl Future<Output = T>) -> T {
        CHOSEN.scope(replica, read).await
    }

    /// The replica that the current read runs on, if it runs on one.
    pub fn chosen(&self) -> Option<&Source> {
        let chosen = CHOSEN.try_with(|chosen| *chosen).ok()?;
        Some(&self.replicas.get(chosen)?.source)
    }

    /// Finds out which replicas are fresh. While the primary does not answer, they are taken as they were.
    pub async fn compare(&self, primary: &PgPool) {
        if self.replicas.is_empty() {
            return;
        }
        let Ok(newest) = db::within(DEADLINE, newest_heartbeat(primary)).await else {
            return;
        };
        for replica in &self.replicas {
            let found = db::within(DEADLINE, newest_heartbeat(&replica.source.pool)).await;
            let is_fresh = match (&found, newest) {
                (Ok(Some(found)), Some(newest)) => newest - *found <= MAX_BEHIND,
                (Ok(_), None) => true,
                _ => false,
            };
            if replica.is_fresh.swap(is_fresh, Ordering::Relaxed) != is_fresh {
                let options = replica.source.pool.connect_options();
                let host = options.get_host();
                match (is_fresh, found) {
                    (true, _) => tracing::info!(host, "a read replica answers reads"),
                    (false, Ok(_)) => tracing::warn!(
                        host,
                        "a read replica is more than 10 s behind: reads go to others"
                    ),
                    (false, Err(error)) => {
                        let error = db::describe(&error);
                        tracing::warn!(host, error, "a read replica does not answer");
                    }
                }
            }
        }
    }
}

async fn newest_heartbeat(pool: &PgPool) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar("SELECT max(seen_at) FROM sightline.heartbeats")
        .fetch_one(pool)
        .await
}
