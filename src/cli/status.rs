//! `sightline status`: prints the lag and the books of a running gateway as a table or as JSON.

use anyhow::Context;
use serde::Deserialize;

use super::gateway::Gateway;
use super::table::{seconds, table};

/// The fields of `GET /v1/consistency` that the table shows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    domains: Vec<Domain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Domain {
    domain: String,
    state: String,
    failure: Option<String>,
    /// When the figures were read, if they are not current.
    as_of: Option<String>,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Partition {
    topic: String,
    partition: i32,
    position: Option<i64>,
    end_offset: Option<i64>,
    lag: Option<i64>,
    oldest_unapplied_seconds: Option<f64>,
    rate: Option<f64>,
    eta_seconds: Option<f64>,
    state: String,
    failure: Option<String>,
    #[serde(default)]
    read: u64,
    #[serde(default)]
    applied: u64,
    #[serde(default)]
    duplicates: u64,
    #[serde(default)]
    skipped: u64,
    #[serde(default)]
    dead_lettered: u64,
    #[serde(default)]
    dead_letters: u64,
    #[serde(default)]
    parked_keys: u64,
}

const COLUMNS: [&str; 17] = [
    "domain",
    "topic",
    "part",
    "state",
    "position",
    "end",
    "lag",
    "age",
    "rate/s",
    "eta",
    "read",
    "applied",
    "duplicates",
    "skipped",
    "dead-lettered",
    "dead-letters",
    "parked",
];
const NUMBERS: [&str; 14] = [
    "part",
    "position",
    "end",
    "lag",
    "age",
    "rate/s",
    "eta",
    "read",
    "applied",
    "duplicates",
    "skipped",
    "dead-lettered",
    "dead-letters",
    "parked",
];

/// Prints once, or every second until interrupted if `watch`.
///
/// # Errors
/// The gateway is not reachable, or refuses the call; nothing reads what is printed.
pub(super) async fn run(gateway: &Gateway, watch: bool) -> anyhow::Result<()> {
    gateway.print_shown(watch, || fetch(gateway)).await
}

async fn fetch(gateway: &Gateway) -> anyhow::Result<String> {
    let answer = gateway.get("/v1/consistency").await?;
    if gateway.json {
        return Ok(answer.to_string());
    }
    let answer = serde_json::from_value(answer)
        .context("the response does not have the form that this version of sightline expects")?;
    Ok(overview(&answer))
}

fn overview(answer: &Consistency) -> String {
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for domain in &answer.domains {
        if domain.partitions.is_empty() {
            let mut row = [""; COLUMNS.len()].map(str::to_owned);
            row[0].clone_from(&domain.domain);
            row[3].clone_from(&domain.state);
            rows.push(row);
        }
        for p in &domain.partitions {
            rows.push([
                domain.domain.clone(),
                p.topic.clone(),
                p.partition.to_string(),
                p.state.clone(),
                number(p.position),
                number(p.end_offset),
                number(p.lag),
                p.oldest_unapplied_seconds.map_or("-".to_owned(), seconds),
                p.rate.map_or("-".to_owned(), |rate| format!("{rate:.0}")),
                p.eta_seconds.map_or("-".to_owned(), seconds),
                p.read.to_string(),
                p.applied.to_string(),
                p.duplicates.to_string(),
                p.skipped.to_string(),
                p.dead_lettered.to_string(),
                p.dead_letters.to_string(),
                p.parked_keys.to_string(),
            ]);
            if let Some(failure) = &p.failure {
                notes.push(format!(
                    "{} {}/{}: {failure}",
                    domain.domain, p.topic, p.partition
                ));
            }
        }
        if let Some(failure) = &domain.failure {
            let mut note = format!("{}: {failure}", domain.domain);
            if let Some(as_of) = &domain.as_of {
                note.push_str(&format!("; figures as of {as_of}"));
            }
            notes.push(note);
        }
    }
    let mut text = table(COLUMNS, &NUMBERS, rows);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes.join("\n"));
    }
    text
}

/// A number, or `-` if it is unknown.
fn number(value: Option<i64>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_column_and_failures_are_listed() {
        let answer = serde_json::from_str(
            r#"{"domains": [
                {"domain": "order", "state": "stalled", "partitions": [
                    {"topic": "user.events", "partition": 3, "position": 41, "endOffset": 50, "lag": 9,
                     "oldestUnappliedSeconds": 90.4, "state": "stalled", "failure": "no_owner",
                     "read": 41, "applied": 30, "duplicates": 6, "skipped": 4, "deadLettered": 1,
                     "deadLetters": 1, "parkedKeys": 2, "fieldOfTomorrow": true}]},
                {"domain": "search", "state": "stalled", "failure": "database_unavailable",
                 "asOf": "2026-10-01T00:00:00Z"}]}"#,
        )
        .unwrap();
        assert_eq!(
            overview(&answer),
            "\
domain  topic        part  state    position  end  lag  age  rate/s  eta  read  applied  duplicates  skipped  dead-lettered  dead-letters  parked
order   user.events     3  stalled        41   50    9  90s       -    -    41       30           6        4              1             1       2
search                     stalled

order user.events/3: no_owner
search: database_unavailable; figures as of 2026-10-01T00:00:00Z"
        );
    }
}
