//! Who may do what: reads in one snapshot what happened to roles and permissions, for `access` to evaluate.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::entries::{in_facts, last_entries};
use crate::db;
use crate::domains::audit::access::{self, Fact, Moment, NewText, What};
use crate::domains::audit::model::{Access, Action, Role, UserAudit};
use crate::domains::audit::state::{ChangedValue, Facts};
use crate::error::Error;
use crate::event::{EventType, hash16};
use crate::query::page::ResponseSize;
use crate::query::{self, Answer, Reads, Subject};

/// The most holders of a role that are read: more don't fit into an answer, even with the shortest ids.
const MOST_HOLDERS: i64 = 1_000_000;

/// A user's roles, and the permissions that they give, now or at an instant.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND, with the position at which no event had named the user;
/// VIEW_NOT_READY instead, while the view is not built; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_user_access(
    reads: &Reads,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Access>, Error> {
    query::check_id("userId", user_id)?;
    let mut snapshot = reads.snapshot(&["audit"]).await?;
    let Answer { body, position } = user_access(reads, &mut snapshot, user_id, as_of).await?;
    match body {
        Some(body) => {
            check_size("userId", &body)?;
            Ok(Answer { body, position })
        }
        None => Err(position.not_found("user")),
    }
}

/// What the view holds of a user, in a snapshot: the last entries that concern the user, and what the user may do.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let Answer { body, position } = user_access(reads, snapshot, user_id, None).await?;
    let body = match body {
        Some(access) => Some(UserAudit {
            entries: last_entries(reads, snapshot, user_id).await?,
            access,
        }),
        None => None,
    };
    Answer { body, position }.into_json()
}

/// A user's roles and permissions, in a snapshot; `None` where no event has named the user.
async fn user_access(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Option<Access>>, Error> {
    let key = hash16(user_id.as_bytes());
    let in_user = in_facts("userId", user_id);
    let user = sqlx::query_file!("src/domains/audit/sql/find_user.sql", key, in_user, as_of)
        .fetch_one(&mut *snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/find_user"))?;
    let mut facts = FactReader {
        reads,
        snapshot,
        as_of,
        facts: Vec::new(),
    };
    if user.known && !user.deleted {
        facts.add_roles_of(key, &in_user).await?;
        let roles = keys(access::named(&facts.facts).0);
        facts.add(Selection::of_roles(&roles)).await?;
        facts.add_permissions().await?;
        facts.add_names().await?;
    }
    let facts = facts.facts;
    let position = reads
        .position(
            "audit",
            &user.logs,
            &user.offsets,
            user.ready,
            Subject::UserAndOthers(user.dead_letter),
        )
        .await?;
    let body = user.known.then(|| access::of_user(&facts, user_id));
    Ok(Answer { body, position })
}

/// A role, the permissions that it gives, and its holders, now or at an instant.
///
/// # Errors
/// INVALID_ARGUMENT if no role can have the id; NOT_FOUND, with the position at which no event had named the role;
/// VIEW_NOT_READY instead, while the view is not built; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_role(
    reads: &Reads,
    role_id: &str,
    as_of: Option<DateTime<Utc>>,
) -> Result<Answer<Role>, Error> {
    query::check_id("roleId", role_id)?;
    let key = hash16(role_id.as_bytes());
    let in_role = in_facts("roleId", role_id);
    let mut snapshot = reads.snapshot(&["audit"]).await?;
    let role = sqlx::query_file!("src/domains/audit/sql/find_role.sql", key, in_role)
        .fetch_one(&mut *snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/find_role"))?;
    let mut facts = FactReader {
        reads,
        snapshot: &mut snapshot,
        as_of,
        facts: Vec::new(),
    };
    if role.known {
        facts.add(Selection::of_roles(&[key])).await?;
        facts.add_holders(role_id, key, &in_role).await?;
        facts.add_permissions().await?;
        facts.add_names().await?;
    }
    let facts = facts.facts;
    let position = reads
        .position(
            "audit",
            &role.logs,
            &role.offsets,
            role.ready,
            Subject::Many,
        )
        .await?;
    if !role.known {
        return Err(position.not_found("role"));
    }
    let body = access::of_role(&facts, role_id);
    check_size("roleId", &body)?;
    Ok(Answer { body, position })
}

/// Refuses an answer about one id that is larger than an answer may be.
fn check_size(field: &str, body: &impl Serialize) -> Result<(), Error> {
    let mut size = ResponseSize::default();
    size.add(body)?;
    if size.fits() {
        return Ok(());
    }
    Err(too_large(field))
}

/// The refusal of an answer about the id in `field` that would be too large.
pub fn too_large(field: &str) -> Error {
    let problem = "has more roles, permissions or holders than one answer of 3 MiB can hold";
    Error::range_too_large(field, problem)
}

fn keys<'i>(ids: impl IntoIterator<Item = &'i str>) -> Vec<Uuid> {
    let ids = ids.into_iter();
    ids.map(|id| hash16(id.as_bytes())).collect()
}

const OWN_OF_ROLES: &[EventType] = &[
    EventType::RoleCreated,
    EventType::RoleUpdated,
    EventType::RoleDeleted,
];
const OWN_OF_PERMISSIONS: &[EventType] = &[
    EventType::PermissionCreated,
    EventType::PermissionUpdated,
    EventType::PermissionDeleted,
];
const OF_HOLDERS: &[EventType] = &[EventType::UserRoleAssigned, EventType::UserRoleRemoved];
const OF_PAIRS: &[EventType] = &[
    EventType::PermissionAssignedToRole,
    EventType::PermissionRemovedFromRole,
];

/// Which facts to read of roles and permissions, by their hashes.
#[derive(Default)]
struct Selection<'k> {
    roles: &'k [Uuid],
    permissions: &'k [Uuid],
    /// Types of which all events of the roles are read, and of the permissions.
    all_of_roles: &'static [EventType],
    all_of_permissions: &'static [EventType],
    /// Types of which the last event of each pair and log is read.
    last_of_roles: &'static [EventType],
    last_of_permissions: &'static [EventType],
}

impl<'k> Selection<'k> {
    /// What happened to roles, and which permissions they were given.
    fn of_roles(roles: &'k [Uuid]) -> Self {
        Self {
            roles,
            all_of_roles: OWN_OF_ROLES,
            last_of_roles: OF_PAIRS,
            ..Self::default()
        }
    }
}

fn codes(types: &[EventType]) -> Vec<i16> {
    let actions = types.iter().map(|event_type| Action::of(Some(*event_type)));
    actions.flatten().map(|action| action.code).collect()
}

/// Reads facts about access in one snapshot.
struct FactReader<'r> {
    reads: &'r Reads,
    snapshot: &'r mut PgConnection,
    /// Later ones are not read.
    as_of: Option<DateTime<Utc>>,
    facts: Vec<Fact>,
}

/// An entry from which a fact is made.
struct FactRow {
    log_id: i32,
    record_offset: i64,
    occurred_at: DateTime<Utc>,
    action: i16,
    facts: String,
    changed_values: Option<String>,
}

/// The last assignment of a role to a user, or its removal, in a log.
struct HolderRow {
    log_id: i32,
    record_offset: i64,
    occurred_at: DateTime<Utc>,
    action: i16,
    user_id: String,
}

impl FactReader<'_> {
    /// Adds what happened to roles and permissions.
    async fn add(&mut self, selection: Selection<'_>) -> Result<(), Error> {
        let rows = self.read(selection).await?;
        self.add_rows(rows).await
    }

    async fn read(&mut self, selection: Selection<'_>) -> Result<Vec<FactRow>, Error> {
        if selection.roles.is_empty() && selection.permissions.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query_file_as!(
            FactRow,
            "src/domains/audit/sql/list_facts.sql",
            selection.roles,
            selection.permissions,
            &codes(selection.all_of_roles),
            &codes(selection.all_of_permissions),
            &codes(selection.last_of_roles),
            &codes(selection.last_of_permissions),
            self.as_of,
        )
        .fetch_all(&mut *self.snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/list_facts"))
    }

    /// Adds which roles a user was given.
    async fn add_roles_of(&mut self, key: Uuid, in_user: &str) -> Result<(), Error> {
        let rows = sqlx::query_file_as!(
            FactRow,
            "src/domains/audit/sql/list_user_roles.sql",
            key,
            in_user,
            self.as_of,
        )
        .fetch_all(&mut *self.snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/list_user_roles"))?;
        self.add_rows(rows).await
    }

    /// Adds who was given a role, without users who were deleted.
    async fn add_holders(&mut self, role: &str, key: Uuid, in_role: &str) -> Result<(), Error> {
        let rows = sqlx::query_file_as!(
            HolderRow,
            "src/domains/audit/sql/list_holders.sql",
            key,
            in_role,
            self.as_of,
            MOST_HOLDERS,
        )
        .fetch_all(&mut *self.snapshot)
        .await
        .map_err(|error| Error::from(error).in_statement("audit/list_holders"))?;
        let log_ids: Vec<i32> = rows.iter().map(|row| row.log_id).collect();
        let logs = self.reads.partitions(&log_ids).await?;
        let assigned = Action::of(Some(EventType::UserRoleAssigned));
        for (row, (topic, partition)) in rows.into_iter().zip(logs) {
            let at = Moment {
                log_id: row.log_id,
                topic,
                partition,
                offset: row.record_offset,
                occurred_at: row.occurred_at,
            };
            // The names are read where they are needed.
            let (role, user) = (role.to_owned(), row.user_id);
            let what = if assigned.is_some_and(|assigned| assigned.code == row.action) {
                What::RoleAssigned {
                    role,
                    user,
                    name: None,
                }
            } else {
                What::RoleRemoved {
                    role,
                    user,
                    name: None,
                }
            };
            self.facts.push(Fact { at, what });
        }
        Ok(())
    }

    /// Adds what happened to the permissions that the facts name.
    async fn add_permissions(&mut self) -> Result<(), Error> {
        let permissions = keys(access::named(&self.facts).1);
        self.add(Selection {
            permissions: &permissions,
            all_of_permissions: OWN_OF_PERMISSIONS,
            ..Selection::default()
        })
        .await
    }

    /// Adds the last assignments of the roles and permissions that have no name from events of their own.
    async fn add_names(&mut self) -> Result<(), Error> {
        let (roles, permissions) = access::unnamed(&self.facts);
        let (roles, permissions) = (keys(roles), keys(permissions));
        let rows = self
            .read(Selection {
                roles: &roles,
                permissions: &permissions,
                last_of_roles: OF_HOLDERS,
                last_of_permissions: OF_PAIRS,
                ..Selection::default()
            })
            .await?;
        let first = self.facts.len();
        self.add_rows(rows).await?;
        for fact in &mut self.facts[first..] {
            // The assignment is of any user, who may have been deleted.
            if let What::RoleAssigned { role, name, .. } | What::RoleRemoved { role, name, .. } =
                &fact.what
            {
                fact.what = What::RoleMentioned {
                    role: role.clone(),
                    name: name.clone(),
                };
            }
        }
        Ok(())
    }

    async fn add_rows(&mut self, rows: Vec<FactRow>) -> Result<(), Error> {
        let log_ids: Vec<i32> = rows.iter().map(|row| row.log_id).collect();
        let logs = self.reads.partitions(&log_ids).await?;
        for (row, (topic, partition)) in rows.into_iter().zip(logs) {
            let at = Moment {
                log_id: row.log_id,
                topic,
                partition,
                offset: row.record_offset,
                occurred_at: row.occurred_at,
            };
            let what = row.what()?;
            self.facts.extend(what.map(|what| Fact { at, what }));
        }
        Ok(())
    }
}

impl FactRow {
    /// What happened; `None` if it does not concern access.
    fn what(self) -> Result<Option<What>, Error> {
        let facts: Facts = db::of_document(&self.facts, "entries")?;
        let new = |field: &str| -> Result<Option<Value>, Error> {
            let values = self.changed_values.as_deref();
            let values = values.map(|values| db::of_document(values, "entries"));
            let values: Vec<ChangedValue> = values.transpose()?.unwrap_or_default();
            let mut named = facts.fields.iter().zip(values);
            Ok(named
                .find(|(name, _)| *name == field)
                .and_then(|(_, value)| value.new))
        };
        let text = |field| -> Result<Option<NewText>, Error> {
            Ok(match new(field)? {
                Some(Value::String(text)) => Some(NewText::Text(text)),
                // An event clears a field by null or an empty text, and both are stored as null.
                Some(Value::Null) => Some(NewText::Cleared),
                _ => None,
            })
        };
        let event_type = Action::coded(self.action).and_then(|action| action.event_type);
        let (Some(event_type), role, permission) = (
            event_type,
            facts.role_id.clone().unwrap_or_default(),
            facts.permission_id.clone().unwrap_or_default(),
        ) else {
            return Ok(None);
        };
        let user = facts.user_id.clone().unwrap_or_default();
        Ok(Some(match event_type {
            EventType::RoleCreated => What::RoleCreated {
                role,
                name: facts.role_name,
                description: facts.description,
                permissions: facts.initial_permission_ids,
            },
            EventType::RoleUpdated => What::RoleUpdated {
                role,
                name: text("roleName")?,
                description: text("description")?,
            },
            EventType::RoleDeleted => What::RoleDeleted {
                role,
                name: facts.role_name,
            },
            EventType::UserRoleAssigned => What::RoleAssigned {
                role,
                user,
                name: facts.role_name,
            },
            EventType::UserRoleRemoved => What::RoleRemoved {
                role,
                user,
                name: facts.role_name,
            },
            EventType::PermissionCreated => What::PermissionCreated {
                permission,
                name: facts.permission_name,
            },
            EventType::PermissionUpdated => What::PermissionUpdated {
                permission,
                name: text("permissionName")?,
            },
            EventType::PermissionDeleted => What::PermissionDeleted {
                permission,
                name: facts.permission_name,
            },
            EventType::PermissionAssignedToRole => What::PermissionAssigned {
                permission,
                role,
                name: facts.permission_name,
            },
            EventType::PermissionRemovedFromRole => What::PermissionRemoved {
                permission,
                role,
                name: facts.permission_name,
            },
            _ => return Ok(None),
        }))
    }
}
