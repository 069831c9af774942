//! Compares the audit domain's answers with the reference fold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use sightline::proto::audit::v1::{
    GetRoleRequest, GetUserAccessRequest, ListAlertsRequest, ListEntriesRequest,
    VerifyEntriesRequest,
};

use super::{
    AT_ONCE, Compared, Depth, Differences, SAMPLED, called, called_pages, get, pages, partitions,
    refused, rows, some, written,
};
use crate::app::{Clients, SOON};
use crate::client::{
    Grpc, Rest, access_json, alerts_json, audit_number, entries_json, escape, role_json, timestamp,
    verification_json, with_query,
};
use crate::reference::{Filters, Folds, KINDS, Trail, normal};
use crate::wait_until;

const ENTRIES: &str = "/v1/audit/entries";
const ALERTS: &str = "/v1/audit/alerts";
const VERIFY: &str = "/v1/audit/entries:verify";

/// The filters by one value.
const EQUAL: [&str; 7] = [
    "userId",
    "actor",
    "roleId",
    "ipAddress",
    "category",
    "action",
    "outcome",
];

/// Small pages are read of lists of up to this many pages.
const SMALL_PAGES: usize = 12;

/// The path of a user's entries, as many as there may be on a page.
pub fn of_user_path(id: &str) -> String {
    with_query(ENTRIES, &[("userId", Some(id)), ("pageSize", Some("1000"))])
}

/// The path of a user's roles and permissions.
pub fn access_path(id: &str, as_of: Option<DateTime<Utc>>) -> String {
    let path = format!("/v1/audit/users/{}/access", escape(id));
    with_query(&path, &[("asOf", as_of.map(written).as_deref())])
}

/// The path of a role.
pub fn role_path(id: &str, as_of: Option<DateTime<Utc>>) -> String {
    let path = format!("/v1/audit/roles/{}", escape(id));
    with_query(&path, &[("asOf", as_of.map(written).as_deref())])
}

/// Entries without what the fold does not know: when they were recorded, and offsets in partitions with holes.
pub fn comparable(entries: Vec<Value>, has_offset: impl Fn(&Value) -> bool) -> Vec<Value> {
    let comparable = |mut entry: Value| {
        let recorded = entry["recordedAt"].as_str().map(str::to_owned);
        let is_time = |text: &String| text.parse::<DateTime<Utc>>().is_ok();
        assert!(recorded.is_some_and(|text| is_time(&text)), "{entry}");
        let has_offset = has_offset(&entry);
        let fields = entry.as_object_mut().expect("an object");
        fields.remove("recordedAt");
        if !has_offset {
            fields.remove("offset");
        }
        normal(entry)
    };
    entries.into_iter().map(comparable).collect()
}

/// The entries that the fold expects, and how those of the program are made comparable with them.
struct Expected<'v> {
    view: &'v Trail,
    /// By partition, its topic, and whether its records have the offsets that the fold counts.
    partitions: BTreeMap<i32, (String, bool)>,
    /// The newest first.
    entries: Vec<Value>,
}

impl Expected<'_> {
    async fn new<'v>(rest: &Rest, view: &'v Trail) -> Expected<'v> {
        let lag = rest.answered("/v1/consistency").await.json();
        let domains = lag["domains"].as_array().expect("a list").clone();
        let audit = domains
            .into_iter()
            .find(|domain| domain["domain"] == "audit");
        let of = |partition: &Value| {
            let topic = partition["topic"].as_str().expect("text").to_owned();
            (topic, partition["position"] == partition["read"])
        };
        let partitions = partitions(&audit.expect("the domain"));
        let partitions = partitions.iter().map(|(n, partition)| (*n, of(partition)));
        let mut expected = Expected {
            view,
            partitions: partitions.collect(),
            entries: Vec::new(),
        };
        let complete = |mut entry: Value| {
            let (topic, has_offset) = expected.of(&entry);
            entry["topic"] = json!(topic);
            if !has_offset {
                entry.as_object_mut().expect("an object").remove("offset");
            }
            normal(entry)
        };
        let entries = view.entries(now()).into_iter().map(complete);
        expected.entries = entries.filter(|entry| expected.is_settled(entry)).collect();
        expected
    }

    fn of(&self, entry: &Value) -> (String, bool) {
        let partition = entry["partition"].as_i64().expect("a number") as i32;
        self.partitions.get(&partition).cloned().unwrap_or_default()
    }

    /// Whether it is sure what an entry holds just now.
    fn is_settled(&self, entry: &Value) -> bool {
        let user = entry["userId"].as_str();
        user.is_none_or(|user| self.view.is_settled(user, now()))
    }

    fn comparable(&self, said: Vec<Value>) -> Vec<Value> {
        let settled = said.into_iter().filter(|entry| self.is_settled(entry));
        comparable(settled.collect(), |entry| self.of(entry).1)
    }

    fn list(&self, filters: Filters) -> List<'_> {
        let rows = self.entries.iter().filter(|entry| filters.allow(entry));
        List {
            expected: self,
            rows: rows.collect(),
            filters,
        }
    }
}

/// A list of entries, and the rows that it must have.
struct List<'v> {
    expected: &'v Expected<'v>,
    filters: Filters,
    rows: Vec<&'v Value>,
}

impl List<'_> {
    fn listed(&self, how: String, said: Vec<Value>) -> Listed {
        Listed {
            how,
            said: self.expected.comparable(said),
            expected: self.rows.iter().copied().cloned().collect(),
        }
    }
}

/// The rows that a list said, and those that are expected.
struct Listed {
    how: String,
    said: Vec<Value>,
    expected: Vec<Value>,
}

/// Compares what these futures return, many at once.
async fn compare_lists(
    asked: impl IntoIterator<Item = impl Future<Output = Listed>>,
    wrong: &mut Differences,
) {
    let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some(listed) = asked.next().await {
        let (said, expected) = (listed.said.iter(), listed.expected.iter());
        wrong.compare_lists(&listed.how, said, expected);
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, grpc, view) = (&clients.rest, &clients.grpc, folds.view::<Trail>());
    let expected = &Expected::new(rest, view).await;
    until_erased(rest, expected).await;
    let all = &expected.list(Filters::default());
    compare_lists([get_list(rest, all, 1000)], wrong).await;
    compare_verification(clients, expected.entries.len(), wrong).await;
    let alerts = view.alerts();
    compare_alerts(clients, &alerts, depth, wrong).await;
    compare_access(clients, view, depth, wrong).await;
    if depth == Depth::Thorough {
        let filters = filters(expected).into_iter();
        let lists: Vec<List<'_>> = filters.map(|filters| expected.list(filters)).collect();
        compare_lists(lists.iter().map(|list| get_list(rest, list, 1000)), wrong).await;
        for size in [1, 7] {
            let few = |list: &&List<'_>| list.rows.len() <= SMALL_PAGES * size;
            let small = lists.iter().filter(few);
            compare_lists(small.map(|list| get_list(rest, list, size)), wrong).await;
        }
        compare_lists([get_list(rest, all, 97)], wrong).await;
        compare_lists([call_list(grpc, all, 300)], wrong).await;
        let called = some(&lists, SAMPLED);
        compare_lists(called.map(|list| call_list(grpc, list, 500)), wrong).await;
        compare_lists([export(rest, all)], wrong).await;
        compare_refusals(rest, grpc, wrong).await;
    }
}

/// Waits until what entries hold of deleted users is erased.
async fn until_erased(rest: &Rest, expected: &Expected<'_>) {
    let personal = |entry: &Value| {
        let changes = entry["changes"].as_array();
        let has_value = |change: &Value| change.get("old").or(change.get("new")).is_some();
        let has_values = changes.is_some_and(|changes| changes.iter().any(has_value));
        has_values || entry.get("ipAddress").or(entry.get("userAgent")).is_some()
    };
    let is_more = |said: &[Value]| {
        let expected = expected
            .entries
            .iter()
            .filter(|entry| personal(entry))
            .count();
        said.iter().filter(|entry| personal(entry)).count() > expected
    };
    let read = wait_until(SOON, "deleted users are erased", async || {
        let said = expected.comparable(pages(rest, ENTRIES, &[], "entries", 1000).await);
        match is_more(&said) {
            true => Err("an entry holds what is personal".to_owned()),
            false => Ok(()),
        }
    });
    // If that is in vain, the comparison shows where.
    let _ = tokio::time::timeout(SOON / 2, read).await;
}

/// Lists by each filter, and by several together.
fn filters(expected: &Expected<'_>) -> Vec<Filters> {
    let entries = &expected.entries;
    let equal = |name: &'static str, value: &str| Filters {
        equal: BTreeMap::from([(name, value.to_owned())]),
        ..Filters::default()
    };
    let mut filters = Vec::new();
    for name in EQUAL {
        let values: BTreeSet<&str> = entries.iter().filter_map(|e| e[name].as_str()).collect();
        let values: Vec<&str> = values.into_iter().collect();
        filters.extend(some(&values, SAMPLED / 2).map(|value| equal(name, value)));
        if !["category", "outcome"].contains(&name) {
            filters.push(equal(name, "unheard"));
        }
    }
    // The most frequent values fill several pages.
    for name in ["userId", "actor", "ipAddress", "roleId"] {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for value in entries.iter().filter_map(|entry| entry[name].as_str()) {
            *counts.entry(value).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        filters.extend(most.map(|(value, _)| equal(name, value)));
    }
    let at = |entry: &Value| -> DateTime<Utc> {
        let written = entry["occurredAt"].as_str().expect("text");
        written.parse().expect("a time")
    };
    let tick = TimeDelta::microseconds(1);
    let between = |from, to| Filters {
        from,
        to,
        ..Filters::default()
    };
    for (n, entry) in some(entries, 8).enumerate() {
        let at = at(entry);
        filters.push(match n % 4 {
            0 => between(Some(at), None),
            1 => between(None, Some(at)),
            2 => between(Some(at), Some(at + tick)),
            _ => between(Some(at - TimeDelta::days(20)), Some(at)),
        });
    }
    // All filters that an entry meets, two of them, and with a time that lets it pass or not.
    for (n, entry) in some(entries, 2 * SAMPLED).enumerate() {
        let has = EQUAL
            .into_iter()
            .filter_map(|name| Some((name, entry[name].as_str()?)));
        let has: Vec<(&'static str, &str)> = has.collect();
        let mut both = has.clone();
        let first = n % has.len();
        both.rotate_left(first);
        both.truncate(if n % 10 == 0 { both.len() } else { 2 });
        let equal = both
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()));
        let at = at(entry);
        let (from, to) = match n % 5 {
            0 => (Some(at), None),
            1 => (None, Some(at + tick)),
            2 => (Some(at - TimeDelta::days(60)), Some(at)),
            _ => (None, None),
        };
        filters.push(Filters {
            equal: equal.collect(),
            from,
            to,
        });
    }
    // A user's own doings: the actor is the user.
    for user in some(&expected.view.users(), 6) {
        let both = [("userId", user.clone()), ("actor", user.clone())];
        filters.push(Filters {
            equal: BTreeMap::from(both),
            ..Filters::default()
        });
    }
    filters
}

async fn get_list(rest: &Rest, list: &List<'_>, size: usize) -> Listed {
    let filters = &list.filters;
    let times = [("from", filters.from), ("to", filters.to)];
    let times = times.map(|(name, at)| (name, at.map(written)));
    let mut query: Vec<(&str, Option<&str>)> = Vec::new();
    query.extend(
        filters
            .equal
            .iter()
            .map(|(name, value)| (*name, Some(&**value))),
    );
    query.extend(times.iter().map(|(name, at)| (*name, at.as_deref())));
    let said = pages(rest, ENTRIES, &query, "entries", size).await;
    let how = format!("GET {ENTRIES} {filters:?}, pages of {size}");
    list.listed(how, said)
}

async fn call_list(grpc: &Grpc, list: &List<'_>, page_size: i32) -> Listed {
    let filters = &list.filters;
    let text = |name: &str| filters.equal.get(name).cloned();
    let number = |name: &str| text(name).map(|word| audit_number(name, &word));
    let pages = called_pages("entries", async |page_token| {
        let request = ListEntriesRequest {
            user_id: text("userId"),
            actor: text("actor"),
            role_id: text("roleId"),
            ip_address: text("ipAddress"),
            category: number("category"),
            action: text("action"),
            outcome: number("outcome"),
            from: filters.from.map(timestamp),
            to: filters.to.map(timestamp),
            page_size,
            page_token,
        };
        let answer = grpc.audit().list_entries(request).await;
        called(answer, entries_json)
    });
    let said = rows(pages.await, "entries");
    list.listed(format!("ListEntries {filters:?}"), said)
}

/// All entries as NDJSON.
async fn export(rest: &Rest, all: &List<'_>) -> Listed {
    let accept = [("accept", "application/x-ndjson")];
    let answer = rest.send(Method::GET, ENTRIES, &accept, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.is_empty());
    let said = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    let how = format!("GET {ENTRIES} as NDJSON");
    all.listed(how, said.collect())
}

/// All chains must be whole, also up to the head of a former answer.
async fn compare_verification(clients: &Clients, entries: usize, wrong: &mut Differences) {
    let verify = async |body: Value| {
        wait_until(SOON, VERIFY, async || {
            let answer = clients.rest.post(VERIFY, &body).await;
            match answer.status {
                503 => Err(answer.text()),
                200 => Ok(answer.json()),
                status => Ok(json!({"status": status, "body": answer.text()})),
            }
        })
        .await
    };
    let first = verify(json!({})).await;
    let head = first["head"].as_str().map(str::to_owned);
    let keyed = first["keyed"].as_bool();
    let expected = json!({"valid": true, "entriesChecked": entries, "keyed": keyed, "head": head});
    let how = |what: &str| format!("{what} of {entries} entries");
    wrong.compare(Compared::new(
        how(&format!("POST {VERIFY}")),
        first,
        Some(expected.clone()),
    ));
    let again = verify(json!({"expectedHead": head})).await;
    wrong.compare(Compared::new(
        how("the same with the head"),
        again,
        Some(expected.clone()),
    ));
    let request = VerifyEntriesRequest {
        expected_head: head,
    };
    let answer = clients.grpc.audit().verify_entries(request).await;
    let said = match answer {
        Ok(answer) => verification_json(answer.into_inner()),
        Err(status) => json!({"code": status.code() as i32, "message": status.message()}),
    };
    wrong.compare(Compared::new(how("VerifyEntries"), said, Some(expected)));
}

/// Which alerts a list holds.
#[derive(Debug, Clone, Default)]
struct Kept {
    kind: Option<&'static str>,
    key: Option<String>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

impl Kept {
    fn listed(&self, how: String, said: Vec<Value>, alerts: &[Value]) -> Listed {
        let is_kept = |alert: &&Value| {
            let start = window_start(alert);
            self.kind.is_none_or(|kind| alert["kind"] == kind)
                && self.key.as_ref().is_none_or(|key| alert["key"] == **key)
                && self.from.is_none_or(|from| from <= start)
                && self.to.is_none_or(|to| start < to)
        };
        Listed {
            how,
            said: in_one_order(said.into_iter().map(normal).collect()),
            expected: in_one_order(alerts.iter().filter(is_kept).cloned().map(normal).collect()),
        }
    }
}

/// Alerts of one kind, window and key are of accounts of different kinds. They stand side by side, in any order.
fn in_one_order(mut alerts: Vec<Value>) -> Vec<Value> {
    let place = |alert: &Value| ["windowStart", "kind", "key"].map(|name| alert[name].clone());
    for of_one_place in alerts.chunk_by_mut(|a, b| place(a) == place(b)) {
        of_one_place.sort_by_cached_key(|alert| alert["eventIds"].to_string());
    }
    alerts
}

fn window_start(alert: &Value) -> DateTime<Utc> {
    let start = alert["windowStart"].as_str().expect("text");
    start.parse().expect("a time")
}

async fn compare_alerts(
    clients: &Clients,
    alerts: &[Value],
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, grpc) = (&clients.rest, &clients.grpc);
    let all = Kept::default();
    compare_lists([list_alerts(rest, alerts, all.clone(), 1000)], wrong).await;
    if depth == Depth::Brief {
        return;
    }
    let mut kept = vec![all];
    kept.extend(KINDS.map(|kind| Kept {
        kind: Some(kind),
        ..Kept::default()
    }));
    let tick = TimeDelta::microseconds(1);
    let unheard = json!({"key": "unheard", "windowStart": "2026-01-01T00:00:00Z"});
    let some: Vec<&Value> = some(alerts, 12).chain([&unheard]).collect();
    for (n, alert) in some.into_iter().enumerate() {
        let key = alert["key"].as_str().map(str::to_owned);
        let kind = KINDS[n % 4];
        let start = window_start(alert);
        kept.push(Kept {
            key: key.clone(),
            ..Kept::default()
        });
        kept.push(Kept {
            kind: Some(kind),
            key,
            ..Kept::default()
        });
        let (from, to) = match n % 4 {
            0 => (Some(start), None),
            1 => (Some(start + tick), None),
            2 => (None, Some(start)),
            _ => (Some(start), Some(start + tick)),
        };
        let kind = (n % 3 == 0).then_some(kind);
        let key = None;
        kept.push(Kept {
            kind,
            key,
            from,
            to,
        });
    }
    let whole = kept.iter().cloned();
    compare_lists(
        whole.map(|kept| list_alerts(rest, alerts, kept, 1000)),
        wrong,
    )
    .await;
    let small = kept.iter().cloned();
    compare_lists(small.map(|kept| list_alerts(rest, alerts, kept, 3)), wrong).await;
    let called = kept.into_iter();
    compare_lists(called.map(|kept| call_alerts(grpc, alerts, kept, 7)), wrong).await;
}

async fn list_alerts(rest: &Rest, alerts: &[Value], kept: Kept, size: usize) -> Listed {
    let (from, to) = (kept.from.map(written), kept.to.map(written));
    let query = [
        ("kind", kept.kind),
        ("key", kept.key.as_deref()),
        ("from", from.as_deref()),
        ("to", to.as_deref()),
    ];
    let said = pages(rest, ALERTS, &query, "alerts", size).await;
    kept.listed(
        format!("GET {ALERTS} {kept:?}, pages of {size}"),
        said,
        alerts,
    )
}

async fn call_alerts(grpc: &Grpc, alerts: &[Value], kept: Kept, page_size: i32) -> Listed {
    let pages = called_pages("alerts", async |page_token| {
        let request = ListAlertsRequest {
            kind: kept.kind.map(|kind| audit_number("kind", kind)),
            key: kept.key.clone(),
            from: kept.from.map(timestamp),
            to: kept.to.map(timestamp),
            page_size,
            page_token,
        };
        called(grpc.audit().list_alerts(request).await, alerts_json)
    });
    let said = rows(pages.await, "alerts");
    kept.listed(format!("ListAlerts {kept:?}"), said, alerts)
}

/// Users and roles now and at instants, which are the same for all of them, because of each the whole fold is asked.
async fn compare_access(clients: &Clients, view: &Trail, depth: Depth, wrong: &mut Differences) {
    let (rest, grpc) = (&clients.rest, &clients.grpc);
    let nobody = ["nobody".to_owned()];
    let users = [&view.users()[..], &nobody].concat();
    let roles = [&view.roles()[..], &nobody].concat();
    for (n, as_of) in instants(view, depth).into_iter().enumerate() {
        let standing = &view.standing(as_of);
        let held = users.iter().filter(|user| {
            let answer = standing.user(user);
            answer.is_some_and(|answer| answer["roles"] != json!([]))
        });
        let sample = some(&users[n % users.len()..], SAMPLED);
        let asked: BTreeSet<&String> = sample.chain(held).chain(users.last()).collect();
        let get_users = asked
            .iter()
            .map(|user| get(rest, access_path(user, as_of), standing.user(user)));
        wrong.compare_all(get_users).await;
        let get_roles = roles
            .iter()
            .map(|role| get(rest, role_path(role, as_of), standing.role(role)));
        wrong.compare_all(get_roles).await;
        if depth == Depth::Thorough {
            let asked: Vec<&String> = asked.into_iter().collect();
            let call_users = some(&asked, 20).map(|user| async move {
                let request = GetUserAccessRequest {
                    user_id: (*user).clone(),
                    as_of: as_of.map(timestamp),
                };
                let answer = grpc.audit().get_user_access(request).await;
                let how = format!("GetUserAccess {user:?} {as_of:?}");
                Compared::new(how, called(answer, access_json), standing.user(user))
            });
            wrong.compare_all(call_users).await;
            let call_roles = some(&roles, 10).map(|role| async move {
                let request = GetRoleRequest {
                    role_id: role.clone(),
                    as_of: as_of.map(timestamp),
                };
                let answer = grpc.audit().get_role(request).await;
                let said = called(answer, |answer| role_json(answer.role.expect("a role")));
                let how = format!("GetRole {role:?} {as_of:?}");
                Compared::new(how, said, standing.role(role))
            });
            wrong.compare_all(call_roles).await;
        }
    }
}

/// Now, and an instant in the middle; thoroughly: also just before, at and just after several events.
fn instants(view: &Trail, depth: Depth) -> Vec<Option<DateTime<Utc>>> {
    // What lies ahead is refused.
    let times = view.access_instants().filter(|at| *at <= now());
    let times: BTreeSet<DateTime<Utc>> = times.collect();
    let times: Vec<DateTime<Utc>> = times.into_iter().collect();
    let Some(last) = times.last() else {
        return vec![None, Some(DateTime::UNIX_EPOCH)];
    };
    let mut instants = vec![None, Some(times[times.len() / 2])];
    if depth == Depth::Thorough {
        let tick = TimeDelta::microseconds(1);
        for part in 1..6 {
            let at = times[times.len() * part / 6];
            instants.push(Some(at + tick * (part as i32 % 3 - 1)));
        }
        instants.extend([Some(times[0] - tick), Some(*last)]);
    }
    instants
}

async fn compare_refusals(rest: &Rest, grpc: &Grpc, wrong: &mut Differences) {
    let long = "x".repeat(256);
    for (name, value) in [
        ("category", "unheard"),
        ("category", "Account"),
        ("category", ""),
        ("outcome", "failed"),
        ("outcome", ""),
        ("from", "yesterday"),
        ("to", "2026-01-01"),
        ("userId", ""),
        ("userId", &long),
        ("roleId", &long),
        ("pageSize", "many"),
        ("pageToken", "unheard"),
        ("permissionId", "p"),
        ("reason", "because"),
    ] {
        let path = with_query(ENTRIES, &[("action", Some("unheard")), (name, Some(value))]);
        wrong.compare(refused(rest, path, name).await);
    }
    for (name, value) in [
        ("kind", "unheard"),
        ("kind", "Brute_force"),
        ("kind", ""),
        ("from", "yesterday"),
        ("userId", "u"),
    ] {
        let path = with_query(ALERTS, &[(name, Some(value))]);
        wrong.compare(refused(rest, path, name).await);
    }
    let ahead = now() + TimeDelta::hours(1);
    for path in [
        access_path("nobody", Some(ahead)),
        role_path("nobody", Some(ahead)),
    ] {
        wrong.compare(refused(rest, path, "asOf").await);
    }
    wrong.compare(refused(rest, "/v1/audit/roles/r?asOf=yesterday".into(), "asOf").await);
    // A page token belongs to the filters that it was made with.
    let first = with_query(ENTRIES, &[("pageSize", Some("1"))]);
    let first = rest.answered(&first).await.json();
    if let Some(token) = first["nextPageToken"].as_str() {
        let query = [("pageToken", Some(token)), ("outcome", Some("failure"))];
        wrong.compare(refused(rest, with_query(ENTRIES, &query), "pageToken").await);
    }
    for number in [-1, 99] {
        let request = ListEntriesRequest {
            category: Some(number),
            ..ListEntriesRequest::default()
        };
        let answer = grpc.audit().list_entries(request).await;
        wrong.compare(invalid(format!("ListEntries, category {number}"), answer));
        let request = ListAlertsRequest {
            kind: Some(number),
            ..ListAlertsRequest::default()
        };
        let answer = grpc.audit().list_alerts(request).await;
        wrong.compare(invalid(format!("ListAlerts, kind {number}"), answer));
    }
}

/// A call that must be refused as invalid.
fn invalid<T>(how: String, answer: Result<tonic::Response<T>, tonic::Status>) -> Compared {
    let code = answer.err().map(|status| status.code() as i32);
    let expected = json!({"code": tonic::Code::InvalidArgument as i32});
    Compared::new(how, json!({"code": code}), Some(expected))
}
