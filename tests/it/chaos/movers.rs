//! Movers: users whose keys move to partitions that are added meanwhile. For a while after that, a producer that
//! does not know of the partition writes their events to the older one, and another one writes to the new one.
//!
//! What such a producer writes within the settle time comes first in the order of a key. So the fold of all
//! records by ascending partition is right for these users, too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::partitions;
use tokio::time::sleep;

use super::harness::Harness;

/// The settle time of all instances: longer than [`STALE`] and the broker's restarts.
pub const SETTLE: Duration = Duration::from_secs(40);
/// For how long after a partition was added events are still written to the older one: longer than faults delay its
/// first assignment.
const STALE: Duration = Duration::from_secs(13);
const MOVERS: usize = 12;

/// The ids of the users that move.
pub fn ids() -> impl Iterator<Item = String> {
    (0..MOVERS).map(id)
}

fn id(mover: usize) -> String {
    format!("mover-{mover}")
}

/// Writes events of all movers until `until`. Adds a partition early and another one later, to which all of them
/// move.
pub async fn run(harness: Arc<Harness>, mut rng: Rng, until: Instant) {
    let writer = harness.world.broker.writer();
    let began = Instant::now();
    let mut adds: VecDeque<Instant> = [0.1, 0.4]
        .map(|part| began + (until - began).mul_f64(part + 0.1 * rng.f64()))
        .into();
    let mut count = harness.partitions;
    // Where each mover's events belong, and where a producer with old metadata writes them.
    let mut homes: Vec<i32> = (0..MOVERS).map(|_| rng.i32(0..count)).collect();
    let mut former = homes.clone();
    let mut added: Option<Instant> = None;
    for number in 0_usize.. {
        let now = Instant::now();
        if now >= until {
            return;
        }
        if adds.front().is_some_and(|due| *due <= now) {
            adds.pop_front();
            let Some(since) = add_partition(&harness, count, &mut rng, until).await else {
                return;
            };
            added = Some(since);
            former = std::mem::replace(&mut homes, vec![count; MOVERS]);
            count += 1;
        }
        let mover = rng.usize(0..MOVERS);
        let moving = added.filter(|since| since.elapsed() < STALE);
        let since = moving.filter(|_| rng.bool());
        let partition = if since.is_some() {
            former[mover]
        } else {
            homes[mover]
        };
        // No later event hides which of those was applied last that were written while producers disagreed.
        let phase = format!("{count}-{}", moving.is_some());
        let record = event(mover, number, partition, &phase);
        let written = writer.try_write(&harness.world.topic, &[record]).await;
        if let Err(error) = written {
            harness
                .diary
                .note(format!("a mover's write failed: {error}"));
        }
        if let Some(since) = since {
            harness.diary.count("stale writes", 1);
            if since.elapsed() >= SETTLE {
                let late = "a producer of this test wrote later than the settle time allows";
                harness.diary.violation(late.to_owned());
            }
        }
        sleep(Duration::from_millis(rng.u64(5..60))).await;
    }
}

/// Adds a partition as soon as every domain knows the present ones. Returns from when on it may have been there,
/// or `None` if it was not added until `until`.
async fn add_partition(
    harness: &Harness,
    count: i32,
    rng: &mut Rng,
    until: Instant,
) -> Option<Instant> {
    while !all_are_known(harness, count, rng).await {
        if Instant::now() >= until {
            return None;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let (broker, topic): (&Broker, &str) = (&harness.world.broker, &harness.world.topic);
    let since = Instant::now();
    while let Err(error) = broker.try_add_partitions(topic, count + 1).await {
        harness
            .diary
            .note(format!("a partition could not be added: {error}"));
        if broker.partitions(topic) > count {
            break;
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(Duration::from_millis(500)).await;
    }
    harness.diary.note(format!("partition {count} was added"));
    harness.diary.count("partitions added", 1);
    Some(since)
}

/// Whether every domain shows that many partitions.
async fn all_are_known(harness: &Harness, count: i32, rng: &mut Rng) -> bool {
    let Some(rest) = harness.rest(rng) else {
        return false;
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), rest.try_get("/v1/consistency"));
    let Ok(Ok(answer)) = answer.await else {
        return false;
    };
    if answer.status != 200 {
        return false;
    }
    let answer = answer.json();
    let domains = answer["domains"].as_array().expect("domains");
    domains
        .iter()
        .all(|domain| partitions(domain).len() == count as usize)
}

/// An event of a mover: a new name, or a new value of the phase's address.
fn event(mover: usize, number: usize, partition: i32, phase: &str) -> Record {
    let user = id(mover);
    let (event_type, payload) = if number.is_multiple_of(2) {
        let fields = json!({"username": format!("name {number}")});
        (
            "UserUpdated",
            json!({"userId": user, "updatedFields": fields}),
        )
    } else {
        let address = json!({
            "userId": user, "profileId": "p", "addressId": format!("{user}-{phase}"), "addressType": "home",
            "isDefaultShipping": false, "isDefaultBilling": false, "country": "DE",
            "fullAddress": {"streetLine1": format!("{number} Road"), "city": "Berlin", "country": "DE"},
        });
        ("UserAddressAdded", address)
    };
    let second = number % 60;
    let minute = number / 60 % 60;
    let value = json!({
        "eventType": event_type, "eventId": format!("{user}/{number}"),
        "eventTimestamp": format!("2026-10-01T00:{minute:02}:{second:02}Z"), "payload": payload,
    });
    Record {
        partition,
        key: Some(user.into_bytes()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_767_225_600_000,
    }
}
