//! How soon an event can be read from all domains at a steady rate, and what processor time it costs: by
//! `sightline serve`, and by a loop written by hand, which is the lower bound: one consumer and one connection,
//! and one transaction for whatever has arrived.
//!
//! A producer sends by the clock, whatever becomes of the events. An event's freshness is the time from its send
//! until a connection that asks for the progress rows every millisecond sees a position behind it: the same commit
//! makes position and rows visible. Once a second a read by REST checks that.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sightline::event;
use sightline::kafka::to_record;
use sightline_testing::app::SOON;
use sightline_testing::broker::Record;
use sightline_testing::client::{Rest, customer_path};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::by_hand::{BATCH_RECORDS, Batch, ByHand, Steps};
use crate::report::Report;
use crate::topic::Topic;
use crate::{BY_HAND, Bench, Build, log, processes};

/// What is sent before this time is not measured.
const WARM_UP: Duration = Duration::from_secs(5);
const TIME: Duration = Duration::from_secs(20);
/// The pause between two looks at the progress rows, or at a customer.
const POLL: Duration = Duration::from_millis(1);
/// How long after the last send all events must be readable.
const CATCH_UP: Duration = Duration::from_secs(120);

pub async fn run(bench: &Bench, report: &mut Report) {
    for round in 0..bench.settings.rounds {
        for rate in &bench.settings.rates {
            for build in bench.in_turn(round) {
                measure(bench, *rate, build.as_ref(), report).await;
            }
        }
    }
}

/// An event whose customer is read by REST, too.
struct Check {
    user: String,
    partition: i32,
    offset: i64,
}

/// A look at the progress rows that found a position moved.
struct Advance {
    at: Instant,
    domain: String,
    partition: i32,
    offsets: Range<i64>,
}

async fn measure(bench: &Bench, rate: usize, build: Option<&Build>, report: &mut Report) {
    let row = format!("{rate} events/s: {}", build.map_or(BY_HAND, |b| b.name));
    let topic = Arc::new(Topic::create(bench).await);
    let this = Build::this();
    let (database, pool) = bench.migrated(build.unwrap_or(&this)).await;
    let stop = CancellationToken::new();
    // Also after a panic: the runtime waits for the thread.
    let stop_at_end = stop.clone().drop_guard();
    let (gateway, by_hand) = match build {
        Some(build) => {
            let app = topic.serve(build, bench.domains(), &database);
            let running = app.ready().await;
            claimed(bench, &topic, &pool).await;
            (Some(running), None)
        }
        None => {
            let by_hand = start_by_hand(bench, &topic, &database, &pool, stop).await;
            (None, Some(by_hand))
        }
    };
    pool.close().await;

    let seconds = (WARM_UP + TIME).as_secs() as usize;
    let records = log::new_users(rate * seconds, topic.partitions);
    let expected = (records.len() * bench.domains().len()) as i64;
    let mut connection = PgConnection::connect(&database)
        .await
        .expect("Postgres answers");
    let observer: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .expect("a process id");
    let processor_time = || {
        let gateway = gateway.as_ref().map(|running| running.app.process.pid);
        [
            gateway.map_or(Duration::ZERO, processes::processor_time),
            processes::family_processor_time(bench.postgres_process(), Some(observer as u32)),
        ]
    };
    let (check, checks) = mpsc::unbounded_channel();
    let began = Instant::now();
    let producing = tokio::task::spawn_blocking({
        let topic = Arc::clone(&topic);
        move || produce(&topic, &records, rate, began, &check)
    });
    let following = tokio::spawn(follow(connection, expected));
    let has_customers = bench
        .domains()
        .iter()
        .any(|domain| domain.domain() == "order");
    let checking = gateway
        .as_ref()
        .filter(|_| has_customers)
        .map(|running| tokio::spawn(read(running.rest.clone(), checks)));
    let measured = began + WARM_UP..began + WARM_UP + TIME;
    sleep_until(measured.start.into()).await;
    let before = processor_time();
    sleep_until(measured.end.into()).await;
    let after = processor_time();

    let sent = producing.await.expect("no panic");
    let advances = timeout(CATCH_UP, following)
        .await
        .expect("all events become readable")
        .expect("no panic");
    let is_measured = |at: &&Instant| measured.contains(*at);
    let events = sent.iter().flatten().filter(is_measured).count() as f64;
    report.add(&row, "events/s sent", events / TIME.as_secs_f64());
    let mut freshness: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut customers = BTreeMap::new();
    for advance in &advances {
        for offset in advance.offsets.clone() {
            let sent_at = &sent[advance.partition as usize][offset as usize];
            if is_measured(&sent_at) {
                let of_domain = freshness.entry(&advance.domain).or_default();
                of_domain.push(advance.at.duration_since(*sent_at).as_secs_f64());
                if advance.domain == "order" {
                    customers.insert((advance.partition, offset), advance.at);
                }
            }
        }
    }
    report.add_percentiles(&row, freshness.values().flatten().copied().collect());
    if freshness.len() > 1 {
        for (domain, seconds) in freshness {
            report.add_percentiles(&format!("{row}: {domain}"), seconds);
        }
    }
    if let Some(checking) = checking {
        for (check, read_at) in checking.await.expect("no panic") {
            if let Some(seen_at) = customers.get(&(check.partition, check.offset)) {
                let later = (read_at - began).as_secs_f64() - (*seen_at - began).as_secs_f64();
                report.add(&row, "ms until REST shows it, too", later * 1e3);
            }
        }
    }
    let per_event = |n: usize| (after[n] - before[n]).as_secs_f64() * 1e6 / events;
    if gateway.is_some() {
        report.add(&row, "µs of processor/event: gateway", per_event(0));
    }
    report.add(&row, "µs of processor/event: Postgres", per_event(1));
    drop(gateway);
    drop(stop_at_end);
    if let Some(by_hand) = by_hand {
        by_hand.await.expect("no panic");
    }
    bench.drop_database(&database).await;
}

/// Waits until the gateway has claimed all partitions for all domains.
async fn claimed(bench: &Bench, topic: &Topic, pool: &PgPool) {
    let all = i64::from(topic.partitions) * bench.domains().len() as i64;
    wait_until(SOON, "all partitions are claimed", async || {
        let claimed: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sightline.progress WHERE epoch > 0")
                .fetch_one(pool)
                .await
                .expect("progress");
        if claimed == all {
            Ok(())
        } else {
            Err(format!("{claimed} of {all}"))
        }
    })
    .await;
}

/// Starts the loop written by hand, which goes on until `stop` is cancelled.
async fn start_by_hand(
    bench: &Bench,
    topic: &Arc<Topic>,
    database: &str,
    pool: &PgPool,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let by_hand = ByHand::begin(topic, bench.domains(), pool).await;
    let (database, runtime) = (database.to_owned(), Handle::current());
    tokio::task::spawn_blocking(move || project(&by_hand, &database, &stop, &runtime))
}

/// Sends records at a rate, the first at `began`. Returns when each was sent, by partition and offset.
fn produce(
    topic: &Topic,
    records: &[Record],
    rate: usize,
    began: Instant,
    check: &mpsc::UnboundedSender<Check>,
) -> Vec<Vec<Instant>> {
    let writer = topic.broker.prompt_writer();
    let mut sent = vec![Vec::new(); topic.partitions as usize];
    let mut deliveries = Vec::with_capacity(records.len());
    for (n, record) in records.iter().enumerate() {
        let due = began + Duration::from_secs(1) * n as u32 / rate as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let of_partition = &mut sent[record.partition as usize];
        let offset = of_partition.len() as i64;
        of_partition.push(Instant::now());
        let delivery = writer.send(&topic.name, record).expect("queued");
        deliveries.push((record.partition, offset, delivery));
        if n % rate == 0 {
            let user = record.key.clone().expect("a key");
            // No task receives it while the loop written by hand is measured.
            let _ = check.send(Check {
                user: String::from_utf8(user).expect("text"),
                partition: record.partition,
                offset,
            });
        }
    }
    Handle::current().block_on(async {
        for (partition, offset, delivery) in deliveries {
            let delivery = delivery.await.expect("a delivery report");
            let delivery = delivery.expect("delivered");
            assert_eq!((delivery.partition, delivery.offset), (partition, offset));
        }
    });
    sent
}

/// Looks at the progress rows until the positions add up to `expected`.
async fn follow(mut connection: PgConnection, expected: i64) -> Vec<Advance> {
    // All are there by now. To join them each time would take a fifth of a core.
    let partitions: Vec<(i32, i32)> =
        sqlx::query_as("SELECT log_id, partition FROM sightline.logs")
            .fetch_all(&mut connection)
            .await
            .expect("logs");
    let partitions: BTreeMap<i32, i32> = partitions.into_iter().collect();
    let mut positions: BTreeMap<(String, i32), i64> = BTreeMap::new();
    let mut advances = Vec::new();
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while positions.values().sum::<i64>() < expected {
        ticks.tick().await;
        let rows: Vec<(String, i32, i64)> =
            sqlx::query_as("SELECT domain, log_id, next_offset FROM sightline.progress")
                .fetch_all(&mut connection)
                .await
                .expect("progress");
        let at = Instant::now();
        for (domain, log_id, next_offset) in rows {
            let partition = partitions[&log_id];
            let position = positions.entry((domain.clone(), partition)).or_default();
            if next_offset > *position {
                advances.push(Advance {
                    at,
                    domain,
                    partition,
                    offsets: *position..next_offset,
                });
                *position = next_offset;
            }
        }
    }
    advances
}

/// Asks for each check's customer until there is one, and notes when that was.
async fn read(rest: Rest, mut checks: mpsc::UnboundedReceiver<Check>) -> Vec<(Check, Instant)> {
    let mut seen = Vec::new();
    while let Some(check) = checks.recv().await {
        let path = customer_path(&check.user);
        while rest.get(&path).await.status != 200 {
            tokio::time::sleep(POLL).await;
        }
        seen.push((check, Instant::now()));
    }
    seen
}

/// Projects by hand until `stop` is cancelled.
fn project(by_hand: &ByHand, database: &str, stop: &CancellationToken, runtime: &Handle) {
    let consumer = by_hand.consumer(0..by_hand.topic.partitions);
    let mut connection = runtime
        .block_on(PgConnection::connect(database))
        .expect("Postgres answers");
    let mut steps = Steps::new();
    while !stop.is_cancelled() {
        let mut by_partition: BTreeMap<i32, Vec<event::Record>> = BTreeMap::new();
        // Waits for a record, then takes what has arrived with it.
        let mut wait = Duration::from_millis(100);
        for _ in 0..BATCH_RECORDS {
            let Some(message) = consumer.poll(wait) else {
                break;
            };
            let record = to_record(&message.expect("a record"));
            by_partition
                .entry(record.partition)
                .or_default()
                .push(record);
            wait = Duration::ZERO;
        }
        let mut batches = Vec::new();
        for domain in by_hand.domains {
            for records in by_partition.values() {
                batches.push(Batch::read(*domain, records, &mut steps));
            }
        }
        let applied = async {
            let mut transaction = connection.begin().await?;
            for batch in &batches {
                by_hand.apply(&mut transaction, batch, &mut steps).await?;
            }
            transaction.commit().await
        };
        if !batches.is_empty() {
            runtime.block_on(applied).expect("a batch goes through");
        }
    }
}
