//! The handle that operations go through, and checks that several of them share.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::error::Error;
use crate::projector::Projection;
use crate::projector::dead_letters::REASONS;
use crate::projector::dead_letters::retry::Retrier;
use crate::query::Reads;
use crate::query::lag::{Lag, not_served, unknown_domain};

/// The longest reason that an operator may give, in characters.
const MAX_REASON: usize = 500;

/// The handle that operations go through. Cheap to clone.
#[derive(Clone)]
pub struct Operations(pub(super) Arc<OperationsInner>);

pub(super) struct OperationsInner {
    pub reads: Reads,
    pub lag: Lag,
    pub retrier: Retrier,
    served: Vec<&'static dyn Projection>,
    known: Vec<&'static str>,
    /// Locked during a comparison of two versions, so that only one runs at a time.
    pub comparing: Mutex<()>,
}

impl Operations {
    /// `served` are the projections that this process serves, `known` the names of all that exist.
    pub fn new(
        reads: Reads,
        lag: Lag,
        retrier: Retrier,
        served: Vec<&'static dyn Projection>,
        known: Vec<&'static str>,
    ) -> Self {
        Self(Arc::new(OperationsInner {
            reads,
            lag,
            retrier,
            served,
            known,
            comparing: Mutex::default(),
        }))
    }

    /// The names of the domains that this process serves.
    pub(super) fn served(&self) -> Vec<String> {
        let served = self.0.served.iter();
        served.map(|served| served.domain().to_owned()).collect()
    }

    /// The projection of a domain.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: no domain is named. NOT_FOUND: the domain does not exist. DOMAIN_NOT_SERVED: this process does not
    /// serve it.
    pub(super) fn projection(&self, domain: &str) -> Result<&'static dyn Projection, Error> {
        let served = self
            .0
            .served
            .iter()
            .find(|served| served.domain() == domain);
        match served {
            Some(projection) => Ok(*projection),
            None if domain.is_empty() => {
                let problem = format!("is missing; the domains are {}", self.0.known.join(", "));
                Err(Error::invalid("domain", problem))
            }
            None if self.0.known.contains(&domain) => Err(not_served()),
            None => Err(unknown_domain()),
        }
    }
}

/// Checks the Kafka key that a request gives in this field. An empty one is more likely a variable that was not set than the
/// empty key, whose dead letters are retried by their ids.
///
/// # Errors
/// INVALID_ARGUMENT: it is empty.
pub(super) fn non_empty_key(field: &str, key: Vec<u8>) -> Result<Vec<u8>, Error> {
    if key.is_empty() {
        return Err(Error::empty(field));
    }
    Ok(key)
}

/// Checks the reason that an operator gives for a decision.
///
/// # Errors
/// INVALID_ARGUMENT: it is blank, too long, or not a single line.
pub(super) fn check_reason(reason: &str) -> Result<(), Error> {
    if reason.trim().is_empty() {
        return Err(Error::invalid("reason", "must not be blank"));
    }
    if reason.chars().nth(MAX_REASON).is_some() {
        let problem = format!("must be at most {MAX_REASON} characters long");
        return Err(Error::invalid("reason", problem));
    }
    if reason.chars().any(char::is_control) {
        let problem = "must be one line, without control characters";
        return Err(Error::invalid("reason", problem));
    }
    Ok(())
}

/// Checks the reason by which a caller selects dead letters. A misspelled one would select none, which reads as if nothing
/// had failed.
///
/// # Errors
/// INVALID_ARGUMENT: this release makes no dead letters for such a reason.
pub(super) fn check_known_reason(reason: Option<&str>) -> Result<(), Error> {
    match reason {
        Some(reason) if !REASONS.contains(&reason) => {
            let problem = format!("must be one of {}", REASONS.join(", "));
            Err(Error::invalid("reason", problem))
        }
        _ => Ok(()),
    }
}
