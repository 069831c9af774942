//! Collects what flags, variables and the file give, by precedence, and checks every value.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::given::{Given, why_unreadable};
use super::settings::{self, SETTINGS};
use super::{AlertThreshold, Auth, Config, ConfigError, LogFormat, Role, Secret, kafka, secret};

/// A shorter key of the audit log could be guessed.
const MIN_AUDIT_KEY_BYTES: usize = 16;

/// Values by key.
type Values = HashMap<&'static str, Given>;

/// What flags, variables and the file give, not yet checked.
pub struct Settings {
    given: Values,
}

impl Settings {
    /// Collects what was given to a command that has the arguments of [`settings::args`].
    ///
    /// # Errors
    /// The TOML file or a secret's file can't be read, a key is not a setting, or a secret is given
    /// twice.
    pub fn gather(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let (mut flags, mut variables) = (Values::new(), Values::new());
        for key in settings::value_keys() {
            // A command takes some settings only. clap returns an error for the others.
            let Ok(Some(value)) = matches.try_get_one::<String>(key) else {
                continue;
            };
            let given = |origin| Given {
                value: toml::Value::String(value.clone()),
                origin,
            };
            if matches.value_source(key) == Some(ValueSource::CommandLine) {
                flags.insert(key, given(settings::flag(key)));
            } else if !value.is_empty() {
                variables.insert(key, given(settings::variable(key)));
            }
        }
        let file = match matches.get_one::<OsString>("config") {
            Some(path) if !path.is_empty() => read_toml(Path::new(path))?,
            Some(_) if matches.value_source("config") == Some(ValueSource::CommandLine) => {
                return Err(ConfigError::new("--config: must name a file"));
            }
            _ => Values::new(),
        };
        let mut given = Values::new();
        for mut layer in [flags, variables, file] {
            for setting in SETTINGS {
                let mut value = layer.remove(setting.key);
                if let Some(file) = setting.file_key.and_then(|key| layer.remove(key)) {
                    if let Some(value) = value {
                        return Err(file.error(format_args!(
                            "{} is also given: give one of the two",
                            value.origin
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

    /// Checks every value. `known_domains` are the domains of the program. `required` are the keys
    /// that the command needs; the others may be missing.
    ///
    /// # Errors
    /// The values that are missing, or the first that can't be used.
    pub fn load(&self, known_domains: &[&str], required: &[&str]) -> Result<Config, ConfigError> {
        let absent: Vec<_> = required
            .iter()
            .filter(|key| !self.given.contains_key(*key))
            .collect();
        if !absent.is_empty() {
            let problems: Vec<_> = absent.into_iter().map(|key| missing(key)).collect();
            return Err(ConfigError::new(problems.join("; ")));
        }
        let database_url = self.database_url("database_url")?.unwrap_or_default();
        let config = Config {
            database_direct_url: self
                .database_url("database_direct_url")?
                .unwrap_or_else(|| database_url.clone()),
            database_url,
            database_read_urls: self.database_read_urls()?,
            database_max_connections: self.number("database_max_connections", 1, 10_000)?,
            database_transactions: self.number("database_transactions", 1, 1_000)?,
            kafka_brokers: match self.given.get("kafka_brokers") {
                Some(given) => kafka::brokers(given)?,
                None => String::new(),
            },
            kafka_topics: kafka::topics(&self.value("kafka_topics"))?,
            kafka_group_prefix: kafka::group_prefix(&self.value("kafka_group_prefix"))?,
            kafka_start: kafka::start(&self.value("kafka_start"))?,
            kafka_properties: match self.given.get("kafka_properties") {
                Some(given) => kafka::properties(given)?,
                None => Vec::new(),
            },
            kafka_settle: Duration::from_secs(self.number("kafka_settle_seconds", 0, 86_400)?),
            kafka_buffer_bytes: self.number("kafka_buffer_bytes", 1 << 20, 1 << 40)?,
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
            shutdown_grace: Duration::from_secs(self.number("shutdown_grace", 0, 3_600)?),
            auth: self.value("auth").choice(&[("off", Auth::Off)])?,
            allow_open: self.boolean("allow_open")?,
            max_value_bytes: self.number("max_value_bytes", 1, 1 << 30)?,
            dedupe_days: self.number("dedupe_days", 1, 36_500)?,
            dead_letter_retention_days: self.number("dead_letter_retention_days", 1, 36_500)?,
            dead_letter_topic_values: self.boolean("dead_letter_topic_values")?,
            notification_max_attempts: self.number("notification_max_attempts", 1, 100)?,
            notification_backoff: Duration::from_secs(self.number(
                "notification_backoff_seconds",
                1,
                3_600,
            )?),
            notification_expiry_seconds: settings::expiry_keys()
                .map(|(template, key)| Ok((template, self.number(key, 1, 31_622_400)?)))
                .collect::<Result<_, _>>()?,
            audit_key: self.audit_key()?,
            audit_soft_retention_days: self.number("audit_soft_retention_days", 0, 36_500)?,
            alert_brute_force: self.threshold(
                "alert_brute_force_count",
                "alert_brute_force_window_seconds",
            )?,
            alert_credential_stuffing: self.threshold(
                "alert_credential_stuffing_count",
                "alert_credential_stuffing_window_seconds",
            )?,
            alert_mfa_fatigue: self.threshold(
                "alert_mfa_fatigue_count",
                "alert_mfa_fatigue_window_seconds",
            )?,
            migrate: true,
            origins: self
                .given
                .iter()
                .map(|(key, given)| (*key, given.origin.clone()))
                .collect(),
        };
        self.refuse_open(&config)?;
        self.refuse_one_port_twice(&config)?;
        Ok(config)
    }

    /// The error for a setting whose value is of no use, for a reason that only the caller knows. It names what the user used.
    pub fn error(&self, key: &'static str, problem: impl fmt::Display) -> ConfigError {
        match self.given.get(key) {
            Some(given) => given.error(problem),
            None => ConfigError::new(format!("{key}: {problem}")),
        }
    }

    /// One of the three addresses, for a command that needs no other setting.
    ///
    /// # Errors
    /// The value is not an IP address and port.
    pub fn address(&self, key: &'static str) -> Result<SocketAddr, ConfigError> {
        self.value(key).address()
    }

    /// The given value, else the default.
    ///
    /// # Panics
    /// The setting has no default and was not given. Such settings are read from `given`.
    fn value(&self, key: &'static str) -> Given {
        self.given.get(key).cloned().unwrap_or_else(|| {
            let default = settings::find(key).default.expect("a default");
            Given {
                value: toml::Value::String(default.to_owned()),
                origin: key.to_owned(),
            }
        })
    }

    fn number<T>(&self, key: &'static str, min: T, max: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        self.value(key).number(settings::find(key).unit(), min, max)
    }

    fn boolean(&self, key: &'static str) -> Result<bool, ConfigError> {
        self.value(key).choice(&[("true", true), ("false", false)])
    }

    fn database_url(&self, key: &'static str) -> Result<Option<Secret>, ConfigError> {
        let Some(given) = self.given.get(key) else {
            return Ok(None);
        };
        let url = given.text()?;
        secret::check_database_url(&url).map_err(|problem| given.error(problem))?;
        Ok(Some(Secret::new(url)))
    }

    fn database_read_urls(&self) -> Result<Vec<Secret>, ConfigError> {
        let Some(given) = self.given.get("database_read_urls") else {
            return Ok(Vec::new());
        };
        let urls = given.list()?.into_iter().map(|url| {
            secret::check_database_url(&url).map_err(|problem| given.error(problem))?;
            Ok(Secret::new(url))
        });
        urls.collect()
    }

    fn audit_key(&self) -> Result<Option<Secret>, ConfigError> {
        let Some(given) = self.given.get("audit_key") else {
            return Ok(None);
        };
        let key = given.text()?;
        if key.len() < MIN_AUDIT_KEY_BYTES {
            return Err(given.error(format_args!(
                "must have at least {MIN_AUDIT_KEY_BYTES} characters, such as those of openssl rand -hex 32"
            )));
        }
        Ok(Some(Secret::new(key)))
    }

    fn threshold(
        &self,
        count: &'static str,
        window_seconds: &'static str,
    ) -> Result<AlertThreshold, ConfigError> {
        Ok(AlertThreshold {
            count: self.number(count, 1, 1_000_000)?,
            window_seconds: self.number(window_seconds, 1, 86_400)?,
        })
    }

    fn domains(&self, known: &[&str]) -> Result<Vec<String>, ConfigError> {
        let given = self.value("domains");
        let wanted = given.list()?;
        let all = wanted == ["all"];
        if !all && wanted.iter().any(|name| name == "all") {
            return Err(given.error("all stands alone, or leave it out and name domains"));
        }
        let unknown = wanted.iter().find(|name| !known.contains(&name.as_str()));
        if let Some(unknown) = unknown.filter(|_| !all) {
            return Err(given.error(format_args!(
                "{unknown:?} is not a domain; the domains are {}",
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
        // `EnvFilter` takes a word that is not a level for a module's name. No module has it, so nothing would be logged.
        let is_level = |word: &str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
        let mut words = filter.split(',').map(str::trim);
        if let Some(word) = words.find(|word| !word.contains(['=', '[']) && !is_level(word)) {
            return Err(given.error(format_args!(
                "{word:?} is not a level: off, error, warn, info, debug or trace, or one for a module, such as sightline=debug"
            )));
        }
        if EnvFilter::try_new(&filter).is_err() {
            return Err(given.error(format_args!(
                "{filter:?} is not a filter such as info,sightline=debug"
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

    /// Refuses to serve other machines without authentication, because the views hold personal
    /// data.
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
                let given = self.value(key);
                let open = match given.origin.starts_with("--") {
                    true => format!("give {}", settings::flag("allow_open")),
                    false => format!("set {}=true", settings::variable("allow_open")),
                };
                return Err(given.error(format_args!(
                    "{address} is reachable from other machines and callers are not authenticated: bind to {}, \
                     or {open} where the network is trusted",
                    SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port())
                )));
            }
        }
        Ok(())
    }

    /// Refuses two addresses of which only one can be bound.
    fn refuse_one_port_twice(&self, config: &Config) -> Result<(), ConfigError> {
        let mut bound = vec![("admin_addr", config.admin_addr)];
        if config.role.serves() {
            bound.extend([
                ("grpc_addr", config.grpc_addr),
                ("http_addr", config.http_addr),
            ]);
        }
        for (n, (key, address)) in bound.iter().enumerate() {
            let other = bound[..n]
                .iter()
                .find(|(_, other)| are_the_same(*address, *other));
            let Some((other, _)) = other else { continue };
            // The error begins with the one that can be changed where it was given.
            let (key, other) = match self.given.contains_key(key) {
                true => (key, other),
                false => (other, key),
            };
            return Err(self.value(key).error(format_args!(
                "port {} is also that of {}: give each its own (port 0 takes a free port)",
                address.port(),
                self.value(other).origin
            )));
        }
        Ok(())
    }
}

/// Whether a process that listens on one of these addresses can't listen on the other.
fn are_the_same(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let overlap = ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

fn missing(key: &str) -> String {
    let file = match settings::find(key).file_key {
        Some(_) => " (or …_FILE)",
        None => "",
    };
    format!(
        "{key} is missing: set {}{file}, {} or {key} in the file that --config names",
        settings::variable(key),
        settings::flag(key),
    )
}

fn read_toml(path: &Path) -> Result<Values, ConfigError> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError::new(format!("{name}: can't be read: {}", why_unreadable(&error)))
    })?;
    // The library's message would quote the line, which may hold a password.
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count())
            + 1;
        ConfigError::new(format!("{name}: not valid TOML in line {line}"))
    })?;
    let mut values = Values::new();
    for (key, value) in table {
        let Some(known) = settings::value_keys().find(|known| *known == key) else {
            let hint = match settings::similar_key(&key, settings::value_keys()) {
                Some(similar) => format!("did you mean {similar}?"),
                None => "--help lists them".to_owned(),
            };
            return Err(ConfigError::new(format!(
                "{name}: {key:?} is not a setting; {hint}"
            )));
        };
        let origin = format!("{key} in {name}");
        values.insert(known, Given { value, origin });
    }
    Ok(values)
}

/// Reads a secret's file as a list of its lines, without empty ones and comments. A URL has one
/// line, properties have any number.
fn read_secret(file: &Given) -> Result<Given, ConfigError> {
    let path = file.text()?;
    let text = std::fs::read_to_string(&path).map_err(|error| {
        // Where the secret itself was given in place of its file, it isn't printed.
        let is_path = !path.contains(['=', '@', ':']);
        let name = if is_path { &path } else { "the file" };
        file.error(format_args!(
            "{name} can't be read: {}",
            why_unreadable(&error)
        ))
    })?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Given {
        value: lines.collect::<Vec<_>>().into(),
        origin: file.origin.clone(),
    })
}
