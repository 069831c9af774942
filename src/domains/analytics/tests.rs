use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::contribution::{Contribution, StepReached, first_day_of_week};
use super::metric::Metric;
use super::projection::{Changes, Effects};
use super::queries::DayRange;
use super::state::{Activity, ActivityState, DaySet, Registration, day_number};
use crate::fold::examples::{assert_states_are_read, event};
use crate::fold::users::UserState;
use crate::projector::{NewEvent, Projection};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// An event of the user `u` at an instant.
fn event_at(instant: DateTime<Utc>, event_type: &str, mut payload: Value) -> NewEvent {
    payload["attemptedUserId"] = json!("u");
    let mut new_event = event(1, event_type, payload);
    new_event.event.occurred_at = instant;
    new_event
}

fn payload_of(event_type: &str) -> Value {
    match event_type {
        "UserRegistered" => json!({"email": "e", "status": "active"}),
        "UserEmailVerified" | "UserPasswordResetRequested" => json!({"email": "e"}),
        "UserLoginFailed" => json!({"reason": "invalid_credentials"}),
        "UserProfileUpdated" => json!({"updatedFields": []}),
        "UserAddressAdded" => json!({
            "addressId": "a", "addressType": "home", "isDefaultShipping": false, "isDefaultBilling": false, "country": "de",
        }),
        "UserPasswordChanged" => json!({"changeType": "self_initiated"}),
        "MfaStatusChanged" => json!({"mfaEnabled": true}),
        _ => json!({}),
    }
}

fn fold(events: &[(&str, &str)]) -> ActivityState {
    let mut state = ActivityState::default();
    for (instant, event_type) in events {
        let new_event = event_at(at(instant), event_type, payload_of(event_type));
        state.apply(&new_event, &mut Effects::default());
    }
    state
}

#[test]
fn each_event_counts_for_one_metric_and_under_its_breakdown() {
    let long = "é".repeat(101);
    let cut = "é".repeat(100);
    let address = |full: Value| {
        let mut payload = payload_of("UserAddressAdded");
        payload["fullAddress"] = full;
        payload
    };
    let registered = |source: Value| json!({"email": "e", "status": "active", "source": source});
    for (event_type, payload, metric, breakdown) in [
        (
            "UserRegistered",
            registered(json!("direct")),
            Metric::Registrations,
            "direct",
        ),
        (
            "UserRegistered",
            registered(json!(null)),
            Metric::Registrations,
            "unknown",
        ),
        (
            "UserRegistered",
            registered(json!("")),
            Metric::Registrations,
            "unknown",
        ),
        (
            "UserRegistered",
            registered(json!(long)),
            Metric::Registrations,
            &cut,
        ),
        (
            "UserEmailVerified",
            json!({"email": "e"}),
            Metric::EmailVerifications,
            "",
        ),
        ("UserLoggedIn", json!({}), Metric::Logins, ""),
        (
            "UserLoginFailed",
            json!({"reason": "a\u{0}b"}),
            Metric::LoginFailures,
            "a\u{fffd}b",
        ),
        ("UserLoggedOut", json!({}), Metric::Logouts, ""),
        (
            "UserProfileUpdated",
            json!({"updatedFields": ["bio"]}),
            Metric::ProfileUpdates,
            "",
        ),
        (
            "UserAddressAdded",
            payload_of("UserAddressAdded"),
            Metric::AddressesAdded,
            "DE",
        ),
        (
            "UserAddressAdded",
            address(json!({"countryCode": "fr"})),
            Metric::AddressesAdded,
            "FR",
        ),
        (
            "UserAddressAdded",
            address(json!({"city": "Lyon"})),
            Metric::AddressesAdded,
            "DE",
        ),
        (
            "UserPasswordChanged",
            payload_of("UserPasswordChanged"),
            Metric::PasswordChanges,
            "",
        ),
        (
            "UserPasswordResetRequested",
            json!({"email": "e"}),
            Metric::PasswordResetRequests,
            "",
        ),
        (
            "MfaStatusChanged",
            json!({"mfaEnabled": true}),
            Metric::MfaEnabled,
            "",
        ),
        (
            "MfaStatusChanged",
            json!({"mfaEnabled": false}),
            Metric::MfaDisabled,
            "",
        ),
        (
            "MfaChallengeFailed",
            json!({}),
            Metric::MfaChallengeFailures,
            "",
        ),
        (
            "UserDeleted",
            json!({"deletionType": "hard"}),
            Metric::Deletions,
            "",
        ),
    ] {
        let found = Metric::of(&event(1, event_type, payload).event.payload);
        assert_eq!(found, Some((metric, breakdown.to_owned())), "{event_type}");
    }
    let other = event(1, "UserUpdated", json!({"updatedFields": []}));
    assert_eq!(Metric::of(&other.event.payload), None);
}

#[test]
fn activity_keeps_the_earliest_and_latest_times_and_the_first_registration() {
    let state = fold(&[
        ("2026-01-03T00:00:00Z", "UserLoginFailed"),
        ("2026-01-02T00:00:00Z", "UserLoggedIn"),
        ("2026-01-09T00:00:00Z", "UserRegistered"),
        ("2026-01-01T00:00:00Z", "UserRegistered"),
        ("2026-01-05T00:00:00Z", "UserEmailVerified"),
        ("2026-01-04T00:00:00Z", "UserEmailVerified"),
        ("2026-01-08T00:00:00Z", "UserLoggedIn"),
        ("2026-01-01T00:00:00Z", "UserLoggedIn"),
        ("2026-01-06T00:00:00Z", "UserLoginFailed"),
        ("2026-01-07T00:00:00Z", "UserAddressAdded"),
        ("2026-01-06T00:00:00Z", "UserAddressAdded"),
    ]);
    let expected = Activity {
        registration: Some(Registration {
            at: at("2026-01-09T00:00:00Z"),
            log: 1,
        }),
        verified_at: Some(at("2026-01-04T00:00:00Z")),
        first_login_at: Some(at("2026-01-01T00:00:00Z")),
        last_login_at: Some(at("2026-01-08T00:00:00Z")),
        first_address_at: Some(at("2026-01-06T00:00:00Z")),
        login_count: 3,
        last_login_log: Some(1),
        failed_logins: BTreeMap::from([(1, 1)]),
    };
    assert_eq!(state.activity, expected);
}

#[test]
fn a_deletion_erases_all_but_the_days_with_logins() {
    let mut state = fold(&[
        ("2026-01-01T00:00:00Z", "UserRegistered"),
        ("2026-01-02T00:00:00Z", "UserLoggedIn"),
        ("2026-01-02T01:00:00Z", "UserDeleted"),
        ("2026-01-02T02:00:00Z", "UserRegistered"),
    ]);
    assert_eq!(state.activity, Activity::default());
    assert!(state.is_deleted);
    assert_eq!(Contribution::of(&state), Contribution::default());
    for (instant, unique) in [("2026-01-02T03:00:00Z", 0), ("2026-01-03T00:00:00Z", 1)] {
        let mut effects = Effects::default();
        state.apply(
            &event_at(at(instant), "UserLoggedIn", json!({})),
            &mut effects,
        );
        assert_eq!(effects.unique_logins.len(), unique, "{instant}");
    }
    assert_eq!(state.activity, Activity::default());
}

#[test]
fn a_step_counts_after_those_before_it_and_never_takes_less_than_no_time() {
    let all = [
        ("2026-01-01T10:00:00Z", "UserRegistered"),
        ("2026-01-01T10:01:30Z", "UserEmailVerified"),
        ("2026-01-01T09:00:00Z", "UserLoggedIn"),
        ("2026-01-01T10:00:00.000001Z", "UserAddressAdded"),
    ];
    for (events, expected) in [
        (&all[..], &[0, 90_000_000, 0, 1][..]),
        (&all[..3], &[0, 90_000_000, 0]),
        (&[all[0], all[2], all[3]], &[0]),
        (&[all[0], all[1], all[3]], &[0, 90_000_000]),
        (&all[1..], &[]),
        (&[], &[]),
    ] {
        let contribution = Contribution::of(&fold(events));
        let micros: Vec<i64> = contribution.steps().map(|reached| reached.micros).collect();
        assert_eq!(micros, expected, "{events:?}");
    }
}

#[test]
fn weeks_are_iso_weeks_from_that_of_the_registration() {
    for (registered, logins, weeks) in [
        // 2026-12-31 is a Thursday: its week lasts until Sunday, 2027-01-03.
        (
            "2026-12-31T23:59:59Z",
            vec!["2027-01-03T23:59:59Z"],
            vec![0],
        ),
        (
            "2026-12-31T23:59:59Z",
            vec!["2027-01-04T00:00:00Z"],
            vec![1],
        ),
        (
            "2027-01-03T00:00:00Z",
            vec!["2027-01-04T00:00:00Z"],
            vec![1],
        ),
        ("2027-01-04T00:00:00Z", vec!["2027-01-03T23:59:59Z"], vec![]),
        (
            "2027-01-07T12:00:00Z",
            vec!["2027-01-04T00:00:00Z"],
            vec![0],
        ),
        (
            "2026-01-01T00:00:00Z",
            vec!["2026-12-27T00:00:00Z", "2026-12-28T00:00:00Z"],
            vec![51],
        ),
        (
            "1970-01-01T00:00:00Z",
            vec!["1970-01-04T00:00:00Z", "1970-01-05T00:00:00Z"],
            vec![0, 1],
        ),
        (
            "2200-12-31T00:00:00Z",
            vec!["2200-12-31T23:00:00Z"],
            vec![0],
        ),
    ] {
        let mut events = vec![(registered, "UserRegistered")];
        events.extend(logins.iter().map(|login| (*login, "UserLoggedIn")));
        // A login may be known before the registration.
        for _ in 0..events.len() {
            events.rotate_left(1);
            let contribution = Contribution::of(&fold(&events));
            let found: Vec<i16> = contribution.weeks().map(|retained| retained.week).collect();
            assert_eq!(found, weeks, "{events:?}");
        }
    }
}

#[test]
fn days_are_utc_days() {
    for (instant, day) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T23:59:59.999999Z", 0),
        ("1970-01-02T00:00:00Z", 1),
        ("2026-10-01T01:00:00+02:00", 20_726),
        ("2026-10-01T02:00:00+02:00", 20_727),
        ("2026-10-01T23:30:00-01:00", 20_728),
        ("2200-12-31T23:59:59Z", 84_370),
    ] {
        assert_eq!(day_number(at(instant)), day, "{instant}");
    }
}

#[test]
fn ranges_of_days_are_read_strictly() {
    let range = |from, to| DayRange::parse(from, to);
    assert!(range(Some("2026-02-28"), Some("2026-02-28")).is_ok());
    assert!(range(Some("2024-02-29"), Some("9999-12-31")).is_ok());
    for bad in [
        "",
        "2026",
        "2026-02",
        "2026-02-29",
        "2026-2-01",
        "2026-02-1",
        "26-02-01",
        "+2026-02-01",
        "2026-02-01Z",
        "2026-02-01T00:00:00Z",
        "02/01/2026",
        "2026-13-01",
        "2026-02-00",
        " 2026-02-01",
        "２026-02-01",
        "12026-02-01",
    ] {
        let refused = range(Some("2026-01-01"), Some(bad)).unwrap_err();
        assert_eq!(refused.fields()[0].field, "to", "{bad}");
        let refused = range(Some(bad), Some("2026-01-01")).unwrap_err();
        assert_eq!(refused.fields()[0].field, "from", "{bad}");
    }
    let fields = |error: crate::error::Error| -> Vec<String> {
        let fields = error.fields().iter();
        fields.map(|violation| violation.field.clone()).collect()
    };
    assert_eq!(fields(range(None, None).unwrap_err()), ["from", "to"]);
    let backwards = range(Some("2026-01-02"), Some("2026-01-01"));
    assert_eq!(fields(backwards.unwrap_err()), ["to"]);
}

#[test]
fn states_of_former_releases_are_read() {
    let stored = include_str!("../../../tests/fixtures/states/analytics.jsonl");
    let code_versions = assert_states_are_read::<ActivityState>(stored);
    let newest = code_versions.last().copied().unwrap_or_default();
    let current = super::Analytics.declared_code_version();
    assert_eq!(
        newest,
        i64::from(current),
        "add a state of this code version"
    );
}

/// The view's tables of counters.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    days: BTreeMap<(i32, &'static str, String, i16), i64>,
    funnel: BTreeMap<(i32, i16, i16, i16), i64>,
    retention: BTreeMap<(i32, i16, i16), i64>,
    times: BTreeSet<(StepReached, Uuid)>,
}

impl Tables {
    fn add(&mut self, changes: Changes) {
        add(&mut self.days, changes.days);
        add(&mut self.funnel, changes.funnel);
        add(&mut self.retention, changes.retention);
        for (row, sign) in changes.times {
            let is_changed = match sign {
                1 => self.times.insert(row),
                _ => self.times.remove(&row),
            };
            assert!(is_changed, "{row:?} twice, or removed before it was there");
        }
    }
}

fn add<K: Ord>(table: &mut BTreeMap<K, i64>, changes: BTreeMap<K, i64>) {
    for (key, count) in changes {
        *table.entry(key).or_default() += count;
    }
    table.retain(|_, count| *count != 0);
}

const TYPES: &[&str] = &[
    "UserRegistered",
    "UserEmailVerified",
    "UserLoggedIn",
    "UserLoginFailed",
    "UserAddressAdded",
    "UserLoggedOut",
    "UserDeleted",
];

/// Events of three users, within some weeks; deletions are rare.
fn events() -> impl Strategy<Value = Vec<(usize, NewEvent)>> {
    let kinds = prop_oneof![12 => 0..TYPES.len() - 1, 1 => Just(TYPES.len() - 1)];
    let one = (0..3_usize, kinds, 0..30_i64 * 86_400, 1..3_i32);
    let one = one.prop_map(|(user, kind, second, log_id)| {
        let instant = at("2026-12-20T00:00:00Z") + TimeDelta::seconds(second);
        let mut new_event = event_at(instant, TYPES[kind], payload_of(TYPES[kind]));
        new_event.log_id = log_id;
        (user, new_event)
    });
    proptest::collection::vec(one, 0..60)
}

/// The view after events that came in batches, which end before the given numbers.
fn projected(events: &[(usize, NewEvent)], cuts: &BTreeSet<usize>) -> (Tables, [ActivityState; 3]) {
    let (mut tables, mut states) = (Tables::default(), <[ActivityState; 3]>::default());
    let mut begin = 0;
    let ends = cuts.iter().copied().filter(|cut| *cut < events.len());
    for end in ends.chain([events.len()]) {
        let mut changes = Changes::default();
        for (user, state) in states.iter_mut().enumerate() {
            let mut effects = Effects::default();
            let own = events[begin..end].iter().filter(|(of, _)| *of == user);
            for (_, new_event) in own {
                state.apply(new_event, &mut effects);
            }
            if effects.before.is_some() {
                changes.add_user(Uuid::from_u128(user as u128), &effects, state);
            }
        }
        for (_, new_event) in &events[begin..end] {
            changes.add_event(new_event);
        }
        tables.add(changes);
        begin = end;
    }
    (tables, states)
}

proptest! {
    #[test]
    fn batches_that_end_anywhere_give_the_same_view(
        events in events(),
        cuts in proptest::collection::btree_set(0_usize..60, 0..20),
    ) {
        let (tables, states) = projected(&events, &cuts);
        let (at_once, _) = projected(&events, &BTreeSet::new());
        prop_assert_eq!(&tables, &at_once);

        // Read as the statements do, the counters say what the states say.
        let contributions = states.each_ref().map(Contribution::of);
        let steps = contributions.iter().flat_map(Contribution::steps);
        let mut counts: BTreeMap<(i32, i16), i64> = BTreeMap::new();
        for reached in steps {
            *counts.entry((reached.registered_on, reached.step)).or_default() += 1;
        }
        let mut stored: BTreeMap<(i32, i16), i64> = BTreeMap::new();
        for ((day, step, ..), count) in &tables.funnel {
            *stored.entry((*day, *step)).or_default() += count;
        }
        prop_assert_eq!(stored, counts);
        let unique: BTreeSet<_> = events
            .iter()
            .filter(|(_, new_event)| new_event.event.type_name.contains("UserLoggedIn"))
            .map(|(user, new_event)| (*user, day_number(new_event.event.occurred_at)))
            .collect();
        let counted = tables.days.iter().filter(|((_, metric, ..), _)| *metric == "uniqueLogins");
        let counted: i64 = counted.map(|(_, count)| count).sum();
        prop_assert_eq!(counted, unique.len() as i64);
    }

    /// A user's events may come from several logs: in whatever order these are read, the view is
    /// the same.
    #[test]
    fn logs_that_are_read_in_any_order_give_the_same_view(events in events()) {
        let deleted: BTreeSet<usize> = events
            .iter()
            .filter(|(_, new_event)| new_event.event.type_name == "UserDeleted")
            .map(|(user, _)| *user)
            .collect();
        let at_once = projected(&events, &BTreeSet::new());
        prop_assert!((0..3).all(|user| at_once.1[user].is_deleted == deleted.contains(&user)));
        let mut one_after_the_other = events;
        one_after_the_other.sort_by_key(|(_, new_event)| new_event.log_id);
        prop_assert_eq!(&projected(&one_after_the_other, &BTreeSet::new()), &at_once);
        one_after_the_other.sort_by_key(|(_, new_event)| -new_event.log_id);
        prop_assert_eq!(&projected(&one_after_the_other, &BTreeSet::new()), &at_once);
    }

    #[test]
    fn the_registration_that_counts_is_the_older_logs_in_any_order(
        mut first in proptest::collection::vec(0..100_i64, 1..4),
        second in proptest::collection::vec(0..100_i64, 1..4),
        keep_first in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let mut state = ActivityState::default();
        let expected = first[0];
        let (mut a, mut b) = (first.drain(..), second.into_iter());
        let mut choices = keep_first.into_iter().cycle();
        loop {
            let from_first = choices.next().unwrap_or_default();
            let next = if from_first { a.next().map(|s| (1, s)) } else { None };
            let next = next.or_else(|| b.next().map(|s| (2, s))).or_else(|| a.next().map(|s| (1, s)));
            let Some((log_id, second)) = next else { break };
            let instant = at("2026-01-01T00:00:00Z") + TimeDelta::seconds(second);
            let mut new_event = event_at(instant, "UserRegistered", payload_of("UserRegistered"));
            new_event.log_id = log_id;
            state.apply(&new_event, &mut Effects::default());
        }
        let registered = state.activity.registration.unwrap();
        let found = (registered.at - at("2026-01-01T00:00:00Z")).num_seconds();
        prop_assert_eq!((registered.log, found), (1, expected));
    }

    #[test]
    fn a_set_of_days_holds_what_was_inserted(days in proptest::collection::vec(0..84_371_i32, 0..20)) {
        let (mut set, mut expected) = (DaySet::default(), BTreeSet::new());
        for day in &days {
            prop_assert_eq!(set.insert(*day), expected.insert(*day));
        }
        let stored = serde_json::to_string(&set).unwrap();
        let set: DaySet = serde_json::from_str(&stored).unwrap();
        let found: BTreeSet<i32> = (0..84_371).filter(|day| set.contains(*day)).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(!set.contains(-1) && !set.contains(i32::MAX) && !set.contains(i32::MIN));
    }

    #[test]
    fn buckets_are_in_the_order_of_times(micros in proptest::collection::vec(0..7_300_000_000_000_000_i64, 2)) {
        let bucket = |micros| StepReached { registered_on: 0, step: 1, micros }.bucket();
        let (a, b) = (micros[0].min(micros[1]), micros[0].max(micros[1]));
        prop_assert!(bucket(a) <= bucket(b));
        prop_assert!(bucket(0) == 0 && bucket(b) < 70);
    }

    #[test]
    fn a_week_begins_on_monday(day in 0..84_371_i32) {
        use chrono::Datelike;
        let date = NaiveDate::default() + TimeDelta::days(day.into());
        let monday = NaiveDate::default() + TimeDelta::days(first_day_of_week(day).into());
        prop_assert_eq!(monday, date.week(chrono::Weekday::Mon).first_day());
        prop_assert_eq!(monday.weekday(), chrono::Weekday::Mon);
    }
}
