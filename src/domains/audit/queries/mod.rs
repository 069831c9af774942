//! The audit domain's queries, for both surfaces.

mod access;
mod alerts;
mod entries;

pub use access::{get_role, get_user_access, read_user, too_large};
pub use alerts::{AlertFilter, list_alerts};
pub use entries::{EntryFilter, EntryPosition, EntryWalk, list_entries};
