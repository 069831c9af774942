//! Postgres: the pools, the migrations, and what an error from it means.
//!
//! Reads, projectors and operations have a pool each, so that none starves another. Pools connect when they are
//! first used: the process starts without a database, and goes on when one comes back.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::config::{ConfigError, Secret};
use crate::error::{Code, Error};

/// How long a statement of a read may run. A caller's deadline may be shorter: the statement then outlives
/// the answer by no more than this.
const READ_STATEMENT_TIMEOUT: &str = "2s";
/// How long a projector's statement may run before it is taken for stuck, and tried again.
const PROJECTOR_STATEMENT_TIMEOUT: &str = "60s";
/// How long a statement of an operation may run, waiting for a batch under way included.
const OPERATION_STATEMENT_TIMEOUT: &str = "10s";
/// How long to wait for a free connection: a caller waits too, a projector has time.
const CALLER_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
const PROJECTOR_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Every change of the schema, in order, compiled in.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!();
    // By its whole name: a role that is called as our schema is would find another table once that schema is there.
    migrator.dangerous_set_table_name("public._sqlx_migrations");
    migrator
});

/// How to connect.
///
/// # Errors
/// The URL is none of Postgres.
pub fn options(url: &Secret) -> Result<PgConnectOptions, ConfigError> {
    // The cause may quote the URL, and with it a password.
    url.expose().parse().map_err(|_| {
        ConfigError::new(
            "a database URL is not of the form postgres://user:password@host:port/database",
        )
    })
}

/// The pool that answers reads.
pub fn read_pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    pool(
        options,
        max_connections,
        CALLER_ACQUIRE_TIMEOUT,
        READ_STATEMENT_TIMEOUT,
    )
}

/// The pool that operations and upkeep write through, past any pooler: whoever waits there for a progress row keeps no
/// connection from projectors.
pub fn operation_pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    pool(
        options,
        max_connections,
        CALLER_ACQUIRE_TIMEOUT,
        OPERATION_STATEMENT_TIMEOUT,
    )
}

/// The pool that projectors write through, past any pooler.
pub fn projector_pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    pool(
        options,
        max_connections,
        PROJECTOR_ACQUIRE_TIMEOUT,
        PROJECTOR_STATEMENT_TIMEOUT,
    )
}

fn pool(
    options: PgConnectOptions,
    max_connections: u32,
    acquire_timeout: Duration,
    statement_timeout: &'static str,
) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT set_config('statement_timeout', $1, false),
                            set_config('idle_in_transaction_session_timeout', '60s', false),
                            set_config('application_name', 'sightline', false)",
                )
                .bind(statement_timeout)
                .execute(connection)
                .await
                .map(drop)
            })
        })
        .connect_lazy_with(options)
}

/// Brings the database's schema to this binary's. Several processes may do so at once: one does, the others wait.
///
/// # Errors
/// The database can't be reached, a migration fails, or the database was migrated by a newer binary.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    MIGRATIONS.run(pool).await
}

/// Whether the database answers and its schema is this binary's.
///
/// # Errors
/// The database can't be reached or has never been migrated.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let applied = connection
        .list_applied_migrations(&MIGRATIONS.table_name)
        .await
        .map_err(|error| sqlx::Error::Migrate(Box::new(error)))?;
    Ok(MIGRATIONS.iter().all(|ours| {
        applied
            .iter()
            .any(|theirs| theirs.version == ours.version && theirs.checksum == ours.checksum)
    }))
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may go well the next time: connection, deadlock, serialization, resources, shutdown.
    Transient,
    /// It is the fault of neither the data nor the moment: rights, tables, limits, a damaged file. It goes well
    /// when somebody has mended that.
    Systemic,
    /// It is the data's fault, and will be the next time.
    Data,
    /// Nobody foresaw it: a bug until shown otherwise.
    Bug,
}

/// Classifies an error by its SQLSTATE (PostgreSQL, Appendix A).
pub fn classify(error: &sqlx::Error) -> ErrorClass {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("25006" | "55P03") => ErrorClass::Transient,
            Some(code) => match code.get(..2) {
                Some("08" | "40" | "53" | "57") => ErrorClass::Transient,
                Some("22" | "23" | "54") => ErrorClass::Data,
                // The statements were checked against the schema: what refuses them is not in the data.
                Some("0A" | "25" | "28" | "3D" | "3F" | "42" | "55" | "58" | "F0" | "XX") => {
                    ErrorClass::Systemic
                }
                _ => ErrorClass::Bug,
            },
            None => ErrorClass::Bug,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => ErrorClass::Transient,
        _ => ErrorClass::Bug,
    }
}

/// An error in words that may be logged: SQLSTATE, constraint and table, never the values that DETAIL quotes.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let mut text = format!(
                "SQLSTATE {}",
                database.code().as_deref().unwrap_or("unknown")
            );
            for (what, name) in [
                ("constraint", database.constraint()),
                ("table", database.table()),
            ] {
                if let Some(name) = name {
                    text.push_str(&format!(", {what} {name}"));
                }
            }
            text
        }
        sqlx::Error::Io(error) => format!("connection: {}", error.kind()),
        sqlx::Error::PoolTimedOut => "no connection became free in time".to_owned(),
        sqlx::Error::PoolClosed => "the pool is closed".to_owned(),
        sqlx::Error::Tls(_) => "TLS failed".to_owned(),
        sqlx::Error::Protocol(_) => "protocol error".to_owned(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} could not be decoded"),
        sqlx::Error::Decode(_) => "a value could not be decoded".to_owned(),
        sqlx::Error::Migrate(_) => "migrations could not be read".to_owned(),
        sqlx::Error::RowNotFound => "no row".to_owned(),
        _ => "unexpected database error".to_owned(),
    }
}

/// What a caller is told of a failed read: whether trying again may help, and no more.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let cause = describe(&error);
        let sqlstate = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
            _ => String::new(),
        };
        match (sqlstate.as_str(), classify(&error)) {
            // The read's time ran out.
            ("57014", _) => Error::deadline_exceeded().with_cause(cause),
            // A log-in or database that is not there, or tables, columns and functions that are not there yet.
            ("28000" | "28P01" | "3D000" | "3F000" | "42P01" | "42703" | "42883", _)
            | (_, ErrorClass::Transient) => Error::new(
                Code::DatabaseUnavailable,
                "The database does not answer at the moment. Try again.",
            )
            .with_retry_after(Duration::from_secs(1))
            .with_cause(cause),
            _ => Error::internal(cause),
        }
    }
}
