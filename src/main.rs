//! The command line: `sightline <command>`. An error ends in one line on stderr and a documented exit code.

use std::process::ExitCode;

use sightline::config::ConfigError;
use sightline::output::{self, ClosedPipe};
use sightline::{cli, task};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = cli::command().get_matches();
    match cli::run(&arguments).await {
        Ok(code) => code,
        Err(error) if error.is::<ClosedPipe>() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("sightline: {error:#}"));
            ExitCode::from(if error.is::<ConfigError>() {
                task::EXIT_CONFIG
            } else {
                task::EXIT_FAILURE
            })
        }
    }
}
