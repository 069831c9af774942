//! Runs the checker. `cargo test -p protocol -- --nocapture` prints its figures, and a counterexample for
//! each rule that is left out; `PROTOCOL_SIZE=large` checks larger scopes.

use std::time::Instant;

use protocol::properties::{
    DECIDED, DISCARDS, FOLDS, NO_LOSS, NO_ORPHANS, ONCE, ONE_VERSION, ORDER, OWN_ROWS,
    PARTLY_FENCED, PAUSES, READS, REPORTS, TURNED_AWAY,
};
use protocol::state::Set;
use protocol::{Protocol, Record, Rule, Scope};
use stateright::{Checker, Model};

const A: u8 = 0;
const B: u8 = 1;

fn is_large() -> bool {
    std::env::var("PROTOCOL_SIZE").is_ok_and(|size| size == "large")
}

/// Dead letters of one version and two operators: a key with a late record, records blocked by it, a
/// repeated event, and a late deletion.
fn letters() -> Scope {
    let log = [
        Record::new(A, 0).late(),
        Record::new(A, 1),
        Record::new(A, 0),
        Record::new(A, 2).deletes().late(),
        Record::new(B, 3).late(),
    ];
    Scope {
        logs: vec![log.to_vec()],
        owners: vec![(0, 0); if is_large() { 3 } else { 2 }],
        operators: 2,
        retries: true,
        letters_at_a_time: 1,
        discards: true,
        pauses: true,
        ..Scope::default()
    }
}

/// Two versions, with dead letters in both.
fn versions() -> Scope {
    let log = [
        Record::new(A, 0).late(),
        Record::new(A, 1),
        // The same event, of another key.
        Record::new(B, 1).late(),
    ];
    let mut scope = Scope {
        logs: vec![log.to_vec()],
        owners: vec![(0, 0), (1, 0)],
        operators: 1,
        letters_at_a_time: usize::MAX,
        pauses: false,
        rebuilds: true,
        ..letters()
    };
    if is_large() {
        scope.owners.push((1, 0));
        scope.operators = 2;
        scope.pauses = true;
    }
    scope
}

/// Two versions, each with a zombie.
fn zombies() -> Scope {
    Scope {
        logs: vec![vec![Record::new(A, 0).late(), Record::new(A, 1)]],
        owners: vec![(0, 0), (0, 0), (1, 0), (1, 0)],
        operators: if is_large() { 2 } else { 1 },
        letters_at_a_time: if is_large() { 1 } else { usize::MAX },
        pauses: true,
        ..versions()
    }
}

/// Two versions of two partitions.
fn partitions() -> Scope {
    let logs = [
        vec![Record::new(A, 0).late(), Record::new(A, 1)],
        vec![Record::new(B, 2)],
    ];
    Scope {
        logs: logs.to_vec(),
        owners: vec![(0, 0), (0, 1), (1, 0), (1, 1)],
        together: vec![Set::from_iter([0, 1]), Set::from_iter([2, 3])],
        operators: 1,
        retries: true,
        letters_at_a_time: usize::MAX,
        discards: is_large(),
        rebuilds: true,
        ..Scope::default()
    }
}

/// Two versions of two partitions. Two processes project the first version, another one the second, and each
/// commits both partitions together or alone.
fn writers() -> Scope {
    let mut scope = Scope {
        logs: vec![vec![Record::new(A, 0)], vec![Record::new(B, 1)]],
        owners: vec![(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1)],
        together: vec![
            Set::from_iter([0, 1]),
            Set::from_iter([2, 3]),
            Set::from_iter([4, 5]),
        ],
        pauses: true,
        rebuilds: true,
        ..Scope::default()
    };
    if is_large() {
        scope.logs[0] = vec![Record::new(A, 0).late()];
        scope.operators = 1;
        scope.retries = true;
        scope.letters_at_a_time = usize::MAX;
    }
    scope
}

/// The smallest scope that shows violations concerning dead letters.
fn few_letters() -> Scope {
    let log = [
        Record::new(A, 0).late(),
        Record::new(A, 1),
        Record::new(A, 0),
        Record::new(A, 2).deletes(),
    ];
    Scope {
        logs: vec![log.to_vec()],
        owners: vec![(0, 0); 2],
        operators: 1,
        ..letters()
    }
}

/// The smallest scope that shows violations concerning transactions of several partitions.
fn few_writers() -> Scope {
    Scope {
        logs: vec![
            vec![Record::new(A, 0).late(), Record::new(A, 1)],
            vec![Record::new(B, 2), Record::new(B, 3)],
        ],
        owners: vec![(0, 0), (0, 1), (0, 0), (0, 1)],
        together: vec![Set::from_iter([0, 1]), Set::from_iter([2, 3])],
        pauses: true,
        rebuilds: true,
        ..Scope::default()
    }
}

/// The scope without a second version.
fn one_version(scope: Scope) -> Scope {
    Scope {
        rebuilds: false,
        ..scope
    }
}

/// The smallest scope that shows violations concerning versions.
fn two_versions() -> Scope {
    Scope {
        owners: vec![(0, 0), (1, 0)],
        operators: 1,
        letters_at_a_time: 1,
        pauses: false,
        ..zombies()
    }
}

/// The same with numbered epochs, so that they can repeat.
fn numbered_versions() -> Scope {
    Scope {
        exact_epochs: Some(3),
        ..two_versions()
    }
}

/// The same with a zombie of the second version.
fn numbered_zombies() -> Scope {
    Scope {
        owners: vec![(0, 0), (1, 0), (1, 0)],
        exact_epochs: Some(2),
        ..two_versions()
    }
}

/// Two versions, and owners with older and newer code.
fn codes() -> Scope {
    let log = [
        Record::new(A, 0).late(),
        Record::new(A, 1),
        Record::new(B, 2),
    ];
    Scope {
        logs: vec![log.to_vec()],
        owners: vec![(0, 0), (1, 0)],
        operators: 1,
        letters_at_a_time: usize::MAX,
        // A discard retries what was blocked by the record.
        discards: true,
        rebuilds: true,
        codes: true,
        ..Scope::default()
    }
}

/// Checks a scope: every `always` property holds, and every `sometimes` property is reached.
fn assert_holds(name: &str, scope: Scope, left_out: &[Rule]) {
    let protocol = Protocol {
        scope,
        left_out: left_out.to_vec(),
    };
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = protocol.check(if is_large() { threads } else { 1 });
    println!(
        "{name}{}: {} states, {} steps, {} of them in a row, {:.1?}",
        if left_out.is_empty() {
            String::new()
        } else {
            format!(" without {left_out:?}")
        },
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    for property in protocol.properties() {
        let is_found = checker.discovery(property.name).is_some();
        let is_failure = property.expectation.discovery_is_failure();
        assert!(
            !(is_failure && is_found),
            "{}",
            counterexample(&protocol, property.name)
        );
        assert!(is_failure || is_found, "not reachable: {}", property.name);
    }
}

/// The shortest path that violates a property.
fn counterexample(protocol: &Protocol, property: &'static str) -> String {
    let left_out = &protocol.left_out;
    let Some(path) = protocol.shortest(property) else {
        panic!("without {left_out:?} no state violates: {property}");
    };
    let (length, text) = (path.clone().into_actions().len(), protocol.describe(path));
    format!("without {left_out:?}, {length} steps violate: {property}\n{text}")
}

fn assert_detected(left_out: &[Rule], scope: Scope, property: &'static str) {
    let protocol = Protocol {
        scope,
        left_out: left_out.to_vec(),
    };
    println!("{}", counterexample(&protocol, property));
}

#[test]
fn letters_hold() {
    assert_holds("letters", letters(), &[]);
}

#[test]
fn versions_hold() {
    assert_holds("versions", versions(), &[]);
}

#[test]
fn zombies_hold() {
    assert_holds("zombies", zombies(), &[]);
}

#[test]
fn partitions_hold() {
    assert_holds("partitions", partitions(), &[]);
}

#[test]
fn writers_hold() {
    assert_holds("writers", writers(), &[]);
}

#[test]
fn codes_hold() {
    assert_holds("codes", codes(), &[]);
}

/// Comparing epochs for equality loses nothing: with numbered epochs the properties hold, too.
#[test]
fn epochs_may_be_numbers() {
    let few_letters = Scope {
        exact_epochs: Some(5),
        ..few_letters()
    };
    assert_holds("few letters, numbered epochs", few_letters, &[]);
    let two_versions = Scope {
        exact_epochs: Some(4),
        ..two_versions()
    };
    assert_holds("two versions, numbered epochs", two_versions, &[]);
}

#[test]
fn owners_are_turned_away_and_lost_answers_are_decided() {
    let remembering = |scope: Scope| Scope {
        remembers: true,
        ..scope
    };
    let (letters, writers) = (
        remembering(few_letters()),
        remembering(one_version(few_writers())),
    );
    for (scope, property) in [
        (&letters, TURNED_AWAY),
        (&letters, DECIDED),
        (&writers, PARTLY_FENCED),
    ] {
        let protocol = Protocol {
            scope: scope.clone(),
            ..Protocol::default()
        };
        let path = protocol.shortest(property).expect(property);
        println!("{property}:\n{}", protocol.describe(path));
    }
    assert_holds("few letters", letters, &[]);
    assert_holds("few writers", writers, &[]);
}

#[test]
fn a_drain_that_does_not_raise_the_epoch_is_detected() {
    assert_detected(&[Rule::DrainsRaiseTheEpoch], few_letters(), NO_ORPHANS);
}

#[test]
fn a_switch_that_does_not_take_the_progress_rows_is_detected() {
    assert_detected(&[Rule::SwitchTakesProgress], two_versions(), OWN_ROWS);
}

/// A rule, a scope, and the property that is violated there without the rule.
type Violation = (Rule, fn() -> Scope, &'static str);

/// The rules without which the model breaks.
const DETECTED: [Violation; 35] = [
    (Rule::EpochIsCompared, few_letters, NO_ORPHANS),
    (Rule::BatchesTakeTheRow, few_letters, ONCE),
    (Rule::OnlyReturnedAreWritten, few_writers, READS),
    (Rule::SchemaIsOfAReturnedClaim, few_writers, OWN_ROWS),
    (Rule::LettersAreReadUnderTheLock, few_letters, ORDER),
    (Rule::SchemaIsReadUnderTheLock, two_versions, OWN_ROWS),
    (Rule::UnansweredConcernsAll, few_writers, REPORTS),
    (Rule::IdsAreRemembered, few_letters, ONCE),
    (Rule::IdsAreReadUnderTheLock, few_letters, ONCE),
    (Rule::CommittedIdsAreAdded, few_letters, ONCE),
    (Rule::ParkedKeysHoldBack, few_letters, ORDER),
    (Rule::DeletionsCloseLetters, few_letters, ORDER),
    (Rule::DrainsTakeTheRow, few_letters, NO_ORPHANS),
    (Rule::DrainsRaiseTheEpoch, few_letters, NO_ORPHANS),
    (Rule::DrainsStopAtAFailure, few_letters, ORDER),
    (Rule::DrainsLeaveAHead, few_letters, NO_ORPHANS),
    (Rule::DiscardsAreKept, two_versions, DISCARDS),
    (Rule::DiscardsFenceAllVersions, two_versions, DISCARDS),
    (Rule::DiscardsLookUnderTheLock, two_versions, DISCARDS),
    (Rule::DiscardsAreOneTransaction, two_versions, DISCARDS),
    (Rule::RebuildsWaitForDiscards, two_versions, DISCARDS),
    (Rule::NumbersAreNew, numbered_versions, ORDER),
    (Rule::NumbersAreNew, numbered_zombies, NO_ORPHANS),
    (Rule::PauseRaisesEpochs, few_letters, PAUSES),
    (Rule::PauseKeepsOwnersOut, few_letters, PAUSES),
    (Rule::SwitchTakesProgress, two_versions, OWN_ROWS),
    (Rule::SwitchRaisesEpochs, two_versions, OWN_ROWS),
    (Rule::SwitchWaitsForPositions, two_versions, READS),
    (Rule::SwitchLooksUnderTheLock, two_versions, READS),
    (Rule::ReadsBeginWithTheVersion, two_versions, ONE_VERSION),
    (Rule::ClaimsCompareTheCode, codes, FOLDS),
    (Rule::RetriesCompareTheCode, codes, FOLDS),
    (Rule::CodeIsNoted, codes, FOLDS),
    (Rule::RebuildsAreOfOneCode, codes, FOLDS),
    (Rule::AcceptanceSparesRebuilds, codes, FOLDS),
];

#[test]
fn a_rule_that_is_left_out_is_detected() {
    for (rule, scope, property) in DETECTED {
        assert_detected(&[rule], scope(), property);
    }
}

/// Pairs of rules of which either is enough: the model breaks only without both.
const REDUNDANT: [(Rule, Rule); 2] = [
    (Rule::OffsetIsCompared, Rule::ClaimsRaiseTheEpoch),
    (Rule::OffsetIsCompared, Rule::UnansweredMeansUnknown),
];

/// The same of rules that concern code.
const REDUNDANT_FOR_CODE: (Rule, Rule) =
    (Rule::OwnersJoinNoNewerVersion, Rule::RowsBeginWithTheCode);

/// Rules without which nothing in this model breaks.
const NEVER_NEEDED: [Rule; 2] = [Rule::ResumeRaisesEpochs, Rule::CodeIsNeverLowered];

#[test]
fn redundant_rules_are_redundant() {
    for rule in [
        Rule::OffsetIsCompared,
        Rule::ClaimsRaiseTheEpoch,
        Rule::UnansweredMeansUnknown,
        Rule::ResumeRaisesEpochs,
    ] {
        assert_holds("few letters", few_letters(), &[rule]);
        assert_holds(
            "zombies",
            Scope {
                operators: 1,
                ..zombies()
            },
            &[rule],
        );
        assert_holds("few writers", one_version(few_writers()), &[rule]);
    }
    for (one, other) in REDUNDANT {
        assert_detected(&[one, other], few_letters(), ORDER);
    }
    let lost = [Rule::OffsetIsCompared, Rule::UnansweredConcernsAll];
    assert_detected(&lost, few_writers(), NO_LOSS);
}

#[test]
fn redundant_rules_for_code_are_redundant() {
    let (one, other) = REDUNDANT_FOR_CODE;
    for rule in [one, other, Rule::CodeIsNeverLowered] {
        assert_holds("codes", codes(), &[rule]);
    }
    assert_detected(&[one, other], codes(), FOLDS);
}

#[test]
fn every_rule_is_tried() {
    for rule in Rule::ALL {
        let is_detected = DETECTED.iter().any(|(noticed, ..)| *noticed == rule);
        let is_net = REDUNDANT
            .iter()
            .chain([&REDUNDANT_FOR_CODE])
            .any(|(one, other)| *one == rule || *other == rule);
        assert_eq!(
            usize::from(is_detected)
                + usize::from(is_net)
                + usize::from(NEVER_NEEDED.contains(&rule)),
            1,
            "{rule:?}"
        );
    }
}
