//! The analytics domain's queries, for both surfaces: each checks its arguments and runs one
//! statement, which returns the rows together with the position that they reflect.

use std::collections::HashMap;

use chrono::{NaiveDate, TimeDelta};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

use super::contribution::WEEKS;
use super::metric::Metric;
use super::model::{Cohort, DailyMetrics, Day, Funnel, FunnelStep, Retention, Step, UserActivity};
use super::state::ActivityState;
use crate::db;
use crate::error::{Error, FieldViolation};
use crate::query::lookups::Lookup;
use crate::query::page::ResponseSize;
use crate::query::{self, Answer, Position, Reads, Subject, users};

/// The most days of daily metrics.
const MAX_DAYS: i64 = 3_660;
/// The weeks of retention if the caller names no number.
const DEFAULT_WEEKS: i32 = 8;

/// A range of UTC days, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRange {
    from: NaiveDate,
    to: NaiveDate,
}

impl DayRange {
    /// The range from one day to another, as a caller has written them.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming `from`, `to` or both: it is missing, is not a day, or `to` lies before
    /// `from`.
    pub fn parse(from: Option<&str>, to: Option<&str>) -> Result<Self, Error> {
        let mut violations = Vec::new();
        let mut read = |field: &str, text: Option<&str>| {
            let problem = match text {
                Some(text) => match day(text) {
                    Some(day) => return Some(day),
                    None => "is not a day; like 2026-10-01",
                },
                None => "is missing: a day, like 2026-10-01",
            };
            violations.push(FieldViolation {
                field: field.to_owned(),
                problem: problem.to_owned(),
            });
            None
        };
        match (read("from", from), read("to", to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to }),
            (Some(_), Some(_)) => Err(Error::invalid("to", "lies before from")),
            _ => Err(Error::violations(violations)),
        }
    }

    fn days(self) -> impl Iterator<Item = NaiveDate> {
        self.from.iter_days().take_while(move |day| *day <= self.to)
    }
}

/// Reads a day such as `2026-10-01`.
fn day(text: &str) -> Option<NaiveDate> {
    let number = |part: &str, digits: usize| {
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    };
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year = i32::try_from(number(year, 4)?).ok()?;
    NaiveDate::from_ymd_opt(year, number(month, 2)?, number(day, 2)?)
}

/// The numbers of each day of a range, zeroes included; of all metrics if none is named.
///
/// # Errors
/// INVALID_ARGUMENT if the range is too long; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_daily_metrics(
    reads: &Reads,
    range: DayRange,
    metrics: &[Metric],
) -> Result<Answer<DailyMetrics>, Error> {
    if (range.to - range.from).num_days() >= MAX_DAYS {
        return Err(Error::invalid("to", "lies more than 3,659 days after from"));
    }
    let metrics = if metrics.is_empty() {
        &Metric::ALL
    } else {
        metrics
    };
    let names: Vec<&str> = metrics.iter().map(|metric| metric.as_str()).collect();
    let row = sqlx::query_file!(
        "src/domains/analytics/sql/get_daily_metrics.sql",
        range.from,
        range.to,
        &names as _,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("analytics/get_daily_metrics"))?;
    let position = reads
        .position(
            "analytics",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::Many,
        )
        .await?;
    let numbers = row.metrics.iter().zip(row.breakdowns).zip(row.counts);
    let mut numbers = row.days.into_iter().zip(numbers).peekable();
    let mut days = Vec::new();
    for date in range.days() {
        let mut day = Day::new(date, metrics);
        while let Some((_, ((metric, breakdown), count))) = numbers.next_if(|(on, _)| *on == date) {
            // Rows of other names are not read.
            if let Some(metric) = Metric::parse(metric) {
                day.add(metric, &breakdown, count);
            }
        }
        days.push(day);
    }
    check_size(&days, "days", &position)?;
    Ok(Answer {
        body: DailyMetrics { days },
        position,
    })
}

/// Refuses an answer that is too large; its rows are in the order of their times.
fn check_size<R: Serialize>(
    rows: &[R],
    unit: &'static str,
    position: &Position,
) -> Result<(), Error> {
    let mut size = ResponseSize::default();
    for (fitting, row) in rows.iter().enumerate() {
        size.add(row)?;
        if !size.fits() {
            return Err(too_large(unit, fitting).with_metadata(position.metadata()));
        }
    }
    Ok(())
}

/// The error for a range of which so many days or weeks fit into one answer.
pub fn too_large(unit: &'static str, fitting: usize) -> Error {
    let problem = match fitting {
        0 => "is too late: one day is more than one answer of 3 MiB can hold, name fewer metrics"
            .to_owned(),
        _ => format!(
            "lies after what one answer of 3 MiB can hold: the first {fitting} {unit} of the range fit"
        ),
    };
    Error::range_too_large("to", problem)
}

/// The funnel of the users who registered in a range of days.
///
/// # Errors
/// The database's errors.
pub async fn get_funnel(reads: &Reads, range: DayRange) -> Result<Answer<Funnel>, Error> {
    let row = sqlx::query_file!(
        "src/domains/analytics/sql/get_funnel.sql",
        range.from,
        range.to,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("analytics/get_funnel"))?;
    let position = reads
        .position(
            "analytics",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::Many,
        )
        .await?;
    let counts: HashMap<i16, i64> = row.steps.into_iter().zip(row.counts).collect();
    let mut middles: HashMap<i16, Vec<i64>> = HashMap::new();
    for (step, micros) in row.middle_steps.into_iter().zip(row.middle_micros) {
        middles.entry(step).or_default().push(micros);
    }
    let registered = counts.get(&0).copied().unwrap_or_default();
    let steps = (0..).zip(Step::ALL).map(|(number, step)| {
        let count = counts.get(&number).copied().unwrap_or_default();
        FunnelStep {
            step,
            count,
            conversion_rate: match registered {
                0 => 0.0,
                _ => count as f64 / registered as f64,
            },
            median_seconds: match number {
                0 => (count > 0).then_some(0.0),
                _ => middles.get(&number).map(|micros| mean_seconds(micros)),
            },
        }
    });
    let body = Funnel {
        steps: steps.collect(),
    };
    Ok(Answer { body, position })
}

/// The mean of some times in microseconds, in seconds.
fn mean_seconds(micros: &[i64]) -> f64 {
    let sum: i64 = micros.iter().sum();
    sum as f64 / (micros.len() as f64 * 1_000_000.0)
}

/// The retention of the users who registered in a range of days, over so many weeks, that of the
/// registration included: 8 if not given.
///
/// # Errors
/// INVALID_ARGUMENT if the weeks are none of 1 to 52; RESPONSE_TOO_LARGE; the database's errors.
pub async fn get_retention(
    reads: &Reads,
    range: DayRange,
    weeks: Option<i32>,
) -> Result<Answer<Retention>, Error> {
    let weeks = weeks.unwrap_or(DEFAULT_WEEKS);
    let count = i16::try_from(weeks)
        .ok()
        .filter(|_| (1..=WEEKS).contains(&weeks));
    let Some(weeks) = count else {
        return Err(Error::invalid(
            "weeks",
            "must be a whole number from 1 to 52",
        ));
    };
    let row = sqlx::query_file!(
        "src/domains/analytics/sql/get_retention.sql",
        range.from,
        range.to,
        weeks,
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("analytics/get_retention"))?;
    let position = reads
        .position(
            "analytics",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::Many,
        )
        .await?;
    let cells = row.retained_cohorts.into_iter().zip(row.retained_weeks);
    let retained: HashMap<(i32, i16), i64> = cells.zip(row.retained_counts).collect();
    let cohorts = row.cohorts.into_iter().zip(row.sizes);
    let cohorts: Vec<Cohort> = cohorts
        .map(|(cohort, size)| Cohort {
            week_start: monday(cohort),
            size,
            retained: (0..weeks)
                .map(|week| retained.get(&(cohort, week)).copied().unwrap_or_default())
                .collect(),
        })
        .collect();
    check_size(&cohorts, "weeks", &position)?;
    Ok(Answer {
        body: Retention { cohorts },
        position,
    })
}

/// The Monday of the week with this number. Week 0 is the one in which the year 1970 begins, on a
/// Thursday.
fn monday(week: i32) -> NaiveDate {
    NaiveDate::default() + TimeDelta::days(i64::from(week) * 7 - 3)
}

/// Users by their ids.
static USERS: Lookup = users::lookup("analytics", "analytics/find_users");

/// A user's activity.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND if the user is deleted or unknown, with the
/// position at which that was so; VIEW_NOT_READY instead, while the view is not built; the database's
/// errors.
pub async fn get_user_activity(
    reads: &Reads,
    user_id: &str,
) -> Result<Answer<UserActivity>, Error> {
    query::check_id("userId", user_id)?;
    let Answer { body, position } = reads.find(&USERS, user_id).await?;
    match activity(body)? {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("user")),
    }
}

/// What the view holds of a user, in a snapshot: the activity.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let Answer { body, position } = reads.find_in(snapshot, &USERS, user_id).await?;
    let body = activity(body)?;
    Answer { body, position }.into_json()
}

/// The activity of a stored state; a deleted user has none.
fn activity(state: Option<String>) -> Result<Option<UserActivity>, Error> {
    let state = state.map(|state| db::of_document::<ActivityState>(&state, "users"));
    let state = state.transpose()?.filter(|state| !state.is_deleted);
    Ok(state.map(|state| state.activity.into()))
}
