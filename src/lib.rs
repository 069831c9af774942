//! sightline projects user events from Kafka into a Postgres read model for each domain, and serves
//! these read models over gRPC and REST. docs/architecture.md describes how the modules below fit
//! together.

// They panic when nothing reads the output any more: see `output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod app;
pub mod cli;
mod client;
pub mod config;
pub mod db;
#[cfg(feature = "dev")]
pub mod dev;
pub mod domains;
pub mod error;
pub mod event;
pub mod fold;
pub mod kafka;
pub mod operations;
pub mod output;
pub mod projector;
pub mod proto;
pub mod query;
pub mod server;
pub mod task;
pub mod telemetry;
pub mod users;
