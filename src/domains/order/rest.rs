//! The REST surface of the order domain: unpacks requests, calls `queries`, sends answers.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::OpenApiBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{AddressChanges, Addresses, Customer, Customers};
use super::queries::{self, ChangesFilter};
use crate::error::{Error, PROBLEM_JSON, Problem};
use crate::query::rest::{AsOfParameter, Json, PageParameters, Path, Query, UserPath};
use crate::query::watch::sse::{self, AfterParameter, LastEventIdHeader, Watch};
use crate::query::{Answer, Document, Reads, cursor};

/// The most ids in a query string: more would make the URL too long.
const MAX_IDS_IN_QUERY: usize = 100;

/// The routes, with their documentation.
pub fn routes() -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("order")
        .description(Some(
            "Customers and their addresses, for the Order Service.",
        ))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(get_customer))
        .routes(routes!(batch_get_customers, batch_get_customers_by_body))
        .routes(routes!(list_customer_addresses))
        .routes(routes!(list_address_changes))
        .routes(routes!(watch_address_changes))
}

/// One customer
///
/// A customer's name, contact data, addresses and defaults. A field that is absent is unknown; a
/// field in `staleFields` is known to have changed, but not to what. Of a deleted customer the id,
/// the status, the times, and the ids and countries of addresses remain. For an id of `.` or `..`,
/// which HTTP clients resolve in a path, use `customers:batchGet`.
#[utoipa::path(
    get,
    path = "/v1/order/customers/{userId}",
    operation_id = "getCustomer",
    tag = "order",
    params(UserPath),
    responses(
        (status = 200, description = "The customer", body = Customer, example = json!(example_customer())),
        (status = 404, description = "The user is unknown, or this process does not serve order",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn get_customer(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
) -> Result<Answer<Document<Customer>>, Error> {
    queries::get_customer(&reads, &user_id).await
}

/// Up to 100 customers
///
/// All customers are read at the same moment, and are in the order of the request; an id that is
/// given twice is answered once. The ids of unknown users are in `missing`. If the answer would be
/// larger than 3 MiB, the request is refused with `RESPONSE_TOO_LARGE`, saying how many of the ids
/// fit.
#[utoipa::path(
    get,
    path = "/v1/order/customers:batchGet",
    operation_id = "batchGetCustomers",
    tag = "order",
    params(("userIds" = Vec<String>, Query, min_items = 1, max_items = 100,
        description = "The users' ids, repeated: `userIds=a&userIds=b`", example = json!(["u-1001", "u-404"]))),
    responses(
        (status = 200, description = "The customers that are known, and the ids of the others", body = Customers,
            example = json!(example_customers())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::response_too_large("userIds", 412).problem())),
        (status = 404, description = "This process does not serve order"),
    ),
)]
async fn batch_get_customers(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<Customers>, Error> {
    let user_ids = query.all("userIds");
    if user_ids.len() > MAX_IDS_IN_QUERY {
        return Err(Error::invalid(
            "userIds",
            "must name at most 100 ids; POST accepts 1000",
        ));
    }
    queries::batch_get_customers(&reads, &user_ids).await
}

/// The customers to get.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchGetCustomersRequest {
    /// The users' ids.
    #[schema(min_items = 1, max_items = 1000)]
    user_ids: Vec<String>,
}

/// Up to 1,000 customers
///
/// The same read as the GET, for more ids than a URL can hold.
#[utoipa::path(
    post,
    path = "/v1/order/customers:batchGet",
    operation_id = "batchGetCustomersByBody",
    tag = "order",
    request_body(content = BatchGetCustomersRequest, description = "The users' ids",
        example = json!({"userIds": ["u-1001", "u-404"]})),
    responses(
        (status = 200, description = "The customers that are known, and the ids of the others", body = Customers,
            example = json!(example_customers())),
        (status = 400, description = "The request is invalid, or the answer would be larger than 3 MiB",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::response_too_large("userIds", 412).problem())),
        (status = 404, description = "This process does not serve order"),
    ),
)]
async fn batch_get_customers_by_body(
    State(reads): State<Reads>,
    Json(request): Json<BatchGetCustomersRequest>,
) -> Result<Answer<Customers>, Error> {
    queries::batch_get_customers(&reads, &request.user_ids).await
}

/// A customer's addresses, now or as of a time
///
/// With `asOf`, the addresses at that instant: events that happened later are ignored, even if they
/// arrived earlier. Use it for an order that was made then. Before the first event about the user
/// there are no addresses. Of a deleted customer's addresses ids and countries remain; after a hard
/// deletion nothing remains.
#[utoipa::path(
    get,
    path = "/v1/order/customers/{userId}/addresses",
    operation_id = "listCustomerAddresses",
    tag = "order",
    params(UserPath, AsOfParameter),
    responses(
        (status = 200, description = "The addresses, and the ids of the defaults", body = Addresses,
            example = json!(example_addresses())),
        (status = 404, description = "The user is unknown, or this process does not serve order",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn list_customer_addresses(
    State(reads): State<Reads>,
    Path(UserPath { user_id }): Path<UserPath>,
    query: Query,
) -> Result<Answer<Addresses>, Error> {
    queries::list_addresses(&reads, &user_id, query.past_time("asOf")?).await
}

/// Changes of customers' addresses
///
/// A feed without gaps and duplicates: read it page by page, keep the `cursor` of the last change,
/// and pass it as `after` in the next request. Changes of one partition are in the order in which
/// they were applied; the order across partitions is arbitrary. A change is `significant` if
/// unshipped orders would now go to a different address.
#[utoipa::path(
    get,
    path = "/v1/order/address-changes",
    operation_id = "listAddressChanges",
    tag = "order",
    params(
        ("userId" = Option<String>, Query, max_length = 255, description = "Only changes of this user, such as `u-1001`"),
        ("significant" = Option<bool>, Query, description = "Only significant changes (`true`), or only the others (`false`)"),
        ("since" = Option<DateTime<Utc>>, Query,
            description = "Only changes that happened at this instant or later (RFC 3339), such as `2025-10-01T00:00:00Z`"),
        ("after" = Option<String>, Query, description = "Only changes after this cursor, which is from an earlier answer"),
        PageParameters,
    ),
    responses(
        (status = 200, description = "Changes, in the order of the feed", body = AddressChanges,
            example = json!(example_changes())),
        (status = 404, description = "This process does not serve order"),
        (status = 410, description = "The view was rebuilt, and changes that the cursor has passed are at other positions \
            now: read the feed from the beginning", body = Problem, content_type = PROBLEM_JSON, example = json!(cursor::resync().problem())),
    ),
)]
async fn list_address_changes(
    State(reads): State<Reads>,
    query: Query,
) -> Result<Answer<AddressChanges>, Error> {
    let filter = ChangesFilter {
        user_id: query.text("userId")?,
        significant: query.flag("significant")?,
        since: query.time("since")?,
        after: query.text("after")?,
    };
    queries::list_address_changes(&reads, &filter, &query.page()?).await
}

/// Changes of customers' addresses, as they are committed
///
/// Sends the changes of the feed, and then each change as it is committed, as Server-Sent Events. It begins after a cursor, or with
/// the first change. Nothing is left out and nothing is sent twice. The `id` of an event is a cursor of this feed: pass the last one
/// as `Last-Event-ID` (a browser's `EventSource` does so by itself) or as `after`. Events are
///
/// * `change`: a change, as in the list
/// * `customer_deleted`: forget this customer's addresses. Its data are `cursor`, `userId`, `deletedAt` and `deletionType` (`soft` or
///   `hard`). A watch of significant changes has it, too; the list leaves it out
/// * `caught_up`, once: all changes that were in the feed are sent; what follows are changes as they are committed. Its data are
///   `cursor` and `consistencyToken`: everything up to them was sent
/// * `heartbeat`: nothing has changed for ten seconds. It has the same data
/// * `error`, the last one of a stream that failed. Its data are a problem document, whose reason is `RESYNC` (begin again, without a
///   cursor), `READER_TOO_SLOW` (nothing was read for a minute), or `DATABASE_UNAVAILABLE`
///
/// A stream that ends without an error was ended because the process stops or the connection is old. `Request-Timeout` counts until
/// the stream begins.
#[utoipa::path(
    get,
    path = "/v1/order/address-changes:watch",
    operation_id = "watchAddressChanges",
    tag = "order",
    params(
        ("userId" = Option<String>, Query, max_length = 255, description = "Only changes of this user, such as `u-1001`"),
        ("significant" = Option<bool>, Query, description = "Only significant changes (`true`), or only the others (`false`)"),
        AfterParameter,
        LastEventIdHeader,
    ),
    responses(
        (status = 200, description = "A stream of events", body = String, content_type = "text/event-stream",
            example = json!(example_events())),
        (status = 404, description = "This process does not serve order"),
        (status = 410, description = "The view was rebuilt, and changes that the cursor has passed are at other positions \
            now: watch the feed from the beginning", body = Problem, content_type = PROBLEM_JSON, example = json!(cursor::resync().problem())),
    ),
)]
async fn watch_address_changes(
    State(reads): State<Reads>,
    query: Query,
    watch: Watch,
) -> Result<Response, Error> {
    let (user_id, significant) = (query.text("userId")?, query.flag("significant")?);
    let answer = queries::watch_address_changes(
        &reads,
        user_id,
        significant,
        watch.after(),
        watch.limits.clone(),
    )
    .await?;
    Ok(sse::respond(answer))
}

fn example_events() -> String {
    let changes = example_changes();
    sse::example(&changes["changes"][0])
}

fn example_address() -> Value {
    json!({
        "addressId": "a-1",
        "type": "shipping",
        "streetLine1": "12 St James's Square",
        "city": "London",
        "postalCode": "SW1Y 4JH",
        "country": "GB",
        "isDefaultShipping": true,
        "isDefaultBilling": false,
        "staleFields": [],
        "updatedAt": "2025-10-03T09:00:00Z",
    })
}

fn example_addresses() -> Value {
    json!({"addresses": [example_address()], "defaultShippingAddressId": "a-1"})
}

fn example_changes() -> Value {
    let mut before = example_address();
    before["streetLine1"] = json!("5 Old Street");
    before["postalCode"] = json!("EC1V 9HL");
    before["updatedAt"] = json!("2025-10-01T08:30:00Z");
    json!({
        "changes": [{
            "cursor": "AQEBAgMEBQYHCNQPAA",
            "userId": "u-1001",
            "addressId": "a-1",
            "kind": "updated",
            "affectsDefaultShipping": true,
            "affectsDefaultBilling": false,
            "significant": true,
            "before": before,
            "after": example_address(),
            "occurredAt": "2025-10-03T09:00:00Z",
            "eventId": "ada-5",
        }],
    })
}

fn example_customer() -> Value {
    json!({
        "userId": "u-1001",
        "email": "ada@example.org",
        "emailVerified": true,
        "username": "ada",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "phoneNumber": "+44 20 7946 0958",
        "status": "active",
        "registeredAt": "2025-10-01T08:30:00Z",
        "updatedAt": "2025-11-02T17:05:12.250Z",
        "staleFields": ["phoneNumber"],
        "defaultShippingAddressId": "a-1",
        "addresses": [example_address()],
    })
}

fn example_customers() -> Value {
    json!({"customers": [example_customer()], "missing": ["u-404"]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::cursor::Cursor;

    #[test]
    fn the_example_parses_as_a_customer() {
        let customer: Customer = serde_json::from_value(example_customer()).unwrap();
        assert_eq!(serde_json::to_value(customer).unwrap(), example_customer());
    }

    #[test]
    fn the_example_parses_as_a_page_of_the_feed() {
        let page: AddressChanges = serde_json::from_value(example_changes()).unwrap();
        assert!(Cursor::parse(&page.changes[0].cursor).is_some());
        assert_eq!(serde_json::to_value(page).unwrap(), example_changes());
    }
}
