//! How large a worker's next batch may be, after batches that were too slow or too large for the database.
//!
//! Promises: such a batch is not tried unchanged, but with half of its records, down to one. A single record that hits a
//! limit in three tries, between which another partition of the version committed, is at fault itself: the database worked.

use chrono::{DateTime, Utc};

/// How often a record has to hit a limit alone before it becomes a dead letter.
const TRIES: u32 = 3;

/// The limit of a worker's next batch.
#[derive(Debug)]
pub struct BatchLimit {
    most: usize,
    records: usize,
    suspect: Option<Suspect>,
    was_halved: bool,
}

/// A record that hit a limit alone.
#[derive(Debug)]
struct Suspect {
    offset: i64,
    tries: u32,
    /// When another partition of the version had last committed, at the last try that counts.
    others_committed: Option<DateTime<Utc>>,
}

impl BatchLimit {
    /// A limit of `most` records, which are taken as long as nothing fails.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            records: most,
            suspect: None,
            was_halved: false,
        }
    }

    /// How many records the next batch may have.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether batches are smaller than usual, because one has hit a limit.
    pub fn is_reduced(&self) -> bool {
        self.records < self.most
    }

    /// A batch was committed: the next one may be larger again.
    pub fn committed(&mut self) {
        self.records = (self.records * 2).min(self.most);
        self.suspect = None;
    }

    /// A batch of so many records, of which the first is at `offset`, hit a limit. `others_committed` is when another partition
    /// of the version last committed.
    pub fn hit(&mut self, offset: i64, records: usize, others_committed: Option<DateTime<Utc>>) {
        if records > 1 {
            self.records = records / 2;
            self.was_halved = true;
            return;
        }
        self.records = 1;
        match &mut self.suspect {
            Some(suspect) if suspect.offset == offset => {
                if others_committed > suspect.others_committed {
                    suspect.tries += 1;
                    suspect.others_committed = others_committed;
                }
            }
            suspect => {
                *suspect = Some(Suspect {
                    offset,
                    tries: 1,
                    others_committed,
                });
            }
        }
    }

    /// Whether the batch was halved since this was last asked: the next try need not wait.
    pub fn was_halved(&mut self) -> bool {
        std::mem::take(&mut self.was_halved)
    }

    /// Whether the record at this offset is at fault, if it is alone in its batch.
    pub fn blames(&self, offset: i64) -> bool {
        let suspect = self.suspect.as_ref();
        suspect.is_some_and(|suspect| suspect.offset == offset && suspect.tries >= TRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(second, 0)
    }

    #[test]
    fn a_batch_is_halved_down_to_one_record_and_grows_after_commits() {
        let mut limit = BatchLimit::new(2_000);
        for (had, left) in [(1_500, 750), (750, 375), (3, 1), (1, 1)] {
            limit.hit(7, had, None);
            assert_eq!(limit.records(), left);
            assert_eq!(limit.was_halved(), had > 1);
        }
        for left in [2, 4, 8] {
            limit.committed();
            assert_eq!(limit.records(), left);
        }
        for _ in 0..20 {
            limit.committed();
        }
        assert_eq!(limit.records(), 2_000);
    }

    #[test]
    fn a_record_is_blamed_only_while_others_commit() {
        let mut limit = BatchLimit::new(2_000);
        for _ in 0..9 {
            limit.hit(7, 1, at(1));
            assert!(!limit.blames(7), "nothing else works either");
        }
        limit.hit(7, 1, at(2));
        assert!(!limit.blames(7));
        limit.hit(7, 1, at(3));
        assert!(limit.blames(7) && !limit.blames(8));
        limit.hit(8, 1, at(4));
        assert!(!limit.blames(7) && !limit.blames(8));
        for second in [None, at(1), at(2)] {
            limit.hit(9, 1, second);
        }
        assert!(limit.blames(9));
        limit.committed();
        assert!(!limit.blames(9));
    }
}
