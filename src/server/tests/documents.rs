//! The OpenAPI document and the pages that show it.

use axum::Router;
use http::StatusCode;

use super::rest::{Got, fetch, router, send_to};
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
    assert_eq!(fetch("/docs", &[]).await.header("location"), "docs/");
    assert_eq!(
        fetch("/v1/version", &[])
            .await
            .header("content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'"
    );
}

/// Behind a proxy that adds a prefix to the path, every URL still leads to the right place.
#[tokio::test]
async fn the_docs_work_behind_a_path_prefix() {
    for prefix in ["", "/gateway", "/a/b"] {
        let fetch = async |path: &str| {
            let proxy = match prefix {
                "" => router(),
                prefix => Router::new().nest_service(prefix, router()),
            };
            send_to(proxy, "GET", path, &[], "").await
        };
        let start = format!("{prefix}/docs");
        let redirect = fetch(&start).await;
        assert!(redirect.status.is_redirection(), "{}", redirect.status);
        let page = resolve(&start, redirect.header("location"));
        assert_eq!(page, format!("{prefix}/docs/"));

        let html = text(&fetch(&page).await);
        let mut assets = 0;
        for attribute in ["src=\"", "href=\""] {
            for part in html.split(attribute).skip(1) {
                let asset = resolve(&page, part.split('"').next().unwrap());
                assert_eq!(fetch(&asset).await.status, StatusCode::OK, "{asset}");
                assets += 1;
            }
        }
        assert!(assets >= 5, "{html}");

        let script = text(&fetch(&resolve(&page, "swagger-initializer.js")).await);
        let url = script.split(r#""url": ""#).nth(1).unwrap();
        let url = resolve(&page, url.split('"').next().unwrap());
        let document = fetch(&url).await.json();
        let server = resolve(&url, document["servers"][0]["url"].as_str().unwrap());
        let (server, paths) = (server.trim_end_matches('/'), &document["paths"]);
        assert!(paths["/v1/version"].is_object());
        let version = fetch(&format!("{server}/v1/version")).await;
        assert_eq!(version.status, StatusCode::OK);
    }
}

fn text(got: &Got) -> String {
    assert_eq!(got.status, StatusCode::OK);
    String::from_utf8(got.body.to_vec()).unwrap()
}

/// The path that a relative reference means on the page at `base` (RFC 3986, 5.2).
fn resolve(base: &str, reference: &str) -> String {
    assert!(!reference.contains("//"), "{reference} names a host");
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let mut segments: Vec<&str> = base.split('/').collect();
    segments.pop();
    for segment in reference.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/")
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
