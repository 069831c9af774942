//! The search domain's queries, for both surfaces: each checks its arguments and reads one snapshot, with the position that it
//! reflects.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgTransaction;
use uuid::Uuid;

use super::model::{FoundUser, FoundUsers, Suggestion, Suggestions};
use super::similar::{Pieces, end_of_prefix, nearest};
use super::words::{MatchClass, QueryWords};
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::query::page::{Page, PageRequest, ResponseSize};
use crate::query::{Answer, Reads};

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
        let mut snapshot = reads.snapshot("search").await?;
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
            let documents = self
                .find(&mut snapshot, *class, &similar, after.take(), left)
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
                false,
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
        after: Option<String>,
        limit: i64,
    ) -> Result<FoundDocuments, Error> {
        let (indexed, others) = match self.words {
            Some(words) => parts(snapshot, words, class, similar).await?,
            None => (None, None),
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
            indexed,
            others,
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

/// The part of a query that an index finds users by, and the part that those are then compared with.
async fn parts(
    snapshot: &mut PgTransaction<'static>,
    words: &QueryWords,
    class: MatchClass,
    similar: &[Vec<String>],
) -> Result<(Option<String>, Option<String>), Error> {
    let mut terms = words.terms(class, similar);
    // The index of words finds the users that have several words at the cost of the rarest one, but it lists all words of a prefix.
    if class == MatchClass::Exact || terms.len() == 1 {
        return Ok((all_of(&terms), None));
    }
    let numbered = (1..).zip(similar);
    let numbered =
        numbered.flat_map(|(number, words)| words.iter().map(move |word| (number, word)));
    let (numbers, similar): (Vec<i32>, Vec<&str>) = numbered
        .map(|(number, word)| (number, word.as_str()))
        .unzip();
    let first: Vec<&str> = words.iter().collect();
    let last: Vec<String> = words.iter().map(end_of_prefix).collect();
    let counts = sqlx::query_file_scalar!(
        "src/domains/search/sql/count_documents.sql",
        &first as _,
        &last,
        &numbers,
        &similar as _,
    )
    .fetch_one(&mut **snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("search/count_documents"))?;
    let counts = counts.iter().enumerate();
    let rarest = counts.min_by_key(|(_, documents)| **documents);
    let rarest = terms.remove(rarest.map_or(0, |(index, _)| index));
    Ok((Some(rarest), all_of(&terms)))
}

/// The `tsquery` of several that must all match.
fn all_of(terms: &[String]) -> Option<String> {
    (!terms.is_empty()).then(|| terms.join(" & "))
}
