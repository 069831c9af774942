//! Merges runs of remembered event ids, so that a log has few, and deletes those whose ids no record can repeat any longer.
//! Neither needs a progress row's lock: a merge changes no id, and what expires is decided by a position that has passed.
//!
//! All domains share a connection for it, so that one merge at a time needs memory.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool};

use super::{DEDUPE_OFFSETS, ENTRY, HASH, NewRun, write};
use crate::db;
use crate::projector::{View, progress};

/// So many runs of like size are merged into one.
const FAN: usize = 8;
/// A run of so many ids is not merged any more.
const FINAL: i32 = 32_768;
/// A merge makes a run of so many ids at most, so that it needs little memory.
const LARGEST: i32 = 262_144;
/// So many expired runs are deleted at a time: several million ids at most, however many have expired at once.
const MOST_EXPIRED: i64 = 32;

/// Merges runs of a domain's logs, in all versions, where there are many of like size.
///
/// # Errors
/// The database failed. What was merged before stays so.
pub async fn merge(pool: &PgPool, domain: &'static str) -> Result<(), sqlx::Error> {
    for view in views(pool, domain).await? {
        for (log_id, runs) in db::within(db::STEP_DEADLINE, choose(pool, &view)).await? {
            db::within(
                db::TRANSACTION_DEADLINE,
                merge_some(pool, &view, log_id, &runs),
            )
            .await?;
        }
    }
    Ok(())
}

/// The runs of a version that are to be merged together, each time with their log.
async fn choose(pool: &PgPool, view: &View) -> Result<Vec<(i32, Vec<i64>)>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    if !lock_schema(&mut transaction, view).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"SELECT log_id, run, ids_count, octet_length(filter) = 0 AS "is_unfiltered!" FROM event_id_runs
           WHERE ids_count < $1 OR octet_length(filter) = 0 ORDER BY log_id, last_offset"#,
        FINAL
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let mut sizes: BTreeMap<i32, Vec<(i64, i32)>> = BTreeMap::new();
    let mut chosen: Vec<(i32, Vec<i64>)> = Vec::new();
    for row in rows {
        if row.is_unfiltered {
            chosen.push((row.log_id, vec![row.run]));
        } else {
            let sizes = sizes.entry(row.log_id).or_default();
            sizes.push((row.run, row.ids_count));
        }
    }
    for (log_id, sizes) in sizes {
        chosen.extend(alike(&sizes).into_iter().map(|runs| (log_id, runs)));
    }
    Ok(chosen)
}

/// Which runs, given with their sizes, are to be merged: those of like size, if there are enough of them, up to [`LARGEST`].
fn alike(sizes: &[(i64, i32)]) -> Vec<Vec<i64>> {
    let mut tiers: BTreeMap<u32, Vec<(i64, i32)>> = BTreeMap::new();
    for (run, size) in sizes {
        let tier = size.max(&1).ilog2() / FAN.ilog2();
        tiers.entry(tier).or_default().push((*run, *size));
    }
    let mut groups = Vec::new();
    for runs in tiers.into_values() {
        let (mut group, mut ids) = (Vec::new(), 0);
        for (run, size) in runs {
            if ids + size > LARGEST {
                groups.push(std::mem::take(&mut group));
                ids = 0;
            }
            group.push(run);
            ids += size;
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() >= FAN);
    groups
}

async fn merge_some(
    pool: &PgPool,
    view: &View,
    log_id: i32,
    runs: &[i64],
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    if !lock_schema(&mut transaction, view).await? {
        return Ok(());
    }
    // Two processes that merge the same runs get each of them once.
    let taken = sqlx::query_file_scalar!("src/projector/sql/take_id_runs.sql", log_id, runs)
        .fetch_all(&mut *transaction)
        .await?;
    let blocks = taken.into_iter().flatten();
    let mut entries: Vec<[u8; ENTRY]> = blocks
        .flat_map(|block| block.as_chunks::<ENTRY>().0.to_vec())
        .collect();
    if entries.is_empty() {
        return Ok(());
    }
    // Of two applications of an id the later one counts: it becomes the first, and the only one.
    entries.sort_unstable_by(|a, b| (&a[..HASH], &b[HASH..]).cmp(&(&b[..HASH], &a[HASH..])));
    entries.dedup_by(|b, a| a[..HASH] == b[..HASH]);
    write(&mut transaction, &[(log_id, NewRun::of(entries))]).await?;
    transaction.commit().await
}

/// Deletes the ids of a domain's logs, in all versions, that no record can repeat any longer, some runs at a time.
///
/// # Errors
/// The database failed. What was deleted before stays so.
pub async fn expire(
    pool: &PgPool,
    domain: &'static str,
    dedupe: TimeDelta,
) -> Result<(), sqlx::Error> {
    for view in views(pool, domain).await? {
        while db::within(db::TRANSACTION_DEADLINE, expire_some(pool, &view, dedupe)).await? {}
    }
    Ok(())
}

/// Deletes some runs whose ids have expired. Returns whether there may be more.
async fn expire_some(pool: &PgPool, view: &View, dedupe: TimeDelta) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    if !lock_schema(&mut transaction, view).await? {
        return Ok(false);
    }
    let deleted = sqlx::query_file_scalar!(
        "src/projector/sql/expire_event_ids.sql",
        view.domain,
        view.version,
        dedupe as _,
        DEDUPE_OFFSETS,
        MOST_EXPIRED
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(deleted == MOST_EXPIRED)
}

async fn views(pool: &PgPool, domain: &'static str) -> Result<Vec<View>, sqlx::Error> {
    let versions = sqlx::query_scalar!(
        "SELECT version FROM sightline.views WHERE domain = $1 AND state <> 'dropped' ORDER BY version",
        domain
    );
    let versions = db::within(db::STEP_DEADLINE, versions.fetch_all(pool)).await?;
    let views = versions.into_iter();
    Ok(views.map(|version| View { domain, version }).collect())
}

/// Points the transaction's unqualified names at the version's tables, and keeps a switch from renaming their schema until the
/// transaction ends. Returns whether the schema is the version's.
async fn lock_schema(connection: &mut PgConnection, view: &View) -> Result<bool, sqlx::Error> {
    progress::use_schema(connection, view).await?;
    // A switch may have renamed the schema just before.
    let version = sqlx::query_scalar!("SELECT version FROM view_version");
    Ok(version.fetch_one(connection).await? == view.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_like_size_are_merged_where_there_are_eight() {
        let sizes =
            |sizes: &[i32]| -> Vec<(i64, i32)> { (1..).zip(sizes.iter().copied()).collect() };
        let (none, eight) = (Vec::<Vec<i64>>::new(), (1..=8).collect::<Vec<i64>>());
        for (given, expected) in [
            (vec![1; 7], none.clone()),
            (vec![1; 8], vec![eight.clone()]),
            (vec![1, 7, 1, 7, 2, 3, 4, 5], vec![eight.clone()]),
            (vec![1, 8, 1, 8, 2, 3, 4, 5], none.clone()),
            (vec![30_000; 8], vec![eight.clone()]),
            // Nine would be more than a merge may make.
            (vec![30_000; 9], vec![eight]),
            (vec![30_000; 15], vec![(1..=8).collect()]),
        ] {
            assert_eq!(alike(&sizes(&given)), expected, "{given:?}");
        }
    }
}
