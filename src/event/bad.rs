//! Why a record is a data error: one constructor of [`Bad`] per reason.
//!
//! `docs/events.md` lists the reasons. Nothing in a [`Bad`] comes from the record itself.

use std::fmt;

/// Why a record is a data error: a stable reason and, where one field is at fault, its name.
///
/// Holds no data of the record, so that it may be logged, counted and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// A stable word in snake_case, such as `missing_field`.
    pub reason: &'static str,
    /// The field at fault, as `docs/events.md` names it: `userId`, `fullAddress.city`,
    /// `newValues.bio`, `ce_id`.
    pub field: Option<String>,
    /// What is wrong, as the rest of a sentence that begins with the field, if there is one.
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

impl Bad {
    /// A problem of the whole record.
    fn whole(reason: &'static str, problem: &'static str) -> Self {
        Self {
            reason,
            field: None,
            problem,
        }
    }

    /// A problem of one field.
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
            "the value has a number outside the range of a 64-bit float",
        )
    }

    pub(super) fn not_base64(field: &'static str) -> Self {
        Self::field("not_base64", field, "is not base64")
    }

    /// The same problem of JSON, found in a field that holds it as base64.
    pub(super) fn in_base64(self, field: &'static str) -> Self {
        Self::field(
            self.reason,
            field,
            "is not base64 of JSON within the limits",
        )
    }

    pub(super) fn no_event_type() -> Self {
        Self::whole("no_event_type", "the record has no event type")
    }

    pub(super) fn no_event_id(field: &'static str) -> Self {
        Self::field("no_event_id", field, "is missing or empty")
    }

    pub(super) fn no_timestamp() -> Self {
        Self::whole(
            "no_timestamp",
            "payload, envelope and Kafka record have no timestamp",
        )
    }

    pub(super) fn bad_timestamp(field: &'static str) -> Self {
        Self::field(
            "bad_timestamp",
            field,
            "is not an RFC 3339 time of the years 1970 to 2200",
        )
    }

    pub(super) fn bad_kafka_timestamp() -> Self {
        Self::whole(
            "bad_timestamp",
            "the Kafka record's timestamp is outside the years 1970 to 2200",
        )
    }

    pub(super) fn missing_field(field: String) -> Self {
        Self::field("missing_field", field, "is required")
    }

    pub(super) fn empty_field(field: String) -> Self {
        Self::field("empty_field", field, "is required and must not be empty")
    }

    pub(super) fn wrong_type(field: impl Into<String>) -> Self {
        Self::field("wrong_type", field, "has the wrong type")
    }

    pub(super) fn too_many_copies() -> Self {
        Self::whole(
            "too_many_copies",
            "the names of changed fields name the same values more than four times",
        )
    }

    pub(super) fn id_too_long(field: impl Into<String>) -> Self {
        Self::field("id_too_long", field, "is longer than 255 characters")
    }

    pub(super) fn nul_in_id(field: impl Into<String>) -> Self {
        Self::field(
            "nul_in_id",
            field,
            "contains a NUL character or an unpaired surrogate",
        )
    }

    /// An object of a view would be larger than 64 KiB with this event.
    pub fn object_too_large(field: &'static str) -> Self {
        Self::field("object_too_large", field, "would be larger than 64 KiB")
    }

    /// An object of a view would be nested too deep with this event.
    pub fn object_too_deep(field: &'static str) -> Self {
        Self::field("too_deep", field, "would be nested deeper than 126 levels")
    }

    /// The same problem, found in a payload of an unknown version that was read as the newest
    /// known one.
    pub(super) fn unsupported_version(self) -> Self {
        Self {
            reason: "unsupported_version",
            ..self
        }
    }

    /// Whether the payload's form may be that of another version: a field is missing, empty, or of
    /// another type. The other problems are problems in every version.
    pub(super) fn may_be_another_version(&self) -> bool {
        matches!(self.reason, "missing_field" | "empty_field" | "wrong_type")
    }
}
