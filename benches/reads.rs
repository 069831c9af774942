//! How long GetCustomer takes, over REST and gRPC: while nothing else goes on, and while a backlog is projected.
//! The callers share the machine with what they call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sightline::proto::order::v1::GetCustomerRequest;
use sightline_testing::app::Running;
use sightline_testing::client::{Grpc, Rest, customer_path};

use crate::report::Report;
use crate::topic::{ORDER, Topic};
use crate::{Bench, Build};

const CONNECTIONS: [usize; 3] = [1, 8, 32];
const TIME: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
pub enum Surface {
    Rest,
    Grpc,
}

const SURFACES: [(Surface, &str); 2] = [(Surface::Rest, "REST"), (Surface::Grpc, "gRPC")];

pub async fn run(bench: &Bench, report: &mut Report) {
    let topic = Topic::fill(bench).await;
    let users: Arc<[String]> = topic.users.clone().into();
    let running = topic.project(bench).await;
    for _ in 0..bench.settings.rounds {
        for connections in CONNECTIONS {
            for (surface, name) in SURFACES {
                let row = format!("{name}, {connections} connections, idle");
                let stop = Arc::new(AtomicBool::new(false));
                let calls = call(&running, surface, connections, &users, &stop);
                tokio::time::sleep(TIME).await;
                stop.store(true, Ordering::Relaxed);
                add(report, &row, calls.await, TIME);
            }
        }
    }
    drop(running);
    for _ in 0..bench.settings.rounds {
        for (surface, name) in SURFACES {
            let row = format!("{name}, 8 connections, while a backlog is projected");
            let build = Build::this();
            let (database, pool) = bench.migrated(&build).await;
            let app = topic.serve(&build, ORDER, &database);
            let running = app.listening().await;
            let stop = Arc::new(AtomicBool::new(false));
            let began = Instant::now();
            let calls = call(&running, surface, 8, &users, &stop);
            let (_, rate) = topic.projected(ORDER, &pool, began).await;
            stop.store(true, Ordering::Relaxed);
            let time = began.elapsed();
            add(report, &row, calls.await, time);
            report.add(&row, "events/s projected meanwhile", rate);
        }
    }
}

pub fn add(report: &mut Report, row: &str, latencies: Vec<f64>, time: Duration) {
    report.add(
        row,
        "answers/s",
        latencies.len() as f64 / time.as_secs_f64(),
    );
    report.add_percentiles(row, latencies);
}

/// Sends one call after the other on each connection until `stop` is set. Returns the latencies in seconds.
pub fn call(
    running: &Running,
    surface: Surface,
    connections: usize,
    users: &Arc<[String]>,
    stop: &Arc<AtomicBool>,
) -> impl Future<Output = Vec<f64>> + use<> {
    let callers: Vec<_> = (0..connections)
        .map(|_| {
            let (users, stop) = (Arc::clone(users), Arc::clone(stop));
            let rest = Rest::new(running.rest.address.clone());
            let grpc = Grpc::new(&running.raw_grpc.address);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut order = grpc.order();
                while !stop.load(Ordering::Relaxed) {
                    let user = &users[fastrand::usize(..users.len())];
                    let began = Instant::now();
                    match surface {
                        // Unknown, or not ready, while a backlog has not come that far: that costs as much.
                        Surface::Rest => {
                            let answer = rest.get(&customer_path(user)).await;
                            let not_ready = || answer.text().contains("VIEW_NOT_READY");
                            let expected = matches!(answer.status, 200 | 404) || not_ready();
                            assert!(expected, "{}", answer.text());
                        }
                        Surface::Grpc => {
                            let request = GetCustomerRequest {
                                user_id: user.clone(),
                            };
                            if let Err(status) = order.get_customer(request).await {
                                let code = status.code();
                                let unknown = code == tonic::Code::NotFound;
                                let not_ready = code == tonic::Code::Unavailable;
                                assert!(unknown || not_ready, "{status}");
                            }
                        }
                    }
                    latencies.push(began.elapsed().as_secs_f64());
                }
                latencies
            })
        })
        .collect();
    async move {
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.await.expect("no panic"));
        }
        all
    }
}
