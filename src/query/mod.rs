//! What every read shares: the answer with its position, the handle to the database, checks of
//! parameters, paging, deadlines, the demanded consistency, and lag.
//!
//! Promises: an answer's rows and its position are of one snapshot, mostly by one statement (an
//! export's position is that of its first page); ids are opaque, and no error holds one.

pub mod answer;
pub mod consistency;
pub mod cursor;
pub mod deadline;
pub mod document;
pub mod event_lookups;
pub mod events;
pub mod gather;
pub mod grpc;
pub mod ids;
pub mod lag;
pub mod lookups;
pub mod page;
pub mod permit;
pub mod reads;
pub mod replicas;
pub mod rest;
pub mod seen;
pub mod status;
pub mod token;
pub mod users;
pub mod watch;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::answer::{Answer, Position};
pub use self::document::Document;
pub use self::ids::{check_id, distinct_ids, uuid};
pub use self::reads::{Reads, Work};
pub use self::seen::Subject;
pub use self::token::ConsistencyToken;
use crate::error::Error;

/// How far an instant may lie ahead of this machine's clock: clocks of callers differ.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(1);

/// An instant of a request, which lies in the past: the view as of a later one is not known.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field`: it lies ahead.
fn check_past(field: &str, instant: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    if instant > Utc::now() + MAX_AHEAD {
        let problem = "lies more than a minute ahead of the gateway's clock";
        return Err(Error::invalid(field, problem));
    }
    Ok(instant)
}

/// The one of a closed set that a request names.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field` and the words of all: it names none of them.
pub fn one_of<T: Copy, const N: usize>(
    field: &str,
    all: [T; N],
    word: impl Fn(T) -> &'static str,
    is_named: impl Fn(T) -> bool,
) -> Result<T, Error> {
    let named = all.into_iter().find(|one| is_named(*one));
    named.ok_or_else(|| Error::not_one_of(field, &all.map(word)))
}

/// The largest request body of REST, and the largest message of gRPC, in bytes: 1,000 ids fit.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
