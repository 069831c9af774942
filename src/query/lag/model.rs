//! What the gateway reports of consistency, the same for both surfaces.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::query::status::DomainState;

/// The consistency of several domains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Consistency {
    /// The domains, ordered by name.
    pub domains: Vec<DomainConsistency>,
}

/// The consistency of one domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainConsistency {
    /// The domain's name.
    pub domain: String,
    /// The worst of its partitions' states.
    pub state: DomainState,
    /// What is wrong with the whole domain, in one word: `no_partitions`, `database_unavailable`,
    /// or `database_went_back`. The last means that the database was restored to an earlier state:
    /// projection continues, but work that is handed out based on the view stops until an operator
    /// resumes the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When the figures were read; present only if the database does not answer and they are the
    /// last known ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DateTime<Utc>>,
    /// The partitions, ordered by topic and number.
    pub partitions: Vec<PartitionConsistency>,
}

/// One partition as projected by one domain. Absent figures are unknown. `read = applied +
/// duplicates + skipped + deadLettered`, and `position = startPosition + read + holes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionConsistency {
    /// The Kafka topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The next offset to apply.
    pub position: i64,
    /// The log end offset when it was last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<i64>,
    /// Offsets between the position and the log end offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Age in seconds of the oldest record that is not applied, by its Kafka timestamp; 0 when
    /// caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unapplied_seconds: Option<f64>,
    /// Seconds since the log end offset was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_read_age_seconds: Option<f64>,
    /// Records per second, measured recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Seconds until caught up at this rate; 0 when caught up, absent while it does not progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// What it is doing.
    pub state: DomainState,
    /// Why it does not progress, in one word: `no_owner`, `end_of_log_unknown`,
    /// `database_unavailable`, …; `waits_for_partitions`, if it was added later and the older ones
    /// must be projected first; if it is paused, the reason given for the pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Dead letters that are neither applied nor discarded.
    pub dead_letters: i64,
    /// Keys whose later events wait behind a dead letter.
    pub parked_keys: i64,
    /// The offset at which this view began to read.
    pub start_position: i64,
    /// Offsets without a record.
    pub holes: i64,
    /// Records read.
    pub read: i64,
    /// Records applied.
    pub applied: i64,
    /// Records dropped because their event id was read before.
    pub duplicates: i64,
    /// Records that the domain does not use.
    pub skipped: i64,
    /// Records that could not be applied, or that wait behind one that could not.
    pub dead_lettered: i64,
}
