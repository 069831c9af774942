//! What became of an event, by its id, in each domain: at once, or when none of them has it still before it.

use std::time::Duration;

use futures_util::future::select_all;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;

use super::event_lookups::{EventOutcome, EventStatus};
use super::ids::check_id;
use super::reads::Reads;
use super::{deadline, permit};
use crate::error::{Code, Error};

/// How long a caller may ask to wait, in seconds.
pub const MAX_WAIT_SECONDS: i32 = 30;
/// The least pause between two look-ups of one event. It grows with the time waited, because any commit wakes the call.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// What became of an event in each domain that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventStatuses {
    /// One element for each domain.
    pub domains: Vec<DomainEventStatus>,
}

/// What became of an event in a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainEventStatus {
    /// The domain's name.
    pub domain: String,
    /// What became of it.
    pub status: EventStatus,
    /// The Kafka topic of its record.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The offset of its record.
    pub offset: i64,
}

/// What became of an event in some of the domains that this process serves. Waits until none of them has it still before it,
/// and answers after `wait` with what there is.
///
/// # Errors
/// INVALID_ARGUMENT: no event can have the id. NOT_FOUND: no domain of this process has seen the event. The database failed.
pub async fn status(
    reads: &Reads,
    asked: &[&'static str],
    event_id: &str,
    wait: Duration,
) -> Result<EventStatuses, Error> {
    check_id("eventId", event_id)?;
    let until = Instant::now() + wait.min(deadline::left_to_wait());
    // A domain that is not asked for may be the one that says where the record lies.
    let mut commits = Commits::subscribe(reads);
    loop {
        commits.mark_seen();
        let outcomes = reads.event_lookups().find(event_id).await?;
        let outcomes = outcomes.map(|outcomes| {
            let is_asked = |outcome: &EventOutcome| asked.contains(&outcome.domain);
            outcomes.into_iter().filter(is_asked).collect::<Vec<_>>()
        });
        let is_pending = |outcome: &EventOutcome| outcome.status == EventStatus::Pending;
        let is_open = outcomes
            .as_ref()
            .is_none_or(|outcomes| outcomes.iter().any(is_pending));
        if !is_open || Instant::now() >= until {
            return described(reads, outcomes).await;
        }
        let stop = reads.work().stop.cancelled();
        permit::wait_without_permit(async {
            tokio::select! {
                () = commits.next() => {}
                () = sleep_until(until) => {}
                () = stop => {}
            }
        })
        .await;
        if reads.work().stop.is_cancelled() {
            return described(reads, outcomes).await;
        }
    }
}

/// Commits in all domains that this process serves: any of them may be the one of an event that was not found yet, and any
/// domain the first to see it.
pub struct Commits {
    domains: Vec<watch::Receiver<()>>,
    /// Since when the event is waited for.
    began: Instant,
}

impl Commits {
    /// Begins to wait.
    pub fn subscribe(reads: &Reads) -> Self {
        let announcements = &reads.work().announcements;
        let domains = reads.served().iter();
        Self {
            domains: domains
                .map(|domain| announcements.subscribe(domain))
                .collect(),
            began: Instant::now(),
        }
    }

    /// Notes that what was committed until now is about to be looked at.
    pub fn mark_seen(&mut self) {
        for domain in &mut self.domains {
            domain.mark_unchanged();
        }
    }

    /// Waits for a commit since then, and for the pause between two looks.
    pub async fn next(&mut self) {
        let changes = self.domains.iter_mut();
        let changes = changes.map(|commits| Box::pin(commits.changed()));
        let _ = select_all(changes).await;
        sleep(LOOK_PAUSE.max(self.began.elapsed() / 10)).await;
    }
}

/// The error for an event that no domain knows.
pub fn unknown() -> Error {
    let detail = "No domain of this gateway has seen this event, or remembers it.";
    Error::new(Code::NotFound, detail)
}

async fn described(
    reads: &Reads,
    outcomes: Option<Vec<EventOutcome>>,
) -> Result<EventStatuses, Error> {
    let outcomes = outcomes.ok_or_else(unknown)?;
    let log_ids: Vec<i32> = outcomes.iter().map(|outcome| outcome.log_id).collect();
    let logs = reads.partitions(&log_ids).await?;
    let domains = outcomes.into_iter().zip(logs);
    let domains = domains.map(|(outcome, (topic, partition))| DomainEventStatus {
        domain: outcome.domain.to_owned(),
        status: outcome.status,
        topic,
        partition,
        offset: outcome.offset,
    });
    Ok(EventStatuses {
        domains: domains.collect(),
    })
}
