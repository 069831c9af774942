//! Compares the order domain's answers with the reference fold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sightline::proto::order::v1::{
    BatchGetCustomersRequest, GetCustomerRequest, ListAddressChangesRequest,
    ListCustomerAddressesRequest,
};

use super::{
    Compared, Depth, Differences, Moment, called, called_pages, get, moments, pages, rows, sampled,
    written,
};
use crate::app::Clients;
use crate::client::{
    Grpc, Rest, addresses_json, changes_json, customer_json, customer_path, escape, timestamp,
    with_query,
};
use crate::reference::{Customers, Folds, normal};

/// The path of the feed.
pub const FEED: &str = "/v1/order/address-changes";

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, view) = (&clients.rest, folds.view::<Customers>());
    let ids = view.ids();
    let customers = ids
        .iter()
        .map(|id| get(rest, customer_path(id), view.answer(id)));
    wrong.compare_all(customers).await;
    let moments = moments(&ids, depth, |id| view.instants(id));
    let addresses = moments
        .iter()
        .map(|(id, at)| get(rest, addresses_path(id, *at), view.addresses(id, *at)));
    wrong.compare_all(addresses).await;
    let feeds = feeds(folds);
    let whole = read_feed(rest, &Filter::default(), 1000).await;
    if !folds.order_is_known {
        let mut said = by_partition(whole, &feeds);
        for (partition, feed) in &feeds {
            let said = said.remove(partition).unwrap_or_default();
            let expected: Vec<&Value> = feed.iter().collect();
            assert_same(
                &format!("the feed, partition {partition}"),
                &said,
                &expected,
            );
        }
        assert!(said.is_empty(), "changes that the fold lacks: {said:?}");
        return;
    }
    compare_feed("the feed", whole.clone(), &feeds, &Filter::default(), wrong);
    if depth == Depth::Thorough {
        compare_grpc(&clients.grpc, view, &ids, &moments, wrong).await;
        compare_batches(clients, view, &ids, wrong).await;
        compare_filtered_feeds(clients, &whole, &feeds, wrong).await;
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
    moments: &[Moment<'_>],
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
    let sampled = sampled(ids);
    let of_sampled = moments.iter().filter(|(id, _)| sampled.contains(id));
    let addresses = of_sampled.map(|(id, at)| async move {
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
    clients: &Clients,
    view: &Customers,
    ids: &[String],
    wrong: &mut Differences,
) {
    let path = "/v1/order/customers:batchGet";
    for some in ids.chunks(100) {
        let query: Vec<(&str, Option<&str>)> =
            some.iter().map(|id| ("userIds", Some(&**id))).collect();
        let answer = clients.rest.get(&with_query(path, &query)).await.json();
        compare_batch("GET :batchGet", view, some, answer, wrong);
    }
    for some in ids.chunks(1000) {
        let answer = clients.rest.post(path, &json!({"userIds": some})).await;
        compare_batch("POST :batchGet", view, some, answer.json(), wrong);
        let request = BatchGetCustomersRequest {
            user_ids: some.to_vec(),
        };
        let answer = clients.grpc.order().batch_get_customers(request).await;
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
    let customers: Vec<Value> = customers.into_iter().map(normal).collect();
    let expected = ids.iter().filter_map(|id| view.answer(id)).map(normal);
    let expected: Vec<Value> = expected.collect();
    wrong.compare_lists(how, customers.iter(), expected.iter());
}

/// Filters of the feed.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    pub user: Option<String>,
    pub significant: Option<bool>,
    pub since: Option<DateTime<Utc>>,
    pub after: Option<String>,
}

impl Filter {
    /// Whether an entry passes all filters but `after`.
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

/// Reads the whole feed over REST, in pages of `size` changes.
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

/// Reads the whole feed over gRPC, in pages of `size` changes.
pub async fn call_feed(grpc: &Grpc, filter: &Filter, size: i32) -> Vec<Value> {
    let pages = called_pages("changes", async |page_token| {
        let request = ListAddressChangesRequest {
            user_id: filter.user.clone(),
            significant: filter.significant,
            since: filter.since.map(timestamp),
            after: filter.after.clone(),
            page_size: size,
            page_token,
        };
        called(
            grpc.order().list_address_changes(request).await,
            changes_json,
        )
    });
    rows(pages.await, "changes")
}

/// The cursors of changes.
pub fn cursors(changes: &[Value]) -> Vec<String> {
    let cursor = |change: &Value| change["cursor"].as_str().expect("a cursor").to_owned();
    changes.iter().map(cursor).collect()
}

/// The fold's feed by partition, in the normal form.
type Feeds = BTreeMap<i32, Vec<Value>>;

fn feeds(folds: &Folds) -> Feeds {
    let partitions = folds.partitions();
    partitions
        .map(|partition| {
            let feed = folds.view::<Customers>().feed(partition);
            (partition, feed.into_iter().map(normal).collect())
        })
        .collect()
}

/// Compares changes with the fold's changes that pass the filter: by partition, in order, without cursors.
fn compare_feed(
    how: &str,
    changes: Vec<Value>,
    feeds: &Feeds,
    filter: &Filter,
    wrong: &mut Differences,
) {
    let distinct: HashSet<String> = cursors(&changes).into_iter().collect();
    assert_eq!(
        distinct.len(),
        changes.len(),
        "{how}: two changes have the same cursor"
    );
    let mut said = by_partition(changes, feeds);
    let empty = (-1, Vec::new());
    for (partition, feed) in feeds.iter().chain([(&empty.0, &empty.1)]) {
        let passing = feed.iter().filter(|entry| filter.passes(entry));
        let how = format!("{how}, partition {partition}");
        let said = said.remove(partition).unwrap_or_default();
        wrong.compare_lists(&how, said.iter(), passing);
    }
}

/// Changes by the partition of their event in the fold, -1 for those that the fold lacks; without cursors, in the
/// normal form. A user's events are on several partitions if some were added.
fn by_partition(changes: Vec<Value>, feeds: &Feeds) -> BTreeMap<i32, Vec<Value>> {
    let event = |entry: &Value| (entry["userId"].to_string(), entry["eventId"].to_string());
    let mut partition_of = HashMap::new();
    for (partition, feed) in feeds {
        for entry in feed {
            partition_of.insert(event(entry), *partition);
        }
    }
    let mut said: BTreeMap<i32, Vec<Value>> = BTreeMap::new();
    for mut change in changes {
        change.as_object_mut().expect("a change").remove("cursor");
        let partition = partition_of.get(&event(&change)).copied().unwrap_or(-1);
        said.entry(partition).or_default().push(normal(change));
    }
    said
}

/// Asserts that two lists hold the same changes of every user, in the same order. Across partitions, pages
/// promise no more than that, and a user's events are on one partition.
pub fn assert_same(how: &str, said: &[Value], expected: &[&Value]) {
    fn by_user<'a>(
        changes: impl Iterator<Item = &'a Value>,
    ) -> BTreeMap<Option<&'a str>, Vec<[Option<&'a str>; 3]>> {
        let mut by_user: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for change in changes {
            let identity = ["addressId", "kind", "eventId"].map(|name| change[name].as_str());
            by_user
                .entry(change["userId"].as_str())
                .or_default()
                .push(identity);
        }
        by_user
    }
    let (said, expected) = (by_user(said.iter()), by_user(expected.iter().copied()));
    for (user, expected) in &expected {
        assert_eq!(said.get(user), Some(expected), "{how}, of {user:?}");
    }
    assert_eq!(
        said.len(),
        expected.len(),
        "{how}: changes of further users"
    );
}

async fn compare_filtered_feeds(
    clients: &Clients,
    whole: &[Value],
    feeds: &Feeds,
    wrong: &mut Differences,
) {
    let rest = &clients.rest;
    // Late, so that few changes follow and are read quickly.
    let Some(late) = whole.get(whole.len() * 9 / 10) else {
        return;
    };
    let since = DateTime::parse_from_rfc3339(late["occurredAt"].as_str().expect("text"));
    let since = Some(since.expect("a time").to_utc());
    let user = Some(late["userId"].as_str().expect("text").to_owned());
    let filter = |user: &Option<String>, significant, since| Filter {
        user: user.clone(),
        significant,
        since,
        after: None,
    };
    let unknown = Some("nobody".to_owned());
    let (over_rest, over_both) = (true, false);
    let filters = [
        (filter(&None, Some(true), None), over_rest),
        (filter(&None, Some(false), since), over_both),
        (filter(&None, None, since), over_both),
        (filter(&user, None, None), over_both),
        (filter(&user, Some(false), None), over_both),
        (filter(&user, Some(true), since), over_both),
        (filter(&unknown, None, None), over_both),
    ];
    for (filter, only_rest) in &filters {
        let how = format!("{filter:?}");
        let read = read_feed(rest, filter, 1000).await;
        compare_feed(&how, read, feeds, filter, wrong);
        if !only_rest {
            let called = call_feed(&clients.grpc, filter, 700).await;
            compare_feed(&format!("gRPC {how}"), called, feeds, filter, wrong);
        }
    }
    let filter = Filter::default();
    let called = call_feed(&clients.grpc, &filter, 400).await;
    compare_feed("the feed over gRPC", called, feeds, &filter, wrong);
    // Some users' changes in small pages.
    let some: BTreeSet<&str> = whole.iter().filter_map(|c| c["userId"].as_str()).collect();
    for user in some.into_iter().take(20) {
        let filter = Filter {
            user: Some(user.to_owned()),
            ..Filter::default()
        };
        for size in [1, 3] {
            let how = format!("{user:?} in pages of {size}");
            let changes = read_feed(rest, &filter, size).await;
            compare_feed(&how, changes, feeds, &filter, wrong);
        }
    }
    // Resumed late in the feed, and at its end.
    for n in [whole.len() * 7 / 8, whole.len() - 1] {
        for significant in [None, Some(true)] {
            let filter = Filter {
                after: Some(cursors(&whole[n..=n]).remove(0)),
                significant,
                ..Filter::default()
            };
            let rest_of_it = whole[n + 1..].iter();
            let expected: Vec<&Value> = rest_of_it.filter(|c| filter.passes(c)).collect();
            let how = format!("after change {n}, significant: {significant:?}");
            assert_same(&how, &read_feed(rest, &filter, 1000).await, &expected);
            let called = call_feed(&clients.grpc, &filter, 1000).await;
            assert_same(&format!("gRPC {how}"), &called, &expected);
        }
    }
}
