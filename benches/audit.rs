//! The audit log: how fast chains are verified and entries exported, how long lists of millions of entries take by each filter,
//! and what a flood of failed logins of one account costs beside as many of different accounts.

use std::process::Command;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use fastrand::Rng;
use serde_json::json;
use sightline::domains::audit::Audit;
use sightline_testing::app::{Running, SOON};
use sightline_testing::broker::Record;
use sightline_testing::wait_until;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::load::{Pace, warm, wrk};
use crate::report::Report;
use crate::topic::{Domains, Topic};
use crate::{Bench, Build, floor, processes};

const DOMAINS: Domains = &[&Audit::DEFAULT];
const TIME: Duration = Duration::from_secs(3);
/// Failed logins of a flood.
const FLOOD: usize = 100_000;
/// Different lists of a kind.
const LISTS: usize = 500;

pub async fn run(bench: &Bench, report: &mut Report) {
    verify_and_export(bench, report).await;
    list(bench, report).await;
    for round in 0..bench.settings.rounds {
        // They take turns in going first.
        for accounts in if round % 2 == 0 {
            [1, FLOOD]
        } else {
            [FLOOD, 1]
        } {
            flood(bench, accounts, report).await;
        }
    }
}

/// Verifies and exports the entries of a projected log.
async fn verify_and_export(bench: &Bench, report: &mut Report) {
    let topic = Topic::fill(bench).await;
    let (database, pool) = bench.migrated(&Build::this()).await;
    let began = Instant::now();
    let app = topic.serve(&Build::this(), DOMAINS, &database);
    topic.projected(DOMAINS, &pool, began).await;
    let running = app.ready().await;
    for _ in 0..bench.settings.rounds {
        let began = Instant::now();
        let body = json!({}).to_string();
        let (path, lasts) = ("/v1/audit/entries:verify", "600");
        let headers = [
            ("content-type", "application/json"),
            ("request-timeout", lasts),
        ];
        let post = http::Method::POST;
        let answer = running
            .rest
            .send(post, path, &headers, body.as_bytes())
            .await
            .json();
        assert_eq!(answer["valid"], true, "{answer}");
        let entries = answer["entriesChecked"].as_f64().expect("a number");
        report.add(
            "verification",
            "entries/s",
            entries / began.elapsed().as_secs_f64(),
        );
        let before = processes::peak_memory(running.app.process.pid);
        for (row, accept) in [
            ("export as NDJSON", "application/x-ndjson"),
            ("export as CSV", "text/csv"),
        ] {
            let began = Instant::now();
            let lines = export(&running, accept);
            assert!(lines >= entries, "{lines} of {entries}");
            report.add(row, "entries/s", entries / began.elapsed().as_secs_f64());
        }
        let after = processes::peak_memory(running.app.process.pid);
        report.add("exports", "MiB of memory more", after - before);
    }
    drop(running);
    pool.close().await;
    bench.drop_database(&database).await;
}

/// Exports all entries, and returns how many lines they were.
fn export(running: &Running, accept: &str) -> f64 {
    let url = format!("http://{}/v1/audit/entries", running.rest.address);
    let command = format!("curl --fail --silent --header 'Accept: {accept}' {url} | wc --lines");
    let output = Command::new("sh").args(["-c", &command]).output();
    let output = output.expect("curl and wc");
    let lines = String::from_utf8_lossy(&output.stdout).trim().parse();
    lines.expect("a number")
}

/// Lists entries by each filter, of as many as `--entries` says.
async fn list(bench: &Bench, report: &mut Report) {
    let entries = bench.settings.entries;
    let topic = Topic::create(bench).await;
    let (database, pool) = bench.migrated(&Build::this()).await;
    let running = topic
        .serve(&Build::this(), DOMAINS, &database)
        .ready()
        .await;
    wait_until(SOON, "the topic's partitions are known", async || {
        let logs = sqlx::query_scalar("SELECT count(*) FROM sightline.logs");
        match logs.fetch_one(&pool).await {
            Ok(0_i64) => Err("none is".to_owned()),
            other => other.map_err(|error| error.to_string()),
        }
    })
    .await;
    fill(&pool, entries).await;
    let floor = floor::start(&bench.database().await, floor::Content::default()).await;
    for _ in 0..bench.settings.rounds {
        for (what, paths) in lists(entries) {
            if !what.contains(&bench.settings.only) {
                continue;
            }
            let answer = running.rest.get(&paths[0]).await;
            assert_eq!(answer.status, 200, "{}: {}", paths[0], answer.text());
            warm(&running, &paths).await;
            let (load, ()) = wrk(&running, &paths, Pace::Connections(1), sleep(TIME)).await;
            load.add(report, &format!("{entries} entries: {what}"));
        }
        let constant = vec!["/constant/20000".to_owned()];
        let (load, ()) = wrk(&floor, &constant, Pace::Connections(1), sleep(TIME)).await;
        load.add(report, "a constant of 20,000 bytes");
    }
    drop(running);
    pool.close().await;
    bench.drop_database(&database).await;
}

/// Adds entries of the last year: a user has fifty, an address two hundred; ten administrators have a tenth of all.
async fn fill(pool: &PgPool, entries: i64) {
    sqlx::raw_sql(
        "CREATE FUNCTION key(text) RETURNS uuid LANGUAGE sql IMMUTABLE
         RETURN encode(substring(sha256(convert_to($1, 'UTF8')) FOR 16), 'hex')::uuid",
    )
    .execute(pool)
    .await
    .expect("a function");
    sqlx::query(
        "INSERT INTO audit_live.entries (log_id, sequence, action, partition, record_offset, occurred_at, recorded_at, event_id,
                                         user_key, actor_key, role_key, ip_key, facts, ip_address, user_agent, link)
         SELECT (SELECT min(log_id) FROM sightline.logs), n,
                (ARRAY[1, 2, 3, 6, 11, 11, 11, 12, 13, 24])[1 + n % 10], 0, n,
                now() - n * interval '1 second', now(), 'e-' || n, key(e.user_id), key(e.actor), key(e.role_id), key(e.ip),
                json_strip_nulls(json_build_object('version', '1', 'userId', e.user_id, 'actor', e.actor, 'roleId', e.role_id)),
                e.ip, 'Browser/1', decode(repeat('00', 32), 'hex')
         FROM generate_series(1, $1) n
         CROSS JOIN LATERAL (
             SELECT 'u-' || n * 7919 % ($1 / 50) AS user_id,
                    CASE WHEN n % 10 = 9 THEN 'a-' || n / 10 % 10 END AS actor,
                    CASE WHEN n % 10 = 9 THEN 'r-' || n / 10 % 100 END AS role_id,
                    CASE WHEN n % 10 BETWEEN 4 AND 7 THEN '192.0.' || n * 104729 % ($1 / 200) END AS ip
         ) e",
    )
    .bind(entries)
    .execute(pool)
    .await
    .expect("entries");
    sqlx::raw_sql("VACUUM (ANALYZE) audit_live.entries")
        .execute(pool)
        .await
        .expect("vacuumed");
}

/// The kinds of lists, and paths of each.
fn lists(entries: i64) -> Vec<(&'static str, Vec<String>)> {
    let mut rng = Rng::with_seed(7);
    let mut some = |query: &dyn Fn(&mut Rng) -> String| -> Vec<String> {
        (0..LISTS)
            .map(|_| format!("/v1/audit/entries?{}", query(&mut rng)))
            .collect()
    };
    let user = |rng: &mut Rng| rng.i64(0..entries / 50);
    let ip = |rng: &mut Rng| rng.i64(0..entries / 200);
    let time = |rng: &mut Rng| {
        let time = Utc::now() - TimeDelta::seconds(rng.i64(0..entries));
        time.format("%FT%TZ").to_string()
    };
    vec![
        ("all", some(&|_| String::new())),
        ("a user", some(&|rng| format!("userId=u-{}", user(rng)))),
        (
            "an actor",
            some(&|rng| format!("actor=a-{}", rng.u8(0..10))),
        ),
        (
            "an actor who is the user",
            some(&|rng| format!("actor=u-{}", user(rng))),
        ),
        (
            "a role",
            some(&|rng| format!("roleId=r-{}", rng.u8(0..100))),
        ),
        (
            "an address",
            some(&|rng| format!("ipAddress=192.0.{}", ip(rng))),
        ),
        ("a category", some(&|_| "category=account".to_owned())),
        (
            "an action",
            some(&|_| "action=user_role_assigned".to_owned()),
        ),
        ("failures", some(&|_| "outcome=failure".to_owned())),
        ("a time", some(&|rng| format!("to={}", time(rng)))),
        (
            "a user and an action",
            some(&|rng| format!("userId=u-{}&action=user_logged_in", user(rng))),
        ),
        (
            "an actor and a time",
            some(&|rng| format!("actor=a-{}&to={}", rng.u8(0..10), time(rng))),
        ),
        (
            "an address and failures",
            some(&|rng| format!("ipAddress=192.0.{}&outcome=failure", ip(rng))),
        ),
        (
            "nobody",
            some(&|rng| format!("userId=nobody-{}", rng.u32(..))),
        ),
    ]
}

/// Projects failed logins of so many accounts, all in one window.
async fn flood(bench: &Bench, accounts: usize, report: &mut Report) {
    let mut topic = Topic::create(bench).await;
    let time = Utc::now();
    let records: Vec<Record> = (0..FLOOD)
        .map(|n| {
            let account = format!("u-{}", n % accounts);
            let body = json!({
                "eventId": format!("e-{n}"),
                "eventType": "UserLoginFailed",
                "eventTimestamp": time,
                "payload": {"attemptedUserId": account, "reason": "invalid_credentials", "ipAddress": format!("192.0.{}", n % 1_000)},
            });
            Record {
                partition: (n % accounts) as i32 % topic.partitions,
                key: Some(account.into_bytes()),
                value: Some(body.to_string().into_bytes()),
                headers: Vec::new(),
                timestamp: time.timestamp_millis(),
            }
        })
        .collect();
    topic.broker.writer().write(&topic.name, &records).await;
    topic.events = records.len() as i64;
    let (database, pool) = bench.migrated(&Build::this()).await;
    let app = topic.serve(&Build::this(), DOMAINS, &database);
    let rate = topic.projected(DOMAINS, &pool, Instant::now()).await.rate;
    let row = format!("{FLOOD} failed logins of {accounts} accounts");
    report.add(&row, "events/s", rate);
    let used = processes::processor_time(app.process.pid);
    report.add(
        &row,
        "ms of the gateway's processor per 1,000 events",
        used.as_secs_f64() * 1e6 / FLOOD as f64,
    );
    drop(app);
    pool.close().await;
    bench.drop_database(&database).await;
}
