//! The REST surface of the fulfillment domain: unpacks requests, calls `queries`, sends answers.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{FoundAddresses, ShippingAddress, ShippingAddresses};
use super::queries::{self, SearchFilter};
use super::validation::ValidationStatus;
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::fold::addresses::DefaultKind;
use crate::query::rest::{AsOfParameter, PageParameters, Path, Query, UserPath};
use crate::query::watch::sse::{self, AfterParameter, LastEventIdHeader, Watch};
use crate::query::{Answer, Document, Reads, cursor};

/// The routes, with their documentation.
pub fn routes() -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("fulfillment")
        .description(Some("Addresses for shipping, for the Fulfillment Service."))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(list_addresses))
        .routes(routes!(get_default_address))
        .routes(routes!(get_address))
        .routes(routes!(search_addresses))
        .routes(routes!(watch_addresses))
}

/// A user's shipping addresses, now or as of a time
///
/// Addresses in the form that a shipping label needs, each with its validation. With `asOf`, the
/// addresses at that instant, with the names and phone numbers of that instant. A deleted user has
/// no addresses.
#[utoipa::path(
    get,
    path = "/v1/fulfillment/users/{userId}/addresses",
    operation_id = "listShippingAddresses",
    tag = "fulfillment",
    params(UserPath, AsOfParameter),
    responses(
        (status = 200, description = "The addresses", body = ShippingAddresses,
            example = json!({"addresses": [example_address()]})),
        (status = 404, description = "The user is unknown, or this process does not serve fulfillment",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn list_addresses(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
    query: Query,
) -> Result<Answer<ShippingAddresses>, Error> {
    queries::list_addresses(&reads, &user_id, query.past_time("asOf")?).await
}

/// A user's default address, now or as of a time
///
/// The address to ship to, or to bill, in the form that a shipping label needs. With `asOf`, the
/// default at that instant.
#[utoipa::path(
    get,
    path = "/v1/fulfillment/users/{userId}/default-address",
    operation_id = "getDefaultShippingAddress",
    tag = "fulfillment",
    params(
        UserPath,
        ("kind" = inline(DefaultKind), Query, description = "Which default", example = "shipping"),
        AsOfParameter,
    ),
    responses(
        (status = 200, description = "The address", body = ShippingAddress, example = json!(example_address())),
        (status = 404, description = "The user is unknown or deleted, or has no such default, or the default's address \
            is unknown; or this process does not serve fulfillment",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("default address").problem())),
    ),
)]
async fn get_default_address(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
    query: Query,
) -> Result<Answer<ShippingAddress>, Error> {
    let default = match query.given("kind")?.as_deref() {
        Some("shipping") => DefaultKind::Shipping,
        Some("billing") => DefaultKind::Billing,
        Some(_) => return Err(Error::invalid("kind", "must be shipping or billing")),
        None => return Err(Error::invalid("kind", "is missing: shipping or billing")),
    };
    queries::get_default_address(&reads, &user_id, default, query.past_time("asOf")?).await
}

/// One address by its own id, now or as of a time
///
/// If events of several users have named this id, the answer is the address of the user with the
/// last such event.
#[utoipa::path(
    get,
    path = "/v1/fulfillment/addresses/{addressId}",
    operation_id = "getShippingAddress",
    tag = "fulfillment",
    params(
        ("addressId" = String, Path, min_length = 1, max_length = 255,
            description = "The address's id: opaque, percent-encoded (`/` as `%2F`)", example = "a-1"),
        AsOfParameter,
    ),
    responses(
        (status = 200, description = "The address", body = ShippingAddress, example = json!(example_address())),
        (status = 404, description = "The address is unknown or deleted, or this process does not serve fulfillment",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("address").problem())),
    ),
)]
async fn get_address(
    State(reads): State<Reads>,
    Path(address_id): Path<String>,
    query: Query,
) -> Result<Answer<Document<ShippingAddress>>, Error> {
    queries::get_address(&reads, &address_id, query.past_time("asOf")?).await
}

/// Addresses by country and validation
///
/// `validation=incomplete&validation=invalid` lists the addresses that need attention.
#[utoipa::path(
    get,
    path = "/v1/fulfillment/addresses",
    operation_id = "searchShippingAddresses",
    tag = "fulfillment",
    params(
        ("countryCode" = Option<String>, Query, description = "ISO 3166-1 alpha-2, in either case, such as `US`"),
        ("validation" = Option<Vec<ValidationStatus>>, Query,
            description = "Only addresses with this validation; may be repeated"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "The addresses, in a stable order", body = FoundAddresses,
            example = json!(example_found())),
        (status = 404, description = "This process does not serve fulfillment"),
    ),
)]
async fn search_addresses(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<FoundAddresses>, Error> {
    let validation = query
        .all("validation")
        .iter()
        .map(|word| {
            ValidationStatus::ALL
                .into_iter()
                .find(|status| status.as_str() == word)
                .ok_or_else(|| Error::invalid("validation", "must be valid, incomplete or invalid"))
        })
        .collect::<Result<_, _>>()?;
    let filter = SearchFilter {
        country_code: query.text("countryCode")?,
        validation,
    };
    queries::search_addresses(&reads, filter, &query.page()?).await
}

/// All addresses, and their changes as they are committed
///
/// Without a cursor it sends every address as it is, then the event `caught_up`, and then each change of an address as it is committed;
/// after a cursor, the changes since. They are Server-Sent Events. Of several changes of an address that were not sent yet, only the
/// last one is. Nothing else is left out, and nothing is sent twice. The `id` of an event is the cursor to continue from: pass the
/// last one as `Last-Event-ID` (a browser's `EventSource` does so by itself) or as `after`. Events are
///
/// * `change`: an address as it is now, with `cursor`, `userId`, `addressId`, `kind` (`current` or `removed`), and `address` unless
///   it was removed
/// * `caught_up`, once: all addresses as they were are sent; what follows are changes as they are committed. Its data are `cursor` and
///   `consistencyToken`: everything up to them was sent
/// * `heartbeat`: nothing has changed for ten seconds. It has the same data
/// * `error`, the last one of a stream that failed. Its data are a problem document, whose reason is `RESYNC` (begin again, without a
///   cursor), `READER_TOO_SLOW` (nothing was read for a minute), or `DATABASE_UNAVAILABLE`
///
/// A stream that ends without an error was ended because the process stops or the connection is old. `Request-Timeout` counts until
/// the stream begins.
#[utoipa::path(
    get,
    path = "/v1/fulfillment/addresses:watch",
    operation_id = "watchShippingAddresses",
    tag = "fulfillment",
    params(AfterParameter, LastEventIdHeader),
    responses(
        (status = 200, description = "A stream of events", body = String, content_type = "text/event-stream",
            example = json!(sse::example(&example_change()))),
        (status = 404, description = "This process does not serve fulfillment"),
        (status = 410, description = "The view was rebuilt, and changes that the cursor has passed are at other positions \
            now: watch from the beginning", body = Problem, content_type = PROBLEM_JSON, example = json!(cursor::resync().problem())),
    ),
)]
async fn watch_addresses(State(reads): State<Reads>, watch: Watch) -> Result<Response, Error> {
    let answer = queries::watch_addresses(&reads, watch.after(), watch.limits.clone()).await?;
    Ok(sse::respond(answer))
}

fn example_change() -> Value {
    json!({
        "cursor": "AQEBAgMEBQYHCNQPAA",
        "userId": "u-1001",
        "addressId": "a-1",
        "kind": "current",
        "address": example_address(),
    })
}

fn example_address() -> Value {
    json!({
        "userId": "u-1001",
        "addressId": "a-1",
        "type": "shipping",
        "recipientName": "Ada Lovelace",
        "phone": "+44 20 7946 0958",
        "lines": ["12 St James's Square"],
        "city": "London",
        "postalCode": "SW1Y 4JH",
        "countryCode": "GB",
        "isDefaultShipping": true,
        "isDefaultBilling": false,
        "staleFields": ["phone"],
        "updatedAt": "2025-10-03T09:00:00Z",
        "validation": {"status": "valid", "problems": []},
    })
}

fn example_found() -> Value {
    let mut address = example_address();
    let map = address.as_object_mut().expect("an object");
    map.remove("postalCode");
    map["validation"] = json!({
        "status": "incomplete",
        "problems": [{"field": "postalCode", "problem": "missing"}],
    });
    json!({"addresses": [address]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_parse_as_addresses() {
        let found = example_found()["addresses"][0].take();
        for example in [found, example_address()] {
            let address: ShippingAddress = serde_json::from_value(example.clone()).unwrap();
            assert_eq!(serde_json::to_value(address).unwrap(), example);
        }
    }
}
