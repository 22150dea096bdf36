//! Replays seeds: `cargo run --release -p chaos-tests --example seed -- FIRST [COUNT] [BUG]`, where BUG is one of the
//! planted ones. With `SERIATIM_SIM_TRACE=1` every event goes to standard error. Ends with 1 where a seed fails.

use std::env;
use std::process::ExitCode;

use chaos_tests::{PlantedBug, SimulationOptions, simulate};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let mut number = |fallback: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(fallback);
    let (first, count) = (number(1), number(1));
    let named = arguments.next();
    let bug = named.and_then(|name| PlantedBug::ALL.into_iter().find(|bug| format!("{bug:?}") == name));
    let trace_printed = env::var_os("SERIATIM_SIM_TRACE").is_some();
    let mut failed = 0_u64;
    for seed in first..first.saturating_add(count) {
        let report = simulate(&SimulationOptions { bug, trace_printed, ..SimulationOptions::new(seed) });
        println!("{report}");
        failed += u64::from(!report.is_sound());
    }
    println!("{failed} of {count} seeds failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
