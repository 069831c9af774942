//! The commands, their arguments, and the settings that each needs.
//!
//! `serve` and `dev` run the gateway, `migrate` prepares its database, `openapi` and `config` print
//! a document, `status`, `healthcheck`, `dead-letters` and `projections` call a running gateway. A
//! command prints its result to stdout, and everything else to stderr. It ends when nothing reads
//! what it prints.

mod arguments;
mod dead_letters;
mod gateway;
mod healthcheck;
mod projections;
mod status;
mod table;

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{ArgMatches, Command};
use sqlx::PgPool;

use self::arguments::{PRINTED, api_command, exit_codes, flag, json, server, watch};
use self::gateway::Gateway;
use crate::config::{self, Config, ConfigError, Settings};
use crate::kafka::properties;
use crate::{app, db, domains, output};

/// The whole command line.
pub fn command() -> Command {
    let not_printed = "the output can't be written";
    let commands = [
        server(
            "serve",
            "Run the gateway: apply migrations, project events, serve the APIs",
        )
        .arg(flag(
            "no-migrate",
            "Do not apply migrations; wait until the database's schema is current",
        ))
        .args(config::args(&config::all_keys())),
        #[cfg(feature = "dev")]
        server(
            "dev",
            "Run the gateway with its own Kafka, Postgres and sample events: nothing to install",
        )
        .long_about(crate::dev::LONG_ABOUT)
        .args(crate::dev::args()),
        Command::new("migrate")
            .about("Apply the database migrations and exit")
            .after_help(exit_codes(
                "the schema is up to date",
                "the migration failed",
            ))
            // It uses few of them, but checks all, as `serve` will: also those of a file that both read.
            .args(config::args(&config::all_keys())),
        Command::new("openapi")
            .about("Print the OpenAPI document of the REST API")
            .after_help(exit_codes(PRINTED, not_printed)),
        Command::new("config")
            .about("Print the effective settings as TOML, with secrets masked")
            .after_help(exit_codes(PRINTED, not_printed))
            .args(config::args(&config::all_keys())),
        api_command(
            "status",
            "Show the lag and the record counts of every partition of a running gateway",
        )
        .args([watch(), json()]),
        Command::new("healthcheck")
            .about("Exit with 0 if a running gateway is ready, else with 1")
            .after_help(exit_codes("ready", "not ready, or not reachable"))
            .args(config::args(&["admin_addr"])),
    ];
    Command::new("sightline")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Projects user events from Kafka into read models in Postgres and serves them over gRPC and REST",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands)
        .subcommands([dead_letters::command(), projections::command()])
}

/// Runs the command whose arguments [`command`] parsed.
///
/// # Errors
/// A [`config::ConfigError`] if a setting is invalid, before anything is started; else the failure
/// of the command.
pub async fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (name, arguments) = arguments.subcommand().expect("a required subcommand");
    if name == "openapi" {
        output::print(&app::openapi_json()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((command, arguments)) = arguments.subcommand() {
        let gateway = Gateway {
            address: Settings::gather(arguments)?.address("http_addr")?,
            json: arguments.get_flag("json"),
        };
        if name == "dead-letters" {
            return dead_letters::run(&gateway, command, arguments).await;
        }
        projections::run(&gateway, command, arguments).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::gather(arguments)?;
    match name {
        "serve" => {
            let mut config = server_config(&settings)?;
            config.migrate = !arguments.get_flag("no-migrate");
            app::init_logs(&config)?;
            return app::serve(config).await;
        }
        #[cfg(feature = "dev")]
        "dev" => return crate::dev::run(arguments, &settings).await,
        "migrate" => {
            let config = settings.load(&domains::names(), &["database_url"])?;
            app::init_logs(&config)?;
            let pool = db::pool(
                &db::PROJECTORS,
                db::options(&config.database_direct_url)?,
                1,
            );
            migrate(&pool)
                .await
                .context("cannot migrate the database")?;
        }
        "config" => {
            let config = server_config(&settings)?;
            for variable in config::unknown_variables() {
                output::complain(&format!("sightline: {variable}"));
            }
            output::print(&config.to_toml())?;
        }
        "status" => {
            let gateway = Gateway {
                address: settings.address("http_addr")?,
                json: arguments.get_flag("json"),
            };
            status::run(&gateway, arguments.get_flag("watch")).await?;
        }
        "healthcheck" => return Ok(healthcheck::run(settings.address("admin_addr")?).await),
        other => unreachable!("unknown command {other}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings of a gateway.
fn server_config(settings: &Settings) -> Result<Config, ConfigError> {
    let config = settings.load(&domains::names(), &["database_url", "kafka_brokers"])?;
    properties::check(&config.kafka_properties)
        .map_err(|problem| settings.error("kafka_properties", problem))?;
    Ok(config)
}

async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    // The library's errors may quote values, so only descriptions are printed.
    let unsuitable = db::find_unsuitable(pool)
        .await
        .map_err(|error| anyhow!("{}: {}", db::address(pool), db::describe(&error)))?;
    if let Some(problem) = unsuitable {
        bail!(problem);
    }
    db::migrate(pool)
        .await
        .map_err(|error| anyhow!(db::describe_migration(&error)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
