//! Properties of the search domain's fold, words and similar words, and examples of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{FoundUser, SuggestionField};
use super::projection::{Effects, WordCounts};
use super::similar::{Pieces, Ranges, allowed_edits, nearest};
use super::state::UserDocumentState;
use super::words::{KnownWord, MAX_USER_WORDS, MatchClass, QueryWords, words};
use crate::fold::examples::{assert_states_are_read, event};
use crate::fold::users::UserState;
use crate::projector::{NewEvent, Projection};

#[test]
fn words_are_runs_of_letters_and_digits_without_case_and_accents() {
    for (text, expected) in [
        ("", &[][..]),
        (" -_@.!", &[]),
        ("Ada Lovelace", &["ada", "lovelace"]),
        ("ada@example.org", &["ada", "example", "org"]),
        ("O'Brien-Smith", &["o", "brien", "smith"]),
        ("ada ADA Áda", &["ada"]),
        ("Zoë", &["zoe"]),
        ("zoe\u{308}", &["zoe"]),
        ("Straße", &["strasse"]),
        ("STRASSE", &["strasse"]),
        ("ẞ", &["ss"]),
        ("Æsir Œuvre", &["aesir", "oeuvre"]),
        ("Søren Ørsted", &["soren", "orsted"]),
        ("Łukasz Đorđe Ðorn", &["lukasz", "dorde", "dorn"]),
        ("Þór Ħal Ŧim", &["thor", "hal", "tim"]),
        ("İzmir ısparta", &["izmir", "isparta"]),
        ("Σίσυφος", &["σισυφοσ"]),
        ("Ａｄａ ①②", &["ada", "12"]),
        ("王秀英 김민준", &["王秀英", "김민준"]),
        ("a\0b\u{FFFD}c", &["a", "b", "c"]),
        ("🦀ada🦀", &["ada"]),
        ("\u{301}\u{302}", &[]),
        ("x2000 3½", &["x2000", "31", "2"]),
    ] {
        let found = words([text]);
        if text.starts_with("王") {
            // NFKD takes syllables of Hangul apart.
            assert_eq!(found.len(), 2);
        } else {
            assert_eq!(found, expected, "{text}");
        }
    }
    let long = "é".repeat(150);
    assert_eq!(words([long.as_str()]), ["e".repeat(100)]);
}

#[test]
fn a_user_is_found_by_the_first_thousand_words() {
    let many: Vec<String> = (0..3_000).map(|n| format!("w{n}")).collect();
    let user = FoundUser {
        first_name: Some(many.join(" ")),
        last_name: Some("last".to_owned()),
        ..FoundUser::default()
    };
    assert_eq!(user.words(), many[..MAX_USER_WORDS]);
}

#[test]
fn queries_have_one_to_ten_words() {
    let read = |text: &str| {
        let words = QueryWords::of("q", text);
        let words = words.map(|words| words.iter().map(str::to_owned).collect::<Vec<_>>());
        words.map_err(|error| error.fields()[0].field.clone())
    };
    assert_eq!(
        read("Ada  ADA\tlove"),
        Ok(vec!["ada".into(), "love".into()])
    );
    assert_eq!(
        read("1 2 3 4 5 6 7 8 9 a A á").map(|words| words.len()),
        Ok(10)
    );
    for refused in [
        "",
        " ",
        "&|!:*'\\",
        "🦀",
        "\u{301}",
        "\0",
        "1 2 3 4 5 6 7 8 9 a b",
        &"x".repeat(501),
    ] {
        assert_eq!(read(refused), Err("q".into()), "{refused}");
    }
    assert!(read(&"é".repeat(500)).is_ok());
}

#[test]
fn terms_are_quoted_and_name_all_words_if_they_are_known() {
    let query = QueryWords::of("q", "a:* & 'b' \\").unwrap();
    let some = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let nothing = [KnownWord::default(), KnownWord::default()];
    let known = [
        KnownWord {
            exact: 1.0,
            prefix: 2.0,
            longer: Some(some(&["a", "ab"])),
            ..KnownWord::default()
        },
        KnownWord {
            prefix: f64::INFINITY,
            similar: some(&["c", "d"]),
            similar_documents: 3.0,
            ..KnownWord::default()
        },
    ];
    let none_begins = [KnownWord {
        longer: Some(Vec::new()),
        ..KnownWord::default()
    }];
    for (class, known, expected) in [
        (
            MatchClass::Exact,
            &known[..],
            &[
                ("('a')", Some("('a')"), 1, 1.0),
                ("('b')", Some("('b')"), 1, 0.0),
            ][..],
        ),
        (
            MatchClass::Prefix,
            &known,
            &[
                ("'a':*", Some("('a' | 'ab')"), 1, 2.0),
                ("'b':*", None, 1, f64::INFINITY),
            ],
        ),
        (
            MatchClass::Fuzzy,
            &known,
            &[
                ("'a':*", Some("('a' | 'ab')"), 1, 2.0),
                ("('b':* | ('c' | 'd'))", None, 3, f64::INFINITY),
            ],
        ),
        (
            MatchClass::Fuzzy,
            &nothing,
            &[("'a':*", None, 1, 0.0), ("'b':*", None, 1, 0.0)],
        ),
        (
            MatchClass::Prefix,
            &none_begins,
            &[("'a':*", Some("'a':*"), 1, 0.0), ("'b':*", None, 1, 0.0)],
        ),
    ] {
        let terms = query.terms(class, known);
        let terms: Vec<_> = terms
            .iter()
            .map(|term| {
                let words = term.words.as_deref();
                (
                    term.filter.as_str(),
                    words,
                    term.alternatives,
                    term.documents,
                )
            })
            .collect();
        assert_eq!(terms, expected, "{class:?}");
    }
}

#[test]
fn longer_words_allow_more_edits() {
    for (word, edits) in [
        ("abc", 0),
        ("abcd", 1),
        ("ébçd", 1),
        ("abcdefg", 1),
        ("abcdefgh", 2),
    ] {
        assert_eq!(allowed_edits(word), edits, "{word}");
    }
}

/// Whether the indexes find a word by one of the pieces.
fn finds(pieces: &Pieces, word: &str) -> bool {
    let length = word.chars().count();
    let in_ranges = |ranges: &Ranges, word: &str| {
        let bounds = ranges.first.iter().zip(&ranges.last);
        ranges.lengths.iter().zip(bounds).any(|(l, (first, last))| {
            *l as usize == length && word >= first.as_str() && word < last.as_str()
        })
    };
    let letters: Vec<char> = word.chars().collect();
    let middle: String = letters[length.div_ceil(3)..length - length / 3]
        .iter()
        .collect();
    let middles = pieces.middles.lengths.iter().zip(&pieces.middles.pieces);
    let backwards: String = letters.iter().rev().collect();
    in_ranges(&pieces.beginnings, word)
        || in_ranges(&pieces.endings, &backwards)
        || (length >= 6
            && middles
                .into_iter()
                .any(|(l, piece)| *l as usize == length && *piece == middle))
}

/// A word, and one that a few random edits made of it.
fn word_and_edited() -> impl Strategy<Value = (String, String)> {
    let letter = || prop::sample::select(vec!['a', 'b', 'c', 'ж', '1', '王']);
    let word = prop::collection::vec(letter(), 3..20);
    let edits = prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), letter()), 0..4);
    (word, edits).prop_map(|(word, edits)| {
        let mut edited = word.clone();
        for (kind, at, letter) in edits {
            match kind {
                0 => edited.insert(at.index(edited.len() + 1), letter),
                1 if edited.len() > 1 => drop(edited.remove(at.index(edited.len()))),
                _ => {
                    let at = at.index(edited.len());
                    edited[at] = letter;
                }
            }
        }
        (word.into_iter().collect(), edited.into_iter().collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn all_similar_words_share_a_piece((word, other) in word_and_edited()) {
        let distance = strsim::levenshtein(&word, &other);
        let is_similar = distance <= allowed_edits(&word);
        let pieces = Pieces::of([word.as_str()]);
        prop_assert_eq!(pieces.is_empty(), allowed_edits(&word) == 0);
        if is_similar && distance > 0 {
            prop_assert!(finds(&pieces, &other), "{} {}", word, other);
        }
        let near = nearest(&word, [other.as_str(), other.as_str()]);
        let expected: &[&str] = if is_similar && !other.starts_with(&word) { &[&other] } else { &[] };
        prop_assert_eq!(near, expected);
    }
}

/// Marks personal data, which a deletion must erase.
const PERSONAL: &str = "personal";

/// The type and the payload of an event of one user.
fn type_and_payload() -> impl Strategy<Value = (&'static str, Value)> {
    let text = || (0..3).prop_map(|n| json!(format!("{PERSONAL}{n} {n}")));
    let fields = |names: &'static [&'static str]| {
        let value = prop_oneof![text(), Just(Value::Null)];
        let name = prop::sample::select(names);
        prop_oneof![
            prop::collection::vec(name.clone(), 0..3).prop_map(|names| json!(names)),
            prop::collection::btree_map(name, value, 0..3).prop_map(|values| json!(values)),
        ]
    };
    prop_oneof![
        3 => (text(), text()).prop_map(|(name, email)| {
            ("UserRegistered", json!({"email": email, "firstName": name, "status": "active"}))
        }),
        4 => fields(&["firstName", "lastName", "displayName", "bio"])
            .prop_map(|f| ("UserProfileUpdated", json!({"updatedFields": f}))),
        4 => fields(&["email", "username"]).prop_map(|f| ("UserUpdated", json!({"updatedFields": f}))),
        1 => Just(("UserAccountStatusChanged", json!({"previousStatus": "active", "newStatus": "banned"}))),
        1 => Just(("UserDeleted", json!({}))),
    ]
}

/// Events of one user from two logs.
fn events() -> impl Strategy<Value = Vec<NewEvent>> {
    prop::collection::vec((type_and_payload(), 1..=2), 1..30).prop_map(|payloads| {
        let numbered = payloads.into_iter().enumerate();
        numbered
            .map(|(number, ((event_type, payload), log_id))| NewEvent {
                log_id,
                ..event(number, event_type, payload)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn counts_are_those_of_the_document_wherever_batches_end(events in events(), size in 1_usize..10) {
        let mut state = UserDocumentState::default();
        let mut counted: BTreeMap<(String, i32), i64> = BTreeMap::new();
        for batch in events.chunks(size) {
            let mut effects = Effects::default();
            for event in batch {
                state.apply(event, &mut effects);
            }
            let mut counts = WordCounts::default();
            counts.add(effects.before.as_ref(), &state);
            for (word, log_id, change) in counts.iter() {
                *counted.entry((word.to_owned(), log_id)).or_default() += change;
            }
            counted.retain(|_, documents| *documents != 0);
            let words = state.counted_words();
            prop_assert!(counted.values().all(|documents| *documents == 1));
            prop_assert_eq!(counted.keys().collect::<BTreeSet<_>>(), words.iter().collect());
            // The state is stored between two batches.
            let stored = serde_json::to_value(&state).expect("JSON");
            state = serde_json::from_value(stored).expect("a state");
            if state.is_deleted {
                prop_assert!(words.is_empty());
                let text = serde_json::to_string(&state).expect("JSON");
                prop_assert!(!text.contains(PERSONAL), "{}", text);
            }
        }
        // Which log counts the words does not depend on the order in which logs were read.
        if let Some(log_id) = state.counted_log {
            prop_assert_eq!(Some(log_id), events.iter().map(|event| event.log_id).min());
        }
    }
}

fn fold(events: Vec<(&'static str, Value)>) -> Option<Value> {
    let mut state = UserDocumentState::default();
    for (number, (event_type, payload)) in events.into_iter().enumerate() {
        state.apply(&event(number, event_type, payload), &mut Effects::default());
    }
    state
        .user
        .map(|user| serde_json::to_value(user).expect("JSON"))
}

#[test]
fn documents_hold_what_events_bring() {
    let registered = |name: &str| {
        let payload = json!({"email": "ada@example.org", "status": "active", "firstName": name});
        ("UserRegistered", payload)
    };
    let at = "2026-10-01T00:00:00Z";
    for (events, expected) in [
        (vec![], None),
        (
            vec![("UserProfileUpdated", json!({"updatedFields": ["bio"]}))],
            Some(json!({"userId": "u", "staleFields": []})),
        ),
        (
            vec![
                registered("Ada"),
                (
                    "UserUpdated",
                    json!({"updatedFields": ["email", "secondaryEmail"]}),
                ),
                (
                    "UserProfileUpdated",
                    json!({"updatedFields": {"lastName": "King", "firstName": null}}),
                ),
                (
                    "UserAccountStatusChanged",
                    json!({"previousStatus": "active", "newStatus": "odd"}),
                ),
            ],
            Some(json!({
                "userId": "u", "email": "ada@example.org", "lastName": "King", "status": "odd",
                "registeredAt": at, "staleFields": ["email"],
            })),
        ),
        (
            vec![
                registered("Ada"),
                (
                    "UserProfileUpdated",
                    json!({"updatedFields": ["firstName"]}),
                ),
                registered("Grace"),
            ],
            Some(json!({
                "userId": "u", "email": "ada@example.org", "firstName": "Grace", "status": "active",
                "registeredAt": at, "staleFields": [],
            })),
        ),
        (
            vec![
                registered("Ada"),
                ("UserDeleted", json!({})),
                registered("Ada"),
            ],
            None,
        ),
        (vec![("UserDeleted", json!({})), registered("Ada")], None),
    ] {
        let what = format!("{events:?}");
        assert_eq!(fold(events), expected, "{what}");
    }
}

#[test]
fn the_first_text_that_matches_by_itself_is_suggested() {
    use SuggestionField::{DisplayName, Email, Name, Username};

    let user = FoundUser {
        display_name: Some("Countess".to_owned()),
        first_name: Some("Ada".to_owned()),
        last_name: Some("Lovelace".to_owned()),
        username: Some("ada.king".to_owned()),
        email: Some("a.k@example.org".to_owned()),
        ..FoundUser::default()
    };
    for (query, field, text) in [
        ("count", DisplayName, "Countess"),
        ("ad", Name, "Ada Lovelace"),
        ("love ada", Name, "Ada Lovelace"),
        ("ada ki", Username, "ada.king"),
        ("k", Username, "ada.king"),
        ("k a example", Email, "a.k@example.org"),
        // None of them has both words.
        ("king love", Name, "Ada Lovelace"),
        ("king coun", DisplayName, "Countess"),
    ] {
        let query_words = QueryWords::of("q", query).unwrap();
        let suggested = user.suggestion(&query_words);
        assert_eq!(suggested, Some((field, text.to_owned())), "{query}");
    }
    let only_first = FoundUser {
        first_name: Some("Ada".to_owned()),
        ..FoundUser::default()
    };
    let ada = QueryWords::of("q", "ada").unwrap();
    assert_eq!(only_first.suggestion(&ada), Some((Name, "Ada".to_owned())));
}

/// If this fails, raise the code version and add lines for the new form.
#[test]
fn stored_states_of_all_code_versions_are_read() {
    let stored = include_str!("../../../tests/fixtures/states/search.jsonl");
    let versions = assert_states_are_read::<UserDocumentState>(stored);
    assert!(versions.contains(&i64::from(super::Search.declared_code_version())));
}
