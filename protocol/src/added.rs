//! A third model: partitions that are added to a topic, while a producer still writes a key to the older
//! ones. Keys don't depend on each other, so there is one, which moves to each added partition.
//!
//! The rules are those of `src/projector/added_partitions.rs`. Time is counted from each partition's first
//! sight up to the settle time, before which the producer has learned of the partition.

use stateright::{Checker, Model, Property};

/// The partitions: one from the start, the others added one after the other.
pub const PARTITIONS: usize = 3;
/// The versions: one from the start, the other made at any time, as a rebuild or a domain deployed later.
const VERSIONS: usize = 2;

/// A rule, and where the projector implements it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedRule {
    /// An added partition waits for older ones (`sightline.waits_for_partitions`).
    AddedPartitionsWait,
    /// The ends that it waits for are read after the settle time, not at first sight.
    EndsAreReadAfterTheSettleTime,
    /// A reading that began before the settle time was over does not count.
    ReadingsBeginAfterTheSettleTime,
    /// The ends are kept with the partition, for all versions. Without it each version uses the reading at
    /// hand when it first sees the partition.
    EndsAreKeptWithThePartition,
    /// It waits for all older partitions, those that were added before it included.
    AllOlderPartitionsCount,
}

/// In every version, whenever it was made.
pub const ORDER: &str = "each version applies a key's events in the producer's order";
/// The key has moved twice, and both versions have applied all.
pub const ALL_APPLIED: &str = "both versions apply events of all partitions";
/// A version waits while a partition settles.
pub const WAITED: &str = "records of an added partition wait";

/// The model: its size, and the rules that are left out.
#[derive(Clone, Debug)]
pub struct Added {
    /// How many events the producer writes.
    pub events: u8,
    /// The settle time, in ticks.
    pub settle: u8,
    /// The rules that the model does not follow.
    pub left_out: Vec<AddedRule>,
}

/// The log end offsets of all partitions.
type LogEnds = [u8; PARTITIONS];

/// A version of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Version {
    exists: bool,
    positions: LogEnds,
    /// The ends of its own, without the rule that they are kept with the partition.
    waits_for: [Option<LogEnds>; PARTITIONS],
    /// How many events it has applied.
    applied: u8,
    /// It has applied an event before an earlier one.
    broken: bool,
}

/// The topic, the producer, what is known of the partitions, and the versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// How many partitions were added.
    added: usize,
    /// The ticks since each was first seen, up to the settle time.
    ages: [u8; PARTITIONS],
    /// The last partition that the producer knows.
    known: usize,
    /// The records of each partition. The producer never goes back, so all records of a partition come before
    /// those of the next.
    ends: LogEnds,
    /// The last reading of the log end offsets, and the ages at that time.
    reading: Option<(LogEnds, [u8; PARTITIONS])>,
    /// The ends that each partition waits for.
    waits_for: [Option<LogEnds>; PARTITIONS],
    versions: [Version; VERSIONS],
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A partition is added, and seen.
    Add,
    /// The producer learns of the next partition.
    Learn,
    /// The producer writes the next event.
    Write,
    /// Time passes.
    Tick,
    /// The log end offsets are read.
    Read,
    /// The ends that a partition waits for are stored.
    Settle(usize),
    /// The second version is made.
    Create,
    /// A version applies the next record of a partition.
    Apply(usize, usize),
}

impl Added {
    fn keeps(&self, rule: AddedRule) -> bool {
        !self.left_out.contains(&rule)
    }

    /// Visits all reachable states.
    pub fn check(&self) -> impl Checker<Self> + use<> {
        self.clone().checker().spawn_bfs().join()
    }

    /// The ends that a partition has to wait for, if they can be told from the last reading.
    fn settled(&self, state: &State, partition: usize) -> Option<LogEnds> {
        let (ends, ages) = state.reading?;
        let in_time = self.keeps(AddedRule::EndsAreReadAfterTheSettleTime);
        let reads_later = self.keeps(AddedRule::ReadingsBeginAfterTheSettleTime);
        let is_settled = !in_time
            || state.ages[partition] == self.settle
                && (!reads_later || ages[partition] == self.settle);
        is_settled.then_some(ends)
    }

    /// Whether a version may project a partition.
    fn may_project(&self, state: &State, version: &Version, partition: usize) -> bool {
        if partition == 0 || !self.keeps(AddedRule::AddedPartitionsWait) {
            return true;
        }
        let ends = if self.keeps(AddedRule::EndsAreKeptWithThePartition) {
            state.waits_for[partition]
        } else {
            version.waits_for[partition]
        };
        let first = if self.keeps(AddedRule::AllOlderPartitionsCount) {
            0..partition
        } else {
            0..1
        };
        ends.is_some_and(|ends| first.into_iter().all(|p| version.positions[p] >= ends[p]))
    }
}

impl Model for Added {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::default();
        state.versions[0].exists = true;
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.added + 1 < PARTITIONS {
            steps.push(Step::Add);
        }
        if state.known < state.added {
            steps.push(Step::Learn);
        }
        if state.ends.iter().sum::<u8>() < self.events {
            steps.push(Step::Write);
        }
        let unsettled = |partition: &usize| state.ages[*partition] < self.settle;
        // The producer learns of a partition before the settle time is over.
        let must_learn = (state.known + 1..=state.added).any(|p| state.ages[p] + 1 >= self.settle);
        if (1..=state.added).any(|p| unsettled(&p)) && !must_learn {
            steps.push(Step::Tick);
        }
        if state.added > 0 && state.reading != Some((state.ends, state.ages)) {
            steps.push(Step::Read);
        }
        for partition in 1..=state.added {
            if state.waits_for[partition].is_none() && self.settled(state, partition).is_some() {
                steps.push(Step::Settle(partition));
            }
        }
        if !state.versions[1].exists {
            steps.push(Step::Create);
        }
        for (number, version) in state.versions.iter().enumerate() {
            let can_apply = |partition: &usize| {
                version.exists
                    && version.positions[*partition] < state.ends[*partition]
                    && self.may_project(state, version, *partition)
            };
            let partitions = (0..=state.added).filter(can_apply);
            steps.extend(partitions.map(|partition| Step::Apply(number, partition)));
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = *state;
        match step {
            Step::Add => next.added += 1,
            Step::Learn => next.known += 1,
            Step::Write => next.ends[state.known] += 1,
            Step::Tick => {
                for age in &mut next.ages[1..=state.added] {
                    *age = (*age + 1).min(self.settle);
                }
            }
            Step::Read => next.reading = Some((state.ends, state.ages)),
            Step::Settle(partition) => {
                let ends = self.settled(state, partition);
                next.waits_for[partition] = ends;
                for version in next.versions.iter_mut().filter(|version| version.exists) {
                    version.waits_for[partition] = version.waits_for[partition].or(ends);
                }
            }
            Step::Create => {
                let version = &mut next.versions[1];
                version.exists = true;
                for partition in 1..=state.added {
                    version.waits_for[partition] = state.reading.map(|(ends, _)| ends);
                }
            }
            Step::Apply(number, partition) => {
                let before: u8 = state.ends[..partition].iter().sum();
                let version = &mut next.versions[number];
                let event = before + version.positions[partition];
                version.broken |= event != version.applied;
                version.positions[partition] += 1;
                version.applied += 1;
            }
        }
        if self.keeps(AddedRule::EndsAreKeptWithThePartition) {
            for version in &mut next.versions {
                version.waits_for = [None; PARTITIONS];
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(ORDER, |_, state| {
                state.versions.iter().all(|version| !version.broken)
            }),
            Property::<Self>::sometimes(ALL_APPLIED, |model, state| {
                state.ends.iter().all(|records| *records > 0)
                    && state.versions.iter().all(|v| v.applied == model.events)
            }),
            Property::<Self>::sometimes(WAITED, |model, state| {
                let live = &state.versions[0];
                state.ends[1] > 0
                    && live.positions[0] == state.ends[0]
                    && !model.may_project(state, live, 1)
            }),
        ]
    }
}
