//! How far the views are behind the log, why partitions do not progress, and the counts of their
//! records.
//!
//! Promises: all figures of an answer are from one snapshot. If the database does not answer, the
//! figures are the last that this process read, and marked as such.

mod figures;
mod model;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use chrono::Utc;

use self::figures::{Figures, PartitionRow};
pub use self::model::{Consistency, DomainConsistency, PartitionConsistency};
use super::answer::Answer;
use super::reads::Reads;
use crate::error::{Code, Error, Hint};

/// The handle that reads lag. Cheap to clone; clones share the last known figures.
#[derive(Clone)]
pub struct Lag(Arc<LagInner>);

struct LagInner {
    reads: Reads,
    served: Vec<String>,
    /// The versions of the code that this process has for the served domains.
    code_versions: Vec<i32>,
    known: Vec<String>,
    last: RwLock<Option<Figures>>,
    /// Since when each partition has its position, by domain and log.
    positions: Mutex<Positions>,
}

type Positions = HashMap<(String, i32), (i64, Instant)>;

impl Lag {
    /// `served` are the domains that this process serves, with the versions of its code, `known` all
    /// that exist.
    pub fn new(
        reads: Reads,
        served: impl IntoIterator<Item = (&'static str, i32)>,
        known: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let mut served: Vec<_> = served.into_iter().collect();
        served.sort_unstable();
        let (served, code_versions) = served
            .into_iter()
            .map(|(domain, code_version)| (domain.to_owned(), code_version))
            .unzip();
        Self(Arc::new(LagInner {
            reads,
            served,
            code_versions,
            known: known.into_iter().map(String::from).collect(),
            last: RwLock::default(),
            positions: Mutex::default(),
        }))
    }

    /// The consistency of all served domains.
    ///
    /// # Errors
    /// DATABASE_UNAVAILABLE: the database does not answer, and this process has not read any
    /// figures before.
    pub async fn all(&self) -> Result<Answer<Consistency>, Error> {
        let figures = self.figures().await?;
        let served: Vec<_> = self.0.served.iter().map(String::as_str).collect();
        Ok(figures
            .answer(&served)
            .map(|domains| Consistency { domains }))
    }

    /// The consistency of one domain.
    ///
    /// # Errors
    /// NOT_FOUND: the domain does not exist. DOMAIN_NOT_SERVED: this process does not serve it.
    /// DATABASE_UNAVAILABLE: as for [`all`](Self::all).
    pub async fn one(&self, domain: &str) -> Result<Answer<DomainConsistency>, Error> {
        if !self.0.known.iter().any(|known| known == domain) {
            return Err(unknown_domain());
        }
        if !self.0.served.iter().any(|served| served == domain) {
            return Err(not_served());
        }
        let figures = self.figures().await?;
        let Answer { mut body, position } = figures.answer(&[domain]);
        let body = body
            .pop()
            .ok_or_else(|| Error::internal("a served domain has no figures"))?;
        Ok(Answer { body, position })
    }

    /// The current figures, or the last known ones if the database does not answer.
    async fn figures(&self) -> Result<Figures, Error> {
        let rows: Result<Vec<PartitionRow>, sqlx::Error> =
            sqlx::query_as(include_str!("../sql/lag.sql"))
                .bind(&self.0.served)
                .bind(&self.0.code_versions)
                .fetch_all(self.0.reads.pool())
                .await;
        match rows {
            Ok(mut rows) => {
                self.note_positions(&mut rows);
                let figures = Figures {
                    read_at: Utc::now(),
                    is_current: true,
                    rows,
                };
                self.publish_statuses(&figures);
                self.announce(&figures);
                let mut last = self.0.last.write().unwrap_or_else(PoisonError::into_inner);
                *last = Some(Figures {
                    is_current: false,
                    ..figures.clone()
                });
                Ok(figures)
            }
            Err(error) => {
                let error = Error::from(error).in_statement("query/lag");
                if error.code() == Code::Internal {
                    return Err(error);
                }
                let last = self.0.last.read().unwrap_or_else(PoisonError::into_inner);
                let last = last.clone().ok_or(error)?;
                self.publish_statuses(&last);
                Ok(last)
            }
        }
    }

    /// Notes for how long each position has been stalled before the log end offset.
    fn note_positions(&self, rows: &mut [PartitionRow]) {
        let mut positions = self
            .0
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut now = Positions::with_capacity(rows.len());
        for row in rows {
            let key = (row.domain.clone(), row.log_id);
            let has_records = row.end_offset.is_some_and(|end| row.next_offset < end);
            // Until an operator resumes it, it is not meant to move.
            let may_move = has_records && row.pause_reason.is_none() && row.failure.is_none();
            let since = match positions.get(&key) {
                Some((position, since)) if *position == row.next_offset && may_move => *since,
                _ => Instant::now(),
            };
            row.stalled_for = since.elapsed();
            now.insert(key, (row.next_offset, since));
        }
        *positions = now;
    }

    /// Wakes the reads that wait for a position that was reached, or that does not come.
    fn announce(&self, figures: &Figures) {
        let announcements = &self.0.reads.work().announcements;
        for row in figures.rows.iter().filter(|row| !row.building) {
            announcements.read(&row.domain, row.log_id, row.next_offset);
            if row.pause_reason.is_some() || row.failure.is_some() || row.waits {
                announcements.release(&row.domain, row.log_id);
            }
        }
    }

    /// Lets the answers of reads say what these figures say.
    fn publish_statuses(&self, figures: &Figures) {
        let served: Vec<_> = self.0.served.iter().map(String::as_str).collect();
        self.0.reads.set_statuses(figures.statuses(&served));
    }
}

/// The error for a domain that does not exist.
pub fn unknown_domain() -> Error {
    Error::new(Code::NotFound, "There is no such domain.").with_hint(Hint::ListDomains)
}

/// The error for a domain that this process does not serve.
pub fn not_served() -> Error {
    Error::new(
        Code::DomainNotServed,
        "This process does not serve the domain, but another one may.",
    )
    .with_hint(Hint::ListDomains)
}
