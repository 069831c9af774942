//! Compares the notification domain's answers with the reference fold. No worker leases anything meanwhile.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sightline::proto::notification::v1::{
    GetNotificationRequest, ListNotificationsRequest, NotificationStatus, Template,
};

use super::{
    AT_ONCE, Compared, Depth, Differences, SAMPLED, called, called_pages, pages, refused, rows,
    said, some,
};
use crate::app::Clients;
use crate::client::{Grpc, Rest, escape, notification_json, notifications_json, with_query};
use crate::reference::{Folds, Notifications, TEMPLATES, Wanted, normal};

const LIST: &str = "/v1/notification/notifications";

const STATUSES: [&str; 7] = [
    "pending",
    "leased",
    "sent",
    "failed",
    "cancelled",
    "expired",
    "no_recipient",
];

/// Small pages are read of lists of up to this many pages.
const SMALL_PAGES: usize = 30;

/// The path of a user's notifications, as many as there may be on a page.
pub fn of_user_path(id: &str) -> String {
    with_query(LIST, &[("userId", Some(id)), ("pageSize", Some("1000"))])
}

/// The path of a notification.
pub fn notification_path(id: &str) -> String {
    format!("{LIST}/{}", escape(id))
}

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, grpc, view) = (&clients.rest, &clients.grpc, folds.view::<Notifications>());
    let ids = [view.ids(), strangers()].concat();
    let one = ids.iter().map(|id| get(rest, view, id));
    wrong.compare_all(one).await;
    let nobody = "nobody".to_owned();
    let users = [view.users(), vec![nobody]].concat();
    let of_users = users.iter().map(|user| of_user(user));
    compare_lists(of_users.map(|wanted| list(rest, view, wanted, 1000)), wrong).await;
    let wanted = wanted(view, &users, depth);
    let all = wanted.iter().cloned();
    compare_lists(all.map(|wanted| list(rest, view, wanted, 1000)), wrong).await;
    if depth == Depth::Thorough {
        for size in [1, 7] {
            let few = |wanted: &&Wanted| view.list(wanted, now()).len() <= SMALL_PAGES * size;
            let small = wanted.iter().filter(few).cloned();
            compare_lists(small.map(|wanted| list(rest, view, wanted, size)), wrong).await;
        }
        compare_lists([list(rest, view, Wanted::default(), 50)], wrong).await;
        let one = some(&ids, 2 * SAMPLED).map(|id| call_get(grpc, view, id));
        wrong.compare_all(one).await;
        let all = wanted.iter().cloned();
        compare_lists(all.map(|wanted| call_list(grpc, view, wanted, 300)), wrong).await;
        compare_refusals(rest, grpc, wrong).await;
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

/// Ids that no notification has.
fn strangers() -> Vec<String> {
    let zeros = "00000000-0000-0000-0000-000000000000";
    [zeros, "5bd2f9f3-7f7c-4a5e-9c1b-0d6f1f4a2e11"]
        .map(str::to_owned)
        .to_vec()
}

/// A user's notifications.
fn of_user(user: &str) -> Wanted {
    Wanted {
        user: Some(user.to_owned()),
        ..Wanted::default()
    }
}

/// Lists by each filter, and by several together.
fn wanted(view: &Notifications, users: &[String], depth: Depth) -> Vec<Wanted> {
    let by = |statuses: &[&'static str], templates: &[&'static str]| Wanted {
        statuses: statuses.to_vec(),
        templates: templates.to_vec(),
        ..Wanted::default()
    };
    let mut wanted = vec![Wanted::default()];
    wanted.extend(STATUSES.map(|status| by(&[status], &[])));
    wanted.extend(TEMPLATES.map(|template| by(&[], &[template])));
    if depth == Depth::Brief {
        return wanted;
    }
    for (n, template) in TEMPLATES.into_iter().enumerate() {
        wanted.extend(STATUSES.map(|status| by(&[status], &[template])));
        let (other, third) = (TEMPLATES[(n + 2) % 9], TEMPLATES[(n + 5) % 9]);
        let status = STATUSES[(3 * n + 4) % 7];
        wanted.push(by(&[], &[template, other]));
        wanted.push(by(&["pending", "no_recipient"], &[template, other, third]));
        wanted.push(by(&[status, "cancelled"], &[other, template]));
    }
    for (n, status) in STATUSES.into_iter().enumerate() {
        let other = STATUSES[(n + 4) % 7];
        wanted.push(by(&[status, other], &[]));
    }
    wanted.push(by(&STATUSES, &TEMPLATES));
    // Said twice.
    wanted.push(by(&["expired", "expired"], &["welcome", "welcome"]));
    // Of users with many notifications.
    let count = |user: &&String| view.list(&of_user(user), now()).len();
    let mut most: Vec<&String> = users.iter().collect();
    most.sort_by_cached_key(|user| std::cmp::Reverse(count(user)));
    for (n, user) in most.into_iter().take(12).enumerate() {
        let of_user = |filters: Wanted| Wanted {
            user: Some(user.clone()),
            ..filters
        };
        let (status, template) = (STATUSES[n % 7], TEMPLATES[n % 9]);
        wanted.push(of_user(by(&[], &[])));
        wanted.push(of_user(by(&[status], &[])));
        wanted.push(of_user(by(&["pending", "expired"], &[])));
        wanted.push(of_user(by(&[], &[template])));
        wanted.push(of_user(by(&["expired", status], &["welcome", template])));
    }
    wanted
}

/// An answer to a request for a notification, of which one of several may be right.
fn compared(how: String, view: &Notifications, id: &str, said: Value) -> Compared {
    let right: Vec<Value> = view.answers(id, now()).into_iter().map(normal).collect();
    let said = normal(said);
    let met = right.iter().find(|answer| **answer == said);
    let expected = met.or(right.first()).cloned();
    Compared::new(how, said, expected)
}

async fn get(rest: &Rest, view: &Notifications, id: &str) -> Compared {
    let path = notification_path(id);
    let answer = rest.answered(&path).await;
    assert!(!answer.token().is_empty(), "{path} without a token");
    compared(format!("GET {path}"), view, id, said(&answer))
}

async fn call_get(grpc: &Grpc, view: &Notifications, id: &str) -> Compared {
    let request = GetNotificationRequest {
        notification_id: id.to_owned(),
    };
    let answer = grpc.notification().get_notification(request).await;
    let said = called(answer, |answer| {
        notification_json(answer.notification.expect("a notification"))
    });
    compared(format!("GetNotification {id}"), view, id, said)
}

/// The rows that a list said, and those that are expected. Both are without notifications that have several right answers.
struct Listed {
    how: String,
    said: Vec<Value>,
    expected: Vec<Value>,
}

impl Listed {
    fn new(how: String, view: &Notifications, wanted: &Wanted, said: Vec<Value>) -> Listed {
        let now = now();
        let settled = |rows: Vec<Value>| -> Vec<Value> {
            let is_settled =
                |row: &Value| view.is_settled(row["notificationId"].as_str().expect("an id"), now);
            rows.into_iter().filter(is_settled).map(normal).collect()
        };
        Listed {
            how,
            said: settled(said),
            expected: settled(view.list(wanted, now)),
        }
    }
}

/// Compares what these futures return, many at once.
async fn compare_lists(
    asked: impl IntoIterator<Item = impl Future<Output = Listed>>,
    wrong: &mut Differences,
) {
    let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some(Listed {
        how,
        said,
        expected,
    }) = asked.next().await
    {
        wrong.compare_lists(&how, said.iter(), expected.iter());
    }
}

async fn list(rest: &Rest, view: &Notifications, wanted: Wanted, size: usize) -> Listed {
    let mut filters = vec![("userId", wanted.user.as_deref())];
    filters.extend(wanted.statuses.iter().map(|&word| ("status", Some(word))));
    filters.extend(
        wanted
            .templates
            .iter()
            .map(|&word| ("template", Some(word))),
    );
    let said = pages(rest, LIST, &filters, "notifications", size).await;
    let how = format!("GET {LIST} {wanted:?}, pages of {size}");
    Listed::new(how, view, &wanted, said)
}

async fn call_list(grpc: &Grpc, view: &Notifications, wanted: Wanted, page_size: i32) -> Listed {
    let number = |word: &&str| {
        let name = format!("NOTIFICATION_STATUS_{}", word.to_uppercase());
        NotificationStatus::from_str_name(&name).expect("a status") as i32
    };
    let status: Vec<i32> = wanted.statuses.iter().map(number).collect();
    let number = |word: &&str| {
        let name = format!("TEMPLATE_{}", word.to_uppercase());
        Template::from_str_name(&name).expect("a template") as i32
    };
    let template: Vec<i32> = wanted.templates.iter().map(number).collect();
    let pages = called_pages("notifications", async |page_token| {
        let request = ListNotificationsRequest {
            user_id: wanted.user.clone(),
            status: status.clone(),
            template: template.clone(),
            page_size,
            page_token,
        };
        let answer = grpc.notification().list_notifications(request).await;
        called(answer, notifications_json)
    });
    let said = rows(pages.await, "notifications");
    let how = format!("ListNotifications {wanted:?}");
    Listed::new(how, view, &wanted, said)
}

async fn compare_refusals(rest: &Rest, grpc: &Grpc, wrong: &mut Differences) {
    let long = "x".repeat(256);
    for (name, value) in [
        ("status", "unheard"),
        ("status", "PENDING"),
        ("status", "pending,expired"),
        ("status", ""),
        ("template", "unheard"),
        ("template", "Welcome"),
        ("template", ""),
        ("userId", ""),
        ("userId", &long),
        ("userId", "a\0"),
        ("pageSize", "many"),
        ("pageToken", "unheard"),
        ("recipient", "a@b.c"),
    ] {
        let path = with_query(LIST, &[("status", Some("expired")), (name, Some(value))]);
        wrong.compare(refused(rest, path, name).await);
    }
    for id in [
        "unheard",
        "0",
        " ",
        "5bd2f9f3-7f7c-4a5e-9c1b-0d6f1f4a2e1",
        "a\0",
    ] {
        let path = notification_path(id);
        wrong.compare(refused(rest, path, "notificationId").await);
        let request = GetNotificationRequest {
            notification_id: id.to_owned(),
        };
        let answer = grpc.notification().get_notification(request).await;
        wrong.compare(invalid(format!("GetNotification {id:?}"), answer));
    }
    for (status, template) in [(vec![0], vec![]), (vec![99], vec![]), (vec![1], vec![0])] {
        let request = ListNotificationsRequest {
            status,
            template,
            ..ListNotificationsRequest::default()
        };
        let how = format!("ListNotifications {request:?}");
        let answer = grpc.notification().list_notifications(request).await;
        wrong.compare(invalid(how, answer));
    }
    // A page token belongs to the filters that it was made with.
    let first = with_query(LIST, &[("pageSize", Some("1"))]);
    let first = rest.answered(&first).await.json();
    if let Some(token) = first["nextPageToken"].as_str() {
        let query = [("pageToken", Some(token)), ("status", Some("expired"))];
        wrong.compare(refused(rest, with_query(LIST, &query), "pageToken").await);
    }
}

/// A call that must be refused as invalid.
fn invalid<T>(how: String, answer: Result<tonic::Response<T>, tonic::Status>) -> Compared {
    let code = answer.err().map(|status| status.code() as i32);
    let expected = json!({"code": tonic::Code::InvalidArgument as i32});
    Compared::new(how, json!({"code": code}), Some(expected))
}
