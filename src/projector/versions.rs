//! The versions of a view: which there are, a new one beside the live one, and the switch between them.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Projection, Projector, View, worker};
use crate::db;

/// How often a process looks for versions that came or went.
const INTERVAL: Duration = Duration::from_secs(2);

/// Why a version can't become the live one.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The domain has no such version, or it is the live one already.
    #[error("there is no such version beside the live one")]
    NoSuchVersion,
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
    },
    /// Nothing was switched.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Projects every version that a domain's view has, each in a group of its own, until `projector.stop` is cancelled.
pub async fn project_all(projector: Projector, projection: &'static dyn Projection) {
    let domain = projection.domain();
    let mut running: HashMap<i32, (CancellationToken, JoinHandle<()>)> = HashMap::new();
    loop {
        match sqlx::query_scalar!(
            "SELECT version FROM sightline.views WHERE domain = $1",
            domain
        )
        .fetch_all(&projector.pool)
        .await
        {
            Ok(versions) => {
                running.retain(|version, (stop, _)| {
                    let there = versions.contains(version);
                    if !there {
                        stop.cancel();
                    }
                    there
                });
                for version in versions {
                    running.entry(version).or_insert_with(|| {
                        let stop = projector.stop.child_token();
                        let projector = Projector {
                            stop: stop.clone(),
                            ..projector.clone()
                        };
                        (
                            stop,
                            tokio::spawn(worker::run(
                                projector,
                                projection,
                                View { domain, version },
                            )),
                        )
                    });
                }
            }
            Err(error) => tracing::debug!(
                domain,
                error = db::describe(&error),
                "the view's versions can't be read yet"
            ),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = projector.stop.cancelled() => break,
        }
    }
    for (_, task) in running.into_values() {
        // It ends by itself, and what a panic in it said was told by the panic hook.
        drop(task.await);
    }
}

/// Makes a version beside the live one, with the same tables, empty, and progress that begins where the live
/// one's began. Projectors find it by themselves. Returns its number.
///
/// # Errors
/// The database failed.
pub async fn create(pool: &PgPool, domain: &str, code_version: i32) -> Result<i32, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    lock_versions(&mut transaction, domain).await?;
    let version = sqlx::query_scalar!(
        "SELECT max(version) + 1 FROM sightline.views WHERE domain = $1",
        domain
    )
    .fetch_one(&mut *transaction)
    .await?
    .ok_or(sqlx::Error::RowNotFound)?;
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
    for statement in tables.into_iter().flatten() {
        // Made by the database's own format(), with identifiers quoted.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query_file!("src/projector/sql/copy_starts.sql", domain, version)
        .execute(&mut *transaction)
        .await?;
    let counted = format!(
        r#"UPDATE "{domain}_v{version}".view_version SET logs = (SELECT logs FROM "{domain}_live".view_version)"#
    );
    sqlx::query(AssertSqlSafe(counted))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(version)
}

/// Makes a version the live one, for reads that begin from then on; the former one goes on projecting.
///
/// The progress rows of both are taken first, and their epochs raised: a batch that chose its schema before
/// the names changed fails its comparison. The lock on what tells a reader its version keeps a read from
/// seeing the tables of one version and the progress of the other.
///
/// # Errors
/// There is no such version, it is behind the live one in some partition, or the database failed.
pub async fn switch(pool: &PgPool, domain: &str, version: i32) -> Result<(), SwitchError> {
    let mut transaction = pool.begin().await?;
    lock_versions(&mut transaction, domain).await?;
    let live = sqlx::query_scalar!(
        "SELECT version FROM sightline.views WHERE domain = $1 AND state = 'live'",
        domain
    )
    .fetch_one(&mut *transaction)
    .await?;
    let schema = sqlx::query_scalar!(
        "SELECT schema_name FROM sightline.views WHERE domain = $1 AND version = $2 AND state <> 'live'",
        domain,
        version,
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(SwitchError::NoSuchVersion)?;
    sqlx::query_file!(
        "src/projector/sql/lock_versions.sql",
        domain,
        &[live, version]
    )
    .fetch_all(&mut *transaction)
    .await?;
    if let Some(row) =
        sqlx::query_file!("src/projector/sql/first_behind.sql", domain, live, version)
            .fetch_optional(&mut *transaction)
            .await?
    {
        return Err(SwitchError::Behind {
            topic: row.topic,
            partition: row.partition,
            behind: row.behind,
        });
    }
    let (live_schema, former) = (format!("{domain}_live"), format!("{domain}_v{live}"));
    for statement in [
        format!(
            r#"LOCK TABLE "{live_schema}".view_version, "{schema}".view_version IN ACCESS EXCLUSIVE MODE"#
        ),
        format!(r#"ALTER SCHEMA "{live_schema}" RENAME TO "{former}""#),
        format!(r#"ALTER SCHEMA "{schema}" RENAME TO "{live_schema}""#),
    ] {
        // Names of domains are the code's own, versions are numbers.
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await?;
    }
    for (version, schema, state) in [(live, &former, "retired"), (version, &live_schema, "live")] {
        sqlx::query!(
            "UPDATE sightline.views SET schema_name = $3, state = $4 WHERE domain = $1 AND version = $2",
            domain,
            version,
            schema,
            state,
        )
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query!(
        "UPDATE sightline.progress SET epoch = epoch + 1 WHERE domain = $1 AND version = ANY ($2)",
        domain,
        &[live, version]
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// One change of a domain's versions at a time, and none while partitions are added.
async fn lock_versions(connection: &mut PgConnection, domain: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('sightline.progress.' || $1, 0))",
        domain
    )
    .execute(connection)
    .await
    .map(drop)
}
