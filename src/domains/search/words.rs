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

    /// The `tsquery` of each word, which finds the users in which it matches as `class` or better. `similar` holds, word by word of
    /// the query, the words of users that differ by few edits.
    pub fn terms(&self, class: MatchClass, similar: &[Vec<String>]) -> Vec<String> {
        // Words are letters and digits, so that nothing in them ends the quotation.
        let of_word = |(index, word): (usize, &String)| match class {
            MatchClass::Exact => format!("'{word}'"),
            MatchClass::Prefix => format!("'{word}':*"),
            MatchClass::Fuzzy => {
                let similar = similar.get(index).into_iter().flatten();
                let similar: String = similar.map(|word| format!(" | '{word}'")).collect();
                format!("('{word}':*{similar})")
            }
        };
        self.0.iter().enumerate().map(of_word).collect()
    }
}

fn has_word(words: &[String], begin: &str) -> bool {
    words.iter().any(|word| word.starts_with(begin))
}
