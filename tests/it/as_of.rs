//! Reads as of an instant: they equal present reads of another program, whose log ends at that instant.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sightline_testing::app::{Running, World};
use sightline_testing::broker::Record;
use sightline_testing::check::fulfillment::{address_path, default_path, user_path};
use sightline_testing::check::order::addresses_path;
use sightline_testing::check::{Depth, assert_answers, caught_up, folded};
use sightline_testing::client::Answer;
use sightline_testing::hostile_log::{MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::reference::{Customers, Folds, Parcels, Verdict, event_of};

const SHAPE: Shape = Shape {
    records: 4_000,
    partitions: 3,
    users: 60,
};

/// An applied event.
struct Applied {
    record: Record,
    at: DateTime<Utc>,
    /// Whether it deletes its user, or comes after such an event.
    is_of_deleted: bool,
}

/// A hostile log without records that are not applied, and without event ids that are applied twice.
fn applied() -> Vec<Applied> {
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    let (mut ids, mut deleted) = (HashSet::new(), HashSet::new());
    let mut log = Vec::new();
    for record in generate(seed() + 11, SHAPE) {
        let verdicts = folds.take(&record);
        let is_clean = verdicts["order"] == Verdict::Applied
            && [Verdict::Applied, Verdict::Skipped].contains(&verdicts["fulfillment"]);
        if !is_clean {
            continue;
        }
        let event = event_of(&record).expect("a good one");
        let user = event.text("userId").expect("required");
        if !ids.insert(event.id) {
            continue;
        }
        // The deletion of a user may have been left out of the log.
        if event.name == "UserDeleted" {
            deleted.insert(user.clone());
        }
        log.push(Applied {
            record,
            at: event.occurred_at,
            is_of_deleted: deleted.contains(&user),
        });
    }
    log
}

async fn world_of(log: &[Record]) -> (World, Running, Folds) {
    let world = World::shared(SHAPE.partitions).await;
    world.broker.writer().write(&world.topic, log).await;
    let (folds, ends) = folded(log, SHAPE.partitions);
    let read: i64 = ends.values().sum();
    let applied: i64 = ends.keys().map(|p| folds.books("order", *p).applied).sum();
    assert_eq!(read, applied, "every record is applied");
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    (world, running, folds)
}

/// Body, or status. Users that are unknown at the end of the shorter log have no addresses in the longer one.
fn or_empty(answer: &Answer, is_known: bool) -> Value {
    match answer.status {
        200 => answer.json(),
        404 if is_known => json!({"addresses": []}),
        status => json!({"status": status}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_of_an_instant_equals_now_of_a_log_that_ends_there() {
    let log = applied();
    let records: Vec<Record> = log.iter().map(|event| event.record.clone()).collect();
    let (_whole, now, folds) = world_of(&records).await;
    assert_answers(&now, &folds, Depth::Brief).await;
    let mut instants: Vec<DateTime<Utc>> = log.iter().map(|event| event.at).collect();
    instants.sort();
    let (mut compared, mut with_addresses) = (0, 0);
    for part in [0.2, 0.5, 0.9] {
        let until = instants[(instants.len() as f64 * part) as usize];
        let cut: Vec<Record> = log
            .iter()
            .filter(|event| event.at <= until && !event.is_of_deleted)
            .map(|event| event.record.clone())
            .collect();
        let (_ended, then, _) = world_of(&cut).await;
        let at = Some(until);
        for user in folds.view::<Customers>().ids() {
            let said = now.rest.get(&addresses_path(&user, at)).await;
            let expected = then.rest.get(&addresses_path(&user, None)).await;
            let mut expected = or_empty(&expected, true);
            match folds.view::<Customers>().deletion(&user) {
                Some(true) => expected = json!({"addresses": []}),
                Some(false) => expected = left(&expected),
                None => {}
            }
            let what = format!("{user:?} as of {until}");
            assert_eq!(said.json(), expected, "{what}");
            compared += 1;
            with_addresses += usize::from(expected["addresses"] != json!([]));
        }
        let known = folds.view::<Parcels>().ids();
        for user in &known {
            let is_deleted = folds.view::<Customers>().deletion(user).is_some();
            let said = now.rest.get(&user_path(user, at)).await;
            let expected = then.rest.get(&user_path(user, None)).await;
            let mut expected = or_empty(&expected, true);
            if is_deleted {
                expected = json!({"addresses": []});
            }
            let what = format!("{user:?} of fulfillment as of {until}");
            assert_eq!(said.json(), expected, "{what}");
            for kind in [0, 1] {
                let said = now.rest.get(&default_path(user, kind, at)).await;
                let expected = then.rest.get(&default_path(user, kind, None)).await;
                let mut expected = or_empty(&expected, false);
                if is_deleted {
                    expected = json!({"status": 404});
                }
                assert_eq!(or_empty(&said, false), expected, "{what}, default {kind}");
            }
        }
        for address in folds.view::<Parcels>().address_ids() {
            let said = now.rest.get(&address_path(&address, at)).await;
            let expected = then.rest.get(&address_path(&address, None)).await;
            let expected = or_empty(&expected, false);
            let owner = expected["userId"].as_str();
            // Deleted users are not in the shorter log, so the address may be another user's there.
            if owner.is_some_and(|owner| folds.view::<Customers>().deletion(owner).is_some()) {
                continue;
            }
            assert_eq!(
                or_empty(&said, false),
                expected,
                "{address:?} as of {until}"
            );
        }
    }
    assert!(
        compared > 100 && with_addresses > 50,
        "{compared} users compared, {with_addresses} with addresses"
    );
    assert!(log.iter().filter(|event| event.is_of_deleted).count() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_updates_arrive_after_its_deletion_existed_before_it() {
    // The order of the log is not the order of the times.
    let log: Vec<Record> = [
        ("UserRegistered", 1, json!({"email": "e", "status": "active"})),
        ("UserAddressDeleted", 9, json!({"addressId": "late"})),
        ("UserAddressUpdated", 4, json!({"addressId": "late", "updatedFields": {"city": "Rome"}})),
        ("UserAddressUpdated", 5, json!({"addressId": "late", "updatedFields": {"city": "Bari"}})),
    ]
    .into_iter()
    .map(|(event_type, second, mut payload)| {
        payload["userId"] = json!("u");
        payload["profileId"] = json!("p");
        let at = format!("2026-10-01T00:00:0{second}Z");
        let event = json!({
            "eventType": event_type, "eventId": second.to_string(), "timestamp": at, "payload": payload,
        });
        Record {
            partition: 0,
            key: Some(b"u".to_vec()),
            value: Some(event.to_string().into()),
            headers: vec![],
            timestamp: 1_790_000_000_000,
        }
    })
    .collect();
    let world = World::shared(1).await;
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let (folds, ends) = folded(&log, 1);
    caught_up(&running.rest, &ends).await;
    assert_answers(&running, &folds, Depth::Thorough).await;
    for (second, city) in [(3, None), (4, Some("Rome")), (8, Some("Bari")), (9, None)] {
        let at = DateTime::from_timestamp(1_790_812_800 + second, 0);
        let said = running.rest.get(&address_path("late", at)).await;
        let said = or_empty(&said, false);
        assert_eq!(
            said.get("city").and_then(Value::as_str),
            city,
            "{at:?}: {said}"
        );
    }
}

/// What a soft deletion leaves of a customer's addresses.
fn left(answer: &Value) -> Value {
    let addresses = answer["addresses"].as_array().expect("a list");
    let left = addresses.iter().map(|address| {
        let mut left = json!({"addressId": address["addressId"], "staleFields": []});
        if let Some(country) = address.get("country") {
            left["country"] = country.clone();
        }
        left
    });
    json!({"addresses": left.collect::<Vec<_>>()})
}
