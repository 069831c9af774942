//! Values that never show as they are: not in an error, in `Debug` or in the printed configuration.

use std::fmt;

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

/// Whether the value of a parameter or property with this name is masked.
pub(super) fn is_secret(name: &str) -> bool {
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

/// The URL with `***` for its passwords, in the authority and in the query. `None` where the text
/// is not a URL.
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
            Some((name, _)) if is_secret(name) => format!("{name}=***"),
            _ => pair.to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    Some(format!("{scheme}://{base}{}", query.unwrap_or_default()))
}
