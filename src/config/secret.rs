//! Values that never show as they are: not in an error, in `Debug` or in the printed configuration.

use std::fmt;
use std::fs::File;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::given::why_unreadable;

/// A value that shows masked: a URL without its password, anything else as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, to connect with. It must not be logged.
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

/// The parameters of a database URL that `PgConnectOptions` reads, and how their values are printed.
const URL_PARAMETERS: &[(&str, Shown)] = &[
    ("application_name", Shown::Plain),
    ("dbname", Shown::Plain),
    ("host", Shown::Plain),
    ("hostaddr", Shown::Plain),
    // May set a parameter of an extension, to anything.
    ("options", Shown::Masked),
    ("password", Shown::Masked),
    ("port", Shown::Plain),
    ("ssl-ca", Shown::Plain),
    // A file, or the certificate itself and perhaps its key.
    ("ssl-cert", Shown::Masked),
    ("ssl-key", Shown::Masked),
    ("ssl-mode", Shown::Plain),
    ("ssl-root-cert", Shown::Plain),
    ("sslcert", Shown::Masked),
    ("sslkey", Shown::Masked),
    ("sslmode", Shown::Plain),
    ("sslrootcert", Shown::Plain),
    ("statement-cache-capacity", Shown::Plain),
    ("user", Shown::Plain),
];

/// How the value of a known parameter is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Plain,
    Masked,
}

/// Parameters that name a file, which is read for each connection. A certificate may also be the
/// value itself.
const FILE_PARAMETERS: &[&str] = &[
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslrootcert",
];

/// The values of `sslmode` and `ssl-mode`.
const SSL_MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Checks a database URL before the library parses it, which would log unknown parameters with
/// their values. The error names a parameter and never a value.
pub(super) fn check_database_url(text: &str) -> Result<(), String> {
    let form = || {
        "must be a URL of the form postgres://user:password@host:5432/database, in which other characters than letters, digits, \
            -, . and _ of user and password are percent-encoded".to_owned()
    };
    let url = Url::parse(text).map_err(|_| form())?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(form());
    }
    if url.fragment().is_some() {
        return Err("a # must be percent-encoded, as %23".to_owned());
    }
    for (name, value) in url.query_pairs() {
        let known = URL_PARAMETERS.iter().any(|(known, _)| *known == name)
            || (name.starts_with("options[") && name.ends_with(']'));
        if !known {
            return Err(unknown_parameter(&url, &name));
        }
        if matches!(&*name, "sslmode" | "ssl-mode")
            && !SSL_MODES.contains(&&*value.to_ascii_lowercase())
        {
            return Err(format!("{name} must be one of: {}", SSL_MODES.join(", ")));
        }
        if &*name == "port" && value.parse::<u16>().is_err() {
            return Err(format!("{name} must be a whole number up to 65535"));
        }
        if FILE_PARAMETERS.contains(&&*name)
            && !value
                .trim_start()
                .starts_with("-----BEGIN CERTIFICATE-----")
            && let Err(error) = File::open(&*value)
        {
            return Err(format!(
                "the file of {name} can't be read: {}",
                why_unreadable(&error)
            ));
        }
    }
    if PgConnectOptions::from_str(text).is_err() {
        return Err(form());
    }
    Ok(())
}

/// Names the parameter, unless it may be a part of a password that holds a question mark: then the
/// user's `@` comes after it.
fn unknown_parameter(url: &Url, name: &str) -> String {
    let has_user = !url.username().is_empty();
    let rest_has_user = url.query().is_some_and(|query| query.contains('@'));
    let is_name = name.len() <= 40
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.[]".contains(&b));
    if is_name && (has_user || !rest_has_user) {
        format!("{name:?} is not a parameter of a database URL")
    } else {
        "has an unknown parameter; a ? in a password must be percent-encoded, as %3F".to_owned()
    }
}

/// The URL with `***` for its password and for every parameter that is not known to be harmless.
/// `None` where the text is not a URL.
fn mask_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (base, query) = match rest.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (rest, None),
    };
    // At the last @: a password that is not percent-encoded may contain one, or a slash.
    let base = match base.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("{user}@{host}"),
        },
        None => base.to_owned(),
    };
    let query = query.map(|query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if is_harmless(name, value) => pair.to_owned(),
            Some((name, _)) => format!("{name}=***"),
            None => "***".to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    Some(format!("{scheme}://{base}{}", query.unwrap_or_default()))
}

fn is_harmless(name: &str, value: &str) -> bool {
    URL_PARAMETERS.contains(&(name, Shown::Plain)) && !value.contains("BEGIN")
}
