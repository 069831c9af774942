//! What the folds of several domains share: the rules that hold in every view.
//!
//! [`addresses`] is the pure fold of a user's addresses and defaults. [`users`] applies events to
//! the one row that a domain keeps per user. [`history`] stores the folded facts, so that reads can
//! fold them again up to an instant. [`text`] makes spellings of one name equal.

pub mod addresses;
pub mod history;
pub mod text;
pub mod users;

#[cfg(test)]
pub mod examples;

use crate::event::Change;

/// Applies a change to a text field. `stale` lists the fields that changed to an unknown value:
/// sorted, each once.
pub fn change_text(
    value: &mut Option<String>,
    stale: &mut Vec<String>,
    name: &str,
    change: Change<&str>,
) {
    let index = stale.binary_search_by(|other| other.as_str().cmp(name));
    match (change, index) {
        (Change::Unknown, Err(index)) => stale.insert(index, name.to_owned()),
        (Change::Unknown, Ok(_)) => {}
        (Change::Value(new), index) => {
            *value = Some(new.to_owned());
            index.map(|index| stale.remove(index)).ok();
        }
        (Change::Cleared, index) => {
            *value = None;
            index.map(|index| stale.remove(index)).ok();
        }
    }
}
