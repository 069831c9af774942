//! The notification domain's queries, for both surfaces: each checks its arguments and runs one
//! statement, which returns the rows together with the position that they reflect.

use chrono::{DateTime, Datelike, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{Channel, Notification, Notifications, Status, Template, UserNotifications};
use super::state::UserFacts;
use crate::db;
use crate::error::Error;
use crate::event::hash16;
use crate::query::page::{Page, PageRequest};
use crate::query::{self, Answer, Reads, Subject, users};

/// The most notifications in what the view holds of a user.
const MOST_OF_USER: i32 = 1_000;

/// The notification with this id.
///
/// # Errors
/// NOT_FOUND, with the position at which the notification was unknown; VIEW_NOT_READY instead, while
/// the view is not built; the database's errors.
pub async fn get_notification(
    reads: &Reads,
    notification_id: Uuid,
) -> Result<Answer<Notification>, Error> {
    let row = sqlx::query_file_as!(
        Rows,
        "src/domains/notification/sql/get_notification.sql",
        notification_id
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("notification/get_notification"))?;
    let position = reads
        .position(
            "notification",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::User(row.dead_letter),
        )
        .await?;
    match row.notifications()?.pop() {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("notification")),
    }
}

/// Which notifications to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NotificationFilter {
    /// Only those to this user.
    pub user_id: Option<String>,
    /// Only those with one of these statuses; empty for any.
    pub statuses: Vec<Status>,
    /// Only those of one of these templates; empty for any.
    pub templates: Vec<Template>,
}

/// A page of notifications, oldest first.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id, or the page is invalid; VIEW_NOT_READY if nothing is
/// found while the view is not built; the database's errors.
pub async fn list_notifications(
    reads: &Reads,
    filter: &NotificationFilter,
    page: &PageRequest,
) -> Result<Answer<Notifications>, Error> {
    if let Some(user_id) = &filter.user_id {
        query::check_id("userId", user_id)?;
    }
    let statuses = chosen(&Status::ALL, &filter.statuses);
    let templates = chosen(&Template::ALL, &filter.templates);
    let names: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
    let template_names: Vec<&str> = templates.iter().map(|template| template.as_str()).collect();
    let filters = (
        "notification/notifications",
        &filter.user_id,
        &names,
        &template_names,
    );
    let page: Page<(DateTime<Utc>, Uuid)> = Page::of(page, &filters)?;
    // Postgres has no instants as far away as chrono has.
    if page
        .after
        .is_some_and(|(at, _)| !(1..=9_999).contains(&at.year()))
    {
        return Err(Error::invalid("pageToken", "is not a token of this list"));
    }
    let states = states_of(&statuses);
    let row = sqlx::query_file_as!(
        Rows,
        "src/domains/notification/sql/list_notifications.sql",
        &names as _,
        &template_names as _,
        page.limit(),
        page.after.map(|(created_at, _)| created_at),
        page.after.map_or(Uuid::nil(), |(_, id)| id),
        filter.user_id.as_ref().map(|id| hash16(id.as_bytes())),
        filter.user_id.as_deref(),
        &states.in_order as _,
        &states.overdue as _,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("notification/list_notifications"))?;
    let position = reads
        .position(
            "notification",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::of(filter.user_id.is_some(), row.dead_letter),
        )
        .await?;
    let notifications = row.notifications()?;
    if notifications.is_empty() && page.after.is_none() {
        position.check_ready()?;
    }
    let rows = notifications.into_iter().map(|notification| {
        let position = (notification.created_at, notification.notification_id);
        (notification, position)
    });
    let (notifications, next_page_token) = page.fill(rows)?;
    Ok(Answer {
        body: Notifications {
            notifications,
            next_page_token,
        },
        position,
    })
}

/// What the view holds of a user, in a snapshot: the last notifications to the user, also none where the view has only the
/// user's address.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let page: Page<()> = Page::of(
        &PageRequest {
            size: MOST_OF_USER,
            token: String::new(),
        },
        &(),
    )?;
    let row = sqlx::query_file_as!(
        Rows,
        "src/domains/notification/sql/list_last_notifications.sql",
        hash16(user_id.as_bytes()),
        user_id,
        page.limit(),
    )
    .fetch_one(&mut *snapshot)
    .await
    .map_err(|error| Error::from(error).in_statement("notification/list_last_notifications"))?;
    let (logs, offsets) = (row.logs.clone(), row.offsets.clone());
    let (is_ready, subject) = (row.ready, Subject::User(row.dead_letter));
    let rows = row.notifications()?;
    let is_known = !rows.is_empty() || is_known(snapshot, user_id).await?;
    let (notifications, next) = page.fill_half(rows.into_iter().map(|row| (row, ())))?;
    let body = is_known.then_some(UserNotifications {
        notifications,
        has_more: next.is_some(),
    });
    let position = reads.position("notification", &logs, &offsets, is_ready, subject);
    let position = position.await?;
    Answer { body, position }.into_json()
}

/// Whether the view has anything of a user to whom there are no notifications.
async fn is_known(snapshot: &mut PgConnection, user_id: &str) -> Result<bool, Error> {
    let (keys, ids) = ([hash16(user_id.as_bytes())], [user_id.to_owned()]);
    let found = users::find(snapshot, "notification", &keys, &ids).await;
    let found =
        found.map_err(|error| Error::from(error).in_statement("notification/find_users"))?;
    let state = found.documents.into_iter().flatten().next();
    let state = state.map(|state| db::of_document::<UserFacts>(&state, "users"));
    Ok(state.transpose()?.is_some_and(|state| !state.is_deleted))
}

/// The values of a filter, each once and in one order; all if none is chosen.
fn chosen<T: Copy + PartialEq>(all: &[T], chosen: &[T]) -> Vec<T> {
    all.iter()
        .filter(|value| chosen.is_empty() || chosen.contains(value))
        .copied()
        .collect()
}

/// States of deliveries.
#[derive(Debug, PartialEq, Eq)]
struct States {
    /// Those that can have one of the statuses, in any number.
    in_order: Vec<&'static str>,
    /// Others that are not final: of these only what has expired is read.
    overdue: Vec<&'static str>,
}

/// The states that deliveries with one of these statuses have.
///
/// What is `held` has no recipient, and what is `ready` or in `backoff` has one: to look there for the
/// other would read all, and find nothing. A lease may have run out.
fn states_of(statuses: &[Status]) -> States {
    let yielded = |state: &str| -> &[Status] {
        match state {
            "ready" | "backoff" => &[Status::Pending],
            "leased" => &[Status::Leased, Status::Pending, Status::NoRecipient],
            "held" => &[Status::NoRecipient],
            "sent" => &[Status::Sent],
            "failed" => &[Status::Failed],
            "cancelled" => &[Status::Cancelled],
            _ => &[Status::Expired],
        }
    };
    let is_read = |state: &&str| {
        yielded(state)
            .iter()
            .any(|status| statuses.contains(status))
    };
    let (open, last) = (
        ["ready", "leased", "backoff", "held"],
        ["sent", "failed", "cancelled", "expired"],
    );
    let is_overdue = |state: &&str| statuses.contains(&Status::Expired) && !is_read(state);
    States {
        in_order: open.into_iter().chain(last).filter(is_read).collect(),
        overdue: open.into_iter().filter(is_overdue).collect(),
    }
}

/// What a statement returns: notifications, the n-th of which has the n-th entry of each list, and the
/// positions that they reflect.
struct Rows {
    notification_ids: Vec<Uuid>,
    event_ids: Vec<String>,
    user_ids: Vec<String>,
    templates: Vec<String>,
    recipients: Vec<Option<String>>,
    data: Vec<Option<String>>,
    statuses: Vec<String>,
    attempts: Vec<i32>,
    created: Vec<DateTime<Utc>>,
    expires: Vec<DateTime<Utc>>,
    last_errors: Vec<Option<String>>,
    ready: bool,
    dead_letter: Option<Uuid>,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl Rows {
    /// The notifications.
    fn notifications(self) -> Result<Vec<Notification>, Error> {
        let unreadable =
            || Error::internal("a notification has a word that this release does not know");
        let ids = self.notification_ids.into_iter().zip(self.event_ids);
        let words = self.templates.into_iter().zip(self.statuses);
        let texts = self.user_ids.into_iter().zip(self.recipients);
        let numbers = self.attempts.into_iter().zip(self.last_errors);
        let times = self.created.into_iter().zip(self.expires);
        ids.zip(words)
            .zip(texts)
            .zip(self.data)
            .zip(numbers)
            .zip(times)
            .map(|(((((ids, words), texts), data), numbers), times)| {
                let data = data.map(|data| db::of_document(&data, "notifications"));
                Ok(Notification {
                    notification_id: ids.0,
                    event_id: ids.1,
                    user_id: texts.0,
                    template: Template::named(&words.0).ok_or_else(unreadable)?,
                    recipient: texts.1,
                    channel: Channel::Email,
                    data: data.transpose()?,
                    status: Status::named(&words.1).ok_or_else(unreadable)?,
                    attempts: numbers.0,
                    created_at: times.0,
                    expires_at: times.1,
                    last_error: numbers.1,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_that_can_have_a_status_are_read() {
        for (statuses, in_order, overdue) in [
            (
                &Status::ALL[..],
                &[
                    "ready",
                    "leased",
                    "backoff",
                    "held",
                    "sent",
                    "failed",
                    "cancelled",
                    "expired",
                ][..],
                &[][..],
            ),
            (&[Status::Sent], &["sent"], &[]),
            (
                &[Status::Failed, Status::Cancelled],
                &["failed", "cancelled"],
                &[],
            ),
            (&[Status::Leased], &["leased"], &[]),
            (&[Status::Pending], &["ready", "leased", "backoff"], &[]),
            (&[Status::NoRecipient], &["leased", "held"], &[]),
            (
                &[Status::Expired],
                &["expired"],
                &["ready", "leased", "backoff", "held"],
            ),
            (
                &[Status::Expired, Status::Pending],
                &["ready", "leased", "backoff", "expired"],
                &["held"],
            ),
        ] {
            let expected = States {
                in_order: in_order.to_vec(),
                overdue: overdue.to_vec(),
            };
            assert_eq!(states_of(statuses), expected, "{statuses:?}");
        }
    }

    #[test]
    fn a_filter_is_the_same_in_any_order() {
        assert_eq!(chosen(&Status::ALL, &[]), Status::ALL);
        let twice = [Status::Sent, Status::Pending, Status::Sent];
        assert_eq!(
            chosen(&Status::ALL, &twice),
            [Status::Pending, Status::Sent]
        );
    }
}
