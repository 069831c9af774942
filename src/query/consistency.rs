//! How current the caller demands its answer to be: the header (or metadata key)
//! `Sightline-Consistency`.
//!
//! A demand that the gateway does not offer is refused, never ignored: the caller would take an old
//! answer for a current one.

use http::{HeaderMap, HeaderName};

use super::deadline;
use super::token::ConsistencyToken;
use crate::error::{Code, Error, TOKEN_HEADER};

/// The header of REST and the metadata key of gRPC.
pub const CONSISTENCY_HEADER: HeaderName = HeaderName::from_static("sightline-consistency");

/// Accepts a request that may be answered from the view as it is now (`eventual`, which is the
/// default).
///
/// # Errors
/// INVALID_ARGUMENT: the demand is malformed. CONSISTENCY_UNSUPPORTED: the gateway does not offer
/// it.
pub fn check_demand(headers: &HeaderMap) -> Result<(), Error> {
    let mut demands = headers.get_all(CONSISTENCY_HEADER).iter();
    let demand = match demands.next() {
        None => "eventual",
        Some(value) => value.to_str().map_err(|_| malformed())?.trim(),
    };
    if demands.next().is_some() {
        return Err(Error::invalid(
            "Sightline-Consistency",
            "must be given once",
        ));
    }
    match demand {
        "eventual" if headers.contains_key(TOKEN_HEADER) => {
            return Err(Error::invalid(
                "Sightline-Consistency-Token",
                "is allowed only with the consistency at-least",
            ));
        }
        "eventual" => return Ok(()),
        "at-least" => {
            for value in headers.get_all(TOKEN_HEADER) {
                let list = value.to_str().unwrap_or_default();
                for token in list.split(',').map(str::trim) {
                    if token.strip_prefix("event:").is_none_or(str::is_empty) {
                        ConsistencyToken::parse(token).map_err(|problem| {
                            Error::invalid("Sightline-Consistency-Token", problem.to_string())
                        })?;
                    }
                }
            }
        }
        "latest" => {}
        other => {
            let seconds = other.strip_prefix("max-lag=").ok_or_else(malformed)?;
            deadline::seconds(seconds).ok_or_else(malformed)?;
        }
    }
    Err(Error::new(
        Code::ConsistencyUnsupported,
        "This release offers the consistency eventual only, which is the default; the other levels are not built yet.",
    ))
}

fn malformed() -> Error {
    Error::invalid(
        "Sightline-Consistency",
        "must be eventual, which is the default; at-least, latest and max-lag=<seconds> are reserved for later releases",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&'static str, &'static str)]) -> Option<Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        check_demand(&headers).err().map(|e| e.code())
    }

    #[test]
    fn only_eventual_is_accepted_and_no_demand_is_ignored() {
        let demand = "sightline-consistency";
        let token = "sightline-consistency-token";
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[(demand, "eventual")]), None);
        for unsupported in [
            &[(demand, "latest")][..],
            &[(demand, "max-lag=2.5")],
            &[(demand, "at-least"), (token, "t/3@41")],
            &[(demand, "at-least"), (token, "t/3@41, event:a%2Cb,AQ")],
            &[(demand, "at-least")],
            &[(demand, "latest"), (token, "AQ")],
        ] {
            assert_eq!(check(unsupported), Some(Code::ConsistencyUnsupported));
        }
        for malformed in [
            &[(demand, "strong")][..],
            &[(demand, "")],
            &[(demand, "max-lag=")],
            &[(demand, "max-lag=-1")],
            &[(demand, "eventual"), (demand, "latest")],
            &[(demand, "at-least"), (token, "%")],
            &[(demand, "at-least"), (token, "event:")],
            &[(token, "t/3@41")],
        ] {
            assert_eq!(
                check(malformed),
                Some(Code::InvalidArgument),
                "{malformed:?}"
            );
        }
    }
}
