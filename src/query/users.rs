//! Reads of users' rows and history, for every domain that keeps the tables `users` and
//! `user_history`: one text of each statement, in which a domain's name is all that differs. sqlx's
//! macros need literal names, so a test on a migrated database checks these texts instead
//! (`tests/it/statements.rs`).

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::answer::Answer;
use super::lookups::{Found, Lookup, Row, Rows};
use super::reads::Reads;
use super::seen::Subject;
use crate::error::Error;
use crate::event::hash16;
use crate::fold::history::{self, HistoryEntry};

const FIND_USERS_OF_ONE_LOG: &str = include_str!("sql/find_users_of_one_log.sql");
const FIND_USERS: &str = include_str!("sql/find_users.sql");
const GET_USER_AS_OF: &str = include_str!("sql/get_user_as_of.sql");

/// A statement as it is for a domain.
fn of_domain(statement: &str, domain: &'static str) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement.replace("{domain}", domain))
}

/// The look-up of a domain's users by their ids. `statement` is its name in logs.
pub const fn lookup(domain: &'static str, statement: &'static str) -> Lookup {
    Lookup {
        domain,
        statement,
        run: |connection, domain, keys, ids| Box::pin(find_each(connection, domain, keys, ids)),
        subject: Subject::User,
    }
}

/// A row of a user that is made from one log.
#[derive(sqlx::FromRow)]
struct OfOneLog {
    user_id: String,
    document: String,
    log_id: i32,
    next_offset: i64,
    ready: bool,
    dead_letter: Option<Uuid>,
}

/// What is found of each user. Almost every row is made from one log, and the statement for these takes a third of the time of
/// the one for all, which is run for the others.
async fn find_each(
    connection: &mut PgConnection,
    domain: &'static str,
    keys: &[Uuid],
    ids: &[String],
) -> sqlx::Result<Vec<Found>> {
    let rows: Vec<OfOneLog> = sqlx::query_as(of_domain(FIND_USERS_OF_ONE_LOG, domain))
        .bind(keys)
        .fetch_all(&mut *connection)
        .await?;
    let rows: HashMap<&str, &OfOneLog> =
        rows.iter().map(|row| (row.user_id.as_str(), row)).collect();
    let found = ids.iter().map(|id| {
        let row = rows.get(id.as_str())?;
        Some(Found {
            document: Some(row.document.clone()),
            logs: vec![row.log_id],
            offsets: vec![row.next_offset],
            is_ready: row.ready,
            dead_letter: row.dead_letter,
        })
    });
    let mut found: Vec<Option<Found>> = found.collect();
    if found.iter().any(Option::is_none) {
        let each = keys.iter().zip(ids).zip(&found);
        let others = each.filter(|(_, found)| found.is_none());
        let (keys, others): (Vec<Uuid>, Vec<String>) =
            others.map(|((key, id), _)| (*key, id.clone())).unzip();
        let rows = find_rows(connection, domain, &keys, &others, true).await?;
        for (id, found) in ids.iter().zip(&mut found) {
            found.get_or_insert_with(|| rows.of(id));
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Users that were looked up together, in one snapshot.
#[derive(Debug)]
pub struct Users {
    /// The document of each, in the order of the ids; `None` if the user is unknown.
    pub documents: Vec<Option<String>>,
    /// The logs that the answer depends on: those that the rows are made from, where each user is known and made from one log;
    /// else all.
    pub logs: Vec<i32>,
    /// Their positions.
    pub offsets: Vec<i64>,
    /// Whether the view has once been complete.
    pub is_ready: bool,
}

/// A domain's users by their ids, which are given with their hashes, all in one snapshot; without their dead letters.
///
/// # Errors
/// The database failed.
pub async fn find(
    connection: &mut PgConnection,
    domain: &'static str,
    keys: &[Uuid],
    ids: &[String],
) -> sqlx::Result<Users> {
    let rows = find_rows(connection, domain, keys, ids, false).await?;
    let (logs, offsets) = rows.positions(ids).into_iter().unzip();
    let documents = ids.iter().map(|id| rows.document(id)).collect();
    Ok(Users {
        documents,
        logs,
        offsets,
        is_ready: rows.is_ready,
    })
}

async fn find_rows(
    connection: &mut PgConnection,
    domain: &'static str,
    keys: &[Uuid],
    ids: &[String],
    with_dead_letters: bool,
) -> sqlx::Result<Rows> {
    let rows: Vec<Row> = sqlx::query_as(of_domain(FIND_USERS, domain))
        .bind(keys)
        .bind(ids)
        .bind(with_dead_letters)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

/// A user's row, and the facts that had happened by an instant.
#[derive(Debug)]
pub struct UserAsOf<F> {
    /// The user's document as it is now; `None` if the user is unknown.
    pub document: Option<String>,
    /// In the order of the fold.
    pub facts: Vec<HistoryEntry<F>>,
}

#[derive(sqlx::FromRow)]
struct AsOfRow {
    state: Option<String>,
    times: Vec<DateTime<Utc>>,
    log_ids: Vec<i32>,
    record_offsets: Vec<i64>,
    facts: Vec<String>,
    logs: Vec<i32>,
    offsets: Vec<i64>,
    ready: bool,
    dead_letter: Option<Uuid>,
}

/// A user of a domain as of an instant.
///
/// # Errors
/// The database failed, or a stored fact can't be parsed.
pub async fn as_of<F: DeserializeOwned>(
    reads: &Reads,
    domain: &'static str,
    user_id: &str,
    instant: DateTime<Utc>,
) -> Result<Answer<UserAsOf<F>>, Error> {
    let row: AsOfRow = sqlx::query_as(of_domain(GET_USER_AS_OF, domain))
        .bind(hash16(user_id.as_bytes()))
        .bind(instant)
        .bind(user_id)
        .fetch_one(reads.pool())
        .await
        .map_err(|error| Error::from(error).in_statement("query/get_user_as_of"))?;
    let position = reads
        .position(
            domain,
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::User(row.dead_letter),
        )
        .await?;
    let body = UserAsOf {
        document: row.state,
        facts: history::entries(row.times, row.log_ids, row.record_offsets, &row.facts)?,
    };
    Ok(Answer { body, position })
}
