//! How events become the analytics domain's view: pure folds, and the statements that write their
//! results.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{NaiveDate, TimeDelta};
use uuid::Uuid;

use super::Analytics;
use super::contribution::{Contribution, StepReached};
use super::metric::Metric;
use super::state::{Activity, ActivityState, day_number};
use crate::event::{EventType, Payload, TypeName};
use crate::fold::users::{self, UserState};
use crate::projector::{NewEvent, Projection, Target};

/// Into how many rows a counter is split.
const SHARDS: u32 = 4;

#[async_trait]
impl Projection for Analytics {
    fn domain(&self) -> &'static str {
        "analytics"
    }

    fn declared_code_version(&self) -> i32 {
        1
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        matches!(
            event_type,
            TypeName::Known {
                event_type: EventType::UserRegistered
                    | EventType::UserEmailVerified
                    | EventType::UserPasswordChanged
                    | EventType::UserPasswordResetRequested
                    | EventType::UserDeleted
                    | EventType::UserProfileUpdated
                    | EventType::UserAddressAdded
                    | EventType::UserLoggedIn
                    | EventType::UserLoginFailed
                    | EventType::UserLoggedOut
                    | EventType::MfaStatusChanged
                    | EventType::MfaChallengeFailed,
                ..
            }
        )
    }

    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        let folded = users::fold::<ActivityState>(target, events).await?;
        let mut changes = Changes::default();
        for user in &folded {
            changes.add_user(user.user_key, &user.effects, &user.state);
        }
        for new_event in events {
            changes.add_event(new_event);
        }
        // Other writers wait for the rows of counters until this transaction ends, so those are the
        // last to be written, and those that all writers need come last of all.
        changes.write_times(target).await?;
        changes.write_retention(target).await?;
        changes.write_funnel(target).await?;
        changes.write_days(target).await
    }
}

/// What the fold of a user's events produces besides the state.
#[derive(Debug, Default)]
pub struct Effects {
    /// What the user contributed to funnel and retention before the batch, and in which log's shard
    /// the user was counted, if in any.
    pub before: Option<(Contribution, Option<i32>)>,
    /// The days whose unique logins now include this user's, as numbers of days since 1970-01-01.
    pub unique_logins: Vec<i32>,
}

impl UserState for ActivityState {
    type Effects = Effects;

    fn apply(&mut self, new_event: &NewEvent, effects: &mut Effects) {
        if effects.before.is_none() {
            effects.before = Some((Contribution::of(self), self.counted_log));
        }
        let log_id = new_event.log_id;
        self.counted_log = Some(self.counted_log.map_or(log_id, |first| first.min(log_id)));
        let event = &new_event.event;
        if let Payload::UserLoggedIn(_) = &event.payload {
            let day = day_number(event.occurred_at);
            if self.login_days.insert(day) {
                effects.unique_logins.push(day);
            }
        }
        if let Payload::UserDeleted(_) = &event.payload {
            self.is_deleted = true;
            self.activity = Activity::default();
        }
        if !self.is_deleted {
            self.activity.apply(event, log_id);
        }
    }
}

/// What a batch adds to the counters, by key: each row is written once, and in the order of the
/// keys, so that batches cannot deadlock.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// By day, metric, breakdown and shard.
    pub days: BTreeMap<(i32, &'static str, String, i16), i64>,
    /// By the day of the registration, step, bucket and shard.
    pub funnel: BTreeMap<(i32, i16, i16, i16), i64>,
    /// By the day of the registration, week and shard.
    pub retention: BTreeMap<(i32, i16, i16), i64>,
    /// The steps of users: 1 for a new one, -1 for one that is no longer so.
    pub times: BTreeMap<(StepReached, Uuid), i64>,
}

impl Changes {
    /// Counts an event in its day.
    pub fn add_event(&mut self, new_event: &NewEvent) {
        let event = &new_event.event;
        if let Some((metric, breakdown)) = Metric::of(&event.payload) {
            let day = day_number(event.occurred_at);
            self.add_count(day, metric, breakdown, shard(new_event.log_id), 1);
        }
    }

    /// Counts the days of a user's first logins, and what the user's contribution has become.
    pub fn add_user(&mut self, user_key: Uuid, effects: &Effects, state: &ActivityState) {
        let (before, former_log) = effects.before.unwrap_or_default();
        let shard_now = state.counted_log.map_or(0, shard);
        let former_shard = former_log.map_or(shard_now, shard);
        let mut count = |day, shard, sign| {
            self.add_count(day, Metric::UniqueLogins, String::new(), shard, sign);
        };
        for day in &effects.unique_logins {
            count(*day, shard_now, 1);
        }
        let has_moved = former_shard != shard_now;
        if has_moved {
            let days = state.login_days.iter();
            for day in days.filter(|day| !effects.unique_logins.contains(day)) {
                count(day, former_shard, -1);
                count(day, shard_now, 1);
            }
        }
        let after = Contribution::of(state);
        if before != after || has_moved {
            self.add_contribution(&before, -1, user_key, former_shard);
            self.add_contribution(&after, 1, user_key, shard_now);
        }
    }

    fn add_count(&mut self, day: i32, metric: Metric, breakdown: String, shard: i16, sign: i64) {
        let key = (day, metric.as_str(), breakdown, shard);
        add(&mut self.days, key, sign);
    }

    fn add_contribution(&mut self, of: &Contribution, sign: i64, user_key: Uuid, shard: i16) {
        for reached in of.steps() {
            let key = (reached.registered_on, reached.step, reached.bucket(), shard);
            add(&mut self.funnel, key, sign);
            // At registration the time is 0.
            if reached.step > 0 {
                add(&mut self.times, (reached, user_key), sign);
            }
        }
        for retained in of.weeks() {
            let key = (retained.registered_on, retained.week, shard);
            add(&mut self.retention, key, sign);
        }
    }

    async fn write_times(&self, target: &mut Target<'_>) -> Result<(), sqlx::Error> {
        let (mut gone, mut new) = (TimeColumns::default(), TimeColumns::default());
        for ((reached, user_key), sign) in &self.times {
            let columns = if *sign < 0 { &mut gone } else { &mut new };
            columns.steps.push(reached.step);
            columns.buckets.push(reached.bucket());
            columns.registered_on.push(date(reached.registered_on));
            columns.micros.push(reached.micros);
            columns.user_keys.push(*user_key);
        }
        if !gone.steps.is_empty() {
            sqlx::query_file!(
                "src/domains/analytics/sql/remove_times.sql",
                &gone.steps,
                &gone.buckets,
                &gone.registered_on,
                &gone.micros,
                &gone.user_keys,
            )
            .execute(&mut *target.connection)
            .await?;
        }
        if !new.steps.is_empty() {
            sqlx::query_file!(
                "src/domains/analytics/sql/add_times.sql",
                &new.steps,
                &new.buckets,
                &new.registered_on,
                &new.micros,
                &new.user_keys,
            )
            .execute(&mut *target.connection)
            .await?;
        }
        Ok(())
    }

    async fn write_retention(&self, target: &mut Target<'_>) -> Result<(), sqlx::Error> {
        if self.retention.is_empty() {
            return Ok(());
        }
        let keys = self.retention.keys();
        let registered_on: Vec<NaiveDate> = keys.clone().map(|key| date(key.0)).collect();
        let weeks: Vec<i16> = keys.clone().map(|key| key.1).collect();
        let shards: Vec<i16> = keys.map(|key| key.2).collect();
        let counts: Vec<i64> = self.retention.values().copied().collect();
        sqlx::query_file!(
            "src/domains/analytics/sql/count_retention.sql",
            &registered_on,
            &weeks,
            &shards,
            &counts,
        )
        .execute(&mut *target.connection)
        .await?;
        if counts.iter().any(|count| *count < 0) {
            sqlx::query_file!(
                "src/domains/analytics/sql/remove_empty_retention.sql",
                &registered_on,
                &weeks,
                &shards,
            )
            .execute(&mut *target.connection)
            .await?;
        }
        Ok(())
    }

    async fn write_funnel(&self, target: &mut Target<'_>) -> Result<(), sqlx::Error> {
        if self.funnel.is_empty() {
            return Ok(());
        }
        let keys = self.funnel.keys();
        let registered_on: Vec<NaiveDate> = keys.clone().map(|key| date(key.0)).collect();
        let steps: Vec<i16> = keys.clone().map(|key| key.1).collect();
        let buckets: Vec<i16> = keys.clone().map(|key| key.2).collect();
        let shards: Vec<i16> = keys.map(|key| key.3).collect();
        let counts: Vec<i64> = self.funnel.values().copied().collect();
        sqlx::query_file!(
            "src/domains/analytics/sql/count_funnel.sql",
            &registered_on,
            &steps,
            &buckets,
            &shards,
            &counts,
        )
        .execute(&mut *target.connection)
        .await?;
        if counts.iter().any(|count| *count < 0) {
            sqlx::query_file!(
                "src/domains/analytics/sql/remove_empty_funnel.sql",
                &registered_on,
                &steps,
                &buckets,
                &shards,
            )
            .execute(&mut *target.connection)
            .await?;
        }
        Ok(())
    }

    async fn write_days(self, target: &mut Target<'_>) -> Result<(), sqlx::Error> {
        if self.days.is_empty() {
            return Ok(());
        }
        let (mut days, mut metrics, mut breakdowns) = (Vec::new(), Vec::new(), Vec::new());
        let (mut shards, mut counts) = (Vec::new(), Vec::new());
        for ((day, metric, breakdown, shard), count) in self.days {
            days.push(date(day));
            metrics.push(metric);
            breakdowns.push(breakdown);
            shards.push(shard);
            counts.push(count);
        }
        sqlx::query_file!(
            "src/domains/analytics/sql/count_days.sql",
            &days,
            &metrics as _,
            &breakdowns,
            &shards,
            &counts,
        )
        .execute(&mut *target.connection)
        .await?;
        if counts.iter().any(|count| *count < 0) {
            sqlx::query_file!(
                "src/domains/analytics/sql/remove_empty_days.sql",
                &days,
                &metrics as _,
                &breakdowns,
                &shards,
            )
            .execute(&mut *target.connection)
            .await?;
        }
        Ok(())
    }
}

/// Rows of steps' times, column by column.
#[derive(Default)]
struct TimeColumns {
    steps: Vec<i16>,
    buckets: Vec<i16>,
    registered_on: Vec<NaiveDate>,
    micros: Vec<i64>,
    user_keys: Vec<Uuid>,
}

/// Adds to a counter. What a batch adds and takes away again is not written.
fn add<K: Ord + Clone>(counts: &mut BTreeMap<K, i64>, key: K, sign: i64) {
    let count = counts.entry(key.clone()).or_default();
    *count += sign;
    if *count == 0 {
        counts.remove(&key);
    }
}

/// The shard of what is counted for a log.
fn shard(log_id: i32) -> i16 {
    // Log ids count from 1.
    (log_id.unsigned_abs() % SHARDS) as i16
}

/// The day with this number.
fn date(day: i32) -> NaiveDate {
    NaiveDate::default() + TimeDelta::days(day.into())
}
