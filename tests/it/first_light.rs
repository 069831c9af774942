//! The whole path: a hostile log in, the fold's answers and books out, over every way to ask.

use crate::support::app::World;
use crate::support::broker::{Broker, Record};
use crate::support::check::{DOMAINS, Depth, Ends, assert_answers, assert_books, caught_up};
use crate::support::client::customer_path;
use crate::support::database::Database;
use crate::support::fold::{Books, Folds};
use crate::support::log::{MAX_VALUE_BYTES, Shape, generate, seed};
use serde_json::json;
use sightline::proto::consistency::v1::{DomainState, GetConsistencyRequest};
use sightline::proto::order::v1::{BatchGetCustomersRequest, GetCustomerRequest};
use std::collections::BTreeSet;

/// Folds a log; the ends of its partitions beside it.
pub fn folded(log: &[Record], partitions: i32) -> (Folds, Ends) {
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    for record in log {
        folds.take(record);
    }
    let ends = (0..partitions)
        .map(|partition| (partition, folds.read(partition)))
        .collect();
    (folds, ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_hostile_records_read_as_the_fold_says() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 50_000,
        partitions: 6,
        users: 800,
    };
    project_and_compare(broker, shape).await;
}

/// What the in-process broker can hold, where there is no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_hostile_log_reads_as_the_fold_says() {
    let shape = Shape {
        records: 6_000,
        partitions: 3,
        users: 150,
    };
    project_and_compare(Broker::shared(), shape).await;
}

async fn project_and_compare(broker: Broker, shape: Shape) {
    let log = generate(seed(), shape);
    let world = World::new(broker, Database::create().await, shape.partitions).await;
    world.broker.writer().write(&world.topic, &log).await;
    let (fold, ends) = folded(&log, shape.partitions);

    let running = world.serve().await;
    let partitions = caught_up(&running.rest, &ends).await;
    assert_books(&partitions, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Thorough).await;

    // The same books over gRPC, of every domain.
    assert_eq!(
        partitions
            .keys()
            .map(String::as_str)
            .collect::<BTreeSet<_>>(),
        BTreeSet::from(DOMAINS)
    );
    let request = GetConsistencyRequest { domain: None };
    let answer = running
        .grpc
        .consistency()
        .get_consistency(request)
        .await
        .expect("an answer")
        .into_inner();
    let names: BTreeSet<&str> = answer.domains.iter().map(|d| d.domain.as_str()).collect();
    assert_eq!(names, BTreeSet::from(DOMAINS));
    for domain in &answer.domains {
        assert_eq!(domain.state(), DomainState::CaughtUp, "{}", domain.domain);
        assert_eq!(domain.partitions.len(), shape.partitions as usize);
        for partition in &domain.partitions {
            let said = Books {
                read: partition.read,
                applied: partition.applied,
                duplicates: partition.duplicates,
                skipped: partition.skipped,
                dead_lettered: partition.dead_lettered,
                dead_letters: partition.dead_letters,
                parked_keys: partition.parked_keys,
            };
            let books = fold.books(&domain.domain, partition.partition);
            assert_eq!(partition.position, books.read, "{}", domain.domain);
            assert_eq!(said, books, "{}", domain.domain);
        }
    }

    // Nobody has heard of these.
    for id in ["nobody", "not-this-one", "nobody/\u{1f980} %"] {
        let answer = running.rest.get(&customer_path(id)).await;
        assert_eq!(
            (answer.status, &answer.json()["reason"]),
            (404, &json!("NOT_FOUND")),
            "{id}"
        );
        assert!(!answer.token().is_empty());
        let status = running
            .grpc
            .order()
            .get_customer(GetCustomerRequest { user_id: id.into() })
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
    }
    let known = fold.order.view.ids().pop().expect("somebody");
    let batch = json!({"userIds": ["nobody", known, "no-one"]});
    let answer = running
        .rest
        .post("/v1/order/customers:batchGet", &batch)
        .await
        .json();
    assert_eq!(
        (
            answer["customers"].as_array().map(Vec::len),
            &answer["missing"]
        ),
        (Some(1), &json!(["nobody", "no-one"]))
    );
    let request = BatchGetCustomersRequest {
        user_ids: vec!["nobody".into(), known],
    };
    let answer = running
        .grpc
        .order()
        .batch_get_customers(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        (answer.customers.len(), answer.missing),
        (1, vec!["nobody".to_owned()])
    );
}
