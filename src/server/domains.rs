//! Which domains exist, and which of them this process serves.

use crate::error::Error;
use crate::query::lag::{not_served, unknown_domain};

/// The domains that exist and those that this process serves. A call for a domain that another
/// process serves fails with `DOMAIN_NOT_SERVED`, so that callers can distinguish a wrong address
/// from a wrong path.
#[derive(Debug, Clone)]
pub struct Domains {
    /// The names of the domains that this process serves.
    pub served: Vec<&'static str>,
    /// The names of all domains.
    pub known: Vec<&'static str>,
}

impl Domains {
    /// The domains of a request; all that this process serves if it names none.
    ///
    /// # Errors
    /// NOT_FOUND: one does not exist. DOMAIN_NOT_SERVED: this process does not serve one.
    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<&'static str>, Error> {
        if names.is_empty() {
            return Ok(self.served.clone());
        }
        let mut chosen = Vec::new();
        for name in names {
            if !self.known.iter().any(|known| known == name) {
                return Err(unknown_domain());
            }
            let mut served = self.served.iter();
            let served = served
                .find(|served| *served == name)
                .ok_or_else(not_served)?;
            if !chosen.contains(served) {
                chosen.push(*served);
            }
        }
        Ok(chosen)
    }

    /// Whether `name` is a domain that this process does not serve.
    pub(super) fn is_elsewhere(&self, name: &str) -> bool {
        self.known.contains(&name) && !self.served.contains(&name)
    }
}
