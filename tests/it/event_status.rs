//! What became of an event in each domain, and tokens that are compared and joined; the same on both surfaces.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sightline::proto::consistency::v1 as pb;
use sightline_testing::app::{Running, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::escape;
use sightline_testing::operations::project;

const ALL: &str = "order,fulfillment,search,personalization,analytics,notification,audit";

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
    world.set("SIGHTLINE_DOMAINS", ALL);
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
        let others = ALL.trim_start_matches("order,");
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
