//! The answers of the notification domain. A field that is absent is unknown, or does not concern the template.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a notification says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = NotificationTemplate)]
pub enum Template {
    /// The user registered.
    Welcome,
    /// The user registered, and the email is to be verified.
    EmailVerification,
    /// The email was verified.
    EmailVerified,
    /// The password was changed.
    PasswordChanged,
    /// The user asked for a new password.
    PasswordReset,
    /// A second factor was enabled.
    MfaEnabled,
    /// The second factor was disabled.
    MfaDisabled,
    /// The account was suspended or banned.
    AccountSuspended,
    /// The account is active again.
    AccountReactivated,
}

impl Template {
    /// All templates.
    pub const ALL: [Self; 9] = [
        Self::Welcome,
        Self::EmailVerification,
        Self::EmailVerified,
        Self::PasswordChanged,
        Self::PasswordReset,
        Self::MfaEnabled,
        Self::MfaDisabled,
        Self::AccountSuspended,
        Self::AccountReactivated,
    ];

    /// The name in JSON, in filters, in settings and in stored rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::EmailVerification => "email_verification",
            Self::EmailVerified => "email_verified",
            Self::PasswordChanged => "password_changed",
            Self::PasswordReset => "password_reset",
            Self::MfaEnabled => "mfa_enabled",
            Self::MfaDisabled => "mfa_disabled",
            Self::AccountSuspended => "account_suspended",
            Self::AccountReactivated => "account_reactivated",
        }
    }

    /// The template with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|template| template.as_str() == name)
    }
}

/// The status of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = NotificationStatus)]
pub enum Status {
    /// It is to be sent.
    Pending,
    /// A worker holds it.
    Leased,
    /// It was sent.
    Sent,
    /// It could not be sent, in as many attempts as are made.
    Failed,
    /// The user was deleted before it was sent.
    Cancelled,
    /// It was not sent in time.
    Expired,
    /// No email of the user is known yet.
    NoRecipient,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Leased,
        Self::Sent,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
        Self::NoRecipient,
    ];

    /// The name in JSON and in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::NoRecipient => "no_recipient",
        }
    }

    /// The status with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// How a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = NotificationChannel)]
pub enum Channel {
    /// By email.
    Email,
}

/// A message to a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The same for every reading of one event.
    pub notification_id: Uuid,
    /// The id of the event that it is about.
    pub event_id: String,
    pub user_id: String,
    pub template: Template,
    /// The email address that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    pub channel: Channel,
    /// Absent once the user was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<NotificationData>,
    pub status: Status,
    /// How often it was leased.
    #[schema(minimum = 0)]
    pub attempts: i32,
    /// When the event happened.
    pub created_at: DateTime<Utc>,
    /// When it is too late to send it.
    pub expires_at: DateTime<Utc>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What a message is made from, as it was known when the event was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotificationData {
    pub user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Of `password_reset`: identifies the token for the new password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_token_identifier: Option<String>,
    /// Of `password_changed`: `self_initiated`, `reset_completed`; other values occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change_type: Option<String>,
    /// Of `mfa_enabled` and `mfa_disabled`: `TOTP`, `SMS`, `U2F`; other values occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa_method: Option<String>,
    /// Of `account_suspended` and `account_reactivated`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the same: the status before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<String>,
    /// Of the same: the status since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_status: Option<String>,
}

/// A page of notifications.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    /// Oldest first.
    pub notifications: Vec<Notification>,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What the view holds of a user.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserNotifications {
    /// The last ones, newest first.
    pub notifications: Vec<Notification>,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// A notification that a worker holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeasedNotification {
    #[serde(flatten)]
    pub notification: Notification,
    /// Shows that the worker holds it, when it acknowledges it, says that it failed, or extends the
    /// lease.
    pub lease_token: Uuid,
    /// When the lease ends.
    pub leased_until: DateTime<Utc>,
}

/// Notifications to send.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeasedNotifications {
    /// Oldest first; none if nothing was pending.
    pub notifications: Vec<LeasedNotification>,
}

/// What became of an acknowledgement or a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOutcome {
    /// It was noted.
    Ok,
    /// The lease has passed to another worker, or was given back.
    Lost,
    /// The notification was cancelled.
    Cancelled,
    /// There is no notification with this id.
    NotFound,
}

/// A notification, and what became of an acknowledgement or a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettledNotification {
    pub notification_id: Uuid,
    pub outcome: LeaseOutcome,
    /// The status since; absent if the outcome is `not_found`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The outcome of each acknowledgement or failure, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettledNotifications {
    pub outcomes: Vec<SettledNotification>,
}

/// A lease that was extended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtendedLease {
    /// When the lease ends.
    pub leased_until: DateTime<Utc>,
}
