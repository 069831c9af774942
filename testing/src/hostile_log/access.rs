//! Roles and permissions: created, changed, deleted, assigned and removed, under the keys of either side.

use serde_json::{Map, Value, json};

use super::generator::{Generator, Happening, Named};
use super::values::object;

/// Says under which of its keys an event is written; no view reads it.
const ROUTED_BY: &str = "routedBy";

impl Generator {
    /// The role or permission under whose key an event is written; `None` if it is a user's.
    pub(super) fn of_access(
        &self,
        event_type: &str,
        payload: &Map<String, Value>,
    ) -> Option<&Named> {
        let is_about = event_type.contains("Role") || event_type.contains("Permission");
        let routed = payload.get(ROUTED_BY).and_then(Value::as_u64);
        let routed = routed.filter(|_| is_about)? as usize;
        let find = |of: &'_ [Named], name: &str| {
            let id = payload.get(name)?.as_str()?;
            of.iter().position(|named| named.id == id)
        };
        let is_of_user = event_type.contains("UserRole");
        if is_of_user && (self.heals || routed == 0) {
            return None;
        }
        let role = find(&self.roles, "roleId").map(|n| &self.roles[n]);
        let permission = find(&self.permissions, "permissionId").map(|n| &self.permissions[n]);
        match routed {
            0 | 1 => permission.or(role),
            _ => role.or(permission),
        }
    }

    /// One of the few roles that a user may get, and one of the few permissions that it may have.
    fn pair(&mut self, user: usize) -> (String, String) {
        let role = (user * 7 + self.rng.usize(0..3)) % self.roles.len();
        let permission = (role * 5 + self.rng.usize(0..4)) % self.permissions.len();
        (
            self.roles[role].id.clone(),
            self.permissions[permission].id.clone(),
        )
    }

    /// Any event of a role or a permission.
    pub(super) fn access_event(&mut self, user: usize) -> Happening {
        let (role, permission) = self.pair(user);
        match self.rng.u32(0..64) {
            0..3 => {
                let other = self.pair(user).1;
                self.role_created(&role, &[&permission, &other])
            }
            3..9 => self.role_updated(&role),
            9..11 => self.role_deleted(&role),
            11..31 => self.role_assigned(&role),
            31..35 => self.role_removed(&role),
            35..39 => self.permission_created(&permission),
            39..45 => self.permission_updated(&permission),
            45 => self.permission_deleted(&permission),
            46..60 => self.permission_assigned(&role, &permission),
            _ => self.permission_removed(&role, &permission),
        }
    }

    /// A role or a permission goes and comes back, with what it had been assigned to.
    pub(super) fn access_scene(&mut self, user: usize) -> Vec<Happening> {
        let (role, permission) = self.pair(user);
        let other = self.pair(user).1;
        match self.rng.u32(0..12) {
            0 => vec![
                self.role_created(&role, &[&permission, &other, &permission]),
                self.role_assigned(&role),
                self.role_deleted(&role),
                self.role_updated(&role),
                self.role_deleted(&role),
                self.role_created(&role, &[&other]),
                self.permission_assigned(&role, &permission),
                self.role_assigned(&role),
            ],
            1..3 => vec![
                self.permission_created(&permission),
                self.permission_assigned(&role, &permission),
                self.permission_deleted(&permission),
                self.permission_assigned(&role, &permission),
                self.permission_created(&permission),
                self.permission_assigned(&role, &permission),
                self.role_assigned(&role),
            ],
            3..7 => vec![
                self.role_assigned(&role),
                self.role_removed(&role),
                self.role_assigned(&role),
                self.permission_assigned(&role, &permission),
                self.permission_removed(&role, &permission),
                self.permission_assigned(&role, &other),
            ],
            _ => {
                let way = self.pick(&["soft", "hard"]);
                let payload = object(json!({"deletionType": way}));
                let deleted = ("UserDeleted", payload, &["deletionTimestamp"][..]);
                let mut scene = vec![
                    self.role_assigned(&role),
                    self.role_created(&role, &[]),
                    self.role_removed(&role),
                    self.role_assigned(&role),
                ];
                if self.rng.u32(0..8) == 0 {
                    scene.insert(self.rng.usize(1..4), deleted);
                }
                scene
            }
        }
    }

    /// The payload of an event of a role or permission, with who did it.
    fn access(&mut self, by: &str, fields: Value) -> Map<String, Value> {
        let mut payload = object(fields);
        let anybody = self.users[self.rng.usize(0..self.users.len())].id.clone();
        let actor = match self.rng.u32(0..3) {
            0 => anybody,
            _ => self
                .pick(&["admin-user-id-001", "root", "nul\0"])
                .to_owned(),
        };
        payload.insert(by.into(), json!(actor));
        payload.insert(ROUTED_BY.into(), json!(self.rng.u32(0..4)));
        if self.rng.u32(0..10) == 0 {
            // Of no meaning in these types.
            payload.insert("ipAddress".into(), json!("192.0.2.99"));
            payload.insert("reason".into(), json!("not-this"));
        }
        payload
    }

    fn label(&mut self) -> String {
        match self.rng.u32(0..4) {
            0 => self.text(),
            _ => self
                .pick(&["Admin", "Editor", "admin", "\u{1f511}"])
                .to_owned(),
        }
    }

    fn role_created(&mut self, role: &str, permissions: &[&str]) -> Happening {
        let name = self.label();
        let mut payload = self.access("createdBy", json!({"roleId": role, "roleName": name}));
        let none = self.rng.choice([Value::Null, json!(""), json!([])]);
        let ids = match self.rng.u32(0..3) {
            0 => none.expect("some"),
            _ => json!(permissions),
        };
        payload.insert("initialPermissionIds".into(), ids);
        match self.rng.u32(0..3) {
            0 => {}
            1 => drop(payload.insert("description".into(), json!(""))),
            _ => drop(payload.insert("description".into(), json!(self.label()))),
        }
        ("RoleCreated", payload, &["creationTimestamp"])
    }

    fn role_updated(&mut self, role: &str) -> Happening {
        let payload = self.access_changes(&["roleName", "description", "color"]);
        let mut payload = self.access("updatedBy", payload);
        payload.insert("roleId".into(), json!(role));
        ("RoleUpdated", payload, &["updateTimestamp"])
    }

    fn role_deleted(&mut self, role: &str) -> Happening {
        let name = self.label();
        let payload = self.access("deletedBy", json!({"roleId": role, "roleName": name}));
        ("RoleDeleted", payload, &["deletionTimestamp"])
    }

    fn role_assigned(&mut self, role: &str) -> Happening {
        let name = self.label();
        let payload = self.access("assignedBy", json!({"roleId": role, "roleName": name}));
        ("UserRoleAssigned", payload, &["assignmentTimestamp"])
    }

    fn role_removed(&mut self, role: &str) -> Happening {
        let name = self.label();
        let payload = self.access("removedBy", json!({"roleId": role, "roleName": name}));
        ("UserRoleRemoved", payload, &["removalTimestamp"])
    }

    fn permission_created(&mut self, permission: &str) -> Happening {
        let fields = json!({
            "permissionId": permission, "permissionName": self.label(), "action": "read", "subject": "",
        });
        let payload = self.access("createdBy", fields);
        ("PermissionCreated", payload, &["creationTimestamp"])
    }

    fn permission_updated(&mut self, permission: &str) -> Happening {
        let payload = self.access_changes(&["permissionName", "description", "subject", "a.b"]);
        let mut payload = self.access("updatedBy", payload);
        payload.insert("permissionId".into(), json!(permission));
        ("PermissionUpdated", payload, &["updateTimestamp"])
    }

    fn permission_deleted(&mut self, permission: &str) -> Happening {
        let fields = json!({"permissionId": permission, "permissionName": self.label()});
        let payload = self.access("deletedBy", fields);
        ("PermissionDeleted", payload, &["deletionTimestamp"])
    }

    fn permission_assigned(&mut self, role: &str, permission: &str) -> Happening {
        let payload = self.between("assignedBy", role, permission);
        (
            "PermissionAssignedToRole",
            payload,
            &["assignmentTimestamp"],
        )
    }

    fn permission_removed(&mut self, role: &str, permission: &str) -> Happening {
        let payload = self.between("removedBy", role, permission);
        ("PermissionRemovedFromRole", payload, &["removalTimestamp"])
    }

    fn between(&mut self, by: &str, role: &str, permission: &str) -> Map<String, Value> {
        let fields = json!({
            "roleId": role, "permissionId": permission, "permissionName": self.label(),
        });
        self.access(by, fields)
    }

    /// Changed fields with the `newValues` that these types require, and `oldValues`.
    fn access_changes(&mut self, names: &[&str]) -> Value {
        let mut payload = self.changes(names);
        if !payload.get("newValues").is_some_and(Value::is_object) {
            payload.insert("newValues".into(), json!({}));
        }
        match self.rng.u32(0..4) {
            0 => {}
            1 => drop(payload.insert("oldValues".into(), Value::Null)),
            _ => {
                let mut old = Map::new();
                for name in names {
                    if self.rng.bool() {
                        let value = self.before();
                        old.insert((*name).to_owned(), value);
                    }
                }
                old.insert("a".into(), json!({"b": "by path"}));
                payload.insert("oldValues".into(), Value::Object(old));
            }
        }
        Value::Object(payload)
    }
}
