//! The 16-byte hash under which strings of any length are indexed.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The first 16 bytes of the SHA-256 of `bytes`. Ids and keys are indexed by it, because Postgres
/// limits the size of an index entry.
pub fn hash16(bytes: &[u8]) -> Uuid {
    let digest = Sha256::digest(bytes);
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(first)
}
