//! The search domain: user documents, found by brute force.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::event::{Change, Event};
use super::fields::Fields;
use super::text::plain;
use super::{View, instant};

/// How many characters of a word count.
const WORD: usize = 100;
/// The limits of a query: its distinct words, and its characters.
const QUERY_WORDS: usize = 10;
const QUERY_LENGTH: usize = 500;

/// Letters that neither NFKD nor case folding takes apart.
const LETTERS: [(char, &str); 11] = [
    ('ß', "ss"),
    ('æ', "ae"),
    ('œ', "oe"),
    ('ø', "o"),
    ('đ', "d"),
    ('ð', "d"),
    ('ł', "l"),
    ('þ', "th"),
    ('ħ', "h"),
    ('ŧ', "t"),
    ('ı', "i"),
];

/// The search domain's documents.
#[derive(Default)]
pub struct Documents {
    documents: BTreeMap<String, Document>,
    deleted: BTreeSet<String>,
}

#[derive(Default)]
struct Document {
    fields: Fields,
    registered_at: Option<DateTime<Utc>>,
}

impl View for Documents {
    fn domain(&self) -> &'static str {
        "search"
    }

    fn wants(&self, event: &str) -> bool {
        matches!(
            event,
            "UserRegistered"
                | "UserAccountStatusChanged"
                | "UserUpdated"
                | "UserDeleted"
                | "UserProfileUpdated"
        )
    }

    fn apply(&mut self, event: &Event) {
        let user = event
            .text("userId")
            .expect("every event of interest has one");
        if event.name == "UserDeleted" {
            self.documents.remove(&user);
            self.deleted.insert(user);
            return;
        }
        if self.deleted.contains(&user) {
            return;
        }
        let document = self.documents.entry(user).or_default();
        match event.name {
            "UserRegistered" => {
                for name in ["email", "username", "firstName", "lastName", "status"] {
                    if let Some(value) = event.text(name) {
                        document.fields.change(name, &Change::To(json!(value)));
                    }
                }
                document.registered_at.get_or_insert(event.occurred_at);
            }
            "UserAccountStatusChanged" => {
                let status = event.text("newStatus");
                document.fields.change("status", &Change::To(json!(status)));
            }
            updated => {
                let ours: &[&str] = match updated {
                    "UserUpdated" => &[
                        "email",
                        "username",
                        "status",
                        "firstName",
                        "lastName",
                        "displayName",
                    ],
                    _ => &["firstName", "lastName", "displayName"],
                };
                for (name, change) in event.changes().expect("good") {
                    if let Some(name) = ours.iter().find(|ours| **ours == name) {
                        document.fields.change(name, &change);
                    }
                }
            }
        }
    }
}

impl Documents {
    /// How many documents there are.
    pub fn count(&self) -> usize {
        self.documents.len()
    }

    /// All documents, to be searched.
    pub fn index(&self) -> Index {
        let entries = self.documents.iter().map(|(user, document)| {
            let mut json = document.fields.to_json();
            json.insert("userId".into(), json!(user));
            if let Some(at) = document.registered_at {
                json.insert("registeredAt".into(), instant(at));
            }
            let field = |name: &str| document.fields.get(name);
            let names: Vec<&str> = ["firstName", "lastName"]
                .into_iter()
                .filter_map(field)
                .collect();
            let mut suggested = Vec::new();
            for (name, text) in [
                ("displayName", field("displayName").map(str::to_owned)),
                ("name", (!names.is_empty()).then(|| names.join(" "))),
                ("username", field("username").map(str::to_owned)),
                ("email", field("email").map(str::to_owned)),
            ] {
                if let Some(text) = text {
                    let words = words(&text);
                    suggested.push(Suggested { name, text, words });
                }
            }
            Entry {
                user: user.clone(),
                json: Value::Object(json),
                registered_at: document.registered_at,
                suggested,
            }
        });
        Index(entries.collect())
    }
}

/// Documents with their words, by user id.
pub struct Index(Vec<Entry>);

struct Entry {
    user: String,
    json: Value,
    registered_at: Option<DateTime<Utc>>,
    suggested: Vec<Suggested>,
}

/// What of a document may be suggested. Together these hold all its words.
struct Suggested {
    name: &'static str,
    text: String,
    words: Vec<String>,
}

/// A search's parameters.
#[derive(Debug, Default, Clone)]
pub struct Query {
    pub q: Option<String>,
    pub statuses: Vec<String>,
    pub registered_after: Option<DateTime<Utc>>,
}

/// How well a word is met. A lower class is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Exact,
    Prefix,
    Fuzzy,
}

impl Class {
    fn score(self) -> f64 {
        match self {
            Class::Exact => 1.0,
            Class::Prefix => 0.75,
            Class::Fuzzy => 0.5,
        }
    }
}

impl Index {
    /// The documents, in JSON, by user id.
    pub fn documents(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().map(|entry| &entry.json)
    }

    /// The documents that a query finds, in order, with their scores. `None` if the query is refused.
    pub fn search(&self, query: &Query) -> Option<Vec<Value>> {
        let wanted = match &query.q {
            Some(q) => Some(query_words(q)?),
            None => None,
        };
        let passes = |entry: &&Entry| {
            let status = entry.json["status"].as_str();
            let by_status = query.statuses.is_empty()
                || query.statuses.iter().any(|wanted| status == Some(wanted));
            let late = |after: &DateTime<Utc>| entry.registered_at.is_some_and(|at| at > *after);
            by_status && query.registered_after.as_ref().is_none_or(late)
        };
        let passing = self.0.iter().filter(passes);
        let Some(wanted) = wanted else {
            return Some(passing.map(|entry| entry.json.clone()).collect());
        };
        let mut found: Vec<(Class, &Entry)> = passing
            .filter_map(|entry| Some((entry.class(&wanted)?, entry)))
            .collect();
        found.sort_by_key(|(class, entry)| (*class, &entry.user));
        let scored = |(class, entry): (Class, &Entry)| {
            let mut json = entry.json.clone();
            json["score"] = json!(class.score());
            json
        };
        Some(found.into_iter().map(scored).collect())
    }

    /// The suggestions for a query. `None` if it is refused.
    pub fn suggestions(&self, q: &str, limit: usize) -> Option<Vec<Value>> {
        let wanted = query_words(q)?;
        let mut found: Vec<(Class, &Entry)> = self
            .0
            .iter()
            .filter_map(|entry| Some((entry.class(&wanted)?, entry)))
            .filter(|(class, _)| *class != Class::Fuzzy)
            .collect();
        found.sort_by_key(|(class, entry)| (*class, &entry.user));
        let suggestion = |(_, entry): (Class, &Entry)| {
            let Suggested { name, text, .. } = entry.suggestion(&wanted);
            json!({"text": text, "field": name, "userId": entry.user})
        };
        Some(found.into_iter().take(limit).map(suggestion).collect())
    }
}

impl Entry {
    /// The worst of the query's words, each with the best of the document's. `None` if one of them is not met.
    fn class(&self, wanted: &BTreeSet<String>) -> Option<Class> {
        let all = || self.suggested.iter().flat_map(|part| &part.words);
        let best = |wanted: &String| all().filter_map(|word| class_of(wanted, word)).min();
        let classes: Option<Vec<Class>> = wanted.iter().map(best).collect();
        classes?.into_iter().max()
    }

    /// The first part that meets all words without a typing error, else the first that meets any.
    fn suggestion(&self, wanted: &BTreeSet<String>) -> &Suggested {
        let meets = |part: &Suggested, wanted: &String| {
            part.words.iter().any(|word| word.starts_with(wanted))
        };
        let mut parts = self.suggested.iter();
        let alone = parts.find(|part| wanted.iter().all(|word| meets(part, word)));
        let mut parts = self.suggested.iter();
        let any = parts.find(|part| wanted.iter().any(|word| meets(part, word)));
        alone.or(any).expect("the document meets the query")
    }
}

/// The distinct words of a query; `None` if it is refused.
fn query_words(q: &str) -> Option<BTreeSet<String>> {
    let words: BTreeSet<String> = words(q).into_iter().collect();
    let good = (1..=QUERY_WORDS).contains(&words.len()) && q.chars().count() <= QUERY_LENGTH;
    good.then_some(words)
}

/// A text's words.
pub fn words(text: &str) -> Vec<String> {
    let mut spelled = String::new();
    for c in plain(text).chars() {
        match LETTERS.iter().find(|(letter, _)| *letter == c) {
            Some((_, letters)) => spelled.push_str(letters),
            None => spelled.push(c),
        }
    }
    spelled
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(WORD).collect())
        .collect()
}

/// How a query's word meets a document's.
fn class_of(wanted: &str, word: &str) -> Option<Class> {
    if word == wanted {
        return Some(Class::Exact);
    }
    if word.starts_with(wanted) {
        return Some(Class::Prefix);
    }
    let (wanted, word): (Vec<char>, Vec<char>) = (wanted.chars().collect(), word.chars().collect());
    let edits = match wanted.len() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    };
    let near = wanted.len().abs_diff(word.len()) <= edits && distance(&wanted, &word) <= edits;
    near.then_some(Class::Fuzzy)
}

/// How many characters must be inserted, deleted or replaced to make one text of the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
