//! What keeps a view from reaching what is demanded, or an answer from being complete there: dead letters, pauses, failures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgPool;
use uuid::Uuid;

use crate::db;
use crate::error::{Code, Error, Hint};
use crate::query::gather::Gather;
use crate::query::seen::Seen;

/// A position that a view has not reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unmet {
    /// The domain whose view it is.
    pub domain: String,
    /// The log.
    pub log_id: i32,
    /// The position that is demanded.
    pub next_offset: i64,
    /// Whether it is that of a record, which may be a dead letter.
    pub is_record: bool,
}

/// Why a log does not progress in the live view of a domain.
#[derive(Debug, sqlx::FromRow)]
struct Stop {
    domain: String,
    log_id: i32,
    pause_reason: Option<String>,
    failure: Option<String>,
    waits: bool,
    added_age: Option<f64>,
}

/// Looks up what keeps views from reaching what is demanded, and answers from being complete. Reads that wait share look-ups.
pub struct Obstacles {
    pool: PgPool,
    /// How long a partition that was added waits at least.
    settle: Duration,
    /// The dead letter that the record at an offset of a log is in the live view of a domain, unless it was applied since.
    dead_letters: Gather<(String, i32, i64), Option<Uuid>>,
    /// How many keys are parked in the live view of a domain.
    parked_keys: Gather<String, i64>,
    /// Why logs of a domain do not progress.
    stops: Gather<String, Arc<Vec<Stop>>>,
}

impl Obstacles {
    /// Looks up through the primary's pool.
    pub fn new(pool: PgPool, settle: Duration) -> Self {
        Self {
            settle,
            dead_letters: Gather::new({
                let pool = pool.clone();
                move |records| db::for_callers(read_dead_letters(pool.clone(), records)).boxed()
            }),
            parked_keys: Gather::new({
                let pool = pool.clone();
                move |domains| db::for_callers(read_parked_keys(pool.clone(), domains)).boxed()
            }),
            stops: Gather::new({
                let pool = pool.clone();
                move |domains| db::for_callers(read_stops(pool.clone(), domains)).boxed()
            }),
            pool,
        }
    }

    /// Refuses the position behind a record that is a dead letter, unless it was applied since.
    ///
    /// # Errors
    /// DEAD_LETTERED. The database failed.
    pub async fn check_record(
        &self,
        domain: &str,
        log_id: i32,
        next_offset: i64,
    ) -> Result<(), Error> {
        let record = (domain.to_owned(), log_id, next_offset.saturating_sub(1));
        match self.dead_letters.ask(record).await? {
            Some(id) => Err(dead_lettered(domain, id)),
            None => Ok(()),
        }
    }

    /// How many keys are parked in the live view of a domain.
    pub(super) async fn parked_keys(&self, domain: &str) -> Result<i64, Error> {
        self.parked_keys.ask(domain.to_owned()).await
    }

    /// Refuses an answer about a user whose key is parked.
    ///
    /// # Errors
    /// KEY_PARKED. The database failed.
    pub async fn check_parked(&self, seen: &[Seen]) -> Result<(), Error> {
        for seen in seen {
            let Some(dead_letter) = seen.subject.dead_letter() else {
                continue;
            };
            let first: Option<Uuid> =
                sqlx::query_scalar(include_str!("../sql/parking_dead_letter.sql"))
                    .bind(dead_letter)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(|error| {
                        Error::from(error).in_statement("query/parking_dead_letter")
                    })?;
            if let Some(id) = first {
                return Err(key_parked(&seen.domain, id).with_metadata(seen.position.metadata()));
            }
        }
        Ok(())
    }

    /// Refuses to wait for positions that do not come until an operator acts, or for longer than a caller waits.
    ///
    /// # Errors
    /// PROJECTION_STOPPED, PARTITION_WAITS. The database failed.
    pub async fn check_progress(&self, unmet: &[Unmet]) -> Result<(), Error> {
        for Unmet { domain, log_id, .. } in unmet {
            let stops = self.stops.ask(domain.clone()).await?;
            let Some(stop) = stops.iter().find(|stop| stop.log_id == *log_id) else {
                continue;
            };
            let why = match (&stop.pause_reason, &stop.failure) {
                (_, Some(failure)) => format!("has failed ({failure})"),
                (Some(reason), None) => format!("is paused ({reason})"),
                (None, None) if stop.waits => {
                    let settle = self.settle.as_secs_f64();
                    return Err(partition_waits(stop.added_age.map(|age| settle - age)));
                }
                (None, None) => continue,
            };
            return Err(stopped(domain, &why));
        }
        Ok(())
    }
}

async fn read_dead_letters(
    pool: PgPool,
    records: Vec<(String, i32, i64)>,
) -> Result<Vec<Option<Uuid>>, Error> {
    let (mut domains, mut log_ids, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for (domain, log_id, offset) in records {
        domains.push(domain);
        log_ids.push(log_id);
        offsets.push(offset);
    }
    sqlx::query_scalar(include_str!("../sql/dead_letters_at.sql"))
        .bind(domains)
        .bind(log_ids)
        .bind(offsets)
        .fetch_all(&pool)
        .await
        .map_err(|error| Error::from(error).in_statement("query/dead_letters_at"))
}

async fn read_parked_keys(pool: PgPool, domains: Vec<String>) -> Result<Vec<i64>, Error> {
    sqlx::query_scalar(include_str!("../sql/parked_keys.sql"))
        .bind(domains)
        .fetch_all(&pool)
        .await
        .map_err(|error| Error::from(error).in_statement("query/parked_keys"))
}

async fn read_stops(pool: PgPool, domains: Vec<String>) -> Result<Vec<Arc<Vec<Stop>>>, Error> {
    let rows: Result<Vec<Stop>, sqlx::Error> = sqlx::query_as(include_str!("../sql/stops.sql"))
        .bind(&domains)
        .fetch_all(&pool)
        .await;
    let mut stops: HashMap<String, Vec<Stop>> = HashMap::new();
    for stop in rows.map_err(|error| Error::from(error).in_statement("query/stops"))? {
        stops.entry(stop.domain.clone()).or_default().push(stop);
    }
    let stops = domains
        .iter()
        .map(|domain| stops.remove(domain).unwrap_or_default());
    Ok(stops.map(Arc::new).collect())
}

/// The error for an answer about a user whose key is parked.
pub fn key_parked(domain: &str, id: Uuid) -> Error {
    let detail = format!(
        "Events of the user wait in the view of {domain} behind the dead letter {id}, so no answer is complete. It has to be \
         retried or discarded; with eventual consistency the view is answered as it is."
    );
    Error::new(Code::KeyParked, detail).with_hint(Hint::ListDeadLetters)
}

/// The error for a record that is demanded and is a dead letter.
pub fn dead_lettered(domain: &str, id: Uuid) -> Error {
    let detail = format!(
        "The record is the dead letter {id} of {domain}: the view goes on without it until it is retried."
    );
    Error::new(Code::DeadLettered, detail).with_hint(Hint::ListDeadLetters)
}

/// The error for what a view does not reach until an operator acts; `why` says what it `is` or `has`.
pub fn stopped(domain: &str, why: &str) -> Error {
    let detail = format!(
        "The projection of {domain} {why}, so what is demanded does not come until an operator resumes it."
    );
    Error::new(Code::ProjectionStopped, detail).with_hint(Hint::ReadStates)
}

/// The error for a demand that needs Kafka, which does not answer.
pub fn kafka_unavailable() -> Error {
    let detail = "Kafka does not answer, so the end of the log is not known.";
    Error::new(Code::KafkaUnavailable, detail).with_retry_after(Duration::from_secs(1))
}

/// The error for what comes only after a partition that was added waits no longer.
pub fn partition_waits(seconds: Option<f64>) -> Error {
    let time = match seconds {
        Some(seconds) => format!("for {} more seconds", seconds.ceil().max(1.0)),
        None => "for the settle time".to_owned(),
    };
    let detail = format!(
        "The partition was added a while ago and waits, {time} at least, until the older ones are projected so far that no key \
         gets out of order."
    );
    let after = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Error::new(Code::PartitionWaits, detail)
        .with_hint(Hint::ReadStates)
        .with_retry_after(
            after
                .unwrap_or(Duration::from_secs(30))
                .max(Duration::from_secs(1)),
        )
}
