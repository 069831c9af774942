//! How events become notifications: a pure fold, and the statements that write its results. The live version's
//! notifications get deliveries, in the same transaction.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Notification;
use super::model::{NotificationData, Template};
use super::state::{UserFacts, changed};
use crate::db;
use crate::event::{EventType, Payload, TypeName, hash16};
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{NewEvent, Projection, Queued, Target};

/// How many notifications are counted at most.
const MOST_COUNTED: i64 = 100_000;

#[async_trait]
impl Projection for Notification {
    fn domain(&self) -> &'static str {
        "notification"
    }

    fn declared_code_version(&self) -> i32 {
        1
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        matches!(
            event_type,
            TypeName::Known {
                event_type: EventType::UserRegistered
                    | EventType::UserEmailVerified
                    | EventType::UserPasswordChanged
                    | EventType::UserPasswordResetRequested
                    | EventType::UserAccountStatusChanged
                    | EventType::UserUpdated
                    | EventType::UserDeleted
                    | EventType::MfaStatusChanged,
                ..
            }
        )
    }

    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        let folded = users::fold::<UserFacts>(target, events).await?;
        set_recipients(target, &folded).await?;
        erase(target, &folded).await?;
        self.write(target, &folded).await
    }

    async fn on_switch(&self, connection: &mut PgConnection, from: i32) -> Result<(), sqlx::Error> {
        sqlx::query_file!("src/domains/notification/sql/add_deliveries.sql", from)
            .execute(&mut *connection)
            .await?;
        sqlx::query_file!("src/domains/notification/sql/follow_switch.sql")
            .execute(connection)
            .await
            .map(drop)
    }

    async fn on_removal(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query_file!("src/domains/notification/sql/remove_unknown.sql")
            .execute(connection)
            .await
            .map(drop)
    }

    async fn on_restore(
        &self,
        connection: &mut PgConnection,
        log_id: i32,
        projected: i64,
    ) -> Result<(), sqlx::Error> {
        sqlx::query_file!(
            "src/domains/notification/sql/note_restore.sql",
            log_id,
            projected
        )
        .execute(connection)
        .await
        .map(drop)
    }

    async fn on_resume(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query_file!("src/domains/notification/sql/expire_uncertain.sql")
            .execute(connection)
            .await
            .map(drop)
    }

    async fn maintain(&self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        let mut is_anything_ready = false;
        loop {
            let swept = sqlx::query_file!("src/domains/notification/sql/sweep_deliveries.sql")
                .fetch_one(pool);
            let swept = db::within(db::STEP_DEADLINE, swept).await?;
            is_anything_ready |= swept.ready > 0;
            if swept.all == 0 {
                return Ok(is_anything_ready);
            }
        }
    }

    async fn queued(&self, pool: &PgPool) -> Result<Option<Queued>, sqlx::Error> {
        let counted =
            sqlx::query_file!("src/domains/notification/sql/count_ready.sql", MOST_COUNTED)
                .fetch_one(pool)
                .await?;
        Ok(Some(Queued {
            ready: counted.ready,
            oldest_seconds: counted.oldest_seconds.unwrap_or_default().max(0),
        }))
    }
}

/// What the fold of a user's events produces besides the state.
#[derive(Default)]
pub struct Effects {
    /// New notifications.
    pub made: Vec<Made>,
    /// The first email that became known to notifications without recipient which were there before.
    pub email: Option<String>,
    /// Whether the user was deleted.
    pub is_deletion: bool,
}

/// A new notification.
#[derive(Debug, PartialEq)]
pub struct Made {
    pub template: Template,
    pub event_id: String,
    pub recipient: Option<String>,
    /// `None` if the user was deleted since.
    pub data: Option<NotificationData>,
    pub created_at: DateTime<Utc>,
    pub log_id: i32,
    pub offset: i64,
}

impl Made {
    /// The id, the same for every reading of the event: a UUID of version 8 (RFC 9562), from a hash of template and event id.
    pub fn id(&self) -> Uuid {
        let hash = hash16(format!("{}:{}", self.template.as_str(), self.event_id).as_bytes());
        uuid::Builder::from_custom_bytes(hash.into_bytes()).into_uuid()
    }
}

impl UserState for UserFacts {
    type Effects = Effects;

    fn apply(&mut self, new_event: &NewEvent, effects: &mut Effects) {
        if self.is_deleted {
            return;
        }
        let mut data = NotificationData::default();
        let templates: &[Template] = match &new_event.event.payload {
            Payload::UserRegistered(event) => {
                self.email = Some(event.email.clone());
                for (fact, value) in [
                    (&mut self.first_name, &event.first_name),
                    (&mut self.username, &event.username),
                ] {
                    if value.is_some() {
                        fact.clone_from(value);
                    }
                }
                match event.status.as_str() {
                    "pending_verification" => &[Template::Welcome, Template::EmailVerification],
                    _ => &[Template::Welcome],
                }
            }
            Payload::UserEmailVerified(event) => {
                self.email = Some(event.email.clone());
                &[Template::EmailVerified]
            }
            Payload::UserPasswordChanged(event) => {
                data.change_type = Some(event.change_type.clone());
                &[Template::PasswordChanged]
            }
            Payload::UserPasswordResetRequested(event) => {
                self.email = Some(event.email.clone());
                data.reset_token_identifier
                    .clone_from(&event.reset_token_identifier);
                &[Template::PasswordReset]
            }
            Payload::MfaStatusChanged(event) => {
                data.mfa_method.clone_from(&event.mfa_method);
                match event.mfa_enabled {
                    true => &[Template::MfaEnabled],
                    false => &[Template::MfaDisabled],
                }
            }
            Payload::UserAccountStatusChanged(event) => {
                data.reason.clone_from(&event.reason);
                data.previous_status = Some(event.previous_status.clone());
                data.new_status = Some(event.new_status.clone());
                match (event.new_status.as_str(), event.previous_status.as_str()) {
                    ("suspended" | "banned", _) => &[Template::AccountSuspended],
                    ("active", "suspended" | "banned" | "deactivated") => {
                        &[Template::AccountReactivated]
                    }
                    _ => &[],
                }
            }
            Payload::UserUpdated(event) => {
                for (name, fact) in [
                    ("email", &mut self.email),
                    ("firstName", &mut self.first_name),
                    ("username", &mut self.username),
                ] {
                    if let Some(change) = event.changes.text(name) {
                        *fact = changed(change);
                    }
                }
                &[]
            }
            Payload::UserDeleted(_) => {
                *self = Self {
                    is_deleted: true,
                    ..Self::default()
                };
                effects.is_deletion = true;
                for made in &mut effects.made {
                    (made.recipient, made.data) = (None, None);
                }
                return;
            }
            _ => return,
        };
        if self.lacks_recipients && self.email.is_some() {
            effects.address(self.email.as_deref());
            self.lacks_recipients = false;
        }
        if templates.is_empty() {
            return;
        }
        new_event
            .event
            .user_id()
            .unwrap_or_default()
            .clone_into(&mut data.user_id);
        data.first_name.clone_from(&self.first_name);
        data.username.clone_from(&self.username);
        self.lacks_recipients |= self.email.is_none();
        effects.made.extend(templates.iter().map(|template| Made {
            template: *template,
            event_id: new_event.event.id.clone(),
            recipient: self.email.clone(),
            data: Some(data.clone()),
            created_at: new_event.event.occurred_at,
            log_id: new_event.log_id,
            offset: new_event.offset,
        }));
    }
}

impl Effects {
    /// An email has become known to notifications without recipient.
    fn address(&mut self, email: Option<&str>) {
        let email = email.map(str::to_owned);
        for made in &mut self.made {
            if made.recipient.is_none() {
                made.recipient.clone_from(&email);
            }
        }
        if self.email.is_none() {
            self.email = email;
        }
    }
}

/// Gives emails that became known to the notifications that were there before the batch.
async fn set_recipients(
    target: &mut Target<'_>,
    folded: &[Folded<UserFacts>],
) -> Result<(), sqlx::Error> {
    let addressed = folded.iter().filter(|user| !user.effects.is_deletion);
    let (keys, emails): (Vec<Uuid>, Vec<&str>) = addressed
        .filter_map(|user| Some((user.user_key, user.effects.email.as_deref()?)))
        .unzip();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/domains/notification/sql/set_recipients.sql",
        &keys,
        &emails as _,
        target.is_live
    )
    .execute(&mut *target.connection)
    .await
    .map(drop)
}

/// Erases what notifications that were there before the batch say of deleted users.
async fn erase(target: &mut Target<'_>, folded: &[Folded<UserFacts>]) -> Result<(), sqlx::Error> {
    let deleted = folded.iter().filter(|user| user.effects.is_deletion);
    let keys: Vec<Uuid> = deleted.map(|user| user.user_key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/domains/notification/sql/erase_notifications.sql",
        &keys,
        target.is_live
    )
    .execute(&mut *target.connection)
    .await
    .map(drop)
}

impl Notification {
    async fn write(
        &self,
        target: &mut Target<'_>,
        folded: &[Folded<UserFacts>],
    ) -> Result<(), sqlx::Error> {
        let made: Vec<(&Folded<UserFacts>, &Made)> = folded
            .iter()
            .flat_map(|user| user.effects.made.iter().map(move |made| (user, made)))
            .collect();
        if made.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = made.iter().map(|(_, made)| made.id()).collect();
        let keys: Vec<Uuid> = made.iter().map(|(user, _)| user.user_key).collect();
        let user_ids: Vec<&str> = made.iter().map(|(user, _)| user.user_id.as_str()).collect();
        let templates: Vec<&str> = made
            .iter()
            .map(|(_, made)| made.template.as_str())
            .collect();
        let event_ids: Vec<&str> = made
            .iter()
            .map(|(_, made)| made.event_id.as_str())
            .collect();
        let recipients: Vec<Option<&str>> = made
            .iter()
            .map(|(_, made)| made.recipient.as_deref())
            .collect();
        let data: Vec<Option<String>> = made
            .iter()
            .map(|(_, made)| made.data.as_ref().map(db::to_document).transpose())
            .collect::<Result<_, _>>()?;
        let created_at: Vec<DateTime<Utc>> = made.iter().map(|(_, made)| made.created_at).collect();
        let log_ids: Vec<i32> = made.iter().map(|(_, made)| made.log_id).collect();
        let expiries: Vec<i32> = made
            .iter()
            .map(|(_, made)| self.settings.expiry_seconds(made.template))
            .collect();
        let offsets: Vec<i64> = made.iter().map(|(_, made)| made.offset).collect();
        sqlx::query_file!(
            "src/domains/notification/sql/write_notifications.sql",
            &ids,
            &keys,
            &user_ids as _,
            &templates as _,
            &event_ids as _,
            &recipients as _,
            &data as _,
            &created_at,
            &log_ids,
            &expiries,
            target.is_live,
            &offsets,
        )
        .execute(&mut *target.connection)
        .await
        .map(drop)
    }
}
