//! Cursors of feeds: a feed position for every partition, as one opaque text from which a reader
//! resumes.
//!
//! A cursor names partitions by a fingerprint of cluster, topic, the topic's incarnation and
//! partition number. So it means the same to every gateway, and it is refused where the topic was
//! deleted and created again. Partitions that a cursor does not name are read from their beginning.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use super::token::{put, take};
use crate::error::{Code, Error};
use crate::projector::FeedPosition;

/// The longest cursor, in characters: a thousand partitions fit.
const MAX_LENGTH: usize = 32 * 1024;
/// The first byte of the binary form: its version.
const FORMAT: u8 = 1;

/// Eight bytes that identify one partition of one incarnation of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The fingerprint of a row of `sightline.logs`.
    pub fn of(cluster_id: &str, topic: &str, topic_identity: &str, partition: i32) -> Self {
        let mut hash = Sha256::new();
        for text in [cluster_id, topic, topic_identity] {
            // Each text is preceded by its length, so that two different rows never hash the same
            // bytes.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update(partition.to_be_bytes());
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&hash.finalize()[..8]);
        Self(fingerprint)
    }
}

/// How far a reader has read a feed; see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The view version whose feed the positions are of.
    pub view_version: u32,
    /// Next offset and sequence.
    positions: BTreeMap<Fingerprint, (u64, u64)>,
}

impl Cursor {
    /// Sets the position up to which a partition has been read.
    pub fn set(&mut self, log: Fingerprint, position: FeedPosition) {
        // Positions come from the database, where neither half is negative.
        let position = (
            position.next_offset.unsigned_abs(),
            position.sequence.unsigned_abs(),
        );
        self.positions.insert(log, position);
    }

    /// Whether a reader with this cursor has read the partition up to this position.
    pub fn has_passed(&self, log: Fingerprint, position: FeedPosition) -> bool {
        let position = (
            position.next_offset.unsigned_abs(),
            position.sequence.unsigned_abs(),
        );
        self.positions
            .get(&log)
            .is_some_and(|read| *read >= position)
    }

    /// Sets the position up to which a partition has been read, unless it has been read further.
    pub fn advance(&mut self, log: Fingerprint, position: FeedPosition) {
        if !self.has_passed(log, position) {
            self.set(log, position);
        }
    }

    /// The partitions that have been read, each with its position.
    pub fn iter(&self) -> impl Iterator<Item = (Fingerprint, FeedPosition)> {
        self.positions
            .iter()
            .filter_map(|(log, (next_offset, sequence))| {
                let position = FeedPosition {
                    next_offset: i64::try_from(*next_offset).ok()?,
                    sequence: i64::try_from(*sequence).ok()?,
                };
                Some((*log, position))
            })
    }

    /// Parses untrusted text; returns `None` if it is not a cursor.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut bytes = bytes.strip_prefix(&[FORMAT])?;
        let view_version = u32::try_from(take(&mut bytes)?).ok()?;
        let mut positions = BTreeMap::new();
        while !bytes.is_empty() {
            let log = Fingerprint(bytes.split_off(..8)?.try_into().ok()?);
            let position = (take(&mut bytes)?, take(&mut bytes)?);
            // Strictly ascending, so that a cursor has one spelling; numbers must fit a bigint.
            let is_ascending = positions
                .last_key_value()
                .is_none_or(|(last, _)| *last < log);
            if !is_ascending || i64::try_from(position.0.max(position.1)).is_err() {
                return None;
            }
            positions.insert(log, position);
        }
        Some(Self {
            view_version,
            positions,
        })
    }
}

/// The error for a cursor of an earlier view version whose feed differs before the cursor: the
/// reader would miss changes or receive them twice.
pub fn resync() -> Error {
    Error::new(
        Code::Resync,
        "The view was rebuilt, and changes before this cursor have other positions in it now. Read the feed again \
         from the beginning, without a cursor.",
    )
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORMAT];
        put(&mut bytes, self.view_version.into());
        for (log, (next_offset, sequence)) in &self.positions {
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
        Self::parse(&text).ok_or_else(|| de::Error::custom("is not a cursor"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        let positions =
            proptest::collection::btree_map(any::<[u8; 8]>(), (0..i64::MAX, 0..i64::MAX), 0..9);
        (any::<u32>(), positions).prop_map(|(view_version, positions)| {
            let mut cursor = Cursor {
                view_version,
                ..Cursor::default()
            };
            for (log, (next_offset, sequence)) in positions {
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
            let text = BASE64_URL_SAFE_NO_PAD.encode([&[FORMAT], &bytes[..]].concat());
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
    fn fingerprints_differ_by_cluster_topic_incarnation_and_partition() {
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
