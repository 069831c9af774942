//! Records that can't be applied: kept with all that waits behind them, looked at, tried again in their order, taken out,
//! closed by deletions, published, and never so many that nobody notices.

use crate::first_light::folded;
use crate::support::app::{LONG, Running, SOON, World};
use crate::support::broker::{Broker, Record};
use crate::support::check::{
    DOMAINS, Depth, Ends, assert_answers, assert_books, caught_up, partitions,
};
use crate::support::client::{Rest, customer_path};
use crate::support::database::Database;
use crate::support::fold::{Folds, event_of};
use crate::support::log::{HEALING_BYTES, MAX_VALUE_BYTES, Shape, generate_healing, seed};
use crate::support::operations::{
    built, count, letters, operate, project, projection, refused, retry_all,
};
use crate::support::wait_until;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sightline::proto::operations::v1 as pb;
use sightline::proto::operations::v1::operations_service_client::OperationsServiceClient;
use sqlx::{AssertSqlSafe, PgPool};
use std::collections::BTreeSet;
use tonic_types::StatusExt;

/// An event of a user on partition 0, with that user's key.
fn event(kind: &str, user: &str, id: &str, payload: Value) -> Record {
    let mut payload = payload;
    payload["userId"] = json!(user);
    let value = json!({
        "eventType": kind, "eventId": id, "eventTimestamp": "2026-10-01T00:00:00Z", "payload": payload,
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![("correlationId".into(), b"c-1".to_vec())],
        timestamp: 1_790_000_000_000,
    }
}

fn registered(user: &str, id: &str) -> Record {
    let payload = json!({"email": format!("{user}@example.org"), "status": "active"});
    event("UserRegistered", user, id, payload)
}

fn renamed(user: &str, id: &str, name: &str) -> Record {
    let payload = json!({"updatedFields": {"username": name}});
    event("UserUpdated", user, id, payload)
}

/// Bad for good.
fn bad(user: &str, id: &str) -> Record {
    event("UserEmailVerified", user, id, json!({"email": 12}))
}

/// Good, but too large until somebody raises the limit.
fn large(mut record: Record) -> Record {
    let value = record.value.as_mut().expect("a value");
    value.resize(MAX_VALUE_BYTES + 1, b' ');
    record
}

fn without_key(mut record: Record) -> Record {
    record.key = None;
    record
}

/// A program with a larger limit, on the same world.
async fn with_larger_limit(world: &mut World, mut running: Running) -> Running {
    running.app.process.kill();
    let limit = HEALING_BYTES.to_string();
    world.set("SIGHTLINE_MAX_VALUE_BYTES", &limit).serve().await
}

/// A program that has met two keys: of one the first letter is too large to be kept, of the other it is bad for good.
async fn with_two_lines(world: &World) -> Running {
    let log = [
        registered("a", "a-0"),
        large(renamed("a", "a-1", "one")),
        renamed("a", "a-2", "two"),
        bad("b", "b-3"),
        renamed("b", "b-4", "four"),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 5)])).await;
    running
}

/// How often each letter of order was tried.
async fn attempts(rest: &Rest) -> Vec<Value> {
    let letters = letters(rest, &ORDER).await;
    letters
        .iter()
        .map(|letter| letter["attempts"].clone())
        .collect()
}

async fn username(running: &Running, user: &str) -> Value {
    let customer = running.rest.get(&customer_path(user)).await;
    assert_eq!(customer.status, 200, "{}", customer.text());
    customer.json()["username"].clone()
}

async fn books(running: &Running, domain: &str) -> Value {
    let path = format!("/v1/consistency/{domain}");
    let answer = running.rest.get(&path).await.json();
    partitions(&answer).remove(&0).expect("partition 0")
}

async fn database(world: &World) -> PgPool {
    let pool = PgPool::connect(&world.database.url).await;
    pool.expect("the database")
}

async fn execute(pool: &PgPool, statement: &str) {
    let done = sqlx::query(AssertSqlSafe(statement.to_owned()));
    done.execute(pool).await.expect("it runs");
}

const ORDER: [(&str, Option<&str>); 1] = [("domain", Some("order"))];
const OPEN: [(&str, Option<&str>); 2] = [("domain", Some("order")), ("state", Some("parked"))];

fn id(letter: &Value) -> &str {
    letter["id"].as_str().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_shown_tried_again_and_taken_out() {
    let mut world = World::shared(1).await;
    let log = [
        registered("a", "a-0"),
        bad("a", "a-1"),
        renamed("a", "a-2", "two"),
        registered("b", "b-3"),
        large(renamed("b", "b-4", "four")),
        renamed("b", "b-5", "five"),
        without_key(bad("c", "c-6")),
        renamed("a", "a-7", "seven"),
    ];
    let ends = Ends::from([(0, 8)]);
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    let rest = &running.rest;

    // Listed by domain, key, reason and state, a page at a time.
    let all = letters(rest, &ORDER).await;
    let offsets = |letters: &[Value]| -> Vec<i64> {
        let offset = |letter: &Value| letter["offset"].as_i64().expect("a number");
        letters.iter().map(offset).collect()
    };
    assert_eq!(offsets(&all), [1, 2, 4, 5, 6, 7]);
    let of = async |filter: &str, value: &str| {
        let filters = [ORDER[0], (filter, Some(value))];
        offsets(&letters(rest, &filters).await)
    };
    assert_eq!(of("key", "a").await, [1, 2, 7]);
    assert_eq!(of("keyBase64", "YQ==").await, [1, 2, 7]);
    assert_eq!(of("key", "").await, [0; 0], "an empty key is one, too");
    assert_eq!(of("reason", "blocked").await, [2, 5, 7]);
    assert_eq!(of("state", "applied").await, [0; 0]);
    let listed = json!({
        "id": all[0]["id"], "domain": "order", "topic": world.topic, "partition": 0, "offset": 1, "key": "a",
        "eventId": "a-1", "eventType": "UserEmailVerified", "reason": "wrong_type", "field": "email", "class": "data",
        "state": "parked", "attempts": 1, "occurredAt": "2026-10-01T00:00:00Z", "size": log[1].value.as_ref().map(Vec::len),
        "firstFailedAt": all[0]["firstFailedAt"], "lastFailedAt": all[0]["firstFailedAt"],
    });
    assert_eq!(all[0], listed);
    assert_eq!(all[1]["class"], "blocked");
    assert_eq!(all[1]["occurredAt"], "2026-10-01T00:00:00Z");
    for (query, field) in [
        ("state=open", "state"),
        ("key=a&keyBase64=YQ==", "keyBase64"),
        ("keyBase64=!", "keyBase64"),
        ("Key=a", "Key"),
        ("reason=%00", "reason"),
        ("pageSize=x", "pageSize"),
        ("pageToken=x", "pageToken"),
    ] {
        let answer = rest.get(&format!("/v1/dead-letters?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["fields"][0]["field"], field, "{query}");
    }

    // One shows headers and value, but not of what was too large to be kept.
    let path = |letter: &Value| format!("/v1/dead-letters/{}", id(letter));
    let shown = rest.get(&path(&all[0])).await;
    assert_eq!(shown.header("cache-control"), "no-store");
    let shown = shown.json();
    let value = STANDARD.decode(shown["value"].as_str().expect("a value"));
    assert_eq!(value.ok(), log[1].value);
    let headers = json!([{"name": "correlationId", "value": STANDARD.encode("c-1")}]);
    assert_eq!(shown["headers"], headers);
    assert_eq!(rest.get(&path(&all[2])).await.json().get("value"), None);
    for nobody in ["none", "01a2093a-f139-710d-8867-ae04814d66ac"] {
        let answer = rest.get(&format!("/v1/dead-letters/{nobody}")).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["reason"], "NOT_FOUND");
    }

    // A dry run tells, and changes nothing; a real one counts.
    let retry = |letter: &Value| format!("{}/retry", path(letter));
    let expected = json!({"outcomes": [
        {"id": all[0]["id"], "outcome": "failed", "reason": "wrong_type", "field": "email"},
        {"id": all[1]["id"], "outcome": "waiting"},
        {"id": all[5]["id"], "outcome": "waiting"},
    ]});
    // Whichever letter of the key is named, the first one holds it.
    let tried = operate(rest, &retry(&all[5]), json!({"dryRun": true})).await;
    assert_eq!(tried, expected);
    assert_eq!(letters(rest, &ORDER).await, all);
    let tried = operate(rest, &retry(&all[0]), json!({})).await;
    assert_eq!(tried, expected);
    assert_eq!(attempts(rest).await, [2, 1, 1, 1, 1, 1]);

    // Taken out, with a reason: what waited goes on, and the key is live again.
    let discard = format!("{}/discard", path(&all[0]));
    for (reason, what) in [
        ("", "none"),
        (" ", "none"),
        (&*"x".repeat(501), "long"),
        ("\0", "NUL"),
        ("forged\u{1b}]0;title\u{7}", "control characters"),
        ("two\nlines", "two lines"),
    ] {
        let answer = rest.post(&discard, &json!({"reason": reason})).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.json()["fields"][0]["field"], "reason");
    }
    let answer = rest.post(&discard, &json!({})).await;
    assert_eq!(answer.json()["fields"][0]["problem"], "is missing");
    // What is said in the wrong place is not passed over.
    let misplaced = format!("{discard}?dryRun=true");
    let answer = rest
        .post(&misplaced, &json!({"reason": "only looking"}))
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.json()["fields"][0]["field"], "dryRun");
    let body = json!({"reason": "ticket 4711", "dryRun": true});
    let expected = json!({"outcomes": [
        {"id": all[0]["id"], "outcome": "discarded"},
        {"id": all[1]["id"], "outcome": "applied"},
        {"id": all[5]["id"], "outcome": "applied"},
    ]});
    assert_eq!(operate(rest, &discard, body).await, expected);
    assert_eq!(username(&running, "a").await, Value::Null);
    let body = json!({"reason": "ticket 4711"});
    assert_eq!(operate(rest, &discard, body).await, expected);
    assert_eq!(username(&running, "a").await, "seven");
    for path in [discard, retry(&all[0]), retry(&all[1])] {
        let answer = refused(rest, &path, json!({"reason": "again"})).await;
        assert!(
            answer == (409, "LETTER_CLOSED".into()) || answer == (400, "INVALID_ARGUMENT".into()),
            "{path}: {answer:?}"
        );
    }
    world
        .broker
        .writer()
        .write(&world.topic, &[renamed("a", "a-8", "eight")])
        .await;
    caught_up(rest, &Ends::from([(0, 9)])).await;
    assert_eq!(username(&running, "a").await, "eight");
    let now = letters(rest, &ORDER).await;
    let state = |n: usize| (now[n]["state"].clone(), now[n]["resolution"].clone());
    assert_eq!(state(0), (json!("discarded"), json!("ticket 4711")));
    assert_eq!(state(1), (json!("applied"), json!("applied")));
    assert!(now[1]["resolvedAt"].is_string());
    let said = books(&running, "order").await;
    let books_say = |name: &str| said[name].as_i64().expect("a number");
    assert_eq!(books_say("applied"), 5, "{said}");
    assert_eq!(books_say("deadLettered"), 4, "{said}");
    assert_eq!(books_say("deadLetters"), 3, "{said}");
    assert_eq!(books_say("parkedKeys"), 1, "{said}");

    // By gRPC: by reason and by key; under a larger limit what was too large is read from the log, and goes through.
    let running = with_larger_limit(&mut world, running).await;
    let mut grpc = OperationsServiceClient::new(running.grpc.channel.clone());
    let request = pb::RetryDeadLettersRequest {
        domain: Some("order".into()),
        reason: Some("wrong_type".into()),
        ..pb::RetryDeadLettersRequest::default()
    };
    let tried = grpc.retry_dead_letters(request).await.expect("an answer");
    let tried = tried.into_inner();
    assert_eq!(tried.outcomes.len(), 1, "{tried:?}");
    assert_eq!(tried.outcomes[0].outcome(), pb::LetterOutcome::Failed);
    let request = pb::RetryDeadLettersRequest {
        domain: Some("order".into()),
        key: Some("b".into()),
        ..pb::RetryDeadLettersRequest::default()
    };
    let tried = grpc.retry_dead_letters(request).await.expect("an answer");
    let outcomes = tried.into_inner().outcomes;
    let outcomes: Vec<_> = outcomes.iter().map(pb::TriedLetter::outcome).collect();
    assert_eq!(
        outcomes,
        [pb::LetterOutcome::Applied, pb::LetterOutcome::Applied]
    );
    assert_eq!(username(&running, "b").await, "five");
    let request = pb::ListDeadLettersRequest {
        domain: Some("order".into()),
        state: Some(pb::DeadLetterState::Parked.into()),
        ..pb::ListDeadLettersRequest::default()
    };
    let left = grpc.list_dead_letters(request).await.expect("an answer");
    let [left] = &left.into_inner().dead_letters[..] else {
        panic!("one is left: the one without a key")
    };
    assert_eq!((left.offset, &left.key), (6, &None));
    let request = pb::GetDeadLetterRequest {
        id: left.id.clone(),
    };
    let whole = grpc.get_dead_letter(request).await.expect("an answer");
    let whole = whole.into_inner().dead_letter.expect("a letter");
    assert_eq!(whole.value, log[6].value);
    assert_eq!(whole.headers[0].value.as_deref(), Some(&b"c-1"[..]));
    for (request, field) in [
        (pb::RetryDeadLettersRequest::default(), "domain"),
        (
            pb::RetryDeadLettersRequest {
                id: Some(left.id.clone()),
                domain: Some("order".into()),
                ..pb::RetryDeadLettersRequest::default()
            },
            "domain",
        ),
        (
            pb::RetryDeadLettersRequest {
                id: Some(left.id.clone()),
                reason: Some("wrong_type".into()),
                ..pb::RetryDeadLettersRequest::default()
            },
            "reason",
        ),
        (
            pb::RetryDeadLettersRequest {
                domain: Some("order".into()),
                reason: Some("\0".into()),
                ..pb::RetryDeadLettersRequest::default()
            },
            "reason",
        ),
    ] {
        let status = grpc.retry_dead_letters(request).await.expect_err("refused");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("a field").field_violations;
        assert_eq!(violations[0].field, field);
    }

    // By the command line.
    let address = running.rest.address.clone();
    let run = async |arguments: &[&str]| {
        let arguments = [&["dead-letters"], arguments, &["--http-addr", &address]].concat();
        world.run(&arguments).await
    };
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let output = run(&["list", "--domain", "order", "--state", "parked"]).await;
    assert!(
        text(&output).contains("wrong_type: email  parked"),
        "{output:?}"
    );
    let output = run(&["show", &left.id]).await;
    assert!(text(&output).contains("\"eventId\":\"c-6\""), "{output:?}");
    let output = run(&["retry", "--domain", "order", "--json"]).await;
    let tried: Value = serde_json::from_str(&text(&output)).expect("JSON");
    assert_eq!(tried["outcomes"][0]["outcome"], "failed");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = run(&["list", "--domain", "order", "--key-base64", "Yg=="]).await;
    assert_eq!(text(&output).matches("applied").count(), 2, "{output:?}");
    let output = run(&["discard", &left.id, "--reason", "no use"]).await;
    assert!(text(&output).contains("discarded"), "{output:?}");
    let output = run(&["discard", &left.id, "--reason", "no use"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("LETTER_CLOSED"), "{said}");
    let output = run(&["retry"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("<ID|--domain <DOMAIN>>"), "{said}");
    assert_eq!(letters(&running.rest, &OPEN).await, [Value::Null; 0]);

    // Another process, which does not serve the domain, says that.
    world.set("SIGHTLINE_DOMAINS", "fulfillment");
    let other = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    let answer = other.rest.get(&path(&all[0])).await;
    assert_eq!(
        answer.json()["reason"],
        "DOMAIN_NOT_SERVED",
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_hostile_log_has_healed_it_reads_as_the_fold_says() {
    let shape = Shape {
        records: 6_000,
        partitions: 5,
        users: 150,
    };
    let log = generate_healing(seed() + 11, shape);
    let (some, more) = log.split_at(4_000);
    let (mut fold, ends) = folded(some, shape.partitions);
    let mut world = World::shared(shape.partitions).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, some).await;
    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());

    let running = with_larger_limit(&mut world, running).await;
    fold.retry(HEALING_BYTES, |_| true);
    for domain in DOMAINS {
        let tried = retry_all(&running.rest, domain).await;
        assert!(count(&tried, "applied") > 5, "{domain}: {tried:?}");
        assert!(count(&tried, "failed") > 5, "{domain}: {tried:?}");
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Thorough).await;

    // Every other letter that has failed is taken out, and what it held goes on.
    for domain in DOMAINS {
        let filters = [("domain", Some(domain)), ("state", Some("parked"))];
        let failed: Vec<Value> = letters(&running.rest, &filters)
            .await
            .into_iter()
            .filter(|letter| letter["class"] != "blocked")
            .step_by(2)
            .collect();
        for letter in failed {
            let path = format!("/v1/dead-letters/{}/discard", id(&letter));
            operate(&running.rest, &path, json!({"reason": "every other one"})).await;
            let coordinate = |name: &str| letter[name].as_i64().expect("a number");
            let (partition, number) = (coordinate("partition") as i32, coordinate("offset"));
            match domain {
                "order" => fold.order.discard(partition, number),
                _ => fold.fulfillment.discard(partition, number),
            }
        }
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;

    // Keys are live again, or not, as they should be.
    writer.write(&world.topic, more).await;
    fold.take_all(more);
    let (_, ends) = folded(&log, shape.partitions);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_are_tried_while_more_comes_lose_and_overtake_nothing() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 16_000,
        partitions: 3,
        users: 120,
    };
    // A deletion would close what has not been tried by then, or not.
    let log = generate_healing(seed() + 12, shape)
        .into_iter()
        .filter(|record| event_of(record).is_none_or(|event| event.name != "UserDeleted"));
    let log: Vec<Record> = log.collect();
    let mut fold = Folds::new(HEALING_BYTES);
    fold.take_all(&log);
    fold.order_is_known(false);
    let ends: Ends = (0..shape.partitions).map(|p| (p, fold.read(p))).collect();
    let world = World::new(broker, Database::create().await, shape.partitions).await;
    let writer = world.broker.writer();
    let running = world.serve().await;
    // Another one lets through what the first did not: the log goes on, and both project.
    let (first, rest) = log.split_at(4_000);
    writer.write(&world.topic, first).await;
    caught_up(&running.rest, &folded(first, shape.partitions).1).await;
    let mut world = world;
    let mut other = with_larger_limit(&mut world, running).await;
    let mut tried = 0;
    for part in rest.chunks(600) {
        writer.write(&world.topic, part).await;
        for domain in DOMAINS {
            tried += retry_all(&other.rest, domain).await.len();
        }
    }
    println!("{tried} letters tried");
    let caught_up_there = caught_up(&other.rest, &ends).await;
    assert_books(&caught_up_there, &fold, &Ends::new());
    assert_answers(&other, &fold, Depth::Brief).await;
    assert_eq!(other.app.process.exited(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_closes_the_letters_of_its_user_and_erases_them() {
    let mut world = World::shared(1).await;
    let log = [
        registered("a", "a-0"),
        bad("a", "a-1"),
        renamed("a", "a-2", "two"),
        event("UserDeleted", "a", "a-3", json!({})),
        renamed("a", "a-4", "four"),
        // One that waits for its own turn: tried again, it closes what still stands before it.
        registered("b", "b-5"),
        bad("b", "b-6"),
        large(event("UserDeleted", "b", "b-7", json!({}))),
        renamed("b", "b-8", "eight"),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let ends = Ends::from([(0, 9)]);
    caught_up(&running.rest, &ends).await;
    let state = |letter: &Value| {
        let word = |name: &str| letter[name].as_str().unwrap_or("-").to_owned();
        (
            letter["offset"].as_i64().expect("it"),
            word("state"),
            word("resolution"),
        )
    };
    let closed = |offset| (offset, "discarded".to_owned(), "user_deleted".to_owned());
    let all = letters(&running.rest, &ORDER).await;
    assert_eq!(state(&all[0]), closed(1));
    assert_eq!(state(&all[1]), closed(2));
    for letter in &all[..2] {
        let path = format!("/v1/dead-letters/{}", id(letter));
        let whole = running.rest.get(&path).await.json();
        for erased in ["key", "headers", "value"] {
            assert_eq!(whole.get(erased), None, "{whole}");
        }
    }
    let customer = running.rest.get(&customer_path("a")).await.json();
    assert_eq!(customer["status"], "deleted");
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(all[2..].iter().all(|letter| letter["state"] == "parked"));

    let running = with_larger_limit(&mut world, running).await;
    let tried = retry_all(&running.rest, "order").await;
    let outcomes: Vec<&Value> = tried.iter().map(|tried| &tried["outcome"]).collect();
    assert_eq!(outcomes, ["discarded", "applied", "applied"], "{tried:?}");
    let all = letters(&running.rest, &ORDER).await;
    assert_eq!(state(&all[2]), closed(6));
    let customer = running.rest.get(&customer_path("b")).await.json();
    assert_eq!(customer["status"], "deleted");
    let mut fold = Folds::new(MAX_VALUE_BYTES);
    fold.take_all(&log);
    fold.order.retry(HEALING_BYTES, |_| true);
    for domain in ["fulfillment"] {
        retry_all(&running.rest, domain).await;
        fold.fulfillment.retry(HEALING_BYTES, |_| true);
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_understands_more_tries_letters_again_by_itself() {
    let mut world = World::shared(1).await;
    let log = [
        registered("a", "a-0"),
        large(renamed("a", "a-1", "one")),
        renamed("a", "a-2", "two"),
        bad("b", "b-3"),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 4)])).await;
    let running = with_larger_limit(&mut world, running).await;
    assert_eq!(letters(&running.rest, &OPEN).await.len(), 3);
    // As if an older release had written them.
    let pool = database(&world).await;
    execute(
        &pool,
        "UPDATE sightline.dead_letters SET code_version = code_version - 1",
    )
    .await;
    wait_until(SOON, "what is understood now is through", async || {
        let open = letters(&running.rest, &OPEN).await;
        match &open[..] {
            [bad] if bad["offset"] == 3 && bad["attempts"] == 2 => Ok(()),
            _ => Err(format!("{open:?}")),
        }
    })
    .await;
    assert_eq!(username(&running, "a").await, "two");
    // And no more than once.
    let done = "the other domain has tried its own";
    wait_until(SOON, done, async || {
        let outdated = "SELECT count(*) FROM sightline.dead_letters d JOIN sightline.views v USING (domain, version)
                        WHERE d.state <> 'applied' AND d.code_version < v.code_version";
        match sqlx::query_scalar::<_, i64>(outdated).fetch_one(&pool).await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(letters(&running.rest, &OPEN).await[0]["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_letters_pile_up_the_domain_pauses_itself_and_says_why() {
    let Some(broker) = Broker::real() else { return };
    let world = World::new(broker, Database::create().await, 2).await;
    let writer = world.broker.writer();
    let running = world.serve().await;
    let rest = &running.rest;
    // A thousand are borne.
    let some = (0..1_000).map(|n| without_key(bad("x", &format!("x-{n}"))));
    writer.write(&world.topic, &some.collect::<Vec<_>>()).await;
    caught_up(rest, &Ends::from([(0, 1_000), (1, 0)])).await;
    let paused = async |domain: &str, words: &str| {
        wait_until(LONG, "the domain pauses itself", async || {
            let answer = rest.try_get(&format!("/v1/consistency/{domain}")).await?;
            let answer = answer.json();
            let failure = answer["partitions"][0]["failure"].clone();
            if answer["state"] == "paused" && failure.as_str().is_some_and(|f| f.contains(words)) {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        })
        .await;
        let versions = projection(rest, domain).await["versions"].clone();
        assert_eq!(versions[0]["pause"]["by"], "sightline");
    };
    writer
        .write(&world.topic, &[without_key(bad("x", "x-1000"))])
        .await;
    paused("order", "failed").await;
    // The other domain is not made from these: it goes on.
    caught_up_alone(&running, "fulfillment", 1_001).await;
    // Somebody looks, and lets it go on: what was there does not count again.
    writer.write(&world.topic, &[registered("y", "y-0")]).await;
    project(rest, "order", "resume", json!({})).await;
    caught_up(rest, &Ends::from([(0, 1_002), (1, 0)])).await;

    // Behind one key that nobody sees to.
    let mut behind = vec![bad("z", "z-0")];
    behind.extend((0..10_000).map(|n| renamed("z", &format!("z-{n}-"), "z")));
    for record in &mut behind {
        record.partition = 1;
    }
    writer.write(&world.topic, &behind).await;
    paused("order", "behind one key").await;
}

/// Waits until a domain has come to this position in partition 0.
async fn caught_up_alone(running: &Running, domain: &str, position: i64) {
    let path = format!("/v1/consistency/{domain}");
    wait_until(LONG, "the domain is caught up", async || {
        let answer = running.rest.try_get(&path).await?.json();
        if answer["state"] == "caught_up" && answer["partitions"][0]["position"] == position {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_letter_goes_to_the_dead_letter_topic_without_what_is_personal() {
    let Some(broker) = Broker::real() else { return };
    for with_values in [false, true] {
        let mut world = World::new(broker.clone(), Database::create().await, 1).await;
        world.set(
            "SIGHTLINE_DEAD_LETTER_TOPIC_VALUES",
            &with_values.to_string(),
        );
        let log = [
            registered("a", "a-0"),
            bad("a", "a-1"),
            renamed("a", "a-2", "two"),
            large(renamed("b", "b-3", "three")),
        ];
        world.broker.writer().write(&world.topic, &log).await;
        let running = world.serve().await;
        caught_up(&running.rest, &Ends::from([(0, 4)])).await;
        let topic = format!("{}.dlq.order", world.topic);
        let published = wait_until(SOON, "all are published", async || {
            let letters = world.broker.read_all(&topic);
            match letters.len() {
                3.. => Ok(letters),
                n => Err(format!("{n} letters")),
            }
        })
        .await;
        let header = |record: &Record, name: &str| {
            let found = record.headers.iter().find(|(header, _)| header == name);
            found.map(|(_, value)| String::from_utf8(value.clone()).expect("text"))
        };
        let stored = letters(&running.rest, &ORDER).await;
        for (offset, class, message) in [
            ("1", "data", "wrong_type: email"),
            ("2", "blocked", "blocked"),
            ("3", "data", "too_large"),
        ] {
            let of_offset = |record: &&Record| {
                header(record, "__streams.errors.offset").as_deref() == Some(offset)
            };
            let record = published.iter().find(of_offset).expect("it is published");
            let of = |name: &str| header(record, name);
            assert_eq!(of("__streams.errors.topic"), Some(world.topic.clone()));
            assert_eq!(of("__streams.errors.partition").as_deref(), Some("0"));
            assert_eq!(of("__streams.errors.exception").as_deref(), Some(class));
            assert_eq!(of("__streams.errors.message").as_deref(), Some(message));
            assert_eq!(of("sightline.domain").as_deref(), Some("order"));
            let letter = stored
                .iter()
                .find(|l| l["offset"].as_i64() == offset.parse().ok());
            let letter = letter.expect("it is stored");
            assert_eq!(
                of("sightline.dead-letter-id").as_deref(),
                letter["id"].as_str()
            );
            let original = &log[offset.parse::<usize>().expect("a number")];
            match (with_values, message) {
                (false, _) => assert_eq!((&record.key, &record.value), (&None, &None)),
                (true, "too_large") => {
                    assert_eq!((&record.key, &record.value), (&original.key, &None))
                }
                (true, _) => assert_eq!(
                    (&record.key, &record.value),
                    (&original.key, &original.value)
                ),
            }
        }
        // A version that has the same letters publishes none of them again.
        project(&running.rest, "order", "rebuild", json!({})).await;
        built(&running.rest, "order", 4).await;
        project(&running.rest, "order", "switch", json!({})).await;
        world
            .broker
            .writer()
            .write(&world.topic, &[bad("c", "c-4")])
            .await;
        wait_until(SOON, "the next one is published", async || {
            let letters = world.broker.read_all(&topic);
            let is_it = |record: &&Record| {
                header(record, "__streams.errors.offset").as_deref() == Some("4")
            };
            match letters.iter().find(is_it) {
                Some(_) => Ok(()),
                None => Err(format!("{} letters", letters.len())),
            }
        })
        .await;
        let offsets: BTreeSet<String> = world
            .broker
            .read_all(&topic)
            .iter()
            .filter_map(|record| header(record, "sightline.dead-letter-id"))
            .collect();
        assert_eq!(offsets.len(), 4, "one id for each letter: {offsets:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_its_topic_does_not_take_goes_without_its_value_and_holds_up_no_other() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    world.set("SIGHTLINE_DEAD_LETTER_TOPIC_VALUES", "true");
    let topic = format!("{}.dlq.order", world.topic);
    world.broker.create_topic_for(&topic, 1, 4_096).await;
    let mut long = bad("b", "b-1");
    let value = long.value.as_mut().expect("a value");
    value.resize(MAX_VALUE_BYTES, b' ');
    let log = [bad("a", "a-0"), long, bad("c", "c-2")];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 3)])).await;
    let published = wait_until(SOON, "all are published", async || {
        let letters = world.broker.read_all(&topic);
        match letters.len() {
            3.. => Ok(letters),
            n => Err(format!("{n} letters")),
        }
    })
    .await;
    let values: BTreeSet<_> = published.into_iter().map(|record| record.value).collect();
    let expected = BTreeSet::from([None, log[0].value.clone(), log[2].value.clone()]);
    assert_eq!(values, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_try_letters_of_one_partition_at_once_hold_up_nobody() {
    let world = World::shared(1).await;
    let log: Vec<Record> = (0..16)
        .map(|n| bad(&format!("u-{n}"), &format!("e-{n}")))
        .collect();
    let writer = world.broker.writer();
    writer.write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 16)])).await;
    let rest = &running.rest;
    let tries = letters(rest, &OPEN).await.into_iter().map(async |letter| {
        let path = format!("/v1/dead-letters/{}/retry", id(&letter));
        operate(rest, &path, json!({})).await
    });
    for tried in futures_util::future::join_all(tries).await {
        assert_eq!(tried["outcomes"][0]["outcome"], "failed", "{tried}");
    }
    writer.write(&world.topic, &[registered("a", "a-16")]).await;
    caught_up(rest, &Ends::from([(0, 17)])).await;
}

/// A key whose letters are in the first partition, and of which more is in another log that comes after: it waits there, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_moved_waits_for_its_letters_where_it_was() {
    let Some(broker) = Broker::real() else { return };
    for anew in [false, true] {
        let world = World::new(broker.clone(), Database::create().await, 1).await;
        let mut log = Vec::new();
        for user in ["a", "b"] {
            log.push(registered(user, &format!("{user}-0")));
            log.push(bad(user, &format!("{user}-1")));
            log.push(renamed(user, &format!("{user}-2"), "one"));
        }
        world.broker.writer().write(&world.topic, &log).await;
        let running = world.serve().await;
        let rest = &running.rest;
        caught_up(rest, &Ends::from([(0, 6)])).await;
        let mut ends = Ends::from([(0, 6), (1, 2)]);
        if anew {
            world.broker.delete_topic(&world.topic).await;
            world.broker.create_topic(&world.topic, 2).await;
            ends.insert(0, 0);
        } else {
            world.broker.add_partitions(&world.topic, 2).await;
        }
        let moved = |mut record: Record| {
            record.partition = 1;
            record
        };
        let writer = world.broker.writer();
        let more = [
            moved(renamed("a", "a-3", "two")),
            moved(registered("c", "c-0")),
        ];
        writer.write(&world.topic, &more).await;
        for domain in DOMAINS.iter().filter(|_| anew) {
            let path = format!("/v1/projections/{domain}/resume");
            wait_until(SOON, "losses are accepted", async || {
                let failed = rest.get(&format!("/v1/consistency/{domain}")).await.json();
                if failed["state"] == "failed" {
                    operate(rest, &path, json!({"acceptLoss": true})).await;
                    return Ok(());
                }
                Err(failed.to_string())
            })
            .await;
        }
        caught_up(rest, &ends).await;
        assert_eq!(username(&running, "a").await, Value::Null);
        let open = letters(rest, &OPEN).await;
        assert_eq!(open.len(), 5, "{open:?}");
        let answer = rest.get("/v1/consistency/order").await.json();
        let partitions = partitions(&answer);
        let of = |number: i64, name: &str| partitions[&(number as i32)][name].clone();
        assert_eq!(
            (of(0, "deadLetters"), of(0, "parkedKeys")),
            (json!(4), json!(2))
        );
        assert_eq!(
            (of(1, "deadLetters"), of(1, "parkedKeys")),
            (json!(1), json!(1))
        );
        // By itself it is not tried, as it waits behind something.
        let path = format!("/v1/dead-letters/{}/retry", id(&open[4]));
        let tried = operate(rest, &path, json!({})).await;
        assert_eq!(tried["outcomes"][0]["outcome"], "waiting", "{tried}");

        // A deletion reaches back to where the key was.
        let deletion = event("UserDeleted", "b", "b-4", json!({}));
        writer.write(&world.topic, &[moved(deletion)]).await;
        ends.insert(1, 3);
        caught_up(rest, &ends).await;
        let now = letters(rest, &ORDER).await;
        let closed = now.iter().filter(|l| l["resolution"] == "user_deleted");
        assert_eq!(closed.count(), 2, "{now:?}");

        // What was first goes first, then what waited for it, then what is new.
        let path = format!("/v1/dead-letters/{}/discard", id(&open[0]));
        let tried = operate(rest, &path, json!({"reason": "no use"})).await;
        assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
        wait_until(SOON, "the other log goes on", async || {
            match username(&running, "a").await {
                name if name == "two" => Ok(()),
                name => Err(name.to_string()),
            }
        })
        .await;
        writer
            .write(&world.topic, &[moved(renamed("a", "a-4", "three"))])
            .await;
        ends.insert(1, 4);
        caught_up(rest, &ends).await;
        assert_eq!(username(&running, "a").await, "three");
        assert_eq!(letters(rest, &OPEN).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_letters_are_tried_that_need_nothing_of_it() {
    let mut world = World::shared(1).await;
    let mut running = with_two_lines(&world).await;
    running.app.process.kill();
    let limit = HEALING_BYTES.to_string();
    world.set("SIGHTLINE_MAX_VALUE_BYTES", &limit);
    world.set("SIGHTLINE_KAFKA_BROKERS", "127.0.0.1:1");
    running = world.serve().await;

    let all = letters(&running.rest, &ORDER).await;
    let outcome = |n: usize, outcome: &str| json!({"id": all[n]["id"], "outcome": outcome});
    let away = json!({"id": all[0]["id"], "outcome": "failed", "reason": "kafka_unavailable"});
    let failed =
        json!({"id": all[2]["id"], "outcome": "failed", "reason": "wrong_type", "field": "email"});
    let tried = retry_all(&running.rest, "order").await;
    let expected = [away, outcome(1, "waiting"), failed, outcome(3, "waiting")];
    assert_eq!(tried, expected);
    assert_eq!(
        attempts(&running.rest).await,
        [1, 1, 2, 1],
        "what could not be read was not tried"
    );

    // Taken out it can be, too; and once Kafka is back the rest goes through.
    let path = format!("/v1/dead-letters/{}/discard", id(&all[2]));
    let tried = operate(&running.rest, &path, json!({"reason": "no use"})).await;
    assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
    running.app.process.kill();
    let broker = world.broker.address.clone();
    running = world.set("SIGHTLINE_KAFKA_BROKERS", &broker).serve().await;
    let tried = retry_all(&running.rest, "order").await;
    assert_eq!(tried, [outcome(0, "applied"), outcome(1, "applied")]);
    assert_eq!(username(&running, "a").await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_kept_long_enough_are_erased_and_read_from_the_log_again() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    let mut running = with_two_lines(&world).await;
    let pool = database(&world).await;
    let age = async |days: u32| {
        let statement = format!(
            "UPDATE sightline.dead_letters SET first_failed_at = now() - interval '{days} days 1 hour'"
        );
        execute(&pool, &statement).await;
    };
    // A week before, somebody is told.
    age(24).await;
    running.app.process.kill();
    running = world.serve().await;
    wait_until(SOON, "it is told", async || {
        let metrics = running.admin.try_get("/metrics").await?.text();
        let line = "sightline_dead_letters_expiring{domain=\"order\"} 4";
        match metrics.contains(line) {
            true => Ok(()),
            false => Err(metrics),
        }
    })
    .await;
    let first = letters(&running.rest, &ORDER).await.remove(1);
    let path = format!("/v1/dead-letters/{}", id(&first));
    assert!(running.rest.get(&path).await.json()["value"].is_string());
    age(30).await;
    running = with_larger_limit(&mut world, running).await;
    wait_until(SOON, "they are erased", async || {
        let letter = running.rest.try_get(&path).await?.json();
        let erased = ["key", "headers", "value"].map(|name| letter.get(name).is_none());
        match erased {
            [true, true, true] => Ok(()),
            _ => Err(letter.to_string()),
        }
    })
    .await;
    // Coordinates and reason stay, the key is parked still, and the log has the bytes.
    assert_eq!(letters(&running.rest, &OPEN).await.len(), 4);
    let tried = operate(&running.rest, &format!("{path}/retry"), json!({})).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "applied", "{tried}");
    assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
    assert_eq!(username(&running, "a").await, "two");

    // Where the log has lost them, too, a letter can only be taken out.
    world.broker.delete_records(&world.topic, 0, 5).await;
    let [first, second] = &letters(&running.rest, &OPEN).await[..] else {
        panic!("two are left")
    };
    let path = format!("/v1/dead-letters/{}", id(first));
    let lost = json!({"id": first["id"], "outcome": "failed", "reason": "bytes_lost"});
    let waiting = json!({"id": second["id"], "outcome": "waiting"});
    let tried = operate(&running.rest, &format!("{path}/retry"), json!({})).await;
    assert_eq!(tried, json!({"outcomes": [lost, waiting]}));
    let again = running.rest.get(&path).await.json();
    assert_eq!(
        again["reason"], "wrong_type",
        "why it became a letter stays"
    );
    assert_eq!(again["attempts"], 2);
    let body = json!({"reason": "gone"});
    let tried = operate(&running.rest, &format!("{path}/discard"), body.clone()).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "discarded", "{tried}");
    assert_eq!(tried["outcomes"][1]["outcome"], "failed", "{tried}");
    // It has failed by itself now: nobody goes on trying what waited behind nothing.
    let left = letters(&running.rest, &OPEN).await.remove(0);
    assert_eq!(
        (&left["reason"], &left["class"]),
        (&json!("bytes_lost"), &json!("data"))
    );
    let path = format!("/v1/dead-letters/{}/discard", id(second));
    operate(&running.rest, &path, body).await;
    assert_eq!(letters(&running.rest, &OPEN).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_as_old_as_its_record_however_late_it_is_tried() {
    const DAY: i64 = 86_400_000;
    let mut world = World::shared(1).await;
    let start = 1_790_000_000_000;
    let at = |mut record: Record, days: i64| {
        record.timestamp = start + days * DAY;
        record
    };
    // A log that moves by a day at a time.
    let mut log = vec![
        at(registered("a", "a-0"), 0),
        at(large(renamed("a", "a-1", "one")), 0),
        // Known by then, and so when it is tried again, though the log has forgotten it since.
        at(renamed("a", "a-0", "twice"), 80),
        at(renamed("a", "a-2", "two"), 85),
    ];
    log.extend((0..=170).map(|day| at(registered("other", &format!("o-{day}")), day)));
    log.sort_by_key(|record| record.timestamp);
    let mut fold = Folds::new(MAX_VALUE_BYTES);
    fold.take_all(&log);
    let ends = Ends::from([(0, log.len() as i64)]);
    let writer = world.broker.writer();
    writer.write(&world.topic, &log).await;
    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    let running = with_larger_limit(&mut world, running).await;
    for domain in DOMAINS {
        let tried = retry_all(&running.rest, domain).await;
        let outcomes: Vec<&Value> = tried.iter().map(|tried| &tried["outcome"]).collect();
        let expected: &[&str] = match domain {
            "order" => &["applied", "duplicate", "applied"],
            // It is not made from this type, as is known once it is read.
            _ => &["skipped"],
        };
        assert_eq!(outcomes, expected, "{domain}");
    }
    fold.retry(HEALING_BYTES, |_| true);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    // What was applied late is forgotten when it would have been: at 90 days after its record.
    let again = [
        at(renamed("a", "a-1", "again"), 171),
        at(renamed("a", "a-2", "no"), 169),
    ];
    writer.write(&world.topic, &again).await;
    fold.take_all(&again);
    let ends = Ends::from([(0, log.len() as i64 + 2)]);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    assert_eq!(username(&running, "a").await, "again");
}
