//! Lists of alerts.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::entries::{check_text, foreign_token, is_stored};
use crate::db;
use crate::domains::audit::model::{Alert, AlertKind, Alerts};
use crate::domains::audit::state::Account;
use crate::error::Error;
use crate::query::page::{Page, PageRequest};
use crate::query::{Answer, Reads, Subject};

/// The text of the statements that list alerts.
const LIST_ALERTS: &str = include_str!("../sql/list_alerts.sql");
/// Which alerts to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AlertFilter {
    /// Only those of this kind.
    pub kind: Option<AlertKind>,
    /// Only those of this account, IP address or user.
    pub key: Option<String>,
    /// Only those whose window begins at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those whose window begins before this time.
    pub to: Option<DateTime<Utc>>,
}

/// In how many windows of brute force a statement looks for logins, before a page ends.
const MOST_WINDOWS: i64 = 1_000;
/// Above the codes of all kinds: a position behind all alerts of a window.
const AFTER_ALL_KINDS: i16 = i16::MAX;

/// Where an alert stands in the list: its window, kind, key's beginning and hash. The hash tells accounts of one text apart.
type AlertPosition = (DateTime<Utc>, i16, String, Uuid);

/// The statement that lists alerts, of one key or of all.
fn alert_statement(of_one_key: bool) -> &'static str {
    static STATEMENTS: LazyLock<[String; 2]> = LazyLock::new(|| {
        [
            (
                "(VALUES (NULL::uuid))",
                "true",
                "true",
                "w.window_start DESC, w.key_start, w.key_hash",
            ),
            (
                "unnest($9::uuid[])",
                "w.key_hash = h.key_hash AND w.key = $10::text",
                "w.key_hash = ($9::uuid[])[1] AND w.key = $10::text",
                "w.window_start DESC",
            ),
        ]
        .map(|(hashes, key, user, order)| {
            let statement = LIST_ALERTS.replace("{hashes}", hashes);
            let statement = statement.replace("{key}", key).replace("{user}", user);
            statement.replace("{order}", order)
        })
    });
    &STATEMENTS[usize::from(of_one_key)]
}

/// A page of alerts, the newest window first.
///
/// # Errors
/// INVALID_ARGUMENT if a filter or the page is invalid; VIEW_NOT_READY if nothing is found while the view is not built; the
/// database's errors.
pub async fn list_alerts(
    reads: &Reads,
    filter: &AlertFilter,
    page: &PageRequest,
) -> Result<Answer<Alerts>, Error> {
    check_text("key", filter.key.as_deref())?;
    let page: Page<AlertPosition> = Page::of(page, &("audit/alerts", filter))?;
    if let Some((at, _, key_start, _)) = &page.after
        && (!is_stored(*at) || key_start.contains('\0'))
    {
        return Err(foreign_token());
    }
    let kinds = AlertKind::ALL.into_iter();
    let kinds = kinds.filter(|kind| filter.kind.is_none_or(|only| only == *kind));
    let kinds: Vec<i16> = kinds.map(AlertKind::code).collect();
    // IP addresses and the users of second factors have the hash of a user's id.
    let hashes = filter.key.as_deref().map(Account::all);
    let hashes = hashes.map(|accounts| accounts.map(Account::key_hash).to_vec());
    let mut after = page.after.clone();
    loop {
        let rows: AlertRows = sqlx::query_as(alert_statement(filter.key.is_some()))
            .bind(&kinds)
            .bind(filter.from)
            .bind(filter.to)
            .bind(after.as_ref().map(|(at, ..)| *at))
            .bind(after.as_ref().map_or(0, |(_, kind, ..)| *kind))
            .bind(after.as_ref().map_or("", |(_, _, key_start, _)| key_start))
            .bind(
                after
                    .as_ref()
                    .map_or(Uuid::nil(), |(.., key_hash)| *key_hash),
            )
            .bind(page.limit())
            .bind(&hashes)
            .bind(&filter.key)
            .bind(MOST_WINDOWS)
            .fetch_one(reads.pool())
            .await
            .map_err(|error| Error::from(error).in_statement("audit/list_alerts"))?;
        let position = reads
            .position(
                "audit",
                &rows.logs,
                &rows.offsets,
                rows.ready,
                Subject::Many,
            )
            .await?;
        let horizon = rows.horizon;
        let mut alerts = rows.alerts()?;
        // Before the horizon there may be logins that were not looked for.
        alerts.retain(|(alert, _)| horizon.is_none_or(|horizon| alert.window_start >= horizon));
        let rest = horizon.map(|horizon| (horizon, AFTER_ALL_KINDS, String::new(), Uuid::nil()));
        if alerts.is_empty() && rest.is_some() {
            after = rest;
            continue;
        }
        if alerts.is_empty() && page.after.is_none() {
            position.check_ready()?;
        }
        let (alerts, next) = page.fill(alerts)?;
        let next_page_token = match (next, rest) {
            (None, Some(rest)) => Some(page.next(&rest)?),
            (next, _) => next,
        };
        return Ok(Answer {
            body: Alerts {
                alerts,
                next_page_token,
            },
            position,
        });
    }
}

/// What a statement returns: alerts, the n-th of which has the n-th item of each list, and the positions that they reflect.
#[derive(sqlx::FromRow)]
struct AlertRows {
    kinds: Vec<i16>,
    keys: Vec<String>,
    key_starts: Vec<String>,
    key_hashes: Vec<Uuid>,
    starts: Vec<DateTime<Utc>>,
    ends: Vec<DateTime<Utc>>,
    counts: Vec<i64>,
    first_events: Vec<DateTime<Utc>>,
    last_events: Vec<DateTime<Utc>>,
    event_ids: Vec<String>,
    /// The first window of those in which logins were looked for, if there are more before it.
    horizon: Option<DateTime<Utc>>,
    ready: bool,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl AlertRows {
    fn alerts(self) -> Result<Vec<(Alert, AlertPosition)>, Error> {
        let keys = self.keys.into_iter().zip(self.key_starts);
        let keys = keys.zip(self.key_hashes);
        let windows = self.starts.into_iter().zip(self.ends);
        let events = self.first_events.into_iter().zip(self.last_events);
        let events = events.zip(self.event_ids).zip(self.counts);
        let rows = self.kinds.into_iter().zip(keys).zip(windows).zip(events);
        rows.map(|(((code, key), (window_start, window_end)), events)| {
            let ((key, key_start), key_hash) = key;
            let (((first_event_at, last_event_at), event_ids), count) = events;
            let kind = AlertKind::ALL.into_iter().find(|kind| kind.code() == code);
            let kind = kind.ok_or_else(|| {
                Error::internal("an alert has a kind that this release does not know")
            })?;
            let alert = Alert {
                kind,
                key,
                window_start,
                window_end,
                count,
                first_event_at,
                last_event_at,
                event_ids: db::of_document(&event_ids, "alert_windows")?,
            };
            Ok((alert, (window_start, code, key_start, key_hash)))
        })
        .collect()
    }
}
