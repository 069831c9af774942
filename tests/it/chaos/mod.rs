//! The chaos test: kills, freezes, restarts and cuts off Kafka, Postgres and processes of the program, demotes
//! Postgres and sets its clock back, while a producer writes a hostile log, partitions are added, readers read,
//! backups hold tables, and operators work. In the end every view, every book and
//! every answer given meanwhile must equal the reference fold.
//!
//! `SIGHTLINE_TEST_CHAOS_SECONDS` sets the duration, by default half a minute, and `SIGHTLINE_TEST_SEED` the
//! first seed; `make chaos SECONDS=… SEED=…` sets both. A long run is a sequence of runs of some minutes, each
//! with the next seed.
//!
//! A seed determines the log, the faults, their order and the pauses, but not how processes are scheduled: the
//! same seed probably repeats a failure.

mod faults;
mod harness;
mod history_checker;
mod movers;
mod operator;
mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use sightline_testing::app::{LONG, Running};
use sightline_testing::broker::Record;
use sightline_testing::check::{Depth, Ends, assert_answers, assert_books, caught_up_within};
use sightline_testing::client::Rest;
use sightline_testing::hostile_log::{
    HEALING_BYTES, MAX_VALUE_BYTES, Shape, generate_healing, seed,
};
use sightline_testing::operations::{dead_letters, retry_all};
use sightline_testing::reference::{Folds, event_of};
use sightline_testing::wait_until;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::feed::assert_followed;
use harness::Harness;
use history_checker::HistoryChecker;

const VARIABLE: &str = "SIGHTLINE_TEST_CHAOS_SECONDS";
/// The duration of faults when the chaos test runs among the other tests.
const SHORT: Duration = Duration::from_secs(35);
/// The longest duration of faults for one seed.
const WORLD: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_loses_data_or_takes_a_read_back_in_time() {
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
        "total, in {:.0} s: {}",
        began.elapsed().as_secs_f64(),
        in_words(&totals)
    ));
}

/// What a seed determines before a run.
#[derive(Debug)]
struct Plan {
    seed: u64,
    lasts: Duration,
    instances: usize,
    readers: usize,
    /// Whether all views are ready before anything else happens.
    starts_ready: bool,
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
            starts_ready: !alone || rng.bool(),
            shape: Shape {
                records: rate * lasts.as_secs() as usize,
                partitions: rng.i32(2..6),
                users: rng.usize(40..300),
            },
        }
    }
}

/// Runs one seed, and returns how often everything happened. `None` without a real Kafka.
async fn run(plan: Plan) -> Option<BTreeMap<&'static str, u64>> {
    say(&format!("{plan:?}"));
    let harness = Arc::new(Harness::new(plan.shape.partitions, plan.instances).await?);
    let (seed, lasts) = (plan.seed, plan.lasts);
    let world = Arc::clone(&harness);
    let world = on_a_thread(move || disturb_and_compare(world, plan));
    let failed = async {
        harness.diary.violated().await;
        harness.diary.violations()
    };
    let broken = tokio::select! {
        ended = world => match ended {
            Ok(()) => harness.diary.violations(),
            Err(_) => vec!["a panic: see above".to_owned()],
        },
        violations = failed => violations,
    };
    let counts = harness.diary.counts();
    say(&format!("seed {seed}: {}", in_words(&counts)));
    let directory = harness.keep_outputs(seed);
    if broken.is_empty() {
        return Some(counts);
    }
    let first: Vec<&String> = broken.iter().take(3).collect();
    panic!(
        "seed {seed}: {} violations, the first of them: {first:#?}\n\
         the diary and the instances' output: {}\n\
         to repeat it, with another scheduling: make chaos SEED={seed} SECONDS={}",
        broken.len(),
        directory.display(),
        lasts.as_secs()
    );
}

async fn disturb_and_compare(harness: Arc<Harness>, plan: Plan) {
    let mut rng = Rng::with_seed(plan.seed);
    let log = generate_healing(plan.seed, plan.shape);
    let history = Arc::new(HistoryChecker::default());
    let trouble = start_trouble(&harness, &history, &plan, log, &mut rng).await;
    let complete = Arc::new(AtomicBool::new(false));
    let followers = [(); 2].map(|()| {
        let (of, from) = (Arc::clone(&harness), rng.fork());
        let (history, done) = (Arc::clone(&history), Arc::clone(&complete));
        on_a_thread(move || history_checker::follow(of, history, from, done))
    });
    for ended in trouble {
        ended.await.expect("no panic");
    }

    harness.diary.note("calm");
    harness.calm().await;
    let topic = &harness.world.topic;
    let ends = harness.world.broker.ends(topic).await;
    let records = harness.world.broker.read(topic, &ends);
    let discards = harness.discards.lock().unwrap().clone();
    let unknown = users_of_unknown_history(&records, &discards);
    history.compare(&harness.diary, &records, &unknown);
    let count: usize = records.values().map(Vec::len).sum();
    harness.diary.count("records", count as u64);

    let first = harness.slots[0].instance.lock().await;
    let running = first.as_ref().expect("it was started");
    heal(&running.rest).await;
    caught_up_within(2 * LONG, &running.rest, &ends).await;
    harness.diary.note("caught up");
    // All dead letters that can be applied are applied by now.
    heal(&running.rest).await;
    compare_all(&harness, running, &records, &ends, &discards).await;
    harness.diary.note("compared; rebuild everything");
    rebuild_all(&running.rest).await;
    heal(&running.rest).await;
    let folds = compare_all(&harness, running, &records, &ends, &discards).await;
    complete.store(true, Ordering::Release);
    for follower in followers {
        let changes = follower.await.expect("no panic");
        harness
            .diary
            .count("changes followed", changes.len() as u64);
        assert_followed(&changes, &folds);
    }
    harness.read_outputs();
}

/// Whether all views are ready.
async fn ready(rest: &Rest) -> Result<(), String> {
    for domain in sightline::domains::ALL {
        let path = domain.first_reads().nobody;
        let answer = rest.try_get(path).await?;
        if answer.status >= 500 {
            return Err(answer.text());
        }
    }
    Ok(())
}

/// Starts the instances, and for the plan's duration the producer of `log`, all lanes of faults and operators,
/// and the readers.
async fn start_trouble(
    harness: &Arc<Harness>,
    history: &Arc<HistoryChecker>,
    plan: &Plan,
    log: Vec<Record>,
    rng: &mut Rng,
) -> Vec<oneshot::Receiver<()>> {
    let users: Vec<String> = users(&log).into_iter().chain(movers::ids()).collect();
    let users = Arc::new(users);
    for slot in &harness.slots {
        harness.start(slot, &mut *slot.instance.lock().await).await;
    }
    // While a view is not ready, all reads are refused.
    if plan.starts_ready {
        let rest = harness.slots[0].rest().expect("it was started");
        wait_until(LONG, "all views are ready", async || ready(&rest).await).await;
    }
    let until = Instant::now() + plan.lasts;
    let mut trouble = Vec::new();
    let (of, from) = (Arc::clone(harness), rng.fork());
    trouble.push(on_a_thread(move || producer::run(of, log, from, until)));
    let (of, from) = (Arc::clone(harness), rng.fork());
    trouble.push(on_a_thread(move || movers::run(of, from, until)));
    for lane in faults::lanes().into_iter().chain(operator::lanes()) {
        let (of, from) = (Arc::clone(harness), rng.fork());
        trouble.push(on_a_thread(move || faults::run(lane, of, from, until)));
    }
    for _ in 0..plan.readers {
        let (of, from) = (Arc::clone(harness), rng.fork());
        let (history, users) = (Arc::clone(history), Arc::clone(&users));
        trouble.push(on_a_thread(move || {
            history_checker::read(of, history, users, from, until)
        }));
    }
    trouble
}

/// Rebuilds every domain and switches to the new versions.
async fn rebuild_all(rest: &Rest) {
    for domain in sightline::domains::names() {
        // 409: it was begun, and the answer came too late.
        until_answered(rest, domain, "rebuild", &[200, 409]).await;
        until_answered(rest, domain, "switch", &[200]).await;
    }
}

/// Asks for a change of a projection until the answer has one of these codes: processes that have just started are slow to
/// answer, and 504 does not say whether anything was changed.
async fn until_answered(rest: &Rest, domain: &str, verb: &str, codes: &[u16]) {
    let path = format!("/v1/projections/{domain}/{verb}");
    wait_until(2 * LONG, &path, async || {
        let answer = rest.try_post(&path, &json!({})).await?;
        match codes.contains(&answer.status) {
            true => Ok(()),
            false => Err(answer.text()),
        }
    })
    .await;
}

/// Resumes everything, cancels rebuilds, and retries all dead letters until none of them can be applied.
async fn heal(rest: &Rest) {
    for domain in sightline::domains::names() {
        until_answered(rest, domain, "resume", &[200]).await;
        // A rebuild may be running; it is not needed. 409: there is none.
        until_answered(rest, domain, "cancel", &[200, 409]).await;
        wait_until(LONG, "no further dead letter can be applied", async || {
            let tried = retry_all(rest, domain).await;
            let stands = |tried: &Value| {
                let outcome = &tried["outcome"];
                outcome == "failed" || outcome == "waiting"
            };
            if tried.iter().all(stands) {
                Ok(())
            } else {
                Err(format!("{} dead letters", tried.len()))
            }
        })
        .await;
    }
}

/// Compares answers and books with the fold of these records without discarded ones, and returns the fold.
async fn compare_all(
    harness: &Harness,
    running: &Running,
    log: &BTreeMap<i32, Vec<(i64, Record)>>,
    ends: &Ends,
    discards: &BTreeSet<(&'static str, i32, i64)>,
) -> Folds {
    let lag = caught_up_within(2 * LONG, &running.rest, ends).await;
    let mut closed = BTreeSet::new();
    for domain in sightline::domains::names() {
        let filters = [("domain", Some(domain)), ("state", Some("discarded"))];
        for dead_letter in dead_letters(&running.rest, &filters).await {
            let (partition, offset) = coordinates(&dead_letter);
            let coordinates = (domain, partition, offset);
            if dead_letter["resolution"] != "user_deleted" && !discards.contains(&coordinates) {
                let violation = format!("no operator discarded this: {dead_letter}");
                harness.diary.violation(violation);
            }
            closed.insert(coordinates);
        }
    }
    let mut folds = Folds::new(HEALING_BYTES);
    for (partition, records) in log {
        for (offset, record) in records {
            folds.take_except_discarded(record, |domain| {
                closed
                    .iter()
                    .any(|closed| *closed == (domain, *partition, *offset))
            });
        }
    }
    // All were retried once nothing came any more: one whose event a later record brought is a duplicate.
    folds.retry(HEALING_BYTES, |_| true);
    // When each was retried with success is not known.
    folds.order_is_known = false;
    let holes: Ends = ends
        .iter()
        .map(|(partition, end)| (*partition, end - log[partition].len() as i64))
        .collect();
    compare_open(harness, &running.rest, log, &folds).await;
    assert_books(&lag, &folds, &holes);
    assert_answers(running, &folds, Depth::Brief).await;
    folds
}

/// Compares which records are open dead letters with the fold's: numbers alone would not say which differ.
async fn compare_open(
    harness: &Harness,
    rest: &Rest,
    log: &BTreeMap<i32, Vec<(i64, Record)>>,
    folds: &Folds,
) {
    for domain in sightline::domains::names() {
        let filters = [("domain", Some(domain)), ("state", Some("parked"))];
        let open = dead_letters(rest, &filters).await;
        let open: BTreeSet<(i32, i64)> = open.iter().map(coordinates).collect();
        let fold = folds.of(domain);
        let expected = log.iter().flat_map(|(partition, records)| {
            let numbers = fold.open(*partition);
            numbers.map(|number| (*partition, records[number as usize].0))
        });
        let other: Vec<_> = open
            .symmetric_difference(&expected.collect())
            .copied()
            .collect();
        if !other.is_empty() {
            let violation = format!("open only here or in the fold, of {domain}: {other:?}");
            harness.diary.violation(violation);
        }
    }
}

/// The partition and the offset of a dead letter's record.
fn coordinates(dead_letter: &Value) -> (i32, i64) {
    let coordinate = |name: &str| dead_letter[name].as_i64().expect("a number");
    (coordinate("partition") as i32, coordinate("offset"))
}

/// Users whose dead letters may have been retried with success, or discarded, at an unknown time.
fn users_of_unknown_history(
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
        .filter_map(|record| event_of(record)?.user())
        .collect()
}

/// Runs a future on a thread of its own, where it may block. The receiver returns its result, or an error if
/// it panicked.
fn on_a_thread<T: Send + 'static, F: Future<Output = T>>(
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

/// The ids of all users with an event in the log.
fn users(log: &[Record]) -> Vec<String> {
    let events = log.iter().filter_map(event_of);
    let users: BTreeSet<String> = events.filter_map(|event| event.user()).collect();
    users.into_iter().collect()
}

fn in_words(counts: &BTreeMap<&'static str, u64>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(what, times)| format!("{times} {what}"))
        .collect();
    each.join(", ")
}

/// Prints to the terminal; the test harness captures only `print!` and `eprint!`.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {line}");
}
