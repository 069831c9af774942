//! Streams of the feeds: nothing is left out and nothing is sent twice, whatever happens to the process,
//! the view and the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sightline::proto::fulfillment::v1::WatchAddressesRequest;
use sightline::proto::order::v1::WatchAddressChangesRequest;
use sightline_testing::app::{LONG, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::order::FEED;
use sightline_testing::check::{caught_up, folded};
use sightline_testing::client::{Rest, address_event, change_event, with_query};
use sightline_testing::database::Database;
use sightline_testing::events::{Events, Sent};
use sightline_testing::hostile_log::{MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::operations::{built, project, retry_all};
use sightline_testing::reference::Customers;
use sightline_testing::wait_until;
use tonic_types::StatusExt;

use crate::feed::assert_followed;

const CHANGES: &str = "/v1/order/address-changes:watch";
const ADDRESSES: &str = "/v1/fulfillment/addresses:watch";

fn event(partition: i32, user: &str, id: &str, event_type: &str, mut payload: Value) -> Record {
    payload["profileId"] = json!("p");
    Record::cloud_event(partition, user, id, event_type, payload)
}

/// An address, of a city.
fn added(user: &str, address: &str, id: &str, city: &str) -> Record {
    let payload = json!({
        "addressId": address, "addressType": "home", "country": "DE", "isDefaultShipping": true, "isDefaultBilling": false,
        "fullAddress": {"streetLine1": "1 Road", "city": city, "postalCode": "10115", "country": "DE"},
    });
    event(0, user, id, "UserAddressAdded", payload)
}

fn moved(user: &str, address: &str, id: &str, city: &str) -> Record {
    let payload = json!({"addressId": address, "updatedFields": {"city": city}});
    event(0, user, id, "UserAddressUpdated", payload)
}

fn deleted(user: &str, address: &str, id: &str) -> Record {
    event(
        0,
        user,
        id,
        "UserAddressDeleted",
        json!({"addressId": address}),
    )
}

async fn write(world: &World, records: &[Record]) {
    world.broker.writer().write(&world.topic, records).await;
}

async fn projected(world: &World, rest: &Rest) {
    let ends = world.broker.ends(&world.topic).await;
    caught_up(rest, &ends).await;
}

async fn watch(rest: &Rest, path: &str, headers: &[(&str, &str)]) -> Events {
    rest.watch(path, headers).await.expect("a stream")
}

/// The ids of the events behind the next changes.
async fn next_changes(events: &mut Events, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let sent = events.next_change().await.expect("a change");
        assert_eq!(sent.event, "change", "{sent:?}");
        assert_eq!(sent.id.as_deref(), sent.data["cursor"].as_str());
        ids.push(sent.data["eventId"].as_str().expect("text").to_owned());
    }
    ids
}

async fn next_caught_up(events: &mut Events) -> Sent {
    let sent = events.next_change().await.expect("an event");
    assert_eq!(sent.event, "caught_up", "{sent:?}");
    assert_eq!(sent.id.as_deref(), sent.data["cursor"].as_str());
    assert!(
        !sent.data["consistencyToken"]
            .as_str()
            .expect("text")
            .is_empty()
    );
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_anywhere_and_sends_what_its_filter_passes() {
    let world = World::shared(1).await;
    write(
        &world,
        &[
            added("a", "a-1", "e-0", "Berlin"),
            added("b", "b-1", "e-1", "Bonn"),
            moved("a", "a-1", "e-2", "Rome"),
        ],
    )
    .await;
    let running = world.serve().await;
    let rest = &running.rest;
    projected(&world, rest).await;

    let mut whole = watch(rest, CHANGES, &[("accept-encoding", "gzip")]).await;
    let header = |name: &str| {
        whole
            .headers
            .get(name)
            .map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(header("content-encoding"), None);
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    assert!(header("sightline-consistency-token").is_some());
    let first = whole.next_change().await.expect("a change");
    assert_eq!(next_changes(&mut whole, 2).await, ["e-1", "e-2"]);
    let end = next_caught_up(&mut whole).await;
    let list = rest.get(FEED).await.json();
    assert_eq!(first.data, list["changes"][0]);

    let after = first.id.as_deref().expect("a cursor");
    let by_query = with_query(CHANGES, &[("after", Some(after))]);
    let mut by_query = watch(rest, &by_query, &[]).await;
    // On a reconnection, the header counts.
    let end_of_query = with_query(CHANGES, &[("after", end.id.as_deref())]);
    let mut by_header = watch(rest, &end_of_query, &[("last-event-id", after)]).await;
    let of_user = with_query(CHANGES, &[("userId", Some("a"))]);
    let mut of_user = watch(rest, &of_user, &[]).await;
    let significant = with_query(CHANGES, &[("significant", Some("true"))]);
    let mut significant = watch(rest, &significant, &[]).await;
    let request = WatchAddressChangesRequest::default();
    let called = running.grpc.order().watch_address_changes(request).await;
    let mut called = called.expect("a stream").into_inner();
    for stream in [&mut by_query, &mut by_header] {
        assert_eq!(next_changes(stream, 2).await, ["e-1", "e-2"]);
        next_caught_up(stream).await;
    }
    assert_eq!(next_changes(&mut of_user, 2).await, ["e-0", "e-2"]);
    next_caught_up(&mut of_user).await;
    assert_eq!(next_changes(&mut significant, 1).await, ["e-2"]);
    next_caught_up(&mut significant).await;

    write(
        &world,
        &[
            moved("b", "b-1", "e-3", "Paris"),
            added("a", "a-2", "e-4", "Oslo"),
        ],
    )
    .await;
    for stream in [&mut whole, &mut by_query, &mut by_header] {
        assert_eq!(next_changes(stream, 2).await, ["e-3", "e-4"]);
    }
    assert_eq!(next_changes(&mut of_user, 1).await, ["e-4"]);
    assert_eq!(next_changes(&mut significant, 2).await, ["e-3", "e-4"]);
    // Both surfaces send the same.
    let mut again = watch(rest, CHANGES, &[]).await;
    let mut changes = 0;
    while changes < 5 {
        let message = called
            .message()
            .await
            .expect("a message")
            .expect("an event");
        let sent = change_event(message);
        if sent.event == "change" {
            changes += 1;
            let over_rest = again.next_change().await.expect("a change");
            assert_eq!(sent.data, over_rest.data);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_alone_are_told_who_was_deleted() {
    let user_deleted = |id, kind| event(0, "a", id, "UserDeleted", json!({"deletionType": kind}));
    let world = World::shared(1).await;
    write(
        &world,
        &[
            added("a", "a-1", "e-0", "Berlin"),
            added("b", "b-1", "e-1", "Bonn"),
        ],
    )
    .await;
    let running = world.serve().await;
    let rest = &running.rest;
    projected(&world, rest).await;
    let paths = [
        CHANGES.to_owned(),
        with_query(CHANGES, &[("userId", Some("a"))]),
        with_query(CHANGES, &[("significant", Some("true"))]),
        with_query(CHANGES, &[("userId", Some("b"))]),
    ];
    let mut streams = Vec::new();
    for path in &paths {
        let mut events = watch(rest, path, &[]).await;
        while events.next_change().await.expect("an event").event != "caught_up" {}
        streams.push(events);
    }
    write(&world, &[user_deleted("e-2", "soft")]).await;
    projected(&world, rest).await;
    let customer = rest.get("/v1/order/customers/a").await.json();
    // The hard one is an hour later, and does not move the time of the deletion.
    let mut hard = user_deleted("e-3", "hard");
    let text = String::from_utf8(hard.value.expect("a value")).expect("UTF-8");
    hard.value = Some(text.replace("T12:", "T13:").into_bytes());
    write(&world, &[hard, moved("b", "b-1", "e-4", "Rome")]).await;
    projected(&world, rest).await;
    let told = ["soft", "hard"].map(
        |kind| json!({"userId": "a", "deletedAt": customer["deletedAt"], "deletionType": kind}),
    );
    let mut cursors = Vec::new();
    for events in &mut streams[..3] {
        for told in &told {
            let sent = events.next_change().await.expect("a deletion");
            assert_eq!(sent.event, "customer_deleted");
            assert_eq!(sent.id.as_deref(), sent.data["cursor"].as_str());
            cursors.push(sent.id.expect("a cursor"));
            assert_eq!(deletion(sent.data), ("a".to_owned(), told.clone()));
        }
    }
    assert_eq!(next_changes(&mut streams[0], 1).await, ["e-4"]);
    assert_eq!(next_changes(&mut streams[3], 1).await, ["e-4"]);

    // A watch that begins later is told as well, on both surfaces; the list has changes of addresses only.
    let mut resumed = watch(rest, CHANGES, &[("last-event-id", &cursors[0])]).await;
    let hard = resumed.next_change().await.expect("a deletion");
    assert_eq!(deletion(hard.data.clone()).1, told[1]);
    let request = WatchAddressChangesRequest {
        after: Some(cursors[0].clone()),
        ..WatchAddressChangesRequest::default()
    };
    let called = running.grpc.order().watch_address_changes(request).await;
    let called = called.expect("a stream");
    let token = called.metadata().get("sightline-consistency-token");
    assert!(token.is_some(), "{:?}", called.metadata());
    let message = called.into_inner().message().await.expect("a message");
    assert_eq!(change_event(message.expect("an event")), hard);
    let list = rest.get(FEED).await.json();
    let users: Vec<_> = list["changes"].as_array().expect("a list").iter().collect();
    assert!(users.iter().all(|change| change["userId"] == "b"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_as_they_are_and_then_with_each_change() {
    let world = World::shared(1).await;
    write(
        &world,
        &[
            added("a", "a-1", "e-0", "Berlin"),
            added("a", "a-2", "e-1", "Bonn"),
            added("b", "b-1", "e-2", "Oslo"),
            deleted("a", "a-2", "e-3"),
        ],
    )
    .await;
    let running = world.serve().await;
    let rest = &running.rest;
    projected(&world, rest).await;
    let mut events = watch(rest, ADDRESSES, &[]).await;
    let mut snapshot = BTreeMap::new();
    let caught_up = loop {
        let sent = events.next_change().await.expect("an event");
        if sent.event == "caught_up" {
            break sent;
        }
        assert_eq!(sent.data["kind"], "current");
        let address = sent.data["address"]["addressId"].as_str().expect("text");
        assert!(snapshot.insert(address.to_owned(), sent).is_none());
    };
    assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["a-1", "b-1"]);
    for (id, sent) in &snapshot {
        let one = rest.get(&format!("/v1/fulfillment/addresses/{id}")).await;
        assert_eq!(sent.data["address"], one.json());
    }

    write(&world, &[moved("a", "a-1", "e-4", "Rome")]).await;
    let change = events.next_change().await.expect("a change");
    assert_eq!(change.data["address"]["city"], "Rome");
    write(&world, &[deleted("a", "a-1", "e-5")]).await;
    let deletion = events.next_change().await.expect("a deletion");
    let mut data = deletion.data.clone();
    data.as_object_mut().expect("an object").remove("cursor");
    assert_eq!(
        data,
        json!({"userId": "a", "addressId": "a-1", "kind": "removed"})
    );
    let user_deleted = json!({"deletionType": "hard"});
    write(&world, &[event(0, "b", "e-6", "UserDeleted", user_deleted)]).await;
    let erased = events.next_change().await.expect("a deletion");
    assert_eq!(
        (&erased.data["addressId"], &erased.data["kind"]),
        (&json!("b-1"), &json!("removed"))
    );

    // After a cursor, addresses have their last states; deletions are among them.
    let after = caught_up.id.as_deref().expect("a cursor");
    let mut resumed = watch(rest, ADDRESSES, &[("last-event-id", after)]).await;
    let request = WatchAddressesRequest {
        after: caught_up.id.clone(),
    };
    let called = running.grpc.fulfillment().watch_addresses(request).await;
    let mut called = called.expect("a stream").into_inner();
    for expected in [&deletion, &erased] {
        assert_eq!(resumed.next_change().await.as_ref(), Some(expected));
        let message = called
            .message()
            .await
            .expect("a message")
            .expect("an event");
        assert_eq!(address_event(message), *expected);
    }
    next_caught_up(&mut resumed).await;
    // From the beginning, nothing is left.
    let mut empty = watch(rest, ADDRESSES, &[]).await;
    next_caught_up(&mut empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_as_everywhere() {
    let clients = crate::requests::empty().await;
    let rest = &clients.rest;
    for (path, field) in [
        (format!("{CHANGES}?after=x"), "after"),
        (format!("{CHANGES}?after="), "after"),
        (format!("{CHANGES}?userId="), "userId"),
        (format!("{CHANGES}?significant=1"), "significant"),
        (format!("{CHANGES}?since=2026-01-01T00:00:00Z"), "since"),
        (format!("{ADDRESSES}?after=AQ-"), "after"),
        (format!("{ADDRESSES}?countryCode=DE"), "countryCode"),
    ] {
        let answer = rest.get(&path).await;
        let problem = crate::requests::assert_problem(&path, &answer, 400);
        crate::requests::assert_field(&path, &problem, field);
    }
    for path in [CHANGES, ADDRESSES] {
        let refusal = rest
            .watch(path, &[("last-event-id", "x")])
            .await
            .err()
            .expect("refused");
        assert!(
            refusal.starts_with("400") && refusal.contains("Last-Event-ID"),
            "{refusal}"
        );
        let refusal = rest
            .watch(path, &[("sightline-consistency", "latest")])
            .await
            .err()
            .expect("refused");
        assert!(refusal.starts_with("501"), "{refusal}");
        let head = rest.send(http::Method::HEAD, path, &[], &[]).await;
        assert_eq!(
            (head.status, head.header("content-type")),
            (200, "text/event-stream")
        );
        assert_eq!(rest.post(path, &json!({})).await.status, 405);
    }
    let request = WatchAddressChangesRequest {
        after: Some("x".into()),
        ..WatchAddressChangesRequest::default()
    };
    let status = clients.grpc.order().watch_address_changes(request).await;
    assert_eq!(
        status.expect_err("refused").code(),
        tonic::Code::InvalidArgument
    );
}

/// Follows the feed over streams that end at any time, until `done` is set and nothing more comes. Returns the changes, and
/// the deletions by user, without their cursors.
async fn follow(
    instances: Vec<Rest>,
    seed: u64,
    done: Arc<AtomicBool>,
) -> (Vec<Value>, BTreeMap<String, Vec<Value>>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut read = Vec::new();
    let mut deletions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut last: Option<String> = None;
    loop {
        let last_round = done.load(Ordering::Acquire);
        let instance = &instances[rng.usize(0..instances.len())];
        let headers: Vec<(&str, &str)> = last.iter().map(|id| ("last-event-id", &**id)).collect();
        let Ok(mut events) = instance.watch(CHANGES, &headers).await else {
            // The instance was killed, or the machine is too busy; the callers have a deadline.
            continue;
        };
        let mut left = rng.usize(1..400);
        let mut has_caught_up = false;
        while left > 0 {
            let time = Duration::from_millis(if has_caught_up { 300 } else { 30_000 });
            let Ok(Some(sent)) = events.next_within(time).await else {
                break;
            };
            last = sent.id.or(last);
            match sent.event.as_str() {
                "change" => {
                    read.push(sent.data);
                    left -= 1;
                }
                "customer_deleted" => {
                    let (user, deletion) = deletion(sent.data);
                    deletions.entry(user).or_default().push(deletion);
                    left -= 1;
                }
                "caught_up" => has_caught_up = true,
                "heartbeat" => {}
                _ => panic!("{:?}", sent.data),
            }
        }
        if last_round && has_caught_up {
            return (read, deletions);
        }
    }
}

/// A deletion without its cursor, and whose it is.
fn deletion(mut data: Value) -> (String, Value) {
    let cursor = data.as_object_mut().expect("an object").remove("cursor");
    assert!(cursor.is_some(), "{data}");
    (data["userId"].as_str().expect("text").to_owned(), data)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_two_instances_get_every_change_once() {
    let shape = Shape {
        records: 6_000,
        partitions: 4,
        users: 150,
    };
    let log = generate(seed() + 31, shape);
    let (folds, ends) = folded(&log, shape.partitions);
    let world = World::shared(shape.partitions).await;
    let writer = world.broker.writer();
    let (mut first, second) = (world.serve().await, world.serve().await);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|n| {
            let instances = vec![second.rest.clone(), first.rest.clone()];
            tokio::spawn(follow(instances, n, Arc::clone(&done)))
        })
        .collect();
    for (n, part) in log.chunks(shape.records / 20).enumerate() {
        writer.write(&world.topic, part).await;
        if n == 8 {
            first.app.process.kill();
        }
        let so_far = world.broker.ends(&world.topic).await;
        if n % 5 == 4 {
            caught_up(&second.rest, &so_far).await;
        }
    }
    caught_up(&second.rest, &ends).await;
    done.store(true, Ordering::Release);
    for reader in readers {
        let read = tokio::time::timeout(LONG, reader).await.expect("an end");
        let (read, deletions) = read.expect("no panic");
        assert!(read.len() > 300, "{} changes", read.len());
        assert_followed(&read, &folds);
        let expected = folds.view::<Customers>().told_deletions();
        assert!(expected.len() > 10, "{} deletions", expected.len());
        assert_eq!(deletions, expected);
    }
}

/// What the mirror of a watcher of addresses has, by user and address.
fn mirrored(mirror: &mut BTreeMap<(String, String), Value>, data: &Value) {
    let text = |name: &str| data[name].as_str().expect("text").to_owned();
    let key = (text("userId"), text("addressId"));
    if data["kind"] == "removed" {
        mirror.remove(&key);
    } else {
        mirror.insert(key, data["address"].clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_all_addresses_is_exact() {
    let shape = Shape {
        records: 4_000,
        partitions: 3,
        users: 120,
    };
    let log = generate(seed() + 32, shape);
    let (_, ends) = folded(&log, shape.partitions);
    let world = World::shared(shape.partitions).await;
    let writer = world.broker.writer();
    let (some, more) = log.split_at(1_500);
    writer.write(&world.topic, some).await;
    let running = world.serve().await;
    caught_up(&running.rest, &folded(some, shape.partitions).1).await;
    let mut events = watch(&running.rest, ADDRESSES, &[]).await;
    let mut mirror = BTreeMap::new();
    let writing = async {
        for part in more.chunks(250) {
            writer.write(&world.topic, part).await;
        }
        caught_up(&running.rest, &ends).await;
    };
    let mut writing = std::pin::pin!(writing);
    let mut is_written = false;
    loop {
        let idle = Duration::from_secs(3);
        tokio::select! {
            () = &mut writing, if !is_written => is_written = true,
            sent = events.next_within(idle) => match sent {
                Ok(Some(sent)) if sent.event == "change" => mirrored(&mut mirror, &sent.data),
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended"),
                Err(_) if is_written => break,
                Err(_) => {}
            },
        }
    }
    let mut expected = BTreeMap::new();
    let found = sightline_testing::check::pages(
        &running.rest,
        "/v1/fulfillment/addresses",
        &[],
        "addresses",
        1000,
    )
    .await;
    for address in found {
        let text = |name: &str| address[name].as_str().expect("text").to_owned();
        expected.insert((text("userId"), text("addressId")), address.clone());
    }
    assert!(expected.len() > 20, "{} addresses", expected.len());
    let (sent, found): (BTreeSet<_>, BTreeSet<_>) =
        (mirror.keys().collect(), expected.keys().collect());
    assert_eq!(sent, found);
    assert_eq!(mirror, expected);
}

/// Rebuilds the view of a domain from the whole topic, and makes the new version live.
async fn rebuild(world: &World, rest: &Rest, domain: &str) {
    project(rest, domain, "rebuild", json!({})).await;
    built(rest, domain, world.broker.end(&world.topic, 0)).await;
    let switch = format!("/v1/projections/{domain}/switch");
    wait_until(LONG, "the switch", async || {
        let answer = rest.post(&switch, &json!({})).await;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.text()),
        }
    })
    .await;
}

/// Two changes, and a dead letter between them.
async fn with_dead_letter(world: &World) -> Running {
    let too_large = json!({
        "addressId": "a-2", "addressType": "home", "country": "DE", "isDefaultShipping": true, "isDefaultBilling": false,
        "padding": "x".repeat(MAX_VALUE_BYTES),
    });
    let log = [
        added("a", "a-1", "e-0", "Berlin"),
        event(0, "a", "e-1", "UserAddressAdded", too_large),
        added("b", "b-1", "e-2", "Oslo"),
    ];
    write(world, &log).await;
    let running = world.serve().await;
    projected(world, &running.rest).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_over_restarts_and_switches() {
    let mut world = World::shared(1).await;
    let mut running = with_dead_letter(&world).await;
    let mut events = watch(&running.rest, CHANGES, &[]).await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-0"]);
    let second = events.next_change().await.expect("a change");
    next_caught_up(&mut events).await;
    // In the new version it is the same dead letter, and nothing has moved.
    rebuild(&world, &running.rest, "order").await;
    write(&world, &[added("c", "c-1", "e-3", "Paris")]).await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-3"]);
    project(&running.rest, "order", "drop", json!({})).await;

    // The process ends its streams when it stops.
    running.app.process.signal("TERM");
    let asked = Instant::now();
    assert_eq!(events.next_change().await, None);
    assert!(!events.is_cut && asked.elapsed() < Duration::from_secs(5));
    assert_eq!(running.app.process.wait(SOON), 0);

    // Under a larger limit, a retry applies the dead letter, at the end of the feed.
    world.set(
        "SIGHTLINE_MAX_VALUE_BYTES",
        &(MAX_VALUE_BYTES * 2).to_string(),
    );
    let running = world.serve().await;
    let last = ("last-event-id", second.id.as_deref().expect("a cursor"));
    let mut events = watch(&running.rest, CHANGES, &[last]).await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-3"]);
    next_caught_up(&mut events).await;
    retry_all(&running.rest, "order").await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-1"]);
    // In the next version it is in its turn. The stream has sent it, and goes on; a former cursor would miss it.
    rebuild(&world, &running.rest, "order").await;
    write(&world, &[added("d", "d-1", "e-4", "Rome")]).await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-4"]);
    let refused = running
        .rest
        .watch(CHANGES, &[last])
        .await
        .err()
        .expect("refused");
    assert!(refused.starts_with("410"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_would_miss_a_change_of_a_new_version_says_so() {
    let mut world = World::shared(1).await;
    with_dead_letter(&world).await.app.process.kill();
    world.set(
        "SIGHTLINE_MAX_VALUE_BYTES",
        &(MAX_VALUE_BYTES * 2).to_string(),
    );
    let running = world.serve().await;
    let mut events = watch(&running.rest, CHANGES, &[]).await;
    let request = WatchAddressChangesRequest::default();
    let called = running.grpc.order().watch_address_changes(request).await;
    let mut called = called.expect("a stream").into_inner();
    assert_eq!(next_changes(&mut events, 2).await, ["e-0", "e-2"]);
    next_caught_up(&mut events).await;
    for _ in 0..3 {
        called
            .message()
            .await
            .expect("a message")
            .expect("an event");
    }
    // In the new version, the dead letter is applied in its turn, which both streams have passed.
    rebuild(&world, &running.rest, "order").await;
    let failed = events.next_change().await.expect("an event");
    assert_eq!((failed.event.as_str(), failed.id), ("error", None));
    assert_eq!(
        (&failed.data["reason"], &failed.data["status"]),
        (&json!("RESYNC"), &json!(410))
    );
    assert_eq!(events.next_change().await, None);
    assert!(!events.is_cut);
    let status = loop {
        match called.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    let reason = status
        .get_error_details()
        .error_info()
        .expect("a reason")
        .reason
        .clone();
    assert_eq!(
        (status.code(), reason.as_str()),
        (tonic::Code::FailedPrecondition, "RESYNC")
    );
    let mut again = watch(&running.rest, CHANGES, &[]).await;
    assert_eq!(next_changes(&mut again, 3).await, ["e-0", "e-1", "e-2"]);
}

/// A feed that keeps the last state of each address only: in the new version, an address holds more at the same place.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_new_version_knows_better_is_not_missed() {
    let mut world = World::shared(1).await;
    let changed = json!({"addressId": "a-1", "updatedFields": {"postalCode": "20095"}, "padding": "x".repeat(MAX_VALUE_BYTES)});
    let mut too_large = event(0, "a", "e-1", "UserAddressUpdated", changed);
    // Without a key it parks none, and the next event is applied without it.
    too_large.key = None;
    let log = [
        added("a", "a-1", "e-0", "Berlin"),
        too_large,
        moved("a", "a-1", "e-2", "Hamburg"),
    ];
    write(&world, &log).await;
    let mut running = world.serve().await;
    projected(&world, &running.rest).await;
    running.app.process.kill();
    world.set(
        "SIGHTLINE_MAX_VALUE_BYTES",
        &(MAX_VALUE_BYTES * 2).to_string(),
    );
    let running = world.serve().await;
    let mut events = watch(&running.rest, ADDRESSES, &[]).await;
    let known = events.next_change().await.expect("an address");
    assert_eq!(known.data["address"]["postalCode"], "10115");
    let caught_up = next_caught_up(&mut events).await;
    rebuild(&world, &running.rest, "fulfillment").await;
    let failed = events.next_change().await.expect("an event");
    assert_eq!(failed.data["reason"], "RESYNC");
    let last = caught_up.id.as_deref().expect("a cursor");
    let refused = running
        .rest
        .watch(ADDRESSES, &[("last-event-id", last)])
        .await;
    let refused = refused.err().expect("refused");
    assert!(refused.starts_with("410"), "{refused}");
    let mut again = watch(&running.rest, ADDRESSES, &[]).await;
    let known = again.next_change().await.expect("an address");
    assert_eq!(
        (
            &known.data["address"]["postalCode"],
            &known.data["address"]["city"]
        ),
        (&json!("20095"), &json!("Hamburg"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_watchers_cost_a_read_for_each_change() {
    let world = World::shared(1).await;
    write(&world, &[added("a", "a-1", "e-0", "Berlin")]).await;
    let running = world.serve().await;
    projected(&world, &running.rest).await;
    let rest = Rest::http2(running.rest.address.clone());
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut events = watch(&rest, CHANGES, &[]).await;
        assert_eq!(next_changes(&mut events, 1).await, ["e-0"]);
        next_caught_up(&mut events).await;
        streams.push(events);
    }
    assert_eq!(
        running.metric("sightline_watchers", "order").await,
        Some(100.0)
    );
    let reads = async || {
        let (name, of) = ("sightline_feed_reads_total", |reader: &str| {
            format!("reader=\"{reader}\"")
        });
        let reads = async |reader| running.metric(name, &of(reader)).await.expect("a counter");
        (reads("own").await, reads("shared").await)
    };
    let (own, shared) = reads().await;
    let begun = Instant::now();
    for n in 1..=20 {
        let id = format!("e-{n}");
        write(&world, &[moved("a", "a-1", &id, &format!("City {n}"))]).await;
        for events in &mut streams {
            assert_eq!(next_changes(events, 1).await, [id.as_str()]);
        }
    }
    let (own_now, shared_now) = reads().await;
    // Besides, the reader looks again every five seconds, and transactions may be announced that change nothing.
    let allowed = 2.0 * 20.0 + begun.elapsed().as_secs_f64();
    assert_eq!(own_now, own);
    assert!(
        shared_now - shared <= allowed,
        "{} reads",
        shared_now - shared
    );
    drop(streams);
    wait_until(SOON, "the streams end", async || {
        match running.metric("sightline_watchers", "order").await {
            Some(0.0) => Ok(()),
            watchers => Err(format!("{watchers:?} watchers")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_waited_for_and_misses_nothing() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let rest = &running.rest;
    projected(&world, rest).await;
    write(&world, &[added("a", "a-1", "e-0", &"x".repeat(200))]).await;
    projected(&world, rest).await;
    let mut slow = watch(rest, CHANGES, &[]).await;
    assert_eq!(next_changes(&mut slow, 1).await, ["e-0"]);
    next_caught_up(&mut slow).await;
    // More than all buffers on the way hold, and more than the ring.
    let records: Vec<Record> = (1..=9_000)
        .map(|n| {
            moved(
                "a",
                "a-1",
                &format!("e-{n}"),
                &format!("{n} {}", "x".repeat(900)),
            )
        })
        .collect();
    for part in records.chunks(500) {
        write(&world, part).await;
    }
    projected(&world, rest).await;
    let ids: Vec<String> = (1..=9_000).map(|n| format!("e-{n}")).collect();
    assert_eq!(next_changes(&mut slow, 9_000).await, ids);
    write(&world, &[moved("a", "a-1", "last", "Rome")]).await;
    assert_eq!(next_changes(&mut slow, 1).await, ["last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_says_how_far_it_is() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let rest = &running.rest;
    write(&world, &[added("a", "a-1", "e-0", "Berlin")]).await;
    projected(&world, rest).await;
    let mut changes = watch(
        rest,
        &with_query(CHANGES, &[("userId", Some("nobody"))]),
        &[],
    )
    .await;
    let caught_up = next_caught_up(&mut changes).await;
    // Its deadline ends a call of gRPC.
    let mut request = tonic::Request::new(WatchAddressesRequest::default());
    request.set_timeout(Duration::from_secs(12));
    let called = running.grpc.fulfillment().watch_addresses(request).await;
    let mut called = called.expect("a stream").into_inner();
    write(&world, &[added("a", "a-2", "e-1", "Bonn")]).await;
    projected(&world, rest).await;
    let heartbeat = changes.next().await.expect("a heartbeat");
    assert_eq!(heartbeat.event, "heartbeat");
    assert_eq!(heartbeat.id.as_deref(), heartbeat.data["cursor"].as_str());
    // What did not pass the filter counts as read.
    assert_ne!(heartbeat.id, caught_up.id);
    let last = heartbeat.id.as_deref().expect("a cursor");
    let mut resumed = watch(rest, CHANGES, &[("last-event-id", last)]).await;
    next_caught_up(&mut resumed).await;
    let mut events = Vec::new();
    let status = loop {
        match called.message().await {
            Ok(message) => events.push(address_event(message.expect("an event")).event),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    // Both addresses have changed: the new one is the default now.
    assert_eq!(
        events,
        ["change", "caught_up", "change", "change", "heartbeat"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_survives_a_restart_of_the_database() {
    let world = World::new(Broker::shared(), Database::private().await, 1).await;
    let running = world.serve().await;
    write(&world, &[added("a", "a-1", "e-0", "Berlin")]).await;
    projected(&world, &running.rest).await;
    let mut events = watch(&running.rest, CHANGES, &[]).await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-0"]);
    next_caught_up(&mut events).await;
    world.database.kill().await;
    write(&world, &[added("a", "a-2", "e-1", "Bonn")]).await;
    world.database.start().await;
    assert_eq!(next_changes(&mut events, 1).await, ["e-1"]);
}
