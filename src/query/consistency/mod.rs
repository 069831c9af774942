//! How current the caller demands its answer to be, the same way on every read: the headers (or metadata keys)
//! `Sightline-Consistency`, `Sightline-Consistency-Token`, `Sightline-Wait` and `Sightline-On-Timeout`.
//!
//! A read is run, and what it says that it reflects is compared with what is demanded. Where that is not met, the read waits
//! for the commits that it lacks, and is run again (`server/waits.rs`). So an answer is proved by the positions of its own
//! snapshot, whatever another process or a replica may have known before.
//!
//! A demand that can't be met is refused, never ignored: the caller would take an old answer for a current one.

mod demand;
mod obstacles;
mod targets;
mod tokens;

pub use self::demand::{Demand, Level, MAX_WAIT};
pub use self::obstacles::{
    Obstacles, Unmet, dead_lettered, kafka_unavailable, key_parked, partition_waits, stopped,
};
pub use self::targets::Targets;
pub use self::tokens::{compare, join};
