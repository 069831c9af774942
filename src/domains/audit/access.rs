//! Evaluates who may do what: a fold, without I/O, of what events said of roles, permissions and holders.
//!
//! Of two facts of one log the one with the higher offset is later; of two logs, the one with the later time, then topic,
//! partition and offset. So what is last is found per log first, then between the logs: the answer does not depend on the order
//! in which logs were read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use super::model::{Access, HeldPermission, HeldRole, Role};

/// Where and when something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    pub log_id: i32,
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub occurred_at: DateTime<Utc>,
}

impl Moment {
    /// Orders moments of different logs.
    fn between_logs(&self) -> (DateTime<Utc>, &str, u32, i64) {
        (self.occurred_at, &self.topic, self.partition, self.offset)
    }

    fn is_later_than(&self, other: &Self) -> bool {
        if self.log_id == other.log_id {
            self.offset > other.offset
        } else {
            self.between_logs() > other.between_logs()
        }
    }
}

/// What happened, with its ids. A name or description is `None` if the event does not tell one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    RoleCreated {
        role: String,
        name: Option<String>,
        description: Option<String>,
        permissions: Vec<String>,
    },
    RoleUpdated {
        role: String,
        name: Option<NewText>,
        description: Option<NewText>,
    },
    RoleDeleted {
        role: String,
        name: Option<String>,
    },
    RoleAssigned {
        role: String,
        user: String,
        name: Option<String>,
    },
    RoleRemoved {
        role: String,
        user: String,
        name: Option<String>,
    },
    /// An assignment or removal of a role, of which only the role's name counts.
    RoleMentioned {
        role: String,
        name: Option<String>,
    },
    PermissionCreated {
        permission: String,
        name: Option<String>,
    },
    PermissionUpdated {
        permission: String,
        name: Option<NewText>,
    },
    PermissionDeleted {
        permission: String,
        name: Option<String>,
    },
    PermissionAssigned {
        permission: String,
        role: String,
        name: Option<String>,
    },
    PermissionRemoved {
        permission: String,
        role: String,
        name: Option<String>,
    },
}

/// What an update makes of a name or a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewText {
    Text(String),
    Cleared,
}

impl NewText {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Cleared => None,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub at: Moment,
    pub what: What,
}

/// The access of a user who was not deleted. `facts` must hold all about the user's roles and their permissions; others change
/// nothing.
pub fn of_user(facts: &[Fact], user: &str) -> Access {
    let known = Known::of(facts);
    let roles: Vec<&str> = known
        .roles
        .iter()
        .filter(|(_, role)| role.is_held_by(user))
        .map(|(id, _)| *id)
        .collect();
    let permissions: BTreeSet<&str> = roles
        .iter()
        .flat_map(|role| known.permissions_of(role))
        .collect();
    Access {
        roles: roles
            .into_iter()
            .map(|role| known.held_role(role))
            .collect(),
        permissions: permissions
            .into_iter()
            .map(|permission| known.held_permission(permission))
            .collect(),
    }
}

/// A role, its permissions and holders. `facts` must hold all about them, and no assignments to users who were deleted; others
/// change nothing.
pub fn of_role(facts: &[Fact], role_id: &str) -> Role {
    let known = Known::of(facts);
    let mut answer = Role {
        role_id: role_id.to_owned(),
        ..Role::default()
    };
    let Some(role) = known.roles.get(role_id) else {
        return answer;
    };
    answer.role_name = role.name();
    let description = latest(&role.descriptions).copied().flatten();
    answer.description = description.map(str::to_owned);
    answer.deleted_at = role.life.deleted_at();
    answer.permissions = known
        .permissions_of(role_id)
        .into_iter()
        .map(|permission| known.held_permission(permission))
        .collect();
    answer.holders = role
        .holders
        .keys()
        .filter(|user| role.is_held_by(user))
        .map(|user| (*user).to_owned())
        .collect();
    answer
}

/// The ids of the roles that facts name, and of the permissions.
pub fn named(facts: &[Fact]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let known = Known::of(facts);
    let roles = known.roles.keys().copied().collect();
    let permissions = known.permissions.keys().copied().collect();
    (roles, permissions)
}

/// The roles and permissions which no event of their own names: assignments do.
pub fn unnamed(facts: &[Fact]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let known = Known::of(facts);
    let roles = known.roles.iter();
    let roles = roles.filter(|(_, role)| role.names.is_empty());
    let permissions = known.permissions.iter();
    let permissions = permissions.filter(|(_, permission)| permission.names.is_empty());
    (
        roles.map(|(id, _)| *id).collect(),
        permissions.map(|(id, _)| *id).collect(),
    )
}

/// Something that was said at a moment.
type Said<'f, T> = Vec<(&'f Moment, T)>;

/// What was said last: in each log the last, between logs the latest of these.
fn latest_said<'s, 'f: 's, T: 's>(
    said: impl IntoIterator<Item = &'s (&'f Moment, T)>,
) -> Option<&'s (&'f Moment, T)> {
    let mut last: HashMap<i32, &'s (&'f Moment, T)> = HashMap::new();
    for one in said {
        let last = last.entry(one.0.log_id).or_insert(one);
        if one.0.offset >= last.0.offset {
            *last = one;
        }
    }
    last.into_values()
        .max_by(|a, b| a.0.between_logs().cmp(&b.0.between_logs()))
}

fn latest<'s, T>(said: &'s Said<'_, T>) -> Option<&'s T> {
    latest_said(said).map(|(_, value)| value)
}

/// When something was created and deleted.
#[derive(Default)]
struct Life<'f> {
    /// Whether it was deleted; else it was created.
    said: Said<'f, bool>,
}

impl Life<'_> {
    fn is_deleted(&self) -> bool {
        latest(&self.said).copied().unwrap_or_default()
    }

    /// When it was deleted, if the last event says so: the first deletion after the last creation, in the log of that event.
    fn deleted_at(&self) -> Option<DateTime<Utc>> {
        let (last, is_deleted) = latest_said(&self.said)?;
        if !is_deleted {
            return None;
        }
        let of_log = || self.said.iter().filter(|(at, _)| at.log_id == last.log_id);
        let created = of_log().filter(|(_, deleted)| !deleted);
        let created = created.map(|(at, _)| at.offset).max();
        let since = of_log().filter(|(at, _)| created.is_none_or(|created| at.offset > created));
        since
            .min_by_key(|(at, _)| at.offset)
            .map(|(at, _)| at.occurred_at)
    }

    /// Whether an assignment at a moment no longer counts: its role or permission was deleted then, or was deleted later. To
    /// create that again does not bring the assignment back.
    fn cancels(&self, moment: &Moment) -> bool {
        let mut deletions = self.said.iter().filter(|(_, deleted)| *deleted);
        deletions.any(|(at, _)| at.is_later_than(moment)) || self.is_deleted_at(moment)
    }

    /// Whether it was deleted at a moment. Without an event that created it, it counts as there from the beginning.
    fn is_deleted_at(&self, moment: &Moment) -> bool {
        let said = self.said.iter();
        let until_then = said.filter(|(at, _)| !at.is_later_than(moment));
        latest_said(until_then).is_some_and(|(_, deleted)| *deleted)
    }
}

#[derive(Default)]
struct KnownRole<'f> {
    life: Life<'f>,
    /// By events of its own; `None` where an update clears it.
    names: Said<'f, Option<&'f str>>,
    /// By assignments, for a role that no event of its own names.
    assigned_names: Said<'f, &'f str>,
    descriptions: Said<'f, Option<&'f str>>,
    /// By user: whether it was assigned; else it was removed.
    holders: BTreeMap<&'f str, Said<'f, bool>>,
    /// The same by permission.
    permissions: BTreeMap<&'f str, Said<'f, bool>>,
}

impl KnownRole<'_> {
    fn name(&self) -> Option<String> {
        latest_name(&self.names, &self.assigned_names)
    }

    fn is_held_by(&self, user: &str) -> bool {
        let said = self.holders.get(user);
        !self.life.is_deleted() && said.is_some_and(|said| holds(said, &[&self.life]))
    }
}

/// The name of a role or permission: as its own events say last, which may have cleared it. That of assignments counts only
/// where no event of its own says one.
fn latest_name(own: &Said<'_, Option<&str>>, assigned: &Said<'_, &str>) -> Option<String> {
    let name = match latest(own) {
        Some(name) => *name,
        None => latest(assigned).copied(),
    };
    name.map(str::to_owned)
}

/// Whether the last word is an assignment that no deletion of either side has cancelled.
fn holds(said: &Said<'_, bool>, lives: &[&Life<'_>]) -> bool {
    latest_said(said)
        .is_some_and(|(at, assigned)| *assigned && !lives.iter().any(|life| life.cancels(at)))
}

#[derive(Default)]
struct KnownPermission<'f> {
    life: Life<'f>,
    names: Said<'f, Option<&'f str>>,
    assigned_names: Said<'f, &'f str>,
}

/// Facts by what they are about.
#[derive(Default)]
struct Known<'f> {
    roles: BTreeMap<&'f str, KnownRole<'f>>,
    permissions: BTreeMap<&'f str, KnownPermission<'f>>,
}

impl<'f> Known<'f> {
    fn of(facts: &'f [Fact]) -> Self {
        let mut known = Self::default();
        facts.iter().for_each(|fact| known.add(fact));
        known
    }

    fn add(&mut self, Fact { at, what }: &'f Fact) {
        match what {
            What::RoleCreated {
                role,
                name,
                description,
                permissions,
            } => {
                for permission in permissions {
                    self.permissions.entry(permission).or_default();
                }
                let role = self.roles.entry(role).or_default();
                role.life.said.push((at, false));
                role.names
                    .extend(name.iter().map(|name| (at, Some(&**name))));
                role.descriptions
                    .extend(description.iter().map(|text| (at, Some(&**text))));
                for permission in permissions {
                    let said = role.permissions.entry(permission).or_default();
                    said.push((at, true));
                }
            }
            What::RoleUpdated {
                role,
                name,
                description,
            } => {
                let role = self.roles.entry(role).or_default();
                role.names.extend(name.iter().map(|name| (at, name.text())));
                role.descriptions
                    .extend(description.iter().map(|text| (at, text.text())));
            }
            What::RoleDeleted { role, name } => {
                let role = self.roles.entry(role).or_default();
                role.life.said.push((at, true));
                role.names
                    .extend(name.iter().map(|name| (at, Some(&**name))));
            }
            What::RoleAssigned { role, user, name } | What::RoleRemoved { role, user, name } => {
                let assigned = matches!(what, What::RoleAssigned { .. });
                let role = self.roles.entry(role).or_default();
                role.assigned_names
                    .extend(name.iter().map(|name| (at, &**name)));
                role.holders.entry(user).or_default().push((at, assigned));
            }
            What::RoleMentioned { role, name } => {
                let role = self.roles.entry(role).or_default();
                role.assigned_names
                    .extend(name.iter().map(|name| (at, &**name)));
            }
            What::PermissionCreated { permission, name }
            | What::PermissionDeleted { permission, name } => {
                let deleted = matches!(what, What::PermissionDeleted { .. });
                let permission = self.permissions.entry(permission).or_default();
                permission.life.said.push((at, deleted));
                permission
                    .names
                    .extend(name.iter().map(|name| (at, Some(&**name))));
            }
            What::PermissionUpdated { permission, name } => {
                let permission = self.permissions.entry(permission).or_default();
                permission
                    .names
                    .extend(name.iter().map(|name| (at, name.text())));
            }
            What::PermissionAssigned {
                permission,
                role,
                name,
            }
            | What::PermissionRemoved {
                permission,
                role,
                name,
            } => {
                let assigned = matches!(what, What::PermissionAssigned { .. });
                let role = self.roles.entry(role).or_default();
                let said = role.permissions.entry(permission).or_default();
                said.push((at, assigned));
                let permission = self.permissions.entry(permission).or_default();
                permission
                    .assigned_names
                    .extend(name.iter().map(|name| (at, &**name)));
            }
        }
    }

    /// The permissions that a role gives, in the order of their ids.
    fn permissions_of(&self, role: &str) -> Vec<&'f str> {
        let Some(role) = self.roles.get(role).filter(|role| !role.life.is_deleted()) else {
            return Vec::new();
        };
        let never = Life::default();
        let gives = |permission: &str, said: &Said<'_, bool>| {
            let life = self.permissions.get(permission);
            let life = life.map_or(&never, |permission| &permission.life);
            !life.is_deleted() && holds(said, &[&role.life, life])
        };
        let given = role.permissions.iter();
        given
            .filter(|(permission, said)| gives(permission, said))
            .map(|(permission, _)| *permission)
            .collect()
    }

    fn held_role(&self, id: &str) -> HeldRole {
        HeldRole {
            role_id: id.to_owned(),
            role_name: self.roles.get(id).and_then(KnownRole::name),
        }
    }

    fn held_permission(&self, id: &str) -> HeldPermission {
        let known = self.permissions.get(id);
        let name = known.and_then(|known| latest_name(&known.names, &known.assigned_names));
        HeldPermission {
            permission_id: id.to_owned(),
            permission_name: name,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(log_id: i32, offset: i64, second: i64) -> Moment {
        Moment {
            log_id,
            topic: "t".into(),
            partition: log_id.unsigned_abs(),
            offset,
            occurred_at: DateTime::from_timestamp(second, 0).unwrap(),
        }
    }

    /// What happens, in short: `role+`, `role-` (created, deleted), `role=name`, `role:text`, and `role=` and `role:`
    /// (updated, and cleared), `role>user`, `role<user`, `perm+`, `perm-`, `perm=name`, `perm=`, `role>>perm`, `role<<perm`,
    /// `role+perm` (created with it).
    fn what(text: &str) -> What {
        let split = |by: &str| {
            let (left, right) = text.split_once(by)?;
            Some((left.to_owned(), right.to_owned()))
        };
        let name = || Some("name".to_owned());
        if let Some((role, permission)) = split(">>") {
            return What::PermissionAssigned {
                role,
                permission,
                name: Some("assigned".into()),
            };
        }
        if let Some((role, permission)) = split("<<") {
            return What::PermissionRemoved {
                role,
                permission,
                name: Some("removed".into()),
            };
        }
        if let Some((role, user)) = split(">") {
            return What::RoleAssigned {
                role,
                user,
                name: Some("assigned".into()),
            };
        }
        if let Some((role, user)) = split("<") {
            return What::RoleRemoved {
                role,
                user,
                name: Some("removed".into()),
            };
        }
        let new = |text: String| match text.as_str() {
            "" => Some(NewText::Cleared),
            _ => Some(NewText::Text(text)),
        };
        if let Some((id, name)) = split("=") {
            return if id.starts_with('p') {
                What::PermissionUpdated {
                    permission: id,
                    name: new(name),
                }
            } else {
                What::RoleUpdated {
                    role: id,
                    name: new(name),
                    description: None,
                }
            };
        }
        if let Some((role, text)) = split(":") {
            return What::RoleUpdated {
                role,
                name: None,
                description: new(text),
            };
        }
        match (split("+"), split("-")) {
            (Some((permission, _)), _) if permission.starts_with('p') => What::PermissionCreated {
                permission,
                name: name(),
            },
            (Some((role, initial)), _) => What::RoleCreated {
                role,
                name: name(),
                description: Some("first".into()),
                permissions: if initial.is_empty() {
                    Vec::new()
                } else {
                    vec![initial]
                },
            },
            (_, Some((permission, _))) if permission.starts_with('p') => What::PermissionDeleted {
                permission,
                name: name(),
            },
            (_, Some((role, _))) => What::RoleDeleted { role, name: name() },
            _ => panic!("{text}"),
        }
    }

    /// Facts of one log, a second apart.
    fn log(texts: &[&str]) -> Vec<Fact> {
        let texts = texts.iter().zip(1..);
        texts
            .map(|(text, n)| Fact {
                at: at(1, n, n),
                what: what(text),
            })
            .collect()
    }

    fn roles(facts: &[Fact]) -> Vec<String> {
        let access = of_user(facts, "u").roles.into_iter();
        access.map(|role| role.role_id).collect()
    }

    fn permissions(facts: &[Fact]) -> Vec<String> {
        let access = of_user(facts, "u").permissions.into_iter();
        access.map(|permission| permission.permission_id).collect()
    }

    #[test]
    fn roles_of_a_user() {
        for (facts, held) in [
            (&[][..], &[][..]),
            (&["r>u"], &["r"]),
            (&["r>v"], &[]),
            (&["r>u", "r<u"], &[]),
            (&["r<u", "r>u"], &["r"]),
            (&["r+", "r>u"], &["r"]),
            (&["s>u", "r>u", "s>u"], &["r", "s"]),
            (&["r+", "r>u", "r-"], &[]),
            // Created again, without former assignments.
            (&["r+", "r>u", "r-", "r+"], &[]),
            (&["r+", "r>u", "r-", "r+", "r>u"], &["r"]),
            // Neither an assignment nor an update brings it back.
            (&["r-", "r>u", "r=x"], &[]),
            // What was assigned while the role was deleted counts neither then nor when it is created again.
            (&["r+", "r-", "r>u", "r+"], &[]),
            (&["r-", "r>u", "r+"], &[]),
            (&["r+", "r>u", "r-", "r>u", "r+"], &[]),
            (&["r-", "r>u", "r+", "r>u"], &["r"]),
            (&["r-", "r+", "r>u", "r+"], &["r"]),
            // A creation with no deletion before it cancels nothing.
            (&["r>u", "r+"], &["r"]),
            (&["r>u", "r+", "r+"], &["r"]),
        ] {
            assert_eq!(roles(&log(facts)), held, "{facts:?}");
        }
    }

    #[test]
    fn permissions_of_a_user() {
        for (facts, held) in [
            (&["r>u", "r>>p"][..], &["p"][..]),
            (&["r>u", "r+p"], &["p"]),
            (&["r>u", "r+p", "r<<p"], &[]),
            (&["r>u", "r<<p", "r+p"], &["p"]),
            (&["r>u", "s>u", "r>>p", "s>>p", "s>>pa"], &["p", "pa"]),
            (&["r>u", "r>>p", "p-"], &[]),
            (&["r>u", "r>>p", "p-", "p+"], &[]),
            (&["r>u", "r>>p", "p-", "p+", "r>>p"], &["p"]),
            (&["r>u", "p-", "r>>p"], &[]),
            (&["r>u", "p-", "r>>p", "p+"], &[]),
            (&["r>u", "p-", "r+p", "p+"], &[]),
            (&["r>u", "p-", "r>>p", "p+", "r>>p"], &["p"]),
            (&["r>u", "r>>p", "p+"], &["p"]),
            (&["r>>p", "r-", "r+", "r>u"], &[]),
            (&["r-", "r>>p", "r+", "r>u"], &[]),
            (&["r-", "r>>p", "r+", "r>>p", "r>u"], &["p"]),
            (&["r>>p", "r-", "r+p", "r>u"], &["p"]),
            (&["r>>p"], &[]),
        ] {
            assert_eq!(permissions(&log(facts)), held, "{facts:?}");
        }
    }

    #[test]
    fn a_role_by_its_id() {
        let role = |facts: &[&str]| of_role(&log(facts), "r");
        let deleted = role(&["r+p", "r>u", "r=other", "r-", "r-", "r>u"]);
        let second = |second| DateTime::from_timestamp(second, 0);
        assert_eq!(deleted.deleted_at, second(4));
        assert!(deleted.holders.is_empty() && deleted.permissions.is_empty());
        assert_eq!(deleted.role_name.as_deref(), Some("name"));
        let back = role(&["r+", "r-", "r+", "r>v", "r>u"]);
        assert_eq!(
            (back.deleted_at, back.holders),
            (None, vec!["u".into(), "v".into()])
        );
        assert_eq!(role(&["r+", "r-", "r+", "r-"]).deleted_at, second(4));
        // Names and descriptions.
        for (facts, name, description) in [
            (&["r+"][..], Some("name"), Some("first")),
            (&["r+", "r=new"], Some("new"), Some("first")),
            (&["r+", "r=new", "r:text"], Some("new"), Some("text")),
            (&["r+", "r:text", "r:"], Some("name"), None),
            (&["r:", "r+"], Some("name"), Some("first")),
            (&["r>u", "r<u"], Some("removed"), None),
            (&["r=new", "r>u"], Some("new"), None),
            (&["r>>p"], None, None),
            // A cleared name stays away until an event of the role's own brings one.
            (&["r+", "r="], None, Some("first")),
            (&["r+", "r=", "r>u"], None, Some("first")),
            (&["r>u", "r="], None, None),
            (&["r=", "r:text"], None, Some("text")),
            (&["r+", "r=", "r=new"], Some("new"), Some("first")),
            (&["r=", "r-"], Some("name"), None),
        ] {
            let role = role(facts);
            let found = (role.role_name.as_deref(), role.description.as_deref());
            assert_eq!(found, (name, description), "{facts:?}");
        }
        let named = role(&["r+pa", "r>>pb", "p+", "r>>p"]);
        let names = named.permissions.iter();
        let names: Vec<_> = names.map(|p| p.permission_name.as_deref()).collect();
        assert_eq!(names, [Some("name"), None, Some("assigned")]);
        for (facts, name) in [
            (&["r>>p", "p=new"][..], Some("new")),
            (&["p+", "r>>p", "p="], None),
            (&["r>>p", "p=", "r>>p"], None),
            (&["p+", "p=", "p=new", "r>>p"], Some("new")),
        ] {
            let role = role(facts);
            let [permission] = &role.permissions[..] else {
                panic!("{facts:?}: {role:?}");
            };
            assert_eq!(permission.permission_name.as_deref(), name, "{facts:?}");
        }
    }

    #[test]
    fn the_last_word_of_each_log_counts_then_the_latest() {
        let fact = |log_id, offset, second, text: &str| Fact {
            at: at(log_id, offset, second),
            what: what(text),
        };
        // In one log the offset decides, whatever the times.
        assert!(roles(&[fact(1, 1, 9, "r>u"), fact(1, 2, 5, "r<u")]).is_empty());
        // The earlier word of log 1 is later than that of log 2, but not its last.
        let facts = [
            fact(1, 1, 9, "r>u"),
            fact(1, 2, 5, "r<u"),
            fact(2, 1, 7, "r>u"),
        ];
        assert_eq!(roles(&facts), ["r"]);
        // At one time the partition decides.
        let facts = [fact(2, 1, 5, "r>u"), fact(1, 9, 5, "r<u")];
        assert_eq!(roles(&facts), ["r"]);
        // A deletion in another log cancels what was before it there; the role lives by another log's last word.
        let facts = [
            fact(1, 1, 5, "r>u"),
            fact(2, 1, 6, "r-"),
            fact(3, 1, 7, "r+"),
        ];
        assert!(roles(&facts).is_empty());
        assert_eq!(
            roles(&[fact(1, 1, 8, "r>u"), facts[1].clone(), facts[2].clone()]),
            ["r"]
        );
        // Between the deletion and the creation in another log, it is assigned in vain.
        let facts = |assigned| {
            [
                fact(1, 1, assigned, "r>u"),
                fact(2, 1, 6, "r-"),
                fact(2, 2, 8, "r+"),
            ]
        };
        assert!(roles(&facts(7)).is_empty());
        assert_eq!(roles(&facts(9)), ["r"]);
    }

    fn facts() -> impl Strategy<Value = Vec<Fact>> {
        const TEXTS: [&str; 17] = [
            "r+", "r-", "r+p", "r>u", "r<u", "r>v", "r=a", "r=", "r:b", "r:", "p+", "p-", "p=a",
            "p=", "r>>p", "r<<p", "s>u",
        ];
        let fact = (0..TEXTS.len(), 1..4_i32, 0..5_i64);
        prop::collection::vec(fact, 0..14).prop_map(|facts| {
            let facts = facts.into_iter().enumerate();
            let facts = facts.map(|(offset, (text, log_id, second))| Fact {
                at: at(log_id, offset as i64, second),
                what: what(TEXTS[text]),
            });
            facts.collect()
        })
    }

    proptest! {
        /// In one log, each event acts on what is there when it happens.
        #[test]
        fn in_one_log_it_is_a_fold_of_one_event_after_another(
            texts in prop::collection::vec(
                prop::sample::select(vec![
                    "r+", "r-", "r+p", "r>u", "r<u", "p+", "p-", "r>>p", "r<<p",
                ]),
                0..12,
            )
        ) {
            let (mut role, mut permission, mut held, mut given) = (true, true, false, false);
            for text in &texts {
                match *text {
                    "r+" => role = true,
                    "r+p" => (role, given) = (true, permission),
                    "r-" => (role, held, given) = (false, false, false),
                    "p+" => permission = true,
                    "p-" => (permission, given) = (false, false),
                    "r>u" => held = role,
                    "r<u" => held = false,
                    "r>>p" => given = role && permission,
                    _ => given = false,
                }
            }
            let found = of_role(&log(&texts), "r");
            prop_assert_eq!(found.holders == ["u"], held);
            prop_assert_eq!(found.permissions.len() == 1, given);
        }

        #[test]
        fn the_order_in_which_facts_are_given_does_not_matter(
            (facts, shuffled) in facts().prop_flat_map(|facts| {
                let shuffled = Just(facts.clone()).prop_shuffle();
                (Just(facts), shuffled)
            })
        ) {
            prop_assert_eq!(of_user(&facts, "u"), of_user(&shuffled, "u"));
            prop_assert_eq!(of_role(&facts, "r"), of_role(&shuffled, "r"));
        }

        /// What statements leave out: of assignments only the last of each log is read.
        #[test]
        fn only_the_last_assignment_of_a_log_matters(facts in facts()) {
            let pair = |what: &What| match what {
                What::RoleAssigned { role, user, .. } | What::RoleRemoved { role, user, .. } => {
                    Some((role.clone(), user.clone()))
                }
                What::PermissionAssigned { role, permission, .. }
                | What::PermissionRemoved { role, permission, .. } => {
                    Some((role.clone(), permission.clone()))
                }
                _ => None,
            };
            let is_last = |fact: &&Fact| {
                let pair_of = pair(&fact.what);
                pair_of.is_none() || !facts.iter().any(|other| {
                    other.at.log_id == fact.at.log_id
                        && other.at.offset > fact.at.offset
                        && pair(&other.what) == pair_of
                })
            };
            let last: Vec<Fact> = facts.iter().filter(is_last).cloned().collect();
            prop_assert_eq!(of_user(&facts, "u"), of_user(&last, "u"));
            prop_assert_eq!(of_role(&facts, "r"), of_role(&last, "r"));
        }

        #[test]
        fn who_holds_a_role_has_it(facts in facts()) {
            let holds = roles(&facts).contains(&"r".to_owned());
            prop_assert_eq!(of_role(&facts, "r").holders.contains(&"u".to_owned()), holds);
        }
    }
}
