//! `sightline dev`: the whole gateway with nothing to install.
//!
//! Promises: an in-process Kafka broker and a private Postgres, both on loopback and empty at each start; sample
//! users at once and their events from then on; the same `app::serve_on` as in production behind them. Ctrl-C leaves
//! only the downloaded Postgres behind.

mod sample;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches};
use http::StatusCode;
use sightline_postgres::{Options, Postgres};

use self::sample::Samples;
use crate::config::{self, Config, ConfigError, Role, Secret, Settings, StartAt};
use crate::domains;
use crate::{app, client, output};

/// Settings that this mode does not take: the database, the broker and access to the API are fixed.
const FIXED: &[&str] = &[
    "database_url",
    "database_direct_url",
    "database_read_urls",
    "kafka_brokers",
    "kafka_topics",
    "kafka_start",
    "kafka_properties",
    "kafka_settle_seconds",
    "role",
    "auth",
    "allow_open",
];
const TOPIC: &str = "user.events";

/// What `--help` says. The sizes are librdkafka's: compiled in, and without a way to change them.
pub const LONG_ABOUT: &str = "\
Run the gateway with its own Kafka, Postgres and sample events: nothing to install.

The broker is in this process, and keeps only the newest 5 MiB of each partition. After some hours, or within a minute \
at a high --rate, the first events are gone, and a rebuild is refused with LOG_TRUNCATED. Start `sightline dev` again, \
which begins with an empty log, or use a real Kafka: `docker compose up`.";

/// The arguments of the command.
pub fn args() -> Vec<Arg> {
    let rate = Arg::new("rate")
        .long("rate")
        .value_name("EVENTS/S")
        .default_value("5")
        .value_parser(clap::value_parser!(u32).range(..=100_000))
        .help("How many events per second the sample users make; 0 stops them");
    let mut args = vec![rate];
    let mut keys = config::all_keys();
    keys.retain(|key| !FIXED.contains(key));
    args.extend(config::args(&keys));
    args
}

/// Runs until a signal.
///
/// # Errors
/// Postgres cannot be had or started, an address beyond loopback, a port that is taken, or what stops `app::serve_on`.
pub async fn run(arguments: &ArgMatches, settings: &Settings) -> anyhow::Result<ExitCode> {
    for key in ["grpc_addr", "http_addr", "admin_addr"] {
        check_local(settings, key)?;
    }
    let mut config = settings.load(&domains::names(), &[])?;
    app::init_logs(&config)?;

    let mut samples = Samples::start(TOPIC).context("the in-process Kafka broker")?;
    let postgres = Postgres::start(Options::default());
    let postgres = tokio::select! {
        postgres = postgres => postgres?,
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
    };
    // Before the gateway begins: a view is ready once it has what was in the topic then.
    samples.publish_first().await?;
    config.database_url = Secret::new(postgres.url());
    config.database_direct_url = config.database_url.clone();
    config.kafka_brokers = samples.brokers().to_owned();
    config.kafka_topics = vec![TOPIC.to_owned()];
    config.kafka_start = StartAt::Earliest;
    // The in-process broker answers a fetch when its time is up, even if records have come meanwhile.
    config.kafka_properties = vec![("fetch.wait.max.ms".to_owned(), "10".to_owned())];
    // The sample producer is the broker's own: it knows of added partitions at once.
    config.kafka_settle = Duration::ZERO;
    config.role = Role::All;
    let listeners = app::Listeners::bind(&mut config).await?;

    let rate = *arguments.get_one::<u32>("rate").expect("a default");
    let greeting = greeting(&config, &postgres);
    let http_addr = config.http_addr;
    let served = app::served_domains(&config);
    let running = tokio::spawn(samples.run(rate));
    let failed_to_greet = async {
        for domain in served {
            wait_for_view(http_addr, domain.first_reads().nobody).await;
        }
        match output::print(&greeting) {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let code = tokio::select! {
        code = app::serve_on(listeners, config) => code,
        error = failed_to_greet => Err(error),
    };
    running.abort();
    postgres.stop().await;
    code
}

/// Waits until a view answers that it has no such user. Before it is ready it answers that the user may still come.
async fn wait_for_view(http_addr: SocketAddr, nobody: &str) {
    while !client::get(http_addr, nobody)
        .await
        .is_ok_and(|(status, _)| status == StatusCode::NOT_FOUND || status == StatusCode::OK)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// # Errors
/// The address is reachable from other machines.
fn check_local(settings: &Settings, key: &'static str) -> Result<(), ConfigError> {
    let address = settings.address(key)?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let problem = format_args!(
        "{address} is reachable from other machines: `sightline dev` is for loopback only"
    );
    Err(settings.error(key, problem))
}

fn greeting(config: &Config, postgres: &Postgres) -> String {
    let Config {
        grpc_addr,
        http_addr,
        admin_addr,
        kafka_brokers,
        ..
    } = config;
    let database = postgres.url();
    let served = app::served_domains(config);
    let mut tried: Vec<String> = served
        .iter()
        .map(|domain| {
            format!(
                "  curl -i 'http://{http_addr}{}'",
                domain.first_reads().path
            )
        })
        .collect();
    tried.extend(served.first().map(|domain| {
        let [method, message] = domain.first_reads().call;
        let service = domain.grpc_service();
        format!("  grpcurl -plaintext -d '{message}' {grpc_addr} {service}/{method}")
    }));
    tried.push(format!(
        "  {} status --watch --http-addr {http_addr}",
        program()
    ));
    let tried = tried.join("\n");
    format!(
        r#"
sightline is ready. Sample users register, log in, move and change their minds in it.

  HTTP/JSON   http://{http_addr}
  API docs    http://{http_addr}/docs
  gRPC        {grpc_addr} (with reflection)
  Admin       http://{admin_addr}/metrics
  Kafka       {kafka_brokers} (topic {TOPIC})
  Postgres    {database}

Try:

{tried}

Ctrl-C stops it; database and topic are gone then.
"#
    )
}

/// How to call this program again from where it was called.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "sightline".to_owned())
}
