//! Postgres: the pools, the migrations, and what its errors mean.
//!
//! Each purpose has pools of its own (reads, replicas, projectors and maintenance of each domain,
//! heartbeats, operations, leases, announcements), so that none starves another. Pools connect on
//! first use: the process starts without a database, and reconnects when the database is back. A
//! connection that leads to a read-only server (a demoted primary) is closed, never used again; those
//! to replicas are the exception.

mod migrations_table;

use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use log::LevelFilter;
use serde::{Deserialize, Serialize};
use sqlx::error::DatabaseError;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgExecutor};

use crate::config::{ConfigError, Secret};
use crate::error::{Code, Error};

/// How long a statement of a read may run. Where a caller's deadline is shorter, the statement
/// outlives the answer by at most this time.
const READ_STATEMENT_TIMEOUT: &str = "2s";
/// How long a projector's statement may run before it counts as stuck and is tried again.
const PROJECTOR_STATEMENT_TIMEOUT: &str = "60s";
/// How long a statement of an operation may run, including its wait for a running batch.
const OPERATION_STATEMENT_TIMEOUT: &str = "10s";
/// How long a migration waits for a lock.
const MIGRATION_LOCK_TIMEOUT: &str = "5s";
/// How long to wait for a free connection. A caller waits for the answer, a projector has more
/// time.
const CALLER_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
const PROJECTOR_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is checked when it is given back. One that has been free for less than this is not checked again when it is
/// taken.
const CHECKED: Duration = Duration::from_millis(250);

/// How long the server behind an open connection has to answer. A connection whose server is gone without a word (a fail-over
/// by a moving address) is closed after it; the operating system would take a quarter of an hour.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a statement of [`for_callers`] may take, with its wait for a connection: as long as its pool and its server allow.
const CALLER_DEADLINE: Duration = Duration::from_secs(6);
/// How long a step of maintenance may take: a short transaction, with its wait for a connection. One that takes longer has a
/// server that is gone without a word; the pool closes its connection when it is given back.
pub const STEP_DEADLINE: Duration = Duration::from_secs(30);
/// How long a transaction may take that does as much as it may. A single statement is canceled earlier, so one that takes
/// longer has too much to do, or its server is gone without a word.
pub const TRANSACTION_DEADLINE: Duration = Duration::from_secs(75);
/// How long a transaction may take whose next attempt would be as large, such as a retry: longer than a slow server needs.
pub const LONG_TRANSACTION_DEADLINE: Duration = Duration::from_secs(300);

/// The oldest usable version of Postgres, as `server_version_num` writes it.
const OLDEST_POSTGRES: i32 = 150_000;

/// All migrations, in order, compiled into the binary.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name(migrations_table::TABLE);
    migrator
});

/// The connection options that a URL gives.
///
/// # Errors
/// It is not a valid Postgres URL.
pub fn options(url: &Secret) -> Result<PgConnectOptions, ConfigError> {
    // The cause may quote the URL, and with it a password.
    url.expose().parse().map_err(|_| {
        ConfigError::new(
            "a database URL is not of the form postgres://user:password@host:port/database",
        )
    })
}

/// What the connections of a pool are for.
pub struct PoolKind {
    acquire_timeout: Duration,
    statement_timeout: &'static str,
    plans: Plans,
    /// Whether a server that takes no writes is refused.
    must_write: bool,
}

/// What callers wait for: reads, and leases of work.
pub const CALLERS: PoolKind = PoolKind {
    acquire_timeout: CALLER_ACQUIRE_TIMEOUT,
    statement_timeout: READ_STATEMENT_TIMEOUT,
    plans: Plans::InIndexOrder,
    must_write: true,
};
/// Reads of a replica, which takes no writes.
pub const REPLICA: PoolKind = PoolKind {
    must_write: false,
    ..CALLERS
};
/// What operations write, past any pooler. An operation that waits for a progress row then takes no connection from the
/// projectors.
pub const OPERATIONS: PoolKind = PoolKind {
    statement_timeout: OPERATION_STATEMENT_TIMEOUT,
    plans: Plans::Any,
    ..CALLERS
};
/// Maintenance: as [`OPERATIONS`], but with more time to get a connection, because no caller waits. When a process starts, all
/// its pools open connections at once.
pub const MAINTENANCE: PoolKind = PoolKind {
    acquire_timeout: PROJECTOR_ACQUIRE_TIMEOUT,
    ..OPERATIONS
};
/// What projectors write, past any pooler.
pub const PROJECTORS: PoolKind = PoolKind {
    statement_timeout: PROJECTOR_STATEMENT_TIMEOUT,
    plans: Plans::ByIndex,
    ..MAINTENANCE
};

/// How a pool's statements are planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plans {
    /// As Postgres likes.
    Any,
    /// The statements look few rows up by an index. To plan one costs more than to run it, so each is planned once. A plan that
    /// was made while a table was empty stays, and must not scan it later.
    ByIndex,
    /// As `ByIndex`, and a page ends after a few rows in the order of an index. A bitmap scan, which
    /// Postgres prefers for a table without statistics (a view that was just built), would read and
    /// sort all the rows that follow.
    InIndexOrder,
}

/// A pool of connections of a kind.
pub fn pool(kind: &PoolKind, options: PgConnectOptions, max_connections: u32) -> PgPool {
    let PoolKind {
        acquire_timeout,
        statement_timeout,
        plans,
        must_write,
    } = *kind;
    let (plan_cache_mode, enable_seqscan, enable_bitmapscan) = match plans {
        Plans::Any => ("auto", "on", "on"),
        Plans::ByIndex => ("force_generic_plan", "off", "on"),
        Plans::InIndexOrder => ("force_generic_plan", "off", "off"),
    };
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        // Under load each call would warn of it. Callers are refused in the end, and workers report that they wait.
        .acquire_slow_level(LevelFilter::Debug)
        // The check below takes the place of sqlx's ping.
        .test_before_acquire(false)
        .before_acquire(move |connection, metadata| {
            Box::pin(async move {
                Ok(metadata.idle_for < CHECKED || check(connection, must_write).await?)
            })
        })
        // A call that was given up leaves its connection in the middle of a statement.
        .after_release(move |connection, _| Box::pin(check(connection, must_write)))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT set_config('statement_timeout', $1, false),
                            -- A statement that waits for a lock is not a slow one.
                            set_config('lock_timeout', (extract(epoch FROM $1::text::interval) * 800)::bigint || 'ms', false),
                            -- A session whose client is gone without a word must not hold its locks.
                            set_config('idle_in_transaction_session_timeout', '10s', false),
                            set_config('tcp_keepalives_idle', '5', false),
                            set_config('tcp_keepalives_interval', '2', false),
                            set_config('tcp_keepalives_count', '3', false),
                            set_config('tcp_user_timeout', '10000', false),
                            set_config('plan_cache_mode', $2, false),
                            set_config('enable_seqscan', $3, false),
                            set_config('enable_bitmapscan', $4, false),
                            -- To compile a statement takes longer than to run any of these.
                            set_config('jit', 'off', false),
                            set_config('application_name', 'sightline', false)",
                )
                .bind(statement_timeout)
                .bind(plan_cache_mode)
                .bind(enable_seqscan)
                .bind(enable_bitmapscan)
                .execute(&mut *connection)
                .await?;
                if must_write {
                    refuse_read_only(connection).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(options)
}

/// Whether the server behind a connection answers, and takes writes if it has to.
async fn check(connection: &mut PgConnection, must_write: bool) -> Result<bool, sqlx::Error> {
    if !must_write {
        within(ANSWER_TIMEOUT, connection.ping()).await?;
        return Ok(true);
    }
    match within(ANSWER_TIMEOUT, refuse_read_only(connection)).await {
        Err(error) if !is_read_only(&error) => Err(error),
        refused => Ok(refused.is_ok()),
    }
}

/// Runs a statement that several callers wait for, whose own deadlines may be long. Its server may be gone without a word.
///
/// # Errors
/// Its own, or that of a database that does not answer.
pub async fn for_callers<T, E: From<sqlx::Error>>(
    statement: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    within(CALLER_DEADLINE, statement).await
}

/// Waits for the database, but not for ever.
///
/// # Errors
/// Those of `future`, and `Io` with the kind `TimedOut` after `limit`: whether the work was done is unknown.
pub async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = |_| sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(limit, future).await.map_err(late)?
}

/// Sets a parameter of the server until the transaction ends.
///
/// # Errors
/// The database's.
pub async fn set_local(
    connection: &mut PgConnection,
    name: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config($1, $2, true)")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await
        .map(drop)
}

/// What a connection to a read-only server fails with.
#[derive(Debug, thiserror::Error)]
#[error("the server is read-only: a standby, or a primary that was demoted")]
struct ReadOnlyServer;

/// Checks that the server behind a connection takes writes. Reads are refused, too: what a demoted
/// primary has stays behind.
///
/// # Errors
/// It does not, or it does not answer.
pub async fn refuse_read_only(connection: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
    let read_only: String = sqlx::query_scalar("SHOW transaction_read_only")
        .fetch_one(connection)
        .await?;
    if read_only == "off" {
        Ok(())
    } else {
        Err(sqlx::Error::Io(io::Error::other(ReadOnlyServer)))
    }
}

/// Whether the server that a pool leads to is known to be read-only: the pool itself only runs out of
/// connections then. Opens a connection of its own.
pub async fn server_is_read_only(pool: &PgPool) -> bool {
    match PgConnection::connect_with(&pool.connect_options()).await {
        Ok(mut connection) => {
            let refused = refuse_read_only(&mut connection).await;
            refused.is_err_and(|error| is_read_only(&error))
        }
        Err(_) => false,
    }
}

/// Whether an error says that the server is read-only.
fn is_read_only(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().as_deref() == Some("25006"),
        error => is_own::<ReadOnlyServer>(error),
    }
}

/// Whether an error is one of this program's own, which the database does not know.
fn is_own<E: std::error::Error + 'static>(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.get_ref().is_some_and(|error| error.is::<E>()),
        _ => false,
    }
}

/// The database does not have a domain: the migration that creates its view has not run yet. A caller may try again.
#[derive(Debug, thiserror::Error)]
#[error("the database lacks the domain: not all migrations have run")]
pub struct LacksDomain;

impl From<LacksDomain> for sqlx::Error {
    fn from(error: LacksDomain) -> Self {
        sqlx::Error::Io(io::Error::other(error))
    }
}

/// Applies the migrations that are missing. Several processes may call it at once: one migrates,
/// the others wait.
///
/// # Errors
/// The database can't be reached, a migration fails, or the database was migrated by a newer
/// binary.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    // The settings and the lock are for migrations only: the connection is closed at the end, with
    // any outcome.
    let mut connection = pool.acquire().await?.detach();
    // An index on a large table takes as long as it takes, and so does another process that migrates.
    sqlx::query(
        "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false),
                set_config('idle_in_transaction_session_timeout', '0', false),
                -- sqlx creates its table IF NOT EXISTS, and the server notes each time that it exists.
                set_config('client_min_messages', 'warning', false)",
    )
    .execute(&mut connection)
    .await?;
    connection.lock().await?;
    // A lock that others wait behind is given up soon, and tried again by the caller.
    sqlx::query("SELECT set_config('lock_timeout', $1, false)")
        .bind(MIGRATION_LOCK_TIMEOUT)
        .execute(&mut connection)
        .await?;
    migrations_table::prepare(&mut connection, &MIGRATIONS).await?;
    MIGRATIONS.run_direct(None, &mut connection, false).await
}

/// Why the database of `pool` can't hold the views, or `None`. No retry changes it. Opens a connection of its own: the pool
/// keeps trying, and then says only that it has no connection.
///
/// # Errors
/// The database can't be reached, or it is read-only.
pub async fn find_unsuitable(pool: &PgPool) -> Result<Option<String>, sqlx::Error> {
    within(PROJECTOR_ACQUIRE_TIMEOUT, async {
        let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
        refuse_read_only(&mut connection).await?;
        let (version, encoding) = sqlx::query_as::<_, (i32, String)>(
            "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(unsuitable(version, &encoding))
    })
    .await
}

/// Where the server of `pool` listens, for messages: `host:port`, or the directory of its socket.
pub fn address(pool: &PgPool) -> String {
    let options = pool.connect_options();
    match options.get_socket() {
        Some(directory) => directory.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Lengths are checked in characters, and text is stored as it came: only UTF8 does both right.
fn unsuitable(version: i32, encoding: &str) -> Option<String> {
    if version < OLDEST_POSTGRES {
        return Some(format!(
            "Postgres is of version {}, and sightline needs 15 or newer",
            version / 10_000
        ));
    }
    (encoding != "UTF8").then(|| {
        format!(
            "the database has the encoding {encoding}, and sightline needs UTF8: \
             create it with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    })
}

/// Whether every migration of this binary is applied, with the same checksum.
///
/// # Errors
/// The database can't be reached, or the role may not read the table of migrations.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    if !migrations_table::exists(&mut connection, migrations_table::TABLE).await? {
        return Ok(false);
    }
    let applied = connection
        .list_applied_migrations(&MIGRATIONS.table_name)
        .await
        .map_err(|error| match error {
            MigrateError::Execute(error) => error,
            error => sqlx::Error::Migrate(Box::new(error)),
        })?;
    Ok(MIGRATIONS.iter().all(|ours| {
        applied
            .iter()
            .any(|theirs| theirs.version == ours.version && theirs.checksum == ours.checksum)
    }))
}

/// A stored row of this table can't be read by this release's code: newer code wrote it, or it is damaged. What is wrong with
/// it is not said, because that may quote values.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The form of a row of this table is not one that this release knows.
    #[error("this release can't read a row of {0}")]
    Row(&'static str),
    /// Another reason, in words without values.
    #[error("{0}")]
    Because(&'static str),
}

/// A document as it is stored: JSON that Postgres takes for text.
///
/// # Errors
/// It can't be encoded.
pub fn to_document(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// The value of a document that is stored in this table.
///
/// # Errors
/// [`Unreadable`].
pub fn of_document<'d, T: Deserialize<'d>>(
    document: &'d str,
    table: &'static str,
) -> Result<T, sqlx::Error> {
    let mut json = serde_json::Deserializer::from_str(document);
    // What events nest as deep as they may is a little deeper in a document.
    json.disable_recursion_limit();
    T::deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value))
        .map_err(|_| sqlx::Error::Decode(Box::new(Unreadable::Row(table))))
}

/// Two users have the same key, which is a hash of the user's id. The row is the one's, so the other's events can't be applied:
/// they are classed as [`ErrorClass::Bug`].
#[derive(Debug, thiserror::Error)]
#[error("two user ids have the same hash")]
pub struct SharedUserKey;

impl From<SharedUserKey> for sqlx::Error {
    fn from(error: SharedUserKey) -> Self {
        sqlx::Error::Encode(Box::new(error))
    }
}

/// How an error is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same statement may succeed next time: connection, deadlock, serialization, resources,
    /// shutdown.
    Transient,
    /// An operator has to repair something: permissions, tables, limits, a damaged file. The
    /// statement fails until then, with any data.
    Systemic,
    /// The data causes it: the statement fails with the same data every time.
    Data,
    /// A stored row can't be read by this release's code, which is no event's fault.
    UnreadableState,
    /// Anything unexpected, which counts as a bug.
    Bug,
}

/// Classifies an error by its SQLSTATE (PostgreSQL, Appendix A) or, where the server sent none, by
/// its kind.
pub fn classify(error: &sqlx::Error) -> ErrorClass {
    match error {
        sqlx::Error::Database(error) if is_replan(error.as_ref()) => ErrorClass::Transient,
        sqlx::Error::Database(error) => error
            .code()
            .map_or(ErrorClass::Bug, |sqlstate| classify_sqlstate(&sqlstate)),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => ErrorClass::Transient,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => ErrorClass::UnreadableState,
        _ => ErrorClass::Bug,
    }
}

/// Whether a prepared statement failed because a migration has changed its result (0A000, "cached
/// plan must not change result type"). The next attempt prepares it again.
fn is_replan(error: &(dyn DatabaseError + 'static)) -> bool {
    error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| error.routine() == Some("RevalidateCachedQuery"))
}

fn classify_sqlstate(sqlstate: &str) -> ErrorClass {
    match (sqlstate, sqlstate.get(..2).unwrap_or_default()) {
        // read_only_sql_transaction: the server is a standby until the failover ends.
        // idle_in_transaction_session_timeout, lock_not_available.
        ("25006" | "25P03" | "55P03", _)
        // 24, 26, 34, 3B: a cursor, statement or savepoint of a session that was replaced behind a
        // pooler. 72: a snapshot that became too old.
        | (_, "08" | "24" | "26" | "34" | "3B" | "40" | "53" | "57" | "72") => {
            ErrorClass::Transient
        }
        (_, "22" | "23" | "54") => ErrorClass::Data,
        // The statements were checked against the schema when they were compiled, so the data is
        // not the cause.
        (_, "0A" | "25" | "28" | "3D" | "3F" | "42" | "55" | "58" | "F0" | "XX") => {
            ErrorClass::Systemic
        }
        _ => ErrorClass::Bug,
    }
}

/// A description of a failed migration that may be logged.
pub fn describe_migration(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) => describe(error),
        MigrateError::ExecuteMigration(error, version) => {
            format!("migration {version}: {}", describe(error))
        }
        error => error.to_string(),
    }
}

/// Whether a statement or a transaction took more time or memory than the server allows (query_canceled, out_of_memory,
/// idle_in_transaction_session_timeout, or an allocation of a gigabyte): with less to do it may succeed. A wait for a lock
/// ends before that, by `lock_timeout`.
pub fn hit_limit(error: &sqlx::Error) -> bool {
    let error = match error {
        sqlx::Error::Io(error) => return error.kind() == io::ErrorKind::TimedOut,
        error => match error.as_database_error() {
            Some(error) => error,
            None => return false,
        },
    };
    let routine = error
        .try_downcast_ref::<PgDatabaseError>()
        .and_then(PgDatabaseError::routine)
        .unwrap_or_default();
    match error.code().as_deref() {
        Some("57014" | "53200" | "25P03") => true,
        Some("XX000") => routine.starts_with("MemoryContext") || routine.contains("alloc"),
        _ => false,
    }
}

/// Whether a statement gave up waiting for a lock.
pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// A description of an error that may be logged: SQLSTATE, constraint and table, without the values
/// that the server's DETAIL quotes. Of a refusal it has the server's message, which names the role,
/// the database or the object.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        error if is_read_only(error) => ReadOnlyServer.to_string(),
        error if is_own::<LacksDomain>(error) => LacksDomain.to_string(),
        sqlx::Error::Database(database) => {
            let sqlstate = database.code().unwrap_or("unknown".into());
            let mut text = format!("SQLSTATE {sqlstate}");
            if is_refusal(&sqlstate) {
                text.push_str(&format!(", {}", database.message()));
            }
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
        sqlx::Error::Io(error) => describe_io(error),
        sqlx::Error::PoolTimedOut => {
            "no connection could be opened, or became free, in time".to_owned()
        }
        sqlx::Error::PoolClosed => "the pool is closed".to_owned(),
        sqlx::Error::Tls(cause) => tls_cause(&**cause).unwrap_or_else(|| "TLS failed".to_owned()),
        sqlx::Error::Protocol(_) => "protocol error".to_owned(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} could not be decoded"),
        sqlx::Error::Decode(cause) => match cause.downcast_ref::<Unreadable>() {
            Some(why) => why.to_string(),
            None => "a value could not be decoded".to_owned(),
        },
        sqlx::Error::Encode(cause) if cause.is::<SharedUserKey>() => cause.to_string(),
        sqlx::Error::Migrate(_) => "migrations could not be read".to_owned(),
        sqlx::Error::RowNotFound => "the statement returned no row".to_owned(),
        _ => "unexpected database error".to_owned(),
    }
}

/// What keeps a connection from being opened or used. The settings that it would have to name are known to the reader of the
/// log: where the server is said to be, and by which means.
fn describe_io(error: &io::Error) -> String {
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset,
        HostUnreachable, NetworkDown, NetworkUnreachable, NotConnected, NotFound, PermissionDenied,
        TimedOut, UnexpectedEof,
    };
    if let Some(tls) = error.get_ref().and_then(|cause| tls_cause(cause)) {
        return tls;
    }
    let text = error.to_string();
    // The library gives this error no kind of its own, and its text has the resolver's reason alone.
    if let Some(reason) = text.strip_prefix("failed to lookup address information: ") {
        return format!("the server's host name can't be resolved: {reason}");
    }
    match error.kind() {
        ConnectionRefused => "the connection is refused: no server listens at its address",
        TimedOut => "the server does not answer in time",
        ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | UnexpectedEof => {
            "the server, or something on the way to it, has closed the connection"
        }
        HostUnreachable | NetworkUnreachable | NetworkDown => {
            "the server can't be reached: there is no way to its host"
        }
        AddrNotAvailable => "this machine has no address or port left for the connection",
        NotFound => "the server's socket does not exist",
        PermissionDenied => "this process has no right to connect to the server's address",
        // The operating system's own words: many of its errors have no kind.
        _ if error.raw_os_error().is_some() => return format!("connection: {text}"),
        kind => return format!("connection: {kind}"),
    }
    .to_owned()
}

/// Whether the server refuses the role or the database, whatever the statement's values are:
/// invalid_authorization_specification, invalid_password, invalid_catalog_name,
/// insufficient_privilege.
fn is_refusal(sqlstate: &str) -> bool {
    matches!(sqlstate, "28000" | "28P01" | "3D000" | "42501")
}

/// Why TLS failed, if the text is one of those that hold names and causes only. Others may quote the
/// files that the settings name.
fn tls_cause(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let text = error.to_string();
    [
        "invalid peer certificate",
        "peer is incompatible",
        "received corrupt message",
        "received fatal alert",
        "server does not support TLS",
    ]
    .iter()
    .any(|known| text.starts_with(known))
    .then(|| format!("TLS: {text}"))
}

/// The answer to a caller whose read failed: it says only whether a retry may help.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let cause = describe(&error);
        let sqlstate = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
            _ => String::new(),
        };
        // A schema, table, column, function or type does not exist; or a table does that this release creates, because an
        // older release's function created it for a new version.
        let lacks_schema = matches!(
            sqlstate.as_str(),
            "3F000" | "42P01" | "42703" | "42883" | "42704" | "42P07"
        );
        match (sqlstate.as_str(), classify(&error)) {
            // query_canceled: the statement timeout passed.
            ("57014", _) => Error::deadline_exceeded().with_cause(cause),
            _ if lacks_schema || is_own::<LacksDomain>(&error) => unavailable(
                "The database does not have the schema of this release: it is missing, older or newer. `sightline migrate` \
                 brings it up to date, and so does `sightline serve` as it starts, unless --no-migrate is given.",
                cause,
            ),
            // The role or the database does not exist yet, or the password is another one.
            ("28000" | "28P01" | "3D000", _) => unavailable(
                "The database refuses the gateway, whose log has the reason. Try again when it does not.",
                cause,
            ),
            (_, ErrorClass::Transient) => unavailable(
                "The database does not answer at the moment. Try again.",
                cause,
            ),
            _ => Error::internal(cause),
        }
    }
}

fn unavailable(detail: &'static str, cause: String) -> Error {
    Error::new(Code::DatabaseUnavailable, detail)
        .with_retry_after(Duration::from_secs(1))
        .with_cause(cause)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fmt;

    use sqlx::error::ErrorKind;

    use super::*;

    /// An error as the server sends it, with a SQLSTATE only.
    #[derive(Debug)]
    struct ServerError(Option<&'static str>);

    impl fmt::Display for ServerError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an error of a test")
        }
    }

    impl std::error::Error for ServerError {}

    impl DatabaseError for ServerError {
        fn message(&self) -> &str {
            "an error of a test"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            self.0.map(Cow::from)
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn server_error(sqlstate: Option<&'static str>) -> sqlx::Error {
        sqlx::Error::Database(Box::new(ServerError(sqlstate)))
    }

    #[test]
    fn errors_of_the_server_are_classified_by_sqlstate() {
        use ErrorClass::{Bug, Data, Systemic, Transient};
        for (sqlstate, name, class) in [
            ("08000", "connection_exception", Transient),
            ("08006", "connection_failure", Transient),
            ("08P01", "protocol_violation", Transient),
            ("24000", "invalid_cursor_state", Transient),
            ("25006", "read_only_sql_transaction", Transient),
            ("25P03", "idle_in_transaction_session_timeout", Transient),
            ("26000", "invalid_sql_statement_name", Transient),
            ("34000", "invalid_cursor_name", Transient),
            ("3B001", "invalid_savepoint_specification", Transient),
            ("40001", "serialization_failure", Transient),
            ("40P01", "deadlock_detected", Transient),
            ("53100", "disk_full", Transient),
            ("53200", "out_of_memory", Transient),
            ("53300", "too_many_connections", Transient),
            ("55P03", "lock_not_available", Transient),
            ("57014", "query_canceled", Transient),
            ("57P01", "admin_shutdown", Transient),
            ("57P03", "cannot_connect_now", Transient),
            ("72000", "snapshot_too_old", Transient),
            ("22003", "numeric_value_out_of_range", Data),
            ("22021", "character_not_in_repertoire", Data),
            ("22P05", "untranslatable_character", Data),
            ("23502", "not_null_violation", Data),
            ("23505", "unique_violation", Data),
            ("23514", "check_violation", Data),
            ("54000", "program_limit_exceeded", Data),
            ("0A000", "feature_not_supported", Systemic),
            ("25001", "active_sql_transaction", Systemic),
            ("25P02", "in_failed_sql_transaction", Systemic),
            ("28000", "invalid_authorization_specification", Systemic),
            ("28P01", "invalid_password", Systemic),
            ("3D000", "invalid_catalog_name", Systemic),
            ("3F000", "invalid_schema_name", Systemic),
            ("42501", "insufficient_privilege", Systemic),
            ("42703", "undefined_column", Systemic),
            ("42P01", "undefined_table", Systemic),
            ("55000", "object_not_in_prerequisite_state", Systemic),
            ("55006", "object_in_use", Systemic),
            ("58030", "io_error", Systemic),
            ("58P01", "undefined_file", Systemic),
            ("F0000", "config_file_error", Systemic),
            ("XX000", "internal_error", Systemic),
            ("XX001", "data_corrupted", Systemic),
            ("01000", "warning", Bug),
            ("02000", "no_data", Bug),
            ("0B000", "invalid_transaction_initiation", Bug),
            ("21000", "cardinality_violation", Bug),
            ("2D000", "invalid_transaction_termination", Bug),
            ("44000", "with_check_option_violation", Bug),
            ("P0001", "raise_exception", Bug),
            ("SL001", "a code that Postgres does not have", Bug),
            ("", "an empty code", Bug),
        ] {
            let found = classify(&server_error(Some(sqlstate)));
            assert_eq!(found, class, "{sqlstate} {name}");
        }
        assert_eq!(classify(&server_error(None)), Bug);
    }

    #[test]
    fn errors_without_a_sqlstate_are_classified_by_kind() {
        use ErrorClass::{Bug, Transient, UnreadableState};
        for (error, class) in [
            (std::io::Error::other("reset").into(), Transient),
            (sqlx::Error::Tls("handshake".into()), Transient),
            (sqlx::Error::Protocol("unexpected".into()), Transient),
            (sqlx::Error::PoolTimedOut, Transient),
            (sqlx::Error::PoolClosed, Transient),
            (sqlx::Error::WorkerCrashed, Transient),
            (sqlx::Error::BeginFailed, Transient),
            (sqlx::Error::RowNotFound, Bug),
            (sqlx::Error::ColumnNotFound("x".into()), Bug),
            (sqlx::Error::Decode("not JSON".into()), UnreadableState),
        ] {
            assert_eq!(classify(&error), class, "{error:?}");
        }
    }

    #[test]
    fn refusals_are_described_by_the_servers_message() {
        for (sqlstate, has_message) in [
            ("42501", true),
            ("28P01", true),
            ("28000", true),
            ("3D000", true),
            // These messages quote values.
            ("22P02", false),
            ("23505", false),
        ] {
            let text = describe(&server_error(Some(sqlstate)));
            assert!(text.starts_with(&format!("SQLSTATE {sqlstate}")), "{text}");
            assert_eq!(text.contains("an error of a test"), has_message, "{text}");
        }
    }

    #[test]
    fn what_keeps_a_connection_from_working_is_said_in_plain_words() {
        use std::io::{Error, ErrorKind};
        use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

        let unresolvable = ("no-such-host.invalid", 5432).to_socket_addrs();
        let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let corrupt = "received corrupt message of type InvalidContentType";
        for (error, wanted) in [
            (unresolvable.unwrap_err(), "host name can't be resolved: "),
            (TcpStream::connect(closed).unwrap_err(), "is refused"),
            (ErrorKind::TimedOut.into(), "does not answer in time"),
            (ErrorKind::ConnectionReset.into(), "closed the connection"),
            (ErrorKind::UnexpectedEof.into(), "closed the connection"),
            (ErrorKind::BrokenPipe.into(), "closed the connection"),
            (ErrorKind::HostUnreachable.into(), "no way to its host"),
            (ErrorKind::NetworkUnreachable.into(), "no way to its host"),
            (ErrorKind::AddrNotAvailable.into(), "no address or port"),
            (ErrorKind::NotFound.into(), "socket does not exist"),
            (ErrorKind::PermissionDenied.into(), "has no right"),
            // EMFILE, which has no kind.
            (Error::from_raw_os_error(24), "oo many open files"),
            (Error::new(ErrorKind::InvalidData, corrupt), corrupt),
        ] {
            let text = describe(&error.into());
            assert!(text.contains(wanted), "{wanted}: {text}");
            assert!(!text.contains("uncategorized"), "{text}");
        }
    }

    #[test]
    fn only_new_servers_with_unicode_are_suitable() {
        assert_eq!(unsuitable(150_000, "UTF8"), None);
        assert_eq!(unsuitable(180_006, "UTF8"), None);
        assert!(unsuitable(140_019, "UTF8").unwrap().contains("version 14"));
        for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
            let problem = unsuitable(170_000, encoding).unwrap();
            assert!(problem.contains(encoding) && !problem.contains('\n'));
        }
    }

    #[test]
    fn callers_learn_only_whether_a_retry_may_help() {
        for (sqlstate, code) in [
            ("57014", Code::DeadlineExceeded),
            ("40001", Code::DatabaseUnavailable),
            ("57P01", Code::DatabaseUnavailable),
            ("28000", Code::DatabaseUnavailable),
            ("28P01", Code::DatabaseUnavailable),
            ("3D000", Code::DatabaseUnavailable),
            ("3F000", Code::DatabaseUnavailable),
            ("42P01", Code::DatabaseUnavailable),
            ("42703", Code::DatabaseUnavailable),
            ("42883", Code::DatabaseUnavailable),
            ("42704", Code::DatabaseUnavailable),
            ("42P07", Code::DatabaseUnavailable),
            ("42501", Code::Internal),
            ("22003", Code::Internal),
            ("XX000", Code::Internal),
        ] {
            let error = Error::from(server_error(Some(sqlstate)));
            assert_eq!(error.code(), code, "{sqlstate}");
            let lacks_schema = matches!(
                sqlstate,
                "3F000" | "42P01" | "42703" | "42883" | "42704" | "42P07"
            );
            let names_migrate = error.detail().contains("sightline migrate");
            assert_eq!(
                names_migrate,
                lacks_schema,
                "{sqlstate}: {}",
                error.detail()
            );
        }
    }
}
