//! What proving costs, without a cluster: the same evidence in different ways.

mod block;
mod recorded;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use bench::prove::{BlockFigures, OLDER, ProveReport, ProveRow, Way, Workload, fit, memory_fit};
use bench::report::number;
use checker::collect::{self, Testimony};
use checker::{Chunk, Replay, Verdict};
use prover::step::StepBounds;
use prover::{Prover, ProverSettings, solver_version};
use rustix::time::{ClockId, clock_gettime};

use world::World;

pub use block::block_graph;

/// Transactions of a batch.
const BATCH: usize = 1_000;
/// Issues with which a replay is led up to what is measured.
const LEAD: usize = 20;
/// Outputs of one issue.
const ISSUED: usize = 50;
/// Work is repeated until it took so long, or so often.
const TIME_MIN: Duration = Duration::from_millis(60);
const REPETITIONS_MAX: u32 = 5_000;
/// Chunks that are proved with a fresh solver each, and by one solver that keeps nothing: more would take minutes and say
/// the same.
const FRESH_CHUNKS: usize = 10;
const ONE_SOLVER_CHUNKS: usize = 25;

/// What is measured: every combination.
#[derive(Debug, Clone)]
pub struct ProveOptions {
    /// What the transactions do, how many of a hundred lose a race, how long chains are, how many there are.
    pub cases: Vec<Case>,
    /// A Bitcoin block in consensus serialization.
    pub block: Option<Vec<u8>>,
    /// A ledger's batches from the first one on, each in the bytes in which nodes hand it out; empty for none.
    pub recorded: Vec<Vec<u8>>,
    /// Only the linear checker.
    pub checker_only: bool,
}

/// One kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What the transactions do.
    pub workload: Workload,
    /// Of a hundred so many lose a race.
    pub contention_percent: usize,
    /// Transactions of a chain; 1 for none.
    pub depth: usize,
    /// Transactions.
    pub size: usize,
}

/// Measures. `progress` is called with cases done, and how many there are.
///
/// # Errors
/// Where the block is none, or cannot be applied.
pub fn prove(options: &ProveOptions, progress: &mut dyn FnMut(usize, usize)) -> anyhow::Result<ProveReport> {
    let mut report = ProveReport {
        workload: "bench prove",
        solver: solver_version().to_owned(),
        rows: Vec::new(),
        fits: Vec::new(),
        memory_fit: None,
        older: OLDER,
        block: None,
        recorded: None,
        transactions: 0,
        refuted: 0,
        inconclusive: 0,
    };
    let all = options.cases.len() + usize::from(options.block.is_some()) + usize::from(!options.recorded.is_empty());
    for (done, case) in options.cases.iter().enumerate() {
        progress(done, all);
        let evidence = evidence(case);
        let labels = Labels { name: case.workload.name(), contention: case.contention_percent, depth: case.depth };
        measure(&labels, &evidence, options.checker_only, &mut report);
    }
    if let Some(bytes) = &options.block {
        progress(options.cases.len(), all);
        report.block = Some(measure_block(bytes, options.checker_only, &mut report)?);
    }
    if !options.recorded.is_empty() {
        progress(all - 1, all);
        let mut sums = Sums::default();
        report.recorded = Some(recorded::measure(&options.recorded, &mut sums)?);
        report.refuted += sums.refuted;
        report.inconclusive += sums.inconclusive;
    }
    progress(all, all);
    for way in [Way::ColdCache, Way::WarmCache, Way::Checker] {
        let swept = report.rows.iter().filter(|row| row.way == way && row.workload == "mixed");
        let swept = swept.filter(|row| row.contention_percent == 5 && row.depth == 1);
        let points: Vec<(f64, f64)> = swept.map(|row| (of_count(row.transactions), row.seconds)).collect();
        report.fits.extend(fit(way, &points));
    }
    let swept = report.rows.iter().filter(|row| row.way == Way::WarmCache && row.workload == "mixed");
    let swept = swept.filter(|row| row.contention_percent == 5 && row.depth == 1);
    let points: Vec<(f64, f64)> = swept.map(|row| (of_count(row.transactions), row.resident_mib)).collect();
    report.memory_fit = memory_fit(&points);
    Ok(report)
}

/// Chunks, and a replay that is led up to the first.
struct Evidence {
    before: Replay,
    /// Chunks between that replay and the first that is measured. A replay that was just copied has no room to grow:
    /// moving all of it elsewhere would be measured, which a replay that follows a ledger seldom does.
    lead: Vec<Chunk>,
    chunks: Vec<Chunk>,
    transactions: usize,
}

impl Evidence {
    /// A replay that stands before the first chunk, as one that came here by following.
    fn replay(&self) -> Replay {
        let mut replay = self.before.clone();
        let sums = replayed(&self.lead, &mut replay);
        assert!(sums.refuted + sums.inconclusive == 0, "what was accepted before is accepted again");
        replay
    }
}

struct Labels<'a> {
    name: &'a str,
    contention: usize,
    depth: usize,
}

/// A processor clock of this thread: what else the machine does is not counted.
#[derive(Clone, Copy)]
struct Processor(Duration);

impl Processor {
    fn now() -> Self {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Self(Duration::try_from(now).unwrap_or_default())
    }

    fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

fn of_count(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

fn evidence(case: &Case) -> Evidence {
    let mut world = World::new();
    let mut replay = Replay::genesis(world::cluster(), 0, 42);
    // enough positions for everybody, and as many to choose from
    let issues = (case.size * 8).div_ceil(ISSUED * BATCH).max(1);
    for _ in 0..issues {
        let issued = world.batch(BATCH, &mut World::issue);
        accepted(&issued, &mut replay);
    }
    let before = replay.clone();
    let lead = accepted(&world.batch(LEAD, &mut World::issue), &mut replay);
    let (mut chunks, mut left) = (Vec::new(), case.size);
    while left > 0 {
        let size = left.min(BATCH);
        let make = &mut |world: &mut World| world.transaction(case.workload, case.contention_percent, case.depth);
        chunks.extend(accepted(&world.batch(size, make), &mut replay));
        left -= size;
    }
    Evidence { before, lead, chunks, transactions: case.size }
}

/// The chunks of a batch, which the replay has moved behind.
fn accepted(told: &Testimony, replay: &mut Replay) -> Vec<Chunk> {
    let chunks = collect::chunks(told, replay);
    for chunk in &chunks {
        if let Err(finding) = replay.accept(chunk) {
            panic!("the workload is not what it says: {finding}");
        }
    }
    chunks
}

fn measure(labels: &Labels<'_>, evidence: &Evidence, checker_only: bool, report: &mut ProveReport) {
    let mut row =
        |way: Way, chunks: &[Chunk], fresh: Option<f64>, work: &mut dyn FnMut(&[Chunk]) -> (Sums, Duration)| {
            // what was never in the processor's caches, and what else the machine does, weighs less in repeated work
            let (mut time, mut repetitions) = (Duration::ZERO, 0_u32);
            let sums = loop {
                let (sums, took) = work(chunks);
                time += took;
                repetitions += 1;
                if time >= TIME_MIN || repetitions >= REPETITIONS_MAX {
                    break sums;
                }
            };
            let seconds = time.as_secs_f64() / f64::from(repetitions);
            let transactions: usize = chunks.iter().map(|chunk| chunk.entries.len()).sum();
            report.transactions += u64::try_from(transactions).unwrap_or(u64::MAX);
            report.refuted += sums.refuted;
            report.inconclusive += sums.inconclusive;
            let rate = of_count(transactions) / seconds.max(1e-9);
            report.rows.push(ProveRow {
                workload: labels.name.to_owned(),
                contention_percent: labels.contention,
                depth: labels.depth,
                size: evidence.transactions,
                way,
                transactions,
                seconds,
                transactions_per_second: rate,
                times_faster_than_fresh: fresh.map(|fresh| rate / fresh),
                resident_mib: resident_mib(),
                pattern_hits: sums.hits,
                pattern_misses: sums.misses,
                solver_checks: sums.checks,
            });
            rate
        };
    row(Way::Checker, &evidence.chunks, None, &mut |chunks| {
        let mut replay = evidence.replay();
        let (mut sums, mut time) = (Sums::default(), Duration::ZERO);
        for chunk in chunks {
            // whoever follows a ledger has just read the chunk that it checks, and does not fetch it from far memory
            let chunk = chunk.clone();
            let (of_chunk, took) = timed(|| replayed(std::slice::from_ref(&chunk), &mut replay));
            (sums, time) = (sums.and(of_chunk), time + took);
        }
        (sums, time)
    });
    if checker_only {
        return;
    }
    let no_steps = StepBounds { inputs_max: 0, references_max: 0, outputs_max: 0 };
    let keeping = ProverSettings { steps: no_steps, ..ProverSettings::default() };
    let nothing_kept = ProverSettings { patterns_max: 0, ..keeping };
    let some = |count: usize| evidence.chunks.get(..count).unwrap_or(&evidence.chunks);
    let fresh = row(Way::FreshSolver, some(FRESH_CHUNKS), None, &mut |chunks| {
        timed(|| {
            let each = chunks.iter().map(|chunk| proved(std::slice::from_ref(chunk), &mut Prover::new(nothing_kept)));
            each.fold(Sums::default(), Sums::and)
        })
    });
    let mut one = Prover::new(nothing_kept);
    row(Way::OneSolver, some(ONE_SOLVER_CHUNKS), Some(fresh), &mut |chunks| {
        timed(|| proved(chunks, &mut one))
    });
    let mut cached = Prover::new(keeping);
    row(Way::ColdCache, &evidence.chunks, Some(fresh), &mut |chunks| {
        cached = Prover::new(keeping);
        timed(|| proved(chunks, &mut cached))
    });
    row(Way::WarmCache, &evidence.chunks, Some(fresh), &mut |chunks| timed(|| proved(chunks, &mut cached)));
}

fn timed(work: impl FnOnce() -> Sums) -> (Sums, Duration) {
    let began = Processor::now();
    let sums = work();
    (sums, began.elapsed())
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    hits: u64,
    misses: u64,
    checks: u64,
    refuted: u64,
    inconclusive: u64,
}

impl Sums {
    fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            checks: self.checks + other.checks,
            refuted: self.refuted + other.refuted,
            inconclusive: self.inconclusive + other.inconclusive,
        }
    }
}

fn proved(chunks: &[Chunk], prover: &mut Prover) -> Sums {
    let mut sums = Sums::default();
    for chunk in chunks {
        let report = prover.judge_by_solver(chunk, true);
        sums.hits += report.statistics.pattern_hits;
        sums.misses += report.statistics.pattern_misses;
        sums.checks += report.statistics.solver_checks;
        count(&report.verdict, &mut sums);
    }
    sums
}

fn replayed(chunks: &[Chunk], replay: &mut Replay) -> Sums {
    let mut sums = Sums::default();
    for chunk in chunks {
        if let Err(finding) = replay.accept(chunk) {
            count(&finding.into(), &mut sums);
        }
    }
    sums
}

fn count(verdict: &Verdict, sums: &mut Sums) {
    match verdict {
        Verdict::Proved => {}
        Verdict::Refuted(_) => sums.refuted += 1,
        Verdict::Inconclusive(_) => sums.inconclusive += 1,
    }
}

fn measure_block(bytes: &[u8], checker_only: bool, report: &mut ProveReport) -> anyhow::Result<BlockFigures> {
    let block = block::evidence(bytes)?;
    let labels = Labels { name: "block", contention: 0, depth: block.depth };
    let before = report.refuted + report.inconclusive;
    measure(&labels, &block.evidence, checker_only, report);
    let proved = report.refuted + report.inconclusive == before;
    let mut prover = Prover::new(ProverSettings::default());
    let mut replay = block.before_planted;
    let mut found: BTreeMap<bool, Verdict> = BTreeMap::new();
    for chunk in collect::chunks(&block.planted, &replay) {
        let judged = prover.judge(&chunk, &mut replay);
        if !judged.by_replay.is_proved() {
            found.insert(true, judged.by_replay);
            found.insert(false, judged.by_solver);
            break;
        }
    }
    let names = |verdict: &Verdict| match verdict {
        Verdict::Refuted(counterexample) => {
            let named = |id| counterexample.transactions.iter().any(|named| named.id == id);
            named(block.second) && named(block.first)
        }
        Verdict::Proved | Verdict::Inconclusive(_) => false,
    };
    Ok(BlockFigures {
        transactions: block.evidence.transactions,
        proved,
        planted_refuted: found.len() == 2 && found.values().all(|verdict| matches!(verdict, Verdict::Refuted(_))),
        planted_named: found.get(&true).is_some_and(names),
    })
}
