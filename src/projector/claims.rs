//! The claims of a version's partitions: those that wait are claimed together, in one transaction.
//!
//! After an assignment, or a transaction that has failed, many partitions have to be claimed at once. Requests that arrive
//! during one transaction are claimed in the next. A partition whose row is not free, and each of those that could not be
//! claimed together, is claimed by itself, so that none holds up another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use tokio::sync::{mpsc, oneshot};

use super::ids::Runs;
use super::progress::{self, ClaimOutcome};
use super::{Projection, Projector, View};
use crate::db;
use crate::kafka::consumer::TopicPartition;
use crate::kafka::offsets::TopicState;

/// How many partitions are claimed in one transaction.
const MOST: usize = 1_000;
/// How long a claim may take, its wait for a row's lock included.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// How long a worker waits for its claim, with the claims that are queued before it.
const QUEUE_DEADLINE: Duration = Duration::from_secs(30);

/// Where the workers of a version claim their partitions. Cheap to clone.
#[derive(Clone)]
pub struct Claims {
    together: mpsc::UnboundedSender<Request>,
    alone: mpsc::UnboundedSender<Request>,
}

struct Request {
    partition: TopicPartition,
    state: Arc<TopicState>,
    former: Arc<Runs>,
    reply: oneshot::Sender<Answer>,
}

/// `None` if the partition has to be claimed by itself.
type Answer = Result<Option<ClaimOutcome>, sqlx::Error>;

impl Claims {
    /// Claims a partition of a topic in this state, whose worker knows the `former` runs of ids.
    ///
    /// # Errors
    /// The database failed.
    pub async fn claim(
        &self,
        partition: &TopicPartition,
        state: &Arc<TopicState>,
        former: &Arc<Runs>,
    ) -> Result<ClaimOutcome, sqlx::Error> {
        for queue in [&self.together, &self.alone] {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                partition: partition.clone(),
                state: Arc::clone(state),
                former: Arc::clone(former),
                reply,
            };
            // Where a claim has panicked, the version is started again, and its workers are stopped.
            drop(queue.send(request));
            let answer = async { answer.await.unwrap_or(Ok(None)) };
            if let Some(outcome) = db::within(QUEUE_DEADLINE, answer).await? {
                return Ok(outcome);
            }
        }
        Ok(ClaimOutcome::NotReady)
    }
}

/// Makes the claims of a version, and what runs them until the last clone is dropped.
pub fn claims(
    projector: Projector,
    projection: &'static dyn Projection,
    view: View,
) -> (Claims, impl Future<Output = ()>) {
    let (together, all) = mpsc::unbounded_channel();
    let (alone, each) = mpsc::unbounded_channel();
    let run = async move {
        let code_version = projection.code_version();
        let all = serve(&projector, &view, code_version, all, false);
        let each = serve(&projector, &view, code_version, each, true);
        future::join(all, each).await;
    };
    (Claims { together, alone }, run)
}

/// Claims what waits, all together or each by itself.
async fn serve(
    projector: &Projector,
    view: &View,
    code_version: i32,
    mut requests: mpsc::UnboundedReceiver<Request>,
    alone: bool,
) {
    let most = if alone { 1 } else { MOST };
    let mut taken = Vec::new();
    while requests.recv_many(&mut taken, most).await > 0 {
        // Of two workers of a partition, which a former and a new assignment may have, each needs an epoch of its own.
        let mut seen = HashSet::new();
        let (taken, again): (Vec<Request>, Vec<Request>) = taken
            .drain(..)
            .filter(|request| !request.reply.is_closed())
            .partition(|request| seen.insert(request.partition.clone()));
        for request in again {
            drop(request.reply.send(Ok(None)));
        }
        let wanted: Vec<progress::Wanted<'_>> = taken
            .iter()
            .map(|request| progress::Wanted {
                partition: &request.partition,
                state: &request.state,
                former: &request.former,
            })
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let (pool, topics) = (&projector.pool, &projector.topics);
        let claimed = progress::claim(pool, view, &wanted, topics, code_version, alone);
        let answers: Vec<Answer> = match db::within(DEADLINE, claimed).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) if alone => vec![Err(error)],
            Err(error) => {
                tracing::debug!(
                    domain = view.domain,
                    partitions = wanted.len(),
                    error = db::describe(&error),
                    "partitions could not be claimed together; claiming each by itself"
                );
                wanted.iter().map(|_| Ok(None)).collect()
            }
        };
        for (request, answer) in taken.into_iter().zip(answers) {
            // A worker that no longer waits was stopped.
            drop(request.reply.send(answer));
        }
    }
}
