//! The audit domain: the log of entries, alerts, and access, which is derived from the events whenever it is asked for.
//!
//! Everything here is a function of the set of applied events, wherever and in whatever order they were applied.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::event::{Change, Event, UNKNOWN, readable};
use super::{View, instant};

/// How long a user's personal data stay after a soft deletion.
const RETENTION: TimeDelta = TimeDelta::days(365);
/// How long before and after that either may be right, because clocks and requests take time.
const MARGIN: TimeDelta = TimeDelta::minutes(2);
/// The length of the windows of alerts, in microseconds.
const WINDOW: i64 = 300_000_000;
/// How many failed logins for one account, accounts for one IP address, and failed challenges of one user make an alert.
const BRUTE_FORCE: usize = 5;
const CREDENTIAL_STUFFING: usize = 10;
const MFA_FATIGUE: usize = 3;
/// How many events an alert names.
const NAMED: usize = 100;

/// The types about accounts.
const ACCOUNT: [&str; 7] = [
    "UserRegistered",
    "UserEmailVerified",
    "UserPasswordChanged",
    "UserPasswordResetRequested",
    "UserAccountStatusChanged",
    "UserUpdated",
    "UserDeleted",
];
const AUTHENTICATION: [&str; 5] = [
    "UserLoggedIn",
    "UserLoginFailed",
    "UserLoggedOut",
    "MfaStatusChanged",
    "MfaChallengeFailed",
];
/// The types about roles and permissions, and which of their fields names the actor.
const AUTHORIZATION: [(&str, &str); 10] = [
    ("RoleCreated", "createdBy"),
    ("RoleUpdated", "updatedBy"),
    ("RoleDeleted", "deletedBy"),
    ("UserRoleAssigned", "assignedBy"),
    ("UserRoleRemoved", "removedBy"),
    ("PermissionCreated", "createdBy"),
    ("PermissionUpdated", "updatedBy"),
    ("PermissionDeleted", "deletedBy"),
    ("PermissionAssignedToRole", "assignedBy"),
    ("PermissionRemovedFromRole", "removedBy"),
];

/// The audit domain's applied events.
#[derive(Default)]
pub struct Trail {
    events: Vec<Event>,
    /// By user, each deletion: whether it is a hard one, and when it happened.
    deletions: BTreeMap<String, Vec<(bool, DateTime<Utc>)>>,
    users: BTreeSet<String>,
    roles: BTreeSet<String>,
}

/// Which entries a list holds.
#[derive(Debug, Default, Clone)]
pub struct Filters {
    /// By the name of a parameter, which is that of a field of the entry, the value.
    pub equal: BTreeMap<&'static str, String>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
}

impl View for Trail {
    fn domain(&self) -> &'static str {
        "audit"
    }

    fn wants(&self, event: &str) -> bool {
        event == UNKNOWN
            || ACCOUNT.contains(&event)
            || AUTHENTICATION.contains(&event)
            || is_about_access(event)
    }

    fn parks(&self, event: Option<&str>) -> bool {
        event.is_some_and(is_about_access)
    }

    fn apply(&mut self, event: &Event) {
        self.users.extend(event.user());
        self.roles.extend(event.known_text("roleId"));
        if event.name == "UserDeleted" {
            let is_hard = event.text("deletionType").as_deref() == Some("hard");
            let deletions = self.deletions.entry(event.user().expect("required"));
            deletions.or_default().push((is_hard, event.occurred_at));
        }
        self.events.push(event.clone());
    }
}

fn is_about_access(event: &str) -> bool {
    AUTHORIZATION.iter().any(|(name, _)| *name == event)
}

impl Filters {
    /// Whether a list with these filters has this entry.
    pub fn allow(&self, entry: &Value) -> bool {
        let at = || -> DateTime<Utc> {
            let at = entry["occurredAt"].as_str().expect("text");
            at.parse().expect("a time")
        };
        self.equal
            .iter()
            .all(|(name, value)| entry[*name] == **value)
            && self.from.is_none_or(|from| from <= at())
            && self.to.is_none_or(|to| at() < to)
    }
}

impl Trail {
    /// All entries, the newest first, as they read at an instant. Without what the fold does not know: `topic` and
    /// `recordedAt`. `offset` counts the records of the partition.
    pub fn entries(&self, now: DateTime<Utc>) -> Vec<Value> {
        self.listed(self.events.iter(), now)
    }

    /// A user's entries, the same way.
    pub fn entries_of(&self, user: &str, now: DateTime<Utc>) -> Vec<Value> {
        let is_of_user = |event: &&Event| event.user().as_deref() == Some(user);
        self.listed(self.events.iter().filter(is_of_user), now)
    }

    fn listed<'e>(
        &'e self,
        events: impl Iterator<Item = &'e Event>,
        now: DateTime<Utc>,
    ) -> Vec<Value> {
        let mut events: Vec<&Event> = events.collect();
        let order = |event: &&Event| (event.occurred_at, event.partition, event.number);
        events.sort_by_key(order);
        let newest_first = events.into_iter().rev();
        newest_first.map(|event| self.entry(event, now)).collect()
    }

    /// The ids of all users that entries name.
    pub fn users(&self) -> Vec<String> {
        self.users.iter().cloned().collect()
    }

    /// The ids of all roles that entries name.
    pub fn roles(&self) -> Vec<String> {
        self.roles.iter().cloned().collect()
    }

    /// Whether what a user's entries hold does not change about this time.
    pub fn is_settled(&self, user: &str, now: DateTime<Utc>) -> bool {
        self.is_erased(user, now - MARGIN) == self.is_erased(user, now + MARGIN)
    }

    fn is_erased(&self, user: &str, now: DateTime<Utc>) -> bool {
        let mut deletions = self.deletions.get(user).into_iter().flatten();
        deletions.any(|(is_hard, at)| *is_hard || *at + RETENTION <= now)
    }

    fn entry(&self, event: &Event, now: DateTime<Utc>) -> Value {
        let user = event.user();
        let name = match event.name {
            UNKNOWN => &event.written_type,
            name => name,
        };
        let action = match event.name {
            UNKNOWN => event.written_type.clone(),
            name => snake_case(name),
        };
        let mut entry = json!({
            "eventId": event.id, "type": name, "category": category(event.name), "action": action,
            "outcome": outcome(event.name), "occurredAt": instant(event.occurred_at),
            "partition": event.partition, "offset": event.number,
        });
        let reason = match event.name {
            "UserAccountStatusChanged" | "UserLoginFailed" => event.text("reason"),
            _ => None,
        };
        let is_erased = user.as_ref().is_some_and(|user| self.is_erased(user, now));
        let personal = |field| event.known_text(field).filter(|_| !is_erased);
        for (field, value) in [
            ("version", event.version.clone()),
            ("reason", reason),
            ("actor", actor(event)),
            ("roleId", event.known_text("roleId")),
            ("permissionId", event.known_text("permissionId")),
            ("ipAddress", personal("ipAddress")),
            ("userAgent", personal("userAgent")),
            ("correlationId", event.correlation_id.clone()),
            ("userId", user),
        ] {
            if let Some(value) = value {
                entry[field] = json!(value);
            }
        }
        let changes = changes(event, is_erased);
        if !changes.is_empty() {
            entry["changes"] = json!(changes);
        }
        entry
    }
}

/// By the headings of the catalogue.
fn category(event: &str) -> &'static str {
    if ACCOUNT.contains(&event) {
        "account"
    } else if AUTHENTICATION.contains(&event) {
        "authentication"
    } else if is_about_access(event) {
        "authorization"
    } else {
        "unknown"
    }
}

fn outcome(event: &str) -> &'static str {
    match event {
        "UserLoginFailed" | "MfaChallengeFailed" => "failure",
        _ => "success",
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The kind of account that logins are of.
const USER_ID: &str = "attemptedUserId";

/// An account's kind, and its name.
type Account = (&'static str, String);

/// The account of a failed login.
fn account(event: &Event) -> Option<Account> {
    let kinds = [USER_ID, "attemptedEmail", "attemptedUsername"];
    kinds
        .into_iter()
        .find_map(|kind| Some((kind, event.text(kind)?)))
}

fn actor(event: &Event) -> Option<String> {
    if let Some((_, by)) = AUTHORIZATION.iter().find(|(name, _)| *name == event.name) {
        return event.text(by);
    }
    let other = match event.name {
        "UserLoginFailed" => return account(event).map(|(_, name)| name),
        "UserAccountStatusChanged" => event.text("changedBy"),
        "MfaStatusChanged" => event.text("changedBy").filter(|by| by != "user"),
        _ => None,
    };
    other.or_else(|| event.user())
}

/// One for each name, in order.
fn changes(event: &Event, is_erased: bool) -> Vec<Value> {
    let mut changes: BTreeMap<String, Value> = BTreeMap::new();
    for (field, to) in event.changes().expect("good") {
        let mut change = json!({"field": field});
        if !is_erased {
            if let Some(old) = event.old(&field) {
                change["old"] = old;
            }
            if let Change::To(new) = to {
                change["new"] = readable(&new);
            }
        }
        changes.entry(field).or_insert(change);
    }
    changes.into_values().collect()
}

/// An event in a window.
type Seen = (DateTime<Utc>, String);

/// The start of the window in which an instant lies, in microseconds.
fn window(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros().div_euclid(WINDOW) * WINDOW
}

impl Trail {
    /// All alerts, in the order of their list. Where accounts of different kinds have one name, which comes first is not said.
    pub fn alerts(&self) -> Vec<Value> {
        // By key and window; accounts have a kind, too.
        let mut failures: BTreeMap<(Account, i64), Vec<Seen>> = BTreeMap::new();
        let mut from_ip: BTreeMap<(String, i64), (BTreeSet<Account>, Vec<Seen>)> = BTreeMap::new();
        let mut challenges: BTreeMap<(String, i64), Vec<Seen>> = BTreeMap::new();
        let mut logins: BTreeMap<(String, i64), Vec<Seen>> = BTreeMap::new();
        for event in &self.events {
            let seen = (event.occurred_at, event.id.clone());
            let window = window(event.occurred_at);
            let user = || event.text("userId").expect("required");
            match event.name {
                "UserLoginFailed" => {
                    let Some(account) = account(event) else {
                        continue;
                    };
                    if let Some(ip) = event.text("ipAddress") {
                        let (accounts, events) = from_ip.entry((ip, window)).or_default();
                        accounts.insert(account.clone());
                        events.push(seen.clone());
                    }
                    failures.entry((account, window)).or_default().push(seen);
                }
                "MfaChallengeFailed" => challenges.entry((user(), window)).or_default().push(seen),
                "UserLoggedIn" => logins.entry((user(), window)).or_default().push(seen),
                _ => {}
            }
        }
        let mut alerts = Vec::new();
        for (((kind, name), window), events) in failures {
            if events.len() < BRUTE_FORCE {
                continue;
            }
            let place = (name, window);
            if let Some(logins) = logins.get(&place).filter(|_| kind == USER_ID) {
                alerts.push((3, place.clone(), logins.len(), logins.clone()));
            }
            alerts.push((0, place, events.len(), events));
        }
        for (place, (accounts, events)) in from_ip {
            if accounts.len() >= CREDENTIAL_STUFFING {
                alerts.push((1, place, accounts.len(), events));
            }
        }
        for (place, events) in challenges {
            if events.len() >= MFA_FATIGUE {
                alerts.push((2, place, events.len(), events));
            }
        }
        alerts.sort_by(
            |(kind, (key, start), ..), (other_kind, (other_key, other_start), ..)| {
                let order = other_start.cmp(start).then(kind.cmp(other_kind));
                order.then(key.cmp(other_key))
            },
        );
        let to_json = |(kind, (key, start), count, mut events): (usize, _, _, Vec<Seen>)| {
            events.sort();
            let at = |micros| instant(DateTime::from_timestamp_micros(micros).expect("in range"));
            let ids: Vec<&String> = events.iter().map(|(_, id)| id).take(NAMED).collect();
            json!({
                "kind": KINDS[kind], "key": key, "windowStart": at(start), "windowEnd": at(start + WINDOW),
                "count": count, "firstEventAt": instant(events[0].0),
                "lastEventAt": instant(events[events.len() - 1].0), "eventIds": ids,
            })
        };
        alerts.into_iter().map(to_json).collect()
    }

    /// Who may do what, as of a time; `None` for now.
    pub fn standing(&self, as_of: Option<DateTime<Utc>>) -> Standing<'_> {
        let counts = |event: &&Event| {
            let is_deletion = event.name == "UserDeleted";
            let then = as_of.is_none_or(|as_of| event.occurred_at <= as_of);
            then && (is_deletion || is_about_access(event.name))
        };
        let mut standing = Standing {
            trail: self,
            deleted_users: BTreeSet::new(),
            lives: BTreeMap::new(),
            held: BTreeMap::new(),
            given: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        self.events
            .iter()
            .filter(counts)
            .for_each(|event| standing.add(event));
        standing
    }
}

/// The kinds of alerts, in their order.
pub const KINDS: [&str; 4] = [
    "brute_force",
    "credential_stuffing",
    "mfa_fatigue",
    "login_after_failures",
];

/// Whether an event is the role's or permission's own, what it says, and the event. It says nothing if it clears the field.
type Said<'e> = (bool, Option<String>, &'e Event);

/// Who may do what, as of a time.
pub struct Standing<'e> {
    trail: &'e Trail,
    deleted_users: BTreeSet<String>,
    /// By the name of the field that identifies it and by its id, when a role or a permission was created and deleted.
    lives: BTreeMap<(&'static str, String), Vec<&'e Event>>,
    /// By role and user, its assignments and removals.
    held: BTreeMap<(String, String), Vec<&'e Event>>,
    /// By role and permission, the same.
    given: BTreeMap<(String, String), Vec<&'e Event>>,
    /// By field and id, every event that says a name or description.
    names: BTreeMap<(&'static str, String), Vec<Said<'e>>>,
}

const ROLE: &str = "roleId";
const PERMISSION: &str = "permissionId";

impl<'e> Standing<'e> {
    fn add(&mut self, event: &'e Event) {
        let id = |name| event.known_text(name).expect("required");
        let mut pair = |kind, field| {
            let pairs = if kind == ROLE {
                &mut self.held
            } else {
                &mut self.given
            };
            pairs.entry((id(ROLE), field)).or_default().push(event);
        };
        match event.name {
            "UserDeleted" => {
                self.deleted_users.insert(id("userId"));
                return;
            }
            "UserRoleAssigned" | "UserRoleRemoved" => pair(ROLE, id("userId")),
            "PermissionAssignedToRole" | "PermissionRemovedFromRole" => {
                pair(PERMISSION, id(PERMISSION))
            }
            "RoleCreated" => {
                let ids = BTreeSet::from_iter(event.initial_permissions());
                ids.into_iter().for_each(|id| pair(PERMISSION, id));
            }
            _ => {}
        }
        if let "RoleCreated" | "RoleDeleted" = event.name {
            self.lives.entry((ROLE, id(ROLE))).or_default().push(event);
        }
        if let "PermissionCreated" | "PermissionDeleted" = event.name {
            let of = (PERMISSION, id(PERMISSION));
            self.lives.entry(of).or_default().push(event);
        }
        self.learn(event);
    }

    /// Takes what an event says of names and descriptions.
    fn learn(&mut self, event: &'e Event) {
        let (kind, name) = match event.name {
            "RoleCreated" | "RoleUpdated" | "RoleDeleted" | "UserRoleAssigned"
            | "UserRoleRemoved" => (ROLE, "roleName"),
            _ => (PERMISSION, "permissionName"),
        };
        let id = event.known_text(kind).expect("required");
        let mut says = |field, is_own, text: Option<String>| {
            let said = self.names.entry((field, id.clone())).or_default();
            said.push((is_own, text, event));
        };
        if let "RoleUpdated" | "PermissionUpdated" = event.name {
            for (field, change) in event.changes().expect("good") {
                let text = match change {
                    Change::To(value) => super::event::text(&value),
                    Change::Cleared => None,
                    Change::Unknown => continue,
                };
                if field == name {
                    says(name, true, text);
                } else if field == "description" && kind == ROLE {
                    says("description", true, text);
                }
            }
            return;
        }
        let is_own = !event.name.contains("Assigned") && !event.name.contains("Removed");
        says(name, is_own, event.text(name));
        let description = event.text("description");
        if event.name == "RoleCreated" && description.is_some() {
            says("description", true, description);
        }
    }

    /// A name or a description.
    fn said(&self, field: &'static str, id: &str) -> Option<String> {
        let said = self.names.get(&(field, id.to_owned()))?;
        let own = |(is_own, ..): &&Said<'_>| *is_own;
        let only_own = said.iter().any(|said| own(&said));
        let counted = said.iter().filter(|said| !only_own || own(said));
        let last = last_of(counted, |(.., event)| event)?;
        last.1.clone()
    }

    /// When a role or permission was deleted, if it is.
    fn deleted_at(&self, kind: &'static str, id: &str) -> Option<DateTime<Utc>> {
        let life = self.lives.get(&(kind, id.to_owned()))?;
        let last = last_of(life.iter(), |event| event)?;
        if !last.name.ends_with("Deleted") {
            return None;
        }
        // The first of the deletions that end the life in that partition.
        let of_partition = life
            .iter()
            .filter(|event| event.partition == last.partition);
        let mut of_partition: Vec<&&Event> = of_partition.collect();
        of_partition.sort_by_key(|event| std::cmp::Reverse(event.number));
        let deletions = of_partition.into_iter();
        let deletions = deletions.take_while(|event| event.name.ends_with("Deleted"));
        deletions.last().map(|event| event.occurred_at)
    }

    /// Whether the last event of a pair assigns while both sides are there, and no deletion of either has ended that since.
    fn is_assigned(&self, events: &[&Event], sides: &[(&'static str, &str)]) -> bool {
        let Some(last) = last_of(events.iter(), |event| event) else {
            return false;
        };
        let is_ended = |(kind, id): &(&'static str, &str)| {
            let life = self.lives.get(&(*kind, (*id).to_owned()));
            let life = life.map_or(&[][..], Vec::as_slice);
            let is_later = |event: &Event| precedence(event, last) == Ordering::Greater;
            let is_deletion = |event: &Event| event.name.ends_with("Deleted");
            let before = life.iter().filter(|event| !is_later(event));
            let was_gone = last_of(before, |event| event).is_some_and(|event| is_deletion(event));
            was_gone
                || life
                    .iter()
                    .any(|event| is_deletion(event) && is_later(event))
        };
        let is_gone = |(kind, id): &(&'static str, &str)| self.deleted_at(kind, id).is_some();
        !last.name.contains("Removed") && !sides.iter().any(is_ended) && !sides.iter().any(is_gone)
    }

    /// The ids of the users who hold a role.
    fn holders(&self, role: &str) -> Vec<String> {
        let pairs = self.held.iter().filter(|((of, _), _)| of == role);
        let held = pairs.filter(|((_, user), events)| {
            !self.deleted_users.contains(user) && self.is_assigned(events, &[(ROLE, role)])
        });
        held.map(|((_, user), _)| user.clone()).collect()
    }

    /// The ids of the permissions that a role gives.
    fn permissions(&self, role: &str) -> BTreeSet<String> {
        let pairs = self.given.iter().filter(|((of, _), _)| of == role);
        let given = pairs.filter(|((_, permission), events)| {
            self.is_assigned(events, &[(ROLE, role), (PERMISSION, permission)])
        });
        given
            .map(|((_, permission), _)| permission.clone())
            .collect()
    }

    fn named(&self, kind: &'static str, name: &'static str, ids: BTreeSet<String>) -> Vec<Value> {
        let to_json = |id: &String| {
            let mut json = json!({kind: id});
            if let Some(text) = self.said(name, id) {
                json[name] = json!(text);
            }
            json
        };
        ids.iter().map(to_json).collect()
    }

    /// The answer to `GET /v1/audit/users/{userId}/access`.
    pub fn user(&self, user: &str) -> Option<Value> {
        self.trail.users.get(user)?;
        let pairs = self.held.iter().filter(|((_, of), _)| of == user);
        let held = pairs.filter(|((role, _), events)| {
            !self.deleted_users.contains(user) && self.is_assigned(events, &[(ROLE, role)])
        });
        let roles: BTreeSet<String> = held.map(|((role, _), _)| role.clone()).collect();
        let permissions = roles
            .iter()
            .flat_map(|role| self.permissions(role))
            .collect();
        Some(json!({
            "roles": self.named(ROLE, "roleName", roles),
            "permissions": self.named(PERMISSION, "permissionName", permissions),
        }))
    }

    /// The answer to `GET /v1/audit/roles/{roleId}`.
    pub fn role(&self, role: &str) -> Option<Value> {
        self.trail.roles.get(role)?;
        let permissions = self.permissions(role);
        let mut json = json!({
            "roleId": role, "holders": self.holders(role),
            "permissions": self.named(PERMISSION, "permissionName", permissions),
        });
        for field in ["roleName", "description"] {
            if let Some(text) = self.said(field, role) {
                json[field] = json!(text);
            }
        }
        if let Some(at) = self.deleted_at(ROLE, role) {
            json["deletedAt"] = instant(at);
        }
        Some(json)
    }
}

impl Trail {
    /// When events about access, and deletions of users, happened.
    pub fn access_instants(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let about = |event: &&Event| is_about_access(event.name) || event.name == "UserDeleted";
        self.events
            .iter()
            .filter(about)
            .map(|event| event.occurred_at)
    }
}

/// Which of two events is the later one: in a partition the one behind the other, otherwise the one that happened later.
fn precedence(a: &Event, b: &Event) -> Ordering {
    if a.partition == b.partition {
        return a.number.cmp(&b.number);
    }
    let order = |event: &Event| (event.occurred_at, event.partition, event.number);
    order(a).cmp(&order(b))
}

/// The last: of each partition the last in its order, and of these the one that happened last.
fn last_of<'i, T>(
    items: impl Iterator<Item = &'i T>,
    event: impl Fn(&T) -> &Event,
) -> Option<&'i T> {
    let mut by_partition: BTreeMap<i32, &T> = BTreeMap::new();
    for item in items {
        let last = by_partition.entry(event(item).partition).or_insert(item);
        if event(item).number >= event(*last).number {
            *last = item;
        }
    }
    let last = by_partition.into_values();
    last.max_by(|a, b| precedence(event(a), event(b)))
}
