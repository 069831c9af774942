//! `sightline projections`: pauses views, and rebuilds and switches their versions, through a
//! running gateway.

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::arguments::{api_command, flag, group, json, non_empty, option, watch};
use super::gateway::{Gateway, argument, cell, escape, list};
use super::table::{seconds, table};
use crate::output;

/// The command and its subcommands.
pub(super) fn command() -> Command {
    let domain = || {
        Arg::new("domain")
            .required(true)
            .value_name("DOMAIN")
            .value_parser(non_empty)
            .help("The domain's name, for example order")
    };
    let to = || {
        option(
            "to",
            "VERSION",
            "Switch to this version only; nothing changes if it is live already",
        )
        .value_parser(clap::value_parser!(i32))
    };
    let accept_loss = || {
        flag(
            "accept-loss",
            "Continue without the records that Kafka no longer has",
        )
    };
    group(
        "projections",
        "Pause views, rebuild them as a new version, switch versions",
    )
    .subcommands([
        api_command(
            "list",
            "List the versions of every view with their progress",
        )
        .args([watch(), json()]),
        api_command(
            "pause",
            "Pause the projection of a domain; reads are still served",
        )
        .arg(domain())
        .arg(option(
            "reason",
            "TEXT",
            "Why it is paused; shown with the pause",
        ))
        .arg(json()),
        api_command("resume", "Resume the projection of a domain")
            .arg(domain())
            .args([
                accept_loss(),
                flag(
                    "accept-older-code",
                    "Let this release continue where a newer one has projected; rebuild the view afterwards",
                ),
                json(),
            ]),
        api_command(
            "rebuild",
            "Project all records again into a new version of the view; the live one is still served",
        )
        .arg(domain())
        .args([accept_loss(), json()]),
        api_command(
            "cancel",
            "Cancel a rebuild and remove the version that it was building",
        )
        .arg(domain())
        .arg(json()),
        api_command("switch", "Make the new version the live one")
            .arg(domain())
            .args([
                flag("compare", "Switch only if both versions hold the same data"),
                to(),
                json(),
            ]),
        api_command(
            "rollback",
            "Make the most recently retired version the live one again; repeated without --to, it leads back",
        )
        .arg(domain())
        .args([to(), json()]),
        api_command("drop", "Remove the most recently retired version")
            .arg(domain())
            .arg(json()),
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
) -> anyhow::Result<()> {
    if name == "list" {
        return print_all(gateway, arguments.get_flag("watch")).await;
    }
    let body = match name {
        "pause" => match arguments.get_one::<String>("reason") {
            Some(reason) => json!({"reason": reason}),
            None => json!({}),
        },
        "resume" => json!({
            "acceptLoss": arguments.get_flag("accept-loss"),
            "acceptOlderCode": arguments.get_flag("accept-older-code"),
        }),
        "rebuild" => json!({"acceptLoss": arguments.get_flag("accept-loss")}),
        "switch" => json!({
            "compare": arguments.get_flag("compare"),
            "version": arguments.get_one::<i32>("to"),
        }),
        "rollback" => json!({"version": arguments.get_one::<i32>("to")}),
        _ => json!({}),
    };
    let domain = escape(argument(arguments, "domain"));
    let path = format!("/v1/projections/{domain}/{name}");
    let projection = gateway.post(&path, body).await?;
    gateway.print(&projection, &overview(std::slice::from_ref(&projection)))?;
    if name == "rebuild" && !gateway.json {
        output::print("\nTo follow its progress: sightline projections list --watch")?;
    }
    Ok(())
}

/// Prints the versions once, or every second until interrupted if `watch`.
async fn print_all(gateway: &Gateway, watch: bool) -> anyhow::Result<()> {
    let show = async || {
        let answer = gateway.get("/v1/projections").await?;
        let projections = list(&answer, "projections");
        let mut versions = projections.iter().flat_map(|p| list(p, "versions"));
        if versions.next().is_none() && !watch {
            output::complain(
                "No view has a version yet: the first process that projects it makes one.",
            );
        }
        Ok(match gateway.json {
            true => answer.to_string(),
            false => overview(projections),
        })
    };
    gateway.print_shown(watch, show).await
}

const COLUMNS: [&str; 11] = [
    "domain",
    "version",
    "is",
    "state",
    "done",
    "lag",
    "rate/s",
    "eta",
    "read",
    "dead-letters",
    "code",
];
const NUMBERS: [&str; 7] = [
    "version",
    "done",
    "lag",
    "rate/s",
    "eta",
    "read",
    "dead-letters",
];

/// The versions as a table, one per row, then a line for each failure, pause and planned removal.
fn overview(projections: &[Value]) -> String {
    let mut notes = String::new();
    let mut rows = Vec::new();
    for projection in projections {
        for version in list(projection, "versions") {
            rows.push(row(projection, version));
            for note in notes_of(version) {
                let (domain, number) = (cell(&projection["domain"]), cell(&version["version"]));
                notes.push_str(&format!("\n{domain} version {number}: {note}"));
            }
        }
    }
    table(COLUMNS, &NUMBERS, rows) + &notes
}

fn row(projection: &Value, version: &Value) -> [String; COLUMNS.len()] {
    let text = |name: &str| cell(&version[name]);
    let figure = |name: &str, format: fn(f64) -> String| {
        version[name]
            .as_f64()
            .map_or_else(|| "-".to_owned(), format)
    };
    let state = if version["state"] == "live" {
        cell(&projection["state"])
    } else if version["pause"].is_object() {
        "paused".to_owned()
    } else {
        String::new()
    };
    let outdated = version["outdated"] == true;
    [
        cell(&projection["domain"]),
        text("version"),
        text("state"),
        state,
        figure("progress", |part| format!("{:.1}%", part * 100.0)),
        version["lag"]
            .as_i64()
            .map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
        figure("rate", |rate| format!("{rate:.0}")),
        figure("etaSeconds", seconds),
        text("read"),
        text("deadLetters"),
        if outdated { "outdated" } else { "" }.to_owned(),
    ]
}

fn notes_of(version: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(failure) = version["failure"].as_str() {
        notes.push(failure.to_owned());
    }
    let pause = &version["pause"];
    if pause.is_object() {
        let (by, reason) = (cell(&pause["by"]), cell(&pause["reason"]));
        notes.push(format!("paused by {by}: {reason}"));
    }
    if let Some(time) = version["dropsAt"].as_str() {
        notes.push(format!("will be removed at {time}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_listed_with_progress_failure_and_pause() {
        let projections = json!([{"domain": "order", "state": "paused", "outdated": true, "versions": [
            {"version": 3, "state": "live", "outdated": true, "lag": 12, "progress": 0.9, "rate": 0.0, "read": 108,
             "deadLetters": 2, "pause": {"reason": "moving", "by": "operator", "pausedAt": "2026-10-01T00:00:00Z"}},
            {"version": 4, "state": "building", "outdated": false, "lag": 60, "progress": 0.5, "rate": 30.0,
             "etaSeconds": 2.0, "read": 60, "deadLetters": 0, "fieldOfTomorrow": []},
            {"version": 2, "state": "retired", "outdated": true, "read": 9, "deadLetters": 0,
             "failure": "log_truncated", "dropsAt": "2026-10-02T00:00:00Z"}]}]);
        assert_eq!(
            overview(projections.as_array().unwrap()),
            "\
domain  version  is        state    done  lag  rate/s   eta  read  dead-letters  code
order         3  live      paused  90.0%   12       0     -   108             2  outdated
order         4  building          50.0%   60      30  2.0s    60             0
order         2  retired               -    -       -     -     9             0  outdated

order version 3: paused by operator: moving
order version 2: log_truncated
order version 2: will be removed at 2026-10-02T00:00:00Z"
        );
    }
}
