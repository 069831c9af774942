//! What makes notifications: with an email and without, expired and to be sent.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::generator::{DAY, Generator, Happening};
use super::values::object;

const HOUR: i64 = 3_600_000;

/// When this process made its first log, in milliseconds since the epoch.
fn start() -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    *START.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("after 1970").as_millis() as i64
    })
}

impl Generator {
    /// A user's email comes, goes and becomes stale between events that make notifications. All of that happens within an
    /// hour: at the time of the log, which has expired; in the last days, of which some templates have; or in a hundred years.
    pub(super) fn notifications(&mut self, now: i64) -> Vec<Happening> {
        let mut scene = vec![self.notice(), self.email_lost()];
        for _ in 0..self.rng.usize(2..8) {
            scene.push(match self.rng.u32(0..12) {
                0..6 => self.notice(),
                6..8 => self.email_lost(),
                8..10 => self.email_known(),
                10 => self.names_changed(),
                _ => self.registered(),
            });
        }
        if self.rng.bool() {
            scene.extend([self.email_lost(), self.notice(), self.notice()]);
        }
        if self.rng.u32(0..10) == 0 {
            let payload = json!({"deletionType": self.pick(&["soft", "hard"])});
            let at = self.rng.usize(1..scene.len());
            scene.insert(at, ("UserDeleted", object(payload), &["deletionTimestamp"]));
        }
        let begin = match self.rng.u32(0..8) {
            0..2 => now,
            2 => now + 100 * 365 * DAY,
            _ => {
                let most = [HOUR / 4, 20 * HOUR, 6 * DAY, 9 * DAY][self.rng.usize(0..4)];
                start() - HOUR * 3 / 4 - self.rng.i64(0..most)
            }
        };
        let mut at = begin;
        for (name, payload, own_times) in &mut scene {
            if self.rng.u32(0..4) == 0 {
                // Of no meaning in these types.
                if *name != "UserRegistered" {
                    payload.insert("firstName".into(), json!("not-this"));
                }
                payload.entry("email").or_insert_with(|| json!("not-this"));
            }
            // Some at one time.
            at += self.rng.choice([0, 1, 40_000, 200_000]).expect("some");
            let time = DateTime::from_timestamp_millis(at).expect("in range");
            let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            payload.insert(own_times[0].into(), json!(time));
        }
        scene
    }

    /// An event that makes a notification and brings no email; sometimes one that makes none.
    fn notice(&mut self) -> Happening {
        match self.rng.u32(0..6) {
            0 => {
                let kind = self.pick(&["self_initiated", "reset_completed", "\u{1f511}"]);
                let payload = object(json!({"changeType": kind}));
                ("UserPasswordChanged", payload, &["changeTimestamp"])
            }
            1..3 => {
                let mut payload = object(json!({"mfaEnabled": self.rng.bool()}));
                match self.rng.u32(0..4) {
                    0 => {}
                    1 => drop(payload.insert("mfaMethod".into(), Value::Null)),
                    2 => drop(payload.insert("mfaMethod".into(), json!(self.text()))),
                    _ => drop(payload.insert("mfaMethod".into(), json!("U2F"))),
                }
                ("MfaStatusChanged", payload, &["changeTimestamp"])
            }
            _ => {
                let words = ["active", "suspended", "banned", "deactivated", "Active"];
                let payload = json!({
                    "newStatus": self.pick(&words[..3]),
                    "previousStatus": self.pick(&words),
                    "reason": self.rng.choice([json!(null), json!(""), json!("because")]),
                });
                let (name, own_times) = ("UserAccountStatusChanged", &["changeTimestamp"]);
                (name, object(payload), own_times)
            }
        }
    }

    /// The email is cleared, or changes to an unknown value.
    fn email_lost(&mut self) -> Happening {
        let fields = self.rng.choice([
            json!({"updatedFields": {"email": null}}),
            json!({"updatedFields": {"email": {"old": "a@b.c", "new": ""}}}),
            json!({"updatedFields": ["email"]}),
            json!({"updatedFields": {"email": {"old": "a@b.c"}}}),
        ]);
        updated(fields.expect("some"))
    }

    /// An event that brings an email.
    fn email_known(&mut self) -> Happening {
        let email = self.email();
        match self.rng.u32(0..6) {
            0 => {
                let payload = object(json!({"email": email}));
                ("UserEmailVerified", payload, &["verificationTimestamp"])
            }
            1..3 => {
                let mut payload = object(json!({"email": email}));
                if self.rng.bool() {
                    let token = self.rng.choice([json!(""), json!("\u{1f511}/2")]);
                    payload.insert("resetTokenIdentifier".into(), token.expect("some"));
                }
                ("UserPasswordResetRequested", payload, &["requestTimestamp"])
            }
            3 => self.registered(),
            4 => updated(json!({"updatedFields": {"email": email}})),
            _ => updated(json!({"updatedFields": ["email"], "newValues": {"email": email}})),
        }
    }

    /// The names that notifications hold are set, cleared, and become stale.
    fn names_changed(&mut self) -> Happening {
        let fields = ["username", "firstName"];
        let mut payload = self.changes(&fields);
        if self.rng.bool() {
            payload = object(json!({"updatedFields": fields}));
        }
        ("UserUpdated", payload, &["updateTimestamp"])
    }
}

fn updated(what: Value) -> Happening {
    ("UserUpdated", object(what), &["updateTimestamp"])
}
