//! The settings of clients and of a group's members, in librdkafka's own names: what the gateway needs, below what the
//! user sets.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

/// The properties that librdkafka has for consumers only, as its CONFIGURATION.md says.
const OF_CONSUMERS: &[&str] = &[
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "offset.store.method",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];
/// Those that it has for producers only.
const OF_PRODUCERS: &[&str] = &[
    "acks",
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "produce.offset.report",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// How long Kafka has to take a dead letter.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings that every client of the process begins with: where the cluster is, and the user's own
/// properties on top of ours.
pub fn connection_config(brokers: &str, properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.set("client.id", "sightline");
    for (name, value) in properties {
        config.set(name, value);
    }
    // The OpenSSL that is built in looks for certificates where the system has none. librdkafka knows where systems have them.
    let protocol = config.get("security.protocol").unwrap_or_default();
    if cfg!(feature = "tls")
        && protocol.to_ascii_lowercase().contains("ssl")
        && ["ssl.ca.location", "ssl.ca.pem"]
            .iter()
            .all(|name| config.get(name).is_none())
    {
        config.set("ssl.ca.location", "probe");
    }
    config.set_log_level(RDKafkaLogLevel::Critical);
    config
}

/// The connection's settings without those of producers. A user may set both, and librdkafka warns of each that a client
/// of the other kind gets.
pub fn consumer_config(connection: &ClientConfig) -> ClientConfig {
    let mut config = without(connection, OF_PRODUCERS);
    // Of the classic protocol. KIP-848 leaves it to the broker, and librdkafka refuses it here. `max.poll.interval.ms` must
    // not be below it, in any consumer.
    if !is_kip_848(connection) && config.get("session.timeout.ms").is_none() {
        config.set("session.timeout.ms", "10000");
    }
    config
}

fn is_kip_848(connection: &ClientConfig) -> bool {
    connection.get("group.protocol") == Some("consumer")
}

/// The connection's settings without those of consumers, for producers and for admin clients.
pub fn producer_config(connection: &ClientConfig) -> ClientConfig {
    without(connection, OF_CONSUMERS)
}

/// The settings of the clients that publish dead letters.
pub fn outbox_config(connection: &ClientConfig) -> ClientConfig {
    let mut config = producer_config(connection);
    config
        .set("enable.idempotence", "true")
        // The topic's own limit applies, not the client's.
        .set("message.max.bytes", "1000000000")
        .set(
            "message.timeout.ms",
            PUBLISH_TIMEOUT.as_millis().to_string(),
        );
    config
}

fn without(connection: &ClientConfig, properties: &[&str]) -> ClientConfig {
    let mut config = connection.clone();
    for name in properties {
        config.remove(name);
    }
    config
}

/// The settings of a client that fetches the records of dead letters again, by offset. It needs a group id to
/// assign itself a partition, but never joins the group.
pub fn dead_letters_config(mut connection: ClientConfig, group_prefix: &str) -> ClientConfig {
    connection.set("group.id", format!("{group_prefix}.dead-letters"));
    connection
}

/// The bytes that librdkafka fetches ahead, of all partitions of a member together, and of each whose buffer is full. With more
/// a backlog is read no faster.
pub const PREFETCH: usize = 512 << 10;

/// The settings of the consumer that fetches for several groups. It needs a group id to assign itself partitions, but never
/// joins the group and commits nothing.
pub fn shared_config(connection: &ClientConfig, group_prefix: &str) -> ClientConfig {
    let mut config = member_config(connection, &format!("{group_prefix}.shared-fetches"));
    config.set("enable.auto.commit", "false");
    config
}

/// The settings of a consumer group's member: the connection's, and what projection needs. The user's own properties win, but
/// for the group's name and the debug contexts.
pub fn member_config(connection: &ClientConfig, group: &str) -> ClientConfig {
    let prefetched = (PREFETCH >> 10).to_string();
    // A copy, because `config_map` masks the values of secrets.
    let mut config = consumer_config(connection);
    let mut set = |name, value| {
        if connection.get(name).is_none() {
            config.set(name, value);
        }
    };
    for (name, value) in [
        ("enable.auto.commit", "true"),
        // Committed offsets show how far the log was projected, should the database be restored to an earlier state.
        ("auto.commit.interval.ms", "1000"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        // A position outside of the log is a loss that an operator has to resolve, never a silent jump.
        ("auto.offset.reset", "error"),
        ("allow.auto.create.topics", "false"),
        ("fetch.queue.backoff.ms", "5"),
        // librdkafka keeps `fetch.max.bytes` below it by itself, but above `message.max.bytes`.
        ("queued.max.messages.kbytes", &prefetched),
        // How soon an added partition is assigned.
        ("topic.metadata.refresh.interval.ms", "10000"),
    ] {
        set(name, value);
    }
    // `client_log::LogChange` is parsed from these contexts' lines.
    let mut debug = "metadata,topic".to_owned();
    if let Some(more) = connection.get("debug") {
        debug.push_str(&format!(",{more}"));
    }
    // As the session's time-out, it belongs to the classic protocol.
    if !is_kip_848(connection) {
        set("partition.assignment.strategy", "cooperative-sticky");
    }
    config.set("group.id", group);
    config.set("debug", debug);
    config.set_log_level(RDKafkaLogLevel::Debug);
    config
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::sync::mpsc;

    use rdkafka::ClientContext;
    use rdkafka::consumer::{BaseConsumer, ConsumerContext};
    use rdkafka::producer::{BaseProducer, NoCustomPartitioner, ProducerContext};

    use super::*;
    use crate::kafka::native;

    /// Collects the lines that a client logs.
    struct Log(mpsc::Sender<String>);

    impl ClientContext for Log {
        fn log(&self, _: RDKafkaLogLevel, _: &str, line: &str) {
            drop(self.0.send(line.to_owned()));
        }
    }

    impl ConsumerContext for Log {}

    impl ProducerContext<NoCustomPartitioner> for Log {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): ()) {}
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_are_those_of_the_system_unless_others_are_named() {
        let location = |properties: &[(&str, &str)]| {
            let properties = properties
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            let properties: Vec<(String, String)> = properties.collect();
            let config = connection_config("b:9093", &properties);
            config.get("ssl.ca.location").map(str::to_owned)
        };
        for (properties, expected) in [
            (&[][..], None),
            (&[("security.protocol", "SASL_PLAINTEXT")], None),
            (&[("security.protocol", "SASL_SSL")], Some("probe")),
            (&[("security.protocol", "ssl")], Some("probe")),
            (
                &[("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")],
                Some("/ca.pem"),
            ),
            (
                &[("security.protocol", "ssl"), ("ssl.ca.pem", "-----BEGIN")],
                None,
            ),
        ] {
            assert_eq!(location(properties).as_deref(), expected, "{properties:?}");
        }
    }

    /// The properties that a new client warns of, because they are of the other kind of client. It hands its lines over
    /// when it is polled.
    fn warned(config: &ClientConfig, poll: fn(&ClientConfig, Log)) -> BTreeSet<String> {
        let (sender, lines) = mpsc::channel();
        poll(config, Log(sender));
        let names = lines.iter().filter_map(|line| {
            let (_, rest) = line.split_once("Configuration property ")?;
            let (name, problem) = rest.split_once(' ')?;
            problem.contains("will be ignored").then(|| name.to_owned())
        });
        names.collect()
    }

    fn poll_producer(config: &ClientConfig, log: Log) {
        let client: BaseProducer<Log> = config.create_with_context(log).unwrap();
        client.poll(Duration::from_millis(5));
    }

    fn poll_consumer(config: &ClientConfig, log: Log) {
        let client: BaseConsumer<Log> = config.create_with_context(log).unwrap();
        drop(client.poll(Duration::from_millis(5)));
    }

    #[test]
    fn no_client_gets_the_properties_of_the_other_kind() {
        let can_be_set = |name: &str, value: &str| {
            let config = ClientConfig::new().set(name, value).create_native_config();
            config.is_ok()
        };
        // All properties that librdkafka has and text can set, those with a default set to it.
        let defaults = native::default_properties().into_iter();
        let mut all: HashMap<String, String> = defaults
            .filter(|(name, value)| can_be_set(name, value))
            .collect();
        for (names, poll) in [
            (OF_CONSUMERS, poll_producer as fn(&ClientConfig, Log)),
            (OF_PRODUCERS, poll_consumer),
        ] {
            for name in names {
                let value = all.entry((*name).to_owned()).or_insert_with(|| {
                    let mut values = ["1", "gzip"].into_iter();
                    let value = values.find(|value| can_be_set(name, value));
                    value.expect(name).to_owned()
                });
                let mut alone = ClientConfig::new();
                alone.set(*name, value.as_str());
                assert!(!warned(&alone, poll).is_empty(), "{name}");
            }
        }
        // A producer with this one requires others that are not defaults.
        all.remove("transactional.id");
        // Another name of a property with a default. Which of the two counts depends on their order.
        all.remove("delivery.timeout.ms");
        let all: ClientConfig = all.into_iter().collect();
        assert_eq!(
            warned(&producer_config(&all), poll_producer),
            BTreeSet::new()
        );
        assert_eq!(
            warned(&consumer_config(&all), poll_consumer),
            BTreeSet::new()
        );
    }

    #[test]
    fn a_member_logs_in_with_the_users_password() {
        let given = [
            ("sasl.password", "secret"),
            ("session.timeout.ms", "6000"),
            ("debug", "broker"),
            ("group.id", "another"),
        ];
        let properties = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let connection = connection_config("localhost:9092", &properties);
        let config = member_config(&connection, "sightline.order");
        for (name, value) in [
            ("bootstrap.servers", "localhost:9092"),
            ("sasl.password", "secret"),
            ("session.timeout.ms", "6000"),
            ("auto.offset.reset", "error"),
            ("debug", "metadata,topic,broker"),
            ("queued.max.messages.kbytes", "512"),
            ("group.id", "sightline.order"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }
}
