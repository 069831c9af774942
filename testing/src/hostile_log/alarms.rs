//! What sets off alerts, or nearly does: failed logins and challenges in one window of time, and just beside it.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::generator::{DAY, Generator, Happening, START};
use super::values::object;

/// The length of the windows, in microseconds.
const WINDOW: i64 = 300_000_000;

impl Generator {
    /// Failures of one kind within a window, as many as make an alert, or one more or less. They arrive in any order.
    pub(super) fn alarms(&mut self, user: usize, now: i64) -> Vec<Happening> {
        let at = match self.rng.u32(0..12) {
            0 => 0,
            _ => now * 1_000,
        };
        let start = at - at % WINDOW;
        let mut scene = match self.rng.u32(0..6) {
            0..3 => self.many_failures(user),
            3..5 => self.many_accounts(),
            _ => {
                let count = self.rng.usize(2..5);
                (0..count).map(|_| self.challenge_failed()).collect()
            }
        };
        self.rng.shuffle(&mut scene);
        for (n, (_, payload, own_times)) in scene.iter_mut().enumerate() {
            let within = match (n, self.rng.u32(0..6)) {
                // The last instant of the window before, and the first one of the next.
                (0, 0) => -1,
                (0, 1) => WINDOW,
                (_, 2) => 0,
                (_, 3) => WINDOW - 1,
                _ => self.rng.i64(0..WINDOW),
            };
            let time = DateTime::from_timestamp_micros((start + within).max(0)).expect("in range");
            let mut time = time.to_rfc3339_opts(SecondsFormat::Micros, true);
            if self.rng.u32(0..4) == 0 {
                // Cut off, not rounded.
                time = time.replace('Z', "999Z");
            }
            payload.insert(own_times[0].into(), json!(time));
        }
        scene
    }

    /// Failed logins for one account, and logins.
    fn many_failures(&mut self, user: usize) -> Vec<Happening> {
        let id = self.users[user].id.clone();
        let number = self.rng.u32(0..500);
        // An id may also be tried as a username, which is another account.
        let (name, account) = match self.rng.u32(0..6) {
            0..3 => ("attemptedUserId", id),
            3 => ("attemptedEmail", format!("who{number}@example.com")),
            4 => ("attemptedUsername", id),
            _ => ("attemptedUsername", format!("nul\0 \u{1f511} {number}")),
        };
        let mut scene = Vec::new();
        for _ in 0..self.rng.usize(4..8) {
            scene.push(self.failure(name, &account));
        }
        for _ in 0..self.rng.usize(0..3) {
            scene.push(self.logged_in());
        }
        scene
    }

    /// Failed logins for several accounts from one IP address.
    fn many_accounts(&mut self) -> Vec<Happening> {
        let ip = format!("192.0.2.{}", self.rng.u32(10..20));
        let mut scene = Vec::new();
        for n in 0..self.rng.usize(9..14) {
            // Some accounts twice.
            let account = format!("stuffed-{}", if n > 9 && self.rng.bool() { 3 } else { n });
            let name = self.pick(&["attemptedEmail", "attemptedUsername"]);
            let (event_type, mut payload, own_times) = self.failure(name, &account);
            payload.insert("ipAddress".into(), json!(ip));
            if self.rng.u32(0..30) == 0 {
                payload.remove(name);
            }
            scene.push((event_type, payload, own_times));
        }
        scene
    }

    fn failure(&mut self, name: &str, account: &str) -> Happening {
        let mut payload = object(json!({"reason": self.reason(), name: account}));
        self.program(&mut payload);
        if self.rng.bool() {
            payload.insert("ipAddress".into(), json!("198.51.100.7"));
        }
        if self.rng.u32(0..4) == 0 && name != "attemptedUserId" {
            payload.insert("attemptedUserId".into(), json!(""));
        }
        ("UserLoginFailed", payload, &["failureTimestamp"])
    }

    /// One of the many failed logins for one account, all within a window.
    pub(super) fn hot_failure(&mut self) -> Happening {
        let start = (START + 40 * DAY) * 1_000;
        let at = start - start % WINDOW + self.rng.i64(0..WINDOW);
        let time = DateTime::from_timestamp_micros(at).expect("in range");
        let payload = json!({
            "reason": self.reason(), "attemptedUsername": "root", "attemptedEmail": null,
            "ipAddress": "192.0.2.1", "failureTimestamp": time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        });
        ("UserLoginFailed", object(payload), &["failureTimestamp"])
    }

    pub(super) fn challenge_failed(&mut self) -> Happening {
        let mut payload = object(json!({"mfaMethod": "SMS"}));
        self.program(&mut payload);
        if self.rng.bool() {
            payload.insert("ipAddress".into(), json!("203.0.113.9"));
        }
        ("MfaChallengeFailed", payload, &["failureTimestamp"])
    }

    /// Adds the program that a user came with, mostly.
    pub(super) fn program(&mut self, payload: &mut Map<String, Value>) {
        let program = match self.rng.u32(0..6) {
            0 => return,
            1 => Value::Null,
            2 => json!(""),
            3 => json!(self.text()),
            _ => json!(self.pick(&["Mozilla/5.0", "curl/8.5", "nul\0"])),
        };
        payload.insert("userAgent".into(), program);
    }
}
