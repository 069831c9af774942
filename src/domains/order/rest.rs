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
    model::{Customer, Customers},
    queries,
};
use crate::{
    error::{Error, PROBLEM_JSON, Problem},
    query::{
        Answer, Reads,
        rest::{Json, Path, Query},
    },
};

/// A query string is no place for more ids than this.
const MAX_IDS_IN_QUERY: usize = 100;

/// The routes, documented.
pub fn routes() -> OpenApiRouter<Reads> {
    let tag = TagBuilder::new()
        .name("order")
        .description(Some("Customers, for the Order Service."))
        .build();
    OpenApiRouter::with_openapi(OpenApiBuilder::new().tags(Some([tag])).build())
        .routes(routes!(get_customer))
        .routes(routes!(batch_get_customers, batch_get_customers_by_body))
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
        "addresses": [{
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
        }],
    })
}

fn example_customers() -> Value {
    json!({"customers": [example_customer()], "missing": ["u-404"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_customer() {
        let customer: Customer = serde_json::from_value(example_customer()).unwrap();
        assert_eq!(serde_json::to_value(customer).unwrap(), example_customer());
    }
}
