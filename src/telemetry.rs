//! Logs and metrics: how they are written, and the list of all metrics.
//!
//! Promises: logs go to stderr, so that a command's output stays clean; every metric of the program
//! is named and described here; labels contain only values that the program itself defines, and
//! names of configured topics.

use std::io::IsTerminal;
use std::sync::LazyLock;

use anyhow::Context;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

macro_rules! metric_list {
    ($($kind:ident $name:ident = $value:literal, $unit:ident, $help:literal;)*) => {
        $(#[doc = concat!("`", $value, "` (", stringify!($kind), "): ", $help)]
        #[allow(rustdoc::broken_intra_doc_links, reason = "labels in brackets are not links")]
        pub const $name: &str = $value;)*

        fn describe() {
            $(metric_list!(@$kind $value, $unit, $help);)*
        }
    };
    (@counter $value:literal, $unit:ident, $help:literal) => {
        metrics::describe_counter!($value, Unit::$unit, $help)
    };
    (@gauge $value:literal, $unit:ident, $help:literal) => {
        metrics::describe_gauge!($value, Unit::$unit, $help)
    };
    (@histogram $value:literal, $unit:ident, $help:literal) => {
        metrics::describe_histogram!($value, Unit::$unit, $help)
    };
}

// Labels in brackets. Counters of records are for graphs: they restart with the process, while the
// database has the exact counts. A gauge of what the database or Kafka says is NaN while it does not answer.
metric_list! {
    gauge BUILD_INFO = "sightline_build_info", Count, "Always 1, of the running version [version]";
    counter TASK_RESTARTS = "sightline_task_restarts_total", Count, "Restarts of tasks after an error, a panic or an unexpected end [task]";

    counter RECORDS = "sightline_records_total", Count, "Records judged and committed [domain, outcome: applied, duplicate, skipped or dead_lettered]";
    counter HOLES = "sightline_holes_total", Count, "Offsets passed that hold no record [domain, topic]";
    counter BATCHES = "sightline_batches_total", Count, "Batches that ended [domain, outcome: committed, fenced or failed]";
    histogram BATCH_SECONDS = "sightline_batch_seconds", Seconds, "Time from a batch's first statement to its commit [domain]";
    histogram BATCH_RECORDS = "sightline_batch_records", Count, "Records of a committed batch [domain]";
    counter UNKNOWN_TYPE_RECORDS = "sightline_unknown_type_records_total", Count, "Records skipped because their type is unknown [domain]";
    histogram FRESHNESS_SECONDS = "sightline_freshness_seconds", Seconds, "Time from the Kafka timestamp of a batch's oldest record to the commit, in the live version, without the backlog of its first build [domain]";
    counter REBALANCES = "sightline_rebalances_total", Count, "Partitions assigned or revoked [domain, change: assigned or revoked]";

    gauge POSITION = "sightline_position", Count, "Next offset to apply [domain, topic, partition]";
    gauge LAG_RECORDS = "sightline_lag_records", Count, "Offsets between the position and the log end offset [domain, topic, partition]";
    gauge OLDEST_UNAPPLIED_SECONDS = "sightline_oldest_unapplied_seconds", Seconds, "Age of the oldest unapplied record, 0 when caught up [domain, topic, partition]";
    gauge END_READ_AGE_SECONDS = "sightline_end_read_age_seconds", Seconds, "Age of the log end offset from which the lag is computed [domain, topic, partition]";
    gauge DEAD_LETTERS = "sightline_dead_letters", Count, "Dead letters that are neither applied nor discarded [domain, topic, partition]";
    gauge DEAD_LETTERS_EXPIRING = "sightline_dead_letters_expiring", Count, "Open dead letters whose bytes are erased within 7 days [domain]";
    gauge STALLED_VERSIONS = "sightline_stalled_versions", Count, "Versions of the view that have been behind or failed for a day without a commit [domain]";
    gauge PARKED_KEYS = "sightline_parked_keys", Count, "Keys whose later events wait behind a dead letter [domain, topic, partition]";

    gauge QUEUE_READY = "sightline_queue_ready", Count, "Items of the work queue that workers can lease, counted up to 100,000 [domain]";
    gauge QUEUE_OLDEST_SECONDS = "sightline_queue_oldest_seconds", Seconds, "Age of the oldest item of the work queue that workers can lease, 0 if there is none [domain]";

    counter REQUESTS = "sightline_requests_total", Count, "Requests answered [protocol: grpc or http, route, code]";
    histogram REQUEST_SECONDS = "sightline_request_seconds", Seconds, "Time to answer a request [protocol, route]";
    gauge REQUESTS_IN_FLIGHT = "sightline_requests_in_flight", Count, "Requests being answered [protocol]";
    gauge WATCHERS = "sightline_watchers", Count, "Open streams of feeds [domain]";
    counter FEED_READS = "sightline_feed_reads_total", Count, "Statements that read a feed for watchers [domain, reader: shared, for all that have caught up, or own, for one that has not]";
    gauge READY = "sightline_ready", Count, "1 while the process can take calls, as /readyz says, else 0";
    gauge DATABASE_CONNECTIONS = "sightline_database_connections", Count, "Connections of a pool [pool, state: used or idle]";
}

const SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
const RECORDS_BUCKETS: &[f64] = &[
    1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
];

/// Modules of libraries whose events quote secrets: unknown parameters of a database URL, and lines
/// of a `.pgpass` file.
const SECRET_TARGETS: [&str; 2] = [
    "sqlx_postgres::options::parse",
    "sqlx_postgres::options::pgpass",
];

/// Sets up logging to stderr, once per process.
///
/// # Errors
/// The filter is invalid (`config` checks it), or logging is already set up.
pub fn init_logs(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // The location only: the message may quote data.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(location, "panicked");
    }));
    let mut filter = EnvFilter::try_new(filter).context("the log filter")?;
    for target in SECRET_TARGETS {
        filter = filter.add_directive(format!("{target}=off").parse()?);
    }
    // In a file, colors are noise.
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would report them to stderr, and panic where nothing reads stderr any more.
        .log_internal_errors(false)
        .with_ansi(colors)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("logging can't be set up: {error}"))
}

/// Collects the process's metrics from the first call on. The handle renders them for Prometheus;
/// the caller must call its `run_upkeep` every few seconds, which bounds the memory of histograms.
///
/// # Errors
/// Another recorder is already installed.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: LazyLock<Result<PrometheusHandle, String>> = LazyLock::new(|| {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(
                    Matcher::Full(BATCH_RECORDS.to_owned()),
                    RECORDS_BUCKETS,
                )
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| error.to_string())?;
        describe();
        metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(handle)
    });
    HANDLE
        .clone()
        .map_err(|error| anyhow::anyhow!("metrics can't be set up: {error}"))
}
