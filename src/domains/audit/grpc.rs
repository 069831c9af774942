//! The gRPC surface of the audit domain: unpacks requests, calls `queries` and `verify`, packs answers.

use tonic::{Request, Response, Status};

use super::chain::Key;
use super::model::{
    Access, Alert, AlertKind, BrokenEntry, Category, ChainProblem, Entry, FieldChange,
    HeldPermission, HeldRole, Outcome, Role, Verification,
};
use super::queries::{self, AlertFilter, EntryFilter};
use super::verify;
use crate::error::Error;
use crate::proto::audit::v1 as pb;
use crate::proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use crate::query::Reads;
use crate::query::grpc::{self, respond, timestamp};

/// The service, over `reads`. `key` is that of the chains.
pub fn service(reads: Reads, key: Key) -> AuditServiceServer<impl AuditService> {
    grpc::service!(AuditServiceServer::new(AuditGrpc { reads, key }))
}

struct AuditGrpc {
    reads: Reads,
    key: Key,
}

#[tonic::async_trait]
impl AuditService for AuditGrpc {
    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<pb::ListEntriesResponse>, Status> {
        let request = request.into_inner();
        let filter = EntryFilter {
            user_id: given("userId", request.user_id)?,
            actor: given("actor", request.actor)?,
            role_id: given("roleId", request.role_id)?,
            ip_address: given("ipAddress", request.ip_address)?,
            category: category(request.category)?,
            action: given("action", request.action)?,
            outcome: outcome(request.outcome)?,
            from: grpc::time("from", request.from)?,
            to: grpc::time("to", request.to)?,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::list_entries(&self.reads, &filter, &page).await?;
        Ok(respond(answer.map(|found| pb::ListEntriesResponse {
            entries: found.entries.into_iter().map(Into::into).collect(),
            next_page_token: found.next_page_token,
        })))
    }

    async fn list_alerts(
        &self,
        request: Request<pb::ListAlertsRequest>,
    ) -> Result<Response<pb::ListAlertsResponse>, Status> {
        let request = request.into_inner();
        let filter = AlertFilter {
            kind: kind(request.kind)?,
            key: given("key", request.key)?,
            from: grpc::time("from", request.from)?,
            to: grpc::time("to", request.to)?,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::list_alerts(&self.reads, &filter, &page).await?;
        Ok(respond(answer.map(|found| pb::ListAlertsResponse {
            alerts: found.alerts.into_iter().map(Into::into).collect(),
            next_page_token: found.next_page_token,
        })))
    }

    async fn verify_entries(
        &self,
        request: Request<pb::VerifyEntriesRequest>,
    ) -> Result<Response<pb::VerifyEntriesResponse>, Status> {
        let expected = request.into_inner().expected_head;
        let verification = verify::verify(&self.reads, &self.key, expected.as_deref()).await?;
        Ok(Response::new(verification.into()))
    }

    async fn get_user_access(
        &self,
        request: Request<pb::GetUserAccessRequest>,
    ) -> Result<Response<pb::GetUserAccessResponse>, Status> {
        let request = request.into_inner();
        let as_of = grpc::past_time("asOf", request.as_of)?;
        let answer = queries::get_user_access(&self.reads, &request.user_id, as_of).await?;
        Ok(respond(answer.map(Into::into)))
    }

    async fn get_role(
        &self,
        request: Request<pb::GetRoleRequest>,
    ) -> Result<Response<pb::GetRoleResponse>, Status> {
        let request = request.into_inner();
        let as_of = grpc::past_time("asOf", request.as_of)?;
        let answer = queries::get_role(&self.reads, &request.role_id, as_of).await?;
        Ok(respond(answer.map(|role| pb::GetRoleResponse {
            role: Some(role.into()),
        })))
    }
}

/// A text that is left out, not empty, if it is not given.
fn given(field: &str, text: Option<String>) -> Result<Option<String>, Error> {
    match text.as_deref() {
        Some("") => Err(Error::empty(field)),
        _ => Ok(text),
    }
}

fn category(number: Option<i32>) -> Result<Option<Category>, Error> {
    let name = pb::Category::as_str_name;
    grpc::word_of_filter("category", number, Category::ALL, name)
}

fn outcome(number: Option<i32>) -> Result<Option<Outcome>, Error> {
    let name = pb::Outcome::as_str_name;
    grpc::word_of_filter("outcome", number, Outcome::ALL, name)
}

fn kind(number: Option<i32>) -> Result<Option<AlertKind>, Error> {
    let name = pb::AlertKind::as_str_name;
    grpc::word_of_filter("kind", number, AlertKind::ALL, name)
}

impl From<Category> for pb::Category {
    fn from(category: Category) -> Self {
        match category {
            Category::Account => Self::Account,
            Category::Authentication => Self::Authentication,
            Category::Authorization => Self::Authorization,
            Category::Unknown => Self::Unknown,
        }
    }
}

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Failure => Self::Failure,
        }
    }
}

impl From<AlertKind> for pb::AlertKind {
    fn from(kind: AlertKind) -> Self {
        match kind {
            AlertKind::BruteForce => Self::BruteForce,
            AlertKind::CredentialStuffing => Self::CredentialStuffing,
            AlertKind::MfaFatigue => Self::MfaFatigue,
            AlertKind::LoginAfterFailures => Self::LoginAfterFailures,
        }
    }
}

impl From<ChainProblem> for pb::ChainProblem {
    fn from(problem: ChainProblem) -> Self {
        match problem {
            ChainProblem::Changed => Self::Changed,
            ChainProblem::Removed => Self::Removed,
            ChainProblem::Inserted => Self::Inserted,
            ChainProblem::TailCut => Self::TailCut,
        }
    }
}

/// The number of a partition as protos have it. Kafka counts partitions by an `i32`.
fn partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

impl From<Entry> for pb::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            event_id: entry.event_id,
            r#type: entry.r#type,
            version: entry.version,
            category: pb::Category::from(entry.category).into(),
            action: entry.action,
            outcome: pb::Outcome::from(entry.outcome).into(),
            reason: entry.reason,
            actor: entry.actor,
            user_id: entry.user_id,
            role_id: entry.role_id,
            permission_id: entry.permission_id,
            ip_address: entry.ip_address,
            user_agent: entry.user_agent,
            correlation_id: entry.correlation_id,
            occurred_at: Some(timestamp(entry.occurred_at)),
            recorded_at: Some(timestamp(entry.recorded_at)),
            topic: entry.topic,
            partition: partition(entry.partition),
            offset: entry.offset,
            changes: entry.changes.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<FieldChange> for pb::FieldChange {
    fn from(change: FieldChange) -> Self {
        Self {
            field: change.field,
            old: change.old.map(|value| value.to_string()),
            new: change.new.map(|value| value.to_string()),
        }
    }
}

impl From<Alert> for pb::Alert {
    fn from(alert: Alert) -> Self {
        Self {
            kind: pb::AlertKind::from(alert.kind).into(),
            key: alert.key,
            window_start: Some(timestamp(alert.window_start)),
            window_end: Some(timestamp(alert.window_end)),
            count: alert.count,
            first_event_at: Some(timestamp(alert.first_event_at)),
            last_event_at: Some(timestamp(alert.last_event_at)),
            event_ids: alert.event_ids,
        }
    }
}

impl From<Verification> for pb::VerifyEntriesResponse {
    fn from(verification: Verification) -> Self {
        Self {
            valid: verification.valid,
            entries_checked: verification.entries_checked,
            first_broken: verification.first_broken.map(Into::into),
            keyed: verification.keyed,
            head: verification.head,
        }
    }
}

impl From<BrokenEntry> for pb::BrokenEntry {
    fn from(broken: BrokenEntry) -> Self {
        Self {
            topic: broken.topic,
            partition: partition(broken.partition),
            offset: broken.offset,
            event_id: broken.event_id,
            problem: pb::ChainProblem::from(broken.problem).into(),
        }
    }
}

impl From<Access> for pb::GetUserAccessResponse {
    fn from(access: Access) -> Self {
        Self {
            roles: access.roles.into_iter().map(Into::into).collect(),
            permissions: access.permissions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<HeldRole> for pb::HeldRole {
    fn from(role: HeldRole) -> Self {
        Self {
            role_id: role.role_id,
            role_name: role.role_name,
        }
    }
}

impl From<HeldPermission> for pb::HeldPermission {
    fn from(permission: HeldPermission) -> Self {
        Self {
            permission_id: permission.permission_id,
            permission_name: permission.permission_name,
        }
    }
}

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        Self {
            role_id: role.role_id,
            role_name: role.role_name,
            description: role.description,
            permissions: role.permissions.into_iter().map(Into::into).collect(),
            holders: role.holders,
            deleted_at: role.deleted_at.map(timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::domains::audit::model::{Alerts, Entries};

    /// Answers are measured as JSON: see [`crate::query::page`].
    fn assert_not_larger<T: DeserializeOwned + serde::Serialize, M: Message>(
        json: Value,
        message: impl FnOnce(T) -> M,
    ) {
        let answer: T = serde_json::from_value(json).unwrap();
        let size = serde_json::to_vec(&answer).unwrap().len();
        let message = message(answer).encoded_len();
        assert!(message <= size, "{message} bytes for {size} of JSON");
    }

    #[test]
    fn protobuf_is_not_larger_than_json() {
        let (early, late) = ("0001-01-01T00:00:00Z", "2026-10-03T09:00:00.123456Z");
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let bare = json!({
                "eventId": text, "type": text, "category": "unknown", "action": text, "outcome": "success",
                "occurredAt": early, "recordedAt": early, "topic": text, "partition": 0, "offset": 0,
            });
            let change = json!({"field": text, "old": text, "new": {"a": [1, null, text]}});
            let full = json!({
                "eventId": text, "type": text, "version": text, "category": "account", "action": text,
                "outcome": "failure", "reason": text, "actor": text, "userId": text, "roleId": text,
                "permissionId": text, "ipAddress": text, "userAgent": text, "correlationId": text,
                "occurredAt": late, "recordedAt": late, "topic": text, "partition": i32::MAX,
                "offset": i64::MAX, "changes": [{"field": text}, change],
            });
            assert_not_larger(json!({"entries": [bare, full]}), |found: Entries| {
                pb::ListEntriesResponse {
                    entries: found.entries.into_iter().map(Into::into).collect(),
                    next_page_token: None,
                }
            });
            let alert = json!({
                "kind": "mfa_fatigue", "key": text, "windowStart": late, "windowEnd": late, "count": i64::MAX,
                "firstEventAt": late, "lastEventAt": late, "eventIds": [text, text],
            });
            assert_not_larger(json!({"alerts": [alert]}), |found: Alerts| {
                pb::ListAlertsResponse {
                    alerts: found.alerts.into_iter().map(Into::into).collect(),
                    next_page_token: None,
                }
            });
            let permission = json!({"permissionId": text, "permissionName": text});
            let roles = json!([{"roleId": text, "roleName": text}, {"roleId": text}]);
            assert_not_larger(
                json!({"roles": roles, "permissions": [permission]}),
                |access: Access| pb::GetUserAccessResponse::from(access),
            );
            let role = json!({
                "roleId": text, "roleName": text, "description": text, "permissions": [permission],
                "holders": [text, text], "deletedAt": late,
            });
            assert_not_larger(role, |role: Role| pb::GetRoleResponse {
                role: Some(role.into()),
            });
        }
    }

    #[test]
    fn every_word_has_its_number() {
        for number in 1..=4 {
            let found = kind(Some(number)).unwrap().unwrap();
            assert_eq!(i32::from(found.code()), number);
            assert!(category(Some(number)).unwrap().is_some());
        }
        assert_eq!(outcome(Some(2)).unwrap(), Some(Outcome::Failure));
        for absent in [None, Some(0)] {
            assert_eq!(kind(absent).unwrap(), None);
            assert!(category(absent).unwrap().is_none() && outcome(absent).unwrap().is_none());
        }
        for number in [-1, 5].map(Some) {
            let error = kind(number).unwrap_err();
            assert_eq!(error.fields()[0].field, "kind");
            assert!(error.fields()[0].problem.contains("ALERT_KIND_BRUTE_FORCE"));
            assert!(category(number).is_err() && outcome(number).is_err());
        }
    }
}
