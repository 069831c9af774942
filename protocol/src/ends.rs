//! A second model: which offsets a position may move over. Replicas lag, and each fetch is answered by
//! any of them.
//!
//! The rules are those of `src/projector/worker.rs` (`judge_end`): offsets count as a hole up to a record,
//! or up to the end that the same fetch reached, if a second fetch confirms it.

use stateright::{Checker, Model, Property};

/// The replicas of the partition.
const REPLICAS: usize = 2;

/// A rule, and where the projector implements it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRule {
    /// The end is the one of the fetch itself (`kafka/native/events.rs`), not one that another request
    /// reported.
    EndsAreOfTheFetch,
    /// A second fetch confirms a hole at the end.
    EndsAreConfirmed,
    /// A hole reaches as far as both fetches do, whichever replica answered the second one.
    BothFetchesReachIt,
}

/// No offset that holds a record is booked as a hole: it would never be read.
pub const NO_LOSS: &str = "no record is booked as a hole";
/// A hole between records is booked.
pub const HOLE: &str = "a hole before a record is booked";
/// A hole at the end of the log is booked.
pub const HOLE_AT_END: &str = "a hole at the end is booked";
/// The position reaches the end of the log, so that lag is zero although the last offset is a hole.
pub const REACHED: &str = "the whole log is projected";

/// The model: a log, and the rules that are left out.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Whether each offset holds a record.
    pub log: Vec<bool>,
    /// How many answers may state an end that the replica reached only after it had read the records.
    pub early_ends: u8,
    /// The rules that the model does not follow.
    pub left_out: Vec<EndRule>,
}

/// What a fetch delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The record at an offset.
    Record(u8),
    /// No record up to this end.
    End(u8),
}

/// The log, its replicas and the worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The log end offset.
    written: u8,
    /// The end of each replica.
    replicas: [u8; REPLICAS],
    /// How many answers stated an early end.
    early_ends: u8,
    /// The log end offset that another request has reported last.
    reported: u8,
    /// What the last fetch delivered.
    delivery: Option<Delivery>,
    /// The next offset to project.
    position: u8,
    /// The end that a second fetch has to confirm.
    unconfirmed: Option<u8>,
    /// Whether each offset is booked as a hole.
    holes: Vec<bool>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An offset is written: a record, or what leaves a hole.
    Write,
    /// A replica copies an offset.
    Copy(usize),
    /// Another request reports the log end offset.
    Report,
    /// A replica answers a fetch.
    Fetch(usize),
    /// The same, with an end that moved on after the records were read.
    FetchEarly(usize),
    /// The worker judges what was delivered.
    Judge,
}

impl Ends {
    fn keeps(&self, rule: EndRule) -> bool {
        !self.left_out.contains(&rule)
    }

    /// Visits all reachable states.
    pub fn check(&self) -> impl Checker<Self> + use<> {
        self.clone().checker().spawn_bfs().join()
    }

    /// What a replica answers to a fetch from the position.
    fn fetch(&self, state: &State, replica: usize) -> Delivery {
        let end = state.replicas[replica];
        let record = (state.position..end).find(|offset| self.log[usize::from(*offset)]);
        record.map_or(Delivery::End(end), Delivery::Record)
    }

    fn judge(&self, state: &mut State, delivery: Delivery) {
        let end = match delivery {
            Delivery::Record(offset) => {
                Self::book(state, offset);
                state.position = offset + 1;
                state.unconfirmed = None;
                return;
            }
            Delivery::End(end) if self.keeps(EndRule::EndsAreOfTheFetch) => end,
            Delivery::End(end) => end.max(state.reported),
        };
        if end <= state.position {
            state.unconfirmed = None;
        } else if !self.keeps(EndRule::EndsAreConfirmed) {
            Self::book(state, end);
        } else {
            match state.unconfirmed.take() {
                Some(first) if first <= end || !self.keeps(EndRule::BothFetchesReachIt) => {
                    Self::book(state, first);
                }
                _ => state.unconfirmed = Some(end),
            }
        }
    }

    /// Moves the position over a hole.
    fn book(state: &mut State, until: u8) {
        for offset in state.position..until {
            state.holes[usize::from(offset)] = true;
        }
        state.position = until;
    }
}

impl Model for Ends {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            holes: vec![false; self.log.len()],
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if usize::from(state.written) < self.log.len() {
            steps.push(Step::Write);
        }
        if state.reported < state.written {
            steps.push(Step::Report);
        }
        for (replica, end) in state.replicas.iter().enumerate() {
            let lags = *end < state.written;
            if lags {
                steps.push(Step::Copy(replica));
            }
            // A replica that ends before the position refuses the fetch.
            if state.delivery.is_none() && *end >= state.position {
                steps.push(Step::Fetch(replica));
                let has_end = matches!(self.fetch(state, replica), Delivery::End(_));
                if has_end && lags && state.early_ends < self.early_ends {
                    steps.push(Step::FetchEarly(replica));
                }
            }
        }
        if state.delivery.is_some() {
            steps.push(Step::Judge);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Write => next.written += 1,
            Step::Copy(replica) => next.replicas[replica] += 1,
            Step::Report => next.reported = next.written,
            Step::Fetch(replica) => next.delivery = Some(self.fetch(state, replica)),
            Step::FetchEarly(replica) => {
                next.early_ends += 1;
                next.replicas[replica] += 1;
                next.delivery = Some(Delivery::End(next.replicas[replica]));
            }
            Step::Judge => {
                let delivery = next.delivery.take()?;
                self.judge(&mut next, delivery);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let at_end = |model: &Ends, state: &State| usize::from(state.position) == model.log.len();
        vec![
            Property::<Self>::always(NO_LOSS, |model, state| {
                let mut offsets = model.log.iter().zip(&state.holes);
                !offsets.any(|(is_record, is_hole)| *is_record && *is_hole)
            }),
            Property::<Self>::sometimes(HOLE, |model, state| {
                let is_before_a_record = |offset: usize| model.log[offset..].contains(&true);
                (0..state.holes.len()).any(|at| state.holes[at] && is_before_a_record(at))
            }),
            Property::<Self>::sometimes(HOLE_AT_END, |_, state| {
                state.holes.last().copied().unwrap_or_default()
            }),
            Property::<Self>::sometimes(REACHED, at_end),
        ]
    }
}
