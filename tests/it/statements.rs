//! The statements of reads on a migrated database: those that domains share, which the compiler
//! can't check, for each domain; and how many rows a page or a median reads.

use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::ClientConfig;
use serde_json::{Value, json};
use sightline::projector::announcements::Announcements;
use sightline::projector::restores::RestoreCheck;
use sightline::query::lookups::Lookup;
use sightline::query::{Reads, Work, users};
use sightline::{db, domains};
use sightline_testing::database::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const FUNNEL: &str = include_str!("../../src/domains/analytics/sql/get_funnel.sql");
const FEED: &str = include_str!("../../src/domains/order/sql/list_address_changes.sql");
const LAG: &str = include_str!("../../src/query/sql/lag.sql");
const SEARCH: &str = include_str!("../../src/domains/fulfillment/sql/search_addresses.sql");
const SEGMENT: &str = include_str!("../../src/domains/personalization/sql/list_segment.sql");
/// The domains that keep users' histories.
const HISTORIES: [&str; 2] = ["order", "fulfillment"];
/// The rows that a page asks for: one more than it returns.
const LIMIT: u32 = 101;
/// Logs of the feed, and how many entries each has.
const LOGS: u32 = 6;
const ENTRIES: u32 = 2_000;

/// A migrated database with logs, at which every domain has arrived.
async fn migrated() -> (Database, PgPool) {
    let database = Database::create().await;
    let options = database.url.parse().expect("a URL");
    let pool = db::pool(&db::CALLERS, options, 4);
    db::migrate(&pool).await.expect("migrated");
    execute(
        &database,
        "INSERT INTO sightline.logs (cluster_id, topic, topic_identity, partition)
         SELECT 'cluster', 'user.events', 'identity', generate_series(0, 5);
         INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, read, applied)
         SELECT domain, version, log_id, 0, 9, 9, 9 FROM sightline.views, sightline.logs",
    )
    .await;
    (database, pool)
}

async fn execute(database: &Database, statements: &str) {
    let mut connection = PgConnection::connect(&database.url)
        .await
        .expect("it answers");
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .expect("done");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_domain_finds_users_by_the_shared_statements() {
    let (database, pool) = migrated().await;
    let work = Work {
        pool: pool.clone(),
        announcements: Announcements::default(),
        restores: RestoreCheck {
            pool: pool.clone(),
            kafka: ClientConfig::new(),
            group_prefix: "none".to_owned(),
        },
        stop: CancellationToken::new(),
    };
    let reads = Reads::new(
        domains::names(),
        pool.clone(),
        vec![],
        work,
        None,
        Duration::ZERO,
    );
    // Audit has no rows of users.
    let with_users = domains::names().into_iter();
    for domain in with_users.filter(|domain| *domain != "audit") {
        let key = sightline::event::hash16(b"user-1");
        execute(
            &database,
            &format!(
                "INSERT INTO {domain}_live.users VALUES ('{key}', 'user-1', 2, 0, 1, '{{\"of\":\"{domain}\"}}')"
            ),
        )
        .await;
        let state = json!({"of": domain}).to_string();

        let mut connection = pool.acquire().await.expect("a connection");
        let (keys, ids) = ([Uuid::nil(), key], ["unknown".into(), "user-1".into()]);
        let found = users::find(&mut connection, domain, &keys, &ids).await;
        let found = found.unwrap_or_else(|error| panic!("{domain}: {error}"));
        assert_eq!(found.documents, [None, Some(state.clone())]);
        assert_eq!(found.logs.len(), 6);
        // Where all are known and made from one log, only these logs count.
        let found = users::find(&mut connection, domain, &keys[1..], &ids[1..]).await;
        let found = found.expect("an answer");
        assert_eq!(found.documents, [Some(state.clone())]);
        assert_eq!((found.logs, found.offsets), (vec![2], vec![9]));
        // Another id of the same hash is not the user.
        let found = users::find(&mut connection, domain, &keys[1..], &["other".into()]).await;
        assert_eq!(found.expect("an answer").documents, [None]);

        let lookup = Box::leak(Box::new(users::lookup(domain, "test")));
        let expected = [("user-1", Some(&state), 1), ("unknown", None, 6)];
        for (id, document, positions) in expected {
            let found = reads.find(lookup, id).await.expect("an answer");
            let reflected = found.position.token.iter().count();
            assert_eq!((found.body.as_ref(), reflected), (document, positions));
        }
        all_find(&reads, lookup, &state, 1).await;
        // A row that is made from several logs reflects all of them.
        let several = format!("UPDATE {domain}_live.users SET log_id = NULL");
        execute(&database, &several).await;
        all_find(&reads, lookup, &state, 6).await;

        if !HISTORIES.contains(&domain) {
            continue;
        }
        execute(
            &database,
            &format!(
                "INSERT INTO {domain}_live.user_history VALUES
                 ('{key}', 1, 1, '2026-01-01', 2, 7, '\"second\"'), ('{key}', 1, 0, '2026-01-01', 2, 7, '\"first\"'),
                 ('{key}', 2, 0, '2026-03-01', 2, 8, '\"later\"')"
            ),
        )
        .await;
        let instant = "2026-02-01T00:00:00Z".parse().expect("an instant");
        let found = users::as_of::<String>(&reads, domain, "user-1", instant).await;
        let found = found.unwrap_or_else(|error| panic!("{domain}: {error}"));
        let facts: Vec<_> = found
            .body
            .facts
            .into_iter()
            .map(|entry| entry.fact)
            .collect();
        assert_eq!(
            (found.body.document, facts),
            (Some(state), vec!["first".into(), "second".into()])
        );
    }
}

/// Callers that look up the same user at once, and share statements, all find this state and so many positions.
async fn all_find(reads: &Reads, lookup: &'static Lookup, state: &String, positions: usize) {
    let callers = (0..50).map(|_| reads.find(lookup, "user-1"));
    for found in join_all(callers).await {
        let found = found.expect("an answer");
        let reflected = found.position.token.iter().count();
        assert_eq!((found.body.as_ref(), reflected), (Some(state), positions));
    }
}

/// Runs a statement as reads do, and returns how many rows of a table it read, with this kind of scan alone.
async fn rows_read(
    pool: &PgPool,
    statement: &str,
    types: &str,
    values: &str,
    (scan, table): (&str, &str),
) -> f64 {
    let mut connection = pool.acquire().await.expect("a connection");
    let statements = format!(
        "PREPARE page ({types}) AS {statement};
         EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE page ({values});
         DEALLOCATE page"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(statements))
        .fetch_all(&mut *connection)
        .await
        .expect("a plan");
    let plan: Value = rows[0].get(0);
    let mut read = 0.0;
    count(&plan[0]["Plan"], (scan, table), &mut read);
    read
}

/// Adds the rows of a table that the nodes of a plan have read.
fn count(node: &Value, (scan, table): (&str, &str), read: &mut f64) {
    let figure = |name: &str| node[name].as_f64().unwrap_or_default();
    if node["Relation Name"] == table {
        assert_eq!(node["Node Type"], scan, "{node}");
        *read +=
            figure("Actual Loops") * (figure("Actual Rows") + figure("Rows Removed by Filter"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        count(child, (scan, table), read);
    }
}

/// It is read every second, beside what is projected.
#[tokio::test(flavor = "multi_thread")]
async fn the_lag_reads_each_heartbeat_once_however_many_partitions_there_are() {
    let (database, pool) = migrated().await;
    execute(
        &database,
        "INSERT INTO sightline.heartbeats
         SELECT domain, version, gen_random_uuid(), now(), array_agg(log_id), array_agg(0::bigint),
                array_agg(now()), array_agg(1::float8), array_agg(NULL::text)
         FROM sightline.progress
         GROUP BY domain, version",
    )
    .await;
    let domains = domains::names();
    let code_versions = vec!["9"; domains.len()].join(",");
    let values = format!("'{{{}}}', '{{{code_versions}}}'", domains.join(","));
    let heartbeats = ("Index Scan", "heartbeats");
    let read = rows_read(&pool, LAG, "text[], integer[]", &values, heartbeats).await;
    assert_eq!(read, domains.len() as f64);
}

/// As after a rebuild: Postgres has no statistics yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_hardly_more_rows_than_it_returns() {
    let (database, pool) = migrated().await;
    execute(
        &database,
        &format!(
            "ALTER TABLE order_live.address_changes SET (autovacuum_enabled = off);
             INSERT INTO order_live.address_changes
             SELECT log, n, 0, md5(n::text)::uuid, n, false, NULL, '2026-01-01', repeat('x', 800)
             FROM generate_series(1, {LOGS}) AS log, generate_series(1, {ENTRIES}) AS n;
             ALTER TABLE fulfillment_live.shipping_addresses SET (autovacuum_enabled = off);
             INSERT INTO fulfillment_live.shipping_addresses
                 (address_key, user_key, address_id, user_id, address, country_key, status)
             SELECT md5(n::text)::uuid, md5(n::text)::uuid, n, n, repeat('x', 800), md5('DE')::uuid, status
             FROM unnest(array['valid', 'invalid']) AS status, generate_series(1, {LOGS} * {ENTRIES}) AS n
             ON CONFLICT DO NOTHING"
        ),
    )
    .await;

    let types = "integer[], bigint[], bigint[], bigint, uuid, boolean, timestamptz, integer, text";
    let user = "md5('1')::uuid";
    for (position, after, user, most) in [
        // None of the entries is significant.
        ("significant ones", [0; 6], "NULL", 0),
        ("the beginning", [0; 6], "NULL", LIMIT + LOGS),
        ("the middle", [1_000; 6], "NULL", LIMIT + LOGS),
        ("near the end", [1_990; 6], "NULL", LIMIT + LOGS),
        ("the end", [2_000; 6], "NULL", 0),
        // The page is of one log.
        (
            "the end of all logs but one",
            [0, 2_000, 2_000, 2_000, 2_000, 2_000],
            "NULL",
            LIMIT + LOGS,
        ),
        // What is left of short logs is read in rounds.
        (
            "the end of most logs",
            [0, 1_995, 1_995, 1_990, 0, 2_000],
            "NULL",
            2 * LIMIT,
        ),
        ("a user", [0; 6], user, LOGS),
    ] {
        let significant = if position == "significant ones" {
            "true"
        } else {
            "NULL"
        };
        let values = format!(
            "'{{1,2,3,4,5,6}}', array{after:?}, '{{0,0,0,0,0,0}}', {LIMIT}, {user}, {significant}, NULL, 1, '1'"
        );
        let (types, values) = (
            format!("{types}, bigint, boolean"),
            format!("{values}, 8388608, false"),
        );
        let read = rows_read(
            &pool,
            FEED,
            &types,
            &values,
            ("Index Scan", "address_changes"),
        )
        .await;
        assert!(read <= f64::from(most), "feed, {position}: {read} rows");
    }

    let types = "text[], uuid, bigint, uuid, uuid";
    let statuses = "'{valid,invalid}'";
    for country in ["NULL", "md5('DE')::uuid"] {
        for after in ["0", "8"] {
            let after = format!("{after}0000000-0000-0000-0000-000000000000");
            let values = format!("{statuses}, {country}, {LIMIT}, '{after}', '{after}'");
            let read = rows_read(
                &pool,
                SEARCH,
                types,
                &values,
                ("Index Scan", "shipping_addresses"),
            )
            .await;
            // A page of each status.
            assert!(
                read <= f64::from(2 * LIMIT),
                "search, {country}, {after}: {read} rows"
            );
        }
    }
}

/// Half of the users have registered in one year, half in the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_median_reads_its_bucket_up_to_the_middle() {
    const USERS: u32 = 10_000;
    let (database, pool) = migrated().await;
    execute(
        &database,
        &format!(
            "ALTER TABLE analytics_live.funnel_times SET (autovacuum_enabled = off);
             INSERT INTO analytics_live.funnel_times (step, bucket, registered_on, micros, user_key)
             SELECT 1, 20, date '2024-07-01' + n % 365, n, md5(n::text)::uuid FROM generate_series(1, {USERS}) AS n;
             INSERT INTO analytics_live.funnel_counts
             SELECT registered_on, 1, 20, 0, count(*) FROM analytics_live.funnel_times GROUP BY registered_on"
        ),
    )
    .await;
    let range = "'2024-07-01', '2025-06-30'";
    for statistics in ["", "ANALYZE analytics_live.funnel_times"] {
        execute(&database, statistics).await;
        let read = rows_read(
            &pool,
            FUNNEL,
            "date, date",
            range,
            ("Index Only Scan", "funnel_times"),
        )
        .await;
        assert!(
            read <= f64::from(USERS / 2 + 3),
            "{statistics}: {read} rows"
        );
    }
}

/// Facets of 20,000 users and more are merged, smaller ones are looked up: both find the same users.
#[tokio::test(flavor = "multi_thread")]
async fn segments_of_large_and_small_facets_are_exact() {
    let (database, pool) = migrated().await;
    execute(
        &database,
        "INSERT INTO personalization_live.segment_members
         SELECT md5(step::text)::uuid, lpad(n::text, 6, '0')
         FROM unnest(array[1, 2, 3, 1000]) AS step, generate_series(0, 59999, step) AS n",
    )
    .await;
    for steps in [
        vec![1],
        vec![2, 1],
        vec![2, 3],
        vec![3, 1, 2],
        vec![1000],
        vec![1, 1000],
        vec![3, 2, 1000],
        vec![7],
        vec![7, 1],
        vec![2, 7, 3],
    ] {
        let is_found = |n: &usize| {
            steps
                .iter()
                .all(|step| *step != 7 && n.is_multiple_of(*step))
        };
        let expected: Vec<String> = (0..60_000)
            .filter(is_found)
            .map(|n| format!("{n:06}"))
            .collect();
        let names: Vec<String> = steps.iter().map(usize::to_string).collect();
        let facets: Vec<Uuid> =
            sqlx::query_scalar("SELECT md5(step)::uuid FROM unnest($1::text[]) AS step")
                .bind(&names)
                .fetch_all(&pool)
                .await
                .expect("hashes");
        for after in ["", "029999", "059999"] {
            let row = sqlx::query(SEGMENT)
                .bind(&facets)
                .bind(after)
                .bind(11_i64)
                .fetch_one(&pool)
                .await
                .expect("a page");
            let page = expected.iter().filter(|id| id.as_str() > after);
            let page: Vec<String> = page.take(11).cloned().collect();
            let found: Vec<String> = row.get("user_ids!");
            assert_eq!(found, page, "{steps:?} after {after}");
            let total: i64 = row.get("total_size!");
            assert_eq!(total, expected.len() as i64, "{steps:?}");
        }
    }
}
