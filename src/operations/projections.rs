//! Projections: the versions of each domain's view, their progress, and how operators pause,
//! rebuild and switch them.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::handle::{Operations, check_reason};
use crate::error::{Code, Error, Hint};
use crate::projector::pause;
use crate::projector::versions::{self, LossKind, Lost, RETIRED_FOR, VersionError, Which};
use crate::query::deadline;
use crate::query::status::DomainState;

/// How long a switch tries to get its lock, unless the caller waits for less.
const SWITCH_BUDGET: Duration = Duration::from_secs(30);
/// How many partitions with lost records an error names.
const MAX_LOST_NAMED: usize = 10;

/// All projections that this process serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Projections {
    /// The projections, ordered by domain.
    pub projections: Vec<Projection>,
}

/// A domain's projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Projection {
    /// The domain's name.
    pub domain: String,
    /// What it is doing, as in the consistency of the domain.
    pub state: DomainState,
    /// Whether the live version was built by another version of the code: rebuild it.
    pub outdated: bool,
    /// The versions of its view, the live one first.
    pub versions: Vec<ProjectionVersion>,
}

/// The role of a version of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Reads use it.
    Live,
    /// It is being built.
    Building,
    /// It was live before a switch; it is still projected, so that a rollback is possible.
    Retired,
}

/// A version of a view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionVersion {
    /// Its number; the first is 1.
    pub version: i32,
    /// Its role.
    pub state: VersionState,
    /// The version of the code that built it.
    pub code_version: i32,
    /// Whether it was built by another version of the code than this release has, or by several:
    /// rebuild it.
    pub outdated: bool,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When another version became the live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<DateTime<Utc>>,
    /// When sightline drops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_at: Option<DateTime<Utc>>,
    /// Whether it was built although the log had lost records that the view was made from.
    pub accepts_loss: bool,
    /// The pause, if it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Since when a partition has made no progress although it is behind or failed; present after a
    /// day. What was deleted in the meantime is not erased from this version yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_since: Option<DateTime<Utc>>,
    /// Why partitions do not progress until an operator decides, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Records read.
    pub read: i64,
    /// Offsets between its positions and the log end offsets, as they were last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// The share of the log that it has read, from 0 to 1; absent while the end of the log is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Records per second, measured recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Seconds until it reaches the end of the log at this rate; absent while it is paused or has failed, or while the end of
    /// the log is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// Dead letters that are neither applied nor discarded.
    pub dead_letters: i64,
}

/// The pause of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// The reason that was given.
    pub reason: String,
    /// What paused it: `operator` or `sightline`.
    pub by: String,
    /// When it was paused.
    pub paused_at: DateTime<Utc>,
}

/// A row of `sql/versions.sql`.
struct VersionRow {
    domain: String,
    version: i32,
    state: String,
    code_version: i32,
    mixed_code: bool,
    created_at: DateTime<Utc>,
    retired_at: Option<DateTime<Utc>>,
    accepts_loss: bool,
    paused_at: Option<DateTime<Utc>>,
    paused_by: Option<String>,
    pause_reason: Option<String>,
    stalled_since: Option<DateTime<Utc>>,
    failure: Option<String>,
    read: i64,
    done: Option<i64>,
    whole: Option<i64>,
    /// Whether `whole` is from recent readings of all log end offsets.
    ends_are_fresh: bool,
    rate: Option<f64>,
    dead_letters: i64,
}

impl Operations {
    /// All projections that this process serves.
    ///
    /// # Errors
    /// The database failed.
    pub async fn projections(&self) -> Result<Projections, Error> {
        // Lag answers with its last known figures while the database is unavailable. Operators
        // decide by this answer, so this statement comes first and fails then.
        let rows = sqlx::query_file_as!(
            VersionRow,
            "src/operations/sql/versions.sql",
            &self.served()
        )
        .fetch_all(self.0.reads.pool())
        .await
        .map_err(|e| Error::from(e).in_statement("operations/versions"))?;
        let lag = self.0.lag.all().await?.body;
        let mut projections: Vec<Projection> = lag
            .domains
            .into_iter()
            .map(|domain| Projection {
                domain: domain.domain,
                state: domain.state,
                outdated: false,
                versions: Vec::new(),
            })
            .collect();
        for row in rows {
            let current = self.projection(&row.domain)?.code_version();
            let found = projections.iter_mut().find(|p| p.domain == row.domain);
            let Some(projection) = found else { continue };
            let version = row.version(current);
            projection.outdated |= version.outdated && version.state == VersionState::Live;
            projection.versions.push(version);
        }
        Ok(Projections { projections })
    }

    async fn projection_now(&self, domain: &str) -> Result<Projection, Error> {
        let all = self.projections().await?.projections;
        let found = all.into_iter().find(|p| p.domain == domain);
        found.ok_or_else(|| Error::internal("a served domain has no projection"))
    }

    /// Pauses all versions of a domain's view except one that is being built; reads continue.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the reason is malformed. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain.
    /// The database failed.
    pub async fn pause(&self, domain: &str, reason: Option<&str>) -> Result<Projection, Error> {
        self.projection(domain)?;
        reason.map_or(Ok(()), check_reason)?;
        pause::pause(&self.0.retrier.pool, domain, reason).await?;
        tracing::info!(domain, "an operator paused projection");
        self.projection_now(domain).await
    }

    /// Resumes projection of a domain.
    ///
    /// # Errors
    /// LOG_TRUNCATED: the domain was resumed, but partitions do not progress, because their log is
    /// not the one that was projected. KAFKA_UNAVAILABLE: losses were accepted, but the offsets of
    /// a log are not known. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database failed.
    pub async fn resume(
        &self,
        domain: &str,
        accept_loss: bool,
        accept_older_code: bool,
    ) -> Result<Projection, Error> {
        let projection = self.projection(domain)?;
        let code_version = projection.code_version();
        let older_code = accept_older_code.then_some(code_version);
        let pool = &self.0.retrier.pool;
        let failed = pause::resume(pool, projection, accept_loss, older_code).await?;
        self.0.retrier.announcements.announce(projection.domain());
        tracing::info!(
            domain,
            accept_loss,
            accept_older_code,
            "an operator resumed projection"
        );
        match failed {
            0 => self.projection_now(domain).await,
            _ if accept_loss => Err(log_offsets_unknown()),
            failed => Err(Error::new(Code::LogTruncated, still_stopped(failed))
                .with_hint(Hint::ReadStates)
                .with_hint(Hint::AcceptLoss)),
        }
    }

    /// Starts a rebuild.
    ///
    /// # Errors
    /// REBUILD_RUNNING. LOG_TRUNCATED: the log has lost records that the view was made from, and `accept_loss` is not set, or
    /// the view is never built without them. KAFKA_UNAVAILABLE: the offsets of the log are not known. NOT_FOUND or
    /// DOMAIN_NOT_SERVED: of the domain. The database failed.
    pub async fn rebuild(&self, domain: &str, accept_loss: bool) -> Result<Projection, Error> {
        let projection = self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        let may_lose = projection.may_lose_records();
        let begun = versions::create(
            pool,
            domain,
            projection.code_version(),
            accept_loss && may_lose,
        );
        let version = begun.await.map_err(|error| match error {
            VersionError::LogTruncated(lost) if !may_lose => never_without(&lost),
            error => version_error(error, Which::Building),
        })?;
        tracing::info!(
            domain,
            version,
            accept_loss,
            "an operator started a rebuild"
        );
        self.projection_now(domain).await
    }

    /// Cancels a rebuild, and removes what it has built.
    ///
    /// # Errors
    /// NO_REBUILD. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database failed.
    pub async fn cancel(&self, domain: &str) -> Result<Projection, Error> {
        let version = self.remove(domain, Which::Building).await?;
        tracing::info!(domain, version, "an operator cancelled a rebuild");
        self.projection_now(domain).await
    }

    /// Makes the version that is being built the live one.
    ///
    /// # Errors
    /// NO_REBUILD. NOT_CAUGHT_UP: the version is behind, or the two never reached the same
    /// positions for a comparison. VIEWS_DIFFER. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The
    /// database failed.
    pub async fn switch(
        &self,
        domain: &str,
        number: Option<i32>,
        compare: bool,
    ) -> Result<Projection, Error> {
        self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        let compared = if compare {
            // One at a time: a comparison may take as long as its caller waits, and must not occupy
            // the pool's connections.
            let _guard = self.0.comparing.lock().await;
            versions::compare(pool, domain, number, deadline::left()).await
        } else {
            Ok(())
        };
        if let Err(error) = compared {
            return Err(self.no_switch(domain, Which::Building, number, error).await);
        }
        let version = self.make_live(domain, Which::Building, number).await?;
        tracing::info!(domain, version, "an operator switched to the new version");
        self.projection_now(domain).await
    }

    /// Makes the version that was retired last the live one again.
    ///
    /// # Errors
    /// NO_RETIRED_VERSION. NOT_CAUGHT_UP. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The
    /// database failed.
    pub async fn rollback(&self, domain: &str, number: Option<i32>) -> Result<Projection, Error> {
        let version = self.make_live(domain, Which::Retired, number).await?;
        tracing::info!(
            domain,
            version,
            "an operator rolled back to the retired version"
        );
        self.projection_now(domain).await
    }

    /// Removes the version that was retired last.
    ///
    /// # Errors
    /// NO_RETIRED_VERSION. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database failed.
    pub async fn drop_retired(&self, domain: &str) -> Result<Projection, Error> {
        let version = self.remove(domain, Which::Retired).await?;
        tracing::info!(domain, version, "an operator dropped the retired version");
        self.projection_now(domain).await
    }

    /// Makes a version the live one. Returns its number.
    async fn make_live(
        &self,
        domain: &str,
        which: Which,
        number: Option<i32>,
    ) -> Result<i32, Error> {
        let projection = self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        let switched = versions::switch(pool, projection, which, number, switch_ends()).await;
        let version = match switched {
            Ok(version) => version,
            Err(error) => return Err(self.no_switch(domain, which, number, error).await),
        };
        self.0.retrier.announcements.announce(projection.domain());
        Ok(version)
    }

    /// Removes a version. Returns its number.
    async fn remove(&self, domain: &str, which: Which) -> Result<i32, Error> {
        let projection = self.projection(domain)?;
        let removed = versions::remove(&self.0.retrier.pool, projection, which).await;
        removed.map_err(|error| version_error(error, which))
    }

    /// The error of a switch or a rollback. Where there is no such version, it says to which one it could have led.
    async fn no_switch(
        &self,
        domain: &str,
        which: Which,
        wanted: Option<i32>,
        error: VersionError,
    ) -> Error {
        if !matches!(error, VersionError::NoSuchVersion) {
            return version_error(error, which);
        }
        match self.projection_now(domain).await {
            Ok(projection) => no_way_to(which, wanted, &projection.versions),
            Err(error) => error,
        }
    }
}

impl VersionRow {
    fn version(self, current: i32) -> ProjectionVersion {
        let pause = match (self.pause_reason, self.paused_by, self.paused_at) {
            (Some(reason), Some(by), Some(paused_at)) => Some(Pause {
                reason,
                by,
                paused_at,
            }),
            _ => None,
        };
        // The former release's processes may still go on with it.
        let is_left =
            self.state == "building" && self.code_version < current && self.rate.is_none();
        let left = is_left.then(|| "older_code".to_owned());
        let (done, whole) = (self.done, self.whole);
        let lag = whole.zip(done).map(|(whole, done)| whole - done);
        // Numbers of offsets are far below 2^52, so f64 is exact.
        #[allow(clippy::cast_precision_loss)]
        let progress = whole.zip(done).map(|(whole, done)| match whole {
            0 => 1.0,
            whole => done as f64 / whole as f64,
        });
        // After an old reading the log may have grown.
        let progress = progress.filter(|_| self.ends_are_fresh);
        let failure = self.failure.or(left);
        #[allow(clippy::cast_precision_loss)]
        let eta_seconds = match lag {
            // When it goes on is not known.
            _ if pause.is_some() || failure.is_some() || !self.ends_are_fresh => None,
            Some(0) => Some(0.0),
            Some(lag) => self.rate.map(|rate| lag as f64 / rate),
            None => None,
        };
        ProjectionVersion {
            version: self.version,
            // A CHECK of the table allows no other words.
            state: match self.state.as_str() {
                "live" => VersionState::Live,
                "building" => VersionState::Building,
                _ => VersionState::Retired,
            },
            code_version: self.code_version,
            outdated: self.code_version != current || self.mixed_code,
            created_at: self.created_at,
            retired_at: self.retired_at,
            drops_at: self.retired_at.map(|at| at + RETIRED_FOR),
            accepts_loss: self.accepts_loss,
            pause,
            stalled_since: self.stalled_since,
            failure,
            read: self.read,
            lag,
            progress,
            rate: self.rate,
            eta_seconds: eta_seconds.filter(|eta| eta.is_finite()),
            dead_letters: self.dead_letters,
        }
    }
}

/// The error where the domain has no version that is being built, or none that is retired.
fn no_version(which: Which, detail: &str) -> Error {
    let (code, problem) = match which {
        Which::Building => (Code::NoRebuild, "No version is being built."),
        Which::Retired | Which::Overdue => (
            Code::NoRetiredVersion,
            "No version is retired: versions retire at a switch, and are dropped a day later.",
        ),
    };
    Error::new(code, format!("{detail}{problem}"))
}

/// The error of a switch to the version that is being built, or of a rollback to the one that was retired last, where the
/// wanted one is another.
fn no_way_to(which: Which, wanted: Option<i32>, versions: &[ProjectionVersion]) -> Error {
    let last = |state: VersionState| {
        let of_state = versions.iter().filter(|version| version.state == state);
        let last = of_state.max_by_key(|version| version.retired_at);
        last.map(|version| version.version)
    };
    let (building, retired) = (last(VersionState::Building), last(VersionState::Retired));
    let (code, way, usable, other_way, usable_otherwise) = match which {
        Which::Building => (Code::NoRebuild, "switch", building, "rollback", retired),
        Which::Retired | Which::Overdue => (
            Code::NoRetiredVersion,
            "rollback",
            retired,
            "switch",
            building,
        ),
    };
    let mut detail = String::new();
    if let Some(number) = wanted {
        let found = versions.iter().find(|version| version.version == number);
        detail = match found.map(|version| version.state) {
            None => format!("There is no version {number}. "),
            Some(VersionState::Live) => format!("Version {number} is live. "),
            Some(VersionState::Building) => format!("Version {number} is being built. "),
            Some(VersionState::Retired) => format!("Version {number} is retired. "),
        };
        if usable_otherwise == wanted {
            let detail = format!("{detail}A {other_way} leads to it.");
            return Error::new(code, detail).with_hint(Hint::ListVersions);
        }
    }
    match usable {
        Some(number) => {
            let detail = format!("{detail}A {way} can lead to version {number} only.");
            Error::new(code, detail).with_hint(Hint::ListVersions)
        }
        None => no_version(which, &detail).with_hint(Hint::Rebuild),
    }
}

fn log_offsets_unknown() -> Error {
    Error::new(
        Code::KafkaUnavailable,
        "No process has read the offsets of the log recently. Try again when a process that projects the domain reaches \
         Kafka.",
    )
    .with_retry_after(Duration::from_secs(5))
}

/// Why a resumed domain does not progress everywhere.
fn still_stopped(partitions: i64) -> String {
    let (does, they) = match partitions {
        1 => ("does not progress: its log", "It continues"),
        _ => ("do not progress: their log", "They continue"),
    };
    format!(
        "The domain is resumed, but {} {does} is not the one that was projected. {they} within seconds if the log turns out to \
         be whole.",
        counted(partitions, "partition")
    )
}

/// A number and a noun: `1 record`, `2 records`.
fn counted(number: i64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// When a switch that starts now stops trying to get its lock: half of the caller's time is kept for the answer.
fn switch_ends() -> Instant {
    Instant::now() + SWITCH_BUDGET.min(deadline::left() / 2)
}

/// The error of an operation on the version of this kind.
fn version_error(error: VersionError, which: Which) -> Error {
    match error {
        VersionError::Database(error) => Error::from(error).in_statement("projector/versions"),
        VersionError::NoSuchVersion => no_version(which, "").with_hint(Hint::ListVersions),
        VersionError::OffsetsUnknown => log_offsets_unknown(),
        VersionError::Building(version) => Error::new(
            Code::RebuildRunning,
            format!("Version {version} is already being built. Switch to it, or cancel it."),
        ),
        VersionError::LogTruncated(lost) => log_truncated(&lost),
        VersionError::InUse {
            application,
            seconds,
        } => Error::new(
            Code::ViewInUse,
            format!(
                "The view's tables are in use: {application} has read them for {seconds} s, as a backup does. A switch would \
                 hold up all reads behind it. Try again when it has ended."
            ),
        ),
        VersionError::Behind {
            topic,
            partition,
            behind,
            stopped_by,
        } => {
            let advice = match stopped_by {
                Some(reason) => format!(
                    ", and does not progress ({reason}). Resume the domain and wait until the version has caught up, or \
                     build another one."
                ),
                None => ". Try again when it has caught up.".to_owned(),
            };
            Error::new(
                Code::NotCaughtUp,
                format!(
                    "The version is {} behind in {topic}/{partition}{advice}",
                    counted(behind, "record")
                ),
            )
        }
        VersionError::NeverLevel {
            stopped_by: Some(reason),
        } => Error::new(
            Code::NotCaughtUp,
            format!(
                "The versions can't be compared, because one of them does not progress ({reason}) and is at other \
                 positions. Resume the domain first, or switch without comparing."
            ),
        ),
        VersionError::NeverLevel { stopped_by: None } => Error::new(
            Code::NotCaughtUp,
            "The versions can't be compared, because they did not reach the same positions while both were projecting. \
             Try again when fewer records arrive, or switch without comparing.",
        ),
        VersionError::Different(tables) => Error::new(
            Code::ViewsDiffer,
            format!(
                "At the same positions the versions differ in {}. If a change of the code or dead letters explain the \
                 difference, switch without comparing.",
                tables.join(", ")
            ),
        ),
    }
}

/// The error for a rebuild that would lack records, because the log has lost them.
fn log_truncated(lost: &[Lost]) -> Error {
    let detail = format!(
        "The view was made from {}. The new version would lack the lost records.",
        named(lost)
    );
    Error::new(Code::LogTruncated, detail).with_hint(Hint::AcceptLoss)
}

/// The same error of a view that is the only record of what the log has lost.
fn never_without(lost: &[Lost]) -> Error {
    let detail = format!(
        "The view was made from {}. It is kept: a new version would lack the lost records, of which it is the only record.",
        named(lost)
    );
    Error::new(Code::LogTruncated, detail)
}

/// Lost records, by partition.
fn named(lost: &[Lost]) -> String {
    let mut partitions: Vec<String> = lost
        .iter()
        .take(MAX_LOST_NAMED)
        .map(|lost| {
            let problem = match lost.kind {
                LossKind::Truncated(start) => format!("begins at offset {start}"),
                LossKind::TailLost => "was shorter than what had been read of it".to_owned(),
                LossKind::Recreated => {
                    "is of a topic that was deleted and created again".to_owned()
                }
            };
            format!(
                "{}/{} from offset {} on, but the log {problem}",
                lost.topic, lost.partition, lost.wanted
            )
        })
        .collect();
    if lost.len() > MAX_LOST_NAMED {
        partitions.push(format!("{} more", lost.len() - MAX_LOST_NAMED));
    }
    partitions.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version((version, state): (i32, &str)) -> ProjectionVersion {
        let retired_at = (state == "retired").then(|| format!("2026-10-0{version}T00:00:00Z"));
        serde_json::from_value(json!({
            "version": version, "state": state, "retiredAt": retired_at, "codeVersion": 1, "outdated": false,
            "createdAt": "2026-10-01T00:00:00Z", "acceptsLoss": false, "read": 0, "deadLetters": 0,
        }))
        .unwrap()
    }

    #[test]
    fn one_is_not_plural() {
        let one = still_stopped(1);
        assert!(
            one.contains("1 partition does not progress: its log"),
            "{one}"
        );
        let two = still_stopped(2);
        assert!(
            two.contains("2 partitions do not progress: their log"),
            "{two}"
        );
        let behind = |behind| {
            let error = VersionError::Behind {
                topic: "t".to_owned(),
                partition: 0,
                behind,
                stopped_by: None,
            };
            version_error(error, Which::Building).detail().to_owned()
        };
        assert!(behind(1).contains("is 1 record behind"), "{}", behind(1));
        assert!(behind(3).contains("is 3 records behind"), "{}", behind(3));
    }

    /// A row of a version that has read this much of the log.
    fn row(done: i64, whole: Option<i64>, ends_are_fresh: bool) -> ProjectionVersion {
        let row = VersionRow {
            domain: "order".to_owned(),
            version: 1,
            state: "live".to_owned(),
            code_version: 1,
            mixed_code: false,
            created_at: DateTime::UNIX_EPOCH,
            retired_at: None,
            accepts_loss: false,
            paused_at: None,
            paused_by: None,
            pause_reason: None,
            stalled_since: None,
            failure: None,
            read: done,
            done: Some(done),
            whole,
            ends_are_fresh,
            rate: Some(5.0),
            dead_letters: 0,
        };
        row.version(1)
    }

    #[test]
    fn a_version_is_done_only_where_the_end_of_the_log_is_known() {
        let figures = |done, whole, is_fresh| {
            let version = row(done, whole, is_fresh);
            (version.lag, version.progress, version.eta_seconds)
        };
        assert_eq!(figures(10, Some(10), true), (Some(0), Some(1.0), Some(0.0)));
        assert_eq!(figures(5, Some(10), true), (Some(5), Some(0.5), Some(1.0)));
        assert_eq!(figures(10, Some(10), false), (Some(0), None, None));
        assert_eq!(figures(5, Some(10), false), (Some(5), None, None));
        assert_eq!(figures(5, None, false), (None, None, None));
    }

    #[test]
    fn a_refused_switch_names_the_version_that_it_can_lead_to() {
        let live = (3, "live");
        for (versions, wanted, switch, rollback) in [
            (
                &[live][..],
                Some(7),
                "There is no version 7. No version is being built.",
                "There is no version 7. No version is retired: versions retire at a switch, and are dropped a day later.",
            ),
            (
                &[live],
                None,
                "No version is being built.",
                "No version is retired: versions retire at a switch, and are dropped a day later.",
            ),
            (
                &[live, (4, "building"), (1, "retired"), (2, "retired")],
                Some(1),
                "Version 1 is retired. A switch can lead to version 4 only.",
                "Version 1 is retired. A rollback can lead to version 2 only.",
            ),
            (
                &[live, (4, "building"), (2, "retired")],
                Some(7),
                "There is no version 7. A switch can lead to version 4 only.",
                "There is no version 7. A rollback can lead to version 2 only.",
            ),
            (
                &[live, (2, "retired")],
                Some(2),
                "Version 2 is retired. A rollback leads to it.",
                // Not refused, unless it has just been retired.
                "Version 2 is retired. A rollback can lead to version 2 only.",
            ),
            (
                &[live, (4, "building")],
                Some(4),
                "Version 4 is being built. A switch can lead to version 4 only.",
                "Version 4 is being built. A switch leads to it.",
            ),
        ] {
            let versions: Vec<_> = versions.iter().copied().map(version).collect();
            let refused = |which| no_way_to(which, wanted, &versions);
            assert_eq!(refused(Which::Building).detail(), switch);
            assert_eq!(refused(Which::Retired).detail(), rollback);
        }
    }
}
