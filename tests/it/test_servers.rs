//! The servers of the tests: Kafka keeps its data and address over a SIGKILL, Postgres what was committed.

use std::collections::BTreeMap;

use sightline_testing::broker::{Broker, Record};
use sightline_testing::database::Database;
use sightline_testing::unique;
use sqlx::Connection;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_restarts_with_its_records() {
    let Some(broker) = Broker::private() else {
        return;
    };
    let topic = unique("records");
    broker.create_topic(&topic, 2).await;
    let record = Record {
        partition: 1,
        key: None,
        value: Some(b"one".to_vec()),
        headers: vec![("a".into(), b"b".to_vec())],
        timestamp: 1_600_000_000_000,
    };
    let writer = broker.writer();
    assert_eq!(
        writer.write(&topic, std::slice::from_ref(&record)).await,
        [0]
    );
    broker.kill();
    broker.start();
    assert_eq!(writer.write(&topic, &[record]).await, [1]);
    assert_eq!((broker.end(&topic, 0), broker.end(&topic, 1)), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_broker_adds_partitions_deletes_topics_and_has_transactions() {
    let Some(broker) = Broker::real() else { return };
    let topic = unique("records");
    broker.create_topic(&topic, 2).await;
    broker.add_partitions(&topic, 4).await;
    broker.delete_topic(&topic).await;
    broker.create_topic(&topic, 1).await;
    let writer = broker.transactional_writer();
    let record = Record {
        partition: 0,
        key: None,
        value: None,
        headers: vec![],
        timestamp: 1,
    };
    writer.begin();
    writer.write(&topic, std::slice::from_ref(&record)).await;
    writer.abort();
    writer.begin();
    assert_eq!(writer.write(&topic, &[record]).await, [2]);
    assert_eq!(broker.end(&topic, 0), 2);
    let commit = async { writer.commit() };
    // Asks first while the transaction is open.
    let (ends, ()) = tokio::join!(biased; broker.ends(&topic), commit);
    assert_eq!((ends, broker.end(&topic, 0)), (BTreeMap::from([(0, 4)]), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_restarts_with_committed_data() {
    let database = Database::private().await;
    let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
    sqlx::query("CREATE TABLE t AS SELECT 1 AS n")
        .execute(&mut connection)
        .await
        .unwrap();
    database.kill().await;
    database.start().await;
    let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let n: i32 = sqlx::query_scalar("SELECT n FROM t")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(n, 1);
    database.kill().await;
    database.start().await;
    let shared = (Database::create().await, Database::create().await);
    assert_ne!(shared.0.url, shared.1.url);
}
