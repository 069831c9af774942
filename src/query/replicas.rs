//! Read replicas: standbys of the database, which answer reads that they are fresh enough for.
//!
//! A replica whose heartbeats are older than the primary's by more than a few seconds is not used, nor is a database that is no
//! replica of the primary: its heartbeats are of other processes. Of the others each answer still carries its own position:
//! where a caller demands more than a replica has, or a replica fails, the primary is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::lookups::Lookups;
use crate::db;

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
    /// What the last comparison with the primary has found.
    standing: Mutex<Option<Standing>>,
}

/// How a replica compares with the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is used.
    Fresh,
    Behind,
    /// It is a copy of another database.
    Foreign,
    /// It does not answer.
    Away,
}

/// When each process has written its last heartbeat.
type Heartbeats = HashMap<Uuid, DateTime<Utc>>;

impl Standing {
    fn of(replica: &Heartbeats, primary: &Heartbeats) -> Self {
        let (Some(newest), found) = (primary.values().max(), replica.values().max()) else {
            return if replica.is_empty() {
                Self::Fresh
            } else {
                Self::Foreign
            };
        };
        if found.is_none_or(|found| {
            (*newest - *found)
                .to_std()
                .is_ok_and(|behind| behind > Replicas::MOST_BEHIND)
        }) {
            Self::Behind
        } else if replica.keys().any(|process| primary.contains_key(process)) {
            Self::Fresh
        } else {
            Self::Foreign
        }
    }
}

impl Replica {
    fn is_fresh(&self) -> bool {
        *self.standing() == Some(Standing::Fresh)
    }

    fn standing(&self) -> MutexGuard<'_, Option<Standing>> {
        // Nothing panics while it holds the lock.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// How far a replica may be behind the primary, by the heartbeats that it has.
    pub const MOST_BEHIND: Duration = Duration::from_secs(10);

    /// Replicas with these connections.
    pub fn new(pools: Vec<PgPool>) -> Self {
        let replicas = pools.into_iter().map(|pool| Replica {
            source: Source::replica(pool),
            standing: Mutex::default(),
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
        order.find(|n| self.replicas[*n].is_fresh())
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
        let Ok(primary) = db::within(DEADLINE, heartbeats(primary)).await else {
            return;
        };
        for replica in &self.replicas {
            let found = db::within(DEADLINE, heartbeats(&replica.source.pool)).await;
            let standing = match &found {
                Ok(found) => Standing::of(found, &primary),
                Err(_) => Standing::Away,
            };
            if replica.standing().replace(standing) == Some(standing) {
                continue;
            }
            let options = replica.source.pool.connect_options();
            let host = options.get_host();
            match (standing, found) {
                (Standing::Fresh, _) => tracing::info!(host, "a read replica answers reads"),
                (Standing::Foreign, _) => tracing::error!(
                    host,
                    "SIGHTLINE_DATABASE_READ_URLS names a database that is not a replica of \
                     SIGHTLINE_DATABASE_URL: no read goes there"
                ),
                (_, Ok(_)) => tracing::warn!(
                    host,
                    "a read replica is more than 10 s behind: reads go to others"
                ),
                (_, Err(error)) => {
                    let error = db::describe(&error);
                    tracing::warn!(host, error, "a read replica does not answer");
                }
            }
        }
    }
}

async fn heartbeats(pool: &PgPool) -> Result<Heartbeats, sqlx::Error> {
    let rows: Vec<(Uuid, DateTime<Utc>)> =
        sqlx::query_as("SELECT instance, max(seen_at) FROM sightline.heartbeats GROUP BY instance")
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_known_by_the_heartbeats_of_the_primarys_processes() {
        let heartbeats = |of: &[(u128, i64)]| -> Heartbeats {
            let at = |seconds| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
            of.iter()
                .map(|(process, seconds)| (Uuid::from_u128(*process), at(*seconds)))
                .collect()
        };
        for (replica, primary, standing) in [
            (&[(1, 20)][..], &[(1, 30)][..], Standing::Fresh),
            (&[(1, 19)], &[(1, 30)], Standing::Behind),
            // A process that has ended since, and one that has begun.
            (&[(1, 20), (2, 25)], &[(2, 27), (3, 30)], Standing::Fresh),
            (&[(4, 30)], &[(1, 30)], Standing::Foreign),
            // It may be so far behind that all processes have ended since.
            (&[(4, 19)], &[(1, 30)], Standing::Behind),
            (&[(4, 90)], &[], Standing::Foreign),
            (&[], &[(1, 30)], Standing::Behind),
            (&[], &[], Standing::Fresh),
        ] {
            let found = Standing::of(&heartbeats(replica), &heartbeats(primary));
            assert_eq!(found, standing, "{replica:?} {primary:?}");
        }
    }
}
