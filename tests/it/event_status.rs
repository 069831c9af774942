//! What became of an event in each domain, and tokens that are compared and joined; the same on both surfaces.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use sightline::domains::names;
use sightline::proto::consistency::v1 as pb;
use sightline_testing::app::{Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::escape;
use sightline_testing::database::Database;
use sightline_testing::operations::project;
use sightline_testing::wait_until;

fn event(partition: i32, user: &str, id: &str, event_type: &str, mut payload: Value) -> Record {
    payload["userId"] = json!(user);
    let now = chrono::Utc::now();
    let body = json!({
        "eventId": id, "eventType": event_type, "eventTimestamp": now.to_rfc3339(), "payload": payload,
    });
    Record {
        partition,
        key: Some(user.into()),
        value: Some(body.to_string().into_bytes()),
        headers: Vec::new(),
        timestamp: now.timestamp_millis(),
    }
}

/// The statuses by domain, which are the same on both surfaces.
async fn statuses(running: &Running, id: &str) -> BTreeMap<String, Value> {
    let answer = running
        .rest
        .get(&format!("/v1/consistency/events/{}", escape(id)))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = pb::GetEventStatusRequest {
        event_id: id.to_owned(),
        ..pb::GetEventStatusRequest::default()
    };
    let same = running.grpc.consistency().get_event_status(request).await;
    let same = same.expect("it is known").into_inner().domains;
    let domains = answer.json()["domains"].as_array().expect("a list").clone();
    assert_eq!(domains.len(), same.len());
    for (by_rest, by_grpc) in domains.iter().zip(same) {
        let word = by_grpc.status().as_str_name();
        let word = word.trim_start_matches("EVENT_STATUS_").to_lowercase();
        assert_eq!(by_rest["status"], word);
        let place = (
            by_grpc.domain,
            by_grpc.topic,
            by_grpc.partition,
            by_grpc.offset,
        );
        let (domain, topic, partition, offset) = place;
        assert_eq!(by_rest["domain"], domain);
        assert_eq!(by_rest["topic"], topic);
        assert_eq!(by_rest["partition"], partition);
        assert_eq!(by_rest["offset"], offset);
    }
    let domains = domains.into_iter();
    domains
        .map(|domain| {
            (
                domain["domain"].as_str().expect("a name").to_owned(),
                domain,
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_domain_says_what_became_of_an_event() {
    let mut world = World::shared(2).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    let running = world.serve().await;
    let writer = world.broker.writer();
    let registered = event(
        1,
        "u",
        "registered/1",
        "UserRegistered",
        json!({"email": "a@b.org", "status": "active"}),
    );
    let login = json!({"loginMethod": "password", "ipAddress": "192.0.2.1"});
    let login = event(1, "u", "login", "UserLoggedIn", login);
    let bad = event(0, "v", "bad", "UserRegistered", json!({"email": 5}));
    let parked = event(
        0,
        "v",
        "behind",
        "UserRegistered",
        json!({"email": "v@b.org", "status": "active"}),
    );
    writer
        .write(&world.topic, &[registered, login, bad, parked])
        .await;
    caught_up(&running.rest, &Ends::from([(0, 2), (1, 2)])).await;

    for (domain, status) in statuses(&running, "registered/1").await {
        assert_eq!(status["status"], "applied", "{domain}");
        assert_eq!(status["topic"], world.topic, "{domain}");
        assert_eq!(
            (&status["partition"], &status["offset"]),
            (&json!(1), &json!(0)),
            "{domain}"
        );
    }
    let of_login = statuses(&running, "login").await;
    assert_eq!(of_login["order"]["status"], "skipped");
    assert_eq!(of_login["audit"]["status"], "applied");
    assert_eq!(of_login["order"]["offset"], 1);
    let of_bad = statuses(&running, "bad").await;
    assert_eq!(of_bad["order"]["status"], "dead_lettered");
    assert_eq!(
        statuses(&running, "behind").await["order"]["status"],
        "dead_lettered"
    );

    // One that is asked for, in two spellings.
    let some = running
        .rest
        .get("/v1/consistency/events/login?domains=audit,order")
        .await
        .json();
    let repeated = "/v1/consistency/events/login?domains=audit&domains=order";
    assert_eq!(running.rest.get(repeated).await.json(), some);
    assert_eq!(some["domains"].as_array().expect("a list").len(), 2);
    for (path, status) in [
        ("none", 404),
        ("login?domains=none", 404),
        ("login?waitSeconds=31", 400),
        ("login?waitSeconds=1.5", 400),
        ("login?domain=audit", 400),
    ] {
        let answer = running
            .rest
            .get(&format!("/v1/consistency/events/{path}"))
            .await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }

    // Pending, until the domain goes on; the wait ends then.
    project(&running.rest, "order", "pause", json!({"reason": "a test"})).await;
    let next = event(
        1,
        "w",
        "next",
        "UserRegistered",
        json!({"email": "w@b.org", "status": "active"}),
    );
    let waits = async {
        let others = names().into_iter().filter(|domain| *domain != "order");
        let others = others.collect::<Vec<_>>().join(",");
        let path = format!("/v1/consistency/events/next?domains={others}&waitSeconds=20");
        running.rest.get(&path).await
    };
    let records = [next];
    let (seen, _) = tokio::join!(waits, writer.write(&world.topic, &records));
    assert_eq!(
        seen.json()["domains"][0]["status"],
        "applied",
        "{}",
        seen.text()
    );
    assert_eq!(
        statuses(&running, "next").await["order"]["status"],
        "pending"
    );
    let began = Instant::now();
    let path = "/v1/consistency/events/next?domains=order&waitSeconds=1";
    let answer = running.rest.get(path).await;
    assert_eq!(answer.json()["domains"][0]["status"], "pending");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let path = "/v1/consistency/events/next?domains=order&waitSeconds=30";
    let (answer, _) = tokio::join!(
        running.rest.get(path),
        project(&running.rest, "order", "resume", json!({}))
    );
    assert_eq!(
        answer.json()["domains"][0]["status"],
        "applied",
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_compared_and_joined() {
    let world = World::shared(3).await;
    let running = world.serve().await;
    let record = event(2, "u", "one", "UserRegistered", json!({"email": "a@b.org"}));
    world.broker.writer().write(&world.topic, &[record]).await;
    caught_up(&running.rest, &Ends::from([(0, 0), (1, 0), (2, 1)])).await;
    let all = running
        .rest
        .get("/v1/order/address-changes")
        .await
        .token()
        .to_owned();
    let record = |partition, offset| format!("{}/{partition}@{offset}", world.topic);
    for (a, b, order) in [
        (record(2, 0), record(2, 0), "EQUAL"),
        (record(2, 0), record(2, 1), "BEFORE"),
        (record(2, 1), record(2, 0), "AFTER"),
        (record(1, 1), record(2, 1), "CONCURRENT"),
        (record(2, 0), "event:one".to_owned(), "EQUAL"),
        (all.clone(), record(2, 0), "EQUAL"),
        (all.clone(), record(2, 1), "BEFORE"),
        ("AQ".to_owned(), all.clone(), "BEFORE"),
    ] {
        let body = json!({"a": a, "b": b});
        let answer = running
            .rest
            .post("/v1/consistency/tokens:compare", &body)
            .await;
        assert_eq!(answer.json()["order"], order, "{body}: {}", answer.text());
        let request = pb::CompareTokensRequest { a, b };
        let same = running.grpc.consistency().compare_tokens(request).await;
        let same = same.expect("they are tokens").into_inner().order();
        assert_eq!(same.as_str_name(), format!("TOKEN_ORDER_{order}"));
    }
    let tokens = vec![record(1, 4), record(2, 7), record(1, 2)];
    let body = json!({"tokens": tokens});
    let joined = running
        .rest
        .post("/v1/consistency/tokens:join", &body)
        .await
        .json();
    let joined = joined["token"].as_str().expect("a token");
    let same = running
        .grpc
        .consistency()
        .join_tokens(pb::JoinTokensRequest { tokens })
        .await;
    assert_eq!(same.expect("they are tokens").into_inner().token, joined);
    for (other, order) in [
        (record(1, 4), "AFTER"),
        (record(0, 9), "CONCURRENT"),
        (record(2, 8), "CONCURRENT"),
    ] {
        let body = json!({"a": joined, "b": other});
        let answer = running
            .rest
            .post("/v1/consistency/tokens:compare", &body)
            .await;
        assert_eq!(answer.json()["order"], order, "{other}");
    }
    let foreign = "AQt1c2VyLmV2ZW50cwF_h7Fx0Fk2lwED1fgC".to_owned();
    for (bad, problem) in [
        (foreign, "topic that this gateway does not project"),
        (
            "event:none".to_owned(),
            "no domain of this gateway has seen",
        ),
        (record(7, 1), "partition that its topic does not have"),
        ("%".to_owned(), "neither a token"),
    ] {
        let body = json!({"tokens": [record(1, 1), bad]});
        let answer = running
            .rest
            .post("/v1/consistency/tokens:join", &body)
            .await;
        assert_eq!(answer.status, 400);
        let field = &answer.json()["fields"][0];
        assert_eq!(field["field"], "tokens[1]");
        assert!(answer.text().contains(problem), "{}", answer.text());
    }
    let none = running
        .rest
        .post("/v1/consistency/tokens:join", &json!({"tokens": []}))
        .await;
    assert_eq!(none.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_a_topic_that_is_gone_is_not_waited_for() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    world.set("SIGHTLINE_DOMAINS", "order,search");
    let running = world.serve().await;
    let rest = &running.rest;
    let writer = world.broker.writer();
    project(rest, "search", "pause", json!({"reason": "a test"})).await;
    let payload = json!({"email": "a@b.org", "status": "active"});
    let first = event(0, "u", "first", "UserRegistered", payload);
    writer
        .write(&world.topic, std::slice::from_ref(&first))
        .await;
    let applied = "/v1/consistency/events/first?domains=order&waitSeconds=20";
    let applied = rest.get(applied).await;
    assert_eq!(applied.json()["domains"][0]["status"], "applied");
    assert_eq!(
        statuses(&running, "first").await["search"]["status"],
        "pending"
    );
    let token = rest.get("/v1/order/customers/u").await.token().to_owned();

    world.broker.delete_topic(&world.topic).await;
    world.broker.create_topic(&world.topic, 1).await;
    let mut second = first;
    second.value = event(0, "v", "second", "UserRegistered", json!({})).value;
    writer.write(&world.topic, &[second]).await;
    for domain in ["order", "search"] {
        wait_until(SOON, "the topic is found to be another one", async || {
            let answer = rest.get(&format!("/v1/consistency/{domain}")).await;
            match answer.json()["partitions"][0]["failure"].as_str() {
                Some("topic_recreated") => Ok(()),
                _ => Err(answer.text()),
            }
        })
        .await;
        project(rest, domain, "resume", json!({"acceptLoss": true})).await;
    }
    caught_up(rest, &Ends::from([(0, 1)])).await;

    let of_first = statuses(&running, "first").await;
    assert_eq!(of_first["order"]["status"], "applied");
    assert_eq!(of_first["search"]["status"], "skipped");
    let search = async |token: &str| {
        let demand = [
            ("sightline-consistency", "at-least"),
            ("sightline-consistency-token", token),
        ];
        rest.send(Method::GET, "/v1/search/users?q=a", &demand, &[])
            .await
    };
    let found = search("event:first").await;
    assert_eq!(found.status, 200, "{}", found.text());
    let outdated = search(&token).await;
    assert_eq!(outdated.status, 400);
    assert!(
        outdated.text().contains("is outdated"),
        "{}",
        outdated.text()
    );
    for old in ["event:first", &token] {
        let body = json!({"a": old, "b": "event:second"});
        let refused = rest.post("/v1/consistency/tokens:compare", &body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("is outdated"), "{}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wait_for_events_that_are_not_produced_yet() {
    const COUNT: usize = 500;
    let mut world = World::shared(2).await;
    world.set("SIGHTLINE_DOMAINS", "order,audit");
    let running = world.serve().await;
    let registered = |n: usize| {
        let payload = json!({"email": format!("{n}@b.org"), "status": "active"});
        let (user, id) = (format!("u-{n}"), format!("e-{n}"));
        event((n % 2) as i32, &user, &id, "UserRegistered", payload)
    };
    let reads = (0..COUNT).map(|n| {
        let rest = &running.rest;
        async move {
            let token = format!("event:e-{n}");
            let demand = [
                ("sightline-consistency", "at-least"),
                ("sightline-consistency-token", token.as_str()),
                ("sightline-wait", "25"),
                ("request-timeout", "60"),
            ];
            let path = format!("/v1/order/customers/u-{n}");
            let answer = rest.send(Method::GET, &path, &demand, &[]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["email"], format!("{n}@b.org"));
        }
    });
    let write = async {
        let writer = world.broker.writer();
        for n in 0..COUNT {
            writer.write(&world.topic, &[registered(n)]).await;
        }
    };
    tokio::join!(join_all(reads), write);
}
