//! Compares the search domain's answers with the reference fold.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use icu_normalizer::DecomposingNormalizer;
use serde_json::{Value, json};
use sightline::proto::search::v1::{SearchUsersRequest, SuggestRequest};

use super::{
    Compared, Depth, Differences, called, called_pages, pages, refused, rows, said, some, written,
};
use crate::app::Clients;
use crate::client::{Grpc, Rest, found_json, suggestions_json, timestamp, with_query};
use crate::reference::{Documents, Folds, Index, Query, normal, words};

const USERS: &str = "/v1/search/users";
const SUGGESTIONS: &str = "/v1/search/suggestions";

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let rest = &clients.rest;
    let index = folds.view::<Documents>().index();
    let (count, further) = match depth {
        Depth::Brief => (4, 1),
        Depth::Thorough => (16, 4),
    };
    let texts = queries(&index, count);
    let everybody = Query::default();
    compare_search(rest, &index, &everybody, 1000, wrong).await;
    for (n, q) in texts.iter().enumerate() {
        let query = Query {
            q: Some(q.clone()),
            ..Query::default()
        };
        compare_search(rest, &index, &query, 1000, wrong).await;
        compare_suggestions(rest, &index, q, [None, Some(1), Some(50)][n % 3], wrong).await;
    }
    // Filters alone, and together with some queries; in small pages, too.
    let filtered = filters(&index);
    let of_some = some(&texts, further).map(|q| Some(q.clone()));
    for q in [None].into_iter().chain(of_some) {
        for filter in &filtered {
            let query = Query {
                q: q.clone(),
                ..filter.clone()
            };
            compare_search(rest, &index, &query, 1000, wrong).await;
            let expected = index.search(&query).map_or(0, |found| found.len());
            for size in [1, 7] {
                if depth == Depth::Thorough && expected < 30 * size {
                    compare_search(rest, &index, &query, size, wrong).await;
                }
            }
        }
    }
    if depth == Depth::Thorough {
        compare_refusals(rest, wrong).await;
        compare_grpc(&clients.grpc, &index, &texts, &filtered, wrong).await;
    }
}

/// Compares some of the queries, and each filter alone.
async fn compare_grpc(
    grpc: &Grpc,
    index: &Index,
    texts: &[String],
    filtered: &[Query],
    wrong: &mut Differences,
) {
    let of_texts = some(texts, 24).map(|q| Query {
        q: Some(q.clone()),
        ..Query::default()
    });
    let mut queries = vec![(Query::default(), 300)];
    queries.extend(of_texts.map(|query| (query, 1000)));
    queries.extend(filtered.iter().map(|query| (query.clone(), 70)));
    for (query, size) in queries {
        // REST shows that the others are refused.
        if let Some(expected) = index.search(&query) {
            let said = call_search(grpc, &query, size).await;
            let how = format!("SearchUsers {query:?}, pages of {size}");
            compare_found(&how, said, expected, wrong);
        }
    }
    for (n, q) in some(texts, 24).enumerate() {
        let limit = [0, 1, 50][n % 3];
        let count = if limit == 0 { 10 } else { limit as usize };
        if let Some(suggestions) = index.suggestions(q, count) {
            let request = SuggestRequest {
                q: q.clone(),
                limit,
            };
            let said = called(grpc.search().suggest(request).await, suggestions_json);
            let expected = json!({"suggestions": suggestions});
            let how = format!("Suggest {q:?} {limit}");
            wrong.compare(Compared::new(how, said, Some(expected)));
        }
    }
}

async fn call_search(grpc: &Grpc, query: &Query, size: i32) -> Vec<Value> {
    let pages = called_pages("users", async |page_token| {
        let request = SearchUsersRequest {
            q: query.q.clone(),
            status: query.statuses.clone(),
            registered_after: query.registered_after.map(timestamp),
            page_size: size,
            page_token,
        };
        called(grpc.search().search_users(request).await, found_json)
    });
    rows(pages.await, "users")
}

async fn compare_search(
    rest: &Rest,
    index: &Index,
    query: &Query,
    size: usize,
    wrong: &mut Differences,
) {
    let after = query.registered_after.map(written);
    let mut filters = vec![
        ("q", query.q.as_deref()),
        ("registeredAfter", after.as_deref()),
    ];
    let statuses = query.statuses.iter();
    filters.extend(statuses.map(|status| ("status", Some(status.as_str()))));
    let Some(expected) = index.search(query) else {
        let path = with_query(USERS, &filters);
        return wrong.compare(refused(rest, path, "q").await);
    };
    let said = pages(rest, USERS, &filters, "users", size).await;
    let how = format!("GET {USERS} {query:?}, pages of {size}");
    compare_found(&how, said, expected, wrong);
}

fn compare_found(how: &str, said: Vec<Value>, expected: Vec<Value>, wrong: &mut Differences) {
    let said: Vec<Value> = said.into_iter().map(in_form).collect();
    let expected: Vec<Value> = expected.into_iter().map(normal).collect();
    wrong.compare_lists(how, said.iter(), expected.iter());
}

/// A document in the normal form, with the score as a fraction.
fn in_form(mut document: Value) -> Value {
    if let Some(score) = document.get("score").and_then(Value::as_f64) {
        document["score"] = json!(score);
    }
    normal(document)
}

async fn compare_suggestions(
    rest: &Rest,
    index: &Index,
    q: &str,
    limit: Option<usize>,
    wrong: &mut Differences,
) {
    let text = limit.map(|limit| limit.to_string());
    let path = with_query(SUGGESTIONS, &[("q", Some(q)), ("limit", text.as_deref())]);
    let compared = match index.suggestions(q, limit.unwrap_or(10)) {
        None => refused(rest, path, "q").await,
        Some(suggestions) => {
            let said = said(&rest.get(&path).await);
            let expected = json!({"suggestions": suggestions});
            Compared::new(format!("GET {path}"), said, Some(expected))
        }
    };
    wrong.compare(compared);
}

async fn compare_refusals(rest: &Rest, wrong: &mut Differences) {
    let eleven = "a b c d e f g h i j k";
    let long = "é".repeat(501);
    for q in [" ", "-.!", "\u{301}", eleven, &long] {
        for path in [USERS, SUGGESTIONS] {
            let path = with_query(path, &[("q", Some(q))]);
            wrong.compare(refused(rest, path, "q").await);
        }
    }
    for limit in ["0", "51", "many"] {
        let path = with_query(SUGGESTIONS, &[("q", Some("a")), ("limit", Some(limit))]);
        wrong.compare(refused(rest, path, "limit").await);
    }
    let path = with_query(USERS, &[("registeredAfter", Some("soon"))]);
    wrong.compare(refused(rest, path, "registeredAfter").await);
}

/// Queries made of `count` of the documents' words, and of some of their fields.
fn queries(index: &Index, count: usize) -> Vec<String> {
    let fields = ["displayName", "firstName", "lastName", "username", "email"];
    let mut texts = BTreeSet::new();
    for document in index.documents() {
        texts.extend(fields.iter().filter_map(|name| document[name].as_str()));
    }
    let texts: Vec<&str> = texts.into_iter().collect();
    let all: BTreeSet<String> = texts.iter().flat_map(|text| words(text)).collect();
    // Long words are rare, and of interest here.
    let (short, long): (Vec<String>, Vec<String>) =
        all.into_iter().partition(|word| word.chars().count() < 8);
    let mut queries: Vec<String> = Vec::new();
    for (n, word) in some(&short, count / 2)
        .chain(some(&long, count / 2))
        .enumerate()
    {
        let characters: Vec<char> = word.chars().collect();
        queries.push(word.clone());
        for length in 1..=5 {
            if length < characters.len() && (n + length).is_multiple_of(2) {
                queries.push(characters[..length].iter().collect());
            }
        }
        queries.extend(mistyped(&characters, n));
        queries.push(format!("nobody{n}xyz"));
    }
    for (n, text) in some(&texts, count).enumerate() {
        let decomposed = DecomposingNormalizer::new_nfd().normalize(text);
        queries.push(match n % 3 {
            0 => text.to_uppercase(),
            1 => decomposed.into_owned(),
            _ => (*text).to_owned(),
        });
    }
    // Two words of one document: the second one cut short.
    let documents: Vec<&Value> = index.documents().collect();
    for document in some(&documents, count) {
        let of = |name: &str| words(document[name].as_str().unwrap_or_default());
        if let (Some(first), Some(second)) = (of("firstName").pop(), of("lastName").pop()) {
            let start: String = second.chars().take(3).collect();
            queries.push(format!("{start}, {first}"));
        }
    }
    queries
}

/// A word with one typing error and with two.
fn mistyped(word: &[char], n: usize) -> Vec<String> {
    let at = n % word.len();
    let once = |word: &[char], how: usize| {
        let mut word = word.to_vec();
        match how % 3 {
            0 => word[at] = 'q',
            1 => word.insert(at, 'q'),
            _ => drop(word.remove(at)),
        }
        word
    };
    let one = once(word, n);
    let mut mistyped = vec![one.iter().collect()];
    if one.len() > at {
        mistyped.push(once(&one, n / 3).iter().collect());
    }
    mistyped.retain(|word: &String| !word.is_empty());
    mistyped
}

/// Each filter alone, and both.
fn filters(index: &Index) -> Vec<Query> {
    let times: BTreeSet<DateTime<Utc>> = index
        .documents()
        .filter_map(|document| document["registeredAt"].as_str()?.parse().ok())
        .collect();
    let times: Vec<DateTime<Utc>> = times.into_iter().collect();
    // A time itself does not pass.
    let after = times.get(times.len() * 4 / 5).copied();
    let by_status = |statuses: &[&str]| Query {
        statuses: statuses.iter().map(|&status| status.into()).collect(),
        ..Query::default()
    };
    vec![
        by_status(&["active"]),
        by_status(&["suspended", "banned", "ACTIVE"]),
        by_status(&["unheard"]),
        Query {
            registered_after: after,
            ..Query::default()
        },
        Query {
            registered_after: after,
            ..by_status(&["active", "odd"])
        },
    ]
}
