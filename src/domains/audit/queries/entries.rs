//! Lists of entries: one statement each, which returns the rows together with the position that they reflect.

use std::sync::LazyLock;

use chrono::{DateTime, Datelike, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::db;
use crate::domains::audit::model::{Action, Category, Entries, Entry, FieldChange, Outcome};
use crate::domains::audit::state::{ChangedValue, Facts};
use crate::error::Error;
use crate::event::{EventType, hash16};
use crate::query::page::{Page, PageRequest};
use crate::query::{self, Answer, Reads, Subject};

/// The text of the statements that list entries.
const LIST_ENTRIES: &str = include_str!("../sql/list_entries.sql");

/// The most entries in what the view holds of a user.
const MOST_OF_USER: i32 = 1_000;

/// Which entries to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EntryFilter {
    /// Only those that concern this user.
    pub user_id: Option<String>,
    /// Only those of this actor.
    pub actor: Option<String>,
    /// Only those that concern this role.
    pub role_id: Option<String>,
    /// Only those from this IP address.
    pub ip_address: Option<String>,
    /// Only those of this category.
    pub category: Option<Category>,
    /// Only those of this action.
    pub action: Option<String>,
    /// Only those with this outcome.
    pub outcome: Option<Outcome>,
    /// Only those that happened at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those that happened before this time.
    pub to: Option<DateTime<Utc>>,
}

/// A page of entries, newest first.
///
/// # Errors
/// INVALID_ARGUMENT if a filter or the page is invalid; VIEW_NOT_READY if nothing is found while the view is not built; the
/// database's errors.
pub async fn list_entries(
    reads: &Reads,
    filter: &EntryFilter,
    page: &PageRequest,
) -> Result<Answer<Entries>, Error> {
    let walk = EntryWalk::of(reads, filter).await?;
    let page: Page<EntryPosition> = Page::of(page, &("audit/entries", filter))?;
    if page.after.is_some_and(|after| !is_stored(after.0)) {
        return Err(foreign_token());
    }
    let answer = walk.next(reads, page.after, page.limit()).await?;
    if answer.body.entries.is_empty() && page.after.is_none() {
        answer.position.check_ready()?;
    }
    let cut_after = answer.body.cut_after;
    let (entries, token) = page.fill(answer.body.entries)?;
    Ok(Answer {
        body: Entries {
            entries,
            next_page_token: next_token(&page, token, cut_after)?,
        },
        position: answer.position,
    })
}

/// The last entries that concern a user, on the connection of a snapshot. The token is that of the next page of
/// [`list_entries`] for the user.
///
/// # Errors
/// The database's errors.
pub(super) async fn last_entries(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Entries, Error> {
    let filter = EntryFilter {
        user_id: Some(user_id.to_owned()),
        ..EntryFilter::default()
    };
    let request = PageRequest {
        size: MOST_OF_USER,
        token: String::new(),
    };
    let page: Page<EntryPosition> = Page::of(&request, &("audit/entries", &filter))?;
    let walk = EntryWalk::of(reads, &filter).await?;
    let rows = walk.read(snapshot, None, page.limit()).await?;
    let read = rows.entries(reads).await?;
    let (entries, token) = page.fill_half(read.entries)?;
    Ok(Entries {
        entries,
        next_page_token: next_token(&page, token, read.cut_after)?,
    })
}

/// The token of the next page, which a filled page has or has not. Where the statement has ended after a row, more follow.
fn next_token(
    page: &Page<EntryPosition>,
    token: Option<String>,
    cut_after: Option<EntryPosition>,
) -> Result<Option<String>, Error> {
    match token {
        Some(token) => Ok(Some(token)),
        None => cut_after.map(|position| page.next(&position)).transpose(),
    }
}

pub(super) fn foreign_token() -> Error {
    Error::invalid("pageToken", "is not a token of this list")
}

/// Whether rows can have a time: Postgres has no instants as far away as chrono has.
pub(super) fn is_stored(at: DateTime<Utc>) -> bool {
    (1..=9_999).contains(&at.year())
}

/// Where an entry stands in the list: its time, partition, offset and log.
pub type EntryPosition = (DateTime<Utc>, i32, i64, i32);

/// An index of entries, by what they are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    User,
    Ip,
    Role,
    Actor,
    /// By one action, which may be a type that nobody knows.
    Name,
    Action,
}

impl Index {
    /// Those by a key. If several keys find many entries, the first is read.
    const BY_KEY: [Self; 4] = [Self::User, Self::Ip, Self::Role, Self::Actor];

    /// The conditions that find the entries of an action, the n-th of the codes, by it. The actor may be the user.
    fn conditions(self) -> &'static [&'static str] {
        match self {
            Self::User => &["e.action = ($1::smallint[])[{n}] AND e.user_key = $8"],
            Self::Ip => &["e.action = ($1::smallint[])[{n}] AND e.ip_key = $15"],
            Self::Role => &["e.action = ($1::smallint[])[{n}] AND e.role_key = $13"],
            Self::Actor => &[
                "e.action = ($1::smallint[])[{n}] AND e.actor_key = $10",
                "e.action = ($1::smallint[])[{n}] AND e.user_key = $10 AND e.actor_key IS NULL",
            ],
            Self::Name => &[
                "e.action = nullif(($1::smallint[])[{n}], 0::smallint)",
                "e.action = 0 AND ($1::smallint[])[{n}] = 0 AND md5(e.facts::json ->> 'type') = md5($17)",
            ],
            Self::Action => &["e.action = ($1::smallint[])[{n}]"],
        }
    }

    /// The codes of the actions whose entries may have the key.
    fn codes(self) -> impl Iterator<Item = i16> {
        use EventType as Type;
        let may_have = move |action: &Action| match (self, action.event_type) {
            (Self::Action | Self::Name, _) => true,
            (_, None) => false,
            (Self::Actor, Some(_)) => true,
            (Self::User, Some(event_type)) => {
                action.category != Category::Authorization
                    || matches!(event_type, Type::UserRoleAssigned | Type::UserRoleRemoved)
            }
            (Self::Ip, Some(event_type)) => matches!(
                event_type,
                Type::UserLoggedIn | Type::UserLoginFailed | Type::MfaChallengeFailed
            ),
            (Self::Role, Some(event_type)) => {
                action.category == Category::Authorization
                    && !matches!(
                        event_type,
                        Type::PermissionCreated | Type::PermissionUpdated | Type::PermissionDeleted
                    )
            }
        };
        let may_have = Action::ALL.into_iter().filter(may_have);
        may_have.map(|action| action.code)
    }

    /// The statement that lists entries by it.
    fn statement(self) -> &'static str {
        static STATEMENTS: LazyLock<[String; 6]> = LazyLock::new(|| {
            [
                Index::User,
                Index::Ip,
                Index::Role,
                Index::Actor,
                Index::Name,
                Index::Action,
            ]
            .map(|index| {
                let (head, rest) = LIST_ENTRIES.split_once("-- each\n").unwrap_or_default();
                let (each, tail) = rest.split_once("-- end\n").unwrap_or_default();
                let numbers = match index {
                    // That of the action, and that of all types that nobody knows.
                    Index::Name => 1..=2,
                    _ => 1..=index.codes().count(),
                };
                let walks = numbers.flat_map(|number| {
                    let conditions = index.conditions().iter();
                    conditions.map(move |condition| {
                        let found = condition.replace("{n}", &number.to_string());
                        each.replace("{found}", &found)
                    })
                });
                let walks: Vec<String> = walks.collect();
                [head, &walks.join("        UNION ALL\n"), tail].concat()
            })
        });
        &STATEMENTS[self as usize]
    }
}

/// The text by which a document of facts is found that has this value: the form in which documents are stored.
pub(super) fn in_facts(name: &str, value: &str) -> String {
    format!("\"{name}\":{}", Value::from(value))
}

/// A walk through the entries that match a filter, newest first.
#[derive(Debug, Clone)]
pub struct EntryWalk {
    filter: EntryFilter,
    index: Index,
    codes: Vec<i16>,
}

impl EntryWalk {
    /// Checks the filter, and chooses how to read the entries.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: no entry can have a value of the filter. The database's errors.
    pub async fn of(reads: &Reads, filter: &EntryFilter) -> Result<Self, Error> {
        for (field, id) in [("userId", &filter.user_id), ("roleId", &filter.role_id)] {
            if let Some(id) = id {
                query::check_id(field, id)?;
            }
        }
        for (field, text) in [
            ("actor", &filter.actor),
            ("ipAddress", &filter.ip_address),
            ("action", &filter.action),
        ] {
            check_text(field, text.as_deref())?;
        }
        let given = Index::BY_KEY.into_iter();
        let given: Vec<Index> = given.filter(|key| filter.key(*key).is_some()).collect();
        let mut codes = filter.codes();
        for key in &given {
            let with_key: Vec<i16> = key.codes().collect();
            codes.retain(|code| with_key.contains(code));
        }
        let index = match given.as_slice() {
            [] if filter.action.is_some() => Index::Name,
            [] => Index::Action,
            [only] => *only,
            several => rarest(reads, filter, several, &codes).await?,
        };
        Ok(Self {
            filter: filter.clone(),
            index,
            codes,
        })
    }

    /// The next entries after a position, each with its own.
    ///
    /// # Errors
    /// The database's errors.
    pub async fn next(
        &self,
        reads: &Reads,
        after: Option<EntryPosition>,
        limit: i64,
    ) -> Result<Answer<ReadEntries>, Error> {
        let mut connection = reads.pool().acquire().await?;
        let rows = self.read(&mut connection, after, limit).await?;
        drop(connection);
        let position = reads
            .position(
                "audit",
                &rows.logs,
                &rows.offsets,
                rows.ready,
                match self.filter.user_id {
                    // Entries about a user come under other keys, too.
                    Some(_) => Subject::UserAndOthers(rows.dead_letter),
                    None => Subject::Many,
                },
            )
            .await?;
        let body = rows.entries(reads).await?;
        Ok(Answer { body, position })
    }

    async fn read(
        &self,
        connection: &mut PgConnection,
        after: Option<EntryPosition>,
        limit: i64,
    ) -> Result<EntryRows, Error> {
        let filter = &self.filter;
        // Before `to` means after anything that happens then.
        let end = (filter.to, i32::MIN, i64::MIN, i32::MIN);
        let after = match after {
            Some((at, ..)) if filter.to.is_some_and(|to| at >= to) => end,
            Some((at, partition, offset, log_id)) => (Some(at), partition, offset, log_id),
            None => end,
        };
        let in_facts = |name, value: &Option<String>| value.as_ref().map(|v| in_facts(name, v));
        sqlx::query_as(self.index.statement())
            .bind(&self.codes)
            .bind(after.0)
            .bind(after.1)
            .bind(after.2)
            .bind(after.3)
            .bind(filter.from)
            .bind(limit)
            .bind(filter.key(Index::User))
            .bind(in_facts("userId", &filter.user_id))
            .bind(filter.key(Index::Actor))
            .bind(in_facts("actor", &filter.actor))
            .bind(in_facts("userId", &filter.actor))
            .bind(filter.key(Index::Role))
            .bind(in_facts("roleId", &filter.role_id))
            .bind(filter.key(Index::Ip))
            .bind(&filter.ip_address)
            // A type that nobody knows may be written like an action.
            .bind(&filter.action)
            .fetch_one(connection)
            .await
            .map_err(|error| Error::from(error).in_statement("audit/list_entries"))
    }
}

/// Checks a filter by a text, which may be of any length.
pub(super) fn check_text(field: &str, text: Option<&str>) -> Result<(), Error> {
    match text {
        Some("") => Err(Error::empty(field)),
        Some(text) if text.contains('\0') => Err(Error::invalid(field, "must not contain NUL")),
        _ => Ok(()),
    }
}

/// The index of the key that the fewest entries have.
async fn rarest(
    reads: &Reads,
    filter: &EntryFilter,
    keys: &[Index],
    codes: &[i16],
) -> Result<Index, Error> {
    let counts = sqlx::query_file_scalar!(
        "src/domains/audit/sql/count_entries.sql",
        filter.key(Index::User),
        filter.key(Index::Ip),
        filter.key(Index::Role),
        filter.key(Index::Actor),
        codes,
        filter.from,
        filter.to,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("audit/count_entries"))?;
    let counted = Index::BY_KEY.into_iter().zip(counts);
    let given = counted.filter(|(key, _)| keys.contains(key));
    let rarest = given.min_by_key(|(_, count)| *count);
    Ok(rarest.map_or(Index::Action, |(key, _)| key))
}

impl EntryFilter {
    /// The hash by which an index finds entries, if the filter has the key.
    fn key(&self, index: Index) -> Option<Uuid> {
        let text = match index {
            Index::User => &self.user_id,
            Index::Ip => &self.ip_address,
            Index::Role => &self.role_id,
            Index::Actor => &self.actor,
            Index::Name | Index::Action => &None,
        };
        text.as_ref().map(|text| hash16(text.as_bytes()))
    }

    /// The codes of the actions that match. For a type that is not in the catalogue, the entry's type decides.
    fn codes(&self) -> Vec<i16> {
        let matches = |action: &Action| {
            let is_named = |name: &String| action.event_type.is_none() || action.name == name;
            self.action.as_ref().is_none_or(is_named)
                && self
                    .category
                    .is_none_or(|category| action.category == category)
                && self.outcome.is_none_or(|outcome| action.outcome == outcome)
        };
        let actions = Action::ALL.into_iter().filter(matches);
        actions.map(|action| action.code).collect()
    }
}

/// Entries that were read, each with its position.
pub struct ReadEntries {
    pub entries: Vec<(Entry, EntryPosition)>,
    /// The last position, where the statement has ended for the size of what it has read: more may follow.
    pub cut_after: Option<EntryPosition>,
}

/// What a statement returns: entries, the n-th of which has the n-th item of each list, and the positions that they reflect.
#[derive(sqlx::FromRow)]
struct EntryRows {
    log_ids: Vec<i32>,
    actions: Vec<i16>,
    partitions: Vec<i32>,
    record_offsets: Vec<i64>,
    occurred: Vec<DateTime<Utc>>,
    recorded: Vec<DateTime<Utc>>,
    event_ids: Vec<String>,
    facts: Vec<String>,
    ip_addresses: Vec<Option<String>>,
    user_agents: Vec<Option<String>>,
    changed_values: Vec<Option<String>>,
    is_cut: bool,
    ready: bool,
    dead_letter: Option<Uuid>,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl EntryRows {
    /// The entries with their positions.
    async fn entries(self, reads: &Reads) -> Result<ReadEntries, Error> {
        let is_cut = self.is_cut;
        let logs = reads.partitions(&self.log_ids).await?;
        let places = self.partitions.into_iter().zip(self.record_offsets);
        let places = places.zip(self.log_ids).zip(logs);
        let times = self.occurred.into_iter().zip(self.recorded);
        let texts = self.event_ids.into_iter().zip(self.facts);
        let erasable = self.ip_addresses.into_iter().zip(self.user_agents);
        let erasable = erasable.zip(self.changed_values);
        let rows = places.zip(times).zip(texts).zip(self.actions).zip(erasable);
        let entries = rows.map(
            |((((place, (occurred_at, recorded_at)), (event_id, facts)), action), erasable)| {
                let (((partition, offset), log_id), (topic, topic_partition)) = place;
                let ((ip_address, user_agent), changed_values) = erasable;
                let facts: Facts = db::of_document(&facts, "entries")?;
                let action = Action::coded(action).ok_or_else(|| {
                    Error::internal("an entry has an action that this release does not know")
                })?;
                let written = facts.r#type.unwrap_or_default();
                let entry = Entry {
                    event_id,
                    r#type: match action.event_type {
                        Some(event_type) => event_type.as_str().to_owned(),
                        None => written.clone(),
                    },
                    version: facts.version,
                    category: action.category,
                    action: match action.event_type {
                        Some(_) => action.name.to_owned(),
                        None => written,
                    },
                    outcome: action.outcome,
                    reason: facts.reason,
                    actor: facts.actor.or_else(|| facts.user_id.clone()),
                    user_id: facts.user_id,
                    role_id: facts.role_id,
                    permission_id: facts.permission_id,
                    ip_address,
                    user_agent,
                    correlation_id: facts.correlation_id,
                    occurred_at,
                    recorded_at,
                    topic,
                    partition: topic_partition,
                    offset,
                    changes: changes(facts.fields, changed_values.as_deref())?,
                };
                Ok((entry, (occurred_at, partition, offset, log_id)))
            },
        );
        let entries = entries.collect::<Result<Vec<_>, Error>>()?;
        let last = entries.last().filter(|_| is_cut);
        let cut_after = last.map(|(_, position)| *position);
        Ok(ReadEntries { entries, cut_after })
    }
}

/// The changes of an entry. Their values are absent once they are erased.
fn changes(fields: Vec<String>, values: Option<&str>) -> Result<Vec<FieldChange>, Error> {
    let values = values.map(|values| db::of_document(values, "entries"));
    let values: Vec<ChangedValue> = values.transpose()?.unwrap_or_default();
    let mut values = values.into_iter();
    let change = |field| {
        let value = values.next().unwrap_or_default();
        FieldChange {
            field,
            old: value.old,
            new: value.new.filter(|value| !value.is_null()),
        }
    };
    Ok(fields.into_iter().map(change).collect())
}
