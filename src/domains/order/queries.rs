//! What the order domain can be asked: the one place where both coats get their answers from.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::model::{
    Address, AddressChange, AddressChangeKind, AddressChanges, Addresses, Customer, Customers,
    State,
};
use crate::error::Error;
use crate::event::hash16;
use crate::fold::addresses::{AddressBook, AddressFact};
use crate::fold::history::Remembered;
use crate::projector::FeedPosition;
use crate::query::cursor::{self, Cursor};
use crate::query::page::{Page, PageRequest};
use crate::query::{self, Answer, Reads};

/// The most ids that one question may name.
pub const MAX_BATCH: usize = 1_000;

/// The customer of a user.
///
/// # Errors
/// INVALID_ARGUMENT where the id can't be one; NOT_FOUND, with the position that this was true at; the database.
pub async fn get_customer(reads: &Reads, user_id: &str) -> Result<Answer<Customer>, Error> {
    Ok(get_state(reads, user_id).await?.map(State::into_customer))
}

async fn get_state(reads: &Reads, user_id: &str) -> Result<Answer<State>, Error> {
    query::check_id("userId", user_id)?;
    let row = sqlx::query_file!(
        "src/domains/order/sql/get_customer.sql",
        hash16(user_id.as_bytes())
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("order/get_customer"))?;
    let token = reads.token(&row.logs, &row.offsets).await?;
    match row.state {
        Some(Json(body)) => Ok(Answer { body, token }),
        None => Err(Error::not_found("user").with_token(&token)),
    }
}

/// The customers of up to [`MAX_BATCH`] users, each once, in the order in which they were asked for.
///
/// # Errors
/// INVALID_ARGUMENT where there are no, or too many, ids, or one can't be an id; the database.
pub async fn batch_get_customers(
    reads: &Reads,
    user_ids: &[String],
) -> Result<Answer<Customers>, Error> {
    let ids = query::distinct_ids("userIds", user_ids, MAX_BATCH)?;
    let keys: Vec<_> = ids.iter().map(|id| hash16(id.as_bytes())).collect();
    let row = sqlx::query_file!("src/domains/order/sql/batch_get_customers.sql", &keys)
        .fetch_one(reads.pool())
        .await
        .map_err(|error| Error::from(error).in_statement("order/batch_get_customers"))?;
    let token = reads.token(&row.logs, &row.offsets).await?;
    let mut found: HashMap<String, Customer> = row
        .states
        .into_iter()
        .map(|Json(state)| (state.customer.user_id.clone(), state.into_customer()))
        .collect();
    let mut body = Customers::default();
    for id in ids {
        match found.remove(id) {
            Some(customer) => body.customers.push(customer),
            None => body.missing.push(id.to_owned()),
        }
    }
    Ok(Answer { body, token })
}

/// A customer's addresses and defaults, now or as they stood at an instant: the same fold over what had happened by
/// then, in the order of the log.
///
/// # Errors
/// As [`get_customer`].
pub async fn list_addresses(
    reads: &Reads,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Addresses>, Error> {
    let Some(as_of) = as_of else {
        let answer = get_state(reads, user_id).await?;
        return Ok(answer.map(|state| Addresses::of(&state.book, state.is_deleted())));
    };
    query::check_id("userId", user_id)?;
    let row = sqlx::query_file!(
        "src/domains/order/sql/list_addresses_as_of.sql",
        hash16(user_id.as_bytes()),
        as_of
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("order/list_addresses_as_of"))?;
    let token = reads.token(&row.logs, &row.offsets).await?;
    let Some(Json(state)) = row.state else {
        return Err(Error::not_found("user").with_token(&token));
    };
    let mut book = AddressBook::default();
    for Remembered { source, fact } in row.facts.into_iter().flat_map(|Json(facts)| facts) {
        book.apply(&fact, source);
    }
    let body = Addresses::of(&book, state.is_deleted());
    Ok(Answer { body, token })
}

/// Which changes of addresses are asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChangesFilter {
    /// Of this user only.
    pub user_id: Option<String>,
    /// Significant ones only, or the others only.
    pub significant: Option<bool>,
    /// Those that happened then or later.
    pub since: Option<DateTime<Utc>>,
    /// Those behind this cursor.
    pub after: Option<String>,
}

/// An entry of the feed, as it is stored.
#[derive(Debug, Deserialize)]
struct Row {
    log_id: i32,
    #[serde(flatten)]
    place: FeedPosition,
    user_id: String,
    address_id: String,
    kind: AddressChangeKind,
    affects_shipping: bool,
    affects_billing: bool,
    significant: bool,
    before: Option<Address>,
    after: Option<Address>,
    occurred_at: DateTime<Utc>,
    event_id: String,
}

/// A page of the feed.
///
/// # Errors
/// INVALID_ARGUMENT where a filter, the cursor or the page can't be one. RESYNC where the view was rebuilt, and what the
/// cursor has passed lies elsewhere now. The database.
pub async fn list_address_changes(
    reads: &Reads,
    filter: &ChangesFilter,
    page: &PageRequest,
) -> Result<Answer<AddressChanges>, Error> {
    if let Some(user_id) = &filter.user_id {
        query::check_id("userId", user_id)?;
    }
    let page: Page<Cursor> = Page::of(page, &("order/address-changes", filter))?;
    // Whoever pages has begun behind the cursor of the filter.
    let (field, begin) = match (&page.after, &filter.after) {
        (Some(cursor), _) => ("pageToken", cursor.clone()),
        (None, Some(after)) => {
            let problem = "is not a cursor that this feed has given";
            let cursor = Cursor::parse(after).ok_or_else(|| Error::invalid("after", problem))?;
            ("after", cursor)
        }
        (None, None) => ("after", Cursor::default()),
    };
    let resume = reads.resume(field, &begin).await?;
    // One more than asked for tells whether there is a next page.
    let limit = page.size as i64 + 1;
    let row = sqlx::query_file!(
        "src/domains/order/sql/list_address_changes.sql",
        &resume.log_ids,
        &resume.next_offsets,
        &resume.sequences,
        limit,
        filter.user_id.as_ref().map(|id| hash16(id.as_bytes())),
        filter.significant,
        filter.since,
        resume.view_version,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("order/list_address_changes"))?;
    let token = reads.token(&row.logs, &row.offsets).await?;
    if row.resync {
        return Err(cursor::resync().with_token(&token));
    }

    let mut rows = row.changes.map_or_else(Vec::new, |Json(rows)| rows);
    let has_more = rows.len() > page.size;
    rows.truncate(page.size);
    let log_ids: Vec<i32> = rows.iter().map(|row| row.log_id).collect();
    let logs = reads.fingerprints(&log_ids).await?;
    let mut cursor = begin;
    cursor.view_version = row.version.unsigned_abs();
    let mut changes = Vec::with_capacity(rows.len());
    for (row, log) in rows.into_iter().zip(logs) {
        cursor.set(log, row.place);
        changes.push(AddressChange {
            cursor: cursor.to_string(),
            user_id: row.user_id,
            address_id: row.address_id,
            kind: row.kind,
            affects_default_shipping: row.affects_shipping,
            affects_default_billing: row.affects_billing,
            significant: row.significant,
            before: row.before,
            after: row.after,
            occurred_at: row.occurred_at,
            event_id: row.event_id,
        });
    }
    let next_page_token = has_more.then(|| page.next(&cursor)).transpose()?;
    Ok(Answer {
        body: AddressChanges {
            changes,
            next_page_token,
        },
        token,
    })
}
