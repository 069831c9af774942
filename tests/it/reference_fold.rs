//! The reference fold, by examples worked out by hand from the contract; and the random logs, which must hold
//! enough of every difficult combination.

mod analytics;
mod audit;
mod notification;
mod personalization;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sightline_testing::broker::Record;
use sightline_testing::hostile_log::{MAX_VALUE_BYTES, Shape, generate, seed};
use sightline_testing::reference::{
    Addresses, Books, Change, Customers, Event, Fold, Folds, Parcels, Verdict, View, event_of,
    matches, normal, validate,
};

struct Case {
    fold: Fold,
    events: i64,
}

impl Case {
    fn new() -> Case {
        Case {
            fold: Fold::new(Customers::default(), 1000),
            events: 0,
        }
    }

    /// Takes an event of the user `u`, with that key, one second after the previous event.
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
        self.fold.view::<Customers>().answer("u").expect("known")
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
    // The address is known now, so a false flag unsets the default.
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

/// Takes a record of another key than the previous ones.
fn verdict(headers: &[(&str, &str)], value: impl Into<Vec<u8>>) -> Verdict {
    Fold::new(Customers::default(), 100_000).take(&Record {
        partition: 0,
        key: None,
        value: Some(value.into()),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect(),
        timestamp: 1000,
    })
}

#[test]
fn records_are_read_in_every_envelope_and_wrapping() {
    use Verdict::{Applied, DeadLettered, Skipped};
    let deleted = r#"{"eventId":"e","eventType":"UserDeleted","payload":{"userId":"u"}}"#;
    let in_string = json!(deleted).to_string();
    let in_wrapper = format!(r#"{{"schema":{{}},"payload":{in_string}}}"#);
    let unpaired = deleted.replace("\"u\"", r#""u","email":"\ud83d""#);
    for (value, expected) in [
        (deleted.to_owned(), Applied),
        (format!("\0\0\0\0\u{1}{deleted}"), Applied),
        (format!("\u{feff}{deleted}"), Applied),
        (format!("\0\0\0\0\u{1}\u{feff}{in_wrapper}"), Applied),
        (json!(in_string).to_string(), DeadLettered),
        (json!(in_wrapper).to_string(), DeadLettered),
        (format!("\u{feff}\0\0\0\0\u{1}{deleted}"), DeadLettered),
        (json!(unpaired).to_string().replace("\\\\u", "\\u"), Applied),
        (unpaired, Applied),
        (deleted.replace("\"u\"", r#""\ud83d""#), DeadLettered),
        (deleted.replace("\"u\"", r#""\ud83d\ude00""#), Applied),
        (deleted.replace("\"u\"", r#""u","x":1e999"#), DeadLettered),
        (
            deleted
                .replace("\"u\"", r#""u","x":1e999"#)
                .replace("UserDeleted", "UserLoggedIn"),
            Skipped,
        ),
    ] {
        assert_eq!(verdict(&[], value.clone()), expected, "{value:?}");
    }
    let outbox = [("id", "e"), ("eventType", "UserDeleted")];
    let of_no_interest = [("id", "e"), ("eventType", "UserLoggedIn")];
    for (headers, value, expected) in [
        (outbox, r#"{"userId":"u"}"#, Applied),
        (outbox, r#"{"eventId":"e","userId":"u"}"#, DeadLettered),
        (outbox, "no JSON", DeadLettered),
        (of_no_interest, "no JSON", Skipped),
    ] {
        assert_eq!(verdict(&headers, value), expected, "{headers:?} {value}");
    }
    let in_base64 = json!({"specversion": "1.0", "type": "UserDeleted", "id": "e", "data_base64": "eyJ1c2VySWQiOiJ1In0="});
    assert_eq!(verdict(&[], in_base64.to_string()), Applied);
}

#[test]
fn only_the_type_stays_stale_behind_a_full_address() {
    let mut case = Case::new();
    case.event("UserAddressAdded", added("x", true));
    for fields in [json!(["addressType", "city"]), json!(["addressType"])] {
        let full = json!({"addressId": "x", "updatedFields": [], "fullAddress": {"city": "B"}});
        case.event(
            "UserAddressUpdated",
            json!({"addressId": "x", "updatedFields": fields}),
        );
        case.event("UserAddressUpdated", full);
        let address = &case.answer()["addresses"][0];
        assert_eq!(
            (&address["type"], &address["city"], &address["staleFields"]),
            (&json!("home"), &json!("B"), &json!(["type"]))
        );
        let known = json!({"addressId": "x", "updatedFields": {"addressType": "home"}});
        case.event("UserAddressUpdated", known);
        assert_eq!(case.answer()["addresses"][0]["staleFields"], json!([]));
        // By one event, which says both.
        let both = json!({"addressId": "x", "updatedFields": ["addressType", "city"], "fullAddress": {"city": "B"}});
        case.event("UserAddressUpdated", both);
        assert_eq!(
            case.answer()["addresses"][0]["staleFields"],
            json!(["type"])
        );
    }
}

#[test]
fn event_ids_expire_in_offsets_and_stream_time() {
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
    // A quarter later in stream time, but not in offsets.
    for n in 1..=100 {
        take("b", n * day);
    }
    assert_eq!(take("a", 100 * day), Verdict::Duplicate);
    for _ in 0..99_897 {
        take("b", 0);
    }
    assert_eq!(take("a", 0), Verdict::Duplicate);
    assert_eq!(take("a", 0), Verdict::Applied);
    assert_eq!(take("a", 0), Verdict::Duplicate);
}

#[test]
fn the_normal_form_keeps_the_content() {
    let a = json!({"updatedAt": "2026-01-01T00:00:00.500000Z", "staleFields": ["b", "a"]});
    let b = json!({"updatedAt": "2026-01-01T00:00:00.5Z", "staleFields": ["a", "b"]});
    assert_eq!(normal(a.clone()), normal(b));
    assert_ne!(
        normal(a),
        normal(json!({"updatedAt": "2026-01-01T01:00:00.5+01:00", "staleFields": ["a", "b"]}))
    );
}

#[test]
fn random_logs_hold_every_verdict() {
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
    let customers: &Customers = fold.view();
    let answers: Vec<Value> = customers
        .ids()
        .iter()
        .map(|id| customers.answer(id).unwrap())
        .collect();
    let having =
        |test: &dyn Fn(&Value) -> bool| answers.iter().filter(|answer| test(answer)).count();
    assert!(having(&|a| a.get("deletedAt").is_some()) > 20);
    assert!(having(&|a| a["staleFields"] != json!([])) > 20);
    assert!(having(&|a| a.get("deletedAt").is_none() && a["addresses"] != json!([])) > 50);
    assert!(having(&|a| a["emailVerified"] == true) > 5);
    assert!(having(&|a| a.get("email").is_some() && a.get("emailVerified").is_none()) > 2);
}

/// Every envelope and wrapping occurs, applied, and alone and together with others.
#[test]
fn random_logs_hold_every_envelope_and_wrapping() {
    let shape = Shape {
        records: 60_000,
        partitions: 3,
        users: 300,
    };
    let mut fold = Fold::new(Customers::default(), MAX_VALUE_BYTES);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for record in generate(seed(), shape) {
        let verdict = fold.take(&record);
        let value = record.value.unwrap_or_default();
        // Text is searched in optimized code, also in a debug build.
        let text = String::from_utf8_lossy(&value);
        let holds = |part: &str| text.contains(part);
        let has_header = |name: &str| record.headers.iter().any(|(header, _)| header == name);
        for (what, is) in [
            ("framing", value.starts_with(b"\0")),
            ("byte order mark", holds("\u{feff}")),
            ("Connect's wrapper", holds("\"schema\":")),
            ("JSON string", holds("\\\"")),
            ("data_base64", holds("data_base64")),
            (
                "outbox",
                has_header("id") && !holds("eventId") && !holds("messageId"),
            ),
            ("unpaired surrogate", holds("\\uD800") || holds("\\udfff")),
            ("number beyond f64", holds(":1e999") && !holds("\"schema")),
            ("too deep", holds(&"[".repeat(130))),
        ] {
            if is {
                *counts.entry(format!("{what}: {verdict:?}")).or_default() += 1;
            }
        }
    }
    println!("{counts:#?}");
    for what in [
        "framing: Applied",
        "byte order mark: Applied",
        "Connect's wrapper: Applied",
        "JSON string: Applied",
        "data_base64: Applied",
        "outbox: Applied",
        "unpaired surrogate: Applied",
        "unpaired surrogate: DeadLettered",
        "number beyond f64: Skipped",
        "number beyond f64: DeadLettered",
        "too deep: Skipped",
        "too deep: DeadLettered",
    ] {
        let count = counts.get(what).copied().unwrap_or_default();
        assert!(count >= 5, "{what}: {count} times");
    }
}

/// Counts how often each combination occurs in a log.
#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, usize>,
    /// By user, the times of its events so far.
    times: BTreeMap<String, BTreeSet<DateTime<Utc>>>,
    /// By user, the previous default addresses.
    former: BTreeMap<String, [Option<String>; 2]>,
    registered: BTreeSet<String>,
    /// By address id, the users with an event that names it, and their partitions.
    users_of: BTreeMap<String, BTreeMap<String, i32>>,
}

/// An applied event of a user, and the user's addresses before and after it.
struct Step {
    event: Event,
    user: String,
    before: Addresses,
    after: Addresses,
}

impl Seen {
    fn is(&mut self, what: impl Into<String>, seen: bool) {
        *self.counts.entry(what.into()).or_default() += usize::from(seen);
    }

    fn deletion(&mut self, event: &Event, was_hard: Option<bool>) {
        let hard = event.text("deletionType").as_deref() == Some("hard");
        self.is("hard after soft", was_hard == Some(false) && hard);
        self.is("soft after hard", was_hard == Some(true) && !hard);
    }

    /// An event of a user that is not deleted.
    fn step(&mut self, step: &Step) {
        let Step { event, user, .. } = step;
        if event.name == "UserRegistered" {
            self.registered.insert(user.clone());
        }
        let times = self.times.entry(user.clone()).or_default();
        let is_late = times.last() > Some(&event.occurred_at);
        let is_tie = !times.insert(event.occurred_at);
        self.is("out of order", is_late);
        self.is("a tie", is_tie);
        match event.text("addressId") {
            Some(id) => self.address_event(step, &id),
            None if event.name == "UserProfileDefaultAddressChanged" => self.defaults(step),
            None => {}
        }
    }

    fn defaults(&mut self, step: &Step) {
        let Step { before, after, .. } = step;
        let moved = (0..2).filter(|kind| before.defaults[*kind] != after.defaults[*kind]);
        let moved: Vec<usize> = moved.collect();
        self.is("both defaults moved", moved.len() == 2);
        self.is("a default named again", moved.is_empty());
        for kind in moved {
            let is_known = after.in_use(kind).is_some();
            self.is("a default named before its address", !is_known);
            let named = after.defaults[kind].as_ref();
            self.is(
                "a default that was deleted",
                named.is_some_and(|id| after.is_gone(id)),
            );
            let former = &mut self.former.entry(step.user.clone()).or_default()[kind];
            let is_back = former.is_some() && *former == after.defaults[kind];
            if let Some((id, _)) = before.in_use(kind) {
                *former = Some(id.clone());
            }
            let unused = before.in_use(kind).is_none() && before.defaults[kind].is_some();
            self.is(
                "back to the former before the new one came",
                unused && is_back,
            );
        }
    }

    fn address_event(&mut self, step: &Step, id: &String) {
        let Step {
            event,
            user,
            before,
            after,
        } = step;
        let is_registered = self.registered.contains(user);
        self.is("before a registration", !is_registered);
        let users = self.users_of.entry(id.clone()).or_default();
        users.insert(user.clone(), event.partition);
        let was_known = before.known.contains_key(id);
        match event.name {
            "UserAddressAdded" => self.added(event, id, before),
            "UserAddressUpdated" => {
                self.is("updated after its deletion", before.is_gone(id));
                self.is(
                    "updated before it was added",
                    !was_known && !before.is_gone(id),
                );
                self.updated(before, after, id, &event.changes().expect("good"));
            }
            _ => {
                self.is("deleted without being known", !was_known);
                let named = before.defaults.contains(&Some(id.clone()));
                self.is("the default deleted", was_known && named);
                self.is(
                    "the default deleted before it was known",
                    !was_known && named,
                );
            }
        }
    }

    fn added(&mut self, event: &Event, id: &String, before: &Addresses) {
        let was_known = before.known.contains_key(id);
        self.is("added after its deletion", before.is_gone(id));
        for (kind, flag) in ["isDefaultShipping", "isDefaultBilling"].iter().enumerate() {
            let flag = event.flag(flag).expect("required");
            let named = before.defaults[kind].as_ref() == Some(id);
            self.is(format!("known, added with {flag}"), was_known);
            self.is(
                format!("the known default, added with {flag}"),
                was_known && named,
            );
            self.is(
                format!("the default that was not known, added with {flag}"),
                !was_known && named,
            );
        }
    }

    /// What an update did to stale fields.
    fn updated(
        &mut self,
        before: &Addresses,
        after: &Addresses,
        id: &str,
        changes: &[(String, Change)],
    ) {
        let (Some(was), Some(is)) = (before.known.get(id), after.known.get(id)) else {
            return;
        };
        self.is("an update of nothing", was.fields == is.fields);
        let unknown = changes.iter().any(|(_, to)| *to == Change::Unknown);
        self.is(
            "became stale",
            unknown && was.fields.stale.len() < is.fields.stale.len(),
        );
        for name in &was.fields.stale {
            if !is.fields.is_stale(name) {
                let same = was.fields.get(name) == is.fields.get(name);
                self.is(format!("stale, confirmed as it was: {same}"), true);
            }
        }
    }

    /// What shows at the end of the log only: shared addresses, feed entries, validations.
    fn end(&mut self, folds: &Folds) {
        for users in std::mem::take(&mut self.users_of).into_values() {
            let partitions: BTreeSet<&i32> = users.values().collect();
            self.is("named by several users", users.len() > 1);
            self.is("named on several partitions", partitions.len() > 1);
        }
        for partition in folds.partitions() {
            for entry in folds.view::<Customers>().feed(partition) {
                let (kind, significant) = (&entry["kind"], &entry["significant"]);
                self.is(format!("entry {kind}, significant {significant}"), true);
                for name in ["affectsDefaultShipping", "affectsDefaultBilling"] {
                    self.is(format!("entry with {name}"), entry[name] == true);
                }
            }
        }
        for address in folds.view::<Parcels>().all() {
            let validation = &address["validation"];
            let status = validation["status"].as_str().expect("text");
            self.is(format!("validation {status}"), true);
            for problem in validation["problems"].as_array().expect("a list") {
                self.is(format!("problem {problem}"), true);
            }
        }
    }
}

/// Every difficult combination about addresses occurs often enough to detect errors.
#[test]
fn random_logs_hold_difficult_combinations_of_addresses() {
    let shape = Shape {
        records: 20_000,
        partitions: 3,
        users: 300,
    };
    let mut folds = Folds::new(MAX_VALUE_BYTES);
    let mut seen = Seen::default();
    for record in generate(seed(), shape) {
        let event = event_of(&record);
        let user = event.as_ref().and_then(|event| event.text("userId"));
        let user = user.unwrap_or_default();
        let before = folds.view::<Customers>().current(&user);
        let was_hard = folds.view::<Customers>().deletion(&user);
        let verdict = folds.take(&record)["order"];
        let Some(event) = event.filter(|_| verdict == Verdict::Applied) else {
            continue;
        };
        let after = folds.view::<Customers>().current(&user);
        if event.name == "UserDeleted" {
            seen.deletion(&event, was_hard);
        } else if was_hard.is_some() {
            seen.is("after a deletion", true);
        } else {
            seen.step(&Step {
                event,
                user,
                before,
                after,
            });
        }
    }
    seen.end(&folds);
    println!("{:#?}", seen.counts);
    for (what, count) in &seen.counts {
        // Few users are deleted twice.
        let enough = if what.contains("soft") { 3 } else { 10 };
        assert!(*count >= enough, "{what}: {count} times");
    }
    assert!(seen.counts.len() > 35, "{} kinds", seen.counts.len());
}

/// A domain's fold, and how many events it has taken.
struct Example {
    fold: Fold,
    events: i64,
}

impl Example {
    fn new(view: impl View) -> Example {
        Example {
            fold: Fold::new(view, 100_000),
            events: 0,
        }
    }

    /// Takes an event of a user that happened `at` seconds after the epoch.
    fn event(&mut self, user: &str, event_type: &str, at: i64, mut payload: Value) -> Verdict {
        self.events += 1;
        payload["userId"] = json!(user);
        payload["profileId"] = json!("p");
        let time = DateTime::from_timestamp(at, 0)
            .expect("in range")
            .to_rfc3339();
        let value = json!({"eventType": event_type, "eventId": self.events.to_string(), "eventTimestamp": time,
            "payload": payload});
        self.fold.take(&Record {
            partition: 0,
            key: Some(user.into()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: self.events,
        })
    }
}

/// The log in which difficult combinations are counted.
fn random_log() -> Vec<Record> {
    let shape = Shape {
        records: 20_000,
        partitions: 3,
        users: 300,
    };
    generate(seed(), shape)
}

/// How often each combination occurs in a log.
#[derive(Default)]
struct Counts(BTreeMap<String, usize>);

impl Counts {
    fn is(&mut self, what: impl Into<String>, seen: bool) {
        *self.0.entry(what.into()).or_default() += usize::from(seen);
    }

    /// Asserts that each occurs at least this often.
    fn are_at_least(&self, enough: usize) {
        println!("{:#?}", self.0);
        for (what, count) in &self.0 {
            assert!(*count >= enough, "{what}: {count} times");
        }
    }
}

fn at(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

#[test]
fn a_shipping_address_in_full() {
    let mut case = Example::new(Parcels::default());
    case.event(
        "u",
        "UserUpdated",
        1,
        json!({"updatedFields": {"username": "n"}}),
    );
    assert_eq!(
        case.fold.view::<Parcels>().addresses("u", None),
        None,
        "no event that the domain reads"
    );
    let name = json!({"email": "a@b.c", "status": "active", "firstName": "F", "lastName": "L"});
    case.event("u", "UserRegistered", 10, name);
    assert_eq!(
        case.fold.view::<Parcels>().addresses("u", None),
        Some(json!({"addresses": []}))
    );
    let mut address = added("x", true);
    address["fullAddress"] = json!({"addressLine1": "1 Road", "zipCode": "10115", "city": "Berlin",
        "companyName": "C", "additionalNotes": "N"});
    case.event("u", "UserAddressAdded", 20, address);
    let mut expected = json!({
        "userId": "u", "addressId": "x", "type": "home", "recipientName": "F L", "companyName": "C",
        "lines": ["1 Road"], "city": "Berlin", "postalCode": "10115", "countryCode": "DE", "notes": "N",
        "isDefaultShipping": true, "isDefaultBilling": false, "staleFields": [],
        "updatedAt": "1970-01-01T00:00:20Z", "validation": {"status": "valid", "problems": []},
    });
    assert_eq!(
        case.fold.view::<Parcels>().address("x", None).as_ref(),
        Some(&expected)
    );
    assert_eq!(
        case.fold
            .view::<Parcels>()
            .default_address("u", 0, None)
            .as_ref(),
        Some(&expected)
    );
    assert_eq!(
        case.fold.view::<Parcels>().default_address("u", 1, None),
        None
    );

    let stale =
        json!({"updatedFields": ["firstName", "phoneNumber"], "newValues": {"phoneNumber": "1"}});
    case.event("u", "UserProfileUpdated", 30, stale);
    expected["staleFields"] = json!(["recipientName"]);
    expected["phone"] = json!("1");
    assert_eq!(
        case.fold.view::<Parcels>().address("x", None).as_ref(),
        Some(&expected)
    );
    // The contact's fields count before the user's, stale ones too.
    let contact = json!({"addressId": "x", "updatedFields": {"contactName": "P", "addressLine2": {"old": "z"}}});
    case.event("u", "UserAddressUpdated", 40, contact);
    expected["recipientName"] = json!("P");
    expected["staleFields"] = json!(["lines"]);
    expected["updatedAt"] = json!("1970-01-01T00:00:40Z");
    assert_eq!(
        case.fold.view::<Parcels>().address("x", None).as_ref(),
        Some(&expected)
    );
    let contact = json!({"addressId": "x", "updatedFields": ["contactName", "contactPhone"]});
    case.event("u", "UserAddressUpdated", 40, contact);
    expected["staleFields"] = json!(["lines", "phone", "recipientName"]);
    assert_eq!(
        case.fold.view::<Parcels>().address("x", None).as_ref(),
        Some(&expected)
    );

    // At an earlier instant, with the names of then.
    assert_eq!(case.fold.view::<Parcels>().address("x", at(19)), None);
    assert_eq!(
        case.fold.view::<Parcels>().addresses("u", at(9)),
        Some(json!({"addresses": []}))
    );
    let then = case
        .fold
        .view::<Parcels>()
        .address("x", at(29))
        .expect("there");
    assert_eq!(
        (
            &then["recipientName"],
            &then["staleFields"],
            then.get("phone")
        ),
        (&json!("F L"), &json!([]), None)
    );
}

#[test]
fn of_two_users_with_the_same_address_the_last_event_by_time_counts() {
    let mut case = Example::new(Parcels::default());
    case.event("late", "UserAddressAdded", 100, added("x", true));
    case.event("early", "UserAddressAdded", 50, added("x", true));
    let owner = |case: &Example, at| {
        let address = case.fold.view::<Parcels>().address("x", at);
        address.map(|address| address["userId"].as_str().expect("text").to_owned())
    };
    assert_eq!(owner(&case, None).as_deref(), Some("late"));
    assert_eq!(owner(&case, at(99)).as_deref(), Some("early"));
    assert_eq!(owner(&case, at(49)), None);
    // A change of the default counts, too; of two equal times, the later record counts.
    case.event(
        "early",
        "UserProfileDefaultAddressChanged",
        100,
        json!({"defaultBillingAddressId": "x"}),
    );
    assert_eq!(owner(&case, None).as_deref(), Some("early"));
    case.event(
        "early",
        "UserAddressDeleted",
        200,
        json!({"addressId": "x"}),
    );
    assert_eq!(owner(&case, None).as_deref(), Some("late"));
    assert_eq!(owner(&case, at(199)).as_deref(), Some("early"));
    case.event("early", "UserDeleted", 300, json!({}));
    assert_eq!(owner(&case, at(199)).as_deref(), Some("late"));
    assert_eq!(
        (
            case.fold.view::<Parcels>().addresses("early", at(120)),
            case.fold
                .view::<Parcels>()
                .default_address("early", 1, at(120))
        ),
        (Some(json!({"addresses": []})), None)
    );
    // A user whose first event is the deletion stays unknown.
    case.event("nobody", "UserDeleted", 300, json!({}));
    case.event("nobody", "UserAddressAdded", 400, added("x", true));
    assert_eq!(case.fold.view::<Parcels>().addresses("nobody", None), None);
    assert_eq!(owner(&case, None).as_deref(), Some("late"));
}

#[test]
fn as_of_an_instant_applies_earlier_events_in_log_order() {
    let mut case = Case::new();
    let event = |case: &mut Case, event_type: &str, second: u32, mut payload: Value| {
        payload["addTimestamp"] = json!(format!("2026-10-01T00:00:{second:02}Z"));
        payload["deleteTimestamp"] = payload["addTimestamp"].clone();
        payload["deletionTimestamp"] = payload["addTimestamp"].clone();
        case.event(event_type, payload)
    };
    event(&mut case, "UserAddressAdded", 30, added("x", true));
    event(&mut case, "UserAddressAdded", 10, added("y", true));
    event(
        &mut case,
        "UserAddressDeleted",
        40,
        json!({"addressId": "x"}),
    );
    let as_of = |case: &Case, second: u32| {
        let at = format!("2026-10-01T00:00:{second:02}Z")
            .parse()
            .expect("a time");
        let answer = case
            .fold
            .view::<Customers>()
            .addresses("u", Some(at))
            .expect("known");
        let addresses = answer["addresses"].as_array().expect("a list").clone();
        let ids: Vec<String> = addresses
            .iter()
            .map(|address| address["addressId"].as_str().expect("text").to_owned())
            .collect();
        (
            ids.join(" "),
            answer.get("defaultShippingAddressId").cloned(),
        )
    };
    assert_eq!(as_of(&case, 9), (String::new(), None));
    assert_eq!(as_of(&case, 10), ("y".into(), Some(json!("y"))));
    // y is later in the log, though it happened earlier.
    assert_eq!(as_of(&case, 30), ("x y".into(), Some(json!("y"))));
    assert_eq!(as_of(&case, 40), ("y".into(), Some(json!("y"))));
    event(&mut case, "UserDeleted", 20, json!({}));
    event(&mut case, "UserAddressAdded", 10, added("z", true));
    assert_eq!(as_of(&case, 30), ("x y".into(), None));
    let left = case
        .fold
        .view::<Customers>()
        .addresses("u", Some("2026-10-01T00:00:15Z".parse().unwrap()));
    assert_eq!(
        left,
        Some(json!({"addresses": [{"addressId": "y", "country": "DE", "staleFields": []}]}))
    );
    event(
        &mut case,
        "UserDeleted",
        50,
        json!({"deletionType": "hard"}),
    );
    assert_eq!(as_of(&case, 30), (String::new(), None));
}

#[test]
fn regular_expressions_of_postal_codes_match() {
    for (form, good, bad) in [
        (
            r"\d{5}",
            &["10115"][..],
            &[
                "1011",
                "101156",
                "1011A",
                "",
                "\u{661}\u{660}\u{661}\u{661}\u{665}",
            ][..],
        ),
        (
            r"(\d{5})(?:[ \-](\d{4}))?",
            &["94103", "94103-1234", "94103 1234"],
            &["94103-", "94103+1234"],
        ),
        (
            r"948[5-9]|949[0-8]",
            &["9485", "9498"],
            &["9484", "9499", "94859490"],
        ),
        (
            r"\d{4,5}|\d{3}-\d{4}",
            &["1234", "12345", "123-4567"],
            &["123", "123456"],
        ),
        (
            r"(?:^|\b)(?:1[0-2]|[1-9])\d{2}(?:$|\b)",
            &["1234", "101"],
            &["1334", "01"],
        ),
        (
            r"[1-9]\d{3} ?(?:[A-RT-Z][A-Z]|S[BCE-RT-Z])",
            &["1234 AB", "1234SB"],
            &["1234 SA", "0234 AB"],
        ),
        (
            r"\d[\dA-Z]? ?\d[ABD-HJLN-UW-Z]{2}",
            &["1A 1AA", "11AB"],
            &["1A 1CC"],
        ),
    ] {
        for text in good {
            assert!(matches(form, text), "{text} does not match {form}");
        }
        for text in bad {
            assert!(!matches(form, text), "{text} matches {form}");
        }
    }
}

#[test]
fn validation_by_the_rules_of_the_country() {
    let judged = |address: Value| {
        let mut whole = json!({"lines": ["1 Road"], "city": "C", "recipientName": "R"});
        for (name, value) in address.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        let said = validate(&whole);
        let problem = |problem: &Value| {
            format!(
                "{}:{}",
                problem["field"].as_str().unwrap(),
                problem["problem"].as_str().unwrap()
            )
        };
        let problems = said["problems"]
            .as_array()
            .expect("a list")
            .iter()
            .map(problem);
        let mut words = vec![said["status"].as_str().expect("text").to_owned()];
        words.extend(problems);
        words.join(" ")
    };
    for (address, expected) in [
        (json!({"countryCode": "DE", "postalCode": "10115"}), "valid"),
        (
            json!({"countryCode": "DE", "postalCode": "10115", "state": "Bayern"}),
            "valid",
        ),
        (
            json!({"countryCode": "DE"}),
            "incomplete postalCode:missing",
        ),
        (
            json!({"countryCode": "DE", "postalCode": "10115", "recipientName": null}),
            "valid recipientName:missing",
        ),
        (
            json!({"countryCode": "DE", "postalCode": "1", "recipientName": null}),
            "invalid postalCode:malformed recipientName:missing",
        ),
        (
            json!({"countryCode": "US", "postalCode": "1"}),
            "incomplete state:missing postalCode:malformed",
        ),
        (
            json!({"countryCode": "US", "postalCode": "94103", "state": "Atlantis"}),
            "invalid state:unknown",
        ),
        (
            json!({"countryCode": "US", "postalCode": "94103", "state": "ca"}),
            "valid",
        ),
        (
            json!({"countryCode": "US", "postalCode": "94103", "state": "California"}),
            "valid",
        ),
        (
            json!({"countryCode": "GB", "postalCode": "sw1a 1aa"}),
            "valid",
        ),
        (json!({"countryCode": "AG", "city": null}), "valid"),
        (
            json!({"countryCode": "AG", "lines": [], "postalCode": "anything"}),
            "incomplete lines:missing",
        ),
        (
            json!({"countryCode": "XX", "lines": []}),
            "invalid countryCode:unknown",
        ),
        (
            json!({"lines": [], "postalCode": "1"}),
            "incomplete countryCode:missing",
        ),
    ] {
        assert_eq!(judged(address.clone()), expected, "{address}");
    }
}
