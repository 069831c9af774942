//! The OpenAPI 3.1 document of the REST surface.
//!
//! It merges the documentation of the routes and adds to each operation what all have in common:
//! the headers that it reads and sends, and every error that it may return, with examples made by
//! the code that makes the errors.

use std::collections::HashSet;

use http::StatusCode;
use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayItems, SchemaType};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Content, ContentBuilder, Info, License, Object, ObjectBuilder, OpenApi,
    OpenApiBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema, Server, Type,
};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::parameters::QueryParameters;
use super::{consistency, layers, surface, version};
use crate::error::{Code, Error, FieldViolation, PROBLEM_JSON, Problem};
use crate::operations;
use crate::query::consistency as demand;
use crate::query::lag::not_served;
use crate::query::rest::DomainName;
use crate::query::watch::sse::EVENT_STREAM;
use crate::query::{ConsistencyToken, Position};

/// The whole document. `domains` is the documentation of the domains' routes, `names` are the names
/// of all domains.
pub fn document(domains: OpenApi, names: &[&str]) -> OpenApi {
    let views: HashSet<String> = domains.paths.paths.keys().cloned().collect();
    let lag = consistency::routes().into_openapi();
    let lag_paths: HashSet<String> = lag.paths.paths.keys().cloned().collect();
    let mut document = frame();
    for part in [
        domains,
        lag,
        operations::routes().into_openapi(),
        version::routes().into_openapi(),
    ] {
        document.merge(part);
    }
    for (path, item) in &mut document.paths.paths {
        let source = if views.contains(path) {
            Source::View
        } else if lag_paths.contains(path) {
            Source::Lag
        } else {
            Source::Other
        };
        for (operation, reads) in [(&mut item.get, true), (&mut item.post, false)] {
            if let Some(operation) = operation {
                let source = if has_no_position(operation) {
                    Source::Other
                } else {
                    source
                };
                // Work that is handed out, and streams, have positions, and are no reads.
                let demands = source == Source::View
                    && (reads || path.ends_with(":batchGet"))
                    && !is_stream(operation);
                complete(operation, reads, source, demands);
            }
        }
    }
    let requests = request_schemas(&document);
    let schemas = &mut document.components.get_or_insert_default().schemas;
    for schema in schemas.keys().cloned().collect::<Vec<_>>() {
        if let Some(whole) = flattened(&schemas[&schema], |name| schemas.get(name)) {
            schemas.insert(schema, RefOr::T(Schema::Object(whole)));
        }
    }
    for (name, schema) in schemas {
        leave_out_null(schema);
        let RefOr::T(Schema::Object(schema)) = schema else {
            continue;
        };
        if *name == DomainName::name() {
            schema.enum_values = Some(names.iter().map(|name| json!(name)).collect());
        }
        // A type that is read back from the database may refuse further fields, but callers must
        // take those of later releases.
        if !requests.contains(&format!("#/components/schemas/{name}")) {
            schema.additional_properties = None;
        }
    }
    let groups = group_tags(&mut document);
    document.extensions = Some([("x-tagGroups", groups)].into_iter().collect());
    document
}

/// Whether the answer of a domain's operation reflects no position: it writes, or it checks what is stored.
fn has_no_position(operation: &Operation) -> bool {
    let extensions = operation.extensions.as_ref();
    let has = |name| extensions.is_some_and(|extensions| extensions.contains_key(name));
    has("x-writes") || has("x-unpositioned")
}

/// One object with the properties of all parts of a schema; `None` if it is not made of parts. utoipa makes parts of a
/// flattened field; generated clients have simpler types of one object.
fn flattened<'s>(
    schema: &RefOr<Schema>,
    named: impl Fn(&str) -> Option<&'s RefOr<Schema>>,
) -> Option<Object> {
    let RefOr::T(Schema::AllOf(parts)) = schema else {
        return None;
    };
    let mut whole = Object::with_type(Type::Object);
    whole.description.clone_from(&parts.description);
    for part in &parts.items {
        let part = match part {
            RefOr::Ref(reference) => named(reference.ref_location.rsplit('/').next()?)?,
            part => part,
        };
        let RefOr::T(Schema::Object(part)) = part else {
            return None;
        };
        whole.properties.extend(part.properties.clone());
        whole.required.extend(part.required.iter().cloned());
    }
    Some(whole)
}

/// The references to the schemas of the requests' bodies.
fn request_schemas(document: &OpenApi) -> HashSet<String> {
    let items = document.paths.paths.values();
    let bodies = items.filter_map(|item| item.post.as_ref()?.request_body.as_ref());
    let contents = bodies.flat_map(|body| match body {
        RefOr::T(body) => body.content.values().collect(),
        RefOr::Ref(_) => Vec::new(),
    });
    let references = contents.filter_map(|content| match content {
        RefOr::T(content) => match content.schema.as_ref()? {
            RefOr::Ref(reference) => Some(reference.ref_location.clone()),
            RefOr::T(_) => None,
        },
        RefOr::Ref(_) => None,
    });
    references.collect()
}

/// The tags after those of the domains, in groups.
const GROUPS: [(&str, &[&str]); 2] = [
    ("Consistency", &["consistency"]),
    ("Operations", &["dead letters", "projections", "version"]),
];

/// Sorts the tags: the domains' first, then those of [`GROUPS`]. Returns the groups, for pages.
fn group_tags(document: &mut OpenApi) -> Value {
    let others: Vec<&str> = GROUPS.iter().flat_map(|(_, tags)| *tags).copied().collect();
    let tags = document.tags.get_or_insert_default();
    tags.sort_by_key(|tag| others.iter().position(|other| tag.name == *other));
    let views = tags.iter().map(|tag| tag.name.as_str());
    let views: Vec<&str> = views.filter(|name| !others.contains(name)).collect();
    let mut groups = vec![json!({"name": "Views", "tags": views})];
    groups.extend(GROUPS.map(|(name, tags)| json!({"name": name, "tags": tags})));
    json!(groups)
}

/// What the answers of an operation are made from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A domain's view: they have a position, and headers that say how far they can be relied on.
    View,
    /// The progress of the views: they have a position.
    Lag,
    /// Anything else.
    Other,
}

/// Makes a schema say that a value that is not known is left out. utoipa describes an `Option` as a
/// value that may be `null`, which the API never sends.
fn leave_out_null(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::Ref(_) => {}
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|one| *one != Type::Null);
                if let [only] = types.as_slice() {
                    object.schema_type = SchemaType::Type(only.clone());
                }
            }
            object.default = object.default.take().filter(|value| !value.is_null());
            object.properties.values_mut().for_each(leave_out_null);
        }
        RefOr::T(Schema::Array(array)) => {
            array.schema_type = SchemaType::Type(Type::Array);
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                leave_out_null(items);
            }
        }
        RefOr::T(Schema::OneOf(one_of)) => {
            one_of.items.retain(|item| !is_null(item));
            one_of.items.iter_mut().for_each(leave_out_null);
            if let [only] = one_of.items.as_slice() {
                *schema = only.clone();
            }
        }
        RefOr::T(_) => {}
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

/// The document without any path: its introduction, tags and shared components.
fn frame() -> OpenApi {
    let info = Info::builder()
        .title("sightline")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(introduction()))
        .license(Some(
            License::builder()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ))
        .build();
    let tag = |name, description| {
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    };
    OpenApiBuilder::new()
        .info(info)
        // Relative to the document: also right behind a proxy that adds a prefix to the path.
        .servers(Some([Server::new(".")]))
        // There is no authentication yet.
        .security(Some([]))
        .tags(Some([
            tag(
                "consistency",
                "How far each view is behind the log, and whether its books balance.",
            ),
            tag(
                "version",
                "The version that runs, and the domains that it serves.",
            ),
        ]))
        .components(Some(shared()))
        .build()
}

/// The query parameters that the document has.
pub fn query_parameters(document: &OpenApi) -> QueryParameters {
    let paths = document.paths.paths.iter();
    let gets = paths.filter_map(|(path, item)| Some((path, item.get.as_ref()?)));
    gets.map(|(path, get)| {
        let parameters = get.parameters.iter().flatten();
        let names = parameters.filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                Some(parameter.name.clone())
            }
            _ => None,
        });
        (path.clone(), names.collect())
    })
    .collect()
}

/// The document as it is served and committed: indented, with a newline at the end.
///
/// # Errors
/// The document cannot be written as JSON.
pub fn to_json(document: &OpenApi) -> Result<String, Error> {
    let mut text = document.to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

const INTRODUCTION: &str = "Read models of the users that the User Service publishes events about, one view per consuming \
    team. gRPC gives the same answers.\n\n\
    ## Begin here\n\n\
    1. [`GET /v1/order/customers/{userId}`](#tag/order/GET/v1/order/customers/{userId}) answers what is known of one user. \
       The examples name users that `sightline dev` has, so they work there as they are. Only ids of dead letters, cursors and \
       page tokens are new in each database: copy them from an answer.\n\
    2. A value that is not known is absent, never `null`. `staleFields` names what has changed to something unknown.\n\
    3. Every answer from a view carries the position that it reflects in `Sightline-Consistency-Token`, also a 304 or 404, \
       and says in `Sightline-State`, `Sightline-Lag-Seconds` and `Sightline-Incomplete` how far it can be relied on.\n\n\
    **Authentication:** there is none yet. Keep the port inside a trusted network.\n\n\
    **Deadlines:** send `Request-Timeout: 0.5` to get an answer within half a second; without it, within 10 seconds. \
    After that time the answer is 504.\n\n\
    **Formats:** times are RFC 3339 in UTC. Ids are opaque strings, percent-encoded in paths. Lists come in pages: send \
    `nextPageToken` back as `pageToken` until it is absent.\n\n\
    ## Errors\n\n\
    Errors are `application/problem+json` (RFC 9457). Decide by `reason`, which is stable.\n\n\
    A request whose line and header fields are larger than 32 KiB is answered with 431, without a body: send ids by POST \
    `:batchGet`.\n\n\
    | Reason | Status | What to do |\n|---|---|---|\n";

fn introduction() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut codes = Code::ALL.to_vec();
    codes.sort_by_key(|code| code.http());
    for code in codes {
        let (reason, status) = (code.reason(), code.http().as_u16());
        text.push_str(&format!("| `{reason}` | {status} | {} |\n", code.advice()));
    }
    text
}

/// A header in the document.
struct Header {
    /// The name of its component.
    component: &'static str,
    name: &'static str,
    description: &'static str,
    example: &'static str,
}

impl Header {
    /// A reference to it as a header of a response.
    fn reference(&self) -> Ref {
        Ref::new(format!("#/components/headers/{}", self.component))
    }
}

/// Headers that every operation reads.
const REQUEST_HEADERS: &[Header] = &[
    Header {
        component: "RequestTimeout",
        name: "Request-Timeout",
        description: "How many seconds the caller waits for the answer; decimals are allowed. 10 by default; more than 600 counts as 600. \
         After that time the answer is 504.",
        example: "2.5",
    },
    Header {
        component: "RequestId",
        name: "X-Request-Id",
        description: "The caller's id of this request: up to 128 letters, digits, `-`, `_`, `.`. Any other value is replaced \
         by a new id.",
        example: "checkout-7f3a",
    },
    Header {
        component: "Traceparent",
        name: "Traceparent",
        description: "The caller's trace (W3C Trace Context); of a later version, its first four fields are read.",
        example: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
];
/// What reads of a domain's view read in addition.
const CONSISTENCY: Header = Header {
    component: "Consistency",
    name: "Sightline-Consistency",
    description: "How current the answer must be. `eventual`, the default, accepts the current state of the view; \
         `at-least` demands what `Sightline-Consistency-Token` names; `max-lag=<seconds>` an answer that is at most so old; \
         `latest` the end of the log at the time of the call.",
    example: "at-least",
};
const DEMANDED_TOKEN: Header = Header {
    component: "DemandedToken",
    name: "Sightline-Consistency-Token",
    description: "What the answer must not be older than, with `at-least`: the token of another answer (of any domain), the \
         Kafka acknowledgement of a record as `topic/partition@offset`, or `event:` and a percent-encoded event id. Several are \
         separated by commas.",
    example: "user.events/3@41",
};
const WAIT: Header = Header {
    component: "Wait",
    name: "Sightline-Wait",
    description: "How many seconds to wait for what is demanded, from 0 to 30; 1 by default. Then the answer is 504.",
    example: "2.5",
};
const ON_TIMEOUT: Header = Header {
    component: "OnTimeout",
    name: "Sightline-On-Timeout",
    description: "`serve-stale` asks for the answer that there is, if what is demanded does not come in time; the answer then has \
         `Sightline-Stale`. `fail` is the default.",
    example: "serve-stale",
};
/// What demands are made with.
const DEMANDS: [&Header; 4] = [&CONSISTENCY, &DEMANDED_TOKEN, &WAIT, &ON_TIMEOUT];
/// What reads by GET of what has a position read in addition.
const IF_NONE_MATCH: Header = Header {
    component: "IfNoneMatch",
    name: "If-None-Match",
    description: "The ETags of answers that the caller has. If one of them is current, the answer is 304.",
    example: "W/\"pZGm1Av0IEBKARczz7exkA\"",
};

/// Headers of answers.
const TOKEN: Header = Header {
    component: "ConsistencyToken",
    name: "Sightline-Consistency-Token",
    description: "The position that the answer reflects, opaque, at most 4 KiB.",
    example: "AQt1c2VyLmV2ZW50cwF_h7Fx0Fk2lwED1fgC",
};
const STATE: Header = Header {
    component: "State",
    name: "Sightline-State",
    description: "The worst state of the partitions that the answer depends on: `caught_up`, `catching_up`, `rebuilding`, \
         `paused`, `stalled` or `failed`. Absent before the first reading.",
    example: "caught_up",
};
const LAG_SECONDS: Header = Header {
    component: "LagSeconds",
    name: "Sightline-Lag-Seconds",
    description: "The age in seconds of the oldest record that is not applied; absent where it is unknown.",
    example: "0",
};
const INCOMPLETE: Header = Header {
    component: "Incomplete",
    name: "Sightline-Incomplete",
    description: "`dead-letters` if the answer is about one user, and events under that user's key are open dead letters: \
         something that happened is missing from it. Absent otherwise.",
    example: "dead-letters",
};
const STALE: Header = Header {
    component: "Stale",
    name: "Sightline-Stale",
    description: "The answer is older than was demanded, as `Sightline-On-Timeout: serve-stale` allows: the reason of the error \
         that the caller would have got otherwise, such as `DEADLINE_EXCEEDED`. Absent otherwise.",
    example: "DEADLINE_EXCEEDED",
};
const PARKED_KEYS: Header = Header {
    component: "ParkedKeys",
    name: "Sightline-Parked-Keys",
    description: "How many keys are parked behind dead letters, so that events of them are missing; on answers about many users, \
         where more than `eventual` was demanded.",
    example: "0",
};
const ETAG: Header = Header {
    component: "ETag",
    name: "ETag",
    description: "A weak ETag: a hash of the body.",
    example: "W/\"pZGm1Av0IEBKARczz7exkA\"",
};
const REQUEST_ID: Header = Header {
    component: "RequestId",
    name: "X-Request-Id",
    description: "The id of this request, from the caller or new. The gateway's log lines carry it.",
    example: "checkout-7f3a",
};
const RETRY_AFTER: Header = Header {
    component: "RetryAfter",
    name: "Retry-After",
    description: "The number of seconds after which to try again.",
    example: "1",
};

/// Errors that any operation may return. An operation that may return 404 documents that itself.
const ANY: &[Code] = &[
    Code::InvalidArgument,
    Code::HostNotAllowed,
    Code::NotAcceptable,
    Code::Internal,
    Code::Overloaded,
    Code::DeadlineExceeded,
];
/// Errors that any read of a domain's view may return in addition.
const OF_VIEW: &[Code] = &[Code::DeadLettered, Code::KafkaUnavailable];
/// Errors that any operation with a request body may return in addition.
const WITH_BODY: &[Code] = &[Code::PayloadTooLarge, Code::UnsupportedMediaType];

/// One error of each code of [`ANY`], [`OF_VIEW`] and [`WITH_BODY`], made as at runtime.
fn examples() -> Vec<Error> {
    let incomplete = Position {
        is_ready: false,
        ..ConsistencyToken::default().into()
    };
    let mut examples = vec![
        Error::invalid("userId", "must be at most 255 characters long"),
        layers::host_not_allowed(),
        layers::not_acceptable(),
        Error::payload_too_large(),
        layers::unsupported_media_type(),
        Error::internal(""),
        surface::overloaded(),
        sqlx::Error::PoolTimedOut.into(),
        Error::deadline_exceeded(),
    ];
    let letter = Uuid::from_u128(0x0192_6f3e_7c1a_7b2e_9d35_4f5a_6b7c_8d9e);
    examples.extend([
        demand::dead_lettered("order", letter),
        demand::key_parked("order", letter),
        demand::stopped("order", "is paused (maintenance)"),
        demand::partition_waits(Some(412.0)),
        demand::kafka_unavailable(),
    ]);
    examples.extend(incomplete.check_ready().err());
    examples
}

/// All errors of a status as the content of one response. `reason` distinguishes codes that share a
/// status.
fn problem(status: StatusCode) -> Content {
    let errors = examples().into_iter();
    problems(
        errors
            .filter(|error| error.code().http() == status)
            .map(|error| (error.code(), json!(error.problem()))),
    )
}

/// The content of an error response, with an example for each code.
fn problems(examples: impl IntoIterator<Item = (Code, Value)>) -> Content {
    let examples = examples.into_iter().map(|(code, problem)| {
        let example = ExampleBuilder::new().value(Some(problem));
        (code.reason(), example.build())
    });
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .examples_from_iter(examples)
        .build()
}

/// The components that operations refer to.
fn shared() -> Components {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let mut shared = Components::new();
    for schema in [
        (Problem::name(), Problem::schema()),
        (FieldViolation::name(), FieldViolation::schema()),
    ] {
        shared.schemas.insert(schema.0.into_owned(), schema.1);
    }
    for header in REQUEST_HEADERS
        .iter()
        .chain(DEMANDS)
        .chain([&IF_NONE_MATCH])
    {
        // Pages would send an example of an optional parameter with every call that is tried.
        let description = format!("{} For example `{}`.", header.description, header.example);
        let parameter = ParameterBuilder::new()
            .name(header.name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(text()));
        let parameter = RefOr::T(parameter.build());
        shared.parameters.insert(header.component.into(), parameter);
    }
    for sent in [
        TOKEN,
        STATE,
        LAG_SECONDS,
        INCOMPLETE,
        STALE,
        PARKED_KEYS,
        ETAG,
        REQUEST_ID,
        RETRY_AFTER,
    ] {
        let header = HeaderBuilder::new()
            .schema(Some(text()))
            .description(Some(sent.description))
            .example(Some(json!(sent.example)));
        let header = RefOr::T(header.build());
        shared.headers.insert(sent.component.into(), header);
    }
    for code in ANY.iter().chain(OF_VIEW).chain(WITH_BODY) {
        let status = code.http();
        let mut response = ResponseBuilder::new()
            .description(status.canonical_reason().unwrap_or_default())
            .content(PROBLEM_JSON, problem(status))
            .header_ref(REQUEST_ID.name, REQUEST_ID.reference());
        if matches!(
            code,
            Code::Overloaded | Code::DeadlineExceeded | Code::KafkaUnavailable
        ) {
            response = response.header_ref(RETRY_AFTER.name, RETRY_AFTER.reference());
        }
        let response = RefOr::T(response.build());
        shared.responses.insert(component_of(*code), response);
    }
    shared
}

/// The name of the component with the errors of a code's status, such as `BadRequest`.
fn component_of(code: Code) -> String {
    let title = code.http().canonical_reason().unwrap_or_default();
    title.split(' ').collect()
}

/// Whether an operation answers with Server-Sent Events, which have no ETag.
fn is_stream(operation: &Operation) -> bool {
    let response = operation.responses.responses.get("200");
    matches!(response, Some(RefOr::T(response)) if response.content.contains_key(EVENT_STREAM))
}

/// Adds to an operation what all have in common. `reads`: it is a GET. `demands`: a consistency can be demanded of it.
fn complete(operation: &mut Operation, reads: bool, source: Source, demands: bool) {
    let has_position = source != Source::Other;
    let conditional = reads && has_position && !is_stream(operation);
    let parameters = operation.parameters.get_or_insert_default();
    let demand_headers: &[&Header] = if demands { &DEMANDS } else { &[] };
    let if_none_match = conditional.then_some(&IF_NONE_MATCH);
    for header in REQUEST_HEADERS
        .iter()
        .chain(demand_headers.iter().copied())
        .chain(if_none_match)
    {
        let reference = Ref::new(format!("#/components/parameters/{}", header.component));
        parameters.push(RefOr::Ref(reference));
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in body.content.values_mut() {
            if let RefOr::T(content) = content
                && let Some(schema) = &mut content.schema
            {
                leave_out_null(schema);
            }
        }
    }
    let responses = &mut operation.responses.responses;
    if conditional {
        let not_modified =
            Response::new("An ETag in If-None-Match is current: the caller has this answer");
        responses.insert("304".into(), RefOr::T(not_modified));
    }
    let of_view: &[&Header] = match source {
        Source::View if demands => &[
            &TOKEN,
            &STATE,
            &LAG_SECONDS,
            &INCOMPLETE,
            &STALE,
            &PARKED_KEYS,
        ],
        Source::View => &[&TOKEN, &STATE, &LAG_SECONDS, &INCOMPLETE],
        Source::Lag => &[&TOKEN],
        Source::Other => &[],
    };
    for (status, response) in responses.iter_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        let mut sends = vec![&REQUEST_ID];
        match status.as_str() {
            "200" | "304" => {
                sends.extend(of_view);
                sends.extend(has_position.then_some(&ETAG));
            }
            "400" => {
                sends.extend(has_position.then_some(&TOKEN));
                let problem = RefOr::T(bad_request(response));
                response.content.insert(PROBLEM_JSON.into(), problem);
            }
            "404" => {
                sends.extend(of_view);
                let problem = RefOr::T(not_found(response));
                response.content.insert(PROBLEM_JSON.into(), problem);
            }
            _ => {}
        }
        for header in sends {
            let reference = RefOr::Ref(header.reference());
            response.headers.insert(header.name.into(), reference);
        }
    }
    let of_view: &[Code] = if demands { OF_VIEW } else { &[] };
    let with_body = if reads { &[] } else { WITH_BODY };
    for code in ANY.iter().chain(of_view).chain(with_body) {
        let reference: RefOr<Response> = RefOr::Ref(Ref::from_response_name(component_of(*code)));
        let status = code.http().as_str().to_owned();
        responses.entry(status).or_insert(reference);
    }
}

/// The errors with status 400: those of any operation, and the operation's own.
fn bad_request(response: &Response) -> Content {
    let any = examples().into_iter();
    let any = any.filter(|error| error.code() == Code::InvalidArgument);
    let any = any.map(|error| (error.code(), json!(error.problem())));
    let own = own_problem(response).map(|problem| (Code::ResponseTooLarge, problem));
    problems(any.chain(own))
}

/// The problem that an operation documents for a status itself, if it does.
fn own_problem(response: &Response) -> Option<Value> {
    match response.content.get(PROBLEM_JSON) {
        Some(RefOr::T(content)) => content.example.clone(),
        _ => None,
    }
}

/// The errors with status 404: the operation's own, if it documents an example, and that of a
/// domain that this process does not serve.
fn not_found(response: &Response) -> Content {
    let own = own_problem(response).map(|problem| (Code::NotFound, problem));
    let elsewhere = (Code::DomainNotServed, json!(not_served().problem()));
    problems(own.into_iter().chain([elsewhere]))
}
