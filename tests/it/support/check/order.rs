//! The order domain's answers.

use super::{Compared, Depth, Differences, around, called, get, pages, written};
use crate::support::app::Running;
use crate::support::client::{
    Grpc, Rest, addresses_json, change_json, customer_json, customer_path, escape, timestamp,
    with_query,
};
use crate::support::fold::{Customers, Fold};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sightline::proto::order::v1::{
    BatchGetCustomersRequest, GetCustomerRequest, ListAddressChangesRequest,
    ListCustomerAddressesRequest,
};
use std::collections::{BTreeMap, HashSet};

/// The path of the feed.
pub const FEED: &str = "/v1/order/address-changes";

pub(super) async fn compare(
    running: &Running,
    fold: &Fold<Customers>,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, view) = (&running.rest, &fold.view);
    let ids = view.ids();
    let customers = ids
        .iter()
        .map(|id| get(rest, customer_path(id), view.answer(id)));
    wrong.compare_all(customers).await;
    let mut moments: Vec<(&String, Option<DateTime<Utc>>)> = Vec::new();
    for id in &ids {
        moments.push((id, None));
        let around = around(view.instants(id), depth);
        moments.extend(around.into_iter().map(|at| (id, Some(at))));
    }
    let addresses = moments
        .iter()
        .map(|(id, at)| get(rest, addresses_path(id, *at), view.addresses(id, *at)));
    wrong.compare_all(addresses).await;
    let feed = read_feed(rest, &Filter::default(), 1000).await;
    compare_feed("the feed", feed, fold, &Filter::default(), wrong);
    if depth == Depth::Thorough {
        compare_grpc(&running.grpc, view, &ids, &moments, wrong).await;
        compare_batches(running, view, &ids, wrong).await;
        compare_filtered_feeds(running, fold, wrong).await;
    }
}

/// The path of a customer's addresses.
pub fn addresses_path(id: &str, at: Option<DateTime<Utc>>) -> String {
    let at = at.map(written);
    let path = format!("/v1/order/customers/{}/addresses", escape(id));
    with_query(&path, &[("asOf", at.as_deref())])
}

async fn compare_grpc(
    grpc: &Grpc,
    view: &Customers,
    ids: &[String],
    moments: &[(&String, Option<DateTime<Utc>>)],
    wrong: &mut Differences,
) {
    let customers = ids.iter().map(|id| async move {
        let request = GetCustomerRequest {
            user_id: id.clone(),
        };
        let answer = grpc.order().get_customer(request).await;
        let said = called(answer, |answer| {
            customer_json(answer.customer.expect("a customer"))
        });
        Compared::new(format!("GetCustomer {id:?}"), said, view.answer(id))
    });
    wrong.compare_all(customers).await;
    let addresses = moments.iter().map(|(id, at)| async move {
        let request = ListCustomerAddressesRequest {
            user_id: (*id).clone(),
            as_of: at.map(timestamp),
        };
        let said = called(
            grpc.order().list_customer_addresses(request).await,
            addresses_json,
        );
        let how = format!("ListCustomerAddresses {id:?} {at:?}");
        Compared::new(how, said, view.addresses(id, *at))
    });
    wrong.compare_all(addresses).await;
}

async fn compare_batches(
    running: &Running,
    view: &Customers,
    ids: &[String],
    wrong: &mut Differences,
) {
    let path = "/v1/order/customers:batchGet";
    for some in ids.chunks(100) {
        let query: Vec<(&str, Option<&str>)> =
            some.iter().map(|id| ("userIds", Some(&**id))).collect();
        let answer = running.rest.get(&with_query(path, &query)).await.json();
        compare_batch("GET :batchGet", view, some, answer, wrong);
    }
    for some in ids.chunks(1000) {
        let answer = running.rest.post(path, &json!({"userIds": some})).await;
        compare_batch("POST :batchGet", view, some, answer.json(), wrong);
        let request = BatchGetCustomersRequest {
            user_ids: some.to_vec(),
        };
        let answer = running.grpc.order().batch_get_customers(request).await;
        let answer = answer.expect("an answer").into_inner();
        let customers: Vec<Value> = answer.customers.into_iter().map(customer_json).collect();
        let answer = json!({"customers": customers, "missing": answer.missing});
        compare_batch("BatchGetCustomers", view, some, answer, wrong);
    }
}

fn compare_batch(
    how: &str,
    view: &Customers,
    ids: &[String],
    said: Value,
    wrong: &mut Differences,
) {
    let missing = said.get("missing").and_then(Value::as_array);
    assert_eq!(missing.map_or(0, Vec::len), 0, "{how}: {said}");
    let customers = said["customers"].as_array().cloned().unwrap_or_default();
    let expected = ids.iter().filter_map(|id| view.answer(id)).collect();
    wrong.compare_lists(how, customers, expected);
}

/// What the feed is filtered by.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    pub user: Option<String>,
    pub significant: Option<bool>,
    pub since: Option<DateTime<Utc>>,
    pub after: Option<String>,
}

impl Filter {
    /// Whether an entry passes, wherever it stands.
    fn passes(&self, entry: &Value) -> bool {
        let at = || {
            DateTime::parse_from_rfc3339(entry["occurredAt"].as_str().expect("text"))
                .expect("a time")
                .to_utc()
        };
        self.user
            .as_ref()
            .is_none_or(|user| entry["userId"] == *user)
            && self
                .significant
                .is_none_or(|significant| entry["significant"] == significant)
            && self.since.is_none_or(|since| at() >= since)
    }
}

/// The whole feed over REST, in pages of this many.
pub async fn read_feed(rest: &Rest, filter: &Filter, size: usize) -> Vec<Value> {
    let significant = filter
        .significant
        .map(|significant| significant.to_string());
    let since = filter.since.map(written);
    let filters = [
        ("userId", filter.user.as_deref()),
        ("significant", significant.as_deref()),
        ("since", since.as_deref()),
        ("after", filter.after.as_deref()),
    ];
    pages(rest, FEED, &filters, "changes", size).await
}

/// The whole feed over gRPC.
pub async fn call_feed(grpc: &Grpc, filter: &Filter, size: i32) -> Vec<Value> {
    let mut changes = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAddressChangesRequest {
            user_id: filter.user.clone(),
            significant: filter.significant,
            since: filter.since.map(timestamp),
            after: filter.after.clone(),
            page_size: size,
            page_token,
        };
        let answer = grpc.order().list_address_changes(request).await;
        let answer = answer.unwrap_or_else(|status| panic!("{filter:?}: {status:?}"));
        assert!(
            answer
                .metadata()
                .contains_key("sightline-consistency-token")
        );
        let answer = answer.into_inner();
        changes.extend(answer.changes.into_iter().map(change_json));
        match answer.next_page_token {
            None => return changes,
            Some(token) => page_token = token,
        }
    }
}

/// The cursors of changes.
pub fn cursors(changes: &[Value]) -> Vec<String> {
    let cursor = |change: &Value| change["cursor"].as_str().expect("a cursor").to_owned();
    changes.iter().map(cursor).collect()
}

/// Compares changes with those of the fold that pass, partition by partition: each in its order, cursors aside.
fn compare_feed(
    how: &str,
    changes: Vec<Value>,
    fold: &Fold<Customers>,
    filter: &Filter,
    wrong: &mut Differences,
) {
    let distinct: HashSet<String> = cursors(&changes).into_iter().collect();
    assert_eq!(distinct.len(), changes.len(), "{how}: cursors are distinct");
    let expected = fold.partitions().map(|partition| {
        let mut feed = fold.view.feed(partition);
        feed.retain(|entry| filter.passes(entry));
        (partition, feed)
    });
    compare_partitions(how, changes, expected.collect(), wrong);
}

/// Compares changes, cursors aside, with those that are expected of each partition.
fn compare_partitions(
    how: &str,
    changes: Vec<Value>,
    expected: BTreeMap<i32, Vec<Value>>,
    wrong: &mut Differences,
) {
    let mut partition_of = BTreeMap::new();
    for (partition, feed) in &expected {
        for entry in feed {
            partition_of.insert(entry["userId"].to_string(), *partition);
        }
    }
    let mut said: BTreeMap<i32, Vec<Value>> = BTreeMap::new();
    for mut change in changes {
        change.as_object_mut().expect("a change").remove("cursor");
        let user = change["userId"].to_string();
        let partition = partition_of.get(&user).copied().unwrap_or(-1);
        said.entry(partition).or_default().push(change);
    }
    for (partition, feed) in expected {
        let how = format!("{how}, partition {partition}");
        wrong.compare_lists(&how, said.remove(&partition).unwrap_or_default(), feed);
    }
    for (_, changes) in said {
        wrong.compare_lists(
            &format!("{how}, of nobody who has any"),
            changes,
            Vec::new(),
        );
    }
}

/// Compares what follows a change in a list that was read as a whole, with that list.
fn compare_rest(how: &str, changes: Vec<Value>, whole: &[Value], wrong: &mut Differences) {
    // By user: a user's events share a partition.
    let by_user = |changes: &[Value]| {
        let mut by_user: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for change in changes {
            let mut change = change.clone();
            change.as_object_mut().expect("a change").remove("cursor");
            let user = change["userId"].to_string();
            by_user.entry(user).or_default().push(change);
        }
        by_user
    };
    let (mut said, expected) = (by_user(&changes), by_user(whole));
    for (user, expected) in expected {
        let how = format!("{how}, of {user}");
        wrong.compare_lists(&how, said.remove(&user).unwrap_or_default(), expected);
    }
    assert!(said.is_empty(), "{how}: {said:?} too");
}

async fn compare_filtered_feeds(
    running: &Running,
    fold: &Fold<Customers>,
    wrong: &mut Differences,
) {
    let rest = &running.rest;
    let whole = read_feed(rest, &Filter::default(), 1000).await;
    let Some(middle) = whole.get(whole.len() / 2) else {
        return;
    };
    let occurred = |change: &Value| {
        let at = DateTime::parse_from_rfc3339(change["occurredAt"].as_str().expect("text"));
        at.expect("a time").to_utc()
    };
    let user = Some(middle["userId"].as_str().expect("text").to_owned());
    let since = Some(occurred(middle));
    let filters = [
        Filter {
            significant: Some(true),
            ..Filter::default()
        },
        Filter {
            significant: Some(false),
            ..Filter::default()
        },
        Filter {
            since,
            ..Filter::default()
        },
        Filter {
            user: user.clone(),
            ..Filter::default()
        },
        Filter {
            user: user.clone(),
            since,
            ..Filter::default()
        },
        Filter {
            user: Some("nobody".into()),
            ..Filter::default()
        },
        Filter {
            since,
            significant: Some(true),
            ..Filter::default()
        },
        Filter {
            user,
            significant: Some(true),
            since,
            after: None,
        },
    ];
    for filter in &filters {
        let how = format!("{filter:?}");
        compare_feed(
            &how,
            read_feed(rest, filter, 1000).await,
            fold,
            filter,
            wrong,
        );
        let called = call_feed(&running.grpc, filter, 700).await;
        compare_feed(&format!("gRPC {how}"), called, fold, filter, wrong);
    }
    // Small pages, of some users.
    let some: HashSet<&str> = whole.iter().filter_map(|c| c["userId"].as_str()).collect();
    for user in some.into_iter().take(40) {
        let filter = Filter {
            user: Some(user.to_owned()),
            ..Filter::default()
        };
        for size in [1, 3] {
            let how = format!("{user:?} in pages of {size}");
            compare_feed(
                &how,
                read_feed(rest, &filter, size).await,
                fold,
                &filter,
                wrong,
            );
        }
    }
    assert_eq!(
        whole,
        call_feed(&running.grpc, &Filter::default(), 0).await,
        "the same over gRPC, in the same order, in pages as they come"
    );
    // Resumed here and there, and at the end.
    for n in (0..8).map(|n| whole.len() * n / 8).chain([whole.len() - 1]) {
        for significant in [None, Some(true)] {
            let filter = Filter {
                after: Some(cursors(&whole)[n].clone()),
                significant,
                ..Filter::default()
            };
            let mut expected = whole[n + 1..].to_vec();
            expected.retain(|entry| filter.passes(entry));
            let how = format!("after change {n}, significant: {significant:?}");
            compare_rest(&how, read_feed(rest, &filter, 1000).await, &expected, wrong);
            let called = call_feed(&running.grpc, &filter, 1000).await;
            compare_rest(&format!("gRPC {how}"), called, &expected, wrong);
        }
    }
}
