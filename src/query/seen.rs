//! What reads reflect, so that a layer around them can compare it with what was demanded.

use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::answer::Position;

/// Whose dead letters an answer lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The answer is about one user, and made from events under the user's id alone. The id of an open dead letter under the
    /// user's id, if there is one.
    User(Option<Uuid>),
    /// The answer is about one user, but depends on events under other keys, too, such as those of roles.
    UserAndOthers(Option<Uuid>),
    /// The answer is about many.
    Many,
}

impl Subject {
    /// The subject of a list that a filter may limit to one user, and an open dead letter under that user's id.
    pub fn of(is_of_user: bool, dead_letter: Option<Uuid>) -> Self {
        if is_of_user {
            Self::User(dead_letter)
        } else {
            Self::Many
        }
    }

    /// The id of an open dead letter under the id of the user whom the answer is about, if there is one.
    pub fn dead_letter(self) -> Option<Uuid> {
        match self {
            Self::User(dead_letter) | Self::UserAndOthers(dead_letter) => dead_letter,
            Self::Many => None,
        }
    }

    /// Whether the answer depends on events under many keys.
    pub fn depends_on_many(self) -> bool {
        match self {
            Self::User(_) => false,
            Self::UserAndOthers(_) | Self::Many => true,
        }
    }
}

/// What an answer was found to reflect, in the snapshot that it was read from.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The domain whose view it is from.
    pub domain: String,
    /// The logs that it depends on, with their next offsets.
    pub logs: Vec<(i32, i64)>,
    /// Whom it is about.
    pub subject: Subject,
    /// The same as callers see it.
    pub position: Position,
}

tokio::task_local! {
    static SEEN: Mutex<Vec<Seen>>;
}

/// Runs a read, and returns what it reflects beside its answer: one element for each view that it was read from.
pub async fn observe<T>(read: impl Future<Output = T>) -> (T, Vec<Seen>) {
    SEEN.scope(Mutex::default(), async {
        let answer = read.await;
        let seen = SEEN
            .with(|seen| std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner)));
        (answer, seen)
    })
    .await
}

/// Notes what a read reflects, if that is asked for.
pub fn note(seen: impl FnOnce() -> Seen) {
    let _ = SEEN.try_with(|all| {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(seen());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::token::ConsistencyToken;

    #[tokio::test]
    async fn reads_say_what_they_reflect_only_where_it_is_asked_for() {
        let seen = || Seen {
            domain: "order".into(),
            logs: vec![(7, 42)],
            subject: Subject::Many,
            position: ConsistencyToken::default().into(),
        };
        note(seen);
        let (answer, all) = observe(async {
            note(seen);
            note(seen);
            1
        })
        .await;
        assert_eq!((answer, all.len()), (1, 2));
    }
}
