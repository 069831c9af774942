//! Heartbeats: a row for each process and version, which names its partitions. Of several that name a partition the highest
//! epoch counts.

use sightline_testing::app::{DOMAINS, SOON, World};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::wait_until;
use sqlx::PgPool;
use uuid::Uuid;

/// Names all partitions of `order`.
const INSERT: &str = "INSERT INTO sightline.heartbeats
    SELECT 'order', 1, $1, now() - make_interval(secs => $2), array_agg(log_id), array_agg(epoch - $3),
           array_agg(NULL::timestamptz), array_agg(0.0::float8), array_agg(NULL::text)
    FROM sightline.progress WHERE domain = 'order'";
const HOUR: f64 = 3_600.0;

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_epoch_names_the_owner() {
    let world = World::shared(2).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 0), (1, 0)])).await;
    let pool = PgPool::connect(&world.database.url).await;
    let pool = pool.expect("the database");
    let insert = async |instance: Uuid, age: f64, behind: i64| {
        let inserted = sqlx::query(INSERT).bind(instance).bind(age).bind(behind);
        inserted.execute(&pool).await.expect("inserted");
    };
    let instances = async |of: &'static str| -> Vec<Uuid> {
        let found = sqlx::query_scalar(of).fetch_all(&pool).await;
        found.expect("instances")
    };
    let heartbeats = "SELECT instance FROM sightline.heartbeats";
    let owners = "SELECT instance FROM sightline.partition_owners WHERE domain = 'order'";
    let process = instances(heartbeats).await[0];
    assert_eq!(instances(heartbeats).await, vec![process; DOMAINS.len()]);
    assert_eq!(instances(owners).await, [process; 2]);

    // From processes that ended, before the database's clock was set back and after it.
    insert(Uuid::now_v7(), HOUR, 1).await;
    insert(Uuid::now_v7(), -HOUR, 1).await;
    // A superseded owner that is alive.
    let superseded = Uuid::now_v7();
    insert(superseded, 0.0, 1).await;
    wait_until(
        SOON,
        "the other heartbeats are deleted",
        async || match instances(heartbeats).await {
            left if left.len() == DOMAINS.len() + 1 => Ok(()),
            left => Err(format!("{left:?}")),
        },
    )
    .await;
    assert!(instances(heartbeats).await.contains(&superseded));
    assert_eq!(instances(owners).await, [process; 2]);

    // The next owner, whose heartbeat the former one's does not hide.
    let next = Uuid::now_v7();
    let claim = "UPDATE sightline.progress SET epoch = epoch + 1 WHERE domain = 'order'";
    sqlx::query(claim).execute(&pool).await.expect("claimed");
    insert(next, 0.0, 0).await;
    assert_eq!(instances(owners).await, [next; 2]);
    // An epoch from before a restore, which the row has not reached.
    insert(Uuid::now_v7(), 0.0, -1).await;
    assert_eq!(instances(owners).await, [next; 2]);
}
