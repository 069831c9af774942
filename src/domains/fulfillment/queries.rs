//! What the fulfillment domain can be asked: the one place where both coats get their answers from.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use super::model::{Fact, FoundAddresses, Recipient, ShippingAddress, ShippingAddresses, State};
use super::validation::ValidationStatus;
use crate::error::Error;
use crate::event::hash16;
use crate::fold::addresses::{DefaultKind, Source};
use crate::fold::history::Remembered;
use crate::query::page::{Page, PageRequest};
use crate::query::{self, Answer, Reads};

/// A user's addresses, now or as they stood at an instant; none of a deleted user.
///
/// # Errors
/// INVALID_ARGUMENT where the id can't be one; NOT_FOUND, with the position that this was true at; the database.
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

/// A user's default address, now or as it stood at an instant.
///
/// # Errors
/// As [`list_addresses`]; NOT_FOUND, too, where the user has no such default, or its address is not known.
pub async fn get_default_address(
    reads: &Reads,
    user_id: &str,
    default: DefaultKind,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<ShippingAddress>, Error> {
    let Answer {
        body: recipient,
        token,
    } = get_recipient(reads, user_id, as_of).await?;
    let named = recipient.book.default_id(default);
    let address = named.and_then(|address_id| recipient.address(user_id, address_id));
    match address {
        Some(body) => Ok(Answer { body, token }),
        None => Err(Error::not_found("default address").with_token(&token)),
    }
}

/// What a user's addresses are made from: the same fold over what had happened by then, in the order of the log.
async fn get_recipient(
    reads: &Reads,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Recipient>, Error> {
    query::check_id("userId", user_id)?;
    let key = hash16(user_id.as_bytes());
    let row = sqlx::query_file!("src/domains/fulfillment/sql/get_user.sql", key, as_of)
        .fetch_one(reads.pool())
        .await
        .map_err(|error| Error::from(error).in_statement("fulfillment/get_user"))?;
    let token = reads.token(&row.logs, &row.offsets).await?;
    let body = match row.state {
        Some(Json(state)) if state.is_known => match as_of {
            None => state.recipient,
            Some(_) => fold(row.facts.into_iter().flat_map(|Json(facts)| facts)),
        },
        _ => return Err(Error::not_found("user").with_token(&token)),
    };
    Ok(Answer { body, token })
}

fn fold(facts: impl IntoIterator<Item = Remembered<Fact>>) -> Recipient {
    let mut recipient = Recipient::default();
    for Remembered { source, fact } in facts {
        recipient.apply(&fact, source);
    }
    recipient
}

/// A user who ever claimed an address id, and what had been told of them by then.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    user_id: String,
    facts: Vec<Remembered<Fact>>,
}

/// One address by its own id, now or as it stood at an instant; of two users who claim the id, the one of whom it was
/// told last (by when it happened, then by topic, partition and offset).
///
/// # Errors
/// INVALID_ARGUMENT where the id can't be one; NOT_FOUND, with the position that this was true at; the database.
pub async fn get_address(
    reads: &Reads,
    address_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<ShippingAddress>, Error> {
    query::check_id("addressId", address_id)?;
    let key = hash16(address_id.as_bytes());
    let (address, token) = match as_of {
        None => {
            let row = sqlx::query_file!("src/domains/fulfillment/sql/get_address.sql", key)
                .fetch_one(reads.pool())
                .await
                .map_err(|error| Error::from(error).in_statement("fulfillment/get_address"))?;
            let token = reads.token(&row.logs, &row.offsets).await?;
            (row.address.map(|Json(address)| address), token)
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
            let token = reads.token(&row.logs, &row.offsets).await?;
            let claims = row.claims.map_or_else(Vec::new, |Json(claims)| claims);
            (last_claim(reads, address_id, claims).await?, token)
        }
    };
    match address {
        Some(body) => Ok(Answer { body, token }),
        None => Err(Error::not_found("address").with_token(&token)),
    }
}

/// The address of the user of whom it was told last.
async fn last_claim(
    reads: &Reads,
    address_id: &str,
    claims: Vec<Claim>,
) -> Result<Option<ShippingAddress>, Error> {
    let found: Vec<(Source, ShippingAddress)> = claims
        .into_iter()
        .filter_map(|claim| {
            let recipient = fold(claim.facts);
            let source = recipient.book.get(address_id)?.updated;
            Some((source, recipient.address(&claim.user_id, address_id)?))
        })
        .collect();
    let log_ids: Vec<i32> = found.iter().map(|(source, _)| source.log).collect();
    let logs = reads.partitions(&log_ids).await?;
    let last = found
        .into_iter()
        .zip(logs)
        .max_by(|((a, _), of_a), ((b, _), of_b)| {
            (a.at, of_a, a.offset).cmp(&(b.at, of_b, b.offset))
        });
    Ok(last.map(|((_, address), _)| address))
}

/// Which addresses are asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SearchFilter {
    /// Of this country, in either case.
    pub country_code: Option<String>,
    /// With one of these; none: with any.
    pub validation: Vec<ValidationStatus>,
}

/// A row of the page.
#[derive(Debug, Deserialize)]
struct Found {
    address_key: Uuid,
    user_key: Uuid,
    address: ShippingAddress,
}

/// Addresses by country and by what validation says, page by page.
///
/// # Errors
/// INVALID_ARGUMENT where the page can't be one; the database.
pub async fn search_addresses(
    reads: &Reads,
    filter: SearchFilter,
    page: &PageRequest,
) -> Result<Answer<FoundAddresses>, Error> {
    let country_code = filter.country_code.map(|code| code.to_uppercase());
    let statuses: Vec<&str> = ValidationStatus::ALL
        .into_iter()
        .filter(|status| filter.validation.is_empty() || filter.validation.contains(status))
        .map(ValidationStatus::as_str)
        .collect();
    let filters = ("fulfillment/addresses", &country_code, &statuses);
    let page: Page<(Uuid, Uuid)> = Page::of(page, &filters)?;
    let (address_key, user_key) = page.after.unwrap_or_default();
    // One more than asked for tells whether there is a next page.
    let limit = page.size as i64 + 1;
    let row = sqlx::query_file!(
        "src/domains/fulfillment/sql/search_addresses.sql",
        &statuses as _,
        country_code.map(|code| hash16(code.as_bytes())),
        limit,
        address_key,
        user_key,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("fulfillment/search_addresses"))?;
    let token = reads.token(&row.logs, &row.offsets).await?;
    let mut found = row.found.map_or_else(Vec::new, |Json(found)| found);
    let has_more = found.len() > page.size;
    found.truncate(page.size);
    let last = found.last().map(|row| (row.address_key, row.user_key));
    let next_page_token = match last {
        Some(place) if has_more => Some(page.next(&place)?),
        _ => None,
    };
    Ok(Answer {
        body: FoundAddresses {
            addresses: found.into_iter().map(|row| row.address).collect(),
            next_page_token,
        },
        token,
    })
}
