//! The table of applied migrations: `sightline._sqlx_migrations`.
//!
//! The first migration creates the schema `sightline`, so it is applied together with its table, in
//! one transaction. Databases that a former release migrated have the table in `public`, where a
//! role may not create tables; it is moved from there once.

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{Connection, Executor, PgConnection};

/// The table's name. Qualified: for a role with the name of our schema, the default search path
/// begins with that schema.
pub(super) const TABLE: &str = "sightline._sqlx_migrations";

/// Moves or creates the table where it is missing. The caller holds the lock of the migrations, so
/// that no other process does the same.
///
/// # Errors
/// The database can't be reached, or the role may not create, move or read what is needed.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    migrations: &Migrator,
) -> Result<(), MigrateError> {
    if exists(connection, TABLE).await? {
        return Ok(());
    }
    let first = migrations.iter().next().expect("a first migration");
    if exists(connection, "public._sqlx_migrations").await? {
        // A program that shares the database may have a table of this name, too.
        let ours: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM public._sqlx_migrations WHERE version = $1 AND checksum = $2)",
        )
        .bind(first.version)
        .bind(&*first.checksum)
        .fetch_one(&mut *connection)
        .await?;
        if ours {
            connection
                .execute("ALTER TABLE public._sqlx_migrations SET SCHEMA sightline")
                .await?;
            tracing::info!("moved the table of applied migrations from public to sightline");
            return Ok(());
        }
    }
    let mut transaction = connection.begin().await?;
    transaction
        .execute(first.sql.clone())
        .await
        .map_err(|error| MigrateError::ExecuteMigration(error, first.version))?;
    transaction.ensure_migrations_table(TABLE).await?;
    // Records the migration without executing it.
    transaction.skip(TABLE, first).await?;
    transaction.commit().await?;
    Ok(())
}

/// Whether the table exists. In contrast to `to_regclass` this needs no rights on its schema.
pub(super) async fn exists(
    connection: &mut PgConnection,
    table: &str,
) -> Result<bool, sqlx::Error> {
    let (schema, name) = table.split_once('.').expect("a qualified name");
    sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2)",
    )
    .bind(schema)
    .bind(name)
    .fetch_one(connection)
    .await
}
