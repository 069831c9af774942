//! How far a version of a view has come in each partition: the rows that fence its writers.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::View;
use super::log::TopicLog;

/// Where a partition stands, as its owner took it over. What it says holds for as long as the row's epoch
/// is this one.
#[derive(Debug)]
pub struct Hold {
    pub log_id: i32,
    pub epoch: i64,
    pub next_offset: i64,
    pub log_time: Option<DateTime<Utc>>,
    /// The schema that holds the version's tables.
    pub schema: String,
    /// From how many logs the view is made.
    pub logs: i32,
    /// Why projection stood still, as the row had it.
    pub failure: Option<String>,
    /// The keys (by hash) that have letters: what comes behind is parked.
    pub parked: HashSet<Uuid>,
}

/// What taking over came to.
#[derive(Debug)]
pub enum TakeOver {
    Held(Hold),
    /// The topic was deleted and created again: its positions are those of another log.
    TopicRecreated,
    /// The partition appeared later than others of its topic, which have to reach the ends that they had then.
    Waiting {
        log_id: i32,
        epoch: i64,
    },
    /// The partition has no progress row yet: not all that has to be known of its topic is.
    NotReady,
}

/// Where each partition of a topic without any progress begins.
pub type Starts = BTreeMap<i32, i64>;

/// The offsets that other partitions have to reach first.
type HeldUntil = Json<BTreeMap<String, i64>>;

/// What a transaction adds to the books, and where it leaves the position.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Books {
    pub read: i64,
    pub applied: i64,
    pub duplicates: i64,
    pub skipped: i64,
    pub dead_lettered: i64,
    pub holes: i64,
}

/// Makes the progress rows of a topic's partitions that have none.
///
/// All partitions of a topic without progress begin together, where `starts` says. One that appears later
/// begins at its beginning, and is held until the others have reached their ends of now, so that a key that
/// moved stays in order.
///
/// # Errors
/// The database failed.
pub async fn ensure(
    pool: &PgPool,
    view: &View,
    topic: &str,
    log: &TopicLog,
    starts: &Starts,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // One process at a time for a domain: which partitions are "the first ones" must not be decided twice.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('sightline.progress.' || $1, 0))",
        view.domain
    )
    .execute(&mut *transaction)
    .await?;
    let known = of_topic(&mut *transaction, view, topic).await?;
    let recreated = known
        .iter()
        .any(|row| log.identity.differs_from(&row.topic_identity));
    let missing: Vec<i32> = log
        .ends
        .keys()
        .copied()
        .filter(|partition| !known.iter().any(|row| row.partition == *partition))
        .collect();
    // The first partitions are taken only all at once: one whose end is not known yet must not look new later.
    let complete = log.ends.len() == usize::try_from(log.partitions).unwrap_or_default();
    if recreated || missing.is_empty() || (known.is_empty() && !complete) {
        return Ok(());
    }
    let held_until = (!known.is_empty()).then(|| {
        let ends: BTreeMap<String, i64> = known
            .iter()
            .map(|row| {
                (
                    row.partition.to_string(),
                    log.ends
                        .get(&row.partition)
                        .map_or(row.next_offset, |ends| ends.end),
                )
            })
            .collect();
        Json(ends)
    });
    let offsets: Vec<i64> = missing
        .iter()
        .map(|partition| match starts.get(partition) {
            Some(offset) if known.is_empty() => *offset,
            _ => log.ends[partition].start,
        })
        .collect();
    sqlx::query_file!(
        "src/projector/sql/add_partitions.sql",
        view.domain,
        view.version,
        log.identity.cluster_id,
        topic,
        log.identity.stored(),
        &missing,
        &offsets,
        held_until as _,
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
    transaction.commit().await
}

/// Points the transaction's unqualified names at the version's tables.
async fn use_schema(connection: &mut PgConnection, view: &View) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT set_config('search_path', (SELECT schema_name FROM sightline.views WHERE domain = $1 AND version = $2), true)",
        view.domain,
        view.version,
    )
    .fetch_one(connection)
    .await
    .map(drop)
}

/// Whether a topic has progress already.
///
/// # Errors
/// The database failed.
pub async fn has_begun(pool: &PgPool, view: &View, topic: &str) -> Result<bool, sqlx::Error> {
    Ok(!of_topic(pool, view, topic).await?.is_empty())
}

/// A partition's progress, as far as it matters to the topic's other partitions.
struct PartitionProgress {
    log_id: i32,
    topic_identity: String,
    partition: i32,
    epoch: i64,
    next_offset: i64,
    held_until: Option<HeldUntil>,
}

async fn of_topic(
    executor: impl PgExecutor<'_>,
    view: &View,
    topic: &str,
) -> Result<Vec<PartitionProgress>, sqlx::Error> {
    sqlx::query_file_as!(
        PartitionProgress,
        "src/projector/sql/topic_progress.sql",
        view.domain,
        view.version,
        topic
    )
    .fetch_all(executor)
    .await
}

/// Takes a partition over: raises its epoch, so that a batch of whoever had it before can't commit any more.
///
/// # Errors
/// The database failed.
pub async fn take_over(
    pool: &PgPool,
    view: &View,
    topic: &str,
    log: &TopicLog,
    partition: i32,
) -> Result<TakeOver, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let known = of_topic(&mut *transaction, view, topic).await?;
    if known
        .iter()
        .any(|row| log.identity.differs_from(&row.topic_identity))
    {
        return Ok(TakeOver::TopicRecreated);
    }
    let Some(ours) = known.iter().find(|row| row.partition == partition) else {
        return Ok(TakeOver::NotReady);
    };
    if let Some(Json(held_until)) = &ours.held_until {
        let reached = |partition: &str, end: i64| {
            known
                .iter()
                .any(|row| row.partition.to_string() == partition && row.next_offset >= end)
        };
        if !held_until
            .iter()
            .all(|(partition, end)| reached(partition, *end))
        {
            return Ok(TakeOver::Waiting {
                log_id: ours.log_id,
                epoch: ours.epoch,
            });
        }
    }
    let row = sqlx::query_file!(
        "src/projector/sql/take_over.sql",
        view.domain,
        view.version,
        ours.log_id
    )
    .fetch_one(&mut *transaction)
    .await?;
    // Read under the row's lock: a drain, which takes it too, can't change them before the epoch is ours.
    let parked = sqlx::query_file_scalar!(
        "src/projector/sql/parked_keys.sql",
        view.domain,
        view.version,
        ours.log_id
    )
    .fetch_all(&mut *transaction)
    .await?;
    use_schema(&mut transaction, view).await?;
    let logs = sqlx::query_scalar!("SELECT logs FROM view_version")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(TakeOver::Held(Hold {
        log_id: ours.log_id,
        epoch: row.epoch,
        next_offset: row.next_offset,
        log_time: row.log_time,
        schema: row.schema_name,
        failure: row.failure,
        logs,
        parked: parked.into_iter().flatten().collect(),
    }))
}

/// Begins a batch: locks the progress row if it is as it was taken over, and points unqualified names at the
/// version's tables. `false`: somebody else changed it, and the batch has to be decided anew.
///
/// # Errors
/// The database failed.
pub async fn lock(
    connection: &mut PgConnection,
    view: &View,
    hold: &Hold,
) -> Result<bool, sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/lock_progress.sql",
        view.domain,
        view.version,
        hold.log_id,
        hold.epoch,
        hold.next_offset,
        hold.schema,
    )
    .fetch_optional(connection)
    .await
    .map(|row| row.is_some())
}

/// Ends a batch: moves the position and the books of the locked row.
///
/// # Errors
/// The database failed, or the books don't balance.
pub async fn advance(
    connection: &mut PgConnection,
    view: &View,
    hold: &Hold,
    next_offset: i64,
    log_time: Option<DateTime<Utc>>,
    books: &Books,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/advance_progress.sql",
        view.domain,
        view.version,
        hold.log_id,
        next_offset,
        log_time,
        books.read,
        books.applied,
        books.duplicates,
        books.skipped,
        books.dead_lettered,
        books.holes,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Notes why projection of a topic's partition, of whichever incarnation, stands still. Says whether that is new.
///
/// # Errors
/// The database failed.
pub async fn set_failure(
    pool: &PgPool,
    view: &View,
    topic: &str,
    partition: i32,
    failure: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/set_failure.sql",
        view.domain,
        view.version,
        topic,
        partition,
        failure
    )
    .execute(pool)
    .await
    .map(|done| done.rows_affected() > 0)
}

/// Notes that nothing keeps a log from being projected.
///
/// # Errors
/// The database failed.
pub async fn clear_failure(pool: &PgPool, view: &View, log_id: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE sightline.progress SET failure = NULL WHERE domain = $1 AND version = $2 AND log_id = $3 AND failure IS NOT NULL",
        view.domain,
        view.version,
        log_id,
    )
    .execute(pool)
    .await
    .map(drop)
}
