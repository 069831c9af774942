//! What has to hold always, and what has to be possible.

use stateright::Property;

use crate::state::{
    DeadLetter, Name, Operation, Operator, Owner, Progress, Rows, State, VERSIONS, ViewState,
};
use crate::{Protocol, Record, Scope};

/// An event counts once: counters, feeds and notifications are made of what is applied, and nobody could tell a second
/// time from a second event.
pub const ONCE: &str = "no view holds an event twice";
/// A row is made of the events of its key so far. One that is built on a hole, or in another order, is wrong for good,
/// and nothing shows it.
pub const ORDER: &str =
    "events of a key are applied in order, and none before an open letter of it";
/// What is behind the position is never read again, so it has to be somewhere: the books balance.
pub const NO_LOSS: &str = "every record below the position is applied, a duplicate, or a letter";
/// Whoever retries by themselves look for letters that failed. A key that is parked with none of these stays parked
/// until somebody wonders why, and its user's rows stay old.
pub const NO_ORPHANS: &str = "nothing is parked behind nothing";
/// A version's position speaks of the rows in its tables and of no others. Two versions that wrote into each other's
/// tables would both be wrong, and a switch back would not help.
pub const OWN_ROWS: &str = "a version's tables hold what its own progress and letters say";
/// A caller who has read its own write must not lose it again: tokens promise that.
pub const READS: &str = "reads of the live view never go back";
/// The position in an answer says how far its rows go: a caller who waited for its own write must find it in them.
pub const ONE_VERSION: &str = "an answer's rows and position are of one version";
/// An operator takes out what must not be in the view, whatever version of it comes next.
pub const DISCARDS: &str = "what was taken out stays out, in every version";
/// Who pauses does so to look at something, or to change it: nothing may move meanwhile.
pub const PAUSES: &str = "a paused version does not move";

/// An owner that was superseded is turned away by the comparison.
pub const TURNED_AWAY: &str = "an owner is turned away";
/// A COMMIT whose answer is lost is decided by reading the row again.
pub const DECIDED: &str = "a lost answer is decided: the next owner goes on behind the batch";
/// A retry applies a letter, and the key goes on.
pub const RETRIED: &str = "a retry applies what failed and what waited behind it";
/// A retry finds the event applied already.
pub const RETRIED_DUPLICATE: &str = "a retry finds a duplicate";
/// A deletion closes what waited.
pub const CLOSED: &str = "a user's deletion closes letters";
/// The second version is switched to.
pub const SWITCHED: &str = "the second version becomes the live one";
/// And back.
pub const ROLLED_BACK: &str = "the first becomes the live one again";
/// Both have come to the end, and hold the same.
pub const SAME: &str = "both versions are at the end and hold the same";
/// A version that comes to a record that was taken out leaves it out.
pub const LEFT_OUT: &str = "a record that was taken out of one version is left out of the other";
/// A view is paused with work left.
pub const PAUSED: &str = "a view stands still on purpose";

/// The properties of a scope: what must hold is the same for all, what must be possible depends on who takes part.
pub fn of(scope: &Scope) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::<Protocol>::always(ONCE, once),
        Property::<Protocol>::always(ORDER, order),
        Property::<Protocol>::always(NO_LOSS, no_loss),
        Property::<Protocol>::always(NO_ORPHANS, no_orphans),
        Property::<Protocol>::always(OWN_ROWS, own_rows),
        Property::<Protocol>::always(READS, reads),
        Property::<Protocol>::always(DISCARDS, discards),
        Property::<Protocol>::always(ONE_VERSION, |_, state| !state.read_broken),
        Property::<Protocol>::always(PAUSES, |_, state| !state.pause_broken),
    ];
    if scope.remembers {
        properties.push(Property::<Protocol>::sometimes(TURNED_AWAY, |_, state| {
            state.turned_away
        }));
        properties.push(Property::<Protocol>::sometimes(DECIDED, decided));
    }
    if scope.retries {
        properties.push(Property::<Protocol>::sometimes(RETRIED, |_, state| {
            letters(state)
                .filter(|letter| *letter == DeadLetter::Applied)
                .count()
                > 1
        }));
        if scope.logs.iter().any(|records| has_duplicate(records)) {
            properties.push(Property::<Protocol>::sometimes(
                RETRIED_DUPLICATE,
                |_, state| letters(state).any(|letter| letter == DeadLetter::Duplicate),
            ));
        }
    }
    if scope.logs.iter().flatten().any(|record| record.deletes) {
        properties.push(Property::<Protocol>::sometimes(CLOSED, |_, state| {
            letters(state).any(|letter| letter == DeadLetter::Closed)
        }));
    }
    if scope.rebuilds {
        properties.push(Property::<Protocol>::sometimes(SWITCHED, |_, state| {
            state.views[1].standing == ViewState::Live
        }));
        properties.push(Property::<Protocol>::sometimes(ROLLED_BACK, |_, state| {
            state.views[0].standing == ViewState::Live
                && state.views[1].standing == ViewState::Retired
        }));
        properties.push(Property::<Protocol>::sometimes(SAME, same));
        if scope.discards {
            properties.push(Property::<Protocol>::sometimes(LEFT_OUT, left_out));
        }
    }
    if scope.pauses {
        properties.push(Property::<Protocol>::sometimes(PAUSED, |_, state| {
            state.views[0].paused && state.views[0].progress[0].next == 1
        }));
    }
    properties
}

/// A partition of a version, with all that is said of it.
struct Part<'s> {
    version: u8,
    log: u8,
    records: &'s [Record],
    rows: &'s Rows,
    progress: &'s Progress,
}

fn parts<'s>(protocol: &'s Protocol, state: &'s State) -> impl Iterator<Item = Part<'s>> {
    state.versions().flat_map(move |version| {
        (0..)
            .zip(&protocol.scope.logs)
            .map(move |(log, records)| Part {
                version,
                log,
                records,
                rows: &state.tables[usize::from(version)][usize::from(log)],
                progress: state.row(version, log),
            })
    })
}

impl Part<'_> {
    fn record(&self, offset: u8) -> Record {
        self.records[usize::from(offset)]
    }

    fn letter(&self, offset: u8) -> Option<DeadLetter> {
        self.progress.letters.get(offset)
    }

    fn open(&self) -> impl Iterator<Item = u8> + use<> {
        self.progress.letters.open()
    }

    /// Whether a record is an open letter behind which another one waits.
    fn precedes(&self, offset: u8, later: u8) -> bool {
        offset < later && self.record(offset).key == self.record(later).key
    }

    fn is_id_applied(&self, id: u8) -> bool {
        self.rows
            .offsets()
            .iter()
            .any(|offset| self.record(*offset).id == id)
    }

    fn is_accounted_for(&self, offset: u8) -> bool {
        let is_applied = self.rows.has(offset);
        match self.letter(offset) {
            _ if offset >= self.progress.next => true,
            None => is_applied || self.is_id_applied(self.record(offset).id),
            Some(DeadLetter::Applied) => is_applied,
            Some(DeadLetter::Duplicate) => self.is_id_applied(self.record(offset).id),
            Some(
                DeadLetter::Failed
                | DeadLetter::Blocked
                | DeadLetter::Discarded
                | DeadLetter::Closed,
            ) => true,
        }
    }
}

fn once(protocol: &Protocol, state: &State) -> bool {
    parts(protocol, state).all(|part| {
        let offsets = part.rows.offsets();
        offsets.iter().enumerate().all(|(index, offset)| {
            offsets[..index]
                .iter()
                .all(|before| part.record(*before).id != part.record(*offset).id)
        })
    })
}

fn order(protocol: &Protocol, state: &State) -> bool {
    parts(protocol, state).all(|part| {
        let offsets = part.rows.offsets();
        offsets.iter().enumerate().all(|(index, offset)| {
            !offsets[..index]
                .iter()
                .any(|before| part.precedes(*offset, *before))
                && !part.open().any(|letter| part.precedes(letter, *offset))
        })
    })
}

fn no_loss(protocol: &Protocol, state: &State) -> bool {
    parts(protocol, state)
        .all(|part| (0..part.records.len() as u8).all(|offset| part.is_accounted_for(offset)))
}

fn no_orphans(protocol: &Protocol, state: &State) -> bool {
    parts(protocol, state).all(|part| {
        part.open()
            .filter(|offset| part.letter(*offset) == Some(DeadLetter::Blocked))
            .all(|offset| {
                part.open().any(|before| {
                    part.precedes(before, offset) && part.letter(before) == Some(DeadLetter::Failed)
                })
            })
    })
}

fn own_rows(protocol: &Protocol, state: &State) -> bool {
    let is_named = state.versions().all(|version| {
        let view = state.view(version);
        state.tables_of(view.schema) == Some(version)
            && (view.schema == Name::Live) == (view.standing == ViewState::Live)
    });
    is_named
        && parts(protocol, state).all(|part| {
            let next = part.progress.next;
            let is_own = |offset: u8| {
                offset < next && matches!(part.letter(offset), None | Some(DeadLetter::Applied))
            };
            part.rows.offsets().iter().all(|offset| is_own(*offset))
                && part
                    .progress
                    .letters
                    .iter()
                    .all(|(offset, _)| offset < next)
        })
}

fn reads(_: &Protocol, state: &State) -> bool {
    state.tables_of(Name::Live).is_some_and(|version| {
        let progress = &state.view(version).progress;
        progress
            .iter()
            .zip(state.shown)
            .all(|(row, shown)| row.next >= shown)
    })
}

fn discards(protocol: &Protocol, state: &State) -> bool {
    // Whoever takes a letter out version by version has to come to the others, unless they crash.
    let under_way = |part: &Part<'_>, offset: u8| {
        let operations = state.operators.iter().flat_map(|operator| match *operator {
            Operator::Idle => [None, None],
            Operator::About(operation) => [Some(operation), None],
            Operator::Done {
                operation, then, ..
            } => [Some(operation), then],
        });
        operations.flatten().any(|operation| {
            matches!(operation, Operation::Discard { version, log, offset: wanted, .. }
                if (version, log, wanted) == (part.version, part.log, offset))
        })
    };
    !state.discard_broken
        && parts(protocol, state).all(|part| {
            let taken = state.taken_out[usize::from(part.log)];
            part.open()
                .all(|offset| !taken.has(offset) || under_way(&part, offset))
        })
}

fn decided(protocol: &Protocol, state: &State) -> bool {
    let mut owners = protocol.scope.owners.iter().zip(&state.owners);
    let mut goes_on = || {
        owners.any(|((version, log), owner)| {
            let epoch = state.row(*version, *log).epoch;
            matches!(owner, Owner::Claimed(claim) if claim.epoch == epoch && claim.next > 0)
        })
    };
    state.unanswered && goes_on()
}

fn same(protocol: &Protocol, state: &State) -> bool {
    state.versions().count() == VERSIONS
        && parts(protocol, state).all(|part| {
            let other = &state.tables[usize::from(1 - part.version)][usize::from(part.log)];
            usize::from(part.progress.next) == part.records.len()
                && part.rows == other
                && !part.rows.offsets().is_empty()
        })
}

fn left_out(_: &Protocol, state: &State) -> bool {
    let [one, two] = state.views.each_ref().map(|view| view.progress[0].letters);
    one.iter()
        .any(|(offset, letter)| letter == DeadLetter::Discarded && two.get(offset) == Some(letter))
}

fn letters(state: &State) -> impl Iterator<Item = DeadLetter> {
    state
        .views
        .iter()
        .flat_map(|view| view.progress[0].letters.iter())
        .map(|(_, letter)| letter)
}

fn has_duplicate(records: &[Record]) -> bool {
    let repeats = |(index, record): (usize, &Record)| {
        records[..index]
            .iter()
            .any(|before| before.late && before.id == record.id)
    };
    records.iter().enumerate().any(repeats)
}
