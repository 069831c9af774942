//! Whether an address is fit to ship to, by the rules of its country.
//!
//! The rules (which fields a country requires, the form of its postal codes, its states) are data that somebody
//! maintains: `address_rules.json`, written by scripts/address-rules.py, under the licence in
//! `address_rules.LICENSE.md`. When they are renewed, the projection's `code_version` rises: addresses are stored with
//! what validation said of them.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, OnceLock};

use regex::Regex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What validation says of an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValidationStatus {
    /// Nothing is missing, nothing wrong.
    #[default]
    Valid,
    /// The country, or a field that the country requires, is missing.
    Incomplete,
    /// The country or its state is none that there is, or the postal code has not the country's form.
    Invalid,
}

impl ValidationStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Valid, Self::Incomplete, Self::Invalid];

    /// The word for it.
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
pub enum Problem {
    /// There is nothing in it.
    Missing,
    /// It has not the form that the country's have.
    Malformed,
    /// There is none of that name.
    Unknown,
}

impl Problem {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }
}

/// A field with something wrong about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressProblem {
    /// The field's name in the address.
    pub field: String,
    pub problem: Problem,
}

impl AddressProblem {
    fn new(field: &str, problem: Problem) -> Self {
        Self {
            field: field.to_owned(),
            problem,
        }
    }
}

/// What validation by the rules of the address's country says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Validation {
    pub status: ValidationStatus,
    /// Field by field. A missing recipient is a problem that leaves the status as it is.
    pub problems: Vec<AddressProblem>,
}

/// What validation looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// Whom to hand it to.
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

/// Judges an address.
pub fn validate(subject: Subject<'_>) -> Validation {
    let mut problems = problems(&subject);
    let is = |wanted: Problem| problems.iter().any(|found| found.problem == wanted);
    let status = if is(Problem::Missing) {
        ValidationStatus::Incomplete
    } else if problems.is_empty() {
        ValidationStatus::Valid
    } else {
        ValidationStatus::Invalid
    };
    if subject.recipient_name.is_none() {
        problems.push(AddressProblem::new("recipientName", Problem::Missing));
    }
    Validation { status, problems }
}

/// What the status is made of.
fn problems(subject: &Subject<'_>) -> Vec<AddressProblem> {
    // Without the country nobody knows the rules.
    let Some(country_code) = subject.country_code else {
        return vec![AddressProblem::new("countryCode", Problem::Missing)];
    };
    let Some(country) = RULES.get(country_code) else {
        return vec![AddressProblem::new("countryCode", Problem::Unknown)];
    };
    let is_missing = |field: &&Field| match field {
        Field::Lines => subject.lines.is_empty(),
        Field::City => subject.city.is_none(),
        Field::State => subject.state.is_none(),
        Field::PostalCode => subject.postal_code.is_none(),
    };
    let missing = country.required.iter().filter(is_missing);
    let mut problems: Vec<AddressProblem> = missing
        .map(|field| AddressProblem::new(field.name(), Problem::Missing))
        .collect();
    if subject
        .postal_code
        .is_some_and(|code| !country.takes_postal_code(code))
    {
        problems.push(AddressProblem::new(
            Field::PostalCode.name(),
            Problem::Malformed,
        ));
    }
    if subject
        .state
        .is_some_and(|state| !country.has_state(country_code, state))
    {
        problems.push(AddressProblem::new(Field::State.name(), Problem::Unknown));
    }
    problems
}

static RULES: LazyLock<HashMap<String, Country>> = LazyLock::new(|| {
    // The file is a part of the program, and a test reads it.
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
    /// A regular expression that matches the whole of a postal code; none where any will do.
    postal_code: Option<String>,
    /// Every name of every state; none where the country does not list them.
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
    /// Whether a text is one of the country's states, by any of its names, in either case, or by its code in
    /// ISO 3166-2 with the country before it.
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

    /// Whether a text has the form of the country's postal codes, in either case.
    fn takes_postal_code(&self, code: &str) -> bool {
        let pattern = self.postal_codes.get_or_init(|| {
            let pattern = self.postal_code.as_deref()?;
            // Every pattern of the file compiles, as a test sees to.
            Regex::new(&whole(pattern)).ok()
        });
        pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(code.trim()))
    }
}

/// A pattern for the whole of a text, in either case, digits being ASCII's alone.
fn whole(pattern: &str) -> String {
    format!("^(?i-u:{pattern})$")
}

/// As names are compared: in upper case, in which more of them meet than in lower case.
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

    fn problems(subject: Subject<'_>) -> (ValidationStatus, Vec<(String, Problem)>) {
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
    fn problems_are_told_field_by_field() {
        use Problem::{Malformed, Missing, Unknown};
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
        // What is missing weighs more than what is wrong, whichever is found first.
        let both = Subject {
            city: None,
            state: Some("X"),
            ..us()
        };
        let expected = vec![found("city", Missing), found("state", Unknown)];
        assert_eq!(problems(both), (Incomplete, expected));
        let nothing = Subject::default();
        let expected = vec![
            found("countryCode", Missing),
            found("recipientName", Missing),
        ];
        assert_eq!(problems(nothing), (Incomplete, expected));
        let nowhere = Subject {
            country_code: Some("QQ"),
            city: None,
            ..us()
        };
        assert_eq!(
            problems(nowhere),
            (Invalid, vec![found("countryCode", Unknown)])
        );
        let nobody = Subject {
            recipient_name: None,
            ..us()
        };
        assert_eq!(
            problems(nobody),
            (Valid, vec![found("recipientName", Missing)])
        );
        // A country that requires neither state nor postal code, and lists no states.
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
        fn whatever_is_written_gets_an_answer(country in "[A-Z]{2}|.{0,9}", state in ".{0,40}", code in ".{0,40}") {
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
