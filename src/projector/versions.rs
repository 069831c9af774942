//! The versions of a view: building a new one next to the live one, the switch between them, and their removal.
//!
//! Promises: a domain has one live version at any time; a switch is atomic for projectors, which it fences, and for reads,
//! which see either version whole.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::{FeedPosition, Projection};
use crate::db::{self, LacksDomain};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// A version is being built already.
    #[error("version {0} is being built already")]
    Building(i32),
    /// The domain has no version of the kind that was asked for.
    #[error("there is no such version")]
    NoSuchVersion,
    /// Logs no longer hold what the view was made from.
    #[error("partitions that can no longer be read from where the view began: {}", .0.len())]
    LogTruncated(Vec<Lost>),
    /// The logs' offsets were not read lately.
    #[error("the offsets of the log are not known at the moment")]
    OffsetsUnknown,
    /// It has not read as far as the live one.
    #[error("the version is behind the live one in partition {partition} of {topic}, by {behind}")]
    Behind {
        /// The topic of a partition that lacks records.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// How many offsets lie between the two positions.
        behind: i64,
        /// What stops the version (`paused`, or a failure), if something does.
        stopped_by: Option<String>,
    },
    /// The two versions never had the same positions during the attempts.
    #[error("the versions did not reach the same positions")]
    NeverLevel {
        /// What stops one of them (`paused`, or a failure), if something does.
        stopped_by: Option<String>,
    },
    /// At the same positions the versions hold different rows.
    #[error("the tables {} differ", .0.join(", "))]
    Different(Vec<String>),
    /// Another session reads the view's tables, and a switch would hold up all reads.
    #[error("the view's tables are in use by {application}")]
    InUse {
        /// The session's `application_name`.
        application: String,
        /// How long its transaction has lasted, in seconds.
        seconds: i64,
    },
    /// Nothing was changed, unless the answer to a COMMIT was lost.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// A partition that can no longer be read from where a view began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The offset at which the view began.
    pub wanted: i64,
    /// How the log has changed.
    pub kind: LossKind,
}

/// How a log has changed since a view began to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// Its log start offset is this now.
    Truncated(i64),
    /// It was shorter once than what was read of it.
    TailLost,
    /// The topic was deleted and created again.
    Recreated,
}

/// Which version of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is being built.
    Building,
    /// The one that was live last.
    Retired,
    /// One that was retired longer ago than [`RETIRED_FOR`].
    Overdue,
}

impl Which {
    fn state(self) -> &'static str {
        match self {
            Which::Building => "building",
            Which::Retired | Which::Overdue => "retired",
        }
    }

    /// For how long it must have been in this state.
    fn min_age(self) -> TimeDelta {
        match self {
            Which::Building | Which::Retired => TimeDelta::zero(),
            Which::Overdue => RETIRED_FOR,
        }
    }
}

/// How long a retired version goes on projecting: a rollback to it is possible for so long.
pub const RETIRED_FOR: TimeDelta = TimeDelta::hours(24);
/// How many attempts, and which pause between them, two versions get to be at the same positions.
const LEVEL: (u32, Duration) = (30, Duration::from_millis(200));
/// How long each statement of [`Projection::on_switch`] may run. Projection waits meanwhile, reads don't.
const ON_SWITCH_TIMEOUT: &str = "60s";
/// How long a switch or a removal waits for a lock, behind which all reads of the view wait.
const LOCK_TIMEOUT: &str = "300ms";
/// The pause before a switch tries again to get its lock.
const SWITCH_PAUSE: Duration = Duration::from_millis(300);

/// Creates a version next to the live one, with the same tables, empty, and progress that begins where the live one's
/// began. With `accept_loss` it begins at the present log start offset where the log no longer reaches back. Projectors find
/// it by themselves. Returns its number.
///
/// # Errors
/// A version is being built already, the log does not reach back, its offsets are not known, or the database failed.
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
    // Discards lock these rows, too: a discard is either committed, and seen by the new version, or waits for it.
    let live = live(&mut transaction, domain).await?;
    sqlx::query_file!("src/projector/sql/lock_versions.sql", domain, &[live])
        .fetch_all(&mut *transaction)
        .await?;
    let lost = lost_parts(&mut transaction, domain).await?;
    if !lost.is_empty() && !accept_loss {
        return Err(VersionError::LogTruncated(lost));
    }
    let version = sqlx::query_scalar!(
        "UPDATE sightline.domains SET last_version = last_version + 1 WHERE domain = $1 RETURNING last_version",
        domain
    )
    .fetch_one(&mut *transaction)
    .await?;
    create_tables(&mut transaction, domain, version, code_version).await?;
    sqlx::query_file!("src/projector/sql/copy_starts.sql", domain, version)
        .execute(&mut *transaction)
        .await?;
    let count_logs = format!(
        r#"UPDATE "{domain}_v{version}".view_version SET logs =
           (SELECT count(*)::integer FROM sightline.progress WHERE domain = $1 AND version = $2)"#
    );
    sqlx::query(AssertSqlSafe(count_logs))
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

/// The partitions that can no longer be read from where the live version began.
async fn lost_parts(
    connection: &mut PgConnection,
    domain: &str,
) -> Result<Vec<Lost>, VersionError> {
    let logs = sqlx::query_file!("src/projector/sql/reach.sql", domain)
        .fetch_all(connection)
        .await?;
    let mut lost = Vec::new();
    for log in logs {
        // The offsets of a former incarnation are no longer read, so this is asked first.
        let kind = match log.log_start {
            _ if log.is_another => LossKind::Recreated,
            None => return Err(VersionError::OffsetsUnknown),
            Some(_) if log.lost_tail => LossKind::TailLost,
            Some(start) if start > log.start_offset => LossKind::Truncated(start),
            Some(_) => continue,
        };
        lost.push(Lost {
            topic: log.topic,
            partition: log.partition,
            wanted: log.start_offset,
            kind,
        });
    }
    Ok(lost)
}

/// Creates the schema of a version, with the same tables and grants as the live one's.
async fn create_tables(
    connection: &mut PgConnection,
    domain: &str,
    version: i32,
    code_version: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/projector/sql/create_version.sql",
        domain,
        version,
        format!("{domain}_v{version}"),
        code_version
    )
    .execute(&mut *connection)
    .await?;
    let (live, created) = (format!("{domain}_live"), format!("{domain}_v{version}"));
    let tables = sqlx::query_file_scalar!("src/projector/sql/view_tables.sql", live, created)
        .fetch_all(&mut *connection)
        .await?;
    let grants = sqlx::query_file_scalar!("src/projector/sql/view_grants.sql", live, created)
        .fetch_all(&mut *connection)
        .await?;
    for statement in tables.into_iter().chain(grants) {
        // Made by the database's own format(), with identifiers quoted.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Drops a version: it is projected no longer, and is removed with all that belongs to it, now or, where another session reads
/// its tables, later by maintenance. Returns its number.
///
/// # Errors
/// The domain has no version of that kind, or the database failed.
pub async fn remove(
    pool: &PgPool,
    projection: &dyn Projection,
    which: Which,
) -> Result<i32, VersionError> {
    let domain = projection.domain();
    let marked = mark_dropped(pool, domain, which);
    let (version, schema) = db::within(db::STEP_DEADLINE, marked).await?;
    if let Err(error) = delete(pool, projection, version, &schema).await {
        let error = db::describe(&error);
        tracing::info!(domain, version, error, "a dropped version is deleted later");
    }
    Ok(version)
}

/// Marks a version as dropped, so that it is projected no longer. Returns its number and its schema.
async fn mark_dropped(
    pool: &PgPool,
    domain: &str,
    which: Which,
) -> Result<(i32, String), VersionError> {
    let mut transaction = pool.begin().await?;
    // Without a version of that kind, which is the usual case, no lock is taken.
    let found = find(&mut transaction, domain, which).await?;
    found.ok_or(VersionError::NoSuchVersion)?;
    lock(&mut transaction, domain).await?;
    let (version, schema) = find(&mut transaction, domain, which)
        .await?
        .ok_or(VersionError::NoSuchVersion)?;
    // Waits for batches that have begun. Later ones don't find the version.
    fence(&mut transaction, domain, &[version]).await?;
    sqlx::query!(
        "UPDATE sightline.views SET state = 'dropped' WHERE domain = $1 AND version = $2",
        domain,
        version
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok((version, schema))
}

/// Notes since when each partition has been behind without a commit. Returns the number of versions for which that has been a
/// day: deletions do not reach them.
///
/// # Errors
/// The database failed.
pub async fn note_stalled(pool: &PgPool, domain: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_file!("src/projector/sql/note_behind.sql", domain)
        .execute(pool)
        .await?;
    sqlx::query_scalar!(
        r#"SELECT count(DISTINCT version) AS "stalled!" FROM sightline.progress
           WHERE domain = $1 AND ended_at IS NULL AND behind_since < now() - interval '1 day'"#,
        domain
    )
    .fetch_one(pool)
    .await
}

/// Deletes what is left of versions that were dropped.
///
/// # Errors
/// The database failed, or another session still reads the tables.
pub async fn delete_dropped(pool: &PgPool, projection: &dyn Projection) -> Result<(), sqlx::Error> {
    let dropped = sqlx::query!(
        "SELECT version, schema_name FROM sightline.views WHERE domain = $1 AND state = 'dropped'",
        projection.domain()
    )
    .fetch_all(pool);
    for row in db::within(db::STEP_DEADLINE, dropped).await? {
        delete(pool, projection, row.version, &row.schema_name).await?;
    }
    Ok(())
}

/// Deletes a version that was dropped: its dead letters in slices, then tables and progress, without waiting for a lock.
async fn delete(
    pool: &PgPool,
    projection: &dyn Projection,
    version: i32,
    schema: &str,
) -> Result<(), sqlx::Error> {
    let domain = projection.domain();
    loop {
        let deleted = sqlx::query!(
            "DELETE FROM sightline.dead_letters WHERE id = ANY (ARRAY(
                 SELECT id FROM sightline.dead_letters WHERE domain = $1 AND version = $2 LIMIT 1000))",
            domain,
            version
        )
        .execute(pool);
        let deleted = db::within(db::STEP_DEADLINE, deleted).await?;
        if deleted.rows_affected() == 0 {
            break;
        }
    }
    // After the commit the server deletes the files of large tables, even if this process has given up its answer.
    let deleted = delete_tables(pool, projection, version, schema);
    db::within(db::STEP_DEADLINE, deleted).await
}

/// Deletes tables and progress of a version that was dropped.
async fn delete_tables(
    pool: &PgPool,
    projection: &dyn Projection,
    version: i32,
    schema: &str,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    db::set_local(&mut transaction, "lock_timeout", LOCK_TIMEOUT).await?;
    // Names of domains are the code's own, versions are numbers.
    sqlx::query(AssertSqlSafe(format!(
        r#"DROP SCHEMA IF EXISTS "{schema}" CASCADE"#
    )))
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "DELETE FROM sightline.views WHERE domain = $1 AND version = $2 AND state = 'dropped'",
        projection.domain(),
        version
    )
    .execute(&mut *transaction)
    .await?;
    projection.on_removal(&mut transaction).await?;
    transaction.commit().await
}

/// The version of a kind, the latest if there are several, and its schema.
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
        which.min_age().as_seconds_f64(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|row| (row.version, row.schema_name)))
}

/// Makes a version the live one for all reads that begin later; the former one goes on projecting. Returns its number. If a
/// `number` is given, only that version is switched to, and nothing happens if it is live already. Tries until `until` to get
/// the lock for it, for a moment each time, because reads wait behind.
///
/// # Errors
/// The domain has no such version, it is behind the live one in some partition, its tables are in use, or the database
/// failed.
pub async fn switch(
    pool: &PgPool,
    projection: &dyn Projection,
    which: Which,
    number: Option<i32>,
    until: Instant,
) -> Result<i32, VersionError> {
    loop {
        match switch_once(pool, projection, which, number).await {
            Err(VersionError::Database(error)) if db::is_lock_timeout(&error) => {
                if Instant::now() >= until {
                    return Err(in_use(pool, projection.domain()).await?);
                }
                tokio::time::sleep(SWITCH_PAUSE).await;
            }
            switched => return switched,
        }
    }
}

async fn switch_once(
    pool: &PgPool,
    projection: &dyn Projection,
    which: Which,
    number: Option<i32>,
) -> Result<i32, VersionError> {
    let domain = projection.domain();
    let mut transaction = pool.begin().await?;
    lock(&mut transaction, domain).await?;
    if let Some(number) = number
        && live(&mut transaction, domain).await? == number
    {
        return Ok(number);
    }
    let version = make_live(&mut transaction, projection, which, number).await?;
    transaction.commit().await?;
    Ok(version)
}

/// The session that has used the tables of the domain's versions for the longest time.
async fn in_use(pool: &PgPool, domain: &str) -> Result<VersionError, sqlx::Error> {
    let session = sqlx::query_file!("src/projector/sql/sessions_in_view.sql", domain)
        .fetch_optional(pool)
        .await?;
    Ok(match session {
        Some(session) => VersionError::InUse {
            application: session.application,
            seconds: session.seconds,
        },
        // It has ended meanwhile.
        None => VersionError::InUse {
            application: "another session".to_owned(),
            seconds: 0,
        },
    })
}

/// Switches within a transaction that has the domain's lock.
///
/// It locks the progress rows of both versions first and raises their epochs: a batch that chose its schema before the
/// schemas are renamed fails its comparison. Its lock on both `view_version` tables, which every read names first, keeps a
/// read from seeing the tables of one version and the progress of the other.
async fn make_live(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    which: Which,
    number: Option<i32>,
) -> Result<i32, VersionError> {
    let domain = projection.domain();
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
            stopped_by: stopped_by(&mut *connection, domain, &[version]).await?,
        });
    }
    let live_schema = format!("{domain}_live");
    note_moved_changes(
        &mut *connection,
        domain,
        (live, &live_schema),
        (version, &schema),
    )
    .await?;
    // Dead letters that the former version has published are not published again.
    sqlx::query_file!(
        "src/projector/sql/carry_published.sql",
        domain,
        live,
        version
    )
    .execute(&mut *connection)
    .await?;
    db::set_local(&mut *connection, "search_path", &schema).await?;
    db::set_local(&mut *connection, "statement_timeout", ON_SWITCH_TIMEOUT).await?;
    projection.on_switch(&mut *connection, live).await?;
    db::set_local(&mut *connection, "lock_timeout", LOCK_TIMEOUT).await?;
    rename_schemas(&mut *connection, domain, live, (version, &schema)).await?;
    // An operator's pause holds for the domain, whichever version is live.
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

/// Gives a version, in its present schema, the name and state of the live one, which becomes a retired one.
async fn rename_schemas(
    connection: &mut PgConnection,
    domain: &str,
    live: i32,
    (version, schema): (i32, &str),
) -> Result<(), sqlx::Error> {
    let (live_schema, former) = (format!("{domain}_live"), format!("{domain}_v{live}"));
    for statement in [
        format!(
            r#"LOCK TABLE "{live_schema}".view_version, "{schema}".view_version IN ACCESS EXCLUSIVE MODE"#
        ),
        // The versions have reached the same positions, so that one is as complete as the other.
        format!(
            r#"UPDATE "{schema}".view_version AS v SET ready = v.ready OR former.ready FROM "{live_schema}".view_version AS former"#
        ),
        format!(r#"ALTER SCHEMA "{live_schema}" RENAME TO "{former}""#),
        format!(r#"ALTER SCHEMA "{schema}" RENAME TO "{live_schema}""#),
    ] {
        // Names of domains are the code's own, versions are numbers.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await?;
    }
    // In this order, because an index allows one live version per domain.
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
    Ok(())
}

/// Stores a switch between two versions, each with its schema, and the ranges of the feed in which the two versions differ.
async fn note_moved_changes(
    connection: &mut PgConnection,
    domain: &str,
    (from, from_schema): (i32, &str),
    (to, to_schema): (i32, &str),
) -> Result<(), sqlx::Error> {
    let switch = sqlx::query_file_scalar!("src/projector/sql/note_switch.sql", domain, from, to)
        .fetch_one(&mut *connection)
        .await?;
    let remove_moves = sqlx::query_file_scalar!(
        "src/projector/sql/remove_moves_without_rows.sql",
        from_schema,
        to_schema,
        FeedPosition::MAX_ROWS
    )
    .fetch_one(&mut *connection)
    .await?;
    // Made by the database's own format(), with identifiers quoted.
    sqlx::query(AssertSqlSafe(remove_moves))
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

/// What stops one of some versions: `paused`, or the failure of a log.
async fn stopped_by(
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

/// Compares the version that is being built with the live one, in a snapshot in which both have the same positions. What
/// follows is the same log for both. Projection goes on meanwhile. All statements end after `within`. If `number` is
/// given and is the live version's, there is nothing to compare.
///
/// # Errors
/// The domain has no such version, the two never have the same positions or hold different rows there, or the database
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
        let stopped_by = stopped_by(&mut snapshot, domain, &[live, version]).await?;
        return Err(VersionError::NeverLevel { stopped_by });
    }
    let ours = checksums(&mut snapshot, &format!("{domain}_live"), until).await?;
    let theirs = checksums(&mut snapshot, &schema, until).await?;
    let different = ours
        .into_iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| (ours != theirs).then_some(ours.0));
    let different: Vec<String> = different.collect();
    if different.is_empty() {
        Ok(())
    } else {
        Err(VersionError::Different(different))
    }
}

/// Whether two versions have the same positions in all logs.
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

/// The names of a version's tables, each with its number of rows and a checksum that does not depend on how events were
/// batched.
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
        // 0 would mean no limit.
        let left = format!("{}ms", left.as_millis().max(1));
        db::set_local(connection, "statement_timeout", &left).await?;
        // Made by the database's own format(), with identifiers quoted.
        let (rows, sum) = sqlx::query_as(AssertSqlSafe(table.statement))
            .fetch_one(&mut *connection)
            .await?;
        sums.push((table.name, rows, sum));
    }
    Ok(sums)
}

/// Locks the progress rows of versions, in key order as all transactions do that lock several, and fences their owners. It
/// makes the epochs of one log equal in all these versions, so that feed positions of retries after a switch lie behind
/// those before it.
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

/// Locks the versions of a domain: one change at a time, and none while partitions are added.
///
/// # Errors
/// The database failed, or lacks the domain ([`LacksDomain`]): a change would be one of nothing.
pub async fn lock(connection: &mut PgConnection, domain: &str) -> Result<(), sqlx::Error> {
    let is_there = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM sightline.domains WHERE domain = $1) AS "is_there!"
           FROM pg_advisory_xact_lock(hashtextextended('sightline.progress.' || $1, 0))"#,
        domain
    )
    .fetch_one(connection)
    .await?;
    if is_there {
        Ok(())
    } else {
        Err(LacksDomain.into())
    }
}
