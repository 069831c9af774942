//! The log whose projection is measured: what some ten thousand people do, in the mix and the four envelope
//! dialects of `sightline dev`'s samples. The same for the same size.

use chrono::{DateTime, SecondsFormat, Utc};
use fastrand::Rng;
use serde_json::{Value, json};
use sightline_testing::broker::Record;

/// Milliseconds since the epoch at which the log begins, and how many days it spans.
const START: i64 = 1_785_542_400_000;
const DAYS: i64 = 60;

struct User {
    id: String,
    registered: bool,
    addresses: Vec<String>,
}

/// A log of this many events about a tenth as many users: one in fifty comes twice, two in three are of the
/// order domain's interest. Users come first, then act at random.
pub fn generate(events: usize, partitions: i32) -> Vec<Record> {
    let mut rng = Rng::with_seed(20_261_123);
    let mut users: Vec<User> = (0..events.div_ceil(10))
        .map(|_| User {
            id: uuid(&mut rng),
            registered: false,
            addresses: Vec::new(),
        })
        .collect();
    let mut log: Vec<Record> = Vec::with_capacity(events);
    for n in 0..events {
        let timestamp = START + n as i64 * DAYS * 86_400_000 / events as i64;
        if n > 0 && rng.u8(..50) == 0 {
            let again = log[log.len() - 1 - rng.usize(..log.len().min(100))].clone();
            log.push(Record { timestamp, ..again });
            continue;
        }
        let number = rng.usize(..users.len());
        let user = &mut users[number];
        let (kind, payload) = happening(&mut rng, user, timestamp);
        let (headers, value) = written(&mut rng, n, kind, &user.id, timestamp, payload);
        log.push(Record {
            partition: (number % partitions as usize) as i32,
            key: Some(user.id.clone().into_bytes()),
            value: Some(value.to_string().into_bytes()),
            headers,
            timestamp,
        });
    }
    log
}

/// Events that happen now, in partitions by chance: each registers a user, which concerns every domain.
pub fn new_users(events: usize, partitions: i32) -> Vec<Record> {
    now(events, partitions, |_, id, timestamp| {
        ("UserRegistered", registered(&id[..8], timestamp))
    })
}

/// Events that happen now, in partitions by chance: each adds the address of a user.
pub fn new_addresses(events: usize, partitions: i32) -> Vec<Record> {
    now(events, partitions, |rng, id, timestamp| {
        let address_id = uuid(rng);
        let payload = address_added(rng, id, &address_id, true, timestamp);
        ("UserAddressAdded", payload)
    })
}

/// Events that happen now, each of a new user. `happening` makes the type and the payload, from the user's id and the time.
fn now(
    events: usize,
    partitions: i32,
    happening: impl Fn(&mut Rng, &str, i64) -> (&'static str, Value),
) -> Vec<Record> {
    let mut rng = Rng::new();
    let timestamp = Utc::now().timestamp_millis();
    let mut record = |n| {
        let id = uuid(&mut rng);
        let (kind, mut payload) = happening(&mut rng, &id, timestamp);
        payload["userId"] = id.as_str().into();
        let (headers, value) = written(&mut rng, n, kind, &id, timestamp, payload);
        Record {
            partition: rng.i32(0..partitions),
            key: Some(id.into_bytes()),
            value: Some(value.to_string().into_bytes()),
            headers,
            timestamp,
        }
    };
    (0..events).map(&mut record).collect()
}

/// Ids of users in the generated log.
pub fn users(log: &[Record]) -> Vec<String> {
    let keys = log
        .iter()
        .take(log.len() / 10)
        .filter_map(|record| record.key.clone());
    let mut ids: Vec<String> = keys
        .map(|key| String::from_utf8(key).expect("text"))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn happening(rng: &mut Rng, user: &mut User, timestamp: i64) -> (&'static str, Value) {
    let id = &user.id;
    let name = &id[..8];
    let address_id = match user.addresses.len() {
        0 => None,
        n => Some(user.addresses[rng.usize(..n)].clone()),
    };
    let (kind, mut payload) = match (rng.u8(..100), address_id) {
        _ if !user.registered => {
            user.registered = true;
            ("UserRegistered", registered(name, timestamp))
        }
        (0..30, _) => (
            "UserLoggedIn",
            json!({
                "sessionId": uuid(rng), "ipAddress": "203.0.113.9", "userAgent": "Mozilla/5.0",
                "mfaVerified": rng.bool(), "loginTimestamp": time(timestamp),
            }),
        ),
        (30..38, _) => (
            "UserLoggedOut",
            json!({"sessionId": uuid(rng), "logoutTimestamp": time(timestamp)}),
        ),
        (38..58, _) => {
            let phone = format!("+4930{:07}", rng.u32(..10_000_000));
            let fields = match rng.bool() {
                true => json!({"phoneNumber": phone, "preferences.theme": "dark"}),
                false => json!({"displayName": {"old": null, "new": format!("Ada {name}")}}),
            };
            (
                "UserProfileUpdated",
                json!({"profileId": format!("profile-{id}"), "updatedFields": fields, "updateTimestamp": time(timestamp)}),
            )
        }
        (58..68, _) | (68..86, None) if user.addresses.len() < 20 => {
            let first = user.addresses.is_empty();
            user.addresses.push(format!("addr-{}", &uuid(rng)[..13]));
            let address_id = user.addresses.last().expect("it was added");
            (
                "UserAddressAdded",
                address_added(rng, id, address_id, first, timestamp),
            )
        }
        (68..78, Some(address_id)) => (
            "UserAddressUpdated",
            json!({
                "profileId": format!("profile-{id}"), "addressId": address_id, "fullAddress": address(rng, name),
                "updatedFields": ["streetLine1"], "updateTimestamp": time(timestamp),
            }),
        ),
        (78..81, Some(address_id)) => {
            user.addresses.retain(|other| *other != address_id);
            (
                "UserAddressDeleted",
                json!({"profileId": format!("profile-{id}"), "addressId": address_id, "deleteTimestamp": time(timestamp)}),
            )
        }
        (81..86, Some(address_id)) => (
            "UserProfileDefaultAddressChanged",
            json!({
                "profileId": format!("profile-{id}"), "defaultShippingAddressId": address_id,
                "changeTimestamp": time(timestamp),
            }),
        ),
        (86..94, _) => (
            "UserEmailVerified",
            json!({"email": format!("{name}@example.org"), "verificationTimestamp": time(timestamp)}),
        ),
        _ => (
            "UserAccountStatusChanged",
            json!({"newStatus": "active", "previousStatus": "suspended", "changeTimestamp": time(timestamp)}),
        ),
    };
    payload["userId"] = id.as_str().into();
    (kind, payload)
}

fn registered(name: &str, timestamp: i64) -> Value {
    json!({
        "email": format!("{name}@example.org"), "username": name, "firstName": "Ada", "lastName": name,
        "status": "pending_verification", "source": "direct", "registrationTimestamp": time(timestamp),
    })
}

fn address_added(rng: &mut Rng, id: &str, address_id: &str, first: bool, timestamp: i64) -> Value {
    json!({
        "profileId": format!("profile-{id}"), "addressId": address_id, "addressType": "home",
        "isDefaultShipping": first, "isDefaultBilling": first, "country": "DE",
        "fullAddress": address(rng, &id[..8]), "addTimestamp": time(timestamp),
    })
}

fn address(rng: &mut Rng, name: &str) -> Value {
    json!({
        "streetLine1": format!("Invalidenstraße {}", rng.u8(1..=120)), "city": "Berlin", "stateOrProvince": "",
        "postalCode": "10115", "country": "DE", "contactName": format!("Ada {name}"),
    })
}

type Headers = Vec<(String, Vec<u8>)>;

/// Each dialect in turn.
fn written(
    rng: &mut Rng,
    n: usize,
    kind: &str,
    key: &str,
    at: i64,
    payload: Value,
) -> (Headers, Value) {
    let (id, at, source) = (uuid(rng), time(at), "user-service");
    let value = match n % 4 {
        0 => json!({
            "eventId": id, "eventType": format!("{kind}EventV1"), "eventTimestamp": at, "sourceService": source,
            "version": "1.0", "correlationId": uuid(rng), "payload": payload,
        }),
        1 => json!({
            "messageId": id, "messageType": format!("{kind}.v1"), "timestamp": at, "sourceService": source,
            "envelopeVersion": "1.0", "partitionKey": key, "payload": payload,
        }),
        2 => json!({
            "specversion": "1.0", "id": id, "type": format!("com.example.user.{kind}.v1"), "time": at,
            "source": source, "subject": key, "datacontenttype": "application/json", "data": payload,
        }),
        _ => {
            let headers = [
                ("ce_specversion", "1.0"),
                ("ce_id", &id),
                ("ce_type", kind),
                ("ce_time", &at),
                ("ce_source", source),
                ("content-type", "application/json"),
            ];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
            return (headers.into(), payload);
        }
    };
    (Vec::new(), value)
}

fn time(at: i64) -> String {
    let at = DateTime::from_timestamp_millis(at).expect("in range");
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn uuid(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes())
        .into_uuid()
        .to_string()
}
