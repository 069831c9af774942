//! Examples of the notification domain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sightline_testing::broker::Record;
use sightline_testing::hostile_log::MAX_VALUE_BYTES;
use sightline_testing::reference::{
    Change, Event, Fold, Notifications, TEMPLATES, Verdict, Wanted, event_of,
};

use super::{Counts, Example, at, random_log};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn example() -> Example {
    Example::new(Notifications::default())
}

/// All notifications, so many seconds after the epoch.
fn all(example: &Example, now: i64) -> Vec<Value> {
    let view: &Notifications = example.fold.view();
    view.list(&Wanted::default(), at(now).expect("in range"))
}

/// Their templates, statuses and recipients.
fn in_short(example: &Example, now: i64) -> String {
    let short = |row: &Value| {
        let word = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {}",
            word("template"),
            word("status"),
            word("recipient")
        )
    };
    let all: Vec<String> = all(example, now).iter().map(short).collect();
    all.join(", ")
}

fn registered(example: &mut Example, at: i64) {
    let payload = json!({"email": "a@b.c", "status": "active", "username": "n", "firstName": "F"});
    example.event("u", "UserRegistered", at, payload);
}

fn updated(example: &mut Example, at: i64, fields: Value) -> Verdict {
    let payload = json!({"updatedFields": fields});
    example.event("u", "UserUpdated", at, payload)
}

fn mfa(example: &mut Example, at: i64) {
    let payload = json!({"mfaEnabled": true, "mfaMethod": "TOTP"});
    example.event("u", "MfaStatusChanged", at, payload);
}

#[test]
fn notifications_in_full() {
    let mut example = example();
    let payload = json!({"email": "a@b.c", "status": "pending_verification", "username": "n\0", "firstName": ""});
    example.event("u", "UserRegistered", 10, payload);
    // Of one time, by id: version, variant, and the start of SHA-256 of `email_verification:1` and of `welcome:1`.
    let data = json!({"userId": "u", "username": "n\u{fffd}"});
    let expected = [
        json!({
            "notificationId": "09377234-d4da-8381-8ea0-518e70fbaa73", "eventId": "1", "userId": "u",
            "template": "email_verification", "recipient": "a@b.c", "channel": "email", "data": data,
            "status": "pending", "attempts": 0, "createdAt": "1970-01-01T00:00:10Z",
            "expiresAt": "1970-01-02T00:00:10Z",
        }),
        json!({
            "notificationId": "608f8ba3-69db-89bf-95c2-396a7c03a76d", "eventId": "1", "userId": "u",
            "template": "welcome", "recipient": "a@b.c", "channel": "email", "data": data,
            "status": "pending", "attempts": 0, "createdAt": "1970-01-01T00:00:10Z",
            "expiresAt": "1970-01-08T00:00:10Z",
        }),
    ];
    assert_eq!(all(&example, 20), expected);
    let view: &Notifications = example.fold.view();
    let now = at(20).expect("in range");
    for row in &expected {
        let id = row["notificationId"].as_str().expect("text");
        assert_eq!(view.answers(id, now), std::slice::from_ref(row));
    }
    let unknown = "7b2c1837-e293-3aa5-046e-17469c998b5f";
    assert!(view.answers(unknown, now).is_empty() && view.is_settled(unknown, now));
}

#[test]
fn each_event_has_its_template_and_data() {
    let status = |previous: &str, new: &str| json!({"previousStatus": previous, "newStatus": new});
    for (event_type, payload, templates, of_event) in [
        (
            "UserRegistered",
            json!({"email": "x@b.c", "status": "Pending_verification", "source": "direct"}),
            &["welcome"][..],
            json!({}),
        ),
        (
            "UserEmailVerified",
            json!({"email": "x@b.c"}),
            &["email_verified"],
            json!({}),
        ),
        (
            "UserPasswordChanged",
            json!({"changeType": "reset_completed"}),
            &["password_changed"],
            json!({"changeType": "reset_completed"}),
        ),
        (
            "UserPasswordResetRequested",
            json!({"email": "x@b.c", "resetTokenIdentifier": "t"}),
            &["password_reset"],
            json!({"resetTokenIdentifier": "t"}),
        ),
        (
            "UserPasswordResetRequested",
            json!({"email": "x@b.c", "resetTokenIdentifier": ""}),
            &["password_reset"],
            json!({}),
        ),
        (
            "MfaStatusChanged",
            json!({"mfaEnabled": true, "mfaMethod": "SMS", "changedBy": "admin"}),
            &["mfa_enabled"],
            json!({"mfaMethod": "SMS"}),
        ),
        (
            "MfaStatusChanged",
            json!({"mfaEnabled": false, "mfaMethod": null}),
            &["mfa_disabled"],
            json!({}),
        ),
        (
            "UserAccountStatusChanged",
            json!({"previousStatus": "active", "newStatus": "banned", "reason": "r", "changedBy": "x"}),
            &["account_suspended"],
            json!({"previousStatus": "active", "newStatus": "banned", "reason": "r"}),
        ),
        (
            "UserAccountStatusChanged",
            status("banned", "suspended"),
            &["account_suspended"],
            status("banned", "suspended"),
        ),
        (
            "UserAccountStatusChanged",
            status("deactivated", "active"),
            &["account_reactivated"],
            status("deactivated", "active"),
        ),
        (
            "UserAccountStatusChanged",
            status("suspended", "active"),
            &["account_reactivated"],
            status("suspended", "active"),
        ),
        (
            "UserAccountStatusChanged",
            status("pending_verification", "active"),
            &[],
            json!({}),
        ),
        (
            "UserAccountStatusChanged",
            status("banned", "Active"),
            &[],
            json!({}),
        ),
        (
            "UserAccountStatusChanged",
            status("suspended", "deactivated"),
            &[],
            json!({}),
        ),
        (
            "UserUpdated",
            json!({"updatedFields": {"username": "n"}}),
            &[],
            json!({}),
        ),
    ] {
        let mut example = example();
        registered(&mut example, 0);
        let said = format!("{event_type} {payload}");
        assert_eq!(
            example.event("u", event_type, 1, payload),
            Verdict::Applied,
            "{said}"
        );
        let mut data = json!({"userId": "u", "username": "n", "firstName": "F"});
        for (name, value) in of_event.as_object().expect("an object") {
            data[name] = value.clone();
        }
        let made = all(&example, 1).split_off(1);
        let of_made: Vec<&Value> = made.iter().map(|row| &row["template"]).collect();
        assert_eq!(of_made, templates, "{said}");
        assert!(
            made.iter().all(|row| row["data"] == data),
            "{said}: {made:?}"
        );
    }
    let mut example = example();
    for (event_type, payload) in [
        ("UserLoggedIn", json!({})),
        (
            "UserProfileUpdated",
            json!({"updatedFields": {"firstName": "F"}}),
        ),
        ("MfaChallengeFailed", json!({})),
    ] {
        let verdict = example.event("u", event_type, 1, payload);
        assert_eq!(verdict, Verdict::Skipped, "{event_type}");
    }
}

#[test]
fn a_recipient_comes_later_and_stays() {
    let verified = ("UserEmailVerified", json!({"email": "x@b.c"}));
    let reset = ("UserPasswordResetRequested", json!({"email": "x@b.c"}));
    let registered = (
        "UserRegistered",
        json!({"email": "x@b.c", "status": "active"}),
    );
    let set = ("UserUpdated", json!({"updatedFields": {"email": "x@b.c"}}));
    for ((event_type, payload), own) in [
        (verified, ", email_verified pending x@b.c"),
        (reset, ", password_reset pending x@b.c"),
        (registered, ", welcome pending x@b.c"),
        (set, ""),
    ] {
        let mut example = example();
        mfa(&mut example, 1);
        updated(&mut example, 2, json!({"username": "n"}));
        mfa(&mut example, 3);
        let none = "mfa_enabled no_recipient -";
        assert_eq!(in_short(&example, 4), format!("{none}, {none}"));
        assert_eq!(all(&example, 4)[1].get("recipient"), None);
        example.event("u", event_type, 4, payload);
        let some = "mfa_enabled pending x@b.c";
        assert_eq!(in_short(&example, 5), format!("{some}, {some}{own}"));
        // The data are as they were.
        let first = json!({"userId": "u", "mfaMethod": "TOTP"});
        assert_eq!(all(&example, 5)[0]["data"], first);
        updated(&mut example, 5, json!({"email": "y@b.c"}));
        assert_eq!(in_short(&example, 6), format!("{some}, {some}{own}"));
        mfa(&mut example, 6);
        let short = format!("{some}, {some}{own}, mfa_enabled pending y@b.c");
        assert_eq!(in_short(&example, 6), short);
    }
}

#[test]
fn the_email_of_the_event_counts_first() {
    let mut example = example();
    registered(&mut example, 1);
    for (n, event_type) in ["UserEmailVerified", "UserPasswordResetRequested"]
        .into_iter()
        .enumerate()
    {
        let (n, email) = (n as i64, format!("x{n}@b.c"));
        example.event("u", event_type, 2 + n, json!({"email": email}));
        assert!(in_short(&example, 9).ends_with(&format!(" pending {email}")));
        // It is the user's email from then on.
        mfa(&mut example, 2 + n);
        assert!(in_short(&example, 9).contains(&format!("mfa_enabled pending {email}")));
    }
    // Nobody else's, and not where the type has no such field.
    let payload = json!({"mfaEnabled": false, "email": "v@b.c", "username": "v"});
    example.event("v", "MfaStatusChanged", 9, payload);
    let data = json!({"userId": "v"});
    assert_eq!(
        all(&example, 9).pop().expect("a notification")["data"],
        data
    );
    assert!(in_short(&example, 9).ends_with("mfa_disabled no_recipient -"));
}

#[test]
fn a_stale_or_cleared_email_does_not_count() {
    for lost in [
        json!({"email": null}),
        json!({"email": {"old": "x", "new": ""}}),
        json!(["email"]),
        json!({"email": {"old": "x"}}),
    ] {
        let mut example = example();
        registered(&mut example, 1);
        updated(&mut example, 2, lost.clone());
        mfa(&mut example, 3);
        let welcome = "welcome pending a@b.c";
        let short = in_short(&example, 3);
        assert_eq!(
            short,
            format!("{welcome}, mfa_enabled no_recipient -"),
            "{lost}"
        );
        // The old value again.
        updated(&mut example, 4, json!({"email": "a@b.c"}));
        mfa(&mut example, 5);
        let some = "mfa_enabled pending a@b.c";
        assert_eq!(in_short(&example, 5), format!("{welcome}, {some}, {some}"));
    }
}

#[test]
fn names_are_those_known_when_the_event_is_applied() {
    let mut example = example();
    let mut expect = |event_type: &str, payload: Value, username: Value, first_name: Value| {
        let said = format!("{event_type} {payload}");
        example.event("u", event_type, 1, payload);
        let now = example.events;
        mfa(&mut example, now);
        let last = all(&example, now).pop().expect("a notification");
        let data = &last["data"];
        assert_eq!(data["username"], username, "{said}");
        assert_eq!(data["firstName"], first_name, "{said}");
        assert!(
            !data
                .as_object()
                .expect("an object")
                .values()
                .any(Value::is_null)
        );
    };
    let fields = |fields: Value| json!({"updatedFields": fields});
    let registered = |names: Value| {
        let mut payload = json!({"email": "a@b.c", "status": "active"});
        for (name, value) in names.as_object().expect("an object") {
            payload[name] = value.clone();
        }
        payload
    };
    let none = Value::Null;
    for (event_type, payload, username, first_name) in [
        (
            "UserUpdated",
            fields(json!({"username": "n"})),
            json!("n"),
            none.clone(),
        ),
        (
            "UserRegistered",
            registered(json!({"firstName": "F"})),
            json!("n"),
            json!("F"),
        ),
        (
            "UserUpdated",
            fields(json!(["username", "lastName"])),
            none.clone(),
            json!("F"),
        ),
        (
            "UserRegistered",
            registered(json!({"firstName": null})),
            none.clone(),
            json!("F"),
        ),
        (
            "UserUpdated",
            fields(json!({"firstName": {"old": "F"}})),
            none.clone(),
            none.clone(),
        ),
        (
            "UserUpdated",
            fields(json!({"username": null})),
            none.clone(),
            none.clone(),
        ),
        // What is no string says nothing.
        (
            "UserUpdated",
            fields(json!({"firstName": 5})),
            none.clone(),
            none.clone(),
        ),
        (
            "UserUpdated",
            fields(json!({"firstName": "G"})),
            none.clone(),
            json!("G"),
        ),
        (
            "UserUpdated",
            fields(json!({"firstName": [5]})),
            none.clone(),
            json!("G"),
        ),
        (
            "UserRegistered",
            registered(json!({"username": "m"})),
            json!("m"),
            json!("G"),
        ),
        (
            "UserUpdated",
            fields(json!({"firstName": ""})),
            json!("m"),
            none.clone(),
        ),
    ] {
        expect(event_type, payload, username, first_name);
    }
    // Of no string where the catalogue names the field.
    let mut example = self::example();
    let bad = updated(&mut example, 1, json!({"username": 5}));
    assert_eq!(bad, Verdict::DeadLettered);
}

#[test]
fn deletion_is_final() {
    for deletion in [json!({}), json!({"deletionType": "hard"})] {
        let mut example = example();
        registered(&mut example, 0);
        updated(&mut example, 1, json!(["email"]));
        mfa(&mut example, 1);
        let reset = json!({"email": "a@b.c", "resetTokenIdentifier": "t"});
        example.event("u", "UserPasswordResetRequested", 2, reset);
        let now = 2 + HOUR;
        let before = all(&example, now);
        let short =
            "welcome pending a@b.c, mfa_enabled pending a@b.c, password_reset expired a@b.c";
        assert_eq!(in_short(&example, now), short);
        example.event("u", "UserDeleted", 3, deletion);
        let gone: Vec<Value> = before
            .into_iter()
            .map(|mut row| {
                let fields = row.as_object_mut().expect("an object");
                fields.remove("recipient");
                fields.remove("data");
                fields.insert("status".into(), json!("cancelled"));
                row
            })
            .collect();
        assert_eq!(all(&example, now), gone);
        assert_eq!(
            all(&example, now + 100 * DAY),
            gone,
            "cancelled beats expired"
        );
        registered(&mut example, 4);
        mfa(&mut example, 5);
        updated(&mut example, 6, json!({"email": "a@b.c"}));
        example.event("u", "UserDeleted", 7, json!({"deletionType": "hard"}));
        assert_eq!(all(&example, now), gone);
        // A user never heard of.
        example.event("v", "UserDeleted", 8, json!({}));
        let payload = json!({"email": "v@b.c"});
        let verdict = example.event("v", "UserEmailVerified", 9, payload);
        assert_eq!(verdict, Verdict::Applied);
        assert_eq!(all(&example, now), gone);
    }
}

#[test]
fn notifications_expire() {
    let mut example = example();
    let payload = json!({"email": "a@b.c", "status": "pending_verification"});
    example.event("u", "UserRegistered", 0, payload);
    example.event(
        "u",
        "UserPasswordResetRequested",
        1,
        json!({"email": "a@b.c"}),
    );
    example.event("v", "MfaStatusChanged", 2, json!({"mfaEnabled": false}));
    for (now, verification, welcome, reset, disabled) in [
        (HOUR, "pending", "pending", "pending", "no_recipient"),
        (HOUR + 1, "pending", "pending", "expired", "no_recipient"),
        (DAY - 1, "pending", "pending", "expired", "no_recipient"),
        (DAY, "expired", "pending", "expired", "no_recipient"),
        (7 * DAY - 1, "expired", "pending", "expired", "no_recipient"),
        (7 * DAY, "expired", "expired", "expired", "no_recipient"),
        (7 * DAY + 2, "expired", "expired", "expired", "expired"),
    ] {
        let short = format!(
            "email_verification {verification} a@b.c, welcome {welcome} a@b.c, password_reset {reset} a@b.c, \
             mfa_disabled {disabled} -"
        );
        assert_eq!(in_short(&example, now), short, "after {now} seconds");
    }
    // A recipient that comes too late is there all the same.
    example.event("v", "UserEmailVerified", 8 * DAY, json!({"email": "v@b.c"}));
    let short = in_short(&example, 8 * DAY);
    assert!(
        short.ends_with("mfa_disabled expired v@b.c, email_verified pending v@b.c"),
        "{short}"
    );
    // About the time of the expiry both answers are right.
    let view: &Notifications = example.fold.view();
    let id = all(&example, 0)[1]["notificationId"]
        .as_str()
        .expect("text")
        .to_owned();
    let statuses = |now: i64| {
        let answers = view.answers(&id, at(now).expect("in range"));
        let words = answers
            .iter()
            .filter_map(|answer| answer["status"].as_str());
        words.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(statuses(7 * DAY - 121), "pending");
    assert_eq!(statuses(7 * DAY - 120), "pending expired");
    assert_eq!(statuses(7 * DAY + 119), "pending expired");
    assert_eq!(statuses(7 * DAY + 120), "expired");
}

/// A record of one partition with this event.
fn record(partition: i32, user: &str, id: &str, timestamp: i64) -> Record {
    let payload = json!({"userId": user, "email": format!("{user}@b.c")});
    let value = json!({"eventType": "UserEmailVerified", "eventId": id, "payload": payload});
    Record {
        partition,
        key: Some(user.into()),
        value: Some(value.to_string().into_bytes()),
        headers: vec![],
        timestamp,
    }
}

#[test]
fn an_event_makes_its_notifications_once() {
    let mut fold = Fold::new(Notifications::default(), 1000);
    assert_eq!(fold.take(&record(0, "u", "e", 1)), Verdict::Applied);
    assert_eq!(fold.take(&record(0, "v", "e", 2)), Verdict::Duplicate);
    let now = at(60).expect("in range");
    let users = |fold: &Fold| {
        let view: &Notifications = fold.view();
        let answers = view
            .ids()
            .iter()
            .map(|id| view.answers(id, now))
            .collect::<Vec<_>>();
        let users = |answers: &Vec<Value>| {
            let users = answers
                .iter()
                .filter_map(|answer| answer["userId"].as_str());
            users.collect::<Vec<_>>().join(" or ")
        };
        answers.iter().map(users).collect::<Vec<_>>()
    };
    assert_eq!(users(&fold), ["u"]);
    // On another partition it is another event, whose notification has the same id: which is first is not known.
    assert_eq!(fold.take(&record(1, "v", "e", 3)), Verdict::Applied);
    assert_eq!(users(&fold), ["u or v"]);
    // It is applied again once its id has expired, and makes nothing.
    for n in 0..100_000 {
        fold.take(&Record {
            value: None,
            ..record(0, "w", "", n * 1000 * DAY)
        });
    }
    assert_eq!(fold.take(&record(0, "w", "e", 0)), Verdict::Applied);
    assert_eq!(users(&fold), ["u or v"]);
}

#[test]
fn lists_hold_what_they_are_asked_for_oldest_first() {
    let mut example = example();
    registered(&mut example, 100);
    mfa(&mut example, 50);
    example.event("v", "UserPasswordChanged", 70, json!({"changeType": "c"}));
    example.event(
        "v",
        "UserAccountStatusChanged",
        60,
        json!({"previousStatus": "x", "newStatus": "banned"}),
    );
    example.event(
        "w",
        "UserPasswordResetRequested",
        10,
        json!({"email": "w@b.c"}),
    );
    example.event("w", "UserDeleted", 20, json!({}));
    let view: &Notifications = example.fold.view();
    let found = |user: Option<&str>, statuses: &[&'static str], templates: &[&'static str]| {
        let wanted = Wanted {
            user: user.map(str::to_owned),
            statuses: statuses.to_vec(),
            templates: templates.to_vec(),
        };
        let rows = view.list(&wanted, at(100).expect("in range"));
        let words = rows.iter().filter_map(|row| row["template"].as_str());
        words.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let all = "password_reset mfa_enabled account_suspended password_changed welcome";
    assert_eq!(found(None, &[], &[]), all);
    assert_eq!(found(None, &[], &TEMPLATES), all);
    assert_eq!(found(Some("u"), &[], &[]), "mfa_enabled welcome");
    assert_eq!(found(Some("nobody"), &[], &[]), "");
    assert_eq!(found(None, &["pending"], &[]), "mfa_enabled welcome");
    assert_eq!(found(None, &["cancelled"], &[]), "password_reset");
    assert_eq!(
        found(None, &["leased", "sent", "failed", "expired"], &[]),
        ""
    );
    let both = ["no_recipient", "cancelled"];
    assert_eq!(
        found(None, &both, &[]),
        "password_reset account_suspended password_changed"
    );
    assert_eq!(
        found(Some("v"), &both, &["password_changed", "welcome"]),
        "password_changed"
    );
    assert_eq!(
        found(None, &["pending"], &["welcome", "password_reset"]),
        "welcome"
    );
}

/// What a random log does to notifications, event by event.
#[derive(Default)]
struct Seen {
    counts: Counts,
    /// The same, of what is rarer.
    rare: Counts,
    /// By user, whether its email was known before, and is not now.
    lost: BTreeMap<String, bool>,
}

impl Seen {
    fn step(&mut self, event: &Event, before: &[Value], after: &[Value]) {
        let of = |rows: &[Value]| -> BTreeMap<String, Value> {
            let by_id = |row: &Value| (row["notificationId"].to_string(), row.clone());
            rows.iter().map(by_id).collect()
        };
        let (was, is) = (of(before), of(after));
        let made: Vec<&Value> = is
            .iter()
            .filter(|(id, _)| !was.contains_key(*id))
            .map(|(_, row)| row)
            .collect();
        for row in &made {
            self.made(event, row);
        }
        for (id, row) in &was {
            if row.get("recipient").is_none() && is[id].get("recipient").is_some() {
                let (by, status) = (event.name, &is[id]["status"]);
                self.counts.is(format!("a late recipient by {by}"), true);
                self.counts
                    .is(format!("a late recipient, then {status}"), true);
            }
            if event.name == "UserDeleted" {
                self.rare
                    .is(format!("deleted when {}", row["status"]), true);
            }
        }
        if event.name == "UserDeleted" {
            self.rare
                .is("deleted without notifications", was.is_empty());
        }
        let changes = event.changes().expect("good");
        for (name, change) in changes {
            let how = match change {
                Change::To(_) => "set",
                Change::Cleared => "cleared",
                Change::Unknown => "unknown",
            };
            let ours = ["email", "username", "firstName"].contains(&&*name);
            if event.name == "UserUpdated" && ours {
                self.counts.is(format!("{name} {how}"), true);
            }
        }
        if event.name == "UserAccountStatusChanged" {
            let words =
                ["previousStatus", "newStatus"].map(|name| event.text(name).expect("required"));
            let known = ["active", "suspended", "banned", "deactivated"];
            if known.contains(&&*words[0]) && known[..3].contains(&&*words[1]) {
                self.rare
                    .is(format!("from {} to {}", words[0], words[1]), true);
            }
        }
    }

    fn made(&mut self, event: &Event, row: &Value) {
        let user = row["userId"].as_str().expect("text").to_owned();
        let had = self.lost.insert(user, row.get("recipient").is_some());
        let none = row.get("recipient").is_none();
        self.counts
            .is("no email was ever known", none && had.is_none());
        self.counts
            .is("no email any more", none && had == Some(true));
        let template = row["template"].as_str().expect("text");
        self.counts.is(format!("{template} made"), true);
        let brings_email = event.text("email").is_some();
        if !brings_email {
            self.counts
                .is(format!("{template} without a recipient"), none);
        }
        let data = row["data"].as_object().expect("an object");
        for name in ["username", "firstName"] {
            let is_known = data.contains_key(name);
            self.counts.is(format!("{name} known: {is_known}"), true);
        }
        let optional = match template {
            "password_reset" => "resetTokenIdentifier",
            "mfa_enabled" | "mfa_disabled" => "mfaMethod",
            "account_suspended" | "account_reactivated" => "reason",
            _ => return,
        };
        let is_known = data.contains_key(optional);
        self.counts
            .is(format!("{template}, {optional} known: {is_known}"), true);
    }
}

/// Notifications are made, get recipients, expire and are cancelled in every way.
#[test]
fn random_logs_hold_difficult_notifications() {
    let mut fold = Fold::new(Notifications::default(), MAX_VALUE_BYTES);
    let mut seen = Seen::default();
    let now = DateTime::<Utc>::from(SystemTime::now());
    let mut deleted = BTreeSet::new();
    for record in random_log() {
        let event = event_of(&record);
        let user = event.as_ref().and_then(Event::user).unwrap_or_default();
        let of_user = Wanted {
            user: Some(user.clone()),
            ..Wanted::default()
        };
        let rows = |fold: &Fold| fold.view::<Notifications>().list(&of_user, now);
        let before = rows(&fold);
        let verdict = fold.take(&record);
        let Some(event) = event.filter(|_| verdict == Verdict::Applied) else {
            continue;
        };
        let after = rows(&fold);
        if deleted.contains(&user) {
            seen.counts.is("after a deletion", true);
            assert_eq!(before, after);
            continue;
        }
        if event.name == "UserDeleted" {
            deleted.insert(user);
        }
        seen.step(&event, &before, &after);
    }
    let view: &Notifications = fold.view();
    let all = view.list(&Wanted::default(), now);
    for rows in all.windows(2) {
        let [before, row] = [0, 1].map(|n| &rows[n]);
        let word = |name: &str| row[name].as_str().expect("text");
        let (template, status, at) = (word("template"), word("status"), word("createdAt"));
        seen.counts.is(format!("{status} at the end"), true);
        let ago = now - at.parse::<DateTime<Utc>>().expect("a time");
        let lately = TimeDelta::zero() < ago && ago < TimeDelta::days(9);
        seen.counts.is(format!("{status} of the last days"), lately);
        seen.counts.is("two of one time", before["createdAt"] == at);
        if status != "no_recipient" {
            seen.rare
                .is(format!("{template} {status} at the end"), true);
        }
    }
    let settled = |id: &&String| view.is_settled(id, now);
    let several = view.ids().len() - view.ids().iter().filter(settled).count();
    println!("{several} of {} have several answers", view.ids().len());
    assert!(several <= 40, "{several} have several answers");
    seen.counts.are_at_least(10);
    seen.rare.are_at_least(2);
    let (often, rarely) = (seen.counts.0.len(), seen.rare.0.len());
    // 9 templates with 3 statuses each, 12 changes of status, 4 of what a deletion finds.
    assert_eq!((often, rarely), (55, 43), "the kinds that occur");
}
