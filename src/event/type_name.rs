//! Event types as producers write them: the spellings of a type and its version.

use super::catalogue::EventType;

/// The type of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeName {
    /// A type of the catalogue, in any version.
    Known {
        /// The type.
        event_type: EventType,
        /// The version; 1 if the record has none, `u32::MAX` if it is larger than that.
        version: u32,
    },
    /// A type that the catalogue does not have.
    Unknown {
        /// The type as the record has it, of any length.
        name: String,
    },
}

/// Splits a type in any spelling into the type and the digits of its version (`"1"` if it has
/// none).
///
/// The spellings are `UserRegistered`, with or without `Event`, with or without a version (`V1` or
/// `.v1`). In CloudEvents a reverse-DNS prefix may come first. `None` if the type is unknown.
pub(super) fn parse(written: &str, cloud_events: bool) -> Option<(EventType, &str)> {
    let dotted = written
        .rsplit_once(".v")
        .filter(|(_, digits)| is_version(digits));
    let (name, version) = match dotted {
        Some((name, digits)) => (name, Some(digits)),
        None => (written, None),
    };
    let name = match name.rsplit_once('.') {
        Some((prefix, name)) if cloud_events && is_reverse_dns(prefix) => name,
        _ => name,
    };
    let find = |name: &str| EventType::from_name(name.strip_suffix("Event").unwrap_or(name));
    match (find(name), version) {
        (Some(event_type), version) => Some((event_type, version.unwrap_or("1"))),
        (None, Some(_)) => None,
        (None, None) => {
            let (name, digits) = name.rsplit_once('V')?;
            is_version(digits).then_some(())?;
            Some((find(name)?, digits))
        }
    }
}

/// Whether these are the digits of a positive integer without leading zeros.
fn is_version(digits: &str) -> bool {
    !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Whether these are labels of letters, digits, `-` and `_`, separated by dots.
fn is_reverse_dns(prefix: &str) -> bool {
    prefix.split('.').all(|label| {
        let is_of_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.bytes().all(is_of_label)
    })
}
