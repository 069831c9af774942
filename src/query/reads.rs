//! The handle that queries read through: the pool, and the logs that positions and cursors refer
//! to.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgConnection, PgPool, PgTransaction};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Position};
use super::cursor::{Cursor, Fingerprint};
use super::event_lookups::EventLookups;
use super::lookups::{Found, Lookup};
use super::replicas::{Replicas, Source};
use super::seen::{self, Seen, Subject};
use super::status::Statuses;
use super::token::{ConsistencyToken, IncarnationHash, TopicRef};
use super::watch::registry::Watches;
use crate::error::Error;
use crate::event::hash16;
use crate::kafka::ends::EndsReader;
use crate::kafka::offsets::UNKNOWN_TOPIC_ID;
use crate::projector::announcements::Announcements;
use crate::projector::restores::RestoreCheck;

/// How long the row of a log counts whose topic's id is not known.
const PROVISIONAL: Duration = Duration::from_secs(5);

/// The handle that queries read through. Cheap to clone.
#[derive(Clone)]
pub struct Reads(Arc<Inner>);

struct Inner {
    /// The domains that this process serves.
    served: Vec<&'static str>,
    primary: Source,
    replicas: Replicas,
    work: Work,
    /// Reads the ends of the logs; `None` only where there is no Kafka.
    ends: Option<EndsReader>,
    /// How long a partition that was added waits at least.
    settle: Duration,
    watches: Watches,
    event_lookups: EventLookups,
    /// Rows of `sightline.logs`, which never change once the topic's id is known.
    logs: RwLock<HashMap<i32, Log>>,
    /// From the last reading of the lag; `None` before the first.
    statuses: RwLock<Option<Statuses>>,
}

/// What calls need that wait for commits, and those that take work and settle it. Cheap to clone.
#[derive(Clone)]
pub struct Work {
    /// For what callers write: a read waits for none of these connections, nor the other way round.
    pub pool: PgPool,
    /// Where commits are announced.
    pub announcements: Announcements,
    /// Finds out whether the database was restored.
    pub restores: RestoreCheck,
    /// Cancelled when the process begins to stop: calls that wait are answered then, and streams end.
    pub stop: CancellationToken,
}

/// What a partition that a token names is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundLog {
    /// A log, by its id.
    Known(i32),
    /// The topic is not projected.
    NoTopic,
    /// The topic is, but no partition of this number.
    NoPartition,
    /// The topic was deleted and created again since.
    Outdated,
    /// A topic of this name, but of another cluster, or of another database's.
    Foreign,
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
    /// Reads of the views of `served` through `pool` and from `replicas`, whose connections must set a `statement_timeout`.
    pub fn new(
        served: Vec<&'static str>,
        pool: PgPool,
        replicas: Vec<PgPool>,
        work: Work,
        ends: Option<EndsReader>,
        settle: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            work,
            ends,
            settle,
            event_lookups: EventLookups::new(pool.clone(), served.clone()),
            served,
            primary: Source::primary(pool),
            replicas: Replicas::new(replicas),
            watches: Watches::default(),
            logs: RwLock::default(),
            statuses: RwLock::default(),
        }))
    }

    /// The domains that this process serves.
    pub fn served(&self) -> &[&'static str] {
        &self.0.served
    }

    /// What work queues need.
    pub fn work(&self) -> &Work {
        &self.0.work
    }

    /// Reads the ends of the logs; `None` only where there is no Kafka.
    pub fn ends(&self) -> Option<&EndsReader> {
        self.0.ends.as_ref()
    }

    /// How long a partition that was added waits at least.
    pub fn settle(&self) -> Duration {
        self.0.settle
    }

    /// The replicas of the database.
    pub fn replicas(&self) -> &Replicas {
        &self.0.replicas
    }

    /// The streams of this process, and what those of one feed share.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    /// The look-ups of events.
    pub fn event_lookups(&self) -> &EventLookups {
        &self.0.event_lookups
    }

    /// The pool for the current read: of a replica, if it runs on one.
    pub fn pool(&self) -> &PgPool {
        &self.source().pool
    }

    /// The pool of the primary, which knows what replicas may not know yet.
    pub fn primary(&self) -> &PgPool {
        &self.0.primary.pool
    }

    fn source(&self) -> &Source {
        self.0.replicas.chosen().unwrap_or(&self.0.primary)
    }

    /// Begins a read of several statements, which see one snapshot of the live views of domains: each statement alone would see
    /// one of its own. They are planned for their values, may use bitmaps, and wait for no parallel workers to start.
    ///
    /// # Errors
    /// The database failed.
    pub async fn snapshot(
        &self,
        domains: &[&'static str],
    ) -> Result<PgTransaction<'static>, Error> {
        // A switch holds such a lock while it renames schemas. Postgres takes the snapshot with the first statement after them.
        // A switch is of one view only, so that the order of the locks can't make two transactions wait for each other.
        let versions: Vec<String> = domains
            .iter()
            .map(|domain| format!("{domain}_live.view_version"))
            .collect();
        let versions = versions.join(", ");
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             LOCK TABLE {versions} IN ACCESS SHARE MODE;
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
        let found = self.source().lookups.find(lookup, id).await?;
        self.found(lookup, found).await
    }

    /// Looks a row up as [`find`](Self::find) does, on the connection of a snapshot.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find_in(
        &self,
        snapshot: &mut PgConnection,
        lookup: &'static Lookup,
        id: &str,
    ) -> Result<Answer<Option<String>>, Error> {
        let (keys, ids) = ([hash16(id.as_bytes())], [id.to_owned()]);
        let found = (lookup.run)(snapshot, lookup.domain, &keys, &ids).await;
        let found = found.map_err(|error| Error::from(error).in_statement(lookup.statement))?;
        let found = found.into_iter().next().unwrap_or_default();
        self.found(lookup, found).await
    }

    async fn found(&self, lookup: &Lookup, found: Found) -> Result<Answer<Option<String>>, Error> {
        let position = self
            .position(
                lookup.domain,
                &found.logs,
                &found.offsets,
                found.is_ready,
                (lookup.subject)(found.dead_letter),
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
        subject: Subject,
    ) -> Result<Position, Error> {
        let token = self.token(log_ids, next_offsets).await?;
        let position = Position {
            token,
            status: self.with_statuses(|statuses| statuses.of(domain, log_ids)),
            is_ready,
            lacks_dead_letters: subject.dead_letter().is_some(),
        };
        seen::note(|| Seen {
            domain: domain.to_owned(),
            logs: log_ids
                .iter()
                .copied()
                .zip(next_offsets.iter().copied())
                .collect(),
            subject,
            position: position.clone(),
        });
        Ok(position)
    }

    /// What the last reading of the lag says; `None` before the first.
    pub fn with_statuses<T>(&self, f: impl FnOnce(&Statuses) -> Option<T>) -> Option<T> {
        let statuses = &self.0.statuses;
        let statuses = statuses.read().unwrap_or_else(PoisonError::into_inner);
        statuses.as_ref().and_then(f)
    }

    /// The log of a partition that a token names, of the topic as it is now.
    ///
    /// # Errors
    /// The database failed.
    pub async fn log(&self, topic: &TopicRef, partition: u32) -> Result<FoundLog, Error> {
        let mut topic = topic.clone();
        if topic.identity.is_none() {
            // As Kafka has it now: this process may not have read the new row of a topic that was created again.
            let state = self.ends().and_then(|ends| ends.topic(&topic.topic));
            let identity = state.map(|state| state.identity.clone());
            topic.identity = identity
                .map(|identity| IncarnationHash::of(&identity.cluster_id, identity.stored()));
        }
        match self.known_log(&topic, partition) {
            FoundLog::Known(log_id) => Ok(FoundLog::Known(log_id)),
            _ => {
                self.load(None).await?;
                Ok(self.known_log(&topic, partition))
            }
        }
    }

    fn known_log(&self, topic: &TopicRef, partition: u32) -> FoundLog {
        let logs = self.0.logs.read().unwrap_or_else(PoisonError::into_inner);
        let of_topic = logs
            .iter()
            .filter(|(_, log)| log.topic.topic == topic.topic);
        // Ids of logs ascend: those of the last incarnation of a topic are the highest.
        let Some((_, last)) = of_topic.clone().max_by_key(|(log_id, _)| **log_id) else {
            return FoundLog::NoTopic;
        };
        let current = &last.topic;
        if topic.identity.is_some() && topic.identity != current.identity {
            let mut of_topic = of_topic;
            let was_known = of_topic.any(|(_, log)| log.topic.identity == topic.identity);
            return if was_known {
                FoundLog::Outdated
            } else {
                FoundLog::Foreign
            };
        }
        let mut of_topic = of_topic;
        let found = of_topic.find(|(_, log)| log.topic == *current && log.partition == partition);
        found.map_or(FoundLog::NoPartition, |(log_id, _)| {
            FoundLog::Known(*log_id)
        })
    }

    /// A token of positions in logs.
    ///
    /// # Errors
    /// INTERNAL: the lists differ in length, or an offset is negative. The database failed while a log that is new to this
    /// process was looked up.
    pub async fn token(
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
        // Beside the current incarnation of a topic, whose logs have the highest ids, nothing is added to former ones, and a
        // token of them is refused.
        let mut current: HashMap<String, (i32, Option<IncarnationHash>)> = HashMap::new();
        if logs.len() > 1 {
            for (log_id, (topic, _)) in log_ids.iter().zip(&logs) {
                let log = (*log_id, topic.identity);
                match current.get_mut(&topic.topic) {
                    Some(last) => *last = log.max(*last),
                    None => drop(current.insert(topic.topic.clone(), log)),
                }
            }
        }
        let mut token = ConsistencyToken::default();
        for ((topic, partition), next_offset) in logs.into_iter().zip(next_offsets) {
            let last = current.get(&topic.topic);
            if last.is_some_and(|(_, identity)| *identity != topic.identity) {
                continue;
            }
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
        .fetch_all(self.primary())
        .await
        .map_err(|e| Error::from(e).in_statement("query/logs"))?;
        let mut logs = self.0.logs.write().unwrap_or_else(PoisonError::into_inner);
        for (log_id, cluster_id, topic, topic_identity, partition) in rows {
            let fingerprint = Fingerprint::of(&cluster_id, &topic, &topic_identity, partition);
            let identity = Some(IncarnationHash::of(&cluster_id, &topic_identity));
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
