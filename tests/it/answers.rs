//! What an answer says of itself: the state of its partitions, its age, what is missing from it, and whether the view
//! was ever complete.

use http::{HeaderValue, Method};
use prost::Message;
use serde_json::{Value, json};
use sightline::domains;
use sightline::proto::fulfillment::v1::SearchAddressesRequest;
use sightline::proto::order::v1::{
    BatchGetCustomersRequest, GetCustomerRequest, ListCustomerAddressesRequest,
};
use sightline_testing::app::{Running, SOON, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::check::{caught_up, folded};
use sightline_testing::client::{Answer, customer_path, timestamp};
use sightline_testing::database::Database;
use sightline_testing::operations::{dead_letters, project};
use sightline_testing::wait_until;
use sqlx::Connection;
use tonic::Code;
use tonic_types::StatusExt;

const STATE: &str = "sightline-state";
const LAG: &str = "sightline-lag-seconds";
const INCOMPLETE: &str = "sightline-incomplete";

fn event(event_type: &str, user: &str, id: &str, data: Value) -> Record {
    let event_type = format!("com.example.{event_type}.v1");
    Record::cloud_event(0, user, id, &event_type, data)
}

fn registered(user: &str, id: &str) -> Record {
    event(
        "UserRegistered",
        user,
        id,
        json!({"email": "a@example.org", "status": "active"}),
    )
}

fn broken(user: &str, id: &str) -> Record {
    event("UserRegistered", user, id, json!({"email": 7}))
}

/// Waits until an answer says this state; the process reads the lag once a second.
async fn says(running: &Running, path: &str, state: &str) -> Answer {
    wait_until(SOON, &format!("{path} says {state}"), async || {
        let answer = running.rest.get(path).await;
        if answer.header(STATE) == state {
            Ok(answer)
        } else {
            Err(format!("{} {:?}", answer.status, answer.headers))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_how_current_they_are() {
    let world = World::shared(1).await;
    let log = [registered("u-1", "e-1"), registered("u-2", "e-2")];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &folded(&log, 1).1).await;

    let known = customer_path("u-1");
    let answer = says(&running, &known, "caught_up").await;
    assert_eq!((answer.status, answer.header(LAG)), (200, "0"));
    assert_eq!(answer.headers.get(INCOMPLETE), None);
    let etag = answer.header("etag").to_owned();
    let unchanged = running
        .rest
        .send(Method::GET, &known, &[("if-none-match", &etag)], &[])
        .await;
    assert_eq!(
        (unchanged.status, unchanged.header(STATE)),
        (304, "caught_up")
    );
    let missing = running.rest.get(&customer_path("u-3")).await;
    assert_eq!((missing.status, missing.header(STATE)), (404, "caught_up"));
    for path in [
        "/v1/order/customers/u-1/addresses",
        "/v1/order/customers:batchGet?userIds=u-1&userIds=u-9",
        "/v1/order/address-changes",
        "/v1/fulfillment/users/u-1/addresses",
        "/v1/fulfillment/addresses",
        "/v1/fulfillment/addresses/a-1",
    ] {
        let answer = running.rest.get(path).await;
        assert_eq!(answer.header(STATE), "caught_up", "{path}");
        assert_eq!(answer.header(LAG), "0", "{path}");
    }
    // What is not read from a view says nothing.
    assert_eq!(
        running.rest.get("/v1/consistency").await.headers.get(STATE),
        None
    );

    // gRPC says the same: in the trailers of an answer, and in those of an error.
    let request = GetCustomerRequest {
        user_id: "u-1".into(),
    };
    let (status, answer) = running
        .raw_grpc
        .raw_grpc(
            "/sightline.order.v1.OrderService/GetCustomer",
            &[],
            &request.encode_to_vec(),
        )
        .await;
    assert_eq!(
        (status, &answer.trailers[STATE]),
        (0, &HeaderValue::from_static("caught_up"))
    );
    assert_eq!(answer.trailers[LAG], "0");
    let missing = running
        .grpc
        .order()
        .get_customer(GetCustomerRequest {
            user_id: "u-3".into(),
        })
        .await
        .expect_err("unknown");
    assert_eq!(missing.metadata().get(STATE).expect("a state"), "caught_up");
    assert_eq!(missing.metadata().get(LAG).expect("an age"), "0");

    // The state changes, what was answered does not.
    project(
        &running.rest,
        "order",
        "pause",
        json!({"reason": "maintenance"}),
    )
    .await;
    let paused = says(&running, &known, "paused").await;
    assert_eq!(paused.header("etag"), etag);
    assert_eq!(
        running
            .rest
            .get("/v1/fulfillment/users/u-1/addresses")
            .await
            .header(STATE),
        "caught_up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_a_user_say_that_dead_letters_are_missing() {
    let world = World::shared(1).await;
    let address = json!({
        "profileId": "p", "addressId": "a-2", "addressType": "home", "country": "DE", "isDefaultShipping": true,
        "isDefaultBilling": false, "fullAddress": {"city": "Berlin", "country": "DE"},
    });
    let log = [
        registered("u-1", "e-1"),
        registered("u-2", "e-2"),
        event("UserAddressAdded", "u-2", "e-5", address),
        broken("u-2", "e-3"),
        broken("u-3", "e-4"),
    ];
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    caught_up(&running.rest, &folded(&log, 1).1).await;

    let incomplete = async |path: &str| {
        let answer = running.rest.get(path).await;
        let value = answer
            .headers
            .get(INCOMPLETE)
            .map(|value| value.to_str().expect("ASCII").to_owned());
        (answer.status, value)
    };
    let yes = Some("dead-letters".to_owned());
    assert_eq!(incomplete(&customer_path("u-1")).await, (200, None));
    assert_eq!(incomplete(&customer_path("u-2")).await, (200, yes.clone()));
    assert_eq!(incomplete(&customer_path("u-3")).await, (404, yes.clone()));
    for path in [
        "/v1/order/customers/u-2/addresses",
        "/v1/order/customers/u-2/addresses?asOf=2026-10-02T00:00:00Z",
        "/v1/order/address-changes?userId=u-2",
        "/v1/fulfillment/users/u-2/addresses",
        "/v1/fulfillment/addresses/a-2",
        "/v1/fulfillment/addresses/a-2?asOf=2026-10-02T00:00:00Z",
    ] {
        assert_eq!(incomplete(path).await, (200, yes.clone()), "{path}");
    }
    assert_eq!(incomplete("/v1/order/address-changes").await, (200, None));

    let letters = dead_letters(
        &running.rest,
        &[("domain", Some("order")), ("key", Some("u-3"))],
    )
    .await;
    let id = letters[0]["id"].as_str().expect("an id");
    let discarded = running
        .rest
        .post(
            &format!("/v1/dead-letters/{id}/discard"),
            &json!({"reason": "test data"}),
        )
        .await;
    assert_eq!(discarded.status, 200, "{}", discarded.text());
    assert_eq!(incomplete(&customer_path("u-3")).await, (404, None));
}

/// The time parameters of all reads, each with a path that has it.
const TIMES: [(&str, &str); 5] = [
    ("/v1/order/customers/u-1/addresses", "asOf"),
    ("/v1/order/address-changes", "since"),
    ("/v1/fulfillment/users/u-1/addresses", "asOf"),
    (
        "/v1/fulfillment/users/u-1/default-address?kind=shipping",
        "asOf",
    ),
    ("/v1/fulfillment/addresses/a-1", "asOf"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_time_lacks_is_said() {
    let rest = crate::requests::empty().await.rest;
    for (path, field) in TIMES {
        for (time, problem) in [
            ("2026-10-01", "has no time and no offset"),
            ("2026-10-01Z", "has no time"),
            ("2026-10-01T12:00", "has no seconds and no offset"),
            ("2026-10-01T12:00:00", "has no offset"),
            (
                "2026-10-01T12:00:00+02:00",
                "has a space for the + of its offset, which is written %2B in a URL",
            ),
            ("yesterday", "is not a time of RFC 3339"),
            ("1790000000", "is not a time of RFC 3339"),
        ] {
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}{field}={time}");
            let answer = rest.get(&path).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            let violation = &answer.json()["fields"][0];
            assert_eq!(violation["field"], field, "{path}");
            let problem = format!("{problem}; like 2026-10-01T12:00:00Z");
            assert_eq!(violation["problem"], problem, "{path}");
        }
    }
}

/// Waits until a view is ready, so that a read of what is absent is answered.
async fn answers_with(running: &Running, path: &str, status: u16) {
    wait_until(
        SOON,
        &format!("{path} is answered with {status}"),
        async || {
            let answer = running.rest.get(path).await;
            if answer.status == status {
                Ok(())
            } else {
                Err(answer.text())
            }
        },
    )
    .await;
}

/// Asserts that every read that would say that something is absent is refused.
async fn refuses_absence(running: &Running) {
    for path in [
        customer_path("u-1").as_str(),
        "/v1/order/customers:batchGet?userIds=u-1",
        "/v1/order/customers/u-1/addresses",
        "/v1/order/customers/u-1/addresses?asOf=2026-10-02T00:00:00Z",
        "/v1/order/address-changes",
        "/v1/fulfillment/users/u-1/addresses",
        "/v1/fulfillment/users/u-1/default-address?kind=shipping",
        "/v1/fulfillment/addresses",
        "/v1/fulfillment/addresses/a-1",
        "/v1/fulfillment/addresses/a-1?asOf=2026-10-02T00:00:00Z",
        "/v1/notification/notifications",
        "/v1/notification/notifications/00000000-0000-4000-8000-000000000000",
        "/v1/search/users?q=ada",
        "/v1/search/suggestions?q=ada",
        "/v1/personalization/users/u-1",
        "/v1/personalization/segments?countryCode=DE",
        "/v1/analytics/users/u-1/activity",
        "/v1/audit/entries",
        "/v1/audit/entries?userId=u-1",
        "/v1/audit/alerts",
        "/v1/audit/users/u-1/access",
        "/v1/audit/roles/r-1?asOf=2026-10-02T00:00:00Z",
        "/v1/users/u-1",
        "/v1/users/u-1?domains=search",
    ] {
        let answer = running.rest.get(path).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert_eq!(answer.json()["reason"], "VIEW_NOT_READY", "{path}");
        let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=30).contains(&seconds), "{path}: {seconds}");
    }
    let request = BatchGetCustomersRequest {
        user_ids: vec!["u-1".into()],
    };
    let batch = running
        .grpc
        .order()
        .batch_get_customers(request)
        .await
        .expect_err("not ready");
    let search = running
        .grpc
        .fulfillment()
        .search_addresses(SearchAddressesRequest::default())
        .await
        .expect_err("not ready");
    for status in [batch, search] {
        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        assert_eq!(
            details.error_info().expect("a reason").reason,
            "VIEW_NOT_READY"
        );
        assert!(details.retry_info().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_a_topic_that_is_missing_is_not_ready() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    let other = sightline_testing::unique("missing");
    let topics = format!("{},{other}", world.topic);
    world.set("SIGHTLINE_KAFKA_TOPICS", &topics);
    world.set("SIGHTLINE_DOMAINS", "all");
    let running = world.serve().await;
    refuses_absence(&running).await;
    says(&running, &customer_path("u-1"), "caught_up").await;
    refuses_absence(&running).await;

    // An empty topic is complete at once.
    world.broker.create_topic(&other, 1).await;
    answers_with(&running, &customer_path("u-1"), 404).await;
    answers_with(&running, "/v1/fulfillment/addresses", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_not_ready_before_it_reaches_the_end_that_was_there() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 2).await;
    world.set("SIGHTLINE_DOMAINS", "all");
    let log = [
        registered("u-2", "e-1"),
        Record {
            partition: 1,
            ..registered("u-3", "e-2")
        },
    ];
    world.broker.writer().write(&world.topic, &log).await;
    // All views are paused before they are first projected.
    let migrated = world.run(&["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let mut connection = sqlx::PgConnection::connect(&world.database.url)
        .await
        .expect("connected");
    sqlx::query("UPDATE sightline.views SET paused_at = now(), paused_by = 'operator', pause_reason = 'test'")
        .execute(&mut connection)
        .await
        .expect("paused");
    let running = world.serve().await;
    let waiting = says(&running, &customer_path("u-2"), "paused").await;
    assert_eq!(waiting.json()["reason"], "VIEW_NOT_READY");
    assert!(
        waiting.json()["detail"]
            .as_str()
            .expect("text")
            .contains("paused")
    );
    refuses_absence(&running).await;

    for domain in domains::names() {
        project(&running.rest, domain, "resume", json!({})).await;
    }
    caught_up(&running.rest, &folded(&log, 2).1).await;
    answers_with(&running, &customer_path("u-1"), 404).await;
    answers_with(&running, "/v1/fulfillment/addresses", 200).await;
    // It stays so, whatever comes then.
    project(&running.rest, "order", "pause", json!({"reason": "test"})).await;
    let more = [registered("u-4", "e-3")];
    world.broker.writer().write(&world.topic, &more).await;
    says(&running, &customer_path("u-2"), "paused").await;
    assert_eq!(running.rest.get(&customer_path("u-4")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_say_nothing_are_refused() {
    let world = World::shared(1).await;
    let running = world.serve().await;
    let ahead = (chrono::Utc::now() + chrono::TimeDelta::minutes(3)).format("%Y-%m-%dT%H:%M:%SZ");
    let addresses_path = "/v1/order/customers/u-1/addresses";
    let search = "/v1/fulfillment/addresses";
    for (path, field) in [
        (format!("{addresses_path}?asOf="), "asOf"),
        (
            format!("{addresses_path}?as_of=2026-10-01T00:00:00Z"),
            "as_of",
        ),
        (format!("{addresses_path}?asOf={ahead}"), "asOf"),
        (
            format!("{}?asOf=2026-10-01T00:00:00Z", customer_path("u-1")),
            "asOf",
        ),
        (
            format!("/v1/fulfillment/addresses/a-1?asOf={ahead}"),
            "asOf",
        ),
        (format!("{search}?countryCode=USA"), "countryCode"),
        (format!("{search}?countryCode=U1"), "countryCode"),
        (format!("{search}?countryCode="), "countryCode"),
        (format!("{search}?countrycode=TR"), "countrycode"),
        (format!("{search}?validation[]=invalid"), "validation[]"),
        (format!("{search}?validation="), "validation"),
        (format!("{search}?pageToken="), "pageToken"),
        (format!("{search}?pageSize="), "pageSize"),
        ("/v1/order/address-changes?after=".into(), "after"),
        ("/v1/order/address-changes?userId=".into(), "userId"),
        (
            "/v1/order/address-changes?significant=".into(),
            "significant",
        ),
        ("/v1/order/address-changes?since=".into(), "since"),
        ("/v1/order/customers:batchGet?userIds=".into(), "userIds[0]"),
        ("/v1/dead-letters?domain=".into(), "domain"),
        ("/v1/consistency?domain=order".into(), "domain"),
    ] {
        let answer = running.rest.get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(answer.json()["fields"][0]["field"], field, "{path}");
    }
    let request = ListCustomerAddressesRequest {
        user_id: "u-1".into(),
        as_of: Some(timestamp(
            chrono::Utc::now() + chrono::TimeDelta::minutes(3),
        )),
    };
    let addresses = running.grpc.order().list_customer_addresses(request).await;
    let refused = addresses.expect_err("what will be then is not known");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("as_of lies"), "{refused}");
    // Clocks of callers differ.
    let soon = (chrono::Utc::now() + chrono::TimeDelta::seconds(30)).format("%Y-%m-%dT%H:%M:%SZ");
    answers_with(&running, &format!("{addresses_path}?asOf={soon}"), 404).await;
    // Changes may lie ahead, so the filter may, too.
    let path = "/v1/order/address-changes?since=2150-01-01T00:00:00Z";
    answers_with(&running, path, 200).await;
    let request = SearchAddressesRequest {
        country_code: Some("USA".into()),
        ..Default::default()
    };
    let refused = running
        .grpc
        .fulfillment()
        .search_addresses(request)
        .await
        .expect_err("not a country");
    assert_eq!(refused.code(), Code::InvalidArgument);
}
