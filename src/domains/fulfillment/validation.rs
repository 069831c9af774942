//! Whether an address can be shipped to, by the rules of its country.
//!
//! The rules of a country are its required fields, the format of its postal codes and its states.
//! They are in `address_rules.json`, which scripts/address-rules.py generates from public data;
//! `address_rules.LICENSE.md` has the licence. Addresses are stored with their validation, so new
//! rules need a higher `code_version` of the projection.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, OnceLock};

use regex::Regex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The result of validating an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValidationStatus {
    /// All required fields are there, and no field is wrong.
    Valid,
    /// The country, or a field that the country requires, is missing.
    Incomplete,
    /// The country or the state does not exist, or the postal code does not have the country's
    /// format.
    Invalid,
}

impl ValidationStatus {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Valid, Self::Incomplete, Self::Invalid];

    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Incomplete => "incomplete",
            Self::Invalid => "invalid",
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressProblemKind {
    /// The field is required, but absent.
    Missing,
    /// The value does not have the country's format.
    Malformed,
    /// There is no country or state with this name.
    Unknown,
}

impl AddressProblemKind {
    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }
}

/// A problem of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressProblem {
    /// The field's name in the address.
    pub field: String,
    pub problem: AddressProblemKind,
}

impl AddressProblem {
    fn new(field: &str, problem: AddressProblemKind) -> Self {
        Self {
            field: field.to_owned(),
            problem,
        }
    }
}

/// An address's status by the rules of its country, and the problems that were found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Validation {
    pub status: ValidationStatus,
    /// The problems of the fields. A missing recipient is a problem, but does not change the
    /// status.
    pub problems: Vec<AddressProblem>,
}

/// The fields that validation checks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The name of the recipient.
    pub recipient_name: Option<&'a str>,
    /// The lines of the street address.
    pub lines: &'a [String],
    /// City or locality.
    pub city: Option<&'a str>,
    /// State, province or region.
    pub state: Option<&'a str>,
    /// Postal code.
    pub postal_code: Option<&'a str>,
    /// ISO 3166-1 alpha-2, upper case.
    pub country_code: Option<&'a str>,
}

/// Validates an address.
pub fn validate(subject: Subject<'_>) -> Validation {
    let mut problems = problems(&subject);
    let is = |wanted: AddressProblemKind| problems.iter().any(|found| found.problem == wanted);
    let status = if is(AddressProblemKind::Missing) {
        ValidationStatus::Incomplete
    } else if problems.is_empty() {
        ValidationStatus::Valid
    } else {
        ValidationStatus::Invalid
    };
    if subject.recipient_name.is_none() {
        problems.push(AddressProblem::new(
            "recipientName",
            AddressProblemKind::Missing,
        ));
    }
    Validation { status, problems }
}

/// The problems that decide the status.
fn problems(subject: &Subject<'_>) -> Vec<AddressProblem> {
    // The rules depend on the country.
    let Some(country_code) = subject.country_code else {
        return vec![AddressProblem::new(
            "countryCode",
            AddressProblemKind::Missing,
        )];
    };
    let Some(country) = RULES.get(country_code) else {
        return vec![AddressProblem::new(
            "countryCode",
            AddressProblemKind::Unknown,
        )];
    };
    let is_missing = |field: &&Field| match field {
        Field::Lines => subject.lines.is_empty(),
        Field::City => subject.city.is_none(),
        Field::State => subject.state.is_none(),
        Field::PostalCode => subject.postal_code.is_none(),
    };
    let missing = country.required.iter().filter(is_missing);
    let mut problems: Vec<AddressProblem> = missing
        .map(|field| AddressProblem::new(field.name(), AddressProblemKind::Missing))
        .collect();
    if subject
        .postal_code
        .is_some_and(|code| !country.takes_postal_code(code))
    {
        problems.push(AddressProblem::new(
            Field::PostalCode.name(),
            AddressProblemKind::Malformed,
        ));
    }
    if subject
        .state
        .is_some_and(|state| !country.has_state(country_code, state))
    {
        problems.push(AddressProblem::new(
            Field::State.name(),
            AddressProblemKind::Unknown,
        ));
    }
    problems
}

static RULES: LazyLock<HashMap<String, Country>> = LazyLock::new(|| {
    // The file is compiled in, and a test checks that it parses.
    serde_json::from_str(include_str!("address_rules.json")).unwrap_or_default()
});

/// A field that a country may require.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Field {
    Lines,
    City,
    State,
    PostalCode,
}

impl Field {
    fn name(self) -> &'static str {
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
struct Country {
    required: Vec<Field>,
    /// A regular expression for whole postal codes; `None` if any postal code is valid.
    postal_code: Option<String>,
    /// The names and codes of all states; `None` if the country's states are not listed.
    states: Option<Vec<String>>,
    #[serde(skip)]
    postal_codes: OnceLock<Option<Regex>>,
    #[serde(skip)]
    folded_states: OnceLock<HashSet<String>>,
    #[cfg(test)]
    #[serde(default)]
    examples: Vec<String>,
}

impl Country {
    /// Whether the country has this state: by any of its names, in upper or lower case, or by its
    /// ISO 3166-2 code, with or without the country's prefix.
    fn has_state(&self, country_code: &str, state: &str) -> bool {
        let Some(states) = &self.states else {
            return true;
        };
        let folded = self
            .folded_states
            .get_or_init(|| states.iter().map(|state| fold(state)).collect());
        let state = fold(state);
        let subdivision = state
            .strip_prefix(&fold(country_code))
            .and_then(|rest| rest.strip_prefix('-'));
        folded.contains(&state) || subdivision.is_some_and(|code| folded.contains(code))
    }

    /// Whether a postal code has the country's format, in upper or lower case.
    fn takes_postal_code(&self, code: &str) -> bool {
        let pattern = self.postal_codes.get_or_init(|| {
            let pattern = self.postal_code.as_deref()?;
            // A test checks that every pattern of the file compiles.
            Regex::new(&whole(pattern)).ok()
        });
        pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(code.trim()))
    }
}

/// Anchors a pattern to the whole text. It ignores case, and matches ASCII only: `\d` matches no
/// other digits.
fn whole(pattern: &str) -> String {
    format!("^(?i-u:{pattern})$")
}

/// The form in which names are compared: upper case, which makes more spellings equal than lower
/// case does.
fn fold(name: &str) -> String {
    name.trim().to_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn us() -> Subject<'static> {
        static LINES: LazyLock<[String; 1]> = LazyLock::new(|| ["1 Main St".to_owned()]);
        Subject {
            recipient_name: Some("Ada"),
            lines: &*LINES,
            city: Some("Cupertino"),
            state: Some("CA"),
            postal_code: Some("95014"),
            country_code: Some("US"),
        }
    }

    fn problems(subject: Subject<'_>) -> (ValidationStatus, Vec<(String, AddressProblemKind)>) {
        let validation = validate(subject);
        let problems = validation
            .problems
            .into_iter()
            .map(|p| (p.field, p.problem));
        (validation.status, problems.collect())
    }

    #[test]
    fn each_country_takes_its_own_examples() {
        assert!(RULES.len() > 240, "{} countries", RULES.len());
        let mut examples = 0;
        for (code, country) in RULES.iter() {
            let pattern = country.postal_code.as_deref().unwrap_or_default();
            assert!(Regex::new(&whole(pattern)).is_ok(), "{code}: {pattern}");
            for example in &country.examples {
                assert!(country.takes_postal_code(example), "{code}: {example}");
                assert!(
                    country.takes_postal_code(&example.to_lowercase()),
                    "{code}: {example}"
                );
                examples += 1;
            }
            assert_eq!(
                country.takes_postal_code("no such code"),
                pattern.is_empty(),
                "{code}"
            );
            for state in country.states.iter().flatten() {
                assert!(
                    country.has_state(code, &state.to_uppercase()),
                    "{code}: {state}"
                );
            }
        }
        assert!(examples > 300, "{examples} examples");
    }

    #[test]
    fn each_problem_names_its_field() {
        use AddressProblemKind::{Malformed, Missing, Unknown};
        use ValidationStatus::{Incomplete, Invalid, Valid};
        let found = |field: &str, problem| (field.to_owned(), problem);
        assert_eq!(problems(us()), (Valid, vec![]));
        let state = |state| Subject {
            state: Some(state),
            ..us()
        };
        for name in ["ca", "California", "CALIFORNIA", "US-CA", "us-ca"] {
            assert_eq!(problems(state(name)), (Valid, vec![]), "{name}");
        }
        assert_eq!(
            problems(state("Bavaria")),
            (Invalid, vec![found("state", Unknown)])
        );
        let wrong = Subject {
            postal_code: Some("9501"),
            recipient_name: None,
            ..us()
        };
        let expected = vec![
            found("postalCode", Malformed),
            found("recipientName", Missing),
        ];
        assert_eq!(problems(wrong), (Invalid, expected));
        // A missing field outweighs a wrong one in the status.
        let both = Subject {
            city: None,
            state: Some("X"),
            ..us()
        };
        let expected = vec![found("city", Missing), found("state", Unknown)];
        assert_eq!(problems(both), (Incomplete, expected));
        let empty = Subject::default();
        let expected = vec![
            found("countryCode", Missing),
            found("recipientName", Missing),
        ];
        assert_eq!(problems(empty), (Incomplete, expected));
        let unknown_country = Subject {
            country_code: Some("QQ"),
            city: None,
            ..us()
        };
        assert_eq!(
            problems(unknown_country),
            (Invalid, vec![found("countryCode", Unknown)])
        );
        let no_recipient = Subject {
            recipient_name: None,
            ..us()
        };
        assert_eq!(
            problems(no_recipient),
            (Valid, vec![found("recipientName", Missing)])
        );
        // Oman requires neither a state nor a postal code, and its states are not listed.
        let oman = Subject {
            country_code: Some("OM"),
            state: Some("any"),
            postal_code: None,
            ..us()
        };
        assert_eq!(problems(oman), (Valid, vec![]));
    }

    proptest! {
        #[test]
        fn any_text_can_be_validated(country in "[A-Z]{2}|.{0,9}", state in ".{0,40}", code in ".{0,40}") {
            let subject = Subject {
                country_code: Some(&country),
                state: Some(&state),
                postal_code: Some(&code),
                ..Subject::default()
            };
            let validation = validate(subject);
            prop_assert!(validation.status != ValidationStatus::Valid || RULES[&country].required.is_empty());
        }
    }
}
