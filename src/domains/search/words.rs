//! The words of texts and of queries, and how a query's words match a text's.
//!
//! Words are made here and not by Postgres, so that they depend on no dictionary, extension or locale of a server.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fold::text::plain;

/// A word counts by so many of its first characters.
pub const MAX_WORD_LENGTH: usize = 100;
/// A user is found by so many of the first words.
pub const MAX_USER_WORDS: usize = 1_000;
/// The longest query, in characters.
const MAX_QUERY_LENGTH: usize = 500;
/// The most distinct words of a query.
const MAX_QUERY_WORDS: usize = 10;

/// The words of a text: runs of letters and digits, without case and accents, each once, in their order.
pub fn words<'t>(texts: impl IntoIterator<Item = &'t str>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut words = Vec::new();
    for text in texts {
        let spelled = plain_letters(text);
        for word in spelled.split(|c: char| !c.is_alphanumeric()) {
            let word: String = word.chars().take(MAX_WORD_LENGTH).collect();
            if !word.is_empty() && seen.insert(word.clone()) {
                words.push(word);
            }
        }
    }
    words
}

/// A text without case and accents, in which letters that don't decompose are written as one types them without their key.
fn plain_letters(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            'ß' => spelled.push_str("ss"),
            'æ' => spelled.push_str("ae"),
            'œ' => spelled.push_str("oe"),
            'þ' => spelled.push_str("th"),
            'ø' => spelled.push('o'),
            'đ' | 'ð' => spelled.push('d'),
            'ł' => spelled.push('l'),
            'ħ' => spelled.push('h'),
            'ŧ' => spelled.push('t'),
            c => spelled.push(c),
        }
    }
    spelled
}

/// How a word of a query matches a word of a user, best first. A user matches a query as its worst word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchClass {
    /// They are equal.
    Exact,
    /// The user's word begins with the query's.
    Prefix,
    /// They differ by few edits.
    Fuzzy,
}

impl MatchClass {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Prefix, Self::Fuzzy];

    /// The rank as answers give it, from 0 to 1.
    pub fn score(self) -> f64 {
        match self {
            Self::Exact => 1.0,
            Self::Prefix => 0.75,
            Self::Fuzzy => 0.5,
        }
    }
}

/// The words of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryWords(Vec<String>);

impl QueryWords {
    /// Reads the query that a field holds.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming `field`: it is too long, or has no word or too many.
    pub fn of(field: &str, query: &str) -> Result<Self, Error> {
        if query.chars().count() > MAX_QUERY_LENGTH {
            let problem = format!("must have at most {MAX_QUERY_LENGTH} characters");
            return Err(Error::invalid(field, problem));
        }
        let words = words([query]);
        if words.is_empty() {
            return Err(Error::invalid(field, "must have a letter or a digit"));
        }
        if words.len() > MAX_QUERY_WORDS {
            let problem = format!("must have at most {MAX_QUERY_WORDS} distinct words");
            return Err(Error::invalid(field, problem));
        }
        Ok(Self(words))
    }

    /// The words, each once.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a text's own words match all words of the query, exactly or as prefix.
    pub fn all_begin_words_of(&self, text: &str) -> bool {
        let words = words([text]);
        self.iter().all(|begin| has_word(&words, begin))
    }

    /// Whether a text's own words match any word of the query, exactly or as prefix.
    pub fn any_begins_a_word_of(&self, text: &str) -> bool {
        let words = words([text]);
        self.iter().any(|begin| has_word(&words, begin))
    }

    /// The term of each word, which finds the users in which it matches as `class` or better.
    pub fn terms(&self, class: MatchClass, known: &[KnownWord]) -> Vec<Term> {
        let nothing_known = KnownWord::default();
        let words = self.0.iter().enumerate();
        let terms = words.map(|(index, word)| {
            let known = known.get(index).unwrap_or(&nothing_known);
            Term::of(word, class, known)
        });
        terms.collect()
    }
}

/// What a search knows of a query's word. Numbers of documents are estimates.
#[derive(Debug, Clone, Default)]
pub struct KnownWord {
    /// How many documents have the word itself.
    pub exact: f64,
    /// How many have a word that begins with it; infinite for very many.
    pub prefix: f64,
    /// The users' words that begin with it; `None` if they are too many.
    pub longer: Option<Vec<String>>,
    /// The users' words that differ from it by few edits.
    pub similar: Vec<String>,
    /// How many documents have one of these.
    pub similar_documents: f64,
}

/// How a query's word is looked for: as a `tsquery`.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// For a user's words.
    pub filter: String,
    /// For the index of words, which finds a word faster than a prefix: only words, if all of them are known.
    pub words: Option<String>,
    /// How many alternatives the filter has.
    pub alternatives: usize,
    /// How many documents it finds; infinite for very many.
    pub documents: f64,
}

impl Term {
    fn of(word: &str, class: MatchClass, known: &KnownWord) -> Self {
        if class == MatchClass::Exact {
            let filter = any_of(&[word]);
            return Self {
                words: Some(filter.clone()),
                filter,
                alternatives: 1,
                documents: known.exact,
            };
        }
        let (similar, documents) = match class {
            MatchClass::Fuzzy => (&known.similar[..], known.prefix + known.similar_documents),
            _ => (&[][..], known.prefix),
        };
        let similar: Vec<&str> = similar.iter().map(String::as_str).collect();
        let prefix = format!("'{word}':*");
        let filter = match similar.as_slice() {
            [] => prefix,
            similar => format!("({prefix} | {})", any_of(similar)),
        };
        let words = known.longer.as_ref().map(|longer| {
            let longer: Vec<&str> = longer.iter().map(String::as_str).collect();
            match [&longer[..], &similar[..]].concat().as_slice() {
                // Of no word, a `tsquery` can't be made.
                [] => filter.clone(),
                all => any_of(all),
            }
        });
        Self {
            words,
            filter,
            alternatives: 1 + similar.len(),
            documents,
        }
    }
}

/// The `tsquery` of any of some words. Words are letters and digits, so that nothing in them ends the quotation.
fn any_of(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("({})", words.join(" | "))
}

fn has_word(words: &[String], begin: &str) -> bool {
    words.iter().any(|word| word.starts_with(begin))
}
