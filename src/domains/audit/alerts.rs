//! What events say to alerts: how much happened in each window of time. Windows are fixed, so the result does not depend on the
//! order in which events arrive; it judges the events, not the entries, and stays when these are erased.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::AlertKind;
use super::settings::Settings;
use super::state::Account;
use crate::config::AlertThreshold;
use crate::db;
use crate::event::{Payload, hash16, text};
use crate::projector::NewEvent;

/// How many events of a window are kept by their ids.
const MOST_EVENTS: usize = 100;
/// Alerts are ordered by so many characters of their keys.
const KEY_CHARS: usize = 100;

/// A window of one kind and key: the kind's code, the hash of the key, and the beginning in seconds since 1970.
type WindowKey = (i16, Uuid, i64);

/// What a batch adds to a window.
#[derive(Debug, PartialEq)]
struct Seen<'e> {
    key: &'e str,
    threshold: AlertThreshold,
    count: i64,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
    /// Its events, each as it is stored.
    events: Vec<String>,
}

/// What a batch adds to all windows, and the accounts of those that count accounts.
#[derive(Debug, Default)]
struct Batch<'e> {
    windows: BTreeMap<WindowKey, Seen<'e>>,
    accounts: BTreeSet<(WindowKey, Uuid)>,
}

impl<'e> Batch<'e> {
    fn of(events: &'e [NewEvent], settings: &Settings) -> Self {
        let mut batch = Self::default();
        for new_event in events {
            match &new_event.event.payload {
                Payload::UserLoginFailed(failed) => {
                    let Some(account) = Account::of(failed) else {
                        continue;
                    };
                    batch.add(
                        AlertKind::BruteForce,
                        settings.brute_force,
                        (account.text(), account.key_hash()),
                        new_event,
                        1,
                    );
                    if let Some(ip) = &failed.ip_address {
                        let window = batch.add(
                            AlertKind::CredentialStuffing,
                            settings.credential_stuffing,
                            (ip.as_str(), hash16(ip.as_bytes())),
                            new_event,
                            0,
                        );
                        batch.accounts.insert((window, account.key_hash()));
                    }
                }
                Payload::MfaChallengeFailed(failed) => {
                    let user_id = &failed.user_id;
                    batch.add(
                        AlertKind::MfaFatigue,
                        settings.mfa_fatigue,
                        (user_id.as_str(), hash16(user_id.as_bytes())),
                        new_event,
                        1,
                    );
                }
                _ => {}
            }
        }
        batch
    }

    fn add(
        &mut self,
        kind: AlertKind,
        threshold: AlertThreshold,
        (key, key_hash): (&'e str, Uuid),
        new_event: &NewEvent,
        count: i64,
    ) -> WindowKey {
        let at = new_event.event.occurred_at;
        let length = i64::from(threshold.window_seconds);
        let begins = at.timestamp().div_euclid(length) * length;
        let window = (kind.code(), key_hash, begins);
        let seen = self.windows.entry(window).or_insert_with(|| Seen {
            key,
            threshold,
            count: 0,
            first: at,
            last: at,
            events: Vec::new(),
        });
        seen.count += count;
        seen.first = seen.first.min(at);
        seen.last = seen.last.max(at);
        // Events happen after 1970 and before 2200: 16 digits are enough, and their order is that of the times.
        let micros = at.timestamp_micros();
        seen.events
            .push(format!("{micros:016}{}", new_event.event.id));
        window
    }
}

/// The hash of a window, for its accounts.
fn hash_of((kind, key_hash, begins): WindowKey) -> Uuid {
    hash16(format!("{kind}:{key_hash}:{begins}").as_bytes())
}

/// Adds what events say to the windows. Each is written once, and in the order of their keys, so that batches can't deadlock.
///
/// # Errors
/// The database's.
pub async fn count(
    connection: &mut PgConnection,
    events: &[NewEvent],
    settings: &Settings,
) -> Result<(), sqlx::Error> {
    let Batch {
        mut windows,
        accounts,
    } = Batch::of(events, settings);
    if windows.is_empty() {
        return Ok(());
    }
    if !accounts.is_empty() {
        let by_hash: BTreeMap<Uuid, WindowKey> = accounts
            .iter()
            .map(|(window, _)| (hash_of(*window), *window))
            .collect();
        let mut rows: Vec<(Uuid, Uuid)> = accounts
            .iter()
            .map(|(window, account)| (hash_of(*window), *account))
            .collect();
        rows.sort_unstable();
        let (window_keys, account_hashes): (Vec<Uuid>, Vec<Uuid>) = rows.into_iter().unzip();
        let new = sqlx::query_file_scalar!(
            "src/domains/audit/sql/add_accounts.sql",
            &window_keys,
            &account_hashes
        )
        .fetch_all(&mut *connection)
        .await?;
        for window_key in new {
            let window = by_hash.get(&window_key);
            if let Some(seen) = window.and_then(|window| windows.get_mut(window)) {
                seen.count += 1;
            }
        }
    }
    let mut columns = Columns::default();
    for ((kind, key_hash, begins), mut seen) in windows {
        columns.kinds.push(kind);
        columns.key_hashes.push(key_hash);
        columns.begins.push(begins);
        columns.lengths.push(seen.threshold.window_seconds);
        columns.keys.push(seen.key.to_owned());
        columns.key_starts.push(text::excerpt(seen.key, KEY_CHARS));
        columns.counts.push(seen.count);
        columns.thresholds.push(seen.threshold.count);
        columns.first.push(seen.first);
        columns.last.push(seen.last);
        seen.events.sort_unstable();
        seen.events.truncate(MOST_EVENTS);
        // As JSON, because Postgres has no arrays of arrays of different lengths.
        columns.events.push(db::to_document(&seen.events)?);
    }
    columns.write(connection).await
}

/// Windows to write, column by column.
#[derive(Default)]
struct Columns {
    kinds: Vec<i16>,
    key_hashes: Vec<Uuid>,
    begins: Vec<i64>,
    lengths: Vec<i32>,
    keys: Vec<String>,
    key_starts: Vec<String>,
    counts: Vec<i64>,
    thresholds: Vec<i64>,
    first: Vec<DateTime<Utc>>,
    last: Vec<DateTime<Utc>>,
    events: Vec<String>,
}

impl Columns {
    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query_file!(
            "src/domains/audit/sql/count_alerts.sql",
            &self.kinds,
            &self.key_hashes,
            &self.begins,
            &self.lengths,
            &self.keys,
            &self.key_starts,
            &self.counts,
            &self.thresholds,
            &self.first,
            &self.last,
            &self.events,
        )
        .execute(connection)
        .await
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fold::examples::event;

    #[test]
    fn accounts_of_different_kinds_are_counted_apart() {
        let events: Vec<NewEvent> = [
            "attemptedUserId",
            "attemptedEmail",
            "attemptedUsername",
            "attemptedUsername",
        ]
        .into_iter()
        .enumerate()
        .map(|(number, name)| {
            let payload = json!({"reason": "r", "ipAddress": "i", name: "x"});
            event(number, "UserLoginFailed", payload)
        })
        .collect();
        let five_minutes = AlertThreshold {
            count: 10,
            window_seconds: 300,
        };
        let settings = Settings {
            brute_force: five_minutes,
            credential_stuffing: five_minutes,
            ..Settings::NONE
        };
        let batch = Batch::of(&events, &settings);
        let brute_force = AlertKind::BruteForce.code();
        let mut counts: Vec<(&str, Uuid, i64)> = batch
            .windows
            .iter()
            .filter(|((kind, ..), _)| *kind == brute_force)
            .map(|((_, key_hash, _), seen)| (seen.key, *key_hash, seen.count))
            .collect();
        let [user_id, email, username] = Account::all("x").map(Account::key_hash);
        let mut expected = vec![("x", user_id, 1), ("x", email, 1), ("x", username, 2)];
        counts.sort_unstable();
        expected.sort_unstable();
        assert_eq!(counts, expected);
        // From one address, three accounts.
        let accounts: BTreeSet<Uuid> = batch.accounts.iter().map(|(_, account)| *account).collect();
        assert_eq!(accounts, BTreeSet::from([user_id, email, username]));
    }
}
