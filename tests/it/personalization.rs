//! Profiles and segments over both surfaces: what events make of them, pages and counts, wrong requests, deletions, users in
//! several partitions, preferences that would be too large, and rebuilds.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sightline::proto::personalization::v1::personalization_service_client::PersonalizationServiceClient;
use sightline::proto::personalization::v1::{GetProfileRequest, ListSegmentRequest};
use sightline_testing::app::{Clients, Running, SOON, Shared, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::{Rest, escape, with_query};
use sightline_testing::database::Database;
use sightline_testing::operations::{built, dead_letters, operate, project, retry_all};
use sightline_testing::wait_until;
use sqlx::PgPool;
use tonic::Code;

use crate::requests::{assert_field, assert_problem};

const SEGMENTS: &str = "/v1/personalization/segments";

fn event(partition: i32, user: &str, id: &str, kind: &str, mut payload: Value) -> Record {
    payload["userId"] = json!(user);
    payload["profileId"] = json!("p");
    let value = json!({
        "eventType": kind, "eventId": id, "eventTimestamp": "2026-10-01T00:00:00Z", "payload": payload,
    });
    Record {
        partition,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

fn updated(user: &str, id: &str, fields: Value) -> Record {
    event(
        0,
        user,
        id,
        "UserProfileUpdated",
        json!({"updatedFields": fields}),
    )
}

fn lives_in(user: &str, id: &str, country: &str, city: &str) -> Record {
    let payload = json!({
        "addressId": "a", "addressType": "home", "isDefaultShipping": true, "isDefaultBilling": false,
        "country": country, "fullAddress": {"streetLine1": "1 Secret Street", "city": city, "state": "S"},
    });
    event(0, user, id, "UserAddressAdded", payload)
}

fn deleted(user: &str, id: &str) -> Record {
    event(0, user, id, "UserDeleted", json!({"deletionType": "soft"}))
}

/// A world of this domain alone, whose limit of values is that of users.
fn of_personalization(mut world: World) -> World {
    world
        .set("SIGHTLINE_DOMAINS", "personalization")
        .set("SIGHTLINE_MAX_VALUE_BYTES", "1048576");
    world
}

/// Writes these records to partition 0 of a new world, and waits until they are projected.
async fn projected(log: &[Record]) -> (World, Running) {
    let world = of_personalization(World::shared(1).await);
    world.broker.writer().write(&world.topic, log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, log.len() as i64)])).await;
    (world, running)
}

fn profile_path(user: &str) -> String {
    format!("/v1/personalization/users/{}", escape(user))
}

async fn profile(rest: &Rest, user: &str) -> Value {
    let answer = rest.get(&profile_path(user)).await;
    assert_eq!(answer.status, 200, "{user}: {}", answer.text());
    assert!(answer.token().starts_with('A'), "{:?}", answer.headers);
    assert_eq!(answer.header("sightline-state"), "caught_up");
    answer.json()
}

/// All users of a segment, read in pages of two. Every page must have the exact count.
async fn segment(rest: &Rest, filters: &[(&str, &str)]) -> Vec<String> {
    let (mut users, mut token) = (Vec::new(), None::<String>);
    let filters: Vec<(&str, Option<&str>)> = filters
        .iter()
        .map(|(name, value)| (*name, Some(*value)))
        .collect();
    let mut sizes = BTreeSet::new();
    loop {
        let paging = [("pageSize", Some("2")), ("pageToken", token.as_deref())];
        let path = with_query(SEGMENTS, &[&filters[..], &paging].concat());
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!answer.token().is_empty(), "{path}");
        let body = answer.json();
        let page: Vec<String> = serde_json::from_value(body["userIds"].clone()).expect("ids");
        assert!(page.len() <= 2, "{body}");
        users.extend(page);
        sizes.insert(body["totalSize"].as_u64().expect("a count") as usize);
        match body["nextPageToken"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(sizes, BTreeSet::from([users.len()]), "{filters:?}");
    users
}

/// The users of these tests, by what they have.
fn users() -> Vec<Record> {
    let dark = json!({"preferences": {"theme": "dark", "privacy": {"tracking": false}}, "languagePreference": "en-GB"});
    vec![
        lives_in("u1", "1", "gb", "London"),
        updated("u1", "2", dark.clone()),
        lives_in("u2", "3", "GB", "LONDON"),
        updated("u2", "4", dark.clone()),
        lives_in("u3", "5", "GB", "Leeds"),
        updated(
            "u3",
            "6",
            json!({"preferences.theme": "light", "preferences.size": 1.5}),
        ),
        lives_in("Z/ü 😀", "7", "GB", "London"),
        updated(
            "Z/ü 😀",
            "8",
            json!({"preferences.odd.a:b": "c:d", "preferences.x.y": "c:d", "preferences.on": true}),
        ),
        lives_in("u4", "9", "de", "Gießen"),
        updated("u4", "10", dark),
        // What is stale counts with its former value.
        updated(
            "u4",
            "11",
            json!(["preferences.theme", "languagePreference", "bio"]),
        ),
        lives_in("gone", "12", "GB", "London"),
        deleted("gone", "13"),
        // Nothing but a registration.
        event(
            0,
            "new",
            "14",
            "UserRegistered",
            json!({"email": "e@x.org", "status": "active"}),
        ),
    ]
}

async fn with_users() -> Clients {
    static SHARED: Shared = Shared::const_new();
    SHARED.clients(async || projected(&users()).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_the_same_over_both_surfaces() {
    let clients = with_users().await;
    let mut grpc = PersonalizationServiceClient::new(clients.grpc.channel.clone());
    let at = "2026-10-01T00:00:00Z";
    for (user, expected) in [
        (
            "u4",
            json!({
                "userId": "u4", "preferences": {"privacy": {"tracking": false}, "theme": "dark"},
                "languagePreference": "en-GB", "location": {"countryCode": "DE", "city": "Gießen", "state": "S"},
                "countries": ["DE"], "staleFields": ["bio", "languagePreference", "preferences.theme"], "updatedAt": at,
            }),
        ),
        (
            "new",
            json!({"userId": "new", "countries": [], "staleFields": [], "updatedAt": at}),
        ),
    ] {
        assert_eq!(profile(&clients.rest, user).await, expected);
        let request = GetProfileRequest {
            user_id: user.into(),
        };
        let answer = grpc.get_profile(request).await.expect("known");
        assert!(
            answer
                .metadata()
                .contains_key("sightline-consistency-token")
        );
        let profile = answer.into_inner().profile.expect("a profile");
        let preferences = profile
            .preferences
            .as_deref()
            .map(serde_json::from_str::<Value>);
        assert_eq!(
            preferences.transpose().expect("JSON"),
            expected.get("preferences").cloned()
        );
        assert_eq!(
            profile.language_preference.as_deref(),
            expected["languagePreference"].as_str()
        );
        assert_eq!(json!(profile.countries), expected["countries"]);
        assert_eq!(json!(profile.stale_fields), expected["staleFields"]);
        let location = profile.location.unwrap_or_default();
        assert_eq!(
            location.city.as_deref(),
            expected["location"]["city"].as_str()
        );
        assert_eq!(
            location.state.as_deref(),
            expected["location"]["state"].as_str()
        );
    }
    for user in ["gone", "nobody"] {
        let answer = clients.rest.get(&profile_path(user)).await;
        assert_problem(user, &answer, 404);
        assert!(!answer.token().is_empty());
        let request = GetProfileRequest {
            user_id: user.into(),
        };
        let status = grpc.get_profile(request).await.expect_err("unknown");
        assert_eq!(status.code(), Code::NotFound);
    }
    let path = profile_path("u1");
    let etag = clients.rest.get(&path).await.header("etag").to_owned();
    let again = [("if-none-match", etag.as_str())];
    let again = clients
        .rest
        .send(http::Method::GET, &path, &again, b"")
        .await;
    assert_eq!((again.status, again.token().is_empty()), (304, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_paged_and_counted_by_every_filter() {
    let clients = with_users().await;
    let rest = &clients.rest;
    let odd = "Z/ü 😀";
    for (filters, expected) in [
        (vec![("countryCode", "GB")], vec![odd, "u1", "u2", "u3"]),
        (vec![("countryCode", "gb")], vec![odd, "u1", "u2", "u3"]),
        (vec![("city", "lOnDoN")], vec![odd, "u1", "u2"]),
        (vec![("city", "GIESSEN")], vec!["u4"]),
        (vec![("language", "en-GB")], vec!["u1", "u2", "u4"]),
        (vec![("language", "en-gb")], vec![]),
        (vec![("preference", "theme:dark")], vec!["u1", "u2", "u4"]),
        (
            vec![("preference", "privacy.tracking:false")],
            vec!["u1", "u2", "u4"],
        ),
        (vec![("preference", "size:1.5")], vec!["u3"]),
        (vec![("preference", "on:true")], vec![odd]),
        // The path ends at the first colon.
        (vec![("preference", "x.y:c:d")], vec![odd]),
        (vec![("preference", "odd.a:b:c:d")], vec![]),
        (vec![("preference", "privacy:false")], vec![]),
        (
            vec![("countryCode", "GB"), ("preference", "theme:dark")],
            vec!["u1", "u2"],
        ),
        (
            vec![
                ("preference", "theme:dark"),
                ("preference", "privacy.tracking:false"),
                ("city", "gießen"),
            ],
            vec!["u4"],
        ),
        (
            vec![("preference", "theme:dark"), ("preference", "theme:light")],
            vec![],
        ),
        (
            vec![
                ("city", "London"),
                ("countryCode", "GB"),
                ("language", "en-GB"),
            ],
            vec!["u1", "u2"],
        ),
        // A filter that is given twice is one.
        (
            vec![("preference", "theme:light"), ("preference", "theme:light")],
            vec!["u3"],
        ),
        (vec![("city", "nowhere")], vec![]),
    ] {
        assert_eq!(segment(rest, &filters).await, expected, "{filters:?}");
    }
    let mut grpc = PersonalizationServiceClient::new(clients.grpc.channel.clone());
    let request = ListSegmentRequest {
        country_code: Some("GB".into()),
        preference: vec!["theme:dark".into()],
        page_size: 1,
        ..ListSegmentRequest::default()
    };
    let first = grpc
        .list_segment(request.clone())
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(
        (first.user_ids, first.total_size),
        (vec!["u1".to_owned()], 2)
    );
    let page_token = first.next_page_token.expect("another page");
    let request = ListSegmentRequest {
        page_token,
        ..request
    };
    let second = grpc
        .list_segment(request)
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(
        (second.user_ids, second.total_size),
        (vec!["u2".to_owned()], 2)
    );
    assert_eq!(second.next_page_token, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused() {
    let clients = with_users().await;
    let rest = &clients.rest;
    let long = format!("theme:{}", "x".repeat(10_000));
    let eleven = [("preference", Some("a:b")); 11];
    for (parameters, field) in [
        (vec![], "countryCode"),
        (vec![("pageSize", Some("2"))], "countryCode"),
        (vec![("countryCode", Some(""))], "countryCode"),
        (vec![("city", Some(""))], "city"),
        (vec![("language", Some(""))], "language"),
        (vec![("preference", Some(""))], "preference"),
        (vec![("preference", Some("theme"))], "preference"),
        (vec![("preference", Some(":dark"))], "preference"),
        (vec![("preference", Some("theme:"))], "preference"),
        (
            vec![("preference", Some("a:b")), ("preference", Some("x"))],
            "preference",
        ),
        (eleven.to_vec(), "preference"),
        (vec![("city", Some("x")), ("city", Some("y"))], "city"),
        (vec![("country", Some("GB"))], "country"),
        (
            vec![("city", Some("x")), ("pageSize", Some("-1"))],
            "pageSize",
        ),
        (
            vec![("city", Some("x")), ("pageToken", Some("x"))],
            "pageToken",
        ),
    ] {
        let path = with_query(SEGMENTS, &parameters);
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, field);
    }
    for odd in [long.as_str(), "a\0b:c", "..:x", "\u{10FFFF}:\u{0}"] {
        assert_eq!(
            segment(rest, &[("preference", odd)]).await,
            Vec::<String>::new()
        );
    }
    // A page token is of one list, and what it holds is checked.
    let page = [("city", Some("london")), ("pageSize", Some("1"))];
    let first = rest.get(&with_query(SEGMENTS, &page)).await.json();
    let token = first["nextPageToken"].as_str().expect("more");
    for filters in [[("city", Some("leeds"))], [("countryCode", Some("london"))]] {
        let path = with_query(
            SEGMENTS,
            &[&filters[..], &[("pageToken", Some(token))]].concat(),
        );
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "pageToken");
    }
    for id in ["%00", &"x".repeat(256), "%ff"] {
        let path = format!("/v1/personalization/users/{id}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "userId");
    }
    let mut grpc = PersonalizationServiceClient::new(clients.grpc.channel.clone());
    for request in [
        ListSegmentRequest::default(),
        ListSegmentRequest {
            city: Some(String::new()),
            ..ListSegmentRequest::default()
        },
        ListSegmentRequest {
            preference: vec!["x".into()],
            ..ListSegmentRequest::default()
        },
    ] {
        let status = grpc.list_segment(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

async fn database(world: &World) -> PgPool {
    PgPool::connect(&world.database.url)
        .await
        .expect("connected")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_leaves_nothing_and_does_not_come_back() {
    let mut log = users();
    log.push(deleted("u1", "20"));
    log.push(updated(
        "u1",
        "21",
        json!({"preferences.theme": "dark", "bio": "x".repeat(70_000)}),
    ));
    log.push(lives_in("u1", "22", "GB", "London"));
    log.push(updated(
        "u1",
        "23",
        json!({"preferences.theme": "x".repeat(70_000)}),
    ));
    let (world, running) = projected(&log).await;
    let answer = running.rest.get(&profile_path("u1")).await;
    assert_problem("u1", &answer, 404);
    let filters = [("countryCode", "GB"), ("preference", "theme:dark")];
    assert_eq!(segment(&running.rest, &filters).await, ["u2"]);
    let pool = database(&world).await;
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT 'state', state::text FROM personalization_live.users WHERE user_id = 'u1'
         UNION ALL SELECT 'member', facet::text FROM personalization_live.segment_members WHERE user_id = 'u1'",
    )
    .fetch_all(&pool)
    .await
    .expect("rows");
    let state = r#"{"preferences":{},"book":{},"isDeleted":true}"#;
    assert_eq!(rows, [("state".to_owned(), state.to_owned())]);
    let streets: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM personalization_live.users WHERE state::text ~ 'Secret'",
    )
    .fetch_one(&pool)
    .await
    .expect("a count");
    assert_eq!(streets, 0);
}

/// Each partition has users of its own and the same 40 users. What is left of these does not depend on the order in which
/// the partitions were read, so answers and members are known.
#[tokio::test(flavor = "multi_thread")]
async fn users_in_several_partitions_have_the_facets_of_their_profiles() {
    let world = of_personalization(World::shared(3).await);
    let mut log = Vec::new();
    for n in 0..25 {
        for user in 0..40 {
            for partition in 0..3 {
                let fields = json!({(format!("preferences.p{partition}")): n, "languagePreference": format!("l{n}")});
                let id = format!("{n}-{user}-{partition}");
                let payload = json!({"updatedFields": fields});
                log.push(event(
                    partition,
                    &format!("u{user:02}"),
                    &id,
                    "UserProfileUpdated",
                    payload,
                ));
            }
        }
    }
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(
        &running.rest,
        &Ends::from([(0, 1_000), (1, 1_000), (2, 1_000)]),
    )
    .await;
    let all: Vec<String> = (0..40).map(|user| format!("u{user:02}")).collect();
    for partition in 0..3 {
        let last = format!("p{partition}:24");
        assert_eq!(segment(&running.rest, &[("preference", &last)]).await, all);
    }
    assert_members_are_of_profiles(&world, &running.rest, &all).await;
}

/// Asserts that the rows of members are as many as users have facets, and that each user is found by each.
async fn assert_members_are_of_profiles(world: &World, rest: &Rest, users: &[String]) {
    let mut expected = 0;
    for user in users {
        let profile = profile(rest, user).await;
        let mut filters: Vec<(&str, String)> = Vec::new();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        filters.extend(text(&profile["languagePreference"]).map(|value| ("language", value)));
        filters
            .extend(text(&profile["location"]["countryCode"]).map(|value| ("countryCode", value)));
        filters.extend(text(&profile["location"]["city"]).map(|value| ("city", value)));
        if let Some(preferences) = profile["preferences"].as_object() {
            let mut leaves = Vec::new();
            leaves_of("", preferences, &mut leaves);
            filters.extend(leaves.into_iter().map(|leaf| ("preference", leaf)));
        }
        expected += filters.len() as i64;
        // A name with a colon can't be asked for.
        let asked = filters.iter().filter(|(_, value)| !value.contains("a:b:"));
        for (name, value) in asked.take(10) {
            let path = with_query(SEGMENTS, &[(name, Some(value)), ("pageSize", Some("1000"))]);
            let found = rest.get(&path).await.json();
            let ids = found["userIds"].as_array().expect("ids");
            assert!(
                ids.contains(&json!(user)),
                "{user} by {name}={value}: {found}"
            );
        }
    }
    let members: i64 =
        sqlx::query_scalar("SELECT count(*) FROM personalization_live.segment_members")
            .fetch_one(&database(world).await)
            .await
            .expect("a count");
    assert_eq!(members, expected);
}

fn leaves_of(path: &str, object: &Map<String, Value>, leaves: &mut Vec<String>) {
    for (name, value) in object {
        match value {
            Value::Object(inner) => leaves_of(&format!("{path}{name}."), inner, leaves),
            Value::String(text) => leaves.push(format!("{path}{name}:{text}")),
            Value::Bool(_) | Value::Number(_) => leaves.push(format!("{path}{name}:{value}")),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preferences_of_more_than_64_kib_are_a_dead_letter() {
    let world = of_personalization(World::shared(2).await);
    let large =
        |name: &str, bytes: usize| json!({(format!("preferences.{name}")): "x".repeat(bytes)});
    let log = [
        updated("u", "1", large("a", 40_000)),
        updated("u", "2", large("b", 40_000)),
        updated("u", "3", json!({"preferences.c": 1})),
        updated("v", "4", json!({"preferences.c": 1})),
        updated("u", "5", json!({"communicationPreferences.d": 1})),
        updated(
            "w",
            "6",
            json!({"communicationPreferences": {"x": "y".repeat(66_000)}}),
        ),
        updated("w", "7", json!({"bio": "b"})),
        updated(
            "x",
            "8",
            json!({(format!("preferences{}", ".a".repeat(100_000))): 1}),
        ),
    ];
    let writer = world.broker.writer();
    writer.write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let lag = caught_up(rest, &Ends::from([(0, 8), (1, 0)])).await;
    assert_eq!(lag["personalization"][&0]["deadLettered"], 6);
    assert_eq!(lag["personalization"][&0]["applied"], 2);
    let word = |letter: &Value, name: &str| letter[name].as_str().unwrap_or("-").to_owned();
    let letters: Vec<_> = dead_letters(rest, &[("domain", Some("personalization"))])
        .await
        .iter()
        .map(|letter| {
            (
                letter["offset"].clone(),
                word(letter, "class"),
                word(letter, "reason"),
                word(letter, "field"),
            )
        })
        .collect();
    let letter = |offset: i64, class: &str, reason: &str, field: &str| {
        (
            json!(offset),
            class.to_owned(),
            reason.to_owned(),
            field.to_owned(),
        )
    };
    assert_eq!(
        letters,
        [
            letter(1, "data", "object_too_large", "preferences"),
            letter(2, "blocked", "blocked", "-"),
            letter(4, "blocked", "blocked", "-"),
            letter(5, "data", "object_too_large", "communicationPreferences"),
            letter(6, "blocked", "blocked", "-"),
            letter(7, "data", "too_deep", "preferences"),
        ]
    );
    let found = profile(rest, "v").await;
    assert_eq!(found["preferences"], json!({"c": 1}));
    let answer = rest.get(&profile_path("u")).await;
    assert_eq!(answer.header("sightline-incomplete"), "dead-letters");
    assert_eq!(answer.json()["preferences"]["b"], Value::Null);

    // A retry fails again while nothing has changed. Once an event of another partition has made room, it succeeds.
    retry_all(rest, "personalization").await;
    let open = || {
        dead_letters(
            rest,
            &[
                ("domain", Some("personalization")),
                ("state", Some("parked")),
            ],
        )
    };
    assert_eq!(open().await.len(), 6);
    let room = json!({"updatedFields": {"preferences.a": null}});
    let cleared = event(1, "u", "9", "UserProfileUpdated", room);
    writer.write(&world.topic, &[cleared]).await;
    caught_up(rest, &Ends::from([(0, 8), (1, 1)])).await;
    retry_all(rest, "personalization").await;
    let found = profile(rest, "u").await;
    assert_eq!(found["preferences"]["a"], Value::Null);
    assert_eq!(found["preferences"]["b"], json!("x".repeat(40_000)));
    assert_eq!(found["preferences"]["c"], 1);
    assert_eq!(found["communicationPreferences"], json!({"d": 1}));

    // Without it, the rest of the key goes on.
    let first = &open().await[0];
    assert_eq!(first["key"], "w");
    let path = format!(
        "/v1/dead-letters/{}/discard",
        first["id"].as_str().expect("an id")
    );
    operate(rest, &path, json!({"reason": "nobody needs it"})).await;
    retry_all(rest, "personalization").await;
    assert_eq!(profile(rest, "w").await["bio"], "b");
    assert_eq!(open().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_preferences_are_stored_and_answered() {
    // As deep as JSON may be, in both of an event's shapes and by dotted names.
    let deep = |levels: usize| (1..levels).fold(json!({"leaf": 1}), |inner, _| json!({"a": inner}));
    let keys: Map<String, Value> = (0..4_000).map(|n| (format!("k{n}"), json!(n))).collect();
    let odd = json!({
        "": "empty", "a.b": "dotted", "a": {"b": "nested", "": 0}, "\u{0}": "nul\u{0}", "😀": "\u{2028}", "n": 1e308,
        "i": i64::MIN, "list": [[1], {"x": "y"}, null], "null": null,
    });
    let log = [
        updated("deep", "1", json!({"preferences": deep(124)})),
        updated(
            "dots",
            "2",
            json!({(format!("preferences{}", ".a".repeat(126))): true}),
        ),
        updated("many", "3", json!({"preferences": keys})),
        updated("odd", "4", json!({"preferences": odd})),
        lives_in("long", "5", &"c".repeat(3_000), &"ß".repeat(300_000)),
        updated(
            "long",
            "6",
            json!({"languagePreference": "l".repeat(500_000)}),
        ),
        updated(
            &"\u{1F980}".repeat(255),
            "7",
            json!({"preferences.a.b": "dotted"}),
        ),
    ];
    let duplicate = r#"{"eventType":"UserProfileUpdated","eventId":"8","eventTimestamp":"2026-10-01T00:00:00Z","payload":
        {"userId":"twice","profileId":"p","updatedFields":{"preferences":{"a":1,"b":{"x":1},"a":2,"b":{"y":1}}}}}"#;
    let mut twice = log[0].clone();
    twice.key = Some(b"twice".to_vec());
    twice.value = Some(duplicate.into());
    let log = [&log[..], &[twice]].concat();
    let (world, running) = projected(&log).await;
    let rest = &running.rest;
    let all = ["deep", "dots", "many", "odd", "long", "twice"].map(str::to_owned);
    let mut grpc = PersonalizationServiceClient::new(running.grpc.channel.clone());
    for user in &all {
        let answer = rest.get(&profile_path(user)).await;
        assert_eq!(answer.status, 200, "{user}");
        let user_id = user.clone();
        assert!(
            grpc.get_profile(GetProfileRequest { user_id })
                .await
                .is_ok(),
            "{user}"
        );
    }
    assert_eq!(
        profile(rest, "twice").await["preferences"],
        json!({"a": 2, "b": {"y": 1}})
    );
    let found = profile(rest, "odd").await["preferences"].clone();
    let expected = json!({
        "": "empty", "a.b": "dotted", "a": {"b": "nested", "": 0}, "\u{FFFD}": "nul\u{FFFD}", "😀": "\u{2028}",
        "n": 1e308, "i": i64::MIN, "list": [[1], {"x": "y"}, null],
    });
    assert_eq!(found, expected);
    let crabs = "\u{1F980}".repeat(255);
    for (preference, users) in [
        ("a.b:dotted", vec!["odd", &crabs]),
        ("a.b:nested", vec!["odd"]),
        ("a.:0", vec!["odd"]),
        ("n:1e+308", vec!["odd"]),
        ("i:-9223372036854775808", vec!["odd"]),
        ("k3999:3999", vec!["many"]),
        ("list:1", vec![]),
    ] {
        assert_eq!(
            segment(rest, &[("preference", preference)]).await,
            users,
            "{preference}"
        );
    }
    let path = format!("{}.leaf:1", vec!["a"; 123].join("."));
    assert_eq!(segment(rest, &[("preference", &path)]).await, ["deep"]);
    let country = "C".repeat(3_000);
    assert_eq!(segment(rest, &[("countryCode", &country)]).await, ["long"]);

    // Later events are folded onto what was stored.
    let more: Vec<Record> = all
        .iter()
        .map(|user| updated(user, &format!("more-{user}"), json!({"bio": "b"})))
        .collect();
    world.broker.writer().write(&world.topic, &more).await;
    wait_until(SOON, "all have a biography", async || {
        for user in &all {
            let profile = rest.get(&profile_path(user)).await.json();
            if profile["bio"] != "b" {
                return Err(format!("{user} has none"));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_view_is_the_same() {
    let Some(broker) = Broker::real() else { return };
    let world = of_personalization(World::new(broker, Database::create().await, 1).await);
    let log = users();
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let rest = &running.rest;
    let ends = Ends::from([(0, log.len() as i64)]);
    caught_up(rest, &ends).await;
    let names = ["u1", "u2", "u3", "u4", "new", "Z/ü 😀"].map(str::to_owned);
    let mut before = Vec::new();
    for user in &names {
        before.push(profile(rest, user).await);
    }
    project(rest, "personalization", "rebuild", json!({})).await;
    built(rest, "personalization", log.len() as i64).await;
    // Refused while the new version is behind, and where the two differ.
    wait_until(SOON, "the switch", async || {
        let path = "/v1/projections/personalization/switch";
        let answer = rest.try_post(path, &json!({"compare": true})).await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    caught_up(rest, &ends).await;
    for (user, before) in names.iter().zip(before) {
        assert_eq!(profile(rest, user).await, before);
    }
    assert_members_are_of_profiles(&world, rest, &names).await;
}
