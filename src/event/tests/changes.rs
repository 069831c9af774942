//! Tests of `updatedFields` and of addresses by examples.

use serde_json::{Value, json};

use super::super::{Address, Change, UserAddressAdded};
use super::*;

/// A change as it was read: name, old value, new value.
type Found = (String, Option<Value>, Change<Value>);

/// The changes that are read from a payload with these fields besides its ids.
fn changed(type_name: &str, other_fields: Value) -> Result<Vec<Found>, Bad> {
    let mut payload = without(full_payload(type_name), "newValues");
    payload.remove("oldValues");
    payload.remove("fullAddress");
    payload.extend(other_fields.as_object().unwrap().clone());
    let event = decode_payload(type_name, payload)?;
    let changes = changes_of(&event.payload).unwrap();
    let listed = changes
        .iter()
        .map(|(name, c)| (name.to_owned(), c.old.clone(), c.new.clone()));
    Ok(listed.collect())
}

fn change(name: &str, old: Option<Value>, new: Change<Value>) -> Found {
    (name.to_owned(), old, new)
}

/// The reason and the field of changes that are bad.
fn bad_change(type_name: &str, other_fields: Value) -> (&'static str, String) {
    reason_and_field(changed(type_name, other_fields).map(|_| unreachable!()))
}

#[test]
fn both_shapes_of_updated_fields_are_read() {
    use Change::{Cleared, Unknown, Value as Is};
    let cases = [
        // A list of names without values.
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
        // A list of names, with values in `newValues`.
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
        // A value is looked up by the name as written, then by its path.
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
        // An object with an entry for each field.
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
        // With an object of entries, `newValues` is ignored.
        (
            json!({"updatedFields": {"bio": {"old": "x"}}, "newValues": {"bio": "y", "gender": 7}}),
            vec![("bio", Unknown)],
        ),
        (
            json!({"updatedFields": {"bio": "x"}, "newValues": 7}),
            vec![("bio", Is(json!("x")))],
        ),
        // NUL is read as the replacement character, in names, too.
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
        // An unknown name may have a value of any type.
        (
            json!({"updatedFields": {"shoeSize": 44, "username": 7}}),
            vec![("shoeSize", Is(json!(44))), ("username", Is(json!(7)))],
        ),
    ];
    for (payload, expected) in cases {
        let found = changed("UserProfileUpdated", payload.clone());
        let found = found.unwrap_or_else(|bad| panic!("{payload}: {bad}"));
        let found: Vec<_> = found
            .iter()
            .map(|(name, _, new)| (name.as_str(), new.clone()))
            .collect();
        assert_eq!(found, expected, "{payload}");
    }
}

#[test]
fn old_values_are_read_from_entries() {
    use Change::{Unknown, Value as Is};
    let found = changed(
        "UserUpdated",
        json!({"updatedFields": {"email": {"old": "a\0", "new": "b"},
            "username": {"old": 7}, "secondaryEmail": {"old": "", "new": "c"}}}),
    );
    let expected = [
        change("email", Some(json!("a\u{FFFD}")), Is(json!("b"))),
        change("secondaryEmail", None, Is(json!("c"))),
        change("username", Some(json!(7)), Unknown),
    ];
    assert_eq!(found.unwrap(), expected);
}

#[test]
fn the_object_old_values_is_read_for_roles_and_permissions_only() {
    use Change::Value as Is;
    let listed = |name: &str| json!({"updatedFields": [name], "oldValues": {name: "a"}, "newValues": {name: "b"}});
    for (type_name, name, old) in [
        ("RoleUpdated", "roleName", Some(json!("a"))),
        ("PermissionUpdated", "subject", Some(json!("a"))),
        ("UserUpdated", "email", None),
        ("UserProfileUpdated", "bio", None),
        ("UserAddressUpdated", "city", None),
    ] {
        assert_eq!(
            changed(type_name, listed(name)).unwrap(),
            [change(name, old, Is(json!("b")))],
            "{type_name}"
        );
    }
}

#[test]
fn the_old_value_of_an_entry_counts_before_old_values() {
    use Change::Value as Is;
    let entries = json!({"updatedFields": {"action": "x", "subject": {"old": "y", "new": "z"}},
        "oldValues": {"action": "a", "subject": "b"}, "newValues": {}});
    assert_eq!(
        changed("PermissionUpdated", entries).unwrap(),
        [
            change("action", Some(json!("a")), Is(json!("x"))),
            change("subject", Some(json!("y")), Is(json!("z")))
        ]
    );
}

#[test]
fn a_known_field_must_have_its_type() {
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
            for (payload, parent) in [
                (
                    json!({"updatedFields": [name], "newValues": {name: value}}),
                    "newValues",
                ),
                (
                    json!({"updatedFields": {name: value}, "newValues": {}}),
                    "updatedFields",
                ),
                (
                    json!({"updatedFields": {name: {"new": value}}, "newValues": {}}),
                    "updatedFields",
                ),
            ] {
                let context = format!("{type_name}: {payload}");
                assert_eq!(
                    bad_change(type_name, payload),
                    ("wrong_type", format!("{parent}.{name}")),
                    "{context}"
                );
            }
        }
    }
}

#[test]
fn updated_fields_and_values_must_have_their_types() {
    for (type_name, payload, reason, field) in [
        (
            "UserProfileUpdated",
            json!({"updatedFields": {"bio": {}}}),
            "wrong_type",
            "updatedFields.bio",
        ),
        (
            "UserProfileUpdated",
            json!({"updatedFields": {"preferences": "dark"}}),
            "wrong_type",
            "updatedFields.preferences",
        ),
        (
            "UserUpdated",
            json!({"updatedFields": [7]}),
            "wrong_type",
            "updatedFields",
        ),
        (
            "UserUpdated",
            json!({"updatedFields": "email"}),
            "wrong_type",
            "updatedFields",
        ),
        (
            "UserUpdated",
            json!({"updatedFields": [], "newValues": []}),
            "wrong_type",
            "newValues",
        ),
        (
            "RoleUpdated",
            json!({"updatedFields": []}),
            "missing_field",
            "newValues",
        ),
        (
            "RoleUpdated",
            json!({"updatedFields": {"roleName": "x"}}),
            "missing_field",
            "newValues",
        ),
    ] {
        let context = format!("{type_name}: {payload}");
        assert_eq!(
            bad_change(type_name, payload),
            (reason, field.to_owned()),
            "{context}"
        );
    }
}

/// The event UserAddressAdded with this `fullAddress`, in the country `at`.
fn added(full_address: Value) -> Result<UserAddressAdded, Bad> {
    let payload = full_payload("UserAddressAdded");
    let payload = with(payload, "fullAddress", full_address);
    let payload = with(payload, "country", json!("at"));
    decode_payload("UserAddressAdded", payload).map(|event| match event.payload {
        Payload::UserAddressAdded(added) => added,
        _ => unreachable!(),
    })
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_whole_address_is_read_in_other_spellings() {
    let spelled = added(
        json!({"addressLine1": "1", "addressLine2": "2", "city": "3", "province": "4",
        "zipCode": "5", "countryCode": "de", "recipientName": "6", "phone": "7", "companyName": "8",
        "additionalNotes": "9", "planet": {}}),
    )
    .unwrap();
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
    // Codes are ASCII: the upper case of other letters would be the code of another country.
    let odd = added(json!({"countryCode": "ß"})).unwrap();
    assert_eq!(odd.address().country, text("ß"));
}

#[test]
fn only_ascii_letters_of_a_country_become_upper_case() {
    for (written, stored) in [
        ("us", "US"),
        ("Germany", "GERMANY"),
        ("ß", "ß"),
        ("ıt", "ıT"),
        ("ﬁ", "ﬁ"),
        ("uſ ", "Uſ "),
    ] {
        let spelled = added(json!({"countryCode": written})).unwrap();
        assert_eq!(spelled.address().country, text(stored));
        let payload = with(full_payload("UserAddressAdded"), "country", json!(written));
        let event = decode_payload("UserAddressAdded", payload).unwrap();
        let Payload::UserAddressAdded(with_country) = event.payload else {
            unreachable!()
        };
        assert_eq!(with_country.country, stored);
        let payload = json!({"updatedFields": {"countryCode": written}});
        let expected = change("country", None, Change::Value(json!(stored)));
        assert_eq!(changed("UserAddressUpdated", payload).unwrap(), [expected]);
    }
}

#[test]
fn an_address_may_lack_parts_and_takes_the_country_of_the_payload() {
    let state = Address {
        state_or_province: text("P"),
        ..Address::default()
    };
    for (full_address, expected) in [
        (
            json!({"state": "", "province": "P", "stateOrProvince": null, "city": ""}),
            Some(state),
        ),
        (json!({}), Some(Address::default())),
        (json!(null), None),
    ] {
        let added = added(full_address.clone()).unwrap();
        assert_eq!(added.full_address, expected, "{full_address}");
        let in_country = Address {
            country: text("AT"),
            ..expected.unwrap_or_default()
        };
        assert_eq!(added.address(), in_country, "{full_address}");
    }
}

#[test]
fn each_spelling_of_an_address_part_must_be_a_string() {
    for spelling in ADDRESS.concat() {
        let bad = added(json!({"streetLine1": "x", spelling: 7})).unwrap_err();
        assert_eq!(
            (bad.reason, bad.field),
            ("wrong_type", Some(format!("fullAddress.{spelling}")))
        );
    }
}

#[test]
fn updates_name_address_parts_in_any_spelling() {
    for spellings in ADDRESS {
        let name = spellings[0];
        let value = if name == "country" { "FR" } else { "fr" };
        let expected = change(name, None, Change::Value(json!(value)));
        for spelling in spellings {
            for payload in [
                json!({"updatedFields": {*spelling: "fr"}}),
                json!({"updatedFields": [spelling], "newValues": {*spelling: "fr"}}),
                json!({"updatedFields": [name], "newValues": {*spelling: "fr"}}),
            ] {
                let found = changed("UserAddressUpdated", payload.clone()).unwrap();
                assert_eq!(found, std::slice::from_ref(&expected), "{payload}");
            }
        }
    }
}

#[test]
fn of_two_spellings_in_one_update_the_first_of_the_catalogue_counts() {
    let found = changed(
        "UserAddressUpdated",
        json!({"updatedFields": {"addressType": "work",
        "province": "a", "state": "b", "isDefaultShipping": true}}),
    )
    .unwrap();
    let is = |name: &str, value: Value| change(name, None, Change::Value(value));
    assert_eq!(
        found,
        [
            is("addressType", json!("work")),
            is("isDefaultShipping", json!(true)),
            is("stateOrProvince", json!("b"))
        ]
    );
}

#[test]
fn changes_give_the_new_text_of_a_field() {
    let payload = with(
        full_payload("UserUpdated"),
        "updatedFields",
        json!({"email": "a", "username": null, "secondaryEmail": {"old": "x"}}),
    );
    let event = decode_payload("UserUpdated", payload).unwrap();
    let changes = changes_of(&event.payload).unwrap();
    for (name, expected) in [
        ("email", Some(Change::Value("a"))),
        ("username", Some(Change::Cleared)),
        ("secondaryEmail", Some(Change::Unknown)),
        ("firstName", None),
    ] {
        assert_eq!(changes.text(name), expected, "{name}");
    }
    assert_eq!(changes.get("firstName"), None);
}

#[test]
fn changes_hold_little_more_than_the_values_that_they_name() {
    // Each name has all numbers in its value.
    let names = |depth: usize| -> Vec<String> {
        let names = (1..=depth).map(|steps| vec!["a"; steps].join("."));
        names.collect()
    };
    let nested = |depth: usize, numbers: usize| {
        let inner = json!(vec![1; numbers]);
        (0..depth).fold(inner, |value, _| json!({"a": value}))
    };
    let role = |other_fields: Value| changed("RoleUpdated", other_fields);
    let many = json!({"updatedFields": names(100), "newValues": nested(100, 10_000)});
    let old =
        json!({"updatedFields": names(100), "newValues": {}, "oldValues": nested(100, 10_000)});
    let entries: serde_json::Map<_, _> = names(100)
        .into_iter()
        .map(|name| (name, json!({"new": 1})))
        .collect();
    let old_of_entries =
        json!({"updatedFields": entries, "newValues": {}, "oldValues": nested(100, 10_000)});
    for payload in [many, old, old_of_entries] {
        let bad = role(payload).unwrap_err();
        assert_eq!((bad.reason, bad.field), ("too_many_copies", None));
    }
    // Small values may overlap, and large ones a little.
    for (depth, numbers) in [(100, 10), (3, 10_000)] {
        let payload = json!({"updatedFields": names(depth), "newValues": nested(depth, numbers)});
        assert_eq!(role(payload).unwrap().len(), depth);
    }
    // A name that is listed again costs nothing.
    let again = json!({"updatedFields": vec!["x"; 100_000], "newValues": {"x": vec!["y"; 10_000]}});
    assert_eq!(role(again).unwrap().len(), 1);
    // Its value is checked all the same.
    let wrong = json!({"updatedFields": ["state", "province"],
        "newValues": {"state": "a", "province": 7}});
    assert_eq!(
        bad_change("UserAddressUpdated", wrong),
        ("wrong_type", "newValues.province".to_owned())
    );
}
