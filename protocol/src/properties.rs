//! What has to hold always, and what has to be possible.

use stateright::Property;

use crate::state::{
    DeadLetter, Name, Operation, Operator, Owner, Progress, Rows, State, VERSIONS, ViewState,
};
use crate::{Protocol, Record, Scope};

/// Counters, feeds and notifications are made from applied events, so an event applied twice would
/// count as two.
pub const ONCE: &str = "no view holds an event twice";
/// A row is folded from all earlier events of its key. A missing or reordered event makes the row
/// wrong for good, without an error.
pub const ORDER: &str =
    "events of a key are applied in order, and none before an open dead letter of it";
/// Records below the position are never read again, so each must be accounted for.
pub const NO_LOSS: &str =
    "every record below the position is applied, a duplicate, or a dead letter";
/// Automatic retries start from failed dead letters. A blocked one without a failed one before it would
/// stay parked until an operator looks, and its user's rows would stay outdated.
pub const NO_ORPHANS: &str = "every blocked dead letter waits behind a failed one";
/// A version's position describes the rows in its own tables. If two versions wrote into each other's
/// tables, both would be wrong, and switching back would not help.
pub const OWN_ROWS: &str = "a version's tables hold what its own progress and dead letters say";
/// Tokens promise that a caller keeps seeing what it has seen once.
pub const READS: &str = "reads of the live view never go back";
/// The position in an answer states how far its rows go; a caller that waited for its own write must
/// find it in them.
pub const ONE_VERSION: &str = "an answer's rows and position are of one version";
/// An operator discards a record for every version, including later ones.
pub const DISCARDS: &str = "a discarded record stays out, in every version";
/// An operator pauses a version to inspect or change it, so it must not change by itself.
pub const PAUSES: &str = "a paused version does not move";
/// Kafka's committed offsets, heartbeats and reads that wait take the position from the owner.
pub const REPORTS: &str = "what an owner reports as committed is committed";

/// Older code drops what newer code has stored, and a rebuild is the work of one fold.
pub const FOLDS: &str =
    "older code folds nothing that newer code has folded or begun, and one code a rebuild";

/// The comparison rejects an owner whose claim is superseded.
pub const TURNED_AWAY: &str = "the comparison rejects an owner";
/// A transaction goes on without a partition that was fenced.
pub const PARTLY_FENCED: &str = "one partition of a transaction is fenced, another one is not";
/// After a COMMIT without an answer, the progress row shows whether it took effect.
pub const DECIDED: &str = "after a lost answer the next claim continues behind the batch";
/// A retry applies a failed dead letter and those blocked by it.
pub const RETRIED: &str = "a retry applies a failed dead letter and one blocked by it";
/// A retry finds that the event was applied already.
pub const RETRIED_DUPLICATE: &str = "a retry finds a duplicate";
/// A deletion closes the user's earlier dead letters.
pub const CLOSED: &str = "a user's deletion closes dead letters";
/// A switch makes the second version live.
pub const SWITCHED: &str = "the second version becomes the live one";
/// A switch makes the first version live again.
pub const ROLLED_BACK: &str = "the first becomes the live one again";
/// Both versions have applied the whole log, with equal rows.
pub const SAME: &str = "both versions are at the end and hold the same";
/// Newer code takes over partitions that older code has folded.
pub const HANDED_OVER: &str = "newer code takes over the live version";
/// Older code folds again what newer code has folded, after an operator accepted it.
pub const ACCEPTED: &str = "older code goes on after an operator accepted it";
/// A version leaves out a record that was discarded before the version reached it.
pub const LEFT_OUT: &str = "a record discarded in one version is left out of the other";
/// A view is paused before the end of the log.
pub const PAUSED: &str = "a view is paused part-way";

/// The properties of a scope. `always` properties are the same for all scopes; `sometimes` properties
/// depend on which steps the scope allows.
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
        Property::<Protocol>::always(REPORTS, reports),
        Property::<Protocol>::always(FOLDS, |_, state| !state.fold_broken),
    ];
    if scope.codes {
        properties.push(Property::<Protocol>::sometimes(HANDED_OVER, |_, state| {
            let [old, new] = state.views;
            old.progress[0].code > old.code && new.exists()
        }));
        properties.push(Property::<Protocol>::sometimes(ACCEPTED, |_, state| {
            state.views[0].accepts_older
                && state.folded_by[0][0] > state.views[0].progress[0].code
                && state.views[0].progress[0].next > 1
        }));
    }
    if scope.remembers {
        properties.push(Property::<Protocol>::sometimes(TURNED_AWAY, |_, state| {
            state.turned_away
        }));
        properties.push(Property::<Protocol>::sometimes(DECIDED, decided));
        if !scope.together.is_empty() {
            properties.push(Property::<Protocol>::sometimes(
                PARTLY_FENCED,
                |_, state| state.partly_fenced,
            ));
        }
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

/// A partition of a version: its records, rows and progress.
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

    /// Whether a record comes before another one of the same key.
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

fn reports(protocol: &Protocol, state: &State) -> bool {
    let mut owners = protocol.scope.owners.iter().zip(&state.owners);
    owners.all(|((version, log), owner)| {
        let row = state.row(*version, *log);
        !matches!(owner, Owner::Claimed(claim) if claim.epoch == row.epoch && claim.next > row.next)
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
