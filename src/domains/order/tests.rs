//! Properties of the order domain's fold over random events, and examples of significant changes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{Address, AddressChangeKind, Addresses, Book, CustomerDeleted, WatchedChange};
use super::projection::{Effects, FeedEntry};
use super::state::CustomerState;
use crate::fold::addresses::{AddressFact, Source};
use crate::fold::examples::{assert_states_are_read, event};
use crate::fold::users::UserState;
use crate::projector::{NewEvent, Projection};

/// Marks personal data, which a deletion must erase.
const PERSONAL: &str = "personal";

fn apply(state: &mut CustomerState, event: &NewEvent) {
    state.apply(event, &mut Default::default());
}

fn personal() -> impl Strategy<Value = String> {
    (0..4).prop_map(|n| format!("{PERSONAL}{n}"))
}

fn address_id() -> impl Strategy<Value = String> {
    (0..4).prop_map(|n| format!("a{n}"))
}

/// The changed fields: names without values, or values by name (`null` clears a field).
fn updated_fields(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(names);
    let value = prop_oneof![personal().prop_map(Value::from), Just(Value::Null)];
    prop_oneof![
        prop::collection::vec(name.clone(), 0..4).prop_map(|names| json!(names)),
        prop::collection::btree_map(name, value, 0..4).prop_map(|values| json!(values)),
    ]
}

/// The type and the payload of an event of one user.
fn type_and_payload() -> impl Strategy<Value = (&'static str, Value)> {
    const USER: &[&str] = &["email", "username", "secondaryEmail"];
    const PROFILE: &[&str] = &["firstName", "lastName", "displayName", "phoneNumber", "bio"];
    const ADDRESS: &[&str] = &[
        "addressLine1",
        "city",
        "zipCode",
        "contactName",
        "addressType",
    ];
    prop_oneof![
        4 => (personal(), prop::option::of(personal())).prop_map(|(email, name)| (
            "UserRegistered",
            json!({"email": email, "firstName": name, "status": "active"}),
        )),
        2 => personal().prop_map(|email| ("UserEmailVerified", json!({"email": email}))),
        2 => Just(("UserAccountStatusChanged", json!({"newStatus": "banned", "previousStatus": "active"}))),
        4 => updated_fields(USER).prop_map(|f| ("UserUpdated", json!({"updatedFields": f}))),
        4 => updated_fields(PROFILE).prop_map(|f| ("UserProfileUpdated", json!({"updatedFields": f}))),
        8 => (address_id(), any::<bool>(), any::<bool>(), personal()).prop_map(|(id, shipping, billing, street)| (
            "UserAddressAdded",
            json!({
                "addressId": id, "addressType": "home", "isDefaultShipping": shipping,
                "isDefaultBilling": billing, "country": "de", "fullAddress": {"streetLine1": street},
            }),
        )),
        4 => (address_id(), updated_fields(ADDRESS)).prop_map(|(id, f)| (
            "UserAddressUpdated",
            json!({"addressId": id, "updatedFields": f}),
        )),
        4 => address_id().prop_map(|id| ("UserAddressDeleted", json!({"addressId": id}))),
        4 => (prop::option::of(address_id()), prop::option::of(address_id())).prop_map(|(shipping, billing)| (
            "UserProfileDefaultAddressChanged",
            json!({"defaultShippingAddressId": shipping, "defaultBillingAddressId": billing}),
        )),
        1 => any::<bool>().prop_map(|hard| (
            "UserDeleted",
            json!({"deletionType": if hard { "hard" } else { "soft" }}),
        )),
    ]
}

fn history() -> impl Strategy<Value = Vec<NewEvent>> {
    prop::collection::vec(type_and_payload(), 1..40).prop_map(|payloads| {
        payloads
            .into_iter()
            .enumerate()
            .map(|(number, (event_type, payload))| event(number, event_type, payload))
            .collect()
    })
}

proptest! {
    #[test]
    fn a_customer_stays_consistent(events in history()) {
        let mut state = CustomerState::default();
        let mut deleted: Option<CustomerState> = None;
        for event in &events {
            apply(&mut state, event);
            let customer = state.to_customer();
            let stored = serde_json::to_string(&state).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<CustomerState>(&stored).expect("a state"), &state);
            let ids: Vec<_> = customer.addresses.iter().map(|a| a.address_id.as_str()).collect();
            prop_assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?} in order, each once");
            prop_assert!(customer.stale_fields.is_sorted_by(|a, b| a < b));
            if let Some(deleted_at) = customer.deleted_at {
                let text = serde_json::to_string(&state).expect("JSON");
                prop_assert!(!text.contains(PERSONAL), "{text}");
                prop_assert_eq!(customer.status.as_deref(), Some("deleted"));
                if let Some(before) = &deleted {
                    // After a deletion only the first hard deletion changes anything.
                    prop_assert_eq!(before.customer.deleted_at, Some(deleted_at));
                    prop_assert!(before == &state || (state.is_erased && !before.is_erased));
                }
                deleted = Some(state.clone());
                continue;
            }
            prop_assert_eq!(customer.updated_at, Some(event.event.occurred_at));
            for address in &customer.addresses {
                let is = |default: &Option<String>| Some(default.as_ref() == Some(&address.address_id));
                prop_assert_eq!(address.is_default_shipping, is(&customer.default_shipping_address_id));
                prop_assert_eq!(address.is_default_billing, is(&customer.default_billing_address_id));
                prop_assert_eq!(address.country.as_deref(), address.country.as_ref().map(|_| "DE"));
            }
        }
    }

    #[test]
    fn the_end_of_a_batch_makes_no_difference(events in history(), split in any::<prop::sample::Index>()) {
        let whole = events.iter().fold(CustomerState::default(), |mut state, event| {
            apply(&mut state, event);
            state
        });
        let (first, second) = events.split_at(split.index(events.len()));
        let mut state = CustomerState::default();
        first.iter().for_each(|event| apply(&mut state, event));
        // The state is stored between two batches.
        let stored = serde_json::to_value(&state).expect("JSON");
        let mut state: CustomerState = serde_json::from_value(stored).expect("a state");
        second.iter().for_each(|event| apply(&mut state, event));
        prop_assert_eq!(state, whole);
    }

    #[test]
    fn the_feed_has_every_change_of_an_address_once(events in history()) {
        let mut state = CustomerState::default();
        let mut mirror: BTreeMap<String, Address> = BTreeMap::new();
        for event in &events {
            let was_deleted = state.is_deleted();
            let mut effects = Effects::default();
            state.apply(event, &mut effects);
            if state.is_deleted() {
                let is_deletion =
                    |entry: &FeedEntry| matches!(entry.content, WatchedChange::CustomerDeleted(_));
                prop_assert!(effects.feed.iter().all(is_deletion), "no address change after a deletion");
                prop_assert_eq!(effects.feed.len(), usize::from(effects.deletion.is_some()));
                prop_assert!(was_deleted || effects.deletion.is_some());
                continue;
            }
            for entry in effects.feed {
                prop_assert_eq!(entry.feed_position, event.feed_position);
                let WatchedChange::Address(change) = entry.content else {
                    panic!("the customer was not deleted")
                };
                if change.kind == AddressChangeKind::DefaultChanged {
                    continue;
                }
                let known = mirror.get(&change.address_id).map(without_flags);
                prop_assert_eq!(change.before.as_ref().map(without_flags), known);
                match change.after {
                    Some(after) => mirror.insert(change.address_id, after),
                    None => mirror.remove(&change.address_id),
                };
            }
            let addresses = state.to_customer().addresses;
            let now: Vec<Address> = addresses.iter().map(without_flags).collect();
            let mirrored: Vec<Address> = mirror.values().map(without_flags).collect();
            prop_assert_eq!(mirrored, now, "a mirror of the feed has the addresses of the view");
        }
    }

    #[test]
    fn as_of_the_end_is_now(events in history()) {
        let mut state = CustomerState::default();
        let mut effects = Effects::default();
        for event in &events {
            state.apply(event, &mut effects);
        }
        let fold = |facts: &[(Source, AddressFact)]| {
            let mut book = Book::default();
            for (source, fact) in facts {
                // The history stores facts as JSON.
                let stored = serde_json::to_value(fact).expect("JSON");
                book.apply(&serde_json::from_value(stored).expect("a fact"), source.at);
            }
            book
        };
        if state.is_deleted() {
            let remaining: Vec<_> = effects.history.into_iter()
                .filter_map(|(source, fact)| Some((source, fact.without_personal_data()?)))
                .collect();
            let text = serde_json::to_string(&remaining.iter().map(|(_, fact)| fact).collect::<Vec<_>>()).expect("JSON");
            prop_assert!(!text.contains(PERSONAL), "{text}");
            if !state.is_erased {
                prop_assert_eq!(Addresses::of(&fold(&remaining), true), Addresses::of(&state.book, true));
            }
        } else {
            prop_assert_eq!(fold(&effects.history), state.book);
        }
    }
}

/// The address without the fields that events of other addresses change.
fn without_flags(address: &Address) -> Address {
    Address {
        is_default_shipping: None,
        is_default_billing: None,
        updated_at: None,
        ..address.clone()
    }
}

/// Applies an event. Returns the kind of each change in the feed, and whether it is significant.
fn changes_of(
    state: &mut CustomerState,
    number: usize,
    event_type: &str,
    payload: Value,
) -> Vec<(AddressChangeKind, bool)> {
    let mut effects = Effects::default();
    state.apply(&event(number, event_type, payload), &mut effects);
    let changes = effects.feed.into_iter().map(|entry| match entry.content {
        WatchedChange::Address(change) => (change.kind, change.significant),
        WatchedChange::CustomerDeleted(_) => panic!("the customer was not deleted"),
    });
    changes.collect()
}

#[test]
fn a_change_is_significant_if_parcels_would_go_elsewhere() {
    use AddressChangeKind::{Added, DefaultChanged, Deleted, Updated};
    let added = |id: &str, shipping: bool, city: &str| {
        (
            "UserAddressAdded",
            json!({
                "addressId": id, "addressType": "home", "isDefaultShipping": shipping, "isDefaultBilling": false,
                "country": "de", "fullAddress": {"streetLine1": "1", "city": city},
            }),
        )
    };
    let updated = |id: &str, fields: Value| {
        (
            "UserAddressUpdated",
            json!({"addressId": id, "updatedFields": fields}),
        )
    };
    let deleted = |id: &str| ("UserAddressDeleted", json!({"addressId": id}));
    let named = |id: &str| {
        (
            "UserProfileDefaultAddressChanged",
            json!({"defaultShippingAddressId": id}),
        )
    };
    let steps = [
        // The default names an unknown address. The first default ever is not significant.
        (named("a"), vec![(DefaultChanged, false)]),
        (added("a", false, "Bonn"), vec![(Added, false)]),
        (
            updated("a", json!({"streetLine2": "x"})),
            vec![(Updated, false)],
        ),
        (updated("a", json!({"streetLine2": "x"})), vec![]),
        (updated("a", json!({"city": "Köln"})), vec![(Updated, true)]),
        // A stale part is significant, as parcels may have to go elsewhere. Its confirmation is
        // not.
        (updated("a", json!(["city"])), vec![(Updated, true)]),
        (
            updated("a", json!({"city": "Köln"})),
            vec![(Updated, false)],
        ),
        // Another default, known or not yet known; then back before the unknown one became known.
        (added("b", false, "Bonn"), vec![(Added, false)]),
        (named("b"), vec![(DefaultChanged, true)]),
        (named("c"), vec![(DefaultChanged, false)]),
        (named("b"), vec![(DefaultChanged, false)]),
        (named("c"), vec![(DefaultChanged, false)]),
        // An address that changes while it is not in use: significant when it is the default again.
        (updated("b", json!({"city": "Ulm"})), vec![(Updated, false)]),
        (named("b"), vec![(DefaultChanged, true)]),
        (named("c"), vec![(DefaultChanged, false)]),
        (added("c", false, "Trier"), vec![(Added, true)]),
        // A false flag and a deletion both unset the default. The next default is another
        // destination.
        (added("c", false, "Trier"), vec![(Added, true)]),
        (added("c", true, "Trier"), vec![(Added, true)]),
        (deleted("c"), vec![(Deleted, true)]),
        (deleted("c"), vec![]),
        (updated("c", json!({"city": "Hof"})), vec![]),
        (named("a"), vec![(DefaultChanged, true)]),
        (deleted("b"), vec![(Deleted, false)]),
        // A default that is deleted before it was known: orders never went there.
        (named("d"), vec![(DefaultChanged, false)]),
        (deleted("d"), vec![]),
        (named("a"), vec![(DefaultChanged, false)]),
    ];
    let mut state = CustomerState::default();
    for (number, ((event_type, payload), expected)) in steps.into_iter().enumerate() {
        let what = format!("step {number}: {event_type} {payload}");
        assert_eq!(
            changes_of(&mut state, number, event_type, payload),
            expected,
            "{what}"
        );
    }
}

#[test]
fn states_of_former_releases_are_read() {
    let stored = include_str!("../../../tests/fixtures/states/order.jsonl");
    let code_versions = assert_states_are_read::<CustomerState>(stored);
    let newest = code_versions.last().copied().unwrap_or_default();
    let current = super::Order.declared_code_version();
    assert_eq!(
        newest,
        i64::from(current),
        "add a state of this code version"
    );
}

#[test]
fn deletions_of_former_releases_are_read() {
    let stored = r#"{"kind": "customer_deleted", "userId": "u-8", "deletionType": "hard",
        "occurredAt": "2025-11-23T07:30:00Z", "eventId": "e-9"}"#;
    let read: CustomerDeleted = serde_json::from_str(stored).expect("a deletion");
    let written =
        json!({"userId": "u-8", "deletedAt": "2025-11-23T07:30:00Z", "deletionType": "hard"});
    assert_eq!(serde_json::to_value(&read).expect("JSON"), written);
    assert_eq!(
        serde_json::from_value::<CustomerDeleted>(written).expect("a deletion"),
        read
    );
}
