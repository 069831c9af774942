//! Scenes: a few events of one user that belong together, for what seldom meets by chance.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::generator::{DAY, Generator, Happening};
use super::values::{object, uuid};

/// Flags for shipping and billing.
const BOTH: [bool; 2] = [true, true];
const NEITHER: [bool; 2] = [false, false];

impl Generator {
    /// Events of one user that belong together; other events of the same key may come between them.
    pub(super) fn scene(&mut self, user: usize, now: i64) -> VecDeque<Happening> {
        let a = self.address_id(user);
        let b = if self.rng.bool() {
            uuid(&mut self.rng)
        } else {
            self.address_id(user)
        };
        let one = [self.rng.bool(), self.rng.bool()];
        let scene = match self.rng.u32(0..23) {
            0..3 => self.stale_and_known_again(&a, one),
            3..6 => self.default_named_before_its_address(&a),
            6..8 => self.default_deleted_and_added_again(&a),
            8..10 => vec![
                // Both defaults move at once, there and back, and once to where they are.
                self.add(&a, one),
                self.add(&b, NEITHER),
                name_defaults(Some(&b), Some(&b)),
                name_defaults(Some(&a), Some(&a)),
                name_defaults(Some(&a), Some(&a)),
                name_defaults(Some(&b), Some(&a)),
            ],
            10..13 => self.added_while_known(&a, &b, one),
            13..15 => self.in_and_out(user),
            15 => self.first_days(&a, now),
            16..18 => self.preferences_in_every_way(),
            18 => match self.rng.u32(0..9) {
                0..4 => self.preferences_up_to_the_limit(),
                4..6 => self.deleted_and_back_the_same_day(user, now),
                _ => self.homes(&a, &b),
            },
            20.. => self.notifications(now),
            _ if self.rng.u32(0..3) == 0 => self.user_deleted_twice(&a, &b, one),
            _ => vec![
                delete(&b),
                update(&b, json!({"updatedFields": {"city": "Rome"}})),
                name_defaults(Some(&b), None),
                self.add(&b, NEITHER),
            ],
        };
        scene.into()
    }

    /// A field becomes stale, and known again: with the old value or with another one.
    fn stale_and_known_again(&mut self, a: &str, defaults: [bool; 2]) -> Vec<Happening> {
        let fields = [
            ("city", "Berlin", "Paris"),
            ("postalCode", "10115", "75001"),
            ("streetLine1", "1 Main Street", "2 High Street"),
            ("country", "DE", "FR"),
            ("stateOrProvince", "CA", "NY"),
            ("contactName", "A. Person", "B. Person"),
        ];
        let (name, was, other) = fields[self.rng.usize(0..fields.len())];
        let confirmed = if self.rng.bool() { was } else { other };
        let whole = self.postal_address();
        vec![
            self.add(a, defaults),
            // The type stays stale behind a full address, which leaves nothing else stale.
            update(a, json!({"updatedFields": ["addressType", name]})),
            update(a, json!({"updatedFields": [], "fullAddress": whole})),
            update(a, json!({"updatedFields": {name: was}})),
            update(a, json!({"updatedFields": [name]})),
            update(a, json!({"updatedFields": {name: {"new": confirmed}}})),
            update(
                a,
                json!({"updatedFields": [name], "newValues": {name: was}}),
            ),
            update(a, json!({"updatedFields": {name: {"old": was}}})),
            update(a, json!({"updatedFields": {name: null}})),
        ]
    }

    /// A default is named before its address, and goes back to the former address before the new one comes.
    fn default_named_before_its_address(&mut self, a: &str) -> Vec<Happening> {
        let new = uuid(&mut self.rng);
        let mut scene = vec![self.add(a, BOTH), name_defaults(Some(&new), Some(&new))];
        if self.rng.bool() {
            scene.push(update(
                a,
                json!({"updatedFields": {"city": self.pick(&["Berlin", "Rome"])}}),
            ));
        }
        match self.rng.u32(0..4) {
            0 => scene.push(delete(&new)),
            1 => scene.push(self.add(&new, NEITHER)),
            _ => {}
        }
        scene.push(name_defaults(Some(a), self.rng.bool().then_some(a)));
        scene.push(self.add(&new, NEITHER));
        scene
    }

    /// The default address is deleted and comes back.
    fn default_deleted_and_added_again(&mut self, a: &str) -> Vec<Happening> {
        let flags = if self.rng.bool() { BOTH } else { NEITHER };
        vec![
            self.add(a, BOTH),
            delete(a),
            update(a, json!({"updatedFields": {"city": "Nowhere"}})),
            self.add(a, flags),
            update(a, json!({"updatedFields": {"city": "Berlin"}})),
        ]
    }

    /// Addresses are added while they are known: to take a default, keep it, lose it, and once unchanged.
    fn added_while_known(&mut self, a: &str, b: &str, defaults: [bool; 2]) -> Vec<Happening> {
        let again = self.add(b, BOTH);
        vec![
            self.add(a, BOTH),
            again.clone(),
            again,
            self.add(b, defaults),
            self.add(b, NEITHER),
            self.add(a, [true, false]),
        ]
    }

    /// A user is deleted softly and for good, in either order, with other events between.
    fn user_deleted_twice(&mut self, a: &str, b: &str, defaults: [bool; 2]) -> Vec<Happening> {
        let mut ways = ["soft", "hard"];
        self.rng.shuffle(&mut ways);
        vec![
            self.add(a, BOTH),
            name_defaults(Some(b), None),
            delete_user(ways[0]),
            self.add(b, BOTH),
            delete(a),
            delete_user(ways[1]),
            self.add(a, defaults),
        ]
    }

    /// Logins that fail and succeed.
    fn in_and_out(&mut self, user: usize) -> Vec<Happening> {
        vec![
            self.login_failed(Some(user)),
            self.logged_in(),
            self.login_failed(Some(user)),
            self.login_failed(None),
            self.login_failed(Some(user)),
        ]
    }

    /// A user takes the steps of the funnel within some days, in any order; and one of them weeks later, again.
    fn first_days(&mut self, a: &str, now: i64) -> Vec<Happening> {
        let verified = object(json!({"email": self.email()}));
        let mut steps = vec![
            self.registered(),
            ("UserEmailVerified", verified, &["verificationTimestamp"]),
            self.logged_in(),
            self.add(a, NEITHER),
        ];
        if self.rng.bool() {
            self.rng.shuffle(&mut steps);
        }
        steps.truncate(self.rng.usize(2..5));
        steps.push(self.logged_in());
        for (n, step) in steps.iter_mut().enumerate() {
            let ahead = match n {
                0..4 => self.rng.i64(-DAY..3 * DAY),
                _ => self.rng.i64(0..30 * DAY),
            };
            *step = self.timed(step.clone(), now + ahead);
        }
        steps
    }

    /// A user who is deleted comes back on the same day.
    fn deleted_and_back_the_same_day(&mut self, user: usize, now: i64) -> Vec<Happening> {
        let noon = now - now % DAY + DAY / 2;
        let scene = vec![
            self.logged_in(),
            delete_user("soft"),
            self.registered(),
            self.logged_in(),
            self.login_failed(Some(user)),
            delete_user("hard"),
        ];
        let mut hours = 0;
        let mut at = |scene: Happening| {
            hours += 1;
            let (name, mut payload, own_times) = scene;
            let time = chrono::DateTime::from_timestamp_millis(noon + hours * 3_600_000);
            payload.insert(
                own_times[0].into(),
                json!(time.expect("in range").to_rfc3339()),
            );
            (name, payload, own_times)
        };
        scene.into_iter().map(&mut at).collect()
    }

    /// Gives an event its own time.
    fn timed(&mut self, (name, mut payload, own_times): Happening, at: i64) -> Happening {
        let at = self.time(at);
        payload.insert(own_times[0].into(), json!(at));
        (name, payload, own_times)
    }

    /// Preferences are set whole and in parts, become unknown, and go away.
    fn preferences_in_every_way(&mut self) -> Vec<Happening> {
        let (some, other) = (self.preferences(), self.preferences());
        let name = self.pick(&["preferences", "communicationPreferences"]);
        let (tracking, theme) = (format!("{name}.privacy.tracking"), format!("{name}.theme"));
        let privacy = format!("{name}.privacy");
        let mut scene = vec![
            profile(json!({"updatedFields": {name: some}})),
            profile(json!({"updatedFields": [&theme, &tracking]})),
            profile(json!({"updatedFields": {&theme: "dark"}})),
            // What is no object is in the way.
            profile(json!({"updatedFields": {&privacy: "none"}})),
            profile(json!({"updatedFields": {&tracking: {"old": 1, "new": self.preference()}}})),
            profile(json!({"updatedFields": {&tracking: null}})),
            profile(json!({"updatedFields": [name]})),
            profile(json!({"updatedFields": [&theme], "newValues": {name: {"theme": 3}}})),
            profile(json!({"updatedFields": [name], "newValues": {name: other}})),
            profile(json!({"updatedFields": {name: self.rng.choice([Value::Null, json!("")])}})),
        ];
        let first = self.rng.usize(0..4);
        drop(scene.drain(..first));
        scene
    }

    /// Preferences grow to exactly 64 KiB, or to one byte more; then they are replaced.
    fn preferences_up_to_the_limit(&mut self) -> Vec<Happening> {
        let name = self.pick(&["preferences", "communicationPreferences"]);
        let part = "p".repeat(11_000);
        let mut scene = vec![profile(json!({"updatedFields": {name: {"a": part}}}))];
        for member in ["b", "c", "d", "e"] {
            let member = format!("{name}.{member}");
            scene.push(profile(json!({"updatedFields": {member: part}})));
        }
        // Braces, five commas, and for each of six members three pairs of quotes and colon and name.
        let punctuation = 2 + 5 + 6 * "'a':''".len();
        let over = usize::from(self.rng.bool());
        let rest = "r".repeat(65_536 - punctuation - 5 * 11_000 + over);
        scene.push(profile(
            json!({"updatedFields": {format!("{name}.f"): rest}}),
        ));
        scene.push(profile(
            json!({"updatedFields": {format!("{name}.a"): "small"}}),
        ));
        scene
    }

    /// The location moves: to the default, to the address that became known last, and back.
    fn homes(&mut self, a: &str, b: &str) -> Vec<Happening> {
        vec![
            self.add(a, NEITHER),
            self.add(b, NEITHER),
            self.add(a, NEITHER),
            name_defaults(Some(a), None),
            update(a, json!({"updatedFields": ["city", "state", "country"]})),
            name_defaults(Some("not-known"), None),
            delete(b),
            self.add(b, NEITHER),
            delete("not-known"),
            delete(b),
        ]
    }

    /// An address is added with all its fields, some of which may be missing or wrong.
    fn add(&mut self, id: &str, [shipping, billing]: [bool; 2]) -> Happening {
        let mut payload = object(json!({
            "addressId": id, "addressType": "home",
            "isDefaultShipping": shipping, "isDefaultBilling": billing, "country": "DE",
        }));
        let address = self.postal_address();
        payload.insert("fullAddress".into(), Value::Object(address));
        ("UserAddressAdded", payload, &["addTimestamp"])
    }
}

fn update(id: &str, what: Value) -> Happening {
    let mut payload = object(what);
    payload.insert("addressId".into(), json!(id));
    ("UserAddressUpdated", payload, &["updateTimestamp"])
}

fn profile(what: Value) -> Happening {
    ("UserProfileUpdated", object(what), &["updateTimestamp"])
}

fn delete(id: &str) -> Happening {
    let payload = object(json!({"addressId": id}));
    ("UserAddressDeleted", payload, &["deleteTimestamp"])
}

fn name_defaults(shipping: Option<&str>, billing: Option<&str>) -> Happening {
    let payload = json!({"defaultShippingAddressId": shipping, "defaultBillingAddressId": billing});
    (
        "UserProfileDefaultAddressChanged",
        object(payload),
        &["changeTimestamp"],
    )
}

fn delete_user(deletion: &str) -> Happening {
    let payload = object(json!({"deletionType": deletion}));
    ("UserDeleted", payload, &["deletionTimestamp"])
}
