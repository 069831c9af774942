//! The OpenAPI document and the pages that show it.

use http::StatusCode;

use super::rest::fetch;
use crate::query::ConsistencyToken;
use crate::server::openapi;

#[tokio::test]
async fn the_docs_load_nothing_from_other_hosts() {
    let page = fetch("/docs/", &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "{html}"
    );
    assert!(
        page.header("content-security-policy")
            .contains("script-src 'self'")
    );
    let settings = fetch("/docs/swagger-initializer.js", &[]).await;
    let script = String::from_utf8(settings.body.to_vec()).unwrap();
    assert!(
        script.contains("/openapi.json") && !script.contains("petstore"),
        "{script}"
    );
    assert!(script.contains(r#""validatorUrl": "none""#), "{script}");
    assert_eq!(fetch("/docs", &[]).await.header("location"), "/docs/");
    assert_eq!(
        fetch("/v1/version", &[])
            .await
            .header("content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'"
    );
}

#[test]
fn every_operation_is_documented() {
    let document = openapi::document(Default::default());
    let document = serde_json::to_value(document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 16);
    for operation in paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
    {
        for field in ["operationId", "summary", "description"] {
            assert!(operation[field].is_string(), "{field}: {operation}");
        }
        let responses = operation["responses"].as_object().unwrap();
        for status in ["200", "400", "403", "406", "500", "501", "503", "504"] {
            assert!(responses.contains_key(status), "{status}: {operation}");
        }
        assert!(responses["200"]["content"]["application/json"]["example"].is_object());
    }
    let shared = &document["components"];
    for (name, response) in shared["responses"].as_object().unwrap() {
        let examples = &response["content"]["application/problem+json"]["examples"];
        assert!(
            examples.as_object().is_some_and(|e| !e.is_empty()),
            "{name}"
        );
    }
    let example = shared["headers"]["ConsistencyToken"]["example"]
        .as_str()
        .unwrap();
    assert!(ConsistencyToken::parse(example).is_ok());
}
