//! Who writes the log: in bursts and trickles, plainly and in transactions that commit, abort or are lost with the
//! broker, and sometimes what was written a moment ago once more.
//!
//! What the log holds in the end is read from it: nothing here needs to know what became of a write.

use super::stage::Stage;
use crate::support::broker::{Record, Writer};
use fastrand::Rng;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const ANSWER: Duration = Duration::from_secs(30);

/// Writes the log, about evenly until then.
pub async fn run(stage: Arc<Stage>, log: Vec<Record>, mut rng: Rng, until: Instant) {
    let began = Instant::now();
    let plain = stage.world.broker.writer();
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
            0..6 => write(&stage, &plain, some).await,
            6..9 => {
                let ends = rng.bool();
                let outcome = transaction(&stage, &mut transactional, some, ends, &mut rng).await;
                if let Err(error) = outcome {
                    stage.diary.note(format!("a transaction failed: {error}"));
                    stage.diary.count("transactions lost", 1);
                    transactional = None;
                }
            }
            _ => {
                write(&stage, &plain, some).await;
                let again = rng.usize(1..=some.len().min(50));
                let again = &some[some.len() - again..];
                stage.diary.count("duplicates written", again.len() as u64);
                write(&stage, &plain, again).await;
            }
        }
    }
    stage.diary.note(format!("{written} records were written"));
}

async fn write(stage: &Stage, writer: &Writer, records: &[Record]) {
    if let Err(error) = writer.try_write(&stage.world.topic, records).await {
        stage.diary.note(format!("a write failed: {error}"));
    }
}

async fn transaction(
    stage: &Stage,
    writer: &mut Option<Writer>,
    records: &[Record],
    ends_well: bool,
    rng: &mut Rng,
) -> KafkaResult<()> {
    let writer = match writer {
        Some(writer) => writer,
        None => writer.insert(stage.world.broker.try_transactional_writer()?),
    };
    writer.producer.begin_transaction()?;
    writer.try_write(&stage.world.topic, records).await?;
    if rng.u32(0..8) == 0 {
        // Everything behind it has to wait.
        sleep(Duration::from_millis(rng.u64(100..3_000))).await;
    }
    if ends_well {
        stage.diary.count("transactions committed", 1);
        retried(|| writer.producer.commit_transaction(ANSWER))
    } else {
        stage.diary.count("transactions aborted", 1);
        retried(|| writer.producer.abort_transaction(ANSWER))
    }
}

/// Until it goes through, or says that it never will.
fn retried(act: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        match act() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
            outcome => return outcome,
        }
    }
}
