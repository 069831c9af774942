//! Scenes: a few events of one user that belong together, for what seldom meets by chance.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::generator::{Generator, Happening};
use super::values::{object, uuid};

/// Flags for shipping and billing.
const BOTH: [bool; 2] = [true, true];
const NEITHER: [bool; 2] = [false, false];

impl Generator {
    /// Events of one user that belong together; other events of the same key may come between them.
    pub(super) fn scene(&mut self, user: usize) -> VecDeque<Happening> {
        let a = self.address_id(user);
        let b = if self.rng.bool() {
            uuid(&mut self.rng)
        } else {
            self.address_id(user)
        };
        let one = [self.rng.bool(), self.rng.bool()];
        let scene = match self.rng.u32(0..14) {
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
