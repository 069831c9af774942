//! The ends of the topics' logs at the time of a call: what a read has to reflect that must not be older than the log.
//!
//! One request to each broker answers all calls that came within a few milliseconds. Identities and numbers of partitions are
//! those that the monitor has read ([`super::monitor`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::native::requests::{Answer, Bound, Partition, Requests};
use super::offsets::{self, INTERVAL, Reader, TopicState, TopicStates};
use super::run_thread;

/// How long calls are collected for one reading.
const GATHER: Duration = Duration::from_millis(5);
/// How long a reading may take. A broker that takes longer counts as away.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A state of a topic that is older says that Kafka is away.
const STATE_AGE: Duration = Duration::from_secs(10);
/// The most calls that wait for a reading.
const MOST_CALLS: usize = 65_536;

/// The ends of all topics.
#[derive(Debug)]
pub struct Ends {
    /// When the reading began: records that were in a log by then lie before its end.
    pub asked: Instant,
    /// The topics, by name.
    pub topics: BTreeMap<String, TopicEnds>,
}

/// A topic and the ends of its partitions.
#[derive(Debug)]
pub struct TopicEnds {
    /// The topic as last described.
    pub state: Arc<TopicState>,
    /// The last stable offset of each partition: what lies beyond can't be read by anyone yet. Lacks partitions whose leader
    /// did not answer.
    pub ends: BTreeMap<i32, i64>,
}

/// Reads ends. Cheap to clone.
#[derive(Clone)]
pub struct EndsReader {
    calls: SyncSender<oneshot::Sender<Option<Arc<Ends>>>>,
    states: watch::Receiver<Option<TopicStates>>,
}

impl EndsReader {
    /// Starts the thread that reads ends until cancelled.
    pub fn start(
        config: ClientConfig,
        states: watch::Receiver<Option<TopicStates>>,
        stop: CancellationToken,
    ) -> Self {
        let (calls, received) = sync_channel(MOST_CALLS);
        let known = states.clone();
        run_thread("ends-reader", stop, "ends", move |stop| {
            run(&config, &known, &received, stop)
        });
        Self { calls, states }
    }

    /// The ends at some time after this call began. `None` if Kafka does not answer within about a second. A caller that has
    /// less time drops the future; the reading goes on for the others.
    pub async fn read(&self) -> Option<Arc<Ends>> {
        let (answer, answered) = oneshot::channel();
        match self.calls.try_send(answer) {
            Ok(()) => answered.await.ok()?,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }

    /// A topic as it was described last; `None` before that, and while the cluster has none of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.states.borrow().as_ref()?.get(name).cloned()
    }
}

fn run(
    config: &ClientConfig,
    states: &watch::Receiver<Option<TopicStates>>,
    calls: &Receiver<oneshot::Sender<Option<Arc<Ends>>>>,
    stop: &CancellationToken,
) -> KafkaResult<()> {
    let client = offsets::reader(config)?;
    let mut failed_at: Option<Instant> = None;
    while !stop.is_cancelled() {
        let first = match calls.recv_timeout(INTERVAL) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                serve_events(&client);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        thread::sleep(GATHER);
        let waiting: Vec<_> = std::iter::once(first).chain(calls.try_iter()).collect();
        serve_events(&client);
        // Callers of a Kafka that was away a moment ago don't wait for it each.
        let is_away = failed_at.is_some_and(|at| at.elapsed() < TIMEOUT);
        let states = states.borrow().clone();
        let ends = match states {
            Some(states) if !is_away => read(&client, &states)?.map(Arc::new),
            _ => None,
        };
        failed_at = match (&ends, is_away) {
            (None, false) => Some(Instant::now()),
            (None, true) => failed_at,
            (Some(_), _) => None,
        };
        for answer in waiting {
            // The receiver is gone if its caller is.
            let _ = answer.send(ends.clone());
        }
    }
    Ok(())
}

/// Takes what the client reports by itself: it has no subscription.
fn serve_events(client: &Reader) {
    while client.poll(Duration::ZERO).is_some() {}
}

/// Reads the ends of all topics. `None` if no broker answers, or none has lately. Blocks.
fn read(client: &Reader, states: &TopicStates) -> KafkaResult<Option<Ends>> {
    let asked = Instant::now();
    let is_current = |state: &TopicState| {
        let mut readings = state.offsets.values();
        readings.any(|offsets| offsets.asked.elapsed() < STATE_AGE)
    };
    // A topic whose offsets are old is not asked for its ends, and has none in the answer: callers refuse to go by it.
    let partitions: Vec<Partition> = states
        .iter()
        .filter(|(_, state)| is_current(state))
        .flat_map(|(name, state)| {
            (0..state.partition_count).map(|partition| ((*name).clone(), partition))
        })
        .collect();
    if partitions.is_empty() {
        return Ok(None);
    }
    let requests = Requests::of(client);
    requests.list_offsets(0, Bound::LastStable, &partitions, TIMEOUT)?;
    let Some((_, Ok(Answer::Offsets(mut offsets)))) = requests.poll(TIMEOUT) else {
        return Ok(None);
    };
    offsets.retain(|_, offset| offset.is_ok());
    if offsets.is_empty() {
        return Ok(None);
    }
    let mut topics: BTreeMap<String, TopicEnds> = states
        .iter()
        .map(|(name, state)| {
            let state = Arc::clone(state);
            let ends = BTreeMap::new();
            (name.clone(), TopicEnds { state, ends })
        })
        .collect();
    for ((topic, partition), offset) in offsets {
        if let (Some(topic), Ok(offset)) = (topics.get_mut(&topic), offset) {
            topic.ends.insert(partition, offset);
        }
    }
    Ok(Some(Ends { asked, topics }))
}
