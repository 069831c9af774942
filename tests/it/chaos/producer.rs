//! The producer: writes in bursts and trickles, with and without transactions, which commit, abort or are lost
//! with the broker, and sometimes writes the latest records again.
//!
//! The final comparison reads the records from the topic, so the outcome of a write does not matter here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer;
use sightline_testing::broker::{Record, Writer};
use tokio::time::sleep;

use super::harness::Harness;

const ANSWER: Duration = Duration::from_secs(30);

/// Writes the log at an even rate until `until`.
pub async fn run(harness: Arc<Harness>, log: Vec<Record>, mut rng: Rng, until: Instant) {
    let began = Instant::now();
    let plain = harness.world.broker.writer();
    let mut transactional = None;
    let mut written = 0;
    while written < log.len() && Instant::now() < until {
        let due = log.len() as f64 * began.elapsed().div_duration_f64(until - began);
        if written as f64 > due {
            sleep(Duration::from_millis(rng.u64(1..150))).await;
            continue;
        }
        let size = match rng.u32(0..20) {
            0 => rng.usize(300..1_500),
            1..6 => rng.usize(1..5),
            _ => rng.usize(5..80),
        };
        let some = &log[written..log.len().min(written + size)];
        written += some.len();
        match rng.u32(0..10) {
            0..6 => write(&harness, &plain, some).await,
            6..9 => {
                let ends = rng.bool();
                let outcome = transaction(&harness, &mut transactional, some, ends, &mut rng).await;
                if let Err(error) = outcome {
                    harness.diary.note(format!("a transaction failed: {error}"));
                    harness.diary.count("transactions lost", 1);
                    transactional = None;
                }
            }
            _ => {
                write(&harness, &plain, some).await;
                let again = rng.usize(1..=some.len().min(50));
                let again = &some[some.len() - again..];
                harness
                    .diary
                    .count("duplicates written", again.len() as u64);
                write(&harness, &plain, again).await;
            }
        }
    }
    harness
        .diary
        .note(format!("{written} records were written"));
}

async fn write(harness: &Harness, writer: &Writer, records: &[Record]) {
    if let Err(error) = writer.try_write(&harness.world.topic, records).await {
        harness.diary.note(format!("a write failed: {error}"));
    }
}

async fn transaction(
    harness: &Harness,
    writer: &mut Option<Writer>,
    records: &[Record],
    ends_well: bool,
    rng: &mut Rng,
) -> KafkaResult<()> {
    let writer = match writer {
        Some(writer) => writer,
        None => writer.insert(harness.world.broker.try_transactional_writer()?),
    };
    writer.producer.begin_transaction()?;
    writer.try_write(&harness.world.topic, records).await?;
    if rng.u32(0..8) == 0 {
        // Open transactions delay all records after them.
        sleep(Duration::from_millis(rng.u64(100..3_000))).await;
    }
    if ends_well {
        harness.diary.count("transactions committed", 1);
        retried(|| writer.producer.commit_transaction(ANSWER))
    } else {
        harness.diary.count("transactions aborted", 1);
        retried(|| writer.producer.abort_transaction(ANSWER))
    }
}

/// Repeats an operation until it succeeds or fails with an error that is not retriable.
fn retried(act: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        match act() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
            outcome => return outcome,
        }
    }
}
