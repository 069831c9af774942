//! The proof: everything here goes through the public surface (the binary, REST, gRPC, Kafka, the settings),
//! never through the inside. One binary, one file per concern; tests run side by side, each with its own topic,
//! group and database, wait on conditions with deadlines, and are never retried.

mod address_requests;
mod as_of;
mod breaker;
mod changes;
mod crashes;
mod dead_letters;
mod first_light;
mod folds;
mod holes;
mod openapi;
mod other_logs;
mod rebuilds;
mod requests;
mod starting;
mod support;
mod supports;
