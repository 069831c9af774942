//! Calls to the API of a running gateway, and printing of its answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::ArgMatches;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::table::CLEAR_SCREEN;
use crate::client::{self, TIMEOUT};
use crate::error::Hint;
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
        self.call(Method::GET, path, None, TIMEOUT).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body), CHANGE_TIMEOUT)
            .await
    }

    /// Sends a request and returns the JSON of a successful response. The gateway has `timeout` to answer.
    ///
    /// # Errors
    /// The connection fails, or the response is not JSON or does not arrive in time; else the response's problem, with flags in
    /// place of fields.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        timeout: Duration,
    ) -> anyhow::Result<Value> {
        let address = self.address;
        let response = match client::send(address, method, path, body, timeout).await {
            Err(error) if client::is_refused(&error) => bail!(
                "{error:#}: no gateway listens there. Start one, or name the address of one with --http-addr"
            ),
            sent => sent?,
        };
        let status = response.status();
        let answer: Value = serde_json::from_slice(response.body()).map_err(|_| {
            let said = first_line(response.body());
            anyhow!("{address} responded with {status} and a body that is not JSON: {said}")
        })?;
        if status.is_success() {
            return Ok(answer);
        }
        let mut said = sentence(&answer);
        if status.is_server_error()
            && let Some(id) = response.headers().get("x-request-id")
        {
            said.push_str(&format!(
                " (x-request-id {})",
                id.to_str().unwrap_or("unknown")
            ));
        }
        bail!(said)
    }

    /// Prints what `show` returns, once, or every second until interrupted if `watch`. Then an error is printed instead of
    /// returned, because the gateway may come back: in place of a table, or to stderr where stdout takes JSON.
    ///
    /// # Errors
    /// Those of `show`, unless `watch`; those of [`output::print`].
    pub(super) async fn print_shown(
        &self,
        watch: bool,
        show: impl AsyncFn() -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        if !watch {
            return output::print(show().await?.trim_end());
        }
        let clear = if self.json { "" } else { CLEAR_SCREEN };
        loop {
            match show().await {
                Ok(shown) => output::print(&format!("{clear}{}", shown.trim_end()))?,
                // The reader of stdout expects one document per line.
                Err(error) if self.json => output::complain(&format!("{error:#}")),
                Err(error) => output::print(&format!("{clear}{error:#}"))?,
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
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

/// What a problem of REST says, in the words of the command line: flags for fields, and its own hints.
fn sentence(problem: &Value) -> String {
    let text = |of: &Value, name: &str| of[name].as_str().unwrap_or("unknown").to_owned();
    let reason = text(problem, "reason");
    let fields = list(problem, "fields").iter();
    let fields: Vec<String> = fields
        .map(|field| {
            let flag = flag_of(&text(field, "field"));
            format!("{flag} {}.", text(field, "problem"))
        })
        .collect();
    if !fields.is_empty() {
        return format!("{reason}: {}", fields.join(" "));
    }
    let detail = Hint::ALL
        .iter()
        .fold(text(problem, "detail"), |detail, hint| {
            detail.replace(hint.rest(), hint.cli())
        });
    format!("{reason}: {detail}")
}

/// The flag that gives a field of the API: `--key-base64` gives `keyBase64`.
fn flag_of(field: &str) -> String {
    field.chars().fold("--".to_owned(), |mut flag, c| {
        if c.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(c.to_ascii_lowercase());
        flag
    })
}

/// The beginning of a body, as a terminal can show it.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(1_000)]);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn problems_name_flags_and_commands() {
        let printed = |error: Error| sentence(&serde_json::to_value(error.problem()).unwrap());
        for hint in Hint::ALL {
            let error = Error::new(Code::NotFound, "There is none.").with_hint(*hint);
            let wanted = format!("NOT_FOUND: There is none. {}", hint.cli());
            assert_eq!(printed(error), wanted);
        }
        let error = Error::invalid("keyBase64", "is not base64");
        assert_eq!(
            printed(error),
            "INVALID_ARGUMENT: --key-base64 is not base64."
        );
        assert_eq!(sentence(&json!({})), "unknown: unknown");
    }
}
