//! Examples of the search domain.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sightline_testing::hostile_log::MAX_VALUE_BYTES;
use sightline_testing::reference::{Documents, Fold, Index, Query, Verdict, words};

use super::{Counts, Example, at, random_log};

fn index(example: &Example) -> Index {
    example.fold.view::<Documents>().index()
}

/// Registers users in turn, with these fields.
fn registered(users: &[(&str, Value)]) -> Example {
    let mut example = Example::new(Documents::default());
    for (n, (user, fields)) in users.iter().enumerate() {
        let mut payload = json!({"email": "-@-", "status": "active"});
        for (name, value) in fields.as_object().expect("fields") {
            payload[name] = value.clone();
        }
        example.event(user, "UserRegistered", n as i64, payload);
        if let Some(name) = fields.get("displayName") {
            let fields = json!({"updatedFields": {"displayName": name}});
            example.event(user, "UserProfileUpdated", 100, fields);
        }
    }
    example
}

/// The users that a query finds, in order, with their scores; `refused` if it is.
fn found(index: &Index, q: &str) -> String {
    let query = Query {
        q: Some(q.to_owned()),
        ..Query::default()
    };
    let Some(found) = index.search(&query) else {
        return "refused".into();
    };
    let found = found.iter().map(|document| {
        let user = document["userId"].as_str().expect("text");
        format!("{user} {}", document["score"])
    });
    found.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_document_in_full() {
    let mut example = Example::new(Documents::default());
    let verified = example.event("u", "UserEmailVerified", 1, json!({"email": "a@b.c"}));
    assert_eq!(verified, Verdict::Skipped);
    let name = json!({"updatedFields": ["lastName", "bio"], "newValues": {"bio": "x"}});
    example.event("u", "UserProfileUpdated", 2, name);
    let expected = json!({"userId": "u", "staleFields": ["lastName"]});
    let index = |example: &Example| index(example).documents().cloned().collect::<Vec<Value>>();
    assert_eq!(index(&example), [expected]);
    let payload = json!({"email": "a@b.c", "status": "active", "username": "n", "lastName": "L"});
    example.event("u", "UserRegistered", 3, payload);
    example.event(
        "u",
        "UserRegistered",
        9,
        json!({"email": "b@b.c", "status": "odd"}),
    );
    let status = json!({"newStatus": "banned", "previousStatus": "active"});
    example.event("u", "UserAccountStatusChanged", 4, status);
    let fields = json!({"updatedFields": {"username": {"old": "n"}, "secondaryEmail": "s@b.c"}});
    example.event("u", "UserUpdated", 5, fields);
    let fields = json!({"updatedFields": {"displayName": "D", "lastName": null}});
    example.event("u", "UserProfileUpdated", 6, fields);
    let expected = json!({
        "userId": "u", "email": "b@b.c", "username": "n", "displayName": "D", "status": "banned",
        "registeredAt": "1970-01-01T00:00:03Z", "staleFields": ["username"],
    });
    assert_eq!(index(&example), [expected]);

    example.event("u", "UserDeleted", 7, json!({}));
    example.event(
        "u",
        "UserRegistered",
        8,
        json!({"email": "a@b.c", "status": "active"}),
    );
    assert!(index(&example).is_empty());
}

#[test]
fn words_have_neither_case_nor_accents() {
    for (text, expected) in [
        (
            "Ada.Lovelace+x@example.com",
            &["ada", "lovelace", "x", "example", "com"][..],
        ),
        ("  --  ", &[]),
        ("Müller Mu\u{308}ller MULLER", &["muller"; 3]),
        ("Straße STRASSE Stra\u{1e9e}e", &["strasse"; 3]),
        (
            "Æon œuvre Øre Đorđe Ðà Łódź Þór Ħal Ŧ",
            &[
                "aeon", "oeuvre", "ore", "dorde", "da", "lodz", "thor", "hal", "t",
            ],
        ),
        ("İnci ınci INCI", &["inci"; 3]),
        ("ΑΛΈΞΗΣ Αλέξης", &["αλεξησ"; 2]),
        ("ﬁ ① 李小龍_x", &["fi", "1", "李小龍", "x"]),
    ] {
        assert_eq!(words(text), expected, "{text}");
    }
    // A word counts by its first 100 characters.
    assert_eq!(words(&"é".repeat(101)), ["e".repeat(100)]);
}

#[test]
fn exact_words_come_before_prefixes_and_those_before_typing_errors() {
    let users = [
        (
            "a",
            json!({"firstName": "Christopher", "lastName": "Miller"}),
        ),
        ("b", json!({"firstName": "Chris", "lastName": "Müller"})),
        ("c", json!({"username": "chris", "lastName": "Mill"})),
        (
            "d",
            json!({"displayName": "Kristofer M.", "email": "miles@chris.org"}),
        ),
        ("e", json!({"firstName": "Ann", "lastName": "Ana"})),
    ];
    let example = registered(&users);
    let index = index(&example);
    for (q, expected) in [
        ("chris", "b 1.0, c 1.0, d 1.0, a 0.75"),
        ("CHRÍS", "b 1.0, c 1.0, d 1.0, a 0.75"),
        // One edit in words of 4 to 7 letters.
        ("mill", "c 1.0, a 0.75"),
        ("miler", "a 0.5, d 0.5"),
        ("muller", "b 1.0, a 0.5"),
        ("mile", "d 0.75, c 0.5"),
        // No edit in shorter ones, which are prefixes of others all the same.
        ("anb", ""),
        ("an", "e 0.75"),
        ("ann", "e 1.0"),
        // Two from 8 letters on.
        ("christophe", "a 0.75"),
        ("cristofer", "d 0.5"),
        ("kristoph", ""),
        ("christofer", "a 0.5, d 0.5"),
        // A transposition is two edits.
        ("chirstopher", "a 0.5"),
        ("chirs", ""),
        // Every word must be met; the worst one counts, in any order of words.
        ("chris mill", "c 1.0, a 0.75"),
        ("mill, CHRIS", "c 1.0, a 0.75"),
        ("chris miller", "a 0.75, b 0.5"),
        ("chris nobody", ""),
        ("org", "d 1.0"),
    ] {
        assert_eq!(found(&index, q), expected, "{q}");
    }
}

#[test]
fn queries_without_words_and_with_too_many_are_refused() {
    let index = index(&registered(&[("a", json!({"firstName": "a"}))]));
    assert_eq!(found(&index, "b c d e f g h i j a"), "");
    assert_eq!(found(&index, "a A á a a a a a a a a a"), "a 1.0");
    assert_eq!(found(&index, &format!("a{}", " ".repeat(499))), "a 1.0");
    for q in [
        "",
        " .-",
        "b c d e f g h i j k a",
        &format!("a{}", " ".repeat(500)),
    ] {
        assert_eq!(found(&index, q), "refused", "{q}");
        assert_eq!(index.suggestions(q, 10), None, "{q}");
    }
}

#[test]
fn filters_pass_what_they_name() {
    let mut example = registered(&[("b", json!({"status": "banned"})), ("a", json!({}))]);
    let status = json!({"newStatus": "active", "previousStatus": "x"});
    example.event("c", "UserAccountStatusChanged", 5, status);
    let index = index(&example);
    let found = |statuses: &[&str], after: Option<i64>| {
        let query = Query {
            q: None,
            statuses: statuses.iter().map(|&status| status.into()).collect(),
            registered_after: after.and_then(at),
        };
        let found = index.search(&query).expect("not refused");
        assert!(found.iter().all(|document| document.get("score").is_none()));
        let ids = found
            .iter()
            .filter_map(|document| document["userId"].as_str());
        ids.collect::<String>()
    };
    assert_eq!(found(&[], None), "abc");
    assert_eq!(found(&["active"], None), "ac");
    assert_eq!(found(&["active", "banned"], None), "abc");
    assert_eq!(found(&["Active"], None), "");
    // Exclusive; a user who is not known to have registered does not pass.
    assert_eq!(found(&[], Some(-1)), "ab");
    assert_eq!(found(&[], Some(0)), "a");
    assert_eq!(found(&["banned"], Some(0)), "");
}

#[test]
fn suggestions_name_the_field_that_meets_the_query() {
    let example = registered(&[
        (
            "a",
            json!({"displayName": "The Countess", "firstName": "Ada", "lastName": "King", "username": "ada", "email": "ada@king.org"}),
        ),
        ("b", json!({"lastName": "Kingston", "email": "ada.k@x.org"})),
    ]);
    let index = index(&example);
    let suggested = |q: &str, limit| {
        let suggestions = index.suggestions(q, limit).expect("not refused");
        let short = suggestions.iter().map(|suggestion| {
            let word = |name: &str| suggestion[name].as_str().expect("text");
            format!("{} {} {}", word("userId"), word("field"), word("text"))
        });
        short.collect::<Vec<_>>().join(", ")
    };
    for (q, expected) in [
        ("coun", "a displayName The Countess"),
        ("king", "a name Ada King, b name Kingston"),
        ("ada", "a name Ada King, b email ada.k@x.org"),
        ("kin ad", "a name Ada King, b name Kingston"),
        ("org ada", "a email ada@king.org, b email ada.k@x.org"),
        // No field has both words: the first that has one.
        ("countess ada", "a displayName The Countess"),
        // Not with a typing error.
        ("kinga", ""),
    ] {
        assert_eq!(suggested(q, 10), expected, "{q}");
    }
    assert_eq!(suggested("king", 1), "a name Ada King");
}

/// Documents are alike and differ in every way that counts, and queries find them in every class.
#[test]
fn random_logs_hold_difficult_documents() {
    let mut fold = Fold::new(Documents::default(), MAX_VALUE_BYTES);
    for record in random_log() {
        fold.take(&record);
    }
    let index = fold.view::<Documents>().index();
    let mut counts = Counts::default();
    let mut all = BTreeSet::new();
    for document in index.documents() {
        counts.is("never registered", document.get("registeredAt").is_none());
        counts.is("stale", document["staleFields"] != json!([]));
        counts.is("without a status", document.get("status").is_none());
        let mut texts = ["firstName", "lastName", "displayName", "username", "email"]
            .into_iter()
            .filter_map(|name| document[name].as_str());
        counts.is("accents", texts.clone().any(|text| !text.is_ascii()));
        let without_words = |text: &str| words(text).is_empty();
        counts.is("a text without words", texts.clone().any(without_words));
        counts.is("a long text", texts.clone().any(|text| text.len() > 500));
        counts.is(
            "a long word",
            texts.any(|text| words(text).iter().any(|word| word.len() >= 100)),
        );
        for name in ["firstName", "lastName", "displayName", "username", "email"] {
            all.extend(words(document[name].as_str().unwrap_or_default()));
        }
    }
    for word in &all {
        let query = Query {
            q: Some(word.clone()),
            ..Query::default()
        };
        let found = index.search(&query).expect("not refused");
        let scores: BTreeSet<String> = found.iter().map(|d| d["score"].to_string()).collect();
        let fuzzy = scores.contains("0.5");
        counts.is("exact and fuzzy", fuzzy && scores.contains("1.0"));
        counts.is("exact, prefix and fuzzy", scores.len() == 3);
        counts.is(
            "fuzzy, from 8 letters on",
            fuzzy && word.chars().count() >= 8,
        );
        let start: String = word.chars().take(2).collect();
        for suggestion in index.suggestions(&start, 10).expect("not refused") {
            counts.is(format!("suggests {}", suggestion["field"]), true);
        }
    }
    counts.are_at_least(5);
    assert!(counts.0.len() >= 14, "{} kinds", counts.0.len());
}
