//! Reads the states of topics once a second, in one thread for the whole process.
//!
//! Each broker that leads a partition is asked by itself: first for a description of all topics, then, with three requests
//! in flight at once, for the offsets of the partitions that it leads. What it answers is published when it returns, and a
//! broker is asked again when it has answered or its time is over. So one that hangs makes its own partitions stale, and no
//! others; no controller is asked for anything.
//!
//! A state's identity comes from a description that was asked for after `asked` of each of its offsets, by the broker that
//! was then asked for them. So no offsets of a later incarnation look newer than the change of identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kafka::native::requests::{Answer, Bound, Offsets, Partition, Requests, Topic, Topics};
use crate::kafka::offsets::{
    self, INTERVAL, PartitionOffsets, Reader, TIMEOUT, TopicIdentity, TopicState, TopicStates,
};
use crate::kafka::{is_refusal, run_thread};

/// How long the first answer waits to be published together with those of other brokers.
const COLLECT: Duration = Duration::from_millis(50);

/// Reads the topics' states until cancelled. The receiver holds the last ones, `None` before the first.
pub fn start(
    config: ClientConfig,
    topics: Vec<String>,
    stop: CancellationToken,
) -> watch::Receiver<Option<TopicStates>> {
    let (sender, receiver) = watch::channel(None);
    run_thread("topic-monitor", stop, "offsets", move |stop| {
        run(&config, &topics, stop, &sender)
    });
    receiver
}

fn run(
    config: &ClientConfig,
    names: &[String],
    stop: &CancellationToken,
    sender: &watch::Sender<Option<TopicStates>>,
) -> KafkaResult<()> {
    let client = offsets::reader(config)?;
    let mut monitor = Monitor::new(&client, names);
    let mut reports = Reports::default();
    let mut next = Instant::now();
    let mut publish_at: Option<Instant> = None;
    while !stop.is_cancelled() {
        let now = Instant::now();
        if publish_at.is_some_and(|at| at <= now) {
            publish_at = None;
            sender.send_replace(Some(monitor.known.states()));
        }
        if next <= now {
            next = now + INTERVAL;
            reports.follow(
                monitor.outages(),
                last_refusal(&client),
                monitor.is_waiting(),
            );
            reports.follow_missing(monitor.known.missing());
            monitor.ask()?;
        }
        let until = publish_at.map_or(next, |at| at.min(next));
        if monitor.answer(until.saturating_duration_since(Instant::now()))? {
            publish_at.get_or_insert_with(|| Instant::now() + COLLECT);
        }
    }
    Ok(())
}

/// The last refusal that a client has reported by itself, such as that of a login. Serves the client's events: it has no
/// subscription.
fn last_refusal(client: &Reader) -> Option<KafkaError> {
    std::iter::from_fn(|| client.poll(Duration::ZERO))
        .filter_map(Result::err)
        .filter(|error| error.rdkafka_error_code().is_some_and(is_refusal))
        .last()
}

/// The requests to brokers, and what is known from their answers.
struct Monitor<'c> {
    client: &'c Reader,
    requests: Requests<'c>,
    brokers: BTreeMap<i32, Broker>,
    /// What each request in flight asks for, and from which broker.
    in_flight: HashMap<usize, (i32, Question)>,
    last_request: usize,
    known: KnownTopics,
    /// Why no broker answers.
    unreachable: Option<KafkaError>,
}

enum Question {
    Description,
    Offsets(Bound),
}

#[derive(Default)]
struct Broker {
    /// The brokers that it named as leaders in its last answer; none if it did not answer.
    leaders: BTreeSet<i32>,
    /// What it is being asked.
    reading: Option<Reading>,
}

/// One reading of a broker's offsets.
struct Reading {
    asked: Instant,
    /// The topics of which it leads partitions, as it has described them.
    identities: BTreeMap<String, TopicIdentity>,
    /// These partitions.
    partitions: Vec<Partition>,
    answers: BTreeMap<Bound, KafkaResult<Offsets>>,
}

impl<'c> Monitor<'c> {
    fn new(client: &'c Reader, names: &[String]) -> Self {
        Monitor {
            client,
            requests: Requests::of(client),
            brokers: BTreeMap::new(),
            in_flight: HashMap::new(),
            last_request: 0,
            known: KnownTopics::new(names),
            unreachable: None,
        }
    }

    fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn outages(&self) -> BTreeMap<String, Outage> {
        self.known.outages(self.unreachable.as_ref())
    }

    fn number(&mut self, broker: i32, question: Question) -> usize {
        self.last_request += 1;
        self.in_flight.insert(self.last_request, (broker, question));
        self.last_request
    }

    /// Begins a reading with each broker that has answered the last one. Blocks only while no broker is known that answers.
    fn ask(&mut self) -> KafkaResult<()> {
        let known = self.brokers.values();
        let mut leaders: BTreeSet<i32> =
            known.flat_map(|broker| &broker.leaders).copied().collect();
        if leaders.is_empty() && !self.is_waiting() {
            match discover(self.client, self.known.topics.keys()) {
                Ok(found) => leaders = found,
                Err(error) => self.unreachable = Some(error),
            }
        }
        self.brokers
            .retain(|id, broker| broker.reading.is_some() || leaders.contains(id));
        let asked = Instant::now();
        for id in leaders {
            let broker = self.brokers.entry(id).or_default();
            if broker.reading.is_some() {
                continue;
            }
            broker.reading = Some(Reading {
                asked,
                identities: BTreeMap::new(),
                partitions: Vec::new(),
                answers: BTreeMap::new(),
            });
            let number = self.number(id, Question::Description);
            let names = self.known.topics.keys().map(String::as_str);
            self.requests.describe(number, id, names, TIMEOUT)?;
        }
        Ok(())
    }

    /// Waits for an answer and applies it. Returns whether it changes the topics' states.
    fn answer(&mut self, timeout: Duration) -> KafkaResult<bool> {
        let Some((number, answer)) = self.requests.poll(timeout) else {
            return Ok(false);
        };
        let Some((id, question)) = self.in_flight.remove(&number) else {
            return Ok(false);
        };
        let broker = self.brokers.entry(id).or_default();
        let Some(reading) = &mut broker.reading else {
            return Ok(false);
        };
        match (question, answer) {
            (Question::Description, Ok(Answer::Topics(found))) => {
                self.unreachable = None;
                broker.leaders = found
                    .values()
                    .filter_map(|topic| topic.as_ref().ok()?.as_ref())
                    .flat_map(|topic| topic.leaders.iter().copied().flatten())
                    .collect();
                // It came with the description.
                let cluster_id = self.client.client().fetch_cluster_id(Duration::ZERO);
                let led = self
                    .known
                    .describe(id, reading.asked, cluster_id.as_deref(), found);
                if led.is_empty() {
                    broker.reading = None;
                    return Ok(true);
                }
                for (topic, (identity, partitions)) in led {
                    let partitions = partitions
                        .iter()
                        .map(|partition| (topic.clone(), *partition));
                    reading.partitions.extend(partitions);
                    reading.identities.insert(topic, identity);
                }
                let partitions = reading.partitions.clone();
                for bound in Bound::ALL {
                    let number = self.number(id, Question::Offsets(bound));
                    self.requests
                        .list_offsets(number, bound, &partitions, TIMEOUT)?;
                }
                Ok(false)
            }
            (Question::Description, answer) => {
                broker.leaders.clear();
                broker.reading = None;
                let error = answer.err().unwrap_or_else(no_answer);
                self.known.fail(id, &error);
                Ok(false)
            }
            (Question::Offsets(bound), answer) => {
                let answer = match answer {
                    Ok(Answer::Offsets(found)) => Ok(found),
                    answer => Err(answer.err().unwrap_or_else(no_answer)),
                };
                reading.answers.insert(bound, answer);
                if reading.answers.len() < Bound::ALL.len() {
                    return Ok(false);
                }
                if let Some(reading) = broker.reading.take() {
                    self.known.read(&reading);
                }
                Ok(true)
            }
        }
    }
}

/// The brokers that lead the topics' partitions; all brokers, if none does. Blocks.
fn discover<'n>(
    client: &Reader,
    names: impl Iterator<Item = &'n String>,
) -> KafkaResult<BTreeSet<i32>> {
    let (mut leaders, mut all) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        let metadata = client.fetch_metadata(Some(name), TIMEOUT)?;
        all.extend(metadata.brokers().iter().map(|broker| broker.id()));
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        leaders.extend(
            partitions
                .map(|partition| partition.leader())
                .filter(|leader| *leader >= 0),
        );
    }
    Ok(if leaders.is_empty() { all } else { leaders })
}

fn no_answer() -> KafkaError {
    KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)
}

/// What brokers have answered about the topics.
struct KnownTopics {
    topics: BTreeMap<String, KnownTopic>,
}

#[derive(Default)]
struct KnownTopic {
    /// `None` before the first description, and while the cluster has no topic of that name.
    state: Option<Arc<TopicState>>,
    /// When the last description was asked for that says what `state` says.
    confirmed: Option<Instant>,
    /// The leaders by partition, as last described.
    leaders: Vec<Option<i32>>,
    /// Why the topic was not described.
    error: Option<KafkaError>,
    /// Why offsets were not read, by partition.
    errors: BTreeMap<i32, KafkaError>,
}

/// By topic: its identity, and some of its partitions.
type Led = BTreeMap<String, (TopicIdentity, Vec<i32>)>;

impl KnownTopics {
    fn new(names: &[String]) -> Self {
        let topics = names
            .iter()
            .map(|name| (name.clone(), KnownTopic::default()));
        KnownTopics {
            topics: topics.collect(),
        }
    }

    fn states(&self) -> TopicStates {
        let states = self.topics.iter().filter_map(|(name, topic)| {
            let state = topic.state.as_ref()?;
            Some((name.clone(), Arc::clone(state)))
        });
        Arc::new(states.collect())
    }

    /// Applies a broker's description. Returns the partitions that the broker leads, of the topics that are as it says.
    fn describe(
        &mut self,
        broker: i32,
        asked: Instant,
        cluster_id: Option<&str>,
        found: Topics,
    ) -> Led {
        let mut led = Led::new();
        for (name, found) in found {
            let Some(topic) = self.topics.get_mut(&name) else {
                continue;
            };
            let found = match found {
                Ok(found) => found,
                // The last state stays. Its age shows.
                Err(error) => {
                    topic.error = Some(error);
                    continue;
                }
            };
            topic.error = None;
            if let Some((identity, leaders)) = topic.describe(asked, cluster_id, found) {
                let is_led = |(_, leader): &(i32, Option<i32>)| *leader == Some(broker);
                let partitions = (0..).zip(leaders).filter(is_led);
                let partitions: Vec<i32> = partitions.map(|(partition, _)| partition).collect();
                if !partitions.is_empty() {
                    led.insert(name, (identity, partitions));
                }
            }
        }
        led
    }

    /// A broker has not described the topics: the partitions that it leads keep their last offsets, which age.
    fn fail(&mut self, broker: i32, error: &KafkaError) {
        for topic in self.topics.values_mut() {
            for (partition, leader) in (0..).zip(&topic.leaders) {
                if *leader == Some(broker) {
                    topic.errors.insert(partition, error.clone());
                }
            }
        }
    }

    /// Applies the offsets that a broker has answered.
    fn read(&mut self, reading: &Reading) {
        for (partition, offsets) in merge(reading) {
            let (name, number) = partition;
            if let Some(topic) = self.topics.get_mut(name)
                && let Some(identity) = reading.identities.get(name)
            {
                topic.read(*number, identity, offsets);
            }
        }
    }

    /// The topics that the cluster does not have.
    fn missing(&self) -> BTreeSet<String> {
        let is_missing = |topic: &KnownTopic| {
            topic.confirmed.is_some() && topic.state.is_none() && topic.error.is_none()
        };
        let missing = self.topics.iter().filter(|(_, topic)| is_missing(topic));
        missing.map(|(name, _)| name.clone()).collect()
    }

    /// What can't be read, by topic.
    fn outages(&self, unreachable: Option<&KafkaError>) -> BTreeMap<String, Outage> {
        let outages = self.topics.iter().filter_map(|(name, topic)| {
            let outage = topic.outage(unreachable)?;
            Some((name.clone(), outage))
        });
        outages.collect()
    }
}

impl KnownTopic {
    /// Applies a description. Returns the topic's identity and leaders, if the broker described the incarnation that counts.
    ///
    /// Of two brokers that were asked at the same time and disagree, one has not learned of a change yet: the first counts
    /// until the next reading, and the other's offsets don't.
    fn describe(
        &mut self,
        asked: Instant,
        cluster_id: Option<&str>,
        found: Option<Topic>,
    ) -> Option<(TopicIdentity, Vec<Option<i32>>)> {
        let is_later = self.confirmed.is_none_or(|confirmed| asked > confirmed);
        let Some(found) = found else {
            if is_later {
                *self = KnownTopic {
                    confirmed: Some(asked),
                    ..KnownTopic::default()
                };
            }
            return None;
        };
        // While an id can't be read, the last one counts.
        let last = self.state.as_ref().map(|state| &state.identity);
        let Some(cluster_id) = cluster_id.or(last.map(|last| last.cluster_id.as_str())) else {
            self.error = Some(no_answer());
            return None;
        };
        let has_id = found.id.is_some();
        let identity = TopicIdentity {
            cluster_id: cluster_id.to_owned(),
            topic_id: found.id.or_else(|| last?.topic_id.clone()),
        };
        let is_same = last == Some(&identity);
        if !is_same && !is_later {
            return None;
        }
        if !is_same {
            self.errors.clear();
            self.state = None;
        }
        let state = self.state.get_or_insert_with(|| {
            Arc::new(TopicState {
                identity: identity.clone(),
                partition_count: 0,
                offsets: BTreeMap::new(),
            })
        });
        let count = i32::try_from(found.leaders.len()).unwrap_or(i32::MAX);
        // A broker that has not learned of added partitions yet describes fewer, be it the first one asked in a round. Without
        // an id it may as well be another topic.
        let is_outdated = has_id && count < state.partition_count;
        if !is_outdated && (is_later || count > state.partition_count) {
            Arc::make_mut(state).partition_count = count;
            self.leaders.clone_from(&found.leaders);
        }
        self.confirmed = self.confirmed.max(Some(asked));
        Some((identity, found.leaders))
    }

    fn read(
        &mut self,
        partition: i32,
        identity: &TopicIdentity,
        offsets: KafkaResult<PartitionOffsets>,
    ) {
        let Some(state) = &mut self.state else { return };
        if state.identity != *identity {
            return;
        }
        match offsets {
            Ok(offsets) => {
                self.errors.remove(&partition);
                let last = state.offsets.get(&partition);
                // A former leader may answer after the present one.
                if last.is_none_or(|last| last.asked <= offsets.asked) {
                    Arc::make_mut(state).offsets.insert(partition, offsets);
                }
            }
            // The partition keeps its last offsets, which age.
            Err(error) => {
                self.errors.insert(partition, error);
            }
        }
    }

    fn outage(&self, unreachable: Option<&KafkaError>) -> Option<Outage> {
        if let Some(error) = unreachable.or(self.error.as_ref()) {
            return Some(Outage {
                partitions: Vec::new(),
                error: error.clone(),
            });
        }
        let mut outage: Option<Outage> = None;
        for (partition, leader) in (0..).zip(&self.leaders) {
            let error = match (leader, self.errors.get(&partition)) {
                (Some(_), None) => continue,
                (_, Some(error)) => error.clone(),
                (None, None) => KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable),
            };
            let outage = outage.get_or_insert_with(|| Outage {
                partitions: Vec::new(),
                error,
            });
            outage.partitions.push(partition);
        }
        outage
    }
}

/// A reading's offsets by partition, of those of which all three are known.
fn merge(reading: &Reading) -> BTreeMap<&Partition, KafkaResult<PartitionOffsets>> {
    let of = |partition: &Partition| {
        let offset = |bound| match reading.answers.get(&bound) {
            Some(Ok(offsets)) => offsets.get(partition).cloned().unwrap_or(Err(no_answer())),
            Some(Err(error)) => Err(error.clone()),
            None => Err(no_answer()),
        };
        let log_start = offset(Bound::LogStart)?;
        let (stable, end) = (offset(Bound::LastStable)?, offset(Bound::LogEnd)?);
        // The broker may have answered them in any order.
        let last_stable = stable.max(log_start);
        Ok(PartitionOffsets {
            log_start,
            last_stable,
            log_end: end.max(last_stable),
            asked: reading.asked,
        })
    };
    let partitions = reading.partitions.iter();
    partitions
        .map(|partition| (partition, of(partition)))
        .collect()
}

/// What can't be read of a topic.
#[derive(Debug, PartialEq)]
struct Outage {
    /// The partitions whose offsets can't be read; none where nothing of the topic can.
    partitions: Vec<i32>,
    error: KafkaError,
}

impl Outage {
    fn is_refused(&self) -> bool {
        self.error.rdkafka_error_code().is_some_and(is_refusal)
    }

    /// Whether both need the same of an operator. Kafka gives rights by topic.
    fn is_like(&self, other: &Outage) -> bool {
        let is_refused = self.is_refused();
        is_refused == other.is_refused() && (is_refused || self.partitions == other.partitions)
    }

    fn log(&self, topic: &str) {
        let Outage { partitions, error } = self;
        if self.is_refused() {
            tracing::warn!(topic, ?partitions, %error, "Kafka refuses to return the topic's offsets; trying again until it does not");
        } else if partitions.is_empty() {
            tracing::warn!(topic, %error, "Kafka is unavailable; trying again until it is not");
        } else {
            tracing::warn!(topic, ?partitions, %error, "offsets of partitions can't be read; trying again until they can");
        }
    }
}

/// Logs when outages begin and end, and when topics are missing and created.
#[derive(Default)]
struct Reports {
    outages: BTreeMap<String, Outage>,
    missing: BTreeSet<String>,
    refused_login: Option<KafkaError>,
}

impl Reports {
    /// Takes over what can't be read now, by topic. `is_waiting`: a broker has not answered yet.
    fn follow(
        &mut self,
        mut outages: BTreeMap<String, Outage>,
        refused_login: Option<KafkaError>,
        is_waiting: bool,
    ) {
        self.refused_login = refused_login.or(self.refused_login.take());
        if outages.is_empty() && !is_waiting {
            self.refused_login = None;
        }
        for (topic, outage) in &mut outages {
            // Without a login a request ends as a time-out.
            if let Some(error) = &self.refused_login
                && !outage.is_refused()
            {
                outage.error = error.clone();
            }
            let known = self.outages.get(topic);
            if known.is_none_or(|known| !known.is_like(outage)) {
                outage.log(topic);
            }
        }
        for topic in self.outages.keys() {
            if !outages.contains_key(topic) {
                tracing::info!(topic, "Kafka returns the topic's offsets again");
            }
        }
        self.outages = outages;
    }

    /// Takes over which topics the cluster does not have.
    fn follow_missing(&mut self, missing: BTreeSet<String>) {
        for topic in missing.difference(&self.missing) {
            tracing::warn!(
                topic,
                "Kafka has no topic of this name (setting kafka_topics); waiting until it is created"
            );
        }
        for topic in self.missing.difference(&missing) {
            tracing::info!(topic, "Kafka has the topic now");
        }
        self.missing = missing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Option<&str> = Some("c");

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A topic with an id; 0 stands for no leader.
    fn topic(id: &str, leaders: &[i32]) -> KafkaResult<Option<Topic>> {
        let leaders = leaders
            .iter()
            .map(|leader| (*leader > 0).then_some(*leader));
        Ok(Some(Topic {
            id: Some(id.to_owned()),
            leaders: leaders.collect(),
        }))
    }

    fn failed(code: RDKafkaErrorCode) -> KafkaError {
        KafkaError::MetadataFetch(code)
    }

    fn found<const N: usize>(topics: [(&str, KafkaResult<Option<Topic>>); N]) -> Topics {
        let topics = topics.map(|(name, topic)| (name.to_owned(), topic));
        topics.into()
    }

    fn identity(id: &str) -> TopicIdentity {
        TopicIdentity {
            cluster_id: "c".to_owned(),
            topic_id: Some(id.to_owned()),
        }
    }

    /// A reading of some partitions of topic `t`, each with the offsets 1 and, twice, `end`.
    fn reading(asked: Instant, id: &str, partitions: &[i32], end: i64) -> Reading {
        let partitions = partitions
            .iter()
            .map(|partition| ("t".to_owned(), *partition));
        let partitions: Vec<Partition> = partitions.collect();
        let all = |offset| {
            let offsets = partitions
                .iter()
                .map(|partition| (partition.clone(), Ok(offset)));
            Ok(offsets.collect())
        };
        Reading {
            asked,
            identities: BTreeMap::from([("t".to_owned(), identity(id))]),
            answers: BTreeMap::from([
                (Bound::LogStart, all(1)),
                (Bound::LastStable, all(end)),
                (Bound::LogEnd, all(end)),
            ]),
            partitions,
        }
    }

    /// Log end offsets of topic `t` by partition.
    fn ends(known: &KnownTopics) -> Vec<(i32, i64)> {
        let states = known.states();
        let offsets = states.get("t").map(|state| state.offsets.clone());
        let offsets = offsets.unwrap_or_default();
        offsets
            .iter()
            .map(|(partition, offsets)| (*partition, offsets.log_end))
            .collect()
    }

    #[test]
    fn a_broker_is_asked_for_the_partitions_that_it_leads() {
        let unauthorized = || Err(failed(RDKafkaErrorCode::TopicAuthorizationFailed));
        type Case = (&'static str, Topics, Vec<(&'static str, Vec<i32>)>);
        let cases: [Case; 5] = [
            (
                "of all topics together",
                found([("t", topic("1", &[1, 2, 1])), ("u", topic("2", &[2, 1]))]),
                vec![("t", vec![0, 2]), ("u", vec![1])],
            ),
            (
                "of none",
                found([("t", topic("1", &[2])), ("u", topic("2", &[3]))]),
                vec![],
            ),
            (
                "not those without a leader",
                found([("t", topic("1", &[0, 1]))]),
                vec![("t", vec![1])],
            ),
            (
                "not those of topics that are missing or refused",
                found([
                    ("t", Ok(None)),
                    ("u", unauthorized()),
                    ("v", topic("3", &[1])),
                ]),
                vec![("v", vec![0])],
            ),
            ("nothing", found([]), vec![]),
        ];
        for (what, found, expected) in cases {
            let mut known = KnownTopics::new(&names(&["t", "u", "v"]));
            let led = known.describe(1, Instant::now(), CLUSTER, found);
            let led: Vec<_> = led
                .iter()
                .map(|(name, (_, led))| (name.as_str(), led.clone()))
                .collect();
            assert_eq!(led, expected, "{what}");
        }
    }

    #[test]
    fn offsets_are_published_when_all_three_are_known() {
        let refused = failed(RDKafkaErrorCode::TopicAuthorizationFailed);
        // The log start, last stable and log end offset that were answered, and what is published of them.
        type Case = (
            &'static str,
            [Option<KafkaResult<i64>>; 3],
            KafkaResult<(i64, i64, i64)>,
        );
        let cases: [Case; 6] = [
            (
                "as answered",
                [Some(Ok(1)), Some(Ok(5)), Some(Ok(9))],
                Ok((1, 5, 9)),
            ),
            (
                "the last stable offset was read after the end",
                [Some(Ok(1)), Some(Ok(9)), Some(Ok(7))],
                Ok((1, 9, 9)),
            ),
            (
                "the start was read last, after retention",
                [Some(Ok(8)), Some(Ok(5)), Some(Ok(7))],
                Ok((8, 8, 8)),
            ),
            (
                "one is missing",
                [Some(Ok(1)), None, Some(Ok(7))],
                Err(no_answer()),
            ),
            (
                "one failed",
                [Some(Ok(1)), Some(Err(refused.clone())), Some(Ok(7))],
                Err(refused.clone()),
            ),
            (
                "empty",
                [Some(Ok(0)), Some(Ok(0)), Some(Ok(0))],
                Ok((0, 0, 0)),
            ),
        ];
        for (what, answers, expected) in cases {
            let asked = Instant::now();
            let mut read = reading(asked, "1", &[0], 0);
            for (bound, answer) in Bound::ALL.into_iter().zip(answers) {
                let offsets = answer.map(|offset| (("t".to_owned(), 0), offset));
                read.answers
                    .insert(bound, Ok(offsets.into_iter().collect()));
            }
            let merged = merge(&read).remove(&("t".to_owned(), 0)).expect(what);
            let expected = expected.map(|(log_start, last_stable, log_end)| PartitionOffsets {
                log_start,
                last_stable,
                log_end,
                asked,
            });
            assert_eq!(merged, expected, "{what}");
        }
        // A request that fails as a whole fails for all its partitions.
        let mut read = reading(Instant::now(), "1", &[0, 1], 5);
        read.answers.insert(Bound::LogEnd, Err(refused.clone()));
        assert!(
            merge(&read)
                .values()
                .all(|offsets| *offsets == Err(refused.clone()))
        );
    }

    #[test]
    fn a_topic_is_missing_once_a_broker_has_said_so() {
        let mut known = KnownTopics::new(&names(&["t", "u"]));
        assert!(known.missing().is_empty());
        let now = Instant::now();
        let described = found([("t", Ok(None)), ("u", topic("id", &[1]))]);
        known.describe(1, now, CLUSTER, described);
        assert_eq!(known.missing(), BTreeSet::from(["t".to_owned()]));
        let created = found([("t", topic("id", &[1]))]);
        known.describe(1, now + Duration::from_secs(1), CLUSTER, created);
        assert!(known.missing().is_empty());
    }

    #[test]
    fn offsets_of_another_incarnation_never_look_newer_than_its_change() {
        let first = Instant::now();
        let [second, third] = [1, 2].map(|seconds| first + Duration::from_secs(seconds));
        let mut known = KnownTopics::new(&names(&["t"]));
        let describe = |known: &mut KnownTopics, broker, asked, id| {
            let led = known.describe(broker, asked, CLUSTER, found([("t", topic(id, &[1, 2]))]));
            led.get("t").map(|(_, led)| led.clone())
        };
        assert_eq!(describe(&mut known, 1, first, "old"), Some(vec![0]));
        assert_eq!(describe(&mut known, 2, first, "old"), Some(vec![1]));
        known.read(&reading(first, "old", &[0], 10));
        known.read(&reading(first, "old", &[1], 20));
        assert_eq!(ends(&known), [(0, 10), (1, 20)]);
        // Broker 1 knows the new incarnation; broker 2, which was asked at the same time, does not know it yet.
        assert_eq!(describe(&mut known, 1, second, "new"), Some(vec![0]));
        assert_eq!(describe(&mut known, 2, second, "old"), None);
        known.read(&reading(second, "new", &[0], 3));
        assert_eq!(ends(&known), [(0, 3)]);
        // Nor do answers count that are of the former one, or were asked for earlier.
        known.read(&reading(first, "old", &[1], 21));
        known.read(&reading(first, "new", &[0], 2));
        assert_eq!(describe(&mut known, 2, first, "old"), None);
        assert_eq!(ends(&known), [(0, 3)]);
        assert_eq!(describe(&mut known, 2, third, "new"), Some(vec![1]));
        known.read(&reading(third, "new", &[1], 4));
        assert_eq!(ends(&known), [(0, 3), (1, 4)]);
        // A topic that was deleted is gone until it is described again.
        let gone = known.describe(1, third + INTERVAL, CLUSTER, found([("t", Ok(None))]));
        assert!(gone.is_empty());
        assert_eq!(describe(&mut known, 2, third, "new"), None);
        assert_eq!(known.states().len(), 0);
    }

    #[test]
    fn a_broker_that_knows_of_fewer_partitions_takes_none_away() {
        let mut known = KnownTopics::new(&names(&["t"]));
        let mut next = Instant::now();
        let mut count = |broker, found: KafkaResult<Option<Topic>>| {
            next += INTERVAL;
            known.describe(broker, next, CLUSTER, self::found([("t", found)]));
            known.states()["t"].partition_count
        };
        assert_eq!(count(1, topic("1", &[1, 2])), 2);
        assert_eq!(count(2, topic("1", &[1, 2, 2])), 3);
        assert_eq!(count(1, topic("1", &[1, 2])), 3);
        // One that was created again has as many as it is described with.
        assert_eq!(count(1, topic("2", &[1])), 1);
    }

    #[test]
    fn ids_that_a_broker_does_not_say_stay_as_they_were() {
        let now = Instant::now();
        let without_id = || {
            found([(
                "t",
                Ok(Some(Topic {
                    id: None,
                    leaders: vec![Some(1)],
                })),
            )])
        };
        let mut known = KnownTopics::new(&names(&["t"]));
        assert!(known.describe(1, now, None, without_id()).is_empty());
        assert!(known.outages(None).contains_key("t"), "no cluster id");
        known.describe(1, now, CLUSTER, found([("t", topic("1", &[1]))]));
        assert!(known.outages(None).is_empty());
        let led = known.describe(1, now + INTERVAL, None, without_id());
        assert_eq!(led["t"], (identity("1"), vec![0]));
    }

    #[test]
    fn outages_name_what_cannot_be_read() {
        let timed_out = no_answer();
        let refused = failed(RDKafkaErrorCode::TopicAuthorizationFailed);
        let no_leader = failed(RDKafkaErrorCode::LeaderNotAvailable);
        let begun = Instant::now();
        let mut known = KnownTopics::new(&names(&["t"]));
        let mut next = begun;
        let mut later = || {
            next += INTERVAL;
            next
        };
        let outage = |known: &KnownTopics| {
            let outage = known.outages(None).remove("t");
            outage.map(|outage| (outage.partitions, outage.error))
        };
        known.describe(
            1,
            later(),
            CLUSTER,
            found([("t", topic("1", &[1, 2, 2, 0]))]),
        );
        assert_eq!(outage(&known), Some((vec![3], no_leader)));
        known.describe(
            1,
            later(),
            CLUSTER,
            found([("t", topic("1", &[1, 2, 2, 1]))]),
        );
        assert_eq!(outage(&known), None);
        known.fail(2, &timed_out);
        assert_eq!(outage(&known), Some((vec![1, 2], timed_out.clone())));
        // Another broker has become the leader of one.
        known.describe(
            1,
            later(),
            CLUSTER,
            found([("t", topic("1", &[1, 1, 2, 1]))]),
        );
        known.read(&reading(later(), "1", &[0, 1, 3], 5));
        assert_eq!(outage(&known), Some((vec![2], timed_out.clone())));
        known.describe(1, later(), CLUSTER, found([("t", Err(refused.clone()))]));
        assert_eq!(outage(&known), Some((vec![], refused)));
        let unreachable = known.outages(Some(&timed_out)).remove("t");
        assert_eq!(unreachable.map(|outage| outage.error), Some(timed_out));
        known.describe(
            2,
            later(),
            CLUSTER,
            found([("t", topic("1", &[1, 1, 2, 1]))]),
        );
        known.read(&reading(later(), "1", &[2], 5));
        assert_eq!(outage(&known), None);
    }
}
