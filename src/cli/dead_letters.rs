//! `sightline dead-letters`: lists, shows, retries and discards dead letters through a running
//! gateway.

use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgGroup, ArgMatches, Command};
use serde_json::{Value, json};

use super::arguments::{PRINTED, api_command, exit_codes, flag, group, json, non_empty, option};
use super::gateway::{Gateway, argument, cell, escape, list};
use super::table::{Table, table};
use crate::output;
use crate::task::EXIT_FAILURE;

/// The number of dead letters in one request.
const PAGE_SIZE: &str = "1000";

/// The command and its subcommands.
pub(super) fn command() -> Command {
    let id = || {
        Arg::new("id")
            .required(true)
            .value_name("ID")
            .value_parser(non_empty)
            .help("The dead letter's id, as `sightline dead-letters list` prints it")
    };
    let dry_run = || flag("dry-run", "Report the outcome, but change nothing");
    let filters = || {
        [
            option("key", "KEY", "Only dead letters with this Kafka key")
                .value_parser(non_empty),
            option(
                "key-base64",
                "BASE64",
                "Only dead letters with this Kafka key, given in base64: for keys that are not UTF-8",
            )
            // The API's name of the parameter.
            .id("keyBase64")
            .value_parser(non_empty)
            .conflicts_with("key"),
            option(
                "reason",
                "REASON",
                "Only dead letters with this reason, for example wrong_type",
            ),
        ]
    };
    group(
        "dead-letters",
        "List, show, retry or discard records that could not be applied",
    )
    .subcommands([
        api_command("list", "List dead letters, oldest first")
            .arg(option(
                "domain",
                "DOMAIN",
                "Only dead letters of this domain",
            ))
            .args(filters())
            .arg(option(
                "state",
                "STATE",
                "Only dead letters in this state: parked, retrying, discarded or applied",
            ))
            .arg(flag("json", "Print each dead letter as JSON, one per line")),
        api_command(
            "show",
            "Show one dead letter with its headers and value, which contain personal data",
        )
        .arg(id())
        .arg(json()),
        api_command(
            "retry",
            "Retry one dead letter and those of its key, or all of a domain",
        )
        .after_help(exit_codes(
            PRINTED,
            "a dead letter failed again, or the gateway is not reachable or refuses the call",
        ))
        .arg(
            id().required(false)
                .conflicts_with_all(["key", "keyBase64", "reason"]),
        )
        .arg(option(
            "domain",
            "DOMAIN",
            "Retry the dead letters of this domain",
        ))
        .group(ArgGroup::new("which").args(["id", "domain"]).required(true))
        .args(filters())
        .args([
            dry_run(),
            flag(
                "json",
                "Print the API's answers as JSON, one per line: many dead letters need several requests",
            ),
        ]),
        api_command(
            "discard",
            "Discard one dead letter for good, in every version of the view",
        )
        .arg(id())
        .arg(
            option(
                "reason",
                "TEXT",
                "Why it is discarded; the text is stored, so leave personal data out",
            )
            .required(true),
        )
        .args([dry_run(), json()]),
    ])
}

/// Runs the subcommand `name`.
///
/// # Errors
/// The gateway is not reachable, or refuses the call.
pub(super) async fn run(
    gateway: &Gateway,
    name: &str,
    arguments: &ArgMatches,
) -> anyhow::Result<ExitCode> {
    match name {
        "list" => print_all(gateway, arguments).await?,
        "show" => show(gateway, argument(arguments, "id")).await?,
        "retry" => {
            if retry(gateway, arguments).await? {
                return Ok(ExitCode::from(EXIT_FAILURE));
            }
        }
        "discard" => discard(gateway, arguments).await?,
        other => unreachable!("dead-letters has no subcommand {other}"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn print_all(gateway: &Gateway, arguments: &ArgMatches) -> anyhow::Result<()> {
    let mut query = format!("/v1/dead-letters?pageSize={PAGE_SIZE}");
    for name in ["domain", "key", "keyBase64", "reason", "state"] {
        if let Some(value) = arguments.get_one::<String>(name) {
            query.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    let mut page = gateway.get(&query).await?;
    if list(&page, "deadLetters").is_empty() {
        output::complain("No dead letter matches.");
    }
    let mut table = overview();
    loop {
        let dead_letters = list(&page, "deadLetters");
        if gateway.json {
            for dead_letter in dead_letters {
                output::print(&dead_letter.to_string())?;
            }
        } else {
            output::print(&table.format(dead_letters.iter().map(row)))?;
        }
        let Some(token) = page["nextPageToken"].as_str() else {
            return Ok(());
        };
        page = gateway.get(&format!("{query}&pageToken={token}")).await?;
    }
}

async fn show(gateway: &Gateway, id: &str) -> anyhow::Result<()> {
    let path = format!("/v1/dead-letters/{}", escape(id));
    let dead_letter = gateway.get(&path).await?;
    gateway.print(&dead_letter, &details(&dead_letter))
}

/// Returns whether the retry of any dead letter failed.
async fn retry(gateway: &Gateway, arguments: &ArgMatches) -> anyhow::Result<bool> {
    let dry_run = arguments.get_flag("dry-run");
    let mut outcomes = Outcomes::new(gateway);
    if let Some(id) = arguments.get_one::<String>("id") {
        let path = format!("/v1/dead-letters/{}/retry", escape(id));
        let answer = gateway.post(&path, json!({"dryRun": dry_run})).await?;
        outcomes.print(&answer)?;
    } else {
        let mut body = json!({"domain": argument(arguments, "domain"), "dryRun": dry_run});
        for name in ["key", "keyBase64", "reason"] {
            if let Some(value) = arguments.get_one::<String>(name) {
                body[name] = json!(value);
            }
        }
        loop {
            let answer = gateway.post("/v1/dead-letters:retry", body.clone()).await?;
            outcomes.print(&answer)?;
            let Some(token) = answer["nextPageToken"].as_str() else {
                break;
            };
            body["pageToken"] = json!(token);
        }
    }
    outcomes.end(dry_run)?;
    Ok(outcomes.has_failed)
}

async fn discard(gateway: &Gateway, arguments: &ArgMatches) -> anyhow::Result<()> {
    let id = escape(argument(arguments, "id"));
    let dry_run = arguments.get_flag("dry-run");
    let body = json!({"reason": argument(arguments, "reason"), "dryRun": dry_run});
    let path = format!("/v1/dead-letters/{id}/discard");
    let answer = gateway.post(&path, body).await?;
    let mut outcomes = Outcomes::new(gateway);
    outcomes.print(&answer)?;
    outcomes.end(dry_run)
}

/// The outcomes of one command, which may need several calls: one table, or a line of JSON per call.
struct Outcomes<'g> {
    gateway: &'g Gateway,
    table: Table<3>,
    is_empty: bool,
    /// Whether any dead letter failed.
    has_failed: bool,
}

impl<'g> Outcomes<'g> {
    fn new(gateway: &'g Gateway) -> Self {
        Self {
            gateway,
            table: Table::new(["id", "outcome", "reason"], &[]),
            is_empty: true,
            has_failed: false,
        }
    }

    /// Prints the outcomes of one call.
    fn print(&mut self, answer: &Value) -> anyhow::Result<()> {
        let outcomes = list(answer, "outcomes");
        self.is_empty &= outcomes.is_empty();
        self.has_failed |= outcomes.iter().any(|of| of["outcome"] == "failed");
        if self.gateway.json {
            return output::print(&answer.to_string());
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        let rows = outcomes.iter().map(|outcome| {
            [
                cell(&outcome["id"]),
                cell(&outcome["outcome"]),
                reason_and_field(outcome),
            ]
        });
        output::print(&self.table.format(rows))
    }

    /// Prints that no dead letter matched, or that the run was dry.
    fn end(&self, dry_run: bool) -> anyhow::Result<()> {
        if self.gateway.json {
            return Ok(());
        }
        match (self.is_empty, dry_run) {
            (true, _) => output::print("No open dead letter matches."),
            (false, true) => output::print("A dry run: nothing was changed."),
            (false, false) => Ok(()),
        }
    }
}

/// `reason: field`, or only the reason if it concerns no field.
fn reason_and_field(of: &Value) -> String {
    let reason = cell(&of["reason"]);
    match of["field"].as_str() {
        Some(field) => format!("{reason}: {field}"),
        None => reason,
    }
}

/// A table of dead letters, one per row.
fn overview() -> Table<9> {
    let names = [
        "id", "domain", "topic", "part", "offset", "type", "reason", "state", "attempts",
    ];
    Table::new(names, &["part", "offset", "attempts"])
}

fn row(dead_letter: &Value) -> [String; 9] {
    let text = |name: &str| cell(&dead_letter[name]);
    [
        text("id"),
        text("domain"),
        text("topic"),
        text("partition"),
        text("offset"),
        text("eventType"),
        reason_and_field(dead_letter),
        text("state"),
        text("attempts"),
    ]
}

/// A dead letter as a table with one row per field and header. The value and the headers are
/// decoded where they are text.
fn details(dead_letter: &Value) -> String {
    let mut rows = Vec::new();
    for (name, value) in dead_letter.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("value", value) => rows.push([name.clone(), decoded(value)]),
            ("headers", Value::Array(headers)) => {
                for header in headers {
                    let name = format!("header {}", cell(&header["name"]));
                    rows.push([name, decoded(&header["value"])]);
                }
            }
            (_, value) => rows.push([name.clone(), cell(value)]),
        }
    }
    table(["field", "value"], &[], rows)
}

/// A base64 value as text, or unchanged if its bytes are not printable text.
fn decoded(value: &Value) -> String {
    let Some(encoded) = value.as_str() else {
        return String::new();
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text,
        _ => format!("{encoded} (base64)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_decoded_only_if_it_is_printable_text() {
        assert_eq!(decoded(&json!(STANDARD.encode("{\"a\": 1}"))), "{\"a\": 1}");
        let hostile = STANDARD.encode("\u{1b}[2J");
        assert_eq!(decoded(&json!(hostile)), format!("{hostile} (base64)"));
        assert_eq!(decoded(&Value::Null), "");
    }
}
