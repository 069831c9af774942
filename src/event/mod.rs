//! Reads events: from the bytes of a Kafka record to an [`Event`] with one meaning.
//!
//! The contract is `docs/events.md`: five envelope dialects, several spellings of each type, two
//! shapes of `updatedFields`. Reading does no I/O, never panics, and bounds its recursion, whatever
//! the bytes are. Every domain gets the same event from the same record. A [`Bad`] holds a reason
//! and a field name, never data of the record.
//!
//! A record is read in three steps, because it is judged in that order: [`Envelope::read`] finds
//! the type, [`Envelope::event_id`] the id, and [`Envelope::decode`] reads and checks the rest.
//! What the payload holds, or a field that no step reads, never decides over an earlier step.
//! Callers handle tombstones and oversized values before the first step.

mod address;
mod bad;
mod catalogue;
mod changes;
mod dialect;
mod envelope;
mod fields;
mod hash;
mod json;
mod record;
pub mod text;
pub mod time;
mod type_name;
mod versions;
mod wrapping;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use bad::Bad;
pub use catalogue::*;
pub use changes::{Change, Changes, FieldChange};
pub use envelope::{Envelope, Event};
pub use hash::hash16;
pub use record::Record;
pub use type_name::TypeName;
