//! The effects of transactions: claims, batches, retries, discards, and changes of versions.

use crate::state::{
    Batch, Changes, Claim, DeadLetter, DeadLetters, LOGS, Name, OWNERS, Operation, Operator, Owner,
    Progress, Rows, Set, State, VERSIONS, View, ViewState,
};
use crate::{Protocol, Record, Rule};

/// The release that reads records. Both run at once during a rollout or rollback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Release {
    /// Can't read records that are `late`.
    #[default]
    Old,
    /// Reads all records.
    New,
}

/// How a COMMIT ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitEnd {
    /// It takes effect and is answered.
    Answered,
    /// It takes effect, and the answer is lost.
    Unanswered,
    /// It has no effect, and the writer gets no answer.
    WithoutEffect,
}

impl CommitEnd {
    /// All ends.
    pub const ALL: [Self; 3] = [Self::Answered, Self::Unanswered, Self::WithoutEffect];
}

/// The result of judging a record.
enum Outcome {
    Applied,
    /// Applied, and closes the earlier dead letters of its key.
    Deletes,
    Duplicate,
    Failed,
    Blocked,
    Discarded,
}

/// Judges records of a partition in order, within one transaction.
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
            Outcome::Blocked
        } else {
            self.parked.add(key);
            Outcome::Failed
        }
    }
}

/// The changes of a transaction in one partition of a version, and the dead letters as it sees them.
struct Writing {
    letters: DeadLetters,
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

    fn set(&mut self, offset: u8, letter: DeadLetter) {
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
        Judge {
            protocol: self,
            records: self.records(log),
            release,
            seen: self.ids(log, &state.tables[usize::from(tables)][usize::from(log)]),
            parked,
            discarded: Set::default(),
        }
    }

    /// The ids of the events in a partition's rows.
    fn ids(&self, log: u8, rows: &Rows) -> Set {
        let offsets = rows.offsets().iter();
        offsets
            .map(|offset| self.records(log)[usize::from(*offset)].id)
            .collect()
    }

    /// Reads what a claim contains. The epoch is the row's.
    pub(crate) fn look(&self, state: &State, version: u8, log: u8) -> Claim {
        let row = state.row(version, log);
        let ahead = state.discards[usize::from(log)]
            .iter()
            .filter(|offset| *offset >= row.next);
        Claim {
            epoch: row.epoch,
            next: row.next,
            schema: state.view(version).schema,
            parked: row
                .letters
                .open()
                .map(|offset| self.key(log, offset))
                .collect(),
            discarded: ahead.collect(),
            ids: state
                .tables_of(state.view(version).schema)
                .map(|tables| &state.tables[usize::from(tables)][usize::from(log)])
                .map_or(Set::default(), |rows| self.ids(log, rows)),
            code: Release::Old,
        }
    }

    /// Claims a partition. Where a rule is left out, the claim uses what the owner read before.
    pub(crate) fn claim(&self, state: &mut State, owner: usize, code: Release) {
        let (version, log) = self.scope.owners[owner];
        state.row_mut(version, log).epoch += u8::from(self.keeps(Rule::ClaimsRaiseTheEpoch));
        let mut claim = Claim {
            code,
            ..self.look(state, version, log)
        };
        if let Owner::HasRead(read) = state.owners[owner] {
            if !self.keeps(Rule::LettersAreReadUnderTheLock) {
                (claim.parked, claim.discarded) = (read.parked, read.discarded);
            }
            if !self.keeps(Rule::SchemaIsReadUnderTheLock) {
                claim.schema = read.schema;
            }
            if !self.keeps(Rule::IdsAreReadUnderTheLock) {
                claim.ids = read.ids;
            }
        }
        state.owners[owner] = Owner::Claimed(claim);
    }

    /// The comparison that a batch begins with.
    pub(crate) fn compare(&self, state: &State, version: u8, log: u8, claim: &Claim) -> bool {
        let row = state.row(version, log);
        state.view(version).exists()
            && (row.epoch == claim.epoch || !self.keeps(Rule::EpochIsCompared))
            && (row.next == claim.next || !self.keeps(Rule::OffsetIsCompared))
    }

    /// Begins a transaction with a batch of each owner whose count is not zero. The owners whose rows are
    /// not as claimed are fenced, and the transaction goes on without them.
    pub(crate) fn begin(&self, state: &mut State, counts: [u8; OWNERS]) {
        let claims = (0..OWNERS as u8).filter_map(|owner| match state.owners[usize::from(owner)] {
            Owner::Claimed(claim) if counts[usize::from(owner)] > 0 => Some((owner, claim)),
            _ => None,
        });
        let (mut returned, fenced): (Vec<_>, Vec<_>) = claims.partition(|(owner, claim)| {
            let (version, log) = self.scope.owners[usize::from(*owner)];
            self.compare(state, version, log, claim)
        });
        for (owner, _) in &fenced {
            state.owners[usize::from(*owner)] = Owner::Idle;
            state.turned_away |= self.scope.remembers;
            state.partly_fenced |= !returned.is_empty() && self.scope.remembers;
        }
        // All returned claims name the same schema: no switch came since.
        let Some((_, claim)) = returned.first() else {
            return;
        };
        let mut schema = claim.schema;
        if let Some((_, claim)) = fenced.first()
            && !self.keeps(Rule::SchemaIsOfAReturnedClaim)
        {
            schema = claim.schema;
        }
        if !self.keeps(Rule::OnlyReturnedAreWritten) {
            returned.extend(fenced);
        }
        let owners = returned.iter().map(|(owner, _)| *owner).collect();
        for (owner, claim) in returned {
            state.owners[usize::from(owner)] = Owner::Begun(Batch {
                claim,
                count: counts[usize::from(owner)],
                schema,
                owners,
            });
        }
    }

    /// Judges and writes the batches of a transaction. It fails if the schema does not exist.
    pub(crate) fn write(&self, state: &mut State, owners: Set, release: Release) {
        for owner in owners.iter().map(usize::from) {
            let Owner::Begun(batch) = state.owners[owner] else {
                continue;
            };
            let Some(tables) = state.tables_of(batch.schema) else {
                return roll_back(state, owners);
            };
            let (parked, changes) = self.write_batch(state, owner, &batch, tables, release);
            state.owners[owner] = Owner::Written(batch, parked, changes);
        }
    }

    /// Judges and writes a batch. Returns the keys that are parked after it, and the changes.
    fn write_batch(
        &self,
        state: &State,
        owner: usize,
        batch: &Batch,
        tables: u8,
        release: Release,
    ) -> (Set, Changes) {
        let Batch { claim, count, .. } = *batch;
        let (version, log) = self.scope.owners[owner];
        let mut judge = self.judge(state, tables, log, release, claim.parked);
        // The filters that the owner keeps say which ids are new.
        judge.seen = claim.ids;
        judge.discarded = claim.discarded;
        let mut writing = Writing::new(state, version, log, tables);
        writing.changes.code = claim.code;
        for offset in claim.next..claim.next + count {
            match judge.judge(offset) {
                Outcome::Applied => writing.changes.rows.add(offset),
                Outcome::Deletes => {
                    writing.changes.rows.add(offset);
                    self.close(log, offset, &mut writing);
                }
                Outcome::Duplicate => {}
                Outcome::Failed => writing.set(offset, DeadLetter::Failed),
                Outcome::Blocked => writing.set(offset, DeadLetter::Blocked),
                Outcome::Discarded => writing.set(offset, DeadLetter::Discarded),
            }
        }
        (judge.parked, writing.changes)
    }

    /// Commits the batches of a transaction.
    pub(crate) fn commit(&self, state: &mut State, owners: Set, end: CommitEnd) {
        for owner in owners.iter() {
            let Owner::Written(batch, parked, changes) = state.owners[usize::from(owner)] else {
                continue;
            };
            let claim = batch.claim;
            let (version, log) = self.scope.owners[usize::from(owner)];
            let next = claim.next + batch.count;
            if end != CommitEnd::WithoutEffect {
                self.apply(state, version, log, &changes);
                state.row_mut(version, log).next = next;
                state.pause_broken |= state.view(version).paused;
            }
            let advanced = Claim {
                next,
                parked,
                discarded: claim
                    .discarded
                    .iter()
                    .filter(|offset| *offset >= next)
                    .collect(),
                ids: if self.keeps(Rule::CommittedIdsAreAdded) {
                    let added = self.ids(log, &changes.rows);
                    claim.ids.iter().chain(added.iter()).collect()
                } else {
                    claim.ids
                },
                ..claim
            };
            let is_first = owners.first() == Some(owner);
            state.owners[usize::from(owner)] = if end == CommitEnd::Answered {
                Owner::Claimed(advanced)
            } else if !self.keeps(Rule::UnansweredMeansUnknown) {
                // The owner assumes that the COMMIT had no effect.
                Owner::Claimed(claim)
            } else if !is_first && !self.keeps(Rule::UnansweredConcernsAll) {
                // The owner assumes that the COMMIT took effect.
                Owner::Claimed(advanced)
            } else {
                Owner::Idle
            };
        }
        state.unanswered |= end == CommitEnd::Unanswered && self.scope.remembers;
    }

    /// Closes the open dead letters of a deleted user's key that precede the deletion.
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
                writing.set(offset, DeadLetter::Closed);
            }
        }
    }

    /// Retries a key's open dead letters in order, from an offset on. Returns the offset at which the
    /// next transaction continues if the limit per transaction was reached.
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
                // If the next transaction never runs, maintenance finds the rest by this failed one.
                if !judge.parked.has(key) && self.keeps(Rule::DrainsLeaveAHead) {
                    writing.set(offset, DeadLetter::Failed);
                }
                return Some(offset);
            }
            match judge.judge(offset) {
                Outcome::Applied => {
                    writing.changes.rows.add(offset);
                    writing.set(offset, DeadLetter::Applied);
                }
                Outcome::Deletes => {
                    writing.changes.rows.add(offset);
                    writing.set(offset, DeadLetter::Applied);
                    self.close(log, offset, writing);
                }
                Outcome::Duplicate => writing.set(offset, DeadLetter::Duplicate),
                Outcome::Failed => {
                    writing.set(offset, DeadLetter::Failed);
                    if !self.keeps(Rule::DrainsStopAtAFailure) {
                        judge.parked.take(key);
                    }
                }
                // The dead letter stays as it was.
                Outcome::Blocked | Outcome::Discarded => {}
            }
        }
        None
    }

    /// The operations that are possible in a state.
    pub(crate) fn operations(&self, state: &State) -> Vec<Operation> {
        let mut operations = Vec::new();
        for version in state.versions() {
            for log in self.logs() {
                if self.scope.retries {
                    operations.extend(self.look(state, version, log).parked.iter().map(|key| {
                        Operation::Retry {
                            version,
                            log,
                            key,
                            from: 0,
                            failed: false,
                        }
                    }));
                }
                if self.scope.discards {
                    operations.extend(state.row(version, log).letters.open().map(|offset| {
                        Operation::Discard {
                            version,
                            log,
                            offset,
                            others: None,
                        }
                    }));
                }
            }
        }
        operations
    }

    /// Adds to a discard the other versions that have a dead letter for the record.
    pub(crate) fn with_others(state: &State, operation: Operation) -> Operation {
        let Operation::Discard {
            version,
            log,
            offset,
            ..
        } = operation
        else {
            return operation;
        };
        let others = state
            .versions()
            .filter(|other| *other != version && state.is_open(*other, log, offset));
        Operation::Discard {
            version,
            log,
            offset,
            others: Some(others.collect()),
        }
    }

    /// Runs an operation up to the COMMIT, or ends it if nothing is left to do.
    pub(crate) fn do_operation(
        &self,
        state: &mut State,
        operator: usize,
        operation: Operation,
        release: Release,
    ) {
        let done = match operation {
            Operation::Retry { .. } => self.retry(state, operation, release),
            Operation::Discard { others: None, .. } => {
                self.discard(state, Self::with_others(state, operation), release)
            }
            Operation::Discard { .. } => self.discard(state, operation, release),
        };
        state.operators[operator] = done.unwrap_or(Operator::Idle);
    }

    fn retry(&self, state: &State, operation: Operation, release: Release) -> Option<Operator> {
        let Operation::Retry {
            version,
            log,
            key,
            from,
            failed,
        } = operation
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
        writing.changes.code = self.noted(release);
        let more = self.drain(&mut judge, log, key, from, &mut writing);
        let mut changes = [None; VERSIONS];
        changes[usize::from(version)] = Some(writing.changes);
        Some(Operator::Done {
            operation,
            rows: state.versions().collect(),
            changes,
            then: more.map(|from| Operation::Retry {
                version,
                log,
                key,
                from,
                failed: judge.parked.has(key),
            }),
        })
    }

    fn discard(&self, state: &State, operation: Operation, release: Release) -> Option<Operator> {
        let Operation::Discard {
            version,
            log,
            offset,
            others,
        } = operation
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
            then = others.last().map(|other| Operation::Discard {
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
            writing.changes.code = self.noted(release);
            writing.set(offset, DeadLetter::Discarded);
            let is_first = writing
                .letters
                .open()
                .all(|other| other > offset || self.key(log, other) != key);
            let is_of_newer_code =
                state.row(version, log).code > release && self.keeps(Rule::RetriesCompareTheCode);
            let is_of_other_code = is_of_newer_code || !self.may_build(state, version, release);
            if is_first && is_of_other_code {
                // The other code finds the rest by the first one, which counts as failed.
                let mut rest = writing.letters.open();
                if let Some(head) = rest.find(|other| self.key(log, *other) == key) {
                    writing.set(head, DeadLetter::Failed);
                }
            } else if is_first {
                let mut judge = self.judge(state, tables, log, release, Set::default());
                let more = self.drain(&mut judge, log, key, 0, &mut writing);
                // The first one is discarded, so a retry from the start makes progress.
                then = then.or(more.map(|_| Operation::Retry {
                    version,
                    log,
                    key,
                    from: 0,
                    failed: false,
                }));
            }
            changes[usize::from(version)] = Some(writing.changes);
        }
        Some(Operator::Done {
            operation,
            rows: state.versions().collect(),
            changes,
            then,
        })
    }

    pub(crate) fn commit_operation(&self, state: &mut State, operator: usize, answered: bool) {
        let Operator::Done {
            operation,
            rows,
            changes,
            then,
        } = state.operators[operator]
        else {
            return;
        };
        let log = operation.log();
        for version in rows.iter() {
            let raises = match changes[usize::from(version)] {
                Some(_) => self.keeps(Rule::DrainsRaiseTheEpoch),
                None => {
                    matches!(operation, Operation::Discard { .. })
                        && self.keeps(Rule::DiscardsFenceAllVersions)
                }
            };
            state.row_mut(version, log).epoch += u8::from(raises);
        }
        for (version, changes) in (0..).zip(&changes) {
            if let Some(changes) = changes {
                self.apply(state, version, log, changes);
            }
        }
        if let Operation::Discard { offset, .. } = operation {
            state.taken_out[usize::from(log)].add(offset);
            if self.keeps(Rule::DiscardsAreKept) {
                state.discards[usize::from(log)].add(offset);
            }
        }
        state.operators[operator] = match then {
            Some(operation) if answered => Operator::About(operation),
            _ => Operator::Idle,
        };
    }

    pub(crate) fn create(&self, state: &mut State, version: u8, code: Release) {
        let view = state.view_mut(version);
        view.standing = ViewState::Building;
        view.code = code;
        if self.keeps(Rule::RowsBeginWithTheCode) {
            view.progress.iter_mut().for_each(|row| row.code = code);
        }
        view.schema = Name::Own(version);
        // A new number means new progress rows, which no earlier claim refers to. Keeping the epoch has
        // the same effect, so the model reuses the number.
        if !self.keeps(Rule::NumbersAreNew) {
            view.progress.iter_mut().for_each(|row| row.epoch = 0);
        }
        state.names[Name::Own(version).index()] = Some(version);
    }

    pub(crate) fn remove(&self, state: &mut State, version: u8) {
        raise_all(state, version);
        // The rest of an operation on the removed version is not continued in a new one.
        if self.keeps(Rule::NumbersAreNew) {
            for operator in &mut state.operators {
                if matches!(operator, Operator::About(operation) if operation.version() == version)
                {
                    *operator = Operator::Idle;
                }
            }
        }
        let View {
            schema, progress, ..
        } = *state.view(version);
        state.names[schema.index()] = None;
        state.tables[usize::from(version)] = [Rows::default(); LOGS];
        state.folded_by[usize::from(version)] = [Release::Old; LOGS];
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
        state.view_mut(former).standing = ViewState::Retired;
        state.view_mut(former).schema = Name::Own(former);
        state.view_mut(version).standing = ViewState::Live;
        state.view_mut(version).schema = Name::Live;
        state.switching = false;
    }
}

impl Protocol {
    /// A release, as far as the scope tells codes apart.
    fn noted(&self, release: Release) -> Release {
        if self.scope.codes {
            release
        } else {
            Release::Old
        }
    }

    /// Lets older code fold the live version.
    pub(crate) fn accept_older_code(&self, state: &mut State) {
        let live = self.keeps(Rule::AcceptanceSparesRebuilds);
        let versions: Vec<u8> = state.versions().collect();
        for version in versions {
            raise_all(state, version);
            let view = state.view_mut(version);
            if view.standing == ViewState::Live || !live {
                view.accepts_older |= view.standing == ViewState::Live;
                view.code = Release::Old;
                view.progress
                    .iter_mut()
                    .for_each(|row| row.code = Release::Old);
            }
        }
    }

    /// Commits the changes of a transaction to tables, dead letters and the row's code.
    fn apply(&self, state: &mut State, version: u8, log: u8, changes: &Changes) {
        let (tables, code) = (usize::from(changes.tables), changes.code);
        for offset in changes.rows.offsets() {
            state.tables[tables][usize::from(log)].add(*offset);
            state.discard_broken |= state.taken_out[usize::from(log)].has(*offset);
            let newest = &mut state.folded_by[tables][usize::from(log)];
            let is_older = code < *newest;
            *newest = code.max(*newest);
            let view = state.view(version);
            let mixes = view.standing == ViewState::Building && code != view.code;
            state.fold_broken |= mixes || (is_older || code < view.code) && !view.accepts_older;
        }
        let row = state.row_mut(version, log);
        row.letters.change(&changes.letters);
        if self.keeps(Rule::CodeIsNoted) {
            row.code = if self.keeps(Rule::CodeIsNeverLowered) {
                code.max(row.code)
            } else {
                code
            };
        }
    }
}

/// Rolls a transaction back. Its owners keep their claims and try again: each alone in the projector, also
/// together in the model.
pub(crate) fn roll_back(state: &mut State, owners: Set) {
    for owner in owners.iter() {
        let owner = &mut state.owners[usize::from(owner)];
        if let Some(batch) = owner.batch() {
            *owner = Owner::Claimed(batch.claim);
        }
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
