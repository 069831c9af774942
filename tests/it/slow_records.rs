//! Batches and single records that are too much for the database.

use serde_json::json;
use sightline_testing::app::{SOON, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::customer_path;
use sightline_testing::operations::dead_letters;
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};

fn registered(partition: i32, user: &str) -> Record {
    let data = json!({"email": "a@example.org", "status": "active"});
    Record::cloud_event(
        partition,
        user,
        &format!("e-{user}"),
        "UserRegistered",
        data,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_canceled_again_and_again_becomes_a_dead_letter_only_while_others_commit()
{
    let world = World::shared(2).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let writer = world.broker.writer();
    writer.write(&world.topic, &[registered(1, "first")]).await;
    caught_up(rest, &Ends::from([(0, 0), (1, 1)])).await;
    // As if this user's row took longer than a statement may.
    let mut connection = PgConnection::connect(&world.database.url)
        .await
        .expect("connected");
    sqlx::raw_sql(
        "CREATE FUNCTION order_live.cancel() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.user_id = 'slow' THEN
                 RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER cancel BEFORE INSERT OR UPDATE ON order_live.users FOR EACH ROW EXECUTE FUNCTION order_live.cancel()",
    )
    .execute(&mut connection)
    .await
    .expect("a trigger");

    let mut log: Vec<Record> = (0..40).map(|n| registered(0, &format!("u-{n}"))).collect();
    log.insert(20, registered(0, "slow"));
    writer.write(&world.topic, &log).await;
    // The batch is halved until the record stands alone. Nothing says yet that the database is not at fault.
    wait_until(SOON, "the partition stalls at the record", async || {
        let answer = rest.try_get("/v1/consistency/order").await?.json();
        let partition = &answer["partitions"][0];
        let seen = (
            &partition["position"],
            &partition["state"],
            &partition["deadLettered"],
        );
        if seen == (&json!(20), &json!("stalled"), &json!(0)) {
            Ok(())
        } else {
            Err(partition.to_string())
        }
    })
    .await;

    // While the other partition commits, it is the record's fault.
    let mut written = 1;
    let found = wait_until(SOON, "the record is a dead letter", async || {
        writer
            .write(&world.topic, &[registered(1, &format!("other-{written}"))])
            .await;
        written += 1;
        match &dead_letters(rest, &[("domain", Some("order"))]).await[..] {
            [one] => Ok(one.clone()),
            more => Err(format!("{more:?}, after {written} records")),
        }
    })
    .await;
    assert_eq!(
        (&found["class"], &found["offset"]),
        (&json!("bug"), &json!(20))
    );
    caught_up(rest, &Ends::from([(0, 41), (1, written)])).await;
    assert_eq!(rest.get(&customer_path("u-39")).await.status, 200);
    assert_eq!(dead_letters(rest, &[]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_progress_row_that_is_locked_holds_up_its_own_partition_only() {
    let world = World::shared(3).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let writer = world.broker.writer();
    let first = [0, 1, 2].map(|partition| registered(partition, &format!("first-{partition}")));
    writer.write(&world.topic, &first).await;
    caught_up(rest, &Ends::from([(0, 1), (1, 1), (2, 1)])).await;
    let transaction = world.database.lock_progress("order", 1).await;
    let second = (0..60).map(|n| registered(n % 3, &format!("second-{n}")));
    writer
        .write(&world.topic, &second.collect::<Vec<_>>())
        .await;
    let positions = async |expected: [i64; 3]| {
        let answer = rest.try_get("/v1/consistency/order").await?.json();
        let position = |n: usize| answer["partitions"][n]["position"].as_i64();
        match [0, 1, 2].map(position) {
            positions if positions == expected.map(Some) => Ok(()),
            positions => Err(format!("{positions:?}")),
        }
    };
    wait_until(SOON, "the other partitions go on", async || {
        positions([21, 1, 21]).await
    })
    .await;
    transaction.rollback().await.expect("freed");
    wait_until(SOON, "the partition goes on", async || {
        positions([21, 21, 21]).await
    })
    .await;
}
