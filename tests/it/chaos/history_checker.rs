//! The history checker: readers ask any instance all the time. No answer may be older than an answer received
//! before its request was sent, and every answer must equal the reference fold at the position that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use fastrand::Rng;
use serde_json::{Value, json};
use sightline::query::token::ConsistencyToken;
use sightline_testing::broker::Record;
use sightline_testing::check::analytics::activity_path;
use sightline_testing::check::notification::of_user_path;
use sightline_testing::check::personalization::profile_path;
use sightline_testing::check::{audit, fulfillment, order};
use sightline_testing::client::{Answer, customer_path, with_query};
use sightline_testing::hostile_log::MAX_VALUE_BYTES;
use sightline_testing::reference::{
    Customers, Folds, Metrics, Notifications, Parcels, Profiles, Trail, Wanted, event_of, normal,
};
use tokio::time::sleep;

use super::harness::{Diary, Harness};

/// How long a reader waits for an answer: a frozen instance does not answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// The position in each partition.
type Positions = BTreeMap<i32, i64>;

/// A request about one user, whose answer depends on that user's events only.
pub struct Question {
    pub path: fn(&str) -> String,
    pub answer: fn(&Folds, &str) -> Option<Value>,
}

/// The requests that a domain answers about one user.
pub fn questions(domain: &str) -> &'static [Question] {
    match domain {
        "order" => &[
            Question {
                path: customer_path,
                answer: |folds, user| folds.view::<Customers>().answer(user),
            },
            Question {
                path: |user| order::addresses_path(user, None),
                answer: |folds, user| folds.view::<Customers>().addresses(user, None),
            },
        ],
        "fulfillment" => &[
            Question {
                path: |user| fulfillment::user_path(user, None),
                answer: |folds, user| folds.view::<Parcels>().addresses(user, None),
            },
            Question {
                path: |user| fulfillment::default_path(user, 0, None),
                answer: |folds, user| folds.view::<Parcels>().default_address(user, 0, None),
            },
        ],
        // What it answers depends on all users: see `lists`.
        "search" => &[],
        "personalization" => &[Question {
            path: profile_path,
            answer: |folds, user| folds.view::<Profiles>().answer(user),
        }],
        "analytics" => &[Question {
            path: activity_path,
            answer: |folds, user| folds.view::<Metrics>().activity(user),
        }],
        "notification" => &[Question {
            path: of_user_path,
            answer: |folds, user| {
                let wanted = Wanted {
                    user: Some(user.to_owned()),
                    ..Wanted::default()
                };
                let view = folds.view::<Notifications>();
                let rows = view.list(&wanted, DateTime::<Utc>::default());
                Some(json!({"notifications": rows}))
            },
        }],
        // Access depends on roles, too: see `lists`.
        "audit" => &[Question {
            path: audit::of_user_path,
            answer: |folds, user| {
                let view = folds.view::<Trail>();
                let entries = view.entries_of(user, SystemTime::now().into());
                Some(json!({"entries": entries}))
            },
        }],
        other => panic!("there are no questions for the domain {other}"),
    }
}

/// Requests of a domain whose answers depend on many users. Only their positions are checked.
fn lists(domain: &str) -> &'static [&'static str] {
    match domain {
        "fulfillment" => &["/v1/fulfillment/addresses?pageSize=3"],
        "search" => &[
            "/v1/search/users?q=an&pageSize=3",
            "/v1/search/users?status=active&pageSize=2",
            "/v1/search/suggestions?q=user1",
        ],
        "personalization" => &["/v1/personalization/segments?language=de&pageSize=3"],
        "analytics" => &[
            "/v1/analytics/daily?from=2026-01-01&to=2026-02-01",
            "/v1/analytics/retention?from=2026-01-01&to=2026-03-01",
        ],
        "audit" => &[
            "/v1/audit/entries?category=authorization&pageSize=3",
            "/v1/audit/entries?outcome=failure&pageSize=3",
            "/v1/audit/alerts?pageSize=3",
            "/v1/audit/roles/role-2",
            "/v1/audit/users/a%20b/access",
        ],
        _ => &[],
    }
}

/// An answer to a reader.
struct Read {
    domain: &'static str,
    question: usize,
    user: String,
    positions: Positions,
    /// `None` for 404.
    said: Option<Value>,
}

/// All answers, and the positions that they have reached.
#[derive(Default)]
pub struct HistoryChecker {
    /// By domain, the highest position in any answer.
    reached: Mutex<BTreeMap<&'static str, Positions>>,
    reads: Mutex<Vec<Read>>,
}

/// Asks about these users until `until`.
pub async fn read(
    harness: Arc<Harness>,
    history: Arc<HistoryChecker>,
    users: Arc<Vec<String>>,
    mut rng: Rng,
    until: Instant,
) {
    // A few users often, so that consecutive answers differ.
    let few: Vec<usize> = (0..10).map(|_| rng.usize(0..users.len())).collect();
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(1..40))).await;
        let domains = sightline::domains::names();
        let domain = domains[rng.usize(0..domains.len())];
        let (questions, lists) = (questions(domain), lists(domain));
        let question = rng.usize(0..questions.len() + lists.len().div_ceil(2));
        let user = if rng.bool() {
            rng.usize(0..users.len())
        } else {
            few[rng.usize(0..few.len())]
        };
        let user = &users[user];
        let path = match questions.get(question) {
            Some(question) => (question.path)(user),
            None => lists[rng.usize(0..lists.len())].to_owned(),
        };
        let before = history.reached(domain);
        let Some(answer) = ask(&harness, &path, &mut rng).await else {
            continue;
        };
        let positions = positions(&answer);
        history.compare_and_raise(&harness.diary, domain, &path, &before, &positions);
        if question >= questions.len() {
            continue;
        }
        history.reads.lock().unwrap().push(Read {
            domain,
            question,
            user: user.clone(),
            positions,
            said: (answer.status == 200).then(|| answer.json()),
        });
    }
}

/// Follows order's feed on any instance, from its beginning, until `done` is set and the feed has no more
/// changes. Pages have odd sizes and continue by page token or from the last cursor. Starts again at the
/// beginning on RESYNC, with which a rebuild that moved changes answers.
pub async fn follow(
    harness: Arc<Harness>,
    history: Arc<HistoryChecker>,
    mut rng: Rng,
    done: Arc<AtomicBool>,
) -> Vec<Value> {
    let mut read: Vec<Value> = Vec::new();
    let (mut after, mut size, mut token): (Option<String>, usize, Option<String>) = (None, 7, None);
    loop {
        let last_round = done.load(Ordering::Acquire);
        let text = size.to_string();
        let query = [
            ("after", after.as_deref()),
            ("pageSize", Some(&*text)),
            ("pageToken", token.as_deref()),
        ];
        let path = with_query(order::FEED, &query);
        let before = history.reached("order");
        let mut is_empty = false;
        let answer = ask(&harness, &path, &mut rng).await;
        if let Some(answer) = &answer
            && answer.status == 410
        {
            harness.diary.count("feeds restarted", 1);
            (after, token) = (None, None);
            read.clear();
        } else if let Some(answer) = answer {
            let positions = positions(&answer);
            history.compare_and_raise(&harness.diary, "order", &path, &before, &positions);
            harness.diary.count("pages of the feed", 1);
            let mut answer = answer.json();
            let Value::Array(changes) = answer["changes"].take() else {
                panic!("no changes: {answer}")
            };
            is_empty = changes.is_empty();
            read.extend(changes);
            token = answer["nextPageToken"].as_str().map(str::to_owned);
            if token.is_none() || rng.bool() {
                (size, token) = (rng.usize(1..60), None);
                after = order::cursors(&read[read.len().saturating_sub(1)..]).pop();
            }
        }
        if is_empty && token.is_none() {
            if last_round {
                return read;
            }
            sleep(Duration::from_millis(rng.u64(1..300))).await;
        }
    }
}

/// Asks any instance. `None` if there was no answer, or no answer about the view.
async fn ask(harness: &Harness, path: &str, rng: &mut Rng) -> Option<Answer> {
    let Some(rest) = harness.rest(rng) else {
        sleep(Duration::from_millis(50)).await;
        return None;
    };
    harness.diary.count("reads", 1);
    let answer = tokio::time::timeout(PATIENCE, rest.try_get(path)).await;
    // The instance was killed, is frozen, or has just ended.
    let answer = answer.ok()?.ok()?;
    match answer.status {
        200 | 404 => return Some(answer),
        410 if answer.json()["reason"] == "RESYNC" => return Some(answer),
        // Without the database there is no answer.
        503 | 504 => harness.diary.count("reads refused", 1),
        status => harness
            .diary
            .violation(format!("{path}: {status}: {}", answer.text())),
    }
    None
}

/// The position in an answer's token.
pub fn positions(answer: &Answer) -> Positions {
    let token = ConsistencyToken::parse(answer.token()).expect("every answer has a token");
    token
        .iter()
        .map(|(_, partition, offset)| (partition as i32, offset as i64))
        .collect()
}

impl HistoryChecker {
    pub fn reached(&self, domain: &'static str) -> Positions {
        let reached = self.reached.lock().unwrap();
        reached.get(domain).cloned().unwrap_or_default()
    }

    /// Checks that an answer is not older than the position known before its request; records its position.
    pub fn compare_and_raise(
        &self,
        diary: &Diary,
        domain: &'static str,
        what: &str,
        before: &Positions,
        positions: &Positions,
    ) {
        for (partition, position) in positions {
            let known = before.get(partition).copied().unwrap_or(0);
            if *position < known {
                diary.violation(format!(
                    "{what} went back in time: partition {partition} at {position}, after {known}"
                ));
            }
        }
        let mut reached = self.reached.lock().unwrap();
        let reached = reached.entry(domain).or_default();
        for (partition, position) in positions {
            let known = reached.entry(*partition).or_default();
            *known = (*known).max(*position);
        }
    }

    /// Folds all records, and compares every answer with the fold at the answer's position. Skips the users in
    /// `unknown`: when and in which version their dead letters were retried or discarded is not known.
    pub fn compare(
        &self,
        diary: &Diary,
        log: &BTreeMap<i32, Vec<(i64, Record)>>,
        unknown: &BTreeSet<String>,
    ) {
        let mut folds = Folds::new(MAX_VALUE_BYTES);
        let mut reads = std::mem::take(&mut *self.reads.lock().unwrap());
        reads.retain(|read| !unknown.contains(&read.user));
        let users = |records: &[(i64, Record)]| -> BTreeSet<String> {
            let events = records.iter().filter_map(|(_, record)| event_of(record));
            events.filter_map(|event| event.user()).collect()
        };
        let users: BTreeMap<i32, BTreeSet<String>> = log
            .iter()
            .map(|(partition, records)| (*partition, users(records)))
            .collect();
        for (partition, records) in log {
            // Of a user that moved to an added partition, answers that reflect a part of that one reflect all of the
            // user's records in the older ones.
            let is_later = |read: &Read| {
                let mut later = users.range(partition + 1..);
                later.any(|(later, users)| users.contains(&read.user) && read.at(*later) > 0)
            };
            let (mut here, others): (Vec<Read>, Vec<Read>) = reads
                .into_iter()
                .partition(|read| users[partition].contains(&read.user) && !is_later(read));
            reads = others;
            here.sort_by_key(|read| read.positions.get(partition).copied());
            let mut here = here.into_iter().peekable();
            for (offset, record) in records {
                while let Some(read) = here.next_if(|read| read.at(*partition) <= *offset) {
                    read.compare(diary, *partition, &folds);
                }
                folds.take(record);
            }
            here.for_each(|read| read.compare(diary, *partition, &folds));
        }
        // The remaining answers are about users without events.
        for read in reads {
            read.compare(diary, -1, &folds);
        }
    }
}

/// An answer in the normal form, without the status of notifications, which depends on when they were read, and without what
/// the fold does not know of entries: their topic, their offsets where there are holes, and when they were recorded.
fn at_any_time(mut answer: Value) -> Value {
    let rows = answer.get_mut("entries");
    for row in rows.and_then(Value::as_array_mut).into_iter().flatten() {
        let row = row.as_object_mut().expect("an object");
        row.retain(|name, _| !["topic", "offset", "recordedAt"].contains(&name.as_str()));
    }
    let rows = answer.get_mut("notifications");
    for row in rows.and_then(Value::as_array_mut).into_iter().flatten() {
        row.as_object_mut().expect("an object").remove("status");
    }
    normal(answer)
}

impl Read {
    fn at(&self, partition: i32) -> i64 {
        self.positions.get(&partition).copied().unwrap_or(0)
    }

    fn compare(self, diary: &Diary, partition: i32, folds: &Folds) {
        let question = &questions(self.domain)[self.question];
        let expected = (question.answer)(folds, &self.user).map(at_any_time);
        let said = self.said.clone().map(at_any_time);
        diary.count("answers compared with the fold", 1);
        if said != expected {
            let path = (question.path)(&self.user);
            let at = self.at(partition);
            diary.violation(format!(
                "{path} at position {at} of partition {partition}\n  said     {said:?}\n  expected {expected:?}"
            ));
        }
    }
}
