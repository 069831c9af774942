//! JSON of untrusted size and depth: parsing it within limits, blank values, and NUL in its strings.
//!
//! NUL stands for every character that can't be stored: an escape of NUL and an unpaired surrogate
//! escape (`\ud83d`) are both read as NUL in a string, where `check_id` refuses it and
//! [`without_nul`] replaces it, and as U+FFFD in the name of a member.
//!
//! JSON beyond the limits is a data error, but the members of an object are read one by one then,
//! so that the rest of a record's envelope stays readable.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bad::Bad;
use super::text::without_nul;

/// How deep arrays and objects may be nested.
const MAX_DEPTH: usize = 128;

/// What the value of a member is read as if it is beyond the limits: a type that no field has.
const BEYOND_LIMITS: i32 = 0;

/// A parsed value.
pub(super) struct Json {
    /// The value. In an object, [`BEYOND_LIMITS`] replaces members that are beyond the limits.
    pub(super) value: Value,
    /// Why the value is a data error although members of it could be read.
    pub(super) problem: Option<Bad>,
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self {
            value,
            problem: None,
        }
    }
}

impl From<Bad> for Json {
    /// A value of which nothing could be read.
    fn from(bad: Bad) -> Self {
        Self {
            value: Value::Null,
            problem: Some(bad),
        }
    }
}

impl Json {
    /// Parses JSON; if it is an object beyond the limits, its members one by one.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        let text = JsonText::new(bytes);
        let bad = match text.parse() {
            Ok(value) => return Ok(value.into()),
            Err(bad) => bad,
        };
        match text.members() {
            Some(members) => Ok(Self::of_members(&members, bad)),
            None => Err(bad),
        }
    }

    /// Parses the members of an object that as a whole is bad.
    pub(super) fn of_members(members: &Members<'_>, problem: Bad) -> Self {
        let members = members.iter().map(|(name, raw)| {
            let value = parse_within_limits(raw.get().as_bytes());
            (name.clone(), value.unwrap_or(BEYOND_LIMITS.into()))
        });
        Self {
            value: Value::Object(members.collect::<Map<_, _>>()),
            problem: Some(problem),
        }
    }
}

/// The members of an object by name, not parsed yet. Of duplicate names, the last counts.
pub(super) type Members<'t> = BTreeMap<String, &'t RawValue>;

/// The text of a JSON value, in which every escape means a character.
pub(super) struct JsonText<'b>(Cow<'b, [u8]>);

impl<'b> JsonText<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(with_readable_escapes(bytes))
    }

    /// Parses the value.
    pub(super) fn parse(&self) -> Result<Value, Bad> {
        parse_within_limits(&self.0)
    }

    /// The members, if the value is an object. There are no limits to what they hold.
    pub(super) fn members(&self) -> Option<Members<'_>> {
        // A raw value is skipped without recursion, and its numbers are not read.
        serde_json::from_slice(&self.0).ok()
    }
}

/// Parses JSON whose escapes all mean characters.
///
/// The depth is checked first: serde_json's own limit is turned off because it is another one, and
/// later code walks the parsed value by recursion.
fn parse_within_limits(bytes: &[u8]) -> Result<Value, Bad> {
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
    // Counting is several times as fast as following strings, and nearly all records have few of them.
    let opened = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    if opened.count() <= max {
        return false;
    }
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

/// The length of `\u0000`.
const ESCAPE_LENGTH: usize = 6;

/// Replaces the escapes of NUL and of unpaired surrogates by others of the same length: `\ufffd` in
/// names of members, `\u0000` in other strings.
fn with_readable_escapes(json: &[u8]) -> Cow<'_, [u8]> {
    let mut replaced = Cow::Borrowed(json);
    if !json.contains(&b'\\') {
        return replaced;
    }
    let mut in_string = false;
    // Where the current string has such escapes.
    let mut found = Vec::new();
    let mut index = 0;
    while let Some(byte) = json.get(index) {
        index += match byte {
            b'\\' if in_string => match code_unit(json, index) {
                Some(0xD800..=0xDBFF)
                    if matches!(
                        code_unit(json, index + ESCAPE_LENGTH),
                        Some(0xDC00..=0xDFFF)
                    ) =>
                {
                    2 * ESCAPE_LENGTH
                }
                Some(0 | 0xD800..=0xDFFF) => {
                    found.push(index);
                    ESCAPE_LENGTH
                }
                Some(_) => ESCAPE_LENGTH,
                None => 2,
            },
            b'"' => {
                in_string = !in_string;
                if !found.is_empty() {
                    let by = if is_before_colon(json, index) {
                        br"\ufffd"
                    } else {
                        br"\u0000"
                    };
                    let json = replaced.to_mut();
                    for start in found.drain(..) {
                        json[start..start + ESCAPE_LENGTH].copy_from_slice(by);
                    }
                }
                1
            }
            _ => 1,
        };
    }
    replaced
}

/// The UTF-16 code unit of the escape at this index, if it is one of the form `\u0000`.
fn code_unit(json: &[u8], index: usize) -> Option<u32> {
    let escape = json.get(index..index + ESCAPE_LENGTH)?;
    let digits = escape.strip_prefix(br"\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit * 16 + char::from(*digit).to_digit(16)?)
    })
}

/// Whether the string that ends at this index is the name of a member.
fn is_before_colon(json: &[u8], index: usize) -> bool {
    let mut rest = json[index + 1..].iter();
    rest.find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Whether the value is null or an empty string, which counts as absent.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A copy of the value with NUL replaced in all its strings, see [`without_nul`]. Names have none.
/// The recursion is bounded by the depth of parsed values.
pub(super) fn json_without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(json_without_nul).collect()),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(name, value)| (name.clone(), json_without_nul(value)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_escapes_that_mean_no_character_are_replaced() {
        for (json, expected) in [
            (r#""plain""#, r#""plain""#),
            (r#""\ud83d""#, r#""\u0000""#),
            (r#""\uDFFF\uD83D x""#, r#""\u0000\u0000 x""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\u0000\ud83d\ude00""#),
            (r#""\ude00\ud83d\ude00""#, r#""\u0000\ud83d\ude00""#),
            (r#""\ud83d\u0041\ude00""#, r#""\u0000\u0041\u0000""#),
            (r#""\ud83d\\ude00""#, r#""\u0000\\ude00""#),
            (r#""\\ud83d\\\ud83d""#, r#""\\ud83d\\\u0000""#),
            (r#""\"\ud83d\"""#, r#""\"\u0000\"""#),
            (r#""\ud8""#, r#""\ud8""#),
            (r#""\ud83g\u+83d""#, r#""\ud83g\u+83d""#),
            (r#""\ud83d"#, r#""\ud83d"#),
            (r"\ud83d", r"\ud83d"),
            (
                r#"{"\ud83d" : "\u0000", "a": {"\u0000":["\ud83d:"]}}"#,
                r#"{"\ufffd" : "\u0000", "a": {"\ufffd":["\u0000:"]}}"#,
            ),
        ] {
            let replaced = with_readable_escapes(json.as_bytes());
            assert_eq!(std::str::from_utf8(&replaced), Ok(expected), "{json}");
        }
    }
}
