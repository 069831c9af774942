//! x

pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod task;
pub mod telemetry;
