//! The dead letters of the versions that are shown: lists and single ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::handle::{Operations, check_known_reason};
use crate::error::{Code, Error, Hint};
use crate::event::hash16;
use crate::projector::dead_letters::stored_headers;
use crate::query::page::{Page, PageRequest};

/// The kind of failure that made a record a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterClass {
    /// The record's data is bad.
    Data,
    /// The record has a version that this release can't read.
    Schema,
    /// Applying the record failed in the code or the database for an unforeseen reason.
    Bug,
    /// The record waits behind an earlier dead letter of its key.
    Blocked,
}

/// The state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// It is set aside; if it has a key, later events of that key wait behind it.
    Parked,
    /// A newer release is retrying it automatically.
    Retrying,
    /// An operator discarded it, or its user was deleted; no event waits behind it.
    Discarded,
    /// A retry succeeded.
    Applied,
}

impl DeadLetterState {
    /// The state with this name.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "parked" => Some(Self::Parked),
            "retrying" => Some(Self::Retrying),
            "discarded" => Some(Self::Discarded),
            "applied" => Some(Self::Applied),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Retrying => "retrying",
            Self::Discarded => "discarded",
            Self::Applied => "applied",
        }
    }
}

/// A record that could not be applied, or that waits behind one that could not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The dead letter's id.
    pub id: Uuid,
    /// The domain that could not apply it.
    pub domain: String,
    /// The Kafka topic of the record.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's key; absent if it has none, if the key was erased, or if it is not UTF-8. Lists
    /// omit keys of more than 4,096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The record's key in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The event's id, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The event's type, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Why the record became a dead letter, in one word.
    pub reason: String,
    /// The field that is wrong, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The kind of failure.
    pub class: DeadLetterClass,
    /// Its state.
    pub state: DeadLetterState,
    /// How it was closed: `applied`, `duplicate`, `skipped`, `user_deleted`, or the reason that an
    /// operator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// How often applying its record was tried: 0 while it has only waited behind another.
    pub attempts: i32,
    /// When it failed first.
    pub first_failed_at: DateTime<Utc>,
    /// When it failed last.
    pub last_failed_at: DateTime<Utc>,
    /// When the event occurred, if that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<DateTime<Utc>>,
    /// When it was applied or discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
    /// The value's size in bytes.
    pub size: i64,
    /// The record's headers, while its bytes are kept. Lists omit them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<DeadLetterHeader>>,
    /// The record's value in base64, while its bytes are kept. Lists omit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A header of a dead letter's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterHeader {
    /// Its name.
    pub name: String,
    /// Its value in base64; a header may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl From<(&str, Option<&str>)> for DeadLetterHeader {
    fn from((name, value): (&str, Option<&str>)) -> Self {
        DeadLetterHeader {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetters {
    /// The dead letters, the oldest first.
    pub dead_letters: Vec<DeadLetter>,
    /// The token of the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// Which dead letters to list; `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Only those of this domain.
    pub domain: Option<String>,
    /// Only those of this Kafka key.
    pub key: Option<Vec<u8>>,
    /// Only those with this reason.
    pub reason: Option<String>,
    /// Only those in this state.
    pub state: Option<DeadLetterState>,
}

/// A row of `sql/dead_letters.sql` or `sql/dead_letter.sql`.
struct DeadLetterRow {
    id: Uuid,
    domain: String,
    topic: String,
    partition: i32,
    record_offset: i64,
    record_key: Option<Vec<u8>>,
    event_id: Option<String>,
    event_type: Option<String>,
    reason: String,
    field: Option<String>,
    class: String,
    state: String,
    resolution: Option<String>,
    attempts: i32,
    first_failed_at: DateTime<Utc>,
    last_failed_at: DateTime<Utc>,
    occurred_at: Option<DateTime<Utc>>,
    resolved_at: Option<DateTime<Utc>>,
    size: i64,
    headers: Option<Value>,
    value: Option<Vec<u8>>,
}

impl Operations {
    /// A page of dead letters, the oldest first.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the filter or the page is malformed, or the reason is unknown. NOT_FOUND or DOMAIN_NOT_SERVED: of
    /// the domain. The database failed.
    pub async fn list_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        page: &PageRequest,
    ) -> Result<DeadLetters, Error> {
        let domains = match &filter.domain {
            Some(domain) => vec![self.projection(domain)?.domain().to_owned()],
            None => self.served(),
        };
        check_known_reason(filter.reason.as_deref())?;
        let key = filter.key.as_deref().map(hash16);
        let state = filter.state.map(DeadLetterState::as_str);
        let states = state.map(|state| vec![state]);
        let filters = ("dead-letters", &filter.domain, key, &filter.reason, state);
        let page: Page<Uuid> = Page::of(page, &filters)?;
        // Which index finds them depends on the filters.
        let begin = "BEGIN READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan";
        let mut transaction = self.0.reads.pool().begin_with(begin).await?;
        let rows = sqlx::query_file_as!(
            DeadLetterRow,
            "src/operations/sql/dead_letters.sql",
            &domains as _,
            key,
            filter.reason,
            states.as_deref() as _,
            page.limit(),
            page.after,
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(|e| Error::from(e).in_statement("operations/dead_letters"))?;
        let rows = rows.into_iter().map(DeadLetter::from);
        let (dead_letters, next_page_token) = page.fill(rows.map(|dead_letter| {
            let id = dead_letter.id;
            (dead_letter, id)
        }))?;
        Ok(DeadLetters {
            dead_letters,
            next_page_token,
        })
    }

    /// One dead letter, with headers and value.
    ///
    /// # Errors
    /// NOT_FOUND. DOMAIN_NOT_SERVED. The database failed.
    pub async fn dead_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        // No dead letter has an id that is not a UUID.
        let id = Uuid::try_parse(id).map_err(|_| no_such_dead_letter())?;
        let row = sqlx::query_file_as!(DeadLetterRow, "src/operations/sql/dead_letter.sql", id)
            .fetch_optional(self.0.reads.pool())
            .await
            .map_err(|e| Error::from(e).in_statement("operations/dead_letter"))?;
        let row = row.ok_or_else(no_such_dead_letter)?;
        self.projection(&row.domain)?;
        Ok(row.into())
    }

    /// One dead letter that is neither applied nor discarded.
    ///
    /// # Errors
    /// LETTER_CLOSED: it is applied or discarded. Else as [`dead_letter`](Self::dead_letter).
    pub async fn open_dead_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        let dead_letter = self.dead_letter(id).await?;
        match dead_letter.state {
            DeadLetterState::Parked | DeadLetterState::Retrying => Ok(dead_letter),
            DeadLetterState::Applied | DeadLetterState::Discarded => Err(dead_letter_closed()),
        }
    }
}

/// The first open dead letters of a domain under a user's id, the oldest first, on the connection of a snapshot.
///
/// # Errors
/// The database failed.
pub async fn open_dead_letters(
    snapshot: &mut PgConnection,
    domain: &'static str,
    user_id: &str,
    limit: i64,
) -> Result<Vec<DeadLetter>, Error> {
    let open = [DeadLetterState::Parked, DeadLetterState::Retrying].map(DeadLetterState::as_str);
    let rows = sqlx::query_file_as!(
        DeadLetterRow,
        "src/operations/sql/dead_letters.sql",
        &[domain] as _,
        Some(hash16(user_id.as_bytes())),
        None::<&str>,
        &open[..] as _,
        limit,
        None::<Uuid>,
    )
    .fetch_all(snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("operations/dead_letters"))?;
    Ok(rows.into_iter().map(DeadLetter::from).collect())
}

/// The error for a dead letter that does not exist.
pub fn no_such_dead_letter() -> Error {
    Error::new(
        Code::NotFound,
        "There is no such dead letter in a view that is shown; a switch changes their ids.",
    )
    .with_hint(Hint::ListDeadLetters)
}

/// The error for a dead letter that can be neither retried nor discarded.
pub fn dead_letter_closed() -> Error {
    Error::new(
        Code::LetterClosed,
        "The dead letter is already applied or discarded.",
    )
}

impl From<DeadLetterRow> for DeadLetter {
    fn from(row: DeadLetterRow) -> Self {
        let (key, key_base64) = match row.record_key.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(key)) => (Some(key), None),
            Some(Err(bytes)) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        let headers = row
            .headers
            .as_ref()
            .map(|headers| stored_headers(Some(headers)));
        Self {
            id: row.id,
            domain: row.domain,
            topic: row.topic,
            partition: row.partition,
            offset: row.record_offset,
            key,
            key_base64,
            event_id: row.event_id,
            event_type: row.event_type,
            reason: row.reason,
            field: row.field,
            // A CHECK of the table allows no other words.
            class: match row.class.as_str() {
                "schema" => DeadLetterClass::Schema,
                "bug" => DeadLetterClass::Bug,
                "blocked" => DeadLetterClass::Blocked,
                _ => DeadLetterClass::Data,
            },
            state: DeadLetterState::named(&row.state).unwrap_or(DeadLetterState::Parked),
            resolution: row.resolution,
            attempts: row.attempts,
            first_failed_at: row.first_failed_at,
            last_failed_at: row.last_failed_at,
            occurred_at: row.occurred_at,
            resolved_at: row.resolved_at,
            size: row.size,
            headers: headers.map(|headers| headers.map(DeadLetterHeader::from).collect()),
            value: row.value.map(|value| STANDARD.encode(value)),
        }
    }
}
