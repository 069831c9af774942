//! The fulfillment domain's queries, for both surfaces: each checks its arguments and runs one
//! statement, which returns the rows together with the position that they reflect.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::model::{FoundAddresses, ShippingAddress, ShippingAddresses};
use super::rules::country_key;
use super::state::{Fact, Recipient, RecipientState};
use super::validation::ValidationStatus;
use crate::error::Error;
use crate::event::hash16;
use crate::fold::addresses::{DefaultKind, Source};
use crate::fold::history::HistoryEntry;
use crate::query::page::{Page, PageRequest};
use crate::query::{self, Answer, Reads};

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
    let key = hash16(user_id.as_bytes());
    let row = sqlx::query_file!(
        "src/domains/fulfillment/sql/get_user.sql",
        key,
        as_of,
        user_id
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("fulfillment/get_user"))?;
    let position = reads
        .position(
            "fulfillment",
            &row.logs,
            &row.offsets,
            row.ready,
            row.lacks_dead_letters,
        )
        .await?;
    let body = match row.state {
        Some(Json(state)) if state.is_known => match as_of {
            None => state.recipient,
            Some(_) => fold(row.facts.into_iter().flat_map(|Json(facts)| facts)),
        },
        _ => return Err(position.not_found("user")),
    };
    Ok(Answer { body, position })
}

fn fold(facts: impl IntoIterator<Item = HistoryEntry<Fact>>) -> Recipient {
    let mut recipient = Recipient::default();
    for HistoryEntry { source, fact } in facts {
        recipient.apply(&fact, source);
    }
    recipient
}

/// A user whose events have named an address id, with the user's facts until an instant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mention {
    user_id: String,
    facts: Vec<HistoryEntry<Fact>>,
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
) -> Result<Answer<ShippingAddress>, Error> {
    query::check_id("addressId", address_id)?;
    let key = hash16(address_id.as_bytes());
    let (address, position) = match as_of {
        None => {
            let row = sqlx::query_file!("src/domains/fulfillment/sql/get_address.sql", key)
                .fetch_one(reads.pool())
                .await
                .map_err(|error| Error::from(error).in_statement("fulfillment/get_address"))?;
            let position = reads
                .position(
                    "fulfillment",
                    &row.logs,
                    &row.offsets,
                    row.ready,
                    row.lacks_dead_letters,
                )
                .await?;
            (row.address.map(|Json(address)| address), position)
        }
        Some(as_of) => {
            let row = sqlx::query_file!(
                "src/domains/fulfillment/sql/get_address_as_of.sql",
                key,
                as_of
            )
            .fetch_one(reads.pool())
            .await
            .map_err(|error| Error::from(error).in_statement("fulfillment/get_address_as_of"))?;
            let position = reads
                .position("fulfillment", &row.logs, &row.offsets, row.ready, false)
                .await?;
            let mentions = row
                .mentions
                .map_or_else(Vec::new, |Json(mentions)| mentions);
            (last_mentioned(reads, address_id, mentions).await?, position)
        }
    };
    match address {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("address")),
    }
}

/// The address of the user with the last event that named the id.
async fn last_mentioned(
    reads: &Reads,
    address_id: &str,
    mentions: Vec<Mention>,
) -> Result<Option<ShippingAddress>, Error> {
    let found: Vec<(Source, ShippingAddress)> = mentions
        .into_iter()
        .filter_map(|mention| {
            let recipient = fold(mention.facts);
            let source = recipient.book.get(address_id)?.updated;
            Some((source, recipient.address(&mention.user_id, address_id)?))
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

/// A row of a page of addresses.
#[derive(Debug, Deserialize)]
struct FoundRow {
    address_key: Uuid,
    user_key: Uuid,
    address: ShippingAddress,
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
        .position("fulfillment", &row.logs, &row.offsets, row.ready, false)
        .await?;
    let rows = row.found.map_or_else(Vec::new, |Json(rows)| rows);
    if rows.is_empty() && page.after.is_none() {
        position.check_ready()?;
    }
    let rows = rows.into_iter();
    let (addresses, next_page_token) =
        page.fill(rows.map(|row| (row.address, (row.address_key, row.user_key))))?;
    Ok(Answer {
        body: FoundAddresses {
            addresses,
            next_page_token,
        },
        position,
    })
}
