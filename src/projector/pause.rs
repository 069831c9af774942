//! Pauses of projection: by an operator, or by sightline itself when dead letters pile up.
//!
//! A pause is kept in the database, so it outlasts restarts; and it fences the owners, so no batch commits after it.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Projection, View, versions};

/// A version is paused when more than so many of its last [`WINDOW`] offsets in a partition have failed. Dead letters of
/// class `blocked` don't count.
const FAILED: i64 = 1_000;
const WINDOW: i64 = 10_000;
/// A version is also paused when more than so many dead letters wait behind one key.
const BEHIND: i64 = 10_000;

/// The reason shown where an operator gives none.
const PAUSED: &str = "no reason given";

/// Pauses a domain for an operator: the live and the retired versions, but not one that is being built, which may be the
/// remedy. If it is paused already, a given reason replaces the former one, and a pause by sightline becomes the operator's.
///
/// # Errors
/// The database failed.
pub async fn pause(pool: &PgPool, domain: &str, reason: Option<&str>) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    versions::lock(&mut transaction, domain).await?;
    let paused = sqlx::query_scalar!(
        "UPDATE sightline.views
         SET paused_at = coalesce(paused_at, now()), paused_by = 'operator', pause_reason = coalesce($2, $3)
         WHERE domain = $1 AND state <> 'building' AND ($2::text IS NOT NULL OR paused_by IS DISTINCT FROM 'operator')
         RETURNING version",
        domain,
        reason,
        PAUSED,
    )
    .fetch_all(&mut *transaction)
    .await?;
    versions::fence(&mut transaction, domain, &paused).await?;
    transaction.commit().await
}

/// Pauses a version because its dead letters pile up, unless it is paused already.
///
/// # Errors
/// The database failed.
pub async fn pause_piled_up(pool: &PgPool, view: &View, reason: &str) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let domain = view.domain;
    versions::lock(&mut transaction, domain).await?;
    let paused = sqlx::query_scalar!(
        "UPDATE sightline.views SET paused_at = now(), paused_by = 'sightline', pause_reason = $3
         WHERE domain = $1 AND version = $2 AND paused_at IS NULL
         RETURNING version",
        domain,
        view.version,
        reason,
    )
    .fetch_all(&mut *transaction)
    .await?;
    versions::fence(&mut transaction, domain, &paused).await?;
    transaction.commit().await
}

/// Resumes all versions of a domain's view, and clears `database_went_back`. Partitions whose log has changed resume by
/// themselves if it is as before; with `accept_loss` they resume without what is lost: behind a gap, or in the topic that
/// was created again. With `older_code`, code of that version may fold the live version although newer code has. Returns how
/// many partitions still wait for a decision, in any version.
///
/// # Errors
/// The database failed.
pub async fn resume(
    pool: &PgPool,
    projection: &dyn Projection,
    accept_loss: bool,
    older_code: Option<i32>,
) -> Result<i64, sqlx::Error> {
    let domain = projection.domain();
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
    projection.on_resume(&mut transaction).await?;
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
    }
    if let Some(code_version) = older_code {
        // A version that newer code is building stays its own.
        sqlx::query_file!(
            "src/projector/sql/accept_older_code.sql",
            domain,
            code_version
        )
        .execute(&mut *transaction)
        .await?;
    }
    let left = sqlx::query_scalar!(
        r#"SELECT count(DISTINCT log_id) AS "left!" FROM sightline.progress
           WHERE domain = $1 AND failure IS NOT NULL AND ended_at IS NULL"#,
        domain
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(left)
}

/// Why a version has to be paused after a transaction that wrote dead letters, if it has to. `keys` are the keys of those
/// dead letters.
///
/// # Errors
/// The database failed.
pub async fn piled_up(
    connection: &mut PgConnection,
    view: &View,
    log_id: i32,
    (topic, partition): (&str, i32),
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
            "dead letters pile up: more than {FAILED} of the last {WINDOW} records of {topic}/{partition} failed"
        ))
    } else if found.behind {
        Some(format!(
            "dead letters pile up: more than {BEHIND} records of {topic}/{partition} wait behind one key"
        ))
    } else {
        None
    })
}
