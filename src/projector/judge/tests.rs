//! What becomes of records, one table per rule. A case is the records of a log, and what is expected of each.

use serde_json::{Value, json};
use sqlx::Error;

use super::*;
use crate::event::EventType;
use crate::projector::Target;

/// Interested in registrations, profile updates, deletions and failed logins, of which the latter park nothing.
struct View;

#[async_trait::async_trait]
impl Projection for View {
    fn domain(&self) -> &'static str {
        "test"
    }

    fn declared_code_version(&self) -> i32 {
        1
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        matches!(
            event_type,
            TypeName::Known {
                event_type: EventType::UserRegistered
                    | EventType::UserProfileUpdated
                    | EventType::UserDeleted
                    | EventType::UserLoginFailed,
                ..
            }
        )
    }

    fn parks(&self, event_type: Option<&TypeName>) -> bool {
        !matches!(
            event_type,
            Some(TypeName::Known {
                event_type: EventType::UserLoginFailed,
                ..
            })
        )
    }

    async fn apply(&self, _: &mut Target<'_>, _: &[NewEvent]) -> Result<(), Error> {
        unreachable!("a judge applies nothing")
    }
}

const MAX_VALUE_BYTES: usize = 1_000;
const MILLIS_PER_DAY: i64 = 86_400_000;
/// 2026-10-01T00:00:00Z.
const START_MS: i64 = 1_790_812_800_000;
const START: DateTime<Utc> = DateTime::from_timestamp_millis(START_MS).expect("a time");

fn dedupe() -> TimeDelta {
    TimeDelta::days(90)
}

/// An event of user `user`, under its id as key.
fn event(id: &str, event_type: &str, user: &str) -> Record {
    let payload = match event_type {
        "UserRegistered" => json!({"userId": user, "email": "a@example.com", "status": "active"}),
        "UserProfileUpdated" => {
            json!({"userId": user, "profileId": "p", "updatedFields": {"bio": "b"}})
        }
        _ => json!({"userId": user, "reason": "user_not_found"}),
    };
    record(Some(user), body(id, event_type, payload))
}

/// A registration that lacks its email.
fn bad(id: &str, user: &str) -> Record {
    let body = body(
        id,
        "UserRegistered",
        json!({"userId": user, "status": "active"}),
    );
    record(Some(user), body)
}

fn body(id: &str, event_type: &str, payload: Value) -> Vec<u8> {
    let body = json!({
        "eventId": id,
        "eventType": event_type,
        "eventTimestamp": "2026-10-01T00:00:00Z",
        "payload": payload,
    });
    serde_json::to_vec(&body).expect("JSON")
}

fn record(key: Option<&str>, value: impl Into<bytes::Bytes>) -> Record {
    Record {
        topic: "user.events".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: Some(START_MS),
        key: key.map(|key| key.to_owned().into()),
        headers: Vec::new(),
        value: Some(value.into()),
    }
}

/// The record so many days after the others.
fn after_days(days: i64, record: Record) -> Record {
    Record {
        timestamp_ms: Some(START_MS + days * MILLIS_PER_DAY),
        ..record
    }
}

fn claim() -> Claim {
    Claim {
        log_id: 1,
        epoch: 7,
        next_offset: 0,
        stream_time: DateTime::UNIX_EPOCH,
        log_count: 1,
        is_live: true,
    }
}

/// Judges the records of a log, which gives them their offsets. Returns for each the outcome, or a dead letter's class,
/// reason and field.
fn judge_with(
    mut log: Vec<Record>,
    discards: &HashMap<i64, Discard>,
    prepare: impl FnOnce(&mut Judge<'_>),
) -> (Vec<String>, Judgement, Vec<NewEvent>) {
    for (offset, record) in log.iter_mut().enumerate() {
        record.offset = offset as i64;
    }
    let candidates: Vec<Candidate<'_>> = log
        .iter()
        .map(|record| Candidate::first(record, Reading::of(record, &View, MAX_VALUE_BYTES)))
        .collect();
    let mut judge = Judge::new(&View, &claim(), dedupe(), HashSet::new(), discards);
    prepare(&mut judge);
    let events = judge.judge(&candidates);
    let judgement = judge.judgement;
    let mut dead_letters = judgement.dead_letters.iter();
    let mut applied = events.iter();
    let words = judgement.outcomes.iter().enumerate();
    let words = words.map(|(offset, outcome)| match outcome {
        Outcome::Applied => {
            let event = applied.next().expect("an event for each that is applied");
            assert_eq!(event.offset, offset as i64);
            assert_eq!(
                event.feed_position,
                FeedPosition::first_attempt(event.offset)
            );
            "applied".to_owned()
        }
        Outcome::Duplicate => "duplicate".to_owned(),
        Outcome::Skipped => "skipped".to_owned(),
        Outcome::DeadLettered => {
            let dead_letter = dead_letters.next().expect("one for each such outcome");
            assert_eq!(dead_letter.record.offset, offset as i64);
            let class = dead_letter.class.as_str();
            let field = dead_letter.field.as_deref().unwrap_or("-");
            format!("{class} {} {field}", dead_letter.reason)
        }
    });
    let words = words.collect();
    assert!(dead_letters.next().is_none() && applied.next().is_none());
    let books = judgement.books();
    assert_eq!(
        books.read,
        books.applied + books.duplicates + books.skipped + books.dead_lettered
    );
    (words, judgement, events)
}

fn judge(log: Vec<Record>) -> Vec<String> {
    judge_with(log, &HashMap::new(), |_| {}).0
}

#[test]
fn a_record_is_judged_by_what_can_be_read_of_it() {
    let tombstone = Record {
        value: None,
        ..record(Some("u"), "")
    };
    let cases: [(&str, Record, &str); 11] = [
        ("a tombstone", tombstone, "skipped"),
        (
            "too large",
            record(None, vec![b' '; 1_001]),
            "data too_large -",
        ),
        ("no JSON", record(None, "{"), "data not_json -"),
        ("zero bytes", record(None, ""), "data not_json -"),
        (
            "no type",
            record(None, r#"{"eventId": "e"}"#),
            "data no_event_type -",
        ),
        (
            "a type of no interest",
            record(None, body("e", "UserLoggedOut", json!({}))),
            "skipped",
        ),
        (
            "an unknown type",
            record(None, body("e", "UserDreamt", json!({}))),
            "skipped",
        ),
        (
            "no id",
            record(None, body("", "UserDeleted", json!({"userId": "u"}))),
            "data no_event_id eventId",
        ),
        ("a field missing", bad("e", "u"), "data missing_field email"),
        (
            "a version that lacks a field",
            record(None, body("e", "UserRegistered.v9", json!({"userId": "u"}))),
            "schema unsupported_version email",
        ),
        ("good", event("e", "UserRegistered", "u"), "applied"),
    ];
    for (name, record, expected) in cases {
        assert_eq!(judge(vec![record]), [expected], "{name}");
    }
}

#[test]
fn later_events_of_a_key_wait_behind_its_dead_letter() {
    let cases: [(&str, Vec<Record>, &[&str]); 6] = [
        (
            "another key goes on",
            vec![
                bad("1", "u"),
                event("2", "UserRegistered", "u"),
                event("3", "UserRegistered", "v"),
            ],
            &["data missing_field email", "blocked blocked -", "applied"],
        ),
        (
            "what is of no interest does not wait",
            vec![bad("1", "u"), event("2", "UserLoggedOut", "u")],
            &["data missing_field email", "skipped"],
        ),
        (
            "a bad one waits, too, and has its own reason later",
            vec![bad("1", "u"), bad("2", "u")],
            &["data missing_field email", "blocked blocked -"],
        ),
        (
            "a record without a key parks nothing",
            vec![record(None, "{"), event("2", "UserRegistered", "u")],
            &["data not_json -", "applied"],
        ),
        (
            "a type that does not park neither blocks nor waits",
            vec![
                record(Some("u"), body("1", "UserLoginFailed", json!({}))),
                event("2", "UserRegistered", "u"),
                bad("3", "u"),
                event("4", "UserLoginFailed", "u"),
            ],
            &[
                "data missing_field reason",
                "applied",
                "data missing_field email",
                "applied",
            ],
        ),
        (
            "a redelivery waits, too",
            vec![
                event("1", "UserRegistered", "u"),
                bad("2", "u"),
                event("1", "UserRegistered", "u"),
            ],
            &["applied", "data missing_field email", "blocked blocked -"],
        ),
    ];
    for (name, log, expected) in cases {
        assert_eq!(judge(log), expected, "{name}");
    }
}

#[test]
fn a_deletion_closes_its_keys_dead_letters() {
    let log = vec![
        bad("1", "u"),
        event("2", "UserRegistered", "u"),
        event("3", "UserDeleted", "u"),
        event("4", "UserProfileUpdated", "u"),
    ];
    let (words, judgement, _) = judge_with(log, &HashMap::new(), |_| {});
    assert_eq!(
        words,
        [
            "data missing_field email",
            "blocked blocked -",
            "applied",
            "applied"
        ]
    );
    assert_eq!(judgement.deleted, [(hash16(b"u"), 2)]);
    assert!(judgement.parked.is_empty());
    for dead_letter in &judgement.dead_letters {
        assert_eq!(dead_letter.resolution.as_deref(), Some(USER_DELETED));
    }
}

#[test]
fn a_deletion_that_was_applied_before_closes_nothing() {
    let log = vec![
        event("1", "UserDeleted", "u"),
        bad("2", "u"),
        event("1", "UserDeleted", "u"),
        event("3", "UserProfileUpdated", "u"),
    ];
    assert_eq!(
        judge(log),
        [
            "applied",
            "data missing_field email",
            "duplicate",
            "blocked blocked -"
        ]
    );
}

#[test]
fn an_event_id_counts_once_until_both_windows_have_passed() {
    let applied_time = START + TimeDelta::days(1);
    let windows = dedupe();
    let moment = TimeDelta::milliseconds(1);
    // How far the record lies behind the one that was applied, in offsets and in stream time.
    for (offsets, passed, expected) in [
        (1, TimeDelta::zero(), 0),
        (99_999, windows * 4, 0),
        (100_000, windows - moment, 0),
        (100_000, windows, 1),
        (1_000_000, TimeDelta::zero(), 0),
        // Applied from a later offset, as a retried dead letter finds it.
        (-1, windows * 4, 0),
    ] {
        let record = Record {
            offset: 500_000 + offsets,
            ..event("1", "UserRegistered", "u")
        };
        let candidate = Candidate::first(&record, Reading::of(&record, &View, MAX_VALUE_BYTES));
        let claim = Claim {
            stream_time: applied_time + passed,
            ..claim()
        };
        let discards = HashMap::new();
        let mut judge = Judge::new(&View, &claim, windows, HashSet::new(), &discards);
        let seen = SeenEvent {
            offset: 500_000,
            applied_time,
        };
        judge.seen.insert(hash16(b"1"), seen);
        let applied = judge.judge(std::slice::from_ref(&candidate)).len();
        assert_eq!(applied, expected, "{offsets} offsets and {passed} later");
    }
}

#[test]
fn an_id_is_as_old_as_its_record_where_stream_time_lags_behind() {
    // Stream time of a young partition is decades behind its records.
    let (_, judgement, _) = judge_with(
        vec![event("1", "UserRegistered", "u")],
        &HashMap::new(),
        |_| {},
    );
    assert_eq!(
        judgement.stream_time,
        DateTime::UNIX_EPOCH + TimeDelta::days(1)
    );
    let seen = judgement.applied_ids[&hash16(b"1")];
    assert_eq!((seen.offset, seen.applied_time), (0, START));
}

#[test]
fn an_id_that_the_database_has_seen_is_a_duplicate_whatever_the_rest_says() {
    let seen = |judge: &mut Judge<'_>| {
        let seen = SeenEvent {
            offset: -1,
            applied_time: START,
        };
        judge.seen.insert(hash16(b"1"), seen);
    };
    let (words, judgement, _) = judge_with(vec![bad("1", "u")], &HashMap::new(), seen);
    assert_eq!(words, ["duplicate"]);
    assert!(judgement.parked.is_empty() && judgement.applied_ids.is_empty());
}

#[test]
fn an_id_is_remembered_once_its_event_is_applied_and_not_when_it_is_a_dead_letter() {
    let log = vec![bad("1", "u"), event("2", "UserRegistered", "v")];
    let (_, judgement, _) = judge_with(log, &HashMap::new(), |_| {});
    let ids: Vec<&Uuid> = judgement.applied_ids.keys().collect();
    assert_eq!(ids, [&hash16(b"2")]);
}

#[test]
fn stream_time_is_the_largest_timestamp_and_moves_by_a_day_at_most() {
    let at = |day: i64| START + TimeDelta::days(day);
    let log = |days: &[i64]| {
        let records = days.iter().map(|day| after_days(*day, record(None, "{")));
        records.collect::<Vec<_>>()
    };
    for (days, expected) in [
        (&[0][..], 0),
        (&[0, 1], 1),
        (&[0, 1, -5], 1),
        (&[0, 365], 1),
        (&[0, 365, 365], 2),
    ] {
        let (_, judgement, _) = judge_with(log(days), &HashMap::new(), |judge| {
            judge.judgement.stream_time = START;
        });
        assert_eq!(judgement.stream_time, at(expected), "{days:?}");
        let last = judgement.dead_letters.last().expect("a dead letter");
        assert_eq!(last.stream_time, at(expected), "{days:?}");
    }
}

#[test]
fn a_discarded_record_is_closed_and_blocks_nothing() {
    let discard = Discard {
        resolution: "a test of the producer".to_owned(),
        reason: "missing_field".to_owned(),
        field: Some("email".to_owned()),
        class: Class::Data,
    };
    let discards = HashMap::from([(0, discard)]);
    let log = vec![bad("1", "u"), event("2", "UserRegistered", "u")];
    let (words, judgement, _) = judge_with(log, &discards, |_| {});
    assert_eq!(words, ["data missing_field email", "applied"]);
    let dead_letter = &judgement.dead_letters[0];
    assert_eq!(
        dead_letter.resolution.as_deref(),
        Some("a test of the producer")
    );
    assert!(!dead_letter.parks);
}

#[test]
fn unknown_types_are_counted_by_name() {
    let of = |name: &str| record(None, body("e", name, json!({})));
    let long = "x".repeat(150);
    let log = vec![of("UserDreamt"), of("UserDreamt"), of("a\0b"), of(&long)];
    let (_, judgement, _) = judge_with(log, &HashMap::new(), |_| {});
    let counts: Vec<(&str, i64)> = judgement
        .unknown_types
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    let cut = "x".repeat(TYPE_NAME_CHARS);
    assert_eq!(
        counts,
        [("UserDreamt", 2), ("a\u{fffd}b", 1), (cut.as_str(), 1)]
    );
}

/// Judges one dead letter again, as of a stream time and at a feed position.
fn retry(
    record: &Record,
    reading: Reading<'_>,
    parks: bool,
    parked: HashSet<Uuid>,
) -> (Judgement, Vec<NewEvent>) {
    retry_waiting(record, reading, parks, false, parked)
}

/// The same; `waits` says that it waits for one that is not judged with it.
fn retry_waiting(
    record: &Record,
    reading: Reading<'_>,
    parks: bool,
    waits: bool,
    parked: HashSet<Uuid>,
) -> (Judgement, Vec<NewEvent>) {
    let feed_position = FeedPosition {
        next_offset: 42,
        sequence: 7 << 32,
    };
    let candidate = Candidate {
        record,
        key: record.key.as_deref().map(hash16),
        attempt: Attempt::Retry {
            stream_time: START,
            feed_position,
            parks,
            waits,
        },
        reading,
    };
    let discards = HashMap::new();
    let claim = Claim {
        stream_time: START + TimeDelta::days(50),
        ..claim()
    };
    let mut judge = Judge::new(&View, &claim, dedupe(), parked, &discards);
    let events = judge.judge(std::slice::from_ref(&candidate));
    for event in &events {
        assert_eq!(event.feed_position, feed_position);
    }
    (judge.judgement, events)
}

#[test]
fn a_retried_dead_letter_is_judged_as_of_its_own_time() {
    let record = event("1", "UserRegistered", "u");
    let reading = Reading::of(&record, &View, MAX_VALUE_BYTES);
    let (judgement, events) = retry(&record, reading, true, HashSet::new());
    assert_eq!(events.len(), 1);
    assert_eq!(judgement.stream_time, START);
    let seen = SeenEvent {
        offset: 0,
        applied_time: START,
    };
    assert_eq!(judgement.applied_ids.get(&hash16(b"1")), Some(&seen));
}

#[test]
fn lost_bytes_are_the_reason_unless_the_dead_letter_waits_behind_another() {
    let record = event("1", "UserRegistered", "u");
    let none = HashSet::new;
    let key = || HashSet::from([hash16(b"u")]);
    for (parks, parked, class, reason) in [
        (true, none(), Class::Data, BYTES_LOST),
        (true, key(), Class::Blocked, BLOCKED),
        // One that parks nothing does not wait either.
        (false, key(), Class::Data, BYTES_LOST),
    ] {
        let expected = if parks { key() } else { parked.clone() };
        let (judgement, events) = retry(&record, Reading::BytesLost, parks, parked);
        assert!(events.is_empty());
        let dead_letter = &judgement.dead_letters[0];
        assert_eq!((dead_letter.class, &*dead_letter.reason), (class, reason));
        assert_eq!(judgement.parked, expected);
    }
}

/// Its type may not have been read before: its value was too large, or a former release could not read it.
#[test]
fn a_retried_dead_letter_parks_as_before_or_as_its_type_says() {
    let bad_of = |event_type| record(Some("u"), body("1", event_type, json!({})));
    let (parking, single) = ("UserRegistered", "UserLoginFailed");
    for (event_type, before, expected) in [
        (parking, true, true),
        (parking, false, true),
        (single, true, true),
        (single, false, false),
    ] {
        let record = bad_of(event_type);
        let reading = Reading::of(&record, &View, MAX_VALUE_BYTES);
        let (judgement, _) = retry(&record, reading, before, HashSet::new());
        assert_eq!(judgement.parked.is_empty(), !expected);
        assert_eq!(judgement.dead_letters[0].parks, expected);
    }
}

#[test]
fn a_retried_dead_letter_waits_once_its_type_is_known_to_park() {
    let key = || HashSet::from([hash16(b"u")]);
    for (event_type, parked, waits, expected) in [
        ("UserRegistered", HashSet::new(), false, "applied"),
        ("UserRegistered", key(), false, "blocked"),
        ("UserRegistered", HashSet::new(), true, "blocked"),
        ("UserLoginFailed", key(), true, "applied"),
    ] {
        let record = event("1", event_type, "u");
        let reading = Reading::of(&record, &View, MAX_VALUE_BYTES);
        let (judgement, events) = retry_waiting(&record, reading, false, waits, parked);
        assert_eq!(events.is_empty(), expected == "blocked", "{event_type}");
        let classes = judgement.dead_letters.iter();
        let classes: Vec<_> = classes.map(|letter| (letter.class, letter.parks)).collect();
        let blocked = vec![(Class::Blocked, true); usize::from(expected == "blocked")];
        assert_eq!(classes, blocked, "{event_type}");
    }
}

#[test]
fn a_record_that_is_given_up_parks_its_key() {
    let records = [
        event("1", "UserRegistered", "u"),
        event("2", "UserProfileUpdated", "u"),
    ];
    let candidates = records
        .each_ref()
        .map(|record| Candidate::first(record, Reading::of(record, &View, MAX_VALUE_BYTES)));
    let discards = HashMap::new();
    let mut judge = Judge::new(&View, &claim(), dedupe(), HashSet::new(), &discards);
    judge.give_up(&candidates[0], &Cause::bug("failed"));
    assert!(judge.judge(&candidates[1..]).is_empty());
    let classes: Vec<Class> = judge
        .judgement
        .dead_letters
        .iter()
        .map(|dead_letter| dead_letter.class)
        .collect();
    assert_eq!(classes, [Class::Bug, Class::Blocked]);
}

/// All that a judgement says.
fn said(judgement: &Judgement) -> String {
    let parked: std::collections::BTreeSet<_> = judgement.parked.iter().collect();
    format!(
        "{parked:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        judgement.stream_time,
        judgement.outcomes,
        judgement.applied_ids,
        judgement.deleted,
        judgement.dead_letters,
        judgement.unknown_types
    )
}

/// A log of 24 records of three users: good ones, bad ones, deletions, duplicates, types that the catalogue lacks.
fn random_log(seed: u64) -> Vec<Record> {
    let mut state = seed;
    let mut pick = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (0..24)
        .map(|offset| {
            let user = ["a", "b", "c"][pick(3) as usize];
            let id = format!("e-{}", pick(30));
            let record = match pick(8) {
                0 | 1 => bad(&id, user),
                2 => event(&id, "UserDeleted", user),
                3 => record(Some(user), body(&id, "UserTeleported", json!({}))),
                4 => event(&id, "UserLoginFailed", user),
                5 => event(&id, "UserRegistered", user),
                _ => event(&id, "UserProfileUpdated", user),
            };
            Record {
                offset,
                ..after_days(pick(200) as i64, record)
            }
        })
        .collect()
}

#[test]
fn a_judge_that_went_back_is_as_if_it_had_judged_nothing_since() {
    let discards = HashMap::new();
    let new_judge = || {
        let parked = HashSet::from([hash16(b"c")]);
        Judge::new(&View, &claim(), dedupe(), parked, &discards)
    };
    let mut closed = 0;
    for seed in 0..200 {
        let log = random_log(seed);
        let candidates: Vec<Candidate<'_>> = log
            .iter()
            .map(|record| Candidate::first(record, Reading::of(record, &View, MAX_VALUE_BYTES)))
            .collect();
        for split in [0, 8, 16] {
            let (first, rest) = candidates.split_at(split);
            let (mut judge, mut never) = (new_judge(), new_judge());
            judge.judge(first);
            never.judge(first);
            let checkpoint = judge.checkpoint();
            judge.judge(rest);
            judge.go_back(&checkpoint);
            assert_eq!(
                said(&judge.judgement),
                said(&never.judgement),
                "seed {seed}"
            );
            let (again, once) = (judge.judge(rest), never.judge(rest));
            assert_eq!(format!("{again:?}"), format!("{once:?}"), "seed {seed}");
            assert_eq!(
                said(&judge.judgement),
                said(&never.judgement),
                "seed {seed}"
            );
            let dead_letters = judge.judgement.dead_letters.iter();
            closed += dead_letters.filter(|d| d.resolution.is_some()).count();
        }
    }
    assert!(closed > 0, "deletions close dead letters");
}
