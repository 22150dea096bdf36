//! One report for demo, bench and replay: what was done, how fast, and whether it is all there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// What a run says of itself. The keys are stable.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// What ran.
    pub workload: String,
    /// Length of the measured part, in seconds.
    pub seconds: f64,
    /// Settlements whose settling transaction committed.
    pub settlements_committed: u64,
    /// The same per second of the measured part.
    pub settlements_per_second: f64,
    /// Transactions that committed.
    pub transactions_committed: u64,
    /// The same per second of the measured part.
    pub transactions_per_second: f64,
    /// From building the proposal to the answer of the settling transaction.
    pub settlement_latency_ms: Latency,
    /// From handing over a transaction to its outcome.
    pub transaction_latency_ms: Latency,
    /// Rejections by number and name.
    pub rejected: BTreeMap<String, u64>,
    /// Transactions that no node took in: nothing of them happened.
    pub refused: u64,
    /// Transactions whose outcome was still unknown at the end.
    pub unknown: u64,
    /// Acknowledged transactions that some node does not have, or has otherwise.
    pub lost: u64,
    /// True where all nodes ended with the same head, and each node's history leads to it.
    pub heads_agree: bool,
    /// True where every asset's live outputs add up to its supply, on every node.
    pub conserved: bool,
    /// Receipts verified offline, each signed by a majority of the nodes.
    pub receipts_verified: u64,
    /// Nodes that took part.
    pub nodes: u64,
    /// Validators that took part.
    pub validators: u64,
    /// What was done to the cluster meanwhile.
    pub faults: Vec<String>,
    /// What went wrong, in words; empty for a good run.
    pub problems: Vec<String>,
    /// Figures of a replayed block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<crate::block::GraphFigures>,
    /// The runs that this report sums up, where there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Report>,
}

impl Report {
    /// One report over several runs: counts and times add up, what must hold must hold in each. Latencies are what
    /// `meter` saw of all of them.
    #[must_use]
    pub fn over(workload: &str, runs: Vec<Report>, meter: &Meter) -> Self {
        let mut whole = Self { workload: workload.to_owned(), heads_agree: true, conserved: true, ..Self::default() };
        meter.fill(&mut whole, runs.iter().map(|run| run.seconds).sum());
        for run in &runs {
            whole.unknown += run.unknown;
            whole.lost += run.lost;
            whole.heads_agree &= run.heads_agree;
            whole.conserved &= run.conserved;
            whole.receipts_verified += run.receipts_verified;
            whole.nodes = whole.nodes.max(run.nodes);
            whole.validators = whole.validators.max(run.validators);
            whole.faults.extend(run.faults.iter().cloned());
            whole.problems.extend(run.problems.iter().map(|problem| format!("{}: {problem}", run.workload)));
        }
        whole.runs = runs;
        whole
    }

    /// True where nothing is lost, unknown, unbalanced or at odds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.unknown == 0 && self.heads_agree && self.conserved && self.problems.is_empty()
    }

    /// The report as JSON.
    ///
    /// # Panics
    /// Never: the report holds nothing that JSON cannot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, texts and maps of them are JSON")
    }
}

/// Longest latency that is told apart, in microseconds: ten minutes.
const LATENCY_MAX: u64 = 600_000_000;

/// What workers add to while a run goes on, and a live view reads.
#[derive(Debug)]
pub struct Meter {
    /// Also counts what this one counts.
    whole: Option<Arc<Meter>>,
    /// Settlements committed.
    pub settlements: AtomicU64,
    /// Transactions committed.
    pub transactions: AtomicU64,
    /// Transactions that no node took in.
    pub refused: AtomicU64,
    settlement_latency: Mutex<Histogram<u64>>,
    transaction_latency: Mutex<Histogram<u64>>,
    rejected: Mutex<BTreeMap<String, u64>>,
}

impl Default for Meter {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(LATENCY_MAX, 3).expect("the bounds are constants that are allowed");
        Self {
            whole: None,
            settlements: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            settlement_latency: Mutex::new(histogram()),
            transaction_latency: Mutex::new(histogram()),
            rejected: Mutex::default(),
        }
    }
}

impl Meter {
    /// A meter of one run whose counts also go to the meter of all runs.
    #[must_use]
    pub fn part_of(whole: &Arc<Self>) -> Self {
        Self { whole: Some(Arc::clone(whole)), ..Self::default() }
    }

    /// Counts a committed transaction.
    pub fn transaction(&self, latency: Duration) {
        self.whole.iter().for_each(|whole| whole.transaction(latency));
        self.transactions.fetch_add(1, Ordering::Relaxed);
        record(&self.transaction_latency, latency);
    }

    /// Counts committed settlements that one transaction settled.
    pub fn settled(&self, count: u64, latency: Duration) {
        self.whole.iter().for_each(|whole| whole.settled(count, latency));
        self.settlements.fetch_add(count, Ordering::Relaxed);
        record(&self.settlement_latency, latency);
    }

    /// Counts a rejection.
    pub fn reject(&self, rejection: &ledger::Rejection) {
        self.whole.iter().for_each(|whole| whole.reject(rejection));
        let name = format!("{} {}", rejection.code(), rejection.name());
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }

    /// Latency of settlements so far.
    #[must_use]
    pub fn settlement_latency(&self) -> Latency {
        percentiles(&self.settlement_latency)
    }

    /// Fills in what was measured over this many seconds.
    pub fn fill(&self, report: &mut Report, seconds: f64) {
        report.seconds = seconds;
        report.settlements_committed = self.settlements.load(Ordering::Relaxed);
        report.transactions_committed = self.transactions.load(Ordering::Relaxed);
        report.settlements_per_second = per_second(report.settlements_committed, seconds);
        report.transactions_per_second = per_second(report.transactions_committed, seconds);
        report.settlement_latency_ms = self.settlement_latency();
        report.transaction_latency_ms = percentiles(&self.transaction_latency);
        report.rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report.refused = self.refused.load(Ordering::Relaxed);
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX).min(LATENCY_MAX);
    histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
}

fn percentiles(histogram: &Mutex<Histogram<u64>>) -> Latency {
    let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |quantile: f64| millis(histogram.value_at_quantile(quantile));
    let max = if histogram.is_empty() { 0.0 } else { millis(histogram.max()) };
    Latency { p50: at(0.50), p95: at(0.95), p99: at(0.99), max }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1_000.0
}

/// A rate; counts beyond 2^32 are of no run that ends.
fn per_second(count: u64, seconds: f64) -> f64 {
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if seconds > 0.0 { count / seconds } else { 0.0 }
}
