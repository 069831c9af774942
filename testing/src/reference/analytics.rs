//! The analytics domain: counts by day, the funnel, cohorts, and users' activity.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::event::Event;
use super::fields::set;
use super::{View, instant};

/// The names of the daily metrics.
pub const METRICS: [&str; 14] = [
    "registrations",
    "emailVerifications",
    "logins",
    "uniqueLogins",
    "loginFailures",
    "logouts",
    "profileUpdates",
    "addressesAdded",
    "passwordChanges",
    "passwordResetRequests",
    "mfaEnabled",
    "mfaDisabled",
    "mfaChallengeFailures",
    "deletions",
];

/// Metrics that are broken down, and by what.
const BROKEN_DOWN: [(&str, &str); 3] = [
    ("registrations", "bySource"),
    ("loginFailures", "byReason"),
    ("addressesAdded", "byCountry"),
];

/// How many characters of a value count in a breakdown.
const VALUE: usize = 100;

/// The analytics domain's counts and users.
#[derive(Default)]
pub struct Metrics {
    days: BTreeMap<NaiveDate, Day>,
    users: BTreeMap<String, User>,
    deleted: BTreeSet<String>,
}

#[derive(Default)]
struct Day {
    /// By metric.
    counts: BTreeMap<&'static str, u64>,
    /// By metric and value.
    parts: BTreeMap<&'static str, BTreeMap<String, u64>>,
    logged_in: BTreeSet<String>,
}

/// What a user did and when, in log order.
#[derive(Default)]
struct User {
    registered: Vec<DateTime<Utc>>,
    verified: Vec<DateTime<Utc>>,
    logins: Vec<DateTime<Utc>>,
    addresses: Vec<DateTime<Utc>>,
    failed_since: u64,
}

impl View for Metrics {
    fn domain(&self) -> &'static str {
        "analytics"
    }

    fn wants(&self, event: &str) -> bool {
        matches!(
            event,
            "UserRegistered"
                | "UserEmailVerified"
                | "UserPasswordChanged"
                | "UserPasswordResetRequested"
                | "UserDeleted"
                | "UserProfileUpdated"
                | "UserAddressAdded"
                | "UserLoggedIn"
                | "UserLoginFailed"
                | "UserLoggedOut"
                | "MfaStatusChanged"
                | "MfaChallengeFailed"
        )
    }

    fn apply(&mut self, event: &Event) {
        let at = event.occurred_at;
        self.days.entry(at.date_naive()).or_default().count(event);
        let Some(id) = event.user() else { return };
        if event.name == "UserDeleted" {
            self.users.remove(&id);
            self.deleted.insert(id);
            return;
        }
        if self.deleted.contains(&id) {
            return;
        }
        let user = self.users.entry(id).or_default();
        match event.name {
            "UserRegistered" => user.registered.push(at),
            "UserEmailVerified" => user.verified.push(at),
            "UserAddressAdded" => user.addresses.push(at),
            "UserLoggedIn" => {
                user.logins.push(at);
                user.failed_since = 0;
            }
            "UserLoginFailed" => user.failed_since += 1,
            _ => {}
        }
    }
}

impl Day {
    fn count(&mut self, event: &Event) {
        let metric = match event.name {
            "UserRegistered" => "registrations",
            "UserEmailVerified" => "emailVerifications",
            "UserLoggedIn" => "logins",
            "UserLoginFailed" => "loginFailures",
            "UserLoggedOut" => "logouts",
            "UserProfileUpdated" => "profileUpdates",
            "UserAddressAdded" => "addressesAdded",
            "UserPasswordChanged" => "passwordChanges",
            "UserPasswordResetRequested" => "passwordResetRequests",
            "MfaStatusChanged" if event.flag("mfaEnabled") == Some(true) => "mfaEnabled",
            "MfaStatusChanged" => "mfaDisabled",
            "MfaChallengeFailed" => "mfaChallengeFailures",
            "UserDeleted" => "deletions",
            other => panic!("{other} counts in no metric"),
        };
        *self.counts.entry(metric).or_default() += 1;
        let part = match metric {
            "registrations" => event.text("source"),
            "loginFailures" => event.text("reason"),
            "addressesAdded" => {
                let mut fields = event.full_address().expect("good").unwrap_or_default();
                if !fields.contains_key("country") {
                    set(&mut fields, "country", event.text("country"));
                }
                fields.remove("country")
            }
            "logins" => {
                self.logged_in.extend(event.text("userId"));
                return;
            }
            _ => return,
        };
        let part = part.unwrap_or_else(|| "unknown".to_owned());
        let part: String = part.chars().take(VALUE).collect();
        let parts = self.parts.entry(metric).or_default();
        *parts.entry(part).or_default() += 1;
    }

    fn to_json(&self, date: NaiveDate, metrics: &[&str]) -> Value {
        let mut json = Map::from_iter([("date".to_owned(), json!(date.to_string()))]);
        for metric in METRICS {
            if !metrics.is_empty() && !metrics.contains(&metric) {
                continue;
            }
            let count = self.counts.get(metric).copied().unwrap_or(0);
            let value = match BROKEN_DOWN.iter().find(|(name, _)| *name == metric) {
                Some((_, by)) => {
                    let parts = self.parts.get(metric).cloned().unwrap_or_default();
                    json!({"total": count, *by: parts})
                }
                None if metric == "uniqueLogins" => json!(self.logged_in.len()),
                None => json!(count),
            };
            json.insert(metric.to_owned(), value);
        }
        Value::Object(json)
    }
}

impl User {
    fn registered_at(&self) -> Option<DateTime<Utc>> {
        self.registered.first().copied()
    }

    /// When the user took each step of the funnel for the first time.
    fn steps(&self) -> [(&'static str, Option<DateTime<Utc>>); 4] {
        let earliest = |times: &Vec<DateTime<Utc>>| times.iter().min().copied();
        [
            ("registered", self.registered_at()),
            ("email_verified", earliest(&self.verified)),
            ("first_login", earliest(&self.logins)),
            ("first_address", earliest(&self.addresses)),
        ]
    }
}

impl Metrics {
    /// The days with an event.
    pub fn days(&self) -> Vec<NaiveDate> {
        self.days.keys().copied().collect()
    }

    /// The ids of all users with an activity.
    pub fn ids(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The ids of deleted users.
    pub fn deleted(&self) -> Vec<String> {
        self.deleted.iter().cloned().collect()
    }

    /// The answer to `GET /v1/analytics/daily?from=&to=&metrics=`. No metrics means all.
    pub fn daily(&self, from: NaiveDate, to: NaiveDate, metrics: &[&str]) -> Value {
        let none = Day::default();
        let dates = from.iter_days().take_while(|date| *date <= to);
        let days: Vec<Value> = dates
            .map(|date| self.days.get(&date).unwrap_or(&none).to_json(date, metrics))
            .collect();
        json!({"days": days})
    }

    /// The users who were registered on these days and are not deleted.
    fn registered(&self, from: NaiveDate, to: NaiveDate) -> Vec<&User> {
        let within = |user: &&User| {
            let day = user.registered_at().map(|at| at.date_naive());
            day.is_some_and(|day| from <= day && day <= to)
        };
        self.users.values().filter(within).collect()
    }

    /// The answer to `GET /v1/analytics/funnel?from=&to=`.
    pub fn funnel(&self, from: NaiveDate, to: NaiveDate) -> Value {
        let mut users = self.registered(from, to);
        let all = users.len();
        let mut steps = Vec::new();
        for step in 0..4 {
            users.retain(|user| user.steps()[step].1.is_some());
            let mut seconds: Vec<f64> = users
                .iter()
                .map(|user| {
                    let [registered, taken] = [0, step].map(|n| user.steps()[n].1);
                    let took = taken.expect("taken") - registered.expect("registered");
                    let took = took.max(TimeDelta::zero());
                    took.num_microseconds().expect("in range") as f64 / 1e6
                })
                .collect();
            seconds.sort_by(f64::total_cmp);
            let (name, _) = User::default().steps()[step];
            let rate = if all == 0 {
                0.0
            } else {
                users.len() as f64 / all as f64
            };
            let mut json = json!({"step": name, "count": users.len(), "conversionRate": rate});
            if !seconds.is_empty() {
                let (low, high) = ((seconds.len() - 1) / 2, seconds.len() / 2);
                json["medianSeconds"] = json!((seconds[low] + seconds[high]) / 2.0);
            }
            steps.push(json);
        }
        json!({"steps": steps})
    }

    /// The answer to `GET /v1/analytics/retention?from=&to=&weeks=`.
    pub fn retention(&self, from: NaiveDate, to: NaiveDate, weeks: usize) -> Value {
        let mut cohorts: BTreeMap<NaiveDate, Vec<&User>> = BTreeMap::new();
        for user in self.registered(from, to) {
            let week = monday(user.registered_at().expect("registered"));
            cohorts.entry(week).or_default().push(user);
        }
        let cohort = |(week, users): (NaiveDate, Vec<&User>)| {
            let retained = |n: usize| {
                let then = week + Days::new(7 * n as u64);
                let came = |user: &&&User| user.logins.iter().any(|at| monday(*at) == then);
                users.iter().filter(came).count()
            };
            let retained: Vec<usize> = (0..weeks).map(retained).collect();
            json!({"weekStart": week.to_string(), "size": users.len(), "retained": retained})
        };
        let cohorts: Vec<Value> = cohorts.into_iter().map(cohort).collect();
        json!({"cohorts": cohorts})
    }

    /// The answer to `GET /v1/analytics/users/{userId}/activity`.
    pub fn activity(&self, id: &str) -> Option<Value> {
        let user = self.users.get(id)?;
        let mut json = json!({
            "loginCount": user.logins.len(),
            "failedLoginsSinceLastLogin": user.failed_since,
        });
        for (name, at) in [
            ("registeredAt", user.registered_at()),
            ("verifiedAt", user.verified.iter().min().copied()),
            ("firstLoginAt", user.logins.iter().min().copied()),
            ("lastLoginAt", user.logins.iter().max().copied()),
        ] {
            if let Some(at) = at {
                json[name] = instant(at);
            }
        }
        Some(json)
    }
}

/// The Monday of an instant's week.
fn monday(at: DateTime<Utc>) -> NaiveDate {
    let day = at.date_naive();
    day - Days::new(day.weekday().num_days_from_monday().into())
}
