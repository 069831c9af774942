//! Checks of ids in requests. Ids of users and addresses are opaque: any text of 1 to 255 characters
//! without NUL is one. Ids that sightline makes are UUIDs.

use std::collections::HashSet;

use uuid::Uuid;

use crate::error::{Error, FieldViolation};

/// The longest id, in characters.
pub const MAX_ID_LENGTH: usize = 255;

/// Checks an id. No event has an id that is empty, longer than 255 characters, or contains NUL.
///
/// # Errors
/// INVALID_ARGUMENT: no event can have this id; the error names `field`.
pub fn check_id(field: &str, id: &str) -> Result<(), Error> {
    match id_problem(id) {
        Some(problem) => Err(Error::invalid(field, problem)),
        None => Ok(()),
    }
}

/// A UUID in text.
///
/// # Errors
/// INVALID_ARGUMENT: the text is not a UUID; the error names `field`.
pub fn uuid(field: &str, text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| Error::invalid(field, "must be a UUID"))
}

/// The ids of a list without repetitions, in the order of their first occurrence.
///
/// # Errors
/// INVALID_ARGUMENT: the list is empty or has more than `max` entries (the error names `field`), or
/// entries are not valid ids (it names each as `field[i]`).
pub fn distinct_ids<'a>(field: &str, ids: &'a [String], max: usize) -> Result<Vec<&'a str>, Error> {
    if ids.is_empty() {
        return Err(Error::invalid(field, "must name at least one id"));
    }
    if ids.len() > max {
        return Err(Error::invalid(
            field,
            format!("must name at most {max} ids"),
        ));
    }
    let violations: Vec<_> = ids
        .iter()
        .enumerate()
        .filter_map(|(i, id)| {
            Some(FieldViolation {
                field: format!("{field}[{i}]"),
                problem: id_problem(id)?.into(),
            })
        })
        .collect();
    if !violations.is_empty() {
        return Err(Error::violations(violations));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    Ok(ids
        .iter()
        .map(String::as_str)
        .filter(|id| seen.insert(*id))
        .collect())
}

fn id_problem(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        Some("must not be empty")
    } else if id.chars().nth(MAX_ID_LENGTH).is_some() {
        Some("must be at most 255 characters long")
    } else if id.contains('\0') {
        // Postgres cannot store NUL, so no row has this id.
        Some("must not contain NUL")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_by_characters() {
        for id in ["a", "../x%2F 😀", &"é".repeat(255)] {
            assert!(check_id("userId", id).is_ok());
        }
        for id in ["", "a\0b", &"é".repeat(256)] {
            let error = check_id("userId", id).unwrap_err();
            assert_eq!(error.fields()[0].field, "userId");
        }
    }

    #[test]
    fn repeated_ids_are_dropped_and_the_order_is_kept() {
        let ids = ["b", "a", "b"].map(String::from);
        assert_eq!(distinct_ids("userIds", &ids, 3).unwrap(), ["b", "a"]);
        assert!(distinct_ids("userIds", &ids, 2).is_err());
        assert!(distinct_ids("userIds", &[], 2).is_err());
        let bad = ["a", "", "\0"].map(String::from);
        let error = distinct_ids("userIds", &bad, 3).unwrap_err();
        let fields: Vec<_> = error.fields().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["userIds[1]", "userIds[2]"]);
    }
}
