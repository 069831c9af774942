//! Standing still on purpose: because an operator says so, or because dead letters pile up. It is kept in the
//! database, so that it outlasts restarts, and fences batches under way: what was decided before is not committed after.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{View, versions};

/// A version is paused when more of its last [`WINDOW`] records in a partition than this have failed, apart from those
/// that only wait behind another.
const FAILED: i64 = 1_000;
const WINDOW: i64 = 10_000;
/// Or when more than this many wait behind one key.
const BEHIND: i64 = 10_000;

/// Who paused a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Somebody who calls the API.
    Operator,
    /// The program itself.
    Sightline,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            By::Operator => "operator",
            By::Sightline => "sightline",
        }
    }
}

/// Pauses a version of a domain's view, or all that there are. What is paused already stays as it is.
///
/// # Errors
/// The database failed.
pub async fn pause(
    pool: &PgPool,
    domain: &str,
    version: Option<i32>,
    by: By,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    versions::lock(&mut transaction, domain).await?;
    let paused = sqlx::query_scalar!(
        "UPDATE sightline.views SET paused_at = now(), paused_by = $3, pause_reason = $4
         WHERE domain = $1 AND version = coalesce($2, version) AND paused_at IS NULL
         RETURNING version",
        domain,
        version,
        by.as_str(),
        reason,
    )
    .fetch_all(&mut *transaction)
    .await?;
    versions::fence(&mut transaction, domain, &paused).await?;
    transaction.commit().await
}

/// Lets all versions of a domain's view go on, and looks anew at partitions that stand still because their log is not
/// the one that was projected. With `accept_loss`, those go on without what is lost: behind a gap, or with the topic
/// that was created anew. That the database was restored is taken note of. Returns how many still can't go on.
///
/// # Errors
/// The database failed.
pub async fn resume(pool: &PgPool, domain: &str, accept_loss: bool) -> Result<i64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    versions::lock(&mut transaction, domain).await?;
    let all = sqlx::query_scalar!(
        "UPDATE sightline.views SET paused_at = NULL, paused_by = NULL, pause_reason = NULL, resumed_at = now()
         WHERE domain = $1 RETURNING version",
        domain,
    )
    .fetch_all(&mut *transaction)
    .await?;
    versions::fence(&mut transaction, domain, &all).await?;
    sqlx::query!(
        "UPDATE sightline.domains SET database_went_back_at = NULL WHERE domain = $1",
        domain
    )
    .execute(&mut *transaction)
    .await?;
    if accept_loss {
        sqlx::query_file!("src/projector/sql/accept_loss.sql", domain)
            .execute(&mut *transaction)
            .await?;
    } else {
        // What is as it was fails again, and what is whole again goes on. A log that was shorter stays doubtful.
        sqlx::query!(
            "UPDATE sightline.progress SET failure = NULL WHERE domain = $1 AND failure <> 'tail_lost'",
            domain
        )
        .execute(&mut *transaction)
        .await?;
    }
    let left = sqlx::query_scalar!(
        r#"SELECT count(*) AS "left!" FROM sightline.progress
           WHERE domain = $1 AND failure IS NOT NULL AND ended_at IS NULL"#,
        domain
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(left)
}

/// Why a version is to be paused after a transaction that wrote letters, of these keys among others.
///
/// # Errors
/// The database failed.
pub async fn piled_up(
    connection: &mut PgConnection,
    view: &View,
    log_id: i32,
    next_offset: i64,
    keys: &[Uuid],
) -> Result<Option<String>, sqlx::Error> {
    let found = sqlx::query_file!(
        "src/projector/sql/piled_up.sql",
        view.domain,
        view.version,
        log_id,
        next_offset - WINDOW,
        FAILED,
        keys,
        BEHIND,
    )
    .fetch_one(connection)
    .await?;
    Ok(if found.failed {
        Some(format!(
            "dead letters pile up: more than {FAILED} of the last {WINDOW} records of a partition failed"
        ))
    } else if found.behind {
        Some(format!(
            "dead letters pile up: more than {BEHIND} records wait behind one key"
        ))
    } else {
        None
    })
}
