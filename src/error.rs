//! The errors of a call, and how each surface (REST, gRPC) returns them.
//!
//! [`Code`] is the only map from a reason to its gRPC code and HTTP status. The caller reads what
//! is wrong, where, and what to do. The inner cause is logged once, where the error becomes an
//! answer, and is never sent.
//!
//! Causes consist of classes, names and numbers. A library's message may quote values, and values
//! are personal data.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use axum::response::IntoResponse;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};
use utoipa::ToSchema;

/// The domain of every `google.rpc.ErrorInfo` that sightline sends.
pub const ERROR_DOMAIN: &str = "sightline";
/// The gRPC metadata key of the consistency token: the position that an answer reflects.
pub const TOKEN_KEY: &str = "sightline-consistency-token";
/// The HTTP header of the consistency token.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static(TOKEN_KEY);
/// The header and metadata key of the worst state of the partitions that an answer depends on.
pub const STATE_HEADER: HeaderName = HeaderName::from_static("sightline-state");
/// The header and metadata key of the age in seconds of the oldest of their records that is not
/// applied.
pub const LAG_SECONDS_HEADER: HeaderName = HeaderName::from_static("sightline-lag-seconds");
/// The header and metadata key that name what is missing from the answer about a user.
pub const INCOMPLETE_HEADER: HeaderName = HeaderName::from_static("sightline-incomplete");
/// The header and metadata key that say why an answer is older than was demanded, with the reason of the error that the caller
/// would have got otherwise.
pub const STALE_HEADER: HeaderName = HeaderName::from_static("sightline-stale");
/// The header and metadata key of the number of keys that are parked in the view, where a demanding read is about many.
pub const PARKED_KEYS_HEADER: HeaderName = HeaderName::from_static("sightline-parked-keys");
/// What an answer says of itself, in all of its headers.
pub const POSITION_HEADERS: [HeaderName; 6] = [
    TOKEN_HEADER,
    STATE_HEADER,
    LAG_SECONDS_HEADER,
    INCOMPLETE_HEADER,
    STALE_HEADER,
    PARKED_KEYS_HEADER,
];

/// Names and values of headers of REST, which are the same as those of gRPC's metadata.
pub type Metadata = Vec<(HeaderName, String)>;
/// The media type of every REST error (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Most violations in one answer. gRPC carries them in its trailers, whose size clients limit.
const MAX_VIOLATIONS: usize = 20;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $reason:literal, $grpc:ident, $http:ident, $advice:literal;)*) => {
        /// The reason why a call failed: one stable word for both surfaces.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the HTTP status.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The stable word that callers may rely on.
            pub const fn reason(self) -> &'static str {
                match self { $(Code::$name => $reason,)* }
            }

            /// What a caller of REST should do about it, in a sentence.
            pub const fn advice(self) -> &'static str {
                match self { $(Code::$name => $advice,)* }
            }

            /// The gRPC status code.
            pub const fn grpc(self) -> tonic::Code {
                match self { $(Code::$name => tonic::Code::$grpc,)* }
            }

            /// The HTTP status.
            pub const fn http(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$http,)* }
            }
        }
    };
}

codes! {
    /// A field, a header or the body is malformed or out of bounds. The violations name it.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, BAD_REQUEST,
        "Correct the fields that `fields` names.";
    /// The answer to a batch would be too large. The detail says how many of the ids fit.
    ResponseTooLarge = "RESPONSE_TOO_LARGE", InvalidArgument, BAD_REQUEST,
        "Ask for fewer ids: `detail` says how many fit.";
    /// The request names a host that is not loopback, and callers are not authenticated.
    HostNotAllowed = "HOST_NOT_ALLOWED", PermissionDenied, FORBIDDEN,
        "Call it by a loopback address, or let it listen on another one.";
    /// The requested thing does not exist: a user or an address not in the view, a dead letter or a domain not at all.
    NotFound = "NOT_FOUND", NotFound, NOT_FOUND,
        "Correct the name of a domain or the id of a dead letter. What a view lacks at the position that the token names may \
         come later.";
    /// This process does not serve the domain; another one may.
    DomainNotServed = "DOMAIN_NOT_SERVED", Unimplemented, NOT_FOUND,
        "Call an instance that serves the domain; `/v1/version` lists the domains of this one.";
    /// The route or method does not exist.
    UnknownPath = "UNKNOWN_PATH", Unimplemented, NOT_FOUND,
        "Correct the path or the port.";
    /// The route does not have this HTTP method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", Unimplemented, METHOD_NOT_ALLOWED,
        "Use a method that the header `Allow` lists.";
    /// The dead letter is already applied or discarded.
    LetterClosed = "LETTER_CLOSED", FailedPrecondition, CONFLICT,
        "Nothing: the dead letter is already applied or discarded.";
    /// No version of the view is being built.
    NoRebuild = "NO_REBUILD", FailedPrecondition, CONFLICT,
        "Start a rebuild first.";
    /// A version of the view is already being built.
    RebuildRunning = "REBUILD_RUNNING", FailedPrecondition, CONFLICT,
        "Wait for the rebuild, or cancel it.";
    /// No version of the view can be switched back to, or dropped.
    NoRetiredVersion = "NO_RETIRED_VERSION", FailedPrecondition, CONFLICT,
        "Nothing: no version is retired.";
    /// The version is behind the live one, so that a switch would go back in time.
    NotCaughtUp = "NOT_CAUGHT_UP", FailedPrecondition, CONFLICT,
        "Wait until the version has caught up: `detail` says how far it is behind.";
    /// Another session reads the view's tables for a long time. A switch would hold up all reads.
    ViewInUse = "VIEW_IN_USE", FailedPrecondition, CONFLICT,
        "Wait for the session that `detail` names, such as a backup, or end it.";
    /// Kafka no longer has the records that the view was made from.
    LogTruncated = "LOG_TRUNCATED", FailedPrecondition, CONFLICT,
        "Decide whether to go on without the lost records (`acceptLoss`).";
    /// A newer release has projected what the call would change.
    NewerCode = "NEWER_CODE", FailedPrecondition, CONFLICT,
        "Call a gateway of the newer release, or resume the domain with `acceptOlderCode`.";
    /// Two versions of the view hold different rows at the same positions.
    ViewsDiffer = "VIEWS_DIFFER", FailedPrecondition, CONFLICT,
        "Find out why the tables that `detail` names differ before you switch.";
    /// A worker no longer holds a notification: its lease has ended and was given to another, or was settled before.
    LeaseLost = "LEASE_LOST", FailedPrecondition, CONFLICT,
        "Drop it: another worker sends it, or it was settled.";
    /// A notification was cancelled, because its user was deleted.
    NotificationCancelled = "NOTIFICATION_CANCELLED", FailedPrecondition, CONFLICT,
        "Drop it, and send nothing.";
    /// The database was restored to an earlier state, and no operator has resumed the domain.
    LeasingHeld = "LEASING_HELD", FailedPrecondition, CONFLICT,
        "Wait until an operator has resumed the domain.";
    /// The chains of the audit log were made with another key than this process has.
    AuditKeyDiffers = "AUDIT_KEY_DIFFERS", FailedPrecondition, CONFLICT,
        "Give the process the key with which the log is written.";
    /// The record that is demanded is a dead letter of the domain.
    DeadLettered = "DEAD_LETTERED", FailedPrecondition, CONFLICT,
        "Retry or discard the dead letter that `detail` names, or read with `eventual`.";
    /// A key on which the answer depends is parked behind a dead letter.
    KeyParked = "KEY_PARKED", FailedPrecondition, CONFLICT,
        "Retry or discard the dead letter that `detail` names, or read with `eventual`.";
    /// What is demanded does not come until an operator acts: the domain is paused, or a partition has failed.
    ProjectionStopped = "PROJECTION_STOPPED", FailedPrecondition, CONFLICT,
        "Wait until an operator has resumed the domain, or read with `eventual`.";
    /// What is demanded is in a partition that was added to its topic, and waits.
    PartitionWaits = "PARTITION_WAITS", FailedPrecondition, CONFLICT,
        "Try again after `Retry-After`, or read with `eventual`.";
    /// The view was rebuilt and changes have moved, so that the cursor would miss them: read from
    /// the beginning.
    Resync = "RESYNC", FailedPrecondition, GONE,
        "Read the feed from the beginning, without a cursor.";
    /// The request accepts none of the encodings that the gateway can send.
    NotAcceptable = "NOT_ACCEPTABLE", InvalidArgument, NOT_ACCEPTABLE,
        "Allow `gzip`, `zstd` or `identity` in `Accept-Encoding`.";
    /// A watcher took nothing for so long that its stream was ended. Its last cursor is still valid.
    ReaderTooSlow = "READER_TOO_SLOW", ResourceExhausted, REQUEST_TIMEOUT,
        "Watch again from the last cursor, and read faster.";
    /// The request body is larger than allowed.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", ResourceExhausted, PAYLOAD_TOO_LARGE,
        "Send at most 1 MiB: ask in several requests.";
    /// The request body is not `application/json`, or it is compressed. A gRPC message is compressed in a way that is not
    /// supported, for which gRPC prescribes UNIMPLEMENTED.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", Unimplemented, UNSUPPORTED_MEDIA_TYPE,
        "Send `Content-Type: application/json`, not compressed.";
    /// A bug of sightline. The gateway's log has the cause under the request's id.
    Internal = "INTERNAL", Internal, INTERNAL_SERVER_ERROR,
        "Report it with the `X-Request-Id`: the gateway's log has the cause under it.";
    /// The call is not a read of a view, so no consistency can be demanded of it.
    ConsistencyUnsupported = "CONSISTENCY_UNSUPPORTED", Unimplemented, NOT_IMPLEMENTED,
        "Leave `Sightline-Consistency` out: this call does not read a view.";
    /// The process already answers as many calls as it allows at once.
    Overloaded = "OVERLOADED", ResourceExhausted, SERVICE_UNAVAILABLE,
        "Try again after `Retry-After`.";
    /// The view was never complete yet: what is missing may still come.
    ViewNotReady = "VIEW_NOT_READY", Unavailable, SERVICE_UNAVAILABLE,
        "Try again after `Retry-After`: the view is being built for the first time.";
    /// Kafka does not answer.
    KafkaUnavailable = "KAFKA_UNAVAILABLE", Unavailable, SERVICE_UNAVAILABLE,
        "Try again after `Retry-After`.";
    /// The database does not answer, refuses the gateway, or does not have this release's schema.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE", Unavailable, SERVICE_UNAVAILABLE,
        "Try again after `Retry-After`; `detail` says whether the schema is missing.";
    /// The answer did not come within the deadline.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, GATEWAY_TIMEOUT,
        "Try again after `Retry-After`, or allow more time.";
}

macro_rules! hints {
    ($($(#[$doc:meta])* $name:ident = $rest:literal, $grpc:literal, $cli:literal;)*) => {
        /// What a caller can do about an error, in a sentence for each surface: over REST in paths, over gRPC in methods, and
        /// on the command line, which calls by REST, in commands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Hint { $($(#[$doc])* $name,)* }

        impl Hint {
            /// Every hint.
            pub const ALL: &[Hint] = &[$(Hint::$name,)*];

            /// The sentence for a caller of REST.
            pub const fn rest(self) -> &'static str {
                match self { $(Hint::$name => $rest,)* }
            }

            /// The sentence for a caller of gRPC.
            pub const fn grpc(self) -> &'static str {
                match self { $(Hint::$name => $grpc,)* }
            }

            /// The sentence for the command line.
            pub const fn cli(self) -> &'static str {
                match self { $(Hint::$name => $cli,)* }
            }
        }
    };
}

hints! {
    /// Read which domains there are.
    ListDomains =
        "/v1/consistency lists the domains that this process serves.",
        "GetConsistency without a domain lists the domains that this process serves.",
        "`sightline status` lists the domains that this process serves.";
    /// Read why partitions do not progress.
    ReadStates =
        "/v1/consistency says what partitions wait for.",
        "GetConsistency says what partitions wait for.",
        "`sightline status` says what partitions wait for.";
    /// Read which dead letters there are.
    ListDeadLetters =
        "/v1/dead-letters lists the dead letters.",
        "ListDeadLetters lists the dead letters.",
        "`sightline dead-letters list` lists the dead letters.";
    /// Read which versions a view has.
    ListVersions =
        "/v1/projections lists the versions.",
        "ListProjections lists the versions.",
        "`sightline projections list` lists the versions.";
    /// Start a rebuild.
    Rebuild =
        "POST /v1/projections/{domain}/rebuild starts a rebuild.",
        "RebuildProjection starts a rebuild.",
        "`sightline projections rebuild <domain>` starts a rebuild.";
    /// Go on without lost records.
    AcceptLoss =
        "To go on without what is lost, rebuild or resume with `acceptLoss`.",
        "To go on without what is lost, rebuild or resume with `accept_loss`.",
        "To go on without what is lost, rebuild or resume with `--accept-loss`.";
    /// Let an older release go on where a newer one has projected.
    AcceptOlderCode =
        "To let this release go on there, resume the domain with `acceptOlderCode`.",
        "To let this release go on there, resume the domain with `accept_older_code`.",
        "To let this release go on there, resume the domain with `--accept-older-code`.";
}

/// One field of a request and what is wrong with it. It never contains the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldViolation {
    /// The field as the request names it: `userIds[3]`, `Request-Timeout`.
    pub field: String,
    /// What is wrong with the field and what it should be.
    pub problem: String,
}

impl FieldViolation {
    fn sentence(&self) -> String {
        format!("{} {}.", self.field, self.problem)
    }

    /// The same violation with the field's name in the protos.
    fn by_proto_name(self) -> Self {
        let field = snake_case(&self.field);
        Self { field, ..self }
    }
}

/// A failed call.
#[derive(Clone)]
pub struct Error(Box<ErrorParts>);

#[derive(Debug, Clone)]
struct ErrorParts {
    code: Code,
    detail: Cow<'static, str>,
    hints: Vec<Hint>,
    fields: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    metadata: Metadata,
    cause: Option<Cow<'static, str>>,
    statement: Option<&'static str>,
}

impl Error {
    /// An error. `detail` says what is wrong and what to do, in sentences without values. All surfaces show it, so it
    /// names no path, method, command, header or field: [`Self::with_hint`] does.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(ErrorParts {
            code,
            detail: detail.into(),
            hints: Vec::new(),
            fields: Vec::new(),
            retry_after: None,
            metadata: Vec::new(),
            cause: None,
            statement: None,
        }))
    }

    /// One field is wrong, by its name in JSON. gRPC says its name in the protos.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::violations(vec![FieldViolation {
            field: field.into(),
            problem: problem.into(),
        }])
    }

    /// An optional field is given without a value.
    pub fn empty(field: impl Into<String>) -> Self {
        Self::invalid(field, "is empty: give it a value, or leave it out")
    }

    /// INVALID_ARGUMENT: the value of a field is not in a closed set of words.
    pub fn not_one_of(field: impl Into<String>, words: &[&str]) -> Self {
        Self::invalid(field, format!("must be one of: {}", words.join(", ")))
    }

    /// Several fields are wrong. The answer names the first twenty.
    pub fn violations(mut fields: Vec<FieldViolation>) -> Self {
        let detail: Cow<_> = match fields.as_slice() {
            [one] => one.sentence().into(),
            many => format!("{} fields are wrong.", many.len()).into(),
        };
        fields.truncate(MAX_VIOLATIONS);
        let mut error = Self::new(Code::InvalidArgument, detail);
        error.0.fields = fields;
        error
    }

    /// The view does not contain `what` (`user`). [`Self::with_metadata`] adds the position that
    /// the view reflects.
    pub fn not_found(what: &'static str) -> Self {
        Self::new(
            Code::NotFound,
            format!("The view has no such {what} at the position that this answer reflects."),
        )
    }

    /// A bug. `cause` is logged, not sent, and must not contain personal data.
    pub fn internal(cause: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            Code::Internal,
            "The gateway failed to answer. The cause is in its log, under the id in x-request-id.",
        )
        .with_cause(cause)
    }

    /// The body of a request is larger than the limit.
    pub fn payload_too_large() -> Self {
        Self::new(
            Code::PayloadTooLarge,
            "The request is larger than 1 MiB. Ask in several requests.",
        )
    }

    /// The answer to a batch would be too large. The first `fitting` of the ids in `field` fit into one answer.
    pub fn response_too_large(field: impl Into<String>, fitting: usize) -> Self {
        let problem =
            format!("name more than one answer of 3 MiB can hold: the first {fitting} fit");
        Self::range_too_large(field, problem)
    }

    /// The answer to a range would be too large; `problem` says how much of it fits into one answer.
    pub fn range_too_large(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let mut error = Self::invalid(field, problem);
        error.0.code = Code::ResponseTooLarge;
        error
    }

    /// The answer did not come in time.
    pub fn deadline_exceeded() -> Self {
        Self::new(
            Code::DeadlineExceeded,
            "The answer did not come within the deadline. Try again, or allow more time.",
        )
        .with_retry_after(Duration::from_secs(1))
    }

    /// Adds what the caller can do about it, in the words of its surface.
    pub fn with_hint(mut self, hint: Hint) -> Self {
        self.0.hints.push(hint);
        self
    }

    /// Adds the inner cause, which is logged, not sent, and must not contain personal data.
    pub fn with_cause(mut self, cause: impl Into<Cow<'static, str>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds the time after which a retry makes sense. REST rounds it up to whole seconds.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds what the answer reflects: what is not found there may be found later.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Adds the name of the statement that failed, for the log: `order/get_customer`.
    pub fn in_statement(mut self, name: &'static str) -> Self {
        self.0.statement = Some(name);
        self
    }

    /// The reason why the call failed.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentences for a caller of any surface.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The fields that are wrong.
    pub fn fields(&self) -> &[FieldViolation] {
        &self.0.fields
    }

    /// The body of this error on REST.
    pub fn problem(&self) -> Problem {
        let status = self.0.code.http();
        Problem {
            problem_type: "about:blank".into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: self.0.sentences(Hint::rest),
            reason: self.0.code.reason().into(),
            fields: self.0.fields.clone(),
        }
    }

    /// The body of this error in a stream of REST that has begun, whose status can't say it any more.
    pub fn into_problem(self) -> Problem {
        self.log();
        self.problem()
    }

    /// Logs the cause. Called once, where the error becomes an answer; the span of the request
    /// carries its id.
    fn log(&self) {
        let ErrorParts {
            code,
            cause: Some(cause),
            statement,
            ..
        } = &*self.0
        else {
            return;
        };
        let reason = code.reason();
        match code {
            Code::Internal => tracing::error!(reason, %cause, statement, "call failed"),
            Code::DeadlineExceeded => tracing::warn!(reason, %cause, statement, "call failed"),
            // The projectors and the lag report an outage of the database; each call would repeat
            // it.
            _ => tracing::debug!(reason, %cause, statement, "call failed"),
        }
    }
}

impl ErrorParts {
    /// The detail and the hints, as a surface words them.
    fn sentences(&self, wording: fn(Hint) -> &'static str) -> String {
        let mut sentences = self.detail.to_string();
        for hint in &self.hints {
            sentences.push(' ');
            sentences.push_str(wording(*hint));
        }
        sentences
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.reason(), self.0.detail)
    }
}

/// Shows the cause, but nothing that came with a request.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("reason", &self.0.code.reason())
            .field("detail", &self.0.detail)
            .field("cause", &self.0.cause)
            .field("statement", &self.0.statement)
            .finish()
    }
}

impl std::error::Error for Error {}

/// A REST error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the reason says more than a type could.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The name of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do.
    pub detail: String,
    /// The stable word to decide by; the same as in gRPC's ErrorInfo.
    pub reason: String,
    /// The fields that are wrong, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldViolation>,
}

impl IntoResponse for Error {
    fn into_response(self) -> axum::response::Response {
        self.log();
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (
            self.0.code.http(),
            [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))],
            body,
        )
            .into_response();
        let headers = response.headers_mut();
        // A shared cache would send one caller's error to another.
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        );
        if let Some(after) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        add_headers(headers, self.0.metadata);
        response
    }
}

/// Adds metadata to the headers of a response of REST.
pub fn add_headers(headers: &mut HeaderMap, metadata: Metadata) {
    for (name, value) in metadata {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
}

/// Adds metadata to a response of gRPC.
pub fn add_metadata(map: &mut MetadataMap, metadata: &Metadata) {
    for (name, value) in metadata {
        let key = MetadataKey::from_bytes(name.as_str().as_bytes());
        if let (Ok(key), Ok(value)) = (key, value.parse()) {
            map.insert(key, value);
        }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        error.log();
        let inner = *error.0;
        let sentences = inner.sentences(Hint::grpc);
        let mut details = ErrorDetails::new();
        details.set_error_info(inner.code.reason(), ERROR_DOMAIN, HashMap::new());
        let fields = inner.fields.into_iter().map(FieldViolation::by_proto_name);
        let fields: Vec<FieldViolation> = fields.collect();
        let message = match fields.as_slice() {
            [one] => one.sentence(),
            _ => sentences,
        };
        for violation in fields {
            details.add_bad_request_violation(violation.field, violation.problem);
        }
        if inner.retry_after.is_some() {
            details.set_retry_info(inner.retry_after);
        }
        let mut metadata = MetadataMap::new();
        add_metadata(&mut metadata, &inner.metadata);
        tonic::Status::with_error_details_and_metadata(
            inner.code.grpc(),
            message,
            details,
            metadata,
        )
    }
}

/// The name of a field in the protos (AIP-193): `user_ids[3]` for `userIds[3]`. A header's name is that of a key of the
/// metadata, which is in lower case.
fn snake_case(field: &str) -> String {
    if !field.starts_with(|c: char| c.is_ascii_lowercase()) {
        return field.to_ascii_lowercase();
    }
    field.chars().fold(String::new(), |mut name, c| {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
        name
    })
}

impl From<serde_json::Error> for Error {
    /// Stored JSON that the code can't read: a bug. Only the location of the error is logged.
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!(
            "stored JSON: {:?} error at line {}, column {}",
            error.classify(),
            error.line(),
            error.column()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_surfaces_return_the_same() {
        let error = Error::invalid("userId", "must not be empty")
            .with_retry_after(Duration::from_millis(1500))
            .with_metadata(vec![(TOKEN_HEADER, "t".to_owned())]);
        let response = error.clone().into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[TOKEN_HEADER], "t");

        let status = tonic::Status::from(error);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.message(), "user_id must not be empty.");
        assert_eq!(status.metadata().get(TOKEN_KEY).unwrap(), "t");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_ARGUMENT", ERROR_DOMAIN)
        );
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "user_id");
        assert_eq!(
            details.retry_info().unwrap().retry_delay,
            Some(Duration::from_millis(1500))
        );
    }

    /// What belongs to one surface: paths and headers to REST, methods and metadata to gRPC, commands and flags to the
    /// command line.
    fn is_of(text: &str) -> [bool; 3] {
        let methods = [
            "GetConsistency",
            "ListDeadLetters",
            "ListProjections",
            "RebuildProjection",
        ];
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        [
            has(&["/v1/", "header", "acceptLoss", "acceptOlderCode"]),
            has(&methods) || has(&["metadata", "accept_"]),
            has(&["`sightline ", "--"]),
        ]
    }

    #[test]
    fn every_hint_is_in_the_words_of_its_surface() {
        for hint in Hint::ALL {
            assert_eq!(is_of(hint.rest()), [true, false, false], "{hint:?}");
            assert_eq!(is_of(hint.grpc()), [false, true, false], "{hint:?}");
            assert_eq!(is_of(hint.cli()), [false, false, true], "{hint:?}");
            // The command line finds the sentences of REST in an answer, and says its own.
            let mut others = Hint::ALL.iter().filter(|other| *other != hint);
            assert!(others.all(|other| !other.rest().contains(hint.rest())));
            let error = Error::new(Code::NotFound, "There is no such thing.").with_hint(*hint);
            let rest = error.problem().detail;
            assert_eq!(rest, format!("There is no such thing. {}", hint.rest()));
            let status = tonic::Status::from(error);
            assert_eq!(
                status.message(),
                format!("There is no such thing. {}", hint.grpc())
            );
        }
    }

    #[test]
    fn metadata_is_named_as_grpc_writes_it() {
        let status = tonic::Status::from(Error::invalid("Sightline-Consistency", "is malformed"));
        assert_eq!(status.message(), "sightline-consistency is malformed.");
        let details = status.get_error_details();
        let violations = details.bad_request().unwrap();
        assert_eq!(
            violations.field_violations[0].field,
            "sightline-consistency"
        );
    }

    #[test]
    fn reasons_are_distinct_words() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(
                code.reason()
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b == b'_')
            );
            assert!(seen.insert(code.reason()));
        }
    }

    #[test]
    fn a_cause_is_never_sent() {
        let error = Error::internal("SQLSTATE 23505");
        assert!(
            !serde_json::to_string(&error.problem())
                .unwrap()
                .contains("23505")
        );
        assert!(!tonic::Status::from(error).to_string().contains("23505"));
    }

    #[test]
    fn an_unavailable_database_is_not_a_bug() {
        let away = Error::from(sqlx::Error::PoolTimedOut);
        assert_eq!(away.code(), Code::DatabaseUnavailable);
        assert!(away.0.retry_after.is_some());
        assert_eq!(Error::from(sqlx::Error::RowNotFound).code(), Code::Internal);
    }
}
