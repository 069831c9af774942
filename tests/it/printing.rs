//! Commands whose output nothing reads any more: they end without a panic.

use std::process::{Child, Command, Output, Stdio};

use sightline_testing::app::{SOON, World, finish, sightline};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::Rest;
use sightline_testing::operations::dead_letters;
use sightline_testing::process::free_port;
use sightline_testing::wait_until;

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn assert_quiet(what: &[&str], output: &Output, code: i32) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what:?}: {complaint}");
    assert_eq!(complaint, "", "{what:?}");
}

/// A record that becomes a dead letter.
fn bad(n: i64) -> Record {
    let value = r#"{"eventId": "e", "eventType": "UserRegistered", "payload": {"userId": 5}}"#;
    Record {
        partition: 0,
        key: Some(format!("key-{n}").into()),
        value: Some(value.into()),
        headers: vec![],
        timestamp: 1_790_000_000_000 + n,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_and_help_end_when_nothing_reads_them() {
    let settings = [
        ("SIGHTLINE_DATABASE_URL", "postgres://127.0.0.1:1/none"),
        ("SIGHTLINE_KAFKA_BROKERS", "127.0.0.1:1"),
        ("SIGHTLINE_KAFKA_TOPICS", "t"),
    ];
    for arguments in [
        &["openapi"][..],
        &["config"],
        &["--help"],
        &["--version"],
        &["help", "serve"],
        &["serve", "--help"],
        &["dev", "--help"],
        &["dead-letters", "list", "--help"],
    ] {
        let mut command = sightline(arguments);
        command.envs(settings).stdout(closed_pipe());
        assert_quiet(arguments, &finish(command).await, 0);
        // Without an output at all.
        let mut command = sightline(arguments);
        command.envs(settings).stdout(Stdio::null());
        assert_quiet(arguments, &finish(command).await, 0);
    }
    // A reader that leaves in the middle.
    let mut shell = Command::new("sh");
    let pipeline = r#""$0" openapi | head -c 10"#;
    shell
        .args(["-c", pipeline])
        .arg(sightline(&[]).get_program());
    let output = finish(shell).await;
    assert_eq!(output.stdout.len(), 10);
    assert_quiet(&[pipeline], &output, 0);
    // What can't be written for another reason is a failure, in one line.
    let mut command = sightline(&["openapi"]);
    let full = std::fs::File::options().write(true).open("/dev/full");
    command.stdout(full.expect("a device"));
    let output = finish(command).await;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.starts_with("sightline: cannot write to stdout"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_call_a_gateway_end_when_nothing_reads_them() {
    let world = World::shared(1).await;
    world
        .broker
        .writer()
        .write(&world.topic, &[bad(0), bad(1)])
        .await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 2)])).await;
    let letters = dead_letters(&running.rest, &[("domain", Some("order"))]).await;
    let id = letters[0]["id"].as_str().expect("an id");
    let run = async |arguments: &[&str], stdout: Stdio| {
        let mut command = sightline(arguments);
        command
            .env("SIGHTLINE_HTTP_ADDR", &running.rest.address)
            .env("SIGHTLINE_ADMIN_ADDR", &running.admin.address)
            .stdout(stdout);
        finish(command).await
    };
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--watch"],
        &["status", "--watch", "--json"],
        &["healthcheck"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "show", id],
        &["dead-letters", "show", id, "--json"],
        &["dead-letters", "retry", id],
        &["dead-letters", "retry", "--domain", "order", "--dry-run"],
        &["dead-letters", "discard", id, "--reason", "for the test"],
        &["projections", "list"],
        &["projections", "list", "--json"],
        &["projections", "list", "--watch"],
        &["projections", "pause", "order", "--reason", "for the test"],
        &["projections", "resume", "order"],
        &["projections", "rebuild", "order"],
        &["projections", "cancel", "order"],
    ] {
        assert_quiet(arguments, &run(arguments, closed_pipe()).await, 0);
    }
    // What was asked for has been done all the same.
    let discarded = dead_letters(&running.rest, &[("state", Some("discarded"))]).await;
    assert_eq!(discarded.len(), 1, "{discarded:?}");

    // With an error to print, and nothing that reads it.
    let unreachable = format!("127.0.0.1:{}", free_port());
    for (arguments, code) in [
        (&["status", "--http-addr", &unreachable][..], 1),
        (&["healthcheck", "--admin-addr", &unreachable], 1),
        (&["dead-letters", "list", "--http-addr", &unreachable], 1),
        (&["dead-letters", "show", "nothing"], 1),
        (&["status", "--watch", "--http-addr", &unreachable], 0),
        (
            &[
                "projections",
                "list",
                "--watch",
                "--http-addr",
                &unreachable,
            ],
            0,
        ),
        (&["serve", "--http-addr", "nonsense"], 2),
        (&["no-such-command"], 2),
    ] {
        let mut command = sightline(arguments);
        command
            .env("SIGHTLINE_HTTP_ADDR", &running.rest.address)
            .stdout(closed_pipe())
            .stderr(closed_pipe());
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

/// Kills a process when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The log goes to stderr. A gateway whose log nothing reads goes on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_outlives_the_reader_of_its_log() {
    let world = World::shared(1).await;
    let mut migrate = sightline(&["migrate"]);
    world.apply(&mut migrate);
    migrate.env("SIGHTLINE_LOG", "debug").stderr(closed_pipe());
    assert_eq!(finish(migrate).await.status.code(), Some(0));

    let admin = format!("127.0.0.1:{}", free_port());
    let mut command = sightline(&["serve"]);
    world.apply(&mut command);
    command
        .env("SIGHTLINE_LOG", "debug")
        .env("SIGHTLINE_ADMIN_ADDR", &admin)
        .stdout(closed_pipe())
        .stderr(closed_pipe());
    let mut process = Killed(command.spawn().expect("it starts"));
    let admin = Rest::new(admin);
    wait_until(SOON, "the gateway is ready", async || {
        if let Some(status) = process.0.try_wait().expect("waitable") {
            panic!("the gateway ended: {status}");
        }
        match admin.try_get("/readyz").await?.status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

/// `dev` prints the addresses, which is all that there is to read.
#[tokio::test(flavor = "multi_thread")]
async fn dev_ends_when_nothing_reads_its_addresses() {
    let mut command = sightline(&["dev", "--rate", "0"]);
    command.stdout(closed_pipe());
    let output = finish(command).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
