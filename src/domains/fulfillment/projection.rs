//! How the fulfillment domain's events become shipping addresses: a pure fold, and the statements that write what it
//! tells.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::Fulfillment;
use super::model::{Fact, Recipient, ShippingAddress, State};
use crate::event::{EventType, Payload, TypeName, hash16};
use crate::fold::addresses::{AddressFact, Source};
use crate::fold::history;
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{FeedPosition, NewEvent, Projection, Target};

#[async_trait]
impl Projection for Fulfillment {
    fn domain(&self) -> &'static str {
        "fulfillment"
    }

    fn code_version(&self) -> i32 {
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
        let mut folded = users::fold::<State>(target, events).await?;
        write_history(target, &mut folded).await?;
        write_addresses(target, &folded).await
    }
}

/// What a fold tells beside the state that it leads to.
#[derive(Default)]
pub struct Effects {
    /// What was told.
    pub history: Vec<(Source, Fact)>,
    /// Addresses that became others, and at which place they last did.
    pub changed: BTreeMap<String, FeedPosition>,
    /// Addresses that were told of after they were deleted: they may have been known at an earlier instant.
    pub claimed: BTreeSet<String>,
    /// Whether the user was deleted.
    pub is_deleted: bool,
}

impl UserState for State {
    type Effects = Effects;

    fn apply(&mut self, applied: &NewEvent, effects: &mut Effects) {
        if self.is_deleted {
            return;
        }
        if let Payload::UserDeleted(_) = &applied.event.payload {
            self.is_deleted = true;
            effects.is_deleted = true;
            let erased = std::mem::take(&mut self.recipient);
            let ids = erased.book.iter().map(|(id, _)| id.to_owned());
            effects.change(applied.feed_position, ids);
            return;
        }
        self.is_known = true;
        let Some(fact) = Fact::of(&applied.event.payload) else {
            return;
        };
        let source = Source::from(applied);
        let changed = self.recipient.apply_and_tell(&fact, source);
        effects.change(applied.feed_position, changed.into_iter());
        if let Fact::Address(about) = &fact
            && let AddressFact::Updated { address_id, .. } = about.as_ref()
            && self.recipient.book.get(address_id).is_none()
        {
            effects.claimed.insert(address_id.clone());
        }
        effects.history.push((source, fact));
    }
}

impl Effects {
    /// Notes that one event changed addresses, each at a place of its own.
    fn change(&mut self, place: FeedPosition, ids: impl Iterator<Item = String>) {
        for (index, id) in ids.enumerate() {
            // More addresses than there is room for share the last place.
            let index = i64::try_from(index)
                .unwrap_or(i64::MAX)
                .min(FeedPosition::MAX_ROWS - 1);
            let sequence = place.sequence + index;
            self.changed.insert(id, FeedPosition { sequence, ..place });
        }
    }
}

impl Recipient {
    /// Applies a fact, and tells which addresses it made others.
    fn apply_and_tell(&mut self, fact: &Fact, source: Source) -> Vec<String> {
        match fact {
            Fact::Address(about) => {
                let known = |id: &&String| self.book.get(id).is_some();
                let gone = match about.as_ref() {
                    AddressFact::Deleted { address_id } => Some(address_id).filter(known).cloned(),
                    _ => None,
                };
                self.apply(fact, source);
                // Whatever a fact changes of an address, its flags too, is noted there.
                let told = self
                    .book
                    .iter()
                    .filter(|(_, address)| address.updated == source);
                gone.into_iter()
                    .chain(told.map(|(id, _)| id.to_owned()))
                    .collect()
            }
            Fact::Person { .. } => {
                let before = self.addresses("");
                self.apply(fact, source);
                let after = self.addresses("").into_iter();
                let pairs = after.zip(before).filter(|(after, before)| after != before);
                pairs.map(|(after, _)| after.address_id).collect()
            }
        }
    }
}

/// Writes what was told; of deleted users nothing is left.
async fn write_history(
    target: &mut Target<'_>,
    folded: &mut [Folded<State>],
) -> Result<(), sqlx::Error> {
    let deleted: Vec<Uuid> = folded
        .iter()
        .filter(|row| row.effects.is_deleted)
        .map(|row| row.user_key)
        .collect();
    let kept = folded.iter_mut().filter(|row| !row.effects.is_deleted);
    let told = kept.map(|row| {
        let facts = std::mem::take(&mut row.effects.history);
        (row.user_key, row.revision, facts)
    });
    history::append(target, told).await?;
    history::erase(target, &deleted).await
}

/// Writes the addresses that became others, and who claimed one; of those that are gone ids alone are left.
async fn write_addresses(
    target: &mut Target<'_>,
    folded: &[Folded<State>],
) -> Result<(), sqlx::Error> {
    let mut rows = Columns::default();
    for row in folded {
        let changed = &row.effects.changed;
        for (address_id, place) in changed {
            rows.push(row, address_id, Some(*place));
        }
        let claimed = row.effects.claimed.iter();
        for address_id in claimed.filter(|id| !changed.contains_key(*id)) {
            rows.push(row, address_id, None);
        }
    }
    if rows.user_keys.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/domains/fulfillment/sql/store_addresses.sql",
        target.log_id,
        &rows.address_keys,
        &rows.user_keys,
        &rows.address_ids,
        &rows.user_ids,
        &rows.next_offsets as _,
        &rows.sequences as _,
        &rows.addresses as _,
        &rows.country_keys as _,
        &rows.statuses as _,
        &rows.updated_at as _,
        &rows.updated_logs as _,
        &rows.updated_offsets as _,
    )
    .execute(&mut *target.connection)
    .await
    .map(drop)
}

/// Rows of addresses, column by column.
#[derive(Default)]
struct Columns {
    address_keys: Vec<Uuid>,
    user_keys: Vec<Uuid>,
    address_ids: Vec<String>,
    user_ids: Vec<String>,
    next_offsets: Vec<Option<i64>>,
    sequences: Vec<Option<i64>>,
    addresses: Vec<Option<Json<ShippingAddress>>>,
    country_keys: Vec<Option<Uuid>>,
    statuses: Vec<Option<&'static str>>,
    updated_at: Vec<Option<DateTime<Utc>>>,
    updated_logs: Vec<Option<i32>>,
    updated_offsets: Vec<Option<i64>>,
}

impl Columns {
    fn push(&mut self, row: &Folded<State>, address_id: &str, place: Option<FeedPosition>) {
        self.address_keys.push(hash16(address_id.as_bytes()));
        self.user_keys.push(row.user_key);
        self.address_ids.push(address_id.to_owned());
        self.user_ids.push(row.user_id.clone());
        self.next_offsets.push(place.map(|place| place.next_offset));
        self.sequences.push(place.map(|place| place.sequence));
        let recipient = &row.state.recipient;
        let updated = recipient
            .book
            .get(address_id)
            .map(|address| address.updated);
        self.updated_at.push(updated.map(|updated| updated.at));
        self.updated_logs.push(updated.map(|updated| updated.log));
        self.updated_offsets
            .push(updated.map(|updated| updated.offset));
        let address = recipient.address(&row.user_id, address_id);
        let country = address
            .as_ref()
            .and_then(|address| address.country_code.as_ref());
        self.country_keys
            .push(country.map(|country| hash16(country.as_bytes())));
        let status = address
            .as_ref()
            .map(|address| address.validation.status.as_str());
        self.statuses.push(status);
        self.addresses.push(address.map(Json));
    }
}
