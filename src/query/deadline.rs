//! How long a caller waits: `grpc-timeout` on gRPC, `Request-Timeout` (seconds) on REST.
//!
//! The default is 10 s, of some calls longer, and longer by what the call demands to wait; the maximum is 10 minutes, to which
//! longer timeouts are cut.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::error::Error;

/// The timeout of calls that name none.
pub const DEFAULT: Duration = Duration::from_secs(10);
/// The longest timeout of a call.
pub const MAX: Duration = Duration::from_secs(600);
/// What is left of the caller's deadline when a wait ends, for the answer.
pub const MARGIN: Duration = Duration::from_millis(200);
/// How long a caller may take to send a request, whatever its deadline: until then its call keeps a permit.
pub const RECEIVE: Duration = Duration::from_secs(30);
/// Longer timeouts of calls that name none, by the beginnings or ends of their paths on REST and gRPC.
const LONGER_DEFAULTS: [(&str, &str, Duration); 3] = [
    // May wait for an event.
    (
        "/v1/consistency/events/",
        "/GetEventStatus",
        Duration::from_secs(40),
    ),
    // May wait for work: longer than the longest wait.
    (":lease", "/LeaseNotifications", Duration::from_secs(30)),
    // Reads the whole log.
    (":verify", "/VerifyEntries", MAX),
];

tokio::task_local! {
    static UNTIL: Instant;
}

/// Runs a call for at most `time`; returns `None` if it did not finish.
pub async fn keep<T>(time: Duration, call: impl Future<Output = T>) -> Option<T> {
    let until = Instant::now() + time;
    tokio::time::timeout(time, UNTIL.scope(until, call))
        .await
        .ok()
}

/// Receives a request within [`RECEIVE`].
///
/// # Errors
/// INVALID_ARGUMENT: it did not come.
pub async fn receive<T>(request: impl Future<Output = T>) -> Result<T, Error> {
    let received = tokio::time::timeout(RECEIVE, request).await;
    received.map_err(|_| {
        let problem = format!("was not received within {} s", RECEIVE.as_secs());
        Error::invalid("body", problem)
    })
}

/// The time left to the current call; [`MAX`] outside of calls.
pub fn left() -> Duration {
    UNTIL
        .try_with(|until| until.saturating_duration_since(Instant::now()))
        .unwrap_or(MAX)
}

/// For how long the current call may wait, so that time is left for its answer.
pub fn left_to_wait() -> Duration {
    left().saturating_sub(MARGIN)
}

/// How long the caller of a gRPC method waits; `wait` longer than usual where the caller does not say.
///
/// # Errors
/// INVALID_ARGUMENT: the value is malformed or given more than once.
pub fn of_grpc(headers: &HeaderMap, path: &str, wait: Duration) -> Result<Duration, Error> {
    of(
        headers,
        path,
        wait,
        "grpc-timeout",
        grpc_timeout,
        "must be 1 to 8 digits followed by one of H, M, S, m, u, n",
    )
}

/// How long the caller of a gRPC stream waits for all of it; `None` for any time. [`MAX`] is not for streams.
pub fn of_stream(headers: &HeaderMap) -> Option<Duration> {
    // A malformed one was refused before.
    grpc_timeout(headers.get("grpc-timeout")?.to_str().ok()?)
}

/// How long the caller of a REST method waits; `wait` longer than usual where the caller does not say.
///
/// # Errors
/// INVALID_ARGUMENT: the value is malformed, zero, or given more than once.
pub fn of_rest(headers: &HeaderMap, path: &str, wait: Duration) -> Result<Duration, Error> {
    of(
        headers,
        path,
        wait,
        "Request-Timeout",
        |text| seconds(text).filter(|time| !time.is_zero()),
        "must be a number of seconds greater than 0, such as 2 or 0.25",
    )
}

fn of(
    headers: &HeaderMap,
    path: &str,
    wait: Duration,
    name: &str,
    parse: fn(&str) -> Option<Duration>,
    rule: &str,
) -> Result<Duration, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        let mut longer = LONGER_DEFAULTS.iter();
        let longer = longer.find(|(rest, grpc, _)| {
            path.starts_with(rest) || path.ends_with(rest) || path.ends_with(grpc)
        });
        let time = longer.map_or(DEFAULT, |(_, _, time)| *time);
        return Ok((time + wait).min(MAX));
    };
    if values.next().is_some() {
        return Err(Error::invalid(name, "must be given once"));
    }
    match value.to_str().ok().and_then(parse) {
        Some(duration) => Ok(duration.min(MAX)),
        None => Err(Error::invalid(name, rule)),
    }
}

/// Parses seconds, a decimal number without sign or exponent: `2`, `0.25`. It may have any number of
/// digits: decimals beyond nanoseconds are rounded up, so that no time above zero becomes zero.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let (nanos, rest) = fraction.split_at(fraction.len().min(9));
    let nanos = format!("{nanos:0<9}").parse().ok()?;
    let round_up = u64::from(rest.bytes().any(|b| b != b'0'));
    // Only a number that is too large can't be parsed: digits are all it has.
    let whole = Duration::from_secs(whole.parse().unwrap_or(u64::MAX));
    let part = Duration::from_nanos(nanos) + Duration::from_nanos(round_up);
    Some(whole.saturating_add(part))
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_call_can_read_how_much_time_it_has_left() {
        assert_eq!(left(), MAX);
        let time = Duration::from_secs(60);
        let remaining = keep(time, async { left() })
            .await
            .expect("finishes in time");
        assert!(remaining <= time && !remaining.is_zero(), "{remaining:?}");
        let outcome = keep(Duration::ZERO, std::future::pending::<()>()).await;
        assert_eq!(outcome, None);
    }

    #[test]
    fn grpc_timeouts() {
        for (text, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
            ("1é", None),
        ] {
            assert_eq!(grpc_timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn seconds_with_decimals() {
        for (text, expected) in [
            ("2", Some(Duration::from_secs(2))),
            ("0.25", Some(Duration::from_millis(250))),
            ("0", Some(Duration::ZERO)),
            (
                "0.3333333333333333",
                Some(Duration::from_nanos(333_333_334)),
            ),
            ("0.99999999999", Some(Duration::from_secs(1))),
            ("0.00000000000001", Some(Duration::from_nanos(1))),
            ("2.5000000000000", Some(Duration::from_millis(2_500))),
            ("9999999999", Some(Duration::from_secs(9_999_999_999))),
            (
                "99999999999999999999999.9",
                Some(Duration::new(u64::MAX, 900_000_000)),
            ),
            ("1.", None),
            (".5", None),
            ("1e3", None),
            ("-1", None),
            ("+1", None),
            ("NaN", None),
            ("", None),
            ("1.2.3", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn absent_long_and_repeated() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            of_rest(&headers, "/v1/version", Duration::ZERO).unwrap(),
            DEFAULT
        );
        for (path, seconds) in [
            ("/v1/notification/notifications:lease", 30),
            ("/s.S/LeaseNotifications", 30),
            ("/v1/consistency/events/a", 40),
            ("/s.S/GetEventStatus", 40),
            ("/v1/audit/entries:verify", 600),
            ("/s.S/VerifyEntries", 600),
        ] {
            let time = Duration::from_secs(seconds);
            assert_eq!(
                of_rest(&headers, path, Duration::ZERO).unwrap(),
                time,
                "{path}"
            );
        }
        headers.insert("request-timeout", "3600".parse().unwrap());
        assert_eq!(
            of_rest(&headers, "/v1/version", Duration::ZERO).unwrap(),
            MAX
        );
        headers.insert("request-timeout", "9999999999".parse().unwrap());
        assert_eq!(
            of_rest(&headers, "/v1/version", Duration::ZERO).unwrap(),
            MAX
        );
        headers.append("request-timeout", "1".parse().unwrap());
        let repeated = of_rest(&headers, "/v1/version", Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(repeated.contains("must be given once"), "{repeated}");
        headers.insert("request-timeout", "0".parse().unwrap());
        assert!(of_rest(&headers, "/v1/version", Duration::ZERO).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,12}|[0-9.]{0,12}[HMSmun]?") {
            let _ = (seconds(&text), grpc_timeout(&text));
        }
    }
}
