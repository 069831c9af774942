//! What holds for a user's shipping addresses whatever happens, in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{Fact, Recipient, ShippingAddress, State};
use super::projection::Effects;
use crate::fold::examples::event;
use crate::fold::users::UserState;
use crate::projector::{FeedPosition, NewEvent};

/// Marks what must not outlive a user.
const PERSONAL: &str = "personal";

fn added(id: &str, shipping: bool, whole: Value) -> (&'static str, Value) {
    let payload = json!({
        "addressId": id, "addressType": "home", "isDefaultShipping": shipping, "isDefaultBilling": false,
        "country": "us", "fullAddress": whole,
    });
    ("UserAddressAdded", payload)
}

fn happening() -> impl Strategy<Value = (&'static str, Value)> {
    let id = || (0..4).prop_map(|n| format!("a{n}"));
    let text = || (0..3).prop_map(|n| json!(format!("{PERSONAL}{n}")));
    let fields = |names: &'static [&'static str]| {
        let value = prop_oneof![text(), Just(Value::Null)];
        let name = prop::sample::select(names);
        prop_oneof![
            prop::collection::vec(name.clone(), 0..3).prop_map(|names| json!(names)),
            prop::collection::btree_map(name, value, 0..3).prop_map(|values| json!(values)),
        ]
    };
    prop_oneof![
        2 => text().prop_map(|name| ("UserRegistered", json!({"email": "e", "firstName": name, "status": "active"}))),
        4 => fields(&["firstName", "lastName", "phoneNumber", "bio"])
            .prop_map(|f| ("UserProfileUpdated", json!({"updatedFields": f}))),
        6 => (id(), any::<bool>(), text()).prop_map(|(id, shipping, street)| added(&id, shipping, json!({"streetLine1": street}))),
        4 => (id(), fields(&["streetLine1", "city", "contactName", "contactPhone", "addressType", "country"]))
            .prop_map(|(id, f)| ("UserAddressUpdated", json!({"addressId": id, "updatedFields": f}))),
        3 => id().prop_map(|id| ("UserAddressDeleted", json!({"addressId": id}))),
        3 => prop::option::of(id())
            .prop_map(|id| ("UserProfileDefaultAddressChanged", json!({"defaultShippingAddressId": id}))),
        1 => Just(("UserDeleted", json!({}))),
    ]
}

fn events() -> impl Strategy<Value = Vec<NewEvent>> {
    prop::collection::vec(happening(), 1..40).prop_map(|happenings| {
        let numbered = happenings.into_iter().enumerate();
        numbered
            .map(|(number, (event_type, payload))| event(number, event_type, payload))
            .collect()
    })
}

proptest! {
    #[test]
    fn rows_are_what_the_fold_says_wherever_batches_end(events in events(), size in 1_usize..10) {
        let mut state = State::default();
        let mut rows: BTreeMap<String, ShippingAddress> = BTreeMap::new();
        let mut last = FeedPosition { next_offset: 0, sequence: 0 };
        for batch in events.chunks(size) {
            let mut effects = Effects::default();
            for event in batch {
                state.apply(event, &mut effects);
            }
            let mut places: Vec<FeedPosition> = effects.changed.values().copied().collect();
            places.sort();
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "each row at a place of its own");
            prop_assert!(places.first().is_none_or(|first| *first > last), "behind those of former batches");
            last = places.last().copied().unwrap_or(last);
            for id in effects.changed.keys() {
                match state.recipient.address("u", id) {
                    Some(address) => rows.insert(id.clone(), address),
                    None => rows.remove(id),
                };
            }
            let now = state.recipient.addresses("u");
            prop_assert_eq!(rows.values().cloned().collect::<Vec<_>>(), now);
            // As it is stored between two batches.
            let stored = serde_json::to_value(&state).expect("JSON");
            state = serde_json::from_value(stored).expect("a state");
            if state.is_deleted {
                let text = serde_json::to_string(&state).expect("JSON");
                prop_assert!(!text.contains(PERSONAL), "{text}");
            }
        }
    }

    #[test]
    fn as_of_the_end_is_now(events in events()) {
        let mut state = State::default();
        let mut effects = Effects::default();
        for event in &events {
            state.apply(event, &mut effects);
        }
        prop_assume!(!state.is_deleted);
        let mut recipient = Recipient::default();
        for (source, fact) in &effects.history {
            // As it is kept between.
            let kept = serde_json::to_value(fact).expect("JSON");
            recipient.apply(&serde_json::from_value::<Fact>(kept).expect("a fact"), *source);
        }
        prop_assert_eq!(recipient, state.recipient);
    }
}

fn fold(happenings: Vec<(&'static str, Value)>) -> Vec<ShippingAddress> {
    let mut state = State::default();
    for (number, (event_type, payload)) in happenings.into_iter().enumerate() {
        state.apply(&event(number, event_type, payload), &mut Effects::default());
    }
    state.recipient.addresses("u")
}

#[test]
fn an_address_is_made_from_the_user_where_it_has_no_contact() {
    let profile = |fields: Value| ("UserProfileUpdated", json!({"updatedFields": fields}));
    let whole = json!({"addressLine1": "1 Main St", "city": "Cupertino", "state": "CA", "zipCode": "95014"});
    let addresses = fold(vec![
        (
            "UserRegistered",
            json!({"email": "e", "firstName": "Ada", "status": "active"}),
        ),
        added("a", true, whole),
        profile(json!(["lastName", "phoneNumber"])),
    ]);
    let stale = ["phone", "recipientName"];
    assert_eq!(addresses[0].recipient_name.as_deref(), Some("Ada"));
    assert_eq!(addresses[0].phone, None);
    assert_eq!(addresses[0].stale_fields, stale);
    assert_eq!(
        addresses[0].updated_at.to_rfc3339(),
        "2026-10-01T00:00:01+00:00"
    );

    let contact =
        json!({"streetLine1": "1", "streetLine2": "2", "contactName": "Bob", "contactPhone": "1"});
    let addresses = fold(vec![
        added("a", false, contact),
        profile(json!(["firstName", "phoneNumber"])),
        (
            "UserAddressUpdated",
            json!({"addressId": "a", "updatedFields": ["phone", "addressLine2"]}),
        ),
        profile(json!({"phoneNumber": "2"})),
    ]);
    assert_eq!(addresses[0].recipient_name.as_deref(), Some("Bob"));
    assert_eq!(addresses[0].phone.as_deref(), Some("1"));
    assert_eq!(addresses[0].lines, ["1", "2"]);
    assert_eq!(addresses[0].stale_fields, ["lines", "phone"]);
}

#[test]
fn nothing_comes_back_after_a_deletion() {
    let mut state = State::default();
    let mut effects = Effects::default();
    let happenings = [
        added("a", true, json!({})),
        ("UserDeleted", json!({})),
        added("b", true, json!({})),
    ];
    for (number, (event_type, payload)) in happenings.into_iter().enumerate() {
        state.apply(&event(number, event_type, payload), &mut effects);
    }
    assert!(state.is_known && state.is_deleted && effects.is_deleted);
    assert_eq!(state.recipient, Recipient::default());
    assert_eq!(
        effects.changed.keys().collect::<Vec<_>>(),
        ["a"],
        "whoever follows hears that it is gone"
    );

    // Of whom nobody had heard: not known, and never to be.
    let mut state = State::default();
    state.apply(&event(0, "UserDeleted", json!({})), &mut Effects::default());
    let (event_type, payload) = added("b", true, json!({}));
    state.apply(&event(1, event_type, payload), &mut Effects::default());
    assert!(!state.is_known && state.recipient == Recipient::default());
}
