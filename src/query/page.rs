//! Pages of lists, after AIP-158: how many rows, and where they begin.
//!
//! A page ends early, after one row at least, where its answer would pass `MAX_RESPONSE_BYTES`; a
//! batch that would pass them is refused.
//!
//! A page token holds the position at which the previous page ended, and a hash of the list's
//! filters. A token with other filters is refused, because its position would mean other rows.
//! Tokens are neither secret nor trusted.

use std::io;

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
/// The most bytes of a page's or a batch's answer. gRPC clients refuse messages of more than 4 MiB by default.
const MAX_RESPONSE_BYTES: usize = 3 * 1024 * 1024;
/// The part of [`MAX_RESPONSE_BYTES`] that is left for the page token and for the names of the lists.
const ENVELOPE_BYTES: usize = MAX_TOKEN_LENGTH + 1024;
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

    /// Fills the page with rows that were read with [`limit`](Self::limit), each with its position. The page ends after
    /// [`size`](Self::size) rows, or before a row with which the answer would be too large. If more rows follow,
    /// returns the token of the next page as well.
    ///
    /// # Errors
    /// INTERNAL: a row or a position is not JSON.
    pub fn fill<R: Serialize>(
        &self,
        rows: impl IntoIterator<Item = (R, P)>,
    ) -> Result<(Vec<R>, Option<String>), Error> {
        self.fill_while(rows, |_| true)
    }

    /// Fills the page as [`fill`](Self::fill) does, up to half of an answer: the rest is for what the answer has beside it.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub fn fill_half<R: Serialize>(
        &self,
        rows: impl IntoIterator<Item = (R, P)>,
    ) -> Result<(Vec<R>, Option<String>), Error> {
        self.fill_while(rows, |size| !size.is_half_full())
    }

    fn fill_while<R: Serialize>(
        &self,
        rows: impl IntoIterator<Item = (R, P)>,
        has_room: impl Fn(&ResponseSize) -> bool,
    ) -> Result<(Vec<R>, Option<String>), Error> {
        let mut size = ResponseSize::default();
        let (mut filled, mut last) = (Vec::new(), None);
        for (row, position) in rows {
            let is_first = filled.is_empty();
            if filled.len() == self.size || !size.add(&row)? || !(is_first || has_room(&size)) {
                let token = last.map(|position| self.next(&position)).transpose()?;
                return Ok((filled, token));
            }
            filled.push(row);
            last = Some(position);
        }
        Ok((filled, None))
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

/// The size of an answer that is being put together, in bytes of JSON. Its protobuf form is not larger: there a field
/// has a number where JSON has a name, unless it is a `google.protobuf.Struct`.
#[derive(Debug, Default)]
pub struct ResponseSize {
    bytes: usize,
}

impl ResponseSize {
    /// The size of an answer of so many bytes.
    pub fn of(bytes: usize) -> Self {
        Self { bytes }
    }

    /// Adds a row, and returns whether the answer may hold it. It may always hold the first one, which can't be
    /// requested in a smaller answer.
    ///
    /// # Errors
    /// INTERNAL: the row is not JSON.
    pub fn add(&mut self, row: &impl Serialize) -> Result<bool, Error> {
        let is_first = self.bytes == 0;
        let mut count = Count(0);
        serde_json::to_writer(&mut count, row)?;
        let comma = 1;
        self.bytes += count.0 + comma;
        Ok(is_first || self.fits())
    }

    /// Whether one answer may hold all rows that were added, the first one included.
    pub fn fits(&self) -> bool {
        self.bytes <= MAX_RESPONSE_BYTES - ENVELOPE_BYTES
    }

    /// Whether less than half of an answer is left.
    pub fn is_half_full(&self) -> bool {
        self.bytes > MAX_RESPONSE_BYTES / 2
    }
}

/// Counts the bytes that are written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
            (vec![7, 8, 9], vec![7, 8], Some(8)),
        ] {
            let rows = read.into_iter().map(|n: u8| (n, (n, String::new())));
            let token = last.map(|n| page.next(&(n, String::new())).unwrap());
            assert_eq!(page.fill(rows).unwrap(), (kept, token));
        }
    }

    #[test]
    fn a_page_ends_before_it_is_too_large() {
        let page = page(0, "", "").unwrap();
        let fill = |lengths: &[usize]| {
            let rows = lengths.iter().zip(0..);
            let rows = rows.map(|(length, n)| ("x".repeat(*length), (n, String::new())));
            let (filled, token) = page.fill(rows).unwrap();
            let after = token.map(|token| self::page(0, &token, "").unwrap().after.unwrap().0);
            (filled.len(), after)
        };
        let quarter = (MAX_RESPONSE_BYTES - ENVELOPE_BYTES) / 4;
        assert_eq!(fill(&[quarter - 3; 4]), (4, None));
        assert_eq!(fill(&[quarter - 3; 5]), (4, Some(3)));
        assert_eq!(fill(&[quarter; 4]), (3, Some(2)));
        assert_eq!(fill(&[9 * quarter]), (1, None));
        assert_eq!(fill(&[9 * quarter, 1]), (1, Some(0)));
        assert_eq!(fill(&[1, 9 * quarter, 1]), (1, Some(0)));
    }

    #[test]
    fn a_page_may_leave_room_for_others() {
        let page = page(0, "", "").unwrap();
        let fill = |lengths: &[usize]| {
            let rows = lengths.iter().zip(0..);
            let rows = rows.map(|(length, n)| ("x".repeat(*length), (n, String::new())));
            let (filled, token) = page.fill_half(rows).unwrap();
            (filled.len(), token.is_some())
        };
        let quarter = MAX_RESPONSE_BYTES / 4;
        assert_eq!(fill(&[quarter - 3; 2]), (2, false));
        assert_eq!(fill(&[quarter - 3; 3]), (2, true));
        assert_eq!(fill(&[3 * quarter]), (1, false));
        assert_eq!(fill(&[3 * quarter, 1]), (1, true));
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
