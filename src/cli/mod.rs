//! The commands, their arguments, and what each needs of the settings.
//!
//! `serve` and `dev` run the gateway, `migrate` prepares its database, `openapi` and `config` print, `status` and
//! `healthcheck` ask a running one, `dead-letters` and `projections` tell it what to do. What a command prints goes to stdout, everything else to stderr.

mod healthcheck;
mod operations;
mod status;
mod table;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{self, Settings};
use crate::{app, db, domains, telemetry};

const EXIT_CODES: &str = "Exit codes:
  0    done, or stopped in order
  1    failed, not ready, or still busy after the shutdown grace
  2    a setting or an argument is unknown, missing or unusable; nothing was opened
  130  a second signal ended it at once

A flag beats a variable, a variable beats the file that --config names, the file beats the default.
The keys of that TOML file are the flags without --, with _ for -.";

/// The whole command line.
pub fn command() -> Command {
    let no_migrate = Arg::new("no-migrate")
        .long("no-migrate")
        .action(ArgAction::SetTrue)
        .help("Leave the database's schema as it is");
    let watch = Arg::new("watch")
        .long("watch")
        .action(ArgAction::SetTrue)
        .help("Ask again every second, until interrupted");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print the answer as JSON, one line each");
    let commands = [
        subcommand("serve", "Project and serve; applies migrations first")
            .arg(no_migrate)
            .args(config::args(&config::all_keys())),
        #[cfg(feature = "dev")]
        subcommand(
            "dev",
            "The same with nothing to install: own Kafka, own Postgres, sample users",
        )
        .args(crate::dev::args()),
        subcommand("migrate", "Apply the migrations to the database, and end").args(config::args(
            &["database_url", "database_direct_url", "log", "log_format"],
        )),
        subcommand("openapi", "Print the OpenAPI document of the HTTP API"),
        subcommand(
            "config",
            "Print the effective configuration as TOML, secrets masked",
        )
        .args(config::args(&config::all_keys())),
        subcommand(
            "status",
            "Show lag and books of every domain and partition of a running gateway",
        )
        .args([watch, json])
        .args(config::args(&["http_addr"])),
        subcommand(
            "healthcheck",
            "Ask a running gateway whether it is ready: exit code 0 or 1",
        )
        .args(config::args(&["admin_addr"])),
    ];
    Command::new("sightline")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Projects user events from Kafka into read models and serves them over gRPC and HTTP",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands)
        .subcommands(operations::commands())
        .after_help(EXIT_CODES)
}

fn subcommand(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(EXIT_CODES)
}

/// Runs the command that was parsed by [`command`].
///
/// # Errors
/// A [`config::ConfigError`] before anything was opened, else what made the command fail.
pub async fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (name, arguments) = arguments.subcommand().expect("a required subcommand");
    if name == "openapi" {
        print!("{}", app::openapi_json()?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((command, arguments)) = arguments.subcommand() {
        let address = Settings::gather(arguments)?.address("http_addr")?;
        return operations::run(address, name, command, arguments).await;
    }
    let settings = Settings::gather(arguments)?;
    let domains = domains::names();
    match name {
        "serve" => {
            let mut config = settings.load(&domains, &["database_url", "kafka_brokers"])?;
            config.migrate = !arguments.get_flag("no-migrate");
            telemetry::init_logs(&config.log, config.log_format)?;
            let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
            for variable in config::unknown_variables(names) {
                tracing::warn!(variable, "no setting has this variable: it is ignored");
            }
            return app::serve(config).await;
        }
        #[cfg(feature = "dev")]
        "dev" => return crate::dev::run(arguments, &settings).await,
        "migrate" => {
            let config = settings.load(&domains, &["database_url"])?;
            telemetry::init_logs(&config.log, config.log_format)?;
            let pool = db::projector_pool(db::options(&config.database_direct_url)?, 1);
            db::migrate(&pool)
                .await
                .context("the database can't be migrated")?;
        }
        "config" => {
            let config = settings.load(&domains, &["database_url", "kafka_brokers"])?;
            print!("{}", config.to_toml());
        }
        "status" => {
            let (watch, json) = (arguments.get_flag("watch"), arguments.get_flag("json"));
            status::run(settings.address("http_addr")?, watch, json).await?;
        }
        "healthcheck" => return Ok(healthcheck::run(settings.address("admin_addr")?).await),
        other => unreachable!("{other} is no command"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
