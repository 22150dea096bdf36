//! The checks are checked: each flaw of the simulated world is found within so many seeds, by the check meant for it.

use std::env;

use crate::hunt::{Found, Quarry, hunt};
use chaos_tests::{PlantedBug, Report, SimulationOptions, simulate};

/// Also hunts for bugs that take hundreds of seeds: minutes each.
const RARE_VARIABLE: &str = "SERIATIM_SIM_RARE_BUGS";

fn quarry(bug: PlantedBug) -> Quarry {
    Quarry {
        name: format!("{bug:?}"),
        sentence: bug.sentence(),
        layer: "simulation",
        found_by: bug.found_by(),
        words: "",
        stopped_by: bug.stopped_by(),
        seeds: bug.seeds(),
        simulate: Box::new(move |seed| simulate(&SimulationOptions { bug: Some(bug), ..SimulationOptions::new(seed) })),
    }
}

#[test]
fn every_planted_bug_is_found_by_the_check_meant_for_it() {
    let all = env::var_os(RARE_VARIABLE).is_some();
    let hunted = PlantedBug::ALL.iter().copied().filter(|bug| all || !bug.is_rare());
    hunt(&hunted.map(quarry).collect::<Vec<_>>());
    assert!(PlantedBug::ALL.len() >= 20);
}

#[test]
fn a_replica_that_loses_an_output_is_stopped_by_the_comparison_of_heads() {
    let stopped = |report: &Report| {
        report.stopped.get(&1).is_some_and(|reason| reason.contains("The majority prevails"))
            && report.stopped.len() == 1
    };
    let found = (1..=40).find(|seed| stopped(&(quarry(PlantedBug::LoseLiveOutput).simulate)(*seed)));
    assert!(found.is_some());
}

/// A failing seed becomes shorter, and still fails for the same reason.
#[test]
fn a_failing_seed_shrinks_to_fewer_faults() {
    let bug = PlantedBug::TornTail;
    let Some(Found { seed, report, .. }) = quarry(bug).find() else { panic!("{bug:?} is not found") };
    let options = SimulationOptions { bug: Some(bug), ..SimulationOptions::new(seed) };
    let shrunk = chaos_tests::sim::shrink::shrink(&options);
    let property = |report: &Report| report.violations().first().map(|violation| violation.property);
    assert!(
        shrunk.report.violations().iter().any(|violation| Some(violation.property) == property(&report)),
        "{shrunk}"
    );
    assert!(shrunk.report.schedule.len() < report.schedule.len(), "{shrunk}");
    let again = simulate(&SimulationOptions { left_out: shrunk.left_out.clone(), ..options });
    assert_eq!(again.trace_hash, shrunk.report.trace_hash, "a schedule with faults left out is one execution too");
    let numbers: Vec<String> = shrunk.left_out.iter().map(ToString::to_string).collect();
    let replay = format!("seriatim chaos sim --seed {seed} --steps 32 --leave-out {} --trace", numbers.join(","));
    assert!(shrunk.to_string().ends_with(&replay), "{shrunk}");
    println!("{shrunk}");
}
