//! Compares the analytics domain's answers with the reference fold, over REST.

use chrono::{Days, NaiveDate};
use serde_json::json;

use super::{Compared, Depth, Differences, get, refused, some};
use crate::app::Clients;
use crate::client::{Rest, escape, with_query};
use crate::reference::{Folds, METRICS, Metrics};

const DAILY: &str = "/v1/analytics/daily";
const FUNNEL: &str = "/v1/analytics/funnel";
const RETENTION: &str = "/v1/analytics/retention";
/// The most days in one answer.
const MOST_DAYS: u64 = 3_660;

type Range = (NaiveDate, NaiveDate);

/// The path of a user's activity.
pub fn activity_path(id: &str) -> String {
    format!("/v1/analytics/users/{}/activity", escape(id))
}

pub(super) async fn compare(
    clients: &Clients,
    folds: &Folds,
    depth: Depth,
    wrong: &mut Differences,
) {
    let (rest, view) = (&clients.rest, folds.view::<Metrics>());
    let (ids, deleted) = (view.ids(), view.deleted());
    let nobody = "nobody".to_owned();
    let activities = ids
        .iter()
        .chain(&deleted)
        .chain([&nobody])
        .map(|id| get(rest, activity_path(id), view.activity(id)));
    wrong.compare_all(activities).await;
    let whole = whole(&view.days());
    let mut parts = whole.clone();
    if depth == Depth::Thorough {
        parts.extend(whole.iter().flat_map(|range| inner(*range)));
    }
    for (n, range) in parts.iter().enumerate() {
        wrong.compare(daily(rest, view, *range, &[], n).await);
        wrong.compare(funnel(rest, view, *range).await);
        let weeks = [None, Some(1), Some(52), Some(9)][n % 4];
        wrong.compare(retention(rest, view, *range, weeks).await);
    }
    if depth == Depth::Thorough {
        for (n, range) in parts.iter().enumerate() {
            let metrics: Vec<&str> = METRICS.into_iter().skip(n % 3).step_by(n % 4 + 2).collect();
            wrong.compare(daily(rest, view, *range, &metrics, n).await);
        }
        compare_refusals(rest, wrong).await;
    }
}

/// Ranges that hold all of these days, as few as possible.
fn whole(days: &[NaiveDate]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for day in days {
        match ranges.last_mut() {
            Some((from, to)) if *day < *from + Days::new(MOST_DAYS) => *to = *day,
            _ => ranges.push((*day, *day)),
        }
    }
    ranges
}

/// Parts of a range: its first and last day alone, a third of it, and beyond it.
fn inner((from, to): Range) -> Vec<Range> {
    let length = (to - from).num_days().unsigned_abs();
    let third = Days::new(length / 3);
    let mut ranges = vec![(from, from), (to, to), (from + third, to - third)];
    // What happened in the first or the last year that is allowed has a range of its own.
    if length > 1 {
        ranges.push((from - Days::new(10), to + Days::new(10)));
    }
    // Weeks, beginning on each day of the week.
    let starts: Vec<NaiveDate> = from.iter_days().take(length as usize).collect();
    ranges.extend(some(&starts, 9).map(|start| (*start, *start + Days::new(6))));
    ranges
}

fn path(base: &str, (from, to): Range, others: &[(&str, Option<&str>)]) -> String {
    let (from, to) = (from.to_string(), to.to_string());
    let range = [("from", Some(&*from)), ("to", Some(&*to))];
    with_query(base, &[&range, others].concat())
}

/// Metrics are given in one parameter or in several.
async fn daily(rest: &Rest, view: &Metrics, range: Range, metrics: &[&str], n: usize) -> Compared {
    let (joined, parameters): (_, Vec<(&str, Option<&str>)>);
    if n.is_multiple_of(2) || metrics.is_empty() {
        joined = (!metrics.is_empty()).then(|| metrics.join(","));
        parameters = vec![("metrics", joined.as_deref())];
    } else {
        parameters = metrics
            .iter()
            .map(|&name| ("metrics", Some(name)))
            .collect();
    }
    let expected = view.daily(range.0, range.1, metrics);
    get(rest, path(DAILY, range, &parameters), Some(expected)).await
}

async fn funnel(rest: &Rest, view: &Metrics, range: Range) -> Compared {
    let expected = view.funnel(range.0, range.1);
    let mut compared = get(rest, path(FUNNEL, range, &[]), Some(expected)).await;
    let Compared { said, expected, .. } = &mut compared;
    let steps = said["steps"].as_array_mut().into_iter().flatten();
    for (said, expected) in steps.zip(expected["steps"].as_array().into_iter().flatten()) {
        for name in ["conversionRate", "medianSeconds"] {
            // Fractions may differ in their last digits.
            let both = said[name].as_f64().zip(expected[name].as_f64());
            if both.is_some_and(|(said, expected)| (said - expected).abs() < 1e-5) {
                said[name] = expected[name].clone();
            }
        }
    }
    compared
}

async fn retention(rest: &Rest, view: &Metrics, range: Range, weeks: Option<usize>) -> Compared {
    let expected = view.retention(range.0, range.1, weeks.unwrap_or(8));
    let text = weeks.map(|weeks| weeks.to_string());
    let path = path(RETENTION, range, &[("weeks", text.as_deref())]);
    get(rest, path, Some(expected)).await
}

async fn compare_refusals(rest: &Rest, wrong: &mut Differences) {
    let day = |text: &str| text.parse::<NaiveDate>().expect("a date");
    let from = day("2026-01-01");
    let week = (from, day("2026-01-07"));
    let last = from + Days::new(MOST_DAYS - 1);
    let most = rest.get(&path(DAILY, (from, last), &[])).await;
    let how = "daily metrics of as many days as there may be".to_owned();
    let status = json!({"status": most.status});
    wrong.compare(Compared::new(how, status, Some(json!({"status": 200}))));
    let weeks = |weeks| path(RETENTION, week, &[("weeks", Some(weeks))]);
    let metric = |name| path(DAILY, week, &[("metrics", Some(name))]);
    for (path, parameter) in [
        (path(DAILY, (from, last + Days::new(1)), &[]), "to"),
        (path(DAILY, (week.1, week.0), &[]), "to"),
        (metric("registrations,unheard"), "metrics"),
        (
            format!("{DAILY}?from=2026-01-01T00:00:00Z&to=2026-01-02"),
            "from",
        ),
        (format!("{FUNNEL}?from=2026-02-30&to=2026-03-01"), "from"),
        (weeks("0"), "weeks"),
        (weeks("53"), "weeks"),
    ] {
        wrong.compare(refused(rest, path, parameter).await);
    }
}
