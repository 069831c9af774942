//! Pages of lists, after AIP-158: how many rows, and where they begin.
//!
//! A page token holds the place where the page before ended, and a hash of what was asked for: with other filters it
//! would mean other rows, so it is refused. It holds nothing secret, and what it holds is checked like any input.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Rows of a page where nobody says how many.
const DEFAULT_SIZE: i32 = 50;
/// The most rows of a page; who asks for more gets these.
const MAX_SIZE: i32 = 1_000;
/// No page token is longer than this, in characters.
const MAX_TOKEN_LENGTH: usize = 32 * 1024;
/// Bytes of the hash of what was asked for.
const HASH: usize = 8;

/// What a list is asked for beside its filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// The most rows to answer with; 0: as many as usual.
    pub size: i32,
    /// Empty for the first page.
    pub token: String,
}

/// A page of a list whose rows have places `P`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<P> {
    /// The most rows to answer with.
    pub size: usize,
    /// Where the page before ended; none for the first.
    pub after: Option<P>,
    hash: [u8; HASH],
}

impl<P: Serialize + DeserializeOwned> Page<P> {
    /// Which page a request asks for. `filters` are all that decides which rows the list has, and in what order,
    /// the list's name among them.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the size is negative; the token is none, or of a list with other filters.
    pub fn of(request: &PageRequest, filters: &impl Serialize) -> Result<Self, Error> {
        let size = match request.size {
            0 => DEFAULT_SIZE,
            size if size < 0 => return Err(Error::invalid("pageSize", "must not be negative")),
            size => size.min(MAX_SIZE),
        };
        let filters = serde_json::to_vec(filters)
            .map_err(|_| Error::internal("filters that can't be hashed"))?;
        let mut hash = [0; HASH];
        hash.copy_from_slice(&Sha256::digest(filters)[..HASH]);
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

    fn read(token: &str, hash: &[u8; HASH]) -> Result<P, Error> {
        let malformed = || Error::invalid("pageToken", "is not a token that this list has given");
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(malformed());
        }
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| malformed())?;
        let (of, place) = bytes.split_at_checked(HASH).ok_or_else(malformed)?;
        let place = serde_json::from_slice(place).map_err(|_| malformed())?;
        if of != hash {
            let problem = "is of a list with other filters: begin anew without it";
            return Err(Error::invalid("pageToken", problem));
        }
        Ok(place)
    }

    /// How many rows to read: one more than the page holds, which shows whether there is a next page.
    pub fn limit(&self) -> i64 {
        self.size as i64 + 1
    }

    /// Cuts rows that were read with [`limit`](Self::limit) down to the page. If more rows follow, returns the page's
    /// last row: the next page begins after its position.
    pub fn cut<'r, R>(&self, rows: &'r mut Vec<R>) -> Option<&'r R> {
        let has_more = rows.len() > self.size;
        rows.truncate(self.size);
        rows.last().filter(|_| has_more)
    }

    /// The token of the page behind `place`.
    ///
    /// # Errors
    /// INTERNAL: the place is no JSON.
    pub fn next(&self, place: &P) -> Result<String, Error> {
        let place =
            serde_json::to_vec(place).map_err(|_| Error::internal("a place that can't be told"))?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode([&self.hash[..], &place].concat()))
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
        fn a_token_leads_on_with_the_same_filters_only(place: (u8, String), filters: String) {
            let token = page(1, "", &filters).unwrap().next(&place).unwrap();
            prop_assert_eq!(page(2, &token, &filters).unwrap().after, Some(place));
            prop_assert!(page(1, &token, &(filters + "x")).is_err());
        }

        #[test]
        fn what_is_no_token_is_refused(token in ".{1,40}") {
            prop_assert!(page(1, &token, "").is_err());
        }
    }
}
