//! Properties of the personalization domain's fold over random events, and its rules by examples.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::projection::Effects;
use super::segments::{facets, in_city, in_country, with_language, with_preference};
use super::state::ProfileState;
use crate::event::Bad;
use crate::fold::examples::{assert_states_are_read, event};
use crate::fold::users::UserState;
use crate::projector::{NewEvent, Projection, RefusedEvent};

/// Marks what the view must not store, or must erase.
const PERSONAL: &str = "personal";

fn updated(fields: Value) -> (&'static str, Value) {
    ("UserProfileUpdated", json!({"updatedFields": fields}))
}

fn added(id: &str, shipping: bool, country: &str, city: &str) -> (&'static str, Value) {
    let payload = json!({
        "addressId": id, "addressType": PERSONAL, "isDefaultShipping": shipping, "isDefaultBilling": false,
        "country": country,
        "fullAddress": {"streetLine1": PERSONAL, "contactName": PERSONAL, "contactPhone": PERSONAL, "city": city},
    });
    ("UserAddressAdded", payload)
}

fn address_updated(id: &str, fields: Value) -> (&'static str, Value) {
    (
        "UserAddressUpdated",
        json!({"addressId": id, "updatedFields": fields}),
    )
}

fn address_deleted(id: &str) -> (&'static str, Value) {
    ("UserAddressDeleted", json!({"addressId": id}))
}

fn default_shipping(id: &str) -> (&'static str, Value) {
    (
        "UserProfileDefaultAddressChanged",
        json!({"defaultShippingAddressId": id}),
    )
}

fn numbered(events: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<NewEvent> {
    let events = events.into_iter().enumerate();
    events
        .map(|(number, (event_type, payload))| event(number, event_type, payload))
        .collect()
}

/// Folds events onto a state. Those that it refuses are left out.
fn fold_onto(state: &mut ProfileState, events: &[NewEvent]) -> (Effects, Vec<Bad>) {
    let (mut effects, mut refused) = (Effects::default(), Vec::new());
    for new_event in events {
        match state.check(new_event) {
            Ok(()) => state.apply(new_event, &mut effects),
            Err(RefusedEvent(bad)) => refused.push(bad),
        }
    }
    (effects, refused)
}

fn folded(events: impl IntoIterator<Item = (&'static str, Value)>) -> ProfileState {
    let mut state = ProfileState::default();
    let (_, refused) = fold_onto(&mut state, &numbered(events));
    assert_eq!(refused, []);
    state
}

/// The answer about these events, without the fields that are the same for all.
fn profile(events: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let profile = folded(events).into_profile("u").expect("known");
    let mut json = serde_json::to_value(profile).expect("JSON");
    let fields = json.as_object_mut().expect("an object");
    fields.remove("userId");
    fields.remove("updatedAt");
    for list in ["countries", "staleFields"] {
        if fields[list] == json!([]) {
            fields.remove(list);
        }
    }
    json
}

#[test]
fn preferences_change_by_dotted_names_and_as_a_whole() {
    let cases: [(&[Value], Value); 14] = [
        (
            &[json!({"preferences.theme": "dark", "bio": {"new": "b"}})],
            json!({"preferences": {"theme": "dark"}, "bio": "b"}),
        ),
        (
            &[json!({"preferences.privacy.tracking": false, "communicationPreferences.sms": true})],
            json!({"preferences": {"privacy": {"tracking": false}}, "communicationPreferences": {"sms": true}}),
        ),
        // A whole object replaces the object, and dotted names of the same event come after it.
        (
            &[
                json!({"preferences.a": 1, "preferences.b": 2}),
                json!({"preferences.c.d": 4, "preferences": {"c": {"e": 3}}}),
            ],
            json!({"preferences": {"c": {"d": 4, "e": 3}}}),
        ),
        // Null and empty strings clear. An object that is empty then stays.
        (
            &[
                json!({"preferences.a.b": 1, "preferences.c": 2}),
                json!({"preferences.a.b": null, "preferences.c": ""}),
            ],
            json!({"preferences": {"a": {}}}),
        ),
        (
            &[json!({"preferences.a": 1}), json!({"preferences": null})],
            json!({}),
        ),
        (&[json!({"preferences.a.b": null})], json!({})),
        (
            &[
                json!({"preferences.a": 1}),
                json!({"preferences.a.b": null}),
            ],
            json!({"preferences": {"a": 1}}),
        ),
        // So they do inside of objects, but not in arrays.
        (
            &[json!({"preferences": {"a": null, "b": {"c": "", "d": 0}, "e": [null, ""]}})],
            json!({"preferences": {"b": {"d": 0}, "e": [null, ""]}}),
        ),
        // What is in the way is replaced by an object.
        (
            &[
                json!({"preferences.a": "x"}),
                json!({"preferences.a.b": [1]}),
            ],
            json!({"preferences": {"a": {"b": [1]}}}),
        ),
        (
            &[
                json!({"preferences.a": [1]}),
                json!({"preferences.a.0.b": 1}),
            ],
            json!({"preferences": {"a": {"0": {"b": 1}}}}),
        ),
        // An empty name is a name.
        (
            &[json!({"preferences.": 1, "preferences..x": 2})],
            json!({"preferences": {"": {"x": 2}}}),
        ),
        // The names of other fields are nothing to the view.
        (
            &[
                json!({"preference.a": 1, "preferencesX": 2, "firstName": "x", "x.preferences.a": 1}),
            ],
            json!({}),
        ),
        (
            &[json!({"preferences.n": 12_345_678_901_234_567_890_u64, "preferences.f": 1.5e300})],
            json!({"preferences": {"n": 12_345_678_901_234_567_890_u64, "f": 1.5e300}}),
        ),
        (
            &[
                json!({"languagePreference": "de", "timezonePreference": "Z", "profilePictureUrl": "p"}),
            ],
            json!({"languagePreference": "de", "timezonePreference": "Z", "profilePictureUrl": "p"}),
        ),
    ];
    for (updates, expected) in cases {
        let found = profile(updates.iter().cloned().map(updated));
        assert_eq!(found, expected, "{updates:?}");
    }
}

#[test]
fn a_stale_name_is_known_again_by_a_value_for_it_or_for_what_holds_it() {
    let stale = |names: &[&str]| updated(json!(names));
    for (events, expected) in [
        (
            vec![stale(&[
                "bio",
                "preferences.theme",
                "gender",
                "preferences.theme",
            ])],
            json!(["bio", "preferences.theme"]),
        ),
        (
            vec![
                stale(&["preferences.theme"]),
                updated(json!({"preferences.theme": "x"})),
            ],
            json!([]),
        ),
        (
            vec![
                stale(&["preferences.theme"]),
                updated(json!({"preferences.theme": null})),
            ],
            json!([]),
        ),
        // A value of an object is one of all in it.
        (
            vec![
                stale(&[
                    "preferences.a",
                    "preferences.a.b",
                    "preferences.a.b.c",
                    "preferences.ab",
                ]),
                updated(json!({"preferences.a": {"x": 1}})),
            ],
            json!(["preferences.ab"]),
        ),
        (
            vec![
                stale(&["preferences", "preferences.a"]),
                updated(json!({"preferences": {}})),
            ],
            json!([]),
        ),
        (
            vec![
                stale(&["preferences", "preferences.a.b"]),
                updated(json!({"preferences": null})),
            ],
            json!([]),
        ),
        // A value in an object says nothing about the rest of it.
        (
            vec![
                stale(&["preferences", "preferences.a.b"]),
                updated(json!({"preferences.a": 1})),
            ],
            json!(["preferences"]),
        ),
        (
            vec![
                stale(&["communicationPreferences"]),
                updated(json!({"preferences": {}})),
            ],
            json!(["communicationPreferences"]),
        ),
        (
            vec![
                added("a", false, "de", "Bonn"),
                address_updated(
                    "a",
                    json!(["country", "city", "state", "streetLine1", "addressType"]),
                ),
            ],
            json!([
                "countries",
                "location.city",
                "location.countryCode",
                "location.state"
            ]),
        ),
        // Another address is the location now, and the countries are as stale as before.
        (
            vec![
                added("a", false, "de", "Bonn"),
                address_updated("a", json!(["country", "city"])),
                added("b", false, "de", "Bonn"),
            ],
            json!(["countries"]),
        ),
        (
            vec![
                added("a", false, "de", "Bonn"),
                address_updated("a", json!(["country"])),
                added("a", false, "de", "Bonn"),
            ],
            json!([]),
        ),
    ] {
        let what = format!("{events:?}");
        let profile = folded(events).into_profile("u").expect("known");
        assert_eq!(json!(profile.stale_fields), expected, "{what}");
    }
}

#[test]
fn the_location_is_the_default_shipping_address_else_the_one_known_last() {
    let location = |events: Vec<(&'static str, Value)>| profile(events)["location"].clone();
    let city = |city: &str| json!({"countryCode": "DE", "city": city});
    let [a, b] = [("a", "Aachen"), ("b", "Bonn")]
        .map(|(id, city)| move |shipping| added(id, shipping, "de", city));
    for (events, expected) in [
        (vec![a(false), b(false)], city("Bonn")),
        (vec![a(true), b(false)], city("Aachen")),
        (vec![a(true), b(true)], city("Bonn")),
        // An Added of a known address makes it no newer, one of a deleted address does.
        (vec![a(false), b(false), a(false)], city("Bonn")),
        (
            vec![a(false), b(false), address_deleted("a"), a(false)],
            city("Aachen"),
        ),
        (
            vec![a(false), b(false), address_deleted("b")],
            city("Aachen"),
        ),
        (vec![a(false), address_deleted("a")], Value::Null),
        // A default counts once its address is known.
        (vec![a(true), b(false), default_shipping("c")], city("Bonn")),
        (
            vec![a(false), b(false), default_shipping("a")],
            city("Aachen"),
        ),
        // An update makes an address known, but not a deleted one.
        (
            vec![a(false), address_updated("b", json!({"city": "Ulm"}))],
            json!({"city": "Ulm"}),
        ),
        (
            vec![
                address_deleted("b"),
                a(false),
                address_updated("b", json!({"city": "Ulm"})),
            ],
            city("Aachen"),
        ),
        // The one that is known last may say nothing of a place.
        (
            vec![
                a(false),
                address_updated("b", json!({"additionalNotes": "x"})),
            ],
            Value::Null,
        ),
        (
            vec![address_updated(
                "a",
                json!({"countryCode": "us", "province": "NY"}),
            )],
            json!({"countryCode": "US", "state": "NY"}),
        ),
    ] {
        let what = format!("{events:?}");
        assert_eq!(location(events), expected, "{what}");
    }
    let countries = profile([
        added("a", false, "us", "x"),
        added("b", true, "de", "x"),
        added("c", false, "US", "x"),
    ]);
    assert_eq!(countries["countries"], json!(["DE", "US"]));
}

/// The value of `preferences.x` with which the object has this many bytes.
fn filling(bytes: usize) -> (&'static str, Value) {
    let around = r#"{"x":""}"#.len();
    updated(json!({"preferences.x": "y".repeat(bytes - around)}))
}

#[test]
fn what_would_be_too_large_or_too_deep_is_refused() {
    const LIMIT: usize = 65_536;
    let deep = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    let dots = |steps: usize| {
        let mut fields = Map::new();
        fields.insert(format!("preferences{}", ".a".repeat(steps)), json!(1));
        updated(Value::Object(fields))
    };
    let many: Vec<String> = (0..7_000).map(|n| format!("preferences.{n}")).collect();
    for (events, refused) in [
        (vec![filling(LIMIT)], vec![]),
        (
            vec![filling(LIMIT + 1)],
            vec![("object_too_large", "preferences")],
        ),
        // Characters count by their bytes.
        (
            vec![updated(
                json!({"communicationPreferences.x": "é".repeat(33_000)}),
            )],
            vec![("object_too_large", "communicationPreferences")],
        ),
        // The sum counts, and what is refused leaves nothing behind.
        (
            vec![
                filling(LIMIT),
                updated(
                    json!({"preferences.z": 1, "preferences.x": 1, "preferences.zz": "z".repeat(LIMIT)}),
                ),
                updated(json!({"preferences.z": 1})),
                updated(json!({"preferences.x": 1, "preferences.z": 1})),
                filling(LIMIT / 2),
            ],
            vec![
                ("object_too_large", "preferences"),
                ("object_too_large", "preferences"),
            ],
        ),
        // Names of what is stale are no reason.
        (vec![updated(json!(many))], vec![]),
        (vec![filling(LIMIT), updated(json!(many))], vec![]),
        (vec![updated(json!({"preferences": deep(120)}))], vec![]),
        (vec![dots(126)], vec![]),
        (vec![dots(127)], vec![("too_deep", "preferences")]),
        (vec![dots(400_000)], vec![("too_deep", "preferences")]),
    ] {
        let mut state = ProfileState::default();
        let (_, found) = fold_onto(&mut state, &numbered(events));
        let found: Vec<_> = found
            .iter()
            .map(|bad| (bad.reason, bad.field.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(found, refused);
        let document = crate::db::to_document(&state).expect("JSON");
        let read: ProfileState = crate::db::of_document(&document, "users").expect("readable");
        assert_eq!(read, state);
    }
}

#[test]
fn where_stale_names_are_too_long_together_the_whole_object_is_stale() {
    const LIMIT: usize = 65_536;
    // 100 bytes each behind the dot.
    let names = |object: &str, numbers: Range<u32>| -> Vec<String> {
        numbers.map(|n| format!("{object}.{n:0>100}")).collect()
    };
    let stale = |names: Vec<String>| updated(json!(names));
    let long = |bytes: usize| {
        let object = "preferences.";
        vec![format!("{object}{}", "x".repeat(bytes - object.len()))]
    };
    let whole = || vec!["preferences".to_owned()];
    let few = || names("communicationPreferences", 0..3);
    for (events, expected) in [
        (vec![stale(names("preferences", 0..700))], whole()),
        (vec![stale(long(LIMIT))], long(LIMIT)),
        (vec![stale(long(LIMIT + 1))], whole()),
        // The sum counts, over several events.
        (
            vec![stale(names("preferences", 0..500))],
            names("preferences", 0..500),
        ),
        (
            vec![
                stale(names("preferences", 0..500)),
                stale(names("preferences", 500..700)),
            ],
            whole(),
        ),
        // The names of the other object are left as they are.
        (
            vec![stale(few()), stale(names("preferences", 0..700))],
            [few(), whole()].concat(),
        ),
        // The object stays stale until it comes as a whole.
        (
            vec![
                stale(names("preferences", 0..700)),
                updated(json!({"preferences.x": 1})),
            ],
            whole(),
        ),
        (
            vec![
                stale(names("preferences", 0..700)),
                stale(vec!["preferences.x".to_owned()]),
            ],
            [whole(), vec!["preferences.x".to_owned()]].concat(),
        ),
        (
            vec![
                stale(names("preferences", 0..700)),
                updated(json!({"preferences": {"x": 1}})),
            ],
            vec![],
        ),
        (
            vec![
                stale(names("preferences", 0..700)),
                updated(json!({"preferences": null})),
            ],
            vec![],
        ),
    ] {
        let profile = folded(events).into_profile("u").expect("known");
        assert_eq!(profile.stale_fields, expected);
    }
    // What is known stays.
    let before = updated(json!({"preferences.a": 1}));
    let profile = profile([before, stale(names("preferences", 0..700))]);
    assert_eq!(
        profile,
        json!({"preferences": {"a": 1}, "staleFields": ["preferences"]})
    );
}

#[test]
fn facets_are_countries_cities_languages_and_scalar_preferences() {
    let state = folded([
        added("a", true, "de", "Gießen"),
        updated(json!({
            "languagePreference": "de-AT",
            "preferences": {
                "privacy": {"tracking": false, "level": 3, "ratio": 1.5}, "a.b": "c:d", "list": [1, {"x": 1}], "o": {},
            },
            "communicationPreferences": {"sms": true},
        })),
    ]);
    let expected = BTreeSet::from([
        in_country("DE"),
        in_city("GIESSEN"),
        with_language("de-AT"),
        with_preference("privacy.tracking", "false"),
        with_preference("privacy.level", "3"),
        with_preference("privacy.ratio", "1.5"),
        with_preference("a.b", "c:d"),
    ]);
    assert_eq!(facets(&state), expected);
    // The kind, the path and the value are told apart.
    let all: BTreeSet<Uuid> = [
        in_city("x"),
        with_language("x"),
        with_language("X"),
        with_preference("x", "y"),
        with_preference("x", ""),
        with_preference("", "x"),
        with_preference("x.y", "z"),
        with_preference("x", "y.z"),
    ]
    .into();
    assert_eq!(all.len(), 8);
}

#[test]
fn states_of_released_code_are_read() {
    let stored = include_str!("../../../tests/fixtures/states/personalization.jsonl");
    let versions = assert_states_are_read::<ProfileState>(stored);
    let current = super::Personalization.declared_code_version();
    assert_eq!(
        versions.last(),
        Some(&i64::from(current)),
        "add a state of this code version"
    );
}

/// The type and the payload of an event of one user.
fn type_and_payload() -> impl Strategy<Value = (&'static str, Value)> {
    let id = || (0..3).prop_map(|n| format!("a{n}"));
    let name = || {
        prop::sample::select(vec![
            "bio",
            "languagePreference",
            "preferences",
            "preferences.a",
            "preferences.a.b",
            "preferences.a.b.c",
            "preferences.d",
            "communicationPreferences.a",
        ])
    };
    let value = |name: &'static str| {
        let object = prop_oneof![
            Just(Value::Null),
            Just(json!({})),
            Just(json!({"a": {"b": 1}, "d": PERSONAL})),
            Just(json!({"a": 2})),
        ];
        let any = prop_oneof![Just(json!(PERSONAL)), Just(json!(1)), object.clone()];
        match name {
            "preferences" => object.boxed(),
            "bio" | "languagePreference" => {
                prop_oneof![Just(Value::Null), Just(json!(PERSONAL))].boxed()
            }
            _ => any.boxed(),
        }
    };
    let entries = prop::collection::vec(
        name().prop_flat_map(move |name| value(name).prop_map(move |value| (name, value))),
        0..4,
    )
    .prop_map(|entries| {
        let entries = entries.into_iter();
        // `new` keeps an object from being read as an entry itself.
        let entries = entries.map(|(name, value)| (name.to_owned(), json!({"new": value})));
        Value::Object(entries.collect())
    });
    let names = prop::collection::vec(name(), 0..4).prop_map(|names| json!(names));
    let fields = prop::sample::select(vec!["city", "country", "streetLine1"]);
    let city = || prop::sample::select(vec!["x", "y"]);
    prop_oneof![
        1 => Just(("UserRegistered", json!({"email": PERSONAL, "status": "active"}))),
        6 => entries.prop_map(updated),
        2 => names.prop_map(updated),
        4 => (id(), any::<bool>(), city()).prop_map(|(id, shipping, city)| added(&id, shipping, "de", city)),
        2 => (id(), fields.clone(), city()).prop_map(|(id, field, city)| address_updated(&id, json!({field: city}))),
        1 => (id(), fields).prop_map(|(id, field)| address_updated(&id, json!([field]))),
        2 => id().prop_map(|id| address_deleted(&id)),
        2 => id().prop_map(|id| default_shipping(&id)),
        1 => Just(("UserDeleted", json!({}))),
    ]
}

fn events() -> impl Strategy<Value = Vec<NewEvent>> {
    prop::collection::vec(type_and_payload(), 1..30).prop_map(numbered)
}

proptest! {
    /// However the log is cut into batches, the states and the rows of members are the same.
    #[test]
    fn batches_make_no_difference(events in events(), cut in 0usize..30) {
        let mut whole = ProfileState::default();
        fold_onto(&mut whole, &events);

        let mut state = ProfileState::default();
        let mut members = BTreeSet::new();
        let (first, second) = events.split_at(cut.min(events.len()));
        for batch in [first, second] {
            let (effects, _) = fold_onto(&mut state, batch);
            let Some(before) = effects.facets_before else { continue };
            prop_assert_eq!(&before, &members);
            members = facets(&state);
            // The next batch begins with what was stored.
            let document = crate::db::to_document(&state).unwrap();
            state = crate::db::of_document(&document, "users").unwrap();
        }
        prop_assert_eq!(&state, &whole);
        prop_assert_eq!(members, facets(&whole));
    }

    #[test]
    fn addresses_are_known_in_one_order(events in events()) {
        let mut state = ProfileState::default();
        fold_onto(&mut state, &events);
        let known: BTreeSet<&str> = state.book.iter().map(|(id, _)| id).collect();
        let ordered: BTreeSet<&str> = state.became_known.iter().map(String::as_str).collect();
        prop_assert_eq!(ordered.len(), state.became_known.len());
        prop_assert_eq!(known, ordered);
    }

    #[test]
    fn streets_and_contacts_are_not_stored(events in events()) {
        let addresses = |new_event: &&NewEvent| {
            let name = format!("{:?}", new_event.event.payload);
            name.starts_with("UserAddress")
        };
        let events: Vec<NewEvent> = events.iter().filter(addresses).cloned().collect();
        let mut state = ProfileState::default();
        fold_onto(&mut state, &events);
        prop_assert!(!crate::db::to_document(&state).unwrap().contains(PERSONAL));
    }

    #[test]
    fn a_deletion_is_final_and_leaves_nothing(before in events(), after in events()) {
        let mut state = ProfileState::default();
        fold_onto(&mut state, &before);
        fold_onto(&mut state, &[event(50, "UserDeleted", json!({}))]);
        fold_onto(&mut state, &after);
        prop_assert_eq!(crate::db::to_document(&state).unwrap(),
            r#"{"preferences":{},"book":{},"isDeleted":true}"#);
        prop_assert!(facets(&state).is_empty());
        prop_assert_eq!(state.into_profile("u"), None);
    }
}
