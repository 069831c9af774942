//! What became of an event, by its id, in each domain.
//!
//! A view remembers the ids of the events that it has applied, and its dead letters name theirs. A domain that skips an event
//! has no trace of it; another one that has, says where its record lies, and whether the domain has passed that place.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::select_all;
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ids::check_id;
use super::reads::Reads;
use super::{deadline, place};
use crate::error::{Code, Error};
use crate::event::hash16;
use crate::projector::ids;

/// How long a caller may ask to wait, in seconds.
pub const MAX_WAIT_SECONDS: i32 = 30;
/// What is left of the caller's deadline when a wait ends, for the answer.
const MARGIN: Duration = Duration::from_millis(200);
/// An event is looked up so often at most.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// What became of an event in a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// The view has applied it.
    Applied,
    /// The view has not come to its record yet.
    Pending,
    /// It is a dead letter, or was one and was discarded.
    DeadLettered,
    /// The view has passed its record without applying it: it does not concern the domain.
    Skipped,
}

/// What became of an event in a domain, and where its record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPlace {
    /// The domain.
    pub domain: &'static str,
    /// What became of it.
    pub status: EventStatus,
    /// The log of its record.
    pub log_id: i32,
    /// The offset of its record.
    pub offset: i64,
}

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

#[derive(Debug, Default, sqlx::FromRow)]
struct Row {
    domain: String,
    log_id: i32,
    block: Option<Vec<u8>>,
    state: Option<String>,
    record_offset: Option<i64>,
    next_offset: Option<i64>,
}

/// Looks an event up in all domains of the process, in one snapshot. Returns one element for each domain, in their order; `None`
/// where none has seen it, or all have forgotten it since.
///
/// # Errors
/// The database failed.
pub async fn find(
    reads: &Reads,
    served: &[&'static str],
    event_id: &str,
) -> Result<Option<Vec<EventPlace>>, Error> {
    const PART: &str = include_str!("sql/find_event.sql");
    let parts: Vec<String> = served
        .iter()
        .map(|domain| PART.replace("{domain}", domain))
        .collect();
    let hash = hash16(event_id.as_bytes());
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(parts.join("UNION ALL\n")))
        .bind(hash)
        .bind(event_id)
        .fetch_all(reads.primary())
        .await
        .map_err(|error| Error::from(error).in_statement("query/find_event"))?;
    Ok(places(served, &rows, hash))
}

/// What became of an event in some of the domains that this process serves. Waits until none of them has it still before it, and
/// answers after `wait` with what there is.
///
/// # Errors
/// INVALID_ARGUMENT: no event can have the id. NOT_FOUND: no domain of this process has seen the event. The database failed.
pub async fn status(
    reads: &Reads,
    served: &[&'static str],
    asked: &[&'static str],
    event_id: &str,
    wait: Duration,
) -> Result<EventStatuses, Error> {
    check_id("eventId", event_id)?;
    let until = Instant::now() + wait.min(deadline::left().saturating_sub(MARGIN));
    let announcements = &reads.work().announcements;
    // A domain that is not asked for may be the one that says where the record lies.
    let mut commits: Vec<_> = served
        .iter()
        .map(|domain| announcements.subscribe(domain))
        .collect();
    loop {
        for commit in &mut commits {
            commit.mark_unchanged();
        }
        let places = find(reads, served, event_id).await?;
        let places = places.map(|places| {
            let is_asked = |place: &EventPlace| asked.contains(&place.domain);
            places.into_iter().filter(is_asked).collect::<Vec<_>>()
        });
        let is_pending = |place: &EventPlace| place.status == EventStatus::Pending;
        let is_open = places
            .as_ref()
            .is_none_or(|places| places.iter().any(is_pending));
        if !is_open || Instant::now() >= until {
            return described(reads, places).await;
        }
        let changes = commits
            .iter_mut()
            .map(|commits| Box::pin(commits.changed()));
        let committed = async {
            let _ = select_all(changes).await;
            sleep(LOOK_PAUSE).await;
        };
        let stop = reads.work().stop.cancelled();
        place::leave_for(async {
            tokio::select! {
                () = committed => {}
                () = sleep_until(until) => {}
                () = stop => {}
            }
        })
        .await;
        if reads.work().stop.is_cancelled() {
            return described(reads, places).await;
        }
    }
}

/// The error for an event that no domain knows.
pub fn unknown() -> Error {
    let detail = "No domain of this gateway has seen this event, or remembers it.";
    Error::new(Code::NotFound, detail)
}

async fn described(reads: &Reads, places: Option<Vec<EventPlace>>) -> Result<EventStatuses, Error> {
    let places = places.ok_or_else(unknown)?;
    let log_ids: Vec<i32> = places.iter().map(|place| place.log_id).collect();
    let logs = reads.partitions(&log_ids).await?;
    let domains = places.into_iter().zip(logs);
    let domains = domains.map(|(place, (topic, partition))| DomainEventStatus {
        domain: place.domain.to_owned(),
        status: place.status,
        topic,
        partition,
        offset: place.offset,
    });
    Ok(EventStatuses {
        domains: domains.collect(),
    })
}

/// What rows say of an event, whose id has this hash.
fn places(served: &[&'static str], rows: &[Row], hash: Uuid) -> Option<Vec<EventPlace>> {
    let mut own: BTreeMap<&str, EventPlace> = BTreeMap::new();
    for domain in served {
        let of_domain = rows.iter().filter(|row| row.domain == *domain);
        let found = of_domain.filter_map(|row| trace(domain, row, hash));
        // What was applied counts, whatever became of other records of the event.
        let found = found.min_by_key(|place| {
            (
                place.status != EventStatus::Applied,
                place.log_id,
                place.offset,
            )
        });
        if let Some(found) = found {
            own.insert(domain, found);
        }
    }
    let first = own
        .values()
        .min_by_key(|place| (place.log_id, place.offset))?
        .clone();
    let place = |domain: &&'static str| match own.get(domain) {
        Some(place) => place.clone(),
        None => {
            let mut positions = rows
                .iter()
                .filter(|row| row.domain == **domain && row.log_id == first.log_id);
            let position = positions.find_map(|row| row.next_offset);
            let has_passed = position.is_some_and(|position| position > first.offset);
            EventPlace {
                domain,
                status: if has_passed {
                    EventStatus::Skipped
                } else {
                    EventStatus::Pending
                },
                ..first
            }
        }
    };
    Some(served.iter().map(place).collect())
}

/// What one row says of an event in a domain.
fn trace(domain: &'static str, row: &Row, hash: Uuid) -> Option<EventPlace> {
    let (status, offset) = match (&row.block, &row.state) {
        (Some(block), _) => (EventStatus::Applied, ids::find(block, hash)?.offset),
        (None, Some(state)) if state == "applied" => (EventStatus::Applied, row.record_offset?),
        (None, Some(_)) => (EventStatus::DeadLettered, row.record_offset?),
        (None, None) => return None,
    };
    Some(EventPlace {
        domain,
        status,
        log_id: row.log_id,
        offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(domain: &str, offset: i64, state: &str) -> Row {
        Row {
            domain: domain.into(),
            log_id: 7,
            state: Some(state.into()),
            record_offset: Some(offset),
            ..Row::default()
        }
    }

    fn position(domain: &str, next_offset: i64) -> Row {
        Row {
            domain: domain.into(),
            log_id: 7,
            next_offset: Some(next_offset),
            ..Row::default()
        }
    }

    #[test]
    fn one_domain_says_where_the_record_lies_and_the_others_whether_they_passed_it() {
        let served = ["audit", "order", "search"];
        let rows = [
            letter("audit", 41, "parked"),
            position("audit", 50),
            position("order", 42),
            position("search", 41),
        ];
        let places = places(&served, &rows, Uuid::nil()).unwrap();
        let found: Vec<_> = places
            .iter()
            .map(|place| (place.domain, place.status, place.offset))
            .collect();
        let expected = [
            ("audit", EventStatus::DeadLettered, 41),
            ("order", EventStatus::Skipped, 41),
            ("search", EventStatus::Pending, 41),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_was_applied_counts() {
        let rows = [
            letter("order", 41, "discarded"),
            letter("order", 43, "applied"),
        ];
        let places = places(&["order"], &rows, Uuid::nil()).unwrap();
        assert_eq!(
            (places[0].status, places[0].offset),
            (EventStatus::Applied, 43)
        );
    }

    #[test]
    fn an_event_that_nobody_has_seen_is_unknown() {
        let rows = [position("order", 42)];
        assert_eq!(places(&["order"], &rows, Uuid::nil()), None);
    }
}
