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
use super::words::{KnownWord, MatchClass, QueryWords, Term};
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::query::lookups::Lookup;
use crate::query::page::{Page, PageRequest, ResponseSize};
use crate::query::{Answer, Reads, Subject, users};

/// The most statuses of a search.
const MAX_STATUSES: usize = 100;
/// The most words of a length that are compared with a word of a query because they share a piece with it. Among the names of a
/// million people fewer share any piece with one (`docs/performance.md`).
const MOST_CANDIDATES: i64 = 10_000;
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
        let mut known = match self.words {
            Some(words) => know(&mut snapshot, words).await?,
            None => Known::default(),
        };
        let mut found = Vec::new();
        let mut reflected = None;
        for class in self.classes.iter().filter(|class| **class >= first) {
            let left = self.limit - found.len() as i64;
            if left <= 0 {
                break;
            }
            if let (MatchClass::Fuzzy, Some(words)) = (class, self.words) {
                find_similar(&mut snapshot, words, &mut known).await?;
            }
            // The last class is searched in any case where none was: the statement also reads the positions.
            let is_needed = Some(class) == self.classes.last() && reflected.is_none();
            let after = after.take();
            if known.finds_nothing_more(*class) && !is_needed {
                continue;
            }
            let find = self.find(&mut snapshot, *class, &known, after, left);
            let documents = find.await?;
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
        known: &Known,
        after: Option<String>,
        limit: i64,
    ) -> Result<FoundDocuments, Error> {
        let is_filtered = self.status_keys.is_some() || self.registered_after.is_some();
        let terms = |class| self.words.map(|words| words.terms(class, &known.words));
        let plan = match terms(class) {
            Some(terms) => Plan::of(terms, known.documents, is_filtered, limit),
            None => Plan::default(),
        };
        let better = match class {
            MatchClass::Exact => None,
            MatchClass::Prefix => terms(MatchClass::Exact),
            MatchClass::Fuzzy => terms(MatchClass::Prefix),
        };
        sqlx::query_file_as!(
            FoundDocuments,
            "src/domains/search/sql/find_documents.sql",
            plan.first,
            plan.second,
            plan.others,
            better.and_then(|better| all_of(&better)),
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

/// What a search knows before it looks for documents.
#[derive(Default)]
struct Known {
    /// About how many documents there are; 0 if Postgres has not counted them yet.
    documents: f64,
    /// Of each word of the query.
    words: Vec<KnownWord>,
}

impl Known {
    /// Whether a search of a class can't find a user whom no better class has found: the counts of words are estimates, but
    /// a word that no document has is not counted.
    fn finds_nothing_more(&self, class: MatchClass) -> bool {
        let any_has_none = |documents: fn(&KnownWord) -> f64| {
            let mut words = self.words.iter();
            words.any(|word| documents(word) == 0.0)
        };
        match class {
            MatchClass::Exact => any_has_none(|word| word.exact),
            MatchClass::Prefix => any_has_none(|word| word.prefix),
            MatchClass::Fuzzy => {
                self.words.iter().all(|word| word.similar.is_empty())
                    || any_has_none(|word| word.prefix + word.similar_documents)
            }
        }
    }
}

/// What is known of a query's words, but for similar words.
async fn know(snapshot: &mut PgTransaction<'static>, words: &QueryWords) -> Result<Known, Error> {
    let first: Vec<&str> = words.iter().collect();
    let last: Vec<String> = words.iter().map(end_of_prefix).collect();
    plan(snapshot, Plans::Once).await?;
    let row = sqlx::query_file!(
        "src/domains/search/sql/count_documents.sql",
        &first as _,
        &last,
        MOST_LONGER
    )
    .fetch_one(&mut **snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("search/count_documents"))?;
    plan(snapshot, Plans::ForValues).await?;
    let counts = row.exact.into_iter().zip(row.prefix).zip(row.words);
    let words = counts.map(|((exact, prefix), longer)| KnownWord {
        exact,
        prefix,
        longer: longer.map(|words| words.split_terminator(' ').map(str::to_owned).collect()),
        ..KnownWord::default()
    });
    Ok(Known {
        documents: row.all,
        words: words.collect(),
    })
}

/// Finds the words of users that differ by few edits, for each word of a query, and in how many documents they are.
async fn find_similar(
    snapshot: &mut PgTransaction<'static>,
    words: &QueryWords,
    known: &mut Known,
) -> Result<(), Error> {
    let pieces = Pieces::of(words.iter());
    if pieces.is_empty() {
        return Ok(());
    }
    plan(snapshot, Plans::Once).await?;
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
        MOST_CANDIDATES,
    )
    .fetch_all(&mut **snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("search/find_words"))?;
    let of_query: Vec<String> = words.iter().map(str::to_owned).collect();
    // Tens of thousands of comparisons, on a thread that serves no calls.
    let found = tokio::task::spawn_blocking(move || {
        let nearest_of = |(number, word): (i32, String)| {
            let candidates = rows.iter().filter(|row| row.number == number);
            nearest(&word, candidates.flat_map(|row| row.words.split(' ')))
        };
        (0..).zip(of_query).map(nearest_of).collect::<Vec<_>>()
    });
    let found = found
        .await
        .map_err(|_| Error::internal("a comparison of words panicked"))?;
    let (mut numbers, mut similar) = (Vec::new(), Vec::new());
    for (number, (found, known)) in (0..).zip(found.into_iter().zip(&mut known.words)) {
        known.similar = found;
        numbers.extend(known.similar.iter().map(|_| number));
        similar.extend(known.similar.iter().map(String::as_str));
    }
    if !similar.is_empty() {
        let rows = sqlx::query_file!(
            "src/domains/search/sql/count_similar.sql",
            &numbers,
            &similar as _
        )
        .fetch_all(&mut **snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("search/count_similar"))?;
        for row in rows {
            if let Some(word) = known.words.get_mut(row.number.unsigned_abs() as usize) {
                word.similar_documents = row.documents;
            }
        }
    }
    plan(snapshot, Plans::ForValues).await
}

/// When Postgres plans a statement.
#[derive(Clone, Copy)]
enum Plans {
    /// Once for each connection: to plan a look-up of words takes longer than to run it.
    Once,
    /// Each time, for its values.
    ForValues,
}

/// Says how the next statements of a snapshot are planned.
async fn plan(snapshot: &mut PgTransaction<'static>, plans: Plans) -> Result<(), Error> {
    let set = match plans {
        Plans::Once => "SET LOCAL plan_cache_mode = force_generic_plan",
        Plans::ForValues => "SET LOCAL plan_cache_mode = force_custom_plan",
    };
    sqlx::raw_sql(set).execute(&mut **snapshot).await?;
    Ok(())
}

/// How Postgres reads the users that match a query.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// What the index of words finds users by; `None` if users are read in the order of their ids.
    pub first: Option<String>,
    /// What it finds them by as well.
    pub second: Option<String>,
    /// What users are compared with.
    pub others: Option<String>,
}

/// The index of words looks for so many words instead of their common beginning.
const MOST_LONGER: i64 = 100;
/// So many documents there are if Postgres has not counted them yet: the error is small where there are few.
const UNCOUNTED: f64 = 1_000_000.0;
/// The share of documents that match a very frequent prefix, or pass other filters, as far as is known.
const SUPPOSED_SHARE: f64 = 0.05;

// What it takes, measured in users that are read from the index by id and compared with one word (0.3 µs).
/// To compare such a user with a further alternative.
const COST_OF_ALTERNATIVE: f64 = 0.15;
/// To find a user in the index of words.
const COST_OF_ENTRY: f64 = 2.0;
/// To fetch it.
const COST_OF_FETCH: f64 = 8.0;

impl Plan {
    fn of(mut terms: Vec<Term>, documents: f64, is_filtered: bool, limit: i64) -> Self {
        let all = if documents > 0.0 {
            documents
        } else {
            UNCOUNTED
        };
        for term in &mut terms {
            term.documents = match term.documents {
                documents if documents.is_infinite() => all * SUPPOSED_SHARE,
                documents => documents.min(all),
            };
        }
        // The rarest first, but by the index of words two only where that knows all words of both: to collect all users of a
        // prefix takes it as long as to fetch many.
        terms.sort_by(|a, b| a.documents.total_cmp(&b.documents));
        let matching = terms
            .iter()
            .fold(all, |left, term| left * term.documents / all);
        let is_known = |index: usize| terms[index].words.is_some();
        let second = (1..terms.len()).find(|index| is_known(0) && is_known(*index));
        let rarest = terms.first().map_or(0.0, |term| term.documents);
        let by_one = rarest * (COST_OF_ENTRY + COST_OF_FETCH);
        let by_two = second.map_or(f64::INFINITY, |second| {
            rarest * (2.0 * COST_OF_ENTRY + terms[second].documents / all * COST_OF_FETCH)
        });

        let passing = if is_filtered {
            matching * SUPPOSED_SHARE
        } else {
            matching
        };
        let walked = all.min(limit as f64 * all / passing.max(f64::MIN_POSITIVE));
        // Users are compared with the cheapest term first, and few of them with the next.
        let cheapest = terms
            .iter()
            .map(|term| term.alternatives)
            .min()
            .unwrap_or(1);
        let further = cheapest.saturating_sub(1) as f64;
        let by_id = walked * (1.0 + further * COST_OF_ALTERNATIVE);

        let mut plan = Self::default();
        if by_one.min(by_two) <= by_id {
            if let Some(second) = second.filter(|_| by_two < by_one) {
                plan.second = terms.remove(second).words;
            }
            let first = terms.remove(0);
            plan.first = first.words.or(Some(first.filter));
        }
        terms.sort_by_key(|term| term.alternatives);
        plan.others = all_of(&terms);
        plan
    }
}

/// The `tsquery` of several that must all match.
fn all_of(terms: &[Term]) -> Option<String> {
    let filters: Vec<&str> = terms.iter().map(|term| term.filter.as_str()).collect();
    (!filters.is_empty()).then(|| filters.join(" & "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms named by their numbers: of so many documents each, and whether all their words are known.
    fn plan(terms: &[(f64, bool)], alternatives: usize, is_filtered: bool) -> [Option<String>; 3] {
        let terms = terms
            .iter()
            .enumerate()
            .map(|(number, (documents, is_known))| Term {
                filter: number.to_string(),
                words: is_known.then(|| number.to_string()),
                alternatives,
                documents: *documents,
            });
        let plan = Plan::of(terms.collect(), 1_000_000.0, is_filtered, 51);
        [plan.first, plan.second, plan.others]
    }

    #[test]
    fn the_index_of_words_finds_what_is_rare() {
        let known = |documents| (documents, true);
        let prefix = |documents| (documents, false);
        for (terms, alternatives, expected) in [
            (&[known(0.0)][..], 1, ["0", "", ""]),
            (&[known(1_000.0)], 1, ["0", "", ""]),
            (&[prefix(1_000.0)], 1, ["0", "", ""]),
            (&[known(5_000.0)], 1, ["", "", "0"]),
            (&[prefix(5_000.0)], 1, ["", "", "0"]),
            // To compare each user with many words takes longer.
            (&[known(5_000.0)], 50, ["0", "", ""]),
            (&[known(6_000.0), known(20_000.0)], 1, ["0", "1", ""]),
            (&[known(20_000.0), known(6_000.0)], 1, ["1", "0", ""]),
            (&[known(20_000.0), prefix(90_000.0)], 1, ["", "", "0 & 1"]),
            (&[known(300_000.0), known(400_000.0)], 1, ["", "", "0 & 1"]),
            // Few users to fetch are few, whatever else they are compared with.
            (&[known(3.0), prefix(300_000.0)], 1, ["0", "", "1"]),
            (
                &[prefix(300_000.0), known(900.0), known(800.0)],
                1,
                ["2", "1", "0"],
            ),
        ] {
            let plan = plan(terms, alternatives, false).map(Option::unwrap_or_default);
            assert_eq!(plan, expected, "{terms:?}, {alternatives} alternatives");
        }
        // A filter may leave few of the users, and an index by status may find those: Postgres knows.
        for (terms, expected) in [
            (&[known(6_000.0)][..], ["0", "", ""]),
            (&[known(300_000.0)], ["", "", "0"]),
            (&[prefix(f64::INFINITY), known(3_000.0)], ["1", "", "0"]),
        ] {
            let plan = plan(terms, 1, true).map(Option::unwrap_or_default);
            assert_eq!(plan, expected, "{terms:?}");
        }
    }
}
