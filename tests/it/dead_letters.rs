//! Dead letters: kept with the records that wait behind them, listed, retried in order, discarded, closed by
//! deletions, and published. Too many of them pause the domain.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sightline::proto::operations::v1 as pb;
use sightline::proto::operations::v1::operations_service_client::OperationsServiceClient;
use sightline_testing::app::{DOMAINS, LONG, Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{
    Depth, Ends, assert_answers, assert_books, caught_up, folded, partitions,
};
use sightline_testing::client::{Rest, customer_path};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{
    HEALING_BYTES, MAX_VALUE_BYTES, Shape, generate_healing, seed,
};
use sightline_testing::operations::{
    built, count, dead_letters, operate, project, projection, refused, retry_all,
};
use sightline_testing::reference::{Folds, event_of};
use sightline_testing::wait_until;
use sqlx::{AssertSqlSafe, PgPool};
use tonic_types::StatusExt;

/// An event of a user on partition 0, keyed by the user.
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

/// A record that can never be applied.
fn bad(user: &str, id: &str) -> Record {
    event("UserEmailVerified", user, id, json!({"email": 12}))
}

/// Makes a good record too large for the first limit.
fn large(mut record: Record) -> Record {
    let value = record.value.as_mut().expect("a value");
    value.resize(MAX_VALUE_BYTES + 1, b' ');
    record
}

fn without_key(mut record: Record) -> Record {
    record.key = None;
    record
}

/// Restarts the process with the larger limit.
async fn with_larger_limit(world: &mut World, mut running: Running) -> Running {
    running.app.process.kill();
    let limit = HEALING_BYTES.to_string();
    world.set("SIGHTLINE_MAX_VALUE_BYTES", &limit).serve().await
}

/// A process with dead letters of two keys. The first one of `a` is too large to be stored, the first one of
/// `b` can never be applied.
async fn with_two_parked_keys(world: &World) -> Running {
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

/// How often each dead letter of order was tried.
async fn attempts(rest: &Rest) -> Vec<Value> {
    let dead_letters = dead_letters(rest, &ORDER).await;
    dead_letters
        .iter()
        .map(|dead_letter| dead_letter["attempts"].clone())
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

fn id(dead_letter: &Value) -> &str {
    dead_letter["id"].as_str().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_retried_and_discarded() {
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

    let all = dead_letters(rest, &ORDER).await;
    lists_by_domain_key_reason_and_state(&world, rest, &log, &all).await;
    shows_headers_and_values(rest, &log, &all).await;
    retries_dry_and_for_real(rest, &all).await;
    discards_with_a_reason(&running, &all).await;
    frees_the_key(&world, &running).await;
    let running = with_larger_limit(&mut world, running).await;
    let left = retries_by_reason_and_key_over_grpc(&running, &log).await;
    refuses_contradicting_retries_over_grpc(&running, &left).await;
    works_from_the_command_line(&world, &running, &left).await;
    refuses_domains_that_it_does_not_serve(&mut world, &all[0]).await;
}

fn path_of(dead_letter: &Value) -> String {
    format!("/v1/dead-letters/{}", id(dead_letter))
}

fn retry_path(dead_letter: &Value) -> String {
    format!("{}/retry", path_of(dead_letter))
}

/// Lists, by domain, key, reason and state, in pages.
async fn lists_by_domain_key_reason_and_state(
    world: &World,
    rest: &Rest,
    log: &[Record],
    all: &[Value],
) {
    let offsets = |dead_letters: &[Value]| -> Vec<i64> {
        let offset = |dead_letter: &Value| dead_letter["offset"].as_i64().expect("a number");
        dead_letters.iter().map(offset).collect()
    };
    assert_eq!(offsets(all), [1, 2, 4, 5, 6, 7]);
    let of = async |filter: &str, value: &str| {
        let filters = [ORDER[0], (filter, Some(value))];
        offsets(&dead_letters(rest, &filters).await)
    };
    assert_eq!(of("key", "a").await, [1, 2, 7]);
    assert_eq!(of("keyBase64", "YQ==").await, [1, 2, 7]);
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
        ("key=", "key"),
        ("keyBase64=", "keyBase64"),
        ("Key=a", "Key"),
        ("reason=%00", "reason"),
        ("reason=wrong_typo", "reason"),
        ("reason=Wrong_type", "reason"),
        ("pageSize=x", "pageSize"),
        ("pageToken=x", "pageToken"),
    ] {
        let answer = rest.get(&format!("/v1/dead-letters?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["fields"][0]["field"], field, "{query}");
    }
    // A retry by a reason that no dead letter can have does not answer that nothing was to be done.
    let body = json!({"domain": "order", "reason": "wrong_typo"});
    let answer = rest.post("/v1/dead-letters:retry", &body).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let problem = &answer.json()["fields"][0];
    assert_eq!(problem["field"], "reason");
    let known = problem["problem"].as_str().expect("text");
    let listed = "must be one of not_json, too_deep, ";
    assert!(
        known.starts_with(listed) && known.contains(", wrong_type, "),
        "{known}"
    );
}

/// A single dead letter has headers and value, unless the value was too large to be stored.
async fn shows_headers_and_values(rest: &Rest, log: &[Record], all: &[Value]) {
    let shown = rest.get(&path_of(&all[0])).await;
    assert_eq!(shown.header("cache-control"), "no-store");
    let shown = shown.json();
    let value = STANDARD.decode(shown["value"].as_str().expect("a value"));
    assert_eq!(value.ok(), log[1].value);
    let headers = json!([{"name": "correlationId", "value": STANDARD.encode("c-1")}]);
    assert_eq!(shown["headers"], headers);
    assert_eq!(rest.get(&path_of(&all[2])).await.json().get("value"), None);
    for unknown in ["none", "01a2093a-f139-710d-8867-ae04814d66ac"] {
        let answer = rest.get(&format!("/v1/dead-letters/{unknown}")).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["reason"], "NOT_FOUND");
    }
}

/// A dry run reports outcomes and changes nothing. A retry counts as an attempt of what it tries; what waits is not tried.
async fn retries_dry_and_for_real(rest: &Rest, all: &[Value]) {
    let expected = json!({"outcomes": [
        {"id": all[0]["id"], "outcome": "failed", "reason": "wrong_type", "field": "email"},
        {"id": all[1]["id"], "outcome": "waiting"},
        {"id": all[5]["id"], "outcome": "waiting"},
    ]});
    // A retry begins with the first dead letter of the key, whichever is named.
    let tried = operate(rest, &retry_path(&all[5]), json!({"dryRun": true})).await;
    assert_eq!(tried, expected);
    assert_eq!(dead_letters(rest, &ORDER).await, all);
    let tried = operate(rest, &retry_path(&all[0]), json!({})).await;
    assert_eq!(tried, expected);
    assert_eq!(attempts(rest).await, [2, 0, 1, 0, 1, 0]);
}

/// A discard needs a reason. It retries the waiting dead letters, and frees the key.
async fn discards_with_a_reason(running: &Running, all: &[Value]) {
    let rest = &running.rest;
    let discard = format!("{}/discard", path_of(&all[0]));
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
    // A field in the query instead of the body is refused, not ignored.
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
    assert_eq!(username(running, "a").await, Value::Null);
    let body = json!({"reason": "ticket 4711"});
    assert_eq!(operate(rest, &discard, body).await, expected);
    assert_eq!(username(running, "a").await, "seven");
    for path in [discard, retry_path(&all[0]), retry_path(&all[1])] {
        let answer = refused(rest, &path, json!({"reason": "again"})).await;
        assert!(
            answer == (409, "LETTER_CLOSED".into()) || answer == (400, "INVALID_ARGUMENT".into()),
            "{path}: {answer:?}"
        );
    }
}

/// Records that follow are applied, and the books count every outcome.
async fn frees_the_key(world: &World, running: &Running) {
    let rest = &running.rest;
    world
        .broker
        .writer()
        .write(&world.topic, &[renamed("a", "a-8", "eight")])
        .await;
    caught_up(rest, &Ends::from([(0, 9)])).await;
    assert_eq!(username(running, "a").await, "eight");
    let now = dead_letters(rest, &ORDER).await;
    let state = |n: usize| (now[n]["state"].clone(), now[n]["resolution"].clone());
    assert_eq!(state(0), (json!("discarded"), json!("ticket 4711")));
    assert_eq!(state(1), (json!("applied"), json!("applied")));
    assert!(now[1]["resolvedAt"].is_string());
    assert_eq!(attempts(rest).await, [2, 1, 1, 0, 1, 1]);
    let said = books(running, "order").await;
    let books_say = |name: &str| said[name].as_i64().expect("a number");
    assert_eq!(books_say("applied"), 5, "{said}");
    assert_eq!(books_say("deadLettered"), 4, "{said}");
    assert_eq!(books_say("deadLetters"), 3, "{said}");
    assert_eq!(books_say("parkedKeys"), 1, "{said}");
}

/// Over gRPC, by reason and by key. Under a larger limit, the large record is fetched from Kafka and applied.
async fn retries_by_reason_and_key_over_grpc(running: &Running, log: &[Record]) -> pb::DeadLetter {
    let mut grpc = OperationsServiceClient::new(running.grpc.channel.clone());
    let request = pb::RetryDeadLettersRequest {
        domain: Some("order".into()),
        reason: Some("wrong_type".into()),
        ..pb::RetryDeadLettersRequest::default()
    };
    let tried = grpc.retry_dead_letters(request).await.expect("an answer");
    let tried = tried.into_inner();
    assert_eq!(tried.outcomes.len(), 1, "{tried:?}");
    assert_eq!(tried.outcomes[0].outcome(), pb::DeadLetterOutcome::Failed);
    let request = pb::RetryDeadLettersRequest {
        domain: Some("order".into()),
        key: Some("b".into()),
        ..pb::RetryDeadLettersRequest::default()
    };
    let tried = grpc.retry_dead_letters(request).await.expect("an answer");
    let outcomes = tried.into_inner().outcomes;
    let outcomes: Vec<_> = outcomes.iter().map(pb::TriedDeadLetter::outcome).collect();
    assert_eq!(
        outcomes,
        [
            pb::DeadLetterOutcome::Applied,
            pb::DeadLetterOutcome::Applied
        ]
    );
    assert_eq!(username(running, "b").await, "five");
    let request = pb::ListDeadLettersRequest {
        domain: Some("order".into()),
        state: Some(pb::DeadLetterState::Parked.into()),
        ..pb::ListDeadLettersRequest::default()
    };
    let left = grpc.list_dead_letters(request).await.expect("an answer");
    let [left] = &left.into_inner().dead_letters[..] else {
        panic!("only the dead letter without a key is left")
    };
    assert_eq!((left.offset, &left.key), (6, &None));
    let request = pb::GetDeadLetterRequest {
        id: left.id.clone(),
    };
    let whole = grpc.get_dead_letter(request).await.expect("an answer");
    let whole = whole.into_inner().dead_letter.expect("a letter");
    assert_eq!(whole.value, log[6].value);
    assert_eq!(whole.headers[0].value.as_deref(), Some(&b"c-1"[..]));
    left.clone()
}

/// Refuses a retry of nothing in particular, or of a dead letter and a group at once.
async fn refuses_contradicting_retries_over_grpc(running: &Running, left: &pb::DeadLetter) {
    let mut grpc = OperationsServiceClient::new(running.grpc.channel.clone());
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
        (
            pb::RetryDeadLettersRequest {
                domain: Some("order".into()),
                reason: Some("wrong_typo".into()),
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
    for (reason, state, field) in [
        (Some("wrong_typo".into()), None, "reason"),
        (None, Some(99), "state"),
    ] {
        let request = pb::ListDeadLettersRequest {
            reason,
            state,
            ..pb::ListDeadLettersRequest::default()
        };
        let status = grpc.list_dead_letters(request).await.expect_err("refused");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("a field").field_violations;
        assert_eq!(violations[0].field, field);
    }
}

/// The commands of command line.
async fn works_from_the_command_line(world: &World, running: &Running, left: &pb::DeadLetter) {
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
    let output = run(&["discard", &left.id, "--reason", "no use", "--dry-run"]).await;
    assert!(text(&output).contains("nothing was changed"), "{output:?}");
    let output = run(&["discard", &left.id, "--reason", "no use"]).await;
    assert!(text(&output).contains("discarded"), "{output:?}");
    assert!(!text(&output).contains("nothing was changed"), "{output:?}");
    let output = run(&["discard", &left.id, "--reason", "no use"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("LETTER_CLOSED"), "{said}");
    // An error names the flag that is wrong and the command that helps, and no path of the API.
    for (arguments, named) in [
        (
            &["list", "--reason", "wrong_typo"][..],
            "--reason must be one of not_json",
        ),
        (
            &["retry", "--domain", "order", "--reason", "wrong_typo"],
            "--reason must be one of",
        ),
        (&["show", "4711"], "`sightline dead-letters list`"),
        (&["list", "--domain", "orders"], "`sightline status`"),
    ] {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{arguments:?}: {said}");
        assert!(!said.contains("/v1/"), "{arguments:?}: {said}");
    }
    // An empty list says so, apart from what a program may read.
    let output = run(&["list", "--domain", "order", "--state", "retrying", "--json"]).await;
    assert_eq!(text(&output), "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "No dead letter matches.\n");
    let output = run(&["retry"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("<ID|--domain <DOMAIN>>"), "{said}");
    assert_eq!(dead_letters(&running.rest, &OPEN).await, [Value::Null; 0]);
}

/// A process that does not serve the domain refuses.
async fn refuses_domains_that_it_does_not_serve(world: &mut World, dead_letter: &Value) {
    world.set("SIGHTLINE_DOMAINS", "fulfillment");
    let other = world.set("SIGHTLINE_ROLE", "gateway").serve().await;
    let answer = other.rest.get(&path_of(dead_letter)).await;
    assert_eq!(
        answer.json()["reason"],
        "DOMAIN_NOT_SERVED",
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_log_matches_the_reference_fold_after_retries_and_discards() {
    let shape = Shape {
        records: 6_000,
        partitions: 5,
        users: 150,
    };
    let log = generate_healing(seed() + 11, shape);
    let (some, more) = log.split_at(4_000);
    let (mut fold, ends) = folded(some, shape.partitions);
    let mut world = World::shared(shape.partitions).await;
    let domains = ["order", "fulfillment", "audit"];
    world.set("SIGHTLINE_DOMAINS", &domains.join(","));
    let writer = world.broker.writer();
    writer.write(&world.topic, some).await;
    let running = world.serve().await;
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());

    let running = with_larger_limit(&mut world, running).await;
    fold.retry(HEALING_BYTES, |_| true);
    for domain in domains {
        let tried = retry_all(&running.rest, domain).await;
        assert!(count(&tried, "applied") > 0, "{domain}: {tried:?}");
        assert!(count(&tried, "failed") > 5, "{domain}: {tried:?}");
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Thorough).await;

    // Discard every other failed dead letter; those that wait behind it are applied.
    for domain in domains {
        let filters = [("domain", Some(domain)), ("state", Some("parked"))];
        let failed: Vec<Value> = dead_letters(&running.rest, &filters)
            .await
            .into_iter()
            .filter(|dead_letter| dead_letter["class"] != "blocked")
            .step_by(2)
            .collect();
        for dead_letter in failed {
            let path = format!("/v1/dead-letters/{}", id(&dead_letter));
            // A deletion that waited behind one of the others may have closed it.
            if running.rest.get(&path).await.json()["state"] != "parked" {
                continue;
            }
            let path = format!("{path}/discard");
            operate(&running.rest, &path, json!({"reason": "every other one"})).await;
            let coordinate = |name: &str| dead_letter[name].as_i64().expect("a number");
            let (partition, number) = (coordinate("partition") as i32, coordinate("offset"));
            fold.of_mut(domain).discard(partition, number);
        }
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;

    // New records of freed keys are applied, those of parked keys are not.
    writer.write(&world.topic, more).await;
    fold.take_all(more);
    let (_, ends) = folded(&log, shape.partitions);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_during_live_traffic_lose_and_reorder_nothing() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 8_000,
        partitions: 3,
        users: 100,
    };
    // Without deletions: what they close depends on when dead letters are retried.
    let log = generate_healing(seed() + 12, shape)
        .into_iter()
        .filter(|record| event_of(record).is_none_or(|event| event.name != "UserDeleted"));
    let log: Vec<Record> = log.collect();
    let mut fold = Folds::new(HEALING_BYTES);
    fold.take_all(&log);
    fold.order_is_known = false;
    let ends: Ends = (0..shape.partitions).map(|p| (p, fold.read(p))).collect();
    let mut world = World::new(broker, Database::create().await, shape.partitions).await;
    let domains = ["order", "fulfillment", "audit"];
    world.set("SIGHTLINE_DOMAINS", &domains.join(","));
    let writer = world.broker.writer();
    let running = world.serve().await;
    // The new process applies what the first one could not, while records are still written.
    let (first, rest) = log.split_at(2_000);
    writer.write(&world.topic, first).await;
    caught_up(&running.rest, &folded(first, shape.partitions).1).await;
    let mut other = with_larger_limit(&mut world, running).await;
    let mut tried = 0;
    for part in rest.chunks(600) {
        writer.write(&world.topic, part).await;
        for domain in domains {
            tried += retry_all(&other.rest, domain).await.len();
        }
    }
    println!("{tried} dead letters retried");
    let caught_up_there = caught_up(&other.rest, &ends).await;
    assert_books(&caught_up_there, &fold, &Ends::new());
    assert_answers(&other, &fold, Depth::Brief).await;
    assert_eq!(other.app.process.exited(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_closes_and_erases_the_dead_letters_of_its_user() {
    let mut world = World::shared(1).await;
    let log = [
        registered("a", "a-0"),
        bad("a", "a-1"),
        renamed("a", "a-2", "two"),
        event("UserDeleted", "a", "a-3", json!({})),
        renamed("a", "a-4", "four"),
        // A deletion that is a dead letter itself: when retried, it closes those before it.
        registered("b", "b-5"),
        bad("b", "b-6"),
        large(event("UserDeleted", "b", "b-7", json!({}))),
        renamed("b", "b-8", "eight"),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let ends = Ends::from([(0, 9)]);
    caught_up(&running.rest, &ends).await;
    let state = |dead_letter: &Value| {
        let word = |name: &str| dead_letter[name].as_str().unwrap_or("-").to_owned();
        (
            dead_letter["offset"].as_i64().expect("it"),
            word("state"),
            word("resolution"),
        )
    };
    let closed = |offset| (offset, "discarded".to_owned(), "user_deleted".to_owned());
    let all = dead_letters(&running.rest, &ORDER).await;
    assert_eq!(state(&all[0]), closed(1));
    assert_eq!(state(&all[1]), closed(2));
    for dead_letter in &all[..2] {
        let path = format!("/v1/dead-letters/{}", id(dead_letter));
        let whole = running.rest.get(&path).await.json();
        for erased in ["key", "headers", "value"] {
            assert_eq!(whole.get(erased), None, "{whole}");
        }
    }
    let customer = running.rest.get(&customer_path("a")).await.json();
    assert_eq!(customer["status"], "deleted");
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(
        all[2..]
            .iter()
            .all(|dead_letter| dead_letter["state"] == "parked")
    );

    let running = with_larger_limit(&mut world, running).await;
    let tried = retry_all(&running.rest, "order").await;
    let outcomes: Vec<&Value> = tried.iter().map(|tried| &tried["outcome"]).collect();
    assert_eq!(outcomes, ["discarded", "applied", "applied"], "{tried:?}");
    let all = dead_letters(&running.rest, &ORDER).await;
    assert_eq!(state(&all[2]), closed(6));
    let customer = running.rest.get(&customer_path("b")).await.json();
    assert_eq!(customer["status"], "deleted");
    let mut fold = Folds::new(MAX_VALUE_BYTES);
    fold.take_all(&log);
    fold.of_mut("order").retry(HEALING_BYTES, |_| true);
    for domain in DOMAINS {
        if domain != "order" {
            retry_all(&running.rest, domain).await;
            fold.of_mut(domain).retry(HEALING_BYTES, |_| true);
        }
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

/// In audit a record that is too large parks nothing, because its type is not read. Where a retry reads that it is about a
/// role, the dead letter waits for earlier ones of its key, because who may do what depends on the order of roles.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_too_large_to_be_read_waits_for_its_key_when_it_is_retried() {
    let named = json!({"roleId": "r", "roleName": "R", "assignedBy": "x", "removedBy": "x"});
    let role = |kind, user, id| event(kind, user, id, named.clone());
    let no_role = |user, id| event("UserRoleAssigned", user, id, json!({"roleName": "R"}));
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "audit");
    let log = [
        no_role("a", "a-0"),
        large(role("UserRoleAssigned", "a", "a-1")),
        large(no_role("b", "b-2")),
        role("UserRoleAssigned", "b", "b-3"),
        large(role("UserRoleAssigned", "c", "c-4")),
        no_role("c", "c-5"),
        large(event("UserLoggedOut", "c", "c-6", json!({}))),
    ];
    let writer = world.broker.writer();
    writer.write(&world.topic, &log).await;
    let running = world.serve().await;
    let mut fold = Folds::new(MAX_VALUE_BYTES);
    fold.take_all(&log);
    let ends = Ends::from([(0, 7)]);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());

    let running = with_larger_limit(&mut world, running).await;
    let audit = [("domain", Some("audit")), ("state", Some("parked"))];
    let too_large = dead_letters(&running.rest, &audit).await;
    // Each by itself, so that none comes after the one that it waits for in the same retry.
    for dead_letter in too_large
        .iter()
        .filter(|letter| letter["reason"] == "too_large")
    {
        operate(&running.rest, &retry_path(dead_letter), json!({})).await;
    }
    fold.retry(HEALING_BYTES, |_| true);
    let open = dead_letters(&running.rest, &audit).await;
    let open: Vec<_> = open
        .iter()
        .map(|open| (&open["offset"], &open["class"]))
        .collect();
    assert_eq!(
        json!(open),
        json!([[0, "data"], [1, "blocked"], [2, "data"], [5, "data"]])
    );
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());

    // `b` has a dead letter that parks now.
    let more = [role("UserRoleRemoved", "b", "b-7")];
    writer.write(&world.topic, &more).await;
    fold.take_all(&more);
    let ends = Ends::from([(0, 8)]);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    for offset in [0, 2] {
        let open = dead_letters(&running.rest, &audit).await;
        let first = open
            .iter()
            .find(|open| open["offset"] == offset)
            .expect("it");
        let path = format!("{}/discard", path_of(first));
        operate(&running.rest, &path, json!({"reason": "a test"})).await;
        fold.of_mut("audit").discard(0, offset);
    }
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_release_retries_dead_letters_of_older_ones() {
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
    assert_eq!(dead_letters(&running.rest, &OPEN).await.len(), 3);
    // Mark the dead letters as written by an older release.
    let pool = database(&world).await;
    execute(
        &pool,
        "UPDATE sightline.dead_letters SET code_version = code_version - 1",
    )
    .await;
    wait_until(
        SOON,
        "the dead letters that can be applied are applied",
        async || {
            let open = dead_letters(&running.rest, &OPEN).await;
            match &open[..] {
                [bad] if bad["offset"] == 3 && bad["attempts"] == 2 => Ok(()),
                _ => Err(format!("{open:?}")),
            }
        },
    )
    .await;
    assert_eq!(username(&running, "a").await, "two");
    // Each is retried once only.
    let done = "the other domain has retried its dead letters";
    wait_until(SOON, done, async || {
        let outdated = "SELECT count(*) FROM sightline.dead_letters d JOIN sightline.views v USING (domain, version)
                        WHERE d.state <> 'applied' AND d.code_version < v.code_version";
        match sqlx::query_scalar::<_, i64>(outdated).fetch_one(&pool).await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(dead_letters(&running.rest, &OPEN).await[0]["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_with_too_many_dead_letters_pauses_itself() {
    let Some(broker) = Broker::real() else { return };
    let world = World::new(broker, Database::create().await, 2).await;
    let writer = world.broker.writer();
    let running = world.serve().await;
    let rest = &running.rest;
    // A thousand are allowed.
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
    // The other domain does not read these events, and continues.
    caught_up_alone(&running, "fulfillment", 1_001).await;
    // After an operator has resumed the domain, the existing dead letters no longer count.
    writer.write(&world.topic, &[registered("y", "y-0")]).await;
    project(rest, "order", "resume", json!({})).await;
    caught_up(rest, &Ends::from([(0, 1_002), (1, 0)])).await;

    // Too many dead letters behind one key.
    let mut behind = vec![bad("z", "z-0")];
    behind.extend((0..10_000).map(|n| renamed("z", &format!("z-{n}-"), "z")));
    for record in &mut behind {
        record.partition = 1;
    }
    writer.write(&world.topic, &behind).await;
    paused("order", "behind one key").await;
}

/// Waits until one domain has caught up at this position in partition 0.
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
async fn dead_letters_are_published_without_values() {
    publishes_every_dead_letter(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_published_with_values_if_configured() {
    publishes_every_dead_letter(true).await;
}

async fn publishes_every_dead_letter(with_values: bool) {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
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
    let published = wait_until(SOON, "all dead letters are published", async || {
        let dead_letters = world.broker.read_all(&topic);
        match dead_letters.len() {
            3.. => Ok(dead_letters),
            n => Err(format!("{n} dead letters")),
        }
    })
    .await;
    let stored = dead_letters(&running.rest, &ORDER).await;
    for (offset, class, message) in [
        (1, "data", "wrong_type: email"),
        (2, "blocked", "blocked"),
        (3, "data", "too_large"),
    ] {
        let number = offset.to_string();
        let of_offset =
            |record: &&Record| header(record, "__streams.errors.offset").as_ref() == Some(&number);
        let record = published.iter().find(of_offset).expect("it is published");
        assert_headers(&world, record, class, message);
        let dead_letter = stored.iter().find(|stored| stored["offset"] == offset);
        let dead_letter = dead_letter.expect("it is stored");
        assert_eq!(
            header(record, "sightline.dead-letter-id").as_deref(),
            dead_letter["id"].as_str()
        );
        let original = &log[offset as usize];
        let expected = match (with_values, message) {
            (false, _) => (&None, &None),
            (true, "too_large") => (&original.key, &None),
            (true, _) => (&original.key, &original.value),
        };
        assert_eq!((&record.key, &record.value), expected);
    }
    assert_a_new_version_publishes_nothing_again(&world, &running).await;
}

fn header(record: &Record, name: &str) -> Option<String> {
    let found = record.headers.iter().find(|(header, _)| header == name);
    found.map(|(_, value)| String::from_utf8(value.clone()).expect("text"))
}

/// The headers of a published dead letter, except its offset and id.
fn assert_headers(world: &World, record: &Record, class: &str, message: &str) {
    let of = |name: &str| header(record, name);
    assert_eq!(of("__streams.errors.topic"), Some(world.topic.clone()));
    assert_eq!(of("__streams.errors.partition").as_deref(), Some("0"));
    assert_eq!(of("__streams.errors.exception").as_deref(), Some(class));
    assert_eq!(of("__streams.errors.message").as_deref(), Some(message));
    assert_eq!(of("sightline.domain").as_deref(), Some("order"));
}

/// A new version with the same dead letters does not publish them again.
async fn assert_a_new_version_publishes_nothing_again(world: &World, running: &Running) {
    let topic = format!("{}.dlq.order", world.topic);
    project(&running.rest, "order", "rebuild", json!({})).await;
    built(&running.rest, "order", 4).await;
    project(&running.rest, "order", "switch", json!({})).await;
    world
        .broker
        .writer()
        .write(&world.topic, &[bad("c", "c-4")])
        .await;
    wait_until(SOON, "the next dead letter is published", async || {
        let dead_letters = world.broker.read_all(&topic);
        let is_it =
            |record: &&Record| header(record, "__streams.errors.offset").as_deref() == Some("4");
        match dead_letters.iter().find(is_it) {
            Some(_) => Ok(()),
            None => Err(format!("{} dead letters", dead_letters.len())),
        }
    })
    .await;
    let ids: BTreeSet<String> = world
        .broker
        .read_all(&topic)
        .iter()
        .filter_map(|record| header(record, "sightline.dead-letter-id"))
        .collect();
    assert_eq!(ids.len(), 4, "one id for each dead letter: {ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_too_large_for_its_topic_is_published_without_its_value() {
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
    let published = wait_until(SOON, "all dead letters are published", async || {
        let dead_letters = world.broker.read_all(&topic);
        match dead_letters.len() {
            3.. => Ok(dead_letters),
            n => Err(format!("{n} dead letters")),
        }
    })
    .await;
    let values: BTreeSet<_> = published.into_iter().map(|record| record.value).collect();
    let expected = BTreeSet::from([None, log[0].value.clone(), log[2].value.clone()]);
    assert_eq!(values, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_retries_in_one_partition_do_not_block_each_other() {
    let world = World::shared(1).await;
    let log: Vec<Record> = (0..16)
        .map(|n| bad(&format!("u-{n}"), &format!("e-{n}")))
        .collect();
    let writer = world.broker.writer();
    writer.write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 16)])).await;
    let rest = &running.rest;
    let tries = dead_letters(rest, &OPEN)
        .await
        .into_iter()
        .map(async |dead_letter| {
            let path = format!("/v1/dead-letters/{}/retry", id(&dead_letter));
            operate(rest, &path, json!({})).await
        });
    for tried in futures_util::future::join_all(tries).await {
        assert_eq!(tried["outcomes"][0]["outcome"], "failed", "{tried}");
    }
    writer.write(&world.topic, &[registered("a", "a-16")]).await;
    caught_up(rest, &Ends::from([(0, 17)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_moved_to_a_new_partition_waits_for_its_dead_letters() {
    moved_key_waits(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_recreated_topic_waits_for_its_dead_letters() {
    moved_key_waits(true).await;
}

/// A key has dead letters in the first partition, and further records in a later log: those wait, too.
async fn moved_key_waits(recreated: bool) {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    world.set("SIGHTLINE_KAFKA_SETTLE_SECONDS", "0");
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
    if recreated {
        world.broker.delete_topic(&world.topic).await;
        world.broker.create_topic(&world.topic, 2).await;
        ends.insert(0, 0);
    } else {
        world.broker.add_partitions(&world.topic, 2).await;
    }
    let writer = world.broker.writer();
    let more = [
        moved(renamed("a", "a-3", "two")),
        moved(registered("c", "c-0")),
    ];
    writer.write(&world.topic, &more).await;
    if recreated {
        accept_loss(rest).await;
    }
    caught_up(rest, &ends).await;
    assert_eq!(username(&running, "a").await, Value::Null);
    let open = dead_letters(rest, &OPEN).await;
    assert_eq!(open.len(), 5, "{open:?}");
    assert_books_of_both_logs(rest).await;
    // It is not retried alone, as it waits behind another dead letter.
    let path = format!("/v1/dead-letters/{}/retry", id(&open[4]));
    let tried = operate(rest, &path, json!({})).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "waiting", "{tried}");
    a_deletion_and_a_discard_free_both_keys(&world, &running, &open[0], ends).await;
}

/// Moves a record to partition 1.
fn moved(mut record: Record) -> Record {
    record.partition = 1;
    record
}

/// Resumes every domain as soon as it has failed.
async fn accept_loss(rest: &Rest) {
    for domain in DOMAINS {
        let path = format!("/v1/projections/{domain}/resume");
        wait_until(SOON, "the loss is accepted", async || {
            let failed = rest.get(&format!("/v1/consistency/{domain}")).await.json();
            if failed["state"] == "failed" {
                operate(rest, &path, json!({"acceptLoss": true})).await;
                return Ok(());
            }
            Err(failed.to_string())
        })
        .await;
    }
}

async fn assert_books_of_both_logs(rest: &Rest) {
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
}

/// A deletion closes dead letters in the earlier log. A discard of the first dead letter applies the others of
/// its key: first the earlier log's, then the later log's, then new records.
async fn a_deletion_and_a_discard_free_both_keys(
    world: &World,
    running: &Running,
    first: &Value,
    mut ends: Ends,
) {
    let (rest, writer) = (&running.rest, world.broker.writer());
    // A deletion closes dead letters in the earlier log, too.
    let deletion = event("UserDeleted", "b", "b-4", json!({}));
    writer.write(&world.topic, &[moved(deletion)]).await;
    ends.insert(1, 3);
    caught_up(rest, &ends).await;
    let now = dead_letters(rest, &ORDER).await;
    let closed = now.iter().filter(|l| l["resolution"] == "user_deleted");
    assert_eq!(closed.count(), 2, "{now:?}");

    // The first log's dead letters are applied first, then those of the later log, then new records.
    let path = format!("/v1/dead-letters/{}/discard", id(first));
    let tried = operate(rest, &path, json!({"reason": "no use"})).await;
    assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
    wait_until(
        SOON,
        "the later log's dead letter is applied",
        async || match username(running, "a").await {
            name if name == "two" => Ok(()),
            name => Err(name.to_string()),
        },
    )
    .await;
    writer
        .write(&world.topic, &[moved(renamed("a", "a-4", "three"))])
        .await;
    ends.insert(1, 4);
    caught_up(rest, &ends).await;
    assert_eq!(username(running, "a").await, "three");
    assert_eq!(dead_letters(rest, &OPEN).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_only_dead_letters_that_must_be_fetched_are_not_retried() {
    let mut world = World::shared(1).await;
    let mut running = with_two_parked_keys(&world).await;
    running.app.process.kill();
    let limit = HEALING_BYTES.to_string();
    world.set("SIGHTLINE_MAX_VALUE_BYTES", &limit);
    world.set("SIGHTLINE_KAFKA_BROKERS", "127.0.0.1:1");
    running = world.serve().await;

    let all = dead_letters(&running.rest, &ORDER).await;
    let outcome = |n: usize, outcome: &str| json!({"id": all[n]["id"], "outcome": outcome});
    let unavailable =
        json!({"id": all[0]["id"], "outcome": "failed", "reason": "kafka_unavailable"});
    let failed =
        json!({"id": all[2]["id"], "outcome": "failed", "reason": "wrong_type", "field": "email"});
    let tried = retry_all(&running.rest, "order").await;
    let expected = [
        unavailable,
        outcome(1, "waiting"),
        failed,
        outcome(3, "waiting"),
    ];
    assert_eq!(tried, expected);
    assert_eq!(
        attempts(&running.rest).await,
        [1, 0, 2, 0],
        "a dead letter that cannot be fetched is not tried"
    );

    // Discards work without Kafka. With Kafka, the others are applied.
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
async fn expired_bytes_are_erased_and_fetched_from_kafka_for_retries() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    let mut running = with_two_parked_keys(&world).await;
    let pool = database(&world).await;
    let age = async |days: u32| {
        let statement = format!(
            "UPDATE sightline.dead_letters SET first_failed_at = now() - interval '{days} days 1 hour'"
        );
        execute(&pool, &statement).await;
    };
    // A metric warns a week before the bytes are erased.
    age(24).await;
    running.app.process.kill();
    running = world.serve().await;
    wait_until(SOON, "the metric counts them", async || {
        let metrics = running.admin.try_get("/metrics").await?.text();
        let line = "sightline_dead_letters_expiring{domain=\"order\"} 4";
        if metrics.contains(line) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    let first = dead_letters(&running.rest, &ORDER).await.remove(1);
    let path = format!("/v1/dead-letters/{}", id(&first));
    assert!(running.rest.get(&path).await.json()["value"].is_string());
    age(30).await;
    running = with_larger_limit(&mut world, running).await;
    wait_until(SOON, "the bytes are erased", async || {
        let dead_letter = running.rest.try_get(&path).await?.json();
        let erased = ["key", "headers", "value"].map(|name| dead_letter.get(name).is_none());
        match erased {
            [true, true, true] => Ok(()),
            _ => Err(dead_letter.to_string()),
        }
    })
    .await;
    // Coordinates and reason stay, the key stays parked, and Kafka has the bytes.
    assert_eq!(dead_letters(&running.rest, &OPEN).await.len(), 4);
    let tried = operate(&running.rest, &format!("{path}/retry"), json!({})).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "applied", "{tried}");
    assert_eq!(tried["outcomes"][1]["outcome"], "applied", "{tried}");
    assert_eq!(username(&running, "a").await, "two");

    // When Kafka has lost the bytes, too, a dead letter can only be discarded.
    world.broker.delete_records(&world.topic, 0, 5).await;
    let [first, second] = &dead_letters(&running.rest, &OPEN).await[..] else {
        panic!("two dead letters are left")
    };
    let path = format!("/v1/dead-letters/{}", id(first));
    let lost = json!({"id": first["id"], "outcome": "failed", "reason": "bytes_lost"});
    let waiting = json!({"id": second["id"], "outcome": "waiting"});
    let tried = operate(&running.rest, &format!("{path}/retry"), json!({})).await;
    assert_eq!(tried, json!({"outcomes": [lost, waiting]}));
    let again = running.rest.get(&path).await.json();
    assert_eq!(again["reason"], "wrong_type", "the original reason stays");
    assert_eq!(again["attempts"], 2);
    let body = json!({"reason": "gone"});
    let tried = operate(&running.rest, &format!("{path}/discard"), body.clone()).await;
    assert_eq!(tried["outcomes"][0]["outcome"], "discarded", "{tried}");
    assert_eq!(tried["outcomes"][1]["outcome"], "failed", "{tried}");
    // The second one has failed itself: it no longer waits for another, and is not retried further.
    let left = dead_letters(&running.rest, &OPEN).await.remove(0);
    assert_eq!(
        (&left["reason"], &left["class"]),
        (&json!("bytes_lost"), &json!("data"))
    );
    let path = format!("/v1/dead-letters/{}/discard", id(second));
    operate(&running.rest, &path, body).await;
    assert_eq!(dead_letters(&running.rest, &OPEN).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_id_counts_once_however_late_its_dead_letter_is_applied() {
    const DAY: i64 = 86_400_000;
    let mut world = World::shared(1).await;
    let start = 1_790_000_000_000;
    let at = |mut record: Record, days: i64| {
        record.timestamp = start + days * DAY;
        record
    };
    // Stream time moves by one day per record.
    let mut log = vec![
        at(registered("a", "a-0"), 0),
        at(large(renamed("a", "a-1", "one")), 0),
        // A duplicate at its offset, and still one when it is retried.
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
        let expected: &[&str] = if fold.of(domain).wants("UserUpdated") {
            &["applied", "duplicate", "applied"]
        } else {
            // The domain does not read this type, which shows once the record can be read.
            &["skipped"]
        };
        assert_eq!(outcomes, expected, "{domain}");
    }
    fold.retry(HEALING_BYTES, |_| true);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    // Neither is another event a quarter later: fewer than 100,000 offsets have passed.
    let again = [
        at(renamed("a", "a-1", "again"), 171),
        at(renamed("a", "a-2", "no"), 169),
    ];
    writer.write(&world.topic, &again).await;
    fold.take_all(&again);
    let ends = Ends::from([(0, log.len() as i64 + 2)]);
    assert_books(&caught_up(&running.rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Brief).await;
    assert_eq!(username(&running, "a").await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_headers_count_in_the_bytes_of_a_retry() {
    let world = World::shared(1).await;
    let log: Vec<Record> = (0..6)
        .map(|n| {
            let mut record = bad("a", &format!("a-{n}"));
            record.headers.push(("large".into(), vec![b'x'; 900_000]));
            record
        })
        .collect();
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 6)])).await;
    let all = dead_letters(&running.rest, &ORDER).await;
    // A dry run retries what fits into one transaction: 4 MiB.
    let tried = operate(&running.rest, &retry_path(&all[0]), json!({"dryRun": true})).await;
    assert_eq!(tried["outcomes"].as_array().map(Vec::len), Some(4));
    let tried = operate(&running.rest, &retry_path(&all[0]), json!({})).await;
    assert_eq!(tried["outcomes"].as_array().map(Vec::len), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_kafka_refuses_hold_up_no_other() {
    let Some(broker) = Broker::real() else { return };
    let world = World::new(broker, Database::create().await, 1).await;
    let topic = format!("{}.dlq.order", world.topic);
    world.broker.create_topic_for(&topic, 1, 4_096).await;
    let writer = world.broker.writer();
    writer.write(&world.topic, &[bad("a", "a-0")]).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;
    // In front of all others: more than one transaction's of dead letters that are too large for their topic, and one of a
    // topic whose name is too long.
    let pool = database(&world).await;
    execute(
        &pool,
        "INSERT INTO sightline.logs OVERRIDING SYSTEM VALUE
         SELECT (jsonb_populate_record(l, jsonb_build_object('log_id', 1000, 'topic', repeat('x', 245)))).*
         FROM sightline.logs l LIMIT 1",
    )
    .await;
    execute(
        &pool,
        "INSERT INTO sightline.dead_letters
         SELECT (jsonb_populate_record(d, jsonb_build_object(
             'id', lpad(n::text, 32, '0')::uuid, 'record_offset', -n, 'state', 'discarded', 'published_at', NULL,
             'field', repeat('x', 5000), 'log_id', CASE n WHEN 1 THEN 1000 ELSE d.log_id END))).*
         FROM sightline.dead_letters d, generate_series(1, 300) AS n
         WHERE domain = 'order' AND record_offset = 0",
    )
    .await;
    writer.write(&world.topic, &[bad("b", "b-1")]).await;
    wait_until(SOON, "the last dead letter is published", async || {
        let dead_letters = world.broker.read_all(&topic);
        let is_last =
            |record: &Record| header(record, "__streams.errors.offset").as_deref() == Some("1");
        if dead_letters.iter().any(is_last) {
            Ok(())
        } else {
            Err(format!("{} dead letters", dead_letters.len()))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_id_has_the_hash_of_another_changes_no_row() {
    let world = World::shared(1).await;
    let writer = world.broker.writer();
    let first = [registered("u", "u-0"), registered("other", "o-1")];
    writer.write(&world.topic, &first).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 2)])).await;
    let pool = database(&world).await;
    // As if another user's id had the hash of this one's.
    execute(
        &pool,
        "UPDATE order_live.users SET user_id = 'another' WHERE user_id = 'u'",
    )
    .await;
    let row = async || -> (String, i64, Value) {
        let row = sqlx::query_as(
            "SELECT user_id, revision, state::jsonb FROM order_live.users WHERE user_id = 'another'",
        );
        row.fetch_one(&pool).await.expect("the row")
    };
    let before = row().await;
    let log = [renamed("u", "u-2", "new"), renamed("other", "o-3", "new")];
    writer.write(&world.topic, &log).await;
    caught_up(&running.rest, &Ends::from([(0, 4)])).await;
    let all = dead_letters(&running.rest, &ORDER).await;
    let [dead_letter] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (
            &dead_letter["reason"],
            &dead_letter["class"],
            &dead_letter["offset"]
        ),
        (&json!("user_id_hash_conflict"), &json!("bug"), &json!(2))
    );
    assert_eq!(row().await, before);
    assert_eq!(username(&running, "other").await, "new");
    // Reads by the user's id do not find the other's row, either.
    for path in ["", "/addresses", "/addresses?asOf=2026-10-02T00:00:00Z"] {
        let answer = running
            .rest
            .get(&format!("{}{path}", customer_path("u")))
            .await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
}
