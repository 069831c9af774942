//! Operators' requests, over REST.

use serde_json::{Value, json};

use super::app::SOON;
use super::client::{Rest, with_query};
use super::wait_until;

/// Makes a request that must succeed, and returns the answer. Asks again while that is 503 or 504, as on a busy
/// machine: no connection to the database was free, or the answer came too late.
pub async fn operate(rest: &Rest, path: &str, body: Value) -> Value {
    let answer = wait_until(SOON, path, async || {
        let answer = rest.post(path, &body).await;
        match answer.status {
            503 | 504 => Err(answer.text()),
            _ => Ok(answer),
        }
    });
    let answer = answer.await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Makes a request that must be refused, and returns status and reason.
pub async fn refused(rest: &Rest, path: &str, body: Value) -> (u16, String) {
    let answer = rest.post(path, &body).await;
    let reason = answer.json()["reason"].as_str().map(str::to_owned);
    (answer.status, reason.expect("a problem"))
}

/// Pauses, resumes, rebuilds or switches a domain's projection, and so on.
pub async fn project(rest: &Rest, domain: &str, verb: &str, body: Value) -> Value {
    operate(rest, &format!("/v1/projections/{domain}/{verb}"), body).await
}

/// The dead letters that match these filters, the oldest first.
pub async fn dead_letters(rest: &Rest, filters: &[(&str, Option<&str>)]) -> Vec<Value> {
    let (mut dead_letters, mut token) = (Vec::new(), None::<String>);
    loop {
        let paging = [("pageSize", Some("7")), ("pageToken", token.as_deref())];
        let path = with_query("/v1/dead-letters", &[filters, &paging].concat());
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let answer = answer.json();
        dead_letters.extend(
            answer["deadLetters"]
                .as_array()
                .expect("dead letters")
                .clone(),
        );
        match answer["nextPageToken"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return dead_letters,
        }
    }
}

/// Retries all dead letters of a domain, and returns the outcomes.
pub async fn retry_all(rest: &Rest, domain: &str) -> Vec<Value> {
    let (mut outcomes, mut token) = (Vec::new(), String::new());
    loop {
        let body = json!({"domain": domain, "pageToken": token});
        let answer = operate(rest, "/v1/dead-letters:retry", body).await;
        outcomes.extend(answer["outcomes"].as_array().expect("outcomes").clone());
        match answer["nextPageToken"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => return outcomes,
        }
    }
}

/// How many outcomes are of this kind.
pub fn count(outcomes: &[Value], outcome: &str) -> usize {
    let such = outcomes.iter().filter(|tried| tried["outcome"] == outcome);
    such.count()
}

/// A domain's projection.
pub async fn projection(rest: &Rest, domain: &str) -> Value {
    let answer = rest.get("/v1/projections").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let projections = answer.json()["projections"].as_array().cloned();
    let of_domain = |p: &Value| p["domain"] == domain;
    let found = projections.expect("a list").into_iter().find(of_domain);
    found.expect("a projection")
}

/// The versions of a domain's view: number, state, and how many records each has read.
pub async fn versions(rest: &Rest, domain: &str) -> Vec<(i64, String, i64)> {
    let projection = projection(rest, domain).await;
    let versions = projection["versions"].as_array().expect("versions");
    let version = |v: &Value| {
        let number = |name: &str| v[name].as_i64().expect("a number");
        let state = v["state"].as_str().expect("a word").to_owned();
        (number("version"), state, number("read"))
    };
    versions.iter().map(version).collect()
}

/// Waits until the version that is being built has read this many records.
pub async fn built(rest: &Rest, domain: &str, read: i64) {
    wait_until(SOON, "the new version catches up", async || {
        let versions = versions(rest, domain).await;
        match versions.iter().find(|(_, state, _)| state == "building") {
            Some((.., now)) if *now == read => Ok(()),
            _ => Err(format!("{versions:?}, not {read}")),
        }
    })
    .await;
}
