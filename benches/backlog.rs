//! How fast a backlog is projected, and in how much memory: by each domain alone, and by all
//! at once; by `sightline serve`, and by the loop written by hand, which is the upper bound: a thread, a consumer and a
//! connection for each domain and partition, and batches of the same size as the projector's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sightline::domains::Domain;
use sightline::kafka::to_record;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::by_hand::{BATCH_RECORDS, Batch, ByHand, Steps};
use crate::report::Report;
use crate::topic::{Domains, Projected, Topic, names};
use crate::{BY_HAND, Bench, Build, processes};

/// Between the names of domains that are projected together.
const AND: &str = " and ";

pub async fn run(bench: &Bench, report: &mut Report) {
    let topic = Arc::new(Topic::fill(bench).await);
    report.add("the log", "events", topic.events as f64);
    for round in 0..bench.settings.rounds {
        for domains in measured(bench) {
            let mut outcomes = Vec::new();
            for build in bench.in_turn(round) {
                let row = row(domains, build.as_ref());
                outcomes
                    .extend(measure(bench, &topic, domains, build.as_ref(), &row, report).await);
            }
            assert_eq!(outcomes[0], outcomes[1], "both make the same views");
            if round == 0 && domains.len() == bench.domains().len() {
                for (domain, (users, ids, _)) in domains.iter().zip(&outcomes[0]) {
                    let row = format!("the log, {}", domain.domain());
                    report.add(&row, "users", *users as f64);
                    report.add(&row, "event ids remembered", *ids as f64);
                }
            }
        }
    }
    for domains in measured(bench) {
        let rate = |row: &str| report.median(row, "events/s, from the first commit on");
        let this = row(domains, Some(&Build::this()));
        let ratio = rate(&this) / rate(&row(domains, None));
        report.add(&this, "of what is possible by hand", ratio);
    }
}

/// Each domain alone, then all of them, unless `--only` leaves some out.
fn measured(bench: &Bench) -> Vec<Domains> {
    let all = bench.domains();
    let mut measured: Vec<Domains> = all.iter().map(std::slice::from_ref).collect();
    if all.len() > 1 {
        measured.push(all);
    }
    measured.retain(|domains| names(domains, AND).contains(&bench.settings.only));
    measured
}

/// What is measured: a build of the program, or the loop written by hand.
fn row(domains: Domains, build: Option<&Build>) -> String {
    let name = build.map_or(BY_HAND, |build| build.name);
    format!("{}: {name}", names(domains, AND))
}

/// Projects the topic into a new database, and returns what each view came to. Another build may store it in
/// another way, so its views are not compared.
async fn measure(
    bench: &Bench,
    topic: &Arc<Topic>,
    domains: Domains,
    build: Option<&Build>,
    row: &str,
    report: &mut Report,
) -> Option<Vec<(i64, i64, String)>> {
    let this = Build::this();
    let (database, pool) = bench.migrated(build.unwrap_or(&this)).await;
    sqlx::query("CHECKPOINT")
        .execute(&pool)
        .await
        .expect("a checkpoint");
    let wal = wal_position(&pool).await;
    let began = Instant::now();
    match build {
        None => {
            let threads = start_by_hand(topic, domains, &database, &pool).await;
            add(report, row, &topic.projected(domains, &pool, began).await);
            finish_by_hand(threads, report, row).await;
        }
        Some(build) => {
            let app = topic.serve(build, domains, &database);
            add(report, row, &topic.projected(domains, &pool, began).await);
            let memory = processes::peak_memory(app.process.pid);
            report.add(row, "MiB of memory at most", memory);
        }
    }
    let written = (wal_position(&pool).await - wal) as f64;
    report.add(row, "WAL bytes/event", written / topic.events as f64);
    let mut outcomes = None;
    if build.is_none_or(Build::is_this) {
        for domain in domains {
            let outcome = outcome(domain.domain(), &pool).await;
            outcomes.get_or_insert_with(Vec::new).push(outcome);
        }
    }
    pool.close().await;
    bench.drop_database(&database).await;
    outcomes
}

pub async fn wal_position(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        .fetch_one(pool)
        .await
        .expect("a position")
}

/// What a view came to: users (of audit, entries), remembered ids, and a digest of all states.
async fn outcome(domain: &str, pool: &PgPool) -> (i64, i64, String) {
    let (rows, digest) = match domain {
        "audit" => ("entries", "facts::text, '' ORDER BY log_id, sequence"),
        _ => ("users", "state::text, '' ORDER BY user_key"),
    };
    sqlx::query_as(AssertSqlSafe(format!(
        "SELECT count(*), (SELECT coalesce(sum(ids_count), 0)::bigint FROM {domain}_live.event_id_runs),
                md5(string_agg({digest}))
         FROM {domain}_live.{rows}"
    )))
    .fetch_one(pool)
    .await
    .expect("a view")
}

fn add(report: &mut Report, row: &str, projected: &Projected) {
    report.add(row, "events/s, from the first commit on", projected.rate);
    report.add(row, "events/s, the first tenth", projected.first_tenth);
    report.add(row, "events/s, the last tenth", projected.last_tenth);
    let took = projected.took.as_secs_f64();
    report.add(row, "s from start to caught up", took);
}

/// Starts to project the topic by hand, a thread for each domain and partition.
async fn start_by_hand(
    topic: &Arc<Topic>,
    domains: Domains,
    database: &str,
    pool: &PgPool,
) -> Vec<JoinHandle<Steps>> {
    let by_hand = Arc::new(ByHand::begin(topic, domains, pool).await);
    let mut threads = Vec::new();
    for domain in domains {
        for partition in 0..topic.partitions {
            let (by_hand, database, runtime) =
                (Arc::clone(&by_hand), database.to_owned(), Handle::current());
            threads.push(tokio::task::spawn_blocking(move || {
                project(&by_hand, *domain, partition, &database, &runtime)
            }));
        }
    }
    threads
}

/// Projects a partition into a domain's view.
fn project(
    by_hand: &ByHand,
    domain: &'static dyn Domain,
    partition: i32,
    database: &str,
    runtime: &Handle,
) -> Steps {
    let topic = &by_hand.topic;
    let consumer = by_hand.consumer(partition..=partition);
    let end = topic.broker.end(&topic.name, partition);
    let mut connection = runtime
        .block_on(PgConnection::connect(database))
        .expect("Postgres answers");
    let mut steps = Steps::new();
    let mut next = 0;
    while next < end {
        let mut records = Vec::with_capacity(BATCH_RECORDS);
        while records.len() < BATCH_RECORDS && next < end {
            if let Some(message) = consumer.poll(Duration::from_secs(1)) {
                let record = to_record(&message.expect("a record"));
                next = record.offset + 1;
                records.push(record);
            }
        }
        steps.lap("% of time: read from Kafka");
        let batch = Batch::read(domain, &records, &mut steps);
        let applied = async {
            let mut transaction = connection.begin().await?;
            by_hand.apply(&mut transaction, &batch, &mut steps).await?;
            transaction.commit().await?;
            steps.lap("% of time: commit");
            Ok::<(), sqlx::Error>(())
        };
        runtime.block_on(applied).expect("a batch goes through");
    }
    steps
}

/// Where the time went, as the sum over all threads.
async fn finish_by_hand(threads: Vec<JoinHandle<Steps>>, report: &mut Report, row: &str) {
    let mut steps: BTreeMap<&'static str, f64> = BTreeMap::new();
    for thread in threads {
        for (step, time) in thread.await.expect("no panic").times {
            *steps.entry(step).or_default() += time.as_secs_f64();
        }
    }
    let all: f64 = steps.values().sum();
    for (step, time) in steps {
        report.add(row, step, 100.0 * time / all);
    }
}
