//! Examples of the analytics domain.

use std::collections::BTreeSet;

use chrono::{NaiveDate, NaiveTime, Timelike};
use serde_json::{Value, json};
use sightline_testing::hostile_log::MAX_VALUE_BYTES;
use sightline_testing::reference::{Fold, METRICS, Metrics, Verdict, event_of};

use super::{Counts, Example, added, random_log};

const DAY: i64 = 86_400;

fn view(example: &Example) -> &Metrics {
    example.fold.view()
}

fn day(text: &str) -> NaiveDate {
    text.parse().expect("a date")
}

fn registered(source: Value) -> Value {
    json!({"email": "a@b.c", "status": "active", "source": source})
}

/// A failed login, which may name a user.
fn failed(example: &mut Example, user: &str, at: i64, reason: &str) -> Verdict {
    let payload = json!({"attemptedUserId": user, "reason": reason, "userId": "not-this-one"});
    example.event("whoever", "UserLoginFailed", at, payload)
}

#[test]
fn days_in_full() {
    let mut example = Example::new(Metrics::default());
    let mut event = |user: &str, event_type: &str, at: i64, payload: Value| {
        let verdict = example.event(user, event_type, at, payload);
        assert_eq!(verdict, Verdict::Applied, "{event_type}");
    };
    for (n, source) in [
        json!("direct"),
        json!("direct"),
        json!(""),
        json!("unknown"),
        Value::Null,
    ]
    .into_iter()
    .enumerate()
    {
        event(["u", "v"][n % 2], "UserRegistered", 0, registered(source));
    }
    let long = "é".repeat(100);
    event(
        "u",
        "UserRegistered",
        0,
        registered(json!(format!("{long}1"))),
    );
    event(
        "u",
        "UserRegistered",
        0,
        registered(json!(format!("{long}2"))),
    );
    event("u", "UserEmailVerified", 0, json!({"email": "a@b.c"}));
    event("u", "UserLoggedIn", DAY - 1, json!({}));
    event("u", "UserDeleted", 5, json!({}));
    event("u", "UserLoggedIn", 6, json!({}));
    event("v", "UserLoggedIn", 7, json!({}));
    event("u", "UserLoggedIn", DAY, json!({}));
    event("u", "UserDeleted", 5, json!({"deletionType": "hard"}));
    event("w", "UserLoggedOut", 8, json!({}));
    event("w", "UserProfileUpdated", 8, json!({"updatedFields": []}));
    event("w", "UserAddressAdded", 8, added("x", true));
    let mut elsewhere = added("y", true);
    elsewhere["fullAddress"] = json!({"country": "fr"});
    event("w", "UserAddressAdded", 8, elsewhere);
    event(
        "w",
        "UserPasswordChanged",
        8,
        json!({"changeType": "self_initiated"}),
    );
    event(
        "w",
        "UserPasswordResetRequested",
        8,
        json!({"email": "a@b.c"}),
    );
    event("w", "MfaStatusChanged", 8, json!({"mfaEnabled": true}));
    event("w", "MfaStatusChanged", 8, json!({"mfaEnabled": false}));
    event("w", "MfaChallengeFailed", 8, json!({}));
    failed(&mut example, "", 9, "account_locked");
    failed(&mut example, "u", 9, "account_locked");
    failed(&mut example, "w", 9, "x");
    let skipped = example.event("u", "UserUpdated", 8, json!({"updatedFields": []}));
    assert_eq!(skipped, Verdict::Skipped);
    let bad = example.event("z", "MfaStatusChanged", 8, json!({"mfaEnabled": "yes"}));
    assert_eq!(bad, Verdict::DeadLettered);

    let zero = json!({
        "date": "1969-12-31", "registrations": {"total": 0, "bySource": {}}, "emailVerifications": 0, "logins": 0,
        "uniqueLogins": 0, "loginFailures": {"total": 0, "byReason": {}}, "logouts": 0, "profileUpdates": 0,
        "addressesAdded": {"total": 0, "byCountry": {}}, "passwordChanges": 0, "passwordResetRequests": 0,
        "mfaEnabled": 0, "mfaDisabled": 0, "mfaChallengeFailures": 0, "deletions": 0,
    });
    let first = json!({
        "date": "1970-01-01", "registrations": {"total": 7, "bySource": {"direct": 2, "unknown": 3, &long: 2}},
        "emailVerifications": 1, "logins": 3, "uniqueLogins": 2,
        "loginFailures": {"total": 3, "byReason": {"account_locked": 2, "x": 1}}, "logouts": 1, "profileUpdates": 1,
        "addressesAdded": {"total": 2, "byCountry": {"DE": 1, "FR": 1}}, "passwordChanges": 1,
        "passwordResetRequests": 1, "mfaEnabled": 1, "mfaDisabled": 1, "mfaChallengeFailures": 1, "deletions": 2,
    });
    let mut second = zero.clone();
    second["date"] = json!("1970-01-02");
    second["logins"] = json!(1);
    second["uniqueLogins"] = json!(1);
    let (from, to) = (day("1969-12-31"), day("1970-01-02"));
    let daily = view(&example).daily(from, to, &[]);
    assert_eq!(daily, json!({"days": [zero, first, second]}));
    assert_eq!(zero.as_object().expect("a day").len(), 1 + METRICS.len());
    let some = view(&example).daily(to, to, &["logins", "deletions"]);
    assert_eq!(
        some,
        json!({"days": [{"date": "1970-01-02", "logins": 1, "deletions": 0}]})
    );
}

#[test]
fn an_activity_in_full() {
    let mut example = Example::new(Metrics::default());
    let activity = |example: &Example| view(example).activity("u");
    example.event(
        "u",
        "UserAccountStatusChanged",
        1,
        json!({"newStatus": "a", "previousStatus": "b"}),
    );
    assert_eq!(activity(&example), None, "of no interest");
    failed(&mut example, "u", 5, "x");
    let expected = json!({"loginCount": 0, "failedLoginsSinceLastLogin": 1});
    assert_eq!(activity(&example), Some(expected));
    assert_eq!(view(&example).activity("whoever"), None);
    example.event("u", "UserRegistered", 30, registered(Value::Null));
    example.event("u", "UserRegistered", 20, registered(Value::Null));
    example.event("u", "UserEmailVerified", 41, json!({"email": "a@b.c"}));
    example.event("u", "UserEmailVerified", 40, json!({"email": "a@b.c"}));
    example.event("u", "UserLoggedIn", 60, json!({}));
    failed(&mut example, "u", 61, "x");
    // In log order, whatever the times are.
    example.event("u", "UserLoggedIn", 50, json!({}));
    failed(&mut example, "u", 1, "x");
    failed(&mut example, "u", 2, "x");
    let expected = json!({
        "registeredAt": "1970-01-01T00:00:30Z", "verifiedAt": "1970-01-01T00:00:40Z",
        "firstLoginAt": "1970-01-01T00:00:50Z", "lastLoginAt": "1970-01-01T00:01:00Z",
        "loginCount": 2, "failedLoginsSinceLastLogin": 2,
    });
    assert_eq!(activity(&example), Some(expected));
    example.event("u", "UserDeleted", 70, json!({}));
    example.event("u", "UserLoggedIn", 80, json!({}));
    failed(&mut example, "u", 90, "x");
    assert_eq!(activity(&example), None);
}

#[test]
fn the_funnel_counts_who_took_all_steps() {
    let mut example = Example::new(Metrics::default());
    let registered = || registered(Value::Null);
    let email = || json!({"email": "a@b.c"});
    // In any order; a step before the registration takes no time.
    example.event("a", "UserLoggedIn", DAY - 50, json!({}));
    example.event("a", "UserRegistered", DAY, registered());
    example.event("a", "UserEmailVerified", DAY + 10, email());
    example.event("a", "UserAddressAdded", 5 * DAY, added("x", true));
    example.event("a", "UserAddressAdded", DAY + 3, added("y", true));
    example.event("b", "UserRegistered", 2 * DAY - 1, registered());
    example.event("b", "UserEmailVerified", 2 * DAY + 4, email());
    // Without the second step, the later ones don't count.
    example.event("c", "UserRegistered", 2 * DAY - 1, registered());
    example.event("c", "UserLoggedIn", 2 * DAY, json!({}));
    example.event("c", "UserAddressAdded", 2 * DAY, added("z", true));
    // Beside the range, by its first registration in the log; deleted; never registered.
    example.event("d", "UserRegistered", 2 * DAY, registered());
    example.event("d", "UserRegistered", DAY, registered());
    example.event("e", "UserRegistered", DAY, registered());
    example.event("e", "UserDeleted", DAY, json!({}));
    example.event("f", "UserEmailVerified", DAY, email());
    let step = |step: &str, count: u32, rate: f64, seconds: Option<f64>| {
        let mut json = json!({"step": step, "count": count, "conversionRate": rate});
        if let Some(seconds) = seconds {
            json["medianSeconds"] = json!(seconds);
        }
        json
    };
    let (first, second) = (day("1970-01-02"), day("1970-01-03"));
    let expected = json!({"steps": [
        step("registered", 3, 1.0, Some(0.0)), step("email_verified", 2, 2.0 / 3.0, Some(7.5)),
        step("first_login", 1, 1.0 / 3.0, Some(0.0)), step("first_address", 1, 1.0 / 3.0, Some(3.0)),
    ]});
    assert_eq!(view(&example).funnel(first, first), expected);
    let expected = json!({"steps": [
        step("registered", 1, 1.0, Some(0.0)), step("email_verified", 0, 0.0, None),
        step("first_login", 0, 0.0, None), step("first_address", 0, 0.0, None),
    ]});
    assert_eq!(view(&example).funnel(second, second), expected);
    let nobody = view(&example).funnel(day("1969-01-01"), day("1969-01-01"));
    let registered = &nobody["steps"][0];
    assert_eq!(*registered, step("registered", 0, 0.0, None));
}

#[test]
fn retention_is_by_iso_weeks() {
    let mut example = Example::new(Metrics::default());
    // 1970-01-01 was a Thursday, of the week that began in 1969.
    let registered = || registered(Value::Null);
    example.event("a", "UserRegistered", 0, registered());
    for at in [0, 1, 4 * DAY - 1, 4 * DAY, 18 * DAY] {
        example.event("a", "UserLoggedIn", at, json!({}));
    }
    example.event("b", "UserRegistered", 3 * DAY, registered());
    example.event("b", "UserLoggedIn", 4 * DAY, json!({}));
    example.event("c", "UserRegistered", 18 * DAY, registered());
    // A login in a week before the registration.
    example.event("c", "UserLoggedIn", 4 * DAY, json!({}));
    example.event("d", "UserRegistered", 18 * DAY, registered());
    example.event("d", "UserDeleted", 18 * DAY, json!({}));
    let retention =
        |from: &str, to: &str, weeks| view(&example).retention(day(from), day(to), weeks);
    let first = json!({"weekStart": "1969-12-29", "size": 2, "retained": [1, 2, 0, 1]});
    let third = json!({"weekStart": "1970-01-19", "size": 1, "retained": [0, 0, 0, 0]});
    assert_eq!(
        retention("1970-01-01", "1970-02-01", 4),
        json!({"cohorts": [first, third]})
    );
    let part = json!({"weekStart": "1969-12-29", "size": 1, "retained": [0]});
    assert_eq!(
        retention("1970-01-02", "1970-01-18", 1),
        json!({"cohorts": [part]})
    );
    assert_eq!(
        retention("1970-01-05", "1970-01-18", 8),
        json!({"cohorts": []})
    );
}

/// Users log in, fail to, leave and come back in every order, at the borders of days, too.
#[test]
fn random_logs_hold_difficult_activities() {
    let mut fold = Fold::new(Metrics::default(), MAX_VALUE_BYTES);
    let mut counts = Counts::default();
    let mut logins: BTreeSet<(String, NaiveDate)> = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    for record in random_log() {
        let event = event_of(&record);
        let verdict = fold.take(&record);
        let Some(event) = event.filter(|_| verdict == Verdict::Applied) else {
            continue;
        };
        let (user, day) = (event.user(), event.occurred_at.date_naive());
        counts.is(format!("{} is applied", event.name), true);
        let time = event.occurred_at.time();
        counts.is("a day begins", time == NaiveTime::MIN);
        counts.is(
            "a day ends",
            time.hour() == 23 && time.minute() == 59 && time.second() == 59,
        );
        if event.name == "UserLoginFailed" {
            counts.is("a failed login of nobody", user.is_none());
            let key = user.as_ref().map(|user| user.as_bytes().to_vec());
            counts.is("a failed login of a user", user.is_some());
            counts.is("a failed login without a key", record.key.is_none());
            counts.is(
                "a failed login with an email",
                key.is_none() && record.key.is_some_and(|key| key.contains(&b'@')),
            );
        }
        let Some(user) = user else { continue };
        match event.name {
            "UserDeleted" => drop(deleted.insert(user)),
            "UserLoggedIn" => {
                let is_back = deleted.contains(&user);
                let again = !logins.insert((user, day));
                counts.is("a login after the deletion", is_back);
                counts.is("a login after the deletion, the same day", is_back && again);
                counts.is("two logins a day", again);
            }
            "UserLoginFailed" => {
                counts.is("a failed login after the deletion", deleted.contains(&user))
            }
            _ => {}
        }
    }
    let view: &Metrics = fold.view();
    for id in view.ids() {
        let activity = view.activity(&id).expect("known");
        let at = |name: &str| activity[name].as_str().map(str::to_owned);
        counts.is("never registered", at("registeredAt").is_none());
        counts.is(
            "failed since the last login",
            activity["failedLoginsSinceLastLogin"] != 0 && activity["loginCount"] != 0,
        );
        let early = at("firstLoginAt")
            .zip(at("registeredAt"))
            .is_some_and(|(login, registered)| login < registered);
        counts.is("a login before the registration", early);
    }
    let (from, to) = (day("2025-10-01"), day("2026-09-30"));
    for step in view.funnel(from, to)["steps"].as_array().expect("steps") {
        counts.is(format!("{} taken", step["step"]), false);
        *counts
            .0
            .get_mut(&format!("{} taken", step["step"]))
            .expect("counted") += step["count"].as_u64().expect("a count") as usize;
    }
    for cohort in view.retention(from, to, 4)["cohorts"]
        .as_array()
        .expect("cohorts")
    {
        counts.is("a cohort", true);
        let retained = cohort["retained"].as_array().expect("counts");
        counts.is(
            "a cohort that came back",
            retained[1..].iter().any(|count| *count != 0),
        );
        counts.is(
            "a cohort of another year",
            cohort["weekStart"].as_str().expect("a date") < "2026",
        );
    }
    for day in view.daily(from, to, &[])["days"].as_array().expect("days") {
        for (metric, by) in [("registrations", "bySource"), ("loginFailures", "byReason")] {
            let parts = day[metric][by].as_object().expect("parts");
            let long = |part: &String| part.chars().count() == 100;
            counts.is(format!("{metric}, a long value"), parts.keys().any(long));
            counts.is(format!("{metric}, unknown"), parts.contains_key("unknown"));
        }
    }
    counts.are_at_least(5);
    assert!(counts.0.len() >= 36, "{} kinds", counts.0.len());
}
