//! A value with its origin, and the checks of simple values.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use super::ConfigError;

/// Why a file can't be read. The error itself may quote the path, which may be a secret in the wrong place.
pub(super) fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
        kind => kind.to_string(),
    }
}

/// A value as it was given.
#[derive(Clone)]
pub(super) struct Given {
    pub value: toml::Value,
    /// Where it was given, for error messages: a flag, a variable, or a key in a file.
    pub origin: String,
}

impl Given {
    /// An error that names the origin of the value.
    pub fn error(&self, problem: impl fmt::Display) -> ConfigError {
        ConfigError::new(format!("{}: {problem}", self.origin))
    }

    /// The value as text; numbers and booleans as TOML writes them, lists joined by commas.
    pub fn text(&self) -> Result<String, ConfigError> {
        match &self.value {
            toml::Value::String(text) => Ok(text.clone()),
            toml::Value::Integer(number) => Ok(number.to_string()),
            toml::Value::Float(number) => Ok(number.to_string()),
            toml::Value::Boolean(value) => Ok(value.to_string()),
            toml::Value::Datetime(time) => Ok(time.to_string()),
            toml::Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(|items| items.join(","))
                .ok_or_else(|| self.error("a list may hold strings only")),
            _ => Err(self.error("must be text, a number, a boolean or a list of strings")),
        }
    }

    /// The comma-separated items, trimmed: at least one, none of them empty.
    pub fn list(&self) -> Result<Vec<String>, ConfigError> {
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

    /// A whole number from `min` to `max`, of a unit such as ` of seconds`.
    pub fn number<T: FromStr + PartialOrd + fmt::Display>(
        &self,
        unit: &str,
        min: T,
        max: T,
    ) -> Result<T, ConfigError> {
        match self.text().map(|text| text.parse()) {
            Ok(Ok(number)) if number >= min && number <= max => Ok(number),
            _ => Err(self.error(format_args!(
                "must be a whole number{unit} from {min} to {max}"
            ))),
        }
    }

    /// The value of the word that was given.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text()?;
        choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.error(format_args!(
                    "{text:?} must be one of: {}",
                    words.join(", ")
                ))
            })
    }

    /// An IP address and a port.
    pub fn address(&self) -> Result<SocketAddr, ConfigError> {
        let text = self.text()?;
        text.parse().map_err(|_| {
            self.error(format_args!(
                "{text:?} is not an IP address and port such as 127.0.0.1:8080"
            ))
        })
    }
}
