//! The writers of a version of a view: they take what the version's partitions have to commit, and commit it together.
//!
//! The cost of a transaction hardly depends on how many partitions it is for. So a worker that has records queues for a
//! writer, and a free writer takes all that queue, up to the size of a batch, each with all that was delivered by then.
//! While a partition is in a writer's hands, its worker waits.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, mpsc, oneshot};

use super::batch::{self, Batch, BatchEnd, Failure, Part};
use super::progress::OwnedPartition;
use super::{Projection, Projector, View};
use crate::db;
use crate::event::Record;
use crate::kafka::records::{Delivery, Records};

/// A transaction ends at so many records or bytes: enough to share its cost, few enough to keep it short.
pub const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 4 << 20;
/// How many transactions of a version run at once, at most.
const WRITERS: usize = 4;

/// Permits for transactions of all domains.
///
/// With little to project, more transactions at once than the database has processors are only smaller: each event costs more,
/// and waits longer. In a backlog each transaction is full, and waits part of its time for the disk or for the other side, so
/// twice as many keep the processors busy.
pub struct Transactions {
    usual: Semaphore,
    full: Semaphore,
}

impl Transactions {
    /// Permits for this many transactions at once, and for as many full ones in addition.
    pub fn new(transactions: usize) -> Self {
        Self {
            usual: Semaphore::new(transactions),
            full: Semaphore::new(transactions),
        }
    }

    /// Waits for a permit. First come, first served.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.usual.acquire().await.ok()
    }

    /// Exchanges the usual permit of a full transaction for one of the additional permits, if one is free: the next one gets
    /// the usual.
    fn full<'a>(&'a self, usual: Option<SemaphorePermit<'a>>) -> Option<SemaphorePermit<'a>> {
        self.full.try_acquire().ok().or(usual)
    }
}

/// What a worker has to commit of its partition. A writer moves `owned` to the end of `batch`.
pub struct Turn {
    pub owned: OwnedPartition,
    pub records: Records,
    pub batch: Batch,
    /// The end of the partition, if a fetch has reached it behind the last record of the batch.
    pub end: Option<i64>,
    /// How many records the batch may have.
    pub most: usize,
    /// Whether the writer projects it by itself and isolates its bad records: it failed together with others, or hit a limit.
    pub is_alone: bool,
}

impl Turn {
    /// Adds what was delivered, up to so many records and bytes in all.
    pub fn fill(&mut self, records: usize, bytes: usize) {
        let most = records.min(self.most);
        let mut size = self.bytes();
        while self.batch.records.len() < most && size < bytes {
            match self.records.try_next() {
                Some(delivery) => size += self.add(delivery),
                None => return,
            }
        }
    }

    /// Adds a delivery, unless it lies before the position and so was projected already. Returns its bytes.
    pub fn add(&mut self, delivery: Delivery) -> usize {
        match delivery {
            Delivery::End(offset) => {
                self.end = Some(offset);
                0
            }
            Delivery::Record(record) => {
                self.end = None;
                let bytes = size(&record);
                if record.offset >= self.batch.next_offset {
                    self.batch.next_offset = record.offset + 1;
                    self.batch.records.push(record);
                }
                bytes
            }
        }
    }

    fn bytes(&self) -> usize {
        self.batch.records.iter().map(|record| size(record)).sum()
    }
}

fn size(record: &Record) -> usize {
    record.value.as_ref().map_or(0, |value| value.len())
}

/// What became of a turn.
pub enum Outcome {
    /// It was committed, or fenced.
    Ended(BatchEnd),
    /// Nothing was written: it has to be projected by itself.
    NotTogether,
    /// The transaction with others has failed. The next claim shows whether it was committed.
    Unknown,
    /// Its own transaction has failed. The next claim shows whether it was committed.
    Failed(sqlx::Error),
    /// Its own transaction was rolled back by a panic outside of a fold.
    Panicked,
}

/// A turn in the queue, with where it goes back to.
struct Ticket {
    turn: Turn,
    reply: oneshot::Sender<(Turn, Outcome)>,
}

/// The queue of a version's partitions. Cheap to clone.
#[derive(Clone)]
pub struct Queue(mpsc::UnboundedSender<Ticket>);

impl Queue {
    /// Waits for a writer, which projects the turn. `None` if the version's writers have ended.
    pub async fn project(&self, turn: Turn) -> Option<(Turn, Outcome)> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Ticket { turn, reply }).ok()?;
        answer.await.ok()
    }
}

/// What waits for the writers.
struct Waiting {
    tickets: mpsc::UnboundedReceiver<Ticket>,
    /// The next ticket, which could not be taken together with those before it.
    next: Option<Ticket>,
}

impl Waiting {
    async fn first(&mut self) -> Option<Ticket> {
        match self.next.take() {
            Some(ticket) => Some(ticket),
            None => self.tickets.recv().await,
        }
    }

    /// The first ticket with all that can be projected together with it, and whether a transaction can't hold more. Nothing, if
    /// the workers of all tickets were stopped.
    fn take(&mut self, first: Ticket) -> (Vec<Ticket>, bool) {
        let (mut records, mut bytes) = (BATCH_RECORDS, BATCH_BYTES);
        let mut is_full = false;
        let mut taken: Vec<Ticket> = Vec::new();
        let mut next = Some(first);
        while let Some(mut ticket) = next.take().or_else(|| self.tickets.try_recv().ok()) {
            // Its worker was stopped: the partition's next owner projects it.
            if ticket.reply.is_closed() {
                continue;
            }
            let turn = &mut ticket.turn;
            // A partition that was revoked and came back has two workers for a moment. Together both would be applied.
            let log_id = turn.owned.claim.log_id;
            let is_taken = taken
                .iter()
                .any(|other| other.turn.owned.claim.log_id == log_id);
            if let Some(first) = taken.first()
                // Claims before and after a switch name two schemas.
                && (turn.is_alone || is_taken || first.turn.owned.schema != turn.owned.schema)
            {
                self.next = Some(ticket);
                break;
            }
            if !turn.batch.gives_up {
                turn.fill(records, bytes);
            }
            records = records.saturating_sub(turn.batch.records.len());
            bytes = bytes.saturating_sub(turn.bytes());
            is_full = records == 0 || bytes == 0;
            let is_alone = turn.is_alone;
            taken.push(ticket);
            if is_full || is_alone {
                break;
            }
        }
        // The order in which rows are locked and events applied.
        taken.sort_by_key(|ticket| ticket.turn.owned.claim.log_id);
        (taken, is_full)
    }
}

/// Makes the queue of a version, and what runs its writers until the last clone of the queue is dropped.
pub fn writers(
    projector: Projector,
    projection: &'static dyn Projection,
    view: View,
) -> (Queue, impl Future<Output = ()>) {
    let (sender, tickets) = mpsc::unbounded_channel();
    let run = async move {
        let waiting = Mutex::new(Waiting {
            tickets,
            next: None,
        });
        let writers = [(); WRITERS].map(|()| write(&projector, projection, &view, &waiting));
        futures_util::future::join_all(writers).await;
    };
    (Queue(sender), run)
}

async fn write(
    projector: &Projector,
    projection: &dyn Projection,
    view: &View,
    waiting: &Mutex<Waiting>,
) {
    loop {
        // A writer that waits for its turn holds the queue, so that what is queued meanwhile comes along.
        let mut queue = waiting.lock().await;
        let Some(first) = queue.first().await else {
            return;
        };
        let other_version = if first.turn.owned.claim.is_live {
            None
        } else {
            projector.other_versions.acquire().await.ok()
        };
        let mut permit = projector.transactions.permit().await;
        let (mut tickets, is_full) = queue.take(first);
        if is_full {
            permit = projector.transactions.full(permit);
        }
        drop(queue);
        if tickets.is_empty() {
            continue;
        }
        let outcomes = project(projector, projection, view, &mut tickets).await;
        drop((permit, other_version));
        for (ticket, outcome) in tickets.into_iter().zip(outcomes) {
            // A worker that no longer waits was stopped.
            drop(ticket.reply.send((ticket.turn, outcome)));
        }
    }
}

/// Projects turns in one transaction. Returns one outcome for each.
async fn project(
    projector: &Projector,
    projection: &dyn Projection,
    view: &View,
    tickets: &mut [Ticket],
) -> Vec<Outcome> {
    let isolates = tickets.iter().all(|ticket| ticket.turn.is_alone);
    let mut parts: Vec<Part<'_>> = tickets
        .iter_mut()
        .map(|ticket| Part {
            owned: &mut ticket.turn.owned,
            batch: &ticket.turn.batch,
        })
        .collect();
    let projected = async {
        let mut connection = projector.pool.acquire().await?;
        let projected = batch::project(
            &mut connection,
            projector,
            projection,
            view,
            &mut parts,
            isolates,
        );
        // The pool closes a connection that does not answer when it is given back.
        db::within(db::TRANSACTION_DEADLINE, projected).await
    };
    // A panic is of the batches' records: other partitions go on.
    let projected = AssertUnwindSafe(projected).catch_unwind().await;
    let Ok(projected) = projected else {
        let is_alone = parts.len() == 1;
        let outcome = |_| {
            if is_alone {
                Outcome::Panicked
            } else {
                Outcome::Unknown
            }
        };
        return parts.iter().map(outcome).collect();
    };
    match projected {
        Ok(ends) => {
            let ends = ends.into_iter();
            ends.map(|end| end.map_or(Outcome::NotTogether, Outcome::Ended))
                .collect()
        }
        Err(Failure::Database(error)) if parts.len() == 1 => vec![Outcome::Failed(error)],
        Err(failure) => {
            let outcome = match &failure {
                Failure::NotTogether => || Outcome::NotTogether,
                Failure::Database(error) => {
                    tracing::debug!(
                        domain = view.domain,
                        partitions = parts.len(),
                        error = db::describe(error),
                        "a transaction for several partitions failed; trying each by itself"
                    );
                    || Outcome::Unknown
                }
            };
            parts.iter().map(|_| outcome()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use chrono::DateTime;

    use super::super::ids::Runs;
    use super::super::progress::Claim;
    use super::*;

    type Answer = oneshot::Receiver<(Turn, Outcome)>;

    fn turn(log_id: i32, epoch: i64) -> Turn {
        Turn {
            owned: OwnedPartition {
                claim: Claim {
                    log_id,
                    epoch,
                    next_offset: 0,
                    stream_time: DateTime::UNIX_EPOCH,
                    log_count: 1,
                    is_live: true,
                },
                schema: "order_v1".to_owned(),
                failure: None,
                ready_offset: None,
                last_record: None,
                parked: HashSet::new(),
                discards: HashMap::new(),
                runs: Runs::default(),
            },
            records: Records::none(),
            batch: Batch {
                records: Vec::new(),
                next_offset: 0,
                gives_up: false,
            },
            end: None,
            most: BATCH_RECORDS,
            is_alone: false,
        }
    }

    fn queue(turns: impl IntoIterator<Item = Turn>) -> (Waiting, Vec<Answer>) {
        let (sender, tickets) = mpsc::unbounded_channel();
        let queued = turns.into_iter().map(|turn| {
            let (reply, answer) = oneshot::channel();
            drop(sender.send(Ticket { turn, reply }));
            answer
        });
        let answers = queued.collect();
        let waiting = Waiting {
            tickets,
            next: None,
        };
        (waiting, answers)
    }

    /// The logs and epochs of each transaction, until nothing waits.
    async fn taken(mut waiting: Waiting) -> Vec<Vec<(i32, i64)>> {
        let mut transactions = Vec::new();
        while let Some(first) = waiting.first().await {
            let (tickets, _) = waiting.take(first);
            let claims = tickets.iter().map(|ticket| &ticket.turn.owned.claim);
            transactions.push(claims.map(|claim| (claim.log_id, claim.epoch)).collect());
        }
        transactions
    }

    #[tokio::test]
    async fn partitions_are_taken_together_in_the_order_of_their_logs() {
        let (waiting, _answers) = queue([turn(2, 1), turn(1, 1), turn(3, 1)]);
        assert_eq!(taken(waiting).await, [[(1, 1), (2, 1), (3, 1)]]);
    }

    /// Both would pass the comparison of the one that has the row's epoch.
    #[tokio::test]
    async fn two_owners_of_a_partition_are_not_taken_together() {
        let (waiting, _answers) = queue([turn(1, 1), turn(2, 1), turn(1, 2)]);
        assert_eq!(taken(waiting).await, [vec![(1, 1), (2, 1)], vec![(1, 2)]]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_taken() {
        let (waiting, mut answers) = queue([turn(1, 1), turn(2, 1), turn(1, 2)]);
        drop(answers.remove(0));
        assert_eq!(taken(waiting).await, [[(1, 2), (2, 1)]]);
    }
}
