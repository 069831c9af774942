//! The members of consumer groups that a domain needs: one for each version of its view, with a worker for each assigned
//! partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::claims::{self, Claims};
use super::outages::Outages;
use super::worker::Worker;
use super::writer;
use super::{Projection, Projector, View};
use crate::kafka::consumer::{self, Assignment, TopicPartition};
use crate::kafka::group;
use crate::{db, telemetry};

/// How often the versions of a view are read, which come and go.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long that may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// Projects every version of a domain's view, each in a group of its own, until `projector.stop` is cancelled. Batches that
/// have begun are finished.
pub async fn project(projector: Projector, projection: &'static dyn Projection) {
    let domain = projection.domain();
    let mut outages = Outages::default();
    let mut running: HashMap<i32, (DropGuard, JoinHandle<()>)> = HashMap::new();
    loop {
        // Newer code projects the versions that it began, and a rebuild is projected only by the code that began it.
        let versions = sqlx::query_scalar!(
            "SELECT version FROM sightline.views
             WHERE domain = $1
               AND (code_version = $2 OR code_version < $2 AND state <> 'building') AND state <> 'dropped'",
            domain,
            projection.code_version()
        );
        let versions = versions.fetch_all(&projector.pool);
        let outcome = match db::within(DEADLINE, versions).await {
            Ok(versions) => {
                // A task that has ended has panicked, which the panic hook has logged. It is started again.
                running
                    .retain(|version, (_, task)| versions.contains(version) && !task.is_finished());
                for version in versions {
                    running.entry(version).or_insert_with(|| {
                        let stop = projector.stop.child_token();
                        let projector = Projector {
                            stop: stop.clone(),
                            ..projector.clone()
                        };
                        let view = View { domain, version };
                        let task = tokio::spawn(run(projector, projection, view));
                        (stop.drop_guard(), task)
                    });
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        outages.follow(domain, "reading the view's versions", &outcome);
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = projector.stop.cancelled() => break,
        }
    }
    for (_, task) in running.into_values() {
        drop(task.await);
    }
}

/// Projects all topics into one version of a view, until `projector.stop` is cancelled.
async fn run(projector: Projector, projection: &'static dyn Projection, view: View) {
    let (queue, writers) = writer::writers(projector.clone(), projection, view.clone());
    let (claims, claiming) = claims::claims(projector.clone(), projection, view.clone());
    let member = run_member(projector, projection, view, queue, claims);
    // Workers end when their batches are finished or overdue: what is overdue is rolled back.
    tokio::select! {
        () = writers => {}
        () = claiming => {}
        () = member => {}
    }
}

/// The name of the consumer group that projects a version.
pub fn group_of(prefix: &str, view: &View) -> String {
    match view.version {
        1 => format!("{prefix}.{}", view.domain),
        version => format!("{prefix}.{}.v{version}", view.domain),
    }
}

async fn run_member(
    projector: Projector,
    projection: &'static dyn Projection,
    view: View,
    queue: writer::Queue,
    claims: Claims,
) {
    let group = group_of(&projector.group_prefix, &view);
    let mut assignments = consumer::join(
        group::member_config(&projector.kafka, &group),
        projector.topics.clone(),
        Arc::clone(&projector.buffers),
        projector.shared.clone(),
        projector.topic_states.clone(),
        projector.stop.clone(),
    );
    let workers = TaskTracker::new();
    let mut stops: HashMap<TopicPartition, CancellationToken> = HashMap::new();
    while let Some(assignment) = assignments.recv().await {
        let (change, id) = match &assignment {
            Assignment::Assigned(partition) => ("assigned", partition.id.clone()),
            Assignment::Revoked(id) => ("revoked", id.clone()),
        };
        metrics::counter!(telemetry::REBALANCES, "domain" => view.domain, "change" => change)
            .increment(1);
        tracing::info!(
            domain = view.domain,
            version = view.version,
            topic = &*id.topic,
            partition = id.partition,
            "{change}"
        );
        match assignment {
            Assignment::Assigned(partition) => {
                let stop = projector.stop.child_token();
                let worker = Worker {
                    projector: projector.clone(),
                    projection,
                    view: view.clone(),
                    partition,
                    queue: queue.clone(),
                    claims: claims.clone(),
                    stop: stop.clone(),
                };
                workers.spawn(worker.run());
                if let Some(former) = stops.insert(id, stop) {
                    former.cancel();
                }
            }
            Assignment::Revoked(_) => {
                if let Some(stop) = stops.remove(&id) {
                    stop.cancel();
                }
            }
        }
    }
    workers.close();
    workers.wait().await;
}
