//! Cursors of feeds: one place for every partition of the log, as one opaque word from which a reader resumes.
//!
//! Places are kept by a fingerprint of the partition and of the incarnation of its topic, so a cursor means the same
//! to every gateway, and nothing where the topic is another one. A partition that a cursor does not hold begins at its
//! beginning.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use super::token::{put, take};
use crate::error::{Code, Error};
use crate::projector::FeedPosition;

/// No cursor is longer than this, in characters: a thousand partitions fit.
const MAX_LENGTH: usize = 32 * 1024;
/// The first byte of the binary form.
const FORM: u8 = 1;

/// One partition of one incarnation of a topic, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// Of a row of `sightline.logs`.
    pub fn of(cluster_id: &str, topic: &str, topic_identity: &str, partition: i32) -> Self {
        let mut hash = Sha256::new();
        for text in [cluster_id, topic, topic_identity] {
            // Lengths first, so that no two rows are the same bytes.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update(partition.to_be_bytes());
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&hash.finalize()[..8]);
        Self(fingerprint)
    }
}

/// How far a feed has been read; see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The version of the view in which the places were read.
    pub view_version: u32,
    places: BTreeMap<Fingerprint, (u64, u64)>,
}

impl Cursor {
    /// Where a partition has been read to.
    pub fn set(&mut self, log: Fingerprint, place: FeedPosition) {
        // Neither is ever negative.
        let place = (
            place.next_offset.unsigned_abs(),
            place.sequence.unsigned_abs(),
        );
        self.places.insert(log, place);
    }

    /// Every partition that has been read, and to where.
    pub fn iter(&self) -> impl Iterator<Item = (Fingerprint, FeedPosition)> {
        self.places
            .iter()
            .filter_map(|(log, (next_offset, sequence))| {
                let place = FeedPosition {
                    next_offset: i64::try_from(*next_offset).ok()?,
                    sequence: i64::try_from(*sequence).ok()?,
                };
                Some((*log, place))
            })
    }

    /// Reads a cursor; `None` where the text, which may come from anybody, is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut bytes = bytes.strip_prefix(&[FORM])?;
        let view_version = u32::try_from(take(&mut bytes)?).ok()?;
        let mut places = BTreeMap::new();
        while !bytes.is_empty() {
            let log = Fingerprint(bytes.split_off(..8)?.try_into().ok()?);
            let place = (take(&mut bytes)?, take(&mut bytes)?);
            // In strict order, and within what Postgres can count: one meaning has one spelling.
            let is_last = places.last_key_value().is_none_or(|(last, _)| *last < log);
            if !is_last || i64::try_from(place.0.max(place.1)).is_err() {
                return None;
            }
            places.insert(log, place);
        }
        Some(Self {
            view_version,
            places,
        })
    }
}

/// The refusal of a cursor from before a rebuild that has put changes elsewhere: its reader would miss some, or get them
/// again.
pub fn resync() -> Error {
    Error::new(
        Code::Resync,
        "The view was rebuilt, and changes that this cursor has passed lie elsewhere in it now. Read the feed anew, \
         without a cursor.",
    )
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORM];
        put(&mut bytes, self.view_version.into());
        for (log, (next_offset, sequence)) in &self.places {
            bytes.extend(log.0);
            put(&mut bytes, *next_offset);
            put(&mut bytes, *sequence);
        }
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("is no cursor"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        let places =
            proptest::collection::btree_map(any::<[u8; 8]>(), (0..i64::MAX, 0..i64::MAX), 0..9);
        (any::<u32>(), places).prop_map(|(view_version, places)| {
            let mut cursor = Cursor {
                view_version,
                ..Cursor::default()
            };
            for (log, (next_offset, sequence)) in places {
                cursor.set(
                    Fingerprint(log),
                    FeedPosition {
                        next_offset,
                        sequence,
                    },
                );
            }
            cursor
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cursor in cursors()) {
            let text = cursor.to_string();
            prop_assert!(http::HeaderValue::from_str(&text).is_ok());
            prop_assert_eq!(Cursor::parse(&text), Some(cursor));
        }

        #[test]
        fn one_meaning_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = BASE64_URL_SAFE_NO_PAD.encode([&[FORM], &bytes[..]].concat());
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,80}") {
            let _ = Cursor::parse(&text);
        }
    }

    #[test]
    fn partitions_of_other_topics_are_others() {
        let one = Fingerprint::of("c", "t", "i", 0);
        for other in [
            Fingerprint::of("c", "t", "i", 1),
            Fingerprint::of("c", "t", "j", 0),
            Fingerprint::of("c", "u", "i", 0),
            Fingerprint::of("d", "t", "i", 0),
            Fingerprint::of("ct", "", "i", 0),
        ] {
            assert_ne!(one, other);
        }
    }
}
