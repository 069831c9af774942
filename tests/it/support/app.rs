//! The program as its users have it: a child process with settings from the environment, seen through its ports
//! and its log.

use super::broker::Broker;
use super::client::{Grpc, Rest};
use super::database::Database;
use super::process::Process;
use super::{unique, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// How long anything may take that is not slow by itself.
pub const SOON: Duration = Duration::from_secs(60);
/// How long a whole log may take, on a busy machine, in a debug build.
pub const LONG: Duration = Duration::from_secs(240);

/// What a test has for itself: a topic, a database, a name for its consumer groups.
pub struct World {
    pub broker: Broker,
    pub database: Database,
    pub topic: String,
    settings: BTreeMap<String, String>,
}

impl World {
    /// A topic with this many partitions and an empty database. All domains are projected.
    pub async fn new(broker: Broker, database: Database, partitions: i32) -> World {
        let topic = unique("user.events");
        broker.create_topic(&topic, partitions).await;
        let settings = [
            ("SIGHTLINE_DATABASE_URL", database.url.as_str()),
            ("SIGHTLINE_KAFKA_BROKERS", &broker.address),
            ("SIGHTLINE_KAFKA_TOPICS", &topic),
            ("SIGHTLINE_KAFKA_GROUP_PREFIX", &unique("group")),
            (
                "SIGHTLINE_MAX_VALUE_BYTES",
                &super::log::MAX_VALUE_BYTES.to_string(),
            ),
            ("SIGHTLINE_DATABASE_MAX_CONNECTIONS", "4"),
        ];
        let settings = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        World {
            broker,
            database,
            topic,
            settings,
        }
    }

    /// One with the shared broker and database.
    pub async fn shared(partitions: i32) -> World {
        World::new(Broker::shared(), Database::create().await, partitions).await
    }

    /// Changes a setting for what is started from here on.
    pub fn set(&mut self, name: &str, value: &str) -> &mut World {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The consumer group of a domain.
    pub fn group(&self, domain: &str) -> String {
        let prefix = &self.settings["SIGHTLINE_KAFKA_GROUP_PREFIX"];
        format!("{prefix}.{domain}")
    }

    /// Starts `sightline serve`; its ports may not be open yet.
    pub fn launch(&self) -> App {
        let mut command = sightline(&["serve"]);
        self.apply(&mut command);
        App::start(&command)
    }

    /// Gives a command these settings.
    pub fn apply(&self, command: &mut Command) {
        command.envs(&self.settings);
    }

    /// Starts `sightline serve` and waits until it is ready.
    pub async fn serve(&self) -> Running {
        self.launch().ready().await
    }

    /// Runs another command with the same settings to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = sightline(arguments);
        self.apply(&mut command);
        finish(command).await
    }
}

/// The program with these arguments, free ports, a JSON log, and nothing else of this process's environment.
pub fn sightline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sightline"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SIGHTLINE_") {
            command.env_remove(name);
        }
    }
    for name in [
        "SIGHTLINE_GRPC_ADDR",
        "SIGHTLINE_HTTP_ADDR",
        "SIGHTLINE_ADMIN_ADDR",
    ] {
        command.env(name, "127.0.0.1:0");
    }
    command
        .env("SIGHTLINE_LOG_FORMAT", "json")
        .current_dir(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program starts"));
    tokio::time::timeout(SOON, output)
        .await
        .expect("the command ends")
        .expect("no panic")
}

/// A started program.
pub struct App {
    pub process: Process,
}

impl App {
    pub fn start(command: &Command) -> App {
        App {
            process: Process::start(command),
        }
    }

    /// Waits for the ports.
    pub async fn listening(mut self) -> Running {
        let addresses = wait_until(SOON, "the program says where it listens", async || {
            if let Some(code) = self.process.exited() {
                return Ok(Err(code));
            }
            self.log()
                .into_iter()
                .find(|line| line["message"] == "listening")
                .map(Ok)
                .ok_or("no such line".into())
        })
        .await
        .unwrap_or_else(|code| {
            panic!(
                "the program ended with {code}:\n{}",
                self.process.output.text()
            )
        });
        let address = |name: &str| addresses[name].as_str().expect("an address").to_owned();
        Running {
            rest: Rest::new(address("http")),
            admin: Rest::new(address("admin")),
            grpc: Grpc::new(&address("grpc")),
            raw_grpc: Rest::http2(address("grpc")),
            app: self,
        }
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(self) -> Running {
        let running = self.listening().await;
        wait_until(SOON, "the program is ready", async || {
            match running.admin.try_get("/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
                Err(error) => Err(error),
            }
        })
        .await;
        running
    }

    /// The lines of the log that are JSON, as they must be.
    pub fn log(&self) -> Vec<Value> {
        self.process
            .output
            .lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.process.output.lines();
            let tail = lines.len().saturating_sub(80);
            eprintln!(
                "---- the program's last lines\n{}\n----",
                lines[tail..].join("\n")
            );
        }
    }
}

/// A program that listens, and clients for it.
pub struct Running {
    pub app: App,
    pub rest: Rest,
    pub admin: Rest,
    pub grpc: Grpc,
    pub raw_grpc: Rest,
}
