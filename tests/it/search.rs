//! Searches: words, typos at the limits, ranks and pages, filters, suggestions, hostile queries; what deletions leave, users of
//! several partitions, and rebuilds.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sightline::proto::search::v1::search_service_client::SearchServiceClient;
use sightline::proto::search::v1::{
    FoundUser, SearchUsersRequest, SuggestRequest, SuggestionField,
};
use sightline_testing::app::{Clients, Running, Shared, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::{Rest, timestamp, with_query};
use sightline_testing::operations::{built, project};
use sqlx::PgPool;
use tonic_types::StatusExt;

use crate::requests::{assert_field, assert_problem};

const USERS: &str = "/v1/search/users";
const SUGGESTIONS: &str = "/v1/search/suggestions";

/// Users with a word of ten letters each: too many for the index by id.
const MANY_WORDS: usize = 300;

fn event(partition: i32, user: &str, kind: &str, id: usize, mut payload: Value) -> Record {
    payload["userId"] = json!(user);
    payload["profileId"] = json!("p");
    let value = json!({
        "eventType": kind, "eventId": format!("e-{id}"), "payload": payload,
        "eventTimestamp": format!("2026-10-01T00:{:02}:{:02}Z", id / 60, id % 60),
    });
    Record {
        partition,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

/// A registration: first name, last name, username, email, status.
fn registered(id: usize, user: &str, texts: [&str; 5]) -> Record {
    let [first_name, last_name, username, email, status] = texts;
    let payload = json!({
        "firstName": first_name, "lastName": last_name, "username": username, "email": email, "status": status,
    });
    event(0, user, "UserRegistered", id, payload)
}

fn ends(log: &[Record], partitions: i32) -> Ends {
    let mut ends: Ends = (0..partitions).map(|partition| (partition, 0)).collect();
    for record in log {
        *ends.entry(record.partition).or_default() += 1;
    }
    ends
}

async fn start(log: &[Record], partitions: i32) -> (World, Running) {
    let mut world = World::shared(partitions).await;
    world.set("SIGHTLINE_DOMAINS", "search");
    world.broker.writer().write(&world.topic, log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &ends(log, partitions)).await;
    (world, running)
}

fn population() -> Vec<Record> {
    let many: Vec<String> = (0..MANY_WORDS).map(|n| format!("multitude{n}")).collect();
    let mut log: Vec<Record> = [
        (
            "u-ada",
            ["Ada", "Lovelace", "ada.king", "ada@example.org", "active"],
        ),
        (
            "u-adam",
            ["Adam", "Smith", "asmith", "adam@example.org", "active"],
        ),
        (
            "u-zoe",
            ["Zoë", "Müller-Straße", "zm", "z@exämple.org", "banned"],
        ),
        (
            "u-soren",
            [
                "Søren",
                "Ørsted",
                "so",
                "so@example.org",
                "odd, \"status\" \\ '",
            ],
        ),
        (
            "u-abc",
            ["abc", "klmn", "opqrstu", "cdefghij@mail.test", "active"],
        ),
        (
            "u-many",
            [
                "Zelda",
                &many.join(" "),
                "zelda",
                "zelda@many.test",
                "active",
            ],
        ),
    ]
    .into_iter()
    .zip(0..)
    .map(|((user, texts), id)| registered(id, user, texts))
    .collect();
    let more = [
        (
            "u-stale",
            "UserUpdated",
            json!({"updatedFields": {"username": "oldname"}}),
        ),
        (
            "u-stale",
            "UserUpdated",
            json!({"updatedFields": ["username", "email"]}),
        ),
        (
            "u-shown",
            "UserProfileUpdated",
            json!({"updatedFields": {"displayName": "The Countess", "bio": "x"}}),
        ),
        (
            "u-gone",
            "UserProfileUpdated",
            json!({"updatedFields": {"displayName": "Departed"}}),
        ),
        ("u-gone", "UserDeleted", json!({"deletionType": "soft"})),
        (
            "u-gone",
            "UserProfileUpdated",
            json!({"updatedFields": {"displayName": "Departed"}}),
        ),
    ];
    for (user, kind, payload) in more {
        log.push(event(0, user, kind, log.len(), payload));
    }
    // Ids of the three classes are interleaved.
    for n in 0..24 {
        let username = ["rankword", "rankwords", "rinkwort"][n % 3];
        let payload = json!({"updatedFields": {"username": username}});
        log.push(event(
            0,
            &format!("r-{n:02}"),
            "UserUpdated",
            log.len(),
            payload,
        ));
    }
    log
}

/// A process, which these tests share.
async fn with_users() -> Clients {
    static SHARED: Shared = Shared::const_new();
    SHARED.clients(async || start(&population(), 1).await).await
}

async fn found(rest: &Rest, parameters: &[(&str, &str)]) -> Vec<Value> {
    let parameters: Vec<(&str, Option<&str>)> = parameters
        .iter()
        .map(|(name, value)| (*name, Some(*value)))
        .collect();
    let path = with_query(USERS, &parameters);
    let answer = rest.get(&path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["users"].as_array().expect("users").clone()
}

/// The ids of the users that match, each with its score.
async fn scores(rest: &Rest, q: &str) -> Vec<(String, f64)> {
    let users = found(rest, &[("q", q)]).await;
    let score = |user: &Value| {
        let id = user["userId"].as_str().expect("an id").to_owned();
        (id, user["score"].as_f64().expect("a score"))
    };
    users.iter().map(score).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_found_in_any_spelling() {
    assert_spellings(&with_users().await.rest).await;
}

/// Once Postgres has counted the users, it reads these few in the order of their ids, and not by the index of words.
#[tokio::test(flavor = "multi_thread")]
async fn frequent_words_find_the_same_users() {
    let (world, running) = start(&population(), 1).await;
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("connected");
    sqlx::query("ANALYZE search_live.search_documents")
        .execute(&pool)
        .await
        .expect("counted");
    assert_spellings(&running.rest).await;
}

async fn assert_spellings(rest: &Rest) {
    for (q, expected) in [
        ("ada", &[("u-ada", 1.0), ("u-adam", 0.75)][..]),
        ("ADA lovelace", &[("u-ada", 1.0)]),
        ("lovelace, ada!", &[("u-ada", 1.0)]),
        ("ada love", &[("u-ada", 0.75)]),
        ("ada org", &[("u-ada", 1.0), ("u-adam", 0.75)]),
        ("ada@example.org", &[("u-ada", 1.0), ("u-adam", 0.75)]),
        ("ada nobody", &[]),
        ("zoe", &[("u-zoe", 1.0)]),
        ("ZOË", &[("u-zoe", 1.0)]),
        ("zoe\u{308} mueller", &[("u-zoe", 0.5)]),
        ("muller strasse", &[("u-zoe", 1.0)]),
        ("MÜLLER STRASSE", &[("u-zoe", 1.0)]),
        ("soren orsted", &[("u-soren", 1.0)]),
        ("king", &[("u-ada", 1.0)]),
        ("countess", &[("u-shown", 1.0)]),
        ("departed", &[]),
        ("oldname", &[("u-stale", 1.0)]),
        ("multitude299", &[("u-many", 1.0)]),
        ("zelda multitude2", &[("u-many", 1.0)]),
        ("multitude", &[("u-many", 0.75)]),
        ("zeldo many", &[("u-many", 0.5)]),
        // The fields that are not names are not searched.
        ("active", &[]),
    ] {
        let expected: Vec<(String, f64)> = expected
            .iter()
            .map(|(id, score)| ((*id).to_owned(), *score))
            .collect();
        assert_eq!(scores(rest, q).await, expected, "{q}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_words_may_have_more_typos() {
    let rest = with_users().await.rest;
    // The words of this user: abc, klmn, opqrstu and cdefghij.
    for (q, expected) in [
        ("abx", None),
        ("xabc", Some(0.5)),
        ("klm", Some(0.75)),
        ("klx", None),
        ("klxn", Some(0.5)),
        ("klxmn", Some(0.5)),
        ("kxln", None),
        ("lkmn", None),
        ("opqrst", Some(0.75)),
        ("opqrstx", Some(0.5)),
        ("xopqrst", None),
        ("xpqrstx", None),
        ("opqrstux", Some(0.5)),
        ("xopqrstu", Some(0.5)),
        ("xpqrstux", Some(0.5)),
        ("xpxrstux", None),
        ("dcefghij", Some(0.5)),
        ("cdefgh", Some(0.75)),
        ("cxexghij", Some(0.5)),
        ("cdefghijxx", Some(0.5)),
        ("cdefghxx", Some(0.5)),
        ("cdefgxxx", None),
        ("cxexgxij", None),
        ("abc klxn", Some(0.5)),
        ("abc klxn opqrstx", Some(0.5)),
        ("abx klxn", None),
    ] {
        let found = scores(&rest, q).await;
        let found = found.iter().find(|(id, _)| id == "u-abc");
        assert_eq!(found.map(|(_, score)| *score), expected, "{q}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_through_the_ranks() {
    let rest = with_users().await.rest;
    let ids = |rest: usize| {
        (0..24)
            .filter(move |n| n % 3 == rest)
            .map(|n| format!("r-{n:02}"))
    };
    let expected: Vec<(String, f64)> = ids(0)
        .map(|id| (id, 1.0))
        .chain(ids(1).map(|id| (id, 0.75)))
        .chain(ids(2).map(|id| (id, 0.5)))
        .collect();
    assert_eq!(scores(&rest, "rankword").await, expected);
    for size in ["1", "2", "3", "7", "8", "24", "25"] {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        loop {
            let parameters = [
                ("q", Some("rankword")),
                ("pageSize", Some(size)),
                ("pageToken", token.as_deref()),
            ];
            let page = rest.get(&with_query(USERS, &parameters)).await.json();
            for user in page["users"].as_array().expect("users") {
                let id = user["userId"].as_str().expect("an id").to_owned();
                all.push((id, user["score"].as_f64().expect("a score")));
            }
            match page["nextPageToken"].as_str() {
                Some(next) => token = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(all, expected, "pages of {size}");
    }
    let first = with_query(USERS, &[("q", Some("rankword")), ("pageSize", Some("2"))]);
    let token = rest.get(&first).await.json()["nextPageToken"].clone();
    for other in [
        ("q", "rankwords"),
        ("status", "active"),
        ("registeredAfter", "2026-01-01T00:00:00Z"),
    ] {
        let mut parameters = vec![("q", Some("rankword")), ("pageToken", token.as_str())];
        parameters.retain(|(name, _)| *name != other.0);
        parameters.push((other.0, Some(other.1)));
        let path = with_query(USERS, &parameters);
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "pageToken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_filtered_by_status_and_registration() {
    let rest = with_users().await.rest;
    let ids = async |parameters: &[(&str, &str)]| {
        let users = found(&rest, parameters).await;
        let ids = users.iter().map(|user| {
            assert!(user.get("score").is_none() || parameters.iter().any(|(name, _)| *name == "q"));
            user["userId"].as_str().expect("an id").to_owned()
        });
        ids.collect::<Vec<_>>()
    };
    let all = ids(&[]).await;
    assert_eq!(all.len(), 24 + 8);
    assert!(all.is_sorted(), "{all:?}");
    assert!(all.contains(&"u-many".to_owned()) && !all.contains(&"u-gone".to_owned()));
    let active = ["u-abc", "u-ada", "u-adam", "u-many"];
    assert_eq!(ids(&[("status", "active")]).await, active);
    assert_eq!(
        ids(&[("status", "active"), ("status", "banned")]).await,
        [&active[..], &["u-zoe"]].concat()
    );
    assert_eq!(
        ids(&[("status", "odd, \"status\" \\ '")]).await,
        ["u-soren"]
    );
    for none in ["Active", "activ", "active ", "%", "null"] {
        assert!(ids(&[("status", none)]).await.is_empty(), "{none}");
    }
    // Users of whom no registration is known don't pass. u-zoe registered at second 2.
    let after = |second: u32| format!("2026-10-01T00:00:0{second}Z");
    for (second, expected) in [
        (1, &["u-abc", "u-many", "u-soren", "u-zoe"][..]),
        (2, &["u-abc", "u-many", "u-soren"]),
        (5, &[]),
    ] {
        assert_eq!(ids(&[("registeredAfter", &after(second))]).await, expected);
    }
    let both = [
        ("q", "example"),
        ("registeredAfter", &after(0)),
        ("status", "active"),
    ];
    assert_eq!(ids(&both).await, ["u-adam"]);
    let stale = found(&rest, &[("q", "oldname")]).await;
    assert_eq!(
        stale,
        [
            json!({"userId": "u-stale", "username": "oldname", "staleFields": ["email", "username"], "score": 1.0})
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn suggestions_are_texts_of_users() {
    let rest = with_users().await.rest;
    let suggested = async |q: &str, limit: Option<&str>| {
        let path = with_query(SUGGESTIONS, &[("q", Some(q)), ("limit", limit)]);
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["suggestions"].clone()
    };
    let suggestion =
        |text: &str, field: &str, user: &str| json!({"text": text, "field": field, "userId": user});
    let ada = suggestion("Ada Lovelace", "name", "u-ada");
    let adam = suggestion("Adam Smith", "name", "u-adam");
    assert_eq!(suggested("ad", None).await, json!([ada, adam]));
    assert_eq!(suggested("ada", Some("1")).await, json!([ada]));
    for (q, text, field, user) in [
        ("the count", "The Countess", "displayName", "u-shown"),
        ("asm", "asmith", "username", "u-adam"),
        ("z exam", "z@exämple.org", "email", "u-zoe"),
        // No text of the user has both.
        ("king love", "Ada Lovelace", "name", "u-ada"),
        ("oldn", "oldname", "username", "u-stale"),
    ] {
        let expected = json!([suggestion(text, field, user)]);
        assert_eq!(suggested(q, None).await, expected, "{q}");
    }
    // Typos are for searches.
    assert_eq!(suggested("rinkwird", None).await, json!([]));
    let many = suggested("r", Some("50")).await;
    assert_eq!(many.as_array().map(Vec::len), Some(24));
    assert_eq!(
        suggested("r", None).await.as_array().map(Vec::len),
        Some(10)
    );
    for limit in ["0", "51", "-1", "x", "1.5", "99999999999"] {
        let path = with_query(SUGGESTIONS, &[("q", Some("a")), ("limit", Some(limit))]);
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "limit");
    }
    let problem = assert_problem(SUGGESTIONS, &rest.get(SUGGESTIONS).await, 400);
    assert_field(SUGGESTIONS, &problem, "q");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_queries_are_answered_or_refused() {
    let rest = with_users().await.rest;
    let long_word = "x".repeat(500);
    let ten_long: Vec<String> = (0..10).map(|n| format!("{n}{}", "é".repeat(48))).collect();
    for q in [
        "'",
        "\\",
        "ada'",
        "ada\\",
        "'ada':*",
        "ada & smith",
        "ada | smith",
        "!ada",
        "(ada",
        "ada:*",
        "ada <-> king",
        "ada\0lovelace",
        "🦀 ada",
        "ada; DROP TABLE users",
        "%",
        "_",
        "%ada%",
        "a\u{301}da\u{327}",
        "\u{202e}ada",
        "王秀英",
        "김민준",
        "𝔸𝕕𝕒",
        &long_word,
        &ten_long.join(" "),
        "aaaaaaaa bbbbbbbb cccccccc dddddddd",
    ] {
        let has_word = q.chars().any(char::is_alphanumeric);
        for path in [USERS, SUGGESTIONS] {
            let path = with_query(path, &[("q", Some(q))]);
            let answer = rest.get(&path).await;
            if has_word {
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            } else {
                let problem = assert_problem(&path, &answer, 400);
                assert_field(&path, &problem, "q");
            }
        }
    }
    assert_eq!(
        scores(&rest, "𝔸𝕕𝕒 lovelace").await[0],
        ("u-ada".to_owned(), 1.0)
    );
    let too_long = "x".repeat(10_000);
    for q in [
        "",
        " ",
        "🦀",
        "\u{301}\u{302}",
        "\0",
        "&|!:*()<->",
        "1 2 3 4 5 6 7 8 9 10 11",
        &long_word.replace('x', "xx"),
        &too_long,
    ] {
        for path in [USERS, SUGGESTIONS] {
            let path = with_query(path, &[("q", Some(q))]);
            let problem = assert_problem(&path, &rest.get(&path).await, 400);
            assert_field(&path, &problem, "q");
        }
    }
    let statuses = "&status=x".repeat(101);
    for (query, field) in [
        ("q=a&q=b", "q"),
        ("status=", "status"),
        (&statuses[1..], "status"),
        ("registeredAfter=yesterday", "registeredAfter"),
        ("registeredBefore=2026-01-01T00:00:00Z", "registeredBefore"),
        ("pageToken=x", "pageToken"),
        ("limit=3", "limit"),
    ] {
        let path = format!("{USERS}?{query}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, field);
    }
    // Registrations may lie ahead, so the filter may, too.
    let ahead = format!("{USERS}?registeredAfter=2150-01-01T00:00:00Z");
    let answer = rest.get(&ahead).await;
    assert_eq!((answer.status, &answer.json()["users"]), (200, &json!([])));
}

/// A gRPC user in the JSON form of REST.
fn user_json(user: FoundUser) -> Value {
    let mut json = json!({"userId": user.user_id, "staleFields": user.stale_fields});
    let texts = [
        ("email", user.email),
        ("username", user.username),
        ("firstName", user.first_name),
        ("lastName", user.last_name),
        ("displayName", user.display_name),
        ("status", user.status),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            json[name] = json!(value);
        }
    }
    if let Some(at) = user.registered_at {
        json["registeredAt"] = json!(format!("2026-10-01T00:00:{:02}Z", at.seconds % 60));
    }
    if let Some(score) = user.score {
        json["score"] = json!(score);
    }
    json
}

#[tokio::test(flavor = "multi_thread")]
async fn both_surfaces_give_the_same_answers() {
    let clients = with_users().await;
    let rest = &clients.rest;
    let mut client = SearchServiceClient::new(clients.grpc.channel.clone());
    for parameters in [
        &[][..],
        &[("q", "ada")],
        &[
            ("q", "example"),
            ("status", "active"),
            ("registeredAfter", "2026-10-01T00:00:00Z"),
        ],
        &[("q", "rankword"), ("pageSize", "9")],
    ] {
        let value = |name: &str| {
            let found = parameters.iter().find(|(given, _)| *given == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let at = |text: String| timestamp(text.parse().expect("a time"));
        let request = SearchUsersRequest {
            q: value("q"),
            status: value("status").into_iter().collect(),
            registered_after: value("registeredAfter").map(at),
            page_size: value("pageSize").map_or(0, |size| size.parse().expect("a number")),
            page_token: String::new(),
        };
        let answer = client
            .search_users(request)
            .await
            .expect("an answer")
            .into_inner();
        let users: Vec<Value> = answer.users.into_iter().map(user_json).collect();
        assert_eq!(users, found(rest, parameters).await, "{parameters:?}");
        assert_eq!(
            answer.next_page_token.is_some(),
            value("pageSize").is_some()
        );
    }
    let request = |q: &str, limit| SuggestRequest {
        q: q.to_owned(),
        limit,
    };
    let answer = client
        .suggest(request("the", 0))
        .await
        .expect("an answer")
        .into_inner();
    let first = &answer.suggestions[0];
    assert_eq!(
        (first.text.as_str(), first.user_id.as_str()),
        ("The Countess", "u-shown")
    );
    assert_eq!(first.field(), SuggestionField::DisplayName);
    for (request, field) in [
        (request("", 1), "q"),
        (request("a", 51), "limit"),
        (request("a", -1), "limit"),
    ] {
        let refused = client.suggest(request).await.expect_err("a refusal");
        let violations = refused.get_details_bad_request().expect("fields");
        assert_eq!(violations.field_violations[0].field, field);
    }
    for (request, field) in [
        (
            SearchUsersRequest {
                q: Some(String::new()),
                ..Default::default()
            },
            "q",
        ),
        (
            SearchUsersRequest {
                status: vec![String::new()],
                ..Default::default()
            },
            "status",
        ),
    ] {
        let refused = client.search_users(request).await.expect_err("a refusal");
        let violations = refused.get_details_bad_request().expect("fields");
        assert_eq!(violations.field_violations[0].field, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_token_state_and_etag() {
    let rest = with_users().await.rest;
    for path in [
        format!("{USERS}?q=ada"),
        format!("{USERS}?q=nobody"),
        format!("{SUGGESTIONS}?q=ada"),
    ] {
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.token().is_empty(), "{path}");
        let etag = answer.header("etag").to_owned();
        let headers = [("if-none-match", etag.as_str())];
        let unchanged = rest.send(http::Method::GET, &path, &headers, b"").await;
        assert_eq!(unchanged.status, 304, "{path}");
        assert_eq!(unchanged.token(), answer.token());
        assert_eq!(unchanged.header("etag"), etag);
    }
}

/// The words that are counted, each with the number of documents and of logs.
async fn vocabulary(pool: &PgPool) -> BTreeMap<String, (i64, i64)> {
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT word, coalesce(sum(c.documents), 0)::bigint, count(c.documents),
                coalesce(max(w.documents) - sum(sightline.magnitude(c.documents)), -1)::bigint
         FROM search_live.search_words w FULL JOIN search_live.search_word_counts c USING (word)
         GROUP BY word",
    )
    .fetch_all(pool)
    .await
    .expect("words");
    let words = rows.into_iter().map(|(word, documents, logs, error)| {
        assert_eq!(error, 0, "the words' own rows follow the counts: {word}");
        (word, (documents, logs))
    });
    words.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn words_go_with_their_last_document_and_versions_are_equal() {
    let named = |partition, user: &str, id, name: &str| {
        let payload = json!({"updatedFields": {"displayName": name}});
        event(partition, user, "UserProfileUpdated", id, payload)
    };
    let deleted = |partition, user: &str, id| event(partition, user, "UserDeleted", id, json!({}));
    let mut log = vec![
        named(0, "a", 1, "shared secreta"),
        named(1, "b", 2, "shared secretb"),
        // Events of one user come from two partitions.
        named(1, "c", 3, "shared secretc"),
        event(
            0,
            "c",
            "UserUpdated",
            4,
            json!({"updatedFields": {"username": "cname"}}),
        ),
        named(0, "d", 5, "renamed"),
        named(0, "d", 6, "kept"),
    ];
    let (world, running) = start(&log, 2).await;
    let rest = &running.rest;
    let pool = PgPool::connect(&world.database.url)
        .await
        .expect("connected");
    let words = |words: &[(&str, i64, i64)]| -> BTreeMap<String, (i64, i64)> {
        let word =
            |(word, documents, logs): &(&str, i64, i64)| ((*word).to_owned(), (*documents, *logs));
        words.iter().map(word).collect()
    };
    assert_eq!(
        vocabulary(&pool).await,
        words(&[
            ("cname", 1, 1),
            ("kept", 1, 1),
            ("secreta", 1, 1),
            ("secretb", 1, 1),
            ("secretc", 1, 1),
            ("shared", 3, 2),
        ])
    );
    assert_eq!(found(rest, &[("q", "renamed")]).await, [] as [Value; 0]);

    let more = [
        deleted(0, "a", 7),
        deleted(1, "c", 8),
        named(0, "c", 9, "secretc"),
    ];
    world.broker.writer().write(&world.topic, &more).await;
    log.extend(more);
    let now = ends(&log, 2);
    caught_up(rest, &now).await;
    let left = words(&[("kept", 1, 1), ("secretb", 1, 1), ("shared", 1, 1)]);
    assert_eq!(vocabulary(&pool).await, left);
    let users = found(rest, &[]).await;
    assert_eq!(users.len(), 2, "{users:?}");
    // The word of another user is similar.
    let similar = found(rest, &[("q", "secreta")]).await;
    assert_eq!((similar.len(), &similar[0]["score"]), (1, &json!(0.5)));

    project(rest, "search", "rebuild", json!({})).await;
    built(rest, "search", log.len() as i64).await;
    // It is refused if the versions differ.
    project(rest, "search", "switch", json!({"compare": true})).await;
    assert_eq!(vocabulary(&pool).await, left);
    assert_eq!(found(rest, &[]).await, users);
    assert_eq!(found(rest, &[("q", "secret")]).await.len(), 1);
    // The new version's indexes find the words as well.
    assert_eq!(found(rest, &[("q", "sexretb")]).await[0]["userId"], "b");
}
