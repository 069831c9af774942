//! Odd, wrong and hostile requests for addresses and their feed, and the headers and errors of their answers.

use http::Method;
use serde_json::{Value, json};
use sightline::proto::fulfillment::v1::{
    DefaultKind, GetAddressRequest, GetDefaultAddressRequest, ListAddressesRequest,
    SearchAddressesRequest,
};
use sightline::proto::order::v1::{ListAddressChangesRequest, ListCustomerAddressesRequest};
use sightline_testing::app::{Clients, Running, Shared, World};
use sightline_testing::broker::Record;
use sightline_testing::check::order::FEED;
use sightline_testing::check::{caught_up, folded};
use sightline_testing::client::{escape, with_query};
use tonic::Status;
use tonic_types::StatusExt;

use crate::requests::{assert_field, assert_problem};

const SEARCH: &str = "/v1/fulfillment/addresses";
const ADDRESSES: &str = "/v1/order/customers/u/addresses";
const SHIPPING: &str = "/v1/fulfillment/users/u/addresses";
const DEFAULT: &str = "/v1/fulfillment/users/u/default-address?kind=shipping";
const ADDRESS: &str = "/v1/fulfillment/addresses/a";

/// A process, which these tests share, with a user `u` that has the addresses `a`, `b`, `a/b` and `%2F`, of which
/// `a` is both defaults.
async fn with_addresses() -> Clients {
    static SHARED: Shared = Shared::const_new();
    SHARED.clients(start).await
}

async fn start() -> (World, Running) {
    let world = World::shared(1).await;
    let add = |n: usize, id: &str| {
        let value = json!({
            "eventType": "UserAddressAdded", "eventId": n.to_string(), "eventTimestamp": "2026-10-01T12:00:00Z",
            "payload": {"userId": "u", "profileId": "p", "addressId": id, "addressType": "home", "country": "DE",
                "isDefaultShipping": n == 0, "isDefaultBilling": n == 0},
        });
        Record {
            partition: 0,
            key: Some(b"u".to_vec()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: 1_790_000_000_000,
        }
    };
    let ids = ["a", "b", "a/b", "%2F"];
    let log: Vec<Record> = ids.iter().enumerate().map(|(n, id)| add(n, id)).collect();
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &folded(&log, 1).1).await;
    (world, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_instants_are_refused() {
    let rest = with_addresses().await.rest;
    let times = [
        "",
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00+01:00",
        "1767225600",
        "%ff",
        "2026-01-01T00:00:00Z%00",
        "-1",
        "10000-01-01T00:00:00Z",
    ];
    for path in [ADDRESSES, SHIPPING, DEFAULT, ADDRESS, FEED] {
        let name = if path == FEED { "since" } else { "asOf" };
        let mark = if path.contains('?') { '&' } else { '?' };
        for time in times {
            let path = format!("{path}{mark}{name}={time}");
            let problem = assert_problem(&path, &rest.get(&path).await, 400);
            if time != "%ff" {
                assert_field(&path, &problem, name);
            }
        }
        for time in [
            "2026-10-01T12:00:00Z",
            "2026-10-01t12:00:00.123456789z",
            "2026-10-01T14:00:00%2B02:00",
        ] {
            let path = format!("{path}{mark}{name}={time}");
            let answer = rest.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        if path != FEED {
            let long_ago = format!("{path}{mark}asOf=0001-01-01T00:00:00Z");
            let answer = rest.get(&long_ago).await;
            if path == ADDRESSES || path == SHIPPING {
                let body = answer.json();
                assert_eq!((answer.status, body), (200, json!({"addresses": []})));
            } else {
                assert_problem(&long_ago, &answer, 404);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_and_odd_ids_are_refused_or_found() {
    let rest = with_addresses().await.rest;
    let long = "x".repeat(256);
    let long_wide = escape(&"\u{1f980}".repeat(256));
    let longest = escape(&"\u{1f980}".repeat(255));
    for (before, after, field) in [
        ("/v1/order/customers/", "/addresses", "userId"),
        ("/v1/fulfillment/users/", "/addresses", "userId"),
        (
            "/v1/fulfillment/users/",
            "/default-address?kind=billing",
            "userId",
        ),
        ("/v1/fulfillment/addresses/", "", "addressId"),
    ] {
        for id in [
            "%00",
            "a%00b",
            "%ff",
            "%c3%28",
            "%ed%a0%80",
            &long,
            &long_wide,
        ] {
            let path = format!("{before}{id}{after}");
            let problem = assert_problem(&path, &rest.get(&path).await, 400);
            assert_field(&path, &problem, field);
            assert!(
                !problem.to_string().contains(&long),
                "the problem repeats the request"
            );
        }
        for id in [&*longest, "nobody", "u%2Fb", "%25", "%252F%252F", "a%20b"] {
            let path = format!("{before}{id}{after}");
            let problem = assert_problem(&path, &rest.get(&path).await, 404);
            assert_eq!(problem["reason"], "NOT_FOUND", "{path}");
        }
    }
    for (path, id) in [
        ("a%2Fb", "a/b"),
        ("%61%2f%62", "a/b"),
        ("%252F", "%2F"),
        ("b", "b"),
    ] {
        let answer = rest.get(&format!("{SEARCH}/{path}")).await;
        assert_eq!(
            (answer.status, &answer.json()["addressId"]),
            (200, &json!(id))
        );
    }
    for id in ["%00", "%ff", &long, &long_wide] {
        let path = format!("{FEED}?userId={id}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        if id != "%ff" {
            assert_field(&path, &problem, "userId");
        }
    }
    let unknown = rest.get(&format!("{FEED}?userId={longest}")).await;
    assert_eq!(
        (unknown.status, unknown.json()),
        (200, json!({"changes": []}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn values_outside_fixed_sets_are_refused() {
    let rest = with_addresses().await.rest;
    for kind in [
        "",
        "?kind=",
        "?kind=both",
        "?kind=SHIPPING",
        "?kind=DEFAULT_KIND_SHIPPING",
        "?kind=1",
    ] {
        let path = format!("/v1/fulfillment/users/u/default-address{kind}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "kind");
    }
    for validation in [
        "validation=",
        "validation=good",
        "validation=VALID",
        "validation=valid&validation=unheard",
        "validation=VALIDATION_STATUS_VALID",
        "validation=0",
    ] {
        let path = format!("{SEARCH}?{validation}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "validation");
    }
    for significant in ["", "maybe", "1", "TRUE"] {
        let path = format!("{FEED}?significant={significant}");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "significant");
    }
    for country in ["de", "DE", "dE", "%20de%09"] {
        let found = rest.get(&format!("{SEARCH}?countryCode={country}")).await;
        let found = found.json()["addresses"].as_array().map(Vec::len);
        assert_eq!(found, Some(4), "{country}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_page_sizes_tokens_and_cursors_are_refused() {
    let rest = with_addresses().await.rest;
    let long = "x".repeat(256);
    let first = rest.get(&format!("{FEED}?pageSize=1")).await.json();
    let feed_token = first["nextPageToken"].as_str().expect("more").to_owned();
    let cursor = first["changes"][0]["cursor"].as_str().expect("a cursor");
    let first = rest.get(&format!("{SEARCH}?pageSize=1")).await;
    let token = first.token().to_owned();
    let search_token = first.json()["nextPageToken"]
        .as_str()
        .expect("more")
        .to_owned();
    for path in [FEED, SEARCH] {
        for size in ["", "-1", "ten", "1.5", "%20", "0x10"] {
            let path = format!("{path}?pageSize={size}");
            let problem = assert_problem(&path, &rest.get(&path).await, 400);
            assert_field(&path, &problem, "pageSize");
        }
        for size in ["0", "1001", "2147483647", "99999999999999999999"] {
            let path = format!("{path}?pageSize={size}");
            let answer = rest.get(&path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert!(answer.json().get("nextPageToken").is_none(), "{path}");
        }
        let foreign = if path == FEED {
            &search_token
        } else {
            &feed_token
        };
        let cut = &feed_token[..feed_token.len() / 2];
        for bad in ["", "x", "%00", "AAAA", foreign, cursor, &token, cut, &long] {
            let page_token = if bad == "%00" { "\0" } else { bad };
            let path = with_query(path, &[("pageToken", Some(page_token))]);
            let problem = assert_problem(&path, &rest.get(&path).await, 400);
            assert_field(&path, &problem, "pageToken");
        }
    }
    let very_long = "A".repeat(40_000);
    let cut = &cursor[..cursor.len() - 1];
    let longer = format!("{cursor}{cursor}");
    for bad in [
        "x",
        "\0",
        "AAAA",
        "{}",
        "0",
        &token,
        &feed_token,
        &search_token,
        cut,
        &longer,
        &long,
        &very_long,
        "t/0@1",
        "event:1",
    ] {
        let path = with_query(FEED, &[("after", Some(bad))]);
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "after");
        assert!(
            problem.to_string().len() < 2_000,
            "the problem repeats the request"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_and_unknown_paths_are_refused() {
    let rest = with_addresses().await.rest;
    for path in [ADDRESSES, SHIPPING, DEFAULT, ADDRESS, FEED, SEARCH] {
        for method in [Method::POST, Method::DELETE, Method::PUT] {
            let media = [("content-type", "application/json")];
            let answer = rest.send(method, path, &media, b"{}").await;
            assert_problem(path, &answer, 405);
            assert!(answer.header("allow").contains("GET"), "{path}");
        }
    }
    for path in [
        "/v1/order/customers/u/addresses/a",
        "/v1/order/customers/u/addresses/",
        "/v1/order/address-changes/",
        "/v1/order/address-changes:other",
        "/v1/fulfillment/users/u",
        "/v1/fulfillment/users",
        "/v1/fulfillment/users/u/addresses/a",
        "/v1/fulfillment/addresses/",
        "/v1/fulfillment/addresses/a/b",
        "/v1/fulfillment",
    ] {
        assert_problem(path, &rest.get(path).await, 404);
    }
}

/// Asserts that a status is INVALID_ARGUMENT and names this field.
fn assert_invalid(what: &str, status: &Status, field: &str) {
    assert_eq!(
        status.code(),
        tonic::Code::InvalidArgument,
        "{what}: {status:?}"
    );
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!(reason, Some("INVALID_ARGUMENT"), "{what}");
    let violations = &details.bad_request().expect("violations").field_violations;
    let named = violations
        .iter()
        .any(|v| v.field.replace('_', "").to_lowercase().starts_with(field));
    assert!(named, "{what}: {violations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ids_and_instants_over_grpc_name_the_field() {
    let clients = with_addresses().await;
    let (mut order, mut fulfillment) = (clients.grpc.order(), clients.grpc.fulfillment());
    let bad_ids = [String::new(), "x".repeat(256), "a\0b".into()];
    let bad_times = [
        (i64::MAX, 0),
        (i64::MIN, 0),
        (0, -1),
        (0, 1_000_000_000),
        (253_402_300_800, 0),
        (-62_135_596_801, 0),
    ];
    let bad_times = bad_times.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
    let good = || "u".to_owned();
    let cases = bad_ids
        .iter()
        .map(|id| (id.clone(), None, "userid"))
        .chain(bad_times.iter().map(|at| (good(), Some(*at), "asof")));
    for (user_id, as_of, field) in cases {
        let what = format!("{user_id:?} {as_of:?}");
        let request = ListCustomerAddressesRequest {
            user_id: user_id.clone(),
            as_of,
        };
        let status = order.list_customer_addresses(request).await.unwrap_err();
        assert_invalid(&what, &status, field);
        let request = ListAddressesRequest {
            user_id: user_id.clone(),
            as_of,
        };
        let status = fulfillment.list_addresses(request).await.unwrap_err();
        assert_invalid(&what, &status, field);
        let request = GetDefaultAddressRequest {
            user_id: user_id.clone(),
            kind: DefaultKind::Billing as i32,
            as_of,
        };
        let status = fulfillment.get_default_address(request).await.unwrap_err();
        assert_invalid(&what, &status, field);
        let request = GetAddressRequest {
            address_id: user_id,
            as_of,
        };
        let status = fulfillment.get_address(request).await.unwrap_err();
        assert_invalid(&what, &status, &field.replace("user", "address"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_outside_enums_over_grpc_name_the_field() {
    let clients = with_addresses().await;
    let mut fulfillment = clients.grpc.fulfillment();
    for kind in [0, 3, -1] {
        let request = GetDefaultAddressRequest {
            user_id: "u".to_owned(),
            kind,
            as_of: None,
        };
        let status = fulfillment.get_default_address(request).await.unwrap_err();
        assert_invalid(&format!("kind {kind}"), &status, "kind");
    }
    for validation in [vec![9], vec![1, -1]] {
        let what = format!("{validation:?}");
        let request = SearchAddressesRequest {
            validation,
            ..SearchAddressesRequest::default()
        };
        let status = fulfillment.search_addresses(request).await.unwrap_err();
        assert_invalid(&what, &status, "validation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_pages_over_grpc_name_the_field() {
    let clients = with_addresses().await;
    let (mut order, mut fulfillment) = (clients.grpc.order(), clients.grpc.fulfillment());
    for (page_size, page_token, field) in [(-1, "", "pagesize"), (0, "AAAA", "pagetoken")] {
        let request = SearchAddressesRequest {
            page_size,
            page_token: page_token.into(),
            ..SearchAddressesRequest::default()
        };
        let status = fulfillment.search_addresses(request).await.unwrap_err();
        assert_invalid(field, &status, field);
        let request = ListAddressChangesRequest {
            page_size,
            page_token: page_token.into(),
            ..ListAddressChangesRequest::default()
        };
        let status = order.list_address_changes(request).await.unwrap_err();
        assert_invalid(field, &status, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_filters_of_the_feed_over_grpc_name_the_field() {
    let clients = with_addresses().await;
    let mut order = clients.grpc.order();
    let feeds = [
        (
            ListAddressChangesRequest {
                user_id: Some("x".repeat(256)),
                ..ListAddressChangesRequest::default()
            },
            "userid",
        ),
        (
            ListAddressChangesRequest {
                since: Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..ListAddressChangesRequest::default()
            },
            "since",
        ),
        (
            ListAddressChangesRequest {
                after: Some("AAAA".into()),
                ..ListAddressChangesRequest::default()
            },
            "after",
        ),
        (
            ListAddressChangesRequest {
                after: Some("x".repeat(1 << 16)),
                ..ListAddressChangesRequest::default()
            },
            "after",
        ),
    ];
    for (request, field) in feeds {
        let status = order.list_address_changes(request).await.unwrap_err();
        assert_invalid(field, &status, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_users_and_addresses_are_not_found_over_grpc() {
    let clients = with_addresses().await;
    let (mut order, mut fulfillment) = (clients.grpc.order(), clients.grpc.fulfillment());
    let not_found = |status: Status| {
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        assert_eq!(reason.as_deref(), Some("NOT_FOUND"));
        assert!(
            status
                .metadata()
                .contains_key("sightline-consistency-token")
        );
    };
    let unknown = || "nobody".to_owned();
    let request = ListCustomerAddressesRequest {
        user_id: unknown(),
        as_of: None,
    };
    not_found(order.list_customer_addresses(request).await.unwrap_err());
    let request = ListAddressesRequest {
        user_id: unknown(),
        as_of: None,
    };
    not_found(fulfillment.list_addresses(request).await.unwrap_err());
    let request = GetAddressRequest {
        address_id: unknown(),
        as_of: None,
    };
    not_found(fulfillment.get_address(request).await.unwrap_err());
    let request = GetDefaultAddressRequest {
        user_id: unknown(),
        kind: DefaultKind::Shipping as i32,
        as_of: None,
    };
    not_found(fulfillment.get_default_address(request).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_addresses_carry_token_and_etag() {
    let clients = with_addresses().await;
    for path in [
        ADDRESSES,
        SHIPPING,
        DEFAULT,
        ADDRESS,
        FEED,
        SEARCH,
        "/v1/order/address-changes?pageSize=2&userId=u",
        "/v1/order/customers/u/addresses?asOf=2026-10-01T12:00:00Z",
        "/v1/fulfillment/addresses/a?asOf=2026-10-01T12:00:00Z",
    ] {
        let answer = clients.rest.get(path).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, "private, no-cache"),
            "{path}"
        );
        let etag = answer.header("etag").to_owned();
        assert!(etag.starts_with("W/\"") && etag.len() > 8, "{path}: {etag}");
        assert!(!answer.token().is_empty() && answer.token().len() <= 4096);
        let again = [("if-none-match", &*etag)];
        let same = clients.rest.send(Method::GET, path, &again, &[]).await;
        assert_eq!((same.status, same.body.len()), (304, 0), "{path}");
        assert_eq!(
            (same.header("etag"), same.token()),
            (&*etag, answer.token()),
            "{path}"
        );
        let text = answer.text();
        assert!(
            !text.contains("null") && !text.contains("\"\""),
            "{path}: unknown values must be absent: {text}"
        );
        let ids = answer.json()["addresses"].as_array().map(|addresses| {
            let id = |address: &Value| address["addressId"].as_str().expect("text").to_owned();
            addresses.iter().map(id).collect::<Vec<_>>()
        });
        if let Some(ids) = ids.filter(|_| path != SEARCH) {
            assert_eq!(
                ids,
                ["%2F", "a", "a/b", "b"],
                "{path}: not in the order of ids"
            );
        }
    }
}
