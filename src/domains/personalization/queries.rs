//! The personalization domain's queries, for both surfaces: each checks its arguments and runs one
//! statement, which returns the rows together with the position that they reflect.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{Profile, Segment};
use super::segments;
use super::state::ProfileState;
use crate::db;
use crate::error::{Error, FieldViolation};
use crate::query::lookups::Lookup;
use crate::query::page::{Page, PageRequest};
use crate::query::{self, Answer, Reads, Subject, users};

/// The most preferences in one request.
pub const MAX_PREFERENCES: usize = 10;

/// Users by their ids.
static USERS: Lookup = users::lookup("personalization", "personalization/find_users");

/// The profile of a user.
///
/// # Errors
/// INVALID_ARGUMENT if no user can have the id; NOT_FOUND, with the position at which the user was
/// unknown or deleted; VIEW_NOT_READY instead, while the view is not built; the database's errors.
pub async fn get_profile(reads: &Reads, user_id: &str) -> Result<Answer<Profile>, Error> {
    query::check_id("userId", user_id)?;
    let Answer { body, position } = reads.find(&USERS, user_id).await?;
    match profile(body, user_id)? {
        Some(body) => Ok(Answer { body, position }),
        None => Err(position.not_found("user")),
    }
}

/// What the view holds of a user, in a snapshot: the profile.
///
/// # Errors
/// The database's errors.
pub async fn read_user(
    reads: &Reads,
    snapshot: &mut PgConnection,
    user_id: &str,
) -> Result<Answer<Option<Value>>, Error> {
    let Answer { body, position } = reads.find_in(snapshot, &USERS, user_id).await?;
    let body = profile(body, user_id)?;
    Answer { body, position }.into_json()
}

/// The profile that a stored state makes; a deleted user has none.
fn profile(state: Option<String>, user_id: &str) -> Result<Option<Profile>, Error> {
    let state = state.map(|state| db::of_document::<ProfileState>(&state, "users"));
    Ok(state
        .transpose()?
        .and_then(|state| state.into_profile(user_id)))
}

/// Which users a segment has: those who match all that is given.
#[derive(Debug, Clone, Default)]
pub struct SegmentFilter {
    /// The country of the location; upper or lower case.
    pub country_code: Option<String>,
    /// The city of the location; case is ignored.
    pub city: Option<String>,
    /// The language preference.
    pub language: Option<String>,
    /// Preferences: `path:value`.
    pub preferences: Vec<String>,
}

impl SegmentFilter {
    /// The facets that the users have.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: no filter is given, or one is malformed.
    fn facets(&self) -> Result<BTreeSet<Uuid>, Error> {
        let mut facets = BTreeSet::new();
        for (name, value, facet_of) in [
            (
                "countryCode",
                &self.country_code,
                segments::in_country as fn(&str) -> Uuid,
            ),
            ("city", &self.city, segments::in_city),
            ("language", &self.language, segments::with_language),
        ] {
            match value.as_deref() {
                Some("") => return Err(Error::empty(name)),
                value => facets.extend(value.map(facet_of)),
            }
        }
        if self.preferences.len() > MAX_PREFERENCES {
            let problem = format!("must be given at most {MAX_PREFERENCES} times");
            return Err(Error::invalid("preference", problem));
        }
        for preference in &self.preferences {
            match preference.split_once(':') {
                Some((path, value)) if !path.is_empty() && !value.is_empty() => {
                    facets.insert(segments::with_preference(path, value));
                }
                _ => {
                    let problem = "must be a path, a colon and a value, such as theme:dark";
                    return Err(Error::invalid("preference", problem));
                }
            }
        }
        if facets.is_empty() {
            let names = ["countryCode", "city", "language", "preference"];
            let missing = names.map(|name| FieldViolation {
                field: name.to_owned(),
                problem: "or another filter must be given".into(),
            });
            return Err(Error::violations(missing.into()));
        }
        Ok(facets)
    }
}

/// A page of the users of a segment, and how many users it has.
///
/// # Errors
/// INVALID_ARGUMENT if a filter or the page is invalid, or there is no filter; VIEW_NOT_READY if
/// nobody is found while the view is not built; the database's errors.
pub async fn list_segment(
    reads: &Reads,
    filter: &SegmentFilter,
    page: &PageRequest,
) -> Result<Answer<Segment>, Error> {
    let facets: Vec<Uuid> = filter.facets()?.into_iter().collect();
    let page: Page<String> = Page::of(page, &("personalization/segments", &facets))?;
    if let Some(after) = &page.after {
        query::check_id("pageToken", after)?;
    }
    let row = sqlx::query_file!(
        "src/domains/personalization/sql/list_segment.sql",
        &facets,
        page.after.as_deref().unwrap_or_default(),
        page.limit(),
    )
    .fetch_one(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("personalization/list_segment"))?;
    let position = reads
        .position(
            "personalization",
            &row.logs,
            &row.offsets,
            row.ready,
            Subject::Many,
        )
        .await?;
    if row.user_ids.is_empty() && page.after.is_none() {
        position.check_ready()?;
    }
    let rows = row.user_ids.into_iter().map(|id| (id.clone(), id));
    let (user_ids, next_page_token) = page.fill(rows)?;
    Ok(Answer {
        body: Segment {
            user_ids,
            total_size: row.total_size,
            next_page_token,
        },
        position,
    })
}
