//! How far a version of a view has come in each partition: the rows that fence its writers.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::dead_letters::Class;
use super::{View, versions};
use crate::kafka::offsets::TopicState;

/// Where a partition stands, as its owner took it over. What it says holds for as long as the row's epoch
/// is this one.
#[derive(Debug)]
pub struct Hold {
    pub log_id: i32,
    pub epoch: i64,
    pub next_offset: i64,
    pub stream_time: Option<DateTime<Utc>>,
    /// The schema that holds the version's tables.
    pub schema: String,
    /// Whether it is the version that is read.
    pub is_live: bool,
    /// From how many logs the view is made.
    pub logs: i32,
    /// Why projection stood still, as the row had it.
    pub failure: Option<String>,
    /// Where the last record stood that was read, and its fingerprint.
    pub last: Option<(i64, Uuid)>,
    /// The keys (by hash) that have letters: what comes behind is parked.
    pub parked: HashSet<Uuid>,
    /// Records ahead, by offset, that an operator took out of the view before this version came to them.
    pub discarded: HashMap<i64, Discard>,
}

/// What is known of a record that an operator took out.
#[derive(Debug, Clone)]
pub struct Discard {
    /// In the operator's words.
    pub resolution: String,
    /// Why the record had become a letter.
    pub reason: String,
    pub field: Option<String>,
    pub class: Class,
}

/// What taking over came to.
#[derive(Debug)]
pub enum TakeOver {
    Held(Box<Hold>),
    /// The topic was deleted and created again: its positions are those of another log.
    TopicRecreated,
    /// The partition appeared later than others of its topic, which have to reach the ends that they had then.
    Waiting {
        log_id: i32,
        epoch: i64,
    },
    /// The version is paused.
    Paused {
        log_id: i32,
        epoch: i64,
    },
    /// A partition of the topic has no progress row yet, or the version is gone.
    NotReady,
}

/// Where each partition of a topic begins that no version of the view has met.
pub type Starts = BTreeMap<i32, i64>;

/// The offsets that other partitions have to reach first.
type WaitsFor = Json<BTreeMap<String, i64>>;

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

/// Makes the progress rows of a topic's partitions that have none. Returns those partitions.
///
/// All partitions of a topic without progress begin together: where other versions of the view began, or at the
/// beginning of a topic that was created anew, else where `starts` says. One that appears later begins at its
/// beginning, and is held until the others have reached their ends of now, so that a key that moved stays in order.
///
/// # Errors
/// The database failed.
pub async fn ensure(
    pool: &PgPool,
    view: &View,
    topic: &str,
    log: &TopicState,
    starts: &Starts,
) -> Result<Vec<i32>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // One process at a time for a domain: which partitions are "the first ones" must not be decided twice.
    versions::lock(&mut transaction, view.domain).await?;
    let known = of_topic(&mut *transaction, view, topic).await?;
    let recreated = known
        .iter()
        .any(|row| log.identity.differs_from(&row.topic_identity));
    let missing = missing(&known, log);
    // The first partitions are taken only all at once: one whose end is not known yet must not look new later.
    let complete = log.offsets.len() == usize::try_from(log.partition_count).unwrap_or_default();
    let is_there = version_of(&mut transaction, view).await?.is_some();
    if recreated || missing.is_empty() || (known.is_empty() && !complete) || !is_there {
        return Ok(Vec::new());
    }
    let waits_for = (!known.is_empty()).then(|| {
        let ends: BTreeMap<String, i64> = known
            .iter()
            .map(|row| {
                (
                    row.partition.to_string(),
                    log.offsets
                        .get(&row.partition)
                        .map_or(row.next_offset, |ends| ends.log_end),
                )
            })
            .collect();
        Json(ends)
    });
    let begun = sqlx::query_file!("src/projector/sql/topic_starts.sql", view.domain, topic)
        .fetch_all(&mut *transaction)
        .await?;
    let elsewhere: Starts = begun
        .iter()
        .filter(|row| !log.identity.differs_from(&row.topic_identity))
        .map(|row| (row.partition, row.start_offset))
        .collect();
    let offset = |partition: &i32| {
        let configured = match begun.is_empty() {
            true => starts.get(partition),
            false => elsewhere.get(partition),
        };
        let beginning = log.offsets[partition].log_start;
        configured
            .filter(|_| known.is_empty())
            .map_or(beginning, |offset| *offset)
    };
    let offsets: Vec<i64> = missing.iter().map(offset).collect();
    sqlx::query_file!(
        "src/projector/sql/add_partitions.sql",
        view.domain,
        view.version,
        log.identity.cluster_id,
        topic,
        log.identity.stored(),
        &missing,
        &offsets,
        waits_for as _,
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

/// The partitions whose ends are known, but that have no progress row.
fn missing(known: &[PartitionProgress], log: &TopicState) -> Vec<i32> {
    let is_known = |partition: &i32| known.iter().any(|row| row.partition == *partition);
    let partitions = log.offsets.keys().copied();
    partitions
        .filter(|partition| !is_known(partition))
        .collect()
}

/// Where a version's tables are, and whether it is paused; `None` where there is no such version (any more).
async fn version_of(
    connection: &mut PgConnection,
    view: &View,
) -> Result<Option<(String, bool)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT schema_name, paused_at IS NOT NULL AS "paused!" FROM sightline.views WHERE domain = $1 AND version = $2"#,
        view.domain,
        view.version,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.schema_name, row.paused)))
}

/// Points the transaction's unqualified names at the version's tables. Returns from how many logs they are made.
///
/// # Errors
/// The database failed.
pub async fn use_schema(connection: &mut PgConnection, view: &View) -> Result<i32, sqlx::Error> {
    sqlx::query!(
        "SELECT set_config('search_path', (SELECT schema_name FROM sightline.views WHERE domain = $1 AND version = $2), true)",
        view.domain,
        view.version,
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query_scalar!("SELECT logs FROM view_version")
        .fetch_one(connection)
        .await
}

/// Whether some version of the view has progress in a topic already, be it in a former incarnation.
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

/// A partition's progress, as far as it matters to the topic's other partitions.
struct PartitionProgress {
    log_id: i32,
    topic_identity: String,
    partition: i32,
    epoch: i64,
    next_offset: i64,
    waits_for: Option<WaitsFor>,
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
    log: &TopicState,
    partition: i32,
) -> Result<TakeOver, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let Some((_, paused)) = version_of(&mut transaction, view).await? else {
        return Ok(TakeOver::NotReady);
    };
    let known = of_topic(&mut *transaction, view, topic).await?;
    if known
        .iter()
        .any(|row| log.identity.differs_from(&row.topic_identity))
    {
        return Ok(TakeOver::TopicRecreated);
    }
    let ours = known.iter().find(|row| row.partition == partition);
    let Some(ours) = ours.filter(|_| missing(&known, log).is_empty()) else {
        return Ok(TakeOver::NotReady);
    };
    let (log_id, epoch) = (ours.log_id, ours.epoch);
    if paused {
        return Ok(TakeOver::Paused { log_id, epoch });
    }
    if let Some(Json(waits_for)) = &ours.waits_for {
        let reached = |partition: &str, end: i64| {
            known
                .iter()
                .any(|row| row.partition.to_string() == partition && row.next_offset >= end)
        };
        if !waits_for
            .iter()
            .all(|(partition, end)| reached(partition, *end))
        {
            return Ok(TakeOver::Waiting { log_id, epoch });
        }
    }
    let row = sqlx::query_file!(
        "src/projector/sql/claim_partition.sql",
        view.domain,
        view.version,
        log_id
    )
    .fetch_optional(&mut *transaction)
    .await?;
    // What follows is read under the row's lock: whoever changes it takes that lock, too, and raises the epoch.
    let Some((row, (schema, paused))) = row.zip(version_of(&mut transaction, view).await?) else {
        return Ok(TakeOver::NotReady);
    };
    if paused {
        return Ok(TakeOver::Paused { log_id, epoch });
    }
    let parked = sqlx::query_file_scalar!(
        "src/projector/sql/parked_keys.sql",
        view.domain,
        view.version,
        log_id
    )
    .fetch_all(&mut *transaction)
    .await?;
    let discarded = sqlx::query!(
        "SELECT record_offset, resolution, reason, field, class FROM sightline.discards
         WHERE domain = $1 AND log_id = $2 AND record_offset >= $3",
        view.domain,
        log_id,
        row.next_offset,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let logs = use_schema(&mut transaction, view).await?;
    transaction.commit().await?;
    Ok(TakeOver::Held(Box::new(Hold {
        log_id,
        epoch: row.epoch,
        next_offset: row.next_offset,
        stream_time: row.stream_time,
        is_live: schema == format!("{}_live", view.domain),
        schema,
        failure: row.failure,
        last: row.last_offset.zip(row.last_record),
        logs,
        parked: parked.into_iter().flatten().collect(),
        discarded: discarded
            .into_iter()
            .map(|row| {
                let discard = Discard {
                    resolution: row.resolution,
                    reason: row.reason,
                    field: row.field,
                    class: Class::stored(&row.class),
                };
                (row.record_offset, discard)
            })
            .collect(),
    })))
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

/// PartitionOffsets a batch: moves the position and the books of the locked row, and notes the last record, if there was one.
///
/// # Errors
/// The database failed, or the books don't balance.
pub async fn advance(
    connection: &mut PgConnection,
    view: &View,
    hold: &Hold,
    next_offset: i64,
    stream_time: Option<DateTime<Utc>>,
    books: &Books,
    last: Option<(i64, Uuid)>,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/advance_progress.sql",
        view.domain,
        view.version,
        hold.log_id,
        next_offset,
        stream_time,
        books.read,
        books.applied,
        books.duplicates,
        books.skipped,
        books.dead_lettered,
        books.holes,
        last.map(|(offset, _)| offset),
        last.map(|(_, record)| record),
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Notes why projection of a topic stands still, in a partition or in all that it had. Says whether that is new.
///
/// # Errors
/// The database failed.
pub async fn set_failure(
    pool: &PgPool,
    view: &View,
    topic: &str,
    partition: Option<i32>,
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

/// Notes that a log has lost its tail, so that what stands at offsets from here on need not be what stood there: discards
/// of those hold no more.
///
/// # Errors
/// The database failed.
pub async fn note_lost_tail(
    pool: &PgPool,
    view: &View,
    log_id: i32,
    end: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/note_lost_tail.sql",
        view.domain,
        view.version,
        log_id,
        end
    )
    .execute(pool)
    .await
    .map(drop)
}

/// Notes that the database is older than what was projected: it was restored. Says whether that is new.
///
/// # Errors
/// The database failed.
pub async fn note_went_back(pool: &PgPool, view: &View) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "UPDATE sightline.domains SET database_went_back_at = now() WHERE domain = $1 AND database_went_back_at IS NULL",
        view.domain
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
