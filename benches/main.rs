//! The benchmark (`make bench`): how fast a backlog is projected, how soon an event can be read, and what the
//! choices cost on which all domains are built. docs/performance.md has the results and the choices made by them.
//!
//! Promises: what is compared is measured in the same run, against the same servers (a real Kafka, and a
//! Postgres that waits for the disk), in rounds that take turns. Every figure is reported as its median, with the
//! smallest and the largest sample. The figures of each section go to target/bench/<section>.json as well.

mod audit;
mod backlog;
mod by_hand;
mod floor;
mod freshness;
mod ids;
mod leases;
mod load;
mod log;
mod machine;
mod people;
mod processes;
mod questions;
mod reads;
mod rebuild;
mod report;
mod rows;
mod topic;
mod waits;

use std::path::PathBuf;
use std::process::Command;

use clap::Parser;
use sightline::domains::{self, Domain};
use sightline_postgres::{Options, Postgres};
use sightline_testing::app::{finish, sightline, sightline_at};
use sightline_testing::broker::Broker;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use report::Report;
use topic::Domains;

/// What can be measured.
const SECTIONS: [&str; 10] = [
    "backlog",
    "freshness",
    "ids",
    "rows",
    "reads",
    "questions",
    "leases",
    "audit",
    "rebuild",
    "waits",
];

/// Measures sightline.
#[derive(Parser)]
pub struct Settings {
    /// What to measure; all of it where nothing is named. reads, questions, audit and rebuild need wrk and h2load (Debian's
    /// packages wrk and nghttp2-client).
    #[arg(value_parser = SECTIONS)]
    sections: Vec<String>,
    /// Events of the backlog.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Events a second at which freshness is measured.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 1_000])]
    rates: Vec<usize>,
    /// Domains that backlog and freshness measure; all of them where none is named. Backlog measures each alone, then together.
    #[arg(long, value_delimiter = ',', value_parser = domains::names())]
    domains: Vec<String>,
    /// Another build of `sightline`, which backlog and freshness measure in turn with this one.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// How often each thing is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many event ids are remembered when more are added.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000_000])]
    ids: Vec<i64>,
    /// Customers with one address; of those with more addresses there are fewer.
    #[arg(long, default_value_t = 60_000)]
    customers: i64,
    /// People whom questions are about.
    #[arg(long, default_value_t = 100_000)]
    people: usize,
    /// Entries of the audit log that are listed.
    #[arg(long, default_value_t = 1_000_000)]
    entries: i64,
    /// Only the alternatives of ids and rows, and the rows of backlog, reads and questions, whose name contains this. The row
    /// of all domains together contains ' and '.
    #[arg(long, default_value = "")]
    only: String,
    /// SQL to run on the migrated databases of backlog, freshness, reads, questions and rebuild: to try
    /// another index or option.
    #[arg(long, default_value = "")]
    sql: String,
    /// Be the server that `reads` compares sightline with: serve from this database, measure nothing.
    #[arg(long, hide = true)]
    floor: Option<String>,
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Settings {
    /// Whether a section is to be measured.
    fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|name| name == section)
    }
}

/// What figures of the loop and the server written by hand are listed under.
pub const BY_HAND: &str = "by hand";

/// A build of the program.
#[derive(Clone)]
pub struct Build {
    /// What its figures are listed under.
    pub name: &'static str,
    /// Where it is; `None` for the one of this source.
    program: Option<PathBuf>,
}

impl Build {
    /// The build of this source.
    pub fn this() -> Build {
        Build {
            name: "sightline serve",
            program: None,
        }
    }

    /// Whether it is the build of this source.
    pub fn is_this(&self) -> bool {
        self.program.is_none()
    }

    /// A command that runs it with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        match &self.program {
            None => sightline(arguments),
            Some(program) => sightline_at(program, arguments),
        }
    }
}

/// Where it is measured.
pub struct Bench {
    /// What was asked for.
    pub settings: Settings,
    postgres: Postgres,
}

impl Bench {
    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        let name = sightline_testing::unique("bench");
        let mut connection = PgConnection::connect(&self.postgres.url())
            .await
            .expect("Postgres answers");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a database");
        self.postgres.database_url(&name)
    }

    /// A database that a build has migrated: its URL, and connections to it.
    pub async fn migrated(&self, build: &Build) -> (String, PgPool) {
        let url = self.database().await;
        let mut migrate = build.command(&["migrate"]);
        migrate.env("SIGHTLINE_DATABASE_URL", &url);
        let output = finish(migrate).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "migrations: {errors}");
        let pool = PgPool::connect(&url).await.expect("Postgres answers");
        sqlx::raw_sql(AssertSqlSafe(self.settings.sql.clone()))
            .execute(&pool)
            .await
            .expect("--sql");
        (url, pool)
    }

    /// Drops a database, so that its maintenance takes no time from what is measured next.
    pub async fn drop_database(&self, url: &str) {
        let (_, name) = url.rsplit_once('/').expect("a URL with a database");
        let mut connection = PgConnection::connect(&self.postgres.url())
            .await
            .expect("Postgres answers");
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        sqlx::query(AssertSqlSafe(drop))
            .execute(&mut connection)
            .await
            .expect("dropped");
    }

    /// The id of Postgres' first process.
    pub fn postgres_process(&self) -> u32 {
        self.postgres.process_id()
    }

    /// What is compared: this build, that of `--against`, and the loop written by hand (`None`). They take turns in
    /// going first.
    pub fn in_turn(&self, round: usize) -> Vec<Option<Build>> {
        let against = self.settings.against.clone().map(|program| Build {
            name: "sightline serve, the build of --against",
            program: Some(program),
        });
        let mut all = vec![None, Some(Build::this())];
        all.extend(against.map(Some));
        let first = round % all.len();
        all.rotate_left(first);
        all
    }

    /// The domains of `--domains`.
    pub fn domains(&self) -> Domains {
        let given = &self.settings.domains;
        let wanted = |domain: &&&dyn Domain| {
            given.is_empty() || given.iter().any(|name| name == domain.domain())
        };
        domains::ALL
            .iter()
            .filter(wanted)
            .copied()
            .collect::<Vec<_>>()
            .leak()
    }

    /// The broker of all sections.
    pub fn broker(&self) -> Broker {
        Broker::real().expect("a real Kafka, for which Java and Maven are needed")
    }
}

#[tokio::main]
async fn main() {
    let mut settings = Settings::parse();
    if let Some(database) = &settings.floor {
        return floor::serve(database).await;
    }
    if ["reads", "questions", "audit", "rebuild"]
        .iter()
        .any(|section| settings.wants(section))
    {
        load::check_tools();
    }
    if let Some(program) = &mut settings.against {
        // The program runs in another directory.
        *program = program.canonicalize().expect("the program of --against");
    }
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures mean nothing.");
    }
    // As in production, a commit is on the disk; checkpoints come when a section asks for them.
    let server = [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("shared_buffers", "1GB"),
        ("max_wal_size", "16GB"),
        ("checkpoint_timeout", "1h"),
    ];
    let postgres = Postgres::start(Options {
        settings: server
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..Options::default()
    })
    .await
    .expect("Postgres starts");
    let bench = Bench { settings, postgres };
    println!("{}", machine::describe());
    println!("{}", machine::steadiness());
    if bench.settings.wants("backlog") {
        let mut report = Report::new("backlog");
        backlog::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("freshness") {
        let mut report = Report::new("freshness");
        freshness::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("ids") {
        let mut report = Report::new("ids");
        ids::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("rows") {
        let mut report = Report::new("rows");
        rows::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("reads") {
        let mut report = Report::new("reads");
        reads::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("questions") {
        let mut report = Report::new("questions");
        questions::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("leases") {
        let mut report = Report::new("leases");
        leases::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("audit") {
        let mut report = Report::new("audit");
        audit::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("rebuild") {
        let mut report = Report::new("rebuild");
        rebuild::run(&bench, &mut report).await;
        report.finish();
    }
    if bench.settings.wants("waits") {
        let mut report = Report::new("waits");
        waits::run(&bench, &mut report).await;
        report.finish();
    }
    bench.postgres.stop().await;
}
