//! The progress rows: how far a version of a view has come in each log, and what fences its writers.
//!
//! Promises: a partition is claimed before it is projected, which raises the row's epoch; a batch begins with a comparison
//! of epoch and position, and moves the position in its own transaction. So a superseded owner writes nothing, and a
//! redelivered batch changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::dead_letters::{Class, Discard};
use super::ids::Runs;
use super::{Projection, View, added_partitions, versions};
use crate::db;
use crate::kafka::consumer::TopicPartition;
use crate::kafka::offsets::TopicState;

/// How long the transaction of a partition by itself waits for a lock.
const LOCK_TIMEOUT: &str = "2s";

/// A log's progress row as its owner claimed it. Only its owner changes it until someone raises its epoch.
#[derive(Debug, Clone)]
pub struct Claim {
    pub log_id: i32,
    pub epoch: i64,
    /// The next offset to project.
    pub next_offset: i64,
    pub stream_time: DateTime<Utc>,
    /// From how many logs the view is made.
    pub log_count: i32,
    /// Whether the version is the one that is read.
    pub is_live: bool,
}

/// A claimed partition, with all that its owner may assume for as long as the epoch stays.
#[derive(Debug)]
pub struct OwnedPartition {
    pub claim: Claim,
    /// The schema that holds the version's tables.
    pub schema: String,
    /// Why an operator had to decide before projection goes on, as the row says.
    pub failure: Option<String>,
    /// What the partition has to reach before the view is ready; `None` once it is, and if it need not.
    pub ready_offset: Option<i64>,
    /// Offset and fingerprint of the last record that was read.
    pub last_record: Option<(i64, Uuid)>,
    /// The keys, by hash, that later events wait behind.
    pub parked: HashSet<Uuid>,
    /// Records at or after the position, by offset, that an operator discarded before this version came to them.
    pub discards: HashMap<i64, Discard>,
    /// The log's remembered event ids.
    pub runs: Runs,
}

impl OwnedPartition {
    /// Whether it has yet to reach the end that the log had when the view began.
    pub fn reads_its_backlog(&self) -> bool {
        let next_offset = self.claim.next_offset;
        self.ready_offset.is_some_and(|offset| next_offset < offset)
    }
}

/// The outcome of an attempt to claim a partition.
#[derive(Debug)]
pub enum ClaimOutcome {
    Claimed(Box<OwnedPartition>),
    /// The topic was deleted and created again: the positions, which are of these logs, each with its
    /// epoch, belong to a former incarnation.
    TopicRecreated(Vec<(i32, i64)>),
    /// The partition was added later, and its settle time is not over, or the older ones must first
    /// reach the offsets that it waits for.
    WaitsForPartitions {
        log_id: i32,
        epoch: i64,
    },
    /// The version is paused.
    Paused {
        log_id: i32,
        epoch: i64,
    },
    /// Newer code has folded the partition.
    NewerCode {
        log_id: i32,
        epoch: i64,
    },
    /// A partition of the topic has no progress row yet, or the version is gone.
    NotReady,
}

/// Where each partition of a topic begins, if no version of the view has progress in it.
pub type Starts = BTreeMap<i32, i64>;

/// What a transaction adds to the books of a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Books {
    pub read: i64,
    pub applied: i64,
    pub duplicates: i64,
    pub skipped: i64,
    pub dead_lettered: i64,
    pub holes: i64,
}

/// How far a transaction has come in a log.
#[derive(Debug)]
pub struct Advance {
    pub log_id: i32,
    pub next_offset: i64,
    pub stream_time: DateTime<Utc>,
    pub books: Books,
    /// Offset and fingerprint of the last record that was read.
    pub last_record: Option<(i64, Uuid)>,
}

/// Inserts the progress rows of a topic's partitions that have none. Returns those partitions.
///
/// The first partitions of a topic begin together: where other versions of the view began, at the log start if the topic
/// was created again, else at `starts`. A partition that is added later begins at its log start.
///
/// # Errors
/// The database failed.
pub async fn ensure(
    pool: &PgPool,
    view: &View,
    topic: &str,
    state: &TopicState,
    starts: &Starts,
) -> Result<Vec<i32>, sqlx::Error> {
    added_partitions::record(pool, topic, state).await?;
    let mut transaction = pool.begin().await?;
    // One process at a time per domain: which partitions are the first ones is decided once.
    versions::lock(&mut transaction, view.domain).await?;
    let known = of_topics(&mut *transaction, view, &[topic.to_owned()]).await?;
    let recreated = known.iter().any(|row| row.is_of_another(state));
    let missing = missing(&known, state);
    // The first partitions are inserted only all together: one whose offsets are not read yet would not begin at `starts`.
    let complete =
        state.offsets.len() == usize::try_from(state.partition_count).unwrap_or_default();
    let exists = version_of(&mut transaction, view).await?.is_some();
    if recreated || missing.is_empty() || (known.is_empty() && !complete) || !exists {
        return Ok(Vec::new());
    }
    let begun = sqlx::query_file!("src/projector/sql/topic_starts.sql", view.domain, topic)
        .fetch_all(&mut *transaction)
        .await?;
    let of_other_versions: Starts = begun
        .iter()
        .filter(|row| {
            !state
                .identity
                .differs_from(&row.cluster_id, &row.topic_identity)
        })
        .map(|row| (row.partition, row.start_offset))
        .collect();
    let offset = |partition: &i32| {
        let starts = if begun.is_empty() {
            starts
        } else {
            &of_other_versions
        };
        let log_start = state.offsets[partition].log_start;
        starts
            .get(partition)
            .filter(|_| known.is_empty())
            .map_or(log_start, |offset| *offset)
    };
    let offsets: Vec<i64> = missing.iter().map(offset).collect();
    let ready_offset = |partition: &i32| {
        let log_end = state.offsets[partition].log_end;
        known.is_empty().then_some(log_end)
    };
    let ready_offsets: Vec<Option<i64>> = missing.iter().map(ready_offset).collect();
    sqlx::query_file!(
        "src/projector/sql/add_partitions.sql",
        view.domain,
        view.version,
        state.identity.cluster_id,
        topic,
        state.identity.stored(),
        &missing,
        &offsets,
        &ready_offsets as _,
    )
    .execute(&mut *transaction)
    .await?;
    use_schema(&mut transaction, view).await?;
    sqlx::query!(
        "UPDATE view_version SET logs = (SELECT count(*)::integer FROM sightline.progress WHERE domain = $1 AND version = $2)",
        view.domain,
        view.version,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(missing)
}

/// The partitions whose offsets were read, but that have no progress row.
fn missing<'p>(
    known: impl IntoIterator<Item = &'p PartitionProgress>,
    state: &TopicState,
) -> Vec<i32> {
    let known: HashSet<i32> = known.into_iter().map(|row| row.partition).collect();
    let is_known = |partition: &i32| known.contains(partition);
    let partitions = state.offsets.keys().copied();
    partitions
        .filter(|partition| !is_known(partition))
        .collect()
}

/// The schema of a version's tables, and whether the version is paused; `None` if there is no such version.
async fn version_of(
    connection: &mut PgConnection,
    view: &View,
) -> Result<Option<(String, bool)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT schema_name, paused_at IS NOT NULL AS "paused!" FROM sightline.views WHERE domain = $1 AND version = $2 AND state <> 'dropped'"#,
        view.domain,
        view.version,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.schema_name, row.paused)))
}

/// Points the transaction's unqualified names at the version's tables. Returns from how many logs the view is made, and whether
/// the version is the one that is read.
///
/// # Errors
/// The database failed.
pub async fn use_schema(
    connection: &mut PgConnection,
    view: &View,
) -> Result<(i32, bool), sqlx::Error> {
    let used = sqlx::query!(
        r#"SELECT set_config('search_path', schema_name, true), state = 'live' AS "is_live!"
           FROM sightline.views WHERE domain = $1 AND version = $2"#,
        view.domain,
        view.version,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let log_count = sqlx::query_scalar!("SELECT logs FROM view_version")
        .fetch_one(connection)
        .await?;
    Ok((log_count, used.is_some_and(|used| used.is_live)))
}

/// Marks the view as ready if it has reached the ends of all `topics` that were there when it began. Returns whether it is.
/// Called in a transaction that names the version's tables, after its own position was written: of two partitions that
/// reach their ends at once, the second one waits for the first one's commit, and sees it.
///
/// # Errors
/// The database failed.
pub async fn note_ready(
    connection: &mut PgConnection,
    view: &View,
    topics: &[String],
) -> Result<bool, sqlx::Error> {
    let is_ready = sqlx::query_scalar!("SELECT ready FROM view_version FOR UPDATE")
        .fetch_one(&mut *connection)
        .await?;
    if is_ready {
        return Ok(true);
    }
    sqlx::query_file!(
        "src/projector/sql/note_ready.sql",
        view.domain,
        view.version,
        topics
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() > 0)
}

/// Whether any version of the view has progress in the topic, former incarnations included.
///
/// # Errors
/// The database failed.
pub async fn has_begun(pool: &PgPool, view: &View, topic: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM sightline.progress JOIN sightline.logs l USING (log_id)
               WHERE domain = $1 AND l.topic = $2) AS "begun!""#,
        view.domain,
        topic
    )
    .fetch_one(pool)
    .await
}

/// A partition's progress, as far as the topic's other partitions depend on it.
struct PartitionProgress {
    log_id: i32,
    cluster_id: String,
    topic: String,
    topic_identity: String,
    partition: i32,
    epoch: i64,
    code_version: i32,
}

impl PartitionProgress {
    /// Whether it is of another incarnation of the topic.
    fn is_of_another(&self, state: &TopicState) -> bool {
        let identity = &state.identity;
        identity.differs_from(&self.cluster_id, &self.topic_identity)
    }
}

async fn of_topics(
    executor: impl PgExecutor<'_>,
    view: &View,
    topics: &[String],
) -> Result<Vec<PartitionProgress>, sqlx::Error> {
    sqlx::query_file_as!(
        PartitionProgress,
        "src/projector/sql/topic_progress.sql",
        view.domain,
        view.version,
        topics
    )
    .fetch_all(executor)
    .await
}

/// A partition to be claimed.
pub struct Wanted<'w> {
    pub partition: &'w TopicPartition,
    /// The state of its topic.
    pub state: &'w TopicState,
    /// The runs of ids that its worker knows: their filters are not read again.
    pub former: &'w Runs,
}

/// The log to claim for a partition, by what is known of the wanted topics; or why it can't be claimed.
fn claimable<'k>(
    known: &'k [PartitionProgress],
    wanted: &Wanted<'_>,
    code_version: i32,
    paused: bool,
) -> Result<&'k PartitionProgress, ClaimOutcome> {
    let (partition, state) = (wanted.partition, wanted.state);
    let of_topic = || known.iter().filter(|row| row.topic == *partition.topic);
    if of_topic().any(|row| row.is_of_another(state)) {
        let logs = of_topic().map(|row| (row.log_id, row.epoch));
        return Err(ClaimOutcome::TopicRecreated(logs.collect()));
    }
    let ours = of_topic().find(|row| row.partition == partition.partition);
    let Some(ours) = ours.filter(|_| missing(of_topic(), state).is_empty()) else {
        return Err(ClaimOutcome::NotReady);
    };
    let (log_id, epoch) = (ours.log_id, ours.epoch);
    if paused {
        return Err(ClaimOutcome::Paused { log_id, epoch });
    }
    if ours.code_version > code_version {
        return Err(ClaimOutcome::NewerCode { log_id, epoch });
    }
    Ok(ours)
}

/// Claims partitions in one transaction: raises their rows' epochs, so that no batch of a former owner can commit. The view is
/// made from `topics`. A partition that newer code than `code_version` has folded is not claimed. Returns an outcome for each:
/// `None` where another transaction holds the row, unless it `waits` for that.
///
/// # Errors
/// The database failed.
pub async fn claim(
    pool: &PgPool,
    view: &View,
    wanted: &[Wanted<'_>],
    topics: &[String],
    code_version: i32,
    waits: bool,
) -> Result<Vec<Option<ClaimOutcome>>, sqlx::Error> {
    let not_ready = || {
        Ok(wanted
            .iter()
            .map(|_| Some(ClaimOutcome::NotReady))
            .collect())
    };
    let mut transaction = pool.begin().await?;
    let Some((_, paused)) = version_of(&mut transaction, view).await? else {
        return not_ready();
    };
    let of: BTreeSet<&str> = wanted.iter().map(|one| &*one.partition.topic).collect();
    let of: Vec<String> = of.into_iter().map(str::to_owned).collect();
    let known = of_topics(&mut *transaction, view, &of).await?;
    let chosen = wanted
        .iter()
        .map(|wanted| claimable(&known, wanted, code_version, paused));
    let chosen: Vec<Result<&PartitionProgress, ClaimOutcome>> = chosen.collect();
    let log_ids: Vec<i32> = chosen.iter().flatten().map(|row| row.log_id).collect();
    let waiting: HashSet<i32> = sqlx::query_scalar!(
        r#"SELECT log_id AS "log_id!" FROM unnest($3::integer[]) AS log_id
           WHERE sightline.waits_for_partitions($1, $2, log_id)"#,
        view.domain,
        view.version,
        &log_ids
    )
    .fetch_all(&mut *transaction)
    .await?
    .into_iter()
    .collect();
    let log_ids: Vec<i32> = log_ids
        .into_iter()
        .filter(|id| !waiting.contains(id))
        .collect();
    let free = lock_to_claim(&mut transaction, view, &log_ids, waits).await?;
    let rows = sqlx::query_file!(
        "src/projector/sql/claim_partitions.sql",
        view.domain,
        view.version,
        &free,
        code_version
    )
    .fetch_all(&mut *transaction)
    .await?;
    // All that follows is read under the rows' locks: every transaction that changes it takes those locks, too, and raises the
    // epochs.
    let Some((schema, paused)) = version_of(&mut transaction, view).await? else {
        return not_ready();
    };
    let mut owned: HashMap<i32, OwnedPartition> = HashMap::new();
    if !paused && !rows.is_empty() {
        let claimed: Vec<i32> = rows.iter().map(|row| row.log_id).collect();
        let positions: Vec<i64> = rows.iter().map(|row| row.next_offset).collect();
        let (log_count, is_live) = use_schema(&mut transaction, view).await?;
        let mut is_ready = false;
        if rows.iter().any(|row| {
            row.ready_offset
                .is_some_and(|offset| row.next_offset >= offset)
        }) {
            is_ready = note_ready(&mut transaction, view, topics).await?;
        }
        for row in rows {
            let has_reached = |offset: &i64| row.next_offset >= *offset;
            let partition = OwnedPartition {
                claim: Claim {
                    log_id: row.log_id,
                    epoch: row.epoch,
                    next_offset: row.next_offset,
                    stream_time: row.stream_time,
                    log_count,
                    is_live,
                },
                schema: schema.clone(),
                failure: row.failure,
                ready_offset: row
                    .ready_offset
                    .filter(|offset| !(is_ready && has_reached(offset))),
                last_record: row.last_offset.zip(row.last_record),
                parked: HashSet::new(),
                discards: HashMap::new(),
                runs: Runs::default(),
            };
            owned.insert(row.log_id, partition);
        }
        read_parked_keys(&mut transaction, view, &claimed, &mut owned).await?;
        read_discards(&mut transaction, view, &claimed, &positions, &mut owned).await?;
        let former: Vec<&Runs> = wanted.iter().map(|one| one.former).collect();
        let runs = Runs::read(&mut transaction, &claimed, &former).await?;
        for (log_id, runs) in claimed.iter().zip(runs) {
            if let Some(owned) = owned.get_mut(log_id) {
                owned.runs = runs;
            }
        }
        transaction.commit().await?;
    }
    let outcomes = chosen.into_iter().map(|chosen| {
        let (log_id, epoch) = match chosen {
            Ok(row) => (row.log_id, row.epoch),
            Err(outcome) => return Some(outcome),
        };
        if waiting.contains(&log_id) {
            return Some(ClaimOutcome::WaitsForPartitions { log_id, epoch });
        }
        if paused {
            return Some(ClaimOutcome::Paused { log_id, epoch });
        }
        match owned.remove(&log_id) {
            Some(owned) => Some(ClaimOutcome::Claimed(Box::new(owned))),
            None if free.contains(&log_id) || waits => Some(ClaimOutcome::NotReady),
            None => None,
        }
    });
    Ok(outcomes.collect())
}

/// Locks progress rows in the order of their logs. Returns the logs whose rows are locked. It leaves out those that another
/// transaction holds, unless it `waits` for them.
async fn lock_to_claim(
    connection: &mut PgConnection,
    view: &View,
    log_ids: &[i32],
    waits: bool,
) -> Result<Vec<i32>, sqlx::Error> {
    if waits {
        return sqlx::query_scalar!(
            "SELECT log_id FROM sightline.progress
             WHERE domain = $1 AND version = $2 AND log_id = ANY ($3) ORDER BY log_id FOR UPDATE",
            view.domain,
            view.version,
            log_ids
        )
        .fetch_all(connection)
        .await;
    }
    sqlx::query_scalar!(
        "SELECT log_id FROM sightline.progress
         WHERE domain = $1 AND version = $2 AND log_id = ANY ($3) ORDER BY log_id FOR UPDATE SKIP LOCKED",
        view.domain,
        view.version,
        log_ids
    )
    .fetch_all(connection)
    .await
}

async fn read_parked_keys(
    connection: &mut PgConnection,
    view: &View,
    log_ids: &[i32],
    owned: &mut HashMap<i32, OwnedPartition>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query_file!(
        "src/projector/sql/parked_keys.sql",
        view.domain,
        view.version,
        log_ids
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        if let Some(owned) = owned.get_mut(&row.log_id) {
            owned.parked.insert(row.key_hash);
        }
    }
    Ok(())
}

/// Reads what operators discarded of claimed logs, each from its position on.
async fn read_discards(
    connection: &mut PgConnection,
    view: &View,
    log_ids: &[i32],
    positions: &[i64],
    owned: &mut HashMap<i32, OwnedPartition>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT log_id, record_offset, resolution, reason, field, class FROM sightline.discards
         JOIN unnest($2::integer[], $3::bigint[]) AS claimed (log_id, next_offset) USING (log_id)
         WHERE domain = $1 AND record_offset >= next_offset",
        view.domain,
        log_ids,
        positions,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let discard = Discard {
            resolution: row.resolution,
            reason: row.reason,
            field: row.field,
            class: Class::from_stored(&row.class),
        };
        if let Some(owned) = owned.get_mut(&row.log_id) {
            owned.discards.insert(row.record_offset, discard);
        }
    }
    Ok(())
}

/// Fences the owners of the logs that come before this one, whose dead letters the transaction will close.
///
/// # Errors
/// The database failed.
pub async fn fence_earlier_logs(
    connection: &mut PgConnection,
    view: &View,
    log_id: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/fence_earlier_logs.sql",
        view.domain,
        view.version,
        log_id
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Begins a transaction for claimed partitions, all in one schema: locks the progress rows that are as they were claimed, and
/// points unqualified names at the version's tables. Returns the logs of the locked rows. For a partition by itself it waits
/// until another transaction frees its row; rows of several that are not free are left out.
///
/// # Errors
/// The database failed.
pub async fn lock(
    connection: &mut PgConnection,
    view: &View,
    schema: &str,
    claims: &[&Claim],
) -> Result<HashSet<i32>, sqlx::Error> {
    let locked = lock_free(connection, view, schema, claims).await?;
    match claims {
        // The row is not free, or not as it was claimed.
        [claim] if locked.is_empty() => {
            db::set_local(connection, "lock_timeout", LOCK_TIMEOUT).await?;
            sqlx::query!(
                "SELECT log_id FROM sightline.progress WHERE domain = $1 AND version = $2 AND log_id = $3 FOR UPDATE",
                view.domain,
                view.version,
                claim.log_id
            )
            .fetch_optional(&mut *connection)
            .await?;
            lock_free(connection, view, schema, claims).await
        }
        _ => Ok(locked),
    }
}

/// Locks the progress rows that are free and as they were claimed.
async fn lock_free(
    connection: &mut PgConnection,
    view: &View,
    schema: &str,
    claims: &[&Claim],
) -> Result<HashSet<i32>, sqlx::Error> {
    let log_ids: Vec<i32> = claims.iter().map(|claim| claim.log_id).collect();
    let epochs: Vec<i64> = claims.iter().map(|claim| claim.epoch).collect();
    let positions: Vec<i64> = claims.iter().map(|claim| claim.next_offset).collect();
    let rows = sqlx::query_file!(
        "src/projector/sql/lock_progress.sql",
        view.domain,
        view.version,
        &log_ids,
        &epochs,
        &positions,
        schema,
        LOCK_TIMEOUT,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.log_id).collect())
}

/// Moves the progress rows that are free and as they were claimed, with the version of the code that folds them, and locks them
/// if [`lock`] has not. Points unqualified names at the version's tables. Returns the logs of the moved rows.
///
/// # Errors
/// The database failed, or the books don't balance.
pub async fn advance(
    connection: &mut PgConnection,
    view: &View,
    schema: &str,
    code_version: i32,
    moves: &[(&Claim, Advance)],
) -> Result<HashSet<i32>, sqlx::Error> {
    let rows = sqlx::query_file_scalar!(
        "src/projector/sql/advance_progress.sql",
        view.domain,
        view.version,
        code_version,
        schema,
        LOCK_TIMEOUT,
        &column(moves, |(claim, _)| claim.log_id),
        &column(moves, |(claim, _)| claim.epoch),
        &column(moves, |(claim, _)| claim.next_offset),
        &column(moves, |(_, a)| a.next_offset),
        &column(moves, |(_, a)| a.stream_time),
        &column(moves, |(_, a)| a.books.read),
        &column(moves, |(_, a)| a.books.applied),
        &column(moves, |(_, a)| a.books.duplicates),
        &column(moves, |(_, a)| a.books.skipped),
        &column(moves, |(_, a)| a.books.dead_lettered),
        &column(moves, |(_, a)| a.books.holes),
        &column(moves, |(_, a)| a.last_record.map(|(offset, _)| offset)) as _,
        &column(moves, |(_, a)| a.last_record.map(|(_, record)| record)) as _,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// One value of each row, for an array that a statement unnests.
fn column<R, T>(rows: &[R], of: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// When the version last committed in another log than this one, if it ever did.
///
/// # Errors
/// The database failed.
pub async fn others_committed(
    pool: &PgPool,
    view: &View,
    log_id: i32,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT max(updated_at) FROM sightline.progress WHERE domain = $1 AND version = $2 AND log_id <> $3",
        view.domain,
        view.version,
        log_id,
    )
    .fetch_one(pool)
    .await
}

/// Stores why projection of these logs waits for an operator's decision, where the log still has this epoch. Returns
/// whether that is new.
///
/// # Errors
/// The database failed.
pub async fn set_failure(
    pool: &PgPool,
    view: &View,
    logs: &[(i32, i64)],
    failure: &str,
) -> Result<bool, sqlx::Error> {
    let (log_ids, epochs): (Vec<i32>, Vec<i64>) = logs.iter().copied().unzip();
    sqlx::query_file!(
        "src/projector/sql/set_failure.sql",
        view.domain,
        view.version,
        &log_ids,
        &epochs,
        failure
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected() > 0)
}

/// Stores that a claimed log has lost its tail from the offset `end` on. Discards of those offsets no longer count,
/// because other records may stand there. Does nothing if the epoch was raised since.
///
/// # Errors
/// The database failed.
pub async fn note_lost_tail(
    pool: &PgPool,
    view: &View,
    claim: &Claim,
    end: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/note_lost_tail.sql",
        view.domain,
        view.version,
        claim.log_id,
        claim.epoch,
        end
    )
    .execute(pool)
    .await
    .map(drop)
}

/// A log whose progress row shows that the database was restored to an earlier state.
pub struct WentBack {
    pub log_id: i32,
    /// The epoch of the row when that was found.
    pub epoch: i64,
    /// The offset that the state which was lost had reached, if that is known.
    pub projected: Option<i64>,
}

/// Stores that the database was restored to an earlier state, as some logs of a version show. Raises the epochs of all
/// versions, unless that was done for the same restore: each partition finds it by itself. Returns whether it is new that
/// the database was restored.
///
/// # Errors
/// The database failed.
pub async fn note_went_back(
    pool: &PgPool,
    projection: &dyn Projection,
    version: i32,
    logs: &[WentBack],
) -> Result<bool, sqlx::Error> {
    let domain = projection.domain();
    let log_ids: Vec<i32> = logs.iter().map(|log| log.log_id).collect();
    let epochs: Vec<i64> = logs.iter().map(|log| log.epoch).collect();
    let mut transaction = pool.begin().await?;
    versions::lock(&mut transaction, domain).await?;
    let is_due = sqlx::query_file_scalar!(
        "src/projector/sql/raise_is_due.sql",
        domain,
        version,
        &log_ids,
        &epochs
    )
    .fetch_one(&mut *transaction)
    .await?;
    if is_due {
        sqlx::query_file!("src/projector/sql/raise_epochs.sql", domain)
            .execute(&mut *transaction)
            .await?;
    }
    for log in logs {
        if let Some(projected) = log.projected {
            projection
                .on_restore(&mut transaction, log.log_id, projected)
                .await?;
        }
    }
    let noted = sqlx::query!(
        "UPDATE sightline.domains SET database_went_back_at = now() WHERE domain = $1 AND database_went_back_at IS NULL",
        domain
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(noted.rows_affected() > 0)
}

/// Stores that no failure holds up the projection of a claimed log. Does nothing if the epoch was raised since.
///
/// # Errors
/// The database failed.
pub async fn clear_failure(pool: &PgPool, view: &View, claim: &Claim) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sightline.progress SET failure = NULL
         WHERE domain = $1 AND version = $2 AND log_id = $3 AND epoch = $4 AND failure IS NOT NULL",
        view.domain,
        view.version,
        claim.log_id,
        claim.epoch,
    )
    .execute(pool)
    .await
    .map(drop)
}
