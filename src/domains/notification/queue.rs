//! A placeholder of the work queue, until the engine takes its place.

use std::sync::Arc;

use uuid::Uuid;

use super::model::{
    ExtendedLease, LeasedNotifications, SettledNotification, SettledNotifications, Template,
};
use crate::error::Error;
use crate::query::{Answer, Reads};

/// What a worker asks for.
pub struct LeaseRequest {
    pub max: i32,
    pub lease_seconds: i32,
    pub templates: Vec<Template>,
    pub wait_seconds: i32,
}

/// A notification, and the lease under which it is held.
pub struct HeldNotification {
    pub notification_id: Uuid,
    pub lease_token: Uuid,
}

/// … and why it could not be sent.
pub struct FailedNotification {
    pub held: HeldNotification,
    pub reason: String,
}

/// The queue.
pub struct Queue;

impl Queue {
    pub fn new() -> Arc<Self> {
        Arc::new(Self)
    }

    pub async fn lease(
        self: &Arc<Self>,
        _: &Reads,
        _: LeaseRequest,
    ) -> Result<Answer<LeasedNotifications>, Error> {
        todo!()
    }
}

pub async fn acknowledge(_: &Reads, _: &[HeldNotification]) -> Result<SettledNotifications, Error> {
    todo!()
}

pub async fn fail(_: &Reads, _: &[FailedNotification]) -> Result<SettledNotifications, Error> {
    todo!()
}

pub async fn extend(_: &Reads, _: &HeldNotification, _: i32) -> Result<ExtendedLease, Error> {
    todo!()
}

pub fn single(_: SettledNotifications) -> Result<SettledNotification, Error> {
    todo!()
}
