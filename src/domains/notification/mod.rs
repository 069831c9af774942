//! The notification domain: what to send to users, for the Notification Service, which drains it as a work queue. Made from the
//! events about accounts.
//!
//! The view says what is to be sent. Whether it was sent lies outside of the view's versions (`notification.deliveries`): a
//! rebuild makes notifications again, and sends none again.

mod grpc;
mod model;
mod projection;
mod queries;
mod queue;
mod rest;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use self::model::Template;
use self::queue::Queue;
use super::{Domain, FirstReads};
use crate::config::Config;
use crate::proto::notification::v1::notification_service_server::SERVICE_NAME;
use crate::query::Reads;

/// The notification domain.
pub struct Notification {
    settings: Settings,
}

impl Notification {
    /// With the default settings, for what does not depend on them.
    pub const DEFAULT: Self = Self {
        settings: Settings {
            max_attempts: 5,
            backoff: Duration::from_secs(30),
            expiry_seconds: DEFAULT_EXPIRY_SECONDS,
        },
    };
}

/// In the order of [`Template::ALL`]: a day to verify an email, an hour to reset a password, a week for the others.
const DEFAULT_EXPIRY_SECONDS: [i32; Template::ALL.len()] = [
    604_800, 86_400, 604_800, 604_800, 3_600, 604_800, 604_800, 604_800, 604_800,
];

/// The settings of the domain.
#[derive(Debug, Clone)]
struct Settings {
    /// How often a notification is tried to be sent.
    max_attempts: i32,
    /// The pause after the first failed attempt.
    backoff: Duration,
    /// After how long it is too late to send a notification, in the order of [`Template::ALL`].
    expiry_seconds: [i32; Template::ALL.len()],
}

impl Settings {
    fn expiry_seconds(&self, template: Template) -> i32 {
        self.expiry_seconds[template as usize]
    }
}

impl Domain for Notification {
    fn grpc_service(&self) -> &'static str {
        SERVICE_NAME
    }

    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder) {
        let queue = Queue::new(self.settings.clone());
        routes.add_service(grpc::service(reads, queue));
    }

    fn rest(&self) -> OpenApiRouter<Reads> {
        rest::routes(Queue::new(self.settings.clone()))
    }

    fn with_settings(&self, config: &Config) -> Option<&'static dyn Domain> {
        let mut settings = self.settings.clone();
        settings.max_attempts = config.notification_max_attempts;
        settings.backoff = config.notification_backoff;
        for template in Template::ALL {
            if let Some(seconds) = config.notification_expiry_seconds.get(template.as_str()) {
                settings.expiry_seconds[template as usize] = *seconds;
            }
        }
        Some(Box::leak(Box::new(Self { settings })))
    }

    fn first_reads(&self) -> FirstReads {
        FirstReads {
            nobody: "/v1/notification/notifications?userId=nobody",
            path: "/v1/notification/notifications?userId=u-1001",
            call: ["ListNotifications", r#"{"user_id": "u-1001"}"#],
        }
    }
}
