//! Whether an address can be shipped to, by the rules of its country.
//!
//! A blank field, of white space alone, counts as missing, and blanks around a value do not count.
//! Addresses are stored with their validation, so new rules need a higher `code_version` of the
//! projection.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rules::{Country, Field, country_key};

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

/// Whether a text consists of white space alone.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
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
    if trimmed(subject.recipient_name).is_none() {
        problems.push(AddressProblem::new(
            "recipientName",
            AddressProblemKind::Missing,
        ));
    }
    Validation { status, problems }
}

/// A value without the blanks around it; `None` if nothing is left.
fn trimmed(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// The problems that decide the status.
fn problems(subject: &Subject<'_>) -> Vec<AddressProblem> {
    // The rules depend on the country.
    let Some(country_code) = trimmed(subject.country_code).map(country_key) else {
        return vec![AddressProblem::new(
            "countryCode",
            AddressProblemKind::Missing,
        )];
    };
    let Some(country) = Country::of(&country_code) else {
        return vec![AddressProblem::new(
            "countryCode",
            AddressProblemKind::Unknown,
        )];
    };
    let state = trimmed(subject.state);
    let postal_code = trimmed(subject.postal_code);
    let is_missing = |field: &&Field| match field {
        Field::Lines => subject.lines.iter().all(|line| is_blank(line)),
        Field::City => trimmed(subject.city).is_none(),
        Field::State => state.is_none(),
        Field::PostalCode => postal_code.is_none(),
    };
    let missing = country.required.iter().filter(is_missing);
    let mut problems: Vec<AddressProblem> = missing
        .map(|field| AddressProblem::new(field.name(), AddressProblemKind::Missing))
        .collect();
    if postal_code.is_some_and(|code| !country.takes_postal_code(code)) {
        problems.push(AddressProblem::new(
            Field::PostalCode.name(),
            AddressProblemKind::Malformed,
        ));
    }
    if state.is_some_and(|state| !country.has_state(&country_code, state)) {
        problems.push(AddressProblem::new(
            Field::State.name(),
            AddressProblemKind::Unknown,
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

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

    #[test]
    fn blanks_are_missing() {
        use AddressProblemKind::Missing;
        use ValidationStatus::{Incomplete, Valid};
        let found = |field: &str| vec![(field.to_owned(), Missing)];
        for blank in [
            "",
            " ",
            "  ",
            "\t",
            "\r\n",
            "\u{a0}",
            "\u{3000}",
            " \u{2009}\t",
        ] {
            let lines = [blank.to_owned(), blank.to_owned()];
            let some = Some(blank);
            for (field, subject) in [
                (
                    "lines",
                    Subject {
                        lines: &lines,
                        ..us()
                    },
                ),
                ("city", Subject { city: some, ..us() }),
                (
                    "state",
                    Subject {
                        state: some,
                        ..us()
                    },
                ),
                (
                    "postalCode",
                    Subject {
                        postal_code: some,
                        ..us()
                    },
                ),
                (
                    "countryCode",
                    Subject {
                        country_code: some,
                        ..us()
                    },
                ),
            ] {
                assert_eq!(problems(subject), (Incomplete, found(field)), "{blank:?}");
            }
            let recipient = Subject {
                recipient_name: some,
                ..us()
            };
            assert_eq!(
                problems(recipient),
                (Valid, found("recipientName")),
                "{blank:?}"
            );
            let lines = [blank.to_owned(), "1 Main St".to_owned()];
            assert_eq!(
                problems(Subject {
                    lines: &lines,
                    ..us()
                }),
                (Valid, vec![])
            );
            // Where a country requires neither, blanks are as good as nothing.
            let oman = Subject {
                country_code: Some("OM"),
                state: some,
                postal_code: some,
                ..us()
            };
            assert_eq!(problems(oman), (Valid, vec![]), "{blank:?}");
        }
    }

    #[test]
    fn blanks_around_values_do_not_count() {
        for (before, after) in [(" ", ""), ("", " "), ("\t", "\n"), ("\u{a0}", "\u{3000}")] {
            let around = |value: &str| Some(format!("{before}{value}{after}"));
            let (country, state, code) = (around("US"), around("CA"), around("95014"));
            let subject = Subject {
                country_code: country.as_deref(),
                state: state.as_deref(),
                postal_code: code.as_deref(),
                ..us()
            };
            assert_eq!(problems(subject), (ValidationStatus::Valid, vec![]));
        }
    }

    #[test]
    fn country_codes_are_ascii() {
        let country = |code| {
            problems(Subject {
                country_code: Some(code),
                ..us()
            })
        };
        for code in ["US", "us", "Us", "US ", "\tus\n"] {
            assert_eq!(country(code), (ValidationStatus::Valid, vec![]), "{code:?}");
        }
        // Upper-cased as Unicode, or in NFKD, all but the last two are codes of countries.
        for code in ["ß", "ſs", "uſ", "ﬁ", "ıt", "ＵＳ", "Ⅴn", "USA", "U S"] {
            let unknown = ("countryCode".to_owned(), AddressProblemKind::Unknown);
            let expected = (ValidationStatus::Invalid, vec![unknown]);
            assert_eq!(country(code), expected, "{code:?}");
        }
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
            prop_assert!(validation.status != ValidationStatus::Valid || Country::of(&country_key(&country)).is_some_and(|rules| rules.required.is_empty()));
        }
    }
}
