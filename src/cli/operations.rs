//! `sightline dead-letters` and `sightline projections`: what operators do, over the API of a running gateway.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::table::{seconds, table};
use crate::client::{self, TIMEOUT};
use crate::config;
use crate::task::EXIT_FAILURE;

/// How long what changes something may take; a comparison of two large views takes long.
const PATIENCE: Duration = Duration::from_secs(600);
/// What is listed in one request.
const PAGE: &str = "1000";

/// The two groups of commands.
pub fn commands() -> [Command; 2] {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let id = || {
        Arg::new("id")
            .required(true)
            .value_name("ID")
            .help("The letter's id, from `dead-letters list`")
    };
    let domain = || {
        Arg::new("domain")
            .required(true)
            .value_name("DOMAIN")
            .help("The domain's name, for example order")
    };
    let json = || flag("json", "Print what is answered as JSON");
    let dry_run = || {
        flag(
            "dry-run",
            "Tell what would become of them, and change nothing",
        )
    };
    let to = || {
        option(
            "to",
            "VERSION",
            "Only to this one; nothing is done if it is the live one already",
        )
        .value_parser(clap::value_parser!(i32))
    };
    let accept_loss = || flag("accept-loss", "Go on without what the log has lost");
    let filters = || {
        [
            option("key", "KEY", "Of this Kafka key only"),
            option(
                "key-base64",
                "BASE64",
                "Of this Kafka key only, where it is not UTF-8",
            )
            // By its name in the API, as the others.
            .id("keyBase64")
            .conflicts_with("key"),
            option(
                "reason",
                "REASON",
                "With this reason only, for example wrong_type",
            ),
        ]
    };
    let leaf = |name: &'static str, about: &'static str| {
        super::subcommand(name, about).args(config::args(&["http_addr"]))
    };
    let group = |name: &'static str, about: &'static str| {
        super::subcommand(name, about)
            .subcommand_required(true)
            .arg_required_else_help(true)
    };
    let dead_letters = group(
        "dead-letters",
        "Look at records that could not be applied, try them again, take them out",
    )
    .subcommands([
        leaf("list", "List dead letters, the oldest first")
            .arg(option("domain", "DOMAIN", "Of this domain only"))
            .args(filters())
            .arg(option(
                "state",
                "STATE",
                "In this state only: parked, retrying, discarded, applied",
            ))
            .arg(flag("json", "Print each as JSON, one a line")),
        leaf(
            "show",
            "Show one with headers and value, which hold personal data",
        )
        .arg(id())
        .arg(json()),
        leaf(
            "retry",
            "Try letters again: one and its key, or those of a domain; ends with 1 where one fails",
        )
        .arg(
            id().required(false)
                .conflicts_with_all(["key", "keyBase64", "reason"]),
        )
        .arg(option("domain", "DOMAIN", "All of this domain"))
        .group(ArgGroup::new("which").args(["id", "domain"]).required(true))
        .args(filters())
        .args([dry_run(), json()]),
        leaf(
            "discard",
            "Take one out for good, in every version of the view",
        )
        .arg(id())
        .arg(
            option(
                "reason",
                "WORDS",
                "Why, for those who come later, without personal data",
            )
            .required(true),
        )
        .args([dry_run(), json()]),
    ]);
    let projections = group(
        "projections",
        "Pause views, rebuild them beside the live ones, switch to them and back",
    )
    .subcommands([
        leaf(
            "list",
            "List the versions of every view, and how far each has come",
        )
        .args([
            flag("watch", "Ask again every second, until interrupted"),
            json(),
        ]),
        leaf("pause", "Pause projection of a domain; reads go on")
            .arg(domain())
            .arg(option("reason", "WORDS", "Why, for those who come later"))
            .arg(json()),
        leaf("resume", "Let projection of a domain go on")
            .arg(domain())
            .args([accept_loss(), json()]),
        leaf(
            "rebuild",
            "Project the log anew into a new version of the view",
        )
        .arg(domain())
        .args([accept_loss(), json()]),
        leaf("cancel", "End a rebuild, and remove what it has built")
            .arg(domain())
            .arg(json()),
        leaf("switch", "Make the new version the live one")
            .arg(domain())
            .args([
                flag("compare", "Only if both versions hold the same"),
                to(),
                json(),
            ]),
        leaf(
            "rollback",
            "Make the version that was retired last the live one again",
        )
        .arg(domain())
        .args([to(), json()]),
        leaf("drop", "Remove the version that was retired last")
            .arg(domain())
            .arg(json()),
    ]);
    [dead_letters, projections]
}

/// Runs one of the commands, by the names of its group and its own.
///
/// # Errors
/// The gateway can't be reached, or refuses.
pub async fn run(
    address: SocketAddr,
    group: &str,
    name: &str,
    arguments: &ArgMatches,
) -> anyhow::Result<ExitCode> {
    let gateway = Gateway {
        address,
        json: arguments.get_flag("json"),
    };
    match (group, name) {
        ("dead-letters", "list") => gateway.list_letters(arguments).await?,
        ("dead-letters", "show") => gateway.show_letter(text(arguments, "id")).await?,
        ("dead-letters", "retry") => {
            if gateway.retry(arguments).await? {
                return Ok(ExitCode::from(EXIT_FAILURE));
            }
        }
        ("dead-letters", "discard") => {
            let path = format!("/v1/dead-letters/{}/discard", escape(text(arguments, "id")));
            let body = json!({
                "reason": text(arguments, "reason"),
                "dryRun": arguments.get_flag("dry-run"),
            });
            let tried = gateway.post(&path, body).await?;
            gateway.show_tried(&tried);
        }
        ("projections", "list") => {
            gateway
                .list_projections(arguments.get_flag("watch"))
                .await?
        }
        (_, verb) => {
            let domain = escape(text(arguments, "domain"));
            let body = match verb {
                "pause" => match arguments.get_one::<String>("reason") {
                    Some(reason) => json!({"reason": reason}),
                    None => json!({}),
                },
                "resume" | "rebuild" => json!({"acceptLoss": arguments.get_flag("accept-loss")}),
                "switch" => json!({
                    "compare": arguments.get_flag("compare"),
                    "version": arguments.get_one::<i32>("to"),
                }),
                "rollback" => json!({"version": arguments.get_one::<i32>("to")}),
                _ => json!({}),
            };
            let path = format!("/v1/projections/{domain}/{verb}");
            let projection = gateway.post(&path, body).await?;
            gateway.print(&projection, versions(std::slice::from_ref(&projection)));
            if verb == "rebuild" && !gateway.json {
                println!("\nHow far it comes: sightline projections list --watch");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Gateway {
    address: SocketAddr,
    /// Whether what is answered is printed as it is.
    json: bool,
}

impl Gateway {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        client::json(self.address, Method::GET, path, None, TIMEOUT).await
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        client::json(self.address, Method::POST, path, Some(body), PATIENCE).await
    }

    fn print(&self, answer: &Value, shown: String) {
        match self.json {
            true => println!("{answer}"),
            false => println!("{}", shown.trim_end()),
        }
    }

    async fn list_letters(&self, arguments: &ArgMatches) -> anyhow::Result<()> {
        let mut query = format!("/v1/dead-letters?pageSize={PAGE}");
        for name in ["domain", "key", "keyBase64", "reason", "state"] {
            if let Some(value) = arguments.get_one::<String>(name) {
                query.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        let mut page = self.get(&query).await?;
        loop {
            let letters = list(&page, "deadLetters");
            match self.json {
                true => letters.iter().for_each(|letter| println!("{letter}")),
                false => print!("{}", letters_table(letters)),
            }
            let Some(token) = page["nextPageToken"].as_str() else {
                return Ok(());
            };
            page = self.get(&format!("{query}&pageToken={token}")).await?;
        }
    }

    async fn show_letter(&self, id: &str) -> anyhow::Result<()> {
        let letter = self
            .get(&format!("/v1/dead-letters/{}", escape(id)))
            .await?;
        self.print(&letter, whole_letter(&letter));
        Ok(())
    }

    /// Says whether a letter failed.
    async fn retry(&self, arguments: &ArgMatches) -> anyhow::Result<bool> {
        let dry_run = arguments.get_flag("dry-run");
        if let Some(id) = arguments.get_one::<String>("id") {
            let path = format!("/v1/dead-letters/{}/retry", escape(id));
            let tried = self.post(&path, json!({"dryRun": dry_run})).await?;
            return Ok(self.show_tried(&tried));
        }
        let mut body = json!({"domain": text(arguments, "domain"), "dryRun": dry_run});
        for name in ["key", "keyBase64", "reason"] {
            if let Some(value) = arguments.get_one::<String>(name) {
                body[name] = json!(value);
            }
        }
        let mut failed = false;
        loop {
            let tried = self.post("/v1/dead-letters:retry", body.clone()).await?;
            failed |= self.show_tried(&tried);
            let Some(token) = tried["nextPageToken"].as_str() else {
                return Ok(failed);
            };
            body["pageToken"] = json!(token);
        }
    }

    /// Says whether a letter failed.
    fn show_tried(&self, tried: &Value) -> bool {
        let outcomes = list(tried, "outcomes");
        let rows = outcomes.iter().map(|tried| {
            let why = match (tried["reason"].as_str(), tried["field"].as_str()) {
                (Some(reason), Some(field)) => format!("{reason}: {field}"),
                (reason, _) => reason.unwrap_or_default().to_owned(),
            };
            [cell(&tried["id"]), cell(&tried["outcome"]), why]
        });
        let shown = match outcomes.is_empty() {
            true => "No letter is open there.".to_owned(),
            false => table(["id", "outcome", "why"], &[], rows),
        };
        self.print(tried, shown);
        outcomes.iter().any(|tried| tried["outcome"] == "failed")
    }

    async fn list_projections(&self, watch: bool) -> anyhow::Result<()> {
        loop {
            let answer = self.get("/v1/projections").await;
            let answer = match (answer, watch) {
                (Ok(answer), _) => Some(answer),
                (Err(error), false) => return Err(error),
                (Err(error), true) => {
                    println!("{error:#}");
                    None
                }
            };
            if let Some(answer) = answer {
                let shown = versions(list(&answer, "projections"));
                // Cursor to the corner, and everything below it cleared.
                let clear = if watch { "\x1b[H\x1b[J" } else { "" };
                self.print(&answer, format!("{clear}{shown}"));
            }
            if !watch {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

fn text<'a>(arguments: &'a ArgMatches, name: &str) -> &'a str {
    arguments.get_one::<String>(name).map_or("", String::as_str)
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn list<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

/// A value as a cell shows it; what is absent is empty. Whoever wrote a record must not write to the operator's terminal.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.chars().any(char::is_control) => {
            text.escape_default().to_string()
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn letters_table(letters: &[Value]) -> String {
    let rows = letters.iter().map(|letter| {
        let of = |name: &str| cell(&letter[name]);
        let why = match letter["field"].as_str() {
            Some(field) => format!("{}: {field}", of("reason")),
            None => of("reason"),
        };
        [
            of("id"),
            of("domain"),
            of("topic"),
            of("partition"),
            of("offset"),
            of("eventType"),
            why,
            of("state"),
            of("attempts"),
        ]
    });
    let names = [
        "id", "domain", "topic", "part", "offset", "type", "why", "state", "attempts",
    ];
    table(names, &["part", "offset", "attempts"], rows)
}

/// All of a letter, a line for each field, headers and value as text where they are.
fn whole_letter(letter: &Value) -> String {
    let mut rows = Vec::new();
    for (name, value) in letter.as_object().into_iter().flatten() {
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
    table(["field", "is"], &[], rows)
}

/// What is in base64, as text if it is that.
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

fn versions(projections: &[Value]) -> String {
    let mut notes = String::new();
    let mut rows = Vec::new();
    for projection in projections {
        let domain = cell(&projection["domain"]);
        for version in list(projection, "versions") {
            let number = |name: &str| cell(&version[name]);
            let percent = version["progress"].as_f64();
            let eta = version["etaSeconds"].as_f64();
            rows.push([
                domain.clone(),
                number("version"),
                number("state"),
                match version["state"].as_str() {
                    Some("live") => cell(&projection["state"]),
                    _ if version["pause"].is_object() => "paused".to_owned(),
                    _ => String::new(),
                },
                percent.map_or("-".to_owned(), |part| format!("{:.1}%", part * 100.0)),
                number("lag"),
                version["rate"]
                    .as_f64()
                    .map_or("-".to_owned(), |rate| format!("{rate:.0}")),
                eta.map_or("-".to_owned(), seconds),
                number("read"),
                number("deadLetters"),
                match version["outdated"] {
                    Value::Bool(true) => "outdated".to_owned(),
                    _ => String::new(),
                },
            ]);
            let name = format!("{domain} version {}", number("version"));
            if let Some(failure) = version["failure"].as_str() {
                notes.push_str(&format!("\n{name}: {failure}"));
            }
            if version["pause"].is_object() {
                let (by, reason) = (
                    cell(&version["pause"]["by"]),
                    cell(&version["pause"]["reason"]),
                );
                notes.push_str(&format!("\n{name}: paused by {by}: {reason}"));
            }
            if let Some(at) = version["dropsAt"].as_str() {
                notes.push_str(&format!("\n{name}: dropped by itself at {at}"));
            }
        }
    }
    let names = [
        "domain", "version", "is", "state", "done", "lag", "rate/s", "eta", "read", "letters",
        "code",
    ];
    let numbers = ["version", "done", "lag", "rate/s", "eta", "read", "letters"];
    let mut shown = table(names, &numbers, rows);
    shown.push_str(&notes);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_show_how_far_they_have_come_and_what_holds_them() {
        let projections = json!([{"domain": "order", "state": "paused", "outdated": true, "versions": [
            {"version": 3, "state": "live", "outdated": true, "lag": 12, "progress": 0.9, "rate": 0.0, "read": 108,
             "deadLetters": 2, "pause": {"reason": "moving", "by": "operator", "pausedAt": "2026-10-01T00:00:00Z"}},
            {"version": 4, "state": "building", "outdated": false, "lag": 60, "progress": 0.5, "rate": 30.0,
             "etaSeconds": 2.0, "read": 60, "deadLetters": 0, "fieldOfTomorrow": []},
            {"version": 2, "state": "retired", "outdated": true, "read": 9, "deadLetters": 0,
             "failure": "log_truncated", "dropsAt": "2026-10-02T00:00:00Z"}]}]);
        assert_eq!(
            versions(projections.as_array().unwrap()),
            "\
domain  version  is        state    done  lag  rate/s   eta  read  letters  code
order         3  live      paused  90.0%   12       0     -   108        2  outdated
order         4  building          50.0%   60      30  2.0s    60        0
order         2  retired               -            -     -     9        0  outdated

order version 3: paused by operator: moving
order version 2: log_truncated
order version 2: dropped by itself at 2026-10-02T00:00:00Z"
        );
    }

    #[test]
    fn what_a_record_holds_is_shown_as_text_only_where_it_is_text() {
        assert_eq!(decoded(&json!(STANDARD.encode("{\"a\": 1}"))), "{\"a\": 1}");
        let hostile = STANDARD.encode("\u{1b}[2J");
        assert_eq!(decoded(&json!(hostile)), format!("{hostile} (base64)"));
        assert_eq!(decoded(&Value::Null), "");
    }
}
