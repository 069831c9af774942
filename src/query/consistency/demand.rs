//! What a request demands, by its headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::error::{Error, TOKEN_HEADER};
use crate::query::deadline;
use crate::query::ids::check_id;
use crate::query::token::ConsistencyToken;

/// The header of REST and the metadata key of gRPC.
pub const CONSISTENCY_HEADER: HeaderName = HeaderName::from_static("sightline-consistency");
const WAIT_HEADER: HeaderName = HeaderName::from_static("sightline-wait");
const ON_TIMEOUT_HEADER: HeaderName = HeaderName::from_static("sightline-on-timeout");
pub(super) const TOKEN: &str = "Sightline-Consistency-Token";
/// How long a read waits if the caller does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that a caller may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// The most tokens in one request.
pub(super) const MAX_TOKENS: usize = 100;

/// What a request demands.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// How current the answer must be.
    pub level: Level,
    /// How long to wait for that.
    pub wait: Duration,
    /// Whether an answer that is too old is better than none after that time.
    pub serves_stale: bool,
}

/// How current an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Level {
    /// Whatever the view has now.
    Eventual,
    /// Not older than each of these.
    AtLeast(Vec<Reference>),
    /// Neither the reading of the log's end nor the oldest record that is not applied is older.
    MaxLag(Duration),
    /// Not older than the end of the log at the time of the call.
    Latest,
}

/// What an answer must not be older than.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// A position: of another answer, or of a record that was produced.
    Token(ConsistencyToken),
    /// An event, by its id.
    Event(String),
}

impl Demand {
    /// What the headers demand.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming the header: it is malformed, given more than once, or does not belong to the others.
    pub fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let level = match once(headers, &CONSISTENCY_HEADER, "Sightline-Consistency")? {
            None | Some("eventual") => Level::Eventual,
            Some("at-least") => Level::AtLeast(references(headers)?),
            Some("latest") => Level::Latest,
            Some(other) => {
                let seconds = other.strip_prefix("max-lag=").and_then(deadline::seconds);
                Level::MaxLag(seconds.ok_or_else(|| {
                    let problem =
                        "must be eventual (the default), at-least, latest or max-lag=<seconds>";
                    Error::invalid("Sightline-Consistency", problem)
                })?)
            }
        };
        if headers.contains_key(TOKEN_HEADER) && !matches!(level, Level::AtLeast(_)) {
            let problem = "is allowed only with Sightline-Consistency: at-least";
            return Err(Error::invalid(TOKEN, problem));
        }
        let wait = match once(headers, &WAIT_HEADER, "Sightline-Wait")? {
            None => DEFAULT_WAIT,
            Some(text) => deadline::seconds(text)
                .filter(|wait| *wait <= MAX_WAIT)
                .ok_or_else(|| {
                    let problem = "must be a number of seconds from 0 to 30, such as 2 or 0.25";
                    Error::invalid("Sightline-Wait", problem)
                })?,
        };
        let serves_stale = match once(headers, &ON_TIMEOUT_HEADER, "Sightline-On-Timeout")? {
            None | Some("fail") => false,
            Some("serve-stale") => true,
            Some(_) => {
                return Err(Error::not_one_of(
                    "Sightline-On-Timeout",
                    &["fail", "serve-stale"],
                ));
            }
        };
        Ok(Self {
            level,
            wait,
            serves_stale,
        })
    }

    /// How long the call may wait in addition to the time that its answer takes.
    pub fn longest_wait(headers: &HeaderMap) -> Duration {
        match Self::of(headers) {
            Ok(demand) if demand.level != Level::Eventual => demand.wait,
            _ => Duration::ZERO,
        }
    }
}

/// The value of a header that may be given once.
fn once<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    field: &'static str,
) -> Result<Option<&'h str>, Error> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Error::invalid(field, "must be given once"));
    }
    let text = value.map(|value| value.to_str().map(str::trim)).transpose();
    text.map_err(|_| Error::invalid(field, "must be ASCII"))
}

fn references(headers: &HeaderMap) -> Result<Vec<Reference>, Error> {
    let mut references = Vec::new();
    for value in headers.get_all(TOKEN_HEADER) {
        let list = value
            .to_str()
            .map_err(|_| Error::invalid(TOKEN, "must be ASCII"))?;
        for token in list.split(',') {
            if references.len() == MAX_TOKENS {
                return Err(Error::invalid(TOKEN, "must hold at most 100 tokens"));
            }
            references.push(Reference::parse(token.trim(), TOKEN)?);
        }
    }
    if references.is_empty() {
        let problem = "is missing: at-least needs a token, topic/partition@offset or event:<id>";
        return Err(Error::invalid(TOKEN, problem));
    }
    Ok(references)
}

impl Reference {
    /// Parses untrusted text: a token in either form, or `event:` and a percent-encoded id.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming `field`: it is neither.
    pub fn parse(text: &str, field: &str) -> Result<Self, Error> {
        let Some(id) = text.strip_prefix("event:") else {
            let token = ConsistencyToken::parse(text);
            return token
                .map(Self::Token)
                .map_err(|problem| Error::invalid(field, problem.to_string()));
        };
        let decoded = percent_decode_str(id).decode_utf8();
        let id = decoded.map_err(|_| {
            let problem = "has an event id that is not UTF-8 once percent-decoded";
            Error::invalid(field, problem)
        })?;
        check_id(field, &id)?;
        Ok(Self::Event(id.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: &str = "sightline-consistency";
    const TOKEN_NAME: &str = "sightline-consistency-token";

    fn demand(pairs: &[(&'static str, &'static str)]) -> Result<Demand, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Demand::of(&headers)
    }

    #[test]
    fn demands_are_read_from_headers() {
        let level = |pairs: &[_]| demand(pairs).unwrap().level;
        assert_eq!(level(&[]), Level::Eventual);
        assert_eq!(level(&[(DEMAND, "eventual")]), Level::Eventual);
        assert_eq!(level(&[(DEMAND, " latest ")]), Level::Latest);
        let lag = Level::MaxLag(Duration::from_millis(2_500));
        assert_eq!(level(&[(DEMAND, "max-lag=2.5")]), lag);
        let tokens = [(DEMAND, "at-least"), (TOKEN_NAME, "t/3@41, event:a%2Cb,AQ")];
        let Level::AtLeast(references) = level(&tokens) else {
            panic!("another level");
        };
        let token = |text| Reference::Token(ConsistencyToken::parse(text).unwrap());
        let event = Reference::Event("a,b".into());
        assert_eq!(references, [token("t/3@41"), event, token("AQ")]);
        let several = [
            (DEMAND, "at-least"),
            (TOKEN_NAME, "t/3@41"),
            (TOKEN_NAME, "t/4@1"),
        ];
        let expected = Level::AtLeast(vec![token("t/3@41"), token("t/4@1")]);
        assert_eq!(level(&several), expected);
    }

    #[test]
    fn a_caller_chooses_how_long_to_wait_and_what_then() {
        let (wait, then) = ("sightline-wait", "sightline-on-timeout");
        let read = |pairs: &[_]| {
            let demand = demand(pairs).unwrap();
            (demand.wait.as_millis(), demand.serves_stale)
        };
        assert_eq!(read(&[]), (1_000, false));
        assert_eq!(read(&[(wait, "0")]), (0, false));
        assert_eq!(read(&[(wait, "0.25"), (then, "serve-stale")]), (250, true));
        assert_eq!(read(&[(wait, "30"), (then, "fail")]), (30_000, false));
        let longest = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            Demand::longest_wait(&pairs.collect()).as_secs()
        };
        assert_eq!(longest(&[(wait, "20")]), 0);
        assert_eq!(longest(&[(wait, "20"), (DEMAND, "latest")]), 20);
        assert_eq!(longest(&[(wait, "x"), (DEMAND, "latest")]), 0);
    }

    #[test]
    fn what_is_malformed_is_refused_by_name() {
        for (pairs, field) in [
            (&[(DEMAND, "strong")][..], "Sightline-Consistency"),
            (&[(DEMAND, "")], "Sightline-Consistency"),
            (&[(DEMAND, "max-lag=")], "Sightline-Consistency"),
            (&[(DEMAND, "max-lag=-1")], "Sightline-Consistency"),
            (
                &[(DEMAND, "eventual"), (DEMAND, "latest")],
                "Sightline-Consistency",
            ),
            (&[(DEMAND, "at-least")], TOKEN),
            (&[(DEMAND, "at-least"), (TOKEN_NAME, "")], TOKEN),
            (&[(DEMAND, "at-least"), (TOKEN_NAME, "AQ,,AQ")], TOKEN),
            (&[(DEMAND, "at-least"), (TOKEN_NAME, "%")], TOKEN),
            (&[(DEMAND, "at-least"), (TOKEN_NAME, "event:")], TOKEN),
            (&[(DEMAND, "at-least"), (TOKEN_NAME, "event:%FF")], TOKEN),
            (&[(DEMAND, "at-least"), (TOKEN_NAME, "t/3")], TOKEN),
            (&[(TOKEN_NAME, "t/3@41")], TOKEN),
            (&[(DEMAND, "latest"), (TOKEN_NAME, "AQ")], TOKEN),
            (&[("sightline-wait", "31")], "Sightline-Wait"),
            (&[("sightline-wait", "-1")], "Sightline-Wait"),
            (&[("sightline-wait", "")], "Sightline-Wait"),
            (&[("sightline-on-timeout", "serve")], "Sightline-On-Timeout"),
        ] {
            let error = demand(pairs).unwrap_err();
            assert_eq!(error.fields()[0].field, field, "{pairs:?}");
        }
    }
}
