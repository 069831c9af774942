//! Compares the analytics domain's answers with the reference fold.

use chrono::{Days, NaiveDate};
use serde_json::json;
use sightline::proto::analytics::v1::{
    DailyMetric, GetDailyMetricsRequest, GetFunnelRequest, GetRetentionRequest,
    GetUserActivityRequest,
};

use super::{Compared, Depth, Differences, SAMPLED, called, get, refused, some};
use crate::app::Clients;
use crate::client::{
    Grpc, Rest, activity_json, daily_json, escape, funnel_json, retention_json, with_query,
};
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
    let all: Vec<&String> = ids.iter().chain(&deleted).chain([&nobody]).collect();
    let activities = all
        .iter()
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
            let metrics = some_metrics(n);
            wrong.compare(daily(rest, view, *range, &metrics, n).await);
        }
        compare_refusals(rest, wrong).await;
        compare_grpc(&clients.grpc, view, &all, &parts, wrong).await;
    }
}

/// The n-th selection of metrics.
fn some_metrics(n: usize) -> Vec<&'static str> {
    METRICS.into_iter().skip(n % 3).step_by(n % 4 + 2).collect()
}

/// Compares some of the activities and ranges.
async fn compare_grpc(
    grpc: &Grpc,
    view: &Metrics,
    ids: &[&String],
    ranges: &[Range],
    wrong: &mut Differences,
) {
    let activities = some(ids, 2 * SAMPLED).map(|&id| async move {
        let request = GetUserActivityRequest {
            user_id: id.clone(),
        };
        let answer = grpc.analytics().get_user_activity(request).await;
        let said = called(answer, |answer| {
            activity_json(answer.activity.expect("an activity"))
        });
        Compared::new(format!("GetUserActivity {id:?}"), said, view.activity(id))
    });
    wrong.compare_all(activities).await;
    for (n, range) in some(ranges, 12).enumerate() {
        let (first, last) = *range;
        let (from, to) = (first.to_string(), last.to_string());
        // All of them, or a selection.
        let metrics = if n.is_multiple_of(2) {
            vec![]
        } else {
            some_metrics(n)
        };
        let request = GetDailyMetricsRequest {
            from: from.clone(),
            to: to.clone(),
            metrics: metrics.iter().map(|name| number(name)).collect(),
        };
        let answer = grpc.analytics().get_daily_metrics(request).await;
        let expected = view.daily(first, last, &metrics);
        let how = format!("GetDailyMetrics {from} {to} {metrics:?}");
        wrong.compare(Compared::new(
            how,
            called(answer, daily_json),
            Some(expected),
        ));
        let request = GetFunnelRequest {
            from: from.clone(),
            to: to.clone(),
        };
        let answer = grpc.analytics().get_funnel(request).await;
        let expected = view.funnel(first, last);
        let how = format!("GetFunnel {from} {to}");
        let compared = Compared::new(how, called(answer, funnel_json), Some(expected));
        wrong.compare(with_near_fractions(compared));
        let weeks = [None, Some(52), Some(1)][n % 3];
        let how = format!("GetRetention {from} {to} {weeks:?}");
        let request = GetRetentionRequest { from, to, weeks };
        let answer = grpc.analytics().get_retention(request).await;
        let expected = view.retention(first, last, weeks.unwrap_or(8) as usize);
        wrong.compare(Compared::new(
            how,
            called(answer, retention_json),
            Some(expected),
        ));
    }
}

/// The number of a metric in gRPC: `mfaEnabled` is `DAILY_METRIC_MFA_ENABLED`.
fn number(metric: &str) -> i32 {
    let mut name = "DAILY_METRIC_".to_owned();
    for letter in metric.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    DailyMetric::from_str_name(&name).expect("a metric") as i32
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
    with_near_fractions(get(rest, path(FUNNEL, range, &[]), Some(expected)).await)
}

/// A funnel whose fractions equal the expected ones where they differ in their last digits only.
fn with_near_fractions(mut compared: Compared) -> Compared {
    let Compared { said, expected, .. } = &mut compared;
    let steps = said["steps"].as_array_mut().into_iter().flatten();
    for (said, expected) in steps.zip(expected["steps"].as_array().into_iter().flatten()) {
        for name in ["conversionRate", "medianSeconds"] {
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
