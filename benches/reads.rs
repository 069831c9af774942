//! How long reads take and what they cost, by sightline and by the least that a server could do ([`floor`]). The two take
//! turns, with the same load on the same ids. The load shares the machine with what it measures.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use prost::Message;
use serde_json::Value;
use sightline::proto::order::v1::{BatchGetCustomersRequest, GetCustomerRequest};
use sightline_testing::app::Running;
use sightline_testing::client::{Rest, customer_path, escape};
use tokio::time::sleep;

use crate::load::{Load, Pace, RATE, h2load, warm, wrk};
use crate::report::Report;
use crate::topic::{ORDER, READ, Topic};
use crate::{BY_HAND, Bench, Build, floor, processes};

const TIME: Duration = Duration::from_secs(3);
/// `wrk` reads so many users in turn.
const USERS: usize = 5_000;
/// Ids in a batch.
const BATCH: usize = 100;
/// Pages of the feed that are read, and how their paths begin.
const PAGES: usize = 100;
const FEED: &str = "/v1/order/address-changes?pageSize=100";
/// Answers whose mean size is taken.
const SAMPLE: usize = 50;

pub async fn run(bench: &Bench, report: &mut Report) {
    let topic = Topic::fill(bench).await;
    let running = topic.project(bench, READ).await;
    let (reads, content) = explore(&running, &topic.users).await;
    let floor = floor::start(&bench.database().await, content).await;
    let constant = size(&running.rest, &reads.customers).await;
    let constant = vec![format!("/constant/{constant:.0}")];
    let mut rows = [1, 16, 64]
        .map(|n| ("one customer", n, &reads.customers))
        .to_vec();
    rows.extend(reads.others.iter().map(|(what, paths)| (*what, 16, paths)));
    let mut servers = [(Build::this().name, &running), (BY_HAND, &floor)];
    for _ in 0..bench.settings.rounds {
        for (what, connections, paths) in &rows {
            for (name, server) in servers {
                let row = format!("REST, {what}, {connections} at once: {name}");
                read(bench, report, &row, server, *connections, paths).await;
            }
        }
        let row = format!("REST, a constant, 16 at once: {BY_HAND}");
        read(bench, report, &row, &floor, 16, &constant).await;
        for (what, method, message) in &reads.grpc {
            let path = format!("/sightline.order.v1.OrderService/{method}");
            for (name, server) in servers {
                let row = format!("gRPC, {what}, 16 streams on 4 connections: {name}");
                let (status, answer) = server.raw_grpc.raw_grpc(&path, &[], message).await;
                assert_eq!(status, 0, "{path}");
                let load = h2load(server, &path, message, TIME);
                measure(bench, report, &row, server, answer.body.len() as f64, load).await;
            }
        }
        servers.reverse();
    }
    drop(running);
    let mut servers = [(Build::this().name, None), (BY_HAND, Some(&floor))];
    for _ in 0..bench.settings.rounds {
        for (name, floor) in servers {
            let row = format!("REST, {RATE} reads/s while a backlog is projected: {name}");
            if row.contains(&bench.settings.only) {
                read_beside_backlog(bench, report, &row, &topic, floor, &reads.customers).await;
            }
        }
        servers.reverse();
    }
}

/// What is read, besides customers one by one.
struct Reads {
    customers: Vec<String>,
    /// By REST: what it is, and paths.
    others: Vec<(&'static str, Vec<String>)>,
    /// By gRPC: what it is, the method, and the request.
    grpc: [(&'static str, &'static str, Vec<u8>); 2],
}

/// Paths or cursors, and what belongs to them.
type Answers = Vec<(String, String)>;

/// Finds out what can be read, and what is answered.
async fn explore(running: &Running, users: &[String]) -> (Reads, floor::Content) {
    let rest = &running.rest;
    let mut users = users.to_vec();
    // Not in the order of any index.
    Rng::with_seed(1).shuffle(&mut users);
    users.truncate(USERS);
    let of_users = |what: &str| -> Vec<String> {
        let path = |user: &String| format!("/v1/fulfillment/users/{}/{what}", escape(user));
        users.iter().map(path).collect()
    };
    let customers = ask(rest, users.iter().map(|user| customer_path(user)).collect()).await;
    let by_user = ask(rest, of_users("addresses")).await;
    let defaults = ask(rest, of_users("default-address?kind=shipping")).await;
    let addresses = by_user.iter().flat_map(|(_, answer)| {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        let addresses = answer["addresses"].as_array().expect("a list");
        let id = |address: &Value| escape(address["addressId"].as_str().expect("an id"));
        let paths = addresses
            .iter()
            .map(|address| format!("/v1/fulfillment/addresses/{}", id(address)));
        paths.collect::<Vec<_>>()
    });
    let by_address = ask(rest, addresses.collect()).await;
    let (pages, changes) = follow_feed(rest).await;
    let batches = users.chunks(BATCH).map(|users| {
        let users: Vec<_> = users
            .iter()
            .map(|user| format!("userIds={}", escape(user)))
            .collect();
        format!("/v1/order/customers:batchGet?{}", users.join("&"))
    });
    let messages: Vec<_> = stream::iter(&users)
        .map(|user| async move {
            let request = GetCustomerRequest {
                user_id: user.clone(),
            };
            let answer = running.grpc.order().get_customer(request).await;
            (user.clone(), answer.expect("a customer").into_inner())
        })
        .buffered(16)
        .collect()
        .await;
    let size = messages
        .iter()
        .map(|(_, message)| message.encoded_len())
        .sum::<usize>()
        / users.len();
    let typical = messages
        .iter()
        .min_by_key(|(_, message)| message.encoded_len().abs_diff(size));
    let (typical, _) = typical.expect("users");
    let one = GetCustomerRequest {
        user_id: typical.clone(),
    };
    let batch = BatchGetCustomersRequest {
        user_ids: users[..BATCH.min(users.len())].to_vec(),
    };
    let paths = |answers: &Answers| answers.iter().map(|(path, _)| path.clone()).collect();
    let reads = Reads {
        customers: paths(&customers),
        others: vec![
            ("a batch of 100", batches.collect()),
            ("fulfillment, the addresses of a user", paths(&by_user)),
            ("fulfillment, an address", paths(&by_address)),
            ("fulfillment, a default address", paths(&defaults)),
            ("the feed, a page of 100", pages),
        ],
        grpc: [
            ("one customer", "GetCustomer", one.encode_to_vec()),
            ("a batch of 100", "BatchGetCustomers", batch.encode_to_vec()),
        ],
    };
    let content = floor::Content {
        answers: [customers, by_user, by_address, defaults].concat(),
        customers: messages,
        changes,
    };
    (reads, content)
}

/// Asks for each path once, and returns those that are found, with their answers.
async fn ask(rest: &Rest, paths: Vec<String>) -> Answers {
    stream::iter(paths)
        .map(|path| async move {
            let answer = rest.get(&path).await;
            (answer.status == 200).then(|| (path, answer.text()))
        })
        .buffered(16)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// The paths of the feed's pages after the first, and its changes with their cursors.
async fn follow_feed(rest: &Rest) -> (Vec<String>, Answers) {
    let (mut pages, mut changes) = (Vec::new(), Answers::new());
    let mut path = FEED.to_owned();
    while pages.len() < PAGES {
        let answer = rest.get(&path).await.json();
        for change in answer["changes"].as_array().expect("a list") {
            let cursor = change["cursor"].as_str().expect("a cursor");
            changes.push((cursor.to_owned(), change.to_string()));
        }
        if answer["nextPageToken"].is_null() {
            break;
        }
        path = format!("{FEED}&after={}", escape(&changes[changes.len() - 1].0));
        pages.push(path.clone());
    }
    (pages, changes)
}

/// The mean size of answers, without their heads.
async fn size(rest: &Rest, paths: &[String]) -> f64 {
    let sample = &paths[..SAMPLE.min(paths.len())];
    let mut bytes = 0;
    for path in sample {
        let answer = rest.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        bytes += answer.body.len();
    }
    bytes as f64 / sample.len() as f64
}

async fn read(
    bench: &Bench,
    report: &mut Report,
    row: &str,
    server: &Running,
    connections: usize,
    paths: &[String],
) {
    if !row.contains(&bench.settings.only) {
        return;
    }
    let bytes = size(&server.rest, paths).await;
    warm(server, paths).await;
    let load = async {
        wrk(server, paths, Pace::Connections(connections), sleep(TIME))
            .await
            .0
    };
    measure(bench, report, row, server, bytes, load).await;
}

/// Adds what a load on a server came to, and what processor time it cost.
async fn measure(
    bench: &Bench,
    report: &mut Report,
    row: &str,
    server: &Running,
    bytes: f64,
    load: impl Future<Output = Load>,
) {
    if !row.contains(&bench.settings.only) {
        return;
    }
    let processor_times = || {
        [
            processes::processor_time(server.app.process.pid),
            processes::family_processor_time(bench.postgres_process(), None),
        ]
    };
    let before = processor_times();
    let load = load.await;
    let after = processor_times();
    let [of_server, of_postgres] =
        [0, 1].map(|n| (after[n] - before[n]).as_secs_f64() * 1e6 / load.answers);
    load.add(report, row);
    report.add(row, "µs of processor/read: server", of_server);
    report.add(row, "µs of processor/read: Postgres", of_postgres);
    report.add(row, "bytes/answer", bytes);
    report.add(
        row,
        "µs of processor/kB: both",
        (of_server + of_postgres) * 1e3 / bytes,
    );
}

/// Reads customers at a rate while sightline projects the topic: from sightline, of which some are not known
/// yet, or from another server.
async fn read_beside_backlog(
    bench: &Bench,
    report: &mut Report,
    row: &str,
    topic: &Topic,
    other: Option<&Running>,
    customers: &[String],
) {
    let build = Build::this();
    let (database, pool) = bench.migrated(&build).await;
    let gateway = topic.serve(&build, ORDER, &database).listening().await;
    topic.begun(&pool).await;
    let server = other.unwrap_or(&gateway);
    warm(server, customers).await;
    let projected = topic.projected(ORDER, &pool, Instant::now());
    let (load, projected) = wrk(server, customers, Pace::Rate(RATE), projected).await;
    load.add(report, row);
    report.add(row, "events/s projected meanwhile", projected.rate);
    drop(gateway);
    pool.close().await;
    bench.drop_database(&database).await;
}
