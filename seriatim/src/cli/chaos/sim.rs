//! `seriatim chaos sim`: seeds, one after another or many at once.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::{Report, SimulationOptions, simulate};

/// Runs whole clusters of the real code in one thread, on simulated time, network, disks and randomness. One seed gives
/// one execution, to the byte: what fails once fails again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seriatim chaos sim --seed 7                      one seed
  seriatim chaos sim --seed 7 --trace              with everything that happens, on standard error
  seriatim chaos sim --seed 1 --count 500          seeds 1 to 500, on every core
  seriatim chaos sim --seed 1 --for 8h --keep failing-seeds.txt      as a nightly run")]
pub(crate) struct SimArguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Go on for this long instead, whatever the count
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Length of each simulation: half a simulated second a step, with about one fault
    #[arg(long, default_value_t = chaos_tests::STEPS, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Without faults
    #[arg(long)]
    calm: bool,
    /// Look for the fewest faults with which a failing seed still fails
    #[arg(long)]
    shrink: bool,
    /// Add failing seeds to this file, one a line, to be run again by tests
    #[arg(long, value_name = "FILE")]
    keep: Option<std::path::PathBuf>,
    /// Print every event to standard error
    #[arg(long)]
    trace: bool,
    /// Print one JSON object per seed
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &SimArguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let next = AtomicU64::new(arguments.seed);
    let failed: Mutex<Vec<Report>> = Mutex::default();
    let done = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let one_by_one = arguments.trace || (arguments.count == 1 && arguments.time.is_none());
    let threads = if one_by_one { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = match arguments.time {
                        Some(time) => begun.elapsed() >= time,
                        None => seed >= arguments.seed.saturating_add(arguments.count),
                    };
                    if enough {
                        return;
                    }
                    let report = simulate(&options(arguments, seed));
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    tell(&report, arguments.json);
                    if threads > 1 && count.is_multiple_of(100) {
                        eprintln!("{count} seeds after {:.0} s", begun.elapsed().as_secs_f64());
                    }
                    if !report.is_sound() {
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    eprintln!(
        "{} of {} seeds failed in {:.0} s",
        failed.len(),
        done.load(Ordering::Relaxed),
        begun.elapsed().as_secs_f64()
    );
    for report in &failed {
        follow_up(report, arguments)?;
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(arguments: &SimArguments, seed: u64) -> SimulationOptions {
    SimulationOptions {
        steps: arguments.steps,
        faults: !arguments.calm,
        trace_printed: arguments.trace,
        ..SimulationOptions::new(seed)
    }
}

fn tell(report: &Report, as_json: bool) {
    if as_json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
}

/// Keeps a failing seed, and makes it short.
fn follow_up(report: &Report, arguments: &SimArguments) -> anyhow::Result<()> {
    if let Some(file) = &arguments.keep {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).create(true).open(file)?;
        writeln!(file, "{} {}", report.seed, arguments.steps)?;
    }
    if arguments.shrink {
        let shrunk = chaos_tests::sim::shrink::shrink(&options(arguments, report.seed));
        eprintln!("{shrunk}");
    }
    Ok(())
}
