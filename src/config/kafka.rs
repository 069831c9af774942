//! The settings of Kafka: brokers, topics, group, start, and librdkafka's own properties.

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::given::Given;
use super::{ConfigError, StartAt};

/// Properties that the program sets itself, because its guarantees depend on them.
const OWN_PROPERTIES: &[&str] = &[
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    // Records of an open transaction may still be aborted.
    "isolation.level",
    "metadata.broker.list",
    // Partitions are assigned and revoked one by one.
    "partition.assignment.strategy",
];

/// Properties whose values are shown. Any other value may be a secret.
const HARMLESS_PROPERTIES: &[&str] = &[
    "allow.auto.create.topics",
    "api.version.fallback.ms",
    "api.version.request",
    "api.version.request.timeout.ms",
    "auto.commit.interval.ms",
    "broker.address.family",
    "broker.address.ttl",
    "broker.version.fallback",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "debug",
    "enable.metrics.push",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "security.protocol",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.sigalgs.list",
    "statistics.interval.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// Whether the value of this property may be shown.
pub fn is_harmless(property: &str) -> bool {
    HARMLESS_PROPERTIES.contains(&property)
}

/// `host:port,…` with valid ports.
pub(super) fn brokers(given: &Given) -> Result<String, ConfigError> {
    let brokers = given.list()?;
    for broker in &brokers {
        let (host, port) = broker.rsplit_once(':').unwrap_or((broker, "9092"));
        if broker.contains(['@', '/']) {
            // Given as a URL, it may hold a password.
            return Err(given.error("must be of the form host:port,host:port, without a user"));
        }
        // The colons of an IPv6 address are in brackets.
        let is_host = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
        if !is_host || port.parse::<u16>().is_err() {
            return Err(given.error(format_args!("{broker:?} is not of the form host:port")));
        }
    }
    Ok(brokers.join(","))
}

/// Valid names of topics, sorted, each once.
pub(super) fn topics(given: &Given) -> Result<Vec<String>, ConfigError> {
    let mut topics = given.list()?;
    for topic in &topics {
        let is_valid = topic.len() <= 249
            && !matches!(topic.as_str(), "." | "..")
            && topic
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !is_valid {
            return Err(given.error(format_args!(
                "{topic:?} is not a valid name of a Kafka topic"
            )));
        }
    }
    topics.sort();
    topics.dedup();
    Ok(topics)
}

/// A prefix without white space.
pub(super) fn group_prefix(given: &Given) -> Result<String, ConfigError> {
    let prefix = given.text()?;
    if prefix.is_empty() || prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(given.error("must not be empty or contain white space"));
    }
    Ok(prefix)
}

/// `earliest`, `latest` or an RFC 3339 time.
pub(super) fn start(given: &Given) -> Result<StartAt, ConfigError> {
    match given.text()?.as_str() {
        "earliest" => Ok(StartAt::Earliest),
        "latest" => Ok(StartAt::Latest),
        text => match DateTime::parse_from_rfc3339(text) {
            Ok(time) if time.to_utc() > Utc::now() => Err(given.error(format_args!(
                "{text:?} lies ahead; latest begins with the records that are still to come"
            ))),
            Ok(time) => Ok(StartAt::Time(time.to_utc())),
            Err(_) => Err(given.error(format_args!(
                "{text:?} must be earliest, latest or a time such as 2026-10-01T00:00:00Z"
            ))),
        },
    }
}

/// Properties that librdkafka accepts, from a TOML table, a list of `name=value`, or text.
pub(super) fn properties(given: &Given) -> Result<Vec<(String, String)>, ConfigError> {
    let properties = match &given.value {
        toml::Value::Table(table) => table
            .iter()
            .map(|(name, value)| match value {
                toml::Value::String(value) => Ok((name.clone(), value.clone())),
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                    Ok((name.clone(), value.to_string()))
                }
                // TOML takes the dots of a bare name for tables within tables.
                toml::Value::Table(table) if !table.is_empty() => Err(given.error(format_args!(
                    "a name with dots must be quoted: {:?} = …",
                    dotted(name, table)
                ))),
                _ => Err(given.error(format_args!("{name} must be text, a number or a boolean"))),
            })
            .collect::<Result<Vec<_>, _>>()?,
        toml::Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().and_then(split_property))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| given.error("a line or item is not of the form name=value"))?,
        _ => split_properties(&given.text()?)
            .ok_or_else(|| given.error("must be of the form name=value,name=value"))?,
    };
    for (n, (name, _)) in properties.iter().enumerate() {
        if properties[..n].iter().any(|(former, _)| former == name) {
            return Err(given.error(format_args!("{name} is given twice")));
        }
    }
    let is_split_at_commas = !matches!(given.value, toml::Value::Table(_) | toml::Value::Array(_));
    let mut previous: Option<&str> = None;
    for (name, value) in &properties {
        check_property(name, value, previous).map_err(|problem| given.error(problem))?;
        previous = is_split_at_commas.then_some(name);
    }
    Ok(properties)
}

/// The first name of a value in a table of this name.
fn dotted(name: &str, table: &toml::Table) -> String {
    match table.iter().next() {
        Some((next, toml::Value::Table(table))) => dotted(&format!("{name}.{next}"), table),
        Some((next, _)) => format!("{name}.{next}"),
        None => name.to_owned(),
    }
}

/// Lets librdkafka check a property. Its message quotes the value, which may be secret, so ours has
/// the name alone. Where text was split at commas, even an unknown name may be a part of a secret:
/// the value of the `previous` property.
fn check_property(name: &str, value: &str, previous: Option<&str>) -> Result<(), String> {
    if OWN_PROPERTIES.contains(&name) {
        return Err(format!("{name} is set by sightline and can't be changed"));
    }
    let checked = ClientConfig::new().set(name, value).create_native_config();
    match checked {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            match previous.filter(|previous| !is_harmless(previous)) {
                Some(previous) => Err(format!(
                    "librdkafka does not have the property after {previous}; \
                     a value with a comma and = belongs in a file or a TOML table"
                )),
                None => Err(format!("librdkafka has no property {name:?}")),
            }
        }
        Err(_) if !cfg!(feature = "tls") && needs_tls(name, value) => Err(format!(
            "{name} asks for TLS, which this build does not have: build sightline with FEATURES=tls"
        )),
        Err(_) if name == "security.protocol" => Err(format!(
            "{name} must be one of: plaintext, ssl, sasl_plaintext, sasl_ssl"
        )),
        Err(_) => Err(format!(
            "librdkafka refuses the value of {name:?}, or this build does not support it"
        )),
    }
}

/// Whether a property is about TLS.
fn needs_tls(name: &str, value: &str) -> bool {
    name.starts_with("ssl.")
        || (name == "security.protocol" && value.to_ascii_lowercase().ends_with("ssl"))
}

fn split_property(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// Splits `name=value,…`. A part without `=` belongs to the value before its comma.
pub(super) fn split_properties(text: &str) -> Option<Vec<(String, String)>> {
    let mut properties: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        match (split_property(part), properties.last_mut()) {
            (Some(property), _) => properties.push(property),
            (None, Some((_, value))) if !part.contains('=') => {
                value.push(',');
                value.push_str(part);
            }
            _ => return None,
        }
    }
    Some(properties)
}
