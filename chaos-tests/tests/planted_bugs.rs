//! The checks are checked: each flaw of the simulated world is found within so many seeds, by the check meant for it.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chaos_tests::{PlantedBug, Report, SimulationOptions, simulate};

/// Also hunts for bugs that take hundreds of seeds: minutes each.
const RARE_VARIABLE: &str = "SERIATIM_SIM_RARE_BUGS";

/// What found a bug: the seed, and the faults that it took.
struct Found {
    seed: u64,
    report: Report,
}

fn is_found(bug: PlantedBug, report: &Report) -> bool {
    report.violations().iter().any(|violation| bug.found_by().contains(&violation.property))
}

fn find(bug: PlantedBug) -> Option<Found> {
    (1..=bug.seeds()).find_map(|seed| {
        let report = simulate(&SimulationOptions { bug: Some(bug), ..SimulationOptions::new(seed) });
        is_found(bug, &report).then_some(Found { seed, report })
    })
}

/// One line of the table in docs/chaos.md.
fn line(bug: PlantedBug, found: Option<&Found>) -> String {
    let Some(Found { seed, report }) = found else { return format!("| {bug:?} | NOT FOUND within {} |", bug.seeds()) };
    let by = report.violations().iter().find(|violation| bug.found_by().contains(&violation.property));
    let by = by.map(|violation| violation.property.label()).unwrap_or_default();
    format!("| `{bug:?}` | {} | {by} | {seed} | {} |", bug.sentence(), report.faults)
}

#[test]
fn every_planted_bug_is_found_by_the_check_meant_for_it() {
    let all = env::var_os(RARE_VARIABLE).is_some();
    let hunted: Vec<PlantedBug> = PlantedBug::ALL.iter().copied().filter(|bug| all || !bug.is_rare()).collect();
    let next = AtomicUsize::new(0);
    let hunt = || {
        let mut lines = Vec::new();
        while let Some(bug) = hunted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = find(*bug);
            lines.push((line(*bug, found.as_ref()), found.is_some()));
            println!("{}", lines.last().map(|(line, _)| line.as_str()).unwrap_or_default());
        }
        lines
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let lines: Vec<(String, bool)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(hunt)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the hunt does not panic")).collect()
    });
    assert_eq!(lines.len(), hunted.len());
    let missed: Vec<&str> = lines.iter().filter(|(_, found)| !found).map(|(line, _)| line.as_str()).collect();
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    assert!(PlantedBug::ALL.len() >= 20);
}

#[test]
fn a_replica_that_loses_an_output_is_stopped_by_the_comparison_of_heads() {
    let stopped = |report: &Report| {
        report.stopped.get(&1).is_some_and(|reason| reason.contains("The majority prevails"))
            && report.stopped.len() == 1
    };
    let found = (1..=40).find(|seed| {
        stopped(&simulate(&SimulationOptions {
            bug: Some(PlantedBug::LoseLiveOutput),
            ..SimulationOptions::new(*seed)
        }))
    });
    assert!(found.is_some());
}

/// A failing seed becomes shorter, and still fails for the same reason.
#[test]
fn a_failing_seed_shrinks_to_fewer_faults() {
    let bug = PlantedBug::TornTail;
    let Some(Found { seed, report }) = find(bug) else { panic!("{bug:?} is not found") };
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
    println!("{shrunk}");
}
