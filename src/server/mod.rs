//! The coats: gRPC, HTTP/JSON, and the admin port apart from both.
//!
//! The server knows no domain: it is handed their routers and services, and adds what all share: the layers
//! in one stated order ([`layers`]), lag, docs, health, reflection. Listeners are bound by who calls.

pub mod admin;
pub mod connections;
pub mod consistency;
pub mod grpc;
pub mod http;
pub mod layers;
pub mod openapi;

/// Which domains there are, and which of them this process serves. The rest is refused as
/// `DOMAIN_NOT_SERVED`, so that a caller can tell a wrong address from a wrong path.
#[derive(Debug, Clone)]
pub struct Domains {
    /// The names of those that this process serves.
    pub served: Vec<&'static str>,
    /// The names of all that there are.
    pub known: Vec<&'static str>,
}

impl Domains {
    fn is_elsewhere(&self, name: &str) -> bool {
        self.known.contains(&name) && !self.served.contains(&name)
    }
}

#[cfg(test)]
mod tests;
