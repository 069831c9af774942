//! What every read shares: the answer and the position that it reflects, the handle to the database, the
//! bounds of what may be asked, deadlines, the demanded consistency, and lag.
//!
//! Promises: rows and position come from one SQL statement; ids are opaque, and never part of an error.

pub mod consistency;
pub mod cursor;
pub mod deadline;
pub mod grpc;
pub mod lag;
pub mod page;
pub mod rest;
pub mod token;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use sqlx::PgPool;

pub use self::token::ConsistencyToken;
use self::{
    cursor::{Cursor, Fingerprint},
    token::{Identity, TopicRef},
};
use crate::error::{Error, FieldViolation};

/// The largest request body of REST, and the largest message of gRPC: 1,000 ids fit.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// The longest id, in characters.
pub const MAX_ID_LENGTH: usize = 255;

/// What a query answers: a body, and the position that it reflects.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What was asked for.
    pub body: T,
    /// Sent beside the body, never in it.
    pub token: ConsistencyToken,
}

impl<T> Answer<T> {
    /// The same position with another body.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            body: f(self.body),
            token: self.token,
        }
    }
}

/// The handle that queries read through. Cheap to clone.
#[derive(Clone)]
pub struct Reads(Arc<Inner>);

struct Inner {
    pool: PgPool,
    /// Rows of `sightline.logs`, which never change once written.
    logs: RwLock<HashMap<i32, Log>>,
}

/// One partition of one incarnation of a topic.
#[derive(Clone)]
struct Log {
    topic: TopicRef,
    partition: u32,
    fingerprint: Fingerprint,
}

/// Where reading resumes in each log: the n-th place belongs to the n-th log.
#[derive(Debug, Default)]
pub struct Resume {
    /// The version of the view in which the places were read.
    pub view_version: i32,
    /// Rows of `sightline.logs`.
    pub log_ids: Vec<i32>,
    /// Of the places.
    pub next_offsets: Vec<i64>,
    /// Of the places.
    pub sequences: Vec<i64>,
}

impl Reads {
    /// Over the pool for reads, whose connections bound the time of a statement.
    pub fn new(pool: PgPool) -> Self {
        Self(Arc::new(Inner {
            pool,
            logs: RwLock::default(),
        }))
    }

    /// Where to read.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// The token of positions that a query read in the same statement as its rows: the n-th next offset
    /// belongs to the n-th log.
    ///
    /// # Errors
    /// The database fails while a log that is new to this process is looked up.
    pub async fn token(
        &self,
        log_ids: &[i32],
        next_offsets: &[i64],
    ) -> Result<ConsistencyToken, Error> {
        if log_ids.len() != next_offsets.len() {
            return Err(Error::internal("as many offsets as logs were expected"));
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

    /// Where a cursor's reader resumes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming `field`: it holds a partition that nobody here has heard of. The database fails
    /// while logs that are new to this process are looked up.
    pub async fn resume(&self, field: &str, cursor: &Cursor) -> Result<Resume, Error> {
        if let Some(resume) = self.known_places(cursor) {
            return Ok(resume);
        }
        self.load(None).await?;
        self.known_places(cursor).ok_or_else(|| {
            let problem = "is a cursor of another gateway, or of a topic that is no more: read from the beginning";
            Error::invalid(field, problem)
        })
    }

    /// `None` where a partition is new to this process.
    fn known_places(&self, cursor: &Cursor) -> Option<Resume> {
        let logs = self.0.logs.read().unwrap_or_else(PoisonError::into_inner);
        let by_fingerprint: HashMap<Fingerprint, i32> = logs
            .iter()
            .map(|(log_id, log)| (log.fingerprint, *log_id))
            .collect();
        // A version beyond counting is none that there ever was.
        let mut resume = Resume {
            view_version: i32::try_from(cursor.view_version).unwrap_or(i32::MAX),
            ..Resume::default()
        };
        for (fingerprint, place) in cursor.iter() {
            resume.log_ids.push(*by_fingerprint.get(&fingerprint)?);
            resume.next_offsets.push(place.next_offset);
            resume.sequences.push(place.sequence);
        }
        Some(resume)
    }

    /// The fingerprints of logs, for cursors.
    ///
    /// # Errors
    /// The database fails while a log that is new to this process is looked up.
    pub async fn fingerprints(&self, log_ids: &[i32]) -> Result<Vec<Fingerprint>, Error> {
        self.look_up(log_ids, |log| log.fingerprint).await
    }

    /// The topics and numbers of logs' partitions.
    ///
    /// # Errors
    /// The database fails while a log that is new to this process is looked up.
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
        found.ok_or_else(|| Error::internal("a row names a log that is not there"))
    }

    async fn load_missing(&self, log_ids: &[i32]) -> Result<(), Error> {
        let missing: Vec<i32> = {
            let logs = self.0.logs.read().unwrap_or_else(PoisonError::into_inner);
            log_ids
                .iter()
                .filter(|log_id| !logs.contains_key(log_id))
                .copied()
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        self.load(Some(missing)).await
    }

    /// Reads logs, all or these.
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
            let identity = Some(Identity::of(&cluster_id, &topic_identity));
            let log = Log {
                topic: TopicRef { topic, identity },
                // The table's CHECK.
                partition: partition.unsigned_abs(),
                fingerprint,
            };
            logs.insert(log_id, log);
        }
        Ok(())
    }
}

/// Refuses an id that no event can have: empty, longer than 255 characters, or with a NUL.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field`.
pub fn check_id(field: &str, id: &str) -> Result<(), Error> {
    match id_problem(id) {
        Some(problem) => Err(Error::invalid(field, problem)),
        None => Ok(()),
    }
}

/// The ids of a list, each once, in the order in which they first came.
///
/// # Errors
/// INVALID_ARGUMENT: there is none or there are more than `max` of them, or one is no id; names `field`, or
/// `field[i]`.
pub fn distinct_ids<'a>(field: &str, ids: &'a [String], max: usize) -> Result<Vec<&'a str>, Error> {
    if ids.is_empty() {
        return Err(Error::invalid(field, "must name at least one id"));
    }
    if ids.len() > max {
        return Err(Error::invalid(
            field,
            format!("must name at most {max} ids"),
        ));
    }
    let violations: Vec<_> = ids
        .iter()
        .enumerate()
        .filter_map(|(i, id)| {
            Some(FieldViolation {
                field: format!("{field}[{i}]"),
                problem: id_problem(id)?.into(),
            })
        })
        .collect();
    if !violations.is_empty() {
        return Err(Error::violations(violations));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    Ok(ids
        .iter()
        .map(String::as_str)
        .filter(|id| seen.insert(*id))
        .collect())
}

fn id_problem(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        Some("must not be empty")
    } else if id.chars().nth(MAX_ID_LENGTH).is_some() {
        Some("must be at most 255 characters long")
    } else if id.contains('\0') {
        // Postgres cannot store it, so nobody has that id.
        Some("must not hold a NUL")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_by_characters() {
        for id in ["a", "../x%2F 😀", &"é".repeat(255)] {
            assert!(check_id("userId", id).is_ok());
        }
        for id in ["", "a\0b", &"é".repeat(256)] {
            let error = check_id("userId", id).unwrap_err();
            assert_eq!(error.fields()[0].field, "userId");
        }
    }

    #[test]
    fn ids_are_asked_once_in_their_order() {
        let ids = ["b", "a", "b"].map(String::from);
        assert_eq!(distinct_ids("userIds", &ids, 3).unwrap(), ["b", "a"]);
        assert!(distinct_ids("userIds", &ids, 2).is_err());
        assert!(distinct_ids("userIds", &[], 2).is_err());
        let bad = ["a", "", "\0"].map(String::from);
        let error = distinct_ids("userIds", &bad, 3).unwrap_err();
        let fields: Vec<_> = error.fields().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["userIds[1]", "userIds[2]"]);
    }
}
