//! Kafka for the tests: Apache Kafka, downloaded from Maven Central and started as a child process.
//!
//! All tests share one broker and use topics of their own; a test that stops or kills its broker starts a
//! private one. `SIGHTLINE_TEST_KAFKA=host:port` names another shared broker. Without `java` or `mvn` a
//! message says so, librdkafka's mock broker replaces the shared one (it keeps 5 MiB of a partition, so
//! topics must be small), and [`Broker::real`] returns `None`. With `CI` set, the tests fail instead.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::app::LONG;
use super::process::{Directory, Process, free_port};
use super::wait_until;

const START: Duration = Duration::from_secs(90);
const ANSWER: Duration = Duration::from_secs(30);

/// A record with the exact bytes and the partition to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

impl Record {
    /// A CloudEvent about a user, under that user's key.
    pub fn cloud_event(
        partition: i32,
        user: &str,
        id: &str,
        event_type: &str,
        mut data: Value,
    ) -> Record {
        data["userId"] = json!(user);
        let value = json!({
            "specversion": "1.0", "type": event_type, "id": id, "source": "test",
            "time": "2026-10-01T12:00:00Z", "data": data,
        });
        Record {
            partition,
            key: Some(user.into()),
            value: Some(value.to_string().into_bytes()),
            headers: vec![],
            timestamp: 1_790_000_000_000,
        }
    }

    fn of(message: &BorrowedMessage<'_>) -> Record {
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        let header = |header: Header<'_, &[u8]>| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        };
        Record {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(header).collect(),
            timestamp: message
                .timestamp()
                .to_millis()
                .expect("every record has a timestamp"),
        }
    }
}

/// A Kafka broker.
#[derive(Clone)]
pub struct Broker {
    /// `host:port`
    pub address: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Named by `SIGHTLINE_TEST_KAFKA`.
    Elsewhere,
    Started(Arc<Mutex<Server>>),
    /// Topics to create in the mock broker.
    Mock(mpsc::Sender<NewMockTopic>),
}

struct NewMockTopic {
    name: String,
    partitions: i32,
    done: mpsc::Sender<()>,
}

impl Broker {
    /// The broker that all tests share; the mock broker if Java or Maven is missing.
    pub fn shared() -> Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                if let Ok(address) = std::env::var("SIGHTLINE_TEST_KAFKA") {
                    return Broker {
                        address,
                        kind: Kind::Elsewhere,
                    };
                }
                match libraries() {
                    Some(libraries) => Server::start(libraries, Extra::Nothing),
                    None => mock(),
                }
            })
            .clone()
    }

    /// The shared broker if it is a real one. Tests return early on `None`.
    pub fn real() -> Option<Broker> {
        let broker = Broker::shared();
        match broker.kind {
            Kind::Mock(_) => None,
            _ => Some(broker),
        }
    }

    /// Starts a broker that the test may kill. `None` if Java or Maven is missing.
    pub fn private() -> Option<Broker> {
        Some(Server::start(libraries()?, Extra::Nothing))
    }

    /// Starts a private broker that clients can also reach through proxies on these ports: it advertises the
    /// port that a client used. [`Broker::behind`] names the ports to which the proxies must connect.
    pub fn private_behind(proxies: &[u16]) -> Option<Broker> {
        Some(Server::start(libraries()?, Extra::Proxies(proxies)))
    }

    /// Starts a private broker with a second listener, for clients that log in: see [`Broker::login`]. They may do
    /// only what [`Broker::acl`] allows.
    pub fn private_with_logins() -> Option<Broker> {
        Some(Server::start(libraries()?, Extra::Logins))
    }

    /// Starts two private brokers of one cluster. The first is its controller, and coordinates all consumer groups.
    pub fn private_pair() -> Option<[Broker; 2]> {
        let first = Server::start(libraries()?, Extra::Nothing);
        // Kafka creates the coordinators' topic when a group is first asked for.
        first.committed("any", "any", &BTreeMap::from([(0, 0)]));
        let controller = first.server(|server| server.controller);
        let second = Server::start(libraries()?, Extra::SecondOf(controller));
        let end = Instant::now() + START;
        let count = || first.consumer().fetch_metadata(None, ANSWER);
        while !count().is_ok_and(|cluster| cluster.brokers().len() == 2) {
            assert!(Instant::now() < end, "the brokers find each other");
        }
        Some([first, second])
    }

    /// Sends a signal (`STOP`, `CONT`, …) to the broker's process.
    pub fn signal(&self, name: &str) {
        self.server(|server| server.process.as_mut().expect("it runs").signal(name));
    }

    /// The partitions of a topic that a broker leads.
    pub fn led_by(&self, topic: &str, broker: i32) -> BTreeSet<i32> {
        let cluster = self.consumer().fetch_metadata(Some(topic), ANSWER);
        let cluster = cluster.expect("metadata");
        let partitions = cluster.topics().iter().flat_map(|t| t.partitions());
        partitions
            .filter(|partition| partition.leader() == broker)
            .map(|partition| partition.id())
            .collect()
    }

    /// The address of the listener for clients that log in, and librdkafka's properties to log in as the user
    /// `gateway`, whose password is `secret`.
    pub fn login(&self, password: &str) -> (String, String) {
        let port = self.server(|server| server.behind[0]);
        let properties = format!(
            "security.protocol=SASL_PLAINTEXT,sasl.mechanism=PLAIN,sasl.username=gateway,sasl.password={password}"
        );
        (format!("127.0.0.1:{port}"), properties)
    }

    /// Adds (`--add`) or removes (`--remove`) what the user `gateway` may do, with `kafka-acls`: its arguments name
    /// operations and resources.
    pub async fn acl(&self, change: &str, arguments: &[&str]) {
        let mut java = self.server(|server| server.java());
        java.args([
            "org.apache.kafka.tools.AclCommand",
            "--bootstrap-server",
            &self.address,
            change,
            "--force",
            "--allow-principal",
            "User:gateway",
        ])
        .args(arguments);
        let changed = super::app::finish(java).await;
        assert!(
            changed.status.success(),
            "kafka-acls {change} {arguments:?}: {}{}",
            String::from_utf8_lossy(&changed.stdout),
            String::from_utf8_lossy(&changed.stderr)
        );
    }

    /// The broker's ports behind the proxies, in the order of the proxies.
    pub fn behind(&self) -> Vec<u16> {
        self.server(|server| server.behind.clone())
    }

    /// Kills the broker with SIGKILL.
    pub fn kill(&self) {
        self.server(|server| server.process = None);
    }

    /// Starts the broker again, with the same address and data, and waits until it answers.
    pub fn start(&self) {
        self.server(|server| server.run().expect("the broker starts"));
    }

    /// Copies the broker's data. The broker restarts, so all connections break.
    pub fn back_up(&self) {
        self.server(|server| {
            server.process = None;
            copy(
                &server.home.path.join("log"),
                &server.home.path.join("backup"),
            );
            server.run().expect("the broker starts");
        });
    }

    /// Replaces the broker's data by the copy, as after the loss of a disk.
    pub fn restore(&self) {
        self.server(|server| {
            server.process = None;
            let log = server.home.path.join("log");
            std::fs::remove_dir_all(&log).expect("removable");
            copy(&server.home.path.join("backup"), &log);
            // The first start assigns a leader epoch that the broker had also assigned after the copy was made;
            // the second start moves past it.
            for _ in 0..2 {
                server.process = None;
                server.run().expect("the broker starts");
            }
        });
    }

    /// The offsets that a consumer group has committed, by partition; -1 for none.
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: &BTreeMap<i32, i64>,
    ) -> BTreeMap<i32, i64> {
        let mut config = self.plain();
        let consumer: BaseConsumer = config.set("group.id", group).create().expect("a client");
        let mut list = TopicPartitionList::new();
        for partition in partitions.keys() {
            list.add_partition(topic, *partition);
        }
        let Ok(committed) = consumer.committed_offsets(list, ANSWER) else {
            return BTreeMap::new();
        };
        let offset = |offset| match offset {
            Offset::Offset(offset) => offset,
            _ => -1,
        };
        let elements = committed.elements();
        let of = elements
            .iter()
            .map(|element| (element.partition(), offset(element.offset())));
        of.collect()
    }

    fn server<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        match &self.kind {
            Kind::Started(server) => act(&mut server.lock().unwrap()),
            _ => panic!("only a private broker can be killed"),
        }
    }

    /// Creates a topic that keeps records of any age.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        if let Kind::Mock(mock) = &self.kind {
            let (done, created) = mpsc::channel();
            mock.send(NewMockTopic {
                name: name.to_owned(),
                partitions,
                done,
            })
            .expect("the mock broker's thread runs");
            return created.recv().expect("a topic is created");
        }
        self.create_topic_for(name, partitions, 4_194_304).await;
    }

    /// Creates a topic whose largest record has this many bytes.
    pub async fn create_topic_for(&self, name: &str, partitions: i32, bytes: usize) {
        let bytes = bytes.to_string();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1))
            .set("retention.ms", "-1")
            .set("segment.ms", "31536000000000")
            .set("message.timestamp.after.max.ms", "9223372036854775807")
            .set("max.message.bytes", &bytes);
        let outcome = self
            .admin()
            .create_topics([&topic], &options())
            .await
            .expect("an answer");
        outcome.into_iter().for_each(|outcome| {
            outcome.expect("a topic is created");
        });
        self.wait_for_partitions(name, partitions).await;
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete_topic(&self, name: &str) {
        let outcome = self
            .admin()
            .delete_topics(&[name], &options())
            .await
            .expect("an answer");
        outcome.into_iter().for_each(|outcome| {
            outcome.expect("a topic is deleted");
        });
        wait_until(ANSWER, "the topic is gone", async || {
            match self.partitions(name) {
                0 => Ok(()),
                n => Err(format!("{n} partitions")),
            }
        })
        .await;
    }

    /// Deletes a partition's records before an offset, as retention does.
    pub async fn delete_records(&self, name: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before))
            .expect("an offset");
        let deleted = self
            .admin()
            .delete_records(&list, &options())
            .await
            .expect("an answer");
        for element in deleted.elements() {
            element.error().expect("records are deleted");
        }
    }

    /// Raises the number of partitions of a topic.
    pub async fn add_partitions(&self, name: &str, total: i32) {
        let added = self.try_add_partitions(name, total).await;
        added.expect("partitions are added");
        self.wait_for_partitions(name, total).await;
    }

    /// The same, for a broker that may be down, without waiting for leaders. After an error, they may have been
    /// added.
    pub async fn try_add_partitions(&self, name: &str, total: i32) -> Result<(), String> {
        let more = NewPartitions::new(name, total as usize);
        let outcome = self.admin().create_partitions([&more], &options()).await;
        for outcome in outcome.map_err(|error| error.to_string())? {
            outcome.map_err(|(_, code)| code.to_string())?;
        }
        Ok(())
    }

    /// A partition's log end offset, as far as transactions have ended.
    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        end(&self.consumer(), topic, partition)
    }

    /// The log end offsets of all partitions, once the transactions have ended that are open. Kafka aborts one whose producer
    /// has gone after a minute.
    pub async fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let all = self
            .plain()
            .set("isolation.level", "read_uncommitted")
            .create();
        let (all, ended) = (all.expect("a client"), self.consumer());
        wait_until(LONG, "the transactions have ended", async || {
            let partitions = 0..self.partitions(topic);
            if partitions.is_empty() {
                return Err(format!("{topic} has no leaders"));
            }
            let ends = |consumer: &BaseConsumer| -> BTreeMap<i32, i64> {
                let ends = partitions.clone().map(|p| (p, end(consumer, topic, p)));
                ends.collect()
            };
            // In this order: what is written in between has ended, or is not waited for.
            let (all, ended) = (ends(&all), ends(&ended));
            if all.iter().all(|(partition, end)| ended[partition] >= *end) {
                Ok(ended)
            } else {
                Err(format!("of {all:?} they have ended up to {ended:?}"))
            }
        })
        .await
    }

    /// Reads the committed records below these log end offsets, with their offsets.
    pub fn read(
        &self,
        topic: &str,
        ends: &BTreeMap<i32, i64>,
    ) -> BTreeMap<i32, Vec<(i64, Record)>> {
        let mut config = self.plain();
        config
            .set("group.id", super::unique("reader"))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("a client");
        let mut log = BTreeMap::new();
        for (partition, end) in ends {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, *partition, Offset::Beginning)
                .expect("a partition");
            consumer.assign(&list).expect("assigned");
            let mut records = Vec::new();
            let deadline = Instant::now() + START;
            loop {
                assert!(
                    Instant::now() < deadline,
                    "partition {partition} is not read"
                );
                match consumer.poll(Duration::from_millis(500)) {
                    None => {}
                    Some(Err(KafkaError::PartitionEOF(_))) => break,
                    Some(Err(error)) => panic!("partition {partition}: {error}"),
                    Some(Ok(message)) if message.offset() >= *end => break,
                    Some(Ok(message)) => records.push((message.offset(), Record::of(&message))),
                }
            }
            log.insert(*partition, records);
        }
        log
    }

    /// Reads partition 0 of a topic; nothing if the topic does not exist.
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        if self.partitions(topic) == 0 {
            return Vec::new();
        }
        let ends = BTreeMap::from([(0, self.end(topic, 0))]);
        let mut log = self.read(topic, &ends);
        let records = log.remove(&0).unwrap_or_default();
        records.into_iter().map(|(_, record)| record).collect()
    }

    /// An idempotent producer: each record is written once and in order, even while the broker restarts.
    pub fn writer(&self) -> Writer {
        let mut config = self.config();
        config.set("enable.idempotence", "true");
        Writer::new(config)
    }

    /// The same, but each record is sent at once.
    pub fn prompt_writer(&self) -> Writer {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0");
        Writer::new(config)
    }

    /// A producer that compresses its batches with this codec of librdkafka.
    pub fn compressing_writer(&self, codec: &str) -> Writer {
        let mut config = self.config();
        config
            .set("compression.codec", codec)
            .set("linger.ms", "200");
        Writer::new(config)
    }

    /// Writes `lines` of a key, a tab and a value with Kafka's Java client and this compression.
    pub fn write_with_java(&self, topic: &str, compression: &str, lines: &str) {
        let libraries = libraries().expect("a real broker has Kafka's jars");
        let mut console = java(&libraries)
            .arg("org.apache.kafka.tools.ConsoleProducer")
            .args(["--bootstrap-server", &self.address, "--topic", topic])
            .arg(format!("--compression-codec={compression}"))
            .args(["--property", "parse.key=true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("java runs");
        let mut stdin = console.stdin.take().expect("piped");
        stdin.write_all(lines.as_bytes()).expect("java reads");
        drop(stdin);
        let status = console.wait().expect("waitable");
        assert!(status.success(), "the Java client: {status}");
    }

    /// The compressions of a partition's batches in the broker's log. `None` if another process started the
    /// broker.
    pub fn compressions(&self, topic: &str, partition: i32) -> Option<BTreeSet<&'static str>> {
        let segment = self.segment(topic, partition)?;
        Some(compressions(&std::fs::read(segment).expect("readable")))
    }

    /// Damages a partition's last batch in the broker's log, or repairs it if it was damaged: inverts its last bytes.
    /// `None` if another process started the broker.
    pub fn invert_last_bytes(&self, topic: &str, partition: i32) -> Option<()> {
        use std::os::unix::fs::FileExt;
        let segment = self.segment(topic, partition)?;
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(segment);
        let file = file.expect("the segment");
        let mut bytes = [0; 32];
        let at = file.metadata().expect("a size").len() - bytes.len() as u64;
        file.read_exact_at(&mut bytes, at).expect("readable");
        file.write_all_at(&bytes.map(|byte| !byte), at)
            .expect("writable");
        Some(())
    }

    /// The first segment file of a partition.
    fn segment(&self, topic: &str, partition: i32) -> Option<PathBuf> {
        let Kind::Started(server) = &self.kind else {
            return None;
        };
        let log = server.lock().unwrap().home.path.join("log");
        Some(log.join(format!("{topic}-{partition}/{:020}.log", 0)))
    }

    /// A transactional producer.
    pub fn transactional_writer(&self) -> Writer {
        self.try_transactional_writer().expect("transactions")
    }

    /// The same, for a broker that may be down.
    pub fn try_transactional_writer(&self) -> KafkaResult<Writer> {
        let mut config = self.config();
        config
            .set("transactional.id", super::unique("writer"))
            .set("message.timeout.ms", "30000");
        let writer = Writer::new(config);
        writer.producer.init_transactions(ANSWER)?;
        Ok(writer)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.address)
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1048576")
            .set("message.max.bytes", "4194304")
            .set("message.timeout.ms", "120000")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.max.ms", "500");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.plain().create().expect("an admin client")
    }

    fn consumer(&self) -> BaseConsumer {
        self.plain().create().expect("a client")
    }

    fn plain(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// How many partitions a topic has; 0 if it does not exist, or the broker does not answer.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.consumer()
            .fetch_metadata(None, ANSWER)
            .map_or(0, |cluster| {
                cluster
                    .topics()
                    .iter()
                    .filter(|t| t.name() == topic && t.partitions().iter().all(|p| p.leader() >= 0))
                    .map(|t| t.partitions().len() as i32)
                    .sum()
            })
    }

    async fn wait_for_partitions(&self, topic: &str, wanted: i32) {
        wait_until(
            ANSWER,
            "every partition has a leader",
            async || match self.partitions(topic) {
                n if n == wanted => Ok(()),
                n => Err(format!("{n} of {wanted}")),
            },
        )
        .await;
    }
}

/// Starts the mock broker on a thread of its own: `MockCluster` is not `Send`.
fn mock() -> Broker {
    let (addresses, address) = mpsc::channel();
    let (sender, topics) = mpsc::channel::<NewMockTopic>();
    std::thread::spawn(move || {
        let cluster = MockCluster::new(1).expect("a mock broker");
        addresses
            .send(cluster.bootstrap_servers())
            .expect("the caller waits");
        for topic in topics {
            cluster
                .create_topic(&topic.name, topic.partitions, 1)
                .expect("a topic");
            topic.done.send(()).expect("the caller waits");
        }
    });
    Broker {
        address: address.recv().expect("an address"),
        kind: Kind::Mock(sender),
    }
}

fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    let watermarks = consumer.fetch_watermarks(topic, partition, ANSWER);
    watermarks.expect("watermarks").1
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(ANSWER))
        .request_timeout(Some(ANSWER))
}

/// A producer that writes records unchanged.
pub struct Writer {
    pub producer: FutureProducer,
}

impl Writer {
    fn new(config: ClientConfig) -> Writer {
        Writer {
            producer: config.create().expect("a producer"),
        }
    }

    /// Writes the records in order, waits until the broker has acknowledged all, and returns their offsets.
    pub async fn write(&self, topic: &str, records: &[Record]) -> Vec<i64> {
        self.try_write(topic, records).await.expect("delivered")
    }

    /// Writes the records in order. After an error, some of them may have been written.
    pub async fn try_write(&self, topic: &str, records: &[Record]) -> KafkaResult<Vec<i64>> {
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            sent.push(self.send(topic, record)?);
        }
        let mut offsets = Vec::with_capacity(records.len());
        for delivery in sent {
            let delivery = delivery.await.expect("a delivery report");
            offsets.push(delivery.map_err(|(e, _)| e)?.offset);
        }
        Ok(offsets)
    }

    /// Queues a record. The future is the broker's answer.
    pub fn send(&self, topic: &str, record: &Record) -> KafkaResult<DeliveryFuture> {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        let record = FutureRecord::<[u8], [u8]> {
            topic,
            partition: Some(record.partition),
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: Some(record.timestamp),
            headers: (!record.headers.is_empty()).then_some(headers),
        };
        self.producer.send_result(record).map_err(|(e, _)| e)
    }

    pub fn begin(&self) {
        self.producer
            .begin_transaction()
            .expect("a transaction begins");
    }

    pub fn commit(&self) {
        self.producer
            .commit_transaction(ANSWER)
            .expect("a transaction commits");
    }

    pub fn abort(&self) {
        self.producer
            .abort_transaction(ANSWER)
            .expect("a transaction aborts");
    }
}

/// What a broker has besides its plain listener.
#[derive(Clone, Copy)]
enum Extra<'a> {
    Nothing,
    /// A listener behind each of these proxies.
    Proxies(&'a [u16]),
    /// A listener for clients that log in.
    Logins,
    /// Another broker, whose controller listens on this port. It is not a controller itself.
    SecondOf(u16),
}

/// A Kafka process: a broker, and its cluster's controller unless it is a second broker.
struct Server {
    libraries: PathBuf,
    port: u16,
    /// The port of the cluster's controller.
    controller: u16,
    /// The ports of the extra listeners.
    behind: Vec<u16>,
    /// Declared before `home`, so that it is dropped first.
    process: Option<Process>,
    home: Directory,
}

impl Server {
    fn start(libraries: PathBuf, extra: Extra<'_>) -> Broker {
        let mut tries = 0;
        loop {
            let mut server = Server::prepare(libraries.clone(), extra);
            match extra {
                Extra::SecondOf(_) => server.format(),
                _ => copy(&formatted_storage(&libraries), &server.storage()),
            }
            match server.run() {
                Ok(()) => {
                    let address = server.address();
                    return Broker {
                        address,
                        kind: Kind::Started(Arc::new(Mutex::new(server))),
                    };
                }
                // Another process took the port after `free_port` found it.
                Err(output) if tries < 3 && output.contains("Address already in use") => tries += 1,
                Err(output) => panic!("the Kafka broker ended while starting:\n{output}"),
            }
        }
    }

    fn prepare(libraries: PathBuf, extra: Extra<'_>) -> Server {
        let home = Directory::new("sightline-kafka-");
        let port = free_port();
        let (node, roles, controller) = match extra {
            Extra::SecondOf(controller) => (2, "broker", controller),
            _ => (1, "broker,controller", free_port()),
        };
        let mut behind = Vec::new();
        let mut names = String::new();
        let (mut listeners, mut advertised) = (String::new(), String::new());
        if node == 1 {
            listeners = format!(",CONTROLLER://127.0.0.1:{controller}");
        }
        let mut listen = |name: &str, protocol: &str, advertised_port: Option<u16>| {
            let port = free_port();
            names += &format!(",{name}:{protocol}");
            listeners += &format!(",{name}://127.0.0.1:{port}");
            let advertised_port = advertised_port.unwrap_or(port);
            advertised += &format!(",{name}://127.0.0.1:{advertised_port}");
            behind.push(port);
        };
        let mut more = "";
        match extra {
            Extra::Nothing | Extra::SecondOf(_) => {}
            Extra::Proxies(proxies) => {
                for (n, proxy) in proxies.iter().enumerate() {
                    listen(&format!("PROXIED{n}"), "PLAINTEXT", Some(*proxy));
                }
            }
            Extra::Logins => {
                listen("LOGINS", "SASL_PLAINTEXT", None);
                // Clients of the plain listener may do anything.
                more = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                        super.users=User:ANONYMOUS\n\
                        listener.name.logins.sasl.enabled.mechanisms=PLAIN\n\
                        listener.name.logins.plain.sasl.jaas.config=\
                        org.apache.kafka.common.security.plain.PlainLoginModule required \
                        user_gateway=\"secret\";\n";
            }
        }
        let properties = format!(
            "process.roles={roles}\n\
             node.id={node}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{port}{listeners}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{names}\n\
             inter.broker.listener.name=PLAINTEXT\n\
             group.min.session.timeout.ms=1000\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             message.max.bytes=4194304\n\
             group.initial.rebalance.delay.ms=0\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             log.cleaner.enable=false\n\
             {more}",
            home.path.join("log").display()
        );
        std::fs::write(home.path.join("server.properties"), properties).expect("writable");
        Server {
            libraries,
            home,
            port,
            controller,
            behind,
            process: None,
        }
    }

    /// Writes the storage of a node that has none yet.
    fn format(&self) {
        let formatted = self
            .java()
            .args([
                "kafka.tools.StorageTool",
                "format",
                "-t",
                "c2lnaHRsaW5ldGVzdHMwMQ",
                "-c",
            ])
            .arg(self.home.path.join("server.properties"))
            .output()
            .expect("java runs");
        assert!(
            formatted.status.success(),
            "formatting Kafka's storage: {}{}",
            String::from_utf8_lossy(&formatted.stdout),
            String::from_utf8_lossy(&formatted.stderr)
        );
    }

    fn storage(&self) -> PathBuf {
        self.home.path.join("log")
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn java(&self) -> Command {
        let mut java = java(&self.libraries);
        java.current_dir(&self.home.path);
        java
    }

    /// Starts the process and waits until it answers. The error is the output of a process that ended.
    fn run(&mut self) -> Result<(), String> {
        self.run_by(self.java())
    }

    fn run_by(&mut self, mut java: Command) -> Result<(), String> {
        java.arg("kafka.Kafka")
            .arg(self.home.path.join("server.properties"));
        let mut process = Process::start(&java);
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "100")
            .create()
            .expect("a client");
        let end = Instant::now() + START;
        loop {
            let answer = client.fetch_metadata(None, Duration::from_millis(500));
            // A starting broker may answer with an empty list of brokers.
            if answer.is_ok_and(|cluster| !cluster.brokers().is_empty()) {
                self.process = Some(process);
                return Ok(());
            }
            if process.exited().is_some() {
                return Err(process.output.text());
            }
            assert!(
                Instant::now() < end,
                "no Kafka within {START:?}:\n{}",
                process.output.text()
            );
        }
    }
}

/// The formatted storage of a first node, which all first nodes begin with.
fn formatted_storage(libraries: &Path) -> PathBuf {
    libraries.with_file_name("storage")
}

/// The classes that a broker loads, ready to be used: with them it starts in half of the time. Java does without where they are
/// not those of its version.
fn class_archive(libraries: &Path) -> PathBuf {
    libraries.with_file_name("classes.jsa")
}

/// Runs a broker once and keeps what others need not do again.
fn keep_first_start(libraries: &Path) {
    let (storage, archive) = (formatted_storage(libraries), class_archive(libraries));
    let mut server = Server::prepare(libraries.to_owned(), Extra::Nothing);
    server.format();
    copy(&server.storage(), &storage);
    // Left by a process that was killed here.
    drop(std::fs::remove_file(&archive));
    let mut java = server.java();
    java.arg(format!("-XX:ArchiveClassesAtExit={}", archive.display()));
    if let Err(output) = server.run_by(java) {
        panic!("the Kafka broker ended while starting:\n{output}");
    }
    let mut process = server.process.take().expect("it runs");
    process.signal("TERM");
    process.wait(START);
}

/// A command that runs Java with the jars in a directory.
fn java(libraries: &Path) -> Command {
    let mut java = Command::new("java");
    java.args([
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
    ]);
    let archive = class_archive(libraries);
    if archive.exists() {
        java.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
    }
    java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(format!("{}/*", libraries.display()));
    java
}

/// The compressions of the batches in a segment file. A batch begins with its first offset (8 bytes) and the
/// length of the rest (4 bytes); the last three bits of its 23rd byte name its compression.
fn compressions(segment: &[u8]) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut rest = segment;
    while let Some((length, batch)) = rest.get(8..).and_then(<[u8]>::split_first_chunk) {
        let codec = rest[22] & 0b111;
        found.insert(["none", "gzip", "snappy", "lz4", "zstd"][usize::from(codec)]);
        rest = &batch[u32::from_be_bytes(*length) as usize..];
    }
    found
}

/// Copies a directory and everything in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The directory of Kafka's jars, downloaded once. `None` without Java to run or Maven to download them.
fn libraries() -> Option<PathBuf> {
    static LIBRARIES: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARIES
        .get_or_init(|| {
            let target = crate::target_directory().join("kafka");
            let libraries = target.join("libs");
            if !runs("java", "-version") {
                return without("no `java` (17 or newer)");
            }
            std::fs::create_dir_all(&target).expect("writable");
            let lock = std::fs::File::create(target.join("lock")).expect("a lock file");
            lock.lock().expect("lockable");
            let complete = target.join("ready");
            if complete.exists() {
                return Some(libraries);
            }
            if !runs("mvn", "-version") {
                return without("no `mvn` to download Apache Kafka");
            }
            say(&format!(
                "downloading Apache Kafka 4.1 from Maven Central into {} (once)",
                libraries.display()
            ));
            let got = Command::new("mvn")
                .args([
                    "--quiet",
                    "--batch-mode",
                    "dependency:copy-dependencies",
                    "-f",
                ])
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/pom.xml"))
                .arg(format!("-DoutputDirectory={}", libraries.display()))
                .stdin(Stdio::null())
                .output()
                .expect("mvn runs");
            assert!(
                got.status.success(),
                "downloading Apache Kafka from Maven Central: {}{}",
                String::from_utf8_lossy(&got.stdout),
                String::from_utf8_lossy(&got.stderr)
            );
            keep_first_start(&libraries);
            std::fs::write(complete, "").expect("writable");
            Some(libraries)
        })
        .clone()
}

fn runs(program: &str, argument: &str) -> bool {
    let silent = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    silent.is_ok_and(|status| status.success())
}

fn without(reason: &str) -> Option<PathBuf> {
    assert!(
        std::env::var_os("CI").is_none(),
        "{reason}: with CI set, the tests need a real Kafka"
    );
    say(&format!(
        "{reason}: an in-process broker replaces Kafka; tests that need a real one \
         (restarts, transactions, volume, new partitions) are skipped"
    ));
    None
}

/// Prints to the terminal; the test harness captures only `print!` and `eprint!`.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "tests: {line}");
}
