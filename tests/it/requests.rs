//! Odd, wrong and hostile requests, and the headers and errors of their answers.

use std::collections::BTreeMap;

use http::Method;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use sightline::proto::consistency::v1::GetConsistencyRequest;
use sightline::proto::order::v1::{BatchGetCustomersRequest, GetCustomerRequest};
use sightline_testing::app::{Clients, DOMAINS, Running, SOON, Shared, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Depth, Ends, assert_answers, caught_up, folded};
use sightline_testing::client::{Answer, Rest, customer_json, customer_path, escape};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::odd_ids;
use sightline_testing::wait_until;
use sqlx::Connection;
use tokio_stream::StreamExt;
use tonic_types::StatusExt;

/// Gauges of what is counted from time to time, each with a domain that has it.
const COUNTED: [(&str, &str); 4] = [
    ("sightline_dead_letters_expiring", "order"),
    ("sightline_stalled_versions", "order"),
    ("sightline_queue_ready", "notification"),
    ("sightline_queue_oldest_seconds", "notification"),
];
const GET_CUSTOMER: &str = "/sightline.order.v1.OrderService/GetCustomer";

fn registered(user: &str, event: usize, email: &str) -> Record {
    let value = json!({
        "specversion": "1.0", "type": "com.example.UserRegistered.v1", "id": format!("event-{event}"),
        "source": "test", "time": "2026-10-01T12:00:00+02:00",
        "data": {"userId": user, "email": email, "status": "active"},
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000 + event as i64,
    }
}

/// A process that has projected these users.
async fn with_users(world: &World, users: &[String]) -> Running {
    let log: Vec<Record> = users
        .iter()
        .enumerate()
        .map(|(n, user)| registered(user, n, "a@example.com"))
        .collect();
    let (_, ends) = folded(&log, 1);
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_ids_are_read_by_path_query_body_and_grpc() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    let ids = odd_ids();
    let log: Vec<Record> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| registered(id, n, "a@example.com"))
        .collect();
    let (fold, _) = folded(&log, 1);
    let running = with_users(&world, &ids).await;
    assert_answers(&running, &fold, Depth::Thorough).await;
    // Users whose answers by path can't be compared.
    let dots = [".", ".."].map(|id| registered(id, log.len() + id.len(), "a@example.com"));
    world.broker.writer().write(&world.topic, &dots).await;
    let ends = Ends::from([(0, (log.len() + dots.len()) as i64)]);
    caught_up(&running.rest, &ends).await;

    // Escaped as little as possible, in lower case, or everywhere: the id is the same.
    for path in ["a%2fb%2fc", "a%2Fb%2Fc", "%61%2F%62%2F%63"] {
        assert_eq!(
            running
                .rest
                .get(&format!("/v1/order/customers/{path}"))
                .await
                .json()["userId"],
            "a/b/c"
        );
    }
    for (path, id) in [
        ("a+b", "a+b"),
        ("%252F", "%2F"),
        ("~user@example.com", "~user@example.com"),
        ("a%20b", "a b"),
    ] {
        assert_eq!(
            running
                .rest
                .get(&format!("/v1/order/customers/{path}"))
                .await
                .json()["userId"],
            *id
        );
    }
    // Ids that HTTP clients change in paths.
    let answer = running
        .rest
        .get("/v1/order/customers:batchGet?userIds=.&userIds=..")
        .await
        .json();
    let found: Vec<&Value> = answer["customers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| &c["userId"])
        .collect();
    assert_eq!(found, [".", ".."]);
    let request = GetCustomerRequest {
        user_id: "..".into(),
    };
    let customer = running
        .grpc
        .order()
        .get_customer(request)
        .await
        .expect("known")
        .into_inner()
        .customer;
    assert_eq!(customer_json(customer.expect("a customer"))["userId"], "..");
}

/// Asserts that an answer is a complete and consistent problem without internals.
pub fn assert_problem(what: &str, answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let media = answer
        .header("content-type")
        .split(';')
        .next()
        .unwrap_or_default();
    assert_eq!(media, "application/problem+json", "{what}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{what}: {problem}");
    for name in ["type", "title", "detail", "reason"] {
        assert!(
            problem[name].as_str().is_some_and(|text| !text.is_empty()),
            "{what} without {name}: {problem}"
        );
    }
    let reason = problem["reason"].as_str().expect("text");
    assert!(
        reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'),
        "{what}: {reason}"
    );
    let text = answer.text().to_lowercase();
    for inside in [
        "sqlx", "serde", "select ", "panicked", "src/", ".rs", "axum", "column", "postgres",
    ] {
        assert!(
            !text.contains(inside),
            "{what} exposes internals: {problem}"
        );
    }
    problem
}

pub fn assert_field(what: &str, problem: &Value, field: &str) {
    let fields = problem["fields"].as_array().cloned().unwrap_or_default();
    let named = fields.iter().any(|f| {
        f["field"]
            .as_str()
            .is_some_and(|name| name.to_lowercase().starts_with(&field.to_lowercase()))
    });
    assert!(named, "{what} does not name {field}: {problem}");
    assert!(
        fields
            .iter()
            .all(|f| f["problem"].as_str().is_some_and(|p| !p.is_empty())),
        "{what}: {problem}"
    );
}

/// A process without users, which tests of requests share.
pub async fn empty() -> Clients {
    static SHARED: Shared = Shared::const_new();
    let start = async || {
        let mut world = World::shared(1).await;
        world.set("SIGHTLINE_DOMAINS", "all");
        let running = world.serve().await;
        wait_until(SOON, "the empty views are ready", async || {
            for path in [
                customer_path("nobody").as_str(),
                "/v1/fulfillment/addresses/none",
            ] {
                let answer = running.rest.try_get(path).await?;
                if answer.status != 404 {
                    return Err(answer.text());
                }
            }
            Ok(())
        })
        .await;
        (world, running)
    };
    SHARED.clients(start).await
}

const BATCH: &str = "/v1/order/customers:batchGet";

#[tokio::test(flavor = "multi_thread")]
async fn bad_ids_in_paths_are_refused() {
    let rest = empty().await.rest;
    let long = "x".repeat(256);
    let long_wide = escape(&"\u{1f980}".repeat(256));
    for id in [
        "%00",
        "a%00b",
        "%ff",
        "%c3%28",
        "%ed%a0%80",
        &long,
        &long_wide,
    ] {
        let problem = assert_problem(
            id,
            &rest.get(&format!("/v1/order/customers/{id}")).await,
            400,
        );
        assert_field(id, &problem, "userId");
        assert!(
            !problem.to_string().contains(&long),
            "the problem repeats the request"
        );
    }
    let longest = escape(&"\u{1f980}".repeat(255));
    assert_problem(
        "255",
        &rest.get(&format!("/v1/order/customers/{longest}")).await,
        404,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_batches_in_queries_are_refused() {
    let rest = empty().await.rest;
    let long = "x".repeat(256);
    let query = |n: usize| {
        (0..n)
            .map(|n| format!("userIds=u{n}"))
            .collect::<Vec<_>>()
            .join("&")
    };
    for bad in [
        String::new(),
        query(101),
        "userIds=".into(),
        "userIds=a&userIds=%00".into(),
        format!("userIds={long}"),
    ] {
        let problem = assert_problem(&bad, &rest.get(&format!("{BATCH}?{bad}")).await, 400);
        assert_field(&bad, &problem, "userIds");
    }
    assert_problem(
        "bad UTF-8",
        &rest.get(&format!("{BATCH}?userIds=%ff")).await,
        400,
    );
    let most = rest.get(&format!("{BATCH}?{}", query(100))).await;
    assert_eq!(
        (most.status, most.json()["missing"].as_array().map(Vec::len)),
        (200, Some(100))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_batches_in_bodies_are_refused() {
    let rest = empty().await.rest;
    let long = "x".repeat(256);
    let ids = |n: usize| json!({"userIds": (0..n).map(|n| format!("u{n}")).collect::<Vec<_>>()});
    for bad in [
        ids(0),
        ids(1001),
        json!({}),
        json!({"userIds": "a"}),
        json!({"userIds": null}),
        json!({"userIds": [5]}),
        json!({"userIds": [""]}),
        json!({"userIds": ["a", "\0"]}),
        json!({"userIds": [long]}),
    ] {
        let problem = assert_problem(&bad.to_string(), &rest.post(BATCH, &bad).await, 400);
        assert_field(&bad.to_string(), &problem, "userIds");
    }
    let most = rest.post(BATCH, &ids(1000)).await;
    assert_eq!(
        (most.status, most.json()["missing"].as_array().map(Vec::len)),
        (200, Some(1000))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_and_media_types_are_refused() {
    let rest = empty().await.rest;
    let json_type = [("content-type", "application/json")];
    for bad in [
        &b""[..],
        b"{",
        b"[]",
        b"\"text\"",
        b"{\"userIds\": [\"\xff\"]}",
        &[b'['; 50_000],
    ] {
        assert_problem(
            "a bad body",
            &rest.send(Method::POST, BATCH, &json_type, bad).await,
            400,
        );
    }
    let good = br#"{"userIds": ["a"]}"#;
    for media in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
    ] {
        assert_problem(
            "a wrong media type",
            &rest.send(Method::POST, BATCH, media, good).await,
            415,
        );
    }
    let charset = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(
        rest.send(Method::POST, BATCH, &charset, good).await.status,
        200
    );
    let large = vec![b' '; 16 << 20];
    assert_problem(
        "a large body",
        &rest.send(Method::POST, BATCH, &json_type, &large).await,
        413,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_and_unknown_paths_are_refused() {
    let rest = empty().await.rest;
    for (method, path) in [
        (Method::DELETE, "/v1/order/customers/a"),
        (Method::POST, "/v1/order/customers/a"),
        (Method::PUT, BATCH),
        (Method::POST, "/v1/consistency"),
    ] {
        let answer = rest
            .send(
                method,
                path,
                &[("content-type", "application/json")],
                br#"{"userIds": ["a"]}"#,
            )
            .await;
        assert_problem(path, &answer, 405);
        assert!(answer.header("allow").contains("GET"), "{path}: {answer:?}");
    }
    for path in [
        "/v1",
        "/v2/order/customers/a",
        "/v1/order/customers",
        "/v1/order/customers/",
        "/v1/order/customers/a/b",
        "/v1/order/customers:other",
        "/v1/consistency/unheard",
        "/metrics",
        "/livez",
        "/sightline.order.v1.OrderService/GetCustomer",
        "/%ff",
        "/..%2f..%2fetc%2fpasswd",
    ] {
        assert_problem(path, &rest.get(path).await, 404);
    }
}

/// What is wrong with the rest of a call says nothing to a caller whose path or method is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_and_unknown_paths_are_refused_before_the_rest_of_the_call() {
    let rest = empty().await.rest;
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
        &[
            ("content-type", "application/json"),
            ("sightline-consistency", "latest"),
        ],
        &[("sightline-consistency", "nonsense")],
    ] {
        for (path, allowed) in [
            ("/v1/order/customers/u-1", "GET"),
            ("/v1/order/customers/u-1?unknown=1", "GET"),
            ("/v1/consistency", "GET"),
            ("/openapi.json", "GET"),
            ("/docs/", "GET"),
        ] {
            let what = format!("POST {path} {headers:?}");
            let answer = rest.send(Method::POST, path, headers, b"x").await;
            let problem = assert_problem(&what, &answer, 405);
            assert_eq!(problem["reason"], "METHOD_NOT_ALLOWED", "{what}");
            assert!(answer.header("allow").contains(allowed), "{what}");
        }
        for path in ["/v1/nowhere", "/v1/order/customers/u-1/nowhere", "/v1/"] {
            for method in [Method::GET, Method::POST] {
                let what = format!("{method} {path} {headers:?}");
                let answer = rest.send(method, path, headers, b"x").await;
                let problem = assert_problem(&what, &answer, 404);
                assert_eq!(problem["reason"], "UNKNOWN_PATH", "{what}");
            }
        }
    }
    let demand = [("sightline-consistency", "latest")];
    let answer = rest
        .send(Method::DELETE, "/v1/order/customers/u-1", &demand, &[])
        .await;
    assert_problem("DELETE", &answer, 405);
}

/// A page of another site can send a POST, but not as JSON: this is what protects a gateway on loopback.
#[tokio::test(flavor = "multi_thread")]
async fn every_post_is_refused_unless_it_is_json() {
    let rest = empty().await.rest;
    let document = rest.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    let posts: Vec<String> = paths
        .iter()
        .filter(|(_, item)| item["post"].is_object())
        .map(|(path, _)| path.replace("{domain}", "order").replace("{id}", "a"))
        .collect();
    assert!(posts.len() >= 11, "{posts:?}");
    for path in posts {
        for headers in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "multipart/form-data; boundary=x")],
        ] {
            let what = format!("{path} {headers:?}");
            let answer = rest.send(Method::POST, &path, headers, b"{}").await;
            let problem = assert_problem(&what, &answer, 415);
            assert_eq!(problem["reason"], "UNSUPPORTED_MEDIA_TYPE", "{what}");
        }
        let encoded = [
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ];
        let answer = rest.send(Method::POST, &path, &encoded, b"{}").await;
        assert_problem(&path, &answer, 415);
        assert_eq!(answer.header("accept-encoding"), "identity", "{path}");
        let foreign = [
            ("content-type", "application/json"),
            ("host", "evil.example"),
        ];
        let answer = rest.send(Method::POST, &path, &foreign, b"{}").await;
        assert_problem(&path, &answer, 403);
    }
    let projections = rest.get("/v1/projections").await.json();
    let versions = projections["projections"][0]["versions"].as_array();
    assert_eq!(versions.map(Vec::len), Some(1), "{projections}");
}

/// A filter that is misspelled would answer more than was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_parameters_of_reads_are_refused() {
    let rest = empty().await.rest;
    for (path, field) in [
        ("/v1/order/customers/a?unknown=1", "unknown"),
        ("/v1/order/customers/a?unknown=%ff", "unknown"),
        (
            "/v1/order/customers/a/addresses?asof=2026-10-01T00:00:00Z",
            "asof",
        ),
        (
            "/v1/order/customers:batchGet?userIds=a&userids=b",
            "userids",
        ),
        ("/v1/order/address-changes?userid=a", "userid"),
        (
            "/v1/order/address-changes?userId=a&page_size=5",
            "page_size",
        ),
        ("/v1/fulfillment/users/a/addresses?asOf=&x", "x"),
        ("/v1/fulfillment/addresses/a?kind=billing", "kind"),
        ("/v1/fulfillment/addresses?country=DE", "country"),
        ("/v1/consistency?domain=order", "domain"),
        ("/v1/consistency/order?wait=1", "wait"),
        ("/v1/dead-letters?Domain=order", "Domain"),
        ("/v1/dead-letters/a?domain=order", "domain"),
        ("/v1/projections?domain=order", "domain"),
        ("/v1/version?v=1", "v"),
    ] {
        let problem = assert_problem(path, &rest.get(path).await, 400);
        assert_eq!(problem["fields"][0]["field"], field, "{path}");
        let head = rest.send(Method::HEAD, path, &[], &[]).await;
        assert_eq!(head.status, 400, "{path}");
    }
    // An escaped name is the same name, and an empty query has none.
    for path in [
        "/v1/fulfillment/users/a/addresses?",
        "/v1/fulfillment/users/a/addresses?as%4Ff=2026-10-01T00:00:00Z",
    ] {
        assert_problem(path, &rest.get(path).await, 404);
    }
    // The page of the documentation is not a read of a view.
    for path in ["/docs/?tryItOutEnabled=true", "/openapi.json?v=2"] {
        assert_eq!(rest.get(path).await.status, 200, "{path}");
    }
}

/// The refusal of an unknown name lists the names that are known.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_are_refused_with_those_that_are_known() {
    let rest = empty().await.rest;
    for (path, field, taken) in [
        (
            "/v1/fulfillment/addresses?countrycode=TR",
            "countrycode",
            "countryCode, validation, pageSize, pageToken",
        ),
        (
            "/v1/order/address-changes?userid=a",
            "userid",
            "userId, significant, since, after, pageSize, pageToken",
        ),
        ("/v1/order/customers:batchGet?ids=a", "ids", "userIds"),
        ("/v1/order/customers/a/addresses?asof=x", "asof", "asOf"),
        (
            "/v1/fulfillment/users/a/default-address?type=billing",
            "type",
            "kind, asOf",
        ),
        ("/v1/order/customers/a?asof=x", "asof", "none"),
        // Another operation of the domain has userId.
        ("/v1/order/customers:batchGet?userId=a", "userId", "userIds"),
        ("/v1/consistency?domain=order", "domain", "none"),
    ] {
        let problem = assert_problem(path, &rest.get(path).await, 400);
        let sentence = format!("is not a parameter of this operation; it takes {taken}");
        let violation = json!({"field": field, "problem": sentence});
        assert_eq!(problem["fields"], json!([violation]), "{path}");
        let detail = format!("{field} {sentence}.");
        assert_eq!(problem["detail"], detail, "{path}");
    }
    // Where another operation of the domain takes the parameter, it is named.
    for (path, field, sentence) in [
        (
            "/v1/order/customers/a?asOf=x",
            "asOf",
            "is a parameter of /v1/order/customers/{userId}/addresses, not of this operation; this one takes none",
        ),
        (
            "/v1/fulfillment/users/a/addresses?kind=billing",
            "kind",
            "is a parameter of /v1/fulfillment/users/{userId}/default-address, not of this operation; this one takes asOf",
        ),
        (
            "/v1/dead-letters/a?domain=order",
            "domain",
            "is a parameter of /v1/dead-letters, not of this operation; this one takes none",
        ),
    ] {
        let problem = assert_problem(path, &rest.get(path).await, 400);
        let violation = json!({"field": field, "problem": sentence});
        assert_eq!(problem["fields"], json!([violation]), "{path}");
    }
    for (path, body, taken) in [
        (BATCH, json!({"ids": ["a"]}), "userIds"),
        (
            "/v1/dead-letters:retry",
            json!({"ids": 1}),
            "domain, key, keyBase64, reason, dryRun, pageToken",
        ),
        (
            "/v1/projections/order/resume",
            json!({"ids": true}),
            "acceptLoss, acceptOlderCode",
        ),
        ("/v1/projections/order/drop", json!({"ids": 1}), "none"),
    ] {
        let problem = assert_problem(path, &rest.post(path, &body).await, 400);
        let sentence = format!("is not a field of this body; it takes {taken}");
        let violation = json!({"field": "ids", "problem": sentence});
        assert_eq!(problem["fields"], json!([violation]), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_hosts_and_origins_are_refused() {
    let rest = empty().await.rest;
    // Without authentication, only loopback hosts are served, and no other origins are allowed.
    let answer = rest
        .send(
            Method::GET,
            "/v1/order/customers/a",
            &[("host", "evil.example")],
            &[],
        )
        .await;
    assert_problem("a foreign host", &answer, 403);
    let answer = rest
        .send(
            Method::GET,
            "/v1/order/customers/a",
            &[("origin", "https://evil.example")],
            &[],
        )
        .await;
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control-"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_token_etag_and_request_id() {
    let world = World::shared(1).await;
    let running = with_users(&world, &["u".into(), "v".into()]).await;
    let rest = &running.rest;
    assert_conditional_reads(rest).await;
    assert_tokens_over_grpc(&running).await;
    assert_changes_are_seen(&world, rest).await;
    assert_request_ids(rest).await;
}

/// ETags, and conditions on them.
async fn assert_conditional_reads(rest: &Rest) {
    let batch = "/v1/order/customers:batchGet?userIds=u&userIds=nobody";
    for path in ["/v1/order/customers/u", batch] {
        let answer = rest.get(path).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, "private, no-cache"),
            "{path}"
        );
        let etag = answer.header("etag").to_owned();
        assert!(
            etag.starts_with("W/\"") && etag.ends_with('"') && etag.len() > 8,
            "{etag}"
        );
        assert!(!answer.token().is_empty() && answer.token().len() <= 4096);
        for condition in [
            etag.clone(),
            format!("\"other\", {etag}"),
            "*".into(),
            etag.replace("W/", ""),
        ] {
            let same = rest
                .send(Method::GET, path, &[("if-none-match", &condition)], &[])
                .await;
            assert_eq!(
                (same.status, same.body.len()),
                (304, 0),
                "{path} {condition}"
            );
            assert_eq!(
                (same.header("etag"), same.token()),
                (etag.as_str(), answer.token()),
                "{path} {condition}"
            );
        }
        let other = rest
            .send(Method::GET, path, &[("if-none-match", "W/\"other\"")], &[])
            .await;
        assert_eq!(
            (other.status, other.body.clone()),
            (200, answer.body.clone())
        );
    }
    let missing = rest.get("/v1/order/customers/nobody").await;
    assert!(missing.status == 404 && !missing.token().is_empty());
}

/// gRPC's trailers carry the same token.
async fn assert_tokens_over_grpc(clients: &Clients) {
    let rest = &clients.rest;
    let token = rest.get("/v1/order/customers/u").await.token().to_owned();
    let message = GetCustomerRequest {
        user_id: "u".into(),
    }
    .encode_to_vec();
    let (status, answer) = clients.raw_grpc.raw_grpc(GET_CUSTOMER, &[], &message).await;
    assert_eq!(
        (
            status,
            answer
                .trailers
                .get("sightline-consistency-token")
                .map(|t| t.to_str().unwrap())
        ),
        (0, Some(&*token))
    );
    let unknown = clients
        .grpc
        .order()
        .get_customer(GetCustomerRequest {
            user_id: "nobody".into(),
        })
        .await
        .unwrap_err();
    assert!(
        unknown
            .metadata()
            .get("sightline-consistency-token")
            .is_some()
    );
}

/// A change of the row changes ETag and token.
async fn assert_changes_are_seen(world: &World, rest: &Rest) {
    let before = rest.get("/v1/order/customers/u").await;
    world
        .broker
        .writer()
        .write(&world.topic, &[registered("u", 77, "b@example.com")])
        .await;
    let condition = [("if-none-match", before.header("etag"))];
    let after = wait_until(SOON, "the change is visible", async || {
        match rest
            .send(Method::GET, "/v1/order/customers/u", &condition, &[])
            .await
        {
            answer if answer.status == 200 => Ok(answer),
            answer => Err(answer.status.to_string()),
        }
    })
    .await;
    assert_eq!(after.json()["email"], "b@example.com");
    assert!(after.header("etag") != before.header("etag") && after.token() != before.token());
}

/// The answer repeats the request's id, or has a generated one.
async fn assert_request_ids(rest: &Rest) {
    let answer = rest
        .send(
            Method::GET,
            "/v1/order/customers/u",
            &[("x-request-id", "mine-1")],
            &[],
        )
        .await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert!(
        !rest
            .get("/v1/order/customers/nobody")
            .await
            .header("x-request-id")
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_speak_http2_and_compress() {
    let clients = empty().await;
    let http2 = Rest::http2(clients.rest.address.clone());
    assert_eq!(http2.get("/v1/consistency").await.status, 200);
    for (accepted, used) in [("gzip", "gzip"), ("zstd", "zstd")] {
        let answer = clients
            .rest
            .send(
                Method::GET,
                "/openapi.json",
                &[("accept-encoding", accepted)],
                &[],
            )
            .await;
        assert_eq!(
            (answer.status, answer.header("content-encoding")),
            (200, used)
        );
    }
    assert_eq!(
        clients
            .rest
            .get("/openapi.json")
            .await
            .header("content-encoding"),
        ""
    );
}

/// A request of HTTP/1.1 on the port of gRPC is answered, and its connection closed.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_grpc_tells_http1_where_rest_is() {
    let clients = empty().await;
    let http1 = Rest::new(clients.raw_grpc.address.clone());
    for (method, path) in [
        (Method::GET, "/v1/order/customers/a"),
        (Method::POST, GET_CUSTOMER),
    ] {
        let answer = http1.send(method, path, &[], b"{}").await;
        assert_eq!(answer.status, 505, "{path}");
        assert_eq!(answer.header("connection"), "close");
        let text = answer.text();
        assert!(
            text.contains("HTTP/2") && text.contains("SIGHTLINE_HTTP_ADDR"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ids_over_grpc_name_the_field() {
    let clients = empty().await;
    let mut order = clients.grpc.order();
    for (what, id) in [
        ("empty", String::new()),
        ("long", "x".repeat(256)),
        ("NUL", "a\0b".into()),
    ] {
        let status = order
            .get_customer(GetCustomerRequest { user_id: id })
            .await
            .unwrap_err();
        assert_eq!(
            status.code(),
            tonic::Code::InvalidArgument,
            "{what}: {status:?}"
        );
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().map(|info| info.reason.as_str()),
            Some("INVALID_ARGUMENT"),
            "{what}"
        );
        let violations = &details.bad_request().expect("violations").field_violations;
        assert!(
            violations
                .iter()
                .all(|v| v.field.replace('_', "").to_lowercase() == "userid"),
            "{violations:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_batches_over_grpc_name_the_field() {
    let clients = empty().await;
    let mut order = clients.grpc.order();
    for user_ids in [
        vec![],
        vec!["u".to_owned(); 1001],
        vec!["u".to_owned(), String::new()],
    ] {
        let status = order
            .batch_get_customers(BatchGetCustomersRequest { user_ids })
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert!(
            status
                .get_error_details()
                .bad_request()
                .is_some_and(|bad| !bad.field_violations.is_empty())
        );
    }
}

/// REST names a field as JSON does, gRPC as the protos do, in the sentence as well.
#[tokio::test(flavor = "multi_thread")]
async fn each_surface_names_fields_in_its_own_way() {
    let clients = empty().await;
    let pool = DescriptorPool::decode(sightline::proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let order = "sightline.order.v1.OrderService";
    let fulfillment = "sightline.fulfillment.v1.FulfillmentService";
    let operations = "sightline.operations.v1.OperationsService";
    for (service, method, request, field) in [
        (order, "GetCustomer", json!({}), "user_id"),
        (order, "BatchGetCustomers", json!({}), "user_ids"),
        (
            order,
            "BatchGetCustomers",
            json!({"userIds": ["u", ""]}),
            "user_ids[1]",
        ),
        (
            order,
            "ListCustomerAddresses",
            json!({"userId": "u", "asOf": "2999-01-01T00:00:00Z"}),
            "as_of",
        ),
        (
            order,
            "ListAddressChanges",
            json!({"pageSize": -1}),
            "page_size",
        ),
        (
            order,
            "ListAddressChanges",
            json!({"pageToken": "x"}),
            "page_token",
        ),
        (order, "ListAddressChanges", json!({"after": "x"}), "after"),
        (
            fulfillment,
            "SearchAddresses",
            json!({"countryCode": "USA"}),
            "country_code",
        ),
        (fulfillment, "GetAddress", json!({}), "address_id"),
        (
            "sightline.search.v1.SearchService",
            "SearchUsers",
            json!({"pageToken": "x"}),
            "page_token",
        ),
        (
            fulfillment,
            "GetDefaultAddress",
            json!({"userId": "u"}),
            "kind",
        ),
        (operations, "PauseProjection", json!({}), "domain"),
        (operations, "DropProjection", json!({}), "domain"),
        (
            operations,
            "RetryDeadLetters",
            json!({"id": "a", "keyBytes": "YQ=="}),
            "key_bytes",
        ),
        (
            operations,
            "ListDeadLetters",
            json!({"key": "a", "keyBytes": "YQ=="}),
            "key_bytes",
        ),
    ] {
        let what = format!("{method} {request}");
        let descriptor = pool.get_service_by_name(service).expect("a service");
        let descriptor = descriptor.methods().find(|known| known.name() == method);
        let input = descriptor.expect("a method").input();
        let name = field.split('[').next().expect("a name");
        assert!(
            input.get_field_by_name(name).is_some(),
            "{what} has no {name}"
        );
        let message = DynamicMessage::deserialize(input, request).expect("a request");
        let path = format!("/{service}/{method}");
        let message = message.encode_to_vec();
        let (_, answer) = clients.raw_grpc.raw_grpc(&path, &[], &message).await;
        let status = tonic::Status::from_header_map(&answer.headers).expect("a status");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{what}");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("violations").field_violations;
        let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, [field], "{what}");
        let sentence = format!("{field} {}.", violations[0].description);
        assert_eq!(status.message(), sentence, "{what}");
    }
    for (path, sentence) in [
        (
            "/v1/fulfillment/addresses?countryCode=USA",
            "countryCode must be ",
        ),
        (
            "/v1/order/address-changes?pageToken=x",
            "pageToken is not a token of this list.",
        ),
        (
            "/v1/fulfillment/users/u/default-address?kind=",
            "kind must be shipping or billing.",
        ),
        (
            "/v1/order/customers:batchGet?userIds=u&userIds=",
            "userIds[1] must not be empty.",
        ),
    ] {
        let problem = assert_problem(path, &clients.rest.get(path).await, 400);
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.starts_with(sentence), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_users_and_domains_are_not_found_over_grpc() {
    let clients = empty().await;
    let mut order = clients.grpc.order();
    let status = order
        .get_customer(GetCustomerRequest {
            user_id: "nobody".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(
        status
            .get_error_details()
            .error_info()
            .map(|info| info.reason.clone()),
        Some("NOT_FOUND".into())
    );
    let request = GetConsistencyRequest {
        domain: Some("unheard".into()),
    };
    let status = clients
        .grpc
        .consistency()
        .get_consistency(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_and_unknown_methods_are_refused_over_grpc() {
    let clients = empty().await;
    // Messages that are not protobuf or not UTF-8, and unknown methods. The process stays alive.
    for (path, message, codes) in [
        (GET_CUSTOMER, &b"\xff\xff\xff"[..], &[3, 13][..]),
        (GET_CUSTOMER, b"\x0a\x02\xff\xfe", &[3, 13]),
        ("/sightline.order.v1.OrderService/Nothing", b"", &[12]),
        ("/sightline.nothing.v1.Nothing/Nothing", b"", &[12]),
    ] {
        let (status, answer) = clients.raw_grpc.raw_grpc(path, &[], message).await;
        assert!(
            codes.contains(&status),
            "{path} {message:?}: {status} {answer:?}"
        );
    }
    assert_eq!(clients.admin.get("/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_and_health_answer() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let clients = empty().await;
    let services = [
        "sightline.order.v1.OrderService",
        "sightline.fulfillment.v1.FulfillmentService",
        "sightline.search.v1.SearchService",
        "sightline.consistency.v1.ConsistencyService",
    ];
    let mut health = HealthClient::new(clients.grpc.channel.clone());
    for service in [&[""][..], &services].concat() {
        let answer = health
            .check(HealthCheckRequest {
                service: service.into(),
            })
            .await
            .expect(service);
        assert_eq!(
            answer.into_inner().status(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    let unknown = health
        .check(HealthCheckRequest {
            service: "unheard".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    let mut reflection = ServerReflectionClient::new(clients.grpc.channel.clone());
    let ask = |message| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let mut questions = vec![ask(MessageRequest::ListServices(String::new()))];
    questions
        .extend(services.map(|service| ask(MessageRequest::FileContainingSymbol(service.into()))));
    let answers = reflection
        .server_reflection_info(tokio_stream::iter(questions))
        .await
        .expect("answers");
    let answers: Vec<_> = answers
        .into_inner()
        .map(|answer| answer.expect("an answer").message_response)
        .collect()
        .await;
    let Some(MessageResponse::ListServicesResponse(listed)) = &answers[0] else {
        panic!("{answers:?}")
    };
    for service in services {
        assert!(
            listed.service.iter().any(|listed| listed.name == service),
            "{service} in {listed:?}"
        );
    }
    for answer in &answers[1..] {
        assert!(
            matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))),
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_kept_while_the_database_hangs() {
    let world = World::shared(1).await;
    let running = with_users(&world, &["u".into()]).await;
    // Another session locks every table.
    let mut session = sqlx::PgConnection::connect(&world.database.url)
        .await
        .expect("a connection");
    let lock = "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
        LOOP EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', t); END LOOP; END $$";
    let mut transaction = session.begin().await.expect("a transaction");
    sqlx::query(lock)
        .execute(&mut *transaction)
        .await
        .expect("locked");

    let path = customer_path("u");
    let answer = running
        .rest
        .send(Method::GET, &path, &[("request-timeout", "1")], &[])
        .await;
    let problem = assert_problem("Request-Timeout", &answer, 504);
    assert_eq!(problem["reason"], "DEADLINE_EXCEEDED");
    let message = GetCustomerRequest {
        user_id: "u".into(),
    }
    .encode_to_vec();
    let (status, answer) = running
        .raw_grpc
        .raw_grpc(GET_CUSTOMER, &[("grpc-timeout", "700m")], &message)
        .await;
    assert_eq!(status, 4, "{answer:?}");
    for bad in ["soon", "-1", "0", "1e9", ""] {
        let answer = running
            .rest
            .send(Method::GET, &path, &[("request-timeout", bad)], &[])
            .await;
        assert_field(bad, &assert_problem(bad, &answer, 400), "Request-Timeout");
    }

    transaction.rollback().await.expect("released");
    assert_eq!(
        running
            .rest
            .send(Method::GET, &path, &[("request-timeout", "20")], &[])
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_have_a_port_of_their_own() {
    let world = World::shared(1).await;
    let log = [
        registered("secret-user@example.com", 0, "a@example.com"),
        Record::cloud_event(0, "u", "e", "SecretType", json!({"userId": "u"})),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 2)])).await;
    running
        .rest
        .get(&customer_path("secret-user@example.com"))
        .await;
    assert_eq!(running.admin.get("/livez").await.status, 200);
    assert_eq!(running.admin.get("/readyz").await.status, 200);
    let names = [
        "sightline_records_total",
        "sightline_requests_total",
        "sightline_lag_records",
        "sightline_ready 1",
        "sightline_unknown_type_records_total{domain=\"order\"} 1",
        "sightline_unknown_type_records_total{domain=\"fulfillment\"} 1",
    ];
    let text = wait_until(SOON, "all kinds of metrics are present", async || {
        let metrics = running.admin.try_get("/metrics").await?;
        assert_eq!(metrics.status, 200);
        assert!(
            metrics.header("content-type").starts_with("text/plain"),
            "{metrics:?}"
        );
        let text = metrics.text();
        match names.iter().find(|name| !text.contains(**name)) {
            None => Ok(text),
            Some(name) => Err(format!("no {name} in {text}")),
        }
    })
    .await;
    for leak in [
        "secret-user",
        "customers/secret",
        "a@example.com",
        "SecretType",
    ] {
        assert!(!text.contains(leak), "{leak} in the metrics");
        assert!(
            !running.app.process.output.text().contains(leak),
            "{leak} in the log"
        );
    }
    // The database has the names that the metric lacks, by the documented statement.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let statement = page.split("```sql\n").find_map(|rest| {
        rest.split(";\n```")
            .next()
            .filter(|sql| sql.contains("unknown_types"))
    });
    let statement = format!(
        "SELECT domain, event_type, records::bigint FROM ({}) AS documented ORDER BY domain",
        statement.expect("the statement")
    );
    let mut database = sqlx::PgConnection::connect(&world.database.url)
        .await
        .expect("the database");
    let named: Vec<(String, String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .fetch_all(&mut database)
        .await
        .expect("names");
    let mut domains = DOMAINS;
    domains.sort_unstable();
    let name = |domain: &str| (domain.to_owned(), "SecretType".to_owned(), 1);
    let expected: Vec<_> = domains.into_iter().map(name).collect();
    assert_eq!(named, expected);
    for path in ["/v1/consistency", "/openapi.json", "/v1/order/customers/a"] {
        assert_eq!(
            running.admin.get(path).await.status,
            404,
            "{path} on the admin port"
        );
    }
}

/// The rules of docs/alerts.yml name metrics that a process exports before anything has gone wrong: of a counter that appears
/// with its first count Prometheus sees no increase.
#[tokio::test(flavor = "multi_thread")]
async fn each_metric_of_the_alerts_is_exported_from_the_start() {
    let admin = empty().await.admin;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.yml");
    let rules = std::fs::read_to_string(rules).expect("the rules");
    let expressions: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(expressions.len(), rules.matches("- alert: ").count());
    assert!(expressions.len() >= 8, "{expressions:?}");
    for expression in expressions {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let at = expression.find("sightline_").expect("a metric");
        let end = expression[at..].find(|c| !is_name(c)).map(|end| at + end);
        let end = end.unwrap_or(expression.len());
        let (name, rest) = (&expression[at..end], &expression[end..]);
        // The labels that it selects by: {outcome="failed"}.
        let selected = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split('}').next());
        let grouped = expression
            .split("by (")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let grouped: Vec<&str> = grouped.flat_map(|labels| labels.split(", ")).collect();
        wait_until(SOON, expression, async || {
            let metrics = admin.try_get("/metrics").await?.text();
            let series = metrics.lines().find(|line| {
                let labels = line.strip_prefix(name);
                labels.is_some_and(|labels| {
                    labels.starts_with(['{', ' '])
                        && labels.contains(selected.unwrap_or_default())
                        && grouped
                            .iter()
                            .all(|label| labels.contains(&format!("{label}=\"")))
                })
            });
            series.map(drop).ok_or(metrics)
        })
        .await;
    }
}

/// Without Postgres, reads answer 503 with Retry-After, and lag is the last known one.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_reads_answer_503_and_lag_is_the_last_known() {
    let broker = sightline_testing::broker::Broker::shared();
    let mut world = World::new(broker, Database::private().await, 1).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    let running = with_users(&world, &["u".into()]).await;
    counted(&running).await;
    world.database.kill().await;
    wait_until(
        SOON,
        "not ready without the database",
        async || match running.admin.try_get("/readyz").await?.status {
            503 => Ok(()),
            status => Err(status.to_string()),
        },
    )
    .await;
    // Each read waits for a connection until its deadline, so all are sent at once.
    let reads = [
        "/v1/order/customers/u",
        "/v1/order/customers:batchGet?userIds=u",
        "/v1/order/customers/u/addresses",
        "/v1/order/customers/u/addresses?asOf=2026-10-01T12:00:00Z",
        "/v1/order/address-changes",
        "/v1/fulfillment/users/u/addresses",
        "/v1/fulfillment/users/u/default-address?kind=billing",
        "/v1/fulfillment/addresses/a",
        "/v1/fulfillment/addresses?validation=invalid",
        "/v1/search/users?q=a",
        "/v1/search/suggestions?q=a",
    ]
    .map(async |path| {
        let answer = running.rest.get(path).await;
        let problem = assert_problem(path, &answer, 503);
        assert_eq!(problem["reason"], "DATABASE_UNAVAILABLE");
        assert!(
            answer
                .header("retry-after")
                .parse::<u32>()
                .is_ok_and(|seconds| seconds > 0),
            "{answer:?}"
        );
    });
    futures_util::future::join_all(reads).await;
    let status = running
        .grpc
        .order()
        .get_customer(GetCustomerRequest {
            user_id: "u".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.get_error_details().retry_info().is_some());
    let domain = wait_until(SOON, "lag is the last known one", async || {
        let answer = running.rest.try_get("/v1/consistency/order").await?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        let domain = answer.json();
        if domain["asOf"].is_string() || domain["domains"][0]["asOf"].is_string() {
            Ok(domain)
        } else {
            Err(domain.to_string())
        }
    })
    .await;
    // No gauge keeps a last value.
    wait_until(SOON, "the gauges say that nothing is known", async || {
        let metrics = running.admin.try_get("/metrics").await?.text();
        let wrong = metrics.lines().find(|line| {
            let is_of_partition = line.starts_with("sightline_") && line.contains("partition=");
            let is_counted = COUNTED.iter().any(|(gauge, _)| line.starts_with(gauge));
            (is_of_partition || is_counted) && !line.ends_with(" NaN")
        });
        match wrong {
            Some(line) => Err(line.to_owned()),
            None if metrics.contains("sightline_ready 0") => Ok(()),
            None => Err(metrics),
        }
    })
    .await;
    let positions: BTreeMap<i32, Value> = sightline_testing::check::partitions(&domain);
    assert_eq!(positions[&0]["position"], 1, "{domain}");
    assert!(domain["state"] != "caught_up", "{domain}");
    world.database.start().await;
    wait_until(SOON, "reads work again", async || {
        match running.rest.try_get("/v1/order/customers/u").await?.status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    wait_until(SOON, "the gauges have values again", async || {
        let metrics = running.admin.try_get("/metrics").await?.text();
        let position = format!(
            "sightline_position{{domain=\"order\",topic=\"{}\",partition=\"0\"}} 1\n",
            world.topic
        );
        if metrics.contains(&position) && metrics.contains("sightline_ready 1") {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    counted(&running).await;
}

/// Waits until the gauges of what is counted every ten minutes have values.
async fn counted(running: &Running) {
    wait_until(SOON, "the counts", async || {
        let metrics = running.admin.try_get("/metrics").await?.text();
        let has_value = |(gauge, domain): &(&str, &str)| {
            metrics.contains(&format!("{gauge}{{domain=\"{domain}\"}} 0\n"))
        };
        if COUNTED.iter().all(has_value) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
}
