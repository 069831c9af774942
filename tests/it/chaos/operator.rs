//! Operators, over the API of any instance in any state: they retry and discard dead letters; pause, rebuild,
//! switch, roll back and drop versions of views.
//!
//! A request may be refused, or be executed without an answer. The final comparison reads from the program
//! which requests were executed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use sightline_testing::client::with_query;
use tokio::time::sleep;

use super::faults::{Lane, between, faults};
use super::harness::Harness;

/// How long to wait for an answer: a frozen instance does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two operators that work at the same time, each on one task at a time.
pub fn lanes() -> Vec<Lane> {
    let tasks = || {
        faults![
            5 retry_all,
            4 retry_one,
            4 discard_one,
            2 pause_for_a_while,
            4 rebuild_and_switch,
            1 rebuild_and_cancel,
            1 roll_back,
            1 drop_the_retired,
            2 change_the_limit,
        ]
    };
    let lane = || Lane {
        faults: tasks(),
        pause: Duration::from_secs(2),
    };
    vec![lane(), lane()]
}

fn domain(rng: &mut Rng) -> &'static str {
    let domains = sightline::domains::names();
    domains[rng.usize(0..domains.len())]
}

/// Sends a request to any instance. `None` if there was no answer, or a refusal that is allowed.
async fn call(harness: &Harness, rng: &mut Rng, path: &str, body: Option<Value>) -> Option<Value> {
    let rest = harness.rest(rng)?;
    let answer = async {
        match &body {
            Some(body) => rest.try_post(path, body).await,
            None => rest.try_get(path).await,
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()?;
    match answer.status {
        200 => Some(answer.json()),
        // The other operator was faster, or the view is in another state.
        404 | 409 => {
            harness.diary.note(format!("{path}: {}", answer.text()));
            None
        }
        503 | 504 => None,
        status => {
            let violation = format!("{path}: {status}: {}", answer.text());
            harness.diary.violation(violation);
            None
        }
    }
}

/// Changes a domain's projection. Returns whether the answer confirmed it.
async fn project(harness: &Harness, rng: &mut Rng, domain: &str, verb: &str, body: Value) -> bool {
    let path = format!("/v1/projections/{domain}/{verb}");
    let done = call(harness, rng, &path, Some(body)).await.is_some();
    harness.diary.note(format!("{verb} {domain}: {done}"));
    done
}

fn count_tried(harness: &Harness, tried: &Value) {
    let outcomes = tried["outcomes"].as_array().map_or(&[][..], Vec::as_slice);
    harness
        .diary
        .count("dead letters retried", outcomes.len() as u64);
    let through = |tried: &&Value| tried["outcome"] == "applied";
    let through = outcomes.iter().filter(through).count();
    harness.diary.count("dead letters applied", through as u64);
}

async fn retry_all(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    harness.diary.note(format!("retry all of {domain}"));
    let mut body = json!({"domain": domain});
    while let Some(tried) = call(
        &harness,
        &mut rng,
        "/v1/dead-letters:retry",
        Some(body.clone()),
    )
    .await
    {
        count_tried(&harness, &tried);
        match tried["nextPageToken"].as_str() {
            Some(token) => body["pageToken"] = json!(token),
            None => return,
        }
    }
}

/// Any open dead letter of a domain.
async fn open_dead_letter(harness: &Harness, rng: &mut Rng, domain: &str) -> Option<Value> {
    let filters = [
        ("domain", Some(domain)),
        ("state", Some("parked")),
        ("pageSize", Some("1000")),
    ];
    let page = call(
        harness,
        rng,
        &with_query("/v1/dead-letters", &filters),
        None,
    )
    .await?;
    rng.choice(page["deadLetters"].as_array()?).cloned()
}

fn path_of(dead_letter: &Value, verb: &str) -> String {
    format!(
        "/v1/dead-letters/{}/{verb}",
        dead_letter["id"].as_str().expect("an id")
    )
}

async fn retry_one(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if let Some(dead_letter) = open_dead_letter(&harness, &mut rng, domain).await {
        let body = json!({"dryRun": rng.u32(0..4) == 0});
        let dry_run = body["dryRun"] == true;
        let tried = call(
            &harness,
            &mut rng,
            &path_of(&dead_letter, "retry"),
            Some(body),
        )
        .await;
        if let (Some(tried), false) = (tried, dry_run) {
            count_tried(&harness, &tried);
        }
    }
}

async fn discard_one(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if let Some(dead_letter) = open_dead_letter(&harness, &mut rng, domain).await {
        let coordinate = |name: &str| dead_letter[name].as_i64().expect("a number");
        let coordinates = (coordinate("partition") as i32, coordinate("offset"));
        harness
            .diary
            .note(format!("discard {domain} {coordinates:?}"));
        // Recorded before the request, as its answer may be lost.
        harness
            .discards
            .lock()
            .unwrap()
            .insert((domain, coordinates.0, coordinates.1));
        let body = json!({"reason": "chaos test"});
        if call(
            &harness,
            &mut rng,
            &path_of(&dead_letter, "discard"),
            Some(body),
        )
        .await
        .is_some()
        {
            harness.diary.count("dead letters discarded", 1);
        }
    }
}

async fn pause_for_a_while(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if project(&harness, &mut rng, domain, "pause", json!({})).await {
        harness.diary.count("pauses", 1);
    }
    sleep(between(&mut rng, 200, 4_000)).await;
    project(&harness, &mut rng, domain, "resume", json!({})).await;
}

async fn rebuild_and_switch(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if project(&harness, &mut rng, domain, "rebuild", json!({})).await {
        harness.diary.count("rebuilds", 1);
    }
    let until = Instant::now() + between(&mut rng, 2_000, 20_000);
    while Instant::now() < until {
        sleep(between(&mut rng, 100, 1_000)).await;
        if project(&harness, &mut rng, domain, "switch", json!({})).await {
            harness.diary.count("switches", 1);
            return;
        }
    }
}

async fn rebuild_and_cancel(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    project(&harness, &mut rng, domain, "rebuild", json!({})).await;
    sleep(between(&mut rng, 0, 3_000)).await;
    if project(&harness, &mut rng, domain, "cancel", json!({})).await {
        harness.diary.count("rebuilds cancelled", 1);
    }
}

async fn roll_back(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    for _ in 0..5 {
        if project(&harness, &mut rng, domain, "rollback", json!({})).await {
            harness.diary.count("switches back", 1);
            return;
        }
        sleep(between(&mut rng, 100, 500)).await;
    }
}

async fn drop_the_retired(harness: Arc<Harness>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if project(&harness, &mut rng, domain, "drop", json!({})).await {
        harness.diary.count("versions dropped", 1);
    }
}

/// Instances that start from now on have the other limit, so that one instance may apply a large record that
/// is a dead letter for another.
async fn change_the_limit(harness: Arc<Harness>, _: Rng) {
    harness
        .diary
        .note(format!("the limit is now {}", harness.change_the_limit()));
}
