//! What is held about one user: all domains at one moment, each with its position, the same over REST and gRPC.

use std::collections::BTreeMap;

use http::Method;
use prost_types::value::Kind;
use serde_json::{Map, Value, json};
use sightline::domains::names;
use sightline::proto::users::v1 as pb;
use sightline::proto::users::v1::user_service_client::UserServiceClient;
use sightline::query::ConsistencyToken;
use sightline_testing::app::{Running, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::{Answer, Rest, escape};
use sightline_testing::operations::dead_letters;
use tonic_types::StatusExt;

fn event(user: &str, id: &str, event_type: &str, mut payload: Value) -> Record {
    payload["userId"] = json!(user);
    let now = chrono::Utc::now();
    let body = json!({
        "eventId": id, "eventType": event_type, "eventTimestamp": now.to_rfc3339(), "payload": payload,
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: now.timestamp_millis(),
    }
}

fn registered(user: &str, id: &str, email: &str) -> Record {
    let payload = json!({"email": email, "status": "active"});
    event(user, id, "UserRegistered", payload)
}

async fn serve(world: &mut World, domains: &[&str]) -> Running {
    world.set("SIGHTLINE_DOMAINS", &domains.join(","));
    world.serve().await
}

async fn write(world: &World, records: &[Record]) -> Ends {
    world.broker.writer().write(&world.topic, records).await;
    Ends::from([(0, records.len() as i64)])
}

fn reason(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    let reason = body["reason"].as_str().unwrap_or_default();
    (answer.status, reason.to_owned())
}

/// The answer of gRPC in the JSON form of REST.
async fn by_grpc(
    running: &Running,
    user_id: &str,
    domains: &[&str],
) -> Result<Value, tonic::Status> {
    let request = pb::GetUserRequest {
        user_id: user_id.to_owned(),
        domains: domains.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut client = UserServiceClient::new(running.grpc.channel.clone());
    let answer = client.get_user(request).await?;
    let token = answer.metadata().get("sightline-consistency-token");
    assert!(token.is_some(), "{answer:?}");
    let user = answer.into_inner();
    let domains = user.domains.into_iter().map(|(name, part)| {
        let mut json = json!({
            "token": part.token,
            "deadLetters": part.dead_letters.len(),
            "hasMoreDeadLetters": part.has_more_dead_letters,
        });
        if let Some(data) = part.data {
            json["data"] = value_json(Kind::StructValue(data));
        }
        (name, json)
    });
    let domains: Map<String, Value> = domains.collect();
    Ok(json!({"userId": user.user_id, "domains": domains}))
}

fn value_json(kind: Kind) -> Value {
    let json = |value: prost_types::Value| value_json(value.kind.expect("a kind"));
    match kind {
        Kind::NullValue(_) => Value::Null,
        Kind::BoolValue(truth) => json!(truth),
        // Integers come back as integers, as REST has them.
        Kind::NumberValue(number) if number.fract() == 0.0 => json!(number as i64),
        Kind::NumberValue(number) => json!(number),
        Kind::StringValue(text) => json!(text),
        Kind::ListValue(list) => list.values.into_iter().map(json).collect(),
        Kind::StructValue(object) => {
            let fields = object.fields.into_iter();
            Value::Object(fields.map(|(name, value)| (name, json(value))).collect())
        }
    }
}

/// The answer of REST with the number of dead letters in their place.
fn counted(mut user: Value) -> Value {
    for part in user["domains"]
        .as_object_mut()
        .expect("domains")
        .values_mut()
    {
        let count = part["deadLetters"].as_array().expect("a list").len();
        part["deadLetters"] = json!(count);
    }
    user
}

async fn own_reads(rest: &Rest, user: &str) -> BTreeMap<&'static str, Value> {
    let user = escape(user);
    let mut own = BTreeMap::new();
    for (domain, path) in [
        ("order", format!("/v1/order/customers/{user}")),
        (
            "fulfillment",
            format!("/v1/fulfillment/users/{user}/addresses"),
        ),
        (
            "personalization",
            format!("/v1/personalization/users/{user}"),
        ),
        ("analytics", format!("/v1/analytics/users/{user}/activity")),
        ("search", "/v1/search/users?q=ada".to_owned()),
        (
            "notification",
            format!("/v1/notification/notifications?userId={user}"),
        ),
        ("audit", format!("/v1/audit/entries?userId={user}")),
    ] {
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        own.insert(domain, answer.json());
    }
    let found = &own["search"]["users"];
    let mut found = found.as_array().expect("users").iter();
    let mut found = found
        .find(|found| found["userId"] == "u/1")
        .expect("the user")
        .clone();
    found.as_object_mut().expect("a user").remove("score");
    own.insert("search", found);
    let notifications = own.get_mut("notification").expect("an answer");
    notifications["notifications"]
        .as_array_mut()
        .expect("a list")
        .reverse();
    notifications["hasMore"] = json!(false);
    let access = rest.get(&format!("/v1/audit/users/{user}/access")).await;
    own.get_mut("audit").expect("an answer")["access"] = access.json();
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_what_each_domain_answers() {
    let mut world = World::shared(1).await;
    let running = serve(&mut world, &names()).await;
    let user = "u/1";
    let address = json!({
        "profileId": "p-1", "addressId": "a-1", "addressType": "shipping", "isDefaultShipping": true, "isDefaultBilling": false,
        "country": "GB",
        "fullAddress": {"streetLine1": "5 Old Street", "city": "London", "postalCode": "EC1V 9HL", "country": "GB"},
    });
    let role = json!({"roleId": "r-1", "roleName": "editor", "assignedBy": "root"});
    let preferences = json!({"profileId": "p-1", "updatedFields": {"preferences": {"new": {"theme": "dark", "size": 1.5}}}});
    let records = [
        registered(user, "e-1", "ada@example.org"),
        event(user, "e-2", "UserAddressAdded", address),
        event(user, "e-3", "UserProfileUpdated", preferences),
        event(user, "e-4", "UserRoleAssigned", role),
        event(
            user,
            "e-5",
            "UserPasswordChanged",
            json!({"changeType": "reset"}),
        ),
        registered("other", "e-6", "other@example.org"),
    ];
    let ends = write(&world, &records).await;
    caught_up(&running.rest, &ends).await;

    let path = format!("/v1/users/{}", escape(user));
    let answer = running.rest.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("sightline-state"), "caught_up");
    let found = answer.json();
    assert_eq!(found["userId"], user);
    let own = own_reads(&running.rest, user).await;
    for domain in names() {
        let part = &found["domains"][domain];
        assert_eq!(part["data"], own[domain], "{domain}");
        assert_eq!(part["deadLetters"], json!([]), "{domain}");
        // Each is alone what it is among the others.
        let alone = running.rest.get(&format!("{path}?domains={domain}")).await;
        assert_eq!(alone.json()["domains"], json!({domain: part}), "{domain}");
        assert_eq!(alone.token(), part["token"], "{domain}");
    }
    let grpc = by_grpc(&running, user, &[]).await.expect("an answer");
    assert_eq!(grpc, counted(found));

    // Some of them, in any order.
    let several = format!("{path}?domains=search,order&domains=order");
    let several = running.rest.get(&several).await.json();
    let names: Vec<&String> = several["domains"]
        .as_object()
        .expect("domains")
        .keys()
        .collect();
    assert_eq!(names, ["order", "search"]);
    let grpc = by_grpc(&running, user, &["search", "order", "order"]).await;
    assert_eq!(grpc.expect("an answer"), counted(several));

    // Where one knows nothing, the others answer.
    let only_audit = running
        .rest
        .get("/v1/users/other?domains=personalization,audit")
        .await;
    assert_eq!(only_audit.status, 200, "{}", only_audit.text());
    assert!(only_audit.json()["domains"]["audit"]["data"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused() {
    let mut world = World::shared(1).await;
    let running = serve(&mut world, &["order", "audit"]).await;
    let ends = write(&world, &[registered("u-1", "e-1", "a@b.org")]).await;
    caught_up(&running.rest, &ends).await;
    for (path, status, expected) in [
        ("/v1/users/nobody", 404, "NOT_FOUND"),
        ("/v1/users/u-1?domains=billing", 404, "NOT_FOUND"),
        ("/v1/users/u-1?domains=order,", 404, "NOT_FOUND"),
        (
            "/v1/users/u-1?domains=order,search",
            404,
            "DOMAIN_NOT_SERVED",
        ),
        ("/v1/users/u-1?domain=order", 400, "INVALID_ARGUMENT"),
        ("/v1/users/%00", 400, "INVALID_ARGUMENT"),
    ] {
        let answer = running.rest.get(path).await;
        assert_eq!(reason(&answer), (status, expected.to_owned()), "{path}");
    }
    let nobody = running.rest.get("/v1/users/nobody").await;
    let position = ConsistencyToken::parse(nobody.token()).expect("a token");
    assert_eq!(
        position
            .iter()
            .map(|(_, _, offset)| offset)
            .collect::<Vec<_>>(),
        [1]
    );
    let unknown = running.rest.get("/v1/users/u-1?domains=billing").await;
    assert!(
        unknown.text().contains("/v1/consistency lists the domains"),
        "{}",
        unknown.text()
    );
    for (user, domains, code) in [
        ("nobody", &[][..], tonic::Code::NotFound),
        ("u-1", &["billing"], tonic::Code::NotFound),
        ("", &[], tonic::Code::InvalidArgument),
    ] {
        let refused = by_grpc(&running, user, domains)
            .await
            .expect_err("a refusal");
        assert_eq!(refused.code(), code, "{user} {domains:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_answer_holds_is_refused() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_MAX_VALUE_BYTES", "2000000");
    let running = serve(&mut world, &["fulfillment", "personalization"]).await;
    // As JSON each number takes two bytes, in a Struct more than ten.
    let numbers = json!(vec![1; 30_000]);
    let preferences = json!({"profileId": "p-1", "updatedFields": {"preferences": {"new": {"numbers": numbers}}}});
    let mut records = vec![
        event("numbers", "e-0", "UserProfileUpdated", preferences),
        registered("numbers", "e-1", "a@b.org"),
    ];
    for n in 0..7 {
        let user = if n < 3 { "numbers" } else { "texts" };
        let address = json!({
            "profileId": "p-1", "addressId": format!("a-{n}"), "addressType": "shipping", "isDefaultShipping": false,
            "isDefaultBilling": false, "country": "GB",
            "fullAddress": {"streetLine1": "1 Road", "country": "GB", "additionalNotes": "x".repeat(990_000)},
        });
        records.push(event(user, &format!("t-{n}"), "UserAddressAdded", address));
    }
    let ends = write(&world, &records).await;
    caught_up(&running.rest, &ends).await;

    let domains = "domains=fulfillment,personalization";
    let refused = running
        .rest
        .get(&format!("/v1/users/texts?{domains}"))
        .await;
    assert_eq!(reason(&refused), (400, "RESPONSE_TOO_LARGE".to_owned()));
    assert!(!refused.token().is_empty());
    let answer = running
        .rest
        .get(&format!("/v1/users/numbers?{domains}"))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for user in ["texts", "numbers"] {
        let refused = by_grpc(&running, user, &["fulfillment", "personalization"])
            .await
            .expect_err("a refusal");
        let details = refused.get_error_details();
        let reason = details.error_info().expect("a reason").reason.clone();
        assert_eq!(reason, "RESPONSE_TOO_LARGE", "{user}: {refused:?}");
    }
    // By itself, each domain's part is small enough.
    let preferences = by_grpc(&running, "numbers", &["personalization"]).await;
    assert!(preferences.is_ok(), "{preferences:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_missing_are_shown_with_the_user() {
    let mut world = World::shared(1).await;
    let running = serve(&mut world, &["order", "search", "audit"]).await;
    let mut records = vec![
        event("u-1", "bad", "UserRegistered", json!({"email": 5})),
        registered("u-2", "e-2", "b@b.org"),
    ];
    records.extend((0..120).map(|n| registered("u-1", &format!("late-{n}"), "a@b.org")));
    let ends = write(&world, &records).await;
    caught_up(&running.rest, &ends).await;

    let answer = running.rest.get("/v1/users/u-1?domains=order,search").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("sightline-incomplete"), "dead-letters");
    let found = answer.json();
    for domain in ["order", "search"] {
        let part = &found["domains"][domain];
        assert!(part.get("data").is_none(), "{part}");
        let letters = part["deadLetters"].as_array().expect("a list");
        let all = dead_letters(
            &running.rest,
            &[("domain", Some(domain)), ("key", Some("u-1"))],
        )
        .await;
        assert_eq!(all.len(), 121);
        assert_eq!(letters[..], all[..100], "{domain}");
        assert_eq!(part["hasMoreDeadLetters"], true);
        assert!(letters[0].get("value").is_none());
    }
    let grpc = by_grpc(&running, "u-1", &["order", "search"]).await;
    assert_eq!(grpc.expect("an answer"), counted(found));
    // They are of that user only.
    let other = running.rest.get("/v1/users/u-2").await;
    assert!(!other.headers.contains_key("sightline-incomplete"));
    assert_eq!(other.json()["domains"]["order"]["deadLetters"], json!([]));
}

/// The position of the only partition in a token.
fn position(token: &str) -> u64 {
    let token = ConsistencyToken::parse(token).expect("a token");
    token
        .iter()
        .map(|(_, _, offset)| offset)
        .next()
        .expect("a position")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parts_are_of_one_moment() {
    const DOMAINS: &str = "order,search,notification,audit";
    const USER: &str = "u-1";
    let mut world = World::shared(1).await;
    let running = serve(&mut world, &names()).await;
    let writer = world.broker.prompt_writer();
    let path = format!("/v1/users/{USER}?domains={DOMAINS}");
    let first = registered(USER, "e-0", "0@example.org");
    writer.write(&world.topic, &[first]).await;
    caught_up(&running.rest, &Ends::from([(0, 1)])).await;

    // The next record is written when all domains have the last one. So at no moment are two domains more than one record
    // apart, and parts that were read one after the other would be.
    let write = async {
        for n in 1..150 {
            let record = registered(USER, &format!("e-{n}"), &format!("{n}@example.org"));
            let offset = writer.write(&world.topic, &[record]).await[0];
            let token = format!("{}/0@{offset}", world.topic);
            let demand = [
                ("sightline-consistency", "at-least"),
                ("sightline-consistency-token", token.as_str()),
                ("sightline-wait", "10"),
            ];
            let answer = running.rest.send(Method::GET, &path, &demand, &[]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            // A wait is over when all parts have the record, and the token says so.
            assert_eq!(position(answer.token()), n + 1);
            for part in answer.json()["domains"]
                .as_object()
                .expect("domains")
                .values()
            {
                assert_eq!(position(part["token"].as_str().expect("a token")), n + 1);
            }
        }
    };
    let read = async {
        let mut last = 0;
        let mut seen = 0;
        while last < 150 {
            let answer = running.rest.get(&path).await;
            let body = answer.json();
            let parts = &body["domains"];
            let at = |domain: &str| position(parts[domain]["token"].as_str().expect("a token"));
            let positions = DOMAINS.split(',').map(at);
            let positions: Vec<u64> = positions.collect();
            let lowest = *positions.iter().min().expect("positions");
            assert!(positions.iter().all(|at| at - lowest <= 1), "{positions:?}");
            assert_eq!(position(answer.token()), lowest, "{positions:?}");
            assert!(lowest >= last, "{lowest} after {last}");
            last = lowest;
            // Each part is what its own token says.
            for domain in ["order", "search"] {
                let email = format!("{}@example.org", at(domain) - 1);
                assert_eq!(parts[domain]["data"]["email"], email, "{domain}");
            }
            let entries = parts["audit"]["data"]["entries"]
                .as_array()
                .expect("entries");
            assert_eq!(entries.len() as u64, at("audit"));
            seen += 1;
        }
        seen
    };
    let ((), seen) = tokio::join!(write, read);
    assert!(seen > 20, "{seen}");
}
