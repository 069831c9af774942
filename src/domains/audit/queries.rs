//! The audit domain's queries, for both surfaces. Lists are one statement each, which returns the rows together with the position
//! that they reflect; access is read in one snapshot, and evaluated by `access`.

use std::sync::LazyLock;

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sqlx::PgTransaction;
use uuid::Uuid;

use super::access::{self, Description, Fact, Moment, What};
use super::model::{
    Access, Action, Alert, AlertKind, Alerts, Category, Entries, Entry, FieldChange, Outcome, Role,
};
use super::state::Facts;
use crate::db;
use crate::error::Error;
use crate::event::{EventType, hash16};
use crate::query::page::{Page, PageRequest, ResponseSize};
use crate::query::{self, Answer, Reads};

/// The text of the statements that list entries.
const LIST_ENTRIES: &str = include_str!("sql/list_entries.sql");
/// The text of the statements that list alerts.
const LIST_ALERTS: &str = include_str!("sql/list_alerts.sql");
/// The most holders of a role that are read: more don't fit into an answer, even with the shortest ids.
const MOST_HOLDERS: i64 = 1_000_000;

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
    if answer.body.is_empty() && page.after.is_none() {
        answer.position.check_ready()?;
    }
    let (entries, next_page_token) = page.fill(answer.body)?;
    Ok(Answer {
        body: Entries {
            entries,
            next_page_token,
        },
        position: answer.position,
    })
}

fn foreign_token() -> Error {
    Error::invalid("pageToken", "is not a token of this list")
}

/// Whether rows can have a time: Postgres has no instants as far away as chrono has.
fn is_stored(at: DateTime<Utc>) -> bool {
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
fn in_facts(name: &str, value: &str) -> String {
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
    ) -> Result<Answer<Vec<(Entry, EntryPosition)>>, Error> {
        let filter = &self.filter;
        // Before `to` means after anything that happens then.
        let end = (filter.to, i32::MIN, i64::MIN, i32::MIN);
        let after = match after {
            Some((at, ..)) if filter.to.is_some_and(|to| at >= to) => end,
            Some((at, partition, offset, log_id)) => (Some(at), partition, offset, log_id),
            None => end,
        };
        let in_facts = |name, value: &Option<String>| value.as_ref().map(|v| in_facts(name, v));
        let rows: EntryRows = sqlx::query_as(self.index.statement())
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
            .fetch_one(reads.pool())
            .await
            .map_err(|error| Error::from(error).in_statement("audit/list_entries"))?;
        let position = reads
            .position(
                "audit",
                &rows.logs,
                &rows.offsets,
                rows.ready,
                rows.lacks_dead_letters,
            )
            .await?;
        let logs = reads.partitions(&rows.log_ids).await?;
        let body = rows.entries(logs)?;
        Ok(Answer { body, position })
    }
}

/// Checks a filter by a text, which may be of any length.
fn check_text(field: &str, text: Option<&str>) -> Result<(), Error> {
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
    ready: bool,
    lacks_dead_letters: bool,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl EntryRows {
    /// The entries with their positions. `logs` are topics and partitions of the entries' logs.
    fn entries(self, logs: Vec<(String, u32)>) -> Result<Vec<(Entry, EntryPosition)>, Error> {
        let places = self.partitions.into_iter().zip(self.record_offsets);
        let places = places.zip(self.log_ids).zip(logs);
        let times = self.occurred.into_iter().zip(self.recorded);
        let texts = self.event_ids.into_iter().zip(self.facts);
        let erasable = self.ip_addresses.into_iter().zip(self.user_agents);
        let erasable = erasable.zip(self.changed_values);
        let rows = places.zip(times).zip(texts).zip(self.actions).zip(erasable);
        rows.map(
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
        )
        .collect()
    }
}

/// The changes of an entry. Their values are absent once they are erased.
fn changes(fields: Vec<String>, values: Option<&str>) -> Result<Vec<FieldChange>, Error> {
    let values = values.map(|values| db::of_document(values, "entries"));
    let values: Vec<StoredChange> = values.transpose()?.unwrap_or_default();
    let mut values = values.into_iter();
    let change = |field| {
        let value = values.next().unwrap_or_default();
        FieldChange {
            field,
            old: value.old,
            new: value.new.flatten(),
        }
    };
    Ok(fields.into_iter().map(change).collect())
}

/// The values of a changed field. A new value of null says that the field was cleared.
#[derive(Debug, Default, Deserialize)]
struct StoredChange {
    #[serde(default)]
    old: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    new: Option<Option<Value>>,
}

/// A value that is there, also null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Value>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Which alerts to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AlertFilter {
    /// Only those of this kind.
    pub kind: Option<AlertKind>,
    /// Only those of this account, IP address or user.
    pub key: Option<String>,
    /// Only those whose window begins at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those whose window begins before this time.
    pub to: Option<DateTime<Utc>>,
}

/// In how many windows of brute force a statement looks for logins, before a page ends.
const MOST_WINDOWS: i64 = 1_000;
/// Above the codes of all kinds: a position behind all alerts of a window.
const AFTER_ALL_KINDS: i16 = i16::MAX;

/// Where an alert stands in the list: its window, kind, key's beginning and hash.
type AlertPosition = (DateTime<Utc>, i16, String, Uuid);

/// The statement that lists alerts, of one key or of all.
fn alert_statement(of_one_key: bool) -> &'static str {
    static STATEMENTS: LazyLock<[String; 2]> = LazyLock::new(|| {
        [
            ("true", "w.window_start DESC, w.key_start, w.key_hash"),
            (
                "w.key_hash = $9::uuid AND w.key = $10::text",
                "w.window_start DESC",
            ),
        ]
        .map(|(key, order)| LIST_ALERTS.replace("{key}", key).replace("{order}", order))
    });
    &STATEMENTS[usize::from(of_one_key)]
}

/// A page of alerts, the newest window first.
///
/// # Errors
/// INVALID_ARGUMENT if a filter or the page is invalid; VIEW_NOT_READY if nothing is found while the view is not built; the
/// database's errors.
pub async fn list_alerts(
    reads: &Reads,
    filter: &AlertFilter,
    page: &PageRequest,
) -> Result<Answer<Alerts>, Error> {
    check_text("key", filter.key.as_deref())?;
    let page: Page<AlertPosition> = Page::of(page, &("audit/alerts", filter))?;
    if let Some((at, _, key_start, _)) = &page.after
        && (!is_stored(*at) || key_start.contains('\0'))
    {
        return Err(foreign_token());
    }
    let kinds = AlertKind::ALL.into_iter();
    let kinds = kinds.filter(|kind| filter.kind.is_none_or(|only| only == *kind));
    let kinds: Vec<i16> = kinds.map(AlertKind::code).collect();
    let mut after = page.after.clone();
    loop {
        let rows: AlertRows = sqlx::query_as(alert_statement(filter.key.is_some()))
            .bind(&kinds)
            .bind(filter.from)
            .bind(filter.to)
            .bind(after.as_ref().map(|(at, ..)| *at))
            .bind(after.as_ref().map_or(0, |(_, kind, ..)| *kind))
            .bind(after.as_ref().map_or("", |(_, _, key_start, _)| key_start))
            .bind(
                after
                    .as_ref()
                    .map_or(Uuid::nil(), |(.., key_hash)| *key_hash),
            )
            .bind(page.limit())
            .bind(filter.key.as_ref().map(|key| hash16(key.as_bytes())))
            .bind(&filter.key)
            .bind(MOST_WINDOWS)
            .fetch_one(reads.pool())
            .await
            .map_err(|error| Error::from(error).in_statement("audit/list_alerts"))?;
        let position = reads
            .position("audit", &rows.logs, &rows.offsets, rows.ready, false)
            .await?;
        let horizon = rows.horizon;
        let mut alerts = rows.alerts()?;
        // Before the horizon there may be logins that were not looked for.
        alerts.retain(|(alert, _)| horizon.is_none_or(|horizon| alert.window_start >= horizon));
        let rest = horizon.map(|horizon| (horizon, AFTER_ALL_KINDS, String::new(), Uuid::nil()));
        if alerts.is_empty() && rest.is_some() {
            after = rest;
            continue;
        }
        if alerts.is_empty() && page.after.is_none() {
            position.check_ready()?;
        }
        let (alerts, next) = page.fill(alerts)?;
        let next_page_token = match (next, rest) {
            (None, Some(rest)) => Some(page.next(&rest)?),
            (next, _) => next,
        };
        return Ok(Answer {
            body: Alerts {
                alerts,
                next_page_token,
            },
            position,
        });
    }
}

/// What a statement returns: alerts, the n-th of which has the n-th item of each list, and the positions that they reflect.
#[derive(sqlx::FromRow)]
struct AlertRows {
    kinds: Vec<i16>,
    keys: Vec<String>,
    key_starts: Vec<String>,
    key_hashes: Vec<Uuid>,
    starts: Vec<DateTime<Utc>>,
    ends: Vec<DateTime<Utc>>,
    counts: Vec<i64>,
    first_events: Vec<DateTime<Utc>>,
    last_events: Vec<DateTime<Utc>>,
    event_ids: Vec<String>,
    /// The first window of those in which logins were looked for, if there are more before it.
    horizon: Option<DateTime<Utc>>,
    ready: bool,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl AlertRows {
    fn alerts(self) -> Result<Vec<(Alert, AlertPosition)>, Error> {
        let keys = self.keys.into_iter().zip(self.key_starts);
        let keys = keys.zip(self.key_hashes);
        let windows = self.starts.into_iter().zip(self.ends);
        let events = self.first_events.into_iter().zip(self.last_events);
        let events = events.zip(self.event_ids).zip(self.counts);
        let rows = self.kinds.into_iter().zip(keys).zip(windows).zip(events);
        rows.map(|(((code, key), (window_start, window_end)), events)| {
            let ((key, key_start), key_hash) = key;
            let (((first_event_at, last_event_at), event_ids), count) = events;
            let kind = AlertKind::ALL.into_iter().find(|kind| kind.code() == code);
            let kind = kind.ok_or_else(|| {
                Error::internal("an alert has a kind that this release does not know")
            })?;
            let alert = Alert {
                kind,
                key,
                window_start,
                window_end,
                count,
                first_event_at,
                last_event_at,
                event_ids: db::of_document(&event_ids, "alert_windows")?,
            };
            Ok((alert, (window_start, code, key_start, key_hash)))
        })
        .collect()
    }
}

/// A user's roles, and the permissions that they give, now or at an instant.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND, with the position at which no event had named the user;
/// VIEW_NOT_READY instead, while the view is not built; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_user_access(
    reads: &Reads,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Access>, Error> {
    query::check_id("userId", user_id)?;
    let key = hash16(user_id.as_bytes());
    let in_user = in_facts("userId", user_id);
    let mut snapshot = reads.snapshot("audit").await?;
    let user = sqlx::query_file!("src/domains/audit/sql/find_user.sql", key, in_user, as_of)
        .fetch_one(&mut *snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/find_user"))?;
    let mut facts = FactReader {
        reads,
        snapshot,
        as_of,
        facts: Vec::new(),
    };
    if user.known && !user.deleted {
        facts.add_roles_of(key, &in_user).await?;
        let roles = keys(access::named(&facts.facts).0);
        facts.add(Selection::of_roles(&roles)).await?;
        facts.add_permissions().await?;
        facts.add_names().await?;
    }
    let facts = facts.facts;
    let position = reads
        .position(
            "audit",
            &user.logs,
            &user.offsets,
            user.ready,
            user.lacks_dead_letters,
        )
        .await?;
    if !user.known {
        return Err(position.not_found("user"));
    }
    let body = access::of_user(&facts, user_id);
    check_size("userId", &body)?;
    Ok(Answer { body, position })
}

/// A role, the permissions that it gives, and its holders, now or at an instant.
///
/// # Errors
/// INVALID_ARGUMENT if no role can have the id; NOT_FOUND, with the position at which no event had named the role;
/// VIEW_NOT_READY instead, while the view is not built; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_role(
    reads: &Reads,
    role_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Role>, Error> {
    query::check_id("roleId", role_id)?;
    let key = hash16(role_id.as_bytes());
    let in_role = in_facts("roleId", role_id);
    let mut snapshot = reads.snapshot("audit").await?;
    let role = sqlx::query_file!("src/domains/audit/sql/find_role.sql", key, in_role)
        .fetch_one(&mut *snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/find_role"))?;
    let mut facts = FactReader {
        reads,
        snapshot,
        as_of,
        facts: Vec::new(),
    };
    if role.known {
        facts.add(Selection::of_roles(&[key])).await?;
        facts.add_holders(role_id, key, &in_role).await?;
        facts.add_permissions().await?;
        facts.add_names().await?;
    }
    let facts = facts.facts;
    let position = reads
        .position("audit", &role.logs, &role.offsets, role.ready, false)
        .await?;
    if !role.known {
        return Err(position.not_found("role"));
    }
    let body = access::of_role(&facts, role_id);
    check_size("roleId", &body)?;
    Ok(Answer { body, position })
}

/// Refuses an answer about one id that is larger than an answer may be.
fn check_size(field: &str, body: &impl Serialize) -> Result<(), Error> {
    let mut size = ResponseSize::default();
    size.add(body)?;
    if size.fits() {
        return Ok(());
    }
    Err(too_large(field))
}

/// The refusal of an answer about the id in `field` that would be too large.
pub fn too_large(field: &str) -> Error {
    let problem = "has more roles, permissions or holders than one answer of 3 MiB can hold";
    Error::range_too_large(field, problem)
}

fn keys<'i>(ids: impl IntoIterator<Item = &'i str>) -> Vec<Uuid> {
    let ids = ids.into_iter();
    ids.map(|id| hash16(id.as_bytes())).collect()
}

const OWN_OF_ROLES: &[EventType] = &[
    EventType::RoleCreated,
    EventType::RoleUpdated,
    EventType::RoleDeleted,
];
const OWN_OF_PERMISSIONS: &[EventType] = &[
    EventType::PermissionCreated,
    EventType::PermissionUpdated,
    EventType::PermissionDeleted,
];
const OF_HOLDERS: &[EventType] = &[EventType::UserRoleAssigned, EventType::UserRoleRemoved];
const OF_PAIRS: &[EventType] = &[
    EventType::PermissionAssignedToRole,
    EventType::PermissionRemovedFromRole,
];

/// Which facts to read of roles and permissions, by their hashes.
#[derive(Default)]
struct Selection<'k> {
    roles: &'k [Uuid],
    permissions: &'k [Uuid],
    /// Types of which all events of the roles are read, and of the permissions.
    all_of_roles: &'static [EventType],
    all_of_permissions: &'static [EventType],
    /// Types of which the last event of each pair and log is read.
    last_of_roles: &'static [EventType],
    last_of_permissions: &'static [EventType],
}

impl<'k> Selection<'k> {
    /// What happened to roles, and which permissions they were given.
    fn of_roles(roles: &'k [Uuid]) -> Self {
        Self {
            roles,
            all_of_roles: OWN_OF_ROLES,
            last_of_roles: OF_PAIRS,
            ..Self::default()
        }
    }
}

fn codes(types: &[EventType]) -> Vec<i16> {
    let actions = types.iter().map(|event_type| Action::of(Some(*event_type)));
    actions.flatten().map(|action| action.code).collect()
}

/// Reads facts about access in one snapshot.
struct FactReader<'r> {
    reads: &'r Reads,
    snapshot: PgTransaction<'static>,
    /// Later ones are not read.
    as_of: Option<DateTime<Utc>>,
    facts: Vec<Fact>,
}

/// An entry from which a fact is made.
struct FactRow {
    log_id: i32,
    record_offset: i64,
    occurred_at: DateTime<Utc>,
    action: i16,
    facts: String,
    changed_values: Option<String>,
}

/// The last assignment of a role to a user, or its removal, in a log.
struct HolderRow {
    log_id: i32,
    record_offset: i64,
    occurred_at: DateTime<Utc>,
    action: i16,
    user_id: String,
}

impl FactReader<'_> {
    /// Adds what happened to roles and permissions.
    async fn add(&mut self, selection: Selection<'_>) -> Result<(), Error> {
        let rows = self.read(selection).await?;
        self.add_rows(rows).await
    }

    async fn read(&mut self, selection: Selection<'_>) -> Result<Vec<FactRow>, Error> {
        if selection.roles.is_empty() && selection.permissions.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query_file_as!(
            FactRow,
            "src/domains/audit/sql/list_facts.sql",
            selection.roles,
            selection.permissions,
            &codes(selection.all_of_roles),
            &codes(selection.all_of_permissions),
            &codes(selection.last_of_roles),
            &codes(selection.last_of_permissions),
            self.as_of,
        )
        .fetch_all(&mut *self.snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/list_facts"))
    }

    /// Adds which roles a user was given.
    async fn add_roles_of(&mut self, key: Uuid, in_user: &str) -> Result<(), Error> {
        let rows = sqlx::query_file_as!(
            FactRow,
            "src/domains/audit/sql/list_user_roles.sql",
            key,
            in_user,
            self.as_of,
        )
        .fetch_all(&mut *self.snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/list_user_roles"))?;
        self.add_rows(rows).await
    }

    /// Adds who was given a role, without users who were deleted.
    async fn add_holders(&mut self, role: &str, key: Uuid, in_role: &str) -> Result<(), Error> {
        let rows = sqlx::query_file_as!(
            HolderRow,
            "src/domains/audit/sql/list_holders.sql",
            key,
            in_role,
            self.as_of,
            MOST_HOLDERS,
        )
        .fetch_all(&mut *self.snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/list_holders"))?;
        let log_ids: Vec<i32> = rows.iter().map(|row| row.log_id).collect();
        let logs = self.reads.partitions(&log_ids).await?;
        let assigned = Action::of(Some(EventType::UserRoleAssigned));
        for (row, (topic, partition)) in rows.into_iter().zip(logs) {
            let at = Moment {
                log_id: row.log_id,
                topic,
                partition,
                offset: row.record_offset,
                occurred_at: row.occurred_at,
            };
            // The names are read where they are needed.
            let (role, user) = (role.to_owned(), row.user_id);
            let what = if assigned.is_some_and(|assigned| assigned.code == row.action) {
                What::RoleAssigned {
                    role,
                    user,
                    name: None,
                }
            } else {
                What::RoleRemoved {
                    role,
                    user,
                    name: None,
                }
            };
            self.facts.push(Fact { at, what });
        }
        Ok(())
    }

    /// Adds what happened to the permissions that the facts name.
    async fn add_permissions(&mut self) -> Result<(), Error> {
        let permissions = keys(access::named(&self.facts).1);
        self.add(Selection {
            permissions: &permissions,
            all_of_permissions: OWN_OF_PERMISSIONS,
            ..Selection::default()
        })
        .await
    }

    /// Adds the last assignments of the roles and permissions that have no name from events of their own.
    async fn add_names(&mut self) -> Result<(), Error> {
        let (roles, permissions) = access::unnamed(&self.facts);
        let (roles, permissions) = (keys(roles), keys(permissions));
        let rows = self
            .read(Selection {
                roles: &roles,
                permissions: &permissions,
                last_of_roles: OF_HOLDERS,
                last_of_permissions: OF_PAIRS,
                ..Selection::default()
            })
            .await?;
        let first = self.facts.len();
        self.add_rows(rows).await?;
        for fact in &mut self.facts[first..] {
            // The assignment is of any user, who may have been deleted.
            if let What::RoleAssigned { role, name, .. } | What::RoleRemoved { role, name, .. } =
                &fact.what
            {
                fact.what = What::RoleMentioned {
                    role: role.clone(),
                    name: name.clone(),
                };
            }
        }
        Ok(())
    }

    async fn add_rows(&mut self, rows: Vec<FactRow>) -> Result<(), Error> {
        let log_ids: Vec<i32> = rows.iter().map(|row| row.log_id).collect();
        let logs = self.reads.partitions(&log_ids).await?;
        for (row, (topic, partition)) in rows.into_iter().zip(logs) {
            let at = Moment {
                log_id: row.log_id,
                topic,
                partition,
                offset: row.record_offset,
                occurred_at: row.occurred_at,
            };
            let what = row.what()?;
            self.facts.extend(what.map(|what| Fact { at, what }));
        }
        Ok(())
    }
}

impl FactRow {
    /// What happened; `None` if it does not concern access.
    fn what(self) -> Result<Option<What>, Error> {
        let facts: Facts = db::of_document(&self.facts, "entries")?;
        let new = |field: &str| -> Result<Option<Option<Value>>, Error> {
            let values = self.changed_values.as_deref();
            let values = values.map(|values| db::of_document(values, "entries"));
            let values: Vec<StoredChange> = values.transpose()?.unwrap_or_default();
            let mut named = facts.fields.iter().zip(values);
            Ok(named
                .find(|(name, _)| *name == field)
                .and_then(|(_, value)| value.new))
        };
        let text = |field| -> Result<Option<String>, Error> {
            Ok(match new(field)?.flatten() {
                Some(Value::String(text)) => Some(text),
                _ => None,
            })
        };
        let event_type = Action::coded(self.action).and_then(|action| action.event_type);
        let (Some(event_type), role, permission) = (
            event_type,
            facts.role_id.clone().unwrap_or_default(),
            facts.permission_id.clone().unwrap_or_default(),
        ) else {
            return Ok(None);
        };
        let user = facts.user_id.clone().unwrap_or_default();
        Ok(Some(match event_type {
            EventType::RoleCreated => What::RoleCreated {
                role,
                name: facts.role_name,
                description: facts.description,
                permissions: facts.initial_permission_ids,
            },
            EventType::RoleUpdated => What::RoleUpdated {
                role,
                name: text("roleName")?,
                description: match new("description")? {
                    Some(Some(Value::String(text))) => Some(Description::Text(text)),
                    Some(None) => Some(Description::Cleared),
                    _ => None,
                },
            },
            EventType::RoleDeleted => What::RoleDeleted {
                role,
                name: facts.role_name,
            },
            EventType::UserRoleAssigned => What::RoleAssigned {
                role,
                user,
                name: facts.role_name,
            },
            EventType::UserRoleRemoved => What::RoleRemoved {
                role,
                user,
                name: facts.role_name,
            },
            EventType::PermissionCreated => What::PermissionCreated {
                permission,
                name: facts.permission_name,
            },
            EventType::PermissionUpdated => What::PermissionUpdated {
                permission,
                name: text("permissionName")?,
            },
            EventType::PermissionDeleted => What::PermissionDeleted {
                permission,
                name: facts.permission_name,
            },
            EventType::PermissionAssignedToRole => What::PermissionAssigned {
                permission,
                role,
                name: facts.permission_name,
            },
            EventType::PermissionRemovedFromRole => What::PermissionRemoved {
                permission,
                role,
                name: facts.permission_name,
            },
            _ => return Ok(None),
        }))
    }
}
