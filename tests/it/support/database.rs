//! Postgres for the tests: a real one.
//!
//! `SIGHTLINE_TEST_DATABASE_URL` names a server (as a superuser); else one is got and started as a child process,
//! as an unprivileged user where the tests run as root. All tests share the server, each has a database of its
//! own in it; a test that stops or kills its server starts a private one.

use super::process::{Process, free_port};
use super::unique;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);
/// `nobody`, on every Linux.
const UNPRIVILEGED: u32 = 65534;

/// An empty database.
pub struct Database {
    pub url: String,
    server: Option<Arc<Mutex<Server>>>,
}

impl Database {
    /// A new database in the server that all tests share.
    pub async fn create() -> Database {
        static SHARED: OnceLock<String> = OnceLock::new();
        let server = SHARED.get_or_init(|| match std::env::var("SIGHTLINE_TEST_DATABASE_URL") {
            Ok(url) => url,
            Err(_) => {
                let mut server = Server::prepare(true);
                server.run().expect("Postgres starts");
                let url = server.url();
                // Nobody drops a static: the process goes, with its directory, when the tests end.
                std::mem::forget(server);
                url
            }
        });
        Database {
            url: new_database(server).await,
            server: None,
        }
    }

    /// A database in a server of its own, which the test may take down.
    pub async fn private() -> Database {
        let database = Database::private_stopped();
        database.start();
        database
    }

    /// The same, not yet started, on a port that is already known.
    pub fn private_stopped() -> Database {
        let server = Server::prepare(false);
        Database {
            url: server.url(),
            server: Some(Arc::new(Mutex::new(server))),
        }
    }

    /// SIGKILL to the server, at once.
    pub fn kill(&self) {
        self.server().lock().unwrap().process = None;
    }

    /// A fast shutdown.
    pub fn stop(&self) {
        let mut server = self.server().lock().unwrap();
        if let Some(mut process) = server.process.take() {
            process.signal("INT");
            process.wait(START);
        }
    }

    /// Starts the server again, on the same port and data, and waits until it answers.
    pub fn start(&self) {
        self.server()
            .lock()
            .unwrap()
            .run()
            .expect("Postgres starts");
    }

    fn server(&self) -> &Mutex<Server> {
        self.server
            .as_deref()
            .expect("only a private server can be taken down")
    }
}

async fn new_database(server: &str) -> String {
    let name = unique("test");
    let mut connection = PgConnection::connect(server)
        .await
        .expect("a connection to the test server");
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .expect("a superuser may create databases");
    let _ = connection.close().await;
    // The path of the URL is the database.
    let (base, options) = match server.split_once('?') {
        Some((base, options)) => (base, format!("?{options}")),
        None => (server, String::new()),
    };
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..]
        .find('/')
        .map_or(base.len(), |at| authority + at);
    format!("{}/{name}{options}", &base[..end])
}

/// A Postgres of ours.
struct Server {
    programs: PathBuf,
    home: PathBuf,
    port: u16,
    shared: bool,
    process: Option<Process>,
}

impl Server {
    fn prepare(shared: bool) -> Server {
        let programs = programs();
        let home = tempfile::Builder::new()
            .prefix("sightline-postgres-")
            .tempdir()
            .expect("a directory")
            .keep();
        let data = home.join("data");
        std::fs::create_dir(&data).expect("writable");
        if root() {
            std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).expect("ours");
            chown(&data, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may");
        }
        let made = unprivileged(&programs.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Server {
            programs,
            home,
            port: free_port(),
            shared,
            process: None,
        }
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn run(&mut self) -> Result<(), String> {
        let end = Instant::now() + START;
        let mut output = String::from("not tried");
        while Instant::now() < end {
            let mut postgres = unprivileged(&self.programs.join("postgres"));
            postgres
                .arg("-D")
                .arg(self.home.join("data"))
                .arg("-p")
                .arg(self.port.to_string())
                .current_dir("/");
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "max_connections=400",
                "shared_buffers=128MB",
                // Killed processes lose nothing of what the system's cache holds; the machine isn't pulled.
                "fsync=off",
                "full_page_writes=off",
            ] {
                postgres.args(["-c", setting]);
            }
            let mut process = Process::start(&postgres, self.shared.then_some(self.home.as_path()));
            while Instant::now() < end {
                if process
                    .output
                    .text()
                    .contains("ready to accept connections")
                {
                    self.process = Some(process);
                    return Ok(());
                }
                if process.exited().is_some() {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
            // Backends of a killed server may still hold its memory: they go, then it starts.
            output = process.output.text();
        }
        Err(output)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process = None;
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// The program, as somebody whom Postgres accepts.
fn unprivileged(program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={UNPRIVILEGED}"))
        .arg(format!("--regid={UNPRIVILEGED}"))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

/// Where Postgres' programs are.
fn programs() -> PathBuf {
    PathBuf::from("/usr/lib/postgresql/15/bin")
}
