//! Every setting: its flag, variable, TOML key, default, and the check of its value.
//!
//! Promises: a flag beats a variable, a variable beats the TOML file, the file beats the default; an empty
//! variable is as unset. A value that cannot be used, or is missing, ends in one [`ConfigError`] of one line that
//! names where the value came from, before anything is opened. No secret shows in an error, in `Debug`, or in
//! [`Config::to_toml`].

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};

/// What a command needs to know to start. Built by [`Settings::load`].
#[derive(Clone)]
pub struct Config {
    /// Postgres for reads, perhaps behind a pooler. Empty only where the command does not need it.
    pub database_url: Secret,
    /// Postgres past the pooler: projectors, migrations, LISTEN. The same as `database_url` unless set.
    pub database_direct_url: Secret,
    /// Largest number of connections of the read pool.
    pub database_max_connections: u32,
    /// Kafka's bootstrap servers, `host:port,…`. Empty only where the command does not need it.
    pub kafka_brokers: String,
    /// The topics to project.
    pub kafka_topics: Vec<String>,
    /// Consumer groups are `<prefix>.<domain>`.
    pub kafka_group_prefix: String,
    /// Where a domain without progress begins.
    pub kafka_start: StartAt,
    /// Further librdkafka properties, in the order given. May hold secrets.
    pub kafka_properties: Vec<(String, String)>,
    /// The domains that this process projects and serves, in the order of the program's own list.
    pub domains: Vec<String>,
    /// What this process does for them.
    pub role: Role,
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where HTTP/JSON and the docs are served.
    pub http_addr: SocketAddr,
    /// Where probes and metrics are served.
    pub admin_addr: SocketAddr,
    /// The filter of the log, in `tracing_subscriber`'s directives.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// How long a shutdown may take.
    pub shutdown_grace: Duration,
    /// Who may call.
    pub auth: Auth,
    /// Whether an unauthenticated gateway may listen beyond loopback.
    pub allow_open: bool,
    /// A larger record value, in bytes, is not parsed but dead-lettered.
    pub max_value_bytes: usize,
    /// For how many days of log time an event id is remembered.
    pub dedupe_days: u32,
    /// For how many days the bytes of a dead letter are kept.
    pub dead_letter_retention_days: u32,
    /// Whether keys and values go to the dead letter topic, too.
    pub dead_letter_topic_values: bool,
    /// Whether `serve` applies migrations first. A flag of that command, no setting.
    pub migrate: bool,
}

/// A value that is never shown as it is: a URL loses its password, anything else shows as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: for the one who connects with it, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value with its secret parts replaced by `***`.
    pub fn masked(&self) -> String {
        mask_url(&self.0).unwrap_or_else(|| "***".to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// Where a domain without progress begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record there is.
    Earliest,
    /// At the records that come from now on.
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
    /// Whether this process consumes the log.
    pub fn projects(self) -> bool {
        self != Role::Gateway
    }

    /// Whether this process answers reads.
    pub fn serves(self) -> bool {
        self != Role::Projector
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody who reaches the port.
    Off,
}

/// One line that says which setting is wrong, where it was given, and what would be right.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error of this one line.
    pub fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

/// One row of the table of settings; the flag and the variable follow from the key.
struct Setting {
    key: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    /// Whether the value may be given as a file, and never shows.
    secret: bool,
    help: &'static str,
}

const fn setting(
    key: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        value_name,
        default,
        secret: false,
        help,
    }
}

const fn secret(key: &'static str, value_name: &'static str, help: &'static str) -> Setting {
    Setting {
        key,
        value_name,
        default: None,
        secret: true,
        help,
    }
}

const SETTINGS: &[Setting] = &[
    secret(
        "database_url",
        "URL",
        "Postgres 15 or newer, perhaps behind PgBouncer in transaction mode",
    ),
    secret(
        "database_direct_url",
        "URL",
        "Postgres past the pooler, for projectors, migrations and LISTEN; the database URL where not given",
    ),
    setting(
        "database_max_connections",
        "NUMBER",
        Some("16"),
        "Connections for reads; the projectors have a pool of their own",
    ),
    setting(
        "kafka_brokers",
        "HOST:PORT,…",
        None,
        "Kafka's bootstrap servers",
    ),
    setting(
        "kafka_topics",
        "TOPIC,…",
        Some("user.events"),
        "Topics to project",
    ),
    setting(
        "kafka_group_prefix",
        "PREFIX",
        Some("sightline"),
        "Consumer groups are <prefix>.<domain>",
    ),
    setting(
        "kafka_start",
        "WHERE",
        Some("earliest"),
        "Where a domain without progress begins: earliest, latest or an RFC 3339 time",
    ),
    secret(
        "kafka_properties",
        "NAME=VALUE,…",
        "Any librdkafka property (SASL, TLS, tuning); in a file one a line",
    ),
    setting(
        "domains",
        "DOMAIN,…",
        Some("all"),
        "Domains that this process projects and serves",
    ),
    setting(
        "role",
        "ROLE",
        Some("all"),
        "all, projector (projects only) or gateway (serves only)",
    ),
    setting(
        "grpc_addr",
        "IP:PORT",
        Some("127.0.0.1:50051"),
        "gRPC; port 0 takes a free one",
    ),
    setting(
        "http_addr",
        "IP:PORT",
        Some("127.0.0.1:8080"),
        "HTTP/JSON and docs; port 0 takes a free one",
    ),
    setting(
        "admin_addr",
        "IP:PORT",
        Some("127.0.0.1:9090"),
        "Probes and metrics; port 0 takes a free one",
    ),
    setting(
        "log",
        "FILTER",
        Some("info"),
        "What is logged, for example info or info,sightline=debug",
    ),
    setting(
        "log_format",
        "FORMAT",
        None,
        "text or json; text where stderr is a terminal, else json",
    ),
    setting(
        "shutdown_grace",
        "SECONDS",
        Some("20"),
        "How long a shutdown may take",
    ),
    setting("auth", "MODE", Some("off"), "Who may call: off"),
    setting(
        "allow_open",
        "true|false",
        Some("false"),
        "true lets an unauthenticated gateway listen beyond loopback",
    ),
    setting(
        "max_value_bytes",
        "BYTES",
        Some("1048576"),
        "A larger record value is dead-lettered without being parsed",
    ),
    setting(
        "dedupe_days",
        "DAYS",
        Some("90"),
        "Days of log time for which an event id is remembered",
    ),
    setting(
        "dead_letter_retention_days",
        "DAYS",
        Some("30"),
        "Days for which the bytes of a dead letter are kept; the log may have them for longer",
    ),
    setting(
        "dead_letter_topic_values",
        "BOOL",
        Some("false"),
        "Whether keys and values go to the dead letter topic, beside coordinates and reason",
    ),
];

/// Properties that the program sets by itself: changing them would break what it promises.
const OWN_PROPERTIES: &[&str] = &[
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    // What is of an open transaction may yet be undone.
    "isolation.level",
    "metadata.broker.list",
    // Partitions are taken and given back one by one.
    "partition.assignment.strategy",
];

impl Setting {
    fn variable(&self) -> String {
        format!("SIGHTLINE_{}", self.key.to_uppercase())
    }
}

/// The keys of all settings, for a command that takes them all.
pub fn all_keys() -> Vec<&'static str> {
    SETTINGS.iter().map(|setting| setting.key).collect()
}

/// The command-line arguments of the settings with these keys, and `--config`.
pub fn args(keys: &[&str]) -> Vec<Arg> {
    let mut args = vec![
        argument("config", "SIGHTLINE_CONFIG".to_owned(), "FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file with any of the settings; its keys are the flags with _ for -"),
    ];
    for setting in SETTINGS.iter().filter(|s| keys.contains(&s.key)) {
        let default = match setting.default {
            Some(default) => format!("{} [default: {default}]", setting.help),
            None => setting.help.to_owned(),
        };
        let mut arg = argument(setting.key, setting.variable(), setting.value_name).help(default);
        if setting.value_name == "true|false" {
            arg = arg.num_args(0..=1).default_missing_value("true");
        }
        args.push(arg);
        if setting.secret {
            let variable = format!("{}_FILE", setting.variable());
            args.push(
                argument(file_key(setting.key), variable, "FILE")
                    .help(format!("File that holds the {}", flag(setting.key))),
            );
        }
    }
    args
}

/// Those of `names` that look like variables of this program and are none: mistyped, or of another release.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_setting = |name: &str, of_file: bool| {
        let mut settings = SETTINGS.iter().filter(|setting| !of_file || setting.secret);
        settings.any(|setting| setting.variable() == name)
    };
    let is_known = |name: &str| {
        name == "SIGHTLINE_CONFIG"
            // What the tests are told by.
            || name.starts_with("SIGHTLINE_TEST_")
            || is_setting(name, false)
            || name.strip_suffix("_FILE").is_some_and(|name| is_setting(name, true))
    };
    names
        .filter(|name| name.starts_with("SIGHTLINE_") && !is_known(name))
        .collect()
}

fn argument(key: &'static str, variable: String, value_name: &'static str) -> Arg {
    Arg::new(key)
        // These names live as long as the process: the command line is built once.
        .long(&*key.replace('_', "-").leak())
        .env(&*variable.leak())
        .hide_env_values(true)
        .value_name(value_name)
        .help_heading("Settings")
}

/// The key under which a secret's file is given.
fn file_key(key: &str) -> &'static str {
    match key {
        "database_url" => "database_url_file",
        "database_direct_url" => "database_direct_url_file",
        "kafka_properties" => "kafka_properties_file",
        _ => unreachable!("{key} is no secret"),
    }
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// A value as it was given, and where, for the error message.
struct Given {
    value: toml::Value,
    origin: String,
}

impl Given {
    fn error(&self, problem: impl fmt::Display) -> ConfigError {
        ConfigError(format!("{}: {problem}", self.origin))
    }

    /// The value as text; numbers and booleans as TOML writes them, lists joined by commas.
    fn text(&self) -> Result<String, ConfigError> {
        match &self.value {
            toml::Value::String(text) => Ok(text.clone()),
            toml::Value::Integer(number) => Ok(number.to_string()),
            toml::Value::Boolean(value) => Ok(value.to_string()),
            toml::Value::Datetime(time) => Ok(time.to_string()),
            toml::Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(|items| items.join(","))
                .ok_or_else(|| self.error("a list may hold strings only")),
            _ => Err(self.error("neither text, number, boolean nor a list of strings")),
        }
    }

    /// The comma-separated items, trimmed; at least one.
    fn list(&self) -> Result<Vec<String>, ConfigError> {
        let items: Vec<String> = self
            .text()?
            .split(',')
            .map(|item| item.trim().to_owned())
            .collect();
        if items.iter().any(String::is_empty) {
            return Err(self.error("an item of the list is empty"));
        }
        Ok(items)
    }

    fn number<T: FromStr + PartialOrd + fmt::Display>(
        &self,
        min: T,
        max: T,
    ) -> Result<T, ConfigError> {
        match self.text()?.parse() {
            Ok(number) if number >= min && number <= max => Ok(number),
            _ => Err(self.error(format_args!("must be a whole number from {min} to {max}"))),
        }
    }

    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text()?;
        choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.error(format_args!("{text:?} is none of {}", words.join(", ")))
            })
    }

    fn address(&self) -> Result<SocketAddr, ConfigError> {
        let text = self.text()?;
        text.parse().map_err(|_| {
            self.error(format_args!(
                "{text:?} is no IP address and port such as 127.0.0.1:8080"
            ))
        })
    }
}

/// What flags, variables and the file say, not yet checked.
pub struct Settings {
    given: HashMap<&'static str, Given>,
}

impl Settings {
    /// Gathers what was given to a command that has the [`args`] of these settings.
    ///
    /// # Errors
    /// A TOML file or a secret's file that cannot be read, a key that is no setting, a secret given twice.
    pub fn gather(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let file = match matches.get_one::<PathBuf>("config") {
            Some(path) if !path.as_os_str().is_empty() => read_toml(path)?,
            _ => HashMap::new(),
        };
        let mut layers = [HashMap::new(), HashMap::new(), file];
        for setting in SETTINGS {
            let mut keys = vec![(setting.key, setting.variable())];
            if setting.secret {
                keys.push((
                    file_key(setting.key),
                    format!("{}_FILE", setting.variable()),
                ));
            }
            for (key, variable) in keys {
                // A command takes some settings only; the others are no arguments of it.
                let Ok(Some(value)) = matches.try_get_one::<String>(key) else {
                    continue;
                };
                let (layer, origin) = match matches.value_source(key) {
                    Some(ValueSource::CommandLine) => (0, flag(key)),
                    _ => (1, variable),
                };
                if layer == 0 || !value.is_empty() {
                    let value = toml::Value::String(value.clone());
                    layers[layer].insert(key, Given { value, origin });
                }
            }
        }
        let mut given = HashMap::new();
        for layer in &mut layers {
            for setting in SETTINGS {
                let mut value = layer.remove(setting.key);
                if setting.secret
                    && let Some(file) = layer.remove(file_key(setting.key))
                {
                    if value.is_some() {
                        return Err(file.error(format_args!(
                            "{} is given too: give one of the two",
                            setting.key
                        )));
                    }
                    value = Some(read_secret(&file)?);
                }
                if let Some(value) = value {
                    given.entry(setting.key).or_insert(value);
                }
            }
        }
        Ok(Self { given })
    }

    /// Checks everything. `known_domains` is the program's list of domains; `required` are the keys without which
    /// the command is of no use (the others may then be missing).
    ///
    /// # Errors
    /// The first value that cannot be used, or is missing.
    pub fn load(&self, known_domains: &[&str], required: &[&str]) -> Result<Config, ConfigError> {
        for key in required {
            if !self.given.contains_key(key) {
                let setting = find(key);
                return Err(ConfigError(format!(
                    "{key} is missing: set {}{}, {} or {key} in the file that --config names",
                    setting.variable(),
                    if setting.secret { " (or …_FILE)" } else { "" },
                    flag(key),
                )));
            }
        }
        let database_url = self.database_url("database_url")?.unwrap_or_default();
        let config = Config {
            database_direct_url: self
                .database_url("database_direct_url")?
                .unwrap_or_else(|| database_url.clone()),
            database_url,
            database_max_connections: self.value("database_max_connections").number(1, 10_000)?,
            kafka_brokers: self.brokers()?,
            kafka_topics: self.topics()?,
            kafka_group_prefix: self.group_prefix()?,
            kafka_start: self.start()?,
            kafka_properties: self.properties()?,
            domains: self.domains(known_domains)?,
            role: self.value("role").choice(&[
                ("all", Role::All),
                ("projector", Role::Projector),
                ("gateway", Role::Gateway),
            ])?,
            grpc_addr: self.address("grpc_addr")?,
            http_addr: self.address("http_addr")?,
            admin_addr: self.address("admin_addr")?,
            log: self.log()?,
            log_format: self.log_format()?,
            shutdown_grace: Duration::from_secs(self.value("shutdown_grace").number(0, 3_600)?),
            auth: self.value("auth").choice(&[("off", Auth::Off)])?,
            allow_open: self
                .value("allow_open")
                .choice(&[("true", true), ("false", false)])?,
            max_value_bytes: self.value("max_value_bytes").number(1, 1 << 30)?,
            dedupe_days: self.value("dedupe_days").number(1, 36_500)?,
            dead_letter_retention_days: self
                .value("dead_letter_retention_days")
                .number(1, 36_500)?,
            dead_letter_topic_values: self
                .value("dead_letter_topic_values")
                .choice(&[("true", true), ("false", false)])?,
            migrate: true,
        };
        self.refuse_open(&config)?;
        Ok(config)
    }

    /// One of the three addresses, for a command that needs no more.
    ///
    /// # Errors
    /// Text that is no IP address and port.
    pub fn address(&self, key: &'static str) -> Result<SocketAddr, ConfigError> {
        self.value(key).address()
    }

    /// What was given, else the default.
    ///
    /// # Panics
    /// For a setting that has no default and was not given: those are looked up in `given`.
    fn value(&self, key: &'static str) -> Given {
        match self.given.get(key) {
            Some(given) => Given {
                value: given.value.clone(),
                origin: given.origin.clone(),
            },
            None => Given {
                value: toml::Value::String(find(key).default.expect("a default").to_owned()),
                origin: key.to_owned(),
            },
        }
    }

    fn database_url(&self, key: &'static str) -> Result<Option<Secret>, ConfigError> {
        let Some(given) = self.given.get(key) else {
            return Ok(None);
        };
        let url = given.text()?;
        let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
        if !scheme || sqlx::postgres::PgConnectOptions::from_str(&url).is_err() {
            return Err(
                given.error("no URL of the form postgres://user:password@host:5432/database")
            );
        }
        Ok(Some(Secret(url)))
    }

    fn brokers(&self) -> Result<String, ConfigError> {
        let Some(given) = self.given.get("kafka_brokers") else {
            return Ok(String::new());
        };
        let brokers = given.list()?;
        for broker in &brokers {
            let (host, port) = broker.rsplit_once(':').unwrap_or((broker, "9092"));
            if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
                return Err(given.error(format_args!("{broker:?} is not of the form host:port")));
            }
        }
        Ok(brokers.join(","))
    }

    fn topics(&self) -> Result<Vec<String>, ConfigError> {
        let given = self.value("kafka_topics");
        let mut topics = given.list()?;
        for topic in &topics {
            let legal = topic.len() <= 249
                && !matches!(topic.as_str(), "." | "..")
                && topic
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !legal {
                return Err(given.error(format_args!("{topic:?} is no name of a Kafka topic")));
            }
        }
        topics.sort();
        topics.dedup();
        Ok(topics)
    }

    fn group_prefix(&self) -> Result<String, ConfigError> {
        let given = self.value("kafka_group_prefix");
        let prefix = given.text()?;
        if prefix.is_empty() || prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(given.error("must not be empty or contain white space"));
        }
        Ok(prefix)
    }

    fn start(&self) -> Result<StartAt, ConfigError> {
        let given = self.value("kafka_start");
        match given.text()?.as_str() {
            "earliest" => Ok(StartAt::Earliest),
            "latest" => Ok(StartAt::Latest),
            text => DateTime::parse_from_rfc3339(text)
                .map(|time| StartAt::Time(time.to_utc()))
                .map_err(|_| {
                    given.error(format_args!(
                        "{text:?} is neither earliest, latest nor a time such as 2026-10-01T00:00:00Z"
                    ))
                }),
        }
    }

    /// librdkafka judges names and values; its message quotes the value, so ours is made of the name alone.
    fn properties(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let Some(given) = self.given.get("kafka_properties") else {
            return Ok(Vec::new());
        };
        let properties = match &given.value {
            toml::Value::Table(table) => table
                .iter()
                .map(|(name, value)| match value {
                    toml::Value::String(value) => Ok((name.clone(), value.clone())),
                    toml::Value::Integer(_) | toml::Value::Boolean(_) => {
                        Ok((name.clone(), value.to_string()))
                    }
                    _ => Err(given.error(format_args!("{name}: neither text, number nor boolean"))),
                })
                .collect::<Result<Vec<_>, _>>()?,
            toml::Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().and_then(split_property))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| given.error("a line or item is not of the form name=value"))?,
            _ => split_properties(&given.text()?)
                .ok_or_else(|| given.error("not of the form name=value,name=value"))?,
        };
        for (name, value) in &properties {
            if OWN_PROPERTIES.contains(&name.as_str()) {
                return Err(given.error(format_args!("{name} is set by sightline itself")));
            }
            let judged = rdkafka::ClientConfig::new()
                .set(name, value)
                .create_native_config();
            if let Err(error) = judged {
                use rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
                return Err(given.error(match error {
                    rdkafka::error::KafkaError::ClientConfig(RD_KAFKA_CONF_UNKNOWN, ..) => {
                        format!("librdkafka knows no property {name:?}")
                    }
                    _ => format!(
                        "librdkafka refuses the value of {name:?} (or was built without it)"
                    ),
                }));
            }
        }
        Ok(properties)
    }

    fn domains(&self, known: &[&str]) -> Result<Vec<String>, ConfigError> {
        let given = self.value("domains");
        let wanted = given.list()?;
        let all = wanted == ["all"];
        if let Some(unknown) = wanted
            .iter()
            .find(|name| !all && !known.contains(&name.as_str()))
        {
            return Err(given.error(format_args!(
                "{unknown:?} is no domain; there are {}",
                known.join(", ")
            )));
        }
        Ok(known
            .iter()
            .filter(|name| all || wanted.iter().any(|wanted| wanted == *name))
            .map(|name| (*name).to_owned())
            .collect())
    }

    fn log(&self) -> Result<String, ConfigError> {
        let given = self.value("log");
        let filter = given.text()?;
        if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
            return Err(given.error(format_args!(
                "{filter:?} is no filter such as info,sightline=debug"
            )));
        }
        Ok(filter)
    }

    fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.given.get("log_format") {
            Some(given) => given.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            None if std::io::stderr().is_terminal() => Ok(LogFormat::Text),
            None => Ok(LogFormat::Json),
        }
    }

    /// Without authentication nobody but this machine may read: the views hold personal data.
    fn refuse_open(&self, config: &Config) -> Result<(), ConfigError> {
        let Auth::Off = config.auth;
        if config.allow_open || !config.role.serves() {
            return Ok(());
        }
        for (key, address) in [
            ("grpc_addr", config.grpc_addr),
            ("http_addr", config.http_addr),
        ] {
            if !address.ip().to_canonical().is_loopback() {
                return Err(self.value(key).error(format_args!(
                    "{address} is reachable from other machines and nobody is authenticated: bind to {}, \
                     or set SIGHTLINE_ALLOW_OPEN=true where the network itself is trusted",
                    SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port())
                )));
            }
        }
        Ok(())
    }
}

fn find(key: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.key == key)
        .expect("a setting of the table")
}

fn read_toml(path: &Path) -> Result<HashMap<&'static str, Given>, ConfigError> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("{name}: cannot be read: {}", error.kind())))?;
    // The library's message would quote the line, which may hold a password.
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count())
            + 1;
        ConfigError(format!("{name}: not TOML in line {line}"))
    })?;
    let mut values = HashMap::new();
    for (key, value) in table {
        let known = SETTINGS.iter().find_map(|setting| match setting {
            Setting { key: own, .. } if **own == key => Some(*own),
            Setting {
                key: own,
                secret: true,
                ..
            } if file_key(own) == key => Some(file_key(own)),
            _ => None,
        });
        let Some(known) = known else {
            return Err(ConfigError(format!(
                "{name}: {key:?} is no setting; --help lists them"
            )));
        };
        let origin = format!("{key} in {name}");
        values.insert(known, Given { value, origin });
    }
    Ok(values)
}

/// A secret's file as the list of its lines, of which a URL has one and properties any number.
fn read_secret(file: &Given) -> Result<Given, ConfigError> {
    let path = file.text()?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| file.error(format_args!("{path} cannot be read: {}", error.kind())))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Given {
        value: lines.collect::<Vec<_>>().into(),
        origin: file.origin.clone(),
    })
}

fn split_property(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// `name=value,…`: a comma that no `name=` follows belongs to the value before it.
fn split_properties(text: &str) -> Option<Vec<(String, String)>> {
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

/// A URL whose password, in the authority or in the query, reads `***`; none where the text is no URL.
fn mask_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (base, query) = match rest.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (rest, None),
    };
    // The last @: a password that was not percent-encoded may hold one, or a slash.
    let base = match base.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("{user}@{host}"),
        },
        None => base.to_owned(),
    };
    let query = query.map(|query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}=***"),
            _ => pair.to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    Some(format!("{scheme}://{base}{}", query.unwrap_or_default()))
}

fn is_secret(name: &str) -> bool {
    [
        "password",
        "secret",
        "key.pem",
        "token",
        "oauthbearer.config",
        "jaas",
    ]
    .iter()
    .any(|part| name.to_ascii_lowercase().contains(part))
}

impl Config {
    /// The effective configuration as a TOML file, with secrets masked.
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
        put(
            "database_max_connections",
            self.database_max_connections.into(),
        );
        put("kafka_brokers", self.kafka_brokers.as_str().into());
        put("kafka_topics", list(&self.kafka_topics).into());
        put(
            "kafka_group_prefix",
            self.kafka_group_prefix.as_str().into(),
        );
        put("kafka_start", self.kafka_start.to_string().into());
        let properties = self.kafka_properties.iter().map(|(name, value)| {
            let value = if is_secret(name) { "***" } else { value };
            (name.clone(), toml::Value::from(value))
        });
        put(
            "kafka_properties",
            properties.collect::<toml::Table>().into(),
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
    }

    #[test]
    fn a_mistyped_variable_is_noticed() {
        let names = [
            "PATH",
            "SIGHTLINE_KAFKA_BROKER",
            "SIGHTLINE_KAFKA_BROKERS",
            "SIGHTLINE_DATABASE_URL_FILE",
            "SIGHTLINE_HTTP_ADDR_FILE",
            "SIGHTLINE_CONFIG",
        ];
        let unknown = unknown_variables(names.into_iter().map(String::from));
        assert_eq!(
            unknown,
            ["SIGHTLINE_KAFKA_BROKER", "SIGHTLINE_HTTP_ADDR_FILE"]
        );
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
            (vec!["--auth", "jwt"], "none of off"),
            (vec!["--log", "a=b=c"], "--log"),
            (vec!["--kafka-properties", "no.such=1"], "knows no property"),
            (vec!["--kafka-properties", "group.id=x"], "set by sightline"),
            (vec!["--kafka-properties", "=x"], "name=value"),
        ] {
            let message = error(&flags);
            assert!(message.contains(wanted), "{message}");
        }
        let unknown = file("kafka_topic = 'a'");
        let message = error(&["--config", unknown.path().to_str().unwrap()]);
        assert!(
            message.contains("\"kafka_topic\" is no setting"),
            "{message}"
        );
    }

    #[test]
    fn tls_for_kafka_comes_with_its_feature_and_is_refused_without() {
        let secured = "security.protocol=sasl_ssl,sasl.mechanism=SCRAM-SHA-512,sasl.username=u,sasl.password=p";
        let flags = ["--kafka-properties", secured];
        if cfg!(feature = "tls") {
            let mut kafka = rdkafka::ClientConfig::new();
            kafka.extend(load(&flags).unwrap().kafka_properties);
            // Makes the TLS context, with the authorities that the machine trusts.
            kafka.create::<rdkafka::consumer::BaseConsumer>().unwrap();
        } else {
            let message = error(&flags);
            assert!(message.contains("\"security.protocol\""), "{message}");
        }
    }

    #[test]
    fn listening_beyond_loopback_without_authentication_is_refused() {
        let message = error(&["--http-addr", "0.0.0.0:8080"]);
        assert!(message.contains("SIGHTLINE_ALLOW_OPEN"), "{message}");
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
        assert!(error(&both).contains("one of the two"));
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
        ];
        let printed = load(&flags).unwrap().to_toml();
        let toml = file(&printed);
        let again = load(&["--config", toml.path().to_str().unwrap()]).unwrap();
        assert_eq!(again.to_toml(), printed);
    }
}
