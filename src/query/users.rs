//! Reads of users' rows and history, for every domain that keeps the tables `users` and
//! `user_history`: one text of each statement, in which a domain's name is all that differs. sqlx's
//! macros need literal names, so a test on a migrated database checks these texts instead
//! (`tests/it/statements.rs`).

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::answer::Answer;
use super::lookups::{Found, Lookup, Rows};
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
    }
}

/// A row of a user that is made from one log.
#[derive(Clone, sqlx::FromRow)]
struct OfOneLog {
    user_key: Uuid,
    user_id: String,
    document: String,
    log_id: i32,
    next_offset: i64,
    ready: bool,
    dead_letter: Option<Uuid>,
}

/// The rows of users that are made from one log, in the order of the ids. Almost every row is, and the statement for these takes
/// a third of the time of the one for all.
async fn find_of_one_log(
    connection: &mut PgConnection,
    domain: &'static str,
    keys: &[Uuid],
    ids: &[String],
    with_dead_letters: bool,
) -> sqlx::Result<Vec<Option<OfOneLog>>> {
    let rows: Vec<OfOneLog> = sqlx::query_as(of_domain(FIND_USERS_OF_ONE_LOG, domain))
        .bind(keys)
        .bind(with_dead_letters)
        .fetch_all(connection)
        .await?;
    let rows: HashMap<Uuid, OfOneLog> = rows.into_iter().map(|row| (row.user_key, row)).collect();
    let row = |(key, id): (&Uuid, &String)| {
        let row = rows.get(key)?;
        (row.user_id == *id).then(|| row.clone())
    };
    Ok(keys.iter().zip(ids).map(row).collect())
}

/// What is found of each user.
async fn find_each(
    connection: &mut PgConnection,
    domain: &'static str,
    keys: &[Uuid],
    ids: &[String],
) -> sqlx::Result<Vec<Found>> {
    let rows = find_of_one_log(connection, domain, keys, ids, true).await?;
    let found = rows.into_iter().map(|row| {
        row.map(|row| Found {
            document: Some(row.document),
            logs: vec![row.log_id],
            offsets: vec![row.next_offset],
            is_ready: row.ready,
            dead_letter: row.dead_letter,
        })
    });
    let mut found: Vec<Option<Found>> = found.collect();
    let is_other = |index: &usize| found[*index].is_none();
    let others: Vec<usize> = (0..ids.len()).filter(is_other).collect();
    if !others.is_empty() {
        let keys: Vec<Uuid> = others.iter().map(|index| keys[*index]).collect();
        let ids: Vec<String> = others.iter().map(|index| ids[*index].clone()).collect();
        let rows = find_rows(connection, domain, &keys, &ids, true).await?;
        for (index, other) in others.into_iter().zip(rows.by_id(ids.len())) {
            found[index] = Some(other);
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
    let rows = find_of_one_log(connection, domain, keys, ids, false).await?;
    if let Some(rows) = rows.into_iter().collect::<Option<Vec<OfOneLog>>>() {
        let positions = rows.iter().map(|row| (row.log_id, row.next_offset));
        let positions: BTreeMap<i32, i64> = positions.collect();
        let (logs, offsets) = positions.into_iter().unzip();
        return Ok(Users {
            is_ready: rows.iter().all(|row| row.ready),
            documents: rows.into_iter().map(|row| Some(row.document)).collect(),
            logs,
            offsets,
        });
    }
    // Two statements see two snapshots, so this one finds all.
    let rows = find_rows(connection, domain, keys, ids, false).await?;
    let (logs, offsets, is_ready) = (rows.logs.clone(), rows.offsets.clone(), rows.ready);
    let found = rows.by_id(ids.len()).into_iter();
    Ok(Users {
        documents: found.map(|found| found.document).collect(),
        logs,
        offsets,
        is_ready,
    })
}

async fn find_rows(
    connection: &mut PgConnection,
    domain: &'static str,
    keys: &[Uuid],
    ids: &[String],
    with_dead_letters: bool,
) -> sqlx::Result<Rows> {
    sqlx::query_as(of_domain(FIND_USERS, domain))
        .bind(keys)
        .bind(ids)
        .bind(with_dead_letters)
        .fetch_one(connection)
        .await
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
struct Row {
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
    let row: Row = sqlx::query_as(of_domain(GET_USER_AS_OF, domain))
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
