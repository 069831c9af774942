//! The fold itself, by examples worked out by hand from the contract, and the random logs: they hold what they
//! promise, in quantity.

use crate::support::broker::Record;
use crate::support::fold::{Books, Customers, Fold, Verdict, normal};
use crate::support::log::{MAX_VALUE_BYTES, Shape, generate, seed};
use serde_json::{Value, json};

struct Case {
    fold: Fold<Customers>,
    events: i64,
}

impl Case {
    fn new() -> Case {
        Case {
            fold: Fold::new(Customers::default(), 1000),
            events: 0,
        }
    }

    /// An event of the user `u`, keyed by it, a second after the one before.
    fn event(&mut self, event_type: &str, mut payload: Value) -> Verdict {
        payload["userId"] = json!("u");
        payload["profileId"] = json!("p");
        let id = payload
            .get("id")
            .map_or(json!(self.events.to_string()), Value::clone);
        self.raw(&json!({"eventType": event_type, "eventId": id, "payload": payload}).to_string())
    }

    fn raw(&mut self, value: &str) -> Verdict {
        self.events += 1;
        self.fold.take(&Record {
            partition: 0,
            key: Some(b"u".to_vec()),
            value: Some(value.into()),
            headers: vec![],
            timestamp: self.events * 1000,
        })
    }

    fn answer(&self) -> Value {
        self.fold.view.answer("u").expect("known")
    }

    fn default_shipping(&self) -> (Option<String>, Vec<String>) {
        let answer = self.answer();
        let flagged = answer["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|a| a["isDefaultShipping"] == true);
        (
            answer["defaultShippingAddressId"]
                .as_str()
                .map(str::to_owned),
            flagged
                .map(|a| a["addressId"].as_str().unwrap().to_owned())
                .collect(),
        )
    }
}

fn added(id: &str, default: bool) -> Value {
    json!({"addressId": id, "addressType": "home", "isDefaultShipping": default, "isDefaultBilling": false,
        "country": "de"})
}

#[test]
fn a_customer_in_full() {
    let mut case = Case::new();
    case.event(
        "UserRegistered",
        json!({"email": "a@b.c", "firstName": "A\0", "status": "active"}),
    );
    case.event("UserEmailVerified", json!({"email": "a@b.c"}));
    case.event(
        "UserProfileUpdated",
        json!({"updatedFields": ["lastName", "bio"]}),
    );
    let mut address = added("x", true);
    address["fullAddress"] =
        json!({"addressLine1": "1 Road", "zipCode": "12", "countryCode": "fr", "phone": ""});
    case.event("UserAddressAdded", address);
    case.event(
        "UserAddressUpdated",
        json!({"addressId": "x", "updatedFields": {"state": {"old": "S"}}}),
    );
    assert_eq!(
        case.answer(),
        json!({
            "userId": "u", "email": "a@b.c", "emailVerified": true, "firstName": "A\u{fffd}", "status": "active",
            "registeredAt": "1970-01-01T00:00:01Z", "updatedAt": "1970-01-01T00:00:05Z",
            "staleFields": ["lastName"], "defaultShippingAddressId": "x",
            "addresses": [{
                "addressId": "x", "type": "home", "streetLine1": "1 Road", "postalCode": "12", "country": "FR",
                "isDefaultShipping": true, "isDefaultBilling": false, "staleFields": ["stateOrProvince"],
                "updatedAt": "1970-01-01T00:00:05Z",
            }],
        })
    );
}

#[test]
fn an_email_is_verified_until_it_is_another_or_unknown() {
    let mut case = Case::new();
    case.event("UserEmailVerified", json!({"email": "a@b.c"}));
    case.event(
        "UserUpdated",
        json!({"updatedFields": {"email": {"old": "z", "new": "a@b.c"}}}),
    );
    assert_eq!(case.answer()["emailVerified"], true);
    case.event(
        "UserUpdated",
        json!({"updatedFields": ["email"], "newValues": {"other": 1}}),
    );
    assert_eq!(
        (&case.answer()["email"], &case.answer()["staleFields"]),
        (&json!("a@b.c"), &json!(["email"]))
    );
    assert_eq!(case.answer().get("emailVerified"), None);
    case.event(
        "UserUpdated",
        json!({"updatedFields": ["email"], "newValues": {"email": "n@b.c"}}),
    );
    assert_eq!(
        (
            &case.answer()["emailVerified"],
            &case.answer()["staleFields"]
        ),
        (&json!(false), &json!([]))
    );
    case.event("UserUpdated", json!({"updatedFields": {"email": null}}));
    assert_eq!(
        (
            case.answer().get("email"),
            case.answer().get("emailVerified")
        ),
        (None, None)
    );
}

#[test]
fn a_default_may_come_before_its_address() {
    let mut case = Case::new();
    case.event("UserAddressAdded", added("old", true));
    case.event(
        "UserProfileDefaultAddressChanged",
        json!({"defaultShippingAddressId": "new"}),
    );
    assert_eq!(case.default_shipping(), (Some("new".into()), vec![]));
    case.event("UserAddressAdded", added("new", false));
    assert_eq!(
        case.default_shipping(),
        (Some("new".into()), vec!["new".into()])
    );
    // Known by now: a false flag unsets.
    case.event("UserAddressAdded", added("new", false));
    assert_eq!(case.default_shipping(), (None, vec![]));
    case.event("UserAddressDeleted", json!({"addressId": "new"}));
    case.event(
        "UserAddressUpdated",
        json!({"addressId": "new", "updatedFields": {"city": "C"}}),
    );
    case.event(
        "UserProfileDefaultAddressChanged",
        json!({"defaultShippingAddressId": "new"}),
    );
    assert_eq!(case.default_shipping(), (Some("new".into()), vec![]));
    case.event("UserAddressDeleted", json!({"addressId": "new"}));
    assert_eq!(case.default_shipping(), (None, vec![]));
}

#[test]
fn deletion_is_final() {
    let mut case = Case::new();
    case.event(
        "UserRegistered",
        json!({"email": "a@b.c", "status": "active"}),
    );
    case.event("UserAddressAdded", added("x", true));
    case.event("UserDeleted", json!({"deletionType": "whatever"}));
    case.event("UserAddressAdded", added("y", true));
    case.event(
        "UserRegistered",
        json!({"email": "a@b.c", "status": "active"}),
    );
    let mut gone = json!({
        "userId": "u", "status": "deleted", "registeredAt": "1970-01-01T00:00:01Z",
        "updatedAt": "1970-01-01T00:00:03Z", "deletedAt": "1970-01-01T00:00:03Z", "staleFields": [],
        "addresses": [{"addressId": "x", "country": "DE", "staleFields": []}],
    });
    assert_eq!(case.answer(), gone);
    case.event("UserDeleted", json!({"deletionType": "hard"}));
    case.event("UserDeleted", json!({}));
    gone["addresses"] = json!([]);
    gone["updatedAt"] = json!("1970-01-01T00:00:06Z");
    assert_eq!(case.answer(), gone);
}

#[test]
fn records_are_judged_in_their_order() {
    let mut case = Case::new();
    assert_eq!(
        case.event(
            "UserRegistered",
            json!({"id": "1", "email": "a@b.c", "status": "active"})
        ),
        Verdict::Applied
    );
    assert_eq!(
        case.event("UserDeleted", json!({"id": "1", "email": 5})),
        Verdict::Duplicate
    );
    assert_eq!(
        case.event("UserUpdated", json!({"id": "2"})),
        Verdict::DeadLettered
    );
    assert_eq!(case.event("UserLoggedIn", json!({})), Verdict::Skipped);
    assert_eq!(
        case.event(
            "UserRegistered",
            json!({"id": "1", "email": "a@b.c", "status": "active"})
        ),
        Verdict::DeadLettered
    );
    assert_eq!(case.raw("{"), Verdict::DeadLettered);
    let open = Books {
        read: 6,
        applied: 1,
        duplicates: 1,
        skipped: 1,
        dead_lettered: 3,
        dead_letters: 3,
        parked_keys: 1,
    };
    assert_eq!(case.fold.books(0), open);
    assert_eq!(
        case.event("UserDeleted", json!({"deletionType": 5})),
        Verdict::DeadLettered
    );
    assert_eq!(
        case.event("UserDeleted", json!({"id": "2"})),
        Verdict::Applied
    );
    assert_eq!(
        case.event("UserUpdated", json!({"updatedFields": []})),
        Verdict::Applied
    );
    let closed = Books {
        read: 9,
        applied: 3,
        dead_lettered: 4,
        dead_letters: 0,
        parked_keys: 0,
        ..open
    };
    assert_eq!(case.fold.books(0), closed);
    assert_eq!(case.raw(&" ".repeat(1001)), Verdict::DeadLettered);
}

#[test]
fn ids_are_forgotten_in_log_time() {
    let day = 86_400_000;
    let mut fold = Fold::new(Customers::default(), 1000);
    let mut take = |id: &str, timestamp| {
        let value = json!({"specversion": "1.0", "type": "a.b.UserDeleted.v1", "id": id, "data": {"userId": id}});
        fold.take(&Record {
            partition: 0,
            key: None,
            value: Some(value.to_string().into()),
            headers: vec![],
            timestamp,
        })
    };
    assert_eq!(take("a", 0), Verdict::Applied);
    // Far ahead: a day only.
    assert_eq!(take("b", 4000 * day), Verdict::Applied);
    assert_eq!(take("a", 80 * day), Verdict::Duplicate);
    for n in 3..90 {
        take("b", n * day);
    }
    assert_eq!(take("a", 5 * day), Verdict::Duplicate);
    assert_eq!(take("a", 90 * day), Verdict::Applied);
    assert_eq!(take("a", 91 * day), Verdict::Duplicate);
}

#[test]
fn the_form_of_an_answer_does_not_matter_its_content_does() {
    let a = json!({"updatedAt": "2026-01-01T00:00:00.500000Z", "staleFields": ["b", "a"]});
    let b = json!({"updatedAt": "2026-01-01T00:00:00.5Z", "staleFields": ["a", "b"]});
    assert_eq!(normal(a.clone()), normal(b));
    assert_ne!(
        normal(a),
        normal(json!({"updatedAt": "2026-01-01T01:00:00.5+01:00", "staleFields": ["a", "b"]}))
    );
}

#[test]
fn the_logs_hold_everything() {
    let shape = Shape {
        records: 20_000,
        partitions: 3,
        users: 300,
    };
    let log = generate(seed(), shape);
    assert_eq!(log, generate(seed(), shape), "the same for the same seed");
    assert_ne!(log, generate(seed() + 1, shape));
    let mut fold = Fold::new(Customers::default(), MAX_VALUE_BYTES);
    for record in &log {
        fold.take(record);
    }
    let mut total = Books::default();
    for partition in 0..3 {
        let books = fold.books(partition);
        assert_eq!(
            books.read,
            books.applied + books.duplicates + books.skipped + books.dead_lettered
        );
        total.read += books.read;
        total.applied += books.applied;
        total.duplicates += books.duplicates;
        total.skipped += books.skipped;
        total.dead_lettered += books.dead_lettered;
        total.parked_keys += books.parked_keys;
    }
    println!("{total:?}");
    assert_eq!(total.read, 20_000);
    assert!(
        total.applied > 8_000 && total.duplicates > 100 && total.skipped > 2_000,
        "{total:?}"
    );
    assert!(
        total.dead_lettered > 300 && total.parked_keys > 50,
        "{total:?}"
    );
    let answers: Vec<Value> = fold
        .view
        .ids()
        .iter()
        .map(|id| fold.view.answer(id).unwrap())
        .collect();
    let having =
        |test: &dyn Fn(&Value) -> bool| answers.iter().filter(|answer| test(answer)).count();
    assert!(having(&|a| a.get("deletedAt").is_some()) > 20);
    assert!(having(&|a| a["staleFields"] != json!([])) > 20);
    assert!(having(&|a| a.get("deletedAt").is_none() && a["addresses"] != json!([])) > 50);
    assert!(having(&|a| a["emailVerified"] == true) > 5);
    assert!(having(&|a| a.get("email").is_some() && a.get("emailVerified").is_none()) > 2);
}
