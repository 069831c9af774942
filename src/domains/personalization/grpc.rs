//! The gRPC surface of the personalization domain: unpacks requests, calls `queries`, packs answers.

use serde_json::{Map, Value};
use tonic::{Request, Response, Status};

use super::model::{Location, Profile};
use super::queries::{self, SegmentFilter};
use crate::proto::personalization::v1 as pb;
use crate::proto::personalization::v1::personalization_service_server::{
    PersonalizationService, PersonalizationServiceServer,
};
use crate::query::Reads;
use crate::query::grpc::{self, respond, timestamp};

/// The service, over `reads`.
pub fn service(reads: Reads) -> PersonalizationServiceServer<impl PersonalizationService> {
    grpc::service!(PersonalizationServiceServer::new(PersonalizationGrpc {
        reads
    }))
}

struct PersonalizationGrpc {
    reads: Reads,
}

#[tonic::async_trait]
impl PersonalizationService for PersonalizationGrpc {
    async fn get_profile(
        &self,
        request: Request<pb::GetProfileRequest>,
    ) -> Result<Response<pb::GetProfileResponse>, Status> {
        let user_id = request.into_inner().user_id;
        let answer = queries::get_profile(&self.reads, &user_id).await?;
        Ok(respond(answer.map(|profile| pb::GetProfileResponse {
            profile: Some(profile.into()),
        })))
    }

    async fn list_segment(
        &self,
        request: Request<pb::ListSegmentRequest>,
    ) -> Result<Response<pb::ListSegmentResponse>, Status> {
        let request = request.into_inner();
        let filter = SegmentFilter {
            country_code: request.country_code,
            city: request.city,
            language: request.language,
            preferences: request.preference,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::list_segment(&self.reads, &filter, &page).await?;
        Ok(respond(answer.map(|found| pb::ListSegmentResponse {
            user_ids: found.user_ids,
            total_size: found.total_size,
            next_page_token: found.next_page_token,
        })))
    }
}

impl From<Profile> for pb::Profile {
    fn from(profile: Profile) -> Self {
        let text = |object: Map<String, Value>| Value::Object(object).to_string();
        Self {
            user_id: profile.user_id,
            preferences: profile.preferences.map(text),
            communication_preferences: profile.communication_preferences.map(text),
            bio: profile.bio,
            language_preference: profile.language_preference,
            timezone_preference: profile.timezone_preference,
            profile_picture_url: profile.profile_picture_url,
            location: profile.location.map(Into::into),
            countries: profile.countries,
            stale_fields: profile.stale_fields,
            updated_at: Some(timestamp(profile.updated_at)),
        }
    }
}

impl From<Location> for pb::Location {
    fn from(location: Location) -> Self {
        Self {
            country_code: location.country_code,
            city: location.city,
            state: location.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::json;

    use super::*;
    use crate::domains::personalization::model::Segment;

    /// Answers are measured as JSON: see [`crate::query::page`].
    #[test]
    fn protobuf_is_not_larger_than_json() {
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let found: Segment = serde_json::from_value(
                json!({"userIds": [text, text], "totalSize": 1_000_000, "nextPageToken": text}),
            )
            .unwrap();
            let json = serde_json::to_vec(&found).unwrap().len();
            let message = pb::ListSegmentResponse {
                user_ids: found.user_ids,
                total_size: found.total_size,
                next_page_token: found.next_page_token,
            };
            assert!(message.encoded_len() <= json, "segment of {length}");
        }
    }
}
