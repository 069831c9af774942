//! The breaker of things: real Kafka, real Postgres and real processes of the program, all of which are killed,
//! frozen, restarted and cut off from each other while a hostile log is written, everybody reads, and operators try dead
//! letters again, take them out, pause, rebuild and switch; and in the end every view, every book and every answer that
//! was given meanwhile must be what the naive fold says.
//!
//! It runs for a short while among the other tests. `SIGHTLINE_TEST_BREAKER_SECONDS` says for how long instead, and
//! `SIGHTLINE_TEST_SEED` begins with another seed; `make break SECONDS=… SEED=…` sets both. A long run is a row of
//! worlds of some minutes, each with the next seed.
//!
//! A seed decides what is in the log, what goes wrong, in which order and after which pauses. It does not decide the
//! scheduling of processes: a failure comes again with its seed likely, not surely.

mod faults;
mod operator;
mod producer;
mod stage;
mod witness;

use crate::changes::assert_followed;
use crate::support::app::{LONG, Running};
use crate::support::broker::Record;
use crate::support::check::{Depth, Ends, assert_answers, assert_books, caught_up_within};
use crate::support::client::Rest;
use crate::support::fold::{Folds, event_of};
use crate::support::log::{HEALING_BYTES, MAX_VALUE_BYTES, Shape, generate_healing, seed};
use crate::support::operations::{letters, project, retry_all};
use crate::support::wait_until;
use fastrand::Rng;
use serde_json::{Value, json};
use stage::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use witness::Witness;

const VARIABLE: &str = "SIGHTLINE_TEST_BREAKER_SECONDS";
/// For how long things break among the other tests.
const SHORT: Duration = Duration::from_secs(35);
/// For how long they break in one world at most.
const WORLD: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_nothing_is_lost_and_nothing_goes_back() {
    let asked = std::env::var(VARIABLE).ok();
    let asked = asked.map(|seconds| Duration::from_secs(seconds.parse().expect("a number")));
    let began = Instant::now();
    let mut totals = BTreeMap::new();
    for seed in seed().. {
        let left = asked.unwrap_or(SHORT).saturating_sub(began.elapsed());
        if left.is_zero() || !totals.is_empty() && left < SHORT {
            break;
        }
        let lasts = Duration::from_secs(left.min(WORLD).as_secs().max(1));
        let plan = Plan::new(seed, lasts, asked.is_some());
        let Some(counts) = run(plan).await else {
            return;
        };
        for (what, times) in counts {
            *totals.entry(what).or_insert(0) += times;
        }
    }
    say(&format!(
        "all of it, in {:.0} s: {}",
        began.elapsed().as_secs_f64(),
        in_words(&totals)
    ));
}

/// What a seed decides beforehand.
#[derive(Debug)]
struct Plan {
    seed: u64,
    lasts: Duration,
    instances: usize,
    readers: usize,
    shape: Shape,
}

impl Plan {
    fn new(seed: u64, lasts: Duration, alone: bool) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let rate = if alone { rng.usize(60..250) } else { 100 };
        Plan {
            seed,
            lasts,
            instances: if alone { rng.usize(1..5) } else { 2 },
            readers: if alone { 4 } else { 2 },
            shape: Shape {
                records: rate * lasts.as_secs() as usize,
                partitions: rng.i32(2..6),
                users: rng.usize(40..300),
            },
        }
    }
}

/// One world, from its beginning to its end; what happened in it. `None` where there is no real Kafka.
async fn run(plan: Plan) -> Option<BTreeMap<&'static str, u64>> {
    say(&format!("{plan:?}"));
    let stage = Arc::new(Stage::new(plan.shape.partitions, plan.instances).await?);
    let (seed, lasts) = (plan.seed, plan.lasts);
    let world = Arc::clone(&stage);
    let world = beside(move || break_and_compare(world, plan));
    let failed = async {
        stage.diary.violated().await;
        stage.diary.violations()
    };
    let broken = tokio::select! {
        ended = world => match ended {
            Ok(()) => stage.diary.violations(),
            Err(_) => vec!["a panic, above".to_owned()],
        },
        violations = failed => violations,
    };
    let counts = stage.diary.counts();
    say(&format!("seed {seed}: {}", in_words(&counts)));
    let directory = stage.keep_outputs(seed);
    if broken.is_empty() {
        return Some(counts);
    }
    let first: Vec<&String> = broken.iter().take(3).collect();
    panic!(
        "seed {seed}: {} violations, the first of them: {first:#?}\n\
         what was done and what the instances said: {}\n\
         again (what is scheduled when differs): make break SEED={seed} SECONDS={}",
        broken.len(),
        directory.display(),
        lasts.as_secs()
    );
}

async fn break_and_compare(stage: Arc<Stage>, plan: Plan) {
    let mut rng = Rng::with_seed(plan.seed);
    let log = generate_healing(plan.seed, plan.shape);
    let users = Arc::new(users(&log));
    let until = Instant::now() + plan.lasts;
    let witness = Arc::new(Witness::default());

    let mut trouble = Vec::new();
    let (of, from) = (Arc::clone(&stage), rng.fork());
    trouble.push(beside(move || producer::run(of, log, from, until)));
    for slot in &stage.slots {
        stage.start(slot, &mut *slot.instance.lock().await).await;
    }
    for lane in faults::lanes().into_iter().chain(operator::lanes()) {
        let (of, from) = (Arc::clone(&stage), rng.fork());
        trouble.push(beside(move || faults::run(lane, of, from, until)));
    }
    for _ in 0..plan.readers {
        let (of, from) = (Arc::clone(&stage), rng.fork());
        let (witness, users) = (Arc::clone(&witness), Arc::clone(&users));
        trouble.push(beside(move || {
            witness::read(of, witness, users, from, until)
        }));
    }
    let everything_is_there = Arc::new(AtomicBool::new(false));
    let mut followers = Vec::new();
    for _ in 0..2 {
        let (of, from) = (Arc::clone(&stage), rng.fork());
        let (witness, done) = (Arc::clone(&witness), Arc::clone(&everything_is_there));
        followers.push(beside(move || witness::follow(of, witness, from, done)));
    }
    for ended in trouble {
        ended.await.expect("no panic");
    }

    stage.diary.note("calm");
    stage.calm().await;
    let topic = &stage.world.topic;
    let ends: Ends = (0..plan.shape.partitions)
        .map(|partition| (partition, stage.world.broker.end(topic, partition)))
        .collect();
    let log = stage.world.broker.read(topic, &ends);
    let discards = stage.discards.lock().unwrap().clone();
    witness.compare(&stage.diary, &log, &of_unknown_history(&log, &discards));
    let count = |what, records: i64| stage.diary.count(what, records as u64);
    count(
        "records",
        log.values().map(|records| records.len() as i64).sum(),
    );

    let first = stage.slots[0].instance.lock().await;
    let running = first.as_ref().expect("it was started");
    heal(&running.rest).await;
    caught_up_within(2 * LONG, &running.rest, &ends).await;
    stage.diary.note("caught up");
    // What could be healed is by now, or will be never.
    heal(&running.rest).await;
    compare_all(&stage, running, &log, &ends, &discards).await;
    stage.diary.note("as it should be, and now anew");
    for domain in sightline::domains::names() {
        project(&running.rest, domain, "rebuild", json!({})).await;
        let path = format!("/v1/projections/{domain}/switch");
        wait_until(2 * LONG, "the new version is switched to", async || {
            let answer = running.rest.try_post(&path, &json!({})).await?;
            match answer.status {
                200 => Ok(()),
                _ => Err(answer.text()),
            }
        })
        .await;
    }
    let folds = compare_all(&stage, running, &log, &ends, &discards).await;
    everything_is_there.store(true, Ordering::Release);
    for follower in followers {
        let changes = follower.await.expect("no panic");
        stage.diary.count("changes followed", changes.len() as u64);
        assert_followed(&changes, &folds);
    }
    stage.read_outputs();
}

/// Lets everything go on, and tries all letters again until none goes through any more.
async fn heal(rest: &Rest) {
    for domain in sightline::domains::names() {
        project(rest, domain, "resume", json!({})).await;
        // One that was begun is of no use any more.
        rest.post(&format!("/v1/projections/{domain}/cancel"), &json!({}))
            .await;
        wait_until(LONG, "nothing more goes through", async || {
            let tried = retry_all(rest, domain).await;
            let stands = |tried: &&Value| {
                let outcome = &tried["outcome"];
                outcome == "failed" || outcome == "waiting"
            };
            match tried.iter().filter(stands).count() == tried.len() {
                true => Ok(()),
                false => Err(format!("{} letters", tried.len())),
            }
        })
        .await;
    }
}

/// Whether answers and books are the fold's, given what was taken out; that fold.
async fn compare_all(
    stage: &Stage,
    running: &Running,
    log: &BTreeMap<i32, Vec<(i64, Record)>>,
    ends: &Ends,
    discards: &BTreeSet<(&'static str, i32, i64)>,
) -> Folds {
    let lag = caught_up_within(2 * LONG, &running.rest, ends).await;
    let mut closed = BTreeSet::new();
    for domain in sightline::domains::names() {
        let filters = [("domain", Some(domain)), ("state", Some("discarded"))];
        for letter in letters(&running.rest, &filters).await {
            let coordinate = |name: &str| letter[name].as_i64().expect("a number");
            let place = (domain, coordinate("partition") as i32, coordinate("offset"));
            if letter["resolution"] != "user_deleted" && !discards.contains(&place) {
                let violation = format!("nobody took this out: {letter}");
                stage.diary.violation(violation);
            }
            closed.insert(place);
        }
    }
    let mut folds = Folds::new(HEALING_BYTES);
    for (partition, records) in log {
        for (offset, record) in records {
            folds.take_but(record, |domain| {
                closed
                    .iter()
                    .any(|place| *place == (domain, *partition, *offset))
            });
        }
    }
    // Each user's own is.
    folds.order_is_known(false);
    let holes: Ends = ends
        .iter()
        .map(|(partition, end)| (*partition, end - log[partition].len() as i64))
        .collect();
    assert_books(&lag, &folds, &holes);
    assert_answers(running, &folds, Depth::Brief).await;
    folds
}

/// Users whose letters were or may have been tried again with success, or taken out, at some time.
fn of_unknown_history(
    log: &BTreeMap<i32, Vec<(i64, Record)>>,
    discards: &BTreeSet<(&'static str, i32, i64)>,
) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (partition, records) in log {
        for (offset, record) in records {
            let size = record.value.as_ref().map_or(0, Vec::len);
            let mut domains = sightline::domains::names().into_iter();
            let taken_out = domains.any(|domain| discards.contains(&(domain, *partition, *offset)));
            if size > MAX_VALUE_BYTES || taken_out {
                keys.extend(record.key.clone());
            }
        }
    }
    let records = log.values().flatten().map(|(_, record)| record);
    let of_key = records.filter(|record| record.key.as_ref().is_some_and(|key| keys.contains(key)));
    of_key
        .filter_map(|record| event_of(record)?.text("userId"))
        .collect()
}

/// Runs something on a thread of its own, where it may block. What it gives comes when it is done; nothing if it
/// panicked.
fn beside<T: Send + 'static, F: Future<Output = T>>(
    make: impl FnOnce() -> F + Send + 'static,
) -> oneshot::Receiver<T> {
    let (done, receiver) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::spawn(move || {
        let made = runtime.block_on(make());
        let _ = done.send(made);
    });
    receiver
}

/// Everybody that the log tells of.
fn users(log: &[Record]) -> Vec<String> {
    let mut folds = Folds::new(HEALING_BYTES);
    folds.take_all(log);
    folds.order.view.ids()
}

fn in_words(counts: &BTreeMap<&'static str, u64>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(what, times)| format!("{times} {what}"))
        .collect();
    each.join(", ")
}

/// To the terminal, past the capture of what tests print.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "breaker: {line}");
}
