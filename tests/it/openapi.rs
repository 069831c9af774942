//! The OpenAPI document: it equals the committed one, is complete, and is served with its pages.

use serde_json::Value;
use sightline_testing::app::{finish, sightline};

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
        "openapi/openapi.json is out of date: sightline openapi > openapi/openapi.json"
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
            let bad_request = &responses["400"]["content"]["application/problem+json"]["examples"];
            assert_eq!(
                bad_request["RESPONSE_TOO_LARGE"].is_object(),
                is_batch,
                "{name}"
            );
            for (status, response) in responses {
                assert_response(&document, &format!("{name} {status}"), status, response);
            }
            if path.starts_with("/v1/order") || path.starts_with("/v1/fulfillment") {
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
        "/v1/fulfillment/users/{userId}/addresses",
        "/v1/fulfillment/users/{userId}/default-address",
        "/v1/fulfillment/addresses/{addressId}",
        "/v1/fulfillment/addresses",
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
            if asset.starts_with("data:") {
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
