//! The surfaces of a process: gRPC, REST (HTTP/JSON), and the admin port, each on its own listener.
//!
//! The server names no domain: `app` passes the domains' routes and services in. The server adds
//! what every call shares: the layers in one fixed order ([`layers`]), lag, version, API docs,
//! health and reflection.

pub mod admin;
mod calls;
pub mod connections;
pub mod consistency;
mod docs;
mod domains;
pub mod grpc;
pub mod http;
pub mod layers;
pub mod openapi;
mod parameters;
mod surface;
mod version;
mod waits;

pub use domains::Domains;
pub use waits::Waits;

#[cfg(test)]
mod tests;
