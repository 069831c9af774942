//! The Rust program of `examples/`, run against a broker and a gateway. `make extra` runs those in other languages.

use std::process::Output;

use serde_json::json;
use sightline_testing::app::{Running, World, example, finish};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::customer_path;
use sightline_testing::operations::dead_letters;

const ADDED: &str = "user.UserAddressAdded.v1";

/// Runs the order service for a user, or for a new one.
async fn order(world: &World, gateway: &Running, user: Option<&str>) -> (Output, String) {
    let mut command = example("order_service");
    command
        .env("SIGHTLINE_GRPC", gateway.grpc_address())
        .env("KAFKA_BROKERS", &world.broker.address)
        .env("KAFKA_TOPIC", &world.topic);
    if let Some(user) = user {
        command.args(["--user", user]);
    }
    let output = finish(command).await;
    let printed = [&output.stdout[..], &output.stderr].concat();
    let printed = String::from_utf8(printed).expect("UTF-8");
    (output, printed)
}

/// Writes an event, and waits until the view has it.
async fn publish(world: &World, gateway: &Running, record: Record) {
    let partition = record.partition;
    let key = record.key.clone().expect("a key");
    let user = String::from_utf8(key).expect("UTF-8");
    let offset = world.broker.writer().write(&world.topic, &[record]).await[0];
    let token = format!("{}/{partition}@{offset}", world.topic);
    let headers = [
        ("sightline-consistency", "at-least"),
        ("sightline-consistency-token", &token),
        ("sightline-wait", "30"),
    ];
    let path = customer_path(&user);
    let answer = gateway
        .rest
        .send(http::Method::GET, &path, &headers, &[])
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_made_from_what_its_service_has_written() {
    let world = World::shared(3).await;
    let gateway = world.serve().await;
    // Several pages of changes, in all partitions.
    let changes: Vec<Record> = (0..250)
        .map(|n| {
            let (user, id) = (format!("u-{n}"), format!("e-{n}"));
            let payload = json!({
                "profileId": user, "addressId": format!("a-{n}"), "addressType": "home", "isDefaultShipping": true,
                "isDefaultBilling": true, "country": "DE", "fullAddress": {"city": "Berlin", "country": "DE"},
            });
            Record::cloud_event(n % 3, &user, &id, ADDED, payload)
        })
        .collect();
    world.broker.writer().write(&world.topic, &changes).await;
    caught_up(&gateway.rest, &Ends::from([(0, 84), (1, 83), (2, 83)])).await;

    let (output, printed) = order(&world, &gateway, None).await;
    assert!(output.status.success(), "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    let published = format!("published an address: {}/", world.topic);
    assert_eq!(lines[0], "a new customer");
    assert!(lines[1].starts_with(&published), "{printed}");
    assert_eq!(lines[2], "ordered, ships to Arlington");
    assert_eq!(lines[3], "packed, still ships to Arlington");
    assert_eq!(lines[4], "251 address changes, this one among them");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_held_where_the_view_lacks_an_event_of_its_user() {
    let world = World::shared(1).await;
    let gateway = world.serve().await;
    // An email that no fold accepts.
    let bad = json!({"email": 5});
    let bad = Record::cloud_event(0, "parked", "bad", "user.UserRegistered.v1", bad);
    world.broker.writer().write(&world.topic, &[bad]).await;

    let (output, printed) = order(&world, &gateway, Some("parked")).await;
    assert!(output.status.success(), "{printed}");
    let held = "the order is held for support (KEY_PARKED): ";
    assert!(printed.contains(held), "{printed}");
    // The one that the others wait behind.
    let letters = dead_letters(&gateway.rest, &[("domain", Some("order"))]).await;
    let mut letters = letters.iter();
    let first = letters.find(|letter| letter["eventId"] == "bad");
    let id = first.expect("a dead letter")["id"].as_str().expect("an id");
    assert!(printed.contains(id), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_stale_where_the_view_is_behind() {
    let mut world = World::shared(1).await;
    let projector = world.serve().await;
    world.set("SIGHTLINE_ROLE", "gateway");
    let gateway = world.serve().await;
    let registered = json!({"email": "a@example.org", "status": "active"});
    let registered = Record::cloud_event(0, "u", "e", "user.UserRegistered.v1", registered);
    publish(&world, &gateway, registered).await;
    drop(projector);

    let (output, printed) = order(&world, &gateway, Some("u")).await;
    assert!(output.status.success(), "{printed}");
    assert!(printed.starts_with("the customer is known\n"), "{printed}");
    let stale = "no order yet: the page is stale (DEADLINE_EXCEEDED)";
    assert!(printed.contains(stale), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_ordered_from_a_view_that_was_never_complete() {
    let mut world = World::shared(1).await;
    let topics = format!("{0},{0}.missing", world.topic);
    world.set("SIGHTLINE_KAFKA_TOPICS", &topics);
    let gateway = world.serve().await;
    let (output, printed) = order(&world, &gateway, None).await;
    assert!(!output.status.success(), "{printed}");
    assert!(printed.contains("VIEW_NOT_READY: "), "{printed}");
    assert!(!printed.contains("published"), "{printed}");
}
