//! Examples of `updatedFields` and of addresses.

use serde_json::{Value, json};

use super::super::{Address, Change};
use super::*;

/// A change that was found: name, old, new.
type Found = (String, Option<Value>, Change<Value>);

/// The changes that a payload with these fields beside the ids tells: name, old, new.
fn changed(type_name: &str, beside: Value) -> Result<Vec<Found>, Bad> {
    let mut payload = without(full_payload(type_name), "newValues");
    payload.remove("oldValues");
    payload.remove("fullAddress");
    payload.extend(beside.as_object().unwrap().clone());
    let event = decode_payload(type_name, payload)?;
    let changes = changes_of(&event.payload).unwrap();
    let listed = changes
        .iter()
        .map(|(name, c)| (name.to_owned(), c.old.clone(), c.new.clone()));
    Ok(listed.collect())
}

#[test]
fn both_shapes_of_updated_fields_are_read() {
    use Change::{Cleared, Unknown, Value as Is};
    let cases = [
        // Names alone.
        (
            json!({"updatedFields": ["bio", "preferences.theme"]}),
            vec![("bio", Unknown), ("preferences.theme", Unknown)],
        ),
        (
            json!({"updatedFields": ["bio"], "newValues": null}),
            vec![("bio", Unknown)],
        ),
        (
            json!({"updatedFields": ["bio"], "newValues": ""}),
            vec![("bio", Unknown)],
        ),
        (json!({"updatedFields": []}), vec![]),
        (json!({"updatedFields": {}}), vec![]),
        // Names and values.
        (
            json!({"updatedFields": ["bio", "gender", "firstName", "lastName", "bio", ""],
                "newValues": {"bio": "x", "gender": null, "firstName": "", "phoneNumber": 7}}),
            vec![
                ("bio", Is(json!("x"))),
                ("firstName", Cleared),
                ("gender", Cleared),
                ("lastName", Unknown),
            ],
        ),
        // As written first, then by path.
        (
            json!({"updatedFields": ["preferences.a", "preferences.b.c", "preferences.d.e", "preferences.f"],
                "newValues": {"preferences.a": 1, "preferences": {"a": 2, "b": {"c": [3]}, "d": 4, "f": null}}}),
            vec![
                ("preferences.a", Is(json!(1))),
                ("preferences.b.c", Is(json!([3]))),
                ("preferences.d.e", Unknown),
                ("preferences.f", Cleared),
            ],
        ),
        (
            json!({"updatedFields": ["preferences"], "newValues": {"preferences": {"a": 1}}}),
            vec![("preferences", Is(json!({"a": 1})))],
        ),
        (
            json!({"updatedFields": ["preferences.x"], "newValues": {"preferences": {"x": {"old": 1, "new": 2}}}}),
            vec![("preferences.x", Is(json!({"old": 1, "new": 2})))],
        ),
        // An object of entries.
        (
            json!({"updatedFields": {"bio": {"old": "a", "new": "b"}, "phoneNumber": "+15551234567",
                "gender": null, "firstName": "", "lastName": {"new": null}, "displayName": {"old": "x"},
                "dateOfBirth": {"old": null, "new": ""}}}),
            vec![
                ("bio", Is(json!("b"))),
                ("dateOfBirth", Cleared),
                ("displayName", Unknown),
                ("firstName", Cleared),
                ("gender", Cleared),
                ("lastName", Cleared),
                ("phoneNumber", Is(json!("+15551234567"))),
            ],
        ),
        (
            json!({"updatedFields": {"preferences.a": {"old": 1, "new": 2, "x": 3}, "preferences.b": {},
                "preferences.c": false, "communicationPreferences.d": {"new": {"new": 1}},
                "preferences": {"old": {}, "new": {"z": 1}}}}),
            vec![
                ("communicationPreferences.d", Is(json!({"new": 1}))),
                ("preferences", Is(json!({"z": 1}))),
                ("preferences.a", Is(json!({"old": 1, "new": 2, "x": 3}))),
                ("preferences.b", Is(json!({}))),
                ("preferences.c", Is(json!(false))),
            ],
        ),
        // Values beside an object are ignored.
        (
            json!({"updatedFields": {"bio": {"old": "x"}}, "newValues": {"bio": "y", "gender": 7}}),
            vec![("bio", Unknown)],
        ),
        // NUL is read as the replacement character, in names too.
        (
            json!({"updatedFields": {"preferences.a\0": {"b\0": ["c\0"]}, "bio": "d\0"}}),
            vec![
                ("bio", Is(json!("d\u{FFFD}"))),
                (
                    "preferences.a\u{FFFD}",
                    Is(json!({"b\u{FFFD}": ["c\u{FFFD}"]})),
                ),
            ],
        ),
        (
            json!({"updatedFields": ["preferences.a\0"], "newValues": {"preferences": {"a\0": 1}}}),
            vec![("preferences.a\u{FFFD}", Is(json!(1)))],
        ),
        // What nobody knows is anything.
        (
            json!({"updatedFields": {"shoeSize": 44, "username": 7}}),
            vec![("shoeSize", Is(json!(44))), ("username", Is(json!(7)))],
        ),
    ];
    for (beside, expected) in cases {
        let found = changed("UserProfileUpdated", beside.clone()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(name, _, new)| (name.as_str(), new.clone()))
            .collect();
        assert_eq!(found, expected, "{beside}");
    }
}

#[test]
fn old_values_are_told_where_the_event_does() {
    use Change::{Unknown, Value as Is};
    let old = |name: &str, old: Option<Value>, new| (name.to_owned(), old, new);
    assert_eq!(
        changed(
            "UserUpdated",
            json!({"updatedFields": {"email": {"old": "a\0", "new": "b"},
            "username": {"old": 7}, "secondaryEmail": {"old": "", "new": "c"}}})
        )
        .unwrap(),
        [
            old("email", Some(json!("a\u{FFFD}")), Is(json!("b"))),
            old("secondaryEmail", None, Is(json!("c"))),
            old("username", Some(json!(7)), Unknown)
        ],
    );
    // The catalogue lists oldValues for roles and permissions alone.
    let listed = |first: &str| json!({"updatedFields": [first], "oldValues": {first: "a"}, "newValues": {first: "b"}});
    assert_eq!(
        changed("RoleUpdated", listed("roleName")).unwrap(),
        [old("roleName", Some(json!("a")), Is(json!("b")))]
    );
    assert_eq!(
        changed("UserUpdated", listed("email")).unwrap(),
        [old("email", None, Is(json!("b")))]
    );
    let entries = json!({"updatedFields": {"action": "x", "subject": {"old": "y", "new": "z"}},
        "oldValues": {"action": "a", "subject": "b"}, "newValues": {}});
    assert_eq!(
        changed("PermissionUpdated", entries).unwrap(),
        [
            old("action", Some(json!("a")), Is(json!("x"))),
            old("subject", Some(json!("y")), Is(json!("z")))
        ]
    );
}

#[test]
fn wrong_changes_are_bad() {
    let bad = |type_name, beside: Value| blame(changed(type_name, beside).map(|_| unreachable!()));
    for (type_name, name) in [
        ("UserUpdated", "email"),
        ("UserProfileUpdated", "bio"),
        ("UserProfileUpdated", "preferences"),
        ("UserProfileUpdated", "communicationPreferences"),
        ("UserAddressUpdated", "addressType"),
        ("UserAddressUpdated", "zipCode"),
        ("UserAddressUpdated", "countryCode"),
        ("RoleUpdated", "description"),
        ("PermissionUpdated", "subject"),
    ] {
        for value in [json!(7), json!(true), json!([])] {
            let listed = json!({"updatedFields": [name], "newValues": {name: value}});
            assert_eq!(
                bad(type_name, listed),
                ("wrong_type", format!("newValues.{name}"))
            );
            let entry = json!({"updatedFields": {name: value}, "newValues": {}});
            assert_eq!(
                bad(type_name, entry),
                ("wrong_type", format!("updatedFields.{name}"))
            );
            let entry = json!({"updatedFields": {name: {"new": value}}, "newValues": {}});
            assert_eq!(
                bad(type_name, entry),
                ("wrong_type", format!("updatedFields.{name}"))
            );
        }
    }
    assert_eq!(
        bad("UserProfileUpdated", json!({"updatedFields": {"bio": {}}})),
        ("wrong_type", "updatedFields.bio".into())
    );
    assert_eq!(
        bad(
            "UserProfileUpdated",
            json!({"updatedFields": {"preferences": "dark"}})
        ),
        ("wrong_type", "updatedFields.preferences".into())
    );
    let field = |name: &str| name.to_owned();
    assert_eq!(
        bad("UserUpdated", json!({"updatedFields": [7]})),
        ("wrong_type", field("updatedFields"))
    );
    assert_eq!(
        bad("UserUpdated", json!({"updatedFields": "email"})),
        ("wrong_type", field("updatedFields"))
    );
    assert_eq!(
        bad("UserUpdated", json!({"updatedFields": [], "newValues": []})),
        ("wrong_type", field("newValues"))
    );
    assert_eq!(
        bad("RoleUpdated", json!({"updatedFields": []})),
        ("missing_field", field("newValues"))
    );
    assert_eq!(
        bad("RoleUpdated", json!({"updatedFields": {"roleName": "x"}})),
        ("missing_field", field("newValues"))
    );
}

#[test]
fn addresses_are_read_in_any_spelling() {
    let added = |full: Value| {
        let payload = with(full_payload("UserAddressAdded"), "fullAddress", full);
        let payload = with(payload, "country", json!("at"));
        decode_payload("UserAddressAdded", payload).map(|event| match event.payload {
            Payload::UserAddressAdded(added) => added,
            _ => unreachable!(),
        })
    };
    let spelled = added(
        json!({"addressLine1": "1", "addressLine2": "2", "city": "3", "province": "4",
        "zipCode": "5", "countryCode": "de", "recipientName": "6", "phone": "7", "companyName": "8",
        "additionalNotes": "9", "planet": {}}),
    )
    .unwrap();
    let text = |text: &str| Some(text.to_owned());
    let whole = Address {
        street_line1: text("1"),
        street_line2: text("2"),
        city: text("3"),
        state_or_province: text("4"),
        postal_code: text("5"),
        country: text("DE"),
        contact_name: text("6"),
        contact_phone: text("7"),
        company_name: text("8"),
        additional_notes: text("9"),
    };
    assert_eq!(spelled.full_address.as_ref(), Some(&whole));
    assert_eq!(spelled.address(), whole);
    assert_eq!(spelled.country, "AT");

    let partial =
        added(json!({"state": "", "province": "P", "stateOrProvince": null, "city": ""})).unwrap();
    let expected = Address {
        state_or_province: text("P"),
        ..Address::default()
    };
    assert_eq!(partial.full_address, Some(expected.clone()));
    assert_eq!(
        partial.address(),
        Address {
            country: text("AT"),
            ..expected
        }
    );
    assert_eq!(
        added(json!({})).unwrap().full_address,
        Some(Address::default())
    );
    let none = added(json!(null)).unwrap();
    assert_eq!(none.full_address, None);
    assert_eq!(
        none.address(),
        Address {
            country: text("AT"),
            ..Address::default()
        }
    );
    for spelling in ADDRESS.concat() {
        let bad = added(json!({"streetLine1": "x", spelling: 7})).unwrap_err();
        assert_eq!(
            (bad.reason, bad.field),
            ("wrong_type", Some(format!("fullAddress.{spelling}")))
        );
    }

    // The same in updates.
    for spellings in ADDRESS {
        for spelling in spellings {
            let is = if spellings[0] == "country" {
                "FR"
            } else {
                "fr"
            };
            let expected = (spellings[0].to_owned(), None, Change::Value(json!(is)));
            for beside in [
                json!({"updatedFields": {*spelling: "fr"}}),
                json!({"updatedFields": [spelling], "newValues": {*spelling: "fr"}}),
                json!({"updatedFields": [spellings[0]], "newValues": {*spelling: "fr"}}),
            ] {
                let found = changed("UserAddressUpdated", beside).unwrap();
                assert_eq!(found, std::slice::from_ref(&expected));
            }
        }
    }
    let found = changed(
        "UserAddressUpdated",
        json!({"updatedFields": {"addressType": "work",
        "province": "a", "state": "b", "isDefaultShipping": true}}),
    )
    .unwrap();
    let named = |name: &str, value: Value| (name.to_owned(), None, Change::Value(value));
    assert_eq!(
        found,
        [
            named("addressType", json!("work")),
            named("isDefaultShipping", json!(true)),
            named("stateOrProvince", json!("b"))
        ]
    );
}

#[test]
fn changes_of_strings_are_told_as_such() {
    let payload = with(
        full_payload("UserUpdated"),
        "updatedFields",
        json!({"email": "a", "username": null, "secondaryEmail": {"old": "x"}}),
    );
    let event = decode_payload("UserUpdated", payload).unwrap();
    let changes = changes_of(&event.payload).unwrap();
    assert_eq!(changes.text("email"), Some(Change::Value("a")));
    assert_eq!(changes.text("username"), Some(Change::Cleared));
    assert_eq!(changes.text("secondaryEmail"), Some(Change::Unknown));
    assert_eq!(changes.text("firstName"), None);
    assert_eq!(changes.get("firstName"), None);
}
