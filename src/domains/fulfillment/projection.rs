//! How events become the fulfillment domain's view: a pure fold, and the statements that write its
//! results.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Fulfillment;
use super::rules::country_key;
use super::state::{Fact, Recipient, RecipientState};
use crate::db;
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

    fn declared_code_version(&self) -> i32 {
        3
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
        let mut folded = users::fold::<RecipientState>(target, events).await?;
        write_history(target, &mut folded).await?;
        write_addresses(target, &folded).await
    }
}

/// What the fold of a user's events produces besides the state.
#[derive(Default)]
pub struct Effects {
    /// Facts for the history.
    pub history: Vec<(Source, Fact)>,
    /// The addresses that changed, each with the log and the feed position of its last change.
    pub changed: BTreeMap<String, (i32, FeedPosition)>,
    /// The addresses that were updated after their deletion: as of an earlier instant they may be
    /// known.
    pub mentioned: BTreeSet<String>,
    /// Whether the user was deleted.
    pub is_deleted: bool,
}

impl UserState for RecipientState {
    type Effects = Effects;

    fn apply(&mut self, new_event: &NewEvent, effects: &mut Effects) {
        if self.is_deleted {
            return;
        }
        if let Payload::UserDeleted(_) = &new_event.event.payload {
            self.is_deleted = true;
            effects.is_deleted = true;
            let erased = std::mem::take(&mut self.recipient);
            let ids = erased.book.iter().map(|(id, _)| id.to_owned());
            effects.add_changes(new_event, ids);
            return;
        }
        self.is_known = true;
        let Some(fact) = Fact::of(&new_event.event.payload) else {
            return;
        };
        let source = Source::from(new_event);
        let changed = self.recipient.apply_and_compare(&fact, source);
        effects.add_changes(new_event, changed.into_iter());
        if let Fact::Address(address_fact) = &fact
            && let AddressFact::Updated { address_id, .. } = address_fact.as_ref()
            && self.recipient.book.get(address_id).is_none()
        {
            effects.mentioned.insert(address_id.clone());
        }
        effects.history.push((source, fact));
    }
}

impl Effects {
    /// Adds the addresses that one event changed, each with a feed position of its own.
    fn add_changes(&mut self, new_event: &NewEvent, ids: impl Iterator<Item = String>) {
        for (index, id) in ids.enumerate() {
            // Beyond the number of rows that an event may make, addresses share the last position.
            let index = i64::try_from(index)
                .unwrap_or(i64::MAX)
                .min(FeedPosition::MAX_ROWS - 1);
            let own = FeedPosition {
                sequence: new_event.feed_position.sequence + index,
                ..new_event.feed_position
            };
            self.changed.insert(id, (new_event.log_id, own));
        }
    }
}

impl Recipient {
    /// Applies a fact. Returns the ids of the addresses that it changed.
    fn apply_and_compare(&mut self, fact: &Fact, source: Source) -> Vec<String> {
        match fact {
            Fact::Address(address_fact) => {
                let deleted = match address_fact.as_ref() {
                    AddressFact::Deleted { address_id } => Some(address_id),
                    _ => None,
                };
                let deleted = deleted.filter(|id| self.book.get(id).is_some()).cloned();
                self.apply(fact, source);
                // The fold sets `updated` on every address that a fact changes, also if just a
                // default flag changes.
                let updated = self
                    .book
                    .iter()
                    .filter(|(_, address)| address.updated == source);
                deleted
                    .into_iter()
                    .chain(updated.map(|(id, _)| id.to_owned()))
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

/// Appends the batch's facts to the history, and erases the history of deleted users.
async fn write_history(
    target: &mut Target<'_>,
    folded: &mut [Folded<RecipientState>],
) -> Result<(), sqlx::Error> {
    let deleted: Vec<Uuid> = folded
        .iter()
        .filter(|row| row.effects.is_deleted)
        .map(|row| row.user_key)
        .collect();
    let kept = folded.iter_mut().filter(|row| !row.effects.is_deleted);
    let facts_by_user = kept.map(|row| {
        let facts = std::mem::take(&mut row.effects.history);
        (row.user_key, row.revision, facts)
    });
    history::append(target, facts_by_user).await?;
    history::erase(target, &deleted).await
}

/// Writes the rows of changed addresses (of a deleted address just the ids remain), and a row for
/// each user whose events have mentioned an address that is unknown now.
async fn write_addresses(
    target: &mut Target<'_>,
    folded: &[Folded<RecipientState>],
) -> Result<(), sqlx::Error> {
    let mut rows = AddressColumns::default();
    for user in folded {
        let changed = &user.effects.changed;
        for (address_id, change) in changed {
            rows.push(user, address_id, Some(*change))?;
        }
        let mentioned = user.effects.mentioned.iter();
        for address_id in mentioned.filter(|id| !changed.contains_key(*id)) {
            rows.push(user, address_id, None)?;
        }
    }
    if rows.user_keys.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/domains/fulfillment/sql/store_addresses.sql",
        &rows.log_ids as _,
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

/// Rows of addresses, column by column: the arguments of the statement that writes them.
#[derive(Default)]
struct AddressColumns {
    log_ids: Vec<Option<i32>>,
    address_keys: Vec<Uuid>,
    user_keys: Vec<Uuid>,
    address_ids: Vec<String>,
    user_ids: Vec<String>,
    next_offsets: Vec<Option<i64>>,
    sequences: Vec<Option<i64>>,
    addresses: Vec<Option<String>>,
    country_keys: Vec<Option<Uuid>>,
    statuses: Vec<Option<&'static str>>,
    updated_at: Vec<Option<DateTime<Utc>>>,
    updated_logs: Vec<Option<i32>>,
    updated_offsets: Vec<Option<i64>>,
}

impl AddressColumns {
    fn push(
        &mut self,
        user: &Folded<RecipientState>,
        address_id: &str,
        change: Option<(i32, FeedPosition)>,
    ) -> Result<(), sqlx::Error> {
        let feed_position = change.map(|(_, feed_position)| feed_position);
        self.log_ids.push(change.map(|(log_id, _)| log_id));
        self.address_keys.push(hash16(address_id.as_bytes()));
        self.user_keys.push(user.user_key);
        self.address_ids.push(address_id.to_owned());
        self.user_ids.push(user.user_id.clone());
        self.next_offsets
            .push(feed_position.map(|position| position.next_offset));
        self.sequences
            .push(feed_position.map(|position| position.sequence));
        let recipient = &user.state.recipient;
        let known = recipient.book.get(address_id);
        self.updated_at.push(known.map(|known| known.updated.at));
        self.updated_logs.push(known.map(|known| known.updated.log));
        self.updated_offsets
            .push(known.map(|known| known.updated.offset));
        let address = recipient.address(&user.user_id, address_id);
        let country_code = address
            .as_ref()
            .and_then(|address| address.country_code.as_ref());
        self.country_keys
            .push(country_code.map(|code| hash16(country_key(code).as_bytes())));
        let validation = address.as_ref().map(|address| &address.validation);
        self.statuses
            .push(validation.map(|validation| validation.status.as_str()));
        let document = address.map(|address| db::to_document(&address));
        self.addresses.push(document.transpose()?);
        Ok(())
    }
}
