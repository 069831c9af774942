//! `sightline dev`: the whole gateway with nothing to install.
//!
//! Promises: an in-process Kafka broker and a private Postgres, both on loopback and empty at each start; sample
//! users at once and their events from then on; the same `app::serve` as in production behind them. Ctrl-C leaves
//! only the downloaded Postgres behind.

mod sample;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches};
use sightline_postgres::{Options, Postgres};

use self::sample::Samples;
use crate::config::{self, Config, ConfigError, Role, Secret, Settings, StartAt};
use crate::{app, client, domains, output, telemetry};

/// Settings of this mode; the database, the broker and access to the API are fixed.
const KEYS: &[&str] = &[
    "domains",
    "grpc_addr",
    "http_addr",
    "admin_addr",
    "log",
    "log_format",
    "shutdown_grace",
    "max_value_bytes",
    "dedupe_days",
];
const TOPIC: &str = "user.events";

/// The arguments of the command.
pub fn args() -> Vec<Arg> {
    let rate = Arg::new("rate")
        .long("rate")
        .value_name("EVENTS/S")
        .default_value("5")
        .value_parser(clap::value_parser!(u32).range(..=100_000))
        .help("How many events per second the sample users make; 0 stops them");
    let mut args = vec![rate];
    args.extend(config::args(KEYS));
    args
}

/// Runs until a signal.
///
/// # Errors
/// Postgres cannot be had or started, an address beyond loopback, or what stops `app::serve`.
pub async fn run(arguments: &ArgMatches, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut config = settings.load(&domains::names(), &[])?;
    for address in [
        &mut config.grpc_addr,
        &mut config.http_addr,
        &mut config.admin_addr,
    ] {
        make_local(address)?;
    }
    telemetry::init_logs(&config.log, config.log_format)?;

    let samples = Samples::start(TOPIC).context("the in-process Kafka broker")?;
    let postgres = Postgres::start(Options::default());
    let postgres = tokio::select! {
        postgres = postgres => postgres?,
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
    };
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

    let rate = *arguments.get_one::<u32>("rate").expect("a default");
    let greeting = greeting(&config, &postgres);
    let admin_addr = config.admin_addr;
    let running = tokio::spawn(samples.run(rate));
    let failed_to_greet = async {
        while !client::get(admin_addr, "/readyz")
            .await
            .is_ok_and(|(status, _)| status.is_success())
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match output::print(&greeting) {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let code = tokio::select! {
        code = app::serve(config) => code,
        error = failed_to_greet => Err(error),
    };
    running.abort();
    postgres.stop().await;
    code
}

/// Takes a free port now where none is chosen, so that it can be printed.
fn make_local(address: &mut SocketAddr) -> anyhow::Result<()> {
    if !address.ip().to_canonical().is_loopback() {
        let line = format!(
            "{address} is reachable from other machines: `sightline dev` is for loopback only"
        );
        return Err(ConfigError::new(line).into());
    }
    if address.port() == 0 {
        *address = TcpListener::bind(*address)?.local_addr()?;
    }
    Ok(())
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

  curl -i http://{http_addr}/v1/order/customers/u-1001
  curl 'http://{http_addr}/v1/fulfillment/addresses?validation=incomplete&validation=invalid'
  grpcurl -plaintext -d '{{"user_id": "u-7"}}' {grpc_addr} sightline.order.v1.OrderService/GetCustomer
  {program} status --watch --http-addr {http_addr}

Ctrl-C stops it; database and topic are gone then.
"#,
        program = program(),
    )
}

/// How to call this program again from where it was called.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "sightline".to_owned())
}
