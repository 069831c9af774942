//! Logs work that the database refuses again and again: once when that begins, and once when it ends.

use std::collections::BTreeSet;

use crate::db::{self, ErrorClass};

/// The work that was logged as failing: a domain or topic, and what is done for it.
#[derive(Default)]
pub struct Outages(BTreeSet<(String, &'static str)>);

impl Outages {
    /// Follows whether some work goes through, which is tried again and again. A transient error, such as a lock that another
    /// session holds, is no warning.
    pub fn follow(&mut self, of: &str, work: &'static str, outcome: &Result<(), sqlx::Error>) {
        let key = (of.to_owned(), work);
        match outcome {
            Ok(()) => {
                if self.0.remove(&key) {
                    tracing::info!(of, work, "work goes through again");
                }
            }
            Err(error) => {
                let is_transient = db::classify(error) == ErrorClass::Transient;
                let error = db::describe(error);
                if is_transient || !self.0.insert(key) {
                    tracing::debug!(of, work, error, "work failed");
                } else {
                    tracing::warn!(
                        of,
                        work,
                        error,
                        "work fails; trying again until it goes through"
                    );
                }
            }
        }
    }
}
