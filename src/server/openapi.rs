//! The API's document (OpenAPI 3.1): what the routes say of themselves, and what holds for all of them:
//! the headers that each understands and sends, and every error that each may answer, with real examples.

use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, Content, ContentBuilder, Info, License, ObjectBuilder, OpenApi, OpenApiBuilder,
        Ref, RefOr, Required, Response, ResponseBuilder, Type,
        example::ExampleBuilder,
        header::HeaderBuilder,
        path::{Operation, ParameterBuilder, ParameterIn},
        tag::TagBuilder,
    },
};

use super::{consistency, http, layers};
use crate::{
    error::{Code, Error, FieldViolation, PROBLEM_JSON, Problem},
    operations,
    query::{consistency::check_demand, lag::not_served},
};

/// The whole document: `domains` is what the domains' routes say of themselves.
pub fn document(domains: OpenApi) -> OpenApi {
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
    let mut document = OpenApiBuilder::new()
        .info(info)
        .tags(Some([
            tag(
                "consistency",
                "How far the views are behind the log, and whether their books balance.",
            ),
            tag("version", "What runs here."),
        ]))
        .components(Some(shared()))
        .build();
    document.merge(domains);
    document.merge(consistency::routes().into_openapi());
    let mut apart = http::version_routes().into_openapi();
    apart.merge(operations::routes().into_openapi());
    let of_no_view: Vec<String> = apart.paths.paths.keys().cloned().collect();
    document.merge(apart);
    for (path, item) in &mut document.paths.paths {
        let of_view = !of_no_view.contains(path);
        for (operation, reads) in [(&mut item.get, true), (&mut item.post, false)] {
            if let Some(operation) = operation {
                complete(operation, reads, of_view);
            }
        }
    }
    if let Some(tags) = &mut document.tags {
        tags.sort_by(|a, b| a.name.cmp(&b.name));
    }
    document
}

/// As it is served and pinned: pretty, with a newline at the end.
///
/// # Errors
/// The document cannot be written as JSON.
pub fn to_json(document: &OpenApi) -> Result<String, Error> {
    let mut text = document.to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

const INTRODUCTION: &str = "Reads of the views that sightline projects from user events. \
    gRPC gives the same answers.\n\n\
    Absent means unknown: there are no `null`s. Times are RFC 3339 in UTC. Ids are opaque strings, \
    percent-encoded in paths. Every answer carries the position that it reflects in \
    `Sightline-Consistency-Token`, a 304 and a 404 too. Errors are `application/problem+json` (RFC 9457); decide \
    by `reason`, which is stable.";

fn introduction() -> String {
    let mut text = format!("{INTRODUCTION}\n\nThe reasons, and their HTTP status:\n");
    for code in Code::ALL {
        let line = format!("\n- `{}` {}", code.reason(), code.http().as_u16());
        text.push_str(&line);
    }
    text
}

/// Headers of a request, by the name of their component: name, description, an example.
const REQUEST_HEADERS: &[(&str, &str, &str, &str)] = &[
    (
        "RequestTimeout",
        "Request-Timeout",
        "How many seconds the caller waits, decimals allowed; by default 10, at most 600. Then: 504.",
        "2.5",
    ),
    (
        "Consistency",
        "Sightline-Consistency",
        "How current the answer must be. `eventual`, the default, takes whatever the view has now; \
         `at-least`, `latest` and `max-lag=<seconds>` are refused with 501.",
        "eventual",
    ),
    (
        "RequestId",
        "X-Request-Id",
        "An id of the caller's for this request: up to 128 letters, digits, `-`, `_`, `.`; another one is replaced.",
        "checkout-7f3a",
    ),
    (
        "Traceparent",
        "Traceparent",
        "The caller's trace (W3C Trace Context).",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
];
const IF_NONE_MATCH: (&str, &str, &str, &str) = (
    "IfNoneMatch",
    "If-None-Match",
    "ETags that the caller has answers for. One of them matches: 304.",
    "W/\"pZGm1Av0IEBKARczz7exkA\"",
);

/// Headers of an answer, likewise.
const TOKEN: (&str, &str, &str, &str) = (
    "ConsistencyToken",
    "Sightline-Consistency-Token",
    "The position that the answer reflects, opaque, at most 4 KiB.",
    "AQt1c2VyLmV2ZW50cwF_h7Fx0Fk2lwED1fgC",
);
const ETAG: (&str, &str, &str, &str) = (
    "ETag",
    "ETag",
    "Weak: a hash of what is sent.",
    "W/\"pZGm1Av0IEBKARczz7exkA\"",
);
const REQUEST_ID: (&str, &str, &str, &str) = (
    "RequestId",
    "X-Request-Id",
    "The id of this request, the caller's or a new one; the log has it.",
    "checkout-7f3a",
);
const RETRY_AFTER: (&str, &str, &str, &str) = (
    "RetryAfter",
    "Retry-After",
    "Seconds after which trying again makes sense.",
    "1",
);

/// What any operation may answer. 404 is for those that say so.
const ANY: &[Code] = &[
    Code::InvalidArgument,
    Code::HostNotAllowed,
    Code::NotAcceptable,
    Code::Internal,
    Code::ConsistencyUnsupported,
    Code::Overloaded,
    Code::DeadlineExceeded,
];
/// And any that has a body.
const WITH_BODY: &[Code] = &[Code::PayloadTooLarge, Code::UnsupportedMediaType];

/// One error of each code that an operation may answer, as it is really made.
fn examples() -> Vec<Error> {
    let mut unsupported = ::http::HeaderMap::new();
    unsupported.insert(
        "sightline-consistency",
        ::http::HeaderValue::from_static("latest"),
    );
    let mut examples = vec![
        Error::invalid("userId", "must be at most 255 characters long"),
        layers::host_not_allowed(),
        layers::not_acceptable(),
        Error::payload_too_large(),
        layers::unsupported_media_type(),
        Error::internal(""),
        layers::overloaded(),
        sqlx::Error::PoolTimedOut.into(),
        Error::deadline_exceeded(),
    ];
    examples.extend(check_demand(&unsupported).err());
    examples
}

/// All errors of a status in one response: the codes that share it are told apart by `reason`.
fn problem(status: ::http::StatusCode) -> Content {
    let errors = examples().into_iter();
    problems(
        errors
            .filter(|error| error.code().http() == status)
            .map(|error| (error.code(), json!(error.problem()))),
    )
}

fn problems(examples: impl IntoIterator<Item = (Code, serde_json::Value)>) -> Content {
    let examples = examples.into_iter().map(|(code, problem)| {
        let example = ExampleBuilder::new().value(Some(problem));
        (code.reason(), example.build())
    });
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .examples_from_iter(examples)
        .build()
}

fn shared() -> Components {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let mut shared = Components::new();
    for schema in [
        (Problem::name(), Problem::schema()),
        (FieldViolation::name(), FieldViolation::schema()),
    ] {
        shared.schemas.insert(schema.0.into_owned(), schema.1);
    }
    for (component, name, description, example) in REQUEST_HEADERS.iter().chain([&IF_NONE_MATCH]) {
        let parameter = ParameterBuilder::new()
            .name(*name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(*description))
            .schema(Some(text()))
            .example(Some(json!(example)));
        let parameter = RefOr::T(parameter.build());
        shared.parameters.insert((*component).into(), parameter);
    }
    for (component, _, description, example) in [TOKEN, ETAG, REQUEST_ID, RETRY_AFTER] {
        let header = HeaderBuilder::new()
            .schema(Some(text()))
            .description(Some(description))
            .example(Some(json!(example)));
        let header = RefOr::T(header.build());
        shared.headers.insert(component.into(), header);
    }
    for code in ANY.iter().chain(WITH_BODY) {
        let status = code.http();
        let mut response = ResponseBuilder::new()
            .description(status.canonical_reason().unwrap_or_default())
            .content(PROBLEM_JSON, problem(status))
            .header_ref(REQUEST_ID.1, header(REQUEST_ID.0));
        if matches!(code, Code::Overloaded | Code::DeadlineExceeded) {
            response = response.header_ref(RETRY_AFTER.1, header(RETRY_AFTER.0));
        }
        let response = RefOr::T(response.build());
        shared.responses.insert(component_of(*code), response);
    }
    shared
}

fn header(component: &str) -> Ref {
    Ref::new(format!("#/components/headers/{component}"))
}

/// `Bad Request` → `BadRequest`
fn component_of(code: Code) -> String {
    let title = code.http().canonical_reason().unwrap_or_default();
    title.split(' ').collect()
}

/// Adds to an operation what holds for all; `reads` are GETs, `of_view` those that carry a position.
fn complete(operation: &mut Operation, reads: bool, of_view: bool) {
    let conditional = reads && of_view;
    let parameters = operation.parameters.get_or_insert_default();
    let if_none_match = conditional.then_some(&IF_NONE_MATCH);
    for (component, ..) in REQUEST_HEADERS.iter().chain(if_none_match) {
        let reference = Ref::new(format!("#/components/parameters/{component}"));
        parameters.push(RefOr::Ref(reference));
    }
    let responses = &mut operation.responses.responses;
    if conditional {
        let not_modified = Response::new("The caller has this answer already");
        responses.insert("304".into(), RefOr::T(not_modified));
    }
    for (status, response) in responses.iter_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        let mut sends = vec![&REQUEST_ID];
        match status.as_str() {
            "200" | "304" if of_view => sends.extend([&TOKEN, &ETAG]),
            "404" => {
                sends.extend(of_view.then_some(&TOKEN));
                let problem = RefOr::T(not_found(response));
                response.content.insert(PROBLEM_JSON.into(), problem);
            }
            _ => {}
        }
        for (component, name, ..) in sends {
            let reference = RefOr::Ref(header(component));
            response.headers.insert((*name).into(), reference);
        }
    }
    let with_body = if reads { &[] } else { WITH_BODY };
    for code in ANY.iter().chain(with_body) {
        let reference: RefOr<Response> = RefOr::Ref(Ref::from_response_name(component_of(*code)));
        responses.insert(code.http().as_str().into(), reference);
    }
}

/// What the operation itself may not find, if it gives an example, and that its domain may not be here.
fn not_found(response: &Response) -> Content {
    let own = match response.content.get(PROBLEM_JSON) {
        Some(RefOr::T(content)) => content.example.clone(),
        _ => None,
    };
    let own = own.map(|problem| (Code::NotFound, problem));
    let elsewhere = (Code::DomainNotServed, json!(not_served().problem()));
    problems(own.into_iter().chain([elsewhere]))
}
