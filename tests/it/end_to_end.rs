//! The whole path: hostile logs go in, and every answer and every book must equal the reference fold's.

use std::collections::BTreeSet;

use serde_json::json;
use sightline::domains;
use sightline::proto::consistency::v1::{DomainState, GetConsistencyRequest};
use sightline::proto::order::v1::{BatchGetCustomersRequest, GetCustomerRequest};
use sightline_testing::app::{Clients, World};
use sightline_testing::broker::Broker;
use sightline_testing::check::{Depth, Ends, assert_answers, assert_books, caught_up, folded};
use sightline_testing::client::customer_path;
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::reference::{Books, Customers, Folds};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_hostile_records_match_the_reference_fold() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 20_000,
        partitions: 6,
        users: 400,
    };
    project_and_compare(broker, shape).await;
}

/// Small enough for the in-process broker, which replaces Kafka where Java is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_hostile_log_matches_the_reference_fold() {
    let shape = Shape {
        records: 2_500,
        partitions: 3,
        users: 100,
    };
    project_and_compare(Broker::shared(), shape).await;
}

async fn project_and_compare(broker: Broker, shape: Shape) {
    let log = generate(seed(), shape);
    let mut world = World::new(broker, Database::create().await, shape.partitions).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    world.broker.writer().write(&world.topic, &log).await;
    let (fold, ends) = folded(&log, shape.partitions);

    let running = world.serve().await;
    let partitions = caught_up(&running.rest, &ends).await;
    assert_books(&partitions, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Thorough).await;

    let domains: BTreeSet<&str> = partitions.keys().map(String::as_str).collect();
    assert_eq!(domains, BTreeSet::from_iter(domains::names()));
    assert_books_over_grpc(&running, &fold, shape).await;
    assert_unknown_users_are_not_found(&running).await;
    assert_batches_name_missing_users(&running, &fold).await;
}

/// The same books over gRPC, of every domain.
async fn assert_books_over_grpc(clients: &Clients, fold: &Folds, shape: Shape) {
    let request = GetConsistencyRequest { domain: None };
    let answer = clients
        .grpc
        .consistency()
        .get_consistency(request)
        .await
        .expect("an answer")
        .into_inner();
    let names: BTreeSet<&str> = answer.domains.iter().map(|d| d.domain.as_str()).collect();
    assert_eq!(names, BTreeSet::from_iter(domains::names()));
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
}

async fn assert_unknown_users_are_not_found(clients: &Clients) {
    for id in ["nobody", "not-this-one", "nobody/\u{1f980} %"] {
        let answer = clients.rest.get(&customer_path(id)).await;
        assert_eq!(
            (answer.status, &answer.json()["reason"]),
            (404, &json!("NOT_FOUND")),
            "{id}"
        );
        assert!(!answer.token().is_empty());
        let status = clients
            .grpc
            .order()
            .get_customer(GetCustomerRequest { user_id: id.into() })
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
    }
}

async fn assert_batches_name_missing_users(clients: &Clients, fold: &Folds) {
    let known = fold.view::<Customers>().ids().pop().expect("a user");
    let batch = json!({"userIds": ["nobody", known, "no-one"]});
    let answer = clients
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
    let answer = clients
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
