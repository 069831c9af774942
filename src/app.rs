//! Builds what the process needs from its settings, runs servers and projectors, and stops them in
//! order.
//!
//! Ports are bound before anything slow, so that a port in use ends the start at once. The process
//! starts without Postgres or Kafka: each part that needs one of them waits for it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use rdkafka::ClientConfig;
use sqlx::PgPool;
use sqlx::migrate::MigrateError;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::config::{self, Config};
use crate::domains::{self, Domain};
use crate::error::Error;
use crate::kafka::ends::EndsReader;
use crate::kafka::offsets::TopicStates;
use crate::kafka::records::Buffers;
use crate::kafka::shared::SharedConsumer;
use crate::kafka::{group, monitor};
use crate::operations::Operations;
use crate::projector::announcements::Announcements;
use crate::projector::dead_letters::retry::Retrier;
use crate::projector::heartbeat::{self, Heartbeats};
use crate::projector::maintenance::{self, Counts, DeadLetterPolicy};
use crate::projector::restores::RestoreCheck;
use crate::projector::{Projection, Projector, Transactions, added_partitions, members};
use crate::query::lag::{Lag, PartitionConsistency};
use crate::query::{Reads, Work};
use crate::server::{self, Domains, admin};
use crate::task::{Signals, Supervisor};
use crate::{db, telemetry, users};

/// Connections that all domains share: for migrations, added partitions, and the maintenance of event ids.
const SHARED_CONNECTIONS: u32 = 1;
/// Connections of a domain's projectors: one for each of the four writers, and two for claims and the other statements of
/// workers.
const PROJECTOR_CONNECTIONS: u32 = 6;
/// Connections of operations.
const OPERATION_CONNECTIONS: u32 = 4;
/// Connections of work queues.
const WORK_CONNECTIONS: u32 = 4;
/// Connections that announce commits. Another one, of no pool, receives the announcements of other processes.
const ANNOUNCEMENT_CONNECTIONS: u32 = 1;
/// Connections of a domain's maintenance: one of these publishes dead letters.
const MAINTENANCE_CONNECTIONS: u32 = 2;
/// Pause between two attempts to bring the database's schema up to date.
const MIGRATE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the readiness check waits for the database.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it then waits to learn whether the server is read-only.
const READ_ONLY_TIMEOUT: Duration = Duration::from_millis(900);
/// Pause between two updates of the gauges. Each update also refreshes what answers say of the
/// partitions that they depend on, and the last known lag, which is answered while the database is
/// unavailable.
const GAUGES_INTERVAL: Duration = Duration::from_secs(1);
/// How long a reading of the lag for the gauges may take.
const LAG_TIMEOUT: Duration = Duration::from_secs(5);

/// Sets up logging, once per process, and begins it with the variables that may be misspelt settings.
///
/// # Errors
/// Logging is already set up.
pub fn init_logs(config: &Config) -> anyhow::Result<()> {
    telemetry::init_logs(&config.log, config.log_format)?;
    for variable in config::unknown_variables() {
        tracing::warn!("{variable}");
    }
    Ok(())
}

/// Projects and serves until a signal arrives.
///
/// # Errors
/// A port can't be bound, or the process can't be set up.
pub async fn serve(mut config: Config) -> anyhow::Result<ExitCode> {
    serve_on(Listeners::bind(&mut config).await?, config).await
}

/// Projects and serves on ports that are bound, until a signal arrives.
///
/// # Errors
/// The process can't be set up.
pub async fn serve_on(listeners: Listeners, config: Config) -> anyhow::Result<ExitCode> {
    let signals = Signals::catch().context("catching signals")?;
    let metrics = telemetry::metrics()?;
    let supervisor = Supervisor::new();
    let stop = supervisor.stop();
    let pools = Pools::new(&config)?;
    let served = served_domains(&config);
    let (migrated_sender, migrated) = watch::channel(false);
    let announcements = Announcements::default();
    let kafka = group::connection_config(&config.kafka_brokers, &config.kafka_properties);
    let operations = pools.operations.clone();
    let retrier = retrier(&config, kafka.clone(), operations, announcements.clone());
    let work = Work {
        pool: pools.work.clone(),
        announcements: announcements.clone(),
        restores: restore_check(&config, kafka.clone(), pools.operations.clone()),
        stop: stop.clone(),
    };
    // Starts the threads that read the topics' states and, when a read demands them, the ends of their logs.
    let topic_states = monitor::start(kafka.clone(), config.kafka_topics.clone(), stop.clone());
    let ends = EndsReader::start(kafka.clone(), topic_states.clone(), stop.clone());
    let reads = Reads::new(
        domain_names(&served),
        pools.reads.clone(),
        pools.replicas.clone(),
        work,
        Some(ends),
        config.kafka_settle,
    );
    supervisor.spawn_lasting("replicas", {
        let reads = reads.clone();
        move |stop| {
            let reads = reads.clone();
            async move {
                stop.run_until_cancelled(compare_replicas(&reads)).await;
                Ok(())
            }
        }
    });
    let services = Services::new(&served, reads, retrier.clone());

    let counts = Arc::new(Counts::default());

    let admin = admin_parts(pools.reads.clone(), migrated.clone(), metrics.clone());
    supervisor.spawn_lasting("metrics", {
        let gauges = Gauges {
            metrics,
            lag: services.lag.clone(),
            counts: counts.clone(),
            pools: pools.clone(),
            admin: admin.clone(),
        };
        move |stop| gauges.clone().keep(stop)
    });
    supervisor.spawn_vital(
        "admin",
        admin::serve(listeners.admin, admin, stop.clone()).map(Ok),
    );
    supervisor.spawn_lasting("announcements", {
        let (announcements, pool) = (announcements.clone(), pools.announcements.clone());
        move |stop| {
            let (announcements, pool) = (announcements.clone(), pool.clone());
            async move {
                stop.run_until_cancelled(announcements.exchange(&pool))
                    .await;
                Ok(())
            }
        }
    });
    if let Some(listeners) = listeners.api {
        serve_api(&supervisor, &served, services, listeners);
    }
    supervisor.spawn_vital(
        "migrations",
        prepare_database(
            pools.shared.clone(),
            config.migrate,
            migrated_sender,
            stop.clone(),
        ),
    );
    let mut projectors = None;
    if config.role.projects() {
        let runtime = projectors.insert(ProjectorRuntime::start()?);
        let announcements = retrier.announcements.clone();
        let shared = pools.shared.clone();
        let projector = projector(&config, kafka, shared, announcements, topic_states, stop);
        let maintained = Maintained {
            retrier,
            policy: DeadLetterPolicy {
                retention: chrono::TimeDelta::days(config.dead_letter_retention_days.into()),
                publish_values: config.dead_letter_topic_values,
            },
            counts,
        };
        project(
            &supervisor.on(&runtime.handle),
            &served,
            &pools,
            projector,
            maintained,
            &migrated,
        );
    }
    Ok(supervisor.run(signals, config.shutdown_grace).await)
}

/// The threads of the projectors. A batch computes for tens of milliseconds at a time, and calls on the same
/// threads would wait for it.
struct ProjectorRuntime {
    handle: runtime::Handle,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl ProjectorRuntime {
    fn start() -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("projector")
            .enable_all()
            .build()
            .context("starting the projectors' threads")?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for ProjectorRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // To drop it would wait for its threads, which Tokio forbids in a task.
            runtime.shutdown_background();
        }
    }
}

/// The API's document, of all domains, as it is pinned in `openapi/openapi.json`.
///
/// # Errors
/// It can't be written as JSON.
pub fn openapi_json() -> Result<String, Error> {
    let routes = rest_routes(domains::ALL);
    let document = server::openapi::document(routes.into_openapi(), &domains::names());
    server::openapi::to_json(&document)
}

fn rest_routes(domains: &[&'static dyn Domain]) -> OpenApiRouter<Reads> {
    let of_domains = domains.iter().fold(OpenApiRouter::new(), |routes, domain| {
        routes.merge(domain.rest())
    });
    of_domains.merge(users::routes(domains))
}

fn grpc_services(domains: &[&'static dyn Domain], reads: &Reads) -> Routes {
    let mut services = RoutesBuilder::default();
    for domain in domains {
        domain.add_grpc(reads.clone(), &mut services);
    }
    services.add_service(users::service(reads.clone(), domains));
    services.routes()
}

/// The ports of the process, bound.
pub struct Listeners {
    admin: TcpListener,
    /// `None` where the process serves no reads.
    api: Option<ApiListeners>,
}

struct ApiListeners {
    grpc: TcpListener,
    http: TcpListener,
}

impl Listeners {
    /// Binds the addresses of `config`, which then name the ports that the system chose for port 0.
    ///
    /// # Errors
    /// An address can't be bound.
    pub async fn bind(config: &mut Config) -> anyhow::Result<Self> {
        let admin = bind(&config.chosen_by("admin_addr"), &mut config.admin_addr).await?;
        let admin_addr = config.admin_addr;
        if !config.role.serves() {
            tracing::info!(admin = %admin_addr, "listening");
            return Ok(Self { admin, api: None });
        }
        let grpc = bind(&config.chosen_by("grpc_addr"), &mut config.grpc_addr).await?;
        let http = bind(&config.chosen_by("http_addr"), &mut config.http_addr).await?;
        let (grpc_addr, http_addr) = (config.grpc_addr, config.http_addr);
        tracing::info!(grpc = %grpc_addr, http = %http_addr, admin = %admin_addr, "listening");
        Ok(Self {
            admin,
            api: Some(ApiListeners { grpc, http }),
        })
    }
}

/// Binds an address, which was chosen by a flag, a variable or a key of a file.
async fn bind(chosen_by: &str, address: &mut SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(*address).await.with_context(|| {
        format!("can't listen on {address}; {chosen_by} chooses another address (port 0 takes a free port)")
    })?;
    *address = listener
        .local_addr()
        .with_context(|| format!("reading the address of {chosen_by}"))?;
    Ok(listener)
}

/// The process's connections to the database, by purpose: none of them starves another.
#[derive(Clone)]
struct Pools {
    reads: PgPool,
    /// Of read replicas.
    replicas: Vec<PgPool>,
    /// Of each domain, in the order of the domains.
    projectors: Vec<PgPool>,
    /// As `projectors`.
    maintenance: Vec<PgPool>,
    shared: PgPool,
    operations: PgPool,
    work: PgPool,
    announcements: PgPool,
}

impl Pools {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let pooled = db::options(&config.database_url)?;
        let direct = db::options(&config.database_direct_url)?;
        let of_each_domain =
            |pool: &dyn Fn() -> PgPool| config.domains.iter().map(|_| pool()).collect();
        let replicas = config.database_read_urls.iter().map(|url| {
            let options = db::options(url)?;
            Ok(db::pool(
                &db::REPLICA,
                options,
                config.database_max_connections,
            ))
        });
        Ok(Self {
            replicas: replicas.collect::<anyhow::Result<_>>()?,
            reads: db::pool(&db::CALLERS, pooled, config.database_max_connections),
            projectors: of_each_domain(&|| {
                db::pool(&db::PROJECTORS, direct.clone(), PROJECTOR_CONNECTIONS)
            }),
            maintenance: of_each_domain(&|| {
                db::pool(&db::MAINTENANCE, direct.clone(), MAINTENANCE_CONNECTIONS)
            }),
            shared: db::pool(&db::PROJECTORS, direct.clone(), SHARED_CONNECTIONS),
            operations: db::pool(&db::OPERATIONS, direct.clone(), OPERATION_CONNECTIONS),
            work: db::pool(&db::CALLERS, direct.clone(), WORK_CONNECTIONS),
            announcements: db::pool(
                &db::MAINTENANCE,
                // A notice that a crash of the server loses is of no use after it.
                direct.options([("synchronous_commit", "off")]),
                ANNOUNCEMENT_CONNECTIONS,
            ),
        })
    }
}

/// The configured domains, with their settings. A domain that has settings stays in memory after each call.
pub fn served_domains(config: &Config) -> Vec<&'static dyn Domain> {
    domains::ALL
        .iter()
        .filter(|domain| config.domains.iter().any(|name| name == domain.domain()))
        .map(|domain| domain.with_settings(config).unwrap_or(*domain))
        .collect()
}

fn domain_names(domains: &[&'static dyn Domain]) -> Vec<&'static str> {
    domains.iter().map(|domain| domain.domain()).collect()
}

/// The same domains as the projector sees them.
fn projections(domains: &[&'static dyn Domain]) -> Vec<&'static dyn Projection> {
    domains
        .iter()
        .map(|domain| *domain as &dyn Projection)
        .collect()
}

/// What both surfaces (REST and gRPC) answer from.
struct Services {
    domains: Domains,
    reads: Reads,
    lag: Lag,
    operations: Operations,
}

impl Services {
    fn new(served: &[&'static dyn Domain], reads: Reads, retrier: Retrier) -> Self {
        let domains = Domains {
            served: domain_names(served),
            known: domains::names(),
        };
        let code_versions = served
            .iter()
            .map(|domain| (domain.domain(), domain.code_version()));
        let lag = Lag::new(reads.clone(), code_versions, domains.known.clone());
        let operations = Operations::new(
            reads.clone(),
            lag.clone(),
            retrier,
            projections(served),
            domains.known.clone(),
        );
        Self {
            domains,
            reads,
            lag,
            operations,
        }
    }
}

fn serve_api(
    supervisor: &Supervisor,
    served: &[&'static dyn Domain],
    services: Services,
    listeners: ApiListeners,
) {
    let Services {
        domains,
        reads,
        lag,
        operations,
    } = services;
    let grpc = server::grpc::Parts {
        services: grpc_services(served, &reads),
        reads: reads.clone(),
        names: served
            .iter()
            .map(|domain| domain.grpc_service())
            .chain([users::SERVICE_NAME])
            .collect(),
        domains: domains.clone(),
        lag: lag.clone(),
        operations: operations.clone(),
    };
    let http = server::http::Parts {
        routes: rest_routes(served),
        reads,
        domains,
        lag,
        operations,
    };
    let stop = supervisor.stop();
    supervisor.spawn_vital(
        "grpc",
        server::grpc::serve(listeners.grpc, grpc, stop.clone())
            .map(|result| result.context("setting up gRPC reflection")),
    );
    supervisor.spawn_vital(
        "http",
        server::http::serve(listeners.http, http, stop.clone())
            .map(|result| result.context("writing the API's document")),
    );
}

fn admin_parts(
    pool: PgPool,
    migrated: watch::Receiver<bool>,
    metrics: PrometheusHandle,
) -> admin::Parts {
    let ready = move || {
        let (pool, migrated) = (pool.clone(), *migrated.borrow());
        async move { readiness(&pool, migrated).await }.boxed()
    };
    admin::Parts {
        ready: Arc::new(ready),
        metrics: Arc::new(move || metrics.render()),
    }
}

/// The conditions under which a process can take calls. A check fails where one that it needs fails, or where the database does
/// not answer in time.
async fn readiness(pool: &PgPool, migrated: bool) -> admin::Checks {
    let schema = timeout(SCHEMA_TIMEOUT, db::is_migrated(pool)).await;
    let schema = schema.ok().and_then(Result::ok);
    // A read-only server answers, but the pool takes no connection to it.
    let is_read_only = match schema {
        Some(_) => false,
        None => timeout(READ_ONLY_TIMEOUT, db::server_is_read_only(pool))
            .await
            .unwrap_or(false),
    };
    vec![
        ("database", schema.is_some() || is_read_only),
        ("database_writable", schema.is_some()),
        ("migrations", migrated && schema.unwrap_or(false)),
    ]
}

/// Compares read replicas with the primary every second, for as long as it runs.
async fn compare_replicas(reads: &Reads) {
    loop {
        reads.replicas().compare(reads.primary()).await;
        tokio::time::sleep(GAUGES_INTERVAL).await;
    }
}

/// Brings the schema up to date or, where `migrate` is false, waits until another process did. Sets
/// `migrated` then, and ends when the process stops.
async fn prepare_database(
    pool: PgPool,
    migrate: bool,
    migrated: watch::Sender<bool>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut warned = false;
    while let Some(schema) = stop
        .run_until_cancelled(prepare_schema(&pool, migrate))
        .await
    {
        match schema? {
            Schema::UpToDate => {
                migrated.send_replace(true);
                if warned {
                    tracing::info!("the database is available and its schema is up to date");
                }
                stop.cancelled().await;
            }
            // Each attempt would log the same: the first one is enough.
            _ if warned => {}
            Schema::OfAnotherRelease => {
                warned = true;
                tracing::warn!(
                    "the database's schema is not this release's: waiting for `sightline migrate`"
                );
            }
            Schema::Unavailable(error) => {
                warned = true;
                tracing::warn!(
                    server = db::address(&pool),
                    error,
                    "the database can't be used yet: retrying until it can"
                );
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(MIGRATE_INTERVAL))
            .await;
    }
    Ok(())
}

enum Schema {
    UpToDate,
    OfAnotherRelease,
    /// The database can't be used yet, with the cause.
    Unavailable(String),
}

/// Migrates the schema or, where `migrate` is false, only looks at it.
async fn prepare_schema(pool: &PgPool, migrate: bool) -> anyhow::Result<Schema> {
    let outcome = match db::find_unsuitable(pool).await {
        Ok(Some(problem)) => anyhow::bail!(problem),
        Ok(None) if migrate => db::migrate(pool).await.map(|()| true),
        Ok(None) => db::is_migrated(pool).await.map_err(MigrateError::from),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => Ok(Schema::UpToDate),
        Ok(false) => Ok(Schema::OfAnotherRelease),
        Err(
            ref failure @ (MigrateError::Execute(ref error)
            | MigrateError::ExecuteMigration(ref error, _)),
        ) => {
            // A database, a role or a permission may still be created. A migration that fails on
            // data or by a bug fails again.
            let may_pass = matches!(
                db::classify(error),
                db::ErrorClass::Transient | db::ErrorClass::Systemic
            );
            let error = db::describe_migration(failure);
            if may_pass || !migrate {
                Ok(Schema::Unavailable(error))
            } else {
                Err(anyhow::anyhow!("the database can't be migrated: {error}"))
            }
        }
        Err(error) => Err(anyhow::anyhow!("the database can't be migrated: {error}")),
    }
}

/// Starts a task of the projectors. It ends when `stop` of its projector is cancelled.
type RunTask = Box<dyn Fn(Projector) -> BoxFuture<'static, ()> + Send>;

/// What maintenance needs besides the projector.
struct Maintained {
    retrier: Retrier,
    policy: DeadLetterPolicy,
    counts: Arc<Counts>,
}

/// Starts everything that projects, once the migrations are applied.
fn project(
    supervisor: &Supervisor,
    served: &[&'static dyn Domain],
    pools: &Pools,
    projector: Projector,
    Maintained {
        retrier,
        policy,
        counts,
    }: Maintained,
    migrated: &watch::Receiver<bool>,
) {
    // Heartbeats have a connection of their own: a process whose other connections are all busy
    // must not count as dead.
    let heartbeats = Projector {
        pool: db::pool(
            &db::OPERATIONS,
            (*projector.pool.connect_options()).clone(),
            1,
        ),
        ..projector.clone()
    };
    let maintained: Vec<(&'static dyn Projection, PgPool)> = projections(served)
        .into_iter()
        .zip(pools.maintenance.iter().cloned())
        .collect();
    let mut tasks: Vec<(String, Projector, RunTask)> = vec![
        (
            "heartbeats".to_owned(),
            heartbeats,
            Box::new(|projector| heartbeat::run(projector).boxed()),
        ),
        (
            "added-partitions".to_owned(),
            projector.clone(),
            Box::new(|projector| added_partitions::run(projector).boxed()),
        ),
        (
            "maintenance".to_owned(),
            projector.clone(),
            Box::new(move |projector| {
                let (maintained, retrier) = (maintained.clone(), retrier.clone());
                let counts = Arc::clone(&counts);
                async move {
                    maintenance::run(projector, maintained, retrier, policy, &counts).await;
                }
                .boxed()
            }),
        ),
    ];
    for (domain, pool) in served.iter().copied().zip(&pools.projectors) {
        let projector = Projector {
            pool: pool.clone(),
            ..projector.clone()
        };
        tasks.push((
            format!("project-{}", domain.domain()),
            projector,
            Box::new(move |projector| members::project(projector, domain).boxed()),
        ));
    }
    for (name, projector, run) in tasks {
        supervisor.spawn_lasting_after(migrated.clone(), name, move |stop| {
            run(Projector {
                stop: stop.child_token(),
                ..projector.clone()
            })
            .map(Ok)
        });
    }
}

/// What the projectors of this process share.
fn projector(
    config: &Config,
    kafka: ClientConfig,
    pool: PgPool,
    announcements: Announcements,
    topic_states: watch::Receiver<Option<TopicStates>>,
    stop: &CancellationToken,
) -> Projector {
    Projector {
        pool,
        other_versions: Arc::new(Semaphore::new((config.database_transactions / 2).max(1))),
        transactions: Arc::new(Transactions::new(config.database_transactions)),
        shared: SharedConsumer::start(
            group::shared_config(&kafka, &config.kafka_group_prefix),
            stop.child_token(),
        ),
        kafka,
        topics: config.kafka_topics.clone(),
        group_prefix: config.kafka_group_prefix.clone(),
        start: config.kafka_start,
        settle: config.kafka_settle,
        max_value_bytes: config.max_value_bytes,
        dedupe: chrono::TimeDelta::days(config.dedupe_days.into()),
        instance: Uuid::now_v7(),
        buffers: Arc::new(Buffers::new(config.kafka_buffer_bytes)),
        topic_states,
        announcements,
        heartbeats: Arc::new(Heartbeats::default()),
        stop: stop.child_token(),
    }
}

/// Retries dead letters, for maintenance and for operators.
fn retrier(
    config: &Config,
    kafka: ClientConfig,
    pool: PgPool,
    announcements: Announcements,
) -> Retrier {
    Retrier {
        pool,
        kafka: group::dead_letters_config(kafka, &config.kafka_group_prefix),
        max_value_bytes: config.max_value_bytes,
        dedupe: chrono::TimeDelta::days(config.dedupe_days.into()),
        announcements,
    }
}

/// Finds out whether the database was restored, for work queues.
fn restore_check(config: &Config, kafka: ClientConfig, pool: PgPool) -> RestoreCheck {
    RestoreCheck {
        pool,
        kafka,
        group_prefix: config.kafka_group_prefix.clone(),
    }
}

/// What the gauges are set from.
#[derive(Clone)]
struct Gauges {
    metrics: PrometheusHandle,
    lag: Lag,
    counts: Arc<Counts>,
    pools: Pools,
    admin: admin::Parts,
}

impl Gauges {
    /// Updates the gauges until the process stops.
    async fn keep(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut lag_gauges = LagGauges::default();
        let update = async {
            loop {
                self.metrics.run_upkeep();
                set_pool_gauges(&self.pools);
                let update = lag_gauges.update(&self.lag, &self.counts);
                let (is_ready, ()) = tokio::join!(self.admin.is_ready(), update);
                metrics::gauge!(telemetry::READY).set(f64::from(u8::from(is_ready)));
                tokio::time::sleep(GAUGES_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(update).await;
        Ok(())
    }
}

fn set_pool_gauges(pools: &Pools) {
    let of_projectors: Vec<&PgPool> = pools.projectors.iter().chain([&pools.shared]).collect();
    let of_operations: Vec<&PgPool> = pools
        .maintenance
        .iter()
        .chain([&pools.operations])
        .collect();
    for (name, pools) in [
        ("reads", vec![&pools.reads]),
        ("replicas", pools.replicas.iter().collect()),
        ("projectors", of_projectors),
        ("operations", of_operations),
        ("work", vec![&pools.work]),
    ] {
        let idle: usize = pools.iter().map(|pool| pool.num_idle()).sum();
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        let size: u32 = pools.iter().map(|pool| pool.size()).sum();
        let used = size.saturating_sub(idle);
        for (state, connections) in [("idle", idle), ("used", used)] {
            metrics::gauge!(telemetry::DATABASE_CONNECTIONS, "pool" => name, "state" => state)
                .set(connections);
        }
    }
}

/// The gauges of what the database says. What is not known is NaN: a last value would read like a current one.
#[derive(Default)]
struct LagGauges {
    /// The labels of the partitions whose gauges have values.
    known: HashSet<PartitionLabels>,
}

type PartitionLabels = [(&'static str, String); 3];

impl LagGauges {
    async fn update(&mut self, lag: &Lag, counts: &Counts) {
        let mut before = std::mem::take(&mut self.known);
        let answer = timeout(LAG_TIMEOUT, lag.all()).await;
        let domains = answer.map_or(Vec::new(), |answer| {
            answer.map_or(Vec::new(), |answer| answer.body.domains)
        });
        // With `as_of`, figures are only the last known ones.
        let current: Vec<_> = domains.iter().filter(|d| d.as_of.is_none()).collect();
        counts.set_gauges(|name| current.iter().any(|domain| domain.domain == name));
        for domain in current {
            for partition in &domain.partitions {
                let labels = [
                    ("domain", domain.domain.clone()),
                    ("topic", partition.topic.clone()),
                    ("partition", partition.partition.to_string()),
                ];
                set_partition_gauges(&labels, Some(partition));
                before.remove(&labels);
                self.known.insert(labels);
            }
        }
        for labels in before {
            set_partition_gauges(&labels, None);
        }
    }
}

/// Sets a partition's gauges; `None` if nothing is known of it.
fn set_partition_gauges(labels: &PartitionLabels, partition: Option<&PartitionConsistency>) {
    // Offsets and counts are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let count = |of: fn(&PartitionConsistency) -> Option<i64>| {
        partition.and_then(of).map(|count| count as f64)
    };
    for (gauge, value) in [
        (telemetry::POSITION, count(|p| Some(p.position))),
        (
            telemetry::LAG_RECORDS,
            count(PartitionConsistency::current_lag),
        ),
        (
            telemetry::OLDEST_UNAPPLIED_SECONDS,
            partition.and_then(|p| p.oldest_unapplied_seconds),
        ),
        (
            telemetry::END_READ_AGE_SECONDS,
            partition.and_then(|p| p.end_read_age_seconds),
        ),
        (telemetry::DEAD_LETTERS, count(|p| Some(p.dead_letters))),
        (telemetry::PARKED_KEYS, count(|p| Some(p.parked_keys))),
    ] {
        metrics::gauge!(gauge, labels).set(value.unwrap_or(f64::NAN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[tokio::test]
    async fn readiness_names_what_did_not_answer() {
        // Its connections are accepted by the kernel, and nothing answers them.
        let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [hung.local_addr().unwrap(), closed.local_addr().unwrap()];
        drop(closed);
        let pools = addresses.map(|address| {
            let url = Secret::new(format!("postgres://u@{address}/db?sslmode=disable"));
            db::pool(&db::CALLERS, db::options(&url).unwrap(), 1)
        });
        let in_time = timeout(Duration::from_secs(3), async {
            tokio::join!(readiness(&pools[0], true), readiness(&pools[1], true))
        });
        let (hung, closed) = in_time.await.expect("an answer within 3 s");
        let none = vec![
            ("database", false),
            ("database_writable", false),
            ("migrations", false),
        ];
        assert_eq!((hung, closed), (none.clone(), none));
    }
}
