//! The versions of a view: which there are, a new one beside the live one, the switch between them, and their end.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::FeedPosition;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// A version is being built already.
    #[error("version {0} is being built already")]
    Building(i32),
    /// The domain has no version of the kind that was asked for.
    #[error("there is no such version")]
    NoSuchVersion,
    /// Logs that the view was made from are not what they were.
    #[error("{} partitions can't be read any more from where the view began", .0.len())]
    LogTruncated(Vec<Lost>),
    /// Nobody has read lately where the logs begin and end.
    #[error("the ends of the log are not known at the moment")]
    EndsUnknown,
    /// It has not read as far as the live one.
    #[error(
        "the version is {behind} records behind the live one in partition {partition} of {topic}"
    )]
    Behind {
        /// The topic of a partition that lacks records.
        topic: String,
        /// Its number.
        partition: i32,
        /// How many offsets lie between the two positions.
        behind: i64,
        /// Why it stands still, in one word, if it does.
        still: Option<String>,
    },
    /// The two versions never stood at the same positions while it was tried.
    #[error("the versions did not come to stand at the same positions")]
    NeverLevel {
        /// Why one of them stands still, in one word, if one does.
        still: Option<String>,
    },
    /// At the same positions the versions hold different rows.
    #[error("the tables {} differ", .0.join(", "))]
    Different(Vec<String>),
    /// Nothing was changed, unless the answer to a COMMIT was lost.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// A partition that can't be read any more from where a view began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Where the view began.
    pub wanted: i64,
    /// What is the matter.
    pub how: How,
}

/// How a log is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It begins here now.
    Begins(i64),
    /// It was found to be shorter than what was read of it.
    TailLost,
    /// The topic was created anew.
    Recreated,
}

/// Which version of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is being built.
    Building,
    /// The one that was the live one last.
    Retired,
    /// One that was retired so long ago that nobody wants it back.
    Overdue,
}

impl Which {
    fn state(self) -> &'static str {
        match self {
            Which::Building => "building",
            Which::Retired | Which::Overdue => "retired",
        }
    }

    /// For how long it has been what it is.
    fn since(self) -> TimeDelta {
        match self {
            Which::Building | Which::Retired => TimeDelta::zero(),
            Which::Overdue => RETIRED_FOR,
        }
    }
}

/// How long a version goes on after another one became the live one: so long the way back is open.
pub const RETIRED_FOR: TimeDelta = TimeDelta::hours(24);
/// How often, and after which pauses, it is tried to find two versions at the same positions.
const LEVEL: (u32, Duration) = (30, Duration::from_millis(200));
/// How long the removal of a version may take, whose letters may be many.
const REMOVE_TIMEOUT: &str = "10min";

/// Makes a version beside the live one, with the same tables, empty, and progress that begins where the live
/// one's began; with `accept_loss`, where that is no more, at the beginning that the log has now. Projectors find it by
/// themselves. Returns its number.
///
/// # Errors
/// One is being built already, the log does not reach back, its ends are not known, or the database failed.
pub async fn create(
    pool: &PgPool,
    domain: &str,
    code_version: i32,
    accept_loss: bool,
) -> Result<i32, VersionError> {
    let mut transaction = pool.begin().await?;
    lock(&mut transaction, domain).await?;
    if let Some((building, _)) = find(&mut transaction, domain, Which::Building).await? {
        return Err(VersionError::Building(building));
    }
    // Who takes a record out holds these rows: what he has done is seen by whoever projects the new version.
    let live = live(&mut transaction, domain).await?;
    sqlx::query_file!("src/projector/sql/lock_versions.sql", domain, &[live])
        .fetch_all(&mut *transaction)
        .await?;
    let logs = sqlx::query_file!("src/projector/sql/reach.sql", domain)
        .fetch_all(&mut *transaction)
        .await?;
    let mut lost = Vec::new();
    for log in logs {
        // Of a topic that was created anew nobody reads the ends any more.
        let how = match log.log_start {
            _ if log.is_another => How::Recreated,
            None => return Err(VersionError::EndsUnknown),
            Some(_) if log.lost_tail => How::TailLost,
            Some(start) if start > log.start_offset => How::Begins(start),
            Some(_) => continue,
        };
        lost.push(Lost {
            topic: log.topic,
            partition: log.partition,
            wanted: log.start_offset,
            how,
        });
    }
    if !lost.is_empty() && !accept_loss {
        return Err(VersionError::LogTruncated(lost));
    }
    let version = sqlx::query_scalar!(
        "UPDATE sightline.domains SET last_version = last_version + 1 WHERE domain = $1 RETURNING last_version",
        domain
    )
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query_file!(
        "src/projector/sql/create_version.sql",
        domain,
        version,
        format!("{domain}_v{version}"),
        code_version
    )
    .execute(&mut *transaction)
    .await?;
    let tables = sqlx::query_file_scalar!(
        "src/projector/sql/view_tables.sql",
        format!("{domain}_live"),
        format!("{domain}_v{version}")
    )
    .fetch_all(&mut *transaction)
    .await?;
    for statement in tables {
        // Made by the database's own format(), with identifiers quoted.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query_file!("src/projector/sql/copy_starts.sql", domain, version)
        .execute(&mut *transaction)
        .await?;
    let counted = format!(
        r#"UPDATE "{domain}_v{version}".view_version SET logs =
           (SELECT count(*)::integer FROM sightline.progress WHERE domain = $1 AND version = $2)"#
    );
    sqlx::query(AssertSqlSafe(counted))
        .bind(domain)
        .bind(version)
        .execute(&mut *transaction)
        .await?;
    sqlx::query!(
        "UPDATE sightline.views SET accepts_loss = $3 WHERE domain = $1 AND version = $2",
        domain,
        version,
        accept_loss
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(version)
}

/// PartitionOffsets a version and removes all that is its own: tables, progress, letters. Returns its number.
///
/// # Errors
/// There is none of that kind, or the database failed.
pub async fn remove(pool: &PgPool, domain: &str, which: Which) -> Result<i32, VersionError> {
    let mut transaction = pool.begin().await?;
    // Mostly there is none, which needs no lock.
    let found = find(&mut transaction, domain, which).await?;
    found.ok_or(VersionError::NoSuchVersion)?;
    lock(&mut transaction, domain).await?;
    let (version, schema) = find(&mut transaction, domain, which)
        .await?
        .ok_or(VersionError::NoSuchVersion)?;
    limit_statements(&mut transaction, REMOVE_TIMEOUT).await?;
    // Batches under way end first; whoever comes later finds no row.
    fence(&mut transaction, domain, &[version]).await?;
    sqlx::query!(
        "DELETE FROM sightline.views WHERE domain = $1 AND version = $2",
        domain,
        version
    )
    .execute(&mut *transaction)
    .await?;
    // Names of domains are the code's own, versions are numbers.
    sqlx::query(AssertSqlSafe(format!(r#"DROP SCHEMA "{schema}" CASCADE"#)))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(version)
}

/// The version of a kind that became it last, and its schema.
async fn find(
    connection: &mut PgConnection,
    domain: &str,
    which: Which,
) -> Result<Option<(i32, String)>, sqlx::Error> {
    let found = sqlx::query!(
        "SELECT version, schema_name FROM sightline.views
         WHERE domain = $1 AND state = $2 AND ($3::float8 = 0 OR retired_at < now() - make_interval(secs => $3))
         ORDER BY retired_at DESC NULLS LAST, version DESC LIMIT 1",
        domain,
        which.state(),
        which.since().as_seconds_f64(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|row| (row.version, row.schema_name)))
}

/// Makes a version the live one, for reads that begin from then on; the former one goes on projecting. Returns its
/// number. Where a `number` is given, this one only; if it is the live one already, that is as good.
///
/// # Errors
/// There is no such version, it is behind the live one in some partition, or the database failed.
pub async fn switch(
    pool: &PgPool,
    domain: &str,
    which: Which,
    number: Option<i32>,
) -> Result<i32, VersionError> {
    let mut transaction = pool.begin().await?;
    lock(&mut transaction, domain).await?;
    if let Some(number) = number
        && live(&mut transaction, domain).await? == number
    {
        return Ok(number);
    }
    let version = make_live(&mut transaction, domain, which, number).await?;
    transaction.commit().await?;
    Ok(version)
}

/// Within a transaction that has the domain's lock.
///
/// The progress rows of both are taken first, and their epochs raised: a batch that chose its schema before
/// the names changed fails its comparison. The lock on what tells a reader its version keeps a read from
/// seeing the tables of one version and the progress of the other.
async fn make_live(
    connection: &mut PgConnection,
    domain: &str,
    which: Which,
    number: Option<i32>,
) -> Result<i32, VersionError> {
    let (version, schema) = find(&mut *connection, domain, which)
        .await?
        .filter(|(version, _)| number.is_none_or(|number| number == *version))
        .ok_or(VersionError::NoSuchVersion)?;
    let live = live(&mut *connection, domain).await?;
    fence(&mut *connection, domain, &[live, version]).await?;
    if let Some(row) =
        sqlx::query_file!("src/projector/sql/first_behind.sql", domain, live, version)
            .fetch_optional(&mut *connection)
            .await?
    {
        return Err(VersionError::Behind {
            topic: row.topic,
            partition: row.partition,
            behind: row.behind,
            still: still(&mut *connection, domain, &[version]).await?,
        });
    }
    let (live_schema, former) = (format!("{domain}_live"), format!("{domain}_v{live}"));
    note_moved_changes(
        &mut *connection,
        domain,
        (live, &live_schema),
        (version, &schema),
    )
    .await?;
    // Other versions' letters of the same records are not published again.
    sqlx::query_file!(
        "src/projector/sql/carry_published.sql",
        domain,
        live,
        version
    )
    .execute(&mut *connection)
    .await?;
    for statement in [
        format!(
            r#"LOCK TABLE "{live_schema}".view_version, "{schema}".view_version IN ACCESS EXCLUSIVE MODE"#
        ),
        format!(r#"ALTER SCHEMA "{live_schema}" RENAME TO "{former}""#),
        format!(r#"ALTER SCHEMA "{schema}" RENAME TO "{live_schema}""#),
    ] {
        // Names of domains are the code's own, versions are numbers.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
    }
    // There is one live version at any time.
    for (version, schema, state) in [(live, &former, "retired"), (version, &live_schema, "live")] {
        sqlx::query!(
            "UPDATE sightline.views
             SET schema_name = $3, state = $4, retired_at = CASE WHEN $4 = 'retired' THEN now() END
             WHERE domain = $1 AND version = $2",
            domain,
            version,
            schema,
            state,
        )
        .execute(&mut *connection)
        .await?;
    }
    // What an operator paused stands still until one resumes it, whichever version is read.
    sqlx::query!(
        "UPDATE sightline.views AS v
         SET paused_at = former.paused_at, paused_by = former.paused_by, pause_reason = former.pause_reason
         FROM sightline.views AS former
         WHERE v.domain = $1 AND v.version = $3
           AND former.domain = $1 AND former.version = $2 AND former.paused_by = 'operator'",
        domain,
        live,
        version,
    )
    .execute(&mut *connection)
    .await?;
    Ok(version)
}

/// Notes a switch between two versions, each with its schema, and up to which places cursors of the one mean something
/// else in the other.
async fn note_moved_changes(
    connection: &mut PgConnection,
    domain: &str,
    (from, from_schema): (i32, &str),
    (to, to_schema): (i32, &str),
) -> Result<(), sqlx::Error> {
    let switch = sqlx::query_file_scalar!("src/projector/sql/note_switch.sql", domain, from, to)
        .fetch_one(&mut *connection)
        .await?;
    let forget = sqlx::query_file_scalar!(
        "src/projector/sql/forget_silent_moves.sql",
        from_schema,
        to_schema,
        FeedPosition::MAX_ROWS
    )
    .fetch_one(&mut *connection)
    .await?;
    // Made by the database's own format(), with identifiers quoted.
    sqlx::query(AssertSqlSafe(forget))
        .bind(switch)
        .execute(&mut *connection)
        .await?;
    sqlx::query_file!(
        "src/projector/sql/note_losses.sql",
        domain,
        from,
        to,
        switch
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Why one of some versions stands still: `paused`, or how its log is another one.
async fn still(
    connection: &mut PgConnection,
    domain: &str,
    versions: &[i32],
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT coalesce(
             (SELECT 'paused' FROM sightline.views
              WHERE domain = $1 AND version = ANY ($2) AND paused_at IS NOT NULL LIMIT 1),
             (SELECT failure FROM sightline.progress
              WHERE domain = $1 AND version = ANY ($2) AND failure IS NOT NULL AND ended_at IS NULL LIMIT 1))",
        domain,
        versions
    )
    .fetch_one(connection)
    .await
}

async fn live(connection: &mut PgConnection, domain: &str) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT version FROM sightline.views WHERE domain = $1 AND state = 'live'",
        domain
    )
    .fetch_one(connection)
    .await
}

/// Compares the version that is being built with the live one, in a snapshot in which both stand at the same positions:
/// what follows is the same log for both. Projection goes on meanwhile. No statement runs on for longer than `within`. Where
/// a `number` is given that is the live one's already, there is nothing to compare.
///
/// # Errors
/// There is no such version, the two never stand at the same positions or hold different rows there, or the database
/// failed.
pub async fn compare(
    pool: &PgPool,
    domain: &str,
    number: Option<i32>,
    within: Duration,
) -> Result<(), VersionError> {
    let until = Instant::now() + within;
    let mut tries = 1;
    while let Err(error) = compare_once(pool, domain, number, until).await {
        if !matches!(error, VersionError::NeverLevel { .. }) || tries == LEVEL.0 {
            return Err(error);
        }
        tries += 1;
        tokio::time::sleep(LEVEL.1).await;
    }
    Ok(())
}

async fn compare_once(
    pool: &PgPool,
    domain: &str,
    number: Option<i32>,
    until: Instant,
) -> Result<(), VersionError> {
    let mut snapshot = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let live = live(&mut snapshot, domain).await?;
    if number == Some(live) {
        return Ok(());
    }
    let (version, schema) = find(&mut snapshot, domain, Which::Building)
        .await?
        .filter(|(version, _)| number.is_none_or(|number| number == *version))
        .ok_or(VersionError::NoSuchVersion)?;
    if !is_level(&mut snapshot, domain, live, version).await? {
        let still = still(&mut snapshot, domain, &[live, version]).await?;
        return Err(VersionError::NeverLevel { still });
    }
    let ours = checksums(&mut snapshot, &format!("{domain}_live"), until).await?;
    let theirs = checksums(&mut snapshot, &schema, until).await?;
    let different = ours
        .into_iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| (ours != theirs).then_some(ours.0));
    let different: Vec<String> = different.collect();
    match different.is_empty() {
        true => Ok(()),
        false => Err(VersionError::Different(different)),
    }
}

/// Whether two versions stand at the same positions in all logs.
async fn is_level(
    connection: &mut PgConnection,
    domain: &str,
    live: i32,
    version: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM sightline.progress WHERE domain = $1 AND version IN ($2, $3) AND ended_at IS NULL
               GROUP BY log_id HAVING count(*) <> 2 OR min(next_offset) <> max(next_offset)) AS "level!""#,
        domain,
        live,
        version,
    )
    .fetch_one(connection)
    .await
}

/// What the tables of a version hold, whatever its batches were: names, and sums over rows.
async fn checksums(
    connection: &mut PgConnection,
    schema: &str,
    until: Instant,
) -> Result<Vec<(String, i64, String)>, sqlx::Error> {
    let tables = sqlx::query_file!("src/projector/sql/checksums.sql", schema)
        .fetch_all(&mut *connection)
        .await?;
    let mut sums = Vec::new();
    for table in tables {
        let left = until.saturating_duration_since(Instant::now());
        // 0 would be no limit.
        limit_statements(connection, &format!("{}ms", left.as_millis().max(1))).await?;
        // Made by the database's own format(), with identifiers quoted.
        let (rows, sum) = sqlx::query_as(AssertSqlSafe(table.statement))
            .fetch_one(&mut *connection)
            .await?;
        sums.push((table.name, rows, sum));
    }
    Ok(sums)
}

/// How long each of the transaction's next statements may run.
async fn limit_statements(connection: &mut PgConnection, time: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('statement_timeout', $1, true)")
        .bind(time)
        .execute(connection)
        .await
        .map(drop)
}

/// Takes the progress rows of versions, in the order of the key, as everybody does who takes several, and fences
/// their owners. The epochs of one log come to be the same in all of these versions, so that what is done in one after
/// another became the live one lies behind what was done in that.
///
/// # Errors
/// The database failed.
pub async fn fence(
    connection: &mut PgConnection,
    domain: &str,
    versions: &[i32],
) -> Result<(), sqlx::Error> {
    sqlx::query_file!("src/projector/sql/lock_versions.sql", domain, versions)
        .fetch_all(&mut *connection)
        .await?;
    sqlx::query_file!("src/projector/sql/fence_versions.sql", domain, versions)
        .execute(connection)
        .await
        .map(drop)
}

/// One change of a domain's versions at a time, and none while partitions are added.
///
/// # Errors
/// The database failed.
pub async fn lock(connection: &mut PgConnection, domain: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('sightline.progress.' || $1, 0))",
        domain
    )
    .execute(connection)
    .await
    .map(drop)
}
