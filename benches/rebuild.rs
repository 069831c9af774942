//! Measures how fast a rebuild is, and how it slows reads and projection: a view of a whole topic is
//! rebuilt while customers are read, then switched to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sightline_testing::client::Rest;
use sightline_testing::operations::{project, versions};

use crate::Bench;
use crate::reads::{self, Surface};
use crate::report::Report;
use crate::topic::Topic;

const CONNECTIONS: usize = 8;

pub async fn run(bench: &Bench, report: &mut Report) {
    let topic = Topic::fill(bench).await;
    let users: Arc<[String]> = topic.users.clone().into();
    let running = topic.project(bench).await;
    let rest = &running.rest;
    for _ in 0..bench.settings.rounds {
        for read in [false, true] {
            let row = if read {
                "8 connections read customers"
            } else {
                "no reads"
            };
            let stop = Arc::new(AtomicBool::new(false));
            let connections = if read { CONNECTIONS } else { 0 };
            let calls = reads::call(&running, Surface::Rest, connections, &users, &stop);
            let began = Instant::now();
            project(rest, "order", "rebuild", json!({})).await;
            built(rest, topic.events).await;
            let time = began.elapsed();
            stop.store(true, Ordering::Relaxed);
            let latencies = calls.await;
            report.add(
                row,
                "events/s rebuilt",
                topic.events as f64 / time.as_secs_f64(),
            );
            if read {
                reads::add(report, row, latencies, time);
            }
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
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
