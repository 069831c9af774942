//! Reads with chosen consistency: ten thousand that wait at once, reads of what was just produced, and what a demand costs that is
//! met already.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use http::Method;
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
/// How long waiters have to begin to wait.
const SETTLED: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(15);
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
        assert!(answer, "the first user is there");
        met_demands(report, &running.rest, &user).await;
        skipped_records(report, &topic, &running.rest, &user).await;
        many_waiters(report, &topic, &running).await;
        for rate in &bench.settings.rates {
            fresh_reads(report, &topic, &running.rest, *rate).await;
        }
        drop(running);
        pool.close().await;
        bench.drop_database(&database).await;
    }
}

fn user_of(record: &Record) -> String {
    let key = record.key.clone().expect("a key");
    String::from_utf8(key).expect("an id")
}

fn token_of(topic: &Topic, record: &Record, offset: i64) -> String {
    format!("{}/{}@{offset}", topic.name, record.partition)
}

/// Reads a customer at least as new as a token. Returns whether it is known.
async fn at_least(rest: &Rest, user: &str, token: &str) -> bool {
    let headers = [
        ("sightline-consistency", "at-least"),
        ("sightline-consistency-token", token),
        ("sightline-wait", "25"),
        ("request-timeout", "60"),
    ];
    let answer = rest
        .send(Method::GET, &customer_path(user), &headers, &[])
        .await;
    assert!(matches!(answer.status, 200 | 404), "{}", answer.text());
    answer.status == 200
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

/// Each record is read as soon as Kafka has acknowledged it, at a steady rate.
async fn fresh_reads(report: &mut Report, topic: &Topic, rest: &Rest, rate: usize) {
    let row = format!("acknowledgement → answer, {rate} events/s");
    let records = log::new_users(rate * TIME.as_secs() as usize, topic.partitions);
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
            let is_known = at_least(&rest, &user, &token).await;
            (is_known, began.elapsed().as_secs_f64())
        });
    }
    let read = reading.join_all().await;
    let stale = read.iter().filter(|(is_known, _)| !is_known).count();
    report.add(&row, "stale answers", stale as f64);
    report.add(&row, "reads", read.len() as f64);
    report.add_percentiles(&row, read.into_iter().map(|(_, seconds)| seconds).collect());
}
