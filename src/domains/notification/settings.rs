//! The settings of the domain.

use std::time::Duration;

use super::model::Template;
use crate::config::Config;

/// The settings of the domain.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often a notification is tried to be sent.
    pub max_attempts: i32,
    /// The pause after the first failed attempt.
    pub backoff: Duration,
    /// After how long it is too late to send a notification, in the order of [`Template::ALL`].
    expiry_seconds: [i32; Template::ALL.len()],
}

impl Settings {
    /// What holds unless the settings say otherwise: an hour to reset a password, a day to verify an
    /// email, a week for the others.
    pub const DEFAULT: Self = Self {
        max_attempts: 5,
        backoff: Duration::from_secs(30),
        expiry_seconds: [
            604_800, 86_400, 604_800, 604_800, 3_600, 604_800, 604_800, 604_800, 604_800,
        ],
    };

    /// Those of a process.
    pub fn of(config: &Config) -> Self {
        let mut settings = Self {
            max_attempts: config.notification_max_attempts,
            backoff: config.notification_backoff,
            ..Self::DEFAULT
        };
        for template in Template::ALL {
            if let Some(seconds) = config.notification_expiry_seconds.get(template.as_str()) {
                settings.expiry_seconds[template as usize] = *seconds;
            }
        }
        settings
    }

    /// After how many seconds it is too late to send a notification.
    pub fn expiry_seconds(&self, template: Template) -> i32 {
        self.expiry_seconds[template as usize]
    }
}
