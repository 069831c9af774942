//! What a demand means in logs and offsets, and whether an answer meets it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::demand::{Level, Reference, TOKEN};
use super::obstacles::{Obstacles, Unmet, kafka_unavailable, partition_waits};
use crate::error::{Code, Error, Hint};
use crate::kafka::ends::Ends;
use crate::projector::announcements::Announcements;
use crate::query::deadline;
use crate::query::event_lookups::EventStatus;
use crate::query::reads::{FoundLog, Reads};
use crate::query::seen::Seen;
use crate::query::token::{ConsistencyToken, IncarnationHash, TopicRef};

/// How long Kafka is asked for the ends at least, also for a caller that does not wait: unless it is away, it answers sooner.
const LEAST_TIME: Duration = Duration::from_millis(200);

/// What an answer must not be older than, in logs and offsets.
#[derive(Debug, Default)]
pub struct Targets {
    /// Positions that must be reached whatever the answer depends on: tokens of one partition.
    records: Vec<Record>,
    /// Positions that must be reached in the logs that the answer depends on, by log.
    positions: BTreeMap<i32, i64>,
    /// Events that no domain of this process had seen when they were looked up last, by their ids.
    unseen: Vec<String>,
    /// How old the answer may be.
    max_lag: Option<Duration>,
    /// When `positions` were read from Kafka; `None` where they are from tokens.
    asked: Option<Instant>,
    /// Until when the caller waits.
    until: Option<Instant>,
}

/// The position behind a record, or of a token of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    /// The domain that has to reach it; `None` for all.
    domain: Option<&'static str>,
    log_id: i32,
    next_offset: i64,
    /// Whether it is that of a record, which may be a dead letter.
    is_record: bool,
}

impl Record {
    fn is_of(&self, domain: &str) -> bool {
        self.domain.is_none_or(|of| of == domain)
    }
}

/// How far views were known to be before a read: by domain and log.
pub type Reached = HashMap<(String, i32), i64>;

impl Targets {
    /// What a level means now, to a caller that waits until then.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: a token is of another cluster, of a topic that is not projected, or of one that no longer exists.
    /// KAFKA_UNAVAILABLE: the end of the log can't be read. The database failed.
    pub async fn of(reads: &Reads, level: &Level, until: Instant) -> Result<Self, Error> {
        let mut targets = Self {
            until: Some(until),
            ..Self::default()
        };
        match level {
            Level::Eventual => {}
            Level::AtLeast(references) => {
                for reference in references {
                    match reference {
                        Reference::Token(token) => targets.add_token(reads, token).await?,
                        Reference::Event(id) => targets.unseen.push(id.clone()),
                    }
                }
            }
            Level::Latest => targets.read_ends(reads).await?,
            Level::MaxLag(most) => targets.max_lag = Some(*most),
        }
        Ok(targets)
    }

    async fn add_token(&mut self, reads: &Reads, token: &ConsistencyToken) -> Result<(), Error> {
        let is_of_one = token.iter().count() == 1;
        for (topic, partition, next_offset) in token.iter() {
            let log_id = resolve(reads, TOKEN, topic, partition).await?;
            // No log has an offset that does not fit: such a position is never reached.
            let next_offset = i64::try_from(next_offset).unwrap_or(i64::MAX);
            if is_of_one {
                self.records.push(Record {
                    domain: None,
                    log_id,
                    next_offset,
                    is_record: topic.identity.is_none(),
                });
            } else {
                let position = self.positions.entry(log_id).or_default();
                *position = next_offset.max(*position);
            }
        }
        Ok(())
    }

    /// Demands what the logs hold now. The reading is shared: it goes on for others when this caller has waited long enough.
    async fn read_ends(&mut self, reads: &Reads) -> Result<(), Error> {
        let wait = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let time = time_for_ends(wait.unwrap_or_default(), deadline::left());
        let ends = match reads.ends() {
            Some(ends) => timeout(time, ends.read()).await.ok().flatten(),
            None => None,
        };
        let ends = ends.ok_or_else(kafka_unavailable)?;
        self.positions = positions(reads, &ends).await?;
        self.asked = Some(ends.asked);
        Ok(())
    }

    /// The logs whose positions have to be known before a read, because its answer need not depend on them. Where an age is
    /// demanded, the ends may be read only after the read: any log may be one of these.
    pub fn reached(&self, announcements: &Announcements, domains: &[&str]) -> Reached {
        let mut reached = Reached::new();
        for domain in domains {
            let known: Vec<(i32, i64)> = if self.is_by_age() {
                announcements.all_reached(domain)
            } else {
                let logs = self.records.iter().map(|record| record.log_id);
                let logs = logs.chain(self.positions.keys().copied());
                logs.filter_map(|log_id| Some((log_id, announcements.reached(domain, log_id)?)))
                    .collect()
            };
            for (log_id, position) in known {
                reached.insert(((*domain).to_owned(), log_id), position);
            }
        }
        reached
    }

    /// The records that a view is not known to have reached: no read of it can meet the demand.
    pub fn known_unmet(&self, domain: &str, reached: &Reached) -> Vec<Unmet> {
        let unmet = self.records_of(domain).filter(|record| {
            let position = reached.get(&(domain.to_owned(), record.log_id));
            position.is_some_and(|position| *position < record.next_offset)
        });
        let unmet = unmet.map(|record| Unmet {
            domain: domain.to_owned(),
            log_id: record.log_id,
            next_offset: record.next_offset,
            is_record: record.is_record,
        });
        unmet.collect()
    }

    fn records_of<'t>(&'t self, domain: &'t str) -> impl Iterator<Item = &'t Record> {
        self.records
            .iter()
            .filter(move |record| record.is_of(domain))
    }

    /// Whether the caller demands an answer that is not older than some time. No replica can show that of its answer.
    pub fn is_by_age(&self) -> bool {
        self.max_lag.is_some()
    }

    /// Whether events are still to be found.
    pub fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Looks the events up that were not found yet. Where one is not applied, its record's position becomes a target.
    ///
    /// # Errors
    /// The database failed.
    pub async fn find_events(&mut self, reads: &Reads) -> Result<(), Error> {
        let mut unseen = Vec::new();
        for id in std::mem::take(&mut self.unseen) {
            let Some(outcomes) = reads.event_lookups().find(&id).await? else {
                unseen.push(id);
                continue;
            };
            let is_open =
                |status| matches!(status, EventStatus::Pending | EventStatus::DeadLettered);
            for outcome in outcomes
                .into_iter()
                .filter(|outcome| is_open(outcome.status))
            {
                self.records.push(Record {
                    domain: Some(outcome.domain),
                    log_id: outcome.log_id,
                    next_offset: outcome.offset.saturating_add(1),
                    is_record: true,
                });
            }
        }
        self.unseen = unseen;
        Ok(())
    }

    /// What an answer lacks of the demand. `reached` was noted before the read.
    ///
    /// # Errors
    /// KAFKA_UNAVAILABLE: the end of the log can't be read. The database failed.
    pub async fn unmet(
        &mut self,
        reads: &Reads,
        seen: &[Seen],
        reached: &Reached,
    ) -> Result<Vec<Unmet>, Error> {
        if let Some(most) = self.max_lag {
            if seen.iter().all(|seen| is_within(reads, seen, most)) {
                return Ok(Vec::new());
            }
            let is_current = |asked: Instant| asked.elapsed() <= most;
            if !self.asked.is_some_and(is_current) {
                self.read_ends(reads).await?;
            }
        }
        Ok(self.compare(seen, reached))
    }

    fn compare(&self, seen: &[Seen], reached: &Reached) -> Vec<Unmet> {
        let mut unmet = BTreeSet::new();
        for seen in seen {
            let mut lacks = |log_id, next_offset, is_record| {
                unmet.insert(Unmet {
                    domain: seen.domain.clone(),
                    log_id,
                    next_offset,
                    is_record,
                });
            };
            let known = |log_id| reached.get(&(seen.domain.clone(), log_id)).copied();
            for record in self.records_of(&seen.domain) {
                let position = position_in(seen, record.log_id).or_else(|| known(record.log_id));
                if position.is_none_or(|position| position < record.next_offset) {
                    lacks(record.log_id, record.next_offset, record.is_record);
                }
            }
            for (log_id, next_offset) in &self.positions {
                let is_reached = match position_in(seen, *log_id) {
                    Some(position) => position >= *next_offset,
                    // An answer from one log depends on that alone, unless the topic has grown.
                    None => seen.logs.len() == 1 && known(*log_id).is_some(),
                };
                if !is_reached && *next_offset > 0 {
                    lacks(*log_id, *next_offset, false);
                }
            }
        }
        unmet.into_iter().collect()
    }

    /// Refuses an answer that reaches what is demanded, but lacks something on its way. Returns the number of parked keys,
    /// where the answer depends on many.
    ///
    /// # Errors
    /// DEAD_LETTERED, KEY_PARKED. The database failed.
    pub async fn check_dead_letters(
        &self,
        obstacles: &Obstacles,
        seen: &[Seen],
    ) -> Result<Option<i64>, Error> {
        let mut parked = None;
        for seen in seen {
            for record in self
                .records_of(&seen.domain)
                .filter(|record| record.is_record)
            {
                let checked =
                    obstacles.check_record(&seen.domain, record.log_id, record.next_offset);
                checked.await?;
            }
            if seen.subject.depends_on_many() {
                let keys = obstacles.parked_keys(&seen.domain).await?;
                *parked.get_or_insert(0) += keys;
            }
        }
        Ok(parked)
    }
}

/// How long a call waits for the ends if it may wait for `wait` for the view, and `left` is the time until its deadline.
fn time_for_ends(wait: Duration, left: Duration) -> Duration {
    // Where little more than the margin is left, half of it is for Kafka, so that it is asked at all, and half for the answer.
    let most = left.saturating_sub(deadline::MARGIN).max(left / 2);
    most.min(wait.max(LEAST_TIME))
}

fn position_in(seen: &Seen, log_id: i32) -> Option<i64> {
    let mut logs = seen.logs.iter();
    logs.find(|(log, _)| *log == log_id)
        .map(|(_, position)| *position)
}

/// Whether the last reading of the lag says that an answer is young enough.
fn is_within(reads: &Reads, seen: &Seen, most: Duration) -> bool {
    let logs: Vec<i32> = seen.logs.iter().map(|(log_id, _)| *log_id).collect();
    let bound = reads.with_statuses(|statuses| statuses.lag_bound(&seen.domain, &logs));
    bound.is_some_and(|bound| bound <= most)
}

/// The log of a partition of a token.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field`: it is foreign or outdated. PARTITION_WAITS: it was added a moment
/// ago. The database failed.
pub(super) async fn resolve(
    reads: &Reads,
    field: &str,
    topic: &TopicRef,
    partition: u32,
) -> Result<i32, Error> {
    let problem = match reads.log(topic, partition).await? {
        FoundLog::Known(log_id) => return Ok(log_id),
        FoundLog::NoTopic => "names a topic that this gateway does not project",
        FoundLog::Outdated => {
            "is outdated: its topic was deleted and created again since. Read without it"
        }
        FoundLog::Foreign => "is of another Kafka cluster, or of another topic of this name",
        FoundLog::NoPartition => {
            let known = reads.ends().and_then(|ends| ends.topic(&topic.topic));
            let exists =
                known.is_some_and(|state| i64::from(partition) < state.partition_count.into());
            if exists {
                return Err(partition_waits(None));
            }
            "names a partition that its topic does not have"
        }
    };
    Err(Error::invalid(field, problem))
}

/// The ends of all logs by their ids.
async fn positions(reads: &Reads, ends: &Arc<Ends>) -> Result<BTreeMap<i32, i64>, Error> {
    let mut positions = BTreeMap::new();
    for (name, topic) in &ends.topics {
        let identity = &topic.state.identity;
        let topic_ref = TopicRef {
            topic: name.clone(),
            identity: Some(IncarnationHash::of(&identity.cluster_id, identity.stored())),
        };
        for partition in 0..topic.state.partition_count {
            // A broker that does not answer may hold anything.
            let Some(end) = topic.ends.get(&partition) else {
                return Err(kafka_unavailable());
            };
            match reads.log(&topic_ref, partition.unsigned_abs()).await? {
                FoundLog::Known(log_id) => {
                    positions.insert(log_id, *end);
                }
                _ if *end == 0 => {}
                FoundLog::NoPartition => return Err(partition_waits(None)),
                FoundLog::NoTopic | FoundLog::Outdated | FoundLog::Foreign => {
                    let detail =
                        "The topic was created or replaced a moment ago, and is not projected yet.";
                    return Err(Error::new(Code::ViewNotReady, detail)
                        .with_hint(Hint::ReadStates)
                        .with_retry_after(Duration::from_secs(5)));
                }
            }
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::seen::Subject;

    fn seen(logs: &[(i32, i64)]) -> Seen {
        Seen {
            domain: "order".into(),
            logs: logs.to_vec(),
            subject: Subject::Many,
            position: ConsistencyToken::default().into(),
        }
    }

    fn reached(logs: &[(i32, i64)]) -> Reached {
        let logs = logs.iter();
        logs.map(|(log_id, position)| (("order".to_owned(), *log_id), *position))
            .collect()
    }

    /// The logs that an answer lacks.
    fn lacks(targets: &Targets, logs: &[(i32, i64)], known: &[(i32, i64)]) -> Vec<i32> {
        let unmet = targets.compare(&[seen(logs)], &reached(known));
        unmet.into_iter().map(|unmet| unmet.log_id).collect()
    }

    const NOTHING: [i32; 0] = [];

    #[test]
    fn a_record_is_waited_for_whatever_the_answer_depends_on() {
        let targets = Targets {
            records: vec![Record {
                domain: None,
                log_id: 3,
                next_offset: 42,
                is_record: true,
            }],
            ..Targets::default()
        };
        assert_eq!(lacks(&targets, &[(3, 42)], &[]), NOTHING);
        assert_eq!(lacks(&targets, &[(3, 41)], &[]), [3]);
        // What was known before the read is in the snapshot.
        assert_eq!(lacks(&targets, &[(4, 7)], &[(3, 42)]), NOTHING);
        assert_eq!(lacks(&targets, &[(4, 7)], &[(3, 41)]), [3]);
        assert_eq!(lacks(&targets, &[(4, 7)], &[]), [3]);
        // The answer's own snapshot counts, not what was known.
        assert_eq!(lacks(&targets, &[(3, 41)], &[(3, 42)]), [3]);
        let unmet = |known: &[(i32, i64)]| targets.known_unmet("order", &reached(known)).len();
        assert_eq!(
            (unmet(&[(3, 41)]), unmet(&[(3, 42)]), unmet(&[])),
            (1, 0, 0)
        );
    }

    #[test]
    fn a_position_is_waited_for_where_the_answer_depends_on_it() {
        let targets = Targets {
            positions: BTreeMap::from([(3, 42), (4, 7), (5, 0)]),
            ..Targets::default()
        };
        assert_eq!(lacks(&targets, &[(3, 42), (4, 7)], &[]), NOTHING);
        assert_eq!(lacks(&targets, &[(3, 42), (4, 6)], &[]), [4]);
        // One user's answer depends on one log, while the others are known to the view.
        let known = [(3, 1), (4, 1), (5, 1)];
        assert_eq!(lacks(&targets, &[(3, 42)], &known), NOTHING);
        assert_eq!(lacks(&targets, &[(3, 41)], &known), [3]);
        assert_eq!(lacks(&targets, &[(3, 42)], &[(3, 1)]), [4]);
        // An answer about many depends on all.
        assert_eq!(lacks(&targets, &[(3, 42), (5, 1)], &known), [4]);
    }

    #[test]
    fn an_age_is_demanded_of_the_logs_that_the_answer_depends_on() {
        let announcements = Announcements::default();
        announcements.announce_positions("order", [(3, 42), (4, 1)]);
        announcements.announce_positions("audit", [(5, 1)]);
        let mut targets = Targets {
            max_lag: Some(Duration::from_secs(1)),
            ..Targets::default()
        };
        let reached = targets.reached(&announcements, &["order"]);
        // The ends are read after the read.
        targets.positions = BTreeMap::from([(3, 42), (4, 7)]);
        let unmet = targets.compare(&[seen(&[(3, 42)])], &reached);
        assert!(unmet.is_empty(), "{unmet:?}");
        // A log that the view did not have before the read may hold events of the user.
        targets.positions = BTreeMap::from([(3, 42), (5, 7)]);
        let unmet = targets.compare(&[seen(&[(3, 42)])], &reached);
        let logs: Vec<i32> = unmet.into_iter().map(|unmet| unmet.log_id).collect();
        assert_eq!(logs, [5]);
    }

    #[test]
    fn kafka_is_asked_for_as_long_as_the_caller_waits() {
        for (wait, left, time) in [
            (1_000, 10_000, 1_000),
            (250, 10_000, 250),
            (0, 10_000, 200),
            (1_000, 500, 300),
            (0, 500, 200),
            (0, 300, 150),
            (0, 100, 50),
            (0, 0, 0),
        ] {
            let found =
                time_for_ends(Duration::from_millis(wait), Duration::from_millis(left)).as_millis();
            assert_eq!(found, time, "{wait}, {left}");
        }
    }

    #[test]
    fn each_view_of_an_answer_has_to_reach_it() {
        let targets = Targets {
            positions: BTreeMap::from([(3, 42)]),
            ..Targets::default()
        };
        let other = Seen {
            domain: "audit".into(),
            ..seen(&[(3, 40)])
        };
        let unmet = targets.compare(&[seen(&[(3, 42)]), other], &Reached::new());
        assert_eq!(unmet.len(), 1);
        assert_eq!(unmet[0].domain, "audit");
    }
}
