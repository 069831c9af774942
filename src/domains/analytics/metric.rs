//! What is counted each day: which event counts for which metric, and under which breakdown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::Payload;
use crate::event::text::excerpt;

/// The most characters of a breakdown's value; longer ones are cut.
const MAX_BREAKDOWN_CHARS: usize = 100;
/// The breakdown's value of events that have none.
const UNKNOWN: &str = "unknown";

/// A number of a day.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "camelCase")]
#[schema(as = DailyMetric)]
pub enum Metric {
    Registrations,
    EmailVerifications,
    Logins,
    UniqueLogins,
    LoginFailures,
    Logouts,
    ProfileUpdates,
    AddressesAdded,
    PasswordChanges,
    PasswordResetRequests,
    MfaEnabled,
    MfaDisabled,
    MfaChallengeFailures,
    Deletions,
}

impl Metric {
    /// All metrics, in the order of an answer's fields.
    pub const ALL: [Self; 14] = [
        Self::Registrations,
        Self::EmailVerifications,
        Self::Logins,
        Self::UniqueLogins,
        Self::LoginFailures,
        Self::Logouts,
        Self::ProfileUpdates,
        Self::AddressesAdded,
        Self::PasswordChanges,
        Self::PasswordResetRequests,
        Self::MfaEnabled,
        Self::MfaDisabled,
        Self::MfaChallengeFailures,
        Self::Deletions,
    ];

    /// The name of the answer's field, and of stored rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registrations => "registrations",
            Self::EmailVerifications => "emailVerifications",
            Self::Logins => "logins",
            Self::UniqueLogins => "uniqueLogins",
            Self::LoginFailures => "loginFailures",
            Self::Logouts => "logouts",
            Self::ProfileUpdates => "profileUpdates",
            Self::AddressesAdded => "addressesAdded",
            Self::PasswordChanges => "passwordChanges",
            Self::PasswordResetRequests => "passwordResetRequests",
            Self::MfaEnabled => "mfaEnabled",
            Self::MfaDisabled => "mfaDisabled",
            Self::MfaChallengeFailures => "mfaChallengeFailures",
            Self::Deletions => "deletions",
        }
    }

    /// The metric with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }

    /// The metric that an event counts for, and its breakdown's value, which is empty where the
    /// metric has no breakdown. Unique logins depend on the user's other logins, so no event alone
    /// counts for them.
    pub fn of(payload: &Payload) -> Option<(Self, String)> {
        let (metric, breakdown) = match payload {
            Payload::UserRegistered(registered) => {
                let source = registered.source.as_deref();
                (Self::Registrations, source.unwrap_or(UNKNOWN))
            }
            Payload::UserEmailVerified(_) => (Self::EmailVerifications, ""),
            Payload::UserLoggedIn(_) => (Self::Logins, ""),
            Payload::UserLoginFailed(failed) => (Self::LoginFailures, failed.reason.as_str()),
            Payload::UserLoggedOut(_) => (Self::Logouts, ""),
            Payload::UserProfileUpdated(_) => (Self::ProfileUpdates, ""),
            Payload::UserAddressAdded(added) => {
                let full_address = added.full_address.as_ref();
                let country = full_address.and_then(|address| address.country.as_deref());
                (Self::AddressesAdded, country.unwrap_or(&added.country))
            }
            Payload::UserPasswordChanged(_) => (Self::PasswordChanges, ""),
            Payload::UserPasswordResetRequested(_) => (Self::PasswordResetRequests, ""),
            Payload::MfaStatusChanged(changed) if changed.mfa_enabled => (Self::MfaEnabled, ""),
            Payload::MfaStatusChanged(_) => (Self::MfaDisabled, ""),
            Payload::MfaChallengeFailed(_) => (Self::MfaChallengeFailures, ""),
            Payload::UserDeleted(_) => (Self::Deletions, ""),
            // The view is not made from other types.
            _ => return None,
        };
        Some((metric, excerpt(breakdown, MAX_BREAKDOWN_CHARS)))
    }
}
