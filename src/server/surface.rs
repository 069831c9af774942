//! The two surfaces, and how each refuses a call.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::HeaderName;

use crate::error::{Code, Error};

/// The header, or trailer, of a gRPC call's status.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The surface that a call came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// gRPC.
    Grpc,
    /// REST: HTTP/JSON.
    Rest,
}

impl Surface {
    /// The error as a response of this surface.
    pub fn refuse(self, error: Error) -> Response {
        match self {
            Self::Grpc => tonic::Status::from(error).into_http(),
            Self::Rest => error.into_response(),
        }
    }

    /// The code of a call that succeeded, in metrics.
    pub(super) fn success(self) -> &'static str {
        match self {
            Self::Grpc => "Ok",
            Self::Rest => "200",
        }
    }

    /// The label of its metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "http",
        }
    }
}

/// The refusal of a call above a limit of calls at once.
pub(super) fn overloaded() -> Error {
    Error::new(
        Code::Overloaded,
        "The gateway has reached its limit of concurrent calls. Try again later.",
    )
    .with_retry_after(Duration::from_secs(1))
}
