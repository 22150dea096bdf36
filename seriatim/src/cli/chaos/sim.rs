//! `seriatim chaos sim`: seeds, one after another or many at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chaos_tests::sim::nemesis::Fault;
use chaos_tests::{Report, SimulationOptions, history, simulate_with_history};

/// Runs whole clusters of the real code in one thread, on simulated time, network, disks and randomness. One seed gives
/// one execution, to the byte: what fails once fails again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seriatim chaos sim --seed 7                      one seed
  seriatim chaos sim --seed 7 --trace              with everything that happens, on standard error
  seriatim chaos sim --seed 7 --leave-out 3,5      without some of its faults, as --shrink names them
  seriatim chaos sim --seed 7 --faults SplitVote,CrashAll            with these kinds of faults alone
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
    #[arg(long = "for", value_name = "TIME", value_parser = some_time)]
    time: Option<Duration>,
    /// Length of each simulation: half a simulated second a step, with one or two faults
    #[arg(long, default_value_t = chaos_tests::STEPS, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Without faults
    #[arg(long)]
    calm: bool,
    /// Which kinds of faults to draw from; where none is named, each seed has kinds of its own
    #[arg(long, value_delimiter = ',', value_name = "KIND,…", conflicts_with = "calm")]
    faults: Vec<Fault>,
    /// Without the faults of these numbers; all others happen as if these had
    #[arg(long, value_delimiter = ',', value_name = "NUMBER,…", conflicts_with_all = ["calm", "count", "time"])]
    leave_out: Vec<usize>,
    /// Look for the fewest faults with which a failing seed still fails
    #[arg(long)]
    shrink: bool,
    /// Add failing seeds to this file as they are found, one a line, to be run again by tests
    #[arg(long, value_name = "FILE", conflicts_with_all = ["calm", "faults", "leave_out"])]
    keep: Option<PathBuf>,
    /// Write each seed's report and history (as JSON lines and as EDN) into a folder of its own in this directory
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Print every event to standard error
    #[arg(long)]
    trace: bool,
    /// Print one JSON object per seed
    #[arg(long)]
    json: bool,
}

fn some_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no seed can be simulated in no time".to_owned()),
        other => other.map_err(|fault| fault.to_string()),
    }
}

/// What the threads share.
struct Hunt<'a> {
    arguments: &'a SimArguments,
    begun: Instant,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Those that nobody has begun.
    seeds: RangeInclusive<u64>,
    begun: u64,
    done: u64,
    failed: Vec<u64>,
    keep: Option<File>,
    /// What ended the hunt before its time: something that cannot be written.
    fault: Option<anyhow::Error>,
}

pub(crate) fn run(arguments: &SimArguments) -> anyhow::Result<ExitCode> {
    let Some(seeds) = seeds(arguments) else {
        eprintln!(
            "error: there are no {} seeds from {} on: the last one is {}",
            arguments.count,
            arguments.seed,
            u64::MAX
        );
        return Ok(ExitCode::from(2));
    };
    let keep = arguments.keep.as_deref().map(opened).transpose()?;
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    }
    let progress = Progress { seeds, begun: 0, done: 0, failed: Vec::new(), keep, fault: None };
    let hunt = Hunt { arguments, begun: Instant::now(), progress: Mutex::new(progress) };
    let one_by_one = arguments.trace || (arguments.count == 1 && arguments.time.is_none());
    let threads = if one_by_one { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(|| hunt.go()))));
    let Hunt { begun, progress, .. } = hunt;
    let Progress { done, mut failed, fault, .. } = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!("{} of {done} seeds failed in {:.0} s", failed.len(), begun.elapsed().as_secs_f64());
    if let Some(fault) = fault {
        return Err(fault);
    }
    failed.sort_unstable();
    for seed in failed.iter().filter(|_| arguments.shrink) {
        eprintln!("{}", chaos_tests::sim::shrink::shrink(&options(arguments, *seed)));
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which seeds are asked for; `None` where numbers end before them.
fn seeds(arguments: &SimArguments) -> Option<RangeInclusive<u64>> {
    let last = match arguments.time {
        Some(_) => u64::MAX,
        None => arguments.seed.checked_add(arguments.count.checked_sub(1)?)?,
    };
    Some(arguments.seed..=last)
}

fn opened(file: &Path) -> anyhow::Result<File> {
    File::options().append(true).create(true).open(file).with_context(|| format!("opening {}", file.display()))
}

impl Hunt<'_> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulates until no seed or no time is left.
    fn go(&self) {
        while let Some(seed) = self.next() {
            let (report, operations) = simulate_with_history(&options(self.arguments, seed));
            let written = self.write(&report, &operations);
            self.tell(&report, written);
        }
    }

    /// The first seed is simulated however little time there is.
    fn next(&self) -> Option<u64> {
        let mut progress = self.progress();
        let is_over = self.arguments.time.is_some_and(|time| self.begun.elapsed() >= time) && progress.begun > 0;
        if is_over || progress.fault.is_some() {
            return None;
        }
        let seed = progress.seeds.next()?;
        progress.begun += 1;
        Some(seed)
    }

    fn tell(&self, report: &Report, written: anyhow::Result<()>) {
        let mut progress = self.progress();
        if self.arguments.json {
            println!("{}", report.to_json());
        } else {
            println!("{report}");
        }
        progress.done += 1;
        if progress.done.is_multiple_of(100) {
            eprintln!("{} seeds after {:.0} s", progress.done, self.begun.elapsed().as_secs_f64());
        }
        let mut kept = Ok(());
        if !report.is_sound() {
            progress.failed.push(report.seed);
            kept = progress.keep.as_mut().map_or(Ok(()), |file| keep(file, report));
        }
        if let Err(fault) = written.and(kept) {
            progress.fault.get_or_insert(fault);
        }
    }

    fn write(&self, report: &Report, operations: &[history::Operation]) -> anyhow::Result<()> {
        let Some(out) = &self.arguments.out else { return Ok(()) };
        let directory = out.join(format!("seed-{}", report.seed));
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let file = directory.join("report.json");
        fs::write(&file, report.to_json() + "\n").with_context(|| format!("writing {}", file.display()))?;
        history::write(&directory, operations)
    }
}

/// As soon as it is found: a night may be broken off.
fn keep(file: &mut File, report: &Report) -> anyhow::Result<()> {
    // in one piece: others may write to the file as well
    file.write_all(format!("{} {}\n", report.seed, report.steps).as_bytes()).context("keeping a failing seed")?;
    file.sync_data().context("keeping a failing seed")
}

fn options(arguments: &SimArguments, seed: u64) -> SimulationOptions {
    SimulationOptions {
        steps: arguments.steps,
        faults: !arguments.calm,
        kinds: arguments.faults.clone(),
        left_out: arguments.leave_out.iter().copied().collect::<BTreeSet<usize>>(),
        trace_printed: arguments.trace,
        ..SimulationOptions::new(seed)
    }
}
