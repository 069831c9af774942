//! What keeps a view from reaching what is demanded, or an answer from being complete there: dead letters, pauses, failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use uuid::Uuid;

use crate::error::{Code, Error, Hint};
use crate::query::reads::Reads;
use crate::query::seen::{Seen, Subject};

/// Reads that begin to wait within so long share a reading of the stops.
const GATHER: Duration = Duration::from_millis(5);

/// A position that a view has not reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unmet {
    /// The domain whose view it is.
    pub domain: String,
    /// The log.
    pub log_id: i32,
    /// The position that is demanded.
    pub next_offset: i64,
}

/// The dead letter that the record at an offset of a log is in the live view of a domain, unless it was applied since.
pub(super) async fn dead_letter_at(
    reads: &Reads,
    domain: &str,
    log_id: i32,
    offset: i64,
) -> Result<Option<Uuid>, Error> {
    sqlx::query_scalar(include_str!("../sql/dead_letter_at.sql"))
        .bind(domain)
        .bind(log_id)
        .bind(offset)
        .fetch_optional(reads.primary())
        .await
        .map_err(|error| Error::from(error).in_statement("query/dead_letter_at"))
}

/// How many keys are parked in the live view of a domain.
pub(super) async fn parked_keys(reads: &Reads, domain: &str) -> Result<i64, Error> {
    sqlx::query_scalar(include_str!("../sql/parked_keys.sql"))
        .bind(domain)
        .fetch_one(reads.primary())
        .await
        .map_err(|error| Error::from(error).in_statement("query/parked_keys"))
}

/// Refuses an answer about a user whose key is parked.
///
/// # Errors
/// KEY_PARKED. The database failed.
pub async fn check_parked(reads: &Reads, seen: &[Seen]) -> Result<(), Error> {
    for seen in seen {
        let Subject::User(Some(dead_letter)) = seen.subject else {
            continue;
        };
        let first: Option<Uuid> = sqlx::query_scalar(include_str!("../sql/parking_letter.sql"))
            .bind(dead_letter)
            .fetch_optional(reads.primary())
            .await
            .map_err(|error| Error::from(error).in_statement("query/parking_letter"))?;
        if let Some(id) = first {
            return Err(key_parked(&seen.domain, id).with_metadata(seen.position.metadata()));
        }
    }
    Ok(())
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

/// Why a log does not progress in the live view of a domain.
#[derive(Debug, sqlx::FromRow)]
pub struct Stop {
    log_id: i32,
    pause_reason: Option<String>,
    failure: Option<String>,
    waits: bool,
    added_age: Option<f64>,
}

/// A reading of a domain's stops that is about to begin: who comes until then shares it.
type Reading = Shared<BoxFuture<'static, Result<Arc<Vec<Stop>>, Error>>>;

/// The readings of domains' stops that are about to begin.
#[derive(Default)]
pub struct Stops(Mutex<HashMap<String, Reading>>);

impl Stops {
    /// Why logs of a domain do not progress, read at some time after this call began.
    async fn of(self: &Arc<Self>, reads: &Reads, domain: &str) -> Result<Arc<Vec<Stop>>, Error> {
        let reading = {
            let mut begins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = begins.entry(domain.to_owned());
            let read = || Arc::clone(self).read(reads.clone(), domain.to_owned());
            begin.or_insert_with(|| read().boxed().shared()).clone()
        };
        reading.await
    }

    async fn read(self: Arc<Self>, reads: Reads, domain: String) -> Result<Arc<Vec<Stop>>, Error> {
        tokio::time::sleep(GATHER).await;
        {
            let mut begins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            begins.remove(&domain);
        }
        let stops: Result<Vec<Stop>, sqlx::Error> =
            sqlx::query_as(include_str!("../sql/stops.sql"))
                .bind(&domain)
                .fetch_all(reads.primary())
                .await;
        stops
            .map(Arc::new)
            .map_err(|error| Error::from(error).in_statement("query/stops"))
    }
}

/// Refuses to wait for positions that do not come until an operator acts, or for longer than a caller waits.
///
/// # Errors
/// PROJECTION_STOPPED, PARTITION_WAITS. The database failed.
pub async fn check_progress(
    reads: &Reads,
    stops: &Arc<Stops>,
    unmet: &[Unmet],
) -> Result<(), Error> {
    for Unmet { domain, log_id, .. } in unmet {
        let stops = stops.of(reads, domain).await?;
        let Some(stop) = stops.iter().find(|stop| stop.log_id == *log_id) else {
            continue;
        };
        let why = match (&stop.pause_reason, &stop.failure) {
            (_, Some(failure)) => format!("has failed ({failure})"),
            (Some(reason), None) => format!("is paused ({reason})"),
            (None, None) if stop.waits => {
                let settle = reads.settle().as_secs_f64();
                return Err(partition_waits(stop.added_age.map(|age| settle - age)));
            }
            (None, None) => continue,
        };
        return Err(stopped(domain, &why));
    }
    Ok(())
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
