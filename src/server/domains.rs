//! Which domains exist, and which of them this process serves.

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
    /// Whether `name` is a domain that this process does not serve.
    pub(super) fn is_elsewhere(&self, name: &str) -> bool {
        self.known.contains(&name) && !self.served.contains(&name)
    }
}
