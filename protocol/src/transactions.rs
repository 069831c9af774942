//! What the transactions do: batches, drains, discards, switches.

use crate::state::{
    Changes, Errand, Hold, Keeper, LOGS, Letter, Letters, Name, Owner, Progress, Rows, Set,
    Standing, State, VERSIONS, View,
};
use crate::{Protocol, Record, Rule};

/// Whose code reads records: both are at work while a new release is rolled out, or rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Does not understand records that are `late`.
    Old,
    /// Understands all.
    New,
}

/// What becomes of a record that is judged.
enum Outcome {
    Applied,
    /// Applied, and what waited for its key is nobody's any more.
    Deletes,
    Duplicate,
    Failed,
    Behind,
    Discarded,
}

/// Judges records of a partition, in order, within a transaction.
struct Judge<'p> {
    protocol: &'p Protocol,
    records: &'p [Record],
    release: Release,
    /// The ids of events in the tables.
    seen: Set,
    parked: Set,
    discarded: Set,
}

impl Judge<'_> {
    fn judge(&mut self, offset: u8) -> Outcome {
        let Record {
            key,
            id,
            late,
            deletes,
        } = self.records[usize::from(offset)];
        let parked = self.parked.has(key) && self.protocol.keeps(Rule::ParkedKeysHoldBack);
        let seen = self.seen.has(id) && self.protocol.keeps(Rule::IdsAreRemembered);
        let good = !late || self.release == Release::New;
        if self.discarded.has(offset) {
            Outcome::Discarded
        } else if seen && (!parked || (good && deletes)) {
            Outcome::Duplicate
        } else if good && (!parked || deletes) {
            self.seen.add(id);
            if parked {
                self.parked.take(key);
                Outcome::Deletes
            } else {
                Outcome::Applied
            }
        } else if parked {
            Outcome::Behind
        } else {
            self.parked.add(key);
            Outcome::Failed
        }
    }
}

/// What a transaction writes of one partition of a version, and the letters as it sees them.
struct Writing {
    letters: Letters,
    changes: Changes,
}

impl Writing {
    fn new(state: &State, version: u8, log: u8, tables: u8) -> Self {
        Writing {
            letters: state.row(version, log).letters,
            changes: Changes {
                tables,
                ..Changes::default()
            },
        }
    }

    fn set(&mut self, offset: u8, letter: Letter) {
        self.letters.set(offset, letter);
        self.changes.letters.set(offset, letter);
    }
}

impl Protocol {
    pub(crate) fn records(&self, log: u8) -> &[Record] {
        self.scope
            .logs
            .get(usize::from(log))
            .map_or(&[], Vec::as_slice)
    }

    fn key(&self, log: u8, offset: u8) -> u8 {
        self.records(log)[usize::from(offset)].key
    }

    fn judge<'p>(
        &'p self,
        state: &State,
        tables: u8,
        log: u8,
        release: Release,
        parked: Set,
    ) -> Judge<'p> {
        let records = self.records(log);
        let rows = &state.tables[usize::from(tables)][usize::from(log)];
        Judge {
            protocol: self,
            records,
            release,
            seen: rows
                .offsets()
                .iter()
                .map(|offset| records[usize::from(*offset)].id)
                .collect(),
            parked,
            discarded: Set::default(),
        }
    }

    /// What taking over reads. The epoch is the row's.
    pub(crate) fn look(&self, state: &State, version: u8, log: u8) -> Hold {
        let row = state.row(version, log);
        let ahead = state.discards[usize::from(log)]
            .iter()
            .filter(|offset| *offset >= row.next);
        Hold {
            epoch: row.epoch,
            next: row.next,
            schema: state.view(version).schema,
            parked: row
                .letters
                .open()
                .map(|offset| self.key(log, offset))
                .collect(),
            discarded: ahead.collect(),
        }
    }

    /// Takes a partition over, with what was read before, if something was.
    pub(crate) fn take_over(&self, state: &mut State, owner: usize) {
        let (version, log) = self.scope.owners[owner];
        state.row_mut(version, log).epoch += u8::from(self.keeps(Rule::TakingOverRaisesTheEpoch));
        let mut hold = self.look(state, version, log);
        if let Owner::HasRead(read) = state.owners[owner] {
            if !self.keeps(Rule::LettersAreReadUnderTheLock) {
                (hold.parked, hold.discarded) = (read.parked, read.discarded);
            }
            if !self.keeps(Rule::SchemaIsReadUnderTheLock) {
                hold.schema = read.schema;
            }
        }
        state.owners[owner] = Owner::Holds(hold);
    }

    /// The comparison that a batch begins with.
    pub(crate) fn compare(&self, state: &State, version: u8, log: u8, hold: &Hold) -> bool {
        let row = state.row(version, log);
        state.view(version).exists()
            && (row.epoch == hold.epoch || !self.keeps(Rule::EpochIsCompared))
            && (row.next == hold.next || !self.keeps(Rule::OffsetIsCompared))
    }

    /// A batch, as it is written. Where the schema's name leads nowhere, the transaction fails.
    pub(crate) fn write_batch(&self, state: &mut State, owner: usize, release: Release) {
        let Owner::Begun(hold, count) = state.owners[owner] else {
            return;
        };
        let (version, log) = self.scope.owners[owner];
        let Some(tables) = state.tables_of(hold.schema) else {
            state.owners[owner] = Owner::Idle;
            return;
        };
        let mut judge = self.judge(state, tables, log, release, hold.parked);
        judge.discarded = hold.discarded;
        let mut writing = Writing::new(state, version, log, tables);
        for offset in hold.next..hold.next + count {
            match judge.judge(offset) {
                Outcome::Applied => writing.changes.rows.add(offset),
                Outcome::Deletes => {
                    writing.changes.rows.add(offset);
                    self.close(log, offset, &mut writing);
                }
                Outcome::Duplicate => {}
                Outcome::Failed => writing.set(offset, Letter::Failed),
                Outcome::Behind => writing.set(offset, Letter::Behind),
                Outcome::Discarded => writing.set(offset, Letter::Discarded),
            }
        }
        state.owners[owner] = Owner::Written(hold, count, judge.parked, writing.changes);
    }

    pub(crate) fn commit_batch(&self, state: &mut State, owner: usize, answered: bool) {
        let Owner::Written(hold, count, parked, changes) = state.owners[owner] else {
            return;
        };
        let (version, log) = self.scope.owners[owner];
        apply(state, version, log, &changes);
        let next = hold.next + count;
        state.row_mut(version, log).next = next;
        state.pause_broken |= state.view(version).paused;
        state.owners[owner] = if answered {
            Owner::Holds(Hold {
                next,
                parked,
                discarded: hold
                    .discarded
                    .iter()
                    .filter(|offset| *offset >= next)
                    .collect(),
                ..hold
            })
        } else if self.keeps(Rule::UnansweredMeansUnknown) {
            Owner::Idle
        } else {
            // It takes no answer for a no.
            Owner::Holds(hold)
        };
        state.unanswered |= !answered && self.scope.remembers;
    }

    /// A user was deleted: the open letters of the key before that are closed.
    fn close(&self, log: u8, deletion: u8, writing: &mut Writing) {
        if !self.keeps(Rule::DeletionsCloseLetters) {
            return;
        }
        for offset in writing
            .letters
            .open()
            .take_while(|offset| *offset < deletion)
        {
            if self.key(log, offset) == self.key(log, deletion) {
                writing.set(offset, Letter::Closed);
            }
        }
    }

    /// Tries a key's letters again, in their order, from an offset on, and some at a time. Returns where to go on, where
    /// there are more.
    fn drain(
        &self,
        judge: &mut Judge<'_>,
        log: u8,
        key: u8,
        from: u8,
        writing: &mut Writing,
    ) -> Option<u8> {
        let letters = writing
            .letters
            .open()
            .filter(|offset| *offset >= from && self.key(log, *offset) == key);
        for (tried, offset) in letters.enumerate() {
            if tried == self.scope.letters_at_a_time {
                // Should the next transaction never come, what is left waits behind a letter that somebody looks for.
                if !judge.parked.has(key) && self.keeps(Rule::DrainsLeaveAHead) {
                    writing.set(offset, Letter::Failed);
                }
                return Some(offset);
            }
            match judge.judge(offset) {
                Outcome::Applied => {
                    writing.changes.rows.add(offset);
                    writing.set(offset, Letter::Applied);
                }
                Outcome::Deletes => {
                    writing.changes.rows.add(offset);
                    writing.set(offset, Letter::Applied);
                    self.close(log, offset, writing);
                }
                Outcome::Duplicate => writing.set(offset, Letter::Duplicate),
                Outcome::Failed => {
                    writing.set(offset, Letter::Failed);
                    if !self.keeps(Rule::DrainsStopAtAFailure) {
                        judge.parked.take(key);
                    }
                }
                // It waits on, as what it was.
                Outcome::Behind | Outcome::Discarded => {}
            }
        }
        None
    }

    /// What is wanted of letters.
    pub(crate) fn errands(&self, state: &State) -> Vec<Errand> {
        let mut errands = Vec::new();
        for version in state.versions() {
            for log in self.logs() {
                if self.scope.retries {
                    errands.extend(self.look(state, version, log).parked.iter().map(|key| {
                        Errand::Retry {
                            version,
                            log,
                            key,
                            from: 0,
                            failed: false,
                        }
                    }));
                }
                if self.scope.discards {
                    errands.extend(state.row(version, log).letters.open().map(|offset| {
                        Errand::Discard {
                            version,
                            log,
                            offset,
                            others: None,
                        }
                    }));
                }
            }
        }
        errands
    }

    /// The same, after a look at which other versions have a letter for the record.
    pub(crate) fn with_others(state: &State, errand: Errand) -> Errand {
        let Errand::Discard {
            version,
            log,
            offset,
            ..
        } = errand
        else {
            return errand;
        };
        let others = state
            .versions()
            .filter(|other| *other != version && state.is_open(*other, log, offset));
        Errand::Discard {
            version,
            log,
            offset,
            others: Some(others.collect()),
        }
    }

    /// Does an errand, up to the COMMIT. Where there is nothing to be done any more it is over.
    pub(crate) fn do_errand(
        &self,
        state: &mut State,
        keeper: usize,
        errand: Errand,
        release: Release,
    ) {
        let done = match errand {
            Errand::Retry { .. } => self.retry(state, errand, release),
            Errand::Discard { others: None, .. } => {
                self.discard(state, Self::with_others(state, errand), release)
            }
            Errand::Discard { .. } => self.discard(state, errand, release),
        };
        state.keepers[keeper] = done.unwrap_or(Keeper::Idle);
    }

    fn retry(&self, state: &State, errand: Errand, release: Release) -> Option<Keeper> {
        let Errand::Retry {
            version,
            log,
            key,
            from,
            failed,
        } = errand
        else {
            return None;
        };
        if !state.view(version).exists() {
            return None;
        }
        let tables = state.tables_of(state.view(version).schema)?;
        let parked = failed.then_some(key).into_iter().collect();
        let mut judge = self.judge(state, tables, log, release, parked);
        let mut writing = Writing::new(state, version, log, tables);
        let more = self.drain(&mut judge, log, key, from, &mut writing);
        let mut changes = [None; VERSIONS];
        changes[usize::from(version)] = Some(writing.changes);
        Some(Keeper::Done {
            errand,
            rows: state.versions().collect(),
            changes,
            then: more.map(|from| Errand::Retry {
                version,
                log,
                key,
                from,
                failed: judge.parked.has(key),
            }),
        })
    }

    fn discard(&self, state: &State, errand: Errand, release: Release) -> Option<Keeper> {
        let Errand::Discard {
            version,
            log,
            offset,
            others,
        } = errand
        else {
            return None;
        };
        if !state.is_open(version, log, offset) {
            return None;
        }
        let mut now = vec![version];
        let mut then = None;
        let others = others.unwrap_or_default().iter();
        if self.keeps(Rule::DiscardsAreOneTransaction) {
            now.extend(others.filter(|other| state.is_open(*other, log, offset)));
        } else {
            then = others.last().map(|other| Errand::Discard {
                version: other,
                log,
                offset,
                others: Some(Set::default()),
            });
        }
        let key = self.key(log, offset);
        let mut changes = [None; VERSIONS];
        for version in now {
            let tables = state.tables_of(state.view(version).schema)?;
            let mut writing = Writing::new(state, version, log, tables);
            writing.set(offset, Letter::Discarded);
            let is_first = writing
                .letters
                .open()
                .all(|other| other > offset || self.key(log, other) != key);
            if is_first {
                let mut judge = self.judge(state, tables, log, release, Set::default());
                let more = self.drain(&mut judge, log, key, 0, &mut writing);
                // The first is gone for good, so that beginning anew goes on.
                then = then.or(more.map(|_| Errand::Retry {
                    version,
                    log,
                    key,
                    from: 0,
                    failed: false,
                }));
            }
            changes[usize::from(version)] = Some(writing.changes);
        }
        Some(Keeper::Done {
            errand,
            rows: state.versions().collect(),
            changes,
            then,
        })
    }

    pub(crate) fn commit_errand(&self, state: &mut State, keeper: usize, answered: bool) {
        let Keeper::Done {
            errand,
            rows,
            changes,
            then,
        } = state.keepers[keeper]
        else {
            return;
        };
        let log = errand.log();
        for version in rows.iter() {
            let raises = match changes[usize::from(version)] {
                Some(_) => self.keeps(Rule::DrainsRaiseTheEpoch),
                None => {
                    matches!(errand, Errand::Discard { .. })
                        && self.keeps(Rule::DiscardsFenceAllVersions)
                }
            };
            state.row_mut(version, log).epoch += u8::from(raises);
        }
        for (version, changes) in (0..).zip(&changes) {
            if let Some(changes) = changes {
                apply(state, version, log, changes);
            }
        }
        if let Errand::Discard { offset, .. } = errand {
            state.taken_out[usize::from(log)].add(offset);
            if self.keeps(Rule::DiscardsAreKept) {
                state.discards[usize::from(log)].add(offset);
            }
        }
        state.keepers[keeper] = match then {
            Some(errand) if answered => Keeper::About(errand),
            _ => Keeper::Idle,
        };
    }

    pub(crate) fn create(&self, state: &mut State, version: u8) {
        let view = state.view_mut(version);
        view.standing = Standing::Building;
        view.schema = Name::Own(version);
        // A number of its own makes other rows than those of any version before. Nobody's hold speaks of them, which is
        // all that matters: so the number is spared here, and the epoch goes on from where it was.
        if !self.keeps(Rule::NumbersAreNew) {
            view.progress.iter_mut().for_each(|row| row.epoch = 0);
        }
        state.names[Name::Own(version).index()] = Some(version);
    }

    pub(crate) fn remove(&self, state: &mut State, version: u8) {
        raise_all(state, version);
        // What was left to do in it is left to do in no other.
        if self.keeps(Rule::NumbersAreNew) {
            for keeper in &mut state.keepers {
                if matches!(keeper, Keeper::About(errand) if errand.version() == version) {
                    *keeper = Keeper::Idle;
                }
            }
        }
        let View {
            schema, progress, ..
        } = *state.view(version);
        state.names[schema.index()] = None;
        state.tables[usize::from(version)] = [Rows::default(); LOGS];
        *state.view_mut(version) = View {
            progress: progress.map(|row| Progress {
                epoch: row.epoch,
                ..Progress::default()
            }),
            ..View::default()
        };
    }

    pub(crate) fn switch(&self, state: &mut State, version: u8) {
        let former = 1 - version;
        if self.keeps(Rule::SwitchTakesProgress) && self.keeps(Rule::SwitchRaisesEpochs) {
            raise_all(state, version);
            raise_all(state, former);
        }
        let schema = state.view(version).schema;
        state.names[Name::Own(former).index()] = state.names[Name::Live.index()];
        state.names[Name::Live.index()] = state.names[schema.index()].take();
        state.view_mut(former).standing = Standing::Retired;
        state.view_mut(former).schema = Name::Own(former);
        state.view_mut(version).standing = Standing::Live;
        state.view_mut(version).schema = Name::Live;
        state.switching = false;
    }
}

/// Raises the epochs of all rows of a version.
pub(crate) fn raise_all(state: &mut State, version: u8) {
    state
        .view_mut(version)
        .progress
        .iter_mut()
        .for_each(|row| row.epoch += 1);
}

/// Brings to tables and letters what a transaction wrote.
fn apply(state: &mut State, version: u8, log: u8, changes: &Changes) {
    for offset in changes.rows.offsets() {
        state.tables[usize::from(changes.tables)][usize::from(log)].add(*offset);
        state.discard_broken |= state.taken_out[usize::from(log)].has(*offset);
    }
    state.row_mut(version, log).letters.change(&changes.letters);
}
