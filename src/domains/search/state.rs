//! What the search domain stores of a user, as one JSON document.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::model::{FoundUser, SuggestionField};
use super::words::{MAX_USER_WORDS, QueryWords, words};

/// A user as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UserDocumentState {
    /// The document, as long as the user is known and not deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<FoundUser>,
    /// The log in which the document's words are counted: the first by id of those that the user's events are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_log: Option<i32>,
    /// Whether the user was deleted. Nothing is stored after that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}

impl UserDocumentState {
    /// The words of the document, each with the log in which it is counted.
    pub fn counted_words(&self) -> HashSet<(String, i32)> {
        let user_words = self.user.as_ref().map(FoundUser::words);
        let counted = user_words.zip(self.counted_log);
        counted.map_or_else(HashSet::new, |(words, log_id)| {
            words.into_iter().map(|word| (word, log_id)).collect()
        })
    }
}

impl FoundUser {
    /// The words by which the user is found.
    pub fn words(&self) -> Vec<String> {
        let texts = [
            &self.first_name,
            &self.last_name,
            &self.display_name,
            &self.username,
            &self.email,
        ];
        let mut words = words(texts.into_iter().flatten().map(String::as_str));
        words.truncate(MAX_USER_WORDS);
        words
    }

    /// What to suggest of this user, who matches: the first text that matches the query by itself, else the first that has a
    /// match.
    pub fn suggestion(&self, query: &QueryWords) -> Option<(SuggestionField, String)> {
        let names = [&self.first_name, &self.last_name].into_iter().flatten();
        let names: Vec<&str> = names.map(String::as_str).collect();
        let name = Some(names.join(" ")).filter(|name| !name.is_empty());
        let texts = [
            (SuggestionField::DisplayName, self.display_name.clone()),
            (SuggestionField::Name, name),
            (SuggestionField::Username, self.username.clone()),
            (SuggestionField::Email, self.email.clone()),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(field, text)| Some((field, text?)));
        let mut texts: Vec<(SuggestionField, String)> = texts.collect();
        let whole = texts
            .iter()
            .position(|(_, text)| query.all_begin_words_of(text));
        let part = || {
            texts
                .iter()
                .position(|(_, text)| query.any_begins_a_word_of(text))
        };
        let index = whole.or_else(part)?;
        Some(texts.swap_remove(index))
    }
}
