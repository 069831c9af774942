//! Reads RFC 3339 times exactly as the standard defines them, cut to microseconds.
//!
//! This is not chrono's parser because that also accepts what the standard does not (a space for
//! the `T`, other minus signs), and keeps a leap second as a 61st second, which Postgres can't
//! store.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

/// Reads an event's time. `None` if it is not RFC 3339 or is outside the years 1970 to 2200 in UTC.
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    in_range(rfc3339(text)?)
}

/// Reads a time such as `2026-10-01T12:00:00.123456+02:00` and cuts it to microseconds. `None` if
/// the text is not RFC 3339.
pub fn rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let mut rest = Unread(text.as_bytes());
    let year = rest.number(4)?;
    rest.one_of(b"-")?;
    let month = rest.number(2)?;
    rest.one_of(b"-")?;
    let day = rest.number(2)?;
    rest.one_of(b"Tt")?;
    let hour = rest.number(2)?;
    rest.one_of(b":")?;
    let minute = rest.number(2)?;
    rest.one_of(b":")?;
    let second = rest.number(2)?;
    let micros = rest.fraction()?;
    let offset_minutes = rest.offset()?;
    if !rest.0.is_empty() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }

    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let minute_utc =
        date.and_hms_opt(hour, minute, 0)?.and_utc() - TimeDelta::minutes(offset_minutes);
    // A leap second occurs only at the end of a UTC day. It is read as the second after it.
    if second == 60 && minute_utc.timestamp().rem_euclid(86_400) != 86_340 {
        return None;
    }
    Some(minute_utc + TimeDelta::seconds(second.into()) + TimeDelta::microseconds(micros))
}

/// What a text lacks to be RFC 3339, if nothing else is wrong with it: `no time and no offset`. It is
/// for error messages: of all that is no time, callers most often send a date or a local time.
pub fn lacks(text: &str) -> Option<String> {
    let (local, offset) = split_offset(text);
    let has_offset = !offset.is_empty();
    for (rest, part) in [
        ("", None),
        (":00", Some("no seconds")),
        ("T00:00:00", Some("no time")),
    ] {
        let completed = format!("{local}{rest}{}", if has_offset { offset } else { "Z" });
        if rfc3339(&completed).is_some() {
            let lacking = part.into_iter().chain((!has_offset).then_some("no offset"));
            let lacking: Vec<&str> = lacking.collect();
            return Some(lacking.join(" and ")).filter(|lacking| !lacking.is_empty());
        }
    }
    None
}

/// The text before and from its offset: `Z`, or a sign and five characters at its end.
fn split_offset(text: &str) -> (&str, &str) {
    let at = if text.ends_with(['Z', 'z']) {
        text.len() - 1
    } else {
        let at = text.len().saturating_sub("+00:00".len());
        let tail = text.get(at..).unwrap_or_default();
        let is_offset = tail.starts_with(['+', '-']) && tail.contains(':');
        if is_offset { at } else { text.len() }
    };
    text.split_at(at)
}

/// Reads a Kafka timestamp. `None` if it is outside the years 1970 to 2200.
pub(super) fn from_millis(millis: i64) -> Option<DateTime<Utc>> {
    in_range(DateTime::from_timestamp_millis(millis)?)
}

fn in_range(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (1970..=2200).contains(&time.year()).then_some(time)
}

/// The rest of the text, still to be read. Each method reads from its start.
struct Unread<'a>(&'a [u8]);

impl Unread<'_> {
    /// One byte, if it is one of those wanted.
    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !wanted.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    fn digit(&mut self) -> Option<u32> {
        self.one_of(b"0123456789")
            .map(|digit| u32::from(digit - b'0'))
    }

    /// A number of exactly `width` digits.
    fn number(&mut self, width: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..width {
            number = number * 10 + self.digit()?;
        }
        Some(number)
    }

    /// The fraction of the second in microseconds, 0 without one. Finer digits are cut off.
    fn fraction(&mut self) -> Option<i64> {
        if self.one_of(b".").is_none() {
            return Some(0);
        }
        let mut micros = i64::from(self.digit()?) * 100_000;
        let mut weight = 10_000;
        while let Some(digit) = self.digit() {
            micros += i64::from(digit) * weight;
            weight /= 10;
        }
        Some(micros)
    }

    /// The offset of local time from UTC, in minutes.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2)?;
        self.one_of(b":")?;
        let minutes = self.number(2)?;
        (hours <= 23 && minutes <= 59).then(|| sign * i64::from(hours * 60 + minutes))
    }
}
