//! What is stored of an event that is never erased, and the hashes by which entries are found.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::event::{Change, Changes, Event, Payload, UserLoginFailed};

/// What an entry keeps for ever, beside its columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// The type as written; absent if the catalogue has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Absent if it is the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The names of the changed fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What the event says of a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
    /// What the event says of a permission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_name: Option<String>,
    /// Of a role that was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of a role that was created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initial_permission_ids: Vec<String>,
}

/// The values of a changed field, in the order of [`Facts::fields`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangedValue {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// Null if the field was cleared.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub new: Option<Value>,
}

/// A value that is there, also null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What an entry keeps until its user is erased.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Personal {
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub changed_values: Vec<ChangedValue>,
}

/// The account that a failed login tried.
pub fn account(event: &UserLoginFailed) -> Option<&str> {
    event
        .attempted_user_id
        .as_deref()
        .or(event.attempted_email.as_deref())
        .or(event.attempted_username.as_deref())
}

/// Splits an event into what is kept for ever and what is erased with the user.
pub fn split(event: &Event) -> (Facts, Personal) {
    let user_id = event.user_id().map(str::to_owned);
    let mut facts = Facts {
        r#type: event.event_type.is_none().then(|| event.type_name.clone()),
        version: event.version.clone(),
        correlation_id: event.correlation_id.clone(),
        user_id: user_id.clone(),
        ..Facts::default()
    };
    let mut personal = Personal::default();
    let mut actor = user_id.clone();
    let mut named = |id: &str| actor = Some(id.to_owned());
    match &event.payload {
        Payload::UserAccountStatusChanged(event) => {
            facts.reason.clone_from(&event.reason);
            event.changed_by.iter().for_each(|id| named(id));
        }
        Payload::UserUpdated(event) => keep_changes(&event.changes, &mut facts, &mut personal),
        Payload::UserLoggedIn(event) => {
            personal.ip_address.clone_from(&event.ip_address);
            personal.user_agent.clone_from(&event.user_agent);
        }
        Payload::UserLoginFailed(event) => {
            facts.reason = Some(event.reason.clone());
            account(event).iter().for_each(|id| named(id));
            personal.ip_address.clone_from(&event.ip_address);
            personal.user_agent.clone_from(&event.user_agent);
        }
        Payload::MfaStatusChanged(event) => {
            let other = event.changed_by.iter().filter(|by| *by != "user");
            other.for_each(|id| named(id));
        }
        Payload::MfaChallengeFailed(event) => {
            personal.ip_address.clone_from(&event.ip_address);
            personal.user_agent.clone_from(&event.user_agent);
        }
        Payload::RoleCreated(event) => {
            named(&event.created_by);
            facts.role_id = Some(event.role_id.clone());
            facts.role_name = Some(event.role_name.clone());
            facts.description.clone_from(&event.description);
            facts.initial_permission_ids = event.initial_permission_ids.clone().unwrap_or_default();
        }
        Payload::RoleUpdated(event) => {
            named(&event.updated_by);
            facts.role_id = Some(event.role_id.clone());
            keep_changes(&event.changes, &mut facts, &mut personal);
        }
        Payload::RoleDeleted(event) => {
            named(&event.deleted_by);
            facts.role_id = Some(event.role_id.clone());
            facts.role_name = Some(event.role_name.clone());
        }
        Payload::UserRoleAssigned(event) => {
            named(&event.assigned_by);
            facts.role_id = Some(event.role_id.clone());
            facts.role_name = Some(event.role_name.clone());
        }
        Payload::UserRoleRemoved(event) => {
            named(&event.removed_by);
            facts.role_id = Some(event.role_id.clone());
            facts.role_name = Some(event.role_name.clone());
        }
        Payload::PermissionCreated(event) => {
            named(&event.created_by);
            facts.permission_id = Some(event.permission_id.clone());
            facts.permission_name = Some(event.permission_name.clone());
        }
        Payload::PermissionUpdated(event) => {
            named(&event.updated_by);
            facts.permission_id = Some(event.permission_id.clone());
            keep_changes(&event.changes, &mut facts, &mut personal);
        }
        Payload::PermissionDeleted(event) => {
            named(&event.deleted_by);
            facts.permission_id = Some(event.permission_id.clone());
            facts.permission_name = Some(event.permission_name.clone());
        }
        Payload::PermissionAssignedToRole(event) => {
            named(&event.assigned_by);
            facts.role_id = Some(event.role_id.clone());
            facts.permission_id = Some(event.permission_id.clone());
            facts.permission_name = Some(event.permission_name.clone());
        }
        Payload::PermissionRemovedFromRole(event) => {
            named(&event.removed_by);
            facts.role_id = Some(event.role_id.clone());
            facts.permission_id = Some(event.permission_id.clone());
            facts.permission_name = Some(event.permission_name.clone());
        }
        _ => {}
    }
    facts.actor = actor.filter(|actor| Some(actor) != user_id.as_ref());
    (facts, personal)
}

fn keep_changes(changes: &Changes, facts: &mut Facts, personal: &mut Personal) {
    for (field, change) in changes.iter() {
        facts.fields.push(field.to_owned());
        personal.changed_values.push(ChangedValue {
            old: change.old.clone(),
            new: match &change.new {
                Change::Value(value) => Some(value.clone()),
                Change::Cleared => Some(Value::Null),
                Change::Unknown => None,
            },
        });
    }
}
