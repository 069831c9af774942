//! Measures what remembering event ids costs: looking up a batch of them and adding it, in tables of
//! several sizes, and expiring old ids.

use std::time::Instant;

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::Bench;
use crate::backlog::wal_position;
use crate::report::Report;

/// Ids of one transaction: what a batch of 2,000 records has of interest, about.
const BATCH: i64 = 1_300;
const BATCHES: usize = 24;

/// A way to remember ids. `$1` are the ids in `look` and `insert`; in `fill`, `<n>` is their number.
struct Shape {
    name: &'static str,
    /// Whether ids are given as text.
    is_text: bool,
    create: &'static str,
    fill: &'static str,
    /// After the filling: an index that is built then is as full as one that grew, half to whole.
    index: &'static str,
    look: &'static str,
    insert: &'static str,
    /// Whether ids expire by a search by time.
    expires: bool,
}

const CREATE: &str = "CREATE TABLE t (event_hash uuid NOT NULL, log_id integer NOT NULL, record_offset bigint NOT NULL, stream_time timestamptz)";
/// Ninety days of ids, of six logs.
const FILL: &str = "INSERT INTO t SELECT md5(i::text)::uuid, i % 6, i, now() - interval '90 days' * (1 - i / <n>.0) FROM generate_series(1, <n>) i";
const LOOK: &str = "SELECT s.event_hash::text FROM unnest($1::uuid[]) AS asked (event_hash) JOIN t s ON s.event_hash = asked.event_hash AND s.log_id = 1";
const UPSERT: &str = "INSERT INTO t SELECT e, 1, 1, now() FROM unnest($1::uuid[]) e ORDER BY e ON CONFLICT (event_hash, log_id) DO UPDATE SET record_offset = EXCLUDED.record_offset, stream_time = EXCLUDED.stream_time";
const EXPIRE: &str = "DELETE FROM t WHERE ctid = ANY (ARRAY(SELECT ctid FROM t WHERE stream_time <= now() - make_interval(days => $1) AND log_id = 1 ORDER BY stream_time LIMIT 10000))";
/// Replaces nine tenths of the ids with later ones.
const LAP: [&str; 3] = [
    "DELETE FROM t WHERE stream_time < now() - interval '9 days'",
    "VACUUM t",
    "INSERT INTO t SELECT gen_random_uuid(), 1, i, now() FROM generate_series(1, <n> * 9 / 10) i",
];

const SHAPES: &[Shape] = &[
    Shape {
        name: "nothing remembered",
        is_text: false,
        create: CREATE,
        fill: "",
        index: "",
        look: "",
        insert: "",
        expires: false,
    },
    Shape {
        name: "uuid, B-tree and BRIN",
        is_text: false,
        create: CREATE,
        fill: FILL,
        index: "CREATE UNIQUE INDEX ON t (event_hash, log_id) WITH (fillfactor = 70); CREATE INDEX ON t USING brin (stream_time)",
        look: LOOK,
        insert: UPSERT,
        expires: true,
    },
    Shape {
        name: "uuid, B-tree, and a B-tree by time (the product's)",
        is_text: false,
        create: CREATE,
        fill: FILL,
        index: "CREATE UNIQUE INDEX ON t (event_hash, log_id) WITH (fillfactor = 70); CREATE INDEX ON t (log_id, stream_time)",
        look: LOOK,
        insert: UPSERT,
        expires: true,
    },
    Shape {
        name: "uuid, a partition for ten days each",
        is_text: false,
        create: "CREATE TABLE t (event_hash uuid NOT NULL, log_id integer NOT NULL, record_offset bigint NOT NULL, stream_time timestamptz) PARTITION BY RANGE (stream_time);
            DO $$ BEGIN FOR i IN 0..9 LOOP EXECUTE format('CREATE TABLE t%s PARTITION OF t FOR VALUES FROM (%L) TO (%L)', i,
            date_trunc('hour', now()) + interval '1 day' - interval '10 days' * (10 - i), date_trunc('hour', now()) + interval '1 day' - interval '10 days' * (9 - i)); END LOOP; END $$",
        fill: FILL,
        index: "CREATE UNIQUE INDEX ON t (event_hash, log_id, stream_time) WITH (fillfactor = 70)",
        look: LOOK,
        insert: "INSERT INTO t SELECT e, 1, 1, now() FROM unnest($1::uuid[]) e ORDER BY e",
        expires: false,
    },
    Shape {
        name: "text, B-tree and BRIN",
        is_text: true,
        create: "CREATE TABLE t (event_id text NOT NULL, log_id integer NOT NULL, record_offset bigint NOT NULL, stream_time timestamptz)",
        fill: "INSERT INTO t SELECT md5(i::text)::uuid::text, i % 6, i, now() - interval '90 days' * (1 - i / <n>.0) FROM generate_series(1, <n>) i",
        index: "CREATE UNIQUE INDEX ON t (event_id, log_id) WITH (fillfactor = 70); CREATE INDEX ON t USING brin (stream_time)",
        look: "SELECT s.event_id FROM unnest($1::text[]) AS asked (event_id) JOIN t s ON s.event_id = asked.event_id AND s.log_id = 1",
        insert: "INSERT INTO t SELECT e, 1, 1, now() FROM unnest($1::text[]) e ORDER BY e ON CONFLICT (event_id, log_id) DO UPDATE SET record_offset = EXCLUDED.record_offset, stream_time = EXCLUDED.stream_time",
        expires: false,
    },
];

pub async fn run(bench: &Bench, report: &mut Report) {
    for remembered in &bench.settings.ids {
        let mut tables = Vec::new();
        for shape in SHAPES
            .iter()
            .filter(|shape| shape.name.contains(&bench.settings.only))
        {
            let row = format!("{remembered} ids: {}", shape.name);
            let pool = PgPool::connect(&bench.database().await)
                .await
                .expect("Postgres answers");
            let fill = shape.fill.replace("<n>", &remembered.to_string());
            let fill = if *remembered > 0 { &fill } else { "" };
            let progress = "CREATE TABLE progress AS SELECT 0 AS n";
            for sql in [
                progress,
                shape.create,
                fill,
                shape.index,
                "VACUUM ANALYZE t",
            ] {
                execute_all(&pool, sql).await;
            }
            if *remembered > 0 {
                let bytes: i64 = sqlx::query_scalar(
                    "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]?$'",
                )
                .fetch_one(&pool)
                .await
                .expect("a size");
                report.add(
                    &row,
                    "bytes/id of table and indexes",
                    bytes as f64 / *remembered as f64,
                );
            }
            tables.push((shape, row, pool));
        }
        for _ in 0..bench.settings.rounds {
            for (shape, row, pool) in &tables {
                // The pages that a checkpoint has written go into the log whole when they change next.
                sqlx::query("CHECKPOINT")
                    .execute(pool)
                    .await
                    .expect("a checkpoint");
                let wal = wal_position(pool).await;
                let times = measure(shape, pool, *remembered).await;
                let ids = (BATCH * BATCHES as i64) as f64;
                report.add(
                    row,
                    "µs/id, commit included",
                    times.iter().sum::<f64>() * 1e6 / ids,
                );
                report.add(row, "of it µs/id to look up", times[0] * 1e6 / ids);
                report.add(row, "of it µs/id to add", times[1] * 1e6 / ids);
                let written = (wal_position(pool).await - wal) as f64;
                report.add(row, "WAL bytes/id after a checkpoint", written / ids);
                let wal = wal_position(pool).await;
                measure(shape, pool, *remembered).await;
                let written = (wal_position(pool).await - wal) as f64;
                report.add(row, "WAL bytes/id later", written / ids);
            }
        }
        for (shape, row, pool) in tables {
            if *remembered > 0 && shape.expires {
                expire(*remembered, &row, &pool, report).await;
            }
            pool.close().await;
        }
    }
}

/// Seconds to look up, to add, and for the rest of the transactions of all batches.
async fn measure(shape: &Shape, pool: &PgPool, remembered: i64) -> [f64; 3] {
    let mut connection = pool.acquire().await.expect("a connection");
    let mut times = [0.0; 3];
    for _ in 0..BATCHES {
        // One in fifty was there before.
        let known: Vec<Uuid> = sqlx::query_scalar(
            "SELECT md5((random() * $1)::bigint::text)::uuid FROM generate_series(1, $2)",
        )
        .bind(remembered as f64)
        .bind(BATCH / 50)
        .fetch_all(&mut *connection)
        .await
        .expect("ids");
        let new: Vec<Uuid> = (0..BATCH)
            .map(|_| uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid())
            .collect();
        let asked = [&known[..], &new[known.len()..]].concat();
        let mut since = Instant::now();
        let mut lap = |step: usize| {
            times[step] += since.elapsed().as_secs_f64();
            since = Instant::now();
        };
        let mut transaction = connection.begin().await.expect("a transaction");
        // What a batch writes in any case.
        sqlx::query("UPDATE progress SET n = n + 1")
            .execute(&mut *transaction)
            .await
            .expect("progress");
        lap(2);
        execute(shape, shape.look, &asked, &mut transaction).await;
        lap(0);
        execute(shape, shape.insert, &new[known.len()..], &mut transaction).await;
        lap(1);
        transaction.commit().await.expect("a commit");
        lap(2);
    }
    times
}

async fn execute(shape: &Shape, sql: &'static str, ids: &[Uuid], connection: &mut PgConnection) {
    let query = match (sql, shape.is_text) {
        ("", _) => return,
        (sql, false) => sqlx::query(sql).bind(ids),
        (sql, true) => sqlx::query(sql).bind(ids.iter().map(Uuid::to_string).collect::<Vec<_>>()),
    };
    query.fetch_all(connection).await.expect(shape.name);
}

async fn execute_all(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .expect("SQL");
}

/// Measures a search for expired ids that finds none: at first, and after nine tenths of the rows were
/// deleted and replaced by later ones.
async fn expire(remembered: i64, row: &str, pool: &PgPool, report: &mut Report) {
    let mut time = async |figure, days: i32| {
        let began = Instant::now();
        let expired = sqlx::query(EXPIRE)
            .bind(days)
            .execute(pool)
            .await
            .expect("expired");
        assert_eq!(expired.rows_affected(), 0, "nothing is that old");
        report.add(row, figure, began.elapsed().as_secs_f64() * 1e3);
    };
    time("ms to find nothing to expire", 91).await;
    for sql in LAP {
        execute_all(pool, &sql.replace("<n>", &remembered.to_string())).await;
    }
    time("ms to find nothing, a lap later", 10).await;
}
