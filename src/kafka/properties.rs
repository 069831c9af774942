//! Whether the librdkafka properties that the user gave make sense together. Each by itself was checked when the settings were
//! loaded.
//!
//! librdkafka checks most of it when a client is made, or leaves a hint in the client's log. Clients of the kinds that the
//! process makes are made here without a broker, so nothing is connected to, and both are refused.

use std::sync::mpsc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, NativeClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, DeliveryResult, NoCustomPartitioner, ProducerContext};

use super::group;
use crate::config;

/// Two names of one property. Which of the values counted would be a matter of chance.
const SYNONYMS: [[&str; 2]; 8] = [
    ["acks", "request.required.acks"],
    ["compression.codec", "compression.type"],
    ["delivery.timeout.ms", "message.timeout.ms"],
    ["fetch.message.max.bytes", "max.partition.fetch.bytes"],
    ["linger.ms", "queue.buffering.max.ms"],
    ["max.in.flight", "max.in.flight.requests.per.connection"],
    ["message.send.max.retries", "retries"],
    ["sasl.mechanism", "sasl.mechanisms"],
];
/// Mechanisms of SASL, and the features of librdkafka that they need.
const MECHANISMS: [(&str, &str); 5] = [
    ("PLAIN", "sasl_plain"),
    ("SCRAM-SHA-256", "sasl_scram"),
    ("SCRAM-SHA-512", "sasl_scram"),
    ("OAUTHBEARER", "oidc"),
    ("GSSAPI", "sasl_gssapi"),
];
/// What librdkafka says of single properties, which work all the same.
const HARMLESS_HINTS: [&str; 4] = [
    " is deprecated",
    " is experimental",
    "will be ignored by",
    "No `bootstrap.servers`",
];

/// Checks the user's properties.
///
/// # Errors
/// Some of them make no sense together: which ones, why, and what to do. No value that may be secret is in it.
pub fn check(properties: &[(String, String)]) -> Result<(), String> {
    let mut connection = group::connection_config("", properties);
    connection.remove("bootstrap.servers");
    let mut member = group::member_config(&connection, "");
    // A client without a group has no coordinator to look for.
    member.remove("group.id");
    let Ok(native) = member.create_native_config() else {
        return Err("librdkafka refuses the properties".to_owned());
    };
    let checked = Properties {
        given: properties,
        effective: &native,
    };
    checked.check_names()?;
    checked.check_login()?;
    checked.check_tls()?;
    checked.check_times()?;
    checked.try_client(&member, |config, hints| {
        let client: BaseConsumer<Hints> = config.create_with_context(hints)?;
        // The client hands its log over when it is polled.
        drop(client.poll(Duration::from_millis(5)));
        Ok(())
    })?;
    checked.try_client(&group::outbox_config(&connection), |config, hints| {
        let client: BaseProducer<Hints> = config.create_with_context(hints)?;
        client.poll(Duration::from_millis(5));
        Ok(())
    })
}

/// What the user gave, and what a member of a group gets of it.
struct Properties<'p> {
    given: &'p [(String, String)],
    effective: &'p NativeClientConfig,
}

impl Properties<'_> {
    /// The value that the user gave.
    fn given(&self, name: &str) -> Option<&str> {
        let mut given = self.given.iter().filter(|(given, _)| given == name);
        given.next_back().map(|(_, value)| value.as_str())
    }

    /// The first of these names that the user gave.
    fn first<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let mut names = names.iter().copied();
        names.find(|name| self.given(name).is_some_and(|value| !value.is_empty()))
    }

    /// The first name that the user gave and that begins like this.
    fn first_with(&self, prefix: &str) -> Option<&str> {
        let mut names = self.given.iter().map(|(name, _)| name.as_str());
        names.find(|name| name.starts_with(prefix))
    }

    /// The value that counts: the given one or the default.
    fn value(&self, name: &str) -> String {
        let value = self.effective.get(name).unwrap_or_default();
        value.trim_end_matches('\0').to_owned()
    }

    fn number(&self, name: &str) -> i64 {
        self.value(name).parse().unwrap_or_default()
    }

    /// A property whose value holds no secret, with that value.
    fn shown(&self, name: &str) -> String {
        match self.given(name) {
            Some(value) => format!("{name}={value}"),
            None => format!("{name} ({} by default)", self.value(name)),
        }
    }

    fn check_names(&self) -> Result<(), String> {
        let both = |names: &&[&str; 2]| names.iter().all(|name| self.given(name).is_some());
        match SYNONYMS.iter().find(both) {
            Some([one, other]) => Err(format!(
                "{one} and {other} are two names of one property: give one of them"
            )),
            None => Ok(()),
        }
    }

    fn check_login(&self) -> Result<(), String> {
        let protocol = self.shown("security.protocol");
        if !self.value("security.protocol").starts_with("sasl_") {
            return match self.first_with("sasl.") {
                Some(name) => Err(format!(
                    "{name} is given, but {protocol} has no login: set security.protocol to SASL_SSL or SASL_PLAINTEXT, \
                     or leave {name} out"
                )),
                None => Ok(()),
            };
        }
        let features = self.value("builtin.features");
        let unsecured = self.given("enable.sasl.oauthbearer.unsecure.jwt") == Some("true");
        let is_supported = |(name, feature): &(&str, &str)| {
            features.split(',').any(|has| has == *feature) || (*name == "OAUTHBEARER" && unsecured)
        };
        let supported = MECHANISMS.into_iter().filter(is_supported);
        let supported: Vec<&str> = supported.map(|(name, _)| name).collect();
        let given = self.first(&["sasl.mechanism", "sasl.mechanisms"]);
        let mechanism = self.value("sasl.mechanisms");
        if !supported.contains(&mechanism.as_str()) {
            let (name, is) = match given {
                Some(name) => (name, format!("{name}={mechanism}")),
                None => ("sasl.mechanism", self.shown("sasl.mechanism")),
            };
            return Err(format!(
                "{protocol} needs a mechanism for the login that this build has, and {is} is none: set {name} to {}",
                supported.join(", ")
            ));
        }
        let credentials = ["sasl.username", "sasl.password"];
        if mechanism == "PLAIN" || mechanism.starts_with("SCRAM") {
            let missing = credentials
                .iter()
                .find(|name| self.first(&[**name]).is_none());
            if let Some(missing) = missing {
                return Err(format!(
                    "sasl.mechanism={mechanism} needs sasl.username and sasl.password: set {missing}, too"
                ));
            }
        } else if let Some(name) = self.first(&credentials) {
            return Err(format!(
                "{name} is given, but {} does not use it: set sasl.mechanism to PLAIN or SCRAM-SHA-512, or leave {name} out",
                self.shown("sasl.mechanism")
            ));
        }
        if mechanism == "OAUTHBEARER"
            && self.given("sasl.oauthbearer.method") != Some("oidc")
            && !unsecured
        {
            return Err(
                "sasl.mechanism=OAUTHBEARER needs a source of tokens: set sasl.oauthbearer.method=oidc and \
                 sasl.oauthbearer.token.endpoint.url, too"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), String> {
        if !self.value("security.protocol").ends_with("ssl") {
            let protocol = self.shown("security.protocol");
            return match self.first_with("ssl.") {
                Some(name) => Err(format!(
                    "{name} is given, but {protocol} has no TLS: set security.protocol to SSL or SASL_SSL, or leave {name} out"
                )),
                None => Ok(()),
            };
        }
        let certificate = self.first(&["ssl.certificate.location", "ssl.certificate.pem"]);
        let key = self.first(&["ssl.key.location", "ssl.key.pem"]);
        match (certificate, key) {
            (Some(name), None) => Err(format!(
                "{name} is of no use without its key: set ssl.key.location or ssl.key.pem, too"
            )),
            (None, Some(name)) => Err(format!(
                "{name} is of no use without its certificate: set ssl.certificate.location or ssl.certificate.pem, too"
            )),
            _ => Ok(()),
        }
    }

    fn check_times(&self) -> Result<(), String> {
        // With KIP-848 the broker sets these times.
        if self.value("group.protocol") != "classic" {
            return Ok(());
        }
        let [heartbeat, session, poll] = [
            "heartbeat.interval.ms",
            "session.timeout.ms",
            "max.poll.interval.ms",
        ];
        if self.number(heartbeat) >= self.number(session) {
            return Err(format!(
                "{} must be less than {}, best a third of it: Kafka takes a member for dead that is silent for that long",
                self.shown(heartbeat),
                self.shown(session)
            ));
        }
        if self.number(poll) < self.number(session) {
            return Err(format!(
                "{} must not be less than {}: raise the one or lower the other",
                self.shown(poll),
                self.shown(session)
            ));
        }
        Ok(())
    }

    /// Makes a client with `make`, and refuses what librdkafka refuses of it or hints at.
    fn try_client(
        &self,
        config: &ClientConfig,
        make: impl FnOnce(&ClientConfig, Hints) -> KafkaResult<()>,
    ) -> Result<(), String> {
        let (sender, hints) = mpsc::channel();
        let mut config = config.clone();
        // What the user wants to debug is not the clients of this check.
        config.remove("debug");
        config.set_log_level(RDKafkaLogLevel::Warning);
        match make(&config, Hints(sender)) {
            Ok(()) => {}
            Err(KafkaError::ClientCreation(problem)) => return Err(self.refusal(&problem)),
            Err(_) => return Err(self.refusal("")),
        }
        let is_of_pair = |hint: &String| !HARMLESS_HINTS.iter().any(|known| hint.contains(known));
        match hints.into_iter().find(is_of_pair) {
            Some(hint) => Err(self.refusal(&hint)),
            None => Ok(()),
        }
    }

    /// What librdkafka says against the properties, unless it quotes a value that may be secret.
    fn refusal(&self, said: &str) -> String {
        // What is shorter is a part of any sentence.
        let mut secrets = self
            .given
            .iter()
            .filter(|(name, value)| !config::is_harmless_property(name) && value.len() > 3);
        if said.is_empty() || secrets.any(|(_, value)| said.contains(value.as_str())) {
            return "librdkafka refuses the properties".to_owned();
        }
        // One of its sentences lacks this space.
        let said = said.replace("`must", "` must");
        format!("librdkafka refuses the properties: {said}")
    }
}

/// Collects what a client says of its configuration.
struct Hints(mpsc::Sender<String>);

impl ClientContext for Hints {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        if facility == "CONFWARN" {
            // Before it stands the name of a thread.
            let hint = line.split_once("]: ").map_or(line, |(_, hint)| hint);
            drop(self.0.send(hint.to_owned()));
        }
    }

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Hints {}

impl ProducerContext<NoCustomPartitioner> for Hints {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        let properties: Vec<(String, String)> = text
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        check(&properties)
    }

    #[test]
    fn properties_that_make_no_sense_together_are_refused_by_name() {
        let login = "security.protocol=SASL_PLAINTEXT";
        for (properties, named) in [
            (
                login,
                &[
                    "security.protocol=SASL_PLAINTEXT",
                    "sasl.mechanism (GSSAPI by default)",
                    "PLAIN",
                ][..],
            ),
            (
                &format!("{login},sasl.mechanism=GSSAPI"),
                &["sasl.mechanism=GSSAPI", "PLAIN"],
            ),
            (
                &format!("{login},sasl.mechanisms=plain"),
                &["sasl.mechanisms=plain", "PLAIN"],
            ),
            (
                &format!("{login},sasl.mechanism=PLAIN"),
                &["sasl.mechanism=PLAIN", "sasl.username"],
            ),
            (
                &format!("{login},sasl.mechanism=PLAIN,sasl.username=hush"),
                &["sasl.mechanism=PLAIN", "sasl.password"],
            ),
            (
                &format!("{login},sasl.mechanism=PLAIN,sasl.username=,sasl.password=hush"),
                &["sasl.mechanism=PLAIN", "sasl.username"],
            ),
            (
                &format!("{login},sasl.mechanism=PLAIN,sasl.mechanisms=PLAIN"),
                &["sasl.mechanism", "sasl.mechanisms"],
            ),
            (
                "sasl.mechanism=PLAIN",
                &[
                    "sasl.mechanism",
                    "security.protocol (plaintext by default)",
                    "SASL_SSL",
                ],
            ),
            (
                "sasl.username=hush,sasl.password=hush",
                &["sasl.username", "security.protocol", "SASL_SSL"],
            ),
            (
                "security.protocol=plaintext,sasl.password=hush",
                &["sasl.password", "security.protocol=plaintext"],
            ),
            (
                "session.timeout.ms=3000",
                &[
                    "heartbeat.interval.ms (3000 by default)",
                    "session.timeout.ms=3000",
                ],
            ),
            (
                "heartbeat.interval.ms=10000",
                &[
                    "heartbeat.interval.ms=10000",
                    "session.timeout.ms (10000 by default)",
                ],
            ),
            (
                "max.poll.interval.ms=9000",
                &[
                    "max.poll.interval.ms=9000",
                    "session.timeout.ms (10000 by default)",
                ],
            ),
            (
                "max.poll.interval.ms=20000,session.timeout.ms=30000",
                &["max.poll.interval.ms=20000", "session.timeout.ms=30000"],
            ),
            (
                "group.protocol=consumer,session.timeout.ms=6000",
                &["session.timeout.ms", "group.protocol"],
            ),
            (
                "group.protocol=consumer,heartbeat.interval.ms=600",
                &["heartbeat.interval.ms", "group.protocol"],
            ),
            (
                "fetch.max.bytes=1000",
                &["fetch.max.bytes", "message.max.bytes"],
            ),
            (
                "fetch.max.bytes=2000000,message.max.bytes=3000000",
                &["fetch.max.bytes", "message.max.bytes"],
            ),
            (
                "receive.message.max.bytes=1000000",
                &["receive.message.max.bytes", "fetch.max.bytes"],
            ),
            (
                "fetch.wait.max.ms=60000",
                &["fetch.wait.max.ms", "socket.timeout.ms"],
            ),
            (
                "reconnect.backoff.ms=20000",
                &["reconnect.backoff.ms", "reconnect.backoff.max.ms"],
            ),
            (
                "retry.backoff.ms=2000",
                &["retry.backoff.ms", "retry.backoff.max.ms"],
            ),
            ("acks=1", &["acks", "enable.idempotence"]),
        ] {
            let problem = checked(properties).expect_err(properties);
            for named in named {
                assert!(problem.contains(named), "{properties}: {problem}");
            }
            assert!(!problem.contains("hush"), "{properties}: {problem}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_and_keys_need_each_other_and_tls() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path().display();
        for (properties, named) in [
            (
                format!("security.protocol=ssl,ssl.certificate.location={file}"),
                "ssl.key.location",
            ),
            (
                format!("security.protocol=ssl,ssl.key.location={file}"),
                "ssl.certificate.location",
            ),
            (format!("ssl.ca.location={file}"), "security.protocol"),
            // Not a certificate.
            (
                format!("security.protocol=ssl,ssl.ca.location={file}"),
                "ssl.ca.location",
            ),
            (
                "security.protocol=sasl_ssl,sasl.mechanism=PLAIN,sasl.username=u,sasl.password=p,ssl.ca.location=/no/such"
                    .to_owned(),
                "ssl.ca.location",
            ),
            ("security.protocol=sasl_ssl".to_owned(), "SCRAM-SHA-512"),
        ] {
            let problem = checked(&properties).expect_err(&properties);
            assert!(problem.contains(named), "{properties}: {problem}");
        }
        let scram = "security.protocol=SASL_SSL,sasl.mechanism=SCRAM-SHA-512,sasl.username=a,sasl.password=b";
        checked(scram).unwrap();
    }

    #[test]
    fn properties_that_make_sense_are_accepted() {
        for properties in [
            "",
            "security.protocol=SASL_PLAINTEXT,sasl.mechanism=PLAIN,sasl.username=a,sasl.password=b",
            "security.protocol=plaintext,client.id=me,client.rack=east",
            "session.timeout.ms=45000,heartbeat.interval.ms=15000",
            "max.poll.interval.ms=20000",
            "group.protocol=consumer",
            "fetch.max.bytes=60000000,queued.max.messages.kbytes=65536",
            "message.max.bytes=20000000",
            "fetch.wait.max.ms=1000,fetch.min.bytes=100000",
            "topic.metadata.refresh.interval.ms=500",
            "linger.ms=50,acks=all,compression.type=gzip",
            // Each is said to be deprecated or experimental, and works.
            "socket.blocking.max.ms=1000",
            "debug=broker,topic",
        ] {
            checked(properties).expect(properties);
        }
    }
}
