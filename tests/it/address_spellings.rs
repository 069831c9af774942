//! Spellings of countries, states and postal codes as they occur, and blanks: what the validation of shipping
//! addresses says of each, and which country each is found under.

use serde_json::{Value, json};
use sightline_testing::app::World;
use sightline_testing::broker::Record;
use sightline_testing::check::{Depth, assert_answers, caught_up, folded};

/// An address, and its problems: pairs of field and problem.
type Case = (Value, &'static [[&'static str; 2]]);

const STATE_UNKNOWN: &[[&str; 2]] = &[["state", "unknown"]];
const CODE_MALFORMED: &[[&str; 2]] = &[["postalCode", "malformed"]];

fn cases() -> Vec<Case> {
    let of_states = |country: &'static str, code: &'static str, good: &[&str], bad: &[&str]| {
        let case =
            move |state: &str| json!({"country": country, "postalCode": code, "state": state});
        let good = good.iter().map(|state| (case(state), &[][..]));
        let bad = bad.iter().map(|state| (case(state), STATE_UNKNOWN));
        good.chain(bad).collect::<Vec<Case>>()
    };
    let of_codes = |country: &'static str, good: &[&str], bad: &[&str]| {
        let case = move |code: &str| json!({"country": country, "postalCode": code});
        let good = good.iter().map(|code| (case(code), &[][..]));
        let bad = bad.iter().map(|code| (case(code), CODE_MALFORMED));
        good.chain(bad).collect::<Vec<Case>>()
    };
    let us = |name: &str, value: &str| {
        let mut address = json!({"country": "US", "postalCode": "95014", "state": "CA"});
        address[name] = json!(value);
        address
    };
    let lines = |first: &str, second: &str| {
        let mut address = us("streetLine1", first);
        address["streetLine2"] = json!(second);
        address
    };
    let blanks: Vec<Case> = vec![
        (lines("  ", "\t"), &[["lines", "missing"]]),
        (lines("\u{a0}", "1 Main St"), &[]),
        (us("city", "\t"), &[["city", "missing"]]),
        (us("state", " "), &[["state", "missing"]]),
        (us("postalCode", "\u{3000}"), &[["postalCode", "missing"]]),
        (us("country", "  "), &[["countryCode", "missing"]]),
        (us("contactName", "  "), &[["recipientName", "missing"]]),
        (us("country", "US "), &[]),
        (us("country", "us"), &[]),
        (us("country", "ß"), &[["countryCode", "unknown"]]),
        (us("country", "uſ"), &[["countryCode", "unknown"]]),
    ];
    let seoul = "서울특별시";
    let decomposed = "\u{1109}\u{1165}\u{110b}\u{116e}\u{11af}\u{1110}\u{1173}\u{11a8}\u{1107}\u{1167}\u{11af}\u{1109}\u{1175}";
    let turkish = [
        "DİYARBAKIR",
        "Diyarbakir",
        "BALIKESİR",
        "Istanbul",
        "istanbul",
        "İSTANBUL",
        "TR-34",
    ];
    [
        blanks,
        of_states("TR", "34360", &turkish, &["Paris", "TR34"]),
        of_states(
            "BR",
            "13010-000",
            &["São Paulo", "Sa\u{303}o Paulo", "Sao Paulo", "SAO PAULO"],
            &["ＳＰ"],
        ),
        of_states(
            "KR",
            "04524",
            &[
                seoul,
                decomposed,
                "강원특별자치도",
                "강원도",
                "전북특별자치도",
            ],
            &["평양"],
        ),
        of_states(
            "IN",
            "751001",
            &["IN-OD", "IN-OR", "TS", "TG", "in-uk", "Telangāna"],
            &["IN-XX"],
        ),
        of_states(
            "IE",
            "D02 X285",
            &["County Dublin", "Co. Dublin", "dublin", "IE-D"],
            &["Antrim"],
        ),
        of_states("CN", "100020", &["CN-BJ", "CN-11", "北京市"], &["BJX"]),
        of_states(
            "US",
            "95014",
            &["california", "US-CA"],
            &["İL", "US-ſC", "ＣＡ"],
        ),
        of_codes("LT", &["LT-01001", "01001", "lt-01001"], &["LV-01001"]),
        of_codes("LU", &["L-1111", "1111"], &["L-111"]),
        of_codes("SE", &["SE-114 55", "114 55", "SE-11455"], &["DK-114 55"]),
        of_codes("AZ", &["AZ1000", "AZ 1000", "1000"], &["BZ1000"]),
        of_codes("FI", &["FI-00550"], &["００５５０"]),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_spelling_is_judged_as_the_contract_says() {
    let cases = cases();
    let record = |(n, (address, _)): (usize, &Case)| {
        let mut full_address = json!({
            "streetLine1": "1 Main St", "city": "City", "contactName": "Ada",
        });
        for (name, value) in address.as_object().expect("an object") {
            full_address[name] = value.clone();
        }
        let value = json!({
            "eventType": "UserAddressAdded", "eventId": n.to_string(), "eventTimestamp": "2026-10-01T12:00:00Z",
            "payload": {"userId": "u", "profileId": "p", "addressId": format!("a{n:03}"), "addressType": "home",
                "country": "DE", "isDefaultShipping": false, "isDefaultBilling": false,
                "fullAddress": full_address},
        });
        Record {
            partition: 0,
            key: Some(b"u".to_vec()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: 1_790_000_000_000,
        }
    };
    let log: Vec<Record> = cases.iter().enumerate().map(record).collect();
    let world = World::shared(1).await;
    world.broker.writer().write(&world.topic, &log).await;
    let running = world.serve().await;
    let (folds, ends) = folded(&log, 1);
    caught_up(&running.rest, &ends).await;

    let answer = running.rest.get("/v1/fulfillment/users/u/addresses").await;
    let addresses = answer.json()["addresses"]
        .as_array()
        .expect("a list")
        .clone();
    assert_eq!(addresses.len(), cases.len());
    for (found, (address, problems)) in addresses.iter().zip(&cases) {
        let expected: Vec<Value> = problems
            .iter()
            .map(|[field, problem]| json!({"field": field, "problem": problem}))
            .collect();
        assert_eq!(
            found["validation"]["problems"],
            json!(expected),
            "{address}"
        );
        let deciding: Vec<&str> = problems
            .iter()
            .filter(|[field, _]| *field != "recipientName")
            .map(|[_, problem]| *problem)
            .collect();
        let status = match deciding[..] {
            [] => "valid",
            ["missing"] => "incomplete",
            _ => "invalid",
        };
        assert_eq!(found["validation"]["status"], status, "{address}");
    }

    // `ß` is not found under South Sudan; "US " is under the United States.
    for (asked, stored) in [("ss", &[][..]), ("us", &["US", "US "])] {
        let path = format!("/v1/fulfillment/addresses?countryCode={asked}");
        let answer = running.rest.get(&path).await;
        let mut countries: Vec<String> = answer.json()["addresses"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|address| address["countryCode"].as_str().expect("text").to_owned())
            .collect();
        countries.sort();
        countries.dedup();
        assert_eq!(countries, stored, "{path}");
    }
    assert_answers(&running, &folds, Depth::Thorough).await;
}
