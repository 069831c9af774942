//! What operators do, in both coats: dead letters are looked at, tried again and taken out (`dead_letters`); views are
//! paused, rebuilt and switched (`projections`).
//!
//! Promises: whatever is decided here is kept in the database before it is answered; it holds for every process, and
//! over restarts.

mod dead_letters;
mod grpc;
mod projections;
mod rest;

use std::sync::Arc;

use tokio::sync::Mutex;

pub use grpc::{SERVICE_NAME, service};
pub use rest::{router, routes};

use crate::error::Error;
use crate::projector::Projection;
use crate::projector::dead_letters::retry::Retrier;
use crate::query::Reads;
use crate::query::lag::{Lag, not_served, unknown_domain};

/// The longest reason that an operator may give, in characters.
const MAX_REASON: usize = 500;

/// The handle that operations go through. Cheap to clone.
#[derive(Clone)]
pub struct Operations(Arc<Inner>);

struct Inner {
    reads: Reads,
    lag: Lag,
    retrier: Retrier,
    served: Vec<&'static dyn Projection>,
    known: Vec<&'static str>,
    /// Held by whoever compares two versions.
    comparing: Mutex<()>,
}

impl Operations {
    /// Over the projections that this process serves, of all that there are (`known`).
    pub fn new(
        reads: Reads,
        lag: Lag,
        retrier: Retrier,
        served: Vec<&'static dyn Projection>,
        known: Vec<&'static str>,
    ) -> Self {
        Self(Arc::new(Inner {
            reads,
            lag,
            retrier,
            served,
            known,
            comparing: Mutex::default(),
        }))
    }

    fn served(&self) -> Vec<String> {
        let served = self.0.served.iter();
        served.map(|served| served.domain().to_owned()).collect()
    }

    /// The projection of a domain.
    ///
    /// # Errors
    /// NOT_FOUND: there is no such domain. DOMAIN_NOT_SERVED: not here.
    fn projection(&self, domain: &str) -> Result<&'static dyn Projection, Error> {
        let served = self
            .0
            .served
            .iter()
            .find(|served| served.domain() == domain);
        match served {
            Some(projection) => Ok(*projection),
            None if self.0.known.contains(&domain) => Err(not_served()),
            None => Err(unknown_domain()),
        }
    }
}

/// An operator's words, for those who come later.
///
/// # Errors
/// INVALID_ARGUMENT: they are too many, none, or no plain line.
fn check_reason(reason: &str) -> Result<(), Error> {
    if reason.trim().is_empty() {
        return Err(Error::invalid("reason", "must say why, in some words"));
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

/// Text that the database is asked about.
///
/// # Errors
/// INVALID_ARGUMENT: it can't be stored, and so can't be found.
fn check_text(field: &'static str, text: &str) -> Result<(), Error> {
    match text.contains('\0') {
        true => Err(Error::invalid(field, "must not hold a NUL")),
        false => Ok(()),
    }
}
