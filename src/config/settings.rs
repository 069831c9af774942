//! The table of settings, and the command-line arguments made from it.

use std::ffi::OsString;
use std::fmt;
use std::iter;

use clap::Arg;

/// One row of the table of settings. The flag and the variable follow from the key.
pub(super) struct Setting {
    /// The key in the TOML file.
    pub key: &'static str,
    value_name: &'static str,
    pub default: Option<&'static str>,
    /// The key of the file that holds the value; only secrets have one.
    pub file_key: Option<&'static str>,
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
        file_key: None,
        help,
    }
}

const fn secret(
    key: &'static str,
    file_key: &'static str,
    value_name: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        value_name,
        default: None,
        file_key: Some(file_key),
        help,
    }
}

pub(super) const SETTINGS: &[Setting] = &[
    secret(
        "database_url",
        "database_url_file",
        "URL",
        "Postgres 15 or newer, perhaps behind PgBouncer in transaction mode",
    ),
    secret(
        "database_direct_url",
        "database_direct_url_file",
        "URL",
        "Postgres without the pooler, for projectors, operations and migrations; defaults to the database URL",
    ),
    secret(
        "database_read_urls",
        "database_read_urls_file",
        "URL,…",
        "Read replicas of the database: reads go there when they are fresh enough",
    ),
    setting(
        "database_max_connections",
        "NUMBER",
        Some("16"),
        "Connections for reads; projectors have pools of their own",
    ),
    setting(
        "database_transactions",
        "NUMBER",
        Some("2"),
        "Transactions of projectors that run at once: about as many as the database has processors",
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
        "kafka_properties_file",
        "NAME=VALUE,…",
        "Further librdkafka properties (SASL, TLS, tuning); in a file, one per line",
    ),
    setting(
        "kafka_settle_seconds",
        "SECONDS",
        Some("600"),
        "How long after a partition was added the older ones' log end offsets are read, up to which it waits for them",
    ),
    setting(
        "kafka_buffer_bytes",
        "BYTES",
        Some("67108864"),
        "What this process may hold of records that wait, of all domains and versions together",
    ),
    setting(
        "domains",
        "DOMAIN,…",
        Some("all"),
        "Domains that this process projects and serves, or all",
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
        "Address of gRPC; port 0 takes a free port",
    ),
    setting(
        "http_addr",
        "IP:PORT",
        Some("127.0.0.1:8080"),
        "Address of HTTP/JSON and the docs; port 0 takes a free port",
    ),
    setting(
        "admin_addr",
        "IP:PORT",
        Some("127.0.0.1:9090"),
        "Address of probes and metrics; port 0 takes a free port",
    ),
    setting(
        "log",
        "FILTER",
        Some("info"),
        "Filter of the log, for example info or info,sightline=debug",
    ),
    setting(
        "log_format",
        "FORMAT",
        None,
        "text or json; defaults to text where stderr is a terminal, else json",
    ),
    setting(
        "shutdown_grace",
        "SECONDS",
        Some("20"),
        "Longest time that a shutdown may take",
    ),
    setting(
        "auth",
        "MODE",
        Some("off"),
        "How callers are authenticated; must be off",
    ),
    setting(
        "allow_open",
        OPTIONAL_BOOLEAN,
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
        "Days of stream time for which an event id is remembered",
    ),
    setting(
        "dead_letter_retention_days",
        "DAYS",
        Some("30"),
        "Days for which the bytes of a dead letter are kept; Kafka may keep them longer",
    ),
    setting(
        "dead_letter_topic_values",
        "BOOL",
        Some("false"),
        "Whether keys and values go to the dead letter topic, in addition to coordinates and reason",
    ),
    setting(
        "notification_max_attempts",
        "NUMBER",
        Some("5"),
        "How often a notification is tried to be sent before it counts as failed",
    ),
    setting(
        "notification_backoff_seconds",
        "SECONDS",
        Some("30"),
        "Pause after a notification's first failed attempt; it doubles with each, up to an hour",
    ),
    setting(
        "notification_expiry_welcome_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event a welcome may still be sent",
    ),
    setting(
        "notification_expiry_email_verification_seconds",
        "SECONDS",
        Some("86400"),
        "How long after the event a request to verify an email may still be sent",
    ),
    setting(
        "notification_expiry_email_verified_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event the news that an email was verified may still be sent",
    ),
    setting(
        "notification_expiry_password_changed_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event the news of a changed password may still be sent",
    ),
    setting(
        "notification_expiry_password_reset_seconds",
        "SECONDS",
        Some("3600"),
        "How long after the event a link to reset a password may still be sent",
    ),
    setting(
        "notification_expiry_mfa_enabled_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event the news that a second factor was enabled may still be sent",
    ),
    setting(
        "notification_expiry_mfa_disabled_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event the news that a second factor was disabled may still be sent",
    ),
    setting(
        "notification_expiry_account_suspended_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event the news of a suspended account may still be sent",
    ),
    setting(
        "notification_expiry_account_reactivated_seconds",
        "SECONDS",
        Some("604800"),
        "How long after the event the news of a reactivated account may still be sent",
    ),
    secret(
        "audit_key",
        "audit_key_file",
        "KEY",
        "Key of the audit log's chains, at least 16 characters; without one, whoever can write to the database can forge them",
    ),
    setting(
        "audit_soft_retention_days",
        "DAYS",
        Some("365"),
        "How long after a soft deletion the audit log keeps the user's addresses, user agents and changed values",
    ),
    setting(
        "alert_brute_force_count",
        "NUMBER",
        Some("5"),
        "Failed logins for one account that make an alert",
    ),
    setting(
        "alert_brute_force_window_seconds",
        "SECONDS",
        Some("300"),
        "The window in which these are counted",
    ),
    setting(
        "alert_credential_stuffing_count",
        "NUMBER",
        Some("10"),
        "Accounts for which logins from one IP address fail that make an alert",
    ),
    setting(
        "alert_credential_stuffing_window_seconds",
        "SECONDS",
        Some("300"),
        "The window in which these are counted",
    ),
    setting(
        "alert_mfa_fatigue_count",
        "NUMBER",
        Some("3"),
        "Refused second factors of one user that make an alert",
    ),
    setting(
        "alert_mfa_fatigue_window_seconds",
        "SECONDS",
        Some("300"),
        "The window in which these are counted",
    ),
];

/// The value name of a boolean setting whose flag may stand without a value, which then means true.
const OPTIONAL_BOOLEAN: &str = "true|false";

impl Setting {
    /// What its value counts, if it is a number: ` of seconds`.
    pub(super) fn unit(&self) -> &'static str {
        match self.value_name {
            "SECONDS" => " of seconds",
            "BYTES" => " of bytes",
            "DAYS" => " of days",
            _ => "",
        }
    }

    /// The key and, of a secret, the key of its file.
    fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        iter::once(self.key).chain(self.file_key)
    }
}

/// The templates of notifications that may be sent for a time, each with its key.
pub(super) fn expiry_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS.iter().filter_map(|setting| {
        let template = setting.key.strip_prefix("notification_expiry_")?;
        Some((template.strip_suffix("_seconds")?, setting.key))
    })
}

/// The row with this key.
pub(super) fn find(key: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.key == key)
        .expect("a setting of the table")
}

/// The keys of all values, files of secrets included.
pub(super) fn value_keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().flat_map(Setting::keys)
}

/// The flag of a key: `--http-addr` of `http_addr`.
pub(super) fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// The environment variable of a key: `SIGHTLINE_HTTP_ADDR` of `http_addr`.
pub(super) fn variable(key: &str) -> String {
    format!("SIGHTLINE_{}", key.to_uppercase())
}

/// The keys of all settings, for a command that takes them all.
pub fn all_keys() -> Vec<&'static str> {
    SETTINGS.iter().map(|setting| setting.key).collect()
}

/// The command-line arguments of the settings with these keys, and `--config`.
pub fn args(keys: &[&str]) -> Vec<Arg> {
    let mut args = vec![
        argument("config", "FILE")
            // A path that may be empty: as of other settings, an empty variable counts as unset.
            .value_parser(clap::value_parser!(OsString))
            .help("TOML file with any of the settings; its keys are the flags with _ for -. Variables override it, and flags both"),
    ];
    for setting in SETTINGS.iter().filter(|s| keys.contains(&s.key)) {
        let help = match setting.default {
            Some(default) => format!("{} [default: {default}]", setting.help),
            None => setting.help.to_owned(),
        };
        let mut arg = argument(setting.key, setting.value_name).help(help);
        if setting.value_name == OPTIONAL_BOOLEAN {
            arg = arg.num_args(0..=1).default_missing_value("true");
        }
        args.push(arg);
        if let Some(file_key) = setting.file_key {
            args.push(
                argument(file_key, "FILE")
                    .help(format!("File that holds the {}", flag(setting.key))),
            );
        }
    }
    args
}

fn argument(key: &'static str, value_name: &'static str) -> Arg {
    Arg::new(key)
        // clap borrows these names for the life of the process, which builds its command line once.
        .long(&*key.replace('_', "-").leak())
        .env(&*variable(key).leak())
        .hide_env_values(true)
        .value_name(value_name)
        .help_heading("Settings")
}

/// An environment variable that begins as this program's do but belongs to no setting: mistyped, of another release, or of
/// another program. It is ignored.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable with the most similar name, if one is similar.
    pub similar: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, similar } = self;
        write!(f, "{name} is not a setting and is ignored")?;
        match similar {
            Some(similar) => write!(f, "; did you mean {similar}?"),
            None => Ok(()),
        }
    }
}

/// The unknown variables of the process's environment.
pub fn unknown_variables() -> Vec<UnknownVariable> {
    unknown_among(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// The unknown variables among these names, sorted.
pub(super) fn unknown_among(names: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
    let is_known = |key: &str| {
        // The tests read some of their own.
        key == "CONFIG" || key.starts_with("TEST_") || value_keys().any(|k| k.to_uppercase() == key)
    };
    let mut unknown: Vec<_> = names
        .filter_map(|name| {
            let key = name
                .strip_prefix("SIGHTLINE_")
                .filter(|key| !is_known(key))?;
            let keys = value_keys().chain(["config"]);
            let similar = similar_key(&key.to_lowercase(), keys).map(variable);
            Some(UnknownVariable { name, similar })
        })
        .collect();
    unknown.sort_by(|a, b| a.name.cmp(&b.name));
    unknown
}

/// The one of `keys` that is most similar to one that is not a key, if half of their letters or words are the same.
pub(super) fn similar_key(
    unknown: &str,
    keys: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    let similarity = |key: &str| {
        let by_letters = strsim::normalized_damerau_levenshtein(unknown, key);
        let common = unknown
            .split('_')
            .filter(|word| key.split('_').any(|w| w == *word));
        let words = unknown.split('_').count() + key.split('_').count();
        // Of so few words f64 is exact.
        #[allow(clippy::cast_precision_loss)]
        let by_words = 2.0 * common.count() as f64 / words as f64;
        by_letters.max(by_words)
    };
    keys.map(|key| (similarity(key), key))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| key)
}
