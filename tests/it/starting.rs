//! Starting, stopping, settings, and the commands `status`, `healthcheck`, `migrate` and `config`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};
use sightline_testing::app::{App, DOMAINS, Running, SOON, World, finish, sightline};
use sightline_testing::broker::Broker;
use sightline_testing::check::{Depth, Ends, assert_answers, assert_books, caught_up, folded};
use sightline_testing::client::customer_path;
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::process::free_port;
use sightline_testing::{unique, wait_until};
use sqlx::{Connection, PgConnection, PgPool};

const SHAPE: Shape = Shape {
    records: 800,
    partitions: 2,
    users: 40,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_before_postgres_and_kafka_and_recovers() {
    let Some(broker) = Broker::private() else {
        return;
    };
    let world = World::new(broker, Database::private().await, SHAPE.partitions).await;
    let log = generate(seed(), SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    world.broker.writer().write(&world.topic, &log).await;
    world.database.kill().await;
    world.broker.kill();

    let mut running = world.launch().listening().await;
    assert_eq!(running.admin.get("/livez").await.status, 200);
    assert_eq!(running.admin.get("/readyz").await.status, 503);
    assert_eq!(running.rest.get(&customer_path("u")).await.status, 503);
    let output = world
        .run(&["status", "--http-addr", &running.rest.address])
        .await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("DATABASE_UNAVAILABLE: "), "{said}");

    world.database.start().await;
    wait_until(SOON, "ready without Kafka", async || {
        match running.admin.try_get("/readyz").await?.status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    // Without Kafka the view has nothing yet, and says so.
    let answer = running.rest.get(&customer_path("nobody")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "VIEW_NOT_READY");

    world.broker.start();
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    assert_eq!(running.app.process.exited(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_before_its_topic() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    world.topic = unique("later");
    let topic = world.topic.clone();
    world.set("SIGHTLINE_KAFKA_TOPICS", &topic);
    let running = world.serve().await;
    let domain = running.rest.get("/v1/consistency/order").await.json();
    assert_ne!(
        domain["state"], "caught_up",
        "a domain without a topic cannot be caught up: {domain}"
    );
    wait_until(SOON, "the log names the missing topic", async || {
        let log = running.app.output();
        let is_named = |line: &str| line.contains("no topic of this name") && line.contains(&topic);
        match log.lines().filter(|line| is_named(line)).count() {
            0 => Err(log),
            _ => Ok(()),
        }
    })
    .await;
    world.broker.create_topic(&topic, SHAPE.partitions).await;
    let log = generate(seed(), SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    world.broker.writer().write(&topic, &log).await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    // The consumers find that it is missing, too, and leave it to the monitor to say so.
    let mut warnings = running.app.log();
    warnings.retain(|line| line["level"] == "WARN");
    let said = |text: &str| {
        let says = |line: &&Value| line["message"].as_str().is_some_and(|m| m.contains(text));
        warnings.iter().filter(says).count()
    };
    assert_eq!(said("no topic of this name"), 1, "{warnings:#?}");
    assert_eq!(said("the log has changed"), 0, "{warnings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_restarts_with_its_schema_first_in_the_search_path() {
    let world = World::shared(1).await;
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("it answers");
    // The default search path, "$user" first, has this effect for a role named sightline.
    sqlx::query(
        "DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET search_path = sightline, public', current_database());
         END $$",
    )
    .execute(&pool)
    .await
    .expect("a setting");
    for _ in 0..2 {
        world.serve().await;
        let output = world.run(&["migrate"]).await;
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_and_exits_with_0_and_the_next_process_continues() {
    let world = World::shared(SHAPE.partitions).await;
    let log = generate(seed(), SHAPE);
    let (fold, ends) = folded(&log, SHAPE.partitions);
    let writer = world.broker.writer();
    let mut rest = &log[..];
    for signal in ["TERM", "INT"] {
        let (now, later) = rest.split_at(SHAPE.records / 3);
        rest = later;
        let mut running = world.serve().await;
        writer.write(&world.topic, now).await;
        running.app.process.signal(signal);
        assert_eq!(
            running.app.process.wait(SOON),
            0,
            "{}",
            running.app.process.output.text()
        );
        assert!(
            running.rest.try_get("/v1/consistency").await.is_err(),
            "the port is closed"
        );
    }
    writer.write(&world.topic, rest).await;
    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_print_one_line_and_exit_with_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::File::create(&path)
            .expect("writable")
            .write_all(content.as_bytes())
            .expect("written");
        path.display().to_string()
    };
    let unknown_key = file("unknown.toml", "http_adr = \"127.0.0.1:0\"\n");
    let no_toml = file("broken.toml", "http_addr = = \n");
    let secret = file("secret", "postgres://u:hunter2@127.0.0.1/db");
    // The setting, its value (`None`: missing), and the name that the line must contain.
    let cases = [
        ("SIGHTLINE_DATABASE_URL", None, "DATABASE_URL"),
        (
            "SIGHTLINE_DATABASE_URL",
            Some("mysql://u:hunter2@db/x"),
            "DATABASE_URL",
        ),
        (
            "SIGHTLINE_DATABASE_URL_FILE",
            Some(secret.as_str()),
            "DATABASE_URL",
        ),
        (
            "SIGHTLINE_DATABASE_URL",
            Some("postgres://u:hunter2@127.0.0.1:1/db?sslpassword=hunter2"),
            "\"sslpassword\"",
        ),
        (
            "SIGHTLINE_DATABASE_DIRECT_URL",
            Some("postgres://u@127.0.0.1:1/db?sslmode=disable&sslkeypassphrase=hunter2"),
            "\"sslkeypassphrase\"",
        ),
        (
            "SIGHTLINE_DATABASE_URL",
            Some("postgres://u@127.0.0.1:1/db?sslrootcert=/no/such/ca.pem&password=hunter2"),
            "sslrootcert",
        ),
        (
            "SIGHTLINE_DATABASE_URL",
            Some("postgres://u:hunter2@127.0.0.1:1/db?sslmode=sure"),
            "sslmode must be one of: disable, allow, prefer, require, verify-ca, verify-full",
        ),
        (
            "SIGHTLINE_DATABASE_URL",
            Some("postgres://u:1?hunter2=x@127.0.0.1:1/db"),
            "percent-encoded",
        ),
        (
            "SIGHTLINE_DATABASE_DIRECT_URL_FILE",
            Some("postgres://u:hunter2@127.0.0.1:1/db"),
            "DATABASE_DIRECT_URL_FILE",
        ),
        ("SIGHTLINE_KAFKA_BROKERS", None, "KAFKA_BROKERS"),
        (
            "SIGHTLINE_KAFKA_BROKERS",
            Some("sasl://u:hunter2@127.0.0.1:1"),
            "KAFKA_BROKERS",
        ),
        (
            "SIGHTLINE_KAFKA_PROPERTIES",
            Some("sasl.password=x,hunter2=y"),
            "after sasl.password",
        ),
        ("SIGHTLINE_KAFKA_START", Some("yesterday"), "KAFKA_START"),
        (
            "SIGHTLINE_KAFKA_START",
            Some("2999-01-01T00:00:00Z"),
            "lies ahead",
        ),
        (
            "SIGHTLINE_KAFKA_PROPERTIES",
            Some("sasl.password"),
            "KAFKA_PROPERTIES",
        ),
        (
            "SIGHTLINE_KAFKA_PROPERTIES",
            Some("no.such.property=hunter2"),
            "KAFKA_PROPERTIES",
        ),
        (
            "SIGHTLINE_KAFKA_PROPERTIES",
            Some("client.id=a,client.id=b"),
            "client.id is given twice",
        ),
        (
            "SIGHTLINE_KAFKA_PROPERTIES",
            Some("security.protocol=sasl_plaintext,sasl.username=hunter2,sasl.password=hunter2"),
            "SIGHTLINE_KAFKA_PROPERTIES: security.protocol=sasl_plaintext needs a mechanism",
        ),
        (
            "SIGHTLINE_KAFKA_PROPERTIES",
            Some("fetch.max.bytes=1000"),
            "`fetch.max.bytes` must be >= `message.max.bytes`",
        ),
        ("SIGHTLINE_DOMAINS", Some("order,unheard"), "DOMAINS"),
        ("SIGHTLINE_DOMAINS", Some("order,all"), "all stands alone"),
        ("SIGHTLINE_ROLE", Some("boss"), "ROLE"),
        ("SIGHTLINE_HTTP_ADDR", Some("localhost"), "HTTP_ADDR"),
        ("SIGHTLINE_HTTP_ADDR", Some("0.0.0.0:0"), "ALLOW_OPEN"),
        ("SIGHTLINE_GRPC_ADDR", Some("[::]:0"), "ALLOW_OPEN"),
        ("SIGHTLINE_LOG_FORMAT", Some("xml"), "LOG_FORMAT"),
        ("SIGHTLINE_LOG", Some("=====loud"), "LOG"),
        ("SIGHTLINE_LOG", Some("loud"), "\"loud\" is not a level"),
        (
            "SIGHTLINE_LOG",
            Some("info,loud"),
            "\"loud\" is not a level",
        ),
        ("SIGHTLINE_AUTH", Some("maybe"), "AUTH"),
        (
            "SIGHTLINE_SHUTDOWN_GRACE",
            Some("a while"),
            "SHUTDOWN_GRACE",
        ),
        ("SIGHTLINE_MAX_VALUE_BYTES", Some("-1"), "MAX_VALUE_BYTES"),
        ("SIGHTLINE_DEDUPE_DAYS", Some("0"), "DEDUPE_DAYS"),
        (
            "SIGHTLINE_KAFKA_SETTLE_SECONDS",
            Some("86401"),
            "KAFKA_SETTLE_SECONDS",
        ),
        ("SIGHTLINE_CONFIG", Some(&unknown_key), "http_adr"),
        ("SIGHTLINE_CONFIG", Some(&no_toml), "broken.toml"),
        (
            "SIGHTLINE_CONFIG",
            Some("/no/such/file.toml"),
            "/no/such/file.toml",
        ),
    ];
    for (name, value, named) in cases {
        assert_bad_setting(name, value, named).await;
    }
    let output = finish(sightline(&["serve"])).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for missing in ["SIGHTLINE_DATABASE_URL", "SIGHTLINE_KAFKA_BROKERS"] {
        assert!(said.contains(missing), "{said}");
    }
    let output = finish(sightline(&["dev", "--http-addr", "0.0.0.0:0"])).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.starts_with("sightline: --http-addr: 0.0.0.0:0 is reachable")
            && said.contains("loopback only")
            && !said.contains("ALLOW_OPEN"),
        "{said}"
    );
    let output = finish(sightline(&["serve", "--no-such-flag"])).await;
    assert_eq!(output.status.code(), Some(2));
    let output = finish(sightline(&["no-such-command"])).await;
    assert_eq!(output.status.code(), Some(2));
}

/// Asserts that this value ends the start, and `config`, with one line that contains `named`, and no secret.
async fn assert_bad_setting(name: &str, value: Option<&str>, named: &str) {
    let good = [
        (
            "SIGHTLINE_DATABASE_URL",
            "postgres://u:hunter2@127.0.0.1:1/db",
        ),
        ("SIGHTLINE_KAFKA_BROKERS", "127.0.0.1:1"),
    ];
    let run = async |command: &str| {
        let mut command = sightline(&[command]);
        command.envs(good);
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
        finish(command).await
    };
    let output = run("serve").await;
    let printed = run("config").await;
    assert_eq!(
        (printed.status, &printed.stderr),
        (output.status, &output.stderr)
    );
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(2), "{name}={value:?}: {err}");
    assert_eq!(err.trim_end().lines().count(), 1, "{name}={value:?}: {err}");
    assert!(
        err.to_uppercase().contains(&named.to_uppercase()),
        "{name}={value:?} is not named: {err}"
    );
    assert!(
        out.is_empty() && !err.contains("hunter2") && !err.contains("listening"),
        "{out}{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let mut world = World::shared(1).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let in_use = listener.local_addr().expect("bound").to_string();
    let by_flag = world.run(&["serve", "--http-addr", &in_use]).await;
    let by_variable = world
        .set("SIGHTLINE_HTTP_ADDR", &in_use)
        .run(&["serve"])
        .await;
    // Each names what was used.
    for (output, chosen_by) in [
        (by_flag, "--http-addr"),
        (by_variable, "SIGHTLINE_HTTP_ADDR"),
    ] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let wanted = format!("can't listen on {in_use}; {chosen_by} chooses another address");
        assert!(!output.status.success() && said.contains(&wanted), "{said}");
    }
}

/// Starts the program, which serves what the database has.
async fn serve_without_migrating(world: &World) -> Running {
    let mut command = sightline(&["serve", "--no-migrate"]);
    world.apply(&mut command);
    App::start(&command).listening().await
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_migrates_and_serve_can_leave_that_out() {
    let world = World::shared(1).await;
    let running = serve_without_migrating(&world).await;
    assert_eq!(
        running.admin.get("/readyz").await.status,
        503,
        "not ready without the schema"
    );
    let answer = running.rest.get(&customer_path("nobody")).await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("sightline migrate"),
        "{}",
        answer.text()
    );
    for _ in 0..2 {
        let output = world.run(&["migrate"]).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    wait_until(SOON, "ready after the migration", async || {
        match running.admin.try_get("/readyz").await?.status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    wait_until(SOON, "the empty view is ready", async || {
        match running.rest.try_get(&customer_path("nobody")).await?.status {
            404 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

/// Brings the database back to where the migration that creates search has not run.
const WITHOUT_SEARCH: &str = "
    DELETE FROM sightline._sqlx_migrations WHERE version >= 21;
    DELETE FROM sightline.views WHERE domain = 'search';
    DELETE FROM sightline.domains WHERE domain = 'search';
    DROP SCHEMA search_live CASCADE;";

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_succeeds_on_a_domain_that_is_not_there_yet() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "search");
    assert!(world.run(&["migrate"]).await.status.success());
    let mut connection = PgConnection::connect(&world.database.url)
        .await
        .expect("it answers");
    let done = sqlx::raw_sql(WITHOUT_SEARCH).execute(&mut connection);
    done.await.expect("an unfinished database");
    let running = serve_without_migrating(&world).await;
    for verb in ["rebuild", "pause", "resume"] {
        let path = format!("/v1/projections/search/{verb}");
        let answer = running.rest.post(&path, &json!({})).await;
        let names_the_way_out = answer.text().contains("sightline migrate");
        assert!(
            answer.status == 503 && names_the_way_out,
            "{verb}: {}: {}",
            answer.status,
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_counts_as_unset() {
    let mut command = sightline(&["config"]);
    command.envs([
        ("SIGHTLINE_DATABASE_URL", "postgres://127.0.0.1:1/none"),
        ("SIGHTLINE_KAFKA_BROKERS", "127.0.0.1:1"),
        ("SIGHTLINE_CONFIG", ""),
        ("SIGHTLINE_HTTP_ADDR", ""),
    ]);
    let output = finish(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// What `--watch` prints to stdout is one document a line, also while no gateway answers.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_watch_go_to_stderr() {
    let address = format!("127.0.0.1:{}", free_port());
    for command in [&["status"][..], &["projections", "list"]] {
        let mut watch = sightline(command);
        watch
            .args(["--watch", "--json", "--http-addr", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = watch.spawn().expect("it starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("piped"));
        let first = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            stderr.read_line(&mut said).map(|_| said)
        });
        let first = tokio::time::timeout(SOON, first).await;
        process.kill().expect("it runs");
        let said = first.expect("a line in time").expect("no panic");
        let said = said.expect("UTF-8");
        let output = process.wait_with_output().expect("it ends");
        assert!(said.contains("no gateway listens there"), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{command:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_healthcheck_and_help_print_what_they_must() {
    let mut world = World::shared(2).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 0), (1, 0)])).await;

    world
        .set("SIGHTLINE_HTTP_ADDR", &running.rest.address)
        .set("SIGHTLINE_ADMIN_ADDR", &running.admin.address);
    let output = world.run(&["status", "--json"]).await;
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut domains = DOMAINS;
    domains.sort_unstable();
    for (n, domain) in domains.into_iter().enumerate() {
        let printed = &printed["domains"][n];
        assert_eq!(
            (&printed["domain"], &printed["state"]),
            (&domain.into(), &"caught_up".into())
        );
    }
    let output = world.run(&["status"]).await;
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        output.status.success() && table.contains(&world.topic) && table.contains("order"),
        "{table}"
    );
    assert!(world.run(&["healthcheck"]).await.status.success());

    let (rest, grpc) = (&running.rest.address, &running.raw_grpc.address);
    let wrong_ports = [
        (["status", "--http-addr", grpc], "speaks gRPC"),
        (["healthcheck", "--admin-addr", rest], "--admin-addr"),
        (["dead-letters", "show", ""], "must not be empty"),
    ];
    for (command, said) in wrong_ports {
        assert_refused(&world, &command, said).await;
    }
    drop(running);
    assert_refused(&world, &["status"], "--http-addr").await;
    assert_refused(&world, &["healthcheck"], "--admin-addr").await;
    let url = "postgres://u:hunter2@127.0.0.1:1/db";
    let migrate = ["migrate", "--database-url", url];
    assert_refused(&world, &migrate, "127.0.0.1:1: the connection is refused").await;
    let help = world.run(&["serve", "--help"]).await;
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for named in [
        "--http-addr",
        "SIGHTLINE_HTTP_ADDR",
        "127.0.0.1:8080",
        "--config",
        "SIGHTLINE_KAFKA_TOPICS",
        "user.events",
    ] {
        assert!(help.contains(named), "{named} in {help}");
    }
    // Each command says what its own exit codes mean.
    for (command, codes) in [
        (&["serve"][..], &["an orderly stop", "second signal"][..]),
        (
            &["migrate"],
            &["the schema is up to date", "migration failed"],
        ),
        (&["openapi"], &["can't be written"]),
        (&["healthcheck"], &["not ready"]),
        (&["status"], &["the gateway is not reachable"]),
        (&["dead-letters", "list"], &["the gateway is not reachable"]),
        (&["dead-letters", "retry"], &["a dead letter failed again"]),
        (
            &["projections", "switch"],
            &["the gateway is not reachable"],
        ),
    ] {
        let output = world.run(&[command, &["--help"]].concat()).await;
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        let (_, said) = help.split_once("Exit codes:").expect("exit codes");
        for code in codes {
            assert!(said.contains(code), "{code} in {said}");
        }
        assert_eq!(said.contains("130"), command == ["serve"], "{said}");
    }
}

/// Asserts that a command fails, and what it says then.
async fn assert_refused(world: &World, command: &[&str], said: &str) {
    let output = world.run(command).await;
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{command:?}: {out}");
    assert!(
        out.contains(said) || err.contains(said),
        "{command:?}: {out}{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_printed() {
    let mut world = World::shared(1).await;
    let passwords = tempfile::NamedTempFile::new().expect("a file");
    // Readable by its owner alone, as such a file must be; the line lacks its other fields.
    std::fs::write(passwords.path(), "hunter2\n").expect("written");
    world
        .set(
            "SIGHTLINE_DATABASE_URL",
            "postgres://someone:hunter2@127.0.0.1:1/db?sslmode=disable&options=-c%20x.y%3Dhunter2",
        )
        .set(
            "SIGHTLINE_DATABASE_DIRECT_URL",
            "postgres://someone@127.0.0.1:1/db",
        )
        .set("PGPASSFILE", &passwords.path().display().to_string())
        .set(
            "SIGHTLINE_KAFKA_PROPERTIES",
            "client.id=me,security.protocol=sasl_plaintext,sasl.mechanism=PLAIN,sasl.password=hunter2,sasl.username=hunter2,debug=conf",
        )
        .set("SIGHTLINE_KAFKA_TOPIC", "other.events")
        .set("SIGHTLINE_LOG", "trace");
    let output = world.run(&["config"]).await;
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!printed.contains("hunter2"), "{printed}");
    // A mistyped variable is no error, as another program may read it.
    let warning = "sightline: SIGHTLINE_KAFKA_TOPIC is not a setting and is ignored; did you mean SIGHTLINE_KAFKA_TOPICS?\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), warning);
    for shown in ["someone", "sslmode=disable", "\"me\"", &world.topic] {
        assert!(printed.contains(shown), "{shown} in {printed}");
    }
    let mut running = world.launch().listening().await;
    wait_until(
        SOON,
        "reads fail without the database",
        async || match running.rest.try_get("/v1/order/customers/u").await?.status {
            503 => Ok(()),
            status => Err(status.to_string()),
        },
    )
    .await;
    running.app.process.signal("TERM");
    assert_eq!(running.app.process.wait(SOON), 0);
    let log = running.app.process.output.text();
    assert!(!log.contains("hunter2"));
    assert!(
        log.contains(warning.trim_start_matches("sightline: ").trim_end()),
        "{log}"
    );
    assert!(
        log.contains(r#""server":"127.0.0.1:1","error":"the connection is refused: "#),
        "{log}"
    );
}

/// An index on a large table takes longer than any statement of the program may, and waits for no lock for ever.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_have_no_statement_timeout_but_a_lock_timeout() {
    let world = World::shared(1).await;
    let mut database = PgConnection::connect(&world.database.url)
        .await
        .expect("a superuser");
    for statement in [
        "CREATE FUNCTION check_timeouts() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('statement_timeout') <> '0' OR current_setting('lock_timeout') = '0' THEN
                 RAISE 'statement_timeout %, lock_timeout %',
                     current_setting('statement_timeout'), current_setting('lock_timeout');
             END IF;
         END $$",
        "CREATE EVENT TRIGGER check_timeouts ON ddl_command_end EXECUTE FUNCTION check_timeouts()",
    ] {
        sqlx::query(statement)
            .execute(&mut database)
            .await
            .expect("a superuser may do this");
    }
    let output = world.run(&["migrate"]).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
