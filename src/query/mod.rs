//! What every read shares: the answer with its position, the handle to the database, checks of
//! parameters, paging, deadlines, the demanded consistency, and lag.
//!
//! Promises: rows and position come from one SQL statement; ids are opaque, and no error holds one.

pub mod answer;
pub mod consistency;
pub mod cursor;
pub mod deadline;
pub mod grpc;
pub mod ids;
pub mod lag;
pub mod page;
pub mod reads;
pub mod rest;
pub mod token;

pub use self::answer::Answer;
pub use self::ids::{check_id, distinct_ids};
pub use self::reads::Reads;
pub use self::token::ConsistencyToken;

/// The largest request body of REST, and the largest message of gRPC, in bytes: 1,000 ids fit.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
