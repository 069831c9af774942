//! Whether the program says what the fold says: answers over every way to ask, books, positions.

pub mod fulfillment;
pub mod order;

use super::app::{LONG, Running};
use super::client::{Answer, Rest, with_query};
use super::fold::{Folds, normal};
use super::wait_until;
use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::Status;
use tonic_types::StatusExt;

/// The end offset of each partition.
pub type Ends = BTreeMap<i32, i64>;
/// What is said of each domain's partitions.
pub type Lag = BTreeMap<String, BTreeMap<i32, Value>>;

/// The domains that there are.
pub const DOMAINS: [&str; 2] = ["order", "fulfillment"];

/// How many requests are under way at once.
const AT_ONCE: usize = 16;

/// The partitions of every domain that is served, once all of them have reached these ends and read as caught up.
pub async fn caught_up(rest: &Rest, ends: &Ends) -> Lag {
    caught_up_within(LONG, rest, ends).await
}

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

/// The partitions of a domain's answer, by number.
pub fn partitions(domain: &Value) -> BTreeMap<i32, Value> {
    let partitions = domain["partitions"].as_array().cloned().unwrap_or_default();
    partitions
        .into_iter()
        .map(|p| (p["partition"].as_i64().unwrap_or(-1) as i32, p))
        .collect()
}

/// Every book of every domain balances and says what the fold says; `holes` of each partition are those given
/// (default none).
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
                    "{domain}, partition {number}, {name}: {said}, not {value}; all of it: {partition}"
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

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// Every user's own answers by path, now and at one instant; the feed and the search as a whole.
    Brief,
    /// That, everything else over REST and gRPC, by every filter, and some of the users' at many instants.
    Thorough,
}

/// Every answer of every domain that is served equals the fold's.
pub async fn assert_answers(running: &Running, folds: &Folds, depth: Depth) {
    let lag = running.rest.get("/v1/consistency").await.json();
    let served: BTreeSet<&str> = lag["domains"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|domain| domain["domain"].as_str())
        .collect();
    let mut wrong = Differences::default();
    if served.contains("order") {
        order::compare(running, &folds.order, depth, &mut wrong).await;
    }
    if served.contains("fulfillment") {
        fulfillment::compare(running, &folds.fulfillment, depth, &mut wrong).await;
    }
    wrong.none();
}

/// What was asked, what was said, and what the fold says.
struct Compared {
    how: String,
    said: Value,
    expected: Value,
}

impl Compared {
    /// `None`: it must not be found.
    fn new(how: String, said: Value, expected: Option<Value>) -> Compared {
        let expected = expected.unwrap_or_else(|| json!({"status": 404, "reason": "NOT_FOUND"}));
        Compared {
            how,
            said,
            expected,
        }
    }
}

/// Asks REST for one thing. Every answer tells its token, that there is none, too.
async fn get(rest: &Rest, path: String, expected: Option<Value>) -> Compared {
    let answer = rest.get(&path).await;
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

/// What gRPC said, in the same form.
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

/// All pages of a list, of so many rows each.
pub async fn pages(
    rest: &Rest,
    path: &str,
    filters: &[(&str, Option<&str>)],
    list: &str,
    size: usize,
) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    let mut token: Option<String> = None;
    let text = size.to_string();
    loop {
        let paging = [("pageSize", Some(&*text)), ("pageToken", token.as_deref())];
        let path = with_query(path, &[filters, &paging].concat());
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!answer.token().is_empty(), "{path} without a token");
        let mut page = answer.json();
        let Value::Array(some) = page[list].take() else {
            panic!("{path}: no {list}: {}", answer.text())
        };
        assert!(some.len() <= size, "{path}: {} rows", some.len());
        rows.extend(some);
        match page.get("nextPageToken") {
            None => return rows,
            Some(next) => {
                let next = next.as_str().expect("text").to_owned();
                assert!(!next.is_empty(), "{path}: an empty token");
                assert_ne!(Some(&next), token.as_ref(), "{path}: it goes in circles");
                token = Some(next);
            }
        }
    }
}

/// An instant as somebody might write it, in some offset.
pub fn written(at: DateTime<Utc>) -> String {
    let offsets = [0, 7_200, -34_200];
    let offset = offsets[at.timestamp_subsec_micros() as usize % offsets.len()];
    let local = at.with_timezone(&FixedOffset::east_opt(offset).expect("an offset"));
    local.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// An id, and the instant as of which it is asked about; `None`: now.
type Moment<'a> = (&'a String, Option<DateTime<Utc>>);

/// How many ids of a kind are asked about at many instants, and over gRPC.
const SAMPLED: usize = 60;

/// Every id now and at one instant; where all is asked, some of them around many instants.
fn moments<'a>(
    ids: &'a [String],
    depth: Depth,
    instants: impl Fn(&str) -> Vec<DateTime<Utc>>,
) -> Vec<Moment<'a>> {
    let sampled = sampled(ids);
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
            // Before and behind all, just before, at and just behind some.
            asked.extend([*first - tick, *first, at(2) - tick, at(4) + tick]);
            asked.extend([*last, *last + TimeDelta::days(1)]);
        }
        moments.extend(asked.into_iter().map(|at| (id, Some(at))));
    }
    moments
}

/// Some of these, from all over.
fn sampled(ids: &[String]) -> BTreeSet<&String> {
    ids.iter().step_by(ids.len() / SAMPLED + 1).collect()
}

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

    /// Compares all that these give, many at once.
    async fn compare_all(
        &mut self,
        asked: impl IntoIterator<Item = impl Future<Output = Compared>>,
    ) {
        let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(compared) = asked.next().await {
            self.compare(compared);
        }
    }

    /// Compares two lists of what is in one form, row by row.
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
                // What follows differs, too.
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
            spot(String::new(), said, expected, &mut where_it_differs);
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
            "answers that are not the fold's, among them:\n{}",
            self.first.join("\n")
        );
    }
}

/// Where in two values the difference is; null is what is not there.
fn spot(path: String, said: &Value, expected: &Value, spots: &mut Vec<String>) {
    match (said, expected) {
        (said, expected) if said == expected => {}
        (Value::Object(said), Value::Object(expected)) => {
            for name in BTreeSet::from_iter(said.keys().chain(expected.keys())) {
                let (said, expected) = (said.get(name), expected.get(name));
                let (said, expected) = (
                    said.unwrap_or(&Value::Null),
                    expected.unwrap_or(&Value::Null),
                );
                spot(format!("{path}/{name}"), said, expected, spots);
            }
        }
        (Value::Array(said), Value::Array(expected)) if said.len() == expected.len() => {
            for (n, (said, expected)) in said.iter().zip(expected).enumerate() {
                spot(format!("{path}/{n}"), said, expected, spots);
            }
        }
        _ => spots.push(format!("{path} is {said}, not {expected}")),
    }
}
