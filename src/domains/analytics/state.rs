//! What the analytics domain stores of a user, as one JSON document: the activity that is answered,
//! and what later events depend on.
//!
//! The names that serde gives are those of stored documents: a new name needs a rebuild of the
//! view.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::{Event, Payload};

/// A user as stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ActivityState {
    /// What is answered, and what funnel and retention are made from; empty after the deletion.
    pub activity: Activity,
    /// The days with a login. They stay after a deletion, because someone who logs in, is deleted
    /// and logs in again on the same day counts as one unique login.
    #[serde(skip_serializing_if = "DaySet::is_empty")]
    pub login_days: DaySet,
    /// The log in whose shard of the counters the user is counted: the smallest id of the logs that
    /// the user's events are from, in whatever order these are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_log: Option<i32>,
    /// Whether the user was deleted. No activity is stored after that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
}

/// What events say about a user's activity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Activity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The earliest verification of an email.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_login_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<DateTime<Utc>>,
    /// When the first address was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_address_at: Option<DateTime<Utc>>,
    pub login_count: i64,
    /// The log of the last login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login_log: Option<i32>,
    /// The failed logins after the last login, by their log. Logs are in the order of their ids here, so
    /// that the number does not depend on which of several logs was applied first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed_logins: BTreeMap<i32, i64>,
}

/// The registration that counts: the first in the log with the smallest id. Of a user whose key has
/// moved to another partition, that is the older log, whichever was applied first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    pub at: DateTime<Utc>,
    pub log: i32,
}

impl Activity {
    /// Applies the user's next event, in the order of the log.
    pub fn apply(&mut self, event: &Event, log: i32) {
        let at = event.occurred_at;
        match &event.payload {
            Payload::UserRegistered(_) if self.is_registered_after(log) => {
                self.registration = Some(Registration { at, log });
            }
            Payload::UserEmailVerified(_) => keep_earliest(&mut self.verified_at, at),
            Payload::UserLoggedIn(_) => {
                keep_earliest(&mut self.first_login_at, at);
                self.last_login_at = self.last_login_at.max(Some(at));
                self.login_count += 1;
                self.last_login_log = self.last_login_log.max(Some(log));
                self.failed_logins.retain(|other, _| *other > log);
            }
            Payload::UserLoginFailed(_) if Some(log) >= self.last_login_log => {
                *self.failed_logins.entry(log).or_default() += 1;
            }
            Payload::UserAddressAdded(_) => keep_earliest(&mut self.first_address_at, at),
            // Other types are counted by day only, and some of these happened before what is known.
            _ => {}
        }
    }

    /// Whether no registration is known, or that of a log with a larger id.
    fn is_registered_after(&self, log: i32) -> bool {
        let known = self.registration.as_ref();
        known.is_none_or(|known| log < known.log)
    }
}

fn keep_earliest(earliest: &mut Option<DateTime<Utc>>, at: DateTime<Utc>) {
    let first = earliest.get_or_insert(at);
    *first = at.min(*first);
}

/// The number of an instant's UTC day since 1970-01-01.
pub fn day_number(at: DateTime<Utc>) -> i32 {
    let days = at.timestamp().div_euclid(86_400);
    // Events are of the years 1970 to 2200.
    i32::try_from(days).unwrap_or_default()
}

/// A set of days since 1970-01-01, as a bitmap: a year takes 61 characters of the document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(i32, String)", into = "(i32, String)")]
pub struct DaySet {
    /// The number of the byte that `bytes` begins with. Byte 0 holds the days 0 to 7.
    first: i32,
    bytes: Vec<u8>,
}

impl DaySet {
    /// Whether no day is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a day. Returns whether it is new.
    pub fn insert(&mut self, day: i32) -> bool {
        let byte = day.div_euclid(8);
        if self.bytes.is_empty() {
            self.first = byte;
        }
        let missing = usize::try_from(self.first - byte).unwrap_or(0);
        if missing > 0 {
            self.bytes.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = byte;
        }
        let (index, bit) = self.position(day);
        if index >= self.bytes.len() {
            self.bytes.resize(index + 1, 0);
        }
        let is_new = self.bytes[index] & bit == 0;
        self.bytes[index] |= bit;
        is_new
    }

    /// Whether a day is in it.
    pub fn contains(&self, day: i32) -> bool {
        let (index, bit) = self.position(day);
        self.bytes.get(index).is_some_and(|byte| byte & bit != 0)
    }

    /// The days, in their order.
    pub fn iter(&self) -> impl Iterator<Item = i32> {
        let days = (self.first * 8..).take(self.bytes.len() * 8);
        days.filter(|day| self.contains(*day))
    }

    /// The index of a day's byte, beyond all bytes for one before the first, and the day's bit.
    fn position(&self, day: i32) -> (usize, u8) {
        let index = usize::try_from(day.div_euclid(8) - self.first).unwrap_or(usize::MAX);
        (index, 1 << day.rem_euclid(8))
    }
}

impl From<DaySet> for (i32, String) {
    fn from(days: DaySet) -> Self {
        (days.first, BASE64_STANDARD_NO_PAD.encode(days.bytes))
    }
}

impl TryFrom<(i32, String)> for DaySet {
    type Error = base64::DecodeError;

    fn try_from((first, text): (i32, String)) -> Result<Self, Self::Error> {
        let bytes = BASE64_STANDARD_NO_PAD.decode(text)?;
        Ok(Self { first, bytes })
    }
}
