//! Parts of the command line that several commands share.

use clap::{Arg, ArgAction, Command};

use crate::config;

/// What exit code 0 means for a command that prints its result.
pub(super) const PRINTED: &str = "success, or nothing reads the output any more";

/// The exit codes of a command, for its help: what 0 and 1 mean.
pub(super) fn exit_codes(success: &str, failure: &str) -> String {
    format!(
        "Exit codes:
  0  {success}
  1  {failure}
  2  a setting or an argument is unknown, missing or invalid; nothing was started"
    )
}

/// A command that runs the gateway.
pub(super) fn server(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(
        "Exit codes:
  0    an orderly stop
  1    failure; or calls or batches still ran when the shutdown grace ended
  2    a setting or an argument is unknown, missing or invalid; nothing was started
  130  a second signal ended the process at once",
    )
}

/// A command that only groups other commands.
pub(super) fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// A command that calls the API of a running gateway.
pub(super) fn api_command(name: &'static str, about: &'static str) -> Command {
    let failure = "the gateway is not reachable, or refuses the call";
    Command::new(name)
        .about(about)
        .after_help(exit_codes(PRINTED, failure))
        .args(config::args(&["http_addr"]))
}

/// A text that is not empty.
pub(super) fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// `--name`
pub(super) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// `--name <VALUE>`
pub(super) fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// `--json`
pub(super) fn json() -> Arg {
    flag("json", "Print the API's answer as JSON, on one line")
}

/// `--watch`
pub(super) fn watch() -> Arg {
    flag("watch", "Refresh every second until interrupted")
}
