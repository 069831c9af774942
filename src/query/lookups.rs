//! Look-ups of one row by its key, of which several share a statement. A read runs its own look-up at once if no statement
//! runs. Else it waits, and the next statement asks for the rows of all waiting reads of one kind, 100 at most: the more there
//! are, the less each costs. That statement begins when the running one ends, or beside it once that has run for a millisecond,
//! if one of the few slots is free. A slot keeps its connection while it is in use, so a look-up is one round trip.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::seen::Subject;
use crate::db::{self, ErrorClass};
use crate::error::Error;
use crate::event::hash16;

/// Statements that run at once. Half of the pool's connections at most: the rest is for other reads.
const SLOTS: u32 = 4;
/// The most rows that one statement returns.
const MOST: usize = 100;
/// How long reads wait for a statement that runs before the next one runs beside it.
const PATIENCE: Duration = Duration::from_millis(1);
/// After how long a free slot gives its connection back.
const IDLE: Duration = Duration::from_secs(1);
/// How often a connection in use is checked for whether its server still takes writes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A kind of look-up.
pub struct Lookup {
    /// The domain whose view it reads.
    pub domain: &'static str,
    /// The name of its statement, in logs.
    pub statement: &'static str,
    /// Runs the statement.
    pub run: Run,
    /// Whom an answer is about, given an open dead letter under the id of the user.
    pub subject: fn(Option<Uuid>) -> Subject,
}

/// Runs a look-up in the view of a domain, for ids, which are given with their hashes. Returns what was found of each.
pub type Run = for<'c> fn(
    &'c mut PgConnection,
    &'static str,
    &'c [Uuid],
    &'c [String],
) -> BoxFuture<'c, sqlx::Result<Vec<Found>>>;

/// A row of a statement that finds several ids in one snapshot: a log of the view, what was found of an id, or an open dead
/// letter under one.
#[derive(Debug, Default, sqlx::FromRow)]
pub struct Row {
    /// The id; `None` in the row of a log.
    pub id: Option<String>,
    /// What was found.
    pub document: Option<String>,
    /// The log; beside a document the one that it is made from, `None` if it depends on all.
    pub log_id: Option<i32>,
    /// The log's position.
    pub next_offset: Option<i64>,
    /// Whether the view has once been complete; in the row of a log.
    pub ready: Option<bool>,
    /// An open dead letter under the id.
    pub dead_letter: Option<Uuid>,
}

/// What a statement for several ids has found, in one snapshot.
#[derive(Debug, Default)]
pub struct Rows {
    /// Whether the view has once been complete.
    pub is_ready: bool,
    /// All logs of the view, and their positions.
    positions: BTreeMap<i32, i64>,
    /// By id, each with the one log that it is made from.
    documents: HashMap<String, (String, Option<i32>)>,
    /// By id.
    dead_letters: HashMap<String, Uuid>,
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
    /// An open dead letter under the user's id, if there is one.
    pub dead_letter: Option<Uuid>,
}

impl FromIterator<Row> for Rows {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut found = Self::default();
        for row in rows {
            let Some(id) = row.id else {
                found.is_ready = row.ready.unwrap_or_default();
                found.positions.extend(row.log_id.zip(row.next_offset));
                continue;
            };
            if let Some(dead_letter) = row.dead_letter {
                found.dead_letters.insert(id.clone(), dead_letter);
            }
            if let Some(document) = row.document {
                found.documents.insert(id, (document, row.log_id));
            }
        }
        found
    }
}

impl Rows {
    /// What was found of an id.
    pub fn of(&self, id: &str) -> Found {
        let (logs, offsets) = match self.one_log(id) {
            Some((log_id, next_offset)) => (vec![log_id], vec![next_offset]),
            None => self.positions.iter().unzip(),
        };
        Found {
            document: self.document(id),
            logs,
            offsets,
            is_ready: self.is_ready,
            dead_letter: self.dead_letters.get(id).copied(),
        }
    }

    /// The document that was found of an id.
    pub fn document(&self, id: &str) -> Option<String> {
        let (document, _) = self.documents.get(id)?;
        Some(document.clone())
    }

    /// The positions that an answer about all of these ids reflects.
    pub fn positions(&self, ids: &[String]) -> BTreeMap<i32, i64> {
        let of_each: Option<_> = ids.iter().map(|id| self.one_log(id)).collect();
        of_each.unwrap_or_else(|| self.positions.clone())
    }

    /// The log and position on which alone the answer about an id depends; `None` if it depends on all.
    fn one_log(&self, id: &str) -> Option<(i32, i64)> {
        let (_, log_id) = self.documents.get(id)?;
        let log_id = (*log_id)?;
        Some((log_id, *self.positions.get(&log_id)?))
    }
}

/// A look-up that waits for a slot.
struct Request {
    id: String,
    answer: oneshot::Sender<Result<Found, Error>>,
}

/// Free slots, and look-ups that wait for one.
#[derive(Default)]
struct State {
    free: Vec<Slot>,
    /// When each of the slots in use began its statement.
    begun: Vec<Instant>,
    /// Kinds that have requests, the one that is to be next first.
    order: VecDeque<&'static Lookup>,
    requests: HashMap<&'static str, Vec<Request>>,
}

impl State {
    /// A free slot, unless a statement runs that may end soon.
    fn begin(&mut self) -> Result<(Slot, Instant), Wait> {
        if let Some(youngest) = self.begun.iter().max() {
            let left = PATIENCE.saturating_sub(youngest.elapsed());
            if !left.is_zero() {
                return Err(Wait::AtMost(left));
            }
        }
        let slot = self.free.pop().ok_or(Wait::UntilNotified)?;
        let begun = Instant::now();
        self.begun.push(begun);
        Ok((slot, begun))
    }

    fn end(&mut self, slot: Slot, begun: Instant) {
        self.free.push(slot);
        if let Some(index) = self.begun.iter().position(|other| *other == begun) {
            self.begun.swap_remove(index);
        }
    }
}

/// For how long a worker waits to be notified.
enum Wait {
    AtMost(Duration),
    UntilNotified,
}

/// The slots, and what waits for them.
pub struct Lookups {
    pool: PgPool,
    /// Whether a server that takes no writes is refused: it may be a former primary.
    must_write: bool,
    state: Mutex<State>,
    /// Notified where look-ups wait and a slot may be free.
    waiting: Notify,
    started: Once,
}

impl Lookups {
    /// Look-ups through this pool. With `must_write`, none on a server that takes no writes: it may be a former primary.
    pub fn new(pool: PgPool, must_write: bool) -> Self {
        Self {
            pool,
            must_write,
            state: Mutex::default(),
            waiting: Notify::new(),
            started: Once::new(),
        }
    }

    /// Looks a row up.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find(self: &Arc<Self>, lookup: &'static Lookup, id: &str) -> Result<Found, Error> {
        self.started.call_once(|| self.start());
        let Some(mut slot) = self.free_slot() else {
            let answered = self.queue(lookup, id.to_owned());
            let answer = answered.await;
            return answer.unwrap_or_else(|_| Err(Error::internal("a look-up was dropped")));
        };
        let found = slot.run(lookup, &[id.to_owned()]).await;
        drop(slot);
        let found = found.map_err(|error| Error::from(error).in_statement(lookup.statement))?;
        let found = found.into_iter().next();
        found.ok_or_else(|| Error::internal("a look-up returned nothing"))
    }

    fn start(self: &Arc<Self>) {
        let slots = SLOTS.min(self.pool.options().get_max_connections() / 2);
        for _ in 0..slots.max(1) {
            self.lock().free.push(Slot::default());
            tokio::spawn(Arc::clone(self).work());
        }
        tokio::spawn(Arc::clone(self).give_back_idle_connections());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a look-up that comes, unless it has to wait, with others or for them.
    fn free_slot(&self) -> Option<UsedSlot<'_>> {
        let mut state = self.lock();
        if !state.order.is_empty() {
            return None;
        }
        let slot = state.begin().ok()?;
        Some(UsedSlot {
            lookups: self,
            slot: Some(slot),
        })
    }

    fn queue(
        &self,
        lookup: &'static Lookup,
        id: String,
    ) -> oneshot::Receiver<Result<Found, Error>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        let State {
            order, requests, ..
        } = &mut *state;
        let waiting = requests.entry(lookup.statement).or_default();
        if waiting.is_empty() {
            // Where others wait, a worker sees to it already.
            if order.is_empty() {
                self.waiting.notify_one();
            }
            order.push_back(lookup);
        }
        waiting.push(Request { id, answer });
        answered
    }

    /// Gives back the slot of the statement before, and takes one for the next requests, all of one kind.
    fn next(
        &self,
        mut ended: Option<UsedSlot<'_>>,
    ) -> Result<(UsedSlot<'_>, &'static Lookup, Vec<Request>), Wait> {
        let mut state = self.lock();
        if let Some((slot, begun)) = ended.as_mut().and_then(|used| used.slot.take()) {
            state.end(slot, begun);
        }
        let lookup = *state.order.front().ok_or(Wait::UntilNotified)?;
        let slot = state.begin()?;
        state.order.pop_front();
        let requests = state.requests.entry(lookup.statement).or_default();
        let left = requests.split_off(requests.len().min(MOST));
        let taken = std::mem::replace(requests, left);
        if !requests.is_empty() {
            state.order.push_back(lookup);
        }
        if !state.order.is_empty() {
            self.waiting.notify_one();
        }
        let used = UsedSlot {
            lookups: self,
            slot: Some(slot),
        };
        Ok((used, lookup, taken))
    }

    /// Runs look-ups that wait, for as long as the process runs.
    async fn work(self: Arc<Self>) {
        let mut ended = None;
        loop {
            let (mut slot, lookup, mut requests) = match self.next(ended.take()) {
                Ok(next) => next,
                Err(wait) => {
                    let notified = self.waiting.notified();
                    match wait {
                        Wait::AtMost(wait) => drop(tokio::time::timeout(wait, notified).await),
                        Wait::UntilNotified => notified.await,
                    }
                    continue;
                }
            };
            // Of callers that are gone nothing is read.
            requests.retain(|request| !request.answer.is_closed());
            if !requests.is_empty() {
                slot.answer(lookup, requests).await;
            }
            ended = Some(slot);
        }
    }

    async fn give_back_idle_connections(self: Arc<Self>) {
        let mut interval = tokio::time::interval(IDLE);
        loop {
            interval.tick().await;
            let idle: Vec<Slot> = {
                let mut state = self.lock();
                let free = state.free.iter_mut();
                free.filter(|slot| slot.is_idle())
                    .map(std::mem::take)
                    .collect()
            };
            drop(idle);
        }
    }
}

/// A slot in use, and when its statement began. Dropped, also where its caller is gone, it is free again.
struct UsedSlot<'l> {
    lookups: &'l Lookups,
    slot: Option<(Slot, Instant)>,
}

impl UsedSlot<'_> {
    async fn run(&mut self, lookup: &Lookup, ids: &[String]) -> sqlx::Result<Vec<Found>> {
        match &mut self.slot {
            Some((slot, _)) => slot.run(self.lookups, lookup, ids).await,
            None => Ok(Vec::new()),
        }
    }

    async fn answer(&mut self, lookup: &Lookup, mut requests: Vec<Request>) {
        let ids: Vec<String> = requests
            .iter_mut()
            .map(|request| std::mem::take(&mut request.id))
            .collect();
        match self.run(lookup, &ids).await {
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
}

impl Drop for UsedSlot<'_> {
    fn drop(&mut self) {
        if let Some((slot, begun)) = self.slot.take() {
            let mut state = self.lookups.lock();
            state.end(slot, begun);
            if !state.order.is_empty() {
                self.lookups.waiting.notify_one();
            }
        }
    }
}

/// A connection, unless it was given back or has failed.
#[derive(Default)]
struct Slot(Option<Connected>);

struct Connected {
    connection: PoolConnection<Postgres>,
    checked: Instant,
    used: Instant,
}

impl Slot {
    fn is_idle(&self) -> bool {
        let connected = self.0.as_ref();
        connected.is_some_and(|connected| connected.used.elapsed() > IDLE)
    }

    async fn run(
        &mut self,
        lookups: &Lookups,
        lookup: &Lookup,
        ids: &[String],
    ) -> sqlx::Result<Vec<Found>> {
        let keys: Vec<Uuid> = ids.iter().map(|id| hash16(id.as_bytes())).collect();
        let is_used = self.0.is_some();
        match self.try_to_run(lookups, lookup, &keys, ids).await {
            // The server may have been restarted since the connection was used last.
            Err(error) if is_used && db::classify(&error) == ErrorClass::Transient => {
                self.try_to_run(lookups, lookup, &keys, ids).await
            }
            done => done,
        }
    }

    /// Runs the look-up. Where it fails, the connection is given back, and checked before it is used again.
    async fn try_to_run(
        &mut self,
        lookups: &Lookups,
        lookup: &Lookup,
        keys: &[Uuid],
        ids: &[String],
    ) -> sqlx::Result<Vec<Found>> {
        let mut connected = match self.0.take() {
            Some(connected) => connected,
            None => Connected {
                connection: lookups.pool.acquire().await?,
                checked: Instant::now(),
                used: Instant::now(),
            },
        };
        let run = async {
            if connected.checked.elapsed() > CHECK_INTERVAL {
                if lookups.must_write {
                    db::refuse_read_only(&mut *connected.connection).await?;
                }
                connected.checked = Instant::now();
            }
            (lookup.run)(&mut connected.connection, lookup.domain, keys, ids).await
        };
        let found = db::within(db::ANSWER_TIMEOUT, run).await?;
        connected.used = Instant::now();
        self.0 = Some(connected);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_runs_beside_others_only_once_they_take_long() {
        let mut state = State::default();
        state.free.extend([Slot::default(), Slot::default()]);
        let Ok((slot, begun)) = state.begin() else {
            panic!("no statement runs");
        };
        assert!(matches!(state.begin(), Err(Wait::AtMost(wait)) if wait <= PATIENCE));
        state.end(slot, begun);
        for _ in 0..2 {
            assert!(state.begin().is_ok());
            for begun in &mut state.begun {
                *begun -= PATIENCE;
            }
        }
        assert!(matches!(state.begin(), Err(Wait::UntilNotified)));
    }

    #[test]
    fn each_id_gets_its_row_and_the_positions_that_it_reflects() {
        let log = |log_id, next_offset| Row {
            log_id: Some(log_id),
            next_offset: Some(next_offset),
            ready: Some(true),
            ..Row::default()
        };
        let row = |id: &str, log_id| Row {
            id: Some(id.to_owned()),
            document: Some(format!("of {id}")),
            log_id,
            ..Row::default()
        };
        let dead_letter = |id: &str| Row {
            id: Some(id.to_owned()),
            dead_letter: Some(Uuid::nil()),
            ..Row::default()
        };
        let rows: Rows = [
            log(7, 70),
            log(8, 80),
            row("several logs", None),
            row("one log", Some(8)),
            dead_letter("one log"),
            dead_letter("unknown"),
            row("was not asked for", Some(7)),
        ]
        .into_iter()
        .collect();
        let all = (vec![7, 8], vec![70, 80]);
        let one = (vec![8], vec![80]);
        for (id, document, (logs, offsets), lacks) in [
            ("several logs", Some("of several logs"), all.clone(), false),
            ("one log", Some("of one log"), one.clone(), true),
            ("unknown", None, all, true),
            // Another caller of the same statement.
            ("one log", Some("of one log"), one, true),
        ] {
            let found = rows.of(id);
            assert_eq!(found.document.as_deref(), document, "{id}");
            assert_eq!((found.logs, found.offsets), (logs, offsets), "{id}");
            assert_eq!(found.dead_letter.is_some(), lacks, "{id}");
            assert!(found.is_ready, "{id}");
        }
        let positions = |ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            rows.positions(&ids)
        };
        assert_eq!(positions(&["one log", "one log"]), [(8, 80)].into());
        for other in ["several logs", "unknown"] {
            assert_eq!(positions(&["one log", other]), [(7, 70), (8, 80)].into());
        }
    }
}
