//! Builds what the process needs from its settings, runs servers and projectors, and stops them in order.
//!
//! Ports are bound before anything slow, so that a port in use ends the start at once. Neither Postgres nor
//! Kafka has to be there: what needs them waits.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use sqlx::PgPool;
use sqlx::migrate::MigrateError;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::config::Config;
use crate::domains::{self, Domain};
use crate::error::Error;
use crate::kafka::offsets;
use crate::operations::Operations;
use crate::projector::dead_letters::retry::Retrier;
use crate::projector::heartbeat::{self, Heartbeats};
use crate::projector::maintenance::{self, DeadLetterPolicy};
use crate::projector::{Projection, Projector, members};
use crate::query::Reads;
use crate::query::lag::Lag;
use crate::server::{self, Domains, admin};
use crate::task::{Kind, Signals, Supervisor};
use crate::{db, telemetry};

/// How many connections the projectors of a process share; who has a batch while all are taken waits.
const PROJECTOR_CONNECTIONS: u32 = 11;
/// How many of them versions take that are not read: those that are being built, and retired ones.
const CONNECTIONS_BESIDE: usize = 5;
/// How many connections operations and upkeep share.
const OPERATION_CONNECTIONS: u32 = 4;
/// How often it is tried to bring the database's schema up to date.
const MIGRATE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the gauges are set; lag is then also known for when the database is away.
const GAUGES_INTERVAL: Duration = Duration::from_secs(2);

/// Projects and serves until a signal.
///
/// # Errors
/// A port can't be bound, or the process can't be set up.
pub async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let signals = Signals::catch().context("catching signals")?;
    let metrics = telemetry::metrics()?;
    let supervisor = Supervisor::new();
    let admin = bind("SIGHTLINE_ADMIN_ADDR", config.admin_addr).await?;
    let front = if config.role.serves() {
        let grpc = bind("SIGHTLINE_GRPC_ADDR", config.grpc_addr).await?;
        Some((grpc, bind("SIGHTLINE_HTTP_ADDR", config.http_addr).await?))
    } else {
        None
    };
    let read_pool = db::read_pool(
        db::options(&config.database_url)?,
        config.database_max_connections,
    );
    let direct = db::options(&config.database_direct_url)?;
    let projector_pool = db::projector_pool(direct.clone(), PROJECTOR_CONNECTIONS);
    let operation_pool = db::operation_pool(direct, OPERATION_CONNECTIONS);
    let retrier = retrier(&config, operation_pool.clone());
    let (migrated, is_migrated) = watch::channel(false);

    let served: Vec<&'static dyn Domain> = domains::ALL
        .iter()
        .copied()
        .filter(|domain| config.domains.iter().any(|name| name == domain.domain()))
        .collect();
    let names = Domains {
        served: served.iter().map(|domain| domain.domain()).collect(),
        known: domains::names(),
    };
    let reads = Reads::new(read_pool.clone());
    let lag = Lag::new(reads.clone(), names.served.clone(), names.known.clone());
    let operations = Operations::new(
        reads.clone(),
        lag.clone(),
        retrier.clone(),
        projections(&served),
        names.known.clone(),
    );
    if let Some((grpc, http)) = front {
        tracing::info!(grpc = %grpc.address, http = %http.address, admin = %admin.address, "listening");
        serve_reads(
            &supervisor,
            &served,
            names,
            reads,
            lag.clone(),
            operations,
            (grpc.listener, http.listener),
        );
    } else {
        tracing::info!(admin = %admin.address, "listening");
    }
    let ready = {
        let (pool, is_migrated) = (read_pool.clone(), is_migrated.clone());
        Arc::new(move || {
            let (pool, migrated) = (pool.clone(), *is_migrated.borrow());
            async move {
                let answers = db::is_migrated(&pool).await;
                vec![
                    ("database", answers.is_ok()),
                    ("migrations", migrated && answers.unwrap_or(false)),
                    ("ports", true),
                ]
            }
            .boxed()
        })
    };
    let rendered = metrics.clone();
    let parts = admin::Parts {
        ready,
        metrics: Arc::new(move || rendered.render()),
    };
    let admin_listener = Shared::new(admin.listener);
    supervisor.spawn("admin", Kind::Vital, move |stop| {
        let (parts, listener) = (parts.clone(), admin_listener.take());
        async move {
            admin::serve(listener?, parts, stop).await;
            Ok(())
        }
    });
    let pools = [
        ("reads", read_pool),
        ("projectors", projector_pool.clone()),
        ("operations", operation_pool),
    ];
    supervisor.spawn("metrics", Kind::Lasting, move |stop| {
        let (metrics, lag, pools) = (metrics.clone(), lag.clone(), pools.clone());
        async move {
            let refresh = async {
                loop {
                    metrics.run_upkeep();
                    set_gauges(&lag, &pools).await;
                    tokio::time::sleep(GAUGES_INTERVAL).await;
                }
            };
            stop.run_until_cancelled(refresh).await;
            Ok(())
        }
    });
    prepare_database(
        &supervisor,
        projector_pool.clone(),
        config.migrate,
        migrated,
    );
    if config.role.projects() {
        project(
            &supervisor,
            &config,
            &served,
            projector_pool,
            retrier,
            is_migrated,
        );
    }
    Ok(supervisor.run(signals, config.shutdown_grace).await)
}

/// The API's document, of all domains, as it is pinned in `openapi/openapi.json`.
///
/// # Errors
/// It can't be written as JSON.
pub fn openapi_json() -> Result<String, Error> {
    let routes = rest_routes(domains::ALL);
    server::openapi::to_json(&server::openapi::document(routes.into_openapi()))
}

fn rest_routes(domains: &[&'static dyn Domain]) -> OpenApiRouter<Reads> {
    domains.iter().fold(OpenApiRouter::new(), |routes, domain| {
        routes.merge(domain.rest())
    })
}

fn grpc_services(domains: &[&'static dyn Domain], reads: &Reads) -> Routes {
    let mut services = RoutesBuilder::default();
    for domain in domains {
        domain.add_grpc(reads.clone(), &mut services);
    }
    services.routes()
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<Bound> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "{address} can't be listened on; {setting} chooses another (port 0 takes a free one)"
        )
    })?;
    let address = listener
        .local_addr()
        .with_context(|| format!("the address of {setting}"))?;
    Ok(Bound { listener, address })
}

/// A thing that one run of a vital task takes.
struct Shared<T>(std::sync::Mutex<Option<T>>);

impl<T> Shared<T> {
    fn new(thing: T) -> Self {
        Shared(std::sync::Mutex::new(Some(thing)))
    }

    fn take(&self) -> anyhow::Result<T> {
        self.0
            .lock()
            .ok()
            .and_then(|mut thing| thing.take())
            .context("a vital task runs once")
    }
}

fn serve_reads(
    supervisor: &Supervisor,
    served: &[&'static dyn Domain],
    domains: Domains,
    reads: Reads,
    lag: Lag,
    operations: Operations,
    (grpc, http): (TcpListener, TcpListener),
) {
    let parts = Shared::new((
        grpc,
        server::grpc::Parts {
            services: grpc_services(served, &reads),
            names: served.iter().map(|domain| domain.grpc_service()).collect(),
            domains: domains.clone(),
            lag: lag.clone(),
            operations: operations.clone(),
        },
    ));
    supervisor.spawn("grpc", Kind::Vital, move |stop| {
        let parts = parts.take();
        async move {
            let (listener, parts) = parts?;
            server::grpc::serve(listener, parts, stop)
                .await
                .context("reflection")
        }
    });
    let parts = Shared::new((
        http,
        server::http::Parts {
            routes: rest_routes(served),
            reads,
            domains,
            lag,
            operations,
        },
    ));
    supervisor.spawn("http", Kind::Vital, move |stop| {
        let parts = parts.take();
        async move {
            let (listener, parts) = parts?;
            server::http::serve(listener, parts, stop)
                .await
                .map_err(|_| anyhow::anyhow!("the API can't be documented"))
        }
    });
}

/// Brings the schema up to date, or waits until somebody else did.
fn prepare_database(
    supervisor: &Supervisor,
    pool: PgPool,
    migrate: bool,
    migrated: watch::Sender<bool>,
) {
    let migrated = Arc::new(migrated);
    supervisor.spawn("migrations", Kind::Vital, move |stop| {
        let (pool, migrated) = (pool.clone(), Arc::clone(&migrated));
        async move {
            let mut said = false;
            while !stop.is_cancelled() {
                let attempt = async {
                    if migrate {
                        db::migrate(&pool).await.map(|()| true)
                    } else {
                        db::is_migrated(&pool).await.map_err(MigrateError::from)
                    }
                };
                let Some(outcome) = stop.run_until_cancelled(attempt).await else {
                    break;
                };
                match outcome {
                    Ok(true) => {
                        migrated.send_replace(true);
                        if said {
                            tracing::info!("the database is there, and its schema is up to date");
                        }
                        stop.cancelled().await;
                    }
                    Ok(false) if !std::mem::replace(&mut said, true) => {
                        tracing::warn!("the database's schema is not this release's: waiting for `sightline migrate`");
                    }
                    // A database, a role or a right may come later; a migration that fails does not mend itself.
                    Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))
                        if matches!(
                            db::classify(&error),
                            db::ErrorClass::Transient | db::ErrorClass::Systemic
                        ) || !migrate =>
                    {
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!(error = db::describe(&error), "the database can't be used yet: trying until it can");
                        }
                    }
                    Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                        return Err(anyhow::anyhow!("the database can't be migrated: {}", db::describe(&error)));
                    }
                    Err(error) => return Err(anyhow::anyhow!("the database can't be migrated: {error}")),
                    Ok(false) => {}
                }
                stop.run_until_cancelled(tokio::time::sleep(MIGRATE_INTERVAL)).await;
            }
            Ok(())
        }
    });
}

fn project(
    supervisor: &Supervisor,
    config: &Config,
    served: &[&'static dyn Domain],
    pool: PgPool,
    retrier: Retrier,
    is_migrated: watch::Receiver<bool>,
) {
    let kafka = kafka_config(config);
    // Reading the log goes on until the projectors have ended, which is when the process ends.
    let topic_states = offsets::monitor(
        kafka.clone(),
        config.kafka_topics.clone(),
        supervisor.stop().clone(),
    );
    let projector = Projector {
        pool,
        beside: Arc::new(Semaphore::new(CONNECTIONS_BESIDE)),
        kafka,
        topics: config.kafka_topics.clone(),
        group_prefix: config.kafka_group_prefix.clone(),
        start: config.kafka_start,
        max_value_bytes: config.max_value_bytes,
        dedupe: chrono::TimeDelta::days(config.dedupe_days.into()),
        instance: Uuid::now_v7(),
        topic_states,
        heartbeats: Arc::new(Heartbeats::default()),
        stop: CancellationToken::new(),
    };
    // Hearts beat on a connection of their own: however busy the others are, nobody is to be taken for dead.
    let beats = Projector {
        pool: db::operation_pool((*projector.pool.connect_options()).clone(), 1),
        ..projector.clone()
    };
    let migrated = is_migrated.clone();
    supervisor.spawn("heartbeats", Kind::Lasting, move |stop| {
        let (projector, mut migrated) = (
            Projector {
                stop: stop.clone(),
                ..beats.clone()
            },
            migrated.clone(),
        );
        async move {
            if becomes_true(&mut migrated, &stop).await {
                heartbeat::run(projector).await;
            }
            Ok(())
        }
    });
    let upkeep = projector.clone();
    let migrated = is_migrated.clone();
    let projections = projections(served);
    let policy = DeadLetterPolicy {
        retention: chrono::TimeDelta::days(config.dead_letter_retention_days.into()),
        publish_values: config.dead_letter_topic_values,
    };
    supervisor.spawn("upkeep", Kind::Lasting, move |stop| {
        let projector = Projector {
            stop: stop.clone(),
            ..upkeep.clone()
        };
        let (retrier, projections) = (retrier.clone(), projections.clone());
        let mut migrated = migrated.clone();
        async move {
            if becomes_true(&mut migrated, &stop).await {
                maintenance::run(projector, projections, retrier, policy).await;
            }
            Ok(())
        }
    });
    for domain in served.iter().copied() {
        let (projector, is_migrated) = (projector.clone(), is_migrated.clone());
        supervisor.spawn(
            format!("project-{}", domain.domain()),
            Kind::Lasting,
            move |stop| {
                let (projector, mut migrated) = (
                    Projector {
                        stop: stop.child_token(),
                        ..projector.clone()
                    },
                    is_migrated.clone(),
                );
                async move {
                    if becomes_true(&mut migrated, &stop).await {
                        members::project(projector, domain).await;
                    }
                    Ok(())
                }
            },
        );
    }
}

/// Sets what is read, not counted, anew.
async fn set_gauges(lag: &Lag, pools: &[(&'static str, PgPool)]) {
    for (name, pool) in pools {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        let used = pool.size().saturating_sub(idle);
        for (state, connections) in [("idle", idle), ("used", used)] {
            metrics::gauge!(telemetry::DATABASE_CONNECTIONS, "pool" => *name, "state" => state)
                .set(connections);
        }
    }
    // Without the database the gauges stay at what was last known.
    let Ok(answer) = lag.all().await else { return };
    for domain in &answer.body.domains {
        for partition in &domain.partitions {
            let labels = [
                ("domain", domain.domain.clone()),
                ("topic", partition.topic.clone()),
                ("partition", partition.partition.to_string()),
            ];
            // Offsets and counts are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            for (gauge, value) in [
                (telemetry::POSITION, Some(partition.position as f64)),
                (telemetry::LAG_RECORDS, partition.lag.map(|lag| lag as f64)),
                (
                    telemetry::OLDEST_UNAPPLIED_SECONDS,
                    partition.oldest_unapplied_seconds,
                ),
                (
                    telemetry::END_READ_AGE_SECONDS,
                    partition.end_read_age_seconds,
                ),
                (telemetry::DEAD_LETTERS, Some(partition.dead_letters as f64)),
                (telemetry::PARKED_KEYS, Some(partition.parked_keys as f64)),
            ] {
                if let Some(value) = value {
                    metrics::gauge!(gauge, &labels).set(value);
                }
            }
        }
    }
}

/// Waits until a condition holds; `false` where the process stops first.
async fn becomes_true(condition: &mut watch::Receiver<bool>, stop: &CancellationToken) -> bool {
    stop.run_until_cancelled(async { condition.wait_for(|holds| *holds).await.is_ok() })
        .await
        == Some(true)
}

/// What the projector, which knows no domain, gets of these.
fn projections(domains: &[&'static dyn Domain]) -> Vec<&'static dyn Projection> {
    let projections = domains.iter();
    projections
        .map(|domain| *domain as &dyn Projection)
        .collect()
}

/// What tries letters again, here or for an operator.
fn retrier(config: &Config, pool: PgPool) -> Retrier {
    let mut kafka = kafka_config(config);
    // Reading by offset needs a group's name, though nobody joins it.
    kafka.set(
        "group.id",
        format!("{}.dead-letters", config.kafka_group_prefix),
    );
    Retrier {
        pool,
        kafka,
        max_value_bytes: config.max_value_bytes,
        dedupe: chrono::TimeDelta::days(config.dedupe_days.into()),
    }
}

fn kafka_config(config: &Config) -> ClientConfig {
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", &config.kafka_brokers);
    kafka.set("client.id", "sightline");
    for (name, value) in &config.kafka_properties {
        kafka.set(name, value);
    }
    kafka.set_log_level(RDKafkaLogLevel::Critical);
    kafka
}
