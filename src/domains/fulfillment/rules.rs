//! The rules of each country: its required fields, the form of its postal codes, and its states.
//!
//! They are in `address_rules.json`, which scripts/address-rules.py generates from public data;
//! `address_rules.LICENSE.md` has the licence. Codes are compared as ASCII, names of states in the
//! form that [`plain`] makes.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, OnceLock};

use regex::Regex;
use serde::Deserialize;

use crate::fold::text::plain;

pub(super) static RULES: LazyLock<HashMap<String, Country>> = LazyLock::new(|| {
    // The file is compiled in, and a test checks that it parses.
    serde_json::from_str(include_str!("address_rules.json")).unwrap_or_default()
});

/// A field that a country may require.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Field {
    Lines,
    City,
    State,
    PostalCode,
}

impl Field {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::City => "city",
            Self::State => "state",
            Self::PostalCode => "postalCode",
        }
    }
}

/// The rules of a country.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Country {
    pub(super) required: Vec<Field>,
    /// A regular expression for whole postal codes; `None` if any postal code is valid.
    postal_code: Option<String>,
    /// What addresses print before the postal code: `LT-`.
    postal_prefix: Option<String>,
    /// ISO 3166-2 codes of the states, without the country's, and other codes in use. A country
    /// with neither codes nor names does not list its states.
    #[serde(default)]
    state_codes: Vec<String>,
    /// The names of the states.
    #[serde(default)]
    state_names: Vec<String>,
    #[serde(skip)]
    postal_code_pattern: OnceLock<Option<Regex>>,
    #[serde(skip)]
    folded_state_names: OnceLock<HashSet<String>>,
    #[cfg(test)]
    #[serde(default)]
    examples: Vec<String>,
}

impl Country {
    /// The rules of the country with this ISO 3166-1 alpha-2 code, in upper case.
    pub(super) fn of(code: &str) -> Option<&'static Self> {
        RULES.get(code)
    }

    /// Whether the country has this state: by any of its names or codes, the latter also after
    /// the country's code (`US-CA`). True if the country does not list its states.
    pub(super) fn has_state(&self, country_code: &str, state: &str) -> bool {
        if self.state_codes.is_empty() && self.state_names.is_empty() {
            return true;
        }
        let subdivision =
            strip_ascii_prefix(state, country_code).and_then(|rest| rest.strip_prefix('-'));
        [Some(state), subdivision]
            .into_iter()
            .flatten()
            .any(|state| self.has_state_code(state) || self.has_state_name(state))
    }

    fn has_state_code(&self, code: &str) -> bool {
        self.state_codes
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(code))
    }

    fn has_state_name(&self, name: &str) -> bool {
        self.folded_state_names
            .get_or_init(|| self.state_names.iter().map(|name| plain(name)).collect())
            .contains(&plain(name))
    }

    /// Whether a postal code has the country's form, with or without the prefix that its
    /// addresses print.
    pub(super) fn takes_postal_code(&self, code: &str) -> bool {
        let pattern = self.postal_code_pattern.get_or_init(|| {
            let pattern = self.postal_code.as_deref()?;
            // A test checks that every pattern of the file compiles.
            Regex::new(&whole(pattern)).ok()
        });
        let Some(pattern) = pattern else {
            return true;
        };
        let unprefixed = self
            .postal_prefix
            .as_deref()
            .and_then(|prefix| strip_ascii_prefix(code, prefix))
            .map(|rest| rest.trim_start_matches(' '));
        pattern.is_match(code) || unprefixed.is_some_and(|rest| pattern.is_match(rest))
    }
}

/// The code by which a country is looked up: without surrounding blanks, ASCII letters in upper
/// case.
pub(super) fn country_key(country_code: &str) -> String {
    country_code.trim().to_ascii_uppercase()
}

/// The rest of a text after a prefix, whose ASCII letters match in upper and lower case.
fn strip_ascii_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Anchors a pattern to the whole text. It ignores case, and matches ASCII only: `\d` matches no
/// other digits.
fn whole(pattern: &str) -> String {
    format!("^(?i-u:{pattern})$")
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;
    use unicode_normalization::char::is_combining_mark;

    use super::*;

    #[test]
    fn each_country_takes_its_own_examples_and_states() {
        assert!(RULES.len() > 240, "{} countries", RULES.len());
        let (mut examples, mut prefixes) = (0, 0);
        for (country_code, country) in RULES.iter() {
            let pattern = country.postal_code.as_deref().unwrap_or_default();
            assert!(
                Regex::new(&whole(pattern)).is_ok(),
                "{country_code}: {pattern}"
            );
            let takes = |code: &str| {
                assert!(country.takes_postal_code(code), "{country_code}: {code}");
                assert!(
                    country.takes_postal_code(&code.to_lowercase()),
                    "{country_code}: {code}"
                );
            };
            for example in &country.examples {
                takes(example);
                examples += 1;
                if let Some(prefix) = &country.postal_prefix {
                    takes(&format!("{prefix}{example}"));
                    takes(&format!("{prefix} {example}"));
                    let twice = format!("{prefix}{prefix}{example}");
                    assert!(!country.takes_postal_code(&twice), "{twice}");
                    prefixes += 1;
                }
            }
            assert_eq!(
                country.takes_postal_code("no such code"),
                pattern.is_empty(),
                "{country_code}"
            );
            for code in &country.state_codes {
                for code in [
                    code,
                    &code.to_lowercase(),
                    &format!("{country_code}-{code}"),
                ] {
                    assert!(
                        country.has_state(country_code, code),
                        "{country_code}: {code}"
                    );
                }
            }
            for name in &country.state_names {
                let forms: [String; 5] = [
                    name.to_uppercase(),
                    name.to_lowercase(),
                    name.nfd().collect(),
                    name.nfkd().collect(),
                    name.nfc().filter(|c| !is_combining_mark(*c)).collect(),
                ];
                for form in forms {
                    assert!(
                        country.has_state(country_code, &form),
                        "{country_code}: {form}"
                    );
                }
            }
            let is_listed = !country.state_codes.is_empty() || !country.state_names.is_empty();
            assert_eq!(country.has_state(country_code, "Atlantis"), !is_listed);
        }
        assert!(examples > 300, "{examples} examples");
        assert!(prefixes > 30, "{prefixes} examples with prefixes");
    }

    #[test]
    fn postal_codes_may_have_the_prefix_that_addresses_print() {
        let countries = [
            (
                "AX",
                &["AX-22150", "22150"][..],
                &["FI-22150", "AX22150"][..],
            ),
            (
                "AZ",
                &["AZ1000", "AZ 1000", "az 1000", "1000"],
                &["AZ-1000", "A1000"],
            ),
            (
                "CH",
                &["CH-2544", "2544"],
                &["CH-25440", "LI-2544", "CH2544"],
            ),
            ("FI", &["FI-00550"], &["AX-00550"]),
            ("FO", &["FO100", "FO 100"], &["FO-100"]),
            ("HR", &["HR-10000"], &["HR--10000"]),
            ("HT", &["HT6120"], &["HT-6120"]),
            (
                "JP",
                &["〒100-0001", "〒 1000001", "100-0001"],
                &["〒〒1000001", "１００-０００１"],
            ),
            ("LI", &["FL-9490"], &["LI-9490"]),
            (
                "LT",
                &["LT-01001", "lt-01001", "01001"],
                &["LV-01001", "LT-0100", "LT-LT-01001"],
            ),
            ("LU", &["L-1111", "l-1111", "1111"], &["L-11111", "L-"]),
            ("MC", &["MC-98000"], &["FR-98000"]),
            ("MD", &["MD-2012"], &["MD2-012"]),
            ("PR", &["PR 00930", "00930"], &["PR"]),
            (
                "SE",
                &["SE-114 55", "SE-11455", "114 55"],
                &["SE-114  55", "S-114 55"],
            ),
            (
                "SG",
                &["SINGAPORE 018956", "Singapore 018956", "018956"],
                &["SINGAPORE"],
            ),
            ("SI", &["SI-4000"], &["4000-SI"]),
            // These print their prefix as part of the code.
            ("LV", &["LV-1073"], &["1073"]),
            ("VG", &["VG1110"], &["1110"]),
            // No prefix is printed; and only ASCII digits are digits.
            (
                "DE",
                &["10115"],
                &["DE-10115", "D-10115", "١٠١١٥", "１０１１５"],
            ),
            ("GB", &["sw1a 1aa"], &["ſw1a 1aa", "GB-SW1A 1AA"]),
        ];
        for (country_code, good, bad) in countries {
            let country = &RULES[country_code];
            for code in good {
                assert!(country.takes_postal_code(code), "{country_code}: {code}");
            }
            for code in bad {
                assert!(!country.takes_postal_code(code), "{country_code}: {code}");
            }
        }
    }

    #[test]
    fn names_of_states_are_compared_without_marks_case_and_composition() {
        let countries = [
            (
                "TR",
                &[
                    "Diyarbakır",
                    "DİYARBAKIR",
                    "DIYARBAKIR",
                    "diyarbakir",
                    "BALIKESİR",
                    "BALIKESIR",
                    "Balikesir",
                    "Istanbul",
                    "İSTANBUL",
                    "ISTANBUL",
                    "ıstanbul",
                    "I\u{307}stanbul",
                    "Sanlıurfa",
                    "ŞANLIURFA",
                    "Izmir",
                    "ÇANKIRI",
                    "AĞRI",
                    "IĞDIR",
                    "Igdir",
                    "Afyonkarahisar",
                    "TR-34",
                    "tr-34",
                    "34",
                ][..],
                &["Istambul", "TR34", "SE-34", "٣٤"][..],
            ),
            (
                "BR",
                &[
                    "São Paulo",
                    "Sa\u{303}o Paulo",
                    "Sao Paulo",
                    "SÃO PAULO",
                    "Ceara",
                    "goiás",
                    "BR-SP",
                ],
                &["São Pãuló 1", "ＳＰ", "Sã Paulo"],
            ),
            (
                "KR",
                &[
                    "서울특별시",
                    "\u{1109}\u{1165}\u{110b}\u{116e}\u{11af}\u{1110}\u{1173}\u{11a8}\u{1107}\u{1167}\u{11af}\u{1109}\u{1175}",
                    "Seoul",
                    "Seoul-teukbyeolsi",
                    "강원특별자치도",
                    "강원도",
                    "강원",
                    "Gangwon State",
                    "전북특별자치도",
                    "전라북도",
                    "전북",
                    "KR-42",
                    "KR-11",
                ],
                &["평양", "KR-서"],
            ),
            (
                "JP",
                &["東京都", "Tokyo", "TOKYO", "ＴＯＫＹＯ", "岐阜県", "JP-13"],
                &["東京府", "１３"],
            ),
            (
                "VN",
                &[
                    "Hà Nội",
                    "Ha\u{300} No\u{302}\u{323}i",
                    "Ha Noi",
                    "Huế",
                    "Hue City",
                    "Da Nang",
                    "dak lak",
                    "VN-HN",
                ],
                &["Saigon Nord"],
            ),
            (
                "UA",
                &[
                    "Київська область",
                    "КИЇВСЬКА ОБЛАСТЬ",
                    "Київ",
                    "Kyiv",
                    "Kyivska oblast",
                    "UA-30",
                ],
                &["Варшава"],
            ),
            (
                "RU",
                &["Орловская область", "орловская область", "МОСКВА", "RU-MOW"],
                &["RU-КК"],
            ),
            (
                "ES",
                &["Cadiz", "CÁDIZ", "A Coruna", "Avila", "León", "Leon"],
                &["Lombardia"],
            ),
            ("AE", &["أبو ظبي", "Dubayy", "Dubai"], &["Oman"]),
            (
                "US",
                &["ca", "California", "US-CA", "us-ca", "Puerto Rico", "UM"],
                &["ﬂ", "İL", "ıl", "ſc", "ＣＡ", "USCA", "CA-CA"],
            ),
            (
                "CA",
                &["Quebec", "QUÉBEC", "Que\u{301}bec", "CA-QC"],
                &["CA-CA"],
            ),
            (
                "MX",
                &["Yucatan", "Nuevo Leon", "México", "CDMX", "MX-CMX"],
                &["Texas"],
            ),
            (
                "CN",
                &["北京市", "CN-BJ", "CN-11", "BJ", "Beijing Shi"],
                &["CN-XX"],
            ),
        ];
        for (country_code, good, bad) in countries {
            let country = &RULES[country_code];
            for state in good {
                assert!(
                    country.has_state(country_code, state),
                    "{country_code}: {state}"
                );
            }
            for state in bad {
                assert!(
                    !country.has_state(country_code, state),
                    "{country_code}: {state}"
                );
            }
        }
    }

    #[test]
    fn newer_subdivisions_are_known() {
        for (country_code, states) in [
            (
                "ID",
                &[
                    "ID-PD",
                    "Papua Barat Daya",
                    "Southwest Papua",
                    "PS",
                    "Papua Pegunungan",
                ][..],
            ),
            (
                "IE",
                &[
                    "County Dublin",
                    "COUNTY CORK",
                    "Co. Dublin",
                    "Dublin",
                    "IE-D",
                ],
            ),
            (
                "IN",
                &[
                    "IN-OD",
                    "IN-OR",
                    "OD",
                    "TS",
                    "in-ts",
                    "TG",
                    "Telangana",
                    "Telangāna",
                    "UK",
                    "CG",
                    "Odisha",
                ],
            ),
            ("KP", &["KP-14", "Nampho", "KP-15"]),
            ("NI", &["Costa Caribe Norte", "NI-AS"]),
            (
                "PH",
                &[
                    "Davao de Oro",
                    "PH-MGN",
                    "Maguindanao del Sur",
                    "Maguindanao",
                ],
            ),
            ("TW", &["TW-KIN", "Taipei", "Taipei City", "LIE"]),
            ("VE", &["La Guaira", "Vargas", "VE-X", "Distrito Capital"]),
        ] {
            for state in states {
                assert!(
                    RULES[country_code].has_state(country_code, state),
                    "{country_code}: {state}"
                );
            }
        }
    }
}
