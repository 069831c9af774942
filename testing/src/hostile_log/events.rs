//! What happens to users: any event of the catalogue, with its own time.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::generator::{DAY, Draft, Generator, Happening};
use super::values::object;

impl Generator {
    /// The user's next event.
    pub(super) fn draft(&mut self, user: usize, now: i64) -> Draft {
        let next = self.users[user].scene.pop_front();
        let (event_type, mut payload, own_times) = match next {
            Some(next) => next,
            None => self.happening(user, now),
        };
        let own_time = self.own_time(user, now);
        let user = &self.users[user];
        payload.insert("userId".into(), json!(user.id));
        if event_type.starts_with("UserProfile") || event_type.starts_with("UserAddress") {
            payload.insert(
                "profileId".into(),
                json!(format!("profile-{}", user.partition)),
            );
        }
        match self.rng.u32(0..10) {
            // Scenes may give the time.
            _ if payload.contains_key(own_times[0]) => {}
            0 => drop(payload.insert(own_times[0].into(), Value::Null)),
            1 => drop(payload.insert(own_times[0].into(), json!(""))),
            2 => {}
            _ => {
                let name = own_times[self.rng.usize(0..own_times.len())];
                payload.insert(name.into(), json!(own_time));
            }
        }
        if self.rng.u32(0..8) == 0 {
            payload.insert(
                "futureField".into(),
                json!({"a": [1, 2.5e10, {"b": null}], "updatedFields": 7}),
            );
        }
        Draft {
            event_type,
            payload,
        }
    }

    /// Mostly about now; sometimes exactly the time of the user's previous event, sometimes long ago.
    fn own_time(&mut self, user: usize, now: i64) -> String {
        let last = self.users[user].last_time.clone();
        let time = match (self.rng.u32(0..10), last) {
            (0..2, Some(last)) => last,
            (2..4, _) => {
                let ago = self.rng.i64(0..40 * DAY);
                self.time(now - ago)
            }
            _ => self.time(now),
        };
        self.users[user].last_time = Some(time.clone());
        time
    }

    /// Any event, or the first one of a scene.
    fn happening(&mut self, user: usize, now: i64) -> Happening {
        let first = !std::mem::replace(&mut self.users[user].started, true);
        let kind = self.rng.u32(0..224);
        match kind {
            _ if first && kind < 140 => self.registered(),
            // Nothing is known of the user when something is to be sent.
            _ if first && kind < 150 => {
                let scene = self.notifications(now);
                self.begin(user, scene.into())
            }
            // Nobody has heard of the user.
            _ if first && kind < 153 => self.account_event(42),
            0..3 => self.registered(),
            3..43 => self.account_event(kind),
            43..74 => self.profile_updated(),
            74..96 => self.address_added(user),
            96..118 => self.address_updated(user),
            118..126 => {
                let id = self.address_id(user);
                (
                    "UserAddressDeleted",
                    object(json!({"addressId": id})),
                    &["deleteTimestamp"],
                )
            }
            126..146 => self.defaults_changed(user),
            146..180 => self.session_event(user, kind),
            180..194 => self.access_event(user),
            194..198 => {
                let scene = self.access_scene(user);
                self.begin(user, scene.into())
            }
            198..202 => {
                let scene = self.alarms(user, now);
                self.begin(user, scene.into())
            }
            _ => {
                let scene = self.scene(user, now);
                self.begin(user, scene)
            }
        }
    }

    /// Begins a scene: returns its first event, and keeps the others for later.
    fn begin(&mut self, user: usize, mut scene: VecDeque<Happening>) -> Happening {
        let beginning = scene.pop_front().expect("a scene has events");
        self.users[user].scene = scene;
        beginning
    }

    /// Of `happening`'s kinds 3 to 42.
    fn account_event(&mut self, kind: u32) -> Happening {
        match kind {
            3..10 => (
                "UserEmailVerified",
                object(json!({"email": self.email()})),
                &["verificationTimestamp"],
            ),
            10..15 => (
                "UserPasswordChanged",
                object(json!({"changeType": self.pick(&["self_initiated", "reset_completed"])})),
                &["changeTimestamp"],
            ),
            15..20 => (
                "UserPasswordResetRequested",
                object(json!({"email": self.email(), "resetTokenIdentifier": "t-1"})),
                &["requestTimestamp"],
            ),
            20..28 => {
                let statuses = [
                    "pending_verification",
                    "active",
                    "suspended",
                    "banned",
                    "deactivated",
                    "deleted",
                    "odd",
                ];
                let payload = json!({
                    "newStatus": self.pick(&statuses),
                    "previousStatus": self.pick(&statuses),
                    "reason": self.pick(&["", "because"]),
                    "changedBy": self.pick(&["admin-user-id-001", "", "user", "nul\0"]),
                });
                (
                    "UserAccountStatusChanged",
                    object(payload),
                    &["changeTimestamp"],
                )
            }
            28..42 => {
                let names = [
                    "username",
                    "email",
                    "secondaryEmail",
                    "firstName",
                    "futureField",
                ];
                ("UserUpdated", self.changes(&names), &["updateTimestamp"])
            }
            _ => {
                let mut payload = Map::new();
                match self.rng.u32(0..6) {
                    0..2 => payload.insert("deletionType".into(), json!("hard")),
                    2 => payload.insert("deletionType".into(), json!("soft")),
                    3 => payload.insert("deletionType".into(), json!("thorough")),
                    4 => payload.insert("deletionType".into(), Value::Null),
                    _ => payload.insert("anonymized".into(), json!(true)),
                };
                ("UserDeleted", payload, &["deletionTimestamp"])
            }
        }
    }

    fn profile_updated(&mut self) -> Happening {
        let mut names = vec![
            "firstName",
            "lastName",
            "displayName",
            "phoneNumber",
            "bio",
            "profilePictureUrl",
            "languagePreference",
            "timezonePreference",
            "dateOfBirth",
            "gender",
            "futureField",
        ];
        // Of preferences, none that lies below another one: the contract gives one event's changes no order.
        names.extend(match self.rng.u32(0..4) {
            0 => &["preferences", "communicationPreferences"][..],
            1 => &["preferences.privacy", "preferences.theme", "preferencesOf"],
            2 => &["preferences.theme.dark", "communicationPreferences.email"],
            _ => &[
                "preferences.privacy.tracking",
                "preferences.privacy.ads",
                "preferences.theme",
                "preferences.größe",
                "communicationPreferences.email.weekly",
            ],
        });
        (
            "UserProfileUpdated",
            self.changes(&names),
            &["updateTimestamp"],
        )
    }

    fn defaults_changed(&mut self, user: usize) -> Happening {
        let mut payload = Map::new();
        for name in ["defaultShippingAddressId", "defaultBillingAddressId"] {
            match self.rng.u32(0..6) {
                0 => {}
                1 => drop(payload.insert(name.into(), Value::Null)),
                2 => drop(payload.insert(name.into(), json!(""))),
                _ => {
                    let id = self.address_id(user);
                    payload.insert(name.into(), json!(id));
                }
            }
        }
        (
            "UserProfileDefaultAddressChanged",
            payload,
            &["changeTimestamp"],
        )
    }

    /// Of `happening`'s kinds 146 to 179.
    fn session_event(&mut self, user: usize, kind: u32) -> Happening {
        match kind {
            146..158 => self.logged_in(),
            158..161 => (
                "UserLoggedOut",
                object(json!({"revokedTokenJtis": ["a", "b"], "sessionId": ""})),
                &["logoutTimestamp"],
            ),
            161..165 => {
                let by = self.pick(&["user", "", "admin", "admin-user-id-001"]);
                let payload =
                    json!({"mfaEnabled": self.rng.bool(), "mfaMethod": "TOTP", "changedBy": by});
                ("MfaStatusChanged", object(payload), &["changeTimestamp"])
            }
            165..168 => self.challenge_failed(),
            168..174 => self.login_failed(Some(user)),
            _ => self.login_failed(None),
        }
    }

    pub(super) fn logged_in(&mut self) -> Happening {
        let mut payload = object(json!({
            "sessionId": "s", "ipAddress": "203.0.113.9", "mfaVerified": self.rng.bool(),
        }));
        self.program(&mut payload);
        ("UserLoggedIn", payload, &["loginTimestamp"])
    }

    /// A failed login, which may name the user.
    pub(super) fn login_failed(&mut self, user: Option<usize>) -> Happening {
        if user.is_none() && self.rng.u32(0..3) == 0 {
            return self.hot_failure();
        }
        let mut payload = object(json!({"reason": self.reason()}));
        self.program(&mut payload);
        let attempted = user.map(|user| json!(self.users[user].id));
        let unnamed = self.rng.choice([None, Some(json!("")), Some(Value::Null)]);
        if let Some(id) = attempted.or(unnamed.expect("some")) {
            payload.insert("attemptedUserId".into(), id);
        }
        // Of many, because a bad record parks its key.
        let number = self.rng.u32(0..500);
        if self.rng.bool() {
            payload.insert(
                "attemptedEmail".into(),
                json!(format!("who{number}@example.com")),
            );
        }
        if self.rng.bool() {
            payload.insert("ipAddress".into(), json!(format!("198.51.100.{number}")));
        }
        ("UserLoginFailed", payload, &["failureTimestamp"])
    }

    pub(super) fn registered(&mut self) -> Happening {
        let mut payload = object(json!({
            "email": self.email(),
            "status": self.pick(&["active", "pending_verification"]),
        }));
        for name in ["username", "firstName", "lastName", "source"] {
            match self.rng.u32(0..5) {
                0 => {}
                1 => drop(payload.insert(name.into(), Value::Null)),
                _ => {
                    let value = match name {
                        "source" => self.source(),
                        _ => self.name(),
                    };
                    payload.insert(name.into(), json!(value));
                }
            }
        }
        (
            "UserRegistered",
            payload,
            &["registrationTimestamp", "registeredAt"],
        )
    }
}
