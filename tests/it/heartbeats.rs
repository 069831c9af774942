//! Heartbeats: a row for each process and version, which names its partitions. Of several that name a partition the highest
//! epoch counts. Processes of the former release, which have a row for each partition, see heartbeats and are seen.

use sightline_testing::app::{SOON, World};
use sightline_testing::check::{DOMAINS, Ends, caught_up};
use sightline_testing::wait_until;
use sqlx::PgPool;
use uuid::Uuid;

/// Names all partitions of `order`.
const INSERT: &str = "INSERT INTO sightline.heartbeats
    SELECT 'order', 1, $1, now() - make_interval(secs => $2), array_agg(log_id), array_agg(epoch - 1),
           array_agg(NULL::timestamptz), array_agg(0.0::float8), array_agg(NULL::text)
    FROM sightline.progress WHERE domain = 'order'";
/// What a process of the former release writes that has claimed all partitions of `order`.
const INSERT_FORMER: &str =
    "INSERT INTO sightline.owners (domain, version, log_id, instance, epoch, seen_at, rate)
    SELECT 'order', 1, log_id, $1, epoch, now(), 0 FROM sightline.progress WHERE domain = 'order'
    ON CONFLICT (domain, version, log_id) DO UPDATE SET instance = EXCLUDED.instance, epoch = EXCLUDED.epoch";
const HOUR: f64 = 3_600.0;

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_epoch_names_the_owner_also_beside_the_former_release() {
    let world = World::shared(2).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 0), (1, 0)])).await;
    let pool = PgPool::connect(&world.database.url).await;
    let pool = pool.expect("the database");
    let insert = async |sql: &'static str, instance: Uuid, age: Option<f64>| {
        let inserted = sqlx::query(sql).bind(instance);
        let inserted = match age {
            Some(age) => inserted.bind(age),
            None => inserted,
        };
        inserted.execute(&pool).await.expect("inserted");
    };
    let instances = async |of: &'static str| -> Vec<Uuid> {
        let found = sqlx::query_scalar(of).fetch_all(&pool).await;
        found.expect("instances")
    };
    let heartbeats = "SELECT instance FROM sightline.heartbeats";
    let owners = "SELECT instance FROM sightline.partition_owners WHERE domain = 'order'";
    let for_former = "SELECT instance FROM sightline.owners WHERE domain = 'order'";
    let process = instances(heartbeats).await[0];
    assert_eq!(instances(heartbeats).await, [process; DOMAINS.len()]);
    for of in [owners, for_former] {
        assert_eq!(instances(of).await, [process; 2], "{of}");
    }

    // From processes that ended, before the database's clock was set back and after it.
    insert(INSERT, Uuid::now_v7(), Some(HOUR)).await;
    insert(INSERT, Uuid::now_v7(), Some(-HOUR)).await;
    // A superseded owner that is alive.
    let superseded = Uuid::now_v7();
    insert(INSERT, superseded, Some(0.0)).await;
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

    let former = Uuid::now_v7();
    let claim = "UPDATE sightline.progress SET epoch = epoch + 1 WHERE domain = 'order'";
    sqlx::query(claim).execute(&pool).await.expect("claimed");
    insert(INSERT_FORMER, former, None).await;
    assert_eq!(instances(owners).await, [former; 2]);
    let since = "SELECT instance FROM sightline.heartbeats WHERE domain = 'order' AND seen_at > now() - interval '1 s'";
    wait_until(
        SOON,
        "another heartbeat of the process",
        async || match instances(since).await {
            found if found.contains(&process) => Ok(()),
            found => Err(format!("{found:?}")),
        },
    )
    .await;
    for of in [owners, for_former] {
        assert_eq!(instances(of).await, [former; 2], "{of}");
    }
}
