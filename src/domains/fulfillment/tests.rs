//! Properties of the fulfillment domain's fold over random events, and examples of addresses.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::ShippingAddress;
use super::projection::Effects;
use super::state::{Fact, Recipient, RecipientState};
use crate::fold::examples::{assert_states_are_read, event};
use crate::fold::users::UserState;
use crate::projector::{FeedPosition, NewEvent, Projection};

/// Marks personal data, which a deletion must erase.
const PERSONAL: &str = "personal";

fn added(id: &str, shipping: bool, full_address: Value) -> (&'static str, Value) {
    let payload = json!({
        "addressId": id, "addressType": "home", "isDefaultShipping": shipping, "isDefaultBilling": false,
        "country": "us", "fullAddress": full_address,
    });
    ("UserAddressAdded", payload)
}

/// The type and the payload of an event of one user.
fn type_and_payload() -> impl Strategy<Value = (&'static str, Value)> {
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
    prop::collection::vec(type_and_payload(), 1..40).prop_map(|payloads| {
        let numbered = payloads.into_iter().enumerate();
        numbered
            .map(|(number, (event_type, payload))| event(number, event_type, payload))
            .collect()
    })
}

proptest! {
    #[test]
    fn rows_match_the_fold_wherever_batches_end(events in events(), size in 1_usize..10) {
        let mut state = RecipientState::default();
        let mut rows: BTreeMap<String, ShippingAddress> = BTreeMap::new();
        let mut last = FeedPosition { next_offset: 0, sequence: 0 };
        for batch in events.chunks(size) {
            let mut effects = Effects::default();
            for event in batch {
                state.apply(event, &mut effects);
            }
            let mut positions: Vec<FeedPosition> = effects.changed.values().map(|(_, position)| *position).collect();
            positions.sort();
            prop_assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "no two rows share a position");
            prop_assert!(positions.first().is_none_or(|first| *first > last), "positions rise from batch to batch");
            last = positions.last().copied().unwrap_or(last);
            for id in effects.changed.keys() {
                match state.recipient.address("u", id) {
                    Some(address) => rows.insert(id.clone(), address),
                    None => rows.remove(id),
                };
            }
            let now = state.recipient.addresses("u");
            prop_assert_eq!(rows.values().cloned().collect::<Vec<_>>(), now);
            // The state is stored between two batches.
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
        let mut state = RecipientState::default();
        let mut effects = Effects::default();
        for event in &events {
            state.apply(event, &mut effects);
        }
        prop_assume!(!state.is_deleted);
        let mut recipient = Recipient::default();
        for (source, fact) in &effects.history {
            // The history stores facts as JSON.
            let stored = serde_json::to_value(fact).expect("JSON");
            recipient.apply(&serde_json::from_value::<Fact>(stored).expect("a fact"), *source);
        }
        prop_assert_eq!(recipient, state.recipient);
    }
}

fn fold(events: Vec<(&'static str, Value)>) -> Vec<ShippingAddress> {
    let mut state = RecipientState::default();
    for (number, (event_type, payload)) in events.into_iter().enumerate() {
        state.apply(&event(number, event_type, payload), &mut Effects::default());
    }
    state.recipient.addresses("u")
}

#[test]
fn an_address_without_a_contact_has_the_name_and_phone_of_the_user() {
    let profile = |fields: Value| ("UserProfileUpdated", json!({"updatedFields": fields}));
    let full_address = json!({"addressLine1": "1 Main St", "city": "Cupertino", "state": "CA", "zipCode": "95014"});
    let addresses = fold(vec![
        (
            "UserRegistered",
            json!({"email": "e", "firstName": "Ada", "status": "active"}),
        ),
        added("a", true, full_address),
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
fn nothing_is_stored_after_a_deletion() {
    let mut state = RecipientState::default();
    let mut effects = Effects::default();
    let events = [
        added("a", true, json!({})),
        ("UserDeleted", json!({})),
        added("b", true, json!({})),
    ];
    for (number, (event_type, payload)) in events.into_iter().enumerate() {
        state.apply(&event(number, event_type, payload), &mut effects);
    }
    assert!(state.is_known && state.is_deleted && effects.is_deleted);
    assert_eq!(state.recipient, Recipient::default());
    assert_eq!(
        effects.changed.keys().collect::<Vec<_>>(),
        ["a"],
        "the row of the deleted address is written"
    );

    // A deletion that is the user's first event: the user stays unknown.
    let mut state = RecipientState::default();
    state.apply(&event(0, "UserDeleted", json!({})), &mut Effects::default());
    let (event_type, payload) = added("b", true, json!({}));
    state.apply(&event(1, event_type, payload), &mut Effects::default());
    assert!(!state.is_known && state.recipient == Recipient::default());
}

#[test]
fn blanks_make_no_line_and_no_name() {
    let registered = |first: &str, last: &str| {
        let payload =
            json!({"email": "e", "firstName": first, "lastName": last, "status": "active"});
        ("UserRegistered", payload)
    };
    let contact = |name: &str| {
        json!({
            "streetLine1": " \t", "streetLine2": "1 Main St", "city": "\u{a0}", "state": " ca ",
            "postalCode": "  ", "country": "us ", "contactName": name,
        })
    };
    for (user, contact_name, recipient_name) in [
        (("Ada", "Lovelace"), "Bob", Some("Bob")),
        (("Ada", "Lovelace"), " ", Some("Ada Lovelace")),
        (("  ", "Lovelace"), "\t", Some("Lovelace")),
        (("Ada", "\u{3000}"), "\n", Some("Ada")),
        ((" ", "\t"), "  ", None),
    ] {
        let addresses = fold(vec![
            registered(user.0, user.1),
            added("a", true, contact(contact_name)),
        ]);
        let address = &addresses[0];
        assert_eq!(address.recipient_name.as_deref(), recipient_name);
        assert_eq!(address.lines, ["1 Main St"]);
        let missing = |field: &str| json!({"field": field, "problem": "missing"});
        let mut problems = vec![missing("city"), missing("postalCode")];
        problems.extend(recipient_name.is_none().then(|| missing("recipientName")));
        assert_eq!(
            serde_json::to_value(&address.validation).expect("JSON"),
            json!({"status": "incomplete", "problems": problems})
        );
        // Other fields are stored as the event has them.
        assert_eq!(address.city.as_deref(), Some("\u{a0}"));
        assert_eq!(address.country_code.as_deref(), Some("US "));
        assert_eq!(address.stale_fields, [""; 0]);
    }
    // A blank contact is replaced by the user's name, which is stale.
    let addresses = fold(vec![
        registered("Ada", "Lovelace"),
        added("a", true, contact(" ")),
        ("UserProfileUpdated", json!({"updatedFields": ["lastName"]})),
    ]);
    assert_eq!(addresses[0].stale_fields, ["recipientName"]);
}

#[test]
fn states_of_former_releases_are_read() {
    let stored = include_str!("../../../tests/fixtures/states/fulfillment.jsonl");
    let code_versions = assert_states_are_read::<RecipientState>(stored);
    let newest = code_versions.last().copied().unwrap_or_default();
    let current = super::Fulfillment.declared_code_version();
    assert_eq!(
        newest,
        i64::from(current),
        "add a state of this code version"
    );
}
