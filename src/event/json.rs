//! JSON of untrusted size and depth: parsing it, blank values, and NUL in its strings.

use serde::Deserialize;
use serde_json::Value;

use super::bad::Bad;
use super::text::without_nul;

/// How deep arrays and objects may be nested.
const MAX_DEPTH: usize = 128;

/// Parses a record's value.
///
/// The depth is checked first: serde_json's own limit is turned off because it is another one, and
/// later code walks the parsed value by recursion.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Bad> {
    if is_deeper_than(bytes, MAX_DEPTH) {
        return Err(Bad::too_deep());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.disable_recursion_limit();
    let value = Value::deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            // serde_json has no error category of its own for this: only the message differs.
            if error.to_string().starts_with("number out of range") {
                Bad::number_out_of_range()
            } else {
                Bad::not_json()
            }
        })
}

/// Whether more than `max` arrays and objects are open at once. Exact for valid JSON. For other
/// bytes, the count is at least the depth that a parser reaches before it fails.
fn is_deeper_than(bytes: &[u8], max: usize) -> bool {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Whether the value is null or an empty string, which counts as absent.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A copy of the value with NUL replaced in all its strings and names, see [`without_nul`].
/// The recursion is bounded by the depth that [`parse`] allows.
pub(super) fn json_without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(json_without_nul).collect()),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(name, value)| (without_nul(name).into_owned(), json_without_nul(value)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
