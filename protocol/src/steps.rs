//! The transitions of the model: which steps are possible in a state, and the state after each.

use stateright::{Model, Property};

use crate::state::{
    Batch, Claim, LOGS, Name, OWNERS, Operation, Operator, Owner, Set, State, VERSIONS, ViewState,
    owner_name, version_name,
};
use crate::transactions::{CommitEnd, Release, raise_all, roll_back};
use crate::{Protocol, Rule, properties};

/// A step. Owners are numbered as in [`Scope::owners`](crate::Scope::owners), operators up to
/// [`Scope::operators`](crate::Scope::operators).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An owner reads what a claim needs before it locks the row.
    ReadFirst(usize),
    /// An owner claims its partition. This is one step, since the row lock protects all that it reads.
    Claim(usize, Release),
    /// A writer begins a transaction with so many records of each owner, which may be none: it compares and
    /// locks their rows.
    Begin([u8; OWNERS]),
    /// The writer judges these owners' records, and writes rows and dead letters.
    Write(Set, Release),
    /// The writer commits these owners' batches.
    Commit(Set, CommitEnd),
    /// The transaction fails in another way: it is rolled back.
    Fail(Set),
    /// An owner crashes or gives up its partition: its claim is lost. A crash in a transaction is two steps,
    /// of which the first is `Fail`.
    Crash(usize),
    /// An operator plans an operation, and reads what it needs without locks.
    Plan(usize, Operation),
    /// An operator runs the operation in a transaction, up to the COMMIT.
    Do(usize, Operation, Release),
    /// An operator commits.
    CommitOperation(usize),
    /// An operator commits, and the answer is lost: the next transaction of the operation is not run.
    CommitOperationUnanswered(usize),
    /// An operator crashes: its transaction is rolled back, the rest of the operation is not run.
    CrashOperation(usize),
    /// A version is paused.
    Pause(u8),
    /// All versions are resumed.
    Resume,
    /// A version is created, for a rebuild, by this code.
    Create(u8, Release),
    /// An operator lets older code fold the live version.
    AcceptOlderCode,
    /// A version that is not the live one is removed.
    Remove(u8),
    /// A switch finds that this version is not behind, and will not check it again.
    LookBeforeSwitch(u8),
    /// This version becomes the live one.
    Switch(u8),
    /// A read finds its tables.
    FindTables,
    /// The read finds `view_version`, and with it the position of its answer.
    FindVersion,
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::default();
        state.view_mut(0).standing = ViewState::Live;
        state.names[Name::Live.index()] = Some(0);
        self.settle(&mut state);
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for owner in 0..self.scope.owners.len() {
            self.steps_of_owner(state, owner, steps);
            self.begin_with(state, Set::from_iter([owner as u8]), steps);
        }
        for owners in &self.scope.together {
            self.begin_with(state, *owners, steps);
        }
        for operator in 0..self.scope.operators {
            self.steps_of_operator(state, operator, steps);
        }
        if self.scope.pauses {
            self.steps_of_pause(state, steps);
        }
        if self.scope.codes
            && state
                .versions()
                .all(|version| self.is_all_free(state, version))
        {
            steps.push(Step::AcceptOlderCode);
        }
        if self.scope.rebuilds {
            for version in 0..VERSIONS as u8 {
                self.steps_of_rebuild(state, version, steps);
            }
        }
        // A read that names `view_version` first blocks switches until it ends, so it needs no steps.
        if !self.keeps(Rule::ReadsBeginWithTheVersion) {
            steps.push(match state.reading {
                None => Step::FindTables,
                Some(_) => Step::FindVersion,
            });
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = *state;
        match step {
            Step::ReadFirst(owner) => {
                let (version, log) = self.scope.owners[owner];
                next.owners[owner] = Owner::HasRead(Claim {
                    epoch: 0,
                    next: 0,
                    ..self.look(state, version, log)
                });
            }
            Step::Claim(owner, code) => self.claim(&mut next, owner, code),
            Step::Begin(counts) => self.begin(&mut next, counts),
            Step::Write(owners, release) => self.write(&mut next, owners, release),
            Step::Commit(owners, end) => self.commit(&mut next, owners, end),
            Step::Fail(owners) => roll_back(&mut next, owners),
            Step::Crash(owner) => next.owners[owner] = Owner::Idle,
            Step::Plan(operator, operation) => {
                next.operators[operator] = Operator::About(operation)
            }
            Step::Do(operator, operation, release) => {
                self.do_operation(&mut next, operator, operation, release)
            }
            Step::CommitOperation(operator) => self.commit_operation(&mut next, operator, true),
            Step::CommitOperationUnanswered(operator) => {
                self.commit_operation(&mut next, operator, false)
            }
            Step::CrashOperation(operator) => next.operators[operator] = Operator::Idle,
            Step::Pause(version) => {
                next.view_mut(version).paused = true;
                if self.keeps(Rule::PauseRaisesEpochs) {
                    raise_all(&mut next, version);
                }
            }
            Step::Resume => {
                for version in state.versions() {
                    next.view_mut(version).paused = false;
                    if self.keeps(Rule::ResumeRaisesEpochs) {
                        raise_all(&mut next, version);
                    }
                }
            }
            Step::Create(version, code) => self.create(&mut next, version, code),
            Step::AcceptOlderCode => self.accept_older_code(&mut next),
            Step::Remove(version) => self.remove(&mut next, version),
            Step::LookBeforeSwitch(_) => next.switching = true,
            Step::Switch(version) => self.switch(&mut next, version),
            Step::FindTables => next.reading = state.tables_of(Name::Live),
            Step::FindVersion => {
                next.read_broken = state.reading != state.tables_of(Name::Live);
                next.reading = None;
            }
        }
        self.settle(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.scope)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let mut rows = state.views.iter().flat_map(|view| &view.progress);
        self.scope
            .exact_epochs
            .is_none_or(|most| rows.all(|row| row.epoch <= most))
    }

    fn format_action(&self, step: &Step) -> String {
        self.describe_step(*step)
    }
}

impl Protocol {
    fn steps_of_owner(&self, state: &State, owner: usize, steps: &mut Vec<Step>) {
        let (version, log) = self.scope.owners[owner];
        let view = state.view(version);
        let is_free = self.is_free(state, version, log);
        let may_take = view.exists() && (!view.paused || !self.keeps(Rule::PauseKeepsOwnersOut));
        let reads_first = !self.keeps(Rule::LettersAreReadUnderTheLock)
            || !self.keeps(Rule::SchemaIsReadUnderTheLock)
            || !self.keeps(Rule::IdsAreReadUnderTheLock);
        match state.owners[owner] {
            Owner::Idle if reads_first && may_take => steps.push(Step::ReadFirst(owner)),
            Owner::Idle | Owner::HasRead(_) if may_take && is_free => {
                let codes = self.codes().iter();
                let may_fold = codes.filter(|code| self.may_claim(state, version, log, **code));
                steps.extend(may_fold.map(|code| Step::Claim(owner, *code)));
            }
            Owner::Idle | Owner::HasRead(_) => {}
            Owner::Claimed(_) => steps.push(Step::Crash(owner)),
            // The first owner of a transaction stands for all of them.
            Owner::Begun(batch) if batch.owners.first() == Some(owner as u8) => {
                steps.push(Step::Fail(batch.owners));
                let releases = if self.scope.codes {
                    std::slice::from_ref(&batch.claim.code)
                } else {
                    self.releases_of(state, batch.owners)
                };
                steps.extend(
                    releases
                        .iter()
                        .map(|release| Step::Write(batch.owners, *release)),
                );
            }
            Owner::Written(batch, ..) if batch.owners.first() == Some(owner as u8) => {
                steps.push(Step::Fail(batch.owners));
                steps.extend(CommitEnd::ALL.map(|end| Step::Commit(batch.owners, end)));
            }
            Owner::Begun(_) | Owner::Written(..) => {}
        }
    }

    /// The transactions that a writer can begin with batches of all these owners.
    fn begin_with(&self, state: &State, owners: Set, steps: &mut Vec<Step>) {
        let mut batches = vec![[0; OWNERS]];
        for owner in owners.iter().map(usize::from) {
            let (version, log) = self.scope.owners[owner];
            let records = self.records(log).len() as u8;
            let most = match state.owners[owner] {
                Owner::Claimed(claim) if self.is_free(state, version, log) => {
                    let rest = records - claim.next;
                    match self.compare(state, version, log, &claim) {
                        true => rest,
                        // The comparison rejects the batch, whatever its size.
                        false => rest.min(1),
                    }
                }
                _ => 0,
            };
            let with_owner = batches.into_iter().flat_map(|counts| {
                (1..=most).map(move |count| {
                    let mut counts = counts;
                    counts[owner] = count;
                    counts
                })
            });
            batches = with_owner.collect();
        }
        steps.extend(batches.into_iter().map(Step::Begin));
    }

    fn steps_of_operator(&self, state: &State, operator: usize, steps: &mut Vec<Step>) {
        match state.operators[operator] {
            Operator::Idle => {
                for operation in self.operations(state) {
                    if matches!(operation, Operation::Discard { .. })
                        && !self.keeps(Rule::DiscardsLookUnderTheLock)
                    {
                        steps.push(Step::Plan(operator, Self::with_others(state, operation)));
                    } else {
                        self.steps_of_operation(state, operator, operation, steps);
                    }
                }
            }
            Operator::About(operation) => {
                steps.push(Step::CrashOperation(operator));
                self.steps_of_operation(state, operator, operation, steps);
            }
            Operator::Done {
                operation,
                rows,
                then,
                ..
            } => {
                steps.push(Step::CrashOperation(operator));
                // Raising an epoch also waits for the row.
                if rows
                    .iter()
                    .all(|version| self.is_free_of_owners(state, version, operation.log()))
                {
                    if then.is_some() {
                        steps.push(Step::CommitOperationUnanswered(operator));
                    }
                    steps.push(Step::CommitOperation(operator));
                }
            }
        }
    }

    fn steps_of_operation(
        &self,
        state: &State,
        operator: usize,
        operation: Operation,
        steps: &mut Vec<Step>,
    ) {
        let log = operation.log();
        if !self.keeps(Rule::DrainsTakeTheRow)
            || state
                .versions()
                .all(|version| self.is_free(state, version, log))
        {
            let releases = self.releases(log, 0..self.records(log).len() as u8);
            let row = state.row(operation.version(), log);
            steps.extend(
                releases
                    .iter()
                    .filter(|code| row.code <= **code || !self.keeps(Rule::RetriesCompareTheCode))
                    .filter(|code| self.may_build(state, operation.version(), **code))
                    .map(|release| Step::Do(operator, operation, *release)),
            );
        }
    }

    fn steps_of_pause(&self, state: &State, steps: &mut Vec<Step>) {
        let can_take = |version: u8| self.is_all_free(state, version);
        let (paused, running): (Vec<u8>, Vec<u8>) = state
            .versions()
            .partition(|version| state.view(*version).paused);
        steps.extend(
            running
                .into_iter()
                .filter(|version| can_take(*version))
                .map(Step::Pause),
        );
        if !paused.is_empty() && state.versions().all(can_take) {
            steps.push(Step::Resume);
        }
    }

    fn steps_of_rebuild(&self, state: &State, version: u8, steps: &mut Vec<Step>) {
        let other = 1 - version;
        let standing = state.view(version).standing;
        match standing {
            ViewState::Live => return,
            ViewState::Absent => {
                let waits = self.keeps(Rule::RebuildsWaitForDiscards);
                let is_free = !waits
                    || self
                        .logs()
                        .all(|log| self.is_free_of_operators(state, other, log));
                // Without the rule, a number is reused only if it was the highest.
                if is_free && (self.keeps(Rule::NumbersAreNew) || version > other) {
                    steps.extend(self.codes().iter().map(|code| Step::Create(version, *code)));
                }
                return;
            }
            ViewState::Building | ViewState::Retired => {}
        }
        if self.is_all_free(state, version) {
            steps.push(Step::Remove(version));
        }
        let takes = self.keeps(Rule::SwitchTakesProgress);
        let is_free = !takes
            || [version, other]
                .into_iter()
                .all(|version| self.is_all_free(state, version));
        // A retry has read `view_version`, which the switch locks.
        let is_locked = state
            .operators
            .iter()
            .any(|operator| matches!(operator, Operator::Done { .. }));
        let (this, live) = (state.view(version), state.view(other));
        let is_behind = this
            .progress
            .iter()
            .zip(&live.progress)
            .any(|(this, live)| this.next < live.next);
        let is_refused = is_behind && self.keeps(Rule::SwitchWaitsForPositions);
        let looks_under_lock = self.keeps(Rule::SwitchLooksUnderTheLock);
        if is_free
            && !is_locked
            && (if looks_under_lock {
                !is_refused
            } else {
                state.switching
            })
        {
            steps.push(Step::Switch(version));
        }
        if !looks_under_lock && !state.switching && !is_refused {
            steps.push(Step::LookBeforeSwitch(version));
        }
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = u8> {
        (0..LOGS as u8).filter(|log| !self.records(*log).is_empty())
    }

    /// The codes that owners and rebuilds may have.
    fn codes(&self) -> &'static [Release] {
        if self.scope.codes {
            &[Release::New, Release::Old]
        } else {
            &[Release::Old]
        }
    }

    /// Whether code may claim a partition: it has joined the version, and newer code has not folded there.
    fn may_claim(&self, state: &State, version: u8, log: u8, code: Release) -> bool {
        (state.view(version).code <= code || !self.keeps(Rule::OwnersJoinNoNewerVersion))
            && self.may_build(state, version, code)
            && (state.row(version, log).code <= code || !self.keeps(Rule::ClaimsCompareTheCode))
    }

    /// Whether code may fold a version as far as it is being built: a rebuild is the work of one fold.
    pub(crate) fn may_build(&self, state: &State, version: u8, code: Release) -> bool {
        let view = state.view(version);
        view.standing != ViewState::Building
            || view.code == code
            || !self.scope.codes
            || !self.keeps(Rule::RebuildsAreOfOneCode)
    }

    /// The releases to try: only the new one where both read these records alike.
    fn releases(&self, log: u8, mut offsets: std::ops::Range<u8>) -> &'static [Release] {
        if offsets.any(|offset| self.records(log)[usize::from(offset)].late) {
            &[Release::New, Release::Old]
        } else {
            &[Release::New]
        }
    }

    /// The releases to try for a transaction with batches of these owners.
    fn releases_of(&self, state: &State, owners: Set) -> &'static [Release] {
        let of_batches = owners.iter().map(usize::from).filter_map(|owner| {
            let Batch { claim, count, .. } = state.owners[owner].batch()?;
            let (_, log) = self.scope.owners[owner];
            Some(self.releases(log, claim.next..claim.next + count))
        });
        of_batches
            .max_by_key(|releases| releases.len())
            .unwrap_or_default()
    }

    /// Whether no transaction locks a progress row.
    fn is_free(&self, state: &State, version: u8, log: u8) -> bool {
        self.is_free_of_owners(state, version, log)
            && self.is_free_of_operators(state, version, log)
    }

    fn is_free_of_owners(&self, state: &State, version: u8, log: u8) -> bool {
        let mut owners = self.scope.owners.iter().zip(&state.owners);
        !self.keeps(Rule::BatchesTakeTheRow)
            || !owners.any(|(of, owner)| *of == (version, log) && owner.batch().is_some())
    }

    fn is_free_of_operators(&self, state: &State, version: u8, log: u8) -> bool {
        !self.keeps(Rule::DrainsTakeTheRow)
            || !state.operators.iter().any(
                |operator| matches!(operator, Operator::Done { operation, rows, .. } if operation.log() == log && rows.has(version)),
            )
    }

    /// Whether no transaction locks any progress row of a version.
    fn is_all_free(&self, state: &State, version: u8) -> bool {
        self.logs().all(|log| self.is_free(state, version, log))
    }

    /// Ends a step: records what a reader may have seen, and merges states that behave alike.
    ///
    /// Epochs only rise, and are only compared for equality. So the model keeps only whether a claim's
    /// epoch equals the row's, which keeps the states few and the number of claims unbounded.
    fn settle(&self, state: &mut State) {
        if let Some(version) = state.tables_of(Name::Live) {
            let progress = state.view(version).progress;
            for (shown, row) in state.shown.iter_mut().zip(progress) {
                *shown = (*shown).max(row.next);
            }
        }
        if self.scope.exact_epochs.is_some() {
            return;
        }
        for (owner, (version, log)) in self.scope.owners.iter().enumerate() {
            let epoch = state.row(*version, *log).epoch;
            let owner = &mut state.owners[owner];
            if let Owner::Claimed(claim)
            | Owner::Begun(Batch { claim, .. })
            | Owner::Written(Batch { claim, .. }, ..) = owner
            {
                claim.epoch = u8::from(claim.epoch == epoch);
            }
            // The comparison rejects a superseded claim, so its content has no effect.
            if let Owner::Claimed(claim) = owner
                && claim.epoch == 0
                && self.keeps(Rule::EpochIsCompared)
                && self.keeps(Rule::OnlyReturnedAreWritten)
                && self.keeps(Rule::SchemaIsOfAReturnedClaim)
            {
                *claim = Claim::default();
            }
        }
        for row in state.views.iter_mut().flat_map(|view| &mut view.progress) {
            row.epoch = 1;
        }
    }

    fn describe_step(&self, step: Step) -> String {
        let owner = |owner: usize| {
            let (version, log) = self.scope.owners[owner];
            format!(
                "{}, owner of {}/{log},",
                owner_name(owner),
                version_name(version)
            )
        };
        let writer = |owners: Set| {
            let names: Vec<String> = owners
                .iter()
                .map(|owner| owner_name(usize::from(owner)).to_string())
                .collect();
            format!("the writer of {}", names.join(" and "))
        };
        let operator = |operator: usize| ["an operator", "another operator"][operator];
        let release = |release: Release| match release {
            Release::Old => "with the old release",
            Release::New => "with the new release",
        };
        let operation = |operation: Operation| match operation {
            Operation::Retry {
                version,
                log,
                key,
                from,
                ..
            } => {
                format!(
                    "retry key {key} of {}/{log} from {from} on",
                    version_name(version)
                )
            }
            Operation::Discard {
                version,
                log,
                offset,
                ..
            } => {
                format!("discard record {offset} of {}/{log}", version_name(version))
            }
        };
        match step {
            Step::ReadFirst(o) => format!("{} reads dead letters, ids and schema", owner(o)),
            Step::Claim(o, Release::Old) => format!("{} claims the partition", owner(o)),
            Step::Claim(o, Release::New) => {
                format!("{} claims the partition with newer code", owner(o))
            }
            Step::Begin(counts) => {
                let owners = (0..).zip(counts).filter(|(_, count)| *count > 0);
                let (owners, counts): (Vec<u8>, Vec<String>) = owners
                    .map(|(owner, count)| (owner, count.to_string()))
                    .unzip();
                let owners = writer(owners.into_iter().collect());
                format!("{owners} begins a batch of {}", counts.join(" and "))
            }
            Step::Write(o, r) => format!("{} writes, {}", writer(o), release(r)),
            Step::Commit(o, CommitEnd::Answered) => format!("{} commits", writer(o)),
            Step::Commit(o, CommitEnd::Unanswered) => {
                format!("{} commits, and gets no answer", writer(o))
            }
            Step::Commit(o, CommitEnd::WithoutEffect) => {
                format!("{} commits without effect, and gets no answer", writer(o))
            }
            Step::Fail(o) => format!("{} rolls back", writer(o)),
            Step::Crash(o) => format!("{} crashes", owner(o)),
            Step::Plan(k, e) => format!("{} plans to {}", operator(k), operation(e)),
            Step::Do(k, e, r) => {
                format!("{} begins to {}, {}", operator(k), operation(e), release(r))
            }
            Step::CommitOperation(k) => format!("{} commits", operator(k)),
            Step::CommitOperationUnanswered(k) => {
                format!("{} commits, and gets no answer", operator(k))
            }
            Step::CrashOperation(k) => format!("{} crashes", operator(k)),
            Step::Pause(version) => format!("{} is paused", version_name(version)),
            Step::Resume => "all versions are resumed".to_owned(),
            Step::Create(version, Release::Old) => format!("{} is created", version_name(version)),
            Step::Create(version, Release::New) => {
                format!("{} is created by newer code", version_name(version))
            }
            Step::AcceptOlderCode => "older code is accepted".to_owned(),
            Step::Remove(version) => format!("{} is removed", version_name(version)),
            Step::LookBeforeSwitch(version) => {
                format!("{} is found not to be behind", version_name(version))
            }
            Step::Switch(version) => format!("{} becomes the live one", version_name(version)),
            Step::FindTables => "a read finds its tables".to_owned(),
            Step::FindVersion => "the read finds its version, and answers".to_owned(),
        }
    }
}
