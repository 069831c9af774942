//! From a snapshot of the database to the reported figures, without I/O.
//!
//! Promises: a partition is `caught_up` only with a recent reading of the log end offset and a
//! recent heartbeat of its owner. Figures that are not known are absent.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

use super::model::{DomainConsistency, PartitionConsistency};
use crate::query::answer::Answer;
use crate::query::status::{DomainState, DomainStatus, Statuses, ViewStatus};
use crate::query::token::{ConsistencyToken, IncarnationHash, TopicRef};

/// How long, in seconds, a heartbeat of an owner and a reading of the log end offset count as
/// recent.
const FRESH_SECONDS: f64 = 10.0;
/// After how long without a commit a partition that has records counts as stalled.
const NO_PROGRESS_AFTER: Duration = Duration::from_secs(60);
/// How far, in seconds, a heartbeat or a reading of the log end offset may lie ahead of the database's
/// clock. A clock that was set back by more (a fail-over to a host whose clock is behind) says nothing
/// about their age.
const AHEAD_SECONDS: f64 = 2.0;

/// A row of `sql/lag.sql`. Ages are in seconds.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct PartitionRow {
    pub domain: String,
    pub building: bool,
    pub pause_reason: Option<String>,
    pub went_back: bool,
    pub cluster_id: String,
    pub topic: String,
    pub topic_identity: String,
    pub log_id: i32,
    pub partition: i32,
    pub start_offset: i64,
    pub next_offset: i64,
    pub failure: Option<String>,
    pub is_of_newer_code: bool,
    /// Whether the partition was added later, and waits for the older ones.
    pub waits: bool,
    pub read: i64,
    pub applied: i64,
    pub duplicates: i64,
    pub skipped: i64,
    pub dead_lettered: i64,
    pub holes: i64,
    pub end_offset: Option<i64>,
    pub end_read_age: Option<f64>,
    pub owner_age: Option<f64>,
    pub oldest_unapplied_age: Option<f64>,
    pub rate: Option<f64>,
    pub owner_failure: Option<String>,
    pub open_dead_letters: i64,
    pub parked_keys: i64,
    /// For how long this process has seen the position stalled before the log end offset.
    #[sqlx(skip)]
    pub stalled_for: Duration,
}

/// A snapshot of all served domains.
#[derive(Clone)]
pub(super) struct Figures {
    pub read_at: DateTime<Utc>,
    /// Whether this call has read them; `false` if they are only the last known ones.
    pub is_current: bool,
    pub rows: Vec<PartitionRow>,
}

impl Figures {
    pub fn answer(&self, domains: &[&str]) -> Answer<Vec<DomainConsistency>> {
        let mut token = ConsistencyToken::default();
        let mut body = Vec::with_capacity(domains.len());
        for domain in domains {
            let rows = self.rows.iter().filter(|row| row.domain == *domain);
            let mut partitions = Vec::new();
            let mut went_back = false;
            let mut of_domain = ConsistencyToken::default();
            for row in rows {
                went_back |= row.went_back;
                of_domain.advance(
                    TopicRef {
                        topic: row.topic.clone(),
                        identity: Some(IncarnationHash::of(&row.cluster_id, &row.topic_identity)),
                    },
                    row.partition.unsigned_abs(),
                    row.next_offset.unsigned_abs(),
                );
                partitions.push(partition(row));
            }
            let mut element = of_partitions(domain, partitions);
            if !of_domain.fits() {
                element.failure = Some("too_many_partitions".into());
            }
            token.join(&of_domain);
            if went_back {
                element.failure = Some("database_went_back".into());
            }
            if !self.is_current {
                mark_last_known(&mut element, self.read_at);
            }
            body.push(element);
        }
        Answer {
            body,
            position: token.into(),
        }
    }

    /// What the answers of reads say of these domains' partitions.
    pub fn statuses(&self, domains: &[&str]) -> Statuses {
        let statuses = domains.iter().map(|name| {
            let rows = self.rows.iter().filter(|row| row.domain == *name);
            let (log_ids, partitions): (Vec<i32>, Vec<_>) =
                rows.map(|row| (row.log_id, partition(row))).unzip();
            let mut domain = of_partitions(name, partitions);
            if !self.is_current {
                mark_last_known(&mut domain, self.read_at);
            }
            // Ages that were read before say nothing about now, and a read that demands an age asks Kafka itself.
            let current = |seconds: Option<f64>| seconds.filter(|_| self.is_current);
            let statuses = domain.partitions.iter().map(|partition| ViewStatus {
                state: partition.state,
                lag_seconds: current(partition.oldest_unapplied_seconds),
                eta: current(partition.eta_seconds),
                end_read_seconds: current(partition.end_read_age_seconds),
            });
            let status = DomainStatus {
                state: domain.state,
                logs: log_ids.into_iter().zip(statuses).collect(),
            };
            ((*name).to_owned(), status)
        });
        Statuses::new(statuses.collect::<HashMap<_, _>>())
    }
}

fn of_partitions(domain: &str, partitions: Vec<PartitionConsistency>) -> DomainConsistency {
    let worst = partitions.iter().map(|partition| partition.state).max();
    DomainConsistency {
        domain: domain.into(),
        state: worst.unwrap_or(DomainState::Stalled),
        failure: worst.is_none().then(|| "no_partitions".into()),
        as_of: None,
        partitions,
    }
}

/// Marks figures that may be out of date: what has happened since is unknown, so no partition may
/// look healthy.
fn mark_last_known(domain: &mut DomainConsistency, read_at: DateTime<Utc>) {
    const UNAVAILABLE: &str = "database_unavailable";
    domain.as_of = Some(read_at.trunc_subsecs(6));
    domain.failure = Some(UNAVAILABLE.into());
    domain.state = domain.state.max(DomainState::Stalled);
    for partition in &mut domain.partitions {
        if partition.state < DomainState::Stalled {
            partition.failure = Some(UNAVAILABLE.into());
            partition.state = DomainState::Stalled;
            partition.eta_seconds = None;
        }
    }
}

fn partition(row: &PartitionRow) -> PartitionConsistency {
    let (state, failure) = state(row);
    let lag = row
        .end_offset
        .map(|end| end.saturating_sub(row.next_offset).max(0));
    let owned = is_fresh(row.owner_age);
    let rate = row.rate.filter(|_| owned);
    let oldest_unapplied_seconds = match lag {
        // After an old reading the log may have grown.
        Some(0) => is_fresh(row.end_read_age).then_some(0.0),
        _ => row.oldest_unapplied_age.map(|age| age.max(0.0)),
    };
    let eta_seconds = match lag {
        // When it goes on is not known.
        _ if failure.is_some() => None,
        Some(0) => is_fresh(row.end_read_age).then_some(0.0),
        Some(lag) => rate
            .map(|rate| lag as f64 / rate)
            .filter(|eta| eta.is_finite()),
        None => None,
    };
    PartitionConsistency {
        topic: row.topic.clone(),
        partition: row.partition,
        position: row.next_offset,
        end_offset: row.end_offset,
        lag,
        oldest_unapplied_seconds,
        end_read_age_seconds: row
            .end_read_age
            .filter(|age| *age >= -AHEAD_SECONDS)
            .map(|age| age.max(0.0)),
        rate,
        eta_seconds,
        state,
        failure,
        dead_letters: row.open_dead_letters,
        parked_keys: row.parked_keys,
        start_position: row.start_offset,
        holes: row.holes,
        read: row.read,
        applied: row.applied,
        duplicates: row.duplicates,
        skipped: row.skipped,
        dead_lettered: row.dead_lettered,
    }
}

impl PartitionConsistency {
    /// Offsets between the position and the log end offset, if that was read recently.
    pub fn current_lag(&self) -> Option<i64> {
        self.lag.filter(|_| is_fresh(self.end_read_age_seconds))
    }
}

/// The state of a partition and its failure. The checks are in the order of what an operator must
/// know first.
fn state(row: &PartitionRow) -> (DomainState, Option<String>) {
    if let Some(failure) = &row.failure {
        return (DomainState::Failed, Some(failure.clone()));
    }
    if let Some(reason) = &row.pause_reason {
        return (DomainState::Paused, Some(reason.clone()));
    }
    if !is_fresh(row.owner_age) {
        // This process can't project it, and no process with newer code does.
        let failure = if row.is_of_newer_code {
            "newer_code"
        } else {
            "no_owner"
        };
        return (DomainState::Stalled, Some(failure.into()));
    }
    let end = row.end_offset.filter(|_| is_fresh(row.end_read_age));
    let waits = row.waits.then(|| "waits_for_partitions".to_owned());
    if row.building && end.is_some() {
        return (DomainState::Rebuilding, row.owner_failure.clone().or(waits));
    }
    // It names a cause. Where Kafka refuses the records, it may refuse the offsets, too.
    if let Some(failure) = &row.owner_failure {
        return (DomainState::Stalled, Some(failure.clone()));
    }
    let Some(end) = end else {
        return (DomainState::Stalled, Some("end_of_log_unknown".into()));
    };
    if waits.is_some() {
        return (DomainState::CatchingUp, waits);
    }
    if row.next_offset < end && row.stalled_for >= NO_PROGRESS_AFTER {
        (DomainState::Stalled, Some("no_progress".into()))
    } else if row.next_offset < end {
        (DomainState::CatchingUp, None)
    } else {
        (DomainState::CaughtUp, None)
    }
}

/// Whether an age counts as recent.
fn is_fresh(age: Option<f64>) -> bool {
    age.is_some_and(|age| (-AHEAD_SECONDS..=FRESH_SECONDS).contains(&age))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> PartitionRow {
        PartitionRow {
            domain: "order".into(),
            building: false,
            pause_reason: None,
            went_back: false,
            cluster_id: "c".into(),
            topic: "user.events".into(),
            topic_identity: "i".into(),
            log_id: 7,
            partition: 3,
            start_offset: 10,
            next_offset: 42,
            failure: None,
            is_of_newer_code: false,
            waits: false,
            read: 30,
            applied: 20,
            duplicates: 4,
            skipped: 5,
            dead_lettered: 1,
            holes: 2,
            end_offset: Some(42),
            end_read_age: Some(0.5),
            owner_age: Some(1.0),
            oldest_unapplied_age: None,
            rate: Some(10.0),
            owner_failure: None,
            open_dead_letters: 1,
            parked_keys: 1,
            stalled_for: Duration::ZERO,
        }
    }

    fn judge(change: impl FnOnce(&mut PartitionRow)) -> (DomainState, Option<String>) {
        let mut row = row();
        change(&mut row);
        state(&row)
    }

    #[test]
    fn states_are_judged_in_the_order_of_urgency() {
        use DomainState::*;
        let why = |word: &str| Some(word.to_owned());
        assert_eq!(judge(|_| ()), (CaughtUp, None));
        assert_eq!(judge(|r| r.end_offset = Some(43)), (CatchingUp, None));
        assert_eq!(
            judge(|r| r.owner_age = Some(10.1)),
            (Stalled, why("no_owner"))
        );
        assert_eq!(judge(|r| r.owner_age = None), (Stalled, why("no_owner")));
        let abandoned = judge(|r| (r.owner_age, r.is_of_newer_code) = (None, true));
        assert_eq!(abandoned, (Stalled, why("newer_code")));
        assert_eq!(judge(|r| r.is_of_newer_code = true), (CaughtUp, None));
        // A clock that was set back a little, and by more.
        assert_eq!(judge(|r| r.owner_age = Some(-2.0)), (CaughtUp, None));
        assert_eq!(
            judge(|r| r.owner_age = Some(-2.1)),
            (Stalled, why("no_owner"))
        );
        assert_eq!(
            judge(|r| r.end_read_age = Some(-3_600.0)),
            (Stalled, why("end_of_log_unknown"))
        );
        assert_eq!(
            judge(|r| r.end_read_age = Some(11.0)),
            (Stalled, why("end_of_log_unknown"))
        );
        assert_eq!(
            judge(|r| (r.end_offset, r.end_read_age) = (None, None)),
            (Stalled, why("end_of_log_unknown"))
        );
        assert_eq!(
            judge(|r| r.owner_failure = why("database_refuses")),
            (Stalled, why("database_refuses"))
        );
        let stuck = |seconds, end| {
            judge(|r| {
                r.end_offset = Some(end);
                r.stalled_for = Duration::from_secs(seconds);
            })
        };
        assert_eq!(stuck(59, 43), (CatchingUp, None));
        assert_eq!(stuck(60, 43), (Stalled, why("no_progress")));
        assert_eq!(stuck(60, 42), (CaughtUp, None));
        assert_eq!(
            judge(|r| (r.owner_failure, r.end_read_age) = (why("kafka_refuses"), Some(11.0))),
            (Stalled, why("kafka_refuses"))
        );
        assert_eq!(judge(|r| r.building = true), (Rebuilding, None));
        let waits = || why("waits_for_partitions");
        assert_eq!(judge(|r| r.waits = true), (CatchingUp, waits()));
        assert_eq!(
            judge(|r| (r.waits, r.building) = (true, true)),
            (Rebuilding, waits())
        );
        assert_eq!(
            judge(|r| (r.waits, r.owner_age) = (true, Some(10.1))),
            (Stalled, why("no_owner"))
        );
        assert_eq!(
            judge(|r| (r.pause_reason, r.owner_age) = (why("maintenance"), None)),
            (Paused, why("maintenance"))
        );
        assert_eq!(
            judge(|r| {
                r.failure = why("log_truncated");
                r.owner_age = None;
            }),
            (Failed, why("log_truncated"))
        );
    }

    #[test]
    fn figures_are_absent_where_they_are_unknown() {
        let caught_up = partition(&row());
        assert_eq!(caught_up.lag, Some(0));
        assert_eq!(caught_up.oldest_unapplied_seconds, Some(0.0));
        assert_eq!(caught_up.eta_seconds, Some(0.0));

        let behind = partition(&PartitionRow {
            end_offset: Some(142),
            oldest_unapplied_age: Some(-3.0),
            ..row()
        });
        assert_eq!(behind.lag, Some(100));
        assert_eq!(behind.eta_seconds, Some(10.0));
        assert_eq!(behind.oldest_unapplied_seconds, Some(0.0));

        let stale = partition(&PartitionRow {
            end_read_age: Some(60.0),
            owner_age: Some(60.0),
            ..row()
        });
        assert_eq!(stale.oldest_unapplied_seconds, None);
        assert_eq!((stale.rate, stale.eta_seconds), (None, None));

        let stops: [fn(&mut PartitionRow); 5] = [
            |row| row.waits = true,
            |row| row.pause_reason = Some("moving".to_owned()),
            |row| row.failure = Some("log_truncated".to_owned()),
            |row| row.owner_failure = Some("kafka_refuses".to_owned()),
            |row| row.stalled_for = NO_PROGRESS_AFTER,
        ];
        for (n, stop) in stops.into_iter().enumerate() {
            let mut stopped = row();
            stopped.end_offset = Some(142);
            stop(&mut stopped);
            assert_eq!(partition(&stopped).eta_seconds, None, "{n}");
        }

        let unknown = partition(&PartitionRow {
            end_offset: None,
            end_read_age: None,
            ..row()
        });
        assert_eq!((unknown.lag, unknown.eta_seconds), (None, None));
    }

    #[test]
    fn a_domain_has_the_worst_state_of_its_partitions() {
        let behind = PartitionRow {
            end_offset: Some(50),
            ..row()
        };
        let domain = of_partitions("order", vec![partition(&row()), partition(&behind)]);
        assert_eq!(domain.state, DomainState::CatchingUp);
        let empty = of_partitions("order", vec![]);
        assert_eq!(empty.state, DomainState::Stalled);
        assert_eq!(empty.failure.as_deref(), Some("no_partitions"));
    }

    #[test]
    fn the_last_known_figures_never_look_healthy() {
        let figures = Figures {
            read_at: Utc::now(),
            is_current: false,
            rows: vec![row()],
        };
        let answer = figures.answer(&["order"]);
        let domain = &answer.body[0];
        assert_eq!(domain.as_of, Some(figures.read_at.trunc_subsecs(6)));
        assert_eq!(domain.failure.as_deref(), Some("database_unavailable"));
        assert_eq!(domain.partitions[0].state, DomainState::Stalled);
        let current = Figures {
            is_current: true,
            ..figures.clone()
        };
        assert_eq!(answer.position, current.answer(&["order"]).position);
        let status = |figures: &Figures| figures.statuses(&["order"]).of("order", &[7]).unwrap();
        assert_eq!(status(&figures).state, DomainState::Stalled);
        assert_eq!(status(&current).state, DomainState::CaughtUp);
        // No read with `max-lag` is answered by them, however often they are published.
        let bound = |figures: &Figures| figures.statuses(&["order"]).lag_bound("order", &[7]);
        assert_eq!(
            (status(&figures).lag_seconds, bound(&figures)),
            (None, None)
        );
        assert!(bound(&current).is_some());
    }

    #[test]
    fn field_names_are_those_of_the_contract() {
        let json = serde_json::to_value(PartitionConsistency {
            state: DomainState::Failed,
            failure: Some("f".into()),
            ..partition(&row())
        })
        .unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        names.sort();
        let mut contract = [
            "topic",
            "partition",
            "position",
            "endOffset",
            "lag",
            "oldestUnappliedSeconds",
            "endReadAgeSeconds",
            "rate",
            "etaSeconds",
            "state",
            "failure",
            "deadLetters",
            "parkedKeys",
            "startPosition",
            "holes",
            "read",
            "applied",
            "duplicates",
            "skipped",
            "deadLettered",
        ];
        contract.sort_unstable();
        assert_eq!(names, contract);
        assert_eq!(json["state"], "failed");
    }

    proptest! {
        #[test]
        fn only_a_live_consumer_at_a_known_end_is_caught_up(
            next in 0..1000_i64,
            end in proptest::option::of(0..1000_i64),
            end_age in proptest::option::of(-5.0..60.0),
            owner_age in proptest::option::of(-5.0..60.0),
            unapplied in proptest::option::of(-5.0..60.0),
            rate in proptest::option::of(0.0..100.0),
            failure in proptest::option::of("[a-z]{3}"),
            owner_failure in proptest::option::of("[a-z]{3}"),
            building in any::<bool>(),
            waits in any::<bool>(),
        ) {
            let row = PartitionRow {
                next_offset: next, end_offset: end, end_read_age: end_age, owner_age, rate, failure,
                owner_failure, building, waits, oldest_unapplied_age: unapplied, ..row()
            };
            let partition = partition(&row);
            if partition.state == DomainState::CaughtUp {
                for age in [row.owner_age.unwrap(), row.end_read_age.unwrap()] {
                    prop_assert!((-2.0..=10.0).contains(&age));
                }
                prop_assert_eq!(partition.lag, Some(0));
                prop_assert_eq!(&partition.failure, &None);
            }
            if matches!(partition.state, DomainState::Stalled | DomainState::Failed) {
                prop_assert!(partition.failure.is_some());
            }
            for seconds in [partition.oldest_unapplied_seconds, partition.end_read_age_seconds, partition.eta_seconds] {
                prop_assert!(seconds.is_none_or(|s| s >= 0.0 && s.is_finite()));
            }
        }
    }
}
