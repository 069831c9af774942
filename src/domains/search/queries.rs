//! The search domain's queries, for both surfaces: each checks its arguments and reads one snapshot, with the position that it
//! reflects.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgTransaction};
use uuid::Uuid;

use super::model::{FoundUser, FoundUsers, Suggestion, Suggestions};
use super::similar::{Pieces, end_of_prefix, nearest};
use super::state::UserDocumentState;
use super::words::{MatchClass, QueryWords};
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::query::lookups::Lookup;
use crate::query::page::{Page, PageRequest, ResponseSize};
use crate::query::{Answer, Reads, Subject, users};

/// The most statuses of a search.
const MAX_STATUSES: usize = 100;
/// The most suggestions, and how many there are if the caller names no number.
const MAX_SUGGESTIONS: i32 = 50;
const DEFAULT_SUGGESTIONS: i32 = 10;

/// Which users to find.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SearchFilter {
    /// Words of the users' names, usernames and emails; all must match. `None` for any user.
    pub q: Option<String>,
    /// Only users with one of these statuses; empty for any.
    pub status: Vec<String>,
    /// Only users who registered after this instant.
    pub registered_after: Option<DateTime<Utc>>,
}

/// A page of the users that match.
///
/// # Errors
/// INVALID_ARGUMENT if a filter or the page is invalid; VIEW_NOT_READY if nothing is found while
/// the view is not built; the database's errors.
pub async fn search_users(
    reads: &Reads,
    filter: &SearchFilter,
    page: &PageRequest,
) -> Result<Answer<FoundUsers>, Error> {
    let words = filter.q.as_deref().map(|q| QueryWords::of("q", q));
    let words = words.transpose()?;
    if filter.status.iter().any(String::is_empty) {
        return Err(Error::empty("status"));
    }
    if filter.status.len() > MAX_STATUSES {
        let problem = format!("must be given at most {MAX_STATUSES} times");
        return Err(Error::invalid("status", problem));
    }
    let status_keys = filter.status.iter();
    let status_keys = status_keys.map(|status| hash16(status.as_bytes()));
    let page: Page<(MatchClass, String)> = Page::of(page, &("search/users", filter))?;
    if page.after.as_ref().is_some_and(|(_, id)| id.contains('\0')) {
        let problem = "is not a token of this list";
        return Err(Error::invalid("pageToken", problem));
    }
    let search = Search {
        words: words.as_ref(),
        // Without words all users match alike.
        classes: match words {
            Some(_) => &MatchClass::ALL,
            None => &[MatchClass::Exact],
        },
        status_keys: (!filter.status.is_empty()).then(|| status_keys.collect()),
        registered_after: filter.registered_after,
        limit: page.limit(),
    };
    let Answer { body, position } = search.run(reads, page.after.clone()).await?;
    if body.is_empty() && page.after.is_none() {
        position.check_ready()?;
    }
    let users = body.into_iter().map(|(class, mut user)| {
        user.score = words.as_ref().map(|_| class.score());
        let after = (class, user.user_id.clone());
        (user, after)
    });
    let (users, next_page_token) = page.fill(users)?;
    Ok(Answer {
        body: FoundUsers {
            users,
            next_page_token,
        },
        position,
    })
}

/// Texts of users that match a query exactly or as prefix, one of each user. `limit` is 0 for the default.
///
/// # Errors
/// INVALID_ARGUMENT if the query or the limit is invalid; VIEW_NOT_READY if there is nothing to suggest while the view is not
/// built; the database's errors.
pub async fn suggest(reads: &Reads, q: &str, limit: i32) -> Result<Answer<Suggestions>, Error> {
    let words = QueryWords::of("q", q)?;
    let limit = match limit {
        0 => DEFAULT_SUGGESTIONS,
        1..=MAX_SUGGESTIONS => limit,
        _ => {
            let problem = format!("must be a whole number from 1 to {MAX_SUGGESTIONS}");
            return Err(Error::invalid("limit", problem));
        }
    };
    let search = Search {
        words: Some(&words),
        classes: &[MatchClass::Exact, MatchClass::Prefix],
        status_keys: None,
        registered_after: None,
        limit: limit.into(),
    };
    let Answer { body, position } = search.run(reads, None).await?;
    if body.is_empty() {
        position.check_ready()?;
    }
    let mut size = ResponseSize::default();
    let mut suggestions = Vec::new();
    for (_, user) in body {
        let Some((field, text)) = user.suggestion(&words) else {
            continue;
        };
        let suggestion = Suggestion {
            text,
            field,
            user_id: user.user_id,
        };
        if !size.add(&suggestion)? {
            break;
        }
        suggestions.push(suggestion);
    }
    Ok(Answer {
        body: Suggestions { suggestions },
        position,
    })
}

/// Users by their ids.
static USERS: Lookup = users::lookup("search", "search/find_users");

/// What the view holds of a user, in a snapshot: the document that searches find.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let Answer { body, position } = reads.find_in(snapshot, &USERS, user_id).await?;
    let state = body.map(|state| db::of_document::<UserDocumentState>(&state, "users"));
    let body = state.transpose()?.and_then(|state| state.user);
    Answer { body, position }.into_json()
}

/// A search for the first users in the order of class and user id.
struct Search<'w> {
    words: Option<&'w QueryWords>,
    /// The classes to find, best first.
    classes: &'static [MatchClass],
    status_keys: Option<Vec<Uuid>>,
    registered_after: Option<DateTime<Utc>>,
    limit: i64,
}

/// The users of one class, and the positions that they reflect.
struct FoundDocuments {
    documents: Vec<String>,
    ready: bool,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl Search<'_> {
    /// Finds the users after a class and a user id. Worse classes are searched only while better ones leave room.
    async fn run(
        &self,
        reads: &Reads,
        after: Option<(MatchClass, String)>,
    ) -> Result<Answer<Vec<(MatchClass, FoundUser)>>, Error> {
        let (first, mut after) = match after {
            Some((class, user_id)) => (class, Some(user_id)),
            None => (MatchClass::Exact, None),
        };
        let mut snapshot = reads.snapshot(&["search"]).await?;
        let mut counts = match self.words {
            Some(words) => Some(count_documents(&mut snapshot, words).await?),
            None => None,
        };
        let mut found = Vec::new();
        let mut reflected = None;
        for class in self.classes.iter().filter(|class| **class >= first) {
            let left = self.limit - found.len() as i64;
            if left <= 0 {
                break;
            }
            let similar = match (class, self.words) {
                (MatchClass::Fuzzy, Some(words)) => find_similar(&mut snapshot, words).await?,
                _ => Vec::new(),
            };
            if *class == MatchClass::Fuzzy
                && reflected.is_some()
                && similar.iter().all(Vec::is_empty)
            {
                break;
            }
            if let (false, Some(counts)) = (similar.is_empty(), &mut counts) {
                counts.similar = count_similar(&mut snapshot, &similar).await?;
            }
            let documents = self
                .find(
                    &mut snapshot,
                    *class,
                    &similar,
                    counts.as_ref(),
                    after.take(),
                    left,
                )
                .await?;
            for document in &documents.documents {
                found.push((*class, db::of_document(document, "search_documents")?));
            }
            reflected.get_or_insert(documents);
        }
        // Nothing was written: what a COMMIT answers does not matter to the reader.
        drop(snapshot);
        let Some(reflected) = reflected else {
            return Err(Error::internal("a search of no class"));
        };
        let position = reads
            .position(
                "search",
                &reflected.logs,
                &reflected.offsets,
                reflected.ready,
                Subject::Many,
            )
            .await?;
        Ok(Answer {
            body: found,
            position,
        })
    }

    async fn find(
        &self,
        snapshot: &mut PgTransaction<'static>,
        class: MatchClass,
        similar: &[Vec<String>],
        counts: Option<&DocumentCounts>,
        after: Option<String>,
        limit: i64,
    ) -> Result<FoundDocuments, Error> {
        let is_filtered = self.status_keys.is_some() || self.registered_after.is_some();
        let plan = match (self.words, counts) {
            (Some(words), Some(counts)) => Plan::of(
                class,
                words.terms(class, similar),
                counts,
                is_filtered,
                limit,
            ),
            _ => Plan::default(),
        };
        let better = match class {
            MatchClass::Exact => None,
            MatchClass::Prefix => Some(MatchClass::Exact),
            MatchClass::Fuzzy => Some(MatchClass::Prefix),
        };
        let better = self.words.zip(better);
        sqlx::query_file_as!(
            FoundDocuments,
            "src/domains/search/sql/find_documents.sql",
            plan.indexed,
            plan.others,
            better.and_then(|(words, better)| all_of(&words.terms(better, &[]))),
            self.status_keys.as_deref(),
            self.registered_after,
            after,
            limit,
        )
        .fetch_one(&mut **snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("search/find_documents"))
    }
}

/// The words of users that differ by few edits, for each word of a query.
async fn find_similar(
    snapshot: &mut PgTransaction<'static>,
    words: &QueryWords,
) -> Result<Vec<Vec<String>>, Error> {
    let pieces = Pieces::of(words.iter());
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!(
        "src/domains/search/sql/find_words.sql",
        &pieces.beginnings.numbers,
        &pieces.beginnings.lengths,
        &pieces.beginnings.first,
        &pieces.beginnings.last,
        &pieces.endings.numbers,
        &pieces.endings.lengths,
        &pieces.endings.first,
        &pieces.endings.last,
        &pieces.middles.numbers,
        &pieces.middles.lengths,
        &pieces.middles.pieces,
    )
    .fetch_all(&mut **snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("search/find_words"))?;
    let similar = (0..).zip(words.iter()).map(|(number, word)| {
        let candidates = rows.iter().filter(|row| row.number == number);
        nearest(word, candidates.flat_map(|row| row.words.split(' ')))
    });
    Ok(similar.collect())
}

/// About how many documents each word of a query finds.
struct DocumentCounts {
    /// All documents.
    all: f64,
    exact: Vec<f64>,
    /// Infinite for a very frequent prefix.
    prefix: Vec<f64>,
    /// By similar words; set once those are known.
    similar: Vec<f64>,
}

impl DocumentCounts {
    /// By the n-th word in a class.
    fn of(&self, class: MatchClass, index: usize) -> f64 {
        let count = |counts: &[f64]| counts.get(index).copied().unwrap_or_default();
        match class {
            MatchClass::Exact => count(&self.exact),
            MatchClass::Prefix => count(&self.prefix),
            MatchClass::Fuzzy => count(&self.prefix) + count(&self.similar),
        }
    }
}

/// How Postgres reads the users that match a query.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// What the index of words finds users by; `None` if users are read in the order of their ids.
    pub indexed: Option<String>,
    /// What those users are compared with.
    pub others: Option<String>,
}

/// So many documents there are if Postgres has not counted them yet: the error is small where there are few.
const UNCOUNTED: f64 = 1_000_000.0;
/// What it takes to fetch a user that the index of words has found, in users that are read from the index by id alone. Measured.
const COST_OF_FETCH: f64 = 10.0;
/// The share of documents that match a very frequent prefix, or pass other filters, as far as is known.
const SUPPOSED_SHARE: f64 = 0.05;

impl Plan {
    fn of(
        class: MatchClass,
        mut terms: Vec<String>,
        counts: &DocumentCounts,
        is_filtered: bool,
        limit: i64,
    ) -> Self {
        let all = if counts.all > 0.0 {
            counts.all
        } else {
            UNCOUNTED
        };
        let counted = (0..terms.len()).map(|index| match counts.of(class, index) {
            count if count.is_infinite() => all * SUPPOSED_SHARE,
            count => count.min(all),
        });
        let counted: Vec<f64> = counted.collect();
        let matching = counted.iter().fold(all, |left, count| left * count / all);
        let passing = if is_filtered {
            matching * SUPPOSED_SHARE
        } else {
            matching
        };
        let walked = all.min(limit as f64 * all / passing.max(f64::MIN_POSITIVE));
        let rarest = counted.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        let (index, documents) = rarest.map_or((0, 0.0), |(index, count)| (index, *count));
        // The index finds the users that have several words at the cost of the rarest one. Of a prefix it lists all words.
        let is_exact = class == MatchClass::Exact;
        let fetched = if is_exact {
            matching + documents / COST_OF_FETCH
        } else {
            documents
        };
        if fetched * COST_OF_FETCH > walked {
            return Self {
                indexed: None,
                others: all_of(&terms),
            };
        }
        if is_exact {
            return Self {
                indexed: all_of(&terms),
                others: None,
            };
        }
        let rarest = terms.remove(index);
        Self {
            indexed: Some(rarest),
            others: all_of(&terms),
        }
    }
}

async fn count_documents(
    snapshot: &mut PgTransaction<'static>,
    words: &QueryWords,
) -> Result<DocumentCounts, Error> {
    let first: Vec<&str> = words.iter().collect();
    let last: Vec<String> = words.iter().map(end_of_prefix).collect();
    let row = sqlx::query_file!(
        "src/domains/search/sql/count_documents.sql",
        &first as _,
        &last
    )
    .fetch_one(&mut **snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("search/count_documents"))?;
    Ok(DocumentCounts {
        all: row.all,
        exact: row.exact,
        prefix: row.prefix,
        similar: Vec::new(),
    })
}

/// In how many documents the similar words of each word of a query are.
async fn count_similar(
    snapshot: &mut PgTransaction<'static>,
    similar: &[Vec<String>],
) -> Result<Vec<f64>, Error> {
    let numbered = (0..).zip(similar);
    let numbered =
        numbered.flat_map(|(number, words)| words.iter().map(move |word| (number, word)));
    let (numbers, words): (Vec<i32>, Vec<&str>) = numbered
        .map(|(number, word)| (number, word.as_str()))
        .unzip();
    let rows = sqlx::query_file!(
        "src/domains/search/sql/count_similar.sql",
        &numbers,
        &words as _
    )
    .fetch_all(&mut **snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("search/count_similar"))?;
    let mut counts = vec![0.0; similar.len()];
    for row in rows {
        if let Some(count) = counts.get_mut(row.number.unsigned_abs() as usize) {
            *count = row.documents;
        }
    }
    Ok(counts)
}

/// The `tsquery` of several that must all match.
fn all_of(terms: &[String]) -> Option<String> {
    (!terms.is_empty()).then(|| terms.join(" & "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_words_finds_what_is_rare() {
        let plan = |class, counts: &[f64], is_filtered| {
            let counts = DocumentCounts {
                all: 1_000_000.0,
                exact: counts.to_vec(),
                prefix: counts.to_vec(),
                similar: Vec::new(),
            };
            let terms = (0..counts.exact.len()).map(|n| n.to_string()).collect();
            let plan = Plan::of(class, terms, &counts, is_filtered, 51);
            (plan.indexed, plan.others)
        };
        let text = |text: &str| Some(text.to_owned());
        for (class, counts, expected) in [
            (MatchClass::Exact, &[0.0][..], (text("0"), None)),
            (MatchClass::Exact, &[1_000.0], (text("0"), None)),
            (MatchClass::Exact, &[300_000.0], (None, text("0"))),
            (
                MatchClass::Exact,
                &[6_000.0, 6_000.0],
                (text("0 & 1"), None),
            ),
            (
                MatchClass::Exact,
                &[300_000.0, 400_000.0],
                (None, text("0 & 1")),
            ),
            (MatchClass::Prefix, &[0.0], (text("0"), None)),
            (MatchClass::Prefix, &[5_000.0], (None, text("0"))),
            (
                MatchClass::Prefix,
                &[300_000.0, 3.0, 9.0],
                (text("1"), text("0 & 2")),
            ),
            (
                MatchClass::Prefix,
                &[6_000.0, 6_000.0],
                (text("0"), text("1")),
            ),
            (
                MatchClass::Fuzzy,
                &[6_000.0, 300_000.0],
                (None, text("0 & 1")),
            ),
        ] {
            assert_eq!(plan(class, counts, false), expected, "{class:?} {counts:?}");
        }
        // A filter may leave few of the users, and an index by status may find those: Postgres knows.
        for (counts, expected) in [
            (&[6_000.0][..], (text("0"), None)),
            (&[300_000.0], (None, text("0"))),
            (&[f64::INFINITY, 3_000.0], (text("1"), text("0"))),
        ] {
            assert_eq!(
                plan(MatchClass::Prefix, counts, true),
                expected,
                "{counts:?}"
            );
        }
    }
}
