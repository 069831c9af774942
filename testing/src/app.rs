//! The program as its users run it: a child process with settings from the environment. Tests see its ports
//! and its log output, nothing else.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::OnceCell;

use super::broker::Broker;
use super::client::{Grpc, Rest};
use super::database::Database;
use super::process::Process;
use super::{unique, wait_until};

/// The deadline for anything that normally takes moments.
pub const SOON: Duration = Duration::from_secs(60);
/// The deadline for projecting a whole topic on a busy machine, in a debug build.
pub const LONG: Duration = Duration::from_secs(240);

/// The domains that a test projects unless it says `all`: two are enough for what is the same in every domain, and five take
/// more than twice as long.
pub const DOMAINS: [&str; 2] = ["order", "fulfillment"];

/// What one test owns: a topic, a database, and a prefix for its consumer groups.
pub struct World {
    pub broker: Broker,
    pub database: Database,
    pub topic: String,
    settings: BTreeMap<String, String>,
}

impl World {
    /// Creates a topic with this many partitions and uses an empty database. [`DOMAINS`] are projected.
    pub async fn new(broker: Broker, database: Database, partitions: i32) -> World {
        let topic = unique("user.events");
        broker.create_topic(&topic, partitions).await;
        let pooled = database.pooled_url();
        let settings = [
            ("SIGHTLINE_DATABASE_URL", pooled.as_str()),
            ("SIGHTLINE_KAFKA_BROKERS", &broker.address),
            ("SIGHTLINE_KAFKA_TOPICS", &topic),
            ("SIGHTLINE_KAFKA_GROUP_PREFIX", &unique("group")),
            (
                "SIGHTLINE_MAX_VALUE_BYTES",
                &super::hostile_log::MAX_VALUE_BYTES.to_string(),
            ),
            ("SIGHTLINE_DATABASE_MAX_CONNECTIONS", "4"),
            ("SIGHTLINE_DOMAINS", &DOMAINS.join(",")),
        ];
        let mut settings: BTreeMap<String, String> = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        // Without a pooler, a test that changes the one URL changes the other.
        if pooled != database.url {
            let name = "SIGHTLINE_DATABASE_DIRECT_URL".to_owned();
            settings.insert(name, database.url.clone());
        }
        World {
            broker,
            database,
            topic,
            settings,
        }
    }

    /// The same, with the shared broker and a database in the shared server.
    pub async fn shared(partitions: i32) -> World {
        World::new(Broker::shared(), Database::create().await, partitions).await
    }

    /// Changes a setting for processes that start from now on.
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

    /// Adds these settings to a command's environment.
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

/// A command that runs the program with these arguments, free ports and a JSON log, without the
/// `SIGHTLINE_` variables of this process.
pub fn sightline(arguments: &[&str]) -> Command {
    sightline_at(&crate::build_directory().join("sightline"), arguments)
}

/// The same, for the program at a path.
pub fn sightline_at(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
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
        .current_dir(crate::temporary_directory());
    command
}

/// The same, for a program of `examples/`. `cargo test` builds it; with `--test it` it is the one that was built last.
pub fn example(name: &str) -> Command {
    let program = crate::build_directory().join("examples").join(name);
    assert!(
        program.exists(),
        "{name} is not built: run cargo build --example {name} with the features of the tests"
    );
    sightline_at(&program, &[])
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program starts"));
    tokio::time::timeout(SOON, output)
        .await
        .expect("the command ends")
        .expect("no panic")
}

/// A process of the program.
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
        let addresses = wait_until(SOON, "the program logs its addresses", async || {
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
        let addresses = Addresses {
            http: address("http"),
            admin: address("admin"),
            grpc: address("grpc"),
        };
        Running {
            app: self,
            clients: Clients::new(&addresses),
            addresses,
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

    /// All output so far.
    pub fn output(&self) -> String {
        self.process.output.text()
    }

    /// The log lines so far. Lines that are not JSON, such as a panic, are left out.
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

/// The addresses of a process.
#[derive(Clone)]
struct Addresses {
    http: String,
    admin: String,
    grpc: String,
}

/// Clients of a process, for its three ports.
pub struct Clients {
    pub rest: Rest,
    pub admin: Rest,
    pub grpc: Grpc,
    pub raw_grpc: Rest,
}

impl Clients {
    fn new(addresses: &Addresses) -> Clients {
        Clients {
            rest: Rest::new(addresses.http.clone()),
            admin: Rest::new(addresses.admin.clone()),
            grpc: Grpc::new(&addresses.grpc),
            raw_grpc: Rest::http2(addresses.grpc.clone()),
        }
    }
}

/// A process that listens, and clients of it.
pub struct Running {
    pub app: App,
    addresses: Addresses,
    clients: Clients,
}

impl Running {
    /// The gRPC port, for programs that call it: `host:port`.
    pub fn grpc_address(&self) -> &str {
        &self.addresses.grpc
    }

    /// A metric, summed over the series whose labels contain a text; `None` if there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let text = self.admin.get("/metrics").await.text();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .reduce(|one, other| one + other)
    }
}

impl Deref for Running {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

/// A process that several tests share, which must not change its state. It ends with the test process.
pub struct Shared(OnceCell<(World, Running)>);

impl Shared {
    pub const fn const_new() -> Shared {
        Shared(OnceCell::const_new())
    }

    /// Clients of the process; the first call starts it with `start`. Connections belong to the runtime of a
    /// test, so each test gets clients of its own.
    pub async fn clients(&self, start: impl AsyncFnOnce() -> (World, Running)) -> Clients {
        let (_, running) = self.0.get_or_init(|| async { start().await }).await;
        Clients::new(&running.addresses)
    }
}
