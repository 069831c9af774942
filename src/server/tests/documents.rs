//! The OpenAPI document and the pages that show it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use http::StatusCode;
use serde_json::json;

use super::rest::{Got, fetch, router, send_to};
use crate::query::ConsistencyToken;
use crate::server::{admin, openapi};

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
    assert!(html.contains("<title>sightline API</title>"), "{html}");
    let script = text(&fetch("/docs/page.js", &[]).await);
    // What would call other hosts, or be sent to them, is off.
    for setting in [
        "withDefaultFonts: false",
        "telemetry: false",
        r#"proxyUrl: """#,
        "agent: { disabled: true }",
        "mcp: { disabled: true }",
    ] {
        assert!(script.contains(setting), "{setting}");
    }
    assert!(!script.contains("://"), "{script}");
    for start in ["/", "/docs"] {
        let redirect = fetch(start, &[]).await;
        assert_eq!(redirect.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(redirect.header("location"), "docs/");
    }
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
                let reference = part.split('"').next().unwrap();
                if reference.starts_with("data:") || reference == "../openapi.json" {
                    continue;
                }
                let asset = resolve(&page, reference);
                assert_eq!(fetch(&asset).await.status, StatusCode::OK, "{asset}");
                assets += 1;
            }
        }
        assert_eq!(assets, 3, "{html}");

        let script = text(&fetch(&resolve(&page, "page.js")).await);
        let gateway = script.split(r#"new URL(""#).nth(1).unwrap();
        let gateway = resolve(&page, gateway.split('"').next().unwrap());
        let url = format!("{gateway}/openapi.json");
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
    let document = openapi::document(Default::default(), &["audit", "order"]);
    let document = serde_json::to_value(document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 19);
    for operation in paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
    {
        for field in ["operationId", "summary", "description"] {
            assert!(operation[field].is_string(), "{field}: {operation}");
        }
        let responses = operation["responses"].as_object().unwrap();
        for status in ["200", "400", "403", "406", "500", "503", "504"] {
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
    let domains = &shared["schemas"]["DomainName"]["enum"];
    assert_eq!(*domains, json!(["audit", "order"]));
    let example = shared["headers"]["ConsistencyToken"]["example"]
        .as_str()
        .unwrap();
    assert!(ConsistencyToken::parse(example).is_ok());
}

/// utoipa keeps one of several schemas of one name, and says nothing: an operation would be
/// described by another one's type.
#[test]
fn each_schema_has_a_name_of_its_own() {
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut names: HashMap<String, PathBuf> = HashMap::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let source = fs::read_to_string(&path).unwrap_or_default();
        for name in schema_names(&source) {
            if let Some(other) = names.insert(name.clone(), path.clone()) {
                panic!("{name} is in {} and in {}", other.display(), path.display());
            }
        }
    }
    assert!(names.len() > 30, "{names:?}");
}

/// The names of the types that derive `ToSchema`, as the document has them.
fn schema_names(source: &str) -> Vec<String> {
    let derives = source.split("#[derive(").skip(1);
    let derives = derives.filter(|rest| {
        let derived = rest.split(")]").next().unwrap_or_default();
        derived.split(',').any(|name| name.trim() == "ToSchema")
    });
    let names = derives.filter_map(|rest| {
        let keyword = [rest.find("struct "), rest.find("enum ")];
        let keyword = keyword.into_iter().flatten().min()?;
        let (attributes, declaration) = rest.split_at(keyword);
        let given = attributes.split("as = ").nth(1);
        let name = given.unwrap_or(declaration.split_once(' ')?.1);
        name.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .map(str::to_owned)
    });
    names.collect()
}

#[test]
fn names_of_schemas_are_found() {
    let source = "#[derive(Debug, ToSchema)]\n#[serde(x)]\npub struct A {}\n#[derive(Debug)]\nstruct B;\n\
                  #[derive(ToSchema)]\n#[schema(as = D)]\nenum C {}";
    assert_eq!(schema_names(source), ["A", "D"]);
}

#[tokio::test]
async fn the_admin_port_lists_its_paths() {
    let parts = admin::Parts {
        ready: Arc::new(|| Box::pin(async { vec![("database_answers", true)] })),
        metrics: Arc::new(String::new),
    };
    let fetch =
        async |path: &str| send_to(admin::router(parts.clone(), true), "GET", path, &[], "").await;
    let list = text(&fetch("/").await);
    let paths: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(paths, ["/livez", "/readyz", "/metrics"]);
    for path in paths {
        assert_eq!(fetch(path).await.status, StatusCode::OK, "{path}");
    }
    let elsewhere = fetch("/v1/version").await.json()["detail"].to_string();
    assert!(elsewhere.contains("SIGHTLINE_HTTP_ADDR"), "{elsewhere}");
    let headers = [("content-type", "application/grpc")];
    let call = send_to(admin::router(parts, true), "POST", "/", &headers, "").await;
    assert!(call.header("grpc-message").contains("SIGHTLINE_GRPC_ADDR"));
}
