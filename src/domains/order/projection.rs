//! How the order domain's events become customers: a pure fold, and the statements that write what it tells.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::Order;
use super::model::{Customer, State};
use crate::event::{Change, Changes, DeletionType, EventType, Payload, TypeName};
use crate::fold::addresses::{AddressBook, AddressFact, Source};
use crate::fold::change_text;
use crate::fold::history::{self, Entry};
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{Applied, Projection, Target};

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

    async fn apply(&self, target: &mut Target<'_>, events: &[Applied]) -> Result<(), sqlx::Error> {
        let mut folded = users::fold::<State>(target, events).await?;
        write_history(target, &mut folded).await
    }
}

/// What a fold tells beside the customer that it leads to.
#[derive(Default)]
pub struct Effects {
    history: Vec<(Source, AddressFact)>,
    deletion: Option<DeletionType>,
}

/// Writes what was told of addresses, then takes from the history what deletions leave nothing of.
async fn write_history(
    target: &mut Target<'_>,
    folded: &mut [Folded<State>],
) -> Result<(), sqlx::Error> {
    let mut entries = Vec::new();
    let (mut soft, mut hard) = (Vec::new(), Vec::new());
    for row in folded {
        match row.effects.deletion {
            Some(DeletionType::Soft) => soft.push(row.user_key),
            Some(DeletionType::Hard) => hard.push(row.user_key),
            None => {}
        }
        for (source, fact) in row.effects.history.drain(..) {
            entries.push(Entry {
                user_key: row.user_key,
                revision: row.revision,
                sequence: i32::try_from(entries.len()).unwrap_or(i32::MAX),
                source,
                fact,
            });
        }
    }
    history::append(target, &entries).await?;
    history::reduce(target, &soft, AddressFact::without_personal_data).await?;
    history::erase(target, &hard).await
}

/// What a profile's update may change of a customer.
const PROFILE_FIELDS: &[&str] = &["firstName", "lastName", "displayName", "phoneNumber"];

impl UserState for State {
    type Effects = Effects;

    fn apply(&mut self, applied: &Applied, effects: &mut Effects) {
        let event = &applied.event;
        let at = event.occurred_at;
        let customer = &mut self.customer;
        if let Some(user_id) = event.user_id() {
            user_id.clone_into(&mut customer.user_id);
        }
        if let Payload::UserDeleted(deleted) = &event.payload {
            return self.delete(deleted.deletion_type, at, effects);
        }
        if customer.deleted_at.is_some() {
            return;
        }
        customer.updated_at = Some(at);
        if let Some(fact) = AddressFact::of(&event.payload) {
            let source = Source::from(applied);
            self.book.apply(&fact, source);
            effects.history.push((source, fact));
            return;
        }
        match &event.payload {
            Payload::UserRegistered(registered) => {
                customer.registered_at.get_or_insert(at);
                customer.set_email(Change::Value(&registered.email));
                customer.set("status", Change::Value(&registered.status));
                for (field, value) in [
                    ("username", &registered.username),
                    ("firstName", &registered.first_name),
                    ("lastName", &registered.last_name),
                ] {
                    if let Some(value) = value {
                        customer.set(field, Change::Value(value));
                    }
                }
            }
            Payload::UserEmailVerified(verified) => {
                customer.set_email(Change::Value(&verified.email));
                customer.email_verified = Some(true);
            }
            Payload::UserAccountStatusChanged(changed) => {
                customer.set("status", Change::Value(&changed.new_status))
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
    fn delete(&mut self, deletion: DeletionType, at: DateTime<Utc>, effects: &mut Effects) {
        let is_hard = deletion == DeletionType::Hard;
        if self.is_erased || (self.customer.deleted_at.is_some() && !is_hard) {
            return;
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
        self.is_erased = is_hard;
        effects.deletion = Some(deletion);
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
