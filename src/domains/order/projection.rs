//! How events become the order domain's view: a pure fold, and the statements that write its
//! results.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Order;
use super::changes::{self, LastInUse};
use super::model::{AddressChange, Book, Customer, CustomerDeleted, WatchedChange};
use super::state::CustomerState;
use crate::db;
use crate::event::{Change, Changes, DeletionType, EventType, Payload, TypeName};
use crate::fold::addresses::{AddressFact, Source};
use crate::fold::change_text;
use crate::fold::history;
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{FeedPosition, NewEvent, Projection, Target};

#[async_trait]
impl Projection for Order {
    fn domain(&self) -> &'static str {
        "order"
    }

    fn declared_code_version(&self) -> i32 {
        4
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
        let mut folded = users::fold::<CustomerState>(target, events).await?;
        let deleted = DeletedUsers::of(&folded);
        write_history(target, &mut folded, &deleted).await?;
        write_feed(target, folded, &deleted).await
    }
}

/// What the fold of a user's events produces besides the state.
#[derive(Default)]
pub struct Effects {
    /// Facts for the history.
    pub history: Vec<(Source, AddressFact)>,
    /// Rows for the feed.
    pub feed: Vec<FeedEntry>,
    /// The user's last deletion in the batch; nothing follows a hard one.
    pub deletion: Option<DeletionType>,
}

/// A row for the feed.
pub struct FeedEntry {
    pub log_id: i32,
    pub feed_position: FeedPosition,
    pub occurred_at: DateTime<Utc>,
    pub content: WatchedChange,
}

impl FeedEntry {
    fn new(new_event: &NewEvent, content: WatchedChange) -> Self {
        Self {
            log_id: new_event.log_id,
            feed_position: new_event.feed_position,
            occurred_at: new_event.event.occurred_at,
            content,
        }
    }
}

/// The keys of the users that were deleted in a batch.
struct DeletedUsers {
    soft: Vec<Uuid>,
    hard: Vec<Uuid>,
}

impl DeletedUsers {
    fn of(folded: &[Folded<CustomerState>]) -> Self {
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

/// Appends the batch's facts to the history, then erases deleted users' personal data from it.
async fn write_history(
    target: &mut Target<'_>,
    folded: &mut [Folded<CustomerState>],
    deleted: &DeletedUsers,
) -> Result<(), sqlx::Error> {
    let facts_by_user = folded.iter_mut().map(|row| {
        let facts = std::mem::take(&mut row.effects.history);
        (row.user_key, row.revision, facts)
    });
    history::append(target, facts_by_user).await?;
    history::reduce(target, &deleted.soft, AddressFact::without_personal_data).await?;
    history::erase(target, &deleted.hard).await
}

/// Appends the batch's rows to the feed, then erases deleted users' personal data from it.
async fn write_feed(
    target: &mut Target<'_>,
    folded: Vec<Folded<CustomerState>>,
    deleted: &DeletedUsers,
) -> Result<(), sqlx::Error> {
    let mut rows = FeedColumns::default();
    for user in folded {
        // An event's entries share its feed position: their index tells them apart.
        let (mut previous, mut index) = (None, 0);
        for entry in user.effects.feed {
            let event = Some((entry.log_id, entry.feed_position));
            index = if previous == event { index + 1 } else { 0 };
            previous = event;
            rows.push(user.user_key, &user.user_id, &entry, index)?;
        }
    }
    if !rows.user_keys.is_empty() {
        sqlx::query_file!(
            "src/domains/order/sql/add_changes.sql",
            &rows.log_ids,
            &rows.next_offsets,
            &rows.sequences,
            &rows.user_keys,
            &rows.user_ids,
            &rows.significant,
            &rows.deletion_types as _,
            &rows.occurred_at,
            &rows.changes,
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

/// Rows of the feed, column by column: the arguments of the statement that inserts them.
#[derive(Default)]
struct FeedColumns {
    log_ids: Vec<i32>,
    next_offsets: Vec<i64>,
    sequences: Vec<i64>,
    user_keys: Vec<Uuid>,
    user_ids: Vec<String>,
    significant: Vec<bool>,
    deletion_types: Vec<Option<&'static str>>,
    occurred_at: Vec<DateTime<Utc>>,
    changes: Vec<String>,
}

impl FeedColumns {
    fn push(
        &mut self,
        user_key: Uuid,
        user_id: &str,
        entry: &FeedEntry,
        index: i64,
    ) -> Result<(), sqlx::Error> {
        let (significant, deletion_type) = match &entry.content {
            WatchedChange::Address(change) => (change.significant, None),
            WatchedChange::CustomerDeleted(deleted) => (
                false,
                Some(match deleted.deletion_type {
                    DeletionType::Soft => "soft",
                    DeletionType::Hard => "hard",
                }),
            ),
        };
        self.log_ids.push(entry.log_id);
        self.next_offsets.push(entry.feed_position.next_offset);
        self.sequences.push(entry.feed_position.sequence + index);
        self.user_keys.push(user_key);
        self.user_ids.push(user_id.to_owned());
        self.significant.push(significant);
        self.deletion_types.push(deletion_type);
        self.occurred_at.push(entry.occurred_at);
        self.changes.push(db::to_document(&entry.content)?);
        Ok(())
    }
}

/// The customer's fields that UserProfileUpdated may change. UserUpdated may change all of them.
const PROFILE_FIELDS: &[&str] = &["firstName", "lastName", "displayName", "phoneNumber"];

impl UserState for CustomerState {
    type Effects = Effects;

    fn apply(&mut self, new_event: &NewEvent, effects: &mut Effects) {
        let event = &new_event.event;
        if let Some(user_id) = event.user_id() {
            user_id.clone_into(&mut self.customer.user_id);
        }
        if let Payload::UserDeleted(deleted) = &event.payload {
            let deletion_type = deleted.deletion_type;
            if let Some(deleted_at) = self.delete(deletion_type, event.occurred_at) {
                effects.deletion = Some(deletion_type);
                let content = WatchedChange::CustomerDeleted(CustomerDeleted {
                    user_id: self.customer.user_id.clone(),
                    deleted_at,
                    deletion_type,
                });
                effects.feed.push(FeedEntry::new(new_event, content));
            }
            return;
        }
        if self.is_deleted() {
            return;
        }
        self.customer.updated_at = Some(event.occurred_at);
        let Some(fact) = AddressFact::of(&event.payload) else {
            self.customer.apply(&event.payload, event.occurred_at);
            return;
        };
        let source = Source::from(new_event);
        for change in changes::apply(
            &mut self.book,
            &mut self.last_in_use,
            &fact,
            event.occurred_at,
        ) {
            let content = WatchedChange::Address(Box::new(AddressChange {
                cursor: String::new(),
                user_id: self.customer.user_id.clone(),
                address_id: change.address_id,
                kind: change.kind,
                affects_default_shipping: change.affects_default_shipping,
                affects_default_billing: change.affects_default_billing,
                significant: change.significant,
                before: change.before,
                after: change.after,
                occurred_at: event.occurred_at,
                event_id: event.id.clone(),
            }));
            effects.feed.push(FeedEntry::new(new_event, content));
        }
        effects.history.push((source, fact));
    }
}

impl CustomerState {
    /// Deletes the user. Returns the time of the first deletion, if this one has changed anything: a second one does only if it
    /// is the first hard one.
    fn delete(&mut self, deletion_type: DeletionType, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let is_hard = deletion_type == DeletionType::Hard;
        if self.is_erased || (self.is_deleted() && !is_hard) {
            return None;
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
            self.book = Book::default();
        } else {
            self.book.erase_personal_data(at);
        }
        // It holds personal data, and no change follows that would be compared with it.
        self.last_in_use = LastInUse::default();
        self.is_erased = is_hard;
        self.customer.deleted_at
    }
}

impl Customer {
    /// Applies an event about the account or the profile.
    fn apply(&mut self, payload: &Payload, at: DateTime<Utc>) {
        match payload {
            Payload::UserRegistered(registered) => {
                self.registered_at.get_or_insert(at);
                self.set_email(Change::Value(&registered.email));
                self.set("status", Change::Value(&registered.status));
                for (field, value) in [
                    ("username", &registered.username),
                    ("firstName", &registered.first_name),
                    ("lastName", &registered.last_name),
                ] {
                    if let Some(value) = value {
                        self.set(field, Change::Value(value));
                    }
                }
            }
            Payload::UserEmailVerified(verified) => {
                self.set_email(Change::Value(&verified.email));
                self.email_verified = Some(true);
            }
            Payload::UserAccountStatusChanged(changed) => {
                self.set("status", Change::Value(&changed.new_status));
            }
            Payload::UserUpdated(updated) => {
                if let Some(change) = updated.changes.text("email") {
                    self.set_email(change);
                }
                self.change(&updated.changes, &["username", "status"]);
                self.change(&updated.changes, PROFILE_FIELDS);
            }
            Payload::UserProfileUpdated(updated) => self.change(&updated.changes, PROFILE_FIELDS),
            // The view is not made from other types.
            _ => {}
        }
    }

    fn change(&mut self, changes: &Changes, fields: &[&'static str]) {
        for field in fields {
            if let Some(change) = changes.text(field) {
                self.set(field, change);
            }
        }
    }

    /// Changes the email. A new email is unverified. If the email is unknown, so is whether it is
    /// verified.
    fn set_email(&mut self, change: Change<&str>) {
        match change {
            Change::Value(email)
                if self.email.as_deref() == Some(email) && self.email_verified.is_some() => {}
            Change::Value(_) => self.email_verified = Some(false),
            Change::Unknown | Change::Cleared => self.email_verified = None,
        }
        self.set("email", change);
    }

    fn set(&mut self, field: &'static str, change: Change<&str>) {
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
