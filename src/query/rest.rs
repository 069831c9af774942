//! What the REST adapters share: extractors whose rejection is a [`struct@Error`] that names the
//! field, and how an answer becomes a response.

use std::borrow::Cow;

use axum::body::{Body, HttpBody};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::Stream;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::BodyExt;
use percent_encoding::percent_decode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::MAX_REQUEST_BYTES;
use super::answer::Answer;
use super::check_past;
use super::deadline;
use super::lag::unknown_domain;
use super::page::PageRequest;
use crate::error::{Error, PROBLEM_JSON, Problem, add_headers};
use crate::event::time;

/// The most bytes that are read of a body that is too large.
const MAX_READ_BYTES: u64 = 64 * MAX_REQUEST_BYTES as u64;
/// Clients may store answers but must revalidate them, because the view may have changed.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The response for a domain that this process does not serve, for the documentation.
#[derive(IntoResponses)]
#[response(
    status = 404, description = "There is no such domain, or this process does not serve it",
    content_type = PROBLEM_JSON, example = json!(unknown_domain().problem()),
)]
pub struct NotServed(#[allow(dead_code, reason = "only described")] Problem);

/// The name of a domain.
// Of requests, for the documentation: the server makes an enum of it, of all domains' names. Answers may name domains
// that a caller does not know yet, so they have a string.
#[derive(ToSchema)]
pub struct DomainName(#[allow(dead_code, reason = "only described")] String);

/// The path parameter `userId`: `params(UserPath)` documents it, `Path<UserPath>` extracts it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(rename_all = "camelCase")]
pub struct UserPath {
    /// The user's id: opaque, percent-encoded (`/` as `%2F`)
    #[param(min_length = 1, max_length = 255, example = "u-1001")]
    pub user_id: String,
}

/// The query parameter `asOf`, for the documentation; [`Query::past_time`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[allow(dead_code, reason = "only described")]
pub struct AsOfParameter {
    /// An instant (RFC 3339; `+` is written `%2B`), such as `2025-11-01T00:00:00Z`
    as_of: Option<DateTime<Utc>>,
}

/// The query parameters of a list's pages, for the documentation; [`Query::page`] reads them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[allow(dead_code, reason = "only described")]
pub struct PageParameters {
    /// The most items to return: 50 by default, 1,000 at most. A page ends earlier, after one item at least, where it
    /// would be larger than 3 MiB
    #[param(minimum = 0)]
    page_size: Option<i32>,
    /// `nextPageToken` of the previous page; the other parameters except `pageSize` must be the
    /// same as for that page
    page_token: Option<String>,
}

/// The parameters of the path. Each is percent-decoded separately, so that an id may contain `/` as
/// `%2F`.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        if has_broken_escape(parts.uri.path()) {
            return Err(Error::invalid(
                path_parameter(parts),
                "has a % that is not followed by two hexadecimal digits; a literal % is written %25",
            ));
        }
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(match error.kind() {
                ErrorKind::InvalidUtf8InPathParam { key } => {
                    Error::invalid(key, "is not UTF-8 once percent-decoded")
                }
                ErrorKind::ParseErrorAtKey { key, .. } => Error::invalid(key, "is malformed"),
                _ => Error::invalid("path", "is malformed"),
            }),
            Err(_) => Err(Error::internal(
                "a handler's path parameters are not those of its route",
            )),
        }
    }
}

/// Whether the path contains a `%` without two hexadecimal digits (RFC 3986, 2.1).
fn has_broken_escape(path: &str) -> bool {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    path.split('%').skip(1).any(|rest| !is_escape(rest))
}

/// The name of the route's last parameter.
fn path_parameter(parts: &Parts) -> String {
    let route = parts.extensions.get::<MatchedPath>();
    let name = route.and_then(|route| {
        Some(
            route
                .as_str()
                .rsplit_once('{')?
                .1
                .split('}')
                .next()?
                .to_owned(),
        )
    });
    name.unwrap_or_else(|| "path".to_owned())
}

/// The parameters of the query string, in order; a name may occur more than once.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.clone()).collect()
    }

    /// The values of a parameter that is separated by commas or repeated.
    pub fn list(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        let values = values.flat_map(|(_, value)| value.split(','));
        values.map(|value| value.trim().to_owned()).collect()
    }

    /// The value of a parameter that may be given once.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it is empty, or given more than once.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.given(name)? {
            Some(value) if value.is_empty() => Err(Error::empty(name)),
            value => Ok(value),
        }
    }

    /// The value of a parameter that may be given once, and may be empty.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it is given more than once.
    pub fn given(&self, name: &str) -> Result<Option<String>, Error> {
        let mut named = self.0.iter().filter(|(key, _)| key == name);
        let value = named.next().map(|(_, value)| value.clone());
        match named.next() {
            Some(_) => Err(Error::invalid(name, "must be given once")),
            None => Ok(value),
        }
    }

    /// Refuses parameters with other names: a filter that is not understood would select too much. `takers` finds the paths
    /// of similar operations that take a parameter.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the query has another parameter. The error lists `names`, and the paths that take it.
    pub fn only<'p>(
        &self,
        names: &[String],
        takers: impl Fn(&str) -> Vec<&'p str>,
    ) -> Result<(), Error> {
        let other = self.0.iter().find(|(key, _)| !names.contains(key));
        let Some((key, _)) = other else {
            return Ok(());
        };
        let taken = list(names.iter().map(String::as_str));
        // One of its own that is misspelled; other operations may have the same spelling.
        let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
        let is_near =
            |name: &String| plain(name).trim_end_matches('s') == plain(key).trim_end_matches('s');
        let takers = if names.iter().any(is_near) {
            Vec::new()
        } else {
            takers(key)
        };
        let problem = match takers.as_slice() {
            [] => format!("is not a parameter of this operation; it takes {taken}"),
            paths => format!(
                "is a parameter of {}, not of this operation; this one takes {taken}",
                list(paths.iter().copied())
            ),
        };
        Err(Error::invalid(key, problem))
    }

    /// An instant (RFC 3339).
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it is malformed, or is given more than once.
    pub fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Error> {
        let read = |text: String| {
            time::rfc3339(&text).ok_or_else(|| Error::invalid(name, time_problem(&text)))
        };
        self.text(name)?.map(read).transpose()
    }

    /// A past instant (RFC 3339).
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it is malformed, lies ahead, or is given more than once.
    pub fn past_time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Error> {
        let time = self.time(name)?;
        time.map(|time| check_past(name, time)).transpose()
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it is neither, or given more than once.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Error::invalid(name, "must be true or false")),
        }
    }

    /// The page that `pageSize` and `pageToken` ask for. A size that does not fit an `i32` counts
    /// as the largest, which is cut to the maximum later.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the size is not a whole number, or one of them is given more than once.
    pub fn page(&self) -> Result<PageRequest, Error> {
        let size = match self.text("pageSize")? {
            None => 0,
            Some(size) if size.bytes().all(|b| b.is_ascii_digit()) => {
                size.parse().unwrap_or(i32::MAX)
            }
            Some(_) => {
                return Err(Error::invalid(
                    "pageSize",
                    "must be a whole number, 0 or greater",
                ));
            }
        };
        Ok(PageRequest {
            size,
            token: self.text("pageToken")?.unwrap_or_default(),
        })
    }

    /// The parameters of a URI.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: they are not UTF-8.
    pub fn of(uri: &Uri) -> Result<Self, Error> {
        Self::parse(uri.query().unwrap_or_default())
    }

    fn parse(query: &str) -> Result<Self, Error> {
        let decode = |text: &str| {
            let text = match text.contains('+') {
                true => Cow::Owned(text.replace('+', " ")),
                false => Cow::Borrowed(text),
            };
            let decoded = percent_decode(text.as_bytes()).decode_utf8();
            decoded.map(String::from).ok()
        };
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let name = decode(name)
                    .ok_or_else(|| Error::invalid("query", "contains a name that is not UTF-8"))?;
                match decode(value) {
                    Some(value) => Ok((name, value)),
                    None => Err(Error::invalid(name, "is not UTF-8 once percent-decoded")),
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What is wrong with a text that is not an RFC 3339 time.
fn time_problem(text: &str) -> String {
    let problem = if let Some(lacking) = time::lacks(text) {
        format!("has {lacking}")
    } else if time::rfc3339(&text.replace(' ', "+")).is_some() {
        "has a space for the + of its offset, which is written %2B in a URL".to_owned()
    } else {
        "is not a time of RFC 3339".to_owned()
    };
    format!("{problem}; like 2026-10-01T12:00:00Z")
}

/// Names in their order, for a sentence: `a, b, c`.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::of(&parts.uri)
    }
}

/// A JSON body of a request, or of a response that reflects no position of a view.
///
/// An absent body and `null` count as `{}`. Parameters belong in the body: a query string is
/// refused. The server has checked the media type of every POST before.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let query = Query::of(request.uri())?;
        if let Some((name, _)) = query.0.first() {
            return Err(Error::invalid(
                name,
                "must be given in the JSON body, not in the query string",
            ));
        }
        let mut bytes = deadline::receive(read_body(request)).await??;
        if bytes.is_empty() || bytes.trim_ascii() == b"null" {
            bytes = b"{}".to_vec();
        }
        // serde would accept an array for a struct, field by field.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::invalid("body", "must be a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (line, character) = (error.inner().line(), error.inner().column());
            if !error.inner().is_data() {
                let problem = format!("is not JSON at line {line}, character {character}");
                return Error::invalid("body", problem);
            }
            let path = error.path().to_string();
            // The path of the root is a dot; only the message names a field that is missing there.
            let message = error.inner().to_string();
            let named = |problem: &str| message.strip_prefix(problem)?.split('`').next();
            if let Some(name) = named("duplicate field `") {
                return Error::invalid(name, "must be given once");
            }
            let missing = named("missing field `");
            match (path.as_str(), missing) {
                (".", Some(name)) => Error::invalid(name, "is missing"),
                (path, Some(name)) => Error::invalid(format!("{path}.{name}"), "is missing"),
                (".", None) => Error::invalid("body", "has the wrong shape"),
                (path, None) => Error::invalid(path, field_problem(&message)),
            }
        })?;
        json.end()
            .map_err(|_| Error::invalid("body", "contains more than one JSON value"))?;
        Ok(Self(value))
    }
}

/// What is wrong with a field of a body. serde's message quotes an unknown field, then lists those
/// that the body takes, each in backticks.
fn field_problem(message: &str) -> String {
    let Some(unknown) = message.strip_prefix("unknown field `") else {
        return expected(message).to_owned();
    };
    let taken = unknown.rsplit_once("`, expected ");
    let taken = taken.map_or("", |(_, taken)| taken);
    let taken = list(taken.split('`').skip(1).step_by(2));
    format!("is not a field of this body; it takes {taken}")
}

/// What the value of a field must be. serde's message quotes the value, then says what it expected.
fn expected(message: &str) -> &'static str {
    let expected = message.rsplit_once(", expected ");
    let expected = expected.map_or("", |(_, expected)| expected);
    let kinds = [
        ("a string", "must be a string"),
        ("a boolean", "must be true or false"),
        ("a sequence", "must be a list"),
        ("i32", "must be a whole number"),
        ("struct ", "must be an object"),
    ];
    let kind = kinds.iter().find(|(kind, _)| expected.starts_with(kind));
    kind.map_or("has the wrong type or an invalid value", |(_, problem)| {
        problem
    })
}

/// The whole body, unless it is too large. Of a body that is too large, more is read and discarded
/// before the refusal: many clients read the response only after they have sent everything.
async fn read_body(request: Request) -> Result<Vec<u8>, Error> {
    let awaits_continue = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let announced = body.size_hint().lower();
    if announced > MAX_READ_BYTES || (awaits_continue && announced > MAX_REQUEST_BYTES as u64) {
        return Err(Error::payload_too_large());
    }
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Error::invalid("body", "was not received completely"));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len() as u64;
        if length > MAX_READ_BYTES {
            break;
        }
        if length <= MAX_REQUEST_BYTES as u64 {
            bytes.extend_from_slice(&data);
        }
    }
    if length > MAX_REQUEST_BYTES as u64 {
        return Err(Error::payload_too_large());
    }
    Ok(bytes)
}

/// The body as JSON, the position in headers, and an ETag computed from the body.
impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let body = match serde_json::to_vec(&self.body) {
            Ok(body) => body,
            Err(_) => return Error::internal("an answer is not serializable").into_response(),
        };
        let etag = format!(
            "W/\"{}\"",
            BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(&body)[..16])
        );
        let mut response = (
            [(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )],
            body,
        )
            .into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        if let Ok(etag) = etag.parse() {
            headers.insert(header::ETAG, etag);
        }
        add_headers(headers, self.position.metadata());
        response
    }
}

/// A stream as the body, the position in headers. An error of the stream cuts the body off, which the
/// caller can tell from an end.
pub fn stream<S>(media_type: &'static str, answer: Answer<S>) -> Response
where
    S: Stream<Item = Result<Bytes, Error>> + Send + 'static,
{
    let mut response = Body::from_stream(answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_headers(headers, answer.position.metadata());
    response
}

/// Which of several media types the caller prefers, by its header Accept; the first that it likes best. The first of all if it
/// names none of them, because most callers of an API accept whatever it has.
pub fn preferred(headers: &HeaderMap, offered: &[&'static str]) -> usize {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let accepted: Vec<(String, f32)> = accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?;
            let mut weights =
                parts.filter_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            let weight = weights
                .next_back()
                .map_or(Some(1.0), |weight| weight.parse().ok());
            Some((name.to_ascii_lowercase(), weight?))
        })
        .collect();
    let weight_of = |media_type: &str| {
        let area = media_type.split('/').next().unwrap_or_default();
        let ranges = [media_type.to_owned(), format!("{area}/*"), "*/*".to_owned()];
        let mut ranges = ranges.iter();
        ranges.find_map(|range| {
            let (_, weight) = accepted.iter().find(|(accepted, _)| accepted == range)?;
            Some(*weight)
        })
    };
    let (mut preferred, mut best) = (0, 0.0);
    for (index, media_type) in offered.iter().enumerate() {
        let weight = weight_of(media_type).unwrap_or_default();
        if weight > best {
            (preferred, best) = (index, weight);
        }
    }
    preferred
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TOKEN_HEADER;
    use crate::query::ConsistencyToken;

    #[test]
    fn queries_are_read_as_forms() {
        let query = Query::parse("userIds=a%2Fb&userIds=%F0%9F%98%80+x&&userIds=100%").unwrap();
        assert_eq!(query.all("userIds"), ["a/b", "😀 x", "100%"]);
        assert_eq!(
            Query::parse("userIds=%FF").err().unwrap().fields()[0].field,
            "userIds"
        );
        assert_eq!(Query::parse("x=1&userIds=a").unwrap().all("userIds"), ["a"]);
        assert!(Query::parse("").unwrap().all("userIds").is_empty());
    }

    #[test]
    fn parameters_are_read_by_their_type() {
        let query = Query::parse("t=2026-10-01T00:00:00%2B01:00&f=false&n=-3&e=&r=1&r=2").unwrap();
        assert_eq!(
            query.past_time("t").unwrap().unwrap().to_rfc3339(),
            "2026-09-30T23:00:00+00:00"
        );
        assert_eq!(query.flag("f").unwrap(), Some(false));
        assert_eq!(query.given("e").unwrap(), Some(String::new()));
        assert!(
            query
                .only(&["t", "f", "n", "e", "r"].map(String::from), |_| vec![])
                .is_ok()
        );
        let other = query.only(&["t", "f", "n", "r"].map(String::from), |_| vec![]);
        assert_eq!(other.unwrap_err().fields()[0].field, "e");
        assert_eq!(query.text("absent").unwrap(), None);
        let refused = [
            query.text("r").err(),
            query.text("e").err(),
            query.past_time("f").err(),
            query.flag("n").err(),
            Query::parse("pageSize=-1").unwrap().page().err(),
        ];
        let fields: Vec<_> = refused
            .iter()
            .map(|error| error.as_ref().unwrap().fields()[0].field.as_str())
            .collect();
        assert_eq!(fields, ["r", "e", "f", "n", "pageSize"]);
        let large = Query::parse("pageSize=99999999999999999999").unwrap();
        assert_eq!(large.page().unwrap().size, i32::MAX);
    }

    #[tokio::test]
    async fn refused_bodies_name_the_field_or_the_line() {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Body {
            #[allow(dead_code)]
            user_ids: Vec<String>,
            #[allow(dead_code)]
            #[serde(default)]
            version: Option<i32>,
            #[allow(dead_code)]
            #[serde(default)]
            dry_run: bool,
        }
        for (body, field, problem) in [
            (r#"{"userIds":["a",1]}"#, "userIds[1]", "must be a string"),
            (
                r#"{"userIds":["a",null]}"#,
                "userIds[1]",
                "must be a string",
            ),
            (r#"{"userIds":"a"}"#, "userIds", "must be a list"),
            (
                r#"{"userIds":", expected i32"}"#,
                "userIds",
                "must be a list",
            ),
            (
                r#"{"userIds":[],"userIds":[]}"#,
                "userIds",
                "must be given once",
            ),
            (
                r#"{"userIds":[],"version":1.5}"#,
                "version",
                "must be a whole number",
            ),
            (
                r#"{"userIds":[],"version":9999999999}"#,
                "version",
                "must be a whole number",
            ),
            (
                r#"{"userIds":[],"dryRun":"yes"}"#,
                "dryRun",
                "must be true or false",
            ),
            (r#"{"x":1}"#, "x", "is not a field"),
            ("{}", "userIds", "is missing"),
            (r#"[["a"]]"#, "body", "must be a JSON object"),
            ("{", "body", "is not JSON at line 1"),
            ("", "userIds", "is missing"),
            ("null", "userIds", "is missing"),
            (" ", "body", "must be a JSON object"),
            (r#"{"userIds":[]} 1"#, "body", "more than one"),
            ("\u{0}", "body", "must be a JSON object"),
        ] {
            let request = Request::new(body.into());
            let error = Json::<Body>::from_request(request, &())
                .await
                .err()
                .unwrap();
            assert_eq!(error.fields()[0].field, field, "{body}");
            let found = &error.fields()[0].problem;
            assert!(found.contains(problem), "{body}: {found}");
        }
    }

    #[test]
    fn callers_choose_the_media_type() {
        const OFFERED: [&str; 3] = ["application/json", "application/x-ndjson", "text/csv"];
        for (accept, expected) in [
            (&[][..], 0),
            (&["*/*"], 0),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], 0),
            (&["text/csv"], 2),
            (&["Text/CSV; charset=utf-8"], 2),
            (&["text/*"], 2),
            (&["application/x-ndjson"], 1),
            (&["application/*"], 0),
            (&["application/json, text/csv"], 0),
            (&["application/json;q=0.5, text/csv"], 2),
            (&["text/csv;q=0.2, application/x-ndjson;q=0.4"], 1),
            (&["text/csv;q=0.2", "application/x-ndjson;q=0.4"], 1),
            (&["*/*;q=0.1, text/csv"], 2),
            (&["*/*, application/json;q=0"], 1),
            (&["text/csv;q=0"], 0),
            (&["text/csv;q=x"], 0),
            (&["text/html"], 0),
            (&[",;"], 0),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(preferred(&headers, &OFFERED), expected, "{accept:?}");
        }
    }

    #[test]
    fn equal_answers_have_equal_etags() {
        let answer = |body: &'static str| {
            Answer {
                body,
                position: ConsistencyToken::default().into(),
            }
            .into_response()
        };
        let (a, b) = (answer("a"), answer("b"));
        assert!(
            a.headers()[header::ETAG]
                .to_str()
                .unwrap()
                .starts_with("W/\"")
        );
        assert_eq!(
            a.headers()[header::ETAG],
            answer("a").headers()[header::ETAG]
        );
        assert_ne!(a.headers()[header::ETAG], b.headers()[header::ETAG]);
        assert_eq!(a.headers()[TOKEN_HEADER], "AQ");
    }
}
