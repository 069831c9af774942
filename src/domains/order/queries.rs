//! The order domain's queries, for both surfaces: each checks its arguments and runs one statement,
//! which returns the rows together with the position that they reflect.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{
    AddressChange, AddressChanges, Addresses, Book, Customer, Customers, WatchedChange,
};
use super::state::CustomerState;
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::fold::history::HistoryEntry;
use crate::projector::FeedPosition;
use crate::query::cursor::{self, Cursor};
use crate::query::lookups::Lookup;
use crate::query::page::{Page, PageRequest, ResponseSize};
use crate::query::reads::Resume;
use crate::query::watch::{self, Feed, FeedPage, FeedRow, Limits, WatchStream};
use crate::query::{self, Answer, Document, Position, Reads, Subject, users};

/// The most ids in one request.
pub const MAX_BATCH: usize = 1_000;
/// The text that is read for a page of the feed, in bytes. An answer holds 3 MiB; this is more than that.
const LIST_BYTES: i64 = 8 * 1024 * 1024;

/// The customer with this id.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND, with the position at which the user was
/// unknown; VIEW_NOT_READY instead, while the view is not built; the database's errors.
pub async fn get_customer(
    reads: &Reads,
    user_id: &str,
) -> Result<Answer<Document<Customer>>, Error> {
    get_state(reads, user_id).await?.try_map(customer)
}

/// Customers by the ids of users.
static CUSTOMERS: Lookup = users::lookup("order", "order/find_users");

/// The state of the customer with this id, as it is stored.
async fn get_state(reads: &Reads, user_id: &str) -> Result<Answer<String>, Error> {
    query::check_id("userId", user_id)?;
    let Answer { body, position } = reads.find(&CUSTOMERS, user_id).await?;
    match body {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("user")),
    }
}

/// The customer in a stored state.
fn customer(state: String) -> Result<Document<Customer>, Error> {
    match Document::answer_in(&state, "users")? {
        Some(customer) => Ok(customer),
        // An older release wrote it.
        None => {
            let state: CustomerState = db::of_document(&state, "users")?;
            Document::of(&state.to_customer())
        }
    }
}

/// What the view holds of a user, in a snapshot: the customer.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let Answer { body, position } = reads.find_in(snapshot, &CUSTOMERS, user_id).await?;
    let body = body.map(customer).transpose()?;
    Answer { body, position }.into_json()
}

/// Up to [`MAX_BATCH`] customers, each once, in the order of the request.
///
/// # Errors
/// INVALID_ARGUMENT if there are no ids or too many, or no user can have one of them;
/// RESPONSE_TOO_LARGE; VIEW_NOT_READY if one is missing while the view is not built; the database's
/// errors.
pub async fn batch_get_customers(
    reads: &Reads,
    user_ids: &[String],
) -> Result<Answer<Customers>, Error> {
    let ids = query::distinct_ids("userIds", user_ids, MAX_BATCH)?;
    let keys: Vec<Uuid> = ids.iter().map(|id| hash16(id.as_bytes())).collect();
    let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
    let mut connection = reads.pool().acquire().await?;
    let found = users::find(&mut connection, CUSTOMERS.domain, &keys, &ids).await;
    drop(connection);
    let found = found.map_err(|error| Error::from(error).in_statement(CUSTOMERS.statement))?;
    let position = reads
        .position(
            "order",
            &found.logs,
            &found.offsets,
            found.is_ready,
            Subject::Many,
        )
        .await?;
    let mut body = Customers::default();
    let mut size = ResponseSize::default();
    for (id, state) in ids.into_iter().zip(found.documents) {
        let fits = match state {
            Some(state) => {
                let customer = customer(state)?;
                let fits = size.add(&customer)?;
                body.customers.push(customer);
                fits
            }
            None => {
                let fits = size.add(&id)?;
                body.missing.push(id.clone());
                fits
            }
        };
        if !fits {
            let fitting = user_ids.iter().take_while(|given| **given != id).count();
            return Err(
                Error::response_too_large("userIds", fitting).with_metadata(position.metadata())
            );
        }
    }
    if !body.missing.is_empty() {
        position.check_ready()?;
    }
    Ok(Answer { body, position })
}

/// A customer's addresses and defaults, now or as of an instant. The latter are folded again from
/// the facts that had happened by then, in the order of the log.
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
        return answer.try_map(|state| {
            let state: CustomerState = db::of_document(&state, "users")?;
            Ok(Addresses::of(&state.book, state.is_deleted()))
        });
    };
    query::check_id("userId", user_id)?;
    let Answer { body, position } = users::as_of(reads, "order", user_id, as_of).await?;
    let Some(state) = body.document else {
        return Err(position.not_found("user"));
    };
    let state: CustomerState = db::of_document(&state, "users")?;
    let mut book = Book::default();
    for HistoryEntry { source, fact } in body.facts {
        book.apply(&fact, source.at);
    }
    let body = Addresses::of(&book, state.is_deleted());
    Ok(Answer { body, position })
}

/// Which address changes to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChangesFilter {
    /// Only changes of this user.
    pub user_id: Option<String>,
    /// Only significant changes (true), or only the others (false).
    pub significant: Option<bool>,
    /// Only changes that happened at this instant or later.
    pub since: Option<DateTime<Utc>>,
    /// Only changes after this cursor.
    pub after: Option<String>,
}

/// A page of the feed.
///
/// # Errors
/// INVALID_ARGUMENT if a filter, the cursor or the page is invalid; RESYNC if the view was rebuilt,
/// and changes that the cursor has passed are at other positions now; VIEW_NOT_READY if there are no
/// changes while the view is not built; the database's errors.
pub async fn list_address_changes(
    reads: &Reads,
    filter: &ChangesFilter,
    page: &PageRequest,
) -> Result<Answer<AddressChanges>, Error> {
    if let Some(user_id) = &filter.user_id {
        query::check_id("userId", user_id)?;
    }
    let page: Page<Cursor> = Page::of(page, &("order/address-changes", filter))?;
    let (field, begin) = first_cursor(&page, filter)?;
    let resume = reads.resume(field, &begin).await?;
    let row = read_changes(reads, filter, &resume, page.limit(), LIST_BYTES, false).await?;
    let position = row.position(reads, filter).await?;
    if row.resync {
        return Err(cursor::resync().with_metadata(position.metadata()));
    }

    if row.changes.is_empty() && page.after.is_none() && filter.after.is_none() {
        position.check_ready()?;
    }
    let logs = reads.fingerprints(&row.log_ids).await?;
    let positions = row.next_offsets.into_iter().zip(row.sequences);
    let changes = row.changes.iter().zip(logs).zip(positions);
    let mut cursor = begin;
    cursor.view_version = row.version.unsigned_abs();
    let changes = changes.map(|((change, log), (next_offset, sequence))| {
        cursor.set(
            log,
            FeedPosition {
                next_offset,
                sequence,
            },
        );
        let mut change: AddressChange = db::of_document(change, "address_changes")?;
        change.cursor = cursor.to_string();
        Ok((change, cursor.clone()))
    });
    let changes: Vec<_> = changes.collect::<Result<_, sqlx::Error>>()?;
    let (changes, next_page_token) = page.fill(changes)?;
    Ok(Answer {
        body: AddressChanges {
            changes,
            next_page_token,
        },
        position,
    })
}

/// What the statement of the feed returns.
struct ChangesRow {
    log_ids: Vec<i32>,
    next_offsets: Vec<i64>,
    sequences: Vec<i64>,
    changes: Vec<String>,
    are_deletions: Vec<bool>,
    version: i32,
    ready: bool,
    dead_letter: Option<Uuid>,
    resync: bool,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl ChangesRow {
    async fn position(&self, reads: &Reads, filter: &ChangesFilter) -> Result<Position, Error> {
        let subject = Subject::of(filter.user_id.is_some(), self.dead_letter);
        reads
            .position("order", &self.logs, &self.offsets, self.ready, subject)
            .await
    }
}

/// Changes that pass a filter, after its cursor: up to `limit`, until they have so many bytes. Deletions of customers are among
/// them only if that is asked.
async fn read_changes(
    reads: &Reads,
    filter: &ChangesFilter,
    resume: &Resume,
    limit: i64,
    bytes: i64,
    with_deletions: bool,
) -> Result<ChangesRow, Error> {
    sqlx::query_file_as!(
        ChangesRow,
        "src/domains/order/sql/list_address_changes.sql",
        &resume.log_ids,
        &resume.next_offsets,
        &resume.sequences,
        limit,
        filter.user_id.as_ref().map(|id| hash16(id.as_bytes())),
        filter.significant,
        filter.since,
        resume.view_version,
        filter.user_id.as_deref(),
        bytes,
        with_deletions,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("order/list_address_changes"))
}

impl watch::Change for WatchedChange {
    fn event(&self) -> &'static str {
        match self {
            Self::Address(_) => "change",
            Self::CustomerDeleted(_) => "customer_deleted",
        }
    }
}

/// The feed of address changes and deletions of customers, to be watched. Of the filter, user and significance count; a
/// deletion is significant to all.
#[derive(Clone, Default)]
pub struct ChangesFeed(ChangesFilter);

impl Feed for ChangesFeed {
    const DOMAIN: &'static str = "order";
    type Change = WatchedChange;

    fn passes(&self, change: &WatchedChange) -> bool {
        let Self(filter) = self;
        let (user_id, is_significant) = match change {
            WatchedChange::Address(change) => (&change.user_id, Some(change.significant)),
            WatchedChange::CustomerDeleted(deleted) => (&deleted.user_id, None),
        };
        let is_of_user = filter.user_id.as_ref().is_none_or(|of| of == user_id);
        let is_so = match (filter.significant, is_significant) {
            (Some(asked), Some(is)) => asked == is,
            _ => true,
        };
        is_of_user && is_so
    }

    async fn read(
        &self,
        reads: &Reads,
        resume: &Resume,
        limit: i64,
    ) -> Result<FeedPage<WatchedChange>, Error> {
        let row = read_changes(reads, &self.0, resume, limit, watch::MAX_BYTES, true).await?;
        let reflects = row.position(reads, &self.0).await?;
        let positions = row.next_offsets.into_iter().zip(row.sequences);
        let changes = row.changes.iter().zip(row.are_deletions);
        let changes = changes.zip(row.log_ids).zip(positions);
        let rows = changes.map(
            |(((change, is_deletion), log_id), (next_offset, sequence))| {
                Ok(FeedRow {
                    log_id,
                    position: FeedPosition {
                        next_offset,
                        sequence,
                    },
                    bytes: change.len(),
                    change: if is_deletion {
                        WatchedChange::CustomerDeleted(db::of_document(change, "address_changes")?)
                    } else {
                        WatchedChange::Address(db::of_document(change, "address_changes")?)
                    },
                })
            },
        );
        Ok(FeedPage {
            view_version: row.version,
            must_resync: row.resync,
            rows: rows.collect::<Result<_, sqlx::Error>>()?,
            logs: row.logs,
            offsets: row.offsets,
            reflects,
        })
    }
}

/// The changes of the feed as they are committed, after a cursor or from the beginning.
///
/// # Errors
/// INVALID_ARGUMENT if the user's id is invalid; otherwise as [`watch::watch`].
pub async fn watch_address_changes(
    reads: &Reads,
    user_id: Option<String>,
    significant: Option<bool>,
    after: (&str, Option<&str>),
    limits: Limits,
) -> Result<Answer<WatchStream<WatchedChange>>, Error> {
    if let Some(user_id) = &user_id {
        query::check_id("userId", user_id)?;
    }
    let filter = ChangesFilter {
        user_id,
        significant,
        ..ChangesFilter::default()
    };
    watch::watch(reads, ChangesFeed(filter), after, limits).await
}

/// The cursor at which a page begins, and the parameter that it is from. The first page begins at
/// `after`; a page token is already beyond that.
fn first_cursor(
    page: &Page<Cursor>,
    filter: &ChangesFilter,
) -> Result<(&'static str, Cursor), Error> {
    if let Some(cursor) = &page.after {
        return Ok(("pageToken", cursor.clone()));
    }
    let Some(after) = &filter.after else {
        return Ok(("after", Cursor::default()));
    };
    match Cursor::parse(after) {
        Some(cursor) => Ok(("after", cursor)),
        None => Err(Error::invalid("after", "is not a cursor of this feed")),
    }
}
