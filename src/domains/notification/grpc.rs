//! The gRPC surface of the notification domain: unpacks requests, calls `queries` and `queue`, packs
//! answers.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::model::{
    Channel, LeaseOutcome, LeasedNotification, Notification, NotificationData, SettledNotification,
    SettledNotifications, Status as NotificationStatus, Template,
};
use super::queries::{self, NotificationFilter};
use super::queue::{self, FailedNotification, HeldNotification, LeaseRequest, Queue};
use crate::error::Error;
use crate::proto::notification::v1 as pb;
use crate::proto::notification::v1::notification_service_server::{
    NotificationService, NotificationServiceServer,
};
use crate::query::grpc::{self, respond, timestamp};
use crate::query::{self, Reads};

/// The service, over `reads`. Workers lease from `queue`.
pub fn service(
    reads: Reads,
    queue: Arc<Queue>,
) -> NotificationServiceServer<impl NotificationService> {
    grpc::service!(NotificationServiceServer::new(NotificationGrpc {
        reads,
        queue
    }))
}

struct NotificationGrpc {
    reads: Reads,
    queue: Arc<Queue>,
}

#[tonic::async_trait]
impl NotificationService for NotificationGrpc {
    async fn list_notifications(
        &self,
        request: Request<pb::ListNotificationsRequest>,
    ) -> Result<Response<pb::ListNotificationsResponse>, Status> {
        let request = request.into_inner();
        let filter = NotificationFilter {
            user_id: request.user_id,
            statuses: statuses(&request.status)?,
            templates: templates("template", &request.template)?,
        };
        let page = grpc::page(request.page_size, request.page_token);
        let answer = queries::list_notifications(&self.reads, &filter, &page).await?;
        Ok(respond(answer.map(|found| pb::ListNotificationsResponse {
            notifications: found.notifications.into_iter().map(Into::into).collect(),
            next_page_token: found.next_page_token,
        })))
    }

    async fn get_notification(
        &self,
        request: Request<pb::GetNotificationRequest>,
    ) -> Result<Response<pb::GetNotificationResponse>, Status> {
        let id = query::uuid("notificationId", &request.into_inner().notification_id)?;
        let answer = queries::get_notification(&self.reads, id).await?;
        Ok(respond(answer.map(|notification| {
            pb::GetNotificationResponse {
                notification: Some(notification.into()),
            }
        })))
    }

    async fn lease_notifications(
        &self,
        request: Request<pb::LeaseNotificationsRequest>,
    ) -> Result<Response<pb::LeaseNotificationsResponse>, Status> {
        let request = request.into_inner();
        let request = LeaseRequest {
            max: request.max,
            lease_seconds: request.lease_seconds,
            templates: templates("templates", &request.templates)?,
            wait_seconds: request.wait_seconds,
        };
        let answer = self.queue.lease(&self.reads, request).await?;
        Ok(respond(answer.map(|leased| {
            pb::LeaseNotificationsResponse {
                notifications: leased.notifications.into_iter().map(Into::into).collect(),
            }
        })))
    }

    async fn ack_notifications(
        &self,
        request: Request<pb::AckNotificationsRequest>,
    ) -> Result<Response<pb::AckNotificationsResponse>, Status> {
        let items = request.into_inner().items.into_iter();
        let items = items.map(|item| (item.notification_id, item.lease_token));
        let items = HeldNotification::all(items)?;
        let settled = self.queue.acknowledge(&self.reads, &items).await?;
        Ok(Response::new(pb::AckNotificationsResponse {
            outcomes: outcomes(settled),
        }))
    }

    async fn fail_notifications(
        &self,
        request: Request<pb::FailNotificationsRequest>,
    ) -> Result<Response<pb::FailNotificationsResponse>, Status> {
        let items = request.into_inner().items.into_iter();
        let items = items.map(|item| (item.notification_id, item.lease_token, item.reason));
        let items = FailedNotification::all(items)?;
        let settled = self.queue.fail(&self.reads, &items).await?;
        Ok(Response::new(pb::FailNotificationsResponse {
            outcomes: outcomes(settled),
        }))
    }

    async fn extend_lease(
        &self,
        request: Request<pb::ExtendLeaseRequest>,
    ) -> Result<Response<pb::ExtendLeaseResponse>, Status> {
        let request = request.into_inner();
        let item = HeldNotification::of("", &request.notification_id, &request.lease_token)?;
        let extended = queue::extend(&self.reads, &item, request.lease_seconds).await?;
        Ok(Response::new(pb::ExtendLeaseResponse {
            leased_until: Some(timestamp(extended.leased_until)),
        }))
    }
}

fn statuses(numbers: &[i32]) -> Result<Vec<NotificationStatus>, Error> {
    let name = pb::NotificationStatus::as_str_name;
    let statuses = numbers
        .iter()
        .map(|number| grpc::word("status", *number, NotificationStatus::ALL, name));
    statuses.collect()
}

fn templates(field: &str, numbers: &[i32]) -> Result<Vec<Template>, Error> {
    let name = pb::Template::as_str_name;
    let templates = numbers
        .iter()
        .map(|number| grpc::word(field, *number, Template::ALL, name));
    templates.collect()
}

fn outcomes(settled: SettledNotifications) -> Vec<pb::SettledNotification> {
    settled.outcomes.into_iter().map(Into::into).collect()
}

impl From<Template> for pb::Template {
    fn from(template: Template) -> Self {
        match template {
            Template::Welcome => Self::Welcome,
            Template::EmailVerification => Self::EmailVerification,
            Template::EmailVerified => Self::EmailVerified,
            Template::PasswordChanged => Self::PasswordChanged,
            Template::PasswordReset => Self::PasswordReset,
            Template::MfaEnabled => Self::MfaEnabled,
            Template::MfaDisabled => Self::MfaDisabled,
            Template::AccountSuspended => Self::AccountSuspended,
            Template::AccountReactivated => Self::AccountReactivated,
        }
    }
}

impl From<NotificationStatus> for pb::NotificationStatus {
    fn from(status: NotificationStatus) -> Self {
        match status {
            NotificationStatus::Pending => Self::Pending,
            NotificationStatus::Leased => Self::Leased,
            NotificationStatus::Sent => Self::Sent,
            NotificationStatus::Failed => Self::Failed,
            NotificationStatus::Cancelled => Self::Cancelled,
            NotificationStatus::Expired => Self::Expired,
            NotificationStatus::NoRecipient => Self::NoRecipient,
        }
    }
}

impl From<LeaseOutcome> for pb::LeaseOutcome {
    fn from(outcome: LeaseOutcome) -> Self {
        match outcome {
            LeaseOutcome::Ok => Self::Ok,
            LeaseOutcome::Lost => Self::Lost,
            LeaseOutcome::Cancelled => Self::Cancelled,
            LeaseOutcome::NotFound => Self::NotFound,
        }
    }
}

impl From<Notification> for pb::Notification {
    fn from(notification: Notification) -> Self {
        let channel = match notification.channel {
            Channel::Email => "email",
        };
        Self {
            notification_id: notification.notification_id.to_string(),
            event_id: notification.event_id,
            user_id: notification.user_id,
            template: pb::Template::from(notification.template).into(),
            recipient: notification.recipient,
            channel: channel.to_owned(),
            data: notification.data.map(Into::into),
            status: pb::NotificationStatus::from(notification.status).into(),
            attempts: notification.attempts,
            created_at: Some(timestamp(notification.created_at)),
            expires_at: Some(timestamp(notification.expires_at)),
            last_error: notification.last_error,
        }
    }
}

impl From<NotificationData> for pb::NotificationData {
    fn from(data: NotificationData) -> Self {
        Self {
            user_id: data.user_id,
            first_name: data.first_name,
            username: data.username,
            reset_token_identifier: data.reset_token_identifier,
            change_type: data.change_type,
            mfa_method: data.mfa_method,
            reason: data.reason,
            previous_status: data.previous_status,
            new_status: data.new_status,
        }
    }
}

impl From<LeasedNotification> for pb::LeasedNotification {
    fn from(leased: LeasedNotification) -> Self {
        Self {
            notification: Some(leased.notification.into()),
            lease_token: leased.lease_token.to_string(),
            leased_until: Some(timestamp(leased.leased_until)),
        }
    }
}

impl From<SettledNotification> for pb::SettledNotification {
    fn from(settled: SettledNotification) -> Self {
        let status = settled.status.map(pb::NotificationStatus::from);
        Self {
            notification_id: settled.notification_id.to_string(),
            outcome: pb::LeaseOutcome::from(settled.outcome).into(),
            status: status.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::{Value, json};

    use super::*;
    use crate::domains::notification::model::{LeasedNotifications, Notifications};

    const ID: &str = "00000000-0000-0000-0000-000000000000";

    fn bare(text: &str) -> Value {
        json!({
            "notificationId": ID, "eventId": text, "userId": text, "template": "welcome", "channel": "email",
            "status": "sent", "attempts": 0, "createdAt": "0001-01-01T00:00:00Z", "expiresAt": "0001-01-01T00:00:00Z",
        })
    }

    fn full(text: &str) -> Value {
        json!({
            "notificationId": ID, "eventId": text, "userId": text, "template": "account_reactivated",
            "recipient": text, "channel": "email", "data": {
                "userId": text, "firstName": text, "username": text, "resetTokenIdentifier": text,
                "changeType": text, "mfaMethod": text, "reason": text, "previousStatus": text, "newStatus": text,
            },
            "status": "no_recipient", "attempts": i32::MAX, "createdAt": "2026-10-03T09:00:00.123456Z",
            "expiresAt": "2026-10-03T09:00:00.000001Z", "lastError": text,
        })
    }

    /// Answers are measured as JSON: see [`crate::query::page`].
    #[test]
    fn protobuf_is_not_larger_than_json() {
        for length in [0, 1, 127, 128, 20_000] {
            let text = "x".repeat(length);
            let (bare, full) = (bare(&text), full(&text));
            let found: Notifications =
                serde_json::from_value(json!({"notifications": [bare, full]})).unwrap();
            let json = serde_json::to_vec(&found).unwrap().len();
            let message = pb::ListNotificationsResponse {
                notifications: found.notifications.into_iter().map(Into::into).collect(),
                next_page_token: None,
            };
            assert!(message.encoded_len() <= json, "notifications of {length}");

            let leased = [bare, full].map(|mut leased| {
                leased["leaseToken"] = json!(ID);
                leased["leasedUntil"] = json!("2026-10-03T09:00:00.123456Z");
                leased
            });
            let leased: LeasedNotifications =
                serde_json::from_value(json!({"notifications": leased})).unwrap();
            let json = serde_json::to_vec(&leased).unwrap().len();
            let message = pb::LeaseNotificationsResponse {
                notifications: leased.notifications.into_iter().map(Into::into).collect(),
            };
            assert!(message.encoded_len() <= json, "leased ones of {length}");
        }
    }

    #[test]
    fn every_word_has_its_number() {
        let numbers: Vec<i32> = (1..=9).collect();
        assert_eq!(templates("templates", &numbers).unwrap(), Template::ALL);
        let numbers: Vec<i32> = (1..=7).collect();
        assert_eq!(statuses(&numbers).unwrap(), NotificationStatus::ALL);
        for number in [0, -1, 10] {
            let error = templates("templates", &[1, number]).unwrap_err();
            assert_eq!(error.fields()[0].field, "templates");
            assert!(error.fields()[0].problem.contains("TEMPLATE_WELCOME, "));
            assert!(statuses(&[number]).is_err());
        }
    }
}
