//! The handle that queries read through: the pool, and the logs that positions and cursors refer
//! to.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgPool, PgTransaction};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Position};
use super::cursor::{Cursor, Fingerprint};
use super::lookups::{Lookup, Lookups};
use super::status::Statuses;
use super::token::{ConsistencyToken, TopicIdentity, TopicRef};
use crate::error::Error;
use crate::kafka::offsets::UNKNOWN_TOPIC_ID;
use crate::projector::announcements::Announcements;
use crate::projector::restores::RestoreCheck;

/// How long the row of a log counts whose topic's id is not known.
const PROVISIONAL: Duration = Duration::from_secs(5);

/// The handle that queries read through. Cheap to clone.
#[derive(Clone)]
pub struct Reads(Arc<Inner>);

struct Inner {
    pool: PgPool,
    work: Work,
    lookups: Arc<Lookups>,
    /// Rows of `sightline.logs`, which never change once the topic's id is known.
    logs: RwLock<HashMap<i32, Log>>,
    /// From the last reading of the lag; `None` before the first.
    statuses: RwLock<Option<Statuses>>,
}

/// What a work queue needs, from which callers take work, and in which they settle it. Cheap to clone.
#[derive(Clone)]
pub struct Work {
    /// For what callers write: a read waits for none of these connections, nor the other way round.
    pub pool: PgPool,
    /// Where commits are announced.
    pub announcements: Announcements,
    /// Finds out whether the database was restored.
    pub restores: RestoreCheck,
    /// Cancelled when the process begins to stop: requests for work then wait no longer.
    pub stop: CancellationToken,
}

/// One partition of one incarnation of a topic.
#[derive(Clone)]
struct Log {
    topic: TopicRef,
    partition: u32,
    fingerprint: Fingerprint,
    /// When to read the row again, because the topic's id was not known then.
    provisional_until: Option<Instant>,
}

impl Log {
    fn is_overdue(&self) -> bool {
        self.provisional_until
            .is_some_and(|until| Instant::now() > until)
    }
}

/// Where reading a feed resumes in each log, as parameters of a statement: the n-th entries of the
/// three lists belong together.
#[derive(Debug, Default)]
pub struct Resume {
    /// The view version whose feed the positions are of.
    pub view_version: i32,
    /// Ids of `sightline.logs`.
    pub log_ids: Vec<i32>,
    /// The first half of each log's feed position.
    pub next_offsets: Vec<i64>,
    /// The second half of each log's feed position.
    pub sequences: Vec<i64>,
}

impl Reads {
    /// Reads through `pool`, whose connections must set a `statement_timeout`.
    pub fn new(pool: PgPool, work: Work) -> Self {
        Self(Arc::new(Inner {
            work,
            lookups: Arc::new(Lookups::new(pool.clone())),
            pool,
            logs: RwLock::default(),
            statuses: RwLock::default(),
        }))
    }

    /// What work queues need.
    pub fn work(&self) -> &Work {
        &self.0.work
    }

    /// The pool for reads.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// Begins a read of several statements, which see one snapshot of a domain's live view: each statement alone would see one of
    /// its own. They are planned for their values, may use bitmaps, and wait for no parallel workers to start.
    ///
    /// # Errors
    /// The database failed.
    pub async fn snapshot(&self, domain: &'static str) -> Result<PgTransaction<'static>, Error> {
        // A switch holds this lock while it renames schemas. Postgres takes the snapshot with the first statement after it.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             LOCK TABLE {domain}_live.view_version IN ACCESS SHARE MODE;
             SET LOCAL plan_cache_mode = force_custom_plan;
             SET LOCAL enable_bitmapscan = on;
             SET LOCAL max_parallel_workers_per_gather = 0"
        );
        let begun = self.pool().begin_with(AssertSqlSafe(begin)).await;
        begun.map_err(|error| Error::from(error).in_statement("query/snapshot"))
    }

    /// Looks a row up by its id. Returns its document, if there is one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find(
        &self,
        lookup: &'static Lookup,
        id: &str,
    ) -> Result<Answer<Option<String>>, Error> {
        let found = self.0.lookups.find(lookup, id).await?;
        let position = self
            .position(
                lookup.domain,
                &found.logs,
                &found.offsets,
                found.is_ready,
                found.lacks_dead_letters,
            )
            .await?;
        Ok(Answer {
            body: found.document,
            position,
        })
    }

    /// Replaces what answers say of the partitions that they depend on.
    pub fn set_statuses(&self, statuses: Statuses) {
        let mut last = self
            .0
            .statuses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(statuses);
    }

    /// What an answer of a domain reflects, from what its statement read beside its rows: the n-th
    /// next offset belongs to the n-th log.
    ///
    /// # Errors
    /// INTERNAL: the lists differ in length, or an offset is negative. The database failed while a
    /// log that is new to this process was looked up.
    pub async fn position(
        &self,
        domain: &str,
        log_ids: &[i32],
        next_offsets: &[i64],
        is_ready: bool,
        lacks_dead_letters: bool,
    ) -> Result<Position, Error> {
        let token = self.token(log_ids, next_offsets).await?;
        let statuses = self
            .0
            .statuses
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(Position {
            token,
            status: statuses
                .as_ref()
                .and_then(|statuses| statuses.of(domain, log_ids)),
            is_ready,
            lacks_dead_letters,
        })
    }

    async fn token(
        &self,
        log_ids: &[i32],
        next_offsets: &[i64],
    ) -> Result<ConsistencyToken, Error> {
        if log_ids.len() != next_offsets.len() {
            return Err(Error::internal(
                "the lists of logs and offsets differ in length",
            ));
        }
        let logs = self
            .look_up(log_ids, |log| (log.topic.clone(), log.partition))
            .await?;
        let mut token = ConsistencyToken::default();
        for ((topic, partition), next_offset) in logs.into_iter().zip(next_offsets) {
            let position = u64::try_from(*next_offset)
                .map_err(|_| Error::internal("a position is negative"))?;
            token.advance(topic, partition, position);
        }
        Ok(token)
    }

    /// Where a reader with this cursor resumes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming `field`: the cursor holds a partition that this database does not
    /// know. The database failed while logs that are new to this process were looked up.
    pub async fn resume(&self, field: &str, cursor: &Cursor) -> Result<Resume, Error> {
        if let Some(resume) = self.resume_in_known_logs(cursor) {
            return Ok(resume);
        }
        self.load(None).await?;
        self.resume_in_known_logs(cursor).ok_or_else(|| {
            let problem = "is from another gateway, or from a topic that no longer exists: read the feed from the beginning";
            Error::invalid(field, problem)
        })
    }

    /// Returns `None` if the cursor holds a log that this process has not loaded.
    fn resume_in_known_logs(&self, cursor: &Cursor) -> Option<Resume> {
        let logs = self.0.logs.read().unwrap_or_else(PoisonError::into_inner);
        let by_fingerprint: HashMap<Fingerprint, i32> = logs
            .iter()
            .map(|(log_id, log)| (log.fingerprint, *log_id))
            .collect();
        // Cursors are unsigned, the column is signed. No view has a version that does not fit.
        let mut resume = Resume {
            view_version: i32::try_from(cursor.view_version).unwrap_or(i32::MAX),
            ..Resume::default()
        };
        for (fingerprint, position) in cursor.iter() {
            resume.log_ids.push(*by_fingerprint.get(&fingerprint)?);
            resume.next_offsets.push(position.next_offset);
            resume.sequences.push(position.sequence);
        }
        Some(resume)
    }

    /// The fingerprints of logs, for cursors.
    ///
    /// # Errors
    /// The database failed while a log that is new to this process was looked up.
    pub async fn fingerprints(&self, log_ids: &[i32]) -> Result<Vec<Fingerprint>, Error> {
        self.look_up(log_ids, |log| log.fingerprint).await
    }

    /// Topic and partition number of each log.
    ///
    /// # Errors
    /// The database failed while a log that is new to this process was looked up.
    pub async fn partitions(&self, log_ids: &[i32]) -> Result<Vec<(String, u32)>, Error> {
        self.look_up(log_ids, |log| (log.topic.topic.clone(), log.partition))
            .await
    }

    async fn look_up<T>(&self, log_ids: &[i32], f: impl Fn(&Log) -> T) -> Result<Vec<T>, Error> {
        self.load_missing(log_ids).await?;
        let logs = self.0.logs.read().unwrap_or_else(PoisonError::into_inner);
        let found: Option<Vec<_>> = log_ids
            .iter()
            .map(|log_id| logs.get(log_id).map(&f))
            .collect();
        found.ok_or_else(|| Error::internal("a row refers to a log that does not exist"))
    }

    async fn load_missing(&self, log_ids: &[i32]) -> Result<(), Error> {
        let missing: Vec<i32> = {
            let logs = self.0.logs.read().unwrap_or_else(PoisonError::into_inner);
            log_ids
                .iter()
                .filter(|log_id| logs.get(log_id).is_none_or(Log::is_overdue))
                .copied()
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        self.load(Some(missing)).await
    }

    /// Loads these logs, or all if `None`.
    async fn load(&self, log_ids: Option<Vec<i32>>) -> Result<(), Error> {
        let rows: Vec<(i32, String, String, String, i32)> = sqlx::query_as(
            "SELECT log_id, cluster_id, topic, topic_identity, partition
             FROM sightline.logs WHERE $1::integer[] IS NULL OR log_id = ANY($1)",
        )
        .bind(log_ids)
        .fetch_all(self.pool())
        .await
        .map_err(|e| Error::from(e).in_statement("query/logs"))?;
        let mut logs = self.0.logs.write().unwrap_or_else(PoisonError::into_inner);
        for (log_id, cluster_id, topic, topic_identity, partition) in rows {
            let fingerprint = Fingerprint::of(&cluster_id, &topic, &topic_identity, partition);
            let identity = Some(TopicIdentity::of(&cluster_id, &topic_identity));
            let log = Log {
                topic: TopicRef { topic, identity },
                // A CHECK keeps it from being negative.
                partition: partition.unsigned_abs(),
                fingerprint,
                provisional_until: (topic_identity == UNKNOWN_TOPIC_ID)
                    .then(|| Instant::now() + PROVISIONAL),
            };
            logs.insert(log_id, log);
        }
        Ok(())
    }
}
