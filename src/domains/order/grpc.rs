//! The gRPC surface of the order domain: unpacks requests, calls `queries`, packs answers.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::model::{Address, AddressChange, AddressChangeKind, Customer, Customers, WatchedChange};
use super::queries::{self, ChangesFilter};
use crate::error::Error;
use crate::event::DeletionType;
use crate::proto::order::v1 as pb;
use crate::proto::order::v1::order_service_server::{OrderService, OrderServiceServer};
use crate::query::grpc::{self, respond, timestamp};
use crate::query::watch::{Event, WatchPosition};
use crate::query::{Document, Reads};

/// The service, over `reads`.
pub fn service(reads: Reads) -> OrderServiceServer<impl OrderService> {
    grpc::service!(OrderServiceServer::new(OrderGrpc { reads }))
}

struct OrderGrpc {
    reads: Reads,
}

#[tonic::async_trait]
impl OrderService for OrderGrpc {
    type WatchAddressChangesStream =
        BoxStream<'static, Result<pb::WatchAddressChangesResponse, Status>>;

    async fn get_customer(
        &self,
        request: Request<pb::GetCustomerRequest>,
    ) -> Result<Response<pb::GetCustomerResponse>, Status> {
        let user_id = request.into_inner().user_id;
        let answer = queries::get_customer(&self.reads, &user_id).await?;
        let answer = answer.try_map(|customer| customer.read())?;
        Ok(respond(answer.map(|customer| pb::GetCustomerResponse {
            customer: Some(customer.into()),
        })))
    }

    async fn batch_get_customers(
        &self,
        request: Request<pb::BatchGetCustomersRequest>,
    ) -> Result<Response<pb::BatchGetCustomersResponse>, Status> {
        let user_ids = request.into_inner().user_ids;
        let answer = queries::batch_get_customers(&self.reads, &user_ids).await?;
        let answer = answer.try_map(pb::BatchGetCustomersResponse::try_from)?;
        Ok(respond(answer))
    }

    async fn list_customer_addresses(
        &self,
        request: Request<pb::ListCustomerAddressesRequest>,
    ) -> Result<Response<pb::ListCustomerAddressesResponse>, Status> {
        let request = request.into_inner();
        let as_of = grpc::past_time("asOf", request.as_of)?;
        let answer = queries::list_addresses(&self.reads, &request.user_id, as_of).await?;
        Ok(respond(answer.map(|found| {
            pb::ListCustomerAddressesResponse {
                addresses: found.addresses.into_iter().map(Into::into).collect(),
                default_shipping_address_id: found.default_shipping_address_id,
                default_billing_address_id: found.default_billing_address_id,
            }
        })))
    }

    async fn list_address_changes(
        &self,
        request: Request<pb::ListAddressChangesRequest>,
    ) -> Result<Response<pb::ListAddressChangesResponse>, Status> {
        let request = request.into_inner();
        let filter = ChangesFilter {
            user_id: request.user_id,
            significant: request.significant,
            since: grpc::time("since", request.since)?,
            after: request.after,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::list_address_changes(&self.reads, &filter, &page).await?;
        Ok(respond(answer.map(|found| {
            pb::ListAddressChangesResponse {
                changes: found.changes.into_iter().map(Into::into).collect(),
                next_page_token: found.next_page_token,
            }
        })))
    }

    async fn watch_address_changes(
        &self,
        request: Request<pb::WatchAddressChangesRequest>,
    ) -> Result<Response<Self::WatchAddressChangesStream>, Status> {
        let limits = grpc::limits(&request);
        let request = request.into_inner();
        let after = ("after", request.after.as_deref());
        let (user_id, significant) = (request.user_id, request.significant);
        let answer =
            queries::watch_address_changes(&self.reads, user_id, significant, after, limits)
                .await?;
        Ok(respond(answer.map(|events| {
            events.map(|event| Ok(event?.into())).boxed()
        })))
    }
}

impl From<Event<WatchedChange>> for pb::WatchAddressChangesResponse {
    fn from(event: Event<WatchedChange>) -> Self {
        use pb::watch_address_changes_response::Event as Sent;
        let sent = match event {
            Event::Change(cursor, row) => match row.change.clone() {
                WatchedChange::Address(change) => {
                    Sent::Change(AddressChange { cursor, ..*change }.into())
                }
                WatchedChange::CustomerDeleted(deleted) => {
                    let deletion_type = match deleted.deletion_type {
                        DeletionType::Soft => pb::DeletionType::Soft,
                        DeletionType::Hard => pb::DeletionType::Hard,
                    };
                    Sent::CustomerDeleted(pb::CustomerDeleted {
                        cursor,
                        user_id: deleted.user_id,
                        deleted_at: Some(timestamp(deleted.deleted_at)),
                        deletion_type: deletion_type.into(),
                    })
                }
            },
            Event::CaughtUp(position) => Sent::CaughtUp(position.into()),
            Event::Heartbeat(position) => Sent::Heartbeat(position.into()),
        };
        Self { event: Some(sent) }
    }
}

impl From<WatchPosition> for pb::WatchPosition {
    fn from(position: WatchPosition) -> Self {
        Self {
            cursor: position.cursor,
            consistency_token: position.consistency_token,
        }
    }
}

impl TryFrom<Customers> for pb::BatchGetCustomersResponse {
    type Error = Error;

    fn try_from(found: Customers) -> Result<Self, Error> {
        Ok(Self {
            customers: Document::read_all(&found.customers)?,
            missing: found.missing,
        })
    }
}

impl From<Customer> for pb::Customer {
    fn from(customer: Customer) -> Self {
        Self {
            user_id: customer.user_id,
            email: customer.email,
            email_verified: customer.email_verified,
            username: customer.username,
            first_name: customer.first_name,
            last_name: customer.last_name,
            display_name: customer.display_name,
            phone_number: customer.phone_number,
            status: customer.status,
            registered_at: customer.registered_at.map(timestamp),
            updated_at: customer.updated_at.map(timestamp),
            deleted_at: customer.deleted_at.map(timestamp),
            stale_fields: customer.stale_fields,
            default_shipping_address_id: customer.default_shipping_address_id,
            default_billing_address_id: customer.default_billing_address_id,
            addresses: customer.addresses.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Address> for pb::Address {
    fn from(address: Address) -> Self {
        Self {
            address_id: address.address_id,
            r#type: address.address_type,
            street_line1: address.street_line1,
            street_line2: address.street_line2,
            city: address.city,
            state_or_province: address.state_or_province,
            postal_code: address.postal_code,
            country: address.country,
            contact_name: address.contact_name,
            contact_phone: address.contact_phone,
            company_name: address.company_name,
            additional_notes: address.additional_notes,
            is_default_shipping: address.is_default_shipping,
            is_default_billing: address.is_default_billing,
            stale_fields: address.stale_fields,
            updated_at: address.updated_at.map(timestamp),
        }
    }
}

impl From<AddressChangeKind> for pb::AddressChangeKind {
    fn from(kind: AddressChangeKind) -> Self {
        match kind {
            AddressChangeKind::Added => Self::Added,
            AddressChangeKind::Updated => Self::Updated,
            AddressChangeKind::Deleted => Self::Deleted,
            AddressChangeKind::DefaultChanged => Self::DefaultChanged,
        }
    }
}

impl From<AddressChange> for pb::AddressChange {
    fn from(change: AddressChange) -> Self {
        Self {
            cursor: change.cursor,
            user_id: change.user_id,
            address_id: change.address_id,
            kind: pb::AddressChangeKind::from(change.kind).into(),
            affects_default_shipping: change.affects_default_shipping,
            affects_default_billing: change.affects_default_billing,
            significant: change.significant,
            before: change.before.map(Into::into),
            after: change.after.map(Into::into),
            occurred_at: Some(timestamp(change.occurred_at)),
            event_id: change.event_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::{Value, json};

    use super::*;
    use crate::domains::order::model::AddressChanges;

    fn address(text: &str) -> Value {
        json!({
            "addressId": text, "type": text, "streetLine1": text, "streetLine2": text, "city": text,
            "stateOrProvince": text, "postalCode": text, "country": text, "contactName": text,
            "contactPhone": text, "companyName": text, "additionalNotes": text,
            "isDefaultShipping": true, "isDefaultBilling": false,
            "staleFields": [text, text], "updatedAt": "2026-10-03T09:00:00.123456789Z",
        })
    }

    /// Answers are measured as JSON: see [`crate::query::page`].
    #[test]
    fn protobuf_is_not_larger_than_json() {
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let customers = [
                json!({"userId": text, "staleFields": [], "addresses": []}),
                json!({
                    "userId": text, "email": text, "emailVerified": false, "username": text, "firstName": text,
                    "lastName": text, "displayName": text, "phoneNumber": text, "status": text,
                    "registeredAt": "2026-10-03T09:00:00Z", "updatedAt": "2026-10-03T09:00:00.000001Z",
                    "deletedAt": "0001-01-01T00:00:00Z", "staleFields": [text, text],
                    "defaultShippingAddressId": text, "defaultBillingAddressId": text,
                    "addresses": [address(&text), {"addressId": text}],
                }),
            ];
            let customers = customers.map(|customer| {
                let customer: Customer = serde_json::from_value(customer).unwrap();
                Document::of(&customer).unwrap()
            });
            let found = Customers {
                customers: customers.into(),
                missing: vec![text.clone(), text.clone()],
            };
            let json = serde_json::to_vec(&found).unwrap().len();
            let message = pb::BatchGetCustomersResponse::try_from(found).unwrap();
            assert!(message.encoded_len() <= json, "customers of {length}");

            let change = json!({
                "cursor": text, "userId": text, "addressId": text, "kind": "default_changed",
                "affectsDefaultShipping": true, "affectsDefaultBilling": true, "significant": true,
                "before": address(&text), "after": address(&text), "occurredAt": "0001-01-01T00:00:00Z",
                "eventId": text,
            });
            let page: AddressChanges =
                serde_json::from_value(json!({"changes": [change, change]})).unwrap();
            let json = serde_json::to_vec(&page).unwrap().len();
            let message = pb::ListAddressChangesResponse {
                changes: page.changes.into_iter().map(Into::into).collect(),
                next_page_token: None,
            };
            assert!(message.encoded_len() <= json, "changes of {length}");
        }
    }
}
