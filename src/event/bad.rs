//! Why a record is a data error.

use std::fmt;

/// What makes a record bad: a stable reason and, where one is to blame, the field.
///
/// Nothing in it comes from outside, so that it may be logged, counted and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// A stable snake_case word, such as `missing_field`.
    pub reason: &'static str,
    /// The field to blame, as this project's contract names it (`userId`, `fullAddress.city`,
    /// `newValues.bio`, `ce_id`).
    pub field: Option<String>,
    /// What is wrong, in words.
    problem: &'static str,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.reason)?;
        if let Some(field) = &self.field {
            write!(f, "{field} ")?;
        }
        f.write_str(self.problem)
    }
}

impl std::error::Error for Bad {}

/// One constructor per reason: the list of everything that can be wrong with a record.
impl Bad {
    fn whole(reason: &'static str, problem: &'static str) -> Self {
        Self {
            reason,
            field: None,
            problem,
        }
    }

    fn field(reason: &'static str, field: impl Into<String>, problem: &'static str) -> Self {
        Self {
            reason,
            field: Some(field.into()),
            problem,
        }
    }

    pub(super) fn not_json() -> Self {
        Self::whole("not_json", "the value is not JSON in UTF-8")
    }

    pub(super) fn too_deep() -> Self {
        Self::whole("too_deep", "the value is nested deeper than 128 levels")
    }

    pub(super) fn number_out_of_range() -> Self {
        Self::whole(
            "number_out_of_range",
            "the value has a number that no 64-bit float holds",
        )
    }

    pub(super) fn no_event_type() -> Self {
        Self::whole("no_event_type", "the record does not say its type")
    }

    pub(super) fn no_event_id(field: &'static str) -> Self {
        Self::field("no_event_id", field, "is missing or empty")
    }

    pub(super) fn no_timestamp() -> Self {
        Self::whole(
            "no_timestamp",
            "neither payload, envelope nor log say when it happened",
        )
    }

    pub(super) fn bad_timestamp(field: &'static str) -> Self {
        Self::field(
            "bad_timestamp",
            field,
            "is not an RFC 3339 time of the years 1970 to 2200",
        )
    }

    pub(super) fn bad_log_timestamp() -> Self {
        Self::whole(
            "bad_timestamp",
            "the log's timestamp lies outside the years 1970 to 2200",
        )
    }

    pub(super) fn missing_field(field: String) -> Self {
        Self::field("missing_field", field, "is required")
    }

    pub(super) fn empty_field(field: String) -> Self {
        Self::field("empty_field", field, "is required and must not be empty")
    }

    pub(super) fn wrong_type(field: impl Into<String>) -> Self {
        Self::field("wrong_type", field, "has another type than it should")
    }

    pub(super) fn id_too_long(field: impl Into<String>) -> Self {
        Self::field("id_too_long", field, "is longer than 255 characters")
    }

    pub(super) fn nul_in_id(field: impl Into<String>) -> Self {
        Self::field("nul_in_id", field, "contains a NUL character")
    }

    /// The version is unknown, and as the newest known one it does not read either.
    pub(super) fn unsupported_version(self) -> Self {
        Self {
            reason: "unsupported_version",
            ..self
        }
    }

    /// Whether the payload lacks the form of the version that it was read as, rather than
    /// having a value that no version would take.
    pub(super) fn is_of_form(&self) -> bool {
        matches!(self.reason, "missing_field" | "empty_field" | "wrong_type")
    }
}
