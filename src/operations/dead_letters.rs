//! Dead letters of the shown versions: lists, single ones, retries and discards.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Operations, check_reason, check_text};
use crate::error::{Code, Error};
use crate::event::hash16;
use crate::projector::View;
use crate::projector::dead_letters::retry::{
    RETRY_PAUSE, Retried, RetryError, RetryScope, Verdict,
};
use crate::query::deadline;
use crate::query::page::{Page, PageRequest, ResponseSize};

/// How many keys are tried together, and hold up the owner of their partition once.
const KEYS: usize = 200;
/// How many dead letters are tried together, if they are of several keys: their outcomes are less than half of what an
/// answer can hold.
const DEAD_LETTERS: i64 = 5_000;
/// A call that has tried for so long, or for half of the time that its caller has, goes on in the next one.
const ENOUGH: Duration = Duration::from_secs(5);
/// Why a letter failed whose record is in a log that can't be read now.
const KAFKA_UNAVAILABLE: &str = "kafka_unavailable";

/// Why a record became a dead letter, in kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterClass {
    /// The record is bad.
    Data,
    /// It is of a version that this release can't read.
    Schema,
    /// Code or database failed on it in a way that nobody foresaw.
    Bug,
    /// It waits behind an earlier dead letter of its key.
    Blocked,
}

/// What has become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// It waits; if it has a key, later events of that key wait behind it.
    Parked,
    /// A newer release is trying it again by itself.
    Retrying,
    /// Nobody waits for it any more: an operator took it out, or its user was deleted.
    Discarded,
    /// A retry brought it through.
    Applied,
}

impl DeadLetterState {
    /// The state of this name.
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

/// A record that could not be applied, or that waits behind one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The letter's id.
    pub id: Uuid,
    /// The domain that could not apply it.
    pub domain: String,
    /// The Kafka topic of the record.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's key, where it has one that is UTF-8 and not erased; one of more than 4,096 bytes, of one letter only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The record's key in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The event's id, as far as it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The event's type, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Why it became a letter, in one word.
    pub reason: String,
    /// The field that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The kind of reason.
    pub class: DeadLetterClass,
    /// What has become of it.
    pub state: DeadLetterState,
    /// How it ended: `applied`, `duplicate`, `skipped`, `user_deleted`, or an operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it became a letter.
    pub first_failed_at: DateTime<Utc>,
    /// When it failed last.
    pub last_failed_at: DateTime<Utc>,
    /// When what it tells of happened, as far as it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<DateTime<Utc>>,
    /// When it was brought through or taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
    /// The value's size in bytes.
    pub size: i64,
    /// The record's headers; of one letter only, and while its bytes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<DeadLetterHeader>>,
    /// The record's value in base64, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterHeader {
    /// Its name.
    pub name: String,
    /// Its value in base64; a header may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetters {
    /// The letters, the oldest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Where the next page begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LetterOutcome {
    /// Its event is in the view now.
    Applied,
    /// Its event had been applied from another record.
    Duplicate,
    /// The view is not made from it, as is known now.
    Skipped,
    /// It was taken out, or a later letter of its key deletes the user.
    Discarded,
    /// It failed again; or its record has to be read from the log, which is out of reach (`kafka_unavailable`), and it
    /// stays as it was.
    Failed,
    /// It waits on, behind one that failed.
    Waiting,
}

/// A dead letter that was tried again or taken out, or waits behind one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriedLetter {
    /// The letter's id.
    pub id: Uuid,
    /// What became of it.
    pub outcome: LetterOutcome,
    /// Why it failed again, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The field that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The outcome of each letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriedLetters {
    /// What became of each letter.
    pub outcomes: Vec<TriedLetter>,
    /// Where to go on; absent where all were tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

impl From<Retried> for TriedLetter {
    fn from(retried: Retried) -> Self {
        let (mut reason, mut field) = (None, None);
        let outcome = match retried.verdict {
            Verdict::Applied => LetterOutcome::Applied,
            Verdict::Duplicate => LetterOutcome::Duplicate,
            Verdict::Skipped => LetterOutcome::Skipped,
            Verdict::Closed | Verdict::Discarded => LetterOutcome::Discarded,
            Verdict::Waiting => LetterOutcome::Waiting,
            Verdict::KafkaUnavailable => {
                reason = Some(KAFKA_UNAVAILABLE.to_owned());
                LetterOutcome::Failed
            }
            Verdict::Failed {
                reason: why,
                field: what,
            } => {
                (reason, field) = (Some(why), what);
                LetterOutcome::Failed
            }
        };
        Self {
            id: retried.id,
            outcome,
            reason,
            field,
        }
    }
}

/// Which letters are listed; what is absent does not matter.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Of this domain.
    pub domain: Option<String>,
    /// Of this key.
    pub key: Option<Vec<u8>>,
    /// With this reason.
    pub reason: Option<String>,
    /// In this state.
    pub state: Option<DeadLetterState>,
}

/// Which letters of a domain are tried again.
#[derive(Debug, Clone)]
pub struct RetryRequest {
    /// The domain.
    pub domain: String,
    /// Of this key.
    pub key: Option<Vec<u8>>,
    /// Of keys of which a letter has this reason.
    pub reason: Option<String>,
    /// Change nothing.
    pub dry_run: bool,
    /// Where the call before ended; empty for the first.
    pub page_token: String,
}

struct Row {
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

/// Letters that are tried in one order, and where the first of them stands.
struct Line {
    version: i32,
    log_id: i32,
    first_offset: i64,
    key_hash: Option<Uuid>,
    id: Option<Uuid>,
    /// How many there are.
    dead_letters: i64,
}

/// How many of the first lines are tried together.
fn first_together(lines: &[Line]) -> usize {
    let mut dead_letters = 0;
    let fitting = lines.iter().take(KEYS).take_while(|line| {
        dead_letters += line.dead_letters;
        dead_letters <= DEAD_LETTERS
    });
    fitting.count().clamp(1, lines.len().max(1))
}

impl Operations {
    /// A page of letters, the oldest first.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the page is none. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn list_letters(
        &self,
        filter: &LetterFilter,
        page: &PageRequest,
    ) -> Result<DeadLetters, Error> {
        let domains = match &filter.domain {
            Some(domain) => vec![self.projection(domain)?.domain().to_owned()],
            None => self.served(),
        };
        check_text("reason", filter.reason.as_deref().unwrap_or_default())?;
        let key = filter.key.as_deref().map(hash16);
        let state = filter.state.map(DeadLetterState::as_str);
        let filters = ("dead-letters", &filter.domain, key, &filter.reason, state);
        let page: Page<Uuid> = Page::of(page, &filters)?;
        let rows = sqlx::query_file_as!(
            Row,
            "src/operations/sql/dead_letters.sql",
            &domains,
            key,
            filter.reason,
            state,
            page.limit(),
            page.after,
        )
        .fetch_all(self.0.reads.pool())
        .await
        .map_err(|e| Error::from(e).in_statement("operations/shown_letters"))?;
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

    /// One letter, with headers and value.
    ///
    /// # Errors
    /// NOT_FOUND, DOMAIN_NOT_SERVED, or the database fails.
    pub async fn letter(&self, id: &str) -> Result<DeadLetter, Error> {
        let id = letter_id(id)?;
        let row = sqlx::query_file_as!(Row, "src/operations/sql/dead_letter.sql", id)
            .fetch_optional(self.0.reads.pool())
            .await
            .map_err(|e| Error::from(e).in_statement("operations/shown_letter"))?;
        let row = row.ok_or_else(no_such_letter)?;
        self.projection(&row.domain)?;
        Ok(row.into())
    }

    /// Tries one letter again, and with it all of its key.
    ///
    /// # Errors
    /// NOT_FOUND. LETTER_CLOSED: it is applied or discarded. DOMAIN_NOT_SERVED. The database fails.
    pub async fn retry_letter(&self, id: &str, dry_run: bool) -> Result<TriedLetters, Error> {
        let letter = self.open_letter(id).await?;
        let which = Which {
            id: Some(letter.id),
            ..Which::default()
        };
        let lines = self.lines(&letter.domain, which, None, 1).await?;
        let outcomes = self.try_together(&letter.domain, &lines, dry_run).await?;
        Ok(TriedLetters {
            outcomes,
            next_page_token: None,
        })
    }

    /// Tries letters of a domain again, as many keys as one call has time for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the page is none. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails:
    /// what was tried before stays done.
    pub async fn retry_letters(&self, request: &RetryRequest) -> Result<TriedLetters, Error> {
        self.projection(&request.domain)?;
        check_text("reason", request.reason.as_deref().unwrap_or_default())?;
        let key = request.key.as_deref().map(hash16);
        let (domain, dry_run) = (&request.domain, request.dry_run);
        let asked = PageRequest {
            size: i32::MAX,
            token: request.page_token.clone(),
        };
        let filters = ("retry", domain, key, &request.reason, dry_run);
        let page: Page<(i32, i64)> = Page::of(&asked, &filters)?;
        let which = Which {
            id: None,
            key,
            reason: request.reason.as_deref(),
        };
        let mut lines = self.lines(domain, which, page.after, page.size + 1).await?;
        let mut more = lines.len() > page.size;
        lines.truncate(page.size);
        let (mut outcomes, mut last) = (Vec::new(), None);
        if page.after.is_some() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let until = enough();
        let mut size = ResponseSize::default();
        for of_one_log in lines.chunk_by(|a, b| (a.version, a.log_id) == (b.version, b.log_id)) {
            let mut rest = of_one_log;
            while !rest.is_empty() {
                if last.is_some() && (Instant::now() >= until || size.is_half_full()) {
                    more = true;
                    break;
                }
                if last.is_some() {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                let (together, behind) = rest.split_at(first_together(rest));
                rest = behind;
                for tried in self.try_together(domain, together, dry_run).await? {
                    size.add(&tried)?;
                    outcomes.push(tried);
                }
                last = together.last().map(|line| (line.log_id, line.first_offset));
            }
        }
        let next_page_token = match last {
            Some(last) if more => Some(page.next(&last)?),
            _ => None,
        };
        Ok(TriedLetters {
            outcomes,
            next_page_token,
        })
    }

    /// Takes a letter out, and lets those behind it go on.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the reason is none. NOT_FOUND. LETTER_CLOSED: it is applied or discarded.
    /// DOMAIN_NOT_SERVED. The database fails.
    pub async fn discard_letter(
        &self,
        id: &str,
        reason: &str,
        dry_run: bool,
    ) -> Result<TriedLetters, Error> {
        check_reason(reason)?;
        let letter = self.open_letter(id).await?;
        let projection = self.projection(&letter.domain)?;
        let which = Which {
            id: Some(letter.id),
            ..Which::default()
        };
        let lines = self.lines(&letter.domain, which, None, 1).await?;
        let view = View {
            domain: projection.domain(),
            version: lines.first().ok_or_else(closed)?.version,
        };
        let retrier = &self.0.retrier;
        let retried = retrier
            .discard(projection, &view, letter.id, reason, dry_run, enough())
            .await
            .map_err(refused)?;
        if !dry_run {
            tracing::info!(
                domain = letter.domain,
                topic = letter.topic,
                partition = letter.partition,
                offset = letter.offset,
                "an operator took a dead letter out"
            );
        }
        Ok(TriedLetters {
            outcomes: retried.into_iter().map(TriedLetter::from).collect(),
            next_page_token: None,
        })
    }

    async fn open_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        let letter = self.letter(id).await?;
        match letter.state {
            DeadLetterState::Parked | DeadLetterState::Retrying => Ok(letter),
            DeadLetterState::Applied | DeadLetterState::Discarded => Err(closed()),
        }
    }

    async fn lines(
        &self,
        domain: &str,
        which: Which<'_>,
        after: Option<(i32, i64)>,
        size: usize,
    ) -> Result<Vec<Line>, Error> {
        sqlx::query_file_as!(
            Line,
            "src/operations/sql/retry_scopes.sql",
            domain,
            which.id,
            which.key,
            which.reason,
            after.map(|(log_id, _)| log_id),
            after.map(|(_, offset)| offset),
            size as i64,
        )
        .fetch_all(&self.0.retrier.pool)
        .await
        .map_err(|e| Error::from(e).in_statement("operations/lines"))
    }

    /// Tries lines of one log again.
    async fn try_together(
        &self,
        domain: &str,
        lines: &[Line],
        dry_run: bool,
    ) -> Result<Vec<TriedLetter>, Error> {
        let Some(first) = lines.first() else {
            return Ok(Vec::new());
        };
        let projection = self.projection(domain)?;
        let view = View {
            domain: projection.domain(),
            version: first.version,
        };
        let lines = RetryScope {
            log_id: first.log_id,
            keys: lines.iter().filter_map(|line| line.key_hash).collect(),
            singles: lines.iter().filter_map(|line| line.id).collect(),
        };
        let retrier = &self.0.retrier;
        let retried = retrier.retry(projection, &view, &lines, dry_run).await;
        let retried = retried.map_err(refused)?;
        if !dry_run {
            let through = |r: &&Retried| {
                matches!(
                    r.verdict,
                    Verdict::Applied | Verdict::Duplicate | Verdict::Skipped
                )
            };
            tracing::info!(
                domain,
                tried = retried.len(),
                through = retried.iter().filter(through).count(),
                "an operator had dead letters tried again"
            );
        }
        Ok(retried.into_iter().map(TriedLetter::from).collect())
    }
}

/// Of which lines a letter is looked for; what is absent does not matter.
#[derive(Debug, Default)]
struct Which<'w> {
    id: Option<Uuid>,
    key: Option<Uuid>,
    reason: Option<&'w str>,
}

/// Until when a call that begins now goes on.
fn enough() -> Instant {
    Instant::now() + ENOUGH.min(deadline::left() / 2)
}

/// An id that is none is nobody's.
fn letter_id(id: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(id).map_err(|_| no_such_letter())
}

/// The refusal of a letter that there is not.
pub fn no_such_letter() -> Error {
    Error::new(
        Code::NotFound,
        "There is no such dead letter in a view that is shown. /v1/dead-letters lists them; after a switch they have \
         other ids.",
    )
}

/// The refusal of a letter that nothing is to be done about.
pub fn closed() -> Error {
    Error::new(
        Code::LetterClosed,
        "The dead letter is applied or discarded already: nothing is to be done about it.",
    )
}

fn refused(error: RetryError) -> Error {
    match error {
        RetryError::Gone => closed(),
        RetryError::Database(error) => Error::from(error).in_statement("projector/retry"),
    }
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        let (key, key_base64) = match row.record_key.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(key)) => (Some(key), None),
            Some(Err(bytes)) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        let headers = row.headers.as_ref().and_then(Value::as_array);
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
            // The table allows no other words.
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
            headers: headers.map(|headers| headers.iter().map(header).collect()),
            value: row.value.map(|value| STANDARD.encode(value)),
        }
    }
}

/// A header as it was stored: `[name, base64 of the value or null]`.
fn header(pair: &Value) -> DeadLetterHeader {
    DeadLetterHeader {
        name: pair[0].as_str().unwrap_or_default().to_owned(),
        value: pair[1].as_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_of_what_is_tried_together_fit_into_an_answer() {
        let lines = |counts: &[i64]| -> Vec<Line> {
            let line = |dead_letters: &i64| Line {
                version: 1,
                log_id: 1,
                first_offset: 0,
                key_hash: Some(Uuid::nil()),
                id: None,
                dead_letters: *dead_letters,
            };
            counts.iter().map(line).collect()
        };
        for (counts, together) in [
            (&[1; 300][..], KEYS),
            (&[1; 3], 3),
            (&[DEAD_LETTERS, 1], 1),
            (&[1, DEAD_LETTERS - 1, 1], 2),
            (&[2 * DEAD_LETTERS, 1], 1),
        ] {
            assert_eq!(first_together(&lines(counts)), together, "{counts:?}");
        }
        let mut size = ResponseSize::default();
        let largest = TriedLetter {
            id: Uuid::max(),
            outcome: LetterOutcome::Discarded,
            reason: Some("refused_by_database".into()),
            field: Some("x".repeat(200)),
        };
        for _ in 0..DEAD_LETTERS {
            assert!(!size.is_half_full());
            size.add(&largest).unwrap();
        }
    }
}
