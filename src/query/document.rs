//! Answers that are sent as they are stored.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::db;
use crate::error::Error;

/// A `T` as JSON. REST sends it as it is stored, gRPC reads it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Document<T> {
    json: Box<RawValue>,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

/// A stored document that holds an answer, and what later events depend on beside it.
#[derive(Deserialize)]
struct WithAnswer<'d> {
    #[serde(borrow)]
    answer: Option<&'d RawValue>,
}

impl<T: Serialize + DeserializeOwned> Document<T> {
    /// A document that is stored in this table, and is an answer as a whole.
    ///
    /// # Errors
    /// [`db::Unreadable`]: it is not JSON.
    pub fn stored(document: &str, table: &'static str) -> Result<Self, sqlx::Error> {
        let json: &RawValue = db::of_document(document, table)?;
        Ok(json.to_owned().into())
    }

    /// The answer in a document that is stored in this table; `None` if it holds none.
    ///
    /// # Errors
    /// [`db::Unreadable`]: it is not JSON.
    pub fn answer_in(document: &str, table: &'static str) -> Result<Option<Self>, sqlx::Error> {
        let WithAnswer { answer } = db::of_document(document, table)?;
        Ok(answer.map(|answer| answer.to_owned().into()))
    }

    /// The document of a value.
    ///
    /// # Errors
    /// INTERNAL: the value is not JSON.
    pub fn of(value: &T) -> Result<Self, Error> {
        Ok(to_raw_value(value)?.into())
    }

    /// The value.
    ///
    /// # Errors
    /// INTERNAL: it is not a `T`; newer code wrote it, or it is damaged.
    pub fn read(&self) -> Result<T, Error> {
        let unreadable = |_| Error::internal("this release can't read a stored answer");
        serde_json::from_str(self.json.get()).map_err(unreadable)
    }

    /// The values of documents, as messages.
    ///
    /// # Errors
    /// INTERNAL, as [`read`](Self::read).
    pub fn read_all<M: From<T>>(documents: &[Self]) -> Result<Vec<M>, Error> {
        let messages = documents.iter().map(|document| Ok(document.read()?.into()));
        messages.collect()
    }
}

impl<T> From<Box<RawValue>> for Document<T> {
    fn from(json: Box<RawValue>) -> Self {
        Self {
            json,
            of: PhantomData,
        }
    }
}
