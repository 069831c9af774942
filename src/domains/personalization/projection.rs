//! How events become the personalization domain's view: a pure fold, and the statement that writes
//! the facets of users.

use std::collections::BTreeSet;

use async_trait::async_trait;
use uuid::Uuid;

use super::Personalization;
use super::preferences::Preferences;
use super::segments::facets;
use super::state::ProfileState;
use crate::event::{EventType, Payload, TypeName};
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{NewEvent, Projection, RefusedEvent, Target};

#[async_trait]
impl Projection for Personalization {
    fn domain(&self) -> &'static str {
        "personalization"
    }

    fn declared_code_version(&self) -> i32 {
        2
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        matches!(
            event_type,
            TypeName::Known {
                event_type: EventType::UserRegistered
                    | EventType::UserDeleted
                    | EventType::UserProfileUpdated
                    | EventType::UserAddressAdded
                    | EventType::UserAddressUpdated
                    | EventType::UserAddressDeleted
                    | EventType::UserProfileDefaultAddressChanged,
                ..
            }
        )
    }

    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        let folded = users::fold::<ProfileState>(target, events).await?;
        write_members(target, &folded).await
    }
}

/// What the fold of a user's events produces besides the state.
#[derive(Default)]
pub struct Effects {
    /// The user's facets before the batch; `None` before its first event.
    pub facets_before: Option<BTreeSet<Uuid>>,
}

impl UserState for ProfileState {
    type Effects = Effects;

    fn check(&self, new_event: &NewEvent) -> Result<(), RefusedEvent> {
        match &new_event.event.payload {
            Payload::UserProfileUpdated(updated)
                if !self.is_deleted && Preferences::are_in(&updated.changes) =>
            {
                Ok(self.preferences.check(&updated.changes)?)
            }
            _ => Ok(()),
        }
    }

    fn apply(&mut self, new_event: &NewEvent, effects: &mut Effects) {
        effects.facets_before.get_or_insert_with(|| facets(self));
        if self.is_deleted {
            return;
        }
        if let Payload::UserDeleted(_) = &new_event.event.payload {
            *self = Self {
                is_deleted: true,
                ..Self::default()
            };
            return;
        }
        self.change(new_event);
    }
}

/// Writes which facets users got and lost. No other transaction writes the rows of a user whose own
/// row this one has written.
async fn write_members(
    target: &mut Target<'_>,
    folded: &[Folded<ProfileState>],
) -> Result<(), sqlx::Error> {
    let (mut lost, mut got) = (Members::default(), Members::default());
    for user in folded {
        let Some(before) = &user.effects.facets_before else {
            continue;
        };
        let after = facets(&user.state);
        lost.push(&user.user_id, before.difference(&after));
        got.push(&user.user_id, after.difference(before));
    }
    if lost.facets.is_empty() && got.facets.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/domains/personalization/sql/write_members.sql",
        &lost.facets,
        &lost.user_ids as _,
        &got.facets,
        &got.user_ids as _,
    )
    .execute(&mut *target.connection)
    .await
    .map(drop)
}

/// Rows of members, column by column.
#[derive(Default)]
struct Members<'u> {
    facets: Vec<Uuid>,
    user_ids: Vec<&'u str>,
}

impl<'u> Members<'u> {
    fn push<'f>(&mut self, user_id: &'u str, facets: impl Iterator<Item = &'f Uuid>) {
        for facet in facets {
            self.facets.push(*facet);
            self.user_ids.push(user_id);
        }
    }
}
