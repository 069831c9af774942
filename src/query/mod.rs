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
pub mod status;
pub mod token;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::answer::{Answer, Position};
pub use self::ids::{check_id, distinct_ids};
pub use self::reads::Reads;
pub use self::token::ConsistencyToken;
use crate::error::Error;

/// How far an instant may lie ahead of this machine's clock: clocks of callers differ.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(1);

/// The instant at which a caller wants to see a view.
///
/// # Errors
/// INVALID_ARGUMENT: it lies ahead, and what will be true then is not known.
fn check_as_of(as_of: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    if as_of > Utc::now() + MAX_AHEAD {
        let problem = "lies more than a minute ahead: leave it out for the present";
        return Err(Error::invalid("asOf", problem));
    }
    Ok(as_of)
}

/// The largest request body of REST, and the largest message of gRPC, in bytes: 1,000 ids fit.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
