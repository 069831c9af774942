//! Calls to the API of a running gateway, and printing of its answers.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ArgMatches;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::client::{self, TIMEOUT};
use crate::output;

/// How long a change may take: the comparison of two large views takes minutes.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// The gateway that a command calls.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    /// Whether answers are printed as JSON instead of tables.
    pub(super) json: bool,
}

impl Gateway {
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        client::json(self.address, Method::GET, path, None, TIMEOUT).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        client::json(self.address, Method::POST, path, Some(body), CHANGE_TIMEOUT).await
    }

    /// Prints the answer as JSON if that was asked for, else as `text`.
    ///
    /// # Errors
    /// Those of [`output::print`].
    pub(super) fn print(&self, answer: &Value, text: &str) -> anyhow::Result<()> {
        if self.json {
            output::print(&answer.to_string())
        } else {
            output::print(text.trim_end())
        }
    }
}

/// The value of an argument, empty if it is absent.
pub(super) fn argument<'a>(arguments: &'a ArgMatches, name: &str) -> &'a str {
    arguments.get_one::<String>(name).map_or("", String::as_str)
}

/// Percent-encodes a segment of a path or a value of a query.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A field of an answer that holds a list, empty if it is absent.
pub(super) fn list<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

/// A JSON value as a table shows it, empty if it is absent. Control characters are escaped: records
/// come from outside, and must not write escape sequences to the operator's terminal.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.chars().any(char::is_control) => {
            text.escape_default().to_string()
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
