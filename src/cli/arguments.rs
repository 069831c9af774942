//! Parts of the command line that several commands share.

use clap::{Arg, ArgAction, Command};

use crate::config;

pub(super) const EXIT_CODES: &str = "Exit codes:
  0    success, an orderly stop, or nothing reads the output any more
  1    failure; not ready; or calls or batches still ran when the shutdown grace ended
  2    a setting or an argument is unknown, missing or invalid; nothing was started
  130  a second signal ended the process at once

Settings come from, in order of precedence: a flag, an environment variable, the TOML file given by
--config, the default. A key of the file is the flag without --, and with _ instead of -.";

/// A command with the exit codes below its help.
pub(super) fn subcommand(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(EXIT_CODES)
}

/// A command that only groups other commands.
pub(super) fn group(name: &'static str, about: &'static str) -> Command {
    subcommand(name, about)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// A command that calls the API of a running gateway.
pub(super) fn api_command(name: &'static str, about: &'static str) -> Command {
    subcommand(name, about).args(config::args(&["http_addr"]))
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
