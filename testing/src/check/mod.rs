//! Compares the program with the reference fold: answers over both surfaces, books and positions.

pub mod analytics;
pub mod audit;
pub mod fulfillment;
pub mod notification;
pub mod order;
pub mod personalization;
mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use futures_util::future::LocalBoxFuture;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt;

use super::app::{Clients, LONG};
use super::broker::Record;
use super::client::{Answer, Rest, with_query};
use super::hostile_log::MAX_VALUE_BYTES;
use super::reference::{Folds, normal};
use super::wait_until;

/// The log end offset of each partition.
pub type Ends = BTreeMap<i32, i64>;
/// What `/v1/consistency` says of each domain's partitions, by number.
pub type Lag = BTreeMap<String, BTreeMap<i32, Value>>;

/// Compares a domain's answers.
type Compare =
    for<'a> fn(&'a Clients, &'a Folds, Depth, &'a mut Differences) -> LocalBoxFuture<'a, ()>;

/// How each domain's answers are compared.
const COMPARES: [(&str, Compare); 7] = [
    ("order", |c, folds, depth, wrong| {
        Box::pin(order::compare(c, folds, depth, wrong))
    }),
    ("fulfillment", |c, folds, depth, wrong| {
        Box::pin(fulfillment::compare(c, folds, depth, wrong))
    }),
    ("search", |c, folds, depth, wrong| {
        Box::pin(search::compare(c, folds, depth, wrong))
    }),
    ("personalization", |c, folds, depth, wrong| {
        Box::pin(personalization::compare(c, folds, depth, wrong))
    }),
    ("analytics", |c, folds, depth, wrong| {
        Box::pin(analytics::compare(c, folds, depth, wrong))
    }),
    ("notification", |c, folds, depth, wrong| {
        Box::pin(notification::compare(c, folds, depth, wrong))
    }),
    ("audit", |c, folds, depth, wrong| {
        Box::pin(audit::compare(c, folds, depth, wrong))
    }),
];

/// How many requests run at once: as many as a gateway under test has connections for reads, because one that waits for a
/// connection for three seconds is refused, which happens on a machine whose disk is busy.
const AT_ONCE: usize = 4;

/// The reference fold of a log, and the log end offset of each partition.
pub fn folded(log: &[Record], partitions: i32) -> (Folds, Ends) {
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    folds.take_all(log);
    let ends = (0..partitions)
        .map(|partition| (partition, folds.read(partition)))
        .collect();
    (folds, ends)
}

/// Waits until every domain that is served has reached these offsets and reports `caught_up`. Returns what
/// it says of its partitions.
pub async fn caught_up(rest: &Rest, ends: &Ends) -> Lag {
    caught_up_within(LONG, rest, ends).await
}

/// The same, with a deadline other than [`LONG`].
pub async fn caught_up_within(deadline: Duration, rest: &Rest, ends: &Ends) -> Lag {
    wait_until(deadline, "every domain is caught up", async || {
        let answer = rest.try_get("/v1/consistency").await?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        let mut lag = Lag::new();
        for domain in answer.json()["domains"].as_array().into_iter().flatten() {
            let partitions = partitions(domain);
            let reached = ends.iter().all(|(partition, end)| {
                partitions
                    .get(partition)
                    .is_some_and(|p| p["position"] == *end && p["endOffset"] == *end)
            });
            if !reached || domain["state"] != "caught_up" || partitions.len() != ends.len() {
                return Err(domain.to_string());
            }
            let name = domain["domain"].as_str().expect("a name");
            lag.insert(name.to_owned(), partitions);
        }
        assert!(!lag.is_empty(), "no domain: {}", answer.text());
        Ok(lag)
    })
    .await
}

/// The partitions in a domain's part of `/v1/consistency`, by number.
pub fn partitions(domain: &Value) -> BTreeMap<i32, Value> {
    let partitions = domain["partitions"].as_array().cloned().unwrap_or_default();
    partitions
        .into_iter()
        .map(|p| (p["partition"].as_i64().unwrap_or(-1) as i32, p))
        .collect()
}

/// Asserts that the books of every domain balance and equal the fold's. Each partition has the given number
/// of `holes`, by default none.
pub fn assert_books(lag: &Lag, folds: &Folds, holes: &Ends) {
    for (domain, partitions) in lag {
        for (number, partition) in partitions {
            let books = folds.books(domain, *number);
            let holes = holes.get(number).copied().unwrap_or(0);
            let expected = json!({
                "startPosition": 0,
                "position": books.read + holes,
                "endOffset": books.read + holes,
                "lag": 0,
                "oldestUnappliedSeconds": 0.0,
                "holes": holes,
                "read": books.read,
                "applied": books.applied,
                "duplicates": books.duplicates,
                "skipped": books.skipped,
                "deadLettered": books.dead_lettered,
                "deadLetters": books.dead_letters,
                "parkedKeys": books.parked_keys,
                "state": "caught_up",
            });
            for (name, value) in expected.as_object().expect("an object") {
                let said = &partition[name];
                let same = said == value
                    || said
                        .as_f64()
                        .is_some_and(|said| value.as_f64() == Some(said));
                assert!(
                    same,
                    "{domain}, partition {number}, {name}: {said}, expected {value}; all of it: {partition}"
                );
            }
            let count = |name: &str| partition[name].as_i64().expect("a number");
            let kinds = ["applied", "duplicates", "skipped", "deadLettered"].map(count);
            assert_eq!(
                count("read"),
                kinds.iter().sum::<i64>(),
                "{domain}, partition {number}"
            );
            assert_eq!(
                count("position"),
                count("startPosition") + count("read") + count("holes")
            );
        }
    }
}

/// How many answers are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// Every user's answers by path, now and at one instant; the whole feed and the whole search.
    Brief,
    /// Also all other requests over REST and gRPC, with every filter, and some users at many instants.
    Thorough,
}

/// Asserts that every answer of every domain that is served equals the fold's.
pub async fn assert_answers(clients: &Clients, folds: &Folds, depth: Depth) {
    let lag = clients.rest.get("/v1/consistency").await.json();
    let served = lag["domains"].as_array().expect("a list");
    let mut wrong = Differences::default();
    for domain in served {
        let domain = domain["domain"].as_str().expect("a name");
        let found = COMPARES.iter().find(|(name, _)| *name == domain);
        let (_, compare) = found.unwrap_or_else(|| panic!("nothing compares {domain}"));
        compare(clients, folds, depth, &mut wrong).await;
    }
    wrong.none();
}

/// A request, its answer, and the fold's answer.
struct Compared {
    how: String,
    said: Value,
    expected: Value,
}

impl Compared {
    /// With `None` for `expected`, the answer must be 404.
    fn new(how: String, said: Value, expected: Option<Value>) -> Compared {
        let expected = expected.unwrap_or_else(|| json!({"status": 404, "reason": "NOT_FOUND"}));
        Compared {
            how,
            said,
            expected,
        }
    }
}

/// Makes a REST request. Every answer must carry a token, 404 included.
async fn get(rest: &Rest, path: String, expected: Option<Value>) -> Compared {
    let answer = rest.answered(&path).await;
    assert!(!answer.token().is_empty(), "{path} without a token");
    Compared::new(format!("GET {path}"), said(&answer), expected)
}

fn said(answer: &Answer) -> Value {
    match answer.status {
        200 => answer.json(),
        404 => json!({"status": 404, "reason": answer.json()["reason"]}),
        status => json!({"status": status, "body": answer.text()}),
    }
}

/// A gRPC answer in the form of REST answers.
fn called<T>(
    answer: Result<tonic::Response<T>, Status>,
    into_json: impl FnOnce(T) -> Value,
) -> Value {
    let token = match &answer {
        Ok(answer) => answer.metadata().get("sightline-consistency-token"),
        Err(status) => status.metadata().get("sightline-consistency-token"),
    };
    assert!(token.is_some(), "without a token");
    match answer {
        Ok(answer) => into_json(answer.into_inner()),
        Err(status) if status.code() == tonic::Code::NotFound => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.clone());
            json!({"status": 404, "reason": reason})
        }
        Err(status) => json!({"code": status.code() as i32, "message": status.message()}),
    }
}

/// Reads all pages of a list, of `size` rows each.
pub async fn pages(
    rest: &Rest,
    path: &str,
    filters: &[(&str, Option<&str>)],
    list: &str,
    size: usize,
) -> Vec<Value> {
    rows(whole_pages(rest, path, filters, list, size).await, list)
}

/// Reads all pages of a list, of `size` rows each, with what they say besides the rows.
async fn whole_pages(
    rest: &Rest,
    path: &str,
    filters: &[(&str, Option<&str>)],
    list: &str,
    size: usize,
) -> Vec<Value> {
    let mut read = Vec::new();
    let mut token: Option<String> = None;
    let text = size.to_string();
    loop {
        let paging = [("pageSize", Some(&*text)), ("pageToken", token.as_deref())];
        let path = with_query(path, &[filters, &paging].concat());
        let answer = rest.answered(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(
            answer.token().starts_with('A'),
            "{path} without a token: {:?}",
            answer.headers
        );
        let page = answer.json();
        let rows = page[list].as_array().map(Vec::len);
        let rows = rows.unwrap_or_else(|| panic!("{path}: no {list}: {}", answer.text()));
        assert!(rows <= size, "{path}: {rows} rows");
        let next = page.get("nextPageToken").cloned();
        read.push(page);
        match next {
            None => return read,
            Some(next) => {
                let next = next.as_str().expect("text").to_owned();
                assert!(!next.is_empty(), "{path}: an empty token");
                assert_ne!(
                    Some(&next),
                    token.as_ref(),
                    "{path}: the same page token again"
                );
                token = Some(next);
            }
        }
    }
}

/// Reads all pages of a list over gRPC, in the form of REST answers. `call` takes a page token.
async fn called_pages(list: &str, call: impl AsyncFn(String) -> Value) -> Vec<Value> {
    let mut read = Vec::new();
    let mut token = String::new();
    loop {
        let page = call(token).await;
        assert!(page[list].is_array(), "no {list}: {page}");
        let next = page["nextPageToken"].as_str().map(str::to_owned);
        read.push(page);
        match next {
            None => return read,
            Some(next) => token = next,
        }
    }
}

/// The rows of all pages.
fn rows(pages: Vec<Value>, list: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    for mut page in pages {
        if let Value::Array(some) = page[list].take() {
            rows.extend(some);
        }
    }
    rows
}

/// Makes a REST request that must be refused, with a reason that names a parameter.
async fn refused(rest: &Rest, path: String, parameter: &str) -> Compared {
    let answer = rest.get(&path).await;
    let names_it = answer.text().contains(parameter);
    Compared {
        how: format!("GET {path}"),
        said: json!({"status": answer.status, parameter: names_it}),
        expected: json!({"status": 400, parameter: true}),
    }
}

/// An instant as a caller may write it, with one of several UTC offsets.
pub fn written(at: DateTime<Utc>) -> String {
    let offsets = [0, 7_200, -34_200];
    let offset = offsets[at.timestamp_subsec_micros() as usize % offsets.len()];
    let local = at.with_timezone(&FixedOffset::east_opt(offset).expect("an offset"));
    local.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// An id, and the instant for `asOf`; `None` for now.
type Moment<'a> = (&'a String, Option<DateTime<Utc>>);

/// How many ids of a kind are compared at many instants and over gRPC.
const SAMPLED: usize = 60;

/// Every id, now and at one instant; thoroughly: some ids also around further instants.
fn moments<'a>(
    ids: &'a [String],
    depth: Depth,
    instants: impl Fn(&str) -> Vec<DateTime<Utc>>,
) -> Vec<Moment<'a>> {
    let sampled = sampled(ids);
    let now = DateTime::<Utc>::from(SystemTime::now());
    let mut moments = Vec::new();
    for id in ids {
        moments.push((id, None));
        let instants: Vec<DateTime<Utc>> = BTreeSet::from_iter(instants(id)).into_iter().collect();
        let Some((first, last)) = instants.first().zip(instants.last()) else {
            moments.push((id, Some(DateTime::UNIX_EPOCH)));
            continue;
        };
        let at = |part: usize| instants[instants.len() * part / 6];
        let tick = TimeDelta::microseconds(1);
        let mut asked = vec![at(3)];
        if depth == Depth::Thorough && sampled.contains(id) {
            // Before the first and after the last event; just before, at and just after other events.
            asked.extend([*first - tick, *first, at(2) - tick, at(4) + tick]);
            asked.extend([*last, *last + TimeDelta::days(1)]);
        }
        // What lies ahead is refused.
        let asked = asked.into_iter().map(|at| at.min(now));
        moments.extend(asked.map(|at| (id, Some(at))));
    }
    moments
}

/// A sample, evenly spread.
fn sampled(ids: &[String]) -> BTreeSet<&String> {
    some(ids, SAMPLED).collect()
}

/// About this many of some values, evenly spread.
fn some<T>(of: &[T], count: usize) -> impl Iterator<Item = &T> {
    of.iter().step_by(of.len() / count + 1)
}

/// Counts comparisons and differences, and describes the first few differences.
#[derive(Default)]
struct Differences {
    compared: usize,
    count: usize,
    first: Vec<String>,
}

impl Differences {
    fn compare(&mut self, compared: Compared) {
        self.compared += 1;
        let said = normal(compared.said);
        let expected = normal(compared.expected);
        if said != expected {
            self.differs(&compared.how, Some(&said), Some(&expected));
        }
    }

    /// Compares what these futures return, many at once.
    async fn compare_all(
        &mut self,
        asked: impl IntoIterator<Item = impl Future<Output = Compared>>,
    ) {
        let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(compared) = asked.next().await {
            self.compare(compared);
        }
    }

    /// Compares two lists row by row. Rows must be in the normal form.
    fn compare_lists<'a>(
        &mut self,
        how: &str,
        said: impl Iterator<Item = &'a Value>,
        expected: impl Iterator<Item = &'a Value>,
    ) {
        let (mut said, mut expected) = (said.fuse(), expected.fuse());
        for n in 0.. {
            let (said, expected) = (said.next(), expected.next());
            if said.is_none() && expected.is_none() {
                return;
            }
            self.compared += 1;
            if said != expected {
                // The rows that follow probably differ, too.
                return self.differs(&format!("{how}: row {n}"), said, expected);
            }
        }
    }

    fn differs(&mut self, how: &str, said: Option<&Value>, expected: Option<&Value>) {
        self.count += 1;
        if self.first.len() < 5 {
            let (said, expected) = (
                said.unwrap_or(&Value::Null),
                expected.unwrap_or(&Value::Null),
            );
            let mut where_it_differs = Vec::new();
            describe(String::new(), said, expected, &mut where_it_differs);
            let shown = where_it_differs.join("\n  ");
            self.first
                .push(format!("{how}\n  {shown}\n  all of it: {said}"));
        }
    }

    fn none(self) {
        println!("{} answers compared", self.compared);
        assert_eq!(
            self.count,
            0,
            "answers that differ from the fold's, among them:\n{}",
            self.first.join("\n")
        );
    }
}

/// Describes where two values differ; null stands for a missing field.
fn describe(path: String, said: &Value, expected: &Value, spots: &mut Vec<String>) {
    match (said, expected) {
        (said, expected) if said == expected => {}
        (Value::Object(said), Value::Object(expected)) => {
            for name in BTreeSet::from_iter(said.keys().chain(expected.keys())) {
                let (said, expected) = (said.get(name), expected.get(name));
                let (said, expected) = (
                    said.unwrap_or(&Value::Null),
                    expected.unwrap_or(&Value::Null),
                );
                describe(format!("{path}/{name}"), said, expected, spots);
            }
        }
        (Value::Array(said), Value::Array(expected)) if said.len() == expected.len() => {
            for (n, (said, expected)) in said.iter().zip(expected).enumerate() {
                describe(format!("{path}/{n}"), said, expected, spots);
            }
        }
        _ => spots.push(format!("{path} is {said}, expected {expected}")),
    }
}
