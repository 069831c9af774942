//! Consistency tokens: the position that an answer reflects, as one opaque text that a caller may
//! keep, pass on, and send with a later request.
//!
//! A token holds a position per partition: the next offset to apply, so position p means "all
//! offsets below p". It is a lower bound: with fewer components it promises less.
//!
//! Tokens are parsed in two forms. The gateway's own is binary in base64url and contains a hash of
//! the cluster's and the topic's identity, so it refers to one incarnation of a topic. The
//! producer's form, `topic/partition@offset`, is made from a Kafka acknowledgement; it asks for
//! offset + 1 of the topic's current incarnation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// The longest token, in characters.
pub const MAX_TOKEN_LENGTH: usize = 4096;
/// Kafka's limit on the length of a topic's name.
const MAX_TOPIC_LENGTH: usize = 249;
/// The first byte of the binary form: its version.
const FORMAT: u8 = 1;
/// The bytes that fit into the longest token's base64.
const MAX_BYTES: usize = MAX_TOKEN_LENGTH / 4 * 3;

/// One incarnation of a topic on one cluster, as a hash of both ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncarnationHash([u8; 8]);

impl IncarnationHash {
    /// The hash of a cluster's id and a topic's identity, as stored in `sightline.logs`.
    pub fn of(cluster_id: &str, topic_identity: &str) -> Self {
        let mut hash = Sha256::new();
        // The first text is preceded by its length, so that two different pairs never hash the same
        // bytes.
        hash.update((cluster_id.len() as u64).to_be_bytes());
        hash.update(cluster_id);
        hash.update(topic_identity);
        let digest = hash.finalize();
        let mut identity = [0; 8];
        identity.copy_from_slice(&digest[..8]);
        Self(identity)
    }
}

/// A topic, and which incarnation of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicRef {
    /// The topic's name.
    pub topic: String,
    /// `None`, in the producer's form only, means the current incarnation.
    pub identity: Option<IncarnationHash>,
}

/// A position per topic and partition; see the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsistencyToken {
    positions: BTreeMap<TopicRef, BTreeMap<u32, u64>>,
}

/// How two tokens are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum TokenOrder {
    /// The first is the earlier one: what reflects the second reflects it.
    Before,
    /// The first is the later one.
    After,
    /// Both reflect the same.
    Equal,
    /// Each is the later one in some partition.
    Concurrent,
}

/// Why a text is not a token. It does not contain the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_LENGTH`].
    #[error("is longer than 4096 characters")]
    TooLong,
    /// Of a newer gateway, or not a token at all.
    #[error("has a version that this gateway does not support")]
    UnknownVersion,
    /// Not base64url, truncated, or not canonical.
    #[error("is neither a token of the gateway nor topic/partition@offset")]
    Malformed,
}

impl ConsistencyToken {
    /// Adds a position, or raises the partition's position if it is lower.
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

    /// Raises each position to that of another token where that is higher: the least token that is not before either.
    pub fn join(&mut self, other: &Self) {
        for (topic, partition, position) in other.iter() {
            self.advance(topic.clone(), partition, position);
        }
    }

    /// Which of two tokens is the later one. A partition that a token lacks counts as at its beginning.
    pub fn compare(&self, other: &Self) -> TokenOrder {
        let is_within = |a: &Self, b: &Self| {
            a.iter().all(|(topic, partition, position)| {
                let found = b.positions.get(topic).and_then(|of| of.get(&partition));
                position <= found.copied().unwrap_or_default()
            })
        };
        match (is_within(self, other), is_within(other, self)) {
            (true, true) => TokenOrder::Equal,
            (true, false) => TokenOrder::Before,
            (false, true) => TokenOrder::After,
            (false, false) => TokenOrder::Concurrent,
        }
    }

    /// Whether all components fit into the token's text.
    pub fn fits(&self) -> bool {
        // What each takes at most: a topic its name, the identity and two numbers; a partition two numbers.
        let topics = self.positions.iter();
        let most: usize = topics
            .map(|(topic, positions)| topic.topic.len() + 21 + 15 * positions.len())
            .sum();
        most < MAX_BYTES || Self::parse(&self.to_string()).is_ok_and(|kept| kept == *self)
    }

    /// Adds the partitions of another token, and lowers positions to those of the other one: what both promise.
    pub fn lower(&mut self, other: &Self) {
        for (topic, partition, next_offset) in other.iter() {
            let positions = self.positions.entry(topic.clone()).or_default();
            let position = positions.entry(partition).or_insert(next_offset);
            *position = next_offset.min(*position);
        }
    }

    /// All components, in order: topic, partition, next offset.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicRef, u32, u64)> {
        self.positions
            .iter()
            .flat_map(|(topic, positions)| positions.iter().map(move |(p, o)| (topic, *p, *o)))
    }

    /// Parses untrusted text in either form.
    ///
    /// # Errors
    /// The text is not a token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_LENGTH {
            return Err(TokenError::TooLong);
        }
        // Only the producer's form contains these characters.
        if text.contains(['/', '@']) {
            return Self::parse_producers_form(text).ok_or(TokenError::Malformed);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| TokenError::Malformed)?;
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Self::decode(rest).ok_or(TokenError::Malformed),
            Some(_) => Err(TokenError::UnknownVersion),
            None => Err(TokenError::Malformed),
        }
    }

    fn parse_producers_form(text: &str) -> Option<Self> {
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

    /// For each topic: the length of its name, the name, the identity (a byte 1 and 8 bytes, or a
    /// byte 0), the number of partitions; then for each partition its distance from the previous
    /// one, and the position. All numbers are varints.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for (topic, positions) in &self.positions {
            let mut head = Vec::new();
            put(&mut head, topic.topic.len() as u64);
            head.extend_from_slice(topic.topic.as_bytes());
            match topic.identity {
                Some(IncarnationHash(identity)) => {
                    head.push(1);
                    head.extend_from_slice(&identity);
                }
                None => head.push(0),
            }
            // About 500 partitions fit. Of more the token keeps the first ones: it is a lower
            // bound.
            let capacity = MAX_BYTES.saturating_sub(out.len() + head.len() + 5);
            let (mut body, mut count, mut before) = (Vec::new(), 0, 0);
            for (&partition, &position) in positions {
                let mut component = Vec::new();
                put(&mut component, u64::from(partition - before));
                put(&mut component, position);
                if body.len() + component.len() > capacity {
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
                1 => Some(IncarnationHash(bytes.split_off(..8)?.try_into().ok()?)),
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
            // Strictly ascending, and no topic without partitions, so that a token has one
            // spelling.
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

/// Parses digits only; `str::parse` would also accept a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Appends a varint: groups of seven bits, the lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint from the front; returns `None` if it is not the shortest encoding of its number.
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
                        identity: identity.map(IncarnationHash),
                    };
                    token.advance(topic, partition, position);
                }
            }
            token
        })
    }

    proptest! {
        #[test]
        fn what_two_promise_is_the_lowest_of_each_partition(one in tokens(), other in tokens()) {
            let mut both = one.clone();
            both.lower(&other);
            let position = |token: &ConsistencyToken, topic: &TopicRef, partition| {
                token.positions.get(topic)?.get(&partition).copied()
            };
            for (topic, partition, next_offset) in one.iter().chain(other.iter()) {
                let of_each = [&one, &other].map(|token| position(token, topic, partition));
                let lowest = of_each.into_iter().flatten().min();
                prop_assert_eq!(position(&both, topic, partition), lowest);
                prop_assert!(Some(next_offset) >= lowest);
            }
        }

        #[test]
        fn what_is_written_is_read(token in tokens()) {
            let text = token.to_string();
            prop_assert!(http::HeaderValue::from_str(&text).is_ok());
            prop_assert_eq!(ConsistencyToken::parse(&text), Ok(token));
        }

        #[test]
        fn tokens_are_partly_ordered_and_joined_at_their_least_upper_bound(a in tokens(), b in tokens(), c in tokens()) {
            use TokenOrder::{After, Before, Concurrent, Equal};
            prop_assert_eq!(a.compare(&a), Equal);
            let reverse = match a.compare(&b) {
                Before => After,
                After => Before,
                same => same,
            };
            prop_assert_eq!(b.compare(&a), reverse);
            let join = |a: &ConsistencyToken, b: &ConsistencyToken| {
                let mut joined = a.clone();
                joined.join(b);
                joined
            };
            let joined = join(&a, &b);
            prop_assert_eq!(&joined, &join(&b, &a));
            for one in [&a, &b] {
                prop_assert!(matches!(one.compare(&joined), Before | Equal));
                if joined != *one {
                    prop_assert!(!matches!(one.compare(&joined), After | Concurrent));
                }
            }
            let above = join(&joined, &c);
            prop_assert!(matches!(joined.compare(&above), Before | Equal));
            prop_assert_eq!(join(&a, &join(&b, &c)), above);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,80}|[a-z]{1,3}/[0-9+-]{1,25}@[0-9]{1,25}") {
            let _ = ConsistencyToken::parse(&text);
        }

        #[test]
        fn one_meaning_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = BASE64_URL_SAFE_NO_PAD.encode([&[FORMAT], &bytes[..]].concat());
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
    fn a_token_of_too_much_does_not_fit() {
        for (topics, partitions, fits) in [
            (1, 256, true),
            (1, 2_000, false),
            (11, 1, true),
            (12, 1, false),
        ] {
            let mut token = ConsistencyToken::default();
            for topic in 0..topics {
                for partition in 0..partitions {
                    let topic = TopicRef {
                        topic: format!("{topic:0>249}"),
                        identity: Some(IncarnationHash([7; 8])),
                    };
                    token.advance(topic, partition, 1 << 30);
                }
            }
            assert_eq!(
                token.fits(),
                fits,
                "{topics} topics, {partitions} partitions"
            );
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
        let identity = Some(IncarnationHash::of("cluster", "topic"));
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
        assert_ne!(
            IncarnationHash::of("a", "bc"),
            IncarnationHash::of("ab", "c")
        );
        assert_ne!(IncarnationHash::of("a", "b"), IncarnationHash::of("a", "c"));
    }
}
