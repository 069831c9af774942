//! What operators do, by gRPC and by REST: they list, retry and discard dead letters, and pause,
//! rebuild and switch views.
//!
//! Promises: a decision is stored in the database before the call returns; it holds for every
//! process and survives restarts.

mod dead_letters;
mod grpc;
mod handle;
mod projections;
mod rest;
mod retries;

pub use self::dead_letters::{DeadLetter, open_dead_letters};
pub use self::grpc::{SERVICE_NAME, service};
pub use self::handle::Operations;
pub use self::rest::{router, routes};
