//! Who reads all the time, from any instance: no answer may be older than one that somebody had before it was asked
//! for, and every answer must be what the fold says at the position that it names.

use super::stage::{Diary, Stage};
use crate::support::broker::Record;
use crate::support::check::{fulfillment, order};
use crate::support::client::{Answer, customer_path, with_query};
use crate::support::fold::{Folds, event_of, normal};
use crate::support::log::MAX_VALUE_BYTES;
use fastrand::Rng;
use serde_json::Value;
use sightline::query::token::ConsistencyToken;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a reader waits for an answer: a frozen instance gives none.
const PATIENCE: Duration = Duration::from_secs(8);

/// How far each partition was read.
type Positions = BTreeMap<i32, i64>;

/// Something that can be asked about one user, whose own events alone make the answer.
pub struct Question {
    pub path: fn(&str) -> String,
    pub answer: fn(&Folds, &str) -> Option<Value>,
}

/// What a domain can be asked about one user. Every domain has something.
pub fn questions(domain: &str) -> &'static [Question] {
    match domain {
        "order" => &[
            Question {
                path: customer_path,
                answer: |folds, user| folds.order.view.answer(user),
            },
            Question {
                path: |user| order::addresses_path(user, None),
                answer: |folds, user| folds.order.view.addresses(user, None),
            },
        ],
        "fulfillment" => &[
            Question {
                path: |user| fulfillment::user_path(user, None),
                answer: |folds, user| folds.fulfillment.view.addresses(user, None),
            },
            Question {
                path: |user| fulfillment::default_path(user, 0, None),
                answer: |folds, user| folds.fulfillment.view.default_address(user, 0, None),
            },
        ],
        other => panic!("nothing is known to ask the domain {other}"),
    }
}

/// An answer that somebody had.
struct Read {
    domain: &'static str,
    question: usize,
    user: String,
    positions: Positions,
    /// `None`: there is no such user.
    said: Option<Value>,
}

/// All that was read.
#[derive(Default)]
pub struct Witness {
    /// Per domain, the furthest that anybody knows of.
    reached: Mutex<BTreeMap<&'static str, Positions>>,
    reads: Mutex<Vec<Read>>,
}

/// Asks about these users until then.
pub async fn read(
    stage: Arc<Stage>,
    witness: Arc<Witness>,
    users: Arc<Vec<String>>,
    mut rng: Rng,
    until: Instant,
) {
    // Of some often, so that what changes is seen changing.
    let few: Vec<usize> = (0..10).map(|_| rng.usize(0..users.len())).collect();
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(1..40))).await;
        let domains = sightline::domains::names();
        let domain = domains[rng.usize(0..domains.len())];
        let question = rng.usize(0..questions(domain).len());
        let user = if rng.bool() {
            rng.usize(0..users.len())
        } else {
            few[rng.usize(0..few.len())]
        };
        let user = &users[user];
        let path = (questions(domain)[question].path)(user);
        let before = witness.reached(domain);
        let Some(answer) = ask(&stage, &path, &mut rng).await else {
            continue;
        };
        let positions = positions(&answer);
        witness.compare_and_raise(&stage.diary, domain, &path, &before, &positions);
        witness.reads.lock().unwrap().push(Read {
            domain,
            question,
            user: user.clone(),
            positions,
            said: (answer.status == 200).then(|| answer.json()),
        });
    }
}

/// Follows order's feed from its beginning until somebody says that all is there and it has come to the end: in pages
/// of odd sizes, sometimes by page token, sometimes from the last cursor, of any instance. Who is told that changes lie
/// elsewhere since a rebuild begins anew.
pub async fn follow(
    stage: Arc<Stage>,
    witness: Arc<Witness>,
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
        let before = witness.reached("order");
        let mut is_empty = false;
        let answer = ask(&stage, &path, &mut rng).await;
        if let Some(answer) = &answer
            && answer.status == 410
        {
            stage.diary.count("feeds read anew", 1);
            (after, token) = (None, None);
            read.clear();
        } else if let Some(answer) = answer {
            let positions = positions(&answer);
            witness.compare_and_raise(&stage.diary, "order", &path, &before, &positions);
            stage.diary.count("pages of the feed", 1);
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

/// Asks any instance, and gives what it says of the view: that there is something, or nothing.
async fn ask(stage: &Stage, path: &str, rng: &mut Rng) -> Option<Answer> {
    let Some(rest) = stage.rest(rng) else {
        sleep(Duration::from_millis(50)).await;
        return None;
    };
    stage.diary.count("reads", 1);
    let answer = tokio::time::timeout(PATIENCE, rest.try_get(path)).await;
    // Killed, frozen or just gone: nothing was said.
    let answer = answer.ok()?.ok()?;
    match answer.status {
        200 | 404 => return Some(answer),
        410 if answer.json()["reason"] == "RESYNC" => return Some(answer),
        // Nothing can be said without the database.
        503 | 504 => stage.diary.count("reads refused", 1),
        status => stage
            .diary
            .violation(format!("{path}: {status}: {}", answer.text())),
    }
    None
}

/// The position that an answer names.
pub fn positions(answer: &Answer) -> Positions {
    let token = ConsistencyToken::parse(answer.token()).expect("every answer has a token");
    token
        .iter()
        .map(|(_, partition, offset)| (partition as i32, offset as i64))
        .collect()
}

impl Witness {
    pub fn reached(&self, domain: &'static str) -> Positions {
        let reached = self.reached.lock().unwrap();
        reached.get(domain).cloned().unwrap_or_default()
    }

    /// Whether an answer is not older than what was known before it was asked for.
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
                    "{what}: back in time: partition {partition} at {position}, after {known}"
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

    /// Folds the log, and compares every answer on the way with what the fold says where it was given. Of some users
    /// that is not known: when their letters were tried again or taken out, and in which version of a view.
    pub fn compare(
        &self,
        diary: &Diary,
        log: &BTreeMap<i32, Vec<(i64, Record)>>,
        unknown: &BTreeSet<String>,
    ) {
        let mut folds = Folds::new(MAX_VALUE_BYTES);
        let mut reads = std::mem::take(&mut *self.reads.lock().unwrap());
        reads.retain(|read| !unknown.contains(&read.user));
        for (partition, records) in log {
            let users: BTreeSet<String> = records
                .iter()
                .filter_map(|(_, record)| event_of(record)?.text("userId"))
                .collect();
            let (mut here, others): (Vec<Read>, Vec<Read>) = reads
                .into_iter()
                .partition(|read| users.contains(&read.user));
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
        // Nobody there ever was.
        for read in reads {
            read.compare(diary, -1, &folds);
        }
    }
}

impl Read {
    fn at(&self, partition: i32) -> i64 {
        self.positions.get(&partition).copied().unwrap_or(0)
    }

    fn compare(self, diary: &Diary, partition: i32, folds: &Folds) {
        let question = &questions(self.domain)[self.question];
        let expected = (question.answer)(folds, &self.user).map(normal);
        let said = self.said.clone().map(normal);
        diary.count("answers compared with the fold", 1);
        if said != expected {
            let path = (question.path)(&self.user);
            let at = self.at(partition);
            diary.violation(format!(
                "{path} at position {at} of partition {partition}\n  said {said:?}\n  not  {expected:?}"
            ));
        }
    }
}
