//! x

pub mod config;
pub mod task;
pub mod telemetry;
