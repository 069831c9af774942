//! Announces commits of a domain to requests that wait for them: in this process directly, in others by a notice of Postgres.
//! The notice is sent after the commit, on a connection of its own: NOTIFY inside a transaction takes a lock of the whole
//! database until the commit.
//!
//! A notice may be lost together with a connection. Waiters have deadlines of their own, and look again after each
//! reconnection. They are also woken by what this process reads of all positions every second ([`Announcements::read`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::db;

/// The channel of the notices, whose payloads are `<domain> <process> <log>:<next offset>,…`.
const CHANNEL: &str = "sightline_commits";
/// How many positions fit into a notice, whose payload Postgres limits to 8,000 bytes.
const MOST_POSITIONS: usize = 200;
/// How long commits are collected before one notice announces them to other processes.
const PAUSE: Duration = Duration::from_millis(10);
/// How long sending a notice may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the listener checks that its server still answers and takes writes.
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
    /// How far the live views are known to be, by domain and log.
    logs: Mutex<HashMap<String, HashMap<i32, KnownLog>>>,
    /// Domains whose commits are still to be announced to other processes, with the positions that were committed.
    unsent: Mutex<BTreeMap<&'static str, BTreeMap<i32, i64>>>,
    has_unsent: Notify,
}

/// How far a live view is known to be in a log, and the waiters for later positions.
#[derive(Default)]
struct KnownLog {
    next_offset: i64,
    /// Since when positions were committed or read; `None` while there are only waiters.
    known_since: Option<Instant>,
    /// Whether the last reading found less: the next one decides whether the database was restored, or the reading was older
    /// than an announcement.
    is_doubted: bool,
    /// By the position that they wait for, and a number that makes them distinct.
    waiters: BTreeMap<(i64, u64), oneshot::Sender<()>>,
    last_waiter: u64,
}

impl KnownLog {
    fn reached(&self) -> Option<i64> {
        self.known_since.map(|_| self.next_offset)
    }

    fn advance(&mut self, next_offset: i64) {
        self.known_since.get_or_insert_with(Instant::now);
        self.is_doubted = false;
        self.next_offset = self.next_offset.max(next_offset);
        let later = self.waiters.split_off(&(self.next_offset, u64::MAX));
        wake_all(std::mem::replace(&mut self.waiters, later));
    }
}

fn wake_all(waiters: BTreeMap<(i64, u64), oneshot::Sender<()>>) {
    for waiter in waiters.into_values() {
        // The receiver is gone if its caller is.
        let _ = waiter.send(());
    }
}

impl Default for Announcements {
    fn default() -> Self {
        Self(Arc::new(Inner {
            process: Uuid::new_v4(),
            waiting: Mutex::default(),
            logs: Mutex::default(),
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
        self.announce_positions(domain, []);
    }

    /// Announces a commit, with the positions that the live view has reached by it: logs and next offsets.
    pub fn announce_positions(
        &self,
        domain: &'static str,
        positions: impl IntoIterator<Item = (i32, i64)> + Clone,
    ) {
        self.advance(domain, positions.clone());
        self.wake(Some(domain));
        let mut unsent = lock(&self.0.unsent);
        let of_domain = unsent.entry(domain).or_default();
        for (log_id, next_offset) in positions {
            of_domain.insert(log_id, next_offset);
        }
        drop(unsent);
        self.0.has_unsent.notify_one();
    }

    fn advance(&self, domain: &str, positions: impl IntoIterator<Item = (i32, i64)>) {
        let mut logs = lock(&self.0.logs);
        for (log_id, next_offset) in positions {
            known_log(&mut logs, domain, log_id).advance(next_offset);
        }
    }

    /// Notes how far the live view of a domain was read to be in a log.
    pub fn read(&self, domain: &str, log_id: i32, next_offset: i64) {
        let mut logs = lock(&self.0.logs);
        let log = known_log(&mut logs, domain, log_id);
        // Commits were not announced to this process.
        let has_missed = log.known_since.is_some() && next_offset > log.next_offset;
        if next_offset >= log.next_offset {
            log.advance(next_offset);
        } else if log.is_doubted {
            log.next_offset = next_offset;
            log.is_doubted = false;
        } else {
            log.is_doubted = true;
        }
        drop(logs);
        if has_missed {
            self.wake(Some(domain));
        }
    }

    /// How far the live view of a domain is known to be in a log. It may be further.
    pub fn reached(&self, domain: &str, log_id: i32) -> Option<i64> {
        let logs = lock(&self.0.logs);
        logs.get(domain)?.get(&log_id)?.reached()
    }

    /// Whether the live view of a domain has been known for so long to have a log.
    pub fn has_known(&self, domain: &str, log_id: i32, age: Duration) -> bool {
        let logs = lock(&self.0.logs);
        let log = logs.get(domain).and_then(|logs| logs.get(&log_id));
        let since = log.and_then(|log| log.known_since);
        since.is_some_and(|since| since.elapsed() >= age)
    }

    /// How far the live view of a domain is known to be in each of its logs.
    pub fn all_reached(&self, domain: &str) -> Vec<(i32, i64)> {
        let logs = lock(&self.0.logs);
        let logs = logs.get(domain).into_iter().flatten();
        let reached = logs.filter_map(|(log_id, log)| Some((*log_id, log.reached()?)));
        reached.collect()
    }

    /// Waits until the live view of a domain is known to have reached a position in a log, or until those who wait for the log
    /// are released.
    pub async fn reach(&self, domain: &str, log_id: i32, next_offset: i64) {
        let (woken, number) = {
            let mut logs = lock(&self.0.logs);
            let log = known_log(&mut logs, domain, log_id);
            if log.next_offset >= next_offset {
                return;
            }
            let (wake, woken) = oneshot::channel();
            log.last_waiter += 1;
            let number = log.last_waiter;
            log.waiters.insert((next_offset, number), wake);
            (woken, number)
        };
        let _leave = Leave {
            announcements: self,
            domain,
            log_id,
            waiter: (next_offset, number),
        };
        // The sender is dropped only after it was used.
        let _ = woken.await;
    }

    /// Wakes the waiters for positions in a log, because the view may not reach them: each waiter looks up why.
    pub fn release(&self, domain: &str, log_id: i32) {
        let mut logs = lock(&self.0.logs);
        if let Some(log) = logs.get_mut(domain).and_then(|logs| logs.get_mut(&log_id)) {
            wake_all(std::mem::take(&mut log.waiters));
        }
    }

    /// Whether someone in this process waits for a position in a log.
    pub fn is_awaited(&self, domain: &str, log_id: i32) -> bool {
        let logs = lock(&self.0.logs);
        let log = logs.get(domain).and_then(|logs| logs.get(&log_id));
        log.is_some_and(|log| !log.waiters.is_empty())
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
                .flat_map(|(domain, positions)| self.notices(domain, &positions))
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

    fn notices(&self, domain: &str, positions: &BTreeMap<i32, i64>) -> Vec<String> {
        let positions: Vec<String> = positions
            .iter()
            .map(|(log_id, next_offset)| format!("{log_id}:{next_offset}"))
            .collect();
        let process = self.0.process;
        if positions.is_empty() {
            return vec![format!("{domain} {process} ")];
        }
        let notices = positions.chunks(MOST_POSITIONS);
        notices
            .map(|positions| format!("{domain} {process} {}", positions.join(",")))
            .collect()
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
            // A listener that is dropped keeps its connection until the server has answered, and a server that is gone without a
            // word never does: so it has a pool of its own.
            let options = pool.connect_options().as_ref().clone();
            let own = db::pool(&db::MAINTENANCE, options, 1);
            let mut listener = PgListener::connect_with(&own).await?;
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
        let mut parts = notice.splitn(3, ' ');
        let (Some(domain), Some(process)) = (parts.next(), parts.next()) else {
            return;
        };
        if process == self.0.process.to_string() {
            return;
        }
        let positions = parts.next().unwrap_or_default().split(',');
        let positions = positions.filter_map(|position| {
            let (log_id, next_offset) = position.split_once(':')?;
            Some((log_id.parse().ok()?, next_offset.parse().ok()?))
        });
        self.advance(domain, positions);
        self.wake(Some(domain));
    }
}

fn known_log<'l>(
    logs: &'l mut HashMap<String, HashMap<i32, KnownLog>>,
    domain: &str,
    log_id: i32,
) -> &'l mut KnownLog {
    let logs = logs.entry(domain.to_owned()).or_default();
    logs.entry(log_id).or_default()
}

/// Removes a waiter when it waits no longer.
struct Leave<'a> {
    announcements: &'a Announcements,
    domain: &'a str,
    log_id: i32,
    waiter: (i64, u64),
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut logs = lock(&self.announcements.0.logs);
        if let Some(logs) = logs.get_mut(self.domain)
            && let Some(log) = logs.get_mut(&self.log_id)
        {
            log.waiters.remove(&self.waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn waiters_are_woken_by_the_position_that_they_wait_for() {
        let announcements = Announcements::default();
        let mut two = pin!(announcements.reach("order", 7, 2));
        let mut nine = pin!(announcements.reach("order", 7, 9));
        let mut other = pin!(announcements.reach("audit", 7, 1));
        assert!(poll!(&mut two).is_pending());
        assert!(poll!(&mut nine).is_pending());
        assert!(poll!(&mut other).is_pending());
        announcements.announce_positions("order", [(7, 5), (8, 100)]);
        assert!(poll!(&mut two).is_ready());
        assert!(poll!(&mut nine).is_pending());
        assert!(poll!(&mut other).is_pending());
        assert!(announcements.is_awaited("order", 7));
        announcements.release("order", 7);
        assert!(poll!(&mut nine).is_ready());
        assert!(!announcements.is_awaited("order", 7));
        assert!(poll!(pin!(announcements.reach("order", 7, 5))).is_ready());
        assert_eq!(announcements.reached("order", 8), Some(100));
    }

    #[test]
    fn a_reading_wakes_those_who_missed_a_commit() {
        let announcements = Announcements::default();
        let mut woken = announcements.subscribe("order");
        let mut is_woken = |next_offset| {
            announcements.read("order", 7, next_offset);
            let changed = woken.has_changed().expect("it lasts");
            woken.mark_unchanged();
            changed
        };
        assert_eq!([5, 5, 6, 6].map(&mut is_woken), [false, false, true, false]);
    }

    #[tokio::test]
    async fn one_that_waits_no_longer_leaves_nothing() {
        let announcements = Announcements::default();
        {
            let mut waits = pin!(announcements.reach("order", 7, 2));
            assert!(poll!(&mut waits).is_pending());
        }
        assert!(!announcements.is_awaited("order", 7));
    }

    /// Of a log that the view does not have yet, no answer may count as one that depends on another log alone.
    #[tokio::test]
    async fn a_log_is_not_known_because_someone_waits_for_it() {
        let announcements = Announcements::default();
        let mut waits = pin!(announcements.reach("order", 7, 2));
        assert!(poll!(&mut waits).is_pending());
        assert_eq!(announcements.reached("order", 7), None);
        assert!(announcements.all_reached("order").is_empty());
        announcements.read("order", 7, 0);
        assert_eq!(announcements.reached("order", 7), Some(0));
        assert_eq!(announcements.all_reached("order"), [(7, 0)]);
        let has_known = |log_id, age| announcements.has_known("order", log_id, age);
        assert!(has_known(7, Duration::ZERO) && !has_known(7, Duration::from_secs(60)));
        assert!(!has_known(8, Duration::ZERO));
        assert!(poll!(&mut waits).is_pending());
    }

    #[test]
    fn a_position_goes_back_only_when_two_readings_say_so() {
        let announcements = Announcements::default();
        announcements.announce_positions("order", [(7, 10)]);
        announcements.read("order", 7, 8);
        assert_eq!(announcements.reached("order", 7), Some(10));
        announcements.read("order", 7, 8);
        assert_eq!(announcements.reached("order", 7), Some(8));
        announcements.read("order", 7, 12);
        assert_eq!(announcements.reached("order", 7), Some(12));
    }

    #[test]
    fn notices_carry_positions_to_other_processes() {
        let (here, there) = (Announcements::default(), Announcements::default());
        let positions: BTreeMap<i32, i64> = (0..450).map(|log_id| (log_id, i64::MAX)).collect();
        let notices = here.notices("personalization", &positions);
        assert_eq!(notices.len(), 3);
        for notice in notices {
            assert!(notice.len() < 8_000, "{}", notice.len());
            there.received(&notice);
            here.received(&notice);
        }
        assert_eq!(there.reached("personalization", 449), Some(i64::MAX));
        assert_eq!(here.reached("personalization", 449), None);
        // Of a former release, and not a notice.
        there.received(&format!("order {}", Uuid::new_v4()));
        there.received("x");
    }
}
