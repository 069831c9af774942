//! Times: RFC 3339 to the letter, cut to microseconds.
//!
//! Written by hand because chrono's reader also takes what the standard does not (a space for
//! the `T`, other minus signs) and keeps leap seconds as a 61st second, which a database has not.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};

/// Reads an event's time; `None` where it is none or lies outside the years 1970 to 2200 (UTC).
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    in_range(rfc3339(text)?)
}

/// Reads `2026-10-01T12:00:00.123456+02:00` (RFC 3339), cut to microseconds; `None` where it is something else.
pub fn rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let mut rest = Digits(text.as_bytes());
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
    // A leap second ends a UTC day and nothing else; it counts as the second after it.
    if second == 60 && minute_utc.timestamp().rem_euclid(86_400) != 86_340 {
        return None;
    }
    Some(minute_utc + TimeDelta::seconds(second.into()) + TimeDelta::microseconds(micros))
}

/// Reads a Kafka timestamp; `None` where it lies outside the years 1970 to 2200.
pub(super) fn from_millis(millis: i64) -> Option<DateTime<Utc>> {
    in_range(DateTime::from_timestamp_millis(millis)?)
}

fn in_range(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (1970..=2200).contains(&time.year()).then_some(time)
}

/// What is left to read.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
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

    fn number(&mut self, width: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..width {
            number = number * 10 + self.digit()?;
        }
        Some(number)
    }

    /// The fraction of the second, if any, in microseconds; finer digits are cut off.
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

    /// How far local time is ahead of UTC, in minutes.
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
