//! What the gRPC adapters share: how an answer becomes a response, and how fields of requests are
//! read.

use chrono::{DateTime, Utc};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};

use super::answer::Answer;
use super::check_past;
use super::deadline;
use super::one_of;
use super::page::PageRequest;
use super::watch::Limits;
use crate::error::{Error, add_metadata};

/// Sets the size limit and the compression of a service. It is a macro because the generated types
/// of services share no trait.
macro_rules! service {
    ($server:expr) => {
        $server
            .max_decoding_message_size($crate::query::MAX_REQUEST_BYTES)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Zstd)
    };
}
pub(crate) use service;

/// A response with the position of its answer in the metadata. The server moves it to the trailers,
/// so that it reflects what was actually sent.
pub fn respond<T>(answer: Answer<T>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(answer.body);
    add_metadata(response.metadata_mut(), &answer.position.metadata());
    response
}

/// What ends a stream from outside: the caller's deadline, and the connection.
pub fn limits<T>(request: &tonic::Request<T>) -> Limits {
    Limits {
        time: deadline::of_stream(request.metadata().as_ref()),
        closing: request.extensions().get().cloned(),
    }
}

/// The protobuf form of an instant.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        // In chrono a leap second counts nanoseconds beyond 999,999,999, which Timestamp forbids.
        nanos: time.timestamp_subsec_nanos().min(999_999_999) as i32,
    }
}

/// The one of a closed set that has this number in the protobuf form `P`, whose `name` the error lists. Refused are an
/// unspecified one, and a number that only newer clients know.
///
/// # Errors
/// INVALID_ARGUMENT: none has this number. The error names `field`, and lists all names.
pub fn word<T: Copy, P: From<T> + Into<i32>, const N: usize>(
    field: &str,
    number: i32,
    all: [T; N],
    name: fn(&P) -> &'static str,
) -> Result<T, Error> {
    one_of(
        field,
        all,
        |one| name(&P::from(one)),
        |one| P::from(one).into() == number,
    )
}

/// The one of a closed set that a filter names as [`word`] does. An unspecified one counts as absent.
///
/// # Errors
/// As [`word`].
pub fn word_of_filter<T: Copy, P: From<T> + Into<i32>, const N: usize>(
    field: &str,
    number: Option<i32>,
    all: [T; N],
    name: fn(&P) -> &'static str,
) -> Result<Option<T>, Error> {
    let number = number.filter(|number| *number != 0);
    number
        .map(|number| word(field, number, all, name))
        .transpose()
}

/// How deep a `google.protobuf.Struct` is nested at most. Clients refuse messages that are nested deeper than 100 levels, and
/// each level of JSON takes three.
const MAX_NESTING: usize = 24;
/// The largest integer up to which a double holds each.
const MAX_EXACT: u64 = 1 << 53;

/// The protobuf form of a JSON object. Integers that a double can't hold, and values that are nested too deep, become texts.
pub fn structure(object: serde_json::Value) -> Struct {
    match value(object, 0).kind {
        Some(Kind::StructValue(structure)) => structure,
        _ => Struct::default(),
    }
}

fn value(json: serde_json::Value, depth: usize) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Array(_) | Json::Object(_) if depth == MAX_NESTING => {
            Kind::StringValue(json.to_string())
        }
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(truth),
        Json::Number(number) => {
            let integer = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            match number.as_f64() {
                Some(double) if integer.is_none_or(|integer| integer <= MAX_EXACT) => {
                    Kind::NumberValue(double)
                }
                _ => Kind::StringValue(number.to_string()),
            }
        }
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            let values = items.into_iter().map(|item| value(item, depth + 1));
            Kind::ListValue(ListValue {
                values: values.collect(),
            })
        }
        Json::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, field)| (name, value(field, depth + 1)));
            Kind::StructValue(Struct {
                fields: fields.collect(),
            })
        }
    };
    Value { kind: Some(kind) }
}

/// The page that the fields `page_size` and `page_token` ask for.
pub fn page(size: i32, token: String) -> PageRequest {
    PageRequest { size, token }
}

/// An instant of a request, truncated to microseconds.
///
/// # Errors
/// INVALID_ARGUMENT, naming `field`: it lies before the year 1, or its nanoseconds are out of range.
pub fn time(field: &str, time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>, Error> {
    const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let read = |time: Timestamp| {
        let nanos = u32::try_from(time.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?;
        let seconds = Some(time.seconds).filter(|seconds| YEARS.contains(seconds))?;
        DateTime::from_timestamp(seconds, nanos - nanos % 1_000)
    };
    let read = |time| {
        read(time).ok_or_else(|| Error::invalid(field, "is not a valid google.protobuf.Timestamp"))
    };
    time.map(read).transpose()
}

/// A past instant of a request, truncated to microseconds.
///
/// # Errors
/// As [`time`], and INVALID_ARGUMENT: it lies ahead.
pub fn past_time(field: &str, time: Option<Timestamp>) -> Result<Option<DateTime<Utc>>, Error> {
    let time = self::time(field, time)?;
    time.map(|time| check_past(field, time)).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_keeps_its_values_as_a_struct() {
        let object = json!({"text": "a", "flag": false, "none": null, "list": [1, -0.5, {}], "large": 9_007_199_254_740_993_u64});
        let found = structure(object).fields;
        let kind = |name: &str| found[name].kind.clone().unwrap();
        assert_eq!(kind("text"), Kind::StringValue("a".into()));
        assert_eq!(kind("flag"), Kind::BoolValue(false));
        assert_eq!(kind("none"), Kind::NullValue(0));
        assert_eq!(kind("large"), Kind::StringValue("9007199254740993".into()));
        let Kind::ListValue(list) = kind("list") else {
            panic!("not a list");
        };
        assert_eq!(list.values[0].kind, Some(Kind::NumberValue(1.0)));
        assert_eq!(list.values[1].kind, Some(Kind::NumberValue(-0.5)));
        assert_eq!(
            list.values[2].kind,
            Some(Kind::StructValue(Struct::default()))
        );
    }

    #[test]
    fn what_is_nested_deep_stays_readable() {
        use prost::Message;
        let mut deep = json!({"end": true});
        for _ in 0..200 {
            deep = json!({"in": deep});
        }
        let bytes = structure(deep).encode_to_vec();
        assert!(Struct::decode(bytes.as_slice()).is_ok());
    }
}
