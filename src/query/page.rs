//! Pages of lists, after AIP-158: how many rows, and where they begin.
//!
//! A page token holds the position at which the previous page ended, and a hash of the list's
//! filters. A token with other filters is refused, because its position would mean other rows.
//! Tokens are neither secret nor trusted.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Rows of a page if the caller names no size.
const DEFAULT_SIZE: i32 = 50;
/// The most rows of a page; larger sizes are cut to it.
const MAX_SIZE: i32 = 1_000;
/// The longest page token, in characters.
const MAX_TOKEN_LENGTH: usize = 32 * 1024;
/// The length of the filters' hash, in bytes.
const HASH_LENGTH: usize = 8;

/// Which page of a list a caller asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// The most rows to return; 0 for the default.
    pub size: i32,
    /// Empty for the first page.
    pub token: String,
}

/// A page of a list whose order is given by positions `P`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<P> {
    /// The most rows to return.
    pub size: usize,
    /// Where the previous page ended; `None` for the first page.
    pub after: Option<P>,
    hash: [u8; HASH_LENGTH],
}

impl<P: Serialize + DeserializeOwned> Page<P> {
    /// The page that a request asks for. `filters` must hold everything that decides which rows the
    /// list has and in what order, including the name of the list.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the size is negative; the token is malformed, or is from a list with other
    /// filters.
    pub fn of(request: &PageRequest, filters: &impl Serialize) -> Result<Self, Error> {
        let size = match request.size {
            0 => DEFAULT_SIZE,
            size if size < 0 => return Err(Error::invalid("pageSize", "must not be negative")),
            size => size.min(MAX_SIZE),
        };
        let filters = serde_json::to_vec(filters)
            .map_err(|_| Error::internal("filters that are not serializable"))?;
        let mut hash = [0; HASH_LENGTH];
        hash.copy_from_slice(&Sha256::digest(filters)[..HASH_LENGTH]);
        let after = match request.token.as_str() {
            "" => None,
            token => Some(Self::read(token, &hash)?),
        };
        Ok(Self {
            size: size.unsigned_abs() as usize,
            after,
            hash,
        })
    }

    fn read(token: &str, hash: &[u8; HASH_LENGTH]) -> Result<P, Error> {
        let malformed = || Error::invalid("pageToken", "is not a token of this list");
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(malformed());
        }
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| malformed())?;
        let (token_hash, position) = bytes.split_at_checked(HASH_LENGTH).ok_or_else(malformed)?;
        let position = serde_json::from_slice(position).map_err(|_| malformed())?;
        if token_hash != hash {
            let problem = "is from a list with other filters: omit it to start from the first page";
            return Err(Error::invalid("pageToken", problem));
        }
        Ok(position)
    }

    /// How many rows to read: one more than the page holds, which shows whether there is a next
    /// page.
    pub fn limit(&self) -> i64 {
        self.size as i64 + 1
    }

    /// Cuts rows that were read with [`limit`](Self::limit) down to the page. If more rows follow,
    /// returns the page's last row: the next page begins after its position.
    pub fn cut<'r, R>(&self, rows: &'r mut Vec<R>) -> Option<&'r R> {
        let has_more = rows.len() > self.size;
        rows.truncate(self.size);
        rows.last().filter(|_| has_more)
    }

    /// The token of the page that begins after `position`.
    ///
    /// # Errors
    /// INTERNAL: the position is not serializable.
    pub fn next(&self, position: &P) -> Result<String, Error> {
        let position = serde_json::to_vec(position)
            .map_err(|_| Error::internal("a position that is not serializable"))?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode([&self.hash[..], &position].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(size: i32, token: &str, filters: &str) -> Result<Page<(u8, String)>, Error> {
        let token = token.to_owned();
        Page::of(&PageRequest { size, token }, &filters)
    }

    #[test]
    fn sizes_are_bounded() {
        for (asked, given) in [(0, 50), (1, 1), (1_000, 1_000), (i32::MAX, 1_000)] {
            assert_eq!(page(asked, "", "").unwrap().size, given);
        }
        let error = page(-1, "", "").unwrap_err();
        assert_eq!(error.fields()[0].field, "pageSize");
    }

    #[test]
    fn one_more_row_than_asked_for_announces_a_next_page() {
        let page = page(2, "", "").unwrap();
        assert_eq!(page.limit(), 3);
        for (read, kept, last) in [
            (vec![], vec![], None),
            (vec![7, 8], vec![7, 8], None),
            (vec![7, 8, 9], vec![7, 8], Some(&8)),
        ] {
            let mut rows = read;
            assert_eq!(page.cut(&mut rows), last);
            assert_eq!(rows, kept);
        }
    }

    proptest! {
        #[test]
        fn a_token_is_accepted_with_the_same_filters_only(position: (u8, String), filters: String) {
            let token = page(1, "", &filters).unwrap().next(&position).unwrap();
            prop_assert_eq!(page(2, &token, &filters).unwrap().after, Some(position));
            prop_assert!(page(1, &token, &(filters + "x")).is_err());
        }

        #[test]
        fn other_texts_are_refused(token in ".{1,40}") {
            prop_assert!(page(1, &token, "").is_err());
        }
    }
}
