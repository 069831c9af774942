//! The gRPC surface of the search domain: unpacks requests, calls `queries`, packs answers.

use tonic::{Request, Response, Status};

use super::model::{FoundUser, Suggestion, SuggestionField};
use super::queries::{self, SearchFilter};
use crate::proto::search::v1 as pb;
use crate::proto::search::v1::search_service_server::{SearchService, SearchServiceServer};
use crate::query::Reads;
use crate::query::grpc::{self, respond, timestamp};

/// The service, over `reads`.
pub fn service(reads: Reads) -> SearchServiceServer<impl SearchService> {
    grpc::service!(SearchServiceServer::new(SearchGrpc { reads }))
}

struct SearchGrpc {
    reads: Reads,
}

#[tonic::async_trait]
impl SearchService for SearchGrpc {
    async fn search_users(
        &self,
        request: Request<pb::SearchUsersRequest>,
    ) -> Result<Response<pb::SearchUsersResponse>, Status> {
        let request = request.into_inner();
        let filter = SearchFilter {
            q: request.q,
            status: request.status,
            registered_after: grpc::time("registeredAfter", request.registered_after)?,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::search_users(&self.reads, &filter, &page).await?;
        Ok(respond(answer.map(|found| pb::SearchUsersResponse {
            users: found.users.into_iter().map(Into::into).collect(),
            next_page_token: found.next_page_token,
        })))
    }

    async fn suggest(
        &self,
        request: Request<pb::SuggestRequest>,
    ) -> Result<Response<pb::SuggestResponse>, Status> {
        let request = request.into_inner();
        let answer = queries::suggest(&self.reads, &request.q, request.limit).await?;
        Ok(respond(answer.map(|found| pb::SuggestResponse {
            suggestions: found.suggestions.into_iter().map(Into::into).collect(),
        })))
    }
}

impl From<FoundUser> for pb::FoundUser {
    fn from(user: FoundUser) -> Self {
        Self {
            user_id: user.user_id,
            email: user.email,
            username: user.username,
            first_name: user.first_name,
            last_name: user.last_name,
            display_name: user.display_name,
            status: user.status,
            registered_at: user.registered_at.map(timestamp),
            stale_fields: user.stale_fields,
            score: user.score,
        }
    }
}

impl From<Suggestion> for pb::Suggestion {
    fn from(suggestion: Suggestion) -> Self {
        let field = match suggestion.field {
            SuggestionField::DisplayName => pb::SuggestionField::DisplayName,
            SuggestionField::Name => pb::SuggestionField::Name,
            SuggestionField::Username => pb::SuggestionField::Username,
            SuggestionField::Email => pb::SuggestionField::Email,
        };
        Self {
            text: suggestion.text,
            field: field.into(),
            user_id: suggestion.user_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::json;

    use super::*;
    use crate::domains::search::model::{FoundUsers, Suggestions};

    /// Answers are measured as JSON: see [`crate::query::page`].
    #[test]
    fn protobuf_is_not_larger_than_json() {
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let found: FoundUsers = serde_json::from_value(json!({"users": [
                {"userId": text, "staleFields": []},
                {
                    "userId": text, "email": text, "username": text, "firstName": text, "lastName": text,
                    "displayName": text, "status": text, "registeredAt": "2026-10-03T09:00:00.123456Z",
                    "staleFields": [text, text], "score": 0.75,
                },
            ]}))
            .unwrap();
            let json = serde_json::to_vec(&found).unwrap().len();
            let message = pb::SearchUsersResponse {
                users: found.users.into_iter().map(Into::into).collect(),
                next_page_token: None,
            };
            assert!(message.encoded_len() <= json, "users of {length}");
            let found: Suggestions = serde_json::from_value(json!({"suggestions": [
                {"text": text, "field": "name", "userId": text},
            ]}))
            .unwrap();
            let json = serde_json::to_vec(&found).unwrap().len();
            let message = pb::SuggestResponse {
                suggestions: found.suggestions.into_iter().map(Into::into).collect(),
            };
            assert!(message.encoded_len() <= json, "suggestions of {length}");
        }
    }
}
