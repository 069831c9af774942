//! Takes off what serializers put around the JSON of a record.
//!
//! Each of these may be there, in this order from the outside: the framing of schema registries, a
//! byte order mark, the wrapper of Kafka Connect's JSON converter, and a JSON string.

use serde_json::Value;

use super::bad::Bad;
use super::json::{Json, JsonText};

/// Reads the JSON of a record's value.
///
/// # Errors
/// The value is not JSON, or it is beyond the limits and not an object.
pub(super) fn read(value: &[u8]) -> Result<Json, Bad> {
    let json = without_connect_wrapper(without_byte_order_mark(without_framing(value)))?;
    Ok(match &json.value {
        Value::String(text) => object_in(text).unwrap_or(json),
        _ => json,
    })
}

/// The framing is a zero byte, with which no JSON begins, and the id of the schema in four bytes.
fn without_framing(value: &[u8]) -> &[u8] {
    match value {
        [0, _, _, _, _, rest @ ..] => rest,
        _ => value,
    }
}

fn without_byte_order_mark(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(value)
}

/// Parses the value. The wrapper is an object of `schema` and `payload`: the limits hold for the
/// payload, and the schema is ignored.
fn without_connect_wrapper(value: &[u8]) -> Result<Json, Bad> {
    let text = JsonText::new(value);
    let bad = match text.parse() {
        Ok(Value::Object(mut members)) if is_connect_wrapper(members.keys()) => {
            return Ok(members.remove("payload").unwrap_or_default().into());
        }
        Ok(value) => return Ok(value.into()),
        Err(bad) => bad,
    };
    match text.members() {
        Some(members) if is_connect_wrapper(members.keys()) => {
            Json::parse(members["payload"].get().as_bytes())
        }
        Some(members) => Ok(Json::of_members(&members, bad)),
        None => Err(bad),
    }
}

fn is_connect_wrapper<'n>(mut names: impl ExactSizeIterator<Item = &'n String>) -> bool {
    names.len() == 2 && names.all(|name| name == "schema" || name == "payload")
}

/// The JSON object in the text of a string, if it holds one.
fn object_in(text: &str) -> Option<Json> {
    // A NUL in the text is an escape that the string's own serializer wrote: it is one again here.
    let text = text.replace('\0', r"\u0000");
    let json = Json::parse(text.as_bytes()).ok()?;
    json.value.is_object().then_some(json)
}
