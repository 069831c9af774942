//! The notification domain's fold by examples, and its properties over random events.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{Status, Template};
use super::projection::{Effects, Made};
use super::state::UserFacts;
use crate::fold::examples::{assert_states_are_read, event};
use crate::fold::users::UserState;
use crate::projector::NewEvent;

fn registered(status: &str) -> (&'static str, Value) {
    let payload = json!({"email": "ada@example.org", "firstName": "Ada", "username": "ada", "status": status});
    ("UserRegistered", payload)
}

fn updated(fields: Value) -> (&'static str, Value) {
    ("UserUpdated", json!({"updatedFields": fields}))
}

fn password_changed() -> (&'static str, Value) {
    (
        "UserPasswordChanged",
        json!({"changeType": "self_initiated"}),
    )
}

fn deleted() -> (&'static str, Value) {
    ("UserDeleted", json!({"deletionType": "soft"}))
}

fn status_changed(from: &str, to: &str) -> (&'static str, Value) {
    let payload = json!({"previousStatus": from, "newStatus": to, "reason": "fraud"});
    ("UserAccountStatusChanged", payload)
}

fn numbered(events: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<NewEvent> {
    let events = events.into_iter().enumerate();
    events
        .map(|(number, (event_type, payload))| event(number, event_type, payload))
        .collect()
}

fn fold_onto(state: &mut UserFacts, events: &[NewEvent]) -> Effects {
    let mut effects = Effects::default();
    for new_event in events {
        state.apply(new_event, &mut effects);
    }
    effects
}

/// The notifications that these events make: the templates and recipients.
fn made(
    events: impl IntoIterator<Item = (&'static str, Value)>,
) -> Vec<(Template, Option<String>)> {
    let effects = fold_onto(&mut UserFacts::default(), &numbered(events));
    let made = effects.made.into_iter();
    made.map(|made| (made.template, made.recipient)).collect()
}

#[test]
fn each_event_makes_its_templates() {
    use Template::*;
    let mfa = |enabled: bool| {
        let payload = json!({"mfaEnabled": enabled, "mfaMethod": "TOTP"});
        ("MfaStatusChanged", payload)
    };
    let email = |event_type| (event_type, json!({"email": "ada@example.org"}));
    for (events, templates) in [
        (vec![registered("active")], vec![Welcome]),
        (
            vec![registered("pending_verification")],
            vec![Welcome, EmailVerification],
        ),
        (vec![email("UserEmailVerified")], vec![EmailVerified]),
        (vec![password_changed()], vec![PasswordChanged]),
        (
            vec![email("UserPasswordResetRequested")],
            vec![PasswordReset],
        ),
        (vec![mfa(true), mfa(false)], vec![MfaEnabled, MfaDisabled]),
        (
            vec![status_changed("active", "suspended")],
            vec![AccountSuspended],
        ),
        (
            vec![status_changed("suspended", "banned")],
            vec![AccountSuspended],
        ),
        (
            vec![status_changed("suspended", "active")],
            vec![AccountReactivated],
        ),
        (
            vec![status_changed("banned", "active")],
            vec![AccountReactivated],
        ),
        (
            vec![status_changed("deactivated", "active")],
            vec![AccountReactivated],
        ),
        (
            vec![status_changed("pending_verification", "active")],
            vec![],
        ),
        (vec![status_changed("active", "deactivated")], vec![]),
        (vec![updated(json!({"email": "b@example.org"}))], vec![]),
        (vec![deleted(), registered("active")], vec![]),
    ] {
        let said: Vec<Template> = made(events.clone())
            .into_iter()
            .map(|made| made.0)
            .collect();
        assert_eq!(said, templates, "{events:?}");
    }
}

#[test]
fn data_are_as_known_when_the_notification_is_made() {
    let events = numbered([
        registered("active"),
        updated(json!({"username": "countess"})),
        status_changed("active", "banned"),
        updated(json!(["username"])),
        ("MfaStatusChanged", json!({"mfaEnabled": true})),
    ]);
    let effects = fold_onto(&mut UserFacts::default(), &events);
    let data: Vec<Value> = effects
        .made
        .iter()
        .map(|made| serde_json::to_value(&made.data).unwrap())
        .collect();
    let expected = [
        json!({"userId": "u", "firstName": "Ada", "username": "ada"}),
        json!({
            "userId": "u", "firstName": "Ada", "username": "countess",
            "reason": "fraud", "previousStatus": "active", "newStatus": "banned",
        }),
        json!({"userId": "u", "firstName": "Ada"}),
    ];
    assert_eq!(data, expected);
}

#[test]
fn a_recipient_is_the_email_that_is_known() {
    let to = |email: &str| Some(email.to_owned());
    let changed = (Template::PasswordChanged, to("ada@example.org"));
    for (events, expected) in [
        (vec![password_changed()], vec![None]),
        // An email that comes later serves those before it, the first that comes.
        (
            vec![
                password_changed(),
                updated(json!({"email": "b@example.org"})),
                updated(json!({"email": "c@example.org"})),
                password_changed(),
            ],
            vec![to("b@example.org"), to("c@example.org")],
        ),
        // One that changed to an unknown value, or was cleared, counts no longer.
        (
            vec![
                updated(json!({"email": "b@example.org"})),
                updated(json!(["email"])),
                password_changed(),
            ],
            vec![None],
        ),
        (
            vec![
                updated(json!({"email": "b@example.org"})),
                updated(json!({"email": null})),
                password_changed(),
                updated(json!({"email": "c@example.org"})),
            ],
            vec![to("c@example.org")],
        ),
        // The event that brings the email serves its own, too.
        (
            vec![
                password_changed(),
                (
                    "UserPasswordResetRequested",
                    json!({"email": "r@example.org"}),
                ),
            ],
            vec![to("r@example.org"), to("r@example.org")],
        ),
        (vec![password_changed(), deleted()], vec![None]),
    ] {
        let said: Vec<Option<String>> = made(events.clone())
            .into_iter()
            .map(|made| made.1)
            .collect();
        assert_eq!(said, expected, "{events:?}");
    }
    assert_eq!(
        made([registered("active"), password_changed()]).last(),
        Some(&changed)
    );
}

#[test]
fn ids_are_of_event_and_template() {
    let events = numbered([registered("pending_verification")]);
    let made = fold_onto(&mut UserFacts::default(), &events).made;
    let ids: BTreeSet<String> = made.iter().map(|made| made.id().to_string()).collect();
    assert_eq!(ids.len(), 2);
    // The ids of stored deliveries: others would send everything again.
    assert_eq!(
        made[0].id().to_string(),
        "6ff2c1f2-13fa-808f-8837-b35a9fce1da4"
    );
}

#[test]
fn names_are_read_as_they_are_written() {
    for template in Template::ALL {
        assert_eq!(Template::named(template.as_str()), Some(template));
        assert_eq!(json!(template), json!(template.as_str()));
        assert_eq!(Template::ALL[template as usize], template);
    }
    for status in Status::ALL {
        assert_eq!(Status::named(status.as_str()), Some(status));
        assert_eq!(json!(status), json!(status.as_str()));
    }
}

#[test]
fn states_that_releases_have_stored_are_read() {
    let stored = r#"{"codeVersion": 1, "state": {"email": "e", "firstName": "f", "username": "n", "lacksRecipients": true}}
{"codeVersion": 1, "state": {"isDeleted": true}}"#;
    assert_eq!(assert_states_are_read::<UserFacts>(stored), [1, 1]);
}

fn any_event() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        Just(registered("active")),
        Just(password_changed()),
        Just(updated(json!({"email": "b@example.org"}))),
        Just(updated(json!({"email": null, "firstName": "Augusta"}))),
        Just(updated(json!(["email", "username"]))),
        Just((
            "UserPasswordResetRequested",
            json!({"email": "r@example.org"})
        )),
        Just(deleted()),
    ]
}

/// What the statements make of batches: rows, to which later batches give recipients, and which a deletion erases.
fn stored(batches: &[&[NewEvent]]) -> (UserFacts, Vec<Made>) {
    let (mut state, mut rows) = (UserFacts::default(), Vec::<Made>::new());
    for batch in batches {
        let effects = fold_onto(&mut state, batch);
        for row in &mut rows {
            if effects.is_deletion {
                (row.recipient, row.data) = (None, None);
            } else if row.recipient.is_none() && row.data.is_some() {
                row.recipient.clone_from(&effects.email);
            }
        }
        rows.extend(effects.made);
    }
    (state, rows)
}

proptest! {
    #[test]
    fn batches_do_not_matter(events in prop::collection::vec(any_event(), 0..12), at in 0usize..12) {
        let events = numbered(events);
        let whole = stored(&[&events]);
        let (first, second) = events.split_at(at.min(events.len()));
        prop_assert_eq!(&stored(&[first, second]), &whole);
        let single: Vec<&[NewEvent]> = events.chunks(1).collect();
        prop_assert_eq!(&stored(&single), &whole);
    }
}
