//! Every setting: its flag, variable, TOML key and default, and the check of its value.
//!
//! Promises: a flag takes precedence over a variable, a variable over the TOML file, the file over
//! the default; an empty variable counts as unset. A value that is missing or can't be used ends in
//! one [`ConfigError`] of one line, which names where the value came from, before anything is
//! opened. No secret shows in an error, in `Debug`, or in [`Config::to_toml`].

mod given;
mod kafka;
mod load;
mod secret;
mod settings;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};

pub use kafka::is_harmless as is_harmless_property;
pub use load::Settings;
pub use secret::Secret;
pub use settings::{UnknownVariable, all_keys, args, unknown_variables};

/// The checked settings of a process, from [`Settings::load`].
#[derive(Clone)]
pub struct Config {
    /// Postgres for reads, perhaps behind a pooler. Empty only where the command does not need it.
    pub database_url: Secret,
    /// Postgres without the pooler, for projectors, operations and migrations. Defaults to
    /// `database_url`.
    pub database_direct_url: Secret,
    /// Read replicas of that database.
    pub database_read_urls: Vec<Secret>,
    /// Largest number of connections of the read pool.
    pub database_max_connections: u32,
    /// How many transactions of projectors run at once.
    pub database_transactions: usize,
    /// Kafka's bootstrap servers, `host:port,…`. Empty only where the command does not need it.
    pub kafka_brokers: String,
    /// The topics to project.
    pub kafka_topics: Vec<String>,
    /// Consumer groups are `<prefix>.<domain>`.
    pub kafka_group_prefix: String,
    /// Where a domain without progress begins to read.
    pub kafka_start: StartAt,
    /// Further librdkafka properties, in the order given. May hold secrets.
    pub kafka_properties: Vec<(String, String)>,
    /// How long an added partition waits before the log end offsets of the older ones are read, up to
    /// which it then waits for them.
    pub kafka_settle: Duration,
    /// What the process may hold of records that wait, in bytes.
    pub kafka_buffer_bytes: usize,
    /// The domains that this process projects and serves, in the order of the program's own list.
    pub domains: Vec<String>,
    /// Whether this process projects, serves, or both.
    pub role: Role,
    /// The address of gRPC.
    pub grpc_addr: SocketAddr,
    /// The address of HTTP/JSON and the docs.
    pub http_addr: SocketAddr,
    /// The address of probes and metrics.
    pub admin_addr: SocketAddr,
    /// The filter of the log, as directives of `tracing_subscriber`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The longest time that a shutdown may take.
    pub shutdown_grace: Duration,
    /// How callers are authenticated.
    pub auth: Auth,
    /// Whether a gateway without authentication may listen beyond loopback.
    pub allow_open: bool,
    /// The largest record value that is parsed, in bytes. A larger one becomes a dead letter.
    pub max_value_bytes: usize,
    /// For how many days of stream time an event id is remembered.
    pub dedupe_days: u32,
    /// For how many days the bytes of a dead letter are kept.
    pub dead_letter_retention_days: u32,
    /// Whether the dead letter topic gets keys and values, too.
    pub dead_letter_topic_values: bool,
    /// How often a notification is tried to be sent.
    pub notification_max_attempts: i32,
    /// The pause after a notification's first failed attempt. It doubles with each.
    pub notification_backoff: Duration,
    /// After how long it is too late to send a notification, in seconds, by the name of its template.
    pub notification_expiry_seconds: BTreeMap<&'static str, i32>,
    /// The key of the audit log's chains.
    pub audit_key: Option<Secret>,
    /// How long the audit log keeps a user's personal data after a soft deletion.
    pub audit_soft_retention_days: u32,
    /// Failed logins for one account.
    pub alert_brute_force: AlertThreshold,
    /// Accounts for which logins from one IP address fail.
    pub alert_credential_stuffing: AlertThreshold,
    /// Refused second factors of one user.
    pub alert_mfa_fatigue: AlertThreshold,
    /// Whether `serve` applies migrations. A flag of that command, not a setting.
    pub migrate: bool,
    /// How settings were given, by key.
    origins: HashMap<&'static str, String>,
}

/// How many events within how long make an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertThreshold {
    /// How many.
    pub count: i64,
    /// The length of the window. Windows begin at its multiples since 1970.
    pub window_seconds: i32,
}

/// Where a domain without progress begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record.
    Earliest,
    /// At the next record that is produced.
    Latest,
    /// At the first record with this Kafka timestamp or a later one.
    Time(DateTime<Utc>),
}

/// What a process does for its domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Projects and serves.
    All,
    /// Projects only.
    Projector,
    /// Serves only.
    Gateway,
}

impl Role {
    /// Whether this process consumes the topics.
    pub fn projects(self) -> bool {
        self != Role::Gateway
    }

    /// Whether this process answers reads.
    pub fn serves(self) -> bool {
        self != Role::Projector
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How callers are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all: every caller that reaches the port is answered.
    Off,
}

/// One line that states which setting is wrong, where it was given, and what is allowed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error of this one line.
    pub fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

impl Config {
    /// What chooses the value of a setting: the flag, the variable or the key of a file by which it was given; for a default
    /// value, the flag and the variable by which it can be.
    pub fn chosen_by(&self, key: &'static str) -> String {
        let origin = self.origins.get(key).cloned();
        origin.unwrap_or_else(|| format!("{} or {}", settings::flag(key), settings::variable(key)))
    }

    /// The effective configuration as a TOML file. Of URLs and Kafka properties it shows what is
    /// known to hold no secret, and masks the rest.
    pub fn to_toml(&self) -> String {
        let mut table = toml::Table::new();
        let mut put = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
        let list = |items: &[String]| {
            items
                .iter()
                .map(|item| item.as_str().into())
                .collect::<Vec<toml::Value>>()
        };
        put("database_url", self.database_url.masked().into());
        put(
            "database_direct_url",
            self.database_direct_url.masked().into(),
        );
        let replicas = self.database_read_urls.iter();
        let replicas: Vec<toml::Value> = replicas.map(|url| url.masked().into()).collect();
        if !replicas.is_empty() {
            put("database_read_urls", replicas.into());
        }
        put(
            "database_max_connections",
            self.database_max_connections.into(),
        );
        put(
            "database_transactions",
            (self.database_transactions as i64).into(),
        );
        put("kafka_brokers", self.kafka_brokers.as_str().into());
        put("kafka_topics", list(&self.kafka_topics).into());
        put(
            "kafka_group_prefix",
            self.kafka_group_prefix.as_str().into(),
        );
        put("kafka_start", self.kafka_start.to_string().into());
        let properties = self.kafka_properties.iter().map(|(name, value)| {
            let value = if kafka::is_harmless(name) {
                value
            } else {
                "***"
            };
            (name.clone(), toml::Value::from(value))
        });
        put(
            "kafka_properties",
            properties.collect::<toml::Table>().into(),
        );
        put(
            "kafka_settle_seconds",
            (self.kafka_settle.as_secs() as i64).into(),
        );
        put(
            "kafka_buffer_bytes",
            (self.kafka_buffer_bytes as i64).into(),
        );
        put("domains", list(&self.domains).into());
        put("role", format!("{:?}", self.role).to_lowercase().into());
        put("grpc_addr", self.grpc_addr.to_string().into());
        put("http_addr", self.http_addr.to_string().into());
        put("admin_addr", self.admin_addr.to_string().into());
        put("log", self.log.as_str().into());
        put(
            "log_format",
            format!("{:?}", self.log_format).to_lowercase().into(),
        );
        put(
            "shutdown_grace",
            (self.shutdown_grace.as_secs() as i64).into(),
        );
        put("auth", format!("{:?}", self.auth).to_lowercase().into());
        put("allow_open", self.allow_open.into());
        put("max_value_bytes", (self.max_value_bytes as i64).into());
        put("dedupe_days", self.dedupe_days.into());
        put(
            "dead_letter_retention_days",
            self.dead_letter_retention_days.into(),
        );
        put(
            "dead_letter_topic_values",
            self.dead_letter_topic_values.into(),
        );
        put(
            "notification_max_attempts",
            self.notification_max_attempts.into(),
        );
        put(
            "notification_backoff_seconds",
            (self.notification_backoff.as_secs() as i64).into(),
        );
        for (template, key) in settings::expiry_keys() {
            if let Some(seconds) = self.notification_expiry_seconds.get(template) {
                put(key, (*seconds).into());
            }
        }
        if let Some(key) = &self.audit_key {
            put("audit_key", key.masked().into());
        }
        put(
            "audit_soft_retention_days",
            self.audit_soft_retention_days.into(),
        );
        for (kind, threshold) in [
            ("brute_force", self.alert_brute_force),
            ("credential_stuffing", self.alert_credential_stuffing),
            ("mfa_fatigue", self.alert_mfa_fatigue),
        ] {
            put(&format!("alert_{kind}_count"), threshold.count.into());
            put(
                &format!("alert_{kind}_window_seconds"),
                threshold.window_seconds.into(),
            );
        }
        table.to_string()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_toml())
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartAt::Earliest => f.write_str("earliest"),
            StartAt::Latest => f.write_str("latest"),
            StartAt::Time(time) => f.write_str(&time.to_rfc3339()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kafka::split_properties;
    use super::*;

    const DOMAINS: &[&str] = &["notification", "order"];

    fn settings(flags: &[&str]) -> Result<Settings, ConfigError> {
        let command = clap::Command::new("test").args(args(&all_keys()));
        let line = std::iter::once("test").chain(flags.iter().copied());
        Settings::gather(&command.get_matches_from(line))
    }

    fn load(flags: &[&str]) -> Result<Config, ConfigError> {
        settings(flags)?.load(DOMAINS, &[])
    }

    fn error(flags: &[&str]) -> String {
        let message = load(flags).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn defaults_are_usable() {
        let config = load(&[]).unwrap();
        assert_eq!(config.domains, DOMAINS);
        assert_eq!(config.kafka_topics, ["user.events"]);
        assert_eq!(config.http_addr, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.shutdown_grace, Duration::from_secs(20));
        assert_eq!(config.kafka_settle, Duration::from_secs(600));
    }

    #[test]
    fn mistyped_names_are_found_with_the_most_similar_ones() {
        let known = [
            "PATH",
            "SIGHTLINE_KAFKA_BROKERS",
            "SIGHTLINE_DATABASE_URL_FILE",
            "SIGHTLINE_CONFIG",
        ];
        let mistyped = [
            ("SIGHTLINE_BROKERS", Some("SIGHTLINE_KAFKA_BROKERS")),
            ("SIGHTLINE_CONFIG_FILE", Some("SIGHTLINE_CONFIG")),
            ("SIGHTLINE_DB_URL", Some("SIGHTLINE_DATABASE_URL")),
            ("SIGHTLINE_HTTP_ADDR_FILE", Some("SIGHTLINE_HTTP_ADDR")),
            ("SIGHTLINE_KAFKA_BROKER", Some("SIGHTLINE_KAFKA_BROKERS")),
            ("SIGHTLINE_LOG_LEVEL", Some("SIGHTLINE_LOG")),
            ("SIGHTLINE_WEATHER", None),
            ("SIGHTLINE_kafka_topics", Some("SIGHTLINE_KAFKA_TOPICS")),
        ];
        let names = known.into_iter().chain(mistyped.map(|(name, _)| name));
        let unknown = settings::unknown_among(names.map(String::from));
        let expected = mistyped.map(|(name, similar)| UnknownVariable {
            name: name.to_owned(),
            similar: similar.map(str::to_owned),
        });
        assert_eq!(unknown, expected);
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let toml = file("kafka_topics = ['a', 'b']\ndedupe_days = 7\nrole = 'gateway'");
        let path = toml.path().to_str().unwrap();
        let config = load(&["--config", path, "--role", "projector"]).unwrap();
        assert_eq!(config.kafka_topics, ["a", "b"]);
        assert_eq!(config.dedupe_days, 7);
        assert_eq!(config.role, Role::Projector);
    }

    #[test]
    fn what_chose_a_value_is_known_later() {
        let toml = file("grpc_addr = '127.0.0.1:1'");
        let path = toml.path().to_str().unwrap();
        let config = load(&["--config", path, "--http-addr", "127.0.0.1:2"]).unwrap();
        assert_eq!(config.chosen_by("http_addr"), "--http-addr");
        assert_eq!(
            config.chosen_by("grpc_addr"),
            format!("grpc_addr in {path}")
        );
        let by_default = config.chosen_by("admin_addr");
        assert_eq!(by_default, "--admin-addr or SIGHTLINE_ADMIN_ADDR");
    }

    #[test]
    fn a_missing_value_is_named_with_all_ways_to_give_it() {
        let error = settings(&[]).unwrap().load(DOMAINS, &["database_url"]);
        let error = error.unwrap_err().to_string();
        for way in ["SIGHTLINE_DATABASE_URL", "--database-url", "_FILE"] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn unusable_values_are_refused_by_origin() {
        for (flags, wanted) in [
            (vec!["--kafka-start", "soon"], "--kafka-start"),
            (vec!["--domains", "order,odrer"], "\"odrer\""),
            (vec!["--http-addr", "localhost"], "--http-addr"),
            (vec!["--kafka-topics", "a,,b"], "empty"),
            (vec!["--kafka-brokers", "host:many"], "\"host:many\""),
            (vec!["--dedupe-days", "0"], "from 1 to"),
            (vec!["--kafka-settle-seconds", "86401"], "from 0 to 86400"),
            (vec!["--kafka-settle-seconds=-1"], "from 0 to 86400"),
            (vec!["--auth", "jwt"], "must be one of: off"),
            (vec!["--log", "a=b=c"], "--log"),
            (vec!["--log", "loud"], "\"loud\" is not a level"),
            (vec!["--log", "info,sightline"], "sightline=debug"),
            (vec!["--kafka-brokers", "host:1:2"], "\"host:1:2\""),
            (
                vec!["--kafka-properties", "security.protocol=TLS"],
                "sasl_plaintext, sasl_ssl",
            ),
            (vec!["--config", "/no/such"], "there is no such file"),
            (vec!["--config", "/"], "it is a directory"),
            (vec!["--kafka-properties", "no.such=1"], "has no property"),
            (vec!["--kafka-properties", "group.id=x"], "set by sightline"),
            (vec!["--kafka-properties", "=x"], "name=value"),
        ] {
            let message = error(&flags);
            assert!(message.contains(wanted), "{message}");
        }
        let unknown = file("kafka_topic = 'a'");
        let message = error(&["--config", unknown.path().to_str().unwrap()]);
        assert!(
            message.contains("\"kafka_topic\" is not a setting; did you mean kafka_topics?"),
            "{message}"
        );
    }

    #[test]
    fn files_with_usual_mistakes_are_told_what_to_write() {
        for (content, wanted) in [
            (
                "shutdown_grace = 20.5",
                "must be a whole number of seconds from 0 to 3600",
            ),
            (
                "shutdown_grace = { a = 1 }",
                "must be a whole number of seconds from 0 to 3600",
            ),
            ("max_value_bytes = 'many'", "a whole number of bytes from"),
            ("domains = 1.5", "\"1.5\" is not a domain"),
            (
                "[kafka_properties]\nclient.rack = 'a'",
                "must be quoted: \"client.rack\" =",
            ),
            (
                "[kafka_properties]\nsasl.oauthbearer.config = 'hush'",
                "must be quoted: \"sasl.oauthbearer.config\" =",
            ),
            ("config = 'x'", "\"config\" is not a setting; --help lists"),
        ] {
            let toml = file(content);
            let message = error(&["--config", toml.path().to_str().unwrap()]);
            assert!(message.contains(wanted), "{message}");
            assert!(!message.contains("hush"), "{message}");
        }
        let message = error(&["--config", ""]);
        assert_eq!(message, "--config: must name a file");
    }

    #[test]
    fn two_addresses_do_not_share_a_port() {
        let message = error(&["--http-addr", "127.0.0.1:7", "--grpc-addr", "127.0.0.1:7"]);
        for named in ["--http-addr", "--grpc-addr", "port 7 "] {
            assert!(message.contains(named), "{message}");
        }
        let message = error(&["--http-addr", "127.0.0.1:9090"]);
        assert!(
            message.starts_with("--http-addr: port 9090 is"),
            "{message}"
        );
        assert!(message.contains("admin_addr"), "{message}");
        let message = error(&["--admin-addr", "0.0.0.0:8080"]);
        assert!(
            message.starts_with("--admin-addr: port 8080 is"),
            "{message}"
        );
        load(&["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"]).unwrap();
        load(&["--http-addr", "127.0.0.2:7", "--grpc-addr", "127.0.0.1:7"]).unwrap();
        // A projector binds one of them only.
        load(&["--role", "projector", "--admin-addr", "127.0.0.1:8080"]).unwrap();
    }

    #[test]
    fn levels_and_levels_of_modules_are_filters() {
        for filter in [
            "off",
            "WARN",
            "info,sightline=debug",
            "info,sightline::db=trace",
            "info,[call{route}]=debug",
        ] {
            assert_eq!(load(&["--log", filter]).unwrap().log, filter);
        }
    }

    #[test]
    fn tls_for_kafka_comes_with_its_feature_and_is_refused_without() {
        let secured = "security.protocol=sasl_ssl,sasl.mechanism=SCRAM-SHA-512,sasl.username=u,sasl.password=p";
        let flags = ["--kafka-properties", secured];
        if cfg!(feature = "tls") {
            let mut kafka = rdkafka::ClientConfig::new();
            kafka.extend(load(&flags).unwrap().kafka_properties);
            // Creates the TLS context, with the machine's trusted authorities.
            kafka.create::<rdkafka::consumer::BaseConsumer>().unwrap();
        } else {
            let message = error(&flags);
            assert!(message.contains("security.protocol"), "{message}");
            assert!(message.contains("FEATURES=tls"), "{message}");
        }
    }

    #[test]
    fn listening_beyond_loopback_without_authentication_is_refused() {
        let message = error(&["--http-addr", "0.0.0.0:8080"]);
        assert!(message.contains("or give --allow-open"), "{message}");
        load(&["--http-addr", "0.0.0.0:8080", "--allow-open"]).unwrap();
        load(&["--http-addr", "[::1]:8080"]).unwrap();
    }

    #[test]
    fn secrets_come_from_files_and_show_nowhere() {
        let url = file("postgres://me:p@ss@db/x?password=hush&sslmode=disable\n");
        let properties = file("client.id=me\nsasl.password=a,b=c\n");
        let config = load(&[
            "--database-url-file",
            url.path().to_str().unwrap(),
            "--kafka-properties-file",
            properties.path().to_str().unwrap(),
        ])
        .unwrap();
        assert_eq!(config.kafka_properties[1].1, "a,b=c");
        let shown = format!("{config:?}{:?}", config.database_url);
        assert!(
            shown.contains("me:***@db") && shown.contains("sslmode=disable"),
            "{shown}"
        );
        for secret in ["p@ss", "hush", "a,b=c"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let message = error(&["--database-url", "mysql://me:hush@db/x"]);
        assert!(!message.contains("hush"), "{message}");
        let both = [
            "--database-url",
            "postgres://db/x",
            "--database-url-file",
            "/x",
        ];
        assert_eq!(
            error(&both),
            "--database-url-file: --database-url is also given: give one of the two"
        );
    }

    #[test]
    fn unknown_parameters_of_a_database_url_are_named_without_values() {
        let url = |query: &str| format!("postgres://me:hush@db/x?{query}");
        for query in [
            "sslpassword=hush",
            "sslkeypassphrase=hush",
            "sslmode=require&SSLPassword=hush",
            "connect_timeout=hush",
            "options[search_path=hush",
        ] {
            let message = error(&["--database-url", &url(query)]);
            let name = query.rsplit('&').next().unwrap().split('=').next().unwrap();
            assert!(message.contains(&format!("{name:?}")), "{message}");
            assert!(!message.contains("hush"), "{message}");
        }
        // Here the names are parts of a password.
        for url in [
            "postgres://me:1?hush@db/x",
            "postgres://me:1?hush=2@db/x",
            "postgres://me:1#hush@db/x",
            "postgres://me:hush/@db/x",
            "postgres://me:x@db/x?hush hush",
        ] {
            let message = error(&["--database-url", url]);
            assert!(!message.contains("hush"), "{message}");
        }
        for query in [
            "sslmode=verify-full&application_name=a%20b",
            "host=/run/postgresql&user=me&password=p@ss&dbname=x",
            "options=-c%20geqo%3Doff&options[work_mem]=8MB&statement-cache-capacity=0",
        ] {
            load(&["--database-url", &url(query)]).unwrap();
        }
    }

    #[test]
    fn files_that_a_database_url_names_must_be_readable() {
        let url = |file: &str| format!("postgres://db/x?sslmode=verify-full&sslrootcert={file}");
        let message = error(&["--database-url", &url("/no/such/ca.pem")]);
        let wanted = "the file of sslrootcert can't be read: there is no such file";
        assert!(message.contains(wanted), "{message}");
        let present = file("");
        load(&["--database-url", &url(present.path().to_str().unwrap())]).unwrap();
    }

    #[test]
    fn only_what_is_known_to_be_harmless_is_printed() {
        let key = file("a key");
        let url = format!(
            "postgres://me:hush@db/x?sslmode=require&user=you&sslkey={}&options=-c%20x.y%3Dhush&password=hush",
            key.path().display()
        );
        let mut properties =
            "client.id=mine,client.rack=east,sasl.username=hush,sasl.password=hush,fetch.min.bytes=7"
                .to_owned();
        if cfg!(feature = "tls") {
            properties.push_str(",sasl.oauthbearer.config=hush,ssl.key.password=hush");
        }
        let config = load(&["--database-url", &url, "--kafka-properties", &properties]).unwrap();
        let shown = config.to_toml();
        for harmless in [
            "me:***@db/x",
            "sslmode=require",
            "user=you",
            "mine",
            "east",
            "\"7\"",
        ] {
            assert!(shown.contains(harmless), "{harmless} in {shown}");
        }
        for masked in [
            "sslkey=***",
            "options=***",
            "password=***",
            "sasl.username\" = \"***",
        ] {
            assert!(shown.contains(masked), "{masked} in {shown}");
        }
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn no_part_of_a_misplaced_secret_is_quoted() {
        for flags in [
            ["--kafka-properties", "sasl.password=a,hush=b"],
            ["--kafka-properties", "client.id=a,sasl.username=b,hush.c=d"],
            ["--kafka-properties-file", "sasl.password=hush"],
            ["--database-url-file", "postgres://me:hush@db/x"],
            ["--kafka-brokers", "sasl://me:hush@db:9092"],
            ["--kafka-brokers", "me:hush@db:9092"],
        ] {
            let message = error(&flags);
            assert!(!message.contains("hush"), "{message}");
        }
    }

    #[test]
    fn properties_may_hold_commas() {
        assert_eq!(
            split_properties("debug=broker,topic,client.id=me").unwrap(),
            [
                ("debug".into(), "broker,topic".into()),
                ("client.id".into(), "me".into())
            ]
        );
    }

    #[test]
    fn the_printed_configuration_can_be_read_back() {
        let flags = [
            "--database-url",
            "postgres://db/x",
            "--kafka-brokers",
            "a:1,b",
            "--database-read-urls",
            "postgres://replica/x,postgres://other/x",
        ];
        let printed = load(&flags).unwrap().to_toml();
        let toml = file(&printed);
        let again = load(&["--config", toml.path().to_str().unwrap()]).unwrap();
        assert_eq!(again.to_toml(), printed);
    }
}
