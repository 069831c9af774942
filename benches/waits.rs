//! Reads with chosen consistency: ten thousand that wait at once, reads of what was just produced, and what a demand costs that
//! is met already. And a hundred watchers of one feed.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use http::Method;
use sightline::projector::announcements::Announcements;
use sightline_testing::app::Running;
use sightline_testing::broker::Record;
use sightline_testing::client::{Rest, customer_path};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::report::Report;
use crate::topic::Topic;
use crate::{Bench, Build, log, processes};

const CONNECTIONS: usize = 100;
const WAITERS: usize = 10_000;
/// How long waiters have to begin to wait. The allocator keeps what their requests took for ten seconds.
const SETTLED: Duration = Duration::from_secs(15);
const TIME: Duration = Duration::from_secs(15);
/// Reads of another instance, for a hundred seconds.
const TRIES: usize = 100_000;
const TRIES_RATE: usize = 1_000;
const WATCHERS: usize = 100;
/// Changes a second that they watch.
const CHANGES_RATE: usize = 1_000;
/// Reads at once, and how many, with and without a demand.
const AT_ONCE: usize = 16;
const READS: usize = 20_000;
const SKIPPED: usize = 300;

pub async fn run(bench: &Bench, report: &mut Report) {
    for _ in 0..bench.settings.rounds {
        let topic = Topic::create(bench).await;
        let (database, pool) = bench.migrated(&Build::this()).await;
        let running = topic
            .serve(&Build::this(), bench.domains(), &database)
            .ready()
            .await;
        let first = log::new_users(topic.partitions as usize * 10, topic.partitions);
        let offsets = topic.broker.writer().write(&topic.name, &first).await;
        let user = user_of(&first[0]);
        let token = token_of(&topic, &first[0], offsets[0]);
        let answer = at_least(&running.rest, &user, &token).await;
        assert!(answer == Read::Known, "the first user is there");
        met_demands(report, &running.rest, &user).await;
        skipped_records(report, &topic, &running.rest, &user).await;
        many_waiters(report, &topic, &running).await;
        for rate in &bench.settings.rates {
            let row = format!("acknowledgement → answer, {rate} events/s");
            let count = rate * TIME.as_secs() as usize;
            fresh_reads(report, &row, &topic, &running.rest, (*rate, count)).await;
        }
        drop(running);
        pool.close().await;
        bench.drop_database(&database).await;
        of_one_domain(bench, report).await;
    }
    woken(report).await;
}

/// What loads more than the machine has for all domains: one domain, by a projector and a gateway.
async fn of_one_domain(bench: &Bench, report: &mut Report) {
    let topic = Topic::create(bench).await;
    let (database, pool) = bench.migrated(&Build::this()).await;
    let order = &bench.domains()[..1];
    let instance = |role| topic.serve_as(role, &Build::this(), order, &database);
    let projector = instance("projector");
    let gateway = instance("gateway").ready().await;
    let row = format!(
        "acknowledgement → answer of another instance, {TRIES_RATE} events/s, {}",
        order[0].domain()
    );
    fresh_reads(report, &row, &topic, &gateway.rest, (TRIES_RATE, TRIES)).await;
    watchers(report, &topic, &gateway).await;
    drop((projector, gateway));
    pool.close().await;
    bench.drop_database(&database).await;
}

fn user_of(record: &Record) -> String {
    let key = record.key.clone().expect("a key");
    String::from_utf8(key).expect("an id")
}

fn token_of(topic: &Topic, record: &Record, offset: i64) -> String {
    format!("{}/{}@{offset}", topic.name, record.partition)
}

/// What came of a read.
#[derive(PartialEq)]
enum Read {
    Known,
    /// As if the record were not there.
    Stale,
    /// The gateway had too many calls: the machine can't do more.
    Overloaded,
}

/// Reads a customer at least as new as a token.
async fn at_least(rest: &Rest, user: &str, token: &str) -> Read {
    let headers = [
        ("sightline-consistency", "at-least"),
        ("sightline-consistency-token", token),
        ("sightline-wait", "25"),
        ("request-timeout", "60"),
    ];
    let answer = rest
        .send(Method::GET, &customer_path(user), &headers, &[])
        .await;
    match answer.status {
        200 => Read::Known,
        404 => Read::Stale,
        503 if answer.text().contains("OVERLOADED") => Read::Overloaded,
        _ => panic!("{}", answer.text()),
    }
}

/// The same read with a token that is met already, and without.
async fn met_demands(report: &mut Report, rest: &Rest, user: &str) {
    let path = customer_path(user);
    let token = rest.get(&path).await.token().to_owned();
    let demand = [
        ("sightline-consistency", "at-least"),
        ("sightline-consistency-token", token.as_str()),
    ];
    for _ in 0..3 {
        for (row, headers) in [
            ("without a token", &[][..]),
            ("with a token that is met", &demand),
        ] {
            let began = Instant::now();
            let reads = stream::iter(0..READS).map(|_| rest.send(Method::GET, &path, headers, &[]));
            let mut reads = reads.buffer_unordered(AT_ONCE);
            while let Some(answer) = reads.next().await {
                assert_eq!(answer.status, 200);
            }
            let rate = READS as f64 / began.elapsed().as_secs_f64();
            report.add(&format!("one customer, {row}"), "reads/s", rate);
        }
    }
}

/// From the acknowledgement of a record that the domain skips to the answer of a read that demands it.
async fn skipped_records(report: &mut Report, topic: &Topic, rest: &Rest, user: &str) {
    let writer = topic.broker.prompt_writer();
    let mut seconds = Vec::new();
    for n in 0..SKIPPED {
        let value = format!(
            r#"{{"eventId":"skipped-{n}","eventType":"UserLoggedIn","eventTimestamp":"2026-10-01T00:00:00Z","payload":{{"userId":"{user}"}}}}"#
        );
        let record = Record {
            partition: n as i32 % topic.partitions,
            key: Some(user.into()),
            value: Some(value.into_bytes()),
            headers: Vec::new(),
            timestamp: chrono::Utc::now().timestamp_millis(),
        };
        let offset = writer
            .write(&topic.name, std::slice::from_ref(&record))
            .await[0];
        let began = Instant::now();
        at_least(rest, user, &token_of(topic, &record, offset)).await;
        seconds.push(began.elapsed().as_secs_f64());
    }
    report.add_percentiles(
        "acknowledgement → answer, a record that is skipped",
        seconds,
    );
}

/// Ten thousand reads wait for the next record of a partition, over a hundred connections.
async fn many_waiters(report: &mut Report, topic: &Topic, running: &Running) {
    let row = format!("{WAITERS} reads wait");
    let clients: Vec<Rest> = (0..CONNECTIONS)
        .map(|_| Rest::http2(running.rest.address.clone()))
        .collect();
    let record = log::new_users(1, 1).remove(0);
    let user = format!("{}-waits", user_of(&record));
    let token = format!("{}/0@{}", topic.name, topic.broker.end(&topic.name, 0));
    let process = running.app.process.pid;
    let before = processes::memory(process);
    let mut waiting = JoinSet::new();
    for n in 0..WAITERS {
        let (rest, user, token) = (
            clients[n % CONNECTIONS].clone(),
            user.clone(),
            token.clone(),
        );
        waiting.spawn(async move {
            at_least(&rest, &user, &token).await;
            Instant::now()
        });
    }
    tokio::time::sleep(SETTLED).await;
    let kib = (processes::memory(process) - before) * 1_024.0 / WAITERS as f64;
    report.add(&row, "KiB each", kib);
    let acknowledged = {
        let writer = topic.broker.prompt_writer();
        writer
            .write(
                &topic.name,
                &[Record {
                    partition: 0,
                    ..record
                }],
            )
            .await;
        Instant::now()
    };
    let answered: Vec<Instant> = waiting.join_all().await;
    let seconds: Vec<f64> = answered
        .iter()
        .map(|at| at.duration_since(acknowledged).as_secs_f64())
        .collect();
    let last = seconds.iter().copied().fold(0.0, f64::max);
    report.add(&row, "ms until the last is answered", last * 1_000.0);
    report.add_percentiles(&row, seconds);
}

/// Each record is read as soon as Kafka has acknowledged it: so many a second, and so many.
async fn fresh_reads(
    report: &mut Report,
    row: &str,
    topic: &Topic,
    rest: &Rest,
    (rate, count): (usize, usize),
) {
    let records = log::new_users(count, topic.partitions);
    let writer = topic.broker.prompt_writer();
    let mut clock = interval(Duration::from_secs(1) / rate as u32);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut reading = JoinSet::new();
    for record in records {
        clock.tick().await;
        let sent = writer.send(&topic.name, &record).expect("there is room");
        let (rest, name, partition) = (rest.clone(), topic.name.clone(), record.partition);
        let user = user_of(&record);
        reading.spawn(async move {
            let delivery = sent.await.expect("an answer").expect("acknowledged");
            let began = Instant::now();
            let token = format!("{name}/{partition}@{}", delivery.offset);
            let read = at_least(&rest, &user, &token).await;
            (read, began.elapsed().as_secs_f64())
        });
    }
    let read = reading.join_all().await;
    let count = |of: Read| read.iter().filter(|(read, _)| *read == of).count() as f64;
    report.add(row, "reads", read.len() as f64);
    report.add(row, "stale answers", count(Read::Stale));
    report.add(row, "overloaded", count(Read::Overloaded));
    let answered = read.iter().filter(|(read, _)| *read != Read::Overloaded);
    report.add_percentiles(row, answered.map(|(_, seconds)| *seconds).collect());
}

/// A hundred watchers of the address changes: what they cost the gateway, which does not project.
async fn watchers(report: &mut Report, topic: &Topic, gateway: &Running) {
    let row = format!("{WATCHERS} watchers, {CHANGES_RATE} changes/s");
    let mut watching = JoinSet::new();
    let changes = log::new_addresses(CHANGES_RATE * TIME.as_secs() as usize, topic.partitions);
    let count = changes.len();
    for _ in 0..WATCHERS {
        let rest = Rest::http2(gateway.rest.address.clone());
        let events = rest.watch("/v1/order/address-changes:watch", &[]).await;
        let mut events = events.expect("a stream");
        watching.spawn(async move {
            let received = events.count("change", count).await;
            assert_eq!(received, count);
            Instant::now()
        });
    }
    let process = gateway.app.process.pid;
    let (began, before) = (Instant::now(), processes::processor_time(process));
    let writer = topic.broker.prompt_writer();
    let mut clock = interval(Duration::from_secs(1) / CHANGES_RATE as u32);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for record in &changes {
        clock.tick().await;
        drop(writer.send(&topic.name, record).expect("there is room"));
    }
    let written = Instant::now();
    let ended: Vec<Instant> = watching.join_all().await;
    let last = ended.into_iter().max().expect("watchers");
    let took = last.duration_since(began).as_secs_f64();
    let processor = (processes::processor_time(process) - before).as_secs_f64();
    report.add(&row, "changes sent/s", (count * WATCHERS) as f64 / took);
    report.add(&row, "cores of the gateway", processor / took);
    let behind = last.duration_since(written).as_secs_f64() * 1_000.0;
    report.add(&row, "ms from the last write to the last change", behind);
}

/// How long a commit takes to wake ten thousand that wait for it, in the process.
async fn woken(report: &mut Report) {
    for _ in 0..20 {
        let announcements = Announcements::default();
        announcements.read("order", 1, 0);
        let mut waiting = JoinSet::new();
        for _ in 0..WAITERS {
            let announcements = announcements.clone();
            waiting.spawn(async move {
                announcements.reach("order", 1, 1).await;
                Instant::now()
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let announced = Instant::now();
        announcements.announce_positions("order", [(1, 1)]);
        let woken: Vec<Instant> = waiting.join_all().await;
        let last = woken.into_iter().max().expect("waiters");
        let took = last.duration_since(announced).as_secs_f64() * 1_000.0;
        report.add(
            &format!("{WAITERS} are woken"),
            "ms until the last is",
            took,
        );
    }
}
