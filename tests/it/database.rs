//! What the program needs of its database: rights, encoding, TLS, and where its migrations are recorded.

use std::path::Path;

use serde_json::json;
use sightline_testing::app::{App, SOON, World};
use sightline_testing::authority::Authority;
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Depth, Ends, assert_answers, assert_books, caught_up, folded};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::operations::{built, project};
use sightline_testing::wait_until;
use sqlx::{AssertSqlSafe, PgPool};

const SHAPE: Shape = Shape {
    records: 300,
    partitions: 2,
    users: 20,
};

/// The rights that docs/operations.md asks for.
const DOCUMENTED: &str = "CONNECT, CREATE";

async fn pool(database: &Database) -> PgPool {
    PgPool::connect(&database.url).await.expect("it answers")
}

async fn relations(pool: &PgPool, schema: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace::regnamespace::text = $1 AND relkind = 'r'",
    )
    .bind(schema)
    .fetch_all(pool)
    .await
    .expect("an answer")
}

/// Runs `migrate`, which must fail with one line; returns the line.
async fn refused(world: &World) -> String {
    let output = world.run(&["migrate"]).await;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Waits until the program warns, and returns what the line says.
async fn warned(app: &App) -> String {
    wait_until(SOON, "a warning", async || {
        let lines = app.log();
        let warning = lines.iter().find(|line| line["level"] == "WARN");
        warning
            .map(|line| line["error"].to_string())
            .ok_or_else(|| format!("{lines:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_the_documented_rights_migrates_projects_and_rebuilds() {
    let mut world = World::shared(SHAPE.partitions).await;
    let (role, url) = world.database.create_role(DOCUMENTED).await;
    world.set("SIGHTLINE_DATABASE_URL", &url);
    let output = world.run(&["migrate"]).await;
    assert!(output.status.success(), "{output:?}");

    let log = generate(seed(), SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;

    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", ends.values().sum()).await;
    project(&running.rest, "order", "switch", json!({})).await;
    project(&running.rest, "order", "drop", json!({})).await;
    assert_answers(&running, &fold, Depth::Brief).await;

    let pool = pool(&world.database).await;
    assert_eq!(relations(&pool, "public").await, Vec::<String>::new());
    let owners: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT nspowner::regrole::text FROM pg_namespace WHERE nspname ~ '^(sightline|order_|fulfillment_)'",
    )
    .fetch_all(&pool)
    .await
    .expect("an answer");
    assert_eq!(owners, [role]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_may_not_do_is_named() {
    let mut world = World::shared(1).await;
    let (_, url) = world.database.create_role("CONNECT").await;
    world.set("SIGHTLINE_DATABASE_URL", &url);
    let named = format!("permission denied for database {}", world.database.name());
    let line = refused(&world).await;
    assert!(line.contains("42501") && line.contains(&named), "{line}");

    let running = world.launch().listening().await;
    let warning = warned(&running.app).await;
    assert!(
        warning.contains("42501") && warning.contains(&named),
        "{warning}"
    );
    assert_eq!(running.admin.get("/readyz").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_version_carries_the_grants_of_the_live_one() {
    let world = World::shared(SHAPE.partitions).await;
    let (reader, url) = world.database.create_role("CONNECT").await;
    let log = generate(seed(), SHAPE);
    let (_, ends) = folded(&log, SHAPE.partitions);
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    let pool = pool(&world.database).await;
    for grant in [
        format!("GRANT USAGE ON SCHEMA order_live TO {reader}"),
        format!("GRANT SELECT ON order_live.users TO {reader}"),
        format!("GRANT SELECT (version) ON order_live.view_version TO {reader} WITH GRANT OPTION"),
        "GRANT SELECT ON order_live.address_changes TO PUBLIC".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(grant))
            .execute(&pool)
            .await
            .expect("the superuser may do this");
    }
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", ends.values().sum()).await;
    project(&running.rest, "order", "switch", json!({})).await;

    let gateway = PgPool::connect(&url).await.expect("it answers");
    for allowed in [
        "SELECT FROM order_live.users",
        "SELECT version FROM order_live.view_version",
        "SELECT FROM order_live.address_changes",
    ] {
        let answer = sqlx::query(allowed).fetch_all(&gateway).await;
        answer.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    for refused in [
        "SELECT ready FROM order_live.view_version",
        "SELECT FROM order_live.event_id_runs",
        "DELETE FROM order_live.users",
    ] {
        let answer = sqlx::query(refused).fetch_all(&gateway).await;
        let error = answer.expect_err(refused).to_string();
        assert!(error.contains("permission denied"), "{refused}: {error}");
    }
}

/// Refuses every change of a progress row of the order domain, as an unavailable database does.
const REFUSE: &str = "
    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'cannot_connect_now'; END $$;
    CREATE TRIGGER refuse BEFORE UPDATE ON sightline.progress
    FOR EACH ROW WHEN (OLD.domain = 'order') EXECUTE FUNCTION refuse()";

/// Ends that, after what another owner does that projects the record in question.
const ACCEPT: &str = "
    DROP TRIGGER refuse ON sightline.progress;
    UPDATE sightline.progress SET epoch = epoch + 1, next_offset = next_offset + 1, read = read + 1, skipped = skipped + 1
    WHERE domain = 'order'";

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_owner_writes_no_failure() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 0)])).await;
    let pool = pool(&world.database).await;
    let find = "SELECT log_id, version, epoch FROM sightline.progress WHERE domain = 'order'";
    let row: (i32, i32, i64) = sqlx::query_as(find).fetch_one(&pool).await.expect("a row");
    let (log_id, version, epoch) = row;
    for (epoch, expected) in [
        (epoch - 1, (false, None)),
        (epoch, (true, Some("tail_lost"))),
    ] {
        sqlx::query(include_str!("../../src/projector/sql/note_lost_tail.sql"))
            .bind("order")
            .bind(version)
            .bind(log_id)
            .bind(epoch)
            .bind(0_i64)
            .execute(&pool)
            .await
            .expect("an answer");
        sqlx::query(include_str!("../../src/projector/sql/set_failure.sql"))
            .bind("order")
            .bind(version)
            .bind(vec![log_id])
            .bind(vec![epoch])
            .bind("tail_lost")
            .execute(&pool)
            .await
            .expect("an answer");
        let find = "SELECT lost_tail, failure FROM sightline.progress WHERE domain = 'order'";
        let found: (bool, Option<String>) =
            sqlx::query_as(find).fetch_one(&pool).await.expect("a row");
        assert_eq!((found.0, found.1.as_deref()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outage_of_a_partition_is_logged_once_and_so_is_its_end() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 0)])).await;
    let pool = pool(&world.database).await;
    let logged = async |message: &str, times: usize| {
        wait_until(SOON, message, async || {
            let lines = running.app.log();
            let of_order = lines.iter().filter(|line| line["domain"] == "order");
            let found = of_order
                .filter(|line| {
                    line["message"]
                        .as_str()
                        .is_some_and(|m| m.starts_with(message))
                })
                .count();
            (found == times)
                .then_some(())
                .ok_or_else(|| format!("{found}, not {times}"))
        })
        .await;
    };
    let record = Record {
        partition: 0,
        key: Some(b"u-1".to_vec()),
        value: Some(b"{}".to_vec()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    };
    for outages in 1..=2 {
        sqlx::raw_sql(REFUSE)
            .execute(&pool)
            .await
            .expect("the superuser may do this");
        world
            .broker
            .writer()
            .write(&world.topic, std::slice::from_ref(&record))
            .await;
        logged("projection failed", outages).await;
        sqlx::raw_sql(ACCEPT)
            .execute(&pool)
            .await
            .expect("the superuser may do this");
        // Nothing is left to commit: the partition is quiet.
        logged("projecting again", outages).await;
        logged("projection failed", outages).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_migrations_moves_from_public_once() {
    let world = World::shared(1).await;
    assert!(world.run(&["migrate"]).await.status.success());
    let pool = pool(&world.database).await;
    let count = || async {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sightline._sqlx_migrations");
        count.fetch_one(&pool).await.expect("an answer")
    };
    let all = count().await;
    // Where a former release kept it.
    sqlx::query("ALTER TABLE sightline._sqlx_migrations SET SCHEMA public")
        .execute(&pool)
        .await
        .expect("moved");
    let migrate = || world.run(&["migrate"]);
    let (a, b, c) = tokio::join!(migrate(), migrate(), migrate());
    for output in [a, b, c] {
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(count().await, all);
    assert_eq!(relations(&pool, "public").await, Vec::<String>::new());
    world.serve().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_create_the_table_once_beside_another_programs() {
    let world = World::shared(1).await;
    let pool = pool(&world.database).await;
    for statement in [
        "CREATE TABLE public._sqlx_migrations (version bigint PRIMARY KEY, checksum bytea)",
        "INSERT INTO public._sqlx_migrations VALUES (1, 'of another program')",
    ] {
        sqlx::query(statement)
            .execute(&pool)
            .await
            .expect("executed");
    }
    let migrate = || world.run(&["migrate"]);
    let (a, b, c) = tokio::join!(migrate(), migrate(), migrate());
    for output in [a, b, c] {
        assert!(output.status.success(), "{output:?}");
    }
    world.serve().await;
    assert_eq!(relations(&pool, "public").await, ["_sqlx_migrations"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_other_than_utf8_ends_the_start() {
    let options = |encoding| {
        format!("ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    };
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let database = Database::create_with(&options(encoding)).await;
        let world = World::new(Broker::shared(), database, 1).await;
        let named = format!("encoding {encoding}");
        let line = refused(&world).await;
        assert!(
            line.contains(&named) && line.contains("ENCODING 'UTF8'"),
            "{line}"
        );
        for arguments in [&["serve"][..], &["serve", "--no-migrate"]] {
            let output = world.run(arguments).await;
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert_eq!(text.matches(&named).count(), 1, "{text}");
        }
        assert_eq!(
            relations(&pool(&world.database).await, "sightline").await,
            Vec::<String>::new()
        );
    }
}

/// The database's URL with its certificate checked: against these authorities, and by this host name.
fn verified(database: &Database, mode: &str, host: &str, authorities: &Path) -> String {
    let url = database.url.replace("127.0.0.1", host);
    format!("{url}?sslmode={mode}&sslrootcert={}", authorities.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_by_its_certificate_alone() {
    let (authority, other) = (Authority::create(), Authority::create());
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let (trusted, foreign) = (
        file("ca.pem", &authority.pem),
        file("other.pem", &other.pem),
    );
    let database = Database::with_tls(authority.certify("127.0.0.1")).await;
    let mut world = World::new(Broker::shared(), Database::of(&database), 1).await;

    let good = verified(&database, "verify-full", "127.0.0.1", &trusted);
    world.set("SIGHTLINE_DATABASE_URL", &good);
    let running = world.serve().await;
    let encrypted: Vec<bool> = sqlx::query_scalar(
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'sightline'",
    )
    .fetch_all(&pool(&database).await)
    .await
    .expect("an answer");
    assert_eq!(encrypted, [true]);
    drop(running);

    let other_name = verified(&database, "verify-ca", "localhost", &trusted);
    assert!(
        world
            .set("SIGHTLINE_DATABASE_URL", &other_name)
            .run(&["migrate"])
            .await
            .status
            .success()
    );

    for (url, named) in [
        (
            verified(&database, "verify-full", "127.0.0.1", &foreign),
            "UnknownIssuer",
        ),
        (
            verified(&database, "verify-ca", "127.0.0.1", &foreign),
            "UnknownIssuer",
        ),
        (
            format!("{}?sslmode=verify-full", database.url),
            "UnknownIssuer",
        ),
        (
            verified(&database, "verify-full", "localhost", &trusted),
            "localhost",
        ),
    ] {
        let line = refused(world.set("SIGHTLINE_DATABASE_URL", &url)).await;
        assert!(
            line.contains("TLS: invalid peer certificate") && line.contains(named),
            "{url}: {line}"
        );
        let running = world.launch().listening().await;
        let warning = warned(&running.app).await;
        assert!(
            warning.contains("TLS: invalid peer certificate") && warning.contains(named),
            "{url}: {warning}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let mut world = World::shared(1).await;
    let url = format!("{}?sslmode=require", world.database.url);
    let line = refused(world.set("SIGHTLINE_DATABASE_URL", &url)).await;
    assert!(line.contains("TLS: server does not support TLS"), "{line}");
}
