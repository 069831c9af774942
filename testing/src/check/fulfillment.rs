//! Compares the fulfillment domain's answers with the reference fold.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sightline::proto::fulfillment::v1::{
    DefaultKind, GetAddressRequest, GetDefaultAddressRequest, ListAddressesRequest,
    SearchAddressesRequest, ValidationStatus,
};

use super::{
    Compared, Depth, Differences, Moment, called, called_pages, get, moments, pages, rows, sampled,
    written,
};
use crate::app::Clients;
use crate::client::{Grpc, escape, found_addresses_json, shipping_json, timestamp, with_query};
use crate::reference::{Folds, Parcels, STATUSES, normal};

const SEARCH: &str = "/v1/fulfillment/addresses";
const KINDS: [&str; 2] = ["shipping", "billing"];

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, view) = (&clients.rest, folds.view::<Parcels>());
    let (users, unknown, addresses) = (view.ids(), view.never_known(), view.address_ids());
    let mut of_users = moments(&users, depth, |id| view.instants(id));
    of_users.extend(unknown.iter().map(|id| (id, None)));
    let mut of_addresses = moments(&addresses, depth, |id| view.instants_of(id));
    // Addresses that only one user ever had are compared with that user's answers.
    let of_some = sampled(&addresses);
    of_addresses.retain(|(id, at)| at.is_none() || of_some.contains(id) || view.user_count(id) > 1);
    let lists = of_users
        .iter()
        .map(|(id, at)| get(rest, user_path(id, *at), view.addresses(id, *at)));
    wrong.compare_all(lists).await;
    let defaults = of_users.iter().enumerate().map(|(n, (id, at))| {
        // Alternates between the two kinds.
        let kind = (n + n / 2) % 2;
        let path = default_path(id, kind, *at);
        get(rest, path, view.default_address(id, kind, *at))
    });
    wrong.compare_all(defaults).await;
    let one = of_addresses
        .iter()
        .map(|(id, at)| get(rest, address_path(id, *at), view.address(id, *at)));
    wrong.compare_all(one).await;
    let all: Vec<Value> = view.all().into_iter().map(normal).collect();
    compare_searches(clients, &all, depth, wrong).await;
    if depth == Depth::Thorough {
        let of_some_users = sampled(&users);
        of_users.retain(|(id, _)| of_some_users.contains(id));
        of_addresses.retain(|(id, _)| of_some.contains(id));
        compare_grpc(&clients.grpc, view, &of_users, &of_addresses, wrong).await;
    }
}

/// The path of a user's addresses.
pub fn user_path(id: &str, at: Option<DateTime<Utc>>) -> String {
    let at = at.map(written);
    let path = format!("/v1/fulfillment/users/{}/addresses", escape(id));
    with_query(&path, &[("asOf", at.as_deref())])
}

/// The path of a user's default address.
pub fn default_path(id: &str, kind: usize, at: Option<DateTime<Utc>>) -> String {
    let at = at.map(written);
    let path = format!("/v1/fulfillment/users/{}/default-address", escape(id));
    with_query(
        &path,
        &[("kind", Some(KINDS[kind])), ("asOf", at.as_deref())],
    )
}

/// The path of an address.
pub fn address_path(id: &str, at: Option<DateTime<Utc>>) -> String {
    let at = at.map(written);
    let path = format!("{SEARCH}/{}", escape(id));
    with_query(&path, &[("asOf", at.as_deref())])
}

async fn compare_grpc(
    grpc: &Grpc,
    view: &Parcels,
    of_users: &[Moment<'_>],
    of_addresses: &[Moment<'_>],
    wrong: &mut Differences,
) {
    let lists = of_users.iter().map(|(id, at)| async move {
        let request = ListAddressesRequest {
            user_id: (*id).clone(),
            as_of: at.map(timestamp),
        };
        let answer = grpc.fulfillment().list_addresses(request).await;
        let said = called(answer, |answer| {
            let addresses: Vec<Value> = answer.addresses.into_iter().map(shipping_json).collect();
            json!({"addresses": addresses})
        });
        let how = format!("ListAddresses {id:?} {at:?}");
        Compared::new(how, said, view.addresses(id, *at))
    });
    wrong.compare_all(lists).await;
    let defaults = of_users.iter().enumerate().map(|(n, (id, at))| async move {
        let kind = n % 2;
        let request = GetDefaultAddressRequest {
            user_id: (*id).clone(),
            kind: [DefaultKind::Shipping, DefaultKind::Billing][kind] as i32,
            as_of: at.map(timestamp),
        };
        let answer = grpc.fulfillment().get_default_address(request).await;
        let said = called(answer, |answer| {
            shipping_json(answer.address.expect("an address"))
        });
        let how = format!("GetDefaultAddress {id:?} {kind} {at:?}");
        Compared::new(how, said, view.default_address(id, kind, *at))
    });
    wrong.compare_all(defaults).await;
    let one = of_addresses.iter().map(|(id, at)| async move {
        let request = GetAddressRequest {
            address_id: (*id).clone(),
            as_of: at.map(timestamp),
        };
        let answer = grpc.fulfillment().get_address(request).await;
        let said = called(answer, |answer| {
            shipping_json(answer.address.expect("an address"))
        });
        let how = format!("GetAddress {id:?} {at:?}");
        Compared::new(how, said, view.address(id, *at))
    });
    wrong.compare_all(one).await;
}

/// Compares whole searches over both surfaces: by country, by validation, and by both.
async fn compare_searches(clients: &Clients, all: &[Value], depth: Depth, wrong: &mut Differences) {
    let mut searches: Vec<(Option<&str>, Vec<&str>)> = vec![(None, vec![])];
    if depth == Depth::Thorough {
        searches.push((None, vec!["valid"]));
        searches.push((None, vec!["incomplete", "invalid"]));
        searches.push((None, STATUSES.to_vec()));
        let countries: BTreeSet<&str> = all
            .iter()
            .filter_map(|address| address["countryCode"].as_str())
            .map(str::trim)
            .filter(|country| {
                country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_alphabetic())
            })
            .collect();
        for country in countries {
            searches.push((Some(country), vec![]));
            searches.push((Some(country), vec!["invalid"]));
            searches.push((Some(country), vec!["incomplete", "valid"]));
        }
        searches.push((Some("AQ"), vec![]));
    }
    for (country, statuses) in searches {
        let mut expected: Vec<Value> = all
            .iter()
            .filter(|address| {
                let stored = address["countryCode"].as_str().map(str::trim);
                country.is_none_or(|country| stored == Some(country))
                    && (statuses.is_empty()
                        || statuses
                            .iter()
                            .any(|status| address["validation"]["status"] == *status))
            })
            .cloned()
            .collect();
        expected.sort_by_key(by_ids);
        // The country code in lower case; small pages only where they are not too many.
        let asked = country.map(str::to_ascii_lowercase);
        let mut filters = vec![("countryCode", asked.as_deref())];
        filters.extend(statuses.iter().map(|status| ("validation", Some(*status))));
        let mut in_order = Vec::new();
        for size in [1000, 7] {
            if size == 7 && expected.len() > 700 {
                continue;
            }
            let said = pages(&clients.rest, SEARCH, &filters, "addresses", size).await;
            let how = format!("GET {SEARCH} {country:?} {statuses:?}, pages of {size}");
            in_order = said.clone();
            compare_sorted(&how, said, &expected, wrong);
        }
        if depth == Depth::Thorough {
            let called = call_search(&clients.grpc, country, &statuses).await;
            let how = format!("SearchAddresses {country:?} {statuses:?}");
            assert_eq!(
                called.iter().map(by_ids).collect::<Vec<_>>(),
                in_order.iter().map(by_ids).collect::<Vec<_>>(),
                "{how}: the same order every time"
            );
            compare_sorted(&how, called, &expected, wrong);
        }
    }
}

fn by_ids(address: &Value) -> (String, String) {
    (
        address["userId"].to_string(),
        address["addressId"].to_string(),
    )
}

fn compare_sorted(how: &str, said: Vec<Value>, expected: &[Value], wrong: &mut Differences) {
    let mut said: Vec<Value> = said.into_iter().map(normal).collect();
    said.sort_by_key(by_ids);
    wrong.compare_lists(how, said.iter(), expected.iter());
}

async fn call_search(grpc: &Grpc, country: Option<&str>, statuses: &[&str]) -> Vec<Value> {
    let validation = statuses.iter().map(|status| match *status {
        "valid" => ValidationStatus::Valid,
        "incomplete" => ValidationStatus::Incomplete,
        "invalid" => ValidationStatus::Invalid,
        other => panic!("{other} is not a status"),
    });
    let validation: Vec<i32> = validation.map(|status| status as i32).collect();
    let pages = called_pages("addresses", async |page_token| {
        let request = SearchAddressesRequest {
            country_code: country.map(str::to_owned),
            validation: validation.clone(),
            page_size: 300,
            page_token,
        };
        let answer = grpc.fulfillment().search_addresses(request).await;
        called(answer, found_addresses_json)
    });
    rows(pages.await, "addresses")
}
