//! What proving costs, as figures: what was measured, in which way, and what an older prover needed.

use serde::Serialize;

use crate::line::Line;

/// What the transactions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Two positions of different assets change hands.
    Swaps,
    /// A position is paid in two parts.
    Payments,
    /// A position is paid in eight.
    Splits,
    /// Up to four positions of one asset become one.
    Merges,
    /// Up to six positions of two assets are netted.
    Nets,
    /// All of these.
    Mixed,
}

impl Workload {
    /// Every single one.
    pub const ALL: [Self; 5] = [Self::Swaps, Self::Payments, Self::Splits, Self::Merges, Self::Nets];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Swaps => "swaps",
            Self::Payments => "payments",
            Self::Splits => "splits",
            Self::Merges => "merges",
            Self::Nets => "nets",
            Self::Mixed => "mixed",
        }
    }
}

/// How the transactions were proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A fresh solver for every chunk, nothing kept.
    FreshSolver,
    /// One incremental solver, nothing kept.
    OneSolver,
    /// One incremental solver and an empty cache of patterns.
    ColdCache,
    /// The same again: the patterns are known.
    WarmCache,
    /// The linear checker alone, following the ledger.
    Checker,
}

impl Way {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FreshSolver => "fresh solver per chunk",
            Self::OneSolver => "one incremental solver",
            Self::ColdCache => "incremental, cold cache",
            Self::WarmCache => "incremental, warm cache",
            Self::Checker => "linear checker",
        }
    }
}

/// One measurement. Times are processor time of the one thread that works.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProveRow {
    /// The workload's name, or the block.
    pub workload: String,
    /// Of a hundred transactions so many lose a race.
    pub contention_percent: usize,
    /// Transactions of a chain.
    pub depth: usize,
    /// Transactions of the whole batch sequence: what the row is about.
    pub size: usize,
    /// How.
    pub way: Way,
    /// Transactions that were measured: fewer than `size` where all of them would take too long.
    pub transactions: usize,
    /// Time for them, in seconds.
    pub seconds: f64,
    /// The same as a rate.
    pub transactions_per_second: f64,
    /// How much faster than a fresh solver per chunk, where that was measured.
    pub times_faster_than_fresh: Option<f64>,
    /// Resident memory after it, in MiB.
    pub resident_mib: f64,
    /// Windows whose pattern was known.
    pub pattern_hits: u64,
    /// Windows whose pattern was proved for them.
    pub pattern_misses: u64,
    /// Questions to the solver.
    pub solver_checks: u64,
}

/// A figure of the prover that this one replaces, measured on this class of machine: a fresh solver, weaker constraints.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OlderFigure {
    /// Transactions.
    pub transactions: usize,
    /// Seconds; for the last, the time after which it was given up.
    pub seconds: f64,
    /// Whether there was a result.
    pub finished: bool,
}

/// What the older document's prover needed.
pub const OLDER: [OlderFigure; 3] = [
    OlderFigure { transactions: 100, seconds: 0.306, finished: true },
    OlderFigure { transactions: 200, seconds: 1.53, finished: true },
    OlderFigure { transactions: 1_000, seconds: 120.0, finished: false },
];

/// How time grows with the number of transactions: seconds = constant + slope · transactions, by least squares of the
/// relative errors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// How.
    pub way: Way,
    /// Microseconds for each further transaction.
    pub micros_per_transaction: f64,
    /// Microseconds before the first.
    pub constant_micros: f64,
    /// The largest deviation of a measurement from the line, in percent of the measurement.
    pub largest_deviation_percent: f64,
}

/// A block given as real input, and what became of a double spend planted in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlockFigures {
    /// Its transactions as ours.
    pub transactions: usize,
    /// True where every one of them was proved.
    pub proved: bool,
    /// True where a second spender that is said to have committed is refuted.
    pub planted_refuted: bool,
    /// True where the counterexample names it and whoever was first.
    pub planted_named: bool,
}

/// What a prover spends on a ledger's own evidence with a warm cache. Processor time of one thread, without the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedFigures {
    /// Batches in the file.
    pub batches: usize,
    /// Transactions in them.
    pub transactions: usize,
    /// All steps, with an empty cache of patterns.
    pub cold_micros_per_transaction: f64,
    /// All steps, with every pattern known.
    pub warm_micros_per_transaction: f64,
    /// Step by step, with every pattern known.
    pub steps: Vec<Step>,
}

/// One of the things that a prover does with a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What.
    pub name: &'static str,
    /// Processor time.
    pub micros_per_transaction: f64,
}

/// A run of `bench prove`. The keys are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProveReport {
    /// What ran.
    pub workload: &'static str,
    /// The solver.
    pub solver: String,
    /// The measurements.
    pub rows: Vec<ProveRow>,
    /// Growth with size.
    pub fits: Vec<Fit>,
    /// The same of memory.
    pub memory_fit: Option<MemoryFit>,
    /// The older prover.
    pub older: [OlderFigure; 3],
    /// The block, where one was given.
    pub block: Option<BlockFigures>,
    /// A ledger's own evidence, where it was given.
    pub recorded: Option<RecordedFigures>,
    /// Transactions proved in all rows together.
    pub transactions: u64,
    /// Batches of honest evidence that were refuted: a false alarm each.
    pub refuted: u64,
    /// Batches that were left undecided.
    pub inconclusive: u64,
}

impl ProveReport {
    /// True where everything honest was proved, and what was planted was not.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let block =
            self.block.as_ref().is_none_or(|block| block.proved && block.planted_refuted && block.planted_named);
        self.refuted == 0 && self.inconclusive == 0 && block
    }

    /// The report as JSON.
    ///
    /// # Panics
    /// Never: the report holds nothing that JSON cannot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, texts and lists of them are JSON")
    }
}

/// How memory grows with the number of transactions, as [`Fit`] says it of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryFit {
    /// Bytes for each further transaction: its evidence, the replay that follows, and a share of what it may spend.
    pub bytes_per_transaction: f64,
    /// MiB before the first.
    pub constant_mib: f64,
    /// The largest deviation of a measurement from the line, in percent of the measurement.
    pub largest_deviation_percent: f64,
}

/// Fits a line to measurements of (transactions, seconds); `None` where there are too few.
#[must_use]
pub fn fit(way: Way, points: &[(f64, f64)]) -> Option<Fit> {
    line(points).map(|(line, largest_deviation_percent)| Fit {
        way,
        micros_per_transaction: line.slope * 1e6,
        constant_micros: line.at_zero * 1e6,
        largest_deviation_percent,
    })
}

/// Fits a line to measurements of (transactions, MiB); `None` where there are too few.
#[must_use]
pub fn memory_fit(points: &[(f64, f64)]) -> Option<MemoryFit> {
    line(points).map(|(line, largest_deviation_percent)| MemoryFit {
        bytes_per_transaction: line.slope * 1_048_576.0,
        constant_mib: line.at_zero,
        largest_deviation_percent,
    })
}

/// The line, and its largest deviation in percent; `None` with fewer than three points.
fn line(points: &[(f64, f64)]) -> Option<(Line, f64)> {
    let line = Line::through(points).filter(|_| points.len() >= 3)?;
    Some((line, line.largest_deviation_percent(points)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_line_is_found_in_points_that_lie_on_one() {
        let points = [10.0, 100.0, 1_000.0, 100_000.0].map(|x| (x, 0.001 + x * 2e-6));
        let found = fit(Way::WarmCache, &points).unwrap();
        assert!((found.micros_per_transaction - 2.0).abs() < 1e-6 && (found.constant_micros - 1_000.0).abs() < 1e-3);
        assert!(found.largest_deviation_percent < 1e-6);
        assert_eq!(fit(Way::WarmCache, &points[..2]), None);
        let found = memory_fit(&points.map(|(x, _)| (x, 3.0 + x / 1_048.576))).unwrap();
        assert!((found.bytes_per_transaction - 1_000.0).abs() < 1e-6 && (found.constant_mib - 3.0).abs() < 1e-6);
    }
}
