//! One batch of one partition: read, judged, applied, and committed together with its position.
//!
//! What the database or the fold refuses is halved under savepoints until the bad records stand alone. Each half is
//! judged again from the state before it, because a judgement depends on what became of the records before.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::dead_letters::{self, Class};
use super::ids;
use super::judge::{Candidate, Judge, Judgement, Reading};
use super::pause;
use super::progress::{self, Advance, Claim, OwnedPartition};
use super::{NewEvent, Projection, Projector, Target, View};
use crate::db::{self, ErrorClass, SharedUserKey};
use crate::event::{Record, hash16};

/// How often a record is tried alone before an unforeseen error makes it a dead letter.
const BUG_ATTEMPTS: u32 = 3;
/// The reason of a dead letter whose cause is not known.
const FAILED: &str = "failed";

/// Records that follow one another in a partition, and the offset at which the log goes on behind them.
#[derive(Debug)]
pub struct Batch {
    pub records: Vec<Record>,
    pub next_offset: i64,
    /// Whether its only record is to become a dead letter, because it hit a limit of the database again and again.
    pub gives_up: bool,
}

/// How a batch ended.
#[derive(Debug)]
pub enum BatchEnd {
    Committed {
        books: progress::Books,
        /// Why the version has to be paused, if it has to.
        piled_up: Option<String>,
    },
    /// The progress row is not as it was claimed: nothing was written.
    Fenced,
}

/// Projects a batch in one transaction, and moves `owned` to its end.
///
/// # Errors
/// The database failed. The caller claims the partition again before it tries again: a COMMIT whose answer was lost may
/// have gone through.
pub async fn project(
    projector: &Projector,
    projection: &dyn Projection,
    view: &View,
    owned: &mut OwnedPartition,
    batch: &Batch,
) -> Result<BatchEnd, sqlx::Error> {
    let candidates: Vec<Candidate<'_>> = batch
        .records
        .iter()
        .map(|record| {
            let reading = Reading::of(record, projection, projector.max_value_bytes);
            Candidate::first(record, reading)
        })
        .collect();
    let mut transaction = projector.pool.begin().await?;
    // A deletion closes its user's dead letters in earlier logs, too.
    let is_parked = |key| owned.parked.contains(&key);
    if candidates
        .iter()
        .any(|candidate| candidate.is_deletion() && candidate.key.is_some_and(is_parked))
    {
        progress::fence_earlier_logs(&mut transaction, view, owned.claim.log_id).await?;
    }
    if !progress::lock(&mut transaction, view, owned).await? {
        return Ok(BatchEnd::Fenced);
    }
    let claim = &owned.claim;
    let parked = owned.parked.clone();
    let mut judge = Judge::new(projection, claim, projector.dedupe, parked, &owned.discards);
    let judgement = if let ([candidate], true) = (candidates.as_slice(), batch.gives_up) {
        give_up(&mut judge, candidate, Class::Bug, FAILED);
        judge.judgement
    } else {
        apply(&mut transaction, claim, judge, &candidates).await?
    };

    write_bookkeeping(&mut transaction, view, claim, &judgement).await?;
    let piled_up = write_dead_letters(
        &mut transaction,
        projection,
        view,
        claim,
        &judgement,
        batch.next_offset,
    )
    .await?;
    let last_record = batch.records.last();
    let last_record = last_record.map(|record| (record.offset, record.fingerprint()));
    let mut books = judgement.books();
    books.holes = batch.next_offset - claim.next_offset - books.read;
    let advance = Advance {
        next_offset: batch.next_offset,
        stream_time: judgement.stream_time,
        books,
        last_record,
        code_version: projection.code_version(),
    };
    progress::advance(&mut transaction, view, claim, &advance).await?;
    let reached = |offset| batch.next_offset >= offset;
    let is_ready = owned.ready_offset.is_some_and(reached)
        && progress::note_ready(&mut transaction, view, &projector.topics).await?;
    transaction.commit().await?;

    if is_ready {
        owned.ready_offset = None;
    }
    owned.claim.next_offset = batch.next_offset;
    owned.claim.stream_time = judgement.stream_time;
    owned.parked = judgement.parked;
    Ok(BatchEnd::Committed {
        books: advance.books,
        piled_up,
    })
}

/// Writes a batch's dead letters. Returns why the version has to be paused, if too many pile up.
async fn write_dead_letters(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    view: &View,
    claim: &Claim,
    judgement: &Judgement,
    next_offset: i64,
) -> Result<Option<String>, sqlx::Error> {
    let dead_letters = &judgement.dead_letters;
    let Some(first) = dead_letters.first() else {
        return Ok(None);
    };
    dead_letters::insert(
        connection,
        view,
        claim.log_id,
        projection.code_version(),
        dead_letters,
    )
    .await?;
    let keys = dead_letters
        .iter()
        .filter_map(|dead_letter| dead_letter.record.key.as_deref());
    let keys: HashSet<Uuid> = keys.map(hash16).collect();
    let keys: Vec<Uuid> = keys.into_iter().collect();
    let partition = (&*first.record.topic, first.record.partition);
    pause::piled_up(
        connection,
        view,
        claim.log_id,
        partition,
        next_offset,
        &keys,
    )
    .await
}

/// Judges candidates and applies them, in a transaction that holds the log's progress row.
///
/// # Errors
/// The database failed: the transaction has to be rolled back.
pub async fn apply(
    connection: &mut PgConnection,
    claim: &Claim,
    mut judge: Judge<'_>,
    candidates: &[Candidate<'_>],
) -> Result<Judgement, sqlx::Error> {
    judge.seen = ids::seen(connection, claim.log_id, candidates).await?;
    apply_by_halves(connection, claim, &mut judge, candidates).await?;
    Ok(judge.judgement)
}

fn apply_by_halves<'f>(
    connection: &'f mut PgConnection,
    claim: &'f Claim,
    judge: &'f mut Judge<'_>,
    candidates: &'f [Candidate<'_>],
) -> BoxFuture<'f, Result<(), sqlx::Error>> {
    async move {
        let before = judge.checkpoint();
        let mut attempt = 1;
        loop {
            let events = judge.judge(candidates);
            let applied = apply_together(connection, claim, judge.projection, &events).await?;
            let (class, reason) = match applied {
                Applied::Yes => return Ok(()),
                Applied::No(class, reason) => (class, reason),
            };
            judge.go_back(&before);
            if let [candidate] = candidates {
                if class == Class::Bug && attempt < BUG_ATTEMPTS {
                    attempt += 1;
                    continue;
                }
                give_up(judge, candidate, class, reason);
                return Ok(());
            }
            let (first, second) = candidates.split_at(candidates.len() / 2);
            apply_by_halves(connection, claim, judge, first).await?;
            return apply_by_halves(connection, claim, judge, second).await;
        }
    }
    .boxed()
}

/// Whether events could be applied.
enum Applied {
    Yes,
    /// Their effects were undone. The class says whether the data is at fault; the reason is that of a dead letter.
    No(Class, &'static str),
}

/// Applies events under a savepoint, so that those that fail can be undone alone.
async fn apply_together(
    connection: &mut PgConnection,
    claim: &Claim,
    projection: &dyn Projection,
    events: &[NewEvent],
) -> Result<Applied, sqlx::Error> {
    let [first, ..] = events else {
        return Ok(Applied::Yes);
    };
    let mut savepoint = connection.begin().await?;
    let mut target = Target {
        connection: &mut savepoint,
        log_id: claim.log_id,
        log_count: claim.log_count,
    };
    let applied = AssertUnwindSafe(projection.apply(&mut target, events))
        .catch_unwind()
        .await;
    let (class, reason) = match applied {
        Ok(Ok(())) => {
            savepoint.commit().await?;
            return Ok(Applied::Yes);
        }
        Ok(Err(error)) => {
            let failed = match db::classify(&error) {
                ErrorClass::Transient | ErrorClass::Systemic | ErrorClass::UnreadableState => {
                    return Err(error);
                }
                ErrorClass::Data => (Class::Data, "refused_by_database"),
                ErrorClass::Bug if is_shared_user_key(&error) => {
                    (Class::Bug, "user_id_hash_conflict")
                }
                ErrorClass::Bug => (Class::Bug, FAILED),
            };
            tracing::debug!(
                first_offset = first.offset,
                events = events.len(),
                error = db::describe(&error),
                "events could not be applied together"
            );
            failed
        }
        // The panic hook has logged where.
        Err(_panic) => (Class::Bug, FAILED),
    };
    savepoint.rollback().await?;
    Ok(Applied::No(class, reason))
}

fn is_shared_user_key(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Encode(cause) if cause.is::<SharedUserKey>())
}

/// A record that can't be applied even alone becomes a dead letter.
fn give_up(judge: &mut Judge<'_>, candidate: &Candidate<'_>, class: Class, reason: &'static str) {
    tracing::error!(
        domain = judge.projection.domain(),
        partition = candidate.record.partition,
        offset = candidate.record.offset,
        reason,
        "a record can't be applied: it becomes a dead letter"
    );
    judge.give_up(candidate, reason, class);
}

/// Writes what every view keeps beside its own rows: applied event ids, dead letters of deleted users,
/// counts of unknown types.
///
/// # Errors
/// The database failed.
pub async fn write_bookkeeping(
    connection: &mut PgConnection,
    view: &View,
    claim: &Claim,
    judgement: &Judgement,
) -> Result<(), sqlx::Error> {
    ids::remember(connection, claim.log_id, &judgement.applied_ids).await?;
    if !judgement.deleted.is_empty() {
        let (keys, offsets): (Vec<Uuid>, Vec<i64>) = judgement.deleted.iter().copied().unzip();
        sqlx::query_file!(
            "src/projector/sql/add_erasures.sql",
            view.domain,
            view.version,
            claim.log_id,
            &keys
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query_file!(
            "src/projector/sql/close_dead_letters.sql",
            view.domain,
            view.version,
            claim.log_id,
            &keys,
            &offsets
        )
        .execute(&mut *connection)
        .await?;
    }
    if !judgement.unknown_types.is_empty() {
        let names: Vec<String> = judgement.unknown_types.keys().cloned().collect();
        let counts: Vec<i64> = judgement.unknown_types.values().copied().collect();
        sqlx::query_file!(
            "src/projector/sql/count_unknown_types.sql",
            view.domain,
            view.version,
            claim.log_id,
            &names,
            &counts
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
