//! Versions: turns another version of a type's payload into the current form.
//!
//! The catalogue has one form per type, the current one; it is the form of version 1. To add a
//! version, write a function that turns its payload into the current form, list it in
//! [`UPCASTERS`], and test it. Nothing else changes.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::catalogue::EventType;

/// Turns one version of a type into the current form.
pub(super) struct Upcaster {
    pub(super) event_type: EventType,
    pub(super) version: u32,
    /// Turns a payload of this version into the current form. It leaves what it can't turn as it
    /// is: the result is checked like any payload.
    pub(super) upcast: fn(Map<String, Value>) -> Map<String, Value>,
}

/// All known versions but 1.
pub(super) const UPCASTERS: &[Upcaster] = &[];

/// The version that a payload is read as.
pub(super) enum Version<'u> {
    /// The current form.
    Current,
    /// A known version with another form.
    Other(&'u Upcaster),
    /// An unknown version, read as the newest known one. `None` is the current form.
    Unknown(Option<&'u Upcaster>),
}

/// Finds how a version of a type is read.
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

    /// Turns a payload of this version into the current form.
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
