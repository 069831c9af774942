//! The gRPC surface of what is held about a user: unpacks requests, calls `queries`, packs answers.

use prost::Message;
use tonic::{Request, Response, Status};

use super::Served;
use super::model::UserInDomain;
use super::queries;
use crate::domains::Domain;
use crate::proto::users::v1 as pb;
use crate::proto::users::v1::user_service_server::{self, UserService, UserServiceServer};
use crate::query::Reads;
use crate::query::grpc::{self, respond, structure};
use crate::query::page::ResponseSize;

/// The full name of the service.
pub const SERVICE_NAME: &str = user_service_server::SERVICE_NAME;

/// The service, which answers from these domains.
pub fn service(
    reads: Reads,
    served: &[&'static dyn Domain],
) -> UserServiceServer<impl UserService> {
    let served = served.into();
    grpc::service!(UserServiceServer::new(UserGrpc { reads, served }))
}

struct UserGrpc {
    reads: Reads,
    served: Served,
}

#[tonic::async_trait]
impl UserService for UserGrpc {
    async fn get_user(
        &self,
        request: Request<pb::GetUserRequest>,
    ) -> Result<Response<pb::GetUserResponse>, Status> {
        let pb::GetUserRequest { user_id, domains } = request.into_inner();
        let answer = queries::get_user(&self.reads, &self.served, &user_id, &domains).await?;
        let answer = answer.map(|user| {
            let parts = user.domains.into_iter();
            pb::GetUserResponse {
                user_id: user.user_id,
                domains: parts.map(|(name, part)| (name, part.into())).collect(),
            }
        });
        // A Struct can be several times as large as its JSON.
        if !ResponseSize::of(answer.body.encoded_len()).fits() {
            let refusal = queries::too_large();
            return Err(refusal.with_metadata(answer.position.metadata()).into());
        }
        Ok(respond(answer))
    }
}

impl From<UserInDomain> for pb::UserInDomain {
    fn from(part: UserInDomain) -> Self {
        Self {
            data: part.data.map(structure),
            token: part.token,
            dead_letters: part.dead_letters.into_iter().map(Into::into).collect(),
            has_more_dead_letters: part.has_more_dead_letters,
        }
    }
}
