//! The answers of the audit domain. A field that is absent is unknown, or does not concern the event.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::event::EventType;

/// What an entry is about: the headings of the catalogue of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditCategory)]
pub enum Category {
    /// An account: registration, verification, password, status, fields, deletion.
    Account,
    /// Logins, logouts, and second factors.
    Authentication,
    /// Roles and permissions.
    Authorization,
    /// The type of the event is not in the catalogue.
    Unknown,
}

impl Category {
    /// All categories.
    pub const ALL: [Self; 4] = [
        Self::Account,
        Self::Authentication,
        Self::Authorization,
        Self::Unknown,
    ];

    /// The name in JSON and in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether what was tried came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditOutcome)]
pub enum Outcome {
    /// It did.
    Success,
    /// A login or a second factor was refused.
    Failure,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 2] = [Self::Success, Self::Failure];

    /// The name in JSON and in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What happened, by the type of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// As stored. Never used for another type again.
    pub code: i16,
    /// The type; `None` if the catalogue does not have it.
    pub event_type: Option<EventType>,
    /// The name in JSON and in filters; empty for an unknown type, whose name is the type.
    pub name: &'static str,
    /// What it is about.
    pub category: Category,
    /// Whether it came about.
    pub outcome: Outcome,
}

const fn action(
    code: i16,
    event_type: EventType,
    name: &'static str,
    category: Category,
    outcome: Outcome,
) -> Action {
    Action {
        code,
        event_type: Some(event_type),
        name,
        category,
        outcome,
    }
}

impl Action {
    /// That of types which are not in the catalogue.
    pub const UNKNOWN: Self = Self {
        code: 0,
        event_type: None,
        name: "",
        category: Category::Unknown,
        outcome: Outcome::Success,
    };

    /// All actions.
    #[rustfmt::skip]
    pub const ALL: [Self; 23] = {
        use Category::{Account, Authentication, Authorization};
        use EventType as Type;
        use Outcome::{Failure, Success};
        [
            Self::UNKNOWN,
            action(1, Type::UserRegistered, "user_registered", Account, Success),
            action(2, Type::UserEmailVerified, "user_email_verified", Account, Success),
            action(3, Type::UserPasswordChanged, "user_password_changed", Account, Success),
            action(4, Type::UserPasswordResetRequested, "user_password_reset_requested", Account, Success),
            action(5, Type::UserAccountStatusChanged, "user_account_status_changed", Account, Success),
            action(6, Type::UserUpdated, "user_updated", Account, Success),
            action(7, Type::UserDeleted, "user_deleted", Account, Success),
            action(11, Type::UserLoggedIn, "user_logged_in", Authentication, Success),
            action(12, Type::UserLoginFailed, "user_login_failed", Authentication, Failure),
            action(13, Type::UserLoggedOut, "user_logged_out", Authentication, Success),
            action(14, Type::MfaStatusChanged, "mfa_status_changed", Authentication, Success),
            action(15, Type::MfaChallengeFailed, "mfa_challenge_failed", Authentication, Failure),
            action(21, Type::RoleCreated, "role_created", Authorization, Success),
            action(22, Type::RoleUpdated, "role_updated", Authorization, Success),
            action(23, Type::RoleDeleted, "role_deleted", Authorization, Success),
            action(24, Type::UserRoleAssigned, "user_role_assigned", Authorization, Success),
            action(25, Type::UserRoleRemoved, "user_role_removed", Authorization, Success),
            action(26, Type::PermissionCreated, "permission_created", Authorization, Success),
            action(27, Type::PermissionUpdated, "permission_updated", Authorization, Success),
            action(28, Type::PermissionDeleted, "permission_deleted", Authorization, Success),
            action(29, Type::PermissionAssignedToRole, "permission_assigned_to_role", Authorization, Success),
            action(30, Type::PermissionRemovedFromRole, "permission_removed_from_role", Authorization, Success),
        ]
    };

    /// The action of a type; `None` if audit is not interested in the type.
    pub fn of(event_type: Option<EventType>) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|action| action.event_type == event_type)
            .copied()
    }

    /// The action with this code.
    pub fn coded(code: i16) -> Option<Self> {
        Self::ALL.iter().find(|action| action.code == code).copied()
    }
}

/// An entry of the log: one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub struct Entry {
    pub event_id: String,
    /// The type of the event, without a version; of an unknown one, as it was written.
    pub r#type: String,
    /// The version of the type, as it was written; absent for an unknown type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub category: Category,
    /// The type in snake case (`user_logged_in`); for an unknown type, the type as it was written.
    pub action: String,
    pub outcome: Outcome,
    /// Why, as the event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who did it: the id of a user or an administrator; for a failed login, the account that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The id of the user whom it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_id: Option<String>,
    /// Where it came from. Erased with the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The program that it came from. Erased with the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// When sightline recorded it. The same after a rebuild.
    pub recorded_at: DateTime<Utc>,
    pub topic: String,
    #[schema(minimum = 0)]
    pub partition: u32,
    #[schema(minimum = 0)]
    pub offset: i64,
    /// The fields that changed, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

/// A field that changed. Its values are erased with the user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditFieldChange)]
pub struct FieldChange {
    /// The name of the field.
    pub field: String,
    /// The value before: any JSON. Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// The value since: any JSON. Absent if unknown or cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// A page of entries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntries)]
pub struct Entries {
    /// Newest first: by time, then by partition and offset.
    pub entries: Vec<Entry>,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Many failed logins for one account.
    BruteForce,
    /// Failed logins for many accounts from one IP address.
    CredentialStuffing,
    /// Many refused second factors of one user.
    MfaFatigue,
    /// Logins of a user in a window in which somebody tried to break into the account.
    LoginAfterFailures,
}

impl AlertKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 4] = [
        Self::BruteForce,
        Self::CredentialStuffing,
        Self::MfaFatigue,
        Self::LoginAfterFailures,
    ];

    /// The name in JSON and in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BruteForce => "brute_force",
            Self::CredentialStuffing => "credential_stuffing",
            Self::MfaFatigue => "mfa_fatigue",
            Self::LoginAfterFailures => "login_after_failures",
        }
    }

    /// As stored.
    pub const fn code(self) -> i16 {
        self as i16 + 1
    }
}

/// What was seen in a window of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    pub kind: AlertKind,
    /// The account, the IP address, or the id of the user.
    pub key: String,
    /// When the window begins. Windows are fixed: multiples of their length since 1970.
    pub window_start: DateTime<Utc>,
    /// When the window ends.
    pub window_end: DateTime<Utc>,
    /// How many failures there were; for `credential_stuffing`, for how many accounts; for
    /// `login_after_failures`, how many logins.
    #[schema(minimum = 1)]
    pub count: i64,
    /// The time of the first of these events.
    pub first_event_at: DateTime<Utc>,
    /// The time of the last of these events.
    pub last_event_at: DateTime<Utc>,
    /// The ids of the first 100 of these events, by time, then by id.
    #[schema(max_items = 100)]
    pub event_ids: Vec<String>,
}

/// A page of alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alerts {
    /// The newest window first; in a window by kind, then by key.
    pub alerts: Vec<Alert>,
    /// The token of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// What a check of the chains has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Whether all entries are as they were written, and complete.
    pub valid: bool,
    #[schema(minimum = 0)]
    pub entries_checked: i64,
    /// The first entry that is wrong; absent if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_broken: Option<BrokenEntry>,
    /// Whether the chains were made with a key. Without one, whoever can change entries can make a new chain of them.
    pub keyed: bool,
    /// How far the chains reach. Keep it elsewhere and pass it later as `expectedHead`: then a tail that was cut off shows.
    pub head: String,
}

/// An entry that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokenEntry {
    pub topic: String,
    #[schema(minimum = 0)]
    pub partition: u32,
    /// Absent if no entry of the partition is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub offset: Option<i64>,
    /// Absent if no entry of the partition is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    pub problem: ChainProblem,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChainProblem {
    /// The entry is not as it was written.
    Changed,
    /// One or several entries are missing before this one.
    Removed,
    /// The entry does not belong there: it was put in, or moved.
    Inserted,
    /// Entries behind this one, the last one, are missing.
    TailCut,
}

/// What a user may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserAccess)]
pub struct Access {
    /// The roles, ordered by id.
    pub roles: Vec<HeldRole>,
    /// The permissions that the roles give, ordered by id.
    pub permissions: Vec<HeldPermission>,
}

/// What the view holds of a user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UserAudit {
    /// The last entries that concern the user.
    #[serde(flatten)]
    pub entries: Entries,
    /// The user's roles and permissions.
    pub access: Access,
}

/// A role that a user holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldRole {
    pub role_id: String,
    /// Absent if no event told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
}

/// A permission that a role gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldPermission {
    pub permission_id: String,
    /// Absent if no event told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_name: Option<String>,
}

/// A role. A deleted one gives nothing, and nobody holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    pub role_id: String,
    /// Absent if no event told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The permissions that it gives, ordered by id.
    pub permissions: Vec<HeldPermission>,
    /// The ids of the users who hold it, in order.
    pub holders: Vec<String>,
    /// When it was deleted; absent if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
}
