//! The answers of the analytics domain. A field that is absent is unknown, or was not asked for; a
//! number that is known to be 0 is there.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metric::Metric;
use super::state::Activity;

/// The numbers of a range of days.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DailyMetrics {
    /// Every day of the range, in order.
    pub days: Vec<Day>,
}

/// How many events of each kind happened on a day (UTC). Metrics that were not asked for are
/// absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Day {
    pub date: NaiveDate,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registrations: Option<Registrations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_verifications: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logins: Option<i64>,
    /// Distinct users who logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_logins: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_failures: Option<LoginFailures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logouts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_updates: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses_added: Option<AddressesAdded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_changes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_reset_requests: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa_enabled: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa_disabled: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa_challenge_failures: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletions: Option<i64>,
}

/// Registrations of a day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registrations {
    pub total: i64,
    /// By source: `direct`, `google_oauth`; other values occur. `unknown`: the event names none.
    /// Values are cut to 100 characters.
    pub by_source: BTreeMap<String, i64>,
}

/// Failed logins of a day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginFailures {
    pub total: i64,
    /// By reason: `invalid_credentials`, `account_inactive`, `account_locked`, `user_not_found`;
    /// other values occur. Values are cut to 100 characters.
    pub by_reason: BTreeMap<String, i64>,
}

/// Addresses added on a day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressesAdded {
    pub total: i64,
    /// By country, in upper case: ISO 3166-1 alpha-2, unless the event has another text. Values are
    /// cut to 100 characters.
    pub by_country: BTreeMap<String, i64>,
}

impl Day {
    /// A day on which nothing happened, with these metrics.
    pub fn new(date: NaiveDate, metrics: &[Metric]) -> Self {
        let mut day = Self {
            date,
            registrations: None,
            email_verifications: None,
            logins: None,
            unique_logins: None,
            login_failures: None,
            logouts: None,
            profile_updates: None,
            addresses_added: None,
            password_changes: None,
            password_reset_requests: None,
            mfa_enabled: None,
            mfa_disabled: None,
            mfa_challenge_failures: None,
            deletions: None,
        };
        for metric in metrics {
            day.count(*metric);
        }
        day
    }

    /// Adds to a metric, under a breakdown's value if it has a breakdown.
    pub fn add(&mut self, metric: Metric, breakdown: &str, count: i64) {
        let (total, breakdowns) = self.count(metric);
        *total += count;
        if let Some(breakdowns) = breakdowns {
            *breakdowns.entry(breakdown.to_owned()).or_default() += count;
        }
    }

    /// The number of a metric, which is 0 at first, and its breakdown.
    fn count(&mut self, metric: Metric) -> (&mut i64, Option<&mut BTreeMap<String, i64>>) {
        let number = match metric {
            Metric::Registrations => {
                let registrations = self.registrations.get_or_insert_default();
                return (&mut registrations.total, Some(&mut registrations.by_source));
            }
            Metric::LoginFailures => {
                let failures = self.login_failures.get_or_insert_default();
                return (&mut failures.total, Some(&mut failures.by_reason));
            }
            Metric::AddressesAdded => {
                let added = self.addresses_added.get_or_insert_default();
                return (&mut added.total, Some(&mut added.by_country));
            }
            Metric::EmailVerifications => &mut self.email_verifications,
            Metric::Logins => &mut self.logins,
            Metric::UniqueLogins => &mut self.unique_logins,
            Metric::Logouts => &mut self.logouts,
            Metric::ProfileUpdates => &mut self.profile_updates,
            Metric::PasswordChanges => &mut self.password_changes,
            Metric::PasswordResetRequests => &mut self.password_reset_requests,
            Metric::MfaEnabled => &mut self.mfa_enabled,
            Metric::MfaDisabled => &mut self.mfa_disabled,
            Metric::MfaChallengeFailures => &mut self.mfa_challenge_failures,
            Metric::Deletions => &mut self.deletions,
        };
        (number.get_or_insert_default(), None)
    }
}

/// How far the users who registered in a range of days have come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Funnel {
    /// All four steps, in order.
    pub steps: Vec<FunnelStep>,
}

/// A step of the funnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunnelStep {
    pub step: Step,
    /// Users who have done this and all steps before it, in whatever order.
    pub count: i64,
    /// `count` as a fraction of the first step's, from 0 to 1; 0 if that is 0.
    pub conversion_rate: f64,
    /// The median time from registration to this step, of the users counted in it, in seconds; a
    /// step that happened before registration took 0. Absent if `count` is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_seconds: Option<f64>,
}

/// The name of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FunnelStepName)]
pub enum Step {
    Registered,
    EmailVerified,
    FirstLogin,
    FirstAddress,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; super::contribution::STEPS] = [
        Self::Registered,
        Self::EmailVerified,
        Self::FirstLogin,
        Self::FirstAddress,
    ];
}

/// How many of the users who registered in a range of days came back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Retention {
    /// In the order of their weeks; weeks in which nobody registered are left out.
    pub cohorts: Vec<Cohort>,
}

/// The users who registered in a week.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cohort {
    /// The Monday of the ISO week (UTC).
    pub week_start: NaiveDate,
    /// How many users registered, on those days of the week that lie in the range.
    pub size: i64,
    /// How many of them logged in in the week of their registration, in the week after it, and so
    /// on.
    pub retained: Vec<i64>,
}

/// A user's activity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserActivity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<DateTime<Utc>>,
    /// When an email of the user was first verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_login_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<DateTime<Utc>>,
    pub login_count: i64,
    /// Failed logins with this user's id since the last successful one.
    pub failed_logins_since_last_login: i64,
}

impl From<Activity> for UserActivity {
    fn from(activity: Activity) -> Self {
        Self {
            registered_at: activity.registration.map(|registration| registration.at),
            verified_at: activity.verified_at,
            first_login_at: activity.first_login_at,
            last_login_at: activity.last_login_at,
            login_count: activity.login_count,
            failed_logins_since_last_login: activity.failed_logins.values().sum(),
        }
    }
}
