//! What the folds of several domains have in common: the rules that hold in every view, told once.
//!
//! [`addresses`] is a user's addresses and defaults as a pure fold, [`history`] keeps what was folded so that it can
//! be folded again up to an instant, and [`users`] carries events to the one row that a domain has per user.

pub mod addresses;
pub mod history;
pub mod users;

#[cfg(test)]
pub mod examples;

use crate::event::Change;

/// Changes a text, and notes whether it is known: `stale` stays sorted, and holds a name once.
pub fn change_text(
    value: &mut Option<String>,
    stale: &mut Vec<String>,
    name: &str,
    change: Change<&str>,
) {
    let place = stale.binary_search_by(|other| other.as_str().cmp(name));
    match (change, place) {
        (Change::Unknown, Err(place)) => stale.insert(place, name.to_owned()),
        (Change::Unknown, Ok(_)) => {}
        (Change::Value(new), place) => {
            *value = Some(new.to_owned());
            place.map(|place| stale.remove(place)).ok();
        }
        (Change::Cleared, place) => {
            *value = None;
            place.map(|place| stale.remove(place)).ok();
        }
    }
}
