//! The protocol by which sightline projects, as a model small enough that a checker walks through all that can happen.
//!
//! The rules are those of `src/projector` and its SQL: what a batch compares, what raises an epoch, who takes which
//! rows, what an owner may keep in memory. Tests there show that the code does what it should in the orders of events
//! that somebody thought of; here all orders are tried, of few records, owners and versions. `docs/protocol.md` tells
//! what is modelled, what is not, and what came of it.
//!
//! [`state`] is what there is at a moment, [`steps`] what can happen next, [`properties`] what has to hold. Each [`Rule`]
//! can be left out: the checker then has to find how that goes wrong, or the rule, or the model, is not worth much.

use std::fmt::Write;

use stateright::{Checker, HasDiscoveries, Model, Path};

pub mod properties;
pub mod state;
pub mod steps;
pub mod transactions;

use state::State;
use steps::Step;

/// A record of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key: events of one key keep their order.
    pub key: u8,
    /// Its event's id. The same event may be sent again in a later record.
    pub id: u8,
    /// Only a later release understands it.
    pub late: bool,
    /// It deletes its user.
    pub deletes: bool,
}

impl Record {
    /// A record that every release understands.
    pub fn new(key: u8, id: u8) -> Self {
        Record {
            key,
            id,
            ..Record::default()
        }
    }

    /// The same, understood by later releases only.
    pub fn late(self) -> Self {
        Record { late: true, ..self }
    }

    /// The same, deleting its user.
    pub fn deletes(self) -> Self {
        Record {
            deletes: true,
            ..self
        }
    }
}

/// Who takes part, and in what.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The records of each partition: to [`state::LOGS`] partitions, to [`state::RECORDS`] records in each.
    pub logs: Vec<Vec<Record>>,
    /// Those who project, to [`state::OWNERS`]: each a version and a partition. Of two with the same, one is a zombie, or
    /// will be.
    pub owners: Vec<(u8, u8)>,
    /// How many retry and discard, to [`state::KEEPERS`].
    pub operators: usize,
    /// Whether letters are tried again.
    pub retries: bool,
    /// How many of them in one transaction.
    pub letters_at_a_time: usize,
    /// Whether letters are taken out.
    pub discards: bool,
    /// Whether the view is paused and resumed.
    pub pauses: bool,
    /// Whether versions are made, switched and removed.
    pub rebuilds: bool,
    /// Where epochs are to be numbers, up to which. Otherwise it is only told apart whether they are the row's (`settle`
    /// in `steps.rs`), and nothing has an end.
    pub exact_epochs: Option<u8>,
    /// Whether is remembered what no state shows. It makes more states, so it is for a small scope.
    pub remembers: bool,
}

/// A rule of the protocol, and where the projector keeps it, or should. `docs/protocol.md` tells what happens without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A batch begins with a comparison of the row's epoch (`sql/lock_progress.sql`).
    EpochIsCompared,
    /// And of its position.
    OffsetIsCompared,
    /// That locks the row until the transaction ends.
    BatchesTakeTheRow,
    /// Taking over raises the epoch (`sql/take_over.sql`).
    ClaimsRaiseTheEpoch,
    /// Parked keys and discards are read after that, under the row's lock (`progress.rs`).
    LettersAreReadUnderTheLock,
    /// So is the schema's name.
    SchemaIsReadUnderTheLock,
    /// An owner that gets no answer to a COMMIT takes over anew (`worker.rs`).
    UnansweredMeansUnknown,
    /// Ids of applied events are remembered with the rows (`sql/remember_events.sql`).
    IdsAreRemembered,
    /// Later events of a parked key become letters (`batch.rs`).
    ParkedKeysHoldBack,
    /// A user's deletion closes what waited before it (`sql/close_letters.sql`).
    DeletionsCloseLetters,
    /// Retries and discards take the progress row before they look at letters (`retry.rs`).
    DrainsTakeTheRow,
    /// And raise its epoch.
    DrainsRaiseTheEpoch,
    /// A key's letters are tried up to the first that fails again.
    DrainsStopAtAFailure,
    /// What a transaction leaves of a key to a later one is found should that never come: its first letter counts as one
    /// that failed (`sql/outdated_letters.sql`).
    DrainsLeaveAHead,
    /// What an operator takes out is kept by its coordinates, for versions that come to it later
    /// (`sql/discard_letters.sql`).
    DiscardsAreKept,
    /// And the owners of all versions are fenced, so that they learn of it.
    DiscardsFenceAllVersions,
    /// Which other versions have a letter for the record is read when their rows are taken.
    DiscardsLookUnderTheLock,
    /// A record is taken out of all versions in one transaction.
    DiscardsAreOneTransaction,
    /// A version is not made while a discard is under way that does not know of it (`versions.rs`).
    RebuildsWaitForDiscards,
    /// No version has the number of one that was removed (`sightline.domains`).
    NumbersAreNew,
    /// A pause raises epochs (`pause.rs`).
    PauseRaisesEpochs,
    /// A paused version can't be taken over (`progress.rs`).
    PauseKeepsOwnersOut,
    /// Going on raises epochs.
    ResumeRaisesEpochs,
    /// A switch takes the progress rows of both versions, and raises their epochs (`versions.rs`).
    SwitchTakesProgress,
    /// The second half of that.
    SwitchRaisesEpochs,
    /// A switch is refused to a version that is behind (`sql/first_behind.sql`).
    SwitchWaitsForPositions,
    /// That is looked at under the rows' locks.
    SwitchLooksUnderTheLock,
    /// A read finds `view_version`, which a switch locks, before it finds any other table (`domains/*/sql`).
    ReadsBeginWithTheVersion,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 28] = [
        Rule::EpochIsCompared,
        Rule::OffsetIsCompared,
        Rule::BatchesTakeTheRow,
        Rule::ClaimsRaiseTheEpoch,
        Rule::LettersAreReadUnderTheLock,
        Rule::SchemaIsReadUnderTheLock,
        Rule::UnansweredMeansUnknown,
        Rule::IdsAreRemembered,
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
    ];
}

/// The model: a scope, and the rules that are left out.
#[derive(Clone, Debug, Default)]
pub struct Protocol {
    /// Who takes part.
    pub scope: Scope,
    /// What they don't keep to.
    pub left_out: Vec<Rule>,
}

impl Protocol {
    /// Whether a rule is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        !self.left_out.contains(&rule)
    }

    /// Walks through all states, with so many threads.
    pub fn check(&self, threads: usize) -> impl Checker<Self> + use<> {
        self.clone().checker().threads(threads).spawn_bfs().join()
    }

    /// The fewest steps that break a property that should hold always, or reach one that should be possible. None where
    /// none do.
    pub fn shortest(&self, property: &'static str) -> Option<Path<State, Step>> {
        // Of what it finds at one go the checker does not keep the first.
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

    /// What happens on a path, a line for each step: who does what, and what is in the database then.
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
