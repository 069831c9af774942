//! The feed of address changes. Examples, worked out by hand from the contract, say which changes are
//! significant; the reference fold and the program must agree. A reader that resumes from a cursor misses no
//! change and gets none twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sightline_testing::app::{Clients, LONG, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::order::{FEED, Filter, assert_same, call_feed, cursors, read_feed};
use sightline_testing::check::{Depth, Ends, assert_answers, assert_books, caught_up, folded};
use sightline_testing::client::{Rest, with_query};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::reference::{Customers, Folds, normal};

/// Events of one user, and the entries that they make, each as `kind address flags`: `s` and `b` for the
/// defaults that are affected, `!` for significant.
struct Example {
    what: &'static str,
    events: Vec<(&'static str, Value)>,
    entries: &'static [&'static str],
}

const SHIPPING: [bool; 2] = [true, false];
const BILLING: [bool; 2] = [false, true];
const BOTH: [bool; 2] = [true, true];
const NEITHER: [bool; 2] = [false, false];

fn added(id: &str, [shipping, billing]: [bool; 2]) -> (&'static str, Value) {
    let payload = json!({
        "addressId": id, "addressType": "home", "isDefaultShipping": shipping, "isDefaultBilling": billing,
        "country": "DE", "fullAddress": {"streetLine1": "1 Road", "city": "Berlin", "postalCode": "10115",
            "state": "BE", "country": "de", "contactName": "A", "streetLine2": "Floor 1"},
    });
    ("UserAddressAdded", payload)
}

fn updated(id: &str, fields: Value) -> (&'static str, Value) {
    (
        "UserAddressUpdated",
        json!({"addressId": id, "updatedFields": fields}),
    )
}

fn deleted(id: &str) -> (&'static str, Value) {
    ("UserAddressDeleted", json!({"addressId": id}))
}

fn named(shipping: Option<&str>, billing: Option<&str>) -> (&'static str, Value) {
    (
        "UserProfileDefaultAddressChanged",
        json!({"defaultShippingAddressId": shipping, "defaultBillingAddressId": billing}),
    )
}

fn user_deleted(how: &str) -> (&'static str, Value) {
    ("UserDeleted", json!({"deletionType": how}))
}

/// Examples for every sentence of the contract's paragraph about the feed.
fn examples() -> Vec<Example> {
    let example = |what, events, entries| Example {
        what,
        events,
        entries,
    };
    vec![
        example(
            "one entry per Added, Updated, Deleted",
            vec![
                added("a", NEITHER),
                updated("a", json!({"city": "Rome"})),
                deleted("a"),
            ],
            &["added a ", "updated a ", "deleted a "],
        ),
        example(
            "the first default of a kind is not significant",
            vec![added("a", SHIPPING), named(None, Some("a"))],
            &["added a s", "default_changed a b"],
        ),
        example(
            "two entries where both move, each with its own, of the new default",
            vec![
                added("a", BOTH),
                added("b", NEITHER),
                named(Some("b"), Some("b")),
            ],
            &[
                "added a sb",
                "added b ",
                "default_changed b s!",
                "default_changed b b!",
            ],
        ),
        example(
            "an event that changes nothing makes none",
            vec![
                added("a", SHIPPING),
                added("a", SHIPPING),
                updated("a", json!({"city": "Berlin", "unheard": "of"})),
                updated("a", json!({"country": "De"})),
                updated("a", json!([])),
                named(Some("a"), None),
                named(None, None),
            ],
            &["added a s"],
        ),
        example(
            "nor does an event about an address that is unknown or deleted",
            vec![
                deleted("a"),
                updated("a", json!({"city": "Rome"})),
                deleted("a"),
                named(Some("b"), None),
                deleted("b"),
                updated("b", json!({"city": "Rome"})),
            ],
            &["default_changed b s"],
        ),
        example(
            "an Updated may be the first event about an address",
            vec![updated("a", json!([])), named(Some("a"), None)],
            &["updated a ", "default_changed a s"],
        ),
        example(
            "one that moves only one of two makes one",
            vec![
                added("a", BOTH),
                added("b", NEITHER),
                named(Some("b"), Some("a")),
                named(Some("b"), Some("b")),
            ],
            &[
                "added a sb",
                "added b ",
                "default_changed b s!",
                "default_changed b b!",
            ],
        ),
        example(
            "country, state, postal code, city and street line 1 are significant, of either default",
            vec![
                added("a", BILLING),
                updated("a", json!({"countryCode": "FR"})),
                updated("a", json!({"province": "X"})),
                updated("a", json!({"zipCode": "75001"})),
                updated("a", json!({"city": "Paris"})),
                updated("a", json!({"addressLine1": "2 Rue"})),
            ],
            &[
                "added a b",
                "updated a b!",
                "updated a b!",
                "updated a b!",
                "updated a b!",
                "updated a b!",
            ],
        ),
        example(
            "the rest of an address is not",
            vec![
                added("a", BOTH),
                updated("a", json!({"streetLine2": "Floor 2"})),
                updated(
                    "a",
                    json!({"contactName": null, "phone": "1", "companyName": "C"}),
                ),
                updated("a", json!({"addressType": "work"})),
                updated("a", json!(["contactName", "additionalNotes"])),
            ],
            &[
                "added a sb",
                "updated a sb",
                "updated a sb",
                "updated a sb",
                "updated a sb",
            ],
        ),
        example(
            "nor is anything of an address that is no default",
            vec![
                added("a", SHIPPING),
                added("b", NEITHER),
                updated("b", json!({"city": "Rome"})),
                updated("b", json!(["country"])),
                deleted("b"),
            ],
            &[
                "added a s",
                "added b ",
                "updated b ",
                "updated b ",
                "deleted b ",
            ],
        ),
        example(
            "becoming stale counts, the same again does not",
            vec![
                added("a", SHIPPING),
                updated("a", json!(["city"])),
                updated("a", json!(["city"])),
            ],
            &["added a s", "updated a s!"],
        ),
        example(
            "a stale field confirmed with the same value makes an entry, not a significant one",
            vec![
                added("a", SHIPPING),
                updated("a", json!(["city"])),
                updated("a", json!({"city": "Berlin"})),
                updated("a", json!({"city": {"old": "Berlin"}})),
                updated("a", json!({"city": "Rome"})),
            ],
            &[
                "added a s",
                "updated a s!",
                "updated a s",
                "updated a s!",
                "updated a s!",
            ],
        ),
        example(
            "becoming known counts, and so does being cleared",
            vec![
                updated("a", json!({"country": "DE"})),
                named(Some("a"), None),
                updated("a", json!({"city": "Berlin"})),
                updated("a", json!({"city": null})),
                updated("a", json!({"city": ""})),
            ],
            &[
                "updated a ",
                "default_changed a s",
                "updated a s!",
                "updated a s!",
            ],
        ),
        example(
            "another address became the default, also by its Added; the former makes no entry",
            vec![
                added("a", SHIPPING),
                added("b", SHIPPING),
                added("b", BOTH),
                added("a", BILLING),
            ],
            // The last one is significant because a becomes the billing default.
            &["added a s", "added b s!", "added b sb", "added a b!"],
        ),
        example(
            "the default was deleted; any that comes then is another",
            vec![
                added("a", SHIPPING),
                deleted("a"),
                added("b", NEITHER),
                named(Some("b"), None),
            ],
            &[
                "added a s",
                "deleted a s!",
                "added b ",
                "default_changed b s!",
            ],
        ),
        example(
            "also the same one, come back",
            vec![added("a", BOTH), deleted("a"), added("a", BOTH)],
            &["added a sb", "deleted a sb!", "added a sb!"],
        ),
        example(
            "added again with a false flag counts as the default's deletion",
            vec![
                added("a", SHIPPING),
                added("a", NEITHER),
                added("a", SHIPPING),
                added("a", NEITHER),
                named(Some("a"), None),
            ],
            &[
                "added a s",
                "added a s!",
                "added a s!",
                "added a s!",
                "default_changed a s!",
            ],
        ),
        example(
            "named before its address, it is first when that arrives",
            vec![
                named(Some("n"), Some("n")),
                added("n", NEITHER),
                updated("n", json!({"city": "Rome"})),
            ],
            &[
                "default_changed n s",
                "default_changed n b",
                "added n sb",
                "updated n sb!",
            ],
        ),
        example(
            "an address that comes by an Updated has come, too",
            vec![
                added("a", SHIPPING),
                named(Some("n"), None),
                updated("n", json!({"city": "Berlin"})),
            ],
            &["added a s", "default_changed n s", "updated n s!"],
        ),
        example(
            "one named before its address is judged when the address arrives",
            vec![
                added("a", SHIPPING),
                named(Some("n"), None),
                added("n", NEITHER),
            ],
            &["added a s", "default_changed n s", "added n s!"],
        ),
        example(
            "going back to the former before it came is not significant",
            vec![
                added("a", SHIPPING),
                named(Some("n"), None),
                named(Some("a"), None),
                added("n", NEITHER),
            ],
            &[
                "added a s",
                "default_changed n s",
                "default_changed a s",
                "added n ",
            ],
        ),
        example(
            "but a change made while it was not in use is judged on its return",
            vec![
                added("a", SHIPPING),
                named(Some("n"), None),
                updated("a", json!({"city": "Rome"})),
                named(Some("a"), None),
            ],
            &[
                "added a s",
                "default_changed n s",
                "updated a ",
                "default_changed a s!",
            ],
        ),
        example(
            "a change undone meanwhile is none",
            vec![
                added("a", SHIPPING),
                named(Some("n"), None),
                updated("a", json!({"city": "Rome"})),
                updated("a", json!({"city": "Berlin", "contactName": "B"})),
                named(Some("a"), None),
            ],
            &[
                "added a s",
                "default_changed n s",
                "updated a ",
                "updated a ",
                "default_changed a s",
            ],
        ),
        example(
            "stale when it goes and known with the same value when it returns: not significant",
            vec![
                added("a", SHIPPING),
                updated("a", json!(["city"])),
                named(Some("n"), None),
                updated("a", json!({"city": "Berlin"})),
                named(Some("a"), None),
            ],
            &[
                "added a s",
                "updated a s!",
                "default_changed n s",
                "updated a ",
                "default_changed a s",
            ],
        ),
        example(
            "deleted while it was not in use: another one is another address",
            vec![
                added("a", SHIPPING),
                named(Some("n"), None),
                deleted("a"),
                deleted("n"),
                added("b", SHIPPING),
            ],
            &[
                "added a s",
                "default_changed n s",
                "deleted a ",
                "added b s!",
            ],
        ),
        example(
            "a deleted address counts as one not known",
            vec![
                added("a", SHIPPING),
                added("b", NEITHER),
                deleted("b"),
                named(Some("b"), None),
                updated("b", json!({"city": "Rome"})),
                added("b", NEITHER),
            ],
            &[
                "added a s",
                "added b ",
                "deleted b ",
                "default_changed b s",
                "added b s!",
            ],
        ),
        example(
            "each default is judged for itself",
            vec![
                added("a", SHIPPING),
                added("b", BILLING),
                named(Some("b"), Some("a")),
                added("c", BOTH),
                deleted("a"),
            ],
            &[
                "added a s",
                "added b b",
                "default_changed b s!",
                "default_changed a b!",
                "added c sb!",
                "deleted a ",
            ],
        ),
        example(
            "a fullAddress is judged as a whole",
            vec![
                added("a", SHIPPING),
                updated("a", json!(["city", "streetLine1"])),
                (
                    "UserAddressUpdated",
                    json!({"addressId": "a", "updatedFields": {}, "fullAddress": {"streetLine1": "1 Road",
                        "city": "Berlin", "postalCode": "10115", "state": "BE", "country": "DE"}}),
                ),
                (
                    "UserAddressUpdated",
                    json!({"addressId": "a", "updatedFields": [], "fullAddress": {"city": "Berlin"}}),
                ),
            ],
            &["added a s", "updated a s!", "updated a s", "updated a s!"],
        ),
        example(
            "a user's deletion makes none, nor does what comes after it",
            vec![
                added("a", SHIPPING),
                user_deleted("soft"),
                added("b", SHIPPING),
                user_deleted("soft"),
            ],
            &["added a s"],
        ),
        example(
            "a hard one removes them",
            vec![
                added("a", SHIPPING),
                user_deleted("soft"),
                user_deleted("hard"),
            ],
            &[],
        ),
    ]
}

/// The user of an example.
fn user(n: usize) -> String {
    format!("example-{n}")
}

fn records(examples: &[Example]) -> Vec<Record> {
    let mut records = Vec::new();
    for (n, example) in examples.iter().enumerate() {
        for (at, (event_type, payload)) in example.events.iter().enumerate() {
            let mut payload = payload.clone();
            payload["userId"] = json!(user(n));
            payload["profileId"] = json!("p");
            let value = json!({
                "eventType": event_type, "eventId": format!("{n}-{at}"),
                "eventTimestamp": format!("2026-10-01T00:00:{at:02}Z"), "payload": payload,
            });
            records.push(Record {
                partition: n as i32 % 2,
                key: Some(user(n).into_bytes()),
                value: Some(value.to_string().into_bytes()),
                headers: vec![],
                timestamp: 1_790_000_000_000,
            });
        }
    }
    records
}

/// Entries in the notation of examples.
fn in_short(entries: &[Value]) -> Vec<String> {
    let short = |entry: &Value| {
        let flag = |name: &str, flag| {
            let set = entry[name].as_bool().expect("a flag that is there");
            if set { flag } else { "" }
        };
        format!(
            "{} {} {}{}{}",
            entry["kind"].as_str().expect("text"),
            entry["addressId"].as_str().expect("text"),
            flag("affectsDefaultShipping", "s"),
            flag("affectsDefaultBilling", "b"),
            flag("significant", "!")
        )
    };
    entries.iter().map(short).collect()
}

#[test]
fn the_reference_fold_makes_the_entries_of_all_examples() {
    let examples = examples();
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    for record in records(&examples) {
        folds.take(&record);
    }
    let feed: Vec<Value> = folds
        .partitions()
        .flat_map(|partition| folds.view::<Customers>().feed(partition))
        .collect();
    for (n, example) in examples.iter().enumerate() {
        let mut entries = feed.clone();
        entries.retain(|entry| entry["userId"] == user(n));
        assert_eq!(in_short(&entries), example.entries, "{}", example.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_makes_the_entries_of_all_examples() {
    let examples = examples();
    let log = records(&examples);
    let world = World::shared(2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let (folds, ends) = folded(&log, 2);
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    let mut wrong = Vec::new();
    for (n, example) in examples.iter().enumerate() {
        let filter = Filter {
            user: Some(user(n)),
            ..Filter::default()
        };
        let said = in_short(&read_feed(&running.rest, &filter, 50).await);
        if said != example.entries {
            let (what, expected) = (example.what, example.entries);
            wrong.push(format!("{what}: {said:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_answers(&running, &folds, Depth::Thorough).await;
}

/// Entries in full, before and after deletions.
#[tokio::test(flavor = "multi_thread")]
async fn entries_hold_both_addresses_and_deletions_erase_them() {
    let example = |events| Example {
        what: "",
        events,
        entries: &[],
    };
    let events = vec![
        added("a", SHIPPING),
        updated("a", json!(["city"])),
        named(Some("n"), None),
    ];
    let until_deleted = |how| {
        let mut events = events.clone();
        events.push(user_deleted(how));
        events
    };
    let log = records(&[
        example(events.clone()),
        example(until_deleted("soft")),
        example(until_deleted("hard")),
    ]);
    let (folds, ends) = folded(&log, 2);
    let world = World::shared(2).await;
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    let of = async |n: usize| {
        let filter = Filter {
            user: Some(user(n)),
            ..Filter::default()
        };
        let mut changes = read_feed(&running.rest, &filter, 50).await;
        for change in &mut changes {
            let cursor = change.as_object_mut().and_then(|c| c.remove("cursor"));
            assert!(cursor.is_some_and(|cursor| cursor.is_string()));
        }
        normal(Value::Array(changes))
    };
    let address = |city_is_stale: bool, second: u8| {
        json!({
            "addressId": "a", "type": "home", "streetLine1": "1 Road", "streetLine2": "Floor 1", "city": "Berlin",
            "stateOrProvince": "BE", "postalCode": "10115", "country": "DE", "contactName": "A",
            "isDefaultShipping": true, "isDefaultBilling": false,
            "staleFields": if city_is_stale { vec!["city"] } else { vec![] },
            "updatedAt": format!("2026-10-01T00:00:{second:02}Z"),
        })
    };
    let expected = json!([
        {"userId": "example-0", "addressId": "a", "kind": "added", "affectsDefaultShipping": true,
            "affectsDefaultBilling": false, "significant": false, "after": address(false, 0),
            "occurredAt": "2026-10-01T00:00:00Z", "eventId": "0-0"},
        {"userId": "example-0", "addressId": "a", "kind": "updated", "affectsDefaultShipping": true,
            "affectsDefaultBilling": false, "significant": true, "before": address(false, 0),
            "after": address(true, 1), "occurredAt": "2026-10-01T00:00:01Z", "eventId": "0-1"},
        {"userId": "example-0", "addressId": "n", "kind": "default_changed", "affectsDefaultShipping": true,
            "affectsDefaultBilling": false, "significant": false, "before": address(true, 1),
            "occurredAt": "2026-10-01T00:00:02Z", "eventId": "0-2"},
    ]);
    assert_eq!(of(0).await, normal(expected.clone()));
    // A soft deletion leaves ids and countries.
    let mut erased = expected;
    for entry in erased.as_array_mut().expect("a list") {
        entry["userId"] = json!("example-1");
        entry["eventId"] = json!(entry["eventId"].as_str().unwrap().replace("0-", "1-"));
        for name in ["before", "after"] {
            if let Some(address) = entry.get_mut(name) {
                *address = json!({"addressId": "a", "country": "DE", "staleFields": []});
            }
        }
    }
    assert_eq!(of(1).await, normal(erased));
    assert_eq!(of(2).await, json!([]));
    assert_answers(&running, &folds, Depth::Thorough).await;
}

/// The fields that identify an entry. Others may be erased while it is read.
fn identity(entry: &Value) -> [String; 4] {
    ["userId", "addressId", "kind", "eventId"].map(|name| entry[name].to_string())
}

/// Follows the feed until `done` is set and there are no more changes. Pages have odd sizes and continue by
/// page token or from the last cursor.
pub async fn follow(rest: Vec<Rest>, seed: u64, done: Arc<AtomicBool>) -> Vec<Value> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut read: Vec<Value> = Vec::new();
    let (mut after, mut size, mut token): (Option<String>, usize, Option<String>) = (None, 7, None);
    loop {
        let last_round = done.load(Ordering::Acquire);
        let text = size.to_string();
        let query = [
            ("after", after.as_deref()),
            ("pageSize", Some(&*text)),
            ("pageToken", token.as_deref()),
        ];
        let instance = &rest[rng.usize(0..rest.len())];
        let Ok(answer) = instance.try_get(&with_query(FEED, &query)).await else {
            // The instance was killed; another one answers.
            continue;
        };
        // The view is not ready yet, or the machine is too busy for a statement's two seconds. The callers have a deadline.
        if answer.status == 503 && !answer.header("retry-after").is_empty() {
            continue;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut answer = answer.json();
        let Value::Array(changes) = answer["changes"].take() else {
            panic!("no changes: {answer}")
        };
        assert!(changes.len() <= size);
        let is_empty = changes.is_empty();
        read.extend(changes);
        token = answer["nextPageToken"].as_str().map(str::to_owned);
        if token.is_none() || rng.bool() {
            (size, token) = (rng.usize(1..60), None);
            after = cursors(&read[read.len().saturating_sub(1)..]).pop();
        }
        if is_empty && token.is_none() {
            if last_round {
                return read;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_follows_the_feed_gets_every_change_once() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 12_000,
        partitions: 4,
        users: 200,
    };
    let log = generate(seed() + 7, shape);
    let (folds, ends) = folded(&log, shape.partitions);
    let world = World::new(broker, Database::create().await, shape.partitions).await;
    let writer = world.broker.writer();
    let (mut first, second) = (world.serve().await, world.serve().await);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|n| {
            let rest = vec![second.rest.clone(), first.rest.clone()];
            tokio::spawn(follow(rest, n, Arc::clone(&done)))
        })
        .collect();
    for (n, part) in log.chunks(shape.records / 12).enumerate() {
        writer.write(&world.topic, part).await;
        if n == 4 {
            first.app.process.kill();
        }
        if n == 8 {
            let so_far = world.broker.ends(&world.topic).await;
            caught_up(&second.rest, &so_far).await;
        }
    }
    assert_books(&caught_up(&second.rest, &ends).await, &folds, &Ends::new());
    done.store(true, Ordering::Release);
    let mut total = 0;
    for reader in readers {
        let read = tokio::time::timeout(LONG, reader).await.expect("an end");
        let read = read.expect("no panic");
        total += read.len();
        assert_followed(&read, &folds);
    }
    println!("{total} changes read");
    assert_answers(&second, &folds, Depth::Brief).await;
}

/// Asserts that a reader got, partition by partition and in order, all entries that still exist, and otherwise
/// only entries that were erased since. Where the order within partitions is not known, compares users.
pub fn assert_followed(read: &[Value], folds: &Folds) {
    let view = folds.view::<Customers>();
    let event = |entry: &Value| (entry["userId"].to_string(), entry["eventId"].to_string());
    let partitions: Vec<i32> = folds.partitions().collect();
    let mut row_of = BTreeMap::new();
    for partition in &partitions {
        for entry in view.feed_before_erasure(*partition) {
            let row = if folds.order_is_known {
                partition.to_string()
            } else {
                format!("{} in {partition}", entry["userId"])
            };
            row_of.insert(event(&entry), row);
        }
    }
    let in_rows = |entries: Vec<Value>| {
        let mut rows: BTreeMap<&str, Vec<[String; 4]>> = BTreeMap::new();
        for entry in entries {
            let row = &row_of[&event(&entry)];
            rows.entry(row).or_default().push(identity(&entry));
        }
        rows
    };
    let of_all = |feed: &dyn Fn(i32) -> Vec<Value>| {
        let all: Vec<Value> = partitions.iter().flat_map(|p| feed(*p)).collect();
        in_rows(all)
    };
    let mut read = in_rows(read.to_vec());
    let mut left = of_all(&|partition| view.feed(partition));
    for (row, made) in of_all(&|partition| view.feed_before_erasure(partition)) {
        let mut read = read.remove(row).unwrap_or_default().into_iter().peekable();
        let mut left = left.remove(row).unwrap_or_default().into_iter().peekable();
        for (n, made) in made.into_iter().enumerate() {
            let is_left = left.next_if_eq(&made).is_some();
            let was_read = read.next_if_eq(&made).is_some();
            assert!(
                was_read || !is_left,
                "entry {n} of {row} was missed: {made:?}; read instead: {:?}",
                read.peek()
            );
        }
        assert_eq!(read.next(), None, "too many entries of {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_resume_where_they_are_and_page_tokens_are_bound_to_filters() {
    let shape = Shape {
        records: 1_500,
        partitions: 3,
        users: 25,
    };
    let log = generate(seed() + 8, shape);
    let (_, ends) = folded(&log, shape.partitions);
    let world = World::shared(shape.partitions).await;
    let (some, more) = log.split_at(1_200);
    world.broker.writer().write(&world.topic, some).await;
    let running = world.serve().await;
    caught_up(&running.rest, &folded(some, shape.partitions).1).await;
    let rest = &running.rest;
    let whole = read_feed(rest, &Filter::default(), 1000).await;
    assert!(whole.len() > 150, "{} changes", whole.len());
    assert_every_cursor_resumes(&running, &whole).await;
    assert_eq!(
        read_feed(rest, &from_the_end(&whole), 10).await,
        Vec::<Value>::new()
    );
    world.broker.writer().write(&world.topic, more).await;
    caught_up(rest, &ends).await;
    assert_the_end_resumes_with_new_changes(rest, &whole).await;
    assert_page_tokens_are_bound_to_filters(rest, &whole).await;
}

async fn assert_every_cursor_resumes(clients: &Clients, whole: &[Value]) {
    for (n, cursor) in cursors(whole).into_iter().enumerate() {
        let filter = Filter {
            after: Some(cursor),
            ..Filter::default()
        };
        let said = read_feed(&clients.rest, &filter, 1000).await;
        let expected: Vec<&Value> = whole[n + 1..].iter().collect();
        let how = format!("after change {n}");
        assert_same(&how, &said, &expected);
        if n % 10 == 0 {
            let called = call_feed(&clients.grpc, &filter, 40).await;
            assert_same(&how, &called, &expected);
        }
    }
}

fn from_the_end(changes: &[Value]) -> Filter {
    Filter {
        after: cursors(changes).pop(),
        ..Filter::default()
    }
}

/// The last cursor resumes with changes that were written since, and only those.
async fn assert_the_end_resumes_with_new_changes(rest: &Rest, whole: &[Value]) {
    let now = read_feed(rest, &Filter::default(), 1000).await;
    let new = read_feed(rest, &from_the_end(whole), 10).await;
    let count = |changes: &[Value]| {
        let mut counts: BTreeMap<[String; 4], usize> = BTreeMap::new();
        for change in changes {
            *counts.entry(identity(change)).or_default() += 1;
        }
        counts
    };
    let mut expected = count(&now);
    for (identity, seen) in count(whole) {
        // Hard deletions may have removed it.
        if let Some(left) = expected.get_mut(&identity) {
            *left -= seen;
        }
    }
    expected.retain(|_, left| *left > 0);
    assert_eq!(count(&new), expected);
}

/// A page token is valid only with the filters of its request.
async fn assert_page_tokens_are_bound_to_filters(rest: &Rest, whole: &[Value]) {
    let user = whole[0]["userId"].as_str().expect("text").to_owned();
    let feed_filters = [
        ("userId", user.as_str()),
        ("significant", "true"),
        ("significant", "false"),
        ("since", "2026-01-01T00:00:00Z"),
        ("after", whole[0]["cursor"].as_str().expect("text")),
    ];
    let search_filters = [
        ("countryCode", "DE"),
        ("validation", "valid"),
        ("validation", "invalid"),
    ];
    let lists = [
        (FEED, &feed_filters[..]),
        ("/v1/fulfillment/addresses", &search_filters),
    ];
    for (path, filters) in lists {
        let one = ("pageSize", Some("1"));
        let first = rest.get(&with_query(path, &[one])).await.json();
        let token = first["nextPageToken"].as_str().expect("there is more");
        let token = ("pageToken", Some(token));
        let more = rest
            .get(&with_query(path, &[token, ("pageSize", Some("5"))]))
            .await;
        assert_eq!(
            more.status,
            200,
            "another page size is allowed: {}",
            more.text()
        );
        for (name, value) in filters {
            let changed = with_query(path, &[one, token, (name, Some(value))]);
            let answer = rest.get(&changed).await;
            let problem = crate::requests::assert_problem(&changed, &answer, 400);
            crate::requests::assert_field(&changed, &problem, "pageToken");
            // A token of a filtered request is not valid without the filter.
            let filtered = rest
                .get(&with_query(path, &[one, (name, Some(value))]))
                .await;
            if let Some(token) = filtered.json()["nextPageToken"].as_str() {
                let without = with_query(path, &[one, ("pageToken", Some(token))]);
                let answer = rest.get(&without).await;
                crate::requests::assert_problem(&without, &answer, 400);
            }
        }
    }
}
