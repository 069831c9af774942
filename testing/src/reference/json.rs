//! JSON as the contract reads it, parsed by hand: whether it is within the limits, unpaired surrogates, and where
//! the members of an object are.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value, json};

/// How deep arrays and objects may be nested.
const MAX_DEPTH: usize = 128;

/// A parsed text.
pub struct Json {
    /// The value. In strings, NUL and unpaired surrogates are NUL; in names, U+FFFD. What is beyond the limits is
    /// some number.
    pub value: Value,
    /// Whether it is nested 128 deep at most, with numbers in the range of f64.
    pub within_limits: bool,
    /// Where the values of the outermost object's members are.
    pub members: BTreeMap<String, Range<usize>>,
}

/// Parses a text. The last of duplicate names counts.
pub fn parse(text: &[u8]) -> Option<Json> {
    Parser {
        text: std::str::from_utf8(text).ok()?,
        at: 0,
        within_limits: true,
    }
    .document()
}

/// An array or an object that is not closed yet.
enum Open {
    Array(Vec<Value>),
    /// The members so far, and the name of the next.
    Object(Map<String, Value>, String),
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    within_limits: bool,
}

impl Parser<'_> {
    fn document(mut self) -> Option<Json> {
        let mut open: Vec<Open> = Vec::new();
        let mut members = BTreeMap::new();
        let mut member_start = 0;
        loop {
            self.space();
            if open.len() == 1 {
                member_start = self.at;
            }
            let mut value = match self.peek()? {
                bracket @ (b'[' | b'{') => {
                    self.at += 1;
                    self.space();
                    self.within_limits &= open.len() < MAX_DEPTH;
                    match (bracket, self.peek()?) {
                        (b'[', b']') => {
                            self.at += 1;
                            json!([])
                        }
                        (b'{', b'}') => {
                            self.at += 1;
                            json!({})
                        }
                        (b'[', _) => {
                            open.push(Open::Array(Vec::new()));
                            continue;
                        }
                        _ => {
                            let name = self.name()?;
                            open.push(Open::Object(Map::new(), name));
                            continue;
                        }
                    }
                }
                b'"' => Value::String(self.string()?),
                b't' => self.word("true", json!(true))?,
                b'f' => self.word("false", json!(false))?,
                b'n' => self.word("null", Value::Null)?,
                _ => self.number()?,
            };
            // The value may end others.
            loop {
                let end = self.at;
                self.space();
                let depth = open.len();
                let closed = match open.last_mut() {
                    None if self.at == self.text.len() => {
                        return Some(Json {
                            value,
                            within_limits: self.within_limits,
                            members,
                        });
                    }
                    None => return None,
                    Some(Open::Array(items)) => {
                        items.push(value);
                        match self.next()? {
                            b',' => break,
                            b']' => Value::Array(std::mem::take(items)),
                            _ => return None,
                        }
                    }
                    Some(Open::Object(object, name)) => {
                        if depth == 1 {
                            members.insert(name.clone(), member_start..end);
                        }
                        object.insert(std::mem::take(name), value);
                        match self.next()? {
                            b',' => {
                                self.space();
                                *name = self.name()?;
                                break;
                            }
                            b'}' => Value::Object(std::mem::take(object)),
                            _ => return None,
                        }
                    }
                };
                open.pop();
                value = if depth > MAX_DEPTH { json!(0) } else { closed };
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        let found = self.text.get(self.at..)?.starts_with(word);
        self.at += word.len();
        found.then_some(value)
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    fn number(&mut self) -> Option<Value> {
        let from = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let written = &self.text[from..self.at];
        if written.parse::<f64>().is_ok_and(f64::is_finite) {
            return serde_json::from_str(written).ok();
        }
        self.within_limits = false;
        Some(json!(0))
    }

    /// The name of a member and its colon.
    fn name(&mut self) -> Option<String> {
        let name = self.string()?.replace('\0', "\u{fffd}");
        self.space();
        (self.next()? == b':').then_some(name)
    }

    fn string(&mut self) -> Option<String> {
        if self.next()? != b'"' {
            return None;
        }
        let mut string = String::new();
        loop {
            let c = self.text[self.at..].chars().next()?;
            self.at += c.len_utf8();
            string.push(match c {
                '"' => return Some(string),
                '\\' => self.escape()?,
                '\0'..='\u{1f}' => return None,
                c => c,
            });
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            c @ (b'"' | b'\\' | b'/') => c.into(),
            b'u' => {
                let unit = self.code_unit()?;
                let after = self.at;
                let is_escape = self.text[after..].starts_with("\\u");
                if (0xd800..0xdc00).contains(&unit) && is_escape {
                    self.at += 2;
                    let second = self.code_unit()?;
                    if let Some(Ok(c)) = char::decode_utf16([unit, second]).next() {
                        return Some(c);
                    }
                    self.at = after;
                }
                char::from_u32(unit.into()).unwrap_or('\0')
            }
            _ => return None,
        })
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        let all_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| all_hex)
    }
}
