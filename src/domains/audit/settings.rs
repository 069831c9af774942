//! The settings of the domain.

use super::chain::Key;
use crate::config::{AlertThreshold, Config};

/// The settings of the domain.
#[derive(Clone)]
pub struct Settings {
    /// The key of the chains.
    pub key: Key,
    /// How many days after a soft deletion entries keep what is personal.
    pub soft_retention_days: u32,
    /// Failed logins for one account.
    pub brute_force: AlertThreshold,
    /// Accounts for which logins from one IP address fail.
    pub credential_stuffing: AlertThreshold,
    /// Refused second factors of one user.
    pub mfa_fatigue: AlertThreshold,
}

impl Settings {
    /// Those of what does not depend on them.
    pub const NONE: Self = Self {
        key: Key::NONE,
        soft_retention_days: 0,
        brute_force: NEVER,
        credential_stuffing: NEVER,
        mfa_fatigue: NEVER,
    };

    /// Those of a process.
    pub fn of(config: &Config) -> Self {
        Self {
            key: Key::of(config.audit_key.as_ref().map(|key| key.expose().as_bytes())),
            soft_retention_days: config.audit_soft_retention_days,
            brute_force: config.alert_brute_force,
            credential_stuffing: config.alert_credential_stuffing,
            mfa_fatigue: config.alert_mfa_fatigue,
        }
    }
}

const NEVER: AlertThreshold = AlertThreshold {
    count: i64::MAX,
    window_seconds: 1,
};
