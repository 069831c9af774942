//! Examples of the personalization domain.

use serde_json::{Value, json};
use sightline_testing::hostile_log::MAX_VALUE_BYTES;
use sightline_testing::reference::{
    Event, Folds, Profiles, Segment, Verdict, View, event_of, leaves,
};

use super::{Counts, Example, added, random_log};

fn answer(example: &Example) -> Value {
    let profiles: &Profiles = example.fold.view();
    profiles.answer("u").expect("known")
}

fn updated(example: &mut Example, fields: Value) -> Verdict {
    let payload = json!({"updatedFields": fields});
    example.event("u", "UserProfileUpdated", 1, payload)
}

#[test]
fn a_profile_in_full() {
    let mut example = Example::new(Profiles::default());
    example.event(
        "u",
        "UserUpdated",
        1,
        json!({"updatedFields": {"username": "n"}}),
    );
    assert_eq!(
        example.fold.view::<Profiles>().answer("u"),
        None,
        "of no interest"
    );
    let payload = json!({"email": "a@b.c", "status": "active", "firstName": "F"});
    example.event("u", "UserRegistered", 2, payload);
    let nothing = json!({"userId": "u", "countries": [], "staleFields": [], "updatedAt": "1970-01-01T00:00:02Z"});
    assert_eq!(answer(&example), nothing);
    let fields = json!({
        "bio": "B", "languagePreference": "de", "timezonePreference": {"old": "UTC"}, "profilePictureUrl": "P",
        "phoneNumber": "1", "preferences.theme": "dark", "communicationPreferences": {"email": {"weekly": false}},
    });
    updated(&mut example, fields);
    let mut address = added("x", true);
    address["fullAddress"] = json!({"city": "Bonn", "province": "NRW", "country": "de"});
    example.event("u", "UserAddressAdded", 3, address);
    let fields = json!({"addressId": "x", "updatedFields": ["state", "country", "zipCode"]});
    example.event("u", "UserAddressUpdated", 4, fields);
    updated(&mut example, json!(["bio", "preferences.privacy"]));
    assert_eq!(
        answer(&example),
        json!({
            "userId": "u", "bio": "B", "languagePreference": "de", "profilePictureUrl": "P",
            "preferences": {"theme": "dark"}, "communicationPreferences": {"email": {"weekly": false}},
            "location": {"countryCode": "DE", "city": "Bonn", "state": "NRW"}, "countries": ["DE"],
            "staleFields": [
                "bio", "countries", "location.countryCode", "location.state", "preferences.privacy",
                "timezonePreference",
            ],
            "updatedAt": "1970-01-01T00:00:01Z",
        })
    );
    example.event("u", "UserDeleted", 5, json!({}));
    example.event("u", "UserAddressAdded", 6, added("y", true));
    updated(&mut example, json!({"preferences": {"theme": "dark"}}));
    assert_eq!(example.fold.view::<Profiles>().answer("u"), None);
}

#[test]
fn preferences_are_set_cleared_and_stale() {
    let mut example = Example::new(Profiles::default());
    for (fields, preferences, stale) in [
        (
            json!({"preferences.a.b": 1}),
            json!({"a": {"b": 1}}),
            json!([]),
        ),
        (
            json!({"preferences.a.c": "x\0", "preferencesOf": 1}),
            json!({"a": {"b": 1, "c": "x\u{fffd}"}}),
            json!([]),
        ),
        // What is no object gives way.
        (
            json!({"preferences.a.b.d": [1]}),
            json!({"a": {"b": {"d": [1]}, "c": "x\u{fffd}"}}),
            json!([]),
        ),
        (
            json!({"preferences.a.c": null, "preferences.z.y": ""}),
            json!({"a": {"b": {"d": [1]}}}),
            json!([]),
        ),
        (
            json!({"preferences.a.b": {"old": 1}}),
            json!({"a": {"b": {"d": [1]}}}),
            json!(["preferences.a.b"]),
        ),
        // A part of what is stale does not make it known.
        (
            json!({"preferences.a.b.d": 2}),
            json!({"a": {"b": {"d": 2}}}),
            json!(["preferences.a.b"]),
        ),
        (
            json!({"preferences.a": {"new": {"b": 3}}}),
            json!({"a": {"b": 3}}),
            json!([]),
        ),
        (
            json!(["preferences.a", "preferences"]),
            json!({"a": {"b": 3}}),
            json!(["preferences", "preferences.a"]),
        ),
        // A whole object replaces; a member's name may hold a dot.
        (
            json!({"preferences": {"new": {"c.d": true}}}),
            json!({"c.d": true}),
            json!([]),
        ),
        (
            json!({"preferences.c.d": 4}),
            json!({"c.d": true, "c": {"d": 4}}),
            json!([]),
        ),
    ] {
        assert_eq!(updated(&mut example, fields.clone()), Verdict::Applied);
        let answer = answer(&example);
        let said = (&answer["preferences"], &answer["staleFields"]);
        assert_eq!(said, (&preferences, &stale), "{fields}");
    }
    let listed = json!({"updatedFields": ["preferences.x", "preferences.y.z", "preferences.c"],
        "newValues": {"preferences.x": 1, "preferences": {"x": 2, "y": {"z": 3}}}});
    example.event("u", "UserProfileUpdated", 1, listed);
    let expected = json!({"c.d": true, "c": {"d": 4}, "x": 1, "y": {"z": 3}});
    assert_eq!(answer(&example)["preferences"], expected);
    assert_eq!(answer(&example)["staleFields"], json!(["preferences.c"]));
    updated(&mut example, json!({"preferences": null}));
    assert_eq!(answer(&example).get("preferences"), None);
    assert_eq!(answer(&example)["staleFields"], json!([]));
    for bad in [
        json!({"preferences": "dark"}),
        json!({"communicationPreferences": [1]}),
    ] {
        let mut example = Example::new(Profiles::default());
        assert_eq!(
            updated(&mut example, bad.clone()),
            Verdict::DeadLettered,
            "{bad}"
        );
    }
}

#[test]
fn preferences_grow_to_64_kib() {
    // `{"a":"…"}`
    let whole = |bytes: usize| "x".repeat(bytes - 8);
    for name in ["preferences", "communicationPreferences"] {
        let mut example = Example::new(Profiles::default());
        let (member, other) = (format!("{name}.a"), format!("{name}.b"));
        assert_eq!(
            updated(&mut example, json!({&member: whole(65_536)})),
            Verdict::Applied
        );
        // The other object has its own limit.
        updated(&mut example, json!({"preferences.a": whole(65_536)}));
        assert_eq!(
            updated(&mut example, json!({"communicationPreferences.a": 1})),
            Verdict::Applied
        );
        updated(&mut example, json!({&member: whole(65_536)}));
        let before = answer(&example);
        assert_eq!(
            updated(&mut example, json!({&other: 1})),
            Verdict::DeadLettered
        );
        assert_eq!(answer(&example), before);
        // What would make room waits behind it.
        assert_eq!(
            updated(&mut example, json!({&member: null})),
            Verdict::DeadLettered
        );
        example.fold.discard(0, 4);
        assert_eq!(answer(&example)[name], json!({}));
    }
    let mut example = Example::new(Profiles::default());
    let too_large = json!({"preferences.a": whole(65_537)});
    assert_eq!(
        updated(&mut example, too_large.clone()),
        Verdict::DeadLettered
    );
    // A deleted user's preferences don't grow.
    example.event("u", "UserDeleted", 1, json!({}));
    assert_eq!(updated(&mut example, too_large), Verdict::Applied);
}

#[test]
fn many_stale_names_make_the_whole_object_stale() {
    let mut example = Example::new(Profiles::default());
    updated(&mut example, json!({"preferences.a": 1}));
    updated(&mut example, json!(["communicationPreferences.b"]));
    // 112 bytes each.
    let names = |count: u32| -> Vec<String> {
        (0..count)
            .map(|n| format!("preferences.{n:0>100}"))
            .collect()
    };
    for (count, listed) in [(585, 586), (586, 2)] {
        let fields = json!(names(count));
        assert_eq!(updated(&mut example, fields), Verdict::Applied);
        let answer = answer(&example);
        assert_eq!(answer["staleFields"].as_array().map(Vec::len), Some(listed));
        assert_eq!(answer["preferences"], json!({"a": 1}));
    }
    let both = json!(["communicationPreferences.b", "preferences"]);
    assert_eq!(answer(&example)["staleFields"], both);
    updated(&mut example, json!({"preferences.c": 2}));
    assert_eq!(answer(&example)["staleFields"], both);
    updated(&mut example, json!({"preferences": {"new": {}}}));
    assert_eq!(
        answer(&example)["staleFields"],
        json!(["communicationPreferences.b"])
    );
}

#[test]
fn the_location_is_the_default_address_or_the_one_known_last() {
    let mut example = Example::new(Profiles::default());
    let city = |example: &Example| {
        let answer = answer(example);
        let cities = answer["location"]["city"]
            .as_str()
            .unwrap_or("-")
            .to_owned();
        let countries: Vec<String> = answer["countries"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|country| country.as_str().expect("text").to_owned())
            .collect();
        format!("{cities} {}", countries.join(","))
    };
    let add = |id: &str, city: &str, country: &str, default: bool| {
        let mut payload = added(id, default);
        payload["fullAddress"] = json!({"city": city, "country": country});
        ("UserAddressAdded", payload)
    };
    let default = |id: &str| {
        (
            "UserProfileDefaultAddressChanged",
            json!({"defaultShippingAddressId": id}),
        )
    };
    let billing = (
        "UserProfileDefaultAddressChanged",
        json!({"defaultBillingAddressId": "a"}),
    );
    let update = |id: &str, fields: Value| {
        (
            "UserAddressUpdated",
            json!({"addressId": id, "updatedFields": fields}),
        )
    };
    let delete = |id: &str| ("UserAddressDeleted", json!({"addressId": id}));
    for ((event_type, payload), expected) in [
        (billing, "- "),
        (add("a", "A", "fr", false), "A FR"),
        (add("b", "B", "de", false), "B DE,FR"),
        // It was known before.
        (add("a", "A2", "FR", false), "B DE,FR"),
        (default("a"), "A2 DE,FR"),
        (default("c"), "B DE,FR"),
        (update("c", json!({"city": "C"})), "C DE,FR"),
        (delete("c"), "B DE,FR"),
        (delete("a"), "B DE"),
        (update("a", json!({"city": "A3"})), "B DE"),
        (add("a", "A4", "FR", false), "A4 DE,FR"),
        (update("d", json!({"state": "S"})), "- DE,FR"),
        (add("b", "B2", "AT", true), "B2 AT,FR"),
        (add("b", "B3", "AT", false), "- AT,FR"),
        (delete("d"), "A4 AT,FR"),
    ] {
        let said = format!("{event_type} {payload}");
        example.event("u", event_type, 1, payload);
        assert_eq!(city(&example), expected, "{said}");
    }
}

#[test]
fn segments_hold_whom_all_filters_pass() {
    let mut example = Example::new(Profiles::default());
    for (user, country, city, language, preferences) in [
        (
            "a",
            "de",
            "Gießen",
            "de",
            json!({"theme": "dark", "privacy": {"tracking": false}, "n": 1.5}),
        ),
        (
            "b",
            "DE",
            "GIESSEN",
            "DE",
            json!({"theme": "dark", "privacy.tracking": "false", "list": ["dark"]}),
        ),
        (
            "c",
            "FR",
            "Giesen",
            "de",
            json!({"theme": "a:b", "privacy": null, "n": 3}),
        ),
    ] {
        let mut address = added("x", false);
        address["fullAddress"] = json!({"city": city, "country": country});
        example.event(user, "UserAddressAdded", 1, address);
        let fields =
            json!({"updatedFields": {"languagePreference": language, "preferences": preferences}});
        example.event(user, "UserProfileUpdated", 1, fields);
    }
    example.event(
        "d",
        "UserRegistered",
        1,
        json!({"email": "a@b.c", "status": "active"}),
    );
    let found = |country: &str, city: &str, language: &str, preferences: &[&str]| {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let cut = |text: &&str| {
            let (path, value) = text.split_once(':').expect("a path and a value");
            (path.to_owned(), value.to_owned())
        };
        let segment = Segment {
            country: given(country),
            city: given(city),
            language: given(language),
            preferences: preferences.iter().map(cut).collect(),
        };
        example.fold.view::<Profiles>().segment(&segment).concat()
    };
    assert_eq!(found("De", "", "", &[]), "ab");
    assert_eq!(found("", "giessen", "", &[]), "ab");
    assert_eq!(found("", "GIESEN", "", &[]), "c");
    assert_eq!(found("", "", "de", &[]), "ac");
    assert_eq!(found("", "", "", &["theme:dark"]), "ab");
    assert_eq!(found("", "", "", &["theme:a:b"]), "c");
    assert_eq!(found("", "", "", &["privacy.tracking:false"]), "ab");
    assert_eq!(found("", "", "", &["n:1.5"]), "a");
    assert_eq!(found("", "", "", &["n:3"]), "c");
    assert_eq!(found("", "", "", &["list:dark"]), "");
    assert_eq!(found("", "", "", &["theme:dark", "n:1.5"]), "a");
    assert_eq!(found("", "", "", &["theme:dark", "theme:a:b"]), "");
    assert_eq!(found("FR", "", "de", &["theme:a:b", "n:3"]), "c");
    assert_eq!(found("FR", "giessen", "", &[]), "");
}

#[test]
fn leaves_are_scalars_by_their_dotted_paths() {
    let object = json!({"a": {"b": {"c": "x"}, "d.e": -2}, "f": [1, {"g": 2}], "h": null, "i": true, "j": {}});
    let leaf = |path: &str, value: &str| (path.to_owned(), value.to_owned());
    assert_eq!(
        leaves(&object),
        [leaf("a.b.c", "x"), leaf("a.d.e", "-2"), leaf("i", "true")]
    );
}

/// Preferences and locations change in every way.
#[test]
fn random_logs_hold_difficult_profiles() {
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    let mut counts = Counts::default();
    let mut rare = Counts::default();
    for record in random_log() {
        let event = event_of(&record);
        let user = event.as_ref().and_then(Event::user).unwrap_or_default();
        let answer = |folds: &Folds| folds.view::<Profiles>().answer(&user).unwrap_or_default();
        let before = answer(&folds);
        let verdict = folds.take(&record)["personalization"];
        let after = answer(&folds);
        let Some(event) = event else { continue };
        let parked = folds.books("personalization", event.partition).parked_keys;
        rare.is("refused for its size", {
            let fold = folds.of("personalization");
            verdict == Verdict::DeadLettered
                && !fold.view::<Profiles>().has_room(&event)
                && parked > 0
        });
        if verdict != Verdict::Applied {
            continue;
        }
        for name in ["preferences", "communicationPreferences"] {
            let (was, is) = (&before[name], &after[name]);
            rare.is("exactly 64 KiB", is.to_string().len() == 65_536);
            counts.is(
                "a member is no object any more",
                was["privacy"].is_object() && is["privacy"].is_string(),
            );
            counts.is(
                "a member becomes an object",
                was["privacy"].is_string() && is["privacy"].is_object(),
            );
            counts.is("cleared as a whole", was.is_object() && is.is_null());
            counts.is(
                "a member goes away",
                was.get("theme").is_some() && is.is_object() && is.get("theme").is_none(),
            );
        }
        let stale = |answer: &Value, name: &str| {
            let names = answer["staleFields"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            names
                .iter()
                .any(|stale| stale.as_str().expect("text").starts_with(name))
        };
        for name in [
            "bio",
            "preferences",
            "preferences.",
            "location.city",
            "location.countryCode",
        ] {
            counts.is(
                format!("{name} becomes stale"),
                !stale(&before, name) && stale(&after, name),
            );
            counts.is(
                format!("{name} is known again"),
                stale(&before, name) && !stale(&after, name),
            );
        }
        let moved = before["location"] != after["location"] && before["location"].is_object();
        counts.is(
            format!("{} moves the location", event.name),
            moved && event.name.contains("Address"),
        );
        counts.is(
            "several countries",
            after["countries"]
                .as_array()
                .is_some_and(|all| all.len() > 1),
        );
    }
    counts
        .0
        .retain(|what, count| !(what.ends_with("moves the location") && *count == 0));
    counts.are_at_least(8);
    rare.are_at_least(2);
    assert!(counts.0.len() >= 19, "{} kinds", counts.0.len());
}
