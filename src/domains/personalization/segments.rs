//! Facets: what users can have in common. A country, a city, a language, or one value of one
//! preference; of every facet its hash is stored and looked up.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::state::ProfileState;

/// Separates the parts of a facet: UTF-8 never contains this byte.
const SEPARATOR: [u8; 1] = [0xFF];

/// Users whose location is in this country.
pub fn in_country(code: &str) -> Uuid {
    facet("country", &code.to_ascii_uppercase())
}

/// Users whose location is in this city.
pub fn in_city(city: &str) -> Uuid {
    facet("city", &caseless::default_case_fold_str(city))
}

/// Users with this language preference.
pub fn with_language(language: &str) -> Uuid {
    facet("language", language)
}

/// Users whose preference at a dotted path has this value, as JSON writes it, strings without
/// quotes.
pub fn with_preference(path: &str, value: &str) -> Uuid {
    finish(preference().chain_update(path), value)
}

fn facet(kind: &str, value: &str) -> Uuid {
    finish(Sha256::new_with_prefix(kind), value)
}

fn preference() -> Sha256 {
    Sha256::new_with_prefix("preference").chain_update(SEPARATOR)
}

fn finish(hash: Sha256, value: &str) -> Uuid {
    let digest = hash.chain_update(SEPARATOR).chain_update(value).finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(first)
}

/// The facets of a user.
pub fn facets(state: &ProfileState) -> BTreeSet<Uuid> {
    let location = state.location().unwrap_or_default();
    let mut facets = BTreeSet::new();
    facets.extend(location.country_code.as_deref().map(in_country));
    facets.extend(location.city.as_deref().map(in_city));
    facets.extend(state.language_preference.as_deref().map(with_language));
    if let Some(preferences) = &state.preferences.preferences {
        add_leaves(&mut facets, &preference(), "", preferences);
    }
    facets
}

/// Adds a facet for each string, number and boolean in an object. `path` has hashed the path to the
/// object, so that a long name is not copied for each leaf below it.
fn add_leaves(facets: &mut BTreeSet<Uuid>, path: &Sha256, dot: &str, object: &Map<String, Value>) {
    for (name, value) in object {
        let path = path.clone().chain_update(dot).chain_update(name);
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Object(inner) => {
                add_leaves(facets, &path, ".", inner);
                continue;
            }
            Value::Array(_) | Value::Null => continue,
        };
        facets.insert(finish(path, &text));
    }
}
