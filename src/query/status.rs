//! How the partitions that an answer depends on were doing when this process last read the lag.
//!
//! One reading a second serves all answers of the process, so a status may be a second old.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reading that is older says nothing any more.
const MAX_AGE: Duration = Duration::from_secs(10);
/// The bounds of Retry-After while a view is being built, and its value where no ETA is known.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const RETRY_AFTER_UNKNOWN: Duration = Duration::from_secs(5);

/// What a domain or one of its partitions is doing. The values are ordered from good to bad: a
/// domain has the worst state of its partitions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DomainState {
    /// All records of the log are applied.
    CaughtUp,
    /// Records of the log are being applied.
    CatchingUp,
    /// The view is being built; reads use it after the switch.
    Rebuilding,
    /// An operator, or sightline itself, has paused it.
    Paused,
    /// No records are applied; it continues without an operator when the failure ends.
    Stalled,
    /// No records are applied until an operator decides how to continue.
    Failed,
}

impl DomainState {
    /// The word that stands for it on both surfaces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaughtUp => "caught_up",
            Self::CatchingUp => "catching_up",
            Self::Rebuilding => "rebuilding",
            Self::Paused => "paused",
            Self::Stalled => "stalled",
            Self::Failed => "failed",
        }
    }
}

/// The status of several partitions, the worst of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewStatus {
    /// The worst state.
    pub state: DomainState,
    /// The age in seconds of the oldest record that is not applied; `None` if it is unknown for a
    /// partition.
    pub lag_seconds: Option<f64>,
    /// The time until all are caught up; `None` if it is unknown for a partition.
    pub eta: Option<f64>,
    /// The age in seconds of the reading of the log end offset; `None` if it is unknown for a partition.
    pub end_read_seconds: Option<f64>,
}

impl ViewStatus {
    /// The worst of two.
    pub fn worst(self, other: Self) -> Self {
        let larger = |a: Option<f64>, b: Option<f64>| Some(a?.max(b?));
        Self {
            state: self.state.max(other.state),
            lag_seconds: larger(self.lag_seconds, other.lag_seconds),
            eta: larger(self.eta, other.eta),
            end_read_seconds: larger(self.end_read_seconds, other.end_read_seconds),
        }
    }

    /// The value of Retry-After while a view is not ready, given its ETA in seconds.
    pub fn retry_after(eta: Option<f64>) -> Duration {
        let eta = eta.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        eta.map_or(RETRY_AFTER_UNKNOWN, |eta| {
            eta.clamp(RETRY_AFTER.0, RETRY_AFTER.1)
        })
    }
}

/// The statuses of all domains that this process serves, from one reading of the lag.
#[derive(Debug)]
pub struct Statuses {
    read_at: Instant,
    domains: HashMap<String, DomainStatus>,
}

/// The status of a domain and of its partitions, by their logs.
#[derive(Debug)]
pub struct DomainStatus {
    /// The domain's state.
    pub state: DomainState,
    /// The logs that the view is made from at present.
    pub logs: HashMap<i32, ViewStatus>,
}

impl Statuses {
    /// The statuses of a reading that was made now.
    pub fn new(domains: HashMap<String, DomainStatus>) -> Self {
        Self {
            read_at: Instant::now(),
            domains,
        }
    }

    /// The status of an answer that depends on these logs. Logs that were not there at the reading, or
    /// no longer, say nothing; where no log says anything, the domain's own state counts. `None` if
    /// the reading is too old.
    pub fn of(&self, domain: &str, log_ids: &[i32]) -> Option<ViewStatus> {
        if self.read_at.elapsed() > MAX_AGE {
            return None;
        }
        let domain = self.domains.get(domain)?;
        let logs = log_ids.iter().filter_map(|log_id| domain.logs.get(log_id));
        let worst = logs.copied().reduce(ViewStatus::worst);
        Some(worst.unwrap_or(ViewStatus {
            state: domain.state,
            lag_seconds: None,
            eta: None,
            end_read_seconds: None,
        }))
    }

    /// How old these logs' oldest record that is not applied and the readings of their ends are now, at most, in a domain.
    /// `None` where that is not known.
    pub fn lag_bound(&self, domain: &str, log_ids: &[i32]) -> Option<Duration> {
        let status = self.of(domain, log_ids)?;
        let seconds = status.lag_seconds?.max(status.end_read_seconds?);
        let then = Duration::try_from_secs_f64(seconds).ok()?;
        Some(then + self.read_at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: DomainState, lag_seconds: Option<f64>) -> ViewStatus {
        ViewStatus {
            state,
            lag_seconds,
            eta: lag_seconds,
            end_read_seconds: Some(1.0),
        }
    }

    #[test]
    fn an_answer_has_the_worst_status_of_its_partitions() {
        use DomainState::{CatchingUp, CaughtUp, Failed, Stalled};
        let logs = HashMap::from([
            (1, status(CaughtUp, Some(0.0))),
            (2, status(CatchingUp, Some(2.5))),
            (3, status(Failed, None)),
        ]);
        let state = Stalled;
        let statuses = Statuses::new(HashMap::from([(
            "order".to_owned(),
            DomainStatus { state, logs },
        )]));
        let of = |logs: &[i32]| statuses.of("order", logs);
        assert_eq!(of(&[1]), Some(status(CaughtUp, Some(0.0))));
        assert_eq!(of(&[1, 2]), Some(status(CatchingUp, Some(2.5))));
        assert_eq!(of(&[2, 1, 3]), Some(status(Failed, None)));
        assert_eq!(of(&[1, 4]), Some(status(CaughtUp, Some(0.0))));
        let unknown = ViewStatus {
            end_read_seconds: None,
            ..status(Stalled, None)
        };
        assert_eq!(of(&[4]), Some(unknown));
        assert_eq!(of(&[]), Some(unknown));
        let bound = |logs: &[i32]| statuses.lag_bound("order", logs).map(|b| b.as_secs());
        assert_eq!(bound(&[1]), Some(1));
        assert_eq!(bound(&[1, 2]), Some(2));
        assert_eq!((bound(&[3]), bound(&[4])), (None, None));
        assert_eq!(statuses.of("audit", &[1]), None);
    }

    #[test]
    fn callers_try_again_when_the_view_may_be_complete() {
        let seconds = |eta| ViewStatus::retry_after(eta).as_secs();
        assert_eq!(seconds(None), 5);
        assert_eq!(seconds(Some(0.0)), 1);
        assert_eq!(seconds(Some(12.0)), 12);
        assert_eq!(seconds(Some(4_000.0)), 30);
        assert_eq!(seconds(Some(f64::INFINITY)), 5);
    }
}
