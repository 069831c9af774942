//! Runs the checker on the models of the log: its ends, and added partitions. `-- --nocapture` prints the
//! figures, and a counterexample for each rule that is left out.

use std::fmt::Debug;

use protocol::added::{self, Added, AddedRule};
use protocol::ends::{self, EndRule, Ends};
use stateright::{Checker, Model};

/// Every `always` property holds, and every `sometimes` property is reached.
fn assert_holds<M: Model>(name: &str, model: &M, checker: &impl Checker<M>)
where
    M::Action: Clone + PartialEq,
    M::State: Clone + PartialEq,
{
    println!(
        "{name}: {} states, {} steps, {} of them in a row",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    for property in model.properties() {
        let is_found = checker.discovery(property.name).is_some();
        let should_be_found = !property.expectation.discovery_is_failure();
        assert_eq!(is_found, should_be_found, "{}", property.name);
    }
}

/// A property is violated; prints how.
fn assert_detected<M: Model>(rule: impl Debug, checker: &impl Checker<M>, property: &'static str)
where
    M::Action: Debug + Clone + PartialEq,
    M::State: Clone + PartialEq,
{
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("without {rule:?} no state violates: {property}"));
    let steps = path.into_actions();
    println!(
        "without {rule:?}, {} steps violate: {property}\n  {steps:?}",
        steps.len()
    );
}

/// A hole before a record, records, and a hole at the end.
fn ends(left_out: &[EndRule]) -> Ends {
    Ends {
        log: vec![true, false, true, true, false],
        early_ends: 1,
        left_out: left_out.to_vec(),
    }
}

fn added(left_out: &[AddedRule]) -> Added {
    Added {
        events: 3,
        settle: 2,
        left_out: left_out.to_vec(),
    }
}

#[test]
fn holes_hold() {
    let model = ends(&[]);
    assert_holds("ends", &model, &model.check());
}

#[test]
fn added_partitions_hold() {
    let model = added(&[]);
    assert_holds("added partitions", &model, &model.check());
}

#[test]
fn an_end_rule_that_is_left_out_is_detected() {
    for rule in [
        EndRule::EndsAreOfTheFetch,
        EndRule::EndsAreConfirmed,
        EndRule::BothFetchesReachIt,
    ] {
        assert_detected(rule, &ends(&[rule]).check(), ends::NO_LOSS);
    }
}

#[test]
fn a_rule_of_added_partitions_that_is_left_out_is_detected() {
    for rule in [
        AddedRule::AddedPartitionsWait,
        AddedRule::EndsAreReadAfterTheSettleTime,
        AddedRule::ReadingsBeginAfterTheSettleTime,
        AddedRule::EndsAreKeptWithThePartition,
        AddedRule::AllOlderPartitionsCount,
    ] {
        assert_detected(rule, &added(&[rule]).check(), added::ORDER);
    }
}
