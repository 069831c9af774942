//! A model of the projector's protocol, small enough for a checker to visit every reachable state.
//!
//! The rules are those of `src/projector` and its SQL: what a batch compares, what raises an epoch,
//! which rows a transaction locks, what an owner may keep in memory. The checker tries every order
//! of steps, with few records, owners and versions. `docs/protocol.md` describes scope and results.
//!
//! [`state`] holds the model's state, [`steps`] its transitions, [`properties`] what must hold.
//! Each [`Rule`] can be left out; a test then expects the checker to find the resulting violation.

use std::fmt::Write;

use stateright::{Checker, HasDiscoveries, Model, Path};

pub mod added;
pub mod ends;
pub mod properties;
pub mod state;
pub mod steps;
pub mod transactions;

use state::{Set, State};
use steps::Step;

/// A record of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The record's key: events of one key keep their order.
    pub key: u8,
    /// The event's id. A later record may carry the same event.
    pub id: u8,
    /// Only the new release can read it.
    pub late: bool,
    /// The event deletes its user.
    pub deletes: bool,
}

impl Record {
    /// A record that both releases can read.
    pub fn new(key: u8, id: u8) -> Self {
        Record {
            key,
            id,
            ..Record::default()
        }
    }

    /// The same record, readable by the new release only.
    pub fn late(self) -> Self {
        Record { late: true, ..self }
    }

    /// The same record, as a deletion of its user.
    pub fn deletes(self) -> Self {
        Record {
            deletes: true,
            ..self
        }
    }
}

/// The size of the model: its records, its actors, and the kinds of steps that they take.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The records of each partition: at most [`state::LOGS`] partitions, [`state::RECORDS`] records each.
    pub logs: Vec<Vec<Record>>,
    /// The version and partition of each owner, at most [`state::OWNERS`]. Of two owners of the same
    /// partition, at most one has a valid claim; the other is a zombie.
    pub owners: Vec<(u8, u8)>,
    /// Sets of owners whose batches a writer may commit in one transaction: owners of one process and
    /// version. The batch of each owner may also be committed alone.
    pub together: Vec<Set>,
    /// How many operators retry and discard, at most [`state::OPERATORS`].
    pub operators: usize,
    /// Whether dead letters are retried.
    pub retries: bool,
    /// How many dead letters one transaction retries.
    pub letters_at_a_time: usize,
    /// Whether dead letters are discarded.
    pub discards: bool,
    /// Whether the view is paused and resumed.
    pub pauses: bool,
    /// Whether versions are created, switched and removed.
    pub rebuilds: bool,
    /// Whether owners and rebuilds have the old or the new code, which rows and versions note. Otherwise
    /// each transaction chooses a release, and none is noted.
    pub codes: bool,
    /// Keeps epochs as numbers, up to this one. With `None` the model keeps only whether a claim's
    /// epoch equals the row's (`settle` in `steps.rs`), so the number of claims is unbounded.
    pub exact_epochs: Option<u8>,
    /// Whether the state also records past events that some properties ask for. This multiplies the
    /// states, so it suits small scopes only.
    pub remembers: bool,
}

/// A rule of the protocol, and where the projector implements it. `docs/protocol.md` shows what breaks
/// without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A batch first compares its claim's epoch with the progress row's (`sql/lock_progress.sql`).
    EpochIsCompared,
    /// The same statement compares the position.
    OffsetIsCompared,
    /// The same statement locks the row until the transaction ends.
    BatchesTakeTheRow,
    /// Of the partitions of a transaction, only those whose rows this statement returned are judged and
    /// written; the others are fenced (`writer.rs`).
    OnlyReturnedAreWritten,
    /// The tables are those of the schema that a claim of a returned row names (`writer.rs`).
    SchemaIsOfAReturnedClaim,
    /// Claiming a partition raises the epoch (`sql/claim_partitions.sql`).
    ClaimsRaiseTheEpoch,
    /// A claim reads parked keys and discards under the row's lock, after it raised the epoch
    /// (`progress.rs`).
    LettersAreReadUnderTheLock,
    /// A claim reads the schema's name under the same lock.
    SchemaIsReadUnderTheLock,
    /// An owner that gets no answer to a COMMIT claims the partition again (`worker.rs`).
    UnansweredMeansUnknown,
    /// All owners in the transaction do so, not only one of them (`writer.rs`).
    UnansweredConcernsAll,
    /// A batch stores the ids of applied events in the transaction that writes the rows
    /// (`ids/mod.rs`).
    IdsAreRemembered,
    /// A claim reads which ids there are under the row's lock (`progress.rs`): until the epoch changes, others are new.
    IdsAreReadUnderTheLock,
    /// An owner adds the ids of each batch that it knows to be committed (`batch.rs`).
    CommittedIdsAreAdded,
    /// Later events of a parked key become dead letters (`batch.rs`).
    ParkedKeysHoldBack,
    /// A user's deletion closes the user's earlier dead letters (`sql/close_dead_letters.sql`).
    DeletionsCloseLetters,
    /// Retries and discards lock the progress row before they read dead letters
    /// (`dead_letters/retry.rs`).
    DrainsTakeTheRow,
    /// Retries and discards raise the epoch of the row.
    DrainsRaiseTheEpoch,
    /// A retry stops at the first dead letter of a key that fails again.
    DrainsStopAtAFailure,
    /// If a retry is cut short between two transactions, maintenance finds the rest: the key's first
    /// open dead letter counts as failed (`sql/dead_letters_due.sql`).
    DrainsLeaveAHead,
    /// A discard is stored by the record's coordinates, for versions that reach the record later
    /// (`sql/discard_dead_letters.sql`).
    DiscardsAreKept,
    /// A discard raises the epochs of all versions, so that every owner reads it.
    DiscardsFenceAllVersions,
    /// A discard looks for dead letters of other versions after it locked their progress rows.
    DiscardsLookUnderTheLock,
    /// One transaction discards the record in all versions.
    DiscardsAreOneTransaction,
    /// Creating a version waits for discards in progress, which do not cover it (`versions.rs`).
    RebuildsWaitForDiscards,
    /// A new version never reuses the number of a removed one (`sightline.domains`).
    NumbersAreNew,
    /// A pause raises epochs (`pause.rs`).
    PauseRaisesEpochs,
    /// Partitions of a paused version can't be claimed (`progress.rs`).
    PauseKeepsOwnersOut,
    /// A resume raises epochs (`pause.rs`).
    ResumeRaisesEpochs,
    /// A switch locks the progress rows of both versions (`versions.rs`). Without this rule it does not
    /// raise their epochs either.
    SwitchTakesProgress,
    /// A switch raises the epochs of the rows that it locks.
    SwitchRaisesEpochs,
    /// A switch is refused while the new version is behind the live one (`sql/first_behind.sql`).
    SwitchWaitsForPositions,
    /// A switch checks that under the rows' locks.
    SwitchLooksUnderTheLock,
    /// A read names `view_version`, which a switch locks, before any other table (`domains/*/sql`).
    ReadsBeginWithTheVersion,
    /// A claim is refused where newer code has folded (`sql/claim_partitions.sql`).
    ClaimsCompareTheCode,
    /// So are retries and discards (`dead_letters/retry.rs`).
    RetriesCompareTheCode,
    /// A transaction that folds notes its code in the progress row (`sql/advance_progress.sql`).
    CodeIsNoted,
    /// It does not lower the code that is noted there.
    CodeIsNeverLowered,
    /// A process does not join the group of a version that newer code began (`members.rs`).
    OwnersJoinNoNewerVersion,
    /// A version's progress rows begin with the code that began it (`sql/copy_starts.sql`).
    RowsBeginWithTheCode,
    /// No other code than the one that began a rebuild folds it, newer code neither (`members.rs`,
    /// `sql/claim_partitions.sql`).
    RebuildsAreOfOneCode,
    /// `acceptOlderCode` lowers the code version of the live view only, because a rebuild is the work
    /// of one code version (`sql/accept_older_code.sql`).
    AcceptanceSparesRebuilds,
}

impl Rule {
    /// All rules.
    pub const ALL: [Rule; 41] = [
        Rule::EpochIsCompared,
        Rule::OffsetIsCompared,
        Rule::BatchesTakeTheRow,
        Rule::OnlyReturnedAreWritten,
        Rule::SchemaIsOfAReturnedClaim,
        Rule::ClaimsRaiseTheEpoch,
        Rule::LettersAreReadUnderTheLock,
        Rule::SchemaIsReadUnderTheLock,
        Rule::UnansweredMeansUnknown,
        Rule::UnansweredConcernsAll,
        Rule::IdsAreRemembered,
        Rule::IdsAreReadUnderTheLock,
        Rule::CommittedIdsAreAdded,
        Rule::ParkedKeysHoldBack,
        Rule::DeletionsCloseLetters,
        Rule::DrainsTakeTheRow,
        Rule::DrainsRaiseTheEpoch,
        Rule::DrainsStopAtAFailure,
        Rule::DrainsLeaveAHead,
        Rule::DiscardsAreKept,
        Rule::DiscardsFenceAllVersions,
        Rule::DiscardsLookUnderTheLock,
        Rule::DiscardsAreOneTransaction,
        Rule::RebuildsWaitForDiscards,
        Rule::NumbersAreNew,
        Rule::PauseRaisesEpochs,
        Rule::PauseKeepsOwnersOut,
        Rule::ResumeRaisesEpochs,
        Rule::SwitchTakesProgress,
        Rule::SwitchRaisesEpochs,
        Rule::SwitchWaitsForPositions,
        Rule::SwitchLooksUnderTheLock,
        Rule::ReadsBeginWithTheVersion,
        Rule::ClaimsCompareTheCode,
        Rule::RetriesCompareTheCode,
        Rule::CodeIsNoted,
        Rule::CodeIsNeverLowered,
        Rule::OwnersJoinNoNewerVersion,
        Rule::RowsBeginWithTheCode,
        Rule::RebuildsAreOfOneCode,
        Rule::AcceptanceSparesRebuilds,
    ];
}

/// The model: a scope, and the rules that are left out.
#[derive(Clone, Debug, Default)]
pub struct Protocol {
    /// The size of the model.
    pub scope: Scope,
    /// The rules that the model does not follow.
    pub left_out: Vec<Rule>,
}

impl Protocol {
    /// Whether the model follows a rule.
    pub fn keeps(&self, rule: Rule) -> bool {
        !self.left_out.contains(&rule)
    }

    /// Visits all reachable states, with `threads` threads.
    pub fn check(&self, threads: usize) -> impl Checker<Self> + use<> {
        self.clone().checker().threads(threads).spawn_bfs().join()
    }

    /// The shortest path that violates an `always` property or reaches a `sometimes` property. `None`
    /// if there is no such path.
    pub fn shortest(&self, property: &'static str) -> Option<Path<State, Step>> {
        // The first discovery of an unbounded search need not be the shortest, so the depth grows by one.
        for depth in 1.. {
            let checker = self
                .clone()
                .checker()
                .target_max_depth(depth)
                .finish_when(HasDiscoveries::AllOf([property].into()))
                .spawn_bfs()
                .join();
            if let Some(path) = checker.discovery(property) {
                return Some(path);
            }
            if checker.max_depth() < depth {
                return None;
            }
        }
        None
    }

    /// Describes a path, one line per step: the actor and its action, and the database where it changed.
    pub fn describe(&self, path: Path<State, Step>) -> String {
        let steps = path.into_vec();
        let mut text = String::new();
        let mut before = String::new();
        for (number, (state, step)) in steps.iter().enumerate() {
            let now = state.to_string();
            if now != before {
                let _ = writeln!(text, "         {now}");
                before = now;
            }
            if let Some(step) = step {
                let _ = writeln!(text, "{:4}. {}", number + 1, self.format_action(step));
            }
        }
        text
    }
}
