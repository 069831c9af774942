//! How the order domain's events become customers: a pure fold, and the statements that write what it tells.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::Order;
use super::changes::{self, Change, LastInUse};
use super::model::{Address, Customer, State};
use crate::event::{self, Changes, DeletionType, EventType, Payload, TypeName};
use crate::fold::addresses::{AddressBook, AddressFact, Source};
use crate::fold::change_text;
use crate::fold::history;
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{FeedPosition, NewEvent, Projection, Target};

#[async_trait]
impl Projection for Order {
    fn domain(&self) -> &'static str {
        "order"
    }

    fn code_version(&self) -> i32 {
        2
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        matches!(
            event_type,
            TypeName::Known {
                event_type: EventType::UserRegistered
                    | EventType::UserEmailVerified
                    | EventType::UserAccountStatusChanged
                    | EventType::UserUpdated
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
        let deleted = Deleted::of(&folded);
        write_history(target, &mut folded, &deleted).await?;
        write_changes(target, folded, &deleted).await
    }
}

/// What a fold tells beside the customer that it leads to.
#[derive(Default)]
pub struct Effects {
    pub history: Vec<(Source, AddressFact)>,
    pub feed: Vec<FeedEntry>,
    /// The last one; a hard one is.
    pub deletion: Option<DeletionType>,
}

/// A row of the feed.
pub struct FeedEntry {
    pub place: FeedPosition,
    pub occurred_at: DateTime<Utc>,
    pub event_id: String,
    pub told: Told,
}

/// What a row of the feed tells.
pub enum Told {
    Change(Box<Change>),
    /// For whoever mirrors addresses, and is to forget them.
    CustomerDeleted(DeletionType),
}

/// The users of a batch that were deleted in it.
struct Deleted {
    soft: Vec<Uuid>,
    hard: Vec<Uuid>,
}

impl Deleted {
    fn of(folded: &[Folded<State>]) -> Self {
        let keys = |deletion| {
            let deleted = folded
                .iter()
                .filter(|row| row.effects.deletion == Some(deletion));
            deleted.map(|row| row.user_key).collect()
        };
        Self {
            soft: keys(DeletionType::Soft),
            hard: keys(DeletionType::Hard),
        }
    }
}

/// Writes what was told of addresses, then takes from the history what deletions leave nothing of.
async fn write_history(
    target: &mut Target<'_>,
    folded: &mut [Folded<State>],
    deleted: &Deleted,
) -> Result<(), sqlx::Error> {
    let told = folded.iter_mut().map(|row| {
        let facts = std::mem::take(&mut row.effects.history);
        (row.user_key, row.revision, facts)
    });
    history::append(target, told).await?;
    history::reduce(target, &deleted.soft, AddressFact::without_personal_data).await?;
    history::erase(target, &deleted.hard).await
}

/// Writes the feed, then takes from it what deletions leave nothing of.
async fn write_changes(
    target: &mut Target<'_>,
    folded: Vec<Folded<State>>,
    deleted: &Deleted,
) -> Result<(), sqlx::Error> {
    let mut rows = Columns::default();
    for folded in folded {
        // The entries of one event follow one another.
        let (mut place, mut index) = (None, 0);
        for entry in folded.effects.feed {
            index = if place == Some(entry.place) {
                index + 1
            } else {
                0
            };
            place = Some(entry.place);
            rows.push(folded.user_key, &folded.user_id, entry, index);
        }
    }
    if !rows.user_keys.is_empty() {
        sqlx::query_file!(
            "src/domains/order/sql/add_changes.sql",
            target.log_id,
            &rows.next_offsets,
            &rows.sequences,
            &rows.user_keys,
            &rows.user_ids,
            &rows.kinds as _,
            &rows.address_ids as _,
            &rows.affects_shipping,
            &rows.affects_billing,
            &rows.significant,
            &rows.before as _,
            &rows.after as _,
            &rows.deletion_types as _,
            &rows.occurred_at,
            &rows.event_ids,
        )
        .execute(&mut *target.connection)
        .await?;
    }
    if !deleted.soft.is_empty() {
        sqlx::query_file!("src/domains/order/sql/reduce_changes.sql", &deleted.soft)
            .execute(&mut *target.connection)
            .await?;
    }
    if !deleted.hard.is_empty() {
        sqlx::query_file!("src/domains/order/sql/erase_changes.sql", &deleted.hard)
            .execute(&mut *target.connection)
            .await?;
    }
    Ok(())
}

/// Rows of the feed, column by column.
#[derive(Default)]
struct Columns {
    next_offsets: Vec<i64>,
    sequences: Vec<i64>,
    user_keys: Vec<Uuid>,
    user_ids: Vec<String>,
    kinds: Vec<&'static str>,
    address_ids: Vec<Option<String>>,
    affects_shipping: Vec<bool>,
    affects_billing: Vec<bool>,
    significant: Vec<bool>,
    before: Vec<Option<Json<Address>>>,
    after: Vec<Option<Json<Address>>>,
    deletion_types: Vec<Option<&'static str>>,
    occurred_at: Vec<DateTime<Utc>>,
    event_ids: Vec<String>,
}

impl Columns {
    fn push(&mut self, user_key: Uuid, user_id: &str, entry: FeedEntry, index: i64) {
        self.next_offsets.push(entry.place.next_offset);
        self.sequences.push(entry.place.sequence + index);
        self.user_keys.push(user_key);
        self.user_ids.push(user_id.to_owned());
        self.occurred_at.push(entry.occurred_at);
        self.event_ids.push(entry.event_id);
        let (change, deletion_type) = match entry.told {
            Told::Change(change) => (Some(*change), None),
            Told::CustomerDeleted(DeletionType::Soft) => (None, Some("soft")),
            Told::CustomerDeleted(DeletionType::Hard) => (None, Some("hard")),
        };
        self.deletion_types.push(deletion_type);
        let is = |flag: fn(&Change) -> bool| change.as_ref().is_some_and(flag);
        self.affects_shipping
            .push(is(|change| change.affects_default_shipping));
        self.affects_billing
            .push(is(|change| change.affects_default_billing));
        self.significant.push(is(|change| change.significant));
        match change {
            Some(change) => {
                self.kinds.push(change.kind.as_str());
                self.address_ids.push(Some(change.address_id));
                self.before.push(change.before.map(Json));
                self.after.push(change.after.map(Json));
            }
            None => {
                self.kinds.push("customer_deleted");
                self.address_ids.push(None);
                self.before.push(None);
                self.after.push(None);
            }
        }
    }
}

/// What a profile's update may change of a customer.
const PROFILE_FIELDS: &[&str] = &["firstName", "lastName", "displayName", "phoneNumber"];

impl UserState for State {
    type Effects = Effects;

    fn apply(&mut self, applied: &NewEvent, effects: &mut Effects) {
        let event = &applied.event;
        let at = event.occurred_at;
        let customer = &mut self.customer;
        if let Some(user_id) = event.user_id() {
            user_id.clone_into(&mut customer.user_id);
        }
        if let Payload::UserDeleted(deleted) = &event.payload {
            if self.delete(deleted.deletion_type, at) {
                effects.deletion = Some(deleted.deletion_type);
                effects.feed.push(FeedEntry {
                    place: applied.feed_position,
                    occurred_at: at,
                    event_id: event.id.clone(),
                    told: Told::CustomerDeleted(deleted.deletion_type),
                });
            }
            return;
        }
        if customer.deleted_at.is_some() {
            return;
        }
        customer.updated_at = Some(at);
        if let Some(fact) = AddressFact::of(&event.payload) {
            let source = Source::from(applied);
            for change in changes::apply(&mut self.book, &mut self.last_in_use, &fact, source) {
                effects.feed.push(FeedEntry {
                    place: applied.feed_position,
                    occurred_at: at,
                    event_id: event.id.clone(),
                    told: Told::Change(Box::new(change)),
                });
            }
            effects.history.push((source, fact));
            return;
        }
        match &event.payload {
            Payload::UserRegistered(registered) => {
                customer.registered_at.get_or_insert(at);
                customer.set_email(event::Change::Value(&registered.email));
                customer.set("status", event::Change::Value(&registered.status));
                for (field, value) in [
                    ("username", &registered.username),
                    ("firstName", &registered.first_name),
                    ("lastName", &registered.last_name),
                ] {
                    if let Some(value) = value {
                        customer.set(field, event::Change::Value(value));
                    }
                }
            }
            Payload::UserEmailVerified(verified) => {
                customer.set_email(event::Change::Value(&verified.email));
                customer.email_verified = Some(true);
            }
            Payload::UserAccountStatusChanged(changed) => {
                customer.set("status", event::Change::Value(&changed.new_status))
            }
            Payload::UserUpdated(updated) => customer.change_account(&updated.changes),
            Payload::UserProfileUpdated(updated) => {
                customer.change(&updated.changes, PROFILE_FIELDS);
            }
            // Not of interest, so never here.
            _ => {}
        }
    }
}

impl State {
    /// Deletion is final, and only a hard one has anything to add to a soft one.
    /// Says whether it had.
    fn delete(&mut self, deletion: DeletionType, at: DateTime<Utc>) -> bool {
        let is_hard = deletion == DeletionType::Hard;
        if self.is_erased || (self.customer.deleted_at.is_some() && !is_hard) {
            return false;
        }
        let customer = std::mem::take(&mut self.customer);
        self.customer = Customer {
            user_id: customer.user_id,
            status: Some("deleted".to_owned()),
            registered_at: customer.registered_at,
            updated_at: Some(at),
            deleted_at: customer.deleted_at.or(Some(at)),
            ..Customer::default()
        };
        if is_hard {
            self.book = AddressBook::default();
        } else {
            self.book.erase_personal_data();
        }
        // The fold needs neither any more, and both hold personal data.
        self.last_in_use = LastInUse::default();
        self.is_erased = is_hard;
        true
    }
}

impl Customer {
    /// An account's update may name any field of the view; a profile's has no say in what is the account's.
    fn change_account(&mut self, changes: &Changes) {
        if let Some(change) = changes.text("email") {
            self.set_email(change);
        }
        self.change(changes, &["username", "status"]);
        self.change(changes, PROFILE_FIELDS);
    }

    fn change(&mut self, changes: &Changes, fields: &[&'static str]) {
        for field in fields {
            if let Some(change) = changes.text(field) {
                self.set(field, change);
            }
        }
    }

    /// A new address is not verified; of one that nobody knows, nobody knows whether it is.
    fn set_email(&mut self, change: event::Change<&str>) {
        match change {
            event::Change::Value(email)
                if self.email.as_deref() == Some(email) && self.email_verified.is_some() => {}
            event::Change::Value(_) => self.email_verified = Some(false),
            event::Change::Unknown | event::Change::Cleared => self.email_verified = None,
        }
        self.set("email", change);
    }

    fn set(&mut self, field: &'static str, change: event::Change<&str>) {
        let value = match field {
            "email" => &mut self.email,
            "username" => &mut self.username,
            "firstName" => &mut self.first_name,
            "lastName" => &mut self.last_name,
            "displayName" => &mut self.display_name,
            "phoneNumber" => &mut self.phone_number,
            "status" => &mut self.status,
            _ => return,
        };
        change_text(value, &mut self.stale_fields, field, change);
    }
}
