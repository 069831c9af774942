//! What is stored of an event that is never erased, and the hashes by which entries are found.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::event::{Change, Changes, Event, Payload, UserLoginFailed, hash16};

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

/// The account that a failed login tried. Accounts of different kinds are different ones, whatever their texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account<'e> {
    UserId(&'e str),
    Email(&'e str),
    Username(&'e str),
}

impl<'e> Account<'e> {
    /// The account by the first of its names that the event has.
    pub fn of(event: &'e UserLoginFailed) -> Option<Self> {
        let user_id = event.attempted_user_id.as_deref().map(Self::UserId);
        let email = event.attempted_email.as_deref().map(Self::Email);
        let username = event.attempted_username.as_deref().map(Self::Username);
        user_id.or(email).or(username)
    }

    /// The accounts of all kinds with this text.
    pub fn all(text: &'e str) -> [Self; 3] {
        [Self::UserId(text), Self::Email(text), Self::Username(text)]
    }

    /// The name, without its kind.
    pub fn text(self) -> &'e str {
        match self {
            Self::UserId(text) | Self::Email(text) | Self::Username(text) => text,
        }
    }

    /// The hash by which windows of the account are found. That of a user's id is the one by which the user's entries are
    /// found, so that logins are looked up by it. No text of an event has the NUL character that tells the other kinds apart.
    pub fn key_hash(self) -> Uuid {
        match self {
            Self::UserId(id) => hash16(id.as_bytes()),
            Self::Email(email) => hash16(format!("email\0{email}").as_bytes()),
            Self::Username(name) => hash16(format!("username\0{name}").as_bytes()),
        }
    }
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
            Account::of(event)
                .iter()
                .for_each(|account| named(account.text()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_first_name_that_a_failed_login_has() {
        let given = |name: &str| Some(name.to_owned());
        for (user_id, email, username, expected) in [
            (
                given("i"),
                given("e"),
                given("n"),
                Some(Account::UserId("i")),
            ),
            (None, given("e"), given("n"), Some(Account::Email("e"))),
            (None, None, given("n"), Some(Account::Username("n"))),
            (None, None, None, None),
        ] {
            let event = UserLoginFailed {
                attempted_user_id: user_id,
                attempted_email: email,
                attempted_username: username,
                reason: "r".to_owned(),
                ip_address: None,
                user_agent: None,
            };
            assert_eq!(Account::of(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn accounts_of_one_text_have_different_hashes() {
        let [user_id, email, username] = Account::all("x").map(Account::key_hash);
        assert!(user_id != email && email != username && username != user_id);
        assert_eq!(user_id, hash16(b"x"));
        // What looks like the kind of another account is text.
        assert_ne!(Account::UserId("email\u{fffd}x").key_hash(), email);
        assert_ne!(Account::UserId("emailx").key_hash(), email);
        assert!(
            Account::all("x")
                .map(Account::text)
                .iter()
                .all(|text| *text == "x")
        );
    }
}
