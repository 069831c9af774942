//! Retries and discards of dead letters.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::dead_letters::dead_letter_closed;
use super::handle::{Operations, check_known_reason, check_reason};
use crate::error::{Code, Error, Hint};
use crate::event::hash16;
use crate::projector::View;
use crate::projector::dead_letters::retry::{
    RETRY_PAUSE, Retried, RetryError, RetryScope, Verdict,
};
use crate::query::deadline;
use crate::query::page::{Page, PageRequest, ResponseSize};

/// How many keys and single dead letters are retried together; the retry fences the partition's
/// owner once for them.
const SCOPE_SIZE: usize = 200;
/// How many dead letters are retried together, if they are of several keys: their outcomes are less than half of what an
/// answer can hold.
const SCOPE_DEAD_LETTERS: i64 = 5_000;
/// How long one call goes on retrying, unless half of the caller's remaining time is shorter. The
/// next call continues.
const CALL_BUDGET: Duration = Duration::from_secs(5);
/// Why a retry failed if the record has to be read from Kafka, and Kafka is unavailable.
const KAFKA_UNAVAILABLE: &str = "kafka_unavailable";

/// The outcome of a retry or a discard for one dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterOutcome {
    /// Its event has been applied to the view.
    Applied,
    /// Its event had already been applied from another record.
    Duplicate,
    /// The view does not use its event.
    Skipped,
    /// An operator discarded it, or a later dead letter of its key deletes the user.
    Discarded,
    /// It failed again. With the reason `kafka_unavailable` it was not tried: its record has to be
    /// read from Kafka, which is unavailable.
    Failed,
    /// It still waits behind one that failed.
    Waiting,
}

/// A dead letter that was retried or discarded, or that waits behind one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriedDeadLetter {
    /// The dead letter's id.
    pub id: Uuid,
    /// Its outcome.
    pub outcome: DeadLetterOutcome,
    /// Why it failed again, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The field that is wrong, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The outcomes of a retry or a discard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriedDeadLetters {
    /// One outcome per dead letter.
    pub outcomes: Vec<TriedDeadLetter>,
    /// The token with which the next call continues; absent if none are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

impl From<Retried> for TriedDeadLetter {
    fn from(retried: Retried) -> Self {
        let (outcome, reason, field) = match retried.verdict {
            Verdict::Applied => (DeadLetterOutcome::Applied, None, None),
            Verdict::Duplicate => (DeadLetterOutcome::Duplicate, None, None),
            Verdict::Skipped => (DeadLetterOutcome::Skipped, None, None),
            Verdict::Closed | Verdict::Discarded => (DeadLetterOutcome::Discarded, None, None),
            Verdict::Waiting => (DeadLetterOutcome::Waiting, None, None),
            Verdict::KafkaUnavailable => {
                let reason = KAFKA_UNAVAILABLE.to_owned();
                (DeadLetterOutcome::Failed, Some(reason), None)
            }
            Verdict::Failed { reason, field } => (DeadLetterOutcome::Failed, Some(reason), field),
        };
        Self {
            id: retried.id,
            outcome,
            reason,
            field,
        }
    }
}

/// Which dead letters of a domain to retry.
#[derive(Debug, Clone)]
pub struct RetryRequest {
    /// The domain.
    pub domain: String,
    /// Only those of this Kafka key.
    pub key: Option<Vec<u8>>,
    /// Only keys of which a dead letter has this reason.
    pub reason: Option<String>,
    /// Report the outcomes without changing anything.
    pub dry_run: bool,
    /// The token from the previous call; empty for the first.
    pub page_token: String,
}

/// A row of `sql/retry_scopes.sql`: a key, all dead letters of which are retried in order, or a
/// single dead letter.
struct ScopeItem {
    version: i32,
    log_id: i32,
    first_offset: i64,
    key_hash: Option<Uuid>,
    id: Option<Uuid>,
    /// How many open dead letters are retried with it.
    dead_letters: i64,
}

/// How many of the first items are retried together.
fn first_together(items: &[ScopeItem]) -> usize {
    let mut dead_letters = 0;
    let fitting = items.iter().take(SCOPE_SIZE).take_while(|item| {
        dead_letters += item.dead_letters;
        dead_letters <= SCOPE_DEAD_LETTERS
    });
    fitting.count().clamp(1, items.len().max(1))
}

/// Which keys and single dead letters of a domain to find.
#[derive(Debug)]
enum ScopeFilter<'f> {
    /// The one that this dead letter belongs to.
    DeadLetter(Uuid),
    /// Those with this key and this reason; `None` matches all.
    Matching {
        key: Option<Uuid>,
        reason: Option<&'f str>,
    },
}

impl Operations {
    /// Retries one dead letter, and all others of its key with it.
    ///
    /// # Errors
    /// NOT_FOUND. LETTER_CLOSED: it is applied or discarded. DOMAIN_NOT_SERVED. The database
    /// failed.
    pub async fn retry_dead_letter(
        &self,
        id: &str,
        dry_run: bool,
    ) -> Result<TriedDeadLetters, Error> {
        let dead_letter = self.open_dead_letter(id).await?;
        let domain = &dead_letter.domain;
        let filter = ScopeFilter::DeadLetter(dead_letter.id);
        let items = self.scope_items(domain, &filter, None, 1).await?;
        Ok(TriedDeadLetters {
            outcomes: self.retry_together(domain, &items, dry_run).await?,
            next_page_token: None,
        })
    }

    /// Retries dead letters of a domain, as many keys as one call has time for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the reason is unknown, or the page token is malformed. NOT_FOUND or DOMAIN_NOT_SERVED:
    /// of the domain. The database failed: what was retried before stays done.
    pub async fn retry_dead_letters(
        &self,
        request: &RetryRequest,
    ) -> Result<TriedDeadLetters, Error> {
        self.projection(&request.domain)?;
        check_known_reason(request.reason.as_deref())?;
        let key = request.key.as_deref().map(hash16);
        let (domain, dry_run) = (&request.domain, request.dry_run);
        let page_request = PageRequest {
            size: i32::MAX,
            token: request.page_token.clone(),
        };
        let filters = ("retry", domain, key, &request.reason, dry_run);
        let page: Page<(i32, i64)> = Page::of(&page_request, &filters)?;
        let filter = ScopeFilter::Matching {
            key,
            reason: request.reason.as_deref(),
        };
        let mut items = self
            .scope_items(domain, &filter, page.after, page.limit())
            .await?;
        let mut has_more = page.cut(&mut items).is_some();
        if page.after.is_some() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let until = call_ends();
        let (mut outcomes, mut last) = (Vec::new(), None);
        let mut size = ResponseSize::default();
        for of_one_log in items.chunk_by(|a, b| (a.version, a.log_id) == (b.version, b.log_id)) {
            let mut rest = of_one_log;
            while !rest.is_empty() {
                if last.is_some() && (Instant::now() >= until || size.is_half_full()) {
                    has_more = true;
                    break;
                }
                if last.is_some() {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                let (scope, after) = rest.split_at(first_together(rest));
                rest = after;
                for tried in self.retry_together(domain, scope, dry_run).await? {
                    size.add(&tried)?;
                    outcomes.push(tried);
                }
                last = scope.last().map(|item| (item.log_id, item.first_offset));
            }
        }
        let next_page_token = match last {
            Some(last) if has_more => Some(page.next(&last)?),
            _ => None,
        };
        Ok(TriedDeadLetters {
            outcomes,
            next_page_token,
        })
    }

    /// Discards a dead letter, and retries those that waited behind it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the reason is malformed. NOT_FOUND. LETTER_CLOSED: it is applied or
    /// discarded. DOMAIN_NOT_SERVED. The database failed.
    pub async fn discard_dead_letter(
        &self,
        id: &str,
        reason: &str,
        dry_run: bool,
    ) -> Result<TriedDeadLetters, Error> {
        check_reason(reason)?;
        let dead_letter = self.open_dead_letter(id).await?;
        let projection = self.projection(&dead_letter.domain)?;
        let filter = ScopeFilter::DeadLetter(dead_letter.id);
        let items = self
            .scope_items(&dead_letter.domain, &filter, None, 1)
            .await?;
        let view = View {
            domain: projection.domain(),
            version: items.first().ok_or_else(dead_letter_closed)?.version,
        };
        let retrier = &self.0.retrier;
        let id = dead_letter.id;
        let retried = retrier
            .discard(projection, &view, id, reason, dry_run, call_ends())
            .await
            .map_err(retry_error)?;
        if !dry_run {
            tracing::info!(
                domain = dead_letter.domain,
                topic = dead_letter.topic,
                partition = dead_letter.partition,
                offset = dead_letter.offset,
                "an operator discarded a dead letter"
            );
        }
        Ok(TriedDeadLetters {
            outcomes: retried.into_iter().map(TriedDeadLetter::from).collect(),
            next_page_token: None,
        })
    }

    /// The keys and single dead letters that match, ordered by log and first offset, after the
    /// position `after`.
    async fn scope_items(
        &self,
        domain: &str,
        filter: &ScopeFilter<'_>,
        after: Option<(i32, i64)>,
        limit: i64,
    ) -> Result<Vec<ScopeItem>, Error> {
        let (id, key, reason) = match *filter {
            ScopeFilter::DeadLetter(id) => (Some(id), None, None),
            ScopeFilter::Matching { key, reason } => (None, key, reason),
        };
        sqlx::query_file_as!(
            ScopeItem,
            "src/operations/sql/retry_scopes.sql",
            domain,
            id,
            key,
            reason,
            after.map(|(log_id, _)| log_id),
            after.map(|(_, offset)| offset),
            limit,
        )
        .fetch_all(&self.0.retrier.pool)
        .await
        .map_err(|e| Error::from(e).in_statement("operations/retry_scopes"))
    }

    /// Retries keys and single dead letters of one log.
    async fn retry_together(
        &self,
        domain: &str,
        items: &[ScopeItem],
        dry_run: bool,
    ) -> Result<Vec<TriedDeadLetter>, Error> {
        let Some(first) = items.first() else {
            return Ok(Vec::new());
        };
        let projection = self.projection(domain)?;
        let view = View {
            domain: projection.domain(),
            version: first.version,
        };
        let scope = RetryScope {
            log_id: first.log_id,
            keys: items.iter().filter_map(|item| item.key_hash).collect(),
            singles: items.iter().filter_map(|item| item.id).collect(),
        };
        let retrier = &self.0.retrier;
        let retried = retrier.retry(projection, &view, &scope, dry_run).await;
        let retried = retried.map_err(retry_error)?;
        if !dry_run {
            let succeeded = |retried: &&Retried| {
                matches!(
                    retried.verdict,
                    Verdict::Applied | Verdict::Duplicate | Verdict::Skipped
                )
            };
            tracing::info!(
                domain,
                tried = retried.len(),
                succeeded = retried.iter().filter(succeeded).count(),
                "an operator retried dead letters"
            );
        }
        Ok(retried.into_iter().map(TriedDeadLetter::from).collect())
    }
}

/// When a call that starts now stops starting transactions.
fn call_ends() -> Instant {
    Instant::now() + CALL_BUDGET.min(deadline::left() / 2)
}

fn retry_error(error: RetryError) -> Error {
    match error {
        RetryError::Gone => dead_letter_closed(),
        RetryError::OtherCode => Error::new(
            Code::NewerCode,
            "A newer release has projected the partition. Retry by a gateway of that release.",
        )
        .with_hint(Hint::AcceptOlderCode),
        RetryError::Database(error) => Error::from(error).in_statement("projector/retry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_of_one_scope_fit_into_an_answer() {
        let items = |counts: &[i64]| -> Vec<ScopeItem> {
            let item = |dead_letters: &i64| ScopeItem {
                version: 1,
                log_id: 1,
                first_offset: 0,
                key_hash: Some(Uuid::nil()),
                id: None,
                dead_letters: *dead_letters,
            };
            counts.iter().map(item).collect()
        };
        for (counts, together) in [
            (&[1; 300][..], SCOPE_SIZE),
            (&[1; 3], 3),
            (&[SCOPE_DEAD_LETTERS, 1], 1),
            (&[1, SCOPE_DEAD_LETTERS - 1, 1], 2),
            (&[2 * SCOPE_DEAD_LETTERS, 1], 1),
        ] {
            assert_eq!(first_together(&items(counts)), together, "{counts:?}");
        }
        let mut size = ResponseSize::default();
        let largest = TriedDeadLetter {
            id: Uuid::max(),
            outcome: DeadLetterOutcome::Discarded,
            reason: Some("refused_by_database".into()),
            field: Some("x".repeat(200)),
        };
        for _ in 0..SCOPE_DEAD_LETTERS {
            assert!(!size.is_half_full());
            size.add(&largest).unwrap();
        }
    }
}
