//! The gRPC surface of the fulfillment domain: unpacks requests, calls `queries`, packs answers.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::model::{
    FoundAddresses, ShippingAddress, ShippingAddressChange, ShippingAddressChangeKind,
};
use super::queries::{self, SearchFilter};
use super::validation::{AddressProblem, Validation, ValidationStatus};
use crate::error::Error;
use crate::fold::addresses::DefaultKind;
use crate::proto::fulfillment::v1 as pb;
use crate::proto::fulfillment::v1::fulfillment_service_server::{
    FulfillmentService, FulfillmentServiceServer,
};
use crate::query::grpc::{self, respond, timestamp};
use crate::query::watch::{Event, WatchPosition};
use crate::query::{Document, Reads};

/// The service, over `reads`.
pub fn service(reads: Reads) -> FulfillmentServiceServer<impl FulfillmentService> {
    grpc::service!(FulfillmentServiceServer::new(FulfillmentGrpc { reads }))
}

struct FulfillmentGrpc {
    reads: Reads,
}

#[tonic::async_trait]
impl FulfillmentService for FulfillmentGrpc {
    type WatchAddressesStream = BoxStream<'static, Result<pb::WatchAddressesResponse, Status>>;

    async fn list_addresses(
        &self,
        request: Request<pb::ListAddressesRequest>,
    ) -> Result<Response<pb::ListAddressesResponse>, Status> {
        let request = request.into_inner();
        let as_of = grpc::past_time("asOf", request.as_of)?;
        let answer = queries::list_addresses(&self.reads, &request.user_id, as_of).await?;
        Ok(respond(answer.map(|found| pb::ListAddressesResponse {
            addresses: found.addresses.into_iter().map(Into::into).collect(),
        })))
    }

    async fn get_default_address(
        &self,
        request: Request<pb::GetDefaultAddressRequest>,
    ) -> Result<Response<pb::GetDefaultAddressResponse>, Status> {
        let request = request.into_inner();
        let default = match request.kind() {
            pb::DefaultKind::Shipping => DefaultKind::Shipping,
            pb::DefaultKind::Billing => DefaultKind::Billing,
            pb::DefaultKind::Unspecified => {
                let problem = "must be DEFAULT_KIND_SHIPPING or DEFAULT_KIND_BILLING";
                return Err(Error::invalid("kind", problem).into());
            }
        };
        let as_of = grpc::past_time("asOf", request.as_of)?;
        let answer =
            queries::get_default_address(&self.reads, &request.user_id, default, as_of).await?;
        Ok(respond(answer.map(|address| {
            pb::GetDefaultAddressResponse {
                address: Some(address.into()),
            }
        })))
    }

    async fn get_address(
        &self,
        request: Request<pb::GetAddressRequest>,
    ) -> Result<Response<pb::GetAddressResponse>, Status> {
        let request = request.into_inner();
        let as_of = grpc::past_time("asOf", request.as_of)?;
        let answer = queries::get_address(&self.reads, &request.address_id, as_of).await?;
        let answer = answer.try_map(|address| address.read())?;
        Ok(respond(answer.map(|address| pb::GetAddressResponse {
            address: Some(address.into()),
        })))
    }

    async fn search_addresses(
        &self,
        request: Request<pb::SearchAddressesRequest>,
    ) -> Result<Response<pb::SearchAddressesResponse>, Status> {
        let request = request.into_inner();
        let validation: Option<Vec<_>> = request.validation.into_iter().map(status).collect();
        let filter = SearchFilter {
            country_code: request.country_code,
            validation: validation.ok_or_else(|| {
                let problem =
                    "must be VALIDATION_STATUS_VALID, VALIDATION_STATUS_INCOMPLETE or VALIDATION_STATUS_INVALID";
                Error::invalid("validation", problem)
            })?,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::search_addresses(&self.reads, filter, &page).await?;
        let answer = answer.try_map(pb::SearchAddressesResponse::try_from)?;
        Ok(respond(answer))
    }

    async fn watch_addresses(
        &self,
        request: Request<pb::WatchAddressesRequest>,
    ) -> Result<Response<Self::WatchAddressesStream>, Status> {
        let limits = grpc::limits(&request);
        let request = request.into_inner();
        let after = ("after", request.after.as_deref());
        let answer = queries::watch_addresses(&self.reads, after, limits).await?;
        Ok(respond(answer.map(|events| {
            events.map(|event| Ok(event?.into())).boxed()
        })))
    }
}

impl TryFrom<FoundAddresses> for pb::SearchAddressesResponse {
    type Error = Error;

    fn try_from(found: FoundAddresses) -> Result<Self, Error> {
        Ok(Self {
            addresses: Document::read_all(&found.addresses)?,
            next_page_token: found.next_page_token,
        })
    }
}

impl From<Event<ShippingAddressChange>> for pb::WatchAddressesResponse {
    fn from(event: Event<ShippingAddressChange>) -> Self {
        use pb::watch_addresses_response::Event as Sent;
        let sent = match event {
            Event::Change(cursor, row) => {
                let change = row.change.clone();
                Sent::Change(pb::ShippingAddressChange {
                    cursor,
                    user_id: change.user_id,
                    address_id: change.address_id,
                    kind: pb::ShippingAddressChangeKind::from(change.kind).into(),
                    address: change.address.map(Into::into),
                })
            }
            Event::CaughtUp(position) => Sent::CaughtUp(position.into()),
            Event::Heartbeat(position) => Sent::Heartbeat(position.into()),
        };
        Self { event: Some(sent) }
    }
}

impl From<ShippingAddressChangeKind> for pb::ShippingAddressChangeKind {
    fn from(kind: ShippingAddressChangeKind) -> Self {
        match kind {
            ShippingAddressChangeKind::Current => Self::Current,
            ShippingAddressChangeKind::Removed => Self::Removed,
        }
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

/// `None` for an unspecified status, and for a number that only newer clients know.
fn status(number: i32) -> Option<ValidationStatus> {
    match pb::ValidationStatus::try_from(number).ok()? {
        pb::ValidationStatus::Unspecified => None,
        pb::ValidationStatus::Valid => Some(ValidationStatus::Valid),
        pb::ValidationStatus::Incomplete => Some(ValidationStatus::Incomplete),
        pb::ValidationStatus::Invalid => Some(ValidationStatus::Invalid),
    }
}

impl From<ShippingAddress> for pb::ShippingAddress {
    fn from(address: ShippingAddress) -> Self {
        Self {
            user_id: address.user_id,
            address_id: address.address_id,
            r#type: address.address_type,
            recipient_name: address.recipient_name,
            phone: address.phone,
            company_name: address.company_name,
            lines: address.lines,
            city: address.city,
            state: address.state,
            postal_code: address.postal_code,
            country_code: address.country_code,
            notes: address.notes,
            is_default_shipping: address.is_default_shipping,
            is_default_billing: address.is_default_billing,
            stale_fields: address.stale_fields,
            updated_at: Some(timestamp(address.updated_at)),
            validation: Some(address.validation.into()),
        }
    }
}

impl From<Validation> for pb::Validation {
    fn from(validation: Validation) -> Self {
        let status = match validation.status {
            ValidationStatus::Valid => pb::ValidationStatus::Valid,
            ValidationStatus::Incomplete => pb::ValidationStatus::Incomplete,
            ValidationStatus::Invalid => pb::ValidationStatus::Invalid,
        };
        Self {
            status: status.into(),
            problems: validation.problems.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<AddressProblem> for pb::AddressProblem {
    fn from(problem: AddressProblem) -> Self {
        Self {
            field: problem.field,
            problem: problem.problem.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::json;

    use super::*;

    /// Answers are measured as JSON: see [`crate::query::page`].
    #[test]
    fn protobuf_is_not_larger_than_json() {
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let bare = json!({
                "userId": text, "addressId": text, "lines": [], "isDefaultShipping": false,
                "isDefaultBilling": false, "staleFields": [], "updatedAt": "0001-01-01T00:00:00Z",
                "validation": {"status": "valid", "problems": []},
            });
            let full = json!({
                "userId": text, "addressId": text, "type": text, "recipientName": text, "phone": text,
                "companyName": text, "lines": [text, text], "city": text, "state": text, "postalCode": text,
                "countryCode": text, "notes": text, "isDefaultShipping": true, "isDefaultBilling": true,
                "staleFields": [text, text], "updatedAt": "2026-10-03T09:00:00.123456Z",
                "validation": {"status": "invalid", "problems": [{"field": text, "problem": "missing"}]},
            });
            let addresses = [bare, full].map(|address| {
                let address: ShippingAddress = serde_json::from_value(address).unwrap();
                Document::of(&address).unwrap()
            });
            let found = FoundAddresses {
                addresses: addresses.into(),
                next_page_token: None,
            };
            let json = serde_json::to_vec(&found).unwrap().len();
            let message = pb::SearchAddressesResponse::try_from(found).unwrap();
            assert!(message.encoded_len() <= json, "addresses of {length}");
        }
    }
}
