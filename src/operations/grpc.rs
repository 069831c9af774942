//! Operations over gRPC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tonic::{Request, Response, Status};

use super::dead_letters::{
    DeadLetter, DeadLetterClass, DeadLetterFilter, DeadLetterHeader, DeadLetterState,
};
use super::handle::{Operations, non_empty_key};
use super::projections::{Pause, Projection, ProjectionVersion, VersionState};
use super::retries::{DeadLetterOutcome, RetryRequest, TriedDeadLetter, TriedDeadLetters};
use crate::error::Error;
use crate::proto::consistency::v1::DomainState;
use crate::proto::operations::v1 as pb;
use crate::proto::operations::v1::operations_service_server::{
    self, OperationsService, OperationsServiceServer,
};
use crate::query::grpc::{self, timestamp};

/// The full name of the gRPC service.
pub const SERVICE_NAME: &str = operations_service_server::SERVICE_NAME;

/// The gRPC service, over `operations`.
pub fn service(operations: Operations) -> OperationsServiceServer<impl OperationsService> {
    grpc::service!(OperationsServiceServer::new(Service { operations }))
}

struct Service {
    operations: Operations,
}

impl Service {
    /// Retries one dead letter by its id, or those of a domain that match.
    async fn retry(&self, request: pb::RetryDeadLettersRequest) -> Result<TriedDeadLetters, Error> {
        match (request.id, request.domain) {
            (Some(id), None) => {
                for (field, is_given) in [
                    ("key", request.key.is_some()),
                    ("keyBytes", request.key_bytes.is_some()),
                    ("reason", request.reason.is_some()),
                    ("pageToken", !request.page_token.is_empty()),
                ] {
                    if is_given {
                        return Err(Error::invalid(field, "must not be given together with id"));
                    }
                }
                self.operations
                    .retry_dead_letter(&id, request.dry_run)
                    .await
            }
            (None, Some(domain)) => {
                let request = RetryRequest {
                    domain,
                    key: key(request.key, request.key_bytes)?,
                    reason: request.reason,
                    dry_run: request.dry_run,
                    page_token: request.page_token,
                };
                self.operations.retry_dead_letters(&request).await
            }
            (Some(_), Some(_)) => {
                let problem = "must not be given together with id";
                Err(Error::invalid("domain", problem))
            }
            (None, None) => {
                let problem = "must be given, unless id is given";
                Err(Error::invalid("domain", problem))
            }
        }
    }
}

/// The Kafka key of a request: given as text, or as bytes if it is not UTF-8.
fn key(text: Option<String>, bytes: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
    match (text, bytes) {
        (Some(_), Some(_)) => Err(Error::invalid(
            "keyBytes",
            "must not be given together with key",
        )),
        (Some(text), None) => non_empty_key("key", text.into_bytes()).map(Some),
        (None, Some(bytes)) => non_empty_key("keyBytes", bytes).map(Some),
        (None, None) => Ok(None),
    }
}

#[tonic::async_trait]
impl OperationsService for Service {
    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let state = match request.state {
            Some(number) => dead_letter_state(number)?,
            None => None,
        };
        let filter = DeadLetterFilter {
            domain: request.domain,
            key: key(request.key, request.key_bytes)?,
            reason: request.reason,
            state,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let found = self.operations.list_dead_letters(&filter, &page).await?;
        Ok(Response::new(pb::ListDeadLettersResponse {
            dead_letters: found.dead_letters.into_iter().map(Into::into).collect(),
            next_page_token: found.next_page_token,
        }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::GetDeadLetterResponse>, Status> {
        let id = request.into_inner().id;
        let dead_letter = self.operations.dead_letter(&id).await?;
        Ok(Response::new(pb::GetDeadLetterResponse {
            dead_letter: Some(dead_letter.into()),
        }))
    }

    async fn retry_dead_letters(
        &self,
        request: Request<pb::RetryDeadLettersRequest>,
    ) -> Result<Response<pb::RetryDeadLettersResponse>, Status> {
        let tried = self.retry(request.into_inner()).await?;
        Ok(Response::new(pb::RetryDeadLettersResponse {
            outcomes: tried.outcomes.into_iter().map(Into::into).collect(),
            next_page_token: tried.next_page_token,
        }))
    }

    async fn discard_dead_letter(
        &self,
        request: Request<pb::DiscardDeadLetterRequest>,
    ) -> Result<Response<pb::DiscardDeadLetterResponse>, Status> {
        let pb::DiscardDeadLetterRequest {
            id,
            reason,
            dry_run,
        } = request.into_inner();
        let tried = self
            .operations
            .discard_dead_letter(&id, &reason, dry_run)
            .await?;
        Ok(Response::new(pb::DiscardDeadLetterResponse {
            outcomes: tried.outcomes.into_iter().map(Into::into).collect(),
        }))
    }

    async fn list_projections(
        &self,
        _: Request<pb::ListProjectionsRequest>,
    ) -> Result<Response<pb::ListProjectionsResponse>, Status> {
        let found = self.operations.projections().await?;
        Ok(Response::new(pb::ListProjectionsResponse {
            projections: found.projections.into_iter().map(Into::into).collect(),
        }))
    }

    async fn pause_projection(
        &self,
        request: Request<pb::PauseProjectionRequest>,
    ) -> Result<Response<pb::PauseProjectionResponse>, Status> {
        let pb::PauseProjectionRequest { domain, reason } = request.into_inner();
        let paused = self.operations.pause(&domain, reason.as_deref()).await?;
        Ok(Response::new(pb::PauseProjectionResponse {
            projection: Some(paused.into()),
        }))
    }

    async fn resume_projection(
        &self,
        request: Request<pb::ResumeProjectionRequest>,
    ) -> Result<Response<pb::ResumeProjectionResponse>, Status> {
        let request = request.into_inner();
        let resumed = self
            .operations
            .resume(
                &request.domain,
                request.accept_loss,
                request.accept_older_code,
            )
            .await?;
        Ok(Response::new(pb::ResumeProjectionResponse {
            projection: Some(resumed.into()),
        }))
    }

    async fn rebuild_projection(
        &self,
        request: Request<pb::RebuildProjectionRequest>,
    ) -> Result<Response<pb::RebuildProjectionResponse>, Status> {
        let request = request.into_inner();
        let rebuilding = self
            .operations
            .rebuild(&request.domain, request.accept_loss)
            .await?;
        Ok(Response::new(pb::RebuildProjectionResponse {
            projection: Some(rebuilding.into()),
        }))
    }

    async fn cancel_rebuild(
        &self,
        request: Request<pb::CancelRebuildRequest>,
    ) -> Result<Response<pb::CancelRebuildResponse>, Status> {
        let cancelled = self.operations.cancel(&request.into_inner().domain).await?;
        Ok(Response::new(pb::CancelRebuildResponse {
            projection: Some(cancelled.into()),
        }))
    }

    async fn switch_projection(
        &self,
        request: Request<pb::SwitchProjectionRequest>,
    ) -> Result<Response<pb::SwitchProjectionResponse>, Status> {
        let request = request.into_inner();
        let switched = self
            .operations
            .switch(&request.domain, request.version, request.compare)
            .await?;
        Ok(Response::new(pb::SwitchProjectionResponse {
            projection: Some(switched.into()),
        }))
    }

    async fn rollback_projection(
        &self,
        request: Request<pb::RollbackProjectionRequest>,
    ) -> Result<Response<pb::RollbackProjectionResponse>, Status> {
        let pb::RollbackProjectionRequest { domain, version } = request.into_inner();
        let rolled_back = self.operations.rollback(&domain, version).await?;
        Ok(Response::new(pb::RollbackProjectionResponse {
            projection: Some(rolled_back.into()),
        }))
    }

    async fn drop_projection(
        &self,
        request: Request<pb::DropProjectionRequest>,
    ) -> Result<Response<pb::DropProjectionResponse>, Status> {
        let dropped = self
            .operations
            .drop_retired(&request.into_inner().domain)
            .await?;
        Ok(Response::new(pb::DropProjectionResponse {
            projection: Some(dropped.into()),
        }))
    }
}

/// The state with this number; `None` for the unspecified one.
fn dead_letter_state(number: i32) -> Result<Option<DeadLetterState>, Error> {
    match pb::DeadLetterState::try_from(number) {
        Ok(pb::DeadLetterState::Unspecified) => Ok(None),
        Ok(pb::DeadLetterState::Parked) => Ok(Some(DeadLetterState::Parked)),
        Ok(pb::DeadLetterState::Retrying) => Ok(Some(DeadLetterState::Retrying)),
        Ok(pb::DeadLetterState::Discarded) => Ok(Some(DeadLetterState::Discarded)),
        Ok(pb::DeadLetterState::Applied) => Ok(Some(DeadLetterState::Applied)),
        Err(_) => {
            let problem = "must be DEAD_LETTER_STATE_PARKED, DEAD_LETTER_STATE_RETRYING, DEAD_LETTER_STATE_DISCARDED or \
                           DEAD_LETTER_STATE_APPLIED";
            Err(Error::invalid("state", problem))
        }
    }
}

/// Decodes what the REST form holds in base64.
fn bytes(base64: Option<String>) -> Option<Vec<u8>> {
    STANDARD.decode(base64?).ok()
}

impl From<DeadLetter> for pb::DeadLetter {
    fn from(dead_letter: DeadLetter) -> Self {
        Self {
            id: dead_letter.id.to_string(),
            domain: dead_letter.domain,
            topic: dead_letter.topic,
            partition: dead_letter.partition,
            offset: dead_letter.offset,
            key: dead_letter.key,
            key_bytes: bytes(dead_letter.key_base64),
            event_id: dead_letter.event_id,
            event_type: dead_letter.event_type,
            reason: dead_letter.reason,
            field: dead_letter.field,
            class: match dead_letter.class {
                DeadLetterClass::Data => pb::DeadLetterClass::Data,
                DeadLetterClass::Schema => pb::DeadLetterClass::Schema,
                DeadLetterClass::Bug => pb::DeadLetterClass::Bug,
                DeadLetterClass::Blocked => pb::DeadLetterClass::Blocked,
            }
            .into(),
            state: match dead_letter.state {
                DeadLetterState::Parked => pb::DeadLetterState::Parked,
                DeadLetterState::Retrying => pb::DeadLetterState::Retrying,
                DeadLetterState::Discarded => pb::DeadLetterState::Discarded,
                DeadLetterState::Applied => pb::DeadLetterState::Applied,
            }
            .into(),
            resolution: dead_letter.resolution,
            attempts: dead_letter.attempts,
            first_failed_at: Some(timestamp(dead_letter.first_failed_at)),
            last_failed_at: Some(timestamp(dead_letter.last_failed_at)),
            occurred_at: dead_letter.occurred_at.map(timestamp),
            resolved_at: dead_letter.resolved_at.map(timestamp),
            size: dead_letter.size,
            headers: dead_letter
                .headers
                .into_iter()
                .flatten()
                .map(Into::into)
                .collect(),
            value: bytes(dead_letter.value),
        }
    }
}

impl From<DeadLetterHeader> for pb::DeadLetterHeader {
    fn from(header: DeadLetterHeader) -> Self {
        Self {
            name: header.name,
            value: bytes(header.value),
        }
    }
}

impl From<TriedDeadLetter> for pb::TriedDeadLetter {
    fn from(tried: TriedDeadLetter) -> Self {
        Self {
            id: tried.id.to_string(),
            outcome: match tried.outcome {
                DeadLetterOutcome::Applied => pb::DeadLetterOutcome::Applied,
                DeadLetterOutcome::Duplicate => pb::DeadLetterOutcome::Duplicate,
                DeadLetterOutcome::Skipped => pb::DeadLetterOutcome::Skipped,
                DeadLetterOutcome::Discarded => pb::DeadLetterOutcome::Discarded,
                DeadLetterOutcome::Failed => pb::DeadLetterOutcome::Failed,
                DeadLetterOutcome::Waiting => pb::DeadLetterOutcome::Waiting,
            }
            .into(),
            reason: tried.reason,
            field: tried.field,
        }
    }
}

impl From<Projection> for pb::Projection {
    fn from(projection: Projection) -> Self {
        Self {
            domain: projection.domain,
            state: DomainState::from(projection.state).into(),
            outdated: projection.outdated,
            versions: projection.versions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ProjectionVersion> for pb::ProjectionVersion {
    fn from(version: ProjectionVersion) -> Self {
        Self {
            version: version.version,
            state: match version.state {
                VersionState::Live => pb::VersionState::Live,
                VersionState::Building => pb::VersionState::Building,
                VersionState::Retired => pb::VersionState::Retired,
            }
            .into(),
            code_version: version.code_version,
            outdated: version.outdated,
            created_at: Some(timestamp(version.created_at)),
            retired_at: version.retired_at.map(timestamp),
            drops_at: version.drops_at.map(timestamp),
            accepts_loss: version.accepts_loss,
            pause: version.pause.map(Into::into),
            failure: version.failure,
            read: version.read,
            lag: version.lag,
            progress: version.progress,
            rate: version.rate,
            eta_seconds: version.eta_seconds,
            dead_letters: version.dead_letters,
            stalled_since: version.stalled_since.map(timestamp),
        }
    }
}

impl From<Pause> for pb::Pause {
    fn from(pause: Pause) -> Self {
        Self {
            reason: pause.reason,
            by: pause.by,
            paused_at: Some(timestamp(pause.paused_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::json;

    use super::super::dead_letters::DeadLetters;
    use super::super::retries::TriedDeadLetters;
    use super::*;

    #[test]
    fn a_key_is_given_in_one_form_and_is_not_empty() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(key(text("a"), None).unwrap(), Some(b"a".to_vec()));
        assert_eq!(key(None, Some(vec![0xff])).unwrap(), Some(vec![0xff]));
        assert_eq!(key(None, None).unwrap(), None);
        for (text, bytes) in [
            (text("a"), Some(b"a".to_vec())),
            (text(""), None),
            (None, Some(Vec::new())),
        ] {
            let refused = key(text, bytes).unwrap_err();
            assert_eq!(refused.code(), crate::error::Code::InvalidArgument);
        }
    }

    /// Answers are measured as JSON: see [`crate::query::page`].
    #[test]
    fn protobuf_is_not_larger_than_json() {
        let id = "01a2093a-f139-710d-8867-ae04814d66ac";
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let dead_letter = json!({
                "id": id, "domain": text, "topic": text, "partition": -1, "offset": -1, "key": text,
                "eventId": text, "eventType": text, "reason": text, "field": text, "class": "data",
                "state": "parked", "resolution": text, "attempts": -1,
                "firstFailedAt": "2026-11-02T17:05:12.250Z", "lastFailedAt": "2026-11-02T17:05:12.250Z",
                "occurredAt": "0001-01-01T00:00:00Z", "resolvedAt": "2026-11-02T17:05:12Z", "size": -1,
            });
            let mut with_bytes = dead_letter.clone();
            let fields = with_bytes.as_object_mut().expect("an object");
            fields.remove("key");
            fields.insert("keyBase64".into(), json!(STANDARD.encode(&text)));
            let page: DeadLetters =
                serde_json::from_value(json!({"deadLetters": [dead_letter, with_bytes]})).unwrap();
            let json = serde_json::to_vec(&page).unwrap().len();
            let message = pb::ListDeadLettersResponse {
                dead_letters: page.dead_letters.into_iter().map(Into::into).collect(),
                next_page_token: None,
            };
            assert!(message.encoded_len() <= json, "dead letters of {length}");

            let tried: TriedDeadLetters = serde_json::from_value(json!({"outcomes": [
                {"id": id, "outcome": "waiting"},
                {"id": id, "outcome": "failed", "reason": text, "field": text},
            ]}))
            .unwrap();
            let json = serde_json::to_vec(&tried).unwrap().len();
            let message = pb::RetryDeadLettersResponse {
                outcomes: tried.outcomes.into_iter().map(Into::into).collect(),
                next_page_token: None,
            };
            assert!(message.encoded_len() <= json, "outcomes of {length}");
        }
    }
}
