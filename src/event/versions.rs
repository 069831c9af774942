//! Versions: how an older or newer form of a type becomes the current one.
//!
//! The catalogue holds one form per type, the current one; version 1 has it. Another version
//! takes a function that turns its payload into the current form, an [`Upcaster`] of it in
//! [`UPCASTERS`], and its test. Nothing else changes.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::catalogue::EventType;

/// How one version of a type becomes the current form.
pub(super) struct Upcaster {
    pub(super) event_type: EventType,
    pub(super) version: u32,
    /// Turns that version's payload into the current form. What it can't turn it leaves as it is:
    /// the catalogue judges the result.
    pub(super) upcast: fn(Map<String, Value>) -> Map<String, Value>,
}

/// All versions that are known besides 1.
pub(super) const UPCASTERS: &[Upcaster] = &[];

/// The version that a payload is read as.
pub(super) enum Version<'u> {
    /// The current form.
    Current,
    /// A known one with another form.
    Other(&'u Upcaster),
    /// One that nobody knows, read as the newest that is known.
    Unknown(Option<&'u Upcaster>),
}

/// Finds how to read a version of a type.
pub(super) fn find(event_type: EventType, version: u32, upcasters: &[Upcaster]) -> Version<'_> {
    let of_type = || upcasters.iter().filter(|u| u.event_type == event_type);
    match of_type().find(|u| u.version == version) {
        Some(upcaster) => Version::Other(upcaster),
        None if version == 1 => Version::Current,
        None => Version::Unknown(of_type().max_by_key(|u| u.version)),
    }
}

impl Version<'_> {
    pub(super) fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// A payload of that version in the current form.
    pub(super) fn upcast<'a>(
        &self,
        payload: &'a Map<String, Value>,
    ) -> Cow<'a, Map<String, Value>> {
        match self {
            Self::Other(upcaster) | Self::Unknown(Some(upcaster)) => {
                Cow::Owned((upcaster.upcast)(payload.clone()))
            }
            Self::Current | Self::Unknown(None) => Cow::Borrowed(payload),
        }
    }
}
