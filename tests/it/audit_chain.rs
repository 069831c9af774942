//! The chains of the audit log: what was changed, removed, inserted or moved is found, and erasures, rebuilds and retries leave
//! them whole.

use std::time::Duration;

use serde_json::{Value, json};
use sightline_testing::app::{Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{caught_up, caught_up_within};
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::operations::{built, dead_letters, operate, project, refused, retry_all};
use sightline_testing::wait_until;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

const ENTRIES: &str = "/v1/audit/entries";
const VERIFY: &str = "/v1/audit/entries:verify";
const IP: &str = "192.0.2.7";

/// A record of so many seconds ago.
fn event(event_type: &str, key: &str, id: &str, age: u64, payload: Value) -> Record {
    let time = chrono::Utc::now() - Duration::from_secs(age);
    let body = json!({
        "eventId": id, "eventType": event_type, "eventTimestamp": time.to_rfc3339(), "payload": payload,
    });
    Record {
        partition: 0,
        key: Some(key.into()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: time.timestamp_millis(),
    }
}

fn logged_in(user: &str, id: &str) -> Record {
    let payload = json!({"userId": user, "ipAddress": IP, "userAgent": "Browser/1"});
    event("UserLoggedIn", user, id, 60, payload)
}

fn updated(user: &str, id: &str) -> Record {
    let payload = json!({"userId": user, "updatedFields": {"email": {"old": "a@example.org", "new": "b@example.org"}}});
    event("UserUpdated", user, id, 50, payload)
}

fn deleted(user: &str, id: &str, deletion: &str, age: u64) -> Record {
    let payload = json!({"userId": user, "deletionType": deletion});
    event("UserDeleted", user, id, age, payload)
}

/// Ten entries of two users.
fn ten() -> Vec<Record> {
    let mut records: Vec<Record> = (0..8)
        .map(|n| logged_in(if n % 2 == 0 { "a" } else { "b" }, &format!("l-{n}")))
        .collect();
    records.push(updated("a", "u-a"));
    records.push(updated("b", "u-b"));
    records
}

async fn world(key: Option<&std::path::Path>) -> Option<World> {
    let mut world = World::new(Broker::real()?, Database::create().await, 1).await;
    world.set("SIGHTLINE_DOMAINS", "audit");
    if let Some(key) = key {
        world.set("SIGHTLINE_AUDIT_KEY_FILE", key.to_str().expect("UTF-8"));
    }
    Some(world)
}

/// A file with a key.
fn key_file(key: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), key).expect("writable");
    file
}

async fn write(world: &World, running: &Running, records: &[Record]) {
    world.broker.writer().write(&world.topic, records).await;
    let ends = world.broker.ends(&world.topic).await;
    caught_up(&running.rest, &ends).await;
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    let executed = connection
        .execute(AssertSqlSafe(statements.to_owned()))
        .await;
    executed.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

async fn verify(rest: &Rest, expected_head: Option<&str>) -> Value {
    let body = expected_head.map_or(json!({}), |head| json!({"expectedHead": head}));
    operate(rest, VERIFY, body).await
}

/// The chains are whole, with so many entries. Returns the head.
async fn assert_valid(rest: &Rest, entries: i64, expected_head: Option<&str>) -> String {
    let found = verify(rest, expected_head).await;
    assert_eq!(found["valid"], true, "{found}");
    assert_eq!(found["entriesChecked"], entries, "{found}");
    found["head"].as_str().expect("a head").to_owned()
}

async fn entries(rest: &Rest) -> Vec<Value> {
    let answer = rest.get(&format!("{ENTRIES}?pageSize=1000")).await.json();
    answer["entries"].as_array().expect("a list").clone()
}

/// What entries say that may be erased: by event id the IP address and the changes.
async fn personal(rest: &Rest) -> Vec<(String, Value, Value)> {
    let mut found: Vec<(String, Value, Value)> = entries(rest)
        .await
        .iter()
        .map(|entry| {
            let id = entry["eventId"].as_str().expect("an id").to_owned();
            (id, entry["ipAddress"].clone(), entry["changes"].clone())
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_found() {
    let key = key_file("a key of the tests that is long enough");
    let Some(world) = world(Some(key.path())).await else {
        return;
    };
    let running = world.serve().await;
    let rest = &running.rest;
    assert_valid(rest, 0, None).await;
    write(&world, &running, &ten()[..4]).await;
    let early = assert_valid(rest, 4, None).await;
    write(&world, &running, &ten()[4..]).await;
    let head = assert_valid(rest, 10, Some(&early)).await;
    assert_eq!(verify(rest, None).await["keyed"], true);

    let url = &world.database.url;
    execute(
        url,
        "CREATE SCHEMA kept;
         CREATE TABLE kept.entries AS TABLE audit_live.entries;
         CREATE TABLE kept.chains AS TABLE audit_live.chains",
    )
    .await;
    let cut = "DELETE FROM audit_live.entries WHERE sequence > 8;";
    let move_back = "UPDATE audit_live.chains SET (sequence, link) = (SELECT sequence, link FROM audit_live.entries WHERE sequence = 8);";
    let forget =
        "UPDATE sightline.progress SET applied = 8, skipped = skipped + 2 WHERE domain = 'audit'";
    let remember = "UPDATE sightline.progress SET applied = 10, skipped = 0 WHERE domain = 'audit'";
    let at_five =
        |change: &str| format!("UPDATE audit_live.entries SET {change} WHERE sequence = 5");
    // Moves the entries behind the fourth: in two steps, because no two may have one number at any time.
    let shift = |by: i64| {
        format!(
            "UPDATE audit_live.entries SET sequence = sequence + 1000 WHERE sequence > 4;
             UPDATE audit_live.entries SET sequence = sequence - 1000 + {by} WHERE sequence > 1000;"
        )
    };
    let cases = [
        (
            at_five("occurred_at = occurred_at + interval '1 microsecond'"),
            (4, "changed"),
        ),
        (
            at_five("recorded_at = recorded_at - interval '1 day'"),
            (4, "changed"),
        ),
        (at_five("event_id = 'other'"), (4, "changed")),
        (at_five("action = 13"), (4, "changed")),
        (at_five("user_key = NULL"), (4, "changed")),
        (at_five("actor_key = user_key"), (4, "changed")),
        (at_five("ip_key = NULL"), (4, "changed")),
        (at_five("ip_address = '192.0.2.8'"), (4, "changed")),
        (at_five("ip_address = NULL, ip_key = NULL"), (4, "changed")),
        (at_five("user_agent = 'Browser/2'"), (4, "changed")),
        (
            at_five("salts = decode(repeat('00', 32), 'hex')"),
            (4, "changed"),
        ),
        (
            at_five("facts = replace(facts, '\"a\"', '\"c\"')"),
            (4, "changed"),
        ),
        (
            at_five("link = decode(repeat('00', 32), 'hex')"),
            (4, "changed"),
        ),
        (
            "UPDATE audit_live.entries SET changed_values = '[{}]' WHERE sequence = 9".to_owned(),
            (8, "changed"),
        ),
        (
            "DELETE FROM audit_live.entries WHERE sequence = 1".to_owned(),
            (1, "removed"),
        ),
        (
            "DELETE FROM audit_live.entries WHERE sequence = 5".to_owned(),
            (5, "removed"),
        ),
        // The later ones moved up, so that no number is missing.
        (
            format!(
                "DELETE FROM audit_live.entries WHERE sequence = 5; {}",
                shift(-1)
            ),
            (5, "changed"),
        ),
        (format!("{cut} {move_back}"), (7, "tail_cut")),
        (cut.to_owned(), (7, "tail_cut")),
        (
            "DELETE FROM audit_live.entries".to_owned(),
            (-1, "tail_cut"),
        ),
        (
            "UPDATE audit_live.chains SET link = decode(repeat('00', 32), 'hex')".to_owned(),
            (9, "changed"),
        ),
        (
            "UPDATE audit_live.entries SET sequence = 1000 WHERE sequence = 5;
             UPDATE audit_live.entries SET sequence = 5 WHERE sequence = 6;
             UPDATE audit_live.entries SET sequence = 6 WHERE sequence = 1000"
                .to_owned(),
            (5, "inserted"),
        ),
    ];
    let restore = "TRUNCATE audit_live.entries, audit_live.chains;
         INSERT INTO audit_live.entries TABLE kept.entries;
         INSERT INTO audit_live.chains TABLE kept.chains";
    for (tamper, (offset, problem)) in cases {
        execute(url, &tamper).await;
        let found = verify(rest, None).await;
        assert_eq!(found["valid"], false, "{tamper}");
        let broken = &found["firstBroken"];
        assert_eq!(broken["problem"], problem, "{tamper}: {found}");
        let expected = if offset < 0 {
            Value::Null
        } else {
            json!(offset)
        };
        assert_eq!(broken["offset"], expected, "{tamper}: {found}");
        execute(url, restore).await;
        assert_valid(rest, 10, Some(&head)).await;
    }

    // An entry that was put in, the later ones moved down; and one behind the end.
    for (at, problem) in [(5, "inserted"), (11, "inserted")] {
        let tamper = format!(
            "{} CREATE TEMP TABLE copied AS SELECT * FROM kept.entries WHERE sequence = 2;
             UPDATE copied SET sequence = {at}, event_id = 'forged', record_offset = 77;
             INSERT INTO audit_live.entries TABLE copied",
            if at == 5 { shift(1) } else { String::new() }
        );
        execute(url, &tamper).await;
        let found = verify(rest, None).await;
        assert_eq!(found["firstBroken"]["problem"], problem, "{found}");
        assert_eq!(found["firstBroken"]["eventId"], "forged", "{found}");
        execute(url, restore).await;
    }

    // Who also changes the books leaves a whole chain, which a head that was kept does not fit.
    execute(url, &format!("{cut} {move_back} {forget}")).await;
    assert_valid(rest, 8, Some(&early)).await;
    let found = verify(rest, Some(&head)).await;
    assert_eq!(found["firstBroken"]["problem"], "tail_cut", "{found}");
    execute(url, &format!("{restore}; {remember}")).await;
    assert_valid(rest, 10, Some(&head)).await;

    for wrong in ["", "x", "e30", &head[1..]] {
        let answer = rest.post(VERIFY, &json!({"expectedHead": wrong})).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["fields"][0]["field"], "expectedHead");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_leaves_the_chain_whole() {
    let key = key_file("a key of the tests that is long enough");
    let Some(mut world) = world(Some(key.path())).await else {
        return;
    };
    world.set("SIGHTLINE_AUDIT_SOFT_RETENTION_DAYS", "1");
    let running = world.serve().await;
    let rest = &running.rest;
    write(&world, &running, &ten()).await;
    let head = assert_valid(rest, 10, None).await;

    // What comes later, or was refused before, is written without what is personal.
    let bad = event(
        "UserLoggedIn",
        "a",
        "bad",
        40,
        json!({"userId": "a", "ipAddress": 7}),
    );
    let hard = deleted("a", "d-a", "hard", 30);
    write(
        &world,
        &running,
        &[bad, hard, logged_in("a", "late"), updated("a", "late-u")],
    )
    .await;
    let of_a = |id: &str| ["l-0", "l-2", "l-4", "l-6", "late", "u-a", "late-u"].contains(&id);
    for (id, ip, changes) in personal(rest).await {
        let has_ip = id.starts_with("l-") && !of_a(&id);
        assert_eq!(ip, if has_ip { json!(IP) } else { Value::Null }, "{id}");
        match id.as_str() {
            "u-a" | "late-u" => assert_eq!(changes, json!([{"field": "email"}]), "{id}"),
            "u-b" => assert_eq!(changes[0]["new"], "b@example.org"),
            _ => assert_eq!(changes, Value::Null, "{id}"),
        }
    }
    let by_ip = rest.get(&format!("{ENTRIES}?ipAddress={IP}")).await.json();
    assert_eq!(by_ip["entries"].as_array().map(Vec::len), Some(4));
    // His dead letter parks nothing, and the deletion closed it.
    let closed = dead_letters(rest, &[("domain", Some("audit"))]).await;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["state"], "discarded", "{}", closed[0]);
    assert_valid(rest, 13, Some(&head)).await;
    // What is left of him tells nothing: neither the values nor salts to try them out with.
    let mut connection = PgConnection::connect(&world.database.url)
        .await
        .expect("a connection");
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM audit_live.entries
                 WHERE user_key = (SELECT user_key FROM audit_live.deleted_users)
                   AND num_nonnulls(ip_address, user_agent, changed_values, salts, ip_key) > 0)
              + (SELECT count(*) FROM audit.stamps s JOIN audit_live.entries e USING (log_id, record_offset)
                 WHERE e.salts IS NULL AND s.salts IS NOT NULL)",
    )
    .fetch_one(&mut connection)
    .await
    .expect("a count");
    assert_eq!(left, 0);

    // A soft deletion whose retention ends in some seconds.
    write(
        &world,
        &running,
        &[deleted("b", "d-b", "soft", 24 * 3_600 - 8)],
    )
    .await;
    let has_ip = |found: &[(String, Value, Value)]| found.iter().any(|(_, ip, _)| *ip == json!(IP));
    assert!(has_ip(&personal(rest).await));
    wait_until(SOON, "the retention is over", async || {
        match has_ip(&personal(rest).await) {
            true => Err("an address is left".to_owned()),
            false => Ok(()),
        }
    })
    .await;
    assert_valid(rest, 14, Some(&head)).await;
    write(&world, &running, &[logged_in("b", "late-b")]).await;
    assert!(!has_ip(&personal(rest).await));
    assert_valid(rest, 15, Some(&head)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilds_and_retries_keep_times_and_chains() {
    let key = key_file("a key of the tests that is long enough");
    let Some(world) = world(Some(key.path())).await else {
        return;
    };
    let running = world.serve().await;
    let rest = &running.rest;
    let mut records = ten();
    // It parks its role's key, and the next one is blocked.
    let role = |id: &str, name: Value| {
        event(
            "RoleCreated",
            "r",
            id,
            5,
            json!({"roleId": "r", "roleName": name, "createdBy": "admin"}),
        )
    };
    records.extend([
        role("bad", json!(7)),
        role("good", json!("Role")),
        deleted("b", "d-b", "hard", 1),
    ]);
    write(&world, &running, &records).await;
    let head = assert_valid(rest, 11, None).await;
    let before = entries(rest).await;
    project(rest, "audit", "rebuild", json!({})).await;
    built(rest, "audit", 13).await;
    let compared = operate(
        rest,
        "/v1/projections/audit/switch",
        json!({"compare": true}),
    )
    .await;
    assert_eq!(compared["versions"][0]["version"], 2, "{compared}");
    assert_eq!(entries(rest).await, before);
    // The new chain records the head of the former one.
    let second = assert_valid(rest, 11, Some(&head)).await;
    write(&world, &running, &[logged_in("c", "l-c")]).await;
    assert_valid(rest, 12, Some(&second)).await;
    let first = dead_letters(rest, &[("domain", Some("audit"))])
        .await
        .pop()
        .expect("one");
    let oldest = dead_letters(
        rest,
        &[("domain", Some("audit")), ("state", Some("parked"))],
    )
    .await;
    assert_eq!(oldest.len(), 2, "{first}");
    let id = oldest
        .iter()
        .find(|letter| letter["class"] == "data")
        .expect("the bad one")["id"]
        .clone();
    let path = format!("/v1/dead-letters/{}/discard", id.as_str().expect("an id"));
    operate(rest, &path, json!({"reason": "test"})).await;
    retry_all(rest, "audit").await;
    let third = assert_valid(rest, 13, Some(&second)).await;
    let before = entries(rest).await;
    project(rest, "audit", "rollback", json!({})).await;
    assert_eq!(entries(rest).await, before);
    assert_valid(rest, 13, Some(&third)).await;
    // That head is in no chain that is left, and was not recorded.
    let (status, reason) = refused(rest, VERIFY, json!({"expectedHead": second})).await;
    assert_eq!((status, reason.as_str()), (400, "INVALID_ARGUMENT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_another_key_writes_nothing() {
    let key = key_file("a key of the tests that is long enough");
    let Some(mut world) = world(None).await else {
        return;
    };
    let running = world.serve().await;
    write(&world, &running, &ten()).await;
    let found = verify(&running.rest, None).await;
    assert_eq!(
        (&found["valid"], &found["keyed"]),
        (&json!(true), &json!(false))
    );
    drop(running);
    world.set(
        "SIGHTLINE_AUDIT_KEY_FILE",
        key.path().to_str().expect("UTF-8"),
    );
    let running = world.serve().await;
    let rest = &running.rest;
    world
        .broker
        .writer()
        .write(&world.topic, &[logged_in("c", "l-c")])
        .await;
    wait_until(SOON, "the partition is stalled", async || {
        let lag = rest.get("/v1/consistency/audit").await.json();
        let partition = &lag["partitions"][0];
        match (partition["state"].as_str(), partition["failure"].as_str()) {
            (Some("stalled"), Some("unreadable_state")) => Ok(()),
            _ => Err(lag.to_string()),
        }
    })
    .await;
    let (status, reason) = refused(rest, VERIFY, json!({})).await;
    assert_eq!((status, reason.as_str()), (409, "AUDIT_KEY_DIFFERS"));
    // A rebuild begins new chains, with the key.
    project(rest, "audit", "rebuild", json!({})).await;
    built(rest, "audit", 11).await;
    project(rest, "audit", "switch", json!({})).await;
    let ends = world.broker.ends(&world.topic).await;
    caught_up_within(SOON, rest, &ends).await;
    assert_valid(rest, 11, None).await;

    // Where the log no longer has the records, the audit log is the only record of them.
    world.broker.delete_records(&world.topic, 0, 5).await;
    wait_until(SOON, "the rebuild is refused", async || {
        let answer = rest
            .try_post(
                "/v1/projections/audit/rebuild",
                &json!({"acceptLoss": true}),
            )
            .await?;
        match (answer.status, answer.json()["reason"].as_str()) {
            (409, Some("LOG_TRUNCATED")) => Ok(()),
            // Kafka has not been asked since.
            (200, _) => {
                project(rest, "audit", "cancel", json!({})).await;
                Err("it was begun".to_owned())
            }
            _ => Err(answer.text()),
        }
    })
    .await;
}
