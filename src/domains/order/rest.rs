//! order over HTTP/JSON.

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{OpenApiBuilder, tag::TagBuilder},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    model::{AddressChanges, Addresses, Customer, Customers},
    queries::{self, ChangesFilter},
};
use crate::{
    error::{Error, PROBLEM_JSON, Problem},
    query::{
        Answer, Reads, cursor,
        rest::{Json, Path, Query},
    },
};

/// A query string is no place for more ids than this.
const MAX_IDS_IN_QUERY: usize = 100;

/// The routes, documented.
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
}

/// One customer
///
/// Who a customer is, how to reach them, and where they want orders sent. Fields that are absent are unknown;
/// those in `staleFields` are known to have changed, but not to what. A deleted customer keeps its id, status and
/// times, and of its addresses ids and countries. An id of `.` or `..`, which HTTP clients resolve in a path, is
/// reached through `customers:batchGet`.
#[utoipa::path(
    get,
    path = "/v1/order/customers/{userId}",
    operation_id = "getCustomer",
    tag = "order",
    params(("userId" = String, Path, min_length = 1, max_length = 255,
        description = "The user's id: opaque, percent-encoded (`/` as `%2F`)", example = "u-1001")),
    responses(
        (status = 200, description = "The customer", body = Customer, example = json!(example_customer())),
        (status = 404, description = "Nobody has heard of this user, or this process does not serve order",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn get_customer(
    State(reads): State<Reads>,
    Path(user_id): Path<String>,
) -> Result<Answer<Customer>, Error> {
    queries::get_customer(&reads, &user_id).await
}

/// Up to 100 customers
///
/// All as of one moment, in the order in which they were asked for; an id that is given twice is answered once.
/// Those that nobody has heard of are listed in `missing`.
#[utoipa::path(
    get,
    path = "/v1/order/customers:batchGet",
    operation_id = "batchGetCustomers",
    tag = "order",
    params(("userIds" = Vec<String>, Query, min_items = 1, max_items = 100,
        description = "The users' ids, repeated: `userIds=a&userIds=b`", example = json!(["u-1001", "u-404"]))),
    responses(
        (status = 200, description = "Those that are known, and the ids of the others", body = Customers,
            example = json!(example_customers())),
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
            "must name at most 100 ids; POST takes 1000",
        ));
    }
    queries::batch_get_customers(&reads, &user_ids).await
}

/// Which customers to get.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchGetCustomersRequest {
    /// The users' ids.
    #[schema(min_items = 1, max_items = 1000)]
    user_ids: Vec<String>,
}

/// Up to 1,000 customers
///
/// The same as the GET, for more ids than an address should hold. It changes nothing.
#[utoipa::path(
    post,
    path = "/v1/order/customers:batchGet",
    operation_id = "batchGetCustomersByBody",
    tag = "order",
    request_body(content = BatchGetCustomersRequest, description = "The users' ids",
        example = json!({"userIds": ["u-1001", "u-404"]})),
    responses(
        (status = 200, description = "Those that are known, and the ids of the others", body = Customers,
            example = json!(example_customers())),
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
/// With `asOf`, as they stood at that instant: what happened later is left out, in whatever order it was told. That is
/// the address for an order that was placed then, whatever has changed since. Before the first event about the user
/// there are none. Of a deleted customer ids and countries are left, after a hard deletion nothing.
#[utoipa::path(
    get,
    path = "/v1/order/customers/{userId}/addresses",
    operation_id = "listCustomerAddresses",
    tag = "order",
    params(
        ("userId" = String, Path, min_length = 1, max_length = 255,
            description = "The user's id: opaque, percent-encoded (`/` as `%2F`)", example = "u-1001"),
        ("asOf" = Option<DateTime<Utc>>, Query,
            description = "An instant (RFC 3339; `+` is written `%2B`)", example = "2026-11-01T00:00:00Z"),
    ),
    responses(
        (status = 200, description = "Addresses, and which are the defaults", body = Addresses,
            example = json!(example_addresses())),
        (status = 404, description = "Nobody has heard of this user, or this process does not serve order",
            body = Problem, content_type = PROBLEM_JSON, example = json!(Error::not_found("user").problem())),
    ),
)]
async fn list_customer_addresses(
    State(reads): State<Reads>,
    Path(user_id): Path<String>,
    query: Query,
) -> Result<Answer<Addresses>, Error> {
    queries::list_addresses(&reads, &user_id, query.time("asOf")?).await
}

/// What changed in customers' addresses
///
/// A feed that skips none and repeats none: read page by page, keep the `cursor` of the last change, and ask again
/// with `after` set to it. Changes of one partition of the log come in the order in which they were applied, those of
/// several in any order. `significant` are those after which an unshipped order would go elsewhere.
#[utoipa::path(
    get,
    path = "/v1/order/address-changes",
    operation_id = "listAddressChanges",
    tag = "order",
    params(
        ("userId" = Option<String>, Query, max_length = 255, description = "Changes of this user only", example = "u-1001"),
        ("significant" = Option<bool>, Query, description = "Significant changes only, or the others only", example = true),
        ("since" = Option<DateTime<Utc>>, Query,
            description = "Changes that happened then or later (RFC 3339)", example = "2026-11-01T00:00:00Z"),
        ("after" = Option<String>, Query, description = "Changes behind this cursor, from a change of an earlier answer"),
        ("pageSize" = Option<i32>, Query, minimum = 0,
            description = "The most changes to answer with: 50 unless told, never more than 1,000", example = 100),
        ("pageToken" = Option<String>, Query,
            description = "`nextPageToken` of the page before, with the other parameters as they were"),
    ),
    responses(
        (status = 200, description = "Changes, in the order of the feed", body = AddressChanges,
            example = json!(example_changes())),
        (status = 404, description = "This process does not serve order"),
        (status = 410, description = "The view was rebuilt, and the cursor does not mean the same in it any more: read the \
            feed anew, without one", body = Problem, content_type = PROBLEM_JSON, example = json!(cursor::resync().problem())),
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
        "updatedAt": "2026-10-03T09:00:00Z",
    })
}

fn example_addresses() -> Value {
    json!({"addresses": [example_address()], "defaultShippingAddressId": "a-1"})
}

fn example_changes() -> Value {
    let mut before = example_address();
    before["streetLine1"] = json!("5 Old Street");
    before["updatedAt"] = json!("2026-10-01T08:30:00Z");
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
            "occurredAt": "2026-10-03T09:00:00Z",
            "eventId": "e-7",
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
        "registeredAt": "2026-10-01T08:30:00Z",
        "updatedAt": "2026-11-02T17:05:12.250Z",
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
    fn the_example_is_a_customer() {
        let customer: Customer = serde_json::from_value(example_customer()).unwrap();
        assert_eq!(serde_json::to_value(customer).unwrap(), example_customer());
    }

    #[test]
    fn the_example_is_a_page_of_the_feed() {
        let page: AddressChanges = serde_json::from_value(example_changes()).unwrap();
        assert!(Cursor::parse(&page.changes[0].cursor).is_some());
        assert_eq!(serde_json::to_value(page).unwrap(), example_changes());
    }
}
