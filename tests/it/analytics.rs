//! Daily numbers, funnel, retention and activity: what they are made from, over both surfaces; odd and hostile
//! requests and values; and that a rebuild makes the same rows.

use serde_json::{Value, json};
use sightline::proto::analytics::v1::analytics_service_client::AnalyticsServiceClient;
use sightline::proto::analytics::v1::{
    DailyMetric, Day, FunnelStep, GetDailyMetricsRequest, GetFunnelRequest, GetRetentionRequest,
    GetUserActivityRequest,
};
use sightline_testing::app::{Clients, Running, SOON, Shared, World};
use sightline_testing::broker::{Broker, Record};
use sightline_testing::client::{Rest, escape};
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::operations::{built, project};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};
use tonic::Code;
use tonic::transport::Channel;

use crate::requests::{assert_field, assert_problem};

const DAILY: &str = "/v1/analytics/daily";
const FUNNEL: &str = "/v1/analytics/funnel";
const RETENTION: &str = "/v1/analytics/retention";

/// An event under the key `user`; its id follows from its content and from `id`.
fn event(partition: i32, user: &str, event_type: &str, at: &str, id: &str, data: Value) -> Record {
    let mut payload = json!({
        "userId": user, "profileId": "p", "email": "e@example.org", "status": "active", "addressId": "a",
        "addressType": "home", "isDefaultShipping": true, "isDefaultBilling": true, "country": "us",
        "updatedFields": ["bio"], "changeType": "self_initiated",
    });
    for (name, value) in data.as_object().expect("an object") {
        payload[name] = value.clone();
    }
    let value = json!({
        "eventType": event_type, "eventId": format!("{user} {event_type} {at} {id}"), "eventTimestamp": at,
        "payload": payload,
    });
    Record {
        partition,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp: 1_790_000_000_000,
    }
}

/// Waits until analytics has applied or skipped so many records, of all topics.
async fn projected(rest: &Rest, records: usize) {
    wait_until(SOON, "analytics is caught up", async || {
        let lag = rest.try_get("/v1/consistency/analytics").await?.json();
        let partitions = lag["partitions"].as_array().into_iter().flatten();
        let read: i64 = partitions.filter_map(|p| p["position"].as_i64()).sum();
        if read == records as i64 && lag["state"] == "caught_up" {
            return Ok(());
        }
        Err(lag.to_string())
    })
    .await;
}

fn client(clients: &Clients) -> AnalyticsServiceClient<Channel> {
    AnalyticsServiceClient::new(clients.grpc.channel.clone())
}

/// A path with a range of days.
fn ranged(path: &str, from: &str, to: &str) -> String {
    format!("{path}?from={from}&to={to}")
}

async fn get(rest: &Rest, path: &str) -> Value {
    let answer = rest.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn activity(rest: &Rest, user: &str) -> Option<Value> {
    let path = format!("/v1/analytics/users/{}/activity", escape(user));
    let answer = rest.get(&path).await;
    assert!(
        [200, 404].contains(&answer.status),
        "{path}: {}",
        answer.text()
    );
    (answer.status == 200).then(|| answer.json())
}

/// The events of some users around a midnight, in several partitions.
fn log() -> Vec<Record> {
    let none = || json!({});
    let long = "x".repeat(150);
    let second_country = json!({"country": "de", "fullAddress": {"city": "Lyon", "country": "fr"}});
    let mut log = vec![
        // 23:00 on the first day in UTC, a Sunday.
        event(
            0,
            "ada",
            "UserRegistered",
            "2026-03-02T01:00:00+02:00",
            "",
            json!({"source": "google_oauth"}),
        ),
        event(
            0,
            "ada",
            "UserEmailVerified",
            "2026-03-01T23:01:30Z",
            "",
            none(),
        ),
        event(
            0,
            "ada",
            "UserLoginFailed",
            "2026-03-01T23:59:59.999999Z",
            "",
            json!({"attemptedUserId": "ada", "reason": "invalid_credentials"}),
        ),
        event(0, "ada", "UserLoggedIn", "2026-03-02T00:00:00Z", "", none()),
        event(0, "ada", "UserLoggedIn", "2026-03-02T08:00:00Z", "", none()),
        event(
            0,
            "ada",
            "UserAddressAdded",
            "2026-03-02T09:00:00Z",
            "",
            second_country,
        ),
        event(
            0,
            "ada",
            "UserLoggedOut",
            "2026-03-02T09:10:00Z",
            "",
            none(),
        ),
        event(
            0,
            "ada",
            "UserProfileUpdated",
            "2026-03-02T09:10:00Z",
            "",
            none(),
        ),
        event(
            0,
            "ada",
            "UserPasswordChanged",
            "2026-03-02T09:10:00Z",
            "",
            none(),
        ),
        event(
            0,
            "ada",
            "UserPasswordResetRequested",
            "2026-03-02T09:10:00Z",
            "",
            none(),
        ),
        event(
            0,
            "ada",
            "MfaStatusChanged",
            "2026-03-02T09:10:00Z",
            "on",
            json!({"mfaEnabled": true}),
        ),
        event(
            0,
            "ada",
            "MfaStatusChanged",
            "2026-03-02T09:11:00Z",
            "off",
            json!({"mfaEnabled": false}),
        ),
        event(
            0,
            "ada",
            "MfaChallengeFailed",
            "2026-03-02T09:10:00Z",
            "",
            none(),
        ),
        event(
            0,
            "ada",
            "UserLoginFailed",
            "2026-03-02T10:00:00Z",
            "",
            json!({"attemptedUserId": "ada", "reason": "account_locked"}),
        ),
        // Of no interest.
        event(0, "ada", "UserUpdated", "2026-03-02T10:00:00Z", "", none()),
        // He logged in before he registered, and his events come from two partitions.
        event(1, "bob", "UserLoggedIn", "2026-03-01T12:00:00Z", "", none()),
        event(
            1,
            "bob",
            "UserRegistered",
            "2026-03-01T13:00:00Z",
            "",
            none(),
        ),
        event(
            1,
            "bob",
            "UserEmailVerified",
            "2026-03-01T13:00:30Z",
            "",
            none(),
        ),
        event(
            2,
            "bob",
            "UserAddressAdded",
            "2026-03-01T13:00:10Z",
            "",
            none(),
        ),
        // She has not verified her email, so that the steps after it don't count.
        event(
            1,
            "cy",
            "UserRegistered",
            "2026-03-01T12:00:00Z",
            "",
            json!({"source": "direct"}),
        ),
        event(1, "cy", "UserLoggedIn", "2026-03-01T12:05:00Z", "", none()),
        event(
            1,
            "cy",
            "UserLoginFailed",
            "2026-03-01T12:10:00Z",
            "",
            json!({"attemptedUserId": "cy", "reason": long}),
        ),
        event(
            2,
            "dan",
            "UserRegistered",
            "2026-03-02T10:00:00Z",
            "",
            json!({"source": "direct"}),
        ),
        event(
            2,
            "dan",
            "UserEmailVerified",
            "2026-03-02T10:01:00Z",
            "",
            none(),
        ),
        event(2, "dan", "UserLoggedIn", "2026-03-02T10:02:00Z", "", none()),
        event(
            2,
            "dan",
            "UserDeleted",
            "2026-03-02T10:03:00Z",
            "",
            json!({"deletionType": "soft"}),
        ),
        event(2, "dan", "UserLoggedIn", "2026-03-02T10:04:00Z", "", none()),
        event(
            2,
            "dan",
            "UserRegistered",
            "2026-03-02T10:05:00Z",
            "",
            json!({"source": "direct"}),
        ),
        event(
            2,
            "dan",
            "UserDeleted",
            "2026-03-02T10:06:00Z",
            "",
            json!({"deletionType": "hard"}),
        ),
        event(
            0,
            "nobody",
            "UserLoginFailed",
            "2026-03-02T10:00:00Z",
            "",
            json!({"reason": "user_not_found"}),
        ),
        event(
            0,
            "eve",
            "UserLoginFailed",
            "2026-03-02T10:00:00Z",
            "",
            json!({"attemptedUserId": "eve", "reason": "invalid_credentials"}),
        ),
        event(0, "fay", "UserDeleted", "2026-03-02T10:00:00Z", "", none()),
    ];
    // The same event again, later.
    let again = log[3].clone();
    log.push(again);
    // Verified after so many microseconds: around the edges of buckets, and in one bucket, in several years.
    for (user, day, micros) in [
        ("m1", "2026-05-01", 5_000_000),
        ("m2", "2026-05-01", 1_000_000),
        ("m3", "2026-05-01", 4_000_500_000_i64),
        ("m4", "2026-05-02", 7_250_001),
        ("n1", "2021-12-31", 8_000_000),
        ("n2", "2022-02-01", 6_000_000),
        ("n3", "2022-08-01", 9_000_000),
        ("n4", "2023-07-01", 7_000_000),
        ("n5", "2024-01-01", 6_500_000),
    ] {
        let at = format!("{day}T00:00:00Z");
        let registered: chrono::DateTime<chrono::Utc> = at.parse().expect("an instant");
        let verified = registered + chrono::TimeDelta::microseconds(micros);
        let verified = verified.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        log.push(event(0, user, "UserRegistered", &at, "", none()));
        log.push(event(0, user, "UserEmailVerified", &verified, "", none()));
    }
    log
}

/// A process that these tests share, with the events of [`log`].
async fn with_activity() -> Clients {
    static SHARED: Shared = Shared::const_new();
    let start = async || {
        let mut world = World::shared(3).await;
        world.set("SIGHTLINE_DOMAINS", "analytics");
        let log = log();
        world.broker.writer().write(&world.topic, &log).await;
        let running = world.serve().await;
        projected(&running.rest, log.len()).await;
        (world, running)
    };
    SHARED.clients(start).await
}

fn zeroes(date: &str) -> Value {
    json!({
        "date": date, "registrations": {"total": 0, "bySource": {}}, "emailVerifications": 0, "logins": 0,
        "uniqueLogins": 0, "loginFailures": {"total": 0, "byReason": {}}, "logouts": 0, "profileUpdates": 0,
        "addressesAdded": {"total": 0, "byCountry": {}}, "passwordChanges": 0, "passwordResetRequests": 0,
        "mfaEnabled": 0, "mfaDisabled": 0, "mfaChallengeFailures": 0, "deletions": 0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn days_count_every_event_once_on_its_utc_day() {
    let clients = with_activity().await;
    let mut first = zeroes("2026-03-01");
    first["registrations"] =
        json!({"total": 3, "bySource": {"direct": 1, "google_oauth": 1, "unknown": 1}});
    first["emailVerifications"] = json!(2);
    first["logins"] = json!(2);
    first["uniqueLogins"] = json!(2);
    let cut = "x".repeat(100);
    first["loginFailures"] = json!({"total": 2, "byReason": {"invalid_credentials": 1, cut: 1}});
    first["addressesAdded"] = json!({"total": 1, "byCountry": {"US": 1}});
    let mut second = zeroes("2026-03-02");
    second["registrations"] = json!({"total": 2, "bySource": {"direct": 2}});
    second["emailVerifications"] = json!(1);
    second["logins"] = json!(4);
    // Dan was deleted and came back on the same day.
    second["uniqueLogins"] = json!(2);
    second["loginFailures"] = json!({
        "total": 3, "byReason": {"account_locked": 1, "invalid_credentials": 1, "user_not_found": 1},
    });
    for name in [
        "logouts",
        "profileUpdates",
        "passwordChanges",
        "passwordResetRequests",
    ] {
        second[name] = json!(1);
    }
    for name in ["mfaEnabled", "mfaDisabled", "mfaChallengeFailures"] {
        second[name] = json!(1);
    }
    second["addressesAdded"] = json!({"total": 1, "byCountry": {"FR": 1}});
    second["deletions"] = json!(3);
    let expected = json!([zeroes("2026-02-28"), first, second, zeroes("2026-03-03")]);
    let path = ranged(DAILY, "2026-02-28", "2026-03-03");
    let days = get(&clients.rest, &path).await;
    assert_eq!(days, json!({"days": expected}));

    let request = GetDailyMetricsRequest {
        from: "2026-02-28".into(),
        to: "2026-03-03".into(),
        metrics: vec![],
    };
    let by_grpc = client(&clients).get_daily_metrics(request).await;
    let by_grpc = by_grpc.expect("an answer").into_inner().days;
    let by_grpc: Vec<Value> = by_grpc.into_iter().map(day_json).collect();
    assert_eq!(json!(by_grpc), expected);
}

/// A gRPC day in the JSON form of REST.
fn day_json(day: Day) -> Value {
    let registrations = day.registrations.expect("asked for");
    let failures = day.login_failures.expect("asked for");
    let added = day.addresses_added.expect("asked for");
    json!({
        "date": day.date,
        "registrations": {"total": registrations.total, "bySource": registrations.by_source},
        "emailVerifications": day.email_verifications, "logins": day.logins, "uniqueLogins": day.unique_logins,
        "loginFailures": {"total": failures.total, "byReason": failures.by_reason},
        "logouts": day.logouts, "profileUpdates": day.profile_updates,
        "addressesAdded": {"total": added.total, "byCountry": added.by_country},
        "passwordChanges": day.password_changes, "passwordResetRequests": day.password_reset_requests,
        "mfaEnabled": day.mfa_enabled, "mfaDisabled": day.mfa_disabled,
        "mfaChallengeFailures": day.mfa_challenge_failures, "deletions": day.deletions,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_metrics_that_were_asked_for_are_answered() {
    let clients = with_activity().await;
    let path = ranged(DAILY, "2026-03-02", "2026-03-02");
    for (query, expected) in [
        ("metrics=logins", json!({"logins": 4})),
        (
            "metrics=logins,deletions",
            json!({"logins": 4, "deletions": 3}),
        ),
        (
            "metrics=logins&metrics=logouts,logins",
            json!({"logins": 4, "logouts": 1}),
        ),
        (
            "metrics=registrations",
            json!({"registrations": {"total": 2, "bySource": {"direct": 2}}}),
        ),
    ] {
        let mut expected = expected;
        expected["date"] = json!("2026-03-02");
        let days = get(&clients.rest, &format!("{path}&{query}")).await;
        assert_eq!(days, json!({"days": [expected]}), "{query}");
    }
    let request = GetDailyMetricsRequest {
        from: "2026-03-02".into(),
        to: "2026-03-02".into(),
        metrics: vec![
            DailyMetric::Logouts.into(),
            DailyMetric::UniqueLogins.into(),
        ],
    };
    let days = client(&clients).get_daily_metrics(request).await;
    let expected = Day {
        date: "2026-03-02".into(),
        logouts: Some(1),
        unique_logins: Some(2),
        ..Day::default()
    };
    assert_eq!(days.expect("an answer").into_inner().days, [expected]);
}

fn steps(counts: [i64; 4], medians: [Option<f64>; 4]) -> Value {
    let names = [
        "registered",
        "email_verified",
        "first_login",
        "first_address",
    ];
    let rate = |count: i64| match counts[0] {
        0 => 0.0,
        all => count as f64 / all as f64,
    };
    let steps = names.iter().zip(counts).zip(medians);
    let steps = steps.map(|((step, count), median)| {
        let mut step = json!({"step": step, "count": count, "conversionRate": rate(count)});
        if let Some(median) = median {
            step["medianSeconds"] = json!(median);
        }
        step
    });
    json!({"steps": steps.collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_funnel_counts_steps_in_whatever_order_and_gives_exact_medians() {
    let clients = with_activity().await;
    let verified =
        |users, median| steps([users, users, 0, 0], [Some(0.0), Some(median), None, None]);
    for (from, to, expected) in [
        (
            "2026-03-01",
            "2026-03-02",
            steps(
                [3, 2, 2, 2],
                [Some(0.0), Some(60.0), Some(1_800.0), Some(18_005.0)],
            ),
        ),
        // Of that day there was only the deleted user.
        ("2026-03-02", "2026-03-02", steps([0; 4], [None; 4])),
        (
            "2026-05-01",
            "2026-05-01",
            steps([3, 3, 0, 0], [Some(0.0), Some(5.0), None, None]),
        ),
        (
            "2026-05-02",
            "2026-05-02",
            steps([1, 1, 0, 0], [Some(0.0), Some(7.250_001), None, None]),
        ),
        (
            "2026-05-01",
            "2026-05-02",
            steps([4, 4, 0, 0], [Some(0.0), Some(6.125_000_5), None, None]),
        ),
        (
            "1970-01-01",
            "2200-12-31",
            steps(
                [12, 11, 2, 2],
                [Some(0.0), Some(7.250_001), Some(1_800.0), Some(18_005.0)],
            ),
        ),
        ("2021-12-31", "2021-12-31", verified(1, 8.0)),
        ("2021-12-31", "2022-07-31", verified(2, 7.0)),
        ("2021-12-31", "2022-08-01", verified(3, 8.0)),
        ("2022-02-02", "2023-07-01", verified(2, 8.0)),
        ("2022-02-02", "2024-01-01", verified(3, 7.0)),
        ("2021-12-31", "2024-01-01", verified(5, 7.0)),
        ("2021-12-31", "2023-12-31", verified(4, 7.5)),
    ] {
        let path = ranged(FUNNEL, from, to);
        assert_eq!(get(&clients.rest, &path).await, expected, "{path}");
        let request = GetFunnelRequest {
            from: from.into(),
            to: to.into(),
        };
        let by_grpc = client(&clients).get_funnel(request).await;
        let by_grpc = by_grpc.expect("an answer").into_inner().steps;
        let by_grpc = by_grpc.into_iter().map(|step| {
            let mut json = json!({"count": step.count, "conversionRate": step.conversion_rate});
            json["step"] = json!(match step.step() {
                FunnelStep::Unspecified => "unspecified",
                FunnelStep::Registered => "registered",
                FunnelStep::EmailVerified => "email_verified",
                FunnelStep::FirstLogin => "first_login",
                FunnelStep::FirstAddress => "first_address",
            });
            if let Some(median) = step.median_seconds {
                json["medianSeconds"] = json!(median);
            }
            json
        });
        assert_eq!(json!({"steps": by_grpc.collect::<Vec<_>>()}), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_counts_by_iso_week_of_registration() {
    let clients = with_activity().await;
    for (from, to, weeks, expected) in [
        (
            "2026-03-01",
            "2026-03-02",
            Some(3),
            json!([{"weekStart": "2026-02-23", "size": 3, "retained": [2, 1, 0]}]),
        ),
        (
            "2026-03-01",
            "2026-03-02",
            Some(1),
            json!([{"weekStart": "2026-02-23", "size": 3, "retained": [2]}]),
        ),
        ("2026-03-02", "2026-04-30", None, json!([])),
        (
            "2026-03-01",
            "2026-05-01",
            None,
            json!([
                {"weekStart": "2026-02-23", "size": 3, "retained": [2, 1, 0, 0, 0, 0, 0, 0]},
                {"weekStart": "2026-04-27", "size": 3, "retained": [0, 0, 0, 0, 0, 0, 0, 0]},
            ]),
        ),
    ] {
        let weeks_query = weeks.map_or(String::new(), |weeks| format!("&weeks={weeks}"));
        let path = format!("{}{weeks_query}", ranged(RETENTION, from, to));
        assert_eq!(
            get(&clients.rest, &path).await,
            json!({"cohorts": expected}),
            "{path}"
        );
        let request = GetRetentionRequest {
            from: from.into(),
            to: to.into(),
            weeks,
        };
        let by_grpc = client(&clients).get_retention(request).await;
        let by_grpc = by_grpc.expect("an answer").into_inner().cohorts;
        let by_grpc = by_grpc.into_iter().map(|cohort| {
            json!({"weekStart": cohort.week_start, "size": cohort.size, "retained": cohort.retained})
        });
        assert_eq!(json!(by_grpc.collect::<Vec<_>>()), expected);
    }
    let whole = get(
        &clients.rest,
        &format!("{}&weeks=52", ranged(RETENTION, "2026-03-01", "2026-03-01")),
    )
    .await;
    assert_eq!(
        whole["cohorts"][0]["retained"].as_array().map(Vec::len),
        Some(52)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_is_that_of_users_who_are_not_deleted() {
    let clients = with_activity().await;
    for (user, expected) in [
        (
            "ada",
            Some(json!({
                "registeredAt": "2026-03-01T23:00:00Z", "verifiedAt": "2026-03-01T23:01:30Z",
                "firstLoginAt": "2026-03-02T00:00:00Z", "lastLoginAt": "2026-03-02T08:00:00Z",
                "loginCount": 2, "failedLoginsSinceLastLogin": 1,
            })),
        ),
        (
            "bob",
            Some(json!({
                "registeredAt": "2026-03-01T13:00:00Z", "verifiedAt": "2026-03-01T13:00:30Z",
                "firstLoginAt": "2026-03-01T12:00:00Z", "lastLoginAt": "2026-03-01T12:00:00Z",
                "loginCount": 1, "failedLoginsSinceLastLogin": 0,
            })),
        ),
        (
            "eve",
            Some(json!({"loginCount": 0, "failedLoginsSinceLastLogin": 1})),
        ),
        ("dan", None),
        ("fay", None),
        ("nobody", None),
    ] {
        assert_eq!(activity(&clients.rest, user).await, expected, "{user}");
        let request = GetUserActivityRequest {
            user_id: user.into(),
        };
        let by_grpc = client(&clients).get_user_activity(request).await;
        match (by_grpc, expected) {
            (Ok(answer), Some(expected)) => {
                let token = answer.metadata().get("sightline-consistency-token");
                assert!(token.is_some(), "{user}");
                let activity = answer.into_inner().activity.expect("an activity");
                assert_eq!(json!(activity.login_count), expected["loginCount"]);
                let failed = activity.failed_logins_since_last_login;
                assert_eq!(json!(failed), expected["failedLoginsSinceLastLogin"]);
                let seconds = activity.registered_at.map(|at| at.seconds);
                let registered = expected["registeredAt"].as_str();
                let registered: Option<chrono::DateTime<chrono::Utc>> =
                    registered.map(|at| at.parse().expect("an instant"));
                assert_eq!(seconds, registered.map(|at| at.timestamp()));
            }
            (Err(status), None) => assert_eq!(status.code(), Code::NotFound, "{user}"),
            (answer, expected) => panic!("{user}: {answer:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_token_state_and_etag() {
    let rest = with_activity().await.rest;
    for path in [
        ranged(DAILY, "2026-03-01", "2026-03-02"),
        ranged(FUNNEL, "2026-03-01", "2026-03-02"),
        ranged(RETENTION, "2026-03-01", "2026-03-02"),
        "/v1/analytics/users/ada/activity".to_owned(),
    ] {
        let answer = rest.get(&path).await;
        assert_eq!(answer.header("sightline-state"), "caught_up", "{path}");
        assert!(!answer.token().is_empty(), "{path}");
        let etag = answer.header("etag").to_owned();
        let headers = [("if-none-match", etag.as_str())];
        let again = rest.send(http::Method::GET, &path, &headers, &[]).await;
        assert_eq!(
            (again.status, again.token()),
            (304, answer.token()),
            "{path}"
        );
    }
    let unknown = rest.get("/v1/analytics/users/dan/activity").await;
    assert!(!unknown.token().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_refused_and_named() {
    let clients = with_activity().await;
    let rest = &clients.rest;
    let day = "2026-03-01";
    for path in [DAILY, FUNNEL, RETENTION] {
        for (query, fields) in [
            ("", &["from", "to"][..]),
            ("?from=2026-03-01", &["to"]),
            ("?to=2026-03-01", &["from"]),
            ("?from=2026-03-02&to=2026-03-01", &["to"]),
            ("?from=2026-02-29&to=2026-03-01", &["from"]),
            ("?from=2026-03-01&to=2026-03-1", &["to"]),
            ("?from=2026-03-01T00:00:00Z&to=2026-03-01", &["from"]),
            ("?from=&to=2026-03-01", &["from"]),
            ("?from=%00&to=2026-03-01", &["from"]),
            ("?from=yesterday&to=today", &["from", "to"]),
            ("?from=2026-03-01&from=2026-03-01&to=2026-03-01", &["from"]),
            (
                "?from=2026-03-01&to=2026-03-01&until=2026-03-01",
                &["until"],
            ),
            ("?from=2026-03-01&to=2026-03-01&From=2026-03-01", &["From"]),
        ] {
            let path = format!("{path}{query}");
            let problem = assert_problem(&path, &rest.get(&path).await, 400);
            for field in fields {
                assert_field(&path, &problem, field);
            }
        }
    }
    for metrics in [
        "",
        "Logins",
        "logins,",
        "logins,all",
        "unique_logins",
        "logins%20",
        "%00",
    ] {
        let path = format!("{}&metrics={metrics}", ranged(DAILY, day, day));
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "metrics");
    }
    for weeks in [
        "",
        "0",
        "53",
        "-1",
        "+8",
        "8.0",
        "eight",
        "99999999999999999999",
        "٨",
    ] {
        let path = format!("{}&weeks={}", ranged(RETENTION, day, day), escape(weeks));
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "weeks");
    }
    let path = ranged(DAILY, "2016-01-01", "2026-01-08");
    let problem = assert_problem(&path, &rest.get(&path).await, 400);
    assert_field(&path, &problem, "to");
    let longest = get(rest, &ranged(DAILY, "2016-01-01", "2026-01-07")).await;
    assert_eq!(longest["days"].as_array().map(Vec::len), Some(3_660));
    for path in [FUNNEL, RETENTION] {
        get(rest, &ranged(path, "0000-01-01", "9999-12-31")).await;
    }
    for id in ["%00", "%ff", &"x".repeat(256)] {
        let path = format!("/v1/analytics/users/{id}/activity");
        let problem = assert_problem(&path, &rest.get(&path).await, 400);
        assert_field(&path, &problem, "userId");
    }

    let mut grpc = client(&clients);
    let refused =
        |status: tonic::Status| assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    for (from, to, metrics) in [
        ("", day, vec![]),
        (day, "", vec![]),
        (day, "2026-3-1", vec![]),
        (day, day, vec![0]),
        (day, day, vec![1, 99]),
        (day, day, vec![-1]),
    ] {
        let request = GetDailyMetricsRequest {
            from: from.into(),
            to: to.into(),
            metrics,
        };
        refused(grpc.get_daily_metrics(request).await.expect_err("refused"));
    }
    for weeks in [0, 53, -1, i32::MAX, i32::MIN] {
        let request = GetRetentionRequest {
            from: day.into(),
            to: day.into(),
            weeks: Some(weeks),
        };
        refused(grpc.get_retention(request).await.expect_err("refused"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_too_many_breakdowns_are_refused_with_the_number_that_fits() {
    let mut world = World::shared(1).await;
    world.set("SIGHTLINE_DOMAINS", "analytics");
    let running = world.serve().await;
    let mut connection = PgConnection::connect(&world.database.url)
        .await
        .expect("it answers");
    // Values of 103 bytes: two days of ten thousand fit into 3 MiB, three do not; nor does one of forty thousand.
    sqlx::raw_sql(
        "INSERT INTO analytics_live.daily_counts
         SELECT date '2026-01-01' + day, 'loginFailures', lpad(n::text, 97, 'ab') || 'äöü', 0, 1
         FROM generate_series(0, 3) AS day, generate_series(1, CASE WHEN day < 3 THEN 10000 ELSE 40000 END) AS n",
    )
    .execute(&mut connection)
    .await
    .expect("inserted");
    let rest = &running.rest;
    let two = get(rest, &ranged(DAILY, "2026-01-01", "2026-01-02")).await;
    for day in two["days"].as_array().expect("days") {
        assert_eq!(day["loginFailures"]["total"], 10_000);
        let reasons = day["loginFailures"]["byReason"].as_object();
        assert_eq!(reasons.map(|reasons| reasons.len()), Some(10_000));
    }
    for (from, to, says) in [
        ("2026-01-01", "2026-01-03", "the first 2 days"),
        ("2025-12-31", "2026-01-04", "the first 3 days"),
        ("2026-01-04", "2026-01-04", "fewer metrics"),
    ] {
        let path = ranged(DAILY, from, to);
        let answer = rest.get(&path).await;
        assert!(!answer.token().is_empty(), "it says as of when");
        let problem = assert_problem(&path, &answer, 400);
        assert_eq!(problem["reason"], "RESPONSE_TOO_LARGE", "{path}");
        assert_field(&path, &problem, "to");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains(says), "{path}: {detail}");
    }
    let path = format!(
        "{}&metrics=logins",
        ranged(DAILY, "2026-01-01", "2026-01-04")
    );
    get(rest, &path).await;
    let request = GetDailyMetricsRequest {
        from: "2026-01-01".into(),
        to: "2026-01-02".into(),
        metrics: vec![],
    };
    let days = client(&running).get_daily_metrics(request).await;
    assert_eq!(days.expect("it fits").into_inner().days.len(), 2);
}

/// Before all topics are there, the view is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_answered_before_the_view_is_ready_activity_is_not() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 1).await;
    let topics = format!("{},{}", world.topic, sightline_testing::unique("missing"));
    world
        .set("SIGHTLINE_KAFKA_TOPICS", &topics)
        .set("SIGHTLINE_DOMAINS", "analytics");
    let running = world.serve().await;
    let rest = &running.rest;
    let day = "2026-03-01";
    assert_eq!(
        get(rest, &ranged(DAILY, day, day)).await,
        json!({"days": [zeroes(day)]})
    );
    assert_eq!(
        get(rest, &ranged(FUNNEL, day, day)).await,
        steps([0; 4], [None; 4])
    );
    assert_eq!(
        get(rest, &ranged(RETENTION, day, day)).await,
        json!({"cohorts": []})
    );
    let path = "/v1/analytics/users/ada/activity";
    let problem = assert_problem(path, &rest.get(path).await, 503);
    assert_eq!(problem["reason"], "VIEW_NOT_READY");
}

/// Rows that were counted and taken away again, and users whose events come from two topics and several partitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_makes_the_same_rows() {
    let Some(broker) = Broker::real() else { return };
    let mut world = World::new(broker, Database::create().await, 3).await;
    let (topic, other) = (world.topic.clone(), format!("{}.other", world.topic));
    world
        .set("SIGHTLINE_KAFKA_TOPICS", &format!("{topic},{other}"))
        .set("SIGHTLINE_DOMAINS", "analytics");
    world.broker.create_topic(&other, 1).await;
    let writer = world.broker.writer();
    let running: Running = world.serve().await;
    let rest = &running.rest;
    let mut written = 0;
    let mut write = async |topic: &str, records: &[Record]| {
        writer.write(topic, records).await;
        written += records.len();
        projected(rest, written).await;
        written
    };
    write(&topic, &log()).await;
    let path = ranged(FUNNEL, "2026-03-01", "2026-03-02");
    // What makes a step's time shorter takes the longer one away; the other topic has a registration, too, a later log's.
    let late = [
        event(
            0,
            "ada",
            "UserEmailVerified",
            "2026-03-01T23:00:02Z",
            "",
            json!({}),
        ),
        event(
            0,
            "ada",
            "UserRegistered",
            "2026-03-05T00:00:00Z",
            "",
            json!({}),
        ),
        event(
            0,
            "ada",
            "UserLoggedIn",
            "2026-03-09T00:00:00Z",
            "",
            json!({}),
        ),
        event(
            0,
            "ada",
            "UserLoggedIn",
            "2026-03-02T12:00:00Z",
            "other",
            json!({}),
        ),
    ];
    write(&other, &late).await;
    let expected = steps(
        [3, 2, 2, 2],
        [Some(0.0), Some(16.0), Some(1_800.0), Some(18_005.0)],
    );
    assert_eq!(get(rest, &path).await, expected);
    let unique = format!(
        "{}&metrics=uniqueLogins",
        ranged(DAILY, "2026-03-02", "2026-03-02")
    );
    assert_eq!(get(rest, &unique).await["days"][0]["uniqueLogins"], 2);
    // Deleted from another topic than the one with the other events.
    let deleted = [event(
        0,
        "bob",
        "UserDeleted",
        "2026-03-10T00:00:00Z",
        "",
        json!({}),
    )];
    let all = write(&other, &deleted).await;
    let expected = steps(
        [2, 1, 1, 1],
        [Some(0.0), Some(2.0), Some(3_600.0), Some(36_000.0)],
    );
    assert_eq!(get(rest, &path).await, expected);
    assert_eq!(activity(rest, "bob").await, None);

    let paths = [
        ranged(DAILY, "2026-02-01", "2026-05-31"),
        ranged(FUNNEL, "2026-02-01", "2026-05-31"),
        ranged(RETENTION, "2026-02-01", "2026-05-31"),
        "/v1/analytics/users/ada/activity".to_owned(),
    ];
    let mut before = Vec::new();
    for path in &paths {
        before.push(get(rest, path).await);
    }
    rebuild_and_compare(rest, all).await;
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(get(rest, path).await, before, "{path}");
    }
}

/// Rebuilds the view, and switches to the new version, which must have the same rows.
async fn rebuild_and_compare(rest: &Rest, records: usize) {
    project(rest, "analytics", "rebuild", json!({})).await;
    built(rest, "analytics", records as i64).await;
    let switch = "/v1/projections/analytics/switch";
    wait_until(SOON, "the versions are equal", async || {
        let answer = rest.post(switch, &json!({"compare": true})).await;
        match answer.status {
            200 => Ok(()),
            409 if answer.json()["reason"] == "NOT_CAUGHT_UP" => Err(answer.text()),
            _ => panic!("{}", answer.text()),
        }
    })
    .await;
}

/// Writers of several partitions count in the same rows; those of the rebuild have other batches.
#[tokio::test(flavor = "multi_thread")]
async fn batches_side_by_side_count_everything_once() {
    let Some(broker) = Broker::real() else { return };
    let shape = Shape {
        records: 8_000,
        partitions: 6,
        users: 300,
    };
    let log = generate(seed() + 31, shape);
    let mut world = World::new(broker, Database::create().await, shape.partitions).await;
    world.set("SIGHTLINE_DOMAINS", "analytics");
    let running = world.serve().await;
    let writer = world.broker.writer();
    for part in log.chunks(100) {
        writer.write(&world.topic, part).await;
    }
    projected(&running.rest, log.len()).await;
    rebuild_and_compare(&running.rest, log.len()).await;
    let failed = running.app.log().into_iter().find(|line| {
        let level = line["level"].as_str().unwrap_or_default();
        level == "ERROR" || line.to_string().contains("40P01")
    });
    assert_eq!(failed, None);
}
