//! Whole clusters of the real sequencer, apply and gateway code, from seeds.

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use chaos_tests::{Report, SimulationOptions, simulate};

/// Seeds of one run; more with this variable.
const SEEDS: u64 = 48;
const SEEDS_VARIABLE: &str = "SERIATIM_SIM_SEEDS";
/// Set for a process of its own that prints one seed's trace hash.
const CHILD_VARIABLE: &str = "SERIATIM_SIM_CHILD";

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
    let reports = simulate_many(count);
    let failed: Vec<String> = reports.iter().filter(|report| !report.is_sound()).map(Report::to_string).collect();
    assert!(failed.is_empty(), "{} of {count} seeds failed:\n{}", failed.len(), failed.join("\n"));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (faults, batches) = (sum(|report| report.faults), sum(|report| report.batches));
    println!("{count} seeds, {faults} faults, {batches} batches, no violation");
    assert!(
        faults > 20 * count && batches > 50 * count,
        "{faults} faults and {batches} batches in {count} seeds"
    );
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

#[test]
fn a_seed_has_one_trace_in_every_run_and_every_process() {
    let seed = 7;
    let trace = || simulate(&SimulationOptions::new(seed)).trace_hash;
    if env::var_os(CHILD_VARIABLE).is_some() {
        println!("trace={}", trace());
        return;
    }
    let first = trace();
    assert_eq!(first, trace(), "seed {seed} has two traces in one process");
    let name = "simulation::a_seed_has_one_trace_in_every_run_and_every_process";
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD_VARIABLE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(
        output.contains(&format!("trace={first}")),
        "seed {seed} has another trace in another process: {output}"
    );
}
