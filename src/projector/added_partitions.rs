//! Partitions that were added to a topic later, and what each waits for, so that a key that moved to it stays in order.
//!
//! Producers learn of an added partition after a while, and write to the older ones until then. So an added partition waits
//! until the older ones are projected up to the log end offsets that they had at the first reading after the settle time.
//! Both are kept with the partition (`sightline.logs`): they hold for all domains and versions, those to come included.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::types::Json;

use super::Projector;
use super::outages::Outages;
use crate::db;
use crate::kafka::offsets::{PartitionOffsets, TopicState};

/// How long a comparison may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many readings have to agree that an older log ends before the offset that is waited for.
const END_READINGS: u32 = 3;
/// How far, in seconds, a time may lie ahead of the database's clock. Further ahead, the clock was set back.
const AHEAD_SECONDS: f64 = 2.0;

/// The offsets that older logs have to reach first, by log id.
type WaitsFor = Json<BTreeMap<String, i64>>;

/// A row of `sightline.logs`.
#[derive(Debug, Clone)]
struct LogRow {
    log_id: i32,
    partition: i32,
    topic_identity: String,
    /// The seconds since the partition was first seen, if it was added.
    added_age: Option<f64>,
    /// `None` until the settle time is over.
    waits_for: Option<WaitsFor>,
}

/// Records the partitions of a topic that are not known yet, and the topic's id once it is known. The first process that sees a
/// partition decides, once, whether it was there from the start or was added.
///
/// # Errors
/// The database failed.
pub async fn record(pool: &PgPool, topic: &str, state: &TopicState) -> Result<(), sqlx::Error> {
    let logs = read_logs(pool, topic, state).await?;
    if are_recorded(&logs, state) {
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    // One process at a time: of two that see different numbers of partitions, the second adds to what the first has seen.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('sightline.logs.' || $1, 0))",
        topic
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/identify_logs.sql",
        state.identity.cluster_id,
        topic,
        state.identity.stored(),
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/record_logs.sql",
        state.identity.cluster_id,
        topic,
        state.identity.stored(),
        state.partition_count,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

async fn read_logs(
    pool: &PgPool,
    topic: &str,
    state: &TopicState,
) -> Result<Vec<LogRow>, sqlx::Error> {
    sqlx::query_file_as!(
        LogRow,
        "src/projector/sql/topic_logs.sql",
        state.identity.cluster_id,
        topic,
        state.identity.stored(),
    )
    .fetch_all(pool)
    .await
}

/// Whether all partitions are recorded, with the topic's id if it is known.
fn are_recorded(logs: &[LogRow], state: &TopicState) -> bool {
    let is_recorded = |partition| {
        let mut recorded = logs.iter().filter(|log| log.partition == partition);
        recorded.any(|log| !state.identity.completes(&log.topic_identity))
    };
    (0..state.partition_count).all(is_recorded)
}

/// Records the partitions of all topics, and what added ones wait for, until the process stops. Paused domains don't matter
/// here, and a topic that can't be read does not hold up the others.
pub async fn run(projector: Projector) {
    let topics = projector
        .topics
        .iter()
        .map(|topic| run_topic(&projector, topic));
    futures_util::future::join_all(topics).await;
}

async fn run_topic(projector: &Projector, topic: &str) {
    let mut states = projector.topic_states.clone();
    let mut readings = Readings::default();
    let mut outages = Outages::default();
    loop {
        let state = states.borrow_and_update().as_ref().and_then(|states| {
            let state = states.get(topic)?;
            Some(Arc::clone(state))
        });
        if let Some(state) = state {
            let done = compare(projector, topic, &state, &mut readings);
            let done = db::within(DEADLINE, done);
            if let Some(done) = projector.stop.run_until_cancelled(done).await {
                outages.follow(topic, "recording partitions", &done);
            }
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = projector.stop.cancelled() => return,
        }
    }
}

/// Compares the recorded partitions of a topic with a reading of its offsets, and stores what follows.
async fn compare(
    projector: &Projector,
    topic: &str,
    state: &TopicState,
    readings: &mut Readings,
) -> Result<(), sqlx::Error> {
    let pool = &projector.pool;
    let logs = read_logs(pool, topic, state).await?;
    if !are_recorded(&logs, state) {
        return record(pool, topic, state).await;
    }
    for log in &logs {
        let Some(change) = readings.change(log, &logs, state, projector.settle) else {
            continue;
        };
        match change {
            Change::BeginAgain => {
                sqlx::query!(
                    "UPDATE sightline.logs SET added_at = clock_timestamp()
                     WHERE log_id = $1 AND waits_for IS NULL AND added_at > clock_timestamp()",
                    log.log_id
                )
                .execute(pool)
                .await?;
            }
            Change::Settle(ends) => {
                let done = sqlx::query!(
                    "UPDATE sightline.logs SET waits_for = $2 WHERE log_id = $1 AND waits_for IS NULL",
                    log.log_id,
                    Json(ends) as _,
                )
                .execute(pool)
                .await?;
                if done.rows_affected() > 0 {
                    tracing::info!(
                        topic,
                        partition = log.partition,
                        "the settle time of an added partition is over: it waits until the older ones reach their present log end offsets"
                    );
                }
            }
            Change::Shorten(ends) => {
                sqlx::query!(
                    "UPDATE sightline.logs SET waits_for = waits_for || $2 WHERE log_id = $1",
                    log.log_id,
                    Json(ends) as _,
                )
                .execute(pool)
                .await?;
                tracing::warn!(
                    topic,
                    partition = log.partition,
                    "older partitions have lost records that an added one waits for: it waits for what is left"
                );
            }
        }
    }
    Ok(())
}

/// What a reading changes in the row of an added log.
#[derive(Debug, PartialEq)]
enum Change {
    /// The database's clock was set back: the settle time begins again.
    BeginAgain,
    /// The settle time is over: these log end offsets are waited for, by log id.
    Settle(BTreeMap<String, i64>),
    /// Logs are shorter than what is waited for: these are their log end offsets.
    Shorten(BTreeMap<String, i64>),
}

/// What this process remembers of readings from one to the next.
#[derive(Debug, Default)]
struct Readings {
    /// When this process learned from the database that a log's settle time is over, by log id. Only readings that began
    /// later count, however long the answer took.
    settled: HashMap<i32, Instant>,
    /// In how many readings in a row an older log was too short, and when the last one began, by the ids of both logs.
    shorter: HashMap<(i32, i32), (u32, Instant)>,
}

impl Readings {
    /// What a reading changes for a log, given all logs of its topic.
    fn change(
        &mut self,
        log: &LogRow,
        logs: &[LogRow],
        state: &TopicState,
        settle: Duration,
    ) -> Option<Change> {
        let age = log.added_age?;
        if let Some(Json(waits_for)) = &log.waits_for {
            self.settled.remove(&log.log_id);
            return self.lost_tails(log.log_id, waits_for, logs, state);
        }
        if age < settle.as_secs_f64() {
            self.settled.remove(&log.log_id);
            return (age < -AHEAD_SECONDS).then_some(Change::BeginAgain);
        }
        let since = *self.settled.entry(log.log_id).or_insert_with(Instant::now);
        let older = logs.iter().filter(|older| older.partition < log.partition);
        // An older partition without a new reading, for want of a leader perhaps: wait for the next one.
        let ends = older.map(|older| {
            let offsets = offsets_since(state, older.partition, since)?;
            Some((older.log_id.to_string(), offsets.log_end))
        });
        ends.collect::<Option<_>>().map(Change::Settle)
    }

    /// The older logs that have lost records which are waited for. They could not reach that offset.
    fn lost_tails(
        &mut self,
        log_id: i32,
        waits_for: &BTreeMap<String, i64>,
        logs: &[LogRow],
        state: &TopicState,
    ) -> Option<Change> {
        let mut ends = BTreeMap::new();
        for older in logs {
            let id = older.log_id.to_string();
            let Some(until) = waits_for.get(&id) else {
                continue;
            };
            let (readings, last) = self
                .shorter
                .entry((log_id, older.log_id))
                .or_insert_with(|| (0, Instant::now()));
            // A reading that began earlier may be older than the offset that is waited for.
            let Some(offsets) = offsets_since(state, older.partition, *last) else {
                continue;
            };
            *last = offsets.asked;
            *readings = if offsets.log_end < *until {
                *readings + 1
            } else {
                0
            };
            if *readings >= END_READINGS {
                ends.insert(id, offsets.log_end);
            }
        }
        (!ends.is_empty()).then_some(Change::Shorten(ends))
    }
}

/// A partition's offsets, if they were asked for after `since`.
fn offsets_since(state: &TopicState, partition: i32, since: Instant) -> Option<PartitionOffsets> {
    let offsets = state.offsets.get(&partition)?;
    (offsets.asked > since).then_some(*offsets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::offsets::TopicIdentity;

    const SETTLE: Duration = Duration::from_secs(600);

    /// A reading of these log end offsets, by partition, each asked for so many seconds after `began`.
    fn reading(began: Instant, ends: &[(i32, i64, u64)]) -> TopicState {
        let offsets = ends.iter().map(|(partition, end, after)| {
            let offsets = PartitionOffsets {
                log_start: 0,
                last_stable: *end,
                log_end: *end,
                asked: began + Duration::from_secs(*after),
            };
            (*partition, offsets)
        });
        TopicState {
            identity: TopicIdentity {
                cluster_id: "c".to_owned(),
                topic_id: Some("t".to_owned()),
            },
            partition_count: 4,
            offsets: offsets.collect(),
        }
    }

    /// Logs 10 and 11 of partitions 0 and 1, which were there from the start; 12 and 13 were added so many seconds ago.
    fn logs(added: [f64; 2]) -> Vec<LogRow> {
        [None, None, Some(added[0]), Some(added[1])]
            .into_iter()
            .zip(0..)
            .map(|(added_age, partition)| LogRow {
                log_id: 10 + partition,
                topic_identity: "t".to_owned(),
                partition,
                added_age,
                waits_for: None,
            })
            .collect()
    }

    fn waits_for(ends: &[(i32, i64)]) -> BTreeMap<String, i64> {
        let ends = ends.iter().map(|(log_id, end)| (log_id.to_string(), *end));
        ends.collect()
    }

    #[test]
    fn a_partition_settles_at_the_first_whole_reading_after_the_settle_time() {
        let settle = |ends: &[(i32, i64)]| Some(Change::Settle(waits_for(ends)));
        let at_once = Duration::ZERO;
        let all = [(0, 100, 1), (1, 50, 1), (2, 7, 1), (3, 0, 1)];
        // What it says; settle time; ages of partitions 2 and 3; end and age of each partition's reading; changes.
        type Case<'a> = (
            &'a str,
            Duration,
            [f64; 2],
            &'a [(i32, i64, u64)],
            [Option<Change>; 2],
        );
        let cases: [Case<'_>; 8] = [
            (
                "before the settle time",
                SETTLE,
                [599.9, 0.1],
                &all,
                [None, None],
            ),
            (
                "each waits for all that are older, one that was added before it included",
                SETTLE,
                [700.0, 600.0],
                &all,
                [
                    settle(&[(10, 100), (11, 50)]),
                    settle(&[(10, 100), (11, 50), (12, 7)]),
                ],
            ),
            (
                "each has a settle time of its own",
                SETTLE,
                [700.0, 10.0],
                &all,
                [settle(&[(10, 100), (11, 50)]), None],
            ),
            (
                "no settle time",
                at_once,
                [0.0, 0.0],
                &all,
                [
                    settle(&[(10, 100), (11, 50)]),
                    settle(&[(10, 100), (11, 50), (12, 7)]),
                ],
            ),
            (
                "an older partition has no leader, and its offsets are from before",
                SETTLE,
                [700.0, 700.0],
                &[(0, 100, 1), (1, 50, 0), (2, 7, 1), (3, 0, 1)],
                [None, None],
            ),
            (
                "an older partition was never read",
                at_once,
                [1.0, 1.0],
                &[(0, 100, 1), (1, 50, 1), (3, 0, 1)],
                [settle(&[(10, 100), (11, 50)]), None],
            ),
            (
                "the clock was set back by a little",
                SETTLE,
                [-1.9, -0.1],
                &all,
                [None, None],
            ),
            (
                "the clock was set back by more",
                SETTLE,
                [-2.1, -86_400.0],
                &all,
                [Some(Change::BeginAgain), Some(Change::BeginAgain)],
            ),
        ];
        for (what, settle, ages, ends, expected) in cases {
            let (logs, mut readings) = (logs(ages), Readings::default());
            let began = Instant::now();
            // The reading at hand when the time is over began before that.
            let before: Vec<_> = all.iter().map(|(p, end, _)| (*p, *end, 0)).collect();
            let mut changes = |ends| {
                let state = reading(began, ends);
                [2, 3].map(|added: usize| readings.change(&logs[added], &logs, &state, settle))
            };
            let early = changes(&before);
            let is_settled = |change: &Option<Change>| matches!(change, Some(Change::Settle(_)));
            assert!(!early.iter().any(is_settled), "{what}: {early:?}");
            assert_eq!(changes(ends), expected, "{what}");
        }
    }

    #[test]
    fn a_log_that_is_too_short_in_three_readings_is_not_waited_for_further() {
        // The ends of log 10 in successive readings, each with the seconds after which it began; the last one's change.
        for (ends, expected) in [
            (&[(60, 1), (60, 2), (60, 3)][..], Some(60)),
            (&[(60, 1), (55, 2), (58, 3)], Some(58)),
            (&[(60, 1), (60, 2)], None),
            // The same reading three times is one.
            (&[(60, 1), (60, 1), (60, 1)], None),
            // A leader that had not caught up.
            (&[(60, 1), (60, 2), (100, 3), (60, 4)], None),
            (&[(100, 1), (120, 2), (130, 3)], None),
        ] {
            let mut logs = logs([700.0, 1.0]);
            logs[2].waits_for = Some(Json(waits_for(&[(10, 100), (11, 50)])));
            let (mut readings, mut last) = (Readings::default(), None);
            // The first comparison comes with a reading from before: it does not count.
            let began = Instant::now();
            readings.change(&logs[2], &logs, &reading(began, &[(0, 0, 0)]), SETTLE);
            for (end, after) in ends {
                let state = reading(began, &[(0, *end, *after), (1, 50, *after)]);
                last = readings.change(&logs[2], &logs, &state, SETTLE);
            }
            let expected = expected.map(|end| Change::Shorten(waits_for(&[(10, end)])));
            assert_eq!(last, expected, "{ends:?}");
        }
    }
}
