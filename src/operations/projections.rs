//! Projections: what versions of views there are, how far each has come, and what operators make of them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Operations, check_reason};
use crate::error::{Code, Error};
use crate::projector::pause;
use crate::projector::versions::{self, LogChange, RETIRED_FOR, VersionError, Which};
use crate::query::deadline;
use crate::query::lag::DomainState;

/// Of how many lost partitions is told each by itself.
const TOLD: usize = 10;

/// All projections that this process serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Projections {
    /// In the order of their domains' names.
    pub projections: Vec<Projection>,
}

/// A domain's projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Projection {
    /// The domain's name.
    pub domain: String,
    /// What it is doing, as the lag has it.
    pub state: DomainState,
    /// Whether the code would build another view now than the one that is read.
    pub outdated: bool,
    /// Its versions, the live one first.
    pub versions: Vec<ProjectionVersion>,
}

/// What a version of a view is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Reads are answered from it.
    Live,
    /// It is being built.
    Building,
    /// It was the live one, and goes on so that there is a way back.
    Retired,
}

/// A version of a view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionVersion {
    /// Its number, from 1 on.
    pub version: i32,
    /// What it is for.
    pub state: VersionState,
    /// The version of the code that built it.
    pub code_version: i32,
    /// Whether the code would build another view now: rebuild it.
    pub outdated: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When another one became the live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<DateTime<Utc>>,
    /// When it is dropped by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_at: Option<DateTime<Utc>>,
    /// Whether it was built although the log does not reach back to where the view began.
    pub accepts_loss: bool,
    /// Why it stands still, if it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Why partitions of it stand still, in one word, if an operator has to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Records read.
    pub read: i64,
    /// Offsets between its positions and the ends of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// How much of the log it has read, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Records per second, lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Seconds until it has come to the end of the log, at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// Dead letters that are neither applied nor discarded.
    pub dead_letters: i64,
}

/// Why a version stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// In whose words.
    pub reason: String,
    /// Who paused it: `operator` or `sightline`.
    pub by: String,
    /// Since when.
    pub paused_at: DateTime<Utc>,
}

struct Row {
    domain: String,
    version: i32,
    state: String,
    code_version: i32,
    created_at: DateTime<Utc>,
    retired_at: Option<DateTime<Utc>>,
    accepts_loss: bool,
    paused_at: Option<DateTime<Utc>>,
    paused_by: Option<String>,
    pause_reason: Option<String>,
    failure: Option<String>,
    read: i64,
    done: Option<i64>,
    whole: Option<i64>,
    rate: Option<f64>,
    dead_letters: i64,
}

impl Operations {
    /// All projections that this process serves.
    ///
    /// # Errors
    /// The database fails.
    pub async fn projections(&self) -> Result<Projections, Error> {
        // What the lag last knew will not do here: decisions are made on it.
        let rows = sqlx::query_file_as!(Row, "src/operations/sql/versions.sql", &self.served())
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

    /// Pauses projection of a domain, of all versions but one that is being built; reads go on.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the reason is none. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn pause(&self, domain: &str, reason: Option<&str>) -> Result<Projection, Error> {
        self.projection(domain)?;
        reason.map_or(Ok(()), check_reason)?;
        pause::pause(&self.0.retrier.pool, domain, reason).await?;
        tracing::info!(domain, "an operator paused projection");
        self.projection_now(domain).await
    }

    /// Lets projection of a domain go on.
    ///
    /// # Errors
    /// LOG_TRUNCATED: it was resumed, but partitions stand still because their log is not the one that was projected.
    /// NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn resume(&self, domain: &str, accept_loss: bool) -> Result<Projection, Error> {
        self.projection(domain)?;
        let left = pause::resume(&self.0.retrier.pool, domain, accept_loss).await?;
        tracing::info!(domain, accept_loss, "an operator resumed projection");
        match left {
            0 => self.projection_now(domain).await,
            _ if accept_loss => Err(ends_unknown()),
            left => Err(Error::new(
                Code::LogTruncated,
                format!(
                    "The domain is resumed, but {left} partitions stand still: their log is not the one that was \
                     projected; /v1/consistency says how. Where that mends they go on by themselves within seconds. \
                     Else rebuild with acceptLoss, or resume with acceptLoss."
                ),
            )),
        }
    }

    /// Begins a rebuild.
    ///
    /// # Errors
    /// REBUILD_RUNNING. LOG_TRUNCATED: the log does not reach back, and nobody said `accept_loss`.
    /// KAFKA_UNAVAILABLE: nobody knows. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn rebuild(&self, domain: &str, accept_loss: bool) -> Result<Projection, Error> {
        let code_version = self.projection(domain)?.code_version();
        let pool = &self.0.retrier.pool;
        let version = versions::create(pool, domain, code_version, accept_loss)
            .await
            .map_err(refused)?;
        tracing::info!(domain, version, accept_loss, "an operator began a rebuild");
        self.projection_now(domain).await
    }

    /// Ends a rebuild.
    ///
    /// # Errors
    /// NO_REBUILD. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn cancel(&self, domain: &str) -> Result<Projection, Error> {
        self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        let version = versions::remove(pool, domain, Which::Building)
            .await
            .map_err(|error| none_or(error, no_rebuild))?;
        tracing::info!(domain, version, "an operator ended a rebuild");
        self.projection_now(domain).await
    }

    /// Makes the version that is being built the live one.
    ///
    /// # Errors
    /// NO_REBUILD. NOT_CAUGHT_UP: it is behind, or never stood where the live one did while they were to be compared.
    /// VIEWS_DIFFER. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn switch(
        &self,
        domain: &str,
        number: Option<i32>,
        compare: bool,
    ) -> Result<Projection, Error> {
        self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        if compare {
            // One at a time: it may take as long as a caller waits, and others need a connection, too.
            let _place = self.0.comparing.lock().await;
            let compared = versions::compare(pool, domain, number, deadline::left());
            compared.await.map_err(|error| none_or(error, no_rebuild))?;
        }
        let version = versions::switch(pool, domain, Which::Building, number)
            .await
            .map_err(|error| none_or(error, no_rebuild))?;
        tracing::info!(
            domain,
            version,
            "an operator switched to the version that was built"
        );
        self.projection_now(domain).await
    }

    /// Makes the version that was retired last the live one again.
    ///
    /// # Errors
    /// NO_RETIRED_VERSION. NOT_CAUGHT_UP. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn rollback(&self, domain: &str, number: Option<i32>) -> Result<Projection, Error> {
        self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        let version = versions::switch(pool, domain, Which::Retired, number)
            .await
            .map_err(|error| none_or(error, no_retired))?;
        tracing::info!(
            domain,
            version,
            "an operator went back to the retired version"
        );
        self.projection_now(domain).await
    }

    /// Removes the version that was retired last.
    ///
    /// # Errors
    /// NO_RETIRED_VERSION. NOT_FOUND or DOMAIN_NOT_SERVED: of the domain. The database fails.
    pub async fn drop_retired(&self, domain: &str) -> Result<Projection, Error> {
        self.projection(domain)?;
        let pool = &self.0.retrier.pool;
        let version = versions::remove(pool, domain, Which::Retired)
            .await
            .map_err(|error| none_or(error, no_retired))?;
        tracing::info!(domain, version, "an operator dropped the retired version");
        self.projection_now(domain).await
    }
}

impl Row {
    fn version(self, current: i32) -> ProjectionVersion {
        let pause = match (self.pause_reason, self.paused_by, self.paused_at) {
            (Some(reason), Some(by), Some(paused_at)) => Some(Pause {
                reason,
                by,
                paused_at,
            }),
            _ => None,
        };
        let (done, whole) = (self.done, self.whole);
        let lag = whole.zip(done).map(|(whole, done)| whole - done);
        // Counts of offsets are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let progress = whole.zip(done).map(|(whole, done)| match whole {
            0 => 1.0,
            whole => done as f64 / whole as f64,
        });
        #[allow(clippy::cast_precision_loss)]
        let eta_seconds = match lag {
            Some(0) => Some(0.0),
            Some(lag) => self.rate.map(|rate| lag as f64 / rate),
            None => None,
        };
        ProjectionVersion {
            version: self.version,
            // The table allows no other words.
            state: match self.state.as_str() {
                "live" => VersionState::Live,
                "building" => VersionState::Building,
                _ => VersionState::Retired,
            },
            code_version: self.code_version,
            outdated: self.code_version != current,
            created_at: self.created_at,
            retired_at: self.retired_at,
            drops_at: self.retired_at.map(|at| at + RETIRED_FOR),
            accepts_loss: self.accepts_loss,
            pause,
            failure: self.failure,
            read: self.read,
            lag,
            progress,
            rate: self.rate,
            eta_seconds: eta_seconds.filter(|eta| eta.is_finite()),
            dead_letters: self.dead_letters,
        }
    }
}

fn no_rebuild() -> Error {
    Error::new(
        Code::NoRebuild,
        "No version is being built, or not that one. Begin a rebuild first; /v1/projections lists what there is.",
    )
}

fn no_retired() -> Error {
    Error::new(
        Code::NoRetiredVersion,
        "There is no retired version, or that one is not the last: none was switched from, or it was dropped. \
         /v1/projections lists what there is.",
    )
}

fn ends_unknown() -> Error {
    Error::new(
        Code::KafkaUnavailable,
        "No process has read lately where the log begins. Try again when one that projects the domain reaches Kafka.",
    )
    .with_retry_after(std::time::Duration::from_secs(5))
}

fn none_or(error: VersionError, none: fn() -> Error) -> Error {
    match error {
        VersionError::NoSuchVersion => none(),
        error => refused(error),
    }
}

fn refused(error: VersionError) -> Error {
    match error {
        VersionError::Database(error) => Error::from(error).in_statement("projector/versions"),
        VersionError::NoSuchVersion => no_rebuild(),
        VersionError::OffsetsUnknown => ends_unknown(),
        VersionError::Building(version) => Error::new(
            Code::RebuildRunning,
            format!("Version {version} is being built already. Switch to it, or cancel it."),
        ),
        VersionError::LogTruncated(lost) => {
            let told = lost.iter().take(TOLD).map(|lost| {
                let how = match lost.change {
                    LogChange::Truncated(start) => format!("reaches back to offset {start} only"),
                    LogChange::TailLost => "was shorter than what was read of it".to_owned(),
                    LogChange::Recreated => "is of a topic that was created anew".to_owned(),
                };
                format!(
                    "{}/{} from offset {} on, and the log {how}",
                    lost.topic, lost.partition, lost.wanted
                )
            });
            let mut told = told.collect::<Vec<_>>().join("; ");
            if lost.len() > TOLD {
                told.push_str(&format!("; and {} partitions more", lost.len() - TOLD));
            }
            Error::new(
                Code::LogTruncated,
                format!(
                    "The view was made from {told}. What is lost would be missing in the new version; \
                     {{\"acceptLoss\": true}} builds it all the same."
                ),
            )
        }
        VersionError::Behind {
            topic,
            partition,
            behind,
            stopped_by,
        } => {
            let problem = format!("The version is {behind} records behind in {topic}/{partition}");
            let what = match stopped_by {
                Some(why) => format!(
                    ", and stands still ({why}). Resume the domain and wait until it has caught up, or build another \
                     version."
                ),
                None => ". Try again when it has caught up.".to_owned(),
            };
            Error::new(Code::NotCaughtUp, problem + &what)
        }
        VersionError::NeverLevel {
            stopped_by: Some(why),
        } => Error::new(
            Code::NotCaughtUp,
            format!(
                "One of the versions stands still ({why}), so that they don't stand at the same positions. Resume the \
                 domain first, or switch without comparing."
            ),
        ),
        VersionError::NeverLevel { stopped_by: None } => Error::new(
            Code::NotCaughtUp,
            "The versions did not come to stand at the same positions while both were projecting. Try again when less \
             comes in, or switch without comparing.",
        ),
        VersionError::Different(tables) => Error::new(
            Code::ViewsDiffer,
            format!(
                "At the same positions the versions differ in {}. Where the code or dead letters explain that, switch \
                 without comparing.",
                tables.join(", ")
            ),
        ),
    }
}
