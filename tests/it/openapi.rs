//! The OpenAPI document: it equals the committed one, is complete, is served with its pages, and says what the API sends.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use http::Method;
use serde_json::{Map, Value, json};
use sightline_testing::app::{SOON, World, finish, sightline};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{caught_up, folded};
use sightline_testing::client::{Answer, Rest, escape};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::wait_until;

/// The committed document.
fn committed() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    std::fs::read_to_string(file).expect("the committed document")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_committed_document_is_up_to_date() {
    let output = finish(sightline(&["openapi"])).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        printed == committed(),
        "openapi/openapi.json is out of date: make openapi"
    );
}

#[test]
fn every_operation_is_documented() {
    let document: Value = serde_json::from_str(&committed()).expect("JSON");
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let name = format!("{method} {path}");
            operations += 1;
            assert!(
                operation["summary"].as_str().is_some_and(|s| !s.is_empty()),
                "{name} has no summary"
            );
            assert!(operation["operationId"].is_string(), "{name} has no id");
            let responses = operation["responses"].as_object().expect("responses");
            let is_batch = path.ends_with(":batchGet");
            let is_unbounded = [
                "/v1/analytics/daily",
                "/v1/analytics/retention",
                "/v1/audit/users/{userId}/access",
                "/v1/audit/roles/{roleId}",
                "/v1/users/{userId}",
            ]
            .contains(&path.as_str());
            let bad_request = &responses["400"]["content"]["application/problem+json"]["examples"];
            assert_eq!(
                bad_request["RESPONSE_TOO_LARGE"].is_object(),
                is_batch || is_unbounded,
                "{name}"
            );
            for (status, response) in responses {
                assert_response(&document, &format!("{name} {status}"), status, response);
            }
            let is_of = |domain: &str| path.starts_with(&format!("/v1/{domain}/"));
            if sightline::domains::names().into_iter().any(is_of) {
                for status in ["400", "503", "504"] {
                    assert!(
                        responses.contains_key(status),
                        "{name} does not document {status}"
                    );
                }
            }
        }
    }
    assert!(operations >= 11, "{operations} operations");
    for path in [
        "/v1/order/customers/{userId}",
        "/v1/order/customers:batchGet",
        "/v1/order/customers/{userId}/addresses",
        "/v1/order/address-changes",
        "/v1/order/address-changes:watch",
        "/v1/fulfillment/addresses:watch",
        "/v1/fulfillment/users/{userId}/addresses",
        "/v1/fulfillment/users/{userId}/default-address",
        "/v1/fulfillment/addresses/{addressId}",
        "/v1/fulfillment/addresses",
        "/v1/notification/notifications",
        "/v1/notification/notifications/{notificationId}",
        "/v1/notification/notifications:lease",
        "/v1/notification/notifications:ack",
        "/v1/notification/notifications:fail",
        "/v1/notification/notifications/{notificationId}/ack",
        "/v1/notification/notifications/{notificationId}/fail",
        "/v1/notification/notifications/{notificationId}/extend",
        "/v1/search/users",
        "/v1/search/suggestions",
        "/v1/personalization/users/{userId}",
        "/v1/personalization/segments",
        "/v1/analytics/daily",
        "/v1/analytics/funnel",
        "/v1/analytics/retention",
        "/v1/analytics/users/{userId}/activity",
        "/v1/audit/entries",
        "/v1/audit/entries:verify",
        "/v1/audit/alerts",
        "/v1/audit/users/{userId}/access",
        "/v1/audit/roles/{roleId}",
        "/v1/consistency",
        "/v1/consistency/{domain}",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path} is missing");
    }
}

/// Asserts that a response shows an example, or that an error is a problem document.
fn assert_response(document: &Value, name: &str, status: &str, response: &Value) {
    // Shared responses are under components.
    let response = match response["$ref"].as_str() {
        Some(name) => document.pointer(&name[1..]).expect("what it refers to"),
        None => response,
    };
    let content = &response["content"];
    if status.starts_with('2') {
        let examples = content
            .as_object()
            .into_iter()
            .flat_map(|types| types.values());
        let shown = examples
            .into_iter()
            .any(|t| t.get("example").or(t.get("examples")).is_some());
        assert!(shown, "{name} shows no example");
    } else if status.starts_with('4') || status.starts_with('5') {
        assert!(
            content.get("application/problem+json").is_some(),
            "{name} is not a problem document"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_its_pages_use_no_other_host() {
    let clients = crate::requests::empty().await;
    let served = clients.rest.get("/openapi.json").await;
    assert_eq!(
        (
            served.status,
            served.header("content-type").split(';').next()
        ),
        (200, Some("application/json"))
    );
    let committed: Value = serde_json::from_str(&committed()).expect("JSON");
    assert_eq!(served.json()["paths"], committed["paths"]);

    let mut path = "/docs".to_owned();
    let page = loop {
        let answer = clients.rest.get(&path).await;
        match answer.status {
            200 => break answer,
            // Relative to the present path.
            301 | 302 | 303 | 307 | 308 => path = format!("/{}", answer.header("location")),
            status => panic!("{path}: {status}"),
        }
    };
    let html = page.text();
    assert!(
        html.contains("<html") || html.contains("<!DOCTYPE"),
        "{html}"
    );
    // Every script and style is served by the program.
    let mut assets = 0;
    for attribute in ["src=\"", "href=\""] {
        for (at, _) in html.match_indices(attribute) {
            let asset = &html[at + attribute.len()..];
            let asset = &asset[..asset.find('"').expect("a closing quote")];
            if asset.starts_with("data:") || asset.starts_with("../") {
                continue;
            }
            assert!(!asset.contains("//"), "{asset} is from another host");
            let base = &path[..=path.rfind('/').expect("a slash")];
            let from_root = asset.starts_with('/');
            let full = if from_root {
                asset.to_owned()
            } else {
                format!("{base}{}", asset.trim_start_matches("./"))
            };
            let answer = clients.rest.get(&full).await;
            assert_eq!(answer.status, 200, "{full}");
            assets += 1;
            let small_script = full.ends_with(".js") && answer.body.len() < 10_000;
            if small_script {
                assert!(
                    !answer.text().contains("https://"),
                    "{full} names another host"
                );
            }
        }
    }
    assert!(assets >= 2, "{assets} assets: {html}");
    assert!(
        !html.contains("https://"),
        "the page names another host: {html}"
    );
}

/// The document's schemas, with which answers are compared.
struct Contract {
    document: Value,
    /// The operations that have answered, with the statuses.
    answered: BTreeMap<String, BTreeSet<u16>>,
    /// By schema: how many objects answers had, and in how many of them each property was.
    seen: BTreeMap<String, (usize, BTreeMap<String, usize>)>,
}

impl Contract {
    fn new() -> Self {
        let mut document: Value = serde_json::from_str(&committed()).expect("JSON");
        // A property that is not documented is refused, so that nothing is sent in addition.
        let schemas = document["components"]["schemas"].as_object_mut();
        for schema in schemas.expect("schemas").values_mut() {
            if schema["type"] == "object" {
                schema["additionalProperties"] = json!(false);
            }
        }
        Self {
            document,
            answered: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// What a reference leads to.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).expect(reference),
            None => value,
        }
    }

    fn assert_valid(&self, what: &str, schema: &Value, value: &Value) {
        let mut schema = schema.clone();
        // A reference may stand beside other keywords, but they leave out what it refers to.
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let problems: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{what}: {problems:?}: {value}");
    }

    /// Counts the properties of the objects in a value.
    fn count(&mut self, schema: &Value, value: &Value) {
        if let Value::Array(items) = value {
            for item in items {
                self.count(&schema["items"], item);
            }
            return;
        }
        let Value::Object(object) = value else { return };
        // Any JSON, such as the value of a changed field.
        if schema["$ref"].is_null() && schema["type"].is_null() {
            return;
        }
        // All other objects are components.
        if !schema["additionalProperties"].is_null() {
            return;
        }
        let name = schema["$ref"].as_str().expect("a component");
        let name = name.rsplit('/').next().expect("a name").to_owned();
        let properties = self.resolved(schema)["properties"].clone();
        let (objects, counts) = self.seen.entry(name).or_default();
        *objects += 1;
        for property in object.keys() {
            *counts.entry(property.clone()).or_default() += 1;
        }
        for (property, value) in object {
            self.count(&properties[property], value);
        }
    }

    /// Compares an answer with what the document says of it.
    fn check(&mut self, method: &Method, template: &str, answer: &Answer) {
        let status = answer.status;
        let what = format!("{method} {template} {status}: {}", answer.text());
        let operation = &self.document["paths"][template][method.as_str().to_lowercase()];
        let response = &operation["responses"][status.to_string()];
        assert!(response.is_object(), "not documented: {what}");
        let response = self.resolved(response).clone();
        for name in answer.headers.keys().map(http::HeaderName::as_str) {
            let counts = name.starts_with("sightline-") || ["etag", "retry-after"].contains(&name);
            let documented = response["headers"].as_object();
            let is_documented = documented
                .is_some_and(|headers| headers.keys().any(|h| h.eq_ignore_ascii_case(name)));
            assert!(!counts || is_documented, "header {name} of {what}");
        }
        if status != 304 {
            let media_type = answer.header("content-type");
            let schema = &response["content"][media_type]["schema"];
            assert!(schema.is_object(), "{media_type} of {what}");
            self.assert_valid(&what, schema, &answer.json());
            self.count(schema, &answer.json());
        }
        let answered = self.answered.entry(format!("{method} {template}"));
        answered.or_default().insert(status);
    }

    async fn get(&mut self, rest: &Rest, template: &str, path: &str) -> Answer {
        let answer = rest.get(path).await;
        self.check(&Method::GET, template, &answer);
        answer
    }

    /// Opens a stream of events, which has no end to wait for. Its first event stands for the body.
    async fn watch(&mut self, rest: &Rest, template: &str) {
        let mut events = rest.watch(template, &[]).await.expect("a stream");
        let first = events.next().await.expect("an event");
        let answer = Answer {
            status: 200,
            headers: events.headers.clone(),
            body: json!(first.event).to_string().into(),
            trailers: http::HeaderMap::new(),
        };
        self.check(&Method::GET, template, &answer);
    }

    async fn post(&mut self, rest: &Rest, template: &str, path: &str, body: Value) -> Answer {
        let answer = rest.post(path, &body).await;
        self.check(&Method::POST, template, &answer);
        answer
    }

    /// Every schema of the document, with its place.
    fn schemas(&self) -> Vec<(String, &Value)> {
        fn walk<'a>(place: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
            let children: Vec<(String, &Value)> = match value {
                Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
                Value::Array(list) => list
                    .iter()
                    .enumerate()
                    .map(|(n, v)| (n.to_string(), v))
                    .collect(),
                _ => return,
            };
            for (key, child) in children {
                let place = format!("{place}/{key}");
                match key.as_str() {
                    "example" | "examples" => {}
                    "schema" => found.push((place, child)),
                    _ => walk(&place, child, found),
                }
            }
        }
        let mut found = Vec::new();
        walk("", &self.document, &mut found);
        let components = self.document["components"]["schemas"].as_object();
        found.extend(
            components
                .expect("schemas")
                .iter()
                .map(|(k, v)| (k.clone(), v)),
        );
        found
    }
}

#[test]
fn the_document_says_absent_and_not_null() {
    let contract = Contract::new();
    let schemas = contract.schemas();
    assert!(schemas.len() > 100, "{}", schemas.len());
    for (place, schema) in schemas {
        let text = schema.to_string();
        assert!(!text.contains(r#""null""#), "{place} may be null: {text}");
        assert!(!text.contains(r#""default":null"#), "{place}: {text}");
    }
    assert_eq!(contract.document["security"], json!([]));
    assert_eq!(contract.document["servers"], json!([{"url": "."}]));
    let parameters = contract.document["paths"]
        .as_object()
        .expect("paths")
        .values();
    let operations = parameters.flat_map(|item| item.as_object().expect("operations").values());
    let mut times = 0;
    for parameter in operations.flat_map(|o| o["parameters"].as_array().expect("parameters")) {
        let parameter = contract.resolved(parameter);
        let name = &parameter["name"];
        let is_required = parameter["required"] == true;
        // Pages fill examples in, and would send them with each call that is tried.
        assert_eq!(parameter["example"].is_null(), !is_required, "{name}");
        if parameter["schema"]["format"] == "date-time" {
            let description = parameter["description"].as_str().expect("a description");
            let example = description.split("such as `").nth(1);
            let example = example.and_then(|rest| rest.split('`').next());
            let example = example.expect("an example of a time");
            assert!(
                chrono::DateTime::parse_from_rfc3339(example).is_ok(),
                "{name}: {example}"
            );
            times += 1;
        }
        if name == "domain" {
            let schema = contract.resolved(&parameter["schema"]);
            assert_eq!(schema["enum"], json!(sightline::domains::names()));
        }
    }
    assert!(times >= 5, "{times} times");
}

/// Callers must take fields that they do not know. Requests with such fields are refused.
#[test]
fn only_requests_refuse_further_fields() {
    let document: Value = serde_json::from_str(&committed()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let body = "/post/requestBody/content/application~1json/schema/$ref";
    let requests: BTreeSet<&str> = paths
        .values()
        .filter_map(|item| item.pointer(body)?.as_str()?.rsplit('/').next())
        .collect();
    assert!(requests.len() >= 7, "{requests:?}");
    let schemas = document["components"]["schemas"].as_object();
    for (name, schema) in schemas.expect("schemas") {
        let is_closed = schema["additionalProperties"] == false;
        assert_eq!(is_closed, requests.contains(name.as_str()), "{name}");
    }
}

#[test]
fn every_example_fits_its_schema() {
    fn walk(contract: &Contract, place: &str, value: &Value, found: &mut usize) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .map(|(n, v)| (n.to_string(), v))
                .collect(),
            _ => return,
        };
        let named = value["examples"].as_object();
        let named = named
            .into_iter()
            .flat_map(Map::values)
            .map(|example| &example["value"]);
        for example in value.get("example").into_iter().chain(named) {
            contract.assert_valid(place, &value["schema"], example);
            *found += 1;
        }
        for (key, child) in children {
            if !["example", "examples"].contains(&key.as_str()) {
                walk(contract, &format!("{place}/{key}"), child, found);
            }
        }
    }
    let contract = Contract::new();
    let mut found = 0;
    walk(&contract, "", &contract.document, &mut found);
    assert!(found > 60, "{found}");
}

/// Properties that all answers of the test have, and that are absent elsewhere: values of headers that have none,
/// figures for which Kafka has to answer, and what a notification has while it can be leased.
const ABSENT_ELSEWHERE: &[(&str, &str)] = &[
    ("DeadLetterHeader", "value"),
    ("HeldRole", "roleName"),
    ("LeasedNotification", "data"),
    ("LeasedNotification", "recipient"),
    ("PartitionConsistency", "endOffset"),
    ("PartitionConsistency", "endReadAgeSeconds"),
    ("PartitionConsistency", "etaSeconds"),
    ("PartitionConsistency", "lag"),
    ("PartitionConsistency", "oldestUnappliedSeconds"),
    ("PartitionConsistency", "rate"),
    ("ProjectionVersion", "lag"),
    ("ProjectionVersion", "progress"),
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_document_says() {
    const SHAPE: Shape = Shape {
        records: 3_000,
        partitions: 2,
        users: 120,
    };
    let mut log = generate(seed() + 21, SHAPE);
    log.extend((0..4).map(registered_now));
    log.extend(audited());
    let (_, ends) = folded(&log, SHAPE.partitions);
    let mut world = World::new(Broker::shared(), Database::create().await, SHAPE.partitions).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    caught_up(rest, &ends).await;
    let mut contract = Contract::new();

    let keys = log
        .iter()
        .filter_map(|record| String::from_utf8(record.key.clone()?).ok());
    let users: BTreeSet<String> = keys
        .filter(|user| (1..=255).contains(&user.chars().count()) && user != "." && user != "..")
        .collect();
    for user in &users {
        let user = escape(user);
        for (template, path) in [
            (
                "/v1/order/customers/{userId}",
                format!("/v1/order/customers/{user}"),
            ),
            (
                "/v1/order/customers/{userId}/addresses",
                format!("/v1/order/customers/{user}/addresses"),
            ),
            (
                "/v1/fulfillment/users/{userId}/addresses",
                format!("/v1/fulfillment/users/{user}/addresses"),
            ),
            (
                "/v1/fulfillment/users/{userId}/default-address",
                format!("/v1/fulfillment/users/{user}/default-address?kind=shipping"),
            ),
            ("/v1/users/{userId}", format!("/v1/users/{user}")),
            (
                "/v1/personalization/users/{userId}",
                format!("/v1/personalization/users/{user}"),
            ),
            (
                "/v1/analytics/users/{userId}/activity",
                format!("/v1/analytics/users/{user}/activity"),
            ),
        ] {
            contract.get(rest, template, &path).await;
        }
    }
    let batch = "/v1/order/customers:batchGet";
    let some: Vec<&String> = users.iter().take(20).collect();
    contract
        .get(
            rest,
            batch,
            &format!("{batch}?userIds=nobody&userIds={}", escape(some[0])),
        )
        .await;
    contract
        .post(rest, batch, batch, json!({"userIds": some}))
        .await;
    contract
        .post(rest, batch, batch, json!({"userIds": [""]}))
        .await;
    let changes = "/v1/order/address-changes";
    contract.get(rest, changes, changes).await;
    contract
        .get(rest, changes, &format!("{changes}?pageSize=1000"))
        .await;
    let last = format!("{changes}?userId=nobody");
    contract.get(rest, changes, &last).await;
    for watched in [
        "/v1/order/address-changes:watch",
        "/v1/fulfillment/addresses:watch",
    ] {
        contract.watch(rest, watched).await;
    }
    let found = "/v1/fulfillment/addresses";
    let page = contract
        .get(rest, found, &format!("{found}?pageSize=1000"))
        .await
        .json();
    contract
        .get(rest, found, &format!("{found}?pageSize=1"))
        .await;
    let address = page["addresses"][0]["addressId"]
        .as_str()
        .expect("an address");
    let one = "/v1/fulfillment/addresses/{addressId}";
    contract
        .get(rest, one, &format!("{found}/{}", escape(address)))
        .await;
    contract.get(rest, one, &format!("{found}/nothing")).await;
    let search = "/v1/search/users";
    for query in [
        "",
        "?pageSize=1",
        "?q=user&pageSize=1000",
        "?q=nobody",
        "?q=",
    ] {
        contract
            .get(rest, search, &format!("{search}{query}"))
            .await;
    }
    let suggestions = "/v1/search/suggestions";
    for query in ["?q=user&limit=50", "?q=nobody", ""] {
        contract
            .get(rest, suggestions, &format!("{suggestions}{query}"))
            .await;
    }
    let segments = "/v1/personalization/segments";
    for query in [
        "countryCode=DE&pageSize=1",
        "countryCode=DE&city=nowhere",
        "",
    ] {
        let path = format!("{segments}?{query}");
        contract.get(rest, segments, &path).await;
    }
    for path in ["daily", "funnel", "retention"] {
        let path = format!("/v1/analytics/{path}");
        for query in [
            "?from=2025-01-01&to=2026-12-31",
            "?from=1999-01-01&to=1999-01-02",
            "?from=2026-01-01&to=2025-01-01",
            "",
        ] {
            contract.get(rest, &path, &format!("{path}{query}")).await;
        }
    }
    let days = "/v1/analytics/daily";
    for metric in ["logins", "deletions"] {
        let path = format!("{days}?from=2026-01-01&to=2026-01-02&metrics={metric}");
        contract.get(rest, days, &path).await;
    }

    for (template, path) in [
        ("/v1/audit/entries", "/v1/audit/entries?pageSize=1000"),
        ("/v1/audit/entries", "/v1/audit/entries?userId=nobody"),
        ("/v1/audit/entries", "/v1/audit/entries?category=none"),
        ("/v1/audit/alerts", "/v1/audit/alerts?pageSize=1"),
        ("/v1/audit/alerts", "/v1/audit/alerts?key=audited"),
        (
            "/v1/audit/users/{userId}/access",
            "/v1/audit/users/audited/access",
        ),
        (
            "/v1/audit/users/{userId}/access",
            "/v1/audit/users/nothing/access",
        ),
        ("/v1/audit/roles/{roleId}", "/v1/audit/roles/audited"),
        (
            "/v1/audit/roles/{roleId}",
            "/v1/audit/roles/audited?asOf=2000-01-01T00:00:00Z",
        ),
        ("/v1/audit/roles/{roleId}", "/v1/audit/roles/ended"),
        ("/v1/audit/roles/{roleId}", "/v1/audit/roles/nothing"),
    ] {
        contract.get(rest, template, path).await;
    }
    let verify = "/v1/audit/entries:verify";
    for body in [json!({}), json!({"expectedHead": "nothing"})] {
        contract.post(rest, verify, verify, body).await;
    }

    let users = "/v1/users/{userId}";
    for path in [
        "/v1/users/audited",
        "/v1/users/audited?domains=order,audit",
        "/v1/users/nothing",
        "/v1/users/u-1001?domains=nothing",
    ] {
        contract.get(rest, users, path).await;
    }

    for (template, path) in [
        ("/v1/version", "/v1/version"),
        ("/v1/consistency", "/v1/consistency"),
        ("/v1/consistency/{domain}", "/v1/consistency/order"),
        ("/v1/consistency/{domain}", "/v1/consistency/nothing"),
        (
            "/v1/consistency/events/{eventId}",
            "/v1/consistency/events/newcomer-0",
        ),
        (
            "/v1/consistency/events/{eventId}",
            "/v1/consistency/events/nothing",
        ),
        ("/v1/projections", "/v1/projections"),
    ] {
        contract.get(rest, template, path).await;
    }
    let (compare, join) = (
        "/v1/consistency/tokens:compare",
        "/v1/consistency/tokens:join",
    );
    for token in ["AQ", "nothing"] {
        contract
            .post(rest, compare, compare, json!({"a": token, "b": "AQ"}))
            .await;
        contract
            .post(rest, join, join, json!({"tokens": [token]}))
            .await;
    }
    // An unknown parameter is refused by each of them.
    let gets: Vec<String> = contract.answered.keys().cloned().collect();
    for template in gets
        .iter()
        .filter_map(|operation| operation.strip_prefix("GET "))
    {
        let path = template
            .replace("{domain}", "order")
            .replace(['{', '}'], "");
        contract
            .get(rest, template, &format!("{path}?nonsense=1"))
            .await;
    }
    work_on_notifications(&mut contract, rest).await;
    operate_dead_letters(&mut contract, rest).await;
    operate_projections(&mut contract, rest).await;

    let paths = contract.document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("operations").keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    for operation in operations {
        let statuses = contract.answered.get(&operation);
        let is_answered = statuses.is_some_and(|statuses| statuses.contains(&200));
        assert!(is_answered, "{operation} was not answered: {statuses:?}");
    }
    let mut wrong = Vec::new();
    for (name, (objects, counts)) in &contract.seen {
        let schema = &contract.document["components"]["schemas"][name];
        let required = schema["required"].as_array();
        for (property, count) in counts.iter().filter(|(_, count)| *count == objects) {
            let is_required = required.is_some_and(|names| names.contains(&json!(property)));
            if !is_required && !ABSENT_ELSEWHERE.contains(&(name, property)) {
                wrong.push(format!("{name}.{property} came {count} times"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "always there, but not required: {wrong:?}"
    );
}

/// What the audit domain has of each kind: roles with permissions and holders, alerts, changes, and a type that nobody knows.
fn audited() -> Vec<Record> {
    let role = |payload: Value| {
        let mut payload = payload;
        for (name, value) in [
            ("roleId", "audited"),
            ("roleName", "role"),
            ("createdBy", "admin"),
        ] {
            let fields = payload.as_object_mut().expect("an object");
            fields.entry(name).or_insert(json!(value));
        }
        payload
    };
    let user = "audited";
    let mut events = vec![
        (
            "RoleCreated",
            role(json!({"description": "text", "initialPermissionIds": ["nameless"]})),
        ),
        ("RoleCreated", role(json!({"roleId": "ended"}))),
        (
            "RoleDeleted",
            role(json!({"roleId": "ended", "deletedBy": "admin"})),
        ),
        (
            "UserRoleAssigned",
            role(json!({"userId": user, "assignedBy": "admin"})),
        ),
        (
            "PermissionAssignedToRole",
            role(json!({"permissionId": "named", "permissionName": "name", "assignedBy": "admin"})),
        ),
        (
            "UserUpdated",
            json!({"userId": user, "updatedFields": {"username": {"old": "a", "new": "b"}, "email": "e@example.org"}}),
        ),
        ("NobodyKnows", json!({})),
    ];
    let failure = json!({"attemptedUserId": user, "reason": "invalid_credentials"});
    events.extend((0..5).map(|_| ("UserLoginFailed", failure.clone())));
    events.push(("UserLoggedIn", json!({"userId": user, "sessionId": "s"})));
    let at = "2026-10-03T12:00:00Z";
    let records = events.into_iter().enumerate().map(|(n, (kind, payload))| {
        let value = json!({"eventType": kind, "eventId": format!("audited-{n}"), "eventTimestamp": at, "payload": payload});
        Record {
            partition: 0,
            key: Some(user.into()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: 1_790_000_000_000,
        }
    });
    records.collect()
}

/// A registration of this moment: its notification can be sent.
fn registered_now(n: usize) -> Record {
    let (user, now) = (format!("newcomer-{n}"), Utc::now());
    let value = json!({
        "eventType": "UserRegistered", "eventId": format!("newcomer-{n}"), "eventTimestamp": now.to_rfc3339(),
        "payload": {"userId": user, "email": "newcomer@example.org", "status": "active"},
    });
    Record {
        partition: 0,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: now.timestamp_millis(),
    }
}

/// Lists and reads notifications, leases some, and settles the leases in every way.
async fn work_on_notifications(contract: &mut Contract, rest: &Rest) {
    let list = "/v1/notification/notifications";
    for query in [
        "?pageSize=1",
        "?pageSize=1000",
        "?userId=nobody",
        "?status=x",
    ] {
        contract.get(rest, list, &format!("{list}{query}")).await;
    }
    let lease = format!("{list}:lease");
    let body = json!({"max": 4, "leaseSeconds": 60, "templates": ["welcome"]});
    let leased = contract.post(rest, &lease, &lease, body).await.json();
    let leased = leased["notifications"].as_array().expect("a list").clone();
    assert_eq!(leased.len(), 4, "{leased:?}");
    contract.post(rest, &lease, &lease, json!({})).await;
    let held = |n: usize| {
        let (id, token) = (&leased[n]["notificationId"], &leased[n]["leaseToken"]);
        json!({"notificationId": id, "leaseToken": token})
    };
    let mut failed = held(1);
    failed["reason"] = json!("mailbox full");
    let unknown =
        json!({"notificationId": leased[0]["leaseToken"], "leaseToken": leased[0]["leaseToken"]});
    for (verb, items) in [
        ("ack", json!([held(0), unknown])),
        ("fail", json!([failed])),
    ] {
        let path = format!("{list}:{verb}");
        contract
            .post(rest, &path, &path, json!({"items": items}))
            .await;
        contract
            .post(rest, &path, &path, json!({"items": []}))
            .await;
    }
    let one = |verb: &str, id: &str| {
        (
            format!("{list}/{{notificationId}}{verb}"),
            format!("{list}/{id}{verb}"),
        )
    };
    for (n, verb, mut body) in [
        (2, "/extend", json!({"leaseSeconds": 60})),
        (2, "/ack", json!({})),
        (3, "/fail", json!({"reason": "mailbox full"})),
        // The lease was settled before.
        (2, "/extend", json!({"leaseSeconds": 60})),
        (3, "/ack", json!({})),
        (3, "/fail", json!({"reason": "mailbox full"})),
    ] {
        let id = leased[n]["notificationId"].as_str().expect("an id");
        body["leaseToken"] = leased[n]["leaseToken"].clone();
        let (template, path) = one(verb, id);
        contract.post(rest, &template, &path, body).await;
        let (template, path) = one("", id);
        contract.get(rest, &template, &path).await;
    }
    let (template, path) = one("", "00000000-0000-4000-8000-000000000000");
    contract.get(rest, &template, &path).await;
}

/// Lists, reads, retries and discards dead letters.
async fn operate_dead_letters(contract: &mut Contract, rest: &Rest) {
    let list = "/v1/dead-letters";
    contract
        .get(rest, list, &format!("{list}?pageSize=1"))
        .await;
    let page = contract
        .get(rest, list, &format!("{list}?pageSize=1000"))
        .await;
    let letters = page.json()["deadLetters"]
        .as_array()
        .expect("dead letters")
        .clone();
    for letter in letters.iter().take(30) {
        let id = letter["id"].as_str().expect("an id");
        contract
            .get(rest, "/v1/dead-letters/{id}", &format!("{list}/{id}"))
            .await;
    }
    contract
        .get(rest, "/v1/dead-letters/{id}", &format!("{list}/nothing"))
        .await;
    let retry = "/v1/dead-letters:retry";
    contract
        .post(rest, retry, retry, json!({"domain": "order"}))
        .await;
    contract
        .post(rest, retry, retry, json!({"domain": "nothing"}))
        .await;
    let id = letters[0]["id"].as_str().expect("an id");
    let one = |verb: &str| {
        let template = format!("{list}/{{id}}/{verb}");
        (template, format!("{list}/{id}/{verb}"))
    };
    let (template, path) = one("retry");
    contract
        .post(rest, &template, &path, json!({"dryRun": true}))
        .await;
    let (template, path) = one("discard");
    contract.post(rest, &template, &path, json!({})).await;
    // The second one is refused: it is discarded already.
    for _ in 0..2 {
        contract
            .post(rest, &template, &path, json!({"reason": "a test"}))
            .await;
    }
}

/// Takes a projection through each of its states.
async fn operate_projections(contract: &mut Contract, rest: &Rest) {
    let list = "/v1/projections";
    for verb in [
        "pause", "resume", "cancel", "switch", "rollback", "drop", "rebuild", "rebuild", "cancel",
        "rebuild",
    ] {
        let (template, path) = (
            format!("{list}/{{domain}}/{verb}"),
            format!("{list}/order/{verb}"),
        );
        contract.post(rest, &template, &path, json!({})).await;
        contract.get(rest, list, list).await;
    }
    for verb in ["switch", "rollback", "drop"] {
        let (template, path) = (
            format!("{list}/{{domain}}/{verb}"),
            format!("{list}/order/{verb}"),
        );
        wait_until(SOON, verb, async || {
            let answer = contract.post(rest, &template, &path, json!({})).await;
            contract.get(rest, list, list).await;
            match answer.status {
                200 => Ok(()),
                _ => Err(answer.text()),
            }
        })
        .await;
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let contract = Contract::new();
    let mut found = Vec::new();
    references(&contract.document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let place = reference.trim_start_matches('#');
        assert!(contract.document.pointer(place).is_some(), "{reference}");
    }
}
