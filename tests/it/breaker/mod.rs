//! The breaker of things: real Kafka, real Postgres and real processes of the program, all of which are killed,
//! frozen, restarted and cut off from each other while a hostile log is written and everybody reads; and in the end
//! every view, every book and every answer that was given meanwhile must be what the naive fold says.
//!
//! It runs for a short while among the other tests. `SIGHTLINE_TEST_BREAKER_SECONDS` says for how long instead, and
//! `SIGHTLINE_TEST_SEED` begins with another seed; `make break SECONDS=… SEED=…` sets both. A long run is a row of
//! worlds of some minutes, each with the next seed.
//!
//! A seed decides what is in the log, what goes wrong, in which order and after which pauses. It does not decide the
//! scheduling of processes: a failure comes again with its seed likely, not surely.

mod faults;
mod producer;
mod stage;
mod witness;

use crate::changes::assert_followed;
use crate::support::app::LONG;
use crate::support::check::{Depth, Ends, assert_answers, assert_books, caught_up_within};
use crate::support::fold::Folds;
use crate::support::log::{MAX_VALUE_BYTES, Shape, generate, seed};
use fastrand::Rng;
use stage::Stage;
use std::collections::BTreeMap;
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
    let log = generate(plan.seed, plan.shape);
    let users = Arc::new(users(&log));
    let until = Instant::now() + plan.lasts;
    let witness = Arc::new(Witness::default());

    let mut trouble = Vec::new();
    let (of, from) = (Arc::clone(&stage), rng.fork());
    trouble.push(beside(move || producer::run(of, log, from, until)));
    for slot in &stage.slots {
        stage.start(slot, &mut *slot.instance.lock().await).await;
    }
    for lane in faults::lanes() {
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
    let ends: Ends = (0..plan.shape.partitions)
        .map(|partition| {
            (
                partition,
                stage.world.broker.end(&stage.world.topic, partition),
            )
        })
        .collect();
    let first = stage.slots[0].instance.lock().await;
    let running = first.as_ref().expect("it was started");
    let lag = caught_up_within(2 * LONG, &running.rest, &ends).await;
    stage.diary.note("caught up");
    let log = stage.world.broker.read(&stage.world.topic, &ends);
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    witness.compare(&stage.diary, &log, &mut folds);
    let holes: Ends = ends
        .iter()
        .map(|(partition, end)| (*partition, end - log[partition].len() as i64))
        .collect();
    stage.diary.count(
        "records",
        log.values().map(|records| records.len() as u64).sum(),
    );
    stage
        .diary
        .count("holes", holes.values().sum::<i64>() as u64);
    assert_books(&lag, &folds, &holes);
    assert_answers(running, &folds, Depth::Brief).await;
    everything_is_there.store(true, Ordering::Release);
    for follower in followers {
        let changes = follower.await.expect("no panic");
        stage.diary.count("changes followed", changes.len() as u64);
        assert_followed(&changes, &folds);
    }
    stage.read_outputs();
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
fn users(log: &[crate::support::broker::Record]) -> Vec<String> {
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    for record in log {
        folds.take(record);
    }
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
