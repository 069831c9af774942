//! The answer of a query, the same for both surfaces.

use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

use super::status::ViewStatus;
use super::token::ConsistencyToken;
use crate::error::{
    Code, Error, Hint, INCOMPLETE_HEADER, LAG_SECONDS_HEADER, Metadata, STATE_HEADER, TOKEN_HEADER,
};

/// A body and what it reflects.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What the caller asked for.
    pub body: T,
    /// Sent in headers or in metadata, never in the body.
    pub position: Position,
}

impl<T> Answer<T> {
    /// The same position with another body.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            body: f(self.body),
            position: self.position,
        }
    }

    /// The same position with another body, if that can be made.
    ///
    /// # Errors
    /// That of `f`.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Answer<U>, E> {
        Ok(Answer {
            body: f(self.body)?,
            position: self.position,
        })
    }
}

impl<T: Serialize> Answer<Option<T>> {
    /// The same answer as JSON.
    ///
    /// # Errors
    /// INTERNAL: the body is not serializable.
    pub fn into_json(self) -> Result<Answer<Option<Value>>, Error> {
        Ok(Answer {
            body: self.body.map(serde_json::to_value).transpose()?,
            position: self.position,
        })
    }
}

/// What an answer reflects, and how far that can be relied on.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The next offset to apply of each partition that the answer depends on.
    pub token: ConsistencyToken,
    /// How these partitions were doing lately. `None` for an answer that is not from a view, and
    /// before this process has read any lag.
    pub status: Option<ViewStatus>,
    /// Whether the view has once been complete. Before that, nothing can be said to be absent.
    pub is_ready: bool,
    /// Whether the answer is about one user, and an event under that user's key is an open dead
    /// letter: it is missing from the answer.
    pub lacks_dead_letters: bool,
}

/// The position of an answer that is not from a view.
impl From<ConsistencyToken> for Position {
    fn from(token: ConsistencyToken) -> Self {
        Self {
            token,
            status: None,
            is_ready: true,
            lacks_dead_letters: false,
        }
    }
}

impl Position {
    /// What an answer reflects that is made from several views: no more than all of them do.
    pub fn of_all<'p>(positions: impl IntoIterator<Item = &'p Self>) -> Self {
        let mut all: Option<Self> = None;
        for position in positions {
            let Some(all) = &mut all else {
                all = Some(position.clone());
                continue;
            };
            all.token.lower(&position.token);
            all.status = all
                .status
                .zip(position.status)
                .map(|(one, other)| one.worst(other));
            all.is_ready &= position.is_ready;
            all.lacks_dead_letters |= position.lacks_dead_letters;
        }
        all.unwrap_or_else(|| ConsistencyToken::default().into())
    }

    /// The headers of REST and the metadata of gRPC that say it.
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Vec::new();
        // A part of a token would be one of fewer partitions.
        if self.token.fits() {
            metadata.push((TOKEN_HEADER, self.token.to_string()));
        }
        if let Some(status) = &self.status {
            metadata.push((STATE_HEADER, status.state.as_str().to_owned()));
            if let Some(seconds) = status.lag_seconds {
                // Rust prints the shortest decimal form: 0, 0.25, 12.5.
                let seconds = (seconds * 1_000.0).round() / 1_000.0;
                metadata.push((LAG_SECONDS_HEADER, seconds.to_string()));
            }
        }
        if self.lacks_dead_letters {
            metadata.push((INCOMPLETE_HEADER, "dead-letters".to_owned()));
        }
        metadata
    }

    /// The error for a thing (`user`) that the view does not contain: it may be absent only from a
    /// view that is not built yet.
    pub fn not_found(&self, what: &'static str) -> Error {
        match self.check_ready() {
            Ok(()) => Error::not_found(what).with_metadata(self.metadata()),
            Err(error) => error,
        }
    }

    /// Refuses an answer that says that something is absent, while the view is not ready.
    ///
    /// # Errors
    /// VIEW_NOT_READY.
    pub fn check_ready(&self) -> Result<(), Error> {
        if self.is_ready {
            return Ok(());
        }
        let state: &dyn Display = match &self.status {
            Some(status) => &status.state.as_str(),
            None => &"unknown",
        };
        let detail = format!(
            "The view has not been built up to the end of its topics yet, so what is missing may still come. \
             Its state is {state}."
        );
        let eta = self.status.as_ref().and_then(|status| status.eta);
        Err(Error::new(Code::ViewNotReady, detail)
            .with_hint(Hint::ReadStates)
            .with_retry_after(ViewStatus::retry_after(eta))
            .with_metadata(self.metadata()))
    }
}
