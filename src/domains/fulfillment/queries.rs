//! The fulfillment domain's queries, for both surfaces: each checks its arguments and runs one
//! statement, which returns the rows together with the position that they reflect.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{
    FoundAddresses, ShippingAddress, ShippingAddressChange, ShippingAddressChangeKind,
    ShippingAddresses,
};
use super::rules::country_key;
use super::state::{Fact, Recipient, RecipientState};
use super::validation::ValidationStatus;
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::fold::addresses::{DefaultKind, Source};
use crate::fold::history::{self, HistoryEntry};
use crate::projector::FeedPosition;
use crate::query::lookups::{Found, Lookup, Row, Rows};
use crate::query::page::{Page, PageRequest};
use crate::query::reads::Resume;
use crate::query::watch::{self, Feed, FeedPage, FeedRow, Limits, WatchStream};
use crate::query::{self, Answer, Document, Position, Reads, Subject, users};

/// A user's addresses, now or as of an instant. A deleted user has none.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND, with the position at which the user was
/// unknown; VIEW_NOT_READY instead, while the view is not built; the database's errors.
pub async fn list_addresses(
    reads: &Reads,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<ShippingAddresses>, Error> {
    let answer = get_recipient(reads, user_id, as_of).await?;
    Ok(answer.map(|recipient| ShippingAddresses {
        addresses: recipient.addresses(user_id),
    }))
}

/// A user's default address, now or as of an instant.
///
/// # Errors
/// As [`list_addresses`]; also NOT_FOUND if the user has no such default, or its address is
/// unknown.
pub async fn get_default_address(
    reads: &Reads,
    user_id: &str,
    default: DefaultKind,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<ShippingAddress>, Error> {
    let Answer {
        body: recipient,
        position,
    } = get_recipient(reads, user_id, as_of).await?;
    let address = recipient
        .book
        .default_id(default)
        .and_then(|address_id| recipient.address(user_id, address_id));
    match address {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("default address")),
    }
}

/// What a user's addresses are made from, now or as of an instant. The latter is folded again from
/// the facts that had happened by then, in the order of the log.
async fn get_recipient(
    reads: &Reads,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Recipient>, Error> {
    query::check_id("userId", user_id)?;
    let Some(as_of) = as_of else {
        let Answer { body, position } = reads.find(&USERS, user_id).await?;
        let state = known(body, &position)?;
        return Ok(Answer {
            body: state.recipient,
            position,
        });
    };
    let Answer { body, position } = users::as_of(reads, "fulfillment", user_id, as_of).await?;
    known(body.document, &position)?;
    Ok(Answer {
        body: fold(body.facts),
        position,
    })
}

/// What the view holds of a user, in a snapshot: the addresses.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let Answer { body, position } = reads.find_in(snapshot, &USERS, user_id).await?;
    let body = parsed(body)?.map(|state| ShippingAddresses {
        addresses: state.recipient.addresses(user_id),
    });
    Answer { body, position }.into_json()
}

/// A user's state, who must be known.
fn known(state: Option<String>, position: &Position) -> Result<RecipientState, Error> {
    parsed(state)?.ok_or_else(|| position.not_found("user"))
}

/// Parses a user's state. A user of whom there were only deletions is not known.
fn parsed(state: Option<String>) -> Result<Option<RecipientState>, Error> {
    let state = state.map(|state| db::of_document(&state, "users"));
    let state: Option<RecipientState> = state.transpose()?;
    Ok(state.filter(|state| state.is_known))
}

/// Users by their ids.
static USERS: Lookup = users::lookup("fulfillment", "fulfillment/find_users");

/// Addresses by their ids.
static ADDRESSES: Lookup = Lookup {
    domain: "fulfillment",
    statement: "fulfillment/find_addresses",
    run: |connection, _, keys, ids| Box::pin(find_addresses(connection, keys, ids)),
    // Another user may have the same address id.
    subject: Subject::UserAndOthers,
};

async fn find_addresses(
    connection: &mut PgConnection,
    keys: &[Uuid],
    ids: &[String],
) -> sqlx::Result<Vec<Found>> {
    let statement =
        sqlx::query_file_as!(Row, "src/domains/fulfillment/sql/find_addresses.sql", keys);
    let rows = statement.fetch_all(connection).await?;
    let rows: Rows = rows.into_iter().collect();
    Ok(ids.iter().map(|id| rows.of(id)).collect())
}

fn fold(facts: impl IntoIterator<Item = HistoryEntry<Fact>>) -> Recipient {
    let mut recipient = Recipient::default();
    for HistoryEntry { source, fact } in facts {
        recipient.apply(&fact, source);
    }
    recipient
}

/// One address by its own id, now or as of an instant. If events of several users have named the
/// id, it is the address of the user with the last such event: by time, then by topic, partition
/// and offset.
///
/// # Errors
/// INVALID_ARGUMENT if no address can have the id; NOT_FOUND, with the position at which the
/// address was unknown; VIEW_NOT_READY instead, while the view is not built; the database's errors.
pub async fn get_address(
    reads: &Reads,
    address_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Document<ShippingAddress>>, Error> {
    query::check_id("addressId", address_id)?;
    let (address, position) = match as_of {
        None => {
            let Answer { body, position } = reads.find(&ADDRESSES, address_id).await?;
            let address = body.map(|address| Document::stored(&address, "shipping_addresses"));
            (address.transpose()?, position)
        }
        Some(as_of) => {
            let row = sqlx::query_file!(
                "src/domains/fulfillment/sql/get_address_as_of.sql",
                hash16(address_id.as_bytes()),
                as_of
            )
            .fetch_one(reads.pool())
            .await
            .map_err(|error| Error::from(error).in_statement("fulfillment/get_address_as_of"))?;
            let facts = history::entries(row.times, row.log_ids, row.record_offsets, &row.facts)?;
            let facts = row.user_ids.into_iter().zip(facts);
            let address = last_mentioned(reads, address_id, facts).await?;
            let is_owner =
                |user_id: &String| address.as_ref().is_some_and(|a| a.user_id == *user_id);
            let mut lacking = row.lacking.iter().zip(row.dead_letters);
            let dead_letter = lacking.find(|(user_id, _)| is_owner(user_id));
            let subject = Subject::UserAndOthers(dead_letter.map(|(_, id)| id));
            let position =
                reads.position("fulfillment", &row.logs, &row.offsets, row.ready, subject);
            let address = address.as_ref().map(Document::of).transpose()?;
            (address, position.await?)
        }
    };
    match address {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("address")),
    }
}

/// The address of the user with the last event that named the id, from the facts of each user whose events have named it.
async fn last_mentioned(
    reads: &Reads,
    address_id: &str,
    facts: impl Iterator<Item = (String, HistoryEntry<Fact>)>,
) -> Result<Option<ShippingAddress>, Error> {
    let mut recipients: HashMap<String, Recipient> = HashMap::new();
    for (user_id, HistoryEntry { source, fact }) in facts {
        recipients.entry(user_id).or_default().apply(&fact, source);
    }
    let found: Vec<(Source, ShippingAddress)> = recipients
        .into_iter()
        .filter_map(|(user_id, recipient)| {
            let source = recipient.book.get(address_id)?.updated;
            Some((source, recipient.address(&user_id, address_id)?))
        })
        .collect();
    let log_ids: Vec<i32> = found.iter().map(|(source, _)| source.log).collect();
    let partitions = reads.partitions(&log_ids).await?;
    let last =
        found
            .into_iter()
            .zip(partitions)
            .max_by(|((a, _), partition_a), ((b, _), partition_b)| {
                (a.at, partition_a, a.offset).cmp(&(b.at, partition_b, b.offset))
            });
    Ok(last.map(|((_, address), _)| address))
}

/// Which addresses to find.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SearchFilter {
    /// Only addresses in this country; upper or lower case.
    pub country_code: Option<String>,
    /// Only addresses with one of these statuses; empty for any.
    pub validation: Vec<ValidationStatus>,
}

/// A page of the addresses with a country and a validation status.
///
/// # Errors
/// INVALID_ARGUMENT if the country or the page is invalid; VIEW_NOT_READY if nothing is found while
/// the view is not built; the database's errors.
pub async fn search_addresses(
    reads: &Reads,
    filter: SearchFilter,
    page: &PageRequest,
) -> Result<Answer<FoundAddresses>, Error> {
    let country_code = filter.country_code.as_deref().map(country_key);
    let is_code =
        |code: &String| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    if country_code.as_ref().is_some_and(|code| !is_code(code)) {
        let problem = "must be the two letters of ISO 3166-1 alpha-2, such as US";
        return Err(Error::invalid("countryCode", problem));
    }
    let statuses: Vec<&str> = ValidationStatus::ALL
        .into_iter()
        .filter(|status| filter.validation.is_empty() || filter.validation.contains(status))
        .map(ValidationStatus::as_str)
        .collect();
    let filters = ("fulfillment/addresses", &country_code, &statuses);
    let page: Page<(Uuid, Uuid)> = Page::of(page, &filters)?;
    let (address_key, user_key) = page.after.unwrap_or_default();
    let row = sqlx::query_file!(
        "src/domains/fulfillment/sql/search_addresses.sql",
        &statuses as _,
        country_code.map(|code| hash16(code.as_bytes())),
        page.limit(),
        address_key,
        user_key,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("fulfillment/search_addresses"))?;
    let position = reads
        .position(
            "fulfillment",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::Many,
        )
        .await?;
    if row.addresses.is_empty() && page.after.is_none() {
        position.check_ready()?;
    }
    let keys = row.address_keys.into_iter().zip(row.user_keys);
    let addresses = row.addresses.iter().zip(keys).map(|(address, keys)| {
        let address = Document::stored(address, "shipping_addresses")?;
        Ok((address, keys))
    });
    let addresses: Vec<_> = addresses.collect::<Result<_, sqlx::Error>>()?;
    let (addresses, next_page_token) = page.fill(addresses)?;
    Ok(Answer {
        body: FoundAddresses {
            addresses,
            next_page_token,
        },
        position,
    })
}

/// All addresses in the order of their last changes, to be watched. Of several changes of an address the last one is left, so
/// that a reader who begins with the first gets each address as it is.
#[derive(Clone, Default)]
pub struct AddressesFeed;

impl watch::Change for ShippingAddressChange {}

impl Feed for AddressesFeed {
    const DOMAIN: &'static str = "fulfillment";
    type Change = ShippingAddressChange;

    fn passes(&self, _: &ShippingAddressChange) -> bool {
        true
    }

    fn is_in_snapshot(change: &ShippingAddressChange) -> bool {
        change.kind == ShippingAddressChangeKind::Current
    }

    async fn read(
        &self,
        reads: &Reads,
        resume: &Resume,
        limit: i64,
    ) -> Result<FeedPage<ShippingAddressChange>, Error> {
        let row = sqlx::query_file!(
            "src/domains/fulfillment/sql/watch_addresses.sql",
            &resume.log_ids,
            &resume.next_offsets,
            &resume.sequences,
            limit,
            resume.view_version,
            watch::MAX_BYTES,
        )
        .fetch_one(reads.pool())
        .await
        .map_err(|error| Error::from(error).in_statement("fulfillment/watch_addresses"))?;
        let reflects = reads
            .position(
                "fulfillment",
                &row.logs,
                &row.offsets,
                row.ready,
                Subject::Many,
            )
            .await?;
        let positions = row.next_offsets.into_iter().zip(row.sequences);
        let ids = row.user_ids.into_iter().zip(row.address_ids);
        let addresses = row.addresses.iter().zip(ids);
        let changes = addresses.zip(row.log_ids).zip(positions);
        let rows = changes.map(
            |(((address, (user_id, address_id)), log_id), (next_offset, sequence))| {
                let parse = |address: &String| db::of_document(address, "shipping_addresses");
                Ok(FeedRow {
                    log_id,
                    position: FeedPosition {
                        next_offset,
                        sequence,
                    },
                    bytes: address.as_ref().map_or(0, String::len),
                    change: ShippingAddressChange {
                        cursor: String::new(),
                        user_id,
                        address_id,
                        kind: match address {
                            Some(_) => ShippingAddressChangeKind::Current,
                            None => ShippingAddressChangeKind::Removed,
                        },
                        address: address.as_ref().map(parse).transpose()?,
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

/// Every address as it is, and then each change of one as it is committed; after a cursor, changes only.
///
/// # Errors
/// As [`watch::watch`].
pub async fn watch_addresses(
    reads: &Reads,
    after: (&str, Option<&str>),
    limits: Limits,
) -> Result<Answer<WatchStream<ShippingAddressChange>>, Error> {
    watch::watch(reads, AddressesFeed, after, limits).await
}
