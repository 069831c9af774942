//! Look-ups of one row by its key, gathered: a few slots, each with a connection of its own, take what reads wait for and ask
//! for all rows of one kind in one statement. A read waits only while all slots are busy; the busier they are, the more rows
//! each statement returns. A slot keeps its connection while there is work, so a look-up is one round trip.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::db::{self, ErrorClass};
use crate::error::Error;
use crate::event::hash16;

/// Statements that run at once. Half of the pool's connections at most: the rest is for other reads.
const SLOTS: u32 = 4;
/// The most rows that one statement returns.
const MOST: usize = 100;
/// A slot that has had no work for so long gives its connection back.
const IDLE: Duration = Duration::from_secs(1);
/// A connection in use is checked so often, whether its server still takes writes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A kind of look-up.
pub struct Lookup {
    /// The domain whose view it reads.
    pub domain: &'static str,
    /// The name of its statement, in logs.
    pub statement: &'static str,
    /// Runs the statement.
    pub run: Run,
}

/// Runs the statement of a look-up in the view of a domain, for ids, which are given with their hashes.
pub type Run = for<'c> fn(
    &'c mut PgConnection,
    &'static str,
    &'c [Uuid],
    &'c [String],
) -> BoxFuture<'c, sqlx::Result<Rows>>;

/// What the statement of a look-up returns: rows, and the positions that they reflect, in one snapshot. An entry of `numbers`
/// says for which id, counted from 1, a row was found; the same entry of the other lists belongs to it.
#[derive(Debug, sqlx::FromRow)]
pub struct Rows {
    /// The ids for which there are rows.
    pub numbers: Vec<i64>,
    /// Their documents.
    pub documents: Vec<String>,
    /// The one log that a row is made from; `None` where there were several.
    pub log_ids: Vec<Option<i32>>,
    /// From how many logs the view was made when the row was written.
    pub row_logs: Vec<i32>,
    /// From how many logs the view is made.
    pub log_count: i32,
    /// The ids under which there are open dead letters.
    pub lacking: Vec<i64>,
    /// All logs of the view, or at least those that rows are made from.
    pub logs: Vec<i32>,
    /// Their positions.
    pub offsets: Vec<i64>,
    /// Whether the view has once been complete.
    pub ready: bool,
}

/// What was found of one id.
#[derive(Debug, Default)]
pub struct Found {
    /// The document; `None` if there is no row.
    pub document: Option<String>,
    /// The logs that the answer depends on. A row that is made from one log reflects that log. If there is no row, or it is
    /// made from several logs, or logs were added since, the answer reflects all logs.
    pub logs: Vec<i32>,
    /// Their positions.
    pub offsets: Vec<i64>,
    /// Whether the view has once been complete.
    pub is_ready: bool,
    /// Whether there are open dead letters under the id.
    pub lacks_dead_letters: bool,
}

impl Rows {
    /// What was found of each of so many ids.
    fn by_id(self, count: usize) -> Vec<Found> {
        let mut found: Vec<Found> = (0..count)
            .map(|_| Found {
                is_ready: self.ready,
                ..Found::default()
            })
            .collect();
        let index = |number: i64| usize::try_from(number - 1).unwrap_or(usize::MAX);
        for number in self.lacking {
            if let Some(found) = found.get_mut(index(number)) {
                found.lacks_dead_letters = true;
            }
        }
        let rows = self.numbers.into_iter().zip(self.documents);
        let origins = self.log_ids.into_iter().zip(self.row_logs);
        for ((number, document), (log_id, logs)) in rows.zip(origins) {
            let Some(found) = found.get_mut(index(number)) else {
                continue;
            };
            found.document = Some(document);
            let log_id = log_id.filter(|_| logs == self.log_count);
            let position = self.logs.iter().position(|log| Some(*log) == log_id);
            if let Some(position) = position {
                found.logs.push(self.logs[position]);
                found.offsets.push(self.offsets[position]);
            }
        }
        for found in found.iter_mut().filter(|found| found.logs.is_empty()) {
            found.logs.clone_from(&self.logs);
            found.offsets.clone_from(&self.offsets);
        }
        found
    }
}

/// A look-up that waits for a slot.
struct Request {
    key: Uuid,
    id: String,
    answer: oneshot::Sender<Result<Found, Error>>,
}

#[derive(Default)]
struct Waiting {
    /// Kinds that have requests, the one that is to be next first.
    order: VecDeque<&'static Lookup>,
    requests: HashMap<&'static str, Vec<Request>>,
}

/// The slots, and what waits for them.
pub struct Lookups {
    pool: PgPool,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    started: Once,
}

impl Lookups {
    /// Look-ups through this pool.
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            started: Once::new(),
        }
    }

    /// Looks a row up.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find(self: &Arc<Self>, lookup: &'static Lookup, id: &str) -> Result<Found, Error> {
        self.started.call_once(|| {
            let slots = SLOTS.min(self.pool.options().get_max_connections() / 2);
            for _ in 0..slots.max(1) {
                tokio::spawn(Arc::clone(self).work());
            }
        });
        let (answer, answered) = oneshot::channel();
        let request = Request {
            key: hash16(id.as_bytes()),
            id: id.to_owned(),
            answer,
        };
        self.queue(lookup, vec![request]);
        let answer = answered.await;
        answer.unwrap_or_else(|_| Err(Error::internal("a look-up was dropped")))
    }

    fn queue(&self, lookup: &'static Lookup, requests: Vec<Request>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting {
            order,
            requests: all,
        } = &mut *waiting;
        let waiting = all.entry(lookup.statement).or_default();
        if waiting.is_empty() {
            order.push_back(lookup);
        }
        waiting.extend(requests);
        self.arrived.notify_one();
    }

    /// The next requests, all of one kind.
    fn take(&self) -> Option<(&'static Lookup, Vec<Request>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let lookup = waiting.order.pop_front()?;
        let requests = waiting.requests.entry(lookup.statement).or_default();
        let left = requests.split_off(requests.len().min(MOST));
        let taken = std::mem::replace(requests, left);
        if !requests.is_empty() {
            waiting.order.push_back(lookup);
            self.arrived.notify_one();
        }
        Some((lookup, taken))
    }

    /// Works for one slot, for as long as the process runs.
    async fn work(self: Arc<Self>) {
        let mut slot = Slot::default();
        loop {
            while let Some((lookup, mut requests)) = self.take() {
                // Of callers that are gone nothing is read.
                requests.retain(|request| !request.answer.is_closed());
                if requests.is_empty() {
                    continue;
                }
                let found = slot.run(&self.pool, lookup, &requests).await;
                match found {
                    Ok(found) => {
                        for (request, found) in requests.into_iter().zip(found) {
                            drop(request.answer.send(Ok(found)));
                        }
                    }
                    Err(error) => {
                        let error = Error::from(error).in_statement(lookup.statement);
                        for request in requests {
                            drop(request.answer.send(Err(error.clone())));
                        }
                    }
                }
            }
            let arrived = tokio::time::timeout(IDLE, self.arrived.notified());
            if arrived.await.is_err() {
                slot = Slot::default();
                self.arrived.notified().await;
            }
        }
    }
}

/// The connection of a slot, and when it was checked last.
#[derive(Default)]
struct Slot(Option<(PoolConnection<Postgres>, Instant)>);

impl Slot {
    async fn run(
        &mut self,
        pool: &PgPool,
        lookup: &Lookup,
        requests: &[Request],
    ) -> sqlx::Result<Vec<Found>> {
        let keys: Vec<Uuid> = requests.iter().map(|request| request.key).collect();
        let ids: Vec<String> = requests.iter().map(|request| request.id.clone()).collect();
        let is_used = self.0.is_some();
        let rows = match self.try_to_run(pool, lookup, &keys, &ids).await {
            // The server may have been restarted since the connection was used last.
            Err(error) if is_used && db::classify(&error) == ErrorClass::Transient => {
                self.try_to_run(pool, lookup, &keys, &ids).await
            }
            done => done,
        };
        rows.map(|rows| rows.by_id(requests.len()))
    }

    /// Runs the statement. Where it fails, the connection is given back, and checked before it is used again.
    async fn try_to_run(
        &mut self,
        pool: &PgPool,
        lookup: &Lookup,
        keys: &[Uuid],
        ids: &[String],
    ) -> sqlx::Result<Rows> {
        let (mut connection, mut checked) = match self.0.take() {
            Some(held) => held,
            None => (pool.acquire().await?, Instant::now()),
        };
        let run = async {
            if checked.elapsed() > CHECK_INTERVAL {
                db::refuse_read_only(&mut connection).await?;
                checked = Instant::now();
            }
            (lookup.run)(&mut connection, lookup.domain, keys, ids).await
        };
        let rows = db::within(db::ANSWER_TIMEOUT, run).await?;
        self.0 = Some((connection, checked));
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_gets_its_row_and_the_positions_that_it_reflects() {
        let rows = Rows {
            numbers: vec![3, 1, 4],
            documents: vec!["three".into(), "one".into(), "four".into()],
            // The first row is made from log 8 alone; the second from several logs; the third before logs were added.
            log_ids: vec![Some(8), None, Some(7)],
            row_logs: vec![2, 2, 1],
            log_count: 2,
            lacking: vec![2],
            logs: vec![7, 8],
            offsets: vec![70, 80],
            ready: true,
        };
        let found: Vec<_> = rows
            .by_id(4)
            .into_iter()
            .map(|found| {
                (
                    found.document,
                    found.logs,
                    found.offsets,
                    found.lacks_dead_letters,
                )
            })
            .collect();
        let all = || (vec![7, 8], vec![70, 80]);
        let row = |document: Option<&str>, (logs, offsets), lacks| {
            (document.map(str::to_owned), logs, offsets, lacks)
        };
        let expected = [
            row(Some("one"), all(), false),
            row(None, all(), true),
            row(Some("three"), (vec![8], vec![80]), false),
            row(Some("four"), all(), false),
        ];
        assert_eq!(found, expected);
    }
}
