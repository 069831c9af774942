//! Measures how fast a rebuild is, and how it slows reads and projection: a view of a whole topic is
//! rebuilt while customers are read at a rate, then switched to.

use std::time::{Duration, Instant};

use serde_json::json;
use sightline_testing::client::{Rest, customer_path};
use sightline_testing::operations::{project, versions};
use tokio::time::sleep;

use crate::Bench;
use crate::load::{Pace, RATE, wrk};
use crate::report::Report;
use crate::topic::{ORDER, Topic};

/// How long reads are measured without a rebuild.
const TIME: Duration = Duration::from_secs(5);

pub async fn run(bench: &Bench, report: &mut Report) {
    let topic = Topic::fill(bench).await;
    let running = topic.project(bench, ORDER).await;
    let customers: Vec<_> = topic.users.iter().map(|user| customer_path(user)).collect();
    let rest = &running.rest;
    for _ in 0..bench.settings.rounds {
        let (load, ()) = wrk(&running, &customers, Pace::Rate(RATE), sleep(TIME)).await;
        load.add(report, &format!("{RATE} reads/s, no rebuild"));
        for read in [false, true] {
            let rebuild = async {
                let began = Instant::now();
                project(rest, "order", "rebuild", json!({})).await;
                built(rest, topic.events).await;
                topic.events as f64 / began.elapsed().as_secs_f64()
            };
            let (row, rate) = if read {
                let row = format!("{RATE} reads/s, a rebuild");
                let (load, rate) = wrk(&running, &customers, Pace::Rate(RATE), rebuild).await;
                load.add(report, &row);
                (row, rate)
            } else {
                ("no reads, a rebuild".to_owned(), rebuild.await)
            };
            report.add(&row, "events/s rebuilt", rate);
            // There and back again, so that each round begins with the same version.
            for (what, verb, body) in [
                ("switch, compared", "switch", json!({"compare": true})),
                ("rollback", "rollback", json!({})),
            ] {
                let began = Instant::now();
                project(rest, "order", verb, body).await;
                report.add(what, "ms", began.elapsed().as_secs_f64() * 1e3);
            }
            project(rest, "order", "drop", json!({})).await;
        }
    }
}

/// Waits until the version that is being built has read all.
async fn built(rest: &Rest, events: i64) {
    loop {
        let versions = versions(rest, "order").await;
        let of_new = versions.iter().find(|(_, state, _)| state == "building");
        if of_new.is_some_and(|(.., read)| *read == events) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
