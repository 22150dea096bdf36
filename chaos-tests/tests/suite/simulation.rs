//! Whole clusters of the real sequencer, apply and gateway code, from seeds.

use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::check::Property;
use chaos_tests::sim::nemesis::Fault;
use chaos_tests::{Report, SimulationOptions, simulate};

/// Seeds of one run; more with this variable.
const SEEDS: u64 = 48;
const SEEDS_VARIABLE: &str = "SERIATIM_SIM_SEEDS";
/// Seeds whose trace hashes a process of its own prints.
const CHILD_VARIABLE: &str = "SERIATIM_SIM_CHILD";
/// Of so many seeds a run has to have simulated so much.
const FLOORS: Floors = Floors { seeds: 2_000, hours: 10.0, faults: 60_000, operations: 800_000 };

struct Floors {
    seeds: u64,
    hours: f64,
    faults: u64,
    operations: usize,
}

/// Runs seeds from 1 on, on every core.
fn simulate_many(count: u64) -> Vec<Report> {
    let next = AtomicU64::new(1);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let run = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > count {
                return reports;
            }
            reports.push(simulate(&SimulationOptions::new(seed)));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_cluster_without_faults_keeps_every_invariant() {
    let report = simulate(&SimulationOptions { faults: false, ..SimulationOptions::new(1) });
    assert!(report.is_sound(), "{report}");
    assert!(report.acknowledged > 500, "{report}");
}

#[test]
fn clusters_keep_every_invariant_through_crashes_and_partitions() {
    let count = env::var(SEEDS_VARIABLE).ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    let began = Instant::now();
    let reports = simulate_many(count);
    let failed: Vec<String> = reports.iter().filter(|report| !report.is_sound()).map(Report::to_string).collect();
    assert!(failed.is_empty(), "{} of {count} seeds failed:\n{}", failed.len(), failed.join("\n"));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (faults, batches) = (sum(|report| report.faults), sum(|report| report.batches));
    let operations: usize = reports.iter().map(|report| report.operations).sum();
    let simulated: Duration = reports.iter().map(|report| report.simulated).sum();
    println!(
        "{count} seeds in {:.0} s: {:.1} hours simulated, {faults} faults, {operations} operations, {batches} batches, no \
         violation",
        began.elapsed().as_secs_f64(),
        simulated.as_secs_f64() / 3_600.0
    );
    if count >= FLOORS.seeds {
        let hours = simulated.as_secs_f64() / 3_600.0;
        assert!(hours >= FLOORS.hours, "{hours} hours simulated");
        assert!(
            faults >= FLOORS.faults && operations >= FLOORS.operations,
            "{faults} faults, {operations} operations"
        );
    }
    assert!(
        faults > 20 * count && batches > 50 * count,
        "{faults} faults and {batches} batches in {count} seeds"
    );
}

/// Whoever lies in wait for a moment gives up when faults end: what it cut afterwards nobody would join again.
#[test]
fn no_ambush_outlasts_the_faults() {
    for seed in 1..=40 {
        let options = SimulationOptions { kinds: vec![Fault::SplitVote], steps: 6, ..SimulationOptions::new(seed) };
        let report = simulate(&options);
        assert!(report.is_sound(), "{report}");
    }
}

/// Seeds that failed once, as `seriatim chaos sim --keep` writes them: seed and steps. Whatever was wrong is mended.
#[test]
fn seeds_that_failed_once_stay_sound() {
    let kept = include_str!("../kept_seeds.txt");
    let seeds = kept.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (seed, steps) = line.split_once(' ').unwrap();
        (seed.parse().unwrap(), steps.parse().unwrap())
    });
    for (seed, steps) in seeds {
        let report = simulate(&SimulationOptions { steps, ..SimulationOptions::new(seed) });
        assert!(report.is_sound(), "{report}");
    }
}

/// What was looked at is told of every property that a simulation can have violated.
#[test]
fn each_check_tells_how_much_it_looked_at() {
    let reports: Vec<Report> = (1..=4).map(|seed| simulate(&SimulationOptions::new(seed))).collect();
    for property in Property::ALL.into_iter().filter(|property| *property != Property::Attestations) {
        for report in &reports {
            assert!(report.findings.checked(property) > 0, "{}: {report}", property.label());
        }
    }
}

/// One in a hundred of those that CI runs: enough that whatever a trace may hang on is among them, provers too.
fn compared_seeds() -> Vec<u64> {
    (0..20).map(|number| 1 + 100 * number).collect()
}

/// Each seed's trace, one a line.
fn traces(seeds: &[u64]) -> Vec<String> {
    let trace = |seed: &u64| {
        let report = simulate(&SimulationOptions::new(*seed));
        let proved = report.findings.checked(Property::Attestations) > 0;
        format!("seed={seed} trace={} proved={proved}", report.trace_hash)
    };
    seeds.iter().map(trace).collect()
}

#[test]
fn a_seed_has_one_trace_in_every_run_and_every_process() {
    if let Ok(seeds) = env::var(CHILD_VARIABLE) {
        let seeds: Vec<u64> = seeds.split(',').map(|seed| seed.parse().unwrap()).collect();
        traces(&seeds).iter().for_each(|line| println!("{line}"));
        return;
    }
    let seeds = compared_seeds();
    let list: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let name = "simulation::a_seed_has_one_trace_in_every_run_and_every_process";
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD_VARIABLE, list.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let here = traces(&seeds);
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    // the test runner writes on the first one's line
    let there: Vec<&str> = output.lines().filter_map(|line| line.find("seed=").and_then(|at| line.get(at..))).collect();
    assert_eq!(here, there, "another process has other traces");
    let with_prover = here.iter().position(|line| line.ends_with("proved=true")).unwrap();
    for again in [0, with_prover] {
        assert_eq!(traces(&seeds[again..=again]), here[again..=again], "two traces in one process");
    }
}
