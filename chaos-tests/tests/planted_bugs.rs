//! The checks are checked: each flaw of the simulated world is found within so many seeds, by the check meant for it.

use chaos_tests::{PlantedBug, Report, SimulationOptions, simulate};

/// The first seed in which the bug is found as described.
fn found(bug: PlantedBug, seeds: u64, described: impl Fn(&Report) -> bool) -> Option<u64> {
    (1..=seeds).find(|seed| {
        let report = simulate(&SimulationOptions { bug: Some(bug), ..SimulationOptions::new(*seed) });
        described(&report)
    })
}

fn tells(report: &Report, what: &str) -> bool {
    report.violations().iter().any(|violation| violation.to_string().contains(what))
}

#[test]
fn a_disk_that_acknowledges_before_it_syncs_is_found_by_what_is_lost() {
    let lost = |report: &Report| tells(report, "invariant 6");
    assert!(found(PlantedBug::AcknowledgeBeforeSync, 20, lost).is_some());
}

#[test]
fn a_forgotten_vote_is_found_by_what_replicas_disagree_on() {
    let split = |report: &Report| tells(report, "invariant 5");
    assert!(found(PlantedBug::VoteNotDurable, 40, split).is_some());
}

#[test]
fn a_snapshot_without_deduplication_makes_replicas_differ() {
    let differ = |report: &Report| tells(report, "invariant 5");
    assert!(found(PlantedBug::SnapshotForgetsTransactions, 40, differ).is_some());
}

#[test]
fn a_replica_that_loses_an_output_is_stopped_by_the_comparison_of_heads() {
    let stopped = |report: &Report| {
        report.stopped.get(&1).is_some_and(|reason| reason.contains("The majority prevails"))
            && report.stopped.len() == 1
    };
    assert!(found(PlantedBug::LoseLiveOutput, 40, stopped).is_some());
}

#[test]
fn a_read_that_is_not_linearizable_is_found_by_real_time() {
    let late = |report: &Report| tells(report, "invariant 8");
    assert!(found(PlantedBug::ReadLocally, 20, late).is_some());
}

#[test]
fn an_answer_that_is_not_the_outcome_is_found() {
    let garbled = |report: &Report| tells(report, "invariant 6") || tells(report, "was answered");
    assert!(found(PlantedBug::GarbleAnswer, 10, garbled).is_some());
}
