//! People for the questions about all users: names as unequal as real ones, countries, languages, logins over a year. The same
//! for the same number.

use chrono::{DateTime, SecondsFormat};
use fastrand::Rng;
use serde_json::{Value, json};
use sightline_testing::broker::Record;

/// Milliseconds since the epoch of the first day, and how many days there are.
pub const START: i64 = 1_735_689_600_000;
pub const DAYS: i64 = 365;
const DAY: i64 = 86_400_000;
/// How many first and last names there are. Some are of every fiftieth person, most of a few.
const FIRST_NAMES: usize = 3_000;
const LAST_NAMES: usize = 60_000;

const ONSETS: &[&str] = &[
    "b", "br", "c", "ch", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "sch", "st",
    "t", "v", "w", "z",
];
const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ä", "é", "ei", "ou"];
const ENDS: &[&str] = &["", "n", "r", "s", "l", "nd", "tt", "ck"];
/// Country, state, city: some cities are rare.
const PLACES: &[[&str; 3]] = &[
    ["DE", "BE", "Berlin"],
    ["DE", "BY", "München"],
    ["FR", "", "Lyon"],
    ["US", "CA", "San Francisco"],
    ["US", "NY", "New York"],
    ["GB", "", "London"],
    ["ES", "", "Madrid"],
    ["JP", "", "Shibuya"],
];
const LANGUAGES: &[&str] = &["de", "en", "fr", "es", "ja"];
const THEMES: &[&str] = &["dark", "light"];
const SOURCES: &[&str] = &["direct", "google_oauth", "campaign"];
/// Three in five are active.
const STATUSES: &[&str] = &[
    "active",
    "active",
    "active",
    "pending_verification",
    "suspended",
];

/// A person, as far as questions need it.
pub struct Person {
    pub id: String,
    pub first_name: String,
    pub last_name: String,
}

/// Makes people and their events.
pub struct People {
    rng: Rng,
    first_names: Vec<String>,
    last_names: Vec<String>,
    made: usize,
    all: usize,
    partitions: usize,
}

impl People {
    /// So many people, in so many partitions.
    pub fn new(all: usize, partitions: i32) -> People {
        let mut rng = Rng::with_seed(20_261_127);
        let first_names = (0..FIRST_NAMES).map(|_| name(&mut rng, 2)).collect();
        let last_names = (0..LAST_NAMES).map(|_| name(&mut rng, 3)).collect();
        People {
            rng,
            first_names,
            last_names,
            made: 0,
            all,
            partitions: partitions as usize,
        }
    }

    /// The next person with all events, as long as there are more: five of most.
    pub fn next(&mut self) -> Option<(Person, Vec<Record>)> {
        if self.made == self.all {
            return None;
        }
        let rng = &mut self.rng;
        let number = self.made;
        self.made += 1;
        let id = uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid();
        let person = Person {
            id: id.to_string(),
            first_name: unequal(rng, &self.first_names).clone(),
            last_name: unequal(rng, &self.last_names).clone(),
        };
        let registered = START + (number as i64 * DAYS * DAY) / self.all as i64;
        let mut at = registered;
        let mut records = Vec::with_capacity(5);
        for kind in [
            "UserRegistered",
            "UserEmailVerified",
            "UserLoggedIn",
            "UserAddressAdded",
            "UserProfileUpdated",
        ] {
            // After each event one person in ten stops.
            if !records.is_empty() && rng.u8(..10) == 0 {
                break;
            }
            let mut payload = payload(rng, kind, &person, number);
            payload["userId"] = person.id.as_str().into();
            let event_id = uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid();
            let value = json!({
                "eventId": event_id.to_string(), "eventType": kind, "eventTimestamp": time(at),
                "sourceService": "user-service", "version": "1.0", "payload": payload,
            });
            records.push(Record {
                partition: (number % self.partitions) as i32,
                key: Some(person.id.clone().into_bytes()),
                value: Some(value.to_string().into_bytes()),
                headers: Vec::new(),
                timestamp: at,
            });
            at += rng.i64(1..30 * DAY);
        }
        Some((person, records))
    }
}

fn payload(rng: &mut Rng, kind: &str, person: &Person, number: usize) -> Value {
    match kind {
        "UserRegistered" => {
            let username = format!("{}.{number}", person.first_name);
            json!({
                "email": format!("{username}@example.org"), "username": username, "firstName": person.first_name,
                "lastName": person.last_name, "source": one_of(rng, SOURCES),
                "status": one_of(rng, STATUSES),
            })
        }
        "UserEmailVerified" => {
            json!({"email": format!("{}.{number}@example.org", person.first_name)})
        }
        "UserProfileUpdated" => json!({
            "profileId": "p", "updatedFields": {
                "languagePreference": one_of(rng, LANGUAGES),
                "preferences.theme": one_of(rng, THEMES),
                "preferences.privacy": {"tracking": rng.bool()},
            },
        }),
        "UserAddressAdded" => {
            let [country, state, city] = PLACES[rng.usize(..PLACES.len())];
            // One in a thousand lives in a village.
            let city = match rng.u16(..1_000) {
                0 => format!("Village {}", rng.u8(..100)),
                _ => city.to_owned(),
            };
            json!({
                "profileId": "p", "addressId": format!("a-{number}"), "addressType": "home", "isDefaultShipping": true,
                "isDefaultBilling": true, "country": country, "fullAddress": {
                    "streetLine1": "Street 1", "city": city, "stateOrProvince": state, "country": country,
                },
            })
        }
        _ => json!({"sessionId": "s"}),
    }
}

fn one_of(rng: &mut Rng, texts: &[&'static str]) -> &'static str {
    texts[rng.usize(..texts.len())]
}

/// One of some: the first is the most frequent, as with words and names.
fn unequal<'n>(rng: &mut Rng, names: &'n [String]) -> &'n String {
    let share = rng.f64();
    &names[(names.len() as f64 * share.powi(4)) as usize]
}

fn name(rng: &mut Rng, syllables: usize) -> String {
    let mut name = String::new();
    for _ in 0..rng.usize(1..=syllables) {
        name += ONSETS[rng.usize(..ONSETS.len())];
        name += VOWELS[rng.usize(..VOWELS.len())];
    }
    name += ENDS[rng.usize(..ENDS.len())];
    let mut letters = name.chars();
    let first = letters.next().expect("a letter").to_uppercase();
    first.chain(letters).collect()
}

fn time(at: i64) -> String {
    let at = DateTime::from_timestamp_millis(at).expect("in range");
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
