//! The query parameters that reads take.

use std::collections::BTreeMap;

use axum::extract::{MatchedPath, Request};
use http::Method;

use crate::error::Error;
use crate::query::rest::Query;

/// The names of the query parameters of each path's GET.
pub struct QueryParameters(BTreeMap<String, Vec<String>>);

impl FromIterator<(String, Vec<String>)> for QueryParameters {
    fn from_iter<I: IntoIterator<Item = (String, Vec<String>)>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}

impl QueryParameters {
    /// Refuses a read with a query parameter that its path does not have: a misspelled filter would answer more than was asked
    /// for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: it has one, or its query is malformed.
    pub fn check(&self, request: &Request) -> Result<(), Error> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(());
        }
        let path = request.extensions().get::<MatchedPath>();
        let path = path.map_or("", MatchedPath::as_str);
        match self.0.get(path) {
            Some(names) => Query::of(request.uri())?.only(names, |name| self.takers(path, name)),
            None => Ok(()),
        }
    }

    /// The paths of the same area (`/v1/order`) that take a parameter.
    fn takers(&self, path: &str, parameter: &str) -> Vec<&str> {
        let area = |path: &'_ str| path.split('/').nth(2).map(str::to_owned);
        let takes = self.0.iter().filter(|(other, names)| {
            area(other) == area(path) && names.iter().any(|name| name == parameter)
        });
        takes.map(|(other, _)| other.as_str()).collect()
    }
}
