//! How events become the search domain's view: a pure fold, and the statements that write its
//! results.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Search;
use super::model::FoundUser;
use super::state::UserDocumentState;
use crate::db;
use crate::event::{Change, Changes, EventType, Payload, TypeName, hash16};
use crate::fold::change_text;
use crate::fold::users::{self, Folded, UserState};
use crate::projector::{NewEvent, Projection, Target};

#[async_trait]
impl Projection for Search {
    fn domain(&self) -> &'static str {
        "search"
    }

    fn declared_code_version(&self) -> i32 {
        1
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        matches!(
            event_type,
            TypeName::Known {
                event_type: EventType::UserRegistered
                    | EventType::UserAccountStatusChanged
                    | EventType::UserUpdated
                    | EventType::UserDeleted
                    | EventType::UserProfileUpdated,
                ..
            }
        )
    }

    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        let folded = users::fold::<UserDocumentState>(target, events).await?;
        write_documents(target, &folded).await?;
        count_words(target, &folded).await
    }
}

/// What the fold of a user's events produces besides the state.
#[derive(Default)]
pub struct Effects {
    /// The state before the batch.
    pub before: Option<UserDocumentState>,
}

/// The names that UserProfileUpdated may change. UserUpdated may change all fields.
const NAMES: &[&str] = &["firstName", "lastName", "displayName"];

impl UserState for UserDocumentState {
    type Effects = Effects;

    fn apply(&mut self, new_event: &NewEvent, effects: &mut Effects) {
        effects.before.get_or_insert_with(|| self.clone());
        if self.is_deleted {
            return;
        }
        let event = &new_event.event;
        if let Payload::UserDeleted(_) = &event.payload {
            *self = Self {
                is_deleted: true,
                ..Self::default()
            };
            return;
        }
        let user = self.user.get_or_insert_default();
        if let Some(user_id) = event.user_id() {
            user_id.clone_into(&mut user.user_id);
        }
        user.apply(&event.payload, event.occurred_at);
        let log_id = new_event.log_id;
        self.counted_log = Some(self.counted_log.map_or(log_id, |first| first.min(log_id)));
    }
}

impl FoundUser {
    fn apply(&mut self, payload: &Payload, at: DateTime<Utc>) {
        match payload {
            Payload::UserRegistered(registered) => {
                self.registered_at.get_or_insert(at);
                self.set("email", Change::Value(&registered.email));
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
            Payload::UserAccountStatusChanged(changed) => {
                self.set("status", Change::Value(&changed.new_status));
            }
            Payload::UserUpdated(updated) => {
                self.change(&updated.changes, &["email", "username", "status"]);
                self.change(&updated.changes, NAMES);
            }
            Payload::UserProfileUpdated(updated) => self.change(&updated.changes, NAMES),
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

    fn set(&mut self, field: &'static str, change: Change<&str>) {
        let value = match field {
            "email" => &mut self.email,
            "username" => &mut self.username,
            "firstName" => &mut self.first_name,
            "lastName" => &mut self.last_name,
            "displayName" => &mut self.display_name,
            "status" => &mut self.status,
            _ => return,
        };
        change_text(value, &mut self.stale_fields, field, change);
    }
}

/// Writes the documents that changed, and removes those of users that were deleted.
async fn write_documents(
    target: &mut Target<'_>,
    folded: &[Folded<UserDocumentState>],
) -> Result<(), sqlx::Error> {
    let mut stored = DocumentColumns::default();
    let mut deleted = Vec::new();
    for row in folded {
        let before = row.effects.before.as_ref();
        let before = before.and_then(|before| before.user.as_ref());
        match &row.state.user {
            Some(user) if before != Some(user) => stored.push(row.user_key, user)?,
            None if before.is_some() => deleted.push(row.user_key),
            _ => {}
        }
    }
    if !stored.user_keys.is_empty() {
        sqlx::query_file!(
            "src/domains/search/sql/store_documents.sql",
            &stored.user_keys,
            &stored.user_ids,
            &stored.status_keys as _,
            &stored.registered_at as _,
            &stored.words,
            &stored.documents,
        )
        .execute(&mut *target.connection)
        .await?;
    }
    if !deleted.is_empty() {
        sqlx::query_file!("src/domains/search/sql/delete_documents.sql", &deleted)
            .execute(&mut *target.connection)
            .await?;
    }
    Ok(())
}

/// Rows of documents, column by column: the arguments of the statement that writes them.
#[derive(Default)]
struct DocumentColumns {
    user_keys: Vec<Uuid>,
    user_ids: Vec<String>,
    status_keys: Vec<Option<Uuid>>,
    registered_at: Vec<Option<DateTime<Utc>>>,
    /// The words of each, with a space between them.
    words: Vec<String>,
    documents: Vec<String>,
}

impl DocumentColumns {
    fn push(&mut self, user_key: Uuid, user: &FoundUser) -> Result<(), sqlx::Error> {
        self.user_keys.push(user_key);
        self.user_ids.push(user.user_id.clone());
        let status = user.status.as_ref();
        self.status_keys
            .push(status.map(|status| hash16(status.as_bytes())));
        self.registered_at.push(user.registered_at);
        self.words.push(user.words().join(" "));
        self.documents.push(db::to_document(user)?);
        Ok(())
    }
}

/// By how many documents the counts of words change, by word and log, in the order in which all writers write them.
#[derive(Default)]
pub struct WordCounts(BTreeMap<(String, i32), i64>);

impl WordCounts {
    /// Counts the words of a user's document after a batch, and those of before no more.
    pub fn add(&mut self, before: Option<&UserDocumentState>, after: &UserDocumentState) {
        let before = before.map_or_else(HashSet::new, UserDocumentState::counted_words);
        let after = after.counted_words();
        for word in after.difference(&before) {
            *self.0.entry(word.clone()).or_default() += 1;
        }
        for word in before.difference(&after) {
            *self.0.entry(word.clone()).or_default() -= 1;
        }
    }

    /// The counts that change.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let changed = self.0.iter().filter(|(_, change)| **change != 0);
        changed.map(|((word, log_id), change)| (word.as_str(), *log_id, *change))
    }
}

async fn count_words(
    target: &mut Target<'_>,
    folded: &[Folded<UserDocumentState>],
) -> Result<(), sqlx::Error> {
    let mut counts = WordCounts::default();
    for row in folded {
        counts.add(row.effects.before.as_ref(), &row.state);
    }
    let words: Vec<&str> = counts.iter().map(|(word, _, _)| word).collect();
    if words.is_empty() {
        return Ok(());
    }
    let log_ids: Vec<i32> = counts.iter().map(|(_, log_id, _)| log_id).collect();
    let changes: Vec<i64> = counts.iter().map(|(_, _, change)| change).collect();
    sqlx::query_file!(
        "src/domains/search/sql/count_words.sql",
        &words as _,
        &log_ids,
        &changes,
    )
    .execute(&mut *target.connection)
    .await?;
    let fewer = counts.iter().filter(|(_, _, change)| *change < 0);
    let (words, log_ids): (Vec<&str>, Vec<i32>) =
        fewer.map(|(word, log_id, _)| (word, log_id)).unzip();
    if words.is_empty() {
        return Ok(());
    }
    // A statement can't delete rows that it has updated itself.
    sqlx::query_file!(
        "src/domains/search/sql/remove_words.sql",
        &words as _,
        &log_ids,
    )
    .execute(&mut *target.connection)
    .await
    .map(drop)
}
