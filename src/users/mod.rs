//! What the domains hold of one user, on both surfaces: `/v1/users` and `UserService`.
//!
//! Promises: the parts of an answer are from one snapshot, each with its position; what a domain holds, the domain itself says
//! ([`Domain::read_user`]).

mod grpc;
mod model;
mod queries;
mod rest;

use std::sync::Arc;

pub use self::grpc::{SERVICE_NAME, service};
pub use self::rest::routes;
use crate::domains::Domain;

/// The domains that this process serves, in their order.
type Served = Arc<[&'static dyn Domain]>;
