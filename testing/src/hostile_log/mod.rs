//! Random logs, as hostile as the contract allows: every envelope, wrapping, spelling and type, and records that
//! are bad in every way. The same seed gives the same log, but for the times of a few events, which happened in the
//! days before this process began.
//!
//! Users have few addresses and values come from small sets, so that difficult combinations occur often;
//! scenes make sure of the rest. Event times are not in the order of the log, and some are equal.
//!
//! All events of a user are on one partition, whatever their keys, because Kafka does not order partitions
//! among each other. Those about roles and permissions are also on the partitions of these, under their keys: no view but
//! audit's reads them. Failed logins that name no user carry other keys, or none. Redeliveries are younger than 80
//! days or older than 100: the limit of 90 days has a test of its own.

mod access;
mod addresses;
mod alarms;
mod bad_records;
mod changes;
mod envelopes;
mod events;
mod generator;
mod notifications;
mod people;
mod scenes;
mod values;

use crate::broker::Record;
use generator::Generator;

/// Larger values become dead letters: `SIGHTLINE_MAX_VALUE_BYTES` of the tests that use these logs.
pub const MAX_VALUE_BYTES: usize = 16_384;
/// No value is larger. Under this limit, [`generate_healing`]'s large records are good.
pub const HEALING_BYTES: usize = 65_536;

/// The size of a log.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub records: usize,
    pub partitions: i32,
    pub users: usize,
}

/// The seed of this run: `SIGHTLINE_TEST_SEED`, by default always the same. Prints it, for the output of
/// tests that fail.
pub fn seed() -> u64 {
    let seed = std::env::var("SIGHTLINE_TEST_SEED")
        .ok()
        .map(|seed| seed.parse().expect("a number"));
    let seed = seed.unwrap_or(20_261_001);
    println!("SIGHTLINE_TEST_SEED={seed}");
    seed
}

/// The records of a log, in an order in which they may be written.
pub fn generate(seed: u64, shape: Shape) -> Vec<Record> {
    Generator::new(seed, shape, false).run()
}

/// Like [`generate`], but records that are too large become good under [`HEALING_BYTES`]. When they are
/// retried does not affect the result: every user has a key and large records carry it, and an event id is
/// used again only under the same key. Of roles, assignments to users carry these users' keys.
pub fn generate_healing(seed: u64, shape: Shape) -> Vec<Record> {
    Generator::new(seed, shape, true).run()
}

/// Legal ids that HTTP, SQL or JSON code may handle wrongly.
pub fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "addr-uuid-789",
        "p1q2r3s4-t5u6-7890-1234-567890uvwxyz",
        "a/b/c",
        "/",
        "a b",
        " ",
        "100%",
        "%2F",
        "%00",
        "a%20b",
        "\u{1f980}\u{200d}\u{1f469}",
        "e\u{301}\u{e9}",
        "\u{202e}abc",
        "line\nbreak\ttab",
        "\u{7f}\u{1}",
        "quote\"'`\\",
        "';DROP TABLE customers;--",
        "?a=b&c=d#e",
        "a+b",
        ":batchGet",
        "null",
        "{id}",
        "~user@example.com",
        "\u{10ffff}",
    ]
    .map(String::from)
    .to_vec();
    ids.push("x".repeat(255));
    ids.push("\u{1f4e6}".repeat(255));
    ids
}
