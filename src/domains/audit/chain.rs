//! Tamper evidence: the entries of each log are a chain, in which each link is made of the one before and of its entry.
//!
//! A link is an HMAC-SHA-256 (RFC 2104) with a key that is kept outside of the database. Without a key it is a plain SHA-256: a
//! person who can change entries can compute it, too. It covers the number of the entry, all that is never erased, and of each
//! value that may be erased a digest with a salt of its own. An erasure deletes the salt with the value and leaves the digest:
//! the chain stays whole, and the value can't be found by trying.

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The bytes of a link, and of a digest.
pub const LINK_BYTES: usize = 32;
/// The bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// How many values of an entry may be erased: IP address, user agent, values of changed fields.
pub const ERASABLE: usize = 3;
/// The bytes of a digest with the index of its value.
const STORED_DIGEST_BYTES: usize = 1 + LINK_BYTES;

/// What follows the one before in a chain.
pub type Link = [u8; LINK_BYTES];

/// What the first entry of a log is chained to.
pub const BEGINNING: Link = [0; LINK_BYTES];

/// The key of the chains, if there is one. Its `Debug` output does not show it.
#[derive(Clone)]
pub struct Key(Option<Hmac<Sha256>>, Option<[u8; 8]>);

impl Key {
    /// No key.
    pub const NONE: Self = Self(None, None);

    /// A key of any length.
    pub fn of(secret: Option<&[u8]>) -> Self {
        let Some(secret) = secret else {
            return Self::NONE;
        };
        // HMAC takes keys of any length.
        let hmac = Hmac::<Sha256>::new_from_slice(secret).ok();
        let id = hmac.clone().map(|hmac| {
            let hash = hmac.chain_update(b"sightline audit key").finalize();
            let mut id = [0; 8];
            id.copy_from_slice(&hash.into_bytes()[..8]);
            id
        });
        Self(hmac, id)
    }

    /// Identifies the key, and does not tell it; `None` without a key.
    pub fn id(&self) -> Option<&[u8]> {
        self.1.as_ref().map(<[u8; 8]>::as_slice)
    }

    /// Hashes `parts`, each after its length, so that no two lists of parts are hashed alike.
    fn hash(&self, parts: &[&[u8]]) -> Link {
        let sized = parts
            .iter()
            .map(|part| ((part.len() as u64).to_be_bytes(), *part));
        match &self.0 {
            Some(hmac) => {
                let mut hmac = hmac.clone();
                for (length, part) in sized {
                    hmac.update(&length);
                    hmac.update(part);
                }
                hmac.finalize().into_bytes().into()
            }
            None => {
                let mut hash = Sha256::new();
                for (length, part) in sized {
                    hash.update(length);
                    hash.update(part);
                }
                hash.finalize().into()
            }
        }
    }

    /// The link of an entry, the `sequence`-th of its log.
    pub fn link(&self, before: &Link, sequence: i64, entry: &Chained<'_>) -> Link {
        let mut present = Vec::with_capacity(STORED_DIGEST_BYTES * ERASABLE);
        store_digests(&entry.digests, &mut present);
        let key = |key: Option<Uuid>| key.map(Uuid::into_bytes).unwrap_or_default();
        self.hash(&[
            b"entry",
            before,
            &sequence.to_be_bytes(),
            entry.topic.as_bytes(),
            &entry.partition.to_be_bytes(),
            &entry.offset.to_be_bytes(),
            &entry.action.to_be_bytes(),
            &entry.occurred_at.timestamp_micros().to_be_bytes(),
            &entry.recorded_at.timestamp_micros().to_be_bytes(),
            entry.event_id.as_bytes(),
            &key(entry.user_key),
            &key(entry.actor_key),
            &key(entry.role_key),
            &key(entry.permission_key),
            entry.facts.as_bytes(),
            &present,
        ])
    }

    /// The head of a chain that goes on for another one, which had `sequence` entries and this head.
    pub fn follow(&self, before: &Link, version: i32, sequence: i64, head: &[u8]) -> Link {
        self.hash(&[
            b"former head",
            before,
            &version.to_be_bytes(),
            &sequence.to_be_bytes(),
            head,
        ])
    }
}

/// What a link covers of an entry.
#[derive(Debug, Clone)]
pub struct Chained<'e> {
    pub topic: &'e str,
    pub partition: i32,
    pub offset: i64,
    pub action: i16,
    pub occurred_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
    pub event_id: &'e str,
    pub user_key: Option<Uuid>,
    pub actor_key: Option<Uuid>,
    pub role_key: Option<Uuid>,
    pub permission_key: Option<Uuid>,
    /// As it is stored.
    pub facts: &'e str,
    pub digests: Digests,
}

/// The digests of an entry's values that may be erased; `None` for a value that the event did not have.
pub type Digests = [Option<Link>; ERASABLE];

/// The digests of values, each with the salt in its place: `salts` holds those of the values that there
/// are. `None` if it does not.
pub fn digests(values: [Option<&str>; ERASABLE], salts: &[u8]) -> Option<Digests> {
    let mut salts = salts.chunks(SALT_BYTES);
    let mut digests = [None; ERASABLE];
    for (digest, value) in digests.iter_mut().zip(values) {
        if let Some(value) = value {
            let salt = salts.next().filter(|salt| salt.len() == SALT_BYTES)?;
            let hash = Sha256::new().chain_update(salt).chain_update(value);
            *digest = Some(hash.finalize().into());
        }
    }
    salts.next().is_none().then_some(digests)
}

/// Appends digests in their stored form: each after the index of its value.
pub fn store_digests(digests: &Digests, stored: &mut Vec<u8>) {
    for (index, digest) in (0..).zip(digests) {
        if let Some(digest) = digest {
            stored.push(index);
            stored.extend_from_slice(digest);
        }
    }
}

/// Digests from their stored form. `None` if it is not one.
pub fn stored_digests(stored: &[u8]) -> Option<Digests> {
    let mut digests = [None; ERASABLE];
    for stored in stored.chunks(STORED_DIGEST_BYTES) {
        let (index, digest) = stored.split_first()?;
        let place = digests.get_mut(usize::from(*index))?;
        *place = Some(digest.try_into().ok()?);
    }
    Some(digests)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chained<'e>(facts: &'e str, digests: Digests) -> Chained<'e> {
        Chained {
            topic: "user.events",
            partition: 1,
            offset: 7,
            action: 11,
            occurred_at: DateTime::UNIX_EPOCH,
            recorded_at: DateTime::UNIX_EPOCH,
            event_id: "e-1",
            user_key: Some(Uuid::nil()),
            actor_key: None,
            role_key: None,
            permission_key: None,
            facts,
            digests,
        }
    }

    #[test]
    fn a_link_depends_on_all_that_it_covers() {
        let key = Key::of(Some(b"a key of the tests"));
        let entry = chained("{}", [Some([1; LINK_BYTES]), None, None]);
        let link = key.link(&BEGINNING, 1, &entry);
        assert_eq!(link, key.link(&BEGINNING, 1, &entry.clone()));
        let later = DateTime::from_timestamp_micros(1).unwrap();
        let changes: [fn(&mut Chained<'_>, DateTime<Utc>); 13] = [
            |entry, _| entry.topic = "user.event",
            |entry, _| entry.partition = 2,
            |entry, _| entry.offset = 8,
            |entry, _| entry.action = 12,
            |entry, later| entry.occurred_at = later,
            |entry, later| entry.recorded_at = later,
            |entry, _| entry.event_id = "e-2",
            |entry, _| entry.user_key = Some(Uuid::max()),
            |entry, _| entry.actor_key = Some(Uuid::max()),
            |entry, _| entry.role_key = Some(Uuid::max()),
            |entry, _| entry.permission_key = Some(Uuid::max()),
            |entry, _| entry.facts = "[]",
            // The same digest, of another value.
            |entry, _| entry.digests.swap(0, 1),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = entry.clone();
            change(&mut other, later);
            assert_ne!(link, key.link(&BEGINNING, 1, &other), "{index}");
        }
        assert_ne!(link, key.link(&[1; LINK_BYTES], 1, &entry));
        assert_ne!(link, key.link(&BEGINNING, 2, &entry));
        for other in [Key::NONE, Key::of(Some(b"another key"))] {
            assert_ne!(link, other.link(&BEGINNING, 1, &entry));
            assert_ne!(key.id(), other.id());
        }
        let follow = |version, sequence| key.follow(&link, version, sequence, &link);
        assert_ne!(follow(1, 2), follow(2, 1));
    }

    proptest! {
        #[test]
        fn erased_values_leave_the_digests_that_they_had(
            values: [Option<String>; ERASABLE],
            salt in 1_u8..255,
        ) {
            let values = [values[0].as_deref(), values[1].as_deref(), values[2].as_deref()];
            let count = values.iter().flatten().count();
            let salts = vec![salt; SALT_BYTES * count];
            let of_values = digests(values, &salts).unwrap();
            prop_assert_eq!(of_values.iter().flatten().count(), count);
            let mut stored = Vec::new();
            store_digests(&of_values, &mut stored);
            prop_assert_eq!(stored_digests(&stored), Some(of_values));
            prop_assert_eq!(digests(values, &[salts.as_slice(), &[0]].concat()), None);
        }

        #[test]
        fn any_bytes_are_read_as_digests_or_refused(stored: Vec<u8>) {
            let _ = stored_digests(&stored);
        }
    }
}
