//! How far the views are behind the log, what holds them, and whether their books balance.
//!
//! Promises: all figures of an answer are of one snapshot. A consumer that is dead never reads as caught up:
//! lag counts only with a fresh reading of the log's end and an owner whose heart beats. What is not known is
//! absent. Without the database the last figures that this process read are told, as such.

use std::{
    cmp::Ordering,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Answer, ConsistencyToken, Reads,
    token::{Identity, TopicRef},
};
use crate::error::{Code, Error};

/// An owner that was not seen for longer, in seconds, is dead; a reading of the log's end that is older says
/// nothing about now.
const FRESH_SECONDS: f64 = 10.0;

/// What a domain or one of its partitions is doing. The order is that of badness: a domain is as bad as its
/// worst partition.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DomainState {
    /// All that is in the log is applied.
    CaughtUp,
    /// Records wait in the log and are being applied.
    CatchingUp,
    /// The view is being built; reads answer once it is switched in.
    Rebuilding,
    /// An operator, or the domain itself, has paused it.
    Paused,
    /// Nothing is applied at the moment; it goes on by itself when the failure ends.
    Stalled,
    /// Nothing is applied until an operator decides.
    Failed,
}

/// The consistency of several domains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Consistency {
    /// In the order of their names.
    pub domains: Vec<DomainConsistency>,
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainConsistency {
    /// The domain's name.
    pub domain: String,
    /// The worst of its partitions' states.
    pub state: DomainState,
    /// What holds the whole domain, one word: `no_partitions`, `database_unavailable`. `database_went_back`: the
    /// database was restored to an earlier state; projection goes on, but nothing that was done on the word of the view
    /// is done again before an operator resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Present where the database does not answer: when these figures, the last known ones, were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DateTime<Utc>>,
    /// By topic and number.
    pub partitions: Vec<PartitionConsistency>,
}

/// One partition as seen by one domain. What is absent is unknown. `read = applied + duplicates + skipped +
/// deadLettered`, and `position = startPosition + read + holes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionConsistency {
    /// The Kafka topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The next offset to apply.
    pub position: i64,
    /// The end of the log at its last reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<i64>,
    /// Offsets between the position and the end of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Age, by its Kafka timestamp, of the oldest record that is not applied; 0 when caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unapplied_seconds: Option<f64>,
    /// Age of the reading of the log's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_read_age_seconds: Option<f64>,
    /// Records per second, lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Seconds until caught up, at this rate; 0 when caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// What it is doing.
    pub state: DomainState,
    /// What holds it, one word: `no_owner`, `end_of_log_unknown`, `database_unavailable`, …; of a paused one, the reason
    /// that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Dead letters that are neither applied nor discarded.
    pub dead_letters: i64,
    /// Keys whose events wait behind a dead letter.
    pub parked_keys: i64,
    /// Where this view began to read.
    pub start_position: i64,
    /// Offsets that hold no record.
    pub holes: i64,
    /// Records read.
    pub read: i64,
    /// Records applied.
    pub applied: i64,
    /// Records dropped because their event id had been read before.
    pub duplicates: i64,
    /// Records that are of no interest to the domain.
    pub skipped: i64,
    /// Records that could not be applied, or wait behind one.
    pub dead_lettered: i64,
}

/// A row of `sql/lag.sql`. Ages are in seconds.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Row {
    domain: String,
    building: bool,
    pause_reason: Option<String>,
    went_back: bool,
    cluster_id: String,
    topic: String,
    topic_identity: String,
    partition: i32,
    start_offset: i64,
    next_offset: i64,
    failure: Option<String>,
    read: i64,
    applied: i64,
    duplicates: i64,
    skipped: i64,
    dead_lettered: i64,
    holes: i64,
    end_offset: Option<i64>,
    end_read_age: Option<f64>,
    owner_age: Option<f64>,
    oldest_unapplied_age: Option<f64>,
    rate: Option<f64>,
    owner_failure: Option<String>,
    open_letters: i64,
    parked_keys: i64,
}

/// Reads lag. Cheap to clone; the clones share what was last known.
#[derive(Clone)]
pub struct Lag(Arc<Inner>);

struct Inner {
    reads: Reads,
    served: Vec<String>,
    known: Vec<String>,
    last: RwLock<Option<Figures>>,
}

/// What one reading found, for all served domains.
#[derive(Clone)]
struct Figures {
    read_at: DateTime<Utc>,
    rows: Vec<Row>,
}

impl Lag {
    /// Over the domains that this process serves, of all that there are (`known`).
    pub fn new(
        reads: Reads,
        served: impl IntoIterator<Item = &'static str>,
        known: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let mut served: Vec<_> = served.into_iter().map(String::from).collect();
        served.sort_unstable();
        Self(Arc::new(Inner {
            reads,
            served,
            known: known.into_iter().map(String::from).collect(),
            last: RwLock::default(),
        }))
    }

    /// All served domains.
    ///
    /// # Errors
    /// DATABASE_UNAVAILABLE, where nothing was ever read.
    pub async fn all(&self) -> Result<Answer<Consistency>, Error> {
        let (figures, current) = self.figures().await?;
        let served: Vec<_> = self.0.served.iter().map(String::as_str).collect();
        Ok(figures
            .answer(&served, current)
            .map(|domains| Consistency { domains }))
    }

    /// One domain.
    ///
    /// # Errors
    /// NOT_FOUND: there is no such domain. DOMAIN_NOT_SERVED: not here. DATABASE_UNAVAILABLE as above.
    pub async fn one(&self, domain: &str) -> Result<Answer<DomainConsistency>, Error> {
        if !self.0.known.iter().any(|known| known == domain) {
            return Err(unknown_domain());
        }
        if !self.0.served.iter().any(|served| served == domain) {
            return Err(not_served());
        }
        let (figures, current) = self.figures().await?;
        let Answer { mut body, token } = figures.answer(&[domain], current);
        let body = body
            .pop()
            .ok_or_else(|| Error::internal("a served domain has no figures"))?;
        Ok(Answer { body, token })
    }

    /// The figures, and whether they are of now.
    async fn figures(&self) -> Result<(Figures, bool), Error> {
        let rows: Result<Vec<Row>, sqlx::Error> = sqlx::query_as(include_str!("sql/lag.sql"))
            .bind(&self.0.served)
            .fetch_all(self.0.reads.pool())
            .await;
        match rows {
            Ok(rows) => {
                let figures = Figures {
                    read_at: Utc::now(),
                    rows,
                };
                let mut last = self.0.last.write().unwrap_or_else(PoisonError::into_inner);
                *last = Some(figures.clone());
                Ok((figures, true))
            }
            Err(error) => {
                let error = Error::from(error).in_statement("query/lag");
                if error.code() == Code::Internal {
                    return Err(error);
                }
                let last = self.0.last.read().unwrap_or_else(PoisonError::into_inner);
                last.clone().map(|figures| (figures, false)).ok_or(error)
            }
        }
    }
}

/// The refusal of a domain that there is nowhere.
pub fn unknown_domain() -> Error {
    Error::new(
        Code::NotFound,
        "There is no such domain. /v1/consistency lists those that are served.",
    )
}

/// The refusal of whatever belongs to a domain that this process does not serve.
pub fn not_served() -> Error {
    Error::new(
        Code::DomainNotServed,
        "This process does not serve that domain; SIGHTLINE_DOMAINS says which it serves.",
    )
}

impl Figures {
    fn answer(&self, domains: &[&str], current: bool) -> Answer<Vec<DomainConsistency>> {
        let mut token = ConsistencyToken::default();
        let mut body = Vec::with_capacity(domains.len());
        for domain in domains {
            let rows = self.rows.iter().filter(|row| row.domain == *domain);
            let mut partitions = Vec::new();
            let mut went_back = false;
            for row in rows {
                went_back |= row.went_back;
                token.advance(
                    TopicRef {
                        topic: row.topic.clone(),
                        identity: Some(Identity::of(&row.cluster_id, &row.topic_identity)),
                    },
                    row.partition.unsigned_abs(),
                    row.next_offset.unsigned_abs(),
                );
                partitions.push(partition(row));
            }
            let mut element = of_partitions(domain, partitions);
            if went_back {
                element.failure = Some("database_went_back".into());
            }
            if !current {
                mark_last_known(&mut element, self.read_at);
            }
            body.push(element);
        }
        Answer { body, token }
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

/// Nobody knows what happened since: nothing may read as going well.
fn mark_last_known(domain: &mut DomainConsistency, read_at: DateTime<Utc>) {
    const AWAY: &str = "database_unavailable";
    domain.as_of = Some(read_at.trunc_subsecs(6));
    domain.failure = Some(AWAY.into());
    domain.state = domain.state.max(DomainState::Stalled);
    for partition in &mut domain.partitions {
        if partition.state < DomainState::Stalled {
            partition.failure = Some(AWAY.into());
            partition.state = DomainState::Stalled;
        }
    }
}

fn partition(row: &Row) -> PartitionConsistency {
    let (state, failure) = state(row);
    let lag = row
        .end_offset
        .map(|end| end.saturating_sub(row.next_offset).max(0));
    let owned = is_fresh(row.owner_age);
    let rate = row.rate.filter(|_| owned);
    let oldest_unapplied_seconds = match lag {
        // The end may have moved on since.
        Some(0) => is_fresh(row.end_read_age).then_some(0.0),
        _ => row.oldest_unapplied_age.map(|age| age.max(0.0)),
    };
    let eta_seconds = match lag {
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
        end_read_age_seconds: row.end_read_age.map(|age| age.max(0.0)),
        rate,
        eta_seconds,
        state,
        failure,
        dead_letters: row.open_letters,
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

/// In the order of what an operator must know first.
fn state(row: &Row) -> (DomainState, Option<String>) {
    if let Some(failure) = &row.failure {
        return (DomainState::Failed, Some(failure.clone()));
    }
    if let Some(reason) = &row.pause_reason {
        return (DomainState::Paused, Some(reason.clone()));
    }
    if !is_fresh(row.owner_age) {
        return (DomainState::Stalled, Some("no_owner".into()));
    }
    let Some(end) = row.end_offset.filter(|_| is_fresh(row.end_read_age)) else {
        return (DomainState::Stalled, Some("end_of_log_unknown".into()));
    };
    if row.building {
        return (DomainState::Rebuilding, row.owner_failure.clone());
    }
    if let Some(failure) = &row.owner_failure {
        return (DomainState::Stalled, Some(failure.clone()));
    }
    match row.next_offset.cmp(&end) {
        Ordering::Less => (DomainState::CatchingUp, None),
        _ => (DomainState::CaughtUp, None),
    }
}

/// A clock that was set back makes ages negative: that is fresh.
fn is_fresh(age: Option<f64>) -> bool {
    age.is_some_and(|age| age <= FRESH_SECONDS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> Row {
        Row {
            domain: "order".into(),
            building: false,
            pause_reason: None,
            went_back: false,
            cluster_id: "c".into(),
            topic: "user.events".into(),
            topic_identity: "i".into(),
            partition: 3,
            start_offset: 10,
            next_offset: 42,
            failure: None,
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
            open_letters: 1,
            parked_keys: 1,
        }
    }

    fn judge(change: impl FnOnce(&mut Row)) -> (DomainState, Option<String>) {
        let mut row = row();
        change(&mut row);
        state(&row)
    }

    #[test]
    fn states_in_their_order() {
        use DomainState::*;
        let why = |word: &str| Some(word.to_owned());
        assert_eq!(judge(|_| ()), (CaughtUp, None));
        assert_eq!(judge(|r| r.end_offset = Some(43)), (CatchingUp, None));
        assert_eq!(
            judge(|r| r.owner_age = Some(10.1)),
            (Stalled, why("no_owner"))
        );
        assert_eq!(judge(|r| r.owner_age = None), (Stalled, why("no_owner")));
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
        assert_eq!(judge(|r| r.building = true), (Rebuilding, None));
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
    fn figures_are_honest() {
        let caught_up = partition(&row());
        assert_eq!(caught_up.lag, Some(0));
        assert_eq!(caught_up.oldest_unapplied_seconds, Some(0.0));
        assert_eq!(caught_up.eta_seconds, Some(0.0));

        let behind = partition(&Row {
            end_offset: Some(142),
            oldest_unapplied_age: Some(-3.0),
            ..row()
        });
        assert_eq!(behind.lag, Some(100));
        assert_eq!(behind.eta_seconds, Some(10.0));
        assert_eq!(behind.oldest_unapplied_seconds, Some(0.0));

        let stale = partition(&Row {
            end_read_age: Some(60.0),
            owner_age: Some(60.0),
            ..row()
        });
        assert_eq!(stale.oldest_unapplied_seconds, None);
        assert_eq!((stale.rate, stale.eta_seconds), (None, None));

        let unknown = partition(&Row {
            end_offset: None,
            end_read_age: None,
            ..row()
        });
        assert_eq!((unknown.lag, unknown.eta_seconds), (None, None));
    }

    #[test]
    fn a_domain_is_as_bad_as_its_worst_partition() {
        let behind = Row {
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
    fn the_last_known_figures_never_read_as_well() {
        let figures = Figures {
            read_at: Utc::now(),
            rows: vec![row()],
        };
        let answer = figures.answer(&["order"], false);
        let domain = &answer.body[0];
        assert_eq!(domain.as_of, Some(figures.read_at.trunc_subsecs(6)));
        assert_eq!(domain.failure.as_deref(), Some("database_unavailable"));
        assert_eq!(domain.partitions[0].state, DomainState::Stalled);
        assert_eq!(answer.token, figures.answer(&["order"], true).token);
    }

    #[test]
    fn names_are_the_contracts() {
        let json = serde_json::to_value(partition(&Row {
            failure: Some("f".into()),
            ..row()
        }))
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
        ) {
            let row = Row {
                next_offset: next, end_offset: end, end_read_age: end_age, owner_age, rate, failure,
                owner_failure, building, oldest_unapplied_age: unapplied, ..row()
            };
            let partition = partition(&row);
            if partition.state == DomainState::CaughtUp {
                prop_assert!(row.owner_age.unwrap() <= 10.0 && row.end_read_age.unwrap() <= 10.0);
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
