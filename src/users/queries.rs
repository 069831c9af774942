//! What several domains hold of a user: each domain reads its part, all on one snapshot.

use std::collections::BTreeMap;

use super::model::{User, UserInDomain};
use crate::domains::{self, Domain};
use crate::error::Error;
use crate::operations::open_dead_letters;
use crate::query::lag::{not_served, unknown_domain};
use crate::query::page::ResponseSize;
use crate::query::{self, Answer, Position, Reads};

/// The most dead letters of one domain.
const MOST_DEAD_LETTERS: usize = 100;

/// What each asked domain holds of a user; all that are served, if `names` is empty.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND or DOMAIN_NOT_SERVED of a domain; NOT_FOUND, with the position, if no
/// asked domain knows the user or has an open dead letter under the id; VIEW_NOT_READY, if one that does not know the user is
/// not built yet; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_user(
    reads: &Reads,
    served: &[&'static dyn Domain],
    user_id: &str,
    names: &[String],
) -> Result<Answer<User>, Error> {
    query::check_id("userId", user_id)?;
    let asked = asked(served, names)?;
    let views: Vec<&'static str> = asked.iter().map(|domain| domain.domain()).collect();
    let mut snapshot = reads.snapshot(&views).await?;
    let (mut parts, mut positions) = (BTreeMap::new(), Vec::new());
    for domain in asked {
        let name = domain.domain();
        let part = domain.read_user(reads, &mut snapshot, user_id).await?;
        let mut dead_letters = Vec::new();
        if part.position.lacks_dead_letters {
            let limit = MOST_DEAD_LETTERS as i64 + 1;
            dead_letters = open_dead_letters(&mut snapshot, name, user_id, limit).await?;
        }
        let has_more_dead_letters = dead_letters.len() > MOST_DEAD_LETTERS;
        dead_letters.truncate(MOST_DEAD_LETTERS);
        let in_domain = UserInDomain {
            data: part.body,
            token: part.position.token.to_string(),
            dead_letters,
            has_more_dead_letters,
        };
        parts.insert(name.to_owned(), in_domain);
        positions.push((name, part.position));
    }
    // Nothing was written: what a COMMIT answers does not matter to the reader.
    drop(snapshot);
    let position = Position::of_all(positions.iter().map(|(_, position)| position));
    for (name, of_domain) in &positions {
        if parts.get(*name).is_some_and(|part| part.data.is_none()) {
            let ready = of_domain.check_ready();
            ready.map_err(|error| error.with_metadata(position.metadata()))?;
        }
    }
    let is_empty = |part: &UserInDomain| part.data.is_none() && part.dead_letters.is_empty();
    if parts.values().all(is_empty) {
        return Err(position.not_found("user"));
    }
    let body = User {
        user_id: user_id.to_owned(),
        domains: parts,
    };
    let mut size = ResponseSize::default();
    size.add(&body)?;
    if !size.fits() {
        return Err(too_large().with_metadata(position.metadata()));
    }
    Ok(Answer { body, position })
}

/// The refusal of an answer that would be too large.
pub fn too_large() -> Error {
    let problem = "hold more of the user than one answer of 3 MiB can: ask fewer of them at once, or read each domain's own lists";
    Error::range_too_large("domains", problem)
}

/// The domains with these names, each once, in their own order.
fn asked(
    served: &[&'static dyn Domain],
    names: &[String],
) -> Result<Vec<&'static dyn Domain>, Error> {
    for name in names {
        if !domains::names().contains(&name.as_str()) {
            return Err(unknown_domain());
        }
        if !served.iter().any(|domain| domain.domain() == name) {
            return Err(not_served());
        }
    }
    let is_asked = |domain: &&&'static dyn Domain| {
        names.is_empty() || names.iter().any(|name| name == domain.domain())
    };
    Ok(served.iter().filter(is_asked).copied().collect())
}
