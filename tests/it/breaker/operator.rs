//! What operators do meanwhile, over the API of any instance, whatever state it is in: dead letters are tried again and
//! taken out, views are paused, rebuilt beside the live ones, switched to, switched back from and dropped.
//!
//! Each may be refused, or be done without an answer: what became of it is read from the program in the end.

use super::faults::{Lane, between, faults};
use super::stage::Stage;
use crate::support::client::with_query;
use fastrand::Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long an answer may take: a frozen instance gives none.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two who operate: each sees to one thing at a time, and does not know of the other.
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

/// Asks any instance for something, or to do something; `None` where it did not say, or said that it can't now.
async fn call(stage: &Stage, rng: &mut Rng, path: &str, body: Option<Value>) -> Option<Value> {
    let rest = stage.rest(rng)?;
    let answer = async {
        match &body {
            Some(body) => rest.try_post(path, body).await,
            None => rest.try_get(path).await,
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()?;
    match answer.status {
        200 => Some(answer.json()),
        // Somebody else was faster, or it is too early or too late for that.
        404 | 409 => {
            stage.diary.note(format!("{path}: {}", answer.text()));
            None
        }
        503 | 504 => None,
        status => {
            let violation = format!("{path}: {status}: {}", answer.text());
            stage.diary.violation(violation);
            None
        }
    }
}

/// Does something to a domain's projection; whether it was done.
async fn project(stage: &Stage, rng: &mut Rng, domain: &str, verb: &str, body: Value) -> bool {
    let path = format!("/v1/projections/{domain}/{verb}");
    let done = call(stage, rng, &path, Some(body)).await.is_some();
    stage.diary.note(format!("{verb} {domain}: {done}"));
    done
}

fn count_tried(stage: &Stage, tried: &Value) {
    let outcomes = tried["outcomes"].as_array().map_or(&[][..], Vec::as_slice);
    stage.diary.count("letters tried", outcomes.len() as u64);
    let through = |tried: &&Value| tried["outcome"] == "applied";
    let through = outcomes.iter().filter(through).count();
    stage.diary.count("letters applied", through as u64);
}

async fn retry_all(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    stage.diary.note(format!("retry all of {domain}"));
    let mut body = json!({"domain": domain});
    while let Some(tried) = call(
        &stage,
        &mut rng,
        "/v1/dead-letters:retry",
        Some(body.clone()),
    )
    .await
    {
        count_tried(&stage, &tried);
        match tried["nextPageToken"].as_str() {
            Some(token) => body["pageToken"] = json!(token),
            None => return,
        }
    }
}

/// Any open letter of a domain.
async fn some_letter(stage: &Stage, rng: &mut Rng, domain: &str) -> Option<Value> {
    let filters = [
        ("domain", Some(domain)),
        ("state", Some("parked")),
        ("pageSize", Some("1000")),
    ];
    let page = call(stage, rng, &with_query("/v1/dead-letters", &filters), None).await?;
    rng.choice(page["deadLetters"].as_array()?).cloned()
}

fn path_of(letter: &Value, verb: &str) -> String {
    format!(
        "/v1/dead-letters/{}/{verb}",
        letter["id"].as_str().expect("an id")
    )
}

async fn retry_one(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if let Some(letter) = some_letter(&stage, &mut rng, domain).await {
        let body = json!({"dryRun": rng.u32(0..4) == 0});
        let dry_run = body["dryRun"] == true;
        let tried = call(&stage, &mut rng, &path_of(&letter, "retry"), Some(body)).await;
        if let (Some(tried), false) = (tried, dry_run) {
            count_tried(&stage, &tried);
        }
    }
}

async fn discard_one(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if let Some(letter) = some_letter(&stage, &mut rng, domain).await {
        let coordinate = |name: &str| letter[name].as_i64().expect("a number");
        let place = (coordinate("partition") as i32, coordinate("offset"));
        stage.diary.note(format!("discard {domain} {place:?}"));
        // Before it is asked for: the answer may be lost.
        stage
            .discards
            .lock()
            .unwrap()
            .insert((domain, place.0, place.1));
        let body = json!({"reason": "the breaker of things"});
        if call(&stage, &mut rng, &path_of(&letter, "discard"), Some(body))
            .await
            .is_some()
        {
            stage.diary.count("letters discarded", 1);
        }
    }
}

async fn pause_for_a_while(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if project(&stage, &mut rng, domain, "pause", json!({})).await {
        stage.diary.count("pauses", 1);
    }
    sleep(between(&mut rng, 200, 4_000)).await;
    project(&stage, &mut rng, domain, "resume", json!({})).await;
}

async fn rebuild_and_switch(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if project(&stage, &mut rng, domain, "rebuild", json!({})).await {
        stage.diary.count("rebuilds", 1);
    }
    let until = Instant::now() + between(&mut rng, 2_000, 20_000);
    while Instant::now() < until {
        sleep(between(&mut rng, 100, 1_000)).await;
        if project(&stage, &mut rng, domain, "switch", json!({})).await {
            stage.diary.count("switches", 1);
            return;
        }
    }
}

async fn rebuild_and_cancel(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    project(&stage, &mut rng, domain, "rebuild", json!({})).await;
    sleep(between(&mut rng, 0, 3_000)).await;
    if project(&stage, &mut rng, domain, "cancel", json!({})).await {
        stage.diary.count("rebuilds cancelled", 1);
    }
}

async fn roll_back(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    for _ in 0..5 {
        if project(&stage, &mut rng, domain, "rollback", json!({})).await {
            stage.diary.count("switches back", 1);
            return;
        }
        sleep(between(&mut rng, 100, 500)).await;
    }
}

async fn drop_the_retired(stage: Arc<Stage>, mut rng: Rng) {
    let domain = domain(&mut rng);
    if project(&stage, &mut rng, domain, "drop", json!({})).await {
        stage.diary.count("versions dropped", 1);
    }
}

/// Who is started from here on lets through what was too large, or no more: what was a dead letter can be applied by
/// one instance, and not by another.
async fn change_the_limit(stage: Arc<Stage>, _: Rng) {
    stage
        .diary
        .note(format!("the limit is {}", stage.change_the_limit()));
}
