//! Where an event is, by its id, and what became of it in each domain.
//!
//! A view remembers the ids of the events that it has applied, and its dead letters name theirs. A domain that skips an event
//! has no trace of it; another one that has, says where its record lies, and whether the domain has passed its offset.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::gather::Gather;
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::projector::ids;

/// The most events that one statement looks up.
const MOST: usize = 200;

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
    /// The view has passed its record without applying it: it does not concern the domain. Or the view will never come to it,
    /// because the topic was deleted and created again since.
    Skipped,
}

/// What became of an event in a domain, and where its record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventOutcome {
    /// The domain.
    pub domain: &'static str,
    /// What became of it.
    pub status: EventStatus,
    /// The log of its record.
    pub log_id: i32,
    /// The offset of its record.
    pub offset: i64,
}

/// Look-ups of events in the live views of some domains.
pub struct EventLookups(Gather<String, Option<Vec<EventOutcome>>>);

impl EventLookups {
    /// Looks events of `domains` up through `pool`.
    pub fn new(pool: PgPool, domains: Vec<&'static str>) -> Self {
        Self(Gather::new(move |ids: Vec<String>| {
            let (pool, domains) = (pool.clone(), domains.clone());
            async move {
                let mut found = Vec::with_capacity(ids.len());
                for ids in ids.chunks(MOST) {
                    found.extend(db::for_callers(read(&pool, &domains, ids)).await?);
                }
                Ok(found)
            }
            .boxed()
        }))
    }

    /// Looks an event up in all domains, in one snapshot that is taken after this call began. Returns one element for each
    /// domain, in their order; `None` where no domain has seen the event, or its id has expired in all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find(&self, event_id: &str) -> Result<Option<Vec<EventOutcome>>, Error> {
        self.0.ask(event_id.to_owned()).await
    }
}

#[derive(Debug, Default, sqlx::FromRow)]
struct Row {
    domain: String,
    number: Option<i64>,
    log_id: i32,
    block: Option<Vec<u8>>,
    state: Option<String>,
    record_offset: Option<i64>,
    next_offset: Option<i64>,
    is_former: bool,
}

/// Looks several events up, in one snapshot.
async fn read(
    pool: &PgPool,
    domains: &[&'static str],
    ids: &[String],
) -> Result<Vec<Option<Vec<EventOutcome>>>, Error> {
    const PART: &str = include_str!("sql/find_events.sql");
    let parts: Vec<String> = domains
        .iter()
        .map(|domain| PART.replace("{domain}", domain))
        .collect();
    let hashes: Vec<Uuid> = ids.iter().map(|id| hash16(id.as_bytes())).collect();
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(parts.join("UNION ALL\n")))
        .bind(&hashes)
        .bind(ids)
        .fetch_all(pool)
        .await
        .map_err(|error| Error::from(error).in_statement("query/find_events"))?;
    let mut positions = Vec::new();
    let mut traces: Vec<Vec<Row>> = ids.iter().map(|_| Vec::new()).collect();
    for row in rows {
        match row.number.map(|number| usize::try_from(number - 1)) {
            Some(index) => traces[index.unwrap_or_default()].push(row),
            None => positions.push(row),
        }
    }
    let found = traces.into_iter().zip(hashes);
    let found = found.map(|(traces, hash)| outcomes(domains, &traces, &positions, hash));
    Ok(found.collect())
}

/// What rows say of an event, whose id has this hash.
fn outcomes(
    domains: &[&'static str],
    traces: &[Row],
    positions: &[Row],
    hash: Uuid,
) -> Option<Vec<EventOutcome>> {
    let mut own: BTreeMap<&str, EventOutcome> = BTreeMap::new();
    for domain in domains {
        let of_domain = traces.iter().filter(|row| row.domain == *domain);
        let found = of_domain.filter_map(|row| trace(domain, row, hash));
        // What was applied counts, whatever became of other records of the event.
        let found = found.min_by_key(|outcome| {
            (
                outcome.status != EventStatus::Applied,
                outcome.log_id,
                outcome.offset,
            )
        });
        if let Some(found) = found {
            own.insert(domain, found);
        }
    }
    let first = own
        .values()
        .min_by_key(|outcome| (outcome.log_id, outcome.offset))?
        .clone();
    let outcome = |domain: &&'static str| match own.get(domain) {
        Some(outcome) => outcome.clone(),
        None => {
            let mut positions = positions.iter();
            let position =
                positions.find(|row| row.domain == **domain && row.log_id == first.log_id);
            let has_passed = position.is_some_and(|row| {
                row.is_former || row.next_offset.is_some_and(|next| next > first.offset)
            });
            EventOutcome {
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
    Some(domains.iter().map(outcome).collect())
}

/// What one row says of an event in a domain.
fn trace(domain: &'static str, row: &Row, hash: Uuid) -> Option<EventOutcome> {
    let (status, offset) = match (&row.block, &row.state) {
        (Some(block), _) => (EventStatus::Applied, ids::find(block, hash)?.offset),
        (None, Some(state)) if state == "applied" => (EventStatus::Applied, row.record_offset?),
        (None, Some(_)) => (EventStatus::DeadLettered, row.record_offset?),
        (None, None) => return None,
    };
    Some(EventOutcome {
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
        let served = ["analytics", "audit", "order", "search"];
        let rows = [
            letter("audit", 41, "parked"),
            position("audit", 50),
            position("order", 42),
            position("search", 41),
            Row {
                is_former: true,
                ..position("analytics", 41)
            },
        ];
        let outcomes = outcomes(&served, &rows[..1], &rows[1..], Uuid::nil()).unwrap();
        let found: Vec<_> = outcomes
            .iter()
            .map(|outcome| (outcome.domain, outcome.status, outcome.offset))
            .collect();
        let expected = [
            ("analytics", EventStatus::Skipped, 41),
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
        let outcomes = outcomes(&["order"], &rows, &[], Uuid::nil()).unwrap();
        assert_eq!(
            (outcomes[0].status, outcomes[0].offset),
            (EventStatus::Applied, 43)
        );
    }

    #[test]
    fn an_event_that_nobody_has_seen_is_unknown() {
        let rows = [position("order", 42)];
        assert_eq!(outcomes(&["order"], &[], &rows, Uuid::nil()), None);
    }
}
