//! Two hundred workers drain the queue of notifications, and die, freeze, fail and come back, while gateways are killed: no
//! notification has two holders, none is leased after it was sent, none is lost.
//!
//! `SIGHTLINE_TEST_CHAOS_SECONDS` sets the duration, as of the chaos test.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Value, json};
use sightline_testing::app::{LONG, Running, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::hostile_log::seed;
use sightline_testing::wait_until;

const NOTIFICATIONS: &str = "/v1/notification/notifications";
const WORKERS: usize = 200;
const GATEWAYS: usize = 2;
/// So many may wait to be sent.
const BACKLOG: usize = 1_000;
/// The shortest lease that there is.
const LEASE: i64 = 5;
/// How long workers and gateways are disturbed when the test runs among the others.
const SHORT: Duration = Duration::from_secs(8);

/// A lease as its worker got it, by the database's clock.
#[derive(Debug, Clone)]
struct Grant {
    token: String,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    /// Whether the worker gave it back before its end.
    is_over: bool,
    is_sent: bool,
}

#[derive(Default)]
struct History {
    grants: Mutex<HashMap<String, Vec<Grant>>>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
    /// How many were sent.
    sent: AtomicUsize,
    /// Set when workers are to behave.
    is_calm: AtomicBool,
    has_ended: AtomicBool,
}

impl History {
    fn count(&self, what: &'static str) {
        *self
            .counts
            .lock()
            .expect("no panic")
            .entry(what)
            .or_default() += 1;
    }

    fn change(&self, notification: &str, token: &str, change: impl FnOnce(&mut Grant)) {
        let mut grants = self.grants.lock().expect("no panic");
        let mut of_one = grants.get_mut(notification).into_iter().flatten();
        let grant = of_one.find(|grant| grant.token == token);
        change(grant.expect("a lease of this worker"));
    }
}

#[derive(Clone)]
struct Gateways(Arc<RwLock<Vec<Rest>>>);

impl Gateways {
    /// Posts to some gateway, until one answers.
    async fn post(&self, rng: &mut Rng, path: &str, body: &Value) -> (u16, Value) {
        let until = Instant::now() + LONG;
        loop {
            let rest = self.0.read().expect("no panic")[rng.usize(..GATEWAYS)].clone();
            match rest.try_post(path, body).await {
                Ok(answer) if !matches!(answer.status, 503 | 504) => {
                    return (answer.status, answer.json());
                }
                _ => assert!(Instant::now() < until, "no answer: {path}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn work(gateways: Gateways, history: Arc<History>, mut rng: Rng) {
    while !history.has_ended.load(Ordering::Relaxed) {
        let body =
            json!({"max": rng.i32(1..=5), "leaseSeconds": LEASE, "waitSeconds": rng.i32(0..=2)});
        let (status, answer) = gateways
            .post(&mut rng, &format!("{NOTIFICATIONS}:lease"), &body)
            .await;
        assert_eq!(status, 200, "{answer}");
        let leased: Vec<(String, String)> = answer["notifications"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|notification| note(&history, notification))
            .collect();
        if leased.is_empty() {
            continue;
        }
        let is_calm = history.is_calm.load(Ordering::Relaxed);
        match if is_calm { 9 } else { rng.u8(..10) } {
            0 => {
                history.count("workers that died");
                continue;
            }
            1 => {
                history.count("workers that froze");
                tokio::time::sleep(Duration::from_millis(5_000 + rng.u64(..1_500))).await;
            }
            2 => {
                for (id, token) in &leased {
                    let body = json!({"leaseToken": token, "reason": "no answer"});
                    settle(&gateways, &history, &mut rng, "fail", id, token, body).await;
                }
                continue;
            }
            3 => {
                tokio::time::sleep(Duration::from_millis(rng.u64(..5_000))).await;
                for (id, token) in &leased {
                    let body = json!({"leaseToken": token, "leaseSeconds": LEASE});
                    settle(&gateways, &history, &mut rng, "extend", id, token, body).await;
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(rng.u64(..200))).await,
        }
        for (id, token) in &leased {
            let body = json!({"leaseToken": token});
            settle(&gateways, &history, &mut rng, "ack", id, token, body).await;
        }
    }
}

/// Notes a lease: the id of the notification, and the token.
fn note(history: &History, notification: &Value) -> (String, String) {
    let text = |name: &str| notification[name].as_str().expect("text").to_owned();
    let until: DateTime<Utc> = text("leasedUntil").parse().expect("a time");
    let grant = Grant {
        token: text("leaseToken"),
        from: until - TimeDelta::seconds(LEASE),
        until,
        is_over: false,
        is_sent: false,
    };
    let (id, token) = (text("notificationId"), grant.token.clone());
    history.count("leases");
    let mut grants = history.grants.lock().expect("no panic");
    grants.entry(id.clone()).or_default().push(grant);
    (id, token)
}

async fn settle(
    gateways: &Gateways,
    history: &History,
    rng: &mut Rng,
    verb: &str,
    id: &str,
    token: &str,
    body: Value,
) {
    let path = format!("{NOTIFICATIONS}/{id}/{verb}");
    let (status, answer) = gateways.post(rng, &path, &body).await;
    match (verb, status) {
        ("ack", 200) => {
            history.count("acknowledged");
            history.change(id, token, |grant| grant.is_sent = true);
            history.sent.fetch_add(1, Ordering::Relaxed);
        }
        ("extend", 200) => {
            let until = answer["leasedUntil"].as_str().expect("text");
            history.change(id, token, |grant| {
                grant.until = until.parse().expect("a time")
            });
        }
        // The answer to a first attempt may have been lost: then the lease is over, too.
        ("fail", 200 | 409) => history.change(id, token, |grant| grant.is_over = true),
        (_, 409) => history.count("leases lost"),
        _ => panic!("{path}: {status} {answer}"),
    }
}

fn registered(number: usize) -> Record {
    let (user, now) = (format!("u{number}"), Utc::now());
    let body = json!({
        "eventId": format!("e{number}"), "eventType": "UserRegistered", "eventTimestamp": now.to_rfc3339(),
        "payload": {"userId": user, "email": format!("{user}@example.org"), "status": "active"},
    });
    Record {
        partition: (number % 2) as i32,
        key: Some(user.into_bytes()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: now.timestamp_millis(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_notification_has_two_holders_and_none_is_lost() {
    let asked = std::env::var("SIGHTLINE_TEST_CHAOS_SECONDS").ok();
    let asked = asked.map(|seconds| Duration::from_secs(seconds.parse().expect("a number")));
    let mut rng = Rng::with_seed(seed());
    let mut world = World::new(Broker::shared(), Database::create().await, 2).await;
    world
        .set("SIGHTLINE_DOMAINS", "notification")
        .set("SIGHTLINE_NOTIFICATION_BACKOFF_SECONDS", "1")
        .set("SIGHTLINE_NOTIFICATION_MAX_ATTEMPTS", "100");
    let mut running: Vec<Running> = Vec::new();
    for _ in 0..GATEWAYS {
        running.push(world.serve().await);
    }
    let rests = running.iter().map(|running| running.rest.clone()).collect();
    let gateways = Gateways(Arc::new(RwLock::new(rests)));
    let history = Arc::new(History::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(work(gateways.clone(), history.clone(), rng.fork())))
        .collect();
    let written = Arc::new(AtomicUsize::new(0));
    let producer = tokio::spawn({
        let (writer, topic) = (world.broker.writer(), world.topic.clone());
        let (history, written) = (history.clone(), written.clone());
        async move {
            while !history.is_calm.load(Ordering::Relaxed) {
                let first = written.load(Ordering::Relaxed);
                // A slow machine gets no more than it can do.
                if first > history.sent.load(Ordering::Relaxed) + BACKLOG {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                let records: Vec<Record> = (first..first + 20).map(registered).collect();
                writer.write(&topic, &records).await;
                written.store(first + 20, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let ends = Instant::now() + asked.unwrap_or(SHORT);
    while Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(rng.u64(1_500..4_000))).await;
        let killed = rng.usize(..GATEWAYS);
        running[killed].app.process.kill();
        history.count("gateways killed");
        running[killed] = world.serve().await;
        gateways.0.write().expect("no panic")[killed] = running[killed].rest.clone();
    }
    history.is_calm.store(true, Ordering::Relaxed);
    producer.await.expect("no panic");
    let written = written.load(Ordering::Relaxed);
    wait_until(LONG, "everything is sent", async || {
        let sent = history.sent.load(Ordering::Relaxed);
        if sent == written {
            Ok(())
        } else {
            Err(format!("{sent} of {written}"))
        }
    })
    .await;
    history.has_ended.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("no panic");
    }
    let grants = history.grants.lock().expect("no panic");
    for (id, grants) in &*grants {
        let mut grants = grants.clone();
        grants.sort_by_key(|grant| grant.from);
        for pair in grants.windows(2) {
            let [one, next] = pair else { continue };
            assert!(
                !one.is_sent,
                "{id} was leased after it was sent: {grants:#?}"
            );
            assert!(
                one.is_over || next.from >= one.until,
                "{id} has two holders: {grants:#?}"
            );
        }
    }
    let counts = history.counts.lock().expect("no panic");
    println!("{written} notifications, {WORKERS} workers: {counts:?}");
}
