//! How the order domain's events become customers: a pure fold, and the statements that read and write what
//! it folds.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::Order;
use super::model::{Address, Customer, State};
use crate::event::{self, Change, Changes, DeletionType, Event, EventType, Payload, TypeName};
use crate::projector::{Applied, Projection, Target};

#[async_trait]
impl Projection for Order {
    fn domain(&self) -> &'static str {
        "order"
    }

    fn code_version(&self) -> i32 {
        1
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
        let mut pending: BTreeMap<Uuid, Vec<&Event>> = BTreeMap::new();
        for Applied { event, .. } in events {
            if let Some(user_id) = event.user_id() {
                pending
                    .entry(event::hash16(user_id.as_bytes()))
                    .or_default()
                    .push(event);
            }
        }
        // One writer per customer is the rule, as a user's events share a partition; where two partitions
        // meet in one, the later writer finds a newer revision, and folds again onto it.
        while !pending.is_empty() {
            let rows = load(target, pending.keys().copied().collect()).await?;
            let rows = pending
                .iter()
                .map(|(key, events)| (*key, fold(rows.get(key), events, target)))
                .collect();
            let written = store(target, rows).await?;
            pending.retain(|key, _| !written.contains(key));
        }
        Ok(())
    }
}

/// A customer's row.
struct Row {
    user_id: String,
    /// The log that all of it is from, if it is one.
    log_id: Option<i32>,
    revision: i64,
    state: State,
}

/// The row that events of one user make of the row that was there.
fn fold(row: Option<&Row>, events: &[&Event], target: &Target<'_>) -> Row {
    let (mut state, revision, log_id) = match row {
        Some(row) => (
            row.state.clone(),
            row.revision + 1,
            row.log_id.filter(|log_id| *log_id == target.log_id),
        ),
        None => (State::default(), 1, Some(target.log_id)),
    };
    let user_id = events
        .first()
        .and_then(|event| event.user_id())
        .unwrap_or_default()
        .to_owned();
    state.customer.user_id.clone_from(&user_id);
    for event in events {
        state.apply(event);
    }
    Row {
        user_id,
        log_id,
        revision,
        state,
    }
}

async fn load(target: &mut Target<'_>, keys: Vec<Uuid>) -> Result<HashMap<Uuid, Row>, sqlx::Error> {
    let rows = sqlx::query_file!("src/domains/order/sql/load.sql", &keys)
        .fetch_all(&mut *target.connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let Json(state) = row.state;
            (
                row.user_key,
                Row {
                    user_id: row.user_id,
                    log_id: row.log_id,
                    revision: row.revision,
                    state,
                },
            )
        })
        .collect())
}

/// Writes rows, and returns the keys of those that were not overtaken by another writer.
async fn store(
    target: &mut Target<'_>,
    rows: BTreeMap<Uuid, Row>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let keys: Vec<Uuid> = rows.keys().copied().collect();
    let (mut user_ids, mut log_ids, mut revisions, mut states) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows.into_values() {
        user_ids.push(row.user_id);
        log_ids.push(row.log_id);
        revisions.push(row.revision);
        states.push(Json(row.state));
    }
    sqlx::query_file_scalar!(
        "src/domains/order/sql/store.sql",
        &keys,
        &user_ids,
        &log_ids as _,
        target.logs,
        &revisions,
        &states as _,
    )
    .fetch_all(&mut *target.connection)
    .await
}

/// One of the two defaults that a customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Default {
    Shipping,
    Billing,
}

/// What a profile's update may change of a customer.
const PROFILE_FIELDS: &[&str] = &["firstName", "lastName", "displayName", "phoneNumber"];

const DEFAULTS: [Default; 2] = [Default::Shipping, Default::Billing];

impl State {
    /// Applies the next event of this customer in the order of the log.
    pub fn apply(&mut self, event: &Event) {
        let at = event.occurred_at;
        if let Payload::UserDeleted(deleted) = &event.payload {
            return self.delete(deleted.deletion_type, at);
        }
        let customer = &mut self.customer;
        if customer.deleted_at.is_some() {
            return;
        }
        customer.updated_at = Some(at);
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
            Payload::UserAddressAdded(added) => {
                let is_known = customer.address(&added.address_id).is_some();
                for (default, wanted) in [
                    (Default::Shipping, added.is_default_shipping),
                    (Default::Billing, added.is_default_billing),
                ] {
                    if wanted {
                        customer.set_default(default, Some(&added.address_id), at);
                    } else if is_known && customer.is_default(default, &added.address_id) {
                        customer.set_default(default, None, at);
                    }
                }
                self.gone.remove(&added.address_id);
                let mut address = Address {
                    address_id: added.address_id.clone(),
                    address_type: Some(added.address_type.clone()),
                    updated_at: Some(at),
                    ..Address::default()
                };
                address.replace(added.address());
                customer.put(address);
            }
            Payload::UserAddressUpdated(updated) => {
                if self.gone.contains(&updated.address_id) {
                    return;
                }
                let mut address = customer
                    .address(&updated.address_id)
                    .cloned()
                    .unwrap_or_else(|| Address {
                        address_id: updated.address_id.clone(),
                        ..Address::default()
                    });
                address.updated_at = Some(at);
                match &updated.full_address {
                    Some(whole) => {
                        address.replace(whole.clone());
                        if let Some(change @ (Change::Value(_) | Change::Cleared)) =
                            updated.changes.text("addressType")
                        {
                            address.set("addressType", change);
                        }
                    }
                    None => address.change(&updated.changes),
                }
                customer.put(address);
            }
            Payload::UserAddressDeleted(deleted) => {
                for default in DEFAULTS {
                    if customer.is_default(default, &deleted.address_id) {
                        customer.set_default(default, None, at);
                    }
                }
                customer
                    .addresses
                    .retain(|address| address.address_id != deleted.address_id);
                self.gone.insert(deleted.address_id.clone());
            }
            Payload::UserProfileDefaultAddressChanged(changed) => {
                for (default, named) in [
                    (Default::Shipping, &changed.default_shipping_address_id),
                    (Default::Billing, &changed.default_billing_address_id),
                ] {
                    if let Some(address_id) = named {
                        customer.set_default(default, Some(address_id), at);
                    }
                }
            }
            // Not of interest, so never here.
            _ => {}
        }
    }

    /// Deletion is final, and only a hard one has anything to add to a soft one.
    fn delete(&mut self, deletion: DeletionType, at: DateTime<Utc>) {
        let is_hard = deletion == DeletionType::Hard;
        if self.is_erased || (self.customer.deleted_at.is_some() && !is_hard) {
            return;
        }
        let customer = std::mem::take(&mut self.customer);
        let addresses = if is_hard {
            Vec::new()
        } else {
            customer.addresses
        };
        self.customer = Customer {
            user_id: customer.user_id,
            status: Some("deleted".to_owned()),
            registered_at: customer.registered_at,
            updated_at: Some(at),
            deleted_at: customer.deleted_at.or(Some(at)),
            // Of an address its id and country stay, so that orders keep something to point at.
            addresses: addresses
                .into_iter()
                .map(|address| Address {
                    address_id: address.address_id,
                    country: address.country,
                    ..Address::default()
                })
                .collect(),
            ..Customer::default()
        };
        self.gone.clear();
        self.is_erased = is_hard;
    }
}

impl Customer {
    fn address(&self, address_id: &str) -> Option<&Address> {
        self.addresses
            .iter()
            .find(|address| address.address_id == address_id)
    }

    /// Adds an address, or replaces the one with its id; its flags follow from the defaults.
    fn put(&mut self, mut address: Address) {
        address.is_default_shipping = Some(self.is_default(Default::Shipping, &address.address_id));
        address.is_default_billing = Some(self.is_default(Default::Billing, &address.address_id));
        match self
            .addresses
            .binary_search_by(|other| other.address_id.cmp(&address.address_id))
        {
            Ok(place) => self.addresses[place] = address,
            Err(place) => self.addresses.insert(place, address),
        }
    }

    fn default_of(&mut self, default: Default) -> &mut Option<String> {
        match default {
            Default::Shipping => &mut self.default_shipping_address_id,
            Default::Billing => &mut self.default_billing_address_id,
        }
    }

    fn is_default(&self, default: Default, address_id: &str) -> bool {
        let named = match default {
            Default::Shipping => &self.default_shipping_address_id,
            Default::Billing => &self.default_billing_address_id,
        };
        named.as_deref() == Some(address_id)
    }

    /// Names a default, known or not, or none; the former one loses its flag.
    fn set_default(&mut self, default: Default, address_id: Option<&str>, at: DateTime<Utc>) {
        let former = std::mem::replace(self.default_of(default), address_id.map(str::to_owned));
        for address in &mut self.addresses {
            let is_named = address_id == Some(address.address_id.as_str());
            if is_named || former.as_deref() == Some(address.address_id.as_str()) {
                address.updated_at = Some(at);
                match default {
                    Default::Shipping => address.is_default_shipping = Some(is_named),
                    Default::Billing => address.is_default_billing = Some(is_named),
                }
            }
        }
    }

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
        set(value, &mut self.stale_fields, field, change);
    }
}

impl Address {
    /// The whole address is known anew: nothing of it is stale.
    fn replace(&mut self, whole: event::Address) {
        self.street_line1 = whole.street_line1;
        self.street_line2 = whole.street_line2;
        self.city = whole.city;
        self.state_or_province = whole.state_or_province;
        self.postal_code = whole.postal_code;
        self.country = whole.country;
        self.contact_name = whole.contact_name;
        self.contact_phone = whole.contact_phone;
        self.company_name = whole.company_name;
        self.additional_notes = whole.additional_notes;
        self.stale_fields.clear();
    }

    fn change(&mut self, changes: &Changes) {
        for (field, _) in changes.iter() {
            if let Some(change) = changes.text(field) {
                self.set(field, change);
            }
        }
    }

    /// Sets a field by its name in events; a name of none changes nothing.
    fn set(&mut self, field: &str, change: Change<&str>) {
        let (value, name) = match field {
            "addressType" => (&mut self.address_type, "type"),
            "streetLine1" => (&mut self.street_line1, "streetLine1"),
            "streetLine2" => (&mut self.street_line2, "streetLine2"),
            "city" => (&mut self.city, "city"),
            "stateOrProvince" => (&mut self.state_or_province, "stateOrProvince"),
            "postalCode" => (&mut self.postal_code, "postalCode"),
            "country" => (&mut self.country, "country"),
            "contactName" => (&mut self.contact_name, "contactName"),
            "contactPhone" => (&mut self.contact_phone, "contactPhone"),
            "companyName" => (&mut self.company_name, "companyName"),
            "additionalNotes" => (&mut self.additional_notes, "additionalNotes"),
            _ => return,
        };
        set(value, &mut self.stale_fields, name, change);
    }
}

/// Changes a value, and notes whether it is known: `stale` stays sorted, and holds a name once.
fn set(
    value: &mut Option<String>,
    stale: &mut Vec<String>,
    name: &'static str,
    change: Change<&str>,
) {
    let place = stale.binary_search_by(|other| other.as_str().cmp(name));
    match (change, place) {
        (Change::Unknown, Err(place)) => stale.insert(place, name.to_owned()),
        (Change::Unknown, Ok(_)) => {}
        (Change::Value(new), place) => {
            *value = Some(new.to_owned());
            place.map(|place| stale.remove(place)).ok();
        }
        (Change::Cleared, place) => {
            *value = None;
            place.map(|place| stale.remove(place)).ok();
        }
    }
}
