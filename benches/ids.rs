//! Measures what remembering event ids costs: looking up a batch of them and adding it, with several numbers of ids
//! remembered; as the projector does it, and with a row for each id.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use sightline::projector::ids::{self, Asked, Runs, SeenEvent};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::backlog::wal_position;
use crate::report::Report;
use crate::{Bench, Build};

/// Ids of one transaction: what a batch of 2,000 records has of interest, about.
const BATCH: usize = 1_300;
const BATCHES: usize = 24;
/// The ids are of so many logs, from 1 on.
const LOGS: i32 = 6;
/// Over which time they are spread.
const SPREAD: TimeDelta = TimeDelta::days(90);

/// A way to remember ids.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Nothing,
    RowEach,
    Runs,
}

impl Shape {
    const ALL: [Shape; 3] = [Shape::Nothing, Shape::RowEach, Shape::Runs];

    fn name(self) -> &'static str {
        match self {
            Shape::Nothing => "nothing remembered",
            Shape::RowEach => "a row each, a B-tree, and a B-tree by time",
            Shape::Runs => "runs (the product's)",
        }
    }

    fn tables(self) -> &'static str {
        match self {
            Shape::Nothing => "",
            Shape::RowEach => "t",
            Shape::Runs => "event_id",
        }
    }
}

pub async fn run(bench: &Bench, report: &mut Report) {
    for remembered in &bench.settings.ids {
        let mut databases = Vec::new();
        for shape in Shape::ALL {
            if !shape.name().contains(&bench.settings.only) {
                continue;
            }
            let row = format!("{remembered} ids: {}", shape.name());
            let (_, pool) = bench.migrated(&Build::this()).await;
            fill(shape, &pool, *remembered).await;
            if *remembered > 0 && shape != Shape::Nothing {
                let bytes: i64 = sqlx::query_scalar(
                    "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
                     WHERE relkind = 'r' AND relnamespace = 'order_live'::regnamespace AND starts_with(relname, $1)",
                )
                .bind(shape.tables())
                .fetch_one(&pool)
                .await
                .expect("a size");
                let bytes = bytes as f64 / *remembered as f64;
                report.add(&row, "bytes/id of tables and indexes", bytes);
            }
            databases.push((shape, row, pool));
        }
        for _ in 0..bench.settings.rounds {
            for (shape, row, pool) in &databases {
                // The pages that a checkpoint has written go into the log whole when they change next.
                execute(pool, "CHECKPOINT").await;
                let wal = wal_position(pool).await;
                let times = measure(*shape, pool, *remembered).await;
                let ids = (BATCH * BATCHES) as f64;
                let time = times.iter().sum::<f64>() * 1e6 / ids;
                report.add(row, "µs/id, commit included", time);
                report.add(row, "of it µs/id to look up", times[0] * 1e6 / ids);
                report.add(row, "of it µs/id to add", times[1] * 1e6 / ids);
                let written = (wal_position(pool).await - wal) as f64;
                report.add(row, "WAL bytes/id after a checkpoint", written / ids);
                if *shape == Shape::Runs {
                    let began = Instant::now();
                    ids::maintenance::merge(pool, "order")
                        .await
                        .expect("merged");
                    let time = began.elapsed().as_secs_f64() * 1e6 / ids;
                    report.add(row, "µs/id to merge them later", time);
                }
            }
        }
        for (_, _, pool) in databases {
            pool.close().await;
        }
    }
}

/// Fills a new database with ids, spread over the logs.
async fn fill(shape: Shape, pool: &PgPool, remembered: i64) {
    execute(pool, "CREATE TABLE rest AS SELECT 0 AS n").await;
    match shape {
        Shape::Nothing => {}
        Shape::RowEach => {
            let table = format!(
                "CREATE TABLE order_live.t (event_hash uuid NOT NULL, log_id integer NOT NULL, record_offset bigint NOT NULL,
                                            applied_time timestamptz);
                 INSERT INTO order_live.t
                 SELECT md5(i::text)::uuid, 1 + i % {LOGS}, i, now() - interval '90 days' * (1 - i / {remembered}.0)
                 FROM generate_series(1, {remembered}) i;
                 CREATE UNIQUE INDEX ON order_live.t (event_hash, log_id) WITH (fillfactor = 70);
                 CREATE INDEX ON order_live.t (log_id, applied_time);
                 VACUUM ANALYZE order_live.t"
            );
            for sql in table.split(';') {
                execute(pool, sql).await;
            }
        }
        Shape::Runs => {
            let mut connection = in_schema(pool).await;
            let began = Utc::now() - SPREAD;
            for first in (0..remembered).step_by(BATCH) {
                let mut batch = BTreeMap::new();
                for offset in first..remembered.min(first + BATCH as i64) {
                    batch.insert(id_of(offset), event(offset, began, remembered));
                }
                let log_id = 1 + (first / BATCH as i64 % i64::from(LOGS)) as i32;
                ids::remember(&mut connection, [(log_id, &batch)])
                    .await
                    .expect("remembered");
                // The projector does this every two seconds, and Postgres once a minute. It takes ninety days.
                if first / BATCH as i64 % 60 == 59 {
                    ids::maintenance::merge(pool, "order")
                        .await
                        .expect("merged");
                    vacuum(pool).await;
                }
            }
            vacuum(pool).await;
        }
    }
}

async fn vacuum(pool: &PgPool) {
    for table in ["event_id_runs", "event_id_blocks"] {
        execute(pool, &format!("VACUUM ANALYZE order_live.{table}")).await;
    }
}

fn event(offset: i64, began: DateTime<Utc>, remembered: i64) -> SeenEvent {
    let share = offset as f64 / remembered as f64;
    let millis = SPREAD.num_milliseconds() as f64 * share;
    SeenEvent {
        offset,
        applied_time: began + TimeDelta::milliseconds(millis as i64),
    }
}

/// The id of the n-th event that is there.
fn id_of(n: i64) -> Uuid {
    sightline::event::hash16(&n.to_be_bytes())
}

/// A connection that names the version's tables.
async fn in_schema(pool: &PgPool) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    let mut connection = pool.acquire().await.expect("a connection");
    sqlx::query("SELECT set_config('search_path', 'order_live', false)")
        .execute(&mut *connection)
        .await
        .expect("a schema");
    connection
}

/// Seconds to look up, to add, and for the rest of the transactions of all batches.
async fn measure(shape: Shape, pool: &PgPool, remembered: i64) -> [f64; 3] {
    let mut connection = in_schema(pool).await;
    let runs = Runs::read(&mut connection, &[1], &[]).await.expect("runs");
    let mut runs = runs.into_iter().next().expect("a log");
    let mut times = [0.0; 3];
    for _ in 0..BATCHES {
        // One in fifty was there before.
        let known = (0..BATCH / 50).map(|_| id_of(fastrand::i64(0..remembered.max(1))));
        let new: Vec<Uuid> = (0..BATCH - BATCH / 50)
            .map(|_| uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid())
            .collect();
        let asked: Vec<Uuid> = known.chain(new.iter().copied()).collect();
        let mut since = Instant::now();
        let mut lap = |step: usize| {
            times[step] += since.elapsed().as_secs_f64();
            since = Instant::now();
        };
        let mut transaction = connection.begin().await.expect("a transaction");
        // What a batch writes in any case.
        sqlx::query("UPDATE public.rest SET n = n + 1")
            .execute(&mut *transaction)
            .await
            .expect("written");
        lap(2);
        match shape {
            Shape::Nothing => {}
            Shape::RowEach => look_up_rows(&asked, &mut transaction).await,
            Shape::Runs => {
                let asked = Asked {
                    log_id: 1,
                    runs: &runs,
                    hashes: asked,
                };
                let found = ids::seen(&mut transaction, &[asked])
                    .await
                    .expect("an answer");
                for found in found {
                    runs = found.runs.unwrap_or(runs);
                }
            }
        }
        lap(0);
        match shape {
            Shape::Nothing => {}
            Shape::RowEach => add_rows(&new, &mut transaction).await,
            Shape::Runs => {
                let event = event(remembered, Utc::now() - SPREAD, remembered.max(1));
                let new: BTreeMap<Uuid, SeenEvent> = new.iter().map(|id| (*id, event)).collect();
                let added = ids::remember(&mut transaction, [(1, &new)])
                    .await
                    .expect("remembered");
                for (_, run) in added {
                    runs.add(run);
                }
            }
        }
        lap(1);
        transaction.commit().await.expect("a commit");
        lap(2);
    }
    times
}

async fn look_up_rows(ids: &[Uuid], connection: &mut PgConnection) {
    sqlx::query(
        "SELECT s.event_hash, s.record_offset, s.applied_time FROM unnest($1::uuid[]) AS asked (event_hash)
         JOIN t s ON s.event_hash = asked.event_hash AND s.log_id = 1",
    )
    .bind(ids)
    .fetch_all(connection)
    .await
    .expect("an answer");
}

async fn add_rows(ids: &[Uuid], connection: &mut PgConnection) {
    sqlx::query(
        "INSERT INTO t SELECT e, 1, 1, now() FROM unnest($1::uuid[]) e ORDER BY e
         ON CONFLICT (event_hash, log_id) DO UPDATE SET record_offset = EXCLUDED.record_offset, applied_time = EXCLUDED.applied_time",
    )
    .bind(ids)
    .execute(connection)
    .await
    .expect("written");
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .expect("SQL");
}
