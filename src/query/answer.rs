//! The answer of a query, the same for both surfaces.

use super::token::ConsistencyToken;

/// A body and the position that it reflects.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What the caller asked for.
    pub body: T,
    /// Sent in a header or in metadata, never in the body.
    pub token: ConsistencyToken,
}

impl<T> Answer<T> {
    /// The same position with another body.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            body: f(self.body),
            token: self.token,
        }
    }
}
