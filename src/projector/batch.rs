//! A transaction for the batches of one or several partitions of a version: read, judged, applied, and committed together
//! with their positions.
//!
//! Batches are applied together or not at all, without savepoints, which few need. Where the database or the fold refuses that,
//! each is tried by itself, and halved under savepoints until the bad records stand alone. Each half is judged again from
//! the state before it, because a judgement depends on what became of the records before.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::dead_letters::{self, Cause, Class};
use super::ids::{self, Asked, Found, Run, Runs};
use super::judge::{Candidate, Judge, Judgement, Reading};
use super::pause;
use super::progress::{self, Advance, Claim, OwnedPartition};
use super::{NewEvent, Projection, Projector, RefusedEvent, Target, View};
use crate::db::{self, ErrorClass, SharedUserKey};
use crate::event::{Bad, Record, hash16};
use crate::telemetry;

/// How often a record is tried alone before an unforeseen error makes it a dead letter.
const BUG_ATTEMPTS: u32 = 3;
/// The reason of a dead letter whose cause is not known.
const FAILED: &str = "failed";

/// Records that follow one another in a partition, and the offset at which the log goes on behind them.
#[derive(Debug)]
pub struct Batch {
    pub records: Vec<Arc<Record>>,
    pub next_offset: i64,
    /// Whether its only record is to become a dead letter, because it hit a limit of the database again and again.
    pub gives_up: bool,
}

/// A claimed partition, and what is to be projected of it.
pub struct Part<'p> {
    pub owned: &'p mut OwnedPartition,
    pub batch: &'p Batch,
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

/// Why a transaction has failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was written: the batches can't be projected together, but each by itself.
    #[error("the batches can't be projected together")]
    NotTogether,
    /// The caller claims the partitions again before it tries again: a COMMIT whose answer was lost may have gone through.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Projects the batches of partitions of one version, claimed under one schema, in one transaction, and moves each `owned` to
/// the end of its batch. With `isolates` there is one partition, and what can't be applied of its batch becomes dead letters.
/// Returns the end of each batch. `None`, only if there are several: the progress row is locked, or not as it was claimed, and
/// nothing was written of that partition.
///
/// # Errors
/// See [`Failure`].
pub async fn project(
    connection: &mut PgConnection,
    projector: &Projector,
    projection: &dyn Projection,
    view: &View,
    parts: &mut [Part<'_>],
    isolates: bool,
) -> Result<Vec<Option<BatchEnd>>, Failure> {
    let candidates: Vec<Vec<Candidate<'_>>> = parts
        .iter()
        .map(|part| read(projector, projection, part.batch))
        .collect();
    // A deletion closes its user's dead letters in earlier logs, too.
    let closes_earlier = parts.iter().zip(&candidates).any(|(part, candidates)| {
        let is_parked = |key| part.owned.parked.contains(&key);
        candidates
            .iter()
            .any(|candidate| candidate.is_deletion() && candidate.key.is_some_and(is_parked))
    });
    if closes_earlier && parts.len() > 1 {
        return Err(Failure::NotTogether);
    }
    let mut together = Together {
        projection,
        view,
        topics: &projector.topics,
        schema: parts.first().map_or("", |part| &part.owned.schema),
        closes_earlier,
        isolates,
        batches: judges(projector, projection, parts, &candidates),
    };
    let mut written = together.write(connection).await?;
    let batches = together.batches;

    let live = batches.iter().filter(|one| one.claim.is_live);
    let reached: Vec<(i32, i64)> = live
        .map(|one| (one.claim.log_id, one.batch.next_offset))
        .collect();
    announce(projector, view, &reached);
    let batches: Vec<(usize, Judgement, Option<Runs>)> = batches
        .into_iter()
        .map(|one| (one.index, one.judge.judgement, one.read_again))
        .collect();
    let is_alone = parts.len() == 1;
    let mut ends: Vec<Option<BatchEnd>> = parts
        .iter()
        .map(|_| is_alone.then_some(BatchEnd::Fenced))
        .collect();
    for ((index, judgement, read_again), advance) in batches.into_iter().zip(written.advances) {
        let unknown: i64 = judgement.unknown_types.values().sum();
        metrics::counter!(telemetry::UNKNOWN_TYPE_RECORDS, "domain" => view.domain)
            .increment(unknown.unsigned_abs());
        let owned = &mut *parts[index].owned;
        if let Some(runs) = read_again {
            owned.runs = runs;
        }
        if let Some(run) = written.runs.remove(&advance.log_id) {
            owned.runs.add(run);
        }
        if written.is_ready {
            owned.ready_offset = None;
        }
        owned.parked = judgement.parked;
        let piled_up = written.piled_up.remove(&advance.log_id);
        ends[index] = Some(owned.committed(advance, piled_up));
    }
    Ok(ends)
}

/// Batches of one version that are written together.
struct Together<'b> {
    projection: &'b dyn Projection,
    view: &'b View,
    /// The topics that the view is made from.
    topics: &'b [String],
    /// The schema of the version's tables.
    schema: &'b str,
    /// Whether dead letters in earlier logs are closed, too.
    closes_earlier: bool,
    /// Whether there is one batch, of which what can't be applied becomes dead letters.
    isolates: bool,
    /// Once they are written, only those whose progress rows were free and as they were claimed.
    batches: Vec<Judged<'b>>,
}

/// What was written besides views.
#[derive(Default)]
struct Written {
    /// How far each batch has come.
    advances: Vec<Advance>,
    /// The run of ids that was added to a log.
    runs: HashMap<i32, Run>,
    /// Why the version has to be paused, by log.
    piled_up: HashMap<i32, String>,
    /// Whether the view is ready.
    is_ready: bool,
}

impl Together<'_> {
    /// Writes the batches.
    ///
    /// Of a small transaction the filters in memory mostly know all ids as new, so it is judged before it begins. Then one
    /// statement compares, locks and moves the progress rows; where only positions move, it is all. An event that can't be
    /// applied rolls it back, and nothing has moved.
    async fn write(&mut self, connection: &mut PgConnection) -> Result<Written, Failure> {
        let is_foreseen = !self.isolates && self.batches.iter().all(Judged::has_new_ids);
        if is_foreseen {
            self.batches.iter_mut().for_each(Judged::find_events);
            if self.batches.iter().all(Judged::moves_only) {
                let advances = self.advance(connection).await?;
                // A partition by itself waits, below, until its row is free.
                if !advances.is_empty() || self.batches.len() > 1 {
                    self.retain(&advances.iter().map(|advance| advance.log_id).collect());
                    return Ok(Written {
                        advances,
                        ..Written::default()
                    });
                }
            }
        }
        let mut transaction = connection.begin().await?;
        if self.closes_earlier {
            for one in &self.batches {
                let log_id = one.claim.log_id;
                progress::fence_earlier_logs(&mut transaction, self.view, log_id).await?;
            }
        }
        let advances = if is_foreseen {
            self.advance(&mut transaction).await?
        } else {
            Vec::new()
        };
        // A partition by itself waits until its row is free.
        let is_left = !is_foreseen || self.batches.len() == 1;
        let locked = if advances.is_empty() && is_left {
            let claims: Vec<&Claim> = self.batches.iter().map(|one| one.claim).collect();
            progress::lock(&mut transaction, self.view, self.schema, &claims).await?
        } else {
            advances.iter().map(|advance| advance.log_id).collect()
        };
        self.retain(&locked);
        if self.batches.is_empty() {
            return Ok(Written::default());
        }

        match self.batches.as_mut_slice() {
            [one] if self.isolates => apply_isolating(&mut transaction, one).await?,
            all => {
                if !is_foreseen {
                    look_up_and_judge(&mut transaction, all).await?;
                }
                apply(&mut transaction, all).await?;
            }
        }
        let written = self.finish(&mut transaction, advances).await?;
        transaction.commit().await?;
        Ok(written)
    }

    /// Writes what is left after the view: ids, dead letters, and the positions if they have not moved.
    async fn finish(
        &self,
        connection: &mut PgConnection,
        advances: Vec<Advance>,
    ) -> Result<Written, sqlx::Error> {
        let Self {
            projection,
            view,
            batches,
            ..
        } = self;
        let judged = batches.iter().map(|one| (one.claim, &one.judge.judgement));
        let remembered = write_bookkeeping(connection, view, judged).await?;
        let mut written = Written {
            advances,
            runs: remembered.into_iter().collect(),
            ..Written::default()
        };
        for one in batches {
            if let Some(why) = write_dead_letters(connection, *projection, view, one).await? {
                written.piled_up.insert(one.claim.log_id, why);
            }
        }
        if written.advances.is_empty() {
            written.advances = self.advance(connection).await?;
            // The transaction holds the rows, so all are as they were.
            if written.advances.len() < batches.len() {
                return Err(sqlx::Error::RowNotFound);
            }
        }
        if batches.iter().any(|one| one.reaches_end) {
            written.is_ready = progress::note_ready(connection, view, self.topics).await?;
        }
        Ok(written)
    }

    /// Moves the progress rows that are free and as they were claimed. Returns how far.
    async fn advance(&self, connection: &mut PgConnection) -> Result<Vec<Advance>, sqlx::Error> {
        let moves = self.batches.iter().map(|one| (one.claim, one.advance()));
        let moves: Vec<(&Claim, Advance)> = moves.collect();
        let code_version = self.projection.code_version();
        let moved =
            progress::advance(connection, self.view, self.schema, code_version, &moves).await?;
        let advances = moves.into_iter().map(|(_, advance)| advance);
        Ok(advances
            .filter(|advance| moved.contains(&advance.log_id))
            .collect())
    }

    fn retain(&mut self, log_ids: &HashSet<i32>) {
        self.batches
            .retain(|one| log_ids.contains(&one.claim.log_id));
    }
}

/// Announces what the live version of a view has reached.
fn announce(projector: &Projector, view: &View, reached: &[(i32, i64)]) {
    if !reached.is_empty() {
        let reached = reached.iter().copied();
        projector
            .announcements
            .announce_positions(view.domain, reached);
    }
}

impl OwnedPartition {
    /// Moves to where a transaction has come.
    fn committed(&mut self, advance: Advance, piled_up: Option<String>) -> BatchEnd {
        self.claim.next_offset = advance.next_offset;
        self.claim.stream_time = advance.stream_time;
        BatchEnd::Committed {
            books: advance.books,
            piled_up,
        }
    }
}

/// A judge for each part.
fn judges<'b>(
    projector: &Projector,
    projection: &'b dyn Projection,
    parts: &'b [Part<'_>],
    candidates: &'b [Vec<Candidate<'b>>],
) -> Vec<Judged<'b>> {
    let parts = parts.iter().zip(candidates).enumerate();
    parts
        .map(|(index, (part, candidates))| {
            let owned = &*part.owned;
            let parked = owned.parked.clone();
            let (claim, discards) = (&owned.claim, &owned.discards);
            Judged {
                index,
                claim,
                batch: part.batch,
                candidates,
                reaches_end: owned
                    .ready_offset
                    .is_some_and(|offset| part.batch.next_offset >= offset),
                judge: Judge::new(projection, claim, projector.dedupe, parked, discards),
                events: Vec::new(),
                runs: &owned.runs,
                read_again: None,
            }
        })
        .collect()
}

/// Reads a batch's records, as far as they can be read by themselves.
fn read<'b>(
    projector: &Projector,
    projection: &dyn Projection,
    batch: &'b Batch,
) -> Vec<Candidate<'b>> {
    let records = batch.records.iter();
    records
        .map(|record| {
            let reading = Reading::of(record, projection, projector.max_value_bytes);
            Candidate::first(record, reading)
        })
        .collect()
}

/// A batch, and the judge of its records.
struct Judged<'b> {
    /// Its index among the parts.
    index: usize,
    claim: &'b Claim,
    batch: &'b Batch,
    candidates: &'b [Candidate<'b>],
    /// Whether the partition reaches the end that the log had when the view began.
    reaches_end: bool,
    judge: Judge<'b>,
    /// What is to be applied, once it is judged.
    events: Vec<NewEvent>,
    runs: &'b Runs,
    /// The log's runs of ids, if they had to be read again.
    read_again: Option<Runs>,
}

impl Judged<'_> {
    /// The ids that have to be known before it is judged.
    fn asked(&self) -> Asked<'_> {
        asked(self.claim, self.runs, self.candidates)
    }

    /// Whether all its ids are known as new.
    fn has_new_ids(&self) -> bool {
        self.asked().are_new()
    }

    /// Judges its records.
    fn find_events(&mut self) {
        self.events = self.judge.judge(self.candidates);
    }

    /// Whether nothing but the position and the books is to be written.
    fn moves_only(&self) -> bool {
        let judgement = &self.judge.judgement;
        self.events.is_empty()
            && judgement.dead_letters.is_empty()
            && judgement.unknown_types.is_empty()
            && !self.reaches_end
    }

    /// How far the batch has come.
    fn advance(&self) -> Advance {
        let judgement = &self.judge.judgement;
        let last_record = self.batch.records.last();
        let mut books = judgement.books();
        books.holes = self.batch.next_offset - self.claim.next_offset - books.read;
        Advance {
            log_id: self.claim.log_id,
            next_offset: self.batch.next_offset,
            stream_time: judgement.stream_time,
            books,
            last_record: last_record.map(|record| (record.offset, record.fingerprint())),
        }
    }
}

/// Judges and applies a batch, in a transaction that holds its progress row. What can't be applied becomes dead letters.
async fn apply_isolating(
    connection: &mut PgConnection,
    one: &mut Judged<'_>,
) -> Result<(), sqlx::Error> {
    if let ([candidate], true) = (one.candidates, one.batch.gives_up) {
        make_dead_letter(&mut one.judge, candidate, &Cause::bug(FAILED));
        return Ok(());
    }
    let Judged { claim, runs, .. } = *one;
    one.read_again = apply_one(connection, claim, runs, &mut one.judge, one.candidates).await?;
    Ok(())
}

/// Judges batches, of which some ids may have been applied before, in a transaction that holds their progress rows.
async fn look_up_and_judge(
    connection: &mut PgConnection,
    batches: &mut [Judged<'_>],
) -> Result<(), sqlx::Error> {
    let asked: Vec<Asked<'_>> = batches.iter().map(Judged::asked).collect();
    let found = ids::seen(connection, &asked).await?;
    for (one, Found { seen, runs }) in batches.iter_mut().zip(found) {
        one.judge.seen = seen;
        one.read_again = runs;
        one.find_events();
    }
    Ok(())
}

/// Applies the events of batches together.
async fn apply(connection: &mut PgConnection, batches: &mut [Judged<'_>]) -> Result<(), Failure> {
    let events = batches.iter_mut().flat_map(|one| one.events.drain(..));
    let events: Vec<NewEvent> = events.collect();
    let Some(Judged { claim, judge, .. }) = batches.first() else {
        return Ok(());
    };
    match try_to_apply(connection, claim, judge.projection, &events).await? {
        Applied::Yes => Ok(()),
        Applied::No(..) => Err(Failure::NotTogether),
    }
}

fn asked<'a>(claim: &Claim, runs: &'a Runs, candidates: &[Candidate<'_>]) -> Asked<'a> {
    Asked {
        log_id: claim.log_id,
        runs,
        hashes: candidates.iter().filter_map(Candidate::id_hash).collect(),
    }
}

/// Writes a batch's dead letters. Returns why the version has to be paused, if too many pile up.
async fn write_dead_letters(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    view: &View,
    one: &Judged<'_>,
) -> Result<Option<String>, sqlx::Error> {
    let claim = one.claim;
    let dead_letters = &one.judge.judgement.dead_letters;
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
        one.batch.next_offset,
        &keys,
    )
    .await
}

/// Judges the candidates of one log and applies them, in a transaction that holds the log's progress row. Those that can't be
/// applied become dead letters. Returns the log's `runs` of ids, if they had to be read again.
///
/// # Errors
/// The database failed: the transaction has to be rolled back.
pub async fn apply_one(
    connection: &mut PgConnection,
    claim: &Claim,
    runs: &Runs,
    judge: &mut Judge<'_>,
    candidates: &[Candidate<'_>],
) -> Result<Option<Runs>, sqlx::Error> {
    let found = ids::seen(connection, &[asked(claim, runs, candidates)]).await?;
    let Found { seen, runs } = found.into_iter().next().unwrap_or_default();
    judge.seen = seen;
    apply_by_halves(connection, claim, judge, candidates).await?;
    Ok(runs)
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
            let cause = match applied {
                Applied::Yes => return Ok(()),
                Applied::No(cause) => cause,
            };
            judge.go_back(&before);
            if let [candidate] = candidates {
                if cause.class == Class::Bug && attempt < BUG_ATTEMPTS {
                    attempt += 1;
                    continue;
                }
                make_dead_letter(judge, candidate, &cause);
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
    /// Their effects were undone.
    No(Cause),
}

/// Applies events under a savepoint, so that those that fail can be undone alone.
async fn apply_together(
    connection: &mut PgConnection,
    claim: &Claim,
    projection: &dyn Projection,
    events: &[NewEvent],
) -> Result<Applied, sqlx::Error> {
    if events.is_empty() {
        return Ok(Applied::Yes);
    }
    let mut savepoint = connection.begin().await?;
    let applied = try_to_apply(&mut savepoint, claim, projection, events).await?;
    match applied {
        Applied::Yes => savepoint.commit().await?,
        Applied::No(..) => savepoint.rollback().await?,
    }
    Ok(applied)
}

/// Applies events. Where they can't be applied, the caller undoes what was written.
async fn try_to_apply(
    connection: &mut PgConnection,
    claim: &Claim,
    projection: &dyn Projection,
    events: &[NewEvent],
) -> Result<Applied, sqlx::Error> {
    let [first, ..] = events else {
        return Ok(Applied::Yes);
    };
    let mut target = Target {
        connection,
        log_count: claim.log_count,
        is_live: claim.is_live,
    };
    let applied = AssertUnwindSafe(projection.apply(&mut target, events))
        .catch_unwind()
        .await;
    Ok(match applied {
        Ok(Ok(())) => Applied::Yes,
        Ok(Err(error)) => {
            let cause = match (refused(&error), db::classify(&error)) {
                (Some(bad), _) => Cause {
                    field: bad.field.clone(),
                    ..Cause::data(bad.reason)
                },
                (
                    None,
                    ErrorClass::Transient | ErrorClass::Systemic | ErrorClass::UnreadableState,
                ) => return Err(error),
                (None, ErrorClass::Data) => Cause::data("refused_by_database"),
                (None, ErrorClass::Bug) if is_shared_user_key(&error) => {
                    Cause::bug("user_id_hash_conflict")
                }
                (None, ErrorClass::Bug) => Cause::bug(FAILED),
            };
            tracing::debug!(
                first_offset = first.offset,
                events = events.len(),
                reason = cause.reason,
                error = db::describe(&error),
                "events could not be applied together"
            );
            Applied::No(cause)
        }
        // The panic hook has logged where.
        Err(_panic) => Applied::No(Cause::bug(FAILED)),
    })
}

/// Why the projection refuses an event as bad, if that is what the error says.
fn refused(error: &sqlx::Error) -> Option<&Bad> {
    match error {
        sqlx::Error::Encode(cause) => cause.downcast_ref().map(|RefusedEvent(bad)| bad),
        _ => None,
    }
}

fn is_shared_user_key(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Encode(cause) if cause.is::<SharedUserKey>())
}

/// Logs that a record can't be applied even alone, and makes it a dead letter.
fn make_dead_letter(judge: &mut Judge<'_>, candidate: &Candidate<'_>, cause: &Cause) {
    tracing::error!(
        domain = judge.projection.domain(),
        partition = candidate.record.partition,
        offset = candidate.record.offset,
        reason = cause.reason,
        "a record can't be applied: it becomes a dead letter"
    );
    judge.give_up(candidate, cause);
}

/// Writes what every view keeps beside its own rows: applied event ids, dead letters of deleted users, counts of unknown types.
/// Returns the ids of each log that has some, to be added to its runs once the transaction is committed.
///
/// # Errors
/// The database failed.
pub async fn write_bookkeeping<'j>(
    connection: &mut PgConnection,
    view: &View,
    judged: impl Iterator<Item = (&'j Claim, &'j Judgement)> + Clone,
) -> Result<Vec<(i32, Run)>, sqlx::Error> {
    let applied = judged
        .clone()
        .map(|(claim, judgement)| (claim.log_id, &judgement.applied_ids));
    let remembered = ids::remember(connection, applied).await?;
    for (claim, judgement) in judged {
        write_rest(connection, view, claim, judgement).await?;
    }
    Ok(remembered)
}

/// Writes what few batches have: dead letters of deleted users, counts of unknown types.
async fn write_rest(
    connection: &mut PgConnection,
    view: &View,
    claim: &Claim,
    judgement: &Judgement,
) -> Result<(), sqlx::Error> {
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
