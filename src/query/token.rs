//! Consistency tokens: the position that an answer reflects, as one opaque word that any caller may keep,
//! hand on, and later ask with.
//!
//! A token is a set of log positions, each the next offset to apply, so the meaning of `position p` is
//! "all offsets below p". It is a lower bound: dropping a component only promises less. Positions form a
//! lattice (per log, the greater is later), which a map keeps ready for comparing and joining.
//!
//! Two spellings are read. The gateway's own is binary in base64url, carries a hash of the cluster's and
//! the topic's identity, and so means one incarnation of a topic. The producer's, `topic/partition@offset`,
//! is what a Kafka acknowledgement gives; it asks for offset + 1 of the topic as it is now.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// No token is longer than this, in characters.
pub const MAX_TOKEN_LENGTH: usize = 4096;
/// Kafka's own bound on the name of a topic.
const MAX_TOPIC_LENGTH: usize = 249;
/// The first byte of the binary form.
const VERSION: u8 = 1;
/// Of 4,096 characters of base64.
const MAX_BYTES: usize = MAX_TOKEN_LENGTH / 4 * 3;

/// Which incarnation of a topic, on which cluster: a hash of both identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 8]);

impl Identity {
    /// Of a cluster's id and a topic's identity, as `sightline.logs` has them.
    pub fn of(cluster_id: &str, topic_identity: &str) -> Self {
        let mut hash = Sha256::new();
        // Lengths first, so that no two pairs are the same bytes.
        hash.update((cluster_id.len() as u64).to_be_bytes());
        hash.update(cluster_id);
        hash.update(topic_identity);
        let digest = hash.finalize();
        let mut identity = [0; 8];
        identity.copy_from_slice(&digest[..8]);
        Self(identity)
    }
}

/// A topic, and which incarnation of it; none: the one that there is now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicRef {
    /// The topic's name.
    pub topic: String,
    /// None only in the producer's form.
    pub identity: Option<Identity>,
}

/// Positions per topic and partition; see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsistencyToken {
    positions: BTreeMap<TopicRef, BTreeMap<u32, u64>>,
}

/// Why a text is not a token. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_LENGTH`].
    #[error("is longer than 4096 characters")]
    TooLong,
    /// Written by a newer gateway, or not by a gateway at all.
    #[error("has a version that this gateway does not know")]
    UnknownVersion,
    /// Not base64url, cut, or not canonical.
    #[error("is neither a token of the gateway nor topic/partition@offset")]
    Malformed,
}

impl ConsistencyToken {
    /// Adds a position, or raises the one that is there.
    pub fn advance(&mut self, topic: TopicRef, partition: u32, next_offset: u64) {
        match self.positions.entry(topic).or_default().entry(partition) {
            Entry::Vacant(entry) => {
                entry.insert(next_offset);
            }
            Entry::Occupied(mut entry) => {
                let position = entry.get_mut();
                *position = next_offset.max(*position);
            }
        }
    }

    /// Every component: topic, partition, next offset; in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicRef, u32, u64)> {
        self.positions
            .iter()
            .flat_map(|(topic, positions)| positions.iter().map(move |(p, o)| (topic, *p, *o)))
    }

    /// Reads either spelling.
    ///
    /// # Errors
    /// The text is no token. It may come from anybody and hold anything.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_LENGTH {
            return Err(TokenError::TooLong);
        }
        // Neither character occurs in base64url or in a topic's name.
        if text.contains(['/', '@']) {
            return Self::parse_producers(text).ok_or(TokenError::Malformed);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| TokenError::Malformed)?;
        match bytes.split_first() {
            Some((&VERSION, rest)) => Self::decode(rest).ok_or(TokenError::Malformed),
            Some(_) => Err(TokenError::UnknownVersion),
            None => Err(TokenError::Malformed),
        }
    }

    fn parse_producers(text: &str) -> Option<Self> {
        let (topic, rest) = text.split_once('/')?;
        let (partition, offset) = rest.split_once('@')?;
        let mut token = Self::default();
        token.advance(
            TopicRef {
                topic: is_topic(topic).then(|| topic.to_owned())?,
                identity: None,
            },
            number(partition)?.try_into().ok()?,
            number(offset)?.checked_add(1)?,
        );
        Some(token)
    }

    /// Per topic: length and name, identity (a byte 1 and 8 bytes, or a byte 0), the number of partitions,
    /// then for each the distance from the one before and the position. All numbers are varints.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for (topic, positions) in &self.positions {
            let mut head = Vec::new();
            put(&mut head, topic.topic.len() as u64);
            head.extend_from_slice(topic.topic.as_bytes());
            match topic.identity {
                Some(Identity(identity)) => {
                    head.push(1);
                    head.extend_from_slice(&identity);
                }
                None => head.push(0),
            }
            // Some 500 partitions fit. A view of more keeps the first of them: a token is a lower bound.
            let room = MAX_BYTES.saturating_sub(out.len() + head.len() + 5);
            let (mut body, mut count, mut before) = (Vec::new(), 0, 0);
            for (&partition, &position) in positions {
                let mut component = Vec::new();
                put(&mut component, u64::from(partition - before));
                put(&mut component, position);
                if body.len() + component.len() > room {
                    break;
                }
                body.extend(component);
                (count, before) = (count + 1, partition);
            }
            if count == 0 {
                break;
            }
            out.extend(head);
            put(&mut out, count);
            out.extend(body);
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut positions = BTreeMap::new();
        while !bytes.is_empty() {
            let length = usize::try_from(take(&mut bytes)?).ok()?;
            let topic = std::str::from_utf8(bytes.split_off(..length)?).ok()?;
            let identity = match bytes.split_off_first()? {
                0 => None,
                1 => Some(Identity(bytes.split_off(..8)?.try_into().ok()?)),
                _ => return None,
            };
            let mut of_topic = BTreeMap::new();
            let mut partition = 0_u32;
            for i in 0..take(&mut bytes)? {
                let distance = u32::try_from(take(&mut bytes)?).ok()?;
                if i > 0 && distance == 0 {
                    return None;
                }
                partition = partition.checked_add(distance)?;
                of_topic.insert(partition, take(&mut bytes)?);
            }
            let topic = TopicRef {
                topic: is_topic(topic).then(|| topic.to_owned())?,
                identity,
            };
            // In strict order, and nothing empty: one meaning has one spelling.
            let in_order = positions
                .last_key_value()
                .is_none_or(|(last, _)| *last < topic);
            if of_topic.is_empty() || !in_order {
                return None;
            }
            positions.insert(topic, of_topic);
        }
        Some(Self { positions })
    }
}

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.encode()))
    }
}

fn is_topic(name: &str) -> bool {
    (1..=MAX_TOPIC_LENGTH).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Digits alone: `parse` would take a sign, too.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A number in groups of seven bits, the lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The shortest spelling of a number only.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> impl Strategy<Value = ConsistencyToken> {
        let topic = ("[a-z._-]{1,20}", any::<Option<[u8; 8]>>());
        let positions = proptest::collection::btree_map(any::<u32>(), any::<u64>(), 1..8);
        proptest::collection::btree_map(topic, positions, 0..4).prop_map(|topics| {
            let mut token = ConsistencyToken::default();
            for ((topic, identity), positions) in topics {
                for (partition, position) in positions {
                    let topic = TopicRef {
                        topic: topic.clone(),
                        identity: identity.map(Identity),
                    };
                    token.advance(topic, partition, position);
                }
            }
            token
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(token in tokens()) {
            let text = token.to_string();
            prop_assert!(http::HeaderValue::from_str(&text).is_ok());
            prop_assert_eq!(ConsistencyToken::parse(&text), Ok(token));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,80}|[a-z]{1,3}/[0-9+-]{1,25}@[0-9]{1,25}") {
            let _ = ConsistencyToken::parse(&text);
        }

        #[test]
        fn one_meaning_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = BASE64_URL_SAFE_NO_PAD.encode([&[VERSION], &bytes[..]].concat());
            if let Ok(token) = ConsistencyToken::parse(&text) {
                prop_assert_eq!(token.to_string(), text);
            }
        }

        #[test]
        fn damaged_tokens_do_not_panic(token in tokens(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = token.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = ConsistencyToken::parse(&BASE64_URL_SAFE_NO_PAD.encode(&bytes));
            let _ = ConsistencyToken::parse(&BASE64_URL_SAFE_NO_PAD.encode(&bytes[..at]));
        }

        #[test]
        fn the_producers_form_asks_for_the_next_offset(partition in any::<u32>(), offset in 0..u64::MAX) {
            let token = ConsistencyToken::parse(&format!("user.events/{partition}@{offset}")).unwrap();
            let components: Vec<_> = token.iter().map(|(t, p, o)| (t.topic.as_str(), t.identity, p, o)).collect();
            prop_assert_eq!(components, [("user.events", None, partition, offset + 1)]);
        }
    }

    #[test]
    fn hostile_texts_are_refused() {
        for text in [
            "",
            "!",
            "t/1",
            "t@1",
            "/1@1",
            "t/@1",
            "t/1@",
            "t/+1@1",
            "t/1@-1",
            "t/1/2@3",
            "ü/1@1",
            "t/4294967296@1",
            "t/1@18446744073709551615",
        ] {
            assert_eq!(
                ConsistencyToken::parse(text),
                Err(TokenError::Malformed),
                "{text}"
            );
        }
        assert_eq!(
            ConsistencyToken::parse("Ag"),
            Err(TokenError::UnknownVersion)
        );
        let long = "A".repeat(MAX_TOKEN_LENGTH + 1);
        assert_eq!(ConsistencyToken::parse(&long), Err(TokenError::TooLong));
    }

    #[test]
    fn a_token_is_never_too_long() {
        let mut token = ConsistencyToken::default();
        let identity = Some(Identity::of("cluster", "topic"));
        for topic in ["a", "b"] {
            for partition in 0..3000 {
                let topic = TopicRef {
                    topic: topic.into(),
                    identity,
                };
                token.advance(topic, partition, 1 << 34);
            }
        }
        let text = token.to_string();
        assert!(text.len() <= MAX_TOKEN_LENGTH);
        let read = ConsistencyToken::parse(&text).unwrap();
        assert!(read.iter().count() > 400);
        assert!(read.iter().all(|c| token.iter().any(|other| c == other)));
    }

    #[test]
    fn positions_only_rise() {
        let topic = TopicRef {
            topic: "t".into(),
            identity: None,
        };
        let mut token = ConsistencyToken::default();
        for offset in [3, 7, 5] {
            token.advance(topic.clone(), 0, offset);
        }
        assert_eq!(token.iter().next().map(|(_, _, o)| o), Some(7));
    }

    #[test]
    fn identities_differ_by_cluster_and_topic() {
        assert_ne!(Identity::of("a", "bc"), Identity::of("ab", "c"));
        assert_ne!(Identity::of("a", "b"), Identity::of("a", "c"));
    }
}
