//! What the order domain can be asked: the one place where both coats get their answers from.

use std::collections::HashMap;

use sqlx::types::Json;

use super::model::{Customer, Customers, State};
use crate::error::Error;
use crate::event::hash16;
use crate::query::{self, Answer, Reads};

/// The most ids that one question may name.
pub const MAX_BATCH: usize = 1_000;

/// The customer of a user.
///
/// # Errors
/// INVALID_ARGUMENT where the id can't be one; NOT_FOUND, with the position that this was true at; the database.
pub async fn get_customer(reads: &Reads, user_id: &str) -> Result<Answer<Customer>, Error> {
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
        Some(Json(state)) => Ok(Answer {
            body: state.into_customer(),
            token,
        }),
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
