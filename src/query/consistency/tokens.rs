//! Tokens of callers, compared and joined.

use super::demand::{MAX_TOKENS, Reference};
use super::targets::resolve;
use crate::error::Error;
use crate::query::reads::Reads;
use crate::query::token::{ConsistencyToken, TokenOrder};

/// Which of two tokens is the later one.
///
/// # Errors
/// INVALID_ARGUMENT, naming the field: one is malformed, foreign or outdated, or names an event that no domain knows. The
/// database failed.
pub async fn compare(reads: &Reads, a: &str, b: &str) -> Result<TokenOrder, Error> {
    let a = read(reads, "a", a).await?;
    let b = read(reads, "b", b).await?;
    Ok(a.compare(&b))
}

/// The least token that is not before any of these.
///
/// # Errors
/// As [`compare`]; INVALID_ARGUMENT also where there are none or too many, or they name more partitions than one token holds.
pub async fn join(reads: &Reads, tokens: &[String]) -> Result<ConsistencyToken, Error> {
    if tokens.is_empty() || tokens.len() > MAX_TOKENS {
        return Err(Error::invalid("tokens", "must be 1 to 100 tokens"));
    }
    let mut joined = ConsistencyToken::default();
    for (n, token) in tokens.iter().enumerate() {
        joined.join(&read(reads, &format!("tokens[{n}]"), token).await?);
    }
    if !joined.fits() {
        return Err(Error::invalid(
            "tokens",
            "name more partitions together than one token can hold",
        ));
    }
    Ok(joined)
}

/// A token whose partitions are those of the topics as they are now.
async fn read(reads: &Reads, field: &str, text: &str) -> Result<ConsistencyToken, Error> {
    let token = match Reference::parse(text, field)? {
        Reference::Token(token) => token,
        Reference::Event(id) => {
            let outcomes = reads.event_lookups().find(&id).await?;
            let outcome = outcomes.and_then(|outcomes| outcomes.into_iter().next());
            let outcome = outcome.ok_or_else(|| {
                Error::invalid(
                    field,
                    "names an event that no domain of this gateway has seen",
                )
            })?;
            let next_offset = outcome.offset.saturating_add(1);
            reads.token(&[outcome.log_id], &[next_offset]).await?
        }
    };
    let (mut log_ids, mut next_offsets) = (Vec::new(), Vec::new());
    for (topic, partition, next_offset) in token.iter() {
        log_ids.push(resolve(reads, field, topic, partition).await?);
        next_offsets.push(i64::try_from(next_offset).unwrap_or(i64::MAX));
    }
    reads.token(&log_ids, &next_offsets).await
}
