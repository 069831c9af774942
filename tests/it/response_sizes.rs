//! Pages and batches stay below the size that gRPC clients accept by default.

use std::time::Duration;

use serde_json::{Value, json};
use sightline::proto::fulfillment::v1::SearchAddressesRequest;
use sightline::proto::fulfillment::v1::fulfillment_service_client::FulfillmentServiceClient;
use sightline::proto::operations::v1::ListDeadLettersRequest;
use sightline::proto::operations::v1::operations_service_client::OperationsServiceClient;
use sightline::proto::order::v1::order_service_client::OrderServiceClient;
use sightline::proto::order::v1::{BatchGetCustomersRequest, ListAddressChangesRequest};
use sightline_testing::app::{Running, World};
use sightline_testing::broker::Record;
use sightline_testing::check::{Ends, caught_up};
use sightline_testing::client::{Rest, with_query};
use tonic_types::StatusExt;

use crate::requests::{assert_field, assert_problem};

/// A page and a batch hold no more bytes than these.
const MOST: usize = 3 * 1024 * 1024;
const PARTITIONS: i32 = 4;
/// Users with an address of 5 kB.
const USERS: usize = 700;
/// Users with an address of 50 kB.
const LARGE_USERS: usize = 30;
/// The user with one address of more than 3 MiB, whose events are a month older.
const HUGE: &str = "huge";
/// When the events of the others happened.
const SINCE: &str = "2026-10-01T00:00:00Z";
const BATCH: &str = "/v1/order/customers:batchGet";

/// Makes the records of one log.
#[derive(Default)]
struct Log(Vec<Record>);

impl Log {
    fn event(&mut self, partition: i32, kind: &str, time: &str, key: &str, data: Value) {
        let n = self.0.len();
        let value = json!({
            "specversion": "1.0", "type": format!("com.example.{kind}.v1"), "id": format!("event-{n}"),
            "source": "test", "time": time, "data": data,
        });
        self.0.push(Record {
            partition,
            key: Some(key.into()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: 1_790_000_000_000 + n as i64,
        });
    }

    fn address(&mut self, user: &str, time: &str, country: &str, notes: &str) {
        let partition = (self.0.len() % PARTITIONS as usize) as i32;
        let data = json!({
            "userId": user, "profileId": "p", "addressId": format!("{user}-home"), "addressType": "home",
            "isDefaultShipping": false, "isDefaultBilling": false, "country": country,
            "fullAddress": {"streetLine1": "1 Main Street", "country": country, "additionalNotes": notes},
        });
        self.event(partition, "UserAddressAdded", time, user, data);
    }
}

/// The ids of the users with large addresses, in the order in which the tests ask for them.
fn users() -> Vec<String> {
    let large = (0..LARGE_USERS).map(|n| format!("large-{n}"));
    large
        .chain((0..USERS).map(|n| format!("user-{n}")))
        .collect()
}

/// A process that has projected all of them, and dead letters with large keys.
async fn with_large_rows(world: &mut World) -> Running {
    world.set("SIGHTLINE_MAX_VALUE_BYTES", "1048576");
    let mut log = Log::default();
    for user in users() {
        let length = if user.starts_with("large") {
            50_000
        } else {
            5_000
        };
        log.address(&user, SINCE, "DE", &"x".repeat(length));
    }
    // An event holds less than 1 MiB, but each of these adds to the address.
    let early = "2026-09-01T00:00:00Z";
    log.address(HUGE, early, "US", "");
    let partition = log.0.last().expect("a record").partition;
    for field in [
        "additionalNotes",
        "companyName",
        "streetLine2",
        "contactName",
    ] {
        let data = json!({
            "userId": HUGE, "profileId": "p", "addressId": format!("{HUGE}-home"),
            "updatedFields": {field: "y".repeat(800_000)},
        });
        log.event(partition, "UserAddressUpdated", early, HUGE, data);
    }
    for n in 0..200 {
        // In JSON each of these characters takes six bytes.
        let key = format!("{n}{}", "\u{1}".repeat(4_000));
        let data = json!({"userId": 5});
        log.event(n % PARTITIONS, "UserRegistered", SINCE, &key, data);
    }
    world.broker.writer().write(&world.topic, &log.0).await;
    let mut ends: Ends = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    for record in &log.0 {
        *ends.get_mut(&record.partition).expect("a partition") += 1;
    }
    let running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    running
}

/// All pages of a list over REST, each of its rows by one field.
async fn pages(rest: &Rest, path: &str, list: &str, field: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut token = None::<String>;
    loop {
        let (path, filters) = path.split_once('?').unwrap_or((path, ""));
        let paging = [("pageSize", Some("1000")), ("pageToken", token.as_deref())];
        let path = format!("{}&{filters}", with_query(path, &paging));
        let answer = rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let size = answer.body.len();
        let page = answer.json();
        let rows = page[list].as_array().expect("a list");
        let values = rows
            .iter()
            .map(|row| row[field].as_str().expect("text").to_owned());
        let values: Vec<String> = values.collect();
        assert!(!values.is_empty(), "{path}: an empty page");
        assert!(
            size <= MOST || values.len() == 1,
            "{path}: {size} bytes, {} rows",
            values.len()
        );
        pages.push(values);
        match page["nextPageToken"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return pages,
        }
    }
}

/// Each once, in ascending order. Panics if one occurs twice.
fn distinct(pages: &[Vec<String>]) -> Vec<String> {
    let mut all = pages.concat();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "a row is on two pages");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_batches_stay_below_what_grpc_clients_accept() {
    let mut world = World::shared(PARTITIONS).await;
    let running = with_large_rows(&mut world).await;
    let mut expected: Vec<String> = users();
    expected.sort();
    tokio::join!(
        assert_feed(&running, &expected),
        assert_search(&running, &expected),
        assert_dead_letters(&running),
        assert_batches(&running),
    );
}

async fn assert_feed(running: &Running, expected: &[String]) {
    let path = format!("/v1/order/address-changes?since={SINCE}");
    let by_rest = pages(&running.rest, &path, "changes", "userId").await;
    assert!(by_rest.len() > 1, "one page");
    assert_eq!(distinct(&by_rest), expected);

    let mut client = OrderServiceClient::new(running.grpc.channel.clone());
    let since = Some(prost_types::Timestamp {
        seconds: SINCE
            .parse::<chrono::DateTime<chrono::Utc>>()
            .expect("a time")
            .timestamp(),
        nanos: 0,
    });
    let mut request = ListAddressChangesRequest {
        since,
        page_size: 1_000,
        ..Default::default()
    };
    let mut by_grpc: Vec<Vec<String>> = Vec::new();
    loop {
        let page = client.list_address_changes(request.clone()).await;
        let page = page.expect("a page").into_inner();
        by_grpc.push(
            page.changes
                .into_iter()
                .map(|change| change.user_id)
                .collect(),
        );
        match page.next_page_token {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    assert_eq!(by_grpc, by_rest);

    // A change that is too large for any page is alone on its page.
    let path = format!("/v1/order/address-changes?userId={HUGE}");
    let huge = pages(&running.rest, &path, "changes", "eventId").await;
    assert_eq!(distinct(&huge).len(), 5);
    assert_eq!(huge.last().map(Vec::len), Some(1));
    // Readers of the whole feed get past it.
    let all = pages(
        &running.rest,
        "/v1/order/address-changes",
        "changes",
        "eventId",
    )
    .await;
    assert_eq!(distinct(&all).len(), expected.len() + 5);
}

async fn assert_search(running: &Running, expected: &[String]) {
    let path = "/v1/fulfillment/addresses?countryCode=DE";
    let by_rest = pages(&running.rest, path, "addresses", "userId").await;
    assert!(by_rest.len() > 1, "one page");
    assert_eq!(distinct(&by_rest), expected);

    let mut client = FulfillmentServiceClient::new(running.grpc.channel.clone());
    let mut request = SearchAddressesRequest {
        country_code: Some("DE".into()),
        page_size: 1_000,
        ..Default::default()
    };
    let mut by_grpc: Vec<Vec<String>> = Vec::new();
    loop {
        let page = client.search_addresses(request.clone()).await;
        let page = page.expect("a page").into_inner();
        by_grpc.push(
            page.addresses
                .into_iter()
                .map(|address| address.user_id)
                .collect(),
        );
        match page.next_page_token {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    assert_eq!(by_grpc, by_rest);
    let all = pages(
        &running.rest,
        "/v1/fulfillment/addresses",
        "addresses",
        "userId",
    )
    .await;
    assert_eq!(distinct(&all).len(), expected.len() + 1);
    // One address is not refused, however large: there is no smaller answer.
    for path in [
        format!("/v1/fulfillment/users/{HUGE}/addresses"),
        format!("/v1/fulfillment/addresses/{HUGE}-home"),
        format!("/v1/order/customers/{HUGE}/addresses"),
    ] {
        let answer = running.rest.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.len() > MOST, "{path}");
    }
}

async fn assert_dead_letters(running: &Running) {
    let path = "/v1/dead-letters?domain=order";
    let by_rest = pages(&running.rest, path, "deadLetters", "id").await;
    assert!(by_rest.len() > 1, "one page");
    assert_eq!(distinct(&by_rest).len(), 200);

    let mut client = OperationsServiceClient::new(running.grpc.channel.clone());
    let mut request = ListDeadLettersRequest {
        domain: Some("order".into()),
        page_size: 1_000,
        ..Default::default()
    };
    let mut by_grpc: Vec<Vec<String>> = Vec::new();
    loop {
        let page = client.list_dead_letters(request.clone()).await;
        let page = page.expect("a page").into_inner();
        by_grpc.push(
            page.dead_letters
                .into_iter()
                .map(|letter| letter.id)
                .collect(),
        );
        match page.next_page_token {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    assert_eq!(by_grpc, by_rest);
}

/// How many ids fit, as a refusal says.
fn fitting(problem: &Value) -> usize {
    assert_eq!(problem["reason"], "RESPONSE_TOO_LARGE", "{problem}");
    assert_field("a batch", problem, "userIds");
    number(problem["detail"].as_str().expect("a detail"))
}

fn number(detail: &str) -> usize {
    let count = detail
        .split("the first ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no number in {detail}"))
}

async fn assert_batches(running: &Running) {
    let rest = &running.rest;
    let post = async |ids: &[String]| rest.post(BATCH, &json!({"userIds": ids})).await;
    // With an id that is given twice and an unknown one.
    let mut ids = users();
    ids.insert(1, ids[0].clone());
    ids.insert(2, "nobody".into());
    let refusal = post(&ids).await;
    let count = fitting(&assert_problem("a large batch", &refusal, 400));
    assert!(!refusal.token().is_empty(), "it says as of when");
    assert!((3..ids.len()).contains(&count), "{count}");
    let most = post(&ids[..count]).await;
    assert_eq!(most.status, 200);
    let customers = most.json()["customers"].as_array().map(Vec::len);
    assert_eq!(customers, Some(count - 2));
    assert!(
        (MOST - 100_000..=MOST).contains(&most.body.len()),
        "{}",
        most.body.len()
    );
    let one_more = post(&ids[..=count]).await;
    assert_eq!(fitting(&assert_problem("one more", &one_more, 400)), count);

    let mut client = OrderServiceClient::new(running.grpc.channel.clone());
    let request = |ids: &[String]| BatchGetCustomersRequest {
        user_ids: ids.to_vec(),
    };
    let status = client.batch_get_customers(request(&ids)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!(reason, Some("RESPONSE_TOO_LARGE"));
    let violations = &details.bad_request().expect("violations").field_violations;
    assert_eq!(violations[0].field, "user_ids");
    assert_eq!(number(status.message()), count);
    let most = client.batch_get_customers(request(&ids[..count])).await;
    assert_eq!(
        most.expect("an answer").into_inner().customers.len(),
        count - 2
    );

    // A customer that is too large for any batch can be read alone.
    let with_huge = |more: &[&str]| {
        let ids = [&[HUGE], more].concat();
        let ids = ids.iter().map(|id| format!("userIds={id}"));
        format!("{BATCH}?{}", ids.collect::<Vec<_>>().join("&"))
    };
    let alone = rest.get(&with_huge(&[])).await;
    assert_eq!(alone.status, 200);
    assert!(alone.body.len() > MOST);
    let refusal = rest.get(&with_huge(&["user-1"])).await;
    assert_eq!(fitting(&assert_problem("with another", &refusal, 400)), 1);
    // Behind others it is what does not fit.
    let path = format!("{BATCH}?userIds=user-1&userIds=user-2&userIds={HUGE}");
    let refusal = rest.get(&path).await;
    assert_eq!(fitting(&assert_problem("behind others", &refusal, 400)), 2);

    // A client for large users raises its limit.
    let mut large =
        OrderServiceClient::new(running.grpc.channel.clone()).max_decoding_message_size(16 << 20);
    let mut request = tonic::Request::new(request(&[HUGE.to_owned()]));
    request.set_timeout(Duration::from_secs(30));
    let found = large.batch_get_customers(request).await;
    assert_eq!(found.expect("an answer").into_inner().customers.len(), 1);
}

/// What is stored of an entry may be many times as large as what is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_ends_for_what_is_stored_has_a_token() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_MAX_VALUE_BYTES", "1048576");
    world.set("SIGHTLINE_DOMAINS", "audit");
    let mut log = Log::default();
    for n in 0..20 {
        let id = format!("p-{n}");
        let data = json!({"permissionId": id, "permissionName": "x".repeat(900_000), "action": "read", "subject": "books",
            "createdBy": "root"});
        log.event(0, "PermissionCreated", SINCE, &id, data);
    }
    world.broker.writer().write(&world.topic, &log.0).await;
    let running = world.serve().await;
    caught_up(&running.rest, &Ends::from([(0, 20)])).await;
    let found = pages(&running.rest, "/v1/audit/entries", "entries", "eventId").await;
    assert!(found.len() > 1, "{found:?}");
    assert_eq!(distinct(&found).len(), 20);
}
